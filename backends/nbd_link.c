/* SPDX-License-Identifier: ISC */
/*
 * The connections of a device: their threads, their loss, their end.
 *
 * A thread waits for its socket and for its eventfd, which says that another
 * thread has left libnbd something to send, that the device was lost, or that
 * it ends.  Whoever finds a connection dead says so to the device; each thread
 * then closes its own, after which libnbd touches no buffer any more, and
 * completes what was in flight there.
 */
#include "backends/nbd.h"

#include "core/checked.h"
#include "core/log.h"
#include "core/timer.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

void
nbd_link_wake(struct nbd_link *link)
{
    const uint64_t one = 1;
    /* Full means that it is readable already. */
    while (write(link->wake, &one, sizeof one) < 0 && errno == EINTR)
        continue;
}

void
nbd_links_wake(struct nbd *nbd)
{
    for (unsigned i = 0; i < nbd->link_count; i++)
        nbd_link_wake(&nbd->links[i]);
}

static void
nbd_link_calm(struct nbd_link *link)
{
    uint64_t count;
    while (read(link->wake, &count, sizeof count) < 0 && errno == EINTR)
        continue;
}

bool
nbd_link_sends(struct nbd_link *link)
{
    /* Dead ones are the thread's to bury. */
    return link->handle != NULL
           && (nbd_aio_is_dead(link->handle) != 0
               || (nbd_aio_get_direction(link->handle)
                   & LIBNBD_AIO_DIRECTION_WRITE)
                      != 0);
}

void
nbd_link_check(struct nbd_link *link, struct nbd_ended *ended)
{
    struct nbd *nbd = link->nbd;
    if (nbd_aio_is_dead(link->handle) != 0
        || nbd_aio_is_closed(link->handle) != 0) {
        atomic_store(&link->ready, false);
        nbd_lose(nbd, ended, "the connection to %s is lost: %s",
                 nbd->config.target,
                 link->why[0] != '\0' ? link->why : "the server closed it");
    }
    nbd_settle(link, ended);
}

/* ------------------------------------------------------------ the thread */

/* What a thread is to do about the device's end. */
struct nbd_fate {
    bool lost, leaving, ending;
    int64_t until_ms; /* of an end */
};

static struct nbd_fate
nbd_fate(struct nbd *nbd)
{
    struct nbd_fate fate;
    pthread_mutex_lock(&nbd->mutex);
    fate.lost = nbd->lost.status != 0;
    fate.leaving = nbd->leaving;
    fate.ending = nbd->ending;
    fate.until_ms = nbd->leaving_ms + nbd->config.connect_ms;
    pthread_mutex_unlock(&nbd->mutex);
    return fate;
}

/* The end, step by step; link.mutex held.  False: the thread may end. */
static bool
nbd_link_part(struct nbd_link *link, struct nbd_fate *fate,
              struct nbd_ended *ended)
{
    struct nbd *nbd = link->nbd;
    bool busy = atomic_load(&link->load) > 0;
    if (!fate->ending) { /* it is drained: what counts is silence */
        fate->until_ms = busy ? (int64_t)max_u64((uint64_t)fate->until_ms,
                                                 (uint64_t)link->heard_ms
                                                     + nbd->config.connect_ms)
                              : INT64_MAX;
        if (timer_now() < fate->until_ms)
            return true;
        nbd_lose(nbd, ended, "%s: the server has not answered for %d ms",
                 nbd->config.target, (int)nbd->config.connect_ms);
        return false;
    }
    if (timer_now() >= fate->until_ms)
        return false;
    if (!busy && !link->said_goodbye) {
        link->said_goodbye = true;
        if (nbd_aio_disconnect(link->handle, 0) != 0)
            return false;
    }
    return true;
}

static void nbd_links_grow(struct nbd *nbd);

/* Wait once, and do what there is to do; link.mutex held, but for waiting and
 * completing.  False: the connection is over. */
static bool
nbd_link_turn(struct nbd_link *link)
{
    struct nbd *nbd = link->nbd;
    struct nbd_handle *handle = link->handle;
    struct nbd_ended ended = {NULL, NULL};
    struct nbd_fate fate = nbd_fate(nbd);
    bool goes_on = !fate.lost;
    int timeout = -1;
    if (goes_on && fate.leaving) {
        goes_on = nbd_link_part(link, &fate, &ended);
        if (fate.until_ms != INT64_MAX)
            timeout = (int)min_u64(
                max_u64((uint64_t)(fate.until_ms - timer_now() + 1), 1), 60000);
        if (goes_on && link->said_goodbye
            && (nbd_aio_is_closed(handle) != 0 || nbd_aio_is_dead(handle) != 0))
            goes_on = false;
    }
    if (!goes_on) {
        pthread_mutex_unlock(&link->mutex);
        nbd_complete(&ended);
        pthread_mutex_lock(&link->mutex);
        return false;
    }

    unsigned direction = nbd_aio_get_direction(handle);
    struct pollfd fds[2] = {
        {.fd = nbd_aio_get_fd(handle)},
        {.fd = link->wake, .events = POLLIN},
    };
    if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0)
        fds[0].events |= POLLIN;
    if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0)
        fds[0].events |= POLLOUT;
    pthread_mutex_unlock(&link->mutex);
    int n = poll(fds, 2, timeout);
    pthread_mutex_lock(&link->mutex);
    if (n > 0 && fds[1].revents != 0)
        nbd_link_calm(link);
    if (n > 0 && fds[0].revents != 0) {
        /* Others may have moved it on meanwhile. */
        int failed = 0;
        direction = nbd_aio_get_direction(handle);
        if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0
            && (fds[0].revents & ~POLLOUT) != 0)
            failed = nbd_aio_notify_read(handle);
        else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0
                 && (fds[0].revents & ~POLLIN) != 0)
            failed = nbd_aio_notify_write(handle);
        link->heard_ms = timer_now();
        if (failed != 0 && link->why[0] == '\0')
            nbd_words(link->why, sizeof link->why, "it failed");
    }
    if (!link->said_goodbye) {
        nbd_link_check(link, &ended);
        if (!nbd_is_lost(nbd))
            nbd_pump(link, &ended);
        nbd_settle(link, &ended);
    }
    pthread_mutex_unlock(&link->mutex);
    nbd_complete(&ended);
    if (link->index == 0 && !nbd->grown && atomic_load(&nbd->busy))
        nbd_links_grow(nbd);
    pthread_mutex_lock(&link->mutex);
    return true;
}

