/* SPDX-License-Identifier: ISC */
/*
 * Links: the same for each transport, between two ends of ours.  An argument
 * picks one transport.
 */
#include "tests/link_ends.h"

#include <stdio.h>
#include <unistd.h>

static const char *scheme; /* of the group that runs */

/* A listener with one link, both ends in hand. */
struct pair {
    struct link_post post;
    struct link_end *server, *client;
};

static void
pair_open(struct pair *pair, const struct link_limits *server,
          const struct link_limits *client)
{
    support_watch(scheme);
    link_post_open(&pair->post, link_test_url(scheme), server);
    pair->client =
        link_end_dial(link_listener_url(pair->post.listener), client);
    pair->server = link_post_take(&pair->post);
}

static void
pair_close(struct pair *pair)
{
    link_end_close(pair->client);
    link_end_free(pair->server);
    link_post_close(&pair->post);
}

static bool
is_stream(void)
{
    return strcmp(scheme, "inproc") != 0 && strcmp(scheme, "ws") != 0;
}

static void
messages_of_every_size_come_back(void **state)
{
    static const size_t sizes[] = {
        0,     1,     2,     11,     511,    512,    4096,   16383,   16384,
        16385, 65535, 65536, 131072, 131073, 262144, 500000, 1048575, 1048576};
    static const size_t headers[] = {0, 1, 100, 4096, WIRE_HEADER_MAX};
    static const size_t pieces[] = {1, 3, 9, 200};
    struct pair pair = {.post.model.echo = true};
    unsigned sent = 0;

    (void)state;
    pair_open(&pair, &link_generous, &link_generous);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (size_t h = 0; h < 5; h++)
            for (size_t p = 0; p < 4; p++) {
                link_end_send(pair.client, sent + 7, headers[h], sizes[s],
                              pieces[p]);
                /* As many as these transports carry. */
                if (++sent >= 30)
                    link_end_wait(pair.client, &pair.client->frames, sent - 30);
            }
    link_end_wait(pair.client, &pair.client->frames, sent);
    assert_int_equal(link_end_get(pair.server, &pair.server->frames), sent);
    pair_close(&pair);
}

static void
many_small_messages_go_both_ways(void **state)
{
    struct pair pair = {.post.model.echo = true};
    const unsigned messages = 20000;

    (void)state;
    pair_open(&pair, &link_generous, &link_generous);
    for (unsigned i = 0; i < messages; i++) {
        link_end_send(pair.client, i, i % 50, i % 700, 1);
        if (i >= 30)
            link_end_wait(pair.client, &pair.client->frames, i - 30);
    }
    link_end_wait(pair.client, &pair.client->frames, messages);
    link_end_wait(pair.client, &pair.client->sents, messages);
    pair_close(&pair);
}

static void
payloads_may_be_thrown_away(void **state)
{
    struct pair pair = {.post.model.discard = true};

    (void)state;
    pair_open(&pair, &link_generous, &link_generous);
    for (unsigned i = 0; i < 20; i++)
        link_end_send(pair.client, i, 30, i * 50000, 1);
    link_end_wait(pair.server, &pair.server->frames, 20);
    pair_close(&pair);
}

static void
a_close_is_told_on_both_sides(void **state)
{
    struct pair pair = {0};

    (void)state;
    pair_open(&pair, &link_generous, &link_generous);
    link_close(pair.client->link, false);
    link_close(pair.client->link, true);
    link_end_wait(pair.client, &pair.client->closed, 1);
    assert_int_equal(pair.client->status, 0);
    link_end_wait_closed(pair.server);
    assert_int_equal(pair.server->status, FARBLK_CONNECTION_LOST);
    assert_non_null(strstr(pair.server->reason, "the peer closed"));
    link_end_free(pair.client);
    link_end_free(pair.server);
    link_post_close(&pair.post);
}

static void
a_refused_message_ends_the_link(void **state)
{
    struct pair pair = {.post.model.refuse = true};

    (void)state;
    pair_open(&pair, &link_generous, &link_generous);
    link_end_send(pair.client, 1, 5, 100, 1);
    link_end_wait(pair.server, &pair.server->closed, 1);
    assert_int_equal(pair.server->status, FARBLK_PROTOCOL);
    link_end_free(pair.server);
    link_end_free(pair.client);
    link_post_close(&pair.post);
}

static void
a_held_link_delivers_nothing_until_released(void **state)
{
    struct pair pair = {.post.model = {.echo = true, .hold_at_first = true}};

    (void)state;
    pair_open(&pair, &link_generous, &link_generous);
    for (unsigned i = 0; i < 20; i++)
        link_end_send(pair.client, i, 10, 20000, 1);
    link_end_wait(pair.client, &pair.client->frames, 1);
    assert_int_equal(link_end_get(pair.server, &pair.server->heads), 1);
    link_release(pair.server->link);
    link_end_wait(pair.client, &pair.client->frames, 20);
    link_hold(pair.server->link);
    link_release(pair.server->link);
    link_end_send(pair.client, 20, 10, 20000, 1);
    link_end_wait(pair.client, &pair.client->frames, 21);
    pair_close(&pair);
}

