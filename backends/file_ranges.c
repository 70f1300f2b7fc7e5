/* SPDX-License-Identifier: ISC */
/*
 * Holes of a file: discarding, zeroing, resizing, and telling where they are.
 * All of it by system calls that may block.
 *
 * Boundaries that the file system tells are rounded to the side that is always
 * true: a sector with any data in it is mapped.  What lies past the end of a
 * file that was cut behind our back is mapped as well: reading it is an error,
 * not zeros.
 */
#include "backends/file.h"

#include "core/checked.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Looks at a file's map in one io.  Past it the answer is conservative. */
#define SEEKS_MAX 4096u

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

/* Whether the block device takes discards, as sysfs tells. */
static bool
file_block_discards(const struct file *file)
{
    static const char *const forms[] = {
        "/sys/dev/block/%u:%u/queue/discard_max_bytes",
        "/sys/dev/block/%u:%u/../queue/discard_max_bytes", /* a partition */
    };
    for (size_t i = 0; i < 2; i++) {
        char path[96];
        unsigned long long most = 0;
        snprintf(path, sizeof path, forms[i], major(file->rdev),
                 minor(file->rdev));
        FILE *from = fopen(path, "re");
        if (from == NULL)
            continue;
        bool told = fscanf(from, "%llu", &most) == 1;
        fclose(from);
        if (told)
            return most > 0;
    }
    return false;
}

uint64_t
file_ranges_features(struct file *file)
{
    uint64_t features = FARBLK_CAN_WRITE_ZEROES;
    if (file->block)
        return features | (file_block_discards(file) ? FARBLK_CAN_DISCARD : 0);

    features |= FARBLK_CAN_RESIZE;
    if (lseek(file->fd, 0, SEEK_HOLE) >= 0 || errno == ENXIO)
        features |= FARBLK_CAN_SEEK;
    /* Past the end there is nothing to lose.  A reader can not try, and tells
     * what is usual; it never comes to it. */
    if (file->writable
        && fallocate(file->fd, PUNCH,
                     (off_t)round_up(atomic_load(&file->size), 65536), 65536)
               != 0
        && errno == EOPNOTSUPP)
        atomic_store(&file->no_punch, true);
    else
        features |= FARBLK_CAN_DISCARD | FARBLK_DISCARD_ZEROES;
    return features;
}

/* fallocate(), with interruptions and what does not work here. */
static int
file_fallocate(struct file *file, const struct io *io, int mode,
               atomic_bool *unsupported)
{
    int errnum = EOPNOTSUPP;
    if (atomic_load(unsupported))
        return errnum;
    for (unsigned i = 0; i < FILE_TRIES; i++) {
        errnum =
            fallocate(file->fd, mode, (off_t)io->offset, (off_t)io->length) == 0
                ? 0
                : errno;
        if (errnum != EINTR)
            break;
    }
    if (errnum == EOPNOTSUPP)
        atomic_store(unsupported, true);
    return errnum;
}

static void
file_ranges_end(struct file *file, struct io *io, int errnum,
                enum farblk_effect effect, const char *what)
{
    if (errnum == 0)
        io_done(io, 0);
    else
        io_failed(
            io, errnum == ETIMEDOUT ? FARBLK_TIMED_OUT : file_io_status(errnum),
            effect, "%s %" PRIu64 " octets at %" PRIu64 " of %s: %s", what,
            io->length, io->offset, file->label, strerrordesc_np(errnum));
}

void
file_ranges_zero(struct file *file, struct io *io, void **bounce)
{
    int errnum = EOPNOTSUPP;
    enum farblk_effect effect = FARBLK_EFFECT_UNKNOWN;
    if ((io->flags & FARBLK_NO_UNMAP) == 0)
        errnum = file_fallocate(file, io, PUNCH, &file->no_punch);
    if (errnum == EOPNOTSUPP)
        errnum = file_fallocate(file, io, ZERO, &file->no_zero_range);
    if (errnum == EOPNOTSUPP) {
        uint64_t done = 0;
        errnum = file_rw_zero(file, io, io->offset, io->length, bounce, &done);
        if (done == 0 && (errnum == ETIMEDOUT || errnum == ENOMEM))
            effect = FARBLK_EFFECT_NONE;
    }
    file_ranges_end(file, io, errnum, effect, "zeroing");
}

void
file_ranges_discard(struct file *file, struct io *io, void **bounce)
{
    if (!file->block) {
        /* As zeroing: where it was announced and does not work after all, the
         * promise that the sectors read as zero is kept. */
        file_ranges_zero(file, io, bounce);
        return;
    }
    uint64_t range[2] = {io->offset, io->length};
    int errnum = ioctl(file->fd, BLKDISCARD, range) == 0 ? 0 : errno;
    file_ranges_end(file, io, errnum,
                    errnum == EOPNOTSUPP ? FARBLK_EFFECT_NONE
                                         : FARBLK_EFFECT_UNKNOWN,
                    "discarding");
}

/* ftruncate(), with interruptions.  0 or an errno. */
static int
file_truncate(struct file *file, uint64_t size)
{
    for (unsigned i = 0; i < FILE_TRIES; i++)
        if (ftruncate(file->fd, (off_t)size) == 0)
            return 0;
        else if (errno != EINTR)
            return errno;
    return EINTR;
}

