/* SPDX-License-Identifier: ISC */
/*
 * The inside of the farblk driver: a device behind a farblkd.
 *
 *   client.c   the driver: URI, open, start, disconnect, close
 *   hello.c    dialling, Hello and Open, also once more
 *   session.c  the life of a session: asking, Ping, its end
 *   resume.c   a broken connection, and how another takes its place
 *   calls.c    one call for each io: window, completing, cancelling
 *   send.c     making messages of calls
 *   ids.c      where calls are kept: pool, table by request id, number order
 *   replies.c  what comes in, and the check of everything that is in it
 *   cancel.c   giving up a request that changes, and knowing what became of it
 *   watch.c    waiting for another generation
 *   rings.h    shared memory, with the files that it names
 *   list.c     farblk_list()
 *
 * A client is one connection with one session and at most one handle in it.
 * When the connection breaks another one takes its place (resume.c): the calls
 * that are unanswered then stay where they are, and are sent again under their
 * numbers, so that the server executes each once.
 * Its mutex protects everything below "the mutex"; it is a leaf but for the
 * timer's, and nothing is sent, completed or reported to core under it.  What
 * has to follow is gathered in a struct batch and done by calls_run() after
 * the mutex is free.
 *
 * Life.  A client is counted by `users`: its owner, the link until closed(),
 * each message that the link holds, each thread inside.  client_free() waits
 * until only the owner is left.
 */
#ifndef FARBLK_CLIENT_CLIENT_H
#define FARBLK_CLIENT_CLIENT_H

#include "core/driver.h"
#include "core/timer.h"
#include "proto/codec.h"
#include "proto/link.h"

#include <pthread.h>
#include <stdatomic.h>

struct cancel;
struct client_ring;

/* Requests in flight, whatever more the server would allow. */
#define CLIENT_WINDOW_MAX 1024u
/* Of the server's max_requests, kept for Ping, WatchInfo, Disconnect, Cancel. */
#define CLIENT_RESERVE 3u
/* Bounds of the lease that a server may announce, milliseconds. */
#define CLIENT_LEASE_MIN 1000
#define CLIENT_LEASE_MAX 3600000
/* To finish a message once begun. */
#define CLIENT_FRAME_MS 30000
#define CLIENT_CONNECT_MS 10000
/* For what becomes of a request whose time is over: as long again as it had, and
 * within these bounds, milliseconds. */
#define CLIENT_GRACE_MIN 50
#define CLIENT_GRACE_MAX 1000
/* With no more in flight each request is sent by the thread that brings it. */
#define CLIENT_EAGER 2u
/* Octets of one request's header, at most: a Hello with the longest name. */
#define CLIENT_HEADER_MAX 768
/* Buffers of a call without an allocation. */
#define CLIENT_IOVS 8
/* Of the text that tells how data travels. */
#define CLIENT_WAY 128

enum client_state {
    CLIENT_IDLE, /* no link yet */
    CLIENT_UP,
    CLIENT_AWAY, /* the link is broken; nothing is sent, ios wait */
    CLIENT_BACK, /* there is another one, and the session shows its secret */
    CLIENT_LOST, /* for good; `lost` says why */
};

enum client_shm {
    CLIENT_SHM_AUTO, /* where it can be had; in the order of the choices */
    CLIENT_SHM_OFF,
    CLIENT_SHM_REQUIRE,
};

/* A thread that waits for one reply. */
struct client_wait {
    struct codec_reply reply;
    bool done;
};

/*
 * One request on the wire.  It stays in the table until its reply is here, or
 * the client is lost, or the message was taken back; its io may leave it
 * before that (a timeout): then it is an orphan that waits for a late reply,
 * and goes on to count in the window, because the server counts it too.
 */
