/* SPDX-License-Identifier: ISC */
/*
 * The shared-memory ring: what lies where in the region that a client and a
 * server of one host share, and how entries are published, found and waited
 * for.  wire.md, section 15, is normative.
 *
 * A region is `rings` rings and then the arena, where data lies.  A ring has
 * `depth` entries for submissions, as many for completions, and as many notes.
 * An entry is one cache line; its first word is its sequence: the entry at
 * position p (counted from 0, in place p mod depth) is there when that is
 * p + 1.  No index is shared: who publishes knows his position, who takes knows
 * his, and one transfer of a cache line brings both the news and the entry.
 *
 * Sleeping.  Who sleeps sets his flag and then looks once more; who publishes
 * sets the sequence and then looks at the flag.  All four are sequentially
 * consistent, so one of them sees the other (tests/ring.pml).  Whoever finds the
 * flag set clears it and rings the doorbell, one octet on a socket.
 *
 * The other side is not trusted: an entry is copied, word by word and once,
 * before anything in it is looked at; a sequence that is neither the next nor
 * that of the lap before is a lie.  Positions, flags of one's own and everything
 * else that decides something stay in private memory.
 */
#ifndef FARBLK_PROTO_RING_H
#define FARBLK_PROTO_RING_H

#include "core/checked.h"

#include <stdatomic.h>
#include <stddef.h>

#define RING_VERSION 1
#define RING_PAGE 4096u /* the region's parts begin at multiples */
#define RING_DEPTH_MIN 8u
#define RING_DEPTH_MAX 1024u
#define RING_COUNT_MAX 64u
#define RING_ARENA_MAX (UINT64_C(1) << 36)
#define RING_NOTE 512u /* octets of a note */
#define RING_ENTRIES_AT 128u /* behind the two flags */
#define RING_WORDS 8

/* Flags of a submission. */
#define RING_FUA 0x1u
#define RING_NO_UNMAP 0x2u
#define RING_WHOLE 0x4u /* the note holds the range of the whole operation */
#define RING_FLAGS 0x7u

/* As they lie in memory, but for the sequence, which is word 0. */
struct ring_submission {
    uint64_t sequence;
    uint32_t tag; /* < depth; of one unanswered submission at a time */
    uint16_t method; /* enum wire_method */
    uint16_t flags;
    uint64_t number; /* of the request; 0 where nothing changes */
    uint32_t behind; /* number - lowest */
    uint32_t deadline_ms; /* 0: none */
    uint64_t handle;
    uint64_t sector;
    uint64_t count; /* sectors */
    uint64_t data; /* where in the arena, octets */
};

struct ring_completion {
    uint64_t sequence;
    uint32_t tag;
    int32_t status;
    uint32_t effect;
    uint32_t text; /* octets of text in the note */
    uint64_t value;
    uint64_t generation;
    uint64_t size_sectors;
    uint64_t number;
    uint64_t reserved;
};

/* In the note of a submission's tag, with RING_WHOLE. */
struct ring_whole {
    uint64_t sector, count;
};

_Static_assert(sizeof(struct ring_submission) == 64, "one cache line");
_Static_assert(sizeof(struct ring_completion) == 64, "one cache line");

struct ring_entry {
    _Alignas(64) _Atomic(uint64_t) word[RING_WORDS];
};

/* One ring, as it lies in the region. */
struct ring {
    _Alignas(64) _Atomic(uint32_t) server_sleeps;
    _Alignas(64) _Atomic(uint32_t) client_sleeps;
    struct ring_entry entry[];
};

_Static_assert(offsetof(struct ring, entry) == RING_ENTRIES_AT, "layout");

/* What both sides agreed on. */
struct ring_shape {
    uint32_t depth; /* a power of two */
    uint32_t rings;
    uint64_t ring_octets; /* from one ring to the next */
    uint64_t arena_at, arena_octets;
};

static inline uint64_t
ring_octets(uint32_t depth)
{
    return round_up(RING_ENTRIES_AT
                        + (uint64_t)depth
                              * (2 * sizeof(struct ring_entry) + RING_NOTE),
                    RING_PAGE);
}

