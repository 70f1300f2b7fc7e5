/* SPDX-License-Identifier: ISC */
/*
 * Files, directories and links below one directory, wherever their names and
 * what is there already would lead.
 *
 * A key's parents are walked component by component from the directory's
 * descriptor, no symbolic link followed; one that is in the way is an error.  A
 * file is made under a name of its own and renamed when it is complete: so
 * nothing is written through a link or into a file that was there, and what was
 * there stays until the new one takes its place.
 *
 * Calls return 0, an errno, or PLACE_OUTSIDE: the key has "..".  ENOTDIR:
 * something that is no directory, maybe a link, is in the way.  Keys are "/a/b"
 * (tar_key()).
 */
#ifndef FARBLK_TOOLS_TAR_PLACE_H
#define FARBLK_TOOLS_TAR_PLACE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PLACE_OUTSIDE (-1)

struct place {
    int root, parent; /* parent: of the last key, -1: none */
    char *parent_key;
    const char *name; /* in parent, of the last key */
    char temporary[64];
    unsigned long number;
};

struct place_stamp {
    mode_t mode;
    int64_t mtime;
    uint32_t mtime_nsec;
};

int place_open(struct place *place, const char *path);
void place_close(struct place *place);

/* Make a directory, open to its owner until it gets its stamp; or take the one
 * that is there as it is. */
int place_directory(struct place *place, const char *key);
int place_directory_stamp(struct place *place, const char *key,
                          const struct place_stamp *stamp);

/* Begin a file: *fd, empty.  End it, with its stamp, in its place; or drop it.
 * Both close fd.  Nothing else is placed in between. */
int place_file_begin(struct place *place, const char *key, int *fd);
int place_file_end(struct place *place, int fd,
                   const struct place_stamp *stamp);
void place_file_drop(struct place *place, int fd);

/* A hard link to a regular file that was placed before. */
int place_link(struct place *place, const char *key, const char *target);

/* A symbolic link, whatever it says. */
int place_symlink(struct place *place, const char *key, const char *target,
                  const struct place_stamp *stamp);

/* Whether a symbolic link of this key can lead nowhere but below the directory:
 * its target is relative, and ".." stands in it at the beginning alone, not more
 * often than there are directories above.  (After a name, where ".." leads is
 * another link's affair.) */
bool place_inside(const char *key, const char *target);

#endif
