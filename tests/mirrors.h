/* SPDX-License-Identifier: ISC */
/* A mirror of two puppets, and what it told of its progress. */
#ifndef FARBLK_TESTS_MIRRORS_H
#define FARBLK_TESTS_MIRRORS_H

#include "tests/puppet.h"
#include "tests/support.h"

#define MIRRORS_SEEN 128
#define KIB UINT64_C(1024)

struct mirrors {
    struct puppet *primary, *secondary;
    struct farblk *dev;
    struct farblk_queue *queue;
    struct iovec iov[16]; /* of requests, by their user */
    pthread_mutex_t mutex; /* the rest */
    unsigned seen_count;
    struct farblk_mirror_status seen[MIRRORS_SEEN];
    void (*hook)(struct mirrors *mirrors,
                 const struct farblk_mirror_status *status);
};

/* Puppets of that size and sectors; primary holds a pattern, secondary another,
 * unless size is 0. */
struct mirrors *mirrors_create(uint64_t size, uint32_t primary_sector,
                               uint32_t secondary_sector);
/* Open the mirror, and the puppets' handles where they are not. */
void mirrors_open(struct mirrors *mirrors, bool degrade);
/* Close everything, without complaints about what a failed test left. */
void mirrors_destroy(struct mirrors *mirrors);

/* Fill a part of a puppet by hand, mapped; or with zeros, unmapped. */
void mirrors_fill(struct puppet *puppet, uint64_t start, uint64_t length,
                  uint64_t seed);
void mirrors_clear(struct puppet *puppet, uint64_t start, uint64_t length);

struct farblk_mirror_status mirrors_status(struct mirrors *mirrors);
/* Wait until it is in that state, and return the status. */
struct farblk_mirror_status mirrors_wait(struct mirrors *mirrors,
                                         enum farblk_mirror_state state);
/* Wait until the function was called with that state; how often it was. */
unsigned mirrors_wait_told(struct mirrors *mirrors,
                           enum farblk_mirror_state state);
unsigned mirrors_told(struct mirrors *mirrors, enum farblk_mirror_state state);

/* Submit with a buffer, which stays valid until it is collected; in octets. */
void mirrors_submit(struct mirrors *mirrors, enum farblk_op op, uint64_t offset,
                    void *buffer, uint64_t length, int32_t timeout_ms,
                    uintptr_t user);
struct farblk_completion mirrors_collect(struct mirrors *mirrors);
void mirrors_nothing_ends(struct mirrors *mirrors);
/* Write a pattern and wait. */
int mirrors_write(struct mirrors *mirrors, uint64_t offset, uint64_t length,
                  uint64_t seed);

/* Both hold the same, or this pattern there. */
void mirrors_expect_equal(struct mirrors *mirrors);
void mirrors_expect(struct puppet *puppet, uint64_t offset, uint64_t length,
                    uint64_t seed);

#endif
