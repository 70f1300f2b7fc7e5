/* SPDX-License-Identifier: ISC */
/*
 * The life of a server: its creation, its listeners, its housekeeper, its end.
 *
 * The housekeeper is the one thread of the server's own.  It looks now and then
 * after leases and silent connections, and it closes handles, for that may wait
 * for somebody who opens a device.  Everything else happens on nng's threads
 * and those of the drivers.
 */
#include "server/server.h"

#include "core/block.h"
#include "core/checked.h"
#include "core/device.h"
#include "core/log.h"
#include "core/timer.h"
#include "server/access.h"
#include "server/connection.h"
#include "server/export.h"
#include "server/opened.h"
#include "server/session.h"
#include "server/shm.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

void
server_changed(struct farblk_server *server)
{
    pthread_mutex_lock(&server->mutex);
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->mutex);
}

/* Under the mutex.  until_ms < 0: no limit.  False when the time has passed. */
static bool
server_wait(struct farblk_server *server, pthread_cond_t *cond,
            int64_t until_ms)
{
    if (until_ms < 0) {
        pthread_cond_wait(cond, &server->mutex);
        return true;
    }
    struct timespec until = {
        .tv_sec = (time_t)(until_ms / 1000),
        .tv_nsec = (long)(until_ms % 1000) * 1000000,
    };
    pthread_cond_timedwait(cond, &server->mutex, &until);
    return timer_now() < until_ms;
}

/* Shared memory of one session. */
#define SERVER_ARENA (UINT64_C(16) << 20)
#define SERVER_ARENA_MAX (UINT64_C(1) << 30)
#define SERVER_RING_DEPTH 128u
#define SERVER_RINGS 16u

/* ------------------------------------------------------------ housekeeping */

static void *
server_keep(void *arg)
{
    struct farblk_server *server = arg;
    int64_t next_ms = timer_now() + server->tick_ms;
    pthread_mutex_lock(&server->mutex);
    for (;;) {
        struct opened *closing = server->closing;
        server->closing = NULL;
        if (closing == NULL && server->finished)
            break;
        int64_t now_ms = timer_now();
        if (closing == NULL && now_ms < next_ms) {
            server_wait(server, &server->keeper_wake, next_ms);
            continue;
        }
        pthread_mutex_unlock(&server->mutex);
        while (closing != NULL) {
            struct opened *next = closing->next;
            opened_free(closing);
            closing = next;
        }
        if (now_ms >= next_ms) {
            session_tick(server);
            connection_tick(server, now_ms);
            next_ms = now_ms + server->tick_ms;
        }
        pthread_mutex_lock(&server->mutex);
    }
    pthread_mutex_unlock(&server->mutex);
    return NULL;
}

/* The library takes no signals: they are the program's. */
static bool
server_start_keeper(struct farblk_server *server)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    server->keeper_runs =
        pthread_create(&server->keeper, NULL, server_keep, server) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return server->keeper_runs;
}

/* ------------------------------------------------------------ creation */

static uint32_t
server_or(uint32_t value, uint32_t otherwise)
{
    return value != 0 ? value : otherwise;
}

/* Octets of options that have more than the first version's: there was padding
 * behind ipc_mode. */
#define SERVER_OPTIONS_GROWN                                                   \
    (offsetof(struct farblk_server_options, tls_cert) + 1)

/* Certificates and keys, if any are told. */
static int
server_read_tls(const struct farblk_server_options *options,
                struct link_tls **tls, struct error *error)
{
    const struct link_tls_options wanted = {
        .server = true,
        .ca = options->tls_ca,
        .cert = options->tls_cert,
        .key = options->tls_key,
        .verify_clients = options->tls_verify_clients != 0,
    };
    *tls = NULL;
    if (options->tls_cert == NULL && options->tls_key == NULL
        && options->tls_ca == NULL && !wanted.verify_clients)
        return 0;
    return link_tls_create(&wanted, tls, error);
}

