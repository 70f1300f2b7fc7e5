/* SPDX-License-Identifier: ISC */
/*
 * Links over raw nng sockets; see link_socket.h.
 *
 * In raw mode the header of a nng_msg is the stack, behind the number of the
 * pipe where a server is concerned; the body is the rest.  Payloads are copied
 * in both directions: these transports are for reach, not for speed.
 */
#include "proto/link_socket.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void end(struct socket_link *link, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* With the mutex: have the runner look again. */
static void
kick(struct socket_link *link)
{
    if (link->lingering)
        nng_aio_cancel(link->kick); /* the runner wakes */
    if (link->running || !link->started || link->finished)
        return;
    link->running = true;
    if (nng_aio_begin(link->kick))
        nng_aio_finish(link->kick, 0);
}

/* With the mutex: everything queued is out, or there is nothing to wait for. */
static bool
drained(const struct socket_link *link)
{
    return link->draining && !link->sending && link->queue.first == NULL;
}

static void
end(struct socket_link *link, int status, const char *format, ...)
{
    struct socket_side *side = link->side;
    va_list args;

    pthread_mutex_lock(&side->mutex);
    bool first = !link->ended;
    if (first) {
        link->ended = true;
        link->status = link->draining ? 0 : status;
        va_start(args, format);
        vsnprintf(link->reason, sizeof link->reason, format, args);
        va_end(args);
    }
    pthread_mutex_unlock(&side->mutex);
    if (!first)
        return;
    if (!side->server) /* this was its only link */
        socket_side_leaving(side);
    pthread_mutex_lock(&link->gate);
    link->shut = true;
    nng_aio_cancel(link->send);
    pthread_mutex_unlock(&link->gate);
    nng_pipe_close(link->pipe);
    pthread_mutex_lock(&side->mutex);
    kick(link);
    pthread_mutex_unlock(&side->mutex);
}

/* ------------------------------------------------------------------------
 * Receiving
 */

/* With the mutex. */
static nng_msg *
inbox_take(struct socket_link *link)
{
    if (link->inbox_count == 0)
        return NULL;
    nng_msg *message = link->inbox[link->inbox_first];
    link->inbox_first = (link->inbox_first + 1) % SOCKET_INBOX;
    link->inbox_count--;
    link->inbox_octets -= nng_msg_len(message);
    return message;
}

static void
empty_inbox(struct socket_link *link)
{
    nng_msg *message;

    while ((message = inbox_take(link)) != NULL)
        nng_msg_free(message);
}

static void
copy_payload(const struct link_sink *sink, const uint8_t *from, uint64_t length)
{
    for (size_t i = 0; i < sink->iovcnt && length > 0; i++) {
        size_t part = sink->iov[i].iov_len < length ? sink->iov[i].iov_len
                                                    : (size_t)length;
        if (part > 0)
            memcpy(sink->iov[i].iov_base, from, part);
        from += part;
        length -= part;
    }
}

static void
deliver(struct socket_link *link, nng_msg *message)
{
    struct sp_head sp;
    struct error error;
    struct link_sink sink = {0};
    const uint8_t *stack = nng_msg_header(message);
    size_t stack_length = nng_msg_header_len(message);
    size_t pipe = link->side->server ? 4 : 0;

    if (stack_length < pipe
        || sp_parse_stack(stack + pipe, stack_length - pipe, &sp, &error) != 0
        || sp_parse_body(nng_msg_body(message), nng_msg_len(message),
                         link->side->limits.max_payload, &sp, &error)
               < 0) {
        end(link, FARBLK_PROTOCOL, "%s",
            stack_length < pipe ? "a message without a stack" : error.text);
        return;
    }
    struct link_head head = {
        .stack = sp.stack,
        .stack_length = sp.stack_length,
        .id = sp.id,
        .header = sp.header,
        .header_length = sp.header_length,
        .payload_length = sp.payload_length,
    };
    if (!link->events->head(link->arg, &head, &sink)) {
        end(link, FARBLK_PROTOCOL, "refused a message");
        return;
    }
    copy_payload(&sink, sp.header + sp.header_length, sp.payload_length);
    link->events->frame(link->arg, sink.frame);
}

