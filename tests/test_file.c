/* SPDX-License-Identifier: ISC */
/*
 * The file driver: which names it opens and makes, as what, and block devices.
 * These need a free loop device and root.
 */
#include "tests/files.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* ------------------------------------------------------------ names, shapes */

static void
missing_file_is_not_found(void **state)
{
    const char *path = support_path("missing");
    fails_with(FARBLK_NOT_FOUND, files_try_open(state, path, ""));
    text_has(path);
    fails_with(FARBLK_NOT_FOUND, files_try_open(state, path, "size=1M"));
    fails_with(FARBLK_NOT_FOUND,
               files_try_open(state, "/nonexistent/x", "create=1&size=1M"));
}

static void
create_makes_a_file_of_that_size(void **state)
{
    const char *path = support_path("made");
    fails_with(FARBLK_INVALID, files_try_open(state, path, "create=1"));
    text_has("size=");
    fails_with(FARBLK_INVALID,
               files_try_open(state, path, "create=1&size=1000"));
    text_has("1000");
    text_has("512");
    assert_int_equal(access(path, F_OK), -1);
    struct farblk *dev = files_open(state, path, "create=1&size=1M&sector=4k");
    struct farblk_info info = support_info(dev);
    assert_true(info.read_write);
    assert_int_equal(info.sector_size, 4096);
    assert_int_equal(info.size_sectors, 256);
    assert_string_equal(info.driver, "file");
    assert_string_equal(info.transport, "local");
    assert_string_equal(info.name, path);
    files_expect(dev, 0, MIB, 0);
    files_put(dev, 1, 4096, 1);
    ok(farblk_close(dev));
    assert_int_equal(files_size(path), MIB);
    /* It exists now, and is not made anew. */
    dev = files_open(state, path, "create=1&size=1M&sector=4k");
    files_expect(dev, 1, 4096, 1);
    ok(farblk_close(dev));
    dev = files_open(state, path, "create=1&ro=1");
    assert_false(support_info(dev).read_write);
    ok(farblk_close(dev));
}

static void
create_read_only_makes_it_too(void **state)
{
    const char *path = support_path("made-ro");
    struct farblk *dev = files_open(state, path, "create=1&size=64k&ro=1");
    assert_false(support_info(dev).read_write);
    files_expect(dev, 0, 65536, 0);
    ok(farblk_close(dev));
}

static void
other_size_is_conflict(void **state)
{
    const char *path = support_path("size");
    support_make_file(path, MIB);
    fails_with(FARBLK_CONFLICT,
               files_try_open(state, path, "create=1&size=2M"));
    text_has("1048576");
    text_has("2097152");
    fails_with(FARBLK_CONFLICT, files_try_open(state, path, "size=512k"));
    files_open_close(state, path, "size=1M");
    assert_int_equal(files_size(path), MIB);
}

struct racer {
    pthread_t thread;
    const char *uri;
    int status;
    struct farblk *dev;
};

static void *
racer_main(void *arg)
{
    struct racer *racer = arg;
    racer->status = farblk_open(racer->uri, NULL, &racer->dev);
    return NULL;
}

static void
all_who_create_at_once_get_one_device(void **state)
{
    const char *path = support_path("race");
    char uri[512];
    struct racer racers[8] = {0};
    snprintf(uri, sizeof uri, "%s",
             files_uri(files_engine(state), path, "create=1&size=1M"));
    for (int i = 0; i < 8; i++) {
        racers[i].uri = uri;
        assert_int_equal(
            pthread_create(&racers[i].thread, NULL, racer_main, &racers[i]), 0);
    }
    for (int i = 0; i < 8; i++)
        pthread_join(racers[i].thread, NULL);
    if (racers[0].status == FARBLK_UNIMPLEMENTED)
        skip();
    for (int i = 0; i < 8; i++)
        assert_int_equal(racers[i].status, 0);
    files_put(racers[0].dev, 3, 512, 9);
    files_expect(racers[7].dev, 3, 512, 9);
    for (int i = 0; i < 8; i++)
        ok(farblk_close(racers[i].dev));
}

static void
odd_size_is_invalid(void **state)
{
    const char *path = support_path("odd");
    support_make_file(path, 1000);
    fails_with(FARBLK_INVALID, files_try_open(state, path, ""));
    text_has("1000");
    text_has("512");
    support_make_file(path, 4096 + 512);
    fails_with(FARBLK_INVALID, files_try_open(state, path, "sector=4096"));
    text_has("4608");
    text_has("4096");
    files_open_close(state, path, "");
}

static void
what_is_no_disk_is_invalid(void **state)
{
    char path[256];
    snprintf(path, sizeof path, "%s", support_path("fifo"));
    assert_int_equal(mkfifo(path, 0600), 0);
    fails_with(FARBLK_INVALID, files_try_open(state, path, ""));
    text_has("neither");
    fails_with(FARBLK_INVALID, files_try_open(state, path, "ro=1"));
    fails_with(FARBLK_INVALID, files_try_open(state, support_directory(), ""));
    fails_with(FARBLK_INVALID, files_try_open(state, "/dev/null", ""));
    fails_with(FARBLK_INVALID,
               files_try_open(state, "/dev/full", "create=1&size=1M"));
}

