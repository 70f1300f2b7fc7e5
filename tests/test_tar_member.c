/* SPDX-License-Identifier: ISC */
/*
 * tar-member: devices out of archives made by hand, plain and sparse, whose
 * runs begin and end anywhere; compared octet by octet and sector by sector
 * with what they should be, locally and through a farblkd, over archives on
 * devices with sectors of each size; and what happens when the archive's device
 * fails.
 */
#include "tests/daemon.h"
#include "tests/tar_build.h"

#include <stdio.h>

#define SIZE (256u << 10) /* octets of a member */
#define RUNS 200u
#define DEPTH 16u

/* What a member has to be. */
struct wanted {
    uint8_t data[SIZE];
    bool stored[SIZE]; /* octet by octet */
};

static struct wanted plain, sparse;
static struct daemon archives, members;
static char path[200]; /* of the archive */

/* ------------------------------------------------------------ archives */

/* Stored runs of any length at any place, as a map of pax 1.0, and the data. */
static void
build_sparse(struct rng *rng)
{
    static char map[RUNS * 32];
    static uint8_t data[SIZE + sizeof map + 512];
    uint64_t at = 0;
    size_t used, stored = 0, count = 0;
    char size[64];
    memset(&sparse, 0, sizeof sparse);
    used = 0;
    char lines[sizeof map];
    while (count < RUNS - 1) {
        uint64_t hole = rng_below(rng, 3) == 0 ? 512 * (1 + rng_below(rng, 20))
                                               : 1 + rng_below(rng, 1500);
        uint64_t length = rng_below(rng, 3) == 0
                              ? 512 * (1 + rng_below(rng, 20))
                              : 1 + rng_below(rng, 2000);
        if (at + hole + length >= SIZE)
            break;
        at += hole;
        pattern_fill(sparse.data + at, length, rng_next(rng));
        memset(sparse.stored + at, true, length);
        used += (size_t)snprintf(lines + used, sizeof lines - used,
                                 "%llu\n%llu\n", (unsigned long long)at,
                                 (unsigned long long)length);
        at += length;
        count++;
    }
    /* A map tells an end of no octets where a hole is last. */
    used +=
        (size_t)snprintf(lines + used, sizeof lines - used, "%u\n0\n", SIZE);
    count++;
    size_t head = (size_t)snprintf(map, sizeof map, "%zu\n%s", count, lines);
    assert_true(head < sizeof map);
    memset(data, 0, sizeof data);
    memcpy(data, map, head);
    stored = (head + 511) / 512 * 512;
    for (size_t i = 0; i < SIZE; i++)
        if (sparse.stored[i])
            data[stored++] = sparse.data[i];
    snprintf(size, sizeof size, "GNU.sparse.realsize=%u", SIZE);
    build_pax('x', "GNU.sparse.major=1", "GNU.sparse.minor=0",
              "GNU.sparse.name=images/sparse", size, NULL);
    build_header("GNUSparseFile.0/sparse", '0', stored);
    build_data(data, stored);
}

/* An archive of both, at 512 octets' odds to larger sectors; as a file. */
static void
make_archive(uint64_t seed)
{
    struct rng rng = {seed};
    FILE *file;
    pattern_fill(plain.data, SIZE, seed);
    memset(plain.stored, true, SIZE);
    build_begin();
    for (uint64_t i = rng_below(&rng, 9); i > 0; i--)
        build_file("shift", "");
    build_header("images/plain", '0', SIZE);
    build_data(plain.data, SIZE);
    build_sparse(&rng);
    build_header("images/", '5', 0);
    build_patch_text(build_header("images/link", '1', 0), 157, "images/sparse");
    build_patch_text(build_header("symlink", '2', 0), 157, "images/plain");
    build_header("hole", '0', 0);
    build_file("odd", "not a sector");
    build_end();
    const char *fresh = support_path("archive");
    assert_true(strlen(fresh) < sizeof path);
    strcpy(path, fresh);
    support_make_file(path, (build.size + 65535) / 65536 * 65536 + 65536);
    file = fopen(path, "r+");
    assert_non_null(file);
    assert_int_equal(fwrite(build.data, 1, build.size, file), build.size);
    assert_int_equal(fclose(file), 0);
}