static int
server_read_options(const struct farblk_server_options *given,
                    struct farblk_server_options *options, struct error *error)
{
    memset(options, 0, sizeof *options);
    if (given != NULL) {
        /* Programs of the first version end with ipc_mode. */
        const size_t least =
            offsetof(struct farblk_server_options, tls_verify_clients);
        if (given->size < least)
            return error_set(error, FARBLK_INVALID,
                             "options of %zu octets, wanted at least %zu",
                             given->size, least);
        const unsigned char *octets = (const unsigned char *)given;
        for (size_t i = sizeof *given; i < given->size; i++)
            if (octets[i] != 0)
                return error_set(error, FARBLK_INVALID,
                                 "options that this library does not know");
        memcpy(options, given,
               given->size < SERVER_OPTIONS_GROWN ? least
               : given->size < sizeof *given      ? given->size
                                                  : sizeof *given);
    }
    uint32_t payload = options->max_payload;
    if (payload != 0
        && (payload < FARBLK_SECTOR_MIN || payload > WIRE_PAYLOAD_CEILING))
        return error_set(error, FARBLK_INVALID,
                         "max_payload %u is not within %u ... %u", payload,
                         FARBLK_SECTOR_MIN, WIRE_PAYLOAD_CEILING);
    if (options->max_requests > WIRE_WINDOW / 2)
        return error_set(error, FARBLK_INVALID,
                         "max_requests %u is more than %u",
                         options->max_requests, WIRE_WINDOW / 2);
    if (options->shm_arena != 0
        && (options->shm_arena < RING_PAGE
            || options->shm_arena > SERVER_ARENA_MAX))
        return error_set(error, FARBLK_INVALID,
                         "shm_arena %llu is not within %u ... %llu",
                         (unsigned long long)options->shm_arena, RING_PAGE,
                         (unsigned long long)SERVER_ARENA_MAX);
    if (options->ipc_mode > 0777)
        return error_set(error, FARBLK_INVALID, "ipc_mode %o is not within 777",
                         options->ipc_mode);
    return 0;
}

static void
server_set_limits(struct farblk_server *server,
                  const struct farblk_server_options *options)
{
    struct server_limits *limits = &server->limits;
    limits->max_connections = server_or(options->max_connections, 100);
    limits->max_sessions = server_or(options->max_sessions, 1024);
    limits->max_requests = server_or(options->max_requests, 256);
    limits->max_payload = server_or(options->max_payload, 4u << 20);
    limits->max_handles = server_or(options->max_handles, 64);
    limits->max_octets =
        options->max_octets != 0 ? options->max_octets : UINT64_C(64) << 20;
    if (limits->max_octets < limits->max_payload)
        limits->max_octets = limits->max_payload;
    limits->lease_ms = server_or(options->lease_ms, 30000);
    limits->hello_timeout_ms = server_or(options->hello_timeout_ms, 10000);
    limits->frame_timeout_ms = server_or(options->frame_timeout_ms, 30000);
    limits->ipc_mode = server_or(options->ipc_mode, 0600);
    limits->connection_sessions =
        server_or(options->connection_sessions,
                  (uint32_t)max_u64(limits->max_sessions / 8, 8));
    limits->idle_timeout_ms = options->idle_timeout_ms;
    limits->keepalive = options->no_keepalive == 0;
    limits->ipc_uid = options->ipc_uid;
    limits->ipc_gid = options->ipc_gid;
    limits->insecure = options->insecure != 0;
    limits->share_memory = options->no_shm == 0;
    limits->shm_depth = SERVER_RING_DEPTH;
    limits->shm_rings = SERVER_RINGS;
    limits->shm_arena =
        options->shm_arena != 0 ? options->shm_arena : SERVER_ARENA;
    server->tick_ms = 1000;
    if (server->tick_ms > limits->lease_ms / 4)
        server->tick_ms = limits->lease_ms / 4;
    if (server->tick_ms > limits->hello_timeout_ms / 4)
        server->tick_ms = limits->hello_timeout_ms / 4;
    if (limits->idle_timeout_ms != 0
        && server->tick_ms > limits->idle_timeout_ms / 4)
        server->tick_ms = limits->idle_timeout_ms / 4;
    if (server->tick_ms < 10)
        server->tick_ms = 10;
}

