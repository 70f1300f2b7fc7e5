/* SPDX-License-Identifier: ISC */
/*
 * The mirror when something fails: a change on either side, the copying, a
 * flush; with degrade=1 and without.
 */
#include "tests/mirrors.h"

#define SIZE (1024 * KIB)

static struct mirrors *mirrors;
static uint8_t buffer[64 * KIB];

static int
setup(void **state)
{
    (void)state;
    support_watch("mirror_failure");
    mirrors = mirrors_create(SIZE, 512, 512);
    pattern_fill(buffer, sizeof buffer, 50);
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
mishap(struct puppet *puppet, uint32_t ops, uint64_t start, uint64_t end,
       unsigned times, int status, enum farblk_effect effect)
{
    puppet_fail(puppet, (struct puppet_rule){.ops = ops,
                                             .start = start,
                                             .end = end,
                                             .times = times,
                                             .status = status,
                                             .effect = effect});
}

static void
complete(bool degrade)
{
    mirrors_open(mirrors, degrade);
    mirrors_wait(mirrors, FARBLK_MIRROR_COMPLETE);
    mirrors_wait_told(mirrors, FARBLK_MIRROR_COMPLETE);
}

/* The state after the end, which was told once and last. */
static void
ended(enum farblk_mirror_state state, int status, const char *text)
{
    struct farblk_mirror_status now = mirrors_wait(mirrors, state);

    assert_int_equal(mirrors_wait_told(mirrors, state), 1);
    assert_int_equal(now.error, status);
    assert_non_null(strstr(now.text, text));
    assert_true(now.percent < 100);
    pthread_mutex_lock(&mirrors->mutex);
    struct farblk_mirror_status last = mirrors->seen[mirrors->seen_count - 1];
    pthread_mutex_unlock(&mirrors->mutex);
    assert_int_equal(last.state, state);
    assert_int_equal(last.error, status);
    assert_string_equal(last.text, now.text);
}

/* ------------------------------------------------------------ changes */

static void
failed_change(struct puppet *fails, enum farblk_op op, bool late)
{
    bool data = op == FARBLK_OP_WRITE;

    puppet_fail(fails,
                (struct puppet_rule){.ops = 1u << op,
                                     .end = SIZE,
                                     .times = 1,
                                     .late = late,
                                     .status = FARBLK_NO_SPACE,
                                     .effect = late ? FARBLK_EFFECT_UNKNOWN
                                                    : FARBLK_EFFECT_NONE});
    /* The repair is held, so that the state can be seen. */
    puppet_hold(mirrors->primary,
                (struct puppet_rule){
                    .ops = PUPPET_OP(READ) | PUPPET_OP(EXTENTS), .end = SIZE});
    mirrors_submit(mirrors, op, 100 * KIB, data ? buffer : NULL, 32 * KIB, 0,
                   0);
    struct farblk_completion completion = mirrors_collect(mirrors);
    assert_int_equal(completion.status, FARBLK_NO_SPACE);
    bool first = fails == mirrors->primary;
    assert_non_null(
        strstr(completion.text, first ? "primary: " : "secondary: "));
    assert_non_null(strstr(completion.text, "the puppet's mishap"));
    if (!first)
        assert_int_equal(completion.effect, FARBLK_EFFECT_UNKNOWN);
    puppet_wait_held(mirrors->primary, 1);
    struct farblk_mirror_status status = mirrors_status(mirrors);
    assert_int_equal(status.state, FARBLK_MIRROR_DEGRADED);
    assert_int_equal(status.error, FARBLK_NO_SPACE);
    assert_true(status.copied_sectors < status.size_sectors);
    puppet_release(mirrors->primary);
    status = mirrors_wait(mirrors, FARBLK_MIRROR_COMPLETE);
    assert_int_equal(status.error, 0);
    assert_string_equal(status.text, "");
    mirrors_expect_equal(mirrors);
}

static void
failed_change_fails_for_the_caller_and_is_copied_again(void **state)
{
    static const enum farblk_op ops[] = {
        FARBLK_OP_WRITE, FARBLK_OP_WRITE_ZEROES, FARBLK_OP_DISCARD};

    (void)state;
    complete(false);
    for (unsigned i = 0; i < 12; i++)
        failed_change(i % 2 ? mirrors->primary : mirrors->secondary, ops[i / 4],
                      i / 2 % 2);
    /* All of that after the one Complete, which is not told again. */
    assert_int_equal(mirrors_told(mirrors, FARBLK_MIRROR_COMPLETE), 1);
    assert_int_equal(mirrors_told(mirrors, FARBLK_MIRROR_FAILED), 0);
}

static void
change_of_which_nothing_happened_anywhere_leaves_it_complete(void **state)
{
    (void)state;
    complete(false);
    mishap(mirrors->primary, PUPPET_OP(WRITE), 0, SIZE, 1, FARBLK_NO_SPACE,
           FARBLK_EFFECT_NONE);
    mishap(mirrors->secondary, PUPPET_OP(WRITE), 0, SIZE, 1, FARBLK_NO_SPACE,
           FARBLK_EFFECT_NONE);
    fails_with(FARBLK_NO_SPACE, mirrors_write(mirrors, 0, 4096, 3));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
    assert_int_equal(mirrors_status(mirrors).state, FARBLK_MIRROR_COMPLETE);
    mirrors_expect_equal(mirrors);
}

/* Failures of many scattered ranges, more than are remembered one by one. */
static void
failures_everywhere_are_all_repaired(void **state)
{
    (void)state;
    mirrors_destroy(mirrors);
    mirrors = mirrors_create(2 * SIZE, 512, 512);
    complete(false);
    puppet_hold(
        mirrors->primary,
        (struct puppet_rule){.ops = PUPPET_OP(READ) | PUPPET_OP(EXTENTS),
                             .end = 2 * SIZE});
    mishap(mirrors->secondary, PUPPET_OP(WRITE), 0, 2 * SIZE, 0, FARBLK_IO,
           FARBLK_EFFECT_UNKNOWN);
    for (unsigned i = 0; i < 1000; i++)
        fails_with(FARBLK_IO,
                   mirrors_write(mirrors, (i * 7919u % 2048u) * 1024u, 512, i));
    mishap(mirrors->secondary, 0, 0, 0, 0, 0, FARBLK_EFFECT_NONE);
    puppet_release(mirrors->primary);
    mirrors_wait(mirrors, FARBLK_MIRROR_COMPLETE);
    mirrors_expect_equal(mirrors);
}

static void
childs_own_verdicts_are_storage_failures_for_the_caller(void **state)
{
    static const int statuses[] = {FARBLK_INVALID, FARBLK_UNIMPLEMENTED,
                                   FARBLK_IS_READ_ONLY, FARBLK_DISCONNECTED};

    (void)state;
    complete(false);
    for (unsigned i = 0; i < 4; i++) {
        mishap(mirrors->secondary, PUPPET_OP(WRITE), 0, SIZE, 1, statuses[i],
               FARBLK_EFFECT_NONE);
        fails_with(FARBLK_IO, mirrors_write(mirrors, 0, 4096, i));
        mirrors_wait(mirrors, FARBLK_MIRROR_COMPLETE);
    }
    mirrors_expect_equal(mirrors);
}

/* ------------------------------------------------------------ degrade=1 */

static void
with_degrade_primary_goes_on_alone_and_it_is_told(void **state)
{
    (void)state;
    complete(true);
    mishap(mirrors->secondary, PUPPET_OP(WRITE), 0, SIZE, 1, FARBLK_IO,
           FARBLK_EFFECT_UNKNOWN);
    ok(mirrors_write(mirrors, 64 * KIB, 4096, 5));
    ended(FARBLK_MIRROR_ALONE, FARBLK_IO, "secondary: the puppet's mishap");
    unsigned before = puppet_count(mirrors->secondary, FARBLK_OP_WRITE);
    ok(mirrors_write(mirrors, 65 * KIB, 4096, 6));
    ok(farblk_write_zeroes(mirrors->dev, 0, 8, 0));
    ok(farblk_discard(mirrors->dev, 16, 8, FARBLK_FUA));
    ok(farblk_flush(mirrors->dev));
    ok(farblk_resize(mirrors->dev, 100));
    assert_int_equal(puppet_count(mirrors->secondary, FARBLK_OP_WRITE), before);
    assert_int_equal(puppet_count(mirrors->secondary, FARBLK_OP_RESIZE), 0);
    mirrors_expect(mirrors->primary, 0, 0, 0);
    assert_int_equal(mirrors->primary->size, 100 * 512);
    assert_int_equal(mirrors_status(mirrors).state, FARBLK_MIRROR_ALONE);
    assert_int_equal(mirrors_told(mirrors, FARBLK_MIRROR_ALONE), 1);
}

static void
with_degrade_a_failed_copy_leaves_primary_alone(void **state)
{
    (void)state;
    mirrors->hook = NULL;
    puppet_hold(mirrors->secondary,
                (struct puppet_rule){.ops = PUPPET_OP(WRITE), .end = SIZE});
    mirrors_open(mirrors, true);
    puppet_wait_held(mirrors->secondary, 8);
    mishap(mirrors->secondary, PUPPET_OP(WRITE), 0, SIZE, 0, FARBLK_IO,
           FARBLK_EFFECT_UNKNOWN);
    puppet_release(mirrors->secondary);
    ended(FARBLK_MIRROR_ALONE, FARBLK_IO, "secondary: ");
    ok(mirrors_write(mirrors, 0, 4096, 6));
    assert_int_equal(mirrors_told(mirrors, FARBLK_MIRROR_COMPLETE), 0);
}

static void
with_degrade_a_failed_flush_of_secondary_is_not_the_callers(void **state)
{
    (void)state;
    complete(true);
    mishap(mirrors->secondary, PUPPET_OP(FLUSH), 0, SIZE, 1, FARBLK_IO,
           FARBLK_EFFECT_NONE);
    ok(farblk_flush(mirrors->dev));
    ended(FARBLK_MIRROR_ALONE, FARBLK_IO, "secondary: ");
    ok(farblk_flush(mirrors->dev));
}

static void
with_degrade_a_failure_of_primary_is_the_callers_still(void **state)
{
    (void)state;
    complete(true);
    mishap(mirrors->primary, PUPPET_OP(WRITE), 0, SIZE, 1, FARBLK_IO,
           FARBLK_EFFECT_UNKNOWN);
    fails_with(FARBLK_IO, mirrors_write(mirrors, 0, 4096, 3));
    mirrors_wait(mirrors, FARBLK_MIRROR_COMPLETE);
    mirrors_expect_equal(mirrors);
    assert_int_equal(mirrors_told(mirrors, FARBLK_MIRROR_ALONE), 0);
}

/* ------------------------------------------------------------ the copying */

static void
failed_read_ends_the_copying_and_not_the_device(void **state)
{
    (void)state;
    mishap(mirrors->primary, PUPPET_OP(READ), 512 * KIB, 513 * KIB, 0,
           FARBLK_IO, FARBLK_EFFECT_NONE);
    mirrors_open(mirrors, false);
    ended(FARBLK_MIRROR_FAILED, FARBLK_IO, "primary: the puppet's mishap");
    ok(support_read(mirrors->dev, 0, buffer, 4096));
    fails_with(FARBLK_IO, support_read(mirrors->dev, 1024, buffer, 4096));
    ok(mirrors_write(mirrors, 512 * KIB, 4096, 4)); /* it goes to both */
    mirrors_expect(mirrors->primary, 512 * KIB, 4096, 4);
    mirrors_expect(mirrors->secondary, 512 * KIB, 4096, 4);
    ok(farblk_flush(mirrors->dev));
    /* The window is not locked for ever. */
    ok(mirrors_write(mirrors, 0, 300 * KIB, 4));
    ok(farblk_resize(mirrors->dev, 64));
    assert_int_equal(mirrors_told(mirrors, FARBLK_MIRROR_COMPLETE), 0);
    assert_int_equal(mirrors_status(mirrors).state, FARBLK_MIRROR_FAILED);
}

static void
failed_map_of_primary_ends_the_copying(void **state)
{
    (void)state;
    mishap(mirrors->primary, PUPPET_OP(EXTENTS), 0, SIZE, 1, FARBLK_CORRUPT,
           FARBLK_EFFECT_NONE);
    mirrors_open(mirrors, false);
    ended(FARBLK_MIRROR_FAILED, FARBLK_CORRUPT, "primary: ");
    ok(mirrors_write(mirrors, 0, 4096, 4));
}

static void
failed_copy_to_secondary_ends_the_copying(void **state)
{
    (void)state;
    mishap(mirrors->secondary, PUPPET_OP(WRITE), 256 * KIB, 257 * KIB, 1,
           FARBLK_NO_SPACE, FARBLK_EFFECT_NONE);
    mirrors_open(mirrors, false);
    ended(FARBLK_MIRROR_FAILED, FARBLK_NO_SPACE, "secondary: ");
    ok(mirrors_write(mirrors, 0, 4096, 4));
    assert_int_equal(mirrors_told(mirrors, FARBLK_MIRROR_COMPLETE), 0);
}

static void
failed_zeroing_of_secondary_ends_the_copying(void **state)
{
    (void)state;
    mirrors_clear(mirrors->primary, 0, SIZE / 2);
    mishap(mirrors->secondary, PUPPET_OP(WRITE_ZEROES), 0, SIZE, 1, FARBLK_IO,
           FARBLK_EFFECT_UNKNOWN);
    mirrors_open(mirrors, false);
    ended(FARBLK_MIRROR_FAILED, FARBLK_IO, "secondary: ");
}

static void
failed_flush_of_secondary_is_never_complete(void **state)
{
    (void)state;
    mishap(mirrors->secondary, PUPPET_OP(FLUSH), 0, SIZE, 1, FARBLK_IO,
           FARBLK_EFFECT_NONE);
    mirrors_open(mirrors, false);
    ended(FARBLK_MIRROR_FAILED, FARBLK_IO, "secondary: ");
    assert_int_equal(mirrors_told(mirrors, FARBLK_MIRROR_COMPLETE), 0);
    fails_with(FARBLK_IO, farblk_flush(mirrors->dev));
}

static void
failed_flush_of_the_caller_unmakes_complete(void **state)
{
    (void)state;
    complete(false);
    mishap(mirrors->secondary, PUPPET_OP(FLUSH), 0, SIZE, 1, FARBLK_IO,
           FARBLK_EFFECT_NONE);
    fails_with(FARBLK_IO, farblk_flush(mirrors->dev));
    ended(FARBLK_MIRROR_FAILED, FARBLK_IO, "secondary: ");
}

static void
failed_repair_is_told_after_complete(void **state)
{
    (void)state;
    complete(false);
    mishap(mirrors->secondary, PUPPET_OP(WRITE), 0, SIZE, 2, FARBLK_IO,
           FARBLK_EFFECT_UNKNOWN);
    fails_with(FARBLK_IO, mirrors_write(mirrors, 0, 4096, 3));
    ended(FARBLK_MIRROR_FAILED, FARBLK_IO, "secondary: ");
    assert_int_equal(mirrors_told(mirrors, FARBLK_MIRROR_COMPLETE), 1);
}

static void
child_that_others_resize_fails_the_mirror(void **state)
{
    (void)state;
    complete(false);
    ok(farblk_resize(mirrors->primary->dev, SIZE / 512 + 8));
    ended(FARBLK_MIRROR_FAILED, FARBLK_CONFLICT,
          "primary: it has 1052672 octets, and the mirror 1048576");
    ok(support_read(mirrors->dev, 0, buffer, 4096));
    ok(mirrors_write(mirrors, 0, 4096, 4));
}

static void
secondary_that_shrinks_during_the_copying_fails_it(void **state)
{
    (void)state;
    puppet_hold(mirrors->primary,
                (struct puppet_rule){.ops = PUPPET_OP(READ), .end = SIZE});
    mirrors_open(mirrors, false);
    puppet_wait_held(mirrors->primary, 8);
    ok(farblk_resize(mirrors->secondary->dev, 8));
    puppet_release(mirrors->primary);
    mirrors_wait(mirrors, FARBLK_MIRROR_FAILED);
    assert_int_equal(mirrors_wait_told(mirrors, FARBLK_MIRROR_FAILED), 1);
    ok(mirrors_write(mirrors, 0, 4096, 4));
    fails_with(FARBLK_IO, mirrors_write(mirrors, 8192, 4096, 4));
    mirrors_expect(mirrors->primary, 8192, 4096, 4);
}

#define ONE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(failed_change_fails_for_the_caller_and_is_copied_again),
        ONE(change_of_which_nothing_happened_anywhere_leaves_it_complete),
        ONE(failures_everywhere_are_all_repaired),
        ONE(childs_own_verdicts_are_storage_failures_for_the_caller),
        ONE(with_degrade_primary_goes_on_alone_and_it_is_told),
        ONE(with_degrade_a_failed_copy_leaves_primary_alone),
        ONE(with_degrade_a_failed_flush_of_secondary_is_not_the_callers),
        ONE(with_degrade_a_failure_of_primary_is_the_callers_still),
        ONE(failed_read_ends_the_copying_and_not_the_device),
        ONE(failed_map_of_primary_ends_the_copying),
        ONE(failed_copy_to_secondary_ends_the_copying),
        ONE(failed_zeroing_of_secondary_ends_the_copying),
        ONE(failed_flush_of_secondary_is_never_complete),
        ONE(failed_flush_of_the_caller_unmakes_complete),
        ONE(failed_repair_is_told_after_complete),
        ONE(child_that_others_resize_fails_the_mirror),
        ONE(secondary_that_shrinks_during_the_copying_fails_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
