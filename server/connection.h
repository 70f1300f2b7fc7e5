/* SPDX-License-Identifier: ISC */
/*
 * Connections: links that peers opened, what is in flight on each, and which
 * sessions each may speak for.
 *
 * Back-pressure: when requests or octets in flight reach their limit the link
 * is held, and released when they are below again.  Hold is called only at the
 * end of head() (and by a stop, which wants no more), release only while held;
 * between the two no head() comes, so that their order is never in doubt though
 * release is called without the lock.
 */
#ifndef FARBLK_SERVER_CONNECTION_H
#define FARBLK_SERVER_CONNECTION_H

#include "server/access.h"
#include "server/server.h"

#include "proto/link.h"

/* That a connection has shown a session's secret. */
struct binding {
    struct session *session; /* a reference */
    uint64_t epoch; /* the session's of then: void when it has another one now,
                       because another connection has taken it over */
};

struct connection {
    struct farblk_server *server;
    struct connection *next, **prev; /* server.mutex */
    struct link *link;
    atomic_uint refs;
    uint32_t serial;
    bool has_uid;
    uint32_t uid;
    struct access_who who;
    atomic_uint wrong_tokens;
    uint32_t max_requests; /* the server's, or what its link can carry */
    char label[160]; /* "connection 7 (ipc uid 0 pid 55)" */

    struct call *spare; /* what head() took out of the pool */

    pthread_mutex_t mutex;
    uint32_t requests; /* in flight */
    uint64_t octets; /* of data in them */
    bool held, stopping, ended, closing;
    bool displaced; /* changed and counted under server.mutex */
    struct call *pool;
    uint32_t pooled; /* in it and in `spare` */
    /* Changed by its link's events alone, which therefore read it without the
     * mutex. */
    struct binding *bound;
    size_t bound_count, bound_capacity;
    int64_t alone_since_ms; /* without a live session; 0: with one */
    const char *why; /* it is closed by the server; NULL: it is not */
};

/* link_listen()'s accepted(). */
void connection_accepted(void *server, struct link *link);

struct connection *connection_get(struct connection *connection);
void connection_put(struct connection *connection);

/* binding.c */

/* Whether it lets its connection speak for the session. */
bool connection_binds(const struct binding *binding);
/* Let go of the sessions that have ended, or of all.  As connection_session(). */
void connection_unbind(struct connection *connection, bool all);

/* The session of that id whose secret this connection has shown; a reference, or
 * NULL.  *epoch is that of its binding.  During its link's events only. */
struct session *connection_session(struct connection *connection, uint64_t id,
                                   uint64_t *epoch);

/* From now on it may speak for the session, in its epoch of now.  False without
 * memory, or when it has ended. */
bool connection_bind(struct connection *connection, struct session *session,
                     uint64_t *epoch);

/* With the session's mutex: it goes on speaking for it, in this new epoch. */
void connection_rebind(struct connection *connection, struct session *session,
                       uint64_t epoch);

/* The session was taken over: close the connections that spoke for it, as far as
 * they speak for no other. */
void connection_close_void(struct farblk_server *server,
                           const struct session *session);

/* How many live sessions it speaks for. */
size_t connection_session_count(struct connection *connection);

/* The call, whose message begins, will have `octets` of data in flight.  During
 * head() only. */
void connection_charge(struct connection *connection, struct call *call,
                       uint64_t octets);

/* A call has ended: back into the pool, and go on receiving. */
void connection_return(struct connection *connection, struct call *call);

/* A wrong token came by it: after some of them it is closed. */
void connection_wrong_token(struct connection *connection);

/* Hold the link for good. */
void connection_stop(struct connection *connection);

/* Close all: for a stop.  `drain` as in link_close(). */
void connection_close_all(struct farblk_server *server, bool drain);

/* Close those that have been without a live session for too long. */
void connection_tick(struct farblk_server *server, int64_t now_ms);

#endif
