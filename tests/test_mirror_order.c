/* SPDX-License-Identifier: ISC */
/*
 * The mirror's order: what overlaps reaches both devices in the same order, and
 * the copying never puts old data over new.  Each test holds one request in the
 * middle and lets another one come.
 */
#include "tests/mirrors.h"

#define SIZE (1024 * KIB)
#define PIECE (64 * KIB) /* of the copying, for such a size */

static struct mirrors *mirrors;
static uint8_t buffer[4][256 * KIB];

static int
setup(void **state)
{
    (void)state;
    support_watch("mirror_order");
    mirrors = mirrors_create(SIZE, 512, 512);
    for (unsigned i = 0; i < 4; i++)
        pattern_fill(buffer[i], sizeof buffer[i], 100 + i);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    mirrors_destroy(mirrors);
    support_watch(NULL);
    return 0;
}

static void
complete_and_equal(void)
{
    mirrors_wait(mirrors, FARBLK_MIRROR_COMPLETE);
    mirrors_expect_equal(mirrors);
}

/* Old data of the piece at 4 * PIECE was read, or is about to be written, when
 * an application's write of [start, end) comes. */
static void
write_meets_a_piece(bool read, bool late, uint64_t start, uint64_t end)
{
    struct puppet *holds = read ? mirrors->primary : mirrors->secondary;

    puppet_hold(holds, (struct puppet_rule){.ops = read ? PUPPET_OP(READ)
                                                        : PUPPET_OP(WRITE),
                                            .start = 4 * PIECE,
                                            .end = 5 * PIECE,
                                            .times = 1,
                                            .late = late});
    mirrors_open(mirrors, false);
    puppet_wait_held(holds, 1);
    mirrors_submit(mirrors, FARBLK_OP_WRITE, start, buffer[0], end - start, 0,
                   0);
    bool apart = end <= 4 * PIECE || start >= 5 * PIECE;
    if (apart) /* disjoint: it does not wait */
        assert_int_equal(mirrors_collect(mirrors).status, 0);
    else
        mirrors_nothing_ends(mirrors);
    puppet_release(holds);
    if (!apart)
        assert_int_equal(mirrors_collect(mirrors).status, 0);
    complete_and_equal();
    assert_memory_equal(mirrors->secondary->data + start, buffer[0],
                        end - start);
    assert_int_equal(mirrors_told(mirrors, FARBLK_MIRROR_COMPLETE), 1);
}

#define MEETS(name, start, end)                                                \
    static void name##_while_the_piece_is_read(void **state)                   \
    {                                                                          \
        (void)state;                                                           \
        write_meets_a_piece(true, true, start, end);                           \
    }                                                                          \
    static void name##_while_the_piece_is_written(void **state)                \
    {                                                                          \
        (void)state;                                                           \
        write_meets_a_piece(false, false, start, end);                         \
    }
MEETS(write_from_the_left_into_it, 4 * PIECE - 4096, 4 * PIECE + 512)
MEETS(write_within_it, 4 * PIECE + 4096, 4 * PIECE + 8192)
MEETS(write_of_exactly_it, 4 * PIECE, 5 * PIECE)
MEETS(write_around_it, 4 * PIECE - 512, 5 * PIECE + 512)
MEETS(write_from_it_to_the_right, 5 * PIECE - 512, 5 * PIECE + 4096)
MEETS(write_that_touches_its_left_end, 4 * PIECE - 4096, 4 * PIECE)
MEETS(write_that_touches_its_right_end, 5 * PIECE, 5 * PIECE + 4096)

/* What was unmapped when the copying was planned is written before its turn
 * comes. */
static void
hole_that_is_filled_after_planning_is_not_zeroed(void **state)
{
    (void)state;
    mirrors_clear(mirrors->primary, 0, SIZE);
    /* Planning has its answer, which is held. */
    puppet_hold(
        mirrors->primary,
        (struct puppet_rule){
            .ops = PUPPET_OP(EXTENTS), .end = SIZE, .times = 1, .late = true});
    mirrors_open(mirrors, false);
    puppet_wait_held(mirrors->primary, 1);
    ok(mirrors_write(mirrors, 10 * KIB, 300 * KIB, 7));
    puppet_release(mirrors->primary);
    complete_and_equal();
    mirrors_expect(mirrors->secondary, 10 * KIB, 300 * KIB, 7);
}

