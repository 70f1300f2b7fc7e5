/* SPDX-License-Identifier: ISC */
/*
 * The request path above a driver that the test holds in its hand: what it
 * gets, in which pieces and order, and what becomes of its answers, failures
 * and delays.
 */
#include "tests/request_bench.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void
a_large_request_comes_in_pieces_that_know_the_whole(void **state)
{
    struct bench *bench = *state;
    bench_send(bench, FARBLK_OP_WRITE, 100, 3 * 8 + 5, 1);
    assert_int_equal(held_count, 4);
    uint64_t offset = 100 * SECTOR;
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(held[i]->offset, offset);
        assert_int_equal(held[i]->length, i < 3 ? MAX_TRANSFER : 5 * SECTOR);
        assert_int_equal(held[i]->data.length, held[i]->length);
        assert_ptr_equal(iov_first(&held[i]->data).iov_base,
                         bench->data + i * MAX_TRANSFER);
        assert_int_equal(held[i]->whole_offset, 100 * SECTOR);
        assert_int_equal(held[i]->whole_length, 29 * SECTOR);
        offset += held[i]->length;
    }
    bench_end(2);
    bench_end(2);
    bench_end(0);
    bench_nothing_ends(bench);
    bench_end(0);
    assert_int_equal(bench_collect(bench).status, 0);
}

static void
pieces_in_flight_are_bounded_and_refilled(void **state)
{
    struct bench *bench = *state;
    bench_send(bench, FARBLK_OP_READ, 0, 40 * 8, 1);
    assert_int_equal(held_count, 16);
    bench_end(5);
    assert_int_equal(held_count, 16);
    while (held_count > 0)
        bench_end(held_count / 2);
    assert_int_equal(bench_collect(bench).status, 0);
    assert_int_equal(held_submits, 40);
}

static void
a_failed_piece_ends_the_request_with_an_unknown_effect(void **state)
{
    struct bench *bench = *state;
    bench_send(bench, FARBLK_OP_WRITE, 0, 40 * 8, 1);
    bench_end(0);
    struct io *io = held_take(3);
    io_failed(io, FARBLK_NO_SPACE, FARBLK_EFFECT_NONE, "disk is %s", "full");
    while (held_count > 0)
        bench_end(0);
    struct farblk_completion completion = bench_collect(bench);
    assert_int_equal(completion.status, FARBLK_NO_SPACE);
    assert_int_equal(completion.effect, FARBLK_EFFECT_UNKNOWN);
    assert_string_equal(completion.text, "write: disk is full");
    assert_true(held_submits < 40);
    bench_send(bench, FARBLK_OP_WRITE, 0, 1, 1);
    io_failed(held_take(0), FARBLK_NO_SPACE, FARBLK_EFFECT_NONE, "full");
    assert_int_equal(bench_collect(bench).effect, FARBLK_EFFECT_NONE);
    bench_send(bench, FARBLK_OP_READ, 0, 1, 1);
    io_failed(held_take(0), FARBLK_IO, FARBLK_EFFECT_UNKNOWN, "read: broken");
    completion = bench_collect(bench);
    assert_int_equal(completion.effect, FARBLK_EFFECT_NONE);
    assert_string_equal(completion.text, "read: broken"); /* named once */
}

static void
overlapping_changes_wait_for_each_other_and_reads_do_not(void **state)
{
    struct bench *bench = *state;
    bench_send(bench, FARBLK_OP_READ, 0, 8, 1);
    bench_send(bench, FARBLK_OP_READ, 4, 8, 2);
    assert_int_equal(held_count, 2);
    bench_send(bench, FARBLK_OP_WRITE, 11, 2, 3); /* behind read 2 */
    bench_send(bench, FARBLK_OP_READ, 12, 1, 4); /* behind write 3 */
    bench_send(bench, FARBLK_OP_DISCARD, 100, 1, 5); /* free */
    assert_int_equal(held_count, 3);
    bench_end(1);
    assert_int_equal(held_count, 3);
    assert_int_equal(held[2]->op, FARBLK_OP_WRITE);
    bench_end(2);
    assert_int_equal(held_count, 3);
    assert_int_equal(held[2]->offset, 12 * SECTOR);
    while (held_count > 0)
        bench_end(0);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(bench_collect(bench).status, 0);
}

