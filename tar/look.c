/* SPDX-License-Identifier: ISC */
/*
 * Looking around: what keys there are, and what is known of them.
 *
 * Callbacks run without a lock: what they are told is copied before, a few
 * entries at a time.
 */
#include "tar/archive.h"
#include "tar/block.h"

#include <stdlib.h>
#include <string.h>

#define BATCH 64u

static int
check_arguments(const struct farblk_tar *tar, const char *key,
                struct error *error)
{
    error_clear(error);
    if (tar == NULL || key == NULL)
        return error_set(error, FARBLK_INVALID, "no archive or no key");
    return 0;
}

/* ------------------------------------------------------------ one key */

/* The node of a key, with the lock held in any case. */
static int
find_locked(struct farblk_tar *tar, const char *key, struct node **node,
            struct error *error)
{
    pthread_mutex_lock(&tar->lock);
    return index_find(&tar->index, key, node, error);
}

int
farblk_tar_exists(struct farblk_tar *tar, const char *key)
{
    struct error error;
    struct node *node;
    int status = check_arguments(tar, key, &error);
    if (status == 0) {
        status = find_locked(tar, key, &node, &error);
        if (status == FARBLK_NOT_FOUND)
            status = FARBLK_TAR_NOTHING;
        else if (status == 0)
            status = node->member != NULL ? node->member->kind
                                          : FARBLK_TAR_DIRECTORY;
        pthread_mutex_unlock(&tar->lock);
    }
    return archive_result("tar_exists", status, &error);
}

static int
stat_of(struct farblk_tar *tar, const char *key, const void *result,
        struct farblk_tar_stat *stat, struct error *error)
{
    struct node *node;
    int status = check_arguments(tar, key, error);
    if (status == 0 && result == NULL)
        status = error_set(error, FARBLK_INVALID, "nowhere to put the answer");
    if (status != 0)
        return status;
    status = find_locked(tar, key, &node, error);
    if (status == 0)
        archive_stat(node->member, stat);
    pthread_mutex_unlock(&tar->lock);
    return status;
}

int
farblk_tar_stat(struct farblk_tar *tar, const char *key,
                struct farblk_tar_stat *stat, size_t size)
{
    struct farblk_tar_stat found;
    struct error error;
    int status = stat_of(tar, key, stat, &found, &error);
    if (status == 0)
        memcpy(stat, &found, size < sizeof found ? size : sizeof found);
    return archive_result("tar_stat", status, &error);
}

int
farblk_tar_size(struct farblk_tar *tar, const char *key, uint64_t *size)
{
    struct farblk_tar_stat found;
    struct error error;
    int status = stat_of(tar, key, size, &found, &error);
    if (status == 0)
        *size = found.size;
    return archive_result("tar_size", status, &error);
}

struct newest {
    bool known;
    int64_t seconds;
    uint32_t nanoseconds;
};

static void
take_newer(struct newest *newest, const struct member *member)
{
    if (member == NULL
        || (newest->known
            && (member->mtime < newest->seconds
                || (member->mtime == newest->seconds
                    && member->mtime_nsec <= newest->nanoseconds))))
        return;
    *newest = (struct newest){true, member->mtime, member->mtime_nsec};
}

static void
take_newest_of(struct newest *newest, const struct node *siblings)
{
    if (siblings == NULL)
        return;
    take_newest_of(newest, siblings->left);
    take_newer(newest, siblings->member);
    take_newest_of(newest, siblings->right);
}

int
farblk_tar_last_modified(struct farblk_tar *tar, const char *key,
                         int64_t *seconds, uint32_t *nanoseconds)
{
    struct newest newest = {false, 0, 0};
    struct error error;
    struct node *node;
    int status = check_arguments(tar, key, &error);
    if (status == 0 && seconds == NULL)
        status = error_set(&error, FARBLK_INVALID, "nowhere to put the answer");
    if (status == 0) {
        status = find_locked(tar, key, &node, &error);
        if (status == 0) {
            take_newer(&newest, node->member);
            take_newest_of(&newest, node->children);
        }
        pthread_mutex_unlock(&tar->lock);
    }
    if (status == 0) {
        *seconds = newest.seconds;
        if (nanoseconds != NULL)
            *nanoseconds = newest.nanoseconds;
    }
    return archive_result("tar_last_modified", status, &error);
}

int
farblk_tar_read_link(struct farblk_tar *tar, const char *key, char *to,
                     size_t size)
{
    struct error error;
    struct node *node;
    int status = check_arguments(tar, key, &error);
    if (status == 0 && to == NULL && size > 0)
        status = error_set(&error, FARBLK_INVALID, "nowhere to put the answer");
    if (status == 0) {
        status = find_locked(tar, key, &node, &error);
        const char *link =
            status == 0 && node->member != NULL ? node->member->link : NULL;
        if (status == 0 && link == NULL) {
            status = error_set(&error, FARBLK_INVALID,
                               "\"%.300s\" is not a link", key);
        } else if (status == 0) {
            size_t length = strlen(link);
            status = length < INT32_MAX ? (int)length : INT32_MAX;
            if (size > 0) {
                size_t n = length < size ? length : size - 1;
                memcpy(to, link, n);
                to[n] = '\0';
            }
        }
        pthread_mutex_unlock(&tar->lock);
    }
    return archive_result("tar_read_link", status, &error);
}

