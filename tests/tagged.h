/* SPDX-License-Identifier: ISC */
/*
 * Sectors that tell who wrote them.
 *
 * Each octet of a tagged sector follows from the write's number and the
 * sector's position, so that one which is torn, or lies elsewhere, is known
 * as such.
 */
#ifndef FARBLK_TESTS_TAGGED_H
#define FARBLK_TESTS_TAGGED_H

#include <stdint.h>

#define TAGGED_SECTOR 512u

/* What a sector is found to hold. */
#define TAGGED_ZERO UINT64_C(0)
#define TAGGED_TORN UINT64_MAX

/* `count` sectors from `sector` on, of write `number`: neither of the above. */
void tagged_fill(void *to, uint64_t number, uint64_t sector, uint64_t count);

/* The write that filled the sector, or one of the above. */
uint64_t tagged_read(const void *from, uint64_t sector);

#endif
