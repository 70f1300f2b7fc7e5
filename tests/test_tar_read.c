/* SPDX-License-Identifier: ISC */
/*
 * Archives made by hand, and what the library reads out of them: names, sizes,
 * times and links in every way that tar has told them.
 */
#include "tests/support.h"
#include "tests/tar_build.h"

#include <stdio.h>

static const uint32_t sectors[] = {512, 4096, 65536};
#define SECTORS (sizeof sectors / sizeof sectors[0])

/* ------------------------------------------------------------ names */

static void
names_of_every_format_become_keys(void **state)
{
    char name[300], prefix[160];
    (void)state;
    memset(name, 'n', sizeof name);
    name[299] = '\0';
    memset(prefix, 'p', sizeof prefix);
    build_begin();
    build_make_v7(build_file("old", "1"));
    build_patch(build_file("rest", "2"), 345, "front/part", 11);
    build_pax('x', "path=a/pax/name", NULL);
    build_file("ignored", "3");
    build_extended('L', "a/long/name", 12);
    build_make_gnu(build_file("ignored too", "4"));
    /* No zero behind either part. */
    size_t full = build_file(name, "5");
    build_patch(full, 345, prefix, 155);
    /* GNU keeps other things where ustar has the prefix. */
    size_t gnu = build_file("gnu", "6");
    build_make_gnu(gnu);
    build_patch(gnu, 345, "14631463146\0", 12);
    /* star has a shorter prefix, and times behind it. */
    size_t star = build_file("star", "7");
    build_patch(star, 345, "short", 6);
    build_patch(star, 476, "14631463146", 12);
    build_patch(star, 508, "tar", 4);
    build_end();
    for (unsigned i = 0; i < SECTORS; i++) {
        struct farblk_tar *tar = build_open(sectors[i], 0);
        build_expect(tar, "/old", "1");
        build_expect(tar, "/front/part/rest", "2");
        build_expect(tar, "/a/pax/name", "3");
        build_expect(tar, "/a/long/name", "4");
        char key[400];
        snprintf(key, sizeof key, "/%.155s/%.100s", prefix, name);
        build_expect(tar, key, "5");
        build_expect(tar, "/gnu", "6");
        build_expect(tar, "/short/star", "7");
        build_close(tar);
    }
}

static void
keys_and_names_are_normalised(void **state)
{
    (void)state;
    build_begin();
    build_file("./a//b/./c", "1");
    build_file("/absolute", "2");
    build_file("../up", "3");
    build_header("dir/", '0', 0); /* as v7 told of directories */
    build_header("./", '5', 0);
    build_file("...", "4");
    build_end();
    struct farblk_tar *tar = build_open(512, 0);
    build_expect(tar, "/a/b/c", "1");
    build_expect(tar, "a/b/c", "1");
    build_expect(tar, "//a/./b//c/", "1");
    build_expect(tar, "/absolute", "2");
    build_expect(tar, "/../up", "3");
    build_expect(tar, "...", "4");
    assert_int_equal(farblk_tar_exists(tar, "up"), FARBLK_TAR_NOTHING);
    assert_int_equal(farblk_tar_exists(tar, "/dir"), FARBLK_TAR_DIRECTORY);
    assert_int_equal(farblk_tar_exists(tar, ""), FARBLK_TAR_DIRECTORY);
    assert_int_equal(farblk_tar_exists(tar, "/"), FARBLK_TAR_DIRECTORY);
    assert_int_equal(build_stat(tar, "/").type, '5');
    assert_int_equal(farblk_tar_exists(tar, "/a"), FARBLK_TAR_DIRECTORY);
    assert_int_equal(build_stat(tar, "/a").type, 0);
    build_close(tar);
}

