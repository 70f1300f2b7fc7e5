/* SPDX-License-Identifier: ISC */
/*
 * The threads of one file device, on which system calls may block.
 *
 * They start when there is more to do than idle ones to do it, up to
 * FILE_THREADS, and end with the device.  Order is that of arrival, in each of two
 * lanes: a file system lets one write at a time into the page cache of a regular
 * file, and threads that wait for that spin in the kernel.  So of such writes one
 * is run, and the others wait here.
 */
#include "backends/file.h"

#include "core/burst.h"

#include <signal.h>
#include <stdlib.h>

static void
file_pool_run(struct file *file, struct io *io, void **bounce)
{
    if (file_expired(io)) {
        file_fail_expired(file, io);
        return;
    }
    switch (io->op) {
    case FARBLK_OP_READ:
    case FARBLK_OP_WRITE:
        file_rw_run(file, io, bounce);
        return;
    case FARBLK_OP_FLUSH:
        file_flush_run(file, io);
        return;
    case FARBLK_OP_DISCARD:
        file_ranges_discard(file, io, bounce);
        return;
    case FARBLK_OP_WRITE_ZEROES:
        file_ranges_zero(file, io, bounce);
        return;
    case FARBLK_OP_RESIZE:
        file_ranges_resize(file, io);
        return;
    case FARBLK_OP_SEEK_MAPPED:
    case FARBLK_OP_SEEK_UNMAPPED:
        file_ranges_seek(file, io);
        return;
    case FARBLK_OP_EXTENTS:
        file_ranges_extents(file, io);
        return;
    case FARBLK_OP_GET_INFO:
    case FARBLK_OP_WATCH:
        break;
    }
    io_failed(io, FARBLK_UNIMPLEMENTED, FARBLK_EFFECT_NONE,
              "a file can not do operation %d", (int)io->op);
}

static void *file_pool_thread_main(void *arg);

static void
lane_append(struct file_lane *lane, struct io *io)
{
    io->link = NULL;
    if (lane->tail == NULL)
        lane->head = io;
    else
        lane->tail->link = io;
    lane->tail = io;
}

static struct io *
lane_take(struct file_lane *lane)
{
    struct io *io = lane->head;
    lane->head = io->link;
    if (lane->head == NULL)
        lane->tail = NULL;
    return io;
}

static bool
lane_remove(struct file_lane *lane, struct io *io)
{
    struct io *before = NULL;
    for (struct io *at = lane->head; at != NULL; before = at, at = at->link) {
        if (at != io)
            continue;
        if (before == NULL)
            lane->head = io->link;
        else
            before->link = io->link;
        if (lane->tail == io)
            lane->tail = before;
        return true;
    }
    return false;
}

/* Whether the io copies into the page cache of a regular file, and no more. */
static bool
file_pool_copies(const struct file *file, const struct io *io)
{
    return io->op == FARBLK_OP_WRITE && !file->direct && !file->block
           && (io->flags & FARBLK_FUA) == 0;
}

/* With the mutex: what threads could do now. */
static unsigned
file_pool_ready(const struct file_pool *pool)
{
    return pool->queued + (!pool->writing && pool->writes.head != NULL);
}

/* With the mutex: the next one to run, or NULL. */
static struct io *
file_pool_take(struct file_pool *pool)
{
    bool writes = !pool->writing && pool->writes.head != NULL;
    if (writes && pool->others.head != NULL) {
        pool->turn = !pool->turn;
        writes = pool->turn;
    }
    if (writes) {
        pool->writing = true;
        return lane_take(&pool->writes);
    }
    if (pool->others.head == NULL)
        return NULL;
    pool->queued--;
    return lane_take(&pool->others);
}

/* With the mutex: there is something that no thread has been called for. */
static void
file_pool_call(struct file_pool *pool)
{
    if (file_pool_ready(pool) > pool->idle && pool->threads < FILE_THREADS
        && file_pool_thread(&pool->thread[pool->threads], file_pool_thread_main,
                            pool)
               == 0)
        pool->threads++;
    pthread_cond_signal(&pool->work);
}

static void *
file_pool_thread_main(void *arg)
{
    struct file_pool *pool = arg;
    void *bounce = NULL;
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        struct io *io;
        while ((io = file_pool_take(pool)) == NULL && !pool->stopping) {
            pool->idle++;
            pthread_cond_wait(&pool->work, &pool->mutex);
            pool->idle--;
        }
        if (io == NULL)
            break;
        bool writes = file_pool_copies(pool->file, io);
        pthread_mutex_unlock(&pool->mutex);
        burst_begin();
        file_pool_run(pool->file, io, &bounce);
        burst_end();
        pthread_mutex_lock(&pool->mutex);
        if (writes)
            pool->writing = false;
        /* This thread takes one, which may last: of the others, or the next
         * write, which nobody was called for. */
        if (writes && file_pool_ready(pool) > 1)
            file_pool_call(pool);
    }
    pthread_mutex_unlock(&pool->mutex);
    free(bounce);
    return NULL;
}

int
file_pool_thread(pthread_t *thread, void *(*run)(void *arg), void *arg)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int errnum = pthread_create(thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return errnum;
}

void
file_pool_init(struct file_pool *pool, struct file *file)
{
    pool->file = file;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
}

void
file_pool_submit(struct file_pool *pool, struct io *io)
{
    const bool writes = file_pool_copies(pool->file, io);
    pthread_mutex_lock(&pool->mutex);
    lane_append(writes ? &pool->writes : &pool->others, io);
    pool->queued += !writes;
    if (!writes || !pool->writing) /* else it waits its turn */
        file_pool_call(pool);
    bool taken = pool->threads > 0;
    if (!taken) {
        lane_remove(writes ? &pool->writes : &pool->others, io);
        pool->queued -= !writes;
    }
    pthread_mutex_unlock(&pool->mutex);
    if (taken)
        return;
    if (io->op == FARBLK_OP_FLUSH)
        file_sync_give_up(pool->file, io);
    io_failed(io, FARBLK_NO_MEMORY,
              io->op == FARBLK_OP_WRITE && file_op(io)->offset != io->offset
                  ? FARBLK_EFFECT_UNKNOWN
                  : FARBLK_EFFECT_NONE,
              "cannot start a thread for %s", pool->file->label);
}

bool
file_pool_cancel(struct file_pool *pool, struct io *io)
{
    pthread_mutex_lock(&pool->mutex);
    bool found = lane_remove(&pool->writes, io);
    if (!found && lane_remove(&pool->others, io)) {
        pool->queued--;
        found = true;
    }
    pthread_mutex_unlock(&pool->mutex);
    return found;
}

void
file_pool_fini(struct file_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (unsigned i = 0; i < pool->threads; i++)
        pthread_join(pool->thread[i], NULL);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
}