static void
write_into_a_hole_waits_for_its_zeroing(void **state)
{
    (void)state;
    mirrors_clear(mirrors->primary, 0, SIZE);
    puppet_hold(mirrors->secondary,
                (struct puppet_rule){
                    .ops = PUPPET_OP(WRITE_ZEROES), .end = SIZE, .times = 1});
    mirrors_open(mirrors, false);
    puppet_wait_held(mirrors->secondary, 1);
    mirrors_submit(mirrors, FARBLK_OP_WRITE, 20 * KIB, buffer[0], 8 * KIB, 0,
                   0);
    mirrors_nothing_ends(mirrors);
    puppet_release(mirrors->secondary);
    assert_int_equal(mirrors_collect(mirrors).status, 0);
    complete_and_equal();
    assert_memory_equal(mirrors->secondary->data + 20 * KIB, buffer[0],
                        8 * KIB);
}

static void
overlapping_changes_reach_both_in_one_order(void **state)
{
    static const enum farblk_op ops[] = {
        FARBLK_OP_WRITE, FARBLK_OP_WRITE_ZEROES, FARBLK_OP_DISCARD};
    (void)state;

    mirrors_open(mirrors, false);
    mirrors_wait(mirrors, FARBLK_MIRROR_COMPLETE);
    for (unsigned i = 0; i < 18; i++) {
        struct puppet *slow =
            i % 2 == 0 ? mirrors->primary : mirrors->secondary;
        struct puppet *quick =
            i % 2 == 0 ? mirrors->secondary : mirrors->primary;
        enum farblk_op first = ops[i / 2 % 3], second = ops[i / 6];
        bool data[] = {first == FARBLK_OP_WRITE, second == FARBLK_OP_WRITE};

        puppet_hold(slow, (struct puppet_rule){.ops = PUPPET_OP(WRITE)
                                                      | PUPPET_OP(DISCARD)
                                                      | PUPPET_OP(WRITE_ZEROES),
                                               .end = SIZE,
                                               .times = 1});
        unsigned before = puppet_count(quick, second);
        mirrors_submit(mirrors, first, 64 * KIB, data[0] ? buffer[0] : NULL,
                       64 * KIB, 0, 0);
        puppet_wait_held(slow, 1);
        mirrors_submit(mirrors, second, 96 * KIB, data[1] ? buffer[1] : NULL,
                       64 * KIB, 0, 1);
        assert_int_equal(puppet_count(quick, second),
                         before + (first == second));
        mirrors_nothing_ends(mirrors);
        puppet_release(slow);
        assert_int_equal((uintptr_t)mirrors_collect(mirrors).user, 0);
        assert_int_equal((uintptr_t)mirrors_collect(mirrors).user, 1);
        mirrors_expect_equal(mirrors);
        for (unsigned k = 0; k < 2; k++) {
            struct puppet *puppet = k ? mirrors->secondary : mirrors->primary;

            if (data[1])
                assert_memory_equal(puppet->data + 96 * KIB, buffer[1],
                                    64 * KIB);
            else
                assert_true(pattern_is_zero(puppet->data + 96 * KIB, 64 * KIB));
        }
    }
}

static void
disjoint_writes_run_side_by_side(void **state)
{
    (void)state;
    mirrors_open(mirrors, false);
    mirrors_wait(mirrors, FARBLK_MIRROR_COMPLETE);
    puppet_hold(mirrors->secondary,
                (struct puppet_rule){.ops = PUPPET_OP(WRITE), .end = 64 * KIB});
    mirrors_submit(mirrors, FARBLK_OP_WRITE, 0, buffer[0], 32 * KIB, 0, 0);
    mirrors_submit(mirrors, FARBLK_OP_WRITE, 32 * KIB, buffer[1], 32 * KIB, 0,
                   1);
    mirrors_submit(mirrors, FARBLK_OP_WRITE, 64 * KIB, buffer[2], 32 * KIB, 0,
                   2);
    puppet_wait_held(mirrors->secondary, 2); /* both at once */
    assert_int_equal((uintptr_t)mirrors_collect(mirrors).user, 2);
    puppet_release(mirrors->secondary);
    mirrors_collect(mirrors);
    mirrors_collect(mirrors);
    mirrors_expect_equal(mirrors);
}

