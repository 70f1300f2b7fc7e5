/* SPDX-License-Identifier: ISC */
/*
 * What a mirror copies, and what it tells meanwhile: sizes, sectors and
 * abilities of all kinds, progress, maps, discards, the rate.
 */
#include "tests/mirrors.h"

#include "core/block.h"

#include <unistd.h>

#define SIZE (1024 * KIB)

static struct mirrors *mirrors;

static int
setup(void **state)
{
    (void)state;
    support_watch("mirror_content");
    mirrors = NULL;
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    mirrors_destroy(mirrors);
    support_watch(NULL);
    return 0;
}

static void
begin(uint64_t size, uint32_t primary_sector, uint32_t secondary_sector)
{
    mirrors_destroy(mirrors);
    mirrors = mirrors_create(size, primary_sector, secondary_sector);
}

static void
finish(void)
{
    mirrors_wait(mirrors, FARBLK_MIRROR_COMPLETE);
    mirrors_expect_equal(mirrors);
}

/* The events so far are those of a copy that ended well. */
static void
progress_is_right(void)
{
    unsigned percent = 0;

    assert_int_equal(mirrors_wait_told(mirrors, FARBLK_MIRROR_COMPLETE), 1);
    pthread_mutex_lock(&mirrors->mutex);
    for (unsigned i = 0; i < mirrors->seen_count; i++) {
        const struct farblk_mirror_status *seen = &mirrors->seen[i];

        assert_int_equal(seen->size, sizeof *seen);
        assert_int_equal(seen->error, 0);
        if (i + 1 == mirrors->seen_count) {
            assert_int_equal(seen->state, FARBLK_MIRROR_COMPLETE);
            assert_int_equal(seen->percent, 100);
            assert_int_equal(seen->copied_sectors, seen->size_sectors);
            break;
        }
        assert_int_equal(seen->state, FARBLK_MIRROR_COPYING);
        assert_in_range(seen->percent, percent + 1, 99);
        assert_true(seen->copied_sectors * 100
                    >= seen->percent * seen->size_sectors);
        percent = seen->percent;
    }
    pthread_mutex_unlock(&mirrors->mutex);
}

/* ------------------------------------------------------------ progress */

static void
every_size_is_copied_and_told_right(void **state)
{
    static const uint64_t sizes[] = {0,   1,   2,   3,    99,   100,  101,
                                     127, 128, 129, 1000, 2047, 2048, 4099};
    static const uint32_t sectors[] = {512, 4096};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (unsigned k = 0; k < 4; k++) {
            uint32_t one = sectors[k % 2], two = sectors[k / 2];

            begin(sizes[i] * (one > two ? one : two), one, two);
            mirrors_open(mirrors, false);
            finish();
            progress_is_right();
            assert_true(sizes[i] > 1 || mirrors->seen_count == 1);
            if (sizes[i] * (one > two ? one : two) >= SIZE * 7)
                assert_int_equal(mirrors->seen_count, 100);
        }
}

static void
largest_sectors_and_larger_than_a_piece_work(void **state)
{
    (void)state;
    begin(3 * 65536, 65536, 512);
    mirrors_open(mirrors, false);
    finish();
    progress_is_right();
    ok(mirrors_write(mirrors, 65536, 65536, 3));
    mirrors_expect_equal(mirrors);
}

static struct trouble trouble;

static void
write_from_the_hook(struct mirrors *of, const struct farblk_mirror_status *now)
{
    uint8_t out[4096];

    if (now->state != FARBLK_MIRROR_COPYING)
        return;
    pattern_fill(out, sizeof out, now->percent);
    if (support_write(of->dev, now->percent * 8, out, sizeof out, 0) != 0)
        trouble_note(&trouble, "write: %s", farblk_last_text());
}

static void
function_may_use_the_mirror(void **state)
{
    (void)state;
    begin(SIZE, 512, 512);
    mirrors->hook = write_from_the_hook;
    /* Until the handle is known to the test as well. */
    puppet_hold(mirrors->primary,
                (struct puppet_rule){.ops = PUPPET_OP(READ), .end = SIZE});
    mirrors_open(mirrors, false);
    puppet_wait_held(mirrors->primary, 8);
    puppet_release(mirrors->primary);
    finish();
    progress_is_right();
    trouble_assert_none(&trouble);
    assert_true(mirrors->seen_count > 2);
    mirrors_expect(mirrors->secondary, mirrors->seen[0].percent * 4096, 4096,
                   mirrors->seen[0].percent);
}

