/* SPDX-License-Identifier: ISC */
/*
 * A farblkd on a host that vanishes: two network namespaces, and a cable between
 * them that is pulled out in the middle of writes.  Unlike a relay's (see
 * test_partition.c) the packets are gone, the kernels go on sending them, and
 * what they sent may still come when the cable is in again.
 *
 * Somebody beside the network, over ipc, sees what the device has.  Skipped (77)
 * where there are no namespaces to be had.
 */
#include "tests/client_calls.h"
#include "tests/daemon.h"
#include "tests/two_hosts.h"

#include <stdio.h>
#include <time.h>

#define SECTOR 512u

static struct hosts {
    struct daemon daemon;
    char beside[320]; /* the URI over ipc */
    struct farblk *witness; /* opened by it */
    unsigned port;
} hosts;

static uint8_t sector[SECTOR];
static struct iovec iov = {sector, SECTOR};

static void
pause_a_moment(void)
{
    const struct timespec moment = {.tv_nsec = 5000000};
    nanosleep(&moment, NULL);
}

static void
begin(const char *lease)
{
    char socket[256], url[300];
    const char *path = support_path("beside");
    snprintf(socket, sizeof socket, "%s", path);
    snprintf(url, sizeof url, "ipc://%s", socket);
    const char *args[] = {"--listen",   "tcp://" TWO_HOSTS_SERVER ":0",
                          "--listen",   url,
                          "--export",   "disk=ramdisk:disk?size=1M",
                          "--lease",    lease,
                          "--insecure", NULL};
    two_hosts_go(true);
    daemon_start(&hosts.daemon, args);
    two_hosts_go(false);
    hosts.port = (unsigned)atoi(strrchr(hosts.daemon.url[0], ':') + 1);
    snprintf(hosts.beside, sizeof hosts.beside, "farblk+unix:///disk?socket=%s",
             socket);
    ok(farblk_open(hosts.beside, NULL, &hosts.witness));
}

static void
end(void)
{
    ok(farblk_close(hosts.witness));
    daemon_stop(&hosts.daemon);
}

static struct farblk *
open_far(const char *more)
{
    struct farblk *dev;
    char uri[256];
    snprintf(uri, sizeof uri, "farblk://" TWO_HOSTS_SERVER ":%u/disk%s%s",
             hosts.port, more[0] != '\0' ? "?" : "", more);
    ok(farblk_open(uri, NULL, &dev));
    return dev;
}

static void
fill(unsigned tag)
{
    memset(sector, (int)tag, sizeof sector);
}

/* What sector 0 has; whole, or it fails. */
static unsigned
seen(void)
{
    uint8_t data[SECTOR];
    ok(support_read(hosts.witness, 0, data, sizeof data));
    for (size_t i = 1; i < sizeof data; i++)
        assert_int_equal(data[i], data[0]);
    return data[0];
}

/* The one beside writes sector 0. */
static void
overwrite(unsigned tag)
{
    uint8_t data[SECTOR];
    memset(data, (int)tag, sizeof data);
    ok(support_write(hosts.witness, 0, data, sizeof data, 0));
}

/* The client has given its connection up. */
static void
await_no_connection(void)
{
    while (two_hosts_connections(hosts.port) > 0)
        pause_a_moment();
}

static void
await_log(const char *text, size_t times)
{
    while (daemon_count_log(&hosts.daemon, text) < times)
        pause_a_moment();
}

static const char expired[] = "expired: ", goes_on[] = "goes on here",
                  closed[] = ": closed: ";

/* While the cable is still out: the client by its call, the server in its log;
 * and the server can be stopped. */
static void
both_sides_notice_that_the_other_host_has_vanished(void **state)
{
    (void)state;
    begin("2000");
    struct farblk *dev = open_far(""), *idle = open_far("");
    struct farblk_queue *queue = client_queue();
    fill(1);
    two_hosts_cable(false);
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, &iov, 1, -1, 0);
    struct farblk_completion done = client_collect(queue);
    assert_int_equal(done.status, FARBLK_DISCONNECTED);
    assert_int_equal(done.effect, FARBLK_EFFECT_UNKNOWN);
    fails_with(FARBLK_DISCONNECTED, farblk_flush(idle));
    await_log(expired, 1);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    ok(farblk_close(idle));
    assert_int_equal(seen(), 0);
    end();
    two_hosts_cable(true);
}

/* What the client's kernel still sends when the cable is in again finds nobody
 * who would execute it. */
