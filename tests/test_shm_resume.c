/* SPDX-License-Identifier: ISC */
/*
 * Shared memory that is lost with its connection, or that the server ends, and
 * how it comes back.  What is in rings at a cut is executed exactly once:
 * test_resume_cut.c; with another instance of the server: test_restart.c.
 */
#include "tests/cable.h"
#include "tests/held.h"
#include "tests/server_fixture.h"

#include "client/rings.h"
#include "core/queue.h"
#include "server/export.h"
#include "server/shm.h"
#include "server/shm_ring.h"

#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#define PAGE 4096u

static struct fixture fixture;
static struct cable cable;

static void
again_start(const struct farblk_server_options *more)
{
    struct farblk_server_options options = {.size = sizeof options};
    char url[200];

    if (more != NULL)
        options = *more;
    options.lease_ms = 60000; /* whatever happens to this process */
    fixture_start(&fixture, &options);
    memset(&cable, 0, sizeof cable);
    cable_start(&cable, fixture.url);
    /* Descriptors do not go through a cable: the side socket is next to it. */
    snprintf(url, sizeof url, "abstract://%s", cable.name);
    shm_listen(fixture.server, url);
}

static void
again_end(void)
{
    fixture_await(&fixture, now,
                  now.shm_sessions == 0 && now.shm_rings == 0
                      && now.shm_octets == 0);
    cable_stop(&cable);
    fixture_end(&fixture);
}

static struct farblk *
again_open(void)
{
    struct farblk *dev;

    ok(farblk_open(cable_uri(&cable, "disk", "shm=require&reconnect=600"), NULL,
                   &dev));
    return dev;
}

