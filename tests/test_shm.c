/* SPDX-License-Identifier: ISC */
/*
 * Shared memory between a client and a server that are both in this process:
 * when it is used and when not, what the program's buffers go through, and that
 * everything comes back.  What operations mean is the conformance suite's.
 */
#include "tests/server_fixture.h"

#include "core/block.h"
#include "server/shm.h"

#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define SECTOR 512u
#define PAGE 4096u

static struct fixture fixture;

static const char *
shm_uri(const char *more)
{
    static char uri[400];

    snprintf(uri, sizeof uri, "farblk+unix:///disk?abstract=%s%s",
             fixture.url + strlen("abstract://"), more);
    return uri;
}

static struct farblk *
shm_open_dev(const char *more)
{
    struct farblk *dev;

    ok(farblk_open(shm_uri(more), NULL, &dev));
    return dev;
}

static struct farblk_server_stats
shm_stats_now(void)
{
    struct farblk_server_stats stats;

    fixture_stats(&fixture, &stats);
    return stats;
}

/* Wait until the server shares nothing any more. */
static void
shm_await_none(void)
{
    fixture_await(&fixture, now,
                  now.shm_sessions == 0 && now.shm_rings == 0
                      && now.shm_octets == 0);
}

static void
shm_moment(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* ------------------------------------------------------------ which way */

static void
info_tells_the_way(void **state)
{
    struct farblk *dev;

    (void)state;
    fixture_start(&fixture, NULL);
    dev = shm_open_dev("");
    assert_string_equal(support_info(dev).transport, "shm");
    assert_non_null(strstr(support_info(dev).way, "shared memory: "));
    assert_int_equal(shm_stats_now().shm_sessions, 1);
    ok(farblk_close(dev));
    dev = shm_open_dev("&shm=off");
    assert_string_equal(support_info(dev).transport, "abstract");
    assert_non_null(strstr(support_info(dev).way, "shm=off"));
    ok(farblk_close(dev));
    shm_await_none();
    fixture_end(&fixture);
}

static void
server_that_shares_nothing_serves_by_the_socket(void **state)
{
    struct farblk_server_options options = {.size = sizeof options,
                                            .no_shm = 1};
    uint8_t sector[SECTOR];
    struct farblk *dev;

    (void)state;
    fixture_start(&fixture, &options);
    dev = shm_open_dev("");
    assert_string_equal(support_info(dev).transport, "abstract");
    assert_non_null(strstr(support_info(dev).way, "--no-shm"));
    ok(support_read(dev, 0, sector, SECTOR));
    ok(farblk_close(dev));
    fails_with(FARBLK_UNIMPLEMENTED,
               farblk_open(shm_uri("&shm=require"), NULL, &dev));
    text_has("shm=require");
    text_has("--no-shm");
    fixture_end(&fixture);
}

static void
session_that_finds_no_room_is_served_by_the_socket(void **state)
{
    struct farblk_server_options options = {
        .size = sizeof options, .shm_arena = 1u << 20, .shm_total = 3u << 20};
    uint8_t sector[SECTOR];
    struct farblk *first, *second;

    (void)state;
    fixture_start(&fixture, &options);
    first = shm_open_dev("&shm=require");
    assert_in_range(shm_stats_now().shm_octets, 1u << 20, 3u << 20);
    second = shm_open_dev("");
    assert_string_equal(support_info(second).transport, "abstract");
    assert_non_null(strstr(support_info(second).way, "NO_SPACE"));
    ok(support_read(second, 0, sector, SECTOR));
    ok(farblk_close(first));
    shm_await_none();
    first = shm_open_dev("&shm=require");
    ok(farblk_close(first));
    ok(farblk_close(second));
    fixture_end(&fixture);
}

static void
shared_memory_counts_against_the_memory_limit(void **state)
{
    uint64_t before;
    struct farblk *dev, *none;

    (void)state;
    fixture_start(&fixture, NULL);
    before = block_in_use();
    dev = shm_open_dev("&shm=require");
    assert_true(block_in_use() >= before + (16u << 20));
    block_set_limit(block_in_use());
    fails_with(FARBLK_UNIMPLEMENTED,
               farblk_open(shm_uri("&shm=require"), NULL, &none));
    ok(farblk_close(dev));
    fixture_end(&fixture);
}

/* ------------------------------------------------------------ data */

static void
buffers_of_either_kind_carry_the_same_data(void **state)
{
    static uint8_t ordinary[16 * PAGE], back[16 * PAGE];
    const size_t length = sizeof ordinary;
    struct farblk *dev;
    uint8_t *shared;

    (void)state;
    fixture_start(&fixture, NULL);
    dev = shm_open_dev("&shm=require");
    shared = farblk_buffer_alloc(dev, length);
    assert_non_null(shared);
    assert_true(pattern_is_zero(shared, length));
    pattern_fill(ordinary, length, 1);
    ok(support_write(dev, 0, ordinary, length, 0));
    ok(support_read(dev, 0, shared, length));
    assert_int_equal(pattern_check(shared, length, 1), length);
    pattern_fill(shared, length, 2);
    ok(support_write(dev, 256, shared, length, 0));
    ok(support_read(dev, 256, back, length));
    assert_int_equal(pattern_check(back, length, 2), length);
    /* Parts of pages, and one that is not at a page. */
    ok(support_write(dev, 512, shared + SECTOR, 3 * SECTOR, 0));
    ok(support_read(dev, 512, back, 3 * SECTOR));
    assert_memory_equal(back, shared + SECTOR, 3 * SECTOR);
    /* It works with another device, too. */
    ok(support_read(fixture.disk, 0, shared, length));
    assert_int_equal(pattern_check(shared, length, 1), length);
    farblk_buffer_free(dev, shared, length);
    ok(farblk_close(dev));
    fixture_end(&fixture);
}

static void
arena_that_is_full_makes_room_elsewhere(void **state)
{
    enum { EACH = 1u << 20, COUNT = 24 };
    struct farblk *dev;
    uint8_t *buffer[COUNT];
    uint8_t sector[SECTOR];

    (void)state;
    fixture_start(&fixture, NULL);
    dev = shm_open_dev("&shm=require");
    for (unsigned i = 0; i < COUNT; i++) { /* of 16 MiB */
        buffer[i] = farblk_buffer_alloc(dev, EACH);
        assert_non_null(buffer[i]);
    }
    /* Those that have no place in it, and data that finds none. */
    for (unsigned i = 0; i < COUNT; i++) {
        pattern_fill(buffer[i], EACH, i);
        ok(support_write(dev, 0, buffer[i], EACH, 0));
        ok(support_write(dev, EACH / SECTOR, "\1", 0, 0));
        memset(buffer[i], 0, EACH);
        ok(support_read(dev, 0, buffer[i], EACH));
        assert_int_equal(pattern_check(buffer[i], EACH, i), EACH);
    }
    pattern_fill(sector, SECTOR, 99);
    ok(support_write(dev, 7, sector, SECTOR, 0));
    memset(sector, 0, SECTOR);
    ok(support_read(dev, 7, sector, SECTOR));
    assert_int_equal(pattern_check(sector, SECTOR, 99), SECTOR);
    for (unsigned i = 0; i < COUNT; i++)
        farblk_buffer_free(dev, buffer[i], EACH);
    ok(farblk_close(dev));
    fixture_end(&fixture);
}

/* ------------------------------------------------------------ queues */

static struct farblk_request
shm_request(struct farblk *dev, uint32_t op, uint64_t sector,
            const struct iovec *iov, int32_t timeout_ms)
{
    return (struct farblk_request){
        .size = sizeof(struct farblk_request),
        .op = op,
        .dev = dev,
        .sector = sector,
        .iov = iov,
        .iovcnt = iov != NULL,
        .timeout_ms = timeout_ms,
    };
}

static struct farblk_completion
shm_collect(struct farblk_queue *queue)
{
    struct farblk_completion done;

    assert_int_equal(
        farblk_collect(queue, &done, sizeof done, 1, SUPPORT_PATIENCE_MS), 1);
    return done;
}

static void
more_queues_than_rings_all_work(void **state)
{
    enum { COUNT = 24 };
    struct farblk_queue *queue[COUNT];
    uint8_t sector[COUNT][SECTOR];
    struct iovec iov[COUNT];
    struct farblk *dev;

    (void)state;
    fixture_start(&fixture, NULL);
    dev = shm_open_dev("&shm=require");
    for (int round = 0; round < 3; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            struct farblk_request read;

            iov[i] = (struct iovec){sector[i], SECTOR};
            ok(farblk_queue_create(4, &queue[i]));
            read = shm_request(dev, FARBLK_OP_READ, i, &iov[i], 0);
            ok(farblk_submit(queue[i], &read));
        }
        assert_in_range(shm_stats_now().shm_rings, 1, 16);
        for (unsigned i = COUNT; i-- > 0;) {
            assert_int_equal(shm_collect(queue[i]).status, 0);
            farblk_queue_destroy(queue[i]);
        }
    }
    ok(farblk_close(dev));
    shm_await_none();
    fixture_end(&fixture);
}

