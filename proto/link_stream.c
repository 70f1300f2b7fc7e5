/* SPDX-License-Identifier: ISC */
/*
 * Links over nng streams: their life.
 */
#include "proto/link_stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void watched(void *arg);

static void
earlier(int64_t *at, int64_t than)
{
    if (*at == 0 || than < *at)
        *at = than;
}

/* With the mutex: the next moment at which something must have happened. */
static int64_t
next_deadline(struct stream_link *link)
{
    int64_t at = 0;

    if (link->started && !link->greeted && link->limits.greeting_ms > 0)
        earlier(&at, link->born + link->limits.greeting_ms);
    if (link->receive_since != 0 && link->limits.frame_ms > 0)
        earlier(&at, link->receive_since + link->limits.frame_ms);
    if (link->send_since != 0 && link->limits.frame_ms > 0)
        earlier(&at, link->send_since + link->limits.frame_ms);
    if (link->draining && !link->sending && link->queue.first == NULL)
        earlier(&link->close_at, link->last_sent + STREAM_LINGER_MS);
    if (link->close_at != 0)
        earlier(&at, link->close_at);
    return at;
}

void
stream_watch(struct stream_link *link)
{
    int64_t at = next_deadline(link);

    if (at == 0 || link->ended)
        return;
    if (link->watching) {
        if (at < link->watch_until) {
            link->watch_until = at;
            nng_aio_cancel(link->watch); /* it looks again */
        }
        return;
    }
    int64_t now = link_now();
    link->watching = true;
    link->watch_until = at;
    nng_sleep_aio((nng_duration)(at > now ? at - now : 0), link->watch);
}

void
stream_settle(struct stream_link *link)
{
    if (!link->started || !link->ended || link->finished || link->receiving
        || link->sending || link->watching)
        return;
    stream_kick(link);
}

static void
shut(struct stream_link *link)
{
    pthread_mutex_lock(&link->receive_gate);
    pthread_mutex_lock(&link->send_gate);
    if (!link->shut) {
        link->shut = true;
        nng_stream_close(link->stream);
    }
    pthread_mutex_unlock(&link->send_gate);
    pthread_mutex_unlock(&link->receive_gate);
}

void
stream_end(struct stream_link *link, int status, const char *format, ...)
{
    va_list args;

    pthread_mutex_lock(&link->mutex);
    bool first = !link->ended;
    if (first) {
        link->ended = true;
        if (link->draining) {
            link->status = 0;
            link->reason[0] = 0;
        } else {
            link->status = status;
            va_start(args, format);
            vsnprintf(link->reason, sizeof link->reason, format, args);
            va_end(args);
        }
    }
    pthread_mutex_unlock(&link->mutex);
    if (!first)
        return;
    shut(link);
    pthread_mutex_lock(&link->mutex);
    if (link->watching)
        nng_aio_cancel(link->watch);
    stream_settle(link);
    pthread_mutex_unlock(&link->mutex);
}

/* Tell what is over, if it is.  Runs in the callback of the watch. */
static bool
expired(struct stream_link *link, int64_t now, struct error *error)
{
    const struct link_limits *limits = &link->limits;

    error_clear(error);
    if (link->close_at != 0 && now >= link->close_at)
        error_set(error, FARBLK_CONNECTION_LOST, "sending failed: %s",
                  nng_strerror(link->send_error));
    else if (!link->greeted && limits->greeting_ms > 0
             && now >= link->born + limits->greeting_ms)
        error_set(error, FARBLK_TIMED_OUT, "no greeting within %d ms",
                  limits->greeting_ms);
    else if (link->receive_since != 0 && limits->frame_ms > 0
             && now >= link->receive_since + limits->frame_ms)
        error_set(error, FARBLK_TIMED_OUT,
                  "a message that was begun is not complete after %d ms",
                  limits->frame_ms);
    else if (link->send_since != 0 && limits->frame_ms > 0
             && now >= link->send_since + limits->frame_ms)
        error_set(error, FARBLK_TIMED_OUT,
                  "the peer takes nothing that is sent for %d ms",
                  limits->frame_ms);
    return error->status != 0;
}

static void
watched(void *arg)
{
    struct stream_link *link = arg;
    struct error error;

    pthread_mutex_lock(&link->mutex);
    if (!link->ended && expired(link, link_now(), &error)) {
        pthread_mutex_unlock(&link->mutex);
        stream_end(link, error.status, "%s", error.text);
        pthread_mutex_lock(&link->mutex);
    }
    link->watching = false;
    stream_watch(link);
    stream_settle(link);
    pthread_mutex_unlock(&link->mutex);
}

/* With the mutex, which it lets go: nothing is under way any more, the rest is
 * told.  The link may be gone afterwards. */
void
stream_finish(struct stream_link *link)
{
    for (;;) {
        struct link_queue dead;
        link_queue_init(&dead);
        link_queue_move(&dead, &link->begun);
        link_queue_move(&dead, &link->queue);
        link->filling = NULL;
        if (dead.first == NULL && !link->in_payload)
            break;
        pthread_mutex_unlock(&link->mutex);
        if (link->in_payload) {
            link->in_payload = false;
            link->events->drop(link->arg, link->sink.frame);
        }
        link_queue_flush(&dead, FARBLK_CONNECTION_LOST);
        pthread_mutex_lock(&link->mutex);
    }
    link->finished = true;
    pthread_mutex_unlock(&link->mutex);
    link->events->closed(link->arg, link->status, link->reason);
    link_put(&link->base);
}