static void
again_moment(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static bool
again_shares(struct farblk *dev)
{
    struct farblk_info info = support_info(dev);
    bool shares = strcmp(info.transport, "shm") == 0;

    assert_true(shares == (strstr(info.way, "shared memory: ") == info.way));
    if (!shares)
        assert_string_equal(info.transport, "abstract");
    return shares;
}

/* The client looks each sixth of the lease whether it is time to ask anew; here
 * more often. */
static void
again_await(struct farblk *dev)
{
    struct client *client = dev->device->state;

    while (!again_shares(dev)) {
        timer_hasten(&client->timer);
        again_moment();
    }
}

/* How much has gone by rings of the regions that there are now. */
static uint64_t
again_by_rings(void)
{
    struct shm *shm = fixture.server->shm;
    uint64_t sum = 0;

    pthread_mutex_lock(&shm->mutex);
    for (const struct share *s = shm->shares; s != NULL; s = s->next)
        for (unsigned i = 0; i < RING_COUNT_MAX; i++)
            if (s->rings[i] != NULL)
                sum += atomic_load(&s->rings[i]->completed);
    pthread_mutex_unlock(&shm->mutex);
    return sum;
}

/* The device works, by a ring. */
static void
again_use(struct farblk *dev, uint64_t seed)
{
    uint8_t out[PAGE], back[PAGE];
    uint64_t before = again_by_rings();

    pattern_fill(out, PAGE, seed);
    ok(support_write(dev, 8 * seed, out, PAGE, 0));
    ok(support_read(dev, 8 * seed, back, PAGE));
    assert_memory_equal(out, back, PAGE);
    assert_int_equal(again_by_rings(), before + 2);
}

/* How many regions the client has mapped. */
static unsigned
again_regions(struct farblk *dev)
{
    struct client *client = dev->device->state;
    unsigned count = 0;

    pthread_mutex_lock(&client->mutex);
    for (const struct rings *r = client->regions; r != NULL; r = r->next)
        count++;
    pthread_mutex_unlock(&client->mutex);
    return count;
}

static struct farblk_completion
again_collect(struct farblk_queue *queue)
{
    struct farblk_completion done;

    assert_int_equal(
        farblk_collect(queue, &done, sizeof done, 1, SUPPORT_PATIENCE_MS), 1);
    return done;
}

static void
again_submit(struct farblk_queue *queue, struct farblk *dev, uint32_t op,
             uint64_t sector, const struct iovec *iov, int32_t timeout_ms)
{
    const struct farblk_request request = {
        .size = sizeof request,
        .op = op,
        .dev = dev,
        .sector = sector,
        .iov = iov,
        .iovcnt = 1,
        .timeout_ms = timeout_ms,
    };

    ok(farblk_submit(queue, &request));
}

/* Wait until so many requests of the disk wait at the plug. */
static void
again_await_plugged(unsigned count)
{
    struct gate *gate = &fixture.disk->device->gate;
    unsigned found;

    do {
        again_moment();
        found = 0;
        pthread_mutex_lock(&gate->mutex);
        for (struct gate_waiter *w = gate->head; w != NULL; w = w->next)
            found++;
        pthread_mutex_unlock(&gate->mutex);
    } while (found < count);
}

/* ------------------------------------------------------------ broken */

static void
memory_is_shared_again_after_a_cut(void **state)
{
    struct farblk *dev;
    size_t before = 0;

    (void)state;
    again_start(NULL);
    dev = again_open();
    again_use(dev, 0);
    for (unsigned round = 1; round <= 12; round++) {
        cable_cut(&cable);
        ok(farblk_flush(dev)); /* whichever way */
        again_await(dev);
        again_use(dev, round);
        /* Nothing is left of those before. */
        fixture_await(&fixture, now,
                      now.shm_sessions == 1 && now.shm_rings == 1
                          && now.connections == 1);
        assert_int_equal(again_regions(dev), 1);
        if (round <= 3)
            before = support_descriptors();
        while (support_descriptors() > before)
            again_moment(); /* nng closes in its own time */
    }
    ok(farblk_close(dev));
    again_end();
}

static void
buffers_of_the_old_arena_stay_memory(void **state)
{
    enum { LENGTH = 4 * PAGE };
    static uint8_t back[LENGTH];
    struct farblk *dev;
    uint8_t *old, *young;

    (void)state;
    again_start(NULL);
    dev = again_open();
    old = farblk_buffer_alloc(dev, LENGTH);
    pattern_fill(old, LENGTH, 1);
    cable_cut(&cable);
    ok(farblk_flush(dev));
    again_await(dev);
    assert_int_equal(pattern_check(old, LENGTH, 1), LENGTH);
    ok(support_write(dev, 0, old, LENGTH, 0));
    memset(old, 0, LENGTH);
    ok(support_read(dev, 0, old, LENGTH));
    assert_int_equal(pattern_check(old, LENGTH, 1), LENGTH);
    young = farblk_buffer_alloc(dev, LENGTH);
    pattern_fill(young, LENGTH, 2);
    ok(support_write(dev, 64, young, LENGTH, 0));
    ok(support_read(dev, 64, back, LENGTH));
    assert_int_equal(pattern_check(back, LENGTH, 2), LENGTH);
    assert_int_equal(again_regions(dev), 2);
    farblk_buffer_free(dev, old, LENGTH);
    assert_int_equal(again_regions(dev), 1);
    farblk_buffer_free(dev, young, LENGTH);
    ok(farblk_close(dev));
    again_end();
}

/* The server has it when the connection breaks; the answer comes by the socket,
 * into the program's memory, and the old region's is not looked at. */
static void
request_in_a_ring_is_answered_over_the_new_connection(void **state)
{
    struct farblk_queue *queue;
    struct farblk *dev;
    uint8_t *data, now[PAGE];

    (void)state;
    again_start(NULL);
    dev = again_open();
    data = farblk_buffer_alloc(dev, 2 * PAGE);
    const struct iovec iov[2] = {{data, PAGE}, {data + PAGE, PAGE}};
    ok(farblk_queue_create(4, &queue));
    pattern_fill(now, PAGE, 7);
    ok(support_write(dev, 64, now, PAGE, 0));
    fixture_plug(&fixture);
    pattern_fill(data, PAGE, 8);
    again_submit(queue, dev, FARBLK_OP_WRITE, 0, &iov[0], 0);
    again_submit(queue, dev, FARBLK_OP_READ, 64, &iov[1], 0);
    again_await_plugged(2);
    cable_cut(&cable);
    /* Nobody is busy while there is nothing to be done. */
    struct rusage used[2];
    assert_int_equal(getrusage(RUSAGE_THREAD, &used[0]), 0);
    struct farblk_completion done;
    assert_int_equal(farblk_collect(queue, &done, sizeof done, 1, 600), 0);
    assert_int_equal(getrusage(RUSAGE_THREAD, &used[1]), 0);
    int64_t busy_us = 0;
    for (int i = 0; i < 2; i++)
        busy_us += (i == 0 ? -1 : 1)
                   * ((used[i].ru_utime.tv_sec + used[i].ru_stime.tv_sec)
                          * INT64_C(1000000)
                      + used[i].ru_utime.tv_usec + used[i].ru_stime.tv_usec);
    assert_in_range(busy_us, 0, 300000);
    fixture_unplug(&fixture);
    assert_int_equal(again_collect(queue).status, 0);
    assert_int_equal(again_collect(queue).status, 0);
    assert_int_equal(pattern_check(data + PAGE, PAGE, 7), PAGE);
    ok(support_read(fixture.disk, 0, now, PAGE));
    assert_int_equal(pattern_check(now, PAGE, 8), PAGE);
    again_await(dev);
    again_submit(queue, dev, FARBLK_OP_WRITE, 0, &iov[0], 0);
    assert_int_equal(again_collect(queue).status, 0);
    farblk_buffer_free(dev, data, 2 * PAGE);
    assert_int_equal(again_regions(dev), 1);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    again_end();
}

/* A request of many pieces goes on by the way that there is for each. */
static void
pieces_go_on_by_whichever_way(void **state)
{
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_payload = 2 * PAGE};
    static uint8_t data[256 * PAGE], back[256 * PAGE];
    struct farblk_queue *queue;
    struct farblk *dev;

    (void)state;
    again_start(&options);
    dev = again_open();
    ok(farblk_queue_create(4, &queue));
    for (unsigned round = 0; round < 8; round++) {
        const struct iovec iov = {data, sizeof data};
        pattern_fill(data, sizeof data, round);
        again_submit(queue, dev, FARBLK_OP_WRITE, 0, &iov, 0);
        cable_cut(&cable);
        struct farblk_completion done = again_collect(queue);
        if (done.status != 0)
            fail_msg("%s", done.text);
        ok(support_read(fixture.disk, 0, back, sizeof back));
        assert_memory_equal(data, back, sizeof data);
        if (round % 2 == 0)
            again_await(dev);
    }
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    again_end();
}

