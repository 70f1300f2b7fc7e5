/* SPDX-License-Identifier: ISC */
/*
 * From two URIs, or two handles, to a mirror, and what has to hold of both.
 *
 * Files that a mirror opens by itself are locked unless their URIs say
 * otherwise: what another process writes, the mirror would not see.
 */
#include "backends/mirror.h"

#include "core/checked.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------ checks */

static uint64_t
check_features(const struct farblk_info *primary,
               const struct farblk_info *secondary)
{
    const uint64_t discards = FARBLK_CAN_DISCARD | FARBLK_DISCARD_ZEROES;
    uint64_t both = primary->features & secondary->features;
    bool zeroes = true; /* each can make zeros of what is discarded */
    const struct farblk_info *info[] = {primary, secondary};
    for (unsigned side = PRIMARY; side <= SECONDARY; side++)
        zeroes = zeroes
                 && ((info[side]->features & discards) == discards
                     || (info[side]->features & FARBLK_CAN_WRITE_ZEROES) != 0);
    uint64_t features = FARBLK_CAN_FUA | FARBLK_CAN_WATCH | FARBLK_SECTOR_ATOMIC
                        | (both & (FARBLK_CAN_RESIZE | FARBLK_CAN_WRITE_ZEROES))
                        | (primary->features & FARBLK_CAN_SEEK);
    if ((primary->features & FARBLK_CAN_DISCARD) != 0 && zeroes)
        features |= discards;
    return features;
}

int
mirror_check(const struct farblk_info *primary,
             const struct farblk_info *secondary, struct shape *shape,
             struct error *error)
{
    uint32_t p = primary->sector_size, s = secondary->sector_size;
    if (p % s != 0 && s % p != 0)
        return error_set(error, FARBLK_INVALID,
                         "primary has sectors of %u octets and secondary of "
                         "%u: one must be a multiple of the other",
                         p, s);
    uint64_t size = primary->size_sectors * p;
    if (size != secondary->size_sectors * s)
        return error_set(error, FARBLK_INVALID,
                         "primary has %llu octets and secondary %llu: both "
                         "must have as many",
                         (unsigned long long)size,
                         (unsigned long long)secondary->size_sectors * s);
    if (!secondary->read_write)
        return error_set(error, FARBLK_IS_READ_ONLY,
                         "secondary, %.200s, is read-only", secondary->name);
    uint32_t sector = p > s ? p : s;
    uint64_t most = min_u64(primary->max_transfer, secondary->max_transfer);
    uint64_t good =
        max_u64(primary->preferred_transfer, secondary->preferred_transfer);
    memset(shape, 0, sizeof *shape);
    shape->sector_size = sector;
    shape->size = size;
    shape->features = check_features(primary, secondary);
    shape->max_transfer = (uint32_t)max_u64(round_down(most, sector), sector);
    shape->preferred_transfer = (uint32_t)round_down(good, sector);
    shape->max_range = MIRROR_RANGE_MAX;
    shape->read_only = !primary->read_write;
    snprintf(shape->transport, sizeof shape->transport, "local");
    snprintf(shape->name, sizeof shape->name, "%s", primary->name);
    return 0;
}

/* ------------------------------------------------------------ making */