struct call {
    struct link_message message;
    struct client *client;
    struct call *next; /* in the pool, or in a batch */
    struct call *older, *newer; /* by number, while unanswered */
    struct io *io; /* NULL: the client's own, or an orphan */
    struct client_wait *wait; /* who waits for the client's own, or NULL */
    uint32_t method;
    uint32_t id; /* 0: not in the table */
    uint64_t number;
    uint64_t lowest; /* when it was issued */
    uint64_t generation; /* known when it was issued */
    uint64_t octets; /* of bulk data, either direction */
    uint32_t checksum; /* that its reply tells of the data behind it */
    unsigned holds; /* the link's, the receiver's, a canceller's:
                                    while there are any, io and call stay */
    bool own; /* not an io's: outside of the io window */
    bool handshake; /* own, and only of the link that it was sent on */
    bool listed; /* in the number order */
    bool sending; /* the link has it */
    bool receiving; /* its reply is being looked at or read */
    bool replied; /* the outcome is here */
    bool expired; /* its time is over */
    bool unsent; /* it never went out */
    bool failed; /* replied: `error` is the outcome */
    bool refused; /* the server will not execute it in this session */
    bool fenced; /* nor by whatever way; it has said so of this one */
    bool doubted; /* the server was asked, and has not answered in time */
    struct cancel *cancel; /* it is being asked; cancel.c's */
    uint64_t mark; /* a flush: client.acked when it was issued */
    uint64_t value; /* the outcome: of io_done() */
    struct error error;
    struct iovec *iov; /* few, or allocated and kept */
    size_t iov_count; /* the io's data: to send or to receive into */
    size_t iov_capacity;
    struct iovec few[CLIENT_IOVS];
    uint8_t header[CLIENT_HEADER_MAX];
};

struct client {
    /* Fixed by client_parse(). */
    char *url; /* as nng writes it */
    char target[128]; /* the same for texts, cut if longer */
    char name[256]; /* of the export; "" for a list */
    struct link_tls *tls; /* farblks: whom to believe; else NULL */
    uint32_t token_length; /* of what Open shows; 0: nothing */
    uint8_t token[WIRE_TOKEN_MAX];
    bool read_only; /* the handle's wish */
    bool fences; /* the server knows Cancel; changes as `limits` */
    bool checksums; /* of each payload: wished, and given or not opened */
    enum client_shm shm;
    int32_t connect_ms;
    bool reopen, retry_always;
    int32_t reconnect_ms; /* CLIENT_RECONNECT_LEASE, 0: never, or how long */

    struct device *device; /* fixed by client's start */

    /* Of the mutex, and changed only while nothing is `busy`: who has a call
     * that is being sent may look at them without. */
    _Atomic(struct link *) link;
    uint64_t session, handle;

    uint64_t generation_base; /* of the program's count when the server's of
                                 now was 0 */
    uint8_t secret[WIRE_SECRET_SIZE], instance[WIRE_INSTANCE_SIZE];

    /* What the device was opened as. */
    uint8_t content[WIRE_INSTANCE_SIZE];
    uint64_t features, transfer;
    bool was_writable;

    /* Fixed by session_begin(), but changed as `link` when one begins anew. */
    struct codec_limits limits; /* checked and cut */
    uint32_t window; /* io calls in flight */
    int64_t lease_ms;
    uint32_t sector_size; /* 0: no device is open yet */
    struct codec_device *devices; /* room for ListDevicesReply */

    /* Shared memory: changed under the mutex. */
    _Atomic(struct rings *) rings; /* the present region; NULL: none */
    atomic_bool rings_up; /* queues get rings in it */

    atomic_uint users;

