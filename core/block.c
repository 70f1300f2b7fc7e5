/* SPDX-License-Identifier: ISC */
/*
 * Blocks: allocation against one limit, and loans of them.
 *
 * Large blocks are payloads on their way, and come and go with each request;
 * malloc would give their pages back to the kernel every time and zero them
 * anew; and to align one takes malloc's long way.  So some are kept.  The others
 * of that size are mapped by themselves: many may become a ramdisk's content, and
 * what malloc gets back between others it keeps.  Small ones, of which ramdisks
 * are made, are slab.h's.
 *
 * A process may have only so many mappings, and to unmap what lies within one
 * makes two of it.  What therefore cannot be unmapped loses its pages but one, and its
 * addresses wait: for a block of that size, or until it can be.
 */
#include "core/block.h"

#include "core/checked.h"
#include "core/slab.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

const uint8_t block_zeroes[BLOCK_ZEROES];

static atomic_uint_fast64_t limit = UINT64_MAX;
static atomic_uint_fast64_t in_use;
static atomic_uint_fast64_t most; /* of it, ever */

/* Kept are blocks above 32 KiB, and aligned ones.  They are rounded up to a power
 * of two, at least 4 KiB, and kept by it. */
#define KEPT_FIRST 12
#define KEPT_PLAIN 16
#define KEPT_LAST 23
#define SHELVES (KEPT_LAST - KEPT_FIRST + 1u)
#define KEPT_OCTETS (32u << 20)
/* From here on they are mapped. */
#define MAPPED_FROM (UINT64_C(128) << 10)

static pthread_mutex_t kept_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct block *kept[2][SHELVES]; /* plain ones, aligned ones */
static uint64_t kept_octets;

/* What could not be unmapped; its first page says so. */
struct stuck {
    struct stuck *next;
    uint64_t cost;
};

/* The last of each is of sizes that have no shelf: these only wait to be
 * unmapped. */
static struct stuck *stuck[2][SHELVES + 1];
static atomic_uint stuck_count; /* mostly 0: nobody has to look */

/* Where a block's memory comes from and goes to. */
struct place {
    uint64_t cost; /* octets of it */
    uint32_t before; /* those of them in front of the block */
    unsigned shelf; /* SHELVES: it is not kept */
    bool slab, aligned;
};

static struct place
block_place(uint32_t size, bool aligned)
{
    struct place place = {.shelf = SHELVES, .aligned = aligned};
    if (size == SLAB_DATA && !aligned) {
        place.slab = true;
        place.cost = SLAB_STRIDE;
        return place;
    }
    unsigned shift = KEPT_FIRST;
    if (size > 1u << KEPT_FIRST)
        shift = 32 - (unsigned)__builtin_clz(size - 1);
    uint64_t room = size;
    if (shift <= KEPT_LAST && (aligned || shift >= KEPT_PLAIN)) {
        place.shelf = shift - KEPT_FIRST;
        room = UINT64_C(1) << shift;
    }
    if (aligned)
        place.before = BLOCK_ALIGN - (uint32_t)sizeof(struct block);
    place.cost = place.before + sizeof(struct block) + room;
    return place;
}

static struct block *
block_take_kept(const struct place *place)
{
    struct block **shelf = &kept[place->aligned][place->shelf];
    pthread_mutex_lock(&kept_mutex);
    struct block *block = *shelf;
    if (block != NULL) {
        *shelf = block->next;
        kept_octets -= place->cost;
    }
    pthread_mutex_unlock(&kept_mutex);
    return block;
}

static bool
block_mapped(const struct place *place)
{
    return !SLAB_PLAIN && place->cost >= MAPPED_FROM;
}

/* Give up the pages, and remember the addresses. */
static void
stuck_add(void *memory, uint64_t cost, struct stuck **list)
{
    struct stuck *one = memory;
    slab_give_up(memory, cost);
    one->cost = cost;
    pthread_mutex_lock(&kept_mutex);
    one->next = *list;
    *list = one;
    atomic_fetch_add_explicit(&stuck_count, 1, memory_order_relaxed);
    pthread_mutex_unlock(&kept_mutex);
}

