/* SPDX-License-Identifier: ISC */
/*
 * The options and operands of a subcommand, from a table that is also its
 * --help.  Options may stand anywhere before `--`; `-` alone is an operand.
 */
#ifndef FARBLK_TOOLS_ARGS_H
#define FARBLK_TOOLS_ARGS_H

#include "tools/tool.h"

enum args_kind {
    ARGS_FLAG, /* value: bool *, set to true */
    ARGS_SIZE, /* value: uint64_t *, octets with suffix */
    ARGS_NUMBER, /* value: uint64_t *, decimal */
    ARGS_TEXT, /* value: const char ** */
};

struct args_option {
    const char *name; /* without its dashes */
    char letter; /* 0: none */
    enum args_kind kind;
    const char *metavar; /* of the value in --help; NULL for flags */
    const char *help; /* one line */
    void *value;
    bool *given; /* may be NULL; set to true when the option is there */
};

/* Fill the options' values and exactly `count` operands.  Returns -1 to go on,
 * else the exit status: after --help TOOL_FINE, after a mistake, which it has
 * printed, TOOL_USAGE.  `options` ends with .name == NULL, or is NULL. */
int args_parse(const struct command *command, int argc, char **argv,
               const struct args_option *options, const char **operands,
               int count);

/* The same with `count` ... `most` operands; *given: how many there are. */
int args_parse_some(const struct command *command, int argc, char **argv,
                    const struct args_option *options, const char **operands,
                    int count, int most, int *given);

/* "4k", "1M", "512": octets, powers of 1024; false when malformed or above
 * UINT64_MAX. */
bool args_size(const char *text, uint64_t *size);

#endif
