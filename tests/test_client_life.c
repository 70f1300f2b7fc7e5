/* SPDX-License-Identifier: ISC */
/*
 * The client driver against a scripted server: time, room, loss, and what the
 * device becomes meanwhile.
 */
#include "tests/client_calls.h"

#include <stdio.h>

static uint8_t block[8][8 * FAKE_SECTOR];

static const struct iovec *
one_sector(unsigned i)
{
    static struct iovec iov[8];
    iov[i] = (struct iovec){block[i], FAKE_SECTOR};
    return &iov[i];
}

/* Answer a request with status 0 and, for a read, data. */
static void
answer(struct fake *fake, struct fake_request *request)
{
    static const uint8_t zeros[8 * FAKE_SECTOR];
    struct codec_reply reply = fake_blank(request);
    size_t length = request->ask.method == WIRE_READ
                        ? request->ask.args.range.count * FAKE_SECTOR
                        : 0;
    fake_reply(fake, request, &reply, zeros, length);
}

/* ------------------------------------------------------------ time */

static void
unanswered_requests_time_out(void **state)
{
    static const enum farblk_op ops[] = {FARBLK_OP_READ, FARBLK_OP_WRITE};
    struct fake fake;
    (void)state;
    fake_start(&fake);
    struct farblk *dev = client_open(&fake);
    struct farblk_queue *queue = client_queue();
    for (unsigned i = 0; i < 2; i++) {
        memset(block[0], 7, FAKE_SECTOR);
        client_submit(queue, dev, ops[i], 3, one_sector(0), 1, 200, 0);
        struct fake_request *late = fake_next(&fake);
        assert_in_range(late->ask.deadline_ms, 1, 200);
        struct farblk_completion done = client_collect(queue);
        assert_int_equal(done.status, FARBLK_TIMED_OUT);
        assert_int_equal(done.effect, ops[i] == FARBLK_OP_WRITE
                                          ? FARBLK_EFFECT_UNKNOWN
                                          : FARBLK_EFFECT_NONE);
        client_submit(queue, dev, FARBLK_OP_READ, 4, one_sector(1), 1, 0, 1);
        struct fake_request *next = fake_next(&fake);
        assert_int_equal(next->ask.lowest, late->ask.number);
        answer(&fake, late);
        answer(&fake, next);
        done = client_collect(queue);
        assert_int_equal(done.status, 0);
        assert_int_equal((uintptr_t)done.user, 1);
        assert_int_equal(block[0][0], 7); /* its caller has it back */
    }
    client_submit(queue, dev, FARBLK_OP_READ, 4, one_sector(1), 1, 0, 1);
    struct fake_request *last = fake_next(&fake);
    assert_int_equal(last->ask.lowest, last->ask.number);
    answer(&fake, last);
    assert_int_equal(client_collect(queue).status, 0);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
requests_without_room_time_out_without_effect(void **state)
{
    struct fake fake;
    (void)state;
    fake_start(&fake);
    fake.hello.result.hello.limits.max_requests = 1;
    struct farblk *dev = client_open(&fake);
    struct farblk_queue *queue = client_queue();
    client_submit(queue, dev, FARBLK_OP_READ, 0, one_sector(0), 1, 0, 0);
    struct fake_request *first = fake_next(&fake);
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, one_sector(1), 1, 0, 1);
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, one_sector(2), 1, 20, 2);
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, one_sector(3), 1, 0, 3);
    struct farblk_completion done = client_collect(queue);
    assert_int_equal(done.status, FARBLK_TIMED_OUT);
    assert_int_equal(done.effect, FARBLK_EFFECT_NONE);
    assert_int_equal((uintptr_t)done.user, 2);
    answer(&fake, first);
    for (unsigned i = 0; i < 2; i++)
        answer(&fake, fake_next(&fake));
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(client_collect(queue).status, 0);
    assert_int_equal(fake.most_flying, 1);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

/* ------------------------------------------------------------ room */

