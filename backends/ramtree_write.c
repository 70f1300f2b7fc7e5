/* SPDX-License-Identifier: ISC */
/*
 * Writing to a ramdisk's tree.
 *
 * Whole blocks are new ones, filled outside the locks and swapped in by one
 * visit to their leaf; parts of a block are ramtree_alter.c's.
 *
 * A payload that was received into a block of its own needs no copy.  If it is
 * as large as the tree's blocks, it becomes one of them.  If it is larger, a
 * power of two that lies at a multiple of itself, it becomes a chunk: all the
 * slots that it covers refer to it, each for its part, and the address tells
 * which.  So what was written in large requests is also read in long stretches.
 *
 * A chunk stays in memory as long as any of its slots refers to it.  When more
 * than a quarter of them have got something else, it is dissolved: what is left
 * is copied to blocks of the usual size.  So a tree takes at most a third more
 * than it holds, and a block that is replaced costs at most three copies.
 *
 * Where there is no memory for a successor, a block that nobody else sees is
 * changed where it is, under the leaf's mutex: what is mapped can be written
 * again at the limit of memory.
 */
#include "backends/ramtree_slot.h"

#include "core/checked.h"

#include <assert.h>
#include <string.h>

/* Blocks that are filled in one go, for one visit to their leaf. */
#define BATCH 64u
/* The largest chunk: octets, and blocks.  It lies within one leaf. */
#define CHUNK_OCTETS (1u << 20)
#define CHUNK_BLOCKS (CHUNK_OCTETS / RAMTREE_BLOCK_MIN)
_Static_assert(CHUNK_BLOCKS <= RAMTREE_FANOUT, "a chunk lies in one leaf");

/* What is put into some slots that follow each other. */
struct batch {
    struct block *block[CHUNK_BLOCKS];
    unsigned count;
    bool chunk; /* all the same */
};

/* Make the payload the batch; false if it is none, and has to be copied. */
static bool
batch_keep(const struct ramtree *tree, uint64_t index,
           const struct iov_view *data, struct block *payload,
           struct batch *batch)
{
    const uint32_t octets = ramtree_block_octets(tree);
    unsigned none = 0;

    if (payload == NULL || payload->size != data->length
        || iov_first(data).iov_base != payload->data)
        return false;
    if (payload->size == octets) {
        batch->block[0] = block_get(payload);
        batch->count = 1;
        return true;
    }
    if (payload->size < octets || payload->size > CHUNK_OCTETS
        || !is_power_of_two(payload->size)
        || (ramtree_block_start(tree, index) & (payload->size - 1)) != 0)
        return false;
    const unsigned count = payload->size >> tree->block_shift;
    /* Somebody keeps it already: a tree that the same data went to. */
    if (!atomic_compare_exchange_strong(&payload->kept, &none, count))
        return false;
    batch->count = count;
    batch->chunk = true;
    block_get_more(payload, batch->count);
    for (unsigned i = 0; i < batch->count; i++)
        batch->block[i] = payload;
    return true;
}

/* Fill new blocks with up to `most` of what data begins with. */
static void
batch_fill(const struct ramtree *tree, struct iov_view data, unsigned most,
           struct batch *batch)
{
    const uint32_t octets = ramtree_block_octets(tree);

    while (batch->count < most) {
        struct block *fresh = block_alloc(octets);
        if (fresh == NULL)
            break;
        iov_copy_out(&data, fresh->data, octets);
        batch->block[batch->count++] = fresh;
    }
}

/* Swap the batch in, for what was there.  False without memory for the leaf. */
static bool
batch_swap(struct ramtree *tree, uint64_t index, struct batch *batch)
{
    struct ramtree_stripe *stripe = ramtree_enter(tree);
    struct ramtree_leaf *leaf = ramtree_make(tree, index);

    if (leaf != NULL) {
        pthread_mutex_lock(&leaf->mutex);
        for (unsigned i = 0; i < batch->count; i++)
            batch->block[i] = ramtree_slot_fill(
                tree, leaf, ramtree_slot_of(index + i), batch->block[i], 0,
                ramtree_block_octets(tree));
        pthread_mutex_unlock(&leaf->mutex);
    }
    ramtree_leave(stripe);
    return leaf != NULL;
}

/* Write whole blocks that data begins with: at most `most`, of one leaf, unless
 * they are a payload to be kept.  Returns how many, 0 without memory. */
static unsigned
write_blocks(struct ramtree *tree, uint64_t index, struct iov_view *data,
             struct block *payload, unsigned most)
{
    const uint64_t octets = ramtree_block_octets(tree);
    struct batch batch;
    uint64_t whole = min_u64(data->length >> tree->block_shift,
                             RAMTREE_FANOUT - ramtree_slot_of(index));

    batch.count = 0;
    batch.chunk = false;
    if (!batch_keep(tree, index, data, payload, &batch))
        batch_fill(tree, *data, (unsigned)min_u64(whole, most), &batch);
    if (batch.count == 0)
        return 0;
    if (!batch_swap(tree, index, &batch)) {
        if (batch.chunk)
            atomic_store(&payload->kept, 0);
        while (batch.count > 0)
            block_put(batch.block[--batch.count]);
        ramtree_sweep(tree, index, index + 1);
        return 0;
    }
    for (unsigned i = 0; i < batch.count; i++)
        if (ramtree_slot_is_real(batch.block[i]))
            ramtree_drop(tree, index + i, batch.block[i]);
    iov_advance(data, batch.count * octets);
    return batch.count;
}

