/* SPDX-License-Identifier: ISC */
/*
 * The nbdkit plugin, callback by callback: what each asks of the library, how
 * statuses come to a client, and what clients are promised.
 */
#include "tests/nbdkit_hand.h"

#define NBDKIT_API_VERSION 2
#include <errno.h>
#include <nbdkit-plugin.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char data[8192];

static void
expect_call(const char *call, uint64_t start, uint64_t count, uint32_t flags)
{
    assert_string_equal(hand.call, call);
    assert_int_equal(hand.start, start);
    assert_int_equal(hand.count, count);
    assert_int_equal(hand.flags, flags);
    hand.call = "none";
}

/* ----------------------------------------------------------------- data */

static void
reads_and_writes_are_the_devices_own(void **state)
{
    void *c = hand_begin();
    (void)state;
    assert_int_equal(plugin->pread(c, data, 4096, 1024, 0), 0);
    expect_call("read", 2, 4096, 0);
    assert_ptr_equal(hand.buffer, data);
    assert_int_equal(plugin->pwrite(c, data, 512, 512, 0), 0);
    expect_call("write", 1, 512, 0);
    assert_ptr_equal(hand.buffer, data);
    assert_int_equal(plugin->flush(c, 0), 0);
    expect_call("flush", 0, 0, 0);
    assert_int_equal(plugin->trim(c, 1024, 4096, 0), 0);
    expect_call("discard", 8, 2, 0);
    plugin->close(c);
}

static void
fua_reaches_the_device(void **state)
{
    void *c = hand_begin();
    (void)state;
    assert_int_equal(plugin->can_fua(c), NBDKIT_FUA_NATIVE);
    assert_int_equal(plugin->pwrite(c, data, 512, 0, NBDKIT_FLAG_FUA), 0);
    expect_call("write", 0, 512, FARBLK_FUA);
    assert_int_equal(plugin->trim(c, 512, 0, NBDKIT_FLAG_FUA), 0);
    expect_call("discard", 0, 1, FARBLK_FUA);
    assert_int_equal(
        plugin->zero(c, 512, 0, NBDKIT_FLAG_FUA | NBDKIT_FLAG_MAY_TRIM), 0);
    expect_call("write_zeroes", 0, 1, FARBLK_FUA);
    plugin->close(c);
}

static void
zeroes_stay_mapped_unless_they_may_be_trimmed(void **state)
{
    void *c = hand_begin();
    (void)state;
    assert_int_equal(plugin->zero(c, 1024, 512, NBDKIT_FLAG_MAY_TRIM), 0);
    expect_call("write_zeroes", 1, 2, 0);
    assert_int_equal(plugin->zero(c, 1024, 512, 0), 0);
    expect_call("write_zeroes", 1, 2, FARBLK_NO_UNMAP);
    plugin->close(c);
}

static void
fast_zeroes_are_done_only_where_they_are_fast(void **state)
{
    void *c = hand_begin();
    (void)state;
    const uint32_t fast = NBDKIT_FLAG_FAST_ZERO;
    assert_int_equal(plugin->can_fast_zero(c), 1);
    assert_int_equal(plugin->zero(c, 512, 0, fast | NBDKIT_FLAG_MAY_TRIM), 0);
    expect_call("write_zeroes", 0, 1, 0);
    assert_int_equal(plugin->zero(c, 512, 0, fast), -1);
    assert_int_equal(hand.errnum, EOPNOTSUPP);
    assert_string_equal(hand.call, "none");
    plugin->close(c);
    hand.info.features &= ~(uint64_t)FARBLK_DISCARD_ZEROES;
    c = hand_connect();
    assert_int_equal(plugin->zero(c, 512, 0, fast | NBDKIT_FLAG_MAY_TRIM), -1);
    assert_int_equal(hand.errnum, EOPNOTSUPP);
    assert_string_equal(hand.call, "none");
    plugin->close(c);
}

static void
requests_that_are_not_whole_sectors_are_refused(void **state)
{
    void *c = hand_begin();
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        uint32_t count = i == 0 ? 511 : 512;
        uint64_t offset = i == 0 ? 512 : 1;
        hand.errnum = 0;
        assert_int_equal(plugin->pread(c, data, count, offset, 0), -1);
        assert_int_equal(hand.errnum, EINVAL);
        hand_said("whole sectors of 512");
        hand_said("blocksize");
        hand.errnum = 0;
        assert_int_equal(plugin->pwrite(c, data, count, offset, 0), -1);
        assert_int_equal(hand.errnum, EINVAL);
        hand.errnum = 0;
        assert_int_equal(plugin->trim(c, count, offset, 0), -1);
        assert_int_equal(hand.errnum, EINVAL);
        hand.errnum = 0;
        assert_int_equal(plugin->zero(c, count, offset, 0), -1);
        assert_int_equal(hand.errnum, EINVAL);
    }
    assert_int_equal(hand.calls, 0);
    plugin->close(c);
}

