/* SPDX-License-Identifier: ISC */
/*
 * What extended headers say: pax records, of one member or of all that follow,
 * and GNU's long names and links.  Kept as texts; numbers are made of them
 * where they are used.
 */
#ifndef FARBLK_TAR_EXTENDED_H
#define FARBLK_TAR_EXTENDED_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The pax keywords that matter here.  Those up to EXTENDED_GLOBAL count in
 * global headers as well. */
enum extended_key {
    EXTENDED_PATH,
    EXTENDED_LINKPATH,
    EXTENDED_SIZE,
    EXTENDED_MTIME,
    EXTENDED_UID,
    EXTENDED_GID,
    EXTENDED_UNAME,
    EXTENDED_GNAME,
    EXTENDED_GLOBAL,
    EXTENDED_SPARSE_NAME = EXTENDED_GLOBAL,
    EXTENDED_SPARSE_SIZE,
    EXTENDED_SPARSE_REALSIZE,
    EXTENDED_SPARSE_MAJOR,
    EXTENDED_SPARSE_MINOR,
    EXTENDED_SPARSE_MAP, /* "offset,length,...", of 0.1; made for 0.0 */
    EXTENDED_LONG_NAME, /* GNU's 'L' and 'K', which no pax keyword names */
    EXTENDED_LONG_LINK,
    EXTENDED_KEYS,
};

struct extended_value {
    enum { EXTENDED_UNSAID, EXTENDED_DELETED, EXTENDED_SAID } state;
    char *text; /* SAID: a string; owned */
    size_t length;
    size_t room;
    uint64_t payload; /* octet of the device where the header that said it */
    uint64_t payload_size; /* has its records, and how many */
};

struct extended {
    struct extended_value values[EXTENDED_KEYS];
    bool any; /* something is said */
};

void extended_init(struct extended *extended);
/* Forget all. */
void extended_fini(struct extended *extended);
/* An independent copy; false without memory. */
bool extended_copy(struct extended *to, const struct extended *from);

/* Take in the records of a pax header, which lie at `payload` on the device.
 * CORRUPT when they break the format. */
int extended_pax(struct extended *extended, bool global, uint64_t payload,
                 const char *records, size_t length, struct error *error);

/* Take in GNU's long name or link. */
int extended_long(struct extended *extended, enum extended_key key,
                  uint64_t payload, const char *text, size_t length,
                  struct error *error);

/* The text that counts for a member, NULL when its header's does. */
const struct extended_value *extended_find(const struct extended *local,
                                           const struct extended *global,
                                           enum extended_key key);

/* One record of a pax header: its octets, keyword and value. */
struct pax_record {
    const char *at, *key, *value;
    size_t length, key_length, value_length;
};
/* The record at *at, which is moved behind it.  0 at `end`; 1; CORRUPT. */
int pax_next(const char **at, const char *end, struct pax_record *record,
             struct error *error);
/* The octets of the record "LENGTH KEY=VALUE\n". */
size_t pax_length(size_t key_length, size_t value_length);
/* Append it at `to`, which has room for pax_length() and a zero; returns that
 * length. */
size_t pax_put(char *to, const char *key, const char *value,
               size_t value_length);
/* The keyword of a record that gives a member's name. */
const char *pax_keyword(enum extended_key key);

/* A decimal number and nothing else, at most INT64_MAX. */
bool decimal(const char *text, size_t length, uint64_t *value);
/* "[-]SECONDS[.FRACTION]" */
bool decimal_time(const char *text, int64_t *seconds, uint32_t *nanoseconds);

#endif
