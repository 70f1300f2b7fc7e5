/* SPDX-License-Identifier: ISC */
/*
 * One call for each io: the window, sending, completing, cancelling.
 *
 * An io is issued when the server has room for it (requests and octets in
 * flight, as announced) and waits in a list until then, so that submit never
 * blocks and the server never has to say no.  Its data goes out of the
 * caller's buffers and a reply's comes into them; therefore an io ends only
 * when nobody holds its call: neither the link, which sends it, nor the
 * receiver of its reply.
 *
 * Requests of several threads may go out in another order than that of their
 * numbers: between taking the number and link_send() no lock is held.
 */
#include "client/rings.h"

#include "core/checked.h"

static const char calls_text_unsent[] =
    "the request's time was over before it could be sent";

static const char calls_text_gone[] =
    "the server's session ended before this was answered";

bool
calls_changes(enum farblk_op op)
{
    return op == FARBLK_OP_WRITE || op == FARBLK_OP_DISCARD
           || op == FARBLK_OP_WRITE_ZEROES || op == FARBLK_OP_RESIZE;
}

static uint64_t
calls_octets(const struct io *io)
{
    return io->op == FARBLK_OP_READ || io->op == FARBLK_OP_WRITE ? io->length
                                                                 : 0;
}

void
calls_link(struct io **first, struct io **last, struct io *io)
{
    io->link = NULL;
    client_io_set_pointer(io, CLIENT_IO_PREV, *last);
    if (*last != NULL)
        (*last)->link = io;
    else
        *first = io;
    *last = io;
}

void
calls_unlink(struct io **first, struct io **last, struct io *io)
{
    struct io *next = io->link, *prev = client_io_pointer(io, CLIENT_IO_PREV);
    if (prev != NULL)
        prev->link = next;
    else
        *first = next;
    if (next != NULL)
        client_io_set_pointer(next, CLIENT_IO_PREV, prev);
    else
        *last = prev;
}

void
calls_end(struct batch *batch, struct io *io, int status,
          enum farblk_effect effect, const char *text, uint64_t value)
{
    io->scratch[CLIENT_IO_STATE] = CLIENT_IO_DONE;
    io->scratch[CLIENT_IO_CALL] = 0;
    io->scratch[CLIENT_IO_STATUS] = (uint64_t)(int64_t)status;
    io->scratch[CLIENT_IO_VALUE] = value;
    io->scratch[CLIENT_IO_EFFECT] = effect;
    client_io_set_pointer(io, CLIENT_IO_TEXT, text);
    calls_link(&batch->done, &batch->done_last, io);
}

/* What an io that the server may have seen has done, when nobody knows. */
static enum farblk_effect
calls_guess(const struct io *io)
{
    return calls_changes(io->op) ? FARBLK_EFFECT_UNKNOWN : FARBLK_EFFECT_NONE;
}

/* How an io ends that was sent and lost.  GET_INFO has a last known answer when
 * the device is gone. */
static int
calls_lost_status(const struct client *client, const struct io *io)
{
    return io->op == FARBLK_OP_GET_INFO ? FARBLK_DISCONNECTED
                                        : client->lost_status;
}

/* The call has left the server's sight, or the client's. */
static void
calls_retire(struct call *call)
{
    struct client *client = call->client;
    ids_remove(call);
    if (!call->own) {
        client->flying--;
        client->octets -= call->octets;
    } else if (call->method == WIRE_PING) {
        client->ping_flying = false;
    } else if (call->method == WIRE_WATCH_INFO) {
        client->watch_flying = false;
    } else if (call->method == WIRE_CANCEL) {
        cancel_unsent(call);
    }
    cancel_io_ended(call);
}

void
calls_settle(struct call *call, struct batch *batch)
{
    struct client *client = call->client;
    struct io *io = call->io;
    bool lost = client->state == CLIENT_LOST;
    bool ends = client->state == CLIENT_AWAY && call->own
                && (call->handshake || call->wait == NULL);
    if (!call->replied && !call->unsent && !lost && !ends) {
        if (call->expired && io != NULL && !cancel_waits(call, batch)) {
            bool never = call->refused || call->fenced;
            call->io = NULL;
            calls_end(batch, io, FARBLK_TIMED_OUT,
                      never ? FARBLK_EFFECT_NONE : calls_guess(io),
                      never ? cancel_text_fenced : cancel_text_late, 0);
        }
        return;
    }
    calls_retire(call);
    if (io == NULL) {
        ids_free(call);
        return;
    }
    call->io = NULL;
    if (call->replied && call->failed) {
        calls_end(batch, io, call->error.status, call->error.effect,
                  call->error.text, 0);
        client_io_set_pointer(io, CLIENT_IO_CALL, call); /* it has the text */
        return;
    }
    if (call->replied)
        calls_end(batch, io, 0, FARBLK_EFFECT_NONE, "", call->value);
    else if (lost && (call->unsent || call->refused))
        calls_end(batch, io, FARBLK_DISCONNECTED, FARBLK_EFFECT_NONE,
                  client->lost.text, 0);
    else if (lost)
        calls_end(batch, io, calls_lost_status(client, io), calls_guess(io),
                  client->lost.text, 0);
    else
        calls_end(batch, io, FARBLK_TIMED_OUT, FARBLK_EFFECT_NONE,
                  calls_text_unsent, 0);
    ids_free(call);
}

