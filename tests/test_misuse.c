/* SPDX-License-Identifier: ISC */
/*
 * Misuse of the API, one by one: URIs, names, pointers.  Each gives an
 * error that says what was wrong, and nothing else happens.
 */
#include "tests/ways.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct farblk *const poison = (struct farblk *)0x5a5a;

/* Opening must fail so, and leave no handle. */
#define refused(status, uri)                                                   \
    do {                                                                       \
        struct farblk *refused_dev = poison;                                   \
        fails_with(status, farblk_open((uri), NULL, &refused_dev));            \
        assert_null(refused_dev);                                              \
    } while (0)

static void
unknown_scheme_lists_the_known_ones(void **state)
{
    (void)state;
    refused(FARBLK_INVALID, "floppy:a");
    text_has("floppy");
    text_has("ramdisk");
    text_has("file");
    text_has("farblk+unix");
}

static void
malformed_uris_are_invalid(void **state)
{
    static const char *const uris[] = {
        "",
        ":",
        "ramdisk",
        "ramdisk:",
        "ramdisk:?size=1M",
        ":scratch",
        "/etc/passwd",
        "ram disk:a",
        "ramdisk:a?",
        "ramdisk:a?size",
        "ramdisk:a?size=",
        "ramdisk:a?=1",
        "ramdisk:a?&",
        "ramdisk:a%2",
        "ramdisk:a%zz",
        "file:/tmp/a%00b",
        "file:",
        "farblk+unix:///",
        "farblk+unix:///disk",
        "farblk+unix:///?socket=",
        "farblk:///disk",
        "farblk://host:99999/disk",
        "farblk://host:x/disk",
        "farblk://host:0/disk",
        "farblk://host",
        "farblk://[::1/disk",
    };

    (void)state;
    for (size_t i = 0; i < sizeof uris / sizeof *uris; i++) {
        struct farblk *dev = poison;
        int status = farblk_open(uris[i], NULL, &dev);

        if (status != FARBLK_INVALID)
            print_error("farblk_open(\"%s\"): %s\n", uris[i],
                        farblk_last_text());
        assert_int_equal(status, FARBLK_INVALID);
        assert_string_not_equal(farblk_last_text(), "");
        assert_null(dev);
    }
}

static void
unknown_parameter_lists_the_known_ones(void **state)
{
    (void)state;
    refused(FARBLK_INVALID, "ramdisk:a?colour=red");
    text_has("colour");
    text_has("sector");
    text_has("ro");
    refused(FARBLK_INVALID, "file:/tmp/a?sectors=512");
    text_has("direct");
    refused(FARBLK_INVALID, "farblk+unix:///d?socket=/tmp/s&sector=512");
    text_has("socket");
    /* A parameter of another scheme is unknown as well. */
    refused(FARBLK_INVALID, "ramdisk:a?direct=1");
}

static void
parameters_out_of_range_are_invalid(void **state)
{
    static const char *const uris[] = {
        "ramdisk:a?ro=2",
        "ramdisk:a?ro=yes",
        "ramdisk:a?ro=",
        "ramdisk:a?ro=-1",
        "ramdisk:a?size=-1",
        "ramdisk:a?size=1X",
        "ramdisk:a?size=big",
        "ramdisk:a?size=99999999999999999999",
        "ramdisk:a?size=16777216T",
        "ramdisk:a?size=8388608T",
        "ramdisk:a?size=1000",
        "ramdisk:a?timeout=soon",
        "ramdisk:a?timeout=-5",
        "ramdisk:a?timeout=99999999999",
        "file:/tmp/a?engine=steam",
        "ramdisk:a?size=1M&size=1M",
        "ramdisk:a?ro=1&ro=1",
        "ramdisk:a?sector=512&size=1M&sector=512",
    };

    (void)state;
    for (size_t i = 0; i < sizeof uris / sizeof *uris; i++) {
        struct farblk *dev = poison;
        int status = farblk_open(uris[i], NULL, &dev);

        if (status != FARBLK_INVALID)
            print_error("farblk_open(\"%s\"): %d %s\n", uris[i], status,
                        farblk_last_text());
        assert_int_equal(status, FARBLK_INVALID);
        assert_null(dev);
    }
    refused(FARBLK_INVALID, "file:/tmp/a?engine=steam");
    text_has("pool");
}

