/* SPDX-License-Identifier: ISC */
/*
 * The farblk command: finds the subcommand and runs it.  It uses the public
 * headers alone, as any other program would.
 */
#include "tools/text.h"
#include "tools/tool.h"

#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

static const struct command *const commands[] = {
    &command_info,  &command_list,    &command_read, &command_write,
    &command_copy,  &command_compare, &command_map,  &command_resize,
    &command_flush, &command_discard, &command_zero, &command_mirror,
    &command_tar,   &command_bench,
};

#define COMMANDS (sizeof commands / sizeof *commands)

/* Parameters, each a line "name=VALUE  help", in two columns. */
static void
farblk_help_parameters(const char *text)
{
    while (text != NULL && *text != '\0') {
        size_t length = strcspn(text, "\n"), name = strcspn(text, " \n");
        const char *help = text + name + strspn(text + name, " ");

        printf("      %-*.*s %.*s\n", 24, (int)name, text,
               (int)(text + length - help), help);
        text += length + (text[length] == '\n');
    }
}

static void
farblk_help(void)
{
    const struct farblk_driver_info *driver;

    printf("farblk %s: block devices that live somewhere else\n\n"
           "usage: farblk COMMAND [options] ...\n"
           "       farblk COMMAND --help\n"
           "       farblk --help | --version\n\ncommands:\n",
           farblk_version());
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %-9s %s\n", commands[i]->name, commands[i]->summary);
    printf("\na device is a URI:\n");
    for (size_t i = 0; (driver = farblk_driver(i)) != NULL; i++) {
        printf("  %s: %s\n    %s\n", driver->name, driver->summary,
               driver->usage);
        if (strchr(driver->schemes, ' ') != NULL)
            printf("    schemes: %s\n", driver->schemes);
        farblk_help_parameters(driver->parameters);
    }
    printf("\nsizes read as 512, 4k, 1M, 2G, 1T (powers of 1024)\n"
           "exit status: 0 fine, 1 failed (compare: different), 2 usage\n");
}

/* What was printed must have arrived, or the exit status is a lie. */
static int
farblk_finish(int status)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        int errnum = errno;

        if (status == TOOL_FINE)
            status = tool_fail_errno(errnum, "standard output");
    }
    return status;
}

int
main(int argc, char **argv)
{
    setlocale(LC_CTYPE, "");
    if (argc < 2)
        return tool_usage("no command given");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        farblk_help();
        return farblk_finish(TOOL_FINE);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("farblk %s\n", farblk_version());
        return farblk_finish(TOOL_FINE);
    }
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(argv[1], commands[i]->name) == 0) {
            tool_name = commands[i]->name;
            return farblk_finish(
                commands[i]->run(commands[i], argc - 1, argv + 1));
        }
    return tool_usage("unknown command \"%s\"", argv[1]);
}
