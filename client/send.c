/* SPDX-License-Identifier: ISC */
/*
 * Making messages of calls, and what the link says of them.
 *
 * A message is made without the mutex; the hold that the link will have keeps
 * the call and its io.  A write's data is not copied: the link sends it out of
 * the caller's buffers.
 */
#include "client/client.h"

#include "core/checked.h"
#include "core/crc32c.h"

#include <stdlib.h>

const char send_text_memory[] = "no memory for a request";

uint32_t
send_method(enum farblk_op op)
{
    switch (op) {
    case FARBLK_OP_READ:
        return WIRE_READ;
    case FARBLK_OP_WRITE:
        return WIRE_WRITE;
    case FARBLK_OP_FLUSH:
        return WIRE_FLUSH;
    case FARBLK_OP_DISCARD:
        return WIRE_DISCARD;
    case FARBLK_OP_WRITE_ZEROES:
        return WIRE_WRITE_ZEROES;
    case FARBLK_OP_RESIZE:
        return WIRE_RESIZE;
    case FARBLK_OP_SEEK_MAPPED:
        return WIRE_SEEK_MAPPED;
    case FARBLK_OP_SEEK_UNMAPPED:
        return WIRE_SEEK_UNMAPPED;
    case FARBLK_OP_EXTENTS:
        return WIRE_EXTENTS;
    case FARBLK_OP_GET_INFO:
        return WIRE_GET_INFO;
    case FARBLK_OP_WATCH:
        return WIRE_WATCH_INFO;
    }
    return 0;
}

void
send_done(struct call *call)
{
    struct client *client = call->client;
    call->sending = false;
    if (--client->busy == 0 && client->state != CLIENT_UP)
        pthread_cond_broadcast(&client->changed);
}

/* The link needs the message and its buffers no more. */
static void
send_sent(struct link_message *message, int status)
{
    struct call *call =
        (struct call *)((char *)message - offsetof(struct call, message));
    struct client *client = call->client;
    struct batch batch = {NULL, NULL, NULL, NULL};
    int64_t now = timer_now();
    pthread_mutex_lock(&client->mutex);
    if (status == 0 && !call->handshake)
        client->sent_ms = now;
    send_done(call);
    calls_release(call, &batch);
    calls_pump(client, &batch);
    pthread_mutex_unlock(&client->mutex);
    calls_run(client, &batch);
    client_leave(client); /* the message's */
}

/* The link will get it in calls_run(). */
void
send_queue(struct call *call, struct batch *batch)
{
    call->holds = 1;
    call->sending = true;
    call->client->busy++;
    call->message.state = 0;
    call->message.eager = call->client->flying <= CLIENT_EAGER;
    call->message.more =
        call->io != NULL && (call->io->flags & FARBLK_MORE) != 0;
    call->next = NULL;
    client_enter(call->client);
    if (batch->send_last != NULL)
        batch->send_last->next = call;
    else
        batch->send = call;
    batch->send_last = call;
}

static void
send_message(struct call *call, size_t header_length, size_t iovcnt)
{
    struct link_message *message = &call->message;
    message->stack[0] = (uint8_t)(call->id >> 24);
    message->stack[1] = (uint8_t)(call->id >> 16);
    message->stack[2] = (uint8_t)(call->id >> 8);
    message->stack[3] = (uint8_t)call->id;
    message->stack_length = 4;
    message->header = call->header;
    message->header_length = header_length;
    message->iov = call->iov;
    message->iovcnt = iovcnt;
    message->payload_length = iovcnt > 0 ? call->octets : 0;
    message->sent = send_sent;
}

struct call *
send_own(struct client *client, struct codec_request *request, bool handshake,
         struct client_wait *wait, struct batch *batch)
{
    const bool hello = request->method == WIRE_HELLO;
    const bool up = client->state == CLIENT_UP
                    || (handshake && client->state == CLIENT_BACK);
    const bool later =
        !handshake && wait != NULL
        && (client->state == CLIENT_AWAY || client->state == CLIENT_BACK);
    struct call *call = up || later ? ids_take(client, !hello, 0) : NULL;
    if (call == NULL)
        return NULL;
    /* It waits for long, while rings use up numbers fast. */
    if (request->method == WIRE_WATCH_INFO && client->rings != NULL)
        ids_unlist(call);
    call->own = true;
    call->handshake = handshake;
    call->method = request->method;
    call->wait = wait;
    request->session = hello ? 0 : client->session;
    request->number = call->number;
    request->lowest = call->lowest;
    request->deadline_ms = 0;
    request->checksum = 0;
    size_t length =
        codec_encode_request(request, call->header, sizeof call->header);
    if (length == 0) { /* not with names within their bounds */
        ids_remove(call);
        ids_free(call);
        return NULL;
    }
    send_message(call, length, 0);
    if (up)
        send_queue(call, batch);
    return call;
}