void
calls_release(struct call *call, struct batch *batch)
{
    if (--call->holds == 0)
        calls_settle(call, batch);
}

static bool
calls_room(struct client *client, const struct io *io)
{
    uint64_t octets = calls_octets(io), sum;
    if (atomic_load_explicit(&client->doubts, memory_order_relaxed) > 0
        || client->flying >= client->window
        || client->total >= client->limits.max_requests || !ids_room(client))
        return false;
    return client->octets == 0
           || (checked_add(client->octets, octets, &sum)
               /* At the limit the server would not read a Ping either. */
               && sum < client->limits.max_octets);
}

/* The number that an io had before is listed with its call, or not needed any
 * more. */
static void
calls_forget_number(struct client *client, struct io *io)
{
    client->orphans -= io->scratch[CLIENT_IO_NUMBER] != 0;
    io->scratch[CLIENT_IO_NUMBER] = 0;
}

/* There is room: give the io a call. */
static void
calls_issue(struct client *client, struct io *io, struct batch *batch)
{
    uint64_t number = io->scratch[CLIENT_IO_NUMBER];
    struct call *call = ids_take(client, true, number);
    calls_forget_number(client, io);
    if (call == NULL) {
        calls_end(batch, io, FARBLK_NO_MEMORY,
                  number != 0 ? calls_guess(io) : FARBLK_EFFECT_NONE,
                  send_text_memory, 0);
        return;
    }
    call->io = io;
    call->method = send_method(io->op);
    call->octets = calls_octets(io);
    call->mark = client->acked;
    client->flying++;
    client->octets += call->octets;
    io->scratch[CLIENT_IO_STATE] = CLIENT_IO_ISSUED;
    client_io_set_pointer(io, CLIENT_IO_CALL, call);
    send_queue(call, batch);
}

void
calls_pump(struct client *client, struct batch *batch)
{
    if (client->cancels != NULL)
        cancel_send(client, batch);
    while (client->first != NULL && client->state == CLIENT_UP
           && calls_room(client, client->first)) {
        struct io *io = client->first;
        calls_unlink(&client->first, &client->last, io);
        calls_issue(client, io, batch);
    }
}

/* The io has ended; its memory may be gone when this returns. */
static void
calls_complete(struct client *client, struct io *io)
{
    int status = (int)(int64_t)io->scratch[CLIENT_IO_STATUS];
    struct call *call = client_io_pointer(io, CLIENT_IO_CALL);
    if (status == 0) {
        io_done(io, io->scratch[CLIENT_IO_VALUE]);
        return;
    }
    io_failed(io, status, (enum farblk_effect)io->scratch[CLIENT_IO_EFFECT],
              "%s", (const char *)client_io_pointer(io, CLIENT_IO_TEXT));
    if (call != NULL) {
        pthread_mutex_lock(&client->mutex);
        ids_free(call);
        pthread_mutex_unlock(&client->mutex);
    }
}

void
calls_run(struct client *client, struct batch *batch)
{
    while (batch->send != NULL) {
        struct call *call = batch->send;
        batch->send = call->next;
        send_call(call, batch);
    }
    /* What has ended before, as the server tells it, ends before. */
    if (batch->done != NULL)
        rings_reap_all(client);
    while (batch->done != NULL) {
        struct io *io = batch->done;
        batch->done = io->link;
        calls_complete(client, io);
    }
}

/* Under the mutex: an io ends that was not issued, because the client is lost or
 * its time is over; it may have been executed all the same, if it was sent before. */
static void
calls_end_unissued(struct client *client, struct io *io, struct batch *batch)
{
    bool again = io->scratch[CLIENT_IO_NUMBER] != 0;
    bool lost = client->state == CLIENT_LOST;
    calls_forget_number(client, io);
    if (lost && again && calls_changes(io->op))
        client->unsettled |= !client->session_gone;
    calls_end(batch, io,
              !lost   ? FARBLK_TIMED_OUT
              : again ? calls_lost_status(client, io)
                      : FARBLK_DISCONNECTED,
              again ? calls_guess(io) : FARBLK_EFFECT_NONE,
              lost ? client->lost.text : calls_text_unsent, 0);
}

