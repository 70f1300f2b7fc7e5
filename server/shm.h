/* SPDX-License-Identifier: ISC */
/*
 * Shared memory with clients of the same host.
 *
 *   shm.c       shares: a session's region, from its offer to its end
 *   shm_door.c  the side sockets: who comes, and what he gets
 *   shm_hand.c  the hands: threads that serve rings
 *   shm_ring.c  what a submission becomes
 *
 * A share begins with ShareMemory, which makes a token and nothing else.  Who
 * shows the token at the side socket, once, gets the region.  Further
 * connections there, with the key that came with it, are the rings' doorbells.
 * The share ends with the session, or with the connection that asked for it, or
 * when a ring lies: then nothing more of its rings is begun.  What runs ends, and
 * its memory stays until then.
 *
 * A ring is served by one of a few threads (hands), which submits to core what it
 * finds and puts completions back from whatever thread has them.  Requests,
 * checks, order, at most once, handles: all as for those that come by the socket;
 * only codec, call and link are not between.
 *
 * Nothing in the region is trusted.  Positions, slots and shapes are in the
 * server's own memory; an entry is copied once and then checked.
 *
 * Locks: shm.mutex (shares, rings of each, counts) after server.mutex and before
 * none; a hand's mutex is a leaf.
 */
#ifndef FARBLK_SERVER_SHM_H
#define FARBLK_SERVER_SHM_H

#include "core/spin.h"
#include "proto/side.h"
#include "server/session.h"

#define SHM_HANDS 4u /* at most */

struct shm_hand;
struct shm_ring;

enum share_state {
    SHARE_OFFERED, /* its token waits to be shown */
    SHARE_ATTACHED,
    SHARE_DETACHED,
};

struct share {
    struct shm *shm;
    struct share *next, **prev; /* shm.mutex; until detached */
    atomic_uint refs; /* the list's, each ring's, the door's */
    struct session *session; /* a reference */
    const struct connection *connection; /* to be compared only */
    uint8_t token[SIDE_TOKEN], key[SIDE_TOKEN];
    enum share_state state; /* shm.mutex */
    int64_t offered_ms;
    /* From ATTACHED on. */
    struct ring_shape shape;
    uint8_t *region;
    uint64_t octets; /* counted */
    struct shm_ring *rings[RING_COUNT_MAX]; /* shm.mutex */
};

/* A listener's side socket. */
struct shm_side {
    struct shm_side *next;
    int fd;
    char *url;
};

struct shm {
    struct farblk_server *server;
    pthread_mutex_t mutex; /* the rest, unless it says otherwise */
    struct share *shares; /* not detached */
    uint64_t share_count, ring_count; /* with memory; in use */
    uint64_t octets; /* of all regions */
    struct shm_side *sides;
    bool door_runs, stopping;
    pthread_t door;
    struct door *doorkeeper; /* the thread's own */
    int door_epoll, door_wake;
    struct shm_hand *hands[SHM_HANDS];
    unsigned hand_count; /* started */
    unsigned hand_limit, next_hand;
};

/* shm.c */

int shm_create(struct farblk_server *server, struct error *error);
/* No session and no share is left. */
void shm_destroy(struct shm *shm);
/* A listener has begun, or all of them end. */
void shm_listen(struct farblk_server *server, const char *url);
void shm_stop_listening(struct farblk_server *server);
void shm_stats(struct farblk_server *server, struct farblk_server_stats *stats);

/* ShareMemory: a token for the call's session; or the call has failed. */
void shm_offer(struct call *call);
/* Let nothing more of it come by rings.  Any thread, no lock. */
void shm_detach_session(struct session *session);
void shm_detach_connection(const struct connection *connection);

struct share *share_get(struct share *share);
void share_put(struct share *share);
/* The share whose token this is; it is not OFFERED any more.  A reference, or
 * NULL. */
struct share *share_claim(struct shm *shm, const uint8_t *token, uint32_t uid);
/* The ATTACHED share with the key. */
struct share *share_find(struct shm *shm, const uint8_t *key, uint32_t uid);
/* Make the region that `hello` wishes for, within the limits.  Its descriptor,
 * the caller's to close; or a negative status. */
int share_make_region(struct share *share, const struct side_hello *hello,
                      struct error *error);
void share_detach(struct share *share);

/* shm_door.c */

bool door_start(struct shm *shm);
void door_stop(struct shm *shm);

/* shm_hand.c */

/* Serve ring `index` of the share from now on, with the doorbell `fd`, which is
 * taken over.  False: `fd` is closed. */
bool shm_ring_begin(struct share *share, uint32_t index, int fd);
/* Begin nothing more of it.  Under shm.mutex. */
void shm_ring_end(struct shm_ring *ring);
void shm_stop_hands(struct shm *shm);

#endif
