/* SPDX-License-Identifier: ISC */
/*
 * farblk tar list: the members of an archive, with the lines that tar itself
 * prints for them.  Names are escaped as GNU tar does it, so that each line is
 * one member and can be told back.
 */
#include "tools/json.h"
#include "tools/tar.h"
#include "tools/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <wchar.h>
#include <wctype.h>

/* Columns of user, group and size together; grows with the widest so far. */
#define LIST_WIDTH 19

struct list {
    bool all, details, as_json;
    struct tar_choice choice;
    struct json json;
    int width;
};

/* ------------------------------------------------------------ names */

static void
list_octet(unsigned char c)
{
    static const char plain[] = "\a\b\f\n\r\t\v\\", letters[] = "abfnrtv\\";
    const char *at = strchr(plain, c);

    if (at != NULL)
        printf("\\%c", letters[at - plain]);
    else if (c >= 0x20 && c < 0x7f)
        putchar(c);
    else
        printf("\\%03o", c);
}

static void
list_name(const char *text)
{
    size_t left = strlen(text);
    mbstate_t state;

    memset(&state, 0, sizeof state);
    while (left > 0) {
        wchar_t wide;
        size_t length = mbrtowc(&wide, text, left, &state);

        if (length == 0 || length > left) {
            memset(&state, 0, sizeof state);
            length = 1;
            list_octet((unsigned char)*text);
        } else if (length > 1 && iswprint((wint_t)wide)) {
            fwrite(text, 1, length, stdout);
        } else {
            for (size_t i = 0; i < length; i++)
                list_octet((unsigned char)text[i]);
        }
        text += length;
        left -= length;
    }
}

/* As in the archive: relative, and a directory ends with '/'. */
static void
list_member_name(const struct farblk_tar_entry *entry)
{
    bool root = strcmp(entry->key, "/") == 0;

    list_name(root ? "." : entry->key + 1);
    if (root || entry->stat->kind == FARBLK_TAR_DIRECTORY)
        putchar('/');
}

/* ------------------------------------------------------------ lines */

static char
list_type(const struct farblk_tar_stat *stat)
{
    static const char letters[] = {
        [FARBLK_TAR_NOTHING] = '?',   [FARBLK_TAR_VALUE] = '-',
        [FARBLK_TAR_DIRECTORY] = 'd', [FARBLK_TAR_SYMLINK] = 'l',
        [FARBLK_TAR_CHARACTER] = 'c', [FARBLK_TAR_BLOCK] = 'b',
        [FARBLK_TAR_FIFO] = 'p',      [FARBLK_TAR_LOST_LINK] = 'h',
    };

    if (stat->hard_link)
        return 'h';
    return (size_t)stat->kind < sizeof letters ? letters[stat->kind] : '?';
}

static void
list_modes(const struct farblk_tar_stat *stat, char modes[11])
{
    static const char letters[] = "xwr";

    modes[0] = list_type(stat);
    for (unsigned bit = 0; bit < 9; bit++)
        modes[9 - bit] = (stat->mode >> bit & 1) != 0 ? letters[bit % 3] : '-';
    if ((stat->mode & 04000) != 0)
        modes[3] = modes[3] == 'x' ? 's' : 'S';
    if ((stat->mode & 02000) != 0)
        modes[6] = modes[6] == 'x' ? 's' : 'S';
    if ((stat->mode & 01000) != 0)
        modes[9] = modes[9] == 'x' ? 't' : 'T';
    modes[10] = '\0';
}

static const char *
list_owner(const char *name, uint64_t id, char *buffer, size_t size)
{
    if (name[0] != '\0')
        return name;
    snprintf(buffer, size, "%" PRIu64, id);
    return buffer;
}

/* Minutes of the local time, as tar has it. */
static void
list_time(int64_t seconds, char *buffer, size_t size)
{
    time_t when = (time_t)seconds;
    struct tm local;

    if (localtime_r(&when, &local) == NULL
        || strftime(buffer, size, "%Y-%m-%d %H:%M", &local) == 0)
        snprintf(buffer, size, "%" PRId64, seconds);
}

static void
list_line(struct list *list, const struct farblk_tar_entry *entry)
{
    const struct farblk_tar_stat *stat = entry->stat;
    char modes[11], ids[2][24], size[48], when[64];
    const char *user, *group;
    int width;

    list_modes(stat, modes);
    user = list_owner(stat->user, stat->uid, ids[0], sizeof ids[0]);
    group = list_owner(stat->group, stat->gid, ids[1], sizeof ids[1]);
    if (stat->kind == FARBLK_TAR_CHARACTER || stat->kind == FARBLK_TAR_BLOCK)
        snprintf(size, sizeof size, "%u,%u", stat->device_major,
                 stat->device_minor);
    else
        snprintf(size, sizeof size, "%" PRIu64,
                 stat->hard_link ? 0 : stat->size);
    list_time(stat->mtime, when, sizeof when);
    width = (int)(strlen(user) + 1 + strlen(group) + 1 + strlen(size));
    if (width > list->width)
        list->width = width;
    printf("%s ", modes);
    text_print(stdout, user);
    putchar('/');
    text_print(stdout, group);
    printf(" %*s %s ", list->width - width + (int)strlen(size), size, when);
    list_member_name(entry);
    if (entry->link[0] != '\0') {
        fputs(stat->hard_link || stat->kind == FARBLK_TAR_LOST_LINK
                  ? " link to "
                  : " -> ",
              stdout);
        list_name(entry->link);
    }
    putchar('\n');
}

