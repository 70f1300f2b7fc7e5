/* SPDX-License-Identifier: ISC */
/*
 * Every length, count and offset that a client may say, at its edges: 0, 1, the
 * limit and one more, 2^31, 2^32, 2^63, 2^64 - 1, in pairs where they are added
 * or multiplied; names without end or sense; and messages out of their turn.
 * What each must give is worked out here, by wide arithmetic.
 */
#include "tests/siege.h"

#include <endian.h>
#include <stdio.h>
#include <unistd.h>

#define SIZE ((uint64_t)SIEGE_SECTORS)

static const uint64_t edges[] = {
    0,
    1,
    2,
    SIZE - 1,
    SIZE,
    SIZE + 1,
    SIEGE_PAYLOAD / PEER_SECTOR,
    SIEGE_PAYLOAD / PEER_SECTOR + 1,
    INT32_MAX,
    UINT64_C(1) << 31,
    UINT32_MAX,
    UINT64_C(1) << 32,
    UINT64_C(1) << 54,
    (UINT64_C(1) << 55) + 2, /* times 512 wraps to 1024 */
    INT64_MAX,
    UINT64_C(1) << 63,
    UINT64_MAX - 1,
    UINT64_MAX,
};
#define EDGES (sizeof edges / sizeof edges[0])

static bool
within(uint64_t sector, uint64_t count, uint64_t size)
{
    return (unsigned __int128)sector + count <= size;
}

/* What a range must give: `most` sectors in one request. */
static int
expected(uint64_t sector, uint64_t count, uint64_t most)
{
    return within(sector, count, SIZE) && count <= most ? 0 : FARBLK_INVALID;
}

static void
check(struct peer *peer, int status, int wanted, const char *what, uint64_t a,
      uint64_t b)
{
    if (status != wanted)
        fail_msg("%s %llu + %llu: %s, not %s (%s)", what, (unsigned long long)a,
                 (unsigned long long)b, farblk_status_name(status),
                 farblk_status_name(wanted),
                 peer->header == NULL ? "" : peer->header->text);
    if (status != 0 && peer->header->text[0] == '\0')
        fail_msg("%s without a text", what);
    if (status == FARBLK_INVALID
        && peer->header->effect != (uint32_t)FARBLK_EFFECT_NONE)
        fail_msg("%s has had an effect", what);
}

/* ------------------------------------------------------------ ranges */

static void
range_at_its_edges_is_done_or_invalid(void **state)
{
    struct siege *siege = *state;
    Farblk__V1__DiscardRequest discard = FARBLK__V1__DISCARD_REQUEST__INIT;
    Farblk__V1__WriteZeroesRequest zeroes =
        FARBLK__V1__WRITE_ZEROES_REQUEST__INIT;
    Farblk__V1__ReadRequest read = FARBLK__V1__READ_REQUEST__INIT;
    Farblk__V1__WriteRequest write = FARBLK__V1__WRITE_REQUEST__INIT;
    Farblk__V1__ExtentsRequest extents = FARBLK__V1__EXTENTS_REQUEST__INIT;
    static const uint8_t data[1024];
    uint64_t most = SIEGE_PAYLOAD / PEER_SECTOR;
    struct peer peer;
    siege_peer(siege, &peer);
    for (size_t i = 0; i < EDGES; i++) {
        for (size_t j = 0; j < EDGES; j++) {
            uint64_t a = edges[i], b = edges[j];
            read.sector = write.sector = discard.sector = a;
            zeroes.sector = extents.sector = a;
            read.count = write.count = discard.count = b;
            zeroes.count = extents.count = b;
            check(&peer, peer_call(&peer, PEER_READ, &read.base, NULL, 0),
                  expected(a, b, most), "Read", a, b);
            assert_int_equal(peer.payload_length,
                             peer.header->status == 0 ? b * 512 : 0);
            check(&peer,
                  peer_call(&peer, PEER_WRITE, &write.base, data, sizeof data),
                  b == 2 ? expected(a, b, most) : FARBLK_INVALID, "Write", a,
                  b);
            check(&peer, peer_call(&peer, PEER_DISCARD, &discard.base, NULL, 0),
                  expected(a, b, SIZE), "Discard", a, b);
            check(&peer,
                  peer_call(&peer, PEER_WRITE_ZEROES, &zeroes.base, NULL, 0),
                  expected(a, b, SIZE), "WriteZeroes", a, b);
            extents.max = b > UINT32_MAX ? UINT32_MAX : (uint32_t)b | 1;
            check(&peer, peer_call(&peer, PEER_EXTENTS, &extents.base, NULL, 0),
                  expected(a, b, SIZE), "Extents", a, b);
        }
    }
    peer_free(&peer);
    close(peer.fd);
    siege_expect_service(siege);
}

