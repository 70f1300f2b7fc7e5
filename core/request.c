/* SPDX-License-Identifier: ISC */
/*
 * The life of a request: the way in (handle, checks, gate), what core answers
 * by itself, time running out, and the end.
 *
 * A request with a timeout has its timer fire on the timer's thread; stages of
 * its pieces change under its mutex, so that the expiry knows whom to tell: the
 * gate, the range locks, or the driver.  Two holds keep it until its submitter
 * has armed the timer and its life is over.
 */
#include "core/request_parts.h"

#include "core/checked.h"
#include "core/log.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* The request whose expiry this thread is at. */
static _Thread_local struct request *expiring;

static void request_fill_info(struct request *request);

bool
request_lends(const struct farblk *handle)
{
    return (handle->device->driver->flags & DRIVER_LENDS) != 0;
}

bool
request_wants_aligned(const struct farblk *handle)
{
    return handle->device->shape.memory_align > _Alignof(max_align_t);
}

bool
request_looks_once(const struct farblk *handle)
{
    return (handle->device->driver->flags & DRIVER_LOOKS_ONCE) != 0;
}

void
request_foresee(const struct farblk *handle, uint64_t sector)
{
    const struct device *device = handle->device;
    uint64_t offset;
    if (device->driver->foresee != NULL
        && checked_mul(sector, device->shape.sector_size, &offset))
        device->driver->foresee(device->state, offset);
}

static struct request *
request_of_timer(struct timer *timer)
{
    return (struct request *)((char *)timer - offsetof(struct request, timer));
}

static void
request_end(struct request *request)
{
    struct farblk *handle = request->handle;
    request_fini_lock(request);
    free(request->pieces);
    handle_leave(handle);
    request->done(request);
}

/* Nobody but, perhaps, the running timer holds a timed request any more. */
static void
request_release(struct request *request)
{
    timer_disarm(&request->timer);
    if (expiring == request)
        request->finished = true; /* request_expire() goes on */
    else
        request_end(request);
}

/* Everything of the request has come to rest: leave and tell. */
static void
request_finish(struct request *request)
{
    struct error *error = &request->error;
    if (error->status != 0) {
        if (!request_is(request, CHANGING))
            error->effect = FARBLK_EFFECT_NONE;
        else if (request->some_done)
            error->effect = FARBLK_EFFECT_UNKNOWN;
    }
    if (request->gated)
        gate_leave(&request->device->gate, request->exclusive);
    if (!request->timed)
        request_end(request);
    else if (atomic_fetch_sub(&request->holds, 1) == 1)
        request_release(request);
}

/* All pieces are done, or none was begun. */
void
request_pieces_ended(struct request *request)
{
    struct device *device = request->device;
    if (request->error.status == 0 && request->fua_by_flush) {
        request->fua_by_flush = false;
        if (!device_check_flush(device, &request->error)) {
            request->error.effect = FARBLK_EFFECT_UNKNOWN;
        } else {
            request->first.op = FARBLK_OP_FLUSH;
            request->first.flags = 0;
            io_set_stage(&request->first, STAGE_BEGIN);
            atomic_store(&request->outstanding, 1);
            io_run(&request->first);
            return;
        }
    }
    /* The peer is gone for good: the last known answer. */
    if (request->op == FARBLK_OP_GET_INFO
        && request->error.status == FARBLK_DISCONNECTED) {
        error_clear(&request->error);
        request->value = 1;
    }
    if (request->error.status == 0) {
        if (request->op == FARBLK_OP_SEEK_MAPPED
            || request->op == FARBLK_OP_SEEK_UNMAPPED)
            request->value /= device->shape.sector_size;
        else if (request->op == FARBLK_OP_GET_INFO)
            request_fill_info(request);
    }
    request_finish(request);
}

