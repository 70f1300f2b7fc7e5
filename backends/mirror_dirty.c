/* SPDX-License-Identifier: ISC */
/* The set of what is still to be copied; see mirror_dirty.h. */
#include "backends/mirror_dirty.h"

#include "core/checked.h"

#include <string.h>

/* Make range[from ... to] one range. */
static void
dirty_join(struct mirror_dirty *dirty, size_t from, size_t to)
{
    dirty->range[from].end = dirty->range[to].end;
    memmove(&dirty->range[from + 1], &dirty->range[to + 1],
            (dirty->count - to - 1) * sizeof dirty->range[0]);
    dirty->count -= to - from;
}

static void
dirty_join_nearest(struct mirror_dirty *dirty)
{
    size_t best = 0;
    for (size_t i = 1; i + 1 < dirty->count; i++)
        if (dirty->range[i + 1].start - dirty->range[i].end
            < dirty->range[best + 1].start - dirty->range[best].end)
            best = i;
    dirty_join(dirty, best, best + 1);
}

void
mirror_dirty_add(struct mirror_dirty *dirty, uint64_t start, uint64_t end)
{
    size_t from = 0, to;
    if (start >= end)
        return;
    while (from < dirty->count && dirty->range[from].end < start)
        from++;
    to = from;
    while (to < dirty->count && dirty->range[to].start <= end)
        to++;
    if (from == to) { /* touches none */
        memmove(&dirty->range[from + 1], &dirty->range[from],
                (dirty->count - from) * sizeof dirty->range[0]);
        dirty->range[from] = (struct mirror_range){start, end};
        dirty->count++;
        if (dirty->count > MIRROR_DIRTY_MAX)
            dirty_join_nearest(dirty);
        return;
    }
    dirty_join(dirty, from, to - 1);
    dirty->range[from].start = min_u64(dirty->range[from].start, start);
    dirty->range[from].end = max_u64(dirty->range[from].end, end);
}

void
mirror_dirty_take(struct mirror_dirty *dirty, uint64_t length)
{
    dirty->range[0].start += length;
    if (dirty->range[0].start < dirty->range[0].end)
        return;
    dirty->count--;
    memmove(&dirty->range[0], &dirty->range[1],
            dirty->count * sizeof dirty->range[0]);
}

void
mirror_dirty_cut(struct mirror_dirty *dirty, uint64_t size)
{
    while (dirty->count > 0 && dirty->range[dirty->count - 1].start >= size)
        dirty->count--;
    if (dirty->count > 0) {
        struct mirror_range *last = &dirty->range[dirty->count - 1];
        last->end = min_u64(last->end, size);
    }
}

uint64_t
mirror_dirty_octets(const struct mirror_dirty *dirty)
{
    uint64_t octets = 0;
    for (size_t i = 0; i < dirty->count; i++)
        octets += dirty->range[i].end - dirty->range[i].start;
    return octets;
}
