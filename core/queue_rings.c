/* SPDX-License-Identifier: ISC */
/*
 * Queues at rings.  A device whose driver has rings (driver_rings) gives each
 * queue that uses it one of its own.  Its completions lie there until the
 * queue's thread looks: it looks for a moment (spin.h), and then sleeps at the
 * doorbells of all its rings and a bell of the queue's own, which whoever
 * completes something otherwise rings.
 *
 * A queue keeps its rings, also while it is idle, until the device is closed, the
 * driver has ended them, or the queue ends.  One that has ended is kept for the
 * requests that were given it: pieces of theirs may come yet.  The user's
 * descriptor is an epoll of the doorbells and of the queue's event.
 */
#include "core/queue.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Do not wait at it any more. */
static void
rings_fade(struct farblk_queue *queue, struct queue_ring *ring)
{
    if (queue->descriptor >= 0 && !ring->faded)
        epoll_ctl(queue->descriptor, EPOLL_CTL_DEL,
                  ring->driver->descriptor(ring->ring), NULL);
    ring->faded = true;
}

static void
rings_drop(struct farblk_queue *queue, unsigned index)
{
    struct queue_ring *ring = &queue->rings[index];
    rings_fade(queue, ring);
    ring->driver->give(ring->ring);
    *ring = queue->rings[--queue->ring_count];
}

/* Those that have ended. */
static void
rings_purge(struct farblk_queue *queue)
{
    for (unsigned i = queue->ring_count; i-- > 0;) {
        struct queue_ring *ring = &queue->rings[i];
        if (ring->driver->alive(ring->ring))
            continue;
        if (ring->pending > 0)
            rings_fade(queue, ring);
        else
            rings_drop(queue, i);
    }
}

static bool
rings_watch(struct farblk_queue *queue, const struct queue_ring *ring)
{
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(queue->descriptor, EPOLL_CTL_ADD,
                     ring->driver->descriptor(ring->ring), &event)
           == 0;
}

/* A ring at a device that the queue has none at. */
static struct queue_ring *
rings_add(struct farblk_queue *queue, struct device *device)
{
    const struct driver_rings *driver = device->driver->rings;
    if (!driver->offered(device->state))
        return NULL;
    rings_purge(queue);
    if (queue->ring_count == QUEUE_RINGS)
        return NULL;
    if (queue->bell < 0)
        queue->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (queue->bell < 0)
        return NULL;
    struct queue_ring *ring = &queue->rings[queue->ring_count];
    ring->identity = device->identity;
    ring->driver = driver;
    ring->pending = 0;
    ring->faded = false;
    ring->ring = driver->take(device->state);
    if (ring->ring == NULL)
        return NULL;
    queue->ring_count++;
    if (queue->descriptor >= 0 && !rings_watch(queue, ring)) {
        rings_drop(queue, queue->ring_count - 1);
        return NULL;
    }
    return ring;
}

void *
queue_ring(struct farblk_queue *queue, struct device *device)
{
    struct queue_ring *found = NULL;
    for (unsigned i = 0; i < queue->ring_count && found == NULL; i++)
        if (queue->rings[i].identity == device->identity
            && queue->rings[i].driver->alive(queue->rings[i].ring))
            found = &queue->rings[i];
    if (found == NULL)
        found = rings_add(queue, device);
    if (found == NULL)
        return NULL;
    found->pending++;
    return found->ring;
}

void
queue_ring_done(struct farblk_queue *queue, const void *ring)
{
    struct queue_ring *at = queue->rings;
    while (at->ring != ring)
        at++;
    at->pending--;
}

bool
queue_rings_reap(struct farblk_queue *queue)
{
    bool found = false;
    for (unsigned i = 0; i < queue->ring_count; i++)
        found |= queue->rings[i].driver->reap(queue->rings[i].ring);
    return found;
}

static bool
rings_done(const struct farblk_queue *queue)
{
    return atomic_load_explicit(&queue->some_done, memory_order_relaxed);
}

static bool
rings_spin(struct farblk_queue *queue)
{
    struct spin *spin = &queue->spin;
    if (!spin_begin(spin))
        return false;
    bool found = false;
    while (!found && spin_more(spin)) {
        queue_rings_reap(queue);
        found = rings_done(queue);
    }
    spin_end(spin, found);
    return found;
}

