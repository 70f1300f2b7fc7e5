/* SPDX-License-Identifier: ISC */
/*
 * Conformance: shape.  Info, resize, generation, watch.
 */
#include "tests/conformance.h"

#include <pthread.h>

#define SECTORS 2048u
#define SECTOR 512u

static void
info_tells_what_the_device_is(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_info info = support_info(dev);
    const uint64_t lacks = rig->way.store->lacks;
    const uint64_t wanted = FARBLK_CAN_RESIZE | FARBLK_CAN_WRITE_ZEROES
                            | FARBLK_CAN_FUA | FARBLK_CAN_WATCH
                            | FARBLK_SECTOR_ATOMIC;

    assert_true(info.read_write);
    assert_int_equal(info.sector_size, SECTOR);
    assert_int_equal(info.size_sectors, SECTORS);
    assert_int_not_equal(info.generation, 0);
    assert_true(info.max_transfer >= SECTOR);
    assert_int_equal(info.max_transfer % SECTOR, 0);
    assert_true(info.preferred_transfer >= SECTOR);
    assert_true(info.preferred_transfer <= info.max_transfer);
    assert_int_equal(info.preferred_transfer % SECTOR, 0);
    assert_non_null(memchr(info.driver, 0, sizeof info.driver));
    assert_non_null(memchr(info.transport, 0, sizeof info.transport));
    assert_non_null(memchr(info.name, 0, sizeof info.name));
    assert_string_equal(info.transport,
                        !rig_is_remote(rig) && rig->way.store->transport != NULL
                            ? rig->way.store->transport
                            : transport_names[rig->way.transport]);
    assert_string_equal(info.driver,
                        rig_is_remote(rig) ? "farblk" : rig->way.store->scheme);
    assert_string_equal(info.name, rig_is_remote(rig) ? "disk" : rig->told);
    assert_int_equal(info.features & wanted, wanted & ~lacks);
    assert_int_equal(info.features & lacks, 0);
    rig_destroy(rig);
}

static void
info_fills_no_more_than_the_caller_has(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct {
        struct farblk_info info;
        uint8_t more[64];
    } big;
    size_t small = offsetof(struct farblk_info, generation);

    memset(&big, 0x5a, sizeof big);
    ok(farblk_get_info(dev, &big.info, small));
    assert_int_equal(big.info.size_sectors, SECTORS);
    for (size_t i = small; i < sizeof big; i++)
        assert_int_equal(((uint8_t *)&big)[i], 0x5a);
    /* A program built against a newer header. */
    memset(&big, 0x5a, sizeof big);
    ok(farblk_get_info(dev, &big.info, sizeof big));
    assert_int_equal(big.info.size_sectors, SECTORS);
    rig_destroy(rig);
}

static void
growth_reads_as_zero_and_is_unmapped(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint64_t sector;

    if (conformance_is_fixed(rig, dev))
        return;
    conformance_put_pattern(dev, 0, SECTORS, SECTOR, 1);
    ok(farblk_resize(dev, SECTORS * 3));
    assert_int_equal(support_info(dev).size_sectors, SECTORS * 3);
    conformance_expect_pattern(dev, 0, SECTORS, SECTOR, 1);
    conformance_expect_zero(dev, SECTORS, SECTORS * 2, SECTOR);
    ok(farblk_seek_mapped(dev, SECTORS + 128, &sector));
    assert_int_equal(sector, SECTORS * 3);
    conformance_put_pattern(dev, SECTORS * 3 - 1, 1, SECTOR, 2);
    conformance_expect_pattern(dev, SECTORS * 3 - 1, 1, SECTOR, 2);
    rig_destroy(rig);
}

static void
shrinking_drops_the_tail_for_good(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint8_t buffer[SECTOR] = {0};

    if (conformance_is_fixed(rig, dev))
        return;
    conformance_put_pattern(dev, 0, SECTORS, SECTOR, 1);
    ok(farblk_resize(dev, 1001));
    assert_int_equal(support_info(dev).size_sectors, 1001);
    fails_with(FARBLK_INVALID, support_read(dev, 1001, buffer, SECTOR));
    fails_with(FARBLK_INVALID, support_write(dev, 1001, buffer, SECTOR, 0));
    fails_with(FARBLK_INVALID, farblk_resize(dev, UINT64_MAX));
    conformance_expect_pattern(dev, 0, 1001, SECTOR, 1);
    ok(farblk_resize(dev, SECTORS));
    conformance_expect_pattern(dev, 0, 1001, SECTOR, 1);
    conformance_expect_zero(dev, 1001, SECTORS - 1001, SECTOR);
    rig_destroy(rig);
}