/* 2025-47711 and 2025-47712 of nbdkit: the last sector, the whole device, the
 * largest count. */
static void
extents_at_their_edges_are_bounded(void **state)
{
    static const uint32_t maxima[] = {
        0, 1, 2, 4095, 4096, 4097, INT32_MAX, 1u << 31, UINT32_MAX};
    struct siege *siege = *state;
    Farblk__V1__ExtentsRequest ask = FARBLK__V1__EXTENTS_REQUEST__INIT;
    struct peer peer;
    siege_peer(siege, &peer);
    for (size_t i = 0; i < sizeof maxima / sizeof maxima[0]; i++) {
        for (uint64_t sector = SIZE - 2; sector <= SIZE; sector++) {
            ask.sector = sector;
            ask.count = SIZE - sector;
            ask.max = maxima[i];
            int status = peer_call(&peer, PEER_EXTENTS, &ask.base, NULL, 0);
            check(&peer, status, ask.max == 0 ? FARBLK_INVALID : 0, "Extents",
                  sector, ask.max);
            if (status != 0)
                continue;
            Farblk__V1__ExtentsReply *reply = farblk__v1__extents_reply__unpack(
                NULL, peer.header->result.len, peer.header->result.data);
            assert_non_null(reply);
            assert_int_equal(reply->n_counts, reply->n_mapped);
            assert_true(ask.count == 0 ? reply->n_counts == 0
                                       : reply->n_counts > 0);
            uint64_t sum = 0;
            for (size_t n = 0; n < reply->n_counts; n++) {
                assert_true(reply->counts[n] > 0);
                sum += reply->counts[n];
            }
            assert_true(sum <= ask.count);
            farblk__v1__extents_reply__free_unpacked(reply, NULL);
        }
    }
    peer_free(&peer);
    close(peer.fd);
    siege_expect_service(siege);
}

static void
piece_must_lie_in_its_whole_and_the_whole_in_the_device(void **state)
{
    struct siege *siege = *state;
    Farblk__V1__ReadRequest read = FARBLK__V1__READ_REQUEST__INIT;
    Farblk__V1__Range whole = FARBLK__V1__RANGE__INIT;
    struct rng rng = {20240229};
    struct peer peer;
    siege_peer(siege, &peer);
    read.whole = &whole;
    unsigned fine = 0;
    for (unsigned i = 0; i < 1500; i++) {
        uint64_t most = SIEGE_PAYLOAD / PEER_SECTOR;
        whole.sector = edges[rng_below(&rng, EDGES)];
        whole.count = edges[rng_below(&rng, EDGES)];
        read.sector =
            rng_below(&rng, 2) ? whole.sector : edges[rng_below(&rng, EDGES)];
        read.count = edges[rng_below(&rng, EDGES)];
        bool inside =
            read.sector >= whole.sector
            && within(read.sector - whole.sector, read.count, whole.count);
        int wanted = !inside                                   ? FARBLK_PROTOCOL
                     : read.count > most                       ? FARBLK_INVALID
                     : within(whole.sector, whole.count, SIZE) ? 0
                                                               : FARBLK_INVALID;
        check(&peer, peer_call(&peer, PEER_READ, &read.base, NULL, 0), wanted,
              "Read of a whole", read.sector, read.count);
        fine += wanted == 0;
    }
    assert_true(fine > 10);
    peer_free(&peer);
    close(peer.fd);
    siege_expect_service(siege);
}

