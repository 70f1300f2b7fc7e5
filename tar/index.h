/* SPDX-License-Identifier: ISC */
/*
 * What an archive holds, in memory: its members in their order, and a tree of
 * keys that leads to those that count.
 *
 * A node is one component of a key.  The children of a node are a treap, a
 * search tree by name that random priorities keep shallow: whatever names an
 * archive has, to find one takes few steps.
 *
 * Memory is counted, and limited.  No locks: the archive's (archive.h).
 */
#ifndef FARBLK_TAR_INDEX_H
#define FARBLK_TAR_INDEX_H

#include "tar/scan.h"

/* User and group, shared by neighbours that have the same. */
struct owner {
    unsigned users;
    char user[64];
    char group[64];
};

struct member {
    uint64_t position, header, data, end; /* octets of the device */
    uint64_t size, stored;
    struct run *runs; /* of a sparse one; owned */
    size_t run_count;
    int64_t mtime;
    uint32_t mtime_nsec;
    uint32_t mode;
    uint64_t uid, gid;
    uint32_t device_major, device_minor;
    struct owner *owner;
    char *link; /* as it stands in the archive, NULL for none; owned */
    struct member *named; /* hard link: what it names, */
    struct member *target; /* and at the end of the chain, who has the data;
                              never a hard link itself */
    struct node *node; /* NULL: no key leads here */
    char *old_key; /* then, the one that did; owned */
    unsigned links; /* hard links that name this one */
    unsigned pins; /* readers of its data */
    uint8_t kind; /* enum farblk_tar_kind */
    char type;
    bool hard_link, sparse;
    bool in_the_way; /* it took the place of another */
};

struct node {
    struct node *parent; /* NULL: the root, or not attached */
    struct node *left, *right; /* siblings */
    struct node *children;
    struct node *next; /* in a list of nodes that go */
    struct member *member; /* NULL: an implied directory */
    uint32_t priority;
    bool contested; /* a member that was here, or below, gave way */
    uint32_t length;
    char *name; /* in the same memory, behind the node; and a zero */
};

struct index {
    struct member **members; /* in the archive's order */
    size_t count, room;
    struct node root;
    uint64_t memory, max_memory; /* octets */
    uint32_t max_key;
    uint64_t random;
    size_t lost; /* hard links to nothing */
};

void index_init(struct index *index, uint64_t max_memory, uint32_t max_key);
void index_fini(struct index *index);

/* Take in the next member of the archive; what it leaves in *headers is the
 * caller's to fini. */
int index_add(struct index *index, struct headers *headers,
              struct error *error);

/*
 * The node of a key.  0: *node is it; NOT_FOUND; NOT_A_DIRECTORY: it leads
 * through something that is none; INVALID: longer than max_key.
 */
int index_find(const struct index *index, const char *key, struct node **node,
               struct error *error);

bool node_is_directory(const struct node *node);
/* The first child whose name is above `after` (NULL: the first of all). */
struct node *node_next(const struct node *directory, const char *after);
/* "/a/b", allocated, not counted; NULL without memory. */
char *node_key(const struct node *node);

/*
 * A new key in two steps, so that nothing can fail in the second: prepare
 * finds its place and makes its nodes, attach hangs them in and a member to
 * the last, drop throws them away.
 */
struct growth {
    struct node *directory; /* that exists */
    struct node *top; /* the first new node below */
    struct node *leaf; /* the last */
};
/* EXISTS, NOT_A_DIRECTORY, INVALID, NO_SPACE. */
int index_prepare(struct index *index, const char *key, struct growth *growth,
                  struct error *error);
void index_attach(struct index *index, struct growth *growth,
                  struct member *member);
void index_drop(struct index *index, struct growth *growth);

/* A member for index_append(), not yet in the index. */
struct member *index_member(struct index *index, struct headers *headers,
                            struct error *error);
/* Room for one more; then index_append() can not fail. */
int index_reserve(struct index *index, struct error *error);
void index_append(struct index *index, struct member *member);
void index_member_free(struct index *index, struct member *member);

/* Take the member of a node away; implied directories that become empty go. */
void index_detach(struct index *index, struct node *node);
/* Take the last member out of the order.  The caller frees it. */
struct member *index_pop(struct index *index);

/* ------------------------------------------------------------ its insides */

/* Counted memory; NO_SPACE beyond the limit. */
int index_alloc(struct index *index, size_t size, void **memory,
                struct error *error);
void index_free(struct index *index, void *memory, size_t size);
/* The next component of a key, "." and empty ones left out; false: no more. */
bool key_next(const char **at, const char **component, size_t *length);
/* A new node, not attached. */
int node_create(struct index *index, const char *name, size_t length,
                struct node **node, struct error *error);
void node_attach(struct index *index, struct node *parent, struct node *node);
void node_free(struct index *index, struct node *node);

#endif
