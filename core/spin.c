/* SPDX-License-Identifier: ISC */
/*
 * Looking for a moment before sleeping; the policy is told in spin.h.
 */
#include "core/spin.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SPIN_MAX_NS 60000 /* each time, at most */
#define SPIN_QUIET_NS 3000 /* before the first yield */
#define SPIN_AWAY_NS 25000 /* a yield that took longer: the CPU is wanted */
#define SPIN_QUICK_NS 80000 /* a short wait */
#define SPIN_QUICK_WAITS 3 /* of those in a row before it spins */
#define SPIN_PENALTY 50 /* short waits, when the CPU was wanted */
#define SPIN_LOOKS 8u /* between two looks at the clock */

static atomic_int allowed = -1; /* -1: not looked up yet */
static atomic_int spinners;
static atomic_int cpus; /* 0: not looked up yet */

int64_t
spin_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void
spin_allow(bool wanted)
{
    atomic_store(&allowed, wanted);
}

static bool
spin_allowed(void)
{
    int known = atomic_load_explicit(&allowed, memory_order_relaxed);
    if (known < 0) {
        const char *text = getenv("FARBLK_SPIN");
        known = text == NULL || strcmp(text, "0") != 0;
        atomic_store_explicit(&allowed, known, memory_order_relaxed);
    }
    return known != 0;
}

/* CPUs that this process may use; looked up once. */
static int
spin_cpus(void)
{
    int count = atomic_load_explicit(&cpus, memory_order_relaxed);
    if (count == 0) {
        cpu_set_t set;
        count =
            sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
        atomic_store_explicit(&cpus, count, memory_order_relaxed);
    }
    return count;
}

static void
spin_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

bool
spin_begin(struct spin *spin)
{
    int count = spin_cpus();
    if (spin->quick < SPIN_QUICK_WAITS || count < 2 || !spin_allowed())
        return false;
    if (atomic_fetch_add_explicit(&spinners, 1, memory_order_relaxed)
        >= count - 1) {
        atomic_fetch_sub_explicit(&spinners, 1, memory_order_relaxed);
        return false;
    }
    spin->spinning = true;
    spin->looks = 0;
    spin->begun_ns = spin->last_ns = 0;
    return true;
}

bool
spin_more(struct spin *spin)
{
    if (++spin->looks % SPIN_LOOKS != 0) {
        spin_pause();
        return true;
    }
    int64_t now = spin_now();
    if (spin->begun_ns == 0)
        spin->begun_ns = now;
    int64_t spent = now - spin->begun_ns;
    if (spent < SPIN_QUIET_NS)
        return true;
    if (spent > SPIN_MAX_NS)
        return false;
    sched_yield();
    if (spin_now() - now > SPIN_AWAY_NS) {
        spin->quick = -SPIN_PENALTY;
        return false;
    }
    return true;
}

void
spin_end(struct spin *spin, bool found)
{
    atomic_fetch_sub_explicit(&spinners, 1, memory_order_relaxed);
    spin->spinning = false;
    if (!found && spin->quick > 0)
        spin->quick = 0;
}

void
spin_sleeps(struct spin *spin)
{
    spin->last_ns = spin_now();
}

void
spin_slept(struct spin *spin)
{
    if (spin_now() - spin->last_ns > SPIN_QUICK_NS) {
        if (spin->quick > 0)
            spin->quick = 0;
    } else if (spin->quick < SPIN_QUICK_WAITS) {
        spin->quick++;
    }
}
