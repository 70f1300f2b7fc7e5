/* SPDX-License-Identifier: ISC */
/*
 * A real farblkd as its users meet it: its addresses, its exports, its end, and
 * many clients at once.
 */
#include "tests/peer.h"
#include "tests/ways.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#define SECTOR 512u

static const struct store *
serving_store(const char *name)
{
    const struct store *store = stores;

    while (strcmp(store->name, name) != 0)
        store++;
    return store;
}

static void
address_of_a_live_server_is_refused(void **state)
{
    struct way way = {serving_store("ramdisk"), IPC};
    struct rig *rig = rig_create(way, 64, SECTOR, NULL);
    struct farblk *dev = rig_open(rig, "");
    struct daemon second;
    const char *args[] = {"--listen", rig->daemon.url[0], "--export",
                          "disk=ramdisk:d", NULL};
    uint8_t buffer[SECTOR];
    char *log;

    (void)state;
    assert_false(daemon_try(&second, args));
    assert_true(second.exit_code > 0);
    log = daemon_read_log(&second);
    assert_non_null(strstr(log, "in use"));
    free(log);
    ok(support_read(dev, 0, buffer, SECTOR));
    rig_close(rig, rig_open(rig, ""));
    rig_destroy(rig);
}

static void
address_of_a_dead_server_is_taken_over(void **state)
{
    struct way way = {serving_store("ramdisk"), IPC};
    struct rig *rig = rig_create(way, 64, SECTOR, NULL);
    struct daemon second;
    char url[512];
    const char *args[] = {"--listen", url, "--export", "disk=ramdisk:d?size=1M",
                          NULL};
    struct farblk *dev = NULL;

    (void)state;
    snprintf(url, sizeof url, "%s", rig->daemon.url[0]);
    daemon_kill(&rig->daemon);
    daemon_start(&second, args);
    ok(farblk_open(rig->uri, NULL, &dev));
    assert_int_equal(support_info(dev).size_sectors, 2048);
    ok(farblk_close(dev));
    daemon_stop(&second);
    rig_destroy(rig);
}

static void
nobody_at_the_address_is_an_error(void **state)
{
    struct way way = {serving_store("ramdisk"), TCP};
    struct rig *rig = rig_create(way, 64, SECTOR, NULL);
    struct farblk *dev = NULL;
    int status;

    (void)state;
    fails_with(
        FARBLK_NOT_FOUND,
        farblk_open("farblk+unix:///disk?socket=/no/such/socket", NULL, &dev));
    text_has("/no/such/socket");
    daemon_stop(&rig->daemon);
    status = farblk_open(rig->uri, NULL, &dev);
    assert_true(status == FARBLK_CONNECTION_LOST || status == FARBLK_NOT_FOUND);
    assert_string_not_equal(farblk_last_text(), "");
    assert_null(dev);
    rig_destroy(rig);
}

static void
export_that_is_not_there_is_not_found(void **state)
{
    struct way way = {serving_store("ramdisk"), TCP};
    struct rig *rig = rig_create(way, 64, SECTOR, NULL);
    struct farblk *dev = NULL;
    char uri[RIG_URI];

    (void)state;
    snprintf(uri, sizeof uri, "%s", rig->uri);
    memcpy(strrchr(uri, '/'), "/dis", 5);
    fails_with(FARBLK_NOT_FOUND, farblk_open(uri, NULL, &dev));
    text_has("dis");
    assert_null(dev);
    rig_destroy(rig);
}

static int
serving_entry(void *arg, const struct farblk_list_entry *entry)
{
    char *names = arg;

    if (entry->size < sizeof *entry || entry->sector_size < 512)
        return 99;
    strcat(strcat(names, entry->name), entry->read_write ? "+" : "-");
    return strcmp(entry->name, "stop") == 0 ? 7 : 0;
}

