/* SPDX-License-Identifier: ISC */
/*
 * Sparse members, right ones; and archives that lie: sizes, lengths, maps,
 * links and counts that would lead a trusting reader past its buffers, the
 * device's end, its memory or its patience.
 */
#include "tests/recorder.h"
#include "tests/support.h"
#include "tests/tar_build.h"

#include <stdio.h>

/* ------------------------------------------------------------ sparse */

/* "AAAA" at 1000, "BBBBBBBB" at 5000, 6000 in all; stored one behind the other. */
#define STORED "AAAABBBBBBBB"
#define REAL 6000u

static void
expect_sparse(struct farblk_tar *tar, const char *key, uint64_t data)
{
    static const uint8_t zeros[REAL];
    uint8_t wanted[REAL];
    struct farblk_tar_extent extents[8];
    struct farblk_tar_stat stat;
    char part[3000];
    size_t got;
    memset(wanted, 0, sizeof wanted);
    memcpy(wanted + 1000, "AAAA", 4);
    memcpy(wanted + 5000, "BBBBBBBB", 8);
    build_expect_octets(tar, key, wanted, sizeof wanted);
    ok(farblk_tar_stat(tar, key, &stat, sizeof stat));
    assert_true(stat.sparse);
    assert_int_equal(stat.size, REAL);
    assert_int_equal(stat.stored, 12);
    ok(farblk_tar_get_partial(tar, key, 1002, part, sizeof part, &got));
    assert_int_equal(got, sizeof part);
    assert_memory_equal(part, wanted + 1002, sizeof part);
    assert_int_equal(farblk_tar_extents(tar, key, 0, REAL, extents, 8), 5);
    static const struct farblk_tar_extent right[] = {
        {.offset = 0, .length = 1000, .hole = 1},
        {.offset = 1000, .length = 4},
        {.offset = 1004, .length = 3996, .hole = 1},
        {.offset = 5000, .length = 8},
        {.offset = 5008, .length = 992, .hole = 1},
    };
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(extents[i].offset, right[i].offset);
        assert_int_equal(extents[i].length, right[i].length);
        assert_int_equal(extents[i].hole, right[i].hole);
    }
    assert_int_equal(extents[1].device_offset, data);
    assert_int_equal(extents[3].device_offset, data + 4);
    assert_int_equal(farblk_tar_extents(tar, key, 1001, 10, extents, 8), 2);
    assert_int_equal(extents[0].device_offset, data + 1);
    assert_int_equal(extents[0].length, 3);
    assert_int_equal(farblk_tar_extents(tar, key, 0, REAL, extents, 2), 2);
    assert_int_equal(farblk_tar_extents(tar, key, REAL, 0, extents, 2), 0);
    fails_with(FARBLK_INVALID,
               farblk_tar_extents(tar, key, 1, REAL, extents, 2));
    fails_with(FARBLK_INVALID, farblk_tar_extents(tar, key, 0, 1, extents, 0));
    /* Writing goes where there is room, and nowhere else. */
    fails_with(FARBLK_APPEND_ONLY,
               farblk_tar_set_partial(tar, key, 1002, zeros, 3));
    fails_with(FARBLK_APPEND_ONLY,
               farblk_tar_set_partial(tar, key, 0, zeros, REAL));
    ok(farblk_tar_set_partial(tar, key, 5001, "CC", 2));
    ok(farblk_tar_get_partial(tar, key, 5000, part, 8, &got));
    assert_memory_equal(part, "BCCBBBBB", 8);
}

static void
put_entry(size_t at, uint64_t offset, uint64_t length)
{
    char text[2][24];
    snprintf(text[0], sizeof text[0], "%011llo", (unsigned long long)offset);
    snprintf(text[1], sizeof text[1], "%011llo", (unsigned long long)length);
    memcpy(build.data + at, text[0], 12);
    memcpy(build.data + at + 12, text[1], 12);
}

/* GNU's own: header with its map; `entries` more of them in blocks behind. */
static size_t
build_old_sparse(const char *name, uint64_t stored, uint64_t real)
{
    size_t header = build_header(name, 'S', stored);
    char text[13];
    build_make_gnu(header);
    snprintf(text, sizeof text, "%011llo", (unsigned long long)real);
    build_patch(header, 483, text, 12);
    return header;
}

static void
seal(size_t header)
{
    build_patch(header, 0, build.data + header, 1);
}

