/* SPDX-License-Identifier: ISC */
/*
 * The life of a session: asking and waiting; Ping while it is quiet; its end, or
 * its loss.
 *
 * When its connection breaks the session goes on over another one (resume.c),
 * if it can.  A lost session stays lost: whatever the reason, the first one is
 * kept and told to everybody, and nothing waits any longer than the link needs
 * to let go of the buffers.
 */
#include "client/rings.h"

#include "core/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static void
session_closed(void *arg, int status, const char *reason)
{
    struct client *client = arg;
    resume_broken(client, status != 0 ? status : FARBLK_DISCONNECTED,
                  "the connection to %s is lost: %s", client->target,
                  reason != NULL && reason[0] != '\0' ? reason
                                                      : "it was closed");
    struct batch batch = {NULL, NULL, NULL, NULL};
    pthread_mutex_lock(&client->mutex);
    client->link_running = false;
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->mutex);
    calls_run(client, &batch);
    client_leave(client); /* the link's */
}

const struct link_events session_events = {
    .head = replies_head,
    .frame = replies_frame,
    .drop = replies_drop,
    .closed = session_closed,
};

void
session_lost(struct client *client, int status, const char *format, ...)
{
    struct batch batch = {NULL, NULL, NULL, NULL};
    struct link *link = NULL;
    pthread_mutex_lock(&client->mutex);
    bool first = client->state != CLIENT_LOST && client->state != CLIENT_IDLE;
    if (first) {
        va_list args;
        va_start(args, format);
        error_vset(&client->lost, status, format, args);
        va_end(args);
        client->state = CLIENT_LOST;
        /* Who has heard of its end knows that it was one. */
        client->lost_status =
            client->session_gone && status == FARBLK_CONNECTION_LOST
                ? FARBLK_CONNECTION_LOST
                : FARBLK_DISCONNECTED;
        calls_fail_all(client, &batch);
        client->unsettled |=
            !client->session_gone && rings_oldest(client) != UINT64_MAX;
        /* The lease of one that breaks the protocol promises nothing. */
        client->unsettled &= status != FARBLK_PROTOCOL;
        link = link_get(client->link);
        pthread_cond_broadcast(&client->changed);
    }
    pthread_mutex_unlock(&client->mutex);
    if (!first)
        return;
    log_line(status == FARBLK_PROTOCOL ? FARBLK_LOG_WARNING : FARBLK_LOG_DEBUG,
             "%s", client->lost.text);
    rings_lost(client);
    link_close(link, false);
    link_put(link);
    calls_run(client, &batch);
}

