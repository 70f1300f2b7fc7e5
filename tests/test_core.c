/* SPDX-License-Identifier: ISC */
/*
 * The leaves of core: texts, iovec windows, range locks, the gate, timers,
 * blocks.  URIs: test_uri.c.
 */
#include "core/block.h"
#include "core/burst.h"
#include "core/checked.h"
#include "core/error.h"
#include "core/gate.h"
#include "core/iov.h"
#include "core/ranges.h"
#include "core/timer.h"
#include "core/uri.h"
#include "tests/support.h"

#include <stdlib.h>
#include <string.h>

static void
texts_from_outside_are_bounded_and_harmless(void **state)
{
    (void)state;
    char to[16];
    error_copy_text(to, sizeof to, "a\nb\033[1m", 8);
    assert_string_equal(to, "a?b?[1m");
    error_copy_text(to, sizeof to, "\xc3\xa4\xff\xc0\x80", 5);
    assert_string_equal(to, "\xc3\xa4???");
    error_copy_text(to, sizeof to,
                    "\xc2\x9b"
                    "x",
                    3); /* a C1 control */
    assert_string_equal(to, "?x");
    error_copy_text(to, sizeof to, "0123456789abcdefgh", 18);
    assert_string_equal(to, "0123456789abcde");
    error_copy_text(to, 5, "abc\xc3\xa4", 5); /* no half character */
    assert_string_equal(to, "abc");
    error_copy_text(to, sizeof to, "ab\0cd", 5);
    assert_string_equal(to, "ab");
}

static void
status_names_cover_all_numbers(void **state)
{
    (void)state;
    assert_string_equal(farblk_status_name(0), "OK");
    assert_string_equal(farblk_status_name(FARBLK_APPEND_ONLY), "APPEND_ONLY");
    assert_string_equal(farblk_status_name(-21), "UNKNOWN");
    assert_string_equal(farblk_status_name(1), "UNKNOWN");
    assert_string_equal(farblk_status_name(INT32_MIN), "UNKNOWN");
    assert_int_equal(error_known_status(-21), FARBLK_UNKNOWN);
    assert_int_equal(error_known_status(INT64_MIN), FARBLK_UNKNOWN);
    assert_int_equal(error_known_status(FARBLK_BUSY), FARBLK_BUSY);
}

static void
a_window_walks_over_empty_buffers(void **state)
{
    (void)state;
    char a[3] = "abc", b[4] = "defg", out[8] = "";
    struct iovec iov[] = {{a, 0}, {a, 3}, {NULL, 0}, {b, 4}, {NULL, 0}};
    struct iovec to[4];
    uint64_t total, length;
    assert_true(iov_total(iov, 5, &total));
    assert_int_equal(total, 7);
    struct iov_view view = {.iov = iov, .count = 5, .length = total};
    iov_advance(&view, 2);
    assert_int_equal(iov_export(&view, to, 4, &length), 2);
    assert_int_equal(length, 5);
    assert_int_equal(to[0].iov_len, 1);
    assert_ptr_equal(to[1].iov_base, b);
    assert_int_equal(iov_export(&view, to, 1, &length), 1);
    assert_int_equal(length, 1);
    iov_copy_out(&view, out, 3);
    assert_memory_equal(out, "cde", 3);
    iov_zero(&view, 1);
    iov_copy_in(&view, "X", 1);
    assert_memory_equal(b, "de\0X", 4);
    assert_int_equal(view.length, 0);
    assert_int_equal(iov_export(&view, to, 4, &length), 0);

    struct iovec huge[] = {{a, SIZE_MAX}, {a, 2}};
    assert_false(iov_total(huge, 2, &total));
    huge[0].iov_len = INT64_MAX;
    assert_false(iov_total(huge, 2, &total));
}

/* Range locks against the plain rule: of two that conflict the earlier goes
 * first, and nobody waits for anybody else. */
