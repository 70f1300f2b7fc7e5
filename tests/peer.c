/* SPDX-License-Identifier: ISC */
/*
 * The foreign peer: messages by protobuf-c, and SP frames on plain sockets.
 */
#include "tests/peer.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

uint8_t *
peer_pack(struct peer *peer, uint32_t method, const ProtobufCMessage *args,
          const void *payload, size_t payload_length, size_t *length)
{
    Farblk__V1__RequestHeader header = FARBLK__V1__REQUEST_HEADER__INIT;
    size_t args_length = protobuf_c_message_get_packed_size(args);
    uint8_t *packed = malloc(args_length + 1), *body;
    uint32_t header_length;

    assert_non_null(packed);
    header.method = method;
    header.session = method == PEER_HELLO ? 0 : peer->session;
    header.number = method == PEER_HELLO ? 0 : ++peer->number;
    header.lowest = header.number;
    header.handle = peer->handle;
    if (peer->send_secret && header.session != 0)
        header.secret = (ProtobufCBinaryData){16, peer->secret};
    header.args =
        (ProtobufCBinaryData){protobuf_c_message_pack(args, packed), packed};
    *length = 4 + farblk__v1__request_header__get_packed_size(&header)
              + payload_length;
    body = malloc(*length);
    assert_non_null(body);
    header_length =
        (uint32_t)farblk__v1__request_header__pack(&header, body + 4);
    header_length = htobe32(header_length);
    memcpy(body, &header_length, 4);
    if (payload_length > 0)
        memcpy(body + *length - payload_length, payload, payload_length);
    free(packed);
    return body;
}

int
peer_send(struct peer *peer, const uint8_t *body, size_t length)
{
    uint8_t *reply = NULL;
    size_t reply_length = 0;
    uint32_t header_length;

    peer_free(peer);
    if (!peer->exchange(peer, body, length, &reply, &reply_length)) {
        free(reply);
        return 1;
    }
    peer->body = reply;
    if (reply_length < 4)
        return FARBLK_PROTOCOL;
    memcpy(&header_length, reply, 4);
    header_length = be32toh(header_length);
    if (header_length > reply_length - 4)
        return FARBLK_PROTOCOL;
    peer->header =
        farblk__v1__reply_header__unpack(NULL, header_length, reply + 4);
    if (peer->header == NULL)
        return FARBLK_PROTOCOL;
    peer->payload = reply + 4 + header_length;
    peer->payload_length = reply_length - 4 - header_length;
    return peer->header->status;
}

int
peer_call(struct peer *peer, uint32_t method, const ProtobufCMessage *args,
          const void *payload, size_t payload_length)
{
    size_t length;
    uint8_t *body =
        peer_pack(peer, method, args, payload, payload_length, &length);
    int status = peer_send(peer, body, length);

    free(body);
    return status;
}

void
peer_free(struct peer *peer)
{
    if (peer->header != NULL)
        farblk__v1__reply_header__free_unpacked(peer->header, NULL);
    free(peer->body);
    peer->header = NULL;
    peer->body = NULL;
}

int
peer_hello(struct peer *peer)
{
    Farblk__V1__HelloRequest hello = FARBLK__V1__HELLO_REQUEST__INIT;
    Farblk__V1__HelloReply *reply;
    uint8_t nonce[16];
    static _Atomic unsigned count;
    struct rng rng = {.state = 0x6e6f6e6365u + count++};
    int status;

    for (size_t i = 0; i < sizeof nonce; i++)
        nonce[i] = (uint8_t)rng_next(&rng);
    hello.version = 1;
    hello.nonce = (ProtobufCBinaryData){sizeof nonce, nonce};
    hello.client = "a plain peer";
    status = peer_call(peer, PEER_HELLO, &hello.base, NULL, 0);
    if (status != 0)
        return status;
    reply = farblk__v1__hello_reply__unpack(NULL, peer->header->result.len,
                                            peer->header->result.data);
    if (reply == NULL || reply->version != 1 || reply->session == 0
        || reply->secret.len != sizeof peer->secret || reply->instance.len != 16
        || reply->lease_ms == 0 || reply->limits == NULL
        || reply->limits->max_requests == 0 || reply->limits->max_payload < 512)
        status = FARBLK_PROTOCOL;
    if (status == 0) {
        peer->session = reply->session;
        memcpy(peer->secret, reply->secret.data, sizeof peer->secret);
    }
    if (reply != NULL)
        farblk__v1__hello_reply__free_unpacked(reply, NULL);
    return status;
}

