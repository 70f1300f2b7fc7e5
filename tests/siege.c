/* SPDX-License-Identifier: ISC */
/*
 * The besieged server.
 */
#include "tests/siege.h"

#include "core/block.h"
#include "tests/certs.h"
#include "tests/tls_pump.h"

#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const struct transport {
    const char *name;
    const char *listen; /* %s: a path */
    const char *open; /* %s: what stands in the server's URL behind :// */
} transports[] = {
    {"ipc", "ipc://%s", "farblk+unix:///disk?socket=%s"},
    {"tcp", "tcp://127.0.0.1:0", "farblk://%s/disk"},
    {"tls", "tls+tcp://127.0.0.1:0", "farblks://%s/disk?ca="},
};

struct farblk_server_stats
siege_stats(struct siege *siege)
{
    struct farblk_server_stats stats;
    ok(farblk_server_stats(siege->server, &stats, sizeof stats));
    return stats;
}

void
siege_expect_service(struct siege *siege)
{
    static uint64_t seed;
    uint8_t data[8 * PEER_SECTOR];
    struct farblk *dev;
    ok(farblk_open(siege->uri, NULL, &dev));
    pattern_fill(data, sizeof data, ++seed);
    ok(support_write(dev, seed % 64 * 8, data, sizeof data, FARBLK_FUA));
    memset(data, 0, sizeof data);
    ok(support_read(siege->disk, seed % 64 * 8, data, sizeof data));
    assert_int_equal(pattern_check(data, sizeof data, seed), sizeof data);
    ok(farblk_close(dev));
}

static void
pause_a_moment(void)
{
    const struct timespec moment = {.tv_nsec = 5000000};
    nanosleep(&moment, NULL);
}

static void
begin(struct siege *siege, const struct transport *transport)
{
    struct farblk_server_options options = {
        .size = sizeof options,
        .max_connections = 2000,
        .max_sessions = 4000,
        .max_payload = SIEGE_PAYLOAD,
        .lease_ms = SIEGE_LEASE_MS,
        .hello_timeout_ms = SIEGE_HELLO_MS,
        .frame_timeout_ms = SIEGE_FRAME_MS,
    };
    bool tls = strcmp(transport->name, "tls") == 0;
    char url[256];
    support_watch(transport->name);
    if (tls) {
        /* A handshake takes milliseconds of a processor, and hundreds are made. */
        options.hello_timeout_ms = SIEGE_HELLO_TLS_MS;
        options.frame_timeout_ms = SIEGE_HELLO_TLS_MS;
        options.tls_cert = certs_path("server.pem");
        options.tls_key = certs_path("server.key");
    }
    siege->transport = transport->name;
    snprintf(url, sizeof url, transport->listen, support_path("siege"));
    ok(farblk_ramdisk_create("siege", SIEGE_SECTORS, PEER_SECTOR));
    ok(farblk_open("ramdisk:siege", NULL, &siege->disk));
    ok(farblk_server_create(&options, &siege->server));
    ok(farblk_server_export(siege->server, "disk", "ramdisk:siege"));
    ok(farblk_server_listen(siege->server, url));
    snprintf(siege->url, sizeof siege->url, "%s",
             farblk_server_url(siege->server, 0));
    snprintf(siege->uri, sizeof siege->uri, transport->open,
             strstr(siege->url, "://") + 3);
    if (tls)
        strncat(siege->uri, certs_path("ca.pem"),
                sizeof siege->uri - strlen(siege->uri) - 1);
    siege_expect_service(siege);
}

/* Everything of the peers goes, if only by its lease. */
static void
end(struct siege *siege)
{
    struct farblk_server_stats stats;
    siege_expect_service(siege);
    do {
        pause_a_moment();
        stats = siege_stats(siege);
    } while (stats.connections > 0 || stats.sessions > 0 || stats.handles > 0
             || stats.requests > 0 || stats.octets > 0);
    ok(farblk_server_stop(siege->server, -1));
    farblk_server_destroy(siege->server);
    ok(farblk_close(siege->disk));
    ok(farblk_ramdisk_destroy("siege"));
    support_watch(NULL);
}

static const struct transport *chosen;
static struct siege siege_now;
static uint64_t blocks;
static size_t descriptors;

int
siege_choose(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof transports / sizeof transports[0]; i++)
        if (argc == 2 && strcmp(argv[1], transports[i].name) == 0)
            chosen = &transports[i];
    /* Over TLS each of hundreds of peers has four descriptors here. */
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < 4096) {
        files.rlim_cur = files.rlim_max < 4096 ? files.rlim_max : 4096;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (chosen == NULL)
        fprintf(stderr, "usage: %s ipc|tcp|tls\n", argv[0]);
    return chosen == NULL ? 2 : 0;
}

int
siege_begin(void **state)
{
    /* Once without tests: what the process keeps for good is made. */
    begin(&siege_now, chosen);
    end(&siege_now);
    blocks = block_in_use();
    descriptors = support_descriptors();
    begin(&siege_now, chosen);
    *state = &siege_now;
    return 0;
}

int
siege_end(void **state)
{
    end(*state);
    support_watch("what is left");
    assert_int_equal(block_in_use(), blocks);
    /* nng closes some of them a little later. */
    while (support_descriptors() > descriptors)
        pause_a_moment();
    support_watch(NULL);
    return 0;
}

int
siege_dial(struct siege *siege)
{
    return strncmp(siege->url, "tls+", 4) == 0
               ? tls_pump_dial(siege->url)
               : peer_connect(siege->url, false);
}

bool
siege_connect(struct siege *siege, struct peer *peer)
{
    return peer_init_fd(peer, siege_dial(siege),
                        strncmp(siege->url, "ipc://", 6) == 0);
}

void
siege_peer(struct siege *siege, struct peer *peer)
{
    assert_true(siege_connect(siege, peer));
    assert_int_equal(peer_hello(peer), 0);
    assert_int_equal(peer_open(peer, "disk"), 0);
}

void
siege_reset(int fd)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}
