/* SPDX-License-Identifier: ISC */
/*
 * What keeps a request from being executed too late: Cancel, deadlines, and the
 * fence of a session whose lease has passed with something of it under way.
 */
#include "tests/shm_peer.h"

static struct fixture fixture;
static struct peer peer, other;
static struct shm_peer sharer;
static uint8_t sector[512];

/* A session whose client knows fences. */
static void
fence_begin(struct peer *who)
{
    struct codec_request hello = {.method = WIRE_HELLO};
    struct codec_reply reply;
    peer_connect(who, fixture.url);
    hello.args.hello.version = 1;
    codec_add_feature(&hello.args.hello.features, "none of ours");
    codec_add_feature(&hello.args.hello.features, WIRE_FEATURE_FENCE);
    assert_int_equal(peer_ask(who, &hello, &reply), 0);
    assert_int_equal(reply.result.hello.features.count, 1);
    assert_true(
        codec_has_feature(&reply.result.hello.features, WIRE_FEATURE_FENCE));
    who->session = reply.result.hello.session;
    memcpy(who->secret, reply.result.hello.secret, WIRE_SECRET_SIZE);
    who->number = who->lowest = 1;
    who->limits = reply.result.hello.limits;
}

/* Ask to cancel it; the status, and *fenced. */
static int
fence_cancel(struct peer *who, uint64_t number, bool *fenced)
{
    struct codec_request cancel = peer_request(who, WIRE_CANCEL, 0);
    struct codec_reply reply;
    cancel.args.cancel.number = number;
    int status = peer_ask(who, &cancel, &reply);
    *fenced = status == 0 && reply.result.cancel.fenced;
    return status;
}

static struct codec_request
fence_write(struct peer *who, uint64_t handle, uint8_t octet)
{
    struct codec_request write = peer_request(who, WIRE_WRITE, handle);
    write.args.range.count = 1;
    memset(sector, octet, sizeof sector);
    return write;
}

/* The first octet of the disk, past the server. */
static uint8_t
fence_found(void)
{
    uint8_t found[512];
    ok(support_read(fixture.disk, 0, found, sizeof found));
    return found[0];
}

static void
a_number_that_was_cancelled_first_is_never_executed(void **state)
{
    struct codec_reply reply;
    bool fenced;
    (void)state;
    fixture_start(&fixture, NULL);
    fence_begin(&peer);
    uint64_t handle = peer_open(&peer, "disk");
    struct codec_request write = fence_write(&peer, handle, 7);
    assert_int_equal(fence_cancel(&peer, write.number, &fenced), 0);
    assert_true(fenced);
    for (unsigned copy = 0; copy < 2; copy++) {
        uint32_t id = peer_send(&peer, &write, sector, 512);
        assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0),
                         FARBLK_TIMED_OUT);
        assert_int_equal(reply.effect, FARBLK_EFFECT_NONE);
        assert_non_null(strstr(peer_text(), "cancelled"));
    }
    /* Whatever it was: the server can not know yet. */
    struct codec_request flush = peer_request(&peer, WIRE_FLUSH, handle);
    flush.number = write.number;
    assert_int_equal(peer_ask(&peer, &flush, &reply), FARBLK_TIMED_OUT);
    assert_int_equal(fence_found(), 0);
    /* Said again, the same; and the session goes on. */
    assert_int_equal(fence_cancel(&peer, write.number, &fenced), 0);
    assert_true(fenced);
    memset(sector, 8, sizeof sector);
    assert_int_equal(peer_write(&peer, handle, 0, sector, 512), 0);
    assert_int_equal(fence_found(), 8);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
what_waits_gives_up_when_it_is_cancelled(void **state)
{
    struct codec_reply reply;
    bool fenced;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    fixture_plug(&fixture);
    struct codec_request write = fence_write(&peer, handle, 7);
    write.deadline_ms = 3600000;
    uint32_t id = peer_send(&peer, &write, sector, 512);
    fixture_await(&fixture, now, now.requests == 1);
    assert_int_equal(fence_cancel(&peer, write.number, &fenced), 0);
    assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0),
                     FARBLK_TIMED_OUT);
    assert_int_equal(reply.effect, FARBLK_EFFECT_NONE);
    assert_int_equal(fence_cancel(&peer, write.number, &fenced), 0);
    assert_true(fenced);
    fixture_unplug(&fixture);
    assert_int_equal(fence_found(), 0);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