    pthread_mutex_t mutex;
    pthread_cond_t changed; /* a wait is done, lost, link or users gone */
    enum client_state state;
    struct error lost; /* fixed once state is LOST */
    int lost_status; /* of what may have been executed */
    bool unsettled; /* LOST: something that was sent may land yet */
    struct error broken, tried; /* AWAY: why; what the last attempt came to */
    bool resuming; /* there is a thread for it */
    bool resumable; /* a broken link is not the end */
    bool ending; /* no handle is connected: the lease bounds all waits */
    bool session_gone; /* the server said so */
    bool refused; /* it said so to a request */
    bool new_instance; /* another one has begun the session */
    atomic_uint_fast64_t acked; /* changes that were acknowledged but not
                                      stable then; by rings, too */
    uint64_t stable; /* of these are stable */
    bool progress; /* an io was answered since the link is up */
    unsigned attempts, breaks; /* to go on, and needs to, without progress */
    int64_t until_ms; /* AWAY, BACK: then it is lost */
    unsigned busy; /* calls that are being sent */
    struct error watch_error; /* why the last WatchInfo failed */
    bool link_running; /* closed() has not come */
    bool users_gone;
    atomic_uint_fast64_t generation; /* last heard; changes under the mutex */
    uint64_t size; /* octets; last heard */
    atomic_uint_fast64_t next_number; /* rings take numbers, too */
    unsigned orphans; /* ios of a broken ring that have kept their number and
                         wait to be issued */
    uint64_t orphan_lowest; /* no number of theirs is below */
    uint32_t next_id;
    struct call **table; /* by the low bits of the id, each alone */
    size_t table_size; /* a power of two */
    struct call *oldest, *newest; /* unanswered, by number */
    struct call *pool;
    unsigned total, flying; /* calls in the table; those of ios */
    uint64_t octets; /* of bulk data in them */
    struct io *first, *last; /* wait for room */
    struct io *watchers, *watchers_last;
    bool watch_flying, ping_flying;
    atomic_bool receiving; /* a payload: the link watches its time */
    int64_t heard_ms, sent_ms, watch_ms;
    struct timer timer;
    struct rings *regions; /* all that are mapped, by next */
    bool shared; /* there was a region */
    bool renewing; /* a thread asks for another */
    int64_t renew_ms; /* when to ask; 0: never */
    unsigned renewals; /* attempts, since one was good */
    char way[CLIENT_WAY]; /* not shared memory: what is, and why */
    struct cancel *cancels; /* oldest first */
    atomic_uint doubts; /* of them: their callers know nothing, nor do we */
    struct timer grace;
    int64_t grace_ms; /* when it fires; 0: not armed */
};

/* client.reconnect_ms: for what is left of the lease, and not when nobody
 * listens any more. */
#define CLIENT_RECONNECT_LEASE (-1)

/* What is to be done when the mutex is free. */
struct batch {
    struct call *send, *send_last;
    struct io *done, *done_last;
};

/* io.scratch, so that an io that waits needs no memory.  Names of its words: */
enum client_io_word {
    CLIENT_IO_STATE, /* enum client_io_state */
    CLIENT_IO_CALL, /* ISSUED: its struct call; DONE: one to free after it */
    CLIENT_IO_PREV, /* WAITING, WATCHING: the one before, or 0 */
    CLIENT_IO_STATUS, /* DONE: how it ends */
    CLIENT_IO_VALUE, /* DONE: status 0 */
    CLIENT_IO_EFFECT, /* DONE: else */
    CLIENT_IO_TEXT, /* DONE: const char *, static, `lost` or the call's */
    CLIENT_IO_NUMBER, /* it was sent under, on a way that has broken; 0: not */
};
enum client_io_state {
    CLIENT_IO_NEW, /* not submitted: core zeroes it */
    CLIENT_IO_WAITING, /* for room in the window */
    CLIENT_IO_WATCHING,
    CLIENT_IO_ISSUED,
    CLIENT_IO_DONE, /* in a batch, or completed */
    CLIENT_IO_CANCELLED, /* before it was submitted */
    CLIENT_IO_RINGED, /* timed, and in its ring; VALUE: the tag */
};

static inline void *
client_io_pointer(const struct io *io, enum client_io_word word)
{
    return (void *)(uintptr_t)io->scratch[word];
}

static inline void
client_io_set_pointer(struct io *io, enum client_io_word word, const void *to)
{
    io->scratch[word] = (uint64_t)(uintptr_t)to;
}

static inline void
client_enter(struct client *client)
{
    atomic_fetch_add_explicit(&client->users, 1, memory_order_relaxed);
}

/* Nothing of the client may be touched afterwards. */
void client_leave(struct client *client);

/* client.c */

/* A client for what `uri` names; `listing`: a server without a device. */
int client_create(const struct uri *uri, bool listing, struct client **client,
                  struct error *error);
/* Close the link, wait until nothing of the client runs any more, free. */
void client_free(struct client *client);

/* hello.c */