/* ------------------------------------------------------------ ended */

static void
again_server_ends_it(void)
{
    struct shm *shm = fixture.server->shm;

    pthread_mutex_lock(&shm->mutex);
    struct share *share = share_get(shm->shares);
    pthread_mutex_unlock(&shm->mutex);
    share_detach(share);
    share_put(share);
}

static void
memory_that_the_server_has_ended_comes_back_later(void **state)
{
    struct farblk_queue *queue;
    struct farblk *dev;
    uint8_t sector[SECTOR];
    const struct iovec iov = {sector, SECTOR};

    (void)state;
    again_start(NULL);
    dev = again_open();
    ok(farblk_queue_create(4, &queue));
    for (unsigned round = 0; round < 3; round++) {
        again_use(dev, 1 + round);
        again_submit(queue, dev, FARBLK_OP_READ, 0, &iov, 0);
        assert_int_equal(again_collect(queue).status, 0);
        again_server_ends_it();
        /* Whoever uses a ring notices. */
        while (again_shares(dev)) {
            again_submit(queue, dev, FARBLK_OP_READ, 0, &iov, 0);
            assert_int_equal(again_collect(queue).status, 0);
        }
        again_await(dev);
    }
    again_use(dev, 9);
    assert_int_equal(again_regions(dev), 1);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    again_end();
}

/* The server has no room while a request of the old region runs. */
static void
room_that_is_found_later_is_used_then(void **state)
{
    struct farblk_server_options options = {
        .size = sizeof options, .shm_arena = 1u << 20, .shm_total = 3u << 20};
    struct farblk_queue *queue;
    struct farblk *dev;
    uint8_t sector[SECTOR];
    const struct iovec iov = {sector, SECTOR};

    (void)state;
    again_start(&options);
    dev = again_open();
    ok(farblk_queue_create(4, &queue));
    ok(farblk_flush(dev));
    fixture_plug(&fixture);
    again_submit(queue, dev, FARBLK_OP_READ, 0, &iov, 0);
    again_await_plugged(1);
    cable_cut(&cable);
    while (strstr(support_info(dev).way, "NO_SPACE") == NULL)
        again_moment();
    fixture_unplug(&fixture);
    assert_int_equal(again_collect(queue).status, 0);
    again_await(dev);
    again_use(dev, 1);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    again_end();
}

/* ------------------------------------------------------------ given up */

static uint64_t
again_pages(struct farblk *dev, bool severed)
{
    struct client *client = dev->device->state;
    struct rings *rings = client->rings;
    uint64_t count = 0;

    pthread_mutex_lock(&rings->mutex);
    for (uint64_t page = 0; page < rings->pages; page++)
        count +=
            ((severed ? rings->severed : rings->used)[page / 64] >> (page % 64))
            & 1;
    pthread_mutex_unlock(&rings->mutex);
    return count;
}

