/* SPDX-License-Identifier: ISC */
/*
 * Small blocks out of slabs.
 *
 * A slab is 2 MiB at a multiple of 2 MiB, so that a block's address tells its
 * slab.  It begins with its own few words; behind them lie the blocks, cut off
 * as they are needed, with the first octet of their data at a cache line.
 * Blocks that came back are linked through their headers.  Slabs that have
 * room are in a list, under one mutex.
 *
 * A thread's magazine is a short stack of free blocks.  It is filled and
 * emptied by halves, and given back when the thread ends.
 */
#include "core/slab.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLAB_OCTETS (2u << 20)
#define SLAB_SPARE 4u /* empty ones that are kept */
#define SLAB_SCATTER (4u * SLAB_OCTETS) /* see slab_idle() */
#define MAGAZINE 16u /* blocks; each may keep its slab mapped */

struct slab {
    struct slab *next, *prev; /* of those with room */
    struct block *free; /* that came back */
    unsigned cut; /* blocks that were ever cut off */
    unsigned used; /* blocks that are out */
};

/* Where the first block begins: its data is at the cache line behind. */
#define SLAB_FIRST (64u - (unsigned)offsetof(struct block, data))
#define SLAB_BLOCKS ((SLAB_OCTETS - SLAB_FIRST) / SLAB_STRIDE)
_Static_assert(sizeof(struct slab) <= SLAB_FIRST, "a slab's own words");
_Static_assert(SLAB_STRIDE % 64 == 0, "blocks keep to cache lines");

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct slab *slabs; /* with room; those that are empty come last */
static struct slab *slabs_last;
static unsigned spare; /* how many are empty */
static uint64_t mapped;
static uint64_t out; /* octets of blocks that are out, or in magazines */
static atomic_uint_fast64_t idle; /* see slab_idle() */

/* A thread's own.  In the static TLS, for it is looked at twice a write. */
struct magazine {
    struct block *head;
    unsigned count;
    enum { MAGAZINE_NEW, MAGAZINE_OPEN, MAGAZINE_SHUT } state;
};

static _Thread_local struct magazine magazine
    __attribute__((tls_model("initial-exec")));
static pthread_key_t key;
static bool has_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* ------------------------------------------------------------ slabs */

static void
slab_link(struct slab *slab, bool first)
{
    slab->prev = first ? NULL : slabs_last;
    slab->next = first ? slabs : NULL;
    if (slab->prev != NULL)
        slab->prev->next = slab;
    else
        slabs = slab;
    if (slab->next != NULL)
        slab->next->prev = slab;
    else
        slabs_last = slab;
}

static void
slab_unlink(struct slab *slab)
{
    if (slab->prev != NULL)
        slab->prev->next = slab->next;
    else
        slabs = slab->next;
    if (slab->next != NULL)
        slab->next->prev = slab->prev;
    else
        slabs_last = slab->prev;
}

/* 2 MiB at a multiple of 2 MiB, or NULL. */
static struct slab *
slab_map(void)
{
    uint8_t *memory = mmap(NULL, 2 * SLAB_OCTETS, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)memory & (SLAB_OCTETS - 1);
    size_t after = SLAB_OCTETS - before;
    /* Should these fail, at the limit of mappings: nobody touches them. */
    if (before > 0)
        munmap(memory, before);
    munmap(memory + before + SLAB_OCTETS, after);
    memory += before;
    madvise(memory, SLAB_OCTETS, MADV_HUGEPAGE); /* if it can */
    mapped += SLAB_OCTETS;
    return (struct slab *)(void *)memory;
}

/* Under the mutex: one block out of a slab with room. */
static struct block *
slab_cut(void)
{
    struct slab *slab = slabs;
    if (slab == NULL) {
        slab = slab_map();
        if (slab == NULL)
            return NULL;
        slab_link(slab, true);
        spare++;
    }
    struct block *block = slab->free;
    if (block != NULL)
        slab->free = block->next;
    else
        block = (struct block *)(void *)((uint8_t *)slab + SLAB_FIRST
                                         + (size_t)slab->cut++ * SLAB_STRIDE);
    out += SLAB_STRIDE;
    if (slab->used++ == 0)
        spare--;
    if (slab->used == SLAB_BLOCKS)
        slab_unlink(slab);
    return block;
}

/* Under the mutex: a block comes back.  Returns a slab to be unmapped. */
static struct slab *
slab_join(struct block *block)
{
    struct slab *slab =
        (struct slab *)((uintptr_t)block & ~(uintptr_t)(SLAB_OCTETS - 1));
    block->next = slab->free;
    slab->free = block;
    out -= SLAB_STRIDE;
    if (slab->used-- == SLAB_BLOCKS)
        slab_link(slab, true);
    if (slab->used > 0)
        return NULL;
    slab_unlink(slab);
    if (spare >= SLAB_SPARE) {
        mapped -= SLAB_OCTETS;
        return slab;
    }
    spare++;
    slab_link(slab, false);
    return NULL;
}

