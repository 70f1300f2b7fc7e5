/* SPDX-License-Identifier: ISC */
/*
 * Archives made by hand: which of several members counts, lists, parts of
 * values and their digests, where an archive ends, what is read of it.
 */
#include "tests/recorder.h"
#include "tests/support.h"
#include "tests/tar_build.h"

#include <stdio.h>

static const uint32_t sectors[] = {512, 4096, 65536};
#define SECTORS (sizeof sectors / sizeof sectors[0])

static int
count_entry(void *arg, const struct farblk_tar_entry *entry)
{
    (void)entry;
    ++*(unsigned *)arg;
    return 0;
}

/* ------------------------------------------------------------ order */

struct seen {
    char text[4096];
    size_t used;
};

static int
note_entry(void *arg, const struct farblk_tar_entry *entry)
{
    struct seen *seen = arg;
    seen->used += (size_t)snprintf(
        seen->text + seen->used, sizeof seen->text - seen->used, "%s%s%s ",
        entry->current ? "" : "-", entry->key,
        entry->stat->kind == FARBLK_TAR_DIRECTORY ? "/" : "");
    return 0;
}

static void
expect_list(struct farblk_tar *tar, const char *key, const char *wanted)
{
    struct seen seen = {.used = 0};
    ok(farblk_tar_list(tar, key, note_entry, &seen));
    assert_string_equal(seen.text, wanted);
}

static void
last_of_several_counts(void **state)
{
    struct seen seen = {.used = 0};
    (void)state;
    build_begin();
    build_file("f", "old");
    build_file("dir/one", "1");
    build_file("./f", "new");
    build_header("dir/", '5', 0); /* behind its child, which stays */
    build_file("way", "was a value");
    build_file("way/down/here", "deep"); /* and has to be a directory now */
    build_file("tree/a/b", "gone");
    build_file("tree/c", "gone");
    build_file("tree", "is a value now");
    build_end();
    struct farblk_tar *tar = build_open(512, 0);
    build_expect(tar, "f", "new");
    build_expect(tar, "dir/one", "1");
    build_expect(tar, "way/down/here", "deep");
    build_expect(tar, "tree", "is a value now");
    fails_with(FARBLK_NOT_A_DIRECTORY, farblk_tar_exists(tar, "tree/c"));
    ok(farblk_tar_iterate(tar, note_entry, &seen));
    assert_string_equal(seen.text, "-/f /dir/one /f /dir/ -/way /way/down/here "
                                   "-/tree/a/b -/tree/c /tree ");
    expect_list(tar, "/", "/dir/ /f /tree /way/ ");
    expect_list(tar, "way", "/way/down/ ");
    fails_with(FARBLK_NOT_A_DIRECTORY,
               farblk_tar_list(tar, "f", note_entry, &seen));
    fails_with(FARBLK_NOT_FOUND,
               farblk_tar_list(tar, "none", note_entry, &seen));
    build_close(tar);
}

static int
stop_at_seven(void *arg, const struct farblk_tar_entry *entry)
{
    assert_int_equal(entry->size, sizeof *entry);
    return ++*(unsigned *)arg == 7 ? 77 : 0;
}

/* "/d/0000", "/d/0001" ... */
static int
expect_next(void *arg, const struct farblk_tar_entry *entry)
{
    char key[20];
    snprintf(key, sizeof key, "/d/%04u", (*(unsigned *)arg)++);
    assert_string_equal(entry->key, key);
    return 0;
}

static void
many_children_are_listed_in_order(void **state)
{
    char name[20];
    unsigned seen = 0;
    (void)state;
    build_begin();
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "d/%04u", i * 7919 % 1000);
        build_file(name, name);
    }
    build_end();
    struct farblk_tar *tar = build_open(512, 0);
    ok(farblk_tar_list(tar, "d", expect_next, &seen));
    assert_int_equal(seen, 1000);
    seen = 0;
    ok(farblk_tar_iterate(tar, count_entry, &seen));
    assert_int_equal(seen, 1000);
    seen = 0;
    assert_int_equal(farblk_tar_list(tar, "d", stop_at_seven, &seen), 77);
    seen = 0;
    assert_int_equal(farblk_tar_iterate(tar, stop_at_seven, &seen), 77);
    build_close(tar);
}

