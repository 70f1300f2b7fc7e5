/* SPDX-License-Identifier: ISC */
/*
 * What bounds the server: back-pressure, connections, sessions, handles,
 * memory, leases, and its end.
 */
#include "tests/server_fixture.h"

#include "core/block.h"

#include <stdio.h>

static struct fixture fixture;
static struct peer peer, other;

/* ------------------------------------------------------------ back-pressure */

static void
more_requests_than_the_limit_wait_and_all_succeed(void **state)
{
    enum { COUNT = 500 };
    static uint32_t ids[COUNT];
    static uint8_t data[512];
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_requests = 4};
    struct farblk_server_stats stats;
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, &options);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    fixture_plug(&fixture);
    for (unsigned i = 0; i < COUNT; i++) {
        struct codec_request write = peer_request(&peer, WIRE_WRITE, handle);
        write.args.range.sector = i;
        write.args.range.count = 1;
        ids[i] = peer_send(&peer, &write, data, 512);
    }
    fixture_await(&fixture, now, now.requests == 4);
    fixture_stats(&fixture, &stats);
    assert_int_equal(stats.requests, 4);
    assert_int_equal(stats.octets, 4 * 512);
    fixture_unplug(&fixture);
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(peer_wait(&peer, ids[i], WIRE_WRITE, &reply, NULL, 0),
                         0);
    fixture_await(&fixture, now, now.requests == 0 && now.octets == 0);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
more_octets_than_the_limit_wait_and_all_succeed(void **state)
{
    enum { COUNT = 100, LENGTH = 65536 };
    static uint32_t ids[COUNT];
    static uint8_t data[LENGTH];
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_payload = LENGTH,
                                            .max_octets = 3 * LENGTH};
    struct farblk_server_stats stats;
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, &options);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    fixture_plug(&fixture);
    for (unsigned i = 0; i < COUNT; i++) {
        struct codec_request ask =
            peer_request(&peer, i % 2 == 0 ? WIRE_WRITE : WIRE_READ, handle);
        ask.args.range.count = LENGTH / 512;
        ids[i] = peer_send(&peer, &ask, data, i % 2 == 0 ? LENGTH : 0);
    }
    fixture_await(&fixture, now, now.requests == 3);
    fixture_stats(&fixture, &stats);
    assert_int_equal(stats.requests, 3);
    assert_int_equal(stats.octets, 3 * LENGTH);
    fixture_unplug(&fixture);
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(peer_wait(&peer, ids[i],
                                   i % 2 == 0 ? WIRE_WRITE : WIRE_READ, &reply,
                                   data, i % 2 == 0 ? 0 : LENGTH),
                         0);
    fixture_await(&fixture, now, now.requests == 0 && now.octets == 0);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
peer_that_does_not_read_holds_up_only_itself(void **state)
{
    enum { COUNT = 400, LENGTH = 65536 };
    static uint32_t ids[COUNT];
    static uint8_t data[LENGTH];
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_requests = 16};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, &options);
    peer_begin(&peer, fixture.url);
    peer_begin(&other, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    uint64_t theirs = peer_open(&other, "disk");
    link_hold(peer.link);
    for (unsigned i = 0; i < COUNT; i++) {
        struct codec_request read = peer_request(&peer, WIRE_READ, handle);
        read.args.range.count = LENGTH / 512;
        ids[i] = peer_send(&peer, &read, NULL, 0);
    }
    fixture_await(&fixture, now, now.requests >= 8);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(peer_write(&other, theirs, i, data, 512), 0);
        assert_int_equal(peer_read(&other, theirs, i, data, 512), 0);
    }
    link_release(peer.link);
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(
            peer_wait(&peer, ids[i], WIRE_READ, &reply, data, LENGTH), 0);
    peer_end(&peer);
    peer_end(&other);
    fixture_end(&fixture);
}

