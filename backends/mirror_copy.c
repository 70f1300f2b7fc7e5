/* SPDX-License-Identifier: ISC */
/*
 * The copying of a mirror: a thread that plans pieces, keeps several of them
 * under way, notices when nothing is left, and tells the program.
 *
 * Pieces run by themselves (mirror_slot.c); while the program's function takes
 * its time, those under way end and no others begin.  Where primary is mapped
 * is asked for many extents at once, without a lock: a hint, by which pieces
 * are cut.  A piece of data copies what is there, a piece that is to be zero
 * asks again.
 *
 * Stopping cancels what the children have not answered, again and again until
 * nothing is under way: a request that is just being submitted is not found.  A
 * local flush alone is waited for: after one that did not end well core refuses
 * all others, and the device is not ours alone.
 */
#include "backends/mirror.h"

#include "core/checked.h"
#include "core/log.h"

#include <signal.h>
#include <stdlib.h>
#include <time.h>

#define COPY_AGAIN_US 10000 /* cancelling what was not found */
#define COPY_RETRY_US 50000 /* getting memory */

static int64_t
copy_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Under the mutex; until_us 0: until something changes. */
static void
copy_wait(struct mirror *mirror, int64_t until_us)
{
    struct timespec until = {
        .tv_sec = (time_t)(until_us / 1000000),
        .tv_nsec = (long)(until_us % 1000000) * 1000,
    };
    if (until_us == 0)
        pthread_cond_wait(&mirror->wake, &mirror->mutex);
    else
        pthread_cond_timedwait(&mirror->wake, &mirror->mutex, &until);
}

/* ------------------------------------------------------------ telling */

/* Under the mutex, which is given up for the program's function.  False:
 * nothing to tell. */
static bool
copy_tell(struct mirror *mirror)
{
    struct farblk_mirror_status status;
    if (mirror->told_end)
        return false;
    mirror_fill_status(mirror, &status);
    bool end = mirror->failed || atomic_load(&mirror->alone);
    uint64_t open = mirror->size - mirror_copied(mirror);
    if (end) {
        mirror->told_end = true;
    } else if (mirror->told_complete) {
        return false;
    } else if (mirror->complete) {
        mirror->told_complete = true;
    } else if (open > 0 && status.percent > mirror->told_percent) {
        mirror->told_percent = status.percent;
    } else {
        return false;
    }
    if (mirror->progress != NULL) {
        pthread_mutex_unlock(&mirror->mutex);
        mirror->progress(mirror->progress_arg, &status);
        pthread_mutex_lock(&mirror->mutex);
    }
    return true;
}

/* ------------------------------------------------------------ asking */

static void
copy_call_done(struct request *call)
{
    struct mirror *mirror = call->owner;
    pthread_mutex_lock(&mirror->mutex);
    mirror->call_done = true;
    pthread_cond_broadcast(&mirror->wake);
    pthread_mutex_unlock(&mirror->mutex);
}

/* Under the mutex: cancel what is under way, as far as it is found. */
static void
copy_cancel(struct mirror *mirror)
{
    if (mirror->call_ends)
        request_cancel(&mirror->call);
    for (unsigned side = PRIMARY; side <= SECONDARY; side++)
        request_cancel(&mirror->watch[side].call);
    for (unsigned i = 0; i < MIRROR_SLOTS; i++)
        request_cancel(&mirror->slot[i].call);
}

/* Under the mutex: until no piece and no watch is under way. */
static void
copy_drain(struct mirror *mirror)
{
    while (mirror->busy > 0 || mirror->watch[PRIMARY].flying
           || mirror->watch[SECONDARY].flying) {
        copy_cancel(mirror);
        copy_wait(mirror, copy_now_us() + COPY_AGAIN_US);
    }
}

int
mirror_ask(struct mirror *mirror, unsigned side, enum farblk_op op,
           uint64_t offset, uint64_t length, void *answer, size_t size)
{
    struct request *call = &mirror->call;
    mirror_call(mirror, call, side, op, offset, length, 0);
    mirror->call_iov = (struct iovec){answer, size};
    if (answer != NULL) {
        call->iov = &mirror->call_iov;
        call->iovcnt = 1;
    }
    if (mirror->child[side]->timeout_ms == 0)
        call->timeout_ms = INT32_MAX;
    call->done = copy_call_done;
    call->owner = mirror;
    mirror->call_done = false;
    mirror->call_ends =
        op != FARBLK_OP_FLUSH
        || (call->handle->device->driver->flags & DRIVER_REMOTE) != 0;
    pthread_mutex_unlock(&mirror->mutex);
    request_submit(call);
    pthread_mutex_lock(&mirror->mutex);
    while (!mirror->call_done) {
        bool halted = mirror_halted(mirror);
        if (halted)
            copy_cancel(mirror);
        copy_wait(mirror, halted ? copy_now_us() + COPY_AGAIN_US : 0);
    }
    return call->error.status;
}

