/* SPDX-License-Identifier: ISC */
/*
 * Two hosts in one machine: network namespaces that only a cable between them
 * joins, a veth pair.  Packets on a cable that is pulled out vanish, and nobody
 * is told; sockets stay open.
 *
 * The test's process is the client's host from the beginning on; it goes to the
 * other for as long as it takes to start what shall run there.  Both end with
 * those who live in them: there is nothing to clean up.
 */
#ifndef FARBLK_TESTS_TWO_HOSTS_H
#define FARBLK_TESTS_TWO_HOSTS_H

#include <stdbool.h>
#include <stddef.h>

#define TWO_HOSTS_SERVER "10.97.53.1"
#define TWO_HOSTS_CLIENT "10.97.53.2"

/* Before the process has threads.  NULL, or why it can not be. */
const char *two_hosts_begin(void);
/* The calling thread, and what it starts, is on the server's host from here on;
 * or on the client's again. */
void two_hosts_go(bool to_server);
/* Pull the cable out, or put it in again; it may be so already. */
void two_hosts_cable(bool in);
/* What the server sends vanishes; what the client sends goes on. */
void two_hosts_mute(bool mute);
/* How many TCP connections to that port of the server this host believes in. */
unsigned two_hosts_connections(unsigned port);

#endif
