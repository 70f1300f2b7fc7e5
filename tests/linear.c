/* SPDX-License-Identifier: ISC */
/*
 * See linear.h.  For registers whose writes have values of their own, Gibbons
 * and Korach (Testing Shared Memories, 1997) need one pass: a write and its
 * reads are a cluster; from the first end of any of them to the last begin the
 * register must hold that value (a forward zone).  When all of a cluster overlap
 * there is no such time, and the cluster can happen at one moment of what is
 * common to them (a backward zone).  Forward zones must not overlap, and each
 * backward zone must reach out of them.
 *
 * Zero is everybody's value, so its reads belong to no certain write.  Outside of
 * the forward zones the register is zero (Z) or something else (N), and only
 * these matter:
 *
 *   - N to Z takes a zeroing, each of which happens once within its time;
 *   - Z to N takes a backward zone, or the begin of a forward one;
 *   - a read of zeros needs Z at some moment of its time.
 *
 * To be in Z never harms, so the sweep below does what it must as late as it
 * can: it leaves Z when a backward zone ends; in N, and just before each zeroing,
 * it places the backward zones that are open, for nothing; it goes to Z when a zeroing ends, or a read of zeros
 * ends that has not seen Z, by the open zeroing that ends first.  Before a
 * forward zone begins, what ends within it must have its turn.
 */
#include "tests/linear.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* What waits for its moment: [from, to]. */
struct span {
    uint64_t from, to;
    uint64_t value; /* of a zone; of a zeroing: whether it must happen */
};

struct spans {
    struct span *list;
    size_t count;
    size_t opened; /* of the list, by from */
};

/* Of those that are open: which ends first. */
struct heap {
    struct span **list;
    size_t count;
};

struct sweep {
    struct spans forward, backward, zeroings, reads;
    struct heap open_backward, open_zeroings, open_reads;
    bool zero; /* Z */
    struct linear_verdict *verdict;
};

static bool
linear_fail(struct linear_verdict *verdict, const char *format, uint64_t value,
            uint64_t from, uint64_t to)
{
    if (verdict->fine)
        snprintf(verdict->text, sizeof verdict->text, format, value, from, to);
    verdict->fine = false;
    return false;
}

/* ------------------------------------------------------------ heap */

static void
heap_swap(struct heap *heap, size_t a, size_t b)
{
    struct span *span = heap->list[a];

    heap->list[a] = heap->list[b];
    heap->list[b] = span;
}

static void
heap_push(struct heap *heap, struct span *span)
{
    size_t at = heap->count++;

    heap->list[at] = span;
    for (; at > 0 && heap->list[at]->to < heap->list[(at - 1) / 2]->to;
         at = (at - 1) / 2)
        heap_swap(heap, at, (at - 1) / 2);
}

static struct span *
heap_first(const struct heap *heap)
{
    return heap->count > 0 ? heap->list[0] : NULL;
}

static void
heap_pop(struct heap *heap)
{
    heap->list[0] = heap->list[--heap->count];
    for (size_t at = 0, least;; at = least) {
        size_t left = 2 * at + 1;

        least = at;
        for (size_t child = left; child < left + 2; child++)
            if (child < heap->count
                && heap->list[child]->to < heap->list[least]->to)
                least = child;
        if (least == at)
            return;
        heap_swap(heap, at, least);
    }
}

/* ------------------------------------------------------------ clusters */

static int
linear_by_value(const void *left, const void *right)
{
    const struct linear_op *a = left, *b = right;

    if (a->value != b->value)
        return a->value < b->value ? -1 : 1;
    if (a->write != b->write)
        return a->write ? -1 : 1;
    return a->begun < b->begun ? -1 : 1;
}

static int
span_by_from(const void *left, const void *right)
{
    const struct span *a = left, *b = right;

    return a->from < b->from ? -1 : a->from > b->from;
}

static void
spans_add(struct spans *spans, uint64_t from, uint64_t to, uint64_t value)
{
    spans->list[spans->count++] =
        (struct span){.from = from, .to = to, .value = value};
}

