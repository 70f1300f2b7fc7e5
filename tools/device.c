/* SPDX-License-Identifier: ISC */
/* Opening a device as each subcommand does, and what is derived from its
 * info. */
#include "tools/tool.h"

#include <string.h>

#define DEVICE_REQUEST_DEFAULT (256u << 10)
#define DEVICE_REQUEST_MAX (4u << 20)

int
tool_open(struct tool_device *device, const char *uri, bool read_only)
{
    struct farblk_options options = {.size = sizeof options,
                                     .read_only = read_only};
    int status;

    memset(device, 0, sizeof *device);
    device->uri = uri;
    status = farblk_open(uri, &options, &device->dev);
    if (status < 0) {
        device->dev = NULL;
        return tool_fail_last(status, NULL);
    }
    status = farblk_get_info(device->dev, &device->info, sizeof device->info);
    if (status < 0) {
        tool_fail_last(status, uri);
        tool_close(device);
        return TOOL_FAILED;
    }
    if (device->info.sector_size < FARBLK_SECTOR_MIN
        || device->info.sector_size > FARBLK_SECTOR_MAX
        || (device->info.sector_size & (device->info.sector_size - 1)) != 0
        || __builtin_mul_overflow(device->info.size_sectors,
                                  device->info.sector_size, &device->size)
        || device->size > INT64_MAX) {
        tool_fail(FARBLK_PROTOCOL,
                  "%s: impossible shape: %llu sectors of %u octets", uri,
                  (unsigned long long)device->info.size_sectors,
                  device->info.sector_size);
        tool_close(device);
        return TOOL_FAILED;
    }
    return TOOL_FINE;
}

void
tool_close(struct tool_device *device)
{
    if (device->dev != NULL)
        farblk_close(device->dev);
    device->dev = NULL;
}

int
tool_check_range(const struct tool_device *device, uint64_t offset,
                 uint64_t length)
{
    uint32_t sector = device->info.sector_size;
    uint64_t end;

    if (offset % sector != 0)
        return tool_fail(FARBLK_INVALID,
                         "offset %llu is not a whole number of sectors of %u "
                         "octets",
                         (unsigned long long)offset, sector);
    if (length % sector != 0)
        return tool_fail(FARBLK_INVALID,
                         "length %llu is not a whole number of sectors of %u "
                         "octets",
                         (unsigned long long)length, sector);
    if (__builtin_add_overflow(offset, length, &end) || end > device->size)
        return tool_fail(FARBLK_INVALID,
                         "offset %llu + length %llu is past the end, %llu "
                         "octets",
                         (unsigned long long)offset, (unsigned long long)length,
                         (unsigned long long)device->size);
    return TOOL_FINE;
}

uint32_t
tool_sector(const struct tool_device *a, const struct tool_device *b)
{
    uint32_t sector = a->info.sector_size;

    if (b != NULL && b->info.sector_size > sector)
        sector = b->info.sector_size;
    return sector;
}

uint32_t
tool_request_size(const struct tool_device *a, const struct tool_device *b)
{
    const struct tool_device *const both[] = {a, b};
    uint32_t sector = tool_sector(a, b), size = 0;

    for (int i = 0; i < 2; i++)
        if (both[i] != NULL && both[i]->info.preferred_transfer > size)
            size = both[i]->info.preferred_transfer;
    if (size == 0)
        size = DEVICE_REQUEST_DEFAULT;
    if (size > DEVICE_REQUEST_MAX)
        size = DEVICE_REQUEST_MAX;
    for (int i = 0; i < 2; i++)
        if (both[i] != NULL && both[i]->info.max_transfer != 0
            && both[i]->info.max_transfer < size)
            size = both[i]->info.max_transfer;
    size -= size % sector;
    return size > sector ? size : sector;
}
