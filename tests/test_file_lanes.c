/* SPDX-License-Identifier: ISC */
/*
 * The lanes of the file driver's pool: buffered writes go one at a time, and hold
 * up nothing else.
 */
#include "core/device.h"
#include "tests/faults.h"
#include "tests/support.h"

#include <stdio.h>

#define OCTETS (1u << 20)

static uint8_t buffer[64 << 10];

static int
lanes_begin(void **state)
{
    (void)state;
    support_watch("test_file_lanes");
    return 0;
}

static int
lanes_end(void **state)
{
    (void)state;
    faults_release(FAULT_WRITE);
    support_watch(NULL);
    return 0;
}

/* A handle of a device of 1 MiB, made where it is not there. */
static struct farblk *
open_pool(const char *path)
{
    struct farblk *dev = NULL;
    char uri[512];
    snprintf(uri, sizeof uri, "file:%s?create=1&size=%u&engine=pool", path,
             OCTETS);
    ok(farblk_open(uri, NULL, &dev));
    return dev;
}

/* They would only wait for each other in the kernel. */
static void
buffered_writes_go_one_at_a_time_and_all_else_passes_them(void **state)
{
    enum { WRITES = 4, PIECE = 64 << 10 };
    (void)state;
    struct farblk *dev = open_pool(support_path("lane"));
    struct farblk_queue *queue;
    struct farblk_completion done;
    struct iovec iov = {buffer, PIECE};
    struct farblk_request request = {.size = sizeof request,
                                     .op = FARBLK_OP_WRITE,
                                     .dev = dev,
                                     .count = PIECE / 512,
                                     .iov = &iov,
                                     .iovcnt = 1,
                                     .timeout_ms = -1};
    static uint8_t back[PIECE];
    pattern_fill(buffer, PIECE, 5);
    ok(farblk_queue_create(WRITES, &queue));
    faults_hold(FAULT_WRITE);
    for (unsigned i = 0; i < WRITES; i++) {
        request.sector = i * request.count;
        ok(farblk_submit(queue, &request));
    }
    faults_await(FAULT_WRITE, 1);
    ok(support_read(dev, WRITES * request.count, back, PIECE));
    ok(farblk_flush(dev));
    ok(farblk_discard(dev, WRITES * request.count, 8, 0));
    faults_release(FAULT_WRITE);
    for (unsigned i = 0; i < WRITES; i++) {
        assert_int_equal(
            farblk_collect(queue, &done, sizeof done, 1, SUPPORT_PATIENCE_MS),
            1);
        ok(done.status);
    }
    assert_int_equal(faults_most_held(FAULT_WRITE), 1);
    for (unsigned i = 0; i < WRITES; i++) {
        ok(support_read(dev, i * request.count, back, PIECE));
        assert_int_equal(pattern_check(back, PIECE, 5), PIECE);
    }
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
}

static void
buffered_write_that_waits_its_turn_is_not_begun_when_it_is_revoked(void **state)
{
    enum { PIECE = 64 << 10 };
    (void)state;
    const char *path = support_path("revoked");
    struct farblk *dev = open_pool(path);
    struct farblk *other = open_pool(path);
    struct farblk_queue *queue;
    struct farblk_completion done[2];
    struct iovec iov = {buffer, PIECE};
    struct farblk_request request = {.size = sizeof request,
                                     .op = FARBLK_OP_WRITE,
                                     .dev = dev,
                                     .count = PIECE / 512,
                                     .iov = &iov,
                                     .iovcnt = 1,
                                     .user = &done[0],
                                     .timeout_ms = -1};
    static uint8_t back[PIECE];
    pattern_fill(buffer, PIECE, 5);
    ok(farblk_queue_create(2, &queue));
    faults_hold(FAULT_WRITE);
    ok(farblk_submit(queue, &request));
    faults_await(FAULT_WRITE, 1);
    request.dev = other;
    request.sector = request.count;
    request.user = &done[1];
    ok(farblk_submit(queue, &request));
    handle_revoke(other);
    faults_release(FAULT_WRITE);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(farblk_collect(queue, &done[i], sizeof done[i], 1,
                                        SUPPORT_PATIENCE_MS),
                         1);
    const bool swapped = done[0].user != &done[0];
    ok(done[swapped].status);
    assert_int_equal(done[!swapped].status, FARBLK_DISCONNECTED);
    assert_int_equal(done[!swapped].effect, FARBLK_EFFECT_NONE);
    ok(support_read(dev, 0, back, PIECE));
    assert_int_equal(pattern_check(back, PIECE, 5), PIECE);
    ok(support_read(dev, request.count, back, PIECE));
    assert_int_not_equal(pattern_check(back, PIECE, 5), PIECE);
    farblk_queue_destroy(queue);
    ok(farblk_close(other));
    ok(farblk_close(dev));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, lanes_begin, lanes_end)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(buffered_writes_go_one_at_a_time_and_all_else_passes_them),
        TEST(
            buffered_write_that_waits_its_turn_is_not_begun_when_it_is_revoked),
    };
    return cmocka_run_group_tests_name("file, lanes", tests, NULL, NULL) != 0;
}
