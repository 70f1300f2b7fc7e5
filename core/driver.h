/* SPDX-License-Identifier: ISC */
/*
 * The contract of a driver: what stands behind a scheme.
 *
 * A driver moves whole, checked, bounded pieces (struct io).  Before an io
 * reaches it, core has checked arguments, split the request to the driver's
 * limits, ordered it against resizes and, unless the driver says that sectors
 * are atomic by themselves, locked its range.  A driver completes each io
 * exactly once, with io_done() or io_failed(), inside submit or later, from
 * any thread, without holding a lock of its own, and touches neither the io nor
 * its buffers after that.
 *
 * All positions and lengths here are in octets; struct farblk_extent alone is
 * the public one, in sectors.
 *
 * Adding a driver: one file in backends/, which ends with a
 * `const struct driver driver_NAME`, and one line of CMake.
 */
#ifndef FARBLK_CORE_DRIVER_H
#define FARBLK_CORE_DRIVER_H

#include "core/attend.h"
#include "core/block.h"
#include "core/error.h"
#include "core/iov.h"
#include "core/ranges.h"
#include "core/uri.h"
#include "farblk/farblk.h"

struct device;
struct request;

/* What a device is, told by the driver at start. */
struct shape {
    uint32_t sector_size;
    uint64_t size; /* octets, whole sectors, <= INT64_MAX */
    uint64_t features; /* enum farblk_feature */
    uint64_t generation; /* 0: core counts from 1 */
    uint32_t max_transfer; /* octets in one io's data, whole sectors */
    uint32_t preferred_transfer;
    uint32_t memory_align; /* of an io's data, to be moved without a copy; 0:
                                    any will do.  A wish: other memory comes,
                                    too */
    uint64_t max_range; /* octets in one discard or zeroing io;
                                    0: any length */
    bool read_only; /* the storage itself refuses changes */
    uint32_t lacks_fua; /* of the driver's native_fua, what this one has not */
    char transport[16];
    char name[256];
    uint8_t content[16]; /* names what is stored, the same whenever and by
                            whatever process it is opened, another one when
                            other storage has taken its place; zeros: it does
                            not outlive this process, or nobody knows */
};

/* One piece of work. */
struct io {
    enum farblk_op op;
    uint32_t flags; /* FARBLK_FUA, FARBLK_NO_UNMAP; FARBLK_MORE: its start may
                       wait for the next io without it, or for push() */
    uint64_t offset;
    uint64_t length; /* RESIZE: the new size; WATCH: the generation */
    uint64_t whole_offset; /* the range of the request this is a piece of, */
    uint64_t whole_length; /*   for a server to check as one */
    struct iov_view data; /* READ, WRITE: data.length == length */
    struct loan *loan; /* READ: not NULL: lend into it instead of filling
                                 data, if the driver has DRIVER_LENDS; such a
                                 read comes as one io, however long */
    struct block *payload; /* WRITE: not NULL: data lies in this block, which
                                 the driver may keep by reference */
    struct farblk_extent *extents; /* EXTENTS: room for extents_max */
    size_t extents_max;
    int64_t deadline_ms; /* monotonic; 0: none */
    void *ring; /* of the queue that it comes from, by
                   driver_rings; NULL: none */

    uint64_t scratch[8]; /* the driver's, between submit and completion */
    void *link; /* the driver's: a list's next */

    /* core's own */
    struct request *request;
    struct io *next;
    struct range_lock range;
    int stage;
};

/* The io went well.  value: SEEK_*: the octet found; EXTENTS: how many;
 * WATCH: the generation; else 0. */
void io_done(struct io *io, uint64_t value);

/* The io failed.  effect: what may have happened, NONE for operations that do
 * not change the device; of a flush that ran out of time or memory, NONE: it was
 * not begun, so later ones may do what it did not.  The text needs no prefix with
 * the call's name. */
void io_failed(struct io *io, int status, enum farblk_effect effect,
               const char *format, ...) __attribute__((format(printf, 4, 5)));
