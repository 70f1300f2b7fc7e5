/* SPDX-License-Identifier: ISC */
/*
 * The file driver: who may write, and who keeps whom out.
 */
#include "tests/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ------------------------------------------------------------ permissions */

static int
permissions_again(const char *engine, const char *path)
{
    struct farblk *dev;
    uint8_t sector[512] = {0};
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
        return 77;
    if (access(path, R_OK) != 0)
        return 77;
    if (farblk_open(files_uri(engine, path, ""), NULL, &dev) != 0)
        return 1;
    struct farblk_info info;
    if (farblk_get_info(dev, &info, sizeof info) != 0 || info.read_write)
        return 1;
    if (support_read(dev, 0, sector, 512) != 0
        || support_write(dev, 0, sector, 512, 0) != FARBLK_IS_READ_ONLY
        || farblk_resize(dev, 1) != FARBLK_IS_READ_ONLY
        || farblk_flush(dev) != 0)
        return 1;
    /* What is open without the right to write does not get it by joining. */
    struct farblk *again;
    if (farblk_open(files_uri(engine, path, ""), NULL, &again) != 0
        || support_write(again, 0, sector, 512, 0) != FARBLK_IS_READ_ONLY)
        return 1;
    farblk_close(again);
    farblk_close(dev);
    char other[300];
    snprintf(other, sizeof other, "%s.secret", path);
    if (farblk_open(files_uri(engine, other, ""), NULL, &dev) != FARBLK_DENIED)
        return 1;
    snprintf(other, sizeof other, "%s.new", path);
    return farblk_open(files_uri(engine, other, "create=1&size=1M"), NULL, &dev)
                   == FARBLK_DENIED
               ? 0
               : 1;
}

static void
no_right_to_write_is_read_only(void **state)
{
    char path[256], secret[300];
    snprintf(path, sizeof path, "%s", support_path("rights"));
    snprintf(secret, sizeof secret, "%s.secret", path);
    support_make_file(path, MIB);
    support_make_file(secret, MIB);
    files_open_close(state, path, "ro=1");
    assert_int_equal(chmod(support_directory(), 0555), 0);
    assert_int_equal(chmod(path, 0444), 0);
    assert_int_equal(chmod(secret, 0), 0);
    int status = 77;
    if (getuid() == 0 || access(secret, R_OK) != 0) {
        pid_t child = fork();
        if (child == 0) {
            execl("/proc/self/exe", "test_file", "permissions",
                  files_engine(state), path, (char *)NULL);
            _exit(1);
        }
        waitpid(child, &status, 0);
        status = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    }
    assert_int_equal(chmod(support_directory(), 0700), 0);
    if (status == 77)
        skip();
    assert_int_equal(status, 0);
}

static void
writer_joins_a_reader(void **state)
{
    const char *path = support_path("upgrade");
    uint8_t sector[512] = {1};
    support_make_file(path, MIB);
    struct farblk *reader = files_open(state, path, "ro=1");
    struct farblk *writer = files_open(state, path, "");
    assert_false(support_info(reader).read_write);
    assert_true(support_info(writer).read_write);
    files_put(writer, 5, 512, 7);
    files_expect(reader, 5, 512, 7);
    fails_with(FARBLK_IS_READ_ONLY, support_write(reader, 5, sector, 512, 0));
    ok(farblk_discard(writer, 5, 1, 0));
    files_expect(reader, 5, 512, 0);
    ok(farblk_resize(writer, 1));
    ok(farblk_flush(writer));
    ok(farblk_close(writer));
    ok(farblk_close(reader));
}

/* ------------------------------------------------------------ locks */

/* Whether another process could take this lock. */
static bool
others_can_lock(const char *path, int mode)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    bool can = flock(fd, mode | LOCK_NB) == 0;
    close(fd);
    return can;
}

