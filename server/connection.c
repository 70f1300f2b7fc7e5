/* SPDX-License-Identifier: ISC */
/*
 * Connections: accepting, counting, back-pressure, ending.
 */
#include "server/connection.h"

#include "core/block.h"
#include "core/log.h"
#include "core/timer.h"
#include "server/call.h"
#include "server/dispatch.h"
#include "server/session.h"
#include "server/shm.h"

#include <stdio.h>
#include <stdlib.h>

/* Calls that a connection keeps for later. */
#define CONNECTION_POOL 64u

struct connection *
connection_get(struct connection *connection)
{
    atomic_fetch_add_explicit(&connection->refs, 1, memory_order_relaxed);
    return connection;
}

static void
connection_free_calls(struct call *call)
{
    while (call != NULL) {
        struct call *next = call->next;
        free(call);
        block_uncharge(sizeof *call);
        call = next;
    }
}

void
connection_put(struct connection *connection)
{
    struct farblk_server *server = connection->server;
    if (atomic_fetch_sub_explicit(&connection->refs, 1, memory_order_acq_rel)
        != 1)
        return;
    link_put(connection->link);
    connection_free_calls(connection->pool);
    connection_free_calls(connection->spare);
    free(connection->bound);
    pthread_mutex_destroy(&connection->mutex);
    free(connection);
    block_uncharge(sizeof *connection);
    pthread_mutex_lock(&server->mutex);
    server->connection_objects--;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->mutex);
}

/* ------------------------------------------------------------ in flight */

/* A call for the message that begins, *pooled when it is not new.  Whatever is
 * in the pool is taken at once, so that not each message needs the mutex. */
static struct call *
connection_take(struct connection *connection, bool *pooled)
{
    if (connection->spare == NULL) {
        pthread_mutex_lock(&connection->mutex);
        connection->spare = connection->pool;
        connection->pool = NULL;
        pthread_mutex_unlock(&connection->mutex);
    }
    struct call *call = connection->spare;
    *pooled = call != NULL;
    if (call == NULL) {
        call = malloc(sizeof *call);
        if (call != NULL)
            block_charge_over(sizeof *call);
        return call;
    }
    connection->spare = call->next;
    return call;
}

void
connection_charge(struct connection *connection, struct call *call,
                  uint64_t octets)
{
    call->octets += octets;
    server_most(&connection->server->most_octets,
                octets
                    + atomic_fetch_add_explicit(&connection->server->octets,
                                                octets, memory_order_relaxed));
}

/* The last thing in head(): the call is in flight.  No more for now, if this
 * is enough. */
static void
connection_count(struct connection *connection, struct call *call, bool pooled)
{
    const struct server_limits *limits = &connection->server->limits;
    pthread_mutex_lock(&connection->mutex);
    connection->pooled -= pooled;
    connection->requests++;
    connection->octets += call->octets;
    call->message.eager = connection->requests == 1;
    bool full = connection->requests >= connection->max_requests
                || connection->octets >= limits->max_octets;
    if (connection->stopping || (full && !connection->held)) {
        connection->held = true;
        link_hold(connection->link);
    }
    pthread_mutex_unlock(&connection->mutex);
}

void
connection_return(struct connection *connection, struct call *call)
{
    const struct server_limits *limits = &connection->server->limits;
    uint64_t octets = call->octets;
    /* A little below the limit, so that a full window does not mean one hold
     * and one release for each request. */
    uint32_t few = connection->max_requests - connection->max_requests / 8;
    atomic_fetch_sub_explicit(&connection->server->octets, octets,
                              memory_order_relaxed);
    pthread_mutex_lock(&connection->mutex);
    connection->requests--;
    connection->octets -= octets;
    if (connection->pooled < CONNECTION_POOL) {
        call->next = connection->pool;
        connection->pool = call;
        connection->pooled++;
        call = NULL;
    }
    bool release = connection->held && !connection->stopping
                   && connection->requests < few
                   && connection->octets < limits->max_octets;
    if (release)
        connection->held = false;
    pthread_mutex_unlock(&connection->mutex);
    if (call != NULL) {
        free(call);
        block_uncharge(sizeof *call);
    }
    if (release)
        link_release(connection->link);
    connection_put(connection);
}

void
connection_stop(struct connection *connection)
{
    pthread_mutex_lock(&connection->mutex);
    connection->stopping = true;
    if (!connection->held) {
        connection->held = true;
        link_hold(connection->link);
    }
    pthread_mutex_unlock(&connection->mutex);
}

/* ------------------------------------------------------------ link events */

static bool
connection_head(void *arg, const struct link_head *head, struct link_sink *sink)
{
    struct connection *connection = arg;
    bool pooled;
    struct call *call = connection_take(connection, &pooled);
    if (call == NULL) {
        pthread_mutex_lock(&connection->mutex);
        connection->why = "no memory for a request";
        pthread_mutex_unlock(&connection->mutex);
        return false;
    }
    call_init(call, connection, head);
    *sink = (struct link_sink){.frame = call};
    dispatch_head(call, head, sink);
    connection_count(connection, call, pooled);
    return true;
}

