/* SPDX-License-Identifier: ISC */
/*
 * The way of an io: it waits in the device's list, becomes a command on the
 * least busy connection, and ends with the command's answer, its time, or the
 * connection.
 *
 * Its outcome is noted in its scratch, under whatever locks; nbd_complete()
 * tells core, holding nothing.
 */
#include "backends/nbd.h"

#include "core/log.h"
#include "core/timer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An outcome in an io's scratch. */
enum { NBD_IO_STATUS, NBD_IO_EFFECT, NBD_IO_VALUE, NBD_IO_TEXT };

/* ------------------------------------------------------------ outcomes */

static void
nbd_push_ended(struct nbd_ended *ended, struct io *io)
{
    io->link = NULL;
    if (ended->last == NULL)
        ended->first = io;
    else
        ended->last->link = io;
    ended->last = io;
}

void
nbd_well(struct nbd_ended *ended, struct io *io, uint64_t value)
{
    io->scratch[NBD_IO_STATUS] = 0;
    io->scratch[NBD_IO_VALUE] = value;
    nbd_push_ended(ended, io);
}

void
nbd_badly(struct nbd_ended *ended, struct io *io, int status,
          enum farblk_effect effect, const char *format, ...)
{
    char text[FARBLK_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    io->scratch[NBD_IO_STATUS] = (uint64_t)(int64_t)status;
    io->scratch[NBD_IO_EFFECT] =
        nbd_changes(io->op) ? effect : FARBLK_EFFECT_NONE;
    io->scratch[NBD_IO_TEXT] = (uint64_t)(uintptr_t)strdup(text);
    nbd_push_ended(ended, io);
}

void
nbd_complete(struct nbd_ended *ended)
{
    while (ended->first != NULL) {
        struct io *io = ended->first;
        ended->first = io->link;
        int status = (int)(int64_t)io->scratch[NBD_IO_STATUS];
        if (status == 0) {
            io_done(io, io->scratch[NBD_IO_VALUE]);
            continue;
        }
        char *text = (char *)(uintptr_t)io->scratch[NBD_IO_TEXT];
        io_failed(io, status, (enum farblk_effect)io->scratch[NBD_IO_EFFECT],
                  "%s", text != NULL ? text : "no memory for the reason");
        free(text);
    }
    ended->last = NULL;
}

/* ------------------------------------------------------------ waiting */

static bool
nbd_has_room(const struct nbd_link *link, const struct io *io)
{
    if (link->handle == NULL || !atomic_load(&link->ready)
        || atomic_load(&link->load) >= NBD_WINDOW)
        return false;
    return !nbd_moves(io->op) || link->octets == 0
           || link->octets + io->length <= NBD_WINDOW_OCTETS;
}

/* Whether an orphan may still change what the io is about. */
static bool
nbd_is_held(const struct nbd *nbd, const struct io *io)
{
    if (!nbd_moves(io->op) && !nbd_changes(io->op))
        return false;
    for (const struct nbd_command *at = nbd->orphans; at != NULL;
         at = at->orphan_next)
        if (io->offset < at->offset + at->length
            && at->offset < io->offset + io->length)
            return true;
    return false;
}

/* Take the io out of those that wait; nbd.mutex held. */
static void
nbd_unwait(struct nbd *nbd, struct io *before, struct io *io)
{
    if (before == NULL)
        nbd->first = io->link;
    else
        before->link = io->link;
    if (nbd->last == io)
        nbd->last = before;
}

/* The first one that may begin on this link. */
static struct io *
nbd_next(struct nbd_link *link)
{
    struct nbd *nbd = link->nbd;
    struct io *before = NULL;
    pthread_mutex_lock(&nbd->mutex);
    struct io *io = nbd->first;
    while (io != NULL && nbd->orphans != NULL && nbd_is_held(nbd, io)) {
        before = io;
        io = io->link;
    }
    if (io != NULL && nbd_has_room(link, io))
        nbd_unwait(nbd, before, io);
    else
        io = NULL;
    pthread_mutex_unlock(&nbd->mutex);
    return io;
}

void
nbd_pump(struct nbd_link *link, struct nbd_ended *ended)
{
    struct io *io;
    while ((io = nbd_next(link)) != NULL)
        nbd_begin(link, io, ended);
}

void
nbd_lose(struct nbd *nbd, struct nbd_ended *ended, const char *format, ...)
{
    pthread_mutex_lock(&nbd->mutex);
    bool first = nbd->lost.status == 0;
    if (first) {
        va_list args;
        va_start(args, format);
        error_vset(&nbd->lost, FARBLK_DISCONNECTED, format, args);
        va_end(args);
    }
    while (nbd->first != NULL) {
        struct io *io = nbd->first;
        nbd_unwait(nbd, NULL, io);
        nbd_badly(ended, io, FARBLK_DISCONNECTED, FARBLK_EFFECT_NONE, "%s",
                  nbd->lost.text);
    }
    pthread_mutex_unlock(&nbd->mutex);
    if (!first)
        return;
    log_warning("%s", nbd->lost.text); /* which changes no more */
    nbd_links_wake(nbd);
}

bool
nbd_is_lost(struct nbd *nbd)
{
    pthread_mutex_lock(&nbd->mutex);
    bool lost = nbd->lost.status != 0;
    pthread_mutex_unlock(&nbd->mutex);
    return lost;
}

/* ------------------------------------------------------------ the doors */

/* A flush that needs no server.  True: the io has ended. */
static bool
nbd_flush_now(const struct nbd *nbd, struct io *io, struct nbd_ended *ended)
{
    const struct nbd_facts *facts = &nbd->facts;
    if (io->op != FARBLK_OP_FLUSH || facts->can_flush)
        return false;
    if (nbd->writes_through || facts->read_only)
        nbd_well(ended, io, 0);
    else
        nbd_badly(ended, io, FARBLK_UNIMPLEMENTED, FARBLK_EFFECT_NONE,
                  "%s: the server has neither flush nor FUA: its clients can "
                  "not make anything stable",
                  nbd->config.target);
    return true;
}

/* Put it with those that wait, unless it has ended already. */
static void
nbd_wait_in_line(struct nbd *nbd, struct io *io, struct nbd_ended *ended)
{
    pthread_mutex_lock(&nbd->mutex);
    if (nbd->lost.status != 0) {
        nbd_badly(ended, io, FARBLK_DISCONNECTED, FARBLK_EFFECT_NONE, "%s",
                  nbd->lost.text);
    } else if (io->deadline_ms != 0 && timer_now() >= io->deadline_ms) {
        nbd_badly(ended, io, FARBLK_TIMED_OUT, FARBLK_EFFECT_NONE,
                  "%s: not begun in time", nbd->config.target);
    } else if (!nbd_flush_now(nbd, io, ended)) {
        io->link = NULL;
        if (nbd->last == NULL)
            nbd->first = io;
        else
            nbd->last->link = io;
        nbd->last = io;
    }
    pthread_mutex_unlock(&nbd->mutex);
}

/* The link with the least in flight. */
static struct nbd_link *
nbd_choose(struct nbd *nbd)
{
    struct nbd_link *best = &nbd->links[0];
    unsigned least = atomic_load(&best->load);
    for (unsigned i = 1; i < nbd->link_count && least > 0; i++) {
        struct nbd_link *link = &nbd->links[i];
        unsigned load = atomic_load(&link->load);
        if (load < least && atomic_load(&link->ready)) {
            best = link;
            least = load;
        }
    }
    if (least >= NBD_BUSY && nbd->link_count > 1
        && !atomic_load_explicit(&nbd->busy, memory_order_relaxed)
        && !atomic_exchange(&nbd->busy, true))
        nbd_link_wake(&nbd->links[0]);
    return best;
}

void
nbd_submit(struct nbd *nbd, struct io *io)
{
    struct nbd_ended ended = {NULL, NULL};
    struct nbd_link *link = nbd_choose(nbd);
    /* As long as this is held the device can not be closed, whoever completes
     * the io. */
    pthread_mutex_lock(&link->mutex);
    nbd_wait_in_line(nbd, io, &ended);
    if (nbd->config.tls) { /* SIGPIPE: only the threads keep it away */
        nbd_link_wake(link);
    } else if (link->handle != NULL) {
        nbd_pump(link, &ended);
        nbd_settle(link, &ended);
        if (nbd_link_sends(link))
            nbd_link_wake(link);
    }
    pthread_mutex_unlock(&link->mutex);
    nbd_complete(&ended);
}

void
nbd_cancel(struct nbd *nbd, struct io *io)
{
    struct nbd_ended ended = {NULL, NULL};
    struct io *before = NULL;
    pthread_mutex_lock(&nbd->mutex);
    struct io *at = nbd->first;
    while (at != NULL && at != io) {
        before = at;
        at = at->link;
    }
    if (at != NULL) {
        nbd_unwait(nbd, before, io);
        nbd_badly(&ended, io, FARBLK_TIMED_OUT, FARBLK_EFFECT_NONE,
                  "%s: not begun in time", nbd->config.target);
    }
    pthread_mutex_unlock(&nbd->mutex);
    /* From there it can only have moved on to a link. */
    for (unsigned i = 0; i < nbd->link_count && ended.first == NULL; i++) {
        struct nbd_link *link = &nbd->links[i];
        pthread_mutex_lock(&link->mutex);
        nbd_orphan(link, io, &ended);
        pthread_mutex_unlock(&link->mutex);
    }
    nbd_complete(&ended);
}