/* Write a part of one block, or all of it, where it is. */
static bool
write_in_place(struct ramtree *tree, uint64_t index, uint64_t at,
               struct iov_view *data, uint64_t part)
{
    bool fine = false;
    struct ramtree_stripe *stripe = ramtree_enter(tree);
    struct ramtree_leaf *leaf = ramtree_leaf_at(tree, index, false);

    if (leaf != NULL) {
        unsigned slot = ramtree_slot_of(index);
        pthread_mutex_lock(&leaf->mutex);
        struct block *block = leaf->slot[slot];
        fine = ramtree_slot_is_own(tree, block);
        if (fine) {
            iov_copy_out(data, ramtree_slot_data(tree, block, index) + at,
                         part);
            ramtree_slot_fill(tree, leaf, slot, block, at, part);
        }
        pthread_mutex_unlock(&leaf->mutex);
    }
    ramtree_leave(stripe);
    return fine;
}

/* Write a part of one block, or all of it. */
static bool
write_part(struct ramtree *tree, uint64_t index, uint64_t at,
           struct iov_view *data, uint64_t part)
{
    struct block *fresh = block_alloc(ramtree_block_octets(tree));

    if (fresh == NULL)
        return write_in_place(tree, index, at, data, part);
    iov_copy_out(data, fresh->data + at, part);
    return ramtree_alter(tree, ALTER_WRITE, index, at, part, fresh);
}

bool
ramtree_write(struct ramtree *tree, uint64_t offset, struct iov_view data,
              struct block *payload, bool *changed)
{
    const uint64_t octets = ramtree_block_octets(tree);

    assert(range_within(offset, data.length, ramtree_size(tree)));
    *changed = false;
    while (data.length > 0) {
        uint64_t index = offset >> tree->block_shift;
        uint64_t at = offset & (octets - 1);
        uint64_t part = min_u64(data.length, octets - at);
        unsigned count = 0;
        if (part == octets)
            count = write_blocks(tree, index, &data, payload, BATCH);
        if (count > 0)
            part = count * octets;
        /* Many at once may have taken the memory that their leaf wants. */
        else if (!write_part(tree, index, at, &data, part))
            return false;
        *changed = true;
        offset += part;
    }
    return true;
}

/* ------------------------------------------------------------ chunks */

/* Copy what slots still have of a chunk to blocks of their own, as far as there
 * is memory.  That may pass the limit, for the chunk is more and goes then, or
 * when the last of its readers does.  The caller's reference keeps it from being changed meanwhile. */
static void
chunk_dissolve(struct ramtree *tree, uint64_t index, struct block *chunk)
{
    const uint32_t octets = ramtree_block_octets(tree);
    const unsigned count = chunk->size >> tree->block_shift;
    const uint64_t first = round_down(index, count);
    struct block *fresh[CHUNK_BLOCKS] = {NULL};
    unsigned moved = 0;

    struct ramtree_stripe *stripe = ramtree_enter(tree);
    struct ramtree_leaf *leaf = ramtree_leaf_at(tree, first, false);
    if (leaf != NULL) {
        pthread_mutex_lock(&leaf->mutex);
        for (unsigned i = 0; i < count; i++)
            if (leaf->slot[ramtree_slot_of(first + i)] == chunk)
                fresh[i] = chunk; /* wanted */
        pthread_mutex_unlock(&leaf->mutex);
    }
    ramtree_leave(stripe);

    for (unsigned i = 0; i < count; i++) {
        if (fresh[i] == NULL)
            continue;
        fresh[i] = block_alloc_over(octets);
        if (fresh[i] != NULL)
            memcpy(fresh[i]->data, ramtree_slot_data(tree, chunk, first + i),
                   octets);
    }

    stripe = ramtree_enter(tree);
    leaf = ramtree_leaf_at(tree, first, false);
    if (leaf != NULL) {
        pthread_mutex_lock(&leaf->mutex);
        for (unsigned i = 0; i < count; i++) {
            unsigned slot = ramtree_slot_of(first + i);
            if (fresh[i] != NULL && leaf->slot[slot] == chunk) {
                ramtree_slot_set(tree, leaf, slot, fresh[i]);
                fresh[i] = NULL;
                moved++;
            }
        }
        pthread_mutex_unlock(&leaf->mutex);
    }
    ramtree_leave(stripe);
    while (moved-- > 0)
        block_put(chunk);
    for (unsigned i = 0; i < count; i++)
        block_put(fresh[i]);
}

void
ramtree_drop(struct ramtree *tree, uint64_t index, struct block *old)
{
    if (ramtree_is_chunk(tree, old)) {
        unsigned kept = atomic_load_explicit(&old->kept, memory_order_relaxed);
        unsigned all = old->size >> tree->block_shift;
        if (kept > 0 && kept < all - all / 4)
            chunk_dissolve(tree, index, old);
    }
    block_put(old);
}
