/* SPDX-License-Identifier: ISC */
/*
 * farblk map: which octets of a device are mapped.
 *
 * Extents are asked for in bulk, neighbours of one kind merged, and each is
 * printed as soon as it is complete: nothing grows with their number.  For the
 * picture that follows on a terminal, each extent adds to the cells it covers.
 */
#include "tools/args.h"
#include "tools/json.h"
#include "tools/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MAP_BATCH 1024
#define MAP_CELLS_MAX 512

struct map {
    const struct tool_device *device;
    uint64_t offset, length; /* what is asked about, in octets */
    bool as_json;
    struct json json;

    /* The extent that may still grow. */
    uint64_t start, end;
    bool mapped;

    uint64_t extents, octets[2]; /* of unmapped and mapped */
    unsigned cells; /* 0: no picture */
    uint64_t cell[MAP_CELLS_MAX]; /* mapped octets in each */
};

/* Where cell `index` begins. */
static uint64_t
map_cell_start(const struct map *map, unsigned index)
{
    uint64_t each = map->length / map->cells, rest = map->length % map->cells;

    return map->offset + each * index + (index < rest ? (uint64_t)index : rest);
}

static void
map_paint(struct map *map)
{
    /* The first cell that ends behind the extent's start, by bisection. */
    unsigned low = 0, high = map->cells;

    while (low + 1 < high) {
        unsigned middle = low + (high - low) / 2;

        if (map_cell_start(map, middle) <= map->start)
            low = middle;
        else
            high = middle;
    }
    for (; low < map->cells; low++) {
        uint64_t begin = map_cell_start(map, low);
        uint64_t end = map_cell_start(map, low + 1);

        if (begin >= map->end)
            break;
        if (begin < map->start)
            begin = map->start;
        if (end > map->end)
            end = map->end;
        if (end > begin)
            map->cell[low] += end - begin;
    }
}

/* The current extent is complete. */
static void
map_put(struct map *map)
{
    uint64_t length = map->end - map->start;

    if (length == 0)
        return;
    map->extents++;
    map->octets[map->mapped] += length;
    if (map->as_json) {
        json_object(&map->json, NULL, false);
        json_number(&map->json, "start", map->start);
        json_number(&map->json, "length", length);
        json_bool(&map->json, "mapped", map->mapped);
        json_end(&map->json);
        return;
    }
    printf("%20" PRIu64 " %20" PRIu64 "  %s\n", map->start, length,
           map->mapped ? "mapped" : "unmapped");
    if (map->cells > 0 && map->mapped)
        map_paint(map);
}

/* Ask about all of it. */
static int
map_walk(struct map *map, struct farblk_extent *extents)
{
    uint32_t sector_size = map->device->info.sector_size;
    uint64_t sector = map->offset / sector_size;
    uint64_t last = sector + map->length / sector_size;

    map->start = map->end = map->offset;
    while (sector < last) {
        int count = farblk_extents(map->device->dev, sector, last - sector,
                                   extents, MAP_BATCH);

        if (count < 0)
            return tool_fail_last(count, NULL);
        if (count == 0)
            return tool_fail(FARBLK_PROTOCOL, "no extents at sector %" PRIu64,
                             sector);
        for (int i = 0; i < count; i++) {
            bool mapped = extents[i].mapped != 0;

            if (extents[i].start != sector || extents[i].count == 0
                || extents[i].count > last - sector)
                return tool_fail(FARBLK_PROTOCOL,
                                 "extents out of order at sector %" PRIu64,
                                 sector);
            if (mapped != map->mapped) {
                map_put(map);
                map->start = map->end;
                map->mapped = mapped;
            }
            sector += extents[i].count;
            map->end = sector * sector_size;
        }
    }
    map_put(map);
    return TOOL_FINE;
}

