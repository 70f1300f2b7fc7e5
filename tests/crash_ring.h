/* SPDX-License-Identifier: ISC */
/*
 * Rounds of the crash test: a disk that loses what was not synced, a farblkd
 * that exports it, writers, something terrible, and a look at what is left.
 */
#ifndef FARBLK_TESTS_CRASH_RING_H
#define FARBLK_TESTS_CRASH_RING_H

#include "tests/crash.h"
#include "tests/crash_oracle.h"
#include "tests/daemon.h"
#include "tests/lossy.h"
#include "tests/support.h"

/* How the device is exported, and on what. */
struct crash_setup {
    const char *name;
    const char *cache; /* the kernel's: none, through, back */
    const char *more; /* parameters of the file's URI */
    bool sync; /* sync=1 is among them */
    bool fixed; /* no resizes: the kernel would keep its own size */
};

/* What ends a round. */
enum crash_event {
    CRASH_CUT, /* the power goes */
    CRASH_KILL, /* farblkd is killed */
    CRASH_KILL_CUT, /* the one, then the other */
    CRASH_STOP_CUT, /* farblkd is told to end, and has; then the power goes */
    CRASH_RESTART, /* the power goes and comes, a new farblkd is there, and the
                      writers have lived through it */
    CRASH_PAUSE, /* the writers end, and all goes on */
    CRASH_EVENTS,
};

/* What fails in the midst of a round. */
enum crash_fault {
    CRASH_NO_FAULT,
    CRASH_NO_SPACE,
    CRASH_BAD_WRITE,
    CRASH_BAD_SYNC,
    CRASH_FAULTS
};

/* How one round goes. */
struct crash_round {
    enum crash_event event;
    enum crash_fault fault;
    unsigned writers;
    bool kill_writer; /* in the midst of it; another one takes over */
    uint64_t ticks; /* of the clock, until the event */
    unsigned flushes, fuas, resizes; /* one op in so many; resizes by the first
                                        writer, where the setup lets it */
    bool may_zero;
    bool drop_fua; /* planted */
};

struct crash_tally {
    unsigned rounds, cuts, server_kills, client_kills, stops;
    unsigned locked; /* starts that found the last one's lock */
    uint64_t ops, flushes, failed_writes, failed_syncs;
};

struct crash_ring {
    const struct crash_setup *setup;
    const char *plant; /* for crash_shim.c, or NULL */
    struct rng rng;
    struct lossy lossy;
    struct daemon daemon;
    struct oracle *oracle;
    struct crash_shared *shared;
    char export[320], listen[300], unix_uri[320], tcp_uri[128];
    bool running; /* farblkd, since a look at the disk */
    uint64_t numbers; /* tags given out */
    uint64_t failed_syncs; /* of the disk, up to the end of the last farblkd */
    uint64_t
        flush_failed; /* when a flush of this farblkd first did, or never */
    uint64_t restarted; /* under the writers of this round; or never */
    struct crash_tally tally;
    char text[1024]; /* what was wrong with the last round */
};

void crash_ring_start(struct crash_ring *ring, const struct crash_setup *setup,
                      const char *plant, uint64_t seed);
void crash_ring_stop(struct crash_ring *ring);
/* Choose a round by the ring's random numbers. */
struct crash_round crash_ring_choose(struct crash_ring *ring);
/* One round.  False: a promise was broken; ring->text tells which. */
bool crash_ring_round(struct crash_ring *ring, const struct crash_round *round);
/* Everything that a failed test left. */
void crash_ring_abandon(void);

#endif
