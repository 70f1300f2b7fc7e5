/* SPDX-License-Identifier: ISC */
/*
 * The library's log.  The listener is kept under a lock that writers of lines
 * share, so that farblk_set_log() returns only when the old one is out of use.
 */
#include "core/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

typedef void log_function(void *arg, enum farblk_log_level level,
                          const char *line);

static pthread_rwlock_t log_lock = PTHREAD_RWLOCK_INITIALIZER;
static log_function *log_to;
static void *log_arg;
static atomic_int log_level = -1; /* -1: nobody listens */

void
farblk_set_log(enum farblk_log_level level, log_function *log, void *arg)
{
    pthread_rwlock_wrlock(&log_lock);
    log_to = log;
    log_arg = arg;
    atomic_store(&log_level, log == NULL ? -1 : (int)level);
    pthread_rwlock_unlock(&log_lock);
}

void
log_line(enum farblk_log_level level, const char *format, ...)
{
    if ((int)level > atomic_load_explicit(&log_level, memory_order_relaxed))
        return;
    char line[1024];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (length < 0)
        return;
    pthread_rwlock_rdlock(&log_lock);
    if (log_to != NULL)
        log_to(log_arg, level, line);
    pthread_rwlock_unlock(&log_lock);
}
