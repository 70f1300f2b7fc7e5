/* SPDX-License-Identifier: ISC */
/*
 * Timers: a binary heap by time, and one thread that waits for its top.
 */
#include "core/timer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake; /* the top has changed */
static pthread_cond_t finished; /* a fire has returned */
static bool started;
static pthread_t thread;
static struct timer *running; /* its fire is being called */
static struct timer **heap; /* from 1 */
static size_t heap_count, heap_capacity;

int64_t
timer_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t
timer_recent(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void
heap_put(size_t index, struct timer *timer)
{
    heap[index] = timer;
    timer->index = index;
}

/* Move the timer at `index` to where it belongs. */
static void
heap_settle(size_t index)
{
    struct timer *timer = heap[index];
    while (index > 1 && heap[index / 2]->at_ms > timer->at_ms) {
        heap_put(index, heap[index / 2]);
        index /= 2;
    }
    for (;;) {
        size_t child = 2 * index;
        if (child > heap_count)
            break;
        if (child < heap_count && heap[child + 1]->at_ms < heap[child]->at_ms)
            child++;
        if (heap[child]->at_ms >= timer->at_ms)
            break;
        heap_put(index, heap[child]);
        index = child;
    }
    heap_put(index, timer);
}

static void
heap_remove(struct timer *timer)
{
    size_t index = timer->index;
    struct timer *last = heap[heap_count--];
    timer->index = 0;
    if (last != timer) {
        heap_put(index, last);
        heap_settle(index);
    }
}

static void *
timer_thread(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&mutex);
    for (;;) {
        if (heap_count == 0) {
            pthread_cond_wait(&wake, &mutex);
            continue;
        }
        struct timer *top = heap[1];
        if (top->at_ms > timer_now()) {
            struct timespec until = {
                .tv_sec = (time_t)(top->at_ms / 1000),
                .tv_nsec = (long)(top->at_ms % 1000) * 1000000,
            };
            pthread_cond_timedwait(&wake, &mutex, &until);
            continue;
        }
        heap_remove(top);
        running = top;
        void (*fire)(struct timer *) = top->fire;
        pthread_mutex_unlock(&mutex);
        fire(top); /* may free the timer */
        pthread_mutex_lock(&mutex);
        running = NULL;
        pthread_cond_broadcast(&finished);
    }
    return NULL;
}

/* Under the mutex.  The library takes no signals: they are the program's. */
static bool
timer_start(void)
{
    if (started)
        return true;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&wake, &attributes);
    pthread_cond_init(&finished, &attributes);
    pthread_condattr_destroy(&attributes);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    started = pthread_create(&thread, NULL, timer_thread, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started)
        pthread_detach(thread);
    return started;
}

bool
timer_arm(struct timer *timer, int64_t at_ms, void (*fire)(struct timer *))
{
    pthread_mutex_lock(&mutex);
    bool fine = timer_start();
    if (fine && heap_count + 1 >= heap_capacity) {
        size_t capacity = heap_capacity == 0 ? 64 : 2 * heap_capacity;
        struct timer **larger = realloc(heap, capacity * sizeof(*heap));
        fine = larger != NULL;
        if (fine) {
            heap = larger;
            heap_capacity = capacity;
        }
    }
    if (fine) {
        timer->at_ms = at_ms;
        timer->fire = fire;
        heap_put(++heap_count, timer);
        heap_settle(heap_count);
        if (timer->index == 1)
            pthread_cond_signal(&wake);
    }
    pthread_mutex_unlock(&mutex);
    return fine;
}

void
timer_disarm(struct timer *timer)
{
    pthread_mutex_lock(&mutex);
    if (timer->index != 0)
        heap_remove(timer);
    else if (started && !pthread_equal(pthread_self(), thread))
        while (running == timer)
            pthread_cond_wait(&finished, &mutex);
    pthread_mutex_unlock(&mutex);
}

void
timer_hasten(const struct timer *timer)
{
    pthread_mutex_lock(&mutex);
    size_t index = 1;
    while (index <= heap_count && heap[index] != timer)
        index++;
    if (index <= heap_count) {
        heap[index]->at_ms = 0;
        heap_settle(index);
        pthread_cond_signal(&wake);
    }
    pthread_mutex_unlock(&mutex);
}

void
timer_after_fork(void)
{
    pthread_mutex_init(&mutex, NULL);
    started = false;
    running = NULL;
    heap = NULL; /* the parent's timers may be anywhere in it */
    heap_count = heap_capacity = 0;
}
