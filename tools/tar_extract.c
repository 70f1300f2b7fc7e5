/* SPDX-License-Identifier: ISC */
/*
 * farblk tar extract: members of an archive become files below a directory.
 *
 * Files are placed as they come in the archive.  Symbolic links follow when all
 * files are there, so that none can be in the way of a file, and at the end
 * directories get their modes and times.  What goes wrong with one member is
 * told, and the others are extracted; what goes wrong with the archive or the
 * file system as a whole ends it.
 *
 * It leaves out: owners (files belong to who extracts them), setuid, setgid and
 * sticky bits, devices and fifos, extended attributes.
 */
#include "tools/interrupt.h"
#include "tools/tar.h"
#include "tools/tar_place.h"
#include "tools/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXTRACT_LINKS 40 /* from name to name, no further */
#define EXTRACT_EXTENTS 64

/* A directory or a symbolic link that is finished at the end. */
struct later {
    char *key, *target; /* target: NULL for a directory */
    struct place_stamp stamp;
};

struct extract {
    struct tar_choice choice;
    struct place place;
    struct tar_copy copy;
    bool unsafe_links, keep_modes, no_progress;
    mode_t mask;
    uint64_t total; /* octets */
    bool failed, lost; /* lost: a file is not what the archive says */
    struct later *later;
    size_t later_count, later_room;
};

/* ------------------------------------------------------------ failures */

/* Returns what ends the iteration, or lets it go on. */
static int
extract_failed(struct extract *extract, const char *key, int errnum)
{
    extract->failed = extract->lost = true;
    tar_copy_wipe(&extract->copy);
    if (errnum == PLACE_OUTSIDE)
        tool_fail(FARBLK_INVALID,
                  "%s: a name with \"..\" would lead elsewhere; skipped",
                  key + 1);
    else if (errnum == ENOTDIR)
        tool_fail(FARBLK_NOT_A_DIRECTORY,
                  "%s: a link, or something else that is no directory, is in "
                  "the way; skipped",
                  key + 1);
    else
        tool_fail_errno(errnum, "%s", key + 1);
    return extract->copy.over || errnum == ENOSPC || errnum == EDQUOT
           || errnum == EROFS;
}

static int
extract_failed_library(struct extract *extract, int status)
{
    extract->failed = extract->copy.over = true;
    tar_copy_wipe(&extract->copy);
    tool_fail_last(status, NULL);
    return 1;
}

static int
extract_no_memory(struct extract *extract)
{
    extract->failed = extract->copy.over = true;
    tar_copy_wipe(&extract->copy);
    tool_fail(FARBLK_NO_MEMORY, "no memory");
    return 1;
}

/* ------------------------------------------------------------ members */

static struct place_stamp
extract_stamp(const struct extract *extract, const struct farblk_tar_stat *stat)
{
    return (struct place_stamp){
        .mode = (mode_t)(stat->mode & 0777)
                & ~(extract->keep_modes ? 0 : extract->mask),
        .mtime = stat->mtime,
        .mtime_nsec = stat->mtime_nsec,
    };
}

/* Takes `target` over. */
static int
extract_later(struct extract *extract, const char *key, char *target,
              const struct farblk_tar_stat *stat)
{
    struct later *later;

    if (extract->later_count == extract->later_room) {
        size_t room = extract->later_room * 2 + 64;

        later = realloc(extract->later, room * sizeof *later);
        if (later == NULL) {
            free(target);
            return extract_no_memory(extract);
        }
        extract->later = later;
        extract->later_room = room;
    }
    later = &extract->later[extract->later_count];
    later->key = strdup(key);
    later->target = target;
    later->stamp = extract_stamp(extract, stat);
    if (later->key == NULL) {
        free(target);
        return extract_no_memory(extract);
    }
    extract->later_count++;
    return 0;
}

static int
extract_directory(struct extract *extract, const struct farblk_tar_entry *entry)
{
    int errnum;

    if (strcmp(entry->key, "/") == 0)
        return 0; /* it is there, and its modes are not the archive's affair */
    errnum = place_directory(&extract->place, entry->key);
    if (errnum != 0)
        return extract_failed(extract, entry->key, errnum);
    return extract_later(extract, entry->key, NULL, entry->stat);
}

static int
extract_file(struct extract *extract, const struct farblk_tar_entry *entry)
{
    struct place_stamp stamp = extract_stamp(extract, entry->stat);
    int fd, errnum = place_file_begin(&extract->place, entry->key, &fd);

    if (errnum != 0)
        return extract_failed(extract, entry->key, errnum);
    if (tar_copy_value(&extract->copy, entry->key, 0, entry->stat->size, fd,
                       true, entry->key + 1)
        != TOOL_FINE) {
        place_file_drop(&extract->place, fd);
        extract->failed = extract->lost = true;
        return extract->copy.over;
    }
    errnum = place_file_end(&extract->place, fd, &stamp);
    return errnum != 0 ? extract_failed(extract, entry->key, errnum) : 0;
}

