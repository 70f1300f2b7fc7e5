/* SPDX-License-Identifier: ISC */
/*
 * Peers whose messages are well framed and say what they may not, against a
 * real farblkd: unknown methods, handles and sessions of others, payloads of
 * another length.  Each gets an error; and after each a good client works.
 */
#include "tests/hostile.h"

#include <endian.h>
#include <unistd.h>

/* What is well framed and says nothing is answered, or closed: it may be
 * either. */
static void
header_that_does_not_parse_is_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 30; i++) {
        struct peer peer;
        uint8_t body[4 + 60];
        uint32_t length = htobe32(60);
        int status;

        assert_true(peer_init_stream(&peer, hostile_url()));
        memcpy(body, &length, 4);
        pattern_fill(body + 4, 60, i);
        status = peer_send(&peer, body, sizeof body);
        assert_int_not_equal(status, 0);
        peer_free(&peer);
        close(peer.fd);
    }
    hostile_expect_service();
}

static void
arguments_that_do_not_parse_are_an_error(void **state)
{
    Farblk__V1__RequestHeader header = FARBLK__V1__REQUEST_HEADER__INIT;
    uint8_t garbage[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    uint8_t body[256];
    struct peer peer;
    uint32_t length;

    (void)state;
    assert_true(peer_init_stream(&peer, hostile_url()));
    assert_int_equal(peer_hello(&peer), 0);
    assert_int_equal(peer_open(&peer, "disk"), 0);
    for (uint32_t method = 2; method <= 16; method++) {
        header.method = method;
        header.session = peer.session;
        header.number = header.lowest = ++peer.number;
        header.handle = peer.handle;
        header.args = (ProtobufCBinaryData){sizeof garbage, garbage};
        length = (uint32_t)farblk__v1__request_header__pack(&header, body + 4);
        *(uint32_t *)(void *)body = htobe32(length);
        assert_true(peer_send(&peer, body, 4 + length) < 0);
        assert_string_not_equal(peer.header->text, "");
    }
    peer_free(&peer);
    close(peer.fd);
    hostile_expect_service();
}

static void
unknown_method_is_unimplemented(void **state)
{
    static const uint32_t methods[] = {0, PEER_CANCEL + 1, 20, 1000,
                                       UINT32_MAX};
    Farblk__V1__PingRequest ping = FARBLK__V1__PING_REQUEST__INIT;
    struct peer peer;

    (void)state;
    assert_true(peer_init_stream(&peer, hostile_url()));
    assert_int_equal(peer_hello(&peer), 0);
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        assert_int_equal(peer_call(&peer, methods[i], &ping.base, NULL, 0),
                         FARBLK_UNIMPLEMENTED);
    assert_int_equal(peer_call(&peer, PEER_PING, &ping.base, NULL, 0), 0);
    peer_free(&peer);
    close(peer.fd);
    hostile_expect_service();
}

static void
handle_of_another_session_is_not_found(void **state)
{
    static const uint64_t guesses[] = {0, 1, 2, 3, 1000, UINT64_MAX};
    struct peer owner, thief;
    uint8_t buffer[PEER_SECTOR] = {1};

    (void)state;
    assert_true(peer_init_stream(&owner, hostile_url()));
    assert_int_equal(peer_hello(&owner), 0);
    assert_int_equal(peer_open(&owner, "disk"), 0);
    assert_true(peer_init_stream(&thief, hostile_url()));
    assert_int_equal(peer_hello(&thief), 0);
    assert_int_not_equal(thief.session, owner.session);
    thief.handle = owner.handle;
    assert_int_equal(peer_write(&thief, 900, 1, buffer), FARBLK_NOT_FOUND);
    for (size_t i = 0; i < sizeof guesses / sizeof *guesses; i++) {
        thief.handle = guesses[i];
        assert_int_equal(peer_read(&thief, 0, 1, buffer), FARBLK_NOT_FOUND);
    }
    assert_int_equal(peer_read(&owner, 0, 1, buffer), 0);
    peer_free(&owner);
    peer_free(&thief);
    close(owner.fd);
    close(thief.fd);
    hostile_expect_service();
}

static void
session_of_another_connection_needs_its_secret(void **state)
{
    struct peer owner, thief;
    uint8_t buffer[PEER_SECTOR] = {1};
    int fd;

    (void)state;
    assert_true(peer_init_stream(&owner, hostile_url()));
    assert_int_equal(peer_hello(&owner), 0);
    assert_int_equal(peer_open(&owner, "disk"), 0);
    /* On a connection of its own, with all but the secret. */
    assert_true(peer_init_stream(&thief, hostile_url()));
    fd = thief.fd;
    thief.session = owner.session;
    thief.handle = owner.handle;
    thief.number = owner.number;
    assert_int_equal(peer_write(&thief, 901, 1, buffer), FARBLK_DENIED);
    thief.send_secret = true;
    memset(thief.secret, 0x55, sizeof thief.secret);
    assert_int_equal(peer_write(&thief, 901, 1, buffer), FARBLK_DENIED);
    thief.session = owner.session + 1;
    assert_true(peer_write(&thief, 901, 1, buffer) < 0);
    thief.session = 0;
    assert_true(peer_write(&thief, 901, 1, buffer) < 0);
    /* The owner may move. */
    thief.session = owner.session;
    thief.number = owner.number;
    memcpy(thief.secret, owner.secret, sizeof thief.secret);
    assert_int_equal(peer_read(&thief, 901, 1, buffer), 0);
    assert_true(pattern_is_zero(buffer, sizeof buffer));
    peer_free(&owner);
    peer_free(&thief);
    close(owner.fd);
    close(fd);
    hostile_expect_service();
}

static void
payload_of_another_length_than_told_is_invalid(void **state)
{
    static const size_t lengths[] = {0, 1, 511, 513, 1023, 1025, 4096};
    Farblk__V1__WriteRequest write = FARBLK__V1__WRITE_REQUEST__INIT;
    Farblk__V1__ReadRequest read = FARBLK__V1__READ_REQUEST__INIT;
    struct peer peer;
    uint8_t buffer[4096], in[2 * PEER_SECTOR];

    (void)state;
    memset(buffer, 0xaa, sizeof buffer);
    assert_true(peer_init_stream(&peer, hostile_url()));
    assert_int_equal(peer_hello(&peer), 0);
    assert_int_equal(peer_open(&peer, "disk"), 0);
    write.sector = read.sector = 950;
    write.count = read.count = 2;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        assert_int_equal(
            peer_call(&peer, PEER_WRITE, &write.base, buffer, lengths[i]),
            FARBLK_INVALID);
    /* Counts whose octets overflow to what was sent. */
    write.count = ((uint64_t)1 << 55) + 2;
    assert_int_equal(peer_call(&peer, PEER_WRITE, &write.base, buffer, 1024),
                     FARBLK_INVALID);
    write.count = UINT64_MAX;
    assert_int_equal(peer_call(&peer, PEER_WRITE, &write.base, buffer, 1024),
                     FARBLK_INVALID);
    /* Data where none belongs. */
    assert_int_equal(peer_call(&peer, PEER_READ, &read.base, buffer, 1024),
                     FARBLK_INVALID);
    assert_int_equal(peer_read(&peer, 950, 2, in), 0);
    assert_true(pattern_is_zero(in, sizeof in));
    peer_free(&peer);
    close(peer.fd);
    hostile_expect_service();
}

/* --max-payload is small here.  An error for what fits into a frame; what a
 * frame may not be is closed. */
static void
payload_above_the_limit_is_refused(void **state)
{
    Farblk__V1__WriteRequest write = FARBLK__V1__WRITE_REQUEST__INIT;
    Farblk__V1__ReadRequest read = FARBLK__V1__READ_REQUEST__INIT;
    size_t size = (1 << 17) + PEER_SECTOR;
    uint8_t *buffer = calloc(1, size);
    struct peer peer;
    int status;

    (void)state;
    assert_non_null(buffer);
    assert_true(peer_init_stream(&peer, hostile_url()));
    assert_int_equal(peer_hello(&peer), 0);
    assert_int_equal(peer_open(&peer, "disk"), 0);
    read.count = size / PEER_SECTOR;
    assert_int_equal(peer_call(&peer, PEER_READ, &read.base, NULL, 0),
                     FARBLK_INVALID);
    write.count = read.count;
    memset(buffer, 1, size);
    status = peer_call(&peer, PEER_WRITE, &write.base, buffer, size);
    assert_int_not_equal(status, 0);
    peer_free(&peer);
    close(peer.fd);
    free(buffer);
    hostile_expect_service();
}

/* Asks for much and takes nothing: its replies may not hold up the others. */
static void
peer_that_does_not_read_its_replies_holds_up_nobody(void **state)
{
    Farblk__V1__ReadRequest read = FARBLK__V1__READ_REQUEST__INIT;
    struct peer peer;
    uint8_t frame[16];
    size_t sent = 0;

    (void)state;
    assert_true(peer_init_stream(&peer, hostile_url()));
    assert_int_equal(peer_hello(&peer), 0);
    assert_int_equal(peer_open(&peer, "disk"), 0);
    read.count = 128;
    for (unsigned i = 0; i < 400; i++) {
        size_t length, head;
        uint32_t id = htobe32(0x80000000u | i);
        uint8_t *body =
            peer_pack(&peer, PEER_READ, &read.base, NULL, 0, &length);
        uint8_t *all = malloc(16 + length);

        head = hostile_frame(frame, length + 4);
        memcpy(all, frame, head);
        memcpy(all + head, &id, 4);
        memcpy(all + head + 4, body, length);
        /* The server may hold us back: then that was enough. */
        if (send(peer.fd, all, head + 4 + length, MSG_NOSIGNAL | MSG_DONTWAIT)
            == (ssize_t)(head + 4 + length))
            sent++;
        free(all);
        free(body);
    }
    assert_true(sent > 0);
    for (unsigned i = 0; i < 5; i++)
        hostile_expect_service();
    peer_free(&peer);
    close(peer.fd);
    hostile_expect_service();
}

static void
good_peer_is_served_by_this_server(void **state)
{
    struct peer peer;

    (void)state;
    assert_true(peer_init_stream(&peer, hostile_url()));
    peer_exercise(&peer, 10, 1);
    close(peer.fd);
    assert_true(peer_init_stream(&peer, hostile_url()));
    peer.send_secret = true;
    peer_exercise(&peer, 20, 2);
    close(peer.fd);
}

int
main(void)
{
    struct CMUnitTest tests[] = {
        HOSTILE(header_that_does_not_parse_is_refused),
        HOSTILE(arguments_that_do_not_parse_are_an_error),
        HOSTILE(unknown_method_is_unimplemented),
        HOSTILE(handle_of_another_session_is_not_found),
        HOSTILE(session_of_another_connection_needs_its_secret),
        HOSTILE(payload_of_another_length_than_told_is_invalid),
        HOSTILE(payload_above_the_limit_is_refused),
        HOSTILE(peer_that_does_not_read_its_replies_holds_up_nobody),
        HOSTILE(good_peer_is_served_by_this_server),
    };

    return hostile_run(tests, sizeof tests / sizeof *tests);
}