static void
locks_keep_others_out(void **state)
{
    const char *path = support_path("lock");
    support_make_file(path, MIB);
    struct farblk *dev = files_open(state, path, "lock=1");
    assert_false(others_can_lock(path, LOCK_SH));
    ok(farblk_close(dev));
    assert_true(others_can_lock(path, LOCK_EX));

    dev = files_open(state, path, "lock=1&ro=1");
    assert_true(others_can_lock(path, LOCK_SH));
    assert_false(others_can_lock(path, LOCK_EX));
    ok(farblk_close(dev));

    /* One that wants the lock gets it for the device that has none. */
    dev = files_open(state, path, "");
    assert_true(others_can_lock(path, LOCK_EX));
    struct farblk *locker = files_open(state, path, "lock=1");
    assert_false(others_can_lock(path, LOCK_SH));
    ok(farblk_close(locker));
    assert_false(others_can_lock(path, LOCK_SH));
    ok(farblk_close(dev));
    assert_true(others_can_lock(path, LOCK_EX));
}

/* A process that holds the lock until it is let go. */
struct holder {
    pid_t pid;
    int say;
};

static struct holder
hold_lock(const char *path, int mode)
{
    int up[2], down[2];
    assert_int_equal(pipe2(up, O_CLOEXEC), 0);
    assert_int_equal(pipe2(down, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char go = 0;
        close(down[1]);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (flock(fd, mode) != 0 || write(up[1], &go, 1) != 1)
            _exit(1);
        while (read(down[0], &go, 1) < 0 && errno == EINTR)
            ;
        _exit(0);
    }
    char told = 0;
    close(up[1]);
    close(down[0]);
    assert_int_equal(read(up[0], &told, 1), 1);
    close(up[0]);
    return (struct holder){.pid = pid, .say = down[1]};
}

static void
let_go(struct holder holder)
{
    int status;
    close(holder.say);
    assert_int_equal(waitpid(holder.pid, &status, 0), holder.pid);
    assert_int_equal(status, 0);
}

static void
locked_file_is_busy(void **state)
{
    const char *path = support_path("busy");
    support_make_file(path, MIB);
    struct farblk *dev = files_open(state, path, ""); /* skips without engine */
    struct holder holder = hold_lock(path, LOCK_EX);
    fails_with(FARBLK_BUSY, files_try_open(state, path, "lock=1"));
    text_has(path);
    ok(farblk_close(dev));
    fails_with(FARBLK_BUSY, files_try_open(state, path, "lock=1"));
    text_has(path);
    fails_with(FARBLK_BUSY, files_try_open(state, path, "lock=1&ro=1"));
    files_open_close(state, path, "");
    let_go(holder);
    files_open_close(state, path, "lock=1");

    holder = hold_lock(path, LOCK_SH);
    fails_with(FARBLK_BUSY, files_try_open(state, path, "lock=1"));
    files_open_close(state, path, "lock=1&ro=1");
    let_go(holder);
}

static void
lock_follows_a_reader_to_its_writer(void **state)
{
    const char *path = support_path("carry");
    support_make_file(path, MIB);
    struct farblk *reader = files_open(state, path, "ro=1&lock=1");
    struct holder holder = hold_lock(path, LOCK_SH);
    fails_with(FARBLK_BUSY, files_try_open(state, path, ""));
    let_go(holder);
    /* The reader has its lock still. */
    assert_false(others_can_lock(path, LOCK_EX));
    assert_true(others_can_lock(path, LOCK_SH));
    struct farblk *writer = files_open(state, path, "");
    assert_false(others_can_lock(path, LOCK_SH));
    files_put(writer, 0, 512, 3);
    ok(farblk_close(writer));
    assert_false(others_can_lock(path, LOCK_SH));
    files_expect(reader, 0, 512, 3);
    ok(farblk_close(reader));
    assert_true(others_can_lock(path, LOCK_EX));
}

#define TESTS                                                                  \
    FILES_TEST(no_right_to_write_is_read_only),                                \
        FILES_TEST(writer_joins_a_reader), FILES_TEST(locks_keep_others_out),  \
        FILES_TEST(locked_file_is_busy),                                       \
        FILES_TEST(lock_follows_a_reader_to_its_writer)

int
main(int argc, char **argv)
{
    int failed = 0;
    if (argc == 4) {
        if (strcmp(argv[1], "permissions") == 0)
            return permissions_again(argv[2], argv[3]);
        return 1;
    }
    FILES_RUN("file, locks", TESTS, failed);
    return failed == 0 ? 0 : 1;
}
