/* SPDX-License-Identifier: ISC */
/*
 * Checksums of payloads, end to end: what a relay between client and server
 * damages never becomes data, on either side; without them it does, unnoticed,
 * which is what makes these tests able to fail.
 */
#include "core/crc32c.h"
#include "tests/relay.h"
#include "tests/server_fixture.h"

#include <stdio.h>

/* In one request, with the payloads that the server is told to take here. */
#define PIECE (64u << 10)
#define SECTOR 512u
#define LARGE (5 * PIECE)

static struct fixture fixture;
static struct relay relay;
static struct farblk *dev;
static uint8_t data[LARGE], back[LARGE];

static const bool to_server = true, to_client = false;

static int
begin(void **state)
{
    const struct farblk_server_options options = {.size = sizeof options,
                                                  .max_payload = PIECE};
    (void)state;
    support_watch("a checksum test");
    fixture_start(&fixture, &options);
    relay_start(&relay, fixture.url);
    return 0;
}

static int
end(void **state)
{
    relay_stop(&relay);
    fixture_end(&fixture);
    return fixture_clean(state);
}

static void
open_through(const char *more)
{
    char uri[512];
    snprintf(uri, sizeof uri, "farblk+unix:///disk?socket=%s%s", relay.path,
             more);
    ok(farblk_open(uri, NULL, &dev));
}

static uint64_t
damaged_writes(void)
{
    struct farblk_server_stats stats;
    fixture_stats(&fixture, &stats);
    return stats.damaged;
}

/* Where in a payload: its ends, its middle, and the borders of what is summed
 * at once. */
static const struct {
    size_t length;
    uint64_t octet;
    uint8_t mask;
} places[] = {
    {512, 0, 1},           {512, 511, 0x80},      {512, 100, 0x10},
    {4096, 0, 0x80},       {4096, 1359, 1},       {4096, 1360, 1},
    {4096, 2719, 2},       {4096, 2720, 4},       {4096, 4079, 8},
    {4096, 4080, 16},      {4096, 4095, 32},      {PIECE, 0, 64},
    {PIECE, PIECE - 1, 1}, {PIECE, PIECE / 2, 2}, {PIECE - 512, 40000, 0xff},
};

static void
without_checksums_a_flipped_bit_goes_through_unnoticed(void **state)
{
    (void)state;
    open_through("");
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        size_t length = places[i].length;
        pattern_fill(data, length, i);
        relay_damage(&relay, to_server, 0, places[i].octet, places[i].mask);
        ok(support_write(dev, 8, data, length, 0));
        ok(support_read(fixture.disk, 8, back, length));
        assert_int_equal(pattern_check(back, length, i), places[i].octet);
        ok(support_write(fixture.disk, 8, data, length, 0));
        relay_damage(&relay, to_client, 0, places[i].octet, places[i].mask);
        ok(support_read(dev, 8, back, length));
        assert_int_equal(pattern_check(back, length, i), places[i].octet);
        back[places[i].octet] ^= places[i].mask;
        assert_int_equal(pattern_check(back, length, i), length);
        assert_int_equal(relay_damaged(&relay), 2 * i + 2);
    }
    assert_int_equal(damaged_writes(), 0);
    ok(farblk_close(dev));
}

static void
a_flipped_bit_of_a_write_is_an_error_and_changes_nothing(void **state)
{
    char sectors[64];
    (void)state;
    open_through("&checksum=crc32c");
    pattern_fill(data, sizeof data, 99);
    ok(support_write(fixture.disk, 0, data, sizeof data, 0));
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        size_t length = places[i].length;
        pattern_fill(data, length, i);
        relay_damage(&relay, to_server, 0, places[i].octet, places[i].mask);
        fails_with(FARBLK_CORRUPT, support_write(dev, 8 + i, data, length, 0));
        assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
        snprintf(sectors, sizeof sectors, "%zu sectors from %zu on",
                 length / SECTOR, 8 + i);
        text_has(sectors);
        assert_int_equal(relay_damaged(&relay), i + 1);
        assert_int_equal(damaged_writes(), i + 1);
        ok(support_read(fixture.disk, 0, back, sizeof back));
        assert_int_equal(pattern_check(back, sizeof back, 99), sizeof back);
    }
    /* The handle is as good as before. */
    ok(support_write(dev, 3, data, sizeof data, FARBLK_FUA));
    ok(support_read(fixture.disk, 3, back, sizeof back));
    assert_memory_equal(data, back, sizeof back);
    ok(farblk_close(dev));
}

