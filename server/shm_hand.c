/* SPDX-License-Identifier: ISC */
/*
 * Hands: the threads that serve rings.
 *
 * A hand goes round its hot rings, takes some submissions of each and gives them
 * to core.  A ring where nothing came for a while becomes cold: it has the
 * doorbell, and costs nothing until it is rung.  When all are cold the hand
 * sleeps; before that it looks for a moment longer, where that pays (spin.h).
 */
#include "server/shm_ring.h"

#include "core/log.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define RING_IDLE 512u /* rounds without any until it is cold */
#define HAND_ROUNDS 64u /* until it hears what the cold ones say */

/* ------------------------------------------------------------ hot and cold */

static void
ring_heat(struct shm_ring *ring)
{
    struct shm_hand *hand = ring->hand;
    ring->idle = 0;
    if (ring->hot)
        return;
    ring->hot = true;
    hand->cold--;
    ring->hot_next = hand->hot;
    ring->hot_prev = &hand->hot;
    if (ring->hot_next != NULL)
        ring->hot_next->hot_prev = &ring->hot_next;
    hand->hot = ring;
}

static void
ring_unheat(struct shm_ring *ring)
{
    if (!ring->hot)
        return;
    *ring->hot_prev = ring->hot_next;
    if (ring->hot_next != NULL)
        ring->hot_next->hot_prev = ring->hot_prev;
    ring->hot = false;
    ring->hand->cold++;
}

/* Wait for the doorbell from now on.  False: something is there. */
static bool
ring_cool(struct shm_ring *ring)
{
    if (!ring_sleep(&ring->ring->server_sleeps, ring->submissions, ring->taken))
        return false;
    ring_unheat(ring);
    return true;
}

/* ------------------------------------------------------------ hands */

/* Nothing more of it is begun, and the hand lets go of it. */
static void
hand_drop(struct shm_hand *hand, struct shm_ring *ring)
{
    atomic_store(&ring->ending, true);
    ring_unheat(ring);
    hand->cold--;
    *ring->prev = ring->next;
    if (ring->next != NULL)
        ring->next->prev = ring->prev;
    epoll_ctl(hand->epoll, EPOLL_CTL_DEL, ring->fd, NULL);
    ring_release(ring);
}

/* False: the hand has nothing more to do. */
static bool
hand_read_mail(struct shm_hand *hand)
{
    atomic_store(&hand->mail, false);
    pthread_mutex_lock(&hand->mutex);
    struct shm_ring *arrivals = hand->arrivals;
    hand->arrivals = NULL;
    bool stop = hand->stop;
    pthread_mutex_unlock(&hand->mutex);
    while (arrivals != NULL) {
        struct shm_ring *ring = arrivals;
        arrivals = ring->next;
        ring->next = hand->rings;
        ring->prev = &hand->rings;
        if (ring->next != NULL)
            ring->next->prev = &ring->next;
        hand->rings = ring;
        hand->cold++;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = ring};
        if (epoll_ctl(hand->epoll, EPOLL_CTL_ADD, ring->fd, &event) != 0)
            hand_drop(hand, ring);
        else
            ring_heat(ring);
    }
    for (struct shm_ring *ring = hand->rings, *next; ring != NULL;
         ring = next) {
        next = ring->next;
        if (atomic_load(&ring->ending))
            hand_drop(hand, ring);
    }
    return !stop || hand->rings != NULL;
}

static bool
hand_has_mail(struct shm_hand *hand)
{
    return atomic_load_explicit(&hand->mail, memory_order_relaxed);
}

/* One round.  False: there was nothing. */
static bool
hand_serve(struct shm_hand *hand)
{
    bool some = false;
    for (struct shm_ring *ring = hand->hot, *next; ring != NULL; ring = next) {
        next = ring->hot_next;
        if (ring_serve(ring) > 0) {
            ring->idle = 0;
            session_ring_heard(ring->share->session);
            some = true;
        } else if (++ring->idle > RING_IDLE) {
            if (!ring_cool(ring))
                ring->idle = 0;
        }
    }
    return some;
}

/* Whether a hot ring has something, or the hand has mail. */
static bool
hand_look(struct shm_hand *hand)
{
    for (const struct shm_ring *ring = hand->hot; ring != NULL;
         ring = ring->hot_next)
        if (ring_look(ring->submissions, ring->taken) != RING_NOTHING)
            return true;
    return hand_has_mail(hand);
}

static bool
hand_spin(struct shm_hand *hand)
{
    bool found = false;
    if (hand->hot == NULL || !spin_begin(&hand->spin))
        return false;
    while (!found && spin_more(&hand->spin))
        found = hand_look(hand);
    spin_end(&hand->spin, found);
    return found;
}