static void
sector_size_must_be_a_power_of_two_within_its_limits(void **state)
{
    static const uint32_t sizes[] = {
        0, 1, 256, 511, 513, 1000, 1536, 65535, 131072, 1u << 31, UINT32_MAX};
    const char *path = support_path("disk");

    (void)state;
    support_make_file(path, 1 << 20);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char uri[300];

        snprintf(uri, sizeof uri, "ramdisk:misuse?sector=%u&size=1G", sizes[i]);
        refused(FARBLK_INVALID, uri);
        snprintf(uri, sizeof uri, "file:%s?sector=%u", path, sizes[i]);
        refused(FARBLK_INVALID, uri);
        fails_with(FARBLK_INVALID,
                   farblk_ramdisk_create("misuse", 8, sizes[i]));
    }
    fails_with(FARBLK_INVALID, farblk_ramdisk_create("misuse", 8, 1000));
    text_has("1000");
}

static void
ramdisk_names_and_sizes_are_checked(void **state)
{
    char longest[258];

    (void)state;
    memset(longest, 'n', sizeof longest);
    longest[256] = '\0';
    fails_with(FARBLK_INVALID, farblk_ramdisk_create(longest, 8, 512));
    longest[255] = '\0';
    ok(farblk_ramdisk_create(longest, 8, 512));
    ok(farblk_ramdisk_destroy(longest));
    fails_with(FARBLK_INVALID, farblk_ramdisk_create("", 8, 512));
    fails_with(FARBLK_INVALID, farblk_ramdisk_create("a b", 8, 512));
    fails_with(FARBLK_INVALID, farblk_ramdisk_create("a/b", 8, 512));
    fails_with(FARBLK_INVALID, farblk_ramdisk_create("caf\xc3\xa9", 8, 512));
    fails_with(FARBLK_INVALID, farblk_ramdisk_create(NULL, 8, 512));
    fails_with(FARBLK_INVALID, farblk_ramdisk_destroy(NULL));
    fails_with(FARBLK_INVALID,
               farblk_ramdisk_create("big", INT64_MAX / 512 + 1, 512));
    fails_with(FARBLK_INVALID, farblk_ramdisk_create("big", UINT64_MAX, 512));
    refused(FARBLK_INVALID, "ramdisk:a/b");
    ok(farblk_ramdisk_destroy("no-such-ramdisk"));
}

static void
ramdisk_of_another_shape_is_a_conflict(void **state)
{
    struct farblk *dev = NULL;

    (void)state;
    ok(farblk_ramdisk_create("shape", 100, 1024));
    refused(FARBLK_CONFLICT, "ramdisk:shape?size=1M");
    refused(FARBLK_CONFLICT, "ramdisk:shape?sector=512");
    ok(farblk_open("ramdisk:shape?sector=1024&size=100k", NULL, &dev));
    assert_int_equal(support_info(dev).size_sectors, 100);
    ok(farblk_close(dev));
    ok(farblk_open("ramdisk:shape", NULL, &dev));
    assert_int_equal(support_info(dev).sector_size, 1024);
    ok(farblk_close(dev));
    ok(farblk_ramdisk_destroy("shape"));
}

static void
ramdisk_that_open_creates_has_the_default_shape(void **state)
{
    const char *name = support_name("new");
    char uri[300];
    struct farblk *dev = NULL;

    (void)state;
    snprintf(uri, sizeof uri, "ramdisk:%s", name);
    ok(farblk_open(uri, NULL, &dev));
    assert_int_equal(support_info(dev).size_sectors, FARBLK_RAMDISK_SECTORS);
    assert_int_equal(support_info(dev).sector_size, FARBLK_RAMDISK_SECTOR_SIZE);
    ok(farblk_close(dev));
    ok(farblk_ramdisk_destroy(name));
}

static void
replaced_or_destroyed_ramdisk_stays_with_its_handles(void **state)
{
    struct farblk *one = NULL, *two = NULL, *three = NULL;
    uint8_t out[512], in[512];

    (void)state;
    pattern_fill(out, sizeof out, 1);
    ok(farblk_ramdisk_create("keep", 64, 512));
    ok(farblk_open("ramdisk:keep", NULL, &one));
    ok(support_write(one, 3, out, sizeof out, 0));
    ok(farblk_ramdisk_create("keep", 32, 4096));
    ok(farblk_open("ramdisk:keep", NULL, &two));
    assert_int_equal(support_info(two).sector_size, 4096);
    assert_int_equal(support_info(one).sector_size, 512);
    ok(support_read(one, 3, in, sizeof in));
    assert_memory_equal(in, out, sizeof in);
    ok(farblk_ramdisk_destroy("keep"));
    ok(farblk_open("ramdisk:keep", NULL, &three));
    assert_int_equal(support_info(three).size_sectors, FARBLK_RAMDISK_SECTORS);
    ok(support_write(one, 4, out, sizeof out, 0));
    ok(farblk_resize(two, 64));
    assert_int_equal(support_info(one).size_sectors, 64);
    ok(farblk_close(one));
    ok(farblk_close(two));
    ok(farblk_close(three));
    ok(farblk_ramdisk_destroy("keep"));
}

