/* SPDX-License-Identifier: ISC */
/*
 * farblk: block devices that live somewhere else, behind one C API.
 *
 * This header is the manual.  A device is named by a URI and used through an
 * open handle (struct farblk); what answers may be memory, a file, or a
 * farblkd in another process or on another machine.  The same call gives the
 * same answer and the same errors for each of them.
 *
 * Units.  A `sector` is the unit of addressing; its size in octets is
 * farblk_info.sector_size (a power of two, 512 ... 65536).  Arguments called
 * sector, start, count and size_sectors are in sectors; everything called
 * size, length or transfer is in octets; timeouts are in milliseconds.
 *
 * Results.  Calls return 0 (or a count, where it says so) or a negative
 * enum farblk_status.  After a failed call, farblk_last_text() tells the call,
 * the values and the limit, and farblk_last_effect() whether the operation may
 * have changed the device.  Both are of this thread and valid until this
 * thread's next call into the library.
 *
 * Threads.  Handles may be used by any number of threads at once.  A queue is
 * used by one thread at a time.  Blocking calls may block for as long as the
 * device takes; give a timeout to bound them.
 *
 * fork.  A child process must not use handles or queues that it inherited:
 * each call with one fails with FARBLK_INVALID.  It may open its own; remote
 * ones and servers, which use nng, only if the parent had none (INVALID).
 *
 * Growth.  Structures that cross this interface grow at their end only, and
 * travel with their size: programs built against an older header go on.
 */
/* Read as a manual, and set by hand: */
/* clang-format off */
#ifndef FARBLK_FARBLK_H
#define FARBLK_FARBLK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FARBLK_VERSION_MAJOR 0
#define FARBLK_VERSION_MINOR 1
#define FARBLK_VERSION_PATCH 0

#if defined(__GNUC__)
#define FARBLK_API __attribute__((visibility("default")))
#else
#define FARBLK_API
#endif

/** Smallest and largest sector, in octets. */
#define FARBLK_SECTOR_MIN 512u
#define FARBLK_SECTOR_MAX 65536u
/** What a ramdisk gets when its URI does not say: 16 MiB. */
#define FARBLK_RAMDISK_SECTORS 32768u
#define FARBLK_RAMDISK_SECTOR_SIZE 512u
/** The TCP port of farblk:// URIs that name none. */
#define FARBLK_DEFAULT_PORT 5660
/** Largest depth of a queue. */
#define FARBLK_QUEUE_DEPTH_MAX 4096u
/** Longest message text, with its final zero. */
#define FARBLK_TEXT_MAX 512

/**
 * What a call may return.  The numbers never change, and travel on the wire.
 * A number that this library does not know becomes FARBLK_UNKNOWN with the
 * text it came with.
 */
enum farblk_status {
    FARBLK_OK = 0,
    FARBLK_UNKNOWN = -1,         /**< none of the below; read the text */
    FARBLK_UNIMPLEMENTED = -2,   /**< this device can not do that */
    FARBLK_IS_READ_ONLY = -3,    /**< a change was asked of a read-only handle */
    FARBLK_DISCONNECTED = -4,    /**< final for this handle */
    FARBLK_INVALID = -5,         /**< arguments; nothing has happened */
    FARBLK_NOT_FOUND = -6,       /**< no such file, export, host or name */
    FARBLK_DENIED = -7,          /**< permission */
    FARBLK_NO_SPACE = -8,        /**< disk full, or a memory limit reached */
    FARBLK_NO_MEMORY = -9,       /**< this process has no memory for it */
    FARBLK_IO = -10,             /**< the storage failed */
    FARBLK_TIMED_OUT = -11,      /**< not done within the timeout */
    FARBLK_BUSY = -12,           /**< queue full, or locked by another process */
    FARBLK_CONFLICT = -13,       /**< exists, but otherwise than asked for */
    FARBLK_CORRUPT = -14,        /**< data or metadata is damaged */
    FARBLK_PROTOCOL = -15,       /**< the peer broke the protocol */
    FARBLK_CONNECTION_LOST = -16, /**< may recover */
    FARBLK_EXISTS = -17,
    FARBLK_NOT_A_VALUE = -18,
    FARBLK_NOT_A_DIRECTORY = -19,
    FARBLK_APPEND_ONLY = -20,
};

/**
 * What a failed operation that changes the device may have done to it.
 * Operations that do not change it always tell NONE.
 */
