/* SPDX-License-Identifier: ISC */
/*
 * ramdisk: memory of this process, by name.
 *
 * The driver between core's contract and the content, which is ramtree.h's,
 * and the names, which are ramdisk.h's.  The state of all handles of a ramdisk
 * is the ramdisk itself.  Each io completes inside submit: there is nothing to
 * wait for.
 *
 * A lent read gives references to the blocks of the content, which never
 * change; it takes at most length / 4096 + 2 parts of a loan.
 */
#include "backends/ramdisk.h"

#include "core/checked.h"
#include "core/driver.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define RAMDISK_MAX_TRANSFER (4u << 20)
#define RAMDISK_PREFERRED_TRANSFER (256u << 10)
/* Bounds the time of one zeroing, which is done inside submit. */
#define RAMDISK_MAX_RANGE ((uint64_t)16 << 30)
/* What is looked at in one go. */
#define RAMDISK_PIECES 64

static const struct uri_param ramdisk_params[] = {
    {.name = "size",
     .kind = URI_SIZE,
     .max = INT64_MAX,
     .help = "octets when it is made, whole sectors (16M)"},
    {.name = "sector",
     .kind = URI_SIZE,
     .min = FARBLK_SECTOR_MIN,
     .max = FARBLK_SECTOR_MAX,
     .help = "octets of a sector when it is made, a power of two (512)"},
    {.name = NULL},
};

static int
ramdisk_open(const struct uri *uri, bool read_only, struct candidate *found,
             struct error *error)
{
    struct ramdisk_wish wish = {
        .sector_size = uri_number(uri, "sector", 0),
        .has_size = uri_get(uri, "size") != NULL,
        .size = uri_number(uri, "size", 0),
    };
    struct ramdisk *disk;

    (void)read_only; /* of the handle, not of the ramdisk */
    if (uri->has_authority)
        return error_set(error, FARBLK_INVALID,
                         "a ramdisk has no host: ramdisk:NAME");
    int status = ramdisk_connect(uri->path, &wish, &disk, error);
    if (status != 0)
        return status;
    found->state = disk;
    /* By the object, for the name may have been another's. */
    snprintf(found->key, sizeof(found->key), "ramdisk:%" PRIu64, disk->serial);
    return 0;
}

static int
ramdisk_start(void *state, struct device *device, struct shape *shape,
              struct error *error)
{
    const struct ramdisk *disk = state;

    (void)device;
    (void)error;
    shape->sector_size = ramtree_sector_size(&disk->tree);
    shape->size = ramtree_size(&disk->tree);
    shape->features = FARBLK_CAN_RESIZE | FARBLK_CAN_DISCARD
                      | FARBLK_DISCARD_ZEROES | FARBLK_CAN_WRITE_ZEROES
                      | FARBLK_CAN_SEEK | FARBLK_CAN_FUA | FARBLK_CAN_WATCH
                      | FARBLK_SECTOR_ATOMIC;
    shape->max_transfer = RAMDISK_MAX_TRANSFER;
    shape->preferred_transfer = RAMDISK_PREFERRED_TRANSFER;
    shape->max_range = RAMDISK_MAX_RANGE;
    snprintf(shape->transport, sizeof(shape->transport), "local");
    snprintf(shape->name, sizeof(shape->name), "%s", disk->name);
    return 0;
}

static int
ramdisk_join(void *running, void *candidate, bool *read_only,
             struct error *error)
{
    /* The same ramdisk; what the URI said was checked when it was found. */
    (void)running;
    (void)candidate;
    (void)read_only;
    (void)error;
    return 0;
}

static void
ramdisk_close(void *state)
{
    ramdisk_put(state);
}

static void
ramdisk_read(struct ramdisk *disk, struct io *io)
{
    struct ramtree_piece piece[RAMDISK_PIECES];
    struct iov_view view = io->data;
    uint64_t done = 0;

    while (done < io->length) {
        size_t count = ramtree_get(&disk->tree, io->offset + done,
                                   io->length - done, piece, RAMDISK_PIECES);
        for (size_t i = 0; i < count; i++) {
            if (piece[i].block != NULL)
                iov_copy_in(&view, piece[i].data, piece[i].length);
            else
                iov_zero(&view, piece[i].length);
            block_put(piece[i].block);
            done += piece[i].length;
        }
    }
    io_done(io, 0);
}

static bool
ramdisk_lend_zeroes(struct loan *loan, uint64_t length)
{
    while (length > 0) {
        uint64_t part = min_u64(length, BLOCK_ZEROES);
        if (!loan_add(loan, block_zeroes, part, NULL))
            return false;
        length -= part;
    }
    return true;
}

static void
ramdisk_lend(struct ramdisk *disk, struct io *io)
{
    struct ramtree_piece piece[RAMDISK_PIECES];
    struct loan *loan = io->loan;
    uint64_t done = 0;
    bool fits = true;

    while (done < io->length && fits) {
        size_t count = ramtree_get(&disk->tree, io->offset + done,
                                   io->length - done, piece, RAMDISK_PIECES);
        for (size_t i = 0; i < count; i++) {
            if (piece[i].block == NULL) {
                fits = fits && ramdisk_lend_zeroes(loan, piece[i].length);
            } else if (!fits
                       || !loan_add(loan, piece[i].data, piece[i].length,
                                    piece[i].block)) {
                fits = false;
                block_put(piece[i].block);
            }
            done += piece[i].length;
        }
    }
    if (fits) {
        io_done(io, 0);
        return;
    }
    size_t capacity = loan->capacity;
    loan_return(loan);
    io_failed(io, FARBLK_NO_MEMORY, FARBLK_EFFECT_NONE,
              "%" PRIu64 " octets at %" PRIu64
              " do not fit into a loan of %zu parts",
              io->length, io->offset, capacity);
}

