/* SPDX-License-Identifier: ISC */
/*
 * Receiving over an nng stream.
 *
 * One read takes as much as there is into the buffer, and all messages that are
 * complete in it are delivered.  Of a large payload, what the buffer has is
 * copied and the rest is received straight into the sink, with the buffer
 * behind it for what follows.
 *
 * nng 1.5.2 fails a receive that waits when the peer closes, even if there is
 * something left to read.  The first such failure is therefore followed by
 * reads until another one fails at once.
 *
 * With TLS what is received is its octets; those of the link come out of them
 * (open_tls()) to the same places.
 *
 * When a read brought much, or a payload is under way, more may be there: then
 * the next is tried in this thread before nng's are asked to wait for it.
 */
#include "proto/link_stream.h"

#include "core/log.h"

#include <string.h>

/* `count` octets have come to where begin_receive() said. */
static void
take(struct stream_link *link, size_t count)
{
    if (link->in_payload && link->sink.iovcnt > 0) {
        while (count > 0 && link->payload_left > 0) {
            size_t room =
                link->sink.iov[link->sink_at].iov_len - link->sink_done;
            size_t part = count < room ? count : room;
            link->sink_done += part;
            link->payload_left -= part;
            count -= part;
            if (link->sink_done == link->sink.iov[link->sink_at].iov_len) {
                link->sink_at++;
                link->sink_done = 0;
            }
        }
    }
    link->buffer_end += count;
}

/* Move of the payload what the buffer has. */
static void
drain_buffer(struct stream_link *link)
{
    size_t there = link->buffer_end - link->buffer_begin;
    size_t part =
        there < link->payload_left ? there : (size_t)link->payload_left;

    if (link->sink.iovcnt == 0) {
        link->buffer_begin += part;
        link->payload_left -= part;
        return;
    }
    while (part > 0) {
        const struct iovec *to = &link->sink.iov[link->sink_at];
        size_t room = to->iov_len - link->sink_done;
        size_t some = part < room ? part : room;
        if (some > 0)
            memcpy((uint8_t *)to->iov_base + link->sink_done,
                   link->buffer + link->buffer_begin, some);
        link->buffer_begin += some;
        link->payload_left -= some;
        link->sink_done += some;
        part -= some;
        if (link->sink_done == to->iov_len) {
            link->sink_at++;
            link->sink_done = 0;
        }
    }
}

static void
end_message(struct stream_link *link)
{
    link->in_payload = false;
    link->message_since = 0;
    link->delivered++;
    link->events->frame(link->arg, link->sink.frame);
}

static bool
sink_fits(const struct link_sink *sink, uint64_t length)
{
    uint64_t sum = 0;

    if (sink->iovcnt == 0)
        return true;
    for (size_t i = 0; i < sink->iovcnt; i++)
        sum += sink->iov[i].iov_len;
    return sum == length;
}

bool
stream_advance(struct stream_link *link)
{
    const uint8_t *at = link->buffer + link->buffer_begin;
    size_t there = link->buffer_end - link->buffer_begin;
    struct error error;
    struct sp_head sp;

    if (!link->greeted) {
        if (there < SP_GREETING)
            return false;
        if (sp_check_greeting(at, link->peer_protocol, &error) != 0) {
            stream_end(link, error.status, "%s", error.text);
            return true;
        }
        link->buffer_begin += SP_GREETING;
        pthread_mutex_lock(&link->mutex);
        link->greeted = true;
        pthread_mutex_unlock(&link->mutex);
        return true;
    }
    if (link->in_payload) {
        drain_buffer(link);
        if (link->payload_left > 0)
            return false;
        end_message(link);
        return true;
    }
    int length =
        sp_parse(at, there, link->ipc, link->limits.max_payload, &sp, &error);
    if (length == 0)
        return false;
    if (length < 0) {
        stream_end(link, error.status, "%s", error.text);
        return true;
    }
    struct link_head head = {
        .stack = sp.stack,
        .stack_length = sp.stack_length,
        .id = sp.id,
        .header = sp.header,
        .header_length = sp.header_length,
        .payload_length = sp.payload_length,
    };
    memset(&link->sink, 0, sizeof link->sink);
    if (!link->events->head(link->arg, &head, &link->sink)) {
        stream_end(link, FARBLK_PROTOCOL, "refused a message");
        return true;
    }
    link->buffer_begin += (size_t)length;
    link->sink_at = 0;
    link->sink_done = 0;
    link->payload_left = sp.payload_length;
    link->in_payload = true;
    if (!sink_fits(&link->sink, link->payload_left))
        stream_end(link, FARBLK_UNKNOWN,
                   "no place for a payload of %llu octets",
                   (unsigned long long)link->payload_left);
    else if (link->payload_left == 0)
        end_message(link);
    return true;
}

