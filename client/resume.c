/* SPDX-License-Identifier: ISC */
/*
 * A broken connection, and how another one takes its place.
 *
 *   UP -> AWAY   the link broke, or nothing was heard for half of the lease.
 *                Submissions wait in the list; what is unanswered stays in the
 *                table of calls.
 *   AWAY -> BACK the old link has let go of everything and there is another
 *                one.  A Ping on it shows the session's secret, and takes the
 *                session over from all connections that it had before: what
 *                they still bring is not executed any more.
 *   BACK -> UP   what is unanswered is sent again under its numbers.  The
 *                server answers from what it has kept, attaches it to what is
 *                running, or executes it: each change once.  Memory that was
 *                shared is asked for anew (region.c).
 *   -> LOST      time is over, nobody listens any more, or the session is gone.
 *
 * All of it is done by a thread that lives as long as the client is away.  Its
 * pauses double, with chance in them.  Each absence has its time; and when the
 * connection has broken often without an io being answered in between, that is
 * the end as well: a request at which it breaks each time, or which never comes
 * through, does not go round for ever.
 */
#include "client/rings.h"

#include "core/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* The pause before an attempt, but the first. */
#define RESUME_PAUSE_MIN 20
#define RESUME_PAUSE_MAX 2000
/* The first attempt's time to connect and to be answered; it doubles, too, for
 * a server or a network that is slow, up to a third of the lease.  Who closes
 * meanwhile waits as long, at most. */
#define RESUME_ATTEMPT_MS 2000
/* Connections that break before an io is answered. */
#define RESUME_BREAKS_MAX 16u

/* ------------------------------------------------------------ the break */

/* Under the mutex, when the link has broken: when it is lost.  False: now. */
static bool
resume_set_time(struct client *client, int64_t now)
{
    bool idle = client->flying == 0 && client->first == NULL;
    if (client->progress || idle)
        client->attempts = client->breaks = 0;
    client->progress = false;
    client->breaks++;
    client->until_ms = client->reconnect_ms > 0
                           ? now + client->reconnect_ms
                           : client->heard_ms + client->lease_ms;
    if (client->ending && client->until_ms > session_settled_ms(client))
        client->until_ms = session_settled_ms(client);
    return client->breaks <= RESUME_BREAKS_MAX;
}

bool
client_spawn(struct client *client, void *(*run)(void *client))
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    if (pthread_attr_init(&attributes) != 0)
        return false;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all); /* signals are the program's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    client_enter(client); /* the thread's */
    bool runs = pthread_create(&thread, &attributes, run, client) == 0;
    if (!runs) /* never the last: the caller has one */
        atomic_fetch_sub(&client->users, 1);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return runs;
}

static void *resume_thread(void *arg);

bool
resume_start(struct client *client)
{
    if (!client->resuming) /* or the one that was about to end goes on */
        client->resuming = client_spawn(client, resume_thread);
    return client->resuming;
}

void
resume_broken(struct client *client, int status, const char *format, ...)
{
    struct batch batch = {NULL, NULL, NULL, NULL};
    struct link *link = NULL;
    struct error why;
    bool started = true;
    va_list args;
    va_start(args, format);
    error_vset(&why, status, format, args);
    va_end(args);

    pthread_mutex_lock(&client->mutex);
    enum client_state before = client->state;
    bool goes_on = (before == CLIENT_UP || before == CLIENT_BACK)
                   && client->resumable && status != FARBLK_PROTOCOL;
    if (goes_on && before == CLIENT_UP) {
        client->broken = why;
        goes_on = resume_set_time(client, timer_now());
    }
    if (goes_on) {
        client->tried = why;
        client->state = CLIENT_AWAY;
        link = link_get(client->link);
        calls_detach(client, &batch);
        client->busy++; /* until the rings have given up what they hold */
        started = resume_start(client);
        pthread_cond_broadcast(&client->changed);
    }
    pthread_mutex_unlock(&client->mutex);
    if (goes_on) {
        log_line(before == CLIENT_UP ? FARBLK_LOG_INFO : FARBLK_LOG_DEBUG,
                 "%s; trying to go on", why.text);
        rings_away(client);
        pthread_mutex_lock(&client->mutex);
        client->busy--;
        pthread_cond_broadcast(&client->changed);
        pthread_mutex_unlock(&client->mutex);
        link_close(link, false);
        link_put(link);
        calls_run(client, &batch);
    }
    if (before == CLIENT_AWAY)
        return; /* that is known */
    if (!goes_on)
        session_lost(client, status, "%s", why.text);
    else if (!started)
        session_lost(client, FARBLK_NO_MEMORY,
                     "%.300s; there is no thread to go on with", why.text);
}