/* Hear the doorbells; wait for one for at most timeout_ms. */
static void
hand_hear(struct shm_hand *hand, int timeout_ms)
{
    struct epoll_event events[32];
    int n = epoll_wait(hand->epoll, events, 32, timeout_ms);
    for (int i = 0; i < n; i++) {
        struct shm_ring *ring = events[i].data.ptr;
        if (ring == NULL) {
            eventfd_t value;
            eventfd_read(hand->wake, &value);
        } else if (!side_hear(ring->fd)) {
            hand_drop(hand, ring); /* the client has closed it */
        } else {
            ring_awake(&ring->ring->server_sleeps);
            ring_heat(ring);
        }
    }
}

static void
hand_sleep(struct shm_hand *hand)
{
    for (struct shm_ring *ring = hand->hot, *next; ring != NULL; ring = next) {
        next = ring->hot_next;
        if (!ring_cool(ring))
            return; /* the others have their doorbells, which does no harm */
    }
    if (hand_has_mail(hand))
        return;
    spin_sleeps(&hand->spin);
    hand_hear(hand, -1);
    spin_slept(&hand->spin);
}

static void *
hand_run(void *arg)
{
    struct shm_hand *hand = arg;
    unsigned rounds = 0;
    for (;;) {
        if (hand_has_mail(hand) && !hand_read_mail(hand))
            return NULL;
        if (++rounds % HAND_ROUNDS == 0 && hand->cold > 0)
            hand_hear(hand, 0);
        if (!hand_serve(hand) && !hand_spin(hand))
            hand_sleep(hand);
    }
}

static void
hand_call(struct shm_hand *hand)
{
    atomic_store(&hand->mail, true);
    eventfd_write(hand->wake, 1);
}

static void
hand_free(struct shm_hand *hand)
{
    if (hand->epoll >= 0)
        close(hand->epoll);
    if (hand->wake >= 0)
        close(hand->wake);
    pthread_mutex_destroy(&hand->mutex);
    free(hand);
}

static struct shm_hand *
hand_create(struct shm *shm)
{
    struct shm_hand *hand = calloc(1, sizeof *hand);
    struct epoll_event event = {.events = EPOLLIN};
    sigset_t all, before;
    if (hand == NULL)
        return NULL;
    hand->shm = shm;
    pthread_mutex_init(&hand->mutex, NULL);
    hand->epoll = epoll_create1(EPOLL_CLOEXEC);
    hand->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool fine =
        hand->epoll >= 0 && hand->wake >= 0
        && epoll_ctl(hand->epoll, EPOLL_CTL_ADD, hand->wake, &event) == 0
        && pthread_create(&hand->thread, NULL, hand_run, hand) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (fine)
        return hand;
    hand_free(hand);
    return NULL;
}

/* Under shm.mutex: the one whose turn it is, started if it was not. */
static struct shm_hand *
hand_next(struct shm *shm)
{
    unsigned index = shm->next_hand++ % shm->hand_limit;
    if (index >= shm->hand_count) {
        struct shm_hand *hand = hand_create(shm);
        if (hand != NULL)
            shm->hands[shm->hand_count++] = hand;
        index = shm->hand_count - 1;
    }
    return shm->hand_count > 0 ? shm->hands[index] : NULL;
}

void
shm_stop_hands(struct shm *shm)
{
    for (unsigned i = 0; i < shm->hand_count; i++) {
        struct shm_hand *hand = shm->hands[i];
        pthread_mutex_lock(&hand->mutex);
        hand->stop = true;
        pthread_mutex_unlock(&hand->mutex);
        hand_call(hand);
        pthread_join(hand->thread, NULL);
        hand_free(hand);
    }
    shm->hand_count = 0;
}

/* ------------------------------------------------------------ begin, end */

bool
shm_ring_begin(struct share *share, uint32_t index, int fd)
{
    struct shm *shm = share->shm;
    struct shm_ring *ring = ring_create(share, index, fd);
    pthread_mutex_lock(&shm->mutex);
    struct shm_hand *hand = ring != NULL ? hand_next(shm) : NULL;
    bool begins = hand != NULL && share->state == SHARE_ATTACHED
                  && share->rings[index] == NULL;
    if (begins) {
        ring->hand = hand;
        share->rings[index] = ring;
        share_get(share);
        shm->ring_count++;
        pthread_mutex_lock(&hand->mutex);
        ring->next = hand->arrivals;
        hand->arrivals = ring;
        pthread_mutex_unlock(&hand->mutex);
    }
    pthread_mutex_unlock(&shm->mutex);
    if (begins) {
        hand_call(hand);
        return true;
    }
    log_warning("session %u: ring %u of its shared memory can not begin",
                share->session->serial, index);
    close(fd);
    ring_discard(ring);
    return false;
}

void
shm_ring_end(struct shm_ring *ring)
{
    atomic_store(&ring->ending, true);
    hand_call(ring->hand);
}