/* With the mutex, which it lets go.  The link may be gone afterwards. */
static void
finish(struct socket_link *link)
{
    struct socket_side *side = link->side;

    empty_inbox(link);
    while (link->queue.first != NULL) {
        struct link_queue dead;
        link_queue_init(&dead);
        link_queue_move(&dead, &link->queue);
        pthread_mutex_unlock(&side->mutex);
        link_queue_flush(&dead, FARBLK_CONNECTION_LOST);
        pthread_mutex_lock(&side->mutex);
    }
    link->finished = true;
    pthread_mutex_unlock(&side->mutex);
    link->events->closed(link->arg, link->status, link->reason);
    link_put(&link->base);
}

/* With the mutex, which it lets go if it is true: what was handed to the socket
 * gets time to go out, and the runner is called again: later, or by a kick. */
static bool
lingers(struct socket_link *link)
{
    int64_t left = link->last_sent + SOCKET_LINGER_MS - link_now();

    if (link->gone || left <= 0)
        return false;
    link->lingering = true;
    nng_sleep_aio((nng_duration)left, link->kick);
    pthread_mutex_unlock(&link->side->mutex);
    return true;
}

/* For the runner, which it is not any more afterwards. */
static void
run(struct socket_link *link)
{
    struct socket_side *side = link->side;

    pthread_mutex_lock(&side->mutex);
    link->lingering = false;
    for (;;) {
        bool stuck = link->held || link->draining;
        if (!link->ended && drained(link) && lingers(link))
            return;
        if (!link->ended
            && (drained(link) || (link->gone && stuck)
                || (link->gone && link->inbox_count == 0))) {
            pthread_mutex_unlock(&side->mutex);
            end(link, FARBLK_CONNECTION_LOST, "%s",
                link->gone ? "the peer closed" : "closed");
            pthread_mutex_lock(&side->mutex);
        }
        if (link->ended) {
            if (!link->sending) {
                finish(link);
                return;
            }
            break; /* the send's end kicks */
        }
        nng_msg *message = stuck ? NULL : inbox_take(link);
        if (message == NULL)
            break;
        pthread_mutex_unlock(&side->mutex);
        deliver(link, message);
        nng_msg_free(message);
        pthread_mutex_lock(&side->mutex);
    }
    link->running = false;
    pthread_mutex_unlock(&side->mutex);
}

static void
kicked(void *arg)
{
    run(arg);
}

void
socket_link_receive(struct socket_link *link, nng_msg *message)
{
    struct socket_side *side = link->side;
    bool runs = false, full = false;

    pthread_mutex_lock(&side->mutex);
    if (link->ended || link->draining) {
        pthread_mutex_unlock(&side->mutex);
        nng_msg_free(message);
        return;
    }
    full = link->inbox_count == SOCKET_INBOX
           || link->inbox_octets > SOCKET_INBOX_OCTETS;
    if (!full) {
        link->inbox[(link->inbox_first + link->inbox_count++) % SOCKET_INBOX] =
            message;
        link->inbox_octets += nng_msg_len(message);
        if (link->started && !link->held && !link->running)
            runs = link->running = true;
    }
    pthread_mutex_unlock(&side->mutex);
    if (full) {
        nng_msg_free(message);
        end(link, FARBLK_PROTOCOL,
            "the peer ignores its limits: %u messages or %u octets wait",
            SOCKET_INBOX, SOCKET_INBOX_OCTETS);
    } else if (runs) {
        run(link);
    }
}

void
socket_link_gone(struct socket_link *link)
{
    struct socket_side *side = link->side;

    pthread_mutex_lock(&side->mutex);
    link->gone = true;
    kick(link);
    pthread_mutex_unlock(&side->mutex);
}

/* ------------------------------------------------------------------------
 * Sending
 */

static nng_msg *
make_message(const struct socket_link *link, const struct link_message *from)
{
    size_t at = 4;
    nng_msg *to;

    if (nng_msg_alloc(&to, 4 + from->header_length + from->payload_length) != 0)
        return NULL;
    if ((link->side->server
         && nng_msg_header_append_u32(to, (uint32_t)nng_pipe_id(link->pipe))
                != 0)
        || nng_msg_header_append(to, from->stack, from->stack_length) != 0) {
        nng_msg_free(to);
        return NULL;
    }
    uint8_t *body = nng_msg_body(to);
    sp_put32(body, (uint32_t)from->header_length);
    if (from->header_length > 0)
        memcpy(body + at, from->header, from->header_length);
    at += from->header_length;
    for (size_t i = 0; i < from->iovcnt; i++) {
        if (from->iov[i].iov_len > 0)
            memcpy(body + at, from->iov[i].iov_base, from->iov[i].iov_len);
        at += from->iov[i].iov_len;
    }
    return to;
}