/* The peer closed: when, and what that may mean. */
static const char *
closed_when(const struct stream_link *link)
{
    if (link->tls != NULL && !stream_tls_shaken(link->tls))
        return "the peer closed during the TLS handshake";
    if (!link->greeted && !link->ipc && link->tls == NULL
        && link->peer_protocol == WIRE_SP_REP)
        return "the peer closed before its greeting: it has too many "
               "connections, or speaks TLS (farblks://)";
    if (!link->greeted)
        return "the peer closed before its greeting";
    return link->in_payload || link->buffer_end > 0
               ? "the peer closed in the middle of a message"
               : "the peer closed";
}

void
stream_take_result(struct stream_link *link, int result, size_t count)
{
    link->delivered = 0;
    link->plenty = result == 0 && (link->in_payload || count >= STREAM_PLENTY);
    if (result == 0 && link->tls != NULL)
        stream_tls_came(link->tls, count);
    else if (result == 0)
        take(link, count);
    else if (result == NNG_ECONNSHUT && !link->last_try)
        link->last_try = true;
    else if (result == NNG_ECONNSHUT || result == NNG_ECONNRESET)
        stream_end(link, FARBLK_CONNECTION_LOST, "%s", closed_when(link));
    else
        stream_end(link, link_status_of(result), "receiving failed: %s",
                   nng_strerror(result));
}

bool
stream_post_receive(struct stream_link *link, nng_aio *aio, unsigned count,
                    nng_iov *iov)
{
    pthread_mutex_lock(&link->receive_gate);
    bool over = link->shut;
    if (!over) {
        nng_aio_set_iov(aio, count, iov);
        nng_stream_recv(link->stream, aio);
    }
    pthread_mutex_unlock(&link->receive_gate);
    return !over;
}

/* What TLS has of the link's octets.  False: nothing; more must be received. */
static bool
open_tls(struct stream_link *link, unsigned count, const nng_iov *iov)
{
    bool stirred, shaken = stream_tls_shaken(link->tls);
    struct error error;
    size_t octets;
    enum stream_tls_opened opened =
        stream_tls_open(link->tls, iov, count, &octets, &stirred, &error);

    if (!shaken && stream_tls_shaken(link->tls)
        && link->peer_protocol == WIRE_SP_REQ
        && stream_tls_subject(link->tls)[0] != '\0')
        log_info("%s: its certificate is of %s", link->base.peer.text,
                 stream_tls_subject(link->tls));
    if (stirred)
        stream_stir(link);
    switch (opened) {
    case STREAM_TLS_SOME:
        take(link, octets);
        return true;
    case STREAM_TLS_NOTHING:
        return false;
    case STREAM_TLS_CLOSED:
        stream_end(link, FARBLK_CONNECTION_LOST, "the peer closed");
        return true;
    case STREAM_TLS_FAILED:
        stream_end(link, error.status, "%s", error.text);
        return true;
    }
    return false;
}