static void
encode(char *to, size_t size, const char *from)
{
    size_t n = 0;
    for (; *from != '\0'; from++) {
        assert_true(n + 4 < size);
        if (strchr("?&%,#", *from) != NULL)
            n += (size_t)snprintf(to + n, size - n, "%%%02X", *from);
        else
            to[n++] = *from;
    }
    to[n] = '\0';
}

/* The URI of a member; static, of the last four calls. */
static const char *
member_uri(const char *device, const char *key, const char *more)
{
    static char texts[4][1024];
    static unsigned next;
    char *text = texts[next++ % 4], encoded[600];
    encode(encoded, sizeof encoded, device);
    snprintf(text, sizeof texts[0], "tar-member:?device=%s&member=%s%s",
             encoded, key, more);
    return text;
}

/* ------------------------------------------------------------ comparing */

static bool
sector_stored(const struct wanted *wanted, uint64_t sector, uint32_t size)
{
    for (uint64_t i = sector * size; i < (sector + 1) * size; i++)
        if (wanted->stored[i])
            return true;
    return false;
}

static void
compare_reads(struct farblk *dev, const struct wanted *wanted, uint32_t sector,
              struct rng *rng)
{
    static uint8_t buffer[SIZE];
    const uint32_t count = SIZE / sector;
    ok(support_read(dev, 0, buffer, SIZE));
    assert_memory_equal(buffer, wanted->data, SIZE);
    for (unsigned turn = 0; turn < 60; turn++) {
        struct iovec iov[24];
        uint64_t start = rng_below(rng, count), left = count - start;
        size_t used = 0, n = 0;
        memset(buffer, 0xa5, sizeof buffer);
        while (n < 24 && left > 0) {
            uint64_t take = rng_below(rng, left < 8 ? left + 1 : 8);
            if (rng_below(rng, 6) == 0)
                take = rng_below(rng, left + 1);
            iov[n++] = (struct iovec){buffer + used, (size_t)take * sector};
            used += (size_t)take * sector;
            left -= take;
        }
        ok(farblk_read(dev, start, iov, n));
        assert_memory_equal(buffer, wanted->data + start * sector, used);
        for (size_t i = used; i < SIZE; i++)
            if (buffer[i] != 0xa5)
                fail_msg("octet %zu behind the buffers was written", i);
    }
}

static void
compare_maps(struct farblk *dev, const struct wanted *wanted, uint32_t sector,
             struct rng *rng)
{
    const uint64_t count = SIZE / sector;
    struct farblk_extent extents[7];
    uint64_t found;
    for (unsigned turn = 0; turn < 60; turn++) {
        uint64_t start = turn == 0 ? 0 : rng_below(rng, count + 1), at = start;
        while (at < count && !sector_stored(wanted, at, sector))
            at++;
        ok(farblk_seek_mapped(dev, start, &found));
        assert_int_equal(found, at);
        for (at = start; at < count && sector_stored(wanted, at, sector);)
            at++;
        ok(farblk_seek_unmapped(dev, start, &found));
        assert_int_equal(found, at);
    }
    fails_with(FARBLK_INVALID, farblk_seek_mapped(dev, count + 1, &found));
    for (uint64_t at = 0; at < count;) {
        int n = ok(farblk_extents(dev, at, count - at, extents, 7));
        assert_in_range(n, 1, 7);
        for (int i = 0; i < n; i++) {
            assert_int_equal(extents[i].start, at);
            assert_true(extents[i].count > 0);
            for (uint64_t j = 0; j < extents[i].count; j++, at++)
                assert_int_equal(sector_stored(wanted, at, sector),
                                 extents[i].mapped);
        }
    }
}

