/* SPDX-License-Identifier: ISC */
/* The histogram of farblk bench: its bounds, against sorted arrays. */
#include "tools/histogram.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define VALUES 20000

static uint64_t
test_histogram_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static int
test_histogram_order(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

    return left < right ? -1 : left > right;
}

static struct histogram *
test_histogram_new(void)
{
    struct histogram *histogram = calloc(1, sizeof *histogram);

    assert_non_null(histogram);
    return histogram;
}

static void
an_empty_histogram_says_zero(void **state)
{
    struct histogram *histogram = test_histogram_new();

    (void)state;
    assert_int_equal(histogram_quantile(histogram, 0.5), 0);
    assert_true(histogram_mean(histogram) == 0);
    free(histogram);
}

/* Each value alone: told exactly, for it is both smallest and largest; and as
 * one of three, within the bound. */
static void
any_value_is_told_within_one_percent(void **state)
{
    struct histogram *histogram = test_histogram_new();

    (void)state;
    for (unsigned power = 0; power < 64; power++)
        for (int off = -1; off <= 1; off++) {
            uint64_t value = ((uint64_t)1 << power) + (uint64_t)off, told;

            memset(histogram, 0, sizeof *histogram);
            histogram_record(histogram, value);
            assert_true(histogram_quantile(histogram, 0.5) == value);
            assert_true(histogram->min == value && histogram->max == value);
            memset(histogram, 0, sizeof *histogram);
            histogram_record(histogram, 0);
            histogram_record(histogram, value);
            histogram_record(histogram, UINT64_MAX);
            told = histogram_quantile(histogram, 0.5);
            assert_true(told >= value);
            assert_true((double)(told - value) <= 0.01 * (double)value);
        }
    free(histogram);
}

static void
quantiles_are_those_of_the_sorted_values(void **state)
{
    static const double fractions[] = {0,    0.001, 0.1,    0.5, 0.9,
                                       0.99, 0.999, 0.9999, 1};
    static uint64_t values[VALUES];
    struct histogram *histogram = test_histogram_new();
    uint64_t seed = 88172645463325252u;
    double sum = 0;

    (void)state;
    for (size_t i = 0; i < VALUES; i++) {
        values[i] = test_histogram_random(&seed)
                    >> (24 + test_histogram_random(&seed) % 32);
        sum += (double)values[i];
        histogram_record(histogram, values[i]);
    }
    qsort(values, VALUES, sizeof *values, test_histogram_order);
    for (size_t i = 0; i < sizeof fractions / sizeof *fractions; i++) {
        size_t rank = (size_t)ceil(fractions[i] * VALUES);
        uint64_t exact = values[rank == 0 ? 0 : rank - 1];
        uint64_t told = histogram_quantile(histogram, fractions[i]);

        assert_true(told >= exact);
        assert_true((double)(told - exact) <= 0.01 * (double)exact);
    }
    assert_true(histogram->count == VALUES);
    assert_true(histogram->min == values[0]);
    assert_true(histogram->max == values[VALUES - 1]);
    assert_true(fabs(histogram_mean(histogram) - sum / VALUES)
                <= 1e-9 * sum / VALUES);
    free(histogram);
}

static void
merging_is_recording_into_one(void **state)
{
    struct histogram *one = test_histogram_new();
    struct histogram *parts[3], *merged = test_histogram_new();
    uint64_t seed = 2463534242u;

    (void)state;
    for (size_t i = 0; i < 3; i++)
        parts[i] = test_histogram_new();
    /* The third stays empty. */
    for (size_t i = 0; i < VALUES; i++) {
        uint64_t value = test_histogram_random(&seed) % 1000000;

        histogram_record(one, value);
        histogram_record(parts[i % 2], value);
    }
    for (size_t i = 0; i < 3; i++) {
        histogram_merge(merged, parts[i]);
        free(parts[i]);
    }
    assert_memory_equal(one, merged, sizeof *one);
    free(one);
    free(merged);
}

static void
powers_of_two_hold_every_value_once(void **state)
{
    struct histogram *histogram = test_histogram_new();
    uint64_t sum = 0;

    (void)state;
    for (uint64_t i = 0; i < 5000; i++)
        histogram_record(histogram, i);
    histogram_record(histogram, UINT64_MAX);
    for (unsigned i = 0; i < 64; i++)
        sum += histogram_power(histogram, i);
    assert_true(sum == 5001);
    assert_true(histogram_power(histogram, 0) == 2);
    assert_true(histogram_power(histogram, 6) == 64);
    assert_true(histogram_power(histogram, 10) == 1024);
    assert_true(histogram_power(histogram, 12) == 5000 - 4096);
    assert_true(histogram_power(histogram, 63) == 1);
    free(histogram);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_histogram_says_zero),
        cmocka_unit_test(any_value_is_told_within_one_percent),
        cmocka_unit_test(quantiles_are_those_of_the_sorted_values),
        cmocka_unit_test(merging_is_recording_into_one),
        cmocka_unit_test(powers_of_two_hold_every_value_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
