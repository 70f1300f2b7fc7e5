/* SPDX-License-Identifier: ISC */
/*
 * The stand-in for nng: its operations.  One lock protects all of it; callbacks
 * are run by fuzz_nng_go_on() alone, without it, so that one never nests in
 * another.
 */
#include "tests/fuzz_wait.h"

#include <stdlib.h>
#include <string.h>

pthread_mutex_t fuzz_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t fuzz_changed = PTHREAD_COND_INITIALIZER;
static nng_aio *aios;
static unsigned orders;

void
fuzz_aio_finish(nng_aio *aio, int result, size_t count)
{
    if (aio->pending_in != NULL)
        *aio->pending_in = NULL;
    aio->pending_in = NULL;
    aio->sleeping = false;
    aio->result = result;
    aio->count = count;
    aio->state = aio->callback != NULL ? AIO_READY : AIO_IDLE;
    aio->order = ++orders;
    pthread_cond_broadcast(&fuzz_changed);
}

void
fuzz_aio_begin(nng_aio *aio, nng_aio **pending_in)
{
    if (aio->state == AIO_PENDING || aio->state == AIO_READY || aio->freed)
        fuzz_wrong("an operation was begun that is under way");
    aio->state = AIO_PENDING;
    aio->result = 0;
    aio->count = 0;
    aio->pending_in = pending_in;
    if (pending_in != NULL)
        *pending_in = aio;
}

int
nng_aio_alloc(nng_aio **to, void (*callback)(void *arg), void *arg)
{
    nng_aio *aio = calloc(1, sizeof *aio);
    if (aio == NULL)
        return NNG_ENOMEM;
    aio->callback = callback;
    aio->arg = arg;
    pthread_mutex_lock(&fuzz_lock);
    aio->next = aios;
    aios = aio;
    pthread_mutex_unlock(&fuzz_lock);
    *to = aio;
    return 0;
}

void
nng_aio_reap(nng_aio *aio)
{
    if (aio == NULL)
        return;
    pthread_mutex_lock(&fuzz_lock);
    if (aio->state == AIO_PENDING)
        fuzz_wrong("an operation is freed that is under way");
    aio->freed = true;
    pthread_mutex_unlock(&fuzz_lock);
}

/* With the lock, which it lets go for the callback. */
static void
run(nng_aio *aio)
{
    aio->state = AIO_RUNNING;
    pthread_mutex_unlock(&fuzz_lock);
    aio->callback(aio->arg);
    pthread_mutex_lock(&fuzz_lock);
    if (aio->state == AIO_RUNNING)
        aio->state = AIO_IDLE;
}

void
nng_aio_stop(nng_aio *aio)
{
    if (aio == NULL)
        return;
    pthread_mutex_lock(&fuzz_lock);
    if (aio->state == AIO_PENDING)
        fuzz_aio_finish(aio, NNG_ECANCELED, 0);
    if (aio->state == AIO_READY)
        run(aio);
    pthread_mutex_unlock(&fuzz_lock);
}

void
nng_aio_free(nng_aio *aio)
{
    nng_aio_stop(aio);
    nng_aio_reap(aio);
}

void
nng_aio_cancel(nng_aio *aio)
{
    pthread_mutex_lock(&fuzz_lock);
    if (aio->state == AIO_PENDING)
        fuzz_aio_finish(aio, NNG_ECANCELED, 0);
    pthread_mutex_unlock(&fuzz_lock);
}

int
nng_aio_result(nng_aio *aio)
{
    return aio->result;
}

size_t
nng_aio_count(nng_aio *aio)
{
    return aio->count;
}

void *
nng_aio_get_output(nng_aio *aio, unsigned index)
{
    (void)index;
    return aio->output;
}

int
nng_aio_set_iov(nng_aio *aio, unsigned count, const nng_iov *iov)
{
    if (count > sizeof aio->iov / sizeof aio->iov[0])
        fuzz_wrong("more pieces than an operation takes");
    memcpy(aio->iov, iov, count * sizeof *iov);
    aio->iovcnt = count;
    return 0;
}

void
nng_aio_set_timeout(nng_aio *aio, nng_duration ms)
{
    (void)aio, (void)ms;
}

bool
nng_aio_begin(nng_aio *aio)
{
    pthread_mutex_lock(&fuzz_lock);
    fuzz_aio_begin(aio, NULL);
    pthread_mutex_unlock(&fuzz_lock);
    return true;
}

void
nng_aio_finish(nng_aio *aio, int result)
{
    pthread_mutex_lock(&fuzz_lock);
    fuzz_aio_finish(aio, result, 0);
    pthread_mutex_unlock(&fuzz_lock);
}

void
nng_sleep_aio(nng_duration ms, nng_aio *aio)
{
    pthread_mutex_lock(&fuzz_lock);
    fuzz_aio_begin(aio, NULL);
    aio->sleeping = true;
    aio->until_ms = fuzz_now_ms() + ms;
    pthread_mutex_unlock(&fuzz_lock);
}

void
nng_aio_wait(nng_aio *aio)
{
    for (;;) {
        bool ours = fuzz_waits_here();
        pthread_mutex_lock(&fuzz_lock);
        bool pending = aio->state != AIO_IDLE;
        pthread_mutex_unlock(&fuzz_lock);
        if (!pending)
            return;
        if (ours && fuzz_wait_a_step())
            continue;
        pthread_mutex_lock(&fuzz_lock);
        if (aio->state != AIO_IDLE)
            fuzz_wait_real(&fuzz_changed, &fuzz_lock);
        pthread_mutex_unlock(&fuzz_lock);
    }
}

/* With the lock: the callback that waits for longest, or the sleep that ends
 * first. */
static nng_aio *
find(bool sleeping)
{
    nng_aio *found = NULL;
    for (nng_aio *aio = aios; aio != NULL; aio = aio->next) {
        if (sleeping ? !aio->sleeping : aio->state != AIO_READY)
            continue;
        if (found == NULL
            || (sleeping ? aio->until_ms < found->until_ms
                         : aio->order < found->order))
            found = aio;
    }
    return found;
}

/* Free what is not needed any more. */
static void
sweep(void)
{
    for (nng_aio **link = &aios; *link != NULL;) {
        nng_aio *aio = *link;
        if (aio->freed && aio->state == AIO_IDLE) {
            *link = aio->next;
            free(aio);
        } else {
            link = &aio->next;
        }
    }
}

bool
fuzz_aio_run(void)
{
    sweep();
    nng_aio *aio = find(false);
    if (aio != NULL)
        run(aio);
    return aio != NULL;
}

bool
fuzz_nng_put_forward(void)
{
    pthread_mutex_lock(&fuzz_lock);
    nng_aio *aio = find(true);
    if (aio != NULL) {
        int64_t left = aio->until_ms - fuzz_now_ms();
        if (left > 0)
            fuzz_forward(left);
        fuzz_aio_finish(aio, 0, 0);
    }
    pthread_mutex_unlock(&fuzz_lock);
    return aio != NULL;
}
