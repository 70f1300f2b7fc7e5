/* SPDX-License-Identifier: ISC */
/*
 * The mirror's insides alone: the set of what is to be copied, extents in
 * larger sectors, what two devices must have in common.
 */
#include "backends/mirror.h"
#include "tests/support.h"

#define UNITS 4096u

static void
set_agrees_with_a_plain_array(void **state)
{
    static bool model[UNITS];
    struct rng rng = {.state = 1};

    (void)state;
    for (unsigned round = 0; round < 20; round++) {
        struct mirror_dirty dirty = {0};

        memset(model, 0, sizeof model);
        for (unsigned step = 0; step < 400; step++) {
            uint64_t start = rng_below(&rng, UNITS);
            uint64_t end = start + rng_below(&rng, 12);

            if (end > UNITS)
                end = UNITS;
            switch (rng_below(&rng, 12)) {
            case 0:
                mirror_dirty_cut(&dirty, start);
                memset(model + start, 0, UNITS - start);
                break;
            case 1:
            case 2:
                if (dirty.count == 0)
                    break;
                start = dirty.range[0].start;
                end = start + 1 + rng_below(&rng, dirty.range[0].end - start);
                mirror_dirty_take(&dirty, end - start);
                memset(model + start, 0, end - start);
                break;
            default:
                mirror_dirty_add(&dirty, start, end);
                memset(model + start, 1, end - start);
            }
            size_t at = 0;
            uint64_t octets = 0;
            for (size_t i = 0; i < dirty.count; i++) {
                assert_true(dirty.range[i].start < dirty.range[i].end);
                assert_true(i == 0
                            || dirty.range[i].start > dirty.range[i - 1].end);
                for (; at < dirty.range[i].start; at++)
                    assert_false(model[at]);
                for (; at < dirty.range[i].end; at++, octets++)
                    assert_true(model[at]);
            }
            for (; at < UNITS; at++)
                assert_false(model[at]);
            assert_int_equal(mirror_dirty_octets(&dirty), octets);
        }
    }
}

static void
set_is_bounded_and_forgets_nothing(void **state)
{
    struct mirror_dirty dirty = {0};

    (void)state;
    for (uint64_t i = 0; i < 10000; i++) {
        uint64_t start = i * 7919 % 10007 * 100;

        mirror_dirty_add(&dirty, start, start + 10);
        assert_true(dirty.count <= MIRROR_DIRTY_MAX);
    }
    for (uint64_t i = 0; i < 10000; i++) {
        uint64_t start = i * 7919 % 10007 * 100;
        size_t k = 0;

        while (k < dirty.count
               && !(dirty.range[k].start <= start
                    && dirty.range[k].end >= start + 10))
            k++;
        assert_true(k < dirty.count);
    }
    mirror_dirty_add(&dirty, 0, UINT64_MAX);
    assert_int_equal(dirty.count, 1);
}

/* Random runs in small sectors, as one answer after another, in large ones. */
static void
extents_in_larger_sectors_call_unmapped_only_what_is_so_wholly(void **state)
{
    enum { RATIO = 8, SMALL = 1024 };
    struct rng rng = {.state = 2};
    bool map[SMALL];

    (void)state;
    for (unsigned round = 0; round < 300; round++) {
        uint64_t most = 1 + rng_below(&rng, 24);
        size_t max = 1 + rng_below(&rng, 20);
        uint64_t at = 0;

        for (uint64_t i = 0; i < SMALL;) {
            bool mapped = rng_below(&rng, 2);

            for (uint64_t n = 1 + rng_below(&rng, most); n > 0 && i < SMALL;
                 n--)
                map[i++] = mapped;
        }
        while (at < SMALL) {
            struct farblk_extent extents[20];
            size_t count = 0;

            for (uint64_t i = at; i < SMALL && count < max; count++) {
                uint64_t begin = i;

                while (i < SMALL && map[i] == map[begin])
                    i++;
                extents[count] = (struct farblk_extent){
                    .start = begin, .count = i - begin, .mapped = map[begin]};
            }
            size_t given = count;
            count = mirror_round(extents, count, 512, 512 * RATIO);
            assert_in_range(count, 1, given);
            for (size_t i = 0; i < count; i++) {
                assert_int_equal(extents[i].start, at / RATIO);
                assert_true(extents[i].count > 0);
                bool last = i + 1 == count;
                for (uint64_t k = 0; k < extents[i].count; k++, at += RATIO) {
                    bool some = false;

                    for (unsigned s = 0; s < RATIO; s++)
                        some = some || map[at + s];
                    if (some)
                        assert_true(extents[i].mapped);
                    else if (!last || count > 1)
                        assert_int_equal(extents[i].mapped, 0);
                }
            }
            assert_true(at <= SMALL);
        }
    }
}