static void
seeks_sizes_and_watches_at_their_edges(void **state)
{
    struct siege *siege = *state;
    Farblk__V1__SeekRequest seek = FARBLK__V1__SEEK_REQUEST__INIT;
    Farblk__V1__ResizeRequest resize = FARBLK__V1__RESIZE_REQUEST__INIT;
    Farblk__V1__WatchInfoRequest watch = FARBLK__V1__WATCH_INFO_REQUEST__INIT;
    struct peer peer;
    siege_peer(siege, &peer);
    for (size_t i = 0; i < EDGES; i++) {
        int wanted = edges[i] <= SIZE ? 0 : FARBLK_INVALID;
        seek.sector = edges[i];
        check(&peer, peer_call(&peer, PEER_SEEK_MAPPED, &seek.base, NULL, 0),
              wanted, "SeekMapped", edges[i], 0);
        check(&peer, peer_call(&peer, PEER_SEEK_UNMAPPED, &seek.base, NULL, 0),
              wanted, "SeekUnmapped", edges[i], 0);
        watch.generation = edges[i];
        int status = peer_call(&peer, PEER_WATCH_INFO, &watch.base, NULL, 0);
        assert_true(status == 0 || status == FARBLK_TIMED_OUT);
        /* What can not be; a size that could be would change the disk. */
        resize.size_sectors = edges[i];
        if ((unsigned __int128)edges[i] * PEER_SECTOR > INT64_MAX)
            check(&peer, peer_call(&peer, PEER_RESIZE, &resize.base, NULL, 0),
                  FARBLK_INVALID, "Resize", edges[i], 0);
    }
    resize.size_sectors = INT64_MAX / PEER_SECTOR;
    assert_int_equal(peer_call(&peer, PEER_RESIZE, &resize.base, NULL, 0), 0);
    resize.size_sectors = SIZE;
    assert_int_equal(peer_call(&peer, PEER_RESIZE, &resize.base, NULL, 0), 0);
    peer_free(&peer);
    close(peer.fd);
    siege_expect_service(siege);
}

/* What may be cancelled is within the window; what is, costs nobody else
 * anything. */
static void
numbers_to_cancel_at_their_edges(void **state)
{
    struct siege *siege = *state;
    Farblk__V1__CancelRequest cancel = FARBLK__V1__CANCEL_REQUEST__INIT;
    struct peer peer;
    siege_peer(siege, &peer);
    for (size_t i = 0; i < EDGES; i++) {
        cancel.number = edges[i];
        uint64_t lowest = peer.number + 1; /* each call has passed the others */
        check(&peer, peer_call(&peer, PEER_CANCEL, &cancel.base, NULL, 0),
              edges[i] == 0                ? FARBLK_INVALID
              : edges[i] < lowest          ? FARBLK_CONFLICT
              : edges[i] - lowest >= 65536 ? FARBLK_INVALID
                                           : 0,
              "Cancel", edges[i], 0);
    }
    assert_int_equal(peer_call(&peer, PEER_CANCEL, &cancel.base, "x", 1),
                     FARBLK_INVALID);
    peer_free(&peer);
    close(peer.fd);
    siege_expect_service(siege);
}

/* ------------------------------------------------------------ headers */

/* A header of the test's own. */
static int
send_header(struct peer *peer, Farblk__V1__RequestHeader *header)
{
    uint8_t body[512];
    uint32_t length =
        (uint32_t)farblk__v1__request_header__pack(header, body + 4);
    *(uint32_t *)(void *)body = htobe32(length);
    return peer_send(peer, body, 4 + length);
}

static void
numbers_of_headers_at_their_edges(void **state)
{
    struct siege *siege = *state;
    struct peer peer;
    siege_peer(siege, &peer);
    for (size_t i = 0; i < EDGES; i++) {
        Farblk__V1__RequestHeader header = FARBLK__V1__REQUEST_HEADER__INIT;
        header.session = peer.session;
        header.method = PEER_PING;
        header.number = header.lowest = edges[i];
        header.deadline_ms = (uint32_t)edges[i];
        uint64_t lowest = peer.number; /* of the Open */
        if (edges[i] >= 3 && edges[i] < lowest + 65536)
            continue; /* it would go on from there */
        int status = send_header(&peer, &header);
        if (edges[i] >= lowest && edges[i] < UINT64_MAX - 65536)
            continue; /* `lowest` may be anything: the end of this session */
        assert_true(status != 1);
        header = (Farblk__V1__RequestHeader)FARBLK__V1__REQUEST_HEADER__INIT;
        header.session = edges[i];
        header.method = PEER_PING;
        header.number = header.lowest = 9;
        status = send_header(&peer, &header);
        assert_int_equal(status,
                         edges[i] == 0 ? FARBLK_DENIED : FARBLK_DISCONNECTED);
    }
    peer_free(&peer);
    close(peer.fd);
    siege_peer(siege, &peer);
    for (size_t i = 0; i < EDGES; i++) {
        Farblk__V1__RequestHeader header = FARBLK__V1__REQUEST_HEADER__INIT;
        header.session = peer.session;
        header.method = PEER_GET_INFO;
        header.number = header.lowest = ++peer.number;
        header.handle = edges[i];
        assert_int_equal(send_header(&peer, &header), FARBLK_NOT_FOUND);
        header.method = (uint32_t)edges[i];
        header.number = header.lowest = ++peer.number;
        int status = send_header(&peer, &header);
        assert_true(status < 0 || header.method == PEER_PING);
    }
    peer_free(&peer);
    close(peer.fd);
    siege_expect_service(siege);
}

