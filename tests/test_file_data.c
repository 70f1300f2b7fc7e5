/* SPDX-License-Identifier: ISC */
/*
 * The file driver: holes, data in quantity, and storage that is full or cut.
 * What all drivers share is in the conformance suite.
 */
#include "tests/files.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* ------------------------------------------------------------ holes */

/* Extents cover all of the device, and agree with the data. */
static void
check_extents(struct farblk *dev)
{
    struct farblk_info info = support_info(dev);
    uint64_t at = 0;
    while (at < info.size_sectors) {
        struct farblk_extent extents[3];
        int count =
            ok(farblk_extents(dev, at, info.size_sectors - at, extents, 3));
        assert_in_range(count, 1, 3);
        for (int i = 0; i < count; i++) {
            assert_int_equal(extents[i].start, at);
            assert_true(extents[i].count > 0);
            at += extents[i].count;
            if (!extents[i].mapped)
                files_expect(dev, extents[i].start,
                             (size_t)extents[i].count * info.sector_size, 0);
        }
    }
    assert_int_equal(at, info.size_sectors);
}

static void
holes_are_told(void **state)
{
    const char *path = support_path("holes");
    uint64_t sector;
    struct farblk *dev = files_open(state, path, "create=1&size=4M");
    uint64_t size = 4 * MIB / 512, mib = MIB / 512;
    ok(farblk_seek_mapped(dev, 0, &sector));
    assert_int_equal(sector, size);
    ok(farblk_seek_unmapped(dev, 0, &sector));
    assert_int_equal(sector, 0);
    files_put(dev, mib, 65536, 1);
    files_put(dev, 2 * mib, 65536, 2);
    ok(farblk_seek_mapped(dev, 0, &sector));
    assert_int_equal(sector, mib);
    ok(farblk_seek_mapped(dev, mib + 5, &sector));
    assert_int_equal(sector, mib + 5);
    ok(farblk_seek_unmapped(dev, mib + 5, &sector));
    assert_int_equal(sector, mib + 128);
    ok(farblk_seek_unmapped(dev, 0, &sector));
    assert_int_equal(sector, 0);
    /* The hole at the end. */
    ok(farblk_seek_mapped(dev, 2 * mib + 128, &sector));
    assert_int_equal(sector, size);
    ok(farblk_seek_mapped(dev, size, &sector));
    assert_int_equal(sector, size);
    ok(farblk_seek_unmapped(dev, size, &sector));
    assert_int_equal(sector, size);
    fails_with(FARBLK_INVALID, farblk_seek_mapped(dev, size + 1, &sector));
    check_extents(dev);
    struct farblk_extent extents[8];
    assert_int_equal(ok(farblk_extents(dev, 0, size, extents, 8)), 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(extents[i].mapped, i % 2);
    /* The last sector mapped: there is no hole after it. */
    files_put(dev, size - 8, 4096, 3);
    ok(farblk_seek_unmapped(dev, size - 1, &sector));
    assert_int_equal(sector, size);
    check_extents(dev);
    ok(farblk_close(dev));
}

static void
sectors_partly_data_are_mapped(void **state)
{
    const char *path = support_path("rounding");
    uint64_t sector;
    uint8_t data[4096];
    pattern_fill(data, sizeof data, 1);
    support_make_file(path, 8 * 65536);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    /* 4096 octets in the middle of sector 2, at the end of 4, the begin of 6 */
    assert_int_equal(pwrite(fd, data, 4096, 2 * 65536 + 8192), 4096);
    assert_int_equal(pwrite(fd, data, 4096, 5 * 65536 - 4096), 4096);
    assert_int_equal(pwrite(fd, data, 4096, 6 * 65536), 4096);
    close(fd);
    struct farblk *dev = files_open(state, path, "sector=64k");
    for (uint64_t s = 0; s < 8; s++) {
        bool mapped = s == 2 || s == 4 || s == 6;
        ok(farblk_seek_mapped(dev, s, &sector));
        assert_int_equal(sector, mapped  ? s
                                 : s < 2 ? 2
                                 : s < 4 ? 4
                                 : s < 6 ? 6
                                         : 8);
        ok(farblk_seek_unmapped(dev, s, &sector));
        assert_int_equal(sector, mapped ? s + 1 : s);
    }
    check_extents(dev);
    ok(farblk_close(dev));
}

static void
discard_keeps_size_and_neighbours(void **state)
{
    const char *path = support_path("discard");
    struct farblk *dev = files_open(state, path, "create=1&size=1M");
    if ((support_info(dev).features & FARBLK_DISCARD_ZEROES) == 0) {
        farblk_close(dev);
        skip();
    }
    for (uint64_t i = 0; i < 256; i++)
        files_put(dev, i, 512, i + 1);
    ok(farblk_discard(dev, 3, 1, 0));
    ok(farblk_discard(dev, 17, 60, FARBLK_FUA));
    ok(farblk_discard(dev, 2047, 1, 0));
    ok(farblk_discard(dev, 5, 0, 0));
    fails_with(FARBLK_INVALID, farblk_discard(dev, 2047, 2, 0));
    for (uint64_t i = 0; i < 256; i++)
        files_expect(dev, i, 512, i == 3 || (i >= 17 && i < 77) ? 0 : i + 1);
    assert_int_equal(files_size(path), MIB);
    check_extents(dev);
    ok(farblk_close(dev));
}

static void
zeroing_reads_as_zero(void **state)
{
    const char *path = support_path("zero");
    struct farblk *dev = files_open(state, path, "create=1&size=8M");
    files_put(dev, 0, 8 * MIB, 4);
    uint8_t *data = malloc(8 * MIB), *want = malloc(8 * MIB);
    pattern_fill(want, 8 * MIB, 4);
    const uint64_t start[] = {1, 100, 5000, 7};
    const uint64_t count[] = {2, 3000, 11384, 1};
    const uint32_t flags[] = {0, FARBLK_NO_UNMAP, FARBLK_FUA,
                              FARBLK_NO_UNMAP | FARBLK_FUA};
    for (int i = 0; i < 4; i++) {
        ok(farblk_write_zeroes(dev, start[i], count[i], flags[i]));
        memset(want + start[i] * 512, 0, count[i] * 512);
        ok(support_read(dev, 0, data, 8 * MIB));
        assert_memory_equal(data, want, 8 * MIB);
    }
    assert_int_equal(files_size(path), 8 * MIB);
    check_extents(dev);
    free(data);
    free(want);
    ok(farblk_close(dev));
}

static void
resize_goes_both_ways(void **state)
{
    const char *path = support_path("resize");
    uint64_t sector;
    struct farblk *dev = files_open(state, path, "create=1&size=1M");
    files_put(dev, 0, MIB, 1);
    ok(farblk_resize(dev, 101));
    assert_int_equal(files_size(path), 101 * 512);
    ok(farblk_flush(dev));
    fails_with(FARBLK_INVALID, farblk_write_zeroes(dev, 101, 1, 0));
    /* What somebody appends does not become part of the device. */
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_int_equal(write(fd, "appended", 8), 8);
    close(fd);
    ok(farblk_resize(dev, 4096));
    assert_int_equal(files_size(path), 4096 * 512);
    files_expect(dev, 101, (4096 - 101) * 512, 0);
    ok(farblk_seek_mapped(dev, 1024, &sector));
    assert_int_equal(sector, 4096);
    ok(farblk_resize(dev, 0));
    assert_int_equal(files_size(path), 0);
    ok(farblk_seek_mapped(dev, 0, &sector));
    assert_int_equal(sector, 0);
    ok(farblk_flush(dev));
    ok(farblk_resize(dev, 8));
    files_expect(dev, 0, 4096, 0);
    fails_with(FARBLK_INVALID, farblk_resize(dev, UINT64_MAX / 2));
    ok(farblk_close(dev));
}

/* ------------------------------------------------------------ data */

static void
thousands_of_buffers_are_one_request(void **state)
{
    enum { COUNT = 5000 };
    const char *path = support_path("iovecs");
    struct farblk *dev = files_open(state, path, "create=1&size=8M");
    struct iovec *iov = calloc(2 * COUNT, sizeof *iov);
    uint8_t *data = malloc(COUNT * 1024), *back = calloc(COUNT, 1024);
    pattern_fill(data, COUNT * 1024, 6);
    /* Every other half of the memory, and empty ones between. */
    for (size_t i = 0; i < COUNT; i++)
        iov[2 * i] = (struct iovec){data + 1024 * i + 512, 512};
    ok(farblk_write(dev, 3, iov, 2 * COUNT, 0));
    for (size_t i = 0; i < COUNT; i++)
        iov[2 * i] = (struct iovec){back + 1024 * i, 512};
    ok(farblk_read(dev, 3, iov, 2 * COUNT));
    for (size_t i = 0; i < COUNT; i++) {
        assert_memory_equal(back + 1024 * i, data + 1024 * i + 512, 512);
        assert_true(pattern_is_zero(back + 1024 * i + 512, 512));
    }
    free(iov);
    free(data);
    free(back);
    ok(farblk_close(dev));
}

static void
direct_takes_any_memory(void **state)
{
    const char *path = support_path("direct");
    struct farblk *dev;
    int status = farblk_open(files_uri(files_engine(state), path,
                                       "create=1&size=8M&direct=1&sector=4096"),
                             NULL, &dev);
    if (status == FARBLK_UNIMPLEMENTED)
        skip(); /* no such engine, or no direct I/O in the file system */
    support_ok(status, "open", __FILE__, __LINE__);
    uint8_t *data = malloc(6 * MIB), *back = malloc(6 * MIB);
    pattern_fill(data, 6 * MIB, 8);
    for (size_t off = 0; off < 4; off++) {
        struct iovec out[3] = {{data + off, 4096},
                               {data + off + 4096, 3 * MIB},
                               {data + off + 4096 + 3 * MIB, 8192}};
        ok(farblk_write(dev, off, out, 3, off == 1 ? FARBLK_FUA : 0));
        struct iovec in[2] = {{back + 3, 12288}, {back + 3 + 12288, 3 * MIB}};
        ok(farblk_read(dev, off, in, 2));
        assert_memory_equal(back + 3, data + off, 12288 + 3 * MIB);
    }
    size_t length = 2 * MIB;
    uint8_t *aligned = farblk_buffer_alloc(dev, length);
    assert_non_null(aligned);
    pattern_fill(aligned, length, 11);
    ok(support_write(dev, 512, aligned, length, 0));
    memset(aligned, 0, length);
    ok(support_read(dev, 512, aligned, length));
    assert_int_equal(pattern_check(aligned, length, 11), length);
    farblk_buffer_free(dev, aligned, length);
    ok(farblk_write_zeroes(dev, 1, 3, 0));
    files_expect(dev, 1, 3 * 4096, 0);
    ok(farblk_resize(dev, 4));
    ok(farblk_close(dev));
    free(data);
    free(back);
}

struct worker {
    pthread_t thread;
    struct farblk *dev;
    struct trouble *trouble;
    uint64_t index;
};

static void *
worker_main(void *arg)
{
    struct worker *worker = arg;
    struct rng rng = {.state = worker->index};
    uint8_t *data = malloc(262144);
    uint64_t base = worker->index * 1024;
    for (int i = 0; i < 100; i++) {
        uint64_t at = rng_below(&rng, 512);
        size_t length = 512 * (size_t)(1 + rng_below(&rng, 512));
        uint64_t seed = rng_next(&rng);
        pattern_fill(data, length, seed);
        if (support_write(worker->dev, base + at, data, length,
                          rng_below(&rng, 16) == 0 ? FARBLK_FUA : 0)
            != 0)
            trouble_note(worker->trouble, "write: %s", farblk_last_text());
        memset(data, 0, length);
        if (support_read(worker->dev, base + at, data, length) != 0)
            trouble_note(worker->trouble, "read: %s", farblk_last_text());
        else if (pattern_check(data, length, seed) != length)
            trouble_note(worker->trouble, "thread %d, round %d: other data",
                         (int)worker->index, i);
        uint64_t sector;
        if (i % 10 == 0
            && (farblk_flush(worker->dev) != 0
                || farblk_seek_mapped(worker->dev, base, &sector) != 0
                || farblk_discard(worker->dev, base + at, 1, 0) != 0))
            trouble_note(worker->trouble, "%s", farblk_last_text());
    }
    free(data);
    return NULL;
}

static void
threads_do_not_disturb_each_other(void **state)
{
    const char *path = support_path("threads");
    struct trouble trouble = {0};
    struct worker workers[8] = {0};
    struct farblk *dev = files_open(state, path, "create=1&size=4M");
    for (unsigned i = 0; i < 8; i++) {
        workers[i] =
            (struct worker){.dev = dev, .trouble = &trouble, .index = i};
        assert_int_equal(
            pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]),
            0);
    }
    for (unsigned i = 0; i < 8; i++)
        pthread_join(workers[i].thread, NULL);
    trouble_assert_none(&trouble);
    ok(farblk_close(dev));
}

