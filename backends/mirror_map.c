/* SPDX-License-Identifier: ISC */
/*
 * Seeks and extents of a mirror are primary's.  Where primary's sectors are
 * smaller than the mirror's, one that is mapped in part is mapped, and one that
 * is unmapped is so as a whole.
 */
#include "backends/mirror.h"

#include "core/checked.h"

/* Append [start, start + count), to the last one if that is of its kind. */
static size_t
round_put(struct farblk_extent *extents, size_t out, uint64_t start,
          uint64_t count, bool mapped)
{
    if (count == 0)
        return out;
    if (out > 0 && (extents[out - 1].mapped != 0) == mapped) {
        extents[out - 1].count += count;
        return out;
    }
    extents[out] = (struct farblk_extent){
        .start = start, .count = count, .mapped = mapped};
    return out + 1;
}

/* There are never more results than inputs so far: each mapped result has a
 * mapped input in it that no other one has, each unmapped one lies in one that
 * no other lies in. */
size_t
mirror_round(struct farblk_extent *extents, size_t count, uint32_t from,
             uint32_t to)
{
    const uint64_t ratio = to / from;
    uint64_t known = 0; /* of a sector that has begun: how much is known */
    bool mapped = false; /*   and whether some of it is mapped */
    size_t out = 0;
    if (ratio == 1)
        return count;
    for (size_t i = 0; i < count; i++) {
        struct farblk_extent in = extents[i];
        uint64_t at = in.start, left = in.count;
        if (known > 0) {
            uint64_t more = min_u64(left, ratio - known);
            mapped = mapped || in.mapped != 0;
            known += more;
            at += more;
            left -= more;
            if (known < ratio)
                continue;
            out = round_put(extents, out, at / ratio - 1, 1, mapped);
        }
        out = round_put(extents, out, at / ratio, left / ratio, in.mapped != 0);
        known = left % ratio;
        mapped = in.mapped != 0;
    }
    if (known > 0 && (mapped || out == 0)) {
        const struct farblk_extent *last = &extents[out - 1];
        uint64_t at =
            out > 0 ? last->start + last->count : extents[0].start / ratio;
        out = round_put(extents, out, at, 1, true);
    }
    return out;
}

static bool
map_failed(struct mirror_op *op)
{
    const struct error *error = &op->call[PRIMARY].error;
    if (error->status == 0)
        return false;
    mirror_op_failed(op, PRIMARY, error);
    return true;
}

static void
map_extents_done(struct request *call)
{
    struct mirror_op *op = call->owner;
    struct mirror *mirror = op->mirror;
    if (!map_failed(op))
        mirror_op_done(op, mirror_round(op->io->extents, (size_t)call->value,
                                        mirror->child_sector[PRIMARY],
                                        mirror->shape.sector_size));
}

/* What a seek of primary found, in octets and not past the mirror's end. */
static uint64_t
map_found(const struct mirror_op *op)
{
    struct mirror *mirror = op->mirror;
    uint64_t found = op->call[PRIMARY].value * mirror->child_sector[PRIMARY];
    pthread_mutex_lock(&mirror->mutex);
    uint64_t size = mirror->size;
    pthread_mutex_unlock(&mirror->mutex);
    return min_u64(found, size);
}

static void
map_mapped_done(struct request *call)
{
    struct mirror_op *op = call->owner;
    if (!map_failed(op))
        mirror_op_done(
            op, round_down(map_found(op), op->mirror->shape.sector_size));
}

static void map_unmapped_done(struct request *call);

static void
map_seek_unmapped(struct mirror_op *op)
{
    mirror_op_ask(op, PRIMARY, FARBLK_OP_SEEK_UNMAPPED, op->at, 0,
                  map_unmapped_done);
}

/* op->at is a whole sector whose begin may be unmapped. */
static void
map_hole_done(struct request *call)
{
    struct mirror_op *op = call->owner;
    if (map_failed(op))
        return;
    uint64_t found = map_found(op), sector = op->mirror->shape.sector_size;
    if (found >= op->at + sector) {
        mirror_op_done(op, op->at);
        return;
    }
    op->at = max_u64(found, op->at + sector);
    map_seek_unmapped(op);
}

static void
map_unmapped_done(struct request *call)
{
    struct mirror_op *op = call->owner;
    if (map_failed(op))
        return;
    uint64_t found = map_found(op), sector = op->mirror->shape.sector_size;
    op->at = round_up(found, sector);
    pthread_mutex_lock(&op->mirror->mutex);
    uint64_t size = op->mirror->size;
    pthread_mutex_unlock(&op->mirror->mutex);
    if (op->at >= size)
        mirror_op_done(op, size);
    else if (sector == op->mirror->child_sector[PRIMARY])
        mirror_op_done(op, op->at);
    else
        mirror_op_ask(op, PRIMARY, FARBLK_OP_SEEK_MAPPED, op->at, 0,
                      map_hole_done);
}

void
mirror_map(struct mirror_op *op)
{
    struct io *io = op->io;
    op->at = io->offset;
    if (io->op == FARBLK_OP_EXTENTS) {
        op->answer = (struct iovec){
            .iov_base = io->extents,
            .iov_len = io->extents_max * sizeof *io->extents,
        };
        mirror_op_ask(op, PRIMARY, FARBLK_OP_EXTENTS, io->offset, io->length,
                      map_extents_done);
    } else if (io->op == FARBLK_OP_SEEK_MAPPED) {
        mirror_op_ask(op, PRIMARY, FARBLK_OP_SEEK_MAPPED, io->offset, 0,
                      map_mapped_done);
    } else {
        map_seek_unmapped(op);
    }
}