unsigned
stream_prepare_receive(struct stream_link *link, nng_iov *iov)
{
    unsigned count = 0;
    bool buffer = true;

    if (link->buffer_begin > 0) {
        link->buffer_end -= link->buffer_begin;
        memmove(link->buffer, link->buffer + link->buffer_begin,
                link->buffer_end);
        link->buffer_begin = 0;
    }
    if (link->in_payload && link->sink.iovcnt > 0) {
        size_t done = link->sink_done;
        for (size_t i = link->sink_at; i < link->sink.iovcnt; i++, done = 0) {
            if (count == STREAM_IOVECS - 1) {
                buffer = false;
                break;
            }
            if (link->sink.iov[i].iov_len == 0)
                continue;
            iov[count].iov_buf = (uint8_t *)link->sink.iov[i].iov_base + done;
            iov[count].iov_len = link->sink.iov[i].iov_len - done;
            count++;
        }
    }
    if (buffer) {
        iov[count].iov_buf = link->buffer + link->buffer_end;
        iov[count].iov_len = STREAM_BUFFER - link->buffer_end;
        count++;
    }

    if (link->tls != NULL) {
        if (open_tls(link, count, iov))
            return 0;
        stream_tls_room(link->tls, iov);
        count = 1;
    }
    if (link->greeted && link->message_since == 0
        && (link->in_payload || link->buffer_end > 0
            || (link->tls != NULL && stream_tls_partial(link->tls))))
        link->message_since = link_now();
    pthread_mutex_lock(&link->mutex);
    link->receive_since = link->message_since;
    if (link->receive_since != 0)
        stream_watch(link);
    pthread_mutex_unlock(&link->mutex);
    return count;
}

/* Begin a receive.  False: go on, something has come already, or the link is
 * over. */
static bool
begin_receive(struct stream_link *link)
{
    nng_iov iov[STREAM_IOVECS];
    unsigned count = stream_prepare_receive(link, iov);

    if (count == 0)
        return false;
    if (link->spins < STREAM_SPINS && stream_spin(link, NULL, count, iov)) {
        link->spins++;
        return false;
    }
    if (link->plenty && link->turns < STREAM_TURNS) {
        link->turns++;
        if (stream_receive_here(link, count, iov) == RECEIVED_SOME)
            return false;
    }
    stream_wait_begins(link);
    return stream_post_receive(link, link->receive, count, iov);
}

/* With the mutex: the receive's owner, who is nng, leaves it to the one thread
 * that waited, and has what it waited for: it will wait again. */
static bool
hand_over(struct stream_link *link)
{
    if (link->waiter == NULL
        || !atomic_load_explicit(&link->waiter->woken, memory_order_relaxed)
        || link->minded || link->held || link->draining || !link->greeted)
        return false;
    stream_leave(link);
    return true;
}

/* For the receive's owner: go on until it must wait, is held, or it is over.
 * What the events send meanwhile is sent when there is nothing more to deliver:
 * the link is corked until then. */
static void
run(struct stream_link *link)
{
    bool corked = false;

    for (;;) {
        pthread_mutex_lock(&link->mutex);
        if (link->ended) {
            if (link->sending || link->watching) {
                link->receiving = false; /* the last of them kicks */
                pthread_mutex_unlock(&link->mutex);
            } else {
                stream_finish(link);
            }
            return;
        }
        bool stops = (link->held || link->draining) && !link->in_payload
                     && link->greeted;
        if (stops && !corked) {
            link->receiving = false;
            link->receive_since = 0;
            link->message_since = 0;
            pthread_mutex_unlock(&link->mutex);
            return;
        }
        if (!stops)
            corked = link->corked = true;
        pthread_mutex_unlock(&link->mutex);
        if (!stops && stream_advance(link))
            continue;
        corked = false;
        stream_uncork(link);
        if (stops)
            continue;
        pthread_mutex_lock(&link->mutex);
        bool handed = !link->ended && hand_over(link);
        pthread_mutex_unlock(&link->mutex);
        if (handed || begin_receive(link))
            return;
    }
}

void
stream_received(void *arg)
{
    struct stream_link *link = arg;
    int result = nng_aio_result(link->receive);

    pthread_mutex_lock(&link->mutex);
    bool kicked = link->kicked;
    link->kicked = false;
    pthread_mutex_unlock(&link->mutex);
    if (!kicked) {
        stream_wait_ended(link);
        stream_take_result(link, result, nng_aio_count(link->receive));
    }
    link->turns = 0;
    link->spins = 0;
    run(link);
}

bool
stream_receive_start(struct stream_link *link)
{
    return begin_receive(link);
}
