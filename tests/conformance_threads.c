/* SPDX-License-Identifier: ISC */
/*
 * Conformance: many at once.  Threads, handles and queues on one device.
 *
 * Sectors that several threads write at once are filled with one word, the
 * writer's tag; a sector that holds two words was torn.
 */
#include "tests/conformance.h"

#include <pthread.h>
#include <sys/stat.h>

#define SECTORS 1024u
#define THREADS_MAX 16

struct worker {
    struct farblk *dev;
    struct rig *rig;
    struct trouble *trouble;
    _Atomic bool *stop;
    uint32_t sector_size;
    unsigned index;
    unsigned rounds;
    pthread_t thread;
};

static void
threads_run(struct worker *workers, unsigned count, void *(*run)(void *))
{
    for (unsigned i = 0; i < count; i++) {
        workers[i].index = i;
        assert_int_equal(
            pthread_create(&workers[i].thread, NULL, run, &workers[i]), 0);
    }
}

static void
threads_join(struct worker *workers, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        pthread_join(workers[i].thread, NULL);
}

/* Note a failed call; true when it was fine. */
static bool
threads_fine(struct worker *worker, const char *what, int status)
{
    if (status < 0)
        trouble_note(worker->trouble, "thread %u: %s gave %s: %s",
                     worker->index, what, farblk_status_name(status),
                     farblk_last_text());
    return status >= 0;
}

/* Write and read back in sectors of the thread's own, in steps that touch those
 * of its neighbours. */
static void *
threads_own_range(void *arg)
{
    struct worker *worker = arg;
    uint32_t size = worker->sector_size;
    uint64_t first = worker->index * 50u;
    uint8_t *buffer = malloc(50u * size);
    struct rng rng = {.state = worker->index};

    for (unsigned i = 0; i < worker->rounds; i++) {
        uint64_t start = rng_below(&rng, 50);
        uint64_t count = 1 + rng_below(&rng, 50 - start), seed = rng_next(&rng);
        size_t length = count * size;

        pattern_fill(buffer, length, seed);
        if (!threads_fine(
                worker, "write",
                support_write(worker->dev, first + start, buffer, length, 0)))
            break;
        memset(buffer, 0, length);
        if (!threads_fine(
                worker, "read",
                support_read(worker->dev, first + start, buffer, length)))
            break;
        if (pattern_check(buffer, length, seed) != length) {
            trouble_note(worker->trouble,
                         "thread %u: round %u: %llu + %llu"
                         " differ at octet %zu",
                         worker->index, i, (unsigned long long)(first + start),
                         (unsigned long long)count,
                         pattern_check(buffer, length, seed));
            break;
        }
    }
    free(buffer);
    return NULL;
}

static void
many_threads_share_one_handle(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, 512);
    struct farblk *dev = rig_open(rig, "");
    struct worker workers[THREADS_MAX];
    struct trouble trouble = {0};

    for (unsigned i = 0; i < THREADS_MAX; i++)
        workers[i] = (struct worker){
            .dev = dev, .trouble = &trouble, .sector_size = 512, .rounds = 60};
    threads_run(workers, THREADS_MAX, threads_own_range);
    threads_join(workers, THREADS_MAX);
    trouble_assert_none(&trouble);
    rig_destroy(rig);
}

static void
many_handles_share_one_device(void **way)
{
    struct rig *rig = conformance_rig(way, SECTORS, 512);
    struct worker workers[THREADS_MAX];
    struct trouble trouble = {0};

    for (unsigned i = 0; i < THREADS_MAX; i++)
        workers[i] = (struct worker){.dev = rig_open(rig, ""),
                                     .trouble = &trouble,
                                     .sector_size = 512,
                                     .rounds = 60};
    threads_run(workers, THREADS_MAX, threads_own_range);
    threads_join(workers, THREADS_MAX);
    trouble_assert_none(&trouble);
    rig_destroy(rig);
}

static void *
threads_open_and_close(void *arg)
{
    struct worker *worker = arg;
    uint8_t buffer[512];

    for (unsigned i = 0; i < worker->rounds; i++) {
        struct farblk *dev = NULL;

        if (!threads_fine(worker, "open",
                          farblk_open(worker->rig->uri, NULL, &dev)))
            break;
        pattern_fill(buffer, sizeof buffer, i);
        threads_fine(worker, "write",
                     support_write(dev, worker->index, buffer, 512, 0));
        threads_fine(worker, "read",
                     support_read(dev, worker->index, buffer, 512));
        if (pattern_check(buffer, 512, i) != 512)
            trouble_note(worker->trouble, "thread %u: wrong data",
                         worker->index);
        threads_fine(worker, "close", farblk_close(dev));
    }
    return NULL;
}

