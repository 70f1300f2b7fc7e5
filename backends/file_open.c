/* SPDX-License-Identifier: ISC */
/*
 * What a file: URI names: finding it, making it, and checking that it can be a
 * device.
 *
 * A new file gets its size before it gets its name (O_TMPFILE and linkat), so
 * that nobody ever finds a half-made one and a failure leaves nothing behind;
 * where the file system can not do that, it is made by O_EXCL.  Whoever loses
 * the race for the name opens the winner's file.  File and directory are
 * synced, so that the name is durable before the device is used.
 */
#include "backends/file.h"

#include "core/checked.h"
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* Rounds of open and make, in case others make and remove the name. */
#define ATTEMPTS 10

/* Beside the errno values: what the name opens can not be a device. */
#define NOT_A_DEVICE 10000

/* Direct I/O where the kernel does not tell what it wants. */
#define ALIGN_SAFE 4096u

static int
file_check_size(const struct file *file, uint64_t size, struct error *error)
{
    if (size > INT64_MAX)
        return error_set(error, FARBLK_INVALID,
                         "%" PRIu64
                         " octets are more than the limit of %" PRId64 ": %s",
                         size, INT64_MAX, file->label);
    if (size % file->sector != 0)
        return error_set(error, FARBLK_INVALID,
                         "a size of %" PRIu64
                         " octets is not a whole number of sectors of %" PRIu32
                         " octets: %s",
                         size, file->sector, file->label);
    return 0;
}

int
file_measure(struct file *file, struct error *error)
{
    uint64_t size = 0;
    if (file->block) {
        if (ioctl(file->fd, BLKGETSIZE64, &size) != 0)
            return error_set_errno(error, errno, "cannot get the size of %s",
                                   file->label);
    } else {
        struct stat st;
        if (fstat(file->fd, &st) != 0)
            return error_set_errno(error, errno, "cannot get the size of %s",
                                   file->label);
        size = (uint64_t)st.st_size;
    }
    if (file_check_size(file, size, error) != 0)
        return error->status;
    atomic_store(&file->size, size);
    return 0;
}