/* Submits to a queue on its own thread, which ends at once. */
struct submitter {
    struct farblk_queue *queue;
    struct farblk *dev;
    struct iovec iov[64];
    int refused;
};

static void *
submitter_main(void *arg)
{
    struct submitter *submitter = arg;
    for (unsigned i = 0; i < 64; i++) {
        struct farblk_request request = {
            .size = sizeof request,
            .op = i % 2 == 0 ? FARBLK_OP_WRITE : FARBLK_OP_READ,
            .dev = submitter->dev,
            .sector = i * 256,
            .iov = &submitter->iov[i],
            .iovcnt = 1,
        };
        if (farblk_submit(submitter->queue, &request) != 0)
            submitter->refused++;
    }
    return NULL;
}

static void
submitting_thread_may_end_before_its_requests(void **state)
{
    const char *path = support_path("gone");
    struct submitter submitter = {0};
    pthread_t thread;
    submitter.dev = files_open(state, path, "create=1&size=8M");
    ok(farblk_queue_create(64, &submitter.queue));
    uint8_t *memory = calloc(64, 131072);
    for (unsigned i = 0; i < 64; i++)
        submitter.iov[i] = (struct iovec){memory + i * 131072, 131072};
    for (int round = 0; round < 4; round++) {
        assert_int_equal(
            pthread_create(&thread, NULL, submitter_main, &submitter), 0);
        pthread_join(thread, NULL);
        assert_int_equal(submitter.refused, 0);
        for (int left = 64; left > 0;) {
            struct farblk_completion done[16];
            int n = ok(farblk_collect(submitter.queue, done, sizeof done[0], 16,
                                      SUPPORT_PATIENCE_MS));
            assert_true(n > 0);
            for (int i = 0; i < n; i++)
                assert_int_equal(done[i].status, 0);
            left -= n;
        }
    }
    farblk_queue_destroy(submitter.queue);
    free(memory);
    ok(farblk_close(submitter.dev));
}

