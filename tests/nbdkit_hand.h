/* SPDX-License-Identifier: ISC */
/*
 * The nbdkit plugin held in the hand: its callbacks, called by the test as
 * nbdkit does, over stand-ins for nbdkit's functions and for the library's.
 * The library's stand-in remembers the last call and answers as told.
 */
#ifndef FARBLK_TESTS_NBDKIT_HAND_H
#define FARBLK_TESTS_NBDKIT_HAND_H

#include "farblk/farblk.h"

#define HAND_URIS 8
#define HAND_EXPORTS 8
#define HAND_EXTENTS (1 << 17)

struct farblk {
    char uri[512];
    bool read_only;
    bool open;
    bool gone;
};

struct hand {
    /* The library: what it has, and how its next calls end. */
    struct farblk_info info;
    int status; /* 0 or negative: of every call on a device */
    int open_status, list_status;
    const char *exports[HAND_EXPORTS]; /* behind any server; ended by NULL */
    uint64_t run; /* sectors of each extent; every other is mapped */
    /* What was asked of it. */
    struct farblk devices[HAND_URIS]; /* opened, in order */
    unsigned opens, calls;
    const char *call; /* the last on a device: "read" ... */
    struct farblk *dev;
    uint64_t start, count;
    uint32_t flags;
    const void *buffer;
    /* nbdkit: what it was told. */
    const char *export_name; /* what the client chooses */
    char error[4096]; /* the last message; "" none */
    int errnum;
    unsigned listed;
    char list[HAND_EXPORTS][300];
    unsigned extents;
    struct {
        uint64_t offset, length;
        uint32_t type;
    } extent[HAND_EXTENTS];
};

struct nbdkit_plugin;

extern struct hand hand;
/* The plugin's table. */
extern const struct nbdkit_plugin *plugin;

struct nbdkit_plugin *plugin_init(void);

/* Before each test: a device of 2048 sectors of 512 octets that can do
 * everything; after it: nothing is open. */
int hand_setup(void **state);
int hand_teardown(void **state);

/* Configure the plugin with one parameter, which must be fine. */
void hand_configure(const char *key, const char *value);
/* A connection, which must come about. */
void *hand_connect(void);
/* Both, with the device file:/d. */
void *hand_begin(void);
/* The last message has this in it. */
void hand_said(const char *part);

#endif
