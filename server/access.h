/* SPDX-License-Identifier: ISC */
/*
 * Who may do what: whom a connection speaks for, what an export asks of those
 * who open it, and where a server may listen.
 */
#ifndef FARBLK_SERVER_ACCESS_H
#define FARBLK_SERVER_ACCESS_H

#include "core/error.h"
#include "farblk/server.h"
#include "proto/link.h"

/* Wrong tokens that a connection may show, the last of which ends it. */
#define ACCESS_TOKENS_WRONG 3u

/* Who is at the other end. */
struct access_who {
    bool known; /* the kernel tells, or it is this process: */
    uint32_t uid, gid; /* gid: the primary one */
    bool is_private; /* nobody can listen in: tokens may be shown */
};

/* What an export asks for.  All that is there must be met. */
struct access_rules {
    bool named; /* one of these: */
    uint32_t *uids, *gids;
    size_t uid_count, gid_count;
    uint32_t token_length; /* 0: none */
    uint8_t token[WIRE_TOKEN_MAX]; /* zeros behind it */
};

struct access_who access_who_is(const struct link_peer *peer);

/* Copy what is asked for; reads the token.  access_rules_fini() is fine either
 * way, and for zeroed rules. */
int access_rules_init(struct access_rules *rules,
                      const struct farblk_export_options *options,
                      struct error *error);
void access_rules_fini(struct access_rules *rules);

/* Whether the peer is one of those who are named, if any are. */
bool access_is_named(const struct access_rules *rules,
                     const struct access_who *who);
/* Whether the token is the right one, if there is one; takes the same time
 * whatever it is.  Zeros stand behind its `length` octets. */
bool access_has_token(const struct access_rules *rules,
                      const uint8_t token[WIRE_TOKEN_MAX], uint32_t length);

/* Refuse a URL at which peers from elsewhere could connect in the clear.  May
 * block, for a name is looked up. */
int access_check_url(const char *url, struct error *error);

#endif
