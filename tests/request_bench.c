/* SPDX-License-Identifier: ISC */
/*
 * A device held in the hand, with a queue; see request_bench.h.
 */
#include "tests/request_bench.h"

struct farblk *
bench_open(const char *uri)
{
    struct farblk *dev = NULL;
    struct error error;
    assert_int_equal(device_open(&held_driver, uri, NULL, &dev, &error), 0);
    return dev;
}

int
bench_setup(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    assert_non_null(bench);
    held_count = held_cancels = held_submits = 0;
    held_at_once = false;
    bench->dev = bench_open("fake:");
    ok(farblk_queue_create(64, &bench->queue));
    *state = bench;
    return 0;
}

int
bench_teardown(void **state)
{
    struct bench *bench = *state;
    held_at_once = true; /* a failed test may have left something */
    while (held_count > 0)
        io_done(held_take(0), 0);
    farblk_queue_destroy(bench->queue);
    ok(farblk_close(bench->dev));
    free(bench);
    return 0;
}

void
bench_send_to(struct bench *bench, struct farblk *dev, enum farblk_op op,
              uint64_t sector, uint64_t sectors, uint32_t flags,
              int32_t timeout_ms, uintptr_t user)
{
    struct iovec *iov = &bench->iov[user];
    struct farblk_request request = {
        .size = sizeof request,
        .op = op,
        .flags = flags,
        .dev = dev,
        .sector = sector,
        .count = sectors,
        .timeout_ms = timeout_ms,
        .user = (void *)user,
    };
    if (op == FARBLK_OP_READ || op == FARBLK_OP_WRITE) {
        *iov = (struct iovec){bench->data, sectors * SECTOR};
        request.iov = iov;
        request.iovcnt = 1;
    }
    ok(farblk_submit(bench->queue, &request));
}

void
bench_send(struct bench *bench, enum farblk_op op, uint64_t sector,
           uint64_t sectors, uintptr_t user)
{
    bench_send_to(bench, bench->dev, op, sector, sectors, 0, 0, user);
}

struct farblk_completion
bench_collect(struct bench *bench)
{
    struct farblk_completion completion;
    assert_int_equal(farblk_collect(bench->queue, &completion,
                                    sizeof completion, 1, SUPPORT_PATIENCE_MS),
                     1);
    return completion;
}

void
bench_nothing_ends(struct bench *bench)
{
    struct farblk_completion completion;
    assert_int_equal(
        farblk_collect(bench->queue, &completion, sizeof completion, 1, 0), 0);
}

void
bench_end(unsigned index)
{
    pthread_mutex_lock(&held_mutex);
    assert_true(index < held_count);
    struct io *io = held_take(index);
    pthread_mutex_unlock(&held_mutex);
    io_done(io, 0);
}
