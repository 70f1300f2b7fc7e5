/* SPDX-License-Identifier: ISC */
/*
 * Blocking calls: submit and wait, on one of the library's own queues.  Idle
 * queues are kept in a pool; when as many calls wait at once as the pool
 * allows, further ones wait for a queue.
 */
#include "core/device.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define POOL_MAX 256u

static pthread_mutex_t pool_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t pool_wake = PTHREAD_COND_INITIALIZER;
static struct farblk_queue *idle[POOL_MAX];
static unsigned idle_count, made_count;

void
blocking_after_fork(void)
{
    pthread_mutex_init(&pool_mutex, NULL);
    pthread_cond_init(&pool_wake, NULL);
    idle_count = made_count = 0;
}

static struct farblk_queue *
take_queue(void)
{
    struct farblk_queue *queue = NULL;
    pthread_mutex_lock(&pool_mutex);
    while (idle_count == 0 && made_count == POOL_MAX)
        pthread_cond_wait(&pool_wake, &pool_mutex);
    if (idle_count > 0)
        queue = idle[--idle_count];
    else
        made_count++;
    pthread_mutex_unlock(&pool_mutex);
    if (queue != NULL || farblk_queue_create(1, &queue) == 0)
        return queue;
    pthread_mutex_lock(&pool_mutex);
    made_count--;
    pthread_cond_signal(&pool_wake);
    pthread_mutex_unlock(&pool_mutex);
    return NULL;
}

static void
give_queue(struct farblk_queue *queue)
{
    pthread_mutex_lock(&pool_mutex);
    idle[idle_count++] = queue;
    pthread_cond_signal(&pool_wake);
    pthread_mutex_unlock(&pool_mutex);
}

/* Submit and wait.  On success *value is the completion's. */
static int
run(const char *name, struct farblk_request *request, uint64_t *value)
{
    struct farblk_completion completion;
    last_error_clear();
    if (request->dev == NULL)
        return last_error_fail(FARBLK_INVALID, "%s: no device", name);
    if (handle_forked(request->dev))
        return last_error_fail(FARBLK_INVALID,
                               "%s: the device belongs to the parent process",
                               name);
    struct farblk_queue *queue = take_queue();
    if (queue == NULL)
        return last_error_fail(FARBLK_NO_MEMORY, "%s: no memory", name);
    request->size = sizeof *request;
    int status = farblk_submit(queue, request);
    if (status == 0) {
        farblk_collect(queue, &completion, sizeof completion, 1, -1);
        status = completion.status;
        if (value != NULL)
            *value = completion.value;
        if (status != 0) {
            struct error error = {.status = status,
                                  .effect =
                                      (enum farblk_effect)completion.effect};
            strncpy(error.text, completion.text, sizeof error.text - 1);
            error.text[sizeof error.text - 1] = '\0';
            last_error_set(&error);
        }
    }
    give_queue(queue);
    return status;
}

int
farblk_read(struct farblk *dev, uint64_t start, const struct iovec *iov,
            size_t iovcnt)
{
    struct farblk_request request = {.op = FARBLK_OP_READ,
                                     .dev = dev,
                                     .sector = start,
                                     .iov = iov,
                                     .iovcnt = iovcnt};
    return run("read", &request, NULL);
}

int
farblk_write(struct farblk *dev, uint64_t start, const struct iovec *iov,
             size_t iovcnt, uint32_t flags)
{
    struct farblk_request request = {.op = FARBLK_OP_WRITE,
                                     .flags = flags,
                                     .dev = dev,
                                     .sector = start,
                                     .iov = iov,
                                     .iovcnt = iovcnt};
    return run("write", &request, NULL);
}

int
farblk_flush(struct farblk *dev)
{
    struct farblk_request request = {.op = FARBLK_OP_FLUSH, .dev = dev};
    return run("flush", &request, NULL);
}

int
farblk_discard(struct farblk *dev, uint64_t start, uint64_t count,
               uint32_t flags)
{
    struct farblk_request request = {.op = FARBLK_OP_DISCARD,
                                     .flags = flags,
                                     .dev = dev,
                                     .sector = start,
                                     .count = count};
    return run("discard", &request, NULL);
}

int
farblk_write_zeroes(struct farblk *dev, uint64_t start, uint64_t count,
                    uint32_t flags)
{
    struct farblk_request request = {.op = FARBLK_OP_WRITE_ZEROES,
                                     .flags = flags,
                                     .dev = dev,
                                     .sector = start,
                                     .count = count};
    return run("write_zeroes", &request, NULL);
}

