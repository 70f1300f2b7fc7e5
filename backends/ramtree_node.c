/* SPDX-License-Identifier: ISC */
/*
 * The nodes of a ramdisk's tree (see ramtree_node.h).
 *
 * Nodes are added by compare-and-swap under a shared stripe, so writers do not
 * wait for each other there.  They are taken away under all stripes: then
 * nobody holds a pointer to a node, and what was unlinked is freed in peace
 * afterwards.  Each thread keeps to one stripe, so that threads do not fight
 * for one cache line to say that they are here.
 *
 * Nodes live in the data of a struct block for the sake of its accounting;
 * their reference count is not used.
 */
#include "backends/ramtree_node.h"

#include <string.h>

struct block ramtree_zeroes;

static struct block *
node_block(struct ramtree_node *node)
{
    return (struct block *)((uint8_t *)node - offsetof(struct block, data));
}

static struct ramtree_leaf *
as_leaf(struct ramtree_node *node)
{
    return (struct ramtree_leaf *)node;
}

static struct ramtree_inner *
as_inner(struct ramtree_node *node)
{
    return (struct ramtree_inner *)node;
}

static struct ramtree_node *
node_new(const struct ramtree *tree, unsigned level)
{
    size_t sectors = (size_t)RAMTREE_FANOUT
                     << (tree->block_shift - tree->sector_shift);
    size_t size = level > 0 ? sizeof(struct ramtree_inner)
                            : sizeof(struct ramtree_leaf) + sectors / 8;
    struct block *block = block_alloc((uint32_t)size);
    if (block == NULL)
        return NULL;
    memset(block->data, 0, size);
    struct ramtree_node *node = (struct ramtree_node *)block->data;
    node->level = level;
    if (level == 0 && pthread_mutex_init(&as_leaf(node)->mutex, NULL) != 0) {
        block_put(block);
        return NULL;
    }
    return node;
}

/* The node alone. */
static void
node_free(struct ramtree_node *node)
{
    if (node->level == 0)
        pthread_mutex_destroy(&as_leaf(node)->mutex);
    block_put(node_block(node));
}

/* The node with all that hangs on it. */
static void
node_free_all(struct ramtree_node *node)
{
    if (node->level == 0) {
        struct ramtree_leaf *leaf = as_leaf(node);
        for (unsigned i = 0; i < RAMTREE_FANOUT; i++) {
            if (ramtree_slot_is_real(leaf->slot[i]))
                block_put(leaf->slot[i]);
        }
    } else {
        struct ramtree_inner *inner = as_inner(node);
        for (unsigned i = 0; i < RAMTREE_FANOUT; i++) {
            struct ramtree_node *child =
                atomic_load_explicit(&inner->child[i], memory_order_relaxed);
            if (child != NULL)
                node_free_all(child);
        }
    }
    node_free(node);
}

/* The one that this thread takes. */
static struct ramtree_stripe *
ramtree_stripe_mine(struct ramtree *tree)
{
    static atomic_uint threads;
    static _Thread_local unsigned mine
        __attribute__((tls_model("initial-exec")));

    if (mine == 0)
        mine = 1
               + atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed)
                     % RAMTREE_STRIPES;
    return &tree->stripe[mine - 1];
}

struct ramtree_stripe *
ramtree_enter(struct ramtree *tree)
{
    struct ramtree_stripe *stripe = ramtree_stripe_mine(tree);
    pthread_rwlock_rdlock(&stripe->lock);
    return stripe;
}

struct ramtree_stripe *
ramtree_try_enter(struct ramtree *tree)
{
    struct ramtree_stripe *stripe = ramtree_stripe_mine(tree);
    return pthread_rwlock_tryrdlock(&stripe->lock) == 0 ? stripe : NULL;
}

void
ramtree_leave(struct ramtree_stripe *stripe)
{
    pthread_rwlock_unlock(&stripe->lock);
}

void
ramtree_enter_alone(struct ramtree *tree)
{
    for (unsigned i = 0; i < RAMTREE_STRIPES; i++)
        pthread_rwlock_wrlock(&tree->stripe[i].lock);
}

void
ramtree_leave_alone(struct ramtree *tree)
{
    for (unsigned i = RAMTREE_STRIPES; i > 0; i--)
        pthread_rwlock_unlock(&tree->stripe[i - 1].lock);
}

/* How many blocks a child of a node of `level` covers, as a shift. */
static unsigned
child_shift(unsigned level)
{
    return level * RAMTREE_FANOUT_SHIFT;
}

static struct ramtree_leaf *
find_in(struct ramtree_node *node, uint64_t start, uint64_t index,
        uint64_t *base)
{
    if (node->level == 0) {
        *base = start;
        return as_leaf(node);
    }
    unsigned shift = child_shift(node->level);
    uint64_t i = index > start ? (index - start) >> shift : 0;
    for (; i < RAMTREE_FANOUT; i++) {
        struct ramtree_node *child = atomic_load_explicit(
            &as_inner(node)->child[i], memory_order_acquire);
        if (child == NULL)
            continue;
        struct ramtree_leaf *leaf =
            find_in(child, start + (i << shift), index, base);
        if (leaf != NULL)
            return leaf;
    }
    return NULL;
}

