/* SPDX-License-Identifier: ISC */
/*
 * The content of a ramdisk, tested by itself: sparse to the sector, memory in
 * proportion, resizes, and what happens at the limit of memory.  Random
 * operations: test_ramtree_model.c; threads: test_ramtree_threads.c.
 */
#include "core/checked.h"
#include "tests/trees.h"

#define TIB ((uint64_t)1 << 40)

static void
one_sector_is_mapped_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < TREE_SECTOR_SIZES; i++) {
        uint32_t sector = tree_sector_sizes[i];
        uint64_t size = 4096 * (uint64_t)sector;
        struct ramtree tree;
        uint8_t *data = malloc(3 * (size_t)sector);
        uint8_t *back = malloc(3 * (size_t)sector);
        assert_true(ramtree_init(&tree, size, sector));
        assert_int_equal(ramtree_sector_size(&tree), sector);
        assert_int_equal(tree_seek(&tree, 0, true), size);
        assert_int_equal(tree_seek(&tree, 0, false), 0);

        uint64_t at = 1003 * (uint64_t)sector;
        pattern_fill(data, sector, 7);
        tree_write(&tree, at, data, sector);
        assert_int_equal(tree_seek(&tree, 0, true), at);
        assert_int_equal(tree_seek(&tree, at, true), at);
        assert_int_equal(tree_seek(&tree, at, false), at + sector);
        assert_int_equal(tree_seek(&tree, at + sector, true), size);
        assert_int_equal(tree_seek(&tree, at - sector, false), at - sector);

        tree_read(&tree, at - sector, back, 3 * (uint64_t)sector);
        assert_true(pattern_is_zero(back, sector));
        assert_memory_equal(back + sector, data, sector);
        assert_true(pattern_is_zero(back + 2 * (size_t)sector, sector));

        /* Zeroes that are written are data as well. */
        memset(data, 0, sector);
        tree_write(&tree, at + sector, data, sector);
        assert_int_equal(tree_seek(&tree, at, false), at + 2 * sector);
        ramtree_fini(&tree);
        free(data);
        free(back);
    }
}

static void
reading_maps_nothing_and_costs_nothing(void **state)
{
    (void)state;
    struct ramtree tree;
    uint64_t before = block_in_use();
    uint8_t back[8192];

    assert_true(ramtree_init(&tree, TIB, 512));
    tree_read(&tree, TIB / 2 + 512, back, sizeof back);
    assert_true(pattern_is_zero(back, sizeof back));
    assert_int_equal(tree_seek(&tree, 0, true), TIB);
    assert_int_equal(block_in_use(), before);
    ramtree_fini(&tree);
}

static void
foreseeing_changes_nothing_wherever_it_looks(void **state)
{
    (void)state;
    struct ramtree tree;
    struct rng rng = {7};
    static uint8_t data[65536], back[65536];
    const uint64_t at = TIB - sizeof data;

    assert_true(ramtree_init(&tree, TIB, 512));
    ramtree_foresee(&tree, 0); /* there is nothing at all */
    pattern_fill(data, sizeof data, 1);
    tree_write(&tree, at, data, sizeof data);
    uint64_t before = block_in_use();
    const uint64_t edges[] = {0,   511,     at - 1,    at,        TIB - 1,
                              TIB, TIB + 1, INT64_MAX, UINT64_MAX};
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++)
        ramtree_foresee(&tree, edges[i]);
    for (unsigned i = 0; i < 10000; i++)
        ramtree_foresee(&tree, at + rng_below(&rng, 2 * sizeof data));
    assert_int_equal(block_in_use(), before);
    assert_int_equal(tree_seek(&tree, 0, true), at);
    tree_read(&tree, at, back, sizeof back);
    assert_memory_equal(back, data, sizeof back);
    ramtree_fini(&tree);
}

