/* SPDX-License-Identifier: ISC */
/*
 * Requests of the application: reads go to primary, everything that changes to
 * both at once, and the answer waits for both.
 *
 * A change that both have done, or of which both say that nothing has happened,
 * leaves them equal.  Any other end makes its range dirty, before the range is
 * given back.
 */
#include "backends/mirror.h"

#include "core/checked.h"

#include <stdlib.h>

/* ------------------------------------------------------------ the end */

/* Give everything back but the io.  Who waited for the range goes on when the
 * io has been ended: mirror_grant(*ready). */
static struct io *
op_free(struct mirror_op *op, struct range_lock **ready)
{
    struct io *io = op->io;
    *ready = op->locked ? mirror_unlock(op->mirror, &op->lock) : NULL;
    free(op->many);
    free(op);
    return io;
}

void
mirror_op_done(struct mirror_op *op, uint64_t value)
{
    struct range_lock *ready;
    struct io *io = op_free(op, &ready);
    io_done(io, value);
    mirror_grant(ready);
}

/* What a child says of its own arguments or end is no word about the caller's,
 * whose mirror is here and whose arguments were checked. */
static int
op_status(unsigned side, int status)
{
    if (status == FARBLK_INVALID || status == FARBLK_UNIMPLEMENTED
        || status == FARBLK_IS_READ_ONLY
        || (status == FARBLK_DISCONNECTED && side == SECONDARY))
        return FARBLK_IO;
    return status;
}

void
mirror_op_failed(struct mirror_op *op, unsigned side, const struct error *error)
{
    struct error copy = *error; /* it may be the op's */
    struct range_lock *ready;
    struct io *io = op_free(op, &ready);
    enum farblk_effect effect = copy.effect;
    if (io->op == FARBLK_OP_RESIZE) /* its texts tell whose they are */
        io_failed(io, copy.status, effect, "%s", copy.text);
    else
        io_failed(io, op_status(side, copy.status), effect, "%s: %.400s",
                  side == PRIMARY ? "primary" : "secondary",
                  mirror_words(&copy));
    mirror_grant(ready);
}

/* Whether the failure is the caller's impatience, not the device's. */
static bool
op_late(const struct mirror_op *op, const struct error *error)
{
    return error->status == FARBLK_TIMED_OUT && op->io->deadline_ms != 0
           && timer_now() >= op->io->deadline_ms;
}

/* All that were asked have answered. */
static void
op_answered(struct mirror_op *op)
{
    struct mirror *mirror = op->mirror;
    struct io *io = op->io;
    struct error *one = &op->call[PRIMARY].error;
    struct error *two = &op->call[SECONDARY].error;
    if (!op->asked[SECONDARY]) {
        if (one->status == 0)
            mirror_op_done(op, op->call[PRIMARY].value);
        else
            mirror_op_failed(op, PRIMARY, one);
        return;
    }
    bool flush = io->op == FARBLK_OP_FLUSH;
    bool nothing = !flush && one->status != 0 && two->status != 0
                   && one->effect == FARBLK_EFFECT_NONE
                   && two->effect == FARBLK_EFFECT_NONE;
    bool fine = two->status == 0 || nothing;
    if (!fine && atomic_load(&mirror->degrade) && !op_late(op, two)) {
        mirror_give_up(mirror, two);
        fine = true;
        two->status = 0;
    } else if (flush && !fine && !op_late(op, two)) {
        mirror_fail(mirror, "secondary", two);
    } else if (!flush && !nothing && !(one->status == 0 && fine)) {
        bool first = one->status != 0;
        mirror_missed(mirror, io->offset, io->length,
                      first ? "primary" : "secondary", first ? one : two);
    }
    if (one->status != 0) {
        mirror_op_failed(op, PRIMARY, one);
    } else if (two->status != 0) {
        if (!flush)
            two->effect = FARBLK_EFFECT_UNKNOWN; /* done on primary */
        mirror_op_failed(op, SECONDARY, two);
    } else {
        mirror_op_done(op, 0);
    }
}

static void
op_drop(struct mirror_op *op)
{
    if (atomic_fetch_sub(&op->left, 1) == 1)
        op_answered(op);
}

static void
op_child_done(struct request *call)
{
    op_drop(call->owner);
}

/* ------------------------------------------------------------ the way in */

/* The array of the io's data for the children; false without memory. */
static bool
op_make_iov(struct mirror_op *op)
{
    const struct iov_view *data = &op->io->data;
    struct iovec *to = op->few;
    uint64_t length = 0;
    size_t count = 0;
    if (data->skip == 0) { /* as it is, if it ends where a buffer ends */
        while (length < data->length)
            length += data->iov[count++].iov_len;
        op->iov = data->iov;
        op->iovcnt = count;
        if (length == data->length)
            return true;
    }
    if (data->count > sizeof op->few / sizeof op->few[0]) {
        count = 0;
        for (length = 0; length < data->length + data->skip;)
            length += data->iov[count++].iov_len;
        op->many = malloc(count * sizeof *op->many);
        if (op->many == NULL)
            return false;
        to = op->many;
    } else {
        count = data->count;
    }
    op->iovcnt = iov_export(data, to, count, &length);
    op->iov = to;
    return true;
}