static void
descriptor_of_a_queue_becomes_readable(void **state)
{
    struct farblk_queue *queue;
    uint8_t sector[SECTOR];
    struct iovec iov = {sector, SECTOR};
    struct farblk_request read;
    struct farblk *dev;

    (void)state;
    fixture_start(&fixture, NULL);
    dev = shm_open_dev("&shm=require");
    ok(farblk_queue_create(4, &queue));
    for (int round = 0; round < 200; round++) {
        struct pollfd waits = {.fd = ok(farblk_queue_fd(queue)),
                               .events = POLLIN};

        read = shm_request(dev, FARBLK_OP_READ, (unsigned)round, &iov, 0);
        if (round % 2 == 0)
            ok(farblk_submit(queue, &read));
        ok(farblk_submit(queue, &read));
        do
            assert_int_equal(poll(&waits, 1, SUPPORT_PATIENCE_MS), 1);
        while (farblk_collect(queue, &(struct farblk_completion){0},
                              sizeof(struct farblk_completion), 1, 0)
               == 0);
        if (round % 2 == 0) {
            /* It stays so while there is one more, or becomes so. */
            assert_int_equal(poll(&waits, 1, SUPPORT_PATIENCE_MS), 1);
            assert_int_equal(shm_collect(queue).status, 0);
        }
        assert_int_equal(farblk_queue_pending(queue), 0);
    }
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fixture_end(&fixture);
}

