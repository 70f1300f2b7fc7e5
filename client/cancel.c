/* SPDX-License-Identifier: ISC */
/*
 * Giving up requests that change the device, so that it is known what became of
 * them, and that they are not begun later.
 *
 * When the time of such a request is over the server is asked to cancel it, and
 * for a moment (cancel_grace_ms()) the request stays.  It ends with what comes
 * first:
 *
 *   its own reply              the outcome, whatever that is
 *   Cancel's: it is fenced     TIMED_OUT, and nothing has happened
 *   the moment is over         TIMED_OUT, and nobody knows
 *
 * In the last case there is doubt until the server has answered the Cancel: it
 * may begin the request yet.  As long as there is, nothing else is sent, so that
 * nothing that the program does afterwards is overtaken by what it has given up.
 * A connection that breaks ends the doubt as well, for the next one takes the
 * session over.
 *
 * A server that does not know the feature is not asked: then nobody knows at
 * once.
 */
#include "client/rings.h"

#include "core/request.h"

#include <stdlib.h>

/* One request that was given up.  Under client.mutex. */
struct cancel {
    struct cancel *next; /* in client.cancels */
    uint64_t number;
    int64_t until_ms;
    struct call *call; /* whose io waits; NULL: that has ended, or ... */
    struct client_ring *ring; /* it is in this ring, or NULL; a reference */
    uint32_t tag;
    struct call *sent; /* the Cancel that is under way, or NULL */
    bool answered; /* it was */
    bool told; /* the io has ended, and nobody knows */
};

const char cancel_text_late[] =
    "the server did not answer within the request's time";
const char cancel_text_fenced[] =
    "the server did not begin it within the request's time, and will not";

struct cancel_bounds cancel_bounds = {CLIENT_GRACE_MIN, CLIENT_GRACE_MAX};

/* The moment: as long again as the request had. */
static int64_t
cancel_grace_ms(int32_t timeout_ms)
{
    const struct cancel_bounds *bounds = &cancel_bounds;
    return timeout_ms < bounds->least  ? bounds->least
           : timeout_ms > bounds->most ? bounds->most
                                       : timeout_ms;
}

static bool
cancel_doubtful(const struct cancel *cancel)
{
    return cancel->told && !cancel->answered;
}

/* Take it out and free it. */
static void
cancel_drop(struct client *client, struct cancel *cancel)
{
    struct cancel **link = &client->cancels;
    while (*link != cancel)
        link = &(*link)->next;
    *link = cancel->next;
    if (cancel->call != NULL)
        cancel->call->cancel = NULL;
    if (cancel_doubtful(cancel))
        atomic_fetch_sub(&client->doubts, 1);
    if (cancel->ring != NULL)
        ring_put(cancel->ring);
    free(cancel);
}

/* It is kept while it is asked, or somebody waits. */
static void
cancel_check(struct client *client, struct cancel *cancel)
{
    bool waits =
        !cancel->told && (cancel->call != NULL || cancel->ring != NULL);
    if (!waits && cancel->sent == NULL && (cancel->answered || !cancel->told))
        cancel_drop(client, cancel);
}

void
cancel_send(struct client *client, struct batch *batch)
{
    for (struct cancel *c = client->cancels; c != NULL; c = c->next) {
        struct codec_request request;
        if (c->sent != NULL || c->answered)
            continue;
        if (client->state != CLIENT_UP
            || client->total + 1 >= client->limits.max_requests)
            return;
        request.method = WIRE_CANCEL;
        request.handle = 0;
        request.has_secret = false;
        request.args.cancel.number = c->number;
        c->sent = send_own(client, &request, false, NULL, batch);
        if (c->sent == NULL)
            return;
    }
}

/* ------------------------------------------------------------ the moment */

static void cancel_tick(struct timer *timer);

/* The next moment to end is this one, or the one that is waited for. */
static bool
cancel_arm(struct client *client, int64_t until_ms)
{
    if (client->grace_ms == 0) {
        client->grace_ms = until_ms;
        if (timer_arm(&client->grace, until_ms, cancel_tick))
            return true;
        client->grace_ms = 0;
        return false;
    }
    if (until_ms < client->grace_ms)
        timer_hasten(&client->grace);
    return true;
}

/* The moment of this one is over.  True: its io is in a ring. */
static bool
cancel_over(struct client *client, struct cancel *cancel, struct batch *batch)
{
    struct call *call = cancel->call;
    cancel->told = true;
    if (cancel_doubtful(cancel))
        atomic_fetch_add(&client->doubts, 1);
    if (call == NULL)
        return cancel->ring != NULL;
    cancel->call = NULL;
    call->cancel = NULL;
    call->doubted = true;
    if (call->holds == 0)
        calls_settle(call, batch);
    return false;
}

