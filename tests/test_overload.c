/* SPDX-License-Identifier: ISC */
/*
 * Too much of everything: clients that flood, that do not read, that ask for
 * more than there is memory; devices that stand still.  Each holds up itself:
 * what the server has in hand stays within what docs/limits.md tells, and a
 * client that asks one thing after the other gets on.  How fast is counted in
 * requests, never in time.
 */
#include "tests/server_fixture.h"

#include "core/block.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PIECE 65536u

static struct fixture fixture;
static struct peer polite;
static uint8_t data[PIECE], back[PIECE];

/* ------------------------------------------------------------ a file that hangs */

/* The driver's calls, of a file that is told: they wait until it is let go. */
static pthread_mutex_t hang_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t hang_changed = PTHREAD_COND_INITIALIZER;
static ino_t hang_file; /* 0: none */
static unsigned hanging;

static void
hang(int fd)
{
    struct stat found;
    if (fstat(fd, &found) != 0)
        return;
    pthread_mutex_lock(&hang_mutex);
    hanging++;
    pthread_cond_broadcast(&hang_changed);
    while (found.st_ino == hang_file)
        pthread_cond_wait(&hang_changed, &hang_mutex);
    hanging--;
    pthread_mutex_unlock(&hang_mutex);
}

static void
hang_set(ino_t file)
{
    pthread_mutex_lock(&hang_mutex);
    hang_file = file;
    pthread_cond_broadcast(&hang_changed);
    pthread_mutex_unlock(&hang_mutex);
}

static void
hang_await(unsigned count)
{
    pthread_mutex_lock(&hang_mutex);
    while (hanging < count)
        pthread_cond_wait(&hang_changed, &hang_mutex);
    pthread_mutex_unlock(&hang_mutex);
}

ssize_t
preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    if ((flags & RWF_NOWAIT) != 0) {
        errno = EAGAIN;
        return -1;
    }
    hang(fd);
    return syscall(SYS_preadv2, fd, iov, (long)count, (long)offset, 0L, flags);
}

ssize_t
pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    hang(fd);
    return syscall(SYS_pwritev2, fd, iov, (long)count, (long)offset, 0L, flags);
}

/* Export a new file of 1 MiB; its inode. */
static ino_t
export_file(const char *name)
{
    const char *path = support_path(name);
    char uri[512];
    struct stat found;
    support_make_file(path, 1 << 20);
    assert_int_equal(stat(path, &found), 0);
    snprintf(uri, sizeof uri, "file:%s?engine=pool", path);
    ok(farblk_server_export(fixture.server, name, uri));
    return found.st_ino;
}

/* ------------------------------------------------------------ asking */

/* Send one read or write of `length` octets, and wait for nothing. */
static uint32_t
ask_for(struct peer *peer, uint32_t method, uint64_t handle, uint64_t sector,
        size_t length)
{
    struct codec_request ask = peer_request(peer, method, handle);
    ask.args.range.sector = sector;
    ask.args.range.count = length / 512;
    return peer_send(peer, &ask, data, method == WIRE_WRITE ? length : 0);
}

/* One thing after the other, `count` times. */
static void
go_on_politely(uint64_t handle, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint8_t sector[512], read[512];
        pattern_fill(sector, sizeof sector, i);
        assert_int_equal(peer_write(&polite, handle, 1000 + i % 8, sector, 512),
                         0);
        assert_int_equal(peer_read(&polite, handle, 1000 + i % 8, read, 512),
                         0);
        assert_memory_equal(sector, read, 512);
    }
}

/* ------------------------------------------------------------ floods */

#define FLOODERS 3u
#define FLOOD_WINDOW 16u
/* Of those that ask alike none is given more than so often what another is. */
#define FLOOD_FACTOR 8u
/* One that asks one thing after the other is given it after at most so many
 * windows of each flood: what the test's own threads take to run, on a machine
 * that has other things to do, is counted in. */
#define FLOOD_WINDOWS 16u
#define POLITE_COUNT 100u

/* One that sends without end what the server does not wait for: more than its
 * window lies in its socket at any time. */
struct flooder {
    struct peer peer;
    pthread_t thread;
    uint64_t handle;
    atomic_ulong done;
    unsigned long count; /* then it ends; 0: when told */
    atomic_bool *stop;
    struct trouble *trouble;
};

