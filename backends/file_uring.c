/* SPDX-License-Identifier: ISC */
/*
 * Reads, writes and flushes of the file driver by io_uring.
 *
 * One ring and one thread for each device.  The thread alone touches the ring:
 * the kernel ties a request to the thread that submitted it, drops it when
 * that thread ends and interrupts its system calls, which must not happen to
 * threads of the program.  Others leave ios in a list and wake the thread by an
 * eventfd when it sleeps, which the ring itself reads; whatever has come by then
 * goes to the kernel in one call.  Where the kernel can (6.1), it does its part
 * of a completion in that thread's calls too, instead of interrupting it.
 *
 * Of what the kernel has done by the time the thread looks, first the ring is
 * cleared and filled again, so that the storage has work; then the ios are
 * completed, as one burst.
 *
 * What the ring can not do goes to the pool: unaligned memory for direct I/O,
 * and requests that the kernel sends back.
 */
#include "backends/file.h"

#include "core/burst.h"
#include "core/log.h"

#include <stdlib.h>
#include <string.h>

#if FARBLK_HAVE_URING

#include <errno.h>
#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ENTRIES 128u
#define IN_FLIGHT 1024u
/* Buffer lists of what was not yet given to the kernel. */
#define ARENA 1024u
/* Requests that the kernel is given at once, at most. */
#define PUSH_MOST 8u
/* Completions taken off the ring at once. */
#define DONE 256u

#if defined(IORING_SETUP_DEFER_TASKRUN)
#define QUIETLY (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN)
#else
#define QUIETLY 0u
#endif

struct done {
    struct io *io;
    int result;
};

struct file_uring {
    struct file *file;
    pthread_t thread;
    int wake_fd;

    pthread_mutex_t mutex; /* the next five */
    struct io *head, *tail; /* arrived; linked by io.link */
    bool sleeping, cancel, stopping;

    /* The thread's own from here on. */
    struct io_uring ring;
    struct io *backlog, *backlog_tail;
    struct io *in_flight; /* by file_op.prev and next */
    unsigned in_flight_count;
    bool wake_armed, complained;
    uint64_t wakes; /* what the ring read from wake_fd */
    size_t done_count;
    struct done done[DONE]; /* to be completed */
    size_t arena_used;
    struct iovec arena[ARENA];
};

/* user_data of what is not an io. */
static char tag_wake, tag_cancel;

