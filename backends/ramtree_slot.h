/* SPDX-License-Identifier: ISC */
/*
 * The slots of a ramdisk's leaves: small things that the files which change
 * content share.  A leaf's slots and bits are touched under its mutex alone.
 */
#ifndef FARBLK_BACKENDS_RAMTREE_SLOT_H
#define FARBLK_BACKENDS_RAMTREE_SLOT_H

#include "backends/ramtree_node.h"

static inline uint32_t
ramtree_block_octets(const struct ramtree *tree)
{
    return (uint32_t)1 << tree->block_shift;
}

static inline uint64_t
ramtree_block_start(const struct ramtree *tree, uint64_t index)
{
    return index << tree->block_shift;
}

static inline unsigned
ramtree_slot_of(uint64_t index)
{
    return (unsigned)(index & (RAMTREE_FANOUT - 1));
}

/* The content of block `index`, which is `block` or a part of it: a payload that
 * is kept as a chunk (ramtree_write.c) lies at a multiple of its size. */
static inline uint8_t *
ramtree_slot_data(const struct ramtree *tree, struct block *block,
                  uint64_t index)
{
    return block->data + (ramtree_block_start(tree, index) & (block->size - 1));
}

static inline bool
ramtree_is_chunk(const struct ramtree *tree, const struct block *slot)
{
    return ramtree_slot_is_real(slot)
           && slot->size > ramtree_block_octets(tree);
}

/* Whether nobody sees the block but by slots of its leaf, that is after the
 * leaf's mutex, which is held: then it may be changed where it is. */
static inline bool
ramtree_slot_is_own(const struct ramtree *tree, struct block *slot)
{
    unsigned own = ramtree_is_chunk(tree, slot)
                       ? atomic_load_explicit(&slot->kept, memory_order_relaxed)
                       : 1;
    return ramtree_slot_is_real(slot)
           && atomic_load_explicit(&slot->refs, memory_order_acquire) == own;
}

/* Replace what a slot holds; returns that.  Under the leaf's mutex. */
static inline struct block *
ramtree_slot_set(const struct ramtree *tree, struct ramtree_leaf *leaf,
                 unsigned slot, struct block *block)
{
    struct block *old = leaf->slot[slot];
    if (old != block && ramtree_is_chunk(tree, old))
        atomic_fetch_sub_explicit(&old->kept, 1, memory_order_relaxed);
    leaf->slot[slot] = block;
    return old;
}

/* The word of the leaf's bitmap that holds the block's bits, and in *mask the
 * bits of octets [at, at + length) of the block.  A block has at most 8. */
static inline uint64_t *
ramtree_bits(const struct ramtree *tree, struct ramtree_leaf *leaf,
             unsigned slot, uint64_t at, uint64_t length, uint64_t *mask)
{
    unsigned bit = slot << (tree->block_shift - tree->sector_shift);
    unsigned count = (unsigned)(length >> tree->sector_shift);
    *mask = (((uint64_t)1 << count) - 1)
            << (bit % 64 + (unsigned)(at >> tree->sector_shift));
    return &leaf->mapped[bit / 64];
}

/* Put `block` in a slot whose sectors in [at, at + length) it makes mapped.
 * Returns what was there.  Under the leaf's mutex. */
static inline struct block *
ramtree_slot_fill(const struct ramtree *tree, struct ramtree_leaf *leaf,
                  unsigned slot, struct block *block, uint64_t at,
                  uint64_t length)
{
    struct block *old = ramtree_slot_set(tree, leaf, slot, block);
    uint64_t mask;
    uint64_t *bits = ramtree_bits(tree, leaf, slot, at, length, &mask);

    *bits |= mask;
    if (old == NULL)
        leaf->used++;
    return old;
}

/* Empty a slot; returns what was there.  Under the leaf's mutex. */
static inline struct block *
ramtree_slot_empty(const struct ramtree *tree, struct ramtree_leaf *leaf,
                   unsigned slot)
{
    struct block *old = ramtree_slot_set(tree, leaf, slot, NULL);
    uint64_t mask;
    uint64_t *bits =
        ramtree_bits(tree, leaf, slot, 0, ramtree_block_octets(tree), &mask);

    *bits &= ~mask;
    if (old != NULL)
        leaf->used--;
    return old;
}

/* Put what a slot for block `index` held, a real one.  No lock is held. */
void ramtree_drop(struct ramtree *tree, uint64_t index, struct block *old);

/* What is done to octets of one block. */
enum alter_kind {
    ALTER_WRITE,
    ALTER_ZERO, /* mapped, reads as zero */
    ALTER_UNMAP,
};

/* Change octets [at, at + length) of block `index`; takes over the reference to
 * `fresh`, a new block with those octets filled, which a write has and zeroing
 * has not (NULL).  False without memory; nothing has changed then. */
bool ramtree_alter(struct ramtree *tree, enum alter_kind kind, uint64_t index,
                   uint64_t at, uint64_t length, struct block *fresh);

#endif