static void
limits_of_the_server_are_kept(void **state)
{
    struct fake fake;
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        fake_start(&fake);
        struct codec_limits *limits = &fake.hello.result.hello.limits;
        limits->max_payload = 8 * FAKE_SECTOR;
        fake.open.result.open.info.max_transfer = 8 * FAKE_SECTOR;
        fake.open.result.open.info.preferred_transfer = 8 * FAKE_SECTOR;
        if (i == 0)
            limits->max_requests = 7; /* 3 of them are not for requests */
        else
            limits->max_octets = 20 * FAKE_SECTOR;
        struct farblk *dev = client_open(&fake);
        struct farblk_queue *queue = client_queue();
        struct iovec iov[8];
        for (unsigned n = 0; n < 8; n++) {
            iov[n] = (struct iovec){block[n], 8 * FAKE_SECTOR};
            client_submit(queue, dev, n % 2 ? FARBLK_OP_READ : FARBLK_OP_WRITE,
                          n, &iov[n], 1, 0, n);
        }
        const unsigned room = i == 0 ? 4 : 2;
        struct fake_request *requests[4];
        for (unsigned n = 0; n < room; n++)
            requests[n] = fake_next(&fake);
        for (unsigned n = 0; n < 8; n++) {
            answer(&fake, requests[n % room]);
            if (n + room < 8)
                requests[n % room] = fake_next(&fake);
            assert_int_equal(client_collect(queue).status, 0);
        }
        assert_int_equal(fake.most_flying, room);
        assert_int_equal(fake.most_octets, room * 8 * FAKE_SECTOR);
        farblk_queue_destroy(queue);
        ok(farblk_close(dev));
        fake_stop(&fake);
    }
}

static void
a_request_that_is_never_answered_stops_nobody(void **state)
{
    enum { COUNT = WIRE_WINDOW + 5000, FLYING = 2000 }; /* few turns, of many */
    struct fake fake;
    struct farblk_queue *queue;
    unsigned submitted = 0, collected = 0;
    (void)state;
    fake_start(&fake);
    fake.hello.result.hello.limits.max_requests = FLYING;
    struct farblk *dev = client_open(&fake);
    ok(farblk_queue_create(FLYING, &queue));
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, one_sector(0), 1, 200, 0);
    struct fake_request *never = fake_next(&fake);
    assert_int_equal(client_collect(queue).status, FARBLK_TIMED_OUT);
    pthread_mutex_lock(&fake.mutex);
    fake.answers = true;
    pthread_mutex_unlock(&fake.mutex);
    while (collected < COUNT) {
        struct farblk_completion done[64];
        while (submitted < COUNT && submitted - collected < FLYING) {
            client_submit(queue, dev, FARBLK_OP_FLUSH, 0, NULL, 0, 0, 0);
            submitted++;
        }
        int n = farblk_collect(queue, done, sizeof done[0], 64, -1);
        assert_true(n > 0);
        for (int i = 0; i < n; i++)
            assert_int_equal(done[i].status, 0);
        collected += (unsigned)n;
    }
    assert_int_equal(fake.bad_numbers, 0);
    assert_true(fake.lowest > never->ask.number);
    answer(&fake, never); /* and a very late reply does no harm */
    ok(farblk_flush(dev));
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

/* ------------------------------------------------------------ loss */

static void
death_ends_what_waits_and_what_comes(void **state)
{
    struct fake fake;
    (void)state;
    fake_start(&fake);
    fake.hello.result.hello.limits.max_requests = 5; /* 2 of them */
    struct farblk *dev = client_open(&fake);
    struct farblk_queue *queue = client_queue();
    static const enum farblk_op ops[] = {FARBLK_OP_WRITE, FARBLK_OP_READ,
                                         FARBLK_OP_WRITE, FARBLK_OP_READ};
    static const enum farblk_effect effects[] = {
        FARBLK_EFFECT_UNKNOWN, FARBLK_EFFECT_NONE, FARBLK_EFFECT_NONE,
        FARBLK_EFFECT_NONE};
    for (unsigned i = 0; i < 4; i++)
        client_submit(queue, dev, ops[i], i, one_sector(i), 1, 0, i);
    fake_drop(&fake, fake_next(&fake));
    fake_drop(&fake, fake_next(&fake));
    fake_hang_up(&fake);
    for (unsigned i = 0; i < 4; i++) {
        struct farblk_completion done = client_collect(queue);
        assert_int_equal(done.status, FARBLK_DISCONNECTED);
        assert_int_equal(done.effect, effects[(uintptr_t)done.user]);
        assert_non_null(strstr(done.text, fake.name));
    }
    fails_with(FARBLK_DISCONNECTED,
               support_write(dev, 0, block[0], FAKE_SECTOR, 0));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
    text_has("lost");
    /* the last known answer */
    assert_int_equal(support_info(dev).size_sectors, FAKE_SECTORS);
    farblk_queue_destroy(queue);
    ok(farblk_disconnect(dev));
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
death_in_the_middle_of_data_gives_the_buffer_back(void **state)
{
    enum { LENGTH = 32 << 20 };
    uint8_t *data = calloc(1, LENGTH);
    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        struct fake fake;
        struct iovec iov = {malloc(LENGTH), LENGTH};
        fake_start(&fake);
        fake.hello.result.hello.limits.max_payload = LENGTH;
        fake.hello.result.hello.limits.max_octets = 2 * LENGTH;
        fake.open.result.open.info.max_transfer = LENGTH;
        struct farblk *dev = client_open(&fake);
        struct farblk_queue *queue = client_queue();
        client_submit(queue, dev, FARBLK_OP_READ, 0, &iov, 1, 0, 0);
        struct fake_request *request = fake_next(&fake);
        struct codec_reply reply = fake_blank(request);
        fake_reply(&fake, request, &reply, data, LENGTH);
        fake_hang_up(&fake);
        int status = client_collect(queue).status;
        assert_true(status == 0 || status == FARBLK_DISCONNECTED);
        free(iov.iov_base); /* nothing writes there any more */
        farblk_queue_destroy(queue);
        ok(farblk_close(dev));
        fake_stop(&fake);
    }
    free(data);
}

