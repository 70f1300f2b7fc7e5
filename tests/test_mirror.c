/* SPDX-License-Identifier: ISC */
/*
 * The mirror as a program meets it: opening and its errors, sharing, handles,
 * its status, devices far away.
 */
#include "tests/daemon.h"
#include "tests/mirrors.h"

#include "farblk/server.h"

#include <stdio.h>
#include <unistd.h>

#define SIZE (1024 * KIB)

static struct mirrors *mirrors;

static int
setup(void **state)
{
    (void)state;
    support_watch("mirror");
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

/* ------------------------------------------------------------ opening */

static void
what_does_not_go_together_is_refused_in_order(void **state)
{
    struct farblk *one, *two;

    (void)state;
    ok(farblk_ramdisk_create("mirror-a", 16, 512));
    ok(farblk_ramdisk_create("mirror-b", 1, 4096));
    ok(farblk_open("ramdisk:mirror-a", NULL, &one));
    ok(farblk_open("ramdisk:mirror-b?ro=1", NULL, &two));
    struct farblk *dev = one;
    fails_with(FARBLK_INVALID, farblk_mirror_open(one, two, NULL, NULL, &dev));
    text_has("mirror_open: primary has 8192 octets and secondary 4096");
    assert_null(dev);
    ok(farblk_resize(one, 8));
    fails_with(FARBLK_IS_READ_ONLY,
               farblk_mirror_open(one, two, NULL, NULL, &dev));
    text_has("secondary, mirror-b, is read-only");
    fails_with(FARBLK_INVALID, farblk_mirror_open(one, one, NULL, NULL, &dev));
    text_has("the same device, mirror-a");
    fails_with(FARBLK_INVALID, farblk_mirror_open(one, NULL, NULL, NULL, &dev));
    fails_with(FARBLK_INVALID, farblk_mirror_open(NULL, two, NULL, NULL, &dev));
    fails_with(FARBLK_INVALID, farblk_mirror_open(one, two, NULL, NULL, NULL));
    /* A primary that can not be written makes a mirror that can not. */
    ok(farblk_mirror_open(two, one, NULL, NULL, &dev));
    assert_false(support_info(dev).read_write);
    assert_int_equal(support_info(dev).sector_size, 4096);
    fails_with(FARBLK_IS_READ_ONLY, farblk_write_zeroes(dev, 0, 1, 0));
    ok(farblk_close(dev));
    ok(farblk_disconnect(two));
    fails_with(FARBLK_DISCONNECTED,
               farblk_mirror_open(two, one, NULL, NULL, &dev));
    ok(farblk_close(one));
    ok(farblk_close(two));
    fails_with(FARBLK_INVALID, farblk_mirror_open(two, one, NULL, NULL, &dev));
    ok(farblk_ramdisk_destroy("mirror-a"));
    ok(farblk_ramdisk_destroy("mirror-b"));
}

static void
uris_are_checked(void **state)
{
    struct farblk *dev, *other;
    const char *missing = support_path("missing");
    char uri[512];

    (void)state;
    fails_with(FARBLK_INVALID, farblk_open("mirror:", NULL, &dev));
    text_has("primary= is missing");
    fails_with(FARBLK_INVALID,
               farblk_open("mirror:?primary=ramdisk:ma", NULL, &dev));
    text_has("secondary= is missing");
    fails_with(FARBLK_INVALID,
               farblk_open("mirror:x?primary=ramdisk:ma&secondary=ramdisk:mb",
                           NULL, &dev));
    text_has("no path");
    fails_with(FARBLK_INVALID,
               farblk_open("mirror:?primary=ramdisk:ma&secondary=ramdisk:ma",
                           NULL, &dev));
    text_has("the same device, ma");
    fails_with(FARBLK_INVALID,
               farblk_open("mirror:?primary=nonsense:ma&secondary=ramdisk:ma",
                           NULL, &dev));
    text_has("primary: open: unknown scheme \"nonsense\"");
    snprintf(uri, sizeof uri, "mirror:?primary=ramdisk:ma&secondary=file:%s",
             missing);
    fails_with(FARBLK_NOT_FOUND, farblk_open(uri, NULL, &dev));
    text_has("secondary: ");
    fails_with(
        FARBLK_INVALID,
        farblk_open("mirror:?primary=ramdisk:ma&secondary=ramdisk:mb&rate=0",
                    NULL, &dev));
    text_has("rate=0");
    ok(farblk_open("mirror:?primary=ramdisk:mx%3Fsize=1M&"
                   "secondary=ramdisk:my%3Fsize=1M%26sector=4096&rate=1G",
                   NULL, &dev));
    assert_int_equal(support_info(dev).sector_size, 4096);
    assert_int_equal(support_info(dev).size_sectors, 256);
    assert_string_equal(support_info(dev).driver, "mirror");
    assert_string_equal(support_info(dev).name, "mx");
    /* The same pair is the same mirror, and must be wanted in the same way. */
    ok(farblk_open("mirror:?primary=ramdisk:mx&secondary=ramdisk:my", NULL,
                   &other));
    ok(farblk_resize(other, 300));
    assert_int_equal(support_info(dev).size_sectors, 300);
    ok(farblk_close(other));
    fails_with(
        FARBLK_CONFLICT,
        farblk_open("mirror:?primary=ramdisk:mx&secondary=ramdisk:my&degrade=1",
                    NULL, &other));
    text_has("degrade=0");
    fails_with(
        FARBLK_CONFLICT,
        farblk_open("mirror:?primary=ramdisk:mx&secondary=ramdisk:my&rate=2G",
                    NULL, &other));
    text_has("1073741824");
    ok(farblk_close(dev));
}

static void
device_is_part_of_one_mirror_at_a_time(void **state)
{
    static const char *const others[] = {
        "mirror:?primary=ramdisk:ma&secondary=ramdisk:mc",
        "mirror:?primary=ramdisk:mb&secondary=ramdisk:mc",
        "mirror:?primary=ramdisk:mc&secondary=ramdisk:ma",
        "mirror:?primary=ramdisk:mc&secondary=ramdisk:mb",
        "mirror:?primary=ramdisk:mb&secondary=ramdisk:ma",
    };
    struct farblk *dev, *other, *one, *two;

    (void)state;
    ok(farblk_open("mirror:?primary=ramdisk:ma&secondary=ramdisk:mb", NULL,
                   &dev));
    for (size_t i = 0; i < 5; i++) {
        fails_with(FARBLK_BUSY, farblk_open(others[i], NULL, &other));
        text_has("of another mirror");
    }
    ok(farblk_open("ramdisk:ma", NULL, &one));
    ok(farblk_open("ramdisk:mb", NULL, &two));
    fails_with(FARBLK_BUSY, farblk_mirror_open(one, two, NULL, NULL, &other));
    text_has("primary, ma, is the primary of another mirror");
    ok(farblk_close(dev));
    ok(farblk_mirror_open(two, one, NULL, NULL, &dev));
    ok(farblk_open("mirror:?primary=ramdisk:mb&secondary=ramdisk:ma", NULL,
                   &other)); /* by a URI it is shared */
    ok(farblk_close(other));
    ok(farblk_close(dev));
    ok(farblk_close(one));
    ok(farblk_close(two));
}

/* A mirror whose handle is disconnected and not closed is no obstacle. */
static void
new_mirror_begins_when_the_old_one_is_disconnected(void **state)
{
    struct farblk_mirror_status status;
    struct farblk *dev[4];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        ok(farblk_open("mirror:?primary=ramdisk:ma&secondary=ramdisk:mb", NULL,
                       &dev[i]));
        do
            ok(farblk_mirror_status(dev[i], &status, sizeof status));
        while (status.state != FARBLK_MIRROR_COMPLETE);
        ok(farblk_disconnect(dev[i]));
    }
    for (unsigned i = 0; i < 4; i++)
        ok(farblk_close(dev[i]));
}

