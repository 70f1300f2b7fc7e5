/* SPDX-License-Identifier: ISC */
/*
 * Looking for a moment before sleeping, where that pays.
 *
 * Being woken takes longer than a peer on the same machine needs to answer.  So
 * who had short waits lately looks for up to SPIN_MAX_NS before it sleeps; how
 * long is tuned by what it brought.  Only where it costs nobody anything: there
 * is more than one CPU, not all of them are spun on by this process, and nobody
 * else wants this one: after the first few microseconds each look is a
 * sched_yield(), and when that took long, somebody did, and it is left alone for
 * a while.
 *
 * A waiter that is not ready looks once every microsecond or less; what it looks
 * at is the caller's.
 */
#ifndef FARBLK_CORE_SPIN_H
#define FARBLK_CORE_SPIN_H

#include <stdbool.h>
#include <stdint.h>

/* Zeroed at first; one thread's. */
struct spin {
    int quick; /* short waits in a row; below 0: not now */
    unsigned looks;
    int64_t begun_ns, last_ns;
    bool spinning;
};

/* Before a wait: whether to look for a while first.  True: spin_more() before
 * each look, and spin_end() after all. */
bool spin_begin(struct spin *spin);
/* Whether to look once more; pauses for as long as is good between two looks. */
bool spin_more(struct spin *spin);
/* It is over; `found`: something came. */
void spin_end(struct spin *spin, bool found);

/* Around a sleep: how long it took tells whether spinning would have paid. */
void spin_sleeps(struct spin *spin);
void spin_slept(struct spin *spin);

/* Spinning off or on for the whole process; on by default unless the
 * environment says FARBLK_SPIN=0. */
void spin_allow(bool allowed);

/* Nanoseconds of the monotonic clock. */
int64_t spin_now(void);

#endif
