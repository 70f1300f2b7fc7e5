/* SPDX-License-Identifier: ISC */
/*
 * The mirror when a resize is refused, when time runs out, and when it ends in
 * the middle.
 */
#include "tests/mirrors.h"

#include <poll.h>

#define SIZE (1024 * KIB)

static struct mirrors *mirrors;
static uint8_t buffer[64 * KIB];

static int
setup(void **state)
{
    (void)state;
    support_watch("mirror_end");
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

/* ------------------------------------------------------------ resize */

static void
resize_that_secondary_refuses_happens_on_neither(void **state)
{
    (void)state;
    complete(false);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t sectors = i % 2 ? SIZE / 512 + 16 : 64;

        puppet_fail(mirrors->secondary,
                    (struct puppet_rule){.ops = PUPPET_OP(RESIZE),
                                         .times = 1,
                                         .end = SIZE,
                                         .late = i / 2,
                                         .status = FARBLK_NO_SPACE,
                                         .effect = i / 2 ? FARBLK_EFFECT_UNKNOWN
                                                         : FARBLK_EFFECT_NONE});
        fails_with(FARBLK_NO_SPACE, farblk_resize(mirrors->dev, sectors));
        text_has("secondary does not take");
        assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
        assert_int_equal(support_info(mirrors->dev).size_sectors, SIZE / 512);
        assert_int_equal(mirrors->primary->size, SIZE);
        assert_int_equal(mirrors->secondary->size, SIZE);
        mirrors_wait(mirrors, FARBLK_MIRROR_COMPLETE);
        mirrors_expect_equal(mirrors); /* what was cut off is back */
    }
}

static void
resize_that_primary_refuses_happens_on_neither(void **state)
{
    (void)state;
    complete(false);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t sectors = i % 2 ? SIZE / 512 + 16 : 64;

        mishap(mirrors->primary, PUPPET_OP(RESIZE), 0, SIZE, 1, FARBLK_NO_SPACE,
               i / 2 ? FARBLK_EFFECT_UNKNOWN : FARBLK_EFFECT_NONE);
        fails_with(FARBLK_NO_SPACE, farblk_resize(mirrors->dev, sectors));
        text_has("primary does not take");
        assert_int_equal(support_info(mirrors->dev).size_sectors, SIZE / 512);
        assert_int_equal(mirrors->primary->size, SIZE);
        assert_int_equal(mirrors->secondary->size, SIZE);
        mirrors_wait(mirrors, FARBLK_MIRROR_COMPLETE);
        mirrors_expect_equal(mirrors);
    }
    assert_int_equal(mirrors_told(mirrors, FARBLK_MIRROR_FAILED), 0);
}

static void
secondary_that_keeps_a_wrong_size_fails_the_mirror(void **state)
{
    (void)state;
    complete(false);
    mishap(mirrors->primary, PUPPET_OP(RESIZE), 0, SIZE, 1, FARBLK_NO_SPACE,
           FARBLK_EFFECT_NONE);
    puppet_hold(mirrors->primary,
                (struct puppet_rule){.ops = PUPPET_OP(RESIZE), .end = SIZE});
    mirrors_submit(mirrors, FARBLK_OP_RESIZE, 0, NULL, 2 * SIZE, 0, 0);
    puppet_wait_held(mirrors->primary, 1);
    mishap(mirrors->secondary, PUPPET_OP(RESIZE), 0, SIZE, 1, FARBLK_IO,
           FARBLK_EFFECT_NONE);
    puppet_release(mirrors->primary);
    assert_int_equal(mirrors_collect(mirrors).status, FARBLK_NO_SPACE);
    ended(FARBLK_MIRROR_FAILED, FARBLK_IO,
          "secondary could not be given its size back");
    assert_int_equal(support_info(mirrors->dev).size_sectors, SIZE / 512);
}

/* ------------------------------------------------------------ time */

/* Whoever is slow: what it has done, or may have, is undone. */
static void
resize_that_runs_out_of_time_happens_on_neither(void **state)
{
    (void)state;
    complete(false);
    for (unsigned i = 0; i < 8; i++) {
        struct puppet *slow = i % 2 ? mirrors->primary : mirrors->secondary;

        puppet_hold(slow, (struct puppet_rule){.ops = PUPPET_OP(RESIZE),
                                               .times = 1,
                                               .end = SIZE,
                                               .late = i % 4 == 0});
        mirrors_submit(mirrors, FARBLK_OP_RESIZE, 0, NULL,
                       i / 4 ? 2 * SIZE : SIZE / 2, 30, 0);
        assert_int_equal(mirrors_collect(mirrors).status, FARBLK_TIMED_OUT);
        assert_int_equal(support_info(mirrors->dev).size_sectors, SIZE / 512);
        assert_int_equal(mirrors->primary->size, SIZE);
        assert_int_equal(mirrors->secondary->size, SIZE);
        mirrors_wait(mirrors, FARBLK_MIRROR_COMPLETE);
        mirrors_expect_equal(mirrors);
    }
}

