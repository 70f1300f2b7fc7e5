/* SPDX-License-Identifier: ISC */
/*
 * The door: one thread that listens at the side sockets, hears who comes, and
 * makes regions.  It may take its time: nothing that is served waits for it.
 *
 * A connection that does not say its hello in time is closed, and only a few
 * may be in the middle of it: beyond that the newest wait in the kernel.  A
 * ring's connection goes on to a hand; one that came for a region is closed when
 * it has it.
 */
#include "server/shm.h"

#include "core/log.h"
#include "core/timer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <signal.h>
#include <unistd.h>

#define DOOR_GUESTS 64u /* that have not said their hello */
#define DOOR_HELLO_MS 5000
#define DOOR_PAUSE_MS 50 /* after an accept that failed for lack of something */

struct door_guest {
    int fd;
    uint32_t uid;
    int64_t since_ms;
    size_t got;
    struct side_hello hello;
};

struct door {
    struct shm *shm;
    struct door_guest guests[DOOR_GUESTS];
    size_t count;
    bool full; /* the listeners are not looked at */
};

static void
door_answer(int fd, const struct share *share, int region, int status)
{
    struct side_attached attached = {
        .magic = SIDE_MAGIC, .version = RING_VERSION, .status = status};
    if (status == 0) {
        memcpy(attached.key, share->key, SIDE_TOKEN);
        attached.depth = share->shape.depth;
        attached.rings = share->shape.rings;
        attached.ring_octets = share->shape.ring_octets;
        attached.arena_at = share->shape.arena_at;
        attached.arena_octets = share->shape.arena_octets;
    }
    side_send_attached(fd, &attached, region);
}

static void
door_attach(struct shm *shm, const struct door_guest *guest)
{
    struct error error;
    struct share *share = share_claim(shm, guest->hello.token, guest->uid);
    if (share == NULL) {
        log_warning("side socket: refused: uid %u shows no token that waits",
                    guest->uid);
        door_answer(guest->fd, NULL, -1, FARBLK_DENIED);
        return;
    }
    uint32_t serial = share->session->serial;
    int region = share_make_region(share, &guest->hello, &error);
    if (region < 0) {
        log_warning("session %u: memory is not shared: %s", serial, error.text);
        door_answer(guest->fd, NULL, -1, error.status);
        share_detach(share);
    } else {
        log_info("session %u: shares %llu octets, %u rings of %u", serial,
                 (unsigned long long)share->octets, share->shape.rings,
                 share->shape.depth);
        door_answer(guest->fd, share, region, 0);
        close(region);
    }
    share_put(share);
}

/* The guest has said it all.  True: his descriptor is not the door's any more. */
static bool
door_hello(struct shm *shm, const struct door_guest *guest)
{
    const struct side_hello *hello = &guest->hello;
    if (hello->magic != SIDE_MAGIC || hello->version != RING_VERSION
        || (hello->kind != SIDE_ATTACH && hello->kind != SIDE_RING)) {
        log_warning("side socket: uid %u: not a hello of version %d",
                    guest->uid, RING_VERSION);
        return false;
    }
    if (hello->kind == SIDE_ATTACH) {
        door_attach(shm, guest);
        return false;
    }
    struct share *share = share_find(shm, hello->token, guest->uid);
    if (share == NULL) {
        log_debug("side socket: uid %u: a ring of no share", guest->uid);
        return false;
    }
    bool taken = hello->ring < share->shape.rings && share->region != NULL;
    if (taken)
        shm_ring_begin(share, hello->ring, guest->fd);
    else
        log_warning("session %u: no ring %u; there are %u",
                    share->session->serial, hello->ring, share->shape.rings);
    share_put(share);
    return taken;
}

/* Read what there is of a hello.  False: the guest has gone, or goes on. */
static bool
door_read(struct shm *shm, struct door_guest *guest)
{
    uint8_t *to = (uint8_t *)&guest->hello + guest->got;
    ssize_t n =
        recv(guest->fd, to, sizeof guest->hello - guest->got, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    bool taken = false;
    if (n > 0) {
        guest->got += (size_t)n;
        if (guest->got < sizeof guest->hello)
            return true;
        epoll_ctl(shm->door_epoll, EPOLL_CTL_DEL, guest->fd, NULL);
        taken = door_hello(shm, guest);
    }
    if (!taken)
        close(guest->fd);
    return false;
}

static void
door_drop(struct door *door, size_t index)
{
    door->guests[index] = door->guests[--door->count];
}

static void
door_read_all(struct door *door)
{
    for (size_t i = door->count; i-- > 0;)
        if (!door_read(door->shm, &door->guests[i]))
            door_drop(door, i);
}

static void
door_expire(struct door *door, int64_t now)
{
    for (size_t i = door->count; i-- > 0;) {
        if (now - door->guests[i].since_ms < DOOR_HELLO_MS)
            continue;
        log_debug("side socket: uid %u: no hello in time", door->guests[i].uid);
        close(door->guests[i].fd);
        door_drop(door, i);
    }
}

/* Whether to go on accepting at once. */
static bool
door_accept(struct door *door, int listener)
{
    if (door->count == DOOR_GUESTS)
        return false;
    int fd = side_accept(listener);
    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
            log_warning("side socket: accepting failed: %s", strerror(errno));
            usleep(DOOR_PAUSE_MS * 1000);
        }
        return false;
    }
    struct door_guest *guest = &door->guests[door->count];
    *guest = (struct door_guest){.fd = fd, .since_ms = timer_now()};
    struct epoll_event event = {.events = EPOLLIN};
    if (!side_peer_uid(fd, &guest->uid)
        || epoll_ctl(door->shm->door_epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        close(fd);
        return true;
    }
    door->count++;
    return true;
}

