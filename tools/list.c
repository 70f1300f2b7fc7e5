/* SPDX-License-Identifier: ISC */
/* farblk list: the devices behind a server. */
#include "tools/args.h"
#include "tools/json.h"
#include "tools/text.h"

#include <inttypes.h>
#include <stdio.h>

struct list {
    bool as_json;
    struct json json;
    uint64_t count;
};

static int
list_entry(void *arg, const struct farblk_list_entry *entry)
{
    struct list *list = arg;
    uint64_t size = 0;
    char text[TEXT_SHORT];

    if (__builtin_mul_overflow(entry->size_sectors, entry->sector_size, &size))
        size = UINT64_MAX;
    if (list->as_json) {
        json_object(&list->json, NULL, false);
        json_text(&list->json, "name", entry->name);
        json_bool(&list->json, "read_write", entry->read_write);
        json_number(&list->json, "sector_size", entry->sector_size);
        json_number(&list->json, "size_sectors", entry->size_sectors);
        json_number(&list->json, "size", size);
        json_end(&list->json);
        return 0;
    }
    if (list->count++ == 0)
        printf("%15s %15s %7s %s  %s\n", "octets", "size", "sector", "access",
               "name");
    printf("%15" PRIu64 " %15s %7u %6s  ", size, text_size(size, text),
           entry->sector_size, entry->read_write ? "rw" : "ro");
    text_print(stdout, entry->name);
    putchar('\n');
    return 0;
}

static int
list_run(const struct command *command, int argc, char **argv)
{
    struct list list = {.json.file = stdout};
    const char *uri;
    const struct args_option options[] = {
        {.name = "json",
         .kind = ARGS_FLAG,
         .help = "as JSON",
         .value = &list.as_json},
        {0},
    };
    int result = args_parse(command, argc, argv, options, &uri, 1);
    int status;

    if (result >= 0)
        return result;
    if (list.as_json)
        json_array(&list.json, NULL, true);
    status = farblk_list(uri, list_entry, &list);
    if (status < 0)
        return tool_fail_last(status, NULL);
    if (list.as_json)
        json_end(&list.json);
    return TOOL_FINE;
}

const struct command command_list = {
    .name = "list",
    .summary = "list the devices behind a server",
    .operands = "SERVER",
    .example = "  farblk list \"farblk+unix:///?socket=/run/farblk.sock\"\n"
               "  farblk list farblk://host\n"
               "  farblk list nbd://host\n",
    .run = list_run,
};