void
file_ranges_resize(struct file *file, struct io *io)
{
    uint64_t size = atomic_load(&file->size);
    struct stat st;
    int errnum = fstat(file->fd, &st) == 0 ? 0 : errno;
    /* What others appended is not part of the device, and growth reads as
     * zero. */
    if (errnum == 0 && (uint64_t)st.st_size > size && io->length > size)
        errnum = file_truncate(file, size);
    if (errnum == 0)
        errnum = file_truncate(file, io->length);
    if (errnum != 0) {
        io_failed(io, file_io_status(errnum),
                  errnum == EIO ? FARBLK_EFFECT_UNKNOWN : FARBLK_EFFECT_NONE,
                  "resizing %s from %" PRIu64 " to %" PRIu64 " octets: %s",
                  file->label, size, io->length, strerrordesc_np(errnum));
        return;
    }
    atomic_store(&file->size, io->length);
    atomic_fetch_add(&file->resizes, 1);
    io_done(io, 0);
}

/* One walk over the file's map. */
struct file_walk {
    const struct file *file;
    uint64_t size; /* the device's */
    uint64_t limit; /* the file's, whole sectors; less when it was cut */
    unsigned seeks;
    int errnum; /* an error that ends the walk; 0 none */
};

static void
file_walk_begin(struct file_walk *walk, const struct file *file)
{
    struct stat st;
    walk->file = file;
    walk->size = walk->limit = atomic_load(&file->size);
    walk->seeks = 0;
    walk->errnum = fstat(file->fd, &st) == 0 ? 0 : errno;
    if (walk->errnum == 0)
        walk->limit =
            min_u64(walk->size, round_down((uint64_t)st.st_size, file->sector));
}

/* lseek(); `limit` when there is none any more or the file system does not
 * tell of data, `at` when it does not tell of holes. */
static uint64_t
file_walk_seek(struct file_walk *walk, uint64_t at, int whence)
{
    walk->seeks++;
    off_t found = lseek(walk->file->fd, (off_t)at, whence);
    if (found >= 0)
        return min_u64((uint64_t)found, walk->limit);
    if (errno == ENXIO)
        return walk->limit;
    if (errno == EINVAL || errno == EOPNOTSUPP)
        return whence == SEEK_DATA ? at : walk->limit;
    walk->errnum = errno;
    return at;
}

/* The first sector >= at that may hold data; the size when there is none. */
static uint64_t
file_walk_mapped(struct file_walk *walk, uint64_t at)
{
    if (at >= walk->limit)
        return at;
    return round_down(file_walk_seek(walk, at, SEEK_DATA), walk->file->sector);
}

/* The first sector >= at that is wholly a hole.  The size when there is none.
 * When it takes too many looks: *unknown, and how far there is none. */
static uint64_t
file_walk_unmapped(struct file_walk *walk, uint64_t at, bool *unknown)
{
    uint64_t sector = walk->file->sector;
    *unknown = false;
    while (at < walk->limit && walk->errnum == 0) {
        if (walk->seeks >= SEEKS_MAX) {
            *unknown = true;
            return at;
        }
        uint64_t hole = round_up(file_walk_seek(walk, at, SEEK_HOLE), sector);
        if (hole >= walk->limit)
            break;
        uint64_t data = file_walk_seek(walk, hole, SEEK_DATA);
        if (data >= hole + sector || data >= walk->limit)
            return hole;
        at = round_down(data, sector) + sector; /* a hole of less than one */
    }
    return walk->size;
}

static void
file_walk_fail(struct file *file, struct io *io, int errnum)
{
    io_failed(io, file_io_status(errnum), FARBLK_EFFECT_NONE,
              "seeking from %" PRIu64 " in %s: %s", io->offset, file->label,
              strerrordesc_np(errnum));
}

void
file_ranges_seek(struct file *file, struct io *io)
{
    struct file_walk walk;
    bool unknown = false;
    file_walk_begin(&walk, file);
    uint64_t found = io->op == FARBLK_OP_SEEK_MAPPED
                         ? file_walk_mapped(&walk, io->offset)
                         : file_walk_unmapped(&walk, io->offset, &unknown);
    if (walk.errnum != 0)
        file_walk_fail(file, io, walk.errnum);
    else
        io_done(io, unknown ? walk.size : found);
}

void
file_ranges_extents(struct file *file, struct io *io)
{
    struct file_walk walk;
    uint64_t at = io->offset, end = io->offset + io->length;
    size_t count = 0;
    file_walk_begin(&walk, file);
    end = min_u64(end, max_u64(walk.size, at));
    while (at < end && count < io->extents_max && walk.errnum == 0
           && (count == 0 || walk.seeks < SEEKS_MAX)) {
        bool unknown = false, mapped = false;
        uint64_t next = file_walk_mapped(&walk, at);
        if (next <= at && walk.errnum == 0) {
            mapped = true;
            next = file_walk_unmapped(&walk, at, &unknown);
            if (next <= at) /* somebody just made a hole of it */
                next = at + file->sector;
        }
        if (walk.errnum != 0)
            break;
        next = min_u64(next, end);
        io->extents[count++] = (struct farblk_extent){
            .start = at / file->sector,
            .count = (next - at) / file->sector,
            .mapped = mapped,
        };
        at = next;
    }
    if (walk.errnum != 0)
        file_walk_fail(file, io, walk.errnum);
    else
        io_done(io, count);
}