int
farblk_tar_get_info(struct farblk_tar *tar, struct farblk_tar_info *info,
                    size_t size)
{
    struct farblk_tar_info found = {0};
    struct error error;
    int status = check_arguments(tar, "", &error);
    if (status == 0 && info == NULL)
        status = error_set(&error, FARBLK_INVALID, "nowhere to put the answer");
    uint64_t device_size = 0;
    if (status == 0)
        status = store_size(&tar->store, &device_size, &error);
    if (status != 0)
        return archive_result("tar_get_info", status, &error);
    pthread_mutex_lock(&tar->lock);
    found.read_write = tar->read_write;
    found.members = tar->index.count;
    found.end = tar->end;
    found.device_size = device_size;
    found.sector_size = tar->store.sector_size;
    pthread_mutex_unlock(&tar->lock);
    if (device_size > found.end + TRAILER)
        found.free = device_size - found.end - TRAILER;
    memcpy(info, &found, size < sizeof found ? size : sizeof found);
    return archive_result("tar_get_info", 0, &error);
}

/* ------------------------------------------------------------ many */

/* An entry, copied. */
struct told {
    char *key, *link;
    struct farblk_tar_stat stat;
    bool current;
};

struct batch {
    struct told told[BATCH];
    unsigned count;
};

static int
batch_add(struct batch *batch, const struct member *member,
          const struct node *node, struct error *error)
{
    struct told *told = &batch->told[batch->count++];
    told->key = node != NULL ? node_key(node) : strdup(member->old_key);
    told->link =
        strdup(member != NULL && member->link != NULL ? member->link : "");
    told->current = node != NULL;
    archive_stat(member, &told->stat);
    if (told->key == NULL || told->link == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for an entry");
    return 0;
}

/* Tell what a batch has, unless something has gone wrong, and empty it. */
static int
batch_tell(struct batch *batch, int status,
           int (*entry)(void *arg, const struct farblk_tar_entry *entry),
           void *arg)
{
    for (unsigned i = 0; i < batch->count; i++) {
        struct told *told = &batch->told[i];
        if (status == 0) {
            struct farblk_tar_entry tell = {
                .size = sizeof tell,
                .key = told->key,
                .link = told->link,
                .stat = &told->stat,
                .current = told->current,
            };
            status = entry(arg, &tell);
        }
        free(told->key);
        free(told->link);
    }
    batch->count = 0;
    return status;
}

static struct batch *
batch_create(struct error *error)
{
    struct batch *batch = calloc(1, sizeof *batch);
    if (batch == NULL)
        error_set(error, FARBLK_NO_MEMORY, "no memory for entries");
    return batch;
}

/* What a callback answers is returned as it is; a failure of ours with its
 * text. */
static int
many_result(const char *call, int status, const struct error *error)
{
    if (status != 0 && status == error->status)
        return archive_result(call, status, error);
    if (status == 0)
        last_error_clear();
    return status;
}

int
farblk_tar_iterate(struct farblk_tar *tar,
                   int (*entry)(void *arg,
                                const struct farblk_tar_entry *entry),
                   void *arg)
{
    struct error error;
    size_t next = 0;
    bool more = true;
    int status = check_arguments(tar, "", &error);
    if (status == 0 && entry == NULL)
        status = error_set(&error, FARBLK_INVALID, "no function to call");
    struct batch *batch = status == 0 ? batch_create(&error) : NULL;
    if (batch == NULL)
        return archive_result("tar_iterate", error.status, &error);
    while (status == 0 && more) {
        pthread_mutex_lock(&tar->lock);
        while (status == 0 && batch->count < BATCH && next < tar->index.count) {
            const struct member *member = tar->index.members[next++];
            status = batch_add(batch, member, member->node, &error);
        }
        more = next < tar->index.count;
        pthread_mutex_unlock(&tar->lock);
        status = batch_tell(batch, status, entry, arg);
    }
    free(batch);
    return many_result("tar_iterate", status, &error);
}

/* The next children of `key` whose names are above *after, which is moved on
 * (NULL: from the first; NULL afterwards: there are no more). */
static int
next_children(struct farblk_tar *tar, const char *key, char **after,
              struct batch *batch, struct error *error)
{
    struct node *node, *child = NULL;
    int status = index_find(&tar->index, key, &node, error);
    if (status == 0 && !node_is_directory(node))
        status = error_set(error, FARBLK_NOT_A_DIRECTORY,
                           "\"%.300s\" is no directory", key);
    if (status != 0)
        return status;
    const char *name = *after;
    while (status == 0 && batch->count < BATCH
           && (child = node_next(node, name)) != NULL) {
        status = batch_add(batch, child->member, child, error);
        name = child->name;
    }
    char *last = NULL;
    if (status == 0 && child != NULL) {
        last = strdup(name);
        if (last == NULL)
            status = error_set(error, FARBLK_NO_MEMORY, "no memory");
    }
    free(*after);
    *after = last;
    return status;
}

int
farblk_tar_list(struct farblk_tar *tar, const char *key,
                int (*entry)(void *arg, const struct farblk_tar_entry *entry),
                void *arg)
{
    struct error error;
    char *after = NULL;
    bool begun = false;
    int status = check_arguments(tar, key, &error);
    if (status == 0 && entry == NULL)
        status = error_set(&error, FARBLK_INVALID, "no function to call");
    struct batch *batch = status == 0 ? batch_create(&error) : NULL;
    if (batch == NULL)
        return archive_result("tar_list", error.status, &error);
    do {
        pthread_mutex_lock(&tar->lock);
        status = next_children(tar, key, &after, batch, &error);
        pthread_mutex_unlock(&tar->lock);
        if (begun && status == FARBLK_NOT_FOUND) {
            /* The rest went while the first ones were told. */
            error_clear(&error);
            status = 0;
            free(after);
            after = NULL;
        }
        begun = true;
        status = batch_tell(batch, status, entry, arg);
    } while (status == 0 && after != NULL);
    free(after);
    free(batch);
    return many_result("tar_list", status, &error);
}
