/* SPDX-License-Identifier: ISC */
/*
 * Conformance: handles.  Opening read-only, disconnecting, closing.
 */
#include "tests/conformance.h"

#define SECTORS 2048u
#define SECTOR 512u

static void
life_expect_disconnected(struct farblk *dev)
{
    uint8_t buffer[SECTOR] = {0};
    struct farblk_extent extent;
    uint64_t value;

    fails_with(FARBLK_DISCONNECTED, support_read(dev, 0, buffer, SECTOR));
    fails_with(FARBLK_DISCONNECTED, support_write(dev, 0, buffer, SECTOR, 0));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
    fails_with(FARBLK_DISCONNECTED, farblk_read(dev, 0, NULL, 0));
    fails_with(FARBLK_DISCONNECTED, farblk_write(dev, 0, NULL, 0, 0));
    fails_with(FARBLK_DISCONNECTED, farblk_flush(dev));
    fails_with(FARBLK_DISCONNECTED, farblk_discard(dev, 0, 1, 0));
    fails_with(FARBLK_DISCONNECTED, farblk_write_zeroes(dev, 0, 1, 0));
    fails_with(FARBLK_DISCONNECTED, farblk_resize(dev, SECTORS));
    fails_with(FARBLK_DISCONNECTED, farblk_seek_mapped(dev, 0, &value));
    fails_with(FARBLK_DISCONNECTED, farblk_seek_unmapped(dev, 0, &value));
    fails_with(FARBLK_DISCONNECTED, farblk_extents(dev, 0, 1, &extent, 1));
    fails_with(FARBLK_DISCONNECTED, farblk_watch(dev, 1, 0, &value));
    fails_with(FARBLK_DISCONNECTED, farblk_watch(dev, 1, -1, &value));
}

static void
after_disconnect_everything_is_disconnected(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");

    conformance_put_pattern(dev, 0, 10, SECTOR, 1);
    ok(farblk_disconnect(dev));
    life_expect_disconnected(dev);
    rig_destroy(rig);
}

static void
life_expect_same_info(const struct farblk_info *a, const struct farblk_info *b)
{
    assert_int_equal(a->read_write, b->read_write);
    assert_int_equal(a->sector_size, b->sector_size);
    assert_int_equal(a->size_sectors, b->size_sectors);
    assert_int_equal(a->generation, b->generation);
    assert_int_equal(a->features, b->features);
    assert_int_equal(a->max_transfer, b->max_transfer);
    assert_int_equal(a->preferred_transfer, b->preferred_transfer);
    assert_string_equal(a->driver, b->driver);
    assert_string_equal(a->transport, b->transport);
    assert_string_equal(a->name, b->name);
}

static void
after_disconnect_info_is_the_last_known(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, ""), *other = rig_open(rig, "");
    struct farblk_info before, after = {0};

    bool resizes = support_info(dev).features & FARBLK_CAN_RESIZE;

    if (resizes)
        ok(farblk_resize(dev, SECTORS + 7));
    before = support_info(dev);
    ok(farblk_disconnect(dev));
    ok(farblk_get_info(dev, &after, sizeof after));
    life_expect_same_info(&after, &before);
    /* What changes now is not known to this handle any more. */
    if (resizes)
        ok(farblk_resize(other, SECTORS));
    ok(farblk_get_info(dev, &after, sizeof after));
    life_expect_same_info(&after, &before);
    rig_destroy(rig);
}

static void
disconnecting_again_is_fine(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");

    ok(farblk_disconnect(dev));
    ok(farblk_disconnect(dev));
    ok(farblk_disconnect(dev));
    rig_close(rig, dev);
    rig_destroy(rig);
}

static void
disconnect_leaves_other_handles_untouched(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *one = rig_open(rig, ""), *two = rig_open(rig, "");
    struct farblk *three;

    conformance_put_pattern(one, 0, 10, SECTOR, 1);
    ok(farblk_disconnect(one));
    conformance_expect_pattern(two, 0, 10, SECTOR, 1);
    conformance_put_pattern(two, 10, 10, SECTOR, 2);
    ok(farblk_flush(two));
    three = rig_open(rig, "");
    conformance_expect_pattern(three, 10, 10, SECTOR, 2);
    rig_close(rig, one);
    conformance_expect_pattern(two, 10, 10, SECTOR, 2);
    rig_destroy(rig);
}

