/* SPDX-License-Identifier: ISC */
/*
 * The work of `farblk bench` done by memcpy within one memory: what no device
 * can be faster than.  Requests are done one by one; --qd is the number of
 * buffers.  Options, clock, touching and output are those of `farblk bench`.
 */
#include "tools/bench_work.h"

#include <stdlib.h>
#include <string.h>

#define MEMCPY_SIZE (256u << 20)

/* bench->arg is the memory, job->arg the buffers. */
static bool
memcpy_prepare(struct bench_job *job)
{
    const struct bench_work *work = &job->bench->work;
    unsigned char *buffers = malloc(work->block * work->depth);

    job->arg = buffers;
    if (buffers == NULL) {
        tool_fail(FARBLK_NO_MEMORY, "no memory for %llu buffers of %llu",
                  (unsigned long long)work->depth,
                  (unsigned long long)work->block);
        return false;
    }
    bench_fill(buffers, work->block * work->depth, job->random);
    return true;
}

static void
memcpy_release(struct bench_job *job)
{
    free(job->arg);
}

static void
memcpy_loop(struct bench_job *job)
{
    const struct bench_work *work = &job->bench->work;
    unsigned char *memory = job->bench->arg, *buffers = job->arg;
    uint64_t slot = 0, offset, begun = bench_now(), now;
    bool write;

    while (bench_next(job, begun, &offset, &write)) {
        unsigned char *buffer = buffers + slot * work->block;

        if (write) {
            memcpy(memory + offset, buffer, work->block);
        } else {
            memcpy(buffer, memory + offset, work->block);
            bench_touch(job, buffer, work->block);
        }
        now = bench_now();
        bench_ended(job, write, begun, now);
        begun = now;
        slot = slot + 1 == work->depth ? 0 : slot + 1;
    }
}

static int
memcpy_run(const struct command *command, int argc, char **argv)
{
    struct bench bench = {.uri = "memory",
                          .prepare = memcpy_prepare,
                          .run = memcpy_loop,
                          .release = memcpy_release};
    uint64_t size;
    int result = bench_parse(&bench, command, argc, argv, NULL, NULL, 0);

    if (result >= 0)
        return result;
    size = bench.work.length != 0 ? bench.work.offset + bench.work.length
                                  : MEMCPY_SIZE;
    bench.arg = malloc(size);
    if (bench.arg == NULL)
        return tool_fail(FARBLK_NO_MEMORY, "no memory of %llu octets",
                         (unsigned long long)size);
    bench_fill(bench.arg, size, bench.work.seed);
    result = bench_region(&bench, size);
    if (result == TOOL_FINE)
        result = bench_run(&bench);
    free(bench.arg);
    return result;
}

static const struct command command_memcpy = {
    .name = "memcpy_load",
    .summary = "the work of farblk bench, by memcpy",
    .operands = "",
    .notes = "The memory is of 256M unless --length tells.\n",
    .example = "  memcpy_load --rw randread --bs 4k\n",
    .run = memcpy_run,
};

int
main(int argc, char **argv)
{
    tool_name = command_memcpy.name;
    return command_memcpy.run(&command_memcpy, argc, argv);
}