static void
a_flipped_bit_of_a_read_is_an_error(void **state)
{
    char sectors[64];
    (void)state;
    open_through("&checksum=crc32c");
    pattern_fill(data, sizeof data, 98);
    ok(support_write(fixture.disk, 0, data, sizeof data, 0));
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        size_t length = places[i].length;
        relay_damage(&relay, to_client, 0, places[i].octet, places[i].mask);
        fails_with(FARBLK_CORRUPT, support_read(dev, i, back, length));
        assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
        snprintf(sectors, sizeof sectors, "%zu sectors from %zu on",
                 length / SECTOR, i);
        text_has(sectors);
        assert_int_equal(relay_damaged(&relay), i + 1);
        ok(support_read(dev, i, back, length));
        assert_memory_equal(back, data + i * SECTOR, length);
    }
    /* What was never written comes out of static memory. */
    relay_damage(&relay, to_client, 0, 7, 1);
    fails_with(FARBLK_CORRUPT, support_read(dev, 3000, back, PIECE));
    ok(support_read(dev, 3000, back, PIECE));
    assert_true(pattern_is_zero(back, PIECE));
    assert_int_equal(damaged_writes(), 0);
    ok(farblk_close(dev));
}

static void
of_a_large_transfer_the_damaged_piece_is_named(void **state)
{
    (void)state;
    open_through("&checksum=crc32c");
    pattern_fill(data, sizeof data, 1);
    for (unsigned piece = 0; piece < LARGE / PIECE; piece++) {
        char sectors[64];
        memset(back, 0, sizeof back);
        ok(support_write(fixture.disk, 10, back, sizeof back, 0));
        relay_damage(&relay, to_server, piece, 12345, 1);
        fails_with(FARBLK_CORRUPT,
                   support_write(dev, 10, data, sizeof data, 0));
        /* Others were written, or may have been. */
        assert_int_not_equal(farblk_last_effect(), FARBLK_EFFECT_DONE);
        snprintf(sectors, sizeof sectors, "%u sectors from %u on",
                 PIECE / SECTOR, 10 + piece * (PIECE / SECTOR));
        text_has(sectors);
        ok(support_read(fixture.disk, 10 + piece * (PIECE / SECTOR), back,
                        PIECE));
        assert_true(pattern_is_zero(back, PIECE));
    }
    ok(support_write(fixture.disk, 10, data, sizeof data, 0));
    relay_damage(&relay, to_client, 3, 0, 1);
    fails_with(FARBLK_CORRUPT, support_read(dev, 10, back, sizeof back));
    ok(support_read(dev, 10, back, sizeof back));
    assert_memory_equal(data, back, sizeof back);
    ok(farblk_close(dev));
}

/* Scattered over buffers, so that a sum goes on from one to the next. */
static void
of_many_in_flight_the_damaged_one_alone_fails(void **state)
{
    enum { COUNT = 32, BUFFERS = 5 };
    static struct iovec iov[COUNT][BUFFERS];
    static const size_t lengths[BUFFERS] = {512, 0, 4096, 1024, 2560};
    struct farblk_queue *queue;
    (void)state;
    open_through("&checksum=crc32c");
    ok(farblk_queue_create(COUNT, &queue));
    for (unsigned round = 0; round < 8; round++) {
        bool writes = round % 2 == 0;
        unsigned bad = 0;
        pattern_fill(data, COUNT * 8192, round);
        if (!writes)
            ok(support_write(fixture.disk, 0, data, COUNT * 8192, 0));
        relay_damage(&relay, writes, 3 * round, 4000 + round, 1);
        for (uintptr_t i = 0; i < COUNT; i++) {
            uint8_t *at = (writes ? data : back) + i * 8192;
            struct farblk_request request = {
                .size = sizeof request,
                .op = writes ? FARBLK_OP_WRITE : FARBLK_OP_READ,
                .dev = dev,
                .sector = i * 16,
                .iov = iov[i],
                .iovcnt = BUFFERS,
                .user = (void *)i,
            };
            for (unsigned k = 0; k < BUFFERS; at += lengths[k++])
                iov[i][k] = (struct iovec){at, lengths[k]};
            ok(farblk_submit(queue, &request));
        }
        for (unsigned i = 0; i < COUNT; i++) {
            struct farblk_completion done;
            assert_int_equal(farblk_collect(queue, &done, sizeof done, 1, -1),
                             1);
            uintptr_t n = (uintptr_t)done.user;
            uint8_t *from = back + n * 8192;
            if (done.status != 0) {
                assert_int_equal(done.status, FARBLK_CORRUPT);
                assert_int_equal(done.effect, FARBLK_EFFECT_NONE);
                assert_non_null(strstr(done.text, "16 sectors from"));
                bad++;
                continue;
            }
            if (writes)
                ok(support_read(fixture.disk, n * 16, from, 8192));
            assert_memory_equal(from, data + n * 8192, 8192);
        }
        assert_int_equal(bad, 1);
        assert_int_equal(relay_damaged(&relay), round + 1);
    }
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
}