/* The same with the status and ": strerror" of an errno. */
void io_failed_errno(struct io *io, int errnum, enum farblk_effect effect,
                     const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The io must not be begun any more, nor gone on with: its handle was revoked.  A
 * driver that lets ios wait asks. */
bool io_revoked(const struct io *io);

/* A remote device has another size or generation than core knows; also its
 * answer to GET_INFO and RESIZE.  Any thread. */
void device_reshape(struct device *device, uint64_t size, uint64_t generation);

enum driver_flag {
    DRIVER_SECTORS_ATOMIC = 1 << 0, /* needs no range locks */
    DRIVER_REMOTE = 1 << 1, /* another core stands behind it: that one checks
                               ranges, orders resizes, keeps failed flushes,
                               answers GET_INFO and WATCH */
    DRIVER_LENDS = 1 << 2, /* fills io.loan on READ */
    DRIVER_STACKED = 1 << 3, /* its state holds handles of other devices:
                                close() is called without core's locks */
    DRIVER_USERS = 1 << 4, /* its URIs may name a user: scheme://USER@HOST */
    DRIVER_LOOKS_ONCE = 1 << 5, /* a write's data may change under its hands:
                                   each octet is moved once, and nothing but
                                   what the device holds depends on it */
};

/* How data travels now: farblk_info's transport and way. */
struct driver_way {
    char transport[16], text[128];
};

/* What an open found, before it is known whether another handle shares it. */
struct candidate {
    void *state;
    char key[320]; /* identity within the process, "" for one that is never
                      shared */
};

/*
 * For a driver whose completions come by something that the thread which waits
 * for them can do itself.  A source is where one device's completions come
 * from; it is counted and outlives the device, which may have another one after
 * it has ended.  push, attend, left, wake and mind are as link_push() and so on,
 * in proto/link.h, which has the first of such sources.
 */
struct driver_waiting {
    /* The source of now: `held` itself, of which the caller has a reference, when
     * it is that (NULL never is), or another one with one more reference.  Never
     * NULL. */
    void *(*get)(void *state, void *held);
    bool (*ended)(void *source); /* it will bring nothing any more */
    void (*put)(void *source);
    void (*push)(void *source);
    bool (*attend)(void *source, struct attendance *attendance,
                   int64_t until_ms);
    void (*left)(void *source);
    void (*wake)(void *source, struct attendance *attendance);
    void (*mind)(void *source, bool forever);
};

/*
 * For a driver that has rings: places where the completions of one queue at one
 * device lie until the queue's thread takes them.  All but offered() and give()
 * are called by that thread alone, if it says nothing else; an io's `ring` says
 * where its completion will be looked for, and the driver sees to it that one that
 * does not take the ring is completed by another thread.
 */
struct driver_rings {
    bool (*offered)(void *state); /* cheap: whether take() may give one */
    /* One for a queue, counted; it outlives the device.  NULL: none now. */
    void *(*take)(void *state);
    /* Back; nothing that was submitted with it is pending. */
    void (*give)(void *ring);
    /* False: it has ended, and what comes with it is completed otherwise; there
     * may be another one. */
    bool (*alive)(void *ring);
    /* Complete what is there.  False: nothing was. */
    bool (*reap)(void *ring);
    /* Let the descriptor become readable when something comes.  False: there is
     * something already. */
    bool (*sleep)(void *ring);
    /* Not any more.  `rung`: the descriptor is readable, perhaps. */
    void (*awake)(void *ring, bool rung);
    /* A handle is disconnected, and this thread waits for what it has under way:
     * complete what lies in rings, until there is nothing more.  Any thread. */
    void (*drain)(void *state);
    int (*descriptor)(
        void *ring); /* the same as long as it is not given back */
};

struct driver {
    const char *name;
    const char *schemes; /* separated by spaces */
    const char *summary; /* one line */
    const char *usage; /* "ramdisk:NAME[?size=...]" */
    const struct uri_param *params;
    uint32_t flags;
    uint32_t native_fua; /* 1 << op for each operation that honours FARBLK_FUA;
                            core adds a flush after the others */

    /*
     * Required.  Find or make what the URI names; cheap things only: no lock
     * on the storage, no thread.  On failure leave nothing behind.  May block.
     * `read_only` is the handle's wish, from the URI or the options.
     */
    int (*open)(const struct uri *uri, bool read_only, struct candidate *found,
                struct error *error);
    /*
     * Required.  The candidate is a device of its own: take locks, start
     * threads, fill *shape.  On failure core calls close().  `device` is for
     * device_reshape().  May block.
     */
    int (*start)(void *state, struct device *device, struct shape *shape,
                 struct error *error);
    /*
     * Required when keys are given.  The candidate has the identity of
     * `running`: check that their options agree (CONFLICT if not), upgrade the
     * running one where needed.  Core calls close(candidate) afterwards.
     * *read_only is the handle's wish; set it when the handle can not write.
     */
    int (*join)(void *running, void *candidate, bool *read_only,
                struct error *error);
    /* Optional.  The last handle goes; end what a peer must know, bounded in
     * time.  All io are complete.  May block. */
    void (*disconnect)(void *state);
    /* Optional.  A handle was disconnected, and what it has in flight is waited
     * for: those that take WATCH end the watches of its requests
     * (handle_disconnected()) with DISCONNECTED.  `last`: none is connected any
     * more; who waits for a peer bounds that wait.  Any thread; must not
     * block. */
    void (*shut)(void *state, bool last);
    /* Required.  Free.  After open or start failed as well; never NULL. */
    void (*close)(void *state);
    /*
     * Required.  Begin the io; never block for storage or a peer.  No lock of
     * core is held.  Operations that shape.features does not announce never
     * come.  READ, WRITE and FLUSH always may.
     */
    void (*submit)(void *state, struct io *io);
    /*
     * Optional.  A read from `offset` on, which may be past the end, seems to
     * come in a moment: have its memory fetched meanwhile.  At any time; never
     * waits for anything.
     */
    void (*foresee)(void *state, uint64_t offset);
    /*
     * Optional.  The io's time is over: complete it soon with TIMED_OUT and
     * the truth about its effect, as soon as its buffers can no longer be
     * touched.  It may be completing at this very moment; core guarantees that
     * the io stays valid during the call, but it may be one that the driver has
     * completed, or will get in a moment: so submit looks at io->deadline_ms
     * when it takes an io in.  Must not block.
     */
    void (*cancel)(void *state, struct io *io);
    /* Optional.  Without it completions come by themselves, and no io has
     * FARBLK_MORE. */
    const struct driver_waiting *waiting;
    /* Optional. */
    const struct driver_rings *rings;
    /* Optional, both.  Memory that needs no copy on its way, whole pages; NULL:
     * there is none, ordinary memory does.  free(): false when it is not this
     * driver's. */
    void *(*buffer_alloc)(void *state, size_t size);
    bool (*buffer_free)(void *state, void *buffer, size_t size);
    /* Optional: how data travels now, where the shape's transport is not all that
     * there is to tell.  Any thread. */
    void (*way)(void *state, struct driver_way *way);
    /* Optional.  farblk_list(). */
    int (*list)(const struct uri *uri,
                int (*entry)(void *arg, const struct farblk_list_entry *entry),
                void *arg, struct error *error);
};

/* All drivers, ended by NULL; made by the build from its list. */
extern const struct driver *const drivers[];

#endif
