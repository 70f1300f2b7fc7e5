/* SPDX-License-Identifier: ISC */
/*
 * Arithmetic on values that come from outside.  No sum or product of such
 * values is computed in any other way.
 */
#ifndef FARBLK_CORE_CHECKED_H
#define FARBLK_CORE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* start + length <= size, without overflow. */
static inline bool
range_within(uint64_t start, uint64_t length, uint64_t size)
{
    return start <= size && length <= size - start;
}

/* *sum = a + b; false on overflow. */
static inline bool
checked_add(uint64_t a, uint64_t b, uint64_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}

/* *product = a * b; false on overflow. */
static inline bool
checked_mul(uint64_t a, uint64_t b, uint64_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

static inline bool
is_power_of_two(uint64_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

static inline uint64_t
min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t
max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* n rounded down or up to a multiple of unit, a power of two.  Rounding up
 * wants n <= UINT64_MAX - unit + 1. */
static inline uint64_t
round_down(uint64_t n, uint64_t unit)
{
    return n & ~(unit - 1);
}

static inline uint64_t
round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) & ~(unit - 1);
}

#endif