static atomic_bool closed;

static void
close_from_the_hook(struct mirrors *of, const struct farblk_mirror_status *now)
{
    (void)now;
    if (farblk_close(of->dev) != 0)
        trouble_note(&trouble, "close: %s", farblk_last_text());
    of->dev = NULL;
    closed = true;
}

static void
function_may_close_the_mirror(void **state)
{
    (void)state;
    begin(SIZE, 512, 512);
    mirrors->hook = close_from_the_hook;
    closed = false;
    puppet_hold(mirrors->primary,
                (struct puppet_rule){.ops = PUPPET_OP(READ), .end = SIZE});
    mirrors_open(mirrors, false);
    puppet_wait_held(mirrors->primary, 8);
    puppet_release(mirrors->primary);
    while (!closed)
        usleep(100);
    trouble_assert_none(&trouble);
    /* It is gone for good when its devices are free again. */
    mirrors->hook = NULL;
    int status;
    do
        status =
            farblk_mirror_open(mirrors->primary->dev, mirrors->secondary->dev,
                               NULL, NULL, &mirrors->dev);
    while (status == FARBLK_BUSY);
    ok(status);
    assert_int_equal(mirrors->seen_count, 1);
    finish();
}

static void
rate_holds_the_copying_and_may_be_changed(void **state)
{
    struct farblk_mirror_options options = {.size = sizeof options, .rate = 1};

    (void)state;
    begin(SIZE, 512, 512);
    /* Planning is held until the rate is set. */
    puppet_hold(mirrors->primary,
                (struct puppet_rule){.ops = PUPPET_OP(EXTENTS), .end = SIZE});
    mirrors_open(mirrors, false);
    puppet_wait_held(mirrors->primary, 1);
    ok(farblk_mirror_set(mirrors->dev, &options));
    puppet_release(mirrors->primary);
    while (mirrors_status(mirrors).copied_sectors == 0)
        usleep(100);
    /* A sector, and the next one in nine minutes; the rest is not held up. */
    ok(mirrors_write(mirrors, 0, 64 * KIB, 3));
    assert_int_equal(mirrors_status(mirrors).copied_sectors, 1);
    assert_int_equal(puppet_count(mirrors->primary, FARBLK_OP_READ), 1);
    options.rate = 0;
    ok(farblk_mirror_set(mirrors->dev, &options));
    finish();
    progress_is_right();
}

/* ------------------------------------------------------------ content */

static void
holes_are_not_read_and_become_zero(void **state)
{
    (void)state;
    begin(16 * SIZE, 512, 512);
    mirrors_clear(mirrors->primary, 0, 16 * SIZE);
    mirrors_fill(mirrors->primary, 5 * SIZE + 512, 512, 9);
    mirrors_clear(mirrors->secondary, 6 * SIZE, 10 * SIZE);
    mirrors_open(mirrors, false);
    finish();
    progress_is_right();
    assert_int_equal(puppet_count(mirrors->primary, FARBLK_OP_READ), 1);
    assert_int_equal(mirrors->primary->octets[FARBLK_OP_READ], 512);
    assert_int_equal(mirrors->secondary->octets[FARBLK_OP_WRITE], 512);
    /* Only where secondary had something. */
    assert_int_equal(mirrors->secondary->octets[FARBLK_OP_WRITE_ZEROES],
                     6 * SIZE - 512);
    for (uint64_t i = 0; i < 16 * SIZE / 512; i++)
        assert_int_equal(mirrors->primary->mapped[i],
                         mirrors->secondary->mapped[i]);
}

