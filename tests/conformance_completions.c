/* SPDX-License-Identifier: ISC */
/*
 * Conformance: queues.  Depth, collecting, waiting, ending.
 */
#include "tests/conformance.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>

#define SECTORS 2048u
#define SECTOR 512u
#define DEPTH 4

static struct farblk_request
completions_watch(struct farblk *dev, uint64_t generation, uintptr_t user)
{
    return (struct farblk_request){.size = sizeof(struct farblk_request),
                                   .op = FARBLK_OP_WATCH,
                                   .dev = dev,
                                   .count = generation,
                                   .user = (void *)user};
}

static struct farblk_request
completions_read(struct farblk *dev, uint64_t sector, const struct iovec *iov,
                 uintptr_t user)
{
    return (struct farblk_request){.size = sizeof(struct farblk_request),
                                   .op = FARBLK_OP_READ,
                                   .dev = dev,
                                   .sector = sector,
                                   .iov = iov,
                                   .iovcnt = 1,
                                   .user = (void *)user};
}

static bool
completions_readable(struct farblk_queue *queue, int timeout_ms)
{
    struct pollfd wait = {.fd = farblk_queue_fd(queue), .events = POLLIN};
    int ready = poll(&wait, 1, timeout_ms);

    assert_true(wait.fd >= 0 && ready >= 0);
    return ready == 1 && (wait.revents & POLLIN) != 0;
}

static void
queue_depth_is_checked(void **way)
{
    struct farblk_queue *queue = NULL;

    (void)way;
    fails_with(FARBLK_INVALID, farblk_queue_create(0, &queue));
    fails_with(FARBLK_INVALID,
               farblk_queue_create(FARBLK_QUEUE_DEPTH_MAX + 1, &queue));
    text_has("4096");
    fails_with(FARBLK_INVALID, farblk_queue_create(1, NULL));
    ok(farblk_queue_create(FARBLK_QUEUE_DEPTH_MAX, &queue));
    assert_int_equal(farblk_queue_pending(queue), 0);
    farblk_queue_destroy(queue);
    farblk_queue_destroy(NULL);
}

/* Watches stay in flight until the device changes: so the queue is full for as
 * long as the test likes. */