static void
wrong_keys_have_statuses_of_their_own(void **state)
{
    struct farblk_tar_stat stat;
    uint8_t digest[FARBLK_TAR_DIGEST_SIZE];
    char octet;
    size_t got;
    void *value;
    uint64_t size;
    (void)state;
    struct farblk_tar *tar;
    fails_with(FARBLK_INVALID, farblk_tar_open(NULL, NULL, &tar));
    fails_with(FARBLK_INVALID, farblk_tar_open(NULL, NULL, NULL));
    fails_with(FARBLK_INVALID, farblk_tar_exists(NULL, "/"));
    build_begin();
    build_file("dir/file", "text");
    build_header("link", '2', 0);
    build_end();
    tar = build_open(512, 0);
    fails_with(FARBLK_INVALID, farblk_tar_exists(tar, NULL));
    fails_with(FARBLK_INVALID, farblk_tar_get(tar, "/dir", 9, NULL, &size));
    fails_with(FARBLK_INVALID, farblk_tar_list(tar, "/", NULL, NULL));
    fails_with(FARBLK_INVALID, farblk_tar_iterate(tar, NULL, NULL));
    fails_with(FARBLK_INVALID, farblk_tar_get_info(tar, NULL, 0));
    fails_with(FARBLK_NOT_FOUND,
               farblk_tar_stat(tar, "/none", &stat, sizeof stat));
    text_has("/none");
    fails_with(FARBLK_NOT_FOUND,
               farblk_tar_get(tar, "/dir/none/more", 9, &value, &size));
    fails_with(FARBLK_NOT_A_DIRECTORY, farblk_tar_exists(tar, "/dir/file/x"));
    fails_with(FARBLK_NOT_A_DIRECTORY, farblk_tar_exists(tar, "/link/x"));
    fails_with(FARBLK_NOT_A_DIRECTORY,
               farblk_tar_get_partial(tar, "/dir/file/x", 0, &octet, 1, &got));
    fails_with(FARBLK_NOT_A_VALUE,
               farblk_tar_get(tar, "/dir", 9, &value, &size));
    fails_with(FARBLK_NOT_A_VALUE, farblk_tar_digest(tar, "/", digest));
    fails_with(FARBLK_NOT_A_VALUE,
               farblk_tar_get(tar, "/link", 9, &value, &size));
    assert_null(value);
    ok(farblk_tar_size(tar, "/dir", &size));
    assert_int_equal(size, 0);
    ok(farblk_tar_size(tar, "/dir/file/", &size));
    assert_int_equal(size, 4);
    assert_string_equal(farblk_last_text(), "");
    build_close(tar);
}

/* ------------------------------------------------------------ numbers */

static void
numbers_are_octal_or_base_256(void **state)
{
    (void)state;
    build_begin();
    build_patch(build_file("spaces", "abc"), 124, "         3 \0", 12);
    build_patch(build_file("twelve", "abc"), 124, "000000000003", 12);
    build_patch_number(build_file("binary", "abc"), 124, 12, 3);
    build_patch_number(build_file("before 1970", "abc"), 136, 12, -86400);
    build_patch_number(build_file("far", "abc"), 136, 12, INT64_C(1) << 40);
    build_patch_number(build_file("owner", "abc"), 108, 8, INT64_C(1) << 50);
    build_patch(build_file("garbage", "abc"), 108, "nobody!!", 8);
    build_end();
    struct farblk_tar *tar = build_open(4096, 0);
    build_expect(tar, "spaces", "abc");
    build_expect(tar, "twelve", "abc");
    build_expect(tar, "binary", "abc");
    assert_int_equal(build_stat(tar, "before 1970").mtime, -86400);
    assert_int_equal(build_stat(tar, "far").mtime, INT64_C(1) << 40);
    assert_int_equal(build_stat(tar, "owner").uid, INT64_C(1) << 50);
    assert_int_equal(build_stat(tar, "garbage").uid, 0);
    struct farblk_tar_stat stat = build_stat(tar, "binary");
    assert_int_equal(stat.mtime, 014631463146);
    assert_int_equal(stat.mode, 0644);
    assert_int_equal(stat.uid, 01750);
    assert_int_equal(stat.gid, 0144);
    assert_string_equal(stat.user, "somebody");
    assert_string_equal(stat.group, "users");
    build_close(tar);
}

static void
checksum_of_signed_octets_is_right_too(void **state)
{
    (void)state;
    build_begin();
    size_t header = build_file("caf\xc3\xa9", "abc");
    int sum = 0;
    char text[8];
    memset(build.data + header + 148, ' ', 8);
    for (unsigned i = 0; i < 512; i++)
        sum += (int8_t)build.data[header + i];
    snprintf(text, sizeof text, "%06o", (unsigned)sum);
    memcpy(build.data + header + 148, text, 7);
    build_end();
    struct farblk_tar *tar = build_open(512, 0);
    build_expect(tar, "/caf\xc3\xa9", "abc");
    build_close(tar);
}