static void
sparse_members_of_all_kinds_are_read(void **state)
{
    static const uint32_t sectors[] = {512, 4096};
    uint64_t places[5];
    (void)state;
    build_begin();
    build_pax('x', "GNU.sparse.size=6000", "GNU.sparse.numblocks=2",
              "GNU.sparse.offset=1000", "GNU.sparse.numbytes=4",
              "GNU.sparse.offset=5000", "GNU.sparse.numbytes=8", NULL);
    places[0] = build_file("0.0", STORED) + 512;
    build_pax('x', "GNU.sparse.size=6000", "GNU.sparse.numblocks=2",
              "GNU.sparse.map=1000,4,5000,8", "GNU.sparse.name=0.1", NULL);
    places[1] = build_file("GNUSparseFile.1/x", STORED) + 512;
    build_pax('x', "GNU.sparse.major=1", "GNU.sparse.minor=0",
              "GNU.sparse.name=1.0", "GNU.sparse.realsize=6000", NULL);
    build_header("GNUSparseFile.2/x", '0', 512 + 12);
    build_data("2\n1000\n4\n5000\n8\n", 16);
    places[2] = build.size;
    build_data(STORED, 12);
    size_t header = build_old_sparse("old", 12, REAL);
    put_entry(header + 386, 1000, 4);
    put_entry(header + 410, 5000, 8);
    put_entry(header + 434, REAL, 0);
    seal(header);
    places[3] = build.size;
    build_data(STORED, 12);
    /* One entry in the header, the rest two blocks away. */
    header = build_old_sparse("old, continued", 12, REAL);
    put_entry(header + 386, 1000, 1);
    put_entry(header + 410, 1001, 1);
    put_entry(header + 434, 1002, 1);
    put_entry(header + 458, 1003, 1);
    build.data[header + 482] = 1;
    seal(header);
    static const uint8_t zeros[512];
    build_data(zeros, 512);
    for (unsigned i = 0; i < 21; i++)
        put_entry(build.size - 512 + 24 * i, 5000 + (i < 7 ? i : 7), i < 7);
    build.data[build.size - 512 + 504] = 1;
    build_data(zeros, 512);
    put_entry(build.size - 512, 5007, 1);
    places[4] = build.size;
    build_data(STORED, 12);
    build_file("after", "all is well");
    build_end();
    for (unsigned i = 0; i < 2; i++) {
        struct farblk_tar *tar = build_open(sectors[i], 0);
        expect_sparse(tar, "0.0", places[0]);
        expect_sparse(tar, "0.1", places[1]);
        expect_sparse(tar, "1.0", places[2]);
        expect_sparse(tar, "old", places[3]);
        expect_sparse(tar, "old, continued", places[4]);
        build_expect(tar, "after", "all is well");
        build_close(tar);
    }
}

static void
value_that_is_one_hole_is_read(void **state)
{
    void *value;
    uint64_t size;
    (void)state;
    build_begin();
    build_pax('x', "GNU.sparse.size=100000", "GNU.sparse.numblocks=1",
              "GNU.sparse.map=100000,0", NULL);
    build_file("hole", "");
    build_pax('x', "GNU.sparse.size=9223372036854775807",
              "GNU.sparse.map=9223372036854775807,0", NULL);
    build_file("huge", "");
    build_end();
    struct farblk_tar *tar = build_open(512, 0);
    ok(farblk_tar_get(tar, "hole", 100000, &value, &size));
    assert_true(pattern_is_zero(value, 100000));
    free(value);
    ok(farblk_tar_size(tar, "huge", &size));
    assert_true(size == INT64_MAX);
    fails_with(FARBLK_NO_SPACE,
               farblk_tar_get(tar, "huge", 1 << 20, &value, &size));
    struct farblk_tar_extent extent;
    assert_int_equal(farblk_tar_extents(tar, "huge", 5, size - 5, &extent, 1),
                     1);
    assert_true(extent.hole == 1 && extent.length == size - 5);
    build_close(tar);
}

/* ------------------------------------------------------------ lies */

#define expect_corrupt() assert_int_equal(build_try(NULL), FARBLK_CORRUPT)