struct ramtree_leaf *
ramtree_find(struct ramtree *tree, uint64_t index, uint64_t *base)
{
    struct ramtree_node *root =
        atomic_load_explicit(&tree->root, memory_order_acquire);
    if (root == NULL || index >> child_shift(root->level + 1) != 0)
        return NULL;
    return find_in(root, 0, index, base);
}

struct ramtree_leaf *
ramtree_make(struct ramtree *tree, uint64_t index)
{
    _Atomic(struct ramtree_node *) *place = &tree->root;
    for (unsigned level = tree->height;; level--) {
        struct ramtree_node *node =
            atomic_load_explicit(place, memory_order_acquire);
        if (node == NULL) {
            struct ramtree_node *fresh = node_new(tree, level);
            if (fresh == NULL)
                return NULL;
            /* Acquire on failure: another's node is used at once. */
            if (atomic_compare_exchange_strong_explicit(place, &node, fresh,
                                                        memory_order_release,
                                                        memory_order_acquire))
                node = fresh;
            else
                node_free(fresh);
        }
        if (level == 0)
            return as_leaf(node);
        place =
            &as_inner(node)
                 ->child[(index >> child_shift(level)) & (RAMTREE_FANOUT - 1)];
    }
}

struct ramtree_leaf *
ramtree_leaf_at(struct ramtree *tree, uint64_t index, bool make)
{
    uint64_t base;
    if (make)
        return ramtree_make(tree, index);
    struct ramtree_leaf *leaf = ramtree_find(tree, index, &base);
    return leaf != NULL && base <= index ? leaf : NULL;
}

/* Unlink what is to go from *place, a node whose first block is `start`, and
 * below.  True when nothing is left there.  Alone. */
static bool
sweep(_Atomic(struct ramtree_node *) *place, uint64_t start, uint64_t first,
      uint64_t last, struct ramtree_node **gone)
{
    struct ramtree_node *node =
        atomic_load_explicit(place, memory_order_relaxed);
    if (node == NULL)
        return true;
    unsigned shift = child_shift(node->level);
    uint64_t end = start + ((uint64_t)RAMTREE_FANOUT << shift);
    bool empty = true;
    if (first <= start && end <= last) {
        /* With all that hangs on it. */
    } else if (node->level == 0) {
        empty = as_leaf(node)->used == 0;
    } else {
        struct ramtree_inner *inner = as_inner(node);
        for (uint64_t i = 0; i < RAMTREE_FANOUT; i++) {
            uint64_t child = start + (i << shift);
            if (child < last && first < child + ((uint64_t)1 << shift)) {
                if (!sweep(&inner->child[i], child, first, last, gone))
                    empty = false;
            } else if (atomic_load_explicit(&inner->child[i],
                                            memory_order_relaxed)
                       != NULL) {
                empty = false;
            }
        }
    }
    if (empty) {
        atomic_store_explicit(place, NULL, memory_order_relaxed);
        node->next = *gone;
        *gone = node;
    }
    return empty;
}

void
ramtree_sweep(struct ramtree *tree, uint64_t first, uint64_t last)
{
    struct ramtree_node *gone = NULL;

    ramtree_enter_alone(tree);
    sweep(&tree->root, 0, first, last, &gone);
    ramtree_leave_alone(tree);
    while (gone != NULL) {
        struct ramtree_node *node = gone;
        gone = node->next;
        node_free_all(node);
    }
}

bool
ramtree_set_height(struct ramtree *tree, uint64_t size)
{
    uint64_t last = size > 0 ? (size - 1) >> tree->block_shift : 0;
    unsigned height = 0;
    struct ramtree_node *gone = NULL;
    bool fine = true;

    while (last >> child_shift(height + 1) != 0)
        height++;

    ramtree_enter_alone(tree);
    struct ramtree_node *root =
        atomic_load_explicit(&tree->root, memory_order_relaxed);
    if (root == NULL)
        tree->height = height;
    while (tree->height < height) {
        struct ramtree_node *above = node_new(tree, tree->height + 1);
        if (above == NULL) {
            fine = false;
            break;
        }
        atomic_store_explicit(&as_inner(above)->child[0], root,
                              memory_order_relaxed);
        root = above;
        tree->height++;
    }
    while (tree->height > height && fine) {
        struct ramtree_node *above = root;
        root = atomic_load_explicit(&as_inner(above)->child[0],
                                    memory_order_relaxed);
        above->next = gone;
        gone = above;
        tree->height--;
        if (root == NULL)
            tree->height = height;
    }
    atomic_store_explicit(&tree->root, root, memory_order_release);
    ramtree_leave_alone(tree);

    while (gone != NULL) {
        struct ramtree_node *node = gone;
        gone = node->next;
        node_free(node);
    }
    return fine;
}

void
ramtree_clear(struct ramtree *tree)
{
    struct ramtree_node *root =
        atomic_load_explicit(&tree->root, memory_order_acquire);
    if (root != NULL)
        node_free_all(root);
    atomic_store_explicit(&tree->root, NULL, memory_order_relaxed);
}
