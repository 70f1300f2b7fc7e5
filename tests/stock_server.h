/* SPDX-License-Identifier: ISC */
/*
 * A server of one device on a stock nng_rep0 socket, by protobuf-c alone: what
 * anybody could write from wire.md.  Serves an array from one thread, one
 * request at a time.
 */
#ifndef FARBLK_TESTS_STOCK_SERVER_H
#define FARBLK_TESTS_STOCK_SERVER_H

#include "tests/peer.h"

#define STOCK_SECTORS 256u
/* In the text of a range error. */
#define STOCK_TEXT "the stock server says no"

struct stock_server;

/* Export "disk" at this nng URL; fails the test when it can not. */
struct stock_server *stock_server_start(const char *url);
void stock_server_stop(struct stock_server *server);

#endif