static void
peer_that_goes_away_leaves_nothing_behind(void **state)
{
    static uint8_t data[65536];
    (void)state;
    fixture_start(&fixture, NULL);
    for (unsigned round = 0; round < 20; round++) {
        peer_begin(&peer, fixture.url);
        uint64_t handle = peer_open(&peer, "disk");
        for (unsigned i = 0; i < 64; i++) {
            struct codec_request ask =
                peer_request(&peer, i % 2 ? WIRE_WRITE : WIRE_READ, handle);
            ask.args.range.count = sizeof data / 512;
            peer_send(&peer, &ask, data, i % 2 ? sizeof data : 0);
        }
        peer_end(&peer);
    }
    fixture_await(&fixture, now,
                  now.requests == 0 && now.octets == 0 && now.connections == 0);
    /* Their leases hold the handles. */
    fixture_await(&fixture, now, now.sessions == 20 && now.handles == 20);
    fixture_end(&fixture);
}

/* ------------------------------------------------------------ caps */

static void
connections_above_the_limit_are_refused(void **state)
{
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_connections = 2};
    struct peer third;
    (void)state;
    fixture_start(&fixture, &options);
    peer_begin(&peer, fixture.url);
    peer_begin(&other, fixture.url);
    peer_connect(&third, fixture.url);
    peer_wait_closed(&third);
    peer_end(&third);
    fixture_await(&fixture, now, now.refused == 1 && now.accepted == 2);
    peer_end(&other);
    fixture_await(&fixture, now, now.connections == 1);
    peer_begin(&third, fixture.url);
    peer_end(&third);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
some_connections_are_kept_for_other_users(void **state)
{
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_connections = 32};
    static struct peer peers[30];
    struct peer more, tcp;
    (void)state;
    fixture_start(&fixture, &options);
    ok(farblk_server_listen(fixture.server, "tcp://127.0.0.1:0"));
    for (unsigned i = 0; i < 30; i++)
        peer_begin(&peers[i], fixture.url);
    peer_connect(&more, fixture.url);
    peer_wait_closed(&more);
    peer_end(&more);
    peer_begin(&tcp, farblk_server_url(fixture.server, 1));
    peer_end(&tcp);
    for (unsigned i = 0; i < 30; i++)
        peer_end(&peers[i]);
    fixture_end(&fixture);
}

static void
sessions_above_the_limit_are_busy_unless_one_is_abandoned(void **state)
{
    struct codec_request hello = {.method = WIRE_HELLO};
    struct codec_reply reply;
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_sessions = 2};
    (void)state;
    fixture_start(&fixture, &options);
    peer_begin(&peer, fixture.url);
    peer_open(&peer, "disk");
    peer_begin(&other, fixture.url);
    hello.args.hello.version = 1;
    assert_int_equal(peer_ask(&other, &hello, &reply), FARBLK_BUSY);
    peer_end(&peer); /* with a handle: its lease goes on */
    fixture_await(&fixture, now, now.connections == 1);
    assert_int_equal(peer_ask(&other, &hello, &reply), 0);
    fixture_await(&fixture, now, now.sessions == 2 && now.handles == 0);
    peer_end(&other);
    fixture_end(&fixture);
}

static void
one_connection_gets_no_more_than_its_share_of_sessions(void **state)
{
    struct codec_request hello = {.method = WIRE_HELLO};
    struct codec_reply reply;
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_sessions = 16};
    (void)state;
    fixture_start(&fixture, &options);
    peer_connect(&peer, fixture.url);
    hello.args.hello.version = 1;
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(peer_ask(&peer, &hello, &reply), 0);
    assert_int_equal(peer_ask(&peer, &hello, &reply), FARBLK_BUSY);
    peer_begin(&other, fixture.url);
    peer_end(&other);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
