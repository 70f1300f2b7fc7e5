/* SPDX-License-Identifier: ISC */
/*
 * Commands: what libnbd is asked to do for an io, and what it answers.
 *
 * libnbd calls back, with its handle's lock held, when a command is answered;
 * there the command is only put on its link's list.  nbd_settle() makes the
 * io's outcome of it.  Everything here runs with link.mutex held.
 */
#include "backends/nbd.h"

#include "core/checked.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
nbd_command_link(struct nbd_command **list, struct nbd_command *command)
{
    command->prev = NULL;
    command->next = *list;
    if (*list != NULL)
        (*list)->prev = command;
    *list = command;
}

static void
nbd_command_unlink(struct nbd_command **list, struct nbd_command *command)
{
    if (command->prev != NULL)
        command->prev->next = command->next;
    else
        *list = command->next;
    if (command->next != NULL)
        command->next->prev = command->prev;
}

/* The orphan was answered, or its connection is gone. */
static void
nbd_orphan_forget(struct nbd_command *command)
{
    struct nbd *nbd = command->link->nbd;
    pthread_mutex_lock(&nbd->mutex);
    struct nbd_command **at = &nbd->orphans;
    while (*at != NULL && *at != command)
        at = &(*at)->orphan_next;
    if (*at != NULL)
        *at = command->orphan_next;
    pthread_mutex_unlock(&nbd->mutex);
}

/* Out of flight; libnbd knows it no longer. */
static void
nbd_command_retire(struct nbd_command *command)
{
    struct nbd_link *link = command->link;
    if (command->io == NULL && nbd_changes(command->op))
        nbd_orphan_forget(command);
    if (nbd_moves(command->op))
        link->octets -= command->length;
    atomic_fetch_sub(&link->load, 1);
    block_put(command->own);
    command->own = NULL;
    command->io = NULL;
    nbd_command_unlink(&link->active, command);
    nbd_command_link(&link->idle, command);
}

/* libnbd: the command is answered. */
static int
nbd_answered(void *user_data, int *errnum)
{
    struct nbd_command *command = user_data;
    struct nbd_link *link = command->link;
    command->errnum = *errnum;
    nbd_command_unlink(&link->active, command);
    nbd_command_link(&link->done, command);
    /* A failed one stays until libnbd was asked for its words. */
    return *errnum == 0;
}

/* libnbd: a piece of the map. */
static int
nbd_extents_answered(void *user_data, const char *context, uint64_t offset,
                     uint32_t *entries, size_t count, int *errnum)
{
    struct nbd_command *command = user_data;
    const uint32_t hole = LIBNBD_STATE_HOLE | LIBNBD_STATE_ZERO;
    (void)errnum;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0
        || offset != command->map.at)
        return 0;
    for (size_t i = 0; i + 1 < count; i += 2)
        nbd_map_add(&command->map, entries[i], (entries[i + 1] & hole) == hole);
    return 0;
}

/* ------------------------------------------------------------ issuing */

/* Where the command's data is, without copying; NULL: scattered. */
static void *
nbd_flat(const struct io *io)
{
    struct iovec first = iov_first(&io->data);
    return first.iov_len >= io->length ? first.iov_base : NULL;
}

/* Memory for the command's data: the caller's, if it can stay the caller's for
 * as long as libnbd may touch it.  NULL without memory. */
static void *
nbd_memory(struct nbd_command *command, struct io *io)
{
    void *flat = nbd_flat(io);
    bool kept =
        flat != NULL && io->op == FARBLK_OP_WRITE && io->payload != NULL;
    if (kept)
        command->own = block_get(io->payload);
    if (kept || (flat != NULL && io->deadline_ms == 0))
        return flat;
    command->own = block_alloc((uint32_t)io->length);
    if (command->own == NULL)
        return NULL;
    if (io->op == FARBLK_OP_WRITE) {
        struct iov_view view = io->data;
        iov_copy_out(&view, command->own->data, io->length);
    }
    return command->own->data;
}

/* Ask for the map from map.at on. */
static int64_t
nbd_issue_status(struct nbd_command *command, nbd_completion_callback done)
{
    struct nbd_map *map = &command->map;
    const nbd_extent_callback extents = {.callback = nbd_extents_answered,
                                         .user_data = command};
    return nbd_aio_block_status(command->link->handle, map->limit - map->told,
                                map->told, extents, done, 0);
}

/* The map from `offset` on, as much as one question may ask for. */
static void
nbd_begin_map(struct nbd_command *command, uint64_t offset, uint64_t end)
{
    const struct nbd *nbd = command->link->nbd;
    nbd_map_begin(&command->map, nbd->sector, offset,
                  offset + min_u64(end - offset, NBD_STATUS_RANGE),
                  command->extents, NBD_EXTENTS);
}

