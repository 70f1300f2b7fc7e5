/* SPDX-License-Identifier: ISC */
/*
 * See scan.h.
 *
 * libarchive and its like read archives as streams: they tell of a member when
 * they come to it, and of its data in pieces, but not where on the device they
 * lie, which is all that is wanted here; and they take a file or a function that
 * gives the next octets, whole members included.  So headers are read by code
 * of our own, and libarchive, GNU tar and Python's tarfile are its judges in
 * the tests.
 *
 * Nothing of what a header says is believed before it is compared with the
 * device's size and the limits.
 */
#include "tar/scan.h"

#include "core/checked.h"
#include "tar/block.h"

#include <stdlib.h>
#include <string.h>

void
headers_fini(struct headers *headers)
{
    free(headers->name);
    free(headers->link);
    runs_fini(&headers->runs);
    memset(headers, 0, sizeof *headers);
}

/* ------------------------------------------------------------ blocks */

/* The header at `at`, copied.  1; 0: the archive ends here; or an error. */
static int
read_header(struct scan *scan, uint64_t at, uint8_t *block, struct error *error)
{
    const uint8_t *found;
    if (at >= scan->reader->size)
        return 0;
    int status = reader_block(scan->reader, at, &found, error);
    if (status != 0)
        return status;
    if (block_is_zero(found))
        return 0;
    if (!block_sum_right(found))
        return error_set(error, FARBLK_CORRUPT,
                         "no tar header at octet %llu (its checksum is wrong)",
                         (unsigned long long)at);
    if (++scan->seen > scan->max_headers)
        return error_set(error, FARBLK_NO_SPACE,
                         "more than %llu headers (max_headers)",
                         (unsigned long long)scan->max_headers);
    memcpy(block, found, BLOCK);
    return 1;
}

/* The size that the header itself tells, within the device. */
static int
header_size(struct scan *scan, uint64_t at, const uint8_t *block,
            uint64_t *size, struct error *error)
{
    int64_t told;
    if (!field_number(block + SIZE_AT, LONG_SIZE, &told) || told < 0)
        return error_set(error, FARBLK_CORRUPT,
                         "the size in the header at octet %llu is no number",
                         (unsigned long long)at);
    *size = (uint64_t)told;
    if (!range_within(at + BLOCK, *size, scan->reader->size))
        return error_set(error, FARBLK_CORRUPT,
                         "the header at octet %llu tells of %llu octets, past "
                         "the device's end at %llu",
                         (unsigned long long)at, (unsigned long long)*size,
                         (unsigned long long)scan->reader->size);
    return 0;
}

/* ------------------------------------------------------------ extended */

static int
read_extended(struct scan *scan, uint64_t at, const uint8_t *block,
              uint64_t size, struct extended *local, struct error *error)
{
    int status;
    char *payload = malloc((size_t)size + 1);
    if (payload == NULL)
        return error_set(error, FARBLK_NO_MEMORY,
                         "no memory for an extended header of %llu octets",
                         (unsigned long long)size);
    status =
        reader_copy(scan->reader, at + BLOCK, payload, (size_t)size, error);
    if (status == 0)
        switch (block[TYPE_AT]) {
        case 'g':
            status = extended_pax(&scan->global, true, at + BLOCK, payload,
                                  (size_t)size, error);
            break;
        case 'L':
        case 'K':
            status = extended_long(local,
                                   block[TYPE_AT] == 'L' ? EXTENDED_LONG_NAME
                                                         : EXTENDED_LONG_LINK,
                                   at + BLOCK, payload, (size_t)size, error);
            break;
        default:
            status = extended_pax(local, false, at + BLOCK, payload,
                                  (size_t)size, error);
        }
    free(payload);
    if (status == FARBLK_CORRUPT)
        error_set(error, status, "the extended header at octet %llu: %.300s",
                  (unsigned long long)at, error->text);
    return status;
}

/* ------------------------------------------------------------ one by one */

int
scan_next(struct scan *scan, uint64_t at, struct headers *found, uint64_t *end,
          struct error *error)
{
    uint8_t block[BLOCK];
    struct extended local;
    uint64_t extended_octets = 0, size = 0;
    bool own = false; /* extended headers of this member have been seen */
    int more;
    memset(found, 0, sizeof *found);
    extended_init(&local);
    scan->dangling = UINT64_MAX;
    found->position = at;
    while ((more = read_header(scan, at, block, error)) > 0
           && strchr("xXgLK", block[TYPE_AT]) != NULL && block[TYPE_AT] != 0) {
        more = header_size(scan, at, block, &size, error);
        if (more == 0
            && (size > scan->max_extended
                || extended_octets > scan->max_extended - size))
            more = error_set(error, FARBLK_NO_SPACE,
                             "extended headers of more than %llu octets at "
                             "octet %llu (max_extended)",
                             (unsigned long long)scan->max_extended,
                             (unsigned long long)at);
        if (more == 0)
            more = read_extended(scan, at, block, size, &local, error);
        if (more != 0)
            break;
        at += BLOCK + round_up(size, BLOCK);
        extended_octets += size;
        own = own || block[TYPE_AT] != 'g';
        if (!own)
            found->position = at; /* a global one stays when the member goes */
    }
    if (more > 0) {
        found->header = at;
        more = scan_member(scan, &local, block, found, error);
        more = more == 0 ? 1 : more;
    } else if (more == 0) {
        if (own)
            scan->dangling = found->position;
        *end = at;
    }
    if (more <= 0)
        headers_fini(found);
    extended_fini(&local);
    return more;
}
