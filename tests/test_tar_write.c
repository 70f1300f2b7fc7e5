/* SPDX-License-Identifier: ISC */
/*
 * New members of archives: what comes back, what is refused and how, what is
 * left alone.
 */
#include "tests/recorder.h"
#include "tests/support.h"
#include "tests/tar_build.h"
#include "tests/tar_judge.h"

#include <stdio.h>
#include <time.h>

static const uint32_t sectors[] = {512, 1024, 4096, 65536};
#define SECTORS (sizeof sectors / sizeof sectors[0])

/* ------------------------------------------------------------ new members */

static void
values_come_back_and_neighbours_stay(void **state)
{
    static uint8_t data[70000], junk[300000];
    (void)state;
    pattern_fill(junk, sizeof junk, 7);
    for (unsigned i = 0; i < SECTORS; i++) {
        struct judge judge = {.count = 0};
        build_begin();
        struct farblk_tar *tar = build_open(sectors[i], sizeof junk);
        /* What is behind an archive's end is none of its business. */
        memcpy(recorder.image + 1024, junk, sizeof junk - 1024);
        uint64_t end = 0;
        static const size_t sizes[] = {0, 1, 511, 512, 513, 4096, 65536, 70000};
        for (unsigned n = 0; n < 8; n++) {
            char key[20];
            snprintf(key, sizeof key, "/key-%u", n);
            pattern_fill(data, sizes[n], n + 1);
            ok(farblk_tar_set(tar, key, data, sizes[n]));
            assert_string_equal(farblk_last_text(), "");
            judge_set(&judge, key, data, sizes[n]);
            end += 512 + (sizes[n] + 511) / 512 * 512;
            struct farblk_tar_info info = build_info(tar);
            assert_int_equal(info.end, end);
            assert_int_equal(info.free, recorder.size - end - 1024);
            assert_true(pattern_is_zero(recorder.image + end, 1024));
            assert_memory_equal(recorder.image + end + 1024, junk + end,
                                sizeof junk - end - 1024);
            assert_null(judge_by_us(&judge, tar));
        }
        farblk_tar_close(tar);
        build_expect_archive(&judge);
        judge_clear(&judge);
        build_close(NULL);
    }
}

static void
keys_that_exist_or_lead_through_values_are_refused(void **state)
{
    (void)state;
    build_begin();
    build_file("dir/file", "text");
    build_header("link", '2', 0);
    build_end();
    struct farblk_tar *tar = build_open(512, 65536);
    fails_with(FARBLK_EXISTS, farblk_tar_set(tar, "/dir/file", "x", 1));
    fails_with(FARBLK_EXISTS, farblk_tar_set(tar, "dir", "x", 1));
    fails_with(FARBLK_EXISTS, farblk_tar_set(tar, "/", "x", 1));
    fails_with(FARBLK_EXISTS, farblk_tar_set(tar, "", "x", 1));
    fails_with(FARBLK_EXISTS, farblk_tar_set(tar, "link", "x", 1));
    fails_with(FARBLK_NOT_A_DIRECTORY,
               farblk_tar_set(tar, "/dir/file/x", "x", 1));
    fails_with(FARBLK_NOT_A_DIRECTORY, farblk_tar_set(tar, "link/x", "x", 1));
    fails_with(FARBLK_INVALID, farblk_tar_set(tar, "/dir/../x", "x", 1));
    fails_with(FARBLK_INVALID, farblk_tar_set(tar, "..", "x", 1));
    fails_with(FARBLK_INVALID, farblk_tar_set(tar, "x", NULL, 1));
    fails_with(FARBLK_INVALID, farblk_tar_set(NULL, "x", "x", 1));
    fails_with(FARBLK_INVALID, farblk_tar_put(tar, "x", 1, NULL, NULL, NULL));
    char *key = malloc(5000);
    assert_non_null(key);
    memset(key, 'k', 4096);
    key[4096] = '\0';
    fails_with(FARBLK_INVALID, farblk_tar_set(tar, key, "x", 1));
    text_has("4096");
    key[4095] = '\0';
    assert_int_equal(recorder.count, 0);
    ok(farblk_tar_set(tar, key, "x", 1));
    build_expect(tar, key, "x");
    free(key);
    ok(farblk_tar_set(tar, "dir//./...", "y", 1));
    build_expect(tar, "/dir/...", "y");
    build_close(tar);
}