static struct trouble trouble;

static void *
open_and_close(void *arg)
{
    struct farblk_mirror_status status;
    struct farblk *dev;

    for (unsigned i = 0; i < 100 && !trouble.noted; i++) {
        if (farblk_open(arg, NULL, &dev) != 0) {
            trouble_note(&trouble, "open: %s", farblk_last_text());
            break;
        }
        /* Whoever else leaves meanwhile: this one is copied to its end. */
        status.state = FARBLK_MIRROR_COPYING;
        while (i % 2 && status.state == FARBLK_MIRROR_COPYING && !trouble.noted)
            if (farblk_mirror_status(dev, &status, sizeof status) != 0)
                trouble_note(&trouble, "status: %s", farblk_last_text());
        if (i % 3 == 0)
            farblk_disconnect(dev);
        if (farblk_close(dev) != 0)
            trouble_note(&trouble, "close: %s", farblk_last_text());
    }
    return NULL;
}

static void
coming_and_going_at_once_loses_no_copying(void **state)
{
    static char uri[] = "mirror:?primary=ramdisk:mg&secondary=ramdisk:mh";
    pthread_t threads[3];

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, open_and_close, uri),
                         0);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    trouble_assert_none(&trouble);
}

/* Three copies: one of the two is a mirror itself. */
static void
mirror_of_a_mirror_reaches_all_three(void **state)
{
    struct farblk_mirror_status status;
    struct farblk *dev, *one[3];
    uint8_t in[4096], out[4096];
    static const char *const names[] = {"ramdisk:m1", "ramdisk:m2",
                                        "ramdisk:m3"};

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        ok(farblk_open(names[i], NULL, &one[i]));
    pattern_fill(out, sizeof out, 1);
    ok(support_write(one[0], 100, out, sizeof out, 0));
    ok(farblk_open("mirror:?secondary=ramdisk:m3&primary="
                   "mirror:%3Fprimary=ramdisk:m1%26secondary=ramdisk:m2",
                   NULL, &dev));
    pattern_fill(out, sizeof out, 2);
    ok(support_write(dev, 200, out, sizeof out, FARBLK_FUA));
    do
        ok(farblk_mirror_status(dev, &status, sizeof status));
    while (status.state == FARBLK_MIRROR_COPYING);
    assert_int_equal(status.state, FARBLK_MIRROR_COMPLETE);
    for (unsigned i = 0; i < 3; i++) {
        ok(support_read(one[i], 200, in, sizeof in));
        assert_int_equal(pattern_check(in, sizeof in, 2), sizeof in);
    }
    ok(support_read(one[2], 100, in, sizeof in));
    assert_int_equal(pattern_check(in, sizeof in, 1), sizeof in);
    ok(farblk_close(dev));
    for (unsigned i = 0; i < 3; i++)
        ok(farblk_close(one[i]));
}

