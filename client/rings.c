/* SPDX-License-Identifier: ISC */
/*
 * The rings of a region, and their loss.
 */
#include "client/rings.h"

#include "core/log.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* After a ring that could not be had. */
#define RINGS_RETRY_MS 100

/* ------------------------------------------------------------ rings */

/* The other end of the side socket must be of the user that serves. */
bool
rings_same_user(uint32_t wanted, int fd)
{
    uint32_t uid;
    return side_peer_uid(fd, &uid) && uid == wanted;
}

void
ring_put(struct client_ring *ring)
{
    if (atomic_fetch_sub_explicit(&ring->refs, 1, memory_order_acq_rel) != 1)
        return;
    close(ring->fd);
    pthread_mutex_destroy(&ring->mutex);
    free(ring->tags);
    free(ring->idle);
    free(ring);
}

static struct client_ring *
ring_create(struct rings *rings, uint32_t index, int fd)
{
    const uint32_t depth = rings->shape.depth;
    struct client_ring *ring = calloc(1, sizeof *ring);
    struct client_tag *tags = calloc(depth, sizeof *tags);
    uint32_t *idle = calloc(depth, sizeof *idle);
    if (ring == NULL || tags == NULL || idle == NULL) {
        free(ring);
        free(tags);
        free(idle);
        return NULL;
    }
    atomic_init(&ring->refs, 2);
    atomic_init(&ring->alive, true);
    atomic_init(&ring->oldest, UINT64_MAX);
    ring->fd = fd;
    ring->index = index;
    ring->depth = depth;
    pthread_mutex_init(&ring->mutex, NULL);
    ring->client = rings->client;
    ring->rings = rings;
    ring->ring = ring_at(rings->region, &rings->shape, index);
    ring->submissions = ring_submissions(ring->ring, depth);
    ring->completions = ring_completions(ring->ring, depth);
    ring->tags = tags;
    ring->idle = idle;
    for (uint32_t i = depth; i-- > 0;)
        idle[ring->idle_count++] = i;
    return ring;
}

/* Under rings.mutex: one more; NULL: not now. */
static struct client_ring *
rings_make(struct rings *rings)
{
    struct error error;
    unsigned index = atomic_load(&rings->made_count);
    struct side_hello hello = {
        .magic = SIDE_MAGIC,
        .version = RING_VERSION,
        .kind = SIDE_RING,
        .ring = index,
    };
    if (index == rings->shape.rings || timer_now() < rings->retry_ms)
        return NULL;
    memcpy(hello.token, rings->key, SIDE_TOKEN);
    int fd = side_connect(rings->client->url, &hello, &error);
    struct client_ring *ring = NULL;
    if (fd >= 0 && rings_same_user(rings->uid, fd))
        ring = ring_create(rings, index, fd);
    if (ring == NULL) {
        if (fd >= 0)
            close(fd);
        rings->retry_ms = timer_now() + RINGS_RETRY_MS;
        return NULL;
    }
    atomic_store(&rings->made[index], ring);
    atomic_store(&rings->made_count, index + 1);
    return ring;
}

void
rings_put_made(struct rings *rings)
{
    unsigned count = atomic_load(&rings->made_count);
    for (unsigned i = 0; i < count; i++)
        ring_put(atomic_load(&rings->made[i]));
}

static bool
rings_offered(void *state)
{
    struct client *client = state;
    return atomic_load_explicit(&client->rings_up, memory_order_relaxed);
}

static void *
rings_take(void *state)
{
    struct rings *rings = rings_enter(state);
    struct client_ring *ring = NULL;
    if (rings == NULL)
        return NULL;
    pthread_mutex_lock(&rings->mutex);
    if (atomic_load(&rings->up)) {
        ring = rings->idle;
        if (ring != NULL) {
            rings->idle = ring->next;
            atomic_fetch_add(&ring->refs, 1);
        } else {
            ring = rings_make(rings);
        }
    }
    pthread_mutex_unlock(&rings->mutex);
    rings_leave(rings);
    return ring;
}

