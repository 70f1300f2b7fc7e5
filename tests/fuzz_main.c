/* SPDX-License-Identifier: ISC */
/*
 * A main() for fuzz targets where no engine brings one:
 *
 *   PROGRAM [-m COUNT] [FILE | DIRECTORY] ...
 *
 * runs each input, and COUNT changed ones made of it, the same ones each time.
 * Without any, one input from stdin (afl-fuzz).  A finding ends the program; the
 * input is written to "crash" first if FUZZ_KEEP is set.
 */
#include "tests/fuzz_frames.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define INPUT_MAX (1u << 17)

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
                               unsigned seed) __attribute__((weak));

static uint64_t state = 20240229;
static unsigned long runs;

static uint32_t
next(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

/* As the engine's, much simpler. */
size_t
LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size)
{
    if (size == 0 || (size < max_size && next() % 4 == 0)) {
        size_t at = size == 0 ? 0 : next() % size;
        if (size >= max_size)
            return size;
        memmove(data + at + 1, data + at, size - at);
        data[at] = (uint8_t)next();
        return size + 1;
    }
    size_t at = next() % size;
    switch (next() % 4) {
    case 0:
        memmove(data + at, data + at + 1, size - at - 1);
        return size - 1;
    case 1:
        data[at] ^= (uint8_t)(1u << next() % 8);
        return size;
    case 2:
        data[at] = next() % 2 ? 0xff : 0;
        return size;
    default:
        data[at] = (uint8_t)next();
        return size;
    }
}

static void
run(const uint8_t *data, size_t size)
{
    /* In memory of just that size, so that a checker sees each octet beyond. */
    uint8_t *exact = malloc(size + (size == 0));
    if (exact == NULL)
        abort();
    memcpy(exact, data, size);
    if (getenv("FUZZ_KEEP") != NULL) {
        FILE *file = fopen("crash", "wb");
        if (file == NULL || fwrite(exact, 1, size, file) != size
            || fclose(file) != 0)
            abort();
    }
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    runs++;
}

static void
run_changed(const uint8_t *data, size_t size, unsigned count)
{
    static uint8_t copy[INPUT_MAX];
    while (count-- > 0) {
        size_t length = size;
        memcpy(copy, data, size);
        for (unsigned times = 1 + next() % 4; times > 0; times--)
            length =
                LLVMFuzzerCustomMutator != NULL
                    ? LLVMFuzzerCustomMutator(copy, length, INPUT_MAX, next())
                    : LLVMFuzzerMutate(copy, length, INPUT_MAX);
        run(copy, length);
    }
}

static int
run_stream(int fd, unsigned changed)
{
    static uint8_t data[INPUT_MAX];
    size_t size = 0;
    ssize_t n;
    while (size < sizeof data
           && (n = read(fd, data + size, sizeof data - size)) > 0)
        size += (size_t)n;
    run(data, size);
    run_changed(data, size, changed);
    return 0;
}

static int
run_path(const char *path, unsigned changed)
{
    struct dirent **entries;
    struct stat found;
    int failed = 0;
    if (stat(path, &found) != 0) {
        perror(path);
        return 1;
    }
    if (!S_ISDIR(found.st_mode)) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            perror(path);
            return 1;
        }
        failed = run_stream(fd, changed);
        close(fd);
        return failed;
    }
    int count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char name[4096];
        snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            failed |= run_path(name, changed);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    return failed || count < 0;
}

int
main(int argc, char **argv)
{
    unsigned changed = 0;
    int failed = 0, at = 1;
    if (argc > 2 && strcmp(argv[1], "-m") == 0) {
        changed = (unsigned)strtoul(argv[2], NULL, 10);
        at = 3;
    }
    if (at == argc)
        return run_stream(STDIN_FILENO, changed);
    for (; at < argc; at++)
        failed |= run_path(argv[at], changed);
    printf("%lu inputs\n", runs);
    /* A corpus that is not there is no test. */
    return failed || runs == 0;
}