/* Look at the listeners, or while there are too many guests, do not. */
static void
door_mind(struct door *door)
{
    struct shm *shm = door->shm;
    struct epoll_event event = {.events = EPOLLIN};
    bool full = door->count == DOOR_GUESTS;
    pthread_mutex_lock(&shm->mutex);
    for (struct shm_side *side = shm->sides; side != NULL; side = side->next)
        if (epoll_ctl(shm->door_epoll, full ? EPOLL_CTL_DEL : EPOLL_CTL_ADD,
                      side->fd, &event)
                != 0
            && errno != EEXIST && errno != ENOENT)
            log_warning("%s: the side socket is not minded: %s", side->url,
                        strerror(errno));
    pthread_mutex_unlock(&shm->mutex);
    door->full = full;
}

/* The listeners, one after the other; they are closed by nobody meanwhile. */
static void
door_accept_all(struct door *door)
{
    struct shm *shm = door->shm;
    pthread_mutex_lock(&shm->mutex);
    struct shm_side *side = shm->sides;
    pthread_mutex_unlock(&shm->mutex);
    for (; side != NULL; side = side->next)
        while (door_accept(door, side->fd))
            ;
}

static void *
door_run(void *arg)
{
    struct door *door = arg;
    struct shm *shm = door->shm;
    struct epoll_event events[16];
    for (;;) {
        eventfd_t value;
        pthread_mutex_lock(&shm->mutex);
        bool stopping = shm->stopping;
        pthread_mutex_unlock(&shm->mutex);
        if (stopping)
            break;
        door_mind(door);
        int n = epoll_wait(shm->door_epoll, events, 16,
                           door->count > 0 ? 1000 : -1);
        eventfd_read(shm->door_wake, &value);
        if (n > 0) {
            door_accept_all(door);
            door_read_all(door);
        }
        door_expire(door, timer_now());
    }
    while (door->count > 0)
        close(door->guests[--door->count].fd);
    return NULL;
}

/* No thread runs. */
static void
door_free(struct shm *shm)
{
    if (shm->door_epoll >= 0)
        close(shm->door_epoll);
    if (shm->door_wake >= 0)
        close(shm->door_wake);
    shm->door_epoll = shm->door_wake = -1;
    free(shm->doorkeeper);
    shm->doorkeeper = NULL;
}

bool
door_start(struct shm *shm)
{
    struct epoll_event event = {.events = EPOLLIN};
    sigset_t all, before;
    shm->doorkeeper = calloc(1, sizeof *shm->doorkeeper);
    if (shm->doorkeeper != NULL)
        shm->doorkeeper->shm = shm;
    shm->door_epoll = epoll_create1(EPOLL_CLOEXEC);
    shm->door_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    shm->door_runs =
        shm->doorkeeper != NULL && shm->door_epoll >= 0 && shm->door_wake >= 0
        && epoll_ctl(shm->door_epoll, EPOLL_CTL_ADD, shm->door_wake, &event)
               == 0
        && pthread_create(&shm->door, NULL, door_run, shm->doorkeeper) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!shm->door_runs)
        door_free(shm);
    return shm->door_runs;
}

void
door_stop(struct shm *shm)
{
    pthread_mutex_lock(&shm->mutex);
    bool runs = shm->door_runs;
    shm->stopping = true;
    shm->door_runs = false;
    pthread_mutex_unlock(&shm->mutex);
    if (runs) {
        eventfd_write(shm->door_wake, 1);
        pthread_join(shm->door, NULL);
    }
    pthread_mutex_lock(&shm->mutex);
    struct shm_side *side = shm->sides;
    shm->sides = NULL;
    pthread_mutex_unlock(&shm->mutex);
    while (side != NULL) {
        struct shm_side *next = side->next;
        side_unlink(side->url);
        close(side->fd);
        free(side->url);
        free(side);
        side = next;
    }
    door_free(shm);
}
