/* SPDX-License-Identifier: ISC */
/*
 * Servers that go away: killed in the middle of writes, stopped and silent.
 * Everything that waits for them ends, with the truth about its effect.
 */
#include "tests/ways.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define SECTOR 512u
#define EACH 128u /* sectors in one write */
#define DEPTH 32u
#define WRITES 4096u

static const struct store *
loss_store(const char *name)
{
    const struct store *store = stores;

    while (strcmp(store->name, name) != 0)
        store++;
    return store;
}

/* Everything says so, at once. */
static void
loss_expect_disconnected(struct farblk *dev)
{
    uint8_t buffer[SECTOR] = {0};
    struct farblk_info info = {0};
    uint64_t value;

    fails_with(FARBLK_DISCONNECTED, support_read(dev, 0, buffer, SECTOR));
    fails_with(FARBLK_DISCONNECTED, support_write(dev, 0, buffer, SECTOR, 0));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
    fails_with(FARBLK_DISCONNECTED, farblk_flush(dev));
    fails_with(FARBLK_DISCONNECTED, farblk_resize(dev, 1));
    fails_with(FARBLK_DISCONNECTED, farblk_seek_mapped(dev, 0, &value));
    fails_with(FARBLK_DISCONNECTED, farblk_watch(dev, 0, -1, &value));
    ok(farblk_get_info(dev, &info, sizeof info));
    assert_int_equal(info.sector_size, SECTOR);
    ok(farblk_disconnect(dev));
}

struct writes {
    struct farblk *dev;
    struct farblk_queue *queue;
    uint8_t *data; /* DEPTH slots */
    struct iovec iov[DEPTH];
    uint32_t slot_write[DEPTH];
    unsigned submitted, collected, lost;
    int8_t outcome[WRITES]; /* 0: not submitted, 1: done, 2: lost without
                               effect, 3: lost and unknown */
};

/* Write number n goes to sectors n * EACH, with the pattern n. */
static void
loss_submit(struct writes *writes, unsigned slot)
{
    unsigned n = writes->submitted++;
    struct farblk_request request = {
        .size = sizeof request,
        .op = FARBLK_OP_WRITE,
        .dev = writes->dev,
        .sector = n * EACH,
        .iov = &writes->iov[slot],
        .iovcnt = 1,
        .user = (void *)(uintptr_t)slot,
    };

    writes->slot_write[slot] = n;
    writes->iov[slot] =
        (struct iovec){writes->data + slot * EACH * SECTOR, EACH * SECTOR};
    pattern_fill(writes->iov[slot].iov_base, EACH * SECTOR, n);
    ok(farblk_submit(writes->queue, &request));
}

static void
loss_collect(struct writes *writes, bool again)
{
    struct farblk_completion done[DEPTH];
    int count = ok(farblk_collect(writes->queue, done, sizeof *done, DEPTH,
                                  SUPPORT_PATIENCE_MS));

    assert_true(count > 0);
    for (int i = 0; i < count; i++) {
        unsigned slot = (unsigned)(uintptr_t)done[i].user;
        unsigned n = writes->slot_write[slot];

        writes->collected++;
        if (done[i].status == 0) {
            writes->outcome[n] = 1;
        } else {
            assert_int_equal(done[i].status, FARBLK_DISCONNECTED);
            assert_string_not_equal(done[i].text, "");
            assert_int_not_equal(done[i].effect, FARBLK_EFFECT_DONE);
            writes->outcome[n] = done[i].effect == FARBLK_EFFECT_NONE ? 2 : 3;
            writes->lost++;
        }
        /* The buffer is ours again, error or not. */
        memset(writes->iov[slot].iov_base, 0xee, EACH * SECTOR);
        if (again && writes->submitted < WRITES)
            loss_submit(writes, slot);
    }
}

/* What completed is in the file, what had no effect is not. */
static void
loss_check_file(const struct writes *writes, const char *path)
{
    uint8_t *sectors = malloc(EACH * SECTOR);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0 && sectors != NULL);
    for (unsigned n = 0; n < writes->submitted; n++) {
        size_t same;

        assert_int_equal(
            pread(fd, sectors, EACH * SECTOR, (off_t)n * EACH * SECTOR),
            EACH * SECTOR);
        same = pattern_check(sectors, EACH * SECTOR, n);
        if (writes->outcome[n] == 1 && same != EACH * SECTOR)
            fail_msg("write %u completed and is not in the file", n);
        if (writes->outcome[n] == 2 && !pattern_is_zero(sectors, EACH * SECTOR))
            fail_msg("write %u had no effect and is in the file", n);
    }
    close(fd);
    free(sectors);
}

