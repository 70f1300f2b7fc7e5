/* SPDX-License-Identifier: ISC */
/*
 * Resizing a mirror: both children, or none.
 *
 * It comes alone (core's gate) and takes the whole range, so that nothing of
 * the copying is under way.  Secondary goes first: what is cut off there is
 * but a copy, and can be copied again when primary refuses.  What a resize
 * adds reads as zero on both.
 */
#include "backends/mirror.h"

#include "core/checked.h"

/* Whether one begins, or ends. */
static void
resize_mark(struct mirror *mirror)
{
    pthread_mutex_lock(&mirror->mutex);
    mirror->resizes++;
    pthread_cond_broadcast(&mirror->wake);
    pthread_mutex_unlock(&mirror->mutex);
}

static void
resize_succeeded(struct mirror_op *op)
{
    struct mirror *mirror = op->mirror;
    pthread_mutex_lock(&mirror->mutex);
    mirror->size = op->io->length;
    mirror_dirty_cut(&mirror->dirty, mirror->size);
    pthread_mutex_unlock(&mirror->mutex);
    resize_mark(mirror);
    mirror_op_done(op, 0);
}

static void
resize_failed(struct mirror_op *op)
{
    resize_mark(op->mirror);
    mirror_op_failed(op, PRIMARY, &op->error);
}

/* Secondary has its old size again, or not. */
static void
resize_back_done(struct request *call)
{
    struct mirror_op *op = call->owner;
    struct mirror *mirror = op->mirror;
    if (call->error.status != 0) {
        mirror_fail(mirror, "secondary could not be given its size back",
                    &call->error);
    } else if (op->io->length < op->old_size) {
        pthread_mutex_lock(&mirror->mutex);
        mirror_dirty_add(&mirror->dirty, op->io->length, op->old_size);
        mirror->complete = false;
        mirror->missed = true;
        mirror->error = op->error;
        pthread_mutex_unlock(&mirror->mutex);
    }
    resize_failed(op);
}

static void
resize_back(struct mirror_op *op)
{
    op->repairs = true;
    if (atomic_load(&op->mirror->alone))
        resize_failed(op);
    else
        mirror_op_ask(op, SECONDARY, FARBLK_OP_RESIZE, 0, op->old_size,
                      resize_back_done);
}

static void
resize_note(struct mirror_op *op, const char *who, const struct error *error)
{
    int status = error->status;
    if (status == FARBLK_DISCONNECTED && who[0] == 's')
        status = FARBLK_IO;
    error_set(&op->error, status, "%s does not take %llu octets: %.400s", who,
              (unsigned long long)op->io->length, mirror_words(error));
    op->error.effect = error->effect;
}

/* Primary failed, and may have changed: what does it say now? */
static void
resize_info_done(struct request *call)
{
    struct mirror_op *op = call->owner;
    if (call->error.status == 0 && call->value == 0
        && op->info.size_sectors * op->info.sector_size == op->io->length)
        resize_succeeded(op);
    else
        resize_back(op);
}

static void
resize_primary_done(struct request *call)
{
    struct mirror_op *op = call->owner;
    if (call->error.status == 0) {
        resize_succeeded(op);
        return;
    }
    resize_note(op, "primary", &call->error);
    if (call->error.effect == FARBLK_EFFECT_NONE) {
        resize_back(op);
        return;
    }
    op->repairs = true;
    op->answer = (struct iovec){&op->info, sizeof op->info};
    mirror_op_ask(op, PRIMARY, FARBLK_OP_GET_INFO, 0, 0, resize_info_done);
}

static void
resize_primary(struct mirror_op *op)
{
    mirror_op_ask(op, PRIMARY, FARBLK_OP_RESIZE, 0, op->io->length,
                  resize_primary_done);
}

static void
resize_secondary_done(struct request *call)
{
    struct mirror_op *op = call->owner;
    struct mirror *mirror = op->mirror;
    if (call->error.status == 0) {
        resize_primary(op);
    } else if (call->error.status == FARBLK_DISCONNECTED
               && atomic_load(&mirror->degrade)) {
        mirror_give_up(mirror, &call->error);
        resize_primary(op);
    } else {
        resize_note(op, "secondary", &call->error);
        bool changed = op->error.effect != FARBLK_EFFECT_NONE;
        op->error.effect = FARBLK_EFFECT_NONE; /* primary is what it was */
        if (changed)
            resize_back(op);
        else
            resize_failed(op);
    }
}

void
mirror_resize(struct mirror_op *op)
{
    struct mirror *mirror = op->mirror;
    error_clear(&op->error);
    pthread_mutex_lock(&mirror->mutex);
    op->old_size = mirror->size;
    pthread_mutex_unlock(&mirror->mutex);
    resize_mark(mirror);
    if (atomic_load(&mirror->alone))
        resize_primary(op);
    else
        mirror_op_ask(op, SECONDARY, FARBLK_OP_RESIZE, 0, op->io->length,
                      resize_secondary_done);
}
