/* SPDX-License-Identifier: ISC */
/*
 * The device under an archive, in octets: whatever its sectors are, reads and
 * writes begin and end anywhere.  Sectors at the edges of a write are read
 * first and keep the rest of what they hold.
 *
 * Reads may come from any thread at any time; of writes that touch the same
 * sectors the caller makes one after the other.
 */
#ifndef FARBLK_TAR_STORE_H
#define FARBLK_TAR_STORE_H

#include "core/error.h"

struct store {
    struct farblk *dev;
    uint32_t sector_size;
    bool zeroes; /* the device can write zeroes by itself */
};

/* Learn what the device is; *size is its size now, in octets. */
int store_init(struct store *store, struct farblk *dev, uint64_t *size,
               bool *read_write, uint64_t *identity, struct error *error);
int store_size(const struct store *store, uint64_t *size, struct error *error);

int store_read(const struct store *store, uint64_t offset, void *to,
               size_t length, struct error *error);
/* flags: FARBLK_FUA. */
int store_write(const struct store *store, uint64_t offset, const void *from,
                size_t length, uint32_t flags, struct error *error);
int store_flush(const struct store *store, struct error *error);

/* Whole sectors, for those who keep to them. */
int store_read_sectors(const struct store *store, uint64_t offset, void *to,
                       size_t length, struct error *error);
int store_write_sectors(const struct store *store, uint64_t offset,
                        const void *from, size_t length, uint32_t flags,
                        struct error *error);
int store_zero_sectors(const struct store *store, uint64_t offset,
                       uint64_t length, struct error *error);

#endif