static void
time_runs_out_on_a_child_and_before_a_range(void **state)
{
    (void)state;
    complete(true);
    puppet_hold(mirrors->secondary,
                (struct puppet_rule){.ops = PUPPET_OP(WRITE), .end = SIZE});
    mirrors_submit(mirrors, FARBLK_OP_WRITE, 0, buffer, 8192, 0, 0);
    puppet_wait_held(mirrors->secondary, 1);
    /* Behind that one. */
    mirrors_submit(mirrors, FARBLK_OP_WRITE, 4096, buffer, 8192, 30, 1);
    struct farblk_completion completion = mirrors_collect(mirrors);
    assert_int_equal((uintptr_t)completion.user, 1);
    assert_int_equal(completion.status, FARBLK_TIMED_OUT);
    assert_int_equal(completion.effect, FARBLK_EFFECT_NONE);
    /* Beside it: at secondary, which takes it back. */
    mirrors_submit(mirrors, FARBLK_OP_WRITE, 64 * KIB, buffer, 4096, 30, 2);
    completion = mirrors_collect(mirrors);
    assert_int_equal((uintptr_t)completion.user, 2);
    assert_int_equal(completion.status, FARBLK_TIMED_OUT);
    assert_int_equal(completion.effect, FARBLK_EFFECT_UNKNOWN);
    /* The caller's impatience is no failure of secondary. */
    assert_int_equal(mirrors_status(mirrors).state, FARBLK_MIRROR_DEGRADED);
    puppet_release(mirrors->secondary);
    assert_int_equal(mirrors_collect(mirrors).status, 0);
    mirrors_wait(mirrors, FARBLK_MIRROR_COMPLETE);
    mirrors_expect_equal(mirrors);
    assert_int_equal(mirrors_told(mirrors, FARBLK_MIRROR_ALONE), 0);
}

static void
request_behind_one_that_timed_out_goes_on(void **state)
{
    (void)state;
    complete(false);
    puppet_hold(
        mirrors->primary,
        (struct puppet_rule){.ops = PUPPET_OP(WRITE), .end = SIZE, .times = 1});
    mirrors_submit(mirrors, FARBLK_OP_WRITE, 0, buffer, 4096, 0, 0);
    puppet_wait_held(mirrors->primary, 1);
    mirrors_submit(mirrors, FARBLK_OP_WRITE, 0, buffer, 8192, 30, 1);
    mirrors_submit(mirrors, FARBLK_OP_WRITE, 4096, buffer, 4096, 0, 2);
    for (unsigned i = 0; i < 2; i++) {
        struct farblk_completion completion = mirrors_collect(mirrors);

        assert_int_equal(completion.status, (uintptr_t)completion.user == 1
                                                ? FARBLK_TIMED_OUT
                                                : 0);
        assert_int_not_equal((uintptr_t)completion.user, 0);
    }
    puppet_release(mirrors->primary);
    assert_int_equal(mirrors_collect(mirrors).status, 0);
    mirrors_expect_equal(mirrors);
}

/* ------------------------------------------------------------ the end */

/* Whatever the copying does at that moment, it ends, and says nothing more. */
static void
end_while_held(struct puppet *puppet, uint32_t ops, unsigned count)
{
    puppet_hold(puppet, (struct puppet_rule){.ops = ops, .end = SIZE});
    mirrors_open(mirrors, false);
    puppet_wait_held(puppet, count);
    ok(farblk_disconnect(mirrors->dev));
    assert_int_equal(puppet_held(puppet), 0); /* all were taken back */
    unsigned seen = mirrors->seen_count;
    puppet_release(puppet);
    fails_with(FARBLK_DISCONNECTED, mirrors_write(mirrors, 0, 4096, 1));
    struct farblk_mirror_status status = mirrors_status(mirrors);
    assert_int_equal(status.state, FARBLK_MIRROR_COPYING);
    ok(farblk_close(mirrors->dev));
    mirrors->dev = NULL;
    assert_int_equal(mirrors->seen_count, seen);
    assert_int_equal(mirrors_told(mirrors, FARBLK_MIRROR_COMPLETE), 0);
    assert_int_equal(mirrors_told(mirrors, FARBLK_MIRROR_FAILED), 0);
    /* The devices are as good as before, and may be mirrored again. */
    ok(support_write(mirrors->primary->dev, 0, buffer, 4096, 0));
    ok(support_read(mirrors->secondary->dev, 0, buffer, 4096));
    ok(farblk_flush(mirrors->secondary->dev));
    mirrors_open(mirrors, false);
    mirrors_wait(mirrors, FARBLK_MIRROR_COMPLETE);
    mirrors_expect_equal(mirrors);
}

