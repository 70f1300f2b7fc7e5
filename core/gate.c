/* SPDX-License-Identifier: ISC */
/*
 * The gate: a fair, asynchronous reader/writer lock.
 *
 * state counts those that share the inside; its top bit (CLOSED) says that
 * somebody waits or is alone inside, and sends newcomers to the mutex.  Under
 * the mutex: the list of waiters, and `alone`.
 */
#include "core/gate.h"

#include <stddef.h>

#define CLOSED (UINT64_C(1) << 63)

void
gate_init(struct gate *gate)
{
    atomic_init(&gate->state, 0);
    pthread_mutex_init(&gate->mutex, NULL);
    gate->head = gate->tail = NULL;
    gate->alone = false;
}

void
gate_fini(struct gate *gate)
{
    pthread_mutex_destroy(&gate->mutex);
}

/* Under the mutex: let in who may pass now; returns them, linked by next. */
static struct gate_waiter *
gate_admit(struct gate *gate)
{
    struct gate_waiter *admitted = NULL, **end = &admitted;
    while (gate->head != NULL && !gate->alone) {
        struct gate_waiter *first = gate->head;
        if (first->exclusive) {
            /* CLOSED is set, so the count can only fall. */
            if ((atomic_load(&gate->state) & ~CLOSED) != 0)
                break;
            gate->alone = true;
        } else {
            atomic_fetch_add(&gate->state, 1);
        }
        gate->head = first->next;
        if (gate->head == NULL)
            gate->tail = NULL;
        else
            gate->head->prev = NULL;
        first->waiting = false;
        first->next = NULL;
        *end = first;
        end = &first->next;
    }
    if (gate->head == NULL && !gate->alone)
        atomic_fetch_and(&gate->state, ~CLOSED);
    return admitted;
}

static void
gate_call(struct gate_waiter *admitted)
{
    while (admitted != NULL) {
        struct gate_waiter *next = admitted->next;
        admitted->passed(admitted);
        admitted = next;
    }
}

bool
gate_enter(struct gate *gate, struct gate_waiter *waiter, bool exclusive)
{
    if (!exclusive) {
        uint64_t before =
            atomic_load_explicit(&gate->state, memory_order_relaxed);
        while ((before & CLOSED) == 0)
            if (atomic_compare_exchange_weak(&gate->state, &before, before + 1))
                return true;
    }
    pthread_mutex_lock(&gate->mutex);
    atomic_fetch_or(&gate->state, CLOSED);
    waiter->exclusive = exclusive;
    waiter->waiting = true;
    waiter->next = NULL;
    waiter->prev = gate->tail;
    if (gate->tail != NULL)
        gate->tail->next = waiter;
    else
        gate->head = waiter;
    gate->tail = waiter;
    struct gate_waiter *admitted = gate_admit(gate);
    /* Those ahead may have become admissible meanwhile: they are called; we
     * only return. */
    bool passed = false;
    struct gate_waiter **link = &admitted;
    while (*link != NULL) {
        if (*link == waiter) {
            *link = waiter->next;
            passed = true;
        } else {
            link = &(*link)->next;
        }
    }
    pthread_mutex_unlock(&gate->mutex);
    gate_call(admitted);
    return passed;
}

void
gate_leave(struct gate *gate, bool exclusive)
{
    if (!exclusive) {
        uint64_t after = atomic_fetch_sub(&gate->state, 1) - 1;
        if (after != CLOSED)
            return;
    }
    pthread_mutex_lock(&gate->mutex);
    if (exclusive)
        gate->alone = false;
    struct gate_waiter *admitted = gate_admit(gate);
    pthread_mutex_unlock(&gate->mutex);
    gate_call(admitted);
}

bool
gate_cancel(struct gate *gate, struct gate_waiter *waiter)
{
    pthread_mutex_lock(&gate->mutex);
    if (!waiter->waiting) {
        pthread_mutex_unlock(&gate->mutex);
        return false;
    }
    waiter->waiting = false;
    if (waiter->prev != NULL)
        waiter->prev->next = waiter->next;
    else
        gate->head = waiter->next;
    if (waiter->next != NULL)
        waiter->next->prev = waiter->prev;
    else
        gate->tail = waiter->prev;
    struct gate_waiter *admitted = gate_admit(gate);
    pthread_mutex_unlock(&gate->mutex);
    gate_call(admitted);
    return true;
}