/* Many at once, from one thread. */
static void
compare_queue(struct farblk *dev, const struct wanted *wanted, uint32_t sector,
              struct rng *rng)
{
    static uint8_t buffers[DEPTH][SIZE / 4];
    const uint64_t limit = SIZE / 4 / sector;
    struct farblk_completion done[DEPTH];
    struct farblk_queue *queue;
    struct iovec iov[DEPTH];
    uint64_t start[DEPTH];
    ok(farblk_queue_create(DEPTH, &queue));
    for (unsigned i = 0; i < DEPTH; i++) {
        uint64_t length = (1 + rng_below(rng, limit)) * sector;
        start[i] = rng_below(rng, (SIZE - length) / sector + 1);
        iov[i] = (struct iovec){buffers[i], (size_t)length};
        struct farblk_request request = {
            .size = sizeof request,
            .op = FARBLK_OP_READ,
            .dev = dev,
            .sector = start[i],
            .iov = &iov[i],
            .iovcnt = 1,
            .user = &start[i],
        };
        ok(farblk_submit(queue, &request));
    }
    for (unsigned left = DEPTH; left > 0;) {
        int n = ok(farblk_collect(queue, done, sizeof done[0], DEPTH,
                                  SUPPORT_PATIENCE_MS));
        assert_in_range(n, 1, left);
        for (int i = 0; i < n; i++) {
            ptrdiff_t user = (uint64_t *)done[i].user - start;
            assert_int_equal(done[i].status, 0);
            assert_memory_equal(buffers[user],
                                wanted->data + start[user] * sector,
                                iov[user].iov_len);
        }
        left -= (unsigned)n;
    }
    farblk_queue_destroy(queue);
}

static void
compare(const char *uri, const struct wanted *wanted, uint32_t sector,
        uint64_t seed)
{
    struct rng rng = {seed};
    struct farblk *dev;
    support_watch(uri);
    ok(farblk_open(uri, NULL, &dev));
    struct farblk_info info = support_info(dev);
    assert_int_equal(info.sector_size, sector);
    assert_int_equal(info.size_sectors, SIZE / sector);
    assert_false(info.read_write);
    assert_true((info.features & FARBLK_CAN_SEEK) != 0);
    compare_reads(dev, wanted, sector, &rng);
    compare_maps(dev, wanted, sector, &rng);
    compare_queue(dev, wanted, sector, &rng);
    ok(farblk_flush(dev));
    ok(farblk_close(dev));
}

/* ------------------------------------------------------------ the tests */

static void
a_member_is_a_device_with_sectors_of_any_size(void **state)
{
    static const uint32_t sizes[] = {512, 2048, 4096, 65536};
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        make_archive(seed);
        for (unsigned i = 0; i < 16; i++) {
            uint32_t child = sizes[i / 4], own = sizes[i % 4];
            char device[300], more[32];
            snprintf(device, sizeof device, "file:%s?sector=%u", path, child);
            snprintf(more, sizeof more, "&sector=%u", own);
            compare(member_uri(device, "images/plain", own == 512 ? "" : more),
                    &plain, own, seed);
            compare(member_uri(device, "/images/sparse", more), &sparse, own,
                    seed);
        }
    }
}

static void
start(struct daemon *daemon, const char *listen, const char *export)
{
    const char *args[] = {"--listen", listen, "--export", export, NULL};
    daemon_start(daemon, args);
    assert_int_equal(daemon->urls, 1);
}

