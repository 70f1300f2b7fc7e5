/* SPDX-License-Identifier: ISC */
/*
 * The crash test's oracle, over logs written by hand: what it takes for lost,
 * and what it lets pass.
 */
#include "tests/crash_oracle.h"

#include "tests/support.h"

#include <stdio.h>

#define SIZE (CRASH_FIXED + 8u)
#define AT 5u /* the sector that these tests look at */

static struct crash_shared *shared;
static struct oracle *oracle;
static char why[512];

/* One op of `count` sectors at AT, in the next lane's log; ended 0: never. */
static struct crash_op *
add(uint32_t op, uint64_t number, uint64_t begun, uint64_t ended)
{
    struct crash_lane *lane = &shared->lane[number % 2];
    struct crash_op *added = &lane->ops[lane->count++];

    memset(added, 0, sizeof *added);
    added->op = op;
    added->sector = op == FARBLK_OP_FLUSH || op == FARBLK_OP_RESIZE ? 0 : AT;
    added->count = op == FARBLK_OP_FLUSH ? 0 : 1;
    added->number = op == FARBLK_OP_WRITE ? number : 0;
    added->begun = begun;
    added->ended = ended;
    return added;
}

static struct crash_op *
fails(struct crash_op *op, int status, enum farblk_effect effect)
{
    op->status = status;
    op->effect = effect;
    return op;
}

/* What the device holds: `number` at AT, zeros elsewhere. */
static void
hold(uint64_t number)
{
    memset(shared->content, 0, sizeof shared->content);
    if (number != 0)
        tagged_fill(shared->content + AT * TAGGED_SECTOR, number, AT, 1);
    shared->size = SIZE;
}

static bool
judge(uint64_t number, uint64_t now, bool cut)
{
    oracle_take(oracle, shared, ORACLE_NEVER);
    crash_shared_reset(shared);
    oracle_server_ended(oracle, now - 1, false);
    hold(number);
    return oracle_judge(oracle, shared, now, cut, why, sizeof why);
}

static void
allowed(uint64_t number, uint64_t now, bool cut)
{
    if (!judge(number, now, cut))
        fail_msg("%llu: %s", (unsigned long long)number, why);
}

static void
lost(uint64_t number, uint64_t now, bool cut, const char *text)
{
    if (judge(number, now, cut))
        fail_msg("%llu is let pass", (unsigned long long)number);
    if (strstr(why, text) == NULL)
        fail_msg("no \"%s\" in \"%s\"", text, why);
}

static void
what_was_flushed_is_there(void **state)
{
    (void)state;
    add(FARBLK_OP_WRITE, 1, 10, 20);
    add(FARBLK_OP_FLUSH, 1, 30, 40);
    lost(0, 100, true, "older");
}

static void
a_flush_covers_what_had_ended_alone(void **state)
{
    (void)state;
    add(FARBLK_OP_WRITE, 1, 10, 31);
    add(FARBLK_OP_FLUSH, 1, 30, 40);
    allowed(0, 100, true);
}

static void
a_flush_that_failed_or_never_ended_covers_nothing(void **state)
{
    (void)state;
    add(FARBLK_OP_WRITE, 1, 10, 20);
    fails(add(FARBLK_OP_FLUSH, 1, 30, 40), FARBLK_IO, FARBLK_EFFECT_UNKNOWN);
    add(FARBLK_OP_FLUSH, 2, 50, 0);
    allowed(0, 100, true);
}

static void
fua_is_there_by_itself(void **state)
{
    (void)state;
    add(FARBLK_OP_WRITE, 1, 10, 20);
    add(FARBLK_OP_WRITE, 2, 30, 40)->durable = true;
    lost(1, 100, true, "older");
}

static void
what_was_acknowledged_survives_a_server_but_not_the_power(void **state)
{
    (void)state;
    add(FARBLK_OP_WRITE, 1, 10, 20);
    allowed(1, 100, false);
    /* Seen, and not flushed: it may still go. */
    allowed(0, 200, true);
    add(FARBLK_OP_WRITE, 2, 210, 220);
    lost(0, 300, false, "acknowledged");
}

static void
what_was_seen_and_then_flushed_is_there(void **state)
{
    (void)state;
    add(FARBLK_OP_WRITE, 1, 10, 0);
    allowed(1, 100, false);
    add(FARBLK_OP_FLUSH, 1, 110, 120);
    lost(0, 200, true, "durable");
}

static void
nothing_unacknowledged_comes_over_something_newer(void **state)
{
    (void)state;
    /* It failed, and may have happened; but then before the next one. */
    fails(add(FARBLK_OP_WRITE, 1, 10, 20), FARBLK_IO, FARBLK_EFFECT_UNKNOWN);
    add(FARBLK_OP_WRITE, 2, 30, 40)->durable = true;
    lost(1, 100, true, "older");
}

static void
what_nobody_answered_may_be_there(void **state)
{
    (void)state;
    add(FARBLK_OP_WRITE, 1, 10, 0);
    add(FARBLK_OP_WRITE, 2, 30, 40)->durable = true;
    allowed(1, 100, true);
}

