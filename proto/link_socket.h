/* SPDX-License-Identifier: ISC */
/*
 * The insides of links over raw nng sockets, for link_socket.c (the links) and
 * link_socket_side.c (the sockets below them).
 *
 * A side is one nng socket: a raw rep0 that listens, or a raw req0 that has
 * dialed.  Each of its pipes is one link.  One receive is always under way on
 * a side; what comes is put into the inbox of its link.
 *
 * A link's messages are delivered, and its end is told, by its runner: one
 * thread of nng at a time, which holds the token `running`.  Everything is
 * under the side's mutex; no event is called with it.
 */
#ifndef FARBLK_PROTO_LINK_SOCKET_H
#define FARBLK_PROTO_LINK_SOCKET_H

#include "proto/link_kind.h"
#include "proto/sp.h"

#include <nng/nng.h>
#include <pthread.h>

/* Unanswered requests that a link can carry: a raw rep0 socket of nng drops
 * replies when 64 of them wait for one peer. */
#define SOCKET_REQUESTS 32u
/* What a held link keeps; a peer that sends more has ignored its limits. */
#define SOCKET_INBOX 64u
#define SOCKET_INBOX_OCTETS (64u << 20)
/* What is handed to the socket goes out later, and nng 1.5.2 does not tell when
 * (its counters know nothing of websockets and inproc), but throws away what is
 * left when the pipe is closed.  So a draining close waits until the peer
 * closes, at most for as long as a loaded machine may need. */
#define SOCKET_LINGER_MS 2000

struct socket_link;

struct socket_side {
    nng_socket socket;
    nng_listener listener;
    nng_aio *receive;
    bool server;
    char scheme[16];
    struct link_limits limits;
    void (*accepted)(void *arg, struct link *link);
    void *arg;
    atomic_uint refs; /* the listener's, and each link's */
    atomic_bool leaving; /* it is being closed, or about to */

    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct socket_link *links;
    unsigned accepting; /* calls of accepted() */
    bool closed; /* accept nothing more */
    bool connected; /* dialing: the pipe is there */
};

struct socket_link {
    struct link base;
    struct socket_side *side;
    struct socket_link *next; /* of the side */
    nng_pipe pipe;
    nng_aio *kick, *send;
    const struct link_events *events;
    void *arg;

    /* Not beside the flags below: a compiler may read those all at once. */
    bool shut;
    pthread_mutex_t gate; /* around the begin of a send and the end of all */

    /* Under the side's mutex. */
    bool started, held, draining, gone, ended, finished, running, sending;
    bool ready; /* the socket knows the pipe */
    bool lingering; /* the runner sleeps */
    int64_t last_sent;
    nng_msg *inbox[SOCKET_INBOX];
    unsigned inbox_first, inbox_count;
    uint64_t inbox_octets;
    struct link_queue queue;
    struct link_queue late;
    bool late_running;
    struct link_message *current; /* being sent */
    int status;
    char reason[256];
};

/* Add a link for a pipe to the side's list; NULL: no memory. */
struct socket_link *socket_link_create(struct socket_side *side, nng_pipe pipe);
/* A message of the link's came; takes it over.  On a thread of nng. */
void socket_link_receive(struct socket_link *link, nng_msg *message);
/* The socket knows the pipe: before, it throws away what is sent there. */
void socket_link_ready(struct socket_link *link);
/* The pipe is gone. */
void socket_link_gone(struct socket_link *link);

void socket_side_put(struct socket_side *side);
/* It will be closed soon.  Any number of times. */
void socket_side_leaving(struct socket_side *side);

#endif
