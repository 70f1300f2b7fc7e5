/* SPDX-License-Identifier: ISC */
/*
 * Sessions: what a request needs of them, from its header to its outcome.
 * Beginning and ending is lease.c's.
 */
#include "server/session.h"

#include "core/block.h"
#include "core/log.h"
#include "core/timer.h"
#include "server/call.h"
#include "server/connection.h"
#include "server/dispatch.h"
#include "server/opened.h"
#include "server/shm.h"

#include <stdlib.h>
#include <string.h>

struct session *
session_get(struct session *session)
{
    atomic_fetch_add_explicit(&session->refs, 1, memory_order_relaxed);
    return session;
}

void
session_put(struct session *session)
{
    struct farblk_server *server = session->server;
    if (atomic_fetch_sub_explicit(&session->refs, 1, memory_order_acq_rel) != 1)
        return;
    kept_fini(&session->table);
    pthread_mutex_destroy(&session->mutex);
    free(session);
    block_uncharge(sizeof *session);
    pthread_mutex_lock(&server->mutex);
    server->session_objects--;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->mutex);
}

void
session_used(const struct call *call)
{
    struct session *session = call->session;
    if (session->server->limits.idle_timeout_ms != 0
        && call->ask.method != WIRE_PING)
        atomic_store_explicit(&session->used_ms, timer_recent(),
                              memory_order_relaxed);
}

/* ------------------------------------------------------------ admission */

static struct session *
session_find(struct farblk_server *server, uint64_t id)
{
    pthread_mutex_lock(&server->mutex);
    struct session *session = server->sessions[id % SERVER_SESSION_BUCKETS];
    while (session != NULL && session->id != id)
        session = session->next;
    if (session != NULL)
        session_get(session);
    pthread_mutex_unlock(&server->mutex);
    return session;
}

/* Takes the same time wherever they differ. */
static bool
session_secret_is(const struct session *session, const uint8_t *secret)
{
    unsigned difference = 0;
    for (size_t i = 0; i < WIRE_SECRET_SIZE; i++)
        difference |= (unsigned)(session->secret[i] ^ secret[i]);
    return difference == 0;
}

/* The connection has not shown the secret before: does it now? */
static struct session *
session_prove(struct call *call)
{
    const struct codec_request *ask = &call->ask;
    struct connection *connection = call->connection;
    const char *method = codec_method_name(ask->method);
    if (ask->session == 0) {
        call_fail(call, FARBLK_DENIED, "%s: no session; Hello comes first",
                  method);
        return NULL;
    }
    struct session *session = session_find(call->server, ask->session);
    if (session == NULL) {
        call_fail(call, FARBLK_DISCONNECTED,
                  "%s: session %016llx is not known here: it has ended, or the "
                  "server was started anew",
                  method, (unsigned long long)ask->session);
        return NULL;
    }
    bool proved = ask->has_secret && session_secret_is(session, ask->secret)
                  && session->has_uid == connection->has_uid
                  && (!session->has_uid || session->uid == connection->uid);
    if (!proved) {
        log_warning("%s: refused: not entitled to session %u",
                    connection->label, session->serial);
        call_fail(call, FARBLK_DENIED,
                  "%s: this connection may not speak for session %016llx",
                  method, (unsigned long long)ask->session);
    } else if (!connection_bind(connection, session, &call->epoch)) {
        proved = false;
        call_fail(call, FARBLK_DISCONNECTED, "%s: session %016llx has ended",
                  method, (unsigned long long)ask->session);
    }
    if (!proved) {
        session_put(session);
        return NULL;
    }
    return session;
}

