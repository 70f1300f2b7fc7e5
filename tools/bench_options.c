/* SPDX-License-Identifier: ISC */
/* The options that all benchmarks have in common. */
#include "tools/bench_work.h"

#include <stdlib.h>
#include <string.h>

#define BENCH_JOBS_MAX 1024
#define BENCH_MORE_MAX 8
#define BENCH_BLOCK_MAX (1ull << 30)

/* Option values that need a second look. */
struct bench_given {
    const char *time;
    bool has_time, has_ops, has_mix;
};

static int
bench_check(struct bench_work *work, const struct bench_given *given)
{
    static const struct {
        const char *name;
        bool random;
        uint64_t mix;
    } patterns[] = {
        {"read", false, 100},    {"write", false, 0},    {"rw", false, 50},
        {"randread", true, 100}, {"randwrite", true, 0}, {"randrw", true, 50},
    };
    size_t i = 0;
    char *end;

    while (i < 6 && strcmp(work->rw, patterns[i].name) != 0)
        i++;
    if (i == 6)
        return tool_usage("--rw: \"%s\" is none of read, write, rw, randread, "
                          "randwrite, randrw",
                          work->rw);
    work->random = patterns[i].random;
    if (given->has_mix && patterns[i].mix != 50)
        return tool_usage("--mix goes with --rw rw or randrw");
    if (!given->has_mix)
        work->mix = patterns[i].mix;
    if (work->mix > 100)
        return tool_usage("--mix: %llu is more than 100 percent",
                          (unsigned long long)work->mix);
    if (work->block == 0 || work->block > BENCH_BLOCK_MAX)
        return tool_usage("--bs must be from 1 octet to 1G");
    if (work->depth == 0 || work->depth > FARBLK_QUEUE_DEPTH_MAX)
        return tool_usage("--qd must be from 1 to %u", FARBLK_QUEUE_DEPTH_MAX);
    if (work->jobs == 0 || work->jobs > BENCH_JOBS_MAX)
        return tool_usage("--jobs must be from 1 to %u", BENCH_JOBS_MAX);
    if (given->has_time && given->has_ops)
        return tool_usage("--time and --ops exclude each other");
    if (given->has_ops && work->ops == 0)
        return tool_usage("--ops must not be 0");
    work->seconds = strtod(given->time, &end);
    if (strspn(given->time, "0123456789.") != strlen(given->time)
        || *end != '\0' || end == given->time || !(work->seconds > 0)
        || work->seconds > 1e6)
        return tool_usage("--time: \"%s\" is not a number of seconds up to "
                          "1000000, such as 2 or 0.5",
                          given->time);
    return -1;
}

int
bench_parse(struct bench *bench, const struct command *command, int argc,
            char **argv, const struct args_option *more, const char **operands,
            int count)
{
    struct bench_work *work = &bench->work;
    struct bench_given given = {.time = "2"};
    struct args_option options[] = {
        {.name = "rw",
         .kind = ARGS_TEXT,
         .metavar = "HOW",
         .help = "read, write, rw, randread (the default), randwrite, randrw",
         .value = &work->rw},
        {.name = "mix",
         .kind = ARGS_NUMBER,
         .metavar = "PERCENT",
         .help = "reads among rw and randrw; 50 by default",
         .value = &work->mix,
         .given = &given.has_mix},
        {.name = "bs",
         .kind = ARGS_SIZE,
         .metavar = "SIZE",
         .help = "octets of a request; 4k by default",
         .value = &work->block},
        {.name = "qd",
         .kind = ARGS_NUMBER,
         .metavar = "N",
         .help = "requests in flight, of each job; 32 by default",
         .value = &work->depth},
        {.name = "jobs",
         .kind = ARGS_NUMBER,
         .metavar = "N",
         .help = "threads at work; 1 by default",
         .value = &work->jobs},
        {.name = "time",
         .kind = ARGS_TEXT,
         .metavar = "SECONDS",
         .help = "how long; 2 by default",
         .value = &given.time,
         .given = &given.has_time},
        {.name = "ops",
         .kind = ARGS_NUMBER,
         .metavar = "N",
         .help = "end after N requests of all jobs, not by time",
         .value = &work->ops,
         .given = &given.has_ops},
        {.name = "seed",
         .kind = ARGS_NUMBER,
         .metavar = "N",
         .help = "of the random order; 1 by default",
         .value = &work->seed},
        {.name = "offset",
         .kind = ARGS_SIZE,
         .metavar = "SIZE",
         .help = "where the region begins; 0 by default",
         .value = &work->offset},
        {.name = "length",
         .kind = ARGS_SIZE,
         .metavar = "SIZE",
         .help = "octets of the region; to the end by default",
         .value = &work->length},
        {.name = "no-touch",
         .kind = ARGS_FLAG,
         .help = "do not look at what was read",
         .value = &work->no_touch},
        {.name = "json",
         .kind = ARGS_FLAG,
         .help = "print JSON",
         .value = &work->json},
    };
    const size_t common = sizeof options / sizeof *options;
    struct args_option
        all[sizeof options / sizeof *options + BENCH_MORE_MAX + 1] = {0};
    int result;

    *work = (struct bench_work){
        .rw = "randread", .block = 4096, .depth = 32, .jobs = 1, .seed = 1};
    memcpy(all, options, sizeof options);
    for (size_t i = 0; more != NULL && more[i].name != NULL; i++)
        all[common + i] = more[i];
    result = args_parse(command, argc, argv, all, operands, count);
    return result >= 0 ? result : bench_check(work, &given);
}
