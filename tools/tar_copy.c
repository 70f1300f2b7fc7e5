/* SPDX-License-Identifier: ISC */
/*
 * Values of an archive into files, a buffer at a time.  One buffer is a request
 * that the library splits and pipelines.
 */
#include "tools/interrupt.h"
#include "tools/tar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COPY_BUFFER (4u << 20)
#define COPY_EXTENTS 64

int
tar_copy_begin(struct tar_copy *copy, struct farblk_tar *tar, const char *what,
               uint64_t total, bool show_progress)
{
    memset(copy, 0, sizeof *copy);
    copy->tar = tar;
    copy->buffer = malloc(COPY_BUFFER);
    if (copy->buffer == NULL)
        return tool_fail(FARBLK_NO_MEMORY, "no memory");
    progress_begin(&copy->progress, what, total, show_progress);
    return TOOL_FINE;
}

void
tar_copy_wipe(struct tar_copy *copy)
{
    progress_end(&copy->progress, copy->covered, copy->moved, true);
    copy->progress.drawn = false;
}

static int
copy_failed_library(struct tar_copy *copy, int status)
{
    copy->over = true;
    tar_copy_wipe(copy);
    return tool_fail_last(status, NULL);
}

static int
copy_failed_file(struct tar_copy *copy, int errnum, const char *file)
{
    copy->over = errnum == ENOSPC || errnum == EDQUOT || errnum == EROFS
                 || errnum == EIO || errnum == EPIPE;
    tar_copy_wipe(copy);
    return tool_fail_errno(errnum, "%s", file);
}

/* Where the file is told by position, or (position < 0) by the descriptor. */
static int
copy_write(int fd, const unsigned char *data, size_t length, int64_t position)
{
    while (length > 0) {
        ssize_t count = position < 0
                            ? write(fd, data, length)
                            : pwrite(fd, data, length, (off_t)position);

        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return errno;
        data += count;
        length -= (size_t)count;
        if (position >= 0)
            position += count;
    }
    return 0;
}

/* Octets that are stored, or are to be written as zeros. */
static int
copy_octets(struct tar_copy *copy, const char *key, uint64_t offset,
            uint64_t length, int fd, int64_t position, const char *file)
{
    while (length > 0) {
        size_t wanted = length < COPY_BUFFER ? (size_t)length : COPY_BUFFER;
        size_t got = 0;
        int status, errnum;

        if (interrupt_signal() != 0) {
            copy->signal = interrupt_signal();
            copy->over = true;
            tar_copy_wipe(copy);
            tool_note("interrupted");
            return TOOL_FAILED;
        }
        status = farblk_tar_get_partial(copy->tar, key, offset, copy->buffer,
                                        wanted, &got);
        if (status < 0)
            return copy_failed_library(copy, status);
        if (got == 0) {
            tar_copy_wipe(copy);
            return tool_fail(FARBLK_CONFLICT, "%s ends at octet %llu", key,
                             (unsigned long long)offset);
        }
        errnum = copy_write(fd, copy->buffer, got, position);
        if (errnum != 0)
            return copy_failed_file(copy, errnum, file);
        if (position >= 0)
            position += (int64_t)got;
        offset += got;
        length -= got;
        copy->covered += got;
        copy->moved += got;
        progress_update(&copy->progress, copy->covered, copy->moved);
    }
    return TOOL_FINE;
}

/* By its extents; what is a hole stays one. */
static int
copy_sparse(struct tar_copy *copy, const char *key, uint64_t offset,
            uint64_t length, int fd, const char *file)
{
    const uint64_t base = offset, end = offset + length;
    int result = TOOL_FINE;

    if (length > INT64_MAX || ftruncate(fd, (off_t)length) != 0)
        return copy_failed_file(copy, length > INT64_MAX ? EFBIG : errno, file);
    while (result == TOOL_FINE && offset < end) {
        struct farblk_tar_extent extents[COPY_EXTENTS];
        int count = farblk_tar_extents(copy->tar, key, offset, end - offset,
                                       extents, COPY_EXTENTS);

        if (count < 0)
            return copy_failed_library(copy, count);
        for (int i = 0; i < count && result == TOOL_FINE; i++) {
            const struct farblk_tar_extent *extent = &extents[i];

            if (extent->hole != 0)
                copy->covered += extent->length;
            else
                result =
                    copy_octets(copy, key, extent->offset, extent->length, fd,
                                (int64_t)(extent->offset - base), file);
            offset = extent->offset + extent->length;
        }
    }
    return result;
}

int
tar_copy_value(struct tar_copy *copy, const char *key, uint64_t offset,
               uint64_t length, int fd, bool sparse, const char *file)
{
    if (sparse)
        return copy_sparse(copy, key, offset, length, fd, file);
    return copy_octets(copy, key, offset, length, fd, -1, file);
}

int
tar_copy_end(struct tar_copy *copy, int result)
{
    progress_end(&copy->progress, copy->covered, copy->moved,
                 result != TOOL_FINE);
    free(copy->buffer);
    return copy->signal != 0 ? 128 + copy->signal : result;
}