/* ------------------------------------------------------------ planning */

/* The hint that has this octet, or NULL. */
static const struct farblk_extent *
copy_hint(const struct mirror *mirror, uint64_t at)
{
    for (size_t i = 0; i < mirror->hint_count; i++)
        if (at >= mirror->hint[i].start
            && at - mirror->hint[i].start < mirror->hint[i].count)
            return &mirror->hint[i];
    return NULL;
}

/* Under the mutex, which is given up.  False: that failed. */
static bool
copy_ask_hints(struct mirror *mirror, uint64_t start, uint64_t end)
{
    uint64_t sector = mirror->shape.sector_size;
    mirror->hint_count = 0;
    if (mirror_ask(mirror, PRIMARY, FARBLK_OP_EXTENTS, start, end - start,
                   mirror->hint, sizeof mirror->hint)
        != 0)
        return false;
    mirror->hint_count =
        mirror_round(mirror->hint, (size_t)mirror->call.value,
                     mirror->child_sector[PRIMARY], (uint32_t)sector);
    for (size_t i = 0; i < mirror->hint_count; i++) {
        mirror->hint[i].start *= sector;
        mirror->hint[i].count *= sector;
    }
    return true;
}

/* Octets of a piece of data now: smaller when the rate is low, so that it goes
 * on evenly. */
static uint64_t
copy_piece(const struct mirror *mirror)
{
    uint64_t sector = mirror->shape.sector_size;
    if (mirror->rate == 0)
        return mirror->piece;
    return min_u64(mirror->piece,
                   max_u64(sector, round_down(mirror->rate / 8, sector)));
}

/* A slot that is free and has memory; NULL: none now. */
static struct mirror_slot *
copy_slot(struct mirror *mirror)
{
    for (unsigned i = 0; i < MIRROR_SLOTS; i++) {
        struct mirror_slot *slot = &mirror->slot[i];
        if (slot->busy)
            continue;
        if (slot->block == NULL)
            slot->block = block_alloc(mirror->piece);
        if (slot->block != NULL)
            return slot;
    }
    return NULL;
}

/* Under the mutex, which is given up: begin a piece, or find out why not. */
static void
copy_plan(struct mirror *mirror)
{
    int64_t now_us = mirror->rate > 0 ? copy_now_us() : 0;
    if (mirror->rate > 0 && now_us < mirror->next_us) {
        copy_wait(mirror, mirror->next_us);
        return;
    }
    if (mirror->rate > 0)
        mirror->next_us = now_us;
    struct mirror_range first = mirror->dirty.range[0];
    const struct farblk_extent *hint = copy_hint(mirror, first.start);
    if (hint == NULL) {
        if (!copy_ask_hints(mirror, first.start, first.end)
            && !mirror_halted(mirror)) {
            struct error error = mirror->call.error;
            pthread_mutex_unlock(&mirror->mutex);
            mirror_fail(mirror, "primary", &error);
            pthread_mutex_lock(&mirror->mutex);
        }
        return; /* the set may be another by now */
    }
    struct mirror_slot *slot = copy_slot(mirror);
    if (slot == NULL) {
        /* Without any: a limit of memory is reached, for now. */
        copy_wait(mirror, mirror->busy > 0 ? 0 : copy_now_us() + COPY_RETRY_US);
        return;
    }
    uint64_t length =
        min_u64(first.end, hint->start + hint->count) - first.start;
    slot->kind = hint->mapped != 0 ? SLOT_DATA : SLOT_ZERO;
    if (slot->kind == SLOT_DATA)
        length = min_u64(length, copy_piece(mirror));
    slot->mirror = mirror;
    slot->offset = first.start;
    slot->taken = length;
    slot->busy = true;
    mirror->busy++;
    mirror->in_flight += length;
    mirror_dirty_take(&mirror->dirty, length);
    pthread_mutex_unlock(&mirror->mutex);
    mirror_slot_begin(slot);
    pthread_mutex_lock(&mirror->mutex);
}

/* ------------------------------------------------------------ the end */

/* Under the mutex, which is given up: everything has been copied; make it
 * stable and say so, unless something came up meanwhile. */
