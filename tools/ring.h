/* SPDX-License-Identifier: ISC */
/*
 * A ring of buffers with one request each, all reads or all writes of one
 * device, over one queue.  The user goes round: describe slot n, submit it, and
 * wait for it when it is its turn again.  A failure is kept until then, so that
 * what came before it is seen to; it is printed, with its place, and ends the
 * use of the ring.
 */
#ifndef FARBLK_TOOLS_RING_H
#define FARBLK_TOOLS_RING_H

#include "tools/tool.h"

#define RING_DEPTH 8

struct ring_slot {
    struct iovec iov;
    uint64_t offset;
    bool busy; /* submitted and not yet collected */
    int status; /* how it ended */
    uint32_t effect;
    char text[FARBLK_TEXT_MAX];
};

struct ring {
    const struct tool_device *device;
    struct farblk_queue *queue;
    uint32_t op, flags;
    const char *verb;
    uint32_t request_size;
    unsigned char *buffers;
    struct ring_slot slot[RING_DEPTH];
    int result; /* exit status: what failed was printed */
};

/* Prints what is wrong and returns TOOL_FAILED, or TOOL_FINE. */
int ring_begin(struct ring *ring, const struct tool_device *device, uint32_t op,
               uint32_t flags);

/* Waits for what is in flight, and frees. */
void ring_end(struct ring *ring);

/* Begin the request that the slot's offset and iov_len describe. */
void ring_submit(struct ring *ring, struct ring_slot *slot);

/* Wait until `slot` is no longer in flight; print its failure. */
void ring_wait(struct ring *ring, const struct ring_slot *slot);

#endif
