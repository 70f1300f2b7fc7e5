/* SPDX-License-Identifier: ISC */
/*
 * Peers that break the framing of the wire, on purpose, against a real farblkd.
 * Each gets a closed connection with a logged reason; and after each a good
 * client works.
 */
#include "tests/hostile.h"

#include <endian.h>
#include <unistd.h>

static const uint8_t greeting[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};

static void
garbage_instead_of_a_greeting_is_closed(void **state)
{
    uint8_t garbage[4096];

    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        int fd = hostile_connect(false);

        pattern_fill(garbage, sizeof garbage, i);
        peer_send_all(fd, garbage, i == 0 ? 8 : 1 + i * 200);
        if (i == 0)
            hostile_expect_closed(fd, "closed: ");
        else {
            assert_true(peer_is_closed(fd));
            close(fd);
        }
    }
    hostile_expect_service();
}

static void
greeting_of_another_protocol_is_closed(void **state)
{
    static const uint8_t others[][8] = {
        {0, 'S', 'P', 0, 0, 0x31, 0, 0},
        {0, 'S', 'P', 0, 0, 0x10, 0, 0},
        {0, 'S', 'P', 1, 0, 0x30, 0, 0},
        {0, 'S', 'P', 0, 0, 0x30, 0, 1},
        {'G', 'E', 'T', ' ', '/', ' ', 'H', 'T'},
    };

    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        int fd = hostile_connect(false);

        assert_true(peer_send_all(fd, others[i], 8));
        hostile_expect_closed(fd, "closed: ");
    }
}

static void
garbage_after_the_greeting_is_closed(void **state)
{
    uint8_t garbage[4096];

    (void)state;
    for (unsigned i = 1; i < 20; i++) {
        size_t before = hostile_closed();
        int fd = hostile_connect(true);

        pattern_fill(garbage, sizeof garbage, i);
        garbage[hostile_rig->way.transport == IPC ? 1 : 0] |= 0x80;
        peer_send_all(fd, garbage, sizeof garbage);
        hostile_expect_closed(fd, "closed: ");
        assert_true(hostile_closed() > before);
    }
}

static void
connecting_and_closing_at_once_harms_nobody(void **state)
{
    int fds[50];

    (void)state;
    for (unsigned i = 0; i < 300; i++) {
        int fd = peer_connect(hostile_url(), false);

        if (fd >= 0)
            close(fd);
    }
    hostile_expect_service();
    /* Some with a greeting, many at once. */
    for (unsigned i = 0; i < 50; i++)
        fds[i] = peer_connect(hostile_url(), false);
    for (unsigned i = 0; i < 50; i++)
        if (fds[i] >= 0 && i % 2 == 0)
            peer_send_all(fds[i], greeting, 3 + i % 6);
    for (unsigned i = 0; i < 50; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    hostile_expect_service();
}

/* --frame-timeout is short here. */
static void
stopping_in_the_middle_of_a_frame_is_closed(void **state)
{
    uint8_t frame[64] = {0};
    size_t head = hostile_frame(frame, 40),
           stops[] = {1, 5, head, head + 2, head + 7, head + 39};
    int fds[sizeof stops / sizeof *stops];

    (void)state;
    frame[head] = 0x80;
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        fds[i] = hostile_connect(true);
        assert_true(peer_send_all(fds[i], frame, stops[i]));
    }
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++)
        hostile_expect_closed(fds[i], "closed: ");
}

/* --hello-timeout is short here. */
static void
saying_nothing_is_closed(void **state)
{
    int silent = hostile_connect(false), polite = hostile_connect(true);

    (void)state;

    hostile_expect_closed(silent, "closed: ");
    hostile_expect_closed(polite, "closed: no Hello in time");
}

static void
lengths_beyond_every_limit_are_closed(void **state)
{
    static const uint64_t lengths[] = {
        (uint64_t)1 << 63,
        UINT64_MAX,
        INT64_MAX,
        (uint64_t)1 << 32,
        (uint64_t)1 << 40,
        (uint64_t)1 << 31,
        0,
        1,
        3,
    };

    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint8_t frame[16 + 4096] = {0};
        int fd = hostile_connect(true);
        size_t head = hostile_frame(frame, lengths[i]);

        frame[head] = 0x80;
        peer_send_all(fd, frame,
                      lengths[i] < 8 ? head + lengths[i] : sizeof frame);
        hostile_expect_closed(fd, "closed: frame of ");
    }
}

static void
header_length_beyond_its_frame_is_closed(void **state)
{
    static const uint32_t lengths[] = {25,        65537,    1u << 20,
                                       INT32_MAX, 1u << 31, UINT32_MAX};

    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint8_t frame[64] = {0};
        int fd = hostile_connect(true);
        size_t head = hostile_frame(frame, 32);
        uint32_t length = htobe32(lengths[i]);

        frame[head] = 0x80;
        memcpy(frame + head + 4, &length, 4);
        assert_true(peer_send_all(fd, frame, head + 32));
        hostile_expect_closed(fd, "closed: header of ");
    }
}

static void
stack_without_an_end_is_closed(void **state)
{
    uint8_t frame[16 + 400] = {0};
    size_t head = hostile_frame(frame, 400);
    int fd = hostile_connect(true);

    (void)state;
    assert_true(peer_send_all(fd, frame, head + 400));
    hostile_expect_closed(fd, "closed: ");
    /* All of it hops, and then nothing. */
    head = hostile_frame(frame, 16);
    fd = hostile_connect(true);
    assert_true(peer_send_all(fd, frame, head + 16));
    hostile_expect_closed(fd, "closed: ");
}

int
main(void)
{
    struct CMUnitTest tests[] = {
        HOSTILE(garbage_instead_of_a_greeting_is_closed),
        HOSTILE(greeting_of_another_protocol_is_closed),
        HOSTILE(garbage_after_the_greeting_is_closed),
        HOSTILE(connecting_and_closing_at_once_harms_nobody),
        HOSTILE(stopping_in_the_middle_of_a_frame_is_closed),
        HOSTILE(saying_nothing_is_closed),
        HOSTILE(lengths_beyond_every_limit_are_closed),
        HOSTILE(header_length_beyond_its_frame_is_closed),
        HOSTILE(stack_without_an_end_is_closed),
    };

    return hostile_run(tests, sizeof tests / sizeof *tests);
}
