/* SPDX-License-Identifier: ISC */
/*
 * Dispatch: methods of service BlockDevice onto core requests and the control
 * operations of sessions, handles and exports.
 *
 * What is wrong with a request is found as early as possible and answered when
 * the whole message is here: the payload of a request that failed is skipped.
 * Ranges, read-only handles and flags are core's to check.
 */
#include "server/dispatch.h"

#include "core/checked.h"
#include "core/log.h"
#include "core/secret.h"
#include "core/crc32c.h"
#include "core/log.h"
#include "server/connection.h"
#include "server/export.h"
#include "server/opened.h"
#include "server/shm.h"

#include <stdlib.h>

static const uint8_t dispatch_ops[WIRE_METHODS] = {
    [WIRE_GET_INFO] = FARBLK_OP_GET_INFO,
    [WIRE_READ] = FARBLK_OP_READ,
    [WIRE_WRITE] = FARBLK_OP_WRITE,
    [WIRE_FLUSH] = FARBLK_OP_FLUSH,
    [WIRE_DISCARD] = FARBLK_OP_DISCARD,
    [WIRE_WRITE_ZEROES] = FARBLK_OP_WRITE_ZEROES,
    [WIRE_RESIZE] = FARBLK_OP_RESIZE,
    [WIRE_SEEK_MAPPED] = FARBLK_OP_SEEK_MAPPED,
    [WIRE_SEEK_UNMAPPED] = FARBLK_OP_SEEK_UNMAPPED,
    [WIRE_EXTENTS] = FARBLK_OP_EXTENTS,
    [WIRE_WATCH_INFO] = FARBLK_OP_WATCH,
};

bool
dispatch_changes(uint32_t method)
{
    switch (method) {
    case WIRE_OPEN:
    case WIRE_DISCONNECT:
    case WIRE_WRITE:
    case WIRE_FLUSH:
    case WIRE_DISCARD:
    case WIRE_WRITE_ZEROES:
    case WIRE_RESIZE:
        return true;
    default:
        return false;
    }
}

/* ------------------------------------------------------------ head */

/* Octets of a read or write; false, and failed, above the limit. */
static bool
dispatch_length(struct call *call, uint32_t *length)
{
    const struct codec_request *ask = &call->ask;
    uint32_t sector_size = call->opened->sector_size;
    uint32_t max = call->server->limits.max_payload;
    uint64_t octets;
    if (!checked_mul(ask->args.range.count, sector_size, &octets)
        || octets > max) {
        call_fail(call, FARBLK_INVALID,
                  "%s: %llu sectors of %u octets are more than this server's "
                  "limit of %u octets in one request",
                  codec_method_name(ask->method),
                  (unsigned long long)ask->args.range.count, sector_size, max);
        return false;
    }
    *length = (uint32_t)octets;
    return true;
}

/* How many extents may be told: there are no more of them than sectors. */
static uint64_t
dispatch_extents_max(const struct codec_request *ask)
{
    uint64_t max = min_u64(ask->args.extents.max, CODEC_EXTENTS_MAX);
    return min_u64(max, max_u64(ask->args.extents.count, 1));
}

static void
dispatch_head_write(struct call *call, const struct link_head *head,
                    struct link_sink *sink)
{
    uint32_t length;
    if (call->skipped || !dispatch_length(call, &length))
        return;
    if (head->payload_length != length) {
        call_fail(call, FARBLK_INVALID,
                  "Write: %llu sectors of %u octets came with %llu octets of "
                  "data",
                  (unsigned long long)call->ask.args.range.count,
                  call->opened->sector_size,
                  (unsigned long long)head->payload_length);
        return;
    }
    if (length == 0 || !call_allocate(call, length))
        return;
    connection_charge(call->connection, call, length);
    sink->iov = &call->data;
    sink->iovcnt = 1;
}

/* A token that others may have read on its way is none any more, and not looked
 * at. */
