/* SPDX-License-Identifier: ISC */
/*
 * The command's walk over extents, against a plain array: random maps, sectors
 * and units of different size, ends within a unit, answers cut anywhere.
 */
#include "tools/scan.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

#define SECTORS 2000

static uint32_t
draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* Answer with extents of `map`, at most `most` of them. */
static uint64_t
answer(const unsigned char *map, uint64_t sector, uint64_t count, uint64_t most,
       struct farblk_extent *batch)
{
    uint64_t end = sector + count, filled = 0;

    while (sector < end && filled < most) {
        struct farblk_extent extent = {.start = sector, .mapped = map[sector]};

        while (sector < end && map[sector] == extent.mapped)
            sector++;
        extent.count = sector - extent.start;
        /* Neighbours may be of one kind. */
        if (extent.count > 3 && extent.start % 5 == 0) {
            extent.count -= 2;
            sector -= 2;
        }
        batch[filled++] = extent;
    }
    return filled;
}

/* Walk the map and compare each unit with the array. */
static void
walk(uint64_t seed, uint32_t sector_size, uint32_t unit, uint64_t limit)
{
    static unsigned char map[SECTORS];
    struct scan *scan = malloc(sizeof *scan);
    struct farblk_extent *batch;
    uint64_t at = 0, end, sector, count, state = seed;
    uint32_t scale = 1 + draw(&state) % 60;
    bool mapped;

    assert_non_null(scan);
    for (size_t i = 0; i < SECTORS; i++)
        map[i] =
            i > 0 && draw(&state) % scale != 0 ? map[i - 1] : draw(&state) % 2;
    scan_begin(scan, sector_size, unit, limit);
    while (at < limit) {
        while (!scan_look(scan, at, &mapped, &end)) {
            assert_true(scan_wants(scan, &sector, &count, &batch));
            assert_false(scan_wants(scan, &sector, &count, &batch));
            assert_true(scan_answer(scan, answer(map, sector, count,
                                                 1 + draw(&state) % SCAN_BATCH,
                                                 batch)));
        }
        assert_true(end > at && end <= limit);
        assert_true(end == limit || end % unit == 0);
        for (; at < end; at += unit) {
            bool any = false;

            for (uint64_t in = at; in < at + unit && in < limit;
                 in += sector_size)
                any = any || map[in / sector_size];
            if (any != mapped)
                print_error("seed %llu at %llu\n", (unsigned long long)seed,
                            (unsigned long long)at);
            assert_int_equal(any, mapped);
        }
        at = end;
        /* Now and then, ask ahead. */
        if (draw(&state) % 2 == 0 && scan_wants(scan, &sector, &count, &batch))
            assert_true(scan_answer(
                scan, answer(map, sector, count, SCAN_BATCH, batch)));
    }
    assert_false(scan_wants(scan, &sector, &count, &batch));
    free(scan);
}

static void
runs_are_those_of_the_map(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        walk(seed, 512, 512, SECTORS * 512u);
        walk(seed, 512, 4096, SECTORS * 512u);
        walk(seed, 512, 4096, (SECTORS - 3) * 512u);
        walk(seed, 4096, 4096, SECTORS * 4096u);
        walk(seed, 4096, 4096, SECTORS * 4096u - 512);
        walk(seed, 1024, 65536, SECTORS * 1024u - 512);
        walk(seed, 512, 512, 512);
    }
}

static void
answers_out_of_order_are_refused(void **state)
{
    struct scan *scan = malloc(sizeof *scan);
    static const struct {
        uint64_t count;
        struct farblk_extent extent[2];
    } bad[] = {
        {.count = 0},
        {.count = SCAN_BATCH + 1},
        {.count = 1, .extent = {{.start = 1, .count = 1}}},
        {.count = 1, .extent = {{.start = 0, .count = 0}}},
        {.count = 1, .extent = {{.start = 0, .count = 101}}},
        {.count = 1, .extent = {{.start = 0, .count = UINT64_MAX}}},
        {.count = 2, .extent = {{0, 50, 1, 0}, {51, 10, 0, 0}}},
        {.count = 2, .extent = {{0, 50, 1, 0}, {50, UINT64_MAX, 0, 0}}},
    };

    (void)state;
    assert_non_null(scan);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct farblk_extent *batch;
        uint64_t sector, count;

        scan_begin(scan, 512, 512, 100 * 512);
        assert_true(scan_wants(scan, &sector, &count, &batch));
        assert_int_equal(sector, 0);
        assert_int_equal(count, 100);
        batch[0] = bad[i].extent[0];
        batch[1] = bad[i].extent[1];
        assert_false(scan_answer(scan, bad[i].count));
    }
    free(scan);
}

static void
a_fixed_scan_asks_nothing(void **state)
{
    struct scan *scan = malloc(sizeof *scan);
    struct farblk_extent *batch;
    uint64_t sector, count, end;
    bool mapped = true;

    (void)state;
    assert_non_null(scan);
    scan_begin(scan, 512, 512, 1 << 20);
    scan_fix(scan, false);
    assert_false(scan_wants(scan, &sector, &count, &batch));
    assert_true(scan_look(scan, 0, &mapped, &end));
    assert_false(mapped);
    assert_int_equal(end, 1 << 20);
    free(scan);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_are_those_of_the_map),
        cmocka_unit_test(answers_out_of_order_are_refused),
        cmocka_unit_test(a_fixed_scan_asks_nothing),
    };

    return cmocka_run_group_tests_name("tool_scan", tests, NULL, NULL);
}