/* The range is ours, or there is none to take. */
static void
op_go(struct mirror_op *op)
{
    struct io *io = op->io;
    struct mirror *mirror = op->mirror;
    switch (io->op) {
    case FARBLK_OP_READ:
        op->asked[SECONDARY] = false;
        break;
    case FARBLK_OP_WRITE:
    case FARBLK_OP_DISCARD:
    case FARBLK_OP_WRITE_ZEROES:
    case FARBLK_OP_FLUSH:
        op->asked[SECONDARY] = !atomic_load(&mirror->alone);
        break;
    case FARBLK_OP_RESIZE:
        mirror_resize(op);
        return;
    default:
        mirror_map(op);
        return;
    }
    bool both = op->asked[SECONDARY];
    atomic_init(&op->left, both ? 3 : 2);
    for (unsigned side = PRIMARY; side <= (both ? SECONDARY : PRIMARY); side++)
        mirror_op_ask(op, side,
                      io->op == FARBLK_OP_DISCARD
                          ? mirror_discard_op(mirror, side)
                          : io->op,
                      io->offset, io->length, op_child_done);
    op_drop(op);
}

static void
op_granted(struct mirror_lock *lock)
{
    struct mirror_op *op = (struct mirror_op *)lock;
    struct mirror *mirror = op->mirror;
    if (op->io->deadline_ms != 0) {
        pthread_mutex_lock(&mirror->mutex);
        if (op->waits) {
            if (op->prev != NULL)
                op->prev->next = op->next;
            else
                mirror->waiting = op->next;
            if (op->next != NULL)
                op->next->prev = op->prev;
        }
        pthread_mutex_unlock(&mirror->mutex);
    }
    op_go(op);
}

/* With a deadline: the lock and the list in one, so that mirror_cancel() finds
 * what waits.  Returns 1: granted, 0: waits, -1: too late. */
static int
op_lock_timed(struct mirror_op *op, uint64_t offset, uint64_t length,
              bool exclusive)
{
    struct mirror *mirror = op->mirror;
    int result = -1;
    pthread_mutex_lock(&mirror->mutex);
    if (timer_now() < op->io->deadline_ms) {
        result = mirror_lock(mirror, &op->lock, offset, length, exclusive);
        if (result == 0) {
            op->waits = true;
            op->prev = NULL;
            op->next = mirror->waiting;
            if (op->next != NULL)
                op->next->prev = op;
            mirror->waiting = op;
        }
    }
    pthread_mutex_unlock(&mirror->mutex);
    return result;
}

static void
op_begin(struct mirror_op *op)
{
    struct io *io = op->io;
    uint64_t offset = io->offset, length = io->length;
    bool exclusive = true;
    switch (io->op) {
    case FARBLK_OP_READ:
        exclusive = false;
        op->locked = op->mirror->read_locks;
        break;
    case FARBLK_OP_WRITE:
    case FARBLK_OP_DISCARD:
    case FARBLK_OP_WRITE_ZEROES:
        op->locked = true;
        break;
    case FARBLK_OP_RESIZE:
        op->locked = true;
        offset = 0;
        length = INT64_MAX;
        break;
    default:
        op->locked = false;
        break;
    }
    if (!op->locked) {
        op_go(op);
    } else if (io->deadline_ms == 0) {
        if (mirror_lock(op->mirror, &op->lock, offset, length, exclusive))
            op_go(op);
    } else {
        int locked = op_lock_timed(op, offset, length, exclusive);
        if (locked > 0) {
            op_go(op);
        } else if (locked < 0) {
            struct range_lock *none;
            op->locked = false;
            io_failed(op_free(op, &none), FARBLK_TIMED_OUT, FARBLK_EFFECT_NONE,
                      "the request's time was over before it began");
        }
    }
}

void
mirror_submit(struct mirror *mirror, struct io *io)
{
    struct mirror_op *op = malloc(sizeof *op);
    if (op != NULL) {
        op->lock.granted = op_granted;
        op->mirror = mirror;
        op->io = io;
        op->waits = op->repairs = false;
        op->asked[PRIMARY] = true;
        op->asked[SECONDARY] = false;
        op->iov = NULL;
        op->iovcnt = 0;
        op->many = NULL;
        bool moves = io->op == FARBLK_OP_READ || io->op == FARBLK_OP_WRITE;
        if (!moves || op_make_iov(op)) {
            op_begin(op);
            return;
        }
        free(op);
    }
    io_failed(io, FARBLK_NO_MEMORY, FARBLK_EFFECT_NONE,
              "no memory for a request of a mirror");
}

void
mirror_cancel(struct mirror *mirror, struct io *io)
{
    struct range_lock *ready = NULL;
    pthread_mutex_lock(&mirror->mutex);
    struct mirror_op *op = mirror->waiting;
    while (op != NULL && op->io != io)
        op = op->next;
    if (op != NULL && ranges_cancel(&mirror->ranges, &op->lock.range, &ready)) {
        if (op->prev != NULL)
            op->prev->next = op->next;
        else
            mirror->waiting = op->next;
        if (op->next != NULL)
            op->next->prev = op->prev;
    } else {
        op = NULL; /* its children have the deadline as well */
    }
    pthread_mutex_unlock(&mirror->mutex);
    if (op == NULL)
        return;
    struct range_lock *none;
    op->locked = false;
    op_free(op, &none);
    io_failed(io, FARBLK_TIMED_OUT, FARBLK_EFFECT_NONE,
              "the request's time was over while it waited for others of its "
              "range");
    mirror_grant(ready);
}
