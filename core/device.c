/* SPDX-License-Identifier: ISC */
/*
 * Handles: in-flight counts, disconnecting, watching; and what a device's
 * handles share.  Opening and closing is open.c's.
 */
#include "core/device.h"

#include "core/checked.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DISCONNECTED (UINT64_C(1) << 63)

bool
handle_enter(struct farblk *handle)
{
    uint64_t before =
        atomic_load_explicit(&handle->state, memory_order_relaxed);
    while ((before & DISCONNECTED) == 0)
        if (atomic_compare_exchange_weak(&handle->state, &before, before + 1))
            return true;
    return false;
}

/* What the device is now. */
static void
device_info(struct farblk *handle, struct farblk_info *info)
{
    struct device *device = handle->device;
    const struct shape *shape = &device->shape;
    struct driver_way way = {"", ""};
    snprintf(way.transport, sizeof way.transport, "%s", shape->transport);
    if (device->driver->way != NULL)
        device->driver->way(device->state, &way);
    memset(info, 0, sizeof *info);
    pthread_mutex_lock(&device->mutex);
    info->size_sectors = atomic_load(&device->size) / shape->sector_size;
    info->generation = shape->generation;
    pthread_mutex_unlock(&device->mutex);
    info->read_write = !handle->read_only && !shape->read_only;
    info->sector_size = shape->sector_size;
    info->features = shape->features;
    info->max_transfer = shape->max_transfer;
    info->preferred_transfer = shape->preferred_transfer;
    info->identity = device->identity;
    snprintf(info->driver, sizeof info->driver, "%s", device->driver->name);
    snprintf(info->transport, sizeof info->transport, "%s", way.transport);
    snprintf(info->name, sizeof info->name, "%s", shape->name);
    snprintf(info->way, sizeof info->way, "%s", way.text);
}

void
handle_info(struct farblk *handle, struct farblk_info *info)
{
    pthread_mutex_lock(&handle->mutex);
    bool last = handle->drain_done;
    if (last)
        *info = handle->last_info;
    pthread_mutex_unlock(&handle->mutex);
    if (!last)
        device_info(handle, info);
}

/* The last request has left a disconnected handle, or there was none.  Comes
 * once. */
static void
handle_drained(struct farblk *handle)
{
    pthread_mutex_lock(&handle->mutex);
    void (*call)(void *) = handle->on_drained;
    void *arg = handle->on_drained_arg;
    handle->on_drained = NULL;
    device_info(handle, &handle->last_info);
    handle->drain_done = true;
    pthread_cond_broadcast(&handle->drained);
    pthread_mutex_unlock(&handle->mutex);
    if (call != NULL)
        call(arg);
}

void
handle_leave(struct farblk *handle)
{
    if (atomic_fetch_sub(&handle->state, 1) == (DISCONNECTED | 1))
        handle_drained(handle);
}

/* Refuse new requests, and send the watchers home. */
static void
handle_shut(struct farblk *handle)
{
    struct device *device = handle->device;
    uint64_t before = atomic_fetch_or(&handle->state, DISCONNECTED);
    if ((before & DISCONNECTED) != 0)
        return;
    pthread_mutex_lock(&device->counts_mutex);
    bool last = ++device->leaving == device->connected;
    pthread_mutex_unlock(&device->counts_mutex);
    bool busy = before != 0;
    if (busy)
        device_wake_watchers(device);
    /* An idle one is told as well when it leaves others that are not. */
    if ((busy || last) && device->driver->shut != NULL)
        device->driver->shut(device->state, last);
    if (!busy)
        handle_drained(handle);
}

void
handle_disconnect_async(struct farblk *handle, void (*drained)(void *arg),
                        void *arg)
{
    pthread_mutex_lock(&handle->mutex);
    bool now = handle->drain_done;
    if (!now) {
        handle->on_drained = drained;
        handle->on_drained_arg = arg;
    }
    pthread_mutex_unlock(&handle->mutex);
    if (now)
        drained(arg);
    else
        handle_shut(handle);
}

void
handle_revoke(struct farblk *handle)
{
    atomic_store(&handle->revoked, true);
}

void
handle_disconnect(struct farblk *handle)
{
    const struct driver *driver = handle->device->driver;
    handle_shut(handle);
    if (driver->rings != NULL)
        driver->rings->drain(handle->device->state);
    pthread_mutex_lock(&handle->mutex);
    while (!handle->drain_done)
        pthread_cond_wait(&handle->drained, &handle->mutex);
    pthread_mutex_unlock(&handle->mutex);
}

