/* SPDX-License-Identifier: ISC */
/*
 * Conformance: queues.  Every operation as a request, and what a request may
 * look like.
 */
#include "tests/conformance.h"

#define SECTORS 2048u
#define SECTOR 512u

static struct farblk_request
queues_request(struct farblk *dev, enum farblk_op op)
{
    return (struct farblk_request){.size = sizeof(struct farblk_request),
                                   .op = op,
                                   .dev = dev,
                                   .user = (void *)(uintptr_t)(op + 1000)};
}

static void
every_operation_works_through_a_queue(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_queue *queue;
    struct farblk_request request;
    struct farblk_completion done;
    uint8_t out[8 * SECTOR], in[8 * SECTOR];
    struct iovec from = {out, sizeof out}, to = {in, sizeof in};
    struct farblk_extent extents[8];
    struct iovec extents_to = {extents, sizeof extents};
    struct farblk_info info = {0}, same = support_info(dev);
    struct iovec info_to = {&info, sizeof info};

    ok(farblk_queue_create(8, &queue));
    pattern_fill(out, sizeof out, 1);
    request = queues_request(dev, FARBLK_OP_WRITE);
    request.sector = 64, request.iov = &from, request.iovcnt = 1;
    request.flags = FARBLK_FUA;
    done = conformance_do(queue, &request);
    assert_int_equal(done.status, 0);
    assert_string_equal(done.text, "");

    request = queues_request(dev, FARBLK_OP_READ);
    request.sector = 64, request.iov = &to, request.iovcnt = 1;
    assert_int_equal(conformance_do(queue, &request).status, 0);
    assert_memory_equal(in, out, sizeof in);

    request = queues_request(dev, FARBLK_OP_FLUSH);
    assert_int_equal(conformance_do(queue, &request).status, 0);

    request = queues_request(dev, FARBLK_OP_SEEK_MAPPED);
    request.sector = 64;
    done = conformance_do(queue, &request);
    assert_int_equal(done.status, 0);
    assert_int_equal(done.value, 64);

    request = queues_request(dev, FARBLK_OP_SEEK_UNMAPPED);
    request.sector = SECTORS;
    done = conformance_do(queue, &request);
    assert_int_equal(done.status, 0);
    assert_int_equal(done.value, SECTORS);

    request = queues_request(dev, FARBLK_OP_EXTENTS);
    request.sector = 64, request.count = 8;
    request.iov = &extents_to, request.iovcnt = 1;
    done = conformance_do(queue, &request);
    assert_int_equal(done.status, 0);
    assert_in_range(done.value, 1, 8);
    assert_int_equal(extents[0].start, 64);
    assert_int_equal(extents[0].mapped, 1);

    request = queues_request(dev, FARBLK_OP_WRITE_ZEROES);
    request.sector = 65, request.count = 2;
    assert_int_equal(conformance_do(queue, &request).status, 0);
    conformance_expect_zero(dev, 65, 2, SECTOR);
    conformance_expect_pattern(dev, 64, 1, SECTOR, 1);

    request = queues_request(dev, FARBLK_OP_DISCARD);
    request.sector = 64, request.count = 1;
    assert_int_equal(conformance_do(queue, &request).status, 0);

    bool resizes = same.features & FARBLK_CAN_RESIZE;

    request = queues_request(dev, FARBLK_OP_RESIZE);
    request.count = SECTORS + 5;
    assert_int_equal(conformance_do(queue, &request).status,
                     resizes ? 0 : FARBLK_UNIMPLEMENTED);

    request = queues_request(dev, FARBLK_OP_GET_INFO);
    request.iov = &info_to, request.iovcnt = 1;
    assert_int_equal(conformance_do(queue, &request).status, 0);
    assert_int_equal(info.size_sectors, SECTORS + (resizes ? 5 : 0));
    assert_int_equal(info.sector_size, SECTOR);
    assert_int_equal(info.generation != same.generation, resizes);
    assert_string_equal(info.driver, same.driver);

    request = queues_request(dev, FARBLK_OP_WATCH);
    request.count = same.generation - !resizes; /* another one than now's */
    done = conformance_do(queue, &request);
    assert_int_equal(done.status, 0);
    assert_int_equal(done.value, info.generation);
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

static void
bad_arguments_come_as_completions(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_queue *queue;
    uint8_t buffer[2 * SECTOR] = {1};
    struct iovec two = {buffer, sizeof buffer}, odd = {buffer, 100};
    struct farblk_request request;
    struct farblk_completion done;

    ok(farblk_queue_create(8, &queue));
    for (unsigned op = FARBLK_OP_READ; op <= FARBLK_OP_WRITE; op++) {
        request = queues_request(dev, op);
        request.sector = SECTORS - 1, request.iov = &two, request.iovcnt = 1;
        done = conformance_do(queue, &request);
        assert_int_equal(done.status, FARBLK_INVALID);
        assert_int_equal(done.effect, FARBLK_EFFECT_NONE);
        assert_non_null(strstr(done.text, "2048"));
        request.sector = 0, request.iov = &odd;
        done = conformance_do(queue, &request);
        assert_int_equal(done.status, FARBLK_INVALID);
        assert_string_not_equal(done.text, "");
    }
    request = queues_request(dev, FARBLK_OP_RESIZE);
    request.count = UINT64_MAX;
    assert_int_equal(conformance_do(queue, &request).status,
                     support_info(dev).features & FARBLK_CAN_RESIZE
                         ? FARBLK_INVALID
                         : FARBLK_UNIMPLEMENTED);
    request = queues_request(dev, FARBLK_OP_SEEK_MAPPED);
    request.sector = SECTORS + 1;
    assert_int_equal(conformance_do(queue, &request).status, FARBLK_INVALID);
    request = queues_request(dev, FARBLK_OP_DISCARD);
    request.sector = SECTORS, request.count = 1;
    assert_int_equal(conformance_do(queue, &request).status, FARBLK_INVALID);
    conformance_expect_zero(dev, 0, SECTORS, SECTOR);
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

/* Whether a malformed request is refused at submission or completed so is the
 * library's choice; that nothing happens is not. */
static int
queues_outcome(struct farblk_queue *queue, const struct farblk_request *request)
{
    struct farblk_completion done = {0};
    int status = farblk_submit(queue, request);

    if (status != 0) {
        assert_string_not_equal(farblk_last_text(), "");
        return status;
    }
    assert_int_equal(
        farblk_collect(queue, &done, sizeof done, 1, SUPPORT_PATIENCE_MS), 1);
    assert_string_not_equal(done.text, "");
    return done.status;
}

static void
unknown_operations_and_flags_are_invalid(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_queue *queue;
    uint8_t buffer[SECTOR] = {1};
    struct iovec iov = {buffer, sizeof buffer};
    static const uint32_t ops[] = {0, 12, 999, UINT32_MAX};
    struct farblk_request request;

    ok(farblk_queue_create(8, &queue));
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        request = queues_request(dev, FARBLK_OP_READ);
        request.op = ops[i];
        assert_int_equal(queues_outcome(queue, &request), FARBLK_INVALID);
    }
    request = queues_request(dev, FARBLK_OP_WRITE);
    request.iov = &iov, request.iovcnt = 1;
    for (uint32_t bit = 3; bit < 32; bit++) {
        request.flags = 1u << bit;
        assert_int_equal(queues_outcome(queue, &request), FARBLK_INVALID);
    }
    assert_int_equal(farblk_queue_pending(queue), 0);
    conformance_expect_zero(dev, 0, 8, SECTOR);
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

static void
structure_that_is_malformed_is_refused_at_submission(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_queue *queue;
    struct farblk_request request = queues_request(dev, FARBLK_OP_FLUSH);

    ok(farblk_queue_create(8, &queue));
    fails_with(FARBLK_INVALID, farblk_submit(queue, NULL));
    fails_with(FARBLK_INVALID, farblk_submit(NULL, &request));
    request.size = 0;
    fails_with(FARBLK_INVALID, farblk_submit(queue, &request));
    request.size = 8;
    fails_with(FARBLK_INVALID, farblk_submit(queue, &request));
    request = queues_request(NULL, FARBLK_OP_FLUSH);
    fails_with(FARBLK_INVALID, farblk_submit(queue, &request));
    assert_int_equal(farblk_queue_pending(queue), 0);
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

/* A program built against a newer header: fine as long as it asks for nothing
 * that this library does not know. */
static void
larger_request_is_fine_when_its_tail_is_zero(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_queue *queue;
    struct {
        struct farblk_request request;
        uint8_t more[40];
    } big;
    struct farblk_completion done;

    memset(&big, 0, sizeof big);
    big.request = queues_request(dev, FARBLK_OP_FLUSH);
    big.request.size = sizeof big;
    ok(farblk_queue_create(8, &queue));
    done = conformance_do(queue, &big.request);
    assert_int_equal(done.status, 0);
    big.more[39] = 1;
    assert_int_equal(queues_outcome(queue, &big.request), FARBLK_INVALID);
    assert_int_equal(farblk_queue_pending(queue), 0);
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

static void
requests_to_a_disconnected_handle_complete_so(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "");
    struct farblk_queue *queue;
    uint8_t buffer[SECTOR] = {1};
    struct iovec iov = {buffer, sizeof buffer};
    struct farblk_request ask = queues_request(dev, FARBLK_OP_GET_INFO);
    struct farblk_info info = {0};
    struct iovec info_to = {&info, sizeof info};

    ok(farblk_queue_create(8, &queue));
    ok(farblk_disconnect(dev));
    for (unsigned op = FARBLK_OP_READ; op <= FARBLK_OP_WATCH; op++) {
        struct farblk_request request = queues_request(dev, op);
        struct farblk_completion done;

        if (op == FARBLK_OP_GET_INFO)
            continue;
        request.iov = &iov, request.iovcnt = 1;
        done = conformance_do(queue, &request);
        assert_int_equal(done.status, FARBLK_DISCONNECTED);
        assert_int_equal(done.effect, FARBLK_EFFECT_NONE);
        assert_string_not_equal(done.text, "");
    }
    ask.iov = &info_to, ask.iovcnt = 1;
    assert_int_equal(conformance_do(queue, &ask).status, 0);
    assert_int_equal(info.size_sectors, SECTORS);
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

static void
read_only_changes_complete_so(void **way)
{
    static const enum farblk_op ops[] = {FARBLK_OP_WRITE, FARBLK_OP_DISCARD,
                                         FARBLK_OP_WRITE_ZEROES,
                                         FARBLK_OP_RESIZE};
    struct rig *rig = conformance_rig(way, SECTORS, SECTOR);
    struct farblk *dev = rig_open(rig, "ro=1");
    struct farblk_queue *queue;
    uint8_t buffer[SECTOR] = {1};
    struct iovec iov = {buffer, sizeof buffer};

    ok(farblk_queue_create(8, &queue));
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        struct farblk_request request = queues_request(dev, ops[i]);

        if (ops[i] == FARBLK_OP_WRITE)
            request.iov = &iov, request.iovcnt = 1;
        assert_int_equal(conformance_do(queue, &request).status,
                         FARBLK_IS_READ_ONLY);
    }
    farblk_queue_destroy(queue);
    rig_destroy(rig);
}

static void
one_queue_serves_two_devices(void **way)
{
    struct rig *one = conformance_rig(way, SECTORS, SECTOR);
    struct rig *two = conformance_rig(way, SECTORS, 4096);
    struct farblk *from = rig_open(one, ""), *to = rig_open(two, "");
    struct farblk_queue *queue;
    static uint8_t buffer[8 * 4096];
    struct iovec iov = {buffer, sizeof buffer};
    struct farblk_request read = queues_request(from, FARBLK_OP_READ);
    struct farblk_request write = queues_request(to, FARBLK_OP_WRITE);

    ok(farblk_queue_create(8, &queue));
    conformance_put_pattern(from, 64, 64, SECTOR, 1);
    read.sector = 64, read.iov = &iov, read.iovcnt = 1;
    assert_int_equal(conformance_do(queue, &read).status, 0);
    write.sector = 3, write.iov = &iov, write.iovcnt = 1;
    assert_int_equal(conformance_do(queue, &write).status, 0);
    conformance_expect_pattern(to, 3, 8, 4096, 1);
    farblk_queue_destroy(queue);
    rig_destroy(one);
    rig_destroy(two);
}

const struct conformance_case conformance_queues[] = {
    CONFORMANCE(every_operation_works_through_a_queue),
    CONFORMANCE(bad_arguments_come_as_completions),
    CONFORMANCE(unknown_operations_and_flags_are_invalid),
    CONFORMANCE(structure_that_is_malformed_is_refused_at_submission),
    CONFORMANCE(larger_request_is_fine_when_its_tail_is_zero),
    CONFORMANCE(requests_to_a_disconnected_handle_complete_so),
    CONFORMANCE(read_only_changes_complete_so),
    CONFORMANCE(one_queue_serves_two_devices),
    CONFORMANCE_END,
};
