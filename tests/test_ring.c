/* SPDX-License-Identifier: ISC */
/*
 * The ring of proto/ring.h with both its ends in this process and on the same
 * memory, so that ThreadSanitizer sees what they do to each other.
 */
#include "proto/ring.h"
#include "proto/side.h"
#include "tests/support.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEPTH 8u

/* A ring in ordinary memory, and a socket pair for its doorbells. */
struct pair {
    struct ring *ring;
    struct ring_lane submissions, completions;
    int client, server; /* each one's end */
    uint64_t rounds;
    atomic_uint_fast64_t completed; /* positions given out */
    unsigned answerers;
    pthread_mutex_t mutex;
    uint64_t answered; /* submissions that an answerer has taken */
};

static int
pair_setup(void **state)
{
    struct pair *pair = calloc(1, sizeof *pair);
    int fds[2];

    assert_non_null(pair);
    pair->ring = aligned_alloc(RING_PAGE, ring_octets(DEPTH));
    assert_non_null(pair->ring);
    memset(pair->ring, 0, ring_octets(DEPTH));
    pair->submissions = ring_submissions(pair->ring, DEPTH);
    pair->completions = ring_completions(pair->ring, DEPTH);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds),
                     0);
    pair->client = fds[0];
    pair->server = fds[1];
    pthread_mutex_init(&pair->mutex, NULL);
    *state = pair;
    return 0;
}

static int
pair_teardown(void **state)
{
    struct pair *pair = *state;

    close(pair->client);
    close(pair->server);
    pthread_mutex_destroy(&pair->mutex);
    free(pair->ring);
    free(pair);
    return 0;
}

/* Sleep until the entry at `position` may be there. */
static void
pair_wait(_Atomic(uint32_t) *sleeps, struct ring_lane lane, uint64_t position,
          int fd)
{
    struct pollfd waits = {.fd = fd, .events = POLLIN};

    if (!ring_sleep(sleeps, lane, position))
        return;
    /* A doorbell that does not ring is a test that fails. */
    assert_int_equal(poll(&waits, 1, SUPPORT_PATIENCE_MS), 1);
    assert_true(side_hear(fd));
    ring_awake(sleeps);
}

/* The words of an entry, so that a mixture of two is seen. */
static struct ring_submission
pair_submission(uint64_t position)
{
    return (struct ring_submission){
        .tag = (uint32_t)(position % DEPTH),
        .method = 7,
        .number = position * 3,
        .handle = position * 5,
        .sector = position * 7,
        .count = ~position,
        .data = position << 12,
    };
}

/* The server: takes submissions one after the other and answers each. */
static void *
pair_serve(void *arg)
{
    struct pair *pair = arg;

    for (uint64_t taken = 0; taken < pair->rounds;) {
        struct ring_submission got, wanted = pair_submission(taken);
        enum ring_found found = ring_look(pair->submissions, taken);

        assert_int_not_equal(found, RING_LIE);
        if (found == RING_NOTHING) {
            pair_wait(&pair->ring->server_sleeps, pair->submissions, taken,
                      pair->server);
            continue;
        }
        ring_take(pair->submissions, taken, &got);
        wanted.sequence = taken + 1;
        assert_memory_equal(&got, &wanted, sizeof got);
        taken++;

        struct ring_completion answer = {.tag = got.tag, .number = got.number};
        uint64_t position = atomic_fetch_add(&pair->completed, 1);
        ring_publish(pair->completions, position, &answer);
        if (ring_wants_bell(&pair->ring->client_sleeps))
            side_ring(pair->server);
    }
    return NULL;
}

/* The client keeps `depth` under way and checks what comes back. */
static void
pair_drive(struct pair *pair, uint64_t depth)
{
    uint64_t submitted = 0, taken = 0;

    while (taken < pair->rounds) {
        while (submitted < pair->rounds && submitted - taken < depth) {
            struct ring_submission submission = pair_submission(submitted);

            ring_publish(pair->submissions, submitted++, &submission);
            if (ring_wants_bell(&pair->ring->server_sleeps))
                side_ring(pair->client);
        }
        enum ring_found found = ring_look(pair->completions, taken);
        assert_int_not_equal(found, RING_LIE);
        if (found == RING_NOTHING) {
            pair_wait(&pair->ring->client_sleeps, pair->completions, taken,
                      pair->client);
            continue;
        }
        struct ring_completion got;
        ring_take(pair->completions, taken, &got);
        assert_int_equal(got.tag, taken % DEPTH);
        assert_int_equal(got.number, taken * 3);
        taken++;
    }
}

static void
entries_pass_in_order_and_nobody_sleeps_for_ever(void **state)
{
    static const uint64_t depths[] = {1, 2, DEPTH};
    struct pair *pair = *state;
    pthread_t server;

    for (size_t i = 0; i < sizeof depths / sizeof *depths; i++) {
        pair->rounds = 5000;
        atomic_store(&pair->completed, 0);
        memset(pair->ring, 0, ring_octets(DEPTH));
        assert_int_equal(pthread_create(&server, NULL, pair_serve, pair), 0);
        pair_drive(pair, depths[i]);
        assert_int_equal(pthread_join(server, NULL), 0);
    }
}