static void
read_only_handle_reads_and_refuses_every_change(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, ""), *ro = rig_open(rig, "ro=1");
    uint8_t buffer[SECTOR] = {0};
    uint64_t value;

    conformance_put_pattern(dev, 0, SECTORS, SECTOR, 1);
    assert_false(support_info(ro).read_write);
    assert_true(support_info(dev).read_write);
    fails_with(FARBLK_IS_READ_ONLY, support_write(ro, 0, buffer, SECTOR, 0));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
    fails_with(FARBLK_IS_READ_ONLY, farblk_write(ro, 0, NULL, 0, 0));
    fails_with(FARBLK_IS_READ_ONLY, farblk_discard(ro, 0, 1, 0));
    fails_with(FARBLK_IS_READ_ONLY, farblk_write_zeroes(ro, 0, 1, 0));
    fails_with(FARBLK_IS_READ_ONLY, farblk_resize(ro, SECTORS * 2));
    fails_with(FARBLK_IS_READ_ONLY, farblk_resize(ro, SECTORS));
    conformance_expect_pattern(ro, 0, SECTORS, SECTOR, 1);
    ok(farblk_flush(ro));
    ok(farblk_seek_mapped(ro, 0, &value));
    assert_int_equal(value, 0);
    if (support_info(dev).features & FARBLK_CAN_RESIZE) {
        ok(farblk_resize(dev, SECTORS * 2));
        assert_int_equal(support_info(ro).size_sectors, SECTORS * 2);
    }
    rig_destroy(rig);
}

/* The first handle read-only, the second not: who came first is no matter. */
static void
writable_handle_after_a_read_only_one_writes(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *ro = rig_open(rig, "ro=1"), *dev = rig_open(rig, "");
    uint8_t buffer[SECTOR] = {0};

    conformance_put_pattern(dev, 0, 10, SECTOR, 1);
    conformance_expect_pattern(ro, 0, 10, SECTOR, 1);
    fails_with(FARBLK_IS_READ_ONLY, support_write(ro, 0, buffer, SECTOR, 0));
    ok(farblk_flush(ro));
    rig_close(rig, dev);
    fails_with(FARBLK_IS_READ_ONLY, support_write(ro, 0, buffer, SECTOR, 0));
    conformance_expect_pattern(ro, 0, 10, SECTOR, 1);
    rig_destroy(rig);
}

static void
options_say_the_same_as_the_uri(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk_options options = {.size = sizeof options, .read_only = true};
    struct farblk *dev = NULL;
    uint8_t buffer[SECTOR] = {0};

    ok(farblk_open(rig->uri, &options, &dev));
    assert_false(support_info(dev).read_write);
    fails_with(FARBLK_IS_READ_ONLY, support_write(dev, 0, buffer, SECTOR, 0));
    ok(farblk_close(dev));
    options = (struct farblk_options){.size = sizeof options,
                                      .sync = true,
                                      .timeout_ms = SUPPORT_PATIENCE_MS};
    ok(farblk_open(rig->uri, &options, &dev));
    conformance_put_pattern(dev, 0, 10, SECTOR, 1);
    conformance_expect_pattern(dev, 0, 10, SECTOR, 1);
    ok(farblk_close(dev));
    rig_destroy(rig);
}

/* Disconnect with writes in flight: what it drained is there, and what is not
 * there afterwards does not come later. */
