/* SPDX-License-Identifier: ISC */
/*
 * The NBD driver's insides, shared by its parts:
 *
 *   nbd.c          the driver: URI, start, shape, disconnect, close
 *   nbd_connect.c  a libnbd handle from what the URI says; libnbd's errors
 *   nbd_link.c     connections and their threads: life, loss, the end
 *   nbd_io.c       ios: waiting, ending, cancelling
 *   nbd_command.c  libnbd's commands: issuing, answers, orphans
 *   nbd_map.c      extents out of a server's block status
 *   nbd_list.c     farblk_list()
 *
 * Each connection has a libnbd handle, a mutex around every call of that
 * handle, and a thread that waits for its socket.  An io is issued by the
 * thread that brings it, so that a lone request costs no hand-over; answers are
 * received and completed by the connection's thread.  The first connection is
 * there after start; the others, if the server says that it keeps several
 * coherent, begin when there is work for them, and one that can not be had is
 * done without.  A connection that is lost later takes the device with it.
 *
 * Order of locks: link.mutex, then nbd.mutex.  No io is completed under either:
 * what has ended is gathered in a list, its outcome in the io's scratch.
 *
 * A command that libnbd has taken can not be taken back.  So an io that has a
 * deadline moves its data through memory of the driver's: when its time is
 * over it completes at once, and its command stays behind as an orphan.  What
 * overlaps an orphan that changes the device waits for its answer, or a late
 * write could undo one that was acknowledged after it.
 */
#ifndef FARBLK_BACKENDS_NBD_H
#define FARBLK_BACKENDS_NBD_H

#include "core/driver.h"

#include <libnbd.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

/* Octets in one piece of a request, when the server takes that many. */
#define NBD_TRANSFER (1u << 20)
#define NBD_PREFERRED (256u << 10)
/* What a server takes that does not say: the protocol's own figure. */
#define NBD_SERVER_TRANSFER (32u << 20)
/* Octets in one trim or zeroing. */
#define NBD_RANGE (UINT64_C(1) << 28)
/* Octets in one question for block status: 32 bits, and whole sectors. */
#define NBD_STATUS_RANGE UINT64_C(0xffff0000)
/* In flight on one connection: commands, and octets of their data. */
#define NBD_WINDOW 64u
#define NBD_WINDOW_OCTETS (32u << 20)
/* Commands in flight on each connection that make another one worth while. */
#define NBD_BUSY 2u
#define NBD_LINKS_MAX 16u
#define NBD_LINKS 4u
#define NBD_CONNECT_MS 10000
#define NBD_PORT 10809u
/* Octets in an export's name, by the protocol. */
#define NBD_MAX_NAME 4096
/* Extents that are kept of one answer. */
#define NBD_EXTENTS 256u
/* Seconds of a silent host until it counts as dead. */
#define NBD_DEAD_S 120

/* What the URI says; fixed. */
struct nbd_config {
    bool tls, is_unix;
    char *host, *socket, *export_name; /* those that apply; else NULL */
    char *user, *certificates, *psk_file; /* may be NULL */
    char port[8];
    char target[128]; /* for messages */
    uint32_t sector; /* 0: the server's */
    unsigned links; /* at most; 0: not said */
    int32_t connect_ms;
};

/* What the server says of the export. */
struct nbd_facts {
    uint64_t size;
    bool read_only, can_flush, can_fua, can_trim, can_zero, can_multi, can_map;
    uint32_t minimum, preferred, maximum; /* 0: not said */
};

/* Extents from block status, by whole sectors; nbd_map.c. */
struct nbd_map {
    uint32_t sector;
    uint64_t at; /* octets: told up to here by the server */
    uint64_t told; /* octets: extents up to here */
    uint64_t limit; /* octets: what was asked for */
    bool full; /* there was no room for something */
    bool open, unmapped; /* the run that ends at `at`, perhaps */
    struct farblk_extent *extents;
    size_t count, max;
};

