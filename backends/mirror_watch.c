/* SPDX-License-Identifier: ISC */
/*
 * Both children of a mirror are watched by its thread: when somebody else
 * resizes one, or one is gone for good, the mirror knows without being used.
 */
#include "backends/mirror.h"

#include "core/checked.h"

/* A child is gone, or is not what it was. */
static void
watch_child_failed(struct mirror *mirror, unsigned side,
                   const struct error *error)
{
    pthread_mutex_unlock(&mirror->mutex);
    if (side == PRIMARY)
        mirror_fail(mirror, "primary", error);
    else
        mirror_secondary_failed(mirror, error);
    pthread_mutex_lock(&mirror->mutex);
}

bool
mirror_check_size(struct mirror *mirror, unsigned side, uint64_t *generation)
{
    struct farblk_info info;
    struct error error;
    unsigned before = mirror->resizes;
    int status =
        mirror_ask(mirror, side, FARBLK_OP_GET_INFO, 0, 0, &info, sizeof info);
    if (mirror_halted(mirror) || before % 2 != 0 || mirror->resizes != before)
        return false; /* later */
    if (status != 0)
        error = mirror->call.error;
    else if (mirror->call.value != 0)
        error_set(&error, FARBLK_DISCONNECTED, "it is disconnected");
    else if (info.size_sectors * info.sector_size != mirror->size)
        error_set(&error, FARBLK_CONFLICT,
                  "it has %llu octets, and the mirror %llu: it was resized "
                  "behind the mirror's back",
                  (unsigned long long)(info.size_sectors * info.sector_size),
                  (unsigned long long)mirror->size);
    else {
        *generation = info.generation;
        return true;
    }
    watch_child_failed(mirror, side, &error);
    return false;
}

static void
watch_done(struct request *call)
{
    struct mirror *mirror = call->owner;
    pthread_mutex_lock(&mirror->mutex);
    struct mirror_watch *watch = &mirror->watch[PRIMARY];
    if (call != &watch->call)
        watch = &mirror->watch[SECONDARY];
    watch->flying = false;
    watch->due = true;
    pthread_cond_broadcast(&mirror->wake);
    pthread_mutex_unlock(&mirror->mutex);
}

void
mirror_watch(struct mirror *mirror, unsigned side)
{
    struct mirror_watch *watch = &mirror->watch[side];
    struct request *call = &watch->call;
    int status = call->error.status;
    uint64_t generation;
    if (status != 0 && status != FARBLK_TIMED_OUT) {
        struct error error = call->error;
        watch->due = false;
        watch_child_failed(mirror, side, &error);
        return;
    }
    if (!mirror_check_size(mirror, side, &generation))
        return;
    watch->due = false;
    watch->flying = true;
    mirror_call(mirror, call, side, FARBLK_OP_WATCH, 0, 0, 0);
    call->count = generation;
    call->timeout_ms = INT32_MAX; /* not the child's: nothing is late here */
    call->done = watch_done;
    call->owner = mirror;
    pthread_mutex_unlock(&mirror->mutex);
    request_submit(call);
    pthread_mutex_lock(&mirror->mutex);
}
