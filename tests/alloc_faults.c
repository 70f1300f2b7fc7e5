/* SPDX-License-Identifier: ISC */
/*
 * Requests that fail by number.
 */
#include "tests/alloc_faults.h"

#include <nng/nng.h>

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static atomic_bool armed, hit, all_later;
static atomic_int left;
static pthread_mutex_t last_mutex = PTHREAD_MUTEX_INITIALIZER;
static char last[64]; /* under it: several threads may fail at once */

void
alloc_faults_arm(unsigned first, bool all)
{
    hit = false;
    all_later = all;
    left = (int)first;
    armed = true;
}

bool
alloc_faults_disarm(void)
{
    armed = false;
    return hit;
}

const char *
alloc_faults_last(void)
{
    static char copy[sizeof last];

    pthread_mutex_lock(&last_mutex);
    memcpy(copy, last, sizeof copy);
    pthread_mutex_unlock(&last_mutex);
    return copy;
}

static bool
fails(const char *what, size_t size)
{
    if (!armed)
        return false;
    int now = --left;
    if (now > 0 || (now < 0 && !all_later))
        return false;
    pthread_mutex_lock(&last_mutex);
    if (!hit)
        snprintf(last, sizeof last, "%s of %zu", what, size);
    hit = true;
    pthread_mutex_unlock(&last_mutex);
    errno = ENOMEM;
    return true;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__real_realloc(void *from, size_t size);
void *__wrap_realloc(void *from, size_t size);
char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
char *__real_strndup(const char *text, size_t size);
char *__wrap_strndup(const char *text, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __real_posix_memalign(void **to, size_t alignment, size_t size);
int __wrap_posix_memalign(void **to, size_t alignment, size_t size);
int __real_vasprintf(char **to, const char *format, va_list args);
int __wrap_vasprintf(char **to, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));
void *__real_mmap(void *at, size_t size, int protection, int flags, int fd,
                  off_t offset);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd,
                  off_t offset);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*run)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*run)(void *), void *arg);
int __real_nng_aio_alloc(nng_aio **aio, void (*done)(void *), void *arg);
int __wrap_nng_aio_alloc(nng_aio **aio, void (*done)(void *), void *arg);
int __real_nng_stream_dialer_alloc(nng_stream_dialer **to, const char *url);
int __wrap_nng_stream_dialer_alloc(nng_stream_dialer **to, const char *url);
int __real_nng_stream_listener_alloc(nng_stream_listener **to, const char *url);
int __wrap_nng_stream_listener_alloc(nng_stream_listener **to, const char *url);

void *
__wrap_malloc(size_t size)
{
    return fails("malloc", size) ? NULL : __real_malloc(size);
}

void *
__wrap_calloc(size_t count, size_t size)
{
    return fails("calloc", count * size) ? NULL : __real_calloc(count, size);
}

void *
__wrap_realloc(void *from, size_t size)
{
    return fails("realloc", size) ? NULL : __real_realloc(from, size);
}

char *
__wrap_strdup(const char *text)
{
    return fails("strdup", strlen(text)) ? NULL : __real_strdup(text);
}

char *
__wrap_strndup(const char *text, size_t size)
{
    return fails("strndup", size) ? NULL : __real_strndup(text, size);
}

void *
__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return fails("aligned_alloc", size) ? NULL
                                        : __real_aligned_alloc(alignment, size);
}

int
__wrap_posix_memalign(void **to, size_t alignment, size_t size)
{
    return fails("posix_memalign", size)
               ? ENOMEM
               : __real_posix_memalign(to, alignment, size);
}

int
__wrap_vasprintf(char **to, const char *format, va_list args)
{
    return fails("vasprintf", 0) ? -1 : __real_vasprintf(to, format, args);
}

void *
__wrap_mmap(void *at, size_t size, int protection, int flags, int fd,
            off_t offset)
{
    return fails("mmap", size)
               ? MAP_FAILED
               : __real_mmap(at, size, protection, flags, fd, offset);
}

int
__wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                      void *(*run)(void *), void *arg)
{
    return fails("pthread_create", 0)
               ? EAGAIN
               : __real_pthread_create(thread, attributes, run, arg);
}

int
__wrap_nng_aio_alloc(nng_aio **aio, void (*done)(void *), void *arg)
{
    return fails("nng_aio_alloc", 0) ? NNG_ENOMEM
                                     : __real_nng_aio_alloc(aio, done, arg);
}

int
__wrap_nng_stream_dialer_alloc(nng_stream_dialer **to, const char *url)
{
    return fails("nng_stream_dialer_alloc", 0)
               ? NNG_ENOMEM
               : __real_nng_stream_dialer_alloc(to, url);
}

int
__wrap_nng_stream_listener_alloc(nng_stream_listener **to, const char *url)
{
    return fails("nng_stream_listener_alloc", 0)
               ? NNG_ENOMEM
               : __real_nng_stream_listener_alloc(to, url);
}
