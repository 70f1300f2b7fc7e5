/* SPDX-License-Identifier: ISC */
/*
 * How copy and compare keep both ends busy.
 *
 * One thread, one queue over both devices.  The work is cut into pieces, and
 * each piece under way has a slot with its own buffer and goes through its
 * steps by itself: a copy's read completes and its write is submitted at once,
 * from the same buffer; the write completes and the slot takes the next piece,
 * whose read is submitted at once.  Nobody waits for a round to be complete, so
 * at any time some slots read from one device while others write to the other,
 * in whatever proportion the slower side dictates.  What bounds memory is the
 * sum of the pieces under way: 8 MiB unless told otherwise.  So many small
 * pieces are in flight where the device is fragmented, and few large ones, whose
 * data is still in the cache when it is written, where it is not; the slot that
 * was used last is used next.
 *
 * Which pieces there are, the extents tell.  They are asked for on the same
 * queue, in batches, one batch ahead of the work (scan.h), so that the pieces
 * never dry up while an answer travels.  What needs no work costs nothing: a
 * skipped run takes no slot, whatever its length.
 *
 * Submissions carry FARBLK_MORE, since collecting follows at once: all that one
 * round of completions sets off starts together.
 *
 * A device behind a server gets a few handles, which are as many connections:
 * each is a pipe of its own with threads of its own at both ends, so one of
 * them can be filled while another is emptied.  A piece keeps to one of them.
 *
 * A failure, or a signal, stops new submissions; what is in flight is waited
 * for, since its buffers are ours, and then the first failure is what the
 * caller learns, with side and place.
 *
 * Left out: other threads.  The work of this one is a few comparisons for each
 * piece; the data is moved by the drivers.
 */
#include "tools/engine.h"

#include "tools/interrupt.h"
#include "tools/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ENGINE_RANGE (64u << 20) /* of a piece without buffer */
#define ENGINE_COLLECT 64
#define ENGINE_TICK_MS 200 /* how long a signal or the bar may wait */

static bool
engine_is_data(const struct engine *engine, unsigned kind)
{
    return (engine->job->data_kinds >> kind & 1) != 0;
}

uint64_t
engine_whole(const struct engine *engine, unsigned side, uint64_t length)
{
    uint32_t sector = engine->device[side].info.sector_size;

    return length + (sector - length % sector) % sector;
}

uint64_t
engine_covered(const struct engine *engine)
{
    uint64_t sum = 0;

    for (unsigned kind = 0; kind < ENGINE_KINDS; kind++)
        sum += engine->octets[kind];
    return sum;
}

uint64_t
engine_moved(const struct engine *engine)
{
    uint64_t sum = 0;

    for (unsigned kind = 0; kind < ENGINE_KINDS; kind++)
        if (engine_is_data(engine, kind))
            sum += engine->octets[kind];
    return sum;
}

/* Remember the first failure and stop. */
static void
engine_fail(struct engine *engine, const struct engine_op *op, int status,
            const char *text)
{
    engine->stop = true;
    if (engine->failure.status < 0)
        return;
    engine->failure.status = status;
    engine->failure.side = op->side;
    engine->failure.op = op->op;
    engine->failure.offset = op->offset;
    engine->failure.length = op->length;
    snprintf(engine->failure.text, sizeof engine->failure.text, "%s", text);
}

/* The handle that `op` is for; all but the work itself is for the first. */
static struct farblk *
engine_handle(const struct engine *engine, const struct engine_op *op)
{
    uint64_t slot = op->slot != NULL ? (uint64_t)(op->slot - engine->slots) : 0;

    return engine->handle[op->side][slot % engine->handles[op->side]];
}

/* Submit what `op` describes. */
static bool
engine_submit_op(struct engine *engine, struct engine_op *op)
{
    struct tool_device *device = &engine->device[op->side];
    struct farblk_request request = {
        .size = sizeof request,
        .op = op->op,
        .flags = FARBLK_MORE,
        .dev = engine_handle(engine, op),
        .sector = op->offset / device->info.sector_size,
        .user = op,
    };
    int status;

    if (op->iov.iov_base != NULL) {
        request.iov = &op->iov;
        request.iovcnt = 1;
    }
    if (op->op == FARBLK_OP_WRITE_ZEROES || op->op == FARBLK_OP_EXTENTS)
        request.count = op->length / device->info.sector_size;
    status = farblk_submit(engine->queue, &request);
    if (status < 0) {
        engine_fail(engine, op, status, farblk_last_text());
        return false;
    }
    engine->submitted++;
    return true;
}

