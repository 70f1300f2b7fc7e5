/* SPDX-License-Identifier: ISC */
/*
 * How sessions begin and end: Hello, the lease, fencing.
 */
#include "server/session.h"

#include "core/block.h"
#include "core/log.h"
#include "core/timer.h"
#include "server/call.h"
#include "server/connection.h"
#include "server/opened.h"
#include "server/shm.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* ------------------------------------------------------------ Hello */

static struct session *
lease_create(struct call *call)
{
    struct farblk_server *server = call->server;
    const struct codec_request *ask = &call->ask;
    struct session *session = calloc(1, sizeof *session);
    if (session == NULL) {
        call_fail(call, FARBLK_NO_MEMORY, "Hello: no memory for a session");
        return NULL;
    }
    if (getrandom(&session->id, sizeof session->id, 0)
            != (ssize_t)sizeof session->id
        || getrandom(session->secret, WIRE_SECRET_SIZE, 0)
               != WIRE_SECRET_SIZE) {
        free(session);
        call_fail(call, FARBLK_UNKNOWN,
                  "Hello: the server has no random numbers");
        return NULL;
    }
    block_charge_over(sizeof *session);
    session->server = server;
    session->has_nonce = ask->args.hello.has_nonce;
    memcpy(session->nonce, ask->args.hello.nonce,
           session->has_nonce ? WIRE_NONCE_SIZE : 0);
    session->has_uid = call->connection->has_uid;
    session->who = call->connection->who;
    session->uid = call->connection->uid;
    session->checksums =
        codec_has_feature(&ask->args.hello.features, WIRE_FEATURE_CRC32C);
    session->fences =
        codec_has_feature(&ask->args.hello.features, WIRE_FEATURE_FENCE);
    session->lowest = 1;
    atomic_init(&session->refs, 2); /* the server's table and the call */
    atomic_init(&session->state, SESSION_LIVE);
    atomic_init(&session->heard_ms, timer_now());
    atomic_init(&session->used_ms, timer_now());
    pthread_mutex_init(&session->mutex, NULL);
    return session;
}

/* Nobody has seen it yet. */
static void
lease_free(struct session *session)
{
    pthread_mutex_destroy(&session->mutex);
    free(session);
    block_uncharge(sizeof *session);
}

/* Under server.mutex: a live one of the same client's same Hello. */
static struct session *
lease_find_nonce(struct farblk_server *server, const struct session *wanted)
{
    if (!wanted->has_nonce)
        return NULL;
    for (size_t i = 0; i < SERVER_SESSION_BUCKETS; i++)
        for (struct session *s = server->sessions[i]; s != NULL; s = s->next)
            if (s->has_nonce && session_live(s)
                && memcmp(s->nonce, wanted->nonce, WIRE_NONCE_SIZE) == 0
                && s->has_uid == wanted->has_uid && s->uid == wanted->uid)
                return session_get(s);
    return NULL;
}

/* Under server.mutex. */
static void
lease_insert(struct farblk_server *server, struct session *session)
{
    struct session **bucket;
    for (;; session->id++) {
        bucket = &server->sessions[session->id % SERVER_SESSION_BUCKETS];
        struct session *same = *bucket;
        while (same != NULL && same->id != session->id)
            same = same->next;
        if (same == NULL && session->id != 0)
            break;
    }
    session->serial = ++server->next_session;
    session->next = *bucket;
    *bucket = session;
    server->session_count++;
    server->session_objects++;
    if (server->session_count > server->most_sessions)
        server->most_sessions = server->session_count;
}

/* Fence the session that has no connection and was silent for longest.  False
 * when there is none. */
static bool
lease_make_room(struct farblk_server *server)
{
    struct session *oldest = NULL;
    pthread_mutex_lock(&server->mutex);
    for (size_t i = 0; i < SERVER_SESSION_BUCKETS; i++) {
        for (struct session *s = server->sessions[i]; s != NULL; s = s->next) {
            pthread_mutex_lock(&s->mutex);
            bool orphan = s->bindings == 0 && session_live(s);
            pthread_mutex_unlock(&s->mutex);
            if (orphan
                && (oldest == NULL
                    || atomic_load(&s->heard_ms)
                           < atomic_load(&oldest->heard_ms)))
                oldest = s;
        }
    }
    if (oldest != NULL)
        session_get(oldest);
    pthread_mutex_unlock(&server->mutex);
    if (oldest == NULL)
        return false;
    session_fence(oldest, "makes room for a new one, having no connection",
                  NULL, SESSION_REVOKED);
    session_put(oldest);
    return true;
}

