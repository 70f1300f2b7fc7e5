/* SPDX-License-Identifier: ISC */
/*
 * Conformance: what is mapped.  Seeks and extents.
 *
 * Which answers are allowed is one rule for all drivers: everything that does
 * not read as zero is told as mapped.  The ramdisk tells exactly what was
 * written; files may be coarser.
 */
#include "tests/conformance.h"

#include <fcntl.h>
#include <unistd.h>

#define SECTORS 4096u
#define SECTOR 512u
#define EXTENTS 64

struct run {
    uint64_t start, count;
};

/* Sectors apart by more than any file system's block. */
static const struct run runs[] = {{64, 64}, {512, 1}, {1023, 2}, {4032, 64}};
#define RUNS (sizeof runs / sizeof *runs)

static bool
maps_written(uint64_t sector)
{
    for (size_t i = 0; i < RUNS; i++)
        if (sector >= runs[i].start && sector - runs[i].start < runs[i].count)
            return true;
    return false;
}

/* Fill map[0 ... SECTORS) by extents, asking for `max` at once, and check that
 * they are in order, without gaps and within. */
static void
maps_by_extents(struct farblk *dev, size_t max, bool *map)
{
    struct farblk_extent extents[EXTENTS];
    uint64_t at = 0;

    while (at < SECTORS) {
        int count = ok(farblk_extents(dev, at, SECTORS - at, extents, max));

        assert_in_range(count, 1, max);
        for (int i = 0; i < count; i++) {
            assert_int_equal(extents[i].start, at);
            assert_true(extents[i].count > 0);
            assert_true(extents[i].count <= SECTORS - at);
            assert_in_range(extents[i].mapped, 0, 1);
            for (uint64_t k = 0; k < extents[i].count; k++)
                map[at + k] = extents[i].mapped != 0;
            at += extents[i].count;
        }
    }
}

/* The same by seeks. */
static void
maps_by_seeks(struct farblk *dev, bool *map)
{
    uint64_t at = 0;

    while (at < SECTORS) {
        uint64_t mapped, unmapped;

        ok(farblk_seek_mapped(dev, at, &mapped));
        assert_in_range(mapped, at, SECTORS);
        memset(map + at, 0, (mapped - at) * sizeof *map);
        if (mapped == SECTORS)
            return;
        ok(farblk_seek_unmapped(dev, mapped, &unmapped));
        assert_in_range(unmapped, mapped, SECTORS);
        for (at = mapped; at < unmapped; at++)
            map[at] = true;
        if (unmapped == mapped) {
            /* Conservative both ways at one sector: go on behind it. */
            map[mapped] = true;
            at = mapped + 1;
        }
    }
}

static void
maps_check(struct rig *rig, struct farblk *dev, const bool *map)
{
    bool seek = (support_info(dev).features & FARBLK_CAN_SEEK) != 0;
    static uint8_t all[SECTORS * SECTOR];

    ok(support_read(dev, 0, all, sizeof all));
    for (uint64_t i = 0; i < SECTORS; i++) {
        if (maps_written(i) && !map[i])
            fail_msg("sector %llu holds data and is told unmapped",
                     (unsigned long long)i);
        if (rig->way.store->exact && seek && map[i] && !maps_written(i))
            fail_msg("sector %llu was never written and is told mapped",
                     (unsigned long long)i);
        if (!map[i] && !pattern_is_zero(all + i * SECTOR, SECTOR))
            fail_msg("sector %llu is told unmapped and is not zero",
                     (unsigned long long)i);
    }
}

static struct farblk *
maps_prepare(struct rig *rig)
{
    struct farblk *dev = rig_open(rig, "");

    for (size_t i = 0; i < RUNS; i++)
        conformance_put_pattern(dev, runs[i].start, runs[i].count, SECTOR, i);
    return dev;
}

static void
seeks_never_skip_data(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = maps_prepare(rig);
    static bool map[SECTORS];

    maps_by_seeks(dev, map);
    maps_check(rig, dev, map);
    rig_destroy(rig);
}

static void
extents_are_contiguous_and_never_skip_data(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = maps_prepare(rig);
    static bool map[SECTORS];

    maps_by_extents(dev, EXTENTS, map);
    maps_check(rig, dev, map);
    rig_destroy(rig);
}

