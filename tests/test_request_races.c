/* SPDX-License-Identifier: ISC */
/*
 * The request path when much happens at once: ends, failures, timeouts,
 * cancels and resizes at random from several threads, and long chains.
 */
#include "tests/request_bench.h"

#include <sched.h>

/* Ends what the driver holds, at random, well or badly, from its own thread. */
static atomic_bool stirring;

static void *
stir(void *arg)
{
    struct rng rng = {(uintptr_t)arg};
    while (atomic_load(&stirring)) {
        struct io *io = NULL;
        pthread_mutex_lock(&held_mutex);
        if (held_count > 0)
            io = held_take((unsigned)rng_below(&rng, held_count));
        pthread_mutex_unlock(&held_mutex);
        if (io == NULL)
            sched_yield();
        else if (io->op == FARBLK_OP_WRITE && rng_below(&rng, 50) == 0)
            io_failed(io, FARBLK_NO_SPACE, FARBLK_EFFECT_UNKNOWN, "stirred");
        else
            io_done(io, 0);
    }
    return NULL;
}

struct load {
    uint64_t seed;
    struct trouble *trouble;
};

static void *
load_run(void *arg)
{
    struct load *load = arg;
    struct rng rng = {load->seed};
    struct farblk *dev = NULL;
    struct farblk_queue *queue = NULL;
    struct error error;
    static uint8_t data[64 * MAX_TRANSFER];
    const struct iovec iov = {data, 60 * SECTOR};
    unsigned sent = 0, got = 0;
    if (device_open(&held_driver, "fake:", NULL, &dev, &error) != 0
        || farblk_queue_create(32, &queue) != 0)
        abort();
    while (got < 4000) {
        if (sent < 4000 && farblk_queue_pending(queue) < 32) {
            struct farblk_request request = {
                .size = sizeof request,
                .op = 1 + (uint32_t)rng_below(&rng, 6),
                .dev = dev,
                .sector = rng_below(&rng, 3000),
                .count = rng_below(&rng, 100),
                .timeout_ms = rng_below(&rng, 3) == 0
                                  ? 1 + (int32_t)rng_below(&rng, 4)
                                  : 0,
            };
            if (request.op == FARBLK_OP_RESIZE)
                request.count += 3200;
            if (request.op <= FARBLK_OP_WRITE) {
                request.iov = &iov;
                request.iovcnt = 1;
            }
            if (farblk_submit(queue, &request) != 0)
                trouble_note(load->trouble, "submit: %s", farblk_last_text());
            sent++;
            continue;
        }
        struct farblk_completion completion[8];
        int n = farblk_collect(queue, completion, sizeof completion[0], 8,
                               SUPPORT_PATIENCE_MS);
        if (n <= 0) {
            trouble_note(load->trouble, "nothing ends: %d of %u", n, got);
            break;
        }
        for (int i = 0; i < n; i++)
            if (completion[i].status != 0
                && completion[i].status != FARBLK_TIMED_OUT
                && completion[i].status != FARBLK_NO_SPACE)
                trouble_note(load->trouble, "%s", completion[i].text);
        got += (unsigned)n;
    }
    farblk_queue_destroy(queue);
    farblk_close(dev);
    return NULL;
}

static void
every_request_ends_once_whatever_meets(void **state)
{
    (void)state;
    enum { LOADS = 3 };
    pthread_t stirrer[2], thread[LOADS];
    struct load load[LOADS];
    struct trouble trouble = {0};
    atomic_store(&stirring, true);
    for (uintptr_t i = 0; i < 2; i++)
        assert_int_equal(
            pthread_create(&stirrer[i], NULL, stir, (void *)(i + 9)), 0);
    for (unsigned i = 0; i < LOADS; i++) {
        load[i] = (struct load){i + 1, &trouble};
        assert_int_equal(pthread_create(&thread[i], NULL, load_run, &load[i]),
                         0);
    }
    for (unsigned i = 0; i < LOADS; i++)
        pthread_join(thread[i], NULL);
    atomic_store(&stirring, false);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(stirrer[i], NULL);
    assert_int_equal(held_count, 0);
    trouble_assert_none(&trouble);
}

