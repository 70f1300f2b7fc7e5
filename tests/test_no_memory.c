/* SPDX-License-Identifier: ISC */
/*
 * No memory, at each point: every request for memory (or a thread) that opening,
 * using and closing devices and servers makes fails in its turn, once alone and
 * once with all that follow.  Each time all calls return, with a reason if they
 * fail; nothing is left; and the next time, with memory, all is well.
 */
#include "core/block.h"
#include "farblk/server.h"
#include "tests/alloc_faults.h"
#include "tests/support.h"

#include <stdio.h>
#include <time.h>

#define SECTOR 512u
#define POINTS_MAX 2000u

static char path[256], name[128], url[256], uri[320], list_uri[320];

/* What the first call said that failed. */
static char why[FARBLK_TEXT_MAX];

static int
note(int status)
{
    if (status < 0 && why[0] == '\0')
        snprintf(why, sizeof why, "%s", farblk_last_text());
    return status;
}

/* ------------------------------------------------------------ scenarios */

static int
use_queue(struct farblk *dev)
{
    static uint8_t data[4][8 * SECTOR];
    static struct farblk_extent extents[8];
    struct iovec iov[6]; /* needed until the requests are done */
    struct farblk_completion done[2];
    struct farblk_queue *queue;
    int failed = 0, status = note(farblk_queue_create(16, &queue));
    if (status != 0)
        return status;
    for (unsigned i = 0; i < 6; i++) {
        iov[i] = (struct iovec){data[i % 4], sizeof data[0]};
        struct farblk_request request = {
            .size = sizeof request,
            .op = i == 4   ? FARBLK_OP_FLUSH
                  : i == 5 ? FARBLK_OP_EXTENTS
                  : i % 2  ? FARBLK_OP_READ
                           : FARBLK_OP_WRITE,
            .dev = dev,
            .sector = i < 4 ? i * 8 : 0,
            .iov = &iov[i],
            .iovcnt = i != 4,
            .timeout_ms = i < 2 ? 60000 : 0,
        };
        if (i == 5) {
            iov[i] = (struct iovec){extents, sizeof extents};
            request.count = 16;
        }
        status = note(farblk_submit(queue, &request));
        if (status != 0)
            failed = status;
    }
    while (farblk_queue_pending(queue) > 0) {
        int count = farblk_collect(queue, done, sizeof done[0], 2, -1);
        assert_true(count > 0);
        for (int i = 0; i < count; i++) {
            if (done[i].status == 0)
                continue;
            assert_string_not_equal(done[i].text, "");
            failed = done[i].status;
            if (why[0] == '\0')
                snprintf(why, sizeof why, "%s", done[i].text);
        }
    }
    farblk_queue_destroy(queue);
    return failed;
}

static int
use_device(struct farblk *dev)
{
    static uint8_t data[64 * 1024];
    struct farblk_extent extents[4];
    struct farblk_info info = {0};
    uint64_t value;
    int status = note(farblk_get_info(dev, &info, sizeof info));
    if (status == 0)
        status = note(support_write(dev, 0, data, sizeof data, FARBLK_FUA));
    if (status == 0)
        status = note(support_read(dev, 0, data, sizeof data));
    if (status == 0)
        status = note(support_write(dev, 3, data, SECTOR, 0));
    if (status == 0)
        status = note(farblk_write_zeroes(dev, 2, 20, FARBLK_NO_UNMAP));
    if (status == 0)
        status = note(farblk_discard(dev, 8, 64, 0));
    if (status == 0)
        status = note(farblk_extents(dev, 0, 100, extents, 4));
    if (status >= 0)
        status = note(farblk_seek_unmapped(dev, 0, &value));
    if (status == 0)
        status = note(farblk_resize(dev, 1000));
    if (status == 0)
        status = note(farblk_watch(dev, info.generation, 60000, &value));
    if (status == 0)
        status = note(farblk_resize(dev, 1024));
    if (status == 0)
        status = note(farblk_flush(dev));
    return status == 0 ? use_queue(dev) : status;
}

static int
use_uri(const char *of)
{
    struct farblk *dev;
    int status = note(farblk_open(of, NULL, &dev));
    if (status != 0)
        return status;
    status = use_device(dev);
    int closed = note(farblk_close(dev));
    return status != 0 ? status : closed;
}

static int
ramdisk(void)
{
    int status = note(farblk_ramdisk_create("no-memory", 1024, SECTOR));
    if (status != 0)
        return status;
    status = use_uri("ramdisk:no-memory?timeout=60000");
    assert_int_equal(farblk_ramdisk_destroy("no-memory"), 0);
    return status;
}

static int
file(void)
{
    char of[300];
    snprintf(of, sizeof of, "file:%s", path);
    return use_uri(of);
}

