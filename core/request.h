/* SPDX-License-Identifier: ISC */
/*
 * The one data path.  A request is submitted with a callback; queues, blocking
 * calls and the server's dispatch are its three users.
 *
 *   request_submit: checks (once, here, for every driver) -> gate (order
 *   against resizes) -> range -> pieces of the driver's size, pipelined ->
 *   each piece: range lock -> driver -> completion -> FUA by flush where the
 *   driver has none -> done()
 */
#ifndef FARBLK_CORE_REQUEST_H
#define FARBLK_CORE_REQUEST_H

#include "core/driver.h"
#include "core/gate.h"
#include "core/timer.h"

struct request {
    /* Set by the submitter; stays as it is until done(). */
    struct farblk *handle;
    enum farblk_op op;
    uint32_t flags; /* FARBLK_FUA, FARBLK_NO_UNMAP */
    uint64_t sector, count; /* as in struct farblk_request */
    const struct iovec *iov;
    size_t iovcnt;
    int32_t timeout_ms; /* as in struct farblk_request */
    bool has_whole; /* this is a piece of a larger request, to be */
    uint64_t whole_sector; /*   checked as one (a server's client split it) */
    uint64_t whole_count;
    struct loan *loan; /* READ: may be lent; then count, not iov, says how
                                 much.  Only if request_lends(). */
    struct block *payload; /* WRITE: iov lies within this block */
    void *ring; /* of the queue (driver_rings), or NULL */
    /* Called exactly once, on any thread, also inside request_submit(); the
     * request may be freed in it.  Must not block. */
    void (*done)(struct request *request);
    void *owner;

    /* The result, valid in done(). */
    struct error error;
    uint64_t value;

    /* Core's own. */
    struct device *device;
    struct gate_waiter waiter;
    struct timer timer;
    int64_t deadline_ms; /* monotonic; 0: none */
    struct io first; /* the only piece of most requests */
    struct io *pieces; /* more of them, or NULL */
    struct iov_view rest;
    uint64_t offset, length; /* octets that are not yet issued */
    uint64_t whole_offset, whole_length;
    pthread_mutex_t mutex; /* rest, offset, length, error, expired, stages; of
                              those with a timeout or several pieces */
    atomic_uint outstanding; /* ios that are not at rest */
    atomic_uint holds; /* of a timed one: its submitter's, its life's */
    struct request *watch_next;
    bool watching; /* device's mutex */
    bool fua_by_flush, gated, exclusive, timed, expired, some_done, finished;
    unsigned piece_count; /* in pieces */
};

void request_submit(struct request *request);

/* Let the time of a request that has a timeout be over now: it ends soon, with
 * TIMED_OUT if it was not ending anyway.  Nothing happens to one that has ended,
 * or is on its way into request_submit(); who must be sure asks again. */
void request_cancel(const struct request *request);

/* A watching request has its answer in value, or its handle is disconnected;
 * device.c's. */
void request_watched(struct request *request);

/* A read from `sector` on, whatever that is, seems to come in a moment. */
void request_foresee(const struct farblk *handle, uint64_t sector);

/* Whether reads of this handle can be lent (struct request.loan). */
bool request_lends(const struct farblk *handle);
/* Whether its driver copies what is not in aligned memory. */
bool request_wants_aligned(const struct farblk *handle);
/* Whether a write's data may be memory that others can change meanwhile. */
bool request_looks_once(const struct farblk *handle);

#endif