/* One command of libnbd's, for one io or for what a timeout left of it. */
struct nbd_command {
    struct nbd_command *next, *prev; /* active, idle or done */
    struct nbd_command *orphan_next;
    struct nbd_link *link;
    struct io *io; /* NULL: an orphan */
    enum farblk_op op;
    uint32_t flags;
    uint64_t offset, length;
    int64_t cookie; /* -1: libnbd did not take it */
    int errnum; /* of its answer; 0: fine */
    struct block *own; /* memory in place of the caller's, or NULL */
    struct nbd_map map;
    struct farblk_extent *extents; /* NBD_EXTENTS, or NULL until needed */
};

struct nbd_link {
    struct nbd *nbd;
    unsigned index;
    int wake; /* eventfd */
    pthread_t thread; /* the driver's end, and who starts it */
    bool started;
    atomic_bool ready; /* connected, takes commands */
    atomic_uint load; /* commands in flight */
    pthread_mutex_t mutex; /* all below, and every call of libnbd */
    struct nbd_handle *handle;
    struct nbd_command *active, *idle, *done;
    uint64_t octets; /* of data in flight */
    int64_t heard_ms; /* when the server was last heard */
    bool said_goodbye;
    char why[FARBLK_TEXT_MAX]; /* libnbd's last words, or "" */
};

struct nbd {
    struct nbd_config config;
    struct nbd_facts facts; /* of the first connection */
    uint32_t sector;
    uint64_t max_range;
    void *zeroes; /* max_range octets to write, where the server can not zero */
    bool writes_through; /* each change with FUA: the server has no flush */
    unsigned link_count;
    struct nbd_link links[NBD_LINKS_MAX];
    atomic_bool busy; /* more connections are worth while */
    bool grown; /* they were begun; the first link's thread */
    bool over; /* the threads have been ended; the driver's end */

    pthread_mutex_t mutex; /* all below */
    struct io *first, *last; /* wait for room, linked by io.link */
    struct nbd_command *orphans; /* that change the device */
    struct error lost; /* status != 0: the device is gone, for this reason */
    bool leaving, ending; /* the last handle goes; has gone */
    int64_t leaving_ms; /* since when */
};

/* Ios that have ended, in order; linked by io.link. */
struct nbd_ended {
    struct io *first, *last;
};

/* ---- nbd_connect.c */

/* The program is not to die of a SIGPIPE that TLS raises on this thread. */
struct nbd_signals {
    sigset_t before;
    bool pending;
};
void nbd_signals_block(struct nbd_signals *signals);
void nbd_signals_restore(const struct nbd_signals *signals);

/* libnbd's last error of this thread, for messages; from its text octets of a
 * peer are taken out.  `fallback` when it has none. */
void nbd_words(char *to, size_t size, const char *fallback);
/* The status of an errno that a server answered to that operation with. */
int nbd_status(int errnum, enum farblk_op op);
/* A connection that has asked for the export, or with `listing` one that waits
 * for options; NULL and *error otherwise.  Blocks until `until_ms`; a `wake`
 * that becomes readable (-1: none) ends it before. */
struct nbd_handle *nbd_connect(const struct nbd_config *config, bool listing,
                               int64_t until_ms, int wake, struct error *error);
/* Drive the handle until waiting(handle) is false or it has died.  The same
 * bounds; `what` is what is waited for. */
int nbd_wait(const struct nbd_config *config, struct nbd_handle *handle,
             int (*waiting)(struct nbd_handle *), int64_t until_ms, int wake,
             const char *what, struct error *error);
/* What the server told of the export that the handle is at. */
int nbd_ask(const struct nbd_config *config, struct nbd_handle *handle,
            struct nbd_facts *facts, struct error *error);
/* The sector size that the URI and the server's minimum make. */
int nbd_sector(const struct nbd_config *config, const struct nbd_facts *facts,
               uint32_t *sector, struct error *error);

/* ---- nbd.c */

