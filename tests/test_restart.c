/* SPDX-License-Identifier: ISC */
/*
 * Servers that are killed and started anew, as another instance: what the client
 * says of what was under way, what it refuses to hide, and when it goes on.
 */
#include "tests/client_calls.h"
#include "tests/daemon.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512u
#define SECTORS 64u

struct host {
    struct daemon daemon;
    char path[256], socket[256], listen[300], export[320];
};

static uint8_t sector[2][SECTOR];

static void
host_start(struct host *host, const char *device)
{
    const char *const args[] = {"--listen", host->listen, "--export",
                                host->export, NULL};
    snprintf(host->listen, sizeof host->listen, "ipc://%s", host->socket);
    snprintf(host->export, sizeof host->export, "disk=%s", device);
    daemon_start(&host->daemon, args);
}

static void
host_begin(struct host *host)
{
    char device[280];
    memset(host, 0, sizeof *host);
    snprintf(host->path, sizeof host->path, "%s", support_path("disk"));
    snprintf(host->socket, sizeof host->socket, "%s", support_path("socket"));
    support_make_file(host->path, SECTORS * SECTOR);
    snprintf(device, sizeof device, "file:%s", host->path);
    host_start(host, device);
}

static void
host_again(struct host *host)
{
    char device[280];
    snprintf(device, sizeof device, "file:%s", host->path);
    host_start(host, device);
}

static struct farblk *
host_open(const struct host *host, const char *more)
{
    struct farblk *dev;
    char uri[400];
    snprintf(uri, sizeof uri, "farblk+unix:///disk?socket=%s&%s", host->socket,
             more);
    ok(farblk_open(uri, NULL, &dev));
    return dev;
}

/* A write that the server has got and not answered. */
static void
host_hang(struct host *host, struct farblk *dev, struct farblk_queue *queue,
          uint64_t at, uint64_t seed)
{
    static struct iovec iov;
    daemon_pause(&host->daemon);
    pattern_fill(sector[1], SECTOR, seed);
    iov = (struct iovec){sector[1], SECTOR};
    client_submit(queue, dev, FARBLK_OP_WRITE, at, &iov, 1, 0, 1);
}

static void
expect_failed(struct farblk *dev)
{
    fails_with(FARBLK_DISCONNECTED, farblk_flush(dev));
    fails_with(FARBLK_DISCONNECTED, support_read(dev, 0, sector[0], SECTOR));
    fails_with(FARBLK_DISCONNECTED,
               support_write(dev, 0, sector[0], SECTOR, 0));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
}

static void
acknowledged_and_not_flushed_is_never_hidden(void **state)
{
    static const char *const more[] = {"reconnect=60", "reconnect=60&reopen=1",
                                       "reconnect=60&retry=always"};
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct host host;
        host_begin(&host);
        struct farblk *dev = host_open(&host, more[i]);
        pattern_fill(sector[0], SECTOR, i);
        ok(support_write(dev, 3, sector[0], SECTOR, 0));
        ok(farblk_flush(dev));
        ok(support_write(dev, 4, sector[0], SECTOR, 0)); /* this one */
        daemon_kill(&host.daemon);
        host_again(&host);
        struct farblk_queue *queue = client_queue();
        client_submit(queue, dev, FARBLK_OP_FLUSH, 0, NULL, 0, 0, 0);
        struct farblk_completion done = client_collect(queue);
        assert_true(done.status == FARBLK_CONNECTION_LOST
                    || done.status == FARBLK_DISCONNECTED);
        assert_non_null(strstr(done.text, "not flushed"));
        expect_failed(dev);
        text_has("not flushed");
        farblk_queue_destroy(queue);
        ok(farblk_close(dev));
        /* The application opens it anew. */
        dev = host_open(&host, more[i]);
        ok(farblk_flush(dev));
        ok(support_read(dev, 3, sector[1], SECTOR));
        assert_memory_equal(sector[0], sector[1], SECTOR);
        ok(farblk_close(dev));
        daemon_kill(&host.daemon);
    }
}