static void
files_that_can_not_be_devices_are_refused(void **state)
{
    const char *path = support_path("odd");
    char uri[300];

    (void)state;
    refused(FARBLK_NOT_FOUND, "file:/no/such/directory/disk.img");
    text_has("/no/such/directory/disk.img");
    snprintf(uri, sizeof uri, "file:%s", path);
    refused(FARBLK_NOT_FOUND, uri);
    support_make_file(path, 1000);
    refused(FARBLK_INVALID, uri);
    text_has("1000");
    text_has("512");
    support_make_file(path, 512 * 3);
    snprintf(uri, sizeof uri, "file:%s?sector=1024", path);
    refused(FARBLK_INVALID, uri);
    snprintf(uri, sizeof uri, "file:%s", support_directory());
    refused(FARBLK_INVALID, uri);
    refused(FARBLK_INVALID, "file:/dev/null");
    unlink(path);
}

static void
creating_needs_a_size_and_leaves_what_exists(void **state)
{
    const char *path = support_path("made");
    char uri[300];
    struct farblk *dev = NULL;

    (void)state;
    snprintf(uri, sizeof uri, "file:%s?create=1", path);
    refused(FARBLK_INVALID, uri);
    text_has("size");
    assert_int_equal(access(path, F_OK), -1);
    snprintf(uri, sizeof uri, "file:%s?create=1&size=64k", path);
    ok(farblk_open(uri, NULL, &dev));
    assert_int_equal(support_info(dev).size_sectors, 128);
    ok(farblk_close(dev));
    ok(farblk_open(uri, NULL, &dev));
    ok(farblk_close(dev));
    snprintf(uri, sizeof uri, "file:%s?create=1&size=128k", path);
    refused(FARBLK_CONFLICT, uri);
    unlink(path);
}

static void
path_with_reserved_characters_is_percent_encoded(void **state)
{
    const char *path = support_path("odd,name?#%&=");
    char uri[600] = "file:";
    size_t length = strlen(uri);
    struct farblk *dev = NULL;

    (void)state;
    support_make_file(path, 1 << 20);
    for (const char *c = path; *c != '\0'; c++)
        length += (size_t)snprintf(uri + length, sizeof uri - length,
                                   strchr(",?#%", *c) ? "%%%02X" : "%c", *c);
    ok(farblk_open(uri, NULL, &dev));
    assert_string_equal(support_info(dev).name, path);
    ok(farblk_close(dev));
    unlink(path);
}