static void
a_resize_runs_alone_and_later_requests_see_it(void **state)
{
    struct bench *bench = *state;
    bench_send(bench, FARBLK_OP_WRITE, SECTORS - 1, 1, 1);
    bench_send(bench, FARBLK_OP_RESIZE, 0, 100, 2);
    bench_send(bench, FARBLK_OP_READ, 99, 1, 3);
    bench_send(bench, FARBLK_OP_READ, 99, 2, 4);
    assert_int_equal(held_count, 1);
    bench_end(0);
    assert_int_equal((uintptr_t)bench_collect(bench).user, 1);
    assert_int_equal(held_count, 1);
    assert_int_equal(held[0]->op, FARBLK_OP_RESIZE);
    assert_int_equal(held[0]->length, 100 * SECTOR);
    bench_end(0);
    for (unsigned i = 0; i < 2; i++) {
        struct farblk_completion completion = bench_collect(bench);
        if ((uintptr_t)completion.user == 2) {
            assert_int_equal(completion.status, 0);
            continue;
        }
        assert_int_equal((uintptr_t)completion.user, 4);
        assert_int_equal(completion.status, FARBLK_INVALID);
        assert_string_equal(completion.text,
                            "read: 2 sectors at 99 reach past the end, 100 "
                            "sectors");
    }
    bench_end(0);
    assert_int_equal(bench_collect(bench).status, 0);
    struct farblk_info info = support_info(bench->dev);
    assert_int_equal(info.size_sectors, 100);
    assert_int_equal(info.generation, 2);
}

static void
fua_is_made_by_a_flush_where_the_driver_has_none(void **state)
{
    struct bench *bench = *state;
    bench_send_to(bench, bench->dev, FARBLK_OP_WRITE, 0, 1, FARBLK_FUA, 0, 1);
    assert_int_equal(held[0]->flags, FARBLK_FUA);
    bench_end(0);
    assert_int_equal(bench_collect(bench).status, 0); /* native: no flush */
    bench_send_to(bench, bench->dev, FARBLK_OP_DISCARD, 0, 1, FARBLK_FUA, 0, 1);
    assert_int_equal(held[0]->flags, 0);
    bench_end(0);
    bench_nothing_ends(bench);
    assert_int_equal(held[0]->op, FARBLK_OP_FLUSH);
    bench_end(0);
    assert_int_equal(bench_collect(bench).status, 0);
}

static void
sync_handles_make_every_change_fua(void **state)
{
    struct bench *bench = *state;
    struct farblk *sync = bench_open("fake:?sync=1");
    bench_send_to(bench, sync, FARBLK_OP_RESIZE, 0, 50, 0, 0, 1);
    bench_end(0);
    assert_int_equal(held[0]->op, FARBLK_OP_FLUSH);
    bench_end(0);
    assert_int_equal(bench_collect(bench).status, 0);
    bench_send_to(bench, sync, FARBLK_OP_WRITE, 0, 1, 0, 0, 1);
    assert_int_equal(held[0]->flags, FARBLK_FUA);
    bench_end(0);
    assert_int_equal(bench_collect(bench).status, 0);
    ok(farblk_close(sync));
}

static void
a_failed_flush_stays_until_the_device_is_opened_anew(void **state)
{
    struct bench *bench = *state;
    struct farblk *other = bench_open("fake:");
    bench_send(bench, FARBLK_OP_FLUSH, 0, 0, 1);
    io_failed(held_take(0), FARBLK_IO, FARBLK_EFFECT_NONE, "pages lost");
    assert_int_equal(bench_collect(bench).status, FARBLK_IO);
    held_submits = 0;
    bench_send_to(bench, other, FARBLK_OP_FLUSH, 0, 0, 0, 0, 1);
    struct farblk_completion completion = bench_collect(bench);
    assert_int_equal(completion.status, FARBLK_IO);
    assert_non_null(strstr(completion.text, "pages lost"));
    assert_int_equal(held_submits, 0);
    bench_send_to(bench, other, FARBLK_OP_DISCARD, 0, 1, FARBLK_FUA, 0, 1);
    bench_end(0);
    completion = bench_collect(bench);
    assert_int_equal(completion.status, FARBLK_IO);
    assert_int_equal(completion.effect, FARBLK_EFFECT_UNKNOWN);
    ok(farblk_close(other));
    ok(farblk_close(bench->dev));
    bench->dev = bench_open("fake:");
    bench_send(bench, FARBLK_OP_FLUSH, 0, 0, 1);
    bench_end(0);
    assert_int_equal(bench_collect(bench).status, 0);
}

static void
a_failed_fua_write_makes_flushes_fail_as_well(void **state)
{
    struct bench *bench = *state;
    bench_send_to(bench, bench->dev, FARBLK_OP_WRITE, 0, 1, FARBLK_FUA, 0, 1);
    io_failed(held_take(0), FARBLK_IO, FARBLK_EFFECT_UNKNOWN, "bad");
    assert_int_equal(bench_collect(bench).status, FARBLK_IO);
    bench_send(bench, FARBLK_OP_FLUSH, 0, 0, 1);
    assert_int_equal(bench_collect(bench).status, FARBLK_IO);
}