bool
handle_disconnected(const struct farblk *handle)
{
    return (atomic_load(&handle->state) & DISCONNECTED) != 0;
}

bool
handle_forked(const struct farblk *handle)
{
    return handle->fork_generation != fork_generation();
}

void
device_told(struct device *device, uint64_t *generation, uint64_t *size)
{
    uint64_t count = atomic_load(&device->told_count);
    if (count % 2 == 0) {
        *generation = atomic_load(&device->told_generation);
        *size = atomic_load(&device->told_size);
        if (atomic_load(&device->told_count) == count)
            return;
    }
    pthread_mutex_lock(&device->mutex); /* they are just changing */
    *generation = device->shape.generation;
    *size = atomic_load(&device->size);
    pthread_mutex_unlock(&device->mutex);
}

/* Under the mutex, when one of them has changed. */
static void
device_tell(struct device *device)
{
    atomic_fetch_add(&device->told_count, 1);
    atomic_store(&device->told_generation, device->shape.generation);
    atomic_store(&device->told_size, atomic_load(&device->size));
    atomic_fetch_add(&device->told_count, 1);
}

void
device_started(struct device *device)
{
    pthread_mutex_lock(&device->mutex);
    atomic_store(&device->size, device->shape.size);
    device_tell(device);
    pthread_mutex_unlock(&device->mutex);
}

void
device_resized(struct device *device, uint64_t size)
{
    pthread_mutex_lock(&device->mutex);
    bool changed = atomic_exchange(&device->size, size) != size;
    if (changed) {
        device->shape.generation++;
        device_tell(device);
    }
    pthread_mutex_unlock(&device->mutex);
    if (changed)
        device_wake_watchers(device);
}

void
device_reshape(struct device *device, uint64_t size, uint64_t generation)
{
    pthread_mutex_lock(&device->mutex);
    /* Answers may overtake each other; a generation never falls. */
    if (generation >= device->shape.generation) {
        device->shape.generation = generation;
        atomic_store(&device->size, size);
        device_tell(device);
    }
    pthread_mutex_unlock(&device->mutex);
}

void
device_wake_watchers(struct device *device)
{
    struct request *woken = NULL;
    pthread_mutex_lock(&device->mutex);
    struct request **link = &device->watchers;
    while (*link != NULL) {
        struct request *request = *link;
        if (device->shape.generation == request->count
            && !handle_disconnected(request->handle)) {
            link = &request->watch_next;
            continue;
        }
        *link = request->watch_next;
        request->watching = false;
        request->value = device->shape.generation;
        request->watch_next = woken;
        woken = request;
    }
    pthread_mutex_unlock(&device->mutex);
    while (woken != NULL) {
        struct request *next = woken->watch_next;
        request_watched(woken);
        woken = next;
    }
}

bool
device_watch(struct device *device, struct request *request)
{
    pthread_mutex_lock(&device->mutex);
    request->value = device->shape.generation;
    request->watching = request->value == request->count
                        && !handle_disconnected(request->handle);
    if (request->watching) {
        request->watch_next = device->watchers;
        device->watchers = request;
    }
    bool watching = request->watching;
    pthread_mutex_unlock(&device->mutex);
    return watching;
}

bool
device_unwatch(struct device *device, struct request *request)
{
    pthread_mutex_lock(&device->mutex);
    bool watching = request->watching;
    if (watching) {
        struct request **link = &device->watchers;
        while (*link != request)
            link = &(*link)->watch_next;
        *link = request->watch_next;
        request->watching = false;
    }
    pthread_mutex_unlock(&device->mutex);
    return watching;
}

void
device_flush_failed(struct device *device, const struct error *error)
{
    pthread_mutex_lock(&device->mutex);
    if (device->flush_error.status == 0) {
        device->flush_error = *error;
        atomic_store(&device->flush_failed, true);
    }
    pthread_mutex_unlock(&device->mutex);
}

bool
device_check_flush(struct device *device, struct error *error)
{
    if (!atomic_load_explicit(&device->flush_failed, memory_order_acquire))
        return true;
    pthread_mutex_lock(&device->mutex);
    error_set(error, device->flush_error.status,
              "a flush of this device has failed before, and what was written "
              "since the last good one may be lost (%.300s); open it anew",
              device->flush_error.text);
    error->effect = FARBLK_EFFECT_UNKNOWN;
    pthread_mutex_unlock(&device->mutex);
    return false;
}