static struct stuck *
stuck_take(struct stuck **list)
{
    if (atomic_load_explicit(&stuck_count, memory_order_relaxed) == 0)
        return NULL;
    pthread_mutex_lock(&kept_mutex);
    struct stuck *one = *list;
    if (one != NULL) {
        *list = one->next;
        atomic_fetch_sub_explicit(&stuck_count, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&kept_mutex);
    return one;
}

/* Something has been unmapped: perhaps now one of each list can be. */
static void
stuck_retry(void)
{
    struct stuck **list = &stuck[0][0];
    for (unsigned i = 0; i < 2 * (SHELVES + 1); i++) {
        struct stuck *one = stuck_take(&list[i]);
        if (one != NULL && munmap(one, one->cost) != 0)
            stuck_add(one, one->cost, &list[i]);
    }
}

static void *
block_memory(const struct place *place)
{
    void *memory;
    if (block_mapped(place)) {
        if (place->shelf < SHELVES) {
            memory = stuck_take(&stuck[place->aligned][place->shelf]);
            if (memory != NULL)
                return memory;
        }
        memory = mmap(NULL, place->cost, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return memory == MAP_FAILED ? NULL : memory;
    }
    if (!place->aligned)
        return malloc(place->cost);
    return posix_memalign(&memory, BLOCK_ALIGN, place->cost) == 0 ? memory
                                                                  : NULL;
}

static void
block_give_back(struct block *block, const struct place *place)
{
    void *memory = (uint8_t *)block - place->before;
    if (!block_mapped(place))
        free(memory);
    else if (munmap(memory, place->cost) == 0)
        stuck_retry();
    else
        stuck_add(memory, place->cost, &stuck[place->aligned][place->shelf]);
}

/* With the mutex: take a kept block of any other size. */
static struct block *
block_evict(const struct place *place, struct place *its)
{
    for (unsigned aligned = 0; aligned < 2; aligned++)
        for (unsigned shelf = 0; shelf < SHELVES; shelf++) {
            struct block *block = kept[aligned][shelf];
            if (block == NULL
                || (aligned == place->aligned && shelf == place->shelf))
                continue;
            kept[aligned][shelf] = block->next;
            *its = block_place(block->size, aligned != 0);
            kept_octets -= its->cost;
            return block;
        }
    return NULL;
}

/* Keep the block, if need be instead of others: what comes back now is what will
 * be wanted next.  False: enough of its size are kept. */
static bool
block_keep(struct block *block, const struct place *place)
{
    struct block **shelf = &kept[place->aligned][place->shelf];
    bool room;
    pthread_mutex_lock(&kept_mutex);
    for (;;) {
        struct place its;
        room = kept_octets + place->cost <= KEPT_OCTETS;
        struct block *other = room ? NULL : block_evict(place, &its);
        if (other == NULL)
            break;
        pthread_mutex_unlock(&kept_mutex);
        block_give_back(other, &its);
        pthread_mutex_lock(&kept_mutex);
    }
    if (room) {
        block->next = *shelf;
        *shelf = block;
        kept_octets += place->cost;
    }
    pthread_mutex_unlock(&kept_mutex);
    return room;
}

static struct block *
block_new(const struct place *place)
{
    struct block *block = NULL;
    if (place->slab)
        return slab_take();
    if (place->shelf < SHELVES)
        block = block_take_kept(place);
    if (block != NULL)
        return block;
    uint8_t *memory = block_memory(place);
    return memory == NULL ? NULL
                          : (struct block *)(void *)(memory + place->before);
}

/* Whether the limit allows for this when so much is in use.  What slabs have
 * room for is theirs: only their blocks may take it. */
static bool
block_allowed(const struct place *place, uint64_t used)
{
    if (!place->slab)
        used += slab_idle();
    return range_within(used, place->cost,
                        atomic_load_explicit(&limit, memory_order_relaxed));
}

/* So much is in use now. */
static inline void
block_note(uint64_t now)
{
    uint64_t before = atomic_load_explicit(&most, memory_order_relaxed);
    while (now > before
           && !atomic_compare_exchange_weak_explicit(
               &most, &before, now, memory_order_relaxed, memory_order_relaxed))
        ;
}

static struct block *
block_make(uint32_t size, bool aligned, bool over)
{
    struct place place = block_place(size, aligned);
    uint64_t before =
        atomic_fetch_add_explicit(&in_use, place.cost, memory_order_relaxed);
    struct block *block = NULL;
    if (over || block_allowed(&place, before))
        block = block_new(&place);
    if (block == NULL) {
        atomic_fetch_sub_explicit(&in_use, place.cost, memory_order_relaxed);
        return NULL;
    }
    block_note(before + place.cost);
    atomic_init(&block->refs, 1);
    atomic_init(&block->kept, 0);
    block->size = size;
    block->aligned = aligned;
    return block;
}

struct block *
block_alloc(uint32_t size)
{
    return block_make(size, false, false);
}

struct block *
block_alloc_aligned(uint32_t size)
{
    return block_make(size, true, false);
}

struct block *
block_alloc_over(uint32_t size)
{
    return block_make(size, false, true);
}

void
block_free_last(struct block *block)
{
    struct place place = block_place(block->size, block->aligned);
    atomic_fetch_sub_explicit(&in_use, place.cost, memory_order_relaxed);
    if (place.slab)
        slab_give(block);
    else if (place.shelf == SHELVES || !block_keep(block, &place))
        block_give_back(block, &place);
}

void
block_after_fork(void)
{
    pthread_mutex_init(&kept_mutex, NULL);
    memset(kept, 0, sizeof kept);
    memset(stuck, 0, sizeof stuck);
    atomic_store(&stuck_count, 0);
    kept_octets = 0;
    slab_after_fork();
}

bool
block_charge(uint64_t octets)
{
    const struct place place = {.cost = octets};
    uint64_t before =
        atomic_fetch_add_explicit(&in_use, octets, memory_order_relaxed);
    if (block_allowed(&place, before)) {
        block_note(before + octets);
        return true;
    }
    atomic_fetch_sub_explicit(&in_use, octets, memory_order_relaxed);
    return false;
}

void
block_charge_over(uint64_t octets)
{
    block_note(
        octets
        + atomic_fetch_add_explicit(&in_use, octets, memory_order_relaxed));
}

void
block_uncharge(uint64_t octets)
{
    atomic_fetch_sub_explicit(&in_use, octets, memory_order_relaxed);
}

void
block_set_limit(uint64_t octets)
{
    atomic_store(&limit, octets);
}

uint64_t
block_limit(void)
{
    return atomic_load(&limit);
}

uint64_t
block_in_use(void)
{
    return atomic_load(&in_use);
}

uint64_t
block_most(void)
{
    return atomic_load(&most);
}

uint64_t
block_counted(void)
{
    return block_in_use() + slab_idle();
}

bool
loan_add(struct loan *loan, const void *base, size_t length,
         struct block *block)
{
    if (loan->count > 0) {
        struct loan_part *last = &loan->part[loan->count - 1];
        const uint8_t *end = (const uint8_t *)last->iov.iov_base;
        if (last->block == block && block != NULL
            && end + last->iov.iov_len == base) {
            last->iov.iov_len += length;
            loan->length += length;
            block_put(block); /* one reference is enough for both */
            return true;
        }
    }
    if (loan->count == loan->capacity)
        return false;
    loan->part[loan->count++] = (struct loan_part){
        .iov = {.iov_base = (void *)(uintptr_t)base, .iov_len = length},
        .block = block,
    };
    loan->length += length;
    return true;
}

void
loan_return(struct loan *loan)
{
    for (size_t i = 0; i < loan->count; i++)
        block_put(loan->part[i].block);
    loan->count = 0;
    loan->length = 0;
}
