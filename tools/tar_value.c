/* SPDX-License-Identifier: ISC */
/*
 * farblk tar get and put: one value out of an archive, or into it.
 *
 * A new member's header tells its size, so put has to know it before the first
 * octet: of a regular file it does; what comes by a pipe is kept in a temporary
 * file first, unless --size tells.
 */
#include "tools/tar.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define VALUE_BUFFER (256u << 10)
#define NAME_MAX_TAR 31 /* octets of a user's or group's name in a header */

/* ------------------------------------------------------------ get */

struct get {
    const char *key, *file;
    uint64_t offset, length;
    bool has_length, no_progress;
};

static int
get_range(struct get *get, struct farblk_tar *tar)
{
    struct farblk_tar_stat stat;
    int status = farblk_tar_stat(tar, get->key, &stat, sizeof stat);

    if (status < 0)
        return tool_fail_last(status, NULL);
    if (stat.kind != FARBLK_TAR_VALUE)
        return tool_fail(FARBLK_NOT_A_VALUE, "\"%s\" is not a file", get->key);
    if (!get->has_length && get->offset <= stat.size)
        get->length = stat.size - get->offset;
    if (get->offset > stat.size || get->length > stat.size - get->offset)
        return tool_fail(FARBLK_INVALID,
                         "offset %llu and length %llu reach past the end of "
                         "\"%s\", which has %llu octets",
                         (unsigned long long)get->offset,
                         (unsigned long long)get->length, get->key,
                         (unsigned long long)stat.size);
    return TOOL_FINE;
}

static int
get_value(const struct get *get, struct farblk_tar *tar)
{
    bool standard = strcmp(get->file, "-") == 0;
    const char *label = standard ? "standard output" : get->file;
    int fd = STDOUT_FILENO, result;
    struct tar_copy copy;
    struct stat stat;

    if (!standard) {
        fd = open(get->file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (fd < 0)
            return tool_fail_errno(errno, "%s", get->file);
    }
    result = tar_copy_begin(&copy, tar, "get", get->length,
                            !standard && !get->no_progress);
    if (result == TOOL_FINE) {
        bool sparse =
            !standard && fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode);

        result = tar_copy_value(&copy, get->key, get->offset, get->length, fd,
                                sparse, label);
        result = tar_copy_end(&copy, result);
    }
    if (!standard && close(fd) != 0 && result == TOOL_FINE)
        result = tool_fail_errno(errno, "%s", get->file);
    return result;
}

static int
get_run(const struct command *command, int argc, char **argv)
{
    struct get get = {.file = "-"};
    const char *operands[2];
    const struct args_option options[] = {
        {.name = "output",
         .letter = 'o',
         .kind = ARGS_TEXT,
         .metavar = "FILE",
         .help = "where to; - is standard output (-)",
         .value = &get.file},
        {.name = "offset",
         .kind = ARGS_SIZE,
         .metavar = "SIZE",
         .help = "where in the value to begin, in octets (0)",
         .value = &get.offset},
        {.name = "length",
         .kind = ARGS_SIZE,
         .metavar = "SIZE",
         .help = "how many octets (all to the end)",
         .value = &get.length,
         .given = &get.has_length},
        {.name = "no-progress",
         .kind = ARGS_FLAG,
         .help = "no progress bar on a terminal either",
         .value = &get.no_progress},
        {0},
    };
    struct tar_archive archive;
    int result = args_parse(command, argc, argv, options, operands, 2);

    if (result >= 0)
        return result;
    get.key = operands[1];
    result = tar_open(&archive, operands[0], true);
    if (result != TOOL_FINE)
        return result;
    result = get_range(&get, archive.tar);
    if (result == TOOL_FINE)
        result = get_value(&get, archive.tar);
    tar_close(&archive);
    return result;
}