static void
ten_sectors_of_a_tebibyte_cost_little(void **state)
{
    (void)state;
    struct ramtree tree;
    struct rng rng = {42};
    uint64_t before = block_in_use(), at[10];
    uint8_t data[512];

    assert_true(ramtree_init(&tree, TIB, 512));
    for (unsigned i = 0; i < 10; i++) {
        at[i] = i * (TIB / 10) / 512 * 512 + 512 * rng_below(&rng, 100000);
        pattern_fill(data, sizeof data, i);
        tree_write(&tree, at[i], data, sizeof data);
    }
    assert_true(block_in_use() - before < 256 * 1024);

    /* Often enough to make a walk over each sector last for ever. */
    for (unsigned round = 0; round < 1000; round++) {
        uint64_t where = 0;
        for (unsigned i = 0; i < 10; i++) {
            where = tree_seek(&tree, where, true);
            assert_int_equal(where, at[i]);
            where = tree_seek(&tree, where, false);
            assert_int_equal(where, at[i] + 512);
        }
        assert_int_equal(tree_seek(&tree, where, true), TIB);
    }
    for (unsigned i = 0; i < 10; i++) {
        tree_read(&tree, at[i], data, sizeof data);
        assert_int_equal(pattern_check(data, sizeof data, i), sizeof data);
    }
    tree_zero(&tree, 0, TIB, false);
    assert_int_equal(block_in_use(), before);
    ramtree_fini(&tree);
    assert_int_equal(block_in_use(), before);
}

static void
the_largest_device_works_at_both_ends(void **state)
{
    (void)state;
    for (size_t i = 0; i < TREE_SECTOR_SIZES; i++) {
        uint32_t sector = tree_sector_sizes[i];
        uint64_t size = round_down(INT64_MAX, sector);
        uint64_t before = block_in_use();
        struct ramtree tree;
        uint8_t *data = malloc(sector);

        assert_true(ramtree_init(&tree, size, sector));
        pattern_fill(data, sector, 1);
        tree_write(&tree, size - sector, data, sector);
        assert_int_equal(tree_seek(&tree, 0, true), size - sector);
        assert_int_equal(tree_seek(&tree, size - sector, false), size);
        pattern_fill(data, sector, 2);
        tree_write(&tree, 0, data, sector);
        assert_int_equal(tree_seek(&tree, sector, true), size - sector);
        tree_read(&tree, size - sector, data, sector);
        assert_int_equal(pattern_check(data, sector, 1), sector);
        tree_zero(&tree, sector, size - sector, false);
        assert_int_equal(tree_seek(&tree, sector, true), size);
        assert_true(ramtree_resize(&tree, sector));
        tree_read(&tree, 0, data, sector);
        assert_int_equal(pattern_check(data, sector, 2), sector);
        assert_true(ramtree_resize(&tree, size));
        tree_read(&tree, 0, data, sector);
        assert_int_equal(pattern_check(data, sector, 2), sector);
        assert_true(ramtree_resize(&tree, 0));
        assert_int_equal(block_in_use(), before);
        ramtree_fini(&tree);
        free(data);
    }
}

static void
what_a_shrink_drops_stays_dropped(void **state)
{
    (void)state;
    for (size_t i = 0; i < TREE_SECTOR_SIZES; i++) {
        uint32_t sector = tree_sector_sizes[i];
        uint64_t size = 3000 * (uint64_t)sector;
        struct ramtree tree;
        uint8_t *data = malloc(size), *back = malloc(size);

        assert_true(ramtree_init(&tree, size, sector));
        pattern_fill(data, size, 3);
        tree_write(&tree, 0, data, size);
        /* In the middle of a block, where there is one. */
        uint64_t kept = 1005 * (uint64_t)sector;
        assert_true(ramtree_resize(&tree, kept));
        assert_int_equal(ramtree_size(&tree), kept);
        assert_int_equal(tree_seek(&tree, 0, false), kept);
        assert_true(ramtree_resize(&tree, size));
        assert_int_equal(tree_seek(&tree, 0, false), kept);
        assert_int_equal(tree_seek(&tree, kept, true), size);
        tree_read(&tree, 0, back, size);
        assert_memory_equal(back, data, kept);
        assert_true(pattern_is_zero(back + kept, size - kept));
        ramtree_fini(&tree);
        free(data);
        free(back);
    }
}

static void
memory_comes_back_sector_by_sector(void **state)
{
    (void)state;
    for (size_t i = 0; i < TREE_SECTOR_SIZES; i++) {
        uint32_t sector = tree_sector_sizes[i];
        uint64_t count = 2000, before = block_in_use();
        struct ramtree tree;
        uint8_t *data = malloc(count * sector);

        assert_true(ramtree_init(&tree, TIB, sector));
        pattern_fill(data, count * sector, 3);
        uint64_t at = TIB - count * sector;
        tree_write(&tree, at, data, count * sector);
        for (uint64_t k = 0; k < count; k++) {
            /* All of them, in an order that jumps about. */
            uint64_t which = k * 7919 % count;
            tree_zero(&tree, at + which * sector, sector, false);
        }
        assert_int_equal(block_in_use(), before);
        ramtree_fini(&tree);
        free(data);
    }
}

