/* SPDX-License-Identifier: ISC */
/*
 * A network that passes nothing on and says nothing: leases on both sides, what
 * is left of a session when it comes back, timeouts, and when disconnect() may
 * return.
 */
#include "tests/cable.h"
#include "tests/client_calls.h"
#include "tests/tally.h"

#include "server/server.h"

#include <stdio.h>

#define LEASE_MS 2000

static uint8_t sector[TALLY_SECTOR];
static struct iovec iov = {sector, TALLY_SECTOR};

static void
partition_start(struct tally *tally, struct cable *cable)
{
    const struct farblk_server_options options = {.size = sizeof options,
                                                  .lease_ms = LEASE_MS};
    tally_start(tally, "tcp://127.0.0.1:0", &options);
    cable_start(cable, tally->url);
}

static struct farblk *
partition_open(struct cable *cable, const char *more)
{
    struct farblk *dev;
    ok(farblk_open(cable_uri(cable, "disk", more), NULL, &dev));
    return dev;
}

static struct farblk_server_stats
stats_of(struct tally *tally)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    struct farblk_server_stats stats;
    nanosleep(&moment, NULL);
    ok(farblk_server_stats(tally->server, &stats, sizeof stats));
    return stats;
}

/* Both sides notice, and what the network had in it when it broke is not
 * executed when it comes out. */
static void
both_sides_notice_and_nothing_lands_later(void **state)
{
    struct tally tally = {0};
    struct cable cable = {0};
    (void)state;
    partition_start(&tally, &cable);
    struct farblk *dev = partition_open(&cable, "");
    struct farblk_queue *queue = client_queue();
    cable_block(&cable, true);
    tally_fill(sector, 1);
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, &iov, 1, 0, 0);
    struct farblk_completion done = client_collect(queue);
    assert_int_equal(done.status, FARBLK_DISCONNECTED);
    assert_int_equal(done.effect, FARBLK_EFFECT_UNKNOWN);
    ok(farblk_disconnect(dev));
    /* From here on nothing of it may land, whatever comes. */
    assert_int_equal(tally_writes(), 0);
    cable_block(&cable, false);
    while (stats_of(&tally).connections > 0)
        ;
    assert_int_equal(stats_of(&tally).sessions, 0);
    assert_int_equal(tally_writes(), 0);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    cable_stop(&cable);
    tally_stop(&tally);
}

/* disconnect() alone, with a write that the network holds: not before the lease
 * makes it true. */
static void
disconnect_waits_for_the_lease_and_no_longer(void **state)
{
    struct tally tally = {0};
    struct cable cable = {0};
    (void)state;
    partition_start(&tally, &cable);
    /* As long as one likes: without a handle the lease bounds it. */
    struct farblk *dev = partition_open(&cable, "reconnect=3600");
    struct farblk_queue *queue = client_queue();
    cable_block(&cable, true);
    tally_fill(sector, 1);
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, &iov, 1, 0, 0);
    ok(farblk_disconnect(dev));
    assert_int_equal(client_collect(queue).status, FARBLK_DISCONNECTED);
    cable_block(&cable, false);
    while (stats_of(&tally).connections > 0)
        ;
    assert_int_equal(tally_writes(), 0);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    cable_stop(&cable);
    tally_stop(&tally);
}

/* Long enough that the session is gone, and the client still tries. */
static void
session_that_was_fenced_meanwhile(bool reopen)
{
    struct tally tally = {0};
    struct cable cable = {0};
    partition_start(&tally, &cable);
    struct farblk *dev = partition_open(&cable, reopen ? "reconnect=60&reopen=1"
                                                       : "reconnect=60");
    struct farblk_queue *queue = client_queue();
    tally_fill(sector, 7);
    ok(support_write(dev, 1, sector, sizeof sector, 0)); /* not flushed */
    cable_block(&cable, true);
    tally_fill(sector, 1);
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, &iov, 1, 0, 0);
    while (stats_of(&tally).sessions > 0)
        ;
    assert_int_equal(tally_writes(), 1);
    cable_block(&cable, false);
    struct farblk_completion done = client_collect(queue);
    assert_int_equal(done.status, FARBLK_CONNECTION_LOST);
    assert_int_equal(done.effect, FARBLK_EFFECT_UNKNOWN);
    /* What the network held was not executed. */
    assert_int_equal(tally_writes(), 1);
    if (reopen) { /* the same instance has lost nothing */
        ok(farblk_flush(dev));
        ok(support_write(dev, 0, sector, sizeof sector, 0));
        assert_int_equal(tally_count(1), 1);
    } else {
        fails_with(FARBLK_DISCONNECTED, farblk_flush(dev));
    }
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    cable_stop(&cable);
    tally_stop(&tally);
}

static void
a_fenced_session_is_told_and_its_old_connection_refused(void **state)
{
    (void)state;
    session_that_was_fenced_meanwhile(false);
}

static void
a_fenced_session_begins_anew_at_the_same_instance(void **state)
{
    (void)state;
    session_that_was_fenced_meanwhile(true);
}

static void
timeouts_hold_under_a_partition(void **state)
{
    const struct farblk_server_options options = {.size = sizeof options,
                                                  .lease_ms = 60000};
    struct tally tally = {0};
    struct cable cable = {0};
    (void)state;
    tally_start(&tally, "tcp://127.0.0.1:0", &options);
    cable_start(&cable, tally.url);
    struct farblk *dev = partition_open(&cable, "timeout=99&reconnect=600");
    struct farblk_queue *queue = client_queue();
    cable_block(&cable, true);
    tally_fill(sector, 1);
    fails_with(FARBLK_TIMED_OUT,
               support_write(dev, 0, sector, sizeof sector, 0));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_UNKNOWN);
    fails_with(FARBLK_TIMED_OUT, support_read(dev, 0, sector, sizeof sector));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
    client_submit(queue, dev, FARBLK_OP_READ, 0, &iov, 1, 20, 0);
    assert_int_equal(client_collect(queue).status, FARBLK_TIMED_OUT);
    /* The connection dies with what it held: the write of which nobody knew
     * has not been executed, and will not be. */
    cable_cut(&cable);
    cable_block(&cable, false);
    tally_fill(sector, 2);
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, &iov, 1, -1, 0);
    assert_int_equal(client_collect(queue).status, 0);
    assert_int_equal(tally_count(1), 0);
    assert_int_equal(tally_count(2), 1);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    cable_stop(&cable);
    tally_stop(&tally);
}

static int
watch(void **state)
{
    (void)state;
    support_watch("partition");
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
        TEST(both_sides_notice_and_nothing_lands_later),
        TEST(disconnect_waits_for_the_lease_and_no_longer),
        TEST(a_fenced_session_is_told_and_its_old_connection_refused),
        TEST(a_fenced_session_begins_anew_at_the_same_instance),
        TEST(timeouts_hold_under_a_partition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
