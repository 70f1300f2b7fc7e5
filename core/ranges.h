/* SPDX-License-Identifier: ISC */
/*
 * Range locks: asynchronous, fair, shared and exclusive, over octets of one
 * device.
 *
 * A request for a range counts the earlier ones, held or waiting, that it
 * conflicts with, and is granted when the last of them has gone: so nobody
 * overtakes and nobody starves.  Ranges are filed by region of the device, so
 * that the search sees only neighbours.  Nothing blocks but a short mutex.
 */
#ifndef FARBLK_CORE_RANGES_H
#define FARBLK_CORE_RANGES_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define RANGES_BUCKETS 64
#define RANGES_REGION_SHIFT 22 /* 4 MiB */

/* One lock, embedded in what it is for.  Touches at most two regions, or goes
 * to the list of wide ones. */
struct range_lock {
    uint64_t start, end;
    bool exclusive;
    bool granted;
    bool wide;
    uint32_t waits_for;
    uint8_t bucket_count;
    uint64_t order;
    struct range_node {
        struct range_lock *lock;
        struct range_node *prev, *next;
        uint32_t bucket;
    } node[2];
    struct range_lock *ready_next;
};

struct ranges {
    pthread_mutex_t mutex;
    uint64_t order;
    struct range_node *head[RANGES_BUCKETS + 1]; /* the last: wide ones */
    struct range_node *tail[RANGES_BUCKETS + 1];
};

void ranges_init(struct ranges *ranges);
void ranges_fini(struct ranges *ranges); /* nothing held */

/* Ask for [start, start + length), length > 0.  True: granted.  False: it will
 * come out of a later ranges_release() or ranges_cancel(). */
bool ranges_acquire(struct ranges *ranges, struct range_lock *lock,
                    uint64_t start, uint64_t length, bool exclusive);

/* Give back a granted lock.  Returns the locks that this grants, linked by
 * ready_next, oldest first; NULL when none. */
struct range_lock *ranges_release(struct ranges *ranges,
                                  struct range_lock *lock);

/* Take back one that waits.  False when it was granted meanwhile (its grant is
 * on its way, or done).  *ready as the result of ranges_release(). */
bool ranges_cancel(struct ranges *ranges, struct range_lock *lock,
                   struct range_lock **ready);

#endif