/* What the server has under way ends, its reads with this data. */
static void
again_let_go(uint64_t seed)
{
    uint8_t data[PAGE];

    pattern_fill(data, PAGE, seed);
    pthread_mutex_lock(&held_mutex);
    while (held_count > 0) {
        struct io *io = held_take(0);
        struct iov_view view = io->data;
        if (io->op == FARBLK_OP_READ)
            iov_copy_in(&view, data, PAGE);
        pthread_mutex_unlock(&held_mutex);
        io_done(io, 0);
        pthread_mutex_lock(&held_mutex);
    }
    pthread_mutex_unlock(&held_mutex);
}

static void
again_await_held(unsigned count)
{
    pthread_mutex_lock(&held_mutex);
    while (held_count < count)
        pthread_cond_wait(&held_wake, &held_mutex);
    pthread_mutex_unlock(&held_mutex);
}

/* Requests with buffers of the arena that are given up, for more pages than the
 * arena has, at a server that has them until it is let go. */
static void
pages_of_requests_that_were_given_up_come_back(void **state)
{
    enum { PAGES = 16, LENGTH = PAGES * PAGE };
    struct farblk_server_options options = {.size = sizeof options,
                                            .shm_arena = 1u << 20};
    static struct driver stuck;
    struct farblk_queue *queue;
    struct error error;
    struct farblk *dev;
    uint64_t used = 0;

    (void)state;
    again_start(&options);
    stuck = held_driver;
    stuck.cancel = NULL; /* the server can not give them up */
    struct export *export = export_find(fixture.server, "disk");
    ok(farblk_close(export->dev));
    ok(device_open(&stuck, "fake:", NULL, &export->dev, &error));
    dev = again_open();
    ok(farblk_queue_create(1, &queue));
    for (unsigned round = 0; round < 24; round++) {
        uint8_t *buffer = farblk_buffer_alloc(dev, LENGTH);
        const struct iovec iov = {buffer, LENGTH};
        bool reads = round % 2 == 0, early = round % 4 < 2;

        pattern_fill(buffer, LENGTH, round);
        again_submit(queue, dev, reads ? FARBLK_OP_READ : FARBLK_OP_WRITE, 0,
                     &iov, 600000);
        again_await_held(PAGES);
        request_cancel(&queue->slots[0].request);
        assert_int_equal(again_collect(queue).status, FARBLK_TIMED_OUT);
        /* It was in the arena, and is in quarantine. */
        assert_int_equal(again_pages(dev, true), PAGES);
        pattern_fill(buffer, LENGTH, 100 + round);
        if (early)
            farblk_buffer_free(dev, buffer, LENGTH);
        assert_int_equal(again_pages(dev, true), PAGES);
        again_let_go(200);
        if (!early) {
            rings_reap_all(dev->device->state);
            assert_int_equal(again_pages(dev, true), PAGES);
            assert_int_equal(pattern_check(buffer, LENGTH, 100 + round),
                             LENGTH);
            farblk_buffer_free(dev, buffer, LENGTH);
        }
        while (again_pages(dev, true) != 0) {
            again_moment();
            rings_reap_all(dev->device->state);
        }
        if (round == 0)
            used = again_pages(dev, false);
        assert_int_equal(again_pages(dev, false), used);
    }
    /* What was given back is the region's: the server sees what is there. */
    for (unsigned i = 0; i < 256 / PAGES - 1; i++) {
        uint8_t *buffer = farblk_buffer_alloc(dev, LENGTH), seen[PAGE];
        const struct iovec iov = {buffer, PAGE};

        assert_true(pattern_is_zero(buffer, LENGTH));
        pattern_fill(buffer, PAGE, 300 + i);
        again_submit(queue, dev, FARBLK_OP_WRITE, 0, &iov, 0);
        again_await_held(1);
        struct iov_view view = held[0]->data;
        iov_copy_out(&view, seen, PAGE);
        assert_memory_equal(seen, buffer, PAGE);
        again_let_go(0);
        assert_int_equal(again_collect(queue).status, 0);
        assert_true(again_pages(dev, false) >= (i + 1) * PAGES);
    }
    held_at_once = true; /* the server flushes in the end */
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    again_end();
    held_at_once = false;
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, fixture_watch, fixture_clean)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(memory_is_shared_again_after_a_cut),
        TEST(buffers_of_the_old_arena_stay_memory),
        TEST(request_in_a_ring_is_answered_over_the_new_connection),
        TEST(pieces_go_on_by_whichever_way),
        TEST(memory_that_the_server_has_ended_comes_back_later),
        TEST(room_that_is_found_later_is_used_then),
        TEST(pages_of_requests_that_were_given_up_come_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
