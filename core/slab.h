/* SPDX-License-Identifier: ISC */
/*
 * Small blocks: those of 4 KiB, of which ramdisks are made and which change
 * hands with each small write.
 *
 * They come out of slabs of 2 MiB, which the kernel is asked to back by one
 * huge page each: a large ramdisk is read with a few hundred entries of a TLB
 * instead of tens of thousands, and is filled with one page fault for 2 MiB.
 * Their data begin at cache lines.  A thread keeps a few for itself, so taking
 * and giving back costs no lock in the steady state.  A slab that is empty
 * goes back to the kernel, but for a few.  One with a single block left does
 * not: what it has room for is told, so that it can be counted.
 *
 * Counting against the limit of blocks is block.c's.  Any thread may call any
 * of this; a block may be given back by another thread than took it.
 */
#ifndef FARBLK_CORE_SLAB_H
#define FARBLK_CORE_SLAB_H

#include "core/block.h"

#define SLAB_DATA 4096u /* octets of data in each */
#define SLAB_STRIDE (SLAB_DATA + 64u) /* what each takes */

/* With AddressSanitizer all blocks are malloc's, so that it sees those that are
 * lost, or used after their end. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define SLAB_PLAIN 1
#else
#define SLAB_PLAIN 0
#endif

/* A block whose data has SLAB_DATA octets; refs and size are not set.  NULL
 * without memory. */
struct block *slab_take(void);

void slab_give(struct block *block);

/* Octets that slabs which are not empty have mapped for nothing, above 8 MiB: so
 * much there is in the usual course of things.  Takes no lock, and may be
 * late by what threads keep for themselves. */
uint64_t slab_idle(void);

/* Give the kernel the pages of something mapped that cannot be unmapped; all but
 * the first, for to write there again could bring back a huge one. */
void slab_give_up(void *memory, uint64_t octets);

/* Octets of slabs that are mapped, for tests. */
uint64_t slab_mapped(void);

/* In a forked child: what the parent had is not used any more. */
void slab_after_fork(void);

#endif