/* Devices that lack one ability or the other. */
static void
any_abilities_make_an_equal_pair(void **state)
{
    static const uint64_t without[] = {
        FARBLK_CAN_SEEK,
        FARBLK_CAN_WRITE_ZEROES,
        FARBLK_CAN_WRITE_ZEROES | FARBLK_DISCARD_ZEROES,
        FARBLK_CAN_DISCARD | FARBLK_DISCARD_ZEROES,
        FARBLK_DISCARD_ZEROES,
        FARBLK_CAN_RESIZE | FARBLK_CAN_WATCH | FARBLK_SECTOR_ATOMIC,
        PUPPET_FEATURES,
    };

    (void)state;
    for (unsigned i = 0; i < 3 * 7; i++) {
        begin(SIZE, i % 2 ? 4096 : 512, i % 4 ? 4096 : 512);
        mirrors_clear(mirrors->primary, 256 * KIB, 512 * KIB);
        if (i % 3 != 1)
            mirrors->primary->features &= ~without[i / 3];
        if (i % 3 != 0)
            mirrors->secondary->features &= ~without[i / 3];
        mirrors_open(mirrors, false);
        finish();
        progress_is_right();
        uint64_t features = support_info(mirrors->dev).features;
        uint64_t zeroes = FARBLK_CAN_DISCARD | FARBLK_DISCARD_ZEROES;
        uint64_t discard = features & zeroes;

        ok(mirrors_write(mirrors, 300 * KIB, 40 * KIB, 3));
        assert_true(discard == 0 || discard == zeroes);
        if (discard != 0) {
            ok(farblk_discard(mirrors->dev, 1, 5, FARBLK_FUA));
            uint32_t sector = support_info(mirrors->dev).sector_size;
            assert_true(
                pattern_is_zero(mirrors->primary->data + sector, 5 * sector));
        } else {
            fails_with(FARBLK_UNIMPLEMENTED,
                       farblk_discard(mirrors->dev, 1, 5, 0));
        }
        if ((features & FARBLK_CAN_WRITE_ZEROES) != 0)
            ok(farblk_write_zeroes(mirrors->dev, 10, 9, FARBLK_NO_UNMAP));
        if ((features & FARBLK_CAN_RESIZE) != 0)
            ok(farblk_resize(mirrors->dev, 100));
        else
            fails_with(FARBLK_UNIMPLEMENTED, farblk_resize(mirrors->dev, 100));
        ok(farblk_flush(mirrors->dev));
        mirrors_expect_equal(mirrors);
        assert_int_equal(mirrors_status(mirrors).state, FARBLK_MIRROR_COMPLETE);
    }
}

static void
maps_are_primarys_in_sectors_of_the_mirror(void **state)
{
    struct farblk_extent extents[16];
    uint64_t found;

    (void)state;
    begin(64 * KIB, 512, 4096); /* 16 sectors of the mirror */
    mirrors_clear(mirrors->primary, 0, 64 * KIB);
    mirrors_fill(mirrors->primary, 4096 - 512, 512, 1); /* in 0 */
    mirrors_fill(mirrors->primary, 4 * 4096, 2 * 4096, 1); /* 4, 5 */
    mirrors_fill(mirrors->primary, 9 * 4096 + 512, 512, 1); /* in 9 */
    mirrors_fill(mirrors->primary, 10 * 4096 + 1024, 512, 1); /* in 10 */
    mirrors_open(mirrors, false);
    finish();
    static const bool mapped[16] = {
        [0] = 1, [4] = 1, [5] = 1, [9] = 1, [10] = 1};
    for (uint64_t i = 0; i < 16; i++)
        for (unsigned wanted = 0; wanted < 2; wanted++) {
            uint64_t expected = i;

            while (expected < 16 && mapped[expected] != wanted)
                expected++;
            ok(wanted ? farblk_seek_mapped(mirrors->dev, i, &found)
                      : farblk_seek_unmapped(mirrors->dev, i, &found));
            assert_int_equal(found, expected);
        }
    for (size_t max = 1; max <= 16; max++)
        for (uint64_t at = 0; at < 16;) {
            int count =
                ok(farblk_extents(mirrors->dev, at, 16 - at, extents, max));

            for (int i = 0; i < count; i++) {
                assert_int_equal(extents[i].start, at);
                for (uint64_t k = 0; k < extents[i].count; k++, at++)
                    if (extents[i].mapped == 0)
                        assert_false(mapped[at]);
            }
            assert_true(max > 1 || count == 1);
        }
    assert_int_equal(ok(farblk_extents(mirrors->dev, 0, 16, extents, 16)), 6);
}

