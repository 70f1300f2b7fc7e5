/* SPDX-License-Identifier: ISC */
/*
 * The content of a ramdisk (see ramtree.h): reads, zeroing and the search for
 * what is mapped, on the leaves that ramtree_node.c finds.
 */
#include "backends/ramtree_slot.h"

#include "core/checked.h"

#include <assert.h>
#include <string.h>

bool
ramtree_init(struct ramtree *tree, uint64_t size, uint32_t sector_size)
{
    pthread_rwlockattr_t attr;
    unsigned made = 0;

    assert(is_power_of_two(sector_size) && size <= INT64_MAX);
    memset(tree, 0, sizeof(*tree));
    tree->sector_shift = (unsigned)__builtin_ctz(sector_size);
    tree->block_shift = (unsigned)__builtin_ctz(
        sector_size > RAMTREE_BLOCK_MIN ? sector_size : RAMTREE_BLOCK_MIN);
    atomic_init(&tree->root, NULL);
    atomic_init(&tree->size, size);

    if (pthread_rwlockattr_init(&attr) != 0)
        return false;
    /* Else a stream of reads could keep out a discard for ever. */
    pthread_rwlockattr_setkind_np(&attr,
                                  PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    while (made < RAMTREE_STRIPES
           && pthread_rwlock_init(&tree->stripe[made].lock, &attr) == 0)
        made++;
    pthread_rwlockattr_destroy(&attr);
    /* An empty tree gets its height without memory. */
    if (made == RAMTREE_STRIPES)
        return ramtree_set_height(tree, size);
    while (made > 0)
        pthread_rwlock_destroy(&tree->stripe[--made].lock);
    return false;
}

void
ramtree_fini(struct ramtree *tree)
{
    ramtree_clear(tree);
    for (unsigned i = 0; i < RAMTREE_STRIPES; i++)
        pthread_rwlock_destroy(&tree->stripe[i].lock);
}

uint64_t
ramtree_size(const struct ramtree *tree)
{
    return atomic_load_explicit(&tree->size, memory_order_relaxed);
}

uint32_t
ramtree_sector_size(const struct ramtree *tree)
{
    return (uint32_t)1 << tree->sector_shift;
}

uint32_t
ramtree_block_size(const struct ramtree *tree)
{
    return ramtree_block_octets(tree);
}

#define FORESEEN_LINES 8u
#define LINE 64u

/* The block is mostly in nobody's cache, neither the line that counts its
 * references nor its data, of which the rest follows by itself. */
void
ramtree_foresee(struct ramtree *tree, uint64_t offset)
{
    uint64_t index = offset >> tree->block_shift, base;
    if (offset >= ramtree_size(tree))
        return;
    struct ramtree_stripe *stripe = ramtree_try_enter(tree);
    if (stripe == NULL)
        return;
    struct ramtree_leaf *leaf =
        offset < ramtree_size(tree) ? ramtree_find(tree, index, &base) : NULL;
    if (leaf != NULL && base <= index
        && pthread_mutex_trylock(&leaf->mutex) == 0) {
        struct block *block = leaf->slot[index - base];
        if (ramtree_slot_is_real(block)) {
            const uint32_t octets = ramtree_block_octets(tree);
            const uint8_t *data = ramtree_slot_data(tree, block, index);
            uint32_t at = (uint32_t)(offset & (octets - 1));
            __builtin_prefetch(block, 1);
            for (unsigned i = 0; i < FORESEEN_LINES && at < octets; i++) {
                __builtin_prefetch(data + at);
                at += LINE;
            }
        }
        pthread_mutex_unlock(&leaf->mutex);
    }
    ramtree_leave(stripe);
}

size_t
ramtree_get(struct ramtree *tree, uint64_t offset, uint64_t length,
            struct ramtree_piece *piece, size_t max)
{
    uint64_t index = offset >> tree->block_shift;
    uint64_t at = offset & (ramtree_block_octets(tree) - 1);
    uint64_t base;
    size_t count = 0;

    assert(range_within(offset, length, ramtree_size(tree)));
    if (length == 0 || max == 0)
        return 0;

    struct ramtree_stripe *stripe = ramtree_enter(tree);
    struct ramtree_leaf *leaf = ramtree_find(tree, index, &base);
    if (leaf == NULL || base > index) {
        if (leaf != NULL)
            length = min_u64(length, ramtree_block_start(tree, base) - offset);
        piece[0] = (struct ramtree_piece){NULL, NULL, length};
        ramtree_leave(stripe);
        return 1;
    }
    pthread_mutex_lock(&leaf->mutex);
    for (uint64_t slot = index - base; slot < RAMTREE_FANOUT && length > 0;
         slot++) {
        struct block *block = leaf->slot[slot];
        uint64_t part = min_u64(length, ramtree_block_octets(tree) - at);
        const uint8_t *data =
            ramtree_slot_is_real(block)
                ? ramtree_slot_data(tree, block, base + slot) + at
                : NULL;
        if (data != NULL && count > 0 && piece[count - 1].block == block
            && piece[count - 1].data + piece[count - 1].length == data) {
            piece[count - 1].length += part; /* of one chunk */
        } else if (data != NULL) {
            if (count == max)
                break;
            piece[count++] =
                (struct ramtree_piece){block_get(block), data, part};
        } else if (count > 0 && piece[count - 1].block == NULL) {
            piece[count - 1].length += part;
        } else {
            if (count == max)
                break;
            piece[count++] = (struct ramtree_piece){NULL, NULL, part};
        }
        length -= part;
        at = 0;
    }
    pthread_mutex_unlock(&leaf->mutex);
    ramtree_leave(stripe);
    return count;
}

/* Empty the slots of blocks [first, last), all of one leaf, or fill them with
 * zeroes.  *used: what the leaf has afterwards.  False: no memory for it. */
static bool
set_slots(struct ramtree *tree, uint64_t first, uint64_t last, bool mapped,
          unsigned *used)
{
    struct block *drop[RAMTREE_FANOUT];
    size_t drops = 0;

    struct ramtree_stripe *stripe = ramtree_enter(tree);
    struct ramtree_leaf *leaf = ramtree_leaf_at(tree, first, mapped);
    if (leaf == NULL) {
        ramtree_leave(stripe);
        *used = 0;
        return !mapped;
    }
    pthread_mutex_lock(&leaf->mutex);
    for (uint64_t index = first; index < last; index++) {
        unsigned slot = ramtree_slot_of(index);
        struct block *old =
            mapped ? ramtree_slot_fill(tree, leaf, slot, &ramtree_zeroes, 0,
                                       ramtree_block_octets(tree))
                   : ramtree_slot_empty(tree, leaf, slot);
        drop[index - first] = ramtree_slot_is_real(old) ? old : NULL;
        drops += ramtree_slot_is_real(old);
    }
    *used = leaf->used;
    pthread_mutex_unlock(&leaf->mutex);
    ramtree_leave(stripe);
    for (uint64_t index = first; drops > 0; index++)
        if (drop[index - first] != NULL) {
            ramtree_drop(tree, index, drop[index - first]);
            drops--;
        }
    return true;
}

static bool
map_zeroes(struct ramtree *tree, uint64_t first, uint64_t last, bool *changed)
{
    while (first < last) {
        uint64_t end =
            min_u64(last, round_down(first, RAMTREE_FANOUT) + RAMTREE_FANOUT);
        unsigned used;
        if (!set_slots(tree, first, end, true, &used)) {
            ramtree_sweep(tree, first, first + 1);
            return false;
        }
        *changed = true;
        first = end;
    }
    return true;
}

/* Whether there is any leaf, maybe an empty one, for blocks [first, last). */
static bool
anything_in(struct ramtree *tree, uint64_t first, uint64_t last)
{
    uint64_t base;
    struct ramtree_stripe *stripe = ramtree_enter(tree);
    struct ramtree_leaf *leaf = ramtree_find(tree, first, &base);
    bool any = leaf != NULL && base < last;
    ramtree_leave(stripe);
    return any;
}

/* Whole leaves are unlinked with all their blocks; of those at the ends the
 * slots are emptied. */
static void
unmap(struct ramtree *tree, uint64_t first, uint64_t last)
{
    uint64_t inner_first = round_up(first, RAMTREE_FANOUT);
    uint64_t inner_last = round_down(last, RAMTREE_FANOUT);
    bool sweep = inner_first < inner_last;
    unsigned used;

    if (first >= last)
        return;
    if (first < inner_first) {
        set_slots(tree, first, min_u64(inner_first, last), false, &used);
        sweep |= used == 0;
    }
    if (inner_last < last && inner_last >= inner_first) {
        set_slots(tree, inner_last, last, false, &used);
        sweep |= used == 0;
    }
    if (sweep && anything_in(tree, first, last))
        ramtree_sweep(tree, first, last);
}

bool
ramtree_zero(struct ramtree *tree, uint64_t offset, uint64_t length,
             bool mapped, bool *changed)
{
    enum alter_kind kind = mapped ? ALTER_ZERO : ALTER_UNMAP;
    uint64_t in_block = ramtree_block_octets(tree) - 1;
    uint64_t end = offset + length;
    uint64_t first = offset >> tree->block_shift;
    uint64_t last = end >> tree->block_shift;

    assert(range_within(offset, length, ramtree_size(tree)));
    *changed = false;
    if (length == 0)
        return true;
    if (first == last) {
        return ramtree_alter(tree, kind, first, offset & in_block, length,
                             NULL);
    }
    if ((offset & in_block) != 0) {
        uint64_t at = offset & in_block;
        if (!ramtree_alter(tree, kind, first, at,
                           ramtree_block_octets(tree) - at, NULL))
            return false;
        *changed = true;
        first++;
    }
    if ((end & in_block) != 0) {
        if (!ramtree_alter(tree, kind, last, 0, end & in_block, NULL))
            return false;
        *changed = true;
    }
    if (mapped)
        return map_zeroes(tree, first, last, changed);
    unmap(tree, first, last);
    *changed = true;
    return true;
}

/* The first bit from `bit` on, below `count`, that is not `kind`; else
 * `count`, a multiple of 64. */
static unsigned
run_of_bits(const uint64_t *words, unsigned bit, unsigned count, bool kind)
{
    while (bit < count) {
        uint64_t other = kind ? ~words[bit / 64] : words[bit / 64];
        other >>= bit % 64;
        if (other != 0)
            return bit + (unsigned)__builtin_ctzll(other);
        bit = (bit | 63) + 1;
    }
    return count;
}

uint64_t
ramtree_run(struct ramtree *tree, uint64_t offset, uint64_t end, bool *mapped)
{
    unsigned count = RAMTREE_FANOUT << (tree->block_shift - tree->sector_shift);
    bool known = false;

    assert(offset < end && end <= ramtree_size(tree));
    while (offset < end) {
        uint64_t index = offset >> tree->block_shift;
        uint64_t base;
        struct ramtree_stripe *stripe = ramtree_enter(tree);
        struct ramtree_leaf *leaf = ramtree_find(tree, index, &base);
        if (leaf == NULL || base > index) {
            ramtree_leave(stripe);
            if (known && *mapped)
                break;
            *mapped = false;
            known = true;
            if (leaf == NULL)
                return end;
            offset = ramtree_block_start(tree, base);
            continue;
        }
        uint64_t start = ramtree_block_start(tree, base);
        unsigned bit = (unsigned)((offset - start) >> tree->sector_shift);
        pthread_mutex_lock(&leaf->mutex);
        if (!known)
            *mapped = leaf->mapped[bit / 64] >> (bit % 64) & 1;
        known = true;
        unsigned stop = run_of_bits(leaf->mapped, bit, count, *mapped);
        pthread_mutex_unlock(&leaf->mutex);
        ramtree_leave(stripe);
        offset = start + ((uint64_t)stop << tree->sector_shift);
        if (stop < count)
            break;
    }
    return min_u64(offset, end);
}

bool
ramtree_resize(struct ramtree *tree, uint64_t size)
{
    uint64_t old = ramtree_size(tree);
    bool changed;

    if (size < old) {
        /* First what may fail: the block that the new end lies in. */
        uint64_t tail = min_u64(
            old - size, -size & (uint64_t)(ramtree_block_octets(tree) - 1));
        if (!ramtree_zero(tree, size, tail, false, &changed))
            return false;
        ramtree_zero(tree, size + tail, old - size - tail, false, &changed);
    }
    if (!ramtree_set_height(tree, size))
        return false;
    atomic_store_explicit(&tree->size, size, memory_order_relaxed);
    return true;
}
