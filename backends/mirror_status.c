/* SPDX-License-Identifier: ISC */
/*
 * How a mirror is doing, and what becomes of failures.  They go to the log,
 * too: behind a farblkd nobody else would see them.
 */
#include "backends/mirror.h"

#include "core/checked.h"
#include "core/log.h"

#include <string.h>

uint64_t
mirror_copied(const struct mirror *mirror)
{
    uint64_t open = mirror_dirty_octets(&mirror->dirty) + mirror->in_flight;
    return mirror->size - min_u64(open, mirror->size);
}

void
mirror_fill_status(const struct mirror *mirror,
                   struct farblk_mirror_status *status)
{
    uint64_t copied = mirror_copied(mirror);
    *status = (struct farblk_mirror_status){
        .size = sizeof *status,
        .state = atomic_load(&mirror->alone) ? FARBLK_MIRROR_ALONE
                 : mirror->failed            ? FARBLK_MIRROR_FAILED
                 : mirror->missed            ? FARBLK_MIRROR_DEGRADED
                 : mirror->complete          ? FARBLK_MIRROR_COMPLETE
                                             : FARBLK_MIRROR_COPYING,
        .sector_size = mirror->shape.sector_size,
        .error = mirror->error.status,
        .size_sectors = mirror->size / mirror->shape.sector_size,
        .copied_sectors = copied / mirror->shape.sector_size,
    };
    if (status->state == FARBLK_MIRROR_COMPLETE)
        status->percent = 100;
    else if (mirror->size > 0) /* not above 99 before the flush */
        status->percent = (uint32_t)min_u64(99, status->copied_sectors * 100
                                                    / status->size_sectors);
    memcpy(status->text, mirror->error.text, sizeof status->text);
}

/* Under the mutex. */
static void
status_note(struct mirror *mirror, const char *who, const struct error *error)
{
    error_set(&mirror->error, error->status, "%s: %.400s", who,
              mirror_words(error));
    mirror->complete = false;
    pthread_cond_broadcast(&mirror->wake);
}

void
mirror_missed(struct mirror *mirror, uint64_t offset, uint64_t length,
              const char *who, const struct error *error)
{
    pthread_mutex_lock(&mirror->mutex);
    mirror_dirty_add(&mirror->dirty, offset,
                     min_u64(offset + length, mirror->size));
    bool final = mirror->failed || atomic_load(&mirror->alone);
    bool first = !mirror->missed && !final;
    mirror->missed = true;
    if (!final)
        status_note(mirror, who, error);
    pthread_mutex_unlock(&mirror->mutex);
    if (first)
        log_warning("mirror of %s is degraded: %s: %.300s", mirror->shape.name,
                    who, mirror_words(error));
}

void
mirror_give_up(struct mirror *mirror, const struct error *error)
{
    pthread_mutex_lock(&mirror->mutex);
    bool first = !atomic_exchange(&mirror->alone, true);
    if (first)
        status_note(mirror, "secondary", error);
    pthread_mutex_unlock(&mirror->mutex);
    if (first)
        log_error("mirror of %s goes on with primary alone; secondary: %.300s",
                  mirror->shape.name, mirror_words(error));
}

void
mirror_fail(struct mirror *mirror, const char *who, const struct error *error)
{
    pthread_mutex_lock(&mirror->mutex);
    bool first = !mirror->failed && !atomic_load(&mirror->alone);
    if (first) {
        mirror->failed = true;
        status_note(mirror, who, error);
    }
    pthread_mutex_unlock(&mirror->mutex);
    if (first)
        log_error("mirror of %s has failed; %s: %.300s", mirror->shape.name,
                  who, mirror_words(error));
}

void
mirror_secondary_failed(struct mirror *mirror, const struct error *error)
{
    if (atomic_load(&mirror->degrade))
        mirror_give_up(mirror, error);
    else
        mirror_fail(mirror, "secondary", error);
}

/* ------------------------------------------------------------ the API */

/* The mirror of a handle; NULL, with the error told. */
static struct mirror *
status_mirror(const char *name, struct farblk *dev)
{
    last_error_clear();
    if (dev == NULL || !handle_open(dev) || handle_forked(dev)) {
        last_error_fail(FARBLK_INVALID,
                        "%s: not an open handle of this process", name);
        return NULL;
    }
    if (dev->device->driver == &driver_mirror)
        return dev->device->state;
    last_error_fail(FARBLK_INVALID,
                    "%s: %.200s is no mirror of this process but a device of "
                    "the driver %s",
                    name, dev->device->shape.name, dev->device->driver->name);
    return NULL;
}

int
farblk_mirror_status(struct farblk *dev, struct farblk_mirror_status *status,
                     size_t size)
{
    struct farblk_mirror_status now;
    struct mirror *mirror = status_mirror("mirror_status", dev);
    if (mirror == NULL)
        return FARBLK_INVALID;
    if (status == NULL)
        return last_error_fail(FARBLK_INVALID,
                               "mirror_status: nowhere to put the status");
    pthread_mutex_lock(&mirror->mutex);
    mirror_fill_status(mirror, &now);
    pthread_mutex_unlock(&mirror->mutex);
    if (size > sizeof now)
        memset((char *)status + sizeof now, 0, size - sizeof now);
    memcpy(status, &now, min_u64(size, sizeof now));
    return 0;
}

int
farblk_mirror_set(struct farblk *dev,
                  const struct farblk_mirror_options *options)
{
    struct mirror *mirror = status_mirror("mirror_set", dev);
    if (mirror == NULL)
        return FARBLK_INVALID;
    if (options == NULL || options->size < sizeof *options)
        return last_error_fail(FARBLK_INVALID,
                               "mirror_set: no options, or of %zu octets, "
                               "wanted at least %zu",
                               options == NULL ? 0 : options->size,
                               sizeof *options);
    const unsigned char *octets = (const unsigned char *)options;
    for (size_t i = sizeof *options; i < options->size; i++)
        if (octets[i] != 0)
            return last_error_fail(
                FARBLK_INVALID,
                "mirror_set: options that this library does not know");
    atomic_store(&mirror->degrade, options->degrade);
    pthread_mutex_lock(&mirror->mutex);
    mirror->rate = options->rate;
    mirror->next_us = 0;
    pthread_cond_broadcast(&mirror->wake);
    pthread_mutex_unlock(&mirror->mutex);
    return 0;
}