static void
loss_kill_while_writing(enum transport transport, unsigned after)
{
    struct way way = {loss_store("file-pool"), transport};
    struct rig *rig = rig_create(way, WRITES * EACH, SECTOR, NULL);
    struct writes *writes = calloc(1, sizeof *writes);

    assert_non_null(writes);
    writes->dev = rig_open(rig, "");
    writes->data = malloc(DEPTH * EACH * SECTOR);
    assert_non_null(writes->data);
    ok(farblk_queue_create(DEPTH, &writes->queue));
    for (unsigned slot = 0; slot < DEPTH; slot++)
        loss_submit(writes, slot);
    while (writes->collected < after)
        loss_collect(writes, true);
    kill(rig->daemon.pid, SIGKILL);
    while (writes->lost == 0)
        loss_collect(writes, true);
    while (writes->collected < writes->submitted)
        loss_collect(writes, false);
    daemon_wait(&rig->daemon);
    loss_expect_disconnected(writes->dev);
    loss_check_file(writes, rig->path);
    farblk_queue_destroy(writes->queue);
    free(writes->data);
    free(writes);
    rig_destroy(rig);
}

static void
server_killed_in_the_middle_of_writes_over_ipc(void **state)
{
    (void)state;
    loss_kill_while_writing(IPC, 0);
    loss_kill_while_writing(IPC, 200);
}

static void
server_killed_in_the_middle_of_writes_in_shared_memory(void **state)
{
    (void)state;
    loss_kill_while_writing(SHM, 0);
    loss_kill_while_writing(SHM, 200);
}

static void
server_killed_in_the_middle_of_writes_over_tcp(void **state)
{
    (void)state;
    loss_kill_while_writing(TCP, 0);
    loss_kill_while_writing(TCP, 200);
}

struct waiting {
    struct farblk *dev;
    uint64_t generation, now;
    int status;
    pthread_t thread;
};

static void *
loss_wait(void *arg)
{
    struct waiting *waiting = arg;

    waiting->status =
        farblk_watch(waiting->dev, waiting->generation, -1, &waiting->now);
    return NULL;
}

static void
waiting_calls_end_when_the_server_is_killed(void **state)
{
    enum { COUNT = 4 };
    struct way way = {loss_store("ramdisk"), IPC};
    struct rig *rig = rig_create(way, 64, SECTOR, NULL);
    struct waiting waiting[COUNT];

    (void)state;
    for (unsigned i = 0; i < COUNT; i++) {
        waiting[i].dev = rig_open(rig, "");
        waiting[i].generation = support_info(waiting[i].dev).generation;
        assert_int_equal(
            pthread_create(&waiting[i].thread, NULL, loss_wait, &waiting[i]),
            0);
    }
    daemon_kill(&rig->daemon);
    for (unsigned i = 0; i < COUNT; i++) {
        pthread_join(waiting[i].thread, NULL);
        assert_int_equal(waiting[i].status, FARBLK_DISCONNECTED);
        loss_expect_disconnected(waiting[i].dev);
    }
    rig_destroy(rig);
}

/* No packet comes any more, and no end of the connection either: its lease
 * tells. */
static void
loss_stop(enum transport transport)
{
    static const char *const args[] = {"--lease", "2000", NULL};
    struct way way = {loss_store("ramdisk"), transport};
    struct rig *rig = rig_create(way, 64, SECTOR, args);
    struct farblk *dev = rig_open(rig, ""), *idle = rig_open(rig, "");
    uint8_t buffer[SECTOR];
    uint64_t now, generation = support_info(idle).generation;

    ok(support_read(dev, 0, buffer, SECTOR));
    daemon_pause(&rig->daemon);
    pattern_fill(buffer, sizeof buffer, 1);
    fails_with(FARBLK_DISCONNECTED, support_write(dev, 0, buffer, SECTOR, 0));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_UNKNOWN);
    loss_expect_disconnected(dev);
    fails_with(FARBLK_DISCONNECTED, farblk_watch(idle, generation, -1, &now));
    rig_close(rig, idle);
    rig_close(rig, dev);
    daemon_resume(&rig->daemon);
    daemon_kill(&rig->daemon);
    rig_destroy(rig);
}

static void
server_that_falls_silent_is_noticed_by_its_lease(void **state)
{
    (void)state;
    loss_stop(IPC);
    loss_stop(SHM);
    loss_stop(TCP);
}