static void
a_member_is_served_and_may_lie_behind_a_server(void **state)
{
    char device[300], export[1200], uri[600], listen[300];
    (void)state;
    make_archive(3);
    snprintf(export, sizeof export, "tar=file:%s?sector=4096", path);
    start(&archives, "tcp://127.0.0.1:0", export);
    snprintf(device, sizeof device, "farblk://%.200s/tar",
             archives.url[0] + strlen("tcp://"));
    /* Behind a server. */
    compare(member_uri(device, "images/plain", ""), &plain, 512, 4);
    compare(member_uri(device, "images/link", "&sector=4096"), &sparse, 4096,
            5);
    /* Before and behind one. */
    snprintf(export, sizeof export, "disk=%s",
             member_uri(device, "images/sparse", ""));
    const char *socket = support_path("s");
    snprintf(listen, sizeof listen, "ipc://%s", socket);
    start(&members, listen, export);
    snprintf(uri, sizeof uri, "farblk+unix:///disk?socket=%s", socket);
    compare(uri, &sparse, 512, 6);
    daemon_stop(&members);
    daemon_stop(&archives);
}

static void
what_is_no_disk_is_refused_with_a_reason(void **state)
{
    char device[300];
    struct farblk *dev;
    struct farblk_info info;
    (void)state;
    make_archive(7);
    snprintf(device, sizeof device, "file:%s", path);
    fails_with(FARBLK_NOT_FOUND,
               farblk_open(member_uri(device, "nothing", ""), NULL, &dev));
    text_has("nothing");
    fails_with(FARBLK_NOT_A_DIRECTORY,
               farblk_open(member_uri(device, "odd/x", ""), NULL, &dev));
    fails_with(FARBLK_NOT_A_VALUE,
               farblk_open(member_uri(device, "images", ""), NULL, &dev));
    fails_with(FARBLK_NOT_A_VALUE,
               farblk_open(member_uri(device, "symlink", ""), NULL, &dev));
    fails_with(FARBLK_INVALID,
               farblk_open(member_uri(device, "odd", ""), NULL, &dev));
    text_has("12 octets, which is not a whole number of sectors of 512");
    fails_with(
        FARBLK_INVALID,
        farblk_open(member_uri(device, "hole", "&sector=1000"), NULL, &dev));
    fails_with(
        FARBLK_INVALID,
        farblk_open(member_uri(device, "hole", "&sector=128k"), NULL, &dev));
    fails_with(FARBLK_INVALID, farblk_open("tar-member:", NULL, &dev));
    text_has("tar-member:?device=URI&member=KEY");
    fails_with(
        FARBLK_INVALID,
        farblk_open("tar-member:x?device=ramdisk:a&member=b", NULL, &dev));
    fails_with(FARBLK_INVALID,
               farblk_open("tar-member:?device=ramdisk:a", NULL, &dev));
    fails_with(
        FARBLK_NOT_FOUND,
        farblk_open(member_uri("file:/nowhere/at-all", "x", ""), NULL, &dev));
    text_has("device: ");
    /* A device that is no archive. */
    const char *name = support_name("noise");
    static uint8_t noise[4096];
    char ram[300];
    ok(farblk_ramdisk_create(name, 64, 512));
    snprintf(ram, sizeof ram, "ramdisk:%s", name);
    ok(farblk_open(ram, NULL, &dev));
    pattern_fill(noise, sizeof noise, 1);
    ok(support_write(dev, 0, noise, sizeof noise, 0));
    ok(farblk_close(dev));
    fails_with(FARBLK_CORRUPT,
               farblk_open(member_uri(ram, "x", ""), NULL, &dev));
    ok(farblk_ramdisk_destroy(name));
    /* Nothing at all is a device of nothing. */
    ok(farblk_open(member_uri(device, "hole", ""), NULL, &dev));
    info = support_info(dev);
    assert_int_equal(info.size_sectors, 0);
    ok(farblk_read(dev, 0, NULL, 0));
    ok(farblk_close(dev));
}

