/* SPDX-License-Identifier: ISC */
/*
 * Sessions: who may ask, at most once, and for how long.
 *
 * A session begins with Hello and is LIVE.  It is FENCED when its client ends
 * it, when nothing of it was heard for the lease, or when the server stops: from
 * then on none of its requests starts, and its handles are disconnected; unless
 * it was its client's wish or the server's stop, what waits inside core is not
 * begun any more either.  When the last request and the last handle are gone it
 * has ENDED and leaves the server's table; until then it counts for nothing.
 * Its memory stays while a connection or a call refers to it.
 *
 * Locks, in their order; no lock is held while a link sends, a core request is
 * submitted, a handle is disconnected or closed, or a line is logged:
 *
 *   server.stop_mutex   one stop at a time
 *   server.mutex        lists of connections, sessions, exports, listeners
 *   session.mutex       its table of requests, its handles, its counts, and
 *                       the routes of its calls
 *   connection.mutex    what is in flight on it, the sessions it speaks for
 *
 * head(), frame(), drop() and closed() of one link never run at the same time,
 * but done(), sent() and drained() run on any thread, also inside them.
 */
#ifndef FARBLK_SERVER_SESSION_H
#define FARBLK_SERVER_SESSION_H

#include "server/access.h"
#include "proto/ring.h"
#include "server/kept.h"
#include "server/server.h"

#define SESSION_HANDLE_BUCKETS 64u

enum session_state {
    SESSION_LIVE,
    SESSION_FENCED,
    SESSION_ENDED,
};

struct session {
    struct farblk_server *server;
    struct session *next; /* server.mutex */
    atomic_uint refs;

    /* Fixed. */
    uint64_t id;
    uint32_t serial; /* for the log, and in its handles' numbers */
    uint8_t secret[WIRE_SECRET_SIZE];
    bool has_nonce, has_uid;
    uint8_t nonce[WIRE_NONCE_SIZE];
    uint32_t uid;
    struct access_who who; /* by the connection of its Hello */
    bool checksums; /* of each payload, both ways */
    bool fences; /* the client has the feature: its lease passes also while
                    something of it is under way */

    atomic_int state; /* changes under the mutex */
    atomic_int_fast64_t heard_ms; /* by timer_recent() */
    atomic_int_fast64_t used_ms; /* the same, of other requests than Ping; only
                                    with an idle timeout */

    /* How often a connection has taken it over.  Nothing begins that came by a
     * connection of an earlier epoch.  Changes under the mutex. */
    atomic_uint_fast64_t epoch;

    /* Requests that have started and not ended.  Grows under the mutex, while
     * the session is live. */
    atomic_uint active;

    pthread_mutex_t mutex;
    uint64_t lowest; /* every number below it was answered */
    uint64_t taken_over; /* the number of the last Ping that did */
    uint64_t arrivals; /* messages so far */
    struct kept_table table;
    struct opened *opened[SESSION_HANDLE_BUCKETS];
    uint32_t handle_count; /* those being opened and closed included */
    uint32_t last_handle; /* counted from 1 */
    uint32_t watches; /* of those that are active */
    uint32_t bindings; /* connections */
    struct call *enders; /* Disconnects of the session that wait */
    struct share *share; /* shm.mutex; NULL: no memory is shared */
};

/* What session_start() decided. */
enum session_verdict {
    SESSION_START, /* execute it */
    SESSION_ATTACHED, /* a running copy will reply instead */
    SESSION_PARKED, /* it is answered when what runs in a ring ends; the call
                       is not the caller's any more */
    SESSION_REPEATED, /* the outcome of the first execution is filled in */
    SESSION_REFUSED, /* the call has failed */
};

struct session *session_get(struct session *session);
void session_put(struct session *session);

/* Hello: begin a session or find the one of the same nonce, and bind the
 * call's connection to it.  Fails the call when it can not. */
void session_hello(struct call *call);

/* During head(): find the session that the call names, check that its
 * connection may speak for it, and take number and lowest.  Sets call->session,
 * call->opened if it names a handle, call->skipped.  Starts it, too, if it has
 * no payload and is not kept for repetitions.  False: the call has failed. */
bool session_admit(struct call *call);

/* In frame(): whether to execute the call, at most once. */
enum session_verdict session_start(struct call *call);

/*
 * The same for a submission of a ring, which changes the device: `lowest` is
 * taken in, and *kept is its entry for session_ring_finish().  REPEATED: *error
 * and *value are the outcome of the first execution; REFUSED: *error says why.
 */
enum session_verdict
session_ring_start(struct session *session,
                   const struct ring_submission *submission, struct kept **kept,
                   struct error *error, uint64_t *value);
void session_ring_finish(struct session *session, struct kept *kept,
                         const struct error *error, uint64_t value);
/* Something of it has come by a ring. */
void session_ring_heard(struct session *session);

/* Cancel: see to it that the request which the call names is not begun any more.
 * The call's value is 1 when it has not been and will not be; or the call has
 * failed. */
void session_cancel(struct call *call);

/* The call has failed before it was begun: keep that, too, as the outcome of its
 * number, so that no copy on its way is executed after the refusal. */
void session_refuse(struct call *call);

/* The call's outcome is known.  Keeps it; the route is fixed now. */
void session_finish(struct call *call);

/* The reply of a call that was active is on its way: what waits for the last
 * one may go on. */
void session_leave(struct session *session);

/* End it when it is fenced and nothing of it is left. */
void session_check(struct session *session);

/* When to fence a session. */
enum session_when {
    SESSION_NOW, /* and what has come of it is executed */
    SESSION_REVOKED, /* now; here and below, what is not begun is not */
    SESSION_IF_IDLE, /* it holds nothing, and no connection speaks for it */
    SESSION_IF_SILENT, /* for the lease */
    SESSION_IF_UNUSED, /* for the idle timeout */
};

/* Let nothing more of it start.  `why` goes to the log.  `ender`, if there is
 * one, is finished when it has ended. */
void session_fence(struct session *session, const char *why, struct call *ender,
                   enum session_when when);
void session_fence_all(struct farblk_server *server, const char *why);

/* Something of it has arrived: the lease counts anew, unless it was over. */
void session_heard(struct session *session);

/* A connection that spoke for it has gone. */
void session_unbind(struct session *session);

/* Watches that may wait, of a session: never so many that nothing else could be
 * asked beside them on this connection. */
uint32_t session_watches_max(const struct connection *connection);

/* The call, if it is no Ping, counts as use of its session until now. */
void session_used(const struct call *call);

/* Under server.mutex: how many live. */
size_t session_count_live(struct farblk_server *server);

/* Fence what was silent, and idle, for the lease; or unused for too long. */
void session_tick(struct farblk_server *server);

static inline uint64_t
session_epoch(const struct session *session)
{
    return atomic_load_explicit(&session->epoch, memory_order_relaxed);
}

static inline bool
session_live(const struct session *session)
{
    return atomic_load_explicit(&session->state, memory_order_relaxed)
           == SESSION_LIVE;
}

#endif
