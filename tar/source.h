/* SPDX-License-Identifier: ISC */
/*
 * The value of a new member, wherever it comes from.
 */
#ifndef FARBLK_TAR_SOURCE_H
#define FARBLK_TAR_SOURCE_H

#include <stdbool.h>
#include <stddef.h>

struct farblk_tar;

struct source {
    /* Puts the next octets; 0 or what the call is to return.  NULL: zeros. */
    int (*read)(void *arg, void *buffer, size_t length);
    void *arg;
    bool failed; /* it has answered with something else than 0 */
};

/* The next `length` octets. */
int source_read(struct source *source, const struct farblk_tar *tar,
                void *buffer, size_t length);

/* A source of `tar` is running in this thread. */
bool source_running(const struct farblk_tar *tar);

#endif
