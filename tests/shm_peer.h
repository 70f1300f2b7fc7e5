/* SPDX-License-Identifier: ISC */
/*
 * A client of shared memory that a test plays by hand: it has a session (peer)
 * and the region, and writes into it what it likes.
 */
#ifndef FARBLK_TESTS_SHM_PEER_H
#define FARBLK_TESTS_SHM_PEER_H

#include "proto/side.h"
#include "tests/server_fixture.h"

struct shm_peer {
    struct peer peer;
    uint64_t handle;
    const char *url;
    struct side_attached attached;
    struct ring_shape shape;
    uint8_t *region;
    struct ring *ring; /* number 0, once it is begun */
    struct ring_lane submissions, completions;
    int bell; /* its connection, or -1 */
    uint64_t submitted, taken;
};

/* Begin a session, open "disk", get a token. */
void shm_peer_token(struct shm_peer *peer, const char *url, uint8_t *token);
/* Say this hello; the status of the answer, *fd the region.  The connection is
 * closed. */
int shm_peer_hello(const char *url, const struct side_hello *hello,
                   struct side_attached *attached, int *fd);
/* All of it: the region is mapped, and ring 0 begun. */
void shm_peer_begin(struct shm_peer *peer, const char *url);
void shm_peer_end(struct shm_peer *peer);

/* A submission that reads sector 0 with this tag. */
struct ring_submission shm_peer_read(const struct shm_peer *peer, uint32_t tag);
void shm_peer_submit(struct shm_peer *peer,
                     const struct ring_submission *submission);
void shm_peer_ring(struct shm_peer *peer);
/* The next completion, waited for; fails the test when the ring ends. */
struct ring_completion shm_peer_collect(struct shm_peer *peer);
/* Wait until the server has closed the ring. */
void shm_peer_wait_closed(struct shm_peer *peer);

#endif