static void
time_runs_out_at_the_gate_the_range_and_the_driver(void **state)
{
    struct bench *bench = *state;
    bench_send(bench, FARBLK_OP_WRITE, 0, 4, 1);
    bench_send_to(bench, bench->dev, FARBLK_OP_WRITE, 3, 40, 0, 20,
                  2); /* range */
    /* Of its five pieces the first waits, the others are with the driver. */
    struct farblk_completion completion = bench_collect(bench);
    assert_int_equal((uintptr_t)completion.user, 2);
    assert_int_equal(completion.status, FARBLK_TIMED_OUT);
    assert_int_equal(held_count, 1);
    assert_int_equal(held_cancels, 4);

    bench_send_to(bench, bench->dev, FARBLK_OP_WRITE, 0, 1, 0, 20, 3);
    completion = bench_collect(bench);
    assert_int_equal(completion.status, FARBLK_TIMED_OUT);
    assert_int_equal(completion.effect, FARBLK_EFFECT_NONE);

    bench_send_to(bench, bench->dev, FARBLK_OP_RESIZE, 0, 9, 0, 20,
                  4); /* gate */
    completion = bench_collect(bench);
    assert_int_equal(completion.status, FARBLK_TIMED_OUT);
    assert_int_equal(completion.effect, FARBLK_EFFECT_NONE);
    bench_send(bench, FARBLK_OP_READ, 1000, 1, 5); /* the gate is open again */
    assert_int_equal(held_count, 2);
    bench_end(0);
    bench_end(0);
    assert_int_equal(bench_collect(bench).status, 0);
    assert_int_equal(bench_collect(bench).status, 0);
    assert_int_equal(support_info(bench->dev).size_sectors, SECTORS);
}

static atomic_bool timers_held;
static atomic_bool timers_stand;

static void
timers_hold(struct timer *timer)
{
    (void)timer;
    atomic_store(&timers_stand, true);
    while (atomic_load(&timers_held))
        sched_yield();
}

/* The timer's thread stands still, as it does when all of the process has: who is
 * let go afterwards looks at the clock. */
static void
a_request_is_not_begun_after_its_time(void **state)
{
    struct bench *bench = *state;
    struct timer timer = {0};
    atomic_store(&timers_held, true);
    atomic_store(&timers_stand, false);
    bench_send(bench, FARBLK_OP_WRITE, 0, 4, 1);
    assert_true(timer_arm(&timer, timer_now(), timers_hold));
    while (!atomic_load(&timers_stand))
        sched_yield();
    bench_send_to(bench, bench->dev, FARBLK_OP_WRITE, 3, 4, 0, 20, 2);
    int64_t until_ms = timer_now() + 20;
    while (timer_now() < until_ms)
        sched_yield();
    unsigned submits = atomic_load(&held_submits);
    bench_end(0);
    assert_int_equal(atomic_load(&held_submits), submits);
    atomic_store(&timers_held, false);
    for (unsigned i = 0; i < 2; i++) { /* in either order */
        struct farblk_completion completion = bench_collect(bench);
        bool late = (uintptr_t)completion.user == 2;
        assert_int_equal(completion.status, late ? FARBLK_TIMED_OUT : 0);
        assert_int_equal(completion.effect, FARBLK_EFFECT_NONE);
    }
    timer_disarm(&timer);
}

static void
what_waits_when_its_handle_is_revoked_is_not_begun(void **state)
{
    struct bench *bench = *state;
    struct farblk *revoked = handle_dup(bench->dev, false);
    assert_non_null(revoked);
    bench_send_to(bench, revoked, FARBLK_OP_WRITE, 0, 4, 0, 0, 1);
    bench_send_to(bench, revoked, FARBLK_OP_WRITE, 3, 4, 0, 0, 2);
    bench_send_to(bench, bench->dev, FARBLK_OP_WRITE, 6, 4, 0, 0, 3);
    assert_int_equal(held_count, 1);
    handle_revoke(revoked);
    bench_end(0);
    for (unsigned i = 0; i < 2; i++) { /* in either order */
        struct farblk_completion completion = bench_collect(bench);
        bool late = (uintptr_t)completion.user == 2;
        assert_true(late || (uintptr_t)completion.user == 1);
        assert_int_equal(completion.status, late ? FARBLK_DISCONNECTED : 0);
        assert_int_equal(completion.effect, FARBLK_EFFECT_NONE);
    }
    /* Others do not notice, and reading is no change. */
    assert_int_equal(held_count, 1);
    bench_end(0);
    assert_int_equal(bench_collect(bench).status, 0);
    bench_send_to(bench, revoked, FARBLK_OP_READ, 0, 4, 0, 0, 4);
    bench_end(0);
    assert_int_equal(bench_collect(bench).status, 0);
    ok(farblk_close(revoked));
}