/* Under the mutex: take the request's number and `lowest` in.  0, or a status. */
static int
session_take_number(struct session *session, uint32_t method, uint64_t number,
                    uint64_t lowest, struct error *error)
{
    if (number == 0 || lowest > number)
        return error_set(error, FARBLK_INVALID,
                         "%s: request number %llu with lowest %llu; numbers "
                         "begin with 1, and lowest is not above",
                         codec_method_name(method), (unsigned long long)number,
                         (unsigned long long)lowest);
    if (lowest > session->lowest) {
        kept_forget_below(&session->table, session->lowest, lowest);
        session->lowest = lowest;
    }
    if (number < session->lowest)
        /* A WatchInfo waits for long, and holds up nothing. */
        return method == WIRE_WATCH_INFO
                   ? 0
                   : error_set(error, FARBLK_CONFLICT,
                               "%s: request %llu was answered already; the "
                               "lowest is %llu",
                               codec_method_name(method),
                               (unsigned long long)number,
                               (unsigned long long)session->lowest);
    if (number - session->lowest >= WIRE_WINDOW)
        return error_set(error, FARBLK_INVALID,
                         "%s: request %llu is too far above the lowest, %llu; "
                         "the window is %u",
                         codec_method_name(method), (unsigned long long)number,
                         (unsigned long long)session->lowest, WIRE_WINDOW);
    return 0;
}

static void
session_tell_ended(const struct session *session, struct call *call)
{
    call_fail(call, FARBLK_DISCONNECTED, "%s: session %016llx has ended",
              codec_method_name(call->ask.method),
              (unsigned long long)session->id);
}

/* Under the mutex: the handle that the request names.  A Disconnect of one
 * that has gone is fine. */
static bool
session_take_handle(struct session *session, struct call *call)
{
    const struct codec_request *ask = &call->ask;
    bool wanted = ask->method >= WIRE_DISCONNECT
                  && ask->method <= WIRE_WATCH_INFO
                  && (ask->method != WIRE_DISCONNECT || ask->handle != 0);
    if (!wanted)
        return true;
    call->opened = opened_find(session, ask->handle);
    if (call->opened != NULL || call->skipped)
        return true;
    bool was = opened_was(session, ask->handle);
    if (was && ask->method == WIRE_DISCONNECT)
        return true;
    if (!was && !session_live(session))
        session_tell_ended(session, call);
    else
        call_fail(call, was ? FARBLK_DISCONNECTED : FARBLK_NOT_FOUND,
                  was ? "%s: handle %llu is disconnected"
                      : "%s: no handle %llu in this session",
                  codec_method_name(ask->method),
                  (unsigned long long)ask->handle);
    return false;
}

/* Whether the call asks for its connection to be the session's only one. */
static bool
session_takes_over(const struct codec_request *ask)
{
    return ask->method == WIRE_PING && ask->args.ping.take_over;
}

/* Under the mutex: what another connection brings for the session is void from
 * now on.  The numbers of such Pings tell which connection is the newest, also
 * when an older one's is late. */
static bool
session_take_over(struct session *session, struct call *call)
{
    const struct codec_request *ask = &call->ask;
    if (!ask->has_secret || !session_secret_is(session, ask->secret)) {
        call_fail(call, FARBLK_DENIED,
                  "Ping: take_over wants the session's secret");
        return false;
    }
    if (ask->number <= session->taken_over) {
        call_fail(call, FARBLK_CONFLICT,
                  "Ping: request %llu has taken the session over, this is %llu",
                  (unsigned long long)session->taken_over,
                  (unsigned long long)ask->number);
        return false;
    }
    session->taken_over = ask->number;
    call->epoch = atomic_fetch_add(&session->epoch, 1) + 1;
    connection_rebind(call->connection, session, call->epoch);
    return true;
}

/* Under the mutex: whether the call's connection speaks for the session. */
static bool
session_speaks(const struct session *session, struct call *call)
{
    if (call->epoch == session_epoch(session))
        return true;
    call_fail(call, FARBLK_DENIED,
              "%s: another connection has taken session %016llx over",
              codec_method_name(call->ask.method),
              (unsigned long long)session->id);
    return false;
}

uint32_t
session_watches_max(const struct connection *connection)
{
    uint32_t half = connection->max_requests / 2;
    return half > CALL_WATCHES ? CALL_WATCHES : half > 0 ? half : 1;
}