/* For the send's owner: the next message, or leave. */
static void
send_next(struct socket_link *link)
{
    struct socket_side *side = link->side;

    pthread_mutex_lock(&side->mutex);
    struct link_message *message =
        link->ended ? NULL : link_queue_take(&link->queue);
    link->current = message;
    if (message == NULL) {
        link->sending = false;
        if (link->ended || drained(link))
            kick(link);
        pthread_mutex_unlock(&side->mutex);
        return;
    }
    message->state = LINK_MESSAGE_BEGUN;
    pthread_mutex_unlock(&side->mutex);

    nng_msg *made = make_message(link, message);
    if (made == NULL)
        end(link, FARBLK_NO_MEMORY, "no memory for a message of %llu octets",
            (unsigned long long)message->payload_length);
    pthread_mutex_lock(&link->gate);
    bool over = link->shut;
    if (!over) {
        nng_aio_set_msg(link->send, made);
        nng_send_aio(side->socket, link->send);
    }
    pthread_mutex_unlock(&link->gate);
    if (!over)
        return;
    if (made != NULL)
        nng_msg_free(made);
    message->sent(message, FARBLK_CONNECTION_LOST);
    pthread_mutex_lock(&side->mutex);
    link->current = NULL;
    link->sending = false;
    kick(link);
    pthread_mutex_unlock(&side->mutex);
}

/* With the mutex: whether the caller is the one who sends from now on. */
static bool
begin_sending(struct socket_link *link)
{
    if (!link->started || !link->ready || link->sending || link->ended
        || link->queue.first == NULL)
        return false;
    return link->sending = true;
}

void
socket_link_ready(struct socket_link *link)
{
    pthread_mutex_lock(&link->side->mutex);
    link->ready = true;
    bool begins = begin_sending(link);
    pthread_mutex_unlock(&link->side->mutex);
    if (begins)
        send_next(link);
}

static void
socket_sent(void *arg)
{
    struct socket_link *link = arg;
    struct link_message *message = link->current;
    int result = nng_aio_result(link->send);

    if (result != 0) {
        nng_msg_free(nng_aio_get_msg(link->send));
        nng_aio_set_msg(link->send, NULL);
        end(link, link_status_of(result), "sending failed: %s",
            nng_strerror(result));
    }
    pthread_mutex_lock(&link->side->mutex);
    link->last_sent = link_now();
    pthread_mutex_unlock(&link->side->mutex);
    message->sent(message, result == 0 ? 0 : FARBLK_CONNECTION_LOST);
    send_next(link);
}

/* As in link_stream_send.c. */
static void
refuse_late(struct socket_link *link)
{
    struct link_queue late;

    while (!link->late_running && link->late.first != NULL) {
        link->late_running = true;
        link_queue_init(&late);
        link_queue_move(&late, &link->late);
        pthread_mutex_unlock(&link->side->mutex);
        link_queue_flush(&late, FARBLK_CONNECTION_LOST);
        pthread_mutex_lock(&link->side->mutex);
        link->late_running = false;
    }
}

/* ------------------------------------------------------------------------
 * The calls of link.h
 */

static void
socket_send(struct link *base, struct link_message *message)
{
    struct socket_link *link = (struct socket_link *)base;
    struct socket_side *side = link->side;
    bool begins = false;

    if (message->header_length > WIRE_HEADER_MAX
        || message->stack_length > WIRE_STACK_MAX) {
        message->sent(message, FARBLK_INVALID);
        return;
    }
    pthread_mutex_lock(&side->mutex);
    if (link->finished) {
        link_queue_append(&link->late, message);
        refuse_late(link);
        pthread_mutex_unlock(&side->mutex);
        return;
    }
    message->state = LINK_MESSAGE_QUEUED;
    link_queue_append(&link->queue, message);
    begins = begin_sending(link);
    pthread_mutex_unlock(&side->mutex);
    if (begins)
        send_next(link);
}

