/* SPDX-License-Identifier: ISC */
/*
 * Ramdisks and their names.
 *
 * A ramdisk is kept by references: its name holds one, and each open handle
 * one.  So its content outlives its handles while it has its name, and its name
 * while it has handles.  Names are the process's; a forked child begins with
 * none, for what its parent's threads were doing to the content does not come
 * to an end there.
 *
 * Any thread may call any of this.
 */
#ifndef FARBLK_BACKENDS_RAMDISK_H
#define FARBLK_BACKENDS_RAMDISK_H

#include "backends/ramtree.h"
#include "core/error.h"

struct ramdisk {
    struct ramdisk *next; /* by name; the registry's lock */
    unsigned generation; /* of forks */
    atomic_uint refs;
    uint64_t serial; /* another one for each ramdisk of this process */
    char name[256];
    struct ramtree tree;
};

/* What an open wants; 0 where it does not say. */
struct ramdisk_wish {
    uint64_t sector_size;
    bool has_size;
    uint64_t size; /* octets */
};

/* The ramdisk of that name, made where there is none, with a reference.
 * Errors: INVALID (name, sector size, size), CONFLICT, NO_MEMORY. */
int ramdisk_connect(const char *name, const struct ramdisk_wish *wish,
                    struct ramdisk **disk, struct error *error);

void ramdisk_put(struct ramdisk *disk);

#endif
