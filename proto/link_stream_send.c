/* SPDX-License-Identifier: ISC */
/*
 * Sending over an nng stream.
 *
 * Messages queue up while a send is under way.  When it is over, everything
 * that waits goes into the next one: heads and small buffers are copied into
 * the staging buffer, large ones are sent from where they are.  What a partial
 * send left stands at the front of the next.
 *
 * While the receiver delivers what one read brought the link is corked: the
 * answers go out together afterwards, from the receiver's thread.  Eager
 * messages as well are sent from the thread that brings them; only what the
 * socket does not take at once waits for nng's threads.
 *
 * With TLS what is gathered is encrypted into its buffer, and what it has there
 * is sent; a message counts as sent when it has been encrypted.
 */
#include "proto/link_stream.h"

#include <stdio.h>
#include <string.h>

/* Copy up to `length` octets behind what is to be sent.  Returns how many. */
static size_t
stage(struct stream_link *link, const void *from, size_t length)
{
    uint8_t *to = link->staging + link->staged;
    nng_iov *last = link->iovcnt > 0 ? &link->iov[link->iovcnt - 1] : NULL;

    if (length > STREAM_STAGING - link->staged)
        length = STREAM_STAGING - link->staged;
    if (length == 0)
        return 0;
    if (last == NULL || (uint8_t *)last->iov_buf + last->iov_len != to) {
        if (link->iovcnt == STREAM_IOVECS)
            return 0;
        last = &link->iov[link->iovcnt++];
        last->iov_buf = to;
        last->iov_len = 0;
    }
    memcpy(to, from, length);
    last->iov_len += length;
    link->staged += length;
    link->filled += length;
    return length;
}

/* Whether the staging buffer takes `length` octets now. */
static bool
stages(const struct stream_link *link, size_t length)
{
    const nng_iov *last = &link->iov[STREAM_IOVECS - 1];

    if (length > STREAM_STAGING - link->staged)
        return false;
    return link->iovcnt < STREAM_IOVECS
           || (uint8_t *)last->iov_buf + last->iov_len
                  == link->staging + link->staged;
}

/* The next message, whose head fits; NULL: none, or it does not fit. */
static struct link_message *
take(struct stream_link *link)
{
    struct link_message *message = NULL;

    pthread_mutex_lock(&link->mutex);
    if (link->queue.first != NULL
        && stages(link, SP_BEFORE_HEADER + link->queue.first->header_length)) {
        message = link_queue_take(&link->queue);
        message->state = LINK_MESSAGE_BEGUN;
    }
    pthread_mutex_unlock(&link->mutex);
    return message;
}

static void
begin(struct stream_link *link, struct link_message *message)
{
    uint8_t prefix[SP_PREFIX_MAX], header_length[4];
    uint64_t body = message->stack_length + 4 + message->header_length
                    + message->payload_length;

    stage(link, prefix, sp_put_prefix(prefix, link->ipc, body));
    stage(link, message->stack, message->stack_length);
    sp_put32(header_length, (uint32_t)message->header_length);
    stage(link, header_length, sizeof header_length);
    stage(link, message->header, message->header_length);
    link_queue_append(&link->begun, message);
    link->filling = message;
    link->fill_at = 0;
    link->fill_done = 0;
}

/* Go on with the payload of the message under way.  False: no room. */
static bool
fill_payload(struct stream_link *link)
{
    struct link_message *message = link->filling;

    while (link->fill_at < message->iovcnt) {
        const struct iovec *from = &message->iov[link->fill_at];
        uint8_t *base = (uint8_t *)from->iov_base + link->fill_done;
        size_t rest = from->iov_len - link->fill_done;
        if (rest > 0 && rest < STREAM_COPY) {
            size_t done = stage(link, base, rest);
            if (done == 0)
                return false;
            link->fill_done += done;
            if (done < rest)
                return false;
        } else if (rest > 0) {
            if (link->iovcnt == STREAM_IOVECS)
                return false;
            link->iov[link->iovcnt].iov_buf = base;
            link->iov[link->iovcnt++].iov_len = rest;
            link->filled += rest;
        }
        link->fill_at++;
        link->fill_done = 0;
    }
    message->end = link->filled;
    link->filling = NULL;
    return true;
}

static void
fill(struct stream_link *link)
{
    for (;;) {
        if (link->filling == NULL) {
            struct link_message *message = take(link);
            if (message == NULL)
                return;
            begin(link, message);
        }
        if (!fill_payload(link))
            return;
    }
}

/* With the mutex: the owner has nothing to send, or can not. */
static void
leave(struct stream_link *link)
{
    link->sending = false;
    link->send_since = 0;
    if (link->draining || link->send_failed)
        stream_watch(link);
    stream_settle(link);
}

