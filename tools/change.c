/* SPDX-License-Identifier: ISC */
/*
 * farblk resize, flush, discard, zero: one call of the library each, with
 * octets turned into sectors.
 */
#include "tools/args.h"

#include <stdio.h>

/* A failed change may have happened in part: say so. */
static int
change_failed(int status)
{
    static const char *const effects[] = {
        [FARBLK_EFFECT_DONE] = "the device has changed nevertheless",
        [FARBLK_EFFECT_UNKNOWN] = "the device may have changed in part",
    };
    enum farblk_effect effect = farblk_last_effect();
    int result = tool_fail_last(status, NULL);

    if (effect == FARBLK_EFFECT_DONE || effect == FARBLK_EFFECT_UNKNOWN)
        tool_note("%s", effects[effect]);
    return result;
}

static int
resize_run(const struct command *command, int argc, char **argv)
{
    const char *operands[2];
    struct tool_device device;
    uint64_t size;
    int result = args_parse(command, argc, argv, NULL, operands, 2), status;

    if (result >= 0)
        return result;
    if (!args_size(operands[1], &size))
        return tool_usage("\"%s\" is not a size; sizes read as 512, 4k, 1M, "
                          "2G, 1T",
                          operands[1]);
    result = tool_open(&device, operands[0], false);
    if (result != TOOL_FINE)
        return result;
    if (size % device.info.sector_size != 0) {
        result = tool_fail(FARBLK_INVALID,
                           "size %llu is not a whole number of sectors of %u "
                           "octets",
                           (unsigned long long)size, device.info.sector_size);
    } else {
        status = farblk_resize(device.dev, size / device.info.sector_size);
        if (status < 0)
            result = change_failed(status);
    }
    tool_close(&device);
    return result;
}

static int
flush_run(const struct command *command, int argc, char **argv)
{
    const char *uri;
    struct tool_device device;
    int result = args_parse(command, argc, argv, NULL, &uri, 1), status;

    if (result >= 0)
        return result;
    result = tool_open(&device, uri, false);
    if (result != TOOL_FINE)
        return result;
    status = farblk_flush(device.dev);
    if (status < 0)
        result = change_failed(status);
    tool_close(&device);
    return result;
}

/* discard and zero. */
static int
range_run(const struct command *command, int argc, char **argv)
{
    bool zero = command == &command_zero;
    bool no_unmap = false, fua = false, has_offset = false, has_length = false;
    uint64_t offset = 0, length = 0, start, count;
    const struct args_option options[] = {
        {.name = "offset",
         .kind = ARGS_SIZE,
         .metavar = "SIZE",
         .help = "where to begin, in octets (required)",
         .value = &offset,
         .given = &has_offset},
        {.name = "length",
         .kind = ARGS_SIZE,
         .metavar = "SIZE",
         .help = "how many octets (required)",
         .value = &length,
         .given = &has_length},
        {.name = "fua",
         .kind = ARGS_FLAG,
         .help = "return when it is on stable storage",
         .value = &fua},
        /* discard's table ends before this one. */
        {.name = zero ? "no-unmap" : NULL,
         .kind = ARGS_FLAG,
         .help = "keep the sectors mapped",
         .value = &no_unmap},
        {0},
    };
    struct tool_device device;
    const char *uri;
    int result = args_parse(command, argc, argv, options, &uri, 1), status;
    uint32_t flags;

    if (result >= 0)
        return result;
    if (!has_offset || !has_length)
        return tool_usage("--offset and --length are required");
    result = tool_open(&device, uri, false);
    if (result != TOOL_FINE)
        return result;
    result = tool_check_range(&device, offset, length);
    if (result == TOOL_FINE) {
        start = offset / device.info.sector_size;
        count = length / device.info.sector_size;
        flags = (fua ? (uint32_t)FARBLK_FUA : 0)
                | (no_unmap ? (uint32_t)FARBLK_NO_UNMAP : 0);
        status = zero ? farblk_write_zeroes(device.dev, start, count, flags)
                      : farblk_discard(device.dev, start, count, flags);
        if (status < 0)
            result = change_failed(status);
    }
    tool_close(&device);
    return result;
}

const struct command command_resize = {
    .name = "resize",
    .summary = "change a device's size",
    .operands = "URI SIZE",
    .example = "  farblk resize file:/var/lib/disk.img 2G\n",
    .run = resize_run,
};

const struct command command_flush = {
    .name = "flush",
    .summary = "make stable what was written",
    .operands = "URI",
    .example = "  farblk flush farblk://host/disk0\n",
    .run = flush_run,
};

const struct command command_discard = {
    .name = "discard",
    .summary = "give sectors back to the storage",
    .operands = "URI --offset SIZE --length SIZE",
    .example = "  farblk discard file:/var/lib/disk.img --offset 1M "
               "--length 64M\n",
    .run = range_run,
};

const struct command command_zero = {
    .name = "zero",
    .summary = "make sectors read as zero",
    .operands = "URI --offset SIZE --length SIZE",
    .example = "  farblk zero farblk://host/disk0 --offset 0 --length 4k\n",
    .run = range_run,
};
