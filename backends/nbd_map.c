/* SPDX-License-Identifier: ISC */
/*
 * Extents out of a server's block status.
 *
 * A server tells of octets, in runs that need not end where our sectors do.  A
 * sector is unmapped when all of it is; what is mixed counts as mapped.
 */
#include "backends/nbd.h"

#include "core/checked.h"

void
nbd_map_begin(struct nbd_map *map, uint32_t sector, uint64_t offset,
              uint64_t limit, struct farblk_extent *extents, size_t max)
{
    *map = (struct nbd_map){
        .sector = sector,
        .at = offset,
        .told = offset,
        .limit = limit,
        .extents = extents,
        .max = max,
    };
}

/* Sectors up to `end` are of this kind. */
static void
nbd_map_tell(struct nbd_map *map, uint64_t end, bool unmapped)
{
    struct farblk_extent *last = &map->extents[map->count];
    uint64_t count = (end - map->told) / map->sector;
    if (map->full || end <= map->told)
        return;
    if (map->count > 0 && last[-1].mapped == !unmapped) {
        last[-1].count += count;
    } else if (map->count < map->max) {
        *last = (struct farblk_extent){.start = map->told / map->sector,
                                       .count = count,
                                       .mapped = !unmapped};
        map->count++;
    } else {
        map->full = true; /* what comes now is behind a gap */
        return;
    }
    map->told = end;
}

/* The open run ends at `at`. */
static void
nbd_map_close(struct nbd_map *map)
{
    if (!map->open)
        return;
    map->open = false;
    uint64_t end = round_down(map->at, map->sector);
    if (!map->unmapped && end != map->at)
        end += map->sector;
    nbd_map_tell(map, end, map->unmapped);
}

void
nbd_map_add(struct nbd_map *map, uint64_t length, bool unmapped)
{
    if (map->full || map->at >= map->limit || length == 0)
        return;
    if (map->open && map->unmapped != unmapped)
        nbd_map_close(map);
    map->open = true;
    map->unmapped = unmapped;
    map->at += min_u64(length, map->limit - map->at);
}

void
nbd_map_end(struct nbd_map *map)
{
    bool some = map->open;
    nbd_map_close(map);
    /* Less than a sector: who asks on from here must get on. */
    if (some && map->count == 0)
        nbd_map_tell(map, map->told + map->sector, false);
}
