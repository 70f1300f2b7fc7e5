/* SPDX-License-Identifier: ISC */
/*
 * The names of this process's ramdisks, and farblk_ramdisk_create() and
 * farblk_ramdisk_destroy(), which are all about them.
 *
 * One list under one mutex, asked at opens alone.  The mutex is taken over
 * forks, so that a child finds it free; what the list holds then belongs to
 * the parent and is passed over (see ramdisk.h).
 */
#include "backends/ramdisk.h"

#include "core/checked.h"
#include "core/device.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct ramdisk *named; /* newest first */
static uint64_t serials;

static void
names_lock(void)
{
    pthread_mutex_lock(&mutex);
}

static void
names_unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

static void
names_watch_forks(void)
{
    pthread_atfork(names_lock, names_unlock, names_unlock);
}

/* Under the lock: the place of that name in the list; the last one, which is
 * empty, when nobody has it. */
static struct ramdisk **
names_find(const char *name)
{
    struct ramdisk **place = &named;
    unsigned generation = fork_generation();

    while (*place != NULL
           && ((*place)->generation != generation
               || strcmp((*place)->name, name) != 0))
        place = &(*place)->next;
    return place;
}

static void
names_begin(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    fork_generation(); /* its own watch, before the lock is taken */
    pthread_once(&once, names_watch_forks);
    names_lock();
}

static int
check_name(const char *name, struct error *error)
{
    if (name == NULL)
        return error_set(error, FARBLK_INVALID, "ramdisk without a name");
    if (!uri_name_valid(name))
        return error_set(error, FARBLK_INVALID,
                         "ramdisk name '%.64s': a name is 1 to 255 of A-Z a-z "
                         "0-9 . _ -",
                         name);
    return 0;
}

static int
check_shape(const char *name, uint64_t size, uint64_t sector_size,
            struct error *error)
{
    if (!is_power_of_two(sector_size) || sector_size < FARBLK_SECTOR_MIN
        || sector_size > FARBLK_SECTOR_MAX)
        return error_set(error, FARBLK_INVALID,
                         "ramdisk '%.64s': sector size %" PRIu64
                         " is not a power of two from %u to %u",
                         name, sector_size, FARBLK_SECTOR_MIN,
                         FARBLK_SECTOR_MAX);
    if (size % sector_size != 0)
        return error_set(error, FARBLK_INVALID,
                         "ramdisk '%.64s': size %" PRIu64
                         " is not whole sectors of %" PRIu64 " octets",
                         name, size, sector_size);
    if (size > INT64_MAX)
        return error_set(error, FARBLK_INVALID,
                         "ramdisk '%.64s': size %" PRIu64
                         " is above the limit of %" PRId64 " octets",
                         name, size, INT64_MAX);
    return 0;
}

/* A checked shape; one reference. */
static struct ramdisk *
disk_new(const char *name, uint64_t size, uint32_t sector_size)
{
    struct ramdisk *disk =
        aligned_alloc(_Alignof(struct ramdisk), sizeof(*disk));

    if (disk == NULL)
        return NULL;
    disk->next = NULL;
    disk->generation = fork_generation();
    atomic_init(&disk->refs, 1);
    strcpy(disk->name, name);
    if (!ramtree_init(&disk->tree, size, sector_size)) {
        free(disk);
        return NULL;
    }
    return disk;
}

static struct ramdisk *
disk_get(struct ramdisk *disk)
{
    atomic_fetch_add_explicit(&disk->refs, 1, memory_order_relaxed);
    return disk;
}

void
ramdisk_put(struct ramdisk *disk)
{
    if (disk != NULL
        && atomic_fetch_sub_explicit(&disk->refs, 1, memory_order_acq_rel)
               == 1) {
        ramtree_fini(&disk->tree);
        free(disk);
    }
}

