/* SPDX-License-Identifier: ISC */
/*
 * A link: one connection that carries SP REQ/REP messages, whatever is below.
 *
 * A message is its stack (hop words and the request id), a header (protobuf,
 * see codec.h) and a payload (raw).  Two kinds are behind this: streams
 * (link_stream.c: nng streams for ipc, abstract, tcp, tls+tcp; what a plain nng
 * socket speaks there, with frames coalesced into one send and many received by one
 * read), and nng sockets in raw mode (link_socket.c: for every other nng
 * transport).
 *
 * Receiving: for each message head() is called with stack and header, and says
 * where the payload goes; it is received straight into that memory; then
 * frame() is called.  head, frame, drop and closed of one link never run at the
 * same time.  They run on nng's threads, all but closed also in link_attend(),
 * and must not block.
 *
 * A thread that has nothing to do until something arrives may receive by itself
 * (link_attend()): it is the first to know then, and no other thread has to wake
 * it.
 *
 * Sending: link_send() queues and returns.  Messages go out in order, as many
 * as are ready in one system call; small payloads are copied into a staging
 * buffer, large ones are sent from where they are.
 */
#ifndef FARBLK_PROTO_LINK_H
#define FARBLK_PROTO_LINK_H

#include "core/attend.h"
#include "core/error.h"
#include "proto/link_tls.h"
#include "proto/wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct link;

#define LINK_KEEP_MS 10

/* The beginning of a message that arrived; valid during head() only. */
struct link_head {
    const uint8_t *stack; /* hop words, then the request id */
    size_t stack_length; /* 4 ... WIRE_STACK_MAX */
    uint32_t id; /* the request id, top bit set */
    const uint8_t *header;
    size_t header_length; /* <= WIRE_HEADER_MAX */
    uint64_t payload_length; /* <= the link's max_payload */
};

/* Where a payload goes: head() fills it. */
struct link_sink {
    const struct iovec *iov; /* stays valid until frame() or drop(); together
                                exactly payload_length, or... */
    size_t iovcnt; /* ... 0: the payload is read and thrown away */
    void *frame; /* comes back in frame() and drop() */
};

struct link_events {
    /* A message begins.  Return false to close the link ("refused" is logged
     * by whoever refuses). */
    bool (*head)(void *arg, const struct link_head *head,
                 struct link_sink *sink);
    /* Its payload is complete in the sink's memory. */
    void (*frame)(void *arg, void *frame);
    /* The link ended before that; the memory will not be touched any more. */
    void (*drop)(void *arg, void *frame);
    /* The link has ended, by either side, by an error (`status`, `reason`), or
     * by link_close() (status 0).  The last event, exactly once.  The owner
     * calls link_put() in it or later. */
    void (*closed)(void *arg, int status, const char *reason);
};

/* One message on its way out.  The owner's memory, kept until sent(). */
struct link_message {
    uint8_t stack[WIRE_STACK_MAX];
    size_t stack_length;
    const uint8_t *header;
    size_t header_length;
    const struct iovec *iov; /* payload; must not change until sent() */
    size_t iovcnt;
    uint64_t payload_length; /* sum of iov */
    /* Called exactly once, on any thread, also inside link_send(): the message
     * and its payload are not needed any more.  status 0: handed to the
     * transport; else it did not go out, or not wholly.  Must not block. */
    void (*sent)(struct link_message *message, int status);
    bool eager; /* send it from this thread: nothing else is
                                  likely to follow that could go with it */
    bool more; /* others follow at once: may wait for the next
                                  without it, or link_push() */
    struct link_message *next; /* the link's */
    uint64_t end; /* the link's */
    int state; /* the link's */
};

struct link_limits {
    uint32_t max_payload; /* octets; a longer message closes the link */
    int32_t greeting_ms; /* time for the SP greeting; 0: none */
    int32_t frame_ms; /* time to finish a message once begun, and to make
                                some progress in sending; 0: none */
    bool keepalive; /* of TCP streams: the system probes a silent peer */
    bool *refused; /* link_dial(), if not NULL: set, whether it failed because
                                nobody listens there, as the host itself said */
};

/* What is known of the other side. */
struct link_peer {
    char text[128]; /* for the log: "ipc uid 1000 pid 77",
                                "tls 127.0.0.1:4711" */
    char transport[16]; /* "ipc", "tcp", "tls", "inproc", "ws" ... */
    bool has_uid;
    uint32_t uid, gid;
    uint32_t max_requests; /* unanswered at once that this kind of link can
                                carry: beyond it replies may get lost; 0: any */
};