/* Under server.mutex: the sessions that live; what is fenced and waits for its
 * last request is none any more. */
size_t
session_count_live(struct farblk_server *server)
{
    size_t live = 0;
    for (size_t i = 0; i < SERVER_SESSION_BUCKETS; i++)
        for (struct session *s = server->sessions[i]; s != NULL; s = s->next)
            live += session_live(s);
    return live;
}

/* Under server.mutex: what is fenced has no place, but there must be an end. */
static bool
lease_full(struct farblk_server *server)
{
    const size_t most = server->limits.max_sessions;
    return server->session_count >= most
           && (server->session_count >= 2 * most
               || session_count_live(server) >= most);
}

/* The session that this Hello gets: `fresh`, or one that it had before.  NULL:
 * the call has failed. */
static struct session *
lease_choose(struct call *call, struct session *fresh)
{
    struct farblk_server *server = call->server;
    for (bool again = true;; again = false) {
        struct session *session = NULL;
        pthread_mutex_lock(&server->mutex);
        bool stopping = server->stopping;
        bool full = lease_full(server);
        if (!stopping)
            session = lease_find_nonce(server, fresh);
        if (!stopping && session == NULL && !full) {
            lease_insert(server, fresh);
            session = fresh;
        }
        pthread_mutex_unlock(&server->mutex);
        if (session != NULL)
            return session;
        if (stopping) {
            call_fail(call, FARBLK_DISCONNECTED, "Hello: the server stops");
            return NULL;
        }
        if (!again || !lease_make_room(server)) {
            log_warning("%s: refused: there are %u sessions, the limit",
                        call->connection->label, server->limits.max_sessions);
            call_fail(call, FARBLK_BUSY,
                      "Hello: this server has %u sessions, its limit",
                      server->limits.max_sessions);
            return NULL;
        }
    }
}

void
session_hello(struct call *call)
{
    const struct codec_request *ask = &call->ask;
    struct farblk_server *server = call->server;
    if (ask->args.hello.version == 0) {
        call_fail(call, FARBLK_PROTOCOL,
                  "Hello: version 0 of the protocol is none; this server "
                  "speaks %d",
                  WIRE_VERSION);
        return;
    }
    if (connection_session_count(call->connection)
        >= server->limits.connection_sessions) {
        call_fail(call, FARBLK_BUSY,
                  "Hello: this connection has %u sessions, the limit for each",
                  server->limits.connection_sessions);
        return;
    }
    struct session *fresh = lease_create(call);
    if (fresh == NULL)
        return;
    struct session *session = lease_choose(call, fresh);
    if (session != fresh)
        lease_free(fresh);
    if (session == NULL)
        return;
    atomic_store_explicit(&session->heard_ms, timer_now(),
                          memory_order_relaxed);
    if (!connection_bind(call->connection, session, &call->epoch)) {
        call_fail(call, FARBLK_NO_MEMORY, "Hello: no memory for a session");
        session_fence(session, "could not begin", NULL, SESSION_IF_IDLE);
        session_put(session);
        return;
    }
    call->session = session;
    char client[sizeof ask->args.hello.client];
    error_copy_text(client, sizeof client, ask->args.hello.client,
                    strlen(ask->args.hello.client));
    log_info("%s: session %u %s: client \"%s\", lease %u ms",
             call->connection->label, session->serial,
             session == fresh ? "begins" : "goes on", client,
             server->limits.lease_ms);
}

/* ------------------------------------------------------------ the end */

void
session_check(struct session *session)
{
    struct farblk_server *server = session->server;
    pthread_mutex_lock(&session->mutex);
    bool ended = atomic_load(&session->state) == SESSION_FENCED
                 && session->active == 0 && session->handle_count == 0;
    struct call *enders = NULL;
    if (ended) {
        atomic_store(&session->state, SESSION_ENDED);
        enders = session->enders;
        session->enders = NULL;
    }
    pthread_mutex_unlock(&session->mutex);
    if (!ended)
        return;
    pthread_mutex_lock(&server->mutex);
    struct session **link =
        &server->sessions[session->id % SERVER_SESSION_BUCKETS];
    while (*link != session)
        link = &(*link)->next;
    *link = session->next;
    server->session_count--;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->mutex);
    log_info("session %u: ended", session->serial);
    while (enders != NULL) {
        struct call *next = enders->next;
        call_finish(enders);
        enders = next;
    }
    session_put(session);
}