static void
listing_tells_all_exports_by_name(void **state)
{
    const char *socket = support_path("s");
    char url[300], uri[300], names[256] = "";
    const char *args[] = {"--listen", url,
                          "--export", "b=ramdisk:b",
                          "--export", "a=ramdisk:a?size=1M&sector=4096",
                          "--export", "r=ramdisk:b?ro=1",
                          "--export", "stop=ramdisk:s",
                          "--export", "z=ramdisk:z",
                          NULL};
    struct daemon daemon;

    (void)state;
    snprintf(url, sizeof url, "ipc://%s", socket);
    snprintf(uri, sizeof uri, "farblk+unix:///?socket=%s", socket);
    daemon_start(&daemon, args);
    assert_int_equal(farblk_list(uri, serving_entry, names), 7);
    assert_string_equal(names, "a+b+r-stop+");
    fails_with(FARBLK_NOT_FOUND, farblk_list("farblk+unix:///?socket=/no/such",
                                             serving_entry, names));
    daemon_stop(&daemon);
}

static void
completed_writes_are_there_after_sigterm(void **state)
{
    struct way way = {serving_store("file-pool"), TCP};
    struct rig *rig = rig_create(way, 64, SECTOR, NULL);
    struct farblk *dev = rig_open(rig, "");
    uint8_t buffer[64 * SECTOR];
    int fd;

    (void)state;
    pattern_fill(buffer, sizeof buffer, 1);
    ok(support_write(dev, 0, buffer, sizeof buffer, 0));
    daemon_stop(&rig->daemon);
    fails_with(FARBLK_DISCONNECTED, farblk_flush(dev));
    fd = open(rig->path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, buffer, sizeof buffer), sizeof buffer);
    assert_int_equal(pattern_check(buffer, sizeof buffer, 1), sizeof buffer);
    close(fd);
    rig_destroy(rig);
}

/* With the limits that a server has by default. */
static void
serving_connect_and_close(enum transport transport)
{
    struct way way = {serving_store("ramdisk"), transport};
    struct rig *rig = rig_create(way, 64, SECTOR, NULL);
    struct farblk *dev = rig_open(rig, "");
    uint8_t buffer[SECTOR] = {1};

    for (unsigned i = 0; i < 300; i++) {
        int fd = peer_connect(rig->daemon.url[0], false);

        if (fd >= 0)
            close(fd);
    }
    rig_close(rig, rig_open(rig, ""));
    ok(support_write(dev, 0, buffer, SECTOR, 0));
    rig_destroy(rig);
}

static void
three_hundred_connections_that_close_at_once_harm_nobody(void **state)
{
    (void)state;
    serving_connect_and_close(IPC);
    serving_connect_and_close(TCP);
}

static void
device_behind_an_abstract_address_works(void **state)
{
    const char *name = support_name("farblk");
    char url[300], uri[400];
    const char *args[] = {"--listen", url, "--export", "disk=ramdisk:disk",
                          NULL};
    struct daemon daemon;
    struct farblk *dev = NULL;
    uint8_t buffer[SECTOR] = {1};

    (void)state;
    snprintf(url, sizeof url, "abstract://%s", name);
    snprintf(uri, sizeof uri, "farblk+unix:///disk?abstract=%s", name);
    daemon_start(&daemon, args);
    ok(farblk_open(uri, NULL, &dev));
    ok(support_write(dev, 5, buffer, SECTOR, 0));
    ok(support_read(dev, 5, buffer, SECTOR));
    ok(farblk_close(dev));
    daemon_stop(&daemon);
}

static void
one_server_listens_at_several_addresses(void **state)
{
    const char *socket = support_path("s");
    char url[300], uri[400];
    const char *args[] = {
        "--listen",          url, "--listen", "tcp://127.0.0.1:0", "--export",
        "disk=ramdisk:disk", NULL};
    struct daemon daemon;
    struct farblk *one = NULL, *two = NULL;
    uint8_t buffer[SECTOR];

    (void)state;
    snprintf(url, sizeof url, "ipc://%s", socket);
    daemon_start(&daemon, args);
    assert_int_equal(daemon.urls, 2);
    snprintf(uri, sizeof uri, "farblk+unix:///disk?socket=%s", socket);
    ok(farblk_open(uri, NULL, &one));
    snprintf(uri, sizeof uri, "farblk://%.200s/disk", daemon.url[1] + 6);
    ok(farblk_open(uri, NULL, &two));
    pattern_fill(buffer, sizeof buffer, 1);
    ok(support_write(one, 5, buffer, SECTOR, 0));
    memset(buffer, 0, sizeof buffer);
    ok(support_read(two, 5, buffer, SECTOR));
    assert_int_equal(pattern_check(buffer, sizeof buffer, 1), sizeof buffer);
    ok(farblk_close(one));
    ok(farblk_close(two));
    daemon_stop(&daemon);
}