int
peer_open(struct peer *peer, const char *name)
{
    Farblk__V1__OpenRequest open = FARBLK__V1__OPEN_REQUEST__INIT;
    Farblk__V1__OpenReply *reply;
    int status;

    open.name = (char *)(uintptr_t)name;
    status = peer_call(peer, PEER_OPEN, &open.base, NULL, 0);
    if (status != 0)
        return status;
    reply = farblk__v1__open_reply__unpack(NULL, peer->header->result.len,
                                           peer->header->result.data);
    if (reply == NULL || reply->info == NULL
        || reply->info->sector_size != PEER_SECTOR || reply->content.len != 16)
        status = FARBLK_PROTOCOL;
    else
        peer->handle = reply->handle;
    if (reply != NULL)
        farblk__v1__open_reply__free_unpacked(reply, NULL);
    return status;
}

int
peer_write(struct peer *peer, uint64_t sector, uint64_t count, const void *data)
{
    Farblk__V1__WriteRequest write = FARBLK__V1__WRITE_REQUEST__INIT;

    write.sector = sector;
    write.count = count;
    return peer_call(peer, PEER_WRITE, &write.base, data, count * PEER_SECTOR);
}

int
peer_read(struct peer *peer, uint64_t sector, uint64_t count, void *data)
{
    Farblk__V1__ReadRequest read = FARBLK__V1__READ_REQUEST__INIT;
    int status;

    read.sector = sector;
    read.count = count;
    status = peer_call(peer, PEER_READ, &read.base, NULL, 0);
    if (status != 0)
        return status;
    if (peer->payload_length != count * PEER_SECTOR)
        return FARBLK_PROTOCOL;
    memcpy(data, peer->payload, peer->payload_length);
    return 0;
}

void
peer_exercise(struct peer *peer, uint64_t sector, uint64_t seed)
{
    Farblk__V1__DisconnectRequest bye = FARBLK__V1__DISCONNECT_REQUEST__INIT;
    uint8_t out[8 * PEER_SECTOR], in[8 * PEER_SECTOR] = {0};

    assert_int_equal(peer_hello(peer), 0);
    assert_int_equal(peer_open(peer, "no-such-export"), FARBLK_NOT_FOUND);
    assert_non_null(strstr(peer->header->text, "no-such-export"));
    assert_int_equal(peer_open(peer, "disk"), 0);
    pattern_fill(out, sizeof out, seed);
    assert_int_equal(peer_write(peer, sector, 8, out), 0);
    assert_int_equal(peer->header->number, peer->number);
    assert_int_equal(peer_read(peer, sector, 8, in), 0);
    assert_memory_equal(in, out, sizeof in);
    assert_int_equal(peer_read(peer, UINT64_MAX, 8, in), FARBLK_INVALID);
    assert_string_not_equal(peer->header->text, "");
    assert_int_equal(peer_write(peer, 1u << 30, 8, out), FARBLK_INVALID);
    assert_int_equal(peer->header->effect, FARBLK_EFFECT_NONE);
    assert_int_equal(peer_read(peer, sector, 8, in), 0);
    assert_memory_equal(in, out, sizeof in);
    assert_int_equal(peer_call(peer, PEER_DISCONNECT, &bye.base, NULL, 0), 0);
    assert_int_equal(peer_read(peer, sector, 8, in), FARBLK_DISCONNECTED);
    peer_free(peer);
}