/* Dial and say Hello, until `until_ms` at most.  Blocks. */
int session_begin(struct client *client, int64_t until_ms, struct error *error);
/* Open the export; fills what the server says of it, checked.  Blocks. */
int session_open(struct client *client, int64_t until_ms,
                 struct codec_info *info, struct error *error);
/* In state BACK: the server does not know the session any more, says `why`; begin
 * another one, if that may be.  False: the link is broken, or it is lost. */
bool session_begin_again(struct client *client, int64_t until_ms,
                         const char *why);
/* In state BACK: open the device in such a session.  The same. */
bool session_open_again(struct client *client, int64_t until_ms);

/* session.c */

/* Send one request of the client's own and wait for its reply.  0: there is a
 * reply, maybe with a status of its own.  Blocks until `until_ms` at most.  A
 * handshake's ends with the link that it was sent on; others are sent again on
 * the next. */
int session_call(struct client *client, struct codec_request *request,
                 bool handshake, int64_t until_ms, struct codec_reply *reply,
                 struct error *error);
/* Ping when it is time, from now on. */
int session_keep_alive(struct client *client, struct error *error);
/* Tell the server that this was all, for at most the lease.  Blocks. */
void session_end(struct client *client);
/* The client is lost, for the first reason given: all ios that can end end
 * now, the others when the link lets go of them.  Any thread, no mutex. */
