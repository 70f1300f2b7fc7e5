/* SPDX-License-Identifier: ISC */
/*
 * A device whose content, map, abilities and mishaps a test decides: memory,
 * and rules by which requests are held back, before or after they took effect,
 * or fail.  Any number of them; each is a device of its own.
 */
#ifndef FARBLK_TESTS_PUPPET_H
#define FARBLK_TESTS_PUPPET_H

#include "core/device.h"

#define PUPPET_FEATURES                                                        \
    (FARBLK_CAN_RESIZE | FARBLK_CAN_DISCARD | FARBLK_DISCARD_ZEROES            \
     | FARBLK_CAN_WRITE_ZEROES | FARBLK_CAN_SEEK | FARBLK_CAN_FUA              \
     | FARBLK_CAN_WATCH | FARBLK_SECTOR_ATOMIC)
#define PUPPET_HELD_MAX 256

#define PUPPET_OP(op) (1u << FARBLK_OP_##op)
#define PUPPET_ALL (~0u)

/* What is done to ios of these operations that touch [start, end); those
 * without a range, such as flushes, touch every range. */
struct puppet_rule {
    uint32_t ops; /* 0: no rule */
    uint64_t start, end;
    unsigned times; /* 0: as often as they come */
    bool late; /* hold: after it took effect; fail: the same */
    int status; /* fail with it; 0: hold */
    enum farblk_effect effect;
};

struct puppet {
    pthread_mutex_t mutex; /* all of it */
    pthread_cond_t changed;
    uint32_t sector_size;
    uint64_t features;
    bool read_only;
    uint64_t size, capacity;
    uint8_t *data;
    bool *mapped; /* by sector of 512 */
    struct puppet_rule hold, fail;
    struct {
        struct io *io;
        bool done; /* it took effect */
    } held[PUPPET_HELD_MAX];
    unsigned held_count, held_most;
    unsigned count[16]; /* ios that came, by operation */
    uint64_t octets[16];
    struct device *device;
    struct farblk *dev; /* the test's handle */
    char name[32];
};

/* All zeros and unmapped; room to grow to twice the size.  The features may be
 * changed until puppet_open(). */
struct puppet *puppet_create(const char *name, uint64_t size,
                             uint32_t sector_size);
/* Start the device and open puppet->dev. */
void puppet_open(struct puppet *puppet);
/* Closes the handle, if it is open; nobody else has one. */
void puppet_destroy(struct puppet *puppet);

/* From now on; what is held already stays so. */
void puppet_hold(struct puppet *puppet, struct puppet_rule rule);
void puppet_fail(struct puppet *puppet, struct puppet_rule rule);
/* No more holding; everything that is held goes on. */
void puppet_release(struct puppet *puppet);
/* Wait until that many are held. */
void puppet_wait_held(struct puppet *puppet, unsigned count);
/* Now. */
unsigned puppet_held(struct puppet *puppet);
unsigned puppet_count(struct puppet *puppet, enum farblk_op op);

#endif
