/* SPDX-License-Identifier: ISC */
/*
 * See sparse.h.
 */
#include "tar/sparse.h"

#include "core/checked.h"
#include "tar/block.h"
#include "tar/extended.h"

#include <stdlib.h>
#include <string.h>

void
runs_fini(struct runs *runs)
{
    free(runs->array);
    memset(runs, 0, sizeof *runs);
}

/* One entry of a map, for a value of `size` octets of which those stored lie at
 * [data, data + stored). */
static int
add(struct runs *runs, uint64_t offset, uint64_t length, uint64_t size,
    uint64_t data, uint64_t stored, struct error *error)
{
    struct run *last = runs->count > 0 ? &runs->array[runs->count - 1] : NULL;
    uint64_t least = last != NULL ? last->offset + last->length : 0;
    if (offset < least || !range_within(offset, length, size))
        return error_set(error, FARBLK_CORRUPT,
                         "a sparse map has octets %llu + %llu, after %llu, in "
                         "a value of %llu",
                         (unsigned long long)offset, (unsigned long long)length,
                         (unsigned long long)least, (unsigned long long)size);
    if (!range_within(runs->octets, length, stored))
        return error_set(error, FARBLK_CORRUPT,
                         "a sparse map tells of more than the %llu octets that "
                         "are stored",
                         (unsigned long long)stored);
    if (length == 0)
        return 0;
    if (last != NULL && offset == least) {
        last->length += length;
        runs->octets += length;
        return 0;
    }
    if (runs->count == runs->room) {
        size_t room = runs->room > 0 ? 2 * runs->room : 8;
        struct run *grown = realloc(runs->array, room * sizeof *grown);
        if (grown == NULL)
            return error_set(error, FARBLK_NO_MEMORY,
                             "no memory for a sparse map of %zu runs", room);
        runs->array = grown;
        runs->room = room;
    }
    runs->array[runs->count++] =
        (struct run){offset, length, data + runs->octets};
    runs->octets += length;
    return 0;
}

int
sparse_text(struct runs *runs, const char *text, uint64_t size, uint64_t data,
            uint64_t stored, struct error *error)
{
    uint64_t pair[2];
    unsigned have = 0;
    while (*text != '\0') {
        size_t length = strcspn(text, ",");
        if (!decimal(text, length, &pair[have++]))
            return error_set(error, FARBLK_CORRUPT,
                             "a sparse map has \"%.32s\" for a number", text);
        if (have == 2) {
            int status = add(runs, pair[0], pair[1], size, data, stored, error);
            if (status != 0)
                return status;
            have = 0;
        }
        text += length;
        text += *text == ',';
    }
    if (have != 0)
        return error_set(error, FARBLK_CORRUPT,
                         "a sparse map ends with half an entry");
    return 0;
}

/* ------------------------------------------------------------ pax 1.0 */

/* Lines of decimal numbers, read from blocks. */
struct lines {
    struct reader *reader;
    uint64_t at, end; /* octets of the device */
    uint64_t start;
};

static int
next_line(struct lines *lines, uint64_t *value, struct error *error)
{
    char digits[24];
    size_t count = 0;
    for (;;) {
        const uint8_t *block;
        if (lines->at == lines->end)
            return error_set(error, FARBLK_CORRUPT,
                             "a sparse map does not end within %llu octets",
                             (unsigned long long)(lines->end - lines->start));
        int status = reader_block(lines->reader, round_down(lines->at, BLOCK),
                                  &block, error);
        if (status != 0)
            return status;
        char c = (char)block[lines->at % BLOCK];
        lines->at++;
        if (c == '\n' && decimal(digits, count, value))
            return 0;
        if (c == '\n' || count == sizeof digits)
            return error_set(error, FARBLK_CORRUPT,
                             "a sparse map has a line that is no number, "
                             "before octet %llu",
                             (unsigned long long)lines->at);
        digits[count++] = c;
    }
}

int
sparse_front(struct runs *runs, struct reader *reader, uint64_t size,
             uint64_t *data, uint64_t *stored, uint64_t limit,
             struct error *error)
{
    struct lines lines = {reader, *data, *data + min_u64(*stored, limit),
                          *data};
    uint64_t count, offset, length;
    int status = next_line(&lines, &count, error);
    /* Where the data begins is known when the map has been read: twice. */
    for (uint64_t i = 0; status == 0 && i < 2 * min_u64(count, limit); i++)
        status = next_line(&lines, &offset, error);
    if (status != 0)
        return status;
    uint64_t front = round_up(lines.at - *data, BLOCK);
    if (front > *stored)
        return error_set(error, FARBLK_CORRUPT,
                         "a sparse map of %llu octets in a member of %llu",
                         (unsigned long long)front,
                         (unsigned long long)*stored);
    lines.at = *data;
    *data += front;
    *stored -= front;
    status = next_line(&lines, &count, error);
    for (uint64_t i = 0; status == 0 && i < count; i++) {
        status = next_line(&lines, &offset, error);
        if (status == 0)
            status = next_line(&lines, &length, error);
        if (status == 0)
            status = add(runs, offset, length, size, *data, *stored, error);
    }
    return status;
}

/* ------------------------------------------------------------ GNU's own */

/* Entries until the first empty one.  1: they go on. */
static int
old_entries(struct runs *runs, const uint8_t *entries, unsigned count,
            uint64_t size, uint64_t data, uint64_t stored, struct error *error)
{
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *entry = entries + (size_t)i * 2 * LONG_SIZE;
        int64_t offset, length;
        if (entry[LONG_SIZE] == 0)
            return 0;
        if (!field_number(entry, LONG_SIZE, &offset)
            || !field_number(entry + LONG_SIZE, LONG_SIZE, &length)
            || offset < 0 || length < 0)
            return error_set(error, FARBLK_CORRUPT,
                             "a sparse map has an entry that is no number");
        int status = add(runs, (uint64_t)offset, (uint64_t)length, size, data,
                         stored, error);
        if (status != 0)
            return status;
    }
    return 1;
}

int
sparse_old(struct runs *runs, struct reader *reader, const uint8_t *block,
           uint64_t *size, uint64_t *data, uint64_t stored, uint64_t limit,
           struct error *error)
{
    const uint8_t *at = block;
    uint64_t start = *data;
    int64_t real;
    if (!field_number(block + SPARSE_REAL_AT, LONG_SIZE, &real) || real < 0)
        return error_set(error, FARBLK_CORRUPT,
                         "the size of a sparse value is no number");
    *size = (uint64_t)real;
    /* First to the end of the map, for the data begins behind it. */
    for (bool more = block[SPARSE_MORE_AT] != 0; more; *data += BLOCK) {
        if (*data - start >= limit)
            return error_set(error, FARBLK_NO_SPACE,
                             "a sparse map of more than %llu octets "
                             "(max_extended)",
                             (unsigned long long)limit);
        if (!range_within(*data, BLOCK, reader->size))
            return error_set(error, FARBLK_CORRUPT,
                             "a sparse map leads past the device's end");
        int status = reader_block(reader, *data, &at, error);
        if (status != 0)
            return status;
        more = at[SPARSE_NEXT_MORE_AT] != 0;
    }
    int more = old_entries(runs, block + SPARSE_AT, SPARSE_COUNT, *size, *data,
                           stored, error);
    for (; more > 0 && start < *data; start += BLOCK) {
        int status = reader_block(reader, start, &at, error);
        if (status != 0)
            return status;
        more = old_entries(runs, at, SPARSE_NEXT_COUNT, *size, *data, stored,
                           error);
    }
    return more < 0 ? more : 0;
}
