/* SPDX-License-Identifier: ISC */
/*
 * What `farblk bench` and the load programs of bench/ share, so that they
 * measure alike: the options, the order of the work, the clock, the report.
 * Who does the work (a farblk queue, a libnbd connection ...) is handed in.
 *
 * The loop is closed: each of `depth` requests of a job is followed by the next
 * one when it has ended.  Latency is from just before a request is submitted to
 * when its completion is in the caller's hands.  A request that is slow delays
 * the ones after it, whose wait is not in the figures: coordinated omission is
 * not corrected, so the percentiles tell of the requests that were made, not
 * of ones that should have been made by a clock.
 */
#ifndef FARBLK_TOOLS_BENCH_WORK_H
#define FARBLK_TOOLS_BENCH_WORK_H

#include "tools/args.h"
#include "tools/histogram.h"

#include <pthread.h>
#include <stdatomic.h>

/* What is asked for. */
struct bench_work {
    const char *rw;
    bool random;
    uint64_t mix; /* percent of reads */
    uint64_t block, depth, jobs; /* depth: of each job */
    uint64_t ops; /* of all jobs; 0: by time */
    double seconds;
    uint64_t seed, offset, length; /* length 0: to the end */
    bool no_touch, json;
};

struct bench;

/* One thread's part.  `arg` is the worker's own. */
struct bench_job {
    struct bench *bench;
    unsigned index;
    void *arg;
    uint64_t random, next; /* next: block, of sequential work */
    uint64_t left; /* requests to begin */
    uint64_t reads, writes, ended; /* ended: when the last one did */
    unsigned char sum; /* of what was touched */
    pthread_t thread;
    struct histogram latency;
};

/* A worker's calls are made in the job's own thread, `prepare` before the clock
 * begins; false is a failure, which it has told by bench_fail() or printed.
 * `release` is called after `prepare` in any case. */
struct bench {
    struct bench_work work;
    const char *uri;
    uint64_t blocks; /* of the region: bench_region() sets it */
    bool (*prepare)(struct bench_job *job);
    void (*run)(struct bench_job *job);
    void (*release)(struct bench_job *job);
    void *arg;

    /* bench_run()'s own. */
    struct bench_job *jobs;
    pthread_barrier_t ready, go;
    uint64_t begun, deadline;
    double cpu[2]; /* user, system: seconds of this process */
    atomic_bool stop;
    bool failed;
    pthread_mutex_t lock; /* of failed, and of printing */
    struct histogram latency;
};

/* Parse the command line into bench->work.  `more` (or NULL) is a table of the
 * program's own options.  Returns as args_parse(). */
int bench_parse(struct bench *bench, const struct command *command, int argc,
                char **argv, const struct args_option *more,
                const char **operands, int count);

/* Whether anything writes. */
bool bench_writes(const struct bench_work *work);

/* Fix the region on a device of that size; prints what is wrong and returns an
 * exit status, or TOOL_FINE. */
int bench_region(struct bench *bench, uint64_t size);

/* Do the work and print the report.  Returns the exit status. */
int bench_run(struct bench *bench);

/* Nanoseconds of the monotonic clock. */
uint64_t bench_now(void);

/* The next request of the job: false when it shall begin no more. */
bool bench_next(struct bench_job *job, uint64_t now, uint64_t *offset,
                bool *write);

/* One request has ended well. */
void bench_ended(struct bench_job *job, bool write, uint64_t begun,
                 uint64_t now);

/* Read a word of each cache line, as one who uses the data would. */
void bench_touch(struct bench_job *job, const void *data, uint64_t length);

/* Fill with what does not compress and is not zero. */
void bench_fill(void *data, uint64_t length, uint64_t seed);

/* A request failed: print the first one, with its place, and end all jobs. */
void bench_fail(struct bench *bench, int status, bool write, uint64_t offset,
                const char *text);
/* Something else did, and was printed. */
void bench_stop(struct bench *bench);

/* bench_report.c: print the result of `seconds` of work. */
void bench_report(const struct bench *bench, double seconds);

#endif