static void
disconnect_drains_what_is_in_flight(void **way)
{
    enum { COUNT = 64, EACH = 16 };
    struct rig *rig = conformance_rig(way, COUNT * EACH, SECTOR);
    struct farblk *dev = rig_open(rig, ""), *other = rig_open(rig, "");
    struct farblk_completion completions[COUNT];
    struct farblk_queue *queue;
    uint8_t *out = malloc(COUNT * EACH * SECTOR);
    uint8_t *now = malloc(COUNT * EACH * SECTOR);
    struct iovec iov[COUNT];
    int count = 0;

    assert_true(out != NULL && now != NULL);
    ok(farblk_queue_create(COUNT, &queue));
    for (unsigned i = 0; i < COUNT; i++) {
        struct farblk_request write = {
            .size = sizeof write,
            .op = FARBLK_OP_WRITE,
            .dev = dev,
            .sector = i * EACH,
            .iov = &iov[i],
            .iovcnt = 1,
            .user = (void *)(uintptr_t)i,
        };

        iov[i] = (struct iovec){out + i * EACH * SECTOR, EACH * SECTOR};
        pattern_fill(iov[i].iov_base, EACH * SECTOR, i);
        ok(farblk_submit(queue, &write));
    }
    ok(farblk_disconnect(dev));
    ok(support_read(other, 0, now, COUNT * EACH * SECTOR));
    while (count < COUNT)
        count +=
            ok(farblk_collect(queue, completions + count, sizeof *completions,
                              (size_t)(COUNT - count), SUPPORT_PATIENCE_MS));
    assert_int_equal(farblk_queue_pending(queue), 0);
    for (unsigned i = 0; i < COUNT; i++) {
        unsigned n = (unsigned)(uintptr_t)completions[i].user;
        const uint8_t *at = now + n * EACH * SECTOR;
        size_t same = pattern_check(at, EACH * SECTOR, n);

        if (completions[i].status == 0) {
            assert_int_equal(same, EACH * SECTOR);
            continue;
        }
        assert_int_equal(completions[i].status, FARBLK_DISCONNECTED);
        if (completions[i].effect == FARBLK_EFFECT_NONE)
            assert_true(pattern_is_zero(at, EACH * SECTOR));
    }
    memcpy(out, now, COUNT * EACH * SECTOR);
    ok(farblk_flush(other));
    ok(support_read(other, 0, now, COUNT * EACH * SECTOR));
    assert_memory_equal(now, out, COUNT * EACH * SECTOR);
    farblk_queue_destroy(queue);
    free(out);
    free(now);
    rig_destroy(rig);
}

static void
completions_can_be_collected_after_close(void **way)
{
    enum { COUNT = 32 };
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_completion completions[COUNT];
    struct farblk_queue *queue;
    static uint8_t in[COUNT][SECTOR];
    struct iovec iov[COUNT];
    int count = 0;

    conformance_put_pattern(dev, 0, COUNT, SECTOR, 1);
    ok(farblk_queue_create(COUNT, &queue));
    for (unsigned i = 0; i < COUNT; i++) {
        struct farblk_request read = {
            .size = sizeof read,
            .op = FARBLK_OP_READ,
            .dev = dev,
            .sector = i,
            .iov = &iov[i],
            .iovcnt = 1,
        };

        iov[i] = (struct iovec){in[i], SECTOR};
        ok(farblk_submit(queue, &read));
    }
    rig_close(rig, dev);
    while (count < COUNT)
        count +=
            ok(farblk_collect(queue, completions + count, sizeof *completions,
                              (size_t)(COUNT - count), SUPPORT_PATIENCE_MS));
    for (unsigned i = 0; i < COUNT; i++)
        if (completions[i].status != 0)
            assert_int_equal(completions[i].status, FARBLK_DISCONNECTED);
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

static void
device_opens_again_after_its_last_handle_has_gone(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);

    for (unsigned i = 0; i < 20; i++) {
        struct farblk *dev = rig_open(rig, "");

        if (i > 0)
            conformance_expect_pattern(dev, i - 1, 1, SECTOR, i - 1);
        conformance_put_pattern(dev, i, 1, SECTOR, i);
        if (i % 2)
            ok(farblk_disconnect(dev));
        rig_close(rig, dev);
    }
    rig_destroy(rig);
}

static void
closing_null_is_fine_and_closing_twice_is_invalid(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");

    ok(farblk_close(NULL));
    rig_close(rig, dev);
    fails_with(FARBLK_INVALID, farblk_close(dev));
    rig_destroy(rig);
}

const struct conformance_case conformance_life[] = {
    CONFORMANCE(after_disconnect_everything_is_disconnected),
    CONFORMANCE(after_disconnect_info_is_the_last_known),
    CONFORMANCE(disconnecting_again_is_fine),
    CONFORMANCE(disconnect_leaves_other_handles_untouched),
    CONFORMANCE(read_only_handle_reads_and_refuses_every_change),
    CONFORMANCE(writable_handle_after_a_read_only_one_writes),
    CONFORMANCE(options_say_the_same_as_the_uri),
    CONFORMANCE(disconnect_drains_what_is_in_flight),
    CONFORMANCE(completions_can_be_collected_after_close),
    CONFORMANCE(device_opens_again_after_its_last_handle_has_gone),
    CONFORMANCE(closing_null_is_fine_and_closing_twice_is_invalid),
    CONFORMANCE_END,
};
