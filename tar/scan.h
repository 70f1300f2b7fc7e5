/* SPDX-License-Identifier: ISC */
/*
 * From an archive's blocks to its members: one at a time, in order, with the
 * extended headers in front of each taken into account.
 */
#ifndef FARBLK_TAR_SCAN_H
#define FARBLK_TAR_SCAN_H

#include "farblk/tar.h"
#include "tar/extended.h"
#include "tar/reader.h"
#include "tar/sparse.h"

/* Where a member's name stands. */
enum name_place {
    NAME_IN_HEADER,
    NAME_IN_PAX, /* in a record of its own extended header */
    NAME_IN_LONG, /* in GNU's long name */
    NAME_IN_GLOBAL,
};

/* A member as its headers tell of it. */
struct headers {
    uint64_t position; /* octet of the first of its headers */
    uint64_t header; /* of its own, after extended ones */
    uint64_t data; /* of its first stored octet */
    uint64_t end; /* of what follows it */
    struct farblk_tar_stat stat; /* all that can be known from here; stored and
                                    size are 0 for links */
    bool body; /* a link with data of its own */
    bool hidden; /* a volume's label or the like: no member */
    char *name; /* as in the archive; owned */
    char *link; /* of links, NULL for others; owned */
    struct runs runs; /* sparse members */
    enum name_place name_place;
    enum extended_key name_key; /* NAME_IN_PAX */
    uint64_t name_payload; /* PAX, LONG: octet of the records or the name, */
    uint64_t name_payload_size; /* and how many there are */
};

void headers_fini(struct headers *headers);

/* What is carried from one member to the next. */
struct scan {
    struct reader *reader;
    struct extended global;
    uint64_t seen; /* headers so far, of any kind */
    uint64_t max_headers;
    uint64_t max_extended;
    uint64_t dangling; /* octet of extended headers that no member follows, or
                          UINT64_MAX */
};

/*
 * The member at `at`.  1: *found is filled, and the caller's to fini; 0: the
 * archive ends there (*end tells where); or an error.
 */
int scan_next(struct scan *scan, uint64_t at, struct headers *found,
              uint64_t *end, struct error *error);

/* Fill in a member whose header is `block`, at found->header, and of which
 * extended headers say `local`. */
int scan_member(struct scan *scan, const struct extended *local,
                const uint8_t *block, struct headers *found,
                struct error *error);

#endif