static void
server_set_memory_limit(uint64_t limit)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    if (limit == 0 && block_limit() == UINT64_MAX && pages > 0 && size > 0)
        limit = (uint64_t)pages / 2 * (uint64_t)size;
    if (limit != 0)
        block_set_limit(limit);
}

static void
server_free(struct farblk_server *server)
{
    shm_destroy(server->shm);
    while (server->listeners != NULL) {
        struct server_listener *listener = server->listeners;
        server->listeners = listener->next;
        free(listener->url);
        free(listener);
    }
    link_tls_put(server->tls);
    pthread_cond_destroy(&server->changed);
    pthread_cond_destroy(&server->keeper_wake);
    pthread_mutex_destroy(&server->mutex);
    pthread_mutex_destroy(&server->stop_mutex);
    free(server);
}

int
farblk_server_create(const struct farblk_server_options *given,
                     struct farblk_server **server_out)
{
    struct farblk_server_options options;
    struct error error;
    error_clear(&error);
    if (server_out == NULL)
        return last_error_fail(FARBLK_INVALID, "server_create: no result");
    *server_out = NULL;
    struct link_tls *tls;
    if (server_read_options(given, &options, &error) != 0
        || server_read_tls(&options, &tls, &error) != 0)
        return last_error_set(&error);
    struct farblk_server *server = calloc(1, sizeof *server);
    if (server == NULL) {
        link_tls_put(tls);
        return last_error_fail(FARBLK_NO_MEMORY, "server_create: no memory");
    }
    server->tls = tls;
    server->fork_generation = fork_generation();
    server->last_listener = &server->listeners;
    server_set_limits(server, &options);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&server->changed, &attributes);
    pthread_cond_init(&server->keeper_wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&server->mutex, NULL);
    pthread_mutex_init(&server->stop_mutex, NULL);
    if (getrandom(server->instance, sizeof server->instance, 0)
            != (ssize_t)sizeof server->instance
        || (server->limits.share_memory && shm_create(server, &error) != 0)
        || !server_start_keeper(server)) {
        server_free(server);
        return last_error_fail(FARBLK_NO_MEMORY,
                               "server_create: no thread or random numbers");
    }
    server_set_memory_limit(options.memory_limit);
    server->limits.shm_total =
        options.shm_total != 0 ? options.shm_total : block_limit() / 4;
    *server_out = server;
    last_error_clear();
    return 0;
}

/* ------------------------------------------------------------ the API */

/* 0 when the server may be used by this process. */
static int
server_check(const struct farblk_server *server, const char *call)
{
    if (server == NULL)
        return last_error_fail(FARBLK_INVALID, "%s: no server", call);
    if (server->fork_generation != fork_generation())
        return last_error_fail(FARBLK_INVALID,
                               "%s: the server belongs to the process that "
                               "this one was forked from",
                               call);
    return 0;
}

int
farblk_server_export(struct farblk_server *server, const char *name,
                     const char *uri)
{
    return farblk_server_export_for(server, name, uri, NULL);
}

int
farblk_server_export_for(struct farblk_server *server, const char *name,
                         const char *uri,
                         const struct farblk_export_options *options)
{
    struct error error;
    error_clear(&error);
    int status = server_check(server, "server_export");
    if (status != 0)
        return status;
    if (name == NULL || uri == NULL)
        return last_error_fail(FARBLK_INVALID, "server_export: no name or URI");
    if (options != NULL && options->size < sizeof *options)
        return last_error_fail(FARBLK_INVALID,
                               "server_export: options of %zu octets, wanted "
                               "at least %zu",
                               options->size, sizeof *options);
    /* What it asks for must not be left out unseen. */
    for (size_t i = sizeof *options; options != NULL && i < options->size; i++)
        if (((const unsigned char *)options)[i] != 0)
            return last_error_fail(FARBLK_INVALID,
                                   "server_export: options that this library "
                                   "does not know");
    export_add(server, name, uri, options, &error);
    return last_error_set(&error);
}

