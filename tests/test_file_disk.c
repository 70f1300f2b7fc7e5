/* SPDX-License-Identifier: ISC */
/*
 * The file driver on a block device that is broken, as the kernel tells it.
 * Needs root and loop devices; skipped without.
 */
#include "tests/support.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1u << 20)

/* A block device of 64 MiB on storage of 1 MiB: what is written to it fails
 * when it is synced.  0, 1 or 77. */
static int
broken_again(const char *engine, const char *directory)
{
    char path[300], uri[400];
    if (unshare(CLONE_NEWNS) != 0
        || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0
        || mount("tmpfs", directory, "tmpfs", 0, "size=1m") != 0)
        return 77;
    snprintf(path, sizeof path, "%s/disk", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 64 * MIB) != 0 || control < 0)
        return 77;
    snprintf(path, sizeof path, "/dev/loop%d",
             ioctl(control, LOOP_CTL_GET_FREE));
    int loop = open(path, O_RDWR | O_CLOEXEC);
    if (loop < 0 || ioctl(loop, LOOP_SET_FD, fd) != 0)
        return 77;

    int result = 77;
    static uint8_t data[4 * MIB];
    struct farblk *dev;
    snprintf(uri, sizeof uri, "file:%s?engine=%s", path, engine);
    int status = farblk_open(uri, NULL, &dev);
    if (status == 0) {
        pattern_fill(data, sizeof data, 1);
        bool as_it_should = support_write(dev, 0, data, sizeof data, 0) == 0
                            && farblk_flush(dev) == FARBLK_IO
                            && farblk_flush(dev) == FARBLK_IO;
        result = as_it_should ? 0 : 1;
        /* So does the flush of a write with FUA. */
        status = support_write(dev, 65536, data, sizeof data, FARBLK_FUA);
        if (status == 0 || farblk_last_effect() != FARBLK_EFFECT_UNKNOWN)
            result = 1;
        farblk_close(dev);
    } else if (status != FARBLK_UNIMPLEMENTED) {
        result = 1;
    }
    ioctl(loop, LOOP_CLR_FD);
    return result;
}

static void
broken_disk_is_told_by_flush(void **state)
{
    const char *path = support_path("broken");
    assert_int_equal(mkdir(path, 0700), 0);
    pid_t child = fork();
    if (child == 0) {
        execl("/proc/self/exe", "test_file_disk", (char *)*state, path,
              (char *)NULL);
        _exit(1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

int
main(int argc, char **argv)
{
    static char uring[] = "uring", pool[] = "pool";
    if (argc == 3)
        return broken_again(argv[1], argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(broken_disk_is_told_by_flush, uring),
        cmocka_unit_test_prestate(broken_disk_is_told_by_flush, pool),
    };
    return cmocka_run_group_tests_name("file, broken", tests, NULL, NULL) != 0;
}
