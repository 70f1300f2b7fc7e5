/* SPDX-License-Identifier: ISC */
/* Extents to runs.  Invariant of scan_advance(): whatever lies between the
 * current run's end and the next extent's start is unmapped. */
#include "tools/scan.h"

#include <string.h>

void
scan_begin(struct scan *scan, uint32_t sector_size, uint32_t unit,
           uint64_t limit)
{
    memset(scan, 0, sizeof *scan);
    scan->sector_size = sector_size;
    scan->unit = unit;
    scan->limit = limit;
    scan->sectors = limit / sector_size + (limit % sector_size != 0);
}

void
scan_fix(struct scan *scan, bool mapped)
{
    scan->fixed = true;
    scan->asked = false;
    scan->mapped = mapped;
    scan->end = scan->limit;
}

bool
scan_wants(struct scan *scan, uint64_t *sector, uint64_t *count,
           struct farblk_extent **batch)
{
    if (scan->fixed || scan->asked || scan->ready
        || scan->next == scan->sectors)
        return false;
    *sector = scan->next;
    *count = scan->sectors - scan->next;
    *batch = scan->batch[!scan->current];
    scan->asked = true;
    return true;
}

bool
scan_answer(struct scan *scan, uint64_t count)
{
    const struct farblk_extent *batch = scan->batch[!scan->current];

    scan->asked = false;
    if (count == 0 || count > SCAN_BATCH)
        return false;
    for (uint64_t i = 0; i < count; i++) {
        if (batch[i].start != scan->next || batch[i].count == 0
            || batch[i].count > scan->sectors - scan->next)
            return false;
        scan->next += batch[i].count;
    }
    scan->count[!scan->current] = (size_t)count;
    scan->ready = true;
    return true;
}

/* The next extent, or NULL when it is still to come. */
static const struct farblk_extent *
scan_extent(struct scan *scan)
{
    if (scan->index == scan->count[scan->current]) {
        if (!scan->ready)
            return NULL;
        scan->current = !scan->current;
        scan->index = 0;
        scan->ready = false;
    }
    return &scan->batch[scan->current][scan->index++];
}

/* Go to the run after the current one. */
static bool
scan_advance(struct scan *scan)
{
    const struct farblk_extent *extent;

    while ((extent = scan_extent(scan)) != NULL) {
        uint64_t end = (extent->start + extent->count) * scan->sector_size;

        if (end > scan->limit)
            end = scan->limit;
        if (end <= scan->end)
            continue; /* inside the unit that the last run ended with */
        if (extent->mapped != 0)
            end += (scan->unit - end % scan->unit) % scan->unit;
        else if (end < scan->limit)
            end -= end % scan->unit;
        if (end <= scan->end)
            continue; /* its unit's kind depends on what follows */
        scan->end = end < scan->limit ? end : scan->limit;
        scan->mapped = extent->mapped != 0;
        return true;
    }
    return false;
}

bool
scan_look(struct scan *scan, uint64_t at, bool *mapped, uint64_t *end)
{
    while (scan->end <= at)
        if (!scan_advance(scan))
            return false;
    *mapped = scan->mapped;
    *end = scan->end;
    return true;
}