static void
extents_go_on_where_the_last_call_ended(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = maps_prepare(rig);
    static bool map[SECTORS];

    for (size_t max = 1; max <= 3; max++) {
        memset(map, 0, sizeof map);
        maps_by_extents(dev, max, map);
        maps_check(rig, dev, map);
    }
    rig_destroy(rig);
}

static void
extents_stay_within_what_was_asked(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = maps_prepare(rig);
    struct farblk_extent extents[EXTENTS];

    for (uint64_t start = 0; start < SECTORS; start += 61)
        for (uint64_t count = 1; count <= SECTORS - start; count += 777) {
            uint64_t at = start;
            int n = ok(farblk_extents(dev, start, count, extents, EXTENTS));

            for (int i = 0; i < n; i++) {
                assert_int_equal(extents[i].start, at);
                at += extents[i].count;
                assert_true(extents[i].count > 0 && at <= start + count);
            }
            assert_true(at > start);
        }
    fails_with(FARBLK_INVALID, farblk_extents(dev, 0, SECTORS + 1, extents, 2));
    fails_with(FARBLK_INVALID, farblk_extents(dev, SECTORS, 1, extents, 2));
    rig_destroy(rig);
}

static void
seek_at_the_size_gives_the_size(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = maps_prepare(rig);
    uint64_t sector = 1;

    ok(farblk_seek_mapped(dev, SECTORS, &sector));
    assert_int_equal(sector, SECTORS);
    sector = 1;
    ok(farblk_seek_unmapped(dev, SECTORS, &sector));
    assert_int_equal(sector, SECTORS);
    fails_with(FARBLK_INVALID, farblk_seek_mapped(dev, SECTORS + 1, &sector));
    fails_with(FARBLK_INVALID, farblk_seek_unmapped(dev, SECTORS + 1, &sector));
    rig_destroy(rig);
}

static void
seek_of_what_is_not_there_gives_the_size(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint64_t sector = 1;

    if (support_info(dev).features & FARBLK_CAN_SEEK) {
        ok(farblk_seek_mapped(dev, 17, &sector));
        assert_int_equal(sector, SECTORS);
        ok(farblk_seek_unmapped(dev, 17, &sector));
        assert_int_equal(sector, 17);
    }
    conformance_put_pattern(dev, 0, SECTORS, SECTOR, 1);
    ok(farblk_seek_unmapped(dev, 17, &sector));
    assert_int_equal(sector, SECTORS);
    ok(farblk_seek_mapped(dev, 17, &sector));
    assert_int_equal(sector, 17);
    ok(farblk_seek_mapped(dev, SECTORS - 1, &sector));
    assert_int_equal(sector, SECTORS - 1);
    rig_destroy(rig);
}

static void
writing_zeros_maps_and_reading_does_not(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint8_t zeros[8 * SECTOR] = {0};
    uint64_t sector;

    if (!rig->way.store->exact) {
        rig_destroy(rig);
        return;
    }
    conformance_expect_zero(dev, 0, SECTORS, SECTOR);
    ok(farblk_seek_mapped(dev, 0, &sector));
    assert_int_equal(sector, SECTORS);
    ok(support_write(dev, 101, zeros, sizeof zeros, 0));
    ok(farblk_seek_mapped(dev, 0, &sector));
    assert_int_equal(sector, 101);
    ok(farblk_seek_unmapped(dev, 101, &sector));
    assert_int_equal(sector, 109);
    rig_destroy(rig);
}

static void
zeroing_unmaps_unless_told_not_to(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint64_t sector;

    conformance_put_pattern(dev, 0, SECTORS, SECTOR, 1);
    ok(farblk_write_zeroes(dev, 129, 515, 0));
    ok(farblk_write_zeroes(dev, 1001, 515, FARBLK_NO_UNMAP));
    ok(farblk_discard(dev, 2001, 515, 0));
    conformance_expect_zero(dev, 129, 515, SECTOR);
    conformance_expect_zero(dev, 1001, 515, SECTOR);
    if (rig->way.store->exact) {
        static const uint64_t ends[] = {129, 644, 2001, 2516, SECTORS};
        uint64_t at = 0;

        for (size_t i = 0; i < 5; i++) {
            ok((i % 2 == 0 ? farblk_seek_unmapped
                           : farblk_seek_mapped)(dev, at, &sector));
            assert_int_equal(sector, ends[i]);
            at = sector;
        }
    }
    rig_destroy(rig);
}

/* Sparse by the sector: one of them in the middle of what a driver may keep in
 * one piece. */
