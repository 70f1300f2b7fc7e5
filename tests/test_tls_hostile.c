/* SPDX-License-Identifier: ISC */
/*
 * A TLS port before those who mean no good, and a TLS client before somebody in
 * between: who stalls, sends garbage or goes away harms nobody else, and what
 * was tampered with is never data.
 */
#include "tests/peer.h"
#include "tests/ways.h"

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#define SECTOR 512u

static struct rig *
start(const char *const *args)
{
    struct way way = {&stores[0], TLS};

    return rig_create(way, 256, SECTOR, args);
}

/* Somebody else comes and is served. */
static void
others_are_served(struct rig *rig)
{
    struct farblk *dev = rig_open(rig, "");
    uint8_t buffer[SECTOR] = {7};

    ok(support_write(dev, 3, buffer, SECTOR, 0));
    ok(support_read(dev, 3, buffer, SECTOR));
    rig_close(rig, dev);
}

static void
fifty_that_reset_the_connection_harm_nobody(void **state)
{
    struct rig *rig = start(NULL);
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};

    (void)state;
    for (unsigned i = 0; i < 50; i++) {
        int fd = peer_connect(rig->daemon.url[0], false);

        assert_true(fd >= 0);
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
    }
    others_are_served(rig);
    rig_destroy(rig);
}

static void
garbage_closes_its_own_connection_only(void **state)
{
    struct rig *rig = start(NULL);
    struct farblk *dev = rig_open(rig, "");
    struct rng rng = {11};
    uint8_t octets[4096];

    (void)state;
    for (unsigned i = 0; i < 40; i++) {
        int fd = peer_connect(rig->daemon.url[0], false);
        size_t length = 5 + rng_below(&rng, sizeof octets - 5);

        assert_true(fd >= 0);
        for (size_t k = 0; k < length; k++)
            octets[k] = (uint8_t)rng_next(&rng);
        if (i % 2 == 0) { /* a record of the handshake, so far */
            octets[0] = 22;
            octets[1] = 3;
            octets[2] = (uint8_t)(i % 4);
            octets[3] = 0;
        }
        peer_send_all(fd, octets, length);
        shutdown(fd, SHUT_WR);
        assert_true(peer_is_closed(fd));
        close(fd);
    }
    ok(support_read(dev, 0, octets, SECTOR));
    rig_close(rig, dev);
    others_are_served(rig);
    rig_destroy(rig);
}

static void
handshake_that_stalls_ends_and_keeps_nobody_out(void **state)
{
    const char *args[] = {"--hello-timeout", "4000", "--max-connections", "40",
                          NULL};
    struct rig *rig = start(args);
    int fds[30];

    (void)state;
    /* Each has begun a record and sends no more. */
    for (unsigned i = 0; i < 30; i++) {
        static const uint8_t begun[] = {22, 3, 1, 2, 0, 1, 0, 1};
        size_t length = i % (sizeof begun + 1);

        fds[i] = peer_connect(rig->daemon.url[0], false);
        assert_true(fds[i] >= 0);
        assert_true(peer_send_all(fds[i], begun, length));
    }
    others_are_served(rig);
    for (unsigned i = 0; i < 30; i++) {
        assert_true(peer_is_closed(fds[i]));
        close(fds[i]);
    }
    others_are_served(rig);
    rig_destroy(rig);
}

/* ------------------------------------------------------------ in between */

/* Somebody between a client and a server, who passes on what comes but for one
 * octet. */
struct between {
    int listener;
    const char *url;
    bool to_client; /* which direction is changed */
    uint64_t at; /* the octet of it, from the moment of arming */
    _Atomic int armed, changed;
    pthread_t thread;
};

static void
pass(struct between *between, int from, int to, bool to_client)
{
    uint8_t octets[16384];
    ssize_t n = recv(from, octets, sizeof octets, 0);

    if (n > 0 && to_client == between->to_client && between->armed
        && !between->changed) {
        if (between->at < (uint64_t)n) {
            octets[between->at] ^= 0x10;
            between->changed = 1;
        } else {
            between->at -= (uint64_t)n;
        }
    }
    if (n <= 0)
        shutdown(to, SHUT_WR);
    else
        peer_send_all(to, octets, (size_t)n);
}

