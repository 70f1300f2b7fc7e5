/* SPDX-License-Identifier: ISC */
/*
 * Receiving in the thread that waits.
 *
 * It owns the receive for as long as it attends, with an operation that has no
 * callback: nng's poller wakes it and no other thread.  When it leaves, nobody
 * owns the receive until it comes back, or another thread does, or LINK_KEEP_MS
 * have passed and the keeper gives it to nng's threads.  Those hand it over again
 * when they have woken the one thread that waits: that one is about to come back.
 */
#include "proto/link_stream.h"

void
stream_kick(struct stream_link *link)
{
    link->receiving = true;
    link->kicked = true;
    link->keep_at = 0;
    if (nng_aio_begin(link->receive))
        nng_aio_finish(link->receive, 0);
}

static void
keeper_fired(struct timer *timer)
{
    struct stream_link *link =
        (struct stream_link *)((char *)timer
                               - offsetof(struct stream_link, keeper));

    pthread_mutex_lock(&link->mutex);
    link->keeping = false;
    if (link->keep_at != 0 && !link->ended) {
        if (link_now() < link->keep_at)
            link->keeping = timer_arm(timer, link->keep_at, keeper_fired);
        if (!link->keeping)
            stream_kick(link);
    }
    pthread_mutex_unlock(&link->mutex);
}

void
stream_leave(struct stream_link *link)
{
    link->receiving = false;
    link->receive_since = link->message_since;
    link->keep_at = link_now() + LINK_KEEP_MS;
    if (!link->keeping)
        link->keeping = timer_arm(&link->keeper, link->keep_at, keeper_fired);
    if (!link->keeping)
        stream_kick(link);
}

/* Receive something and wait for it, at most until until_ms.  False: nothing
 * came. */
static bool
attend_once(struct stream_link *link, struct attendance *attendance,
            int64_t until_ms)
{
    nng_iov iov[STREAM_IOVECS];
    unsigned count = stream_prepare_receive(link, iov);
    if (count == 0)
        return true;
    int64_t left = until_ms < 0 ? 0 : until_ms - link_now();
    bool waits = until_ms < 0 || left > 0;
    nng_aio *aio = link->receive_here;

    if (waits && stream_spin(link, attendance, count, iov))
        return true;
    pthread_mutex_lock(&link->receive_gate);
    bool begins =
        !link->shut
        && !atomic_load_explicit(&attendance->woken, memory_order_relaxed);
    if (begins) {
        nng_aio_set_timeout(aio, until_ms < 0 || left > INT32_MAX || !waits
                                     ? NNG_DURATION_INFINITE
                                     : (nng_duration)left);
        nng_aio_set_iov(aio, count, iov);
        nng_stream_recv(link->stream, aio);
    }
    pthread_mutex_unlock(&link->receive_gate);
    if (!begins)
        return false;
    if (!waits)
        nng_aio_cancel(aio);
    stream_wait_begins(link);
    nng_aio_wait(aio);
    stream_wait_ended(link);
    nng_aio_set_timeout(aio, NNG_DURATION_INFINITE);
    int result = nng_aio_result(aio);
    if (result == NNG_ECANCELED || result == NNG_ETIMEDOUT)
        return false;
    stream_take_result(link, result, nng_aio_count(aio));
    return true;
}

/* Deliver all that is in the buffer.  False: held, or over. */
static bool
attend_deliver(struct stream_link *link)
{
    bool corked = false, stops;

    do {
        pthread_mutex_lock(&link->mutex);
        stops = link->ended
                || ((link->held || link->draining) && !link->in_payload);
        if (!stops)
            corked = link->corked = true;
        pthread_mutex_unlock(&link->mutex);
    } while (!stops && stream_advance(link));
    if (corked)
        stream_uncork(link);
    return !stops;
}

bool
stream_attend(struct link *base, struct attendance *attendance,
              int64_t until_ms)
{
    struct stream_link *link = (struct stream_link *)base;

    pthread_mutex_lock(&link->mutex);
    bool takes = link->started && link->greeted && !link->receiving
                 && !link->held && !link->draining && !link->ended
                 && !link->minded && link->waiters == 0;
    if (!takes) {
        link->waiters++;
        link->waiter = link->waiters == 1 ? attendance : NULL;
        if (link->started && !link->receiving && !link->ended)
            stream_kick(link);
        pthread_mutex_unlock(&link->mutex);
        return false;
    }
    link->receiving = true;
    link->attendant = attendance;
    link->keep_at = 0;
    pthread_mutex_unlock(&link->mutex);

    bool over = false;
    while (attend_deliver(link) && !over
           && !atomic_load_explicit(&attendance->woken, memory_order_relaxed)) {
        over = until_ms >= 0 && link_now() >= until_ms;
        if (!attend_once(link, attendance, over ? 0 : until_ms))
            break;
    }

    pthread_mutex_lock(&link->mutex);
    link->attendant = NULL;
    if (link->ended) {
        link->receiving = false;
        stream_settle(link);
    } else if (link->waiters > 0 || link->minded || link->held
               || link->draining) {
        stream_kick(link);
    } else {
        stream_leave(link);
    }
    pthread_mutex_unlock(&link->mutex);
    return true;
}

void
stream_left(struct link *base)
{
    struct stream_link *link = (struct stream_link *)base;

    pthread_mutex_lock(&link->mutex);
    link->waiters--;
    link->waiter = NULL;
    pthread_mutex_unlock(&link->mutex);
}

void
stream_wake(struct link *base, struct attendance *attendance)
{
    struct stream_link *link = (struct stream_link *)base;

    pthread_mutex_lock(&link->receive_gate);
    atomic_store_explicit(&attendance->woken, true, memory_order_relaxed);
    pthread_mutex_lock(&link->mutex);
    bool attends = link->attendant == attendance;
    pthread_mutex_unlock(&link->mutex);
    if (attends)
        nng_aio_cancel(link->receive_here);
    pthread_mutex_unlock(&link->receive_gate);
}

void
stream_mind(struct link *base, bool forever)
{
    struct stream_link *link = (struct stream_link *)base;

    pthread_mutex_lock(&link->mutex);
    if (forever)
        link->minded = true;
    if (link->started && !link->receiving && !link->ended && !link->held)
        stream_kick(link);
    pthread_mutex_unlock(&link->mutex);
}