static void
mapped_zeroes_need_no_blocks(void **state)
{
    (void)state;
    struct ramtree tree;
    uint64_t size = (uint64_t)1 << 30, before = block_in_use();
    uint8_t data[4096];

    assert_true(ramtree_init(&tree, size, 512));
    tree_zero(&tree, 512, size - 1024, true);
    assert_true(block_in_use() - before < 4 << 20);
    assert_int_equal(tree_seek(&tree, 0, true), 512);
    assert_int_equal(tree_seek(&tree, 512, false), size - 512);
    pattern_fill(data, 512, 5);
    tree_write(&tree, 1 << 20, data, 512);
    tree_read(&tree, (1 << 20) - 512, data, 1536);
    assert_true(pattern_is_zero(data, 512));
    assert_int_equal(pattern_check(data + 512, 512, 5), 512);
    assert_true(pattern_is_zero(data + 1024, 512));
    tree_zero(&tree, 0, size, false);
    assert_int_equal(block_in_use(), before);
    ramtree_fini(&tree);
}

static void
what_was_got_does_not_change(void **state)
{
    (void)state;
    struct ramtree tree;
    struct ramtree_piece piece[4];
    uint8_t data[8192];
    uint64_t before = block_in_use();

    assert_true(ramtree_init(&tree, 1 << 20, 512));
    pattern_fill(data, sizeof data, 1);
    tree_write(&tree, 4096, data, sizeof data);
    assert_int_equal(ramtree_get(&tree, 4096, 8192, piece, 4), 2);
    pattern_fill(data, sizeof data, 2);
    tree_write(&tree, 4096, data, 4096);
    tree_write(&tree, 8192 + 512, data, 512);
    tree_zero(&tree, 8192 + 1024, 512, false);
    tree_zero(&tree, 8192 + 2048, 512, true);
    assert_true(ramtree_resize(&tree, 8192 + 3072));
    ramtree_fini(&tree);
    pattern_fill(data, sizeof data, 1);
    assert_memory_equal(piece[0].data, data, 4096);
    assert_memory_equal(piece[1].data, data + 4096, 4096);
    block_put(piece[0].block);
    block_put(piece[1].block);
    assert_int_equal(block_in_use(), before);
}

static void
at_the_limit_writes_fail_and_discards_do_not(void **state)
{
    (void)state;
    struct ramtree tree;
    struct ramtree_piece piece;
    uint64_t before = block_in_use();
    uint8_t data[65536], back[4096];
    struct iovec iov = {.iov_base = data, .iov_len = sizeof data};
    struct iov_view view = {.iov = &iov, .count = 1, .length = sizeof data};
    bool changed;

    assert_true(ramtree_init(&tree, TIB, 512));
    pattern_fill(data, sizeof data, 1);
    tree_write(&tree, 0, data, 4096);

    /* Room for some of it, */
    block_set_limit(block_in_use() + 5 * 4200);
    assert_false(ramtree_write(&tree, 4096, view, NULL, &changed));
    assert_true(changed);
    /* for none, */
    block_set_limit(block_in_use());
    assert_false(ramtree_write(&tree, TIB / 2, view, NULL, &changed));
    assert_false(changed);
    assert_false(ramtree_zero(&tree, TIB / 2, 4096, true, &changed));
    assert_false(changed);
    /* and for the nodes but not for what hangs on them. */
    uint64_t full = block_in_use();
    block_set_limit(full + 3 * 4200);
    assert_false(ramtree_write(&tree, TIB / 2, view, NULL, &changed));
    assert_false(changed);
    assert_int_equal(block_in_use(), full);
    block_set_limit(full);

    /* Nobody else holds the block: changed where it is. */
    assert_true(ramtree_zero(&tree, 512, 512, false, &changed));
    assert_true(ramtree_zero(&tree, 1024, 512, true, &changed));
    tree_read(&tree, 0, back, 4096);
    memset(data + 512, 0, 1024);
    assert_memory_equal(back, data, 4096);
    assert_int_equal(tree_seek(&tree, 0, false), 512);
    assert_int_equal(tree_seek(&tree, 512, true), 1024);

    /* Somebody holds it, who must not see a change. */
    assert_int_equal(ramtree_get(&tree, 0, 4096, &piece, 1), 1);
    assert_false(ramtree_zero(&tree, 2048, 512, false, &changed));
    assert_false(changed);
    assert_false(ramtree_resize(&tree, 2048));
    assert_int_equal(ramtree_size(&tree), TIB);
    assert_memory_equal(piece.data, data, 4096);
    block_put(piece.block);
    assert_true(ramtree_resize(&tree, 2048));
    assert_int_equal(tree_seek(&tree, 1024, false), 2048);

    block_set_limit(UINT64_MAX);
    ramtree_fini(&tree);
    assert_int_equal(block_in_use(), before);
}