static void
stand_between_them(struct between *between, int client)
{
    int server = peer_connect(between->url, false);
    struct pollfd fds[2] = {{client, POLLIN, 0}, {server, POLLIN, 0}};

    while (server >= 0 && poll(fds, 2, SUPPORT_PATIENCE_MS) > 0) {
        uint8_t octet;
        for (unsigned i = 0; i < 2; i++) {
            if (fds[i].revents == 0)
                continue;
            pass(between, fds[i].fd, fds[1 - i].fd, i == 1);
            if (recv(fds[i].fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
                fds[i].fd = -1;
        }
        if (fds[0].fd < 0 || fds[1].fd < 0)
            break;
    }
    close(client);
    close(server);
}

/* One connection after another, until nobody listens. */
static void *
stand_between(void *arg)
{
    struct between *between = arg;
    int client;

    while ((client = accept4(between->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        stand_between_them(between, client);
    return NULL;
}

/* Without `reconnect` the requests end with the connection; with it the session
 * goes on over another one. */
static void
tamper(bool to_client, uint64_t at, bool reconnect)
{
    struct rig *rig = start(NULL);
    struct between between = {
        .url = rig->daemon.url[0], .to_client = to_client, .at = at};
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    struct farblk *dev = NULL, *other;
    uint8_t *buffer = malloc(64 * SECTOR);
    char uri[512];
    int status = 0;

    assert_non_null(buffer);
    between.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(
        bind(between.listener, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(between.listener, 8), 0);
    getsockname(between.listener, (struct sockaddr *)&address, &length);
    assert_int_equal(
        pthread_create(&between.thread, NULL, stand_between, &between), 0);
    snprintf(uri, sizeof uri, "farblks://127.0.0.1:%u/disk%s&reconnect=%d",
             (unsigned)ntohs(address.sin_port), strchr(rig->uri, '?'),
             reconnect ? SUPPORT_PATIENCE_MS / 1000 : 0);
    ok(farblk_open(uri, NULL, &dev));
    pattern_fill(buffer, 64 * SECTOR, 5);
    ok(support_write(dev, 0, buffer, 64 * SECTOR, 0));
    between.armed = 1;
    for (unsigned i = 0; i < 64 && status == 0; i++) {
        if (to_client) {
            memset(buffer, 0, 64 * SECTOR);
            status = support_read(dev, 0, buffer, 64 * SECTOR);
            if (status == 0)
                assert_int_equal(pattern_check(buffer, 64 * SECTOR, 5),
                                 64 * SECTOR);
        } else {
            status = support_write(dev, 0, buffer, 64 * SECTOR, 0);
        }
    }
    assert_int_equal(between.changed, 1);
    if (reconnect)
        ok(status);
    else
        assert_int_not_equal(status, 0);
    farblk_close(dev);
    shutdown(between.listener, SHUT_RDWR);
    pthread_join(between.thread, NULL);
    close(between.listener);
    /* The device has what was written, and nothing else. */
    other = rig_open(rig, "");
    ok(support_read(other, 0, buffer, 64 * SECTOR));
    assert_int_equal(pattern_check(buffer, 64 * SECTOR, 5), 64 * SECTOR);
    rig_close(rig, other);
    free(buffer);
    rig_destroy(rig);
}

static void
octet_changed_on_its_way_to_the_client_is_never_data(void **state)
{
    (void)state;
    tamper(true, 40, false);
    tamper(true, 20000, false);
}

static void
octet_changed_on_its_way_to_the_server_is_never_written(void **state)
{
    (void)state;
    tamper(false, 300, false);
    tamper(false, 50000, false);
}

static void
client_whose_octets_were_changed_connects_again_and_goes_on(void **state)
{
    (void)state;
    tamper(true, 20000, true);
    tamper(false, 300, true);
    tamper(false, 50000, true);
}

static int
teardown(void **state)
{
    (void)state;
    support_watch(NULL);
    rig_destroy_all();
    return 0;
}

static int
setup(void **state)
{
    (void)state;
    support_watch("a hostile peer of TLS");
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(fifty_that_reset_the_connection_harm_nobody),
        TEST(garbage_closes_its_own_connection_only),
        TEST(handshake_that_stalls_ends_and_keeps_nobody_out),
        TEST(octet_changed_on_its_way_to_the_client_is_never_data),
        TEST(octet_changed_on_its_way_to_the_server_is_never_written),
        TEST(client_whose_octets_were_changed_connects_again_and_goes_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