static void
disconnect_ends_a_copying_whose_reads_hang(void **state)
{
    (void)state;
    end_while_held(mirrors->primary, PUPPET_OP(READ), 8);
}

static void
disconnect_ends_a_copying_whose_writes_hang(void **state)
{
    (void)state;
    end_while_held(mirrors->secondary, PUPPET_OP(WRITE), 8);
}

static void
disconnect_ends_a_copying_whose_planning_hangs(void **state)
{
    (void)state;
    end_while_held(mirrors->primary, PUPPET_OP(EXTENTS), 1);
}

static void
disconnect_ends_a_copying_whose_zeroing_hangs(void **state)
{
    (void)state;
    mirrors_clear(mirrors->primary, 0, SIZE);
    end_while_held(mirrors->secondary, PUPPET_OP(WRITE_ZEROES), 1);
}

/* Disconnecting waits for what is in flight, which waits for the copying, which
 * hangs. */
static void
disconnect_frees_a_request_behind_a_copying_that_hangs(void **state)
{
    (void)state;
    puppet_hold(mirrors->primary,
                (struct puppet_rule){.ops = PUPPET_OP(READ), .end = SIZE});
    mirrors_open(mirrors, false);
    puppet_wait_held(mirrors->primary, 8);
    mirrors_submit(mirrors, FARBLK_OP_WRITE, 0, buffer, sizeof buffer, 0, 0);
    mirrors_nothing_ends(mirrors);
    ok(farblk_disconnect(mirrors->dev));
    assert_int_equal(mirrors_collect(mirrors).status, 0);
    mirrors_expect(mirrors->primary, 0, sizeof buffer, 50);
    mirrors_expect(mirrors->secondary, 0, sizeof buffer, 50);
}

static void *
let_the_flush_go(void *arg)
{
    poll(NULL, 0, 20); /* disconnect waits for it, or finds it done */
    puppet_release(arg);
    return NULL;
}

/* A local flush that is taken back would spoil all later ones of the device. */
static void
disconnect_during_the_last_flush_leaves_the_device_whole(void **state)
{
    pthread_t thread;

    (void)state;
    puppet_hold(mirrors->secondary,
                (struct puppet_rule){.ops = PUPPET_OP(FLUSH), .end = SIZE});
    mirrors_open(mirrors, false);
    puppet_wait_held(mirrors->secondary, 1);
    assert_int_equal(
        pthread_create(&thread, NULL, let_the_flush_go, mirrors->secondary), 0);
    ok(farblk_close(mirrors->dev));
    mirrors->dev = NULL;
    pthread_join(thread, NULL);
    assert_int_equal(mirrors_told(mirrors, FARBLK_MIRROR_COMPLETE), 0);
    ok(farblk_flush(mirrors->secondary->dev));
}

#define ONE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(resize_that_secondary_refuses_happens_on_neither),
        ONE(resize_that_primary_refuses_happens_on_neither),
        ONE(secondary_that_keeps_a_wrong_size_fails_the_mirror),
        ONE(resize_that_runs_out_of_time_happens_on_neither),
        ONE(time_runs_out_on_a_child_and_before_a_range),
        ONE(request_behind_one_that_timed_out_goes_on),
        ONE(disconnect_ends_a_copying_whose_reads_hang),
        ONE(disconnect_ends_a_copying_whose_writes_hang),
        ONE(disconnect_ends_a_copying_whose_planning_hangs),
        ONE(disconnect_ends_a_copying_whose_zeroing_hangs),
        ONE(disconnect_frees_a_request_behind_a_copying_that_hangs),
        ONE(disconnect_during_the_last_flush_leaves_the_device_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
