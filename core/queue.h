/* SPDX-License-Identifier: ISC */
/*
 * The inside of a queue, for the files that make it: queue.c (slots, submitting,
 * collecting) and queue_rings.c (waiting at rings).
 */
#ifndef FARBLK_CORE_QUEUE_H
#define FARBLK_CORE_QUEUE_H

#include "core/device.h"
#include "core/spin.h"

/* Devices with a ring of the queue's own, at once; further ones are used as if
 * there were no rings. */
#define QUEUE_RINGS 8u

struct slot {
    struct request request;
    struct farblk_queue *queue;
    void *user;
    struct slot *next;
    bool ringed; /* counted in ringed */
};

/* The queue's ring at one device. */
struct queue_ring {
    uint64_t identity; /* the device's */
    const struct driver_rings *driver;
    void *ring;
    uint32_t pending; /* requests with it that are not collected */
    bool faded; /* not alive: kept for those, and not waited at */
};

struct farblk_queue {
    uint32_t depth;
    uint32_t pending; /* submitted, not collected; the user's thread */
    uint32_t ringed; /* of those, that were given a ring */
    unsigned fork_generation;
    struct slot *free; /* the user's thread */
    struct slot *slots;
    const struct driver_waiting *waiting; /* of the source */
    void *source; /* NULL: none */
    bool more; /* the last submission put its start off */
    bool several; /* what is pending has other sources as well */
    char (*texts)[FARBLK_TEXT_MAX]; /* of the last collect's failures */
    size_t text_capacity;
    struct queue_ring rings[QUEUE_RINGS]; /* the user's thread */
    unsigned ring_count;
    struct spin spin;
    int bell; /* an eventfd that ends a sleep at the rings; -1: no rings yet */
    int descriptor; /* what the user polls: event and the rings; -1: not asked
                       for */
    atomic_bool some_done; /* done is not NULL; to be looked at without the
                              mutex */
    pthread_mutex_t mutex; /* the rest */
    pthread_cond_t wake;
    bool sleeping; /* somebody is to be woken */
    bool polling; /* by the bell */
    struct attendance *attendance; /* who attends, or would, or NULL */
    bool attending; /* it does */
    atomic_uint leaving; /* completers that may still touch the queue */
    int event; /* -1: nobody asked for it */
    bool event_set;
    struct slot *done, *last;
};

/* queue_rings.c; the user's thread. */

/* The queue's ring at the device for a request, or NULL; and the request was
 * collected. */
void *queue_ring(struct farblk_queue *queue, struct device *device);
void queue_ring_done(struct farblk_queue *queue, const void *ring);
/* Without the mutex: complete what the rings hold.  False: they held nothing. */
bool queue_rings_reap(struct farblk_queue *queue);
/* Without the mutex: wait until something is done, at most until until_ms
 * (negative: no limit; 0: do not wait). */
void queue_rings_await(struct farblk_queue *queue, int64_t until_ms);
/* The user waits at the descriptor: what comes makes it readable. */
void queue_rings_expect(struct farblk_queue *queue);
/* He does not any more: take what the doorbells say. */
void queue_rings_awake(struct farblk_queue *queue);
/* The descriptor that the user gets, or -1 with errno. */
int queue_rings_descriptor(struct farblk_queue *queue);
void queue_rings_fini(struct farblk_queue *queue);

#endif
