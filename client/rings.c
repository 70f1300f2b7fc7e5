/* SPDX-License-Identifier: ISC */
/*
 * The region: asking for it, the rings in it, and the loss of either.
 */
#include "client/rings.h"

#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* The server may make a region in this time; else the socket serves. */
#define RINGS_ATTACH_MS 3000
/* After a ring that could not be had. */
#define RINGS_RETRY_MS 100

/* ------------------------------------------------------------ the region */

/* Why there is none is what the user is told, should he ask. */
static int
rings_refused(struct client *client, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length =
        snprintf(client->way, sizeof client->way, "socket; no shared memory: ");
    vsnprintf(client->way + length, sizeof client->way - (size_t)length, format,
              args);
    va_end(args);
    return FARBLK_UNIMPLEMENTED;
}

static int
rings_ask(struct client *client, int64_t until_ms, uint8_t *token)
{
    struct codec_request request;
    struct codec_reply reply;
    struct error error;
    request.method = WIRE_SHARE_MEMORY;
    request.handle = 0;
    request.has_secret = false;
    if (session_call(client, &request, false, until_ms, &reply, &error) != 0)
        return rings_refused(client, "%s", error.text);
    if (reply.status != 0)
        return rings_refused(client, "the server: %s", reply.text);
    memcpy(token, reply.result.share.token, SIDE_TOKEN);
    return 0;
}

/* The other end of the side socket must be of the user that serves. */
static bool
rings_same_user(uint32_t wanted, int fd)
{
    uint32_t uid;
    return side_peer_uid(fd, &uid) && uid == wanted;
}

/* The region's descriptor, and what the server says of it, checked. */
static int
rings_attach(struct client *client, const uint8_t *token, int64_t until_ms,
             struct side_attached *attached, int *region)
{
    struct error error;
    struct side_hello hello = {
        .magic = SIDE_MAGIC,
        .version = RING_VERSION,
        .kind = SIDE_ATTACH,
        .depth = RINGS_DEPTH,
        .rings = RINGS_COUNT,
    };
    memcpy(hello.token, token, SIDE_TOKEN);
    int fd = side_connect(client->url, &hello, &error);
    if (fd < 0)
        return rings_refused(client, "%s", error.text);
    const struct link_peer *peer = link_peer(client->link);
    if (!peer->has_uid || !rings_same_user(peer->uid, fd)) {
        close(fd);
        return rings_refused(client,
                             "the side socket is not of the server's user");
    }
    int status = side_receive_attached(fd, until_ms, attached, region, &error);
    close(fd);
    if (status != 0)
        return rings_refused(client, "%s", error.text);
    if (attached->status != 0)
        return rings_refused(client, "the server gives none (%s)",
                             farblk_status_name(attached->status));
    return 0;
}

/* Memory that can not be taken away under our feet, of that size. */
static const char *
rings_flaw(const struct ring_shape *shape, int fd)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    struct stat about;
    if (!ring_shape_valid(shape))
        return "the server offers a region of an impossible shape";
    if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)
        || (uint64_t)about.st_size != ring_region_octets(shape))
        return "the server's region has another size";
    int found = fcntl(fd, F_GET_SEALS);
    if (found < 0 || (found & seals) != seals || (found & F_SEAL_WRITE) != 0)
        return "the server's region is not sealed";
    return NULL;
}

