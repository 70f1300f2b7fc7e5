/* SPDX-License-Identifier: ISC */
/*
 * The content of a disk that loses what was not synced.
 *
 * Readers see each change at once.  It stands in a journal until a sync makes
 * it durable; a cut of the power keeps, drops or half-applies each change of the
 * journal by itself, in units that are never torn.  A change that was asked to
 * be durable by itself (O_DSYNC) stays in the journal, but is always kept: so
 * it lies over older changes and under newer ones.
 *
 * A sync covers what had come before it began, and takes its time: what comes
 * meanwhile is not covered.  fdatasync need not keep a file's being cut shorter,
 * and here does not.
 *
 * After a failed sync the data that it should have kept is forgotten, as
 * kernels do: a later sync says fine and it is gone.  Readers may go on seeing
 * it for a while.
 *
 * All calls are thread-safe and give 0 (or a count) or a negative errno.  While
 * the power is off, and for users from before the last cut, everything is EIO.
 */
#ifndef FARBLK_TESTS_LOSSY_STORE_H
#define FARBLK_TESTS_LOSSY_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define LOSSY_UNIT 4096u

/* Calls that can be told to fail. */
enum lossy_call { LOSSY_WRITE, LOSSY_ZERO, LOSSY_SYNC, LOSSY_CALLS };

/* How a sync, or a write that is to be durable, is kept. */
enum lossy_word {
    LOSSY_TRUE,
    LOSSY_LIES, /* says fine and does nothing */
};

/* `size` octets of zeros, of at most `most` for ever. */
void lossy_init(uint64_t size, uint64_t most, uint64_t seed);

/* What an opener gives with each call, so that it ends with the power. */
unsigned lossy_epoch(void);
uint64_t lossy_size(void);

ssize_t lossy_read(unsigned epoch, void *to, size_t length, uint64_t offset);
/* May be told to do less than all; how much, or an errno. */
ssize_t lossy_write(unsigned epoch, const void *from, size_t length,
                    uint64_t offset, bool durable);
int lossy_zero(unsigned epoch, uint64_t offset, uint64_t length);
int lossy_truncate(unsigned epoch, uint64_t size);
/* Blocks for the delay. */
int lossy_sync(unsigned epoch, bool data_only);

/* The power goes; users from before never come back. */
void lossy_cut(void);
void lossy_on(void);
/* After `after` good calls, `times` calls fail. */
void lossy_fail(enum lossy_call call, int errnum, unsigned after,
                unsigned times);
void lossy_keep_word(enum lossy_word syncs, enum lossy_word durable_writes);
/* What a cut does not tear: 4096 octets, or to see it noticed, less. */
void lossy_set_unit(uint32_t unit);
/* Syncs and some writes take up to that long. */
void lossy_set_delay(unsigned microseconds);
/* What has happened so far, one "name value" a line. */
void lossy_tell(FILE *to);

#endif
