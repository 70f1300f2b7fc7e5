/* SPDX-License-Identifier: ISC */
/*
 * farblk bench: how fast is a device.  Each job is a thread with a queue of its
 * own, and as many buffers as it has requests in flight.  All jobs use one
 * handle, or one each with --handles, which to a server are as many clients.
 */
#include "tools/bench_work.h"

#include <stdio.h>
#include <stdlib.h>

#define BENCH_BATCH 64
#define BENCH_FILL_DEPTH 8

/* One request in flight. */
struct bench_slot {
    struct iovec iov;
    uint64_t offset, begun;
    bool write;
};

/* What a job holds. */
struct bench_hands {
    struct tool_device own; /* with --handles */
    const struct tool_device *device;
    struct farblk_queue *queue;
    unsigned char *buffers;
    struct bench_slot *slots;
};

/* bench->arg */
struct bench_setting {
    struct tool_device device;
    bool handles;
};

static bool
bench_prepare(struct bench_job *job)
{
    struct bench *bench = job->bench;
    const struct bench_work *work = &bench->work;
    struct bench_setting *setting = bench->arg;
    struct bench_hands *hands = calloc(1, sizeof *hands);
    int status;

    job->arg = hands;
    if (hands == NULL) {
        tool_fail(FARBLK_NO_MEMORY, "no memory for job %u", job->index);
        return false;
    }
    hands->device = &setting->device;
    if (setting->handles) {
        if (tool_open(&hands->own, bench->uri, !bench_writes(work))
            != TOOL_FINE)
            return false;
        hands->device = &hands->own;
    }
    status = farblk_queue_create((uint32_t)work->depth, &hands->queue);
    if (status < 0) {
        hands->queue = NULL;
        tool_fail_last(status, NULL);
        return false;
    }
    hands->slots = calloc(work->depth, sizeof *hands->slots);
    hands->buffers =
        farblk_buffer_alloc(hands->device->dev, work->block * work->depth);
    if (hands->slots == NULL || hands->buffers == NULL) {
        tool_fail(FARBLK_NO_MEMORY, "no memory for %llu buffers of %llu",
                  (unsigned long long)work->depth,
                  (unsigned long long)work->block);
        return false;
    }
    bench_fill(hands->buffers, work->block * work->depth, job->random);
    for (uint64_t i = 0; i < work->depth; i++) {
        hands->slots[i].iov.iov_base = hands->buffers + i * work->block;
        hands->slots[i].iov.iov_len = work->block;
    }
    return true;
}

static void
bench_release(struct bench_job *job)
{
    struct bench_hands *hands = job->arg;

    if (hands == NULL)
        return;
    farblk_queue_destroy(hands->queue);
    if (hands->buffers != NULL)
        farblk_buffer_free(hands->device->dev, hands->buffers,
                           job->bench->work.block * job->bench->work.depth);
    free(hands->slots);
    tool_close(&hands->own);
    free(hands);
}

/* Begin the job's next request in `slot`; false when there is none. */
static bool
bench_begin(struct bench_job *job, struct bench_slot *slot, bool more)
{
    struct bench_hands *hands = job->arg;
    struct farblk_request request = {
        .size = sizeof request,
        .flags = more ? FARBLK_MORE : 0,
        .dev = hands->device->dev,
        .iov = &slot->iov,
        .iovcnt = 1,
        .user = slot,
    };
    int status;

    slot->begun = bench_now();
    if (!bench_next(job, slot->begun, &slot->offset, &slot->write))
        return false;
    request.op = slot->write ? FARBLK_OP_WRITE : FARBLK_OP_READ;
    request.sector = slot->offset / hands->device->info.sector_size;
    status = farblk_submit(hands->queue, &request);
    if (status < 0) {
        bench_fail(job->bench, status, slot->write, slot->offset,
                   farblk_last_text());
        return false;
    }
    return true;
}