/* Under the mutex: whether it may start, and if so count it. */
static enum session_verdict
session_count(struct session *session, struct call *call)
{
    const struct codec_request *ask = &call->ask;
    bool changes = dispatch_changes(ask->method);
    bool watch = ask->method == WIRE_WATCH_INFO;
    if (!session_live(session)) {
        session_tell_ended(session, call);
        return SESSION_REFUSED;
    }
    if ((ask->number < session->lowest && !watch) || call->skipped) {
        call_fail(
            call, FARBLK_CONFLICT, "%s: request %llu was answered already",
            codec_method_name(ask->method), (unsigned long long)ask->number);
        return SESSION_REFUSED;
    }
    if (watch && session->watches >= session_watches_max(call->connection)) {
        call_fail(call, FARBLK_BUSY, "%s: %u are waiting already, the limit",
                  codec_method_name(ask->method), session->watches);
        return SESSION_REFUSED;
    }
    if (changes) {
        call->kept = kept_add(&session->table, ask->number, ask->method, call);
        if (call->kept == NULL) {
            call_fail(call, FARBLK_NO_SPACE,
                      "%s: no memory to remember request %llu",
                      codec_method_name(ask->method),
                      (unsigned long long)ask->number);
            return SESSION_REFUSED;
        }
    }
    /* The Disconnect of the session itself waits for all the others. */
    call->active = ask->method != WIRE_DISCONNECT || ask->handle != 0;
    call->watch = watch;
    session->active += call->active;
    session->watches += watch;
    return SESSION_START;
}

bool
session_admit(struct call *call)
{
    const struct codec_request *ask = &call->ask;
    const bool takes_over = session_takes_over(ask);
    struct session *session =
        connection_session(call->connection, ask->session, &call->epoch);
    if (session == NULL)
        session = session_prove(call);
    if (session == NULL)
        return false;
    call->session = session;
    session_heard(session);
    session_used(call);
    pthread_mutex_lock(&session->mutex);
    call->arrival = ++session->arrivals;
    bool admitted = takes_over || session_speaks(session, call);
    if (admitted
        && session_take_number(session, ask->method, ask->number, ask->lowest,
                               &call->request.error)
               != 0) {
        admitted = false;
        call->failed = true;
    }
    admitted = admitted && (!takes_over || session_take_over(session, call));
    const uint32_t kept = (uint32_t)session->table.count;
    if (admitted) {
        call->numbered = true;
        call->skipped = dispatch_changes(ask->method)
                        && kept_find(&session->table, ask->number) != NULL;
        admitted = session_take_handle(session, call);
    }
    /* What follows at once, and no copy can ask for, may start here. */
    if (admitted && !call->laden && !dispatch_changes(ask->method))
        admitted = session_count(session, call) == SESSION_START;
    pthread_mutex_unlock(&session->mutex);
    if (admitted && takes_over) {
        shm_detach_session(session); /* it was of another connection */
        log_info("%s: session %u goes on here; %u outcomes are kept or to come",
                 call->connection->label, session->serial, kept);
        connection_close_void(call->server, session);
    }
    return admitted;
}

/* ------------------------------------------------------------ execution */

/* Under the mutex: let the reply of `running` go where `call` came from, and
 * `call` take the old route with it. */
static void
session_reroute(struct call *running, struct call *call)
{
    struct connection *connection = running->connection;
    uint64_t octets = running->octets, arrival = running->arrival;
    uint8_t stack[WIRE_STACK_MAX];
    size_t length = running->message.stack_length;
    memcpy(stack, running->message.stack, length);
    running->connection = call->connection;
    running->octets = call->octets;
    running->arrival = call->arrival;
    running->message.stack_length = call->message.stack_length;
    memcpy(running->message.stack, call->message.stack,
           call->message.stack_length);
    call->connection = connection;
    call->octets = octets;
    call->arrival = arrival;
    call->message.stack_length = length;
    memcpy(call->message.stack, stack, length);
}

