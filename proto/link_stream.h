/* SPDX-License-Identifier: ISC */
/*
 * The insides of a link over an nng stream, for link_stream.c (its life),
 * link_stream_receive.c, link_stream_send.c and link_listen.c (making them).
 *
 * Three operations of nng may be under way: a receive, a send, a sleep (the
 * watch).  Each has one owner at a time: nng, or the callback of its end, or
 * nobody.  The receive's callback is also where a link ends: once `ended` is
 * set and the two others are idle, it delivers the last events and drops the
 * link's own reference.  Whoever leaves last and is not that callback kicks it.
 *
 * A thread that attends (link_attend()) is one more possible owner of the
 * receive, with an operation without a callback that it waits for.  When it
 * leaves, nobody owns the receive; the keeper, a timer of core's, sees to it that
 * this does not last.  (nng's own clock spins through the last millisecond.)
 *
 * nng 1.5.2 never completes an operation that is begun on a stream after
 * nng_stream_close(): so begin and close exclude each other by the two gates.
 * Locks, in this order: a gate, then nng's own; `mutex` by itself or inside of
 * nothing but a gate.  No event is called with any of them.
 */
#ifndef FARBLK_PROTO_LINK_STREAM_H
#define FARBLK_PROTO_LINK_STREAM_H

#include "core/timer.h"
#include "proto/link_kind.h"
#include "proto/sp.h"
#include "proto/stream_tls.h"

#include <nng/nng.h>
#include <pthread.h>

#define STREAM_IOVECS 8 /* that an nng_aio takes */
#define STREAM_BUFFER (128u << 10) /* received, at least SP_HEAD_MAX */
#define STREAM_STAGING (256u << 10)
#define STREAM_COPY (16u << 10) /* buffers smaller than that are copied */
#define STREAM_TURNS 16 /* of one thread in a row */
#define STREAM_PLENTY (16u << 10) /* received: there may be more */
#define STREAM_SPINS 256 /* of one thread of nng's in a row */
#define STREAM_PUT_OFF 16u /* messages at most that wait for others */
#define STREAM_DRAIN_MS 3000 /* a busy machine's peer needs its turns */
#define STREAM_FAILED_MS 1000 /* for a peer's last words */
#define STREAM_LINGER_MS 100

struct stream_link {
    struct link base;
    nng_stream *stream;
    nng_aio *receive, *send, *watch;
    nng_aio *receive_here, *send_here; /* without a callback */
    struct stream_tls *tls; /* between the stream and all else; or NULL */
    bool ipc; /* frames have a type octet */
    uint16_t peer_protocol;
    struct link_limits limits;
    const struct link_events *events;
    void *arg;
    int64_t born;

    pthread_mutex_t receive_gate, send_gate;
    bool shut; /* both gates: nng_stream_close() was called */

    pthread_mutex_t mutex; /* all of this: */
    bool started, held, draining, ended, finished;
    bool receiving; /* the receive has an owner */
    bool kicked; /* its callback comes without a receive */
    bool sending; /* the send has an owner */
    bool corked; /* the receiver will send what is queued */
    bool send_failed;
    int send_error; /* of nng */
    bool stirred; /* TLS has something to send of its own, or may send now */
    bool watching; /* the watch sleeps, or its callback runs */
    int64_t watch_until; /* when it sleeps */
    int64_t receive_since, send_since; /* something unfinished; 0: nothing */
    int64_t close_at; /* of draining or a failed send; 0: no */
    struct attendance *attendant; /* it owns the receive */
    unsigned waiters; /* for whom link_attend() was false */
    struct attendance *waiter; /* the only one of them, or NULL */
    bool minded; /* link_attend() is false from now on */
    int64_t keep_at; /* the receive was left to nobody until then; 0: no */
    struct timer keeper; /* armed while `keeping` */
    bool keeping;
    unsigned put_off; /* messages that wait for others */
    int64_t last_sent;
    struct link_queue queue; /* not begun */
    struct link_queue late; /* came after the end */
    bool late_running;
    int status; /* of the end */
    char reason[256];