static int32_t
server_ms(uint32_t ms)
{
    return ms < INT32_MAX ? (int32_t)ms : INT32_MAX;
}

int
farblk_server_listen(struct farblk_server *server, const char *url)
{
    struct error error;
    error_clear(&error);
    int status = server_check(server, "server_listen");
    if (status != 0)
        return status;
    if (url == NULL)
        return last_error_fail(FARBLK_INVALID, "server_listen: no URL");
    if (!server->limits.insecure && access_check_url(url, &error) != 0)
        return last_error_set(&error);
    const struct server_limits *limits = &server->limits;
    struct link_listener_options options = {
        /* A payload above max_payload gets an error, not a closed door. */
        .limits.max_payload = WIRE_PAYLOAD_CEILING,
        .limits.greeting_ms = server_ms(limits->hello_timeout_ms),
        .limits.frame_ms = server_ms(limits->frame_timeout_ms),
        .limits.keepalive = limits->keepalive,
        .ipc_mode = limits->ipc_mode,
        .ipc_uid = limits->ipc_uid,
        .ipc_gid = limits->ipc_gid,
        .tls = server->tls,
    };
    struct server_listener *listener = calloc(1, sizeof *listener);
    if (listener == NULL)
        return last_error_fail(FARBLK_NO_MEMORY, "server_listen: no memory");
    pthread_mutex_lock(&server->stop_mutex); /* not while it stops */
    if (server->stopped)
        error_set(&error, FARBLK_DISCONNECTED, "server_listen: it has stopped");
    else
        link_listen(url, &options, connection_accepted, server,
                    &listener->listener, &error);
    if (error.status == 0) {
        listener->url = strdup(link_listener_url(listener->listener));
        if (listener->url == NULL) {
            link_listener_close(listener->listener);
            error_set(&error, FARBLK_NO_MEMORY, "server_listen: no memory");
        }
    }
    if (error.status == 0) {
        log_info("listening on %s", listener->url);
        pthread_mutex_lock(&server->mutex);
        *server->last_listener = listener;
        server->last_listener = &listener->next;
        pthread_mutex_unlock(&server->mutex);
        shm_listen(server, listener->url);
    } else {
        free(listener);
    }
    pthread_mutex_unlock(&server->stop_mutex);
    return last_error_set(&error);
}

const char *
farblk_server_url(struct farblk_server *server, size_t index)
{
    if (server_check(server, "server_url") != 0)
        return NULL;
    pthread_mutex_lock(&server->mutex);
    struct server_listener *listener = server->listeners;
    while (listener != NULL && index-- > 0)
        listener = listener->next;
    pthread_mutex_unlock(&server->mutex);
    return listener != NULL ? listener->url : NULL;
}

int
farblk_server_stats(struct farblk_server *server,
                    struct farblk_server_stats *stats, size_t size)
{
    int status = server_check(server, "server_stats");
    if (status != 0)
        return status;
    if (stats == NULL || size == 0)
        return last_error_fail(FARBLK_INVALID, "server_stats: no room");
    struct farblk_server_stats now;
    pthread_mutex_lock(&server->mutex);
    now.connections = server->connection_count;
    now.sessions = session_count_live(server);
    now.most_connections = server->most_connections;
    now.most_sessions = server->most_sessions;
    pthread_mutex_unlock(&server->mutex);
    now.handles = atomic_load(&server->handles);
    now.requests = atomic_load(&server->busy);
    now.octets = atomic_load(&server->octets);
    now.accepted = atomic_load(&server->accepted);
    now.refused = atomic_load(&server->refused);
    now.completed = atomic_load(&server->completed);
    now.damaged = atomic_load(&server->damaged);
    now.displaced = atomic_load(&server->displaced);
    now.memory = block_counted();
    now.memory_limit = block_limit();
    now.most_requests = atomic_load(&server->most_busy);
    now.most_octets = atomic_load(&server->most_octets);
    now.most_memory = block_most();
    shm_stats(server, &now);
    if (size > sizeof now)
        memset((char *)stats + sizeof now, 0, size - sizeof now);
    memcpy(stats, &now, size < sizeof now ? size : sizeof now);
    last_error_clear();
    return 0;
}