static void
what_does_not_fit_is_refused_and_nothing_written(void **state)
{
    static uint8_t data[65536];
    (void)state;
    for (unsigned i = 0; i < SECTORS; i++) {
        build_begin();
        struct farblk_tar *tar = build_open(sectors[i], 131072);
        size_t room = (size_t)recorder.size - 512 - 1024;
        pattern_fill(data, sizeof data, 3);
        ok(farblk_tar_set(tar, "first", data, 512));
        recorder_forget();
        room -= 1024;
        uint8_t *large = calloc(1, room + 1);
        assert_non_null(large);
        fails_with(FARBLK_NO_SPACE,
                   farblk_tar_set(tar, "a/b/c", large, room + 1));
        assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
        fails_with(FARBLK_NO_SPACE,
                   farblk_tar_allocate(tar, "x", UINT64_MAX, NULL));
        fails_with(FARBLK_NO_SPACE,
                   farblk_tar_allocate(tar, "x", INT64_MAX, NULL));
        fails_with(FARBLK_NO_SPACE, farblk_tar_set(tar, "x", data, UINT64_MAX));
        assert_int_equal(recorder.count, 0);
        assert_int_equal(farblk_tar_exists(tar, "a"), 0);
        ok(farblk_tar_set(tar, "a/b/c", large, room));
        assert_int_equal(build_info(tar).free, 0);
        fails_with(FARBLK_NO_SPACE, farblk_tar_set(tar, "x", NULL, 0));
        build_expect_octets(tar, "a/b/c", large, room);
        build_expect_octets(tar, "first", data, 512);
        free(large);
        build_close(tar);
    }
}

static void
long_keys_are_read_by_others_too(void **state)
{
    struct judge judge = {.count = 0};
    char key[1000];
    (void)state;
    build_begin();
    struct farblk_tar *tar = build_open(4096, 1 << 20);
    for (size_t length = 95; length < 270; length++) {
        key[0] = '/';
        memset(key + 1, 'a', length);
        key[length + 1] = '\0';
        /* A '/' now here, now there. */
        key[1 + length * 2 / 3] = '/';
        key[1 + length % 7 + 1] = '/';
        snprintf(key + 1 + length - 3, 4, "%03zu", length);
        ok(farblk_tar_set(tar, key, key, length));
        if (length % 3 == 0)
            judge_set(&judge, key, key, length);
        else
            ok(farblk_tar_remove(tar, key));
    }
    snprintf(key, sizeof key, "/%0600d/umlaut-\xc3\xbc", 1);
    ok(farblk_tar_set(tar, key, "u", 1));
    judge_set(&judge, key, "u", 1);
    farblk_tar_close(tar);
    build_expect_archive(&judge);
    judge_clear(&judge);
    build_close(NULL);
}

static void
octets_that_are_no_utf_8_are_fine_in_keys(void **state)
{
    char key[400];
    (void)state;
    build_begin();
    struct farblk_tar *tar = build_open(512, 65536);
    ok(farblk_tar_set(tar, "\xff\x80 and \xe4", "short", 5));
    snprintf(key, sizeof key, "%0300d/\xff\xc3\xed\xa0\x80", 1);
    ok(farblk_tar_set(tar, key, "long", 4));
    farblk_tar_close(tar);
    ok(farblk_tar_open(build_dev(), NULL, &tar));
    build_expect(tar, "/\xff\x80 and \xe4", "short");
    build_expect(tar, key, "long");
    build_close(tar);
}

static void
sizes_beyond_eight_gibibytes_are_kept(void **state)
{
    struct farblk *dev;
    struct farblk_tar *tar;
    char uri[300];
    uint8_t part[3];
    size_t got;
    const uint64_t huge = (UINT64_C(9) << 30) + 5;
    const char *name = support_name("huge");
    (void)state;
    ok(farblk_ramdisk_create(name, UINT64_C(20) << 30 >> 12, 4096));
    snprintf(uri, sizeof uri, "ramdisk:%s", name);
    ok(farblk_open(uri, NULL, &dev));
    ok(farblk_tar_open(dev, NULL, &tar));
    ok(farblk_tar_allocate(tar, "huge", huge, NULL));
    ok(farblk_tar_set(tar, "small", "abc", 3));
    ok(farblk_tar_set_partial(tar, "huge", huge - 3, "xyz", 3));
    farblk_tar_close(tar);
    ok(farblk_tar_open(dev, NULL, &tar));
    assert_true(build_stat(tar, "huge").size == huge);
    build_expect(tar, "small", "abc");
    ok(farblk_tar_get_partial(tar, "huge", huge - 3, part, 10, &got));
    assert_int_equal(got, 3);
    assert_memory_equal(part, "xyz", 3);
    farblk_tar_close(tar);
    ok(farblk_close(dev));
    ok(farblk_ramdisk_destroy(name));
}

