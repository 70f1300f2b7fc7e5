/* SPDX-License-Identifier: ISC */
/*
 * A disk that loses what was not synced, for a test: lossy_fs, mounted where
 * this process alone and its children see it.
 */
#ifndef FARBLK_TESTS_LOSSY_H
#define FARBLK_TESTS_LOSSY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct lossy {
    pid_t pid;
    int control;
    char directory[128];
    char disk[160]; /* the path of its file */
};

/* Give this process mounts of its own.  False when that, or FUSE, does not work
 * here; `why` gets the reason. */
bool lossy_usable(char *why, size_t length);

/* Mount one of `size` octets, which may grow to `most`; `cache`: none, through
 * or back.  Fails the test when it does not come up. */
void lossy_start(struct lossy *lossy, uint64_t size, uint64_t most,
                 uint64_t seed, const char *cache);
/* Nobody uses it.  Fine when it does not run. */
void lossy_stop(struct lossy *lossy);

/* One command (lossy_fs.c lists them). */
void lossy_command(struct lossy *lossy, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The number that it tells by that name. */
uint64_t lossy_number(struct lossy *lossy, const char *name);

#endif
