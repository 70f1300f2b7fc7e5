/* SPDX-License-Identifier: ISC */
/*
 * The file driver when the system misbehaves: calls that are interrupted, do
 * half of it, or fail.
 *
 * What io_uring does happens inside the kernel, and so its errors come from a
 * block device whose storage is full, which needs root and a free loop device.
 */
#include "farblk/server.h"
#include "tests/faults.h"
#include "tests/support.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1u << 20)

static int
faults_none(void **state)
{
    (void)state;
    faults_clear();
    support_watch("test_file_faults");
    return 0;
}

/* ------------------------------------------------------------ helpers */

static struct farblk *
open_file(const char *path, const char *more)
{
    struct farblk *dev = NULL;
    char uri[512];
    snprintf(uri, sizeof uri, "file:%s?%s", path, more);
    int status = farblk_open(uri, NULL, &dev);
    if (status == FARBLK_UNIMPLEMENTED)
        skip();
    support_ok(status, uri, __FILE__, __LINE__);
    return dev;
}

static int
try_open(const char *path, const char *more)
{
    struct farblk *dev = NULL;
    char uri[512];
    snprintf(uri, sizeof uri, "file:%s?%s", path, more);
    int status = farblk_open(uri, NULL, &dev);
    if (status == 0)
        farblk_close(dev);
    return status;
}

/* A device of 1 MiB of this pattern on the pool, and a buffer for it. */
static uint8_t buffer[MIB];

static struct farblk *
open_full(const char *path, uint64_t seed)
{
    struct farblk *dev = open_file(path, "create=1&size=1M&engine=pool");
    pattern_fill(buffer, MIB, seed);
    ok(support_write(dev, 0, buffer, MIB, 0));
    memset(buffer, 0, MIB);
    return dev;
}

/* ------------------------------------------------------------ transfers */

static void
interrupted_calls_are_made_again(void **state)
{
    (void)state;
    struct farblk *dev = open_full(support_path("eintr"), 1);
    faults_set(FAULT_READ, 0, 3, EINTR, 0);
    ok(support_read(dev, 0, buffer, MIB));
    assert_int_equal(pattern_check(buffer, MIB, 1), MIB);
    faults_set(FAULT_WRITE, 0, 3, EAGAIN, 0);
    ok(support_write(dev, 0, buffer, MIB, 0));
    faults_set(FAULT_SYNC, 0, 3, EINTR, 0);
    ok(farblk_flush(dev));
    faults_set(FAULT_TRUNCATE, 0, 3, EINTR, 0);
    ok(farblk_resize(dev, 100));
    faults_set(FAULT_FALLOCATE, 0, 3, EINTR, 0);
    ok(farblk_discard(dev, 0, 100, 0));
    ok(farblk_close(dev));
}

static void
calls_that_never_succeed_are_an_error(void **state)
{
    (void)state;
    struct farblk *dev = open_full(support_path("eagain"), 1);
    faults_set(FAULT_READ, 0, FAULTS_ALWAYS, EAGAIN, 0);
    fails_with(FARBLK_IO, support_read(dev, 0, buffer, MIB));
    faults_set(FAULT_WRITE, 0, FAULTS_ALWAYS, EINTR, 0);
    fails_with(FARBLK_IO, support_write(dev, 0, buffer, 512, 0));
    /* Writes that take nothing. */
    faults_set(FAULT_WRITE, 0, FAULTS_ALWAYS, 0, 0);
    fails_with(FARBLK_IO, support_write(dev, 0, buffer, 512, 0));
    text_has("no progress");
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
    faults_clear();
    ok(support_write(dev, 0, buffer, 512, 0));
    ok(farblk_close(dev));
}

static void
short_transfers_are_continued(void **state)
{
    (void)state;
    struct farblk *dev = open_full(support_path("short"), 2);
    faults_set(FAULT_READ, 0, FAULTS_ALWAYS, 0, 1001);
    ok(support_read(dev, 0, buffer, MIB));
    assert_int_equal(pattern_check(buffer, MIB, 2), MIB);
    pattern_fill(buffer, MIB, 3);
    faults_set(FAULT_WRITE, 0, FAULTS_ALWAYS, 0, 777);
    ok(support_write(dev, 0, buffer, MIB, 0));
    faults_clear();
    memset(buffer, 0, MIB);
    ok(support_read(dev, 0, buffer, MIB));
    assert_int_equal(pattern_check(buffer, MIB, 3), MIB);
    ok(farblk_close(dev));
}