/* An operation that changes the ramdisk has ended. */
static void
ramdisk_changed(struct ramdisk *disk, struct io *io, bool fine, bool changed)
{
    uint64_t limit = block_limit();

    if (fine) {
        io_done(io, 0);
        return;
    }
    enum farblk_effect effect =
        changed ? FARBLK_EFFECT_UNKNOWN : FARBLK_EFFECT_NONE;
    if (limit == UINT64_MAX)
        io_failed(io, FARBLK_NO_SPACE, effect,
                  "ramdisk '%.64s': no memory for %" PRIu64
                  " octets at %" PRIu64 "; %" PRIu64
                  " octets are in use, without a limit",
                  disk->name, io->length, io->offset, block_counted());
    else
        io_failed(io, FARBLK_NO_SPACE, effect,
                  "ramdisk '%.64s': no memory for %" PRIu64
                  " octets at %" PRIu64 "; %" PRIu64
                  " octets are in use of the limit of %" PRIu64,
                  disk->name, io->length, io->offset, block_counted(), limit);
}

static void
ramdisk_write(struct ramdisk *disk, struct io *io)
{
    bool changed;
    bool fine =
        ramtree_write(&disk->tree, io->offset, io->data, io->payload, &changed);

    ramdisk_changed(disk, io, fine, changed);
}

static void
ramdisk_zero(struct ramdisk *disk, struct io *io)
{
    bool mapped =
        io->op == FARBLK_OP_WRITE_ZEROES && (io->flags & FARBLK_NO_UNMAP) != 0;
    bool changed;
    bool fine =
        ramtree_zero(&disk->tree, io->offset, io->length, mapped, &changed);

    ramdisk_changed(disk, io, fine, changed);
}

static void
ramdisk_resize(struct ramdisk *disk, struct io *io)
{
    bool fine = ramtree_resize(&disk->tree, io->length);

    ramdisk_changed(disk, io, fine, false);
}

static void
ramdisk_seek(struct ramdisk *disk, struct io *io, bool wanted)
{
    uint64_t size = ramtree_size(&disk->tree);
    uint64_t found = io->offset;

    if (found < size) {
        bool mapped;
        uint64_t end = ramtree_run(&disk->tree, found, size, &mapped);
        if (mapped != wanted)
            found = end;
    }
    io_done(io, found);
}

static void
ramdisk_extents(struct ramdisk *disk, struct io *io)
{
    uint32_t sector_size = ramtree_sector_size(&disk->tree);
    uint64_t at = io->offset, end = io->offset + io->length;
    size_t count = 0;

    while (at < end && count < io->extents_max) {
        bool mapped;
        uint64_t stop = ramtree_run(&disk->tree, at, end, &mapped);
        io->extents[count++] = (struct farblk_extent){
            .start = at / sector_size,
            .count = (stop - at) / sector_size,
            .mapped = mapped,
        };
        at = stop;
    }
    io_done(io, count);
}

static void
ramdisk_foresee(void *state, uint64_t offset)
{
    struct ramdisk *disk = state;
    ramtree_foresee(&disk->tree, offset);
}

static void
ramdisk_submit(void *state, struct io *io)
{
    struct ramdisk *disk = state;

    switch (io->op) {
    case FARBLK_OP_READ:
        if (io->loan != NULL)
            ramdisk_lend(disk, io);
        else
            ramdisk_read(disk, io);
        return;
    case FARBLK_OP_WRITE:
        ramdisk_write(disk, io);
        return;
    case FARBLK_OP_FLUSH:
        io_done(io, 0);
        return;
    case FARBLK_OP_DISCARD:
    case FARBLK_OP_WRITE_ZEROES:
        ramdisk_zero(disk, io);
        return;
    case FARBLK_OP_RESIZE:
        ramdisk_resize(disk, io);
        return;
    case FARBLK_OP_SEEK_MAPPED:
        ramdisk_seek(disk, io, true);
        return;
    case FARBLK_OP_SEEK_UNMAPPED:
        ramdisk_seek(disk, io, false);
        return;
    case FARBLK_OP_EXTENTS:
        ramdisk_extents(disk, io);
        return;
    case FARBLK_OP_GET_INFO:
    case FARBLK_OP_WATCH:
        break; /* core's */
    }
    io_failed(io, FARBLK_UNIMPLEMENTED, FARBLK_EFFECT_NONE,
              "a ramdisk has no operation %d", (int)io->op);
}

const struct driver driver_ramdisk = {
    .name = "ramdisk",
    .schemes = "ramdisk",
    .summary = "memory of this process, by name",
    .usage = "ramdisk:NAME[?size=SIZE&sector=N]",
    .params = ramdisk_params,
    .flags = DRIVER_SECTORS_ATOMIC | DRIVER_LENDS | DRIVER_LOOKS_ONCE,
    /* Nothing here is more stable than at completion. */
    .native_fua = 1u << FARBLK_OP_WRITE | 1u << FARBLK_OP_DISCARD
                  | 1u << FARBLK_OP_WRITE_ZEROES | 1u << FARBLK_OP_RESIZE,
    .open = ramdisk_open,
    .start = ramdisk_start,
    .join = ramdisk_join,
    .close = ramdisk_close,
    .submit = ramdisk_submit,
    .foresee = ramdisk_foresee,
};
