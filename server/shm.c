/* SPDX-License-Identifier: ISC */
/*
 * Shares: a session's region of memory, from its offer to its end.
 */
#include "server/shm.h"

#include "core/block.h"
#include "core/log.h"
#include "core/timer.h"
#include "server/call.h"
#include "server/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

/* How long a token may wait to be shown. */
#define SHM_OFFER_MS 10000

int
shm_create(struct farblk_server *server, struct error *error)
{
    struct shm *shm = calloc(1, sizeof *shm);
    if (shm == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory");
    shm->server = server;
    shm->door_epoll = shm->door_wake = -1;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    shm->hand_limit =
        cpus < 4 ? 1 : (unsigned)min_u64((uint64_t)cpus / 2, SHM_HANDS);
    pthread_mutex_init(&shm->mutex, NULL);
    server->shm = shm;
    return 0;
}

void
shm_destroy(struct shm *shm)
{
    if (shm == NULL)
        return;
    door_stop(shm);
    shm_stop_hands(shm);
    pthread_mutex_destroy(&shm->mutex);
    free(shm);
}

void
shm_listen(struct farblk_server *server, const char *url)
{
    struct shm *shm = server->shm;
    const struct side_owner owner = {
        .mode = server->limits.ipc_mode,
        .uid = server->limits.ipc_uid,
        .gid = server->limits.ipc_gid,
    };
    struct error error;
    if (shm == NULL || !side_possible(url))
        return;
    struct shm_side *side = calloc(1, sizeof *side);
    char *copy = strdup(url);
    int fd = side != NULL && copy != NULL
                 ? side_listen(url, &owner, &error)
                 : error_set(&error, FARBLK_NO_MEMORY, "no memory");
    if (fd < 0) {
        log_warning("%s: memory will not be shared: %s", url, error.text);
        free(side);
        free(copy);
        return;
    }
    side->fd = fd;
    side->url = copy;
    pthread_mutex_lock(&shm->mutex);
    side->next = shm->sides;
    shm->sides = side;
    bool runs = shm->door_runs || door_start(shm);
    pthread_mutex_unlock(&shm->mutex);
    if (!runs)
        log_warning("%s: memory will not be shared: no thread for it", url);
    else
        eventfd_write(shm->door_wake, 1); /* it looks for new ones */
}

void
shm_stop_listening(struct farblk_server *server)
{
    if (server->shm != NULL)
        door_stop(server->shm);
}

void
shm_stats(struct farblk_server *server, struct farblk_server_stats *stats)
{
    struct shm *shm = server->shm;
    stats->shm_sessions = stats->shm_rings = stats->shm_octets = 0;
    if (shm == NULL)
        return;
    pthread_mutex_lock(&shm->mutex);
    stats->shm_sessions = shm->share_count;
    stats->shm_rings = shm->ring_count;
    stats->shm_octets = shm->octets;
    pthread_mutex_unlock(&shm->mutex);
}

/* ------------------------------------------------------------ lives */

struct share *
share_get(struct share *share)
{
    atomic_fetch_add_explicit(&share->refs, 1, memory_order_relaxed);
    return share;
}

void
share_put(struct share *share)
{
    struct shm *shm = share->shm;
    if (atomic_fetch_sub_explicit(&share->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (share->region != NULL) {
        munmap(share->region, share->octets);
        block_uncharge(share->octets);
        pthread_mutex_lock(&shm->mutex);
        shm->octets -= share->octets;
        shm->share_count--;
        pthread_mutex_unlock(&shm->mutex);
    }
    session_put(share->session);
    free(share);
}

/* Under the mutex: out of the list; the list's reference is the caller's. */
static bool
share_unlink(struct share *share)
{
    if (share->state == SHARE_DETACHED)
        return false;
    share->state = SHARE_DETACHED;
    *share->prev = share->next;
    if (share->next != NULL)
        share->next->prev = share->prev;
    if (share->session->share == share)
        share->session->share = NULL;
    for (uint32_t i = 0; i < RING_COUNT_MAX; i++)
        if (share->rings[i] != NULL)
            shm_ring_end(share->rings[i]);
    return true;
}

void
share_detach(struct share *share)
{
    struct shm *shm = share->shm;
    pthread_mutex_lock(&shm->mutex);
    bool first = share_unlink(share);
    pthread_mutex_unlock(&shm->mutex);
    if (first)
        share_put(share);
}

void
shm_detach_session(struct session *session)
{
    struct shm *shm = session->server->shm;
    if (shm == NULL)
        return;
    pthread_mutex_lock(&shm->mutex);
    struct share *share = session->share;
    if (share != NULL)
        share_unlink(share);
    pthread_mutex_unlock(&shm->mutex);
    if (share != NULL)
        share_put(share);
}

void
shm_detach_connection(const struct connection *connection)
{
    struct shm *shm = connection->server->shm;
    if (shm == NULL)
        return;
    for (;;) {
        pthread_mutex_lock(&shm->mutex);
        struct share *share = shm->shares;
        while (share != NULL && share->connection != connection)
            share = share->next;
        if (share != NULL)
            share_unlink(share);
        pthread_mutex_unlock(&shm->mutex);
        if (share == NULL)
            return;
        share_put(share);
    }
}

/* ------------------------------------------------------------ offers */

/* Why this call can not have shared memory, or NULL. */
static const char *
shm_refusal(const struct call *call)
{
    const struct shm *shm = call->server->shm;
    if (shm == NULL)
        return "this server shares no memory (--no-shm)";
    if (!call->connection->has_uid)
        return "only with clients of this host, over a unix socket";
    if (shm->sides == NULL)
        return "this server has no side socket";
    return NULL;
}

void
shm_offer(struct call *call)
{
    struct shm *shm = call->server->shm;
    struct session *session = call->session;
    const char *refusal = shm_refusal(call);
    if (refusal != NULL) {
        call_fail(call, FARBLK_UNIMPLEMENTED, "ShareMemory: %s", refusal);
        return;
    }
    struct share *share = calloc(1, sizeof *share);
    if (share == NULL || getrandom(share->token, SIDE_TOKEN, 0) != SIDE_TOKEN
        || getrandom(share->key, SIDE_TOKEN, 0) != SIDE_TOKEN) {
        free(share);
        call_fail(call, FARBLK_NO_MEMORY,
                  "ShareMemory: no memory or no random numbers");
        return;
    }
    share->shm = shm;
    share->session = session_get(session);
    share->connection = call->connection;
    share->offered_ms = timer_now();
    atomic_init(&share->refs, 1);
    memcpy(call->token, share->token, SIDE_TOKEN);
    pthread_mutex_lock(&shm->mutex);
    struct share *before = session->share;
    if (before != NULL)
        share_unlink(before); /* one for each session */
    share->next = shm->shares;
    share->prev = &shm->shares;
    if (share->next != NULL)
        share->next->prev = &share->next;
    shm->shares = share;
    session->share = share;
    pthread_mutex_unlock(&shm->mutex);
    if (before != NULL)
        share_put(before);
    /* Fenced meanwhile: whoever did has seen no share, perhaps. */
    if (!session_live(session))
        shm_detach_session(session);
}

static bool
share_secret_is(const uint8_t *a, const uint8_t *b)
{
    unsigned difference = 0;
    for (size_t i = 0; i < SIDE_TOKEN; i++)
        difference |= (unsigned)(a[i] ^ b[i]);
    return difference == 0;
}

static struct share *
share_look_up(struct shm *shm, const uint8_t *secret, uint32_t uid,
              enum share_state state)
{
    struct share *found = NULL;
    pthread_mutex_lock(&shm->mutex);
    for (struct share *s = shm->shares; s != NULL; s = s->next)
        if (s->state == state && s->session->has_uid && s->session->uid == uid
            && share_secret_is(state == SHARE_OFFERED ? s->token : s->key,
                               secret)
            && (state != SHARE_OFFERED
                || timer_now() - s->offered_ms < SHM_OFFER_MS))
            found = share_get(s);
    if (found != NULL)
        found->state = SHARE_ATTACHED;
    pthread_mutex_unlock(&shm->mutex);
    return found;
}

struct share *
share_claim(struct shm *shm, const uint8_t *token, uint32_t uid)
{
    return share_look_up(shm, token, uid, SHARE_OFFERED);
}

struct share *
share_find(struct shm *shm, const uint8_t *key, uint32_t uid)
{
    return share_look_up(shm, key, uid, SHARE_ATTACHED);
}

/* ------------------------------------------------------------ the region */

/* A wish, within bounds; 0: the most. */
static uint64_t
share_within(uint64_t wish, uint64_t least, uint64_t most)
{
    return wish == 0 ? most : max_u64(least, min_u64(wish, most));
}

static void
share_set_shape(struct share *share, const struct side_hello *hello)
{
    const struct server_limits *limits = &share->shm->server->limits;
    struct ring_shape *shape = &share->shape;
    uint32_t depth = RING_DEPTH_MIN;
    uint64_t wish =
        share_within(hello->depth, RING_DEPTH_MIN, limits->shm_depth);
    while (2 * (uint64_t)depth <= wish)
        depth *= 2;
    shape->depth = depth;
    shape->rings = (uint32_t)share_within(hello->rings, 1, limits->shm_rings);
    shape->ring_octets = ring_octets(depth);
    shape->arena_at = shape->rings * shape->ring_octets;
    shape->arena_octets = round_up(
        share_within(hello->arena_octets, RING_PAGE, limits->shm_arena),
        RING_PAGE);
}

/* Count the memory, of this server and against the process's limit. */
static bool
share_reserve(struct share *share, uint64_t octets, struct error *error)
{
    struct shm *shm = share->shm;
    const struct server_limits *limits = &shm->server->limits;
    pthread_mutex_lock(&shm->mutex);
    bool within = range_within(shm->octets, octets, limits->shm_total);
    uint64_t used = shm->octets;
    if (within) {
        shm->octets += octets;
        shm->share_count++;
    }
    pthread_mutex_unlock(&shm->mutex);
    if (within && block_charge(octets)) {
        share->octets = octets;
        return true;
    }
    if (within) {
        pthread_mutex_lock(&shm->mutex);
        shm->octets -= octets;
        shm->share_count--;
        pthread_mutex_unlock(&shm->mutex);
        error_set(error, FARBLK_NO_SPACE,
                  "no room for %llu octets of shared memory; %llu of the "
                  "limit of %llu are in use",
                  (unsigned long long)octets,
                  (unsigned long long)block_counted(),
                  (unsigned long long)block_limit());
    } else {
        error_set(error, FARBLK_NO_SPACE,
                  "no room for %llu octets of shared memory; %llu are shared "
                  "of at most %llu",
                  (unsigned long long)octets, (unsigned long long)used,
                  (unsigned long long)limits->shm_total);
    }
    return false;
}

/* Memory that nobody can take away again: there, and sealed. */
static int
share_allocate(uint64_t octets, struct error *error)
{
    int fd = memfd_create("farblk", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return error_set_errno(error, errno, "a region of shared memory");
    int errnum = ftruncate(fd, (off_t)octets) != 0 ? errno : 0;
    if (errnum == 0)
        errnum = posix_fallocate(fd, 0, (off_t)octets);
    if (errnum == 0
        && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
               != 0)
        errnum = errno;
    if (errnum == 0)
        return fd;
    close(fd);
    return error_set_errno(error, errnum, "%llu octets of shared memory",
                           (unsigned long long)octets);
}

int
share_make_region(struct share *share, const struct side_hello *hello,
                  struct error *error)
{
    share_set_shape(share, hello);
    uint64_t octets = ring_region_octets(&share->shape);
    if (!share_reserve(share, octets, error))
        return error->status;
    int fd = share_allocate(octets, error);
    if (fd >= 0) {
        void *region =
            mmap(NULL, octets, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (region != MAP_FAILED) {
            share->region = region;
            madvise(region, octets, MADV_DONTFORK);
            return fd;
        }
        error_set_errno(error, errno, "%llu octets of shared memory",
                        (unsigned long long)octets);
        close(fd);
    }
    block_uncharge(octets);
    pthread_mutex_lock(&share->shm->mutex);
    share->shm->octets -= octets;
    share->shm->share_count--;
    pthread_mutex_unlock(&share->shm->mutex);
    return error->status;
}