static void
time_of_a_directory_is_of_the_newest_within(void **state)
{
    int64_t seconds;
    uint32_t nanoseconds;
    (void)state;
    build_begin();
    build_pax('x', "mtime=50", NULL);
    build_header("d", '5', 0);
    build_pax('x', "mtime=60.5", NULL);
    build_file("d/a", "1");
    build_pax('x', "mtime=60.25", NULL);
    build_file("d/b", "1");
    build_pax('x', "mtime=99", NULL);
    build_file("d/sub/deeper", "1");
    build_end();
    struct farblk_tar *tar = build_open(512, 0);
    ok(farblk_tar_last_modified(tar, "d", &seconds, &nanoseconds));
    assert_int_equal(seconds, 60);
    assert_int_equal(nanoseconds, 500000000);
    assert_int_equal(build_stat(tar, "d").mtime, 50);
    ok(farblk_tar_last_modified(tar, "d/b", &seconds, NULL));
    assert_int_equal(seconds, 60);
    ok(farblk_tar_last_modified(tar, "/", &seconds, &nanoseconds));
    assert_int_equal(seconds, 50);
    build_close(tar);
}

/* ------------------------------------------------------------ values */

static void
parts_of_values_stay_within_them(void **state)
{
    uint8_t data[10000], part[20000];
    size_t got;
    (void)state;
    pattern_fill(data, sizeof data, 1);
    build_begin();
    build_file("before", "xxxxxxxx");
    build_header("value", '0', sizeof data);
    build_data(data, sizeof data);
    build_file("after", "yyyyyyyy");
    build_end();
    for (unsigned i = 0; i < SECTORS; i++) {
        struct farblk_tar *tar = build_open(sectors[i], 0);
        struct rng rng = {i};
        for (unsigned n = 0; n < 300; n++) {
            uint64_t offset = rng_below(&rng, sizeof data + 100);
            size_t length = (size_t)rng_below(&rng, sizeof data + 100);
            size_t want = offset >= sizeof data           ? 0
                          : length > sizeof data - offset ? sizeof data - offset
                                                          : length;
            memset(part, 0xee, sizeof part);
            ok(farblk_tar_get_partial(tar, "value", offset, part, length,
                                      &got));
            assert_int_equal(got, want);
            assert_memory_equal(part, data + (want > 0 ? offset : 0), want);
            assert_int_equal(part[want], 0xee);
        }
        ok(farblk_tar_get_partial(tar, "value", UINT64_MAX, part, SIZE_MAX,
                                  &got));
        assert_int_equal(got, 0);
        ok(farblk_tar_get_partial(tar, "value", 0, NULL, 0, &got));
        void *value;
        uint64_t size;
        fails_with(
            FARBLK_NO_SPACE,
            farblk_tar_get(tar, "value", sizeof data - 1, &value, &size));
        text_has("9999");
        ok(farblk_tar_get(tar, "value", sizeof data, &value, &size));
        assert_int_equal(((uint8_t *)value)[size], 0);
        free(value);
        build_close(tar);
    }
}

static void
expect_digest(struct farblk_tar *tar, const char *key, const char *wanted)
{
    uint8_t digest[FARBLK_TAR_DIGEST_SIZE];
    char text[2 * sizeof digest + 1];
    ok(farblk_tar_digest(tar, key, digest));
    for (unsigned i = 0; i < sizeof digest; i++)
        sprintf(text + 2 * (size_t)i, "%02x", digest[i]);
    assert_string_equal(text, wanted);
}

