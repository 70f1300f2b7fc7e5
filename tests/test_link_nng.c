/* SPDX-License-Identifier: ISC */
/*
 * Links and nng's own sockets: plain REQ clients against a listener of ours,
 * directly and through a device, and our dialer against a stock REP server.
 */
#include "tests/link_ends.h"

#include "proto/sp.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>

#include <pthread.h>
#include <stdio.h>

static const char *scheme; /* of the group that runs */

static void
good(int result, const char *what)
{
    if (result != 0)
        fail_msg("%s: %s", what, nng_strerror(result));
}

static nng_socket
open_req(const char *url)
{
    nng_socket socket;

    good(nng_req0_open(&socket), "req0");
    good(nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, SUPPORT_PATIENCE_MS),
         "timeout");
    good(nng_socket_set_ms(socket, NNG_OPT_SENDTIMEO, SUPPORT_PATIENCE_MS),
         "timeout");
    /* One that is resent would be echoed twice. */
    good(nng_socket_set_ms(socket, NNG_OPT_REQ_RESENDTIME,
                           NNG_DURATION_INFINITE),
         "resend time");
    good(nng_dial(socket, url, NULL, 0), url);
    return socket;
}

/* One request of a plain socket, whose echo must be the same.  Its request id
 * is unknown here, so the other end must not check the content. */
static void
exchange(nng_socket socket, size_t header_length, size_t payload_length,
         uint64_t seed)
{
    size_t length = 4 + header_length + payload_length;
    nng_msg *message;

    good(nng_msg_alloc(&message, length), "message");
    uint8_t *body = nng_msg_body(message);
    sp_put32(body, (uint32_t)header_length);
    pattern_fill(body + 4, length - 4, seed);
    good(nng_sendmsg(socket, message, 0), "send");
    good(nng_recvmsg(socket, &message, 0), "receive");
    assert_int_equal(nng_msg_len(message), length);
    body = nng_msg_body(message);
    assert_int_equal(sp_get32(body), header_length);
    assert_int_equal(pattern_check(body + 4, length - 4, seed), length - 4);
    nng_msg_free(message);
}

static void
exchange_many(nng_socket socket, uint64_t seed)
{
    for (unsigned i = 0; i < 100; i++)
        exchange(socket, i % 7 * 50, i % 13 * 5000, seed + i);
    exchange(socket, WIRE_HEADER_MAX, 1u << 20, seed);
}

/* Ends that echo do not look at what they echo: a plain socket's pattern does
 * not follow from the id. */
static void
forget_bad(struct link_end *end)
{
    link_end_wait_closed(end);
    end->bad = 0;
    link_end_free(end);
}

static void
a_plain_req_socket_is_answered(void **state)
{
    struct link_post post = {.model.echo = true};

    (void)state;
    support_watch(scheme);
    link_post_open(&post, link_test_url(scheme), &link_generous);
    nng_socket socket = open_req(link_listener_url(post.listener));
    struct link_end *end = link_post_take(&post);
    exchange_many(socket, 1);
    nng_close(socket);
    forget_bad(end);
    link_post_close(&post);
}

static void
a_plain_req_socket_that_sends_garbage_is_closed(void **state)
{
    struct link_post post = {.model.echo = true};
    nng_msg *message;

    (void)state;
    support_watch(scheme);
    link_post_open(&post, link_test_url(scheme), &link_generous);
    nng_socket socket = open_req(link_listener_url(post.listener));
    struct link_end *end = link_post_take(&post);
    good(nng_msg_alloc(&message, 0), "message");
    good(nng_msg_append_u32(message, 500), "append");
    good(nng_msg_append(message, "short", 5), "append");
    good(nng_sendmsg(socket, message, 0), "send");
    link_end_wait(end, &end->closed, 1);
    assert_int_equal(end->status, FARBLK_PROTOCOL);
    assert_non_null(strstr(end->reason, "header of 500 octets in a frame with "
                                        "5 left"));
    nng_close(socket);
    forget_bad(end);
    /* It may have dialed again. */
    link_listener_close(post.listener);
    while (post.first != NULL) {
        end = link_post_take(&post);
        link_close(end->link, false);
        forget_bad(end);
    }
}

struct forwarder {
    nng_socket front, back;
    pthread_t thread;
};

static void *
forward(void *arg)
{
    struct forwarder *forwarder = arg;

    nng_device(forwarder->front, forwarder->back);
    return NULL;
}

