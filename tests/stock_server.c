/* SPDX-License-Identifier: ISC */
/*
 * The stock server: Hello, Ping, Open, Disconnect, GetInfo, Read, Write, Flush.
 * Everything else is UNIMPLEMENTED.
 */
#include "tests/stock_server.h"

#include <endian.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <pthread.h>

struct stock_server {
    nng_socket socket;
    pthread_t thread;
    uint8_t data[STOCK_SECTORS * PEER_SECTOR];
};

/* One answer in the making. */
struct answer {
    Farblk__V1__ReplyHeader header;
    uint8_t result[1024];
    const uint8_t *payload;
    size_t payload_length;
};

static void
stock_fail(struct answer *answer, int status)
{
    answer->header.status = status;
    answer->header.text = STOCK_TEXT;
}

static void
stock_result(struct answer *answer, const ProtobufCMessage *result)
{
    answer->header.result = (ProtobufCBinaryData){
        protobuf_c_message_pack(result, answer->result), answer->result};
}

static void
stock_hello(struct answer *answer)
{
    Farblk__V1__HelloReply hello = FARBLK__V1__HELLO_REPLY__INIT;
    Farblk__V1__Limits limits = FARBLK__V1__LIMITS__INIT;
    uint8_t secret[16] = "not much of one", instance[16] = "the only one";

    limits.max_requests = 8;
    limits.max_octets = 1u << 20;
    limits.max_payload = 8192; /* small: larger requests come in pieces */
    limits.max_header = 65536;
    limits.max_handles = 4;
    limits.max_extents = 16;
    hello.version = 1;
    hello.session = 0x1122334455667788;
    hello.secret = (ProtobufCBinaryData){sizeof secret, secret};
    hello.instance = (ProtobufCBinaryData){sizeof instance, instance};
    hello.lease_ms = SUPPORT_PATIENCE_MS;
    hello.limits = &limits;
    hello.server = "a stock nng_rep0 socket";
    stock_result(answer, &hello.base);
}

static Farblk__V1__Info
stock_info(void)
{
    Farblk__V1__Info info = FARBLK__V1__INFO__INIT;

    info.read_write = true;
    info.sector_size = PEER_SECTOR;
    info.size_sectors = STOCK_SECTORS;
    info.generation = 1;
    info.max_transfer = 8192;
    info.preferred_transfer = 8192;
    return info;
}

static void
stock_open(struct answer *answer, const ProtobufCBinaryData *args)
{
    Farblk__V1__OpenRequest *open =
        farblk__v1__open_request__unpack(NULL, args->len, args->data);
    Farblk__V1__OpenReply reply = FARBLK__V1__OPEN_REPLY__INIT;
    Farblk__V1__Info info = stock_info();
    uint8_t content[16] = "fresh";

    if (open == NULL || strcmp(open->name, "disk") != 0) {
        stock_fail(answer, FARBLK_NOT_FOUND);
    } else {
        reply.handle = 7;
        reply.info = &info;
        reply.content = (ProtobufCBinaryData){sizeof content, content};
        stock_result(answer, &reply.base);
    }
    if (open != NULL)
        farblk__v1__open_request__free_unpacked(open, NULL);
}

static void
stock_get_info(struct answer *answer)
{
    Farblk__V1__GetInfoReply reply = FARBLK__V1__GET_INFO_REPLY__INIT;
    Farblk__V1__Info info = stock_info();

    reply.info = &info;
    stock_result(answer, &reply.base);
}

static bool
stock_within(uint64_t sector, uint64_t count)
{
    return sector <= STOCK_SECTORS && count <= STOCK_SECTORS - sector;
}

static void
stock_read(struct stock_server *server, struct answer *answer,
           const ProtobufCBinaryData *args)
{
    Farblk__V1__ReadRequest *read =
        farblk__v1__read_request__unpack(NULL, args->len, args->data);

    if (read == NULL || !stock_within(read->sector, read->count)) {
        stock_fail(answer, FARBLK_INVALID);
    } else {
        answer->payload = server->data + read->sector * PEER_SECTOR;
        answer->payload_length = read->count * PEER_SECTOR;
    }
    if (read != NULL)
        farblk__v1__read_request__free_unpacked(read, NULL);
}

