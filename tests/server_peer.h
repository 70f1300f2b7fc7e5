/* SPDX-License-Identifier: ISC */
/*
 * A peer of a server that a test plays by hand: a link, on which it sends
 * requests as it likes, well-formed or not, and collects the replies.
 *
 * Each request gets a request id of its own; replies are kept by id until the
 * test asks for them.  Calls end the test (in its own thread) when what they
 * wait for does not come.
 */
#ifndef FARBLK_TESTS_SERVER_PEER_H
#define FARBLK_TESTS_SERVER_PEER_H

#include "proto/codec.h"
#include "proto/link.h"
#include "tests/support.h"

#include <pthread.h>

struct peer_reply {
    struct peer_reply *next;
    uint32_t id;
    uint8_t *header;
    size_t header_length;
    uint8_t *payload;
    uint64_t payload_length;
};

struct peer {
    struct link *link;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct peer_reply *replies;
    bool closed;
    uint32_t next_id;

    /* Of the session that it began or took over. */
    uint64_t session;
    uint8_t secret[WIRE_SECRET_SIZE];
    uint64_t number, lowest;
    struct codec_limits limits;
};

/* Connect; no Hello yet. */
void peer_connect(struct peer *peer, const char *url);
/* Say Hello with a random nonce; fills the session. */
void peer_hello(struct peer *peer);
/* Both. */
void peer_begin(struct peer *peer, const char *url);
/* Close and forget. */
void peer_end(struct peer *peer);

/* A request of this peer's session with its next number. */
struct codec_request peer_request(struct peer *peer, uint32_t method,
                                  uint64_t handle);

/* Send; returns the request id.  The payload is copied. */
uint32_t peer_send(struct peer *peer, const struct codec_request *request,
                   const void *payload, size_t length);
/* Send any octets as the header. */
uint32_t peer_send_raw(struct peer *peer, const void *header, size_t size,
                       const void *payload, size_t length);

/* Wait for the reply to `id`.  `data` takes its payload, which must have
 * exactly `length` octets when the status is 0 (and none otherwise).  Returns
 * the status. */
int peer_wait(struct peer *peer, uint32_t id, uint32_t method,
              struct codec_reply *reply, void *data, size_t length);
/* Whether a reply to `id` is here now. */
bool peer_has(struct peer *peer, uint32_t id);
/* Wait until the other side has closed the connection. */
void peer_wait_closed(struct peer *peer);

/* Send and wait. */
int peer_ask(struct peer *peer, const struct codec_request *request,
             struct codec_reply *reply);
/* Open an export; returns the handle. */
uint64_t peer_open(struct peer *peer, const char *name);
/* One write or read, of whole sectors of 512. */
int peer_write(struct peer *peer, uint64_t handle, uint64_t sector,
               const void *data, size_t length);
int peer_read(struct peer *peer, uint64_t handle, uint64_t sector, void *data,
              size_t length);

/* The text of the last reply that peer_wait() saw in this thread. */
const char *peer_text(void);

#endif
