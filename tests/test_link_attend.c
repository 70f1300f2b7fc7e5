/* SPDX-License-Identifier: ISC */
/*
 * Links whose messages are received by the thread that waits for them, and
 * messages that wait for others.
 */
#include "proto/link_stream.h"
#include "tests/link_ends.h"

#include "core/timer.h"

/* A link to a peer that sends back what it gets. */
struct pair {
    struct link_post post;
    struct link_end *server, *client;
    uint32_t id;
};

static void
pair_open(struct pair *pair, bool echo)
{
    memset(pair, 0, sizeof *pair);
    pair->post.model.echo = echo;
    link_post_open(&pair->post, link_test_url("abstract"), &link_generous);
    pair->client =
        link_end_dial(link_listener_url(pair->post.listener), &link_generous);
    pair->server = link_post_take(&pair->post);
}

static void
pair_close(struct pair *pair)
{
    link_end_close(pair->client);
    link_end_free(pair->server);
    link_post_close(&pair->post);
}

static void
attendance_init(struct link_end *end, struct attendance *attendance)
{
    atomic_init(&attendance->woken, false);
    attendance->thread = pthread_self();
    pthread_mutex_lock(&end->mutex);
    end->attendance = attendance;
    pthread_mutex_unlock(&end->mutex);
}

static void
attendance_fini(struct link_end *end)
{
    pthread_mutex_lock(&end->mutex);
    end->attendance = NULL;
    pthread_mutex_unlock(&end->mutex);
}

/* One message there and back; whether this thread received the answer. */
static bool
exchange(struct pair *pair, size_t length)
{
    struct link_end *end = pair->client;
    struct attendance attendance;
    unsigned frames = link_end_get(end, &end->frames);

    attendance_init(end, &attendance);
    link_end_send(end, pair->id++, 20, length, 3);
    bool attended = link_attend(end->link, &attendance, -1);
    link_end_wait(end, &end->frames, frames + 1);
    if (!attended)
        link_left(end->link);
    attendance_fini(end);
    return attended && pthread_equal(end->by, pthread_self());
}

/* Exchange until this thread receives by itself. */
static void
settle(struct pair *pair)
{
    for (unsigned i = 0; i < 1000; i++)
        if (exchange(pair, 100))
            return;
    fail_msg("nobody may attend");
}

static void
the_thread_that_waits_receives_by_itself(void **state)
{
    static const size_t sizes[] = {0, 1, 4096, 300000, 1u << 20};
    struct pair pair;
    unsigned own = 0;

    (void)state;
    pair_open(&pair, true);
    settle(&pair);
    for (unsigned i = 0; i < 500; i++)
        own += exchange(&pair, sizes[i % 5]);
    /* Not each time, if this thread was kept from running for a while. */
    assert_true(own > 0);
    assert_int_equal(pair.client->bad, 0);
    pair_close(&pair);
}

static void
without_anything_to_receive_attending_ends_in_time(void **state)
{
    struct pair pair;
    struct attendance attendance;

    (void)state;
    pair_open(&pair, true);
    for (unsigned i = 0; i < 3; i++) {
        settle(&pair);
        attendance_init(pair.client, &attendance);
        int64_t until = i == 0 ? 0 : timer_now() + i * 20;
        if (!link_attend(pair.client->link, &attendance, until))
            link_left(pair.client->link);
        else
            assert_true(timer_now() >= until);
        attendance_fini(pair.client);
        assert_false(atomic_load(&attendance.woken));
    }
    pair_close(&pair);
}

struct waker {
    struct link *link;
    struct attendance *attendance;
};

static void *
wake(void *arg)
{
    struct waker *waker = arg;

    link_wake(waker->link, waker->attendance);
    return NULL;
}

static void
another_thread_wakes_the_one_that_attends(void **state)
{
    struct pair pair;
    pthread_t thread;

    (void)state;
    pair_open(&pair, true);
    /* Before, while and after it begins to wait. */
    for (unsigned i = 0; i < 200; i++) {
        struct attendance attendance;
        struct waker waker = {pair.client->link, &attendance};
        settle(&pair);
        attendance_init(pair.client, &attendance);
        assert_int_equal(pthread_create(&thread, NULL, wake, &waker), 0);
        if (!link_attend(pair.client->link, &attendance, -1))
            link_left(pair.client->link);
        pthread_join(thread, NULL);
        assert_true(atomic_load(&attendance.woken));
        attendance_fini(pair.client);
    }
    pair_close(&pair);
}

static void
the_links_end_ends_attending(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 30; i++) {
        struct pair pair;
        struct attendance attendance;
        pair_open(&pair, true);
        settle(&pair);
        attendance_init(pair.client, &attendance);
        link_close(i % 2 == 0 ? pair.server->link : pair.client->link, false);
        if (!link_attend(pair.client->link, &attendance, -1))
            link_left(pair.client->link);
        link_end_wait(pair.client, &pair.client->closed, 1);
        assert_false(link_attend(pair.client->link, &attendance, -1));
        link_left(pair.client->link);
        attendance_fini(pair.client);
        link_end_free(pair.client);
        link_end_free(pair.server);
        link_post_close(&pair.post);
    }
}

static void
what_comes_when_nobody_attends_any_more_is_received(void **state)
{
    struct pair pair;

    (void)state;
    pair_open(&pair, true);
    for (unsigned i = 0; i < 5; i++) {
        settle(&pair);
        link_end_send(pair.client, pair.id++, 5, 70000, 2);
        link_end_wait(pair.client, &pair.client->frames,
                      link_end_get(pair.server, &pair.server->frames));
    }
    link_end_wait(pair.client, &pair.client->frames, pair.id);
    assert_false(pthread_equal(pair.client->by, pthread_self()));
    /* And at once, when somebody says that he waits in another way. */
    settle(&pair);
    link_mind(pair.client->link, false);
    link_end_send(pair.client, pair.id++, 5, 10, 1);
    link_end_wait(pair.client, &pair.client->frames, pair.id);
    pair_close(&pair);
}

