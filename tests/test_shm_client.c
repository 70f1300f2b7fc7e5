/* SPDX-License-Identifier: ISC */
/*
 * Clients of shared memory that lie, scribble, stop or die: each costs itself
 * its session, and nobody else anything.
 */
#include "tests/shm_peer.h"

#include "core/log.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef __SANITIZE_THREAD__
#define ROUNDS 12
#else
#define ROUNDS 40
#endif

static struct fixture fixture;
static struct shm_peer peer, other;

/* What the library logs, for tests that look for a reason. */
static pthread_mutex_t log_mutex = PTHREAD_MUTEX_INITIALIZER;
static char log_lines[65536];

static void
client_log(void *arg, enum farblk_log_level level, const char *line)
{
    size_t length;

    (void)arg;
    (void)level;
    pthread_mutex_lock(&log_mutex);
    length = strlen(log_lines);
    if (length + strlen(line) + 2 < sizeof log_lines)
        sprintf(log_lines + length, "%s\n", line);
    pthread_mutex_unlock(&log_mutex);
}

static void
client_forget_log(void)
{
    pthread_mutex_lock(&log_mutex);
    log_lines[0] = '\0';
    pthread_mutex_unlock(&log_mutex);
}

static bool
client_logged(const char *text)
{
    pthread_mutex_lock(&log_mutex);
    bool found = strstr(log_lines, text) != NULL;
    pthread_mutex_unlock(&log_mutex);
    return found;
}

static void
client_start(void)
{
    client_forget_log();
    farblk_set_log(FARBLK_LOG_INFO, client_log, NULL);
    fixture_start(&fixture, NULL);
}

static void
client_end(void)
{
    fixture_await(&fixture, now,
                  now.shm_sessions == 0 && now.shm_rings == 0
                      && now.shm_octets == 0 && now.requests == 0);
    fixture_end(&fixture);
    farblk_set_log(FARBLK_LOG_ERROR, NULL, NULL);
}

/* The other client's session works. */
static void
client_expect_served(struct shm_peer *who)
{
    struct ring_submission read = shm_peer_read(who, 3);

    shm_peer_submit(who, &read);
    struct ring_completion done = shm_peer_collect(who);
    assert_int_equal(done.status, 0);
    assert_int_equal(done.tag, 3);
}

/* ------------------------------------------------------------ the door */

static void
token_is_good_once_and_for_its_own_kind(void **state)
{
    struct side_hello hello = {
        .magic = SIDE_MAGIC, .version = RING_VERSION, .kind = SIDE_ATTACH};
    struct side_attached attached;
    int fd;

    (void)state;
    client_start();
    shm_peer_begin(&other, fixture.url);
    shm_peer_token(&peer, fixture.url, hello.token);
    hello.token[3] ^= 1;
    assert_int_equal(shm_peer_hello(fixture.url, &hello, &attached, &fd),
                     FARBLK_DENIED);
    hello.token[3] ^= 1;
    assert_int_equal(shm_peer_hello(fixture.url, &hello, &attached, &fd), 0);
    close(fd);
    assert_int_equal(shm_peer_hello(fixture.url, &hello, &attached, &fd),
                     FARBLK_DENIED);
    client_expect_served(&other);
    shm_peer_end(&peer);
    shm_peer_end(&other);
    client_end();
}