void session_lost(struct client *client, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* When nothing that was sent before can be executed any more, unless a backend
 * hangs: the lease has passed since.  Under the mutex. */
int64_t session_settled_ms(const struct client *client);
/* The events of its links. */
extern const struct link_events session_events;
/* Turn a reply with a status into an error: "WHAT: the server's text". */
int session_error(const struct codec_reply *reply, struct error *error,
                  const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* resume.c */

/* The link can not be used any more: go on with another, or be lost.  Any
 * thread, no mutex. */
void resume_broken(struct client *client, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Under the mutex, state AWAY: begin to look for another link.  False: there is
 * no thread for it. */
bool resume_start(struct client *client);
/* Under the mutex, the caller being a user of the client: run a thread, which is
 * one as well and calls client_leave() in the end.  False: there is none. */
bool client_spawn(struct client *client, void *(*run)(void *client));

/* calls.c */

void calls_submit(struct client *client, struct io *io);
/* The io's way has broken: it goes by the socket, under the number it has. */
void calls_again(struct client *client, struct io *io);
void calls_cancel(struct client *client, struct io *io);
void calls_shut(struct client *client, bool last);
/* Under the mutex: whether an operation changes the device. */
bool calls_changes(enum farblk_op op);
/* Under the mutex: give back one hold, and end what can end now. */
void calls_release(struct call *call, struct batch *batch);
/* Under the mutex: nobody holds the call; end its io, and the call, if that can
 * be now. */
void calls_settle(struct call *call, struct batch *batch);
/* Under the mutex: issue what waits, as far as there is room. */
void calls_pump(struct client *client, struct batch *batch);
/* Under the mutex: end every io that can end, because the client is lost. */
void calls_fail_all(struct client *client, struct batch *batch);
/* Under the mutex: the link is gone, and with it what belongs to it alone. */
void calls_detach(struct client *client, struct batch *batch);
/* Under the mutex, a session has begun anew: what may have been executed in the
 * old one ends, unless it is to be tried again; the rest has no number yet. */
void calls_renew(struct client *client, struct batch *batch);
/* Under the mutex: send everything again that is unanswered.  How many. */
unsigned calls_resend(struct client *client, struct batch *batch);
/* Under the mutex: an io ends so.  `text` as CLIENT_IO_TEXT. */
void calls_end(struct batch *batch, struct io *io, int status,
               enum farblk_effect effect, const char *text, uint64_t value);
/* Under the mutex: an io that waits in a list, first or not. */
void calls_link(struct io **first, struct io **last, struct io *io);
void calls_unlink(struct io **first, struct io **last, struct io *io);
/* No mutex: send and complete. */
void calls_run(struct client *client, struct batch *batch);

/* cancel.c; all under the mutex. */

/* What a caller is told whose time was over. */
extern const char cancel_text_late[], cancel_text_fenced[];

/* How long such a moment may be, milliseconds; tests have their own. */
extern struct cancel_bounds {
    int64_t least, most;
} cancel_bounds;

/* The call's io has no time any more: whether it stays for a moment, until the
 * server has told what becomes of it. */
bool cancel_waits(struct call *call, struct batch *batch);
/* The same for one in a ring; not under the ring's mutex.  The moment's end is
 * rings_give_up().  True: the caller's reference of the ring is taken. */
bool cancel_waits_in_ring(struct client *client, int32_t timeout_ms,
                          struct client_ring *ring, uint32_t tag,
                          uint64_t number, struct batch *batch);
/* The call's io ends, or the call itself. */
void cancel_io_ended(struct call *call);
/* Ask for what was not asked yet, as far as there is room. */
void cancel_send(struct client *client, struct batch *batch);
/* A Cancel has its answer.  ring, if not NULL, is a reference: rings_give_up(),
 * with effect NONE, when the mutex is free. */
struct cancel_ring {
    struct client_ring *ring;
    uint32_t tag;
    uint64_t number;
};
struct cancel_ring cancel_replied(struct call *sent,
                                  const struct codec_reply *reply,
                                  struct batch *batch);
/* It ends without one. */
void cancel_unsent(struct call *sent);
/* The link is gone, or the `session`: no request of it is begun any more. */
void cancel_away(struct client *client, bool session);
/* Nothing of the client runs any more. */
void cancel_fini(struct client *client);

/* send.c */

uint32_t send_method(enum farblk_op op);
/* What is left of the io's time, for the wire; 0: none is set. */
uint32_t send_deadline(const struct io *io);
/* Under the mutex: send one request of the client's own; `request` is encoded
 * now, its session, number and lowest are filled in.  While the client is away
 * it goes out later, if it is no handshake.  NULL without room or memory, or
 * when the client is lost. */
struct call *send_own(struct client *client, struct codec_request *request,
                      bool handshake, struct client_wait *wait,
                      struct batch *batch);
/* Under the mutex: the link has the call no more. */
void send_done(struct call *call);
/* Under the mutex: calls_run() will send it; the link holds it until then. */
void send_queue(struct call *call, struct batch *batch);
/* No mutex: send a call of the batch; one that can not be made ends in it. */
void send_call(struct call *call, struct batch *batch);
extern const char send_text_memory[];

/* ids.c; all under the mutex. */

int ids_init(struct client *client, uint32_t calls);
void ids_fini(struct client *client);
/* Whether there is an id and a number for one more. */
bool ids_room(struct client *client);
/* A call with an id and, if `numbered`, a number, in the table and in the order;
 * NULL without memory or room.  `number`: one that it had before; 0: the next. */
struct call *ids_take(struct client *client, bool numbered, uint64_t number);
/* It does not hold `lowest` up. */
void ids_unlist(struct call *call);
/* Every number below has been answered. */
uint64_t ids_lowest(const struct client *client);
/* It is answered (or will never be): out of the table and the order. */
void ids_remove(struct call *call);
/* Back to the pool. */
void ids_free(struct call *call);
struct call *ids_find(struct client *client, uint32_t id);

/* replies.c */

bool replies_head(void *arg, const struct link_head *head,
                  struct link_sink *sink);
void replies_frame(void *arg, void *frame);
void replies_drop(void *arg, void *frame);
/* The device has another shape, perhaps.  False: one that can not be. */
bool replies_reshape(struct client *client, uint64_t size_sectors,
                     uint64_t generation);

/* watch.c; all under the mutex. */

void watch_submit(struct client *client, struct io *io, struct batch *batch);
/* The generation is another one: answer who waits for that. */
void watch_changed(struct client *client, struct batch *batch);
/* A WatchInfo was answered. */
void watch_replied(struct client *client, const struct codec_reply *reply,
                   struct batch *batch);
/* A handle was disconnected: end its watches. */
void watch_shut(struct client *client, struct batch *batch);
/* Keep one WatchInfo under way while somebody watches. */
void watch_issue(struct client *client, struct batch *batch);

/* list.c */

int list_devices(const struct uri *uri,
                 int (*entry)(void *arg, const struct farblk_list_entry *entry),
                 void *arg, struct error *error);

#endif