handles_above_the_limit_are_busy(void **state)
{
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_handles = 3};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, &options);
    peer_begin(&peer, fixture.url);
    for (unsigned i = 0; i < 3; i++)
        peer_open(&peer, "disk");
    struct codec_request open = peer_request(&peer, WIRE_OPEN, 0);
    strcpy(open.args.open.name, "disk");
    assert_int_equal(peer_ask(&peer, &open, &reply), FARBLK_BUSY);
    assert_non_null(strstr(peer_text(), "3"));
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
watches_above_the_limit_are_busy(void **state)
{
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_requests = 8};
    struct codec_reply reply;
    uint32_t ids[4];
    (void)state;
    fixture_start(&fixture, &options);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    struct codec_request ask = peer_request(&peer, WIRE_GET_INFO, handle);
    assert_int_equal(peer_ask(&peer, &ask, &reply), 0);
    struct codec_request watch = peer_request(&peer, WIRE_WATCH_INFO, handle);
    watch.args.watch.generation = reply.generation;
    watch.args.watch.timeout_ms = 1000000;
    for (unsigned i = 0; i < 4; i++) {
        watch.number = peer.number++;
        ids[i] = peer_send(&peer, &watch, NULL, 0);
    }
    watch.number = peer.number++;
    assert_int_equal(peer_ask(&peer, &watch, &reply), FARBLK_BUSY);
    ok(farblk_resize(fixture.disk, 7));
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(
            peer_wait(&peer, ids[i], WIRE_WATCH_INFO, &reply, NULL, 0), 0);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
no_memory_is_no_space_and_the_connection_goes_on(void **state)
{
    static uint8_t data[1 << 20];
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    block_set_limit(block_in_use() + 100000);
    assert_int_equal(peer_write(&peer, handle, 0, data, sizeof data),
                     FARBLK_NO_SPACE);
    assert_non_null(strstr(peer_text(), "1048576"));
    assert_int_equal(peer_write(&peer, handle, 0, data, 4096), 0);
    block_set_limit(UINT64_MAX);
    assert_int_equal(peer_write(&peer, handle, 0, data, sizeof data), 0);
    peer_end(&peer);
    fixture_end(&fixture);
}

/* ------------------------------------------------------------ leases */

static void
connection_without_hello_is_closed(void **state)
{
    struct farblk_server_options options = {.size = sizeof options,
                                            .hello_timeout_ms = 2500};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, &options);
    peer_connect(&peer, fixture.url);
    peer_wait_closed(&peer);
    peer_end(&peer);
    /* Asking without a session does not help. */
    peer_connect(&peer, fixture.url);
    struct codec_request ping = peer_request(&peer, WIRE_PING, 0);
    assert_int_equal(peer_ask(&peer, &ping, &reply), FARBLK_DENIED);
    peer_wait_closed(&peer);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
silent_session_expires_and_its_writes_never_land(void **state)
{
    static uint8_t data[512] = {7}, read[512];
    struct farblk_server_options options = {.size = sizeof options,
                                            .lease_ms = 3000};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, &options);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    fixture_plug(&fixture);
    struct codec_request write = peer_request(&peer, WIRE_WRITE, handle);
    write.args.range.count = 1;
    uint32_t id = peer_send(&peer, &write, data, 512);
    fixture_await(&fixture, now, now.requests == 1);
    fixture_unplug(&fixture);
    assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0), 0);
    fixture_await(&fixture, now, now.sessions == 0 && now.handles == 0);
    data[0] = 8;
    assert_int_equal(peer_write(&peer, handle, 0, data, 512),
                     FARBLK_DISCONNECTED);
    ok(support_read(fixture.disk, 0, read, 512));
    assert_int_equal(read[0], 7);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
