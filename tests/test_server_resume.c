/* SPDX-License-Identifier: ISC */
/*
 * A session that goes on over a new connection, asked by hand: what the old one
 * may still do (nothing), what the server has kept, and when it is too late.
 */
#include "tests/server_fixture.h"

#include "server/session.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SECTOR 512u

static uint8_t sector[2][SECTOR];

/* The Ping that takes `from`'s session over to `to`. */
static struct codec_request
take_over_ping(struct peer *to, const struct peer *from)
{
    to->session = from->session;
    memcpy(to->secret, from->secret, WIRE_SECRET_SIZE);
    to->number = from->number;
    to->lowest = from->lowest;
    struct codec_request ping = peer_request(to, WIRE_PING, 0);
    ping.has_secret = true;
    memcpy(ping.secret, to->secret, WIRE_SECRET_SIZE);
    ping.args.ping.take_over = true;
    return ping;
}

/* A new connection that goes on with `from`'s session. */
static void
take_over(struct peer *to, const struct peer *from, const char *url)
{
    struct codec_reply reply;
    peer_connect(to, url);
    struct codec_request ping = take_over_ping(to, from);
    assert_int_equal(peer_ask(to, &ping, &reply), 0);
}

static struct codec_request
write_request(struct peer *peer, uint64_t handle, uint64_t at)
{
    struct codec_request request = peer_request(peer, WIRE_WRITE, handle);
    request.args.range.sector = at;
    request.args.range.count = 1;
    return request;
}

static int
send_write(struct peer *peer, const struct codec_request *request,
           const void *data)
{
    struct codec_reply reply;
    uint32_t id = peer_send(peer, request, data, SECTOR);
    return peer_wait(peer, id, WIRE_WRITE, &reply, NULL, 0);
}

static void
an_outcome_that_was_not_heard_is_told_to_the_new_connection(void **state)
{
    struct fixture fixture;
    struct peer old, new;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&old, fixture.url);
    uint64_t handle = peer_open(&old, "disk");
    struct codec_request first = write_request(&old, handle, 5);
    struct codec_request wrong = write_request(&old, handle, FIXTURE_SECTORS);
    memset(sector[0], 1, SECTOR);
    assert_int_equal(send_write(&old, &first, sector[0]), 0);
    assert_int_equal(send_write(&old, &wrong, sector[0]), FARBLK_INVALID);
    take_over(&new, &old, fixture.url);
    peer_wait_closed(&old); /* nobody is left to speak for there */
    /* Other data, by which it would be seen that a copy was executed. */
    memset(sector[1], 2, SECTOR);
    assert_int_equal(send_write(&new, &first, sector[1]), 0);
    assert_int_equal(send_write(&new, &wrong, sector[1]), FARBLK_INVALID);
    assert_int_equal(peer_read(&new, handle, 5, sector[1], SECTOR), 0);
    assert_memory_equal(sector[0], sector[1], SECTOR);
    peer_end(&old);
    peer_end(&new);
    fixture_end(&fixture);
}

static void
a_request_that_runs_answers_the_new_connection(void **state)
{
    struct fixture fixture;
    struct peer old, new;
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&old, fixture.url);
    uint64_t handle = peer_open(&old, "disk");
    fixture_plug(&fixture);
    struct codec_request first = write_request(&old, handle, 5);
    memset(sector[0], 1, SECTOR);
    peer_send(&old, &first, sector[0], SECTOR);
    fixture_await(&fixture, stats, stats.requests == 1);
    take_over(&new, &old, fixture.url);
    peer_end(&old);
    memset(sector[1], 2, SECTOR);
    uint32_t id = peer_send(&new, &first, sector[1], SECTOR);
    struct codec_request ping = peer_request(&new, WIRE_PING, 0);
    assert_int_equal(peer_ask(&new, &ping, &reply), 0);
    assert_false(peer_has(&new, id));
    fixture_unplug(&fixture);
    assert_int_equal(peer_wait(&new, id, WIRE_WRITE, &reply, NULL, 0), 0);
    assert_int_equal(peer_read(&new, handle, 5, sector[1], SECTOR), 0);
    assert_memory_equal(sector[0], sector[1], SECTOR);
    peer_end(&new);
    fixture_end(&fixture);
}

/* A second session on the connection keeps it open after the other has gone, so
 * that it can be heard what becomes of what it brings. */