struct shapes {
    struct device *device;
    atomic_bool done;
};

/* With generation g it has g sectors. */
static void *
reshape(void *arg)
{
    struct shapes *shapes = arg;
    for (uint64_t generation = 2; generation < 1000000; generation++)
        device_reshape(shapes->device, generation * SECTOR, generation);
    atomic_store(&shapes->done, true);
    return NULL;
}

static void
generation_and_size_are_told_together_while_they_change(void **state)
{
    struct bench *bench = *state;
    struct shapes shapes = {.device = bench->dev->device};
    uint64_t generation, size, before = 0;
    pthread_t thread;
    device_told(shapes.device, &generation, &size);
    assert_int_equal(size, SECTORS * SECTOR);
    device_reshape(shapes.device, SECTOR, 1);
    assert_int_equal(pthread_create(&thread, NULL, reshape, &shapes), 0);
    bool wrong = false;
    while (!wrong && !atomic_load(&shapes.done)) {
        device_told(shapes.device, &generation, &size);
        wrong = size != generation * SECTOR || generation < before;
        before = generation;
    }
    pthread_join(thread, NULL);
    assert_false(wrong);
    device_told(shapes.device, &generation, &size);
    assert_int_equal(generation, 999999);
    assert_int_equal(size, 999999 * SECTOR);
}

static void
cancel_done(struct request *request)
{
    atomic_store((atomic_bool *)request->owner, true);
}

static void
a_request_with_a_timeout_can_be_cancelled_anywhere(void **state)
{
    struct bench *bench = *state;
    static const enum farblk_op ops[] = {FARBLK_OP_WRITE, FARBLK_OP_WRITE,
                                         FARBLK_OP_WATCH};
    bench_send(bench, FARBLK_OP_WRITE, 0, 1, 1);
    for (unsigned i = 0; i < 3; i++) {
        struct iovec iov = {bench->data, SECTOR};
        atomic_bool ended = false;
        struct request request = {
            .handle = bench->dev,
            .op = ops[i],
            .sector = ops[i] == FARBLK_OP_WRITE ? i : 0, /* 0: it waits */
            .count = 1,
            .iov = ops[i] == FARBLK_OP_WRITE ? &iov : NULL,
            .iovcnt = ops[i] == FARBLK_OP_WRITE,
            .timeout_ms = INT32_MAX,
            .done = cancel_done,
            .owner = &ended,
        };
        request_cancel(&request); /* too early: nothing */
        request_submit(&request);
        assert_int_equal(held_count, i == 1 ? 2 : 1);
        request_cancel(&request);
        while (!atomic_load(&ended))
            sched_yield();
        assert_int_equal(request.error.status, FARBLK_TIMED_OUT);
        assert_int_equal(held_count, 1);
        request_cancel(&request); /* too late: nothing */
    }
    bench_end(0);
    assert_int_equal(bench_collect(bench).status, 0);
}

static void
a_long_chain_of_locks_does_not_grow_the_stack(void **state)
{
    struct bench *bench = *state;
    struct farblk_queue *queue;
    struct iovec iov = {bench->data, SECTOR};
    struct farblk_completion completion[64];
    ok(farblk_queue_create(4000, &queue));
    for (unsigned i = 0; i < 4000; i++) {
        struct farblk_request request = {.size = sizeof request,
                                         .op = FARBLK_OP_WRITE,
                                         .dev = bench->dev,
                                         .iov = &iov,
                                         .iovcnt = 1};
        ok(farblk_submit(queue, &request));
    }
    assert_int_equal(held_count, 1);
    held_at_once = true;
    bench_end(0);
    for (unsigned got = 0; got < 4000;) {
        int n = farblk_collect(queue, completion, sizeof completion[0], 64, 0);
        assert_true(n > 0);
        got += (unsigned)n;
    }
    farblk_queue_destroy(queue);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BENCH(every_request_ends_once_whatever_meets),
        WITH_BENCH(generation_and_size_are_told_together_while_they_change),
        WITH_BENCH(a_request_with_a_timeout_can_be_cancelled_anywhere),
        WITH_BENCH(a_long_chain_of_locks_does_not_grow_the_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