/* References: a link begins with one, which is its owner's. */
struct link *link_get(struct link *link);
void link_put(struct link *link);

/* Start receiving and sending; before it no event comes.  Once.  A link that was
 * closed before it is started only tells that. */
void link_start(struct link *link, const struct link_events *events, void *arg);

void link_send(struct link *link, struct link_message *message);

/* Take a message back that has not begun to go out.  True: it will not, and
 * sent() will not be called.  False: sent() has been or will be called. */
bool link_recall(struct link *link, struct link_message *message);

/* Send what waits because of `more`. */
void link_push(struct link *link);

/*
 * Receive in this thread: events are delivered until `attendance` is woken,
 * until_ms (monotonic; negative: no limit, 0: only what is there at once) has
 * passed, or the link has ended.  For a thread that would wait for what the
 * events complete, and that comes back soon: for up to LINK_KEEP_MS after it
 * has left nobody receives.
 *
 * False: it can not be, mostly because another thread receives; then nothing
 * was done, the caller may wait in its own way, and says link_left() when it
 * has; `attendance` stays until then, and its `woken` tells that the caller has
 * what it waits for.  While several wait, nng's threads receive.
 */
bool link_attend(struct link *link, struct attendance *attendance,
                 int64_t until_ms);
void link_left(struct link *link);
/* Wake it.  Any thread, also inside of events; no lock that events take. */
void link_wake(struct link *link, struct attendance *attendance);
/* Somebody waits for events who will not attend: should nobody be receiving,
 * nng's threads do from now on.  `forever`: link_attend() is false from now on. */
void link_mind(struct link *link, bool forever);

/* Whether it has ended: nothing arrives any more.  False for links that nobody
 * attends. */
bool link_ended(struct link *link);

/* Back-pressure: after link_hold() no further head() is delivered (the message
 * under way goes on) until link_release().  Each may be called from events and
 * from any thread; they do not nest. */
void link_hold(struct link *link);
void link_release(struct link *link);

/* End it; does not wait.  Pending sends get sent(CONNECTION_LOST), then
 * closed() comes.  `drain`: send what is queued first, for at most 3 s, and
 * leave the peer a moment to take it; over nng sockets, which do not tell what
 * has gone out, up to 2 s after the last send, unless the peer closes before.
 * Any number of times, any thread.  A link_send() after closed() has begun
 * calls sent() at once. */
void link_close(struct link *link, bool drain);

const struct link_peer *link_peer(const struct link *link);

/* Connect.  Blocks up to timeout_ms (< 0: no limit).  url as nng writes it:
 * "ipc:///path", "abstract://name", "tcp://host:port", "tls+tcp://host:port" go
 * by streams, "inproc://x" and "ws://..." by a raw req0 socket.  `tls`: what
 * tls+tcp needs, NULL for all others.  Errors: NOT_FOUND (no such path, host or
 * listener), DENIED, TIMED_OUT, CONNECTION_LOST (refused), INVALID.  A TLS
 * handshake is part of the greeting: what is wrong with it ends the link. */
int link_dial(const char *url, struct link_tls *tls, int32_t timeout_ms,
              const struct link_limits *limits, struct link **link,
              struct error *error);

/*
 * A listener: accepts links.  accepted() gets each new link with its one
 * reference (its greeting is not done yet; greeting_ms bounds it) and must
 * link_start() it or link_close() + link_put() it.  Must not block.
 */
struct link_listener;
struct link_listener_options {
    struct link_limits limits;
    uint32_t ipc_mode; /* of an ipc socket's file, e.g. 0600 */
    uint32_t ipc_uid, ipc_gid; /* its owner and group; 0: as it comes */
    struct link_tls *tls; /* for tls+tcp; NULL: there is none */
};
int link_listen(const char *url, const struct link_listener_options *options,
                void (*accepted)(void *arg, struct link *link), void *arg,
                struct link_listener **listener, struct error *error);
/* The address with what the system chose filled in (a TCP port 0). */
const char *link_listener_url(const struct link_listener *listener);
/* Stop accepting, wait until accepted() does not run any more, free.  Links
 * live on. */
void link_listener_close(struct link_listener *listener);

#endif
