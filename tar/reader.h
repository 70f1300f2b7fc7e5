/* SPDX-License-Identifier: ISC */
/*
 * Reads an archive's headers block by block, forward, ahead of what is asked:
 * more and more while headers follow each other closely, little when each is
 * far from the one before.  Or from memory, for a header that is not yet
 * written.
 */
#ifndef FARBLK_TAR_READER_H
#define FARBLK_TAR_READER_H

#include "tar/store.h"

struct reader {
    const struct store *store;
    uint64_t size; /* octets of the device */
    uint8_t *window; /* owned, unless from memory */
    size_t room;
    uint64_t at; /* the window holds [at, at + length) */
    size_t length;
    size_t ahead; /* octets to ask for next time */
    bool memory;
};

int reader_init(struct reader *reader, const struct store *store, uint64_t size,
                struct error *error);
/* What is at [at, at + length) is in `memory`; nothing else can be read. */
void reader_init_memory(struct reader *reader, uint64_t size, uint64_t at,
                        void *memory, size_t length);
void reader_fini(struct reader *reader);

/* The block at `offset`, a multiple of BLOCK within the device; valid until the
 * next call. */
int reader_block(struct reader *reader, uint64_t offset, const uint8_t **block,
                 struct error *error);
/* `length` octets from `offset`, a multiple of BLOCK, within the device. */
int reader_copy(struct reader *reader, uint64_t offset, void *to, size_t length,
                struct error *error);

#endif