/* Under the lock: give it its name and its serial number. */
static void
names_add(struct ramdisk *disk)
{
    disk->serial = ++serials;
    disk->next = named;
    named = disk;
}

/* Under the lock: take the name from whoever has it. */
static struct ramdisk *
names_remove(const char *name)
{
    struct ramdisk **place = names_find(name);
    struct ramdisk *disk = *place;

    if (disk != NULL)
        *place = disk->next;
    return disk;
}

/* Whether an existing one is what is wished for. */
static int
check_wish(const struct ramdisk *disk, const struct ramdisk_wish *wish,
           struct error *error)
{
    uint32_t sector_size = ramtree_sector_size(&disk->tree);
    uint64_t size = ramtree_size(&disk->tree);

    if (wish->sector_size != 0 && wish->sector_size != sector_size)
        return error_set(error, FARBLK_CONFLICT,
                         "ramdisk '%.64s' exists with sectors of %" PRIu32
                         " octets, not the %" PRIu64 " asked for",
                         disk->name, sector_size, wish->sector_size);
    if (wish->has_size && wish->size != size)
        return error_set(error, FARBLK_CONFLICT,
                         "ramdisk '%.64s' exists with %" PRIu64
                         " octets, not the %" PRIu64 " asked for",
                         disk->name, size, wish->size);
    return 0;
}

int
ramdisk_connect(const char *name, const struct ramdisk_wish *wish,
                struct ramdisk **disk, struct error *error)
{
    uint64_t sector_size =
        wish->sector_size != 0 ? wish->sector_size : FARBLK_RAMDISK_SECTOR_SIZE;
    uint64_t size = wish->has_size ? wish->size
                                   : (uint64_t)FARBLK_RAMDISK_SECTORS
                                         * FARBLK_RAMDISK_SECTOR_SIZE;
    int status;

    *disk = NULL;
    status = check_name(name, error);
    if (status != 0)
        return status;

    names_begin();
    struct ramdisk *found = *names_find(name);
    if (found != NULL) {
        status = check_wish(found, wish, error);
        if (status == 0)
            *disk = disk_get(found);
    } else {
        status = check_shape(name, size, sector_size, error);
        if (status == 0) {
            struct ramdisk *fresh = disk_new(name, size, (uint32_t)sector_size);
            if (fresh != NULL) {
                names_add(fresh);
                *disk = disk_get(fresh);
            } else {
                status = error_set(error, FARBLK_NO_MEMORY,
                                   "no memory for ramdisk '%.64s'", name);
            }
        }
    }
    names_unlock();
    return status;
}

int
farblk_ramdisk_create(const char *name, uint64_t size_sectors,
                      uint32_t sector_size)
{
    struct error error;
    uint64_t size;

    last_error_clear();
    error_clear(&error);
    if (check_name(name, &error) != 0)
        return last_error_set(&error);
    if (!checked_mul(size_sectors, sector_size, &size))
        return last_error_fail(
            FARBLK_INVALID,
            "ramdisk '%.64s': %" PRIu64 " sectors of %" PRIu32
            " octets are above the limit of %" PRId64 " octets",
            name, size_sectors, sector_size, INT64_MAX);
    if (check_shape(name, size, sector_size, &error) != 0)
        return last_error_set(&error);

    struct ramdisk *fresh = disk_new(name, size, sector_size);
    if (fresh == NULL)
        return last_error_fail(FARBLK_NO_MEMORY,
                               "no memory for ramdisk '%.64s'", name);
    names_begin();
    struct ramdisk *old = names_remove(name);
    names_add(fresh);
    names_unlock();
    ramdisk_put(old);
    return 0;
}

int
farblk_ramdisk_destroy(const char *name)
{
    struct error error;

    last_error_clear();
    error_clear(&error);
    if (check_name(name, &error) != 0)
        return last_error_set(&error);
    names_begin();
    struct ramdisk *old = names_remove(name);
    names_unlock();
    ramdisk_put(old);
    return 0;
}
