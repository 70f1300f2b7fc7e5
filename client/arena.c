/* SPDX-License-Identifier: ISC */
/*
 * Who has which part of the arena.
 *
 * A bit for each page, the first fit from where the last search ended.  Parts
 * are the program's buffers, and what tags keep to copy through.  The server
 * knows nothing of it.
 *
 * Pages that were severed are the program's as long as it has the buffer, but in
 * memory of its own.  The arena gets them back when the buffer is freed and the
 * server has answered all that it may use them for (`held`), whichever is later.
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
    rings->freed = calloc(words, sizeof *rings->freed);
    rings->held = calloc((size_t)rings->pages, sizeof *rings->held);
    return rings->used != NULL && rings->severed != NULL && rings->freed != NULL
           && rings->held != NULL;
}

void
arena_fini(struct rings *rings)
{
    free(rings->used);
    free(rings->severed);
    free(rings->freed);
    free(rings->held);
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
    for (uint64_t page = at / RING_PAGE; page < (at + octets) / RING_PAGE;
         page++) {
        atomic_fetch_add(&rings->severed_pages,
                         !arena_bit(rings->severed, page));
        arena_set(rings->severed, page, 1, true);
        rings->held[page]++;
    }
    pthread_mutex_unlock(&rings->mutex);
    return true;
}

/* Under the mutex: nobody needs the page.  The region's is put back in its place;
 * where that fails the address stays taken, with nothing behind it. */
static void
arena_mend(struct rings *rings, uint64_t page)
{
    uint8_t *memory = arena_memory(rings, page * RING_PAGE);
    off_t at = (off_t)(rings->shape.arena_at + page * RING_PAGE);
    if (mmap(memory, RING_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
             rings->fd, at)
        == MAP_FAILED)
        return;
    madvise(memory, RING_PAGE, MADV_DONTFORK);
    arena_set(rings->severed, page, 1, false);
    arena_set(rings->freed, page, 1, false);
    arena_set(rings->used, page, 1, false);
    atomic_fetch_sub(&rings->severed_pages, 1);
}

void
arena_answered(struct rings *rings, uint64_t at, uint64_t octets)
{
    pthread_mutex_lock(&rings->mutex);
    for (uint64_t page = at / RING_PAGE; page < (at + octets) / RING_PAGE;
         page++)
        if (rings->held[page] > 0 && --rings->held[page] == 0
            && arena_bit(rings->freed, page))
            arena_mend(rings, page);
    pthread_mutex_unlock(&rings->mutex);
}

/* ------------------------------------------------------------ the program's */

/* Requests that were given up may have been answered, and nobody looked. */
static bool
arena_take_late(struct client *client, struct rings *rings, size_t size,
                uint64_t *at)
{
    if (atomic_load(&rings->severed_pages) == 0)
        return false;
    rings_reap_all(client);
    return arena_take(rings, size, at);
}

void *
arena_buffer_alloc(void *state, size_t size)
{
    struct client *client = state;
    struct rings *rings = rings_enter(client);
    uint8_t *memory = NULL;
    uint64_t at;
    if (rings == NULL)
        return NULL;
    if (atomic_load(&rings->up)
        && (arena_take(rings, size, &at)
            || arena_take_late(client, rings, size, &at))) {
        memory = arena_memory(rings, at);
        memset(memory, 0, size); /* as fresh memory is */
        atomic_fetch_add(&rings->refs, 1);
    }
    rings_leave(rings);
    return memory;
}

/* The region that the buffer is in, which it keeps. */
static struct rings *
arena_find(struct client *client, const void *buffer, size_t size, uint64_t *at)
{
    pthread_mutex_lock(&client->mutex);
    struct rings *rings = client->regions;
    while (rings != NULL && !arena_holds(rings, buffer, size, at))
        rings = rings->next;
    pthread_mutex_unlock(&client->mutex);
    return rings;
}

bool
arena_buffer_free(void *state, void *buffer, size_t size)
{
    uint64_t at;
    struct rings *rings = arena_find(state, buffer, size, &at);
    if (rings == NULL)
        return false;
    pthread_mutex_lock(&rings->mutex);
    for (uint64_t page = at / RING_PAGE; page < (at + size) / RING_PAGE;
         page++) {
        if (!arena_bit(rings->severed, page)) {
            arena_set(rings->used, page, 1, false);
        } else if (rings->held[page] == 0) {
            arena_mend(rings, page);
        } else {
            arena_set(rings->freed, page, 1, true);
            madvise(arena_memory(rings, page * RING_PAGE), RING_PAGE,
                    MADV_DONTNEED); /* it is a private one */
        }
    }
    if (at / RING_PAGE < rings->hint)
        rings->hint = at / RING_PAGE;
    pthread_mutex_unlock(&rings->mutex);
    rings_put(rings);
    return true;
}