static void *
flood(void *arg)
{
    struct flooder *flooder = arg;
    enum { AHEAD = 4 * FLOOD_WINDOW };
    uint32_t ids[AHEAD];
    for (unsigned i = 0; i < AHEAD; i++)
        ids[i] = ask_for(&flooder->peer, WIRE_WRITE, flooder->handle, i, 4096);
    for (unsigned i = 0;; i = (i + 1) % AHEAD) {
        struct codec_reply reply;
        if (peer_wait(&flooder->peer, ids[i], WIRE_WRITE, &reply, NULL, 0) != 0)
            trouble_note(flooder->trouble, "a write of the flood: %s",
                         reply.text);
        if (atomic_fetch_add(&flooder->done, 1) + 1 == flooder->count
            || atomic_load(flooder->stop))
            return NULL;
        flooder->peer.lowest = flooder->peer.number - AHEAD;
        ids[i] = ask_for(&flooder->peer, WIRE_WRITE, flooder->handle, i, 4096);
    }
}

static void
a_flood_leaves_the_others_their_share(void **state)
{
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_requests = FLOOD_WINDOW};
    static struct flooder flooders[FLOODERS + 1];
    static struct trouble trouble;
    struct flooder *like = &flooders[FLOODERS];
    unsigned long begun[FLOODERS], done, most = 0;
    atomic_bool stop = false;
    struct farblk_server_stats before, after;
    (void)state;
    fixture_start(&fixture, &options);
    peer_begin(&polite, fixture.url);
    uint64_t handle = peer_open(&polite, "disk");
    for (unsigned i = 0; i <= FLOODERS; i++) {
        peer_begin(&flooders[i].peer, fixture.url);
        flooders[i].handle = peer_open(&flooders[i].peer, "disk");
        flooders[i].stop = &stop;
        flooders[i].trouble = &trouble;
    }
    for (unsigned i = 0; i < FLOODERS; i++)
        assert_int_equal(
            pthread_create(&flooders[i].thread, NULL, flood, &flooders[i]), 0);
    fixture_await(&fixture, now, now.completed > FLOODERS * FLOOD_WINDOW * 10);
    /* One that comes later, and asks as they do. */
    for (unsigned i = 0; i < FLOODERS; i++)
        begun[i] = atomic_load(&flooders[i].done);
    like->count = 1000;
    flood(like);
    for (unsigned i = 0; i < FLOODERS; i++) {
        done = atomic_load(&flooders[i].done) - begun[i];
        most = done > most ? done : most;
    }
    print_message(
        "another flood was given at most %.1f for each of one's own\n",
        (double)most / (double)like->count);
    assert_true(most <= FLOOD_FACTOR * like->count);
    /* And one that asks one thing after the other. */
    fixture_stats(&fixture, &before);
    go_on_politely(handle, POLITE_COUNT);
    fixture_stats(&fixture, &after);
    uint64_t theirs = after.completed - before.completed;
    print_message("the floods were given %.1f for each of the polite one's\n",
                  (double)theirs / (2 * POLITE_COUNT) - 1);
    assert_true(theirs / (2 * POLITE_COUNT)
                <= FLOODERS * FLOOD_WINDOW * FLOOD_WINDOWS);
    assert_true(after.most_requests <= (FLOODERS + 2) * FLOOD_WINDOW);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < FLOODERS; i++)
        pthread_join(flooders[i].thread, NULL);
    trouble_assert_none(&trouble);
    for (unsigned i = 0; i <= FLOODERS; i++)
        peer_end(&flooders[i].peer);
    peer_end(&polite);
    fixture_end(&fixture);
}

/* ------------------------------------------------------------ what stands still */

