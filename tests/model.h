/* SPDX-License-Identifier: ISC */
/*
 * A plain array that says what a device must hold, and random operations done
 * to both.
 *
 * Not thread-safe: each thread has a model of its own sectors.  Failures are
 * noted with seed and step, so that one run can be repeated.
 */
#ifndef FARBLK_TESTS_MODEL_H
#define FARBLK_TESTS_MODEL_H

#include "tests/support.h"

struct model {
    struct farblk *dev[2]; /* two handles, used at random; may be the same */
    struct trouble *trouble;
    struct rng rng;
    uint64_t seed;
    unsigned step;
    uint32_t sector_size;
    uint64_t first; /* the model's own sectors: first ... first + span */
    uint64_t span;
    bool may_resize; /* it owns the whole device, first is 0 */
    bool can_resize; /* the device can */
    bool exact; /* the driver's seeks are exact */
    bool discard_zeroes;
    uint64_t size; /* of the device now, when may_resize */
    uint8_t *data; /* span sectors */
    uint8_t *buffer; /* as large */
    bool *mapped; /* when exact: of each sector */
};

/* Whole device of `span` sectors at most (may_resize), or a part of it.  All
 * zeros and unmapped. */
void model_init(struct model *model, struct farblk *one, struct farblk *two,
                struct trouble *trouble, uint64_t seed, uint64_t first,
                uint64_t span, uint64_t size, bool may_resize, bool exact);
void model_fini(struct model *model);

/* One random operation on both, compared.  False when they differ. */
bool model_step(struct model *model);

/* Compare all of it. */
bool model_compare(struct model *model);

#endif