static void
sizes_that_lie_are_refused(void **state)
{
    static const int64_t sizes[] = {-1, INT64_MIN, INT64_MAX, 4096 * 512};
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        build_begin();
        build_patch_number(build_file("big", "text"), 124, 12, sizes[i]);
        build_end();
        expect_corrupt();
        build_begin();
        build_patch_number(build_pax('x', "path=a", NULL), 124, 12, sizes[i]);
        build_file("x", "text");
        build_end();
        expect_corrupt();
    }
    /* 2^63 and 2^95 do not fit at all. */
    build_begin();
    build_patch(build_file("big", "text"), 124, "\x80\0\0\0\x80\0\0\0\0\0\0\0",
                12);
    build_end();
    expect_corrupt();
    build_begin();
    build_patch(build_file("big", "text"), 124, "\x80\x80\0\0\0\0\0\0\0\0\0\0",
                12);
    build_end();
    expect_corrupt();
    build_begin();
    build_patch(build_file("big", "text"), 124, "many octets!", 12);
    build_end();
    expect_corrupt();
    build_begin();
    build_patch(build_file("big", "text"), 124, "777777777777", 12);
    build_end();
    expect_corrupt();
    static const char *const texts[] = {"size=99999999999999999999999999",
                                        "size=9223372036854775808",
                                        "size=-1",
                                        "size=0x10",
                                        "size=1 ",
                                        "size=9223372036854775807"};
    for (unsigned i = 0; i < 6; i++) {
        build_begin();
        build_pax('x', texts[i], NULL);
        build_file("big", "text");
        build_end();
        expect_corrupt();
    }
}

static void
data_that_the_device_has_not_is_refused(void **state)
{
    (void)state;
    build_begin();
    build_header("cut", '0', 513);
    build_data("x", 1);
    expect_corrupt();
    build_begin();
    build_extended('L', "name", 5);
    build_patch_text(0, 124, "00000001001");
    expect_corrupt();
}

static void
records_that_lie_are_refused(void **state)
{
    static const char *const texts[] = {
        "6 a=b",       "7 a=b\n",     "5 a=b\n", "0 a=b\n",
        "-6 a=b\n",    " 6 a=b\n",    "6a=b\n",  "6 ab\n\n",
        "99 a=b\n",    "4 a\n=b\n",   "3 =\n",   "18446744073709551622 a=b\n",
        "06 a=b\n6 x", "6 a=b\n\n\n", "garbage", "12 path=a\0b\n",
    };
    static const size_t lengths[] = {5, 6, 6, 6,  7, 7, 5, 6,
                                     7, 7, 4, 25, 9, 8, 7, 12};
    (void)state;
    for (unsigned i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        build_begin();
        build_extended(i % 2 == 0 ? 'x' : 'g', texts[i], lengths[i]);
        build_file("x", "text");
        build_end();
        expect_corrupt();
    }
    build_begin();
    build_extended('x', "6 a=b\n", 6);
    build_file("x", "text");
    build_end();
    assert_int_equal(build_try(NULL), 0);
}

static void
long_names_without_an_end_stay_within_their_octets(void **state)
{
    char name[512];
    (void)state;
    memset(name, 'n', sizeof name);
    build_begin();
    build_extended('L', name, sizeof name); /* fills its block */
    build_file("x", "text");
    build_end();
    struct farblk_tar *tar = build_open(512, 0);
    char key[520];
    snprintf(key, sizeof key, "/%.512s", name);
    build_expect(tar, key, "text");
    build_close(tar);
}

static void
wrong_checksums_are_told_with_their_place(void **state)
{
    struct farblk_tar *tar;
    (void)state;
    build_begin();
    build_file("good", "1");
    build_file("bad", "2");
    build.data[1024 + 5]++;
    build_end();
    fails_with(FARBLK_CORRUPT,
               farblk_tar_open(build_device(512, 0), NULL, &tar));
    text_has("1024");
    assert_null(tar);
    build_close(NULL);
}

