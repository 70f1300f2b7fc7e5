/* SPDX-License-Identifier: ISC */
/*
 * Exports: devices with the names under which clients open them.
 */
#ifndef FARBLK_SERVER_EXPORT_H
#define FARBLK_SERVER_EXPORT_H

#include "core/error.h"
#include "proto/codec.h"
#include "server/access.h"
#include "server/server.h"

struct farblk;

struct export
{
    struct export *next;
    struct farblk *dev;
    uint32_t sector_size;
    uint8_t content[WIRE_INSTANCE_SIZE];
    struct access_rules rules;
    char name[CODEC_NAME_LENGTH];
};

/* Open a device and add it.  Blocks.  `options`: NULL, or as the API takes
 * them, checked. */
int export_add(struct farblk_server *server, const char *name, const char *uri,
               const struct farblk_export_options *options,
               struct error *error);

/* NULL when there is none.  Exports stay until the server has stopped. */
struct export *export_find(struct farblk_server *server, const char *name);

/* Up to `max` of those that sort behind `after` and that the peer may open
 * without a token; *more: there are others. */
size_t export_list(struct farblk_server *server, const struct access_who *who,
                   const char *after, struct codec_device *devices, size_t max,
                   bool *more);

/* Flush all, at once, within timeout_ms (negative: no limit).  The first
 * failure is returned.  Blocks. */
int export_flush(struct farblk_server *server, int32_t timeout_ms,
                 struct error *error);

/* Close all.  Nobody uses them any more.  Blocks. */
void export_close_all(struct farblk_server *server);

#endif
