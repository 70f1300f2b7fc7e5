/* SPDX-License-Identifier: ISC */
/*
 * Stream links before peers that break the rules: garbage, lengths that can not
 * be, peers that stop or vanish at each octet.
 */
#include "tests/link_ends.h"

#include "proto/sp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char *scheme; /* of the group that runs */

static bool
is_tcp(void)
{
    return strcmp(scheme, "tcp") == 0;
}

/* Connect a plain socket to where the post listens. */
static int
raw_connect(const char *url)
{
    const char *at = strstr(url, "://") + 3;
    int fd, result;

    if (is_tcp()) {
        struct sockaddr_in to = {.sin_family = AF_INET};
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        to.sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1));
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        result = connect(fd, (struct sockaddr *)&to, sizeof to);
    } else {
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        bool abstract = strcmp(scheme, "abstract") == 0;
        memcpy(to.sun_path + abstract, at, strlen(at));
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        result = connect(fd, (struct sockaddr *)&to,
                         (socklen_t)(offsetof(struct sockaddr_un, sun_path)
                                     + abstract + strlen(at)));
    }
    if (result != 0)
        fail_msg("connecting to %s: %s", url, strerror(errno));
    return fd;
}

static void
raw_send(int fd, const void *from, size_t length)
{
    /* The other side may have closed already: that is what is tested. */
    while (length > 0) {
        ssize_t sent = send(fd, from, length, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        from = (const uint8_t *)from + sent;
        length -= (size_t)sent;
    }
}

/* Connect to the post, and send. */
static int
raw_begin(struct link_post *post, const void *from, size_t length)
{
    int fd = raw_connect(link_listener_url(post->listener));

    raw_send(fd, from, length);
    return fd;
}

/* A greeting and a message of 20 + 100 octets, as a REQ peer sends it. */
static size_t
make_message(uint8_t *to)
{
    size_t at = SP_GREETING;

    sp_put_greeting(to, WIRE_SP_REQ);
    at += sp_put_prefix(to + at, !is_tcp(), 8 + 20 + 100);
    sp_put32(to + at, 0x80000007u);
    sp_put32(to + at + 4, 20);
    at += 8;
    for (size_t i = 0; i < 20; i++)
        to[at++] = (uint8_t)(7 + i);
    pattern_fill(to + at, 100, 0x80000007u);
    return at + 100;
}

static void
open_post(struct link_post *post, const struct link_limits *limits)
{
    support_watch(scheme);
    link_post_open(post, link_test_url(scheme), limits);
}

static void
peers_that_connect_and_close_at_once_do_no_harm(void **state)
{
    struct link_post post = {.model.echo = true};

    (void)state;
    open_post(&post, &link_generous);
    for (int i = 0; i < 300; i++) {
        int fd = raw_connect(link_listener_url(post.listener));
        struct linger hard = {.l_onoff = 1};
        if (i % 2)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        close(fd);
    }
    link_post_still_serves(&post);
    link_post_close(&post);
}

static void
a_peer_may_vanish_at_each_octet(void **state)
{
    struct link_post post = {.model.echo = true};
    uint8_t message[300];
    size_t whole;

    (void)state;
    open_post(&post, &link_generous);
    whole = make_message(message);
    for (size_t length = 0; length <= whole; length++) {
        int fd = raw_begin(&post, message, length);
        close(fd);
        struct link_end *end = link_post_take(&post);
        link_end_wait(end, &end->closed, 1);
        assert_int_equal(end->status, FARBLK_CONNECTION_LOST);
        assert_int_equal(end->frames, length == whole);
        assert_int_equal(end->heads, length >= whole - 100);
        link_end_free(end);
    }
    link_post_still_serves(&post);
    link_post_close(&post);
}

static void
octets_may_come_one_by_one(void **state)
{
    struct link_post post = {0};
    uint8_t message[300];

    (void)state;
    open_post(&post, &link_generous);
    size_t whole = make_message(message);
    int fd = raw_connect(link_listener_url(post.listener));
    for (size_t i = 0; i < whole; i++)
        raw_send(fd, message + i, 1);
    struct link_end *end = link_post_take(&post);
    link_end_wait(end, &end->frames, 1);
    close(fd);
    link_end_free(end);
    link_post_close(&post);
}

/* What is sent must end the link with PROTOCOL and such a reason. */
static void
is_refused(struct link_post *post, const void *from, size_t length,
           const char *why)
{
    char octet;
    int fd = raw_connect(link_listener_url(post->listener));

    raw_send(fd, from, length);
    struct link_end *end = link_post_take(post);
    link_end_wait(end, &end->closed, 1);
    if (end->status != FARBLK_PROTOCOL || strstr(end->reason, why) == NULL)
        fail_msg("%d, '%s' does not say '%s'", end->status, end->reason, why);
    assert_int_equal(end->frames, 0);
    link_end_free(end);
    /* And the connection is closed. */
    while (recv(fd, &octet, 1, 0) > 0)
        ;
    close(fd);
}

static void
what_breaks_the_framing_is_refused_with_its_values(void **state)
{
    struct link_post post = {0};
    uint8_t message[300];
    size_t frame = SP_GREETING + (is_tcp() ? 0 : 1), body = frame + 8;

    (void)state;
    open_post(&post, &link_generous);
    size_t whole = make_message(message);
    message[3] = 1;
    is_refused(&post, message, whole, "00 53 50 01 00 30 00 00");
    is_refused(&post, "GET / HTTP/1.1\r\n\r\n", 18, "47 45 54 20");
    make_message(message);
    message[5] = 0x31;
    is_refused(&post, message, whole, "0x0031, wanted is 0x0030");
    make_message(message);
    message[frame] = 0x80; /* 2^63 and something */
    is_refused(&post, message, whole, "frame of 9223372036854775936 octets");
    make_message(message);
    memset(message + frame, 0xff, 8);
    is_refused(&post, message, whole, "frame of 18446744073709551615 octets");
    make_message(message);
    message[frame + 7] = 7;
    is_refused(&post, message, whole, "frame of 7 octets, the least is 8");
    make_message(message);
    memset(message + body, 0, 36);
    is_refused(&post, message, whole, "no request id after 8 hops");
    make_message(message);
    sp_put32(message + body + 4, 121);
    is_refused(&post, message, whole,
               "header of 121 octets in a frame with 120 left");
    make_message(message);
    sp_put32(message + body + 4, UINT32_MAX);
    is_refused(&post, message, whole, "header of 4294967295 octets");
    make_message(message);
    sp_put32(message + frame + 4, 100000 + 8);
    sp_put32(message + body + 4, 65537);
    is_refused(&post, message, whole,
               "header of 65537 octets, the limit is 65536");
    make_message(message);
    sp_put32(message + frame + 4, (1u << 20) + 1 + 28);
    is_refused(&post, message, whole,
               "payload of 1048577 octets, the limit is 1048576");
    if (!is_tcp()) {
        make_message(message);
        message[SP_GREETING] = 0;
        is_refused(&post, message, whole, "type 0x00");
    }
    link_post_close(&post);
}

/* Deterministic noise behind a good greeting: any end but a crash or a hang. */
static void
noise_ends_the_link(void **state)
{
    struct link_post post = {0};
    struct rng rng = {.state = 4711};
    uint8_t message[2000];

    (void)state;
    open_post(&post, &link_generous);
    for (int round = 0; round < 300; round++) {
        size_t whole = make_message(message);
        for (size_t i = whole; i < sizeof message; i++)
            message[i] = (uint8_t)rng_next(&rng);
        size_t at = SP_GREETING + (size_t)rng_below(&rng, whole);
        message[at] ^= (uint8_t)(1 + rng_below(&rng, 255));
        int fd = raw_begin(&post, message, sizeof message);
        close(fd);
        struct link_end *end = link_post_take(&post);
        link_end_wait(end, &end->closed, 1);
        end->bad = 0; /* what it took for messages is not looked at */
        link_end_free(end);
    }
    link_post_close(&post);
}

/* ------------------------------------------------------------------------
 * Time
 */

/* With messages alone: a busy machine makes everybody slow to greet. */
static const struct link_limits hasty = {
    .max_payload = 1u << 20,
    .greeting_ms = SUPPORT_PATIENCE_MS,
    .frame_ms = 100,
};

static const struct link_limits unwelcoming = {
    .max_payload = 1u << 20, .greeting_ms = 100, .frame_ms = 100};

/* It was closed, for this reason.  False: so busy was the machine that the
 * other side's greeting did not go out in time either; once more then. */
static bool
times_out(struct link_post *post, int fd, const char *why)
{
    struct link_end *end = link_post_take(post);

    link_end_wait(end, &end->closed, 1);
    bool busy = strstr(end->reason, "takes nothing") != NULL;
    if (end->status != FARBLK_TIMED_OUT
        || (!busy && strstr(end->reason, why) == NULL))
        fail_msg("%d, '%s' does not say '%s'", end->status, end->reason, why);
    link_end_free(end);
    close(fd);
    return !busy;
}

static void
a_peer_without_a_greeting_is_closed(void **state)
{
    struct link_post post = {0};

    (void)state;
    open_post(&post, &unwelcoming);
    while (!times_out(&post, raw_begin(&post, "\0SP\0\0\x30\0", 7),
                      "no greeting within 100 ms"))
        ;
    link_post_close(&post);
}

static void
a_peer_that_stops_in_a_message_is_closed(void **state)
{
    struct link_post post = {0};
    uint8_t message[300];

    (void)state;
    open_post(&post, &hasty);
    size_t whole = make_message(message);
    for (size_t less = 1; less < whole - SP_GREETING;) {
        int fd = raw_begin(&post, message, whole - less);
        if (times_out(&post, fd, "not complete after 100 ms"))
            less += 40;
    }
    link_post_close(&post);
}

static void
a_peer_that_does_not_read_is_closed(void **state)
{
    struct link_post post = {0};
    uint8_t greeting[SP_GREETING];

    (void)state;
    open_post(&post, &hasty);
    sp_put_greeting(greeting, WIRE_SP_REQ);
    int fd = raw_begin(&post, greeting, sizeof greeting);
    struct link_end *end = link_post_take(&post);
    for (unsigned i = 0; i < 30; i++)
        link_end_send(end, i, 10, 1000000, 1);
    link_end_wait(end, &end->closed, 1);
    assert_int_equal(end->status, FARBLK_TIMED_OUT);
    assert_non_null(strstr(end->reason, "takes nothing"));
    assert_int_equal(end->sents + end->failed, 30);
    assert_true(end->failed > 0);
    link_end_free(end);
    close(fd);
    link_post_close(&post);
}

static void
a_peer_that_is_idle_stays(void **state)
{
    struct link_post post = {0};
    uint8_t message[300];
    char octets[64];
    struct link_end *end;
    size_t whole = make_message(message);
    int fd;

    (void)state;
    open_post(&post, &unwelcoming);
    for (;;) {
        fd = raw_begin(&post, message, whole);
        end = link_post_take(&post);
        if (link_end_frame_or_close(end))
            break;
        close(fd); /* it was too slow to greet: once more */
        link_end_free(end);
    }
    assert_int_equal(recv(fd, octets, SP_GREETING, MSG_WAITALL), SP_GREETING);
    struct pollfd closes = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&closes, 1, 3 * unwelcoming.frame_ms), 0);
    raw_send(fd, message + SP_GREETING, whole - SP_GREETING);
    link_end_wait(end, &end->frames, 2);
    close(fd);
    link_end_free(end);
    link_post_close(&post);
}

