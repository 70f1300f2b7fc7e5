/* SPDX-License-Identifier: ISC */
/*
 * Blocks: immutable, reference-counted pieces of memory.
 *
 * A block is written once, by whoever allocated it, and then only read until
 * its last reference goes.  The ramdisk's content is made of them, replies are
 * sent out of them, and payloads of writes are received into them; so a reader
 * never waits for a writer and what is being sent never changes.
 *
 * All block memory of the process is counted against one limit, which is
 * checked before anything is allocated.
 */
#ifndef FARBLK_CORE_BLOCK_H
#define FARBLK_CORE_BLOCK_H

#include <stddef.h>
#include <stdint.h>
#include <stdatomic.h>
#include <sys/uio.h>

struct block {
    atomic_uint refs;
    uint32_t size; /* octets in data */
    union {
        struct block *next; /* of free ones */
        struct {
            atomic_uint kept; /* 0 at first; a driver that keeps a payload: in
                                 how many places it does */
            _Bool aligned; /* data is at a multiple of BLOCK_ALIGN */
        };
    };
    _Alignas(16) uint8_t data[];
};

#define BLOCK_ALIGN 4096u /* no direct I/O wants more */

/* A new block of `size` octets, content undefined, one reference.  NULL when
 * there is no memory or the limit would be passed. */
struct block *block_alloc(uint32_t size);
/* The same, aligned; it takes BLOCK_ALIGN octets more. */
struct block *block_alloc_aligned(uint32_t size);
/* Like block_alloc(), but the limit may be passed: for what soon frees more than
 * this takes. */
struct block *block_alloc_over(uint32_t size);

static inline struct block *
block_get(struct block *block)
{
    atomic_fetch_add_explicit(&block->refs, 1, memory_order_relaxed);
    return block;
}

/* `count` references at once. */
static inline void
block_get_more(struct block *block, unsigned count)
{
    atomic_fetch_add_explicit(&block->refs, count, memory_order_relaxed);
}

void block_free_last(struct block *block);

/* Drop one reference.  NULL is fine. */
static inline void
block_put(struct block *block)
{
    if (block != NULL
        && atomic_fetch_sub_explicit(&block->refs, 1, memory_order_acq_rel)
               == 1)
        block_free_last(block);
}

/* Limit for all blocks of the process, octets; UINT64_MAX (the default): none.
 * What is allocated already stays.  What memory of 4 KiB blocks is free but cannot
 * go back, for others lie beside it, is counted too unless such a block is asked
 * for; apart from the 8 MiB in which they may always lie scattered. */
void block_set_limit(uint64_t octets);
uint64_t block_limit(void);
/* Count memory that is not a block's against the limit; false, and not counted,
 * when that would be passed. */
_Bool block_charge(uint64_t octets);
/* The same, but the limit may be passed: for what is bounded in another way, and
 * must not fail because something else has used the memory up. */
void block_charge_over(uint64_t octets);
void block_uncharge(uint64_t octets);
/* Octets in use, headers included; without the few that are kept for reuse. */
uint64_t block_in_use(void);
/* The most that were in use at once. */
uint64_t block_most(void);
/* The same, and what else is counted when anything but 4 KiB is asked for. */
uint64_t block_counted(void);

/* In a forked child: forget the free ones, which another thread may have been
 * at. */
void block_after_fork(void);

/* Zeroes to send or to compare with; BLOCK_ZEROES octets, static. */
#define BLOCK_ZEROES 65536u
extern const uint8_t block_zeroes[BLOCK_ZEROES];

/* One piece of a lent read: memory, and the reference that keeps it (NULL:
 * static memory). */
struct loan_part {
    struct iovec iov;
    struct block *block;
};

/*
 * What a read lends instead of copying: the data of the request, in order, in
 * memory that will not change.  The borrower provides `part` and `capacity`, at
 * least length / 4096 + 2, and gives everything back with loan_return().
 */
struct loan {
    struct loan_part *part;
    size_t capacity;
    size_t count;
    uint64_t length; /* octets lent so far */
};

/* Append; takes over the reference.  Adjacent memory of one block is merged.
 * False, and nothing taken, when full. */
_Bool loan_add(struct loan *loan, const void *base, size_t length,
               struct block *block);

/* Put all references back; the loan is empty afterwards. */
void loan_return(struct loan *loan);

#endif
