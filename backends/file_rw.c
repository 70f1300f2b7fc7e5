/* SPDX-License-Identifier: ISC */
/*
 * Reads, writes and flushes of the file driver by system calls, and what both
 * engines share about them: progress after short transfers, and what an error
 * means.
 *
 * A read that ends before the device does means that somebody cut the file
 * behind our back; it is an error, not zeros.  Direct I/O with memory that is
 * not aligned goes through aligned memory of the thread.
 */
#include "backends/file.h"

#include "core/checked.h"
#include "core/timer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A read of at most this is tried at once, on the caller's thread: copying it
 * from the page cache costs less than handing it over. */
#define NOW_MAX (64u << 10)

void
file_op_begin(struct io *io)
{
    struct file_op *op = file_op(io);
    memset(op, 0, sizeof *op);
    op->rest = io->data;
    op->offset = io->offset;
}

bool
file_expired(const struct io *io)
{
    return (io->deadline_ms != 0 && timer_now() >= io->deadline_ms)
           || io_revoked(io);
}

/* What may have happened, when a piece failed before any octet of it was
 * reported as moved. */
static enum farblk_effect
file_rw_effect(const struct file *file, struct io *io, int errnum)
{
    if (io->op != FARBLK_OP_WRITE)
        return FARBLK_EFFECT_NONE;
    if (file_op(io)->offset != io->offset || file_op(io)->cancelled)
        return FARBLK_EFFECT_UNKNOWN;
    switch (errnum) {
    case EBADF:
    case EFBIG:
    case EINVAL:
    case ENOMEM:
    case EPERM:
    case EROFS:
        return FARBLK_EFFECT_NONE; /* refused before it began */
    case ENOSPC:
    case EDQUOT:
        /* Buffered writes tell of what they took before it. */
        return file->direct || (io->flags & FARBLK_FUA) != 0
                   ? FARBLK_EFFECT_UNKNOWN
                   : FARBLK_EFFECT_NONE;
    default:
        return FARBLK_EFFECT_UNKNOWN;
    }
}

void
file_fail_expired(struct file *file, struct io *io)
{
    bool begun =
        io->op == FARBLK_OP_WRITE
        && (file_op(io)->offset != io->offset || file_op(io)->cancelled);
    if (io->op == FARBLK_OP_FLUSH)
        file_sync_give_up(file, io);
    const enum farblk_effect effect =
        begun ? FARBLK_EFFECT_UNKNOWN : FARBLK_EFFECT_NONE;
    if (io_revoked(io))
        io_failed(io, FARBLK_DISCONNECTED, effect,
                  "not %s before its handle was revoked",
                  begun ? "done" : "begun");
    else
        io_failed(io, FARBLK_TIMED_OUT, effect, "not %s in time",
                  begun ? "done" : "begun");
}

int
file_io_status(int errnum)
{
    switch (errnum) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return FARBLK_NO_SPACE;
    case ENOMEM:
        return FARBLK_NO_MEMORY;
    case EOPNOTSUPP:
        return FARBLK_UNIMPLEMENTED;
    default:
        return FARBLK_IO;
    }
}

static void
file_rw_fail(struct file *file, struct io *io, int errnum)
{
    const struct file_op *op = file_op(io);
    io_failed(io, file_io_status(errnum), file_rw_effect(file, io, errnum),
              "%s %" PRIu64 " octets at %" PRIu64 " of %s: %s",
              io->op == FARBLK_OP_READ ? "reading" : "writing", op->rest.length,
              op->offset, file->label, strerrordesc_np(errnum));
}

bool
file_rw_moved(struct file *file, struct io *io, ssize_t result)
{
    struct file_op *op = file_op(io);
    bool read = io->op == FARBLK_OP_READ;
    if (result == -EINTR || result == -EAGAIN) {
        if (file_expired(io)) {
            file_fail_expired(file, io);
            return true;
        }
        if (op->tries++ < FILE_TRIES)
            return false;
    }
    if (result < 0) {
        file_rw_fail(file, io, (int)-result);
        return true;
    }
    uint64_t moved = min_u64((uint64_t)result, op->rest.length);
    /* Direct I/O can not go on from the middle of a block. */
    bool stuck =
        moved == 0
        || (moved < op->rest.length && moved % file->offset_align != 0);
    op->tries = 0;
    iov_advance(&op->rest, moved);
    op->offset += moved;
    if (op->rest.length == 0) {
        io_done(io, 0);
        return true;
    }
    if (!stuck)
        return false;
    if (read)
        io_failed(io, FARBLK_IO, FARBLK_EFFECT_NONE,
                  "the file ends at %" PRIu64 " of %" PRIu64
                  " octets: it was truncated behind the device's back: %s",
                  op->offset, (uint64_t)atomic_load(&file->size), file->label);
    else
        io_failed(io, FARBLK_IO,
                  op->offset != io->offset ? FARBLK_EFFECT_UNKNOWN
                                           : FARBLK_EFFECT_NONE,
                  "writing %" PRIu64 " octets at %" PRIu64
                  " of %s makes no progress",
                  op->rest.length, op->offset, file->label);
    return true;
}