/* Whether both keys have the same octets of the archive as their values. */
static bool
extract_same(struct farblk_tar *tar, const char *one, const char *two,
             uint64_t size)
{
    struct farblk_tar_extent extents[2][EXTRACT_EXTENTS];
    int count[2];

    memset(extents, 0, sizeof extents);
    count[0] =
        farblk_tar_extents(tar, one, 0, size, extents[0], EXTRACT_EXTENTS);
    count[1] =
        farblk_tar_extents(tar, two, 0, size, extents[1], EXTRACT_EXTENTS);
    return count[0] >= 0 && count[0] == count[1]
           && memcmp(extents[0], extents[1], sizeof extents[0]) == 0;
}

/* Whether the target of a hard link was extracted as the file it should be. */
static bool
extract_has(const struct extract *extract, const char *target,
            const struct farblk_tar_entry *entry)
{
    struct farblk_tar_stat stat;

    return !extract->lost && tar_chosen(&extract->choice, target)
           && farblk_tar_stat(extract->copy.tar, target, &stat, sizeof stat)
                  == 0
           && stat.kind == FARBLK_TAR_VALUE && stat.size == entry->stat->size
           && stat.position < entry->stat->position
           && extract_same(extract->copy.tar, target, entry->key, stat.size);
}

/* As a link to the file that was extracted, or else as a file of its own. */
static int
extract_hard_link(struct extract *extract, const struct farblk_tar_entry *entry)
{
    char *target = tar_key(entry->link);
    bool linked;

    if (target == NULL)
        return extract_no_memory(extract);
    linked = extract_has(extract, target, entry)
             && place_link(&extract->place, entry->key, target) == 0;
    free(target);
    if (!linked)
        return extract_file(extract, entry);
    extract->copy.covered += entry->stat->size;
    return 0;
}

/* The target of a symbolic link, by way of hard links if need be; free() it.
 * NULL: none, which was told. */
static char *
extract_target(struct extract *extract, const struct farblk_tar_entry *entry)
{
    struct farblk_tar *tar = extract->copy.tar;
    struct farblk_tar_stat stat = *entry->stat;
    char *key = NULL, *target = strdup(entry->link);

    for (unsigned i = 0; target != NULL && stat.hard_link; i++) {
        int length, status;

        free(key);
        key = tar_key(target);
        free(target);
        target = NULL;
        if (key == NULL)
            break;
        status = farblk_tar_stat(tar, key, &stat, sizeof stat);
        length = status < 0 ? status : farblk_tar_read_link(tar, key, NULL, 0);
        if (length < 0 || i == EXTRACT_LINKS) {
            extract_failed(extract, entry->key, ELOOP);
            free(key);
            return NULL;
        }
        target = malloc((size_t)length + 1);
        if (target != NULL)
            farblk_tar_read_link(tar, key, target, (size_t)length + 1);
    }
    free(key);
    if (target == NULL)
        extract_no_memory(extract);
    return target;
}

static int
extract_symlink(struct extract *extract, const struct farblk_tar_entry *entry)
{
    char *target = extract_target(extract, entry);

    if (target == NULL)
        return extract->copy.over;
    if (!extract->unsafe_links && !place_inside(entry->key, target)) {
        extract->failed = true;
        tar_copy_wipe(&extract->copy);
        tool_fail(FARBLK_INVALID,
                  "%s: a link to %s may lead out of the directory; skipped "
                  "(--unsafe-links makes it)",
                  entry->key + 1, target);
        free(target);
        return 0;
    }
    return extract_later(extract, entry->key, target, entry->stat);
}

static int
extract_entry(void *arg, const struct farblk_tar_entry *entry)
{
    struct extract *extract = arg;

    if (!entry->current || !tar_chosen(&extract->choice, entry->key))
        return 0;
    switch (entry->stat->kind) {
    case FARBLK_TAR_DIRECTORY:
        return extract_directory(extract, entry);
    case FARBLK_TAR_VALUE:
        return entry->stat->hard_link ? extract_hard_link(extract, entry)
                                      : extract_file(extract, entry);
    case FARBLK_TAR_SYMLINK:
        return extract_symlink(extract, entry);
    case FARBLK_TAR_LOST_LINK:
        extract->failed = true;
        tar_copy_wipe(&extract->copy);
        tool_fail(FARBLK_NOT_FOUND,
                  "%s: a link to %s, which the archive does not have; skipped",
                  entry->key + 1, entry->link);
        return 0;
    default:
        tar_copy_wipe(&extract->copy);
        tool_note("%s: a %s; skipped", entry->key + 1,
                  entry->stat->kind == FARBLK_TAR_FIFO ? "fifo" : "device");
        return 0;
    }
}