static void
errors_tell_their_effect(void **state)
{
    (void)state;
    const char *path = support_path("effect");
    struct farblk *dev = open_full(path, 4);
    faults_set(FAULT_WRITE, 0, 1, ENOSPC, 0);
    fails_with(FARBLK_NO_SPACE, support_write(dev, 8, buffer, 4096, 0));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
    text_has(path);
    text_has("4096");
    faults_set(FAULT_WRITE, 0, 1, ENOSPC, 0);
    fails_with(FARBLK_NO_SPACE,
               support_write(dev, 8, buffer, 4096, FARBLK_FUA));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
    faults_set(FAULT_WRITE, 0, 1, EIO, 0);
    fails_with(FARBLK_IO, support_write(dev, 8, buffer, 4096, 0));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_UNKNOWN);
    faults_set(FAULT_READ, 0, 1, EIO, 0);
    fails_with(FARBLK_IO, support_read(dev, 8, buffer, 4096));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
    /* What core has checked is not the caller's fault. */
    faults_set(FAULT_READ, 0, 1, EINVAL, 0);
    fails_with(FARBLK_IO, support_read(dev, 8, buffer, 4096));
    faults_set(FAULT_TRUNCATE, 0, 1, EFBIG, 0);
    fails_with(FARBLK_NO_SPACE, farblk_resize(dev, 4096));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
    assert_int_equal(support_info(dev).size_sectors, 2048);
    faults_set(FAULT_FALLOCATE, 0, 1, EIO, 0);
    fails_with(FARBLK_IO, farblk_discard(dev, 0, 8, 0));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_UNKNOWN);
    faults_set(FAULT_SEEK, 0, 1, EIO, 0);
    uint64_t sector;
    fails_with(FARBLK_IO, farblk_seek_mapped(dev, 0, &sector));
    struct farblk_extent extent;
    faults_set(FAULT_SEEK, 0, 1, EIO, 0);
    fails_with(FARBLK_IO, farblk_extents(dev, 0, 100, &extent, 1));
    ok(farblk_close(dev));
}

static void
failed_flush_stays_failed(void **state)
{
    (void)state;
    const char *path = support_path("sticky");
    struct farblk *dev = open_full(path, 5);
    struct farblk *other = open_file(path, "engine=pool");
    faults_set(FAULT_SYNC, 0, 1, EIO, 0);
    fails_with(FARBLK_IO, farblk_flush(dev));
    fails_with(FARBLK_IO, farblk_flush(dev));
    fails_with(FARBLK_IO, farblk_flush(other));
    ok(farblk_close(dev));
    ok(farblk_close(other));
    dev = open_file(path, "engine=pool");
    ok(farblk_flush(dev));
    ok(farblk_close(dev));
}

/* `count` flushes at once; how many say that all is well. */
static unsigned
flush_together(struct farblk *dev, unsigned count, int32_t timeout_ms)
{
    struct farblk_queue *queue;
    struct farblk_completion done;
    struct farblk_request flush = {.size = sizeof flush,
                                   .op = FARBLK_OP_FLUSH,
                                   .dev = dev,
                                   .timeout_ms = timeout_ms};
    unsigned fine = 0;
    ok(farblk_queue_create(count, &queue));
    faults_hold(FAULT_SYNC);
    flush.timeout_ms = -1; /* the first has as long as it takes */
    for (unsigned i = 0; i < count; i++) {
        ok(farblk_submit(queue, &flush));
        if (i == 0)
            faults_await(FAULT_SYNC, 1);
        flush.timeout_ms = timeout_ms;
    }
    for (unsigned i = 0; i < count; i++) {
        if (i == (timeout_ms > 0 ? count - 1 : 0))
            faults_release(FAULT_SYNC);
        assert_int_equal(
            farblk_collect(queue, &done, sizeof done, 1, SUPPORT_PATIENCE_MS),
            1);
        fine += done.status == 0;
    }
    farblk_queue_destroy(queue);
    return fine;
}