static void
device_of_no_sectors_works(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    uint8_t buffer[SECTOR] = {0};
    uint64_t sector = 1;

    if (conformance_is_fixed(rig, dev))
        return;
    conformance_put_pattern(dev, 0, SECTORS, SECTOR, 1);
    ok(farblk_resize(dev, 0));
    assert_int_equal(support_info(dev).size_sectors, 0);
    ok(farblk_read(dev, 0, NULL, 0));
    fails_with(FARBLK_INVALID, support_read(dev, 0, buffer, SECTOR));
    fails_with(FARBLK_INVALID, support_write(dev, 0, buffer, SECTOR, 0));
    ok(farblk_seek_mapped(dev, 0, &sector));
    assert_int_equal(sector, 0);
    fails_with(FARBLK_INVALID, farblk_seek_mapped(dev, 1, &sector));
    ok(farblk_flush(dev));
    ok(farblk_resize(dev, SECTORS));
    conformance_expect_zero(dev, 0, SECTORS, SECTOR);
    rig_destroy(rig);
}

static void
resize_is_visible_to_other_handles_before_it_returns(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *one = rig_open(rig, ""), *two = rig_open(rig, "");
    uint8_t buffer[SECTOR] = {0};

    if (conformance_is_fixed(rig, one))
        return;
    for (unsigned i = 1; i <= 10; i++) {
        ok(farblk_resize(one, SECTORS + i));
        conformance_put_pattern(two, SECTORS + i - 1, 1, SECTOR, i);
        assert_int_equal(support_info(two).size_sectors, SECTORS + i);
        ok(farblk_resize(two, SECTORS / 2));
        fails_with(FARBLK_INVALID, support_read(one, SECTORS, buffer, SECTOR));
        assert_int_equal(support_info(one).size_sectors, SECTORS / 2);
    }
    rig_destroy(rig);
}

static void
resize_reaches_the_storage(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");

    if (conformance_is_fixed(rig, dev))
        return;
    ok(farblk_resize(dev, SECTORS * 2 + 1));
    rig_close(rig, dev);
    dev = rig_open(rig, "");
    assert_int_equal(support_info(dev).size_sectors, SECTORS * 2 + 1);
    rig_destroy(rig);
}

static void
generation_changes_with_the_shape(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, ""), *other = rig_open(rig, "");
    uint64_t seen[6];

    if (conformance_is_fixed(rig, dev))
        return;
    seen[0] = support_info(dev).generation;
    assert_int_equal(support_info(other).generation, seen[0]);
    conformance_put_pattern(dev, 0, 10, SECTOR, 1);
    ok(farblk_flush(dev));
    assert_int_equal(support_info(dev).generation, seen[0]);
    for (unsigned i = 1; i < 6; i++) {
        ok(farblk_resize(i % 2 ? dev : other, SECTORS + i % 3 * 10));
        seen[i] = support_info(dev).generation;
        assert_int_equal(support_info(other).generation, seen[i]);
        if (i % 3 != 0)
            assert_int_not_equal(seen[i], seen[i - 1]);
    }
    assert_int_not_equal(seen[2], seen[5]);
    rig_destroy(rig);
}

static void
watch_tells_at_once_of_a_change_in_the_past(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, ""), *other = rig_open(rig, "");
    uint64_t before = support_info(dev).generation, now = 0;

    if (conformance_is_fixed(rig, dev))
        return;
    fails_with(FARBLK_TIMED_OUT, farblk_watch(dev, before, 0, &now));
    fails_with(FARBLK_TIMED_OUT, farblk_watch(dev, before, 20, &now));
    ok(farblk_resize(other, SECTORS + 1));
    ok(farblk_watch(dev, before, 0, &now));
    assert_int_equal(now, support_info(dev).generation);
    assert_int_not_equal(now, before);
    ok(farblk_watch(dev, before, -1, &now));
    ok(farblk_watch(dev, before, SUPPORT_PATIENCE_MS, &now));
    fails_with(FARBLK_TIMED_OUT, farblk_watch(dev, now, 0, &now));
    rig_destroy(rig);
}