int
session_error(const struct codec_reply *reply, struct error *error,
              const char *format, ...)
{
    char what[FARBLK_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return error_set(
        error, error_known_status(reply->status), "%.200s: %.300s", what,
        reply->text[0] != '\0' ? reply->text : "the server gives no reason");
}

/* Under the mutex: whether a reply may come yet. */
static bool
session_hopes(const struct client *client, bool handshake)
{
    switch (client->state) {
    case CLIENT_UP:
        return true;
    case CLIENT_AWAY:
        return !handshake;
    case CLIENT_BACK:
        return true;
    default:
        return false;
    }
}

int
session_call(struct client *client, struct codec_request *request,
             bool handshake, int64_t until_ms, struct codec_reply *reply,
             struct error *error)
{
    struct batch batch = {NULL, NULL, NULL, NULL};
    struct client_wait wait;
    const struct timespec until = {
        .tv_sec = (time_t)(until_ms / 1000),
        .tv_nsec = (long)(until_ms % 1000) * 1000000,
    };
    wait.done = false;
    pthread_mutex_lock(&client->mutex);
    struct call *call = send_own(client, request, handshake, &wait, &batch);
    if (call == NULL && session_hopes(client, handshake)) {
        pthread_mutex_unlock(&client->mutex);
        return error_set(error, FARBLK_NO_MEMORY, "%s to %s: no memory",
                         codec_method_name(request->method), client->target);
    }
    struct link *link = link_get(client->link);
    pthread_mutex_unlock(&client->mutex);
    calls_run(client, &batch);
    link_mind(link, false);
    link_put(link);

    int status = 0;
    pthread_mutex_lock(&client->mutex);
    while (!wait.done && session_hopes(client, handshake) && status == 0)
        if (pthread_cond_timedwait(&client->changed, &client->mutex, &until)
                == ETIMEDOUT
            && !wait.done && session_hopes(client, handshake)) {
            call->wait = NULL; /* still in the table */
            status = error_set(error, FARBLK_TIMED_OUT,
                               "%s has not answered %s in time", client->target,
                               codec_method_name(request->method));
        }
    if (status == 0 && !wait.done) {
        const struct error *why =
            client->state == CLIENT_LOST ? &client->lost : &client->tried;
        status = error_set(error, why->status, "%s", why->text);
    }
    pthread_mutex_unlock(&client->mutex);
    if (status == 0)
        *reply = wait.reply;
    return status;
}

/* ------------------------------------------------------------ keeping alive */

static void session_tick(struct timer *timer);

/* Under the mutex.  A third of the lease passes at most between two pings, as
 * this comes every sixth. */
static void
session_ping(struct client *client, int64_t now, struct batch *batch)
{
    int64_t quiet =
        client->heard_ms < client->sent_ms ? client->heard_ms : client->sent_ms;
    struct codec_request request;
    if (client->ping_flying || client->total >= client->limits.max_requests
        || now - quiet < client->lease_ms / 6)
        return;
    request.method = WIRE_PING;
    request.handle = 0;
    request.has_secret = false;
    request.args.ping.take_over = false;
    client->ping_flying =
        send_own(client, &request, false, NULL, batch) != NULL;
}

static void
session_tick(struct timer *timer)
{
    struct client *client =
        (struct client *)((char *)timer - offsetof(struct client, timer));
    struct batch batch = {NULL, NULL, NULL, NULL};
    client_enter(client);
    pthread_mutex_lock(&client->mutex);
    int64_t now = timer_now();
    int64_t silent = now - client->heard_ms;
    /* Half of the lease is for finding another way while it lasts. */
    int64_t patience =
        client->resumable ? client->lease_ms / 2 : client->lease_ms;
    int64_t next = now + client->lease_ms / 6;
    bool up = client->state == CLIENT_UP, armed = true;
    bool late =
        up && silent >= patience
        && !atomic_load_explicit(&client->receiving, memory_order_relaxed);
    if (up && !late) {
        session_ping(client, now, &batch);
        watch_issue(client, &batch);
        rings_renew(client, now);
        if (silent < patience && client->heard_ms + patience < next)
            next = client->heard_ms + patience;
    }
    if (client->state != CLIENT_LOST && !(late && !client->resumable))
        armed = timer_arm(timer, next, session_tick);
    pthread_mutex_unlock(&client->mutex);
    if (late)
        resume_broken(client, FARBLK_CONNECTION_LOST,
                      "nothing was heard from %s for %lld ms, its lease is "
                      "%lld",
                      client->target, (long long)silent,
                      (long long)client->lease_ms);
    else if (!armed)
        session_lost(client, FARBLK_NO_MEMORY,
                     "no memory to watch the session at %s", client->target);
    calls_run(client, &batch);
    client_leave(client);
}

int
session_keep_alive(struct client *client, struct error *error)
{
    pthread_mutex_lock(&client->mutex);
    bool armed = client->state != CLIENT_UP
                 || timer_arm(&client->timer,
                              timer_now() + client->lease_ms / 6, session_tick);
    client->resumable = client->reconnect_ms != 0;
    pthread_mutex_unlock(&client->mutex);
    if (!armed)
        return error_set(error, FARBLK_NO_MEMORY,
                         "no memory to watch the session at %s",
                         client->target);
    return 0;
}

int64_t
session_settled_ms(const struct client *client)
{
    /* The server's clock may go a little slower than this one. */
    return client->sent_ms + client->lease_ms + client->lease_ms / 64 + 20;
}

/* Whether there is a session to be ended, and until when to wait for that.  When
 * something of a lost one may land yet it is looked for once more, and else its
 * lease is waited for. */
static bool
session_settle(struct client *client, int64_t *until_ms)
{
    pthread_mutex_lock(&client->mutex);
    bool begun = client->link != NULL && client->session != 0;
    int64_t settled_ms = session_settled_ms(client);
    if (client->state == CLIENT_LOST && client->unsettled
        && timer_now() < settled_ms) {
        client->unsettled = false;
        client->ending = client->resumable = true;
        client->until_ms = settled_ms;
        client->state = CLIENT_AWAY;
        if (!resume_start(client))
            client->state = CLIENT_LOST;
    }
    *until_ms = timer_now() + client->lease_ms + client->lease_ms / 64 + 20;
    pthread_mutex_unlock(&client->mutex);
    return begun;
}

void
session_end(struct client *client)
{
    struct codec_request request;
    struct codec_reply reply;
    struct error error;
    int64_t until_ms;
    if (!session_settle(client, &until_ms))
        return;
    request.method = WIRE_DISCONNECT;
    request.handle = 0; /* the whole session */
    request.has_secret = false;
    int status =
        session_call(client, &request, false, until_ms, &reply, &error);
    if (status != 0)
        log_debug("ending the session at %s: %s", client->target, error.text);
    else if (reply.status != 0)
        log_debug("ending the session at %s: %s", client->target, reply.text);
    session_lost(client, FARBLK_DISCONNECTED, "the session at %s was ended",
                 client->target);
}
