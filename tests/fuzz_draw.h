/* SPDX-License-Identifier: ISC */
/*
 * Inputs that are read as a program: values drawn from it one after the other.
 * For the one file of a target that includes this.
 */
#ifndef FARBLK_TESTS_FUZZ_DRAW_H
#define FARBLK_TESTS_FUZZ_DRAW_H

#include <stddef.h>
#include <stdint.h>

static const uint8_t *input; /* what was not drawn yet */
static size_t left; /* octets of it */

/* The next octets of the input; zeros when there are no more. */
static uint64_t
draw(unsigned octets)
{
    uint64_t value = 0;
    while (octets-- > 0) {
        value = value << 8 | (left > 0 ? *input++ : 0);
        left -= left > 0;
    }
    return value;
}

/* A number of some kind: small, near a limit, or anything. */
static uint64_t
draw_number(void)
{
    uint64_t kind = draw(1);
    if (kind < 200)
        return kind;
    return kind < 220   ? UINT64_MAX - draw(1)
           : kind < 235 ? (UINT64_C(1) << kind % 64) - draw(1)
                        : draw(8);
}

#endif