static void
stock_write(struct stock_server *server, struct answer *answer,
            const ProtobufCBinaryData *args, const uint8_t *payload,
            size_t length)
{
    Farblk__V1__WriteRequest *write =
        farblk__v1__write_request__unpack(NULL, args->len, args->data);

    if (write == NULL || !stock_within(write->sector, write->count)
        || length != write->count * PEER_SECTOR)
        stock_fail(answer, FARBLK_INVALID);
    else
        memcpy(server->data + write->sector * PEER_SECTOR, payload, length);
    if (write != NULL)
        farblk__v1__write_request__free_unpacked(write, NULL);
}

static void
stock_answer(struct stock_server *server, struct answer *answer,
             const Farblk__V1__RequestHeader *request, const uint8_t *payload,
             size_t length)
{
    switch (request->method) {
    case PEER_HELLO:
        stock_hello(answer);
        break;
    case PEER_OPEN:
        stock_open(answer, &request->args);
        break;
    case PEER_GET_INFO:
        stock_get_info(answer);
        break;
    case PEER_READ:
        stock_read(server, answer, &request->args);
        break;
    case PEER_WRITE:
        stock_write(server, answer, &request->args, payload, length);
        break;
    case PEER_PING:
    case PEER_FLUSH:
    case PEER_DISCONNECT:
        break;
    default:
        stock_fail(answer, FARBLK_UNIMPLEMENTED);
        break;
    }
}

/* Turn the request in `message` into its reply. */
static bool
stock_serve(struct stock_server *server, nng_msg *message)
{
    struct answer answer = {.header = FARBLK__V1__REPLY_HEADER__INIT};
    const uint8_t *body = nng_msg_body(message);
    size_t length = nng_msg_len(message), size;
    Farblk__V1__RequestHeader *request;
    uint32_t header_length;
    uint8_t *reply;

    if (length < 4)
        return false;
    memcpy(&header_length, body, 4);
    header_length = be32toh(header_length);
    if (header_length > length - 4)
        return false;
    request = farblk__v1__request_header__unpack(NULL, header_length, body + 4);
    if (request == NULL)
        return false;
    answer.header.number = request->number;
    if (request->handle != 0) {
        answer.header.generation = 1;
        answer.header.size_sectors = STOCK_SECTORS;
    }
    stock_answer(server, &answer, request, body + 4 + header_length,
                 length - 4 - header_length);
    farblk__v1__request_header__free_unpacked(request, NULL);
    size = farblk__v1__reply_header__get_packed_size(&answer.header);
    reply = malloc(4 + size + answer.payload_length);
    header_length = htobe32((uint32_t)size);
    memcpy(reply, &header_length, 4);
    farblk__v1__reply_header__pack(&answer.header, reply + 4);
    if (answer.payload_length > 0)
        memcpy(reply + 4 + size, answer.payload, answer.payload_length);
    nng_msg_clear(message);
    nng_msg_append(message, reply, 4 + size + answer.payload_length);
    free(reply);
    return true;
}

static void *
stock_run(void *arg)
{
    struct stock_server *server = arg;
    nng_msg *message;

    while (nng_recvmsg(server->socket, &message, 0) == 0)
        if (!stock_serve(server, message)
            || nng_sendmsg(server->socket, message, 0) != 0)
            nng_msg_free(message);
    return NULL;
}

struct stock_server *
stock_server_start(const char *url)
{
    struct stock_server *server = calloc(1, sizeof *server);

    assert_non_null(server);
    assert_int_equal(nng_rep0_open(&server->socket), 0);
    assert_int_equal(nng_listen(server->socket, url, NULL, 0), 0);
    assert_int_equal(pthread_create(&server->thread, NULL, stock_run, server),
                     0);
    return server;
}

void
stock_server_stop(struct stock_server *server)
{
    nng_close(server->socket);
    pthread_join(server->thread, NULL);
    free(server);
}
