/* SPDX-License-Identifier: ISC */
/*
 * Connections that break, against a scripted server: what the client sends
 * again and what it does not, what waits, and when it gives up.
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

/* The device, with more parameters. */
static struct farblk *
open_again(struct fake *fake, const char *more)
{
    struct farblk *dev;
    char uri[400];
    snprintf(uri, sizeof uri, "%s%s", fake->again_uri, more);
    ok(farblk_open(uri, NULL, &dev));
    return dev;
}

static void
await_take_overs(struct fake *fake, unsigned count)
{
    pthread_mutex_lock(&fake->mutex);
    while (fake->take_overs < count)
        pthread_cond_wait(&fake->changed, &fake->mutex);
    pthread_mutex_unlock(&fake->mutex);
}

/* One attempt, or on a machine that is busy for seconds another. */
static void
takes_over_once_by_each_connection(const struct fake *fake)
{
    assert_in_range(fake->take_overs, 1, fake->came - 1);
}

static void
what_is_unanswered_is_sent_again_under_its_number(void **state)
{
    struct fake fake;
    (void)state;
    fake_start(&fake);
    struct farblk *dev = open_again(&fake, "");
    struct farblk_queue *queue = client_queue();
    static const enum farblk_op ops[] = {FARBLK_OP_WRITE, FARBLK_OP_READ,
                                         FARBLK_OP_FLUSH, FARBLK_OP_WRITE};
    uint64_t numbers[4];
    for (unsigned i = 0; i < 4; i++) {
        pattern_fill(block[i], FAKE_SECTOR, i);
        bool moves = ops[i] != FARBLK_OP_FLUSH;
        client_submit(queue, dev, ops[i], moves ? i : 0,
                      moves ? one_sector(i) : NULL, moves, 0, i);
        struct fake_request *request = fake_next(&fake);
        numbers[i] = request->ask.number;
        if (i == 1)
            answer(&fake, request); /* this one alone is done */
        else
            fake_drop(&fake, request);
    }
    assert_int_equal((uintptr_t)client_collect(queue).user, 1);
    fake_hang_up(&fake);
    for (unsigned i = 0; i < 4; i++) {
        if (i == 1)
            continue;
        struct fake_request *request = fake_next(&fake);
        assert_int_equal(request->ask.number, numbers[i]);
        assert_int_equal(request->ask.lowest, numbers[0]);
        if (ops[i] == FARBLK_OP_WRITE) {
            assert_int_equal(request->ask.args.range.sector, i);
            assert_int_equal(pattern_check(request->payload, FAKE_SECTOR, i),
                             FAKE_SECTOR);
        }
        answer(&fake, request);
    }
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(client_collect(queue).status, 0);
    takes_over_once_by_each_connection(&fake);
    assert_int_equal(fake.bad_numbers, 0);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    assert_int_equal(fake.disconnects, 1);
    fake_stop(&fake);
}

