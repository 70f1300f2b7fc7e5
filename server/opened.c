/* SPDX-License-Identifier: ISC */
/*
 * Handles of sessions: opening, finding, closing.
 */
#include "server/opened.h"

#include "core/device.h"
#include "core/log.h"
#include "core/secret.h"
#include "server/call.h"
#include "server/connection.h"
#include "server/export.h"

#include <stdlib.h>
#include <string.h>

static struct opened **
opened_bucket(struct session *session, uint64_t number)
{
    return &session->opened[number % SESSION_HANDLE_BUCKETS];
}

struct opened *
opened_get(struct opened *opened)
{
    atomic_fetch_add_explicit(&opened->refs, 1, memory_order_relaxed);
    return opened;
}

void
opened_put(struct opened *opened)
{
    struct farblk_server *server = opened->session->server;
    if (atomic_fetch_sub_explicit(&opened->refs, 1, memory_order_acq_rel) != 1)
        return;
    pthread_mutex_lock(&server->mutex);
    opened->next = server->closing;
    server->closing = opened;
    pthread_cond_signal(&server->keeper_wake);
    pthread_mutex_unlock(&server->mutex);
}

void
opened_free(struct opened *opened)
{
    farblk_close(opened->dev);
    session_put(opened->session);
    free(opened);
}

struct opened *
opened_find(struct session *session, uint64_t number)
{
    struct opened *opened = *opened_bucket(session, number);
    while (opened != NULL && opened->number != number)
        opened = opened->next;
    return opened != NULL ? opened_get(opened) : NULL;
}

bool
opened_was(const struct session *session, uint64_t number)
{
    uint32_t count = (uint32_t)number;
    return number >> 32 == session->serial && count > 0
           && count <= session->last_handle;
}

void
opened_shape(const struct opened *opened, uint64_t *generation,
             uint64_t *size_sectors)
{
    uint64_t size;
    device_told(opened->dev->device, generation, &size);
    *size_sectors = size / opened->sector_size;
}

/* ------------------------------------------------------------ opening */

/* Count one more in, before there is one.  0: the call has failed. */
static uint64_t
opened_reserve(struct call *call)
{
    struct session *session = call->session;
    uint32_t max = call->server->limits.max_handles;
    uint64_t number = 0;
    pthread_mutex_lock(&session->mutex);
    if (session->handle_count < max && session->last_handle < UINT32_MAX) {
        session->handle_count++;
        number = (uint64_t)session->serial << 32 | ++session->last_handle;
    }
    pthread_mutex_unlock(&session->mutex);
    if (number == 0)
        call_fail(call, FARBLK_BUSY,
                  "Open: this session has %u handles, the limit for each", max);
    return number;
}

static struct opened *
opened_create(struct call *call, struct export *export, uint64_t number)
{
    struct opened *opened = calloc(1, sizeof *opened);
    if (opened != NULL)
        opened->dev = handle_dup(export->dev, call->ask.args.open.read_only);
    if (opened == NULL || opened->dev == NULL) {
        free(opened);
        call_fail(call, FARBLK_NO_MEMORY, "Open: no memory for a handle of %s",
                  export->name);
        return NULL;
    }
    opened->session = session_get(call->session);
    opened->export = export;
    opened->number = number;
    opened->sector_size = export->sector_size;
    atomic_init(&opened->refs, 2); /* the session's and the call's */
    return opened;
}

/* Whether the peer may open it; false: the call has failed.  A wrong token and
 * none are answered alike. */
static bool
opened_may_open(struct call *call, const struct export *export)
{
    struct session *session = call->session;
    struct codec_request *ask = &call->ask;
    bool named = access_is_named(&export->rules, &session->who);
    bool token = access_has_token(&export->rules, ask->args.open.token,
                                  ask->args.open.token_length);
    secret_wipe(ask->args.open.token, WIRE_TOKEN_MAX);
    if (named && token)
        return true;
    if (!named && session->who.known)
        log_warning("session %u: refused: \"%s\" is not for uid %u, gid %u",
                    session->serial, export->name, session->who.uid,
                    session->who.gid);
    else
        log_warning("session %u: refused: \"%s\" is %s", session->serial,
                    export->name,
                    named ? "not opened without its token"
                          : "for users of this host only");
    if (named) {
        pthread_mutex_lock(&session->mutex);
        struct connection *connection = connection_get(call->connection);
        pthread_mutex_unlock(&session->mutex);
        connection_wrong_token(connection);
        connection_put(connection);
    }
    call_fail(call, FARBLK_DENIED, "Open: \"%s\" is not open to this client",
              export->name);
    return false;
}

