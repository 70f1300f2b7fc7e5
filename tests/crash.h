/* SPDX-License-Identifier: ISC */
/*
 * What the processes of the crash test share: a log of all that the writers
 * asked and were told, in memory that outlives each of them.
 *
 * Writers write tagged sectors (tagged.h).  The clock is a counter: of two ops of
 * which one ended before the other began, the numbers tell so.
 *
 * The device has three parts: sectors that all writers share; blocks of 4096
 * octets, of which each writer has some of its own, written as wholes; and a
 * tail that the first writer grows and cuts off.
 */
#ifndef FARBLK_TESTS_CRASH_H
#define FARBLK_TESTS_CRASH_H

#include "farblk/farblk.h"
#include "tests/tagged.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CRASH_LANES 6u /* writers of one round, those that take over included */
#define CRASH_OPS 6000u /* of one lane and round */
#define CRASH_LONGEST 64u /* sectors in one op */
#define CRASH_BLOCK 8u /* sectors that are whole after a crash */
#define CRASH_SHARED 1024u /* sectors; the blocks follow, then the tail */
#define CRASH_LANE_BLOCKS 20u
#define CRASH_FIXED                                                            \
    (CRASH_SHARED + CRASH_LANES * CRASH_LANE_BLOCKS * CRASH_BLOCK)
#define CRASH_TAIL 128u
#define CRASH_MOST (CRASH_FIXED + CRASH_TAIL)

struct crash_op {
    uint32_t op; /* WRITE, WRITE_ZEROES, DISCARD, FLUSH, RESIZE */
    uint32_t sector, count; /* RESIZE: the new size in count */
    bool durable; /* promised to be when it completes: FUA, sync=1 */
    uint64_t number; /* WRITE: the tag */
    uint64_t begun;
    int32_t status;
    uint32_t effect;
    _Atomic uint64_t ended; /* 0: it has not, and the two above tell nothing */
};

struct crash_lane {
    _Atomic uint32_t count;
    struct crash_op ops[CRASH_OPS];
};

struct crash_shared {
    _Atomic uint64_t clock;
    _Atomic bool stop; /* submit nothing more, and end */
    _Atomic uint32_t troubled;
    char trouble[512]; /* what a process noticed by itself */
    struct crash_lane lane[CRASH_LANES];
    /* What crash_reader() found. */
    uint64_t size; /* sectors */
    uint8_t content[CRASH_MOST * TAGGED_SECTOR];
};

/* How a writer works. */
struct crash_writer {
    unsigned lane;
    uint64_t seed;
    uint64_t numbers; /* its tags are above this, and nobody else's */
    char uri[512];
    bool sync; /* the URI or the export has sync=1 */
    unsigned resizes; /* one op in so many; 0: none */
    bool may_zero; /* zeroing and discards are among its ops */
    unsigned flushes, fuas; /* one op in so many */
    bool drop_fua; /* planted: asks without FUA, and believes it has it */
};

struct crash_shared *crash_shared_create(void);
/* Forget the log and the troubles, not the clock. */
void crash_shared_reset(struct crash_shared *shared);
uint64_t crash_tick(struct crash_shared *shared);

/* Fork a writer, or a reader that fetches the whole device.  The caller has
 * never used a remote device, so that its children may. */
pid_t crash_writer_start(struct crash_shared *shared,
                         const struct crash_writer *writer);
pid_t crash_reader_start(struct crash_shared *shared, const char *uri);

#endif