static void
dispatch_head_open(struct call *call)
{
    const struct connection *connection = call->connection;
    struct codec_request *ask = &call->ask;
    if (ask->args.open.token_length == 0 || connection->who.is_private)
        return;
    secret_wipe(ask->args.open.token, WIRE_TOKEN_MAX);
    log_warning("%s: refused: a token came in the clear; it should be replaced",
                connection->label);
    call_fail(call, FARBLK_DENIED,
              "Open: tokens are not taken over a connection in the clear; "
              "this one is known to others now");
}

/* Decode.  False: the call has failed. */
static bool
dispatch_decode(struct call *call, const struct link_head *head)
{
    bool args_bad = false;
    struct error *error = &call->request.error;
    if (codec_decode_request(head->header, head->header_length, &call->ask,
                             &args_bad, error)
        == 0)
        return true;
    call->failed = true;
    if (!args_bad) /* nothing of it can be believed */
        call->ask = (struct codec_request){0};
    return false;
}

void
dispatch_head(struct call *call, const struct link_head *head,
              struct link_sink *sink)
{
    const struct codec_request *ask = &call->ask;
    call->laden = head->payload_length > 0;
    if (!dispatch_decode(call, head))
        return;
    bool known = ask->method != 0 && ask->method < WIRE_METHODS;
    if (known && ask->method != WIRE_WRITE && head->payload_length > 0) {
        call_fail(call, FARBLK_INVALID,
                  "%s: takes no data, and %llu octets came",
                  codec_method_name(ask->method),
                  (unsigned long long)head->payload_length);
        return;
    }
    if (ask->method == WIRE_HELLO) {
        if (ask->session != 0)
            call_fail(call, FARBLK_INVALID,
                      "Hello: names session %016llx; it begins one",
                      (unsigned long long)ask->session);
        return;
    }
    if (!session_admit(call))
        return;
    if (ask->deadline_ms != 0)
        call->deadline_ms = timer_now() + ask->deadline_ms;
    if (!known) {
        call_fail(call, FARBLK_UNIMPLEMENTED,
                  "method %u is not known here; the last is %u", ask->method,
                  WIRE_METHODS - 1);
    } else if (ask->method == WIRE_WRITE) {
        dispatch_head_write(call, head, sink);
    } else if (ask->method == WIRE_OPEN) {
        dispatch_head_open(call);
    } else if (ask->method == WIRE_READ) {
        uint32_t length;
        if (dispatch_length(call, &length))
            connection_charge(call->connection, call, length);
    } else if (ask->method == WIRE_EXTENTS) {
        connection_charge(call->connection, call,
                          dispatch_extents_max(ask) * sizeof *call->extents);
    }
}

/* ------------------------------------------------------------ frame */

static int32_t
dispatch_smaller(int64_t a, int64_t b)
{
    return (int32_t)min_u64(min_u64((uint64_t)a, (uint64_t)b), INT32_MAX);
}

/* What a watch that does not wait says. */
static void
dispatch_asked(struct call *call)
{
    uint64_t known = call->ask.args.watch.generation;
    struct error *error = &call->request.error;
    if (error->status != 0)
        return;
    call->request.value = call->info.generation;
    if (call->info.generation == known)
        error_set(error, FARBLK_TIMED_OUT,
                  "WatchInfo: the generation is %llu still",
                  (unsigned long long)known);
}

static void
dispatch_done(struct request *request)
{
    struct call *call = request->owner;
    uint32_t method = call->ask.method;
    if (method == WIRE_OPEN) {
        request->value = call->opened->number;
        if (request->error.status != 0)
            opened_close(call->opened, NULL);
    } else if (call->asks) {
        dispatch_asked(call);
    } else if (method == WIRE_READ && request->error.status == 0
               && request->loan != NULL
               && call->loan.length
                      != request->count * call->opened->sector_size) {
        error_set(&request->error, FARBLK_UNKNOWN,
                  "Read: %llu octets came of %llu sectors",
                  (unsigned long long)call->loan.length,
                  (unsigned long long)request->count);
    }
    call_finish(call);
}

/* An operation that answers with an info. */
static void
dispatch_info(struct call *call)
{
    struct request *request = &call->request;
    call->data =
        (struct iovec){.iov_base = &call->info, .iov_len = sizeof call->info};
    request->op = FARBLK_OP_GET_INFO;
    request->iov = &call->data;
    request->iovcnt = 1;
}