#define LOCKS 200
static void
range_locks_grant_exactly_what_the_rule_says(void **state)
{
    (void)state;
    struct ranges ranges;
    static struct range_lock lock[LOCKS];
    static bool present[LOCKS], granted[LOCKS];
    static unsigned order[LOCKS];
    unsigned arrivals = 0;
    uint64_t seed = 4711;
    ranges_init(&ranges);
    memset(present, 0, sizeof present);
    for (unsigned step = 0; step < 200000; step++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        unsigned i = (unsigned)(seed >> 33) % LOCKS;
        struct range_lock *ready = NULL;
        if (!present[i]) {
            uint64_t unit = (seed >> 20) % 4 == 0 ? 1u << 22 : 1u << 12;
            uint64_t start = (seed >> 40) % 512 * unit;
            uint64_t length = ((seed >> 50) % 16 + 1) * unit;
            present[i] = true;
            order[i] = arrivals++;
            granted[i] = ranges_acquire(&ranges, &lock[i], start, length,
                                        (seed >> 60) % 2 == 0);
        } else if (granted[i]) {
            present[i] = false;
            ready = ranges_release(&ranges, &lock[i]);
        } else {
            assert_true(ranges_cancel(&ranges, &lock[i], &ready));
            present[i] = false;
        }
        for (; ready != NULL; ready = ready->ready_next)
            granted[ready - lock] = true;
        if (step % 16 != 0)
            continue;
        for (unsigned a = 0; a < LOCKS; a++) {
            bool expected = true;
            for (unsigned b = 0; present[a] && b < LOCKS; b++)
                if (present[b] && order[b] < order[a]
                    && lock[a].start < lock[b].end
                    && lock[b].start < lock[a].end
                    && (lock[a].exclusive || lock[b].exclusive))
                    expected = false;
            if (present[a])
                assert_int_equal(granted[a], expected);
        }
    }
    for (unsigned i = 0; i < LOCKS; i++) {
        struct range_lock *ready = NULL;
        if (present[i] && !ranges_cancel(&ranges, &lock[i], &ready))
            ready = ranges_release(&ranges, &lock[i]);
    }
    ranges_fini(&ranges);
}

static unsigned passes;

static void
count_pass(struct gate_waiter *waiter)
{
    (void)waiter;
    passes++;
}

static void
the_gate_lets_one_in_alone_and_keeps_the_order(void **state)
{
    (void)state;
    struct gate gate;
    struct gate_waiter w[6];
    memset(w, 0, sizeof w);
    for (unsigned i = 0; i < 6; i++)
        w[i].passed = count_pass;
    passes = 0;
    gate_init(&gate);
    assert_true(gate_enter(&gate, &w[0], false));
    assert_true(gate_enter(&gate, &w[1], false));
    assert_false(gate_enter(&gate, &w[2], true));
    assert_false(gate_enter(&gate, &w[3], false)); /* behind the resize */
    assert_false(gate_enter(&gate, &w[4], true));
    gate_leave(&gate, false);
    assert_int_equal(passes, 0);
    gate_leave(&gate, false);
    assert_int_equal(passes, 1); /* w[2], alone */
    assert_true(gate_cancel(&gate, &w[4]));
    assert_false(gate_cancel(&gate, &w[2]));
    gate_leave(&gate, true);
    assert_int_equal(passes, 2); /* w[3] */
    assert_true(gate_enter(&gate, &w[5], false)); /* open again */
    gate_leave(&gate, false);
    gate_leave(&gate, false);
    assert_true(gate_enter(&gate, &w[0], true));
    gate_leave(&gate, true);
    gate_fini(&gate);
}

static void
cancelling_the_resize_opens_the_gate(void **state)
{
    (void)state;
    struct gate gate;
    struct gate_waiter w[3];
    memset(w, 0, sizeof w);
    for (unsigned i = 0; i < 3; i++)
        w[i].passed = count_pass;
    passes = 0;
    gate_init(&gate);
    assert_true(gate_enter(&gate, &w[0], false));
    assert_false(gate_enter(&gate, &w[1], true));
    assert_false(gate_enter(&gate, &w[2], false));
    assert_true(gate_cancel(&gate, &w[1]));
    assert_int_equal(passes, 1);
    gate_leave(&gate, false);
    gate_leave(&gate, false);
    gate_fini(&gate);
}

