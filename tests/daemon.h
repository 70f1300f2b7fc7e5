/* SPDX-License-Identifier: ISC */
/*
 * A real farblkd process of a test's own.
 *
 * It dies with the test's main thread, which must be the one that starts it.
 * Its log (stderr) goes to a file, where daemon_wait_log() looks; what it told
 * on stdout is kept.  Daemons that a failed test has left are killed by
 * daemon_kill_all().
 */
#ifndef FARBLK_TESTS_DAEMON_H
#define FARBLK_TESTS_DAEMON_H

#include "tests/support.h"

#include <sys/types.h>

#define DAEMON_URLS 8

struct daemon {
    pid_t pid; /* 0: not running */
    int out; /* its stdout, open until it is stopped */
    size_t urls;
    char url[DAEMON_URLS][512]; /* "listening on", in order */
    char log[256]; /* path of its stderr */
    int exit_code; /* after its end; -N: by signal N */
};

/* The program, from the build directory of the environment's FARBLK_BUILD, or
 * that of this build. */
const char *daemon_program(void);

/* Start it with these arguments (ended by NULL) and wait until it is ready.
 * False when it ended before: exit_code and log tell. */
bool daemon_try(struct daemon *daemon, const char *const *args);
/* The same; fails the test when it does not come up. */
void daemon_start(struct daemon *daemon, const char *const *args);

/* SIGTERM, wait for its end; fails the test when that is not exit 0. */
void daemon_stop(struct daemon *daemon);
/* SIGSTOP, and wait until it stands still; SIGCONT. */
void daemon_pause(struct daemon *daemon);
void daemon_resume(struct daemon *daemon);
/* Wait for its end; its exit code. */
int daemon_wait(struct daemon *daemon);
/* SIGKILL and wait.  Fine when it is not running. */
void daemon_kill(struct daemon *daemon);
/* All that run still; for teardowns.  Returns how many. */
int daemon_kill_all(void);
/* A test's teardown: that, and nothing watches over the test any more. */
int daemon_clean(void **state);

/* What it logged up to now; free() it. */
char *daemon_read_log(const struct daemon *daemon);
/* Wait until its log holds this text; fails the test when it never does. */
void daemon_wait_log(const struct daemon *daemon, const char *text);
/* How often the log holds it now. */
size_t daemon_count_log(const struct daemon *daemon, const char *text);

#endif