/* A URI of the export behind the server's last listener. */
static void
uri_behind(const char *url, const char *export, char *uri, size_t size)
{
    const char *at = strstr(url, "://") + 3;
    if (strncmp(url, "tcp", 3) == 0)
        snprintf(uri, size, "farblk://%s/%s?checksum=crc32c", at, export);
    else if (strncmp(url, "ws", 2) == 0)
        snprintf(uri, size, "farblk+ws://%.*s/%s?checksum=crc32c",
                 (int)strcspn(at, "/"), at, export);
    else
        snprintf(uri, size, "farblk+%s:///%s?%s=%s&checksum=crc32c",
                 strncmp(url, "ipc", 3) == 0 ? "unix" : "inproc", export,
                 strncmp(url, "ipc", 3) == 0 ? "socket" : "address", at);
}

/* What the server lends and what it reads into memory of its own. */
static void
every_kind_of_link_carries_them(void **state)
{
    static const char *const exports[] = {"disk", "file"};
    char file[512], urls[4][256];
    (void)state;
    snprintf(file, sizeof file, "file:%s", support_path("sums"));
    support_make_file(file + strlen("file:"), 1 << 20);
    ok(farblk_server_export(fixture.server, "file", file));
    snprintf(urls[0], sizeof urls[0], "ipc://%s", support_path("sock"));
    snprintf(urls[1], sizeof urls[1], "inproc://%s", support_name("sums"));
    snprintf(urls[2], sizeof urls[2], "tcp://127.0.0.1:0");
    snprintf(urls[3], sizeof urls[3], "ws://127.0.0.1:0/farblk");
    for (unsigned i = 0; i < 8; i++) {
        char uri[512];
        if (i % 2 == 0)
            ok(farblk_server_listen(fixture.server, urls[i / 2]));
        uri_behind(farblk_server_url(fixture.server, 1 + i / 2), exports[i % 2],
                   uri, sizeof uri);
        ok(farblk_open(uri, NULL, &dev));
        pattern_fill(data, sizeof data, i);
        ok(support_write(dev, 3, data, sizeof data, 0));
        ok(support_read(dev, 3, back, sizeof back));
        assert_int_equal(pattern_check(back, sizeof back, i), sizeof back);
        ok(support_read(dev, 7, back, 4096));
        assert_memory_equal(back, data + 4 * SECTOR, 4096);
        ok(farblk_close(dev));
    }
    assert_int_equal(damaged_writes(), 0);
}

/* ------------------------------------------------------------ hostile */

static void
begin_with_checksums(struct peer *peer, const char *const *features, bool given)
{
    struct codec_request hello = {.method = WIRE_HELLO};
    struct codec_reply reply;
    peer_connect(peer, fixture.url);
    hello.args.hello.version = 1;
    for (; *features != NULL; features++)
        codec_add_feature(&hello.args.hello.features, *features);
    assert_int_equal(peer_ask(peer, &hello, &reply), 0);
    assert_int_equal(reply.result.hello.features.count, given);
    if (given)
        assert_string_equal(reply.result.hello.features.name[0], "crc32c");
    peer->session = reply.result.hello.session;
    peer->number = peer->lowest = 1;
}

static int
write_with_sum(struct peer *peer, struct codec_request *request,
               const void *from, size_t length, uint32_t sum)
{
    struct codec_reply reply;
    request->checksum = sum;
    uint32_t id = peer_send(peer, request, from, length);
    return peer_wait(peer, id, WIRE_WRITE, &reply, NULL, 0);
}