/* Calls with a time limit end by EINTR when the process was stopped and goes on,
 * without a signal's being handled. */
bool
peer_send_all(int fd, const void *from, size_t length)
{
    const uint8_t *octets = from;

    while (length > 0) {
        ssize_t n = send(fd, octets, length, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        octets += n;
        length -= (size_t)n;
    }
    return true;
}

bool
peer_receive_all(int fd, void *to, size_t length)
{
    uint8_t *octets = to;

    while (length > 0) {
        ssize_t n = recv(fd, octets, length, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        octets += n;
        length -= (size_t)n;
    }
    return true;
}

bool
peer_is_closed(int fd)
{
    uint8_t octets[4096];
    ssize_t n;

    /* What it still had to say does not matter. */
    while ((n = recv(fd, octets, sizeof octets, 0)) > 0
           || (n < 0 && errno == EINTR))
        ;
    return n == 0 || errno == ECONNRESET || errno == EPIPE;
}

static bool
peer_greet(int fd)
{
    static const uint8_t greeting[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    static const uint8_t wanted[8] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};
    uint8_t heard[8];

    return peer_send_all(fd, greeting, sizeof greeting)
           && peer_receive_all(fd, heard, sizeof heard)
           && memcmp(heard, wanted, sizeof heard) == 0;
}

int
peer_connect(const char *url, bool greet)
{
    struct timeval patience = {.tv_sec = SUPPORT_PATIENCE_MS / 1000};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in inet = {.sin_family = AF_INET};
    bool ipc = strncmp(url, "ipc://", 6) == 0;
    int fd = socket(ipc ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (!ipc)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    snprintf(local.sun_path, sizeof local.sun_path, "%s", url + 6);
    if (!ipc) {
        inet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        inet.sin_port =
            htons((uint16_t)strtoul(strrchr(url, ':') + 1, NULL, 10));
    }
    if (connect(fd, ipc ? (struct sockaddr *)&local : (struct sockaddr *)&inet,
                ipc ? sizeof local : sizeof inet)
            != 0
        || (greet && !peer_greet(fd))) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool
peer_exchange_stream(struct peer *peer, const uint8_t *body, size_t length,
                     uint8_t **reply, size_t *reply_length)
{
    uint8_t head[13] = {1};
    uint64_t octets = htobe64(length + 4);
    uint32_t id = htobe32(0x80000000u | ++peer->id), heard;
    size_t from = peer->ipc ? 0 : 1;

    memcpy(head + 1, &octets, 8);
    memcpy(head + 9, &id, 4);
    if (!peer_send_all(peer->fd, head + from, sizeof head - from)
        || !peer_send_all(peer->fd, body, length)
        || !peer_receive_all(peer->fd, head + from, sizeof head - from))
        return false;
    memcpy(&octets, head + 1, 8);
    memcpy(&heard, head + 9, 4);
    octets = be64toh(octets);
    if (head[0] != 1 || octets < 4 || octets > 1u << 26 || heard != id) {
        print_error("not a reply to %08x: %llu octets for %08x\n", be32toh(id),
                    (unsigned long long)octets, be32toh(heard));
        return false;
    }
    *reply_length = octets - 4;
    *reply = malloc(*reply_length + 1);
    return *reply != NULL && peer_receive_all(peer->fd, *reply, *reply_length);
}

bool
peer_init_fd(struct peer *peer, int fd, bool ipc)
{
    *peer =
        (struct peer){.exchange = peer_exchange_stream, .ipc = ipc, .fd = fd};
    if (fd < 0 || peer_greet(fd))
        return fd >= 0;
    close(fd);
    peer->fd = -1;
    return false;
}

bool
peer_init_stream(struct peer *peer, const char *url)
{
    return peer_init_fd(peer, peer_connect(url, false),
                        strncmp(url, "ipc://", 6) == 0);
}
