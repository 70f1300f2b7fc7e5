/* SPDX-License-Identifier: ISC */
/*
 * file: regular files and block devices.
 *
 * This file holds the driver's frame: the URI, the life of a device, locks
 * against other processes, and which part of the driver an io goes to.  Reads,
 * writes and flushes run on io_uring, on a pool of threads, or each on what suits
 * it; everything else that may block runs on the pool.
 *
 * All handles use one descriptor number.  When a handle that may write joins a
 * device that was opened read-only, its descriptor takes over that number, and
 * what is in flight goes on with the old one.
 *
 * Left out: following a block device that changes its size.
 */
#include "backends/file.h"

#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static const char *const engine_names[] = {"auto", "uring", "pool"};

static const struct uri_param file_params[] = {
    {.name = "create",
     .kind = URI_BOOL,
     .help = "make the file when it is missing"},
    {.name = "size",
     .kind = URI_SIZE,
     .max = INT64_MAX,
     .help = "of a new file; one that exists must have it"},
    {.name = "sector",
     .kind = URI_SIZE,
     .min = FARBLK_SECTOR_MIN,
     .max = FARBLK_SECTOR_MAX,
     .help = "octets in a sector; 512, or a block device's own"},
    {.name = "direct",
     .kind = URI_BOOL,
     .help = "past the page cache (O_DIRECT)"},
    {.name = "lock",
     .kind = URI_BOOL,
     .help = "keep other processes that lock it out (flock)"},
    {.name = "engine",
     .kind = URI_CHOICE,
     .choices = "auto|uring|pool",
     .help = "how it reads and writes"},
    {.name = NULL},
};

static int
file_parse(struct file *file, const struct uri *uri, struct error *error)
{
    struct file_wish *wish = &file->wish;
    if (uri->has_authority && uri->host[0] != '\0')
        return error_set(error, FARBLK_INVALID,
                         "file: has no host, but \"%.100s\" was given; write "
                         "file:/PATH",
                         uri->host);
    if (uri->path[0] == '\0')
        return error_set(error, FARBLK_INVALID, "file: needs a path");
    if (asprintf(&file->path, "%s%s", uri->has_authority ? "/" : "", uri->path)
        < 0) {
        file->path = NULL;
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a path");
    }
    size_t length = strlen(file->path), room = sizeof file->label - 1;
    if (length <= room)
        memcpy(file->label, file->path, length);
    else
        snprintf(file->label, sizeof file->label, "...%s",
                 file->path + length - (room - 3));

    wish->create = uri_bool(uri, "create", false);
    wish->lock = uri_bool(uri, "lock", false);
    wish->has_direct = uri_get(uri, "direct") != NULL;
    wish->direct = uri_bool(uri, "direct", false);
    wish->has_size = uri_get(uri, "size") != NULL;
    wish->size = uri_number(uri, "size", 0);
    wish->has_sector = uri_get(uri, "sector") != NULL;
    wish->sector = (uint32_t)uri_number(uri, "sector", FARBLK_SECTOR_MIN);
    wish->engine = (enum file_engine)uri_number(uri, "engine", FILE_AUTO);
    return 0;
}

static void
file_close(void *state)
{
    struct file *file = state;
    file_uring_destroy(file->uring);
    file_pool_fini(&file->pool);
    file_sync_fini(&file->sync);
    if (file->fd >= 0) {
        /* A forked child may still have the descriptor, and so the lock. */
        if (file->locked)
            flock(file->fd, LOCK_UN);
        close(file->fd);
    }
    free(file->path);
    free(file);
}

