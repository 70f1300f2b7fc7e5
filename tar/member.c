/* SPDX-License-Identifier: ISC */
/*
 * Members (see index.h): from headers, into their place, and out of the way of
 * later ones.
 */
#include "tar/index.h"

#include "tar/treap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------ life */

/* As counted memory; *to stays NULL when there is no text. */
static int
keep_text(struct index *index, const char *text, char **to, struct error *error)
{
    void *memory;
    size_t size = strlen(text) + 1;
    int status = index_alloc(index, size, &memory, error);
    if (status == 0)
        *to = memcpy(memory, text, size);
    return status;
}

static int
keep_owner(struct index *index, const struct farblk_tar_stat *stat,
           struct member *member, struct error *error)
{
    struct owner *last =
        index->count > 0 ? index->members[index->count - 1]->owner : NULL;
    void *memory;
    if (last == NULL || strcmp(last->user, stat->user) != 0
        || strcmp(last->group, stat->group) != 0) {
        int status = index_alloc(index, sizeof *last, &memory, error);
        if (status != 0)
            return status;
        last = memory;
        last->users = 0;
        memcpy(last->user, stat->user, sizeof last->user);
        memcpy(last->group, stat->group, sizeof last->group);
    }
    last->users++;
    member->owner = last;
    return 0;
}

static int
keep_runs(struct index *index, const struct runs *runs, struct member *member,
          struct error *error)
{
    void *memory;
    if (runs->count == 0)
        return 0;
    size_t size = runs->count * sizeof *runs->array;
    int status = index_alloc(index, size, &memory, error);
    if (status == 0) {
        member->runs = memcpy(memory, runs->array, size);
        member->run_count = runs->count;
    }
    return status;
}

struct member *
index_member(struct index *index, struct headers *headers, struct error *error)
{
    const struct farblk_tar_stat *stat = &headers->stat;
    struct member *member;
    void *memory;
    if (index_alloc(index, sizeof *member, &memory, error) != 0)
        return NULL;
    member = memory;
    *member = (struct member){
        .position = headers->position,
        .header = headers->header,
        .data = headers->data,
        .end = headers->end,
        .size = stat->size,
        .stored = stat->stored,
        .mtime = stat->mtime,
        .mtime_nsec = stat->mtime_nsec,
        .mode = stat->mode,
        .uid = stat->uid,
        .gid = stat->gid,
        .device_major = stat->device_major,
        .device_minor = stat->device_minor,
        .kind = (uint8_t)stat->kind,
        .type = stat->type,
        .hard_link = stat->hard_link,
        .sparse = stat->sparse,
    };
    if (keep_owner(index, stat, member, error) != 0
        || keep_runs(index, &headers->runs, member, error) != 0
        || (headers->link != NULL
            && keep_text(index, headers->link, &member->link, error) != 0)) {
        index_member_free(index, member);
        return NULL;
    }
    return member;
}

void
index_member_free(struct index *index, struct member *member)
{
    if (member == NULL)
        return;
    if (member->owner != NULL && --member->owner->users == 0)
        index_free(index, member->owner, sizeof *member->owner);
    if (member->runs != NULL)
        index_free(index, member->runs,
                   member->run_count * sizeof *member->runs);
    if (member->link != NULL)
        index_free(index, member->link, strlen(member->link) + 1);
    if (member->old_key != NULL)
        index_free(index, member->old_key, strlen(member->old_key) + 1);
    index_free(index, member, sizeof *member);
}

int
index_reserve(struct index *index, struct error *error)
{
    void *memory;
    if (index->count < index->room)
        return 0;
    size_t room = index->room > 0 ? 2 * index->room : 64;
    int status =
        index_alloc(index, room * sizeof(struct member *), &memory, error);
    if (status != 0)
        return status;
    if (index->count > 0)
        memcpy(memory, index->members, index->count * sizeof(struct member *));
    index_free(index, index->members, index->room * sizeof(struct member *));
    index->members = memory;
    index->room = room;
    return 0;
}

void
index_append(struct index *index, struct member *member)
{
    index->members[index->count++] = member;
}

struct member *
index_pop(struct index *index)
{
    struct member *member = index->members[--index->count];
    if (member->named != NULL)
        member->named->links--;
    else if (member->hard_link)
        index->lost--;
    return member;
}

/* ------------------------------------------------------------ giving way */

/* Nodes in a list, by `next`. */
struct list {
    struct node *first, *last;
};

static void
list_add(struct list *list, struct node *node)
{
    node->next = NULL;
    if (list->last != NULL)
        list->last->next = node;
    else
        list->first = node;
    list->last = node;
}

/* As deep as the treap is, which is little. */
static void
list_add_all(struct list *list, struct node *root)
{
    if (root == NULL)
        return;
    list_add_all(list, root->left);
    list_add(list, root);
    list_add_all(list, root->right);
}