const struct command command_tar_get = {
    .name = "tar get",
    .summary = "write a member's content to a file or a pipe",
    .operands = "URI KEY",
    .notes = "Any offset and length will do.  In a file the holes of a sparse "
             "member stay holes.\n",
    .example = "  farblk tar get farblk://host/backup etc/fstab\n"
               "  farblk tar get file:backup.tar disk.img -o disk.img\n",
    .run = get_run,
};

/* ------------------------------------------------------------ put */

struct put {
    const char *file, *label;
    int fd;
    bool has_size, no_progress;
    uint64_t size, done;
    struct farblk_tar_attributes attributes;
    char user[NAME_MAX_TAR + 1], group[NAME_MAX_TAR + 1];
    struct progress progress;
    int result; /* of the source, when it ended the call */
};

/* A name that fits into a header, or NULL. */
static const char *
put_name(const char *name, char *to)
{
    if (name == NULL || strlen(name) > NAME_MAX_TAR)
        return NULL;
    return strcpy(to, name);
}

static void
put_owner(struct put *put, uid_t uid, gid_t gid)
{
    const struct passwd *user = getpwuid(uid);
    const struct group *group = getgrgid(gid);

    put->attributes.uid = uid;
    put->attributes.gid = gid;
    put->attributes.user =
        put_name(user != NULL ? user->pw_name : NULL, put->user);
    put->attributes.group =
        put_name(group != NULL ? group->gr_name : NULL, put->group);
}

/* What comes by a pipe, into a file without a name. */
static int
put_spool(struct put *put)
{
    static unsigned char buffer[VALUE_BUFFER];
    FILE *spool = tmpfile();
    int errnum, fd;

    if (spool == NULL)
        return tool_fail_errno(errno, "a temporary file");
    for (;;) {
        ssize_t count = read(put->fd, buffer, sizeof buffer);

        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0) {
            errnum = errno;
            fclose(spool);
            return tool_fail_errno(errnum, "%s", put->label);
        }
        if (count == 0)
            break;
        if (fwrite(buffer, 1, (size_t)count, spool) != (size_t)count) {
            errnum = errno;
            fclose(spool);
            return tool_fail_errno(errnum, "a temporary file");
        }
        put->size += (uint64_t)count;
    }
    fd = fflush(spool) == 0 ? dup(fileno(spool)) : -1;
    errnum = errno;
    fclose(spool);
    if (fd < 0 || lseek(fd, 0, SEEK_SET) != 0)
        return tool_fail_errno(errnum, "a temporary file");
    if (put->fd != STDIN_FILENO)
        close(put->fd);
    put->fd = fd;
    return TOOL_FINE;
}

/* Size and attributes, before anything is written. */
static int
put_prepare(struct put *put, bool has_mode, uint64_t mode)
{
    struct farblk_tar_attributes *attributes = &put->attributes;
    struct stat stat;
    off_t at;

    attributes->size = sizeof *attributes;
    if (fstat(put->fd, &stat) != 0)
        return tool_fail_errno(errno, "%s", put->label);
    if (S_ISDIR(stat.st_mode))
        return tool_fail_errno(EISDIR, "%s", put->label);
    if (S_ISREG(stat.st_mode)) {
        attributes->has_mode = true;
        attributes->mode = stat.st_mode & 07777;
        attributes->has_mtime = true;
        attributes->mtime = stat.st_mtim.tv_sec;
        put_owner(put, stat.st_uid, stat.st_gid);
    } else {
        put_owner(put, geteuid(), getegid());
    }
    if (has_mode) {
        attributes->has_mode = true;
        attributes->mode = (uint32_t)mode;
    }
    if (put->has_size)
        return TOOL_FINE;
    if (!S_ISREG(stat.st_mode))
        return put_spool(put);
    at = lseek(put->fd, 0, SEEK_CUR);
    put->size = (uint64_t)(at < stat.st_size ? stat.st_size - at : 0);
    return TOOL_FINE;
}

