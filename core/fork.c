/* SPDX-License-Identifier: ISC */
/*
 * Forks.  What was made before a fork must not be used in the child: nng
 * aborts there, and threads and rings did not come along.  Each fork gives the
 * child another number; handles and queues remember theirs.
 */
#include "core/device.h"

static atomic_uint generation;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void
fork_child(void)
{
    atomic_fetch_add_explicit(&generation, 1, memory_order_relaxed);
    timer_after_fork();
    device_after_fork();
    blocking_after_fork();
    block_after_fork();
}

static void
fork_watch(void)
{
    pthread_atfork(NULL, NULL, fork_child);
}

unsigned
fork_generation(void)
{
    pthread_once(&once, fork_watch);
    return atomic_load_explicit(&generation, memory_order_relaxed);
}
