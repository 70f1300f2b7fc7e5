/* SPDX-License-Identifier: ISC */
/*
 * Short forms for tests of the client driver against the scripted server.
 */
#ifndef FARBLK_TESTS_CLIENT_CALLS_H
#define FARBLK_TESTS_CLIENT_CALLS_H

#include "tests/fake.h"
#include "tests/support.h"

/* The fake's device, opened. */
struct farblk *client_open(struct fake *fake);
struct farblk_queue *client_queue(void);

/* Submit; `user` comes back in the completion.  count: of iov, or 0. */
void client_submit(struct farblk_queue *queue, struct farblk *dev,
                   enum farblk_op op, uint64_t sector, const struct iovec *iov,
                   size_t iovcnt, int32_t timeout_ms, uintptr_t user);
void client_submit_count(struct farblk_queue *queue, struct farblk *dev,
                         enum farblk_op op, uint64_t sector, uint64_t count,
                         const struct iovec *iov, size_t iovcnt,
                         uintptr_t user);
/* The next completion, waited for. */
struct farblk_completion client_collect(struct farblk_queue *queue);

/* A blocking call on a thread of its own. */
struct client_thread {
    pthread_t thread;
    struct fake *fake;
    struct farblk *dev;
    enum farblk_op op;
    void *arg;
    uint64_t count, value;
    int status;
    struct farblk_info info;
    char text[FARBLK_TEXT_MAX];
};
void client_thread(struct client_thread *thread, void *(*run)(void *));
/* GET_INFO, WATCH (count: the generation), RESIZE (count), FLUSH. */
void client_begin(struct client_thread *thread, enum farblk_op op,
                  struct farblk *dev);
void client_end(struct client_thread *thread);

#endif
