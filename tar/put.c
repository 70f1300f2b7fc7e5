/* SPDX-License-Identifier: ISC */
/*
 * New members.
 *
 * The archive ends at E, a block of zeros.  All that a new member takes is
 * written behind that block: its headers but for their first block, its data,
 * two new blocks of zeros.  When that is stable, one block is exchanged: E,
 * zeros until now, becomes the first header.  Until then the archive ends at E
 * for every reader; from then on the member is whole.
 *
 * The write that exchanges the block is of its whole sector, of which the rest
 * is stable already and does not change: so it does not matter if a crash
 * leaves some of it new and some of it old.
 */
#include "tar/archive.h"
#include "tar/block.h"
#include "tar/compose.h"
#include "tar/source.h"

#include "core/checked.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK (1024u * 1024u)

/* ------------------------------------------------------------ sink */

/* Octets on their way to the device, in order, in whole sectors. */
struct sink {
    const struct store *store;
    uint8_t *buffer; /* owned, as is first */
    size_t room, used;
    uint64_t at; /* octet of the device where the buffer goes to */
    uint8_t *first; /* the first sector as it was written */
    bool begun;
};

static void
sink_fini(struct sink *sink)
{
    free(sink->buffer);
    free(sink->first);
}

/* `offset` is in the sector that is written first; what is in front of it
 * there stays. */
static int
sink_init(struct sink *sink, const struct store *store, uint64_t offset,
          uint64_t total, struct error *error)
{
    size_t ss = store->sector_size;
    memset(sink, 0, sizeof *sink);
    sink->store = store;
    sink->at = round_down(offset, ss);
    sink->room = (size_t)min_u64(CHUNK, round_up(total, ss) + ss);
    sink->buffer = malloc(sink->room);
    sink->first = malloc(ss);
    if (sink->buffer == NULL || sink->first == NULL)
        return error_set(error, FARBLK_NO_MEMORY,
                         "no memory to write with (%zu octets)", sink->room);
    sink->used = (size_t)(offset - sink->at);
    return sink->used > 0
               ? store_read_sectors(store, sink->at, sink->buffer, ss, error)
               : 0;
}

/* What is in the buffer is whole sectors. */
static int
sink_write(struct sink *sink, struct error *error)
{
    if (sink->used == 0)
        return 0;
    if (!sink->begun)
        memcpy(sink->first, sink->buffer, sink->store->sector_size);
    sink->begun = true;
    int status = store_write_sectors(sink->store, sink->at, sink->buffer,
                                     sink->used, 0, error);
    sink->at += sink->used;
    sink->used = 0;
    return status;
}

static int
sink_add(struct sink *sink, const void *from, size_t length,
         struct error *error)
{
    int status = 0;
    while (status == 0 && length > 0) {
        size_t n = (size_t)min_u64(length, sink->room - sink->used);
        memcpy(sink->buffer + sink->used, from, n);
        from = (const uint8_t *)from + n;
        length -= n;
        sink->used += n;
        if (sink->used == sink->room)
            status = sink_write(sink, error);
    }
    return status;
}

static int
sink_add_source(struct sink *sink, struct source *source,
                const struct farblk_tar *tar, uint64_t length,
                struct error *error)
{
    int status = 0;
    while (status == 0 && length > 0) {
        size_t n = (size_t)min_u64(length, sink->room - sink->used);
        status = source_read(source, tar, sink->buffer + sink->used, n);
        length -= n;
        sink->used += n;
        if (status == 0 && sink->used == sink->room)
            status = sink_write(sink, error);
    }
    return status;
}