static void
reads_are_primarys_and_wait_for_no_copying_and_no_secondary(void **state)
{
    (void)state;
    puppet_hold(mirrors->secondary,
                (struct puppet_rule){.ops = PUPPET_ALL, .end = SIZE});
    mirrors_open(mirrors, false);
    puppet_wait_held(mirrors->secondary, 8);
    ok(support_read(mirrors->dev, 0, buffer[0], sizeof buffer[0]));
    assert_memory_equal(buffer[0], mirrors->primary->data, sizeof buffer[0]);
    /* A write that waits for the copying does not hold up reads either. */
    mirrors_submit(mirrors, FARBLK_OP_WRITE, 0, buffer[1], 4096, 0, 1);
    ok(support_read(mirrors->dev, 0, buffer[0], 8192));
    mirrors_nothing_ends(mirrors);
    puppet_release(mirrors->secondary);
    assert_int_equal(mirrors_collect(mirrors).status, 0);
    complete_and_equal();
    assert_int_equal(puppet_count(mirrors->secondary, FARBLK_OP_READ), 0);
}

static void
pieces_in_flight_are_several_and_bounded(void **state)
{
    (void)state;
    puppet_hold(mirrors->primary,
                (struct puppet_rule){.ops = PUPPET_OP(READ), .end = SIZE});
    mirrors_open(mirrors, false);
    puppet_wait_held(mirrors->primary, 8);
    /* The application's own comes at once, and no ninth piece with it. */
    mirrors_submit(mirrors, FARBLK_OP_FLUSH, 0, NULL, 0, 0, 0);
    assert_int_equal(mirrors_collect(mirrors).status, 0);
    assert_int_equal(mirrors->primary->held_most, 8);
    puppet_release(mirrors->primary);
    complete_and_equal();
}

static void
complete_is_told_after_the_flush_and_not_before(void **state)
{
    (void)state;
    puppet_hold(mirrors->secondary,
                (struct puppet_rule){.ops = PUPPET_OP(FLUSH), .end = SIZE});
    mirrors_open(mirrors, false);
    puppet_wait_held(mirrors->secondary, 1);
    struct farblk_mirror_status status = mirrors_status(mirrors);
    assert_int_equal(status.state, FARBLK_MIRROR_COPYING);
    assert_int_equal(status.percent, 99);
    assert_int_equal(status.copied_sectors, SIZE / 512);
    assert_int_equal(mirrors_told(mirrors, FARBLK_MIRROR_COMPLETE), 0);
    puppet_release(mirrors->secondary);
    complete_and_equal();
    assert_int_equal(mirrors_wait_told(mirrors, FARBLK_MIRROR_COMPLETE), 1);
}

/* A write fails while the flush that would make it complete is under way. */
static void
write_that_fails_during_the_flush_is_copied_before_complete(void **state)
{
    (void)state;
    puppet_hold(
        mirrors->secondary,
        (struct puppet_rule){.ops = PUPPET_OP(FLUSH), .end = SIZE, .times = 1});
    mirrors_open(mirrors, false);
    puppet_wait_held(mirrors->secondary, 1);
    puppet_fail(mirrors->secondary,
                (struct puppet_rule){.ops = PUPPET_OP(WRITE),
                                     .end = SIZE,
                                     .times = 1,
                                     .status = FARBLK_IO,
                                     .effect = FARBLK_EFFECT_UNKNOWN});
    fails_with(FARBLK_IO, mirrors_write(mirrors, 16 * KIB, 4 * KIB, 9));
    assert_int_equal(mirrors_status(mirrors).state, FARBLK_MIRROR_DEGRADED);
    assert_memory_not_equal(mirrors->primary->data + 16 * KIB,
                            mirrors->secondary->data + 16 * KIB, 4 * KIB);
    puppet_release(mirrors->secondary);
    complete_and_equal();
    mirrors_expect(mirrors->secondary, 16 * KIB, 4 * KIB, 9);
    assert_int_equal(puppet_count(mirrors->secondary, FARBLK_OP_FLUSH), 2);
    assert_int_equal(mirrors_wait_told(mirrors, FARBLK_MIRROR_COMPLETE), 1);
}

static void
resize_waits_for_pieces_and_keeps_both_equal(void **state)
{
    (void)state;
    puppet_hold(mirrors->secondary,
                (struct puppet_rule){
                    .ops = PUPPET_OP(WRITE), .start = 8 * PIECE, .end = SIZE});
    mirrors_open(mirrors, false);
    puppet_wait_held(mirrors->secondary, 8);
    mirrors_submit(mirrors, FARBLK_OP_RESIZE, 0, NULL, 10 * PIECE + 512, 0, 0);
    mirrors_nothing_ends(mirrors);
    puppet_release(mirrors->secondary);
    assert_int_equal(mirrors_collect(mirrors).status, 0);
    complete_and_equal();
    assert_int_equal(mirrors->primary->size, 10 * PIECE + 512);
    ok(farblk_resize(mirrors->dev, (SIZE + 4096) / 512));
    assert_int_equal(mirrors_status(mirrors).state, FARBLK_MIRROR_COMPLETE);
    mirrors_expect_equal(mirrors);
    ok(mirrors_write(mirrors, SIZE, 4096, 3));
    mirrors_expect_equal(mirrors);
}

