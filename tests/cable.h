/* SPDX-License-Identifier: ISC */
/*
 * A relay between clients and a server: a thread that passes octets on, and cuts
 * connections after as many octets as the test says, in either direction.
 *
 * What it has not passed on at a cut is lost.  While it is blocked it passes
 * nothing on and closes nothing.
 */
#ifndef FARBLK_TESTS_CABLE_H
#define FARBLK_TESTS_CABLE_H

#include "tests/support.h"

#include <pthread.h>
#include <sys/socket.h>

#define CABLE_PAIRS 64
#define CABLE_NEVER UINT64_MAX

struct cable_pair {
    int fd[2]; /* client's, server's; -1: none */
    uint64_t passed[2]; /* octets from there */
    uint64_t cut_at[2]; /* then it is cut */
    uint8_t *held[2]; /* read from there and not passed on yet */
    size_t held_from[2], held_length[2];
};

struct cable {
    /* What the octets of the next connection are; may be NULL.  Called by the
     * cable's thread.  `number` counts from 1. */
    void (*plan)(void *arg, unsigned number, uint64_t *to_server,
                 uint64_t *to_client);
    void *arg;

    bool tcp;
    char name[108]; /* abstract name */
    unsigned port; /* tcp */
    struct sockaddr_storage server;
    socklen_t server_length;
    int listener, wake[2];
    pthread_t thread;
    pthread_mutex_t mutex; /* the rest */
    pthread_cond_t changed;
    struct cable_pair pairs[CABLE_PAIRS];
    unsigned connections, cuts; /* up to now */
    bool blocked, deaf, cut_all, stopping;
};

/* In front of the server at `url`, "abstract://NAME" or "tcp://127.0.0.1:PORT";
 * the cable listens on the same kind. */
void cable_start(struct cable *cable, const char *url);
void cable_stop(struct cable *cable);
/* The URI of its client for an export, with more parameters. */
const char *cable_uri(const struct cable *cable, const char *name,
                      const char *more);
/* Cut those that are open when they have passed so many octets more, or
 * CABLE_NEVER, in this direction. */
void cable_cut_after(struct cable *cable, uint64_t to_server,
                     uint64_t to_client);
/* Cut all that are open. */
void cable_cut(struct cable *cable);
/* Pass nothing on, and accept nobody, until it is let go. */
void cable_block(struct cable *cable, bool block);
/* Listen no more: whoever connects is refused.  Open connections go on. */
void cable_refuse(struct cable *cable);
void cable_await_connections(struct cable *cable, unsigned count);

#endif