static void
thousands_in_flight_to_a_stalled_device_leave_another_one_alone(void **state)
{
    enum { PEERS = 64, EACH = 64 };
    static struct peer peers[PEERS];
    static uint32_t ids[PEERS][2 * EACH];
    uint64_t handles[PEERS];
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_requests = EACH};
    struct farblk_server_stats stats;
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, &options);
    ok(farblk_server_export(fixture.server, "free", "ramdisk:overload-free"));
    peer_begin(&polite, fixture.url);
    uint64_t handle = peer_open(&polite, "free");
    for (unsigned i = 0; i < PEERS; i++) {
        peer_begin(&peers[i], fixture.url);
        handles[i] = peer_open(&peers[i], "disk");
    }
    fixture_plug(&fixture);
    for (unsigned i = 0; i < PEERS; i++)
        for (unsigned k = 0; k < 2 * EACH; k++)
            ids[i][k] = ask_for(&peers[i], k % 2 == 0 ? WIRE_WRITE : WIRE_READ,
                                handles[i], k, 512);
    fixture_await(&fixture, now, now.requests == (uint64_t)PEERS * EACH);
    go_on_politely(handle, 100);
    fixture_stats(&fixture, &stats);
    assert_int_equal(stats.requests, PEERS * EACH);
    assert_int_equal(stats.octets, PEERS * EACH * 512);
    fixture_unplug(&fixture);
    for (unsigned i = 0; i < PEERS; i++)
        for (unsigned k = 0; k < 2 * EACH; k++)
            assert_int_equal(peer_wait(&peers[i], ids[i][k],
                                       k % 2 == 0 ? WIRE_WRITE : WIRE_READ,
                                       &reply, back, k % 2 == 0 ? 0 : 512),
                             0);
    fixture_await(&fixture, now, now.requests == 0 && now.octets == 0);
    for (unsigned i = 0; i < PEERS; i++)
        peer_end(&peers[i]);
    peer_end(&polite);
    fixture_end(&fixture);
    ok(farblk_ramdisk_destroy("overload-free"));
}

static void
a_file_that_hangs_holds_up_no_other_one(void **state)
{
    enum { COUNT = 200 };
    static uint32_t ids[COUNT];
    struct farblk_server_options options = {.size = sizeof options,
                                            .hello_timeout_ms = 2000};
    struct peer stuck, silent, third;
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, &options);
    ino_t file = export_file("hangs");
    export_file("works");
    peer_begin(&stuck, fixture.url);
    uint64_t hangs = peer_open(&stuck, "hangs");
    hang_set(file);
    /* More than it has threads, reads and writes. */
    for (unsigned i = 0; i < COUNT; i++)
        ids[i] = ask_for(&stuck, i % 2 == 0 ? WIRE_WRITE : WIRE_READ, hangs,
                         8 * i, 4096);
    hang_await(8);
    fixture_await(&fixture, now, now.requests == COUNT);
    peer_connect(&silent, fixture.url);
    peer_begin(&polite, fixture.url);
    uint64_t works = peer_open(&polite, "works");
    go_on_politely(works, 100);
    struct codec_request flush = peer_request(&polite, WIRE_FLUSH, works);
    assert_int_equal(peer_ask(&polite, &flush, &reply), 0);
    /* Handles of it can be opened and given up. */
    for (unsigned i = 0; i < 3; i++) {
        peer_begin(&third, fixture.url);
        struct codec_request close =
            peer_request(&third, WIRE_DISCONNECT, peer_open(&third, "hangs"));
        assert_int_equal(peer_ask(&third, &close, &reply), 0);
        peer_end(&third);
    }
    fixture_await(&fixture, now, now.handles == 2);
    /* And the housekeeper, who closes them, looks after the others. */
    peer_wait_closed(&silent);
    peer_end(&silent);
    hang_set(0);
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(peer_wait(&stuck, ids[i],
                                   i % 2 == 0 ? WIRE_WRITE : WIRE_READ, &reply,
                                   back, i % 2 == 0 ? 0 : 4096),
                         0);
    peer_end(&stuck);
    peer_end(&polite);
    fixture_end(&fixture);
}

/* ------------------------------------------------------------ memory */

static void
replies_that_nobody_reads_take_what_was_told_and_no_more(void **state)
{
    enum { PEERS = 8, COUNT = 200, OCTETS = 1 << 20, REQUESTS = 64 };
    static struct peer peers[PEERS];
    static uint32_t ids[PEERS][COUNT];
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_requests = REQUESTS,
                                            .max_octets = OCTETS,
                                            .max_payload = PIECE};
    struct farblk_server_stats before, now;
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, &options);
    export_file("file"); /* whose data is in the server's own memory */
    peer_begin(&polite, fixture.url);
    uint64_t handle = peer_open(&polite, "disk");
    go_on_politely(handle, 1);
    fixture_stats(&fixture, &before);
    for (unsigned i = 0; i < PEERS; i++) {
        peer_begin(&peers[i], fixture.url);
        uint64_t file = peer_open(&peers[i], "file");
        link_hold(peers[i].link);
        for (unsigned k = 0; k < COUNT; k++)
            ids[i][k] = ask_for(&peers[i], WIRE_READ, file, 0, PIECE);
    }
    /* All of them have come to where no more is taken from them. */
    fixture_await(&fixture, full, full.requests >= PEERS * OCTETS / PIECE);
    go_on_politely(handle, 100);
    fixture_stats(&fixture, &now);
    print_message("at most %llu octets in hand, %llu of memory, of %llu asked "
                  "for\n",
                  (unsigned long long)now.most_octets,
                  (unsigned long long)(now.memory - before.memory),
                  (unsigned long long)PEERS * COUNT * PIECE);
    assert_true(now.most_octets <= PEERS * (OCTETS + PIECE));
    /* A block's place may be twice its data; and calls. */
    assert_true(now.memory - before.memory
                <= PEERS * (2u * (OCTETS + PIECE) + (REQUESTS + 64) * 8192u));
    for (unsigned i = 0; i < PEERS; i++) {
        link_release(peers[i].link);
        for (unsigned k = 0; k < COUNT; k++)
            assert_int_equal(
                peer_wait(&peers[i], ids[i][k], WIRE_READ, &reply, back, PIECE),
                0);
        peer_end(&peers[i]);
    }
    fixture_await(&fixture, empty, empty.octets == 0);
    peer_end(&polite);
    fixture_end(&fixture);
}