static void
threads_open_and_close_at_once(void **way)
{
    enum { COUNT = 6 };
    struct rig *rig = conformance_rig(way, SECTORS, 512);
    struct worker workers[COUNT];
    struct trouble trouble = {0};

    for (unsigned i = 0; i < COUNT; i++)
        workers[i] =
            (struct worker){.rig = rig, .trouble = &trouble, .rounds = 15};
    threads_run(workers, COUNT, threads_open_and_close);
    threads_join(workers, COUNT);
    trouble_assert_none(&trouble);
    rig_destroy(rig);
}

/* Each thread with a queue of its own, all on one handle, many in flight. */
static void *
threads_own_queue(void *arg)
{
    enum { DEPTH = 16 };
    struct worker *worker = arg;
    struct farblk_queue *queue;
    uint64_t first = worker->index * 200u;
    uint8_t *buffer = calloc(DEPTH, 10 * 512);
    struct iovec iov[DEPTH];

    if (!threads_fine(worker, "queue", farblk_queue_create(DEPTH, &queue))) {
        free(buffer);
        return NULL;
    }
    for (unsigned i = 0; i < worker->rounds * 2; i++) {
        for (unsigned k = 0; k < DEPTH; k++) {
            struct farblk_request request = {
                .size = sizeof request,
                .op = i % 2 == 0 ? FARBLK_OP_WRITE : FARBLK_OP_READ,
                .dev = worker->dev,
                .sector = first + k * 10u,
                .iov = &iov[k],
                .iovcnt = 1,
            };

            iov[k] = (struct iovec){buffer + k * 10u * 512u, 10u * 512u};
            if (i % 2 == 0)
                pattern_fill(iov[k].iov_base, 10 * 512, i * 100 + k);
            else
                memset(iov[k].iov_base, 0, 10 * 512);
            threads_fine(worker, "submit", farblk_submit(queue, &request));
        }
        while (farblk_queue_pending(queue) > 0) {
            struct farblk_completion done[DEPTH];
            int n = farblk_collect(queue, done, sizeof *done, DEPTH, -1);

            threads_fine(worker, "collect", n);
            for (int k = 0; k < n; k++)
                if (done[k].status != 0)
                    trouble_note(worker->trouble, "completion: %s",
                                 done[k].text);
        }
        for (unsigned k = 0; i % 2 == 1 && k < DEPTH; k++)
            if (pattern_check(iov[k].iov_base, 10 * 512, (i - 1) * 100 + k)
                != 10 * 512)
                trouble_note(worker->trouble, "thread %u: wrong data",
                             worker->index);
    }
    farblk_queue_destroy(queue);
    free(buffer);
    return NULL;
}

static void
several_queues_share_one_handle(void **way)
{
    enum { COUNT = 4 };
    struct rig *rig = conformance_rig(way, SECTORS, 512);
    struct farblk *dev = rig_open(rig, "");
    struct worker workers[COUNT];
    struct trouble trouble = {0};

    for (unsigned i = 0; i < COUNT; i++)
        workers[i] =
            (struct worker){.dev = dev, .trouble = &trouble, .rounds = 20};
    threads_run(workers, COUNT, threads_own_queue);
    threads_join(workers, COUNT);
    trouble_assert_none(&trouble);
    rig_destroy(rig);
}

/* Odd ones write tagged runs that overlap, even ones look for torn sectors. */
static void *
threads_tags(void *arg)
{
    enum { RUN = 24, SPAN = 48 };
    struct worker *worker = arg;
    size_t words = worker->sector_size / sizeof(uint64_t);
    uint64_t *buffer = malloc((size_t)RUN * worker->sector_size);
    struct rng rng = {.state = worker->index};

    for (unsigned i = 0; i < worker->rounds; i++) {
        uint64_t count = 1 + rng_below(&rng, RUN);
        uint64_t start = rng_below(&rng, SPAN - count);
        size_t length = count * worker->sector_size;

        if (worker->index % 2 == 1) {
            uint64_t tag = (uint64_t)worker->index << 32 | i;

            for (size_t k = 0; k < count * words; k++)
                buffer[k] = tag;
            if (!threads_fine(
                    worker, "write",
                    support_write(worker->dev, start, buffer, length, 0)))
                break;
            continue;
        }
        if (!threads_fine(worker, "read",
                          support_read(worker->dev, start, buffer, length)))
            break;
        for (size_t k = 0; k < count * words; k++)
            if (buffer[k] != buffer[k / words * words])
                trouble_note(worker->trouble,
                             "sector %llu is torn: %llx and %llx",
                             (unsigned long long)(start + k / words),
                             (unsigned long long)buffer[k / words * words],
                             (unsigned long long)buffer[k]);
    }
    free(buffer);
    return NULL;
}