static void
one_queue_waits_at_two_devices(void **state)
{
    struct farblk_queue *queue;
    uint8_t sector[2][SECTOR];
    struct iovec iov[2] = {{sector[0], SECTOR}, {sector[1], SECTOR}};
    struct farblk *dev[2];
    unsigned seen = 0;

    (void)state;
    fixture_start(&fixture, NULL);
    dev[0] = shm_open_dev("&shm=require");
    dev[1] = shm_open_dev("&shm=require");
    ok(farblk_queue_create(4, &queue));
    for (int round = 0; round < 100; round++) {
        for (unsigned i = 0; i < 2; i++) {
            struct farblk_request read =
                shm_request(dev[i], FARBLK_OP_READ, i, &iov[i], 0);
            ok(farblk_submit(queue, &read));
        }
        seen += shm_collect(queue).status == 0;
        seen += shm_collect(queue).status == 0;
    }
    assert_int_equal(seen, 200);
    ok(farblk_close(dev[0]));
    ok(farblk_close(dev[1]));
    farblk_queue_destroy(queue);
    fixture_end(&fixture);
}

/* ------------------------------------------------------------ giving up */

/* Requests whose time is over, while the server has them still. */
static void
shm_give_up(bool in_arena)
{
    struct farblk_completion done;
    struct farblk_request request;
    struct farblk_queue *queue;
    struct farblk *dev = shm_open_dev("&shm=require");
    uint8_t *buffer = in_arena ? farblk_buffer_alloc(dev, PAGE) : malloc(PAGE);
    struct iovec iov = {buffer, PAGE};

    assert_non_null(buffer);
    ok(farblk_queue_create(4, &queue));
    pattern_fill(buffer, PAGE, 1);
    ok(support_write(dev, 0, buffer, PAGE, 0));
    fixture_plug(&fixture);
    request = shm_request(dev, FARBLK_OP_READ, 0, &iov, 30);
    ok(farblk_submit(queue, &request));
    done = shm_collect(queue);
    assert_int_equal(done.status, FARBLK_TIMED_OUT);
    assert_int_equal(done.effect, FARBLK_EFFECT_NONE);
    /* The buffer is the program's again: nobody else writes to it. */
    pattern_fill(buffer, PAGE, 2);
    fixture_unplug(&fixture);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(pattern_check(buffer, PAGE, 2), PAGE);
        shm_moment();
    }
    ok(support_write(dev, 8, buffer, PAGE, 0));
    memset(buffer, 0, PAGE);
    ok(support_read(dev, 8, buffer, PAGE));
    assert_int_equal(pattern_check(buffer, PAGE, 2), PAGE);
    farblk_queue_destroy(queue);
    if (in_arena)
        farblk_buffer_free(dev, buffer, PAGE);
    else
        free(buffer);
    ok(farblk_close(dev));
}

static void
nobody_writes_to_buffers_of_requests_that_timed_out(void **state)
{
    (void)state;
    fixture_start(&fixture, NULL);
    shm_give_up(false);
    shm_give_up(true);
    shm_await_none();
    fixture_end(&fixture);
}

