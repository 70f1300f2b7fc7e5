/* SPDX-License-Identifier: ISC */
/*
 * The nbd driver against nbdkit and qemu-nbd: what it makes of a URI, and of
 * what a server offers.
 */
#include "tests/nbd_servers.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512u

static struct nbd_server server;

/* Start nbdkit with these arguments, on a Unix socket. */
#define NBDKIT(...)                                                            \
    nbd_server_start(&server, false,                                           \
                     (const char *const[]){"nbdkit", "-f", __VA_ARGS__, NULL})

static struct farblk *
nbd_open(const char *more)
{
    struct farblk *dev = NULL;

    ok(farblk_open(nbd_server_uri(&server, "nbd", "", more), NULL, &dev));
    return dev;
}

static void
nbd_open_fails(int status, const char *more, const char *part)
{
    struct farblk *dev = NULL;

    fails_with(status, farblk_open(nbd_server_uri(&server, "nbd", "", more),
                                   NULL, &dev));
    text_has(part);
    assert_null(dev);
}

/* ------------------------------------------------------------ URIs */

static void
uris_are_taken_as_libnbd_takes_them(void **state)
{
    static const struct {
        const char *uri, *part;
    } wrong[] = {
        {"nbd:x", "nbd://"},
        {"nbd://host/?socket=/x", "nbd+unix"},
        {"nbd+unix:///x", "socket= is missing"},
        {"nbd+unix://host/x?socket=/x", "no host"},
        {"nbd://localhost:70000/", "port"},
        {"nbd://user@localhost/", "nbds"},
        {"nbd://localhost/?tls-certificates=/x", "nbds"},
        {"nbd://localhost/?tls-psk-file=/x", "nbds"},
        {"nbd+unix:///?socket=/x&tls-username=me", "nbds"},
        {"nbds://a@localhost/?tls-username=b", "not both"},
        {"nbd://localhost/?connections=0", "1 ... 16"},
        {"nbd://localhost/?connections=17", "1 ... 16"},
        {"nbd://localhost/?sector=256", "512 ... 65536"},
        {"nbd://localhost/?sector=1000", "power of two"},
        {"nbd://localhost/?nonsense=1", "connect_timeout"},
        {"ramdisk://me@host/x", "no user"},
        {"nbds://%zz@localhost/", "hexadecimal"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct farblk *dev = NULL;

        fails_with(FARBLK_INVALID, farblk_open(wrong[i].uri, NULL, &dev));
        text_has(wrong[i].part);
    }
}

static void
export_names_may_be_anything(void **state)
{
    static const char *const names[][2] = {
        /* as it is, and in a URI */
        {"a/b/c", "a/b/c"},           {"/rooted", "/rooted"},
        {"two words", "two%20words"}, {"50%?&=#,", "50%25%3f%26%3D%23%2C"},
        {"\xc3\xa4", "\xc3\xa4"},
    };
    struct farblk *dev = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char only[64];

        snprintf(only, sizeof only, "exportname=%s", names[i][0]);
        NBDKIT("--filter=exportname", "memory", "1M", "exportname-strict=true",
               only);
        ok(farblk_open(nbd_server_uri(&server, "nbd", names[i][1], ""), NULL,
                       &dev));
        assert_string_equal(support_info(dev).name, names[i][0]);
        ok(farblk_close(dev));
        fails_with(FARBLK_NOT_FOUND,
                   farblk_open(nbd_server_uri(&server, "nbd", "other", ""),
                               NULL, &dev));
        text_has("nbd_aio_");
        nbd_server_kill(&server);
    }
}

static void
tcp_works_by_name_and_by_address(void **state)
{
    char uri[128];
    struct farblk *dev = NULL;

    (void)state;
    nbd_server_start(
        &server, true,
        (const char *const[]){"nbdkit", "-f", "memory", "1M", NULL});
    for (int i = 0; i < 3; i++) {
        static const char *const hosts[] = {"127.0.0.1", "localhost",
                                            "[::ffff:127.0.0.1]"};

        snprintf(uri, sizeof uri, "nbd://%s:%d", hosts[i], server.port);
        ok(farblk_open(uri, NULL, &dev));
        assert_string_equal(support_info(dev).transport, "tcp");
        assert_string_equal(support_info(dev).driver, "nbd");
        ok(farblk_close(dev));
    }
}

/* ------------------------------------------------------------ limits */