static void
full_queue_is_busy_and_nothing_happens(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint64_t generation = support_info(dev).generation;
    struct farblk_completion done[DEPTH];
    struct farblk_queue *queue;
    uint8_t buffer[SECTOR];
    struct iovec iov = {buffer, sizeof buffer};
    struct farblk_request write = completions_read(dev, 0, &iov, 99);
    int count = 0;

    if (conformance_is_fixed(rig, dev))
        return;
    memset(buffer, 1, sizeof buffer);
    write.op = FARBLK_OP_WRITE;
    ok(farblk_queue_create(DEPTH, &queue));
    for (uintptr_t i = 0; i < DEPTH; i++) {
        struct farblk_request watch = completions_watch(dev, generation, i);

        ok(farblk_submit(queue, &watch));
        assert_int_equal(farblk_queue_pending(queue), i + 1);
    }
    fails_with(FARBLK_BUSY, farblk_submit(queue, &write));
    assert_int_equal(farblk_queue_pending(queue), DEPTH);
    conformance_expect_zero(dev, 0, 1, SECTOR);
    ok(farblk_resize(dev, SECTORS + 1));
    /* They end, and the queue stays full until they are collected. */
    assert_true(completions_readable(queue, SUPPORT_PATIENCE_MS));
    fails_with(FARBLK_BUSY, farblk_submit(queue, &write));
    while (count < DEPTH)
        count +=
            ok(farblk_collect(queue, done + count, sizeof *done,
                              (size_t)(DEPTH - count), SUPPORT_PATIENCE_MS));
    assert_int_equal(farblk_queue_pending(queue), 0);
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

static void
collect_waits_as_long_as_it_is_told(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint64_t generation = support_info(dev).generation;
    struct farblk_request watch = completions_watch(dev, generation, 1);
    struct farblk_completion done;
    struct farblk_queue *queue;

    if (conformance_is_fixed(rig, dev))
        return;
    ok(farblk_queue_create(DEPTH, &queue));
    /* Nothing in flight: at once, whatever the timeout says. */
    assert_int_equal(farblk_collect(queue, &done, sizeof done, 1, -1), 0);
    assert_int_equal(
        farblk_collect(queue, &done, sizeof done, 1, SUPPORT_PATIENCE_MS), 0);
    ok(farblk_submit(queue, &watch));
    assert_int_equal(farblk_collect(queue, &done, sizeof done, 1, 0), 0);
    assert_int_equal(farblk_collect(queue, &done, sizeof done, 1, 20), 0);
    assert_int_equal(farblk_queue_pending(queue), 1);
    ok(farblk_resize(dev, SECTORS + 1));
    assert_int_equal(farblk_collect(queue, &done, sizeof done, 1, -1), 1);
    assert_ptr_equal(done.user, (void *)1);
    fails_with(FARBLK_INVALID, farblk_collect(NULL, &done, sizeof done, 1, 0));
    fails_with(FARBLK_INVALID, farblk_collect(queue, NULL, sizeof done, 1, 0));
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

static void
descriptor_is_readable_while_completions_wait(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_completion done[DEPTH];
    struct farblk_queue *queue;
    uint8_t buffers[DEPTH][SECTOR];
    struct iovec iov[DEPTH];

    ok(farblk_queue_create(DEPTH, &queue));
    assert_false(completions_readable(queue, 0));
    for (unsigned round = 0; round < 20; round++) {
        for (uintptr_t i = 0; i < DEPTH; i++) {
            struct farblk_request read = completions_read(dev, i, &iov[i], i);

            iov[i] = (struct iovec){buffers[i], SECTOR};
            ok(farblk_submit(queue, &read));
        }
        for (int left = DEPTH; left > 0;) {
            assert_true(completions_readable(queue, SUPPORT_PATIENCE_MS));
            /* One at a time: it stays readable while others wait. */
            left -= ok(farblk_collect(queue, done, sizeof *done,
                                      round % 2 ? 1 : DEPTH, 0));
        }
        assert_false(completions_readable(queue, 0));
    }
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

static void
completions_come_once_each_with_their_own_user(void **way)
{
    enum { COUNT = 500, DEEP = 32 };
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_completion done[DEEP];
    struct farblk_queue *queue;
    static uint8_t buffers[COUNT][SECTOR];
    static struct iovec iov[COUNT];
    static bool seen[COUNT];
    unsigned submitted = 0, collected = 0;

    for (unsigned i = 0; i < COUNT; i++)
        conformance_put_pattern(dev, i, 1, SECTOR, i);
    memset(seen, 0, sizeof seen);
    ok(farblk_queue_create(DEEP, &queue));
    while (collected < COUNT) {
        int n;

        while (submitted < COUNT && submitted - collected < DEEP) {
            struct farblk_request read =
                completions_read(dev, submitted, &iov[submitted], submitted);

            read.flags = submitted % 4 != 0 ? FARBLK_MORE : 0;
            iov[submitted] = (struct iovec){buffers[submitted], SECTOR};
            ok(farblk_submit(queue, &read));
            submitted++;
        }
        assert_int_equal(farblk_queue_pending(queue), submitted - collected);
        n = ok(
            farblk_collect(queue, done, sizeof *done, 7, SUPPORT_PATIENCE_MS));
        assert_in_range(n, 1, 7);
        for (int i = 0; i < n; i++) {
            uintptr_t user = (uintptr_t)done[i].user;

            assert_int_equal(done[i].status, 0);
            assert_true(user < COUNT && !seen[user]);
            seen[user] = true;
            assert_int_equal(pattern_check(buffers[user], SECTOR, user),
                             SECTOR);
        }
        collected += (unsigned)n;
    }
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

/* A watch that was submitted first and ends last is collected last. */
static void
completions_come_in_the_order_in_which_they_ended(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint64_t generation = support_info(dev).generation;
    struct farblk_request watch = completions_watch(dev, generation, 1);
    struct farblk_request read;
    struct farblk_completion done[DEPTH];
    struct farblk_queue *queue;
    uint8_t buffer[SECTOR];
    struct iovec iov = {buffer, SECTOR};

    if (conformance_is_fixed(rig, dev))
        return;
    ok(farblk_queue_create(DEPTH, &queue));
    ok(farblk_submit(queue, &watch));
    read = completions_read(dev, 0, &iov, 2);
    ok(farblk_submit(queue, &read));
    assert_true(completions_readable(queue, SUPPORT_PATIENCE_MS));
    ok(farblk_resize(dev, SECTORS + 1));
    for (uintptr_t next = 2; next > 0; next--) {
        assert_int_equal(farblk_collect(queue, done, sizeof *done, 1, -1), 1);
        assert_ptr_equal(done[0].user, (void *)next);
    }
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

static void
text_of_a_completion_stays_until_the_next_collect(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_completion done[DEPTH];
    struct farblk_queue *queue;
    uint8_t buffer[DEPTH][SECTOR];
    struct iovec iov[DEPTH];
    char copies[DEPTH][FARBLK_TEXT_MAX];
    int count = 0;

    for (unsigned i = 0; i < DEPTH; i++)
        iov[i] = (struct iovec){buffer[i], SECTOR};
    ok(farblk_queue_create(DEPTH, &queue));
    for (uintptr_t i = 0; i < DEPTH; i++) {
        struct farblk_request read =
            completions_read(dev, SECTORS + 10 + i, &iov[i], i);

        ok(farblk_submit(queue, &read));
    }
    count = ok(farblk_collect(queue, done, sizeof *done, DEPTH, -1));
    for (int i = 0; i < count; i++) {
        assert_int_equal(done[i].status, FARBLK_INVALID);
        snprintf(copies[i], sizeof copies[i], "%s", done[i].text);
        assert_string_not_equal(copies[i], "");
    }
    /* Other calls, on this thread too, do not touch them. */
    ok(support_read(dev, 0, buffer[0], SECTOR));
    fails_with(FARBLK_INVALID, support_read(dev, SECTORS, buffer[0], SECTOR));
    for (uintptr_t i = 0; i < (uintptr_t)count; i++) {
        struct farblk_request read = completions_read(dev, i, &iov[i], 77);

        ok(farblk_submit(queue, &read));
    }
    for (int i = 0; i < count; i++)
        assert_string_equal(done[i].text, copies[i]);
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

static void
destroying_a_queue_waits_for_what_is_in_flight(void **way)
{
    enum { COUNT = 64 };
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_queue *queue;
    uint8_t *out = malloc(COUNT * 16 * SECTOR);
    struct iovec iov[COUNT];

    assert_non_null(out);
    ok(farblk_queue_create(COUNT, &queue));
    for (unsigned i = 0; i < COUNT; i++) {
        struct farblk_request write = completions_read(dev, i * 16, &iov[i], i);

        iov[i] = (struct iovec){out + i * 16 * SECTOR, 16 * SECTOR};
        pattern_fill(iov[i].iov_base, 16 * SECTOR, i);
        write.op = FARBLK_OP_WRITE;
        write.flags = FARBLK_MORE;
        ok(farblk_submit(queue, &write));
    }
    farblk_queue_destroy(queue);
    /* The buffers are ours again. */
    memset(out, 0xee, COUNT * 16 * SECTOR);
    free(out);
    for (unsigned i = 0; i < COUNT; i++)
        conformance_expect_pattern(dev, i * 16, 16, SECTOR, i);
    rig_destroy(rig);
}

/* Completions of an older, smaller structure. */
static void
completions_are_cut_to_the_callers_size(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_queue *queue;
    struct farblk_request flush = {.size = sizeof flush,
                                   .op = FARBLK_OP_FLUSH,
                                   .dev = dev,
                                   .user = &flush};
    struct {
        struct farblk_completion done;
        uint8_t more[64];
    } big[2];

    memset(big, 0x5a, sizeof big);
    ok(farblk_queue_create(2, &queue));
    ok(farblk_submit(queue, &flush));
    ok(farblk_submit(queue, &flush));
    for (int count = 0; count < 2;)
        count += ok(farblk_collect(
            queue, (struct farblk_completion *)(void *)&big[count],
            sizeof big[0], (size_t)(2 - count), SUPPORT_PATIENCE_MS));
    for (int i = 0; i < 2; i++) {
        assert_ptr_equal(big[i].done.user, &flush);
        assert_int_equal(big[i].done.status, 0);
        assert_non_null(big[i].done.text);
    }
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

/* Requests that may wait for others do not wait for ever, whatever comes then:
 * one that fails its checks, one of another device, or a collect. */
static void
what_was_put_off_begins_whatever_follows(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, ""), *other = rig_open(rig, "");
    struct farblk_queue *queue;
    struct farblk_completion done[DEPTH];
    uint8_t buffer[DEPTH][SECTOR];
    struct iovec iov[DEPTH];

    for (unsigned i = 0; i < DEPTH; i++)
        iov[i] = (struct iovec){buffer[i], SECTOR};
    ok(farblk_queue_create(DEPTH, &queue));
    for (unsigned turn = 0; turn < 3 * 20; turn++) {
        struct farblk_request read = completions_read(dev, turn, &iov[0], 0);
        read.flags = FARBLK_MORE;
        ok(farblk_submit(queue, &read));
        unsigned pending = 1;
        if (turn % 3 < 2) {
            read = completions_read(turn % 3 == 0 ? dev : other,
                                    turn % 3 == 0 ? SECTORS : 0, &iov[1], 1);
            ok(farblk_submit(queue, &read));
            pending++;
        }
        while (pending > 0)
            pending -= (unsigned)ok(farblk_collect(queue, done, sizeof *done, 1,
                                                   turn % 2 == 0 ? 0 : -1));
    }
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

/* Who waited in collect first may use the descriptor later. */
static void
a_descriptor_works_after_waiting_without_it(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_queue *queue;
    struct farblk_completion done;
    uint8_t buffer[SECTOR];
    struct iovec iov = {buffer, SECTOR};
    struct farblk_request read = completions_read(dev, 0, &iov, 1);

    ok(farblk_queue_create(2, &queue));
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(conformance_do(queue, &read).status, 0);
    ok(farblk_submit(queue, &read));
    for (unsigned i = 0; i < 20; i++) {
        assert_true(completions_readable(queue, SUPPORT_PATIENCE_MS));
        assert_int_equal(farblk_collect(queue, &done, sizeof done, 1, 0), 1);
        ok(farblk_submit(queue, &read));
    }
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

static void *
completions_resize(void *arg)
{
    struct farblk *dev = arg;

    ok(farblk_resize(dev, support_info(dev).size_sectors + 1));
    return NULL;
}

/* While one device's completions are waited for, another's come. */
static void
one_wait_covers_devices_of_all_kinds(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, ""), *local;
    struct farblk_queue *queue;
    struct farblk_completion done;
    uint8_t buffer[SECTOR];
    struct iovec iov = {buffer, SECTOR};
    struct farblk_request read = completions_read(dev, 0, &iov, 1);
    pthread_t thread;

    const uint64_t needs = FARBLK_CAN_RESIZE | FARBLK_CAN_WATCH;
    if ((support_info(dev).features & needs) != needs) {
        rig_destroy(rig);
        return;
    }
    ok(farblk_open("ramdisk:beside", NULL, &local));
    ok(farblk_queue_create(DEPTH, &queue));
    for (unsigned i = 0; i < 30; i++) {
        uint64_t generation = support_info(dev).generation;
        struct farblk_request far = completions_watch(dev, generation, 2);
        struct farblk_request near =
            completions_watch(local, support_info(local).generation, 3);
        ok(farblk_submit(queue, &read));
        assert_int_equal(
            farblk_collect(queue, &done, sizeof done, 1, SUPPORT_PATIENCE_MS),
            1);
        ok(farblk_submit(queue, &far));
        ok(farblk_submit(queue, &near));
        for (unsigned j = 0; j < 2; j++) {
            struct farblk *resized = j == i % 2 ? local : dev;
            assert_int_equal(
                pthread_create(&thread, NULL, completions_resize, resized), 0);
            assert_int_equal(farblk_collect(queue, &done, sizeof done, 1,
                                            SUPPORT_PATIENCE_MS),
                             1);
            assert_ptr_equal(done.user,
                             (void *)(uintptr_t)(resized == dev ? 2 : 3));
            pthread_join(thread, NULL);
        }
    }
    farblk_queue_destroy(queue);
    ok(farblk_close(local));
    rig_destroy(rig);
}

const struct conformance_case conformance_completions[] = {
    CONFORMANCE(queue_depth_is_checked),
    CONFORMANCE(full_queue_is_busy_and_nothing_happens),
    CONFORMANCE(collect_waits_as_long_as_it_is_told),
    CONFORMANCE(descriptor_is_readable_while_completions_wait),
    CONFORMANCE(completions_come_once_each_with_their_own_user),
    CONFORMANCE(completions_come_in_the_order_in_which_they_ended),
    CONFORMANCE(text_of_a_completion_stays_until_the_next_collect),
    CONFORMANCE(destroying_a_queue_waits_for_what_is_in_flight),
    CONFORMANCE(completions_are_cut_to_the_callers_size),
    CONFORMANCE(what_was_put_off_begins_whatever_follows),
    CONFORMANCE(a_descriptor_works_after_waiting_without_it),
    CONFORMANCE(one_wait_covers_devices_of_all_kinds),
    CONFORMANCE_END,
};