enum farblk_effect {
    FARBLK_EFFECT_NONE = 0,    /**< nothing has changed */
    FARBLK_EFFECT_DONE = 1,    /**< all of it has happened */
    FARBLK_EFFECT_UNKNOWN = 2, /**< it may have happened, wholly or in part */
};

/** "INVALID" for FARBLK_INVALID and so on; "UNKNOWN" for unknown numbers. */
FARBLK_API const char *farblk_status_name(int status);

/** The library's version, "0.1.0"; static storage. */
FARBLK_API const char *farblk_version(void);

/**
 * The text of this thread's last failed call; "" when the last call did not
 * fail.  Valid until this thread's next call.  Never NULL.
 */
FARBLK_API const char *farblk_last_text(void);

/** The effect of this thread's last failed call. */
FARBLK_API enum farblk_effect farblk_last_effect(void);

/* ------------------------------------------------------------------------
 * Devices
 */

/** An open handle of a device.  Opaque, thread-safe. */
struct farblk;

/** How to open; set .size = sizeof(struct farblk_options), the rest zero. */
struct farblk_options {
    size_t size;
    bool read_only;     /**< as ro=1 in the URI */
    bool sync;          /**< as sync=1: each change is stable at completion */
    int32_t timeout_ms; /**< default timeout of requests; 0: the URI's, or none */
};

/**
 * Open the device that `uri` names.  `options` may be NULL.
 *
 *   ramdisk:NAME[?size=1G&sector=512]      memory of this process, by name
 *   file:PATH[?create=1&size=1G&sector=512&direct=1&lock=1&engine=auto]
 *   farblk+unix:///NAME?socket=PATH        a farblkd on this host
 *   farblk://HOST[:5660]/NAME              a farblkd over TCP
 *   farblk+inproc:///NAME?address=ADDRESS  a server inside this process
 *   mirror:?primary=URI&secondary=URI[&degrade=1&rate=10M]
 *                                          two devices as one, kept equal
 *   tar-member:?device=URI&member=KEY[&sector=512]
 *                                          a file in a tar archive, read-only
 *
 * ro=1, sync=1 and timeout=MILLISECONDS work on each.  In a path `,` `?` `#`
 * and `%` are percent-encoded.  An unknown scheme, parameter or value is an
 * error whose text lists the known ones.
 *
 * Handles of the same identity (a ramdisk's name, a file's inode) share one
 * device: its size, generation and ordering are common to them.  May block.
 *
 * @param dev  set to the handle, or to NULL on failure; end it with
 *             farblk_close().
 * Errors: INVALID (URI), NOT_FOUND, DENIED, BUSY (locked), CONFLICT (exists
 * with another shape), IO, NO_MEMORY, NO_SPACE, TIMED_OUT, CONNECTION_LOST,
 * PROTOCOL.
 */
FARBLK_API int farblk_open(const char *uri, const struct farblk_options *options,
                           struct farblk **dev);

/**
 * Disconnect, then free the handle.  Blocks as farblk_disconnect() does.
 * NULL is fine.  A pointer that is not an open handle (closed before) gives
 * INVALID.  Requests of the handle in flight on queues complete first; their
 * completions can still be collected.
 */
FARBLK_API int farblk_close(struct farblk *dev);

/**
 * End this handle's use of the device: drains what is in flight and returns
 * when no operation of this handle can land any more.  Afterwards every
 * operation gives DISCONNECTED and farblk_get_info() the last known answer.
 * Other handles of the device are untouched.  Never fails on an open handle;
 * again is fine.  A remote device may take up to the session's lease.
 */
FARBLK_API int farblk_disconnect(struct farblk *dev);

/** Bits of farblk_info.features. */
enum farblk_feature {
    FARBLK_CAN_RESIZE = 1 << 0,
    FARBLK_CAN_DISCARD = 1 << 1,
    FARBLK_DISCARD_ZEROES = 1 << 2, /**< discarded sectors read as zero */
    FARBLK_CAN_WRITE_ZEROES = 1 << 3,
    FARBLK_CAN_SEEK = 1 << 4,       /**< seeks and extents tell of holes */
    FARBLK_CAN_FUA = 1 << 5,
    FARBLK_CAN_WATCH = 1 << 6,
    FARBLK_SECTOR_ATOMIC = 1 << 7,  /**< a sector never tears between clients */
};