static void
stream_start(struct link *base, const struct link_events *events, void *arg)
{
    struct stream_link *link = (struct stream_link *)base;

    pthread_mutex_lock(&link->mutex);
    if (link->started) {
        pthread_mutex_unlock(&link->mutex);
        return;
    }
    link_get(base); /* until the end is told */
    link->started = true;
    link->events = events;
    link->arg = arg;
    link->born = link_now();
    if (link->ended) { /* closed before */
        stream_settle(link);
        pthread_mutex_unlock(&link->mutex);
        return;
    }
    link->receiving = true;
    link->sending = true;
    stream_watch(link);
    pthread_mutex_unlock(&link->mutex);
    stream_send_start(link);
    if (!stream_receive_start(link)) {
        pthread_mutex_lock(&link->mutex);
        link->receiving = false;
        stream_settle(link);
        pthread_mutex_unlock(&link->mutex);
    }
}

static bool
stream_ended(struct link *base)
{
    struct stream_link *link = (struct stream_link *)base;

    pthread_mutex_lock(&link->mutex);
    bool ended = link->ended;
    pthread_mutex_unlock(&link->mutex);
    return ended;
}

static void
stream_hold(struct link *base)
{
    struct stream_link *link = (struct stream_link *)base;

    pthread_mutex_lock(&link->mutex);
    link->held = true;
    pthread_mutex_unlock(&link->mutex);
}

static void
stream_release(struct link *base)
{
    struct stream_link *link = (struct stream_link *)base;

    pthread_mutex_lock(&link->mutex);
    link->held = false;
    /* On a thread of nng: the caller may hold locks that head() wants. */
    if (link->started && !link->receiving && !link->ended)
        stream_kick(link);
    pthread_mutex_unlock(&link->mutex);
}

static void
stream_close(struct link *base, bool drain)
{
    struct stream_link *link = (struct stream_link *)base;

    pthread_mutex_lock(&link->mutex);
    if (drain && link->started && !link->ended && !link->send_failed) {
        if (!link->draining) {
            link->draining = true;
            link->close_at = link_now() + STREAM_DRAIN_MS;
            stream_watch(link);
        }
        pthread_mutex_unlock(&link->mutex);
        return;
    }
    link->draining = true; /* so that it is told as what it is */
    pthread_mutex_unlock(&link->mutex);
    stream_end(link, 0, "closed");
}

static void
stream_free(struct link *base)
{
    struct stream_link *link = (struct stream_link *)base;

    /* Never started: nobody else has told these. */
    link_queue_flush(&link->queue, FARBLK_CONNECTION_LOST);
    /* Whoever began the last operation has left the gate behind it. */
    pthread_mutex_lock(&link->receive_gate);
    pthread_mutex_unlock(&link->receive_gate);
    pthread_mutex_lock(&link->send_gate);
    pthread_mutex_unlock(&link->send_gate);
    pthread_mutex_lock(&link->mutex);
    pthread_mutex_unlock(&link->mutex);

    timer_disarm(&link->keeper);
    stream_tls_free(link->tls);
    /* This may be a callback of one of these: nng frees them on a thread of
     * its own. */
    if (link->stream != NULL)
        nng_stream_free(link->stream);
    nng_aio_reap(link->receive);
    nng_aio_reap(link->receive_here);
    nng_aio_reap(link->send);
    nng_aio_reap(link->send_here);
    nng_aio_reap(link->watch);
    pthread_mutex_destroy(&link->receive_gate);
    pthread_mutex_destroy(&link->send_gate);
    pthread_mutex_destroy(&link->mutex);
    free(link->buffer);
    free(link->staging);
    free(link);
}

static const struct link_ops stream_ops = {
    .start = stream_start,
    .send = stream_send,
    .recall = stream_recall,
    .hold = stream_hold,
    .release = stream_release,
    .close = stream_close,
    .free = stream_free,
    .push = stream_push,
    .attend = stream_attend,
    .left = stream_left,
    .wake = stream_wake,
    .mind = stream_mind,
    .ended = stream_ended,
};

struct stream_link *
stream_create(nng_stream *stream, const char *scheme, bool server,
              struct link_tls *tls, const struct link_limits *limits)
{
    struct stream_link *link = calloc(1, sizeof *link);

    if (link == NULL) {
        nng_stream_free(stream);
        return NULL;
    }
    link_init(&link->base, &stream_ops);
    link->stream = stream;
    link->ipc = !link_is_tcp(scheme);
    link->peer_protocol = server ? WIRE_SP_REQ : WIRE_SP_REP;
    link->limits = *limits;
    pthread_mutex_init(&link->receive_gate, NULL);
    pthread_mutex_init(&link->send_gate, NULL);
    pthread_mutex_init(&link->mutex, NULL);
    link_queue_init(&link->queue);
    link->buffer = malloc(STREAM_BUFFER);
    link->staging = malloc(STREAM_STAGING);
    if (tls != NULL)
        link->tls = stream_tls_create(tls);
    if (link->buffer == NULL || link->staging == NULL
        || (tls != NULL && link->tls == NULL)
        || nng_aio_alloc(&link->receive, stream_received, link) != 0
        || nng_aio_alloc(&link->receive_here, NULL, NULL) != 0
        || nng_aio_alloc(&link->send, stream_sent, link) != 0
        || nng_aio_alloc(&link->send_here, NULL, NULL) != 0
        || nng_aio_alloc(&link->watch, watched, link) != 0) {
        stream_free(&link->base);
        return NULL;
    }
    stream_send_init(link, server ? WIRE_SP_REP : WIRE_SP_REQ);
    return link;
}
