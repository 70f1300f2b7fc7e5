/* SPDX-License-Identifier: ISC */
/*
 * What farblkd is told: its options and its configuration file, which has the
 * same words.  Uses the public headers only.
 */
#ifndef FARBLK_SERVER_CONFIG_H
#define FARBLK_SERVER_CONFIG_H

#include "farblk/server.h"

struct config_export {
    char *name, *uri;
    char *token_file; /* NULL: none */
    uint32_t *uids, *gids; /* who may open it; none of either: everybody */
    size_t uid_count, gid_count;
};

/* A user and a group. */
struct config_owner {
    bool given, has_gid;
    uint32_t uid, gid;
    char name[64]; /* "" when the database has none */
};

/* Zeroed: nothing was told. */
struct config {
    struct farblk_server_options server;
    char **listen;
    size_t listen_count;
    struct config_export *exports;
    size_t export_count;
    char *pidfile; /* NULL: none */
    char *tls_cert, *tls_key, *tls_ca; /* what `server` points to */
    enum farblk_log_level log_level;
    struct config_owner user; /* whom to become when all is open */
    bool help, version; /* asked for; nothing else is to be done */
};

/* Read the arguments of main().  False, with one line on stderr, when they are
 * wrong; config_fini() is fine either way. */
bool config_read(struct config *config, int argc, char **argv);

void config_fini(struct config *config);

/* --help, on stdout. */
void config_print_help(void);

#endif
