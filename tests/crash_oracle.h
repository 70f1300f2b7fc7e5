/* SPDX-License-Identifier: ISC */
/*
 * What may a sector hold after a crash?
 *
 * For each sector the oracle keeps the writes that may still be there: each with
 * its begin, its end (never, when nobody knows whether it was still going to
 * happen), whether it was acknowledged, and whether it was promised to be
 * durable: by FUA or sync=1, or by a flush of the same server that was submitted
 * after its end and went well.  Zeroing, discards, and being cut off are writes
 * of zeros; the device's size is one more register like that.
 *
 * A write may be found unless it had ended before another one began that binds:
 * a durable one after the power was cut; after anything else every acknowledged
 * one, for readers have been told so.  Failed writes with effect NONE may not be
 * found at all.
 */
#ifndef FARBLK_TESTS_CRASH_ORACLE_H
#define FARBLK_TESTS_CRASH_ORACLE_H

#include "tests/crash.h"

#include <stddef.h>

struct oracle;

struct oracle *oracle_create(uint64_t size_sectors);
void oracle_destroy(struct oracle *oracle);

#define ORACLE_NEVER UINT64_MAX

/* Take in what the writers logged since the last time.  All of them have ended.
 * `restart`: when the server was replaced by another one under them, or never.  A
 * flush that ended later speaks for its own writer's handle alone: others, whose
 * writes are gone, are told by theirs. */
void oracle_take(struct oracle *oracle, const struct crash_shared *shared,
                 uint64_t restart);

/* The server has ended and flushed all that it acknowledged, as it said. */
void oracle_flushed(struct oracle *oracle);

/* The server has ended: what was under way ended by `now`.  `forgotten`: a sync
 * has failed meanwhile, or the power was cut, and what was not durable may be
 * gone, whatever a later flush says. */
void oracle_server_ended(struct oracle *oracle, uint64_t now, bool forgotten);

/* Compare with what was read at `now`, while nobody wrote; `cut`: after the power
 * was, so that nothing of what came before can come any more.  False, with a
 * text, when it is not allowed.  Else what was found is what there is. */
bool oracle_judge(struct oracle *oracle, const struct crash_shared *shared,
                  uint64_t now, bool cut, char *text, size_t length);

/* Writes that were found missing, as is allowed; found though nobody was told
 * that they happened; and compared sectors, so far. */
struct oracle_tally {
    uint64_t sectors, lost, unacknowledged;
};
struct oracle_tally oracle_tally(const struct oracle *oracle);

#endif