/* With the mutex, so that the device can not go away before we have done. */
static void
uring_wake(struct file_uring *uring)
{
    if (!uring->sleeping)
        return;
    uring->sleeping = false;
    uint64_t one = 1;
    while (write(uring->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void
uring_append(struct io **head, struct io **tail, struct io *io)
{
    io->link = NULL;
    if (*head == NULL)
        *head = io;
    else
        (*tail)->link = io;
    *tail = io;
}

/* Take over what others left.  False when the thread is to end. */
static bool
uring_take(struct file_uring *uring, bool *cancel)
{
    pthread_mutex_lock(&uring->mutex);
    uring->sleeping = false;
    if (uring->head != NULL) {
        if (uring->backlog == NULL)
            uring->backlog = uring->head;
        else
            uring->backlog_tail->link = uring->head;
        uring->backlog_tail = uring->tail;
        uring->head = uring->tail = NULL;
    }
    *cancel = uring->cancel;
    uring->cancel = false;
    bool stopping = uring->stopping;
    pthread_mutex_unlock(&uring->mutex);
    return !stopping || uring->backlog != NULL || uring->in_flight != NULL
           || uring->done_count > 0;
}

/* True: nothing has come meanwhile, and who comes now will wake us. */
static bool
uring_may_sleep(struct file_uring *uring)
{
    if (io_uring_cq_ready(&uring->ring) > 0)
        return false;
    pthread_mutex_lock(&uring->mutex);
    bool sleep = uring->head == NULL && !uring->cancel && !uring->stopping;
    uring->sleeping = sleep;
    pthread_mutex_unlock(&uring->mutex);
    return sleep;
}

enum push { PUSH_ONLY, PUSH_AND_LOOK, PUSH_AND_WAIT };

/* Give the kernel what was prepared; let it tell what it has done; wait until
 * there is something. */
static void
uring_push(struct file_uring *uring, enum push push)
{
    int result =
        push == PUSH_AND_WAIT   ? io_uring_submit_and_wait(&uring->ring, 1)
        : push == PUSH_AND_LOOK ? io_uring_submit_and_get_events(&uring->ring)
                                : io_uring_submit(&uring->ring);
    if (io_uring_sq_ready(&uring->ring) == 0)
        uring->arena_used = 0;
    if (result >= 0 || result == -EINTR)
        return;
    /* Short of memory, for one; what was prepared stays prepared. */
    if (!uring->complained)
        log_warning("io_uring of %s: %s; trying again", uring->file->label,
                    strerrordesc_np(-result));
    uring->complained = true;
    if (io_uring_cq_ready(&uring->ring) == 0)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static struct io_uring_sqe *
uring_sqe(struct file_uring *uring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    if (sqe == NULL) {
        uring_push(uring, PUSH_ONLY);
        sqe = io_uring_get_sqe(&uring->ring);
    }
    return sqe;
}

/* Prepare the rest of a read or write.  False when it went to the pool. */
static bool
uring_prepare_rw(struct file_uring *uring, struct io *io,
                 struct io_uring_sqe *sqe)
{
    struct file *file = uring->file;
    struct file_op *op = file_op(io);
    struct iovec *iov = uring->arena + uring->arena_used;
    size_t count;
    uint64_t length;
    if (!file_rw_export(file, io, iov, FILE_IOV_BATCH, &count, &length))
        return false;
    if (io->op == FARBLK_OP_READ) {
        if (count == 1)
            io_uring_prep_read(sqe, file->fd, iov->iov_base,
                               (unsigned)iov->iov_len, op->offset);
        else
            io_uring_prep_readv(sqe, file->fd, iov, (unsigned)count,
                                op->offset);
    } else {
        if (count == 1)
            io_uring_prep_write(sqe, file->fd, iov->iov_base,
                                (unsigned)iov->iov_len, op->offset);
        else
            io_uring_prep_writev(sqe, file->fd, iov, (unsigned)count,
                                 op->offset);
        if ((io->flags & FARBLK_FUA) != 0)
            sqe->rw_flags = RWF_DSYNC;
    }
    if (count > 1)
        uring->arena_used += count;
    return true;
}

/* Let storage begin while we prepare the rest: soon when it has little to do.
 * Not one by one, for neighbours among them are merged. */
static void
uring_push_early(struct file_uring *uring)
{
    unsigned ready = io_uring_sq_ready(&uring->ring);
    unsigned given = uring->in_flight_count > ready
                         ? uring->in_flight_count - ready
                         : 0; /* some are not ios */
    if (ready >= PUSH_MOST || (ready >= PUSH_MOST / 2 && given < PUSH_MOST))
        uring_push(uring, PUSH_ONLY);
}

/* Begin what is in the backlog, as far as there is room. */
static void
uring_start(struct file_uring *uring)
{
    while (uring->backlog != NULL && uring->in_flight_count < IN_FLIGHT) {
        struct io *io = uring->backlog;
        if (file_expired(io)) {
            uring->backlog = io->link;
            file_fail_expired(uring->file, io);
            continue;
        }
        if (ARENA - uring->arena_used < FILE_IOV_BATCH) {
            uring_push(uring, PUSH_ONLY);
            if (uring->arena_used != 0)
                return;
        }
        struct io_uring_sqe *sqe = uring_sqe(uring);
        if (sqe == NULL)
            return;
        uring->backlog = io->link;
        struct file_op *op = file_op(io);
        if (io->op == FARBLK_OP_FLUSH) {
            bool full = file_flush_begin(uring->file, io);
            io_uring_prep_fsync(sqe, uring->file->fd,
                                full ? 0 : IORING_FSYNC_DATASYNC);
        } else if (!uring_prepare_rw(uring, io, sqe)) {
            /* The entry is ours already: let it tell us nothing. */
            io_uring_prep_nop(sqe);
            io_uring_sqe_set_data(sqe, &tag_cancel);
            file_pool_submit(&uring->file->pool, io);
            continue;
        }
        io_uring_sqe_set_data(sqe, io);
        op->prev = NULL;
        op->next = uring->in_flight;
        if (op->next != NULL)
            file_op(op->next)->prev = io;
        uring->in_flight = io;
        uring->in_flight_count++;
        uring_push_early(uring);
    }
}

/* Ask the kernel to drop what is past its time. */
static void
uring_cancel_expired(struct file_uring *uring)
{
    for (struct io *io = uring->in_flight; io != NULL; io = file_op(io)->next) {
        if (file_op(io)->cancelled || !file_expired(io))
            continue;
        struct io_uring_sqe *sqe = uring_sqe(uring);
        if (sqe == NULL)
            return; /* it will end by itself */
        io_uring_prep_cancel(sqe, io, 0);
        io_uring_sqe_set_data(sqe, &tag_cancel);
        file_op(io)->cancelled = true;
    }
}

/* The kernel has done with the io. */
static void
uring_unlink(struct file_uring *uring, struct io *io)
{
    struct file_op *op = file_op(io);
    if (op->prev != NULL)
        file_op(op->prev)->next = op->next;
    else
        uring->in_flight = op->next;
    if (op->next != NULL)
        file_op(op->next)->prev = op->prev;
    uring->in_flight_count--;
}

/* Clear the ring, as far as there is room for it. */
static void
uring_reap(struct file_uring *uring)
{
    struct io_uring_cqe *cqe;
    while (uring->done_count < DONE
           && io_uring_peek_cqe(&uring->ring, &cqe) == 0) {
        void *data = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&uring->ring, cqe);
        if (data == &tag_wake) {
            uring->wake_armed = false;
        } else if (data != &tag_cancel) {
            uring_unlink(uring, data);
            uring->done[uring->done_count++] = (struct done){data, result};
        }
    }
}

static void
uring_ended(struct file_uring *uring, struct io *io, int result)
{
    struct file_op *op = file_op(io);
    if (result == -ECANCELED || result == -EINTR || result == -EAGAIN) {
        if (op->cancelled)
            file_fail_expired(uring->file, io);
        else
            file_pool_submit(&uring->file->pool, io);
    } else if (io->op == FARBLK_OP_FLUSH) {
        file_flush_end(uring->file, io, result < 0 ? -result : 0);
    } else if (!file_rw_moved(uring->file, io, result)) {
        uring_append(&uring->backlog, &uring->backlog_tail, io);
    }
}

/* Complete what was reaped. */
static void
uring_end(struct file_uring *uring)
{
    burst_begin();
    for (size_t i = 0; i < uring->done_count; i++)
        uring_ended(uring, uring->done[i].io, uring->done[i].result);
    burst_end();
    uring->done_count = 0;
}

/* Have the ring read the eventfd, so that a write to it ends our waiting. */
static void
uring_arm_wake(struct file_uring *uring)
{
    struct io_uring_sqe *sqe = uring_sqe(uring);
    if (sqe == NULL)
        return;
    io_uring_prep_read(sqe, uring->wake_fd, &uring->wakes, sizeof uring->wakes,
                       0);
    io_uring_sqe_set_data(sqe, &tag_wake);
    uring->wake_armed = true;
}

static void *
uring_thread_main(void *arg)
{
    struct file_uring *uring = arg;
    bool cancel;
    /* liburing 2.3 declares a function for that, but does not have it. */
    if (syscall(SYS_io_uring_register, uring->ring.ring_fd,
                IORING_REGISTER_ENABLE_RINGS, NULL, 0)
        != 0) /* never seen; submissions will tell as well */
        log_error("io_uring of %s: %s", uring->file->label,
                  strerrordesc_np(errno));
    while (uring_take(uring, &cancel)) {
        if (cancel)
            uring_cancel_expired(uring);
        if (!uring->wake_armed)
            uring_arm_wake(uring);
        uring_start(uring);
        if (uring->done_count > 0) {
            if (io_uring_sq_ready(&uring->ring) > 0)
                uring_push(uring, PUSH_ONLY);
            uring_end(uring);
            continue;
        }
        uring_push(uring, uring->wake_armed && uring_may_sleep(uring)
                              ? PUSH_AND_WAIT
                              : PUSH_AND_LOOK);
        uring_reap(uring);
    }
    return NULL;
}

/* Whether the kernel's io_uring is new enough; 0 or an errno. */
static int
uring_check(struct file_uring *uring)
{
    static const uint8_t wanted[] = {
        IORING_OP_NOP,          IORING_OP_READ,   IORING_OP_WRITE,
        IORING_OP_READV,        IORING_OP_WRITEV, IORING_OP_FSYNC,
        IORING_OP_ASYNC_CANCEL,
    };
    /* The arena is used again as soon as the kernel has taken the entries,
     * completions must not get lost, and to wait for an eventfd must not take
     * a thread of the kernel. */
    unsigned features =
        IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_NODROP | IORING_FEAT_FAST_POLL;
    if ((uring->ring.features & features) != features)
        return ENOSYS;
    struct io_uring_probe *probe = io_uring_get_probe_ring(&uring->ring);
    if (probe == NULL)
        return ENOSYS;
    int errnum = 0;
    for (size_t i = 0; i < sizeof wanted; i++)
        if (!io_uring_opcode_supported(probe, wanted[i]))
            errnum = ENOSYS;
    io_uring_free_probe(probe);
    return errnum;
}

/* Make the ring, which the thread enables: it is the one that submits.  0 or an
 * errno; EINVAL for flags that the kernel does not know. */
static int
uring_setup(struct file_uring *uring, unsigned flags)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP
                 | IORING_SETUP_R_DISABLED | flags,
        .cq_entries = 2 * IN_FLIGHT,
    };
    return -io_uring_queue_init_params(ENTRIES, &uring->ring, &params);
}

struct file_uring *
file_uring_create(struct file *file, struct error *error)
{
    struct file_uring *uring = calloc(1, sizeof *uring);
    if (uring == NULL) {
        error_set(error, FARBLK_NO_MEMORY, "no memory for an io_uring");
        return NULL;
    }
    uring->file = file;
    int errnum = uring_setup(uring, QUIETLY);
    if (errnum == EINVAL)
        errnum = uring_setup(uring, 0);
    if (errnum != 0)
        goto no_ring;
    errnum = uring_check(uring);
    if (errnum != 0)
        goto no_eventfd;
    uring->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (uring->wake_fd < 0) {
        errnum = errno;
        goto no_eventfd;
    }
    pthread_mutex_init(&uring->mutex, NULL);
    errnum = file_pool_thread(&uring->thread, uring_thread_main, uring);
    if (errnum == 0)
        return uring;
    pthread_mutex_destroy(&uring->mutex);
    close(uring->wake_fd);
no_eventfd:
    io_uring_queue_exit(&uring->ring);
no_ring:
    free(uring);
    error_set(error, FARBLK_UNIMPLEMENTED, "no io_uring here: %s",
              strerrordesc_np(errnum));
    return NULL;
}

void
file_uring_submit(struct file_uring *uring, struct io *io)
{
    pthread_mutex_lock(&uring->mutex);
    uring_append(&uring->head, &uring->tail, io);
    uring_wake(uring);
    pthread_mutex_unlock(&uring->mutex);
}

void
file_uring_cancel(struct file_uring *uring)
{
    pthread_mutex_lock(&uring->mutex);
    uring->cancel = true;
    uring_wake(uring);
    pthread_mutex_unlock(&uring->mutex);
}

void
file_uring_destroy(struct file_uring *uring)
{
    if (uring == NULL)
        return;
    pthread_mutex_lock(&uring->mutex);
    uring->stopping = true;
    uring_wake(uring);
    pthread_mutex_unlock(&uring->mutex);
    pthread_join(uring->thread, NULL);
    io_uring_queue_exit(&uring->ring);
    close(uring->wake_fd);
    pthread_mutex_destroy(&uring->mutex);
    free(uring);
}

#else

struct file_uring *
file_uring_create(struct file *file, struct error *error)
{
    (void)file;
    error_set(error, FARBLK_UNIMPLEMENTED,
              "this library was built without io_uring");
    return NULL;
}

void
file_uring_submit(struct file_uring *uring, struct io *io)
{
    (void)uring;
    io_failed(io, FARBLK_UNIMPLEMENTED, FARBLK_EFFECT_NONE, "no io_uring");
}

void
file_uring_cancel(struct file_uring *uring)
{
    (void)uring;
}

void
file_uring_destroy(struct file_uring *uring)
{
    (void)uring;
}

#endif