/* The kernel tells a failed write-back once. */
static void
of_flushes_at_once_none_says_fine_when_one_fails(void **state)
{
    (void)state;
    const char *path = support_path("together");
    struct farblk *dev = open_full(path, 6);
    assert_int_equal(flush_together(dev, 8, -1), 8);
    faults_set(FAULT_SYNC, 0, 1, EIO, 0);
    assert_int_equal(flush_together(dev, 8, -1), 0);
    ok(farblk_close(dev));
}

static void
flushes_that_were_not_begun_in_time_poison_nothing(void **state)
{
    (void)state;
    const char *path = support_path("late");
    struct farblk *dev = open_full(path, 7);
    assert_int_equal(flush_together(dev, 6, 1), 1);
    ok(farblk_flush(dev));
    assert_int_equal(flush_together(dev, 3, -1), 3);
    ok(farblk_close(dev));
}

static void
direct_memory_survives_faults(void **state)
{
    (void)state;
    const char *path = support_path("direct");
    uint8_t *data = malloc(MIB + 1), *back = malloc(MIB + 1);
    pattern_fill(data, MIB + 1, 7);
    /* Where the kernel does not tell of alignment, a trial does. */
    for (int told = 0; told < 2; told++) {
        if (!told)
            faults_set(FAULT_STATX, 0, FAULTS_ALWAYS, ENOSYS, 0);
        struct farblk *dev = open_file(
            path, "create=1&size=1M&sector=4096&engine=pool&direct=1");
        faults_set(FAULT_WRITE, 1, 1, 0, 8192);
        ok(support_write(dev, 0, data + 1, MIB, 0));
        faults_set(FAULT_READ, 0, 1, 0, 4096);
        ok(support_read(dev, 0, back + 1, MIB));
        assert_memory_equal(data + 1, back + 1, MIB);
        ok(farblk_close(dev));
        faults_clear();
    }
    free(data);
    free(back);
}

/* What has to go through aligned memory of a thread goes in calls of 1 MiB: with
 * the first call's luck alone it would fail. */
static void
a_server_receives_and_reads_into_aligned_memory(void **state)
{
    enum { LENGTH = 2 * MIB, SECTORS = LENGTH / 4096 };
    (void)state;
    const char *path = support_path("direct");
    const char *address = support_name("direct");
    char uri[512], url[256];
    struct farblk_server *server = NULL;
    struct farblk *dev = NULL;
    int status = try_open(path, "create=1&size=4M&sector=4096&direct=1");
    if (status == FARBLK_UNIMPLEMENTED)
        skip();
    support_ok(status, "open", __FILE__, __LINE__);
    snprintf(uri, sizeof uri, "file:%s?sector=4096&engine=pool&direct=1", path);
    snprintf(url, sizeof url, "inproc://%s", address);
    ok(farblk_server_create(NULL, &server));
    ok(farblk_server_export(server, "disk", uri));
    ok(farblk_server_listen(server, url));
    snprintf(uri, sizeof uri, "farblk+inproc:///disk?address=%s", address);
    ok(farblk_open(uri, NULL, &dev));
    assert_true(support_info(dev).max_transfer >= LENGTH);

    uint8_t *data = malloc(LENGTH), *back = calloc(1, LENGTH);
    pattern_fill(data, LENGTH, 3);
    faults_set(FAULT_WRITE, 1, FAULTS_ALWAYS, EIO, 0);
    ok(support_write(dev, SECTORS, data, LENGTH, 0));
    fails_with(FARBLK_IO, support_write(dev, 0, data, 4096, 0));
    faults_clear();
    faults_set(FAULT_READ, 1, FAULTS_ALWAYS, EIO, 0);
    ok(support_read(dev, SECTORS, back, LENGTH));
    fails_with(FARBLK_IO, support_read(dev, 0, back, 4096));
    faults_clear();
    assert_memory_equal(data, back, LENGTH);
    free(data);
    free(back);
    ok(farblk_close(dev));
    farblk_server_destroy(server);
}

static void
direct_sectors_are_not_less_than_its_unit(void **state)
{
    (void)state;
    const char *path = support_path("unit");
    /* Nobody tells the unit, and an empty file is no place for a trial. */
    faults_set(FAULT_STATX, 0, FAULTS_ALWAYS, ENOSYS, 0);
    int status = try_open(path, "create=1&size=0&direct=1");
    if (status == FARBLK_UNIMPLEMENTED)
        skip();
    fails_with(FARBLK_INVALID, status);
    text_has("4096");
    text_has("512");
    assert_int_equal(access(path, F_OK), -1);
    ok(try_open(path, "create=1&size=0&direct=1&sector=4k"));
}

