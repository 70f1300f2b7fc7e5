/* SPDX-License-Identifier: ISC */
/*
 * The clients of the crash test: writers, which are killed at any moment and so
 * write down each op before they submit it and what became of it after its
 * completion; and the reader that looks at what is left.
 */
#include "tests/crash.h"
#include "tests/support.h"

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define DEPTH 8u

struct slot {
    struct crash_op *op;
    bool busy;
    bool block; /* holds some of the lane's blocks */
    struct iovec iov;
    uint8_t data[CRASH_LONGEST * TAGGED_SECTOR];
};

struct writer {
    const struct crash_writer *how;
    struct crash_shared *shared;
    struct crash_lane *lane;
    struct rng rng;
    struct farblk *dev;
    struct farblk_queue *queue;
    struct slot slot[DEPTH];
    bool block_busy[CRASH_LANE_BLOCKS];
    uint64_t numbers;
    uint64_t size; /* sectors; the last that a resize is known to have made */
    bool resizing, gone;
};

struct crash_shared *
crash_shared_create(void)
{
    struct crash_shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(shared != MAP_FAILED);
    return shared;
}

void
crash_shared_reset(struct crash_shared *shared)
{
    for (unsigned i = 0; i < CRASH_LANES; i++)
        shared->lane[i].count = 0;
    shared->troubled = 0;
    shared->stop = false;
}

uint64_t
crash_tick(struct crash_shared *shared)
{
    return atomic_fetch_add(&shared->clock, 1) + 1;
}

__attribute__((format(printf, 2, 3))) static void
client_trouble(struct crash_shared *shared, const char *format, ...)
{
    va_list args;

    if (atomic_fetch_add(&shared->troubled, 1) != 0)
        return;
    va_start(args, format);
    vsnprintf(shared->trouble, sizeof shared->trouble, format, args);
    va_end(args);
}

/* ------------------------------------------------------------ writer */

/* Blocks of its own that nothing of it is under way to.  False: none found. */
static bool
writer_place_blocks(struct writer *writer, struct slot *slot)
{
    uint32_t count = 1 + (uint32_t)rng_below(&writer->rng, 4);
    uint32_t first =
        (uint32_t)rng_below(&writer->rng, CRASH_LANE_BLOCKS - count + 1);

    for (uint32_t i = first; i < first + count; i++)
        if (writer->block_busy[i])
            return false;
    memset(writer->block_busy + first, 1, count);
    slot->block = true;
    slot->op->sector =
        CRASH_SHARED
        + (writer->how->lane * CRASH_LANE_BLOCKS + first) * CRASH_BLOCK;
    slot->op->count = count * CRASH_BLOCK;
    return true;
}

static void
writer_place(struct writer *writer, struct slot *slot)
{
    uint64_t choice = rng_below(&writer->rng, 10);
    struct crash_op *op = slot->op;

    slot->block = false;
    if (choice < 4 && writer_place_blocks(writer, slot))
        return;
    if (choice == 9 && writer->how->resizes > 0 && writer->size > CRASH_FIXED) {
        uint64_t tail = writer->size - CRASH_FIXED;

        op->count =
            1 + (uint32_t)rng_below(&writer->rng, tail < 16 ? tail : 16);
        op->sector = CRASH_FIXED
                     + (uint32_t)rng_below(&writer->rng, tail - op->count + 1);
        return;
    }
    op->count =
        1
        + (uint32_t)rng_below(&writer->rng, 4)
              * (uint32_t)rng_below(&writer->rng, CRASH_LONGEST / 4 + 1);
    if (op->count > CRASH_LONGEST)
        op->count = CRASH_LONGEST;
    op->sector =
        (uint32_t)rng_below(&writer->rng, CRASH_SHARED - op->count + 1);
}

static void
writer_choose(struct writer *writer, struct slot *slot)
{
    const struct crash_writer *how = writer->how;
    uint64_t choice = rng_below(&writer->rng, 100);
    struct crash_op *op = slot->op;

    op->op = FARBLK_OP_WRITE;
    op->number = 0;
    if (rng_below(&writer->rng, how->flushes) == 0) {
        op->op = FARBLK_OP_FLUSH;
        op->sector = op->count = 0;
        op->durable = slot->block = false;
        return;
    }
    if (how->resizes > 0 && !writer->resizing
        && rng_below(&writer->rng, how->resizes) == 0) {
        writer->resizing = true;
        op->op = FARBLK_OP_RESIZE;
        op->sector = 0;
        op->count =
            CRASH_FIXED + (uint32_t)rng_below(&writer->rng, CRASH_TAIL + 1);
        op->durable = how->sync;
        slot->block = false;
        return;
    }
    if (how->may_zero && choice >= 85)
        op->op = choice >= 95 ? FARBLK_OP_DISCARD : FARBLK_OP_WRITE_ZEROES;
    writer_place(writer, slot);
    op->durable = how->sync || rng_below(&writer->rng, how->fuas) == 0;
    if (op->op == FARBLK_OP_WRITE) {
        op->number = how->numbers + ++writer->numbers;
        tagged_fill(slot->data, op->number, op->sector, op->count);
    }
}

