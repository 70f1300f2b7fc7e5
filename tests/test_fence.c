/* SPDX-License-Identifier: ISC */
/*
 * Requests that the client gives up: what it asks the server, what it tells its
 * caller, and that nothing is overtaken by what was given up.
 */
#include "client/client.h"
#include "tests/client_calls.h"
#include "tests/server_fixture.h"

#include <stdio.h>

/* As long as a slow machine needs, or no time at all. */
#define LONG ((struct cancel_bounds){SUPPORT_PATIENCE_MS, SUPPORT_PATIENCE_MS})
#define SHORT ((struct cancel_bounds){1, 1})
/* To be sent in, and not. */
#define TIMEOUT 500
#define HASTE 20

static struct fake fake;
static struct fixture fixture;
static uint8_t data[FAKE_SECTOR];
static const struct iovec iov = {data, FAKE_SECTOR};

static struct farblk *
fence_open(bool again)
{
    struct farblk *dev;
    fake_start(&fake);
    codec_add_feature(&fake.hello.result.hello.features, WIRE_FEATURE_FENCE);
    ok(farblk_open(again ? fake.again_uri : fake.uri, NULL, &dev));
    return dev;
}

/* The next request, which is of this method. */
static struct fake_request *
fence_next(uint32_t method)
{
    struct fake_request *request = fake_next(&fake);
    assert_int_equal(request->ask.method, method);
    return request;
}

static void
fence_answer(struct fake_request *request, int status)
{
    struct codec_reply reply = fake_blank(request);
    uint8_t zeros[FAKE_SECTOR] = {0};
    reply.status = status;
    fake_reply(&fake, request, &reply, zeros,
               request->ask.method == WIRE_READ ? sizeof zeros : 0);
}

/* A Cancel of this number. */
static struct fake_request *
fence_next_cancel(uint64_t number)
{
    struct fake_request *cancel = fence_next(WIRE_CANCEL);
    assert_int_equal(cancel->ask.args.cancel.number, number);
    assert_true(cancel->ask.lowest <= number);
    assert_int_equal(cancel->ask.handle, 0);
    return cancel;
}

static void
fence_tell(struct fake_request *cancel, bool fenced)
{
    struct codec_reply reply = fake_blank(cancel);
    reply.result.cancel.fenced = fenced;
    fake_reply(&fake, cancel, &reply, NULL, 0);
}

static void
fence_expect(struct farblk_queue *queue, int status, enum farblk_effect effect)
{
    struct farblk_completion done = client_collect(queue);
    assert_int_equal(done.status, status);
    assert_int_equal(done.effect, effect);
}

static void
a_fenced_request_has_had_no_effect(void **state)
{
    static const enum farblk_op ops[] = {FARBLK_OP_WRITE, FARBLK_OP_RESIZE};
    struct farblk *dev = fence_open(false);
    struct farblk_queue *queue = client_queue();
    (void)state;
    cancel_bounds = LONG;
    for (unsigned i = 0; i < 2; i++) {
        client_submit(queue, dev, ops[i], 3, i == 0 ? &iov : NULL, i == 0,
                      TIMEOUT, 0);
        struct fake_request *late = fake_next(&fake);
        fence_tell(fence_next_cancel(late->ask.number), true);
        fence_expect(queue, FARBLK_TIMED_OUT, FARBLK_EFFECT_NONE);
        /* It still owns its number, until it is answered. */
        client_submit(queue, dev, FARBLK_OP_READ, 4, &iov, 1, 0, 0);
        struct fake_request *read = fence_next(WIRE_READ);
        assert_int_equal(read->ask.lowest, late->ask.number);
        fence_answer(late, FARBLK_TIMED_OUT);
        fence_answer(read, 0);
        fence_expect(queue, 0, FARBLK_EFFECT_NONE);
    }
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    assert_int_equal(fake.bad_numbers, 0);
    fake_stop(&fake);
}