static void
handles_stay_the_callers(void **state)
{
    (void)state;
    begin(SIZE, 512, 512);
    puppet_hold(mirrors->primary,
                (struct puppet_rule){.ops = PUPPET_OP(READ), .end = SIZE});
    mirrors_open(mirrors, false);
    puppet_wait_held(mirrors->primary, 8);
    /* The mirror goes on without them. */
    ok(farblk_close(mirrors->primary->dev));
    ok(farblk_close(mirrors->secondary->dev));
    mirrors->primary->dev = mirrors->secondary->dev = NULL;
    puppet_release(mirrors->primary);
    finish();
    ok(mirrors_write(mirrors, 512, 1024, 3));
    mirrors_expect_equal(mirrors);
}

static void
status_is_of_mirrors_of_this_process(void **state)
{
    struct {
        struct farblk_mirror_status status;
        uint8_t more[16];
    } big;
    struct farblk *dev;

    (void)state;
    begin(SIZE, 512, 512);
    mirrors_open(mirrors, false);
    finish();
    memset(&big, 0x5a, sizeof big);
    ok(farblk_mirror_status(mirrors->dev, &big.status,
                            offsetof(struct farblk_mirror_status, error)));
    assert_int_equal(big.status.state, FARBLK_MIRROR_COMPLETE);
    assert_int_equal(big.status.error, 0x5a5a5a5a);
    ok(farblk_mirror_status(mirrors->dev, &big.status, sizeof big));
    assert_int_equal(big.status.size_sectors, SIZE / 512);
    assert_int_equal(big.status.sector_size, 512);
    assert_true(pattern_is_zero(big.more, sizeof big.more));
    fails_with(FARBLK_INVALID,
               farblk_mirror_status(mirrors->dev, NULL, sizeof big));
    fails_with(FARBLK_INVALID,
               farblk_mirror_status(NULL, &big.status, sizeof big));
    dev = mirrors->primary->dev;
    fails_with(FARBLK_INVALID,
               farblk_mirror_status(dev, &big.status, sizeof big.status));
    text_has("one is no mirror of this process but a device of the driver "
             "puppet");
    struct farblk_mirror_options options = {.size = sizeof options};
    fails_with(FARBLK_INVALID, farblk_mirror_set(dev, &options));
    fails_with(FARBLK_INVALID, farblk_mirror_set(mirrors->dev, NULL));
    options.size--;
    fails_with(FARBLK_INVALID, farblk_mirror_set(mirrors->dev, &options));
}

