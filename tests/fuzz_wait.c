/* SPDX-License-Identifier: ISC */
/*
 * Waiting, time and chance of a program over the stand-in for nng.
 */
#include "tests/fuzz_wait.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

#define HANG_MS 20000 /* real time in which somebody must have done something */
#define DRAWN 64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool inside;
static _Atomic(pthread_t) thread;
static _Atomic int64_t forward_ms; /* of the clock */
static uint8_t drawn[DRAWN]; /* random numbers, by their length */

int __real_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int __real_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until);
int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
ssize_t getrandom(void *to, size_t length, unsigned flags);
int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *cpus);

void
fuzz_wrong(const char *what)
{
    fprintf(stderr, "wrong: %s\n", what);
    abort();
}

/* ------------------------------------------------------------ time, chance */

static int64_t
real_ms(void)
{
    struct timespec now;
    __real_clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t
fuzz_now_ms(void)
{
    return real_ms() + forward_ms;
}

int
__wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = __real_clock_gettime(clock, now);
    int64_t forward = forward_ms;
    if (clock != CLOCK_MONOTONIC && clock != CLOCK_MONOTONIC_COARSE)
        return result;
    now->tv_sec += (time_t)(forward / 1000);
    now->tv_nsec += (long)(forward % 1000) * 1000000;
    if (now->tv_nsec >= 1000000000) {
        now->tv_sec++;
        now->tv_nsec -= 1000000000;
    }
    return result;
}

/* The n-th of that length: "SESSION1", "SECRET_OF_NO__1" and so on. */
ssize_t
getrandom(void *to, size_t length, unsigned flags)
{
    static const char text[] = "SECRET_OF_NO____SECRET_OF_NO____";
    (void)flags;
    pthread_mutex_lock(&lock);
    uint8_t number = ++drawn[length % DRAWN];
    pthread_mutex_unlock(&lock);
    for (size_t i = 0; i < length; i++)
        ((uint8_t *)to)[i] = (uint8_t)text[i % (sizeof text - 1)];
    if (length == 8)
        memcpy(to, "SESSION", 7);
    if (length > 0)
        ((uint8_t *)to)[length - 1] = (uint8_t)('0' + number);
    return (ssize_t)length;
}

void
fuzz_nng_draw_anew(void)
{
    pthread_mutex_lock(&lock);
    memset(drawn, 0, sizeof drawn);
    pthread_mutex_unlock(&lock);
}

/* One CPU: nobody spins. */
int
sched_getaffinity(pid_t pid, size_t size, cpu_set_t *cpus)
{
    (void)pid;
    memset(cpus, 0, size);
    CPU_SET(0, cpus);
    return 0;
}

void
fuzz_forward(int64_t ms)
{
    forward_ms += ms;
}

/* ------------------------------------------------------------ waiting */

void
fuzz_wait_begin(void)
{
    thread = pthread_self();
    inside = true;
    fuzz_nng_draw_anew();
}

void
fuzz_wait_end(void)
{
    inside = false;
}

void
fuzz_wait_real(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    struct timespec until;
    __real_clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    __real_pthread_cond_timedwait(cond, mutex, &until);
}

/* Since when this thread has found nothing to do; 0: it has just done some. */
static int64_t idle_since;

bool
fuzz_wait_a_step(void)
{
    int64_t now = real_ms();
    if (fuzz_nng_go_on()) {
        idle_since = 0;
        return true;
    }
    if (idle_since == 0) {
        idle_since = now;
    } else if (now - idle_since > 3 && fuzz_nng_put_forward()) {
        idle_since = 0;
        return true;
    } else if (now - idle_since > HANG_MS) {
        fuzz_wrong("it waits for ever");
    }
    return false;
}

bool
fuzz_waits_here(void)
{
    return inside && pthread_equal(pthread_self(), thread);
}

/* One step of a wait. */
static int
wait_on(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    static bool looked;
    if (looked) {
        /* Not without the mutex, or what happens meanwhile is missed. */
        looked = false;
        struct timespec until;
        __real_clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, &until);
        return 0;
    }
    pthread_mutex_unlock(mutex);
    looked = !fuzz_wait_a_step();
    pthread_mutex_lock(mutex);
    return 0; /* who waits looks again */
}

int
__wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    return fuzz_waits_here() ? wait_on(cond, mutex)
                             : __real_pthread_cond_wait(cond, mutex);
}

int
__wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                              const struct timespec *until)
{
    int64_t until_ms = (int64_t)until->tv_sec * 1000 + until->tv_nsec / 1000000;
    struct timespec real = {
        .tv_sec = (time_t)((until_ms - forward_ms) / 1000),
        .tv_nsec = (long)((until_ms - forward_ms) % 1000) * 1000000,
    };
    if (!fuzz_waits_here())
        return __real_pthread_cond_timedwait(cond, mutex, &real);
    return fuzz_now_ms() >= until_ms ? ETIMEDOUT : wait_on(cond, mutex);
}
