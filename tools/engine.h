/* SPDX-License-Identifier: ISC */
/*
 * The engine of copy and compare: goes once over two devices, in pieces, with
 * many requests in flight.  What is done with a piece is the job's; engine.c
 * tells how both devices are kept busy.
 *
 * Everything is in octets.  `unit` is the larger sector of both devices; pieces
 * begin at whole units, and end so, except for the last where the total does
 * not.
 */
#ifndef FARBLK_TOOLS_ENGINE_H
#define FARBLK_TOOLS_ENGINE_H

#include "tools/progress.h"
#include "tools/scan.h"
#include "tools/tool.h"

struct engine;
struct engine_slot;

/* Handles of a device behind a server, each of which is a connection. */
#define ENGINE_HANDLES 4

/* Kinds of piece are the job's own small numbers; 0 is "nothing to do". */
#define ENGINE_KINDS 4

struct engine_job {
    const char *what; /* "copy", before the bar */
    const char *role[2]; /* "source", "destination" */
    unsigned buffers; /* for each piece: 1 or 2 */
    unsigned data_kinds; /* 1 << kind: pieces of it go through a buffer, and are
                            no longer than one */
    unsigned tail_kind; /* for a last piece that is no whole unit, where its
                            own kind goes through no buffer; 0: cannot be */
    /* What is to be done where the sides are mapped or not. */
    unsigned (*classify)(const struct engine *engine, bool mapped_0,
                         bool mapped_1);
    /* Begin step number slot->step of a piece by engine_submit().  Called with
     * step 0, and again with the next number when all requests of the step
     * before have succeeded.  A step that submits nothing ends the piece. */
    void (*step)(struct engine *engine, struct engine_slot *slot);
};

/* A request in flight: a slot's, or, without slot, a scan's. */
struct engine_op {
    struct engine_slot *slot;
    unsigned side;
    uint32_t op;
    uint64_t offset, length;
    struct iovec iov;
};

/* A piece under way. */
struct engine_slot {
    uint64_t offset, length;
    unsigned kind, step, waiting;
    bool failed;
    unsigned char *buffer[2];
    struct engine_op op[2]; /* by side: one in flight for each */
    struct engine_slot *next;
};

/* The first failure. */
struct engine_failure {
    int status;
    unsigned side;
    uint32_t op;
    uint64_t offset, length;
    char text[FARBLK_TEXT_MAX];
};

struct engine {
    const struct engine_job *job;
    void *arg; /* the job's */
    struct tool_device device[2];
    bool target_is_zero; /* side 1 is not asked for extents: all unmapped */
    bool show_progress;
    uint64_t total;
    /* Chosen by engine_begin() unless given. */
    uint64_t requests; /* pieces under way at most */
    uint64_t request_size; /* octets of the largest of them */
    uint64_t flight_max; /* octets of those with a buffer, all together */
    bool has_requests, has_request_size;

    /* Results. */
    bool stop; /* set by the job as well: begin no more */
    struct engine_failure failure;
    int signal; /* that ended it, or 0 */
    uint64_t octets[ENGINE_KINDS]; /* of finished pieces, by kind */
    uint64_t submitted;
    double seconds;

    /* The engine's own. */
    uint32_t unit;
    uint64_t at; /* everything before it is begun */
    uint64_t flight; /* octets of pieces under way that have a buffer */
    struct farblk_queue *queue;
    struct scan scan[2];
    struct engine_op scan_op[2], flush_op;
    struct engine_slot *slots, *free;
    struct farblk *handle[2][ENGINE_HANDLES]; /* [0]: the device's own */
    unsigned handles[2];
    unsigned char *arena[2];
    size_t arena_size;
    unsigned arena_side[2];
    struct progress progress;
};

/* Get ready, with job, device, total and the options set and the rest zero.
 * Prints what is wrong and returns an exit status, or TOOL_FINE. */
int engine_begin(struct engine *engine);

/* Go over everything; returns when nothing is in flight any more. */
void engine_run(struct engine *engine);

/* Flush a side, unless something has failed or a signal came. */
void engine_flush(struct engine *engine, unsigned side);

/* End the bar; print the failure or the signal.  The exit status of them, or
 * TOOL_FINE. */
int engine_report(struct engine *engine);

/* Free what engine_begin() made; not the devices. */
void engine_end(struct engine *engine);

/* Begin a request on `side` within a step. */
void engine_submit(struct engine *engine, struct engine_slot *slot,
                   unsigned side, uint32_t op, uint64_t offset, uint64_t length,
                   void *buffer);

/* `length` rounded up to whole sectors of `side`. */
uint64_t engine_whole(const struct engine *engine, unsigned side,
                      uint64_t length);

/* Octets behind us, and those of them that went through a buffer. */
uint64_t engine_covered(const struct engine *engine);
uint64_t engine_moved(const struct engine *engine);

#endif
