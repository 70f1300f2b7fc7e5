/* SPDX-License-Identifier: ISC */
/*
 * A server inside the test, a ramdisk as its export "disk", and a plug that
 * holds the disk's requests up for as long as a test wants.
 */
#ifndef FARBLK_TESTS_SERVER_FIXTURE_H
#define FARBLK_TESTS_SERVER_FIXTURE_H

#include "core/device.h"
#include "farblk/server.h"
#include "tests/server_peer.h"

#define FIXTURE_SECTORS 4096u

struct fixture {
    struct farblk_server *server;
    char url[256];
    struct farblk *disk; /* the export's device, opened locally */
    struct gate_waiter plug;
};

/* A server that listens on an abstract address. */
void fixture_start(struct fixture *fixture,
                   const struct farblk_server_options *options);
/* Stops and destroys it; fails the test when stopping fails. */
void fixture_end(struct fixture *fixture);

/* From now on no request of the disk starts. */
void fixture_plug(struct fixture *fixture);
void fixture_unplug(struct fixture *fixture);

/* Wait until this is true of the server's stats. */
#define fixture_await(fixture, stats, condition)                               \
    do {                                                                       \
        struct farblk_server_stats stats;                                      \
        do {                                                                   \
            fixture_stats((fixture), &stats);                                  \
        } while (!(condition));                                                \
    } while (0)
/* The stats of now, a moment later. */
void fixture_stats(struct fixture *fixture, struct farblk_server_stats *stats);

/* For cmocka's teardown: no limit of memory is left behind, no ramdisk. */
int fixture_clean(void **state);
int fixture_watch(void **state);

#endif