/* Answers that need no driver.  True: the request is complete. */
static bool
request_answer(struct request *request)
{
    struct device *device = request->device;
    if (request_remote(request))
        return false;
    bool can_seek = (device->shape.features & FARBLK_CAN_SEEK) != 0;
    uint64_t size = atomic_load(&device->size);
    switch (request->op) {
    case FARBLK_OP_READ:
    case FARBLK_OP_WRITE:
    case FARBLK_OP_DISCARD:
    case FARBLK_OP_WRITE_ZEROES:
        return request->length == 0;
    case FARBLK_OP_SEEK_MAPPED:
    case FARBLK_OP_SEEK_UNMAPPED:
        if (can_seek && request->offset < size)
            return false;
        request->value =
            (request->op == FARBLK_OP_SEEK_MAPPED ? request->offset : size)
            / device->shape.sector_size;
        return true;
    case FARBLK_OP_EXTENTS:
        if (can_seek && request->length > 0)
            return false;
        request->value = request->length > 0;
        if (request->length > 0)
            *request->first.extents = (struct farblk_extent){
                .start = request->sector, .count = request->count, .mapped = 1};
        return true;
    case FARBLK_OP_FLUSH:
        return !device_check_flush(device, &request->error);
    default:
        return false;
    }
}

/* Inside the gate, where there is one. */
static void
request_go(struct request *request)
{
    if (request->op == FARBLK_OP_EXTENTS) {
        request->first.extents = request->iov->iov_base;
        request->first.extents_max =
            request->iov->iov_len / sizeof(struct farblk_extent);
    }
    if (request_check_range(request) != 0 || request_answer(request))
        request_finish(request);
    else
        request_issue(request);
}

static void
request_passed(struct gate_waiter *waiter)
{
    struct request *request =
        (struct request *)((char *)waiter - offsetof(struct request, waiter));
    if (request->timed)
        pthread_mutex_lock(&request->mutex);
    request->gated = true;
    bool expired = request->expired;
    if (request->timed)
        pthread_mutex_unlock(&request->mutex);
    if (expired) {
        error_set(&request->error, FARBLK_TIMED_OUT,
                  "%s: not begun within %d ms", op_rules[request->op].name,
                  request->timeout_ms);
        request_finish(request);
        return;
    }
    request_go(request);
}

void
request_watched(struct request *request)
{
    if (handle_disconnected(request->handle)
        && request->value == request->count)
        error_set(&request->error, FARBLK_DISCONNECTED,
                  "watch: the handle was disconnected");
    request_finish(request);
}

/* The timer's thread: the request's time is over. */
static void
request_expire(struct timer *timer)
{
    struct request *request = request_of_timer(timer);
    struct device *device = request->device;
    const struct driver *driver = device->driver;
    expiring = request;
    pthread_mutex_lock(&request->mutex);
    request->expired = true;
    unsigned pieces = request->piece_count;
    pthread_mutex_unlock(&request->mutex);

    if (gate_cancel(&device->gate, &request->waiter)
        || device_unwatch(device, request)) {
        error_set(&request->error, FARBLK_TIMED_OUT, "%s: not within %d ms",
                  op_rules[request->op].name, request->timeout_ms);
        request_finish(request);
    } else {
        for (unsigned i = 0; i <= pieces; i++) {
            struct io *io = i == 0 ? &request->first : &request->pieces[i - 1];
            struct range_lock *ready = NULL;
            pthread_mutex_lock(&request->mutex);
            int stage = io->stage;
            /* Inside the mutex: with it the lock can not begin a new life. */
            bool cancelled =
                stage == STAGE_WAITING
                && ranges_cancel(&device->ranges, &io->range, &ready);
            pthread_mutex_unlock(&request->mutex);
            if (cancelled) {
                pthread_mutex_lock(&request->mutex);
                if (request->error.status == 0)
                    error_set(&request->error, FARBLK_TIMED_OUT,
                              "%s: not within %d ms",
                              op_rules[request->op].name, request->timeout_ms);
                pthread_mutex_unlock(&request->mutex);
                io_ended(io, false);
                io_run_granted(ready);
            } else if (stage == STAGE_DRIVER && driver->cancel != NULL) {
                driver->cancel(device->state, io);
            }
        }
    }
    expiring = NULL;
    if (request->finished)
        request_end(request);
}

