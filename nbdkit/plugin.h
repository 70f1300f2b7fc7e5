/* SPDX-License-Identifier: ISC */
/*
 * The parts of nbdkit-farblk-plugin: what was asked for (config.c), the devices
 * in use (shared.c), and nbdkit's callbacks on them (plugin.c).
 *
 * Functions that fail have told nbdkit why, by nbdkit_error().
 */
#ifndef FARBLK_NBDKIT_PLUGIN_H
#define FARBLK_NBDKIT_PLUGIN_H

#include <farblk/farblk.h>

#include <stdbool.h>

/* ------------------------------------------------------------ config.c
 *
 * Set up by config_set() and config_check(), which are called before nbdkit
 * forks and so open nothing; read only afterwards, by any thread.
 */

/* One parameter of the command line.  0, or -1. */
int config_set(const char *key, const char *value);
/* They are complete: see that they make sense, as far as that can be told
 * without opening a device.  0, or -1. */
int config_check(void);
/* All of it goes. */
void config_free(void);

/* A device stays open when its last client has gone. */
bool config_keep(void);
/* The URI of the server whose devices are exported, or NULL: it is one device.
 */
const char *config_server(void);
/* The URI of the device behind an export's name, which the client chose and may
 * be anything; where there is one device, its URI.  free() it.  NULL: there can
 * be no such export, or no memory. */
char *config_device(const char *export_name);

/* ------------------------------------------------------------ shared.c
 *
 * Each device is opened once, for all NBD connections that use it.  Any thread.
 */

struct shared {
    struct farblk *dev;
    /* shared.c's own */
    char *uri;
    struct shared *next;
    unsigned users;
    bool read_only;
    bool retired; /* for those who have it, and nobody else */
    bool kept; /* one of the users is config_keep() */
};

/* The device of that URI: the one in use, or when that has lost its storage or
 * its server, or there is none, another.  Fills *info with what it is now.  May
 * block.  NULL: it can not be opened. */
struct shared *shared_acquire(const char *uri, bool read_only,
                              struct farblk_info *info);
/* Give it back; the last user closes it.  May block. */
void shared_release(struct shared *shared);
/* Close whatever is left, when nobody uses it any more: what was kept, and the
 * devices of those connections that nbdkit ended with itself, which it does not
 * close. */
void shared_end(void);

#endif
