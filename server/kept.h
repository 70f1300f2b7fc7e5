/* SPDX-License-Identifier: ISC */
/*
 * A session's table of changing requests: the one rule of at most once.
 *
 * Each changing request has an entry from its start until the client says, by
 * `lowest`, that it has its reply.  While the request runs the entry names its
 * call; afterwards it holds the status.  Everything happens under the session's
 * mutex.  Entries are reused, so that a steady flow allocates nothing; how many
 * there are in the process is bounded, as are the texts of one session.
 */
#ifndef FARBLK_SERVER_KEPT_H
#define FARBLK_SERVER_KEPT_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Entries of the whole process; and those that each table may have though
 * others have used them up. */
#define KEPT_ENTRIES_MAX (UINT64_C(1) << 20)
#define KEPT_ENTRIES_MIN 1024u
/* Octets of error texts in one table; beyond, statuses are kept without. */
#define KEPT_TEXT_MAX (UINT64_C(1) << 18)

/* A method that no request has. */
#define KEPT_ANY 0u

struct call;

struct kept {
    struct kept *next; /* in its bucket, or free */
    uint64_t number;
    struct call *call; /* while it runs; else NULL */
    bool in_ring; /* it runs, and came by a ring */
    struct call *waiting; /* a copy that came meanwhile by the socket, which is
                             answered with it */
    uint32_t method; /* KEPT_ANY: cancelled before it came */
    int32_t status; /* the rest: when it has ended */
    uint32_t effect;
    uint64_t value;
    char *text; /* NULL: none */
};

/* Zeroed: empty. */
struct kept_table {
    struct kept **bucket;
    size_t size, count; /* size: a power of two, or 0 */
    struct kept *free;
    size_t entries; /* in use and free */
    uint64_t text_octets;
};

/* Whether it has not ended. */
static inline bool
kept_runs(const struct kept *kept)
{
    return kept->call != NULL || kept->in_ring;
}

/* Whether it may be a request of that method. */
static inline bool
kept_is(const struct kept *kept, uint32_t method)
{
    return kept->method == method || kept->method == KEPT_ANY;
}

struct kept *kept_find(const struct kept_table *table, uint64_t number);

/* A new entry of a number that is not in the table.  NULL without memory, or
 * when the process has too many. */
struct kept *kept_add(struct kept_table *table, uint64_t number,
                      uint32_t method, struct call *call);

/* It has ended so. */
void kept_end(struct kept_table *table, struct kept *kept,
              const struct error *error, uint64_t value);

/* Fill `error` as it was ended. */
void kept_error(const struct kept *kept, struct error *error);

/* Forget one entry. */
void kept_forget(struct kept_table *table, struct kept *kept);

/* Forget all that have ended with from <= number < below. */
void kept_forget_below(struct kept_table *table, uint64_t from, uint64_t below);

/* Nothing runs any more: free. */
void kept_fini(struct kept_table *table);

#endif