/* Thousands wait for one sector; each makes way for the next. */
static void
chain_of_changes(int wanted)
{
    enum { COUNT = 4000 };
    struct farblk_queue *queue;
    struct farblk_completion completion[64];
    struct iovec iov = {buffer[0], 512};

    ok(farblk_queue_create(COUNT, &queue));
    for (unsigned i = 0; i < COUNT; i++) {
        struct farblk_request request = {.size = sizeof request,
                                         .op = FARBLK_OP_WRITE,
                                         .dev = mirrors->dev,
                                         .iov = &iov,
                                         .iovcnt = 1};

        ok(farblk_submit(queue, &request));
    }
    puppet_release(mirrors->secondary);
    for (unsigned got = 0; got < COUNT;) {
        int n = ok(farblk_collect(queue, completion, sizeof completion[0], 64,
                                  SUPPORT_PATIENCE_MS));

        assert_true(n > 0);
        for (int i = 0; i < n; i++)
            if (got + (unsigned)i > 0) /* the first was under way already */
                assert_int_equal(completion[i].status, wanted);
        got += (unsigned)n;
    }
    farblk_queue_destroy(queue);
}

static void
long_chain_of_changes_does_not_grow_the_stack(void **state)
{
    (void)state;
    mirrors_open(mirrors, false);
    mirrors_wait(mirrors, FARBLK_MIRROR_COMPLETE);
    puppet_hold(mirrors->secondary,
                (struct puppet_rule){.ops = PUPPET_OP(WRITE), .end = SIZE});
    chain_of_changes(0);
    mirrors_expect_equal(mirrors);
}

/* The devices refuse at once, without a driver. */
static void
long_chain_of_refusals_does_not_grow_the_stack(void **state)
{
    (void)state;
    mirrors_open(mirrors, false);
    mirrors_wait(mirrors, FARBLK_MIRROR_COMPLETE);
    ok(farblk_resize(mirrors->primary->dev, 0));
    ok(farblk_resize(mirrors->secondary->dev, 0));
    mirrors_wait(mirrors, FARBLK_MIRROR_FAILED);
    /* One that takes the range for now: a resize, held. */
    puppet_hold(mirrors->secondary,
                (struct puppet_rule){.ops = PUPPET_OP(RESIZE), .end = SIZE});
    mirrors_submit(mirrors, FARBLK_OP_RESIZE, 0, NULL, SIZE, 0, 0);
    puppet_wait_held(mirrors->secondary, 1);
    ok(farblk_disconnect(mirrors->primary->dev));
    chain_of_changes(0);
    assert_int_equal(mirrors_collect(mirrors).status, 0);
    ok(farblk_resize(mirrors->secondary->dev, 0));
    chain_of_changes(FARBLK_IO);
}

#define BOTH(name)                                                             \
    cmocka_unit_test_setup_teardown(name##_while_the_piece_is_read, setup,     \
                                    teardown),                                 \
        cmocka_unit_test_setup_teardown(name##_while_the_piece_is_written,     \
                                        setup, teardown)
#define ONE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(write_from_the_left_into_it),
        BOTH(write_within_it),
        BOTH(write_of_exactly_it),
        BOTH(write_around_it),
        BOTH(write_from_it_to_the_right),
        BOTH(write_that_touches_its_left_end),
        BOTH(write_that_touches_its_right_end),
        ONE(hole_that_is_filled_after_planning_is_not_zeroed),
        ONE(write_into_a_hole_waits_for_its_zeroing),
        ONE(overlapping_changes_reach_both_in_one_order),
        ONE(disjoint_writes_run_side_by_side),
        ONE(reads_are_primarys_and_wait_for_no_copying_and_no_secondary),
        ONE(pieces_in_flight_are_several_and_bounded),
        ONE(complete_is_told_after_the_flush_and_not_before),
        ONE(write_that_fails_during_the_flush_is_copied_before_complete),
        ONE(resize_waits_for_pieces_and_keeps_both_equal),
        ONE(long_chain_of_changes_does_not_grow_the_stack),
        ONE(long_chain_of_refusals_does_not_grow_the_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