/* ------------------------------------------------------------ what is missing */

static void
without_punching_zeroes_are_written(void **state)
{
    (void)state;
    struct farblk *dev;
    for (int late = 0; late < 2; late++) {
        if (!late)
            faults_set(FAULT_FALLOCATE, 0, FAULTS_ALWAYS, EOPNOTSUPP, 0);
        dev = open_full(support_path("no-punch"), 6);
        struct farblk_info info = support_info(dev);
        assert_int_equal((info.features & FARBLK_CAN_DISCARD) != 0, late);
        assert_int_equal((info.features & FARBLK_DISCARD_ZEROES) != 0, late);
        assert_true((info.features & FARBLK_CAN_WRITE_ZEROES) != 0);
        faults_set(FAULT_FALLOCATE, 0, FAULTS_ALWAYS, EOPNOTSUPP, 0);
        if (late)
            ok(farblk_discard(dev, 3, 1, 0));
        else
            fails_with(FARBLK_UNIMPLEMENTED, farblk_discard(dev, 3, 1, 0));
        ok(farblk_write_zeroes(dev, 3, 500, 0));
        ok(farblk_write_zeroes(dev, 600, 1, FARBLK_NO_UNMAP | FARBLK_FUA));
        ok(support_read(dev, 0, buffer, MIB));
        uint8_t *want = malloc(MIB);
        pattern_fill(want, MIB, 6);
        memset(want + 3 * 512, 0, 500 * 512);
        memset(want + 600 * 512, 0, 512);
        assert_memory_equal(buffer, want, MIB);
        free(want);
        faults_set(FAULT_WRITE, 0, 1, ENOSPC, 0);
        fails_with(FARBLK_NO_SPACE, farblk_write_zeroes(dev, 0, 2048, 0));
        ok(farblk_close(dev));
        faults_clear();
    }
}

static void
without_seeking_all_is_mapped(void **state)
{
    (void)state;
    const char *path = support_path("no-seek");
    uint64_t sector;
    for (int late = 0; late < 2; late++) {
        if (!late)
            faults_set(FAULT_SEEK, 0, FAULTS_ALWAYS, EINVAL, 0);
        struct farblk *dev = open_file(path, "create=1&size=1M&engine=pool");
        assert_int_equal((support_info(dev).features & FARBLK_CAN_SEEK) != 0,
                         late);
        faults_set(FAULT_SEEK, 0, FAULTS_ALWAYS, EINVAL, 0);
        ok(farblk_seek_mapped(dev, 5, &sector));
        assert_int_equal(sector, 5);
        ok(farblk_seek_unmapped(dev, 5, &sector));
        assert_int_equal(sector, 2048);
        struct farblk_extent extents[4];
        assert_int_equal(ok(farblk_extents(dev, 5, 2000, extents, 4)), 1);
        assert_int_equal(extents[0].mapped, 1);
        assert_int_equal(extents[0].count, 2000);
        ok(farblk_close(dev));
        faults_clear();
    }
}

static void
files_are_made_without_tmpfile(void **state)
{
    (void)state;
    const char *path = support_path("no-tmpfile");
    struct stat st;
    faults_set(FAULT_TMPFILE, 0, 1, EOPNOTSUPP, 0);
    ok(try_open(path, "create=1&size=1M&engine=pool"));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, MIB);
    assert_int_equal(unlink(path), 0);
    faults_set(FAULT_LINK, 0, 1, ENOENT, 0);
    ok(try_open(path, "create=1&size=1M&engine=pool"));
    assert_int_equal(unlink(path), 0);
}

static void
failed_making_leaves_nothing(void **state)
{
    (void)state;
    const char *path = support_path("unmade");
    for (int tmpfile = 0; tmpfile < 2; tmpfile++)
        for (int fail = 0; fail < 3; fail++) {
            if (!tmpfile)
                faults_set(FAULT_TMPFILE, 0, 1, EOPNOTSUPP, 0);
            if (fail == 0)
                faults_set(FAULT_TRUNCATE, 0, 1, ENOSPC, 0);
            else /* the file's, the directory's */
                faults_set(FAULT_SYNC, fail - 1, 1, EIO, 0);
            fails_with(fail == 0 ? FARBLK_NO_SPACE : FARBLK_IO,
                       try_open(path, "create=1&size=1M"));
            assert_int_equal(access(path, F_OK), -1);
            assert_int_equal(errno, ENOENT);
            faults_clear();
        }
}