/* `count` octets have gone. */
static void
advance(struct stream_link *link, size_t count)
{
    unsigned at = 0;

    link->gone += count;
    while (at < link->iovcnt && count >= link->iov[at].iov_len)
        count -= link->iov[at++].iov_len;
    link->iovcnt -= at;
    memmove(link->iov, link->iov + at, link->iovcnt * sizeof link->iov[0]);
    if (link->iovcnt == 0) {
        link->staged = 0;
        return;
    }
    link->iov[0].iov_buf = (uint8_t *)link->iov[0].iov_buf + count;
    link->iov[0].iov_len -= count;
}

/* `count` octets have gone: tell whose message is wholly gone. */
static void
settle(struct stream_link *link, size_t count)
{
    struct link_queue done;

    advance(link, count);
    link_queue_init(&done);
    while (link->begun.first != NULL && link->begun.first != link->filling
           && link->begun.first->end <= link->gone)
        link_queue_append(&done, link_queue_take(&link->begun));
    pthread_mutex_lock(&link->mutex);
    link->last_sent = link_now();
    pthread_mutex_unlock(&link->mutex);
    link_queue_flush(&done, 0);
}

/* The transport has taken `count` octets. */
static void
went(struct stream_link *link, size_t count)
{
    if (link->tls == NULL) {
        settle(link, count);
        return;
    }
    stream_tls_gone(link->tls, count);
    pthread_mutex_lock(&link->mutex);
    link->last_sent = link_now();
    pthread_mutex_unlock(&link->mutex);
}

/* Sending failed: the owner leaves. */
static void
give_up(struct stream_link *link, int result)
{
    pthread_mutex_lock(&link->mutex);
    if (!link->send_failed && !link->ended) {
        /* Perhaps the peer said something before it went away: the
         * receiver gets time to find its end by itself. */
        link->send_failed = true;
        link->close_at = link_now() + STREAM_FAILED_MS;
        link->status = link_status_of(result);
        snprintf(link->reason, sizeof link->reason, "sending failed: %s",
                 nng_strerror(result));
    }
    leave(link);
    pthread_mutex_unlock(&link->mutex);
}

/* Gather what can go now.  With TLS it is encrypted, and so not needed any
 * more.  False: there is nothing. */
static bool
gather(struct stream_link *link)
{
    nng_iov outgoing;
    size_t sealed;

    fill(link);
    if (link->tls == NULL)
        return link->iovcnt > 0;
    while (link->iovcnt > 0) {
        if (!stream_tls_seal(link->tls, link->iov, link->iovcnt, &sealed)) {
            stream_end(link, FARBLK_CONNECTION_LOST, "TLS can not send");
            return false;
        }
        if (sealed == 0)
            break;
        settle(link, sealed);
        fill(link);
    }
    return stream_tls_outgoing(link->tls, &outgoing);
}

/* Something to send is there: false, when there is not and the owner left. */
static bool
prepare(struct stream_link *link)
{
    bool there = gather(link);

    pthread_mutex_lock(&link->mutex);
    while (!there && !link->ended
           && (link->stirred
               || (link->iovcnt == 0 && link->queue.first != NULL))) {
        link->stirred = false;
        pthread_mutex_unlock(&link->mutex); /* it came after gather() */
        there = gather(link);
        pthread_mutex_lock(&link->mutex);
    }
    there = there && !link->ended;
    if (!there)
        leave(link);
    pthread_mutex_unlock(&link->mutex);
    return there;
}

/* Begin a send with one of the two operations, of *total octets.  False: the
 * link is shut, and the owner left. */
static bool
begin_send(struct stream_link *link, nng_aio *aio, size_t *total)
{
    nng_iov outgoing, *iov = link->iov;
    unsigned count = link->iovcnt;

    if (link->tls != NULL && stream_tls_outgoing(link->tls, &outgoing)) {
        iov = &outgoing;
        count = 1;
    }
    *total = 0;
    for (unsigned i = 0; i < count; i++)
        *total += iov[i].iov_len;
    pthread_mutex_lock(&link->send_gate);
    bool over = link->shut;
    if (!over) {
        nng_aio_set_iov(aio, count, iov);
        nng_stream_send(link->stream, aio);
    }
    pthread_mutex_unlock(&link->send_gate);
    if (over) {
        pthread_mutex_lock(&link->mutex);
        leave(link);
        pthread_mutex_unlock(&link->mutex);
    }
    return !over;
}

enum send_outcome { SEND_WHOLE, SEND_SLOW, SEND_OVER };

/* Send from this thread, as much as goes at once: an operation without a
 * callback costs no other thread.  One that would wait is taken back. */
static enum send_outcome
send_here(struct stream_link *link)
{
    size_t total, count = 0;

    if (!begin_send(link, link->send_here, &total))
        return SEND_OVER;
    nng_aio_cancel(link->send_here);
    nng_aio_wait(link->send_here);
    int result = nng_aio_result(link->send_here);
    if (result != 0 && result != NNG_ECANCELED) {
        give_up(link, result);
        return SEND_OVER;
    }
    if (result == 0) {
        count = nng_aio_count(link->send_here);
        went(link, count);
    }
    return count == total ? SEND_WHOLE : SEND_SLOW;
}

