/* SPDX-License-Identifier: ISC */
/*
 * Changes of members that are there, and who may make them.
 */
#include "tests/recorder.h"
#include "tests/support.h"
#include "tests/tar_build.h"
#include "tests/tar_judge.h"

#include <stdio.h>

static const uint32_t sectors[] = {512, 1024, 4096, 65536};
#define SECTORS (sizeof sectors / sizeof sectors[0])

/* ------------------------------------------------------------ set_partial */

static void
partial_set_changes_just_its_octets(void **state)
{
    uint8_t data[20000], patch[20000];
    (void)state;
    for (unsigned i = 0; i < SECTORS; i++) {
        struct judge judge = {.count = 0};
        struct rng rng = {i};
        build_begin();
        struct farblk_tar *tar = build_open(sectors[i], 200000);
        for (unsigned n = 0; n < 3; n++) {
            const char *keys[] = {"/a", "/b", "/c"};
            pattern_fill(data, sizeof data, n);
            ok(farblk_tar_set(tar, keys[n], data, sizeof data - n));
            judge_set(&judge, keys[n], data, sizeof data - n);
        }
        struct judged *b = judge_find(&judge, "/b");
        for (unsigned n = 0; n < 200; n++) {
            size_t offset = (size_t)rng_below(&rng, b->size + 1);
            size_t length = (size_t)rng_below(&rng, b->size - offset + 1);
            pattern_fill(patch, length, n + 1000);
            ok(farblk_tar_set_partial(tar, "b", offset, patch, length));
            memcpy(b->data + offset, patch, length);
        }
        assert_null(judge_by_us(&judge, tar));
        fails_with(FARBLK_APPEND_ONLY,
                   farblk_tar_set_partial(tar, "b", b->size, "x", 1));
        fails_with(FARBLK_APPEND_ONLY,
                   farblk_tar_set_partial(tar, "b", 1, patch, b->size));
        fails_with(FARBLK_APPEND_ONLY,
                   farblk_tar_set_partial(tar, "b", UINT64_MAX, "xx", 2));
        fails_with(FARBLK_APPEND_ONLY,
                   farblk_tar_set_partial(tar, "b", b->size + 1, "", 0));
        ok(farblk_tar_set_partial(tar, "b", b->size, "", 0));
        ok(farblk_tar_set_partial(tar, "b", 0, NULL, 0));
        fails_with(FARBLK_NOT_FOUND,
                   farblk_tar_set_partial(tar, "none", 0, "x", 1));
        fails_with(FARBLK_NOT_A_VALUE,
                   farblk_tar_set_partial(tar, "/", 0, "x", 1));
        fails_with(FARBLK_NOT_A_DIRECTORY,
                   farblk_tar_set_partial(tar, "b/b", 0, "x", 1));
        farblk_tar_close(tar);
        build_expect_archive(&judge);
        judge_clear(&judge);
        build_close(NULL);
    }
}

/* ------------------------------------------------------------ remove */

