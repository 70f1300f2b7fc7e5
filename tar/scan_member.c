/* SPDX-License-Identifier: ISC */
/*
 * One member (see scan.h): out of its header, and of what extended headers say
 * about it.
 */
#include "tar/scan.h"

#include "core/checked.h"
#include "tar/block.h"

#include <stdlib.h>
#include <string.h>

/* A number from an extended header, or else `*value` as it is. */
static int
number(const struct extended *local, const struct scan *scan,
       enum extended_key key, uint64_t *value, struct error *error)
{
    const struct extended_value *text =
        extended_find(local, &scan->global, key);
    if (text != NULL && !decimal(text->text, text->length, value))
        return error_set(error, FARBLK_CORRUPT,
                         "the pax record %s is \"%.32s\", no number",
                         pax_keyword(key), text->text);
    return 0;
}

/* As said by whoever has more to say; garbage counts as 0, for nothing depends
 * on it. */
static uint64_t
loose_number(const struct extended *local, const struct scan *scan,
             enum extended_key key, const uint8_t *field, size_t size)
{
    uint64_t value;
    int64_t told;
    const struct extended_value *text =
        key < EXTENDED_KEYS ? extended_find(local, &scan->global, key) : NULL;
    if (text != NULL && decimal(text->text, text->length, &value))
        return value;
    return field_number(field, size, &told) && told >= 0 ? (uint64_t)told : 0;
}

static void
owner(const struct extended *local, const struct scan *scan,
      enum extended_key key, const uint8_t *block, size_t at, char to[64])
{
    const struct extended_value *text =
        extended_find(local, &scan->global, key);
    if (text != NULL) {
        size_t length = text->length < 63 ? text->length : 63;
        memcpy(to, text->text, length);
        to[length] = '\0';
    } else if (block_format(block) != FORMAT_V7) {
        field_text(block + at, OWNER_SIZE, to);
    }
}

/* What nothing depends on. */
static void
read_attributes(const struct scan *scan, const struct extended *local,
                const uint8_t *block, struct farblk_tar_stat *stat)
{
    int64_t told;
    stat->mode = (uint32_t)(loose_number(local, scan, EXTENDED_KEYS,
                                         block + MODE_AT, ID_SIZE)
                            & 07777);
    stat->uid =
        loose_number(local, scan, EXTENDED_UID, block + UID_AT, ID_SIZE);
    stat->gid =
        loose_number(local, scan, EXTENDED_GID, block + GID_AT, ID_SIZE);
    owner(local, scan, EXTENDED_UNAME, block, USER_AT, stat->user);
    owner(local, scan, EXTENDED_GNAME, block, GROUP_AT, stat->group);
    if (field_number(block + MTIME_AT, LONG_SIZE, &told))
        stat->mtime = told;
    const struct extended_value *time =
        extended_find(local, &scan->global, EXTENDED_MTIME);
    if (time != NULL
        && !decimal_time(time->text, &stat->mtime, &stat->mtime_nsec))
        stat->mtime_nsec = 0;
    if (stat->kind == FARBLK_TAR_CHARACTER || stat->kind == FARBLK_TAR_BLOCK) {
        stat->device_major = (uint32_t)loose_number(local, scan, EXTENDED_KEYS,
                                                    block + MAJOR_AT, ID_SIZE);
        stat->device_minor = (uint32_t)loose_number(local, scan, EXTENDED_KEYS,
                                                    block + MINOR_AT, ID_SIZE);
    }
}

