/* SPDX-License-Identifier: ISC */
/*
 * Receiving without being woken: what is there at once, and what comes in the
 * next moment.
 *
 * Being woken takes longer than a peer on the same machine needs to answer.
 * So a receiver that had short waits lately tries for up to SPIN_NS before it
 * waits.  Only where that costs nobody anything: few messages are under way
 * (with many, waiting lets more of them come together), one thread of the
 * process at a time spins, there is more than one CPU, and nobody else wants
 * this one; otherwise it is left alone for a while.  An idle link never spins:
 * its last wait was long.
 */
#include "proto/link_stream.h"

#include <sched.h>
#include <time.h>

#define SPIN_NS 120000 /* each time, at most */
#define YIELD_NS 300000 /* away for longer: the CPU is wanted */
#define QUICK_NS 120000 /* a short wait */
#define QUICK_WAITS 4 /* of those in a row before it spins */
#define QUICK_MESSAGES 8u /* by the last receive, at most */
#define PENALTY 200 /* short waits, when the CPU was wanted */

static atomic_flag spinning = ATOMIC_FLAG_INIT;

static int64_t
now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Whether this process may use more than one CPU; looked up once. */
static bool
several_cpus(void)
{
    static atomic_int known; /* 0: not yet, 1: no, 2: yes */
    int several = atomic_load_explicit(&known, memory_order_relaxed);

    if (several == 0) {
        cpu_set_t cpus;
        several = 1
                  + (sched_getaffinity(0, sizeof cpus, &cpus) == 0
                     && CPU_COUNT(&cpus) > 1);
        atomic_store_explicit(&known, several, memory_order_relaxed);
    }
    return several == 2;
}

void
stream_wait_begins(struct stream_link *link)
{
    link->wait_ns = now_ns();
}

void
stream_wait_ended(struct stream_link *link)
{
    if (now_ns() - link->wait_ns > QUICK_NS) {
        if (link->quick > 0)
            link->quick = 0;
    } else if (link->quick < QUICK_WAITS) {
        link->quick++;
    }
}

enum received
stream_receive_here(struct stream_link *link, unsigned count, nng_iov *iov)
{
    if (!stream_post_receive(link, link->receive_here, count, iov))
        return RECEIVED_OVER;
    nng_aio_cancel(link->receive_here);
    nng_aio_wait(link->receive_here);
    int result = nng_aio_result(link->receive_here);
    /* Timed out: a moment ago, when it was waited for, and told only now. */
    if (result == NNG_ECANCELED || result == NNG_ETIMEDOUT)
        return RECEIVED_NOTHING;
    stream_take_result(link, result, nng_aio_count(link->receive_here));
    return RECEIVED_SOME;
}

bool
stream_spin(struct stream_link *link, struct attendance *attendance,
            unsigned count, nng_iov *iov)
{
    if (link->quick < QUICK_WAITS || link->delivered > QUICK_MESSAGES
        || !several_cpus()
        || atomic_flag_test_and_set_explicit(&spinning, memory_order_acquire))
        return false;
    int64_t begin = now_ns();
    enum received received;
    for (;;) {
        received = stream_receive_here(link, count, iov);
        if (received != RECEIVED_NOTHING
            || (attendance != NULL
                && atomic_load_explicit(&attendance->woken,
                                        memory_order_relaxed)))
            break;
        int64_t before = now_ns();
        sched_yield();
        int64_t now = now_ns();
        if (now - before > YIELD_NS) {
            link->quick = -PENALTY;
            break;
        }
        if (now - begin > SPIN_NS) {
            link->quick = 0;
            break;
        }
    }
    atomic_flag_clear_explicit(&spinning, memory_order_release);
    return received == RECEIVED_SOME;
}