static void
two_plain_req_sockets_are_answered_through_one_device(void **state)
{
    struct link_post post = {.model.echo = true};
    struct forwarder forwarder;
    char url[128];

    (void)state;
    support_watch(scheme);
    link_post_open(&post, link_test_url(scheme), &link_generous);
    snprintf(url, sizeof url, "inproc://%s", support_name("device"));
    good(nng_rep0_open_raw(&forwarder.front), "rep0");
    good(nng_req0_open_raw(&forwarder.back), "req0");
    good(nng_listen(forwarder.front, url, NULL, 0), url);
    good(nng_dial(forwarder.back, link_listener_url(post.listener), NULL, 0),
         "dial");
    assert_int_equal(
        pthread_create(&forwarder.thread, NULL, forward, &forwarder), 0);
    struct link_end *end = link_post_take(&post);
    nng_socket one = open_req(url), two = open_req(url);
    for (unsigned i = 0; i < 50; i++) {
        exchange(one, 20, i * 1000, i);
        exchange(two, 30, i * 500, i + 77);
    }
    assert_int_equal(end->last_stack, 8); /* a hop and an id */
    nng_close(one);
    nng_close(two);
    nng_close(forwarder.front);
    nng_close(forwarder.back);
    pthread_join(forwarder.thread, NULL);
    forget_bad(end);
    link_post_close(&post);
}

/* A stock server that sends everything back, from several contexts. */
struct server {
    nng_socket socket;
    pthread_t thread[4];
};

static void *
serve(void *arg)
{
    struct server *server = arg;
    nng_ctx context;
    nng_aio *aio;

    if (nng_ctx_open(&context, server->socket) != 0
        || nng_aio_alloc(&aio, NULL, NULL) != 0)
        return NULL;
    for (;;) {
        nng_ctx_recv(context, aio);
        nng_aio_wait(aio);
        if (nng_aio_result(aio) != 0)
            break;
        /* The message stays in the aio: send it back. */
        nng_ctx_send(context, aio);
        nng_aio_wait(aio);
        if (nng_aio_result(aio) != 0) {
            nng_msg_free(nng_aio_get_msg(aio));
            break;
        }
    }
    nng_aio_free(aio);
    nng_ctx_close(context);
    return NULL;
}

static void
our_dialer_talks_to_a_stock_rep_server(void **state)
{
    struct server server;
    nng_listener listener;
    char url[512];
    int port;

    (void)state;
    support_watch(scheme);
    good(nng_rep0_open(&server.socket), "rep0");
    snprintf(url, sizeof url, "%s", link_test_url(scheme));
    good(nng_listen(server.socket, url, &listener, 0), url);
    if (nng_listener_get_int(listener, NNG_OPT_TCP_BOUND_PORT, &port) == 0)
        snprintf(url, sizeof url, "%s://127.0.0.1:%d%s", scheme, port,
                 strcmp(scheme, "ws") == 0 ? "/farblk" : "");
    for (int i = 0; i < 4; i++)
        assert_int_equal(
            pthread_create(&server.thread[i], NULL, serve, &server), 0);
    struct link_end *end = link_end_dial(url, &link_generous);
    for (unsigned i = 0; i < 500; i++) {
        link_end_send(end, i, i % 100, i % 50 * 5000, 1 + i % 3);
        if (i >= 30)
            link_end_wait(end, &end->frames, i - 30);
    }
    link_end_wait(end, &end->frames, 500);
    link_end_close(end);
    nng_close(server.socket);
    for (int i = 0; i < 4; i++)
        pthread_join(server.thread[i], NULL);
}

/* A link's end is told when the stock server goes; by websockets of nng 1.5.2
 * now and then only because nothing can be sent any more. */
static void
a_stock_server_that_closes_is_told(void **state)
{
    struct link_limits limits = link_generous;
    bool websocket = strcmp(scheme, "ws") == 0;
    nng_socket socket;
    nng_listener listener;
    char url[512];
    int port;

    (void)state;
    support_watch(scheme);
    good(nng_rep0_open(&socket), "rep0");
    snprintf(url, sizeof url, "%s", link_test_url(scheme));
    good(nng_listen(socket, url, &listener, 0), url);
    if (nng_listener_get_int(listener, NNG_OPT_TCP_BOUND_PORT, &port) == 0)
        snprintf(url, sizeof url, "%s://127.0.0.1:%d%s", scheme, port,
                 websocket ? "/farblk" : "");
    if (websocket)
        limits.frame_ms = 2000;
    struct link_end *end = link_end_dial(url, &limits);
    link_end_send(end, 1, 10, 10, 1);
    link_end_wait(end, &end->sents, 1);
    nng_close(socket);
    link_end_wait_closed(end);
    if (!websocket || end->status != FARBLK_TIMED_OUT)
        assert_int_equal(end->status, FARBLK_CONNECTION_LOST);
    link_end_free(end);
}

int
main(void)
{
    static const char *const schemes[] = {"ipc", "abstract", "tcp", "inproc",
                                          "ws"};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_req_socket_is_answered),
        cmocka_unit_test(a_plain_req_socket_that_sends_garbage_is_closed),
        cmocka_unit_test(two_plain_req_sockets_are_answered_through_one_device),
        cmocka_unit_test(our_dialer_talks_to_a_stock_rep_server),
        cmocka_unit_test(a_stock_server_that_closes_is_told),
    };
    int failed = 0;

    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        scheme = schemes[i];
        failed += cmocka_run_group_tests_name(scheme, tests, NULL, NULL);
    }
    support_watch(NULL);
    return failed;
}