static void
only_the_last_member_is_removed(void **state)
{
    static uint8_t data[9000];
    (void)state;
    for (unsigned i = 0; i < SECTORS; i++) {
        struct judge judge = {.count = 0};
        build_begin();
        struct farblk_tar *tar = build_open(sectors[i], 300000);
        pattern_fill(data, sizeof data, 1);
        ok(farblk_tar_set(tar, "d/e/one", data, 700));
        ok(farblk_tar_set(tar, "d/two", data, sizeof data));
        ok(farblk_tar_set(tar, "three", data, 1));
        judge_set(&judge, "/d/e/one", data, 700);
        judge_set(&judge, "/d/two", data, sizeof data);
        fails_with(FARBLK_APPEND_ONLY, farblk_tar_remove(tar, "d/two"));
        fails_with(FARBLK_NOT_A_VALUE, farblk_tar_remove(tar, "d"));
        fails_with(FARBLK_NOT_A_VALUE, farblk_tar_remove(tar, "/"));
        fails_with(FARBLK_NOT_FOUND, farblk_tar_remove(tar, "four"));
        fails_with(FARBLK_NOT_A_DIRECTORY, farblk_tar_remove(tar, "three/x"));
        ok(farblk_tar_remove(tar, "three"));
        assert_int_equal(farblk_tar_exists(tar, "three"), 0);
        build_expect_archive(&judge);
        ok(farblk_tar_remove(tar, "d/two"));
        judge_remove(&judge, "/d/two");
        build_expect_archive(&judge);
        assert_true(
            pattern_is_zero(recorder.image + build_info(tar).end, 1024));
        assert_int_equal(farblk_tar_exists(tar, "d"), FARBLK_TAR_DIRECTORY);
        ok(farblk_tar_set(tar, "d/new", data, 5000));
        judge_set(&judge, "/d/new", data, 5000);
        build_expect_archive(&judge);
        ok(farblk_tar_remove(tar, "d/new"));
        ok(farblk_tar_remove(tar, "d/e/one"));
        assert_int_equal(farblk_tar_exists(tar, "d"), 0);
        assert_int_equal(build_info(tar).members, 0);
        assert_int_equal(build_info(tar).end, 0);
        assert_int_equal(build_info(tar).free, recorder.size - 1024);
        fails_with(FARBLK_NOT_FOUND, farblk_tar_remove(tar, "d/e/one"));
        judge_clear(&judge);
        build_expect_archive(&judge);
        build_close(tar);
    }
}

static void
members_that_replaced_others_stay(void **state)
{
    (void)state;
    build_begin();
    build_file("twice", "old");
    build_file("twice", "new");
    build_end();
    struct farblk_tar *tar = build_open(512, 65536);
    fails_with(FARBLK_APPEND_ONLY, farblk_tar_remove(tar, "twice"));
    text_has("come back");
    fails_with(FARBLK_APPEND_ONLY, farblk_tar_rename(tar, "twice", "once"));
    build_close(tar);

    build_begin();
    build_file("z", "1");
    build_file("way", "value");
    build_file("way/down", "deeper");
    build_end();
    tar = build_open(512, 65536);
    fails_with(FARBLK_APPEND_ONLY, farblk_tar_remove(tar, "way/down"));
    /* Read anew, the value in between would hide it. */
    fails_with(FARBLK_APPEND_ONLY, farblk_tar_rename(tar, "z", "way/z"));
    ok(farblk_tar_set(tar, "way/new", "2", 1));
    ok(farblk_tar_remove(tar, "way/new"));
    build_close(tar);

    build_begin();
    build_file("lost and found", "1");
    build_patch_text(build_header("link", '1', 0), 157, "./found");
    build_patch_text(build_header("good link", '1', 0), 157, "/lost and found");
    build_end();
    tar = build_open(512, 65536);
    fails_with(FARBLK_APPEND_ONLY,
               farblk_tar_rename(tar, "lost and found", "x"));
    text_has("1 hard links");
    fails_with(FARBLK_APPEND_ONLY,
               farblk_tar_rename(tar, "good link", "found"));
    ok(farblk_tar_rename(tar, "good link", "better link"));
    build_expect(tar, "better link", "1");
    ok(farblk_tar_remove(tar, "better link"));
    fails_with(FARBLK_APPEND_ONLY,
               farblk_tar_rename(tar, "lost and found", "found"));
    ok(farblk_tar_remove(tar, "link"));
    ok(farblk_tar_rename(tar, "lost and found", "found"));
    build_close(tar);
}