static void
map_picture(const struct map *map, unsigned width)
{
    static const char *const plain[] = {".", "-", "+", "#"};
    static const char *const shades[] = {"\u2591", "\u2592", "\u2593",
                                         "\u2588"};
    const char *const *signs = text_utf8() ? shades : plain;
    char each[TEXT_SHORT];

    putchar('\n');
    for (unsigned i = 0; i < map->cells; i++) {
        uint64_t size = map_cell_start(map, i + 1) - map_cell_start(map, i);
        unsigned shade = map->cell[i] == 0                ? 0
                         : map->cell[i] == size           ? 3
                         : map->cell[i] < size - size / 2 ? 1
                                                          : 2;

        fputs(signs[shade], stdout);
        if ((i + 1) % width == 0 || i + 1 == map->cells)
            putchar('\n');
    }
    printf("%s empty  %s %s part  %s full; %s each\n", signs[0], signs[1],
           signs[2], signs[3],
           text_size(map_cell_start(map, 1) - map->offset, each));
}

static void
map_totals(const struct map *map)
{
    char mapped[TEXT_SHORT], all[TEXT_SHORT];

    printf("%" PRIu64 " extent%s, %s of %s mapped (%.1f %%)\n", map->extents,
           map->extents == 1 ? "" : "s", text_size(map->octets[1], mapped),
           text_size(map->length, all),
           map->length == 0
               ? 0.0
               : 100.0 * (double)map->octets[1] / (double)map->length);
}

static int
map_show(struct map *map)
{
    struct farblk_extent *extents = calloc(MAP_BATCH, sizeof *extents);
    unsigned width = 0;
    int result;

    if (extents == NULL)
        return tool_fail(FARBLK_NO_MEMORY, "no memory for %d extents",
                         MAP_BATCH);
    if (map->as_json) {
        map->json.file = stdout;
        json_object(&map->json, NULL, true);
        json_text(&map->json, "uri", map->device->uri);
        json_number(&map->json, "size", map->device->size);
        json_array(&map->json, "extents", true);
    } else {
        printf("%20s %20s  %s\n", "start", "length", "kind");
        if (isatty(STDOUT_FILENO)) {
            width = text_columns(STDOUT_FILENO);
            width = width > MAP_CELLS_MAX / 2 ? MAP_CELLS_MAX / 2 : width;
            map->cells = 2 * width;
            /* Not more cells than sectors. */
            if (map->length / map->device->info.sector_size < map->cells)
                map->cells =
                    (unsigned)(map->length / map->device->info.sector_size);
        }
    }
    result = map_walk(map, extents);
    free(extents);
    if (result != TOOL_FINE)
        return result;
    if (map->as_json) {
        json_end(&map->json);
        json_number(&map->json, "mapped", map->octets[1]);
        json_number(&map->json, "unmapped", map->octets[0]);
        json_end(&map->json);
    } else {
        if (map->cells > 0)
            map_picture(map, width);
        map_totals(map);
    }
    return TOOL_FINE;
}

static int
map_run(const struct command *command, int argc, char **argv)
{
    struct map map = {0};
    bool has_length = false;
    const char *uri;
    const struct args_option options[] = {
        {.name = "json",
         .kind = ARGS_FLAG,
         .help = "as JSON",
         .value = &map.as_json},
        {.name = "offset",
         .kind = ARGS_SIZE,
         .metavar = "SIZE",
         .help = "where to begin, in octets (0)",
         .value = &map.offset},
        {.name = "length",
         .kind = ARGS_SIZE,
         .metavar = "SIZE",
         .help = "how many octets (all to the end)",
         .value = &map.length,
         .given = &has_length},
        {0},
    };
    struct tool_device device;
    int result = args_parse(command, argc, argv, options, &uri, 1);

    if (result >= 0)
        return result;
    result = tool_open(&device, uri, true);
    if (result != TOOL_FINE)
        return result;
    if (!has_length && map.offset <= device.size)
        map.length = device.size - map.offset;
    map.device = &device;
    result = tool_check_range(&device, map.offset, map.length);
    if (result == TOOL_FINE)
        result = map_show(&map);
    tool_close(&device);
    return result;
}

const struct command command_map = {
    .name = "map",
    .summary = "tell which octets of a device are mapped",
    .operands = "URI",
    .notes = "On a terminal a picture of the device follows.\n",
    .example = "  farblk map file:/var/lib/disk.img\n"
               "  farblk map --json farblk://host/disk0\n",
    .run = map_run,
};