static void
what_comes_while_it_is_away_waits_and_goes_on(void **state)
{
    struct fake fake;
    (void)state;
    fake_start(&fake);
    struct farblk *dev = open_again(&fake, "&reconnect=60");
    struct farblk_queue *queue = client_queue();
    fake_mute_pings(&fake, true); /* the secret is shown in vain */
    fake_hang_up(&fake);
    await_take_overs(&fake, 1);
    for (unsigned i = 0; i < 3; i++)
        client_submit(queue, dev, FARBLK_OP_WRITE, i, one_sector(i), 1, 0, i);
    await_take_overs(&fake, 2);
    assert_int_equal(fake.flying, 0);
    fake_mute_pings(&fake, false);
    for (unsigned i = 0; i < 3; i++) {
        struct fake_request *request = fake_next(&fake);
        assert_int_equal(request->ask.args.range.sector, i);
        answer(&fake, request);
        assert_int_equal(client_collect(queue).status, 0);
    }
    assert_int_equal(fake.bad_numbers, 0);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
time_goes_on_while_it_is_away(void **state)
{
    struct fake fake;
    (void)state;
    fake_start(&fake);
    struct farblk *dev = open_again(&fake, "&reconnect=60");
    struct farblk_queue *queue = client_queue();
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, one_sector(0), 1, 300, 0);
    struct fake_request *sent = fake_next(&fake);
    uint64_t number = sent->ask.number;
    fake_drop(&fake, sent);
    fake_mute_pings(&fake, true);
    fake_hang_up(&fake);
    await_take_overs(&fake, 1);
    client_submit(queue, dev, FARBLK_OP_WRITE, 1, one_sector(1), 1, 20, 1);
    client_submit(queue, dev, FARBLK_OP_WRITE, 2, one_sector(2), 1, 0, 2);
    for (unsigned i = 0; i < 2; i++) {
        struct farblk_completion done = client_collect(queue);
        assert_int_equal(done.status, FARBLK_TIMED_OUT);
        assert_in_range((uintptr_t)done.user, 0, 1);
        /* The first may have been executed, the second never went out. */
        assert_int_equal(done.effect, (uintptr_t)done.user == 0
                                          ? FARBLK_EFFECT_UNKNOWN
                                          : FARBLK_EFFECT_NONE);
    }
    fake_mute_pings(&fake, false);
    struct fake_request *next = fake_next(&fake);
    assert_int_equal(next->ask.args.range.sector, 2);
    assert_true(next->ask.lowest > number); /* no late copy is executed */
    answer(&fake, next);
    assert_int_equal(client_collect(queue).status, 0);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
a_watch_goes_on(void **state)
{
    struct fake fake;
    struct client_thread thread = {.count = FAKE_GENERATION};
    (void)state;
    fake_start(&fake);
    struct farblk *dev = open_again(&fake, "");
    client_begin(&thread, FARBLK_OP_WATCH, dev);
    fake_drop(&fake, fake_next(&fake));
    fake_hang_up(&fake);
    struct fake_request *request = fake_next(&fake);
    assert_int_equal(request->ask.method, WIRE_WATCH_INFO);
    struct codec_reply reply = fake_blank(request);
    reply.generation = FAKE_GENERATION + 1;
    reply.size_sectors = 77;
    reply.result.watch.generation = FAKE_GENERATION + 1;
    fake_reply(&fake, request, &reply, NULL, 0);
    client_end(&thread);
    assert_int_equal(thread.status, 0);
    assert_int_equal(thread.value, FAKE_GENERATION + 1);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
a_session_that_is_gone_is_told_with_the_truth(void **state)
{
    struct fake fake;
    (void)state;
    fake_start(&fake);
    fake.hello.result.hello.limits.max_requests = 5; /* 2 of them */
    struct farblk *dev = open_again(&fake, "");
    struct farblk_queue *queue = client_queue();
    for (unsigned i = 0; i < 4; i++)
        client_submit(queue, dev, i == 1 ? FARBLK_OP_READ : FARBLK_OP_WRITE, i,
                      one_sector(i), 1, 0, i);
    fake_drop(&fake, fake_next(&fake));
    fake_drop(&fake, fake_next(&fake));
    fake_refuse_pings(&fake, FARBLK_DISCONNECTED);
    fake_hang_up(&fake);
    for (unsigned i = 0; i < 4; i++) {
        struct farblk_completion done = client_collect(queue);
        uintptr_t user = (uintptr_t)done.user;
        /* What was sent may have happened; what was not has not. */
        assert_int_equal(done.status, user < 2 ? FARBLK_CONNECTION_LOST
                                               : FARBLK_DISCONNECTED);
        assert_int_equal(done.effect, user == 0 ? FARBLK_EFFECT_UNKNOWN
                                                : FARBLK_EFFECT_NONE);
        assert_non_null(strstr(done.text, "has ended"));
    }
    fails_with(FARBLK_DISCONNECTED, farblk_flush(dev));
    assert_int_equal(support_info(dev).size_sectors, FAKE_SECTORS);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
a_server_that_listens_no_more_is_given_up_at_once(void **state)
{
    struct fake fake;
    (void)state;
    fake_start(&fake);
    struct farblk *dev = open_again(&fake, "");
    struct farblk_queue *queue = client_queue();
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, one_sector(0), 1, 0, 0);
    fake_drop(&fake, fake_next(&fake));
    fake_stop(&fake);
    struct farblk_completion done = client_collect(queue);
    assert_int_equal(done.status, FARBLK_DISCONNECTED);
    assert_int_equal(done.effect, FARBLK_EFFECT_UNKNOWN);
    fails_with(FARBLK_DISCONNECTED, farblk_flush(dev));
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
}

static void
reconnect_bounds_how_long_it_is_tried(void **state)
{
    struct fake fake;
    (void)state;
    fake_start(&fake);
    struct farblk *dev = open_again(&fake, "&reconnect=1");
    struct farblk_queue *queue = client_queue();
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, one_sector(0), 1, 0, 0);
    fake_drop(&fake, fake_next(&fake));
    fake_go_away(&fake); /* nobody listens, and it goes on trying */
    struct farblk_completion done = client_collect(queue);
    assert_int_equal(done.status, FARBLK_DISCONNECTED);
    assert_int_equal(done.effect, FARBLK_EFFECT_UNKNOWN);
    assert_non_null(strstr(done.text, "attempts"));
    fake_come_back(
        &fake); /* disconnect() looks whether anything can land yet */
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    takes_over_once_by_each_connection(&fake);
    assert_int_equal(fake.disconnects, 1);
    fake_stop(&fake);
}

static void
a_server_that_comes_back_is_waited_for(void **state)
{
    struct fake fake;
    (void)state;
    fake_start(&fake);
    struct farblk *dev = open_again(&fake, "&reconnect=60");
    struct farblk_queue *queue = client_queue();
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, one_sector(0), 1, 0, 0);
    fake_drop(&fake, fake_next(&fake));
    fake_go_away(&fake);
    fake_come_back(&fake);
    answer(&fake, fake_next(&fake));
    assert_int_equal(client_collect(queue).status, 0);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
a_request_that_breaks_each_connection_comes_to_an_end(void **state)
{
    struct fake fake;
    unsigned breaks = 0;
    (void)state;
    fake_start(&fake);
    fake.hello.result.hello.lease_ms = 1000; /* short pauses */
    struct farblk *dev = open_again(&fake, "&reconnect=3600");
    struct farblk_queue *queue = client_queue();
    struct farblk_completion done;
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, one_sector(0), 1, 0, 0);
    do {
        fake_drop(&fake, fake_next(&fake));
        fake_hang_up(&fake);
        fake_wait_closed(&fake);
        breaks++;
    } while (breaks < 17);
    done = client_collect(queue);
    assert_int_equal(done.status, FARBLK_DISCONNECTED);
    assert_int_equal(done.effect, FARBLK_EFFECT_UNKNOWN);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
disconnect_is_sent_again(void **state)
{
    struct fake fake;
    (void)state;
    fake_start(&fake);
    fake.mute_disconnect = true;
    struct farblk *dev = open_again(&fake, "");
    pthread_t thread;
    assert_int_equal(
        pthread_create(&thread, NULL, fake_hang_up_at_disconnect, &fake), 0);
    ok(farblk_disconnect(dev));
    pthread_join(thread, NULL);
    assert_int_equal(fake.disconnects, 2);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
a_server_that_breaks_the_protocol_is_not_asked_again(void **state)
{
    struct fake fake;
    (void)state;
    fake_start(&fake);
    struct farblk *dev = open_again(&fake, "");
    struct farblk_queue *queue = client_queue();
    client_submit(queue, dev, FARBLK_OP_READ, 0, one_sector(0), 1, 0, 0);
    struct fake_request *request = fake_next(&fake);
    fake_reply_raw(request, "\xff\xff", 2);
    fake_drop(&fake, request);
    assert_int_equal(client_collect(queue).status, FARBLK_DISCONNECTED);
    fake_wait_closed(&fake);
    assert_int_equal(fake.take_overs, 0);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static int
watch(void **state)
{
    (void)state;
    support_watch("resume");
    return 0;
}

static int
unwatch(void **state)
{
    (void)state;
    support_watch(NULL);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, watch, unwatch)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_unanswered_is_sent_again_under_its_number),
        TEST(what_comes_while_it_is_away_waits_and_goes_on),
        TEST(time_goes_on_while_it_is_away),
        TEST(a_watch_goes_on),
        TEST(a_session_that_is_gone_is_told_with_the_truth),
        TEST(a_server_that_listens_no_more_is_given_up_at_once),
        TEST(reconnect_bounds_how_long_it_is_tried),
        TEST(a_server_that_comes_back_is_waited_for),
        TEST(a_request_that_breaks_each_connection_comes_to_an_end),
        TEST(disconnect_is_sent_again),
        TEST(a_server_that_breaks_the_protocol_is_not_asked_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
