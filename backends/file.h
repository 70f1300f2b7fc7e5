/* SPDX-License-Identifier: ISC */
/*
 * The file driver's insides, shared by its parts:
 *
 *   file.c         the driver: start, join, close, where an io goes
 *   file_open.c    what a URI names: finding, making, checking, measuring
 *   file_rw.c      reads, writes and flushes by system calls
 *   file_ranges.c  holes, discard, zeroing, resize by system calls
 *   file_pool.c    the threads on which those calls may block
 *   file_uring.c   reads, writes and flushes by io_uring
 *
 * Core has locked an io's range and keeps a resize alone, so the parts need no
 * order between ios.  An io belongs to exactly one part at a time, which keeps
 * its progress in the io's scratch (struct file_op).
 */
#ifndef FARBLK_BACKENDS_FILE_H
#define FARBLK_BACKENDS_FILE_H

#include "core/driver.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

/* Octets in one piece of a request; whole sectors of any size. */
#define FILE_TRANSFER (4u << 20)
#define FILE_PREFERRED (256u << 10)
#define FILE_RANGE (UINT64_C(1) << 30)
/* Buffers in one system call; IOV_MAX is 1024. */
#define FILE_IOV_BATCH 256u
/* Private aligned memory of one thread, for direct I/O from any memory. */
#define FILE_BOUNCE (1u << 20)
#define FILE_THREADS 8u
/* Calls in a row that may be interrupted without progress. */
#define FILE_TRIES 100u

/* In the order of the URI's choices. */
enum file_engine { FILE_AUTO, FILE_URING, FILE_POOL };

struct file_uring;
struct file;

/* What the URI asks for. */
struct file_wish {
    bool create, has_size, has_sector, has_direct, lock, read_only;
    bool direct;
    uint64_t size;
    uint32_t sector;
    enum file_engine engine;
};

struct file_lane { /* ios, linked by io.link, in the order of their arrival */
    struct io *head, *tail;
};

struct file_pool {
    struct file *file;
    pthread_mutex_t mutex; /* all below */
    pthread_cond_t work;
    struct file_lane writes; /* those of which one at a time is run */
    struct file_lane others;
    bool writing; /* one of the writes is run */
    bool turn; /* the writes' */
    unsigned threads, idle, queued; /* queued: of the others */
    bool stopping;
    pthread_t thread[FILE_THREADS];
};

/* The flushes under way; see file_sync.c.  Lists are linked by io.link. */
struct file_sync {
    pthread_mutex_t mutex;
    struct io *leader; /* whose sync an engine has, or NULL */
    struct io *sharing; /* its outcome is theirs as well */
    struct io *waiting; /* for the next sync */
    int errnum; /* of the sync that failed, for good */
};

struct file {
    char *path;
    char label[160]; /* the path for messages, its begin cut if long */
    struct file_wish wish;
    int fd; /* its number never changes while the device runs */
    bool writable; /* the descriptor can write; changes in join alone */
    bool refuses; /* it could not be opened for writing */
    bool locked; /* we hold flock; changes in start and join alone */
    bool direct, block;
    dev_t dev, rdev;
    ino_t ino;
    uint32_t sector;
    uint32_t memory_align, offset_align; /* of direct I/O; else 1 */
    atomic_uint_fast64_t size;
    /* A flush must be a full fsync until stable has caught up with resizes. */
    atomic_uint resizes, stable;
    atomic_bool no_wait; /* RWF_NOWAIT reads work here */
    atomic_bool no_punch, no_zero_range; /* known not to work here */
    enum file_engine engine; /* the one that runs; FILE_AUTO: both */
    struct file_sync sync;
    struct file_pool pool;
    struct file_uring *uring;
};

/* The progress of one io, in its scratch. */
struct file_op {
    struct iov_view rest; /* READ, WRITE: what is still to move */
    uint64_t offset; /* and where; FLUSH: the resizes that it covers */
    struct io *prev, *next; /* the ring's, while in flight */
    uint32_t tries;
    bool cancelled; /* the kernel was asked to drop it */
} __attribute__((may_alias));

_Static_assert(sizeof(struct file_op) <= sizeof((struct io *)0)->scratch,
               "the progress of an io fits into its scratch");

static inline struct file_op *
file_op(struct io *io)
{
    return (struct file_op *)(void *)io->scratch;
}

/* ---- file_open.c.  All may block. */

/* Open what the path names, as the wish says; fills file's fd, writable,
 * block, identity, sector, alignment and size.  On failure fd is -1. */
