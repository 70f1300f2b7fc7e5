/* SPDX-License-Identifier: ISC */
/*
 * The headers of a new member: one ustar header where that can say all, with a
 * pax extended header in front of it where it can not.
 */
#ifndef FARBLK_TAR_COMPOSE_H
#define FARBLK_TAR_COMPOSE_H

#include "farblk/tar.h"

#include "core/error.h"

struct composed {
    uint8_t *blocks; /* owned */
    size_t size; /* octets, whole blocks */
};

/* `key` in any form.  everything: say all that a global header might have said
 * otherwise. */
int compose(struct composed *composed, const char *key, uint64_t size,
            const struct farblk_tar_attributes *attributes, bool everything,
            struct error *error);
void composed_fini(struct composed *composed);

/* The key as a name in an archive: "a/b", allocated; NULL without memory. */
char *compose_name(const char *key);

#endif