static void
connection_frame(void *arg, void *frame)
{
    (void)arg;
    dispatch_frame(frame);
}

static void
connection_drop(void *arg, void *frame)
{
    (void)arg;
    call_discard(frame);
}

static void
connection_closed(void *arg, int status, const char *reason)
{
    struct connection *connection = arg;
    struct farblk_server *server = connection->server;
    pthread_mutex_lock(&connection->mutex);
    connection->ended = true;
    const char *why = connection->why;
    pthread_mutex_unlock(&connection->mutex);
    if (why == NULL && reason != NULL && reason[0] != '\0')
        why = reason;
    log_line(status == FARBLK_PROTOCOL ? FARBLK_LOG_WARNING : FARBLK_LOG_INFO,
             "%s: closed: %s", connection->label,
             why != NULL ? why : "by this server");
    shm_detach_connection(connection);
    connection_unbind(connection, true);
    pthread_mutex_lock(&server->mutex);
    *connection->prev = connection->next;
    if (connection->next != NULL)
        connection->next->prev = connection->prev;
    server->connection_count--;
    server->displacing -= connection->displaced;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->mutex);
    connection_put(connection);
}

static const struct link_events connection_events = {
    .head = connection_head,
    .frame = connection_frame,
    .drop = connection_drop,
    .closed = connection_closed,
};

/* ------------------------------------------------------------ coming, going */

static bool
connection_is_of(const struct connection *connection,
                 const struct link_peer *peer)
{
    return connection->has_uid == peer->has_uid && connection->uid == peer->uid
           && !connection->displaced;
}

/* Whether a user who has `same` of `count` places in use may have another one.
 * Of the last sixteenth he gets one only while he has fewer than are free:
 * however many there are who take all that they can get, each new one still finds
 * some. */
static bool
connection_has_share(size_t max, size_t count, size_t same)
{
    return count < max && (count < max - max / 16 || same < max - count);
}

/* Under server.mutex: why there is no room for the peer, or NULL.  All those
 * whose transport tells no uid are one user. */
static const char *
connection_refusal(const struct farblk_server *server,
                   const struct link_peer *peer)
{
    size_t max = server->limits.max_connections, same = 0;
    size_t count = server->connection_count - server->displacing;
    if (server->stopping)
        return "the server stops";
    if (count >= max)
        return "too many connections";
    if (count < max - max / 16)
        return NULL;
    for (struct connection *c = server->connections; c != NULL; c = c->next)
        same += connection_is_of(c, peer);
    return connection_has_share(max, count, same)
               ? NULL
               : "too many connections of one user";
}

/* Under server.mutex: close this one for another, if it has no session still. */
static struct connection *
connection_give_way(struct connection *connection)
{
    pthread_mutex_lock(&connection->mutex);
    bool silent = !connection->closing && connection->bound_capacity == 0;
    if (silent) {
        connection->closing = connection->displaced = true;
        connection->why = "it had no session, and another one wants its place";
        connection->server->displacing++;
    }
    pthread_mutex_unlock(&connection->mutex);
    return silent ? connection_get(connection) : NULL;
}

/*
 * Under server.mutex: there is no room; choose whom to close for the peer, or
 * NULL.  A reference.
 *
 * It is the one that has been without any session for longest.  Who says Hello
 * at once is hardly ever among the oldest of them; so whoever opens connections
 * and says nothing, as often as he likes and as any user, keeps nobody out.  But
 * who would be above his share though all others' silent ones were gone takes
 * the place of his own alone.
 */
static struct connection *
connection_displace(struct farblk_server *server, const struct link_peer *peer)
{
    struct connection *oldest = NULL, *own = NULL;
    size_t max = server->limits.max_connections, same = 0, others = 0;
    /* Those on their way out count for something, too. */
    if (server->stopping || server->displacing > max / 4)
        return NULL;
    /* The list begins with the newest. */
    for (struct connection *c = server->connections; c != NULL; c = c->next) {
        bool is_own = connection_is_of(c, peer);
        pthread_mutex_lock(&c->mutex);
        bool silent = !c->closing && c->bound_capacity == 0;
        pthread_mutex_unlock(&c->mutex);
        same += is_own;
        others += !is_own && !c->displaced && !silent;
        if (silent)
            oldest = c;
        if (silent && is_own)
            own = c;
    }
    if (!connection_has_share(max, others + same, same))
        oldest = own;
    return oldest != NULL ? connection_give_way(oldest) : NULL;
}

