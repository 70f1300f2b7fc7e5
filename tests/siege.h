/* SPDX-License-Identifier: ISC */
/*
 * A server inside the test that broken peers attack, one after another, over
 * every transport that carries plain octets; and how to see that it goes on and
 * that nothing of them is left.
 *
 * A transport is one line in siege.c: where to listen, and how to connect.
 */
#ifndef FARBLK_TESTS_SIEGE_H
#define FARBLK_TESTS_SIEGE_H

#include "farblk/server.h"
#include "tests/peer.h"

#define SIEGE_SECTORS 1024u
#define SIEGE_LEASE_MS 3000
#define SIEGE_FRAME_MS 2000
#define SIEGE_HELLO_MS 3000
#define SIEGE_HELLO_TLS_MS 10000
#define SIEGE_PAYLOAD 65536u

struct siege {
    const char *transport;
    struct farblk_server *server;
    char url[256], uri[320]; /* for peers and for farblk_open() */
    struct farblk *disk; /* the export "disk", opened locally */
};

/* Which transport: the program's one argument.  Non-zero, with a message, when
 * there is no such one. */
int siege_choose(int argc, char **argv);
/* For a group of tests, each of which gets the siege as its state.  The end fails
 * unless no connection, session, request, octet, block or descriptor is left. */
int siege_begin(void **state);
int siege_end(void **state);

/* A good client works now. */
void siege_expect_service(struct siege *siege);
/* What farblk_server_stats() says. */
struct farblk_server_stats siege_stats(struct siege *siege);
/* The descriptors of this process. */

/* Connect, over what carries the octets there: a descriptor for plain octets, or
 * -1. */
int siege_dial(struct siege *siege);
/* The same, and greet. */
bool siege_connect(struct siege *siege, struct peer *peer);
/* A peer that said Hello and opened "disk". */
void siege_peer(struct siege *siege, struct peer *peer);
/* Close it with a reset instead of an orderly end. */
void siege_reset(int fd);

#endif
