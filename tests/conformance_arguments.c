/* SPDX-License-Identifier: ISC */
/*
 * Conformance: arguments.  Ranges, buffers, flags, and the order in which they
 * are checked.
 */
#include "tests/conformance.h"

#include <limits.h>

#define SECTORS 64u
#define SECTOR 512u

/* Starts whose end is past any device, or past what 64 bits hold. */
static const uint64_t far_starts[] = {
    SECTORS + 1,
    UINT32_MAX,
    (uint64_t)UINT32_MAX + 1,
    INT64_MAX / 512,
    INT64_MAX / 512 + 1,
    INT64_MAX,
    (uint64_t)INT64_MAX + 1,
    UINT64_MAX / 512,
    UINT64_MAX / 512 + 1,
    UINT64_MAX - 1,
    UINT64_MAX,
};
#define FAR_STARTS (sizeof far_starts / sizeof *far_starts)

static void
read_past_the_end_is_invalid_and_transfers_nothing(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint8_t buffer[8 * SECTOR], before[8 * SECTOR];

    memset(buffer, 0xaa, sizeof buffer);
    memset(before, 0xaa, sizeof before);
    fails_with(FARBLK_INVALID, support_read(dev, 60, buffer, sizeof buffer));
    text_has("read");
    text_has("64");
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
    fails_with(FARBLK_INVALID, support_read(dev, SECTORS, buffer, SECTOR));
    assert_memory_equal(buffer, before, sizeof buffer);
    ok(support_read(dev, 56, buffer, sizeof buffer));
    rig_destroy(rig);
}

static void
write_past_the_end_is_invalid_and_extends_nothing(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint8_t buffer[8 * SECTOR];

    conformance_put_pattern(dev, 0, SECTORS, SECTOR, 1);
    memset(buffer, 0xaa, sizeof buffer);
    fails_with(FARBLK_INVALID,
               support_write(dev, 60, buffer, sizeof buffer, 0));
    text_has("write");
    text_has("64");
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
    fails_with(FARBLK_INVALID, support_write(dev, SECTORS, buffer, SECTOR, 0));
    assert_int_equal(support_info(dev).size_sectors, SECTORS);
    conformance_expect_pattern(dev, 0, SECTORS, SECTOR, 1);
    rig_destroy(rig);
}

