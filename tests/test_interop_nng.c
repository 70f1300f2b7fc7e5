/* SPDX-License-Identifier: ISC */
/*
 * Interoperation with plain nng sockets: an nng_req0_open() socket is a valid
 * client of farblkd over every transport, also behind an nng_device, also when
 * it sends again; and our client works against a stock nng_rep0 server.
 */
#include "tests/peer.h"
#include "tests/stock_server.h"
#include "tests/ways.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdio.h>

#define SECTORS 4096u

static void
interop_nng(int result, const char *what)
{
    if (result != 0)
        fail_msg("%s: %s", what, nng_strerror(result));
}

static bool
interop_exchange(struct peer *peer, const uint8_t *body, size_t length,
                 uint8_t **reply, size_t *reply_length)
{
    nng_socket *socket = peer->carrier;
    nng_msg *message;

    if (nng_msg_alloc(&message, 0) != 0
        || nng_msg_append(message, body, length) != 0)
        return false;
    if (nng_sendmsg(*socket, message, 0) != 0) {
        nng_msg_free(message);
        return false;
    }
    if (nng_recvmsg(*socket, &message, 0) != 0)
        return false;
    *reply_length = nng_msg_len(message);
    *reply = malloc(*reply_length + 1);
    memcpy(*reply, nng_msg_body(message), *reply_length);
    nng_msg_free(message);
    return true;
}

static void
interop_dial(struct peer *peer, nng_socket *socket, const char *url)
{
    *peer = (struct peer){.exchange = interop_exchange, .carrier = socket};
    interop_nng(nng_req0_open(socket), "nng_req0_open");
    nng_socket_set_ms(*socket, NNG_OPT_RECVTIMEO, SUPPORT_PATIENCE_MS);
    nng_socket_set_ms(*socket, NNG_OPT_SENDTIMEO, SUPPORT_PATIENCE_MS);
    interop_nng(nng_dial(*socket, url, NULL, 0), url);
}

static void
interop_daemon(struct daemon *daemon, const char *url)
{
    const char *args[] = {"--listen", url, "--export",
                          "disk=ramdisk:disk?size=2M", NULL};

    daemon_start(daemon, args);
}

static void
interop_over(const char *listen)
{
    struct daemon daemon;
    struct peer peer;
    nng_socket socket;

    interop_daemon(&daemon, listen);
    interop_dial(&peer, &socket, daemon.url[0]);
    peer_exercise(&peer, 17, 1);
    nng_close(socket);
    daemon_stop(&daemon);
}

static void
plain_socket_over_ipc(void **state)
{
    char url[300];

    (void)state;
    snprintf(url, sizeof url, "ipc://%s", support_path("s"));
    interop_over(url);
}

static void
plain_socket_over_an_abstract_address(void **state)
{
    char url[300];

    (void)state;
    snprintf(url, sizeof url, "abstract://%s", support_name("farblk"));
    interop_over(url);
}

static void
plain_socket_over_tcp(void **state)
{
    (void)state;
    interop_over("tcp://127.0.0.1:0");
}

static void
plain_socket_over_ws(void **state)
{
    (void)state;
    interop_over("ws://127.0.0.1:0/farblk");
}

static void
plain_socket_over_inproc(void **state)
{
    struct farblk_server *server;
    struct peer peer;
    nng_socket socket;
    char url[300];

    (void)state;
    snprintf(url, sizeof url, "inproc://%s", support_name("interop"));
    ok(farblk_server_create(NULL, &server));
    ok(farblk_server_export(server, "disk", "ramdisk:interop?size=2M"));
    ok(farblk_server_listen(server, url));
    assert_string_equal(farblk_server_url(server, 0), url);
    interop_dial(&peer, &socket, url);
    peer_exercise(&peer, 17, 1);
    nng_close(socket);
    ok(farblk_server_stop(server, -1));
    farblk_server_destroy(server);
    ok(farblk_ramdisk_destroy("interop"));
}

/* Two clients at once, whose requests travel through one nng_device and one
 * connection: replies must carry the whole stack of hops. */
struct device {
    nng_socket front, back;
    pthread_t thread;
};

static void *
interop_device(void *arg)
{
    struct device *device = arg;

    nng_device(device->front, device->back);
    return NULL;
}

struct behind {
    const char *url;
    uint64_t sector;
    struct trouble *trouble;
    pthread_t thread;
};

static void *
interop_behind(void *arg)
{
    struct behind *behind = arg;
    struct peer peer = {.exchange = interop_exchange};
    uint8_t out[4 * PEER_SECTOR], in[4 * PEER_SECTOR] = {0};
    nng_socket socket;

    peer.carrier = &socket;
    if (nng_req0_open(&socket) != 0
        || nng_dial(socket, behind->url, NULL, 0) != 0 || peer_hello(&peer) != 0
        || peer_open(&peer, "disk") != 0)
        trouble_note(behind->trouble, "no session through the device");
    for (unsigned i = 0; i < 200 && !behind->trouble->noted; i++) {
        uint64_t sector = behind->sector + i % 10 * 4;

        pattern_fill(out, sizeof out, behind->sector + i);
        if (peer_write(&peer, sector, 4, out) != 0
            || peer_read(&peer, sector, 4, in) != 0
            || memcmp(in, out, sizeof in) != 0)
            trouble_note(behind->trouble, "round %u through the device: %s", i,
                         peer.header != NULL ? peer.header->text : "");
    }
    peer_free(&peer);
    nng_close(socket);
    return NULL;
}

