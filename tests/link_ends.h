/* SPDX-License-Identifier: ISC */
/*
 * Both ends of links for tests: what comes is checked, counted and, if wanted,
 * sent back.  A message's header and payload follow from its request id, so
 * each end knows what must arrive.  Every wait has a bound, after which the
 * test fails.
 */
#ifndef FARBLK_TESTS_LINK_ENDS_H
#define FARBLK_TESTS_LINK_ENDS_H

#include "proto/link.h"
#include "tests/support.h"

#include <pthread.h>

struct link_end {
    struct link *link;
    bool echo; /* send each message back */
    bool hold_at_first; /* link_hold() at the first head */
    bool discard; /* payloads are read and thrown away */
    bool refuse; /* head() says no */
    unsigned greets; /* messages that it sends as soon as it is accepted */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* What has happened so far, under the mutex. */
    unsigned heads, frames, drops, sents, failed, bad, closed;
    unsigned last_stack; /* octets of the last stack */
    pthread_t by; /* who brought the last frame */
    struct attendance *attendance; /* is woken by each frame, or NULL */
    int status;
    char reason[256];
    struct link_end *next;
};

/* A listener and the ends that it accepted. */
struct link_post {
    struct link_listener *listener;
    struct link_end model; /* echo, hold_at_first ... of the accepted ends */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct link_end *first, *last;
    unsigned accepted;
};

extern const struct link_limits link_generous; /* 1 MiB, a minute */

void link_post_open(struct link_post *post, const char *url,
                    const struct link_limits *limits);
/* The next accepted end; waits for it. */
struct link_end *link_post_take(struct link_post *post);
/* A new connection gets its echoes. */
void link_post_still_serves(struct link_post *post);
/* Close the listener and all ends that were not taken. */
void link_post_close(struct link_post *post);

struct link_end *link_end_dial(const char *url,
                               const struct link_limits *limits);
/* Send message `id` with a payload in that many pieces. */
struct link_message *link_end_send(struct link_end *end, uint32_t id,
                                   size_t header_length, size_t payload_length,
                                   size_t pieces);
/* The same, but others follow: it may wait for them. */
void link_end_send_more(struct link_end *end, uint32_t id,
                        size_t payload_length);
/* Free a message that was recalled. */
void link_end_recalled(struct link_message *message);
/* Wait until *count (of the end) is at least that. */
void link_end_wait(struct link_end *end, const unsigned *count, unsigned least);
/* Wait for the first message, or the end.  Whether a message came. */
bool link_end_frame_or_close(struct link_end *end);
unsigned link_end_get(struct link_end *end, const unsigned *count);
/* Wait for the end by the peer.  A websocket of nng 1.5.2 that is closed while
 * it does not receive forgets to say so until something is sent: so send. */
void link_end_wait_closed(struct link_end *end);
/* Wait for the link's end by itself or by the peer, and free. */
void link_end_free(struct link_end *end);
/* Close it from this side, wait, free. */
void link_end_close(struct link_end *end);

/* Temporary listen URLs of each transport; `scheme` "ipc", "abstract" ... */
const char *link_test_url(const char *scheme);

#endif
