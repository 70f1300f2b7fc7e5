/* SPDX-License-Identifier: ISC */
/*
 * An open archive, and how its calls begin and end.
 *
 * Locks, in this order: `change` is held by whoever changes the archive, for as
 * long as that takes; `lock` protects what is marked below, for moments, never
 * during I/O or a callback.  So readers wait for no writer's I/O: they look a
 * member up with `lock`, pin it, and read its data without any.
 *
 * What members and nodes say does not change while they are in the index, but
 * for pins, links, and a member's node.  Only holders of `change` alter the
 * index, so they may read it without `lock`.
 */
#ifndef FARBLK_TAR_ARCHIVE_H
#define FARBLK_TAR_ARCHIVE_H

#include "tar/index.h"

#include <pthread.h>

struct farblk_tar {
    struct store store;
    uint64_t identity; /* of the device */
    bool read_write;
    uint64_t max_headers, max_extended;
    struct farblk_tar *next_writer; /* open.c's list */

    pthread_mutex_t change;
    struct extended global; /* change: what global headers said at the end */
    struct error broken; /* change: status != 0: why nothing may change */

    pthread_mutex_t lock;
    pthread_cond_t unpinned;
    struct index index; /* lock */
    uint64_t end; /* lock: octet where the archive ends */
    uint64_t device_size; /* lock: as last asked */
};

/* How every call ends: what farblk_last_text() is to tell.  Returns status. */
int archive_result(const char *call, int status, const struct error *error);

/* The member of a key, pinned; lock is not held.  NOT_FOUND, NOT_A_DIRECTORY,
 * NOT_A_VALUE. */
int archive_pin(struct farblk_tar *tar, const char *key, struct member **member,
                struct error *error);
void archive_unpin(struct farblk_tar *tar, struct member *member);

/* Fill in what is known of a node or a member. */
void archive_stat(const struct member *member, struct farblk_tar_stat *stat);

/*
 * Begin a change: the caller holds `change` when 0 is returned, and the archive
 * is as it was read.  IS_READ_ONLY, INVALID (within a source), CONFLICT, and
 * what made the archive read-only.
 */
int archive_begin(struct farblk_tar *tar, struct error *error);
void archive_end(struct farblk_tar *tar);

/* Exchange one block for another, in one write of its sector, and make it
 * stable.  When it is uncertain what has become of it, the archive is broken. */
int archive_commit(struct farblk_tar *tar, uint64_t offset,
                   const uint8_t *block, struct error *error);
/* A commit by other means has failed. */
void archive_commit_failed(struct farblk_tar *tar, const struct error *error);

/* Octets of the value from `offset` on that lie together, at most to the
 * value's end; *stored: at *at on the device, else they are a hole.  offset is
 * below the value's size. */
uint64_t member_run(const struct member *member, uint64_t offset, bool *stored,
                    uint64_t *at);
/* Who has a value's data. */
static inline const struct member *
member_data(const struct member *member)
{
    return member->target != NULL ? member->target : member;
}

#endif