/** What a device is now.  Filled up to the size the caller gave. */
struct farblk_info {
    bool read_write;            /**< false: changes give IS_READ_ONLY */
    uint32_t sector_size;       /**< octets; never changes while open */
    uint64_t size_sectors;
    uint64_t generation;        /**< another number after each change of shape */
    uint64_t features;          /**< enum farblk_feature, or-ed */
    uint32_t max_transfer;      /**< octets that travel as one request; larger
                                     ones are split and pipelined */
    uint32_t preferred_transfer; /**< octets; good for sequential work */
    char driver[16];            /**< "ramdisk", "file", "farblk" ... */
    char transport[16];         /**< "local", "shm", "ipc", "tcp" ...; may
                                     change, see way */
    char name[256];             /**< ramdisk's or export's name, file's path;
                                     cut if longer */
    uint64_t identity;          /**< the same for all handles of one device of
                                     this process, never that of another */
    char way[128];              /**< of a farblkd: how data travels to it and,
                                     where that is not by shared memory, why
                                     not; for people.  As it is now: when
                                     the connection breaks it is the socket until
                                     memory is shared anew.  Else "" */
};

/**
 * Fill `info` (of `size` octets, sizeof *info) with the present state.  After
 * a disconnect: the last known answer, and 0.  May block on a remote device.
 */
FARBLK_API int farblk_get_info(struct farblk *dev, struct farblk_info *info,
                               size_t size);

/** Flags of changing operations and of submissions. */
enum farblk_flag {
    FARBLK_FUA = 1 << 0,      /**< stable on storage when it completes */
    FARBLK_NO_UNMAP = 1 << 1, /**< write_zeroes: keep the sectors mapped */
    FARBLK_MORE = 1 << 2,     /**< submission: others follow at once; the start
                                   may be put off until the next submission
                                   without it, or the next collect */
};

/**
 * Read whole sectors from `start` into the buffers of `iov`, in order.  Any
 * number of buffers, each a whole number of sectors; zero-length ones are
 * skipped.  Blocks.  On failure the buffers' contents are undefined.
 * Errors: DISCONNECTED; INVALID (a buffer is not whole sectors, or start +
 * length is past the end: nothing is transferred); IO, CORRUPT, TIMED_OUT,
 * CONNECTION_LOST, PROTOCOL, NO_MEMORY.
 */
FARBLK_API int farblk_read(struct farblk *dev, uint64_t start,
                           const struct iovec *iov, size_t iovcnt);

/**
 * Write whole sectors; as farblk_read().  On return the data is visible to
 * every later read by anyone; it is stable after farblk_flush(), or with
 * FARBLK_FUA in `flags`, or on a handle opened with sync=1.  On failure some
 * sectors may have changed: farblk_last_effect().
 * Errors: those of read, and IS_READ_ONLY, NO_SPACE.
 */
FARBLK_API int farblk_write(struct farblk *dev, uint64_t start,
                            const struct iovec *iov, size_t iovcnt,
                            uint32_t flags);

/**
 * Make stable every write, zeroing, discard and resize that completed on any
 * handle of this device before this call.  After a flush has failed, flushes
 * of the device go on failing until all its handles are closed and it is
 * opened anew: the kernel may have dropped what was not written.
 */
FARBLK_API int farblk_flush(struct farblk *dev);

/**
 * Give `count` sectors back.  They read as zero afterwards where
 * FARBLK_DISCARD_ZEROES is set; otherwise their content is undefined until
 * written.  `flags`: FARBLK_FUA.
 */
FARBLK_API int farblk_discard(struct farblk *dev, uint64_t start, uint64_t count,
                              uint32_t flags);

/**
 * Make `count` sectors read as zero, unmapped where possible unless
 * FARBLK_NO_UNMAP.  `flags`: FARBLK_FUA, FARBLK_NO_UNMAP.
 */
FARBLK_API int farblk_write_zeroes(struct farblk *dev, uint64_t start,
                                   uint64_t count, uint32_t flags);

/**
 * Change the device's size.  Ordered against every other request: each runs
 * wholly before or wholly after it.  Shrinking drops the tail; growth reads
 * as zero and is unmapped.  The new size is visible to every handle when this
 * returns.  Errors: DISCONNECTED, IS_READ_ONLY, INVALID (more than INT64_MAX
 * octets), UNIMPLEMENTED, NO_SPACE, IO.
 */
FARBLK_API int farblk_resize(struct farblk *dev, uint64_t size_sectors);

/**
 * Set *sector to the smallest sector >= start that may hold data
 * (seek_mapped) or surely reads as zero and is unmapped (seek_unmapped); to
 * the device's size when there is none.  start == size gives size; start >
 * size is INVALID.  Conservative answers are allowed: seek_mapped may say
 * start, and never skips data.
 */
