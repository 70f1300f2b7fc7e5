/* SPDX-License-Identifier: ISC */
/*
 * What the server's parts share: limits, lists, counters, the housekeeper.
 *
 *   link events -> connection.c (back-pressure, the pool of calls)
 *     -> dispatch.c (method -> core request or control operation)
 *        -> session.c (who may, at most once, leases), opened.c (handles)
 *     -> core -> call.c (the reply, from whichever thread has it)
 *
 * Lock order is told in server/session.h.
 */
#ifndef FARBLK_SERVER_SERVER_H
#define FARBLK_SERVER_SERVER_H

#include "farblk/server.h"
#include "proto/link.h"
#include "proto/wire.h"

#include <pthread.h>
#include <stdatomic.h>

#define SERVER_SESSION_BUCKETS 256u

struct call;
struct connection;
struct export;
struct opened;
struct session;
struct shm;

/* Fixed at creation. */
struct server_limits {
    uint32_t max_connections, max_sessions, max_requests, max_payload;
    uint32_t max_handles;
    uint64_t max_octets;
    uint32_t lease_ms, hello_timeout_ms, frame_timeout_ms;
    uint32_t ipc_mode, ipc_uid, ipc_gid;
    uint32_t connection_sessions, idle_timeout_ms;
    bool keepalive, insecure;
    bool share_memory;
    uint32_t shm_depth, shm_rings; /* of one session, at most */
    uint64_t shm_arena, shm_total; /* octets: of one session, of all */
};

struct server_listener {
    struct server_listener *next;
    struct link_listener *listener; /* NULL once stopped */
    char *url;
};

struct farblk_server {
    struct server_limits limits;
    struct link_tls *tls; /* for tls+tcp; NULL: none */
    unsigned fork_generation;
    uint8_t instance[WIRE_INSTANCE_SIZE];

    pthread_mutex_t stop_mutex; /* one stop at a time; before all others */
    bool stopped;
    int stop_status;

    pthread_mutex_t mutex; /* from here to the counters */
    pthread_cond_t changed; /* something here became less */
    struct connection *connections; /* until closed() */
    size_t connection_count, most_connections;
    size_t displacing; /* of them: those that are being closed to make room */
    size_t connection_objects; /* until their last reference */
    struct session *sessions[SERVER_SESSION_BUCKETS]; /* until ended */
    size_t session_count, most_sessions;
    size_t session_objects;
    struct export *exports; /* by name; none goes before the stop */
    struct server_listener *listeners, **last_listener;
    struct opened *closing; /* for the housekeeper to close */
    uint32_t next_connection, next_session;
    bool stopping, finished;

    pthread_t keeper;
    bool keeper_runs;
    pthread_cond_t keeper_wake; /* CLOCK_MONOTONIC, as `changed` */
    int64_t tick_ms;

    struct shm *shm; /* NULL: no memory is shared; fixed */

    atomic_bool draining; /* stopping, to be read without the lock */
    atomic_uint_fast64_t busy; /* calls under way */
    atomic_uint_fast64_t octets, handles, accepted, refused, completed;
    atomic_uint_fast64_t damaged; /* writes whose data was */
    atomic_uint_fast64_t displaced;
    atomic_uint_fast64_t most_busy, most_octets;
};

/* What is said of the server in Hello and in logs. */
#define SERVER_NAME "farblkd"

/* `most` is at least `now`. */
static inline void
server_most(atomic_uint_fast64_t *most, uint64_t now)
{
    uint_fast64_t before = atomic_load_explicit(most, memory_order_relaxed);
    while (now > before && !atomic_compare_exchange_weak(most, &before, now))
        ;
}

/* Wake those who wait for something to become less.  No lock held. */
void server_changed(struct farblk_server *server);

#endif