static void
sector_is_the_servers_smallest_block(void **state)
{
    struct farblk *dev;
    struct farblk_info info;
    uint8_t *buffer = malloc(600 * 4096);

    (void)state;
    assert_non_null(buffer);
    NBDKIT("--filter=blocksize-policy", "memory", "4M",
           "blocksize-minimum=4096", "blocksize-preferred=32768",
           "blocksize-maximum=65536", "blocksize-error-policy=error");
    dev = nbd_open("");
    info = support_info(dev);
    assert_int_equal(info.sector_size, 4096);
    assert_int_equal(info.size_sectors, 1024);
    assert_int_equal(info.max_transfer, 65536);
    assert_int_equal(info.preferred_transfer, 65536);
    /* The filter refuses every request that is not aligned or too long. */
    pattern_fill(buffer, 600 * 4096, 1);
    ok(support_write(dev, 3, buffer, 600 * 4096, 0));
    memset(buffer, 0, 600 * 4096);
    ok(support_read(dev, 3, buffer, 600 * 4096));
    assert_int_equal(pattern_check(buffer, 600 * 4096, 1), 600 * 4096);
    ok(farblk_write_zeroes(dev, 1, 1000, 0));
    ok(farblk_discard(dev, 1, 1001, 0));
    fails_with(FARBLK_INVALID, support_read(dev, 0, buffer, 512));
    ok(farblk_close(dev));
    dev = nbd_open("sector=16k");
    assert_int_equal(support_info(dev).sector_size, 16384);
    ok(support_write(dev, 1, buffer, 16384 * 7, 0));
    ok(farblk_close(dev));
    nbd_open_fails(FARBLK_INVALID, "sector=512", "smallest block, 4096");
    free(buffer);
}

static void
largest_request_below_a_sector_is_refused(void **state)
{
    (void)state;
    NBDKIT("--filter=blocksize-policy", "memory", "4M", "blocksize-minimum=512",
           "blocksize-preferred=4096", "blocksize-maximum=4096",
           "blocksize-error-policy=error");
    ok(farblk_close(nbd_open("")));
    nbd_open_fails(FARBLK_INVALID, "sector=8k", "largest request, 4096");
}

static void
size_that_is_no_whole_sectors_is_refused(void **state)
{
    (void)state;
    NBDKIT("memory", "10000");
    nbd_open_fails(FARBLK_INVALID, "", "10000 octets");
    nbd_server_kill(&server);
    NBDKIT("memory", "10240");
    ok(farblk_close(nbd_open("")));
    nbd_open_fails(FARBLK_INVALID, "sector=4k", "no whole sectors of 4096");
}

static void
empty_export_is_a_device_of_no_sectors(void **state)
{
    struct farblk *dev;
    uint8_t buffer[SECTOR];
    uint64_t sector = 1;

    (void)state;
    NBDKIT("memory", "0");
    dev = nbd_open("");
    assert_int_equal(support_info(dev).size_sectors, 0);
    ok(farblk_read(dev, 0, NULL, 0));
    fails_with(FARBLK_INVALID, support_read(dev, 0, buffer, SECTOR));
    ok(farblk_seek_mapped(dev, 0, &sector));
    assert_int_equal(sector, 0);
    ok(farblk_flush(dev));
    ok(farblk_close(dev));
}

/* ------------------------------------------------------------ abilities */

static void
read_only_export_refuses_changes_and_flushes(void **state)
{
    struct farblk *dev;
    uint8_t buffer[SECTOR] = {1};

    (void)state;
    NBDKIT("-r", "memory", "1M");
    dev = nbd_open("");
    assert_false(support_info(dev).read_write);
    fails_with(FARBLK_IS_READ_ONLY, support_write(dev, 0, buffer, SECTOR, 0));
    fails_with(FARBLK_IS_READ_ONLY, farblk_write_zeroes(dev, 0, 1, 0));
    fails_with(FARBLK_IS_READ_ONLY, farblk_discard(dev, 0, 1, 0));
    ok(support_read(dev, 0, buffer, SECTOR));
    assert_true(pattern_is_zero(buffer, SECTOR));
    ok(farblk_flush(dev));
    ok(farblk_close(dev));
}

