/* SPDX-License-Identifier: ISC */
/*
 * Pieces: a request on its way through range locks and driver.
 *
 * A request becomes as many ios as the driver's limits want, up to PIECES_MAX
 * in flight; each takes the next piece when it has ended.  Ios are begun from a
 * list of this thread (io_run): what a completion sets going is begun by the
 * loop that is already running, not by recursion, so the stack stays flat
 * however many locks or pieces a completion frees.
 */
#include "core/request_parts.h"

#include "core/checked.h"

#include <stdlib.h>
#include <string.h>

/* Pieces of one request in flight at once. */
#define PIECES_MAX 16u

/* What this thread has to begin. */
struct run {
    struct io *head, *tail;
    bool active;
};
static _Thread_local struct run thread_run;

/* An expiry or other pieces may look at the request at the same time; else it
 * belongs to whoever has its only piece, and has no mutex.  The same from the
 * first piece's beginning to the end. */
static bool
request_shared(const struct request *request)
{
    return request->timed || request->piece_count > 0;
}

static void
request_lock(struct request *request)
{
    if (request_shared(request))
        pthread_mutex_lock(&request->mutex);
}

static void
request_unlock(struct request *request)
{
    if (request_shared(request))
        pthread_mutex_unlock(&request->mutex);
}

static struct io *
io_of_range(struct range_lock *lock)
{
    return (struct io *)((char *)lock - offsetof(struct io, range));
}

void
io_set_stage(struct io *io, enum stage stage)
{
    struct request *request = io->request;
    if (request->timed)
        pthread_mutex_lock(&request->mutex);
    io->stage = stage;
    if (request->timed)
        pthread_mutex_unlock(&request->mutex);
}

/* Whether core must make its sectors atomic. */
static bool
io_locks(const struct io *io)
{
    return (OP_BIT(io->op) & SPLITTABLE) != 0
           && (io->request->device->driver->flags
               & (DRIVER_SECTORS_ATOMIC | DRIVER_REMOTE))
                  == 0;
}

/* Ask for the io's range; false when it will come later, by io_run_granted().
 * With the request's mutex, so that an expiry sees either no lock or one that
 * it can cancel. */
static bool
io_lock(struct io *io)
{
    struct request *request = io->request;
    if (request->timed)
        pthread_mutex_lock(&request->mutex);
    io->stage = STAGE_WAITING;
    bool timed = request->timed;
    bool granted =
        ranges_acquire(&request->device->ranges, &io->range, io->offset,
                       io->length, io->op != FARBLK_OP_READ);
    /* Not granted: it may be running on another thread by now, unless the
     * mutex keeps it. */
    if (timed)
        pthread_mutex_unlock(&request->mutex);
    return granted;
}

bool
io_revoked(const struct io *io)
{
    return (OP_BIT(io->op) & CHANGING) != 0
           && atomic_load_explicit(&io->request->handle->revoked,
                                   memory_order_relaxed);
}

/* To the driver, unless the request's time is over: also when the timer's thread
 * has not come to say so, because all of the process stood still. */
static bool
io_enter_driver(struct io *io)
{
    struct request *request = io->request;
    if (!request->timed) {
        io->stage = STAGE_DRIVER;
        return true;
    }
    pthread_mutex_lock(&request->mutex);
    bool fine = !request->expired && timer_now() < request->deadline_ms;
    if (fine)
        io->stage = STAGE_DRIVER;
    pthread_mutex_unlock(&request->mutex);
    return fine;
}

static void
io_begin(struct io *io)
{
    struct request *request = io->request;
    struct device *device = request->device;
    if (io->stage == STAGE_BEGIN && io_locks(io) && !io_lock(io))
        return;
    if (io_revoked(io))
        io_failed(io, FARBLK_DISCONNECTED, FARBLK_EFFECT_NONE,
                  "not begun before its handle was revoked");
    else if (io_enter_driver(io))
        device->driver->submit(device->state, io);
    else
        io_failed(io, FARBLK_TIMED_OUT, FARBLK_EFFECT_NONE,
                  "not begun within %d ms", request->timeout_ms);
}

