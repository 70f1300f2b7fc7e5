/* SPDX-License-Identifier: ISC */
/*
 * System calls that fail when told to.  The program's definitions come before
 * those of libc and liburing.
 */
#include "tests/faults.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* What is to happen: after `after` good calls, `times` calls give `errnum`, or
 * with 0 move at most `most` octets. */
static struct fault {
    atomic_int after, times, errnum, most;
} faults[FAULT_CALLS];

void
faults_set(enum fault_call call, int after, int times, int errnum, int most)
{
    faults[call].after = after;
    faults[call].errnum = errnum;
    faults[call].most = most;
    faults[call].times = times;
}

/* Whether this call is to fail; else `most` is what it may move. */
static bool
faults_hit(enum fault_call call, int *most)
{
    struct fault *fault = &faults[call];
    *most = -1;
    if (fault->times <= 0)
        return false;
    if (fault->after > 0) {
        fault->after--;
        return false;
    }
    fault->times--;
    if (fault->errnum == 0) {
        *most = fault->most;
        return false;
    }
    errno = fault->errnum;
    return true;
}

void
faults_clear(void)
{
    for (int i = 0; i < FAULT_CALLS; i++)
        faults[i].times = 0;
}

static pthread_mutex_t hold_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t hold_changed = PTHREAD_COND_INITIALIZER;
static struct {
    bool held;
    unsigned count, most;
} holds[FAULT_CALLS];

static void
hold(enum fault_call call)
{
    pthread_mutex_lock(&hold_mutex);
    if (++holds[call].count > holds[call].most)
        holds[call].most = holds[call].count;
    pthread_cond_broadcast(&hold_changed);
    while (holds[call].held)
        pthread_cond_wait(&hold_changed, &hold_mutex);
    holds[call].count--;
    pthread_mutex_unlock(&hold_mutex);
}

void
faults_hold(enum fault_call call)
{
    pthread_mutex_lock(&hold_mutex);
    holds[call].held = true;
    holds[call].most = 0;
    pthread_mutex_unlock(&hold_mutex);
}

void
faults_release(enum fault_call call)
{
    pthread_mutex_lock(&hold_mutex);
    holds[call].held = false;
    pthread_cond_broadcast(&hold_changed);
    pthread_mutex_unlock(&hold_mutex);
}

void
faults_await(enum fault_call call, unsigned count)
{
    pthread_mutex_lock(&hold_mutex);
    while (holds[call].count < count)
        pthread_cond_wait(&hold_changed, &hold_mutex);
    pthread_mutex_unlock(&hold_mutex);
}

unsigned
faults_most_held(enum fault_call call)
{
    pthread_mutex_lock(&hold_mutex);
    unsigned most = holds[call].most;
    pthread_mutex_unlock(&hold_mutex);
    return most;
}

static ssize_t
move(enum fault_call call, long number, int fd, const struct iovec *iov,
     int count, off_t offset, int flags)
{
    int most;
    struct iovec one;
    if ((flags & RWF_NOWAIT) != 0) {
        errno = EAGAIN; /* so that the engine gets it */
        return -1;
    }
    if (call == FAULT_WRITE)
        hold(call);
    if (faults_hit(call, &most))
        return -1;
    if (most == 0)
        return 0;
    if (most > 0) {
        one = iov[0];
        if (one.iov_len > (size_t)most)
            one.iov_len = (size_t)most;
        iov = &one;
        count = 1;
    }
    return syscall(number, fd, iov, (long)count, (long)offset, 0L, flags);
}

ssize_t
preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    return move(FAULT_READ, SYS_preadv2, fd, iov, count, offset, flags);
}

ssize_t
pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    return move(FAULT_WRITE, SYS_pwritev2, fd, iov, count, offset, flags);
}

ssize_t
pwrite(int fd, const void *data, size_t length, off_t offset)
{
    struct iovec iov = {(void *)(uintptr_t)data, length};
    return move(FAULT_WRITE, SYS_pwritev2, fd, &iov, 1, offset, 0);
}