/* Several threads complete; the client takes all, in the order of places. */
static void *
pair_answer(void *arg)
{
    struct pair *pair = arg;

    for (;;) {
        pthread_mutex_lock(&pair->mutex);
        uint64_t mine = pair->answered++;
        pthread_mutex_unlock(&pair->mutex);
        if (mine >= pair->rounds)
            return NULL;
        /* Its submission is there when the one before its lap was taken. */
        while (ring_look(pair->submissions, mine) != RING_ENTRY)
            sched_yield();
        struct ring_completion answer = {.tag = (uint32_t)(mine % DEPTH),
                                         .number = mine};
        uint64_t position = atomic_fetch_add(&pair->completed, 1);
        ring_publish(pair->completions, position, &answer);
        if (ring_wants_bell(&pair->ring->client_sleeps))
            side_ring(pair->server);
    }
}

static void
completions_of_several_threads_are_all_taken(void **state)
{
    struct pair *pair = *state;
    pthread_t threads[3];
    uint64_t submitted = 0, taken = 0;
    unsigned char *seen;

    pair->rounds = 3000;
    seen = calloc(pair->rounds, 1);
    assert_non_null(seen);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, pair_answer, pair),
                         0);
    while (taken < pair->rounds) {
        /* A round of DEPTH at a time: a place is used again when all that look
         * at it have seen it. */
        while (submitted < pair->rounds && submitted - taken < DEPTH
               && (submitted % DEPTH != 0 || submitted == taken)) {
            struct ring_submission submission = pair_submission(submitted);
            ring_publish(pair->submissions, submitted++, &submission);
        }
        if (ring_look(pair->completions, taken) == RING_NOTHING) {
            pair_wait(&pair->ring->client_sleeps, pair->completions, taken,
                      pair->client);
            continue;
        }
        struct ring_completion got;
        ring_take(pair->completions, taken++, &got);
        assert_true(got.number < pair->rounds && !seen[got.number]);
        seen[got.number] = 1;
    }
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    free(seen);
}

static void
sequences_that_jump_or_run_backwards_are_lies(void **state)
{
    static const uint64_t lies[] = {1, 9, 18, 25, UINT64_MAX};
    struct pair *pair = *state;
    struct ring_lane lane = pair->submissions;
    struct ring_submission submission = {.tag = 1};

    assert_int_equal(ring_look(lane, 0), RING_NOTHING);
    assert_int_equal(ring_look(lane, 16), RING_LIE); /* no lap before */
    for (uint64_t position = 0; position < 2 * DEPTH; position++)
        ring_publish(lane, position, &submission);
    assert_int_equal(ring_look(lane, DEPTH), RING_ENTRY);
    assert_int_equal(ring_look(lane, 2 * DEPTH), RING_NOTHING);
    assert_int_equal(ring_look(lane, 0), RING_LIE); /* overrun */
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        atomic_store(&lane.entry[0].word[0], lies[i]);
        assert_int_equal(ring_look(lane, 2 * DEPTH),
                         lies[i] == 9 ? RING_NOTHING : RING_LIE);
    }
}

static void
shapes_that_cannot_be_are_seen(void **state)
{
    const struct ring_shape good = {
        .depth = 128,
        .rings = 2,
        .ring_octets = ring_octets(128),
        .arena_at = 2 * ring_octets(128),
        .arena_octets = 1u << 20,
    };
    struct ring_shape shape;

    (void)state;
    assert_true(ring_shape_valid(&good));
    assert_int_equal(good.ring_octets % RING_PAGE, 0);
    shape = good;
    shape.depth = 100;
    assert_false(ring_shape_valid(&shape));
    shape = good;
    shape.depth = 2 * RING_DEPTH_MAX;
    assert_false(ring_shape_valid(&shape));
    shape = good;
    shape.rings = 0;
    assert_false(ring_shape_valid(&shape));
    shape = good;
    shape.rings = RING_COUNT_MAX + 1;
    assert_false(ring_shape_valid(&shape));
    shape = good;
    shape.arena_at -= RING_PAGE;
    assert_false(ring_shape_valid(&shape));
    shape = good;
    shape.arena_octets = UINT64_MAX - 4095;
    assert_false(ring_shape_valid(&shape));
    shape = good;
    shape.arena_octets += 1;
    assert_false(ring_shape_valid(&shape));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            entries_pass_in_order_and_nobody_sleeps_for_ever, pair_setup,
            pair_teardown),
        cmocka_unit_test_setup_teardown(
            completions_of_several_threads_are_all_taken, pair_setup,
            pair_teardown),
        cmocka_unit_test_setup_teardown(
            sequences_that_jump_or_run_backwards_are_lies, pair_setup,
            pair_teardown),
        cmocka_unit_test(shapes_that_cannot_be_are_seen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