static void
statuses_become_errnos(void **state)
{
    static const struct {
        int status, errnum;
    } table[] = {
        {FARBLK_UNKNOWN, EIO},
        {FARBLK_UNIMPLEMENTED, EOPNOTSUPP},
        {FARBLK_IS_READ_ONLY, EROFS},
        {FARBLK_DISCONNECTED, ESHUTDOWN},
        {FARBLK_INVALID, EINVAL},
        {FARBLK_NOT_FOUND, EIO},
        {FARBLK_DENIED, EPERM},
        {FARBLK_NO_SPACE, ENOSPC},
        {FARBLK_NO_MEMORY, ENOMEM},
        {FARBLK_IO, EIO},
        {FARBLK_TIMED_OUT, EIO},
        {FARBLK_BUSY, EIO},
        {FARBLK_CORRUPT, EIO},
        {FARBLK_PROTOCOL, EIO},
        {FARBLK_CONNECTION_LOST, ESHUTDOWN},
        {-1000, EIO},
    };
    void *c = hand_begin();
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        hand.status = table[i].status;
        for (unsigned call = 0; call < 6; call++) {
            hand.errnum = 0;
            hand.error[0] = '\0';
            int result = call == 0   ? plugin->pread(c, data, 512, 0, 0)
                         : call == 1 ? plugin->pwrite(c, data, 512, 0, 0)
                         : call == 2 ? plugin->flush(c, 0)
                         : call == 3 ? plugin->trim(c, 512, 0, 0)
                         : call == 4 ? plugin->zero(c, 512, 0, 0)
                                     : plugin->extents(c, 512, 0, 0, NULL);
            assert_int_equal(result, -1);
            assert_int_equal(hand.errnum, table[i].errnum);
            hand_said("the library's text");
        }
    }
    hand.status = 0;
    plugin->close(c);
}

/* -------------------------------------------------------------- extents */

static void
unmapped_sectors_are_holes_that_read_as_zero(void **state)
{
    void *c = hand_begin();
    (void)state;
    assert_int_equal(plugin->extents(c, 12 * 4096, 4096, 0, NULL), 0);
    assert_int_equal(hand.extents, 12);
    for (unsigned i = 0; i < 12; i++) {
        assert_int_equal(hand.extent[i].offset, (i + 1) * 4096);
        assert_int_equal(hand.extent[i].length, 4096);
        assert_int_equal(hand.extent[i].type,
                         i % 2 == 0 ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO
                                    : 0);
    }
    hand.extents = 0;
    assert_int_equal(
        plugin->extents(c, 12 * 4096, 4096, NBDKIT_FLAG_REQ_ONE, NULL), 0);
    assert_int_equal(hand.extents, 1);
    plugin->close(c);
}

static void
extents_cover_ranges_that_are_not_whole_sectors(void **state)
{
    void *c = hand_begin();
    (void)state;
    assert_int_equal(plugin->extents(c, 1, 511, 0, NULL), 0);
    expect_call("extents", 0, 1, 0);
    assert_int_equal(plugin->extents(c, 2, 1023, 0, NULL), 0);
    expect_call("extents", 1, 2, 0);
    plugin->close(c);
}

static void
many_extents_are_asked_for_in_turn_and_bounded(void **state)
{
    (void)state;
    hand.info.size_sectors = UINT64_C(1) << 23;
    hand.run = 1;
    void *c = hand_begin();
    assert_int_equal(plugin->extents(c, 1000 * 512, 0, 0, NULL), 0);
    assert_int_equal(hand.extents, 1000);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(hand.extent[i].offset, i * 512);
    hand.extents = 0;
    assert_int_equal(plugin->extents(c, UINT32_MAX - 511, 0, 0, NULL), 0);
    assert_in_range(hand.extents, 10000, 100000);
    plugin->close(c);
}

/* ------------------------------------------------------------ abilities */

static void
clients_are_promised_what_the_device_can_do(void **state)
{
    uint32_t minimum, preferred, maximum;
    void *c = hand_begin();
    (void)state;
    assert_int_equal(plugin->get_size(c), 1 << 20);
    assert_int_equal(plugin->block_size(c, &minimum, &preferred, &maximum), 0);
    assert_int_equal(minimum, 512);
    assert_int_equal(preferred, 4096);
    assert_int_equal(maximum, 64 << 20);
    assert_int_equal(plugin->can_write(c), 1);
    assert_int_equal(plugin->can_flush(c), 1);
    assert_int_equal(plugin->can_trim(c), 1);
    assert_int_equal(plugin->can_zero(c), 1);
    assert_int_equal(plugin->can_extents(c), 1);
    assert_int_equal(plugin->can_multi_conn(c), 1);
    assert_int_equal(plugin->is_rotational(c), 0);
    assert_int_equal(plugin->can_cache(c), NBDKIT_CACHE_NONE);
    plugin->close(c);

    hand.info.features = 0;
    hand.info.read_write = false;
    hand.info.sector_size = 65536;
    hand.info.size_sectors = INT64_MAX / 65536;
    c = hand_connect();
    assert_int_equal(plugin->get_size(c), INT64_MAX / 65536 * 65536);
    assert_int_equal(plugin->block_size(c, &minimum, &preferred, &maximum), 0);
    assert_int_equal(minimum, 65536);
    assert_int_equal(preferred, 65536);
    assert_int_equal(maximum % minimum, 0);
    assert_int_equal(plugin->can_write(c), 0);
    assert_int_equal(plugin->can_flush(c), 1);
    assert_int_equal(plugin->can_trim(c), 0);
    assert_int_equal(plugin->can_zero(c), 0);
    assert_int_equal(plugin->can_fast_zero(c), 0);
    assert_int_equal(plugin->can_extents(c), 0);
    assert_int_equal(plugin->can_fua(c), NBDKIT_FUA_EMULATE);
    plugin->close(c);
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, hand_setup, hand_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(reads_and_writes_are_the_devices_own),
        TEST(fua_reaches_the_device),
        TEST(zeroes_stay_mapped_unless_they_may_be_trimmed),
        TEST(fast_zeroes_are_done_only_where_they_are_fast),
        TEST(requests_that_are_not_whole_sectors_are_refused),
        TEST(statuses_become_errnos),
        TEST(unmapped_sectors_are_holes_that_read_as_zero),
        TEST(extents_cover_ranges_that_are_not_whole_sectors),
        TEST(many_extents_are_asked_for_in_turn_and_bounded),
        TEST(clients_are_promised_what_the_device_can_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
