/* SPDX-License-Identifier: ISC */
/*
 * The server's methods, asked by hand: what each answers, on every transport,
 * and what malformed requests get.
 */
#include "tests/server_fixture.h"

#include <stdio.h>

static struct fixture fixture;
static struct peer peer;

/* ------------------------------------------------------------ methods */

static void
every_method_answers(void **state)
{
    static uint8_t data[65536], read[65536];
    struct farblk_extent extents[8];
    struct codec_device devices[4];
    struct codec_reply reply;
    (void)state;
    pattern_fill(data, sizeof data, 5);
    fixture_start(&fixture, NULL);
    ok(farblk_server_export(fixture.server, "another",
                            "ramdisk:server-another"));
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");

    assert_int_equal(peer_write(&peer, handle, 1000, data, sizeof data), 0);
    assert_int_equal(peer_read(&peer, handle, 1000, read, sizeof read), 0);
    assert_memory_equal(data, read, sizeof read);
    assert_int_equal(peer_read(&peer, handle, 0, read, 512), 0);
    assert_true(pattern_is_zero(read, 512));
    assert_int_equal(peer_read(&peer, handle, FIXTURE_SECTORS, read, 0), 0);
    assert_int_equal(peer_write(&peer, handle, FIXTURE_SECTORS, read, 0), 0);
    assert_int_equal(peer_read(&peer, handle, FIXTURE_SECTORS, read, 512),
                     FARBLK_INVALID);

    struct codec_request ask = peer_request(&peer, WIRE_SEEK_MAPPED, handle);
    assert_int_equal(peer_ask(&peer, &ask, &reply), 0);
    assert_int_equal(reply.result.seek.sector, 1000);
    ask = peer_request(&peer, WIRE_SEEK_UNMAPPED, handle);
    ask.args.seek.sector = 1000;
    assert_int_equal(peer_ask(&peer, &ask, &reply), 0);
    assert_int_equal(reply.result.seek.sector, 1128);

    ask = peer_request(&peer, WIRE_EXTENTS, handle);
    ask.args.extents.count = FIXTURE_SECTORS;
    ask.args.extents.max = 8;
    reply.result.extents.extents = extents;
    reply.result.extents.capacity = 8;
    reply.result.extents.first_sector = 0;
    assert_int_equal(peer_ask(&peer, &ask, &reply), 0);
    assert_int_equal(reply.result.extents.count, 3);
    assert_int_equal(extents[1].start, 1000);
    assert_int_equal(extents[1].count, 128);
    assert_int_equal(extents[1].mapped, 1);
    ask.number = peer.number++;
    ask.args.extents.max = 0;
    assert_int_equal(peer_ask(&peer, &ask, &reply), FARBLK_INVALID);

    ask = peer_request(&peer, WIRE_DISCARD, handle);
    ask.args.range.sector = 1000;
    ask.args.range.count = 64;
    assert_int_equal(peer_ask(&peer, &ask, &reply), 0);
    ask = peer_request(&peer, WIRE_WRITE_ZEROES, handle);
    ask.args.range.sector = 1064;
    ask.args.range.count = 64;
    ask.args.range.flags = FARBLK_FUA | FARBLK_NO_UNMAP;
    assert_int_equal(peer_ask(&peer, &ask, &reply), 0);
    assert_int_equal(peer_read(&peer, handle, 1000, read, sizeof read), 0);
    assert_true(pattern_is_zero(read, sizeof read));
    ask = peer_request(&peer, WIRE_FLUSH, handle);
    assert_int_equal(peer_ask(&peer, &ask, &reply), 0);

    ask = peer_request(&peer, WIRE_RESIZE, handle);
    ask.args.resize.size_sectors = 100;
    assert_int_equal(peer_ask(&peer, &ask, &reply), 0);
    assert_int_equal(reply.size_sectors, 100);
    uint64_t generation = reply.generation;
    ask = peer_request(&peer, WIRE_GET_INFO, handle);
    assert_int_equal(peer_ask(&peer, &ask, &reply), 0);
    assert_int_equal(reply.result.info.info.size_sectors, 100);
    assert_int_equal(reply.result.info.info.sector_size, 512);
    assert_int_equal(reply.result.info.info.generation, generation);
    assert_true(reply.result.info.info.max_transfer <= peer.limits.max_payload);

    ask = peer_request(&peer, WIRE_LIST_DEVICES, 0);
    reply.result.list.devices = devices;
    reply.result.list.capacity = 4;
    assert_int_equal(peer_ask(&peer, &ask, &reply), 0);
    assert_int_equal(reply.result.list.count, 2);
    assert_string_equal(devices[0].name, "another");
    assert_string_equal(devices[1].name, "disk");
    assert_int_equal(devices[1].size_sectors, 100);
    ask = peer_request(&peer, WIRE_LIST_DEVICES, 0);
    strcpy(ask.args.list.after, "another");
    assert_int_equal(peer_ask(&peer, &ask, &reply), 0);
    assert_int_equal(reply.result.list.count, 1);
    assert_false(reply.result.list.more);
    peer_end(&peer);
    fixture_end(&fixture);
    ok(farblk_ramdisk_destroy("server-another"));
}