static void
silence_is_noticed_by_the_lease(void **state)
{
    struct fake fake;
    (void)state;
    fake_start(&fake);
    fake.hello.result.hello.lease_ms = 1; /* as short as the client takes */
    fake.mute_ping = true;
    struct farblk *dev = client_open(&fake);
    struct farblk_queue *queue = client_queue();
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, one_sector(0), 1, 0, 0);
    struct farblk_completion done = client_collect(queue);
    assert_int_equal(done.status, FARBLK_DISCONNECTED);
    assert_int_equal(done.effect, FARBLK_EFFECT_UNKNOWN);
    assert_non_null(strstr(done.text, "nothing was heard"));
    assert_true(fake.pings > 0);
    fails_with(FARBLK_DISCONNECTED, farblk_flush(dev));
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
pings_keep_a_slow_session(void **state)
{
    struct fake fake;
    (void)state;
    fake_start(&fake);
    fake.hello.result.hello.lease_ms = 2000;
    struct farblk *dev = client_open(&fake);
    struct farblk_queue *queue = client_queue();
    client_submit(queue, dev, FARBLK_OP_READ, 0, one_sector(0), 1, 0, 0);
    struct fake_request *request = fake_next(&fake);
    pthread_mutex_lock(&fake.mutex);
    while (fake.pings < 8) /* more than a lease of them */
        pthread_cond_wait(&fake.changed, &fake.mutex);
    pthread_mutex_unlock(&fake.mutex);
    answer(&fake, request);
    assert_int_equal(client_collect(queue).status, 0);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
disconnect_ends_the_session_once(void **state)
{
    struct fake fake;
    (void)state;
    fake_start(&fake);
    struct farblk *dev = client_open(&fake);
    ok(farblk_disconnect(dev));
    assert_int_equal(fake.disconnects, 1);
    fails_with(FARBLK_DISCONNECTED, farblk_flush(dev));
    assert_int_equal(support_info(dev).size_sectors, FAKE_SECTORS);
    ok(farblk_disconnect(dev));
    ok(farblk_close(dev));
    assert_int_equal(fake.disconnects, 1);
    fake_wait_closed(&fake);
    fake_stop(&fake);
}

static void *
hang_up_at_disconnect(void *arg)
{
    struct client_thread *thread = arg;
    struct fake *fake = thread->fake;
    pthread_mutex_lock(&fake->mutex);
    while (fake->disconnects == 0)
        pthread_cond_wait(&fake->changed, &fake->mutex);
    pthread_mutex_unlock(&fake->mutex);
    fake_hang_up(fake);
    return NULL;
}

static void
disconnect_ends_with_the_link(void **state)
{
    struct fake fake;
    struct client_thread thread = {.fake = &fake};
    (void)state;
    fake_start(&fake);
    fake.mute_disconnect = true;
    struct farblk *dev = client_open(&fake);
    client_thread(&thread, hang_up_at_disconnect);
    ok(farblk_close(dev));
    client_end(&thread);
    fake_stop(&fake);
}

/* ------------------------------------------------------------ the device */

static void
a_reply_tells_another_size(void **state)
{
    struct fake fake;
    uint64_t now;
    (void)state;
    fake_start(&fake);
    struct farblk *dev = client_open(&fake);
    struct farblk_queue *queue = client_queue();
    static const uint64_t generations[] = {FAKE_GENERATION + 5,
                                           FAKE_GENERATION + 2, 0};
    for (unsigned i = 0; i < 3; i++) { /* the others are older, or know not */
        client_submit(queue, dev, FARBLK_OP_FLUSH, 0, NULL, 0, 0, 0);
        struct fake_request *request = fake_next(&fake);
        struct codec_reply reply = fake_blank(request);
        reply.generation = generations[i];
        reply.size_sectors = i == 0 ? 99 : 50;
        fake_reply(&fake, request, &reply, NULL, 0);
        assert_int_equal(client_collect(queue).status, 0);
        ok(farblk_watch(dev, FAKE_GENERATION, -1, &now));
        assert_int_equal(now, FAKE_GENERATION + 5);
    }
    ok(farblk_disconnect(dev));
    assert_int_equal(support_info(dev).size_sectors, 99);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
resize_is_known_when_it_returns(void **state)
{
    struct fake fake;
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct client_thread thread = {.count = 1234};
        fake_start(&fake);
        struct farblk *dev = client_open(&fake);
        client_begin(&thread, FARBLK_OP_RESIZE, dev);
        struct fake_request *request = fake_next(&fake);
        assert_int_equal(request->ask.method, WIRE_RESIZE);
        assert_int_equal(request->ask.args.resize.size_sectors, 1234);
        struct codec_reply reply = fake_blank(request);
        if (i == 0) {
            reply.generation = FAKE_GENERATION + 1;
            reply.size_sectors = 1234;
        }
        fake_reply(&fake, request, &reply, NULL, 0);
        client_end(&thread);
        assert_int_equal(thread.status, 0);
        ok(farblk_disconnect(dev));
        struct farblk_info info = support_info(dev);
        assert_int_equal(info.size_sectors, 1234);
        assert_int_equal(info.generation, FAKE_GENERATION + 1);
        ok(farblk_close(dev));
        fake_stop(&fake);
    }
}

static void
a_watch_asks_until_it_has_an_answer(void **state)
{
    struct fake fake;
    struct client_thread threads[3];
    (void)state;
    fake_start(&fake);
    struct farblk *dev = client_open(&fake);
    for (unsigned i = 0; i < 3; i++) {
        threads[i].count = FAKE_GENERATION;
        client_begin(&threads[i], FARBLK_OP_WATCH, dev);
    }
    for (unsigned i = 0; i < 3; i++) {
        struct fake_request *request = fake_next(&fake);
        assert_int_equal(request->ask.method, WIRE_WATCH_INFO);
        assert_int_equal(request->ask.args.watch.generation, FAKE_GENERATION);
        assert_in_range(request->ask.args.watch.timeout_ms, 1,
                        fake.hello.result.hello.lease_ms - 1);
        struct codec_reply reply = fake_blank(request);
        if (i < 2) {
            reply.status = FARBLK_TIMED_OUT;
            snprintf(reply.text, sizeof reply.text, "not yet");
        } else {
            reply.generation = FAKE_GENERATION + 1;
            reply.size_sectors = 5;
            reply.result.watch.generation = FAKE_GENERATION + 1;
        }
        fake_reply(&fake, request, &reply, NULL, 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        client_end(&threads[i]);
        assert_int_equal(threads[i].status, 0);
        assert_int_equal(threads[i].value, FAKE_GENERATION + 1);
    }
    assert_int_equal(fake.most_flying, 1); /* one asks for all */
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
a_watch_ends_with_its_handle(void **state)
{
    struct fake fake;
    struct client_thread thread = {.count = FAKE_GENERATION};
    (void)state;
    fake_start(&fake);
    struct farblk *dev = client_open(&fake);
    client_begin(&thread, FARBLK_OP_WATCH, dev);
    fake_drop(&fake, fake_next(&fake)); /* it is under way */
    ok(farblk_disconnect(dev));
    client_end(&thread);
    assert_int_equal(thread.status, FARBLK_DISCONNECTED);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
a_watch_ends_with_the_link(void **state)
{
    struct fake fake;
    struct client_thread thread = {.count = FAKE_GENERATION};
    (void)state;
    fake_start(&fake);
    struct farblk *dev = client_open(&fake);
    client_begin(&thread, FARBLK_OP_WATCH, dev);
    fake_drop(&fake, fake_next(&fake));
    fake_hang_up(&fake);
    client_end(&thread);
    assert_int_equal(thread.status, FARBLK_DISCONNECTED);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

/* ------------------------------------------------------------ many */

enum { THREADS = 6, ROUNDS = 300 };

static void *
work(void *arg)
{
    struct client_thread *thread = arg;
    struct trouble *trouble = thread->arg;
    struct rng rng = {thread->count};
    uint8_t data[16 * FAKE_SECTOR];
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t sector = rng_below(&rng, FAKE_SECTORS - 16);
        size_t count = 1 + (size_t)rng_below(&rng, 16);
        int status;
        if (i % 2 == 0) {
            status =
                support_read(thread->dev, sector, data, count * FAKE_SECTOR);
            for (size_t n = 0; n < count && status == 0; n++)
                if (pattern_check(data + n * FAKE_SECTOR, FAKE_SECTOR,
                                  sector + n)
                    != FAKE_SECTOR)
                    trouble_note(trouble, "sector %llu is not what it was",
                                 (unsigned long long)(sector + n));
        } else {
            for (size_t n = 0; n < count; n++)
                pattern_fill(data + n * FAKE_SECTOR, FAKE_SECTOR, sector + n);
            status = support_write(thread->dev, sector, data,
                                   count * FAKE_SECTOR, 0);
        }
        if (status != 0 && status != FARBLK_DISCONNECTED)
            trouble_note(trouble, "%s: %s", farblk_status_name(status),
                         farblk_last_text());
        if (status == FARBLK_DISCONNECTED)
            thread->value++;
    }
    return NULL;
}

/* `hang_up`: in the middle of it. */
static void
work_together(bool hang_up)
{
    struct fake fake;
    struct client_thread threads[THREADS];
    struct trouble trouble = {0};
    uint64_t lost = 0;
    fake_start(&fake);
    fake.answers = true;
    fake.hello.result.hello.limits.max_requests = 7;
    struct farblk *dev[2] = {client_open(&fake), client_open(&fake)};
    for (unsigned i = 0; i < THREADS; i++) {
        memset(&threads[i], 0, sizeof threads[i]);
        threads[i].dev = dev[i % 2];
        threads[i].arg = &trouble;
        threads[i].count = i;
        client_thread(&threads[i], work);
    }
    if (hang_up) {
        pthread_mutex_lock(&fake.mutex);
        while (fake.last_number < 100)
            pthread_cond_wait(&fake.changed, &fake.mutex);
        pthread_mutex_unlock(&fake.mutex);
        fake_hang_up(&fake);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        client_end(&threads[i]);
        lost += threads[i].value;
    }
    trouble_assert_none(&trouble);
    assert_int_equal(fake.bad_writes, 0);
    assert_int_equal(fake.bad_numbers, 0);
    assert_true(fake.most_flying <= 8);
    if (hang_up)
        assert_in_range(lost, 1, THREADS / 2 * ROUNDS);
    else
        assert_int_equal(lost, 0);
    ok(farblk_close(dev[0]));
    ok(farblk_close(dev[1]));
    fake_stop(&fake);
}

static void
many_threads_share_devices(void **state)
{
    (void)state;
    work_together(false);
}

static void
one_lost_device_takes_no_other_with_it(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 5; i++)
        work_together(true);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unanswered_requests_time_out),
        cmocka_unit_test(requests_without_room_time_out_without_effect),
        cmocka_unit_test(limits_of_the_server_are_kept),
        cmocka_unit_test(a_request_that_is_never_answered_stops_nobody),
        cmocka_unit_test(death_ends_what_waits_and_what_comes),
        cmocka_unit_test(death_in_the_middle_of_data_gives_the_buffer_back),
        cmocka_unit_test(silence_is_noticed_by_the_lease),
        cmocka_unit_test(pings_keep_a_slow_session),
        cmocka_unit_test(disconnect_ends_the_session_once),
        cmocka_unit_test(disconnect_ends_with_the_link),
        cmocka_unit_test(a_reply_tells_another_size),
        cmocka_unit_test(resize_is_known_when_it_returns),
        cmocka_unit_test(a_watch_asks_until_it_has_an_answer),
        cmocka_unit_test(a_watch_ends_with_its_handle),
        cmocka_unit_test(a_watch_ends_with_the_link),
        cmocka_unit_test(many_threads_share_devices),
        cmocka_unit_test(one_lost_device_takes_no_other_with_it),
    };
    support_watch("client_life");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    support_watch(NULL);
    return failed;
}