FARBLK_API int farblk_seek_mapped(struct farblk *dev, uint64_t start,
                                  uint64_t *sector);
FARBLK_API int farblk_seek_unmapped(struct farblk *dev, uint64_t start,
                                    uint64_t *sector);

/** A run of sectors of one kind. */
struct farblk_extent {
    uint64_t start;  /**< sector */
    uint64_t count;  /**< sectors; never 0 */
    uint32_t mapped; /**< 1: may hold data; 0: unmapped, reads as zero */
    uint32_t reserved;
};

/**
 * Tell the extents of [start, start + count), in order and without gaps, as
 * many as fit into `max` (at least one, unless count is 0).  Neighbours may
 * be of the same kind.  To go on, ask again from the end of the last.
 * Returns the number of extents.  Errors: as seek; count past the end is
 * INVALID; max == 0 is INVALID.
 */
FARBLK_API int farblk_extents(struct farblk *dev, uint64_t start, uint64_t count,
                              struct farblk_extent *extents, size_t max);

/**
 * Wait until the device's generation differs from `generation` (of an earlier
 * farblk_get_info()), and set *now to it.  timeout_ms: 0 asks and does not
 * wait, negative waits for ever.  Errors: TIMED_OUT, DISCONNECTED.
 */
FARBLK_API int farblk_watch(struct farblk *dev, uint64_t generation,
                            int32_t timeout_ms, uint64_t *now);

/**
 * Page-aligned memory that `dev` can move without copying where it is able
 * to; any other memory works as well.  Valid in requests to any device.  Free
 * with farblk_buffer_free() and the same arguments, before closing `dev`.
 * NULL when there is none; size 0 is INVALID.
 */
FARBLK_API void *farblk_buffer_alloc(struct farblk *dev, size_t size);
FARBLK_API void farblk_buffer_free(struct farblk *dev, void *buffer, size_t size);

/* ------------------------------------------------------------------------
 * Queues: many requests in flight from one thread
 */

/**
 * A queue of a fixed depth, used by one thread at a time and bound to no
 * device: each request names its own, so that one wait covers a copy's
 * source and its destination.
 */
struct farblk_queue;

/** What a request does; numbers never change. */
enum farblk_op {
    FARBLK_OP_READ = 1,         /**< sector, iov */
    FARBLK_OP_WRITE = 2,        /**< sector, iov, flags FUA */
    FARBLK_OP_FLUSH = 3,
    FARBLK_OP_DISCARD = 4,      /**< sector, count, flags FUA */
    FARBLK_OP_WRITE_ZEROES = 5, /**< sector, count, flags FUA, NO_UNMAP */
    FARBLK_OP_RESIZE = 6,       /**< count: the new size in sectors */
    FARBLK_OP_SEEK_MAPPED = 7,  /**< sector; value: the sector found */
    FARBLK_OP_SEEK_UNMAPPED = 8,
    FARBLK_OP_EXTENTS = 9,      /**< sector, count, iov: one buffer, an array of
                                     struct farblk_extent; value: how many */
    FARBLK_OP_GET_INFO = 10,    /**< iov: one buffer, a struct farblk_info;
                                     value: 1 when the device is gone and this
                                     is what was known last, else 0 */
    FARBLK_OP_WATCH = 11,       /**< count: the generation known;
                                     value: the generation now */
};

/** One request.  Zero it, set .size = sizeof(struct farblk_request). */
struct farblk_request {
    size_t size;
    uint32_t op;             /**< enum farblk_op */
    uint32_t flags;          /**< enum farblk_flag; unknown ones are INVALID */
    struct farblk *dev;
    uint64_t sector;
    uint64_t count;
    const struct iovec *iov; /**< stays valid, with its buffers, until the
                                  completion; never used after it */
    size_t iovcnt;
    int32_t timeout_ms;      /**< 0: the handle's; negative: none.  A change
                                  of a remote device that times out may be
                                  completed later, by as long again, at most
                                  1 s, and then says what is known of it */
    uint32_t reserved;       /**< 0 */
    void *user;              /**< comes back in the completion */
};

/** How one request ended. */
struct farblk_completion {
    void *user;
    int32_t status;   /**< 0 or a negative enum farblk_status */
    uint32_t effect;  /**< enum farblk_effect, when status is not 0 */
    uint64_t value;   /**< see enum farblk_op */
    const char *text; /**< "" or the message; valid until the next collect or
                           the end of the queue */
};