session_does_not_expire_while_a_request_is_under_way(void **state)
{
    static uint8_t data[512] = {7};
    struct farblk_server_options options = {
        .size = sizeof options, .lease_ms = 3000, .hello_timeout_ms = 60000};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, &options);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    fixture_plug(&fixture);
    struct codec_request write = peer_request(&peer, WIRE_WRITE, handle);
    write.args.range.count = 1;
    uint32_t written = peer_send(&peer, &write, data, 512);
    fixture_await(&fixture, now, now.requests == 1);
    /* Another one's lease tells the time. */
    peer_begin(&other, fixture.url);
    fixture_await(&fixture, now, now.sessions == 1 && now.handles == 1);
    fixture_unplug(&fixture);
    assert_int_equal(peer_wait(&peer, written, WIRE_WRITE, &reply, NULL, 0), 0);
    assert_int_equal(peer_write(&peer, handle, 1, data, 512), 0);
    /* Silent again, it expires as any other. */
    fixture_await(&fixture, now, now.sessions == 0 && now.handles == 0);
    peer_end(&peer);
    peer_end(&other);
    fixture_end(&fixture);
}

/* ------------------------------------------------------------ the end */

static void
stop_answers_what_is_under_way(void **state)
{
    static uint8_t data[512] = {9}, read[512];
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    fixture_plug(&fixture);
    struct codec_request write = peer_request(&peer, WIRE_WRITE, handle);
    write.args.range.count = 1;
    uint32_t id = peer_send(&peer, &write, data, 512);
    fixture_await(&fixture, now, now.requests == 1);
    fails_with(FARBLK_TIMED_OUT, farblk_server_stop(fixture.server, 50));
    fails_with(FARBLK_TIMED_OUT, farblk_server_stop(fixture.server, 50));
    peer_wait_closed(&peer);
    (void)id, (void)reply;
    fixture_unplug(&fixture);
    farblk_server_destroy(fixture.server);
    ok(support_read(fixture.disk, 0, read, 512));
    assert_memory_equal(data, read, 512);
    peer_end(&peer);
    ok(farblk_close(fixture.disk));
    ok(farblk_ramdisk_destroy("server-disk"));
}

static void *
stop_in_thread(void *arg)
{
    struct fixture *of = arg;
    return (void *)(intptr_t)farblk_server_stop(of->server, -1);
}

static void
stop_waits_and_sends_the_replies(void **state)
{
    static uint8_t data[512] = {9};
    struct codec_reply reply;
    pthread_t thread;
    void *result;
    uint32_t ids[20];
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    fixture_plug(&fixture);
    for (unsigned i = 0; i < 20; i++) {
        struct codec_request write = peer_request(&peer, WIRE_WRITE, handle);
        write.args.range.sector = i;
        write.args.range.count = 1;
        ids[i] = peer_send(&peer, &write, data, 512);
    }
    fixture_await(&fixture, now, now.requests == 20);
    assert_int_equal(pthread_create(&thread, NULL, stop_in_thread, &fixture),
                     0);
    fixture_unplug(&fixture);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(peer_wait(&peer, ids[i], WIRE_WRITE, &reply, NULL, 0),
                         0);
    peer_wait_closed(&peer);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_null(result);
    peer_end(&peer);
    fails_with(FARBLK_DISCONNECTED,
               farblk_server_listen(fixture.server, "abstract://farblk-late"));
    fails_with(FARBLK_DISCONNECTED,
               farblk_server_export(fixture.server, "late", "ramdisk:late"));
    fixture_end(&fixture);
    ok(farblk_ramdisk_destroy("late"));
}

