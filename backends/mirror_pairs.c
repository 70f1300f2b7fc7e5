/* SPDX-License-Identifier: ISC */
/*
 * Which devices are part of a mirror of this process.
 *
 * A device is part of one mirror at a time: two that copied onto the same, or
 * out of what another one writes, would undo each other.  Who opens the same
 * pair again by a URI shares the mirror.  Local devices are known by what they
 * are, remote ones, which are another connection each time, by their URIs.
 *
 * A mirror whose handles are all disconnected is none any more, though it is
 * still there: a new one on the same devices begins when nothing of it is
 * under way.
 *
 * One list under one mutex, which is taken over forks; what a parent left in it
 * is passed over.
 */
#include "backends/mirror.h"

#include <stdlib.h>
#include <string.h>

struct mirror_pair {
    struct mirror_pair *next;
    unsigned generation; /* of forks */
    unsigned refs; /* by mirrors that are not freed */
    unsigned live; /* of those: that run or may begin to */
    bool running;
    uint64_t id;
    const struct device *device[2];
    char *uri[2]; /* NULL: not opened by one */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER; /* one runs no more */
static struct mirror_pair *pairs;
static uint64_t ids;

static void
pairs_lock(void)
{
    pthread_mutex_lock(&mutex);
}

static void
pairs_unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

static void
pairs_watch_forks(void)
{
    pthread_atfork(pairs_lock, pairs_unlock, pairs_unlock);
}

static void
pairs_begin(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    fork_generation(); /* its own watch, before the lock is taken */
    pthread_once(&once, pairs_watch_forks);
    pairs_lock();
}

/* Whether that side of the pair is this device. */
static bool
pair_has(const struct mirror_pair *pair, unsigned side,
         const struct device *device, const char *uri)
{
    return pair->device[side] == device
           || (uri != NULL && pair->uri[side] != NULL
               && strcmp(pair->uri[side], uri) == 0);
}

static void
pair_free(struct mirror_pair *pair)
{
    free(pair->uri[PRIMARY]);
    free(pair->uri[SECONDARY]);
    free(pair);
}

/* Under the lock. */
static int
pair_create(struct mirror *mirror, const char *const uri[2],
            struct error *error)
{
    struct mirror_pair *pair = calloc(1, sizeof *pair);
    bool fine = pair != NULL;
    for (unsigned side = PRIMARY; fine && side <= SECONDARY; side++) {
        pair->device[side] = mirror->child[side]->device;
        pair->uri[side] = uri[side] != NULL ? strdup(uri[side]) : NULL;
        fine = uri[side] == NULL || pair->uri[side] != NULL;
    }
    if (!fine) {
        if (pair != NULL)
            pair_free(pair);
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a mirror");
    }
    pair->generation = fork_generation();
    pair->refs = pair->live = 1;
    pair->id = ++ids;
    pair->next = pairs;
    pairs = pair;
    mirror->pair = pair;
    return 0;
}

/* Under the lock. */
static int
pair_find(struct mirror *mirror, const char *const uri[2], bool shared,
          struct error *error)
{
    static const char *const names[] = {"primary", "secondary"};
    for (struct mirror_pair *pair = pairs; pair != NULL; pair = pair->next) {
        bool has[2][2]; /* [ours][theirs] */
        if (pair->generation != fork_generation() || pair->live == 0)
            continue;
        for (unsigned i = 0; i < 4; i++)
            has[i / 2][i % 2] =
                pair_has(pair, i % 2, mirror->child[i / 2]->device, uri[i / 2]);
        if (shared && has[PRIMARY][PRIMARY] && has[SECONDARY][SECONDARY]) {
            pair->refs++;
            pair->live++;
            mirror->pair = pair;
            return 0;
        }
        for (unsigned i = 0; i < 4; i++)
            if (has[i / 2][i % 2])
                return error_set(
                    error, FARBLK_BUSY,
                    "%s, %.200s, is the %s of another mirror", names[i / 2],
                    mirror->child[i / 2]->device->shape.name, names[i % 2]);
    }
    return pair_create(mirror, uri, error);
}

int
mirror_pair_get(struct mirror *mirror, const char *primary,
                const char *secondary, bool shared, struct error *error)
{
    const char *const uri[2] = {primary, secondary};
    const struct device *device = mirror->child[PRIMARY]->device;
    if (device == mirror->child[SECONDARY]->device
        || (primary != NULL && strcmp(primary, secondary) == 0))
        return error_set(error, FARBLK_INVALID,
                         "primary and secondary are the same device, %.200s",
                         device->shape.name);
    pairs_begin();
    int status = pair_find(mirror, uri, shared, error);
    mirror->live = status == 0;
    pairs_unlock();
    return status;
}

void
mirror_pair_start(struct mirror *mirror)
{
    struct mirror_pair *pair = mirror->pair;
    pairs_begin();
    while (pair->running)
        pthread_cond_wait(&ended, &mutex);
    pair->running = mirror->runs = true;
    for (unsigned side = PRIMARY; side <= SECONDARY; side++)
        pair->device[side] = mirror->child[side]->device;
    pairs_unlock();
}

void
mirror_pair_leave(struct mirror *mirror)
{
    pairs_begin();
    if (mirror->live)
        mirror->pair->live--;
    if (mirror->runs) {
        mirror->pair->running = false;
        pthread_cond_broadcast(&ended);
    }
    mirror->live = mirror->runs = false;
    pairs_unlock();
}

void
mirror_pair_put(struct mirror *mirror)
{
    struct mirror_pair *pair = mirror->pair;
    if (pair == NULL)
        return;
    mirror_pair_leave(mirror);
    pairs_begin();
    if (--pair->refs == 0) {
        struct mirror_pair **link = &pairs;
        while (*link != pair)
            link = &(*link)->next;
        *link = pair->next;
        pair_free(pair);
    }
    pairs_unlock();
    mirror->pair = NULL;
}

uint64_t
mirror_pair_id(const struct mirror *mirror)
{
    return mirror->pair->id;
}
