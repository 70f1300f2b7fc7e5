/* SPDX-License-Identifier: ISC */
/*
 * Calls: their memory and their replies.
 *
 * A reply goes out of lent blocks or of memory of the call, and nothing is held
 * while it does.
 */
#include "server/call.h"

#include "core/burst.h"
#include "core/checked.h"
#include "core/crc32c.h"
#include "server/connection.h"
#include "server/opened.h"
#include "server/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The ramdisk lends blocks of this size at least. */
#define CALL_LENT_MIN 4096u

void
call_init(struct call *call, struct connection *connection,
          const struct link_head *head)
{
    call->next = NULL;
    call->server = connection->server;
    call->connection = connection_get(connection);
    call->octets = 0;
    call->arrival = 0;
    call->session = NULL;
    call->opened = NULL;
    call->kept = NULL;
    call->deadline_ms = 0;
    call->numbered = false;
    call->epoch = 0;
    call->failed = call->skipped = call->laden = call->busy = false;
    call->active = call->watch = call->asks = false;
    call->block = NULL;
    call->data = (struct iovec){0};
    call->loan = (struct loan){0};
    call->parts = call->few_parts;
    call->iov = call->few_iov;
    call->extents = NULL;
    call->devices = NULL;
    call->device_count = 0;
    call->more_devices = false;
    call->charged = 0;
    call->large_header = NULL;
    memset(&call->request, 0, offsetof(struct request, error));
    error_clear(&call->request.error);
    call->request.value = 0;
    call->request.owner = call;
    call->message.next = NULL;
    call->message.state = 0;
    call->message.more = false;
    call->message.stack_length = head->stack_length;
    memcpy(call->message.stack, head->stack, head->stack_length);
}

void
call_fail(struct call *call, int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    error_vset(&call->request.error, status, format, args);
    va_end(args);
    call->failed = true;
}

bool
call_lend(struct call *call, uint64_t length)
{
    size_t capacity = (size_t)(length / CALL_LENT_MIN) + 2;
    if (capacity > CALL_FEW) {
        struct loan_part *parts =
            malloc(capacity * (sizeof *parts + sizeof *call->iov));
        if (parts == NULL) {
            call_fail(call, FARBLK_NO_MEMORY, "no memory for %llu octets",
                      (unsigned long long)length);
            return false;
        }
        call->parts = parts;
        call->iov = (struct iovec *)(parts + capacity);
    }
    call->loan = (struct loan){
        .part = call->parts,
        .capacity = capacity > CALL_FEW ? capacity : CALL_FEW,
    };
    return true;
}

bool
call_allocate(struct call *call, uint32_t length)
{
    call->block = request_wants_aligned(call->opened->dev)
                      ? block_alloc_aligned(length)
                      : block_alloc(length);
    if (call->block == NULL) {
        call_fail(call, FARBLK_NO_SPACE,
                  "%s: no memory for %u octets; %llu of the limit of %llu are "
                  "in use",
                  codec_method_name(call->ask.method), length,
                  (unsigned long long)block_counted(),
                  (unsigned long long)block_limit());
        return false;
    }
    call->data =
        (struct iovec){.iov_base = call->block->data, .iov_len = length};
    return true;
}

void *
call_answer(struct call *call, uint64_t octets)
{
    uint64_t all = octets + WIRE_HEADER_MAX;
    void *answer = NULL;
    if (block_charge(all)) {
        call->charged = all;
        answer = malloc((size_t)octets);
    }
    if (answer == NULL)
        call_fail(
            call, FARBLK_NO_SPACE,
            "%s: no memory for %llu octets; %llu of the limit of %llu are "
            "in use",
            codec_method_name(call->ask.method), (unsigned long long)all,
            (unsigned long long)block_counted(),
            (unsigned long long)block_limit());
    return answer;
}

/* ------------------------------------------------------------ the end */