static void
global_headers_stay_when_members_go(void **state)
{
    (void)state;
    build_begin();
    build_file("first", "1");
    build_pax('g', "mtime=5", NULL);
    build_pax('x', "uname=me", NULL);
    build_file("last", "1");
    build_end();
    struct farblk_tar *tar = build_open(512, 65536);
    assert_int_equal(build_stat(tar, "last").position, 2048);
    ok(farblk_tar_remove(tar, "last"));
    assert_int_equal(build_info(tar).end, 2048);
    ok(farblk_tar_set(tar, "new", "1", 1));
    assert_true(build_stat(tar, "new").mtime > 5);
    farblk_tar_close(tar);
    ok(farblk_tar_open(build_dev(), NULL, &tar));
    assert_true(build_stat(tar, "new").mtime > 5);
    assert_int_equal(build_stat(tar, "first").mtime, 014631463146);
    build_close(tar);
}

/* ------------------------------------------------------------ rename */

static void
renaming_changes_a_name_and_nothing_else(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SECTORS; i++) {
        struct judge judge = {.count = 0};
        build_begin();
        struct farblk_tar *tar = build_open(sectors[i], 300000);
        ok(farblk_tar_set(tar, "a/b/one", "1", 1));
        ok(farblk_tar_set(tar, "a/two", "22", 2));
        ok(farblk_tar_set(tar, "three", "333", 3));
        judge_set(&judge, "/a/b/one", "1", 1);
        judge_set(&judge, "/a/two", "22", 2);
        judge_set(&judge, "/three", "333", 3);
        struct farblk_tar_stat before = build_stat(tar, "a/b/one");
        fails_with(FARBLK_EXISTS, farblk_tar_rename(tar, "three", "three"));
        fails_with(FARBLK_EXISTS, farblk_tar_rename(tar, "three", "a/two"));
        fails_with(FARBLK_EXISTS, farblk_tar_rename(tar, "three", "a"));
        fails_with(FARBLK_EXISTS, farblk_tar_rename(tar, "three", "/"));
        fails_with(FARBLK_NOT_FOUND, farblk_tar_rename(tar, "four", "five"));
        fails_with(FARBLK_NOT_A_VALUE, farblk_tar_rename(tar, "a", "b"));
        fails_with(FARBLK_NOT_A_DIRECTORY,
                   farblk_tar_rename(tar, "three", "a/two/x"));
        fails_with(FARBLK_NOT_A_DIRECTORY,
                   farblk_tar_rename(tar, "three", "three/x"));
        fails_with(FARBLK_INVALID, farblk_tar_rename(tar, "three", "../x"));
        char key[400];
        snprintf(key, sizeof key, "/%0101d", 1);
        fails_with(FARBLK_APPEND_ONLY, farblk_tar_rename(tar, "three", key));
        snprintf(key, sizeof key, "/%0100d/%0100d", 1, 2);
        ok(farblk_tar_rename(tar, "a/b/one", key));
        judge_rename(&judge, "/a/b/one", key);
        assert_int_equal(farblk_tar_exists(tar, "a/b"), 0);
        build_expect_archive(&judge);
        ok(farblk_tar_rename(tar, key, "a/two again"));
        judge_rename(&judge, key, "/a/two again");
        ok(farblk_tar_rename(tar, "a/two", "new/dir/two"));
        judge_rename(&judge, "/a/two", "/new/dir/two");
        ok(farblk_tar_rename(tar, "new/dir/two", "new/dir/too"));
        judge_rename(&judge, "/new/dir/two", "/new/dir/too");
        build_expect_archive(&judge);
        assert_null(judge_by_us(&judge, tar));
        struct farblk_tar_stat after = build_stat(tar, "a/two again");
        assert_memory_equal(&before, &after, sizeof before);
        judge_clear(&judge);
        build_close(tar);
    }
}

