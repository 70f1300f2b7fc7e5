/* SPDX-License-Identifier: ISC */
/*
 * Who has which part of the arena.
 *
 * A bit for each page, the first fit from where the last search ended.  Parts
 * are the program's buffers, and what tags keep to copy through.  The server
 * knows nothing of it.
 */
#include "client/rings.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static bool
arena_bit(const uint64_t *bits, uint64_t page)
{
    return (bits[page / 64] >> (page % 64) & 1) != 0;
}

static void
arena_set(uint64_t *bits, uint64_t page, uint64_t count, bool value)
{
    for (; count > 0; page++, count--) {
        if (value)
            bits[page / 64] |= UINT64_C(1) << page % 64;
        else
            bits[page / 64] &= ~(UINT64_C(1) << page % 64);
    }
}

bool
arena_init(struct rings *rings)
{
    rings->pages = rings->shape.arena_octets / RING_PAGE;
    size_t words = (size_t)((rings->pages + 63) / 64);
    rings->used = calloc(words, sizeof *rings->used);
    rings->severed = calloc(words, sizeof *rings->severed);
    return rings->used != NULL && rings->severed != NULL;
}

void
arena_fini(struct rings *rings)
{
    free(rings->used);
    free(rings->severed);
}

/* The first run of `count` free pages that begins in [from, to). */
static bool
arena_search(const struct rings *rings, uint64_t from, uint64_t to,
             uint64_t count, uint64_t *found)
{
    uint64_t run = 0;
    for (uint64_t page = from; page < rings->pages; page++) {
        if (run == 0 && page >= to)
            return false;
        if (page % 64 == 0 && rings->used[page / 64] == UINT64_MAX) {
            run = 0;
            page += 63;
            continue;
        }
        run = arena_bit(rings->used, page) ? 0 : run + 1;
        if (run == count) {
            *found = page + 1 - count;
            return true;
        }
    }
    return false;
}

bool
arena_take(struct rings *rings, uint64_t octets, uint64_t *at)
{
    uint64_t count = (octets + RING_PAGE - 1) / RING_PAGE, page;
    if (count == 0 || count > rings->pages)
        return false;
    pthread_mutex_lock(&rings->mutex);
    bool found = arena_search(rings, rings->hint, rings->pages, count, &page)
                 || arena_search(rings, 0, rings->hint, count, &page);
    if (found) {
        arena_set(rings->used, page, count, true);
        rings->hint = page + count < rings->pages ? page + count : 0;
    }
    pthread_mutex_unlock(&rings->mutex);
    if (found)
        *at = page * RING_PAGE;
    return found;
}

void
arena_give(struct rings *rings, uint64_t at, uint64_t octets)
{
    uint64_t page = at / RING_PAGE;
    uint64_t count = (octets + RING_PAGE - 1) / RING_PAGE;
    pthread_mutex_lock(&rings->mutex);
    arena_set(rings->used, page, count, false);
    if (page < rings->hint)
        rings->hint = page; /* what was used lately is in the caches */
    pthread_mutex_unlock(&rings->mutex);
}

/* Whether memory lies wholly in the arena. */
static bool
arena_holds(const struct rings *rings, const void *memory, uint64_t length,
            uint64_t *at)
{
    uintptr_t base = (uintptr_t)arena_memory(rings, 0);
    uintptr_t begin = (uintptr_t)memory;
    if (begin < base
        || !range_within(begin - base, length, rings->shape.arena_octets))
        return false;
    *at = begin - base;
    return true;
}

/* Whether one of these pages has been severed. */
static bool
arena_was_severed(const struct rings *rings, uint64_t at, uint64_t octets)
{
    if (atomic_load(&rings->severed_pages) == 0)
        return false;
    pthread_mutex_lock((pthread_mutex_t *)(uintptr_t)&rings->mutex);
    bool severed = false;
    for (uint64_t page = at / RING_PAGE; page < (at + octets) / RING_PAGE;
         page++)
        severed = severed || arena_bit(rings->severed, page);
    pthread_mutex_unlock((pthread_mutex_t *)(uintptr_t)&rings->mutex);
    return severed;
}

bool
arena_direct(const struct rings *rings, const struct io *io, uint64_t *at)
{
    struct iovec first = iov_first(&io->data);
    return first.iov_len == io->length
           && arena_holds(rings, first.iov_base, io->length, at)
           && *at % RING_PAGE == 0 && io->length % RING_PAGE == 0
           && !arena_was_severed(rings, *at, io->length);
}

bool
arena_sever(struct rings *rings, uint64_t at, uint64_t octets, bool keep)
{
    uint8_t *memory = arena_memory(rings, at);
    void *other = mmap(NULL, octets, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (other == MAP_FAILED)
        return false;
    if (keep)
        memcpy(other, memory, octets);
    if (mremap(other, octets, octets, MREMAP_MAYMOVE | MREMAP_FIXED, memory)
        == MAP_FAILED) {
        munmap(other, octets);
        return false;
    }
    pthread_mutex_lock(&rings->mutex);
    arena_set(rings->severed, at / RING_PAGE, octets / RING_PAGE, true);
    atomic_fetch_add(&rings->severed_pages, (unsigned)(octets / RING_PAGE));
    pthread_mutex_unlock(&rings->mutex);
    return true;
}

/* ------------------------------------------------------------ the program's */

void *
arena_buffer_alloc(void *state, size_t size)
{
    struct client *client = state;
    struct rings *rings = client->rings;
    uint64_t at;
    if (rings == NULL || !atomic_load(&rings->up)
        || !arena_take(rings, size, &at))
        return NULL;
    uint8_t *memory = arena_memory(rings, at);
    memset(memory, 0, size); /* as fresh memory is */
    return memory;
}

bool
arena_buffer_free(void *state, void *buffer, size_t size)
{
    struct client *client = state;
    struct rings *rings = client->rings;
    uint64_t at;
    if (rings == NULL || !arena_holds(rings, buffer, size, &at))
        return false;
    if (!arena_was_severed(rings, at, size)) {
        arena_give(rings, at, size);
        return true;
    }
    for (uint64_t end = at + size; at < end; at += RING_PAGE) {
        if (!arena_was_severed(rings, at, RING_PAGE))
            arena_give(rings, at, RING_PAGE);
        else /* the address stays taken */
            mmap(arena_memory(rings, at), RING_PAGE, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
                 0);
    }
    return true;
}