/* ------------------------------------------------------------ far away */

/* From one server to another, through a third that exports the mirror. */
static void
mirror_of_remote_devices_is_served_and_survives_their_servers(void **state)
{
    struct daemon far[3];
    char listen[3][320], export[1600], primary[512], secondary[512], uri[512];
    struct farblk *dev, *one, *two;
    uint8_t out[8192], in[8192];

    (void)state;
    memset(far, 0, sizeof far);
    for (unsigned i = 0; i < 3; i++) {
        const char *args[] = {"--listen", listen[i], "--export", export, NULL};
        char *to = i == 0 ? primary : i == 1 ? secondary : uri;
        const char *path = support_path("s");

        snprintf(listen[i], sizeof listen[i], "ipc://%s", path);
        if (i < 2)
            snprintf(export, sizeof export, "disk=ramdisk:x?size=8M&sector=%u",
                     i == 0 ? 512 : 4096);
        else
            snprintf(export, sizeof export,
                     "disk=mirror:?primary=%s&secondary=%s&degrade=1", primary,
                     secondary);
        daemon_start(&far[i], args);
        snprintf(to, 512, "farblk+unix:///disk%ssocket=%s",
                 i == 2 ? "?" : "%3F", path);
        if (i < 2) {
            char plain[512];

            snprintf(plain, sizeof plain, "farblk+unix:///disk?socket=%s",
                     path);
            ok(farblk_open(plain, NULL, i == 0 ? &one : &two));
        }
    }
    ok(farblk_open(uri, NULL, &dev));
    assert_int_equal(support_info(dev).sector_size, 4096);
    for (unsigned i = 0; i < 20; i++) {
        pattern_fill(out, sizeof out, i);
        ok(support_write(dev, i * 17, out, sizeof out, 0));
        ok(support_read(two, i * 17, in, sizeof in));
        assert_memory_equal(in, out, sizeof in);
    }
    /* Secondary's server dies: primary goes on alone. */
    ok(farblk_close(two));
    daemon_kill(&far[1]);
    pattern_fill(out, sizeof out, 99);
    ok(support_write(dev, 3, out, sizeof out, FARBLK_FUA));
    ok(farblk_flush(dev));
    ok(support_read(one, 3 * 8, in, sizeof in));
    assert_memory_equal(in, out, sizeof in);
    /* And primary's: nothing is left to serve, and the server is not hurt. */
    daemon_kill(&far[0]);
    fails_with(FARBLK_DISCONNECTED, support_read(dev, 3, in, 4096));
    fails_with(FARBLK_DISCONNECTED, support_write(dev, 3, in, 4096, 0));
    assert_int_equal(support_info(dev).size_sectors, 2048);
    ok(farblk_close(dev));
    ok(farblk_close(one));
    daemon_kill(&far[2]); /* it could not flush, and would say so */
}

