/* SPDX-License-Identifier: ISC */
/*
 * A real nbdkit with the plugin, and libnbd's connections to it.
 *
 * It gets its socket from the test, so that there is nothing to wait for, and
 * ends with the test.
 */
#ifndef FARBLK_TESTS_NBDKIT_PROCESS_H
#define FARBLK_TESTS_NBDKIT_PROCESS_H

#include "tests/support.h"

#include <sys/types.h>

struct nbd_handle;

struct nbdkit {
    pid_t pid; /* 0: not running */
    char path[108]; /* its socket */
    char log[256]; /* path of its stderr */
};

/* Whether there is an nbdkit that the plugin of this build can go into; if not,
 * why not. */
bool nbdkit_usable(const char **why);

/* Start it.  `before` and `after` the plugin's name: options, parameters, in
 * the words of a shell. */
void nbdkit_start(struct nbdkit *nbdkit, const char *before, const char *after);
/* SIGTERM, and wait; fails the test when it does not end with 0. */
void nbdkit_stop(struct nbdkit *nbdkit);
/* SIGKILL, and wait; for teardowns.  Fine when it is not running. */
void nbdkit_kill(struct nbdkit *nbdkit);
/* Whether its log has this text now. */
bool nbdkit_logged(const struct nbdkit *nbdkit, const char *text);

/* A connection to an export; NULL when it is refused. */
struct nbd_handle *nbdkit_try(const struct nbdkit *nbdkit, const char *name);
/* The same; fails the test when there is none. */
struct nbd_handle *nbdkit_connect(const struct nbdkit *nbdkit,
                                  const char *name);

/* A libnbd call that must not fail. */
#define nbd_ok(expr) nbdkit_ok((expr), #expr, __FILE__, __LINE__)
/* One that must fail with this errno. */
#define nbd_fails(errnum, expr)                                                \
    nbdkit_fails((errnum), (expr), #expr, __FILE__, __LINE__)
int64_t nbdkit_ok(int64_t result, const char *what, const char *file, int line);
void nbdkit_fails(int errnum, int64_t result, const char *what,
                  const char *file, int line);

#endif
