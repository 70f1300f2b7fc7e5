/* SPDX-License-Identifier: ISC */
/*
 * Who gets a connection when they are short, and what a silent one is worth.
 */
#include "tests/server_fixture.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static struct fixture fixture;
static struct peer peer, other;

/* ------------------------------------------------------------ raw peers */

/* Connect as that user (root can); an abstract address asks for no right. */
static int
raw_connect(const char *url, uid_t uid)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *name = strstr(url, "://") + 3;
    memcpy(address.sun_path + 1, name, strlen(name));
    socklen_t length =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    /* Of this thread alone, which is what the system looks at. */
    assert_int_equal(syscall(SYS_setresuid, -1, uid, -1), 0);
    int result = connect(fd, (struct sockaddr *)&address, length);
    assert_int_equal(syscall(SYS_setresuid, -1, 0, -1), 0);
    assert_int_equal(result, 0);
    return fd;
}

static const uint8_t greeting[] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};

/* Whether the server answers a Hello, or closes. */
static bool
raw_hello(int fd)
{
    static const uint8_t hello[] = {
        1,    0,    0,    0,    0, 0, 0, 0, 14, /* type, length */
        0x80, 0,    0,    1, /* request id */
        0,    0,    0,    6, /* header length */
        0x08, 0x01, /* method: Hello */
        0x42, 0x02, 0x08, 0x01, /* args: version 1 */
    };
    uint8_t octets[64];
    size_t got = 0;
    send(fd, greeting, sizeof greeting, MSG_NOSIGNAL);
    send(fd, hello, sizeof hello, MSG_NOSIGNAL);
    while (got < sizeof octets) { /* its greeting, and more than an error */
        ssize_t more = recv(fd, octets + got, sizeof octets - got, 0);
        if (more <= 0)
            return false;
        got += (size_t)more;
    }
    return true;
}

/* ------------------------------------------------------------ connections */

static void
silent_peers_keep_nobody_out(const char *url, unsigned max)
{
    int silent[64];
    uint64_t handle;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 64; i++) {
            if (strncmp(url, "tcp", 3) != 0) {
                silent[i] = raw_connect(url, geteuid());
                continue;
            }
            struct sockaddr_in to = {
                .sin_family = AF_INET,
                .sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1)),
                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
            silent[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            assert_int_equal(
                connect(silent[i], (struct sockaddr *)&to, sizeof to), 0);
            if (i % 2 == 0) /* a greeting is not yet a Hello */
                send(silent[i], greeting, sizeof greeting, MSG_NOSIGNAL);
        }
        peer_begin(&peer, url);
        handle = peer_open(&peer, "disk");
        assert_int_equal(peer_write(&peer, handle, 0, greeting, 0), 0);
        peer_end(&peer);
        for (unsigned i = 0; i < 64; i++)
            close(silent[i]);
    }
    fixture_await(&fixture, now, now.connections == 0);
    struct farblk_server_stats stats;
    fixture_stats(&fixture, &stats);
    assert_true(stats.displaced >= 3 * (64 - max));
    assert_true(stats.most_connections <= max);
}

static void
silent_peers_keep_nobody_out_whatever_they_are(void **state)
{
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_connections = 16,
                                            .hello_timeout_ms =
                                                10 * SUPPORT_PATIENCE_MS};
    (void)state;
    fixture_start(&fixture, &options);
    silent_peers_keep_nobody_out(fixture.url, 16);
    fixture_end(&fixture);
    fixture_start(&fixture, &options);
    ok(farblk_server_listen(fixture.server, "tcp://127.0.0.1:0"));
    silent_peers_keep_nobody_out(farblk_server_url(fixture.server, 1), 16);
    fixture_end(&fixture);
}

static void
connections_with_sessions_are_never_displaced(void **state)
{
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_connections = 8};
    static struct peer peers[8];
    struct farblk_server_stats stats;
    struct codec_reply reply;
    (void)state;
    fixture_start(&fixture, &options);
    for (unsigned i = 0; i < 8; i++)
        peer_begin(&peers[i], fixture.url);
    for (unsigned i = 0; i < 20; i++) {
        peer_connect(&other, fixture.url);
        peer_wait_closed(&other);
        peer_end(&other);
    }
    for (unsigned i = 0; i < 8; i++) {
        struct codec_request ping = peer_request(&peers[i], WIRE_PING, 0);
        assert_int_equal(peer_ask(&peers[i], &ping, &reply), 0);
    }
    fixture_stats(&fixture, &stats);
    assert_int_equal(stats.refused, 20);
    assert_int_equal(stats.displaced, 0);
    assert_int_equal(stats.most_connections, 8);
    for (unsigned i = 0; i < 8; i++)
        peer_end(&peers[i]);
    fixture_end(&fixture);
}

static void
a_share_is_kept_for_each_user(void **state)
{
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_connections = 100};
    static const unsigned most[] = {94, 3, 2, 1};
    int fds[128], count = 0;
    (void)state;
    if (geteuid() != 0)
        skip();
    fixture_start(&fixture, &options);
    /* All that each can get, one after the other, with a session on each. */
    for (unsigned user = 0; user < 4; user++)
        for (unsigned i = 0; i <= most[user]; i++) {
            int fd = raw_connect(fixture.url, 1000 + user);
            assert_int_equal(raw_hello(fd), i < most[user]);
            if (i < most[user])
                fds[count++] = fd;
            else
                close(fd);
        }
    assert_int_equal(count, 100);
    for (int i = 0; i < count; i++)
        close(fds[i]);
    fixture_await(&fixture, now, now.connections == 0);
    fixture_end(&fixture);
}