static void
call_end(struct call *call)
{
    struct farblk_server *server = call->server;
    loan_return(&call->loan);
    block_put(call->block);
    if (call->parts != call->few_parts)
        free(call->parts);
    free(call->extents);
    free(call->devices);
    free(call->large_header);
    if (call->charged != 0)
        block_uncharge(call->charged);
    if (call->opened != NULL)
        opened_put(call->opened);
    if (call->session != NULL)
        session_put(call->session);
    if (call->busy && atomic_fetch_sub(&server->busy, 1) == 1
        && atomic_load(&server->draining))
        server_changed(server);
    connection_return(call->connection, call);
}

void
call_discard(struct call *call)
{
    if (call->active) { /* it was started with its head */
        session_finish(call);
        session_leave(call->session);
    }
    call_end(call);
}

static void
call_sent(struct link_message *message, int status)
{
    (void)status; /* the session keeps what a repetition will ask for */
    call_end((struct call *)((char *)message - offsetof(struct call, message)));
}

/* ------------------------------------------------------------ replies */

static void
call_fill_info(const struct call *call, struct codec_info *info)
{
    const struct farblk_info *from = &call->info;
    uint64_t most = call->server->limits.max_payload;
    *info = (struct codec_info){
        .read_write = from->read_write,
        .sector_size = from->sector_size,
        .size_sectors = from->size_sectors,
        .generation = from->generation,
        .features = from->features,
    };
    most = round_down(most, from->sector_size);
    info->max_transfer = (uint32_t)min_u64(from->max_transfer, most);
    info->preferred_transfer =
        (uint32_t)min_u64(from->preferred_transfer, info->max_transfer);
}

static void
call_fill_hello(const struct call *call, struct codec_reply *reply)
{
    const struct farblk_server *server = call->server;
    const struct server_limits *limits = &server->limits;
    reply->result.hello.version = WIRE_VERSION;
    reply->result.hello.features.count = 0;
    if (call->session->checksums)
        codec_add_feature(&reply->result.hello.features, WIRE_FEATURE_CRC32C);
    if (call->session->fences)
        codec_add_feature(&reply->result.hello.features, WIRE_FEATURE_FENCE);
    reply->result.hello.session = call->session->id;
    memcpy(reply->result.hello.secret, call->session->secret, WIRE_SECRET_SIZE);
    memcpy(reply->result.hello.instance, server->instance, WIRE_INSTANCE_SIZE);
    reply->result.hello.lease_ms = limits->lease_ms;
    reply->result.hello.limits = (struct codec_limits){
        .max_requests = call->connection->max_requests,
        .max_octets = limits->max_octets,
        .max_payload = limits->max_payload,
        .max_header = WIRE_HEADER_MAX,
        .max_handles = limits->max_handles,
        .max_extents = CODEC_EXTENTS_MAX,
        .max_sessions = limits->connection_sessions,
        .max_watches = session_watches_max(call->connection),
        .max_connections = limits->max_connections,
        .hello_ms = limits->hello_timeout_ms,
        .frame_ms = limits->frame_timeout_ms,
        .idle_ms = limits->idle_timeout_ms,
    };
    snprintf(reply->result.hello.server, sizeof reply->result.hello.server,
             "%s %s", SERVER_NAME, farblk_version());
}

/* The result of a method that went well; returns the octets that its header
 * may need beyond the small one. */
static size_t
call_fill_result(struct call *call, struct codec_reply *reply)
{
    switch (call->ask.method) {
    case WIRE_HELLO:
        call_fill_hello(call, reply);
        return 0;
    case WIRE_LIST_DEVICES:
        reply->result.list.devices = call->devices;
        reply->result.list.capacity = call->device_count;
        reply->result.list.count = call->device_count;
        reply->result.list.more = call->more_devices;
        return WIRE_HEADER_MAX;
    case WIRE_OPEN:
        reply->result.open.handle = call->opened->number;
        call_fill_info(call, &reply->result.open.info);
        memcpy(reply->result.open.content, call->opened->export->content,
               WIRE_INSTANCE_SIZE);
        return 0;
    case WIRE_GET_INFO:
        call_fill_info(call, &reply->result.info.info);
        return 0;
    case WIRE_SEEK_MAPPED:
    case WIRE_SEEK_UNMAPPED:
        reply->result.seek.sector = call->request.value;
        return 0;
    case WIRE_EXTENTS:
        reply->result.extents.extents = call->extents;
        reply->result.extents.capacity = (size_t)call->request.value;
        reply->result.extents.count = (size_t)call->request.value;
        reply->result.extents.first_sector = call->ask.args.extents.sector;
        return call->request.value > 16 ? WIRE_HEADER_MAX : 0;
    case WIRE_WATCH_INFO:
        reply->result.watch.generation = call->request.value;
        return 0;
    case WIRE_CANCEL:
        reply->result.cancel.fenced = call->request.value != 0;
        return 0;
    case WIRE_SHARE_MEMORY:
        memcpy(reply->result.share.token, call->token, WIRE_TOKEN_SIZE);
        return 0;
    default:
        return 0;
    }
}

