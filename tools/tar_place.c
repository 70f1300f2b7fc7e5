/* SPDX-License-Identifier: ISC */
/* See tar_place.h. */
#include "tools/tar_place.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WALK (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

int
place_open(struct place *place, const char *path)
{
    memset(place, 0, sizeof *place);
    place->parent = -1;
    place->root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return place->root < 0 ? errno : 0;
}

static void
place_forget(struct place *place)
{
    if (place->parent >= 0)
        close(place->parent);
    free(place->parent_key);
    place->parent = -1;
    place->parent_key = NULL;
}

void
place_close(struct place *place)
{
    place_forget(place);
    if (place->root >= 0)
        close(place->root);
}

/* ------------------------------------------------------------ the way */

/* The next component of a key; false: none is left. */
static bool
next_name(const char **at, char name[NAME_MAX + 1], int *errnum)
{
    size_t length;

    *at += strspn(*at, "/");
    length = strcspn(*at, "/");
    *errnum = 0;
    if (length == 0)
        return false;
    if (length > NAME_MAX)
        *errnum = ENAMETOOLONG;
    else if (length == 2 && memcmp(*at, "..", 2) == 0)
        *errnum = PLACE_OUTSIDE;
    else
        memcpy(name, *at, length);
    name[length > NAME_MAX ? 0 : length] = '\0';
    *at += length;
    return *errnum == 0;
}

/* From *at into a directory that is there, or is made.  On failure *at stays. */
static int
step(int *at, const char *name, bool make)
{
    int next;

    if (make && mkdirat(*at, name, 0777) != 0 && errno != EEXIST)
        return errno;
    next = openat(*at, name, WALK);
    if (next < 0)
        return errno == ELOOP ? ENOTDIR : errno;
    close(*at);
    *at = next;
    return 0;
}

/* Walk [key, end) from the root; *fd is the caller's. */
static int
walk(const struct place *place, const char *key, const char *end, bool make,
     int *fd)
{
    char name[NAME_MAX + 1];
    int at = openat(place->root, ".", WALK), errnum = at < 0 ? errno : 0;

    while (errnum == 0 && key < end && next_name(&key, name, &errnum))
        errnum = step(&at, name, make);
    if (errnum == 0)
        *fd = at;
    else if (at >= 0)
        close(at);
    return errnum;
}

/* Go to the key's parent, which is made; its name in there is place->name. */
static int
enter(struct place *place, const char *key)
{
    const char *name = strrchr(key, '/');
    size_t length = (size_t)(name - key);
    int errnum, fd;

    if (strcmp(name + 1, "..") == 0)
        return PLACE_OUTSIDE;
    if (strlen(name + 1) > NAME_MAX)
        return ENAMETOOLONG;
    place->name = name + 1;
    if (place->parent_key != NULL && strlen(place->parent_key) == length
        && memcmp(place->parent_key, key, length) == 0)
        return 0;
    place_forget(place);
    errnum = walk(place, key, name, true, &fd);
    if (errnum != 0)
        return errnum;
    place->parent_key = strndup(key, length);
    place->parent = fd;
    if (place->parent_key == NULL) {
        place_forget(place);
        return ENOMEM;
    }
    return 0;
}

/* A name in the parent that nobody has. */
static const char *
temporary_name(struct place *place)
{
    snprintf(place->temporary, sizeof place->temporary, ".farblk-%ld-%lu",
             (long)getpid(), place->number++);
    return place->temporary;
}