/* Whether some thread of nng's receives. */
static bool
is_received(struct link_end *end)
{
    struct stream_link *link = (struct stream_link *)(void *)end->link;

    pthread_mutex_lock(&link->mutex);
    bool received = link->receiving;
    pthread_mutex_unlock(&link->mutex);
    return received;
}

/* A large message comes in pieces: nobody is woken before its end. */
static void
only_a_waiter_that_was_woken_is_left_the_receiving(void **state)
{
    struct pair pair;
    struct attendance attendance;

    (void)state;
    pair_open(&pair, true);
    struct link_end *end = pair.client;
    link_end_send(end, pair.id++, 5, 5, 1); /* its greeting is here then */
    link_end_wait(end, &end->frames, 1);
    atomic_init(&attendance.woken, false);
    attendance.thread = pthread_self();
    assert_false(link_attend(end->link, &attendance, -1));
    for (unsigned i = 0; i < 20; i++) {
        link_end_send(end, pair.id++, 5, 1u << 20, 2);
        link_end_wait(end, &end->frames, pair.id);
        assert_true(is_received(end));
    }
    attendance_init(end, &attendance); /* frames wake it from now on */
    for (unsigned i = 0; i < 1000 && is_received(end); i++) {
        atomic_store(&attendance.woken, false);
        link_end_send(end, pair.id++, 5, 5, 1);
        link_end_wait(end, &end->frames, pair.id);
        sched_yield();
    }
    link_left(end->link);
    attendance_fini(end);
    pair_close(&pair);
}

static void
a_minded_link_is_never_attended(void **state)
{
    struct pair pair;

    (void)state;
    pair_open(&pair, true);
    settle(&pair);
    link_mind(pair.client->link, true);
    for (unsigned i = 0; i < 100; i++)
        assert_false(exchange(&pair, i * 100));
    pair_close(&pair);
}

/* Two threads, each with its own messages: whoever attends brings the other's
 * too, and nothing is left lying. */
struct sharer {
    struct pair *pair;
    pthread_mutex_t *mutex;
};

static void *
share(void *arg)
{
    struct sharer *sharer = arg;
    struct link_end *end = sharer->pair->client;

    for (unsigned i = 0; i < 300; i++) {
        struct attendance attendance;
        atomic_init(&attendance.woken, false);
        attendance.thread = pthread_self();
        pthread_mutex_lock(sharer->mutex);
        uint32_t id = sharer->pair->id++;
        pthread_mutex_unlock(sharer->mutex);
        link_end_send(end, id, 7, i * 10, 1);
        /* Not told by frames: this one leaves by itself. */
        if (!link_attend(end->link, &attendance, timer_now() + 1))
            link_left(end->link);
    }
    return NULL;
}

static void
several_threads_take_turns(void **state)
{
    struct pair pair;
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    struct sharer sharer = {&pair, &mutex};
    pthread_t threads[3];

    (void)state;
    pair_open(&pair, true);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, share, &sharer), 0);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    link_end_wait(pair.client, &pair.client->frames, 900);
    assert_int_equal(pair.client->bad, 0);
    pair_close(&pair);
}

static void
messages_that_may_wait_go_with_the_next(void **state)
{
    struct pair pair;
    unsigned sent = 0;

    (void)state;
    pair_open(&pair, false);
    /* With one that may not. */
    for (; sent < 5; sent++)
        link_end_send_more(pair.client, sent, 100);
    assert_int_equal(link_end_get(pair.client, &pair.client->sents), 0);
    link_end_send(pair.client, sent++, 1, 1, 1);
    link_end_wait(pair.server, &pair.server->frames, sent);
    /* When it is asked for. */
    link_end_send_more(pair.client, sent++, 5000);
    link_end_send_more(pair.client, sent++, 50000);
    assert_int_equal(link_end_get(pair.client, &pair.client->sents), sent - 2);
    link_push(pair.client->link);
    link_end_wait(pair.server, &pair.server->frames, sent);
    link_push(pair.client->link);
    /* When there are many. */
    for (unsigned i = 0; i < 100; i++)
        link_end_send_more(pair.client, sent++, 10);
    link_end_wait(pair.server, &pair.server->frames, sent - 20);
    /* Or not at all, if the link ends. */
    link_end_send_more(pair.client, sent++, 10);
    unsigned least = link_end_get(pair.client, &pair.client->sents);
    link_close(pair.client->link, false);
    link_end_wait(pair.client, &pair.client->closed, 1);
    assert_true(link_end_get(pair.client, &pair.client->sents) >= least);
    assert_int_equal(link_end_get(pair.client, &pair.client->sents)
                         + link_end_get(pair.client, &pair.client->failed),
                     sent);
    assert_int_equal(pair.server->bad, 0);
    link_end_free(pair.client);
    link_end_free(pair.server);
    link_post_close(&pair.post);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_thread_that_waits_receives_by_itself),
        cmocka_unit_test(without_anything_to_receive_attending_ends_in_time),
        cmocka_unit_test(another_thread_wakes_the_one_that_attends),
        cmocka_unit_test(the_links_end_ends_attending),
        cmocka_unit_test(what_comes_when_nobody_attends_any_more_is_received),
        cmocka_unit_test(only_a_waiter_that_was_woken_is_left_the_receiving),
        cmocka_unit_test(a_minded_link_is_never_attended),
        cmocka_unit_test(several_threads_take_turns),
        cmocka_unit_test(messages_that_may_wait_go_with_the_next),
    };

    support_watch("link_attend");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
