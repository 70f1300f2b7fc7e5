/* SPDX-License-Identifier: ISC */
/*
 * The nodes of a ramdisk's tree: how they are found, added and taken away.
 * What stands in the leaves is the business of ramtree.c.
 *
 * Positions here are numbers of blocks.  A node of level n covers
 * RAMTREE_FANOUT^(n + 1) of them; leaves are level 0.
 */
#ifndef FARBLK_BACKENDS_RAMTREE_NODE_H
#define FARBLK_BACKENDS_RAMTREE_NODE_H

#include "backends/ramtree.h"

struct ramtree_node {
    struct ramtree_node *next; /* of those that were unlinked */
    unsigned level;
};

struct ramtree_inner {
    struct ramtree_node node;
    _Atomic(struct ramtree_node *) child[RAMTREE_FANOUT];
};

struct ramtree_leaf {
    struct ramtree_node node;
    pthread_mutex_t mutex; /* the rest */
    unsigned used; /* slots that are not empty */
    struct block *slot[RAMTREE_FANOUT];
    uint64_t mapped[]; /* one bit a sector */
};

/* In a slot: mapped, and all zeroes.  Never dereferenced, nor counted. */
extern struct block ramtree_zeroes;

static inline bool
ramtree_slot_is_real(const struct block *slot)
{
    return slot != NULL && slot != &ramtree_zeroes;
}

/* Between these two, nodes that were found stay.  Short, and not nested.
 * The result is for ramtree_leave(). */
struct ramtree_stripe *ramtree_enter(struct ramtree *tree);
/* The same; NULL: not without waiting. */
struct ramtree_stripe *ramtree_try_enter(struct ramtree *tree);
void ramtree_leave(struct ramtree_stripe *stripe);

/* Nobody else is between the two above. */
void ramtree_enter_alone(struct ramtree *tree);
void ramtree_leave_alone(struct ramtree *tree);

/* The leaf that holds block `index`, or else the next one; *base is its first
 * block.  NULL when there is none.  Between enter and leave. */
struct ramtree_leaf *ramtree_find(struct ramtree *tree, uint64_t index,
                                  uint64_t *base);

/* The leaf that holds block `index`; made where it is missing.  NULL: no
 * memory; ramtree_sweep() then takes away what was made in vain.  Between
 * enter and leave. */
struct ramtree_leaf *ramtree_make(struct ramtree *tree, uint64_t index);

/* The leaf of block `index`, or NULL: it is not there, or with `make` can not
 * be made.  Between enter and leave. */
struct ramtree_leaf *ramtree_leaf_at(struct ramtree *tree, uint64_t index,
                                     bool make);

/* Take away the nodes that lie wholly within blocks [first, last), and those
 * above, or at the range's ends, that are empty.  Waits for those between
 * enter and leave; frees afterwards. */
void ramtree_sweep(struct ramtree *tree, uint64_t first, uint64_t last);

/* Make the tree as high as `size` octets want.  Lower never fails; nothing is
 * mapped past `size` then.  False without memory, and nothing has changed that
 * anybody can see. */
bool ramtree_set_height(struct ramtree *tree, uint64_t size);

/* Free all. */
void ramtree_clear(struct ramtree *tree);

#endif