void
slab_give_up(void *memory, uint64_t octets)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (octets > page)
        madvise((uint8_t *)memory + page, octets - page, MADV_DONTNEED);
}

/* Under the mutex, when blocks were taken or given back. */
static void
slab_tell_idle(void)
{
    uint64_t taken = out + (uint64_t)spare * SLAB_OCTETS + SLAB_SCATTER;
    atomic_store_explicit(&idle, mapped > taken ? mapped - taken : 0,
                          memory_order_relaxed);
}

/* Without the mutex.  At the limit of mappings one that lies within another
 * cannot be unmapped: then it gives up its pages, and is one more of the empty
 * ones. */
static void
slab_unmap(struct slab *slab)
{
    if (munmap(slab, SLAB_OCTETS) == 0)
        return;
    slab_give_up(slab, SLAB_OCTETS);
    *slab = (struct slab){0};
    pthread_mutex_lock(&mutex);
    mapped += SLAB_OCTETS;
    spare++;
    slab_link(slab, false);
    pthread_mutex_unlock(&mutex);
}

/* ------------------------------------------------------------ magazines */

/* Fill an empty magazine with `count`, or as far as there is memory; in order,
 * so that what is written at once lies side by side, and is read faster. */
static void
magazine_fill(unsigned count)
{
    struct block **end = &magazine.head;
    pthread_mutex_lock(&mutex);
    while (magazine.count < count && (*end = slab_cut()) != NULL) {
        end = &(*end)->next;
        magazine.count++;
    }
    slab_tell_idle();
    pthread_mutex_unlock(&mutex);
    *end = NULL;
}

/* Give back all but `count`. */
static void
magazine_empty(unsigned count)
{
    struct slab *gone = NULL;
    pthread_mutex_lock(&mutex);
    while (magazine.count > count) {
        struct block *block = magazine.head;
        magazine.head = block->next;
        magazine.count--;
        struct slab *slab = slab_join(block);
        if (slab != NULL) {
            slab->next = gone;
            gone = slab;
        }
    }
    slab_tell_idle();
    pthread_mutex_unlock(&mutex);
    while (gone != NULL) {
        struct slab *next = gone->next;
        slab_unmap(gone);
        gone = next;
    }
}

/* The thread ends. */
static void
magazine_end(void *arg)
{
    (void)arg;
    magazine_empty(0);
    magazine.state = MAGAZINE_SHUT;
}

static void
magazine_key(void)
{
    has_key = pthread_key_create(&key, magazine_end) == 0;
}

/* Whether the thread may keep blocks: somebody will empty its magazine. */
static bool
magazine_open(void)
{
    if (magazine.state == MAGAZINE_NEW) {
        pthread_once(&once, magazine_key);
        magazine.state = has_key && pthread_setspecific(key, &magazine) == 0
                             ? MAGAZINE_OPEN
                             : MAGAZINE_SHUT;
    }
    return magazine.state == MAGAZINE_OPEN;
}

/* ------------------------------------------------------------ */

struct block *
slab_take(void)
{
    if (SLAB_PLAIN)
        return malloc(sizeof(struct block) + SLAB_DATA);
    if (magazine.count == 0)
        magazine_fill(magazine_open() ? MAGAZINE / 2 : 1);
    struct block *block = magazine.head;
    if (block != NULL) {
        magazine.head = block->next;
        magazine.count--;
    }
    return block;
}

void
slab_give(struct block *block)
{
    if (SLAB_PLAIN) {
        free(block);
        return;
    }
    block->next = magazine.head;
    magazine.head = block;
    magazine.count++;
    if (magazine.count > MAGAZINE || magazine.state != MAGAZINE_OPEN)
        magazine_empty(magazine_open() ? MAGAZINE / 2 : 0);
}

uint64_t
slab_idle(void)
{
    return atomic_load_explicit(&idle, memory_order_relaxed);
}

uint64_t
slab_mapped(void)
{
    pthread_mutex_lock(&mutex);
    uint64_t octets = mapped;
    pthread_mutex_unlock(&mutex);
    return octets;
}

void
slab_after_fork(void)
{
    pthread_mutex_init(&mutex, NULL);
    slabs = slabs_last = NULL;
    spare = 0;
    mapped = out = 0;
    atomic_store(&idle, 0);
    magazine.head = NULL;
    magazine.count = 0;
}
