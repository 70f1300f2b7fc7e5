/* SPDX-License-Identifier: ISC */
/*
 * The children of a node, by name (see index.h).
 */
#ifndef FARBLK_TAR_TREAP_H
#define FARBLK_TAR_TREAP_H

#include "tar/index.h"

/* The one of that name, or NULL. */
struct node *treap_find(struct node *root, const char *name, size_t length);
/* Put a node in whose name is not there yet; returns the new root. */
struct node *treap_insert(struct node *root, struct node *node);
/* Take a node out that is there; returns the new root. */
struct node *treap_remove(struct node *root, const struct node *node);
/* The first one whose name is above `after`, or the first; NULL: none. */
struct node *treap_next(struct node *root, const char *after);

#endif