/* Whether the content at `offset` is in this very memory, `length` octets in one
 * piece. */
static bool
is_in(struct ramtree *tree, uint64_t offset, uint64_t length,
      const struct block *block, uint64_t at)
{
    struct ramtree_piece piece;

    assert_int_equal(ramtree_get(tree, offset, length, &piece, 1), 1);
    bool is = piece.block == block && piece.data == block->data + at
              && piece.length == length;
    block_put(piece.block);
    return is;
}

static void
payloads_become_the_content_where_they_fit(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {4096, 8192, 65536, 1 << 20};
    static uint8_t data[1 << 20], back[sizeof data];
    struct ramtree tree, other;
    uint64_t before = block_in_use();

    pattern_fill(data, sizeof data, 7);
    assert_true(ramtree_init(&tree, TIB, 512));
    assert_true(ramtree_init(&other, TIB, 512));
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint64_t size = sizes[i], at = TIB / 2 + (uint64_t)i * sizeof data;
        struct block *payload = tree_payload(data, size);
        tree_write_payload(&tree, at, payload);
        assert_true(is_in(&tree, at, size, payload, 0));
        assert_true(is_in(&tree, at + size - 512, 512, payload, size - 512));
        /* The same for another tree: shared or copied, but not confused. */
        tree_write_payload(&other, at, payload);
        tree_zero(&other, at, size, false);
        block_put(payload);
        tree_read(&tree, at, back, size);
        assert_memory_equal(back, data, size);
    }
    /* Not at a multiple, no power of two, too large. */
    struct block *payload = tree_payload(data, 65536);
    tree_write_payload(&tree, 4096, payload);
    assert_false(is_in(&tree, 4096, 4096, payload, 0));
    tree_write_payload(&tree, 512, payload);
    assert_false(is_in(&tree, 4096, 4096, payload, 3584));
    tree_read(&tree, 512, back, 65536);
    assert_memory_equal(back, data, 65536);
    block_put(payload);
    payload = tree_payload(data, 12288);
    tree_write_payload(&tree, 0, payload);
    assert_false(is_in(&tree, 0, 4096, payload, 0));
    block_put(payload);

    tree_zero(&tree, 0, TIB, false);
    tree_zero(&other, 0, TIB, false);
    assert_int_equal(block_in_use(), before);
    ramtree_fini(&tree);
    ramtree_fini(&other);
}

static void
a_large_payload_goes_when_less_than_three_quarters_are_left(void **state)
{
    (void)state;
    uint8_t data[65536], back[sizeof data], one[4096];
    struct ramtree tree;
    struct ramtree_piece held;
    uint64_t before = block_in_use();

    pattern_fill(data, sizeof data, 3);
    pattern_fill(one, sizeof one, 4);
    assert_true(ramtree_init(&tree, TIB, 512));
    struct block *payload = tree_payload(data, sizeof data);
    tree_write_payload(&tree, 65536, payload);
    block_put(payload);
    assert_int_equal(ramtree_get(&tree, 65536, sizeof data, &held, 1), 1);

    for (unsigned i = 0; i < 4; i++) {
        tree_write(&tree, 65536 + 8192 * i, one, sizeof one);
        memcpy(data + 8192 * i, one, sizeof one);
        assert_true(is_in(&tree, 65536 + 8192 * 7 + 4096, 4096, payload,
                          8192 * 7 + 4096));
    }
    /* One sector of one more. */
    tree_zero(&tree, 65536 + 4096, 512, false);
    memset(data + 4096, 0, 512);
    assert_false(
        is_in(&tree, 65536 + 8192 * 7 + 4096, 4096, payload, 8192 * 7 + 4096));
    tree_read(&tree, 65536, back, sizeof back);
    assert_memory_equal(back, data, sizeof back);
    /* Who holds it sees what was there; and it was all that kept it. */
    pattern_fill(back, sizeof back, 3);
    assert_memory_equal(held.data, back, sizeof back);
    uint64_t with = block_in_use();
    block_put(held.block);
    assert_true(block_in_use() <= with - 65536);

    tree_zero(&tree, 0, TIB, false);
    assert_int_equal(block_in_use(), before);
    ramtree_fini(&tree);
}