/* Under the mutex: there was a copy of this request before. */
static enum session_verdict
session_repeat(struct call *call, struct kept *kept, struct call **older)
{
    if (!kept_is(kept, call->ask.method)) {
        call_fail(call, FARBLK_CONFLICT, "%s: request %llu was a %s before",
                  codec_method_name(call->ask.method),
                  (unsigned long long)call->ask.number,
                  codec_method_name(kept->method));
        return SESSION_REFUSED;
    }
    if (kept->call != NULL) {
        /* A copy that was held up on its way is the older one. */
        if (call->arrival > kept->call->arrival)
            session_reroute(kept->call, call);
        return SESSION_ATTACHED;
    }
    if (kept->in_ring) {
        /* The newest copy is answered. */
        *older = kept->waiting;
        kept->waiting = call;
        return SESSION_PARKED;
    }
    kept_error(kept, &call->request.error);
    call->request.value = kept->value;
    return SESSION_REPEATED;
}

enum session_verdict
session_start(struct call *call)
{
    struct session *session = call->session;
    enum session_verdict verdict;
    if (call->active)
        return SESSION_START; /* session_admit() has counted it */
    if (call->laden)
        session_heard(session);
    pthread_mutex_lock(&session->mutex);
    if (!session_speaks(session, call)) {
        pthread_mutex_unlock(&session->mutex);
        return SESSION_REFUSED;
    }
    struct kept *kept = dispatch_changes(call->ask.method)
                            ? kept_find(&session->table, call->ask.number)
                            : NULL;
    struct call *older = NULL;
    verdict = kept != NULL ? session_repeat(call, kept, &older)
                           : session_count(session, call);
    pthread_mutex_unlock(&session->mutex);
    if (older != NULL)
        call_discard(older);
    return verdict;
}

void
session_ring_heard(struct session *session)
{
    session_heard(session);
    if (session->server->limits.idle_timeout_ms != 0)
        atomic_store_explicit(&session->used_ms, timer_recent(),
                              memory_order_relaxed);
}

/* Under the mutex. */
static enum session_verdict
session_ring_admit(struct session *session,
                   const struct ring_submission *submission, struct kept **kept,
                   struct error *error, uint64_t *value)
{
    const uint32_t method = submission->method;
    const uint64_t number = submission->number;
    if (!session_live(session)) {
        error_set(error, FARBLK_DISCONNECTED, "%s: session %016llx has ended",
                  codec_method_name(method), (unsigned long long)session->id);
        return SESSION_REFUSED;
    }
    uint64_t lowest =
        submission->behind < number ? number - submission->behind : 0;
    if (session_take_number(session, method, number, lowest, error) != 0)
        return SESSION_REFUSED;
    *kept = kept_find(&session->table, number);
    if (*kept == NULL) {
        *kept = kept_add(&session->table, number, method, NULL);
        if (*kept != NULL) {
            (*kept)->in_ring = true;
            return SESSION_START;
        }
        error_set(error, FARBLK_NO_SPACE,
                  "%s: no memory to remember request %llu",
                  codec_method_name(method), (unsigned long long)number);
        return SESSION_REFUSED;
    }
    const bool same = kept_is(*kept, method);
    if (!same || kept_runs(*kept)) {
        error_set(error, FARBLK_CONFLICT, "%s: request %llu %s%s",
                  codec_method_name(method), (unsigned long long)number,
                  same ? "is under way still" : "was before a ",
                  same ? "" : codec_method_name((*kept)->method));
        return SESSION_REFUSED;
    }
    kept_error(*kept, error);
    *value = (*kept)->value;
    return SESSION_REPEATED;
}

enum session_verdict
session_ring_start(struct session *session,
                   const struct ring_submission *submission, struct kept **kept,
                   struct error *error, uint64_t *value)
{
    pthread_mutex_lock(&session->mutex);
    enum session_verdict verdict =
        session_ring_admit(session, submission, kept, error, value);
    pthread_mutex_unlock(&session->mutex);
    return verdict;
}

