/* SPDX-License-Identifier: ISC */
/*
 * An NBD server held in the hand: it does the handshake by itself, keeps the
 * requests that come, and answers when the test says so.
 *
 * Each connection has a thread.  Structured replies are refused, so there are
 * no extents.  Everything here belongs to the test's thread but the threads
 * themselves.
 */
#ifndef FARBLK_TESTS_NBD_FAKE_H
#define FARBLK_TESTS_NBD_FAKE_H

#include "tests/support.h"

#include <pthread.h>

#define FAKE_REQUESTS 512
#define FAKE_CONNECTIONS 16

/* The protocol's numbers, as far as the tests use them. */
enum { FAKE_READ, FAKE_WRITE, FAKE_DISC, FAKE_FLUSH, FAKE_TRIM };
enum {
    FAKE_HAS_FLAGS = 1 << 0,
    FAKE_READ_ONLY = 1 << 1,
    FAKE_HAS_FLUSH = 1 << 2,
    FAKE_HAS_FUA = 1 << 3,
    FAKE_HAS_TRIM = 1 << 5,
    FAKE_HAS_MULTI = 1 << 8,
};
#define FAKE_FLAG_FUA 1

struct fake_export {
    uint64_t size;
    uint16_t flags; /* FAKE_HAS_... */
    uint32_t minimum, preferred, maximum; /* told unless minimum is 0 */
};

struct fake_request {
    int connection; /* its descriptor */
    uint16_t flags, type;
    uint64_t cookie, offset;
    uint32_t length;
    uint8_t first; /* octet of a write's data */
};

struct nbd_fake {
    struct fake_export export;
    char uri[256];
    char socket[104];
    int listener;
    pthread_t acceptor;
    pthread_t thread[FAKE_CONNECTIONS];
    int fd[FAKE_CONNECTIONS];
    pthread_mutex_t mutex; /* below */
    pthread_cond_t changed;
    size_t connections;
    size_t count;
    struct fake_request request[FAKE_REQUESTS];
    size_t disconnects; /* NBD_CMD_DISC */
};

void nbd_fake_start(struct nbd_fake *fake, const struct fake_export *export);
/* Close everything, end the threads.  Again is fine. */
void nbd_fake_stop(struct nbd_fake *fake);
/* Wait until this many requests have come. */
void nbd_fake_await(struct nbd_fake *fake, size_t count);
/* Forget those that have come. */
void nbd_fake_forget(struct nbd_fake *fake);
/* How many have come now. */
size_t nbd_fake_count(struct nbd_fake *fake);
/* Answer the i-th: an NBD error number or 0; data of a read are `octet`s. */
void nbd_fake_answer(struct nbd_fake *fake, size_t i, uint32_t error,
                     uint8_t octet);
/* The same octets to the connection of the i-th, whatever they are. */
void nbd_fake_say(struct nbd_fake *fake, size_t i, const void *octets,
                  size_t length);

#endif