/* ------------------------------------------------------------ names */

static void
names_without_end_or_sense_are_refused(void **state)
{
    static const size_t lengths[] = {0,   1,    255,   256,   257,
                                     511, 4096, 60000, 65000, 1 << 20};
    static const char *const senseless[] = {
        "\xff\xfe\xfd",
        "\xc3\x28",
        "..",
        "/",
        "disk/../disk",
        "disk ",
        "a\nb",
        "%s%n%s%n",
        "\x1b[31mred",
        "\xf0\x9f\x92\xbe",
        "-",
        "\xed\xa0\x80",
    };
    struct siege *siege = *state;
    Farblk__V1__OpenRequest open = FARBLK__V1__OPEN_REQUEST__INIT;
    char *name = malloc((1 << 20) + 1);
    struct peer peer;
    assert_non_null(name);
    siege_peer(siege, &peer);
    open.name = name;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        memset(name, 'x', lengths[i]);
        name[lengths[i]] = '\0';
        int status = peer_call(&peer, PEER_OPEN, &open.base, NULL, 0);
        /* A header above the limit breaks the framing. */
        assert_true(lengths[i] <= 65000 ? status < 0 : status == 1);
    }
    free(name);
    peer_free(&peer);
    close(peer.fd);
    siege_peer(siege, &peer);
    for (size_t i = 0; i < sizeof senseless / sizeof senseless[0]; i++) {
        open.name = (char *)(uintptr_t)senseless[i];
        assert_true(peer_call(&peer, PEER_OPEN, &open.base, NULL, 0) < 0);
        for (const char *c = peer.header->text; *c != '\0'; c++)
            assert_true((unsigned char)*c >= 0x20 && *c != 0x7f);
    }
    peer_free(&peer);
    close(peer.fd);
    siege_expect_service(siege);
}

/* ------------------------------------------------------------ turns */

static void
messages_out_of_their_turn_get_errors(void **state)
{
    struct siege *siege = *state;
    Farblk__V1__PingRequest none = FARBLK__V1__PING_REQUEST__INIT;
    struct peer peer, again;
    /* Before any Hello: all of them. */
    assert_true(siege_connect(siege, &peer));
    for (uint32_t method = PEER_PING; method <= PEER_CANCEL; method++)
        assert_int_equal(peer_call(&peer, method, &none.base, NULL, 0),
                         FARBLK_DENIED);
    /* A second Hello begins a second session; the first goes on. */
    assert_int_equal(peer_hello(&peer), 0);
    assert_int_equal(peer_open(&peer, "disk"), 0);
    again = peer;
    again.body = NULL;
    again.header = NULL;
    again.number = 0;
    again.handle = 0;
    assert_int_equal(peer_hello(&again), 0);
    assert_int_not_equal(again.session, peer.session);
    peer.id = again.id;
    assert_int_equal(peer_call(&peer, PEER_GET_INFO, &none.base, NULL, 0), 0);
    /* The session's end, twice; then nothing of it any more. */
    peer.handle = 0;
    assert_int_equal(peer_call(&peer, PEER_DISCONNECT, &none.base, NULL, 0), 0);
    assert_true(peer_call(&peer, PEER_DISCONNECT, &none.base, NULL, 0) <= 0);
    for (uint32_t method = PEER_PING; method <= PEER_CANCEL; method++)
        if (method != PEER_DISCONNECT)
            assert_int_equal(peer_call(&peer, method, &none.base, NULL, 0),
                             FARBLK_DISCONNECTED);
    /* The second session does not mind. */
    again.id = peer.id;
    assert_int_equal(peer_call(&again, PEER_PING, &none.base, NULL, 0), 0);
    peer_free(&peer);
    peer_free(&again);
    close(peer.fd);
    siege_expect_service(siege);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(range_at_its_edges_is_done_or_invalid),
        cmocka_unit_test(extents_at_their_edges_are_bounded),
        cmocka_unit_test(
            piece_must_lie_in_its_whole_and_the_whole_in_the_device),
        cmocka_unit_test(seeks_sizes_and_watches_at_their_edges),
        cmocka_unit_test(numbers_to_cancel_at_their_edges),
        cmocka_unit_test(numbers_of_headers_at_their_edges),
        cmocka_unit_test(names_without_end_or_sense_are_refused),
        cmocka_unit_test(messages_out_of_their_turn_get_errors),
    };
    return siege_choose(argc, argv)
           || cmocka_run_group_tests(tests, siege_begin, siege_end);
}