static void
a_drain_does_not_wait_for_ever(void **state)
{
    struct link_post post = {0};
    uint8_t greeting[SP_GREETING];

    (void)state;
    open_post(&post, &link_generous);
    sp_put_greeting(greeting, WIRE_SP_REQ);
    int fd = raw_begin(&post, greeting, sizeof greeting);
    struct link_end *end = link_post_take(&post);
    for (unsigned i = 0; i < 30; i++)
        link_end_send(end, i, 10, 1000000, 1);
    link_close(end->link, true);
    link_end_wait(end, &end->closed, 1);
    assert_int_equal(end->status, 0);
    assert_int_equal(end->sents + end->failed, 30);
    link_end_free(end);
    close(fd);
    link_post_close(&post);
}

/* What a peer sent before it closed is delivered, in full. */
static void
the_last_words_of_a_peer_are_heard(void **state)
{
    struct link_post post = {0};
    uint8_t message[300];

    (void)state;
    open_post(&post, &link_generous);
    size_t whole = make_message(message);
    for (int round = 0; round < 100; round++) {
        int fd = raw_begin(&post, message, whole);
        for (int i = 0; i < 50; i++)
            raw_send(fd, message + SP_GREETING, whole - SP_GREETING);
        char octets[SP_GREETING];
        recv(fd, octets, sizeof octets, MSG_WAITALL);
        close(fd);
        struct link_end *end = link_post_take(&post);
        link_end_wait(end, &end->closed, 1);
        assert_int_equal(end->frames, 51);
        assert_string_equal(end->reason, "the peer closed");
        link_end_free(end);
    }
    link_post_close(&post);
}

int
main(void)
{
    static const char *const schemes[] = {"ipc", "abstract", "tcp"};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peers_that_connect_and_close_at_once_do_no_harm),
        cmocka_unit_test(a_peer_may_vanish_at_each_octet),
        cmocka_unit_test(octets_may_come_one_by_one),
        cmocka_unit_test(what_breaks_the_framing_is_refused_with_its_values),
        cmocka_unit_test(noise_ends_the_link),
        cmocka_unit_test(a_peer_without_a_greeting_is_closed),
        cmocka_unit_test(a_peer_that_stops_in_a_message_is_closed),
        cmocka_unit_test(a_peer_that_does_not_read_is_closed),
        cmocka_unit_test(a_peer_that_is_idle_stays),
        cmocka_unit_test(a_drain_does_not_wait_for_ever),
        cmocka_unit_test(the_last_words_of_a_peer_are_heard),
    };
    int failed = 0;

    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        scheme = schemes[i];
        failed += cmocka_run_group_tests_name(scheme, tests, NULL, NULL);
    }
    support_watch(NULL);
    return failed;
}