static void
closing_a_device_of_a_silent_server_ends(void **state)
{
    static const char *const args[] = {"--lease", "2000", NULL};
    struct way way = {loss_store("ramdisk"), SHM};
    struct rig *rig = rig_create(way, 64, SECTOR, args);
    struct farblk *dev = rig_open(rig, "");

    (void)state;
    daemon_pause(&rig->daemon);
    rig_close(rig, dev);
    daemon_resume(&rig->daemon);
    daemon_kill(&rig->daemon);
    rig_destroy(rig);
}

/* A handle that does nothing keeps its session, many leases long. */
static void
idle_handle_keeps_its_lease(void **state)
{
    static const char *const args[] = {"--lease", "3000", NULL};
    struct way way = {loss_store("ramdisk"), TCP};
    struct rig *rig = rig_create(way, 64, SECTOR, args);
    struct farblk *dev = rig_open(rig, "");
    uint64_t now, generation = support_info(dev).generation;
    uint8_t buffer[SECTOR];

    (void)state;
    fails_with(FARBLK_TIMED_OUT, farblk_watch(dev, generation, 4500, &now));
    ok(support_read(dev, 0, buffer, SECTOR));
    assert_int_equal(daemon_count_log(&rig->daemon, "lease has passed"), 0);
    rig_destroy(rig);
}

static struct farblk_completion
loss_timed(struct farblk_queue *queue, struct farblk *dev, enum farblk_op op,
           const struct iovec *iov)
{
    struct farblk_completion done = {0};
    struct farblk_request request = {
        .size = sizeof request,
        .op = op,
        .dev = dev,
        .iov = iov,
        .iovcnt = iov != NULL,
        .timeout_ms = 100,
    };

    ok(farblk_submit(queue, &request));
    assert_int_equal(
        farblk_collect(queue, &done, sizeof done, 1, SUPPORT_PATIENCE_MS), 1);
    return done;
}

static void
loss_timeouts(enum transport transport)
{
    struct way way = {loss_store("ramdisk"), transport};
    struct rig *rig = rig_create(way, 64, SECTOR, NULL);
    struct farblk *dev = rig_open(rig, ""),
                  *hasty = rig_open(rig, "timeout=99");
    struct farblk_completion done;
    struct farblk_queue *queue;
    uint8_t buffer[SECTOR] = {1};
    struct iovec iov = {buffer, sizeof buffer};

    ok(farblk_queue_create(4, &queue));
    daemon_pause(&rig->daemon);
    fails_with(FARBLK_TIMED_OUT, support_read(hasty, 0, buffer, SECTOR));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
    done = loss_timed(queue, dev, FARBLK_OP_READ, &iov);
    assert_int_equal(done.status, FARBLK_TIMED_OUT);
    assert_int_equal(done.effect, FARBLK_EFFECT_NONE);
    done = loss_timed(queue, dev, FARBLK_OP_FLUSH, NULL);
    assert_int_equal(done.status, FARBLK_TIMED_OUT);
    done = loss_timed(queue, dev, FARBLK_OP_WRITE, &iov);
    assert_int_equal(done.status, FARBLK_TIMED_OUT);
    assert_int_equal(done.effect, FARBLK_EFFECT_UNKNOWN);
    daemon_resume(&rig->daemon);
    /* The handle lives: only these requests have lost their patience. */
    ok(support_write(dev, 0, buffer, SECTOR, 0));
    ok(support_read(dev, 0, buffer, SECTOR));
    ok(farblk_flush(dev));
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

static void
request_with_a_timeout_ends_before_the_lease(void **state)
{
    (void)state;
    loss_timeouts(IPC);
    loss_timeouts(SHM);
}

static int
loss_setup(void **state)
{
    (void)state;
    support_watch("server_loss");
    return 0;
}

static int
loss_teardown(void **state)
{
    (void)state;
    support_watch(NULL);
    rig_destroy_all();
    daemon_kill_all();
    return 0;
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, loss_setup, loss_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(server_killed_in_the_middle_of_writes_over_ipc),
        TEST(server_killed_in_the_middle_of_writes_in_shared_memory),
        TEST(server_killed_in_the_middle_of_writes_over_tcp),
        TEST(waiting_calls_end_when_the_server_is_killed),
        TEST(server_that_falls_silent_is_noticed_by_its_lease),
        TEST(closing_a_device_of_a_silent_server_ends),
        TEST(idle_handle_keeps_its_lease),
        TEST(request_with_a_timeout_ends_before_the_lease),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
