/* SPDX-License-Identifier: ISC */
/*
 * The gate of a device: many requests pass it together, a resize alone.
 *
 * Asynchronous and fair: who can not pass at once waits in a list and is
 * called; once somebody waits, later ones wait behind it.  Passing a gate that
 * nobody waits at is one atomic operation.
 */
#ifndef FARBLK_CORE_GATE_H
#define FARBLK_CORE_GATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Zeroed, and .passed set, before it enters. */
struct gate_waiter {
    struct gate_waiter *prev, *next;
    bool exclusive, waiting;
    /* Called when the waiter has passed; on the thread that made way. */
    void (*passed)(struct gate_waiter *waiter);
};

struct gate {
    atomic_uint_fast64_t state; /* bit 63: somebody waits or is alone inside;
                                   the rest: how many share */
    pthread_mutex_t mutex; /* the list, `alone` */
    struct gate_waiter *head, *tail;
    bool alone;
};

void gate_init(struct gate *gate);
void gate_fini(struct gate *gate); /* empty */

/* True: passed.  False: passed() will be called. */
bool gate_enter(struct gate *gate, struct gate_waiter *waiter, bool exclusive);
void gate_leave(struct gate *gate, bool exclusive);

/* Stop waiting.  False when it has passed already, or never waited. */
bool gate_cancel(struct gate *gate, struct gate_waiter *waiter);

#endif