/* ------------------------------------------------------------ attempts */

/* Under the mutex: wait until `at_ms` or something has changed. */
static void
resume_wait(struct client *client, int64_t at_ms)
{
    const struct timespec until = {
        .tv_sec = (time_t)(at_ms / 1000),
        .tv_nsec = (long)(at_ms % 1000) * 1000000,
    };
    pthread_cond_timedwait(&client->changed, &client->mutex, &until);
}

/* Between one and a half of the pause that is due, so that clients which lost
 * the same server do not come back in step. */
static int64_t
resume_pause(const struct client *client)
{
    if (client->attempts == 0)
        return 0;
    unsigned doublings = client->attempts < 8 ? client->attempts : 8;
    int64_t pause = (int64_t)RESUME_PAUSE_MIN << doublings;
    if (pause > RESUME_PAUSE_MAX)
        pause = RESUME_PAUSE_MAX;
    if (pause > client->lease_ms / 8)
        pause = client->lease_ms / 8;
    uint64_t chance =
        (uint64_t)timer_now() ^ client->session ^ (uint64_t)(uintptr_t)client;
    chance *= UINT64_C(0x9e3779b97f4a7c15);
    return pause / 2 + (int64_t)((chance >> 32) % (uint64_t)(pause + 1));
}

/* Wait for the old link's end and for the next attempt; it may be lost by then.
 * False: it was, and the thread is not counted on any more. */
static bool
resume_next(struct client *client)
{
    struct error why, tried;
    pthread_mutex_lock(&client->mutex);
    while (client->state == CLIENT_AWAY
           && (client->link_running || client->busy > 0))
        pthread_cond_wait(&client->changed, &client->mutex);
    int64_t next_ms = timer_now() + resume_pause(client);
    while (client->state == CLIENT_AWAY) {
        int64_t now = timer_now();
        if (now >= client->until_ms || now >= next_ms)
            break;
        resume_wait(client,
                    next_ms < client->until_ms ? next_ms : client->until_ms);
    }
    bool away = client->state == CLIENT_AWAY;
    bool over = away && timer_now() >= client->until_ms;
    unsigned attempts = client->attempts++;
    why = client->broken;
    tried = client->tried;
    if (!away)
        client->resuming = false;
    pthread_mutex_unlock(&client->mutex);
    if (over)
        session_lost(client, FARBLK_DISCONNECTED,
                     "%.250s; %u attempts to go on failed, the last: %.150s",
                     why.text, attempts, tried.text);
    return away;
}

static int64_t
resume_attempt_until(struct client *client)
{
    pthread_mutex_lock(&client->mutex);
    unsigned doublings = client->attempts < 8 ? client->attempts - 1 : 7;
    int64_t most = (int64_t)RESUME_ATTEMPT_MS << doublings;
    if (most > client->lease_ms / 3)
        most = client->lease_ms / 3;
    if (most < RESUME_ATTEMPT_MS)
        most = RESUME_ATTEMPT_MS;
    int64_t now = timer_now(), left = client->until_ms - now;
    pthread_mutex_unlock(&client->mutex);
    return now + (left < 1 ? 1 : left < most ? left : most);
}

static void
resume_failed(struct client *client, const struct error *error)
{
    log_debug("%s: %s", client->target, error->text);
    pthread_mutex_lock(&client->mutex);
    client->tried = *error;
    pthread_mutex_unlock(&client->mutex);
}

/* Nobody listens there any more: the server has ended, and the session with it.
 * Who asked for it by reconnect= waits for one to come back all the same. */
static bool
resume_refused(struct client *client, const struct error *error)
{
    if (client->reconnect_ms > 0)
        return false;
    pthread_mutex_lock(&client->mutex);
    client->session_gone = true;
    struct error why = client->broken;
    pthread_mutex_unlock(&client->mutex);
    session_lost(client, FARBLK_DISCONNECTED, "%.300s; %.150s", why.text,
                 error->text);
    return true;
}