static void
a_peer_with_wrong_sums_changes_nothing(void **state)
{
    static const char *const features[] = {"crc64", "crc32c", "", "crc32",
                                           NULL};
    struct peer peer;
    struct codec_reply reply;
    (void)state;
    begin_with_checksums(&peer, features, true);
    uint64_t handle = peer_open(&peer, "disk");
    memset(data, 1, SECTOR);
    const uint32_t right = crc32c(0, data, SECTOR);
    const uint32_t wrong[] = {0, 1, ~right, right ^ 0x80000000, UINT32_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct codec_request ask = peer_request(&peer, WIRE_WRITE, handle);
        ask.args.range.count = 1;
        ask.args.range.sector = i;
        assert_int_equal(write_with_sum(&peer, &ask, data, SECTOR, wrong[i]),
                         FARBLK_CORRUPT);
        /* That is its outcome, also for a copy with the right one. */
        assert_int_equal(write_with_sum(&peer, &ask, data, SECTOR, right),
                         FARBLK_CORRUPT);
        assert_int_equal(damaged_writes(), i + 1);
    }
    ok(support_read(fixture.disk, 0, back, LARGE));
    assert_true(pattern_is_zero(back, LARGE));
    /* Nothing at all has a sum as well. */
    struct codec_request ask = peer_request(&peer, WIRE_WRITE, handle);
    assert_int_equal(write_with_sum(&peer, &ask, NULL, 0, 5), FARBLK_CORRUPT);
    ask = peer_request(&peer, WIRE_WRITE, handle);
    assert_int_equal(write_with_sum(&peer, &ask, NULL, 0, 0), 0);
    /* A wrong length comes before a wrong sum. */
    ask = peer_request(&peer, WIRE_WRITE, handle);
    ask.args.range.count = 2;
    assert_int_equal(write_with_sum(&peer, &ask, data, SECTOR, right),
                     FARBLK_INVALID);
    ask = peer_request(&peer, WIRE_WRITE, handle);
    ask.args.range.count = 1;
    assert_int_equal(write_with_sum(&peer, &ask, data, SECTOR, right), 0);
    /* The reply of a read has one; that of a failed read has none. */
    ask = peer_request(&peer, WIRE_READ, handle);
    ask.args.range.count = 1;
    uint32_t id = peer_send(&peer, &ask, NULL, 0);
    assert_int_equal(peer_wait(&peer, id, WIRE_READ, &reply, back, SECTOR), 0);
    assert_int_equal(reply.checksum, right);
    ask = peer_request(&peer, WIRE_READ, handle);
    ask.args.range.sector = FIXTURE_SECTORS;
    ask.args.range.count = 1;
    assert_int_equal(peer_ask(&peer, &ask, &reply), FARBLK_INVALID);
    assert_int_equal(reply.checksum, 0);
    peer_end(&peer);
}

static void
sums_that_were_not_agreed_upon_are_ignored(void **state)
{
    static const char *const features[] = {"crc32", "CRC32C", "crc32cc", NULL};
    struct peer peer;
    struct codec_reply reply;
    (void)state;
    begin_with_checksums(&peer, features, false);
    uint64_t handle = peer_open(&peer, "disk");
    memset(data, 1, SECTOR);
    struct codec_request ask = peer_request(&peer, WIRE_WRITE, handle);
    ask.args.range.count = 1;
    assert_int_equal(write_with_sum(&peer, &ask, data, SECTOR, 1234), 0);
    ask = peer_request(&peer, WIRE_READ, handle);
    ask.args.range.count = 1;
    ask.checksum = 77;
    uint32_t id = peer_send(&peer, &ask, NULL, 0);
    assert_int_equal(peer_wait(&peer, id, WIRE_READ, &reply, back, SECTOR), 0);
    assert_int_equal(reply.checksum, 0);
    peer_end(&peer);
}

static void
a_sum_of_another_type_or_length_does_not_parse(void **state)
{
    static const char *const features[] = {"crc32c", NULL};
    static const uint8_t bad[][10] = {
        {2, 9 << 3 | 0, 1}, /* an integer */
        {9, 9 << 3 | 1, 1, 2, 3, 4, 5, 6, 7, 8}, /* 64 bits */
        {6, 9 << 3 | 2, 4, 1, 2, 3, 4}, /* octets */
        {4, 9 << 3 | 5, 1, 2, 3}, /* cut off */
        {1, 9 << 3 | 5}, /* nothing left of it */
    };
    struct peer peer;
    struct codec_reply reply;
    (void)state;
    begin_with_checksums(&peer, features, true);
    uint64_t handle = peer_open(&peer, "disk");
    memset(data, 1, SECTOR);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint8_t header[256];
        struct codec_request ask = peer_request(&peer, WIRE_WRITE, handle);
        ask.args.range.count = 1;
        size_t length = codec_encode_request(&ask, header, sizeof header);
        memcpy(header + length, bad[i] + 1, bad[i][0]);
        uint32_t id =
            peer_send_raw(&peer, header, length + bad[i][0], data, SECTOR);
        assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0),
                         FARBLK_PROTOCOL);
    }
    ok(support_read(fixture.disk, 0, back, LARGE));
    assert_true(pattern_is_zero(back, LARGE));
    peer_end(&peer);
}

#define CHECKSUM_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CHECKSUM_TEST(without_checksums_a_flipped_bit_goes_through_unnoticed),
        CHECKSUM_TEST(a_flipped_bit_of_a_write_is_an_error_and_changes_nothing),
        CHECKSUM_TEST(a_flipped_bit_of_a_read_is_an_error),
        CHECKSUM_TEST(of_a_large_transfer_the_damaged_piece_is_named),
        CHECKSUM_TEST(of_many_in_flight_the_damaged_one_alone_fails),
        CHECKSUM_TEST(every_kind_of_link_carries_them),
        CHECKSUM_TEST(a_peer_with_wrong_sums_changes_nothing),
        CHECKSUM_TEST(sums_that_were_not_agreed_upon_are_ignored),
        CHECKSUM_TEST(a_sum_of_another_type_or_length_does_not_parse),
    };
    return cmocka_run_group_tests_name("checksum", tests, NULL, NULL);
}