static void
writer_submit(struct writer *writer, struct slot *slot)
{
    const struct crash_writer *how = writer->how;
    uint32_t index = writer->lane->count;
    struct farblk_request request = {
        .size = sizeof request, .dev = writer->dev, .user = slot};

    slot->op = &writer->lane->ops[index];
    slot->op->ended = 0;
    writer_choose(writer, slot);
    slot->iov =
        (struct iovec){slot->data, (size_t)slot->op->count * TAGGED_SECTOR};
    request.op = slot->op->op;
    request.sector = slot->op->sector;
    if (request.op == FARBLK_OP_WRITE) {
        request.iov = &slot->iov;
        request.iovcnt = 1;
    } else {
        request.count = slot->op->count;
    }
    if (slot->op->durable && request.op != FARBLK_OP_RESIZE && !how->drop_fua)
        request.flags = FARBLK_FUA;
    slot->op->begun = crash_tick(writer->shared);
    atomic_store(&writer->lane->count, index + 1);
    slot->busy = true;
    if (farblk_submit(writer->queue, &request) != 0)
        client_trouble(writer->shared, "submit: %s", farblk_last_text());
}

static void
writer_ended(struct writer *writer, const struct farblk_completion *done)
{
    struct slot *slot = done->user;
    struct crash_op *op = slot->op;

    op->status = done->status;
    op->effect = done->effect;
    atomic_store(&op->ended, crash_tick(writer->shared));
    slot->busy = false;
    if (op->op == FARBLK_OP_RESIZE) {
        writer->resizing = false;
        if (done->status == 0)
            writer->size = op->count;
    }
    if (slot->block)
        memset(writer->block_busy + (op->sector - CRASH_SHARED) / CRASH_BLOCK
                   - writer->how->lane * CRASH_LANE_BLOCKS,
               0, op->count / CRASH_BLOCK);
    switch (done->status) {
    case 0:
    case FARBLK_IO:
    case FARBLK_NO_SPACE:
        return;
    case FARBLK_INVALID:
        /* Past the end, while it is being cut off. */
        if (op->op != FARBLK_OP_RESIZE && op->sector >= CRASH_FIXED)
            return;
        break;
    case FARBLK_CONNECTION_LOST: /* it may recover */
        return;
    case FARBLK_DISCONNECTED:
        writer->gone = true;
        return;
    default:
        break;
    }
    client_trouble(writer->shared, "op %u of sector %u + %u: %s: %s", op->op,
                   op->sector, op->count, farblk_status_name(done->status),
                   done->text);
}

static void
writer_run(struct writer *writer)
{
    struct farblk_completion done[DEPTH];

    for (;;) {
        for (unsigned i = 0; i < DEPTH && !writer->gone; i++)
            if (!writer->slot[i].busy && !writer->shared->stop
                && writer->lane->count < CRASH_OPS)
                writer_submit(writer, &writer->slot[i]);
        if (farblk_queue_pending(writer->queue) == 0)
            return;
        int count = farblk_collect(writer->queue, done, sizeof *done, DEPTH,
                                   SUPPORT_PATIENCE_MS);
        if (count <= 0) {
            client_trouble(writer->shared, "lane %u waits in vain",
                           writer->how->lane);
            return;
        }
        for (int i = 0; i < count; i++)
            writer_ended(writer, &done[i]);
    }
}

/* In the child, which dies with its parent. */
static void
client_begin(pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(1);
}

pid_t
crash_writer_start(struct crash_shared *shared, const struct crash_writer *how)
{
    static struct writer writer; /* the child's */
    pid_t parent = getpid(), child = fork();

    assert_true(child >= 0);
    if (child > 0)
        return child;
    client_begin(parent);
    writer = (struct writer){.how = how,
                             .shared = shared,
                             .lane = &shared->lane[how->lane],
                             .rng = {.state = how->seed}};
    struct farblk_info info;
    if (farblk_open(how->uri, NULL, &writer.dev) == 0
        && farblk_get_info(writer.dev, &info, sizeof info) == 0
        && farblk_queue_create(DEPTH, &writer.queue) == 0) {
        writer.size = info.size_sectors;
        writer_run(&writer);
        if (!writer.gone)
            farblk_close(writer.dev);
    }
    _exit(0);
}

/* ------------------------------------------------------------ reader */

pid_t
crash_reader_start(struct crash_shared *shared, const char *uri)
{
    pid_t parent = getpid(), child = fork();
    struct farblk *dev;
    struct farblk_info info;

    assert_true(child >= 0);
    if (child > 0)
        return child;
    client_begin(parent);
    if (farblk_open(uri, NULL, &dev) != 0
        || farblk_get_info(dev, &info, sizeof info) != 0) {
        client_trouble(shared, "looking at it: %s", farblk_last_text());
        _exit(1);
    }
    shared->size = info.size_sectors;
    if (info.size_sectors < CRASH_FIXED || info.size_sectors > CRASH_MOST
        || info.sector_size != TAGGED_SECTOR) {
        client_trouble(shared, "it has %llu sectors of %u octets",
                       (unsigned long long)info.size_sectors, info.sector_size);
        _exit(1);
    }
    if (support_read(dev, 0, shared->content, info.size_sectors * TAGGED_SECTOR)
        != 0) {
        client_trouble(shared, "reading it: %s", farblk_last_text());
        _exit(1);
    }
    farblk_close(dev);
    _exit(0);
}