static void
a_watch_ends_by_a_resize_a_disconnect_or_its_time(void **state)
{
    struct bench *bench = *state;
    struct farblk *other = bench_open("fake:");
    bench_send_to(bench, bench->dev, FARBLK_OP_WATCH, 0, 1, 0, 20, 1);
    assert_int_equal(bench_collect(bench).status, FARBLK_TIMED_OUT);
    bench_send_to(bench, bench->dev, FARBLK_OP_WATCH, 0, 7, 0, 0, 1);
    struct farblk_completion completion = bench_collect(bench);
    assert_int_equal(completion.status, 0);
    assert_int_equal(completion.value, 1);
    bench_send_to(bench, bench->dev, FARBLK_OP_WATCH, 0, 1, 0, -1, 1);
    bench_send_to(bench, other, FARBLK_OP_WATCH, 0, 1, 0, -1, 2);
    ok(farblk_disconnect(other));
    completion = bench_collect(bench);
    assert_int_equal((uintptr_t)completion.user, 2);
    assert_int_equal(completion.status, FARBLK_DISCONNECTED);
    bench_send(bench, FARBLK_OP_RESIZE, 0, 10, 3);
    bench_end(0);
    for (unsigned i = 0; i < 2; i++) {
        completion = bench_collect(bench);
        assert_int_equal(completion.status, 0);
        if ((uintptr_t)completion.user == 1)
            assert_int_equal(completion.value, 2);
    }
    ok(farblk_close(other));
}

static void *
end_all_later(void *arg)
{
    unsigned *left = arg;
    while (*left > 0) {
        pthread_mutex_lock(&held_mutex);
        while (held_count == 0)
            pthread_cond_wait(&held_wake, &held_mutex);
        struct io *io = held_take(0);
        (*left)--;
        pthread_mutex_unlock(&held_mutex);
        io_done(io, 0);
    }
    return NULL;
}

static void
disconnect_waits_for_what_is_in_flight(void **state)
{
    struct bench *bench = *state;
    unsigned left = 10;
    pthread_t thread;
    for (unsigned i = 0; i < 10; i++)
        bench_send(bench, FARBLK_OP_WRITE, i, 1, i);
    assert_int_equal(pthread_create(&thread, NULL, end_all_later, &left), 0);
    ok(farblk_disconnect(bench->dev));
    assert_int_equal(held_count, 0);
    pthread_join(thread, NULL);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(bench_collect(bench).status, 0);
    bench_send(bench, FARBLK_OP_WRITE, 0, 1, 1);
    assert_int_equal(bench_collect(bench).status, FARBLK_DISCONNECTED);
}

static void
a_forked_child_gets_errors_and_no_hang(void **state)
{
    struct bench *bench = *state;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct iovec iov = {bench->data, SECTOR};
        struct farblk_completion completion;
        struct farblk_request request = {
            .size = sizeof request, .op = FARBLK_OP_FLUSH, .dev = bench->dev};
        bool fine = farblk_read(bench->dev, 0, &iov, 1) == FARBLK_INVALID
                    && farblk_submit(bench->queue, &request) == FARBLK_INVALID
                    && farblk_collect(bench->queue, &completion,
                                      sizeof completion, 1, -1)
                           == FARBLK_INVALID
                    && farblk_close(bench->dev) == FARBLK_INVALID;
        struct farblk *own = NULL;
        fine = fine && farblk_open("ramdisk:childs-own", NULL, &own) == 0
               && farblk_read(own, 0, &iov, 1) == 0 && farblk_close(own) == 0;
        _exit(fine ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BENCH(a_large_request_comes_in_pieces_that_know_the_whole),
        WITH_BENCH(pieces_in_flight_are_bounded_and_refilled),
        WITH_BENCH(a_failed_piece_ends_the_request_with_an_unknown_effect),
        WITH_BENCH(overlapping_changes_wait_for_each_other_and_reads_do_not),
        WITH_BENCH(a_resize_runs_alone_and_later_requests_see_it),
        WITH_BENCH(fua_is_made_by_a_flush_where_the_driver_has_none),
        WITH_BENCH(sync_handles_make_every_change_fua),
        WITH_BENCH(a_failed_flush_stays_until_the_device_is_opened_anew),
        WITH_BENCH(a_failed_fua_write_makes_flushes_fail_as_well),
        WITH_BENCH(time_runs_out_at_the_gate_the_range_and_the_driver),
        WITH_BENCH(a_request_is_not_begun_after_its_time),
        WITH_BENCH(what_waits_when_its_handle_is_revoked_is_not_begun),
        WITH_BENCH(a_watch_ends_by_a_resize_a_disconnect_or_its_time),
        WITH_BENCH(disconnect_waits_for_what_is_in_flight),
        WITH_BENCH(a_forked_child_gets_errors_and_no_hang),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
