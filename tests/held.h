/* SPDX-License-Identifier: ISC */
/*
 * A driver that the test holds in its hand: it keeps what core gives it until
 * the test ends it, well or badly, in any order.
 */
#ifndef FARBLK_TESTS_HELD_H
#define FARBLK_TESTS_HELD_H

#include "core/device.h"

#define SECTOR 512u
#define SECTORS 4096u
#define MAX_TRANSFER (8 * SECTOR)
#define HELD_MAX 4096

/* What it was given and has not ended; the mutex protects the array. */
extern pthread_mutex_t held_mutex;
extern pthread_cond_t held_wake;
extern struct io *held[HELD_MAX];
extern atomic_uint held_count;
/* End each io inside submit. */
extern atomic_bool held_at_once;
extern atomic_uint held_cancels, held_submits;
/* Calls of shut, and those that said that it was the last handle. */
extern atomic_uint held_shuts, held_last_shuts;
/* What the shape says of the devices that start from now on. */
extern uint32_t held_lacks_fua;

extern const struct driver held_driver;

/* Take out the one at `index`; with the mutex, or when nobody else is there. */
struct io *held_take(unsigned index);

#endif
