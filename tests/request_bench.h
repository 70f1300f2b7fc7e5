/* SPDX-License-Identifier: ISC */
/*
 * A device of the driver that the test holds in its hand (held.h), with a
 * queue: for tests of the request path.
 */
#ifndef FARBLK_TESTS_REQUEST_BENCH_H
#define FARBLK_TESTS_REQUEST_BENCH_H

#include "tests/held.h"
#include "tests/support.h"

struct bench {
    struct farblk *dev;
    struct farblk_queue *queue;
    uint8_t data[64 * MAX_TRANSFER];
    struct iovec iov[64];
};

/* A test that gets a bench as its state. */
#define WITH_BENCH(test)                                                       \
    cmocka_unit_test_setup_teardown(test, bench_setup, bench_teardown)

int bench_setup(void **state);
int bench_teardown(void **state);

struct farblk *bench_open(const char *uri);
/* Submit with a buffer of `sectors`, or with `sectors` as the count. */
void bench_send_to(struct bench *bench, struct farblk *dev, enum farblk_op op,
                   uint64_t sector, uint64_t sectors, uint32_t flags,
                   int32_t timeout_ms, uintptr_t user);
void bench_send(struct bench *bench, enum farblk_op op, uint64_t sector,
                uint64_t sectors, uintptr_t user);
/* The next completion, which must be there soon. */
struct farblk_completion bench_collect(struct bench *bench);
/* No completion is there. */
void bench_nothing_ends(struct bench *bench);
/* End what the driver holds at this place, well. */
void bench_end(unsigned index);

#endif
