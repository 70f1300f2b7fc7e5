/* SPDX-License-Identifier: ISC */
/* See crash_oracle.h. */
#include "tests/crash_oracle.h"

#include "tests/support.h"

#include <inttypes.h>
#include <stdio.h>

#define NEVER ORACLE_NEVER

/* A write of one sector that may still be found. */
struct trace {
    uint64_t value; /* the tag; 0: zeros.  Of the size: sectors */
    uint64_t begun, ended;
    bool acknowledged;
    bool durable;
    bool forgotten; /* no flush makes it durable any more */
    unsigned lane; /* from 1; 0: of before the last time */
};

struct trail {
    struct trace *list;
    size_t count, room;
};

struct oracle {
    struct trail sector[CRASH_MOST];
    struct trail size;
    bool forgotten; /* since the last cut: acknowledged ones may be unseen */
    /* The begin of the last flush that went well: of all, and of those that a
     * lane had after a restart. */
    uint64_t flushed, lane_flushed[CRASH_LANES];
    struct oracle_tally tally;
};

static void
trail_add(struct trail *trail, struct trace trace)
{
    if (trail->count == trail->room) {
        trail->room = trail->room > 0 ? 2 * trail->room : 16;
        trail->list = realloc(trail->list, trail->room * sizeof trace);
        if (trail->list == NULL)
            abort();
    }
    trail->list[trail->count++] = trace;
}

struct oracle *
oracle_create(uint64_t size_sectors)
{
    struct oracle *oracle = calloc(1, sizeof *oracle);
    struct trace first = {.acknowledged = true, .durable = true};

    if (oracle == NULL)
        abort();
    for (unsigned i = 0; i < CRASH_MOST; i++)
        trail_add(&oracle->sector[i], first);
    first.value = size_sectors;
    trail_add(&oracle->size, first);
    return oracle;
}

void
oracle_destroy(struct oracle *oracle)
{
    if (oracle == NULL)
        return;
    for (unsigned i = 0; i < CRASH_MOST; i++)
        free(oracle->sector[i].list);
    free(oracle->size.list);
    free(oracle);
}

static void
oracle_each(struct oracle *oracle,
            void (*call)(struct oracle *oracle, struct trace *trace,
                         uint64_t now),
            uint64_t now)
{
    for (unsigned i = 0; i <= CRASH_MOST; i++) {
        struct trail *trail =
            i < CRASH_MOST ? &oracle->sector[i] : &oracle->size;

        for (size_t k = 0; k < trail->count; k++)
            call(oracle, &trail->list[k], now);
    }
}

/* ------------------------------------------------------------ taking in */

static void
oracle_take_op(struct oracle *oracle, unsigned lane, const struct crash_op *op)
{
    struct trace trace = {
        .lane = lane + 1,
        .value = op->number,
        .begun = op->begun,
        .ended = op->ended != 0 ? op->ended : NEVER,
        .acknowledged = op->ended != 0 && op->status == 0,
    };
    uint32_t first = op->sector, end = op->sector + op->count;

    if (op->ended != 0 && op->status != 0) {
        if (op->effect == FARBLK_EFFECT_NONE)
            return;
        /* It happened; only what was to follow did not. */
        trace.acknowledged = op->effect == FARBLK_EFFECT_DONE;
        /* Nobody has answered: it may be under way still. */
        if (op->status == FARBLK_DISCONNECTED
            || op->status == FARBLK_CONNECTION_LOST)
            trace.ended = NEVER;
    } else {
        trace.durable = trace.acknowledged && op->durable;
    }
    if (op->op == FARBLK_OP_RESIZE) {
        first = op->count;
        end = CRASH_MOST;
        trace.value = op->count;
        trail_add(&oracle->size, trace);
        trace.value = TAGGED_ZERO;
    }
    for (uint32_t i = first; i < end; i++)
        trail_add(&oracle->sector[i], trace);
}

static void
trace_flushed(struct oracle *oracle, struct trace *trace, uint64_t now)
{
    uint64_t own = trace->lane > 0 ? oracle->lane_flushed[trace->lane - 1] : 0;

    (void)now;
    if (trace->acknowledged && !trace->forgotten
        && (trace->ended < oracle->flushed || trace->ended < own))
        trace->durable = true;
}

static void
trace_age(struct oracle *oracle, struct trace *trace, uint64_t now)
{
    (void)oracle, (void)now;
    trace->lane = 0;
}

/* A flush that went well. */
static void
oracle_take_flush(struct oracle *oracle, unsigned lane,
                  const struct crash_op *op, uint64_t restart)
{
    uint64_t *flushed =
        op->ended > restart ? &oracle->lane_flushed[lane] : &oracle->flushed;

    if (op->begun > *flushed)
        *flushed = op->begun;
}

void
oracle_take(struct oracle *oracle, const struct crash_shared *shared,
            uint64_t restart)
{
    oracle->flushed = 0;
    memset(oracle->lane_flushed, 0, sizeof oracle->lane_flushed);
    oracle_each(oracle, trace_age, 0);
    for (unsigned i = 0; i < CRASH_LANES; i++) {
        const struct crash_lane *lane = &shared->lane[i];

        for (uint32_t k = 0; k < lane->count; k++) {
            const struct crash_op *op = &lane->ops[k];

            if (op->op != FARBLK_OP_FLUSH)
                oracle_take_op(oracle, i, op);
            else if (op->ended != 0 && op->status == 0)
                oracle_take_flush(oracle, i, op, restart);
        }
    }
    oracle_each(oracle, trace_flushed, 0);
}