static void
without_reopen_another_instance_is_the_end(void **state)
{
    struct host host;
    (void)state;
    host_begin(&host);
    struct farblk *dev = host_open(&host, "reconnect=60");
    struct farblk_queue *queue = client_queue();
    ok(support_read(dev, 3, sector[0], SECTOR));
    host_hang(&host, dev, queue, 5, 1);
    daemon_kill(&host.daemon);
    host_again(&host);
    struct farblk_completion done = client_collect(queue);
    assert_int_equal(done.status, FARBLK_CONNECTION_LOST);
    assert_int_equal(done.effect, FARBLK_EFFECT_UNKNOWN);
    assert_non_null(strstr(done.text, "started anew"));
    expect_failed(dev);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    daemon_kill(&host.daemon);
}

static void
memory_is_shared_anew_with_another_instance(void **state)
{
    struct host host;
    (void)state;
    host_begin(&host);
    struct farblk *dev = host_open(&host, "reconnect=60&reopen=1&shm=require");
    uint8_t *buffer = farblk_buffer_alloc(dev, SECTOR);
    assert_non_null(buffer);
    for (unsigned i = 0; i < 3; i++) {
        pattern_fill(buffer, SECTOR, i);
        ok(support_write(dev, i, buffer, SECTOR, 0));
        ok(farblk_flush(dev));
        daemon_kill(&host.daemon);
        host_again(&host);
        ok(support_read(dev, i, sector[0], SECTOR));
        assert_int_equal(pattern_check(sector[0], SECTOR, i), SECTOR);
        while (strcmp(support_info(dev).transport, "shm") != 0)
            usleep(1000);
        assert_int_equal(pattern_check(buffer, SECTOR, i), SECTOR);
    }
    farblk_buffer_free(dev, buffer, SECTOR);
    ok(farblk_close(dev));
    daemon_kill(&host.daemon);
}

static void
reopen_goes_on_when_nothing_was_lost(void **state)
{
    struct host host;
    struct client_thread watcher = {0};
    (void)state;
    host_begin(&host);
    struct farblk *dev = host_open(&host, "reconnect=60&reopen=1");
    uint64_t generation = support_info(dev).generation;
    watcher.count = generation;
    client_begin(&watcher, FARBLK_OP_WATCH, dev);
    pattern_fill(sector[0], SECTOR, 7);
    ok(support_write(dev, 3, sector[0], SECTOR, 0));
    ok(farblk_flush(dev));
    ok(support_write(dev, 4, sector[0], SECTOR, FARBLK_FUA));
    for (unsigned i = 0; i < 3; i++) {
        daemon_kill(&host.daemon);
        host_again(&host);
        memset(sector[1], 0, SECTOR);
        ok(support_read(dev, 3, sector[1], SECTOR));
        assert_memory_equal(sector[0], sector[1], SECTOR);
        ok(support_write(dev, 5 + i, sector[0], SECTOR, 0));
        ok(farblk_flush(dev));
    }
    client_end(&watcher); /* another instance counts from elsewhere */
    assert_int_equal(watcher.status, 0);
    assert_true(watcher.value > generation);
    assert_true(support_info(dev).generation > generation);
    ok(farblk_resize(dev, 2 * SECTORS));
    assert_int_equal(support_info(dev).size_sectors, 2 * SECTORS);
    ok(farblk_close(dev));
    daemon_stop(&host.daemon);
}

static void
what_is_not_known_is_said_or_tried_again(void **state)
{
    (void)state;
    for (unsigned again = 0; again < 2; again++) {
        struct host host;
        host_begin(&host);
        struct farblk *dev =
            host_open(&host, again ? "reconnect=60&retry=always"
                                   : "reconnect=60&reopen=1");
        struct farblk_queue *queue = client_queue();
        host_hang(&host, dev, queue, 5, 9);
        daemon_kill(&host.daemon);
        host_again(&host);
        struct farblk_completion done = client_collect(queue);
        assert_int_equal(done.status, again ? 0 : FARBLK_CONNECTION_LOST);
        if (!again)
            assert_int_equal(done.effect, FARBLK_EFFECT_UNKNOWN);
        ok(support_read(dev, 5, sector[0], SECTOR));
        if (again)
            assert_memory_equal(sector[0], sector[1], SECTOR);
        ok(farblk_flush(dev));
        farblk_queue_destroy(queue);
        ok(farblk_close(dev));
        daemon_kill(&host.daemon);
    }
}