static void
rings_give(void *state)
{
    struct client_ring *ring = state;
    pthread_mutex_lock(&ring->mutex);
    if (!ring->dead) {
        struct rings *rings = ring->rings;
        pthread_mutex_lock(&rings->mutex);
        ring->next = rings->idle;
        rings->idle = ring;
        pthread_mutex_unlock(&rings->mutex);
    }
    pthread_mutex_unlock(&ring->mutex);
    ring_put(ring);
}

static bool
rings_alive(void *state)
{
    struct client_ring *ring = state;
    return atomic_load_explicit(&ring->alive, memory_order_relaxed);
}

static bool
rings_sleep(void *state)
{
    struct client_ring *ring = state;
    pthread_mutex_lock(&ring->mutex);
    bool sleeps = !ring->dead
                  && ring_sleep(&ring->ring->client_sleeps, ring->completions,
                                ring->taken);
    pthread_mutex_unlock(&ring->mutex);
    return sleeps;
}

static void ring_broken(struct client_ring *ring, bool away);

static void
rings_awake(void *state, bool rung)
{
    struct client_ring *ring = state;
    bool gone = rung && !side_hear(ring->fd);
    pthread_mutex_lock(&ring->mutex);
    struct rings *broken = NULL;
    if (!ring->dead) {
        ring_awake(&ring->ring->client_sleeps);
        if (gone) { /* or they could go meanwhile */
            broken = ring->rings;
            atomic_fetch_add(&broken->users, 1);
            client_enter(broken->client);
        }
    }
    pthread_mutex_unlock(&ring->mutex);
    if (broken != NULL) {
        struct client *client = broken->client;
        ring_broken(ring, false);
        rings_leave(broken);
        client_leave(client);
    }
}

static int
rings_descriptor(void *state)
{
    const struct client_ring *ring = state;
    return ring->fd;
}

void
rings_reap_all(struct client *client)
{
    struct rings *rings = rings_enter(client);
    unsigned count = rings != NULL ? atomic_load(&rings->made_count) : 0;
    for (unsigned i = 0; i < count; i++)
        rings_reap(atomic_load(&rings->made[i]));
    rings_leave(rings);
}

/* Whether an io lies in the ring. */
static bool
ring_busy(struct client_ring *ring)
{
    bool busy = false;
    pthread_mutex_lock(&ring->mutex);
    for (uint32_t i = 0; i < ring->depth && !busy && !ring->dead; i++)
        busy = ring->tags[i].io != NULL;
    pthread_mutex_unlock(&ring->mutex);
    return busy;
}

/* The queues' threads may take what the doorbells say: so not for long. */
#define RINGS_DRAIN_MS 10

static void
rings_drain(void *state)
{
    struct client *client = state;
    struct rings *rings = rings_enter(client);
    struct pollfd waits[RING_COUNT_MAX];
    struct client_ring *busy[RING_COUNT_MAX];
    while (rings != NULL) {
        unsigned made = atomic_load(&rings->made_count), count = 0;
        bool asleep = true;
        for (unsigned i = 0; i < made; i++) {
            struct client_ring *ring = atomic_load(&rings->made[i]);
            rings_reap(ring);
            if (!ring_busy(ring))
                continue;
            busy[count] = ring;
            waits[count++] = (struct pollfd){.fd = ring->fd, .events = POLLIN};
            asleep = rings_sleep(ring) && asleep;
        }
        if (count == 0)
            break;
        if (asleep)
            poll(waits, count, RINGS_DRAIN_MS);
        for (unsigned i = 0; i < count; i++)
            if (waits[i].revents != 0)
                rings_awake(busy[i], true);
    }
    rings_leave(rings);
}

const struct driver_rings rings_driver = {
    .offered = rings_offered,
    .take = rings_take,
    .give = rings_give,
    .alive = rings_alive,
    .reap = rings_reap,
    .sleep = rings_sleep,
    .awake = rings_awake,
    .drain = rings_drain,
    .descriptor = rings_descriptor,
};

uint64_t
rings_oldest(const struct client *client)
{
    const struct rings *rings = atomic_load(&client->rings);
    uint64_t oldest = client->orphans > 0 ? client->orphan_lowest : UINT64_MAX;
    if (rings == NULL)
        return oldest;
    unsigned count = atomic_load(&rings->made_count);
    for (unsigned i = 0; i < count; i++)
        oldest =
            min_u64(oldest, atomic_load(&atomic_load(&rings->made[i])->oldest));
    return oldest;
}