static void
single_sectors_are_told_exactly_where_the_driver_can(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint64_t sector;

    for (uint64_t i = 1; i < SECTORS; i += 131) {
        conformance_put_pattern(dev, i, 1, SECTOR, i);
        ok(farblk_seek_mapped(dev, i, &sector));
        assert_int_equal(sector, i);
        if (rig->way.store->exact) {
            ok(farblk_seek_unmapped(dev, i, &sector));
            assert_int_equal(sector, i + 1);
            ok(farblk_seek_mapped(dev, i > 1 ? i - 130 : 0, &sector));
            assert_int_equal(sector, i);
        }
    }
    rig_destroy(rig);
}

/* A file's holes need not end where a large sector does. */
static void
sector_that_is_mapped_in_part_is_mapped(void **way)
{
    enum { LARGE = 65536 };
    struct rig *rig = conformance_rig(way, 100, LARGE);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_extent extents[EXTENTS];
    uint8_t octets[4096];
    uint64_t sector;
    int fd, count;

    if (rig->path[0] == '\0') {
        rig_destroy(rig);
        return;
    }
    fd = open(rig->path, O_WRONLY | O_CLOEXEC);
    memset(octets, 1, sizeof octets);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, octets, sizeof octets, 10 * LARGE + 8192),
                     sizeof octets);
    assert_int_equal(pwrite(fd, octets, sizeof octets, 20 * LARGE + 61440),
                     sizeof octets);
    close(fd);
    for (uint64_t from = 0; from <= 10; from += 5) {
        ok(farblk_seek_mapped(dev, from, &sector));
        assert_in_range(sector, from, 10);
    }
    ok(farblk_seek_unmapped(dev, 10, &sector));
    assert_true(sector > 10);
    ok(farblk_seek_unmapped(dev, 20, &sector));
    assert_true(sector > 20);
    count = ok(farblk_extents(dev, 0, 100, extents, EXTENTS));
    for (int i = 0; i < count; i++)
        if (!extents[i].mapped) {
            assert_false(extents[i].start <= 10
                         && 10 - extents[i].start < extents[i].count);
            assert_false(extents[i].start <= 20
                         && 20 - extents[i].start < extents[i].count);
        }
    rig_destroy(rig);
}

static void
huge_sparse_device_is_walked_by_its_data(void **way)
{
    const uint64_t size = (1ull << 40) / SECTOR;
    const uint64_t spots[] = {77, 1ull << 20, (1ull << 30) + 12345, size - 1};
    struct rig *rig = conformance_rig(way, size, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_extent extents[EXTENTS];
    uint64_t at = 0, mapped = 0;

    for (size_t i = 0; i < 4; i++)
        conformance_put_pattern(dev, spots[i], 1, SECTOR, i);
    for (size_t i = 0; i < 4; i++) {
        uint64_t sector;

        ok(farblk_seek_mapped(dev, i > 0 ? spots[i - 1] + 128 : 0, &sector));
        assert_in_range(spots[i] - sector, 0, 127);
    }
    while (at < size) {
        int n = ok(farblk_extents(dev, at, size - at, extents, EXTENTS));

        assert_true(n > 0);
        for (int i = 0; i < n; i++) {
            assert_int_equal(extents[i].start, at);
            at += extents[i].count;
            mapped += extents[i].mapped ? extents[i].count : 0;
        }
    }
    assert_int_equal(at, size);
    assert_in_range(mapped, 4, 4 * 128);
    for (size_t i = 0; i < 4; i++)
        conformance_expect_pattern(dev, spots[i], 1, SECTOR, i);
    rig_destroy(rig);
}

const struct conformance_case conformance_maps[] = {
    CONFORMANCE(seeks_never_skip_data),
    CONFORMANCE(extents_are_contiguous_and_never_skip_data),
    CONFORMANCE(extents_go_on_where_the_last_call_ended),
    CONFORMANCE(extents_stay_within_what_was_asked),
    CONFORMANCE(seek_at_the_size_gives_the_size),
    CONFORMANCE(seek_of_what_is_not_there_gives_the_size),
    CONFORMANCE(writing_zeros_maps_and_reading_does_not),
    CONFORMANCE(zeroing_unmaps_unless_told_not_to),
    CONFORMANCE(single_sectors_are_told_exactly_where_the_driver_can),
    CONFORMANCE(sector_that_is_mapped_in_part_is_mapped),
    CONFORMANCE(huge_sparse_device_is_walked_by_its_data),
    CONFORMANCE_END,
};