void
engine_submit(struct engine *engine, struct engine_slot *slot, unsigned side,
              uint32_t op, uint64_t offset, uint64_t length, void *buffer)
{
    struct engine_op *own = &slot->op[side];

    own->op = op;
    own->offset = offset;
    own->length = length;
    own->iov.iov_base = buffer;
    own->iov.iov_len = buffer != NULL ? (size_t)length : 0;
    if (!engine->stop && engine_submit_op(engine, own))
        slot->waiting++;
    else
        slot->failed = true;
}

/* The slot's next step; without one the piece is at its end. */
static void
engine_step(struct engine *engine, struct engine_slot *slot)
{
    if (!slot->failed)
        engine->job->step(engine, slot);
    if (slot->waiting > 0)
        return;
    if (!slot->failed)
        engine->octets[slot->kind] += slot->length;
    if (engine_is_data(engine, slot->kind))
        engine->flight -= slot->length;
    slot->next = engine->free;
    engine->free = slot;
}

/* Ask for more extents where they are due. */
static void
engine_scan(struct engine *engine)
{
    for (unsigned side = 0; side < 2; side++) {
        struct scan *scan = &engine->scan[side];
        struct engine_op *op = &engine->scan_op[side];
        uint32_t sector_size = engine->device[side].info.sector_size;
        struct farblk_extent *batch;
        uint64_t sector, count;

        if (!scan_wants(scan, &sector, &count, &batch))
            continue;
        op->side = side;
        op->op = FARBLK_OP_EXTENTS;
        op->offset = sector * sector_size;
        op->length = count * sector_size;
        op->iov.iov_base = batch;
        op->iov.iov_len = SCAN_BATCH * sizeof *batch;
        if (!engine_submit_op(engine, op))
            return;
    }
}

static void
engine_scanned(struct engine *engine, const struct engine_op *op,
               const struct farblk_completion *done)
{
    struct scan *scan = &engine->scan[op->side];

    if (done->status == FARBLK_UNIMPLEMENTED)
        scan_fix(scan, true);
    else if (done->status == 0 && !scan_answer(scan, done->value))
        engine_fail(engine, op, FARBLK_PROTOCOL, "extents out of order");
}

/* What both sides say at `at`: the job's kind, until *end. */
static bool
engine_look(struct engine *engine, uint64_t at, unsigned *kind, uint64_t *end)
{
    uint64_t end_0, end_1;
    bool mapped_0, mapped_1;

    if (!scan_look(&engine->scan[0], at, &mapped_0, &end_0)
        || !scan_look(&engine->scan[1], at, &mapped_1, &end_1))
        return false;
    *kind = engine->job->classify(engine, mapped_0, mapped_1);
    *end = end_0 < end_1 ? end_0 : end_1;
    return true;
}

/* Take the next piece off the rest.  False when its extents are to come. */
static bool
engine_take(struct engine *engine, unsigned *kind, uint64_t *end)
{
    uint64_t at = engine->at, limit = engine->total, further;
    unsigned other;

    if (!engine_look(engine, at, kind, end))
        return false;
    /* Cut at multiples, so that odd extents do not shift all that follow. */
    if (engine_is_data(engine, *kind))
        limit = (at / engine->request_size + 1) * engine->request_size;
    else if (*kind != 0)
        limit = (at / ENGINE_RANGE + 1) * ENGINE_RANGE;
    if (limit > engine->total)
        limit = engine->total;
    while (*end < limit && engine_look(engine, *end, &other, &further)
           && other == *kind)
        *end = further;
    if (*end > limit)
        *end = limit;
    if (*kind != 0 && !engine_is_data(engine, *kind)
        && *end % engine->unit != 0) {
        uint64_t whole = *end - *end % engine->unit;

        if (whole > at)
            *end = whole;
        else
            *kind = engine->job->tail_kind;
    }
    engine->at = *end;
    return true;
}

/* Whether one more piece may be under way, however large it is. */
static bool
engine_has_room(const struct engine *engine)
{
    return engine->free != NULL
           && engine->flight + engine->request_size <= engine->flight_max;
}