static struct connection *
connection_create(struct farblk_server *server, struct link *link)
{
    const struct link_peer *peer = link_peer(link);
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL)
        return NULL;
    block_charge_over(sizeof *connection);
    connection->server = server;
    connection->link = link;
    atomic_init(&connection->refs, 1);
    connection->has_uid = peer->has_uid;
    connection->uid = peer->uid;
    connection->who = access_who_is(peer);
    connection->max_requests = server->limits.max_requests;
    if (peer->max_requests > 0 && peer->max_requests < connection->max_requests)
        connection->max_requests = peer->max_requests;
    connection->alone_since_ms = timer_now();
    pthread_mutex_init(&connection->mutex, NULL);
    return connection;
}

void
connection_accepted(void *arg, struct link *link)
{
    struct farblk_server *server = arg;
    const struct link_peer *peer = link_peer(link);
    struct connection *connection = connection_create(server, link);
    struct connection *displaced = NULL;
    const char *refusal = "no memory";
    if (connection != NULL) {
        pthread_mutex_lock(&server->mutex);
        refusal = connection_refusal(server, peer);
        if (refusal != NULL) {
            displaced = connection_displace(server, peer);
            if (displaced != NULL)
                refusal = NULL;
        }
        if (refusal == NULL) {
            connection->serial = ++server->next_connection;
            connection->next = server->connections;
            connection->prev = &server->connections;
            if (connection->next != NULL)
                connection->next->prev = &connection->next;
            server->connections = connection;
            server->connection_count++;
            server->connection_objects++;
            size_t count = server->connection_count - server->displacing;
            if (count > server->most_connections)
                server->most_connections = count;
        }
        pthread_mutex_unlock(&server->mutex);
    }
    if (displaced != NULL) {
        atomic_fetch_add(&server->displaced, 1);
        link_close(displaced->link, false);
        connection_put(displaced);
    }
    if (refusal != NULL) {
        atomic_fetch_add(&server->refused, 1);
        log_warning("connection refused (%s): %s", peer->text, refusal);
        link_close(link, false);
        link_put(link);
        if (connection != NULL) {
            pthread_mutex_destroy(&connection->mutex);
            free(connection);
            block_uncharge(sizeof *connection);
        }
        return;
    }
    atomic_fetch_add(&server->accepted, 1);
    snprintf(connection->label, sizeof connection->label, "connection %u (%s)",
             connection->serial, peer->text);
    log_info("%s: opened", connection->label);
    link_start(link, &connection_events, connection);
}

void
connection_close_all(struct farblk_server *server, bool drain)
{
    for (;;) {
        struct connection *found = NULL;
        pthread_mutex_lock(&server->mutex);
        for (struct connection *c = server->connections; c != NULL;
             c = c->next) {
            pthread_mutex_lock(&c->mutex);
            if (!c->closing) {
                c->closing = true;
                c->why = "the server stops";
                found = connection_get(c);
            }
            pthread_mutex_unlock(&c->mutex);
            if (found != NULL)
                break;
        }
        pthread_mutex_unlock(&server->mutex);
        if (found == NULL)
            return;
        link_close(found->link, drain);
        connection_put(found);
    }
}

void
connection_wrong_token(struct connection *connection)
{
    if (atomic_fetch_add(&connection->wrong_tokens, 1) + 1
        < ACCESS_TOKENS_WRONG)
        return;
    pthread_mutex_lock(&connection->mutex);
    bool closes = !connection->closing;
    connection->closing = true;
    if (closes)
        connection->why = "too many wrong tokens";
    pthread_mutex_unlock(&connection->mutex);
    if (closes)
        link_close(connection->link, true);
}

/* Under both mutexes: whether it has been alone for too long. */
static bool
connection_overdue(struct connection *connection, int64_t now_ms)
{
    bool alone = true;
    for (size_t i = 0; i < connection->bound_count; i++)
        alone = alone && !connection_binds(&connection->bound[i]);
    if (!alone)
        connection->alone_since_ms = 0;
    else if (connection->alone_since_ms == 0)
        connection->alone_since_ms = now_ms;
    return alone && !connection->closing
           && now_ms - connection->alone_since_ms
                  >= connection->server->limits.hello_timeout_ms;
}

void
connection_tick(struct farblk_server *server, int64_t now_ms)
{
    for (;;) {
        struct connection *found = NULL;
        pthread_mutex_lock(&server->mutex);
        for (struct connection *c = server->connections; c != NULL;
             c = c->next) {
            pthread_mutex_lock(&c->mutex);
            if (connection_overdue(c, now_ms)) {
                c->closing = true;
                c->why = c->bound_capacity == 0
                             ? "no Hello in time"
                             : "none of its sessions is alive";
                found = connection_get(c);
            }
            pthread_mutex_unlock(&c->mutex);
            if (found != NULL)
                break;
        }
        pthread_mutex_unlock(&server->mutex);
        if (found == NULL)
            return;
        link_close(found->link, false);
        connection_put(found);
    }
}
