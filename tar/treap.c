/* SPDX-License-Identifier: ISC */
/*
 * See treap.h.  Each node's priority is not above its parent's in the treap;
 * its depth is a few times the logarithm of the number of nodes.
 */
#include "tar/treap.h"

#include <string.h>

static int
compare(const char *name, size_t length, const struct node *node)
{
    size_t least = length < node->length ? length : node->length;
    int order = memcmp(name, node->name, least);
    if (order != 0)
        return order;
    return length < node->length ? -1 : length > node->length;
}

struct node *
treap_find(struct node *root, const char *name, size_t length)
{
    while (root != NULL) {
        int order = compare(name, length, root);
        if (order == 0)
            return root;
        root = order < 0 ? root->left : root->right;
    }
    return NULL;
}

struct node *
treap_next(struct node *root, const char *after)
{
    struct node *found = NULL;
    size_t length = after != NULL ? strlen(after) : 0;
    while (root != NULL) {
        if (after == NULL || compare(after, length, root) < 0) {
            found = root;
            root = root->left;
        } else {
            root = root->right;
        }
    }
    return found;
}

/* Cut a treap into those below a name and those above it. */
static void
split(struct node *root, const struct node *at, struct node **below,
      struct node **above)
{
    while (root != NULL) {
        if (compare(at->name, at->length, root) < 0) {
            *above = root;
            above = &root->left;
            root = root->left;
        } else {
            *below = root;
            below = &root->right;
            root = root->right;
        }
    }
    *below = *above = NULL;
}

struct node *
treap_insert(struct node *root, struct node *node)
{
    struct node **link = &root;
    while (*link != NULL && (*link)->priority >= node->priority)
        link = compare(node->name, node->length, *link) < 0 ? &(*link)->left
                                                            : &(*link)->right;
    split(*link, node, &node->left, &node->right);
    *link = node;
    return root;
}

struct node *
treap_remove(struct node *root, const struct node *node)
{
    struct node **link = &root;
    while (*link != node)
        link = compare(node->name, node->length, *link) < 0 ? &(*link)->left
                                                            : &(*link)->right;
    struct node *left = node->left, *right = node->right;
    while (left != NULL && right != NULL) {
        if (left->priority >= right->priority) {
            *link = left;
            link = &left->right;
            left = left->right;
        } else {
            *link = right;
            link = &right->left;
            right = right->left;
        }
    }
    *link = left != NULL ? left : right;
    return root;
}