/* Many zeros, by the device itself where it can. */
static int
sink_add_zeros(struct sink *sink, const struct farblk_tar *tar, uint64_t length,
               struct error *error)
{
    struct source zeros = {.read = NULL};
    size_t ss = sink->store->sector_size;
    if (!sink->store->zeroes || length < 2 * CHUNK)
        return sink_add_source(sink, &zeros, tar, length, error);
    size_t edge = (size_t)(round_up(sink->used, ss) - sink->used);
    int status = sink_add_source(sink, &zeros, tar, edge, error);
    if (status == 0)
        status = sink_write(sink, error);
    uint64_t whole = round_down(length - edge, ss);
    if (status == 0)
        status = store_zero_sectors(sink->store, sink->at, whole, error);
    sink->at += whole;
    if (status == 0)
        status =
            sink_add_source(sink, &zeros, tar, length - edge - whole, error);
    return status;
}

/* Write the rest; what is behind it in the last sector stays. */
static int
sink_end(struct sink *sink, struct error *error)
{
    size_t ss = sink->store->sector_size;
    size_t tail = sink->used % ss;
    if (tail > 0) {
        uint8_t *sector = malloc(ss);
        size_t start = sink->used - tail;
        if (sector == NULL)
            return error_set(error, FARBLK_NO_MEMORY, "no memory for a sector");
        int status = store_read_sectors(sink->store, sink->at + start, sector,
                                        ss, error);
        memcpy(sink->buffer + sink->used, sector + tail, ss - tail);
        free(sector);
        if (status != 0)
            return status;
        sink->used = start + ss;
    }
    return sink_write(sink, error);
}

/* ------------------------------------------------------------ a member */

/* What is known of a new member before it is written. */
struct plan {
    struct composed headers;
    struct growth growth;
    struct member *member;
    uint64_t size; /* of the value */
    uint64_t total; /* octets behind the archive's end, trailer included */
};

static void
plan_drop(struct farblk_tar *tar, struct plan *plan)
{
    composed_fini(&plan->headers);
    index_drop(&tar->index, &plan->growth);
    index_member_free(&tar->index, plan->member);
}

/* The member as a reader will find it, made from the very headers. */
static int
plan_member(struct farblk_tar *tar, struct plan *plan, struct error *error)
{
    struct reader reader;
    struct headers found;
    uint64_t end;
    struct scan scan = {
        .reader = &reader,
        .global = tar->global, /* lent: no global header is among these */
        .max_headers = UINT64_MAX,
        .max_extended = UINT64_MAX,
    };
    reader_init_memory(&reader, tar->device_size, tar->end,
                       plan->headers.blocks, plan->headers.size);
    int status = scan_next(&scan, tar->end, &found, &end, error);
    if (status > 0) {
        plan->member = index_member(&tar->index, &found, error);
        status = plan->member != NULL ? 0 : error->status;
        headers_fini(&found);
    }
    return status;
}

static int
plan_make(struct farblk_tar *tar, struct plan *plan, const char *key,
          uint64_t size, const struct farblk_tar_attributes *attributes,
          struct error *error)
{
    memset(plan, 0, sizeof *plan);
    plan->size = size;
    int status = index_prepare(&tar->index, key, &plan->growth, error);
    if (status == 0)
        status = compose(&plan->headers, key, size, attributes, tar->global.any,
                         error);
    if (status != 0)
        return status;
    uint64_t room = tar->device_size - tar->end;
    if (size > INT64_MAX
        || (plan->total = plan->headers.size + round_up(size, BLOCK) + TRAILER)
               > room)
        return error_set(
            error, FARBLK_NO_SPACE,
            "a value of %llu octets and %zu for headers do not "
            "fit into %llu",
            (unsigned long long)size, plan->headers.size,
            (unsigned long long)(room > TRAILER ? room - TRAILER : 0));
    status = plan_member(tar, plan, error);
    if (status == 0)
        status = index_reserve(&tar->index, error);
    return status;
}