/* Under the mutex.  What is under way tells nothing of the client; those who do
 * not know that are given the benefit of the doubt. */
static bool
lease_is_silent(const struct session *session, int64_t now_ms)
{
    return (session->active == 0 || session->fences)
           && now_ms - atomic_load(&session->heard_ms)
                  >= (int64_t)session->server->limits.lease_ms + TIMER_LAG_MS;
}

/* Under the mutex: whether to fence it now. */
static bool
lease_may_fence(const struct session *session, enum session_when when)
{
    if (!session_live(session))
        return false;
    switch (when) {
    case SESSION_IF_IDLE:
        return session->handle_count == 0 && session->active == 0
               && session->bindings == 0 && session->table.count == 0;
    case SESSION_IF_SILENT:
        return lease_is_silent(session, timer_now());
    case SESSION_IF_UNUSED:
        return session->active == 0
               && timer_now() - atomic_load(&session->used_ms)
                      >= (int64_t)session->server->limits.idle_timeout_ms
                             + TIMER_LAG_MS;
    default:
        return true;
    }
}

void
session_fence(struct session *session, const char *why, struct call *ender,
              enum session_when when)
{
    pthread_mutex_lock(&session->mutex);
    bool late = ender != NULL && atomic_load(&session->state) == SESSION_ENDED;
    bool fence = lease_may_fence(session, when);
    if (fence)
        atomic_store(&session->state, SESSION_FENCED);
    if (ender != NULL && !late) {
        ender->next = session->enders;
        session->enders = ender;
    }
    uint32_t handles = session->handle_count, active = session->active;
    pthread_mutex_unlock(&session->mutex);
    if (late)
        call_finish(ender);
    if (!fence)
        return;
    log_info("session %u: %s; %u handles, %u requests under way",
             session->serial, why, handles, active);
    shm_detach_session(session);
    if (when != SESSION_NOW)
        opened_revoke_all(session);
    opened_close_all(session);
    session_check(session);
}

void
session_heard(struct session *session)
{
    int64_t now_ms = timer_recent();
    int64_t heard_ms =
        atomic_load_explicit(&session->heard_ms, memory_order_relaxed);
    /* The keeper comes by only now and then, and may have stood still together
     * with everything else here: what arrives after the lease renews nothing. */
    if (now_ms - heard_ms >= (int64_t)session->server->limits.lease_ms)
        session_fence(session, "expired: heard too late", NULL,
                      SESSION_IF_SILENT);
    atomic_store_explicit(&session->heard_ms, now_ms, memory_order_relaxed);
}

void
session_unbind(struct session *session)
{
    pthread_mutex_lock(&session->mutex);
    session->bindings--;
    pthread_mutex_unlock(&session->mutex);
    session_fence(session, "its connection is gone, and it held nothing", NULL,
                  SESSION_IF_IDLE);
}

/* A live session, or one that is silent; a reference. */
static struct session *
lease_find(struct farblk_server *server, enum session_when when)
{
    struct session *found = NULL;
    pthread_mutex_lock(&server->mutex);
    for (size_t i = 0; i < SERVER_SESSION_BUCKETS && found == NULL; i++) {
        struct session *s = server->sessions[i];
        for (; s != NULL && found == NULL; s = s->next) {
            pthread_mutex_lock(&s->mutex);
            if (lease_may_fence(s, when))
                found = session_get(s);
            pthread_mutex_unlock(&s->mutex);
        }
    }
    pthread_mutex_unlock(&server->mutex);
    return found;
}

static void
lease_fence_each(struct farblk_server *server, enum session_when when,
                 const char *why)
{
    struct session *session;
    while ((session = lease_find(server, when)) != NULL) {
        session_fence(session, why, NULL, when);
        session_put(session);
    }
}

void
session_fence_all(struct farblk_server *server, const char *why)
{
    lease_fence_each(server, SESSION_NOW, why);
}

void
session_tick(struct farblk_server *server)
{
    lease_fence_each(server, SESSION_IF_SILENT,
                     "expired: nothing was heard for the lease");
    if (server->limits.idle_timeout_ms != 0)
        lease_fence_each(server, SESSION_IF_UNUSED,
                         "idle: nothing was asked for the idle timeout");
}