static void
sector_never_tears(void **way)
{
    static const uint32_t sizes[] = {512, 65536};
    enum { COUNT = 6 };

    for (size_t s = 0; s < 2; s++) {
        struct rig *rig = conformance_rig(way, 64, sizes[s]);
        struct worker workers[COUNT];
        struct trouble trouble = {0};
        struct farblk *dev = rig_open(rig, "");
        /* Else that is promised to the handles of one device alone. */
        bool between = support_info(dev).features & FARBLK_SECTOR_ATOMIC;

        for (unsigned i = 0; i < COUNT; i++)
            workers[i] =
                (struct worker){.dev = between ? rig_open(rig, "") : dev,
                                .trouble = &trouble,
                                .sector_size = sizes[s],
                                .rounds = s == 0 ? 300 : 60};
        threads_run(workers, COUNT, threads_tags);
        threads_join(workers, COUNT);
        trouble_assert_none(&trouble);
        rig_destroy(rig);
    }
}

/* Write around the end, wherever that is now. */
static void *
threads_at_the_end(void *arg)
{
    struct worker *worker = arg;
    uint8_t buffer[16 * 512];
    struct rng rng = {.state = worker->index};

    memset(buffer, 0x77, sizeof buffer);
    while (!*worker->stop) {
        uint64_t start = SECTORS / 2 - 16 + rng_below(&rng, SECTORS / 2);
        int status;

        if (rng_below(&rng, 4) == 0)
            status =
                farblk_write_zeroes(worker->dev, start, 16, FARBLK_NO_UNMAP);
        else
            status =
                support_write(worker->dev, start, buffer, sizeof buffer, 0);
        if (status != FARBLK_INVALID && !threads_fine(worker, "write", status))
            break;
    }
    return NULL;
}

static void
writes_never_undo_a_resize(void **way)
{
    enum { COUNT = 4 };
    struct rig *rig = conformance_rig(way, SECTORS, 512);
    struct farblk *dev = rig_open(rig, "");
    struct worker workers[COUNT];
    struct trouble trouble = {0};
    _Atomic bool stop = false;
    struct stat file;

    if (conformance_is_fixed(rig, dev))
        return;
    for (unsigned i = 0; i < COUNT; i++)
        workers[i] = (struct worker){
            .dev = rig_open(rig, ""), .trouble = &trouble, .stop = &stop};
    threads_run(workers, COUNT, threads_at_the_end);
    for (unsigned i = 0; i < 40 && !trouble.noted; i++) {
        uint64_t size = SECTORS / 2 + (i * 37u) % (SECTORS / 2);
        int status = farblk_resize(dev, size);

        if (status != 0)
            trouble_note(&trouble, "resize: %s", farblk_last_text());
        if (rig->path[0] != '\0'
            && (stat(rig->path, &file) != 0
                || file.st_size != (off_t)size * 512))
            trouble_note(&trouble, "%llu sectors, and the file has %lld octets",
                         (unsigned long long)size, (long long)file.st_size);
        if (status == 0 && i % 8 == 7) {
            uint8_t buffer[16 * 512];

            /* What a shrink dropped does not come back with growth. */
            if (farblk_resize(dev, SECTORS / 2 - 16) != 0
                || farblk_resize(dev, SECTORS / 2) != 0
                || support_read(dev, SECTORS / 2 - 16, buffer, sizeof buffer)
                       != 0)
                trouble_note(&trouble, "shrink: %s", farblk_last_text());
            for (size_t k = 0; k < sizeof buffer; k++)
                if (buffer[k] != 0 && buffer[k] != 0x77)
                    trouble_note(&trouble, "octet %zu is %02x", k, buffer[k]);
        }
    }
    stop = true;
    threads_join(workers, COUNT);
    trouble_assert_none(&trouble);
    rig_destroy(rig);
}

const struct conformance_case conformance_threads[] = {
    CONFORMANCE(many_threads_share_one_handle),
    CONFORMANCE(many_handles_share_one_device),
    CONFORMANCE(threads_open_and_close_at_once),
    CONFORMANCE(several_queues_share_one_handle),
    CONFORMANCE(sector_never_tears),
    CONFORMANCE(writes_never_undo_a_resize),
    CONFORMANCE_END,
};