/* ------------------------------------------------------------ the end */

/* These of a ring that dies wait to be issued, under the numbers that they have. */
static void
ring_orphan(struct client_ring *ring, struct io *first)
{
    struct client *client = ring->client;
    pthread_mutex_lock(&client->mutex);
    for (struct io *io = first; io != NULL; io = io->link) {
        uint64_t number = io->scratch[CLIENT_IO_NUMBER];
        if (number == 0)
            continue;
        client->orphan_lowest = client->orphans++ == 0
                                    ? number
                                    : min_u64(client->orphan_lowest, number);
    }
    atomic_store(&ring->oldest, UINT64_MAX);
    pthread_mutex_unlock(&client->mutex);
}

/* Nothing of the ring is used from now on; the ios that were in it, by link, for
 * whoever is the first.  `again`: they will be issued again, and their numbers are
 * accounted for when anybody sees that it is dead. */
static struct io *
ring_kill(struct client_ring *ring, bool again)
{
    struct io *first = NULL, **end = &first;
    pthread_mutex_lock(&ring->mutex);
    if (!ring->dead) {
        ring->dead = true;
        shutdown(ring->fd, SHUT_RDWR); /* whoever polls looks */
        for (uint32_t i = 0; i < ring->depth; i++) {
            struct io *io = rings_take_out(ring, &ring->tags[i]);
            if (io == NULL)
                continue;
            io->link = NULL;
            *end = io;
            end = (struct io **)&io->link;
        }
        if (again)
            ring_orphan(ring, first);
        atomic_store(&ring->alive, false);
    }
    pthread_mutex_unlock(&ring->mutex);
    return first;
}

void
rings_lost(struct client *client)
{
    struct rings *rings = rings_enter(client);
    struct batch batch = {NULL, NULL, NULL, NULL};
    if (rings == NULL)
        return;
    atomic_store(&client->rings_up, false);
    pthread_mutex_lock(&rings->mutex);
    atomic_store(&rings->up, false);
    unsigned count = atomic_load(&rings->made_count);
    pthread_mutex_unlock(&rings->mutex);
    for (unsigned i = 0; i < count; i++) {
        struct client_ring *ring = atomic_load(&rings->made[i]);
        rings_reap(ring); /* what was answered is answered */
        struct io *io = ring_kill(ring, false), *next;
        pthread_mutex_lock(&client->mutex);
        for (; io != NULL; io = next) {
            next = io->link;
            calls_end(&batch, io, client->lost_status,
                      calls_changes(io->op) ? FARBLK_EFFECT_UNKNOWN
                                            : FARBLK_EFFECT_NONE,
                      client->lost.text, 0);
        }
        pthread_mutex_unlock(&client->mutex);
    }
    rings_leave(rings);
    calls_run(client, &batch);
}

/* Nothing comes by this ring any more: what the server had not answered goes by
 * the socket, under the numbers that it had.  The caller is a user of the client
 * and of its rings. */
static void
ring_broken(struct client_ring *ring, bool away)
{
    struct client *client = ring->client;
    struct rings *rings = ring->rings;
    atomic_store(&rings->up, false);
    rings_reap(ring);
    struct io *first = ring_kill(ring, true);
    pthread_mutex_lock(&client->mutex);
    rings_ended(client, rings, away);
    pthread_mutex_unlock(&client->mutex);
    while (first != NULL) {
        struct io *io = first;
        first = io->link;
        calls_again(client, io);
    }
}

void
rings_away(struct client *client)
{
    struct rings *rings = rings_enter(client);
    if (rings == NULL)
        return;
    pthread_mutex_lock(&client->mutex);
    rings_ended(client, rings, true);
    pthread_mutex_unlock(&client->mutex);
    pthread_mutex_lock(&rings->mutex);
    atomic_store(&rings->up, false);
    unsigned count = atomic_load(&rings->made_count);
    pthread_mutex_unlock(&rings->mutex);
    for (unsigned i = 0; i < count; i++)
        ring_broken(atomic_load(&rings->made[i]), true);
    rings_leave(rings);
}