static void
nbd_issue(struct nbd_command *command, void *memory)
{
    struct nbd_link *link = command->link;
    const struct nbd *nbd = link->nbd;
    struct nbd_handle *handle = link->handle;
    const uint64_t offset = command->offset, length = command->length;
    const nbd_completion_callback done = {.callback = nbd_answered,
                                          .user_data = command};
    uint32_t flags = 0;
    if (nbd->writes_through || (command->flags & FARBLK_FUA) != 0)
        flags |= LIBNBD_CMD_FLAG_FUA;
    /* It may die inside, and be answered before this returns. */
    nbd_command_link(&link->active, command);
    int64_t cookie = -1;
    switch (command->op) {
    case FARBLK_OP_READ:
        cookie = nbd_aio_pread(handle, memory, length, offset, done, 0);
        break;
    case FARBLK_OP_WRITE:
        cookie = nbd_aio_pwrite(handle, memory, length, offset, done, flags);
        break;
    case FARBLK_OP_FLUSH:
        cookie = nbd_aio_flush(handle, done, 0);
        break;
    case FARBLK_OP_DISCARD:
        cookie = nbd_aio_trim(handle, length, offset, done, flags);
        break;
    case FARBLK_OP_WRITE_ZEROES:
        if (nbd->zeroes != NULL) {
            cookie = nbd_aio_pwrite(handle, nbd->zeroes, length, offset, done,
                                    flags);
            break;
        }
        if ((command->flags & FARBLK_NO_UNMAP) != 0)
            flags |= LIBNBD_CMD_FLAG_NO_HOLE;
        cookie = nbd_aio_zero(handle, length, offset, done, flags);
        break;
    default:
        cookie = nbd_issue_status(command, done);
        break;
    }
    command->cookie = cookie;
    if (cookie == -1) { /* and libnbd will not call */
        int errnum = nbd_get_errno();
        nbd_answered(command, errnum != 0 ? &errnum : &(int){EIO});
        nbd_words(link->why, sizeof link->why, "it refused the command");
    } else if (nbd_aio_is_dead(handle) != 0) {
        nbd_words(link->why, sizeof link->why, "the connection failed");
    }
}

static struct nbd_command *
nbd_command_take(struct nbd_link *link, bool with_extents)
{
    struct nbd_command *command = link->idle;
    if (command != NULL)
        nbd_command_unlink(&link->idle, command);
    else
        command = calloc(1, sizeof *command);
    if (command == NULL)
        return NULL;
    command->link = link;
    if (with_extents && command->extents == NULL)
        command->extents = calloc(NBD_EXTENTS, sizeof *command->extents);
    if (with_extents && command->extents == NULL) {
        nbd_command_link(&link->idle, command);
        return NULL;
    }
    return command;
}

void
nbd_begin(struct nbd_link *link, struct io *io, struct nbd_ended *ended)
{
    const struct nbd *nbd = link->nbd;
    bool seeks =
        io->op == FARBLK_OP_SEEK_MAPPED || io->op == FARBLK_OP_SEEK_UNMAPPED;
    bool maps = seeks || io->op == FARBLK_OP_EXTENTS;
    struct nbd_command *command = nbd_command_take(link, maps);
    void *memory = NULL;
    if (command == NULL) {
        nbd_badly(ended, io, FARBLK_NO_MEMORY, FARBLK_EFFECT_NONE,
                  "no memory for a command");
        return;
    }
    command->io = io;
    command->op = io->op;
    command->flags = io->flags;
    command->offset = io->offset;
    command->length = io->length;
    command->own = NULL;
    if (nbd_moves(io->op)) {
        memory = nbd_memory(command, io);
        if (memory == NULL) {
            nbd_command_link(&link->idle, command);
            nbd_badly(ended, io, FARBLK_NO_MEMORY, FARBLK_EFFECT_NONE,
                      "no memory for %llu octets",
                      (unsigned long long)io->length);
            return;
        }
        link->octets += io->length;
    }
    if (maps)
        nbd_begin_map(command, io->offset,
                      seeks ? nbd->facts.size : io->offset + io->length);
    atomic_fetch_add(&link->load, 1);
    nbd_issue(command, memory);
}

/* ------------------------------------------------------------ answers */

/* A seek has an answer, or asks on.  True: it asks on. */
static bool
nbd_seek_on(struct nbd_command *command, struct nbd_ended *ended)
{
    const struct nbd *nbd = command->link->nbd;
    const struct nbd_map *map = &command->map;
    const bool mapped = command->op == FARBLK_OP_SEEK_MAPPED;
    for (size_t i = 0; i < map->count; i++)
        if ((map->extents[i].mapped != 0) == mapped) {
            nbd_well(ended, command->io, map->extents[i].start * nbd->sector);
            return false;
        }
    if (map->told >= nbd->facts.size) {
        nbd_well(ended, command->io, nbd->facts.size);
        return false;
    }
    nbd_begin_map(command, map->told, nbd->facts.size);
    nbd_command_unlink(&command->link->done, command);
    nbd_issue(command, NULL);
    return true;
}

/* An answer without an error, to an io that waits for it.  True: the command
 * goes on. */