/* All ops of one value but zero. */
static bool
linear_cluster(struct sweep *sweep, const struct linear_op *ops, size_t count,
               uint64_t initial)
{
    uint64_t value = ops->value, last = 0, first = LINEAR_NEVER;
    bool written = value == initial;

    /* The initial value was written at time 0. */
    if (written)
        first = 0;
    for (size_t i = 0; i < count; i++) {
        if (ops[i].write && written)
            return linear_fail(sweep->verdict,
                               "value %" PRIx64 " is written twice, at %" PRIu64
                               " to %" PRIu64,
                               value, ops[i].begun, ops[i].ended);
        written |= ops[i].write;
        if (!written)
            return linear_fail(sweep->verdict,
                               "value %" PRIx64
                               " was never written, and read at"
                               " %" PRIu64 " to %" PRIu64,
                               value, ops[i].begun, ops[i].ended);
        if (ops->write && ops[i].ended < ops->begun)
            return linear_fail(sweep->verdict,
                               "value %" PRIx64 " was read at %" PRIu64
                               " to %" PRIu64 ", before it was written",
                               value, ops[i].begun, ops[i].ended);
        if (ops[i].ended < first)
            first = ops[i].ended;
        if (ops[i].begun > last)
            last = ops[i].begun;
    }
    if (count == 1 && ops->write && ops->unknown)
        return true; /* it never happened, for all that is known */
    if (first < last)
        spans_add(&sweep->forward, first, last, value);
    else
        spans_add(&sweep->backward, last, first, value);
    return true;
}

static bool
linear_clusters(struct sweep *sweep, struct linear_op *ops, size_t count,
                uint64_t initial)
{
    qsort(ops, count, sizeof *ops, linear_by_value);
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && ops[end].value == ops[i].value; end++)
            ;
        if (ops[i].value != 0) {
            if (!linear_cluster(sweep, ops + i, end - i, initial))
                return false;
            continue;
        }
        for (; i < end; i++) {
            bool must = !ops[i].unknown;

            spans_add(ops[i].write ? &sweep->zeroings : &sweep->reads,
                      ops[i].begun, ops[i].ended, must);
        }
    }
    return true;
}

/* ------------------------------------------------------------ the sweep */

/* N: the backward zones that are open happen now, for nothing. */
static void
sweep_in_n(struct sweep *sweep)
{
    sweep->zero = false;
    sweep->open_backward.count = 0;
}

/* Z: the reads of zeros that are open see it now. */
static void
sweep_in_z(struct sweep *sweep)
{
    sweep->zero = true;
    sweep->open_reads.count = 0;
}

/* A zeroing happens, the one that ends first, and just before it, for nothing,
 * the backward zones that are open.  False when none is open. */
static bool
sweep_zero(struct sweep *sweep)
{
    if (sweep->open_zeroings.count == 0)
        return false;
    heap_pop(&sweep->open_zeroings);
    sweep_in_n(sweep);
    sweep_in_z(sweep);
    return true;
}

static bool
sweep_read_fails(struct sweep *sweep, const struct span *read)
{
    return linear_fail(sweep->verdict,
                       "zeros (%" PRIx64 ") were read at %" PRIu64
                       " to %" PRIu64
                       ", when the sector can not have been zero",
                       0, read->from, read->to);
}

/* The next time at which anything outside of forward zones ends. */
static uint64_t
sweep_next_end(const struct sweep *sweep)
{
    const struct heap *heaps[] = {&sweep->open_backward, &sweep->open_zeroings,
                                  &sweep->open_reads};
    uint64_t next = LINEAR_NEVER;

    for (size_t i = 0; i < 3; i++)
        if (heaps[i]->count > 0 && heaps[i]->list[0]->to < next)
            next = heaps[i]->list[0]->to;
    return next;
}

/* Something ends at this time: what it needs must happen now. */
static bool
sweep_end(struct sweep *sweep, uint64_t now)
{
    struct span *span = heap_first(&sweep->open_backward);

    if (span != NULL && span->to == now) {
        sweep_in_n(sweep);
        return true;
    }
    /* A zeroing, which may as well happen where it need not; or a read. */
    span = heap_first(&sweep->open_reads);
    return sweep_zero(sweep) || sweep_read_fails(sweep, span);
}

/* Open what begins, close what ends, up to `until`.  `inside` a forward zone
 * nothing can happen, and nothing may end that has not had its turn. */
