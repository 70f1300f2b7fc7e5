/* SPDX-License-Identifier: ISC */
/* farblk info: what a device is, as a table or as JSON. */
#include "tools/args.h"
#include "tools/json.h"
#include "tools/text.h"

#include <inttypes.h>
#include <stdio.h>

static const struct {
    uint64_t bit;
    const char *name;
} info_features[] = {
    {FARBLK_CAN_RESIZE, "resize"},
    {FARBLK_CAN_DISCARD, "discard"},
    {FARBLK_DISCARD_ZEROES, "discard_zeroes"},
    {FARBLK_CAN_WRITE_ZEROES, "write_zeroes"},
    {FARBLK_CAN_SEEK, "seek"},
    {FARBLK_CAN_FUA, "fua"},
    {FARBLK_CAN_WATCH, "watch"},
    {FARBLK_SECTOR_ATOMIC, "sector_atomic"},
};

#define INFO_FEATURES (sizeof info_features / sizeof *info_features)

static void
info_json(const struct tool_device *device)
{
    const struct farblk_info *info = &device->info;
    struct json json = {.file = stdout};

    json_object(&json, NULL, true);
    json_text(&json, "uri", device->uri);
    json_text(&json, "driver", info->driver);
    json_text(&json, "transport", info->transport);
    if (info->way[0] != '\0')
        json_text(&json, "way", info->way);
    json_text(&json, "name", info->name);
    json_bool(&json, "read_write", info->read_write);
    json_number(&json, "sector_size", info->sector_size);
    json_number(&json, "size_sectors", info->size_sectors);
    json_number(&json, "size", device->size);
    json_number(&json, "generation", info->generation);
    json_array(&json, "features", false);
    for (size_t i = 0; i < INFO_FEATURES; i++)
        if ((info->features & info_features[i].bit) != 0)
            json_text(&json, NULL, info_features[i].name);
    json_end(&json);
    json_number(&json, "max_transfer", info->max_transfer);
    json_number(&json, "preferred_transfer", info->preferred_transfer);
    json_end(&json);
}

static void
info_row(const char *label, const char *value)
{
    printf("%-19s ", label);
    text_print(stdout, value);
    putchar('\n');
}

static void
info_size_row(const char *label, uint64_t octets)
{
    char text[TEXT_SHORT];

    printf("%-19s %" PRIu64, label, octets);
    if (octets >= 1024)
        printf(" (%s)", text_size(octets, text));
    putchar('\n');
}

static void
info_table(const struct tool_device *device)
{
    const struct farblk_info *info = &device->info;

    info_row("uri", device->uri);
    info_row("driver", info->driver);
    info_row("transport", info->transport);
    if (info->way[0] != '\0')
        info_row("way", info->way);
    info_row("name", info->name);
    info_row("read_write", info->read_write ? "yes" : "no");
    info_size_row("sector_size", info->sector_size);
    printf("%-19s %" PRIu64 "\n", "size_sectors", info->size_sectors);
    info_size_row("size", device->size);
    printf("%-19s %" PRIu64 "\n", "generation", info->generation);
    printf("%-19s", "features");
    for (size_t i = 0; i < INFO_FEATURES; i++)
        if ((info->features & info_features[i].bit) != 0)
            printf(" %s", info_features[i].name);
    putchar('\n');
    info_size_row("max_transfer", info->max_transfer);
    info_size_row("preferred_transfer", info->preferred_transfer);
}

static int
info_run(const struct command *command, int argc, char **argv)
{
    bool json = false;
    const char *uri;
    const struct args_option options[] = {
        {.name = "json", .kind = ARGS_FLAG, .help = "as JSON", .value = &json},
        {0},
    };
    struct tool_device device;
    int result = args_parse(command, argc, argv, options, &uri, 1);

    if (result >= 0)
        return result;
    result = tool_open(&device, uri, false);
    if (result != TOOL_FINE)
        return result;
    if (json)
        info_json(&device);
    else
        info_table(&device);
    tool_close(&device);
    return TOOL_FINE;
}

const struct command command_info = {
    .name = "info",
    .summary = "tell what a device is",
    .operands = "URI",
    .example = "  farblk info file:/var/lib/disk.img\n"
               "  farblk info --json farblk://host/disk0\n",
    .run = info_run,
};
