/* SPDX-License-Identifier: ISC */
/*
 * Preloaded into farblkd, this breaks it in the ways that the crash test must
 * catch (engine=pool; the environment's FARBLK_PLANT tells which):
 *
 *   flush   fsync and fdatasync say fine and do nothing
 *   fua     RWF_DSYNC is left out
 *   ignore  the errors of fsync and fdatasync are ignored
 *   size    fsync is an fdatasync
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static bool
planted(const char *what)
{
    const char *plant = getenv("FARBLK_PLANT");

    return plant != NULL && strcmp(plant, what) == 0;
}

static int
shim_sync(long number, int fd)
{
    if (planted("flush"))
        return 0;
    long result = syscall(number, fd);
    return planted("ignore") ? 0 : (int)result;
}

int
fsync(int fd)
{
    return shim_sync(planted("size") ? SYS_fdatasync : SYS_fsync, fd);
}

int
fdatasync(int fd)
{
    return shim_sync(SYS_fdatasync, fd);
}

ssize_t
pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    if (planted("fua"))
        flags &= ~RWF_DSYNC;
    return syscall(SYS_pwritev2, fd, iov, (long)count, (long)offset, 0L,
                   (long)flags);
}