static void
bad_calls_are_invalid(void **state)
{
    struct farblk_server_options options = {.size = sizeof options};
    struct farblk_server *server;
    (void)state;
    options.max_payload = 511;
    fails_with(FARBLK_INVALID, farblk_server_create(&options, &server));
    options.max_payload = (64 << 20) + 1;
    fails_with(FARBLK_INVALID, farblk_server_create(&options, &server));
    options.max_payload = 0;
    options.size = 3;
    fails_with(FARBLK_INVALID, farblk_server_create(&options, &server));
    fails_with(FARBLK_INVALID, farblk_server_create(NULL, NULL));
    fails_with(FARBLK_INVALID, farblk_server_stop(NULL, 0));
    farblk_server_destroy(NULL);
    ok(farblk_server_create(NULL, &server));
    fails_with(FARBLK_INVALID,
               farblk_server_export(server, "a/b", "ramdisk:x"));
    fails_with(FARBLK_INVALID, farblk_server_export(server, "", "ramdisk:x"));
    fails_with(FARBLK_INVALID, farblk_server_export(server, NULL, NULL));
    fails_with(FARBLK_INVALID, farblk_server_export(server, "a", "none:x"));
    ok(farblk_server_export(server, "a", "ramdisk:server-x"));
    fails_with(FARBLK_EXISTS,
               farblk_server_export(server, "a", "ramdisk:server-x"));
    fails_with(FARBLK_NOT_FOUND,
               farblk_server_export(server, "f", "file:/nonexistent/file"));
    fails_with(FARBLK_INVALID, farblk_server_listen(server, NULL));
    fails_with(FARBLK_INVALID, farblk_server_listen(server, "what://ever"));
    farblk_server_destroy(server);
    ok(farblk_ramdisk_destroy("server-x"));
}

static void
twenty_clients_of_the_library_at_once(void **state)
{
    enum { CLIENTS = 20 };
    struct farblk *clients[CLIENTS];
    static uint8_t data[8192], read[8192];
    char uri[512];
    (void)state;
    fixture_start(&fixture, NULL);
    snprintf(uri, sizeof uri, "farblk+unix:///disk?abstract=%s",
             strstr(fixture.url, "://") + 3);
    for (unsigned i = 0; i < CLIENTS; i++)
        ok(farblk_open(uri, NULL, &clients[i]));
    for (unsigned i = 0; i < CLIENTS; i++) {
        pattern_fill(data, sizeof data, i);
        ok(support_write(clients[i], i * 16, data, sizeof data, 0));
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        ok(support_read(clients[(i + 7) % CLIENTS], i * 16, read, sizeof read));
        assert_int_equal(pattern_check(read, sizeof read, i), sizeof read);
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        ok(farblk_close(clients[i]));
    fixture_await(&fixture, now, now.sessions == 0 && now.handles == 0);
    fixture_end(&fixture);
}

#define SERVER_TEST(name)                                                      \
    cmocka_unit_test_setup_teardown(name, fixture_watch, fixture_clean)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        SERVER_TEST(more_requests_than_the_limit_wait_and_all_succeed),
        SERVER_TEST(more_octets_than_the_limit_wait_and_all_succeed),
        SERVER_TEST(peer_that_does_not_read_holds_up_only_itself),
        SERVER_TEST(peer_that_goes_away_leaves_nothing_behind),
        SERVER_TEST(connections_above_the_limit_are_refused),
        SERVER_TEST(some_connections_are_kept_for_other_users),
        SERVER_TEST(sessions_above_the_limit_are_busy_unless_one_is_abandoned),
        SERVER_TEST(one_connection_gets_no_more_than_its_share_of_sessions),
        SERVER_TEST(handles_above_the_limit_are_busy),
        SERVER_TEST(watches_above_the_limit_are_busy),
        SERVER_TEST(no_memory_is_no_space_and_the_connection_goes_on),
        SERVER_TEST(connection_without_hello_is_closed),
        SERVER_TEST(silent_session_expires_and_its_writes_never_land),
        SERVER_TEST(session_does_not_expire_while_a_request_is_under_way),
        SERVER_TEST(stop_answers_what_is_under_way),
        SERVER_TEST(stop_waits_and_sends_the_replies),
        SERVER_TEST(bad_calls_are_invalid),
        SERVER_TEST(twenty_clients_of_the_library_at_once),
    };
    return cmocka_run_group_tests_name("server_limits", tests, NULL, NULL);
}