/* Whether a write's data is what was sent.  It is whole and in memory that
 * nobody else sees; nothing has changed yet.  False: the call has failed. */
static bool
dispatch_verify(struct call *call)
{
    const struct codec_request *ask = &call->ask;
    if (!call->session->checksums || ask->method != WIRE_WRITE)
        return true;
    uint32_t found = crc32c(0, call->data.iov_base, call->data.iov_len);
    if (found == ask->checksum)
        return true;
    call_fail(call, FARBLK_CORRUPT,
              "Write: the data of %llu sectors from %llu on was damaged on its "
              "way: its CRC-32C is 0x%08x, and was 0x%08x",
              (unsigned long long)ask->args.range.count,
              (unsigned long long)ask->args.range.sector, found, ask->checksum);
    atomic_fetch_add(&call->server->damaged, 1);
    log_warning("session %u: %s", call->session->serial,
                call->request.error.text);
    return false;
}

/* The range, and the data; false: the call has failed. */
static bool
dispatch_range(struct call *call)
{
    const struct codec_request *ask = &call->ask;
    struct request *request = &call->request;
    request->sector = ask->args.range.sector;
    request->count = ask->args.range.count;
    request->flags = ask->args.range.flags;
    request->has_whole = ask->args.range.has_whole;
    request->whole_sector = ask->args.range.whole_sector;
    request->whole_count = ask->args.range.whole_count;
    if (ask->method == WIRE_READ && ask->args.range.count > 0) {
        uint32_t length;
        if (!dispatch_length(call, &length))
            return false;
        if (request_lends(request->handle)) {
            if (!call_lend(call, length))
                return false;
            request->loan = &call->loan;
            return true;
        }
        if (!call_allocate(call, length))
            return false;
    }
    if (call->block != NULL) {
        request->iov = &call->data;
        request->iovcnt = 1;
        request->payload = ask->method == WIRE_WRITE ? call->block : NULL;
    }
    return true;
}

static bool
dispatch_extents(struct call *call)
{
    const struct codec_request *ask = &call->ask;
    struct request *request = &call->request;
    uint64_t max = dispatch_extents_max(ask);
    if (max == 0) {
        call_fail(call, FARBLK_INVALID, "Extents: max is 0");
        return false;
    }
    call->extents = call_answer(call, max * sizeof *call->extents);
    if (call->extents == NULL)
        return false;
    call->data = (struct iovec){
        .iov_base = call->extents,
        .iov_len = (size_t)max * sizeof *call->extents,
    };
    request->sector = ask->args.extents.sector;
    request->count = ask->args.extents.count;
    request->iov = &call->data;
    request->iovcnt = 1;
    return true;
}

/* A watch ends before the lease does, so that the client asks again. */
static void
dispatch_watch(struct call *call)
{
    const struct codec_request *ask = &call->ask;
    struct request *request = &call->request;
    uint32_t lease_ms = call->server->limits.lease_ms;
    if (ask->args.watch.timeout_ms == 0) {
        call->asks = true;
        dispatch_info(call);
        return;
    }
    request->count = ask->args.watch.generation;
    int32_t timeout_ms =
        dispatch_smaller(ask->args.watch.timeout_ms, lease_ms - lease_ms / 4);
    if (request->timeout_ms == 0 || request->timeout_ms > timeout_ms)
        request->timeout_ms = timeout_ms;
}

/* Give core what the call asks for. */
static void
dispatch_submit(struct call *call)
{
    const struct codec_request *ask = &call->ask;
    struct request *request = &call->request;
    bool ready = true;
    request->handle = call->opened->dev;
    request->op = dispatch_ops[ask->method];
    request->done = dispatch_done;
    switch (ask->method) {
    case WIRE_OPEN:
    case WIRE_GET_INFO:
        dispatch_info(call);
        break;
    case WIRE_READ:
    case WIRE_WRITE:
    case WIRE_DISCARD:
    case WIRE_WRITE_ZEROES:
        ready = dispatch_verify(call) && dispatch_range(call);
        break;
    case WIRE_RESIZE:
        request->count = ask->args.resize.size_sectors;
        request->flags = ask->args.resize.flags;
        break;
    case WIRE_SEEK_MAPPED:
    case WIRE_SEEK_UNMAPPED:
        request->sector = ask->args.seek.sector;
        break;
    case WIRE_EXTENTS:
        ready = dispatch_extents(call);
        break;
    case WIRE_WATCH_INFO:
        dispatch_watch(call);
        break;
    default:
        break;
    }
    if (ready)
        request_submit(request);
    else
        call_finish(call);
}

