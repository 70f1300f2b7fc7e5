/* SPDX-License-Identifier: ISC */
/*
 * The threads of one file device, on which system calls may block.
 *
 * They start when there is more to do than idle ones to do it, up to
 * FILE_THREADS, and end with the device.  Order is that of arrival.
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

static void *
file_pool_thread_main(void *arg)
{
    struct file_pool *pool = arg;
    void *bounce = NULL;
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        while (pool->head == NULL && !pool->stopping) {
            pool->idle++;
            pthread_cond_wait(&pool->work, &pool->mutex);
            pool->idle--;
        }
        struct io *io = pool->head;
        if (io == NULL)
            break;
        pool->head = io->link;
        if (pool->head == NULL)
            pool->tail = NULL;
        pool->queued--;
        pthread_mutex_unlock(&pool->mutex);
        burst_begin();
        file_pool_run(pool->file, io, &bounce);
        burst_end();
        pthread_mutex_lock(&pool->mutex);
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
    pthread_mutex_lock(&pool->mutex);
    if (pool->queued >= pool->idle && pool->threads < FILE_THREADS
        && file_pool_thread(&pool->thread[pool->threads], file_pool_thread_main,
                            pool)
               == 0)
        pool->threads++;
    bool taken = pool->threads > 0;
    if (taken) {
        io->link = NULL;
        if (pool->tail == NULL)
            pool->head = io;
        else
            pool->tail->link = io;
        pool->tail = io;
        pool->queued++;
        pthread_cond_signal(&pool->work);
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
    bool found = false;
    struct io *before = NULL;
    pthread_mutex_lock(&pool->mutex);
    for (struct io *at = pool->head; at != NULL; before = at, at = at->link) {
        if (at != io)
            continue;
        if (before == NULL)
            pool->head = io->link;
        else
            before->link = io->link;
        if (pool->tail == io)
            pool->tail = before;
        pool->queued--;
        found = true;
        break;
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