static void
attributes_are_kept(void **state)
{
    struct farblk_tar_attributes attributes = {
        .size = sizeof attributes,
        .has_mtime = true,
        .has_mode = true,
        .mtime = -12345,
        .mode = 04751,
        .uid = UINT64_C(5000000000),
        .gid = 42,
        .user = "a user whose name is of 31 octe",
        .group = "g",
    };
    (void)state;
    build_begin();
    struct farblk_tar *tar = build_open(512, 65536);
    int64_t now = (int64_t)time(NULL);
    ok(farblk_tar_allocate(tar, "given", 5, &attributes));
    ok(farblk_tar_set(tar, "default", "x", 1));
    for (unsigned i = 0; i < 2; i++) {
        struct farblk_tar_stat stat = build_stat(tar, "given");
        assert_int_equal(stat.mtime, -12345);
        assert_int_equal(stat.mode, 04751);
        assert_true(stat.uid == UINT64_C(5000000000));
        assert_int_equal(stat.gid, 42);
        assert_string_equal(stat.user, attributes.user);
        assert_string_equal(stat.group, "g");
        stat = build_stat(tar, "default");
        assert_in_range(stat.mtime, now, now + 3600);
        assert_int_equal(stat.mode, 0644);
        farblk_tar_close(tar);
        ok(farblk_tar_open(build_dev(), NULL, &tar));
    }
    attributes.mode = 010000;
    fails_with(FARBLK_INVALID, farblk_tar_allocate(tar, "x", 5, &attributes));
    attributes.mode = 0;
    attributes.user = "a user whose name is of 32 octet";
    fails_with(FARBLK_INVALID, farblk_tar_allocate(tar, "x", 5, &attributes));
    attributes.size = 3;
    fails_with(FARBLK_INVALID, farblk_tar_allocate(tar, "x", 5, &attributes));
    build_close(tar);
}

/* A global header's words do not stick to members that come after it. */
static void
members_behind_a_global_header_are_their_own(void **state)
{
    (void)state;
    build_begin();
    build_pax('g', "mtime=5", "uname=ghost", "uid=7", "gid=8", "path=wrong",
              NULL);
    build_pax('x', "path=first", NULL);
    build_file("x", "1");
    build_end();
    struct farblk_tar *tar = build_open(512, 65536);
    int64_t now = (int64_t)time(NULL);
    ok(farblk_tar_set(tar, "right", "text", 4));
    for (unsigned i = 0; i < 2; i++) {
        build_expect(tar, "right", "text");
        struct farblk_tar_stat stat = build_stat(tar, "right");
        assert_in_range(stat.mtime, now, now + 3600);
        assert_string_equal(stat.user, "");
        assert_int_equal(stat.uid, 0);
        assert_int_equal(stat.gid, 0);
        assert_string_equal(build_stat(tar, "first").user, "ghost");
        farblk_tar_close(tar);
        ok(farblk_tar_open(build_dev(), NULL, &tar));
    }
    build_close(tar);
}

/* ------------------------------------------------------------ sources */

struct feed {
    struct farblk_tar *tar;
    uint64_t at, fail_at;
    int answer;
};

static int
feed(void *arg, void *buffer, size_t length)
{
    struct feed *from = arg;
    char text[10];
    size_t got;
    /* Reading is fine, changing is not. */
    ok(farblk_tar_get_partial(from->tar, "there", 0, text, 5, &got));
    fails_with(FARBLK_INVALID, farblk_tar_set(from->tar, "x", "x", 1));
    fails_with(FARBLK_INVALID, farblk_tar_remove(from->tar, "there"));
    for (size_t i = 0; i < length; i++)
        ((uint8_t *)buffer)[i] = (uint8_t)((from->at + i) % 251);
    from->at += length;
    return from->at > from->fail_at ? from->answer : 0;
}

static void
sources_feed_values_of_any_size(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SECTORS; i++) {
        const uint64_t size = 2500000 + i;
        build_begin();
        struct farblk_tar *tar = build_open(sectors[i], 4 << 20);
        ok(farblk_tar_set(tar, "there", "hello", 5));
        uint64_t end = build_info(tar).end;
        struct feed from = {tar, 0, 1000000, 4711};
        assert_int_equal(farblk_tar_put(tar, "fed", size, NULL, feed, &from),
                         4711);
        assert_int_equal(farblk_tar_exists(tar, "fed"), 0);
        assert_int_equal(build_info(tar).end, end);
        from = (struct feed){tar, 0, UINT64_MAX, 0};
        ok(farblk_tar_put(tar, "fed", size, NULL, feed, &from));
        assert_int_equal(from.at, size);
        void *value;
        uint64_t got;
        ok(farblk_tar_get(tar, "fed", size, &value, &got));
        for (uint64_t n = 0; n < size; n++)
            if (((uint8_t *)value)[n] != n % 251)
                fail_msg("octet %u differs", (unsigned)n);
        free(value);
        build_close(tar);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_back_and_neighbours_stay),
        cmocka_unit_test(keys_that_exist_or_lead_through_values_are_refused),
        cmocka_unit_test(what_does_not_fit_is_refused_and_nothing_written),
        cmocka_unit_test(long_keys_are_read_by_others_too),
        cmocka_unit_test(octets_that_are_no_utf_8_are_fine_in_keys),
        cmocka_unit_test(sizes_beyond_eight_gibibytes_are_kept),
        cmocka_unit_test(attributes_are_kept),
        cmocka_unit_test(members_behind_a_global_header_are_their_own),
        cmocka_unit_test(sources_feed_values_of_any_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