static void
watch_is_answered_by_a_change(void **state)
{
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    struct codec_request ask = peer_request(&peer, WIRE_GET_INFO, handle);
    assert_int_equal(peer_ask(&peer, &ask, &reply), 0);
    struct codec_request watch = peer_request(&peer, WIRE_WATCH_INFO, handle);
    watch.args.watch.generation = reply.generation;
    assert_int_equal(peer_ask(&peer, &watch, &reply), FARBLK_TIMED_OUT);
    watch.number = peer.number++;
    watch.args.watch.timeout_ms = 1;
    assert_int_equal(peer_ask(&peer, &watch, &reply), FARBLK_TIMED_OUT);
    watch.number = peer.number++;
    watch.args.watch.timeout_ms = UINT32_MAX;
    uint32_t id = peer_send(&peer, &watch, NULL, 0);
    fixture_await(&fixture, stats, stats.requests == 1);
    ok(farblk_resize(fixture.disk, 50));
    assert_int_equal(peer_wait(&peer, id, WIRE_WATCH_INFO, &reply, NULL, 0), 0);
    assert_true(reply.result.watch.generation != watch.args.watch.generation);
    assert_int_equal(reply.size_sectors, 50);
    /* The old generation is answered at once. */
    watch.number = peer.number++;
    watch.args.watch.timeout_ms = 0;
    assert_int_equal(peer_ask(&peer, &watch, &reply), 0);
    /* A disconnect ends the waiting. */
    watch.number = peer.number++;
    watch.args.watch.generation = reply.generation;
    watch.args.watch.timeout_ms = UINT32_MAX;
    id = peer_send(&peer, &watch, NULL, 0);
    struct codec_request close = peer_request(&peer, WIRE_DISCONNECT, handle);
    assert_int_equal(peer_ask(&peer, &close, &reply), 0);
    assert_int_equal(peer_wait(&peer, id, WIRE_WATCH_INFO, &reply, NULL, 0),
                     FARBLK_DISCONNECTED);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
deadline_is_kept(void **state)
{
    uint8_t data[512] = {0};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    fixture_plug(&fixture);
    struct codec_request write = peer_request(&peer, WIRE_WRITE, handle);
    write.args.range.count = 1;
    write.deadline_ms = 1;
    uint32_t id = peer_send(&peer, &write, data, 512);
    assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0),
                     FARBLK_TIMED_OUT);
    assert_int_equal(reply.effect, FARBLK_EFFECT_NONE);
    fixture_unplug(&fixture);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
every_transport_serves(void **state)
{
    static uint8_t data[100000 / 512 * 512], read[sizeof data];
    char urls[4][256];
    (void)state;
    pattern_fill(data, sizeof data, 11);
    fixture_start(&fixture, NULL);
    snprintf(urls[0], sizeof urls[0], "ipc://%s", support_path("sock"));
    snprintf(urls[1], sizeof urls[1], "tcp://127.0.0.1:0");
    snprintf(urls[2], sizeof urls[2], "inproc://%s", support_name("in"));
    snprintf(urls[3], sizeof urls[3], "ws://127.0.0.1:0/farblk");
    for (unsigned i = 0; i < 4; i++) {
        ok(farblk_server_listen(fixture.server, urls[i]));
        peer_begin(&peer, farblk_server_url(fixture.server, i + 1));
        assert_int_equal(peer.limits.max_requests, i < 2 ? 256 : 32);
        uint64_t handle = peer_open(&peer, "disk");
        assert_int_equal(peer_write(&peer, handle, i, data, sizeof data), 0);
        memset(read, 0, sizeof read);
        assert_int_equal(peer_read(&peer, handle, i, read, sizeof read), 0);
        assert_memory_equal(data, read, sizeof data);
        peer_end(&peer);
    }
    fixture_end(&fixture);
}