/* ------------------------------------------------------------ pax */

static void
pax_records_go_before_headers_and_globals(void **state)
{
    (void)state;
    build_begin();
    build_pax('g', "mtime=100.25", "uname=everybody", "comment=nothing", NULL);
    build_file("global", "1");
    build_pax('x', "mtime=-1.5", "uid=4294967296", "gname=few", "size=3", NULL);
    build_header("local", '0', 0);
    build_data("abc", 3);
    build_pax('x', "mtime=", "uname=", NULL);
    build_file("deleted", "1");
    build_pax('g', "mtime=7", NULL);
    build_file("later", "1");
    build_pax('x', "mtime=1234567890.1234567891234", NULL);
    build_file("precise", "1");
    build_end();
    struct farblk_tar *tar = build_open(512, 0);
    struct farblk_tar_stat stat = build_stat(tar, "global");
    assert_int_equal(stat.mtime, 100);
    assert_int_equal(stat.mtime_nsec, 250000000);
    assert_string_equal(stat.user, "everybody");
    assert_string_equal(stat.group, "users");
    stat = build_stat(tar, "local");
    assert_int_equal(stat.mtime, -2);
    assert_int_equal(stat.mtime_nsec, 500000000);
    assert_int_equal(stat.uid, INT64_C(4294967296));
    assert_string_equal(stat.group, "few");
    build_expect(tar, "local", "abc");
    stat = build_stat(tar, "deleted");
    assert_int_equal(stat.mtime, 014631463146);
    assert_int_equal(stat.mtime_nsec, 0);
    assert_string_equal(stat.user, "somebody");
    stat = build_stat(tar, "later");
    assert_int_equal(stat.mtime, 7);
    assert_string_equal(stat.user, "everybody");
    stat = build_stat(tar, "precise");
    assert_int_equal(stat.mtime, 1234567890);
    assert_int_equal(stat.mtime_nsec, 123456789);
    build_close(tar);
}

static void
records_longer_than_a_block_are_read(void **state)
{
    char *record = malloc(5000);
    (void)state;
    assert_non_null(record);
    strcpy(record, "path=");
    for (unsigned i = 0; i < 400; i++)
        sprintf(record + 5 + 10 * (size_t)i, "%s%08x/", i == 0 ? "/" : "", i);
    build_begin();
    strcat(record, "end");
    build_pax('x', "atime=1", record, "mtime=5", NULL);
    build_file("x", "deep");
    build_end();
    for (unsigned i = 0; i < SECTORS; i++) {
        struct farblk_tar *tar = build_open(sectors[i], 0);
        build_expect(tar, record + 5, "deep");
        assert_int_equal(build_stat(tar, record + 5).mtime, 5);
        build_close(tar);
    }
    free(record);
}

/* ------------------------------------------------------------ kinds */

static int
count_entry(void *arg, const struct farblk_tar_entry *entry)
{
    (void)entry;
    ++*(unsigned *)arg;
    return 0;
}