static bool
socket_recall(struct link *base, struct link_message *message)
{
    struct socket_link *link = (struct socket_link *)base;

    pthread_mutex_lock(&link->side->mutex);
    bool found = message->state == LINK_MESSAGE_QUEUED && !link->finished
                 && link_queue_remove(&link->queue, message);
    if (found)
        message->state = LINK_MESSAGE_IDLE;
    pthread_mutex_unlock(&link->side->mutex);
    return found;
}

static void
socket_start(struct link *base, const struct link_events *events, void *arg)
{
    struct socket_link *link = (struct socket_link *)base;
    bool begins = false;

    pthread_mutex_lock(&link->side->mutex);
    if (!link->started) {
        link_get(base); /* until the end is told */
        link->started = true;
        link->events = events;
        link->arg = arg;
        begins = begin_sending(link);
        kick(link);
    }
    pthread_mutex_unlock(&link->side->mutex);
    if (begins)
        send_next(link);
}

static void
socket_hold(struct link *base)
{
    struct socket_link *link = (struct socket_link *)base;

    pthread_mutex_lock(&link->side->mutex);
    link->held = true;
    pthread_mutex_unlock(&link->side->mutex);
}

static void
socket_release(struct link *base)
{
    struct socket_link *link = (struct socket_link *)base;

    pthread_mutex_lock(&link->side->mutex);
    link->held = false;
    if (link->inbox_count > 0)
        kick(link);
    pthread_mutex_unlock(&link->side->mutex);
}

static void
socket_close(struct link *base, bool drain)
{
    struct socket_link *link = (struct socket_link *)base;

    pthread_mutex_lock(&link->side->mutex);
    link->draining = true; /* so that it is told as what it is */
    bool later = drain && link->started && !link->ended
                 && link->side->limits.frame_ms > 0;
    if (later)
        kick(link); /* a send takes at most frame_ms */
    pthread_mutex_unlock(&link->side->mutex);
    if (!later)
        end(link, 0, "closed");
}

static void
socket_free(struct link *base)
{
    struct socket_link *link = (struct socket_link *)base;
    struct socket_side *side = link->side;

    pthread_mutex_lock(&side->mutex);
    for (struct socket_link **at = &side->links; *at != NULL; at = &(*at)->next)
        if (*at == link) {
            *at = link->next;
            break;
        }
    pthread_mutex_unlock(&side->mutex);
    /* Never started: nobody else has told or freed these. */
    link_queue_flush(&link->queue, FARBLK_CONNECTION_LOST);
    empty_inbox(link);
    /* Whoever began the last operation has left the gate behind it. */
    pthread_mutex_lock(&link->gate);
    pthread_mutex_unlock(&link->gate);
    nng_aio_reap(link->kick);
    nng_aio_reap(link->send);
    pthread_mutex_destroy(&link->gate);
    free(link);
    socket_side_put(side);
}

static const struct link_ops socket_ops = {
    .start = socket_start,
    .send = socket_send,
    .recall = socket_recall,
    .hold = socket_hold,
    .release = socket_release,
    .close = socket_close,
    .free = socket_free,
};

struct socket_link *
socket_link_create(struct socket_side *side, nng_pipe pipe)
{
    struct socket_link *link = calloc(1, sizeof *link);

    if (link == NULL)
        return NULL;
    link_init(&link->base, &socket_ops);
    if (nng_aio_alloc(&link->kick, kicked, link) != 0
        || nng_aio_alloc(&link->send, socket_sent, link) != 0) {
        nng_aio_reap(link->kick);
        free(link);
        return NULL;
    }
    if (side->limits.frame_ms > 0)
        nng_aio_set_timeout(link->send, side->limits.frame_ms);
    pthread_mutex_init(&link->gate, NULL);
    link_queue_init(&link->queue);
    link_queue_init(&link->late);
    link->side = side;
    link->pipe = pipe;
    link->ready = !side->server; /* a req0 keeps what comes too early */
    link->base.peer.max_requests = SOCKET_REQUESTS;
    snprintf(link->base.peer.transport, sizeof link->base.peer.transport, "%s",
             side->scheme);
    snprintf(link->base.peer.text, sizeof link->base.peer.text, "%s",
             side->scheme);
    atomic_fetch_add(&side->refs, 1);
    pthread_mutex_lock(&side->mutex);
    link->next = side->links;
    side->links = link;
    pthread_mutex_unlock(&side->mutex);
    return link;
}