bool
opened_open(struct call *call)
{
    struct session *session = call->session;
    const char *name = call->ask.args.open.name;
    char shown[CODEC_NAME_LENGTH];
    error_copy_text(shown, sizeof shown, name, strlen(name));
    struct export *export = export_find(call->server, name);
    if (export == NULL) {
        log_warning("session %u: refused: no export \"%s\"", session->serial,
                    shown);
        call_fail(call, FARBLK_NOT_FOUND, "Open: no export \"%s\" here", shown);
        return false;
    }
    if (!opened_may_open(call, export))
        return false;
    uint64_t number = opened_reserve(call);
    if (number == 0)
        return false;
    struct opened *opened = opened_create(call, export, number);
    pthread_mutex_lock(&session->mutex);
    bool live = session_live(session);
    if (opened != NULL && live) {
        struct opened **bucket = opened_bucket(session, number);
        opened->next = *bucket;
        *bucket = opened;
    } else {
        session->handle_count--;
    }
    pthread_mutex_unlock(&session->mutex);
    if (opened != NULL && !live) {
        opened_put(opened);
        opened_put(opened);
        call_fail(call, FARBLK_DISCONNECTED, "Open: session %016llx has ended",
                  (unsigned long long)session->id);
        return false;
    }
    if (opened == NULL)
        return false;
    atomic_fetch_add(&call->server->handles, 1);
    call->opened = opened;
    call->request.value = number;
    log_info("session %u: opened \"%s\" as handle %u%s", session->serial,
             export->name, (uint32_t)number,
             call->ask.args.open.read_only ? ", read-only" : "");
    return true;
}

/* ------------------------------------------------------------ closing */

/* Nothing of the handle can land any more. */
static void
opened_drained(void *arg)
{
    struct opened *opened = arg;
    struct session *session = session_get(opened->session);
    pthread_mutex_lock(&session->mutex);
    struct opened **link = opened_bucket(session, opened->number);
    while (*link != opened)
        link = &(*link)->next;
    *link = opened->next;
    session->handle_count--;
    opened->gone = true;
    struct call *waiting = opened->waiting;
    opened->waiting = NULL;
    pthread_mutex_unlock(&session->mutex);
    atomic_fetch_sub(&session->server->handles, 1);
    log_info("session %u: closed handle %u of \"%s\"", session->serial,
             (uint32_t)opened->number, opened->export->name);
    while (waiting != NULL) {
        struct call *next = waiting->next;
        call_finish(waiting);
        waiting = next;
    }
    opened_put(opened);
    session_check(session);
    session_put(session);
}

void
opened_close(struct opened *opened, struct call *waiting)
{
    struct session *session = opened->session;
    opened_get(opened); /* until disconnecting it has returned */
    pthread_mutex_lock(&session->mutex);
    bool first = !opened->closing, gone = opened->gone;
    opened->closing = true;
    if (waiting != NULL && !gone) {
        waiting->next = opened->waiting;
        opened->waiting = waiting;
    }
    pthread_mutex_unlock(&session->mutex);
    if (waiting != NULL && gone)
        call_finish(waiting);
    if (first)
        handle_disconnect_async(opened->dev, opened_drained, opened);
    opened_put(opened);
}

void
opened_revoke_all(struct session *session)
{
    pthread_mutex_lock(&session->mutex);
    for (size_t i = 0; i < SESSION_HANDLE_BUCKETS; i++)
        for (struct opened *o = session->opened[i]; o != NULL; o = o->next)
            handle_revoke(o->dev);
    pthread_mutex_unlock(&session->mutex);
}

void
opened_close_all(struct session *session)
{
    for (;;) {
        struct opened *found = NULL;
        pthread_mutex_lock(&session->mutex);
        for (size_t i = 0; i < SESSION_HANDLE_BUCKETS && found == NULL; i++)
            for (struct opened *o = session->opened[i];
                 o != NULL && found == NULL; o = o->next)
                if (!o->closing)
                    found = opened_get(o);
        pthread_mutex_unlock(&session->mutex);
        if (found == NULL)
            return;
        opened_close(found, NULL);
        opened_put(found);
    }
}
