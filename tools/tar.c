/* SPDX-License-Identifier: ISC */
/*
 * farblk tar: a tar archive that lies on a device.  Finds the subcommand; and
 * what several of them want.
 */
#include "tools/tar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct command *const commands[] = {
    &command_tar_list, &command_tar_get,     &command_tar_put,
    &command_tar_rm,   &command_tar_extract, &command_tar_create,
};

#define COMMANDS (sizeof commands / sizeof *commands)
#define PREFIX (sizeof "tar " - 1)

static void
tar_help(const struct command *command)
{
    printf("farblk tar: %s\n\nusage: farblk tar COMMAND [options] URI ...\n"
           "       farblk tar COMMAND --help\n\ncommands:\n",
           command->summary);
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %-9s %s\n", commands[i]->name + PREFIX, commands[i]->summary);
    printf("\n%s\nexample:\n%s", command->notes, command->example);
}

static int
tar_run(const struct command *command, int argc, char **argv)
{
    if (argc < 2)
        return tool_usage("no command given");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        tar_help(command);
        return TOOL_FINE;
    }
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(argv[1], commands[i]->name + PREFIX) == 0) {
            tool_name = commands[i]->name;
            return commands[i]->run(commands[i], argc - 1, argv + 1);
        }
    return tool_usage("unknown command \"%s\"", argv[1]);
}

const struct command command_tar = {
    .name = "tar",
    .summary = "list, read, change or unpack a tar archive on a device",
    .operands = "COMMAND",
    .notes = "The archive begins at the device's first octet.  Members are "
             "named as in the\narchive: a/b, /a/b and ./a/b are one.\n",
    .example =
        "  farblk tar list -l farblk://host/backup\n"
        "  farblk tar get farblk://host/backup etc/fstab\n"
        "  farblk tar put farblk://host/backup notes/today -i notes.txt\n",
    .run = tar_run,
};

int
tar_open(struct tar_archive *archive, const char *uri, bool read_only)
{
    const struct farblk_tar_options options = {.size = sizeof options,
                                               .read_only = read_only};
    int result, status;

    archive->tar = NULL;
    result = tool_open(&archive->device, uri, read_only);
    if (result != TOOL_FINE)
        return result;
    if (!read_only && !archive->device.info.read_write)
        result = tool_fail(FARBLK_IS_READ_ONLY, "%s is read-only", uri);
    if (result == TOOL_FINE) {
        status = farblk_tar_open(archive->device.dev, &options, &archive->tar);
        if (status < 0)
            result = tool_fail_last(status, uri);
    }
    if (result != TOOL_FINE)
        tool_close(&archive->device);
    return result;
}

void
tar_close(struct tar_archive *archive)
{
    farblk_tar_close(archive->tar);
    tool_close(&archive->device);
    archive->tar = NULL;
}

char *
tar_key(const char *text)
{
    char *key = malloc(strlen(text) + 2), *to = key;

    if (key == NULL) {
        tool_fail(FARBLK_NO_MEMORY, "no memory");
        return NULL;
    }
    while (*text != '\0') {
        size_t length;

        text += strspn(text, "/");
        length = strcspn(text, "/");
        if (length > 0 && !(length == 1 && *text == '.')) {
            *to++ = '/';
            memcpy(to, text, length);
            to += length;
        }
        text += length;
    }
    if (to == key)
        *to++ = '/';
    *to = '\0';
    return key;
}

int
tar_choose(struct tar_choice *choice, struct farblk_tar *tar,
           const char *const *operands, int count)
{
    int result = TOOL_FINE;

    memset(choice, 0, sizeof *choice);
    if (count == 0)
        return TOOL_FINE;
    choice->keys = calloc((size_t)count, sizeof *choice->keys);
    if (choice->keys == NULL)
        return tool_fail(FARBLK_NO_MEMORY, "no memory");
    for (; choice->count < count; choice->count++) {
        const char *operand = operands[choice->count];
        int kind = farblk_tar_exists(tar, operand);

        if (kind < 0)
            result = tool_fail_last(kind, NULL);
        else if (kind == FARBLK_TAR_NOTHING)
            result = tool_fail(FARBLK_NOT_FOUND, "there is no \"%s\"", operand);
        choice->keys[choice->count] = tar_key(operand);
        if (choice->keys[choice->count] == NULL)
            return TOOL_FAILED;
    }
    return result;
}

bool
tar_chosen(const struct tar_choice *choice, const char *key)
{
    for (int i = 0; i < choice->count; i++) {
        const char *chosen = choice->keys[i];
        size_t length = strcmp(chosen, "/") == 0 ? 0 : strlen(chosen);

        if (strncmp(key, chosen, length) == 0
            && (key[length] == '\0' || key[length] == '/'))
            return true;
    }
    return choice->count == 0;
}

void
tar_unchoose(struct tar_choice *choice)
{
    for (int i = 0; i < choice->count; i++)
        free(choice->keys[i]);
    free(choice->keys);
}