/* Its first pieces would fit: they must not be written all the same. */
static void
split_write_past_the_end_changes_nothing(void **way)
{
    struct rig *rig = conformance_rig(way, 40000, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    size_t length = 40000u * SECTOR;
    uint8_t *buffer = malloc(length);

    assert_non_null(buffer);
    pattern_fill(buffer, length, 2);
    fails_with(FARBLK_INVALID, support_write(dev, 1, buffer, length, 0));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
    fails_with(FARBLK_INVALID, farblk_discard(dev, 1, 40000, 0));
    fails_with(FARBLK_INVALID, farblk_write_zeroes(dev, 1, 40000, 0));
    ok(support_read(dev, 0, buffer, length));
    assert_true(pattern_is_zero(buffer, length));
    free(buffer);
    rig_destroy(rig);
}

static void
start_plus_length_never_overflows(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint8_t buffer[2 * SECTOR] = {0};
    struct farblk_extent extent;
    uint64_t sector;

    for (size_t i = 0; i < FAR_STARTS; i++) {
        uint64_t start = far_starts[i];

        fails_with(FARBLK_INVALID, support_read(dev, start, buffer, SECTOR));
        fails_with(FARBLK_INVALID,
                   support_write(dev, start, buffer, sizeof buffer, 0));
        fails_with(FARBLK_INVALID, farblk_discard(dev, start, 1, 0));
        fails_with(FARBLK_INVALID, farblk_write_zeroes(dev, start, 1, 0));
        fails_with(FARBLK_INVALID, farblk_extents(dev, start, 1, &extent, 1));
        fails_with(FARBLK_INVALID, farblk_seek_mapped(dev, start, &sector));
        fails_with(FARBLK_INVALID, farblk_seek_unmapped(dev, start, &sector));
    }
    for (size_t i = 0; i < FAR_STARTS; i++) {
        uint64_t count = far_starts[i];

        fails_with(FARBLK_INVALID, farblk_discard(dev, 1, count, 0));
        fails_with(FARBLK_INVALID, farblk_write_zeroes(dev, 1, count, 0));
        fails_with(FARBLK_INVALID, farblk_write_zeroes(dev, count, count, 0));
        fails_with(FARBLK_INVALID, farblk_extents(dev, 1, count, &extent, 1));
    }
    assert_int_equal(support_info(dev).size_sectors, SECTORS);
    rig_destroy(rig);
}

static void
empty_list_is_fine_up_to_the_size(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct iovec empty[2] = {{NULL, 0}, {&empty, 0}};

    for (size_t n = 0; n <= 2; n++) {
        ok(farblk_read(dev, 0, n != 0 ? empty : NULL, n));
        ok(farblk_read(dev, SECTORS, n != 0 ? empty : NULL, n));
        ok(farblk_write(dev, 0, n != 0 ? empty : NULL, n, 0));
        ok(farblk_write(dev, SECTORS, n != 0 ? empty : NULL, n, FARBLK_FUA));
        for (size_t i = 0; i < FAR_STARTS; i++) {
            fails_with(FARBLK_INVALID, farblk_read(dev, far_starts[i],
                                                   n != 0 ? empty : NULL, n));
            fails_with(
                FARBLK_INVALID,
                farblk_write(dev, far_starts[i], n != 0 ? empty : NULL, n, 0));
        }
    }
    rig_destroy(rig);
}

static void
empty_ranges_are_fine_up_to_the_size(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint64_t features = support_info(dev).features;
    struct farblk_extent extent;

    conformance_put_pattern(dev, 0, SECTORS, SECTOR, 3);
    if (features & FARBLK_CAN_DISCARD) {
        ok(farblk_discard(dev, 0, 0, 0));
        ok(farblk_discard(dev, SECTORS, 0, 0));
        fails_with(FARBLK_INVALID, farblk_discard(dev, SECTORS + 1, 0, 0));
    }
    ok(farblk_write_zeroes(dev, 0, 0, 0));
    ok(farblk_write_zeroes(dev, SECTORS, 0, 0));
    fails_with(FARBLK_INVALID, farblk_write_zeroes(dev, SECTORS + 1, 0, 0));
    assert_int_equal(ok(farblk_extents(dev, 5, 0, &extent, 1)), 0);
    assert_int_equal(ok(farblk_extents(dev, SECTORS, 0, &extent, 1)), 0);
    fails_with(FARBLK_INVALID, farblk_extents(dev, SECTORS + 1, 0, &extent, 1));
    conformance_expect_pattern(dev, 0, SECTORS, SECTOR, 3);
    rig_destroy(rig);
}

static void
zero_length_buffers_in_a_list_are_skipped(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint8_t out[4 * SECTOR], in[4 * SECTOR] = {0};
    struct iovec from[] = {{NULL, 0},
                           {out, SECTOR},
                           {out, 0},
                           {NULL, 0},
                           {out + SECTOR, 3u * SECTOR},
                           {NULL, 0}};
    struct iovec to[] = {
        {in, 2u * SECTOR}, {NULL, 0}, {in + 2u * SECTOR, 2u * SECTOR}};

    pattern_fill(out, sizeof out, 4);
    ok(farblk_write(dev, 7, from, 6, 0));
    ok(farblk_read(dev, 7, to, 3));
    assert_memory_equal(in, out, sizeof out);
    conformance_expect_zero(dev, 0, 7, SECTOR);
    conformance_expect_zero(dev, 11, SECTORS - 11, SECTOR);
    rig_destroy(rig);
}

static void
buffer_that_is_not_whole_sectors_is_invalid(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint8_t out[4 * SECTOR], in[4 * SECTOR], before[4 * SECTOR];
    /* The second list is whole sectors in sum, the third ends well. */
    struct iovec lists[][3] = {
        {{out, SECTOR}, {out, SECTOR}, {out, 1}},
        {{out, SECTOR}, {out, 100}, {out, SECTOR - 100}},
        {{out, SECTOR - 1}, {out, SECTOR}, {out, SECTOR}},
        {{out, SECTOR}, {NULL, 0}, {out, SECTOR + SECTOR / 2}},
    };

    conformance_put_pattern(dev, 0, SECTORS, SECTOR, 5);
    memset(out, 0xaa, sizeof out);
    memset(in, 0xbb, sizeof in);
    memset(before, 0xbb, sizeof before);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        fails_with(FARBLK_INVALID, farblk_write(dev, 8, lists[i], 3, 0));
        assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
        for (size_t k = 0; k < 3; k++)
            if (lists[i][k].iov_base != NULL)
                lists[i][k].iov_base = in;
        fails_with(FARBLK_INVALID, farblk_read(dev, 8, lists[i], 3));
    }
    text_has("512");
    assert_memory_equal(in, before, sizeof in);
    conformance_expect_pattern(dev, 0, SECTORS, SECTOR, 5);
    rig_destroy(rig);
}

static void
buffers_of_more_octets_than_there_are_numbers_are_invalid(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint8_t buffer[SECTOR] = {0};
    size_t huge = SIZE_MAX - (SECTOR - 1);
    struct iovec iov[] = {{buffer, huge}, {buffer, huge}, {buffer, SECTOR}};

    for (size_t n = 1; n <= 3; n++) {
        fails_with(FARBLK_INVALID, farblk_read(dev, 0, iov, n));
        fails_with(FARBLK_INVALID, farblk_write(dev, 0, iov, n, 0));
    }
    fails_with(FARBLK_INVALID, farblk_read(dev, 0, NULL, 1));
    fails_with(FARBLK_INVALID, farblk_write(dev, 0, NULL, 1, 0));
    rig_destroy(rig);
}

