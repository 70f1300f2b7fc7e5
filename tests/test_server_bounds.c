/* SPDX-License-Identifier: ISC */
/*
 * The limits of docs/limits.md that test_server_limits.c leaves: sessions,
 * idleness, names, memory, what is announced.  Each at its limit, and one above.
 */
#include "tests/server_fixture.h"

#include "core/block.h"

#include <stdio.h>

static struct fixture fixture;
static struct peer peer, other;

/* ------------------------------------------------------------ sessions */

static void
sessions_of_one_connection_are_as_many_as_told(void **state)
{
    struct codec_request hello = {.method = WIRE_HELLO};
    struct codec_reply reply;
    struct farblk_server_options options = {.size = sizeof options,
                                            .connection_sessions = 3};
    (void)state;
    fixture_start(&fixture, &options);
    peer_connect(&peer, fixture.url);
    hello.args.hello.version = 1;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(peer_ask(&peer, &hello, &reply), 0);
    assert_int_equal(reply.result.hello.limits.max_sessions, 3);
    assert_int_equal(peer_ask(&peer, &hello, &reply), FARBLK_BUSY);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
a_session_that_only_pings_ends_by_the_idle_timeout(void **state)
{
    struct farblk_server_options options = {.size = sizeof options,
                                            .idle_timeout_ms = 4000};
    struct codec_reply reply;
    struct farblk_server_stats stats;
    int status;
    (void)state;
    fixture_start(&fixture, &options);
    peer_begin(&peer, fixture.url);
    assert_int_equal(peer.limits.idle_ms, 4000);
    peer_open(&peer, "disk");
    do {
        struct codec_request ping = peer_request(&peer, WIRE_PING, 0);
        fixture_stats(&fixture, &stats);
        status = peer_ask(&peer, &ping, &reply);
    } while (status == 0);
    assert_int_equal(status, FARBLK_DISCONNECTED);
    fixture_await(&fixture, now, now.sessions == 0 && now.handles == 0);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
a_session_with_requests_is_not_idle(void **state)
{
    static const uint8_t data[512];
    struct farblk_server_options options = {.size = sizeof options,
                                            .idle_timeout_ms = 4000,
                                            .hello_timeout_ms =
                                                10 * SUPPORT_PATIENCE_MS};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, &options);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    fixture_plug(&fixture);
    struct codec_request write = peer_request(&peer, WIRE_WRITE, handle);
    write.args.range.count = 1;
    uint32_t id = peer_send(&peer, &write, data, sizeof data);
    fixture_await(&fixture, now, now.requests == 1);
    /* Another one's end tells that its time has passed. */
    peer_begin(&other, fixture.url);
    fixture_await(&fixture, now, now.sessions == 1);
    peer_end(&other);
    fixture_unplug(&fixture);
    assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0), 0);
    /* From here on it is. */
    fixture_await(&fixture, now, now.sessions == 0 && now.handles == 0);
    peer_end(&peer);
    fixture_end(&fixture);
}

/* ------------------------------------------------------------ names, sizes */

static void
names_of_255_octets_are_fine_and_longer_ones_are_not(void **state)
{
    char name[300];
    struct codec_reply reply;
    (void)state;
    memset(name, 'n', sizeof name);
    name[256] = '\0';
    fixture_start(&fixture, NULL);
    fails_with(FARBLK_INVALID,
               farblk_server_export(fixture.server, name, "ramdisk:named"));
    name[255] = '\0';
    ok(farblk_server_export(fixture.server, name, "ramdisk:named"));
    peer_begin(&peer, fixture.url);
    peer_open(&peer, name);
    /* By hand: the codec would not write the longer one. */
    for (unsigned more = 0; more < 2; more++) {
        uint8_t header[512];
        struct codec_request open = peer_request(&peer, WIRE_OPEN, 0);
        open.args.open.name[0] = 'x';
        size_t size = codec_encode_request(&open, header, sizeof header);
        assert_int_equal(header[size - 5], 0x42); /* args, 3, name, 1, 'x' */
        size_t length = 255 + more, at = size - 4;
        header[at++] = (uint8_t)((length + 3) & 0x7f) | 0x80;
        header[at++] = (uint8_t)((length + 3) >> 7);
        header[at++] = 0x0a;
        header[at++] = (uint8_t)(length & 0x7f) | 0x80;
        header[at++] = (uint8_t)(length >> 7);
        memset(header + at, 'n', length);
        uint32_t id = peer_send_raw(&peer, header, at + length, NULL, 0);
        assert_int_equal(peer_wait(&peer, id, WIRE_OPEN, &reply, NULL, 0),
                         more == 0 ? 0 : FARBLK_PROTOCOL);
    }
    peer_end(&peer);
    fixture_end(&fixture);
    ok(farblk_ramdisk_destroy("named"));
}

