/* SPDX-License-Identifier: ISC */
/*
 * Keys and the tree of nodes (see index.h).
 */
#include "tar/index.h"

#include "core/checked.h"
#include "tar/treap.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* What malloc itself takes for each. */
#define MALLOC_COST 16u

int
index_alloc(struct index *index, size_t size, void **memory,
            struct error *error)
{
    *memory = NULL;
    if (!range_within(index->memory, size + MALLOC_COST, index->max_memory))
        return error_set(error, FARBLK_NO_SPACE,
                         "the index takes more than %llu octets of memory "
                         "(max_memory)",
                         (unsigned long long)index->max_memory);
    *memory = malloc(size);
    if (*memory == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for the index");
    index->memory += size + MALLOC_COST;
    return 0;
}

void
index_free(struct index *index, void *memory, size_t size)
{
    if (memory != NULL)
        index->memory -= size + MALLOC_COST;
    free(memory);
}

void
index_init(struct index *index, uint64_t max_memory, uint32_t max_key)
{
    memset(index, 0, sizeof *index);
    index->max_memory = max_memory;
    index->max_key = max_key;
    if (getrandom(&index->random, sizeof index->random, GRND_NONBLOCK)
        != (ssize_t)sizeof index->random)
        index->random = (uintptr_t)index;
}

/* splitmix64 */
static uint32_t
next_priority(struct index *index)
{
    uint64_t z = index->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(z ^ z >> 31);
}

/* ------------------------------------------------------------ keys */

bool
key_next(const char **at, const char **component, size_t *length)
{
    do {
        *at += strspn(*at, "/");
        *component = *at;
        *length = strcspn(*at, "/");
        *at += *length;
    } while (*length == 1 && (*component)[0] == '.');
    return *length > 0;
}

static int
check_length(const struct index *index, const char *key, struct error *error)
{
    const char *component;
    size_t length, sum = 0;
    for (const char *at = key; key_next(&at, &component, &length);)
        sum += 1 + length;
    if (sum > index->max_key)
        return error_set(error, FARBLK_INVALID,
                         "a key of %zu octets is longer than %u (max_key)", sum,
                         index->max_key);
    return 0;
}

bool
node_is_directory(const struct node *node)
{
    return node->member == NULL || node->member->kind == FARBLK_TAR_DIRECTORY;
}

static int
through_a_value(const struct node *node, const char *key, struct error *error)
{
    return error_set(error, FARBLK_NOT_A_DIRECTORY,
                     "\"%.200s\" leads through \"%.100s\", which is no "
                     "directory",
                     key, node->name);
}

/* As far as the key leads: *node is the last that exists, *at the rest of the
 * key, its next component before it. */
static int
follow(const struct index *index, const char *key, struct node **node,
       const char **at, struct error *error)
{
    const char *component;
    size_t length;
    int status = check_length(index, key, error);
    *node = (struct node *)(uintptr_t)&index->root;
    *at = key;
    while (status == 0) {
        const char *before = *at;
        if (!key_next(at, &component, &length))
            return 0;
        if (!node_is_directory(*node))
            return through_a_value(*node, key, error);
        struct node *child = treap_find((*node)->children, component, length);
        if (child == NULL) {
            *at = before;
            return 0;
        }
        *node = child;
    }
    return status;
}

int
index_find(const struct index *index, const char *key, struct node **node,
           struct error *error)
{
    const char *at;
    int status = follow(index, key, node, &at, error);
    if (status == 0 && *at != '\0')
        return error_set(error, FARBLK_NOT_FOUND, "there is no \"%.300s\"",
                         key);
    return status;
}

struct node *
node_next(const struct node *directory, const char *after)
{
    return treap_next(directory->children, after);
}

char *
node_key(const struct node *node)
{
    size_t length = 0;
    for (const struct node *n = node; n->parent != NULL; n = n->parent)
        length += 1 + n->length;
    if (length == 0)
        return strdup("/");
    char *key = malloc(length + 1);
    if (key == NULL)
        return NULL;
    key[length] = '\0';
    for (const struct node *n = node; n->parent != NULL; n = n->parent) {
        length -= n->length;
        memcpy(key + length, n->name, n->length);
        key[--length] = '/';
    }
    return key;
}

/* ------------------------------------------------------------ nodes */

int
node_create(struct index *index, const char *name, size_t length,
            struct node **node, struct error *error)
{
    void *memory;
    int status = index_alloc(index, sizeof **node + length + 1, &memory, error);
    *node = memory;
    if (status != 0)
        return status;
    memset(*node, 0, sizeof **node);
    (*node)->length = (uint32_t)length;
    (*node)->name = (char *)(*node + 1);
    (*node)->priority = next_priority(index);
    memcpy((*node)->name, name, length);
    (*node)->name[length] = '\0';
    return 0;
}

void
node_attach(struct index *index, struct node *parent, struct node *node)
{
    (void)index;
    node->parent = parent;
    parent->children = treap_insert(parent->children, node);
}

void
node_free(struct index *index, struct node *node)
{
    index_free(index, node, sizeof *node + node->length + 1);
}

int
index_prepare(struct index *index, const char *key, struct growth *growth,
              struct error *error)
{
    const char *at, *component;
    size_t length;
    struct node *node;
    memset(growth, 0, sizeof *growth);
    for (at = key; key_next(&at, &component, &length);)
        if (length == 2 && memcmp(component, "..", 2) == 0)
            return error_set(error, FARBLK_INVALID,
                             "\"%.300s\" has \"..\" in it, which no new key "
                             "may",
                             key);
    int status = follow(index, key, &growth->directory, &at, error);
    if (status != 0)
        return status;
    if (*at == '\0')
        return error_set(error, FARBLK_EXISTS, "\"%.300s\" exists", key);
    if (!node_is_directory(growth->directory))
        return through_a_value(growth->directory, key, error);
    while (key_next(&at, &component, &length)) {
        status = node_create(index, component, length, &node, error);
        if (status != 0) {
            index_drop(index, growth);
            return status;
        }
        if (growth->leaf != NULL)
            node_attach(index, growth->leaf, node);
        else
            growth->top = node;
        growth->leaf = node;
    }
    return 0;
}

void
index_attach(struct index *index, struct growth *growth, struct member *member)
{
    node_attach(index, growth->directory, growth->top);
    growth->leaf->member = member;
    member->node = growth->leaf;
}

void
index_drop(struct index *index, struct growth *growth)
{
    while (growth->leaf != NULL) {
        struct node *parent = growth->leaf->parent;
        node_free(index, growth->leaf);
        growth->leaf = parent;
    }
}

void
index_detach(struct index *index, struct node *node)
{
    node->member = NULL;
    while (node->parent != NULL && node->member == NULL
           && node->children == NULL) {
        struct node *parent = node->parent;
        parent->children = treap_remove(parent->children, node);
        node_free(index, node);
        node = parent;
    }
}