/* All buffers of the io, in call->iov. */
static bool
send_export(struct call *call, const struct io *io)
{
    uint64_t length;
    for (;;) {
        call->iov_count =
            iov_export(&io->data, call->iov, call->iov_capacity, &length);
        if (length == io->length)
            return true;
        size_t capacity = call->iov_capacity * 4;
        struct iovec *larger = calloc(capacity, sizeof(*larger));
        if (larger == NULL)
            return false;
        if (call->iov != call->few)
            free(call->iov);
        call->iov = larger;
        call->iov_capacity = capacity;
    }
}

uint32_t
send_deadline(const struct io *io)
{
    if (io->deadline_ms == 0)
        return 0;
    int64_t left = io->deadline_ms - timer_now();
    if (left < 1)
        return 1;
    return left > UINT32_MAX ? UINT32_MAX : (uint32_t)left;
}

/* The message for call->io.  No mutex: the hold keeps io and call. */
static bool
send_encode(struct call *call)
{
    const struct client *client = call->client;
    const struct io *io = call->io;
    const uint32_t sector = client->sector_size;
    struct codec_request request; /* large: only what the method needs is set */
    request.method = call->method;
    request.session = client->session;
    request.number = call->number;
    request.lowest = call->lowest;
    request.handle = client->handle;
    request.deadline_ms = send_deadline(io);
    request.has_secret = false;
    request.checksum = 0;
    switch (io->op) {
    case FARBLK_OP_READ:
    case FARBLK_OP_WRITE:
        if (!send_export(call, io))
            return false;
        if (client->checksums && io->op == FARBLK_OP_WRITE)
            request.checksum = crc32c_iov(call->iov, call->iov_count);
        /* fall through */
    case FARBLK_OP_DISCARD:
    case FARBLK_OP_WRITE_ZEROES:
        request.args.range.sector = io->offset / sector;
        request.args.range.count = io->length / sector;
        request.args.range.has_whole =
            io->whole_offset != io->offset || io->whole_length != io->length;
        request.args.range.whole_sector = io->whole_offset / sector;
        request.args.range.whole_count = io->whole_length / sector;
        request.args.range.flags = io->flags & (FARBLK_FUA | FARBLK_NO_UNMAP);
        break;
    case FARBLK_OP_RESIZE:
        request.args.resize.size_sectors = io->length / sector;
        request.args.resize.flags = io->flags & FARBLK_FUA;
        break;
    case FARBLK_OP_SEEK_MAPPED:
    case FARBLK_OP_SEEK_UNMAPPED:
        request.args.seek.sector = io->offset / sector;
        break;
    case FARBLK_OP_EXTENTS:
        request.args.extents.sector = io->offset / sector;
        request.args.extents.count = io->length / sector;
        request.args.extents.max =
            (uint32_t)min_u64(io->extents_max, client->limits.max_extents);
        break;
    case FARBLK_OP_FLUSH:
    case FARBLK_OP_GET_INFO:
    case FARBLK_OP_WATCH:
        break;
    }
    size_t length =
        codec_encode_request(&request, call->header, sizeof call->header);
    if (length == 0)
        return false;
    send_message(call, length, io->op == FARBLK_OP_WRITE ? call->iov_count : 0);
    return true;
}

/* It could not be made into a message; the link never sees it. */
static void
send_unsendable(struct call *call, struct batch *batch)
{
    struct client *client = call->client;
    pthread_mutex_lock(&client->mutex);
    send_done(call);
    call->unsent = call->replied = call->failed = true;
    error_set(&call->error, FARBLK_NO_MEMORY, "%s", send_text_memory);
    calls_release(call, batch);
    calls_pump(client, batch); /* nobody else may be in flight to do it */
    pthread_mutex_unlock(&client->mutex);
    client_leave(client);
}

void
send_call(struct call *call, struct batch *batch)
{
    if (call->own || send_encode(call))
        link_send(call->client->link, &call->message);
    else
        send_unsendable(call, batch);
}