static void
bench_loop(struct bench_job *job)
{
    struct bench_hands *hands = job->arg;
    struct farblk_completion done[BENCH_BATCH];
    uint64_t depth = job->bench->work.depth, now;

    for (uint64_t i = 0; i < depth; i++)
        if (!bench_begin(job, &hands->slots[i], i + 1 < depth))
            break;
    while (farblk_queue_pending(hands->queue) > 0) {
        int count =
            farblk_collect(hands->queue, done, sizeof *done, BENCH_BATCH, -1);

        if (count <= 0) {
            tool_fail_last(count, "collect");
            bench_stop(job->bench);
            return;
        }
        now = bench_now();
        for (int i = 0; i < count; i++) {
            struct bench_slot *slot = done[i].user;

            if (done[i].status < 0) {
                bench_fail(job->bench, done[i].status, slot->write,
                           slot->offset, done[i].text);
                continue;
            }
            bench_ended(job, slot->write, slot->begun, now);
            if (!slot->write)
                bench_touch(job, slot->iov.iov_base, slot->iov.iov_len);
            bench_begin(job, slot, i + 1 < count);
        }
    }
}

/* --fill: write the region once, so that reads find something there. */
static int
bench_fill_region(const struct bench *bench, const struct tool_device *device)
{
    const struct bench_work *work = &bench->work;
    uint32_t sector = device->info.sector_size;
    uint64_t piece = tool_request_size(device, NULL), at = 0;
    unsigned char *buffer = farblk_buffer_alloc(device->dev, piece);
    int status = 0;

    if (buffer == NULL)
        return tool_fail(FARBLK_NO_MEMORY, "no memory for %llu octets",
                         (unsigned long long)piece);
    bench_fill(buffer, piece, work->seed);
    while (at < work->length && status == 0) {
        uint64_t rest = work->length - at;
        struct iovec iov = {buffer, rest < piece ? rest : piece};

        status =
            farblk_write(device->dev, (work->offset + at) / sector, &iov, 1, 0);
        if (status < 0)
            tool_fail(status, "%s: filling %zu octets at octet %llu: %s",
                      bench->uri, iov.iov_len,
                      (unsigned long long)(work->offset + at),
                      farblk_last_text());
        at += iov.iov_len;
    }
    farblk_buffer_free(device->dev, buffer, piece);
    return status < 0 ? TOOL_FAILED : TOOL_FINE;
}

static int
bench_measure(struct bench *bench, const struct tool_device *device, bool fill)
{
    struct bench_work *work = &bench->work;
    int result;

    if (work->block % device->info.sector_size != 0)
        return tool_fail(FARBLK_INVALID,
                         "--bs %llu is not a whole number of sectors of %u "
                         "octets",
                         (unsigned long long)work->block,
                         device->info.sector_size);
    result = bench_region(bench, device->size);
    if (result == TOOL_FINE)
        result = tool_check_range(device, work->offset, work->length);
    if (result == TOOL_FINE && fill)
        result = bench_fill_region(bench, device);
    return result == TOOL_FINE ? bench_run(bench) : result;
}

static int
bench_command(const struct command *command, int argc, char **argv)
{
    struct bench_setting setting = {.handles = false};
    struct bench bench = {.prepare = bench_prepare,
                          .run = bench_loop,
                          .release = bench_release,
                          .arg = &setting};
    bool fill = false;
    const struct args_option options[] = {
        {.name = "handles",
         .kind = ARGS_FLAG,
         .help = "a handle of its own for each job: as many clients",
         .value = &setting.handles},
        {.name = "fill",
         .kind = ARGS_FLAG,
         .help = "first write the whole region; DESTROYS its content",
         .value = &fill},
        {.name = NULL},
    };
    int result =
        bench_parse(&bench, command, argc, argv, options, &bench.uri, 1);

    if (result >= 0)
        return result;
    result = tool_open(&setting.device, bench.uri,
                       !bench_writes(&bench.work) && !fill);
    if (result != TOOL_FINE)
        return result;
    result = bench_measure(&bench, &setting.device, fill);
    tool_close(&setting.device);
    return result;
}

const struct command command_bench = {
    .name = "bench",
    .summary = "measure how fast a device is",
    .operands = "URI",
    .notes =
        "Every --rw that writes DESTROYS the content of the region; reading is "
        "the default.\n\n"
        "Each job is a thread with its own queue; all of them use one handle "
        "(to a server,\none client) unless --handles.  Sequential jobs begin "
        "evenly spread over the region.\nWhat was read is looked at, a word "
        "of each cache line, unless --no-touch.\n\n"
        "Latency is counted for every request, from its submission to its "
        "collection, with\nan error below 1 %.  The loop is closed, a request "
        "begins when one has ended, and\ncoordinated omission is not "
        "corrected: what a slow request delays does not count\nas slow.\n",
    .example = "  farblk bench farblk://host/disk0 --rw randread --bs 4k "
               "--qd 32 --time 2\n",
    .run = bench_command,
};
