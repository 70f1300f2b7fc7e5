/* SPDX-License-Identifier: ISC */
/* Requests to the children of a mirror: what is asked of which, and for how
 * long. */
#include "backends/mirror.h"

#include "core/checked.h"

#include <string.h>

enum farblk_op
mirror_zero_op(const struct mirror *mirror, unsigned side)
{
    uint64_t features = mirror->child_features[side];
    uint64_t discards = FARBLK_CAN_DISCARD | FARBLK_DISCARD_ZEROES;
    if ((features & FARBLK_CAN_WRITE_ZEROES) != 0)
        return FARBLK_OP_WRITE_ZEROES;
    return (features & discards) == discards ? FARBLK_OP_DISCARD
                                             : (enum farblk_op)0;
}

enum farblk_op
mirror_discard_op(const struct mirror *mirror, unsigned side)
{
    uint64_t features = mirror->child_features[side];
    uint64_t discards = FARBLK_CAN_DISCARD | FARBLK_DISCARD_ZEROES;
    return (features & discards) == discards ? FARBLK_OP_DISCARD
                                             : FARBLK_OP_WRITE_ZEROES;
}

const char *
mirror_words(const struct error *error)
{
    size_t name = strspn(error->text, "abcdefghijklmnopqrstuvwxyz_");
    return strncmp(error->text + name, ": ", 2) == 0 ? error->text + name + 2
                                                     : error->text;
}

void
mirror_call(struct mirror *mirror, struct request *call, unsigned side,
            enum farblk_op op, uint64_t offset, uint64_t length, uint32_t flags)
{
    uint32_t sector = mirror->child_sector[side];
    call->handle = mirror->child[side];
    call->op = op;
    call->flags = flags;
    call->sector = offset / sector;
    call->count = length / sector;
    call->iov = NULL;
    call->iovcnt = 0;
    call->timeout_ms = 0;
    call->has_whole = false;
    call->loan = NULL;
    call->payload = NULL;
    call->ring = NULL;
}

/* What is left of the io's time; the children's own when it has none. */
static int32_t
op_timeout(const struct mirror_op *op, unsigned side)
{
    int32_t own = op->mirror->child[side]->timeout_ms;
    if (op->io->deadline_ms == 0)
        return 0;
    int64_t left = op->io->deadline_ms - timer_now();
    if (op->repairs)
        left = MIRROR_REPAIR_MS;
    if (left < 1)
        left = 1;
    if (own > 0 && own < left)
        left = own;
    return (int32_t)min_u64((uint64_t)left, INT32_MAX);
}

void
mirror_op_ask(struct mirror_op *op, unsigned side, enum farblk_op what,
              uint64_t offset, uint64_t length,
              void (*done)(struct request *call))
{
    struct request *call = &op->call[side];
    mirror_call(op->mirror, call, side, what, offset, length,
                op->io->flags & (FARBLK_FUA | FARBLK_NO_UNMAP));
    call->timeout_ms = op_timeout(op, side);
    call->done = done;
    call->owner = op;
    switch (what) {
    case FARBLK_OP_READ:
    case FARBLK_OP_WRITE:
        call->iov = op->iov;
        call->iovcnt = op->iovcnt;
        call->payload = op->io->payload;
        break;
    case FARBLK_OP_EXTENTS:
    case FARBLK_OP_GET_INFO:
        call->iov = &op->answer;
        call->iovcnt = 1;
        call->flags = 0;
        break;
    case FARBLK_OP_WRITE_ZEROES:
        break;
    default:
        call->flags &= ~(uint32_t)FARBLK_NO_UNMAP;
        break;
    }
    request_submit(call);
}