static void
checks_come_in_their_order(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "ro=1");
    uint8_t buffer[SECTOR] = {0};

    /* Read-only comes before whole sectors and before the range... */
    fails_with(FARBLK_IS_READ_ONLY, support_write(dev, 0, buffer, 1, 0));
    fails_with(FARBLK_IS_READ_ONLY,
               support_write(dev, UINT64_MAX, buffer, SECTOR, 0));
    fails_with(FARBLK_IS_READ_ONLY, farblk_write(dev, 0, NULL, 0, 0));
    fails_with(FARBLK_IS_READ_ONLY, farblk_discard(dev, UINT64_MAX, 1, 0));
    fails_with(FARBLK_IS_READ_ONLY, farblk_write_zeroes(dev, 0, UINT64_MAX, 0));
    fails_with(FARBLK_IS_READ_ONLY, farblk_resize(dev, UINT64_MAX));
    /* ... but is no matter of reads. */
    fails_with(FARBLK_INVALID, support_read(dev, 0, buffer, 1));
    /* Disconnected comes before all. */
    ok(farblk_disconnect(dev));
    fails_with(FARBLK_DISCONNECTED, support_write(dev, 0, buffer, 1, 0));
    fails_with(FARBLK_DISCONNECTED, support_read(dev, UINT64_MAX, buffer, 1));
    fails_with(FARBLK_DISCONNECTED, farblk_resize(dev, UINT64_MAX));
    rig_destroy(rig);
}

static void
unknown_flags_are_invalid(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint8_t buffer[SECTOR] = {1};

    fails_with(FARBLK_INVALID, support_write(dev, 0, buffer, SECTOR, 1u << 17));
    fails_with(FARBLK_INVALID, farblk_discard(dev, 0, 1, 1u << 31));
    fails_with(FARBLK_INVALID, farblk_write_zeroes(dev, 0, 1, 1u << 17));
    conformance_expect_zero(dev, 0, SECTORS, SECTOR);
    rig_destroy(rig);
}

static void
resize_to_more_octets_than_int64_max_is_invalid(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    int wanted = support_info(dev).features & FARBLK_CAN_RESIZE
                     ? FARBLK_INVALID
                     : FARBLK_UNIMPLEMENTED;

    fails_with(wanted, farblk_resize(dev, INT64_MAX / SECTOR + 1));
    fails_with(wanted, farblk_resize(dev, UINT64_MAX / SECTOR + 2));
    fails_with(wanted, farblk_resize(dev, (uint64_t)INT64_MAX));
    fails_with(wanted, farblk_resize(dev, UINT64_MAX));
    assert_int_equal(support_info(dev).size_sectors, SECTORS);
    rig_destroy(rig);
}

static void
last_text_is_empty_after_a_call_that_did_not_fail(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint8_t buffer[SECTOR];

    fails_with(FARBLK_INVALID, support_read(dev, SECTORS, buffer, SECTOR));
    ok(support_read(dev, 0, buffer, SECTOR));
    assert_string_equal(farblk_last_text(), "");
    rig_destroy(rig);
}

static void
null_results_are_invalid(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_extent extent;

    fails_with(FARBLK_INVALID, farblk_get_info(dev, NULL, 8));
    fails_with(FARBLK_INVALID, farblk_seek_mapped(dev, 0, NULL));
    fails_with(FARBLK_INVALID, farblk_seek_unmapped(dev, 0, NULL));
    fails_with(FARBLK_INVALID, farblk_extents(dev, 0, 1, NULL, 1));
    fails_with(FARBLK_INVALID, farblk_extents(dev, 0, 1, &extent, 0));
    rig_destroy(rig);
}

const struct conformance_case conformance_arguments[] = {
    CONFORMANCE(read_past_the_end_is_invalid_and_transfers_nothing),
    CONFORMANCE(write_past_the_end_is_invalid_and_extends_nothing),
    CONFORMANCE(split_write_past_the_end_changes_nothing),
    CONFORMANCE(start_plus_length_never_overflows),
    CONFORMANCE(empty_list_is_fine_up_to_the_size),
    CONFORMANCE(empty_ranges_are_fine_up_to_the_size),
    CONFORMANCE(zero_length_buffers_in_a_list_are_skipped),
    CONFORMANCE(buffer_that_is_not_whole_sectors_is_invalid),
    CONFORMANCE(buffers_of_more_octets_than_there_are_numbers_are_invalid),
    CONFORMANCE(checks_come_in_their_order),
    CONFORMANCE(unknown_flags_are_invalid),
    CONFORMANCE(resize_to_more_octets_than_int64_max_is_invalid),
    CONFORMANCE(last_text_is_empty_after_a_call_that_did_not_fail),
    CONFORMANCE(null_results_are_invalid),
    CONFORMANCE_END,
};