static void
garbage_at_the_door_is_shown_out(void **state)
{
    struct side_hello hello = {.magic = SIDE_MAGIC, .version = RING_VERSION};
    struct side_attached attached;
    struct error error;
    int fds[100], fd;

    (void)state;
    client_start();
    shm_peer_begin(&other, fixture.url);
    for (unsigned i = 0; i < 6; i++) {
        struct side_hello bad = hello;

        if (i == 0)
            bad.magic++;
        else if (i == 1)
            bad.version++;
        else
            bad.kind = i == 2   ? 0
                       : i == 3 ? 3
                       : i == 4 ? SIDE_RING
                                : UINT32_MAX;
        assert_int_not_equal(shm_peer_hello(fixture.url, &bad, &attached, &fd),
                             0);
    }
    /* Many that say nothing, or half of it; the server's door stays open. */
    for (unsigned i = 0; i < 100; i++) {
        fds[i] = side_connect(fixture.url, &hello, &error);
        if (fds[i] < 0)
            assert_int_not_equal(error.status, 0);
    }
    client_expect_served(&other);
    for (unsigned i = 0; i < 100; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    shm_peer_begin(&peer, fixture.url);
    client_expect_served(&peer);
    shm_peer_end(&peer);
    shm_peer_end(&other);
    client_end();
}

/* ------------------------------------------------------------ refusals */

static void
client_expect(struct shm_peer *who, const struct ring_submission *submission,
              int status, const char *text)
{
    shm_peer_submit(who, submission);
    struct ring_completion done = shm_peer_collect(who);
    const char *note =
        (const char *)ring_note(who->ring, who->shape.depth, submission->tag);
    assert_int_equal(done.tag, submission->tag);
    assert_int_equal(done.status, status);
    assert_int_equal(done.number, submission->number);
    if (status != 0) {
        char copy[RING_NOTE] = "";

        assert_in_range(done.text, 1, RING_NOTE - 1);
        memcpy(copy, note, done.text);
        if (strstr(copy, text) == NULL)
            fail_msg("\"%s\" is not in \"%s\"", text, copy);
    }
}

static void
submissions_that_can_not_be_are_refused(void **state)
{
    struct ring_submission read, write;

    (void)state;
    client_start();
    shm_peer_begin(&peer, fixture.url);
    read = shm_peer_read(&peer, 1);
    read.data = peer.shape.arena_octets - 511;
    client_expect(&peer, &read, FARBLK_INVALID, "of the arena");
    read.data = UINT64_MAX;
    client_expect(&peer, &read, FARBLK_INVALID, "of the arena");
    read = shm_peer_read(&peer, 1);
    read.count = UINT64_MAX;
    client_expect(&peer, &read, FARBLK_INVALID, "limit");
    read.count = 1;
    read.sector = FIXTURE_SECTORS;
    client_expect(&peer, &read, FARBLK_INVALID, "past the end");
    read.sector = 0;
    read.flags = 0x80;
    client_expect(&peer, &read, FARBLK_INVALID, "flags");
    read.flags = 0;
    read.handle++;
    client_expect(&peer, &read, FARBLK_NOT_FOUND, "no handle");
    read.handle--;
    for (uint32_t method = 0; method < 300; method++) {
        read.method = (uint16_t)method;
        if (method == WIRE_READ || method == WIRE_WRITE || method == WIRE_FLUSH
            || method == WIRE_DISCARD || method == WIRE_WRITE_ZEROES
            || method == WIRE_SEEK_MAPPED || method == WIRE_SEEK_UNMAPPED)
            continue;
        client_expect(&peer, &read, FARBLK_UNIMPLEMENTED, "by a ring");
    }
    write = shm_peer_read(&peer, 2);
    write.method = WIRE_WRITE;
    client_expect(&peer, &write, FARBLK_INVALID, "numbers begin with 1");
    write.number = 1000000;
    write.behind = 999990;
    client_expect(&peer, &write, FARBLK_INVALID, "window");
    client_expect_served(&peer);
    shm_peer_end(&peer);
    client_end();
}

/* A number is used once, by whichever way. */
static void
write_is_executed_once_by_either_way(void **state)
{
    struct ring_submission write;
    struct codec_request ask;
    struct codec_reply reply;
    uint8_t sector[512], now[512];

    (void)state;
    client_start();
    shm_peer_begin(&peer, fixture.url);
    uint8_t *data = peer.region + peer.shape.arena_at;
    /* By the ring, then a copy by the ring, and one by the socket. */
    ask = peer_request(&peer.peer, WIRE_WRITE, peer.handle);
    ask.args.range.count = 1;
    write = shm_peer_read(&peer, 2);
    write.method = WIRE_WRITE;
    write.number = ask.number;
    write.behind = (uint32_t)(ask.number - ask.lowest);
    write.data = 0;
    pattern_fill(data, 512, 1);
    client_expect(&peer, &write, 0, "");
    pattern_fill(data, 512, 2);
    client_expect(&peer, &write, 0, "");
    pattern_fill(sector, 512, 3);
    uint32_t id = peer_send(&peer.peer, &ask, sector, 512);
    assert_int_equal(peer_wait(&peer.peer, id, WIRE_WRITE, &reply, NULL, 0), 0);
    ok(support_read(fixture.disk, 0, now, 512));
    assert_int_equal(pattern_check(now, 512, 1), 512);
    /* One that runs: a copy by the socket is answered with it. */
    ask = peer_request(&peer.peer, WIRE_WRITE, peer.handle);
    ask.args.range.count = 1;
    write.number = ask.number;
    write.behind = (uint32_t)(ask.number - ask.lowest);
    pattern_fill(data, 512, 4);
    fixture_plug(&fixture);
    shm_peer_submit(&peer, &write);
    struct ring_submission same = write;
    same.tag = 5;
    shm_peer_submit(&peer, &same); /* in the ring: a conflict */
    assert_int_equal(shm_peer_collect(&peer).status, FARBLK_CONFLICT);
    id = peer_send(&peer.peer, &ask, sector, 512);
    uint32_t newest = peer_send(&peer.peer, &ask, sector, 512);
    fixture_await(&fixture, stats, stats.requests == 1);
    assert_false(peer_has(&peer.peer, id));
    fixture_unplug(&fixture);
    assert_int_equal(shm_peer_collect(&peer).status, 0);
    assert_int_equal(peer_wait(&peer.peer, newest, WIRE_WRITE, &reply, NULL, 0),
                     0);
    assert_int_equal(reply.number, ask.number);
    ok(support_read(fixture.disk, 0, now, 512));
    assert_int_equal(pattern_check(now, 512, 4), 512);
    shm_peer_end(&peer);
    client_end();
}

/* ------------------------------------------------------------ lies */

enum lie {
    LIE_JUMP,
    LIE_BACK,
    LIE_OVERRUN,
    LIE_TAG_LARGE,
    LIE_TAG_USED,
    LIES,
};

static void
client_lie(struct shm_peer *who, enum lie lie)
{
    struct ring_submission read = shm_peer_read(who, 1);
    _Atomic(uint64_t) *place = &who->submissions.entry[0].word[0];

    switch (lie) {
    case LIE_JUMP:
        atomic_store(place, 1000);
        break;
    case LIE_BACK:
        /* A lap, and then one that runs backwards. */
        for (uint32_t i = 0; i < who->shape.depth; i++) {
            shm_peer_submit(who, &read);
            shm_peer_collect(who);
        }
        atomic_store(place, 0);
        break;
    case LIE_OVERRUN:
        /* More than the ring has places, none of them taken back. */
        ring_publish(who->submissions, who->submitted + who->shape.depth,
                     &read);
        break;
    case LIE_TAG_LARGE:
        read.tag = who->shape.depth;
        shm_peer_submit(who, &read);
        break;
    default:
        fixture_plug(&fixture);
        shm_peer_submit(who, &read);
        shm_peer_submit(who, &read);
        break;
    }
    shm_peer_ring(who);
}

static void
lie_ends_that_session_only_and_says_why(void **state)
{
    struct codec_reply reply;

    (void)state;
    client_start();
    shm_peer_begin(&other, fixture.url);
    for (int lie = 0; lie < LIES; lie++) {
        client_forget_log();
        shm_peer_begin(&peer, fixture.url);
        client_expect_served(&peer);
        /* Begin anew at place 0 of the ring's second lap. */
        while (peer.submitted % peer.shape.depth != 0)
            client_expect_served(&peer);
        client_lie(&peer, (enum lie)lie);
        if (lie == LIE_TAG_USED) {
            while (!client_logged("lies"))
                usleep(1000);
            fixture_unplug(&fixture);
        }
        shm_peer_wait_closed(&peer);
        assert_true(client_logged("shared memory lies"));
        /* The session has ended with it. */
        struct codec_request ask = peer_request(&peer.peer, WIRE_PING, 0);
        uint32_t id = peer_send(&peer.peer, &ask, NULL, 0);
        assert_int_equal(peer_wait(&peer.peer, id, WIRE_PING, &reply, NULL, 0),
                         FARBLK_DISCONNECTED);
        client_expect_served(&other);
        shm_peer_end(&peer);
    }
    shm_peer_end(&other);
    client_end();
}

/* ------------------------------------------------------------ scribbling */

static void
client_scribble(struct shm_peer *who, struct rng *rng)
{
    const uint64_t rings = who->shape.arena_at / sizeof(uint64_t);
    _Atomic(uint64_t) *words = (void *)who->region;

    for (unsigned i = 0; i < 400; i++) {
        struct ring_submission entry;

        switch (rng_below(rng, 4)) {
        case 0: /* anywhere */
            atomic_store(&words[rng_below(rng, rings)], rng_next(rng));
            break;
        case 1: /* an entry, well published and full of anything */
            for (size_t word = 0; word < RING_WORDS; word++)
                ((uint64_t *)&entry)[word] =
                    rng_below(rng, 3) == 0 ? rng_next(rng) : rng_below(rng, 40);
            entry.tag %= 32;
            shm_peer_submit(who, &entry);
            break;
        case 2: /* one that is nearly right */
            entry = shm_peer_read(who, (uint32_t)rng_below(rng, 16));
            entry.method = (uint16_t)rng_below(rng, 18);
            entry.number = rng_below(rng, 100);
            entry.sector = rng_below(rng, FIXTURE_SECTORS + 8);
            entry.count = rng_below(rng, 40);
            entry.flags = (uint16_t)rng_below(rng, 16);
            entry.deadline_ms = (uint32_t)rng_below(rng, 3);
            shm_peer_submit(who, &entry);
            break;
        default:
            shm_peer_ring(who);
            break;
        }
    }
}

static void
scribbling_over_the_region_harms_nobody_else(void **state)
{
    struct rng rng = {.state = 20261128};

    (void)state;
    client_start();
    shm_peer_begin(&other, fixture.url);
    for (unsigned round = 0; round < ROUNDS; round++) {
        shm_peer_begin(&peer, fixture.url);
        client_scribble(&peer, &rng);
        client_expect_served(&other);
        shm_peer_end(&peer);
    }
    shm_peer_end(&other);
    client_end();
}

/* It leaves in the middle: nothing taken, doorbells unheard, requests running. */
static void
client_that_vanishes_leaves_nothing_behind(void **state)
{
    (void)state;
    client_start();
    shm_peer_begin(&other, fixture.url);
    for (unsigned round = 0; round < 4; round++) {
        shm_peer_begin(&peer, fixture.url);
        fixture_plug(&fixture);
        for (uint32_t tag = 0; tag < 16; tag++) {
            struct ring_submission read = shm_peer_read(&peer, tag);
            shm_peer_submit(&peer, &read);
        }
        if (round % 2 == 0) { /* its connection first, or its ring */
            shm_peer_end(&peer);
            fixture_unplug(&fixture);
        } else {
            close(peer.bell);
            peer.bell = -1;
            fixture_unplug(&fixture);
            shm_peer_end(&peer);
        }
        client_expect_served(&other);
    }
    shm_peer_end(&other);
    client_end();
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, fixture_watch, fixture_clean)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(token_is_good_once_and_for_its_own_kind),
        TEST(garbage_at_the_door_is_shown_out),
        TEST(submissions_that_can_not_be_are_refused),
        TEST(write_is_executed_once_by_either_way),
        TEST(lie_ends_that_session_only_and_says_why),
        TEST(scribbling_over_the_region_harms_nobody_else),
        TEST(client_that_vanishes_leaves_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
