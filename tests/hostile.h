/* SPDX-License-Identifier: ISC */
/*
 * What the tests with broken peers share: a real farblkd with short time
 * limits and a small payload, over ipc and then over tcp, with a good client
 * that was there before.
 */
#ifndef FARBLK_TESTS_HOSTILE_H
#define FARBLK_TESTS_HOSTILE_H

#include "tests/peer.h"
#include "tests/ways.h"

extern struct rig *hostile_rig;

/* Where it listens. */
const char *hostile_url(void);
/* The server goes on, for the old client and for a new one. */
void hostile_expect_service(void);
/* How many connections it has told to be closed. */
size_t hostile_closed(void);
int hostile_connect(bool greet);
/* It must be closed, and the log must say so with this reason. */
void hostile_expect_closed(int fd, const char *reason);
/* A frame's head into `to` (up to 9 octets): [type] length; its size. */
size_t hostile_frame(uint8_t *to, uint64_t length);

#define HOSTILE(name)                                                          \
    {                                                                          \
#name, name, NULL, NULL, NULL                                          \
    }

/* Run them over ipc and over tcp, each with a server of its own, which must end
 * well. */
int hostile_run(struct CMUnitTest *tests, size_t count);

#endif