static void
request_fill_info(struct request *request)
{
    struct farblk_info info;
    size_t size = request->iov->iov_len;
    handle_info(request->handle, &info);
    if (size > sizeof info) {
        memset((char *)request->iov->iov_base + sizeof info, 0,
               size - sizeof info);
        size = sizeof info;
    }
    memcpy(request->iov->iov_base, &info, size);
}

/* Into the watchers, the gate, or straight on.  The timer is armed when the
 * request stands where it waits, if it waits; `holds` keeps it until then. */
static void
request_enter(struct request *request, bool remote)
{
    struct device *device = request->device;
    bool timed = request->timeout_ms > 0;
    int64_t deadline = timed ? timer_now() + request->timeout_ms : 0;
    request->timed = timed;
    request->deadline_ms = deadline;
    if (timed)
        pthread_mutex_init(&request->mutex, NULL);
    atomic_store_explicit(&request->holds, 2, memory_order_relaxed);
    if (remote) {
        request_go(request);
    } else if (request->op == FARBLK_OP_WATCH) {
        if (!device_watch(device, request))
            request_watched(request);
    } else {
        request->exclusive = request->op == FARBLK_OP_RESIZE;
        if (gate_enter(&device->gate, &request->waiter, request->exclusive)) {
            request->gated = true;
            request_go(request);
        }
    }
    if (!timed)
        return; /* it may be gone */
    if (atomic_load(&request->holds) == 2
        && !timer_arm(&request->timer, deadline, request_expire))
        log_warning("no timer for a request: it has no timeout");
    if (atomic_fetch_sub(&request->holds, 1) == 1)
        request_release(request);
}

void
request_cancel(const struct request *request)
{
    timer_hasten(&request->timer);
}

void
request_submit(struct request *request)
{
    struct farblk *handle = request->handle;
    struct device *device = handle->device;
    request->device = device;
    error_clear(&request->error);
    request->value = 0;
    if (!handle_enter(handle)) {
        if (request->op == FARBLK_OP_GET_INFO
            && request_check_answer(request, 1, 1) == 0) {
            request_fill_info(request);
            request->value = 1;
        } else if (request->error.status == 0)
            error_set(&request->error, FARBLK_DISCONNECTED,
                      "%.200s: the handle is disconnected", device->shape.name);
        request->done(request);
        return;
    }

    memset(&request->waiter, 0, sizeof request->waiter);
    memset(&request->first, 0, sizeof request->first);
    request->pieces = NULL;
    request->piece_count = 0;
    request->offset = request->length = 0;
    request->whole_offset = request->whole_length = 0;
    request->timer.index = 0;
    request->watching = false;
    request->fua_by_flush = request->gated = request->exclusive = false;
    request->timed = request->expired = false;
    request->some_done = request->finished = false;
    if (request_check(request) != 0) {
        request_finish(request);
        return;
    }
    if (handle->sync && request_is(request, CHANGING))
        request->flags |= FARBLK_FUA;
    uint32_t native = device->driver->native_fua & ~device->shape.lacks_fua;
    request->fua_by_flush = (request->flags & FARBLK_FUA) != 0
                            && (native & OP_BIT(request->op)) == 0;

    bool remote = request_remote(request);
    if (request->op == FARBLK_OP_GET_INFO && !remote) {
        request_fill_info(request);
        request_finish(request);
        return;
    }
    if (request->timeout_ms == 0)
        request->timeout_ms = handle->timeout_ms;
    request->first.request = request;
    request->waiter.passed = request_passed;
    request_enter(request, remote);
}