static void
a_payload_at_the_limit_is_fine_and_a_sector_more_is_not(void **state)
{
    enum { MOST = 65536 };
    static uint8_t data[MOST + 512];
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_payload = MOST};
    struct codec_request ask;
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, &options);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    assert_int_equal(peer_write(&peer, handle, 0, data, MOST), 0);
    assert_int_equal(peer_write(&peer, handle, 0, data, MOST + 512),
                     FARBLK_INVALID);
    assert_non_null(strstr(peer_text(), "65536"));
    assert_int_equal(peer_read(&peer, handle, 0, data, MOST), 0);
    ask = peer_request(&peer, WIRE_READ, handle);
    ask.args.range.count = MOST / 512 + 1;
    assert_int_equal(peer_ask(&peer, &ask, &reply), FARBLK_INVALID);
    peer_end(&peer);
    fixture_end(&fixture);
}

/* ------------------------------------------------------------ memory */

static void
what_connections_sessions_and_requests_take_is_counted(void **state)
{
    enum { PEERS = 40, REQUESTS = 100 };
    static struct peer peers[PEERS];
    static uint32_t ids[PEERS][REQUESTS];
    static uint8_t data[512];
    struct farblk_server_stats before, now;
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    fixture_stats(&fixture, &before);
    assert_int_equal(before.memory, block_counted());
    for (unsigned i = 0; i < PEERS; i++)
        peer_begin(&peers[i], fixture.url);
    fixture_stats(&fixture, &now);
    /* A connection, a session, and a call each. */
    assert_true(now.memory >= before.memory + (uint64_t)PEERS * 3000);
    fixture_plug(&fixture);
    for (unsigned i = 0; i < PEERS; i++) {
        uint64_t handle = 0;
        struct codec_request open = peer_request(&peers[i], WIRE_OPEN, 0);
        strcpy(open.args.open.name, "disk");
        assert_int_equal(peer_ask(&peers[i], &open, &reply), 0);
        handle = reply.result.open.handle;
        for (unsigned k = 0; k < REQUESTS; k++) {
            struct codec_request write =
                peer_request(&peers[i], WIRE_WRITE, handle);
            write.args.range.sector = k;
            write.args.range.count = 1;
            ids[i][k] = peer_send(&peers[i], &write, data, 512);
        }
    }
    fixture_await(&fixture, full, full.requests == PEERS * REQUESTS);
    fixture_stats(&fixture, &now);
    assert_true(now.memory
                >= before.memory + (uint64_t)PEERS * REQUESTS * 3000);
    assert_true(now.most_memory >= now.memory);
    assert_int_equal(now.most_requests, PEERS * REQUESTS);
    assert_int_equal(now.most_octets, PEERS * REQUESTS * 512);
    assert_int_equal(now.most_connections, PEERS);
    assert_int_equal(now.most_sessions, PEERS);
    fixture_unplug(&fixture);
    for (unsigned i = 0; i < PEERS; i++) {
        for (unsigned k = 0; k < REQUESTS; k++)
            assert_int_equal(
                peer_wait(&peers[i], ids[i][k], WIRE_WRITE, &reply, NULL, 0),
                0);
        struct codec_request end = peer_request(&peers[i], WIRE_DISCONNECT, 0);
        assert_int_equal(peer_ask(&peers[i], &end, &reply), 0);
        peer_end(&peers[i]);
    }
    fixture_await(&fixture, empty,
                  empty.connections == 0 && empty.sessions == 0);
    ok(farblk_discard(fixture.disk, 0, FIXTURE_SECTORS, 0));
    fixture_end(&fixture);
    /* All of it is gone with the server. */
    assert_true(block_in_use() <= before.memory);
}

static void
answers_count_as_data_and_end_with_the_memory(void **state)
{
    enum { COUNT = 64 };
    static uint8_t data[512] = {1};
    uint32_t ids[COUNT];
    struct codec_reply reply;
    struct farblk_extent extents[8];
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    assert_int_equal(peer_write(&peer, handle, 1, data, 512), 0);
    struct codec_request ask = peer_request(&peer, WIRE_EXTENTS, handle);
    ask.args.extents.count = FIXTURE_SECTORS;
    ask.args.extents.max = 4096;
    fixture_plug(&fixture);
    for (unsigned i = 0; i < COUNT; i++) {
        ask.number = peer.number++;
        ids[i] = peer_send(&peer, &ask, NULL, 0);
    }
    fixture_await(&fixture, now,
                  now.requests == COUNT
                      && now.octets == COUNT * 4096 * sizeof extents[0]
                      && now.memory > COUNT * 4096 * sizeof extents[0]);
    fixture_unplug(&fixture);
    for (unsigned i = 0; i < COUNT; i++) {
        reply.result.extents.extents = extents;
        reply.result.extents.capacity = 8;
        reply.result.extents.first_sector = 0;
        assert_int_equal(
            peer_wait(&peer, ids[i], WIRE_EXTENTS, &reply, NULL, 0), 0);
        assert_int_equal(reply.result.extents.count, 3);
    }
    fixture_await(&fixture, now, now.octets == 0);
    block_set_limit(block_in_use() + 100000);
    ask.number = peer.number++;
    assert_int_equal(peer_ask(&peer, &ask, &reply), FARBLK_NO_SPACE);
    struct codec_request list = peer_request(&peer, WIRE_LIST_DEVICES, 0);
    block_set_limit(block_in_use() + 1000);
    assert_int_equal(peer_ask(&peer, &list, &reply), FARBLK_NO_SPACE);
    block_set_limit(UINT64_MAX);
    ask.number = peer.number++;
    reply.result.extents.extents = extents;
    reply.result.extents.capacity = 8;
    reply.result.extents.first_sector = 0;
    assert_int_equal(peer_ask(&peer, &ask, &reply), 0);
    peer_end(&peer);
    fixture_end(&fixture);
}