static void
what_the_server_can_not_info_does_not_tell(void **state)
{
    const uint64_t every = FARBLK_CAN_DISCARD | FARBLK_CAN_WRITE_ZEROES
                           | FARBLK_CAN_SEEK | FARBLK_CAN_FUA
                           | FARBLK_CAN_WATCH;
    struct farblk *dev;
    uint64_t sector = 7;

    (void)state;
    NBDKIT("memory", "1M");
    dev = nbd_open("");
    assert_int_equal(support_info(dev).features, every);
    ok(farblk_close(dev));
    nbd_server_kill(&server);
    /* Of this one nbdkit says that everything is mapped. */
    NBDKIT("--filter=noextents", "memory", "1M");
    dev = nbd_open("");
    ok(farblk_seek_mapped(dev, 7, &sector));
    assert_int_equal(sector, 7);
    ok(farblk_seek_unmapped(dev, 7, &sector));
    assert_int_equal(sector, 2048);
    ok(farblk_close(dev));
    nbd_server_kill(&server);
    /* A plugin of two functions: no flush, no trim, no zeroing, no map. */
    NBDKIT("eval", "get_size=echo 1M",
           "pread=dd if=/dev/zero count=$3 iflag=count_bytes 2>/dev/null",
           "pwrite=cat >/dev/null");
    dev = nbd_open("");
    /* nbdkit itself zeroes by writing, and tells one extent. */
    assert_int_equal(support_info(dev).features, FARBLK_CAN_WRITE_ZEROES
                                                     | FARBLK_CAN_SEEK
                                                     | FARBLK_CAN_WATCH);
    ok(farblk_write_zeroes(dev, 0, 8, 0));
    fails_with(FARBLK_UNIMPLEMENTED, farblk_discard(dev, 0, 1, 0));
    fails_with(FARBLK_UNIMPLEMENTED, farblk_flush(dev));
    text_has("neither flush nor FUA");
    ok(farblk_close(dev));
}

static void
zeroing_without_the_servers_help_writes_zeroes(void **state)
{
    size_t length = 5000 * SECTOR;
    uint8_t *buffer = malloc(length);
    struct farblk *dev;

    (void)state;
    assert_non_null(buffer);
    NBDKIT("--filter=nozero", "memory", "4M");
    dev = nbd_open("");
    pattern_fill(buffer, length, 1);
    ok(support_write(dev, 0, buffer, length, 0));
    ok(farblk_write_zeroes(dev, 10, 4900, FARBLK_FUA));
    ok(support_read(dev, 10, buffer, 4900 * SECTOR));
    assert_true(pattern_is_zero(buffer, 4900 * SECTOR));
    ok(support_read(dev, 0, buffer, length));
    assert_int_equal(pattern_check(buffer, length, 1), 10 * SECTOR);
    assert_false(pattern_is_zero(buffer + 4910 * SECTOR, SECTOR));
    ok(farblk_close(dev));
    free(buffer);
}

static void
fua_is_the_servers_or_a_flush(void **state)
{
    char log[300];
    const char *path;
    uint8_t buffer[SECTOR] = {1};
    struct farblk *dev;

    (void)state;
    for (int native = 0; native < 2; native++) {
        path = support_path("log");
        snprintf(log, sizeof log, "logfile=%s", path);
        /* The filter's default is none. */
        NBDKIT("--filter=log", "--filter=fua", "memory", "1M", log,
               native ? "fuamode=native" : NULL);
        dev = nbd_open("");
        assert_true(support_info(dev).features & FARBLK_CAN_FUA);
        ok(support_write(dev, 0, buffer, SECTOR, FARBLK_FUA));
        ok(farblk_write_zeroes(dev, 0, 1, FARBLK_FUA));
        ok(farblk_discard(dev, 0, 1, FARBLK_FUA));
        assert_int_equal(nbd_server_logged(path, " Write ", "fua=1"), native);
        assert_int_equal(nbd_server_logged(path, " Zero ", "fua=1"), native);
        assert_int_equal(nbd_server_logged(path, " Trim ", "fua=1"), native);
        assert_int_equal(nbd_server_logged(path, " Flush ", ""),
                         native ? 0 : 3);
        ok(farblk_close(dev));
        nbd_server_kill(&server);
    }
}

static void
no_unmap_reaches_the_server(void **state)
{
    char log[300];
    const char *path = support_path("log");
    struct farblk *dev;

    (void)state;
    snprintf(log, sizeof log, "logfile=%s", path);
    NBDKIT("--filter=log", "memory", "1M", log);
    dev = nbd_open("");
    ok(farblk_write_zeroes(dev, 0, 8, FARBLK_NO_UNMAP));
    assert_int_equal(nbd_server_logged(path, " Zero ", "trim=0"), 1);
    ok(farblk_write_zeroes(dev, 0, 8, 0));
    assert_int_equal(nbd_server_logged(path, " Zero ", "trim=1"), 1);
    ok(farblk_close(dev));
}

/* ------------------------------------------------------------ listing */

