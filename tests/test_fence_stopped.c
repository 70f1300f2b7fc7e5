/* SPDX-License-Identifier: ISC */
/*
 * A farblkd that stands still (SIGSTOP) while requests are given up: what lay in
 * its sockets and rings may be executed when it goes on, but never after anything
 * that was asked for later.
 */
#include "client/client.h"
#include "tests/ways.h"

#include <stdio.h>

#define SECTOR 512u

static const struct store *
stopped_store(const char *name)
{
    const struct store *store = stores;

    while (strcmp(store->name, name) != 0)
        store++;
    return store;
}

static struct farblk_completion
stopped_write(struct farblk_queue *queue, struct farblk *dev,
              const struct iovec *iov)
{
    struct farblk_completion done = {0};
    const struct farblk_request request = {
        .size = sizeof request,
        .op = FARBLK_OP_WRITE,
        .dev = dev,
        .iov = iov,
        .iovcnt = 1,
        .timeout_ms = 50,
    };

    ok(farblk_submit(queue, &request));
    assert_int_equal(farblk_collect(queue, &done, sizeof done, 1, -1), 1);
    return done;
}

/* What sector 0 holds. */
static uint8_t
stopped_look(struct farblk *dev)
{
    uint8_t found[SECTOR];

    ok(support_read(dev, 0, found, sizeof found));
    return found[0];
}

static void
stopped_rounds(const char *store, enum transport transport)
{
    struct way way = {stopped_store(store), transport};
    struct rig *rig = rig_create(way, 64, SECTOR, NULL);
    struct farblk *dev = rig_open(rig, ""), *other = rig_open(rig, "");
    struct farblk_queue *queue;
    uint8_t old[SECTOR], late[SECTOR], newer[SECTOR];
    const struct iovec iov = {late, sizeof late};

    ok(farblk_queue_create(4, &queue));
    memset(old, 1, sizeof old);
    memset(late, 2, sizeof late);
    memset(newer, 3, sizeof newer);
    for (unsigned round = 0; round < 6; round++) {
        bool writes = round % 2 == 1;
        ok(support_write(dev, 0, old, sizeof old, 0));
        daemon_pause(&rig->daemon);
        struct farblk_completion done = stopped_write(queue, dev, &iov);
        assert_int_equal(done.status, FARBLK_TIMED_OUT);
        bool sent = done.effect == FARBLK_EFFECT_UNKNOWN; /* so it is */
        /* What comes behind it is not sent at all. */
        done = stopped_write(queue, dev, &iov);
        assert_int_equal(done.status, FARBLK_TIMED_OUT);
        assert_true(!sent || done.effect == FARBLK_EFFECT_NONE);
        daemon_resume(&rig->daemon);
        /* On another queue, as all blocking calls. */
        if (writes)
            ok(support_write(dev, 0, newer, sizeof newer, 0));
        uint8_t found = stopped_look(dev);
        assert_true(writes ? found == 3 : found == 1 || found == 2);
        for (unsigned i = 0; i < 20; i++) {
            assert_int_equal(stopped_look(other), found);
            assert_int_equal(stopped_look(dev), found);
        }
    }
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

static void
what_was_given_up_lands_before_anything_later_or_never(void **state)
{
    (void)state;
    cancel_bounds = (struct cancel_bounds){1, 1};
    stopped_rounds("ramdisk", IPC);
    stopped_rounds("ramdisk", SHM);
    stopped_rounds("file-pool", TCP);
    stopped_rounds("file-pool", SHM);
}

/* closing while the server stands still, and has not answered: what is closed
 * can not write any more when it goes on. */
static void
nothing_lands_after_close(void **state)
{
    struct rig *rig = rig_create((struct way){stopped_store("ramdisk"), IPC},
                                 64, SECTOR, NULL);
    struct farblk *other = rig_open(rig, "");
    uint8_t late[SECTOR];
    const struct iovec iov = {late, sizeof late};
    struct farblk_queue *queue;

    (void)state;
    cancel_bounds = (struct cancel_bounds){1, 1};
    ok(farblk_queue_create(4, &queue));
    memset(late, 2, sizeof late);
    for (unsigned round = 0; round < 6; round++) {
        struct farblk *dev = rig_open(rig, "");
        late[0]++;
        daemon_pause(&rig->daemon);
        struct farblk_completion done = stopped_write(queue, dev, &iov);
        assert_int_equal(done.status, FARBLK_TIMED_OUT);
        daemon_resume(&rig->daemon);
        rig_close(rig, dev);
        uint8_t found = stopped_look(other);
        for (unsigned i = 0; i < 20; i++)
            assert_int_equal(stopped_look(other), found);
    }
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

static int
stopped_setup(void **state)
{
    (void)state;
    support_watch("a server that stands still");
    return 0;
}

static int
stopped_teardown(void **state)
{
    (void)state;
    rig_destroy_all();
    support_watch(NULL);
    return 0;
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, stopped_setup, stopped_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_was_given_up_lands_before_anything_later_or_never),
        TEST(nothing_lands_after_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
