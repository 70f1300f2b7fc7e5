/* SPDX-License-Identifier: ISC */
/*
 * A call: one request of a peer, from its header's arrival to the end of its
 * reply's sending.  Pooled by connection, so that a steady flow of them
 * allocates nothing.
 *
 * Who owns a call: the link's events until dispatch_frame(); then the core
 * request, or whoever waits for something on its behalf (a drained handle);
 * then call_finish(); then the link, until sent().  A call holds a reference
 * of its connection, and of its session and handle when it has them.
 */
#ifndef FARBLK_SERVER_CALL_H
#define FARBLK_SERVER_CALL_H

#include "core/block.h"
#include "core/request.h"
#include "proto/codec.h"
#include "proto/link.h"

/* Pieces of a lent read without an allocation. */
#define CALL_FEW 16
/* Octets of a reply header without an allocation. */
#define CALL_HEADER 1024
/* What a session may hold unanswered as watches, at most. */
#define CALL_WATCHES 64u

struct connection;
struct farblk_server;
struct kept;
struct opened;
struct session;

struct call {
    struct call *next; /* in a pool, or among those who wait */
    struct farblk_server *server;

    /* The route of the reply: whoever asked last.  Under session.mutex from
     * session_start() to session_finish(). */
    struct connection *connection;
    uint64_t octets; /* charged to the connection */
    uint64_t arrival; /* which of two copies is the newer */
    struct link_message message;

    struct session *session;
    struct opened *opened;
    struct kept *kept; /* its entry; under session.mutex */
    int64_t deadline_ms; /* monotonic; 0: none */
    bool failed; /* request.error says why; it is not executed */
    bool numbered; /* its number was taken in */
    bool skipped; /* a repetition: its payload was thrown away */
    uint64_t epoch; /* of its connection's binding to the session */
    bool laden; /* a payload came behind its header, and may have taken long */
    bool busy; /* counted in server.busy */
    bool active, watch; /* counted in its session */
    bool asks; /* a watch that does not wait */

    struct block *block; /* a write's payload, or a read's own memory */
    struct iovec data; /* inside it; or the answer below */
    struct loan loan;
    struct loan_part *parts; /* few_parts, or allocated */
    struct iovec *iov; /* few_iov, or allocated with parts */
    struct farblk_info info; /* of GET_INFO, for several methods */
    struct farblk_extent *extents;
    struct codec_device *devices;
    size_t device_count;
    bool more_devices;
    uint64_t charged; /* to the memory limit, for these and large_header */
    uint8_t token[WIRE_TOKEN_SIZE]; /* of ShareMemory */

    uint8_t *large_header; /* NULL: small_header */
    struct codec_request ask;
    struct request request; /* core's; error and value are the outcome of
                                  control operations, too */
    struct loan_part few_parts[CALL_FEW];
    struct iovec few_iov[CALL_FEW];
    uint8_t small_header[CALL_HEADER];
};

/* Make a call of the pool, or new memory, ready for a message. */
void call_init(struct call *call, struct connection *connection,
               const struct link_head *head);

/* The request will not be executed; its reply says why. */
void call_fail(struct call *call, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Room for a lent read of `length` octets, or the call's own memory for it.
 * False, and failed, without memory. */
bool call_lend(struct call *call, uint64_t length);
bool call_allocate(struct call *call, uint32_t length);

/* Memory of the call's that is no block: `octets` for the answer, and what the
 * header of its reply may take.  Counted until the call ends.  NULL, and failed,
 * without memory. */
void *call_answer(struct call *call, uint64_t octets);

/* The outcome is in request.error and request.value: keep what is to be kept,
 * reply, and free the call when that has gone out.  Any thread, no lock held;
 * the call is not the caller's any more. */
void call_finish(struct call *call);

/* The same without a reply, for a call that was not begun, or whose route
 * another copy has taken over. */
void call_discard(struct call *call);

#endif
