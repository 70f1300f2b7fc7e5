/* SPDX-License-Identifier: ISC */
/*
 * See archive.h: what the calls on an archive share.
 */
#include "tar/archive.h"

#include "core/checked.h"
#include "tar/block.h"
#include "tar/source.h"

#include <string.h>

int
archive_result(const char *call, int status, const struct error *error)
{
    if (status >= 0) {
        last_error_clear();
        return status;
    }
    struct error told = {.status = status, .effect = error->effect};
    error_set(&told, status, "%s: %.*s", call,
              FARBLK_TEXT_MAX - 1 - (int)strlen(call) - 2, error->text);
    told.effect = error->effect;
    return last_error_set(&told);
}

/* ------------------------------------------------------------ reading */

int
archive_pin(struct farblk_tar *tar, const char *key, struct member **member,
            struct error *error)
{
    struct node *node;
    pthread_mutex_lock(&tar->lock);
    int status = index_find(&tar->index, key, &node, error);
    if (status == 0
        && (node->member == NULL || node->member->kind != FARBLK_TAR_VALUE))
        status = error_set(error, FARBLK_NOT_A_VALUE,
                           node_is_directory(node) ? "\"%.300s\" is a directory"
                           : node->member->kind == FARBLK_TAR_LOST_LINK
                               ? "\"%.300s\" is a link to what is not in the "
                                 "archive"
                               : "\"%.300s\" is not a value",
                           key);
    if (status == 0) {
        *member = node->member;
        (*member)->pins++;
    }
    pthread_mutex_unlock(&tar->lock);
    return status;
}

void
archive_unpin(struct farblk_tar *tar, struct member *member)
{
    pthread_mutex_lock(&tar->lock);
    if (--member->pins == 0)
        pthread_cond_broadcast(&tar->unpinned);
    pthread_mutex_unlock(&tar->lock);
}

void
archive_stat(const struct member *member, struct farblk_tar_stat *stat)
{
    memset(stat, 0, sizeof *stat);
    if (member == NULL) {
        stat->kind = FARBLK_TAR_DIRECTORY;
        stat->mode = 0755;
        return;
    }
    *stat = (struct farblk_tar_stat){
        .kind = (enum farblk_tar_kind)member->kind,
        .type = member->type,
        .hard_link = member->hard_link,
        .sparse = member->sparse,
        .mode = member->mode,
        .size = member->size,
        .stored = member->stored,
        .mtime = member->mtime,
        .mtime_nsec = member->mtime_nsec,
        .device_major = member->device_major,
        .device_minor = member->device_minor,
        .uid = member->uid,
        .gid = member->gid,
        .position = member->position,
    };
    memcpy(stat->user, member->owner->user, sizeof stat->user);
    memcpy(stat->group, member->owner->group, sizeof stat->group);
}

/* The number of runs that begin at or before `offset`. */
static size_t
runs_up_to(const struct member *member, uint64_t offset)
{
    size_t low = 0, high = member->run_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (member->runs[middle].offset <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint64_t
member_run(const struct member *member, uint64_t offset, bool *stored,
           uint64_t *at)
{
    member = member_data(member);
    if (!member->sparse) {
        *stored = true;
        *at = member->data + offset;
        return member->size - offset;
    }
    size_t next = runs_up_to(member, offset);
    const struct run *run = next > 0 ? &member->runs[next - 1] : NULL;
    *stored = run != NULL && offset - run->offset < run->length;
    if (*stored) {
        *at = run->at + (offset - run->offset);
        return run->length - (offset - run->offset);
    }
    *at = 0;
    return (next < member->run_count ? member->runs[next].offset : member->size)
           - offset;
}

/* ------------------------------------------------------------ changing */

/* The archive still ends where we think: others have not appended to it. */
static int
check_end(struct farblk_tar *tar, struct error *error)
{
    uint8_t block[BLOCK];
    uint64_t size;
    int status = store_size(&tar->store, &size, error);
    if (status != 0)
        return status;
    if (size < tar->end)
        return error_set(error, FARBLK_CONFLICT,
                         "the device has %llu octets, and the archive ended "
                         "at %llu",
                         (unsigned long long)size,
                         (unsigned long long)tar->end);
    tar->device_size = size;
    if (tar->end == size)
        return 0;
    status = store_read(&tar->store, tar->end, block, sizeof block, error);
    if (status == 0 && !block_is_zero(block))
        status = error_set(error, FARBLK_CONFLICT,
                           "the archive no longer ends at octet %llu: somebody "
                           "else has written to it",
                           (unsigned long long)tar->end);
    return status;
}

int
archive_begin(struct farblk_tar *tar, struct error *error)
{
    if (!tar->read_write)
        return error_set(error, FARBLK_IS_READ_ONLY,
                         "the archive is open for reading only");
    if (source_running(tar))
        return error_set(error, FARBLK_INVALID,
                         "a source may not change the archive that it fills");
    pthread_mutex_lock(&tar->change);
    int status = tar->broken.status;
    if (status != 0)
        error_set(error, status, "%s", tar->broken.text);
    else
        status = check_end(tar, error);
    if (status != 0)
        pthread_mutex_unlock(&tar->change);
    return status;
}

void
archive_end(struct farblk_tar *tar)
{
    pthread_mutex_unlock(&tar->change);
}

void
archive_commit_failed(struct farblk_tar *tar, const struct error *error)
{
    if (error->effect == FARBLK_EFFECT_NONE)
        return;
    error_set(&tar->broken, error->status,
              "it is uncertain what became of an earlier change; open the "
              "archive anew (%.300s)",
              error->text);
}

int
archive_commit(struct farblk_tar *tar, uint64_t offset, const uint8_t *block,
               struct error *error)
{
    int status =
        store_write(&tar->store, offset, block, BLOCK, FARBLK_FUA, error);
    if (status != 0)
        archive_commit_failed(tar, error);
    return status;
}