static void
at_the_limit_a_large_payload_goes_too(void **state)
{
    (void)state;
    enum { CHUNKS = 8, CHUNK = 1 << 20 };
    static uint8_t data[CHUNK], back[4096];
    struct ramtree tree;
    uint64_t before = block_in_use();
    bool changed;

    pattern_fill(data, sizeof data, 5);
    assert_true(ramtree_init(&tree, TIB, 512));
    for (uint64_t i = 0; i < CHUNKS; i++) {
        struct block *payload = tree_payload(data, sizeof data);
        tree_write_payload(&tree, i * CHUNK, payload);
        block_put(payload);
    }
    uint64_t full = block_in_use();
    block_set_limit(full);
    /* Not even one block more is allowed when the first of them is thinned out,
     * nor with a limit below what there is. */
    for (uint64_t i = 0; i < CHUNKS; i++) {
        assert_true(ramtree_zero(&tree, i * CHUNK + 4096, CHUNK - 4096, false,
                                 &changed));
        block_set_limit(block_in_use());
    }
    assert_true(block_in_use() < full - CHUNKS * (CHUNK - 65536));
    for (uint64_t i = 0; i < CHUNKS; i++) {
        tree_read(&tree, i * CHUNK, back, sizeof back);
        assert_memory_equal(back, data, sizeof back);
    }
    block_set_limit(UINT64_MAX);
    tree_zero(&tree, 0, TIB, false);
    assert_int_equal(block_in_use(), before);
    ramtree_fini(&tree);
}

static void
at_the_limit_what_is_mapped_can_be_written_again(void **state)
{
    (void)state;
    uint8_t data[65536], back[sizeof data];
    struct iovec iov = {.iov_base = data, .iov_len = 4096};
    struct iov_view view = {.iov = &iov, .count = 1, .length = 4096};
    struct ramtree tree;
    struct ramtree_piece held;
    bool changed;

    pattern_fill(data, sizeof data, 1);
    assert_true(ramtree_init(&tree, TIB, 512));
    struct block *payload = tree_payload(data, sizeof data);
    tree_write_payload(&tree, 0, payload);
    block_put(payload);
    tree_write(&tree, 65536, data, sizeof data);
    block_set_limit(block_in_use());

    pattern_fill(data, sizeof data, 2);
    for (unsigned i = 0; i < 16; i++) {
        tree_write(&tree, 4096 * i, data + 4096 * i, 4096);
        tree_write(&tree, 65536 + 4096 * i + 512, data + 4096 * i + 512, 512);
        tree_write(&tree, 65536 + 4096 * i, data + 4096 * i, 4096);
    }
    for (unsigned i = 0; i < 2; i++) {
        tree_read(&tree, 65536 * i, back, sizeof back);
        assert_memory_equal(back, data, sizeof back);
        /* But not what somebody reads, and nothing new. */
        assert_int_equal(ramtree_get(&tree, 65536 * i, 4096, &held, 1), 1);
        assert_false(ramtree_write(&tree, 65536 * i, view, NULL, &changed));
        assert_false(changed);
        block_put(held.block);
    }
    assert_false(ramtree_write(&tree, 131072, view, NULL, &changed));
    assert_false(changed);
    tree_read(&tree, 131072, back, 4096);
    assert_true(back[0] == 0 && memcmp(back, back + 1, 4095) == 0);

    block_set_limit(UINT64_MAX);
    ramtree_fini(&tree);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_sector_is_mapped_alone),
        cmocka_unit_test(reading_maps_nothing_and_costs_nothing),
        cmocka_unit_test(foreseeing_changes_nothing_wherever_it_looks),
        cmocka_unit_test(ten_sectors_of_a_tebibyte_cost_little),
        cmocka_unit_test(the_largest_device_works_at_both_ends),
        cmocka_unit_test(what_a_shrink_drops_stays_dropped),
        cmocka_unit_test(memory_comes_back_sector_by_sector),
        cmocka_unit_test(mapped_zeroes_need_no_blocks),
        cmocka_unit_test(what_was_got_does_not_change),
        cmocka_unit_test(at_the_limit_writes_fail_and_discards_do_not),
        cmocka_unit_test(payloads_become_the_content_where_they_fit),
        cmocka_unit_test(
            a_large_payload_goes_when_less_than_three_quarters_are_left),
        cmocka_unit_test(at_the_limit_a_large_payload_goes_too),
        cmocka_unit_test(at_the_limit_what_is_mapped_can_be_written_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