/* Sleep until something may be there, or the time has passed. */
static void
rings_sleep(struct farblk_queue *queue, int64_t until_ms)
{
    struct pollfd waits[QUEUE_RINGS + 1];
    unsigned count = queue->ring_count;
    bool asleep = true;
    pthread_mutex_lock(&queue->mutex);
    bool done = queue->done != NULL;
    queue->polling = !done;
    pthread_mutex_unlock(&queue->mutex);
    if (done)
        return;
    for (unsigned i = 0; i < count; i++) {
        struct queue_ring *ring = &queue->rings[i];
        waits[i].fd = -1;
        waits[i].events = POLLIN;
        waits[i].revents = 0;
        if (ring->faded)
            continue;
        waits[i].fd = ring->driver->descriptor(ring->ring);
        asleep = ring->driver->sleep(ring->ring) && asleep;
    }
    waits[count].fd = queue->bell;
    waits[count].events = POLLIN;
    waits[count].revents = 0;
    if (asleep) {
        int64_t left = until_ms < 0 ? -1 : until_ms - timer_now();
        if (until_ms >= 0 && left < 0)
            left = 0;
        spin_sleeps(&queue->spin);
        poll(waits, count + 1, left > INT32_MAX ? INT32_MAX : (int)left);
        spin_slept(&queue->spin);
    }
    for (unsigned i = 0; i < count; i++)
        if (!queue->rings[i].faded)
            queue->rings[i].driver->awake(queue->rings[i].ring,
                                          waits[i].revents != 0);
    pthread_mutex_lock(&queue->mutex);
    if (!queue->polling) {
        eventfd_t value;
        eventfd_read(queue->bell, &value);
    }
    queue->polling = false;
    pthread_mutex_unlock(&queue->mutex);
}

void
queue_rings_await(struct farblk_queue *queue, int64_t until_ms)
{
    bool over = until_ms == 0;
    for (;;) {
        rings_purge(queue);
        bool found = queue_rings_reap(queue);
        if (rings_done(queue) || over)
            return;
        if (found)
            continue; /* pieces; more of them are under way */
        if (rings_spin(queue))
            return;
        rings_sleep(queue, until_ms);
        over = until_ms > 0 && timer_now() >= until_ms;
    }
}

void
queue_rings_expect(struct farblk_queue *queue)
{
    bool asleep = true;
    rings_purge(queue);
    for (unsigned i = 0; i < queue->ring_count; i++)
        if (!queue->rings[i].faded)
            asleep =
                queue->rings[i].driver->sleep(queue->rings[i].ring) && asleep;
    if (asleep)
        return;
    pthread_mutex_lock(&queue->mutex);
    if (!queue->event_set)
        queue->event_set = eventfd_write(queue->event, 1) == 0;
    pthread_mutex_unlock(&queue->mutex);
}

void
queue_rings_awake(struct farblk_queue *queue)
{
    for (unsigned i = 0; i < queue->ring_count; i++)
        if (!queue->rings[i].faded)
            queue->rings[i].driver->awake(queue->rings[i].ring, true);
}

int
queue_rings_descriptor(struct farblk_queue *queue)
{
    if (queue->descriptor >= 0)
        return queue->descriptor;
    struct epoll_event event = {.events = EPOLLIN};
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0 || epoll_ctl(fd, EPOLL_CTL_ADD, queue->event, &event) != 0) {
        int errnum = errno;
        if (fd >= 0)
            close(fd);
        errno = errnum;
        return -1;
    }
    queue->descriptor = fd;
    rings_purge(queue);
    for (unsigned i = queue->ring_count; i-- > 0;)
        if (!queue->rings[i].faded && !rings_watch(queue, &queue->rings[i])
            && queue->rings[i].pending == 0)
            rings_drop(queue, i);
    if (queue->ringed > 0)
        queue_rings_expect(queue);
    return fd;
}

void
queue_rings_fini(struct farblk_queue *queue)
{
    while (queue->ring_count > 0)
        rings_drop(queue, queue->ring_count - 1);
    if (queue->descriptor >= 0)
        close(queue->descriptor);
    if (queue->bell >= 0)
        close(queue->bell);
}
