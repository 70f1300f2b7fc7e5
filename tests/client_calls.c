/* SPDX-License-Identifier: ISC */
/*
 * Short forms for tests of the client driver.
 */
#include "tests/client_calls.h"

#include <stdio.h>

struct farblk *
client_open(struct fake *fake)
{
    struct farblk *dev;
    ok(farblk_open(fake->uri, NULL, &dev));
    return dev;
}

struct farblk_queue *
client_queue(void)
{
    struct farblk_queue *queue;
    ok(farblk_queue_create(64, &queue));
    return queue;
}

void
client_submit(struct farblk_queue *queue, struct farblk *dev, enum farblk_op op,
              uint64_t sector, const struct iovec *iov, size_t iovcnt,
              int32_t timeout_ms, uintptr_t user)
{
    const struct farblk_request request = {
        .size = sizeof request,
        .op = op,
        .dev = dev,
        .sector = sector,
        .iov = iov,
        .iovcnt = iovcnt,
        .timeout_ms = timeout_ms,
        .user = (void *)user,
    };
    ok(farblk_submit(queue, &request));
}

void
client_submit_count(struct farblk_queue *queue, struct farblk *dev,
                    enum farblk_op op, uint64_t sector, uint64_t count,
                    const struct iovec *iov, size_t iovcnt, uintptr_t user)
{
    const struct farblk_request request = {
        .size = sizeof request,
        .op = op,
        .dev = dev,
        .sector = sector,
        .count = count,
        .iov = iov,
        .iovcnt = iovcnt,
        .user = (void *)user,
    };
    ok(farblk_submit(queue, &request));
}

struct farblk_completion
client_collect(struct farblk_queue *queue)
{
    struct farblk_completion done;
    assert_int_equal(farblk_collect(queue, &done, sizeof done, 1, -1), 1);
    return done;
}

void
client_thread(struct client_thread *thread, void *(*run)(void *))
{
    assert_int_equal(pthread_create(&thread->thread, NULL, run, thread), 0);
}

static void *
client_call(void *arg)
{
    struct client_thread *thread = arg;
    struct farblk *dev = thread->dev;
    switch (thread->op) {
    case FARBLK_OP_GET_INFO:
        memset(&thread->info, 0, sizeof thread->info);
        thread->status =
            farblk_get_info(dev, &thread->info, sizeof thread->info);
        break;
    case FARBLK_OP_WATCH:
        thread->status = farblk_watch(dev, thread->count, -1, &thread->value);
        break;
    case FARBLK_OP_RESIZE:
        thread->status = farblk_resize(dev, thread->count);
        break;
    default:
        thread->status = farblk_flush(dev);
        break;
    }
    snprintf(thread->text, sizeof thread->text, "%s", farblk_last_text());
    return NULL;
}

void
client_begin(struct client_thread *thread, enum farblk_op op,
             struct farblk *dev)
{
    thread->op = op;
    thread->dev = dev;
    client_thread(thread, client_call);
}

void
client_end(struct client_thread *thread)
{
    pthread_join(thread->thread, NULL);
}
