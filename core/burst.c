/* SPDX-License-Identifier: ISC */
/*
 * Bursts: what a thread has put off until the end of one.
 */
#include "core/burst.h"

#define LATE_MAX 32u

static _Thread_local unsigned depth;
static _Thread_local unsigned late_count;
static _Thread_local struct {
    void (*run)(void *arg);
    void *arg;
} late[LATE_MAX];

/* In order of arrival; what comes meanwhile stands behind. */
static void
burst_run(void)
{
    while (late_count > 0) {
        void (*run)(void *arg) = late[0].run;
        void *arg = late[0].arg;
        late_count--;
        for (unsigned i = 0; i < late_count; i++)
            late[i] = late[i + 1];
        run(arg);
    }
}

void
burst_begin(void)
{
    depth++;
}

void
burst_end(void)
{
    if (depth == 1)
        burst_run();
    depth--;
}

bool
burst_now(void)
{
    return depth > 0;
}

bool
burst_later(void (*run)(void *arg), void *arg)
{
    for (unsigned i = 0; i < late_count; i++)
        if (late[i].run == run && late[i].arg == arg)
            return false;
    if (late_count == LATE_MAX)
        burst_run();
    late[late_count].run = run;
    late[late_count++].arg = arg;
    return true;
}
