/* SPDX-License-Identifier: ISC */
/*
 * Range locks.
 *
 * Each lock is filed in the one or two buckets of the regions that it touches,
 * or, touching more, among the wide ones.  When A comes, it counts each
 * earlier lock that conflicts with it once for each list where both stand
 * (once in all when either is wide); when an earlier B goes, the same pairs
 * are seen again, and counted down.  A is granted at zero.  Lists are in order
 * of arrival.
 */
#include "core/ranges.h"

#include "core/checked.h"

#include <stddef.h>

#define WIDE RANGES_BUCKETS

void
ranges_init(struct ranges *ranges)
{
    pthread_mutex_init(&ranges->mutex, NULL);
    ranges->order = 0;
    for (unsigned i = 0; i <= WIDE; i++)
        ranges->head[i] = ranges->tail[i] = NULL;
}

void
ranges_fini(struct ranges *ranges)
{
    pthread_mutex_destroy(&ranges->mutex);
}

static bool
ranges_conflict(const struct range_lock *a, const struct range_lock *b)
{
    return (a->exclusive || b->exclusive) && a->start < b->end
           && b->start < a->end;
}

/* Whether the pair counts at this node: a wide lock looks into every list and
 * would see a narrow one of two nodes twice. */
static bool
ranges_seen(const struct range_node *node, const struct range_lock *by)
{
    return !by->wide || node == &node->lock->node[0];
}

static uint32_t
ranges_count(const struct ranges *ranges, uint32_t bucket,
             const struct range_lock *lock)
{
    uint32_t count = 0;
    const struct range_node *node = ranges->head[bucket];
    for (; node != NULL; node = node->next)
        if (ranges_seen(node, lock))
            count += ranges_conflict(node->lock, lock);
    return count;
}

static void
ranges_append(struct ranges *ranges, uint32_t bucket, struct range_node *node)
{
    node->bucket = bucket;
    node->next = NULL;
    node->prev = ranges->tail[bucket];
    if (node->prev != NULL)
        node->prev->next = node;
    else
        ranges->head[bucket] = node;
    ranges->tail[bucket] = node;
}

static void
ranges_remove(struct ranges *ranges, struct range_node *node)
{
    if (node->prev != NULL)
        node->prev->next = node->next;
    else
        ranges->head[node->bucket] = node->next;
    if (node->next != NULL)
        node->next->prev = node->prev;
    else
        ranges->tail[node->bucket] = node->prev;
}

bool
ranges_acquire(struct ranges *ranges, struct range_lock *lock, uint64_t start,
               uint64_t length, bool exclusive)
{
    uint64_t first = start >> RANGES_REGION_SHIFT;
    uint64_t last = (start + length - 1) >> RANGES_REGION_SHIFT;
    lock->start = start;
    lock->end = start + length;
    lock->exclusive = exclusive;
    lock->wide = last - first > 1;
    lock->bucket_count = last == first || lock->wide ? 1 : 2;
    lock->waits_for = 0;
    lock->ready_next = NULL;
    for (unsigned i = 0; i < lock->bucket_count; i++) {
        lock->node[i].lock = lock;
        lock->node[i].bucket =
            lock->wide ? WIDE : (uint32_t)((first + i) % RANGES_BUCKETS);
    }

    pthread_mutex_lock(&ranges->mutex);
    lock->order = ranges->order++;
    if (lock->wide) {
        for (uint32_t bucket = 0; bucket <= WIDE; bucket++)
            lock->waits_for += ranges_count(ranges, bucket, lock);
    } else {
        lock->waits_for = ranges_count(ranges, WIDE, lock);
        for (unsigned i = 0; i < lock->bucket_count; i++)
            lock->waits_for += ranges_count(ranges, lock->node[i].bucket, lock);
    }
    for (unsigned i = 0; i < lock->bucket_count; i++)
        ranges_append(ranges, lock->node[i].bucket, &lock->node[i]);
    lock->granted = lock->waits_for == 0;
    bool granted = lock->granted;
    pthread_mutex_unlock(&ranges->mutex);
    return granted;
}

/* Count down the later locks of one list that conflict with `gone`, and put
 * those that reach zero into *ready, which is in order of arrival. */
static void
ranges_settle(struct range_node *node, const struct range_lock *gone,
              struct range_lock **ready)
{
    for (; node != NULL; node = node->next) {
        struct range_lock *lock = node->lock;
        if (lock->order < gone->order || !ranges_seen(node, gone)
            || !ranges_conflict(lock, gone))
            continue;
        if (--lock->waits_for != 0)
            continue;
        lock->granted = true;
        struct range_lock **at = ready;
        while (*at != NULL && (*at)->order < lock->order)
            at = &(*at)->ready_next;
        lock->ready_next = *at;
        *at = lock;
    }
}

/* Under the mutex: the lock leaves. */
static struct range_lock *
ranges_leave(struct ranges *ranges, struct range_lock *lock)
{
    struct range_lock *ready = NULL;
    for (unsigned i = 0; i < lock->bucket_count; i++)
        ranges_remove(ranges, &lock->node[i]);
    if (lock->wide) {
        for (uint32_t bucket = 0; bucket <= WIDE; bucket++)
            ranges_settle(ranges->head[bucket], lock, &ready);
    } else {
        ranges_settle(ranges->head[WIDE], lock, &ready);
        for (unsigned i = 0; i < lock->bucket_count; i++)
            ranges_settle(ranges->head[lock->node[i].bucket], lock, &ready);
    }
    return ready;
}

struct range_lock *
ranges_release(struct ranges *ranges, struct range_lock *lock)
{
    pthread_mutex_lock(&ranges->mutex);
    struct range_lock *ready = ranges_leave(ranges, lock);
    pthread_mutex_unlock(&ranges->mutex);
    return ready;
}

bool
ranges_cancel(struct ranges *ranges, struct range_lock *lock,
              struct range_lock **ready)
{
    pthread_mutex_lock(&ranges->mutex);
    bool waits = !lock->granted;
    *ready = waits ? ranges_leave(ranges, lock) : NULL;
    pthread_mutex_unlock(&ranges->mutex);
    return waits;
}