static void
requests_past_their_time_end(void **state)
{
    const char *path = support_path("late");
    struct farblk *dev = files_open(state, path, "create=1&size=64M");
    struct farblk_queue *queue;
    ok(farblk_queue_create(256, &queue));
    uint8_t *memory = calloc(1, 16 * MIB);
    struct iovec iov = {memory, 16 * MIB};
    for (unsigned i = 0; i < 256; i++) {
        struct farblk_request request = {
            .size = sizeof request,
            .op = i % 4 == 3   ? FARBLK_OP_EXTENTS
                  : i % 4 == 2 ? FARBLK_OP_READ
                               : FARBLK_OP_WRITE,
            .flags = i % 4 == 1 ? FARBLK_FUA : 0,
            .dev = dev,
            .sector = (i % 4) * 32768,
            .count = i % 4 == 3 ? 10 : 0,
            .iov = &iov,
            .iovcnt = 1,
            .timeout_ms = 1 + (int)(i % 7),
        };
        struct farblk_extent extent;
        struct iovec one = {&extent, sizeof extent};
        if (i % 4 == 3)
            request.iov = &one;
        ok(farblk_submit(queue, &request));
        while (i % 4 == 3 || i % 32 == 31) { /* `one` goes out of scope */
            struct farblk_completion done;
            if (ok(farblk_collect(queue, &done, sizeof done, 1,
                                  SUPPORT_PATIENCE_MS))
                == 0)
                break;
            if (done.status != 0)
                assert_int_equal(done.status, FARBLK_TIMED_OUT);
        }
    }
    farblk_queue_destroy(queue);
    files_put(dev, 0, MIB, 12);
    files_expect(dev, 0, MIB, 12);
    free(memory);
    ok(farblk_close(dev));
}