    /* The receive's owner's: */
    bool greeted, last_try;
    bool plenty; /* the last receive brought much */
    unsigned turns; /* receives of this thread in a row */
    unsigned spins; /* such that came while it span */
    unsigned delivered; /* messages of the last receive */
    int quick; /* short waits in a row; negative: before they count again */
    int64_t wait_ns; /* when the last wait began */
    bool in_payload;
    struct link_sink sink;
    size_t sink_at, sink_done; /* iovec, octets of it */
    uint64_t payload_left;
    int64_t message_since; /* of a message that is not complete; or 0 */
    size_t buffer_begin, buffer_end;
    uint8_t *buffer;

    /* The send's owner's: */
    struct link_queue begun; /* the last may be incomplete */
    struct link_message *filling; /* it, or NULL */
    size_t fill_at, fill_done; /* iovec of its payload, octets of it */
    uint64_t filled, gone; /* octets ever */
    nng_iov iov[STREAM_IOVECS];
    unsigned iovcnt;
    size_t staged;
    uint8_t *staging;
};

/* Make a link of a connected stream, which it takes over also on failure.
 * NULL when there is no memory.  `server`: this side speaks REP.  `tls`: NULL
 * without. */
struct stream_link *stream_create(nng_stream *stream, const char *scheme,
                                  bool server, struct link_tls *tls,
                                  const struct link_limits *limits);

/* End the link with a status and a reason; the first counts. */
void stream_end(struct stream_link *link, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* With the mutex: look after the deadlines that are set now. */
void stream_watch(struct stream_link *link);
/* With the mutex: the last steps, if nothing is under way any more. */
void stream_settle(struct stream_link *link);

/* With the mutex, which it lets go: nothing is under way any more, the rest is
 * told.  The link may be gone afterwards. */
void stream_finish(struct stream_link *link);

/* link_stream_receive.c */
void stream_received(void *arg); /* the receive's callback */
/* Begin to receive.  False: the link is over. */
bool stream_receive_start(struct stream_link *link);

/* Where the next octets go; returns how many of `iov`.  0: some have come
 * without a receive, by way of TLS, or the link is over. */
unsigned stream_prepare_receive(struct stream_link *link, nng_iov *iov);
/* False: the link is over. */
bool stream_post_receive(struct stream_link *link, nng_aio *aio, unsigned count,
                         nng_iov *iov);
/* A receive has ended. */
void stream_take_result(struct stream_link *link, int result, size_t count);
/* Deliver the next piece of what the buffer has.  False: it has too little. */
bool stream_advance(struct stream_link *link);

/* link_stream_spin.c */
enum received { RECEIVED_SOME, RECEIVED_NOTHING, RECEIVED_OVER };
/* Receive in this thread what is there already: an operation without a callback
 * costs no other thread. */
enum received stream_receive_here(struct stream_link *link, unsigned count,
                                  nng_iov *iov);
/* Try that for a moment, if it is likely to bring something before `attendance`
 * (may be NULL) is woken.  True: something came. */
bool stream_spin(struct stream_link *link, struct attendance *attendance,
                 unsigned count, nng_iov *iov);
void stream_wait_begins(struct stream_link *link);
void stream_wait_ended(struct stream_link *link);

/* link_stream_attend.c */
bool stream_attend(struct link *base, struct attendance *attendance,
                   int64_t until_ms);
void stream_left(struct link *base);
void stream_wake(struct link *base, struct attendance *attendance);
void stream_mind(struct link *base, bool forever);
/* With the mutex: the receive, which nobody owns, is for nng's threads. */
void stream_kick(struct stream_link *link);
/* With the mutex, by its owner: the receive is nobody's for LINK_KEEP_MS. */
void stream_leave(struct stream_link *link);

/* link_stream_send.c */
void stream_send_init(struct stream_link *link, uint16_t protocol);
void stream_send(struct link *base, struct link_message *message);
bool stream_recall(struct link *base, struct link_message *message);
void stream_send_start(struct stream_link *link); /* what is queued so far */
void stream_sent(void *arg); /* the send's callback */
void stream_push(struct link *base);
void stream_uncork(struct stream_link *link); /* send what was queued */
void stream_stir(struct stream_link *link); /* send what TLS wants to */

#endif