/* ------------------------------------------------------------ the end */

static void
server_stop_listening(struct farblk_server *server)
{
    pthread_mutex_lock(&server->mutex);
    server->stopping = true;
    pthread_mutex_unlock(&server->mutex);
    atomic_store(&server->draining, true);
    /* Nobody adds listeners now: stop_mutex is held.  The side sockets go
     * first: they lie next to paths that are this server's until the end. */
    shm_stop_listening(server);
    for (struct server_listener *l = server->listeners; l != NULL;
         l = l->next) {
        link_listener_close(l->listener);
        l->listener = NULL;
    }
}

/* Nothing more is received; what has started is finished and answered. */
static bool
server_drain(struct farblk_server *server, int64_t until_ms)
{
    bool in_time = true;
    pthread_mutex_lock(&server->mutex);
    for (struct connection *c = server->connections; c != NULL; c = c->next)
        connection_stop(c);
    pthread_mutex_unlock(&server->mutex);
    session_fence_all(server, "the server stops");
    pthread_mutex_lock(&server->mutex);
    while (in_time
           && (atomic_load(&server->busy) > 0 || server->session_count > 0))
        in_time = server_wait(server, &server->changed, until_ms);
    bool drained =
        atomic_load(&server->busy) == 0 && server->session_count == 0;
    pthread_mutex_unlock(&server->mutex);
    connection_close_all(server, true);
    pthread_mutex_lock(&server->mutex);
    while (server->connection_count > 0)
        server_wait(server, &server->changed, -1);
    pthread_mutex_unlock(&server->mutex);
    return drained;
}

int
farblk_server_stop(struct farblk_server *server, int32_t timeout_ms)
{
    struct error error;
    error_clear(&error);
    int status = server_check(server, "server_stop");
    if (status != 0)
        return status;
    pthread_mutex_lock(&server->stop_mutex);
    if (!server->stopped) {
        int64_t until_ms = timeout_ms < 0 ? -1 : timer_now() + timeout_ms;
        server->stopped = true;
        log_info("stopping");
        server_stop_listening(server);
        bool drained = server_drain(server, until_ms);
        int64_t left_ms = until_ms - timer_now();
        export_flush(server,
                     timeout_ms < 0   ? -1
                     : left_ms < 1000 ? 1000
                                      : (int32_t)left_ms,
                     &error);
        if (error.status == 0 && !drained)
            error_set(&error, FARBLK_TIMED_OUT,
                      "server_stop: requests are under way still after %d ms",
                      timeout_ms);
        if (error.status != 0)
            log_error("%s", error.text);
        server->stop_status = error.status;
    } else if (server->stop_status != 0) {
        error_set(&error, server->stop_status, "server_stop: failed before");
    }
    pthread_mutex_unlock(&server->stop_mutex);
    return last_error_set(&error);
}

void
farblk_server_destroy(struct farblk_server *server)
{
    if (server == NULL || server_check(server, "server_destroy") != 0)
        return;
    farblk_server_stop(server, -1);
    pthread_mutex_lock(&server->mutex);
    while (server->connection_objects > 0 || server->session_objects > 0)
        server_wait(server, &server->changed, -1);
    server->finished = true;
    pthread_cond_signal(&server->keeper_wake);
    pthread_mutex_unlock(&server->mutex);
    pthread_join(server->keeper, NULL);
    export_close_all(server);
    server_free(server);
    last_error_clear();
}