static void
kinds_are_told(void **state)
{
    static const char names[600] = "Yfile of a dump";
    unsigned members = 0;
    char link[20];
    (void)state;
    build_begin();
    build_header("label", 'V', 0);
    build_patch_text(build_header("sym", '2', 0), 157, "../some/where");
    size_t device = build_header("char", '3', 0);
    build_patch_text(device, 329, "0000005");
    build_patch_text(device, 337, "0000001");
    build_header("block", '4', 0);
    build_header("fifo", '6', 0);
    build_header("contiguous", '7', 3);
    build_data("abc", 3);
    build_header("unknown", 'Q', 3);
    build_data("def", 3);
    /* A size, and no data: some wrote that. */
    build_header("dir", '5', 1000000);
    build_header("dump", 'D', 600);
    build_data(names, sizeof names);
    build_extended('K', "a long link's target", 21);
    build_header("long", '2', 0);
    build_end();
    struct farblk_tar *tar = build_open(512, 0);
    ok(farblk_tar_iterate(tar, count_entry, &members));
    assert_int_equal(members, 9);
    assert_int_equal(farblk_tar_exists(tar, "label"), 0);
    assert_int_equal(farblk_tar_exists(tar, "sym"), FARBLK_TAR_SYMLINK);
    assert_int_equal(farblk_tar_read_link(tar, "sym", link, sizeof link), 13);
    assert_string_equal(link, "../some/where");
    assert_int_equal(farblk_tar_read_link(tar, "sym", link, 3), 13);
    assert_string_equal(link, "..");
    assert_int_equal(farblk_tar_read_link(tar, "sym", NULL, 0), 13);
    assert_int_equal(farblk_tar_read_link(tar, "long", link, sizeof link), 20);
    assert_string_equal(link, "a long link's targe");
    fails_with(FARBLK_INVALID, farblk_tar_read_link(tar, "dir", link, 9));
    struct farblk_tar_stat stat = build_stat(tar, "char");
    assert_int_equal(stat.kind, FARBLK_TAR_CHARACTER);
    assert_int_equal(stat.device_major, 5);
    assert_int_equal(stat.device_minor, 1);
    assert_int_equal(farblk_tar_exists(tar, "block"), FARBLK_TAR_BLOCK);
    assert_int_equal(farblk_tar_exists(tar, "fifo"), FARBLK_TAR_FIFO);
    build_expect(tar, "contiguous", "abc");
    build_expect(tar, "unknown", "def");
    assert_int_equal(build_stat(tar, "unknown").type, 'Q');
    assert_int_equal(farblk_tar_exists(tar, "dir"), FARBLK_TAR_DIRECTORY);
    assert_int_equal(build_stat(tar, "dir").size, 0);
    assert_int_equal(farblk_tar_exists(tar, "dump"), FARBLK_TAR_DIRECTORY);
    build_close(tar);
}

static void
build_link(const char *name, const char *target)
{
    build_patch_text(build_header(name, '1', 0), 157, target);
}

static void
hard_links_are_values_of_when_they_were_archived(void **state)
{
    (void)state;
    build_begin();
    build_file("a", "first");
    build_link("b", "./a");
    build_link("c", "b"); /* by way of another */
    build_file("a", "second");
    build_link("d", "a");
    build_link("a", "a"); /* itself, as it was before */
    build_link("lost", "nowhere");
    build_link("late", "z");
    build_file("z", "too late");
    build_header("dir", '5', 0);
    build_link("of dir", "dir");
    build_patch_text(build_header("sym", '2', 0), 157, "target");
    build_link("of sym", "sym");
    /* As pax -o linkdata: the data comes again; here without a target. */
    build_patch_text(build_header("own", '1', 4), 157, "nothing");
    build_data("mine", 4);
    build_end();
    struct farblk_tar *tar = build_open(4096, 0);
    build_expect(tar, "b", "first");
    build_expect(tar, "c", "first");
    build_expect(tar, "d", "second");
    build_expect(tar, "a", "second");
    build_expect(tar, "own", "mine");
    assert_true(build_stat(tar, "c").hard_link);
    assert_int_equal(build_stat(tar, "c").size, 5);
    assert_int_equal(farblk_tar_exists(tar, "lost"), FARBLK_TAR_LOST_LINK);
    assert_int_equal(farblk_tar_exists(tar, "late"), FARBLK_TAR_LOST_LINK);
    assert_int_equal(farblk_tar_exists(tar, "of dir"), FARBLK_TAR_LOST_LINK);
    assert_int_equal(farblk_tar_exists(tar, "of sym"), FARBLK_TAR_SYMLINK);
    size_t got;
    fails_with(FARBLK_NOT_A_VALUE,
               farblk_tar_get_partial(tar, "lost", 0, NULL, 0, &got));
    text_has("link");
    build_close(tar);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_every_format_become_keys),
        cmocka_unit_test(keys_and_names_are_normalised),
        cmocka_unit_test(wrong_keys_have_statuses_of_their_own),
        cmocka_unit_test(numbers_are_octal_or_base_256),
        cmocka_unit_test(checksum_of_signed_octets_is_right_too),
        cmocka_unit_test(pax_records_go_before_headers_and_globals),
        cmocka_unit_test(records_longer_than_a_block_are_read),
        cmocka_unit_test(kinds_are_told),
        cmocka_unit_test(hard_links_are_values_of_when_they_were_archived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
