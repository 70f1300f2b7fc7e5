/* SPDX-License-Identifier: ISC */
/*
 * The region: asking for it, at first and again; its life.
 *
 * One that was lost is asked for anew by a thread that lives as long as that
 * takes: at once when the session goes on over another connection, and after
 * pauses that double when the server has ended it, or has no room for it now.
 * Meanwhile everything goes by the socket.  By then nothing lies in rings of the
 * old one: rings_away() has taken it out, and it is decided by the socket, under
 * its numbers.
 *
 * A region stays mapped while it is the client's, while a thread is in the middle
 * of it, and while the program has buffers in it.
 */
#include "client/rings.h"

#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* The server may make a region in this time; else the socket serves.  Where it
 * must not (shm=require), all the time that opening may take. */
#define REGION_ATTACH_MS 3000
#define REGION_AGAIN_MS 1000 /* who closes meanwhile may wait as long */
/* The pause before it is asked for anew, of a server that goes on.  It begins
 * again with the least when a region has lasted for the longest. */
#define REGION_PAUSE_MIN 100
#define REGION_PAUSE_MAX 60000

/* An attempt to get one. */
struct region_try {
    struct client *client;
    struct link *link; /* the connection that it will belong to */
    struct rings *rings; /* what it came to, or NULL */
    bool hopeless; /* another attempt at this server is no use */
    char way[CLIENT_WAY];
};

/* ------------------------------------------------------------ asking */

/* Why there is none is what the user is told, should he ask. */
static int
region_refused(struct region_try *try, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length =
        snprintf(try->way, sizeof try->way, "socket; no shared memory: ");
    vsnprintf(try->way + length, sizeof try->way - (size_t)length, format,
              args);
    va_end(args);
    return FARBLK_UNIMPLEMENTED;
}

/* The same, for as long as the connection lasts. */
#define region_hopeless(try, ...)                                              \
    ((try)->hopeless = true, region_refused((try), __VA_ARGS__))

static int
region_ask(struct region_try *try, int64_t until_ms, uint8_t *token)
{
    struct codec_request request;
    struct codec_reply reply;
    struct error error;
    request.method = WIRE_SHARE_MEMORY;
    request.handle = 0;
    request.has_secret = false;
    if (session_call(try->client, &request, false, until_ms, &reply, &error)
        != 0)
        return region_refused(try, "%s", error.text);
    if (reply.status == FARBLK_UNIMPLEMENTED)
        return region_hopeless(try, "the server: %s", reply.text);
    if (reply.status != 0)
        return region_refused(try, "the server: %s", reply.text);
    memcpy(token, reply.result.share.token, SIDE_TOKEN);
    return 0;
}

/* The region's descriptor, and what the server says of it, checked. */
static int
region_attach(struct region_try *try, const uint8_t *token, int64_t until_ms,
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
    int fd = side_connect(try->client->url, &hello, &error);
    if (fd < 0)
        return region_refused(try, "%s", error.text);
    const struct link_peer *peer = link_peer(try->link);
    if (!peer->has_uid || !rings_same_user(peer->uid, fd)) {
        close(fd);
        return region_hopeless(try,
                               "the side socket is not of the server's user");
    }
    int status = side_receive_attached(fd, until_ms, attached, region, &error);
    close(fd);
    if (status != 0)
        return region_refused(try, "%s", error.text);
    if (attached->status != 0)
        return region_refused(try, "the server gives none (%s)",
                              farblk_status_name(attached->status));
    return 0;
}

/* Memory that can not be taken away under our feet, of that size. */
static const char *
region_flaw(const struct ring_shape *shape, int fd)
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