static int
file_open_uri(const struct uri *uri, bool read_only, struct candidate *found,
              struct error *error)
{
    struct file *file = calloc(1, sizeof *file);
    if (file == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a device");
    file->fd = -1;
    file->wish.read_only = read_only;
    file_sync_init(&file->sync);
    file_pool_init(&file->pool, file);
    if (file_parse(file, uri, error) != 0 || file_open(file, error) != 0) {
        file_close(file);
        return error->status;
    }
    if (file->block)
        snprintf(found->key, sizeof found->key, "blk:%ju",
                 (uintmax_t)file->rdev);
    else
        snprintf(found->key, sizeof found->key, "file:%ju:%ju",
                 (uintmax_t)file->dev, (uintmax_t)file->ino);
    found->state = file;
    return 0;
}

/* Take the lock that fits how the file is open.  Never waits. */
static int
file_lock(struct file *file, struct error *error)
{
    int mode = file->writable ? LOCK_EX : LOCK_SH;
    if (flock(file->fd, mode | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return error_set(error, FARBLK_BUSY,
                             "another process has locked %s", file->label);
        return error_set_errno(error, errno, "cannot lock %s", file->label);
    }
    file->locked = true;
    return 0;
}

static int
file_start_engine(struct file *file, struct error *error)
{
    file->engine = FILE_POOL;
    if (file->wish.engine == FILE_POOL)
        return 0;
    struct error why = {0};
    file->uring = file_uring_create(file, &why);
    if (file->uring != NULL)
        file->engine = file->direct ? FILE_URING : file->wish.engine;
    else if (file->wish.engine == FILE_URING)
        return error_set(error, why.status, "engine=uring: %.300s", why.text);
    else
        log_info("%s: %s; threads do it", file->label, why.text);
    return 0;
}

static int
file_start(void *state, struct device *device, struct shape *shape,
           struct error *error)
{
    struct file *file = state;
    (void)device;
    if (file->wish.lock && file_lock(file, error) != 0)
        return error->status;
    /* Whoever had the lock may have resized it. */
    if (file_measure(file, error) != 0 || file_start_engine(file, error) != 0)
        return error->status;

    atomic_store(&file->no_wait, true);
    shape->sector_size = file->sector;
    shape->size = atomic_load(&file->size);
    shape->features = file_ranges_features(file) | FARBLK_CAN_FUA
                      | FARBLK_CAN_WATCH | FARBLK_SECTOR_ATOMIC;
    shape->max_transfer = FILE_TRANSFER;
    shape->preferred_transfer = FILE_PREFERRED;
    /* A buffered write with RWF_DSYNC would be a sync beside the others. */
    if (!file->direct)
        shape->lacks_fua = 1u << FARBLK_OP_WRITE;
    shape->memory_align = file->direct ? file->memory_align : 0;
    shape->max_range = FILE_RANGE;
    /* ro=1 is the handle's affair: one that writes may join. */
    file->refuses = !file->writable && !file->wish.read_only;
    shape->read_only = file->refuses;
    file_content(file, shape->content);
    snprintf(shape->transport, sizeof shape->transport, "local");
    snprintf(shape->name, sizeof shape->name, "%.*s",
             (int)sizeof shape->name - 1, file->path);
    return 0;
}

/* The running device was opened read-only; go on with the candidate's writable
 * descriptor, locked if either wants it. */
static int
file_upgrade(struct file *running, struct file *candidate, struct error *error)
{
    int direct = running->direct ? O_DIRECT : 0;
    if (fcntl(candidate->fd, F_SETFL, direct | O_LARGEFILE) != 0)
        return error_set_errno(error, errno, "cannot set up %s",
                               running->label);
    bool locked = running->locked;
    if (locked || candidate->wish.lock) {
        /* Our own shared lock would stand in the way of the exclusive one. */
        if (locked)
            flock(running->fd, LOCK_UN);
        running->locked = false;
        if (file_lock(candidate, error) != 0) {
            struct error again = {0};
            if (locked && file_lock(running, &again) != 0)
                log_error("%s: the shared lock was lost: %s", running->label,
                          again.text);
            return error->status;
        }
    }
    if (dup3(candidate->fd, running->fd, O_CLOEXEC) < 0) {
        error_set_errno(error, errno, "cannot make %s writable",
                        running->label);
        if (candidate->locked)
            flock(candidate->fd, LOCK_UN);
        candidate->locked = false;
        if (locked)
            file_lock(running, NULL);
        return error->status;
    }
    /* Both numbers are one open file now: its lock stays with the device. */
    running->locked = candidate->locked;
    candidate->locked = false;
    running->writable = true;
    return 0;
}

static int
file_join(void *running_state, void *candidate_state, bool *read_only,
          struct error *error)
{
    struct file *running = running_state, *candidate = candidate_state;
    const struct file_wish *wish = &candidate->wish;
    if (wish->has_sector && wish->sector != running->sector)
        return error_set(error, FARBLK_CONFLICT,
                         "it is open with sectors of %" PRIu32
                         " octets, not sector=%" PRIu32 ": %s",
                         running->sector, wish->sector, running->label);
    if (wish->has_direct && wish->direct != running->direct)
        return error_set(error, FARBLK_CONFLICT,
                         "it is open with direct=%d, not direct=%d: %s",
                         running->direct, wish->direct, running->label);
    if (wish->engine != FILE_AUTO && wish->engine != running->engine)
        return error_set(error, FARBLK_CONFLICT,
                         "it is open with engine=%s, not engine=%s: %s",
                         engine_names[running->engine],
                         engine_names[wish->engine], running->label);
    bool writes = candidate->writable && !*read_only && !running->refuses;
    *read_only = !writes;
    if (writes && !running->writable)
        return file_upgrade(running, candidate, error);
    if (wish->lock && !running->locked)
        return file_lock(running, error);
    return 0;
}

/*
 * Whether the io is for the ring: what waits for storage is, any number of it
 * costs no thread.  A buffered write copies, and most file systems make the ring
 * hand it to a thread of the kernel first: ours are nearer.
 */
static bool
file_rings(const struct file *file, const struct io *io)
{
    if (file->uring == NULL)
        return false;
    switch (io->op) {
    case FARBLK_OP_READ:
    case FARBLK_OP_FLUSH:
        return true;
    case FARBLK_OP_WRITE:
        return file->engine == FILE_URING;
    default:
        return false;
    }
}

void
file_run(struct file *file, struct io *io)
{
    if (file_rings(file, io))
        file_uring_submit(file->uring, io);
    else
        file_pool_submit(&file->pool, io);
}

static void
file_submit(void *state, struct io *io)
{
    struct file *file = state;
    file_op_begin(io);
    if (file_expired(io)) {
        file_fail_expired(file, io);
        return;
    }
    if (io->op == FARBLK_OP_READ && file_read_now(file, io))
        return;
    if (io->op == FARBLK_OP_FLUSH && !file_sync_enter(file, io))
        return;
    file_run(file, io);
}

static void
file_cancel(void *state, struct io *io)
{
    struct file *file = state;
    if ((io->op == FARBLK_OP_FLUSH && file_sync_cancel(file, io))
        || file_pool_cancel(&file->pool, io))
        file_fail_expired(file, io);
    else if (file->uring != NULL)
        file_uring_cancel(file->uring);
}

const struct driver driver_file = {
    .name = "file",
    .schemes = "file",
    .summary = "a regular file or a block device",
    .usage = "file:PATH[?create=1&size=SIZE&sector=N&direct=1&lock=1"
             "&engine=auto|uring|pool]",
    .params = file_params,
    .flags = DRIVER_LOOKS_ONCE,
    .native_fua = 1u << FARBLK_OP_WRITE,
    .open = file_open_uri,
    .start = file_start,
    .join = file_join,
    .close = file_close,
    .submit = file_submit,
    .cancel = file_cancel,
};
