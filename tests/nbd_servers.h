/* SPDX-License-Identifier: ISC */
/*
 * Real NBD servers of a test's own: nbdkit and qemu-nbd.
 *
 * They get a socket that listens already (the LISTEN_FDS protocol), so nothing
 * has to wait until they are up, and no port is fixed.  They die with the
 * test's main thread, which must be the one that starts them.  They are ended
 * by SIGKILL: nbdkit 1.32 aborts when a client goes with requests in flight, so
 * how one ends means nothing.
 */
#ifndef FARBLK_TESTS_NBD_SERVERS_H
#define FARBLK_TESTS_NBD_SERVERS_H

#include "tests/support.h"

#include <sys/types.h>

#define NBD_SERVER_ARGS 40

struct nbd_server {
    pid_t pid; /* 0: not running */
    char socket[104]; /* its path, or "" with TCP */
    int port;
    char log[256]; /* path of its stderr */
};

/* Whether this build has the driver, and the program is installed. */
bool nbd_server_usable(const char *program);

/* Start args[0] (found in PATH) with the rest, ended by NULL, on a Unix socket
 * or on TCP, loopback.  Fails the test when it can not. */
void nbd_server_start(struct nbd_server *server, bool tcp,
                      const char *const *args);
/* A URI of it: "nbd" or "nbds", the export's name, then more parameters
 * ("sector=4096&ro=1", or "").  Static, of the last four calls. */
const char *nbd_server_uri(const struct nbd_server *server, const char *scheme,
                           const char *name, const char *more);
/* SIGKILL, and wait.  Fine when it is not running. */
void nbd_server_kill(struct nbd_server *server);
/* SIGSTOP, and wait until it stands still; SIGCONT. */
void nbd_server_pause(struct nbd_server *server);
void nbd_server_resume(struct nbd_server *server);
/* How many lines of that file (nbdkit's log filter writes it) have both. */
unsigned nbd_server_logged(const char *path, const char *one, const char *two);
/* All that run still; for teardowns. */
void nbd_server_kill_all(void);

#endif
