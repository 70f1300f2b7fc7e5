/* SPDX-License-Identifier: ISC */
/*
 * Calls of a ramtree that must not fail, for tests of it.
 */
#ifndef FARBLK_TESTS_TREES_H
#define FARBLK_TESTS_TREES_H

#include "backends/ramtree.h"
#include "tests/support.h"

#define TREE_SECTOR_SIZES 5
extern const uint32_t tree_sector_sizes[TREE_SECTOR_SIZES];

void tree_write(struct ramtree *tree, uint64_t offset, const void *from,
                uint64_t length);
/* A payload with this content, and room for it in one block. */
struct block *tree_payload(const void *from, uint64_t length);
/* Write as a server does: out of a payload that nobody changes any more. */
void tree_write_payload(struct ramtree *tree, uint64_t offset,
                        struct block *payload);
/* By small steps, to have more borders inside. */
void tree_read(struct ramtree *tree, uint64_t offset, uint8_t *to,
               uint64_t length);
void tree_zero(struct ramtree *tree, uint64_t offset, uint64_t length,
               bool mapped);
/* The first octet from `offset` on that is mapped, or is not; the size when
 * the next border is the end. */
uint64_t tree_seek(struct ramtree *tree, uint64_t offset, bool wanted);

#endif