/* Begin pieces while there is room. */
static void
engine_fill(struct engine *engine)
{
    while (!engine->stop && engine_has_room(engine)
           && engine->at < engine->total) {
        struct engine_slot *slot = engine->free;
        uint64_t offset = engine->at, end;
        unsigned kind;

        if (!engine_take(engine, &kind, &end)) {
            engine_scan(engine);
            return;
        }
        if (kind == 0) {
            engine->octets[0] += end - offset;
            continue;
        }
        engine->free = slot->next;
        slot->offset = offset;
        slot->length = end - offset;
        slot->kind = kind;
        if (engine_is_data(engine, kind))
            engine->flight += slot->length;
        slot->step = 0;
        slot->failed = false;
        engine_step(engine, slot);
    }
    if (!engine->stop)
        engine_scan(engine);
}

static void
engine_check(struct engine *engine, const struct farblk_completion *done)
{
    const struct engine_op *op = done->user;

    /* Without extents, all counts as mapped. */
    if (done->status < 0
        && !(op->op == FARBLK_OP_EXTENTS
             && done->status == FARBLK_UNIMPLEMENTED))
        engine_fail(engine, op, done->status, done->text);
}

static void
engine_done(struct engine *engine, const struct farblk_completion *done)
{
    struct engine_op *op = done->user;
    struct engine_slot *slot = op->slot;

    if (op->op == FARBLK_OP_EXTENTS) {
        engine_scanned(engine, op, done);
        return;
    }
    if (slot == NULL)
        return;
    if (done->status < 0)
        slot->failed = true;
    if (--slot->waiting == 0) {
        slot->step++;
        engine_step(engine, slot);
    }
}

/* Wait for completions and see to them; false when there is no way to. */
static bool
engine_collect(struct engine *engine)
{
    struct farblk_completion done[ENGINE_COLLECT];
    int count = farblk_collect(engine->queue, done, sizeof *done,
                               ENGINE_COLLECT, ENGINE_TICK_MS);

    if (count < 0)
        engine_fail(engine, &engine->flush_op, count, farblk_last_text());
    /* Failures first: what ended beside one sets off nothing more. */
    for (int i = 0; i < count; i++)
        engine_check(engine, &done[i]);
    for (int i = 0; i < count; i++)
        engine_done(engine, &done[i]);
    if (!engine->stop && interrupt_signal() != 0) {
        engine->signal = interrupt_signal();
        engine->stop = true;
    }
    progress_update(&engine->progress, engine_covered(engine),
                    engine_moved(engine));
    return count >= 0;
}

void
engine_run(struct engine *engine)
{
    double begun = text_now();

    interrupt_catch();
    progress_begin(&engine->progress, engine->job->what, engine->total,
                   engine->show_progress);
    for (;;) {
        engine_fill(engine);
        if (farblk_queue_pending(engine->queue) == 0 || !engine_collect(engine))
            break;
    }
    engine->seconds = text_now() - begun;
}

void
engine_flush(struct engine *engine, unsigned side)
{
    double begun = text_now();

    if (engine->stop)
        return;
    engine->flush_op.side = side;
    engine->flush_op.op = FARBLK_OP_FLUSH;
    if (engine_submit_op(engine, &engine->flush_op))
        while (farblk_queue_pending(engine->queue) > 0
               && engine_collect(engine))
            ;
    engine->seconds += text_now() - begun;
}

int
engine_report(struct engine *engine)
{
    static const char *const verbs[] = {
        [FARBLK_OP_READ] = "read",
        [FARBLK_OP_WRITE] = "write",
        [FARBLK_OP_WRITE_ZEROES] = "zeroing",
        [FARBLK_OP_EXTENTS] = "asking for the extents",
    };
    const struct engine_failure *failure = &engine->failure;
    const char *role = engine->job->role[failure->side];
    const char *uri = engine->device[failure->side].uri;

    progress_end(&engine->progress, engine_covered(engine),
                 engine_moved(engine),
                 failure->status < 0 || engine->signal != 0);
    if (failure->status < 0 && failure->op == FARBLK_OP_FLUSH)
        return tool_fail(failure->status, "flush of the %s, %s: %s", role, uri,
                         failure->text);
    if (failure->status < 0)
        return tool_fail(
            failure->status,
            "%s of %" PRIu64 " octets at octet %" PRIu64 " of the %s, %s: %s",
            failure->op <= FARBLK_OP_EXTENTS && verbs[failure->op] != NULL
                ? verbs[failure->op]
                : "request",
            failure->length, failure->offset, role, uri, failure->text);
    if (engine->signal != 0) {
        tool_note("interrupted after %" PRIu64 " of %" PRIu64 " octets",
                  engine_covered(engine), engine->total);
        return 128 + engine->signal;
    }
    return TOOL_FINE;
}