/* By the socket. */
static void
calls_submit_here(struct client *client, struct io *io)
{
    struct batch batch = {NULL, NULL, NULL, NULL};
    struct link *link = NULL;
    client_enter(client);
    pthread_mutex_lock(&client->mutex);
    if (io->ring != NULL && client->link != NULL)
        link = link_get(client->link);
    if (client->state == CLIENT_LOST) {
        calls_end_unissued(client, io, &batch);
    } else if (io->scratch[CLIENT_IO_STATE] == CLIENT_IO_CANCELLED) {
        calls_end_unissued(client, io, &batch);
    } else if (io->op == FARBLK_OP_WATCH) {
        watch_submit(client, io, &batch);
    } else if (client->first == NULL && client->state == CLIENT_UP
               && calls_room(client, io)) {
        calls_issue(client, io, &batch);
    } else {
        io->scratch[CLIENT_IO_STATE] = CLIENT_IO_WAITING;
        io->flags &= ~(uint32_t)FARBLK_MORE; /* who follows may be gone then */
        calls_link(&client->first, &client->last, io);
    }
    pthread_mutex_unlock(&client->mutex);
    calls_run(client, &batch);
    if (link != NULL) {
        link_mind(link, false); /* who waits looks at its ring */
        link_put(link);
    }
    client_leave(client);
}

void
calls_submit(struct client *client, struct io *io)
{
    io->scratch[CLIENT_IO_NUMBER] = 0;
    if (io->ring == NULL || !rings_submit(client, io))
        calls_submit_here(client, io);
}

void
calls_again(struct client *client, struct io *io)
{
    calls_submit_here(client, io);
}

/* An issued io's time is over. */
static void
calls_expire(struct client *client, struct call *call, struct batch *batch)
{
    call->expired = true;
    if (call->holds == 0) {
        calls_settle(call, batch);
        return;
    }
    if (!call->sending || call->receiving || call->replied)
        return; /* ends soon, and then truly */
    call->holds++;
    client->busy++; /* so that the link stays */
    pthread_mutex_unlock(&client->mutex);
    bool recalled = link_recall(client->link, &call->message);
    pthread_mutex_lock(&client->mutex);
    if (--client->busy == 0 && client->state != CLIENT_UP)
        pthread_cond_broadcast(&client->changed);
    if (recalled) {
        send_done(call);
        call->unsent = true;
        calls_release(call, batch);
        client_leave(client); /* the message's; the caller has its own */
    }
    calls_release(call, batch);
}

void
calls_cancel(struct client *client, struct io *io)
{
    struct batch batch = {NULL, NULL, NULL, NULL};
    bool ringed = false;
    client_enter(client);
    pthread_mutex_lock(&client->mutex);
    switch ((enum client_io_state)io->scratch[CLIENT_IO_STATE]) {
    case CLIENT_IO_WAITING:
        calls_unlink(&client->first, &client->last, io);
        calls_end_unissued(client, io, &batch);
        break;
    case CLIENT_IO_WATCHING:
        calls_unlink(&client->watchers, &client->watchers_last, io);
        calls_end(&batch, io, FARBLK_TIMED_OUT, FARBLK_EFFECT_NONE,
                  "the device's generation has not changed", 0);
        break;
    case CLIENT_IO_ISSUED:
        calls_expire(client, client_io_pointer(io, CLIENT_IO_CALL), &batch);
        break;
    case CLIENT_IO_RINGED:
        ringed = true;
        break;
    case CLIENT_IO_NEW:
    case CLIENT_IO_DONE: /* of the piece before, perhaps */
    case CLIENT_IO_CANCELLED:
        io->scratch[CLIENT_IO_STATE] = CLIENT_IO_CANCELLED;
        break;
    }
    calls_pump(client, &batch);
    pthread_mutex_unlock(&client->mutex);
    if (ringed)
        rings_cancel(client, io);
    calls_run(client, &batch);
    client_leave(client);
}

