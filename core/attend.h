/* SPDX-License-Identifier: ISC */
/*
 * A thread that waits for completions and meanwhile does the receiving of what
 * brings them (link_attend(), driver_waiting).
 */
#ifndef FARBLK_CORE_ATTEND_H
#define FARBLK_CORE_ATTEND_H

#include <pthread.h>
#include <stdatomic.h>

struct attendance {
    atomic_bool woken; /* it has what it waits for */
    pthread_t thread; /* that attends */
};

#endif
