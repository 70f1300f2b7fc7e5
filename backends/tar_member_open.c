/* SPDX-License-Identifier: ISC */
/*
 * From a URI to a member of an archive.  The archive's headers are read once,
 * here; of them all only the member's own layout is kept.
 */
#include "backends/tar_member.h"

#include "core/checked.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUNS_AT_ONCE 256u
/* Octets of one request: what it wants copied needs as much memory. */
#define TRANSFER_MAX (4u << 20)

void
tar_member_free(struct tar_member *member)
{
    if (member->child != NULL)
        farblk_close(member->child);
    free(member->runs);
    free(member);
}

/* One more batch of runs from `offset` on; *found: how many. */
static int
ask_runs(struct tar_member *member, struct farblk_tar *tar, const char *key,
         uint64_t offset, size_t *found, struct error *error)
{
    size_t room = member->run_count + RUNS_AT_ONCE;
    struct farblk_tar_extent *runs = realloc(member->runs, room * sizeof *runs);
    if (runs == NULL)
        return error_set(error, FARBLK_NO_MEMORY,
                         "no memory for the layout of a member");
    member->runs = runs;
    int count =
        farblk_tar_extents(tar, key, offset, member->shape.size - offset,
                           runs + member->run_count, RUNS_AT_ONCE);
    if (count < 0)
        return error_set(error, count, "archive: %.400s", farblk_last_text());
    *found = (size_t)count;
    return 0;
}

/* Where the value lies, and that it is as tar_member.h says. */
static int
find_runs(struct tar_member *member, struct farblk_tar *tar, const char *key,
          struct error *error)
{
    uint64_t offset = 0, stored = 0;
    size_t found;
    while (offset < member->shape.size) {
        int status = ask_runs(member, tar, key, offset, &found, error);
        if (status != 0)
            return status;
        for (; found > 0; found--) {
            const struct farblk_tar_extent *run =
                &member->runs[member->run_count++];
            if (!run->hole && stored != 0 && run->device_offset != stored)
                return error_set(
                    error, FARBLK_CORRUPT,
                    "archive: the data of \"%.200s\" jumps from octet %llu of "
                    "the device to %llu",
                    key, (unsigned long long)stored,
                    (unsigned long long)run->device_offset);
            if (!run->hole)
                stored = run->device_offset + run->length;
            offset = run->offset + run->length;
        }
    }
    return 0;
}

static int
read_layout(struct tar_member *member, struct farblk_tar *tar, const char *key,
            struct error *error)
{
    struct farblk_tar_stat stat;
    uint32_t sector = member->shape.sector_size;
    int status = farblk_tar_stat(tar, key, &stat, sizeof stat);
    if (status != 0)
        return error_set(error, status, "archive: %.400s", farblk_last_text());
    if (stat.kind != FARBLK_TAR_VALUE)
        return error_set(error, FARBLK_NOT_A_VALUE,
                         "archive: \"%.200s\" is not a file", key);
    if (stat.size > INT64_MAX || stat.size % sector != 0)
        return error_set(error, FARBLK_INVALID,
                         "the member \"%.200s\" has %llu octets, which is not "
                         "a whole number of sectors of %u",
                         key, (unsigned long long)stat.size, sector);
    member->shape.size = stat.size;
    return find_runs(member, tar, key, error);
}

static int
open_child(struct tar_member *member, const char *uri, struct error *error)
{
    const struct farblk_options options = {.size = sizeof options,
                                           .read_only = true};
    struct farblk_info info;
    int status = farblk_open(uri, &options, &member->child);
    if (status != 0)
        return error_set(error, status, "device: %.400s", farblk_last_text());
    status = farblk_get_info(member->child, &info, sizeof info);
    if (status != 0)
        return error_set(error, status, "device: %.400s", farblk_last_text());
    uint32_t sector = member->shape.sector_size;
    member->child_sector = info.sector_size;
    member->shape.max_transfer = (uint32_t)max_u64(
        sector, min_u64(round_down(info.max_transfer, sector), TRANSFER_MAX));
    member->shape.preferred_transfer =
        (uint32_t)round_down(info.preferred_transfer, sector);
    return 0;
}

static int
open_member(struct tar_member *member, const char *device, const char *key,
            struct error *error)
{
    const struct farblk_tar_options options = {.size = sizeof options,
                                               .read_only = true};
    struct farblk_tar *tar;
    int status = open_child(member, device, error);
    if (status != 0)
        return status;
    status = farblk_tar_open(member->child, &options, &tar);
    if (status != 0)
        return error_set(error, status, "archive: %.400s", farblk_last_text());
    status = read_layout(member, tar, key, error);
    farblk_tar_close(tar);
    return status;
}

int
tar_member_create(const struct uri *uri, struct tar_member **created,
                  struct error *error)
{
    const char *device = uri_string(uri, "device", NULL);
    const char *key = uri_string(uri, "member", NULL);
    uint64_t sector = uri_number(uri, "sector", FARBLK_SECTOR_MIN);
    if (uri->has_authority || uri->path[0] != '\0' || device == NULL
        || key == NULL)
        return error_set(error, FARBLK_INVALID,
                         "wants a device and a member, and no host or path: "
                         "tar-member:?device=URI&member=KEY");
    if (!is_power_of_two(sector))
        return error_set(error, FARBLK_INVALID,
                         "sector=%llu is not a power of two",
                         (unsigned long long)sector);
    struct tar_member *member = calloc(1, sizeof *member);
    if (member == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a device");
    struct shape *shape = &member->shape;
    shape->sector_size = (uint32_t)sector;
    shape->features = FARBLK_CAN_SEEK | FARBLK_CAN_WATCH | FARBLK_SECTOR_ATOMIC;
    shape->read_only = true;
    snprintf(shape->transport, sizeof shape->transport, "local");
    snprintf(shape->name, sizeof shape->name, "%s", key);
    int status = open_member(member, device, key, error);
    if (status != 0) {
        tar_member_free(member);
        return status;
    }
    *created = member;
    return 0;
}