bool
file_rw_export(const struct file *file, struct io *io, struct iovec *iov,
               size_t max, size_t *count, uint64_t *length)
{
    *count = iov_export(&file_op(io)->rest, iov, max, length);
    uintptr_t bits = 0;
    for (size_t i = 0; i < *count; i++)
        bits |= (uintptr_t)iov[i].iov_base;
    return (bits & (file->memory_align - 1)) == 0;
}

bool
file_read_now(struct file *file, struct io *io)
{
    if (io->length > NOW_MAX || file->direct
        || !atomic_load_explicit(&file->no_wait, memory_order_relaxed))
        return false;
    struct iovec iov[16];
    for (;;) {
        size_t count;
        uint64_t length;
        file_rw_export(file, io, iov, 16, &count, &length);
        ssize_t n = preadv2(file->fd, iov, (int)count,
                            (off_t)file_op(io)->offset, RWF_NOWAIT);
        if (n > 0) {
            if (file_rw_moved(file, io, n))
                return true;
            continue;
        }
        if (n < 0 && errno == EOPNOTSUPP)
            atomic_store(&file->no_wait, false);
        return false; /* the engine finds out about errors and the end */
    }
}

/* One system call for what is left, by aligned memory. */
static ssize_t
file_rw_bounce(struct file *file, struct io *io, void **bounce)
{
    struct file_op *op = file_op(io);
    size_t length = (size_t)min_u64(op->rest.length, FILE_BOUNCE);
    size_t align = max_u64(file->memory_align, 4096);
    if (*bounce == NULL && posix_memalign(bounce, align, FILE_BOUNCE) != 0) {
        *bounce = NULL;
        return -ENOMEM;
    }
    struct iov_view view = op->rest; /* advanced when it is known how far */
    struct iovec iov = {.iov_base = *bounce, .iov_len = length};
    ssize_t n;
    if (io->op == FARBLK_OP_READ) {
        n = preadv2(file->fd, &iov, 1, (off_t)op->offset, 0);
        if (n > 0)
            iov_copy_in(&view, *bounce, (uint64_t)n);
    } else {
        iov_copy_out(&view, *bounce, length);
        n = pwritev2(file->fd, &iov, 1, (off_t)op->offset,
                     (io->flags & FARBLK_FUA) != 0 ? RWF_DSYNC : 0);
    }
    return n < 0 ? -errno : n;
}

void
file_rw_run(struct file *file, struct io *io, void **bounce)
{
    struct iovec iov[FILE_IOV_BATCH];
    ssize_t n;
    do {
        struct file_op *op = file_op(io);
        size_t count;
        uint64_t length;
        if (file_expired(io)) {
            file_fail_expired(file, io);
            return;
        }
        if (op->tries > 0) /* EAGAIN; rare enough not to be clever about */
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        if (!file_rw_export(file, io, iov, FILE_IOV_BATCH, &count, &length)) {
            n = file_rw_bounce(file, io, bounce);
            continue;
        }
        n = io->op == FARBLK_OP_READ
                ? preadv2(file->fd, iov, (int)count, (off_t)op->offset, 0)
                : pwritev2(file->fd, iov, (int)count, (off_t)op->offset,
                           (io->flags & FARBLK_FUA) != 0 ? RWF_DSYNC : 0);
        if (n < 0)
            n = -errno;
    } while (!file_rw_moved(file, io, n));
}

int
file_rw_zero(struct file *file, const struct io *io, uint64_t offset,
             uint64_t length, void **bounce, uint64_t *done)
{
    size_t align = max_u64(file->memory_align, 4096);
    if (*bounce == NULL && posix_memalign(bounce, align, FILE_BOUNCE) != 0) {
        *bounce = NULL;
        return ENOMEM;
    }
    memset(*bounce, 0, FILE_BOUNCE);
    unsigned tries = 0;
    for (*done = 0; *done < length;) {
        if (file_expired(io))
            return ETIMEDOUT;
        ssize_t n = pwrite(file->fd, *bounce,
                           (size_t)min_u64(length - *done, FILE_BOUNCE),
                           (off_t)(offset + *done));
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return errno;
        if (n <= 0 && tries++ >= FILE_TRIES)
            return EIO;
        if (n > 0) {
            *done += (uint64_t)n;
            tries = 0;
        }
    }
    return 0;
}

bool
file_flush_begin(struct file *file, struct io *io)
{
    unsigned resizes = atomic_load(&file->resizes);
    file_op(io)->offset = resizes;
    return atomic_load(&file->stable) != resizes;
}

void
file_flush_end(struct file *file, struct io *io, int errnum)
{
    /* Core lets no resize pass a flush, and syncs come one after the other. */
    if (errnum == 0)
        atomic_store(&file->stable, (unsigned)file_op(io)->offset);
    file_sync_leave(file, io, errnum);
}

void
file_flush_run(struct file *file, struct io *io)
{
    int result, tries = 0;
    bool full = file_flush_begin(file, io);
    do
        result = full ? fsync(file->fd) : fdatasync(file->fd);
    while (result != 0 && errno == EINTR && tries++ < (int)FILE_TRIES);
    file_flush_end(file, io, result != 0 ? errno : 0);
}
