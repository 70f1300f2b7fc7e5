/* SPDX-License-Identifier: ISC */
/*
 * The client driver against a real server inside this process, over each of
 * its transports.
 */
#include "farblk/server.h"
#include "tests/support.h"

#include <pthread.h>
#include <stdio.h>

#define SECTORS 4096u

/* One way to the server: what it listens on, and the URI of its device. */
struct way {
    char listen[192], uri[256], list[256], transport[16];
};

static struct farblk_server *server;

static void
start_server(struct way *way, const char *transport)
{
    const struct farblk_server_options options = {
        .size = sizeof options,
        .lease_ms = 5000,
        .max_payload = 65536,
    };
    char ramdisk[256];
    const char *name = support_name("farblk-client");
    snprintf(way->transport, sizeof way->transport, "%s", transport);
    ok(farblk_server_create(&options, &server));
    snprintf(ramdisk, sizeof ramdisk, "ramdisk:%s?size=2M", name);
    ok(farblk_server_export(server, "disk", ramdisk));
    snprintf(ramdisk, sizeof ramdisk, "ramdisk:%s-b?size=1M&sector=4096", name);
    ok(farblk_server_export(server, "other", ramdisk));

    if (strcmp(transport, "tcp") == 0)
        snprintf(way->listen, sizeof way->listen, "tcp://127.0.0.1:0");
    else if (strcmp(transport, "ws") == 0)
        snprintf(way->listen, sizeof way->listen, "ws://127.0.0.1:0/farblk");
    else if (strcmp(transport, "ipc") == 0)
        snprintf(way->listen, sizeof way->listen, "ipc://%s",
                 support_path("socket"));
    else
        snprintf(way->listen, sizeof way->listen, "%s://%s", transport, name);
    ok(farblk_server_listen(server, way->listen));
    const char *url = farblk_server_url(server, 0);
    assert_non_null(url);
    const char *address = strstr(url, "://") + 3;
    char *forms[2] = {way->list, way->uri};
    for (unsigned i = 0; i < 2; i++) {
        const char *device = i == 0 ? "" : "disk";
        if (strcmp(transport, "tcp") == 0)
            snprintf(forms[i], 256, "farblk://%s/%s", address, device);
        else if (strcmp(transport, "ws") == 0)
            snprintf(forms[i], 256, "farblk+ws://%.*s/%s",
                     (int)strcspn(address, "/"), address, device);
        else if (strcmp(transport, "ipc") == 0)
            snprintf(forms[i], 256, "farblk+unix:///%s?socket=%s", device,
                     address);
        else if (strcmp(transport, "abstract") == 0)
            snprintf(forms[i], 256, "farblk+unix:///%s?abstract=%s", device,
                     name);
        else
            snprintf(forms[i], 256, "farblk+inproc:///%s?address=%s", device,
                     name);
    }
}

static void
stop_server(void)
{
    ok(farblk_server_stop(server, -1));
    farblk_server_destroy(server);
}

static int
add_name(void *arg, const struct farblk_list_entry *entry)
{
    strcat(strcat(arg, entry->name), " ");
    return 0;
}

static void
every_operation(const struct way *way)
{
    static uint8_t data[SECTORS * 512 / 4], back[sizeof data];
    const uint64_t count = sizeof data / 512;
    struct farblk_extent extents[8];
    struct farblk *dev;
    uint64_t sector;
    char names[64] = "";

    ok(farblk_list(way->list, add_name, names));
    assert_string_equal(names, "disk other ");
    ok(farblk_open(way->uri, NULL, &dev));
    struct farblk_info info = support_info(dev);
    assert_int_equal(info.sector_size, 512);
    assert_int_equal(info.size_sectors, SECTORS);
    assert_int_equal(info.max_transfer, 65536);
    assert_true(info.read_write);
    assert_string_equal(info.driver, "farblk");
    assert_string_equal(info.name, "disk");

    pattern_fill(data, sizeof data, 1);
    ok(support_write(dev, 100, data, sizeof data, FARBLK_FUA));
    ok(support_read(dev, 100, back, sizeof back));
    assert_memory_equal(data, back, sizeof data);
    ok(farblk_flush(dev));
    ok(farblk_seek_mapped(dev, 0, &sector));
    assert_int_equal(sector, 100);
    ok(farblk_seek_unmapped(dev, 100, &sector));
    assert_int_equal(sector, 100 + count);
    assert_int_equal(ok(farblk_extents(dev, 0, SECTORS, extents, 8)), 3);
    assert_int_equal(extents[1].start, 100);
    assert_int_equal(extents[1].count, count);
    assert_int_equal(extents[1].mapped, 1);
    ok(farblk_discard(dev, 100, 1, 0));
    ok(farblk_write_zeroes(dev, 101, 1, FARBLK_NO_UNMAP));
    ok(support_read(dev, 100, back, 1024));
    assert_true(pattern_is_zero(back, 1024));

    fails_with(FARBLK_INVALID, support_read(dev, SECTORS - 1, back, 1024));
    fails_with(FARBLK_INVALID, support_write(dev, SECTORS - 1, back, 1024, 0));
    fails_with(FARBLK_INVALID, farblk_seek_mapped(dev, SECTORS + 1, &sector));
    ok(support_read(dev, SECTORS, back, 0));
    fails_with(FARBLK_INVALID, support_read(dev, SECTORS + 1, back, 0));

    ok(farblk_resize(dev, SECTORS / 2));
    fails_with(FARBLK_INVALID, support_read(dev, SECTORS / 2, back, 512));
    assert_int_equal(support_info(dev).size_sectors, SECTORS / 2);
    ok(farblk_resize(dev, SECTORS));
    ok(farblk_close(dev));
}