struct client {
    const char *uri;
    unsigned index, count;
    struct trouble *trouble;
    pthread_barrier_t *barrier;
    pthread_t thread;
};

/* Write own sectors, wait for all, check somebody else's. */
static void *
serving_client(void *arg)
{
    struct client *client = arg;
    unsigned other = (client->index + 17) % client->count;
    struct farblk *dev = NULL;
    uint8_t buffer[16 * SECTOR];

    if (farblk_open(client->uri, NULL, &dev) != 0)
        trouble_note(client->trouble, "client %u: %s", client->index,
                     farblk_last_text());
    for (unsigned round = 0; dev != NULL && round < 20; round++) {
        pattern_fill(buffer, sizeof buffer, client->index * 100 + round);
        if (support_write(dev, client->index * 16, buffer, sizeof buffer, 0)
            != 0)
            trouble_note(client->trouble, "client %u: %s", client->index,
                         farblk_last_text());
    }
    pthread_barrier_wait(client->barrier);
    if (dev != NULL
        && (support_read(dev, other * 16, buffer, sizeof buffer) != 0
            || pattern_check(buffer, sizeof buffer, other * 100 + 19)
                   != sizeof buffer))
        trouble_note(client->trouble, "client %u: not what client %u wrote",
                     client->index, other);
    pthread_barrier_wait(client->barrier);
    if (farblk_close(dev) != 0)
        trouble_note(client->trouble, "client %u: close", client->index);
    return NULL;
}

static void
serving_clients(const char *store, enum transport transport)
{
    enum { COUNT = 64 };
    struct way way = {serving_store(store), transport};
    struct rig *rig = rig_create(way, COUNT * 16, SECTOR, NULL);
    struct client clients[COUNT];
    struct trouble trouble = {0};
    pthread_barrier_t barrier;

    pthread_barrier_init(&barrier, NULL, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        clients[i] = (struct client){.uri = rig->uri,
                                     .index = i,
                                     .count = COUNT,
                                     .trouble = &trouble,
                                     .barrier = &barrier};
        assert_int_equal(pthread_create(&clients[i].thread, NULL,
                                        serving_client, &clients[i]),
                         0);
    }
    for (unsigned i = 0; i < COUNT; i++)
        pthread_join(clients[i].thread, NULL);
    pthread_barrier_destroy(&barrier);
    trouble_assert_none(&trouble);
    rig_destroy(rig);
}

static void
sixty_four_clients_at_once_are_served_right(void **state)
{
    (void)state;
    serving_clients("ramdisk", IPC);
    serving_clients("ramdisk", TCP);
    serving_clients("file-pool", IPC);
}

static int
serving_setup(void **state)
{
    (void)state;
    support_watch("serving");
    return 0;
}

static int
serving_teardown(void **state)
{
    (void)state;
    support_watch(NULL);
    rig_destroy_all();
    daemon_kill_all();
    return 0;
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, serving_setup, serving_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(address_of_a_live_server_is_refused),
        TEST(address_of_a_dead_server_is_taken_over),
        TEST(nobody_at_the_address_is_an_error),
        TEST(export_that_is_not_there_is_not_found),
        TEST(listing_tells_all_exports_by_name),
        TEST(completed_writes_are_there_after_sigterm),
        TEST(three_hundred_connections_that_close_at_once_harm_nobody),
        TEST(device_behind_an_abstract_address_works),
        TEST(one_server_listens_at_several_addresses),
        TEST(sixty_four_clients_at_once_are_served_right),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
