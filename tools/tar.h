/* SPDX-License-Identifier: ISC */
/*
 * What the files of farblk tar share.
 *
 *   tar.c          its subcommands; archives, and which members are meant
 *   tar_list.c     list
 *   tar_value.c    get, put
 *   tar_change.c   rm, create
 *   tar_extract.c  extract
 *   tar_copy.c     a value into a file
 *   tar_place.c    files, directories and links below a directory, safely
 */
#ifndef FARBLK_TOOLS_TAR_H
#define FARBLK_TOOLS_TAR_H

#include "tools/args.h"
#include "tools/progress.h"

#include "farblk/tar.h"

extern const struct command command_tar_list;
extern const struct command command_tar_get;
extern const struct command command_tar_put;
extern const struct command command_tar_rm;
extern const struct command command_tar_extract;
extern const struct command command_tar_create;

/* An archive on its device. */
struct tar_archive {
    struct tool_device device;
    struct farblk_tar *tar;
};

/* Open both.  On failure prints it, leaves nothing open and returns
 * TOOL_FAILED. */
int tar_open(struct tar_archive *archive, const char *uri, bool read_only);
/* Close, if open. */
void tar_close(struct tar_archive *archive);

/* A key as the library tells it, "/a/b", from any way of writing it; free() it.
 * NULL: no memory, which was printed. */
char *tar_key(const char *text);

/* Which members the operands of a command mean: all, or those of these keys and
 * what lies below them. */
struct tar_choice {
    char **keys;
    int count; /* 0: all */
};

/* The keys have to be there; prints what is wrong.  An exit status; tar_unchoose()
 * in any case. */
int tar_choose(struct tar_choice *choice, struct farblk_tar *tar,
               const char *const *operands, int count);
bool tar_chosen(const struct tar_choice *choice, const char *key);
void tar_unchoose(struct tar_choice *choice);

/* ------------------------------------------------------------ tar_copy.c */

/* Values on their way into files, and how far it is. */
struct tar_copy {
    struct farblk_tar *tar;
    unsigned char *buffer;
    struct progress progress;
    uint64_t covered, moved; /* octets */
    /* Why it failed: then no other value is worth a try. */
    bool over;
    int signal; /* that ended it, or 0 */
};

/* An exit status.  `total`: octets of all values to come.  A signal that was
 * noted (interrupt.h) ends the copying. */
int tar_copy_begin(struct tar_copy *copy, struct farblk_tar *tar,
                   const char *what, uint64_t total, bool show_progress);
/* Octets [offset, offset + length) of a value to the descriptor.  `sparse`: it is
 * an empty file, whose holes are left out.  Prints what goes wrong, by `file`.
 * An exit status. */
int tar_copy_value(struct tar_copy *copy, const char *key, uint64_t offset,
                   uint64_t length, int fd, bool sparse, const char *file);
/* Wipe the progress, for a message. */
void tar_copy_wipe(struct tar_copy *copy);
/* Returns `result`, or what stands for the signal that came. */
int tar_copy_end(struct tar_copy *copy, int result);

#endif