/* The alignment that direct I/O wants of the open file. */
static void
file_ask_alignment(struct file *file, uint32_t logical)
{
#ifdef STATX_DIOALIGN
    struct statx stx;
    if (statx(file->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0
        && (stx.stx_mask & STATX_DIOALIGN) != 0
        && is_power_of_two(stx.stx_dio_mem_align)
        && is_power_of_two(stx.stx_dio_offset_align)) {
        file->memory_align = stx.stx_dio_mem_align;
        file->offset_align = stx.stx_dio_offset_align;
        return;
    }
#endif
    file->memory_align = ALIGN_SAFE;
    file->offset_align = logical != 0 ? logical : ALIGN_SAFE;
    if (logical != 0)
        return;
    /* A trial tells whether single sectors are taken. */
    void *memory;
    if (posix_memalign(&memory, ALIGN_SAFE, ALIGN_SAFE) != 0)
        return;
    if (pread(file->fd, memory, FARBLK_SECTOR_MIN, 0) == FARBLK_SECTOR_MIN)
        file->offset_align = FARBLK_SECTOR_MIN;
    free(memory);
}

/* Check that the open descriptor can be the device that was asked for, except
 * for its size; fill in what it is. */
static int
file_examine(struct file *file, struct error *error)
{
    struct stat st;
    if (fstat(file->fd, &st) != 0)
        return error_set_errno(error, errno, "cannot look at %s", file->label);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return error_set(error, FARBLK_INVALID,
                         "neither a regular file nor a block device: %s",
                         file->label);
    file->block = S_ISBLK(st.st_mode);
    file->dev = st.st_dev;
    file->ino = st.st_ino;
    file->rdev = st.st_rdev;

    const struct file_wish *wish = &file->wish;
    uint32_t logical = 0;
    if (file->block) {
        int octets = 0;
        if (ioctl(file->fd, BLKSSZGET, &octets) != 0)
            return error_set_errno(
                error, errno, "cannot get the sector size of %s", file->label);
        logical = (uint32_t)octets;
    }
    file->sector = wish->has_sector ? wish->sector
                   : file->block    ? logical
                                    : FARBLK_SECTOR_MIN;
    if (!is_power_of_two(file->sector) || file->sector < FARBLK_SECTOR_MIN
        || file->sector > FARBLK_SECTOR_MAX || file->sector < logical)
        return error_set(
            error, FARBLK_INVALID,
            "a sector of %" PRIu32 " octets is not a power of two from %" PRIu32
            " to %u: %s",
            file->sector,
            logical > FARBLK_SECTOR_MIN ? logical : FARBLK_SECTOR_MIN,
            FARBLK_SECTOR_MAX, file->label);
    file->memory_align = file->offset_align = 1;
    file->direct = wish->direct;
    if (file->direct) {
        file_ask_alignment(file, logical);
        if (file->sector < file->offset_align)
            return error_set(error, FARBLK_INVALID,
                             "direct=1 works in units of %" PRIu32
                             " octets here, the sector has %" PRIu32 ": %s",
                             file->offset_align, file->sector, file->label);
    }
    return 0;
}

/* Open by name.  A descriptor or a negative errno. */
static int
file_open_name(const struct file *file, int mode)
{
    /* Looked at first: opening a device of another kind can have effects.  And
     * not to be kept waiting, should it be another one by then. */
    struct stat st;
    if (stat(file->path, &st) != 0)
        return -errno;
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return -NOT_A_DEVICE;
    int direct = file->wish.direct ? O_DIRECT : 0;
    int fd =
        open(file->path, mode | direct | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd >= 0 && fcntl(fd, F_SETFL, direct | O_LARGEFILE) != 0) {
        int errnum = errno;
        close(fd);
        return -errnum;
    }
    return fd >= 0 ? fd : -errno;
}

/* Open an existing one.  0, or a negative errno when the name does not open. */
static int
file_open_existing(struct file *file)
{
    int fd = -EACCES;
    file->writable = !file->wish.read_only;
    if (file->writable)
        fd = file_open_name(file, O_RDWR);
    if (fd == -EACCES || fd == -EROFS || fd == -EPERM || fd == -ETXTBSY) {
        file->writable = false;
        fd = file_open_name(file, O_RDONLY);
    }
    file->fd = fd >= 0 ? fd : -1;
    return fd >= 0 ? 0 : fd;
}

static int
file_fail_open(const struct file *file, int errnum, struct error *error)
{
    if (errnum == NOT_A_DEVICE)
        return error_set(error, FARBLK_INVALID,
                         "neither a regular file nor a block device: %s",
                         file->label);
    if (errnum == EINVAL && file->wish.direct)
        return error_set(error, FARBLK_UNIMPLEMENTED,
                         "direct=1: the file system has no direct I/O: %s",
                         file->label);
    return error_set_errno(error, errnum, "cannot open %s", file->label);
}

/* The directory of the path, in memory to be freed. */
static char *
file_directory(const struct file *file)
{
    const char *slash = strrchr(file->path, '/');
    if (slash == NULL)
        return strdup(".");
    return slash == file->path
               ? strdup("/")
               : strndup(file->path, (size_t)(slash - file->path));
}

/* Give the file, which has no name or is the O_EXCL one, its size and check
 * it.  0 or a status. */
static int
file_shape_new(struct file *file, struct error *error)
{
    file->sector =
        file->wish.has_sector ? file->wish.sector : FARBLK_SECTOR_MIN;
    if (file_check_size(file, file->wish.size, error) != 0)
        return error->status;
    /* Beyond it the kernel would not only refuse, but send a signal. */
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY
        && file->wish.size > limit.rlim_cur)
        return error_set(error, FARBLK_NO_SPACE,
                         "a file of %" PRIu64 " octets is above this process's "
                         "limit of %" PRIu64 ": %s",
                         file->wish.size, (uint64_t)limit.rlim_cur,
                         file->label);
    if (ftruncate(file->fd, (off_t)file->wish.size) != 0)
        return error_set_errno(error, errno,
                               "cannot make a file of %" PRIu64 " octets: %s",
                               file->wish.size, file->label);
    if (file_examine(file, error) != 0)
        return error->status;
    if (fsync(file->fd) != 0)
        return error_set_errno(error, errno, "cannot sync %s", file->label);
    return 0;
}

/* Make the file.  0 with the open descriptor; 0 without it when somebody else
 * was faster; or a status, with nothing left behind. */
