/* SPDX-License-Identifier: ISC */
/*
 * One block of 512 octets as tar lays it out: fields, numbers, checksum, the
 * name in its two parts.  No I/O, no allocation.
 */
#ifndef FARBLK_TAR_BLOCK_H
#define FARBLK_TAR_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK 512u
/* An archive ends with two blocks of zeros. */
#define TRAILER (2 * BLOCK)

/* Where the fields of a header begin, and their octets. */
enum {
    NAME_AT = 0,
    NAME_SIZE = 100,
    MODE_AT = 100,
    UID_AT = 108,
    GID_AT = 116,
    ID_SIZE = 8, /* of MODE, UID, GID, MAJOR and MINOR */
    SIZE_AT = 124,
    MTIME_AT = 136,
    LONG_SIZE = 12, /* of SIZE, MTIME and all of sparse maps */
    SUM_AT = 148,
    SUM_SIZE = 8,
    TYPE_AT = 156,
    LINK_AT = 157,
    LINK_SIZE = 100,
    MAGIC_AT = 257,
    USER_AT = 265,
    GROUP_AT = 297,
    OWNER_SIZE = 32,
    MAJOR_AT = 329,
    MINOR_AT = 337,
    PREFIX_AT = 345,
    PREFIX_SIZE = 155,
    STAR_PREFIX_SIZE = 131,
    /* GNU's sparse members: entries of two numbers each */
    SPARSE_AT = 386,
    SPARSE_COUNT = 4,
    SPARSE_MORE_AT = 482,
    SPARSE_REAL_AT = 483,
    /* and the blocks that go on with them */
    SPARSE_NEXT_COUNT = 21,
    SPARSE_NEXT_MORE_AT = 504,
};

/* Room for the longest name in a header, "prefix/name", and its zero. */
#define BLOCK_NAME_MAX (PREFIX_SIZE + 1 + NAME_SIZE + 1)

enum block_format {
    FORMAT_V7,
    FORMAT_USTAR,
    FORMAT_STAR, /* ustar with a shorter prefix */
    FORMAT_GNU,
};

enum block_format block_format(const uint8_t *block);
bool block_is_zero(const uint8_t *block);

/* The checksum is right: of octets, or of signed ones as some old tars had. */
bool block_sum_right(const uint8_t *block);
/* Put the checksum that the rest wants. */
void block_seal(uint8_t *block);

/* A number of `size` octets at `field`, octal or base-256.  An empty field is
 * 0.  False when it is neither, or beyond an int64_t. */
bool field_number(const uint8_t *field, size_t size, int64_t *value);
/* Octal with a final zero where it fits, else base-256. */
void field_put_number(uint8_t *field, size_t size, int64_t value);
/* It fits as octal. */
bool field_fits(size_t size, int64_t value);

/* Text of up to `size` octets, ended by a zero or the field's end, as a string
 * of at most size + 1 octets.  Returns its length. */
size_t field_text(const uint8_t *field, size_t size, char *to);

/* The name as prefix and name together tell it; `to` has BLOCK_NAME_MAX. */
size_t block_name(const uint8_t *block, char *to);
/* Put a name, wholly or cut in two at a '/' where the format has a prefix;
 * false, and nothing is changed, when it does not fit. */
bool block_put_name(uint8_t *block, const char *name, size_t length);

#endif
