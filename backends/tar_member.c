/* SPDX-License-Identifier: ISC */
/*
 * tar-member: a member of a tar archive as a read-only device.
 *
 * The archive lies on another device, the child, which is driven by core's
 * requests as a program's would be.  A read that is one window of whole sectors
 * on the child goes there with the caller's buffers.  Any other (the octets of
 * a member begin at any 512 of the child, and a sparse member lacks some) reads
 * the sectors that cover what is stored of it, which is one piece, into memory
 * of its own, and copies; a read of a hole asks nobody.
 *
 * What it leaves out: it keeps what it found when it was opened.  The archive
 * may grow meanwhile; the member must not be removed or changed.
 */
#include "backends/tar_member.h"

#include "core/checked.h"
#include "core/device.h"

#include <stdlib.h>
#include <string.h>

#define DIRECT_BUFFERS 16u

/* A read under way. */
struct tar_read {
    const struct tar_member *member;
    struct io *io;
    struct block *block; /* NULL: straight into the io's buffers */
    uint64_t begin; /* octet of the child where the block begins */
    struct iovec iov[DIRECT_BUFFERS];
    struct request call;
};

static const struct uri_param tar_member_params[] = {
    {.name = "device",
     .kind = URI_STRING,
     .help = "URI, percent-encoded, of the device that has the archive"},
    {.name = "member", .kind = URI_STRING, .help = "which member: a/b"},
    {.name = "sector",
     .kind = URI_SIZE,
     .min = FARBLK_SECTOR_MIN,
     .max = FARBLK_SECTOR_MAX,
     .help = "octets of a sector, 512 ... 64k; 512 unless given"},
    {.name = NULL},
};

/* ------------------------------------------------------------ reads */

/* What is stored of the io's range: [*begin, *end) of the child.  False:
 * nothing. */
static bool
stored_range(const struct tar_member *member, const struct io *io,
             uint64_t *begin, uint64_t *end)
{
    const uint64_t last = io->offset + io->length;
    bool any = false;
    const struct farblk_tar_extent *run = tar_member_run(member, io->offset);
    for (uint64_t at = io->offset; at < last; run++) {
        uint64_t stop = min_u64(run->offset + run->length, last);
        if (!run->hole) {
            if (!any)
                *begin = run->device_offset + (at - run->offset);
            *end = run->device_offset + (stop - run->offset);
            any = true;
        }
        at = stop;
    }
    return any;
}

/* Whether the io is a window of whole sectors on the child, in buffers that it
 * can be asked for; these are then in read->iov. */
static bool
read_direct(struct tar_read *read, uint64_t begin, uint64_t end)
{
    const struct io *io = read->io;
    const uint32_t sector = read->member->child_sector;
    uint64_t length;
    if (end - begin != io->length || begin % sector != 0 || end % sector != 0)
        return false;
    size_t count = iov_export(&io->data, read->iov, DIRECT_BUFFERS, &length);
    if (length != io->length)
        return false;
    for (size_t i = 0; i < count; i++)
        if (read->iov[i].iov_len % sector != 0)
            return false;
    read->call.iovcnt = count;
    return true;
}

/* From the block to the io's buffers. */
static void
read_copy(const struct tar_read *read)
{
    const struct io *io = read->io;
    const uint64_t last = io->offset + io->length;
    struct iov_view to = io->data;
    const struct farblk_tar_extent *run =
        tar_member_run(read->member, io->offset);
    for (uint64_t at = io->offset; at < last; run++) {
        uint64_t stop = min_u64(run->offset + run->length, last);
        if (run->hole)
            iov_zero(&to, stop - at);
        else
            iov_copy_in(
                &to,
                read->block->data
                    + (run->device_offset + (at - run->offset) - read->begin),
                stop - at);
        at = stop;
    }
}

static void
read_free(struct tar_read *read)
{
    block_put(read->block);
    free(read);
}

/* The child's word about its own arguments is none about the caller's. */
static int
read_status(int status)
{
    return status == FARBLK_INVALID || status == FARBLK_UNIMPLEMENTED
               ? FARBLK_IO
               : status;
}