int
farblk_resize(struct farblk *dev, uint64_t size_sectors)
{
    struct farblk_request request = {
        .op = FARBLK_OP_RESIZE, .dev = dev, .count = size_sectors};
    return run("resize", &request, NULL);
}

static int
seek(const char *name, enum farblk_op op, struct farblk *dev, uint64_t start,
     uint64_t *sector)
{
    struct farblk_request request = {.op = op, .dev = dev, .sector = start};
    if (sector == NULL)
        return last_error_fail(FARBLK_INVALID, "%s: nowhere to put the sector",
                               name);
    return run(name, &request, sector);
}

int
farblk_seek_mapped(struct farblk *dev, uint64_t start, uint64_t *sector)
{
    return seek("seek_mapped", FARBLK_OP_SEEK_MAPPED, dev, start, sector);
}

int
farblk_seek_unmapped(struct farblk *dev, uint64_t start, uint64_t *sector)
{
    return seek("seek_unmapped", FARBLK_OP_SEEK_UNMAPPED, dev, start, sector);
}

int
farblk_extents(struct farblk *dev, uint64_t start, uint64_t count,
               struct farblk_extent *extents, size_t max)
{
    uint64_t found = 0;
    if (max > INT32_MAX / sizeof *extents)
        max = INT32_MAX / sizeof *extents;
    struct iovec iov = {.iov_base = extents, .iov_len = max * sizeof *extents};
    struct farblk_request request = {.op = FARBLK_OP_EXTENTS,
                                     .dev = dev,
                                     .sector = start,
                                     .count = count,
                                     .iov = &iov,
                                     .iovcnt = 1};
    int status = run("extents", &request, &found);
    return status != 0 ? status : (int)found;
}

int
farblk_get_info(struct farblk *dev, struct farblk_info *info, size_t size)
{
    struct iovec iov = {.iov_base = info, .iov_len = size};
    struct farblk_request request = {
        .op = FARBLK_OP_GET_INFO, .dev = dev, .iov = &iov, .iovcnt = 1};
    return run("get_info", &request, NULL);
}

int
farblk_watch(struct farblk *dev, uint64_t generation, int32_t timeout_ms,
             uint64_t *now)
{
    struct farblk_request request = {.op = FARBLK_OP_WATCH,
                                     .dev = dev,
                                     .count = generation,
                                     .timeout_ms = timeout_ms};
    if (now == NULL)
        return last_error_fail(FARBLK_INVALID,
                               "watch: nowhere to put the generation");
    if (timeout_ms != 0)
        return run("watch", &request, now);
    struct farblk_info info;
    struct iovec iov = {.iov_base = &info, .iov_len = sizeof info};
    request.op = FARBLK_OP_GET_INFO;
    request.count = 0;
    request.iov = &iov;
    request.iovcnt = 1;
    uint64_t gone = 0;
    int status = run("watch", &request, &gone);
    if (status != 0)
        return status;
    if (gone != 0)
        return last_error_fail(FARBLK_DISCONNECTED,
                               "watch: the device is disconnected");
    *now = info.generation;
    if (info.generation == generation)
        return last_error_fail(FARBLK_TIMED_OUT,
                               "watch: the generation is still %llu",
                               (unsigned long long)generation);
    return 0;
}

static size_t
whole_pages(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return size > SIZE_MAX - page ? 0 : (size + page - 1) / page * page;
}

void *
farblk_buffer_alloc(struct farblk *dev, size_t size)
{
    last_error_clear();
    size_t length = whole_pages(size);
    if (dev == NULL || length == 0 || length > INT64_MAX) {
        last_error_fail(FARBLK_INVALID,
                        "buffer_alloc: no device, or %zu octets", size);
        return NULL;
    }
    const struct driver *driver = dev->device->driver;
    void *buffer = driver->buffer_alloc != NULL && !handle_forked(dev)
                       ? driver->buffer_alloc(dev->device->state, length)
                       : NULL;
    if (buffer != NULL)
        return buffer;
    buffer = mmap(NULL, length, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED) {
        last_error_fail(FARBLK_NO_MEMORY,
                        "buffer_alloc: no memory for %zu octets", size);
        return NULL;
    }
    return buffer;
}

void
farblk_buffer_free(struct farblk *dev, void *buffer, size_t size)
{
    size_t length = whole_pages(size);
    if (buffer == NULL)
        return;
    const struct driver *driver = dev != NULL ? dev->device->driver : NULL;
    if (driver == NULL || driver->buffer_free == NULL || handle_forked(dev)
        || !driver->buffer_free(dev->device->state, buffer, length))
        munmap(buffer, length);
}
