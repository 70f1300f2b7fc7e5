/* SPDX-License-Identifier: ISC */
/*
 * Which sectors of a member are stored.  A sector that lies wholly in a hole is
 * unmapped; one that has a stored octet is mapped.  What is unmapped on the
 * archive's own device is not asked: zeros that tar has stored are data.
 */
#include "backends/tar_member.h"

#include "core/checked.h"

static uint64_t
run_end(const struct farblk_tar_extent *run)
{
    return run->offset + run->length;
}

const struct farblk_tar_extent *
tar_member_run(const struct tar_member *member, uint64_t offset)
{
    size_t low = 0, high = member->run_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (member->runs[middle].offset <= offset)
            low = middle;
        else
            high = middle;
    }
    return &member->runs[low];
}

/* The first sector from `offset` on with something stored in it, or the size. */
static uint64_t
next_mapped(const struct tar_member *member, uint64_t offset)
{
    const struct farblk_tar_extent *end = member->runs + member->run_count;
    const struct farblk_tar_extent *run = tar_member_run(member, offset);
    while (run < end && run->hole)
        run++;
    if (run == end)
        return member->shape.size;
    return max_u64(offset, round_down(run->offset, member->shape.sector_size));
}

/* The first one with nothing stored in it. */
static uint64_t
next_unmapped(const struct tar_member *member, uint64_t offset)
{
    const uint64_t sector = member->shape.sector_size;
    const struct farblk_tar_extent *end = member->runs + member->run_count;
    const struct farblk_tar_extent *run = tar_member_run(member, offset);
    for (; run < end; run++) {
        uint64_t at = round_up(max_u64(offset, run->offset), sector);
        if (run->hole && range_within(at, sector, run_end(run)))
            return at;
    }
    return member->shape.size;
}

static size_t
fill_extents(const struct tar_member *member, struct io *io)
{
    const uint64_t sector = member->shape.sector_size;
    uint64_t at = io->offset, end = io->offset + io->length;
    size_t count = 0;
    while (at < end && count < io->extents_max) {
        uint64_t next = next_mapped(member, at);
        bool mapped = next == at;
        if (mapped)
            next = next_unmapped(member, at);
        next = min_u64(next, end);
        io->extents[count++] = (struct farblk_extent){
            .start = at / sector,
            .count = (next - at) / sector,
            .mapped = mapped,
        };
        at = next;
    }
    return count;
}

void
tar_member_map(const struct tar_member *member, struct io *io)
{
    switch (io->op) {
    case FARBLK_OP_SEEK_MAPPED:
        io_done(io, next_mapped(member, io->offset));
        break;
    case FARBLK_OP_SEEK_UNMAPPED:
        io_done(io, next_unmapped(member, io->offset));
        break;
    default:
        io_done(io, fill_extents(member, io));
        break;
    }
}
