/* SPDX-License-Identifier: ISC */
/*
 * The server's sessions, asked by hand: who may ask, what is told, repeated
 * requests, handles.
 */
#include "tests/server_fixture.h"

static struct fixture fixture;
static struct peer peer, other;

/* ------------------------------------------------------------ sessions */

static void
hello_tells_session_limits_and_lease(void **state)
{
    struct codec_request request = {.method = WIRE_HELLO, .number = 7};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_connect(&peer, fixture.url);
    request.args.hello.version = 1;
    assert_int_equal(peer_ask(&peer, &request, &reply), 0);
    assert_int_equal(reply.number, 7);
    assert_int_equal(reply.result.hello.version, 1);
    assert_true(reply.result.hello.session != 0);
    assert_int_equal(reply.result.hello.lease_ms, 30000);
    assert_int_equal(reply.result.hello.limits.max_requests, 256);
    assert_int_equal(reply.result.hello.limits.max_octets, 64 << 20);
    assert_int_equal(reply.result.hello.limits.max_payload, 4 << 20);
    assert_int_equal(reply.result.hello.limits.max_header, 65536);
    assert_int_equal(reply.result.hello.limits.max_handles, 64);
    assert_int_equal(reply.result.hello.limits.max_extents, 4096);
    assert_string_equal(reply.result.hello.server, "farblkd 0.1.0");
    request.args.hello.version = 0;
    assert_int_equal(peer_ask(&peer, &request, &reply), FARBLK_PROTOCOL);
    request.args.hello.version = 9; /* we speak 1; the peer decides */
    assert_int_equal(peer_ask(&peer, &request, &reply), 0);
    assert_int_equal(reply.result.hello.version, 1);
    request.session = 5;
    assert_int_equal(peer_ask(&peer, &request, &reply), FARBLK_INVALID);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
hello_with_the_same_nonce_gets_the_same_session(void **state)
{
    struct codec_request request = {.method = WIRE_HELLO};
    struct codec_reply first, second, third;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_connect(&peer, fixture.url);
    peer_connect(&other, fixture.url);
    request.args.hello.version = 1;
    request.args.hello.has_nonce = true;
    memset(request.args.hello.nonce, 0x5a, WIRE_NONCE_SIZE);
    assert_int_equal(peer_ask(&peer, &request, &first), 0);
    assert_int_equal(peer_ask(&other, &request, &second), 0);
    assert_true(first.result.hello.session == second.result.hello.session);
    assert_memory_equal(first.result.hello.secret, second.result.hello.secret,
                        WIRE_SECRET_SIZE);
    request.args.hello.nonce[15] = 0;
    assert_int_equal(peer_ask(&other, &request, &third), 0);
    assert_true(first.result.hello.session != third.result.hello.session);
    peer_end(&peer);
    peer_end(&other);
    fixture_end(&fixture);
}

static void
only_who_knows_the_secret_speaks_for_a_session(void **state)
{
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    peer_connect(&other, fixture.url);
    struct codec_request ping = peer_request(&other, WIRE_PING, 0);
    assert_int_equal(peer_ask(&other, &ping, &reply), FARBLK_DENIED);
    assert_non_null(strstr(peer_text(), "Hello comes first"));
    ping.session = peer.session;
    assert_int_equal(peer_ask(&other, &ping, &reply), FARBLK_DENIED);
    ping.has_secret = true;
    memcpy(ping.secret, peer.secret, WIRE_SECRET_SIZE);
    ping.secret[WIRE_SECRET_SIZE - 1] ^= 1;
    assert_int_equal(peer_ask(&other, &ping, &reply), FARBLK_DENIED);
    ping.secret[WIRE_SECRET_SIZE - 1] ^= 1;
    assert_int_equal(peer_ask(&other, &ping, &reply), 0);
    /* From now on without it. */
    ping.has_secret = false;
    ping.number++;
    assert_int_equal(peer_ask(&other, &ping, &reply), 0);
    ping.session ^= 1;
    assert_int_equal(peer_ask(&other, &ping, &reply), FARBLK_DISCONNECTED);
    assert_non_null(strstr(peer_text(), "not known"));
    peer_end(&peer);
    peer_end(&other);
    fixture_end(&fixture);
}

static void
one_connection_carries_several_sessions(void **state)
{
    struct codec_reply reply;
    struct codec_request ping[5];
    (void)state;
    fixture_start(&fixture, NULL);
    peer_connect(&peer, fixture.url);
    for (unsigned i = 0; i < 5; i++) {
        peer_hello(&peer);
        ping[i] = peer_request(&peer, WIRE_PING, 0);
    }
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(peer_ask(&peer, &ping[i], &reply), 0);
    fixture_await(&fixture, stats, stats.sessions == 5);
    /* They held nothing, and end with their connection. */
    peer_end(&peer);
    fixture_await(&fixture, stats,
                  stats.sessions == 0 && stats.connections == 0);
    fixture_end(&fixture);
}

static void
ending_a_session_ends_its_handles_and_requests(void **state)
{
    struct codec_reply reply;
    uint8_t sector[512] = {1};
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    struct codec_request end = peer_request(&peer, WIRE_DISCONNECT, 0);
    assert_int_equal(peer_ask(&peer, &end, &reply), 0);
    fixture_await(&fixture, stats, stats.sessions == 0 && stats.handles == 0);
    assert_int_equal(peer_write(&peer, handle, 0, sector, 512),
                     FARBLK_DISCONNECTED);
    /* A repetition of the end gets its answer again. */
    assert_int_equal(peer_ask(&peer, &end, &reply), 0);
    peer_hello(&peer);
    peer_open(&peer, "disk");
    peer_end(&peer);
    fixture_end(&fixture);
}

/* ------------------------------------------------------------ repetition */

static void
repeated_write_is_executed_once(void **state)
{
    uint8_t first[512], second[512], read[512];
    struct codec_reply reply;
    (void)state;
    pattern_fill(first, sizeof first, 1);
    pattern_fill(second, sizeof second, 2);
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    struct codec_request write = peer_request(&peer, WIRE_WRITE, handle);
    write.args.range.sector = 9;
    write.args.range.count = 1;
    uint32_t id = peer_send(&peer, &write, first, 512);
    assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0), 0);
    assert_int_equal(peer_write(&peer, handle, 9, second, 512), 0);
    id = peer_send(&peer, &write, first, 512);
    assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0), 0);
    assert_int_equal(reply.number, write.number);
    assert_int_equal(reply.size_sectors, FIXTURE_SECTORS);
    assert_int_equal(peer_read(&peer, handle, 9, read, 512), 0);
    assert_memory_equal(read, second, 512);
    /* On another connection as well. */
    peer_connect(&other, fixture.url);
    write.has_secret = true;
    memcpy(write.secret, peer.secret, WIRE_SECRET_SIZE);
    id = peer_send(&other, &write, first, 512);
    assert_int_equal(peer_wait(&other, id, WIRE_WRITE, &reply, NULL, 0), 0);
    assert_int_equal(peer_read(&peer, handle, 9, read, 512), 0);
    assert_memory_equal(read, second, 512);
    /* As another method it is none. */
    write.method = WIRE_FLUSH;
    assert_int_equal(peer_ask(&peer, &write, &reply), FARBLK_CONFLICT);
    peer_end(&peer);
    peer_end(&other);
    fixture_end(&fixture);
}