static void
dispatch_list(struct call *call)
{
    call->devices =
        call_answer(call, CODEC_DEVICES_MAX * sizeof *call->devices);
    if (call->devices != NULL)
        call->device_count = export_list(
            call->server, &call->session->who, call->ask.args.list.after,
            call->devices, CODEC_DEVICES_MAX, &call->more_devices);
    call_finish(call);
}

static void
dispatch_disconnect(struct call *call)
{
    if (call->ask.handle == 0) {
        struct session *session = session_get(call->session);
        session_fence(session, "ended by its client", call, SESSION_NOW);
        session_put(session);
    } else if (call->opened != NULL) {
        struct opened *opened = opened_get(call->opened);
        opened_close(opened, call);
        opened_put(opened);
    } else {
        call_finish(call); /* it has gone before */
    }
}

/* The session says that the call is to be executed. */
static void
dispatch_execute(struct call *call)
{
    switch (call->ask.method) {
    case WIRE_PING:
        call_finish(call);
        break;
    case WIRE_LIST_DEVICES:
        dispatch_list(call);
        break;
    case WIRE_OPEN:
        if (opened_open(call))
            dispatch_submit(call);
        else
            call_finish(call);
        break;
    case WIRE_DISCONNECT:
        dispatch_disconnect(call);
        break;
    case WIRE_SHARE_MEMORY:
        shm_offer(call);
        call_finish(call);
        break;
    case WIRE_CANCEL:
        session_cancel(call);
        call_finish(call);
        break;
    default:
        dispatch_submit(call);
        break;
    }
}

/* The first outcome once more.  That of Open is told with the info of now. */
static void
dispatch_repeated(struct call *call)
{
    if (call->ask.method != WIRE_OPEN || call->request.error.status != 0) {
        call_finish(call);
        return;
    }
    struct session *session = call->session;
    uint64_t number = call->request.value;
    if (call->opened == NULL) {
        pthread_mutex_lock(&session->mutex);
        call->opened = opened_find(session, number);
        pthread_mutex_unlock(&session->mutex);
    }
    if (call->opened == NULL) {
        call_fail(call, FARBLK_DISCONNECTED,
                  "Open: handle %llu is disconnected meanwhile",
                  (unsigned long long)number);
        call_finish(call);
        return;
    }
    dispatch_submit(call);
}

void
dispatch_frame(struct call *call)
{
    server_most(&call->server->most_busy,
                atomic_fetch_add(&call->server->busy, 1) + 1);
    call->busy = true;
    if (!call->failed && call->deadline_ms != 0) {
        int64_t left = call->deadline_ms - timer_now();
        if (left <= 0)
            call_fail(call, FARBLK_TIMED_OUT, "%s: not begun within %u ms",
                      codec_method_name(call->ask.method),
                      call->ask.deadline_ms);
        else
            call->request.timeout_ms = dispatch_smaller(left, INT32_MAX);
    }
    if (!call->failed && call->ask.method == WIRE_HELLO) {
        session_hello(call);
        call_finish(call);
        return;
    }
    if (call->failed) {
        session_refuse(call);
        call_finish(call);
        return;
    }
    switch (session_start(call)) {
    case SESSION_START:
        dispatch_execute(call);
        break;
    case SESSION_ATTACHED:
        call_discard(call);
        break;
    case SESSION_PARKED:
        break;
    case SESSION_REPEATED:
        dispatch_repeated(call);
        break;
    case SESSION_REFUSED:
        call_finish(call);
        break;
    }
}