static void
sparse_maps_that_lie_are_refused(void **state)
{
    static const char *const maps[] = {
        "0,4,2,4", /* overlap */
        "5,1,0,4", /* backwards */
        "0,13", /* more than is stored */
        "5999,2", /* past the end */
        "9223372036854775807,1", /* far past it */
        "1,9223372036854775807", /* overflow */
        "18446744073709551615,2", /* no number of ours */
        "0,4,9", /* half an entry */
        "0,,4",
        "a,b",
        "-1,4",
        ",",
        "0,4,,",
    };
    char text[100];
    (void)state;
    for (unsigned i = 0; i < sizeof maps / sizeof maps[0]; i++) {
        snprintf(text, sizeof text, "GNU.sparse.map=%s", maps[i]);
        build_begin();
        build_pax('x', "GNU.sparse.size=6000", text, NULL);
        build_file("x", STORED);
        build_end();
        expect_corrupt();
    }
    static const char *const fronts[] = {
        "",          "2\n",      "1\n0\n13\n",
        "x\n0\n1\n", "1\n0\n1",  "9223372036854775807\n0\n1\n",
        "-1\n",      "1\n\n4\n", "1\n00000000000000000000000000\n4\n",
    };
    for (unsigned i = 0; i < sizeof fronts / sizeof fronts[0]; i++) {
        build_begin();
        build_pax('x', "GNU.sparse.major=1", "GNU.sparse.minor=0",
                  "GNU.sparse.realsize=6000", NULL);
        build_header("x", '0', 512 + 12);
        build_data(fronts[i], strlen(fronts[i]) + 1);
        build_data(STORED, 12);
        build_end();
        expect_corrupt();
    }
    build_begin();
    build_pax('x', "GNU.sparse.major=2", "GNU.sparse.minor=0",
              "GNU.sparse.realsize=6000", NULL);
    build_file("x", STORED);
    build_end();
    assert_int_equal(build_try(NULL), FARBLK_UNIMPLEMENTED);
}

static void
old_sparse_maps_that_lie_are_refused(void **state)
{
    static const uint64_t entries[][4] = {
        {0, 4, 2, 4},
        {0, 13, 0, 0},
        {5999, 2, 0, 0},
        {UINT64_C(077777777777), 1, 0, 0},
    };
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        build_begin();
        size_t header = build_old_sparse("x", 12, REAL);
        put_entry(header + 386, entries[i][0], entries[i][1]);
        if (entries[i][3] > 0)
            put_entry(header + 410, entries[i][2], entries[i][3]);
        seal(header);
        build_data(STORED, 12);
        build_end();
        expect_corrupt();
    }
    /* Negative numbers, and a map that goes on past the device's end. */
    build_begin();
    size_t header = build_old_sparse("x", 12, REAL);
    put_entry(header + 386, 0, 4);
    memset(build.data + header + 386, 0xff, 12);
    seal(header);
    build_data(STORED, 12);
    build_end();
    expect_corrupt();
    build_begin();
    header = build_old_sparse("x", 0, REAL);
    build_patch_number(header, 483, 12, -5);
    expect_corrupt();
    build_begin();
    header = build_old_sparse("x", 0, REAL);
    build.data[header + 482] = 1;
    seal(header);
    expect_corrupt();
    /* Maps have no checksums: 3000 blocks that each promise another. */
    build_begin();
    header = build_old_sparse("x", 0, REAL);
    build.data[header + 482] = 1;
    seal(header);
    for (unsigned i = 0; i < 3000; i++) {
        build_data("", 1);
        build.data[build.size - 512 + 504] = 1;
    }
    assert_int_equal(build_try(NULL), FARBLK_NO_SPACE);
}

static void
links_that_run_in_circles_end(void **state)
{
    char name[20];
    (void)state;
    build_begin();
    build_patch_text(build_header("a", '1', 0), 157, "b");
    build_patch_text(build_header("b", '1', 0), 157, "a");
    build_patch_text(build_header("self", '1', 0), 157, "self");
    build_patch_text(build_header("s1", '2', 0), 157, "s2");
    build_patch_text(build_header("s2", '2', 0), 157, "s1");
    build_file("chain-0", "end of it");
    for (unsigned i = 1; i < 5000; i++) {
        char target[20];
        snprintf(name, sizeof name, "chain-%u", i);
        snprintf(target, sizeof target, "chain-%u", i - 1);
        build_patch_text(build_header(name, '1', 0), 157, target);
    }
    build_end();
    struct farblk_tar *tar = build_open(512, 0);
    assert_int_equal(farblk_tar_exists(tar, "a"), FARBLK_TAR_LOST_LINK);
    assert_int_equal(farblk_tar_exists(tar, "b"), FARBLK_TAR_LOST_LINK);
    assert_int_equal(farblk_tar_exists(tar, "self"), FARBLK_TAR_LOST_LINK);
    build_expect(tar, "chain-4999", "end of it");
    build_close(tar);
}