static int
count_entry(void *arg, const struct farblk_list_entry *entry)
{
    unsigned *count = arg;
    (void)entry;
    ++*count;
    return 0;
}

static int
remote(void)
{
    unsigned count = 0;
    int status = note(farblk_list(list_uri, count_entry, &count));
    return status == 0 ? use_uri(uri) : status;
}

/* A server from its making to its end. */
static int
serve(void)
{
    struct farblk_server_stats stats;
    struct farblk_server *server;
    int status = note(farblk_server_create(NULL, &server));
    if (status != 0)
        return status;
    status = note(farblk_server_export(server, "disk", "ramdisk:served"));
    if (status == 0)
        status = note(farblk_server_listen(server, url));
    if (status == 0)
        status = remote();
    if (status == 0)
        status = note(farblk_server_stats(server, &stats, sizeof stats));
    int stopped = note(farblk_server_stop(server, -1));
    farblk_server_destroy(server);
    return status != 0 ? status : stopped;
}

/* ------------------------------------------------------------ each point */

/* What no memory may look like: from inside, or from the other side. */
static bool
is_expected(int status)
{
    switch (status) {
    case 0:
    case FARBLK_NO_MEMORY:
    case FARBLK_NO_SPACE: /* memory that is a device's */
    case FARBLK_DISCONNECTED:
    case FARBLK_CONNECTION_LOST:
        return true;
    default:
        return false;
    }
}

static void
at_each_point(const char *what, int (*scenario)(void), unsigned stride)
{
    unsigned failed = 0, points = 0;
    /* Twice: what is kept for good is there then. */
    if (scenario() != 0 || scenario() != 0)
        fail_msg("%s: %s", what, why);
    size_t open_before = support_descriptors();
    for (int all = 0; all < 2; all++) {
        bool hit = true;
        unsigned point;
        for (point = 1; hit && point < POINTS_MAX; point += stride) {
            support_watch(what);
            why[0] = '\0';
            alloc_faults_arm(point, all != 0);
            int status = scenario();
            hit = alloc_faults_disarm();
            if (!is_expected(status) || (!hit && status != 0))
                fail_msg("%s, point %u (%s), %s: %s: %s", what, point,
                         alloc_faults_last(), all ? "all" : "one",
                         farblk_status_name(status), why);
            if (status != 0)
                assert_string_not_equal(why, "");
            failed += status != 0;
            why[0] = '\0';
            if (hit && scenario() != 0)
                fail_msg("%s, after point %u (%s): %s", what, point,
                         alloc_faults_last(), why);
        }
        assert_true(point > 3 && point < POINTS_MAX);
        points += point / stride;
    }
    assert_true(failed > 3);
    print_message("%s: %u points, %u failures\n", what, points, failed);
    while (support_descriptors()
           > open_before) { /* nng closes some a little later */
        const struct timespec moment = {.tv_nsec = 5000000};
        nanosleep(&moment, NULL);
    }
    support_watch(NULL);
}

static void
local_ramdisk_survives_no_memory(void **state)
{
    (void)state;
    uint64_t blocks = block_in_use();
    at_each_point("ramdisk", ramdisk, 1);
    assert_int_equal(block_in_use(), blocks);
}

static void
local_file_survives_no_memory(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "%s", support_path("no-memory"));
    support_make_file(path, 1024 * SECTOR);
    at_each_point("file", file, 1);
}

static void
client_and_server_survive_no_memory(void **state)
{
    struct farblk_server *server;
    (void)state;
    ok(farblk_ramdisk_create("served", 1024, SECTOR));
    ok(farblk_server_create(NULL, &server));
    ok(farblk_server_export(server, "disk", "ramdisk:served"));
    ok(farblk_server_listen(server, url));
    at_each_point("client and server", remote, 1);
    ok(farblk_server_stop(server, -1));
    farblk_server_destroy(server);
    ok(farblk_ramdisk_destroy("served"));
}

static void
life_of_a_server_survives_no_memory(void **state)
{
    (void)state;
    ok(farblk_ramdisk_create("served", 1024, SECTOR));
    at_each_point("server", serve, 3);
    ok(farblk_ramdisk_destroy("served"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(local_ramdisk_survives_no_memory),
        cmocka_unit_test(local_file_survives_no_memory),
        cmocka_unit_test(client_and_server_survive_no_memory),
        cmocka_unit_test(life_of_a_server_survives_no_memory),
    };
    snprintf(name, sizeof name, "%s", support_name("no-memory"));
    snprintf(url, sizeof url, "abstract://%s", name);
    snprintf(uri, sizeof uri, "farblk+unix:///disk?abstract=%s", name);
    snprintf(list_uri, sizeof list_uri, "farblk+unix:///?abstract=%s", name);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