static void
failed_upgrade_leaves_the_reader(void **state)
{
    (void)state;
    const char *path = support_path("no-dup");
    support_make_file(path, MIB);
    struct farblk *dev = open_file(path, "ro=1&lock=1&engine=pool");
    faults_set(FAULT_DUP, 0, 1, EBUSY, 0);
    fails_with(FARBLK_BUSY, try_open(path, "engine=auto"));
    ok(support_read(dev, 0, buffer, MIB));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), -1);
    assert_int_equal(flock(fd, LOCK_SH | LOCK_NB), 0);
    close(fd);
    ok(try_open(path, "engine=auto"));
    ok(farblk_close(dev));
}

static void
without_a_ring_threads_do_it(void **state)
{
    (void)state;
    const char *path = support_path("no-ring");
    support_make_file(path, MIB);
    faults_set(FAULT_RING, 0, FAULTS_ALWAYS, EPERM, 0);
    fails_with(FARBLK_UNIMPLEMENTED, try_open(path, "engine=uring"));
    text_has("io_uring");
    struct farblk *dev = open_file(path, "engine=auto");
    ok(support_write(dev, 0, buffer, MIB, 0));
    ok(farblk_flush(dev));
    fails_with(FARBLK_CONFLICT, try_open(path, "engine=uring"));
    ok(try_open(path, "engine=pool"));
    ok(farblk_close(dev));
}

/* The first try asks for what kernels have since 6.1. */
static void
an_older_kernels_ring_does_as_well(void **state)
{
    (void)state;
    const char *path = support_path("old-ring");
    faults_set(FAULT_RING, 0, 1, EINVAL, 0);
    struct farblk *dev = open_file(path, "create=1&size=1M&engine=uring");
    pattern_fill(buffer, MIB, 4);
    ok(support_write(dev, 0, buffer, MIB, FARBLK_FUA));
    memset(buffer, 0, MIB);
    ok(support_read(dev, 0, buffer, MIB));
    assert_int_equal(pattern_check(buffer, MIB, 4), MIB);
    ok(farblk_flush(dev));
    ok(farblk_close(dev));
}

static void
ring_that_is_short_of_memory_goes_on(void **state)
{
    (void)state;
    const char *path = support_path("short-ring");
    struct farblk *dev = open_file(path, "create=1&size=1M&engine=uring");
    pattern_fill(buffer, MIB, 9);
    for (int i = 0; i < 20; i++) {
        faults_set(FAULT_ENTER, i % 3, 4, i % 2 == 0 ? EAGAIN : EINTR, 0);
        ok(support_write(dev, 0, buffer, MIB, 0));
        ok(support_read(dev, 0, buffer, MIB));
        assert_int_equal(pattern_check(buffer, MIB, 9), MIB);
    }
    /* Also while it ends. */
    faults_set(FAULT_ENTER, 0, 4, EAGAIN, 0);
    ok(farblk_close(dev));
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, faults_none, faults_none)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(interrupted_calls_are_made_again),
        TEST(calls_that_never_succeed_are_an_error),
        TEST(short_transfers_are_continued),
        TEST(errors_tell_their_effect),
        TEST(failed_flush_stays_failed),
        TEST(of_flushes_at_once_none_says_fine_when_one_fails),
        TEST(flushes_that_were_not_begun_in_time_poison_nothing),
        TEST(direct_memory_survives_faults),
        TEST(a_server_receives_and_reads_into_aligned_memory),
        TEST(direct_sectors_are_not_less_than_its_unit),
        TEST(without_punching_zeroes_are_written),
        TEST(without_seeking_all_is_mapped),
        TEST(files_are_made_without_tmpfile),
        TEST(failed_making_leaves_nothing),
        TEST(failed_upgrade_leaves_the_reader),
        TEST(without_a_ring_threads_do_it),
        TEST(an_older_kernels_ring_does_as_well),
        TEST(ring_that_is_short_of_memory_goes_on),
    };
    return cmocka_run_group_tests_name("file, faults", tests, NULL, NULL) != 0;
}
