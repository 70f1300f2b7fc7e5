/* SPDX-License-Identifier: ISC */
/*
 * What fuzz_nng.c, fuzz_aio.c and fuzz_wait.c need of each other.
 */
#ifndef FARBLK_TESTS_FUZZ_WAIT_H
#define FARBLK_TESTS_FUZZ_WAIT_H

#include "tests/fuzz_nng.h"

#include <pthread.h>

enum aio_state { AIO_IDLE, AIO_PENDING, AIO_READY, AIO_RUNNING };

struct nng_aio {
    nng_aio *next; /* of all */
    void (*callback)(void *arg);
    void *arg;
    enum aio_state state;
    bool freed, sleeping, begun;
    unsigned order; /* of those that are ready */
    int64_t until_ms; /* it sleeps */
    nng_aio **pending_in; /* where the stream, or listener, remembers it */
    int result;
    size_t count;
    void *output;
    nng_iov iov[8];
    unsigned iovcnt;
};

/* Protects streams and operations. */
extern pthread_mutex_t fuzz_lock;
extern pthread_cond_t fuzz_changed;

/* All with the lock.  An operation is under way; who has it at `pending_in`
 * forgets it when it ends. */
void fuzz_aio_begin(nng_aio *aio, nng_aio **pending_in);
/* It has its outcome. */
void fuzz_aio_finish(nng_aio *aio, int result, size_t count);
/* Run the callback that waits for longest, without the lock.  False: none. */
bool fuzz_aio_run(void);

/* The clock, as the library sees it. */
int64_t fuzz_now_ms(void);
void fuzz_forward(int64_t ms);
/* It goes to the end of the next sleep.  False: nobody sleeps. */
bool fuzz_nng_put_forward(void);

/* From now on this thread's waits are steps; until the end. */
void fuzz_wait_begin(void);
void fuzz_wait_end(void);
/* Whether it is this thread's. */
bool fuzz_waits_here(void);
/* This thread waits, and has no lock: do one thing.  False: nothing is to be
 * done; another thread has to do something first, or only time has to pass. */
bool fuzz_wait_a_step(void);
/* A moment, or until `cond` is signalled; as pthread_cond_timedwait(). */
void fuzz_wait_real(pthread_cond_t *cond, pthread_mutex_t *mutex);

#endif
