/* SPDX-License-Identifier: ISC */
/*
 * The content of a ramdisk: a sparse array of octets up to INT64_MAX long,
 * whose mapped parts are known to the sector.
 *
 * Content lies in blocks (core/block.h) of max(4096, sector size) octets, which
 * are written once and never again; a write makes a new block and swaps it in.
 * So whoever holds a reference reads on undisturbed, a reader waits for nobody
 * that copies, and a sector is always wholly old or wholly new.  Blocks hang in
 * leaves of RAMTREE_FANOUT, leaves in inner nodes, as deep as the size wants.
 *
 * Invariants: a slot is empty if and only if none of its block's sectors is
 * mapped; unmapped sectors of a block hold zeroes, so that reads need not ask
 * which ones are mapped; nothing is mapped past the size.
 *
 * Threads.  Everything but ramtree_init() and ramtree_fini() may be called by
 * any number of threads at once.  Reads and writes hold two locks for a few
 * instructions each: one of RAMTREE_STRIPES read locks, by which a node that
 * is in use stays, and the mutex of the one leaf they are at.  Copying and the
 * allocation of blocks happen outside of both.  Only what takes nodes away (a
 * discard that empties leaves, a resize) holds all the stripes, and only while
 * it unlinks them.  Lock order: stripes, in their order -> a leaf's mutex.
 *
 * A payload that was received into a block of its own becomes the content as it
 * is, where it can (ramtree_write.c); such a block may be larger.
 *
 * Memory: blocks and nodes alike come from block_alloc() and count against its
 * limit.  One sector alone costs its block, a leaf (4.6 KiB at most) and an
 * inner node (4 KiB) for each level: one up to 1 GiB, three up to 256 TiB of
 * 4096 octets' blocks.
 */
#ifndef FARBLK_BACKENDS_RAMTREE_H
#define FARBLK_BACKENDS_RAMTREE_H

#include "core/block.h"
#include "core/iov.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RAMTREE_FANOUT_SHIFT 9u
#define RAMTREE_FANOUT (1u << RAMTREE_FANOUT_SHIFT)
#define RAMTREE_STRIPES 16u
#define RAMTREE_BLOCK_MIN 4096u

struct ramtree_node;

/* Alone on its cache line, for each thread keeps to one stripe. */
struct ramtree_stripe {
    _Alignas(64) pthread_rwlock_t lock;
};

struct ramtree {
    struct ramtree_stripe stripe[RAMTREE_STRIPES];
    /* The rest but the root changes only under all stripes. */
    _Atomic(struct ramtree_node *) root; /* NULL: nothing is mapped */
    unsigned height; /* level of the root; leaves are level 0 */
    unsigned sector_shift, block_shift; /* fixed */
    atomic_uint_fast64_t size; /* octets */
};

/* One piece of what is read; whatever lies in one block side by side is one. */
struct ramtree_piece {
    struct block *block; /* a reference, the caller's to put; NULL: zeroes */
    const uint8_t *data; /* inside the block; NULL when block is */
    uint64_t length;
};

/* `sector_size` is a power of two, 512 ... 65536, `size` whole sectors, at most
 * INT64_MAX.  False when there is no memory; then there is nothing to free. */
bool ramtree_init(struct ramtree *tree, uint64_t size, uint32_t sector_size);

/* Nobody uses the tree.  References that were given out stay good. */
void ramtree_fini(struct ramtree *tree);

uint64_t ramtree_size(const struct ramtree *tree);
uint32_t ramtree_sector_size(const struct ramtree *tree);
uint32_t ramtree_block_size(const struct ramtree *tree);

/* What is at `offset`, which may be past the end, will be read in a moment: ask
 * for the first lines of its memory.  Never waits. */
void ramtree_foresee(struct ramtree *tree, uint64_t offset);

/*
 * In what follows, [offset, offset + length) is whole sectors and within the
 * size; what breaks that is the caller's bug.
 */

/* Look at the content from `offset` on: fills up to `max` pieces, which cover
 * the beginning of the range without gaps; at least one unless length is 0.
 * Zeroes come in one piece where they adjoin.  Returns how many. */
size_t ramtree_get(struct ramtree *tree, uint64_t offset, uint64_t length,
                   struct ramtree_piece *piece, size_t max);

/* What changes the tree returns false when there is no memory or the limit of
 * blocks is reached; *changed then tells whether a part has been done. */

/* Write data (data.length octets, whole sectors) and map it.  Sectors that
 * share a block change together.  `payload` is NULL, or a block that data lies
 * in and that nobody writes to any more: where all of it is written and it fits
 * (ramtree_write.c), it becomes the content, by reference. */
bool ramtree_write(struct ramtree *tree, uint64_t offset, struct iov_view data,
                   struct block *payload, bool *changed);

/* Make the range read as zero: unmapped, or with `mapped` mapped.  Unmapping
 * fails only when a block must be changed in part that somebody else holds,
 * and there is no memory for its successor. */
bool ramtree_zero(struct ramtree *tree, uint64_t offset, uint64_t length,
                  bool mapped, bool *changed);

/* The end of the run of sectors of one kind that begins at `offset` < `end`, at
 * most `end`; *mapped tells the kind.  Always more than `offset`.  Cost: by the
 * number of leaves that exist in the run, not by its length. */
uint64_t ramtree_run(struct ramtree *tree, uint64_t offset, uint64_t end,
                     bool *mapped);

/* Set the size.  What lies past it is dropped and reads as zero and unmapped
 * if the tree grows again.  On failure nothing has changed.  One at a time, and
 * no write at the same time. */
bool ramtree_resize(struct ramtree *tree, uint64_t size);

#endif
