/* SPDX-License-Identifier: ISC */
/*
 * The order of what overlaps in a mirror: core's range locks, of the mirror's
 * own, because the copying has to take them as well.
 */
#include "backends/mirror.h"

static _Thread_local struct mirror_lock *granted_head, *granted_tail;
static _Thread_local bool granting;

bool
mirror_lock(struct mirror *mirror, struct mirror_lock *lock, uint64_t offset,
            uint64_t length, bool exclusive)
{
    return ranges_acquire(&mirror->ranges, &lock->range, offset, length,
                          exclusive);
}

struct range_lock *
mirror_unlock(struct mirror *mirror, struct mirror_lock *lock)
{
    return ranges_release(&mirror->ranges, &lock->range);
}

void
mirror_grant(struct range_lock *ready)
{
    while (ready != NULL) {
        struct mirror_lock *lock = (struct mirror_lock *)ready;
        ready = ready->ready_next;
        lock->next = NULL;
        if (granted_head == NULL)
            granted_head = lock;
        else
            granted_tail->next = lock;
        granted_tail = lock;
    }
    if (granting)
        return;
    granting = true;
    while (granted_head != NULL) {
        struct mirror_lock *first = granted_head;
        granted_head = first->next;
        first->granted(first);
    }
    granting = false;
}
