/* SPDX-License-Identifier: ISC */
/*
 * Timers on one thread of the library, which starts with the first timer.
 * Not for the data path: only requests with a timeout arm one.
 */
#ifndef FARBLK_CORE_TIMER_H
#define FARBLK_CORE_TIMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct timer {
    int64_t at_ms; /* monotonic */
    size_t index; /* in the heap, from 1; 0: not armed */
    void (*fire)(struct timer *timer);
};

/* Milliseconds of the monotonic clock. */
int64_t timer_now(void);
/* The same as of the kernel's last tick, at a fifth of the cost: never ahead of
 * timer_now(), and at most TIMER_LAG_MS behind. */
#define TIMER_LAG_MS 10
int64_t timer_recent(void);

/* Call fire once, at `at_ms` or soon after, on the timer thread; it must not
 * block.  False when there is no thread or no memory for it. */
bool timer_arm(struct timer *timer, int64_t at_ms,
               void (*fire)(struct timer *));

/* Afterwards fire neither runs nor will run (a call from within fire itself
 * does not wait).  Fine on a timer that has fired or was zeroed. */
void timer_disarm(struct timer *timer);

/* Let fire be called at once, if the timer is armed.  May be called for a timer
 * that was never armed, or is being armed or disarmed; its memory is looked at
 * only if it is armed. */
void timer_hasten(const struct timer *timer);

/* In a forked child: forget the parent's timers and thread. */
void timer_after_fork(void);

#endif