static void
disconnect_returns_when_nothing_can_land_any_more(void **state)
{
    (void)state;
    begin("2000");
    struct farblk *dev = open_far("reconnect=3600");
    struct farblk_queue *queue = client_queue();
    fill(1);
    two_hosts_cable(false);
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, &iov, 1, -1, 0);
    ok(farblk_disconnect(dev));
    assert_int_equal(client_collect(queue).status, FARBLK_DISCONNECTED);
    assert_int_equal(seen(), 0);
    overwrite(2);
    two_hosts_cable(true);
    await_log(closed, 1);
    assert_int_equal(seen(), 2);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    end();
}

static void
close_returns_under_a_partition(void **state)
{
    (void)state;
    begin("2000");
    struct farblk *dev = open_far("reconnect=3600");
    two_hosts_cable(false);
    int status = farblk_close(dev);
    assert_true(status == 0 || status == FARBLK_DISCONNECTED);
    two_hosts_cable(true);
    end();
}

/* The server executes it, its reply vanishes; the client asks again over another
 * connection, and is told what was kept. */
static void
write_whose_reply_vanished_is_executed_once(void **state)
{
    (void)state;
    begin("8000");
    struct farblk *dev = open_far("reconnect=3600");
    struct farblk_queue *queue = client_queue();
    fill(1);
    two_hosts_mute(true);
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, &iov, 1, -1, 0);
    while (seen() != 1)
        pause_a_moment();
    overwrite(2);
    await_no_connection();
    two_hosts_mute(false);
    assert_int_equal(client_collect(queue).status, 0);
    assert_int_equal(seen(), 2);
    await_log(goes_on, 1);
    await_log(closed, 1);
    assert_int_equal(seen(), 2);
    ok(support_write(dev, 0, sector, sizeof sector, 0));
    assert_int_equal(seen(), 1);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    end();
}

/* The request itself vanishes; its first copy is still with the client's kernel
 * when the second one is executed. */
static void
write_that_vanished_is_executed_once_after_the_partition(void **state)
{
    (void)state;
    begin("12000");
    struct farblk *dev = open_far("reconnect=3600");
    struct farblk_queue *queue = client_queue();
    fill(1);
    two_hosts_cable(false);
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, &iov, 1, -1, 0);
    await_no_connection();
    assert_int_equal(seen(), 0);
    two_hosts_cable(true);
    assert_int_equal(client_collect(queue).status, 0);
    assert_int_equal(seen(), 1);
    overwrite(2);
    await_log(closed, 1);
    assert_int_equal(seen(), 2);
    assert_int_equal(daemon_count_log(&hosts.daemon, goes_on), 1);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    end();
}

/* The client still tries when the cable is in again: nothing of its session is
 * left that could write. */
static void
session_whose_lease_has_passed_writes_no_more(void **state)
{
    (void)state;
    begin("2000");
    struct farblk *dev = open_far("reconnect=3600");
    struct farblk_queue *queue = client_queue();
    fill(1);
    ok(support_write(dev, 0, sector, sizeof sector, 0));
    fill(3);
    two_hosts_cable(false);
    client_submit(queue, dev, FARBLK_OP_WRITE, 0, &iov, 1, -1, 0);
    await_log(expired, 1);
    overwrite(2);
    two_hosts_cable(true);
    struct farblk_completion done = client_collect(queue);
    assert_int_equal(done.status, FARBLK_CONNECTION_LOST);
    assert_int_equal(done.effect, FARBLK_EFFECT_UNKNOWN);
    fails_with(FARBLK_DISCONNECTED,
               support_write(dev, 0, sector, sizeof sector, 0));
    fails_with(FARBLK_DISCONNECTED, farblk_flush(dev));
    await_log(closed, 1);
    assert_int_equal(seen(), 2);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    end();
}

static int
setup(void **state)
{
    (void)state;
    support_watch("a partition of two hosts");
    /* Whatever one that failed has left. */
    two_hosts_cable(true);
    two_hosts_mute(false);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, daemon_clean)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(both_sides_notice_that_the_other_host_has_vanished),
        TEST(disconnect_returns_when_nothing_can_land_any_more),
        TEST(close_returns_under_a_partition),
        TEST(write_whose_reply_vanished_is_executed_once),
        TEST(write_that_vanished_is_executed_once_after_the_partition),
        TEST(session_whose_lease_has_passed_writes_no_more),
    };
    const char *why = two_hosts_begin();

    if (why != NULL) {
        print_error("skipped: %s\n", why);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