/* What the URI says; `listing`: it names a server.  nbd_config_fini() in any
 * case. */
int nbd_configure(struct nbd_config *config, const struct uri *uri,
                  bool listing, struct error *error);
void nbd_config_fini(struct nbd_config *config);

/* ---- nbd_link.c */

/* Connect, and learn what the export is; blocks, bounded. */
int nbd_links_open(struct nbd *nbd, struct error *error);
/* Start the first link's thread, with up to `count` links in all. */
int nbd_links_start(struct nbd *nbd, unsigned count, struct error *error);
/* The last handle goes: a server that stays silent from now on is given up.
 * Never blocks. */
void nbd_links_leave(struct nbd *nbd);
/* Wait for orphans, take leave of the server, end the threads; bounded by
 * connect_ms.  Again is fine. */
void nbd_links_end(struct nbd *nbd);
/* Have the link's thread look at its state. */
void nbd_link_wake(struct nbd_link *link);
void nbd_links_wake(struct nbd *nbd);
/* After calls of libnbd, link.mutex held: gather what has ended, and find out
 * whether the connection is gone. */
void nbd_link_check(struct nbd_link *link, struct nbd_ended *ended);
/* Whether what libnbd has to send waits for the socket, link.mutex held. */
bool nbd_link_sends(struct nbd_link *link);

/* ---- nbd_io.c */

void nbd_submit(struct nbd *nbd, struct io *io);
void nbd_cancel(struct nbd *nbd, struct io *io);
/* link.mutex held: issue what waits, while there is room. */
void nbd_pump(struct nbd_link *link, struct nbd_ended *ended);
/* The device is gone; the first reason counts.  Gathers what waits. */
void nbd_lose(struct nbd *nbd, struct nbd_ended *ended, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Complete them; no lock held. */
void nbd_complete(struct nbd_ended *ended);
bool nbd_is_lost(struct nbd *nbd);
/* The io has ended so.  The effect counts if it is a change. */
void nbd_well(struct nbd_ended *ended, struct io *io, uint64_t value);
void nbd_badly(struct nbd_ended *ended, struct io *io, int status,
               enum farblk_effect effect, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* ---- nbd_command.c: link.mutex held */

/* Kinds of operation. */
static inline bool
nbd_changes(enum farblk_op op)
{
    return op == FARBLK_OP_WRITE || op == FARBLK_OP_DISCARD
           || op == FARBLK_OP_WRITE_ZEROES;
}

static inline bool
nbd_moves(enum farblk_op op)
{
    return op == FARBLK_OP_READ || op == FARBLK_OP_WRITE;
}

/* Make a command of the io, and issue it. */
void nbd_begin(struct nbd_link *link, struct io *io, struct nbd_ended *ended);
/* Gather the commands that were answered. */
void nbd_settle(struct nbd_link *link, struct nbd_ended *ended);
/* The io's time is over: if it is under way on this link, end it, and leave its
 * command behind. */
bool nbd_orphan(struct nbd_link *link, struct io *io, struct nbd_ended *ended);
/* The libnbd handle is closed: fail what was in flight. */
void nbd_abandon(struct nbd_link *link, struct nbd_ended *ended);

/* ---- nbd_map.c: begin, any number of adds in order, end */

/* `offset`, `limit`: whole sectors, octets. */
void nbd_map_begin(struct nbd_map *map, uint32_t sector, uint64_t offset,
                   uint64_t limit, struct farblk_extent *extents, size_t max);
/* The next `length` octets are of this kind.  Past the limit or with no room:
 * forgotten. */
void nbd_map_add(struct nbd_map *map, uint64_t length, bool unmapped);
/* At least one extent, unless nothing was added. */
void nbd_map_end(struct nbd_map *map);

/* ---- nbd_list.c */

int nbd_list(const struct uri *uri,
             int (*entry)(void *arg, const struct farblk_list_entry *entry),
             void *arg, struct error *error);

#endif
