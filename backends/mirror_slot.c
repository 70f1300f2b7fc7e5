/* SPDX-License-Identifier: ISC */
/*
 * One piece of a mirror's copying: its range is taken, shared with readers, and
 * kept until secondary has what primary has.
 *
 *   data  read primary, write secondary
 *   zero  primary was unmapped when it was planned: ask again, now that nobody
 *         changes it; then ask whether secondary is unmapped there as well, and
 *         if not, make it zero
 *
 * What turns out otherwise shortens the piece, or makes it one of data; the
 * rest goes back into the set.  Each step begins in the completion of the one
 * before, on whatever thread that comes.
 */
#include "backends/mirror.h"

#include "core/checked.h"

enum { STEP_VERIFY, STEP_LOOK, STEP_ZERO, STEP_READ, STEP_WRITE };

static void slot_answered(struct request *call);

static void
slot_ask(struct mirror_slot *slot, int step, unsigned side, enum farblk_op op,
         uint64_t length, const struct iovec *iov)
{
    struct mirror *mirror = slot->mirror;
    struct request *call = &slot->call;
    slot->step = step;
    mirror_call(mirror, call, side, op, slot->offset, length, 0);
    if (iov != NULL) {
        call->iov = &slot->iov;
        slot->iov = *iov;
        call->iovcnt = 1;
    }
    /* With some timeout, so that it can be cancelled. */
    if (mirror->child[side]->timeout_ms == 0)
        call->timeout_ms = INT32_MAX;
    call->done = slot_answered;
    call->owner = slot;
    request_submit(call);
}

/* The first `done` octets of the piece are the same on both. */
static void
slot_end(struct mirror_slot *slot, uint64_t done)
{
    struct mirror *mirror = slot->mirror;
    struct range_lock *ready = mirror_unlock(mirror, &slot->lock);
    pthread_mutex_lock(&mirror->mutex);
    mirror_dirty_add(&mirror->dirty, slot->offset + done,
                     min_u64(slot->offset + slot->taken, mirror->size));
    mirror->in_flight -= slot->taken;
    mirror->busy--;
    slot->busy = false;
    pthread_cond_broadcast(&mirror->wake);
    pthread_mutex_unlock(&mirror->mutex); /* the mirror may go */
    mirror_grant(ready);
}

/* Whether the piece has to end here; then it has. */
static bool
slot_stopped(struct mirror_slot *slot)
{
    struct mirror *mirror = slot->mirror;
    pthread_mutex_lock(&mirror->mutex);
    bool stop = mirror_halted(mirror) || mirror->failed
                || atomic_load(&mirror->alone) || slot->offset >= mirror->size;
    if (!stop) /* it may have been cut while the piece waited */
        slot->length = min_u64(slot->length, mirror->size - slot->offset);
    pthread_mutex_unlock(&mirror->mutex);
    if (stop)
        slot_end(slot, 0);
    return stop;
}

static void
slot_read(struct mirror_slot *slot)
{
    struct mirror *mirror = slot->mirror;
    slot->kind = SLOT_DATA;
    slot->length = min_u64(slot->length, mirror->piece);
    pthread_mutex_lock(&mirror->mutex);
    if (mirror->rate > 0)
        mirror->next_us +=
            (int64_t)(slot->length * UINT64_C(1000000) / mirror->rate);
    pthread_mutex_unlock(&mirror->mutex);
    struct iovec iov = {slot->block->data, slot->length};
    slot_ask(slot, STEP_READ, PRIMARY, FARBLK_OP_READ, slot->length, &iov);
}

static void
slot_extents(struct mirror_slot *slot, int step, unsigned side)
{
    struct iovec iov = {slot->extents, sizeof slot->extents};
    slot_ask(slot, step, side, FARBLK_OP_EXTENTS, slot->length, &iov);
}

/* Octets that an extents call of a side told about first, and their kind. */
static uint64_t
slot_run(struct mirror_slot *slot, unsigned side, bool *mapped)
{
    struct mirror *mirror = slot->mirror;
    uint32_t sector = mirror->shape.sector_size;
    size_t count = mirror_round(slot->extents, (size_t)slot->call.value,
                                mirror->child_sector[side], sector);
    *mapped = count == 0 || slot->extents[0].mapped != 0;
    return count == 0 ? sector : slot->extents[0].count * sector;
}

static void
slot_zero(struct mirror_slot *slot)
{
    struct mirror *mirror = slot->mirror;
    enum farblk_op op = mirror_zero_op(mirror, SECONDARY);
    if (op == 0) {
        slot_read(slot); /* zeros, by data */
        return;
    }
    slot->length = min_u64(slot->length, MIRROR_ZERO_MAX);
    slot_ask(slot, STEP_ZERO, SECONDARY, op, slot->length, NULL);
}

static void
slot_verified(struct mirror_slot *slot)
{
    bool mapped;
    uint64_t run = slot_run(slot, PRIMARY, &mapped);
    slot->length = min_u64(slot->length, run);
    if (mapped)
        slot_read(slot);
    else if ((slot->mirror->child_features[SECONDARY] & FARBLK_CAN_SEEK) != 0)
        slot_extents(slot, STEP_LOOK, SECONDARY);
    else
        slot_zero(slot);
}

static void
slot_looked(struct mirror_slot *slot)
{
    bool mapped;
    uint64_t run = slot_run(slot, SECONDARY, &mapped);
    slot->length = min_u64(slot->length, run);
    if (mapped)
        slot_zero(slot);
    else
        slot_end(slot, slot->length);
}

static void
slot_failed(struct mirror_slot *slot)
{
    struct mirror *mirror = slot->mirror;
    const struct error *error = &slot->call.error;
    pthread_mutex_lock(&mirror->mutex);
    bool halted = mirror_halted(mirror);
    pthread_mutex_unlock(&mirror->mutex);
    if (!halted) {
        if (slot->step == STEP_READ || slot->step == STEP_VERIFY)
            mirror_fail(mirror, "primary", error);
        else
            mirror_secondary_failed(mirror, error);
    }
    slot_end(slot, 0);
}

static void
slot_answered(struct request *call)
{
    struct mirror_slot *slot = call->owner;
    if (call->error.status != 0) {
        slot_failed(slot);
        return;
    }
    if (slot->step != STEP_ZERO && slot->step != STEP_WRITE
        && slot_stopped(slot))
        return;
    switch (slot->step) {
    case STEP_VERIFY:
        slot_verified(slot);
        return;
    case STEP_LOOK:
        slot_looked(slot);
        return;
    case STEP_READ: {
        struct iovec iov = {slot->block->data, slot->length};
        slot_ask(slot, STEP_WRITE, SECONDARY, FARBLK_OP_WRITE, slot->length,
                 &iov);
        return;
    }
    default:
        slot_end(slot, slot->length);
        return;
    }
}

static void
slot_granted(struct mirror_lock *lock)
{
    struct mirror_slot *slot = (struct mirror_slot *)lock;
    if (slot_stopped(slot))
        return;
    if (slot->kind == SLOT_DATA)
        slot_read(slot);
    else
        slot_extents(slot, STEP_VERIFY, PRIMARY);
}

void
mirror_slot_begin(struct mirror_slot *slot)
{
    slot->lock.granted = slot_granted;
    slot->length = slot->taken;
    if (mirror_lock(slot->mirror, &slot->lock, slot->offset, slot->taken,
                    false))
        slot_granted(&slot->lock);
}