/**
 * Make a queue that holds up to `depth` (1 ... FARBLK_QUEUE_DEPTH_MAX)
 * requests that are submitted and not yet collected.
 */
FARBLK_API int farblk_queue_create(uint32_t depth, struct farblk_queue **queue);

/** Wait for what is in flight, drop what was not collected, free. NULL is fine. */
FARBLK_API void farblk_queue_destroy(struct farblk_queue *queue);

/**
 * Submit one request; never blocks for the device.  Returns 0 when it was
 * taken: how it went, bad arguments included, comes as its completion.
 * Errors, after which nothing has happened: BUSY (the queue is full), INVALID
 * (the structure itself is malformed, no device, or a forked child's).
 */
FARBLK_API int farblk_submit(struct farblk_queue *queue,
                             const struct farblk_request *request);

/**
 * Collect up to `max` completions (each of `size` octets, sizeof
 * *completions) in the order in which they ended.  timeout_ms: 0 does not
 * wait, negative waits until there is at least one.  Returns how many; 0 when
 * the time passed, or at once when nothing is in flight.  A completion,
 * errors and time-outs included, comes only when nothing can touch the
 * request's buffers any more.
 */
FARBLK_API int farblk_collect(struct farblk_queue *queue,
                              struct farblk_completion *completions, size_t size,
                              size_t max, int32_t timeout_ms);

/**
 * A descriptor for poll(2) and epoll(7): readable while completions wait to
 * be collected.  Belongs to the queue; do not read, write or close it.
 */
FARBLK_API int farblk_queue_fd(struct farblk_queue *queue);

/** Requests submitted and not yet collected. */
FARBLK_API uint32_t farblk_queue_pending(const struct farblk_queue *queue);

/* ------------------------------------------------------------------------
 * Named ramdisks of this process
 */

/**
 * Make an empty ramdisk of that name and shape.  One that has the name is
 * replaced: its open handles keep it, with its content, until they close.
 * Connect to it with farblk_open("ramdisk:NAME").  Names match
 * [A-Za-z0-9._-]{1,255}.
 */
FARBLK_API int farblk_ramdisk_create(const char *name, uint64_t size_sectors,
                                     uint32_t sector_size);

/**
 * Drop the name.  Open handles keep the content; without any it is freed.  A
 * name that does not exist is fine.
 */
FARBLK_API int farblk_ramdisk_destroy(const char *name);

/* ------------------------------------------------------------------------
 * Mirrors: two devices kept equal
 */

/** Where a mirror is. */
enum farblk_mirror_state {
    FARBLK_MIRROR_COPYING = 1,  /**< secondary is being made equal to primary */
    FARBLK_MIRROR_COMPLETE = 2, /**< every sector whose write has completed is
                                     the same on both */
    FARBLK_MIRROR_DEGRADED = 3, /**< a write failed on one of them; the copying
                                     goes on until they are equal again */
    FARBLK_MIRROR_ALONE = 4,    /**< degrade=1: secondary has failed and was given
                                     up, primary serves alone; final */
    FARBLK_MIRROR_FAILED = 5,   /**< the copying has failed, and secondary will
                                     not be equal; the device works on, and
                                     changes go to both; final */
};

/** How a mirror is doing.  Travels with its size. */
struct farblk_mirror_status {
    size_t size;             /**< of this structure, as the library knows it */
    uint32_t state;          /**< enum farblk_mirror_state */
    uint32_t percent;        /**< of the device that was copied; 100: COMPLETE */
    uint32_t sector_size;    /**< octets: the larger one of both */
    int32_t error;           /**< enum farblk_status: why it is DEGRADED, ALONE or
                                  FAILED; else 0 */
    uint64_t size_sectors;
    uint64_t copied_sectors; /**< the same on both for all that is known, unmapped
                                  ones included */
    char text[FARBLK_TEXT_MAX]; /**< the same as error in words, or "" */
};

/** What may be said to a mirror.  Set .size = sizeof, the rest zero. */
struct farblk_mirror_options {
    size_t size;
    bool degrade;  /**< when secondary fails: go on with primary alone (ALONE)
                        instead of failing the caller's request */
    uint64_t rate; /**< octets that are copied in a second; 0: no limit */
};