/* ------------------------------------------------------------ misfortune */

static void
truncated_file_is_an_error(void **state)
{
    const char *path = support_path("cut");
    uint64_t sector;
    uint8_t *data = malloc(2 * MIB);
    struct farblk *dev = files_open(state, path, "create=1&size=2M");
    files_put(dev, 0, 2 * MIB, 5);
    assert_int_equal(truncate(path, 100000), 0);
    const size_t lengths[] = {512, 65536, MIB};
    for (int i = 0; i < 3; i++) {
        fails_with(FARBLK_IO, support_read(dev, 2048, data, lengths[i]));
        text_has("truncated");
        text_has("2097152");
        fails_with(FARBLK_IO, support_read(dev, 195, data, lengths[i]));
        text_has("100000");
    }
    ok(support_read(dev, 0, data, 195 * 512));
    assert_int_equal(pattern_check(data, 195 * 512, 5), 195 * 512);
    /* Nothing there is told to be zero. */
    ok(farblk_seek_unmapped(dev, 200, &sector));
    assert_int_equal(sector, 4096);
    ok(farblk_seek_mapped(dev, 300, &sector));
    assert_int_equal(sector, 300);
    struct farblk_extent extent;
    assert_int_equal(ok(farblk_extents(dev, 300, 1000, &extent, 1)), 1);
    assert_int_equal(extent.mapped, 1);
    free(data);
    ok(farblk_close(dev));
}