/* The server is in this process, and so are the core's locks that both take. */
static void
mirror_over_servers_of_this_process_opens_and_closes(void **state)
{
    struct farblk_server *server;
    struct farblk *one, *two;
    char url[128], uri[512];
    const char *address = support_name("inproc");

    (void)state;
    ok(farblk_server_create(NULL, &server));
    ok(farblk_server_export(server, "a", "ramdisk:served-a?size=1M"));
    ok(farblk_server_export(server, "b", "ramdisk:served-b?size=1M"));
    snprintf(url, sizeof url, "inproc://%s", address);
    ok(farblk_server_listen(server, url));
    snprintf(uri, sizeof uri,
             "mirror:?primary=farblk+inproc:///a%%3Faddress=%s&"
             "secondary=farblk+inproc:///b%%3Faddress=%s",
             address, address);
    for (unsigned i = 0; i < 10; i++) {
        ok(farblk_open(uri, NULL, &one));
        ok(farblk_open(uri, NULL, &two)); /* joins, by its text */
        ok(farblk_resize(one, 100 + i));
        assert_int_equal(support_info(two).size_sectors, 100 + i);
        ok(farblk_close(one));
        ok(farblk_close(two));
    }
    ok(farblk_open(uri, NULL, &one));
    ok(farblk_server_stop(server, SUPPORT_PATIENCE_MS));
    ok(farblk_close(one));
    farblk_server_destroy(server);
}

/* One file, opened by one process at a time. */
static void
files_of_a_mirror_are_locked(void **state)
{
    struct daemon other = {0};
    struct farblk *dev, *plain;
    char listen[320], export[400], uri[700];
    const char *path = support_path("disk");

    (void)state;
    support_make_file(path, SIZE);
    snprintf(listen, sizeof listen, "ipc://%s", support_path("s"));
    snprintf(export, sizeof export, "disk=file:%s", path);
    const char *args[] = {"--listen", listen, "--export", export, NULL};
    daemon_start(&other, args);
    snprintf(uri, sizeof uri,
             "mirror:?primary=ramdisk:locked%%3Fsize=1M&secondary=file:%s",
             path);
    fails_with(FARBLK_BUSY, farblk_open(uri, NULL, &dev));
    text_has("secondary: ");
    daemon_stop(&other);
    ok(farblk_open(uri, NULL, &dev));
    snprintf(uri, sizeof uri, "file:%s", path);
    ok(farblk_open(uri, NULL, &plain)); /* this process may */
    ok(farblk_close(dev));
    ok(farblk_close(plain));
}

#define ONE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(what_does_not_go_together_is_refused_in_order),
        ONE(uris_are_checked),
        ONE(device_is_part_of_one_mirror_at_a_time),
        ONE(new_mirror_begins_when_the_old_one_is_disconnected),
        ONE(coming_and_going_at_once_loses_no_copying),
        ONE(mirror_of_a_mirror_reaches_all_three),
        ONE(handles_stay_the_callers),
        ONE(status_is_of_mirrors_of_this_process),
        ONE(mirror_of_remote_devices_is_served_and_survives_their_servers),
        ONE(mirror_over_servers_of_this_process_opens_and_closes),
        ONE(files_of_a_mirror_are_locked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