static void
an_outcome_that_comes_in_time_is_told(void **state)
{
    struct farblk *dev = fence_open(false);
    struct farblk_queue *queue = client_queue();
    (void)state;
    cancel_bounds = LONG;
    /* Before the Cancel is answered, and after. */
    for (unsigned i = 0; i < 4; i++) {
        client_submit(queue, dev, FARBLK_OP_WRITE, 3, &iov, 1, TIMEOUT, 0);
        struct fake_request *late = fence_next(WIRE_WRITE);
        struct fake_request *cancel = fence_next_cancel(late->ask.number);
        int status = i % 2 == 0 ? 0 : FARBLK_NO_SPACE;
        if (i < 2) {
            fence_answer(late, status);
            fence_expect(queue, status, FARBLK_EFFECT_NONE);
            fence_tell(cancel, false);
        } else {
            fence_tell(cancel, false);
            fence_answer(late, status);
            fence_expect(queue, status, FARBLK_EFFECT_NONE);
        }
    }
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
reads_and_flushes_are_given_up_at_once(void **state)
{
    static const enum farblk_op ops[] = {FARBLK_OP_READ, FARBLK_OP_FLUSH};
    struct farblk *dev = fence_open(false);
    struct farblk_queue *queue = client_queue();
    (void)state;
    cancel_bounds = LONG;
    for (unsigned i = 0; i < 2; i++) {
        client_submit(queue, dev, ops[i], 0, i == 0 ? &iov : NULL, i == 0,
                      TIMEOUT, 0);
        struct fake_request *late = fake_next(&fake);
        fence_expect(queue, FARBLK_TIMED_OUT, FARBLK_EFFECT_NONE);
        fence_answer(late, 0);
    }
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

/* While nobody knows, nothing is sent that might overtake it. */
static void
nothing_follows_until_the_server_has_answered(void **state)
{
    struct farblk *dev = fence_open(false);
    struct farblk_queue *queue = client_queue();
    (void)state;
    cancel_bounds = SHORT;
    for (unsigned i = 0; i < 2; i++) {
        client_submit(queue, dev, FARBLK_OP_WRITE, 3, &iov, 1, TIMEOUT, 0);
        struct fake_request *late = fence_next(WIRE_WRITE);
        fence_expect(queue, FARBLK_TIMED_OUT, FARBLK_EFFECT_UNKNOWN);
        /* These never leave. */
        client_submit(queue, dev, FARBLK_OP_READ, 4, &iov, 1, HASTE, 0);
        fence_expect(queue, FARBLK_TIMED_OUT, FARBLK_EFFECT_NONE);
        client_submit(queue, dev, FARBLK_OP_WRITE, 4, &iov, 1, HASTE, 0);
        fence_expect(queue, FARBLK_TIMED_OUT, FARBLK_EFFECT_NONE);
        client_submit(queue, dev, FARBLK_OP_WRITE, 5, &iov, 1, 0, 0);
        struct fake_request *cancel = fence_next_cancel(late->ask.number);
        if (i == 0)
            fence_tell(cancel, false);
        else /* that it can not tell is an answer as well */
            fence_answer(cancel, FARBLK_NO_SPACE);
        struct fake_request *next = fence_next(WIRE_WRITE);
        assert_int_equal(next->ask.args.range.sector, 5);
        fence_answer(next, 0);
        fence_expect(queue, 0, FARBLK_EFFECT_NONE);
        fence_answer(late, 0); /* nobody waits for it any more */
    }
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
many_at_once_are_all_asked_for(void **state)
{
    enum { COUNT = 40 };
    struct fake_request *late[COUNT];
    uint64_t numbers[COUNT];
    struct farblk *dev;
    struct farblk_queue *queue = client_queue();
    (void)state;
    cancel_bounds = LONG;
    fake_start(&fake);
    codec_add_feature(&fake.hello.result.hello.features, WIRE_FEATURE_FENCE);
    fake.hello.result.hello.limits.max_requests = COUNT + 3;
    ok(farblk_open(fake.uri, NULL, &dev));
    for (unsigned i = 0; i < COUNT; i++)
        client_submit(queue, dev, FARBLK_OP_WRITE, i, &iov, 1, TIMEOUT, i);
    for (unsigned i = 0; i < COUNT; i++) {
        late[i] = fence_next(WIRE_WRITE);
        numbers[i] = late[i]->ask.number;
    }
    for (unsigned i = 0; i < COUNT; i++) {
        struct fake_request *cancel = fence_next(WIRE_CANCEL);
        unsigned which = 0;
        while (numbers[which] != cancel->ask.args.cancel.number)
            which++;
        fence_tell(cancel, true);
        fence_answer(late[which], FARBLK_TIMED_OUT);
        fence_expect(queue, FARBLK_TIMED_OUT, FARBLK_EFFECT_NONE);
    }
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    assert_int_equal(fake.bad_numbers, 0);
    fake_stop(&fake);
}

/* The new connection is asked first, and then gets the copy. */
static void
a_broken_connection_is_asked_again(void **state)
{
    struct farblk *dev = fence_open(true);
    struct farblk_queue *queue = client_queue();
    (void)state;
    cancel_bounds = LONG;
    for (unsigned i = 0; i < 2; i++) {
        client_submit(queue, dev, FARBLK_OP_WRITE, 3, &iov, 1, TIMEOUT, 0);
        struct fake_request *late = fence_next(WIRE_WRITE);
        uint64_t number = late->ask.number;
        fake_drop(&fake, late);
        fake_drop(&fake, fence_next_cancel(number));
        fake_hang_up(&fake);
        struct fake_request *cancel = fence_next_cancel(number);
        struct fake_request *copy = fence_next(WIRE_WRITE);
        assert_int_equal(copy->ask.number, number);
        fence_tell(cancel, i == 0);
        if (i == 0) {
            fence_expect(queue, FARBLK_TIMED_OUT, FARBLK_EFFECT_NONE);
            fence_answer(copy, FARBLK_TIMED_OUT);
        } else {
            fence_answer(copy, 0);
            fence_expect(queue, 0, FARBLK_EFFECT_NONE);
        }
    }
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

/* The next connection takes the session over: so there is no doubt any more. */
static void
a_new_connection_ends_the_doubt(void **state)
{
    struct farblk *dev = fence_open(true);
    struct farblk_queue *queue = client_queue();
    (void)state;
    cancel_bounds = SHORT;
    client_submit(queue, dev, FARBLK_OP_WRITE, 3, &iov, 1, TIMEOUT, 0);
    fake_drop(&fake, fence_next(WIRE_WRITE));
    fence_expect(queue, FARBLK_TIMED_OUT, FARBLK_EFFECT_UNKNOWN);
    fake_drop(&fake, fence_next(WIRE_CANCEL));
    client_submit(queue, dev, FARBLK_OP_WRITE, 4, &iov, 1, 0, 0);
    fake_hang_up(&fake);
    struct fake_request *next = fence_next(WIRE_WRITE);
    assert_int_equal(next->ask.args.range.sector, 4);
    assert_int_equal(next->ask.lowest, next->ask.number);
    fence_answer(next, 0);
    fence_expect(queue, 0, FARBLK_EFFECT_NONE);
    assert_int_equal(fake.take_overs, 1);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
death_while_it_is_asked_ends_it(void **state)
{
    struct farblk *dev = fence_open(false);
    struct farblk_queue *queue = client_queue();
    (void)state;
    cancel_bounds = LONG;
    client_submit(queue, dev, FARBLK_OP_WRITE, 3, &iov, 1, TIMEOUT, 0);
    fake_drop(&fake, fence_next(WIRE_WRITE));
    fake_drop(&fake, fence_next(WIRE_CANCEL));
    fake_hang_up(&fake);
    fence_expect(queue, FARBLK_DISCONNECTED, FARBLK_EFFECT_UNKNOWN);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

/* A real server, whose disk holds everything up. */
static void
fence_at_server(const char *shm)
{
    struct farblk *dev;
    char uri[400];
    uint8_t found[512];
    struct farblk_queue *queue = client_queue();
    fixture_start(&fixture, NULL);
    snprintf(uri, sizeof uri, "farblk+unix:///disk?abstract=%s&shm=%s",
             fixture.url + strlen("abstract://"), shm);
    ok(farblk_open(uri, NULL, &dev));
    fixture_plug(&fixture);
    memset(data, 7, sizeof data);
    for (unsigned i = 0; i < 8; i++)
        client_submit(queue, dev, FARBLK_OP_WRITE, 0, &iov, 1, TIMEOUT, i);
    for (unsigned i = 0; i < 8; i++)
        fence_expect(queue, FARBLK_TIMED_OUT, FARBLK_EFFECT_NONE);
    fixture_unplug(&fixture);
    ok(support_read(dev, 0, found, sizeof found));
    assert_true(pattern_is_zero(found, sizeof found));
    ok(support_write(dev, 0, data, sizeof data, 0));
    ok(farblk_close(dev));
    ok(support_read(fixture.disk, 0, found, sizeof found));
    assert_int_equal(found[0], 7);
    farblk_queue_destroy(queue);
    fixture_end(&fixture);
}

static void
what_waits_at_the_server_has_had_no_effect(void **state)
{
    (void)state;
    cancel_bounds = LONG;
    fence_at_server("off");
    fence_at_server("require");
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, fixture_watch, fixture_clean)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_fenced_request_has_had_no_effect),
        TEST(an_outcome_that_comes_in_time_is_told),
        TEST(reads_and_flushes_are_given_up_at_once),
        TEST(nothing_follows_until_the_server_has_answered),
        TEST(many_at_once_are_all_asked_for),
        TEST(a_broken_connection_is_asked_again),
        TEST(a_new_connection_ends_the_doubt),
        TEST(death_while_it_is_asked_ends_it),
        TEST(what_waits_at_the_server_has_had_no_effect),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