static void
disconnecting_drains_what_lies_in_a_ring(void **state)
{
    struct farblk_queue *queue;
    uint8_t sector[SECTOR] = {1};
    struct iovec iov = {sector, SECTOR};
    struct farblk *dev;

    (void)state;
    fixture_start(&fixture, NULL);
    dev = shm_open_dev("&shm=require");
    ok(farblk_queue_create(8, &queue));
    for (unsigned i = 0; i < 8; i++) {
        struct farblk_request write =
            shm_request(dev, FARBLK_OP_WRITE, i, &iov, 0);
        ok(farblk_submit(queue, &write));
    }
    ok(farblk_disconnect(dev));
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(shm_collect(queue).status, 0);
    ok(support_read(fixture.disk, 7, sector, SECTOR));
    assert_int_equal(sector[0], 1);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fixture_end(&fixture);
}

/* The server takes the memory away, and the session goes on. */
static void
requests_go_by_the_socket_when_the_server_ends_the_rings(void **state)
{
    struct farblk_queue *queue;
    uint8_t sector[32][SECTOR];
    struct iovec iov[32];
    struct farblk *dev;

    (void)state;
    fixture_start(&fixture, NULL);
    dev = shm_open_dev("&shm=require");
    ok(farblk_queue_create(32, &queue));
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 32; i++) {
            struct farblk_request write;

            pattern_fill(sector[i], SECTOR, 100 * round + i);
            iov[i] = (struct iovec){sector[i], SECTOR};
            write = shm_request(dev, FARBLK_OP_WRITE, i, &iov[i], 0);
            ok(farblk_submit(queue, &write));
            if (round == 1 && i == 16) {
                struct shm *shm = fixture.server->shm;
                pthread_mutex_lock(&shm->mutex);
                struct share *share = share_get(shm->shares);
                pthread_mutex_unlock(&shm->mutex);
                share_detach(share);
                share_put(share);
            }
        }
        for (unsigned i = 0; i < 32; i++)
            assert_int_equal(shm_collect(queue).status, 0);
    }
    for (unsigned i = 0; i < 32; i++) {
        ok(support_read(fixture.disk, i, sector[0], SECTOR));
        assert_int_equal(pattern_check(sector[0], SECTOR, 200 + i), SECTOR);
    }
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    shm_await_none();
    fixture_end(&fixture);
}

/* ------------------------------------------------------------ coming back */

static void
memory_and_descriptors_come_back(void **state)
{
    size_t before = 0;
    uint64_t blocks = 0;
    uint8_t sector[SECTOR];

    (void)state;
    fixture_start(&fixture, NULL);
    for (int round = 0; round < 12; round++) {
        struct farblk *dev = shm_open_dev("&shm=require");
        uint8_t *buffer = farblk_buffer_alloc(dev, 4 * PAGE);

        ok(support_read(dev, 0, buffer, 4 * PAGE));
        ok(support_read(dev, 0, sector, SECTOR));
        farblk_buffer_free(dev, buffer, 4 * PAGE);
        ok(farblk_close(dev));
        shm_await_none();
        fixture_await(&fixture, now, now.connections == 0 && now.sessions == 0);
        /* The first rounds start threads, and leave a ring in a queue of the
         * library's until that is used again. */
        if (round <= 3) {
            size_t now = support_descriptors();
            before = now > before ? now : before;
            blocks = block_in_use() > blocks ? block_in_use() : blocks;
        }
        /* nng closes in its own time. */
        while (round > 3
               && (support_descriptors() > before || block_in_use() > blocks))
            shm_moment();
    }
    fixture_end(&fixture);
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, fixture_watch, fixture_clean)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(info_tells_the_way),
        TEST(server_that_shares_nothing_serves_by_the_socket),
        TEST(session_that_finds_no_room_is_served_by_the_socket),
        TEST(buffers_of_either_kind_carry_the_same_data),
        TEST(arena_that_is_full_makes_room_elsewhere),
        TEST(more_queues_than_rings_all_work),
        TEST(descriptor_of_a_queue_becomes_readable),
        TEST(one_queue_waits_at_two_devices),
        TEST(nobody_writes_to_buffers_of_requests_that_timed_out),
        TEST(disconnecting_drains_what_lies_in_a_ring),
        TEST(requests_go_by_the_socket_when_the_server_ends_the_rings),
        TEST(memory_and_descriptors_come_back),
        TEST(shared_memory_counts_against_the_memory_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