/* Somebody else resizes while this one watches. */
static void *
watch_thread(void *arg)
{
    struct farblk *dev = arg;
    struct farblk_info info = {0};
    uint64_t now;
    farblk_get_info(dev, &info, sizeof info);
    while (info.size_sectors != 17) {
        int status = farblk_watch(dev, info.generation, -1, &now);
        if (status != 0)
            return (void *)(intptr_t)status;
        farblk_get_info(dev, &info, sizeof info);
    }
    return NULL;
}

static void
two_clients_see_one_device(const struct way *way)
{
    struct farblk *one, *two;
    uint8_t data[512], back[512];
    pthread_t thread;
    void *result;
    ok(farblk_open(way->uri, NULL, &one));
    ok(farblk_open(way->uri, NULL, &two));
    pattern_fill(data, sizeof data, 2);
    ok(support_write(one, 3, data, sizeof data, 0));
    ok(support_read(two, 3, back, sizeof back));
    assert_memory_equal(data, back, sizeof data);
    assert_int_equal(pthread_create(&thread, NULL, watch_thread, two), 0);
    ok(farblk_resize(one, 18));
    ok(farblk_resize(one, 17));
    pthread_join(thread, &result);
    assert_null(result);
    ok(farblk_disconnect(one));
    fails_with(FARBLK_DISCONNECTED, farblk_flush(one));
    ok(farblk_flush(two));
    ok(farblk_resize(two, SECTORS));
    ok(farblk_close(one));
    ok(farblk_close(two));
}

static void
a_stopped_server_disconnects(const struct way *way)
{
    struct farblk *dev;
    uint64_t now;
    ok(farblk_open(way->uri, NULL, &dev));
    stop_server();
    fails_with(FARBLK_DISCONNECTED, farblk_flush(dev));
    assert_int_equal(support_info(dev).size_sectors, SECTORS);
    fails_with(FARBLK_DISCONNECTED, farblk_watch(dev, 0, -1, &now));
    ok(farblk_close(dev));
    assert_true(farblk_open(way->uri, NULL, &dev) < 0);
}

static void
whole_life(void **state)
{
    struct way way;
    start_server(&way, *state);
    every_operation(&way);
    two_clients_see_one_device(&way);
    a_stopped_server_disconnects(&way);
}

/* Writers, each with its own sectors, on clients of their own. */
struct worker {
    pthread_t thread;
    const struct way *way;
    struct trouble *trouble;
    uint64_t first;
};

static void *
work(void *arg)
{
    struct worker *worker = arg;
    struct farblk *dev;
    uint8_t data[4096], back[4096];
    if (farblk_open(worker->way->uri, NULL, &dev) != 0) {
        trouble_note(worker->trouble, "open: %s", farblk_last_text());
        return NULL;
    }
    for (uint64_t i = 0; i < 200; i++) {
        uint64_t sector = worker->first + i % 8 * 8;
        pattern_fill(data, sizeof data, worker->first + i);
        if (support_write(dev, sector, data, sizeof data, 0) != 0
            || support_read(dev, sector, back, sizeof back) != 0)
            trouble_note(worker->trouble, "%s", farblk_last_text());
        else if (memcmp(data, back, sizeof data) != 0)
            trouble_note(worker->trouble, "sector %llu reads otherwise",
                         (unsigned long long)sector);
    }
    if (farblk_close(dev) != 0)
        trouble_note(worker->trouble, "close: %s", farblk_last_text());
    return NULL;
}

static void
many_clients_at_once(void **state)
{
    enum { WORKERS = 24 };
    struct worker workers[WORKERS];
    struct trouble trouble = {0};
    struct way way;
    start_server(&way, *state);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] =
            (struct worker){.way = &way, .trouble = &trouble, .first = i * 64};
        assert_int_equal(
            pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(workers[i].thread, NULL);
    trouble_assert_none(&trouble);
    stop_server();
}

#define LIFE(transport)                                                        \
    {                                                                          \
        "whole_life_over_" transport, whole_life, NULL, NULL, transport        \
    }
#define MANY(transport)                                                        \
    {                                                                          \
        "many_clients_over_" transport, many_clients_at_once, NULL, NULL,      \
            transport                                                          \
    }

int
main(void)
{
    const struct CMUnitTest tests[] = {
        LIFE("abstract"), LIFE("ipc"),      LIFE("tcp"), LIFE("inproc"),
        LIFE("ws"),       MANY("abstract"), MANY("tcp"), MANY("inproc"),
    };
    support_watch("client_server");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    support_watch(NULL);
    return failed;
}
