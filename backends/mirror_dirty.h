/* SPDX-License-Identifier: ISC */
/*
 * What is still to be copied: a set of octets as ranges in order.
 *
 * Bounded: when there are more ranges than fit, the two that are nearest to
 * each other become one, and what lies between them is copied once too often.
 * Not thread-safe.
 */
#ifndef FARBLK_BACKENDS_MIRROR_DIRTY_H
#define FARBLK_BACKENDS_MIRROR_DIRTY_H

#include <stddef.h>
#include <stdint.h>

#define MIRROR_DIRTY_MAX 256

struct mirror_range {
    uint64_t start, end;
};

/* Zeroed: empty.  Ranges are not empty, in order, and do not touch. */
struct mirror_dirty {
    size_t count;
    struct mirror_range range[MIRROR_DIRTY_MAX + 1];
};

void mirror_dirty_add(struct mirror_dirty *dirty, uint64_t start, uint64_t end);

/* Take the first `length` octets of the first range, which has as many. */
void mirror_dirty_take(struct mirror_dirty *dirty, uint64_t length);

/* Forget what lies at or behind `size`. */
void mirror_dirty_cut(struct mirror_dirty *dirty, uint64_t size);

uint64_t mirror_dirty_octets(const struct mirror_dirty *dirty);

#endif