static void
cancel_tick(struct timer *timer)
{
    struct client *client =
        (struct client *)((char *)timer - offsetof(struct client, grace));
    struct batch batch = {NULL, NULL, NULL, NULL};
    client_enter(client);
    pthread_mutex_lock(&client->mutex);
    const int64_t now_ms = timer_now();
    int64_t next_ms = 0;
    client->grace_ms = 0;
    for (struct cancel *c = client->cancels, *next; c != NULL; c = next) {
        next = c->next;
        if (c->told || (c->call == NULL && c->ring == NULL))
            continue;
        if (c->until_ms > now_ms) {
            next_ms =
                next_ms == 0 || c->until_ms < next_ms ? c->until_ms : next_ms;
            continue;
        }
        bool ringed = cancel_over(client, c, &batch);
        struct client_ring *ring = c->ring;
        const uint32_t tag = c->tag;
        const uint64_t number = c->number;
        if (ringed)
            ring_get(ring);
        cancel_check(client, c);
        if (!ringed)
            continue;
        pthread_mutex_unlock(&client->mutex);
        rings_give_up(ring, tag, number, FARBLK_EFFECT_UNKNOWN);
        ring_put(ring);
        pthread_mutex_lock(&client->mutex);
        next = client->cancels; /* it may be another list by now */
        next_ms = 0;
    }
    if (next_ms != 0 && client->state != CLIENT_LOST)
        cancel_arm(client, next_ms);
    pthread_mutex_unlock(&client->mutex);
    calls_run(client, &batch);
    client_leave(client);
}

/* ------------------------------------------------------------ giving up */

/* One more, which is asked for at once if that can be.  False without memory. */
static bool
cancel_begin(struct client *client, int32_t timeout_ms,
             const struct cancel *what, struct batch *batch)
{
    struct cancel *cancel = malloc(sizeof *cancel), **end = &client->cancels;
    if (cancel == NULL)
        return false;
    *cancel = *what;
    cancel->until_ms = timer_now() + cancel_grace_ms(timeout_ms);
    if (!cancel_arm(client, cancel->until_ms)) {
        free(cancel);
        return false;
    }
    while (*end != NULL)
        end = &(*end)->next;
    *end = cancel;
    if (cancel->call != NULL)
        cancel->call->cancel = cancel;
    cancel_send(client, batch);
    return true;
}

bool
cancel_waits(struct call *call, struct batch *batch)
{
    struct client *client = call->client;
    const struct io *io = call->io;
    if (call->cancel != NULL)
        return true;
    if (!client->fences || !calls_changes(io->op) || call->number == 0
        || call->fenced || call->doubted || call->refused)
        return false;
    const struct cancel what = {.number = call->number, .call = call};
    return cancel_begin(client, io->request->timeout_ms, &what, batch);
}

bool
cancel_waits_in_ring(struct client *client, int32_t timeout_ms,
                     struct client_ring *ring, uint32_t tag, uint64_t number,
                     struct batch *batch)
{
    const struct cancel what = {.number = number, .ring = ring, .tag = tag};
    return client->fences && client->state != CLIENT_LOST
           && cancel_begin(client, timeout_ms, &what, batch);
}

/* ------------------------------------------------------------ what happens */

void
cancel_io_ended(struct call *call)
{
    struct cancel *cancel = call->cancel;
    if (cancel == NULL)
        return;
    call->cancel = NULL;
    cancel->call = NULL;
    cancel_check(call->client, cancel);
}

static struct cancel *
cancel_of(struct client *client, const struct call *sent)
{
    struct cancel *cancel = client->cancels;
    while (cancel != NULL && cancel->sent != sent)
        cancel = cancel->next;
    return cancel;
}

void
cancel_unsent(struct call *sent)
{
    struct cancel *cancel = cancel_of(sent->client, sent);
    if (cancel == NULL)
        return;
    cancel->sent = NULL;
    cancel_check(sent->client, cancel);
}

struct cancel_ring
cancel_replied(struct call *sent, const struct codec_reply *reply,
               struct batch *batch)
{
    struct client *client = sent->client;
    struct cancel_ring ringed = {.ring = NULL};
    struct cancel *cancel = cancel_of(client, sent);
    if (cancel == NULL)
        return ringed;
    cancel->sent = NULL;
    if (cancel_doubtful(cancel))
        atomic_fetch_sub(&client->doubts, 1);
    cancel->answered = true;
    if (reply->status == 0 && reply->result.cancel.fenced && !cancel->told) {
        struct call *call = cancel->call;
        ringed =
            (struct cancel_ring){cancel->ring, cancel->tag, cancel->number};
        cancel->ring = NULL;
        cancel->call = NULL;
        if (call != NULL) {
            call->cancel = NULL;
            call->fenced = true;
            if (call->holds == 0)
                calls_settle(call, batch);
        }
    }
    cancel_check(client, cancel);
    return ringed;
}

void
cancel_away(struct client *client, bool session)
{
    for (struct cancel *c = client->cancels, *next; c != NULL; c = next) {
        next = c->next;
        if (session || c->told || c->ring != NULL)
            cancel_drop(client, c);
        else
            c->answered = false;
    }
}

void
cancel_fini(struct client *client)
{
    while (client->cancels != NULL)
        cancel_drop(client, client->cancels);
}