static void
long_names_are_exchanged_where_they_stand(void **state)
{
    struct judge judge = {.count = 0};
    char from[600], to[600];
    (void)state;
    build_begin();
    struct farblk_tar *tar = build_open(4096, 300000);
    snprintf(from, sizeof from, "/dir/%0300d", 0);
    ok(farblk_tar_set(tar, "before", "x", 1));
    ok(farblk_tar_set(tar, from, "long", 4));
    ok(farblk_tar_set(tar, "after", "y", 1));
    judge_set(&judge, "/before", "x", 1);
    judge_set(&judge, from, "long", 4);
    judge_set(&judge, "/after", "y", 1);
    /* Each shorter than the one before; and never longer again. */
    size_t length = 299;
    for (unsigned step = 0; length > 3; step++) {
        snprintf(to, sizeof to, "/d%u/%0*u", step, (int)length, step);
        ok(farblk_tar_rename(tar, from, to));
        judge_rename(&judge, from, to);
        build_expect_archive(&judge);
        strcpy(from, to);
        length -= length < 20 + step ? length - 3 : step + 1;
    }
    snprintf(to, sizeof to, "/dir/%0302d", 0);
    fails_with(FARBLK_APPEND_ONLY, farblk_tar_rename(tar, from, to));
    build_expect_archive(&judge);
    judge_clear(&judge);
    build_close(tar);

    build_begin();
    snprintf(from, sizeof from, "%0200d", 0);
    build_extended('L', from, strlen(from) + 1);
    build_make_gnu(build_file("cut off", "text"));
    build_pax('x', "GNU.sparse.size=6000", "GNU.sparse.map=0,4",
              "GNU.sparse.name=sparse name", "path=GNUSparse/x", NULL);
    build_file("x", "data");
    build_pax('x', "path=a", NULL);
    build_file("x", "one");
    build_end();
    tar = build_open(512, 0);
    fails_with(FARBLK_APPEND_ONLY, farblk_tar_rename(tar, "a", "bc"));
    ok(farblk_tar_rename(tar, "a", "b"));
    ok(farblk_tar_rename(tar, from, "short"));
    snprintf(to, sizeof to, "%0201d", 0);
    fails_with(FARBLK_APPEND_ONLY, farblk_tar_rename(tar, "short", to));
    ok(farblk_tar_rename(tar, "short", from));
    ok(farblk_tar_rename(tar, from, "again"));
    ok(farblk_tar_rename(tar, "sparse name", "d/sparse"));
    farblk_tar_close(tar);
    ok(farblk_tar_open(build_dev(), NULL, &tar));
    build_expect(tar, "again", "text");
    build_expect(tar, "b", "one");
    assert_int_equal(build_stat(tar, "d/sparse").size, 6000);
    build_close(tar);
}

/* ------------------------------------------------------------ who may write */

static void
one_writer_for_each_device(void **state)
{
    struct farblk_tar_options reading = {.size = sizeof reading,
                                         .read_only = true};
    struct farblk *one, *two, *other;
    struct farblk_tar *writer, *second = NULL, *reader, *elsewhere;
    char uri[300];
    const char *name = support_name("one");
    const char *name2 = support_name("two");
    (void)state;
    snprintf(uri, sizeof uri, "ramdisk:%s?size=1M", name);
    ok(farblk_open(uri, NULL, &one));
    ok(farblk_open(uri, NULL, &two));
    snprintf(uri, sizeof uri, "ramdisk:%s?size=1M", name2);
    ok(farblk_open(uri, NULL, &other));
    assert_int_equal(support_info(one).identity, support_info(two).identity);
    assert_int_not_equal(support_info(one).identity,
                         support_info(other).identity);
    assert_int_not_equal(support_info(one).identity, 0);
    ok(farblk_tar_open(one, NULL, &writer));
    fails_with(FARBLK_BUSY, farblk_tar_open(two, NULL, &second));
    assert_null(second);
    fails_with(FARBLK_BUSY, farblk_tar_create(two, FARBLK_TAR_REPLACE));
    ok(farblk_tar_open(other, NULL, &elsewhere));
    ok(farblk_tar_open(two, &reading, &reader));
    ok(farblk_tar_set(writer, "x", "x", 1));
    fails_with(FARBLK_IS_READ_ONLY, farblk_tar_set(reader, "y", "y", 1));
    fails_with(FARBLK_IS_READ_ONLY, farblk_tar_remove(reader, "x"));
    fails_with(FARBLK_IS_READ_ONLY, farblk_tar_rename(reader, "x", "y"));
    fails_with(FARBLK_IS_READ_ONLY,
               farblk_tar_set_partial(reader, "x", 0, "y", 1));
    assert_false(build_info(reader).read_write);
    farblk_tar_close(writer);
    ok(farblk_tar_open(two, NULL, &writer));
    build_expect(writer, "x", "x");
    farblk_tar_close(writer);
    farblk_tar_close(reader);
    farblk_tar_close(elsewhere);
    farblk_tar_close(NULL);
    ok(farblk_close(one));
    ok(farblk_close(two));
    ok(farblk_close(other));
    ok(farblk_ramdisk_destroy(name));
    ok(farblk_ramdisk_destroy(name2));

    recorder_reset();
    recorder.sector_size = 512;
    recorder.size = 65536;
    recorder.read_only = true;
    one = recorder_open();
    ok(farblk_tar_open(one, NULL, &reader));
    fails_with(FARBLK_IS_READ_ONLY, farblk_tar_set(reader, "y", "y", 1));
    fails_with(FARBLK_IS_READ_ONLY, farblk_tar_create(one, 0));
    farblk_tar_close(reader);
    ok(farblk_close(one));
    recorder_reset();
}

