/* SPDX-License-Identifier: ISC */
/* farblk tar rm and create: the last member goes; an archive begins. */
#include "tools/tar.h"

static int
rm_run(const struct command *command, int argc, char **argv)
{
    const char *operands[2];
    struct tar_archive archive;
    int result = args_parse(command, argc, argv, NULL, operands, 2), status;

    if (result >= 0)
        return result;
    result = tar_open(&archive, operands[0], false);
    if (result != TOOL_FINE)
        return result;
    status = farblk_tar_remove(archive.tar, operands[1]);
    if (status < 0)
        result = tool_fail_last(status, NULL);
    tar_close(&archive);
    return result;
}

const struct command command_tar_rm = {
    .name = "tar rm",
    .summary = "remove the last member",
    .operands = "URI KEY",
    .notes = "Only the last member of an archive can go.\n",
    .example = "  farblk tar rm farblk://host/backup notes/today\n",
    .run = rm_run,
};

static int
create_run(const struct command *command, int argc, char **argv)
{
    bool force = false;
    const char *uri;
    const struct args_option options[] = {
        {.name = "force",
         .letter = 'f',
         .kind = ARGS_FLAG,
         .help = "even if the device is not empty: what it has is lost",
         .value = &force},
        {0},
    };
    struct tool_device device;
    int result = args_parse(command, argc, argv, options, &uri, 1), status;

    if (result >= 0)
        return result;
    result = tool_open(&device, uri, false);
    if (result != TOOL_FINE)
        return result;
    status = farblk_tar_create(device.dev, force ? FARBLK_TAR_REPLACE : 0);
    if (status == FARBLK_EXISTS)
        result = tool_fail(status,
                           "%s is not empty; --force makes it an empty archive "
                           "nevertheless",
                           uri);
    else if (status < 0)
        result = tool_fail_last(status, NULL);
    tool_close(&device);
    return result;
}

const struct command command_tar_create = {
    .name = "tar create",
    .summary = "make the device an empty archive",
    .operands = "URI",
    .notes = "A device that does not begin with zeros wants --force.\n",
    .example = "  farblk tar create \"file:backup.tar?create=1&size=1G\"\n",
    .run = create_run,
};