static void
refused_write_stays_refused(void **state)
{
    uint8_t data[512], read[512];
    struct codec_reply reply;
    (void)state;
    pattern_fill(data, sizeof data, 1);
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    struct codec_request write = peer_request(&peer, WIRE_WRITE, handle);
    write.args.range.sector = 9;
    write.args.range.count = 1;
    uint32_t id = peer_send(&peer, &write, data, 511);
    assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0),
                     FARBLK_INVALID);
    assert_int_equal(reply.effect, FARBLK_EFFECT_NONE);
    /* A whole copy that comes after the refusal must not make it untrue. */
    id = peer_send(&peer, &write, data, 512);
    assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0),
                     FARBLK_INVALID);
    assert_int_equal(peer_read(&peer, handle, 9, read, 512), 0);
    assert_true(pattern_is_zero(read, sizeof read));
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
repeated_failure_is_told_again(void **state)
{
    uint8_t data[512] = {0};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    struct codec_request write = peer_request(&peer, WIRE_WRITE, handle);
    write.args.range.sector = FIXTURE_SECTORS;
    write.args.range.count = 1;
    for (unsigned i = 0; i < 2; i++) {
        uint32_t id = peer_send(&peer, &write, data, 512);
        assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0),
                         FARBLK_INVALID);
        assert_int_equal(reply.effect, FARBLK_EFFECT_NONE);
        assert_non_null(strstr(peer_text(), "past the end"));
    }
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
repeated_open_gets_the_same_handle(void **state)
{
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    struct codec_request open = peer_request(&peer, WIRE_OPEN, 0);
    strcpy(open.args.open.name, "disk");
    assert_int_equal(peer_ask(&peer, &open, &reply), 0);
    uint64_t handle = reply.result.open.handle;
    assert_int_equal(peer_ask(&peer, &open, &reply), 0);
    assert_true(reply.result.open.handle == handle);
    assert_int_equal(reply.result.open.info.size_sectors, FIXTURE_SECTORS);
    struct codec_request close = peer_request(&peer, WIRE_DISCONNECT, handle);
    assert_int_equal(peer_ask(&peer, &close, &reply), 0);
    assert_int_equal(peer_ask(&peer, &close, &reply), 0);
    assert_int_equal(peer_ask(&peer, &open, &reply), FARBLK_DISCONNECTED);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
running_request_answers_its_newest_copy(void **state)
{
    uint8_t data[1024] = {3};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    peer_connect(&other, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    fixture_plug(&fixture);
    struct codec_request write = peer_request(&peer, WIRE_WRITE, handle);
    write.args.range.count = 2;
    uint32_t first = peer_send(&peer, &write, data, sizeof data);
    fixture_await(&fixture, stats, stats.requests == 1);
    write.has_secret = true;
    memcpy(write.secret, peer.secret, WIRE_SECRET_SIZE);
    uint32_t second = peer_send(&other, &write, data, sizeof data);
    /* The copy is taken in when what comes after it is answered. */
    struct codec_request ping = peer_request(&peer, WIRE_PING, 0);
    assert_int_equal(peer_ask(&other, &ping, &reply), 0);
    fixture_await(&fixture, stats, stats.requests == 1);
    /* Even when the connection of the first copy has gone. */
    peer_end(&peer);
    fixture_unplug(&fixture);
    assert_int_equal(peer_wait(&other, second, WIRE_WRITE, &reply, NULL, 0), 0);
    assert_int_equal(reply.number, write.number);
    (void)first;
    peer_end(&other);
    fixture_end(&fixture);
}

static void
newest_copy_on_the_same_connection_is_answered_alone(void **state)
{
    uint8_t data[512] = {3};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    fixture_plug(&fixture);
    struct codec_request write = peer_request(&peer, WIRE_WRITE, handle);
    write.args.range.count = 1;
    uint32_t first = peer_send(&peer, &write, data, 512);
    uint32_t second = peer_send(&peer, &write, data, 512);
    struct codec_request ping = peer_request(&peer, WIRE_PING, 0);
    assert_int_equal(peer_ask(&peer, &ping, &reply), 0);
    fixture_await(&fixture, stats, stats.requests == 1);
    fixture_unplug(&fixture);
    assert_int_equal(peer_wait(&peer, second, WIRE_WRITE, &reply, NULL, 0), 0);
    ping = peer_request(&peer, WIRE_PING, 0);
    assert_int_equal(peer_ask(&peer, &ping, &reply), 0);
    assert_false(peer_has(&peer, first));
    fixture_await(&fixture, stats, stats.requests == 0 && stats.octets == 0);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
numbers_below_lowest_and_beyond_the_window_are_refused(void **state)
{
    uint8_t data[512] = {0};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    struct codec_request ping = peer_request(&peer, WIRE_PING, 0);
    ping.number = 0;
    assert_int_equal(peer_ask(&peer, &ping, &reply), FARBLK_INVALID);
    ping.number = 65537; /* lowest is 1 */
    assert_int_equal(peer_ask(&peer, &ping, &reply), FARBLK_INVALID);
    ping.number = 65536;
    assert_int_equal(peer_ask(&peer, &ping, &reply), 0);
    peer.number = 100;
    assert_int_equal(peer_write(&peer, handle, 0, data, 512), 0);
    ping.number = 101;
    ping.lowest = 102;
    assert_int_equal(peer_ask(&peer, &ping, &reply), FARBLK_INVALID);
    ping.lowest = 101;
    assert_int_equal(peer_ask(&peer, &ping, &reply), 0);
    /* Its kept status is forgotten: it could not be told from a new one. */
    peer.number = 100;
    assert_int_equal(peer_write(&peer, handle, 0, data, 512), FARBLK_CONFLICT);
    assert_non_null(strstr(peer_text(), "answered already"));
    /* A large step forgets as well. */
    ping.number = ping.lowest = UINT64_MAX - 1;
    assert_int_equal(peer_ask(&peer, &ping, &reply), 0);
    ping.number = ping.lowest = UINT64_MAX;
    assert_int_equal(peer_ask(&peer, &ping, &reply), 0);
    peer_end(&peer);
    fixture_end(&fixture);
}

/* ------------------------------------------------------------ handles */

static void
unknown_export_is_not_found(void **state)
{
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    struct codec_request open = peer_request(&peer, WIRE_OPEN, 0);
    strcpy(open.args.open.name, "no\nsuch");
    assert_int_equal(peer_ask(&peer, &open, &reply), FARBLK_NOT_FOUND);
    assert_non_null(strstr(peer_text(), "no?such"));
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
handles_belong_to_their_session(void **state)
{
    uint8_t data[512] = {0};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    peer_begin(&other, fixture.url);
    uint64_t mine = peer_open(&peer, "disk");
    uint64_t theirs = peer_open(&other, "disk");
    assert_true(mine != theirs);
    assert_int_equal(peer_write(&peer, theirs, 0, data, 512), FARBLK_NOT_FOUND);
    assert_int_equal(peer_write(&peer, 0, 0, data, 512), FARBLK_NOT_FOUND);
    assert_int_equal(peer_write(&peer, mine + 1, 0, data, 512),
                     FARBLK_NOT_FOUND);
    struct codec_request close = peer_request(&peer, WIRE_DISCONNECT, mine);
    assert_int_equal(peer_ask(&peer, &close, &reply), 0);
    assert_int_equal(peer_write(&peer, mine, 0, data, 512),
                     FARBLK_DISCONNECTED);
    close = peer_request(&peer, WIRE_DISCONNECT, mine);
    assert_int_equal(peer_ask(&peer, &close, &reply), 0);
    close = peer_request(&peer, WIRE_DISCONNECT, theirs);
    assert_int_equal(peer_ask(&peer, &close, &reply), FARBLK_NOT_FOUND);
    assert_int_equal(peer_write(&other, theirs, 0, data, 512), 0);
    peer_end(&peer);
    peer_end(&other);
    fixture_end(&fixture);
}

static void
disconnect_is_answered_when_nothing_can_land(void **state)
{
    uint8_t data[512] = {0};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    fixture_plug(&fixture);
    struct codec_request write = peer_request(&peer, WIRE_WRITE, handle);
    write.args.range.count = 1;
    uint32_t written = peer_send(&peer, &write, data, 512);
    struct codec_request close = peer_request(&peer, WIRE_DISCONNECT, handle);
    uint32_t closed = peer_send(&peer, &close, NULL, 0);
    close = peer_request(&peer, WIRE_DISCONNECT, handle);
    uint32_t again = peer_send(&peer, &close, NULL, 0);
    close = peer_request(&peer, WIRE_DISCONNECT, 0);
    uint32_t ended = peer_send(&peer, &close, NULL, 0);
    struct codec_request ping = peer_request(&peer, WIRE_PING, 0);
    /* The session ends: nothing else starts. */
    assert_int_equal(peer_ask(&peer, &ping, &reply), FARBLK_DISCONNECTED);
    assert_false(peer_has(&peer, written) || peer_has(&peer, closed)
                 || peer_has(&peer, again) || peer_has(&peer, ended));
    fixture_unplug(&fixture);
    assert_int_equal(peer_wait(&peer, written, WIRE_WRITE, &reply, NULL, 0), 0);
    assert_int_equal(peer_wait(&peer, closed, WIRE_DISCONNECT, &reply, NULL, 0),
                     0);
    assert_int_equal(peer_wait(&peer, again, WIRE_DISCONNECT, &reply, NULL, 0),
                     0);
    assert_int_equal(peer_wait(&peer, ended, WIRE_DISCONNECT, &reply, NULL, 0),
                     0);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
read_only_handle_refuses_changes(void **state)
{
    uint8_t data[512] = {0};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    struct codec_request open = peer_request(&peer, WIRE_OPEN, 0);
    strcpy(open.args.open.name, "disk");
    open.args.open.read_only = true;
    assert_int_equal(peer_ask(&peer, &open, &reply), 0);
    assert_false(reply.result.open.info.read_write);
    uint64_t handle = reply.result.open.handle;
    assert_int_equal(peer_write(&peer, handle, 0, data, 512),
                     FARBLK_IS_READ_ONLY);
    assert_int_equal(peer_read(&peer, handle, 0, data, 512), 0);
    peer_end(&peer);
    fixture_end(&fixture);
}

#define SERVER_TEST(name)                                                      \
    cmocka_unit_test_setup_teardown(name, fixture_watch, fixture_clean)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        SERVER_TEST(hello_tells_session_limits_and_lease),
        SERVER_TEST(hello_with_the_same_nonce_gets_the_same_session),
        SERVER_TEST(only_who_knows_the_secret_speaks_for_a_session),
        SERVER_TEST(one_connection_carries_several_sessions),
        SERVER_TEST(ending_a_session_ends_its_handles_and_requests),
        SERVER_TEST(repeated_write_is_executed_once),
        SERVER_TEST(refused_write_stays_refused),
        SERVER_TEST(repeated_failure_is_told_again),
        SERVER_TEST(repeated_open_gets_the_same_handle),
        SERVER_TEST(running_request_answers_its_newest_copy),
        SERVER_TEST(newest_copy_on_the_same_connection_is_answered_alone),
        SERVER_TEST(numbers_below_lowest_and_beyond_the_window_are_refused),
        SERVER_TEST(unknown_export_is_not_found),
        SERVER_TEST(handles_belong_to_their_session),
        SERVER_TEST(disconnect_is_answered_when_nothing_can_land),
        SERVER_TEST(read_only_handle_refuses_changes),
    };
    return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