/* ------------------------------------------------------------ JSON */

static void
list_json(struct list *list, const struct farblk_tar_entry *entry)
{
    static const char *const kinds[] = {
        [FARBLK_TAR_NOTHING] = "unknown",
        [FARBLK_TAR_VALUE] = "file",
        [FARBLK_TAR_DIRECTORY] = "directory",
        [FARBLK_TAR_SYMLINK] = "symlink",
        [FARBLK_TAR_CHARACTER] = "character",
        [FARBLK_TAR_BLOCK] = "block",
        [FARBLK_TAR_FIFO] = "fifo",
        [FARBLK_TAR_LOST_LINK] = "lost_link",
    };
    const struct farblk_tar_stat *stat = entry->stat;
    struct json *json = &list->json;
    time_t when = (time_t)stat->mtime;
    struct tm utc;
    char text[64] = "", fraction[16];

    json_object(json, NULL, false);
    json_text(json, "key", entry->key);
    json_text(json, "kind",
              (size_t)stat->kind < sizeof kinds / sizeof *kinds
                  ? kinds[stat->kind]
                  : "unknown");
    json_number(json, "size", stat->size);
    json_number(json, "stored", stat->stored);
    snprintf(text, sizeof text, "%04o", stat->mode);
    json_text(json, "mode", text);
    if (gmtime_r(&when, &utc) != NULL
        && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc) > 0) {
        snprintf(fraction, sizeof fraction, ".%09uZ", stat->mtime_nsec);
        strncat(text, stat->mtime_nsec != 0 ? fraction : "Z",
                sizeof text - strlen(text) - 1);
        json_text(json, "mtime", text);
    } else {
        json_null(json, "mtime");
    }
    json_number(json, "uid", stat->uid);
    json_number(json, "gid", stat->gid);
    json_text(json, "user", stat->user);
    json_text(json, "group", stat->group);
    if (entry->link[0] != '\0')
        json_text(json, "link", entry->link);
    if (stat->kind == FARBLK_TAR_CHARACTER || stat->kind == FARBLK_TAR_BLOCK) {
        json_number(json, "major", stat->device_major);
        json_number(json, "minor", stat->device_minor);
    }
    json_bool(json, "hard_link", stat->hard_link);
    json_bool(json, "sparse", stat->sparse);
    json_bool(json, "current", entry->current);
    json_number(json, "position", stat->position);
    json_end(json);
}

/* ------------------------------------------------------------ the command */

static int
list_entry(void *arg, const struct farblk_tar_entry *entry)
{
    struct list *list = arg;

    if ((!entry->current && !list->all)
        || !tar_chosen(&list->choice, entry->key))
        return 0;
    if (list->as_json) {
        list_json(list, entry);
    } else if (list->details) {
        list_line(list, entry);
    } else {
        list_member_name(entry);
        putchar('\n');
    }
    return 0;
}

static int
list_run(const struct command *command, int argc, char **argv)
{
    struct list list = {.json.file = stdout, .width = LIST_WIDTH};
    /* In place: never more than the words that were read. */
    const char **operands = (const char **)argv;
    const struct args_option options[] = {
        {.name = "long",
         .letter = 'l',
         .kind = ARGS_FLAG,
         .help = "modes, owners, sizes and times, too",
         .value = &list.details},
        {.name = "all",
         .letter = 'a',
         .kind = ARGS_FLAG,
         .help = "also members that later ones have replaced",
         .value = &list.all},
        {.name = "json",
         .kind = ARGS_FLAG,
         .help = "as JSON",
         .value = &list.as_json},
        {0},
    };
    struct tar_archive archive;
    int count, status, result;

    result = args_parse_some(command, argc, argv, options, operands, 1, argc,
                             &count);
    if (result >= 0)
        return result;
    result = tar_open(&archive, operands[0], true);
    if (result != TOOL_FINE)
        return result;
    result = tar_choose(&list.choice, archive.tar, operands + 1, count - 1);
    if (result == TOOL_FINE) {
        if (list.as_json)
            json_array(&list.json, NULL, true);
        status = farblk_tar_iterate(archive.tar, list_entry, &list);
        if (status < 0)
            result = tool_fail_last(status, NULL);
        else if (list.as_json)
            json_end(&list.json);
    }
    tar_unchoose(&list.choice);
    tar_close(&archive);
    return result;
}

const struct command command_tar_list = {
    .name = "tar list",
    .summary = "list the members",
    .operands = "URI [KEY ...]",
    .notes = "With keys: those members, and what lies below them.\n",
    .example = "  farblk tar list -l farblk://host/backup\n"
               "  farblk tar list --json file:backup.tar etc\n",
    .run = list_run,
};