void
io_run(struct io *io)
{
    struct run *run = &thread_run;
    /* Or compilers ask anew where it is at each use. */
    __asm__("" : "+r"(run));
    io->next = NULL;
    if (run->head == NULL)
        run->head = io;
    else
        run->tail->next = io;
    run->tail = io;
    if (run->active)
        return;
    run->active = true;
    while (run->head != NULL) {
        struct io *first = run->head;
        run->head = first->next;
        io_begin(first);
    }
    run->active = false;
}

void
io_run_granted(struct range_lock *ready)
{
    while (ready != NULL) {
        struct range_lock *next = ready->ready_next;
        io_run(io_of_range(ready));
        ready = next;
    }
}

void
request_fini_lock(struct request *request)
{
    if (request_shared(request))
        pthread_mutex_destroy(&request->mutex);
}

/* Give `io` the next piece of what is left; false when there is none. */
static bool
io_claim(struct io *io)
{
    struct request *request = io->request;
    const struct shape *shape = &request->device->shape;
    bool moves =
        request->op == FARBLK_OP_READ || request->op == FARBLK_OP_WRITE;
    uint64_t most = moves ? shape->max_transfer : shape->max_range;
    request_lock(request);
    bool claimed =
        request->length > 0 && request->error.status == 0 && !request->expired;
    if (request->length > 0 && request->expired && request->error.status == 0)
        error_set(&request->error, FARBLK_TIMED_OUT, "not done within %d ms",
                  request->timeout_ms);
    if (claimed) {
        uint64_t length = request->length;
        if (most != 0 && request->loan == NULL)
            length = min_u64(length, most);
        io->offset = request->offset;
        io->length = length;
        if (moves && request->loan == NULL) {
            io->data = request->rest;
            io->data.length = length;
            iov_advance(&request->rest, length);
        }
        io->stage = STAGE_BEGIN;
        request->offset += length;
        request->length -= length;
    }
    request_unlock(request);
    return claimed;
}

/* One of the ios has nothing more to do. */
static void
request_drop(struct request *request)
{
    if (atomic_fetch_sub(&request->outstanding, 1) == 1)
        request_pieces_ended(request);
}

/* The driver, or an expiry, has finished with the io. */
void
io_ended(struct io *io, bool locked)
{
    struct request *request = io->request;
    if (locked && io_locks(io))
        io_run_granted(ranges_release(&request->device->ranges, &io->range));
    io_set_stage(io, STAGE_IDLE);
    if (io->op == request->op && request_is(request, SPLITTABLE)
        && io_claim(io))
        io_run(io);
    else
        request_drop(request);
}

void
io_done(struct io *io, uint64_t value)
{
    struct request *request = io->request;
    if (io->op == request->op) {
        if (!request_is(request, SPLITTABLE))
            request->value = value;
        if (request_is(request, CHANGING)) {
            if (request->piece_count > 0)
                pthread_mutex_lock(&request->mutex);
            request->some_done = true;
            if (request->piece_count > 0)
                pthread_mutex_unlock(&request->mutex);
        }
        if (io->op == FARBLK_OP_RESIZE && !request_remote(request))
            device_resized(request->device, io->length);
    }
    io_ended(io, true);
}