static void
what_had_no_effect_is_nowhere(void **state)
{
    (void)state;
    fails(add(FARBLK_OP_WRITE, 1, 10, 20), FARBLK_NO_SPACE, FARBLK_EFFECT_NONE);
    lost(1, 100, false, "never written");
}

/* Over a restart: the same writer's flush, or another one's. */
static void
a_flush_by_the_next_server_speaks_for_its_writer(void **state)
{
    (void)state;
    for (uint64_t writer = 2; writer < 4; writer++) {
        add(FARBLK_OP_WRITE, 3, 10, 20);
        /* The flush's number says which lane it is in. */
        add(FARBLK_OP_FLUSH, writer, 40, 50);
        oracle_take(oracle, shared, 30);
        crash_shared_reset(shared);
        oracle_server_ended(oracle, 60, true);
        hold(0);
        assert_int_equal(
            oracle_judge(oracle, shared, 70, false, why, sizeof why),
            writer == 2);
    }
}

static void
zeroing_is_a_write(void **state)
{
    (void)state;
    add(FARBLK_OP_WRITE, 1, 10, 20)->durable = true;
    add(FARBLK_OP_DISCARD, 1, 30, 40);
    allowed(1, 100, true);
    add(FARBLK_OP_WRITE_ZEROES, 1, 110, 120)->durable = true;
    lost(1, 200, true, "older");
}

static void
what_a_failed_sync_forgot_binds_no_more(void **state)
{
    (void)state;
    add(FARBLK_OP_WRITE, 1, 10, 20);
    oracle_take(oracle, shared, ORACLE_NEVER);
    crash_shared_reset(shared);
    oracle_server_ended(oracle, 30, true);
    /* The next server's flush does not bring it back. */
    add(FARBLK_OP_FLUSH, 1, 40, 50);
    allowed(0, 100, true);
}

static void
a_size_that_was_flushed_is_there(void **state)
{
    (void)state;
    add(FARBLK_OP_RESIZE, 1, 10, 20)->count = SIZE - 1;
    add(FARBLK_OP_FLUSH, 1, 30, 40);
    lost(0, 100, true, "size");
}

static void
what_lies_past_the_end_is_lost(void **state)
{
    (void)state;
    add(FARBLK_OP_RESIZE, 1, 10, 20)->count = SIZE + 1;
    add(FARBLK_OP_WRITE, 1, 30, 40)->sector = SIZE;
    allowed(0, 100, true);
    /* It is durable, so it must be there, and thus the sector. */
    add(FARBLK_OP_RESIZE, 1, 110, 120)->count = SIZE + 1;
    struct crash_op *op = add(FARBLK_OP_WRITE, 1, 130, 140);
    op->sector = SIZE;
    op->durable = true;
    lost(0, 200, true, "older");
}

static void
torn_blocks_and_sectors_are_seen(void **state)
{
    (void)state;
    struct crash_op *op = add(FARBLK_OP_WRITE, 1, 10, 0);
    op->sector = CRASH_SHARED;
    op->count = CRASH_BLOCK;
    oracle_take(oracle, shared, ORACLE_NEVER);
    oracle_server_ended(oracle, 20, false);
    hold(0);
    tagged_fill(shared->content + CRASH_SHARED * TAGGED_SECTOR, 1, CRASH_SHARED,
                CRASH_BLOCK - 1);
    assert_false(oracle_judge(oracle, shared, 30, true, why, sizeof why));
    assert_non_null(strstr(why, "block"));
    shared->content[AT * TAGGED_SECTOR] = 1;
    assert_false(oracle_judge(oracle, shared, 40, true, why, sizeof why));
    assert_non_null(strstr(why, "sector 5 is torn"));
}

static int
oracle_setup(void **state)
{
    (void)state;
    crash_shared_reset(shared);
    oracle = oracle_create(SIZE);
    return 0;
}

static int
oracle_teardown(void **state)
{
    (void)state;
    oracle_destroy(oracle);
    return 0;
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, oracle_setup, oracle_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_was_flushed_is_there),
        TEST(a_flush_covers_what_had_ended_alone),
        TEST(a_flush_that_failed_or_never_ended_covers_nothing),
        TEST(fua_is_there_by_itself),
        TEST(what_was_acknowledged_survives_a_server_but_not_the_power),
        TEST(what_was_seen_and_then_flushed_is_there),
        TEST(nothing_unacknowledged_comes_over_something_newer),
        TEST(what_nobody_answered_may_be_there),
        TEST(what_had_no_effect_is_nowhere),
        TEST(a_flush_by_the_next_server_speaks_for_its_writer),
        TEST(zeroing_is_a_write),
        TEST(what_a_failed_sync_forgot_binds_no_more),
        TEST(a_size_that_was_flushed_is_there),
        TEST(what_lies_past_the_end_is_lost),
        TEST(torn_blocks_and_sectors_are_seen),
    };

    shared = crash_shared_create();
    return cmocka_run_group_tests_name("crash oracle", tests, NULL, NULL) != 0;
}
