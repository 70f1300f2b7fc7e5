/* SPDX-License-Identifier: ISC */
/*
 * A small stand-in for the library, held in the hand: two devices in memory,
 * "a" and "b", and queues that complete what is in flight in any order, some
 * at a time, with failures where a test wants them.  It checks what callers
 * owe the library: the queue's depth, ranges, buffers not used twice at once.
 */
#ifndef FARBLK_TESTS_FAKE_API_H
#define FARBLK_TESTS_FAKE_API_H

#include "farblk/farblk.h"

#define FAKE_SIZE_MAX (1u << 20)

struct farblk {
    bool opened;
    struct farblk_info info;
    unsigned char data[FAKE_SIZE_MAX];
    unsigned char mapped[FAKE_SIZE_MAX / FARBLK_SECTOR_MIN]; /* by sector */
    unsigned reads, writes, zeroings, flushes, extents; /* completed */
};

struct fake {
    struct farblk device[2];
    uint64_t random;
    size_t extents_max; /* in one answer */
    unsigned submitted; /* requests so far */
    unsigned fail_at; /* the number of the one that fails; 0: none */
    uint32_t fail_op; /* or the first of this op; 0: none */
    int fail_status;
    bool failed; /* a failure was collected */
    unsigned after; /* submitted after that */
    unsigned both; /* collects that found reads and writes in flight */
    unsigned queues, buffers; /* alive */
};

extern struct fake fake;

/* A number of the fake's own sequence. */
uint32_t fake_draw(void);

#endif