void
calls_shut(struct client *client, bool last)
{
    struct batch batch = {NULL, NULL, NULL, NULL};
    struct link *link = NULL;
    client_enter(client);
    pthread_mutex_lock(&client->mutex);
    watch_shut(client, &batch);
    if (last && !client->ending) {
        int64_t settled_ms = session_settled_ms(client);
        client->ending = true;
        if (client->until_ms > settled_ms)
            client->until_ms = settled_ms;
        pthread_cond_broadcast(&client->changed);
    }
    if (client->link != NULL)
        link = link_get(client->link);
    pthread_mutex_unlock(&client->mutex);
    calls_run(client, &batch);
    if (link != NULL) {
        link_push(link); /* nobody may collect any more */
        link_put(link);
    }
    client_leave(client);
}

/* Whether the server may execute it later than now. */
static bool
calls_may_land(const struct call *call)
{
    bool changes = call->method == WIRE_WRITE || call->method == WIRE_DISCARD
                   || call->method == WIRE_WRITE_ZEROES
                   || call->method == WIRE_RESIZE;
    return changes && !call->replied && !call->unsent && !call->refused;
}

void
calls_fail_all(struct client *client, struct batch *batch)
{
    while (client->first != NULL) {
        struct io *io = client->first;
        calls_unlink(&client->first, &client->last, io);
        calls_end_unissued(client, io, batch);
    }
    while (client->watchers != NULL) {
        struct io *io = client->watchers;
        calls_unlink(&client->watchers, &client->watchers_last, io);
        calls_end(batch, io, FARBLK_DISCONNECTED, FARBLK_EFFECT_NONE,
                  client->lost.text, 0);
    }
    for (size_t i = 0; i < client->table_size; i++) {
        struct call *call = client->table[i];
        if (call == NULL)
            continue;
        call->wait = NULL; /* whoever waits sees the state */
        client->unsettled |= !client->session_gone && calls_may_land(call);
        if (call->holds == 0)
            calls_settle(call, batch);
    }
}

void
calls_detach(struct client *client, struct batch *batch)
{
    for (size_t i = 0; i < client->table_size; i++) {
        struct call *call = client->table[i];
        if (call == NULL)
            continue;
        if (call->handshake)
            call->wait = NULL; /* whoever waits sees the state */
        if (call->own && call->holds == 0)
            calls_settle(call, batch);
    }
    cancel_away(client, false);
}

/* Those that a ring had: the same. */
static void
calls_renew_waiting(struct client *client, struct batch *batch)
{
    struct io *next;
    for (struct io *io = client->first; io != NULL; io = next) {
        next = io->link;
        if (io->scratch[CLIENT_IO_NUMBER] == 0)
            continue;
        calls_forget_number(client, io);
        if (client->retry_always || !calls_changes(io->op))
            continue;
        calls_unlink(&client->first, &client->last, io);
        calls_end(batch, io, FARBLK_CONNECTION_LOST, FARBLK_EFFECT_UNKNOWN,
                  calls_text_gone, 0);
    }
}

void
calls_renew(struct client *client, struct batch *batch)
{
    calls_renew_waiting(client, batch);
    cancel_away(client, true);
    for (size_t i = 0; i < client->table_size; i++) {
        struct call *call = client->table[i];
        if (call == NULL || call->holds > 0)
            continue;
        struct io *io = call->io;
        call->number = 0;
        if (io != NULL && call->expired) {
            calls_settle(call, batch);
            continue;
        }
        if (io != NULL
            && (call->refused || client->retry_always
                || !calls_changes(io->op)))
            continue;
        calls_retire(call);
        ids_free(call);
        if (io != NULL)
            calls_end(batch, io, FARBLK_CONNECTION_LOST, FARBLK_EFFECT_UNKNOWN,
                      calls_text_gone, 0);
    }
}

/*
 * Orphans are not: their callers were told that nobody knows.  With the first
 * request on the new link `lowest` has passed their numbers, and the link that
 * they were sent on is not heard any more: what has not begun of them will not.
 */
unsigned
calls_resend(struct client *client, struct batch *batch)
{
    unsigned count = 0;
    struct call *next;
    for (struct call *call = client->oldest; call != NULL; call = next) {
        next = call->newer;
        if (call->io == NULL && call->wait == NULL && call->holds == 0) {
            calls_retire(call);
            ids_free(call);
        }
    }
    for (struct call *call = client->oldest; call != NULL; call = next) {
        next = call->newer;
        if (call->number == 0)
            call->number = atomic_fetch_add(&client->next_number, 1);
    }
    cancel_send(client, batch); /* before copies of what they name */
    for (struct call *call = client->oldest; call != NULL; call = next) {
        next = call->newer;
        if (call->replied || call->unsent || call->holds > 0)
            continue; /* it ends by itself */
        call->refused = false;
        call->lowest = ids_lowest(client);
        call->generation = client->generation;
        send_queue(call, batch);
        call->message.more = false;
        count++;
    }
    return count;
}