static bool
nbd_is_same(const struct nbd_facts *a, const struct nbd_facts *b)
{
    return a->size == b->size && a->read_only == b->read_only
           && a->can_flush == b->can_flush && a->can_fua == b->can_fua
           && a->can_trim == b->can_trim && a->can_zero == b->can_zero
           && a->can_multi == b->can_multi && a->can_map == b->can_map
           && a->minimum == b->minimum && a->maximum == b->maximum;
}

/* One more connection, to the same export as the first. */
static bool
nbd_link_open(struct nbd_link *link)
{
    struct nbd *nbd = link->nbd;
    struct nbd_facts facts;
    struct error error;
    error_clear(&error);
    struct nbd_fate fate = nbd_fate(nbd);
    if (fate.lost || fate.leaving)
        return false;
    struct nbd_handle *handle =
        nbd_connect(&nbd->config, false, timer_now() + nbd->config.connect_ms,
                    link->wake, &error);
    if (handle != NULL && nbd_ask(&nbd->config, handle, &facts, &error) == 0
        && !nbd_is_same(&facts, &nbd->facts))
        error_set(&error, FARBLK_CONFLICT,
                  "%s: another connection finds another export",
                  nbd->config.target);
    if (handle == NULL || error.status != 0) {
        log_info("%s; it goes on with fewer connections", error.text);
        nbd_close(handle);
        return false;
    }
    pthread_mutex_lock(&link->mutex);
    link->handle = handle;
    link->heard_ms = timer_now();
    atomic_store(&link->ready, true);
    nbd_link_wake(link); /* what waits may begin */
    pthread_mutex_unlock(&link->mutex);
    return true;
}

static void *
nbd_link_run(void *arg)
{
    struct nbd_link *link = arg;
    struct nbd_ended ended = {NULL, NULL};
    if (link->index > 0 && !nbd_link_open(link))
        return NULL;
    pthread_mutex_lock(&link->mutex);
    while (nbd_link_turn(link))
        continue;
    atomic_store(&link->ready, false);
    nbd_settle(link, &ended);
    nbd_close(link->handle);
    link->handle = NULL;
    nbd_abandon(link, &ended);
    pthread_mutex_unlock(&link->mutex);
    nbd_complete(&ended);
    return NULL;
}

/* A thread that takes no signals: they are the program's. */
static int
nbd_link_start(struct nbd_link *link)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int errnum = pthread_create(&link->thread, NULL, nbd_link_run, link);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    link->started = errnum == 0;
    return errnum;
}

/* The first link's thread: begin the others. */
static void
nbd_links_grow(struct nbd *nbd)
{
    nbd->grown = true;
    for (unsigned i = 1; i < nbd->link_count; i++)
        if (nbd_link_start(&nbd->links[i]) != 0)
            log_info("%s: no thread for another connection",
                     nbd->config.target);
}

/* ------------------------------------------------------------ the driver's */

int
nbd_links_open(struct nbd *nbd, struct error *error)
{
    struct nbd_link *link = &nbd->links[0];
    link->handle = nbd_connect(&nbd->config, false,
                               timer_now() + nbd->config.connect_ms, -1, error);
    if (link->handle == NULL)
        return error->status;
    link->heard_ms = timer_now();
    return nbd_ask(&nbd->config, link->handle, &nbd->facts, error);
}

int
nbd_links_start(struct nbd *nbd, unsigned count, struct error *error)
{
    for (unsigned i = 0; i < count; i++) {
        nbd->links[i].wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (nbd->links[i].wake < 0)
            return error_set_errno(error, errno, "cannot make an eventfd");
    }
    nbd->link_count = count;
    atomic_store(&nbd->links[0].ready, true);
    int errnum = nbd_link_start(&nbd->links[0]);
    if (errnum != 0)
        return error_set_errno(error, errnum, "cannot start a thread");
    return 0;
}

void
nbd_links_leave(struct nbd *nbd)
{
    pthread_mutex_lock(&nbd->mutex);
    bool first = !nbd->leaving;
    nbd->leaving = true;
    if (first)
        nbd->leaving_ms = timer_now();
    pthread_mutex_unlock(&nbd->mutex);
    nbd_links_wake(nbd);
}

void
nbd_links_end(struct nbd *nbd)
{
    if (nbd->over)
        return;
    nbd->over = true;
    pthread_mutex_lock(&nbd->mutex);
    nbd->leaving = nbd->ending = true;
    nbd->leaving_ms = timer_now();
    pthread_mutex_unlock(&nbd->mutex);
    /* The first one first: it starts the others. */
    for (unsigned i = 0; i < NBD_LINKS_MAX; i++) {
        struct nbd_link *link = &nbd->links[i];
        nbd_links_wake(nbd);
        if (link->started)
            pthread_join(link->thread, NULL);
        if (link->handle != NULL) /* of a start that failed */
            nbd_close(link->handle);
        link->handle = NULL;
    }
}
