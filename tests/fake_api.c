/* SPDX-License-Identifier: ISC */
/* The stand-in: every function of the library that the engine's commands call,
 * and no more. */
#include "tests/fake_api.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define FAKE_DEPTH_MAX 4096

struct fake fake;

struct farblk_queue {
    uint32_t depth, pending;
    struct {
        struct farblk_request request;
        unsigned number;
    } slot[FAKE_DEPTH_MAX];
};

static const char *fake_text = "";

uint32_t
fake_draw(void)
{
    fake.random = fake.random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(fake.random >> 33);
}

const char *
farblk_last_text(void)
{
    return fake_text;
}

const char *
farblk_status_name(int status)
{
    return status == FARBLK_IO         ? "IO"
           : status == FARBLK_INVALID  ? "INVALID"
           : status == FARBLK_PROTOCOL ? "PROTOCOL"
                                       : "OTHER";
}

int
farblk_open(const char *uri, const struct farblk_options *options,
            struct farblk **dev)
{
    (void)options;
    *dev = &fake.device[strcmp(uri, "b") == 0];
    assert_false((*dev)->opened);
    (*dev)->opened = true;
    return 0;
}

int
farblk_close(struct farblk *dev)
{
    assert_true(dev->opened);
    dev->opened = false;
    return 0;
}

int
farblk_get_info(struct farblk *dev, struct farblk_info *info, size_t size)
{
    assert_int_equal(size, sizeof *info);
    *info = dev->info;
    return 0;
}

void *
farblk_buffer_alloc(struct farblk *dev, size_t size)
{
    (void)dev;
    fake.buffers++;
    return malloc(size);
}

void
farblk_buffer_free(struct farblk *dev, void *buffer, size_t size)
{
    (void)dev;
    (void)size;
    fake.buffers--;
    free(buffer);
}

int
farblk_queue_create(uint32_t depth, struct farblk_queue **queue)
{
    assert_in_range(depth, 1, FAKE_DEPTH_MAX);
    *queue = calloc(1, sizeof **queue);
    assert_non_null(*queue);
    (*queue)->depth = depth;
    fake.queues++;
    return 0;
}

void
farblk_queue_destroy(struct farblk_queue *queue)
{
    if (queue == NULL)
        return;
    assert_int_equal(queue->pending, 0);
    fake.queues--;
    free(queue);
}

uint32_t
farblk_queue_pending(const struct farblk_queue *queue)
{
    return queue->pending;
}

/* Nothing else in flight uses the buffers of `request`. */
static void
fake_check_buffer(const struct farblk_queue *queue,
                  const struct farblk_request *request)
{
    const char *base, *other;

    if (request->iovcnt == 0)
        return;
    base = request->iov->iov_base;
    for (uint32_t i = 0; i < queue->pending; i++)
        if (queue->slot[i].request.iovcnt > 0) {
            other = queue->slot[i].request.iov->iov_base;
            assert_true(base + request->iov->iov_len <= other
                        || other + queue->slot[i].request.iov->iov_len <= base);
        }
}

int
farblk_submit(struct farblk_queue *queue, const struct farblk_request *request)
{
    assert_int_equal(request->size, sizeof *request);
    assert_true(request->dev->opened);
    assert_true(queue->pending < queue->depth);
    fake_check_buffer(queue, request);
    if (fake.failed)
        fake.after++;
    queue->slot[queue->pending].request = *request;
    queue->slot[queue->pending].number = ++fake.submitted;
    queue->pending++;
    return 0;
}

/* The extents from the request's sector on. */
static uint64_t
fake_extents(const struct farblk_request *request)
{
    struct farblk_extent *extents = request->iov->iov_base;
    size_t max = request->iov->iov_len / sizeof *extents;
    uint64_t sector = request->sector, end = sector + request->count;
    const unsigned char *mapped = request->dev->mapped;
    uint64_t count = 0;

    assert_true(end <= request->dev->info.size_sectors);
    if (max > fake.extents_max)
        max = fake.extents_max;
    for (; sector < end && count < max; count++) {
        uint64_t start = sector;

        while (sector < end && mapped[sector] == mapped[start])
            sector++;
        extents[count] = (struct farblk_extent){
            .start = start, .count = sector - start, .mapped = mapped[start]};
    }
    return count;
}

static void
fake_execute(const struct farblk_request *request,
             struct farblk_completion *done)
{
    struct farblk *dev = request->dev;
    uint32_t sector_size = dev->info.sector_size;
    unsigned char *at = dev->data + request->sector * sector_size;
    uint64_t length = request->count * sector_size;
    size_t sectors;

    switch (request->op) {
    case FARBLK_OP_READ:
    case FARBLK_OP_WRITE:
        assert_int_equal(request->iovcnt, 1);
        length = request->iov->iov_len;
        assert_int_equal(length % sector_size, 0);
        sectors = (size_t)(length / sector_size);
        assert_true(request->sector + sectors <= dev->info.size_sectors);
        if (request->op == FARBLK_OP_READ) {
            memcpy(request->iov->iov_base, at, (size_t)length);
            dev->reads++;
        } else {
            memcpy(at, request->iov->iov_base, (size_t)length);
            memset(dev->mapped + request->sector, 1, sectors);
            dev->writes++;
        }
        break;
    case FARBLK_OP_WRITE_ZEROES:
        assert_true(request->sector + request->count <= dev->info.size_sectors);
        assert_true((dev->info.features & FARBLK_CAN_WRITE_ZEROES) != 0);
        memset(at, 0, (size_t)length);
        memset(dev->mapped + request->sector, 0, (size_t)request->count);
        dev->zeroings++;
        break;
    case FARBLK_OP_FLUSH:
        dev->flushes++;
        break;
    case FARBLK_OP_EXTENTS:
        if ((dev->info.features & FARBLK_CAN_SEEK) == 0) {
            done->status = FARBLK_UNIMPLEMENTED;
            break;
        }
        done->value = fake_extents(request);
        dev->extents++;
        break;
    default:
        fail_msg("unexpected operation %u", request->op);
    }
}

int
farblk_collect(struct farblk_queue *queue, struct farblk_completion *done,
               size_t size, size_t max, int32_t timeout_ms)
{
    uint32_t count = queue->pending == 0 ? 0 : 1 + fake_draw() % queue->pending;
    bool reads = false, writes = false;

    (void)timeout_ms;
    assert_int_equal(size, sizeof *done);
    for (uint32_t i = 0; i < queue->pending; i++) {
        reads |= queue->slot[i].request.op == FARBLK_OP_READ;
        writes |= queue->slot[i].request.op == FARBLK_OP_WRITE;
    }
    fake.both += reads && writes;
    if (count > max)
        count = (uint32_t)max;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t which = fake_draw() % queue->pending;
        struct farblk_request request = queue->slot[which].request;
        unsigned number = queue->slot[which].number;

        queue->slot[which] = queue->slot[--queue->pending];
        done[i] = (struct farblk_completion){.user = request.user, .text = ""};
        if (number == fake.fail_at
            || (request.op == fake.fail_op && !fake.failed)) {
            done[i].status = fake.fail_status;
            done[i].text = "as planned";
            fake.failed = true;
        } else {
            fake_execute(&request, &done[i]);
        }
    }
    return (int)count;
}
