/* SPDX-License-Identifier: ISC */
/*
 * Is this history of one sector linearizable?
 *
 * A history is the writes and reads of many clients with the times of their
 * begin and their end.  It is linearizable when each can be given one moment
 * between both at which it happens, so that every read gives what was written
 * last.  That is what a sector promises.
 *
 * Each write has a value of its own, but zero, which any number may write
 * (zeroing, discards).  A write whose outcome is not known may happen at any
 * moment after its begin, or never.
 */
#ifndef FARBLK_TESTS_LINEAR_H
#define FARBLK_TESTS_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINEAR_NEVER UINT64_MAX

struct linear_op {
    bool write;
    bool unknown; /* WRITE: may have happened or not; by `ended`, which may be
                     LINEAR_NEVER */
    uint64_t value; /* 0: zeros */
    /* No two times of a history are the same; begun < ended. */
    uint64_t begun, ended;
};

struct linear_verdict {
    bool fine;
    char text[256]; /* why not */
};

/* `initial` is what the sector held at time 0, before all of them.  The ops may
 * come in any order, and are sorted.  Time: n log n. */
struct linear_verdict linear_check(struct linear_op *ops, size_t count,
                                   uint64_t initial);

#endif