static void
a_held_link_can_be_closed(void **state)
{
    struct pair pair = {.post.model.hold_at_first = true};

    (void)state;
    pair_open(&pair, &link_generous, &link_generous);
    for (unsigned i = 0; i < 20; i++)
        link_end_send(pair.client, i, 10, 20000, 1);
    link_end_wait(pair.server, &pair.server->frames, 1);
    link_end_close(pair.server);
    link_end_free(pair.client);
    link_post_close(&pair.post);
}

static void
what_is_queued_is_sent_before_a_draining_close(void **state)
{
    struct pair pair = {0};

    (void)state;
    pair_open(&pair, &link_generous, &link_generous);
    for (unsigned i = 0; i < 30; i++)
        link_end_send(pair.server, i, 10, 30000, 1);
    link_close(pair.server->link, true);
    link_end_wait(pair.server, &pair.server->closed, 1);
    assert_int_equal(pair.server->status, 0);
    assert_int_equal(pair.server->sents, 30);
    link_end_wait_closed(pair.client);
    assert_int_equal(pair.client->frames, 30);
    link_end_free(pair.server);
    link_end_free(pair.client);
    link_post_close(&pair.post);
}

static void
a_draining_close_ends_with_the_peer(void **state)
{
    struct pair pair = {0};

    (void)state;
    pair_open(&pair, &link_generous, &link_generous);
    link_end_send(pair.server, 1, 10, 1000, 1);
    link_end_wait(pair.client, &pair.client->frames, 1);
    link_close(pair.server->link, true);
    link_end_close(pair.client);
    link_end_free(pair.server);
    link_post_close(&pair.post);
}

static void
what_is_sent_as_soon_as_a_link_is_accepted_arrives(void **state)
{
    struct pair pair = {.post.model.greets = 30};

    (void)state;
    pair_open(&pair, &link_generous, &link_generous);
    link_end_wait(pair.client, &pair.client->frames, 30);
    link_end_wait(pair.server, &pair.server->sents, 30);
    pair_close(&pair);
}

/* Fill the way to a peer that does not read: the rest stays queued. */
static unsigned
fill(struct pair *pair, struct link_message **last)
{
    unsigned sent = 0;

    pair->client->hold_at_first = true;
    for (; sent < 100; sent++)
        *last = link_end_send(pair->server, sent, 10, 1000000, 1);
    return sent;
}

static void
what_has_not_begun_can_be_recalled(void **state)
{
    struct pair pair = {0};
    struct link_message *last;

    (void)state;
    if (!is_stream())
        skip(); /* the socket takes all of it */
    pair_open(&pair, &link_generous, &link_generous);
    unsigned sent = fill(&pair, &last);
    assert_true(link_recall(pair.server->link, last));
    assert_false(link_recall(pair.server->link, last));
    link_end_recalled(last);
    link_release(pair.client->link);
    link_end_wait(pair.client, &pair.client->heads, 1);
    link_release(pair.client->link);
    link_end_wait(pair.client, &pair.client->frames, sent - 1);
    link_end_wait(pair.server, &pair.server->sents, sent - 1);
    pair_close(&pair);
}

static void
what_is_queued_at_a_close_is_given_back(void **state)
{
    struct pair pair = {0};
    struct link_message *last;

    (void)state;
    pair_open(&pair, &link_generous, &link_generous);
    unsigned sent = fill(&pair, &last);
    link_close(pair.server->link, false);
    link_end_wait(pair.server, &pair.server->closed, 1);
    assert_int_equal(pair.server->sents + pair.server->failed, sent);
    /* Whatever comes later is given back at once. */
    link_end_send(pair.server, 1, 10, 10, 1);
    assert_int_equal(pair.server->sents + pair.server->failed, sent + 1);
    link_end_free(pair.server);
    link_end_close(pair.client);
    link_post_close(&pair.post);
}

static void
a_payload_above_the_limit_ends_the_link(void **state)
{
    struct link_limits small = link_generous;
    struct pair pair = {0};

    (void)state;
    small.max_payload = 100000;
    pair_open(&pair, &small, &link_generous);
    link_end_send(pair.client, 1, 10, 100000, 1);
    link_end_wait(pair.server, &pair.server->frames, 1);
    link_end_send(pair.client, 2, 10, 100001, 1);
    link_end_wait(pair.server, &pair.server->closed, 1);
    assert_int_equal(pair.server->status, FARBLK_PROTOCOL);
    assert_non_null(strstr(pair.server->reason,
                           "payload of 100001 octets, the limit is "
                           "100000"));
    link_end_free(pair.server);
    link_end_free(pair.client);
    link_post_close(&pair.post);
}

