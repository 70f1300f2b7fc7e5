/* SPDX-License-Identifier: ISC */
/*
 * What a benchmark prints: a few lines, with a picture of the latencies on a
 * terminal, or JSON.
 */
#include "tools/bench_work.h"

#include "tools/json.h"
#include "tools/text.h"

#include <stdio.h>
#include <unistd.h>

static const struct {
    const char *name, *key;
    double fraction;
} report_quantiles[] = {
    {"min", "min", 0},    {"p50", "p50", 0.5},      {"p90", "p90", 0.9},
    {"p99", "p99", 0.99}, {"p99.9", "p999", 0.999}, {"max", "max", 1},
};

#define REPORT_QUANTILES (sizeof report_quantiles / sizeof *report_quantiles)

static double
report_us(const struct histogram *latency, size_t quantile)
{
    return (double)histogram_quantile(latency,
                                      report_quantiles[quantile].fraction)
           / 1e3;
}

static void
report_json(const struct bench *bench, double seconds, uint64_t reads,
            uint64_t writes)
{
    const struct bench_work *work = &bench->work;
    const struct histogram *latency = &bench->latency;
    struct json json = {.file = stdout};

    json_object(&json, NULL, true);
    json_text(&json, "uri", bench->uri);
    json_text(&json, "rw", work->rw);
    json_number(&json, "mix", work->mix);
    json_number(&json, "block_size", work->block);
    json_number(&json, "depth", work->depth);
    json_number(&json, "jobs", work->jobs);
    json_number(&json, "offset", work->offset);
    json_number(&json, "length", work->length);
    json_number(&json, "seed", work->seed);
    json_bool(&json, "touched", !work->no_touch);
    json_real(&json, "seconds", seconds);
    json_number(&json, "reads", reads);
    json_number(&json, "writes", writes);
    json_real(&json, "iops", (double)latency->count / seconds);
    json_real(&json, "bytes_per_second",
              (double)latency->count * (double)work->block / seconds);
    json_object(&json, "latency_us", false);
    for (size_t i = 0; i < REPORT_QUANTILES; i++)
        json_real(&json, report_quantiles[i].key, report_us(latency, i));
    json_real(&json, "mean", histogram_mean(latency) / 1e3);
    json_end(&json);
    json_object(&json, "cpu_seconds", false);
    json_real(&json, "user", bench->cpu[0]);
    json_real(&json, "system", bench->cpu[1]);
    json_end(&json);
    json_end(&json);
}

/* "128 ns", "4.1 us", "16.8 ms", "1.1 s" */
static const char *
report_time(double ns, char *buffer)
{
    static const char *const units[] = {"ns", "us", "ms", "s"};
    unsigned unit = 0;

    while (ns >= 999.5 && unit < 3) {
        ns /= 1000;
        unit++;
    }
    snprintf(buffer, TEXT_SHORT, "%.*f %s", unit == 0 || ns >= 99.95 ? 0 : 1,
             ns, units[unit]);
    return buffer;
}

/* A line for each power of two, with the share of the requests in it. */
static void
report_picture(const struct histogram *latency)
{
    const char *block = text_utf8() ? "\xe2\x96\x88" : "#";
    unsigned columns = text_columns(STDOUT_FILENO), width;
    unsigned first = 64, last = 0;
    uint64_t most = 0;
    char text[TEXT_SHORT];

    for (unsigned i = 0; i < 64; i++) {
        uint64_t count = histogram_power(latency, i);

        if (count == 0)
            continue;
        if (first == 64)
            first = i;
        last = i;
        most = count > most ? count : most;
    }
    width = columns > 60 ? (columns > 100 ? 80 : columns - 20) : 40;
    for (unsigned i = first; most > 0 && i <= last; i++) {
        uint64_t count = histogram_power(latency, i);
        uint64_t bar = (count * width + most - 1) / most;

        printf("%9s %6.2f %% ", report_time((double)((uint64_t)1 << i), text),
               100 * (double)count / (double)latency->count);
        for (uint64_t j = 0; j < bar; j++)
            fputs(block, stdout);
        putchar('\n');
    }
}

void
bench_report(const struct bench *bench, double seconds)
{
    const struct bench_work *work = &bench->work;
    const struct histogram *latency = &bench->latency;
    uint64_t reads = 0, writes = 0;
    char text[TEXT_SHORT];

    for (uint64_t i = 0; i < work->jobs; i++) {
        reads += bench->jobs[i].reads;
        writes += bench->jobs[i].writes;
    }
    if (work->json) {
        report_json(bench, seconds, reads, writes);
        return;
    }
    printf("%s of %s, %llu in flight", work->rw, text_size(work->block, text),
           (unsigned long long)work->depth);
    if (work->jobs > 1)
        printf(" in each of %llu jobs", (unsigned long long)work->jobs);
    printf(": %llu reads, %llu writes in %.2f s\n", (unsigned long long)reads,
           (unsigned long long)writes, seconds);
    printf("%.0f requests/s, %s/s\n", (double)latency->count / seconds,
           text_size((uint64_t)((double)latency->count * (double)work->block
                                / seconds),
                     text));
    printf("latency:");
    for (size_t i = 0; i < REPORT_QUANTILES; i++)
        printf("  %s %s", report_quantiles[i].name,
               report_time(report_us(latency, i) * 1e3, text));
    printf("  mean %s\n", report_time(histogram_mean(latency), text));
    if (isatty(STDOUT_FILENO))
        report_picture(latency);
}