static void
read_done(struct request *call)
{
    struct tar_read *read = call->owner;
    struct io *io = read->io;
    if (call->error.status != 0) {
        struct error error = call->error;
        read_free(read);
        io_failed(io, read_status(error.status), FARBLK_EFFECT_NONE,
                  "archive: %.400s", error.text);
        return;
    }
    if (read->block != NULL)
        read_copy(read);
    read_free(read);
    io_done(io, 0);
}

/* What is left of the io's time; 0: the child's own. */
static int32_t
read_timeout(const struct tar_read *read)
{
    int32_t own = read->member->child->timeout_ms;
    if (read->io->deadline_ms == 0)
        return 0;
    int64_t left = read->io->deadline_ms - timer_now();
    if (own > 0 && own < left)
        left = own;
    return left < 1 ? 1 : (int32_t)min_u64((uint64_t)left, INT32_MAX);
}

static void
tar_member_read(const struct tar_member *member, struct io *io)
{
    const uint32_t sector = member->child_sector;
    uint64_t begin = 0, end = 0;
    if (!stored_range(member, io, &begin, &end)) {
        struct iov_view to = io->data;
        iov_zero(&to, io->length);
        io_done(io, 0);
        return;
    }
    struct tar_read *read = calloc(1, sizeof *read);
    if (read == NULL) {
        io_failed(io, FARBLK_NO_MEMORY, FARBLK_EFFECT_NONE,
                  "no memory for a read");
        return;
    }
    read->member = member;
    read->io = io;
    if (!read_direct(read, begin, end)) {
        begin = round_down(begin, sector);
        end = round_up(end, sector);
        read->begin = begin;
        read->block = block_alloc((uint32_t)(end - begin));
        if (read->block == NULL) {
            read_free(read);
            io_failed(io, FARBLK_NO_MEMORY, FARBLK_EFFECT_NONE,
                      "no memory for %llu octets of an archive",
                      (unsigned long long)(end - begin));
            return;
        }
        read->iov[0] = (struct iovec){.iov_base = read->block->data,
                                      .iov_len = (size_t)(end - begin)};
        read->call.iovcnt = 1;
    }
    struct request *call = &read->call;
    call->handle = member->child;
    call->op = FARBLK_OP_READ;
    call->sector = begin / sector;
    call->iov = read->iov;
    call->timeout_ms = read_timeout(read);
    call->done = read_done;
    call->owner = read;
    request_submit(call);
}

/* ------------------------------------------------------------ the driver */

static int
tar_member_open(const struct uri *uri, bool read_only, struct candidate *found,
                struct error *error)
{
    struct tar_member *member;
    (void)read_only; /* it always is */
    int status = tar_member_create(uri, &member, error);
    if (status == 0)
        found->state = member;
    return status;
}

static int
tar_member_start(void *state, struct device *device, struct shape *shape,
                 struct error *error)
{
    const struct tar_member *member = state;
    (void)device;
    (void)error;
    *shape = member->shape;
    return 0;
}

static void
tar_member_disconnect(void *state)
{
    struct tar_member *member = state;
    farblk_disconnect(member->child);
}

static void
tar_member_close(void *state)
{
    tar_member_free(state);
}

static void
tar_member_submit(void *state, struct io *io)
{
    switch (io->op) {
    case FARBLK_OP_READ:
        tar_member_read(state, io);
        break;
    case FARBLK_OP_FLUSH:
        io_done(io, 0); /* nothing has ever changed */
        break;
    case FARBLK_OP_SEEK_MAPPED:
    case FARBLK_OP_SEEK_UNMAPPED:
    case FARBLK_OP_EXTENTS:
        tar_member_map(state, io);
        break;
    default:
        io_failed(io, FARBLK_IS_READ_ONLY, FARBLK_EFFECT_NONE,
                  "a member of an archive does not change");
        break;
    }
}

const struct driver driver_tar_member = {
    .name = "tar-member",
    .schemes = "tar-member",
    .summary = "a member of a tar archive, read-only",
    .usage = "tar-member:?device=URI&member=KEY[&sector=SIZE]",
    .params = tar_member_params,
    .flags = DRIVER_SECTORS_ATOMIC | DRIVER_STACKED,
    .open = tar_member_open,
    .start = tar_member_start,
    .disconnect = tar_member_disconnect,
    .close = tar_member_close,
    .submit = tar_member_submit,
};
