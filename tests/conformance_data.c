/* SPDX-License-Identifier: ISC */
/*
 * Conformance: octets.  What is written is read back, by anyone, in any split.
 */
#include "tests/conformance.h"

#include <stdio.h>

#define SECTORS 2048u
#define SECTOR 512u

static void
fresh_device_reads_as_zero(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");

    conformance_expect_zero(dev, 0, SECTORS, SECTOR);
    rig_destroy(rig);
}

static void
what_is_written_is_read_back(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    static const struct {
        uint64_t start, count;
    } runs[] = {{0, 1}, {1, 7}, {8, 8}, {100, 129}, {1000, 513}, {2047, 1}};

    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++)
        conformance_put_pattern(dev, runs[i].start, runs[i].count, SECTOR, i);
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++)
        conformance_expect_pattern(dev, runs[i].start, runs[i].count, SECTOR,
                                   i);
    conformance_expect_zero(dev, 16, 84, SECTOR);
    conformance_expect_zero(dev, 229, 771, SECTOR);
    conformance_expect_zero(dev, 1513, 534, SECTOR);
    rig_destroy(rig);
}

static void
overwriting_changes_these_sectors_alone(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint8_t *all = malloc(SECTORS * SECTOR), *now = malloc(SECTORS * SECTOR);

    assert_non_null(all);
    assert_non_null(now);
    pattern_fill(all, SECTORS * SECTOR, 1);
    ok(support_write(dev, 0, all, SECTORS * SECTOR, 0));
    for (unsigned i = 0; i < 40; i++) {
        uint64_t start = (i * 199u) % (SECTORS - 9), count = 1 + i % 9;

        pattern_fill(all + start * SECTOR, count * SECTOR, 100 + i);
        ok(support_write(dev, start, all + start * SECTOR, count * SECTOR, 0));
    }
    ok(support_read(dev, 0, now, SECTORS * SECTOR));
    assert_memory_equal(now, all, SECTORS * SECTOR);
    free(all);
    free(now);
    rig_destroy(rig);
}

static void
write_is_visible_to_another_handle_at_once(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *one = rig_open(rig, ""), *two = rig_open(rig, "");

    for (unsigned i = 0; i < 20; i++) {
        conformance_put_pattern(one, i * 50, 10, SECTOR, i);
        conformance_expect_pattern(two, i * 50, 10, SECTOR, i);
        conformance_put_pattern(two, i * 50, 5, SECTOR, 100 + i);
        conformance_expect_pattern(one, i * 50, 5, SECTOR, 100 + i);
    }
    rig_destroy(rig);
}

/* What a server exports is the device itself, not a copy. */
static void
written_data_is_in_the_storage_after_a_flush(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, ""), *storage = NULL;
    char uri[RIG_URI + 16];
    bool mine = rig->way.transport == LOCAL || rig->way.transport == INPROC;

    conformance_put_pattern(dev, 3, 100, SECTOR, 1);
    ok(farblk_flush(dev));
    if (rig->path[0] != '\0' || mine) {
        snprintf(uri, sizeof uri, "%s&ro=1", rig->direct);
        ok(farblk_open(uri, NULL, &storage));
        conformance_expect_pattern(storage, 3, 100, SECTOR, 1);
        ok(farblk_close(storage));
    }
    rig_destroy(rig);
}

static void
content_survives_closing_every_handle(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");

    conformance_put_pattern(dev, 0, SECTORS, SECTOR, 1);
    rig_close(rig, dev);
    dev = rig_open(rig, "");
    conformance_expect_pattern(dev, 0, SECTORS, SECTOR, 1);
    rig_destroy(rig);
}

static void
callers_buffer_may_be_reused_on_return(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint8_t buffer[64 * SECTOR];

    for (unsigned i = 0; i < 32; i++) {
        pattern_fill(buffer, sizeof buffer, i);
        ok(support_write(dev, i * 64, buffer, sizeof buffer, 0));
        memset(buffer, 0xee, sizeof buffer);
    }
    for (unsigned i = 0; i < 32; i++)
        conformance_expect_pattern(dev, i * 64, 64, SECTOR, i);
    rig_destroy(rig);
}