/* ------------------------------------------------------------ options */

static void
what_is_announced_is_what_was_told(void **state)
{
    struct farblk_server_options options = {
        .size = sizeof options,
        .max_connections = 33,
        .max_sessions = 44,
        .max_requests = 55,
        .max_octets = 6u << 20,
        .max_payload = 1u << 20,
        .max_handles = 77,
        .lease_ms = 88000,
        .hello_timeout_ms = 99000,
        .frame_timeout_ms = 11000,
        .connection_sessions = 12,
        .idle_timeout_ms = 130000,
        .memory_limit = UINT64_C(1) << 40,
    };
    struct farblk_server_stats stats;
    (void)state;
    fixture_start(&fixture, &options);
    peer_begin(&peer, fixture.url);
    assert_int_equal(peer.limits.max_connections, 33);
    assert_int_equal(peer.limits.max_requests, 55);
    assert_int_equal(peer.limits.max_octets, 6u << 20);
    assert_int_equal(peer.limits.max_payload, 1u << 20);
    assert_int_equal(peer.limits.max_header, 65536);
    assert_int_equal(peer.limits.max_handles, 77);
    assert_int_equal(peer.limits.max_extents, 4096);
    assert_int_equal(peer.limits.max_sessions, 12);
    assert_int_equal(peer.limits.max_watches, 27);
    assert_int_equal(peer.limits.hello_ms, 99000);
    assert_int_equal(peer.limits.frame_ms, 11000);
    assert_int_equal(peer.limits.idle_ms, 130000);
    fixture_stats(&fixture, &stats);
    assert_int_equal(stats.memory_limit, UINT64_C(1) << 40);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
options_and_stats_of_an_older_program_are_taken(void **state)
{
    struct farblk_server_options options = {
        .size = offsetof(struct farblk_server_options, ipc_mode)
                + sizeof options.ipc_mode,
        .max_handles = 2,
        .idle_timeout_ms = 1, /* not in that version */
    };
    struct farblk_server_stats stats;
    (void)state;
    fixture_start(&fixture, &options);
    peer_begin(&peer, fixture.url);
    assert_int_equal(peer.limits.max_handles, 2);
    assert_int_equal(peer.limits.idle_ms, 0);
    peer_end(&peer);
    memset(&stats, 0xee, sizeof stats);
    ok(farblk_server_stats(fixture.server, &stats,
                           offsetof(struct farblk_server_stats, damaged)));
    assert_int_equal(stats.accepted, 1);
    assert_int_equal(stats.damaged, UINT64_C(0xeeeeeeeeeeeeeeee));
    fixture_end(&fixture);
    struct farblk_server *server;
    options.size--;
    fails_with(FARBLK_INVALID, farblk_server_create(&options, &server));
}

#define BOUNDS_TEST(name)                                                      \
    cmocka_unit_test_setup_teardown(name, fixture_watch, fixture_clean)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        BOUNDS_TEST(sessions_of_one_connection_are_as_many_as_told),
        BOUNDS_TEST(a_session_that_only_pings_ends_by_the_idle_timeout),
        BOUNDS_TEST(a_session_with_requests_is_not_idle),
        BOUNDS_TEST(names_of_255_octets_are_fine_and_longer_ones_are_not),
        BOUNDS_TEST(a_payload_at_the_limit_is_fine_and_a_sector_more_is_not),
        BOUNDS_TEST(what_connections_sessions_and_requests_take_is_counted),
        BOUNDS_TEST(answers_count_as_data_and_end_with_the_memory),
        BOUNDS_TEST(what_is_announced_is_what_was_told),
        BOUNDS_TEST(options_and_stats_of_an_older_program_are_taken),
    };
    return cmocka_run_group_tests_name("server_bounds", tests, NULL, NULL);
}
