/* SPDX-License-Identifier: ISC */
/*
 * mirror: two devices as one.  Reads are primary's, changes go to both, and
 * secondary becomes a copy of primary meanwhile.
 *
 * This file is core's contract; mirror.h tells how the rest is laid out and why
 * it is in order.  What it leaves out: it does not know what is changed past
 * it, and remembers nothing of a copy when it is closed: the next one begins
 * anew.
 */
#include "backends/mirror.h"

#include <inttypes.h>
#include <stdio.h>

static const struct uri_param mirror_params[] = {
    {.name = "primary",
     .kind = URI_STRING,
     .help = "URI, percent-encoded, of the device that is read"},
    {.name = "secondary",
     .kind = URI_STRING,
     .help = "URI, percent-encoded, of the one that becomes its copy"},
    {.name = "degrade",
     .kind = URI_BOOL,
     .help = "1: go on with primary alone when secondary fails"},
    {.name = "rate",
     .kind = URI_SIZE,
     .min = 1,
     .max = INT64_MAX,
     .help = "octets that are copied in a second; no limit unless given"},
    {.name = NULL},
};

static int
mirror_driver_open(const struct uri *uri, bool read_only,
                   struct candidate *found, struct error *error)
{
    struct mirror *mirror;
    (void)read_only; /* of the handle, not of the mirror */
    int status = mirror_open_uri(uri, &mirror, error);
    if (status != 0)
        return status;
    found->state = mirror;
    snprintf(found->key, sizeof found->key, "mirror:%" PRIu64,
             mirror_pair_id(mirror));
    return 0;
}

static int
mirror_driver_start(void *state, struct device *device, struct shape *shape,
                    struct error *error)
{
    struct mirror *mirror = state;
    mirror->device = device;
    *shape = mirror->shape;
    mirror_pair_start(mirror);
    if (!mirror_copy_start(mirror))
        return error_set(error, FARBLK_NO_MEMORY,
                         "no thread for the copying of a mirror");
    return 0;
}

static int
mirror_driver_join(void *running_state, void *candidate_state, bool *read_only,
                   struct error *error)
{
    struct mirror *running = running_state, *candidate = candidate_state;
    bool degrade = atomic_load(&candidate->degrade);
    (void)read_only;
    if (candidate->has_degrade && degrade != atomic_load(&running->degrade))
        return error_set(error, FARBLK_CONFLICT,
                         "the mirror is open with degrade=%d, not degrade=%d",
                         !degrade, degrade);
    pthread_mutex_lock(&running->mutex);
    uint64_t rate = running->rate;
    pthread_mutex_unlock(&running->mutex);
    if (candidate->has_rate && candidate->rate != rate)
        return error_set(error, FARBLK_CONFLICT,
                         "the mirror is open with a rate of %" PRIu64
                         " octets a second (0: none), not of %" PRIu64,
                         rate, candidate->rate);
    mirror_copy_resume(running);
    return 0;
}

/* Requests that wait behind pieces of the copying are waited for now. */
static void
mirror_driver_shut(void *state, bool last)
{
    if (last)
        mirror_copy_pause(state);
}

static void
mirror_driver_disconnect(void *state)
{
    mirror_copy_stop(state);
}

static void
mirror_driver_close(void *state)
{
    struct mirror *mirror = state;
    mirror_copy_stop(mirror);
    pthread_mutex_lock(&mirror->mutex);
    bool self = mirror->running; /* the program's function closes it */
    mirror->orphan = self;
    pthread_mutex_unlock(&mirror->mutex);
    if (self) {
        pthread_detach(mirror->thread);
        return;
    }
    if (mirror->started)
        pthread_join(mirror->thread, NULL);
    mirror_free(mirror);
}

static void
mirror_driver_submit(void *state, struct io *io)
{
    mirror_submit(state, io);
}

static void
mirror_driver_cancel(void *state, struct io *io)
{
    mirror_cancel(state, io);
}

const struct driver driver_mirror = {
    .name = "mirror",
    .schemes = "mirror",
    .summary = "two devices as one, kept equal",
    .usage = "mirror:?primary=URI&secondary=URI[&degrade=1&rate=SIZE]",
    .params = mirror_params,
    .flags = DRIVER_SECTORS_ATOMIC | DRIVER_STACKED,
    .native_fua = 1u << FARBLK_OP_WRITE | 1u << FARBLK_OP_DISCARD
                  | 1u << FARBLK_OP_WRITE_ZEROES | 1u << FARBLK_OP_RESIZE,
    .open = mirror_driver_open,
    .start = mirror_driver_start,
    .join = mirror_driver_join,
    .disconnect = mirror_driver_disconnect,
    .shut = mirror_driver_shut,
    .close = mirror_driver_close,
    .submit = mirror_driver_submit,
    .cancel = mirror_driver_cancel,
};
