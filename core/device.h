/* SPDX-License-Identifier: ISC */
/*
 * Devices and their handles.
 *
 * A device is what a driver started: one for each identity in the process.  It
 * owns what all its handles share: shape and generation, the gate, the range
 * locks, the memory of a failed flush, the watchers.  A handle (struct farblk)
 * is one opener's view: read-only or not, its default timeout, connected or
 * not, and the count of what it has in flight.
 *
 * Lock order: registry -> counts_mutex; request.mutex -> ranges; device.mutex
 * and the mutexes inside gate, ranges and timer are leaves.  No lock is held while a driver or a
 * done() is called, except the registry's at open and close.
 */
#ifndef FARBLK_CORE_DEVICE_H
#define FARBLK_CORE_DEVICE_H

#include "core/driver.h"
#include "core/gate.h"
#include "core/ranges.h"
#include "core/request.h"

struct device {
    const struct driver *driver;
    void *state;
    char key[320];
    uint64_t identity; /* farblk_info's */
    struct device *next; /* registry */
    pthread_mutex_t counts_mutex;
    unsigned handles; /* not yet closed */
    unsigned connected; /* not yet disconnected */
    unsigned leaving; /* of those: they take no more requests */

    struct gate gate;
    struct ranges ranges;

    /* Generation and size that belong together, for device_told(): the count is
     * odd while they change, which they do under the mutex. */
    atomic_uint_fast64_t told_count, told_generation, told_size;

    pthread_mutex_t mutex; /* the rest */
    struct shape shape; /* sector_size, features, limits, names: fixed */
    atomic_uint_fast64_t size; /* octets; changes only alone inside the gate */
    struct error flush_error; /* status != 0: a flush has failed for good */
    atomic_bool flush_failed; /* the same, to be read without the lock */
    struct request *watchers; /* linked by watch_next */
};

struct farblk {
    struct farblk *next; /* the table of open handles */
    struct device *device;
    unsigned fork_generation;
    bool read_only, sync;
    int32_t timeout_ms;
    atomic_uint_fast64_t state; /* bit 63: disconnected; the rest: in flight */
    atomic_bool revoked; /* nothing of it changes the device any more */
    bool ended; /* counts_mutex: not counted as connected */
    pthread_mutex_t mutex; /* the drain below */
    pthread_cond_t drained;
    bool drain_done;
    struct farblk_info last_info; /* of when it was drained */
    void (*on_drained)(void *arg);
    void *on_drained_arg;
};

/* farblk_open() once the driver is known.  May block. */
int device_open(const struct driver *driver, const char *uri,
                const struct farblk_options *options, struct farblk **handle,
                struct error *error);

/* The same for what a driver found otherwise than by a URI; consumes it.  May
 * block. */
int device_open_found(const struct driver *driver, struct candidate *found,
                      struct farblk **handle, struct error *error);

/* Another handle of the same device.  Never blocks.  NULL without memory.
 * `read_only` is added to what `handle` already is. */
struct farblk *handle_dup(struct farblk *handle, bool read_only);

/* Disconnect without blocking: drained(arg) is called once, maybe at once, when
 * no operation of the handle can land any more.  The handle must not be the
 * device's last connected one when the driver's disconnect may block. */
void handle_disconnect_async(struct farblk *handle, void (*drained)(void *arg),
                             void *arg);

/* What is not begun yet of the handle's changes will not be, wherever it waits:
 * it fails, with effect NONE.  The rest goes on as it does. */
void handle_revoke(struct farblk *handle);

/* Refuse new requests and wait until none is in flight. */
void handle_disconnect(struct farblk *handle);
bool handle_disconnected(const struct farblk *handle);

/* Count a request in; false when the handle is disconnected. */
bool handle_enter(struct farblk *handle);
void handle_leave(struct farblk *handle);

/* Whether this is a handle that was opened and not closed; looks only at the
 * pointer. */
bool handle_open(const struct farblk *handle);

/* Whether the handle was made before a fork of this process. */
bool handle_forked(const struct farblk *handle);

/* What farblk_get_info() would say, without asking a remote device. */
void handle_info(struct farblk *handle, struct farblk_info *info);

/* The generation, and the size in octets that the device has with it. */
void device_told(struct device *device, uint64_t *generation, uint64_t *size);
/* It has started: they are what its shape says. */
void device_started(struct device *device);

/* Set size and generation after a local resize, and wake watchers. */
void device_resized(struct device *device, uint64_t size);

/* Complete the watchers that have an answer: the generation is another one, or
 * their handle is disconnected. */
void device_wake_watchers(struct device *device);
/* Add a watching request; false when it has its answer already (in value). */
bool device_watch(struct device *device, struct request *request);
/* Take it back; false when it was woken meanwhile. */
bool device_unwatch(struct device *device, struct request *request);

/* Remember that a flush has failed for good. */
void device_flush_failed(struct device *device, const struct error *error);
/* False, with the error, when one has. */
bool device_check_flush(struct device *device, struct error *error);

/* Count of forks above this process, for handles and queues. */
unsigned fork_generation(void);
/* In a forked child: give the locks back that somebody may have held. */
void device_after_fork(void);
void blocking_after_fork(void);

#endif