static int
rings_map(struct client *client, const struct side_attached *attached, int fd)
{
    const struct ring_shape shape = {
        .depth = attached->depth,
        .rings = attached->rings,
        .ring_octets = attached->ring_octets,
        .arena_at = attached->arena_at,
        .arena_octets = attached->arena_octets,
    };
    const char *flaw = rings_flaw(&shape, fd);
    if (flaw != NULL)
        return rings_refused(client, "%s", flaw);
    if (sysconf(_SC_PAGESIZE) != RING_PAGE)
        return rings_refused(client, "this host has pages of %ld octets",
                             sysconf(_SC_PAGESIZE));
    uint64_t octets = ring_region_octets(&shape);
    uint8_t *region =
        mmap(NULL, octets, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (region == MAP_FAILED)
        return rings_refused(client, "mapping %llu octets: %s",
                             (unsigned long long)octets, strerror(errno));
    /* All of it is there now, or there is an error: no fault later. */
    if (madvise(region, octets, MADV_POPULATE_WRITE) != 0 && errno != EINVAL) {
        munmap(region, octets);
        return rings_refused(client, "no memory for %llu octets",
                             (unsigned long long)octets);
    }
    madvise(region, octets, MADV_DONTFORK);
    struct rings *rings = calloc(1, sizeof *rings);
    if (rings != NULL) {
        rings->client = client;
        rings->shape = shape;
        rings->region = region;
        rings->uid = link_peer(client->link)->uid;
        memcpy(rings->key, attached->key, SIDE_TOKEN);
        pthread_mutex_init(&rings->mutex, NULL);
        atomic_init(&rings->up, true);
        client->rings = rings;
    }
    if (rings == NULL || !arena_init(rings)) {
        if (rings == NULL)
            munmap(region, octets);
        rings_fini(client);
        return rings_refused(client, "no memory");
    }
    return 0;
}

static int
rings_get(struct client *client, int64_t until_ms)
{
    struct side_attached attached;
    uint8_t token[SIDE_TOKEN];
    int region = -1;
    if (!side_possible(client->url))
        return rings_refused(client, "only over a unix socket");
    if (client->shm == CLIENT_SHM_OFF)
        return rings_refused(client, "turned off (shm=off)");
    if (client->checksums)
        return rings_refused(client, "its data has no checksums");
    int status = rings_ask(client, until_ms, token);
    if (status == 0)
        status = rings_attach(client, token, until_ms, &attached, &region);
    if (status == 0)
        status = rings_map(client, &attached, region);
    if (region >= 0)
        close(region);
    return status;
}

int
rings_begin(struct client *client, int64_t until_ms, struct error *error)
{
    int64_t soon_ms = timer_now() + RINGS_ATTACH_MS;
    if (rings_get(client, until_ms < soon_ms ? until_ms : soon_ms) == 0) {
        const struct ring_shape *shape = &client->rings->shape;
        snprintf(client->way, sizeof client->way,
                 "shared memory: %u rings of %u, %llu KiB for data",
                 shape->rings, shape->depth,
                 (unsigned long long)shape->arena_octets / 1024);
        return 0;
    }
    log_debug("%s: %s", client->target, client->way);
    if (client->shm != CLIENT_SHM_REQUIRE)
        return 0;
    return error_set(error, FARBLK_UNIMPLEMENTED, "%s: shm=require, but: %s",
                     client->target, client->way);
}

/* ------------------------------------------------------------ rings */

static void
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

static bool
rings_offered(void *state)
{
    struct client *client = state;
    struct rings *rings = client->rings;
    return rings != NULL
           && atomic_load_explicit(&rings->up, memory_order_relaxed);
}

static void *
rings_take(void *state)
{
    struct client *client = state;
    struct rings *rings = client->rings;
    pthread_mutex_lock(&rings->mutex);
    struct client_ring *ring = NULL;
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

static void
rings_awake(void *state, bool rung)
{
    struct client_ring *ring = state;
    bool gone = rung && !side_hear(ring->fd);
    pthread_mutex_lock(&ring->mutex);
    struct client *broken = NULL;
    if (!ring->dead) {
        ring_awake(&ring->ring->client_sleeps);
        if (gone) {
            broken = ring->client;
            client_enter(broken); /* or it could go meanwhile */
        }
    }
    pthread_mutex_unlock(&ring->mutex);
    if (broken != NULL) {
        rings_broken(ring);
        client_leave(broken);
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
    struct rings *rings = client->rings;
    unsigned count = rings != NULL ? atomic_load(&rings->made_count) : 0;
    for (unsigned i = 0; i < count; i++)
        rings_reap(atomic_load(&rings->made[i]));
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
    struct rings *rings = client->rings;
    struct pollfd waits[RING_COUNT_MAX];
    struct client_ring *busy[RING_COUNT_MAX];
    if (rings == NULL)
        return;
    for (;;) {
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
            return;
        if (asleep)
            poll(waits, count, RINGS_DRAIN_MS);
        for (unsigned i = 0; i < count; i++)
            if (waits[i].revents != 0)
                rings_awake(busy[i], true);
    }
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
    const struct rings *rings = client->rings;
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

/* Nothing of the ring is used from now on; the ios that were in it, by link. */
static struct io *
ring_kill(struct client_ring *ring)
{
    struct io *first = NULL, **end = &first;
    pthread_mutex_lock(&ring->mutex);
    if (!ring->dead) {
        ring->dead = true;
        atomic_store(&ring->alive, false);
        shutdown(ring->fd, SHUT_RDWR); /* whoever polls looks */
        for (uint32_t i = 0; i < ring->depth; i++) {
            struct io *io = rings_take_out(ring, &ring->tags[i]);
            if (io == NULL)
                continue;
            io->link = NULL;
            *end = io;
            end = (struct io **)&io->link;
        }
    }
    pthread_mutex_unlock(&ring->mutex);
    return first;
}

void
rings_lost(struct client *client)
{
    struct rings *rings = client->rings;
    struct batch batch = {NULL, NULL, NULL, NULL};
    if (rings == NULL)
        return;
    pthread_mutex_lock(&rings->mutex);
    atomic_store(&rings->up, false);
    unsigned count = atomic_load(&rings->made_count);
    pthread_mutex_unlock(&rings->mutex);
    for (unsigned i = 0; i < count; i++) {
        struct client_ring *ring = atomic_load(&rings->made[i]);
        rings_reap(ring); /* what was answered is answered */
        struct io *io = ring_kill(ring), *next;
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
    calls_run(client, &batch);
}

void
rings_broken(struct client_ring *ring)
{
    struct client *client = ring->client;
    struct rings *rings = ring->rings;
    atomic_store(&rings->up, false);
    rings_reap(ring);
    struct io *first = ring_kill(ring);
    log_debug("%s: the server ended a ring; its requests go by the socket",
              client->target);
    pthread_mutex_lock(&client->mutex);
    for (struct io *io = first; io != NULL; io = io->link) {
        uint64_t number = io->scratch[CLIENT_IO_NUMBER];
        if (number == 0)
            continue;
        client->orphan_lowest = client->orphans++ == 0
                                    ? number
                                    : min_u64(client->orphan_lowest, number);
    }
    pthread_mutex_unlock(&client->mutex);
    atomic_store(&ring->oldest, UINT64_MAX);
    while (first != NULL) {
        struct io *io = first;
        first = io->link;
        calls_again(client, io);
    }
}

void
rings_away(struct client *client)
{
    struct rings *rings = client->rings;
    if (rings == NULL)
        return;
    pthread_mutex_lock(&rings->mutex);
    atomic_store(&rings->up, false);
    unsigned count = atomic_load(&rings->made_count);
    pthread_mutex_unlock(&rings->mutex);
    for (unsigned i = 0; i < count; i++)
        rings_broken(atomic_load(&rings->made[i]));
}

void
rings_fini(struct client *client)
{
    struct rings *rings = client->rings;
    if (rings == NULL)
        return;
    client->rings = NULL;
    unsigned count = atomic_load(&rings->made_count);
    for (unsigned i = 0; i < count; i++)
        ring_put(atomic_load(&rings->made[i]));
    munmap(rings->region, ring_region_octets(&rings->shape));
    arena_fini(rings);
    pthread_mutex_destroy(&rings->mutex);
    free(rings);
}