what_is_under_way_or_done_is_not_fenced(void **state)
{
    struct codec_reply reply;
    bool fenced;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    fixture_plug(&fixture);
    struct codec_request write = fence_write(&peer, handle, 7);
    uint32_t id = peer_send(&peer, &write, sector, 512); /* no deadline */
    fixture_await(&fixture, now, now.requests == 1);
    assert_int_equal(fence_cancel(&peer, write.number, &fenced), 0);
    assert_false(fenced);
    fixture_unplug(&fixture);
    assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0), 0);
    assert_int_equal(fence_cancel(&peer, write.number, &fenced), 0);
    assert_false(fenced);
    assert_int_equal(fence_found(), 7);
    /* One that failed by itself tells that itself, too. */
    write = fence_write(&peer, handle, 8);
    write.args.range.sector = FIXTURE_SECTORS;
    id = peer_send(&peer, &write, sector, 512);
    assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0),
                     FARBLK_INVALID);
    assert_int_equal(fence_cancel(&peer, write.number, &fenced), 0);
    assert_false(fenced);
    /* Nor is what has been answered long ago, or can not be. */
    peer.lowest = peer.number;
    assert_int_equal(fence_cancel(&peer, write.number, &fenced),
                     FARBLK_CONFLICT);
    assert_int_equal(fence_cancel(&peer, 0, &fenced), FARBLK_INVALID);
    assert_int_equal(fence_cancel(&peer, peer.lowest + 65536, &fenced),
                     FARBLK_INVALID);
    assert_int_equal(fence_cancel(&peer, UINT64_MAX, &fenced), FARBLK_INVALID);
    peer_end(&peer);
    fixture_end(&fixture);
}

static void
only_the_session_itself_cancels_its_requests(void **state)
{
    struct codec_reply reply;
    bool fenced;
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    peer_begin(&other, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    struct codec_request write = fence_write(&peer, handle, 7);
    struct codec_request cancel = peer_request(&peer, WIRE_CANCEL, 0);
    cancel.args.cancel.number = write.number;
    assert_int_equal(peer_ask(&other, &cancel, &reply), FARBLK_DENIED);
    /* The same number of the other's is another one. */
    other.number = write.number + 1;
    assert_int_equal(fence_cancel(&other, write.number, &fenced), 0);
    assert_true(fenced);
    uint32_t id = peer_send(&peer, &write, sector, 512);
    assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0), 0);
    assert_int_equal(fence_found(), 7);
    peer_end(&peer);
    peer_end(&other);
    fixture_end(&fixture);
}

/* What is beyond the window was refused above: so no more are remembered than it
 * holds, and all are forgotten with `lowest`. */
static void
a_flood_of_cancels_is_bounded(void **state)
{
    enum { COUNT = 3000, BATCH = 100 };
    struct codec_reply reply;
    uint32_t ids[BATCH];
    (void)state;
    fixture_start(&fixture, NULL);
    peer_begin(&peer, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    for (unsigned round = 0; round < 2; round++) {
        uint64_t first = peer.number;
        peer.lowest = first;
        for (unsigned i = 0; i < COUNT; i += BATCH) {
            for (unsigned j = 0; j < BATCH; j++) {
                struct codec_request cancel =
                    peer_request(&peer, WIRE_CANCEL, 0);
                cancel.args.cancel.number = first + 60000 + i + j;
                ids[j] = peer_send(&peer, &cancel, NULL, 0);
            }
            for (unsigned j = 0; j < BATCH; j++) {
                assert_int_equal(
                    peer_wait(&peer, ids[j], WIRE_CANCEL, &reply, NULL, 0), 0);
                assert_true(reply.result.cancel.fenced);
            }
        }
        struct codec_request write = fence_write(&peer, handle, 7);
        write.number = first + 60000 + COUNT - 1;
        uint32_t id = peer_send(&peer, &write, sector, 512);
        assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0),
                         FARBLK_TIMED_OUT);
        peer.number = first + 60000 + COUNT;
    }
    peer.lowest = peer.number;
    assert_int_equal(peer_write(&peer, handle, 0, sector, 512), 0);
    peer_end(&peer);
    fixture_end(&fixture);
}