static void
a_connection_that_was_taken_over_executes_nothing_more(void **state)
{
    struct fixture fixture;
    struct peer old, other, new;
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&old, fixture.url);
    uint64_t handle = peer_open(&old, "disk");
    other = old;
    peer_hello(&old); /* the connection speaks for both */
    take_over(&new, &other, fixture.url);
    memset(sector[0], 1, SECTOR);
    struct codec_request late = write_request(&new, handle, 7);
    for (unsigned with_secret = 0; with_secret < 2; with_secret++) {
        late.has_secret = with_secret != 0;
        memcpy(late.secret, new.secret, WIRE_SECRET_SIZE);
        assert_int_equal(send_write(&old, &late, sector[0]), FARBLK_DENIED);
    }
    /* The refusal is not the outcome: the number is still to be executed. */
    memset(sector[1], 2, SECTOR);
    late.has_secret = false;
    assert_int_equal(send_write(&new, &late, sector[1]), 0);
    assert_int_equal(peer_read(&new, handle, 7, sector[0], SECTOR), 0);
    assert_memory_equal(sector[0], sector[1], SECTOR);
    /* Its own session goes on there. */
    struct codec_request ping = peer_request(&old, WIRE_PING, 0);
    assert_int_equal(peer_ask(&old, &ping, &reply), 0);
    peer_end(&old);
    peer_end(&new);
    fixture_end(&fixture);
}

static void
the_newest_take_over_counts_also_when_an_older_comes_late(void **state)
{
    struct fixture fixture;
    struct peer first, slow, fast;
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&first, fixture.url);
    uint64_t handle = peer_open(&first, "disk");
    peer_connect(&slow, fixture.url);
    struct codec_request late = take_over_ping(&slow, &first);
    take_over(&fast, &slow, fixture.url); /* by the next number */
    peer_wait_closed(&first);
    assert_int_equal(peer_ask(&slow, &late, &reply), FARBLK_CONFLICT);
    memset(sector[0], 1, SECTOR);
    struct codec_request write = write_request(&fast, handle, 7);
    assert_int_equal(send_write(&fast, &write, sector[0]), 0);
    peer_end(&first);
    peer_end(&slow);
    peer_end(&fast);
    fixture_end(&fixture);
}

static void
taking_over_wants_the_secret(void **state)
{
    struct fixture fixture;
    struct peer first, thief;
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&first, fixture.url);
    peer_open(&first, "disk");
    peer_connect(&thief, fixture.url);
    struct codec_request ping = take_over_ping(&thief, &first);
    ping.secret[3] ^= 1;
    assert_int_equal(peer_ask(&thief, &ping, &reply), FARBLK_DENIED);
    ping.has_secret = false;
    assert_int_equal(peer_ask(&thief, &ping, &reply), FARBLK_DENIED);
    /* Neither without it on the session's own connection. */
    ping = peer_request(&first, WIRE_PING, 0);
    ping.args.ping.take_over = true;
    assert_int_equal(peer_ask(&first, &ping, &reply), FARBLK_DENIED);
    ping = peer_request(&first, WIRE_PING, 0);
    assert_int_equal(peer_ask(&first, &ping, &reply), 0);
    peer_end(&first);
    peer_end(&thief);
    fixture_end(&fixture);
}

/* ------------------------------------------------------------ half a message */

/* A connection on which the test sends octets; it has a session of its own, so
 * that the server keeps it when it speaks for no other any more. */