static struct farblk_request
shape_watch_request(struct farblk *dev)
{
    return (struct farblk_request){.size = sizeof(struct farblk_request),
                                   .op = FARBLK_OP_WATCH,
                                   .dev = dev,
                                   .count = support_info(dev).generation};
}

static void
watch_wakes_up_when_another_handle_resizes(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, ""), *other = rig_open(rig, "");
    struct farblk_queue *queue;
    struct farblk_completion completion;

    if (conformance_is_fixed(rig, dev))
        return;
    ok(farblk_queue_create(4, &queue));
    for (unsigned i = 1; i < 5; i++) {
        struct farblk_request watch = shape_watch_request(dev);

        ok(farblk_submit(queue, &watch));
        assert_int_equal(
            farblk_collect(queue, &completion, sizeof completion, 1, 0), 0);
        ok(farblk_resize(other, SECTORS + i));
        assert_int_equal(farblk_collect(queue, &completion, sizeof completion,
                                        1, SUPPORT_PATIENCE_MS),
                         1);
        assert_int_equal(completion.status, 0);
        assert_int_equal(completion.value, support_info(dev).generation);
        assert_int_not_equal(completion.value, watch.count);
    }
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

static void
watch_ends_when_its_handle_is_disconnected(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_request watch = shape_watch_request(dev);
    struct farblk_queue *queue;
    struct farblk_completion completion;

    ok(farblk_queue_create(4, &queue));
    ok(farblk_submit(queue, &watch));
    ok(farblk_disconnect(dev));
    assert_int_equal(farblk_collect(queue, &completion, sizeof completion, 1,
                                    SUPPORT_PATIENCE_MS),
                     1);
    assert_int_equal(completion.status, FARBLK_DISCONNECTED);
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

static void
watch_with_a_time_limit_ends_in_a_queue(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_request watch = shape_watch_request(dev);
    struct farblk_queue *queue;
    struct farblk_completion completion;

    ok(farblk_queue_create(4, &queue));
    watch.timeout_ms = 30;
    completion = conformance_do(queue, &watch);
    assert_int_equal(completion.status, FARBLK_TIMED_OUT);
    assert_int_equal(completion.effect, FARBLK_EFFECT_NONE);
    assert_string_not_equal(completion.text, "");
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

struct watcher {
    struct farblk *dev;
    uint64_t generation, now;
    int status;
};

static void *
shape_watch_thread(void *arg)
{
    struct watcher *watcher = arg;

    watcher->status = farblk_watch(watcher->dev, watcher->generation,
                                   SUPPORT_PATIENCE_MS, &watcher->now);
    return NULL;
}

static void
many_threads_watch_at_once(void **way)
{
    enum { THREADS = 8 };
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct watcher watchers[THREADS];
    pthread_t threads[THREADS];
    uint64_t generation = support_info(dev).generation;

    if (conformance_is_fixed(rig, dev))
        return;
    for (int i = 0; i < THREADS; i++) {
        watchers[i] = (struct watcher){.dev = i % 2 ? dev : rig_open(rig, ""),
                                       .generation = generation};
        assert_int_equal(
            pthread_create(&threads[i], NULL, shape_watch_thread, &watchers[i]),
            0);
    }
    ok(farblk_resize(dev, SECTORS + 1));
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(watchers[i].status, 0);
        assert_int_equal(watchers[i].now, support_info(dev).generation);
    }
    rig_destroy(rig);
}

const struct conformance_case conformance_shape[] = {
    CONFORMANCE(info_tells_what_the_device_is),
    CONFORMANCE(info_fills_no_more_than_the_caller_has),
    CONFORMANCE(growth_reads_as_zero_and_is_unmapped),
    CONFORMANCE(shrinking_drops_the_tail_for_good),
    CONFORMANCE(device_of_no_sectors_works),
    CONFORMANCE(resize_is_visible_to_other_handles_before_it_returns),
    CONFORMANCE(resize_reaches_the_storage),
    CONFORMANCE(generation_changes_with_the_shape),
    CONFORMANCE(watch_tells_at_once_of_a_change_in_the_past),
    CONFORMANCE(watch_wakes_up_when_another_handle_resizes),
    CONFORMANCE(watch_ends_when_its_handle_is_disconnected),
    CONFORMANCE(watch_with_a_time_limit_ends_in_a_queue),
    CONFORMANCE(many_threads_watch_at_once),
    CONFORMANCE_END,
};