static int
full_again(const char *engine, const char *path)
{
    char file[300];
    struct farblk *dev;
    enum { LENGTH = 3 * MIB };
    uint8_t *data = malloc(LENGTH);
    if (unshare(CLONE_NEWNS) != 0
        || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0
        || mount("tmpfs", path, "tmpfs", 0, "size=1m") != 0)
        return 77;
    snprintf(file, sizeof file, "%s/disk", path);
    pattern_fill(data, LENGTH, 3);
    int status =
        farblk_open(files_uri(engine, file, "create=1&size=64M"), NULL, &dev);
    if (status != 0)
        return status == FARBLK_UNIMPLEMENTED ? 77 : 1;
    if (support_write(dev, 0, data, LENGTH, 0) != FARBLK_NO_SPACE
        || farblk_last_effect() != FARBLK_EFFECT_UNKNOWN
        || strstr(farblk_last_text(), "disk") == NULL)
        return 1;
    /* Nothing at all is left to be written to. */
    if (support_write(dev, 65536, data, 4096, 0) != FARBLK_NO_SPACE
        || farblk_last_effect() != FARBLK_EFFECT_NONE)
        return 1;
    if (support_read(dev, 0, data, LENGTH) != 0 || farblk_flush(dev) != 0
        || farblk_discard(dev, 0, 131072, 0) != 0
        || support_write(dev, 65536, data, 4096, 0) != 0)
        return 1;
    free(data);
    return farblk_close(dev) == 0 ? 0 : 1;
}

static void
full_file_system_is_no_space(void **state)
{
    const char *path = support_path("full");
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(files_again("full", state, path), 0);
}

static int
limited_again(const char *engine, const char *path)
{
    struct farblk *dev;
    struct rlimit limit = {MIB, MIB};
    static uint8_t data[4096] = {1};
    char other[300];
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
        return 77;
    /* A signal would end this process here. */
    int status = farblk_open(files_uri(engine, path, ""), NULL, &dev);
    if (status != 0)
        return status == FARBLK_UNIMPLEMENTED ? 77 : 1;
    if (support_write(dev, 0, data, 4096, 0) != 0
        || support_write(dev, 4096, data, 4096, 0) != FARBLK_NO_SPACE
        || farblk_last_effect() != FARBLK_EFFECT_NONE
        || farblk_resize(dev, 8192) != FARBLK_NO_SPACE
        || farblk_close(dev) != 0)
        return 1;
    snprintf(other, sizeof other, "%s.new", path);
    return farblk_open(files_uri(engine, other, "create=1&size=2M"), NULL, &dev)
                   == FARBLK_NO_SPACE
               ? 0
               : 1;
}

static void
file_size_limit_is_no_space(void **state)
{
    const char *path = support_path("limit");
    support_make_file(path, 3 * MIB);
    assert_int_equal(files_again("limited", state, path), 0);
}

#define TESTS                                                                  \
    FILES_TEST(holes_are_told), FILES_TEST(sectors_partly_data_are_mapped),    \
        FILES_TEST(discard_keeps_size_and_neighbours),                         \
        FILES_TEST(zeroing_reads_as_zero), FILES_TEST(resize_goes_both_ways),  \
        FILES_TEST(thousands_of_buffers_are_one_request),                      \
        FILES_TEST(direct_takes_any_memory),                                   \
        FILES_TEST(threads_do_not_disturb_each_other),                         \
        FILES_TEST(submitting_thread_may_end_before_its_requests),             \
        FILES_TEST(requests_past_their_time_end),                              \
        FILES_TEST(truncated_file_is_an_error),                                \
        FILES_TEST(full_file_system_is_no_space),                              \
        FILES_TEST(file_size_limit_is_no_space)

int
main(int argc, char **argv)
{
    int failed = 0;
    if (argc == 4) {
        if (strcmp(argv[1], "full") == 0)
            return full_again(argv[2], argv[3]);
        if (strcmp(argv[1], "limited") == 0)
            return limited_again(argv[2], argv[3]);
        return 1;
    }
    FILES_RUN("file, data", TESTS, failed);
    return failed == 0 ? 0 : 1;
}