void
session_ring_finish(struct session *session, struct kept *kept,
                    const struct error *error, uint64_t value)
{
    pthread_mutex_lock(&session->mutex);
    struct call *waiting = kept->waiting;
    kept->waiting = NULL;
    kept_end(&session->table, kept, error, value);
    if (kept->number < session->lowest)
        kept_forget(&session->table, kept);
    pthread_mutex_unlock(&session->mutex);
    if (waiting == NULL)
        return;
    waiting->request.error = *error;
    waiting->request.value = value;
    call_finish(waiting);
}

/* Under the mutex: a number that has not come yet will find that it was
 * cancelled. */
static void
session_cancel_early(struct session *session, struct call *call,
                     uint64_t number)
{
    struct kept *kept = kept_add(&session->table, number, KEPT_ANY, NULL);
    struct error error;
    if (kept == NULL) {
        call_fail(call, FARBLK_NO_SPACE,
                  "Cancel: no memory to remember request %llu",
                  (unsigned long long)number);
        return;
    }
    error_set(&error, FARBLK_TIMED_OUT, "cancelled before it was begun");
    kept_end(&session->table, kept, &error, 0);
    call->request.value = 1;
}

void
session_cancel(struct call *call)
{
    struct session *session = call->session;
    const uint64_t number = call->ask.args.cancel.number;
    call->request.value = 0;
    pthread_mutex_lock(&session->mutex);
    struct kept *kept = NULL;
    if (number == 0
        || (number >= session->lowest
            && number - session->lowest >= WIRE_WINDOW)) {
        call_fail(call, FARBLK_INVALID,
                  "Cancel: request %llu is outside of the window; the lowest "
                  "is %llu",
                  (unsigned long long)number,
                  (unsigned long long)session->lowest);
    } else if (number < session->lowest) {
        call_fail(call, FARBLK_CONFLICT,
                  "Cancel: request %llu was answered already; the lowest is "
                  "%llu",
                  (unsigned long long)number,
                  (unsigned long long)session->lowest);
    } else if ((kept = kept_find(&session->table, number)) == NULL) {
        session_cancel_early(session, call, number);
    } else if (!kept_runs(kept)) {
        call->request.value = kept->status == FARBLK_TIMED_OUT
                              && kept->effect == FARBLK_EFFECT_NONE;
    } else if (kept->call != NULL) {
        /* What waits inside core gives up, and what is begun goes on. */
        request_cancel(&kept->call->request);
    }
    pthread_mutex_unlock(&session->mutex);
}

void
session_refuse(struct call *call)
{
    struct session *session = call->session;
    const struct codec_request *ask = &call->ask;
    if (!call->numbered || !dispatch_changes(ask->method))
        return;
    pthread_mutex_lock(&session->mutex);
    if (ask->number >= session->lowest && call->epoch == session_epoch(session)
        && kept_find(&session->table, ask->number) == NULL)
        call->kept = kept_add(&session->table, ask->number, ask->method, call);
    pthread_mutex_unlock(&session->mutex);
}

void
session_finish(struct call *call)
{
    struct session *session = call->session;
    /* Only what is kept, by this call's own thread, is looked for by copies. */
    if (call->kept == NULL && !call->watch)
        return;
    pthread_mutex_lock(&session->mutex);
    if (call->kept != NULL) {
        kept_end(&session->table, call->kept, &call->request.error,
                 call->request.value);
        if (call->kept->number < session->lowest)
            kept_forget(&session->table, call->kept);
        call->kept = NULL;
    }
    session->watches -= call->watch;
    call->watch = false;
    pthread_mutex_unlock(&session->mutex);
}

void
session_leave(struct session *session)
{
    unsigned active = atomic_load(&session->active);
    /* The lease runs from the end of what was under way: whoever sees that
     * nothing is, sees when that was. */
    do {
        if (active == 1 && !session->fences)
            session_heard(session);
    } while (
        !atomic_compare_exchange_weak(&session->active, &active, active - 1));
    /* Either the fence is seen here, or by it that nothing is under way. */
    if (atomic_load(&session->state) != SESSION_LIVE)
        session_check(session);
}
