/* SPDX-License-Identifier: ISC */
/*
 * Walking a device's extents in bulk, ahead of the work.
 *
 * A scan holds two batches of extents: while one is used up, the next is asked
 * for, so that nobody waits for an answer in the middle.  It does no I/O of its
 * own: the engine asks what scan_wants() tells and hands in the answer.
 *
 * Runs are told in octets and in whole units, where a unit may be several of
 * the device's sectors: a unit is mapped when any of its sectors is.
 */
#ifndef FARBLK_TOOLS_SCAN_H
#define FARBLK_TOOLS_SCAN_H

#include "farblk/farblk.h"

#define SCAN_BATCH 512

struct scan {
    uint32_t sector_size, unit;
    uint64_t limit; /* octets to walk over */
    uint64_t next, sectors; /* the next sector to ask about, and how many */
    bool fixed; /* not asked: all is `mapped` */
    bool asked; /* a batch is on its way */
    bool ready; /* the batch after the current one is there */
    unsigned current; /* index of the batch in use */
    size_t index; /* of its next extent */
    size_t count[2];
    struct farblk_extent batch[2][SCAN_BATCH];
    uint64_t end; /* of the current run */
    bool mapped; /* the current run is */
};

/* Walk over the first `limit` octets; `unit` is a multiple of sector_size. */
void scan_begin(struct scan *scan, uint32_t sector_size, uint32_t unit,
                uint64_t limit);

/* Ask no more: what follows is all mapped, or not. */
void scan_fix(struct scan *scan, bool mapped);

/* Whether to ask for SCAN_BATCH extents of [*sector, *sector + *count) into
 * *batch now; taken as asked. */
bool scan_wants(struct scan *scan, uint64_t *sector, uint64_t *count,
                struct farblk_extent **batch);

/* The answer has `count` extents.  False when they make no sense. */
bool scan_answer(struct scan *scan, uint64_t count);

/* The run that holds octet `at`, which must be below the limit and never goes
 * back: its kind and its end.  False when the answer is still to come. */
bool scan_look(struct scan *scan, uint64_t at, bool *mapped, uint64_t *end);

#endif