/* Send what there is, or leave.  For the send's owner, who is not it any more
 * afterwards.  `here`: from this thread as far as it goes, which is not for
 * ever: others may add what this thread would send. */
static void
run(struct stream_link *link, bool here)
{
    for (unsigned turns = 0; prepare(link); turns++) {
        if (!here || turns == STREAM_TURNS) {
            pthread_mutex_lock(&link->mutex);
            link->send_since = link_now();
            stream_watch(link);
            pthread_mutex_unlock(&link->mutex);
            size_t total;
            begin_send(link, link->send, &total);
            return;
        }
        enum send_outcome outcome = send_here(link);
        if (outcome == SEND_OVER)
            return;
        here = outcome == SEND_WHOLE;
    }
}

void
stream_sent(void *arg)
{
    struct stream_link *link = arg;
    int result = nng_aio_result(link->send);

    if (result != 0) {
        give_up(link, result);
        return;
    }
    went(link, nng_aio_count(link->send));
    run(link, true);
}

void
stream_send_start(struct stream_link *link)
{
    run(link, false);
}

/* With the mutex: whether something is to be sent and nobody is at it; then the
 * caller is. */
static bool
may_begin(struct stream_link *link)
{
    if (!link->started || link->queue.first == NULL || link->sending
        || link->send_failed || link->ended)
        return false;
    link->sending = true;
    link->put_off = 0;
    return true;
}

void
stream_stir(struct stream_link *link)
{
    pthread_mutex_lock(&link->mutex);
    link->stirred = true;
    bool begins =
        link->started && !link->sending && !link->send_failed && !link->ended;
    if (begins)
        link->sending = true;
    pthread_mutex_unlock(&link->mutex);
    if (begins)
        run(link, true);
}

void
stream_uncork(struct stream_link *link)
{
    pthread_mutex_lock(&link->mutex);
    link->corked = false;
    bool begins = may_begin(link);
    pthread_mutex_unlock(&link->mutex);
    if (begins)
        run(link, true);
}

void
stream_push(struct link *base)
{
    struct stream_link *link = (struct stream_link *)base;

    pthread_mutex_lock(&link->mutex);
    bool begins = !link->corked && may_begin(link);
    pthread_mutex_unlock(&link->mutex);
    if (begins)
        run(link, true);
}

/* sent() for what came after the end; with the mutex, which it lets go.  One
 * thread at a time, so that a sent() which sends again does not nest. */
static void
refuse_late(struct stream_link *link)
{
    struct link_queue late;

    while (!link->late_running && link->late.first != NULL) {
        link->late_running = true;
        link_queue_init(&late);
        link_queue_move(&late, &link->late);
        pthread_mutex_unlock(&link->mutex);
        link_queue_flush(&late, FARBLK_CONNECTION_LOST);
        pthread_mutex_lock(&link->mutex);
        link->late_running = false;
    }
}

void
stream_send(struct link *base, struct link_message *message)
{
    struct stream_link *link = (struct stream_link *)base;
    bool begins = false, here = message->eager;
    bool more = message->more;

    if (message->header_length > WIRE_HEADER_MAX
        || message->stack_length > WIRE_STACK_MAX) {
        message->sent(message, FARBLK_INVALID);
        return;
    }
    pthread_mutex_lock(&link->mutex);
    if (link->finished) {
        link_queue_append(&link->late, message);
        refuse_late(link);
        pthread_mutex_unlock(&link->mutex);
        return;
    }
    message->state = LINK_MESSAGE_QUEUED;
    link_queue_append(&link->queue, message);
    /* What was put off goes from here, and so does all while the threads that
     * wait receive by themselves: no thread of nng is about then. */
    here = here || link->put_off > 0 || !link->receiving;
    if (!link->corked && (!more || ++link->put_off > STREAM_PUT_OFF))
        begins = may_begin(link);
    pthread_mutex_unlock(&link->mutex);
    if (begins)
        run(link, here);
}

bool
stream_recall(struct link *base, struct link_message *message)
{
    struct stream_link *link = (struct stream_link *)base;

    pthread_mutex_lock(&link->mutex);
    bool found = message->state == LINK_MESSAGE_QUEUED && !link->finished
                 && link_queue_remove(&link->queue, message);
    if (found)
        message->state = LINK_MESSAGE_IDLE;
    pthread_mutex_unlock(&link->mutex);
    return found;
}

void
stream_send_init(struct stream_link *link, uint16_t protocol)
{
    uint8_t greeting[SP_GREETING];

    link_queue_init(&link->late);
    link_queue_init(&link->begun);
    sp_put_greeting(greeting, protocol);
    stage(link, greeting, sizeof greeting);
}