static void
silent_peers_of_one_user_leave_another_ones_client_alone(void **state)
{
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_connections = 32,
                                            .hello_timeout_ms =
                                                10 * SUPPORT_PATIENCE_MS};
    static uint8_t data[4096];
    int silent[200];
    (void)state;
    if (geteuid() != 0)
        skip();
    fixture_start(&fixture, &options);
    peer_begin(&other, fixture.url);
    uint64_t handle = peer_open(&other, "disk");
    for (unsigned i = 0; i < 200; i++) {
        silent[i] = raw_connect(fixture.url, 1000 + i % 3);
        if (i % 20 == 0) {
            assert_int_equal(peer_write(&other, handle, i, data, sizeof data),
                             0);
            peer_begin(&peer, fixture.url);
            peer_end(&peer);
        }
    }
    assert_int_equal(peer_read(&other, handle, 0, data, sizeof data), 0);
    peer_end(&other);
    for (unsigned i = 0; i < 200; i++)
        close(silent[i]);
    fixture_end(&fixture);
}

static void
silent_peers_of_others_do_not_widen_a_share(void **state)
{
    struct farblk_server_options options = {.size = sizeof options,
                                            .max_connections = 32,
                                            .hello_timeout_ms =
                                                10 * SUPPORT_PATIENCE_MS};
    int fds[40], silent[2], count = 0;
    (void)state;
    if (geteuid() != 0)
        skip();
    fixture_start(&fixture, &options);
    for (unsigned i = 0; i < 30; i++) {
        fds[count++] = raw_connect(fixture.url, 1000);
        assert_true(raw_hello(fds[i]));
    }
    silent[0] = raw_connect(fixture.url, 1001);
    fixture_await(&fixture, now, now.connections == 31);
    /* It is not for him. */
    int fd = raw_connect(fixture.url, 1000);
    assert_false(raw_hello(fd));
    close(fd);
    assert_true(raw_hello(silent[0]));
    /* Whoever has a share takes the place of a silent one, be it another's. */
    silent[1] = raw_connect(fixture.url, 1002);
    fixture_await(&fixture, now, now.connections == 32);
    fds[count++] = raw_connect(fixture.url, 1003);
    assert_true(raw_hello(fds[count - 1]));
    assert_false(raw_hello(silent[1]));
    for (int i = 0; i < count; i++)
        close(fds[i]);
    close(silent[0]);
    close(silent[1]);
    fixture_await(&fixture, now, now.connections == 0);
    fixture_end(&fixture);
}

static void
a_frame_that_does_not_end_closes_its_connection(void **state)
{
    struct farblk_server_options options = {.size = sizeof options,
                                            .frame_timeout_ms = 1500};
    static const uint8_t begin[] = {1, 0, 0, 0, 0, 0, 0, 1, 0, 0x80};
    uint8_t octet;
    (void)state;
    fixture_start(&fixture, &options);
    int fd = raw_connect(fixture.url, geteuid());
    assert_true(raw_hello(fd));
    assert_int_equal(send(fd, begin, sizeof begin, MSG_NOSIGNAL), sizeof begin);
    while (recv(fd, &octet, 1, 0) > 0)
        ; /* what was left of Hello's reply */
    fixture_await(&fixture, now, now.connections == 0);
    close(fd);
    fixture_end(&fixture);
}

/* The state of the timer of each connection to that port, as the kernel lists
 * it: 2 is keepalive's. */
static unsigned
keepalive_timers(const char *url)
{
    unsigned port = (unsigned)atoi(strrchr(url, ':') + 1), found = 0;
    char line[512];
    FILE *file = fopen("/proc/net/tcp", "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned local, remote, state, timer;
        if (sscanf(line, " %*u: %*8x:%4x %*8x:%4x %2x %*8x:%*8x %2x:", &local,
                   &remote, &state, &timer)
                == 4
            && (local == port || remote == port) && state == 1 && timer == 2)
            found++;
    }
    fclose(file);
    return found;
}

static void
silent_tcp_connections_are_probed_unless_told_otherwise(void **state)
{
    struct farblk_server_options options = {.size = sizeof options};
    const struct timespec moment = {.tv_nsec = 1000000};
    (void)state;
    for (uint32_t off = 0; off < 2; off++) {
        struct farblk *dev;
        char uri[128];
        options.no_keepalive = off;
        fixture_start(&fixture, &options);
        ok(farblk_server_listen(fixture.server, "tcp://127.0.0.1:0"));
        const char *url = farblk_server_url(fixture.server, 1);
        snprintf(uri, sizeof uri, "farblk://%s/disk", strstr(url, "//") + 2);
        ok(farblk_open(uri, NULL, &dev));
        /* While something waits for its acknowledgement it is another's. */
        while (keepalive_timers(url) != 2 - off)
            nanosleep(&moment, NULL);
        ok(farblk_close(dev));
        fixture_end(&fixture);
    }
}

#define PLACES_TEST(name)                                                      \
    cmocka_unit_test_setup_teardown(name, fixture_watch, fixture_clean)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        PLACES_TEST(silent_peers_keep_nobody_out_whatever_they_are),
        PLACES_TEST(connections_with_sessions_are_never_displaced),
        PLACES_TEST(a_share_is_kept_for_each_user),
        PLACES_TEST(silent_peers_of_one_user_leave_another_ones_client_alone),
        PLACES_TEST(silent_peers_of_others_do_not_widen_a_share),
        PLACES_TEST(a_frame_that_does_not_end_closes_its_connection),
        PLACES_TEST(silent_tcp_connections_are_probed_unless_told_otherwise),
    };
    return cmocka_run_group_tests_name("server_places", tests, NULL, NULL);
}