static void
copy_settle(struct mirror *mirror)
{
    if (mirror->resizes % 2 != 0) {
        copy_wait(mirror, 0);
        return;
    }
    if (mirror_ask(mirror, SECONDARY, FARBLK_OP_FLUSH, 0, 0, NULL, 0) != 0) {
        struct error error = mirror->call.error;
        bool halted = mirror_halted(mirror);
        pthread_mutex_unlock(&mirror->mutex);
        if (!halted)
            mirror_secondary_failed(mirror, &error);
        pthread_mutex_lock(&mirror->mutex);
        return;
    }
    uint64_t generation;
    if (!mirror_check_size(mirror, PRIMARY, &generation)
        || !mirror_check_size(mirror, SECONDARY, &generation))
        return;
    if (mirror->dirty.count > 0 || mirror->failed
        || atomic_load(&mirror->alone))
        return;
    mirror->complete = true;
    mirror->missed = false;
    error_clear(&mirror->error);
    mirror->hint_count = 0;
    for (unsigned i = 0; i < MIRROR_SLOTS; i++) {
        block_put(mirror->slot[i].block);
        mirror->slot[i].block = NULL;
    }
    pthread_mutex_unlock(&mirror->mutex);
    log_info("mirror of %s is complete", mirror->shape.name);
    pthread_mutex_lock(&mirror->mutex);
}

static void *
copy_thread(void *arg)
{
    struct mirror *mirror = arg;
    pthread_mutex_lock(&mirror->mutex);
    while (!mirror->stopping) {
        if (mirror->paused) {
            copy_cancel(mirror);
            copy_wait(mirror,
                      mirror->busy > 0 ? copy_now_us() + COPY_AGAIN_US : 0);
            continue;
        }
        if (copy_tell(mirror))
            continue;
        if (mirror->failed || atomic_load(&mirror->alone))
            copy_wait(mirror, 0);
        else if (mirror->watch[PRIMARY].due && mirror->resizes % 2 == 0)
            mirror_watch(mirror, PRIMARY);
        else if (mirror->watch[SECONDARY].due && mirror->resizes % 2 == 0)
            mirror_watch(mirror, SECONDARY);
        else if (mirror->dirty.count > 0)
            copy_plan(mirror);
        else if (mirror->busy > 0 || mirror->complete)
            copy_wait(mirror, 0);
        else
            copy_settle(mirror);
    }
    copy_drain(mirror);
    mirror->running = false;
    pthread_cond_broadcast(&mirror->wake);
    bool orphan = mirror->orphan;
    pthread_mutex_unlock(&mirror->mutex);
    if (orphan) /* the program's function has closed it */
        mirror_free(mirror);
    return NULL;
}

bool
mirror_copy_start(struct mirror *mirror)
{
    uint32_t sector = mirror->shape.sector_size;
    uint64_t piece = mirror->size / 128;
    piece = min_u64(max_u64(piece, MIRROR_PIECE_MIN), MIRROR_PIECE_MAX);
    mirror->piece = (uint32_t)max_u64(round_down(piece, sector), sector);
    mirror_dirty_add(&mirror->dirty, 0, mirror->size);
    for (unsigned side = PRIMARY; side <= SECONDARY; side++)
        mirror->watch[side].due =
            (mirror->child_features[side] & FARBLK_CAN_WATCH) != 0;
    /* The library takes no signals: they are the program's. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    mirror->running = true;
    bool fine = pthread_create(&mirror->thread, NULL, copy_thread, mirror) == 0;
    mirror->started = fine;
    if (!fine)
        mirror->running = false;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return fine;
}

void
mirror_copy_pause(struct mirror *mirror)
{
    struct device *device = mirror->device;
    pthread_mutex_lock(&mirror->mutex);
    pthread_mutex_lock(&device->counts_mutex);
    mirror->paused = device->leaving == device->connected;
    pthread_mutex_unlock(&device->counts_mutex);
    if (mirror->paused) {
        pthread_cond_broadcast(&mirror->wake);
        copy_cancel(mirror); /* the thread may be with the program's function */
    }
    pthread_mutex_unlock(&mirror->mutex);
}

void
mirror_copy_resume(struct mirror *mirror)
{
    pthread_mutex_lock(&mirror->mutex);
    mirror->paused = false;
    pthread_cond_broadcast(&mirror->wake);
    pthread_mutex_unlock(&mirror->mutex);
}

void
mirror_copy_stop(struct mirror *mirror)
{
    pthread_mutex_lock(&mirror->mutex);
    mirror->stopping = true;
    pthread_cond_broadcast(&mirror->wake);
    bool self =
        mirror->running && pthread_equal(pthread_self(), mirror->thread);
    copy_drain(mirror);
    pthread_mutex_unlock(&mirror->mutex);
    mirror_pair_leave(mirror); /* a function that takes its time hurts nobody */
    pthread_mutex_lock(&mirror->mutex);
    while (mirror->running && !self)
        copy_wait(mirror, 0);
    pthread_mutex_unlock(&mirror->mutex);
}