static void
nothing_changes_a_member(void **state)
{
    static uint8_t sector[512];
    char device[300];
    struct farblk *dev, *other;
    (void)state;
    make_archive(8);
    snprintf(device, sizeof device, "file:%s", path);
    ok(farblk_open(member_uri(device, "images/plain", ""), NULL, &dev));
    ok(farblk_open(member_uri(device, "images/plain", ""), NULL, &other));
    assert_true(support_info(dev).identity != support_info(other).identity);
    fails_with(FARBLK_IS_READ_ONLY, support_write(dev, 0, sector, 512, 0));
    fails_with(FARBLK_IS_READ_ONLY, farblk_discard(dev, 0, 1, 0));
    fails_with(FARBLK_IS_READ_ONLY, farblk_write_zeroes(dev, 0, 1, 0));
    fails_with(FARBLK_IS_READ_ONLY, farblk_resize(dev, 1));
    fails_with(FARBLK_INVALID, support_read(dev, SIZE / 512, sector, 512));
    ok(farblk_disconnect(dev));
    fails_with(FARBLK_DISCONNECTED, support_read(dev, 0, sector, 512));
    ok(support_read(other, 0, sector, 512));
    assert_memory_equal(sector, plain.data, 512);
    ok(farblk_close(dev));
    ok(farblk_close(other));
}

static void
failures_of_the_archives_device_reach_the_reader(void **state)
{
    static uint8_t buffer[65536];
    char device[300], export[400];
    struct farblk *dev, *hasty;
    uint64_t hole;
    (void)state;
    make_archive(9);
    snprintf(export, sizeof export, "tar=file:%s", path);
    start(&archives, "tcp://127.0.0.1:0", export);
    snprintf(device, sizeof device, "farblk://%.200s/tar",
             archives.url[0] + strlen("tcp://"));
    ok(farblk_open(member_uri(device, "images/plain", ""), NULL, &dev));
    ok(farblk_open(member_uri(device, "images/sparse", "&timeout=500"), NULL,
                   &hasty));
    ok(farblk_seek_unmapped(hasty, 0, &hole));
    assert_true(hole < SIZE / 512);
    daemon_pause(&archives);
    /* A hole is read without asking anybody. */
    memset(buffer, 1, 512);
    ok(support_read(hasty, hole, buffer, 512));
    assert_true(pattern_is_zero(buffer, 512));
    fails_with(FARBLK_TIMED_OUT, support_read(hasty, 0, buffer, sizeof buffer));
    daemon_resume(&archives);
    ok(support_read(dev, 0, buffer, sizeof buffer));
    assert_memory_equal(buffer, plain.data, sizeof buffer);
    daemon_kill(&archives);
    fails_with(FARBLK_DISCONNECTED,
               support_read(dev, 0, buffer, sizeof buffer));
    text_has("archive: ");
    ok(farblk_close(dev));
    ok(farblk_close(hasty));
}

static void
an_archive_that_became_shorter_is_an_io_error(void **state)
{
    static uint8_t buffer[512];
    char device[300];
    struct farblk *dev, *child;
    (void)state;
    make_archive(10);
    snprintf(device, sizeof device, "file:%s", path);
    ok(farblk_open(member_uri(device, "images/plain", ""), NULL, &dev));
    ok(farblk_open(device, NULL, &child));
    ok(farblk_resize(child, 16));
    fails_with(FARBLK_IO, support_read(dev, SIZE / 512 - 1, buffer, 512));
    text_has("past the end");
    ok(farblk_close(child));
    ok(farblk_close(dev));
}

static int
teardown(void **state)
{
    (void)state;
    daemon_kill_all();
    support_watch(NULL);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_member_is_a_device_with_sectors_of_any_size,
                                  teardown),
        cmocka_unit_test_teardown(
            a_member_is_served_and_may_lie_behind_a_server, teardown),
        cmocka_unit_test_teardown(what_is_no_disk_is_refused_with_a_reason,
                                  teardown),
        cmocka_unit_test_teardown(nothing_changes_a_member, teardown),
        cmocka_unit_test_teardown(
            failures_of_the_archives_device_reach_the_reader, teardown),
        cmocka_unit_test_teardown(an_archive_that_became_shorter_is_an_io_error,
                                  teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