/* FIPS 180-4's own examples. */
static void
digests_are_sha_256(void **state)
{
    (void)state;
    char *many = malloc(1000000);
    assert_non_null(many);
    memset(many, 'a', 1000000);
    build_begin();
    build_file("abc", "abc");
    build_file("none", "");
    build_file("56",
               "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq");
    build_header("million", '0', 1000000);
    build_data(many, 1000000);
    build_end();
    free(many);
    struct farblk_tar *tar = build_open(512, 0);
    expect_digest(
        tar, "abc",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    expect_digest(
        tar, "none",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    expect_digest(
        tar, "56",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    expect_digest(
        tar, "million",
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    build_close(tar);
}

/* ------------------------------------------------------------ ends */

static void
archive_ends_at_zeros_or_with_the_device(void **state)
{
    struct farblk_tar_info info;
    unsigned members = 0;
    (void)state;
    build_begin();
    struct farblk_tar *tar = build_open(512, 4096);
    ok(farblk_tar_iterate(tar, count_entry, &members));
    assert_int_equal(members, 0);
    ok(farblk_tar_get_info(tar, &info, sizeof info));
    assert_int_equal(info.end, 0);
    assert_int_equal(info.free, 3072);
    build_close(tar);

    build_begin();
    build_file("a", "1");
    tar = build_open(512, 0); /* no trailer at all */
    build_expect(tar, "a", "1");
    ok(farblk_tar_get_info(tar, &info, sizeof info));
    assert_int_equal(info.end, 1024);
    assert_int_equal(info.free, 0);
    fails_with(FARBLK_NO_SPACE, farblk_tar_set(tar, "b", NULL, 0));
    build_close(tar);

    /* Behind a block of zeros nothing belongs to the archive. */
    static const uint8_t zeros[512];
    build_data(zeros, sizeof zeros);
    build_file("b", "2");
    build_end();
    tar = build_open(4096, 0);
    build_expect(tar, "a", "1");
    assert_int_equal(farblk_tar_exists(tar, "b"), 0);
    build_close(tar);
}

static void
extended_headers_that_nothing_follows_make_it_read_only(void **state)
{
    (void)state;
    build_begin();
    build_file("a", "1");
    build_pax('x', "path=b", NULL);
    build_end();
    struct farblk_tar *tar = build_open(512, 4096);
    build_expect(tar, "a", "1");
    fails_with(FARBLK_CORRUPT, farblk_tar_set(tar, "c", "2", 1));
    text_has("1024");
    assert_int_equal(recorder.count, 0);
    build_close(tar);
}

static void
data_is_skipped_not_read(void **state)
{
    static uint8_t data[4 << 20];
    char name[20];
    (void)state;
    build_begin();
    for (unsigned i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "big-%u", i);
        build_header(name, '0', sizeof data);
        build_data(data, sizeof data);
    }
    build_end();
    struct farblk_tar *tar = build_open(512, 0);
    assert_in_range(recorder.octets_read, 9 * 512, 9 * 8192);
    recorder.octets_read = 0;
    size_t got;
    uint8_t octet;
    ok(farblk_tar_get_partial(tar, "big-5", 1000000, &octet, 1, &got));
    assert_int_equal(recorder.octets_read, 512);
    build_close(tar);

    /* Small members one behind the other take few reads. */
    build_begin();
    for (unsigned i = 0; i < 2000; i++) {
        snprintf(name, sizeof name, "small-%u", i);
        build_file(name, "");
    }
    build_end();
    tar = build_open(512, 0);
    assert_in_range(recorder.octets_read, build.size - 512,
                    build.size + 200000);
    build_close(tar);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(last_of_several_counts),
        cmocka_unit_test(many_children_are_listed_in_order),
        cmocka_unit_test(time_of_a_directory_is_of_the_newest_within),
        cmocka_unit_test(parts_of_values_stay_within_them),
        cmocka_unit_test(digests_are_sha_256),
        cmocka_unit_test(archive_ends_at_zeros_or_with_the_device),
        cmocka_unit_test(
            extended_headers_that_nothing_follows_make_it_read_only),
        cmocka_unit_test(data_is_skipped_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
