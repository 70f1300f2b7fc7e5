/* SPDX-License-Identifier: ISC */
/*
 * Changes of members that are there: octets within a value, and the removal of
 * the last one, which is one block that becomes zeros (the archive then ends
 * there) and, when that is stable, the one behind it.
 */
#include "tar/archive.h"
#include "tar/block.h"

#include "core/checked.h"

/* ------------------------------------------------------------ set_partial */

/* All of [offset, offset + length) is stored. */
static int
check_stored(const struct member *member, uint64_t offset, uint64_t length,
             struct error *error)
{
    if (!range_within(offset, length, member->size))
        return error_set(error, FARBLK_APPEND_ONLY,
                         "octets %llu + %llu lead past the value's end at "
                         "%llu, and a value does not grow",
                         (unsigned long long)offset, (unsigned long long)length,
                         (unsigned long long)member->size);
    while (length > 0) {
        bool stored;
        uint64_t at;
        uint64_t n = min_u64(member_run(member, offset, &stored, &at), length);
        if (!stored)
            return error_set(error, FARBLK_APPEND_ONLY,
                             "octet %llu of the value is in a hole, for which "
                             "the archive has no room",
                             (unsigned long long)offset);
        offset += n;
        length -= n;
    }
    return 0;
}

static int
write_value(struct farblk_tar *tar, const struct member *member,
            uint64_t offset, const uint8_t *from, uint64_t length,
            struct error *error)
{
    int status = 0;
    bool changed = false;
    while (status == 0 && length > 0) {
        bool stored;
        uint64_t at;
        size_t n =
            (size_t)min_u64(member_run(member, offset, &stored, &at), length);
        status = store_write(&tar->store, at, from, n, 0, error);
        if (status != 0 && changed)
            error->effect = FARBLK_EFFECT_UNKNOWN;
        changed = true;
        from += n;
        offset += n;
        length -= n;
    }
    return status;
}

int
farblk_tar_set_partial(struct farblk_tar *tar, const char *key, uint64_t offset,
                       const void *data, size_t length)
{
    struct error error;
    struct member *member = NULL;
    int status = 0;
    error_clear(&error);
    if (tar == NULL || key == NULL || (data == NULL && length > 0))
        status =
            error_set(&error, FARBLK_INVALID, "no archive, no key or no data");
    if (status == 0)
        status = archive_begin(tar, &error);
    if (status != 0)
        return archive_result("tar_set_partial", status, &error);
    status = archive_pin(tar, key, &member, &error);
    if (status == 0) {
        status = check_stored(member, offset, length, &error);
        if (status == 0)
            status = write_value(tar, member, offset, data, length, &error);
        archive_unpin(tar, member);
    }
    archive_end(tar);
    return archive_result("tar_set_partial", status, &error);
}

/* ------------------------------------------------------------ remove */

static int
find_last(struct farblk_tar *tar, const char *key, struct member **found,
          struct error *error)
{
    struct node *node;
    int status = index_find(&tar->index, key, &node, error);
    if (status != 0)
        return status;
    struct member *member = node->member;
    if (node_is_directory(node))
        return error_set(error, FARBLK_NOT_A_VALUE, "\"%.300s\" is a directory",
                         key);
    if (member != tar->index.members[tar->index.count - 1])
        return error_set(error, FARBLK_APPEND_ONLY,
                         "\"%.300s\" is not the archive's last member", key);
    if (member->in_the_way)
        return error_set(error, FARBLK_APPEND_ONLY,
                         "\"%.300s\" took the place of an earlier member, "
                         "which would come back",
                         key);
    *found = member;
    return 0;
}

/* Take the last member out, and wait until nobody reads it. */
static void
forget_last(struct farblk_tar *tar, struct member *member)
{
    pthread_mutex_lock(&tar->lock);
    index_detach(&tar->index, member->node);
    index_pop(&tar->index);
    tar->end = member->position;
    while (member->pins > 0)
        pthread_cond_wait(&tar->unpinned, &tar->lock);
    index_member_free(&tar->index, member);
    pthread_mutex_unlock(&tar->lock);
}

static int
remove_last(struct farblk_tar *tar, struct member *member, struct error *error)
{
    static const uint8_t zeros[BLOCK];
    uint64_t old_end = tar->end, position = member->position;
    int status = archive_commit(tar, position, zeros, error);
    if (status != 0)
        return status;
    forget_last(tar, member);
    if (position + BLOCK < old_end) {
        status = store_write(&tar->store, position + BLOCK, zeros, BLOCK,
                             FARBLK_FUA, error);
        error->effect = FARBLK_EFFECT_DONE;
    }
    return status;
}

int
farblk_tar_remove(struct farblk_tar *tar, const char *key)
{
    struct error error;
    struct member *member = NULL;
    int status = 0;
    error_clear(&error);
    if (tar == NULL || key == NULL)
        status = error_set(&error, FARBLK_INVALID, "no archive or no key");
    if (status == 0)
        status = archive_begin(tar, &error);
    if (status != 0)
        return archive_result("tar_remove", status, &error);
    status = find_last(tar, key, &member, &error);
    if (status == 0)
        status = remove_last(tar, member, &error);
    archive_end(tar);
    return archive_result("tar_remove", status, &error);
}