static void
more_buffers_than_iov_max_are_fine(void **way)
{
    enum { COUNT = 3000 };
    struct rig *rig = conformance_rig(way, 4096, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint8_t *out = malloc(COUNT * SECTOR), *in = calloc(COUNT, SECTOR);
    struct iovec *iov = calloc(COUNT, sizeof *iov);

    assert_true(out != NULL && in != NULL && iov != NULL);
    pattern_fill(out, COUNT * SECTOR, 1);
    for (size_t i = 0; i < COUNT; i++)
        iov[i] = (struct iovec){out + i * SECTOR, SECTOR};
    ok(farblk_write(dev, 1000, iov, COUNT, 0));
    /* Read them back to front, so that nothing can be merged. */
    for (size_t i = 0; i < COUNT; i++)
        iov[i] = (struct iovec){in + (COUNT - 1 - i) * SECTOR, SECTOR};
    ok(farblk_read(dev, 1000, iov, COUNT));
    for (size_t i = 0; i < COUNT; i++)
        assert_memory_equal(in + (COUNT - 1 - i) * SECTOR, out + i * SECTOR,
                            SECTOR);
    conformance_expect_zero(dev, 0, 1000, SECTOR);
    free(out);
    free(in);
    free(iov);
    rig_destroy(rig);
}

static void
transfer_above_the_limit_is_split(void **way)
{
    struct rig *rig = conformance_rig(way, 65536, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    size_t length = 20u << 20, piece = 5 * SECTOR, count = 0;
    uint8_t *out = malloc(length), *in = malloc(length);
    struct iovec *iov = calloc(length / piece + 1, sizeof *iov);

    assert_true(out != NULL && in != NULL && iov != NULL);
    assert_true(support_info(dev).max_transfer < length);
    pattern_fill(out, length, 1);
    /* In many buffers whose borders are not those of the pieces... */
    for (size_t at = 0; at < length; at += piece)
        iov[count++] =
            (struct iovec){out + at, length - at < piece ? length - at : piece};
    ok(farblk_write(dev, 12345, iov, count, FARBLK_FUA));
    memset(in, 0, length);
    ok(support_read(dev, 12345, in, length));
    assert_memory_equal(in, out, length);
    /* ... and the other way round. */
    pattern_fill(out, length, 2);
    ok(support_write(dev, 1, out, length, 0));
    for (size_t i = 0; i < count; i++)
        iov[i].iov_base = in + ((uint8_t *)iov[i].iov_base - out);
    memset(in, 0, length);
    ok(farblk_read(dev, 1, iov, count));
    assert_memory_equal(in, out, length);
    free(out);
    free(in);
    free(iov);
    rig_destroy(rig);
}

static void
every_sector_size_works(void **way)
{
    static const uint32_t sizes[] = {512, 4096, 65536};

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint32_t size = sizes[i];
        struct rig *rig = conformance_rig(way, 100, size);
        struct farblk *dev = rig_open(rig, "");
        struct farblk_info info = support_info(dev);
        struct farblk_extent extent;

        assert_int_equal(info.sector_size, size);
        assert_int_equal(info.size_sectors, 100);
        assert_int_equal(info.max_transfer % size, 0);
        conformance_put_pattern(dev, 98, 2, size, 1);
        conformance_put_pattern(dev, 13, 1, size, 2);
        conformance_expect_pattern(dev, 98, 2, size, 1);
        conformance_expect_pattern(dev, 13, 1, size, 2);
        conformance_expect_zero(dev, 0, 13, size);
        conformance_expect_zero(dev, 14, 84, size);
        ok(farblk_write_zeroes(dev, 13, 1, 0));
        conformance_expect_zero(dev, 0, 98, size);
        fails_with(FARBLK_INVALID, farblk_extents(dev, 99, 2, &extent, 1));
        rig_destroy(rig);
    }
}

static void
flush_and_fua_and_sync_handles_work(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, ""), *sync = rig_open(rig, "sync=1");
    uint8_t buffer[8 * SECTOR];

    ok(farblk_flush(dev));
    pattern_fill(buffer, sizeof buffer, 1);
    ok(support_write(dev, 0, buffer, sizeof buffer, FARBLK_FUA));
    ok(support_write(sync, 8, buffer, sizeof buffer, 0));
    ok(farblk_write_zeroes(dev, 4, 2, FARBLK_FUA));
    ok(farblk_write_zeroes(sync, 12, 2, 0));
    ok(farblk_discard(dev, 6, 2, FARBLK_FUA));
    if (support_info(sync).features & FARBLK_CAN_RESIZE)
        ok(farblk_resize(sync, SECTORS * 2));
    ok(farblk_flush(dev));
    ok(farblk_flush(sync));
    conformance_expect_pattern(dev, 0, 4, SECTOR, 1);
    conformance_expect_zero(dev, 4, 2, SECTOR);
    conformance_expect_pattern(sync, 8, 4, SECTOR, 1);
    rig_destroy(rig);
}