static int
file_make(struct file *file, struct error *error)
{
    int flags = O_RDWR | O_CLOEXEC | (file->wish.direct ? O_DIRECT : 0);
    char *directory = file_directory(file);
    if (directory == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory to make %s",
                         file->label);
    int dirfd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(directory);
    if (dirfd < 0)
        return error_set_errno(error, errno, "cannot open the directory of %s",
                               file->label);

    int status = 0;
    bool named = false, exists = false;
    file->fd = openat(dirfd, ".", flags | O_TMPFILE, 0666);
    if (file->fd >= 0) {
        status = file_shape_new(file, error);
        char self[64];
        snprintf(self, sizeof self, "/proc/self/fd/%d", file->fd);
        if (status == 0) {
            named =
                linkat(AT_FDCWD, self, AT_FDCWD, file->path, AT_SYMLINK_FOLLOW)
                == 0;
            exists = !named && errno == EEXIST;
        }
        if (!named) {
            close(file->fd);
            file->fd = -1;
        }
    }
    if (status == 0 && !named && !exists) {
        file->fd = open(file->path, flags | O_CREAT | O_EXCL, 0666);
        exists = file->fd < 0 && errno == EEXIST;
        if (file->fd >= 0) {
            named = true;
            status = file_shape_new(file, error);
        } else if (!exists) {
            status = file_fail_open(file, errno, error);
        }
    }
    if (status == 0 && named && fsync(dirfd) != 0)
        status = error_set_errno(
            error, errno, "cannot sync the directory of %s", file->label);
    close(dirfd);
    if (status != 0 && named)
        unlink(file->path);
    if (file->fd >= 0 && (status != 0 || file->wish.read_only)) {
        close(file->fd);
        file->fd = -1; /* a reader opens it as such */
    }
    file->writable = file->fd >= 0;
    if (status == 0 && named)
        log_info("made %s, %" PRIu64 " octets", file->label, file->wish.size);
    return status;
}

int
file_open(struct file *file, struct error *error)
{
    const struct file_wish *wish = &file->wish;
    if (wish->has_sector && !is_power_of_two(wish->sector))
        return error_set(error, FARBLK_INVALID,
                         "sector=%" PRIu32 " is not a power of two",
                         wish->sector);
    int status = 0, opened = -ENOENT;
    for (int i = 0; i < ATTEMPTS && status == 0 && file->fd < 0; i++) {
        opened = file_open_existing(file);
        if (opened != -ENOENT || !wish->create)
            break;
        if (!wish->has_size)
            return error_set(error, FARBLK_INVALID,
                             "create=1 needs size= to make %s", file->label);
        status = file_make(file, error);
    }
    if (status != 0)
        return status;
    if (file->fd < 0)
        return file_fail_open(file, -opened, error);

    if (file_examine(file, error) != 0 || file_measure(file, error) != 0)
        goto fail;
    uint64_t size = atomic_load(&file->size);
    if (wish->has_size && size != wish->size) {
        error_set(error, FARBLK_CONFLICT,
                  "it has %" PRIu64 " octets, not size=%" PRIu64 ": %s", size,
                  wish->size, file->label);
        goto fail;
    }
    return 0;
fail:
    close(file->fd);
    file->fd = -1;
    return error->status;
}

/* Two words from one, that differ wherever it does. */
static uint64_t
content_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/*
 * A regular file is the same one while its file system, inode and time of birth
 * are: the time tells a new file that got the inode of one that was removed.  The
 * numbers of block devices are given anew at each start of a machine, and nothing
 * else is known of what is in them.
 */
void
file_content(const struct file *file, uint8_t content[16])
{
    struct statx st;
    const uint32_t wanted = STATX_TYPE | STATX_INO | STATX_BTIME;
    memset(content, 0, 16);
    if (statx(file->fd, "", AT_EMPTY_PATH, wanted, &st) != 0
        || (st.stx_mask & wanted) != wanted || !S_ISREG(st.stx_mode))
        return;
    uint64_t words[2] = {
        content_mix(
            st.stx_ino
            + content_mix((uint64_t)st.stx_dev_major << 32 | st.stx_dev_minor)),
        content_mix((uint64_t)st.stx_btime.tv_sec * 1000000000u
                    + st.stx_btime.tv_nsec + st.stx_ino),
    };
    words[1] ^= words[0];
    memcpy(content, words, sizeof words);
}
