/* SPDX-License-Identifier: ISC */
/*
 * See reader.h.
 */
#include "tar/reader.h"

#include "core/checked.h"
#include "tar/block.h"

#include <stdlib.h>
#include <string.h>

#define AHEAD_MIN 4096u
#define AHEAD_MAX (64u * 1024u)

int
reader_init(struct reader *reader, const struct store *store, uint64_t size,
            struct error *error)
{
    memset(reader, 0, sizeof *reader);
    reader->store = store;
    reader->size = size;
    /* One sector more than is asked for: that where the block begins. */
    reader->room = AHEAD_MAX + store->sector_size;
    reader->window = malloc(reader->room);
    if (reader->window == NULL)
        return error_set(error, FARBLK_NO_MEMORY,
                         "no memory to read headers (%zu octets)",
                         reader->room);
    return 0;
}

void
reader_init_memory(struct reader *reader, uint64_t size, uint64_t at,
                   void *memory, size_t length)
{
    memset(reader, 0, sizeof *reader);
    reader->size = size;
    reader->window = memory;
    reader->at = at;
    reader->length = length;
    reader->memory = true;
}

void
reader_fini(struct reader *reader)
{
    if (!reader->memory)
        free(reader->window);
}

static int
fill(struct reader *reader, uint64_t offset, struct error *error)
{
    size_t ss = reader->store->sector_size;
    bool close = offset - reader->at < reader->length + AHEAD_MIN;
    reader->ahead = close ? reader->ahead * 2 : AHEAD_MIN;
    if (reader->ahead < AHEAD_MIN)
        reader->ahead = AHEAD_MIN;
    if (reader->ahead > AHEAD_MAX)
        reader->ahead = AHEAD_MAX;
    uint64_t start = round_down(offset, ss);
    uint64_t end = min_u64(round_up(offset + reader->ahead, ss), reader->size);
    reader->length = 0;
    int status = store_read_sectors(reader->store, start, reader->window,
                                    (size_t)(end - start), error);
    if (status == 0) {
        reader->at = start;
        reader->length = (size_t)(end - start);
    }
    return status;
}

int
reader_block(struct reader *reader, uint64_t offset, const uint8_t **block,
             struct error *error)
{
    if (offset < reader->at
        || !range_within(offset - reader->at, BLOCK, reader->length)) {
        if (reader->memory)
            return error_set(error, FARBLK_UNKNOWN,
                             "octet %llu is not among the headers in memory",
                             (unsigned long long)offset);
        int status = fill(reader, offset, error);
        if (status != 0)
            return status;
    }
    *block = reader->window + (offset - reader->at);
    return 0;
}

int
reader_copy(struct reader *reader, uint64_t offset, void *to, size_t length,
            struct error *error)
{
    uint8_t *out = to;
    while (length > 0) {
        const uint8_t *block = NULL;
        size_t n = length < BLOCK ? length : BLOCK;
        int status = reader_block(reader, offset, &block, error);
        if (status != 0)
            return status;
        memcpy(out, block, n);
        out += n;
        offset += BLOCK;
        length -= n;
    }
    return 0;
}