static void
zeroed_sectors_read_as_zero_and_neighbours_stay(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    static const uint32_t flags[] = {0, FARBLK_NO_UNMAP, FARBLK_FUA,
                                     FARBLK_NO_UNMAP | FARBLK_FUA};
    uint8_t all[64 * SECTOR], now[64 * SECTOR];

    for (unsigned i = 0; i < 4; i++) {
        uint64_t start = i * 64u;

        pattern_fill(all, sizeof all, i);
        ok(support_write(dev, start, all, sizeof all, 0));
        ok(farblk_write_zeroes(dev, start + 3, 1, flags[i]));
        ok(farblk_write_zeroes(dev, start + 9, 50, flags[i]));
        memset(all + 3 * SECTOR, 0, SECTOR);
        memset(all + 9 * SECTOR, 0, 50 * SECTOR);
        ok(support_read(dev, start, now, sizeof now));
        assert_memory_equal(now, all, sizeof all);
    }
    /* All of it, though it is longer than one piece may be. */
    ok(farblk_write_zeroes(dev, 0, SECTORS, 0));
    conformance_expect_zero(dev, 0, SECTORS, SECTOR);
    rig_destroy(rig);
}

static void
discarded_sectors_read_as_zero_where_announced(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint64_t features = support_info(dev).features;
    uint8_t all[256 * SECTOR], now[256 * SECTOR];

    pattern_fill(all, sizeof all, 1);
    ok(support_write(dev, 0, all, sizeof all, 0));
    if (!(features & FARBLK_CAN_DISCARD)) {
        fails_with(FARBLK_UNIMPLEMENTED, farblk_discard(dev, 5, 100, 0));
        rig_destroy(rig);
        return;
    }
    ok(farblk_discard(dev, 5, 1, 0));
    ok(farblk_discard(dev, 13, 200, FARBLK_FUA));
    ok(support_read(dev, 0, now, sizeof now));
    memset(all + 5 * SECTOR, 0, SECTOR);
    memset(all + 13 * SECTOR, 0, 200 * SECTOR);
    if (!(features & FARBLK_DISCARD_ZEROES)) {
        memset(now + 5 * SECTOR, 0, SECTOR);
        memset(now + 13 * SECTOR, 0, 200 * SECTOR);
    }
    assert_memory_equal(now, all, sizeof all);
    rig_destroy(rig);
}

static void
discarded_sectors_can_be_written_again(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");

    conformance_put_pattern(dev, 0, SECTORS, SECTOR, 1);
    if (support_info(dev).features & FARBLK_CAN_DISCARD)
        ok(farblk_discard(dev, 0, SECTORS, 0));
    conformance_put_pattern(dev, 500, 30, SECTOR, 2);
    conformance_expect_pattern(dev, 500, 30, SECTOR, 2);
    rig_destroy(rig);
}

static void
device_memory_works_in_any_request(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    size_t size = 100 * SECTOR;
    uint8_t *buffer = farblk_buffer_alloc(dev, size);

    assert_non_null(buffer);
    assert_int_equal((uintptr_t)buffer % 4096, 0);
    pattern_fill(buffer, size, 1);
    ok(support_write(dev, 9, buffer, size, 0));
    memset(buffer, 0, size);
    ok(support_read(dev, 9, buffer, size));
    assert_int_equal(pattern_check(buffer, size, 1), size);
    farblk_buffer_free(dev, buffer, size);
    assert_null(farblk_buffer_alloc(dev, 0));
    assert_string_not_equal(farblk_last_text(), "");
    rig_destroy(rig);
}

const struct conformance_case conformance_data[] = {
    CONFORMANCE(fresh_device_reads_as_zero),
    CONFORMANCE(what_is_written_is_read_back),
    CONFORMANCE(overwriting_changes_these_sectors_alone),
    CONFORMANCE(write_is_visible_to_another_handle_at_once),
    CONFORMANCE(written_data_is_in_the_storage_after_a_flush),
    CONFORMANCE(content_survives_closing_every_handle),
    CONFORMANCE(callers_buffer_may_be_reused_on_return),
    CONFORMANCE(more_buffers_than_iov_max_are_fine),
    CONFORMANCE(transfer_above_the_limit_is_split),
    CONFORMANCE(every_sector_size_works),
    CONFORMANCE(flush_and_fua_and_sync_handles_work),
    CONFORMANCE(zeroed_sectors_read_as_zero_and_neighbours_stay),
    CONFORMANCE(discarded_sectors_read_as_zero_where_announced),
    CONFORMANCE(discarded_sectors_can_be_written_again),
    CONFORMANCE(device_memory_works_in_any_request),
    CONFORMANCE_END,
};
