/* SPDX-License-Identifier: ISC */
/*
 * What the files of the tar-member driver share.
 *
 *   tar_member.c       the driver: core's contract, and reads
 *   tar_member_open.c  from a URI to a member and where its octets lie
 *   tar_member_map.c   seeks and extents
 */
#ifndef FARBLK_BACKENDS_TAR_MEMBER_H
#define FARBLK_BACKENDS_TAR_MEMBER_H

#include "core/driver.h"
#include "farblk/tar.h"

/* Nothing of it changes while it is open. */
struct tar_member {
    struct farblk *child; /* the archive's device; ours */
    uint32_t child_sector;
    struct shape shape;
    /* The value, in order and without gaps; what is stored lies on the child in
     * one piece, in the same order. */
    struct farblk_tar_extent *runs;
    size_t run_count;
};

int tar_member_create(const struct uri *uri, struct tar_member **created,
                      struct error *error);
void tar_member_free(struct tar_member *member);

/* The run that has the octet, which is within the value. */
const struct farblk_tar_extent *tar_member_run(const struct tar_member *member,
                                               uint64_t offset);

/* Seeks and extents, which come to their end at once. */
void tar_member_map(const struct tar_member *member, struct io *io);

extern const struct driver driver_tar_member;

#endif