/* The member at a node loses its key. */
static int
give_way(struct index *index, struct node *node, struct error *error)
{
    struct member *member = node->member;
    if (member == NULL)
        return 0;
    char *key = node_key(node);
    if (key == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for the index");
    int status = keep_text(index, key, &member->old_key, error);
    free(key);
    if (status != 0)
        return status;
    member->node = NULL;
    node->member = NULL;
    return 0;
}

/* All that is below a node goes. */
static int
clear_below(struct index *index, struct node *directory, struct error *error)
{
    struct list list = {NULL, NULL};
    int status = 0;
    list_add_all(&list, directory->children);
    for (struct node *node = list.first; node != NULL; node = node->next)
        list_add_all(&list, node->children);
    /* Keys are made while all their nodes are still there. */
    for (struct node *node = list.first; node != NULL; node = node->next)
        if (status == 0)
            status = give_way(index, node, error);
    if (status != 0)
        return status;
    directory->children = NULL;
    while (list.first != NULL) {
        struct node *next = list.first->next;
        node_free(index, list.first);
        list.first = next;
    }
    return 0;
}

/* ------------------------------------------------------------ its place */

/* The node for a name; what is in its way gives way to `member`. */
static int
make_place(struct index *index, const char *name, struct member *member,
           struct node **node, struct error *error)
{
    const char *at = name, *component;
    size_t length;
    *node = &index->root;
    while (key_next(&at, &component, &length)) {
        struct node *child = treap_find((*node)->children, component, length);
        int status = 0;
        if (!node_is_directory(*node)) {
            (*node)->contested = member->in_the_way = true;
            status = give_way(index, *node, error);
        }
        if (status == 0 && child == NULL) {
            status = node_create(index, component, length, &child, error);
            if (status == 0)
                node_attach(index, *node, child);
        }
        if (status != 0)
            return status;
        *node = child;
    }
    return 0;
}

static int
take_place(struct index *index, struct node *node, struct member *member,
           struct error *error)
{
    int status = 0;
    bool directory = member->kind == FARBLK_TAR_DIRECTORY;
    if (node->parent == NULL && !directory) {
        /* A value whose name is nothing: no key can lead to it. */
        return keep_text(index, "/", &member->old_key, error);
    }
    if (node->member != NULL || (!directory && node->children != NULL)) {
        member->in_the_way = true;
        node->contested =
            node->contested || !directory || !node_is_directory(node);
        status = give_way(index, node, error);
    }
    if (status == 0 && !directory && node->children != NULL)
        status = clear_below(index, node, error);
    if (status == 0) {
        node->member = member;
        member->node = node;
    }
    return status;
}

/* What a hard link names, as it is at this point of the archive. */
static void
resolve(struct index *index, struct member *member, const struct headers *from)
{
    struct node *node;
    if (index_find(index, member->link, &node, NULL) == 0
        && node->member != NULL && node->member->kind != FARBLK_TAR_DIRECTORY
        && node->member->kind != FARBLK_TAR_LOST_LINK) {
        member->named = node->member;
        member->target =
            node->member->hard_link ? node->member->target : node->member;
        member->named->links++;
        member->kind = member->target->kind;
        member->size = member->target->size;
        member->stored = member->target->stored;
        return;
    }
    index->lost++;
    if (!from->body) {
        member->kind = FARBLK_TAR_LOST_LINK;
        member->size = member->stored = 0;
    }
}

int
index_add(struct index *index, struct headers *headers, struct error *error)
{
    const char *component;
    size_t length, sum = 0;
    struct node *node;
    if (headers->hidden)
        return 0;
    for (const char *at = headers->name; key_next(&at, &component, &length);)
        sum += 1 + length;
    if (sum > index->max_key)
        return error_set(error, FARBLK_NO_SPACE,
                         "a key of %zu octets at octet %llu, more than %u "
                         "(max_key)",
                         sum, (unsigned long long)headers->position,
                         index->max_key);
    int status = index_reserve(index, error);
    if (status != 0)
        return status;
    struct member *member = index_member(index, headers, error);
    if (member == NULL)
        return error->status;
    if (member->hard_link)
        resolve(index, member, headers);
    /* From here on the index owns it, also when something fails. */
    index_append(index, member);
    status = make_place(index, headers->name, member, &node, error);
    if (status == 0)
        status = take_place(index, node, member, error);
    return status;
}

void
index_fini(struct index *index)
{
    struct list list = {NULL, NULL};
    list_add_all(&list, index->root.children);
    for (struct node *node = list.first; node != NULL; node = node->next)
        list_add_all(&list, node->children);
    while (list.first != NULL) {
        struct node *next = list.first->next;
        node_free(index, list.first);
        list.first = next;
    }
    for (size_t i = 0; i < index->count; i++)
        index_member_free(index, index->members[i]);
    index_free(index, index->members, index->room * sizeof(struct member *));
    memset(index, 0, sizeof *index);
}