static void
reads_are_executed_at_the_new_instance(void **state)
{
    struct host host;
    struct iovec iov = {sector[0], SECTOR};
    (void)state;
    host_begin(&host);
    struct farblk *dev = host_open(&host, "reconnect=60&reopen=1");
    struct farblk_queue *queue = client_queue();
    pattern_fill(sector[1], SECTOR, 4);
    ok(support_write(dev, 9, sector[1], SECTOR, FARBLK_FUA));
    daemon_pause(&host.daemon);
    client_submit(queue, dev, FARBLK_OP_READ, 9, &iov, 1, 0, 0);
    client_submit(queue, dev, FARBLK_OP_FLUSH, 0, NULL, 0, 0, 1);
    daemon_kill(&host.daemon);
    host_again(&host);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(client_collect(queue).status, 0);
    assert_memory_equal(sector[0], sector[1], SECTOR);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    daemon_kill(&host.daemon);
}

/* What is behind the name is not what the handle was opened for. */
static void
another_content_is_never_taken_for_the_same(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct host host;
        char other[300];
        host_begin(&host);
        if (i == 0) {
            daemon_kill(&host.daemon);
            host_start(&host, "ramdisk:disk?size=64k");
        }
        struct farblk *dev = host_open(&host, "reconnect=60&retry=always");
        ok(support_read(dev, 3, sector[0], SECTOR));
        daemon_kill(&host.daemon);
        switch (i) {
        case 0: /* it died with the server */
            host_start(&host, "ramdisk:disk?size=64k");
            break;
        case 1: /* another file */
            snprintf(other, sizeof other, "%s.old", host.path);
            assert_int_equal(rename(host.path, other), 0);
            support_make_file(host.path, SECTORS * SECTOR);
            host_again(&host);
            break;
        case 2: /* the same file, shorter */
            assert_int_equal(truncate(host.path, SECTOR), 0);
            host_again(&host);
            break;
        default: /* not there any more */
            snprintf(other, sizeof other, "ramdisk:other?size=64k");
            host_start(&host, other);
            break;
        }
        static const char *const texts[] = {"another content",
                                            "another content", "less than",
                                            "another content"};
        struct farblk_queue *queue = client_queue();
        client_submit(queue, dev, FARBLK_OP_FLUSH, 0, NULL, 0, 0, 0);
        struct farblk_completion done = client_collect(queue);
        assert_true(done.status == FARBLK_CONNECTION_LOST
                    || done.status == FARBLK_DISCONNECTED);
        assert_non_null(strstr(done.text, texts[i]));
        expect_failed(dev);
        farblk_queue_destroy(queue);
        ok(farblk_close(dev));
        daemon_kill(&host.daemon);
    }
}

static void
a_server_that_is_killed_is_told_at_once_unless_asked_otherwise(void **state)
{
    struct host host;
    (void)state;
    host_begin(&host);
    struct farblk *dev = host_open(&host, "reopen=1");
    struct farblk_queue *queue = client_queue();
    host_hang(&host, dev, queue, 5, 1);
    daemon_kill(&host.daemon);
    struct farblk_completion done = client_collect(queue);
    assert_int_equal(done.status, FARBLK_DISCONNECTED);
    assert_int_equal(done.effect, FARBLK_EFFECT_UNKNOWN);
    expect_failed(dev);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
}

static int
restart_setup(void **state)
{
    (void)state;
    support_watch("restart");
    return 0;
}

static int
restart_teardown(void **state)
{
    (void)state;
    support_watch(NULL);
    daemon_kill_all();
    return 0;
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, restart_setup, restart_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(acknowledged_and_not_flushed_is_never_hidden),
        TEST(without_reopen_another_instance_is_the_end),
        TEST(memory_is_shared_anew_with_another_instance),
        TEST(reopen_goes_on_when_nothing_was_lost),
        TEST(what_is_not_known_is_said_or_tried_again),
        TEST(reads_are_executed_at_the_new_instance),
        TEST(another_content_is_never_taken_for_the_same),
        TEST(a_server_that_is_killed_is_told_at_once_unless_asked_otherwise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
