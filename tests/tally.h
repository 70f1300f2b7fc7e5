/* SPDX-License-Identifier: ISC */
/*
 * A device in memory that counts how often each write is executed, by a tag at
 * the beginning of its data, behind a server inside the test.
 *
 * Some of its ios end at once, others a little later on another thread, so that
 * requests are under way at any moment.
 */
#ifndef FARBLK_TESTS_TALLY_H
#define FARBLK_TESTS_TALLY_H

#include "farblk/farblk.h"
#include "farblk/server.h"

#include <stdbool.h>

#define TALLY_SECTOR 512u
#define TALLY_SECTORS 1024u
#define TALLY_TAGS 65536u /* 1 ... */

struct tally {
    struct farblk_server *server;
    char url[256];
    bool late; /* some ios end later */
};

/* A server that listens on `url` and exports the device as "disk". */
void tally_start(struct tally *tally, const char *url,
                 const struct farblk_server_options *options);
void tally_stop(struct tally *tally);

/* Fill a sector with what this tag's write has. */
void tally_fill(void *sector, uint32_t tag);
/* The tag of a sector that is whole; 0: zeros; UINT32_MAX: neither. */
uint32_t tally_tag(const void *sector);
/* How often its write was executed since the start. */
unsigned tally_count(uint32_t tag);
/* Executions of all writes, of flushes and of reads. */
unsigned tally_writes(void), tally_flushes(void), tally_reads(void);

/* The server forgets the outcomes that it keeps. */
void tally_forget(struct tally *tally);

#endif