static void
mirror_init(struct mirror *mirror)
{
    pthread_condattr_t attributes;
    pthread_mutex_init(&mirror->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&mirror->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    ranges_init(&mirror->ranges);
}

void
mirror_free(struct mirror *mirror)
{
    for (unsigned i = 0; i < MIRROR_SLOTS; i++)
        block_put(mirror->slot[i].block);
    farblk_close(mirror->child[PRIMARY]);
    farblk_close(mirror->child[SECONDARY]);
    /* Only now may another one have the devices. */
    mirror_pair_put(mirror);
    ranges_fini(&mirror->ranges);
    pthread_cond_destroy(&mirror->wake);
    pthread_mutex_destroy(&mirror->mutex);
    free(mirror);
}

static int
open_ask(struct mirror *mirror, struct error *error)
{
    struct farblk_info info[2];
    for (unsigned side = PRIMARY; side <= SECONDARY; side++) {
        int status =
            farblk_get_info(mirror->child[side], &info[side], sizeof info[0]);
        if (status != 0)
            return error_set(error, status, "%s: %.400s",
                             side == PRIMARY ? "primary" : "secondary",
                             farblk_last_text());
        mirror->child_sector[side] = info[side].sector_size;
        mirror->child_features[side] = info[side].features;
    }
    int status =
        mirror_check(&info[PRIMARY], &info[SECONDARY], &mirror->shape, error);
    if (status != 0)
        return status;
    mirror->size = mirror->shape.size;
    mirror->read_locks =
        info[PRIMARY].sector_size != mirror->shape.sector_size
        || (info[PRIMARY].features & FARBLK_SECTOR_ATOMIC) == 0;
    return 0;
}

int
mirror_create(struct farblk *primary, struct farblk *secondary,
              struct mirror **created, struct error *error)
{
    struct mirror *mirror = calloc(1, sizeof *mirror);
    if (mirror == NULL) {
        farblk_close(primary);
        farblk_close(secondary);
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a mirror");
    }
    mirror_init(mirror);
    mirror->child[PRIMARY] = primary;
    mirror->child[SECONDARY] = secondary;
    int status = open_ask(mirror, error);
    if (status != 0) {
        mirror_free(mirror);
        return status;
    }
    *created = mirror;
    return 0;
}

/* ------------------------------------------------------------ by URI */

static int
open_child(const struct uri *uri, const char *name, struct farblk **child,
           struct error *error)
{
    const char *text = uri_string(uri, name, NULL);
    if (text == NULL)
        return error_set(error, FARBLK_INVALID,
                         "%s= is missing: mirror:?primary=URI&secondary=URI",
                         name);
    char *locked = uri_locked(text);
    if (locked == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a URI");
    int status = farblk_open(locked, NULL, child);
    free(locked);
    if (status != 0)
        return error_set(error, status, "%s: %.400s", name, farblk_last_text());
    return 0;
}

int
mirror_open_uri(const struct uri *uri, struct mirror **created,
                struct error *error)
{
    struct farblk *child[2] = {NULL, NULL};
    struct mirror *mirror = NULL;
    if (uri->has_authority || uri->path[0] != '\0')
        return error_set(error, FARBLK_INVALID,
                         "a mirror has no host and no path: "
                         "mirror:?primary=URI&secondary=URI");
    int status = open_child(uri, "primary", &child[PRIMARY], error);
    if (status == 0)
        status = open_child(uri, "secondary", &child[SECONDARY], error);
    if (status != 0) {
        farblk_close(child[PRIMARY]);
        return status;
    }
    status = mirror_create(child[PRIMARY], child[SECONDARY], &mirror, error);
    if (status != 0)
        return status;
    mirror->has_degrade = uri_get(uri, "degrade") != NULL;
    mirror->has_rate = uri_get(uri, "rate") != NULL;
    atomic_init(&mirror->degrade, uri_bool(uri, "degrade", false));
    mirror->rate = uri_number(uri, "rate", 0);
    status = mirror_pair_get(mirror, uri_string(uri, "primary", NULL),
                             uri_string(uri, "secondary", NULL), true, error);
    if (status != 0) {
        mirror_free(mirror);
        return status;
    }
    *created = mirror;
    return 0;
}

/* ------------------------------------------------------------ by handles */

static int
open_twin(struct farblk *dev, const char *name, struct farblk **twin,
          struct error *error)
{
    *twin = NULL;
    if (dev == NULL || !handle_open(dev) || handle_forked(dev))
        return error_set(error, FARBLK_INVALID,
                         "%s is not an open handle of this process", name);
    if (handle_disconnected(dev))
        return error_set(error, FARBLK_DISCONNECTED,
                         "%s, %.200s, is disconnected", name,
                         dev->device->shape.name);
    *twin = handle_dup(dev, false);
    if (*twin == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a handle");
    return 0;
}

static int
open_handles(struct farblk *primary, struct farblk *secondary,
             struct mirror **created, struct error *error)
{
    struct farblk *twin[2] = {NULL, NULL};
    int status = open_twin(primary, "primary", &twin[PRIMARY], error);
    if (status == 0)
        status = open_twin(secondary, "secondary", &twin[SECONDARY], error);
    if (status != 0) {
        farblk_close(twin[PRIMARY]);
        return status;
    }
    status = mirror_create(twin[PRIMARY], twin[SECONDARY], created, error);
    if (status != 0)
        return status;
    status = mirror_pair_get(*created, NULL, NULL, false, error);
    if (status != 0)
        mirror_free(*created);
    return status;
}

int
farblk_mirror_open(struct farblk *primary, struct farblk *secondary,
                   void (*progress)(void *arg,
                                    const struct farblk_mirror_status *status),
                   void *arg, struct farblk **dev)
{
    struct mirror *mirror = NULL;
    struct candidate found = {NULL, ""};
    struct error error;
    error_clear(&error);
    last_error_clear();
    if (dev == NULL)
        return last_error_fail(FARBLK_INVALID,
                               "mirror_open: nowhere to put the handle");
    *dev = NULL;
    int status = open_handles(primary, secondary, &mirror, &error);
    if (status == 0) {
        mirror->progress = progress;
        mirror->progress_arg = arg;
        found.state = mirror;
        snprintf(found.key, sizeof found.key, "mirror:%llu",
                 (unsigned long long)mirror_pair_id(mirror));
        status = device_open_found(&driver_mirror, &found, dev, &error);
    }
    last_error_clear(); /* of what was called on the way */
    if (status == 0)
        return 0;
    return last_error_fail(error.status, "mirror_open: %.*s",
                           FARBLK_TEXT_MAX - 16, error.text);
}