static void
a_flood_beyond_the_memory_is_refused_and_leaves_nothing(void **state)
{
    enum { PEERS = 8, COUNT = 64 };
    static struct peer peers[PEERS];
    static uint32_t ids[PEERS][COUNT];
    struct codec_reply reply;
    unsigned done = 0, refused = 0;
    uint64_t handles[PEERS];
    (void)state;
    fixture_start(&fixture, NULL);
    for (unsigned i = 0; i < PEERS; i++) {
        peer_begin(&peers[i], fixture.url);
        handles[i] = peer_open(&peers[i], "disk");
    }
    for (unsigned round = 0; round < 3; round++) {
        uint64_t before = block_in_use(), limit = before + 20 * PIECE;
        done = refused = 0;
        block_set_limit(limit);
        fixture_plug(&fixture);
        for (unsigned i = 0; i < PEERS; i++)
            for (unsigned k = 0; k < COUNT; k++)
                ids[i][k] = ask_for(&peers[i], WIRE_WRITE, handles[i],
                                    128 * (k % 16), PIECE);
        /* Those that found none are answered, the others wait. */
        fixture_await(&fixture, now,
                      now.requests > 0 && now.requests <= 20
                          && now.completed + now.requests
                                 >= (uint64_t)(round + 1) * PEERS * COUNT);
        /* These find what the ramdisk needs beside their data. */
        block_set_limit(limit + (1 << 20));
        fixture_unplug(&fixture);
        for (unsigned i = 0; i < PEERS; i++)
            for (unsigned k = 0; k < COUNT; k++) {
                int status = peer_wait(&peers[i], ids[i][k], WIRE_WRITE, &reply,
                                       NULL, 0);
                done += status == 0;
                refused += status == FARBLK_NO_SPACE;
                assert_int_equal(reply.effect, 0);
            }
        assert_int_equal(done + refused, PEERS * COUNT);
        assert_true(done > 0 && refused > 0);
        /* With memory again, all goes well. */
        block_set_limit(UINT64_MAX);
        ok(farblk_discard(fixture.disk, 0, FIXTURE_SECTORS, 0));
        fixture_await(&fixture, now, now.octets == 0);
        assert_int_equal(peer_write(&peers[0], handles[0], 0, data, PIECE), 0);
        ok(farblk_discard(fixture.disk, 0, FIXTURE_SECTORS, 0));
    }
    for (unsigned i = 0; i < PEERS; i++)
        peer_end(&peers[i]);
    fixture_end(&fixture);
}

static int
clean(void **state)
{
    hang_set(0);
    return fixture_clean(state);
}

#define OVERLOAD_TEST(name)                                                    \
    cmocka_unit_test_setup_teardown(name, fixture_watch, clean)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        OVERLOAD_TEST(a_flood_leaves_the_others_their_share),
        OVERLOAD_TEST(
            thousands_in_flight_to_a_stalled_device_leave_another_one_alone),
        OVERLOAD_TEST(a_file_that_hangs_holds_up_no_other_one),
        OVERLOAD_TEST(replies_that_nobody_reads_take_what_was_told_and_no_more),
        OVERLOAD_TEST(a_flood_beyond_the_memory_is_refused_and_leaves_nothing),
    };
    return cmocka_run_group_tests_name("overload", tests, NULL, NULL);
}