/**
 * A device whose reads are primary's and whose changes go to both, while a
 * thread of the library makes secondary, whatever was on it, a copy of primary.
 * Overlapping changes reach both in the same order, and the copying never puts
 * old data over new.
 *
 * Its sectors are the larger of both.  A flush and FUA reach both.  A discard
 * reads as zero on both, or there is none.  A resize happens on both, or is
 * refused and happens on neither.
 *
 * Both handles stay the caller's, who may close them at any time: the mirror
 * takes handles of its own.  Both devices may be read by others.  What others
 * write to them past the mirror, it does not see: it neither reaches secondary
 * nor unmakes COMPLETE.  When others resize one, the mirror fails (FAILED).
 *
 * A change that fails on one device fails for the caller, and its range is
 * copied again (DEGRADED).  With options.degrade a failure of secondary does not
 * reach the caller (ALONE).  When reading primary for the copy fails, or writing
 * the copy, or flushing secondary, the copying ends (FAILED) and the device goes
 * on.
 *
 * `progress`, if not NULL, is called on the mirror's own thread, without locks,
 * with a status that is valid during the call: when the percentage has risen, 1
 * to 99 (numbers may be skipped, none comes twice or falls); then once with
 * COMPLETE, after secondary was flushed.  ALONE or FAILED comes at most once, and
 * nothing after it; it may come after COMPLETE.  It may use this device, block
 * (copying waits meanwhile) and end the mirror by farblk_close().  After
 * farblk_disconnect() or farblk_close() of the last handle has returned it is not
 * called any more; both wait for a call that is under way, if they do not come
 * from it, and end a copying in the middle.
 *
 * A device is part of one mirror at a time.  May block.
 *
 * Errors, the first in this order with the values in the text: INVALID (sector
 * sizes of which neither is a multiple of the other), INVALID (lengths in octets
 * that differ), IS_READ_ONLY (secondary); then INVALID (both are the same
 * device), BUSY (one is part of a mirror), NO_MEMORY, DISCONNECTED.
 */
FARBLK_API int
farblk_mirror_open(struct farblk *primary, struct farblk *secondary,
                   void (*progress)(void *arg,
                                    const struct farblk_mirror_status *status),
                   void *arg, struct farblk **dev);

/** Change how a mirror does its work, from now on.  `dev` is a handle of it in
 * this process.  Errors: INVALID. */
FARBLK_API int farblk_mirror_set(struct farblk *dev,
                                 const struct farblk_mirror_options *options);

/** Fill `status` (of `size` octets, sizeof *status).  `dev` is a handle of a
 * mirror in this process.  Errors: INVALID. */
FARBLK_API int farblk_mirror_status(struct farblk *dev,
                                    struct farblk_mirror_status *status, size_t size);

/* ------------------------------------------------------------------------
 * Looking around
 */

/** One device behind a server. */
struct farblk_list_entry {
    size_t size;             /**< of this structure, as the library knows it */
    const char *name;        /**< valid during the call */
    bool read_write;
    uint32_t sector_size;
    uint64_t size_sectors;
};

/**
 * Call `entry` for each device of the server that `uri` names
 * ("farblk+unix:///?socket=PATH", "farblk://HOST", "nbd://HOST"), by name.  A non-zero
 * answer of `entry` ends the listing and is returned.  Blocks.
 */
FARBLK_API int farblk_list(const char *uri,
                           int (*entry)(void *arg,
                                        const struct farblk_list_entry *entry),
                           void *arg);

/** What kinds of device this library has. */
struct farblk_driver_info {
    size_t size;            /**< of this structure, as the library knows it */
    const char *name;
    const char *schemes;    /**< "farblk+unix farblk", separated by spaces */
    const char *summary;    /**< one line */
    const char *usage;      /**< the URI's form */
    const char *parameters; /**< one "name=VALUE  help" line for each */
};

/** The index-th driver, static; NULL past the last. */
FARBLK_API const struct farblk_driver_info *farblk_driver(size_t index);

/** How much a log line matters. */
enum farblk_log_level {
    FARBLK_LOG_ERROR = 0,
    FARBLK_LOG_WARNING = 1,
    FARBLK_LOG_INFO = 2,
    FARBLK_LOG_DEBUG = 3,
};

/**
 * Send the library's log lines up to `level` to `log` (any thread may call
 * it, also at once with others; it must not call farblk).  NULL: nowhere,
 * which is how it begins.  Process-wide.
 */
FARBLK_API void farblk_set_log(enum farblk_log_level level,
                               void (*log)(void *arg, enum farblk_log_level level,
                                           const char *line),
                               void *arg);

#ifdef __cplusplus
}
#endif

#endif
