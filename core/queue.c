/* SPDX-License-Identifier: ISC */
/*
 * Queues.  A queue owns `depth` slots, each with a request in it.  Its one
 * thread takes slots from a list that only it touches; completions come from
 * any thread into a list under the mutex, and wake the collector or make the
 * descriptor readable when there is somebody to wake.
 *
 * Where a driver has a source to wait at (driver_waiting), the collector attends
 * to that of the device that the queue was first used with: it receives by
 * itself what completes its requests.  The source is kept while something is
 * pending.  A queue whose descriptor was asked for never attends,
 * nor does one whose requests wait at several sources.
 *
 * Where a driver has rings, the queue has one of its own at each device
 * (queue_rings.c), and waits at them.
 */
#include "core/queue.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

int
farblk_queue_create(uint32_t depth, struct farblk_queue **queue)
{
    last_error_clear();
    if (queue == NULL)
        return last_error_fail(FARBLK_INVALID,
                               "queue_create: nowhere to put the queue");
    *queue = NULL;
    if (depth == 0 || depth > FARBLK_QUEUE_DEPTH_MAX)
        return last_error_fail(FARBLK_INVALID,
                               "queue_create: depth %u, must be 1 ... %u",
                               depth, FARBLK_QUEUE_DEPTH_MAX);
    struct farblk_queue *q = calloc(1, sizeof *q);
    struct slot *slots = calloc(depth, sizeof *slots);
    if (q == NULL || slots == NULL) {
        free(q);
        free(slots);
        return last_error_fail(
            FARBLK_NO_MEMORY, "queue_create: no memory for %u requests", depth);
    }
    q->depth = depth;
    q->slots = slots;
    q->fork_generation = fork_generation();
    q->event = q->bell = q->descriptor = -1;
    pthread_mutex_init(&q->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&q->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    for (uint32_t i = depth; i-- > 0;) {
        slots[i].queue = q;
        slots[i].next = q->free;
        q->free = &slots[i];
    }
    *queue = q;
    return 0;
}

/* With the mutex: the collector has something to collect. */
static void
queue_wake(struct farblk_queue *queue)
{
    struct attendance *attendance = queue->attendance;
    if (atomic_load_explicit(&attendance->woken, memory_order_relaxed))
        return;
    if (!queue->attending || pthread_equal(attendance->thread, pthread_self()))
        atomic_store_explicit(&attendance->woken, true, memory_order_relaxed);
    else
        queue->waiting->wake(queue->source, attendance);
}

/* Any thread.  The collector is woken after the mutex is free, or it would
 * wake only to wait for it; `leaving` keeps the queue until that has been. */
static void
queue_done(struct request *request)
{
    struct slot *slot = request->owner;
    struct farblk_queue *queue = slot->queue;
    slot->next = NULL;
    atomic_fetch_add_explicit(&queue->leaving, 1, memory_order_relaxed);
    pthread_mutex_lock(&queue->mutex);
    if (queue->last != NULL)
        queue->last->next = slot;
    else
        queue->done = slot;
    queue->last = slot;
    atomic_store_explicit(&queue->some_done, true, memory_order_relaxed);
    if (queue->polling) {
        queue->polling = false; /* once is enough */
        eventfd_write(queue->bell, 1);
    }
    bool wake = queue->sleeping;
    queue->sleeping = false; /* once is enough */
    if (queue->attendance != NULL)
        queue_wake(queue);
    if (queue->event >= 0 && !queue->event_set)
        queue->event_set = eventfd_write(queue->event, 1) == 0;
    pthread_mutex_unlock(&queue->mutex);
    if (wake)
        pthread_cond_signal(&queue->wake);
    atomic_fetch_sub_explicit(&queue->leaving, 1, memory_order_release);
}

/* Tail octets of a larger, newer structure must be zero. */
static bool
request_known(const struct farblk_request *request)
{
    const unsigned char *octets = (const unsigned char *)request;
    for (size_t i = sizeof *request; i < request->size; i++)
        if (octets[i] != 0)
            return false;
    return request->reserved == 0;
}

/* Begin what was put off. */
static void
queue_push(struct farblk_queue *queue)
{
    queue->waiting->push(queue->source);
    queue->more = false;
}

static void
queue_leave_source(struct farblk_queue *queue)
{
    if (queue->source != NULL)
        queue->waiting->put(queue->source);
    queue->source = NULL;
    queue->more = queue->several = false;
}

/* The operations that a ring carries. */
#define RINGED                                                                 \
    (1u << FARBLK_OP_READ | 1u << FARBLK_OP_WRITE | 1u << FARBLK_OP_FLUSH      \
     | 1u << FARBLK_OP_DISCARD | 1u << FARBLK_OP_WRITE_ZEROES                  \
     | 1u << FARBLK_OP_SEEK_MAPPED | 1u << FARBLK_OP_SEEK_UNMAPPED)

/* The ring that a request may take, or NULL. */
static void *
queue_ring_for(struct farblk_queue *queue, const struct farblk_request *request)
{
    struct device *device = request->dev->device;
    if (device->driver->rings == NULL || request->op > FARBLK_OP_WATCH
        || (1u << request->op & RINGED) == 0)
        return NULL;
    return queue_ring(queue, device);
}

/* A request is about to be submitted: the queue attends to its device's source
 * if it has none.  Returns the request's flags: its start may only be put off
 * where queue_push() reaches it. */
static uint32_t
queue_source(struct farblk_queue *queue, const struct farblk_request *request)
{
    struct device *device = request->dev->device;
    const struct driver_waiting *waiting = device->driver->waiting;
    uint32_t flags = request->flags;
    if (waiting == NULL)
        return flags & ~(uint32_t)FARBLK_MORE;
    void *held = waiting == queue->waiting ? queue->source : NULL;
    void *source = waiting->get(device->state, held);
    if (queue->event >= 0)
        waiting->mind(source, true);
    if (queue->source != NULL && source == held)
        return flags;
    if (queue->source != NULL && queue->waiting->ended(queue->source)) {
        queue->waiting->put(queue->source);
        queue->source = NULL;
    }
    if (queue->source == NULL) {
        queue->source = source;
        queue->waiting = waiting;
        return flags;
    }
    flags &= ~(uint32_t)FARBLK_MORE;
    waiting->mind(source, false); /* it is not attended to from here */
    queue->several = true;
    waiting->put(source);
    return flags;
}

int
farblk_submit(struct farblk_queue *queue, const struct farblk_request *request)
{
    last_error_clear();
    if (queue == NULL || request == NULL)
        return last_error_fail(FARBLK_INVALID,
                               "submit: no queue or no request");
    if (request->size < sizeof *request || !request_known(request))
        return last_error_fail(
            FARBLK_INVALID,
            "submit: a request of %zu octets, wanted %zu, or "
            "one with fields that this library does not know",
            request->size, sizeof *request);
    if (request->dev == NULL)
        return last_error_fail(FARBLK_INVALID, "submit: no device");
    if (queue->fork_generation != fork_generation()
        || handle_forked(request->dev))
        return last_error_fail(FARBLK_INVALID,
                               "submit: the queue or the device belongs to the "
                               "parent process");
    struct slot *slot = queue->free;
    if (slot == NULL)
        return last_error_fail(
            FARBLK_BUSY, "submit: all %u requests of the queue are in use",
            queue->depth);
    queue->free = slot->next;
    queue->pending++;
    slot->user = request->user;
    struct request *r = &slot->request;
    r->handle = request->dev;
    r->op = (enum farblk_op)request->op;
    r->ring = queue_ring_for(queue, request);
    slot->ringed = r->ring != NULL;
    queue->ringed += slot->ringed;
    r->flags = slot->ringed ? request->flags & ~(uint32_t)FARBLK_MORE
                            : queue_source(queue, request);
    r->sector = request->sector;
    r->count = request->count;
    r->iov = request->iov;
    r->iovcnt = request->iovcnt;
    r->timeout_ms = request->timeout_ms;
    r->has_whole = false;
    r->loan = NULL;
    r->payload = NULL;
    r->done = queue_done;
    r->owner = slot;
    bool more = (r->flags & FARBLK_MORE) != 0;
    request_submit(r);
    if (!more && queue->more)
        queue_push(queue);
    queue->more = more;
    if (slot->ringed && queue->event >= 0)
        queue_rings_expect(queue);
    return 0;
}

/* Wait until something is done or the time has passed; the mutex is held. */
static void
queue_wait(struct farblk_queue *queue, int64_t until_ms)
{
    struct timespec until = {0, 0};
    if (until_ms > 0) {
        until.tv_sec = (time_t)(until_ms / 1000);
        until.tv_nsec = (long)(until_ms % 1000) * 1000000;
    }
    while (queue->done == NULL) {
        queue->sleeping = true;
        if (until_ms < 0)
            pthread_cond_wait(&queue->wake, &queue->mutex);
        else if (pthread_cond_timedwait(&queue->wake, &queue->mutex, &until)
                 == ETIMEDOUT)
            break;
    }
    queue->sleeping = false;
}

/* With the mutex, nothing is done: receive what completes something, or wait
 * for it, at most until_ms (negative: no limit; 0: do not wait). */
static void
queue_await(struct farblk_queue *queue, int64_t until_ms)
{
    const struct driver_waiting *waiting = queue->waiting;
    const bool attends =
        queue->source != NULL && queue->event < 0 && !queue->several;
    struct attendance attendance;
    bool attended = false;
    if (queue->several)
        waiting->mind(queue->source, false);
    if (attends) {
        atomic_init(&attendance.woken, false);
        attendance.thread = pthread_self();
        queue->attendance = &attendance;
        queue->attending = true;
        pthread_mutex_unlock(&queue->mutex);
        attended = waiting->attend(queue->source, &attendance, until_ms);
        pthread_mutex_lock(&queue->mutex);
        queue->attending = false;
    }
    if (until_ms != 0)
        queue_wait(queue, until_ms);
    queue->attendance = NULL;
    if (attends && !attended)
        waiting->left(queue->source);
}

/* Room for the texts of `count` completions; false without memory. */
static bool
queue_reserve_texts(struct farblk_queue *queue, size_t count)
{
    if (count <= queue->text_capacity)
        return true;
    void *texts = realloc(queue->texts, count * sizeof *queue->texts);
    if (texts == NULL)
        return false;
    queue->texts = texts;
    queue->text_capacity = count;
    return true;
}

static void
queue_fill(struct farblk_queue *queue, const struct slot *slot, size_t index,
           struct farblk_completion *completion)
{
    const struct error *error = &slot->request.error;
    completion->user = slot->user;
    completion->status = error->status;
    completion->effect = error->effect;
    completion->value = slot->request.value;
    completion->text = "";
    if (error->status == 0)
        return;
    completion->text = farblk_status_name(error->status);
    if (index < queue->text_capacity) {
        memcpy(queue->texts[index], error->text, sizeof error->text);
        completion->text = queue->texts[index];
    }
}

/* Take in what the rings hold, and wait there unless something is done. */
static void
queue_at_rings(struct farblk_queue *queue, int32_t timeout_ms)
{
    if (queue->event >= 0)
        queue_rings_awake(queue);
    if (queue->source != NULL)
        queue->waiting->mind(queue->source, false);
    queue_rings_await(queue,
                      timeout_ms > 0 ? timer_now() + timeout_ms : timeout_ms);
}

int
farblk_collect(struct farblk_queue *queue,
               struct farblk_completion *completions, size_t size, size_t max,
               int32_t timeout_ms)
{
    last_error_clear();
    if (queue == NULL || (completions == NULL && max > 0)
        || size < sizeof *completions
        || size % _Alignof(struct farblk_completion) != 0)
        return last_error_fail(FARBLK_INVALID,
                               "collect: no queue, nowhere to put completions, "
                               "or completions of %zu octets, wanted %zu",
                               size, sizeof *completions);
    if (queue->fork_generation != fork_generation())
        return last_error_fail(
            FARBLK_INVALID, "collect: the queue belongs to the parent process");
    if (queue->pending == 0 || max == 0)
        return 0;
    if (max > queue->depth)
        max = queue->depth;

    if (queue->more)
        queue_push(queue);
    struct slot *first, *last = NULL;
    size_t count = 0, failed = 0;
    if (queue->ringed > 0)
        queue_at_rings(queue, timeout_ms);
    pthread_mutex_lock(&queue->mutex);
    if (queue->done == NULL && queue->ringed == 0)
        queue_await(queue,
                    timeout_ms > 0 ? timer_now() + timeout_ms : timeout_ms);
    first = queue->done;
    for (struct slot *slot = first; slot != NULL && count < max;
         slot = slot->next) {
        last = slot;
        count++;
        if (slot->request.error.status != 0)
            failed = count;
    }
    if (last != NULL) {
        queue->done = last->next;
        if (queue->done == NULL) {
            queue->last = NULL;
            atomic_store_explicit(&queue->some_done, false,
                                  memory_order_relaxed);
        }
    }
    if (queue->done == NULL && queue->event_set) {
        eventfd_t value;
        queue->event_set = eventfd_read(queue->event, &value) != 0;
    }
    pthread_mutex_unlock(&queue->mutex);
    if (queue->ringed > 0 && queue->event >= 0)
        queue_rings_expect(queue);
    if (count == 0)
        return 0;

    /* Without memory the texts are the statuses' names. */
    if (failed > 0 && !queue_reserve_texts(queue, failed))
        last_error_clear();
    char *out = (char *)completions;
    for (size_t i = 0; i < count; i++) {
        struct slot *slot = first;
        first = slot->next;
        if (size > sizeof *completions)
            memset(out, 0, size);
        queue_fill(queue, slot, i, (struct farblk_completion *)(void *)out);
        out += size;
        if (slot->ringed) {
            queue->ringed--;
            queue_ring_done(queue, slot->request.ring);
        }
        slot->next = queue->free;
        queue->free = slot;
    }
    queue->pending -= (uint32_t)count;
    if (queue->pending == 0)
        queue_leave_source(queue);
    return (int)count;
}

int
farblk_queue_fd(struct farblk_queue *queue)
{
    last_error_clear();
    if (queue == NULL || queue->fork_generation != fork_generation())
        return last_error_fail(FARBLK_INVALID,
                               "queue_fd: not a queue of this process");
    pthread_mutex_lock(&queue->mutex);
    if (queue->event < 0) {
        queue->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (queue->event >= 0 && queue->done != NULL)
            queue->event_set = eventfd_write(queue->event, 1) == 0;
    }
    int event = queue->event;
    int errnum = errno;
    pthread_mutex_unlock(&queue->mutex);
    if (event >= 0) {
        event = queue_rings_descriptor(queue);
        errnum = errno;
    }
    if (event >= 0 && queue->source != NULL)
        queue->waiting->mind(queue->source, true);
    if (event < 0)
        return last_error_fail(error_status_of_errno(errnum),
                               "queue_fd: no descriptor: %s", strerror(errnum));
    return event;
}

uint32_t
farblk_queue_pending(const struct farblk_queue *queue)
{
    return queue == NULL ? 0 : queue->pending;
}

void
farblk_queue_destroy(struct farblk_queue *queue)
{
    if (queue == NULL || queue->fork_generation != fork_generation())
        return; /* a child's copy: its slots may be in use in the parent */
    struct farblk_completion dropped[16];
    while (queue->pending > 0)
        farblk_collect(queue, dropped, sizeof dropped[0], 16, -1);
    while (atomic_load_explicit(&queue->leaving, memory_order_acquire) != 0)
        sched_yield();
    queue_rings_fini(queue);
    if (queue->event >= 0)
        close(queue->event);
    pthread_mutex_destroy(&queue->mutex);
    pthread_cond_destroy(&queue->wake);
    free(queue->texts);
    free(queue->slots);
    free(queue);
}
