/* SPDX-License-Identifier: ISC */
/*
 * Changing one block of a ramdisk's tree, wholly or in part.
 *
 * A change of a part of a block builds the whole successor outside the locks,
 * from the block that it found, and swaps it in only if that one is still
 * there; otherwise it takes the rest anew from the one that came.  A slot can
 * not look unchanged after a change: the reference that the builder holds keeps
 * the old block's address from being used again.  Each retry means that another
 * writer got through; after a few the rest is copied under the leaf's mutex, so
 * that nobody retries for ever.
 */
#include "backends/ramtree_slot.h"

#include <string.h>

#define RETRIES 4

static void
slot_get(struct block *slot)
{
    if (ramtree_slot_is_real(slot))
        block_get(slot);
}

static void
slot_put(struct block *slot)
{
    if (ramtree_slot_is_real(slot))
        block_put(slot);
}

/* A change of octets [at, at + length) of block `index`, on its way. */
struct alter {
    struct ramtree *tree;
    enum alter_kind kind;
    uint64_t index, at, length;
    struct block *fresh; /* the successor, those octets in it done; NULL: not
                            needed so far */
    struct block *old; /* what the rest of `fresh` is from, with a reference */
    bool seen; /* `old` says something */
    bool no_memory; /* for `fresh` */
    unsigned tries;
};

/* Octets [from, to) of `fresh` from those of `old`. */
static void
take_over(const struct alter *alter, struct block *old, uint64_t from,
          uint64_t to)
{
    uint8_t *data = alter->fresh->data + from;
    if (ramtree_slot_is_real(old))
        memcpy(data, ramtree_slot_data(alter->tree, old, alter->index) + from,
               to - from);
    else
        memset(data, 0, to - from);
}

/* All but those that are altered. */
static void
take_over_rest(const struct alter *alter, struct block *old)
{
    take_over(alter, old, 0, alter->at);
    take_over(alter, old, alter->at + alter->length,
              ramtree_block_octets(alter->tree));
}

enum alter_outcome {
    ALTER_DONE,
    ALTER_AGAIN, /* wants `fresh`, or its rest from the new `old` */
    ALTER_FAILED,
};

/* Try it, under the leaf's mutex.  *drop: what the slot held and is to be put
 * once the mutex is free. */
static enum alter_outcome
alter_slot(struct alter *alter, struct ramtree_leaf *leaf, struct block **drop)
{
    const struct ramtree *tree = alter->tree;
    unsigned slot = ramtree_slot_of(alter->index);
    struct block *now = leaf->slot[slot];
    uint64_t mask, all;
    uint64_t *bits =
        ramtree_bits(tree, leaf, slot, alter->at, alter->length, &mask);
    ramtree_bits(tree, leaf, slot, 0, ramtree_block_octets(tree), &all);
    bool others = (*bits & all & ~mask) != 0;
    struct block *next = now;

    *drop = NULL;
    if (alter->kind == ALTER_WRITE
        || (ramtree_slot_is_real(now) && others && (*bits & mask) != 0)) {
        bool whole = alter->length == ramtree_block_octets(tree);
        if (alter->fresh != NULL) {
            if (!whole && !(alter->seen && now == alter->old)) {
                if (alter->tries <= RETRIES) {
                    slot_get(now);
                    alter->old = now;
                    alter->seen = true;
                    return ALTER_AGAIN;
                }
                take_over_rest(alter, now);
            }
            next = alter->fresh;
            alter->fresh = NULL;
        } else if (!alter->no_memory) {
            return ALTER_AGAIN;
        } else if (ramtree_slot_is_own(tree, now)) {
            memset(ramtree_slot_data(tree, now, alter->index) + alter->at, 0,
                   alter->length);
        } else {
            return ALTER_FAILED;
        }
    } else if (alter->kind == ALTER_ZERO && (now == NULL || !others)) {
        next = &ramtree_zeroes;
    }

    if (alter->kind != ALTER_UNMAP) {
        ramtree_slot_fill(tree, leaf, slot, next, alter->at, alter->length);
    } else if (!others) {
        ramtree_slot_empty(tree, leaf, slot);
        next = NULL;
    } else {
        *bits &= ~mask;
        ramtree_slot_set(tree, leaf, slot, next);
    }
    if (next != now)
        *drop = now;
    return ALTER_DONE;
}

/* Between two tries: provide what the next one wants. */
static void
alter_prepare(struct alter *alter)
{
    if (alter->fresh == NULL) {
        alter->fresh = block_alloc(ramtree_block_octets(alter->tree));
        if (alter->fresh == NULL)
            alter->no_memory = true;
        else
            memset(alter->fresh->data + alter->at, 0, alter->length);
    } else {
        take_over_rest(alter, alter->old);
    }
}

bool
ramtree_alter(struct ramtree *tree, enum alter_kind kind, uint64_t index,
              uint64_t at, uint64_t length, struct block *fresh)
{
    struct alter alter = {.tree = tree,
                          .kind = kind,
                          .index = index,
                          .at = at,
                          .length = length,
                          .fresh = fresh};
    enum alter_outcome outcome;
    bool sweep = false;

    do {
        struct block *drop = NULL, *old = alter.old;
        struct ramtree_stripe *stripe = ramtree_enter(tree);
        struct ramtree_leaf *leaf =
            ramtree_leaf_at(tree, index, kind != ALTER_UNMAP);
        if (leaf != NULL) {
            pthread_mutex_lock(&leaf->mutex);
            outcome = alter_slot(&alter, leaf, &drop);
            sweep = leaf->used == 0;
            pthread_mutex_unlock(&leaf->mutex);
        } else {
            /* What is not there is unmapped; what can not be made fails. */
            outcome = kind == ALTER_UNMAP ? ALTER_DONE : ALTER_FAILED;
            sweep = kind != ALTER_UNMAP;
        }
        ramtree_leave(stripe);

        if (ramtree_slot_is_real(drop))
            ramtree_drop(tree, index, drop);
        slot_put(old);
        if (outcome == ALTER_AGAIN) {
            alter_prepare(&alter);
            alter.tries++;
        }
    } while (outcome == ALTER_AGAIN);
    block_put(alter.fresh);
    if (sweep)
        ramtree_sweep(tree, index, index + 1);
    return outcome == ALTER_DONE;
}