static bool
nbd_settle_well(struct nbd_command *command, struct nbd_ended *ended)
{
    struct io *io = command->io;
    switch (command->op) {
    case FARBLK_OP_READ:
        if (command->own != NULL) {
            struct iov_view view = io->data;
            iov_copy_in(&view, command->own->data, command->length);
        }
        break;
    case FARBLK_OP_EXTENTS:
    case FARBLK_OP_SEEK_MAPPED:
    case FARBLK_OP_SEEK_UNMAPPED: {
        struct nbd_map *map = &command->map;
        nbd_map_end(map);
        if (map->count == 0) {
            nbd_badly(ended, io, FARBLK_PROTOCOL, FARBLK_EFFECT_NONE,
                      "%s: the server tells nothing of octet %llu on",
                      command->link->nbd->config.target,
                      (unsigned long long)map->told);
            return false;
        }
        if (command->op != FARBLK_OP_EXTENTS)
            return nbd_seek_on(command, ended);
        size_t count = min_u64(map->count, io->extents_max);
        memcpy(io->extents, map->extents, count * sizeof *io->extents);
        nbd_well(ended, io, count);
        return false;
    }
    default:
        break;
    }
    nbd_well(ended, io, 0);
    return false;
}

static void
nbd_settle_badly(struct nbd_command *command, struct nbd_ended *ended)
{
    struct nbd_link *link = command->link;
    const char *target = link->nbd->config.target;
    char words[240];
    if (command->cookie == -1) {
        snprintf(words, sizeof words, "%.239s",
                 link->why[0] != '\0' ? link->why : strerror(command->errnum));
    } else if (nbd_aio_command_completed(link->handle,
                                         (uint64_t)command->cookie)
               == -1) {
        nbd_words(words, sizeof words, strerror(command->errnum));
    } else {
        snprintf(words, sizeof words, "the server failed");
    }
    struct io *io = command->io;
    if (io == NULL)
        return;
    if (nbd_aio_is_dead(link->handle) != 0
        || nbd_aio_is_closed(link->handle) != 0) {
        nbd_badly(ended, io, FARBLK_DISCONNECTED,
                  command->cookie == -1 ? FARBLK_EFFECT_NONE
                                        : FARBLK_EFFECT_UNKNOWN,
                  "the connection to %s is lost: %s", target,
                  link->why[0] != '\0' ? link->why : words);
        return;
    }
    int status = nbd_status(command->errnum, command->op);
    if (status == FARBLK_DISCONNECTED)
        nbd_lose(link->nbd, ended, "%s: %s", target, words);
    bool refused = status == FARBLK_IS_READ_ONLY || status == FARBLK_DENIED
                   || status == FARBLK_UNIMPLEMENTED || command->cookie == -1;
    enum farblk_effect effect =
        refused ? FARBLK_EFFECT_NONE : FARBLK_EFFECT_UNKNOWN;
    if (command->op == FARBLK_OP_FLUSH)
        nbd_badly(ended, io, status, effect, "%s: %s", target, words);
    else
        nbd_badly(ended, io, status, effect, "%s: %llu octets at %llu: %s",
                  target, (unsigned long long)command->length,
                  (unsigned long long)command->offset, words);
}

void
nbd_settle(struct nbd_link *link, struct nbd_ended *ended)
{
    struct nbd_command *command;
    while ((command = link->done) != NULL) {
        if (command->errnum != 0)
            nbd_settle_badly(command, ended);
        else if (command->io != NULL && nbd_settle_well(command, ended))
            continue;
        nbd_command_unlink(&link->done, command);
        nbd_command_link(&link->active, command);
        nbd_command_retire(command);
    }
    /* A living connection's last words were of one command alone. */
    if (nbd_aio_is_dead(link->handle) == 0
        && nbd_aio_is_closed(link->handle) == 0)
        link->why[0] = '\0';
}

void
nbd_abandon(struct nbd_link *link, struct nbd_ended *ended)
{
    struct nbd *nbd = link->nbd;
    struct error lost;
    pthread_mutex_lock(&nbd->mutex);
    lost = nbd->lost;
    pthread_mutex_unlock(&nbd->mutex);
    while (link->active != NULL) {
        struct nbd_command *command = link->active;
        if (command->io != NULL)
            nbd_badly(ended, command->io, FARBLK_DISCONNECTED,
                      FARBLK_EFFECT_UNKNOWN, "%s", lost.text);
        nbd_command_retire(command);
    }
}

bool
nbd_orphan(struct nbd_link *link, struct io *io, struct nbd_ended *ended)
{
    struct nbd *nbd = link->nbd;
    struct nbd_command *command = link->active;
    while (command != NULL && command->io != io)
        command = command->next;
    if (command == NULL)
        return false;
    command->io = NULL;
    if (nbd_changes(command->op)) {
        pthread_mutex_lock(&nbd->mutex);
        command->orphan_next = nbd->orphans;
        nbd->orphans = command;
        pthread_mutex_unlock(&nbd->mutex);
    }
    nbd_badly(ended, io, FARBLK_TIMED_OUT, FARBLK_EFFECT_UNKNOWN,
              "%s: the server has not answered in time", nbd->config.target);
    return true;
}
