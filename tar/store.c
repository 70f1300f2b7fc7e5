/* SPDX-License-Identifier: ISC */
/*
 * See store.h.
 */
#include "tar/store.h"

#include "core/checked.h"

#include <stdlib.h>
#include <string.h>

/* What a call of farblk.h has just left, unless it went well. */
static int
taken(int status, struct error *error)
{
    if (status >= 0)
        return 0;
    enum farblk_effect effect = farblk_last_effect();
    error_set(error, status, "%s", farblk_last_text());
    error->effect = effect;
    return status;
}

int
store_init(struct store *store, struct farblk *dev, uint64_t *size,
           bool *read_write, uint64_t *identity, struct error *error)
{
    struct farblk_info info = {0};
    int status = farblk_get_info(dev, &info, sizeof info);
    if (status < 0)
        return taken(status, error);
    store->dev = dev;
    store->sector_size = info.sector_size;
    store->zeroes = (info.features & FARBLK_CAN_WRITE_ZEROES) != 0;
    *size = info.size_sectors * info.sector_size;
    *read_write = info.read_write;
    *identity = info.identity;
    return 0;
}

int
store_size(const struct store *store, uint64_t *size, struct error *error)
{
    struct farblk_info info = {0};
    int status = farblk_get_info(store->dev, &info, sizeof info);
    *size = info.size_sectors * store->sector_size;
    return taken(status, error);
}

int
store_read_sectors(const struct store *store, uint64_t offset, void *to,
                   size_t length, struct error *error)
{
    struct iovec iov = {to, length};
    return taken(farblk_read(store->dev, offset / store->sector_size, &iov, 1),
                 error);
}

int
store_write_sectors(const struct store *store, uint64_t offset,
                    const void *from, size_t length, uint32_t flags,
                    struct error *error)
{
    struct iovec iov = {(void *)(uintptr_t)from, length};
    return taken(
        farblk_write(store->dev, offset / store->sector_size, &iov, 1, flags),
        error);
}

int
store_zero_sectors(const struct store *store, uint64_t offset, uint64_t length,
                   struct error *error)
{
    return taken(farblk_write_zeroes(store->dev, offset / store->sector_size,
                                     length / store->sector_size, 0),
                 error);
}

int
store_flush(const struct store *store, struct error *error)
{
    return taken(farblk_flush(store->dev), error);
}

/* ------------------------------------------------------------ any octets */

/*
 * The sectors that hold [offset, offset + length), as up to three buffers: the
 * first sector where it is not wanted whole, the caller's own memory, the last
 * sector.  `edges` has two sectors.
 */
struct cut {
    uint64_t start, end; /* whole sectors */
    size_t before; /* octets of the first sector in front of what is wanted */
    size_t head, middle, tail; /* octets wanted of each buffer */
    struct iovec iov[3];
    size_t count;
    uint8_t *edges;
};

static void
cut_make(struct cut *cut, const struct store *store, uint64_t offset,
         void *memory, size_t length, uint8_t *edges)
{
    size_t ss = store->sector_size;
    uint8_t *at = memory;
    memset(cut, 0, sizeof *cut);
    cut->edges = edges;
    cut->start = round_down(offset, ss);
    cut->end = round_up(offset + length, ss);
    cut->before = (size_t)(offset - cut->start);
    if (cut->before > 0 || length < ss) {
        cut->head = length < ss - cut->before ? length : ss - cut->before;
        cut->iov[cut->count++] = (struct iovec){edges, ss};
    }
    cut->middle = (size_t)round_down(length - cut->head, ss);
    if (cut->middle > 0)
        cut->iov[cut->count++] = (struct iovec){at + cut->head, cut->middle};
    cut->tail = length - cut->head - cut->middle;
    if (cut->tail > 0)
        cut->iov[cut->count++] = (struct iovec){edges + ss, ss};
}

static uint8_t *
edges_alloc(const struct store *store, struct error *error)
{
    uint8_t *edges = malloc(2 * (size_t)store->sector_size);
    if (edges == NULL)
        error_set(error, FARBLK_NO_MEMORY, "no memory for two sectors of %u",
                  store->sector_size);
    return edges;
}

int
store_read(const struct store *store, uint64_t offset, void *to, size_t length,
           struct error *error)
{
    struct cut cut;
    if (length == 0)
        return 0;
    uint8_t *edges = edges_alloc(store, error);
    if (edges == NULL)
        return FARBLK_NO_MEMORY;
    cut_make(&cut, store, offset, to, length, edges);
    int status = taken(farblk_read(store->dev, cut.start / store->sector_size,
                                   cut.iov, cut.count),
                       error);
    if (status == 0) {
        memcpy(to, edges + cut.before, cut.head);
        memcpy((uint8_t *)to + cut.head + cut.middle,
               edges + store->sector_size, cut.tail);
    }
    free(edges);
    return status;
}

int
store_write(const struct store *store, uint64_t offset, const void *from,
            size_t length, uint32_t flags, struct error *error)
{
    size_t ss = store->sector_size;
    struct cut cut;
    int status = 0;
    if (length == 0)
        return 0;
    uint8_t *edges = edges_alloc(store, error);
    if (edges == NULL)
        return FARBLK_NO_MEMORY;
    cut_make(&cut, store, offset, (void *)(uintptr_t)from, length, edges);
    if (cut.head > 0)
        status = store_read_sectors(store, cut.start, edges, ss, error);
    if (status == 0 && cut.tail > 0)
        status = store_read_sectors(store, cut.end - ss, edges + ss, ss, error);
    if (status == 0) {
        memcpy(edges + cut.before, from, cut.head);
        memcpy(edges + ss, (const uint8_t *)from + cut.head + cut.middle,
               cut.tail);
        status = taken(
            farblk_write(store->dev, cut.start / ss, cut.iov, cut.count, flags),
            error);
    }
    free(edges);
    return status;
}
