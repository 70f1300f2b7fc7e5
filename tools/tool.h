/* SPDX-License-Identifier: ISC */
/*
 * What the files of the farblk command share: the subcommands, the exit
 * statuses, messages, and a device opened with everything one wants to know.
 */
#ifndef FARBLK_TOOLS_TOOL_H
#define FARBLK_TOOLS_TOOL_H

#include "farblk/farblk.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit statuses. */
enum tool_exit {
    TOOL_FINE = 0,
    TOOL_FAILED = 1, /* also: compare found a difference */
    TOOL_USAGE = 2,
};

/* One subcommand.  Lives at the end of the file that implements it. */
struct command {
    const char *name;
    const char *summary; /* one line */
    const char *operands; /* "SRC DST" */
    const char *notes; /* lines between options and example, or NULL */
    const char *example; /* whole lines, each begins with two spaces */
    /* argv[0] is the subcommand's name; returns an exit status. */
    int (*run)(const struct command *command, int argc, char **argv);
};

extern const struct command command_info;
extern const struct command command_list;
extern const struct command command_read;
extern const struct command command_write;
extern const struct command command_copy;
extern const struct command command_compare;
extern const struct command command_mirror;
extern const struct command command_map;
extern const struct command command_resize;
extern const struct command command_flush;
extern const struct command command_discard;
extern const struct command command_zero;
extern const struct command command_bench;
extern const struct command command_tar;

/* The subcommand that runs, for messages; "" before one was found. */
extern const char *tool_name;

/* Print "farblk COMMAND: text (STATUS)" on stderr, without control
 * characters.  Returns TOOL_FAILED. */
int tool_fail(int status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same with the text of this thread's last failed library call, after
 * "what: " when `what` is not NULL. */
int tool_fail_last(int status, const char *what);
/* The same with ": strerror(errnum)" and no status. */
int tool_fail_errno(int errnum, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* "farblk COMMAND: text", for what is neither failure nor success. */
void tool_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* "farblk COMMAND: text" and where to find help.  Returns TOOL_USAGE. */
int tool_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* An open device. */
struct tool_device {
    const char *uri;
    struct farblk *dev;
    struct farblk_info info;
    uint64_t size; /* octets */
};

/* Open and ask for the info.  On failure prints it, leaves device->dev NULL and
 * returns TOOL_FAILED; else TOOL_FINE. */
int tool_open(struct tool_device *device, const char *uri, bool read_only);
/* Close, if open. */
void tool_close(struct tool_device *device);

/* Whether [offset, offset + length) is whole sectors within the device; prints
 * what is wrong and returns TOOL_FAILED if not. */
int tool_check_range(const struct tool_device *device, uint64_t offset,
                     uint64_t length);

/* Octets for one request of sequential work on `a` and, unless it is NULL, `b`:
 * what both prefer, a whole number of the larger sector, 256 KiB where they do
 * not say. */
uint32_t tool_request_size(const struct tool_device *a,
                           const struct tool_device *b);

/* The larger sector of both; b may be NULL. */
uint32_t tool_sector(const struct tool_device *a, const struct tool_device *b);

#endif