/* A number that was cancelled by the socket, and lies in a ring all the same. */
static void
a_submission_that_was_cancelled_first_is_never_executed(void **state)
{
    bool fenced;
    (void)state;
    fixture_start(&fixture, NULL);
    shm_peer_begin(&sharer, fixture.url);
    uint64_t number = sharer.peer.number++;
    assert_int_equal(fence_cancel(&sharer.peer, number, &fenced), 0);
    assert_true(fenced);
    struct ring_submission write = shm_peer_read(&sharer, 2);
    write.method = WIRE_WRITE;
    write.number = number;
    write.behind = (uint32_t)(number - sharer.peer.lowest);
    pattern_fill(sharer.region + sharer.shape.arena_at, 512, 1);
    shm_peer_submit(&sharer, &write);
    struct ring_completion done = shm_peer_collect(&sharer);
    assert_int_equal(done.status, FARBLK_TIMED_OUT);
    assert_int_equal(done.effect, FARBLK_EFFECT_NONE);
    assert_int_equal(fence_found(), 0);
    shm_peer_end(&sharer);
    fixture_end(&fixture);
}

/* ------------------------------------------------------------ the lease */

/* A ping, so that the lease of this one is not over. */
static void
fence_keep(struct peer *who)
{
    struct codec_request ping = peer_request(who, WIRE_PING, 0);
    struct codec_reply reply;
    assert_int_equal(peer_ask(who, &ping, &reply), 0);
}

/* What hangs in the server keeps no session alive, and what waits behind it is
 * not begun. */
static void
a_lease_passes_with_requests_under_way(void **state)
{
    struct farblk_server_options options = {.size = sizeof options,
                                            .lease_ms = 5000,
                                            .hello_timeout_ms = 60000,
                                            .max_sessions = 2};
    struct codec_request hello = {.method = WIRE_HELLO};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, &options);
    fence_begin(&peer);
    peer_begin(&other, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    fixture_plug(&fixture);
    struct codec_request write = fence_write(&peer, handle, 7);
    uint32_t id = peer_send(&peer, &write, sector, 512);
    fixture_await(&fixture, now, now.requests == 1);
    struct farblk_server_stats stats;
    do {
        fence_keep(&other);
        fixture_stats(&fixture, &stats);
    } while (stats.sessions == 2);
    assert_int_equal(stats.sessions, 1);
    assert_false(peer_has(&peer, id));
    /* What is left of it takes nobody's place, and is no session any more. */
    hello.args.hello.version = 1;
    assert_int_equal(peer_ask(&other, &hello, &reply), 0);
    assert_int_equal(peer_ask(&other, &hello, &reply), FARBLK_BUSY);
    struct codec_request ping = peer_request(&peer, WIRE_PING, 0);
    assert_int_equal(peer_ask(&peer, &ping, &reply), FARBLK_DISCONNECTED);
    memcpy(ping.secret, peer.secret, WIRE_SECRET_SIZE);
    ping.has_secret = ping.args.ping.take_over = true;
    ping.number = peer.number++;
    assert_int_equal(peer_ask(&peer, &ping, &reply), FARBLK_DISCONNECTED);
    fixture_unplug(&fixture);
    assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0),
                     FARBLK_DISCONNECTED);
    assert_int_equal(reply.effect, FARBLK_EFFECT_NONE);
    fixture_await(&fixture, now, now.requests == 0 && now.handles == 0);
    assert_int_equal(fence_found(), 0);
    peer_end(&peer);
    peer_end(&other);
    fixture_end(&fixture);
}

/* The client is there, and says so. */
static void
a_session_that_pings_outlasts_what_hangs(void **state)
{
    struct farblk_server_options options = {.size = sizeof options,
                                            .lease_ms = 5000};
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, &options);
    fence_begin(&peer);
    peer_begin(&other, fixture.url);
    uint64_t handle = peer_open(&peer, "disk");
    peer_open(&other, "disk");
    fixture_plug(&fixture);
    struct codec_request write = fence_write(&peer, handle, 7);
    uint32_t id = peer_send(&peer, &write, sector, 512);
    struct farblk_server_stats now;
    do { /* the lease of another one tells the time */
        fence_keep(&peer);
        fixture_stats(&fixture, &now);
    } while (now.sessions == 2);
    fixture_unplug(&fixture);
    assert_int_equal(peer_wait(&peer, id, WIRE_WRITE, &reply, NULL, 0), 0);
    assert_int_equal(fence_found(), 7);
    peer_end(&peer);
    peer_end(&other);
    fixture_end(&fixture);
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, fixture_watch, fixture_clean)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_number_that_was_cancelled_first_is_never_executed),
        TEST(what_waits_gives_up_when_it_is_cancelled),
        TEST(what_is_under_way_or_done_is_not_fenced),
        TEST(only_the_session_itself_cancels_its_requests),
        TEST(a_flood_of_cancels_is_bounded),
        TEST(a_submission_that_was_cancelled_first_is_never_executed),
        TEST(a_lease_passes_with_requests_under_way),
        TEST(a_session_that_pings_outlasts_what_hangs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