static void
io_fail(struct io *io, const struct error *error)
{
    struct request *request = io->request;
    struct device *device = request->device;
    /* One that was not even begun has lost nothing. */
    bool begun = error->effect != FARBLK_EFFECT_NONE
                 || (error->status != FARBLK_TIMED_OUT
                     && error->status != FARBLK_NO_MEMORY);
    bool lost_data =
        (io->op == FARBLK_OP_FLUSH && begun)
        || ((io->flags & FARBLK_FUA) != 0 && error->status == FARBLK_IO);
    if (lost_data && !request_remote(request))
        device_flush_failed(device, error);
    request_lock(request);
    struct error *sum = &request->error;
    if (sum->status == 0) {
        const char *name = op_rules[request->op].name;
        size_t length = strlen(name);
        /* A server's text has the name already. */
        bool named = strncmp(error->text, name, length) == 0
                     && error->text[length] == ':';
        error_set(sum, error->status, "%s%s%.*s", named ? "" : name,
                  named ? "" : ": ", FARBLK_TEXT_MAX - 32, error->text);
        sum->effect = error->effect;
    } else if (error->effect != FARBLK_EFFECT_NONE) {
        sum->effect = FARBLK_EFFECT_UNKNOWN;
    }
    request_unlock(request);
    io_ended(io, true);
}

void
io_failed(struct io *io, int status, enum farblk_effect effect,
          const char *format, ...)
{
    struct error error;
    va_list args;
    va_start(args, format);
    error_vset(&error, status, format, args);
    va_end(args);
    error.effect = effect;
    io_fail(io, &error);
}

void
io_failed_errno(struct io *io, int errnum, enum farblk_effect effect,
                const char *format, ...)
{
    struct error error;
    char text[FARBLK_TEXT_MAX];
    char reason[128];
    va_list args;
    va_start(args, format);
    error_vset(&error, FARBLK_UNKNOWN, format, args);
    va_end(args);
    memcpy(text, error.text, sizeof text);
    error_set(&error, error_status_of_errno(errnum), "%.380s: %s", text,
              strerror_r(errnum, reason, sizeof reason));
    error.effect = effect;
    io_fail(io, &error);
}

/* Send what request->offset and length tell to the driver. */
void
request_issue(struct request *request)
{
    const struct shape *shape = &request->device->shape;
    struct io *first = &request->first;
    bool splittable = request_is(request, SPLITTABLE);
    bool moves =
        request->op == FARBLK_OP_READ || request->op == FARBLK_OP_WRITE;
    uint64_t most = moves ? shape->max_transfer : shape->max_range;
    unsigned wanted = 1;

    first->request = request;
    first->op = request->op;
    first->flags =
        request->flags & (FARBLK_FUA | FARBLK_NO_UNMAP | FARBLK_MORE);
    if (request->fua_by_flush)
        first->flags &= ~(uint32_t)FARBLK_FUA;
    first->whole_offset = request->whole_offset;
    first->whole_length = request->whole_length;
    first->loan = request->loan;
    first->payload = request->payload;
    first->ring = request->ring;
    first->deadline_ms = request->deadline_ms;
    if (splittable && request->loan == NULL && most != 0
        && request->length > most) {
        wanted =
            (unsigned)min_u64((request->length - 1) / most + 1, PIECES_MAX);
        /* Without memory the pieces go one after the other. */
        request->pieces = calloc(wanted - 1, sizeof *request->pieces);
        if (request->pieces == NULL)
            wanted = 1;
        first->flags &= ~(uint32_t)FARBLK_MORE; /* enough to begin with */
    }
    if (request->timed)
        pthread_mutex_lock(&request->mutex); /* an expiry may look at them */
    else if (wanted > 1)
        pthread_mutex_init(&request->mutex, NULL);
    request->piece_count = wanted - 1;
    for (unsigned i = 0; i < request->piece_count; i++)
        request->pieces[i] = *first;
    if (request->timed)
        pthread_mutex_unlock(&request->mutex);
    /* One more than the ios, for this loop. */
    atomic_store(&request->outstanding, wanted + 1);
    if (!splittable || request->length == 0) {
        first->offset = request->offset;
        first->length = request->length;
        request->length = 0;
        io_set_stage(first, STAGE_BEGIN);
        io_run(first);
    } else {
        for (unsigned i = 0; i < wanted; i++) {
            struct io *io = i == 0 ? first : &request->pieces[i - 1];
            if (io_claim(io))
                io_run(io);
            else
                request_drop(request);
        }
    }
    request_drop(request);
}