struct listed {
    char text[1024];
    int stop_at, seen;
};

static int
nbd_note_entry(void *arg, const struct farblk_list_entry *entry)
{
    struct listed *listed = arg;
    size_t used = strlen(listed->text);

    snprintf(listed->text + used, sizeof listed->text - used, "%s %s %llux%u;",
             entry->name, entry->read_write ? "rw" : "ro",
             (unsigned long long)entry->size_sectors, entry->sector_size);
    return ++listed->seen == listed->stop_at ? 42 : 0;
}

static void
exports_are_listed_with_their_sizes(void **state)
{
    const char *directory = support_path("exports");
    char path[300], dir[300];
    struct listed listed = {.text = ""};

    (void)state;
    assert_int_equal(mkdir(directory, 0700), 0);
    snprintf(path, sizeof path, "%s/two", directory);
    support_make_file(path, 2048);
    snprintf(path, sizeof path, "%s/one file", directory);
    support_make_file(path, 65536);
    snprintf(dir, sizeof dir, "dir=%s", directory);
    NBDKIT("file", dir);
    ok(farblk_list(nbd_server_uri(&server, "nbd", "", ""), nbd_note_entry,
                   &listed));
    assert_string_equal(listed.text, "one file rw 128x512;two rw 4x512;");
    listed = (struct listed){.stop_at = 1};
    assert_int_equal(farblk_list(nbd_server_uri(&server, "nbd", "", ""),
                                 nbd_note_entry, &listed),
                     42);
    assert_int_equal(listed.seen, 1);
    fails_with(FARBLK_INVALID,
               farblk_list(nbd_server_uri(&server, "nbd", "two", ""),
                           nbd_note_entry, &listed));
    nbd_server_kill(&server);
    NBDKIT("--filter=exportname", "memory", "1M", "exportname-list=error");
    fails_with(FARBLK_UNIMPLEMENTED,
               farblk_list(nbd_server_uri(&server, "nbd", "", ""),
                           nbd_note_entry, &listed));
    nbd_server_kill(&server);
    NBDKIT("--filter=exportname", "memory", "1M", "exportname-list=empty");
    listed = (struct listed){.text = ""};
    ok(farblk_list(nbd_server_uri(&server, "nbd", "", ""), nbd_note_entry,
                   &listed));
    assert_string_equal(listed.text, "");
}

/* qemu-nbd without -t ends when its last client goes; a list is none. */
static void
listing_does_not_end_a_server(void **state)
{
    const char *path = support_path("disk");
    struct listed listed = {.text = ""};
    struct farblk *dev = NULL;

    (void)state;
    if (!nbd_server_usable("qemu-nbd"))
        skip();
    support_make_file(path, 1 << 20);
    nbd_server_start(&server, false,
                     (const char *const[]){"qemu-nbd", "-r", "-f", "raw", "-x",
                                           "an/export", path, NULL});
    for (int i = 0; i < 3; i++) {
        listed = (struct listed){.text = ""};
        ok(farblk_list(nbd_server_uri(&server, "nbd", "", ""), nbd_note_entry,
                       &listed));
        assert_string_equal(listed.text, "an/export ro 2048x512;");
    }
    ok(farblk_open(nbd_server_uri(&server, "nbd", "an/export", ""), NULL,
                   &dev));
    ok(farblk_close(dev));
}

static int
nbd_setup(void **state)
{
    (void)state;
    support_watch("nbd");
    return 0;
}

static int
nbd_teardown(void **state)
{
    (void)state;
    support_watch(NULL);
    nbd_server_kill_all();
    return 0;
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, nbd_setup, nbd_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(uris_are_taken_as_libnbd_takes_them),
        TEST(export_names_may_be_anything),
        TEST(tcp_works_by_name_and_by_address),
        TEST(sector_is_the_servers_smallest_block),
        TEST(largest_request_below_a_sector_is_refused),
        TEST(size_that_is_no_whole_sectors_is_refused),
        TEST(empty_export_is_a_device_of_no_sectors),
        TEST(read_only_export_refuses_changes_and_flushes),
        TEST(what_the_server_can_not_info_does_not_tell),
        TEST(zeroing_without_the_servers_help_writes_zeroes),
        TEST(fua_is_the_servers_or_a_flush),
        TEST(no_unmap_reaches_the_server),
        TEST(exports_are_listed_with_their_sizes),
        TEST(listing_does_not_end_a_server),
    };

    if (!nbd_server_usable("nbdkit")) {
        printf("no nbdkit: skipped\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
