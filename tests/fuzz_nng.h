/* SPDX-License-Identifier: ISC */
/*
 * A stand-in for nng's streams: no sockets, no threads of its own, no waiting.
 * The links of proto/ run over it as they are, and all they receive and send
 * passes through memory, thousands of conversations a second.
 *
 * A program with this in it has its own nng_aio_* and nng_stream_*, which come
 * before those of libnng.  It is linked with the --wrap options of fuzz.cmake,
 * by which waiting (pthread_cond_wait, nng_aio_wait) of the thread that has
 * called fuzz_nng_begin() means to go on with what else is to be done:
 * callbacks, and then the program's own step.  The clock can be put forward,
 * and is, when nothing but a sleep is left to be waited for.  Random numbers
 * are the same in each run.
 *
 * What nng 1.5.2 does not allow (an operation on a stream that was closed, two
 * receives at once) ends the program here.
 */
#ifndef FARBLK_TESTS_FUZZ_NNG_H
#define FARBLK_TESTS_FUZZ_NNG_H

#include <nng/nng.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One side's view of a connection; the other side is the program. */
struct nng_stream {
    nng_stream *next;
    bool ipc, closed, freed;
    uint64_t uid;
    nng_aio *receive, *send; /* pending */

    /* To the side under test: octets that are there (at ... end). */
    const uint8_t *data;
    size_t at, end;
    int failure; /* of a receive, when they are used up; 0: it waits */
    int send_failure; /* of each send; 0: none */

    /* From it. */
    size_t room; /* how much it may still send */
    uint8_t *sent;
    size_t sent_length, sent_capacity;
};

/* A new conversation of this thread.  `step` is called when all that waits,
 * waits for the program: it offers octets, or ends a connection.  False: it has
 * nothing more to do either. */
void fuzz_nng_begin(bool (*step)(void));
/* Every stream must be gone; they are freed. */
void fuzz_nng_end(void);

/* Random numbers begin again: the next session is "SESSION1", its secret
 * "SECRET_OF_NO___1". */
void fuzz_nng_draw_anew(void);

/* Do one thing that is to be done.  False: nothing was. */
bool fuzz_nng_go_on(void);

/* Connect to the listener that accepts; NULL: nobody does. */
nng_stream *fuzz_nng_connect(bool ipc, uint64_t uid);
/* The stream dialed last that is not freed; NULL: none. */
nng_stream *fuzz_nng_dialed(void);
/* From now on dialing is refused. */
void fuzz_nng_refuse(void);

/* Change what is above and look who can go on by it.  Octets are not copied. */
void fuzz_nng_offer(nng_stream *stream, const uint8_t *data, size_t at,
                    size_t end);
void fuzz_nng_fail(nng_stream *stream, int failure, int send_failure);
/* Closed from the side under test. */
bool fuzz_nng_gone(const nng_stream *stream);
/* Go on until the side under test has closed it; NULL is fine. */
void fuzz_nng_await(const nng_stream *stream);
/* Whether a receive waits for octets. */
bool fuzz_nng_waits(const nng_stream *stream);

/* Print and abort: a property of ours does not hold. */
void fuzz_wrong(const char *what) __attribute__((noreturn));

#endif
