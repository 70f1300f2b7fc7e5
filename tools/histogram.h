/* SPDX-License-Identifier: ISC */
/*
 * A histogram of times, from 1 ns to centuries, with a bounded relative error
 * and in constant memory.
 *
 * Log-linear, as HdrHistogram's: each power of two is divided into 128 equal
 * buckets, so a bucket's width is at most 1/128 (0.8 %) of any value in it.
 * Every value is counted; none is sampled, and none is too large.  Count, sum,
 * smallest and largest are exact.  One thread records; threads merge later.
 */
#ifndef FARBLK_TOOLS_HISTOGRAM_H
#define FARBLK_TOOLS_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BITS 7
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_BITS + 1) << HISTOGRAM_BITS)

/* All zero is empty. */
struct histogram {
    uint64_t count, sum, min, max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_record(struct histogram *histogram, uint64_t value);
void histogram_merge(struct histogram *into, const struct histogram *from);

/* The smallest value that at least `fraction` (0 ... 1) of all values do not
 * exceed: never too small, and at most 1/128 too large.  0 when empty. */
uint64_t histogram_quantile(const struct histogram *histogram, double fraction);

/* Arithmetic mean; 0 when empty. */
double histogram_mean(const struct histogram *histogram);

/* How many values are in [2^power, 2^(power + 1)); exact.  0 counts in power
 * 0. */
uint64_t histogram_power(const struct histogram *histogram, unsigned power);

#endif