struct gate_load {
    struct gate *gate;
    atomic_int *shared, *alone;
    unsigned seed;
};

struct gate_wait {
    struct gate_waiter waiter;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool passed;
};

static void
gate_wait_passed(struct gate_waiter *waiter)
{
    struct gate_wait *wait = (struct gate_wait *)waiter;
    pthread_mutex_lock(&wait->mutex);
    wait->passed = true;
    pthread_cond_signal(&wait->cond);
    pthread_mutex_unlock(&wait->mutex);
}

static void *
gate_load_run(void *arg)
{
    struct gate_load *load = arg;
    for (unsigned i = 0; i < 3000; i++) {
        struct gate_wait wait = {.waiter.passed = gate_wait_passed};
        bool exclusive = rand_r(&load->seed) % 8 == 0;
        pthread_mutex_init(&wait.mutex, NULL);
        pthread_cond_init(&wait.cond, NULL);
        if (!gate_enter(load->gate, &wait.waiter, exclusive)) {
            pthread_mutex_lock(&wait.mutex);
            while (!wait.passed)
                pthread_cond_wait(&wait.cond, &wait.mutex);
            pthread_mutex_unlock(&wait.mutex);
        }
        atomic_int *mine = exclusive ? load->alone : load->shared;
        atomic_fetch_add(mine, 1);
        if (exclusive
            && (atomic_load(load->shared) != 0
                || atomic_load(load->alone) != 1))
            abort();
        if (!exclusive && atomic_load(load->alone) != 0)
            abort();
        atomic_fetch_sub(mine, 1);
        gate_leave(load->gate, exclusive);
        pthread_mutex_destroy(&wait.mutex);
        pthread_cond_destroy(&wait.cond);
    }
    return NULL;
}