/* Everything but the first block, which stays zeros. */
static int
write_behind(struct farblk_tar *tar, const struct plan *plan,
             struct source *source, struct sink *sink, struct error *error)
{
    static const uint8_t zeros[TRAILER];
    const uint8_t *headers = plan->headers.blocks;
    size_t padding = (size_t)(round_up(plan->size, BLOCK) - plan->size);
    int status = sink_init(sink, &tar->store, tar->end, plan->total, error);
    if (status == 0)
        status = sink_add(sink, zeros, BLOCK, error);
    if (status == 0)
        status =
            sink_add(sink, headers + BLOCK, plan->headers.size - BLOCK, error);
    if (status == 0)
        status = source->read != NULL
                     ? sink_add_source(sink, source, tar, plan->size, error)
                     : sink_add_zeros(sink, tar, plan->size, error);
    if (status == 0)
        status = sink_add(sink, zeros, padding, error);
    if (status == 0)
        status = sink_add(sink, zeros, TRAILER, error);
    if (status == 0)
        status = sink_end(sink, error);
    if (status == 0)
        status = store_flush(&tar->store, error);
    return status;
}

static int
write_member(struct farblk_tar *tar, const struct plan *plan,
             struct source *source, struct error *error)
{
    size_t ss = tar->store.sector_size;
    uint64_t sector = round_down(tar->end, ss);
    struct sink sink;
    int status = write_behind(tar, plan, source, &sink, error);
    /* Whatever has been written so far is behind the archive's end. */
    error->effect = FARBLK_EFFECT_NONE;
    if (status == 0) {
        memcpy(sink.first + (tar->end - sector), plan->headers.blocks, BLOCK);
        status = store_write_sectors(&tar->store, sector, sink.first, ss,
                                     FARBLK_FUA, error);
        if (status != 0)
            archive_commit_failed(tar, error);
    }
    sink_fini(&sink);
    return status;
}

static int
put(struct farblk_tar *tar, const char *key, uint64_t size,
    const struct farblk_tar_attributes *attributes, struct source *source,
    struct error *error)
{
    struct plan plan;
    error_clear(error);
    if (tar == NULL || key == NULL)
        return error_set(error, FARBLK_INVALID, "no archive or no key");
    int status = archive_begin(tar, error);
    if (status != 0)
        return status;
    status = plan_make(tar, &plan, key, size, attributes, error);
    if (status == 0)
        status = write_member(tar, &plan, source, error);
    if (status == 0) {
        pthread_mutex_lock(&tar->lock);
        index_append(&tar->index, plan.member);
        index_attach(&tar->index, &plan.growth, plan.member);
        tar->end = plan.member->end;
        pthread_mutex_unlock(&tar->lock);
        composed_fini(&plan.headers);
    } else {
        plan_drop(tar, &plan);
    }
    archive_end(tar);
    return status;
}

int
farblk_tar_put(struct farblk_tar *tar, const char *key, uint64_t size,
               const struct farblk_tar_attributes *attributes,
               int (*read)(void *arg, void *buffer, size_t length), void *arg)
{
    struct source source = {.read = read, .arg = arg};
    struct error error;
    if (read == NULL)
        return last_error_fail(FARBLK_INVALID,
                               "tar_put: no source for the value");
    int status = put(tar, key, size, attributes, &source, &error);
    if (source.failed)
        return status;
    return archive_result("tar_put", status, &error);
}

/* A source of octets in memory. */
static int
read_memory(void *arg, void *buffer, size_t length)
{
    const uint8_t **at = arg;
    memcpy(buffer, *at, length);
    *at += length;
    return 0;
}

int
farblk_tar_set(struct farblk_tar *tar, const char *key, const void *data,
               uint64_t size)
{
    const uint8_t *at = data;
    struct source source = {.read = read_memory, .arg = &at};
    struct error error;
    if (data == NULL && size > 0)
        return last_error_fail(FARBLK_INVALID, "tar_set: no data");
    int status = put(tar, key, size, NULL, &source, &error);
    return archive_result("tar_set", status, &error);
}

int
farblk_tar_allocate(struct farblk_tar *tar, const char *key, uint64_t size,
                    const struct farblk_tar_attributes *attributes)
{
    struct source source = {.read = NULL};
    struct error error;
    int status = put(tar, key, size, attributes, &source, &error);
    return archive_result("tar_allocate", status, &error);
}
