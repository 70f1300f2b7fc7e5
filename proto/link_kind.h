/* SPDX-License-Identifier: ISC */
/*
 * What is common to the kinds of links and of listeners, and what each kind
 * provides.  link.c has the public calls of link.h; the kinds are
 * link_stream*.c with link_listen.c, and link_socket*.c.
 */
#ifndef FARBLK_PROTO_LINK_KIND_H
#define FARBLK_PROTO_LINK_KIND_H

#include "proto/link.h"

#include <stdatomic.h>

/* The calls of link.h, each as described there. */
struct link_ops {
    void (*start)(struct link *link, const struct link_events *events,
                  void *arg);
    void (*send)(struct link *link, struct link_message *message);
    bool (*recall)(struct link *link, struct link_message *message);
    void (*hold)(struct link *link);
    void (*release)(struct link *link);
    void (*close)(struct link *link, bool drain);
    void (*free)(struct link *link); /* the last reference went */
    /* Together, or none of them: a kind that receives on nng's threads only
     * and puts nothing off. */
    void (*push)(struct link *link);
    bool (*attend)(struct link *link, struct attendance *attendance,
                   int64_t until_ms);
    void (*left)(struct link *link);
    void (*wake)(struct link *link, struct attendance *attendance);
    void (*mind)(struct link *link, bool forever);
    bool (*ended)(struct link *link);
};

/* The beginning of each kind's own structure. */
struct link {
    const struct link_ops *ops;
    atomic_uint refs;
    struct link_peer peer;
};

/* One reference, the owner's.  The kind takes one of its own when the link is
 * started, and keeps it until closed() has been called and no callback of nng
 * can come any more. */
void link_init(struct link *link, const struct link_ops *ops);
/* A reference, unless the last one has gone. */
bool link_get_live(struct link *link);

struct link_listener {
    void (*close)(struct link_listener *listener); /* and free */
    char url[512];
};

/* Messages in order. */
struct link_queue {
    struct link_message *first;
    struct link_message **end;
};

static inline void
link_queue_init(struct link_queue *queue)
{
    queue->first = NULL;
    queue->end = &queue->first;
}

static inline void
link_queue_append(struct link_queue *queue, struct link_message *message)
{
    message->next = NULL;
    *queue->end = message;
    queue->end = &message->next;
}

struct link_message *link_queue_take(struct link_queue *queue);
/* All of `from` to the end of `to`. */
void link_queue_move(struct link_queue *to, struct link_queue *from);
/* Take out one message; false when it is not there. */
bool link_queue_remove(struct link_queue *queue, struct link_message *message);
/* sent(status) for each; no lock may be held. */
void link_queue_flush(struct link_queue *queue, int status);

/* link_message.state, under the link's lock.  It is not reset at the end, when
 * the message may be the owner's again. */
enum { LINK_MESSAGE_IDLE, LINK_MESSAGE_QUEUED, LINK_MESSAGE_BEGUN };

/* Whether it goes over TCP, with TLS or without: tcp, tcp4, tls+tcp ... */
bool link_is_tcp(const char *scheme);

/* The status that stands for an error number of nng. */
int link_status_of(int nng_error);
/* Milliseconds of the monotonic clock. */
int64_t link_now(void);

/* `text` is the URL, `scheme` what stands before "://". */
int link_stream_dial(const char *url, const char *scheme, struct link_tls *tls,
                     int32_t timeout_ms, const struct link_limits *limits,
                     struct link **link, struct error *error);
int link_stream_listen(const char *url, const char *scheme,
                       const struct link_listener_options *options,
                       void (*accepted)(void *arg, struct link *link),
                       void *arg, struct link_listener **listener,
                       struct error *error);
int link_socket_dial(const char *url, const char *scheme, struct link_tls *tls,
                     int32_t timeout_ms, const struct link_limits *limits,
                     struct link **link, struct error *error);
int link_socket_listen(const char *url, const char *scheme,
                       const struct link_listener_options *options,
                       void (*accepted)(void *arg, struct link *link),
                       void *arg, struct link_listener **listener,
                       struct error *error);

#endif