static void
two_plain_sockets_through_one_device(void **state)
{
    struct daemon daemon;
    struct device device;
    struct behind clients[2];
    struct trouble trouble = {0};
    char front[300], url[300];

    (void)state;
    snprintf(url, sizeof url, "ipc://%s", support_path("s"));
    snprintf(front, sizeof front, "inproc://%s", support_name("device"));
    interop_daemon(&daemon, url);
    interop_nng(nng_rep0_open_raw(&device.front), "nng_rep0_open_raw");
    interop_nng(nng_req0_open_raw(&device.back), "nng_req0_open_raw");
    interop_nng(nng_listen(device.front, front, NULL, 0), front);
    interop_nng(nng_dial(device.back, url, NULL, 0), url);
    assert_int_equal(
        pthread_create(&device.thread, NULL, interop_device, &device), 0);
    for (unsigned i = 0; i < 2; i++) {
        clients[i] = (struct behind){
            .url = front, .sector = 100 + i * 100, .trouble = &trouble};
        assert_int_equal(pthread_create(&clients[i].thread, NULL,
                                        interop_behind, &clients[i]),
                         0);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(clients[i].thread, NULL);
    nng_close(device.front);
    nng_close(device.back);
    pthread_join(device.thread, NULL);
    trouble_assert_none(&trouble);
    daemon_stop(&daemon);
}

static void
request_that_comes_again_is_executed_once(void **state)
{
    Farblk__V1__WriteRequest write = FARBLK__V1__WRITE_REQUEST__INIT;
    struct daemon daemon;
    struct peer peer;
    nng_socket socket;
    uint8_t first[PEER_SECTOR], second[PEER_SECTOR], in[PEER_SECTOR];
    uint8_t *again;
    size_t length;

    (void)state;
    interop_daemon(&daemon, "tcp://127.0.0.1:0");
    interop_dial(&peer, &socket, daemon.url[0]);
    assert_int_equal(peer_hello(&peer), 0);
    assert_int_equal(peer_open(&peer, "disk"), 0);
    pattern_fill(first, sizeof first, 1);
    pattern_fill(second, sizeof second, 2);
    write.sector = 5;
    write.count = 1;
    again =
        peer_pack(&peer, PEER_WRITE, &write.base, first, sizeof first, &length);
    assert_int_equal(peer_send(&peer, again, length), 0);
    /* The same bytes at once: the reply that was kept. */
    assert_int_equal(peer_send(&peer, again, length), 0);
    assert_int_equal(peer.header->number, peer.number);
    peer_free(&peer);
    /* Another write by another session, then once more: it must stay. */
    {
        struct peer other;
        nng_socket others;

        interop_dial(&other, &others, daemon.url[0]);
        assert_int_equal(peer_hello(&other), 0);
        assert_int_equal(peer_open(&other, "disk"), 0);
        assert_int_equal(peer_write(&other, 5, 1, second), 0);
        assert_int_equal(peer_send(&peer, again, length), 0);
        assert_int_equal(peer_read(&other, 5, 1, in), 0);
        assert_memory_equal(in, second, sizeof in);
        peer_free(&other);
        nng_close(others);
    }
    /* Once a higher `lowest` told that it was answered, it is refused. */
    assert_int_equal(peer_read(&peer, 5, 1, in), 0);
    assert_int_equal(peer_send(&peer, again, length), FARBLK_CONFLICT);
    assert_int_equal(peer_read(&peer, 5, 1, in), 0);
    assert_memory_equal(in, second, sizeof in);
    free(again);
    peer_free(&peer);
    nng_close(socket);
    daemon_stop(&daemon);
}

/* nng itself sends again what is not answered in time: a watch, so that there
 * is such a time, then a resize. */
static void
nngs_own_resend_is_fine(void **state)
{
    Farblk__V1__WatchInfoRequest watch = FARBLK__V1__WATCH_INFO_REQUEST__INIT;
    Farblk__V1__ResizeRequest resize = FARBLK__V1__RESIZE_REQUEST__INIT;
    struct daemon daemon;
    struct peer peer;
    nng_socket socket;
    uint8_t in[PEER_SECTOR];

    (void)state;
    interop_daemon(&daemon, "tcp://127.0.0.1:0");
    interop_dial(&peer, &socket, daemon.url[0]);
    nng_socket_set_ms(socket, NNG_OPT_REQ_RESENDTIME, 10);
    assert_int_equal(peer_hello(&peer), 0);
    assert_int_equal(peer_open(&peer, "disk"), 0);
    for (unsigned i = 0; i < 3; i++) {
        watch.generation = peer.header->generation;
        watch.timeout_ms = 100;
        assert_int_equal(
            peer_call(&peer, PEER_WATCH_INFO, &watch.base, NULL, 0),
            FARBLK_TIMED_OUT);
        resize.size_sectors = SECTORS + i;
        assert_int_equal(peer_call(&peer, PEER_RESIZE, &resize.base, NULL, 0),
                         0);
        assert_int_equal(peer.header->size_sectors, SECTORS + i);
        assert_int_equal(peer_read(&peer, SECTORS + i - 1, 1, in), 0);
    }
    peer_free(&peer);
    nng_close(socket);
    daemon_stop(&daemon);
}

/* A Hello that comes again, with its nonce, gives the session of the first. */
static void
repeated_hello_gives_the_same_session(void **state)
{
    Farblk__V1__HelloRequest hello = FARBLK__V1__HELLO_REQUEST__INIT;
    uint8_t nonce[16] = "sixteen octets.";
    uint64_t sessions[3];
    struct daemon daemon;
    struct peer peer;
    nng_socket socket;

    (void)state;
    interop_daemon(&daemon, "tcp://127.0.0.1:0");
    interop_dial(&peer, &socket, daemon.url[0]);
    hello.version = 1;
    for (unsigned i = 0; i < 3; i++) {
        Farblk__V1__HelloReply *reply;

        nonce[0] = i == 2;
        hello.nonce = (ProtobufCBinaryData){sizeof nonce, nonce};
        assert_int_equal(peer_call(&peer, PEER_HELLO, &hello.base, NULL, 0), 0);
        reply = farblk__v1__hello_reply__unpack(NULL, peer.header->result.len,
                                                peer.header->result.data);
        assert_non_null(reply);
        sessions[i] = reply->session;
        farblk__v1__hello_reply__free_unpacked(reply, NULL);
    }
    assert_int_equal(sessions[0], sessions[1]);
    assert_int_not_equal(sessions[0], sessions[2]);
    hello.version = 0; /* of no protocol */
    nonce[0] = 9;
    assert_int_not_equal(peer_call(&peer, PEER_HELLO, &hello.base, NULL, 0), 0);
    peer_free(&peer);
    nng_close(socket);
    daemon_stop(&daemon);
}

static void
interop_stock(const char *listen, const char *uri)
{
    struct stock_server *server = stock_server_start(listen);
    struct farblk *dev = NULL;
    uint8_t out[40 * PEER_SECTOR], in[40 * PEER_SECTOR] = {0};
    uint64_t sector;

    ok(farblk_open(uri, NULL, &dev));
    assert_int_equal(support_info(dev).size_sectors, STOCK_SECTORS);
    assert_int_equal(support_info(dev).sector_size, PEER_SECTOR);
    pattern_fill(out, sizeof out, 1);
    ok(support_write(dev, 7, out, sizeof out, 0));
    ok(support_read(dev, 7, in, sizeof in));
    assert_memory_equal(in, out, sizeof in);
    ok(farblk_flush(dev));
    fails_with(FARBLK_INVALID,
               support_read(dev, STOCK_SECTORS, in, PEER_SECTOR));
    text_has(STOCK_TEXT);
    fails_with(FARBLK_UNIMPLEMENTED, farblk_seek_mapped(dev, 0, &sector));
    fails_with(FARBLK_NOT_FOUND, farblk_open("farblk+unix:///x?socket=/no/such",
                                             NULL, &(struct farblk *){NULL}));
    ok(farblk_close(dev));
    stock_server_stop(server);
}

static void
our_client_with_a_stock_server_over_ipc(void **state)
{
    const char *path = support_path("s");
    char url[300], uri[400];

    (void)state;
    snprintf(url, sizeof url, "ipc://%s", path);
    snprintf(uri, sizeof uri, "farblk+unix:///disk?socket=%s", path);
    interop_stock(url, uri);
}

static void
our_client_with_a_stock_server_over_inproc(void **state)
{
    const char *name = support_name("stock");
    char url[300], uri[400];

    (void)state;
    snprintf(url, sizeof url, "inproc://%s", name);
    snprintf(uri, sizeof uri, "farblk+inproc:///disk?address=%s", name);
    interop_stock(url, uri);
}

static int
interop_setup(void **state)
{
    (void)state;
    support_watch("interop");
    return 0;
}

static int
interop_teardown(void **state)
{
    (void)state;
    support_watch(NULL);
    daemon_kill_all();
    return 0;
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, interop_setup, interop_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(plain_socket_over_ipc),
        TEST(plain_socket_over_an_abstract_address),
        TEST(plain_socket_over_tcp),
        TEST(plain_socket_over_ws),
        TEST(plain_socket_over_inproc),
        TEST(two_plain_sockets_through_one_device),
        TEST(request_that_comes_again_is_executed_once),
        TEST(nngs_own_resend_is_fine),
        TEST(repeated_hello_gives_the_same_session),
        TEST(our_client_with_a_stock_server_over_ipc),
        TEST(our_client_with_a_stock_server_over_inproc),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
