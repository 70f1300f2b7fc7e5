/* SPDX-License-Identifier: ISC */
/*
 * The arithmetic of the histogram.  Values below 2^HISTOGRAM_BITS have a bucket
 * each; from there on, bucket (s + 1) * 2^BITS + m holds the values whose BITS
 * bits below the leading one are m, shifted left by s.
 */
#include "tools/histogram.h"

#include <math.h>

#define HISTOGRAM_PART (1u << HISTOGRAM_BITS)

static unsigned
histogram_index(uint64_t value)
{
    unsigned shift;

    if (value < HISTOGRAM_PART)
        return (unsigned)value;
    shift = 63 - (unsigned)__builtin_clzll(value) - HISTOGRAM_BITS;
    return (shift << HISTOGRAM_BITS) + (unsigned)(value >> shift);
}

/* The largest value that the bucket holds. */
static uint64_t
histogram_last(unsigned index)
{
    unsigned shift;
    uint64_t first;

    if (index < 2 * HISTOGRAM_PART)
        return index;
    shift = (index >> HISTOGRAM_BITS) - 1;
    first = (uint64_t)(index - (shift << HISTOGRAM_BITS)) << shift;
    return first + (((uint64_t)1 << shift) - 1);
}

void
histogram_record(struct histogram *histogram, uint64_t value)
{
    if (histogram->count == 0 || value < histogram->min)
        histogram->min = value;
    if (value > histogram->max)
        histogram->max = value;
    histogram->count++;
    histogram->sum += value;
    histogram->buckets[histogram_index(value)]++;
}

void
histogram_merge(struct histogram *into, const struct histogram *from)
{
    if (from->count == 0)
        return;
    if (into->count == 0 || from->min < into->min)
        into->min = from->min;
    if (from->max > into->max)
        into->max = from->max;
    into->count += from->count;
    into->sum += from->sum;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
}

uint64_t
histogram_quantile(const struct histogram *histogram, double fraction)
{
    uint64_t rank = (uint64_t)ceil(fraction * (double)histogram->count);
    uint64_t below = 0, value;

    if (histogram->count == 0)
        return 0;
    if (rank <= 1)
        return histogram->min;
    if (rank >= histogram->count)
        return histogram->max;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        below += histogram->buckets[i];
        if (below >= rank) {
            value = histogram_last(i);
            return value < histogram->max ? value : histogram->max;
        }
    }
    return histogram->max;
}

double
histogram_mean(const struct histogram *histogram)
{
    if (histogram->count == 0)
        return 0;
    return (double)histogram->sum / (double)histogram->count;
}

uint64_t
histogram_power(const struct histogram *histogram, unsigned power)
{
    uint64_t count = power == 0 ? histogram->buckets[0] : 0;
    unsigned first = histogram_index((uint64_t)1 << power);
    unsigned last =
        power == 63 ? HISTOGRAM_BUCKETS : histogram_index((uint64_t)2 << power);

    for (unsigned i = first; i < last; i++)
        count += histogram->buckets[i];
    return count;
}
