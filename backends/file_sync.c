/* SPDX-License-Identifier: ISC */
/*
 * Flushes of one file, one sync at a time.
 *
 * The kernel tells a failed write-back to one sync of a descriptor and then
 * forgets it (errseq_t; Documentation/core-api/errseq.rst).  Of two syncs at
 * once, the other would say that all is well.  So a flush that comes while a
 * sync runs waits for its end, and all that have come by then share the next
 * one.  When one has failed, all that wait and all later ones fail.
 *
 * A flush whose time is over before its sync began leaves; who shared the sync
 * with it goes on without it.
 */
#include "backends/file.h"

#include <string.h>

void
file_sync_init(struct file_sync *sync)
{
    memset(sync, 0, sizeof *sync);
    pthread_mutex_init(&sync->mutex, NULL);
}

void
file_sync_fini(struct file_sync *sync)
{
    pthread_mutex_destroy(&sync->mutex);
}

static void
sync_append(struct io **list, struct io *io)
{
    while (*list != NULL)
        list = (struct io **)(void *)&(*list)->link;
    io->link = NULL;
    *list = io;
}

static bool
sync_remove(struct io **list, struct io *io)
{
    while (*list != NULL && *list != io)
        list = (struct io **)(void *)&(*list)->link;
    if (*list == NULL)
        return false;
    *list = io->link;
    return true;
}

static void
sync_fail(struct file *file, struct io *io, int errnum)
{
    io_failed(io, file_io_status(errnum), FARBLK_EFFECT_UNKNOWN,
              "syncing %s: %s", file->label, strerrordesc_np(errnum));
}

bool
file_sync_enter(struct file *file, struct io *io)
{
    struct file_sync *sync = &file->sync;
    pthread_mutex_lock(&sync->mutex);
    int errnum = sync->errnum;
    bool first = errnum == 0 && sync->leader == NULL;
    if (first)
        sync->leader = io;
    else if (errnum == 0)
        sync_append(&sync->waiting, io);
    pthread_mutex_unlock(&sync->mutex);
    if (errnum != 0)
        sync_fail(file, io, errnum);
    return first;
}

/* With the mutex: the next sync, for all of `list`. */
static struct io *
sync_next(struct file_sync *sync, struct io *list)
{
    sync->leader = list;
    sync->sharing = list == NULL ? NULL : list->link;
    return list;
}

void
file_sync_leave(struct file *file, struct io *io, int errnum)
{
    struct file_sync *sync = &file->sync;
    pthread_mutex_lock(&sync->mutex);
    struct io *ended = io, *next = NULL;
    io->link = sync->sharing;
    if (errnum != 0) {
        sync->errnum = errnum;
        sync->leader = sync->sharing = NULL;
        struct io *last = io;
        while (last->link != NULL)
            last = last->link;
        last->link = sync->waiting;
    } else {
        next = sync_next(sync, sync->waiting);
    }
    sync->waiting = NULL;
    pthread_mutex_unlock(&sync->mutex);
    if (next != NULL)
        file_run(file, next);
    while (ended != NULL) {
        io = ended;
        ended = io->link;
        if (errnum == 0)
            io_done(io, 0);
        else
            sync_fail(file, io, errnum);
    }
}

void
file_sync_give_up(struct file *file, struct io *io)
{
    struct file_sync *sync = &file->sync;
    struct io *next = NULL;
    pthread_mutex_lock(&sync->mutex);
    if (sync->leader == io)
        next = sync_next(sync, sync->sharing);
    if (sync->leader == NULL) {
        next = sync_next(sync, sync->waiting);
        sync->waiting = NULL;
    }
    pthread_mutex_unlock(&sync->mutex);
    if (next != NULL)
        file_run(file, next);
}

bool
file_sync_cancel(struct file *file, struct io *io)
{
    struct file_sync *sync = &file->sync;
    pthread_mutex_lock(&sync->mutex);
    bool found =
        sync_remove(&sync->waiting, io) || sync_remove(&sync->sharing, io);
    pthread_mutex_unlock(&sync->mutex);
    return found;
}