/* A sector of the mirror is several of primary's: never half of it. */
static void
large_sector_over_small_ones_is_not_torn(void **state)
{
    uint8_t in[4096], out[4096];

    (void)state;
    begin(64 * KIB, 512, 4096);
    mirrors_open(mirrors, false);
    finish();
    memset(out, 7, sizeof out);
    puppet_hold(mirrors->primary,
                (struct puppet_rule){.ops = PUPPET_OP(WRITE), .end = SIZE});
    mirrors_submit(mirrors, FARBLK_OP_WRITE, 0, out, 4096, 0, 0);
    puppet_wait_held(mirrors->primary, 1);
    mirrors_submit(mirrors, FARBLK_OP_READ, 0, in, 4096, 0, 1);
    mirrors_nothing_ends(mirrors);
    assert_int_equal(puppet_count(mirrors->primary, FARBLK_OP_READ), 1);
    puppet_release(mirrors->primary);
    assert_int_equal(mirrors_collect(mirrors).status, 0);
    assert_int_equal(mirrors_collect(mirrors).status, 0);
    assert_memory_equal(in, out, sizeof in);
}

static void
requests_in_pieces_of_buffers_reach_both(void **state)
{
    enum { COUNT = 40 };
    static uint8_t data[COUNT][3 * 512];
    struct iovec iov[2 * COUNT] = {{NULL, 0}};

    (void)state;
    begin(2 * SIZE, 512, 512);
    mirrors_open(mirrors, false);
    finish();
    for (unsigned i = 0; i < COUNT; i++) {
        pattern_fill(data[i], sizeof data[i], i);
        iov[2 * i] = (struct iovec){data[i], (i % 3 + 1) * 512};
    }
    ok(farblk_write(mirrors->dev, 5, iov, 2 * COUNT, FARBLK_FUA));
    mirrors_expect_equal(mirrors);
    uint64_t at = 5 * 512;
    for (unsigned i = 0; i < COUNT; i++) {
        assert_memory_equal(mirrors->secondary->data + at, data[i],
                            (i % 3 + 1) * 512);
        at += (i % 3 + 1) * 512;
    }
    /* Larger than a request: cut in the middle of buffers. */
    struct iovec three[3];
    uint8_t *large = malloc(3 * 600 * KIB);
    assert_non_null(large);
    pattern_fill(large, 3 * 600 * KIB, 77);
    for (unsigned i = 0; i < 3; i++)
        three[i] = (struct iovec){large + i * 600 * KIB, 600 * KIB};
    ok(farblk_write(mirrors->dev, 1, three, 3, 0));
    mirrors_expect(mirrors->secondary, 512, 3 * 600 * KIB, 77);
    mirrors_expect_equal(mirrors);
    memset(large, 0, 3 * 600 * KIB);
    ok(farblk_read(mirrors->dev, 1, three, 3));
    assert_int_equal(pattern_check(large, 3 * 600 * KIB, 77), 3 * 600 * KIB);
    free(large);
}

/* A limit of memory is reached: the copying waits until there is some. */
static void
copying_waits_for_memory(void **state)
{
    (void)state;
    begin(SIZE, 512, 512);
    block_set_limit(1);
    mirrors_open(mirrors, false);
    ok(mirrors_write(mirrors, 0, 64 * KIB, 3));
    /* Planning has been done, and no piece has begun. */
    while (puppet_count(mirrors->primary, FARBLK_OP_EXTENTS) == 0)
        usleep(100);
    ok(mirrors_write(mirrors, 64 * KIB, 64 * KIB, 3));
    assert_int_equal(mirrors_status(mirrors).state, FARBLK_MIRROR_COPYING);
    assert_int_equal(puppet_count(mirrors->primary, FARBLK_OP_READ), 0);
    block_set_limit(UINT64_MAX);
    finish();
    progress_is_right();
}

#define ONE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(every_size_is_copied_and_told_right),
        ONE(largest_sectors_and_larger_than_a_piece_work),
        ONE(function_may_use_the_mirror),
        ONE(function_may_close_the_mirror),
        ONE(rate_holds_the_copying_and_may_be_changed),
        ONE(holes_are_not_read_and_become_zero),
        ONE(any_abilities_make_an_equal_pair),
        ONE(maps_are_primarys_in_sectors_of_the_mirror),
        ONE(large_sector_over_small_ones_is_not_torn),
        ONE(requests_in_pieces_of_buffers_reach_both),
        ONE(copying_waits_for_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