static int
raw_connect(const char *url)
{
    static const uint8_t greeting[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *name = url + strlen("abstract://");
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    memcpy(address.sun_path + 1, name, strlen(name));
    assert_int_equal(connect(fd, (struct sockaddr *)&address,
                             (socklen_t)(offsetof(struct sockaddr_un, sun_path)
                                         + 1 + strlen(name))),
                     0);
    assert_int_equal(write(fd, greeting, sizeof greeting), sizeof greeting);
    return fd;
}

static void
raw_receive(int fd, void *to, size_t length)
{
    assert_int_equal(recv(fd, to, length, MSG_WAITALL), (ssize_t)length);
}

/* The next reply's status. */
static int
raw_reply(int fd, uint32_t method)
{
    uint8_t head[9], body[2048];
    struct codec_reply reply;
    struct error error;
    raw_receive(fd, head, sizeof head);
    size_t length = (size_t)head[7] << 8 | head[8];
    assert_in_range(length, 8, sizeof body);
    raw_receive(fd, body, length);
    size_t header = (size_t)body[6] << 8 | body[7];
    assert_int_equal(
        codec_decode_reply(body + 8, header, method, &reply, &error), 0);
    return reply.status;
}

/* A request as one frame; returns its length. */
static size_t
raw_frame(uint8_t *to, const struct codec_request *request, const void *data,
          size_t length)
{
    size_t header = codec_encode_request(request, to + 17, 2048);
    size_t body = 8 + header + length;
    memset(to, 0, 17);
    to[0] = 1;
    to[7] = (uint8_t)(body >> 8);
    to[8] = (uint8_t)body;
    to[9] = 0x80;
    to[12] = (uint8_t)request->method;
    to[15] = (uint8_t)(header >> 8);
    to[16] = (uint8_t)header;
    if (length > 0)
        memcpy(to + 17 + header, data, length);
    return 9 + body;
}

static void
payload_completes_after_its_copy(bool takes_over, int wanted)
{
    struct fixture fixture;
    struct peer old, new;
    uint8_t frame[4096], greeting[8];
    struct codec_request hello = {.method = WIRE_HELLO};
    fixture_start(&fixture, NULL);
    peer_begin(&old, fixture.url);
    uint64_t handle = peer_open(&old, "disk");
    int fd = raw_connect(fixture.url);
    raw_receive(fd, greeting, sizeof greeting);
    hello.args.hello.version = WIRE_VERSION;
    size_t length = raw_frame(frame, &hello, NULL, 0);
    assert_int_equal(write(fd, frame, length), (ssize_t)length);
    assert_int_equal(raw_reply(fd, WIRE_HELLO), 0);

    struct codec_request request = write_request(&old, handle, 9);
    request.has_secret = true;
    memcpy(request.secret, old.secret, WIRE_SECRET_SIZE);
    memset(sector[0], 1, SECTOR);
    length = raw_frame(frame, &request, sector[0], SECTOR);
    assert_int_equal(write(fd, frame, length - 100), (ssize_t)length - 100);
    fixture_await(&fixture, stats, stats.octets == SECTOR);

    if (takes_over) {
        take_over(&new, &old, fixture.url);
        request.has_secret = false;
    } else {
        peer_connect(&new, fixture.url);
        new.session = old.session;
        new.number = old.number;
        new.lowest = old.lowest;
    }
    memset(sector[1], 2, SECTOR);
    assert_int_equal(send_write(&new, &request, sector[1]), 0);
    assert_int_equal(write(fd, frame + length - 100, 100), 100);
    assert_int_equal(raw_reply(fd, WIRE_WRITE), wanted);
    assert_int_equal(peer_read(&new, handle, 9, sector[0], SECTOR), 0);
    assert_memory_equal(sector[0], sector[1], SECTOR);

    /* And when the client has said that it has the outcome. */
    new.lowest = new.number;
    assert_int_equal(peer_write(&new, handle, 9, sector[1], SECTOR), 0);
    assert_int_equal(write(fd, frame, length), (ssize_t)length);
    assert_int_equal(raw_reply(fd, WIRE_WRITE),
                     takes_over ? FARBLK_DENIED : FARBLK_CONFLICT);
    close(fd);
    peer_end(&old);
    peer_end(&new);
    fixture_end(&fixture);
}

static void
a_payload_that_is_whole_too_late_is_not_executed(void **state)
{
    (void)state;
    payload_completes_after_its_copy(true, FARBLK_DENIED);
    payload_completes_after_its_copy(false, 0); /* the copy's outcome */
}

/* ------------------------------------------------------------ the lease */

/* What arrives after the lease does not renew it, even though nobody has looked
 * at the session in between. */
static void
a_request_after_the_lease_is_too_late(void **state)
{
    struct fixture fixture;
    struct peer peer, again;
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    pthread_mutex_lock(&fixture.server->mutex);
    struct session *session =
        fixture.server->sessions[peer.session % SERVER_SESSION_BUCKETS];
    while (session->id != peer.session)
        session = session->next;
    pthread_mutex_unlock(&fixture.server->mutex);
    atomic_fetch_sub(&session->heard_ms, 30100);
    memset(sector[0], 1, SECTOR);
    assert_int_equal(peer_write(&peer, handle, 3, sector[0], SECTOR),
                     FARBLK_DISCONNECTED);
    peer_connect(&again, fixture.url);
    struct codec_request ping = take_over_ping(&again, &peer);
    assert_int_equal(peer_ask(&again, &ping, &reply), FARBLK_DISCONNECTED);
    ok(support_read(fixture.disk, 3, sector[1], SECTOR));
    assert_true(pattern_is_zero(sector[1], SECTOR));
    peer_end(&peer);
    peer_end(&again);
    fixture_end(&fixture);
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, fixture_watch, fixture_clean)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_outcome_that_was_not_heard_is_told_to_the_new_connection),
        TEST(a_request_that_runs_answers_the_new_connection),
        TEST(a_connection_that_was_taken_over_executes_nothing_more),
        TEST(the_newest_take_over_counts_also_when_an_older_comes_late),
        TEST(taking_over_wants_the_secret),
        TEST(a_payload_that_is_whole_too_late_is_not_executed),
        TEST(a_request_after_the_lease_is_too_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
