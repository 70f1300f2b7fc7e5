/* SPDX-License-Identifier: ISC */
/*
 * Sparse members: which octets of a value are stored, and where.  Four ways in
 * which GNU tar has told it; all become an array of runs.
 */
#ifndef FARBLK_TAR_SPARSE_H
#define FARBLK_TAR_SPARSE_H

#include "tar/reader.h"

/* Octets of a value that are stored. */
struct run {
    uint64_t offset; /* in the value */
    uint64_t length; /* never 0 */
    uint64_t at; /* octet of the device */
};

/* Runs in order, apart from each other. */
struct runs {
    struct run *array; /* owned */
    size_t count, room;
    uint64_t octets; /* of all of them */
};

void runs_fini(struct runs *runs);

/* pax 0.0 and 0.1: "offset,length,..." for a value of `size` octets whose
 * stored ones lie at [data, data + stored). */
int sparse_text(struct runs *runs, const char *text, uint64_t size,
                uint64_t data, uint64_t stored, struct error *error);

/* pax 1.0: the map stands in front of the data; both together are
 * [*data, *data + *stored), and come back as what the data alone is. */
int sparse_front(struct runs *runs, struct reader *reader, uint64_t size,
                 uint64_t *data, uint64_t *stored, uint64_t limit,
                 struct error *error);

/* GNU's own: in the header `block`, and in blocks that follow it from *data on,
 * which is moved behind them.  *blocks counts them. */
int sparse_old(struct runs *runs, struct reader *reader, const uint8_t *block,
               uint64_t *size, uint64_t *data, uint64_t stored, uint64_t limit,
               struct error *error);

#endif