static char *
copy_text(const char *text, size_t length)
{
    char *copy = malloc(length + 1);
    if (copy != NULL) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

static bool
read_name(const struct scan *scan, const struct extended *local,
          const uint8_t *block, struct headers *found)
{
    static const enum extended_key keys[] = {EXTENDED_SPARSE_NAME,
                                             EXTENDED_PATH, EXTENDED_LONG_NAME};
    char name[BLOCK_NAME_MAX];
    for (unsigned i = 0; i < 3; i++) {
        const struct extended_value *value = &local->values[keys[i]];
        if (value->state != EXTENDED_SAID)
            continue;
        found->name_place =
            keys[i] == EXTENDED_LONG_NAME ? NAME_IN_LONG : NAME_IN_PAX;
        found->name_key = keys[i];
        found->name_payload = value->payload;
        found->name_payload_size = value->payload_size;
        found->name = copy_text(value->text, value->length);
        return found->name != NULL;
    }
    const struct extended_value *value =
        extended_find(local, &scan->global, EXTENDED_PATH);
    found->name_place = value != NULL ? NAME_IN_GLOBAL : NAME_IN_HEADER;
    found->name = value != NULL ? copy_text(value->text, value->length)
                                : copy_text(name, block_name(block, name));
    return found->name != NULL;
}

static bool
read_link(const struct scan *scan, const struct extended *local,
          const uint8_t *block, struct headers *found)
{
    char link[LINK_SIZE + 1];
    const struct extended_value *value =
        extended_find(local, &scan->global, EXTENDED_LINKPATH);
    if (value == NULL
        && local->values[EXTENDED_LONG_LINK].state == EXTENDED_SAID)
        value = &local->values[EXTENDED_LONG_LINK];
    found->link =
        value != NULL
            ? copy_text(value->text, value->length)
            : copy_text(link, field_text(block + LINK_AT, LINK_SIZE, link));
    return found->link != NULL;
}

/* What the typeflag says; VALUE for those that nobody knows, as POSIX wants. */
static void
read_kind(const uint8_t *block, struct headers *found)
{
    struct farblk_tar_stat *stat = &found->stat;
    size_t length = strlen(found->name);
    stat->type = block[TYPE_AT] == 0 ? '0' : (char)block[TYPE_AT];
    switch (stat->type) {
    case '1':
        stat->kind = FARBLK_TAR_VALUE;
        stat->hard_link = true;
        break;
    case '2':
        stat->kind = FARBLK_TAR_SYMLINK;
        break;
    case '3':
        stat->kind = FARBLK_TAR_CHARACTER;
        break;
    case '4':
        stat->kind = FARBLK_TAR_BLOCK;
        break;
    case '5':
    case 'D':
        stat->kind = FARBLK_TAR_DIRECTORY;
        break;
    case '6':
        stat->kind = FARBLK_TAR_FIFO;
        break;
    case 'V': /* a label */
    case 'N': /* names of a GNU tar of long ago */
    case 'A': /* Solaris's access rights */
        found->hidden = true;
        stat->kind = FARBLK_TAR_VALUE;
        break;
    default:
        stat->kind = FARBLK_TAR_VALUE;
    }
    /* As v7 told of directories. */
    if (stat->kind == FARBLK_TAR_VALUE && !stat->hard_link && length > 0
        && found->name[length - 1] == '/')
        stat->kind = FARBLK_TAR_DIRECTORY;
}

/* Does data follow a header of a kind that has none by rights?  Some tell a
 * size and store nothing, some store it: then no header follows at once. */
static int
has_body(struct scan *scan, uint64_t data, struct error *error)
{
    const uint8_t *block;
    if (data >= scan->reader->size)
        return 0;
    int status = reader_block(scan->reader, data, &block, error);
    if (status != 0)
        return status;
    return !block_is_zero(block) && !block_sum_right(block);
}

/* A sparse map's complaint, with the member's place. */
static int
at_member(int status, const struct headers *found, struct error *error)
{
    if (status == FARBLK_CORRUPT)
        error_set(error, status, "the member at octet %llu: %.400s",
                  (unsigned long long)found->position, error->text);
    return status;
}

/* Size and place of the data, for whatever kind. */
static int
read_extent(struct scan *scan, const struct extended *local,
            const uint8_t *block, struct headers *found, struct error *error)
{
    struct farblk_tar_stat *stat = &found->stat;
    uint64_t stored;
    int64_t told;
    if (!field_number(block + SIZE_AT, LONG_SIZE, &told))
        told = -1;
    stored = told < 0 ? UINT64_MAX : (uint64_t)told;
    int status = number(local, scan, EXTENDED_SIZE, &stored, error);
    if (status != 0)
        return status;
    found->data = found->header + BLOCK;
    bool bare = stat->hard_link || (stat->type >= '2' && stat->type <= '6');
    if (bare && stored > 0) {
        int body = has_body(scan, found->data, error);
        if (body < 0)
            return body;
        if (body == 0)
            stored = 0;
    }
    if (stored == UINT64_MAX)
        return error_set(error, FARBLK_CORRUPT,
                         "the size in the header at octet %llu is no number",
                         (unsigned long long)found->header);
    /* What GNU's own map takes comes before the data, and is not counted. */
    if (stat->type == 'S') {
        stat->sparse = true;
        status = sparse_old(&found->runs, scan->reader, block, &stat->size,
                            &found->data, stored, scan->max_extended, error);
        if (status != 0)
            return at_member(status, found, error);
    }
    if (!range_within(found->data, stored, scan->reader->size))
        return error_set(error, FARBLK_CORRUPT,
                         "the header at octet %llu tells of %llu octets, past "
                         "the device's end at %llu",
                         (unsigned long long)found->header,
                         (unsigned long long)stored,
                         (unsigned long long)scan->reader->size);
    /* The device is whole blocks, so the padding is within it as well. */
    found->end = found->data + round_up(stored, BLOCK);
    found->body = bare && stored > 0;
    stat->stored = stored;
    if (stat->type != 'S')
        stat->size = stored;
    return 0;
}

/* pax's sparse members, when the data's place is known. */
static int
read_sparse(struct scan *scan, const struct extended *local,
            struct headers *found, struct error *error)
{
    struct farblk_tar_stat *stat = &found->stat;
    const struct extended_value *map = &local->values[EXTENDED_SPARSE_MAP];
    uint64_t major = 0, minor = 0;
    uint64_t size = stat->size;
    int status = number(local, scan, EXTENDED_SPARSE_MAJOR, &major, error);
    if (status == 0)
        status = number(local, scan, EXTENDED_SPARSE_MINOR, &minor, error);
    if (status == 0)
        status = number(local, scan, EXTENDED_SPARSE_SIZE, &size, error);
    if (status == 0)
        status = number(local, scan, EXTENDED_SPARSE_REALSIZE, &size, error);
    if (status != 0)
        return status;
    bool front = major == 1 && minor == 0;
    if (!front && (major != 0 || minor > 1))
        return error_set(error, FARBLK_UNIMPLEMENTED,
                         "sparse members of version %llu.%llu",
                         (unsigned long long)major, (unsigned long long)minor);
    bool told = local->values[EXTENDED_SPARSE_SIZE].state == EXTENDED_SAID;
    if (!front && !told && map->state != EXTENDED_SAID)
        return 0;
    stat->size = size;
    stat->sparse = true;
    if (!front)
        status = sparse_text(&found->runs,
                             map->state == EXTENDED_SAID ? map->text : "", size,
                             found->data, stat->stored, error);
    else
        status = sparse_front(&found->runs, scan->reader, size, &found->data,
                              &stat->stored, scan->max_extended, error);
    return at_member(status, found, error);
}

int
scan_member(struct scan *scan, const struct extended *local,
            const uint8_t *block, struct headers *found, struct error *error)
{
    struct farblk_tar_stat *stat = &found->stat;
    if (!read_name(scan, local, block, found))
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a name");
    read_kind(block, found);
    if ((stat->hard_link || stat->kind == FARBLK_TAR_SYMLINK)
        && !read_link(scan, local, block, found))
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a link");
    int status = read_extent(scan, local, block, found, error);
    if (status == 0 && stat->kind == FARBLK_TAR_VALUE && !stat->hard_link
        && stat->type != 'S')
        status = read_sparse(scan, local, found, error);
    if (status != 0)
        return status;
    if (stat->kind != FARBLK_TAR_VALUE)
        stat->size = stat->stored = 0;
    stat->position = found->position;
    read_attributes(scan, local, block, stat);
    return 0;
}