static void
a_message_of_ours_that_can_not_be_is_given_back(void **state)
{
    struct pair pair = {0};

    (void)state;
    pair_open(&pair, &link_generous, &link_generous);
    link_end_send(pair.client, 1, WIRE_HEADER_MAX + 1, 0, 1);
    assert_int_equal(link_end_get(pair.client, &pair.client->failed), 1);
    pair_close(&pair);
}

static void
links_outlive_their_listener(void **state)
{
    struct pair pair = {.post.model.echo = true};

    (void)state;
    pair_open(&pair, &link_generous, &link_generous);
    link_post_close(&pair.post);
    link_end_send(pair.client, 1, 10, 1000, 1);
    link_end_wait(pair.client, &pair.client->frames, 1);
    link_end_close(pair.client);
    link_end_free(pair.server);
}

static void
a_closed_listener_leaves_its_address_free(void **state)
{
    struct link_post post = {0};
    char url[512];

    (void)state;
    support_watch(scheme);
    link_post_open(&post, link_test_url(scheme), &link_generous);
    snprintf(url, sizeof url, "%s", link_listener_url(post.listener));
    for (int i = 0; i < 5; i++) {
        link_end_close(link_end_dial(url, &link_generous));
        link_post_close(&post);
        link_post_open(&post, url, &link_generous);
        assert_string_equal(link_listener_url(post.listener), url);
    }
    link_post_close(&post);
}

static void
a_second_listener_is_told_that_the_address_is_in_use(void **state)
{
    struct link_listener_options options = {.limits = link_generous,
                                            .ipc_mode = 0600};
    struct link_listener *second;
    struct pair pair = {.post.model.echo = true};
    struct error error;

    (void)state;
    pair_open(&pair, &link_generous, &link_generous);
    assert_int_equal(link_listen(link_listener_url(pair.post.listener),
                                 &options, NULL, NULL, &second, &error),
                     FARBLK_BUSY);
    assert_null(second);
    /* And the first one does not care. */
    link_end_close(
        link_end_dial(link_listener_url(pair.post.listener), &link_generous));
    pair_close(&pair);
}

static void
both_ends_may_close_at_once(void **state)
{
    struct pair pair = {.post.model.echo = true};

    (void)state;
    for (int i = 0; i < 30; i++) {
        pair_open(&pair, &link_generous, &link_generous);
        for (unsigned n = 0; n < 30; n++)
            link_end_send(pair.client, n, 10, n * 3000, 2);
        link_close(pair.client->link, false);
        link_close(pair.server->link, i % 2);
        link_end_free(pair.client);
        link_end_free(pair.server);
        link_post_close(&pair.post);
    }
}

static void
the_peer_is_told(void **state)
{
    struct pair pair = {0};

    (void)state;
    pair_open(&pair, &link_generous, &link_generous);
    const struct link_peer *peer = link_peer(pair.server->link);
    assert_string_equal(peer->transport, scheme);
    assert_memory_equal(peer->text, scheme, strlen(scheme));
    assert_int_equal(peer->has_uid, strcmp(scheme, "ipc") == 0
                                        || strcmp(scheme, "abstract") == 0);
    if (peer->has_uid)
        assert_int_equal(peer->uid, getuid());
    assert_int_equal(peer->max_requests > 0, !is_stream());
    pair_close(&pair);
}

int
main(int argc, char **argv)
{
    static const char *const schemes[] = {"ipc", "abstract", "tcp", "inproc",
                                          "ws"};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_of_every_size_come_back),
        cmocka_unit_test(many_small_messages_go_both_ways),
        cmocka_unit_test(payloads_may_be_thrown_away),
        cmocka_unit_test(a_close_is_told_on_both_sides),
        cmocka_unit_test(a_refused_message_ends_the_link),
        cmocka_unit_test(a_held_link_delivers_nothing_until_released),
        cmocka_unit_test(a_held_link_can_be_closed),
        cmocka_unit_test(what_is_queued_is_sent_before_a_draining_close),
        cmocka_unit_test(a_draining_close_ends_with_the_peer),
        cmocka_unit_test(what_is_sent_as_soon_as_a_link_is_accepted_arrives),
        cmocka_unit_test(what_has_not_begun_can_be_recalled),
        cmocka_unit_test(what_is_queued_at_a_close_is_given_back),
        cmocka_unit_test(a_payload_above_the_limit_ends_the_link),
        cmocka_unit_test(a_message_of_ours_that_can_not_be_is_given_back),
        cmocka_unit_test(links_outlive_their_listener),
        cmocka_unit_test(a_closed_listener_leaves_its_address_free),
        cmocka_unit_test(a_second_listener_is_told_that_the_address_is_in_use),
        cmocka_unit_test(both_ends_may_close_at_once),
        cmocka_unit_test(the_peer_is_told),
    };
    int failed = 0, groups = 0;

    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        scheme = schemes[i];
        if (argc > 1 && strcmp(argv[1], scheme) != 0)
            continue;
        groups++;
        failed += cmocka_run_group_tests_name(scheme, tests, NULL, NULL);
    }
    support_watch(NULL);
    return failed + (groups == 0);
}