/* ------------------------------------------------------------ bad requests */

static void
bad_requests_get_errors_and_the_connection_goes_on(void **state)
{
    static const uint8_t garbage[] = {0xff, 0xff, 0xff, 0xff, 0xff};
    static uint8_t data[2048];
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");

    uint32_t id = peer_send_raw(&peer, garbage, sizeof garbage, data, 700);
    assert_int_equal(peer_wait(&peer, id, 0, &reply, NULL, 0), FARBLK_PROTOCOL);

    struct codec_request ask = peer_request(&peer, 99, handle);
    id = peer_send(&peer, &ask, data, 3);
    assert_int_equal(peer_wait(&peer, id, 99, &reply, NULL, 0),
                     FARBLK_UNIMPLEMENTED);
    ask = peer_request(&peer, 99, handle);
    assert_int_equal(peer_ask(&peer, &ask, &reply), FARBLK_UNIMPLEMENTED);
    assert_non_null(strstr(peer_text(), "99"));

    ask = peer_request(&peer, WIRE_PING, 0);
    id = peer_send(&peer, &ask, data, 512);
    assert_int_equal(peer_wait(&peer, id, WIRE_PING, &reply, NULL, 0),
                     FARBLK_INVALID);

    /* Data that does not fit the count. */
    ask = peer_request(&peer, WIRE_WRITE, handle);
    ask.args.range.count = 2;
    id = peer_send(&peer, &ask, data, 1023);
    assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0),
                     FARBLK_INVALID);
    assert_non_null(strstr(peer_text(), "1023"));
    ask = peer_request(&peer, WIRE_WRITE, handle);
    ask.args.range.count = UINT64_MAX / 512 + 2;
    id = peer_send(&peer, &ask, data, 512);
    assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0),
                     FARBLK_INVALID);

    ask = peer_request(&peer, WIRE_PING, 0);
    assert_int_equal(peer_ask(&peer, &ask, &reply), 0);
    assert_int_equal(peer_write(&peer, handle, 0, data, 1024), 0);
    fixture_await(&fixture, stats, stats.octets == 0 && stats.requests == 0);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
too_large_requests_get_errors_that_tell_the_limit(void **state)
{
    static uint8_t data[16384];
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_payload = 8192};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, &options);
    peer_begin(&peer, fixture.url);
    assert_int_equal(peer.limits.max_payload, 8192);
    uint64_t handle = peer_open(&peer, "disk");
    assert_int_equal(peer_write(&peer, handle, 0, data, 16384), FARBLK_INVALID);
    assert_non_null(strstr(peer_text(), "8192"));
    struct codec_request read = peer_request(&peer, WIRE_READ, handle);
    read.args.range.count = 17;
    assert_int_equal(peer_ask(&peer, &read, &reply), FARBLK_INVALID);
    read.number = peer.number++;
    read.args.range.count = UINT64_MAX;
    assert_int_equal(peer_ask(&peer, &read, &reply), FARBLK_INVALID);
    assert_int_equal(peer_write(&peer, handle, 0, data, 8192), 0);
    fails_with(FARBLK_INVALID,
               farblk_server_export(fixture.server, "large",
                                    "ramdisk:server-large?sector=16384"));
    peer_end(&peer);
    fixture_end(&fixture);
    ok(farblk_ramdisk_destroy("server-large"));
}

#define SERVER_TEST(name)                                                      \
    cmocka_unit_test_setup_teardown(name, fixture_watch, fixture_clean)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        SERVER_TEST(every_method_answers),
        SERVER_TEST(watch_is_answered_by_a_change),
        SERVER_TEST(deadline_is_kept),
        SERVER_TEST(every_transport_serves),
        SERVER_TEST(bad_requests_get_errors_and_the_connection_goes_on),
        SERVER_TEST(too_large_requests_get_errors_that_tell_the_limit),
    };
    return cmocka_run_group_tests_name("server_methods", tests, NULL, NULL);
}