static void
malformed_uris_are_invalid(void **state)
{
    struct farblk *dev;
    const char *path = support_path("uri");
    char text[512];
    support_make_file(path, 65536);
    fails_with(FARBLK_INVALID, farblk_open("file:", NULL, &dev));
    fails_with(FARBLK_INVALID, farblk_open("file://host/path", NULL, &dev));
    fails_with(FARBLK_INVALID, files_try_open(state, path, "sector=768"));
    text_has("768");
    fails_with(FARBLK_INVALID, files_try_open(state, path, "sector=256"));
    fails_with(FARBLK_INVALID, files_try_open(state, path, "sector=128k"));
    fails_with(FARBLK_INVALID, files_try_open(state, path, "lock=yes"));
    fails_with(FARBLK_INVALID, files_try_open(state, path, "size=16E"));
    snprintf(text, sizeof text, "file:%s?engine=steam", path);
    fails_with(FARBLK_INVALID, farblk_open(text, NULL, &dev));
    text_has("uring");
    snprintf(text, sizeof text, "file://%s", path);
    ok(farblk_open(text, NULL, &dev));
    assert_string_equal(support_info(dev).name, path);
    ok(farblk_close(dev));
}

static void
names_of_one_file_are_one_device(void **state)
{
    char path[256], other[256];
    snprintf(path, sizeof path, "%s", support_path("one"));
    snprintf(other, sizeof other, "%s", support_path("symlink"));
    support_make_file(path, MIB);
    assert_int_equal(symlink(path, other), 0);
    struct farblk *a = files_open(state, path, "");
    struct farblk *b = files_open(state, other, "");
    ok(farblk_resize(a, 100));
    assert_int_equal(support_info(b).size_sectors, 100);
    assert_int_equal(support_info(b).generation, support_info(a).generation);
    fails_with(FARBLK_CONFLICT, files_try_open(state, path, "sector=1024"));
    text_has("1024");
    fails_with(FARBLK_CONFLICT,
               files_try_open(state, path, "direct=1&sector=512"));
    const char *another =
        strcmp(files_engine(state), "uring") == 0 ? "pool" : "uring";
    struct farblk *c;
    fails_with(FARBLK_CONFLICT,
               farblk_open(files_uri(another, path, ""), NULL, &c));
    ok(farblk_open(files_uri("auto", path, ""), NULL, &c));
    ok(farblk_close(c));
    ok(farblk_close(a));
    ok(farblk_close(b));
}

/* ------------------------------------------------------------ block devices */

static void
block_device_works(void **state)
{
    char path[64];
    const char *backing = support_path("loop");
    uint64_t sector;
    support_make_file(backing, 8 * MIB);
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int number = control >= 0 ? ioctl(control, LOOP_CTL_GET_FREE) : -1;
    if (control >= 0)
        close(control);
    snprintf(path, sizeof path, "/dev/loop%d", number);
    int loop = number >= 0 ? open(path, O_RDWR | O_CLOEXEC) : -1;
    int fd = open(backing, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    int set = loop >= 0 ? ioctl(loop, LOOP_SET_FD, fd) : -1;
    close(fd);
    if (set != 0)
        skip();
    struct farblk *dev;
    int status = farblk_open(
        files_uri(files_engine(state), path, "lock=1&size=8M"), NULL, &dev);
    if (status == 0) {
        struct farblk_info info = support_info(dev);
        assert_int_equal(info.size_sectors * info.sector_size, 8 * MIB);
        files_put(dev, 100, MIB, 2);
        files_expect(dev, 100, MIB, 2);
        ok(farblk_flush(dev));
        ok(farblk_write_zeroes(dev, 101, 9, 0));
        ok(farblk_write_zeroes(dev, 120, 9, FARBLK_NO_UNMAP | FARBLK_FUA));
        files_expect(dev, 101, 9 * 512, 0);
        files_expect(dev, 120, 9 * 512, 0);
        if ((info.features & FARBLK_CAN_DISCARD) != 0)
            ok(farblk_discard(dev, 1024, 1024, 0));
        fails_with(FARBLK_UNIMPLEMENTED, farblk_resize(dev, 100));
        ok(farblk_seek_mapped(dev, 0, &sector));
        assert_int_equal(sector, 0);
        fails_with(FARBLK_CONFLICT, files_try_open(state, path, "size=4M"));
        fails_with(FARBLK_INVALID, files_try_open(state, path, "sector=256k"));
        ok(farblk_close(dev));
    }
    ioctl(loop, LOOP_CLR_FD);
    close(loop);
    if (status == FARBLK_UNIMPLEMENTED)
        skip();
    assert_int_equal(status, 0);
}

#define TESTS                                                                  \
    FILES_TEST(missing_file_is_not_found),                                     \
        FILES_TEST(create_makes_a_file_of_that_size),                          \
        FILES_TEST(create_read_only_makes_it_too),                             \
        FILES_TEST(other_size_is_conflict),                                    \
        FILES_TEST(all_who_create_at_once_get_one_device),                     \
        FILES_TEST(odd_size_is_invalid),                                       \
        FILES_TEST(what_is_no_disk_is_invalid),                                \
        FILES_TEST(malformed_uris_are_invalid),                                \
        FILES_TEST(names_of_one_file_are_one_device),                          \
        FILES_TEST(block_device_works)

int
main(void)
{
    int failed = 0;
    FILES_RUN("file", TESTS, failed);
    return failed == 0 ? 0 : 1;
}
