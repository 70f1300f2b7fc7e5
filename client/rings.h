/* SPDX-License-Identifier: ISC */
/*
 * Shared memory with a server of the same host, as the client has it.
 *
 *   region.c    the region: asking for it, also anew; its life
 *   rings.c     its rings, and their loss
 *   rings_io.c  submissions and completions
 *   arena.c     who has which part of the arena
 *
 * Each queue that uses the device has a ring (core's driver_rings); a queue that
 * ends leaves it to the next.  An io whose queue has one goes by it if it is an
 * operation that may, and there is a tag and, for data, room in the arena;
 * otherwise by the socket, as if there were no rings.
 *
 * Data in the arena (farblk_buffer_alloc()), in whole pages, is moved by the
 * server to and from where it is; other data is copied, into memory that its tag
 * keeps for the next.
 *
 * An io may leave the ring before its completion: its time is over, or the
 * session is lost.  Then nothing of the server's may reach the caller's memory
 * any more: what was copied does not; pages of the arena are replaced by others
 * at the same address (arena_sever()), and theirs are not used again before the
 * server has answered.
 *
 * A ring that is dead touches nothing of its region.  One that is not keeps the
 * region: it is the client's, who lets go of it when all of its rings are dead.
 *
 * Locks: a ring's mutex, then the client's or the arena's.  Only the ring's queue
 * takes it in the steady state.
 */
#ifndef FARBLK_CLIENT_RINGS_H
#define FARBLK_CLIENT_RINGS_H

#include "client/client.h"
#include "proto/side.h"

/* What is asked for. */
#define RINGS_DEPTH 128u
#define RINGS_COUNT 16u
/* Octets that a tag keeps of the arena when it is idle. */
#define RINGS_KEEP 16384u

struct client_tag {
    struct io *io; /* NULL: idle, or given up */
    bool flying; /* the server has it */
    bool direct; /* its data is the caller's own */
    bool late; /* its io's time is over, and the server is being asked */
    uint16_t method;
    uint64_t number; /* 0: it changes nothing */
    uint64_t mark; /* client.acked when it was submitted */
    uint64_t generation; /* known when it was submitted */
    uint64_t at, room; /* of the arena: what it keeps, or its direct data */
    uint64_t
        severed; /* octets of direct data that were, when it was given up */
    struct client_tag *older, *newer; /* of those with a number */
};

struct client_ring {
    atomic_uint refs; /* the region's, the queue's */
    int fd; /* the doorbell; until the last reference */
    uint32_t index, depth;
    atomic_bool alive;
    /* The smallest number that may be unanswered in it; UINT64_MAX: none. */
    atomic_uint_fast64_t oldest;
    atomic_uint_fast64_t told; /* the generation that came last */

    pthread_mutex_t mutex; /* the rest */
    bool dead; /* nothing below is used any more */
    struct client *client;
    struct rings *rings;
    struct ring *ring;
    struct ring_lane submissions, completions;
    uint64_t submitted, taken; /* next positions */
    uint64_t lowest; /* as was found out last */
    struct client_tag *tags, *first, *last; /* by number */
    uint32_t *idle; /* tags */
    uint32_t idle_count;
    struct client_ring *next; /* idle ones; rings.mutex */
    char text[RING_NOTE];
};

struct rings {
    struct client *client;
    struct rings *next; /* client.regions */
    int64_t since_ms;
    atomic_uint users; /* the client, who has it, and threads in the middle */
    atomic_uint refs; /* one for all users, and the program's buffers */
    struct ring_shape shape;
    uint8_t *region;
    int fd; /* of it */
    uint8_t key[SIDE_TOKEN];
    uint32_t uid; /* the server's */
    atomic_bool up; /* further rings may be had */
    atomic_uint made_count;
    _Atomic(struct client_ring *) made[RING_COUNT_MAX];