static bool
sweep_until(struct sweep *sweep, uint64_t until, const struct span *inside)
{
    struct spans *spans[] = {&sweep->backward, &sweep->zeroings, &sweep->reads};
    struct heap *heaps[] = {&sweep->open_backward, &sweep->open_zeroings,
                            &sweep->open_reads};

    for (;;) {
        uint64_t begin = LINEAR_NEVER, end = sweep_next_end(sweep);
        size_t which = 0;

        for (size_t i = 0; i < 3; i++)
            if (spans[i]->opened < spans[i]->count
                && spans[i]->list[spans[i]->opened].from < begin) {
                begin = spans[i]->list[spans[i]->opened].from;
                which = i;
            }
        if ((begin < end ? begin : end) >= until)
            return true;
        if (begin < end) {
            struct span *span = &spans[which]->list[spans[which]->opened++];

            heap_push(heaps[which], span);
            if (inside != NULL)
                continue;
            if (which == 0 && !sweep->zero)
                sweep_in_n(sweep);
            if (which == 2 && sweep->zero)
                sweep_in_z(sweep);
            continue;
        }
        if (inside == NULL) {
            if (!sweep_end(sweep, end))
                return false;
            continue;
        }
        if (sweep->open_zeroings.count > 0
            && sweep->open_zeroings.list[0]->to == end
            && sweep->open_zeroings.list[0]->value == 0) {
            heap_pop(&sweep->open_zeroings);
            continue;
        }
        if (sweep->open_reads.count > 0 && sweep->open_reads.list[0]->to == end)
            return sweep_read_fails(sweep, sweep->open_reads.list[0]);
        return linear_fail(sweep->verdict,
                           "value %" PRIx64 " must stay from %" PRIu64
                           " to %" PRIu64
                           ", and a write in the midst of it was lost",
                           inside->value, inside->from, inside->to);
    }
}

/* Just before a forward zone: what ends in it must happen now. */
static bool
sweep_before(struct sweep *sweep, const struct span *zone)
{
    const struct span *read = heap_first(&sweep->open_reads);

    if (!sweep->zero)
        sweep_in_n(sweep);
    while (sweep->open_zeroings.count > 0
           && sweep->open_zeroings.list[0]->to < zone->to)
        sweep_zero(sweep);
    if (sweep->open_reads.count > 0 && read->to < zone->to
        && !sweep_zero(sweep))
        return sweep_read_fails(sweep, read);
    /* The zone's own write ends Z, and on the way others can happen. */
    sweep_in_n(sweep);
    return true;
}

static bool
sweep_run(struct sweep *sweep)
{
    uint64_t before = 0;

    for (size_t i = 0; i < sweep->forward.count; i++) {
        const struct span *zone = &sweep->forward.list[i];

        if (i > 0 && zone->from < before)
            return linear_fail(sweep->verdict,
                               "value %" PRIx64 " must stay from %" PRIu64
                               " to %" PRIu64 ", but another one as well",
                               zone->value, zone->from, zone->to);
        before = zone->to;
        if (!sweep_until(sweep, zone->from, NULL) || !sweep_before(sweep, zone)
            || !sweep_until(sweep, zone->to, zone))
            return false;
        /* After it the register holds its value: N. */
        sweep_in_n(sweep);
    }
    return sweep_until(sweep, LINEAR_NEVER, NULL);
}

static void
spans_init(struct spans *spans, struct heap *heap, size_t count)
{
    spans->list = calloc(count + 1, sizeof *spans->list);
    heap->list = calloc(count + 1, sizeof *heap->list);
    if (spans->list == NULL || heap->list == NULL)
        abort();
}

struct linear_verdict
linear_check(struct linear_op *ops, size_t count, uint64_t initial)
{
    struct linear_verdict verdict = {.fine = true};
    struct sweep sweep = {.zero = initial == 0, .verdict = &verdict};
    struct heap unused;
    struct spans *spans[] = {&sweep.forward, &sweep.backward, &sweep.zeroings,
                             &sweep.reads};
    struct heap *heaps[] = {&unused, &sweep.open_backward, &sweep.open_zeroings,
                            &sweep.open_reads};

    for (size_t i = 0; i < 4; i++)
        spans_init(spans[i], heaps[i], count);
    if (linear_clusters(&sweep, ops, count, initial)) {
        for (size_t i = 0; i < 4; i++)
            qsort(spans[i]->list, spans[i]->count, sizeof *spans[i]->list,
                  span_by_from);
        sweep_run(&sweep);
    }
    for (size_t i = 0; i < 4; i++) {
        free(spans[i]->list);
        free(heaps[i]->list);
    }
    return verdict;
}