/* Point the message at a read's data. */
static void
call_fill_payload(struct call *call)
{
    struct link_message *message = &call->message;
    message->iov = NULL;
    message->iovcnt = 0;
    message->payload_length = 0;
    if (call->ask.method != WIRE_READ || call->request.error.status != 0)
        return;
    if (call->request.loan != NULL) {
        for (size_t i = 0; i < call->loan.count; i++)
            call->iov[i] = call->parts[i].iov;
        message->iov = call->iov;
        message->iovcnt = call->loan.count;
        message->payload_length = call->loan.length;
    } else if (call->data.iov_len > 0) {
        message->iov = &call->data;
        message->iovcnt = 1;
        message->payload_length = call->data.iov_len;
    }
}

/* The end of a burst: its replies go out together. */
static void
call_push(void *arg)
{
    struct link *link = arg;
    link_push(link);
    link_put(link);
}

static void
call_reply(struct call *call)
{
    const struct error *error = &call->request.error;
    struct codec_reply reply; /* large: only what is used is set */
    uint32_t method = call->ask.method;
    uint8_t *header = call->small_header;
    size_t size = sizeof call->small_header, more = 0;

    reply.status = error->status;
    reply.effect = error->status != 0 ? (uint32_t)error->effect : 0;
    reply.text[0] = '\0';
    reply.number = call->ask.number;
    reply.generation = reply.size_sectors = 0;
    if (call->opened != NULL)
        opened_shape(call->opened, &reply.generation, &reply.size_sectors);
    if (error->status != 0)
        snprintf(reply.text, sizeof reply.text, "%s", error->text);
    else
        more = call_fill_result(call, &reply);
    call_fill_payload(call);
    reply.checksum = 0;
    if (call->message.iovcnt > 0 && call->session->checksums)
        reply.checksum = crc32c_iov(call->message.iov, call->message.iovcnt);
    if (more > 0) {
        call->large_header = malloc(more);
        if (call->large_header != NULL) {
            header = call->large_header;
            size = more;
        }
    }
    size_t length = codec_encode_reply(&reply, method, header, size);
    if (length == 0) {
        reply.status = FARBLK_NO_MEMORY;
        reply.effect = FARBLK_EFFECT_NONE;
        reply.checksum = 0;
        snprintf(reply.text, sizeof reply.text, "%s: no memory for the reply",
                 codec_method_name(method));
        call->message.iovcnt = 0;
        call->message.payload_length = 0;
        length = codec_encode_reply(&reply, method, header, size);
    }
    if (header == call->large_header) { /* most of it was not needed */
        uint8_t *fitted = realloc(header, length);
        if (fitted != NULL)
            header = call->large_header = fitted;
    }
    call->message.header = header;
    call->message.header_length = length;
    call->message.sent = call_sent;
    atomic_fetch_add_explicit(&call->server->completed, 1,
                              memory_order_relaxed);
    /* sent() may come at once, and let the connection go with its link. */
    struct link *link = link_get(call->connection->link);
    call->message.more = burst_now();
    bool later = call->message.more && burst_later(call_push, link);
    link_send(link, &call->message);
    if (!later)
        link_put(link);
}

void
call_finish(struct call *call)
{
    struct session *session = NULL;
    if (call->session != NULL)
        session_finish(call);
    if (call->active) {
        session = session_get(call->session);
        session_used(call);
    }
    call_reply(call);
    if (session != NULL) {
        session_leave(session);
        session_put(session);
    }
}