static int
put_source(void *arg, void *buffer, size_t length)
{
    struct put *put = arg;
    unsigned char *to = buffer;

    while (length > 0) {
        ssize_t count = read(put->fd, to, length);

        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) {
            progress_end(&put->progress, put->done, put->done, true);
            put->progress.on = false;
            if (count < 0)
                put->result = tool_fail_errno(errno, "%s", put->label);
            else
                put->result = tool_fail(
                    FARBLK_INVALID,
                    "%s ends after %llu octets, not %llu; nothing was added",
                    put->label, (unsigned long long)put->done,
                    (unsigned long long)put->size);
            return 1;
        }
        to += count;
        length -= (size_t)count;
        put->done += (uint64_t)count;
        progress_update(&put->progress, put->done, put->done);
    }
    return 0;
}

static int
put_value(struct put *put, struct farblk_tar *tar, const char *key)
{
    int status;

    progress_begin(&put->progress, "put", put->size, !put->no_progress);
    status =
        farblk_tar_put(tar, key, put->size, &put->attributes, put_source, put);
    progress_end(&put->progress, put->done, put->done, status != 0);
    if (status < 0)
        return tool_fail_last(status, NULL);
    return put->result;
}

/* Octal, 07777 at most. */
static bool
put_mode(const char *text, uint64_t *mode)
{
    size_t length = strspn(text, "01234567");

    if (length == 0 || length > 6 || text[length] != '\0')
        return false;
    *mode = strtoul(text, NULL, 8);
    return *mode <= 07777;
}

static int
put_run(const struct command *command, int argc, char **argv)
{
    struct put put = {.file = "-", .fd = STDIN_FILENO};
    const char *operands[2], *mode_text = NULL;
    uint64_t mode = 0;
    const struct args_option options[] = {
        {.name = "input",
         .letter = 'i',
         .kind = ARGS_TEXT,
         .metavar = "FILE",
         .help = "where from; - is standard input (-)",
         .value = &put.file},
        {.name = "size",
         .kind = ARGS_SIZE,
         .metavar = "SIZE",
         .help = "octets to read; a pipe needs no temporary file then",
         .value = &put.size,
         .given = &put.has_size},
        {.name = "mode",
         .kind = ARGS_TEXT,
         .metavar = "OCTAL",
         .help = "permissions (the file's, else 0644)",
         .value = &mode_text},
        {.name = "no-progress",
         .kind = ARGS_FLAG,
         .help = "no progress bar on a terminal either",
         .value = &put.no_progress},
        {0},
    };
    struct tar_archive archive;
    int result = args_parse(command, argc, argv, options, operands, 2);

    if (result >= 0)
        return result;
    if (mode_text != NULL && !put_mode(mode_text, &mode))
        return tool_usage("--mode: \"%s\" is not an octal mode up to 7777",
                          mode_text);
    put.label = strcmp(put.file, "-") == 0 ? "standard input" : put.file;
    if (strcmp(put.file, "-") != 0) {
        put.fd = open(put.file, O_RDONLY | O_CLOEXEC);
        if (put.fd < 0)
            return tool_fail_errno(errno, "%s", put.file);
    }
    result = put_prepare(&put, mode_text != NULL, mode);
    if (result == TOOL_FINE)
        result = tar_open(&archive, operands[0], false);
    if (result == TOOL_FINE) {
        result = put_value(&put, archive.tar, operands[1]);
        tar_close(&archive);
    }
    if (put.fd != STDIN_FILENO)
        close(put.fd);
    return result;
}

const struct command command_tar_put = {
    .name = "tar put",
    .summary = "add a member from a file or a pipe",
    .operands = "URI KEY",
    .notes = "The key must be new.  When it returns, the member is on stable "
             "storage; when it\nfails, the archive is as before.\n",
    .example =
        "  farblk tar put farblk://host/backup notes/today -i notes.txt\n"
        "  date | farblk tar put file:backup.tar log/date\n",
    .run = put_run,
};