/* Whether it is one that can be, whoever says it. */
static inline bool
ring_shape_valid(const struct ring_shape *shape)
{
    return is_power_of_two(shape->depth) && shape->depth >= RING_DEPTH_MIN
           && shape->depth <= RING_DEPTH_MAX && shape->rings > 0
           && shape->rings <= RING_COUNT_MAX
           && shape->ring_octets == ring_octets(shape->depth)
           && shape->arena_at == shape->rings * shape->ring_octets
           && shape->arena_octets > 0 && shape->arena_octets <= RING_ARENA_MAX
           && shape->arena_octets % RING_PAGE == 0;
}

static inline uint64_t
ring_region_octets(const struct ring_shape *shape)
{
    return shape->arena_at + shape->arena_octets;
}

/* One direction of a ring, as its publisher or its taker sees it. */
struct ring_lane {
    struct ring_entry *entry;
    uint32_t mask; /* depth - 1 */
};

static inline struct ring *
ring_at(void *region, const struct ring_shape *shape, uint32_t index)
{
    return (struct ring *)(void *)((uint8_t *)region
                                   + index * shape->ring_octets);
}

static inline struct ring_lane
ring_submissions(struct ring *ring, uint32_t depth)
{
    return (struct ring_lane){.entry = ring->entry, .mask = depth - 1};
}

static inline struct ring_lane
ring_completions(struct ring *ring, uint32_t depth)
{
    return (struct ring_lane){.entry = ring->entry + depth, .mask = depth - 1};
}

static inline uint8_t *
ring_note(struct ring *ring, uint32_t depth, uint32_t tag)
{
    return (uint8_t *)(ring->entry + 2 * (size_t)depth)
           + (size_t)tag * RING_NOTE;
}

/* Publish the entry at `position`, whose place nobody else uses: words 1 to 7 of
 * `from`, then the sequence. */
static inline void
ring_publish(struct ring_lane lane, uint64_t position, const void *from)
{
    struct ring_entry *entry = &lane.entry[position & lane.mask];
    const uint64_t *words = from;
    for (unsigned i = 1; i < RING_WORDS; i++)
        atomic_store_explicit(&entry->word[i], words[i], memory_order_relaxed);
    atomic_exchange(&entry->word[0], position + 1);
}

enum ring_found {
    RING_NOTHING,
    RING_ENTRY,
    RING_LIE,
};

/* What is at `position`. */
static inline enum ring_found
ring_look(struct ring_lane lane, uint64_t position)
{
    struct ring_entry *entry = &lane.entry[position & lane.mask];
    uint64_t lap = (uint64_t)lane.mask + 1;
    uint64_t before = position < lap ? 0 : position + 1 - lap;
    uint64_t sequence = atomic_load(&entry->word[0]);
    return sequence == position + 1 ? RING_ENTRY
           : sequence == before     ? RING_NOTHING
                                    : RING_LIE;
}

/* Copy the entry that ring_look() has found. */
static inline void
ring_take(struct ring_lane lane, uint64_t position, void *to)
{
    struct ring_entry *entry = &lane.entry[position & lane.mask];
    uint64_t *words = to;
    words[0] = position + 1;
    for (unsigned i = 1; i < RING_WORDS; i++)
        words[i] = atomic_load_explicit(&entry->word[i], memory_order_relaxed);
}

/* After publishing: whether the taker, whose flag this is, wants the doorbell. */
static inline bool
ring_wants_bell(_Atomic(uint32_t) *sleeps)
{
    return atomic_load(sleeps) != 0 && atomic_exchange(sleeps, 0) != 0;
}

/* Before sleeping: ask for the doorbell.  False: something is there (or a lie),
 * do not sleep. */
static inline bool
ring_sleep(_Atomic(uint32_t) *sleeps, struct ring_lane lane, uint64_t position)
{
    atomic_exchange(sleeps, 1);
    if (ring_look(lane, position) == RING_NOTHING)
        return true;
    atomic_store(sleeps, 0);
    return false;
}

/* It looks by itself again; the doorbell may have been rung nevertheless. */
static inline void
ring_awake(_Atomic(uint32_t) *sleeps)
{
    atomic_store_explicit(sleeps, 0, memory_order_relaxed);
}

#endif