int file_open(struct file *file, struct error *error);
/* What names its content for good (struct shape), or zeros. */
void file_content(const struct file *file, uint8_t content[16]);
/* Look at the size again and check it. */
int file_measure(struct file *file, struct error *error);

/* ---- file_rw.c */

/* Set up the io's progress. */
void file_op_begin(struct io *io);
/* Whether the io must not be begun, nor gone on with: its time is over, or its
 * handle was revoked. */
bool file_expired(const struct io *io);
/* Complete it as timed out; a flush gives its sync up first. */
void file_fail_expired(struct file *file, struct io *io);
/* A read or write call for the io ended with `result`, octets or a negative
 * errno.  True: the io is complete (it was completed here).  False: go on with
 * what is left. */
bool file_rw_moved(struct file *file, struct io *io, ssize_t result);
/* The status of an errno that came from moving data: never one that blames the
 * caller's arguments, which core has checked. */
int file_io_status(int errnum);
/* What is left of the io as up to `max` buffers, *length octets.  False when
 * direct I/O can not take their memory as it is. */
bool file_rw_export(const struct file *file, struct io *io, struct iovec *iov,
                    size_t max, size_t *count, uint64_t *length);
/* Read what is there already, without waiting.  True: the io is complete. */
bool file_read_now(struct file *file, struct io *io);
/* Read or write to the end.  Blocks.  *bounce: the thread's aligned memory,
 * NULL until needed. */
void file_rw_run(struct file *file, struct io *io, void **bounce);
/* Write zeroes to [offset, offset + length) and count in *done what was
 * written, also on failure.  Returns 0 or an errno.  Blocks. */
int file_rw_zero(struct file *file, const struct io *io, uint64_t offset,
                 uint64_t length, void **bounce, uint64_t *done);
/* Whether a flush now must be a full fsync; remembers what it covers. */
bool file_flush_begin(struct file *file, struct io *io);
/* The flush ended: 0 or an errno.  Completes the io. */
void file_flush_end(struct file *file, struct io *io, int errnum);
void file_flush_run(struct file *file, struct io *io);

/* ---- file_sync.c */

void file_sync_init(struct file_sync *sync);
void file_sync_fini(struct file_sync *sync);
/* A flush comes.  True: an engine must sync for it now, and file_sync_leave() or
 * file_sync_give_up() follows.  False: it waits, or has failed. */
bool file_sync_enter(struct file *file, struct io *io);
/* The sync for `io` has ended: 0 or an errno.  Completes it, and whoever it was
 * for; begins the next. */
void file_sync_leave(struct file *file, struct io *io, int errnum);
/* No sync was begun for `io`, which is about to fail. */
void file_sync_give_up(struct file *file, struct io *io);
/* Take out a flush that waits; false when it does not. */
bool file_sync_cancel(struct file *file, struct io *io);

/* ---- file.c */

/* Give the io to the engine that suits it. */
void file_run(struct file *file, struct io *io);

/* ---- file_ranges.c.  All block and complete the io. */

/* Which of discard, zeroing and seeking work here, as features. */
uint64_t file_ranges_features(struct file *file);
void file_ranges_discard(struct file *file, struct io *io, void **bounce);
void file_ranges_zero(struct file *file, struct io *io, void **bounce);
void file_ranges_resize(struct file *file, struct io *io);
void file_ranges_seek(struct file *file, struct io *io);
void file_ranges_extents(struct file *file, struct io *io);

/* ---- file_pool.c */

void file_pool_init(struct file_pool *pool, struct file *file);
/* Run the io on one of the threads.  Never blocks.  Completes it here, with
 * NO_MEMORY, when there is no thread and none can be started. */
void file_pool_submit(struct file_pool *pool, struct io *io);
/* Take back an io that no thread has begun; false when there is none such. */
bool file_pool_cancel(struct file_pool *pool, struct io *io);
/* Start a thread that takes no signals: they are the program's. */
int file_pool_thread(pthread_t *thread, void *(*run)(void *arg), void *arg);
/* End the threads.  Nothing is queued.  Blocks. */
void file_pool_fini(struct file_pool *pool);

/* ---- file_uring.c */

/* NULL, and *error set, when there is no io_uring here. */
struct file_uring *file_uring_create(struct file *file, struct error *error);
/* READ, WRITE, FLUSH.  Never blocks. */
void file_uring_submit(struct file_uring *uring, struct io *io);
/* Some io's time is over; the ring's thread looks for it. */
void file_uring_cancel(struct file_uring *uring);
/* Nothing is in flight.  Blocks.  NULL is fine. */
void file_uring_destroy(struct file_uring *uring);

#endif