static void
the_gate_holds_under_many_threads(void **state)
{
    (void)state;
    struct gate gate;
    atomic_int shared = 0, alone = 0;
    pthread_t thread[4];
    struct gate_load load[4];
    gate_init(&gate);
    for (unsigned i = 0; i < 4; i++) {
        load[i] = (struct gate_load){&gate, &shared, &alone, i + 1};
        assert_int_equal(
            pthread_create(&thread[i], NULL, gate_load_run, &load[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(gate.state, 0);
    gate_fini(&gate);
}

struct alarm {
    struct timer timer;
    pthread_mutex_t *mutex;
    pthread_cond_t *cond;
    unsigned *fired;
    unsigned place;
};

static void
alarm_fire(struct timer *timer)
{
    struct alarm *alarm = (struct alarm *)timer;
    pthread_mutex_lock(alarm->mutex);
    alarm->place = ++*alarm->fired;
    pthread_cond_signal(alarm->cond);
    pthread_mutex_unlock(alarm->mutex);
}

static void
timers_fire_in_the_order_of_their_times_and_not_when_disarmed(void **state)
{
    (void)state;
    enum { N = 40 };
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
    unsigned fired = 0;
    struct alarm alarm[N];
    memset(alarm, 0, sizeof alarm);
    int64_t now = timer_now();
    for (unsigned i = 0; i < N; i++) {
        alarm[i].mutex = &mutex;
        alarm[i].cond = &cond;
        alarm[i].fired = &fired;
        /* 7 is coprime to N: every place once, in no order. */
        assert_true(timer_arm(&alarm[i].timer, now + 100 + (i * 7) % N * 3,
                              alarm_fire));
    }
    for (unsigned i = 0; i < N; i += 2)
        timer_disarm(&alarm[i].timer);
    pthread_mutex_lock(&mutex);
    while (fired < N / 2)
        pthread_cond_wait(&cond, &mutex);
    pthread_mutex_unlock(&mutex);
    for (unsigned i = 0; i < N; i++) {
        timer_disarm(&alarm[i].timer);
        assert_int_equal(alarm[i].place == 0, i % 2 == 0);
        for (unsigned j = 0; j < N; j++)
            if (i % 2 == 1 && j % 2 == 1 && (i * 7) % N < (j * 7) % N)
                assert_true(alarm[i].place < alarm[j].place);
    }
}

static void
timers_that_are_hastened_fire_at_once(void **state)
{
    (void)state;
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
    unsigned fired = 0;
    struct alarm alarm[20];
    memset(alarm, 0, sizeof alarm);
    for (unsigned i = 0; i < 20; i++) {
        alarm[i].mutex = &mutex;
        alarm[i].cond = &cond;
        alarm[i].fired = &fired;
        timer_hasten(&alarm[i].timer); /* not armed: nothing */
        assert_true(timer_arm(&alarm[i].timer, timer_now() + 1000000 - i * 100,
                              alarm_fire));
    }
    for (unsigned i = 0; i < 20; i += 3)
        timer_hasten(&alarm[i].timer);
    pthread_mutex_lock(&mutex);
    while (fired < 7)
        pthread_cond_wait(&cond, &mutex);
    pthread_mutex_unlock(&mutex);
    for (unsigned i = 0; i < 20; i++) {
        timer_disarm(&alarm[i].timer);
        timer_hasten(&alarm[i].timer);
        assert_int_equal(alarm[i].place != 0, i % 3 == 0);
    }
}

static void
blocks_are_counted_against_the_limit(void **state)
{
    (void)state;
    uint64_t before = block_in_use();
    struct block *one = block_alloc(4096);
    assert_non_null(one);
    uint64_t cost = block_in_use() - before;
    assert_true(cost >= 4096);
    block_set_limit(before + 2 * cost - 1);
    assert_null(block_alloc(4096));
    assert_int_equal(block_in_use(), before + cost);
    block_put(block_get(one));
    block_put(one);
    assert_int_equal(block_in_use(), before);
    block_set_limit(0);
    assert_null(block_alloc(1));
    block_set_limit(UINT64_MAX);
    block_put(NULL);
}

static void
aligned_blocks_are_aligned_and_come_back_as_such(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1,       512,          4096,  4097,
                                     12288,   65536,        65537, 1 << 20,
                                     8 << 20, (8 << 20) + 1};
    enum { SIZES = sizeof sizes / sizeof sizes[0], ROUNDS = 3 };
    uint64_t before = block_in_use();
    for (int round = 0; round < ROUNDS; round++) {
        struct block *aligned[SIZES], *plain[SIZES];
        for (int i = 0; i < SIZES; i++) {
            uint64_t used = block_in_use();
            aligned[i] = block_alloc_aligned(sizes[i]);
            assert_non_null(aligned[i]);
            assert_int_equal((uintptr_t)aligned[i]->data % BLOCK_ALIGN, 0);
            assert_int_equal(aligned[i]->size, sizes[i]);
            assert_true(block_in_use() - used >= sizes[i]);
            plain[i] = block_alloc(sizes[i]);
            assert_non_null(plain[i]);
            memset(aligned[i]->data, 'a', sizes[i]);
            memset(plain[i]->data, 'p', sizes[i]);
        }
        for (int i = 0; i < SIZES; i++) {
            assert_int_equal(aligned[i]->data[0], 'a');
            assert_int_equal(aligned[i]->data[sizes[i] - 1], 'a');
            block_put(block_get(aligned[i]));
            block_put(aligned[i]);
            assert_int_equal(plain[i]->data[0], 'p');
            assert_int_equal(plain[i]->data[sizes[i] - 1], 'p');
            block_put(plain[i]);
        }
        assert_int_equal(block_in_use(), before);
    }
    block_set_limit(before + 4096);
    assert_null(block_alloc_aligned(4096));
    block_set_limit(UINT64_MAX);
    assert_int_equal(block_in_use(), before);
}

/* What bursts have run, as letters. */
static char burst_log[128];

static void
burst_note(void *arg)
{
    size_t length = strlen(burst_log);
    assert_true(length + 1 < sizeof burst_log);
    burst_log[length] = *(const char *)arg;
    burst_log[length + 1] = '\0';
}

/* Puts something off while what was put off is done. */
static void
burst_again(void *arg)
{
    burst_note(arg);
    assert_true(burst_now());
    assert_true(burst_later(burst_note, "z"));
}

static void
a_burst_does_once_at_its_end_what_was_put_off(void **state)
{
    static char many[100];
    char a = 'a', b = 'b';
    (void)state;
    burst_log[0] = '\0';
    assert_false(burst_now());
    burst_begin();
    assert_true(burst_now());
    burst_begin();
    assert_true(burst_later(burst_note, &a));
    assert_true(burst_later(burst_again, &b));
    assert_false(burst_later(burst_note, &a));
    burst_end();
    assert_string_equal(burst_log, ""); /* the outer one goes on */
    assert_false(burst_later(burst_again, &b));
    burst_end();
    assert_string_equal(burst_log, "abz");
    assert_false(burst_now());

    burst_log[0] = '\0';
    burst_begin();
    assert_true(burst_later(burst_note, &a)); /* a new one */
    for (size_t i = 0; i < sizeof many; i++) {
        many[i] = 'm';
        assert_true(burst_later(burst_note, &many[i]));
    }
    burst_end();
    assert_int_equal(strlen(burst_log), 1 + sizeof many);
    assert_int_equal(strspn(burst_log + 1, "m"), sizeof many);
}

static void
a_loan_merges_neighbours_and_returns_everything(void **state)
{
    (void)state;
    uint64_t before = block_in_use();
    struct loan_part part[2];
    struct loan loan = {.part = part, .capacity = 2};
    struct block *block = block_alloc(1024), *other = block_alloc(512);
    assert_true(loan_add(&loan, block->data, 512, block_get(block)));
    assert_true(loan_add(&loan, block->data + 512, 512, block_get(block)));
    assert_int_equal(loan.count, 1);
    assert_true(loan_add(&loan, block_zeroes, 512, NULL));
    assert_false(loan_add(&loan, other->data, 512, other));
    assert_int_equal(loan.length, 1536);
    loan_return(&loan);
    block_put(block);
    block_put(other);
    assert_int_equal(block_in_use(), before);
}

static void
sums_and_products_do_not_wrap(void **state)
{
    (void)state;
    uint64_t n;
    assert_true(range_within(0, 0, 0));
    assert_false(range_within(1, 0, 0));
    assert_true(range_within(5, 5, 10));
    assert_false(range_within(5, 6, 10));
    assert_false(range_within(UINT64_MAX, 2, UINT64_MAX));
    assert_false(range_within(2, UINT64_MAX, UINT64_MAX));
    assert_false(checked_add(UINT64_MAX, 1, &n));
    assert_false(checked_mul(UINT64_C(1) << 33, UINT64_C(1) << 31, &n));
    assert_true(uri_parse_size("1k", &n) && n == 1024);
    assert_true(uri_parse_size("3T", &n) && n == UINT64_C(3) << 40);
    assert_false(uri_parse_size("1kk", &n));
    assert_false(uri_parse_size("k", &n));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_from_outside_are_bounded_and_harmless),
        cmocka_unit_test(status_names_cover_all_numbers),
        cmocka_unit_test(a_window_walks_over_empty_buffers),
        cmocka_unit_test(range_locks_grant_exactly_what_the_rule_says),
        cmocka_unit_test(the_gate_lets_one_in_alone_and_keeps_the_order),
        cmocka_unit_test(cancelling_the_resize_opens_the_gate),
        cmocka_unit_test(the_gate_holds_under_many_threads),
        cmocka_unit_test(
            timers_fire_in_the_order_of_their_times_and_not_when_disarmed),
        cmocka_unit_test(timers_that_are_hastened_fire_at_once),
        cmocka_unit_test(blocks_are_counted_against_the_limit),
        cmocka_unit_test(aligned_blocks_are_aligned_and_come_back_as_such),
        cmocka_unit_test(a_burst_does_once_at_its_end_what_was_put_off),
        cmocka_unit_test(a_loan_merges_neighbours_and_returns_everything),
        cmocka_unit_test(sums_and_products_do_not_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
