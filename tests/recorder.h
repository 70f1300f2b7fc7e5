/* SPDX-License-Identifier: ISC */
/*
 * A device in memory that remembers, in order, every write that reached it and
 * every flush: what a disk whose power is cut may have kept can be worked out
 * from that.  It can be told to fail.
 */
#ifndef FARBLK_TESTS_RECORDER_H
#define FARBLK_TESTS_RECORDER_H

#include "farblk/farblk.h"

#include <stdbool.h>

struct record {
    bool flush;
    bool stable; /* a write with FUA */
    uint64_t offset;
    size_t length;
    uint8_t *data;
};

struct recorder {
    /* Set before recorder_open(). */
    uint32_t sector_size;
    uint64_t size;
    bool fua; /* it has FUA of its own; else core flushes after such writes */
    bool zeroes; /* it can write zeroes by itself */
    bool read_only;

    uint8_t *image; /* what a reader sees */
    struct record *records;
    size_t count, room;
    uint64_t octets_read;

    /* The change that is `fail_in` changes and flushes away fails (1: the next
     * one; 0: none), having happened or not. */
    unsigned fail_in;
    bool fail_done;
};

extern struct recorder recorder;

/* A handle of the device, with an image of zeros unless one is there. */
struct farblk *recorder_open(void);
/* Forget the records, the image stays. */
void recorder_forget(void);
/* Forget all. */
void recorder_reset(void);

/* What is left when the power is cut while record `at` is under way (count:
 * after the last): `image` has that of before the first record, and gets each
 * unit of up to 4096 octets that was not stable yet new or old, as `choose`
 * says: a number for each call, even: old. */
void recorder_cut(uint8_t *image, size_t at, uint32_t (*choose)(void *arg),
                  void *arg);

#endif