/* On success the descriptor is the region's. */
static int
region_map(struct region_try *try, const struct side_attached *attached, int fd)
{
    const struct ring_shape shape = {
        .depth = attached->depth,
        .rings = attached->rings,
        .ring_octets = attached->ring_octets,
        .arena_at = attached->arena_at,
        .arena_octets = attached->arena_octets,
    };
    const char *flaw = region_flaw(&shape, fd);
    if (flaw != NULL)
        return region_hopeless(try, "%s", flaw);
    if (sysconf(_SC_PAGESIZE) != RING_PAGE)
        return region_hopeless(try, "this host has pages of %ld octets",
                               sysconf(_SC_PAGESIZE));
    uint64_t octets = ring_region_octets(&shape);
    uint8_t *region =
        mmap(NULL, octets, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (region == MAP_FAILED)
        return region_refused(try, "mapping %llu octets: %s",
                              (unsigned long long)octets, strerror(errno));
    /* All of it is there now, or there is an error: no fault later. */
    if (madvise(region, octets, MADV_POPULATE_WRITE) != 0 && errno != EINVAL) {
        munmap(region, octets);
        return region_refused(try, "no memory for %llu octets",
                              (unsigned long long)octets);
    }
    madvise(region, octets, MADV_DONTFORK);
    struct rings *rings = calloc(1, sizeof *rings);
    if (rings != NULL) {
        rings->shape = shape;
        if (!arena_init(rings)) {
            arena_fini(rings);
            free(rings);
            rings = NULL;
        }
    }
    if (rings == NULL) {
        munmap(region, octets);
        return region_refused(try, "no memory");
    }
    rings->client = try->client;
    rings->region = region;
    rings->fd = fd;
    rings->uid = link_peer(try->link)->uid;
    memcpy(rings->key, attached->key, SIDE_TOKEN);
    pthread_mutex_init(&rings->mutex, NULL);
    atomic_init(&rings->users, 1);
    atomic_init(&rings->refs, 1);
    atomic_init(&rings->up, true);
    try->rings = rings;
    return 0;
}

static int
region_get(struct region_try *try, int64_t until_ms)
{
    const struct client *client = try->client;
    struct side_attached attached;
    uint8_t token[SIDE_TOKEN];
    int region = -1;
    if (!side_possible(client->url))
        return region_hopeless(try, "only over a unix socket");
    if (client->shm == CLIENT_SHM_OFF)
        return region_hopeless(try, "turned off (shm=off)");
    if (client->checksums)
        return region_hopeless(try, "its data has no checksums");
    int status = region_ask(try, until_ms, token);
    if (status == 0)
        status = region_attach(try, token, until_ms, &attached, &region);
    if (status == 0)
        status = region_map(try, &attached, region);
    if (status != 0 && region >= 0)
        close(region);
    return status;
}

/* ------------------------------------------------------------ its life */

/* Nothing of it is used any more.  Not under client.mutex. */
static void
region_free(struct rings *rings)
{
    munmap(rings->region, ring_region_octets(&rings->shape));
    close(rings->fd);
    arena_fini(rings);
    pthread_mutex_destroy(&rings->mutex);
    free(rings);
}

void
rings_put(struct rings *rings)
{
    struct client *client = rings->client;
    if (atomic_fetch_sub(&rings->refs, 1) != 1)
        return;
    pthread_mutex_lock(&client->mutex);
    struct rings **link = &client->regions;
    while (*link != rings)
        link = &(*link)->next;
    *link = rings->next;
    pthread_mutex_unlock(&client->mutex);
    region_free(rings);
}

struct rings *
rings_enter(struct client *client)
{
    if (atomic_load(&client->rings) == NULL)
        return NULL;
    pthread_mutex_lock(&client->mutex);
    struct rings *rings = atomic_load(&client->rings);
    if (rings != NULL)
        atomic_fetch_add(&rings->users, 1);
    pthread_mutex_unlock(&client->mutex);
    return rings;
}

void
rings_leave(struct rings *rings)
{
    if (rings == NULL || atomic_fetch_sub(&rings->users, 1) != 1)
        return;
    rings_put_made(rings);
    rings_put(rings);
}

/* Under the mutex: this is the client's from now on.  What it had before. */
static struct rings *
region_install(struct client *client, struct rings *rings)
{
    struct rings *before = atomic_load(&client->rings);
    rings->since_ms = timer_now();
    rings->next = client->regions;
    client->regions = rings;
    atomic_store(&client->rings, rings);
    atomic_store(&client->rings_up, true);
    client->shared = true;
    client->renew_ms = 0;
    return before;
}

int
rings_begin(struct client *client, int64_t until_ms, struct error *error)
{
    struct region_try try = {.client = client, .link = client->link};
    int64_t soon_ms = timer_now() + REGION_ATTACH_MS;
    if (soon_ms > until_ms || client->shm == CLIENT_SHM_REQUIRE)
        soon_ms = until_ms;
    if (region_get(&try, soon_ms) == 0) {
        pthread_mutex_lock(&client->mutex);
        region_install(client, try.rings);
        pthread_mutex_unlock(&client->mutex);
        return 0;
    }
    pthread_mutex_lock(&client->mutex);
    memcpy(client->way, try.way, sizeof client->way);
    pthread_mutex_unlock(&client->mutex);
    log_debug("%s: %s", client->target, try.way);
    if (client->shm != CLIENT_SHM_REQUIRE)
        return 0;
    return error_set(error, FARBLK_UNIMPLEMENTED, "%s: shm=require, but: %s",
                     client->target, try.way);
}

void
rings_fini(struct client *client)
{
    struct rings *rings = atomic_exchange(&client->rings, NULL), *next;
    rings_leave(rings);
    /* In those that are left the program has buffers. */
    for (rings = client->regions; rings != NULL; rings = next) {
        next = rings->next;
        region_free(rings);
    }
    client->regions = NULL;
}

/* ------------------------------------------------------------ anew */

/* Under the mutex: the pause before the next attempt. */
static int64_t
region_pause(struct client *client)
{
    unsigned doublings = client->renewals < 10 ? client->renewals : 10;
    int64_t pause = (int64_t)REGION_PAUSE_MIN << doublings;
    client->renewals++;
    return pause < REGION_PAUSE_MAX ? pause : REGION_PAUSE_MAX;
}

void
rings_ended(struct client *client, struct rings *rings, bool away)
{
    int64_t now = timer_now();
    if (rings != atomic_load(&client->rings)
        || !atomic_exchange(&client->rings_up, false))
        return;
    snprintf(client->way, sizeof client->way,
             "socket; shared memory ended with %s, and is asked for again",
             away ? "a broken connection" : "a ring that the server closed");
    if (now - rings->since_ms >= REGION_PAUSE_MAX)
        client->renewals = 0;
    client->renew_ms = now + region_pause(client);
}

/* Under the mutex: what the attempt came to.  True: it was for a connection that
 * is not there any more, and there is another. */
static bool
region_settle(struct region_try *try, bool got, struct rings **unused)
{
    struct client *client = try->client;
    bool serves = client->state == CLIENT_UP && !client->ending;
    bool same = try->link == atomic_load(&client->link);
    *unused = try->rings;
    if (serves && same && got) {
        *unused = region_install(client, try->rings);
    } else if (serves && same) {
        memcpy(client->way, try->way, sizeof client->way);
        client->renew_ms =
            try->hopeless ? 0 : timer_now() + region_pause(client);
    }
    client->renewing = serves && !same;
    return client->renewing;
}

static void *
region_thread(void *arg)
{
    struct client *client = arg;
    for (bool again = true; again;) {
        struct region_try try = {.client = client};
        struct rings *unused;
        pthread_mutex_lock(&client->mutex);
        try.link = link_get(client->link);
        pthread_mutex_unlock(&client->mutex);
        rings_away(client); /* what lies in others of an older one */
        bool got = region_get(&try, timer_now() + REGION_AGAIN_MS) == 0;
        if (!got)
            log_debug("%s: %s", client->target, try.way);
        pthread_mutex_lock(&client->mutex);
        again = region_settle(&try, got, &unused);
        bool installed = got && unused != try.rings;
        pthread_mutex_unlock(&client->mutex);
        if (installed)
            log_info("%s: memory is shared again", client->target);
        else if (got)
            region_free(unused);
        if (installed)
            rings_leave(unused);
        link_put(try.link);
    }
    client_leave(client);
    return NULL;
}

void
rings_renew(struct client *client, int64_t now)
{
    if (client->renew_ms == 0 || now < client->renew_ms || client->renewing
        || client->state != CLIENT_UP || client->ending)
        return;
    client->renewing = client_spawn(client, region_thread);
    if (!client->renewing)
        client->renew_ms = now + region_pause(client);
}

void
rings_renew_at_once(struct client *client)
{
    if (!client->shared)
        return;
    client->renewals = 0;
    client->renew_ms = 1;
    rings_renew(client, timer_now());
}

/* ------------------------------------------------------------ what is told */

void
rings_way(void *state, struct driver_way *way)
{
    struct client *client = state;
    pthread_mutex_lock(&client->mutex);
    const struct rings *rings = atomic_load(&client->rings);
    if (rings != NULL && atomic_load(&client->rings_up)) {
        snprintf(way->transport, sizeof way->transport, "shm");
        snprintf(way->text, sizeof way->text,
                 "shared memory: %u rings of %u, %llu KiB for data",
                 rings->shape.rings, rings->shape.depth,
                 (unsigned long long)rings->shape.arena_octets / 1024);
    } else {
        snprintf(way->transport, sizeof way->transport, "%s",
                 link_peer(client->link)->transport);
        snprintf(way->text, sizeof way->text, "%s", client->way);
    }
    pthread_mutex_unlock(&client->mutex);
}