static struct farblk_info
info(uint32_t sector, uint64_t sectors)
{
    return (struct farblk_info){
        .read_write = true,
        .sector_size = sector,
        .size_sectors = sectors,
        .features = FARBLK_CAN_WRITE_ZEROES,
        .max_transfer = 1 << 20,
        .preferred_transfer = 1 << 16,
        .name = "x",
    };
}

static void
what_does_not_go_together_is_told_in_order(void **state)
{
    struct farblk_info one = info(1536, 7), two = info(1024, 7);
    struct shape shape;
    struct error error;

    (void)state;
    two.read_write = false;
    assert_int_equal(mirror_check(&one, &two, &shape, &error), FARBLK_INVALID);
    assert_non_null(strstr(error.text, "sectors of 1536 octets"));
    assert_non_null(strstr(error.text, "1024"));
    one = info(512, 16);
    assert_int_equal(mirror_check(&one, &two, &shape, &error), FARBLK_INVALID);
    assert_non_null(
        strstr(error.text, "primary has 8192 octets and secondary 7168"));
    one = info(512, 14);
    assert_int_equal(mirror_check(&one, &two, &shape, &error),
                     FARBLK_IS_READ_ONLY);
    assert_non_null(strstr(error.text, "secondary, x, is read-only"));
    two.read_write = true;
    one.read_write = false;
    assert_int_equal(mirror_check(&one, &two, &shape, &error), 0);
    assert_true(shape.read_only);
    assert_int_equal(shape.sector_size, 1024);
    assert_int_equal(shape.size, 7168);
}

static void
discard_is_announced_only_if_both_can_read_as_zero(void **state)
{
    const uint64_t discard = FARBLK_CAN_DISCARD;
    const uint64_t zeroing = discard | FARBLK_DISCARD_ZEROES;
    const uint64_t writes = FARBLK_CAN_WRITE_ZEROES;
    const struct {
        uint64_t one, two;
        bool can;
    } cases[] = {
        {zeroing, zeroing, true},          {discard, zeroing, false},
        {discard | writes, zeroing, true}, {discard | writes, writes, true},
        {zeroing, discard, false},         {zeroing, 0, false},
        {writes, zeroing, false},          {0, 0, false},
    };
    struct shape shape;
    struct error error;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct farblk_info one = info(512, 1), two = info(512, 1);

        one.features = cases[i].one;
        two.features = cases[i].two;
        assert_int_equal(mirror_check(&one, &two, &shape, &error), 0);
        assert_int_equal(shape.features & zeroing, cases[i].can ? zeroing : 0);
        assert_int_equal((shape.features & writes) != 0,
                         (cases[i].one & cases[i].two & writes) != 0);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_agrees_with_a_plain_array),
        cmocka_unit_test(set_is_bounded_and_forgets_nothing),
        cmocka_unit_test(
            extents_in_larger_sectors_call_unmapped_only_what_is_so_wholly),
        cmocka_unit_test(what_does_not_go_together_is_told_in_order),
        cmocka_unit_test(discard_is_announced_only_if_both_can_read_as_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