/* ------------------------------------------------------------ all of it */

static int
extract_count(void *arg, const struct farblk_tar_entry *entry)
{
    struct extract *extract = arg;

    if (entry->current && entry->stat->kind == FARBLK_TAR_VALUE
        && tar_chosen(&extract->choice, entry->key)
        && __builtin_add_overflow(extract->total, entry->stat->size,
                                  &extract->total))
        extract->total = UINT64_MAX;
    return 0;
}

/* Longer keys first: what lies in a directory comes before it. */
static int
extract_deeper(const void *one, const void *two)
{
    size_t a = strlen(((const struct later *)one)->key);
    size_t b = strlen(((const struct later *)two)->key);

    return a > b ? -1 : a < b;
}

/* Symbolic links, then the directories' stamps. */
static void
extract_rest(struct extract *extract)
{
    struct later *later = extract->later;
    size_t count = extract->later_count;
    int errnum;

    for (size_t i = 0; i < count && !extract->copy.over; i++) {
        if (later[i].target == NULL)
            continue;
        errnum = place_symlink(&extract->place, later[i].key, later[i].target,
                               &later[i].stamp);
        if (errnum != 0)
            extract_failed(extract, later[i].key, errnum);
    }
    if (count > 0)
        qsort(later, count, sizeof *later, extract_deeper);
    for (size_t i = 0; i < count; i++) {
        if (later[i].target != NULL)
            continue;
        errnum = place_directory_stamp(&extract->place, later[i].key,
                                       &later[i].stamp);
        if (errnum != 0)
            extract_failed(extract, later[i].key, errnum);
    }
}

static int
extract_all(struct extract *extract, struct farblk_tar *tar)
{
    int status = farblk_tar_iterate(tar, extract_count, extract), result;

    if (status < 0)
        return tool_fail_last(status, NULL);
    result = tar_copy_begin(&extract->copy, tar, "extract", extract->total,
                            !extract->no_progress);
    if (result != TOOL_FINE)
        return result;
    interrupt_catch(); /* no half a file is left */
    status = farblk_tar_iterate(tar, extract_entry, extract);
    if (status < 0)
        extract_failed_library(extract, status);
    extract_rest(extract);
    return tar_copy_end(&extract->copy,
                        extract->failed ? TOOL_FAILED : TOOL_FINE);
}

static int
extract_run(const struct command *command, int argc, char **argv)
{
    struct extract extract = {0};
    /* In place: never more than the words that were read. */
    const char **operands = (const char **)argv, *directory = ".";
    const struct args_option options[] = {
        {.name = "directory",
         .letter = 'C',
         .kind = ARGS_TEXT,
         .metavar = "DIR",
         .help = "below which directory, which must exist (.)",
         .value = &directory},
        {.name = "preserve-permissions",
         .letter = 'p',
         .kind = ARGS_FLAG,
         .help = "modes as they are, not less the umask",
         .value = &extract.keep_modes},
        {.name = "unsafe-links",
         .kind = ARGS_FLAG,
         .help = "also symbolic links that lead out of the directory",
         .value = &extract.unsafe_links},
        {.name = "no-progress",
         .kind = ARGS_FLAG,
         .help = "no progress bar on a terminal either",
         .value = &extract.no_progress},
        {0},
    };
    struct tar_archive archive;
    int count, errnum, result;

    result = args_parse_some(command, argc, argv, options, operands, 1, argc,
                             &count);
    if (result >= 0)
        return result;
    extract.mask = umask(0);
    umask(extract.mask);
    errnum = place_open(&extract.place, directory);
    if (errnum != 0)
        return tool_fail_errno(errnum, "%s", directory);
    result = tar_open(&archive, operands[0], true);
    if (result == TOOL_FINE) {
        result =
            tar_choose(&extract.choice, archive.tar, operands + 1, count - 1);
        if (result == TOOL_FINE)
            result = extract_all(&extract, archive.tar);
        tar_unchoose(&extract.choice);
        tar_close(&archive);
    }
    for (size_t i = 0; i < extract.later_count; i++) {
        free(extract.later[i].key);
        free(extract.later[i].target);
    }
    free(extract.later);
    place_close(&extract.place);
    return result;
}

const struct command command_tar_extract = {
    .name = "tar extract",
    .summary = "unpack members below a directory",
    .operands = "URI [KEY ...]",
    .notes =
        "With keys: those members, and what lies below them.  Nothing is "
        "written outside of\nthe directory or through a link.  Files belong to "
        "who extracts them; devices and\nfifos are skipped.\n",
    .example = "  farblk tar extract farblk://host/backup -C /tmp/backup\n"
               "  farblk tar extract file:backup.tar etc/ssh -C /tmp/backup\n",
    .run = extract_run,
};
