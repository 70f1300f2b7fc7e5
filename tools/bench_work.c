/* SPDX-License-Identifier: ISC */
/*
 * Order of the work, threads and clock of a benchmark.  The offsets come from a
 * generator with a seed for each job, so that a run can be repeated against
 * another device or another program.
 */
#include "tools/bench_work.h"

#include "tools/interrupt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define BENCH_LINE 64

bool
bench_writes(const struct bench_work *work)
{
    return work->mix < 100;
}

int
bench_region(struct bench *bench, uint64_t size)
{
    struct bench_work *work = &bench->work;
    uint64_t end;

    if (work->offset > size)
        return tool_fail(FARBLK_INVALID, "offset %llu is past the end, %llu",
                         (unsigned long long)work->offset,
                         (unsigned long long)size);
    if (work->length == 0)
        work->length = size - work->offset;
    if (__builtin_add_overflow(work->offset, work->length, &end) || end > size)
        return tool_fail(FARBLK_INVALID,
                         "offset %llu + length %llu is past the end, %llu "
                         "octets",
                         (unsigned long long)work->offset,
                         (unsigned long long)work->length,
                         (unsigned long long)size);
    bench->blocks = work->length / work->block;
    if (bench->blocks == 0)
        return tool_fail(
            FARBLK_INVALID, "a region of %llu octets holds no request of %llu",
            (unsigned long long)work->length, (unsigned long long)work->block);
    return TOOL_FINE;
}

uint64_t
bench_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* splitmix64: any seed will do. */
static uint64_t
bench_random(uint64_t *state)
{
    uint64_t word = *state += 0x9e3779b97f4a7c15u;

    word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9u;
    word = (word ^ word >> 27) * 0x94d049bb133111ebu;
    return word ^ word >> 31;
}

/* Evenly from [0, limit), by the high half of the product: its bias is below
 * limit / 2^64. */
static uint64_t
bench_below(uint64_t *state, uint64_t limit)
{
    return (uint64_t)((unsigned __int128)bench_random(state) * limit >> 64);
}

bool
bench_next(struct bench_job *job, uint64_t now, uint64_t *offset, bool *write)
{
    struct bench *bench = job->bench;
    const struct bench_work *work = &bench->work;
    uint64_t block;

    if (work->ops == 0 ? now >= bench->deadline : job->left == 0)
        return false;
    if (atomic_load_explicit(&bench->stop, memory_order_relaxed)
        || interrupt_signal() != 0)
        return false;
    if (work->ops != 0)
        job->left--;
    if (work->random) {
        block = bench_below(&job->random, bench->blocks);
    } else {
        block = job->next++;
        if (job->next == bench->blocks)
            job->next = 0;
    }
    *offset = work->offset + block * work->block;
    *write =
        work->mix == 0
        || (work->mix < 100 && bench_below(&job->random, 100) >= work->mix);
    return true;
}

void
bench_ended(struct bench_job *job, bool write, uint64_t begun, uint64_t now)
{
    histogram_record(&job->latency, now - begun);
    if (write)
        job->writes++;
    else
        job->reads++;
}

void
bench_touch(struct bench_job *job, const void *data, uint64_t length)
{
    const volatile unsigned char *octets = data;
    unsigned char sum = 0;

    if (job->bench->work.no_touch)
        return;
    for (uint64_t at = 0; at < length; at += BENCH_LINE)
        sum = (unsigned char)(sum + octets[at]);
    job->sum = (unsigned char)(job->sum + sum);
}

void
bench_fill(void *data, uint64_t length, uint64_t seed)
{
    unsigned char *octets = data;

    for (uint64_t at = 0; at < length; at += sizeof(uint64_t)) {
        uint64_t word = bench_random(&seed);
        uint64_t rest = length - at;

        memcpy(octets + at, &word, rest < sizeof word ? rest : sizeof word);
    }
}

void
bench_fail(struct bench *bench, int status, bool write, uint64_t offset,
           const char *text)
{
    pthread_mutex_lock(&bench->lock);
    if (!bench->failed)
        tool_fail(status, "%s: %s of %llu octets at octet %llu: %s", bench->uri,
                  write ? "write" : "read",
                  (unsigned long long)bench->work.block,
                  (unsigned long long)offset, text);
    bench->failed = true;
    pthread_mutex_unlock(&bench->lock);
    atomic_store(&bench->stop, true);
}

void
bench_stop(struct bench *bench)
{
    pthread_mutex_lock(&bench->lock);
    bench->failed = true;
    pthread_mutex_unlock(&bench->lock);
    atomic_store(&bench->stop, true);
}

static void *
bench_thread(void *arg)
{
    struct bench_job *job = arg;
    struct bench *bench = job->bench;
    bool fine = bench->prepare(job);

    if (!fine)
        bench_stop(bench);
    pthread_barrier_wait(&bench->ready);
    pthread_barrier_wait(&bench->go);
    if (fine)
        bench->run(job);
    job->ended = bench_now();
    bench->release(job);
    return NULL;
}

static void
bench_cpu(double cpu[2])
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    cpu[0] =
        (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6;
    cpu[1] =
        (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6;
}

/* Start the threads; without all of them there is no run, for they wait for
 * each other. */
static void
bench_start(struct bench *bench)
{
    const struct bench_work *work = &bench->work;

    for (unsigned i = 0; i < work->jobs; i++) {
        struct bench_job *job = &bench->jobs[i];
        int errnum;

        job->bench = bench;
        job->index = i;
        job->random = work->seed + i;
        bench_random(&job->random);
        job->random = bench_random(&job->random);
        job->next = bench->blocks * i / work->jobs;
        job->left = work->ops / work->jobs + (i < work->ops % work->jobs);
        errnum = pthread_create(&job->thread, NULL, bench_thread, job);
        if (errnum != 0) {
            tool_fail_errno(errnum, "thread %u of %llu", i + 1,
                            (unsigned long long)work->jobs);
            exit(TOOL_FAILED);
        }
    }
}

int
bench_run(struct bench *bench)
{
    uint64_t jobs = bench->work.jobs, last = 0;
    double cpu[2];

    bench->jobs = calloc(jobs, sizeof *bench->jobs);
    if (bench->jobs == NULL)
        return tool_fail(FARBLK_NO_MEMORY, "no memory for %llu jobs",
                         (unsigned long long)jobs);
    pthread_mutex_init(&bench->lock, NULL);
    pthread_barrier_init(&bench->ready, NULL, (unsigned)jobs + 1);
    pthread_barrier_init(&bench->go, NULL, (unsigned)jobs + 1);
    interrupt_catch();
    bench_start(bench);
    pthread_barrier_wait(&bench->ready);
    bench_cpu(cpu);
    bench->begun = bench_now();
    bench->deadline = bench->begun + (uint64_t)(bench->work.seconds * 1e9);
    pthread_barrier_wait(&bench->go);
    for (uint64_t i = 0; i < jobs; i++) {
        pthread_join(bench->jobs[i].thread, NULL);
        histogram_merge(&bench->latency, &bench->jobs[i].latency);
        if (bench->jobs[i].ended > last)
            last = bench->jobs[i].ended;
    }
    bench_cpu(bench->cpu);
    bench->cpu[0] -= cpu[0];
    bench->cpu[1] -= cpu[1];
    if (!bench->failed)
        bench_report(bench, (double)(last - bench->begun) / 1e9);
    free(bench->jobs);
    bench->jobs = NULL;
    if (bench->failed)
        return TOOL_FAILED;
    return interrupt_signal() != 0 ? 128 + interrupt_signal() : TOOL_FINE;
}