/* What is there already must be something that a rename may replace. */
static int
check_replace(const struct place *place)
{
    struct stat stat;

    if (fstatat(place->parent, place->name, &stat, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? 0 : errno;
    return S_ISDIR(stat.st_mode) ? EISDIR : 0;
}

/* The temporary name becomes the last one. */
static int
settle(struct place *place)
{
    int errnum;

    if (renameat(place->parent, place->temporary, place->parent, place->name)
        == 0)
        return 0;
    errnum = errno;
    unlinkat(place->parent, place->temporary, 0);
    return errnum;
}

static void
stamp_times(const struct place_stamp *stamp, struct timespec times[2])
{
    times[0] = (struct timespec){.tv_nsec = UTIME_OMIT};
    times[1] = (struct timespec){.tv_sec = (time_t)stamp->mtime,
                                 .tv_nsec = (long)stamp->mtime_nsec};
}

static int
stamp_descriptor(int fd, const struct place_stamp *stamp)
{
    struct timespec times[2];

    stamp_times(stamp, times);
    return fchmod(fd, stamp->mode) == 0 && futimens(fd, times) == 0 ? 0 : errno;
}

/* ------------------------------------------------------------ directories */

int
place_directory(struct place *place, const char *key)
{
    struct stat stat;
    int errnum = enter(place, key);

    if (errnum != 0)
        return errnum;
    if (mkdirat(place->parent, place->name, 0700) == 0)
        return 0;
    if (errno != EEXIST)
        return errno;
    if (fstatat(place->parent, place->name, &stat, AT_SYMLINK_NOFOLLOW) != 0)
        return errno;
    return S_ISDIR(stat.st_mode) ? 0 : ENOTDIR;
}

int
place_directory_stamp(struct place *place, const char *key,
                      const struct place_stamp *stamp)
{
    int errnum = enter(place, key), fd;

    if (errnum != 0)
        return errnum;
    fd = openat(place->parent, place->name,
                O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno;
    errnum = stamp_descriptor(fd, stamp);
    close(fd);
    return errnum;
}

/* ------------------------------------------------------------ files */

int
place_file_begin(struct place *place, const char *key, int *fd)
{
    int errnum = enter(place, key);

    if (errnum == 0)
        errnum = check_replace(place);
    if (errnum != 0)
        return errnum;
    do
        *fd =
            openat(place->parent, temporary_name(place),
                   O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    while (*fd < 0 && errno == EEXIST);
    return *fd < 0 ? errno : 0;
}

void
place_file_drop(struct place *place, int fd)
{
    unlinkat(place->parent, place->temporary, 0);
    close(fd);
}

int
place_file_end(struct place *place, int fd, const struct place_stamp *stamp)
{
    int errnum = stamp_descriptor(fd, stamp);

    if (errnum != 0) {
        place_file_drop(place, fd);
        return errnum;
    }
    if (close(fd) != 0) {
        errnum = errno;
        unlinkat(place->parent, place->temporary, 0);
        return errnum;
    }
    return settle(place);
}

/* ------------------------------------------------------------ links */

int
place_link(struct place *place, const char *key, const char *target)
{
    const char *name = strrchr(target, '/');
    struct stat stat;
    int errnum = enter(place, key), fd;

    if (errnum == 0)
        errnum = check_replace(place);
    if (errnum == 0)
        errnum = walk(place, target, name, false, &fd);
    if (errnum != 0)
        return errnum;
    name++;
    if (strcmp(name, "..") == 0)
        errnum = PLACE_OUTSIDE;
    else if (fstatat(fd, name, &stat, AT_SYMLINK_NOFOLLOW) != 0)
        errnum = errno;
    else if (!S_ISREG(stat.st_mode))
        errnum = EINVAL;
    while (errnum == 0
           && linkat(fd, name, place->parent, temporary_name(place), 0) != 0)
        if (errno != EEXIST)
            errnum = errno;
    close(fd);
    if (errnum == 0)
        errnum = settle(place);
    if (errnum == 0) /* it is still there if both names were one file before */
        unlinkat(place->parent, place->temporary, 0);
    return errnum;
}

int
place_symlink(struct place *place, const char *key, const char *target,
              const struct place_stamp *stamp)
{
    struct timespec times[2];
    int errnum = enter(place, key);

    if (errnum == 0)
        errnum = check_replace(place);
    if (errnum != 0)
        return errnum;
    while (symlinkat(target, place->parent, temporary_name(place)) != 0)
        if (errno != EEXIST)
            return errno;
    stamp_times(stamp, times);
    /* Not every file system keeps the time of a link. */
    (void)utimensat(place->parent, place->temporary, times,
                    AT_SYMLINK_NOFOLLOW);
    return settle(place);
}

bool
place_inside(const char *key, const char *target)
{
    size_t above = 0;
    bool named = false;

    if (*target == '/' || *target == '\0')
        return false;
    for (const char *at = strrchr(key, '/'); at > key; at--)
        above += at[-1] == '/';
    while (*target != '\0') {
        size_t length = strcspn(target, "/");

        if (length == 2 && memcmp(target, "..", 2) == 0) {
            if (named || above == 0)
                return false;
            above--;
        } else if (length > 0 && !(length == 1 && *target == '.')) {
            named = true;
        }
        target += length;
        target += strspn(target, "/");
    }
    return true;
}