/* ------------------------------------------------------------ limits */

static int
try_limits(uint32_t headers, uint32_t key, uint32_t extended, uint64_t memory)
{
    struct farblk_tar_options options = {
        .size = sizeof options,
        .max_headers = headers,
        .max_key = key,
        .max_extended = extended,
        .max_memory = memory,
    };
    return build_try(&options);
}

static void
limits_are_kept(void **state)
{
    char name[20];
    (void)state;
    build_begin();
    for (unsigned i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "f%u", i);
        build_file(name, "");
    }
    build_pax('x', "path=0123456789012345678901234567890123456789", NULL);
    build_file("x", "");
    build_end();
    assert_int_equal(try_limits(502, 0, 0, 0), 0);
    assert_int_equal(try_limits(501, 0, 0, 0), FARBLK_NO_SPACE);
    assert_int_equal(try_limits(0, 41, 0, 0), 0);
    assert_int_equal(try_limits(0, 40, 0, 0), FARBLK_NO_SPACE);
    assert_int_equal(try_limits(0, 0, 49, 0), 0);
    assert_int_equal(try_limits(0, 0, 48, 0), FARBLK_NO_SPACE);
    assert_int_equal(try_limits(0, 0, 0, 1 << 20), 0);
    assert_int_equal(try_limits(0, 0, 0, 50000), FARBLK_NO_SPACE);
    assert_int_equal(try_limits(0, 0, 0, 1), FARBLK_NO_SPACE);

    struct farblk_tar_options wrong[2] = {{.size = 8}, {.size = 0}};
    assert_int_equal(build_try(wrong), FARBLK_INVALID);
    memset(wrong, 0, sizeof wrong);
    wrong[0].size = sizeof wrong;
    assert_int_equal(build_try(wrong), 0);
    wrong[1].max_key = 1;
    assert_int_equal(build_try(wrong), FARBLK_INVALID);
}

/* Each name makes as many directories as it can. */
static void
deep_names_take_bounded_memory(void **state)
{
    char *path = malloc(4200);
    (void)state;
    assert_non_null(path);
    build_begin();
    for (unsigned i = 0; i < 64; i++) {
        size_t used = (size_t)sprintf(path, "path=%02x", i);
        while (used < 4090)
            used += (size_t)sprintf(path + used, "/a");
        build_pax('x', path, NULL);
        build_file("x", "deep");
        /* And makes all of them go again. */
        path[7] = '\0';
        if (i % 2 == 0) {
            build_pax('x', path, NULL);
            build_file("x", "flat");
        }
    }
    build_end();
    struct farblk_tar *tar = build_open(4096, 0);
    build_expect(tar, "/00", "flat");
    assert_int_equal(farblk_tar_exists(tar, "/01/a/a"), FARBLK_TAR_DIRECTORY);
    build_close(tar);
    assert_int_equal(try_limits(0, 0, 0, 4 << 20), FARBLK_NO_SPACE);
    free(path);
}

static void
many_names_of_a_kind_do_not_slow_it_down(void **state)
{
    char name[40];
    (void)state;
    build_begin();
    for (unsigned i = 0; i < 100000; i++) {
        snprintf(name, sizeof name, "%08u", i); /* in order */
        build_header(name, '0', 0);
    }
    build_end();
    struct farblk_tar *tar = build_open(65536, 0);
    assert_int_equal(farblk_tar_exists(tar, "00099999"), FARBLK_TAR_VALUE);
    build_close(tar);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sparse_members_of_all_kinds_are_read),
        cmocka_unit_test(value_that_is_one_hole_is_read),
        cmocka_unit_test(sizes_that_lie_are_refused),
        cmocka_unit_test(data_that_the_device_has_not_is_refused),
        cmocka_unit_test(records_that_lie_are_refused),
        cmocka_unit_test(long_names_without_an_end_stay_within_their_octets),
        cmocka_unit_test(wrong_checksums_are_told_with_their_place),
        cmocka_unit_test(sparse_maps_that_lie_are_refused),
        cmocka_unit_test(old_sparse_maps_that_lie_are_refused),
        cmocka_unit_test(links_that_run_in_circles_end),
        cmocka_unit_test(limits_are_kept),
        cmocka_unit_test(deep_names_take_bounded_memory),
        cmocka_unit_test(many_names_of_a_kind_do_not_slow_it_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
