/* SPDX-License-Identifier: ISC */
/*
 * How fast CRC-32C is computed here, by the instruction and by tables: for each
 * length the best of several runs over data that is in the cache, in GB/s and
 * nanoseconds.  Prints a table in Markdown.
 */
#include "core/crc32c.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define RUNS 25
#define RUN_OCTETS (8u << 20)

static uint8_t data[1 << 20];

static double
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Seconds for one sum. */
static double
best(uint32_t (*sum)(uint32_t crc, const void *at, size_t count), size_t length)
{
    double least = 1e9;
    size_t times = RUN_OCTETS / length;
    uint32_t crc = 0;
    for (unsigned run = 0; run < RUNS; run++) {
        double begun = now();
        for (size_t i = 0; i < times; i++)
            crc = sum(crc, data, length);
        double took = (now() - begun) / (double)times;
        if (took < least)
            least = took;
    }
    data[0] = (uint8_t)crc; /* so that it is computed */
    return least;
}

static void
print(const char *name,
      uint32_t (*sum)(uint32_t crc, const void *at, size_t count))
{
    static const size_t lengths[] = {512, 4096, 65536, sizeof data};
    printf("| %s |", name);
    for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        double took = best(sum, lengths[i]);
        printf(" %.1f GB/s, %.0f ns |", (double)lengths[i] / took / 1e9,
               took * 1e9);
    }
    printf("\n");
}

int
main(void)
{
    memset(data, 0x5a, sizeof data);
    printf("| CRC-32C | 512 | 4 KiB | 64 KiB | 1 MiB |\n"
           "|---|---:|---:|---:|---:|\n");
    if (crc32c_has_instruction())
        print("by the instruction", crc32c_instruction);
    print("by tables", crc32c_plain);
    return 0;
}