/* Connect.  False: not this time. */
static bool
resume_dial(struct client *client, int64_t until_ms)
{
    bool refused;
    const struct link_limits limits = {
        .max_payload = WIRE_PAYLOAD_CEILING,
        .greeting_ms = client->connect_ms,
        .frame_ms = CLIENT_FRAME_MS,
        .keepalive = true,
        .refused = &refused,
    };
    struct link *link, *old = NULL;
    struct error error;
    int64_t left = until_ms - timer_now();
    if (link_dial(client->url, client->tls, (int32_t)(left > 0 ? left : 1),
                  &limits, &link, &error)
        != 0) {
        if (!refused || !resume_refused(client, &error))
            resume_failed(client, &error);
        return false;
    }
    pthread_mutex_lock(&client->mutex);
    bool away = client->state == CLIENT_AWAY;
    if (away) {
        old = client->link;
        client->link = link;
        client->link_running = true;
        client->state = CLIENT_BACK;
        client_enter(client); /* the link's */
    }
    pthread_mutex_unlock(&client->mutex);
    link_put(old);
    if (away) {
        link_start(link, &session_events, client);
    } else {
        link_close(link, false);
        link_put(link);
    }
    return away;
}

/* Show the secret.  False: it was not answered. */
static bool
resume_show(struct client *client, int64_t until_ms, struct codec_reply *reply)
{
    struct codec_request request;
    struct error error;
    request.method = WIRE_PING;
    request.handle = 0;
    request.has_secret = true;
    memcpy(request.secret, client->secret, WIRE_SECRET_SIZE);
    request.args.ping.take_over = true;
    if (session_call(client, &request, true, until_ms, reply, &error) == 0)
        return true;
    resume_broken(client, FARBLK_CONNECTION_LOST, "%s", error.text);
    return false;
}

/* The session lives: everything goes on.  False: the link has broken again. */
static bool
resume_finish(struct client *client)
{
    struct batch batch = {NULL, NULL, NULL, NULL};
    unsigned again = 0;
    pthread_mutex_lock(&client->mutex);
    bool back = client->state == CLIENT_BACK;
    if (back) {
        client->state = CLIENT_UP;
        client->resuming = false;
        again = calls_resend(client, &batch);
        calls_pump(client, &batch);
        watch_issue(client, &batch);
        rings_renew_at_once(client);
        pthread_cond_broadcast(&client->changed);
    }
    unsigned attempts = client->attempts;
    pthread_mutex_unlock(&client->mutex);
    calls_run(client, &batch);
    if (back)
        log_info("%s: the session goes on over a new connection, attempt %u; "
                 "%u requests were sent again",
                 client->target, attempts, again);
    return back;
}

/* There is a link: the session on it, or another one.  False: it was broken
 * again, or is lost. */
static bool
resume_handshake(struct client *client, int64_t until_ms)
{
    struct codec_reply reply;
    if (!resume_show(client, until_ms, &reply))
        return false;
    pthread_mutex_lock(&client->mutex);
    bool refused = client->refused;
    client->refused = false;
    pthread_mutex_unlock(&client->mutex);
    if (reply.status == FARBLK_DISCONNECTED || reply.status == FARBLK_DENIED
        || reply.status == FARBLK_NOT_FOUND) {
        if (!session_begin_again(client, until_ms, reply.text))
            return false;
    } else if (reply.status != 0) {
        resume_broken(client, FARBLK_CONNECTION_LOST,
                      "the session at %s does not go on: %s", client->target,
                      reply.text);
        return false;
    } else if (refused) {
        session_lost(client, FARBLK_CONNECTION_LOST, "%s", client->broken.text);
        return false;
    }
    return client->handle != 0 || session_open_again(client, until_ms);
}

static void *
resume_thread(void *arg)
{
    struct client *client = arg;
    while (resume_next(client)) {
        int64_t until_ms = resume_attempt_until(client);
        if (resume_dial(client, until_ms) && resume_handshake(client, until_ms)
            && resume_finish(client))
            break;
    }
    client_leave(client);
    return NULL;
}