int
fsync(int fd)
{
    int most;
    hold(FAULT_SYNC);
    return faults_hit(FAULT_SYNC, &most) ? -1 : (int)syscall(SYS_fsync, fd);
}

int
fdatasync(int fd)
{
    int most;
    hold(FAULT_SYNC);
    return faults_hit(FAULT_SYNC, &most) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int
fallocate(int fd, int mode, off_t offset, off_t length)
{
    int most;
    return faults_hit(FAULT_FALLOCATE, &most)
               ? -1
               : (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

off_t
lseek(int fd, off_t offset, int whence)
{
    int most;
    return (whence == SEEK_DATA || whence == SEEK_HOLE)
                   && faults_hit(FAULT_SEEK, &most)
               ? -1
               : (off_t)syscall(SYS_lseek, fd, offset, whence);
}

int
openat(int dirfd, const char *path, int flags, ...)
{
    int most;
    va_list args;
    va_start(args, flags);
    mode_t mode =
        (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    if ((flags & O_TMPFILE) == O_TMPFILE && faults_hit(FAULT_TMPFILE, &most))
        return -1;
    return (int)syscall(SYS_openat, dirfd, path, flags, mode);
}

int
linkat(int fromfd, const char *from, int tofd, const char *to, int flags)
{
    int most;
    return faults_hit(FAULT_LINK, &most)
               ? -1
               : (int)syscall(SYS_linkat, fromfd, from, tofd, to, flags);
}

int
ftruncate(int fd, off_t size)
{
    int most;
    return faults_hit(FAULT_TRUNCATE, &most)
               ? -1
               : (int)syscall(SYS_ftruncate, fd, size);
}

int
dup3(int from, int to, int flags)
{
    int most;
    return faults_hit(FAULT_DUP, &most)
               ? -1
               : (int)syscall(SYS_dup3, from, to, flags);
}

int
statx(int dirfd, const char *restrict path, int flags, unsigned mask,
      struct statx *restrict stx)
{
    int most;
    return faults_hit(FAULT_STATX, &most)
               ? -1
               : (int)syscall(SYS_statx, dirfd, path, flags, mask, stx);
}

/* The next in line, of the library, when there is one. */
struct io_uring;
struct io_uring_params;
int io_uring_queue_init_params(unsigned entries, struct io_uring *ring,
                               struct io_uring_params *params);
int io_uring_submit_and_wait(struct io_uring *ring, unsigned wait);
int io_uring_submit_and_get_events(struct io_uring *ring);
int io_uring_submit(struct io_uring *ring);

int
io_uring_queue_init_params(unsigned entries, struct io_uring *ring,
                           struct io_uring_params *params)
{
    int (*next)(unsigned, struct io_uring *, struct io_uring_params *);
    int most;
    *(void **)&next = dlsym(RTLD_NEXT, "io_uring_queue_init_params");
    return faults_hit(FAULT_RING, &most) ? -errno : next(entries, ring, params);
}

int
io_uring_submit_and_wait(struct io_uring *ring, unsigned wait)
{
    int (*next)(struct io_uring *, unsigned);
    int most;
    *(void **)&next = dlsym(RTLD_NEXT, "io_uring_submit_and_wait");
    return faults_hit(FAULT_ENTER, &most) ? -errno : next(ring, wait);
}

int
io_uring_submit_and_get_events(struct io_uring *ring)
{
    int (*next)(struct io_uring *);
    int most;
    *(void **)&next = dlsym(RTLD_NEXT, "io_uring_submit_and_get_events");
    return faults_hit(FAULT_ENTER, &most) ? -errno : next(ring);
}

int
io_uring_submit(struct io_uring *ring)
{
    int (*next)(struct io_uring *);
    int most;
    *(void **)&next = dlsym(RTLD_NEXT, "io_uring_submit");
    return faults_hit(FAULT_ENTER, &most) ? -errno : next(ring);
}