/* Run in a child that may not read the file, if this is root. */
static void
file_without_permission_is_denied(void **state)
{
    char path[256], uri[300];
    int status;
    pid_t pid;

    (void)state;
    snprintf(path, sizeof path, "%s", support_path("secret"));
    support_make_file(path, 1 << 20);
    chmod(path, 0);
    snprintf(uri, sizeof uri, "file:%s", path);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct farblk *dev;

        /* The directory is for its owner alone: that denies it as well. */
        if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0)
            _exit(77);
        _exit(farblk_open(uri, NULL, &dev) == FARBLK_DENIED ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void
null_pointers_are_invalid(void **state)
{
    struct farblk *dev = poison;
    struct farblk_info info;
    struct farblk_extent extent;
    uint64_t value;

    (void)state;
    fails_with(FARBLK_INVALID, farblk_open(NULL, NULL, &dev));
    assert_null(dev);
    fails_with(FARBLK_INVALID, farblk_open("ramdisk:a", NULL, NULL));
    fails_with(FARBLK_INVALID, farblk_disconnect(NULL));
    fails_with(FARBLK_INVALID, farblk_get_info(NULL, &info, sizeof info));
    fails_with(FARBLK_INVALID, farblk_read(NULL, 0, NULL, 0));
    fails_with(FARBLK_INVALID, farblk_write(NULL, 0, NULL, 0, 0));
    fails_with(FARBLK_INVALID, farblk_flush(NULL));
    fails_with(FARBLK_INVALID, farblk_discard(NULL, 0, 1, 0));
    fails_with(FARBLK_INVALID, farblk_write_zeroes(NULL, 0, 1, 0));
    fails_with(FARBLK_INVALID, farblk_resize(NULL, 1));
    fails_with(FARBLK_INVALID, farblk_seek_mapped(NULL, 0, &value));
    fails_with(FARBLK_INVALID, farblk_seek_unmapped(NULL, 0, &value));
    fails_with(FARBLK_INVALID, farblk_extents(NULL, 0, 1, &extent, 1));
    fails_with(FARBLK_INVALID, farblk_watch(NULL, 0, 0, &value));
    fails_with(FARBLK_INVALID, farblk_list(NULL, NULL, NULL));
    fails_with(FARBLK_INVALID, farblk_queue_fd(NULL));
    farblk_buffer_free(NULL, NULL, 0);
    ok(farblk_close(NULL));
}

static void
options_of_an_unknown_size_are_checked(void **state)
{
    struct {
        struct farblk_options options;
        uint8_t more[32];
    } big;
    struct farblk *dev = NULL;

    (void)state;
    memset(&big, 0, sizeof big);
    fails_with(FARBLK_INVALID, farblk_open("ramdisk:o", &big.options, &dev));
    big.options.size = sizeof big;
    ok(farblk_open("ramdisk:o", &big.options, &dev));
    ok(farblk_close(dev));
    big.more[31] = 1;
    fails_with(FARBLK_INVALID, farblk_open("ramdisk:o", &big.options, &dev));
    big.more[31] = 0;
    big.options.timeout_ms = -1;
    fails_with(FARBLK_INVALID, farblk_open("ramdisk:o", &big.options, &dev));
    ok(farblk_ramdisk_destroy("o"));
}

static void
what_is_not_an_open_handle_is_invalid_to_close(void **state)
{
    struct farblk *dev = NULL, *other = NULL;
    uint64_t not_a_handle[64] = {0};

    (void)state;
    ok(farblk_open("ramdisk:twice", NULL, &dev));
    ok(farblk_open("ramdisk:twice", NULL, &other));
    ok(farblk_close(dev));
    fails_with(FARBLK_INVALID, farblk_close(dev));
    fails_with(FARBLK_INVALID, farblk_close(dev));
    fails_with(FARBLK_INVALID,
               farblk_close((struct farblk *)(void *)not_a_handle));
    ok(farblk_flush(other));
    ok(farblk_close(other));
    ok(farblk_ramdisk_destroy("twice"));
}

static void
status_numbers_have_names(void **state)
{
    (void)state;
    assert_string_equal(farblk_status_name(0), "OK");
    assert_string_equal(farblk_status_name(FARBLK_INVALID), "INVALID");
    assert_string_equal(farblk_status_name(FARBLK_IS_READ_ONLY),
                        "IS_READ_ONLY");
    assert_string_equal(farblk_status_name(FARBLK_APPEND_ONLY), "APPEND_ONLY");
    assert_string_equal(farblk_status_name(-21), "UNKNOWN");
    assert_string_equal(farblk_status_name(17), "UNKNOWN");
    assert_string_equal(farblk_status_name(INT32_MIN), "UNKNOWN");
    assert_string_equal(farblk_version(), "0.1.0");
}

static void
drivers_tell_what_they_are(void **state)
{
    size_t count = 0;

    (void)state;
    for (const struct farblk_driver_info *info;
         (info = farblk_driver(count)) != NULL; count++) {
        assert_true(info->size >= sizeof *info);
        assert_string_not_equal(info->name, "");
        assert_string_not_equal(info->schemes, "");
        assert_string_not_equal(info->summary, "");
        assert_string_not_equal(info->usage, "");
        assert_non_null(strstr(info->parameters, "ro="));
    }
    assert_true(count >= 3);
    assert_null(farblk_driver(count + 1));
    assert_null(farblk_driver(SIZE_MAX));
}

static int
misuse_setup(void **state)
{
    (void)state;
    support_watch("misuse");
    return 0;
}

static int
misuse_teardown(void **state)
{
    (void)state;
    support_watch(NULL);
    rig_destroy_all();
    return 0;
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, misuse_setup, misuse_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(unknown_scheme_lists_the_known_ones),
        TEST(malformed_uris_are_invalid),
        TEST(unknown_parameter_lists_the_known_ones),
        TEST(parameters_out_of_range_are_invalid),
        TEST(sector_size_must_be_a_power_of_two_within_its_limits),
        TEST(ramdisk_names_and_sizes_are_checked),
        TEST(ramdisk_of_another_shape_is_a_conflict),
        TEST(ramdisk_that_open_creates_has_the_default_shape),
        TEST(replaced_or_destroyed_ramdisk_stays_with_its_handles),
        TEST(files_that_can_not_be_devices_are_refused),
        TEST(creating_needs_a_size_and_leaves_what_exists),
        TEST(path_with_reserved_characters_is_percent_encoded),
        TEST(file_without_permission_is_denied),
        TEST(null_pointers_are_invalid),
        TEST(options_of_an_unknown_size_are_checked),
        TEST(what_is_not_an_open_handle_is_invalid_to_close),
        TEST(status_numbers_have_names),
        TEST(drivers_tell_what_they_are),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