void
oracle_flushed(struct oracle *oracle)
{
    oracle->flushed = NEVER;
    oracle_each(oracle, trace_flushed, 0);
}

static void
trace_server_ended(struct oracle *oracle, struct trace *trace, uint64_t now)
{
    if (trace->ended > now)
        trace->ended = now;
    if (oracle->forgotten && !trace->durable)
        trace->forgotten = true;
}

void
oracle_server_ended(struct oracle *oracle, uint64_t now, bool forgotten)
{
    if (forgotten)
        oracle->forgotten = true;
    oracle_each(oracle, trace_server_ended, now);
}

/* ------------------------------------------------------------ judging */

/* The begin of the last write that binds: of the durable ones, or of all that
 * were acknowledged. */
static uint64_t
trail_bound(const struct trail *trail, bool durable, const struct trace **which)
{
    uint64_t bound = 0;

    *which = NULL;
    for (size_t i = 0; i < trail->count; i++) {
        const struct trace *trace = &trail->list[i];

        if ((trace->durable || (!durable && trace->acknowledged))
            && (*which == NULL || trace->begun >= bound)) {
            bound = trace->begun;
            *which = trace;
        }
    }
    return bound;
}

/* What was found is what there is; what can still come after it stays. */
static void
trail_settle(struct trail *trail, const struct trace *found, uint64_t now,
             bool cut)
{
    struct trace settled = *found;
    size_t left = 0;

    settled.begun = settled.ended = now;
    settled.acknowledged = true;
    if (cut) {
        settled.durable = true;
        settled.forgotten = false;
    }
    for (size_t i = 0; i < trail->count && !settled.durable; i++) {
        struct trace trace = trail->list[i];

        if (&trail->list[i] == found)
            continue;
        if (trace.ended >= now)
            trace.ended = now - 1;
        trail->list[left++] = trace;
    }
    trail->count = left;
    trail_add(trail, settled);
}

static bool
trail_judge(struct oracle *oracle, struct trail *trail, uint64_t value,
            uint64_t now, bool cut, char *text, size_t length)
{
    const struct trace *found = NULL, *last = NULL, *binds;
    /* What a failed sync forgot binds no more than after a cut. */
    uint64_t bound = trail_bound(trail, cut || oracle->forgotten, &binds);
    bool known = false;

    for (size_t i = 0; i < trail->count; i++) {
        const struct trace *trace = &trail->list[i];

        if (trace->acknowledged && (last == NULL || trace->begun > last->begun))
            last = trace;
        if (trace->value != value)
            continue;
        known = true;
        if (trace->ended >= bound
            && (found == NULL || trace->begun > found->begun))
            found = trace;
    }
    oracle->tally.sectors++;
    if (found == NULL) {
        snprintf(text, length,
                 "holds %" PRIx64 ", %s, but %" PRIx64 " (%" PRIu64
                 " to %" PRIu64 ") was %s",
                 value,
                 known ? "which is older"
                       : "which was never written or had no effect",
                 binds->value, binds->begun, binds->ended,
                 binds->durable ? "durable" : "acknowledged");
        return false;
    }
    oracle->tally.lost +=
        last != NULL && last->value != value && found->ended < last->begun;
    oracle->tally.unacknowledged += !found->acknowledged;
    trail_settle(trail, found, now, cut);
    return true;
}

/* Blocks are of one write alone. */
static bool
oracle_judge_blocks(const struct crash_shared *shared, char *text,
                    size_t length)
{
    for (uint64_t at = CRASH_SHARED; at < CRASH_FIXED; at += CRASH_BLOCK) {
        const uint8_t *block = shared->content + at * TAGGED_SECTOR;
        uint64_t value = tagged_read(block, at);

        for (unsigned i = 1; i < CRASH_BLOCK; i++) {
            uint64_t other = tagged_read(block + i * TAGGED_SECTOR, at + i);

            if (other == value)
                continue;
            snprintf(text, length,
                     "the block of 4096 octets at sector %" PRIu64
                     " is torn: %" PRIx64 " in sector 0, %" PRIx64
                     " in sector %u of it",
                     at, value, other, i);
            return false;
        }
    }
    return true;
}

bool
oracle_judge(struct oracle *oracle, const struct crash_shared *shared,
             uint64_t now, bool cut, char *text, size_t length)
{
    char why[256];

    if (!trail_judge(oracle, &oracle->size, shared->size, now, cut, why,
                     sizeof why)) {
        snprintf(text, length, "the size in sectors %s", why);
        return false;
    }
    for (uint64_t i = 0; i < CRASH_MOST; i++) {
        /* Past the end there is nothing, as if it had been zeroed: should the
         * device grow again, it reads as that. */
        bool exists = i < shared->size;
        uint64_t value =
            !exists ? TAGGED_ZERO
                    : tagged_read(shared->content + i * TAGGED_SECTOR, i);

        if (value == TAGGED_TORN) {
            snprintf(text, length, "sector %" PRIu64 " is torn", i);
            return false;
        }
        if (!trail_judge(oracle, &oracle->sector[i], value, now, cut, why,
                         sizeof why)) {
            snprintf(text, length, "sector %" PRIu64 " %s", i, why);
            return false;
        }
    }
    if (!oracle_judge_blocks(shared, text, length))
        return false;
    if (cut)
        oracle->forgotten = false;
    return true;
}

struct oracle_tally
oracle_tally(const struct oracle *oracle)
{
    return oracle->tally;
}