    pthread_mutex_t mutex; /* the rest */
    struct client_ring *idle; /* by next */
    int64_t retry_ms; /* no further ring before */
    /* A bit for each page of the arena; freed: severed ones that have no buffer
     * any more. */
    uint64_t *used, *severed, *freed;
    uint32_t *held; /* by page: requests that were given up, not answered yet */
    uint64_t pages, hint;
    atomic_uint severed_pages;
};

/* region.c */

/* Ask for shared memory, as the URI wants it.  0 also when there is none: then
 * client->way says why.  Blocks until `until_ms` at most. */
int rings_begin(struct client *client, int64_t until_ms, struct error *error);
/* The client's, to be left again; NULL: there is none. */
struct rings *rings_enter(struct client *client);
/* NULL is fine.  Not under the mutex. */
void rings_leave(struct rings *rings);
/* Give back one of `refs`.  Not under the mutex. */
void rings_put(struct rings *rings);
/* Under the mutex: no further ring of it is used; it is asked for anew when the
 * time has come. */
void rings_ended(struct client *client, struct rings *rings, bool away);
/* Under the mutex: ask for a region anew, if one is wanted and it is time; or at
 * once, because the server is another one, perhaps. */
void rings_renew(struct client *client, int64_t now);
void rings_renew_at_once(struct client *client);
void rings_way(void *client, struct driver_way *way);
/* Nothing of the client runs any more. */
void rings_fini(struct client *client);

/* rings.c */

extern const struct driver_rings rings_driver;

/* The client is lost (client->lost says why): everything in rings ends. */
void rings_lost(struct client *client);
/* The connection is broken, and the session may go on over another: what was not
 * answered waits for that.  From then on all goes by the socket. */
void rings_away(struct client *client);
/* Under client.mutex: the smallest number that may be unanswered in rings;
 * UINT64_MAX: none. */
uint64_t rings_oldest(const struct client *client);
/* Nobody uses the region: let go of its rings, which are dead. */
void rings_put_made(struct rings *rings);
/* Whether the other end of a side socket is of the user that serves. */
bool rings_same_user(uint32_t wanted, int fd);

/* A ring that somebody looks into later. */
static inline void
ring_get(struct client_ring *ring)
{
    atomic_fetch_add_explicit(&ring->refs, 1, memory_order_relaxed);
}
void ring_put(struct client_ring *ring);

/* rings_io.c */

/* True: the io is in its ring.  False: it goes by the socket. */
bool rings_submit(struct client *client, struct io *io);
/* The time of an io that was put in a ring is over. */
void rings_cancel(struct client *client, struct io *io);
/* Not under client.mutex: an io that waits for what becomes of it, if it still
 * does, has timed out. */
void rings_give_up(struct client_ring *ring, uint32_t tag, uint64_t number,
                   enum farblk_effect effect);
bool rings_reap(void *ring);
void rings_reap_all(struct client *client);
/* Under the ring's mutex, which is dead: take an io out of its tag. */
struct io *rings_take_out(struct client_ring *ring, struct client_tag *tag);

/* arena.c */

bool arena_init(struct rings *rings);
void arena_fini(struct rings *rings);
/* Whole pages; false: there is no room. */
bool arena_take(struct rings *rings, uint64_t octets, uint64_t *at);
void arena_give(struct rings *rings, uint64_t at, uint64_t octets);
/* Where the io's data is in the arena, if it is one piece of whole pages. */
bool arena_direct(const struct rings *rings, const struct io *io, uint64_t *at);
/* Put other memory in the place of these pages, with their content if `keep`;
 * theirs are not used again until arena_answered().  False without memory. */
bool arena_sever(struct rings *rings, uint64_t at, uint64_t octets, bool keep);
/* The server is done with what it had these pages for when they were severed. */
void arena_answered(struct rings *rings, uint64_t at, uint64_t octets);
void *arena_buffer_alloc(void *client, size_t size);
bool arena_buffer_free(void *client, void *buffer, size_t size);

static inline uint8_t *
arena_memory(const struct rings *rings, uint64_t at)
{
    return rings->region + rings->shape.arena_at + at;
}

#endif
