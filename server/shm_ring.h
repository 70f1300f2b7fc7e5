/* SPDX-License-Identifier: ISC */
/*
 * A ring and its hand, for the files that serve them: shm_ring.c (what one
 * submission becomes), shm_hand.c (whose turn it is).
 */
#ifndef FARBLK_SERVER_SHM_RING_H
#define FARBLK_SERVER_SHM_RING_H

#include "core/request.h"
#include "server/opened.h"
#include "server/shm.h"

struct shm_slot {
    struct request request;
    struct shm_ring *ring;
    struct opened *opened;
    struct kept *kept; /* of a request that changes */
    struct block *block; /* a write's data in private memory, or NULL */
    struct iovec iov;
    uint32_t tag;
    uint16_t method;
    uint64_t number;
    atomic_bool busy;
};

struct shm_ring {
    struct share *share;
    struct shm_hand *hand;
    uint32_t index, depth;
    int fd; /* its doorbell */
    struct ring *ring; /* in the region */
    struct ring_lane submissions, completions;
    struct shm_slot *slots;
    atomic_uint holds; /* the hand's, and each request under way */
    atomic_bool ending; /* nothing more is begun */
    _Alignas(64) atomic_uint_fast64_t completed; /* next position to publish */

    /* The hand's own. */
    _Alignas(64) uint64_t taken; /* next position to take */
    struct opened *opened; /* the last one used; a reference */
    struct shm_ring *next, **prev; /* all of the hand */
    struct shm_ring *hot_next, **hot_prev; /* the hot ones */
    bool hot;
    unsigned idle; /* rounds without a submission */
    uint64_t unrung; /* octets answered since the client's flag was looked at */
};

struct shm_hand {
    struct shm *shm;
    pthread_t thread;
    int epoll, wake;
    atomic_bool mail; /* arrivals, an ending ring, or stop */
    pthread_mutex_t mutex;
    struct shm_ring *arrivals; /* by next */
    bool stop;
    /* The thread's own. */
    struct shm_ring *rings, *hot;
    unsigned cold; /* rings that are not hot */
    struct spin spin;
};

/* The hand's thread: take some submissions; how many. */
unsigned ring_serve(struct shm_ring *ring);
/* Give back one hold; with the last one it is freed. */
void ring_release(struct shm_ring *ring);
/* Ready for its hand, with one hold; `fd` is its own.  NULL without memory. */
struct shm_ring *ring_create(struct share *share, uint32_t index, int fd);
/* What ring_create() made and no hand has got, without its fd. */
void ring_discard(struct shm_ring *ring);

#endif