static void
changes_by_others_are_noticed(void **state)
{
    (void)state;
    build_begin();
    build_file("a", "1");
    build_end();
    struct farblk_tar *tar = build_open(512, 65536);
    memset(recorder.image + 1024, 'X', 512); /* where it ended */
    fails_with(FARBLK_CONFLICT, farblk_tar_set(tar, "b", "2", 1));
    fails_with(FARBLK_CONFLICT, farblk_tar_remove(tar, "a"));
    fails_with(FARBLK_CONFLICT, farblk_tar_rename(tar, "a", "b"));
    fails_with(FARBLK_CONFLICT, farblk_tar_set_partial(tar, "a", 0, "x", 1));
    memset(recorder.image + 1024, 0, 512);
    memset(recorder.image, 'X', 512);
    fails_with(FARBLK_CONFLICT, farblk_tar_rename(tar, "a", "b"));
    assert_int_equal(recorder.count, 0);
    build_close(tar);
}

static void
device_that_grows_has_more_room(void **state)
{
    struct farblk *dev;
    struct farblk_tar *tar;
    char uri[300];
    const char *name = support_name("grows");
    static uint8_t data[8192];
    (void)state;
    snprintf(uri, sizeof uri, "ramdisk:%s?size=8k", name);
    ok(farblk_open(uri, NULL, &dev));
    ok(farblk_tar_open(dev, NULL, &tar));
    fails_with(FARBLK_NO_SPACE, farblk_tar_set(tar, "x", data, sizeof data));
    ok(farblk_resize(dev, 32));
    ok(farblk_tar_set(tar, "x", data, sizeof data));
    assert_int_equal(build_info(tar).device_size, 16384);
    ok(farblk_resize(dev, 4));
    fails_with(FARBLK_CONFLICT, farblk_tar_remove(tar, "x"));
    farblk_tar_close(tar);
    ok(farblk_disconnect(dev));
    fails_with(FARBLK_DISCONNECTED, farblk_tar_open(dev, NULL, &tar));
    ok(farblk_close(dev));
    ok(farblk_ramdisk_destroy(name));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(partial_set_changes_just_its_octets),
        cmocka_unit_test(only_the_last_member_is_removed),
        cmocka_unit_test(members_that_replaced_others_stay),
        cmocka_unit_test(global_headers_stay_when_members_go),
        cmocka_unit_test(renaming_changes_a_name_and_nothing_else),
        cmocka_unit_test(long_names_are_exchanged_where_they_stand),
        cmocka_unit_test(one_writer_for_each_device),
        cmocka_unit_test(changes_by_others_are_noticed),
        cmocka_unit_test(device_that_grows_has_more_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
