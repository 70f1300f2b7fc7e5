/* SPDX-License-Identifier: ISC */
/*
 * See compose.h.
 */
#include "tar/compose.h"

#include "core/checked.h"
#include "tar/block.h"
#include "tar/extended.h"
#include "tar/index.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Room for a record with a number, or a user's name. */
#define RECORD_MAX 64u

char *
compose_name(const char *key)
{
    const char *component;
    size_t length, used = 0;
    char *name = malloc(strlen(key) + 1);
    if (name == NULL)
        return NULL;
    for (const char *at = key; key_next(&at, &component, &length);) {
        if (used > 0)
            name[used++] = '/';
        memcpy(name + used, component, length);
        used += length;
    }
    name[used] = '\0';
    return name;
}

void
composed_fini(struct composed *composed)
{
    free(composed->blocks);
    memset(composed, 0, sizeof *composed);
}

/* ------------------------------------------------------------ attributes */

/* All of them, defaults filled in. */
static int
read_attributes(const struct farblk_tar_attributes *from,
                struct farblk_tar_attributes *to, struct error *error)
{
    memset(to, 0, sizeof *to);
    if (from != NULL && from->size < sizeof *from)
        return error_set(error, FARBLK_INVALID,
                         "attributes of %zu octets, wanted at least %zu",
                         from->size, sizeof *from);
    if (from != NULL)
        *to = *from;
    if (!to->has_mtime)
        to->mtime = (int64_t)time(NULL);
    if (!to->has_mode)
        to->mode = 0644;
    if (to->mode > 07777)
        return error_set(error, FARBLK_INVALID, "mode 0%o is more than 07777",
                         to->mode);
    if (to->uid > INT64_MAX || to->gid > INT64_MAX)
        return error_set(error, FARBLK_INVALID,
                         "uid %llu or gid %llu is more than INT64_MAX",
                         (unsigned long long)to->uid,
                         (unsigned long long)to->gid);
    if (to->user == NULL)
        to->user = "";
    if (to->group == NULL)
        to->group = "";
    if (strlen(to->user) >= OWNER_SIZE || strlen(to->group) >= OWNER_SIZE)
        return error_set(error, FARBLK_INVALID,
                         "user \"%.64s\" or group \"%.64s\" is longer than %d "
                         "octets",
                         to->user, to->group, OWNER_SIZE - 1);
    return 0;
}

/* ------------------------------------------------------------ headers */

/* All but name and checksum. */
static void
fill_header(uint8_t *block, char type, uint64_t size,
            const struct farblk_tar_attributes *attributes)
{
    memset(block, 0, BLOCK);
    memcpy(block + MAGIC_AT, "ustar\00000", 8);
    block[TYPE_AT] = (uint8_t)type;
    field_put_number(block + MODE_AT, ID_SIZE, attributes->mode);
    field_put_number(block + UID_AT, ID_SIZE, (int64_t)attributes->uid);
    field_put_number(block + GID_AT, ID_SIZE, (int64_t)attributes->gid);
    field_put_number(block + SIZE_AT, LONG_SIZE, (int64_t)size);
    field_put_number(block + MTIME_AT, LONG_SIZE, attributes->mtime);
    field_put_number(block + MAJOR_AT, ID_SIZE, 0);
    field_put_number(block + MINOR_AT, ID_SIZE, 0);
    memcpy(block + USER_AT, attributes->user, strlen(attributes->user));
    memcpy(block + GROUP_AT, attributes->group, strlen(attributes->group));
}

/* A name for the extended header itself, which nobody looks at. */
static void
put_extended_name(uint8_t *block, const char *name)
{
    char text[NAME_SIZE + 1];
    const char *slash = strrchr(name, '/');
    int length = snprintf(text, sizeof text, "PaxHeaders/%.80s",
                          slash != NULL ? slash + 1 : name);
    block_put_name(block, text, (size_t)length);
}

/* pax texts are UTF-8, unless a record says that they are anything. */
static bool
is_utf8(const char *text)
{
    const uint8_t *s = (const uint8_t *)text;
    while (*s != 0) {
        unsigned more = *s < 0x80                 ? 0
                        : *s >= 0xc2 && *s < 0xe0 ? 1
                        : *s >= 0xe0 && *s < 0xf0 ? 2
                        : *s >= 0xf0 && *s < 0xf5 ? 3
                                                  : 9;
        uint8_t low = *s == 0xe0 ? 0xa0 : *s == 0xf0 ? 0x90 : 0x80;
        uint8_t high = *s == 0xed ? 0x9f : *s == 0xf4 ? 0x8f : 0xbf;
        if (more == 9 || (more > 0 && (s[1] < low || s[1] > high)))
            return false;
        for (unsigned i = 2; i <= more; i++)
            if ((s[i] & 0xc0) != 0x80)
                return false;
        s += more + 1;
    }
    return true;
}

struct records {
    char *text;
    size_t length;
};

static void
say(struct records *records, const char *key, const char *value)
{
    records->length +=
        pax_put(records->text + records->length, key, value, strlen(value));
}

static void
say_number(struct records *records, const char *key, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    say(records, key, text);
}

/* What the header can not say, or, with `everything`, all. */
static void
say_all(struct records *records, const char *name, bool name_fits,
        uint64_t size, const struct farblk_tar_attributes *attributes,
        bool everything)
{
    if (!name_fits || everything) {
        if (!is_utf8(name))
            say(records, "hdrcharset", "BINARY");
        say(records, "path", name);
    }
    if (everything || !field_fits(LONG_SIZE, (int64_t)size))
        say_number(records, "size", (int64_t)size);
    if (everything || !field_fits(LONG_SIZE, attributes->mtime))
        say_number(records, "mtime", attributes->mtime);
    if (everything || !field_fits(ID_SIZE, (int64_t)attributes->uid))
        say_number(records, "uid", (int64_t)attributes->uid);
    if (everything || !field_fits(ID_SIZE, (int64_t)attributes->gid))
        say_number(records, "gid", (int64_t)attributes->gid);
    if (everything) {
        say(records, "uname", attributes->user);
        say(records, "gname", attributes->group);
    }
}

int
compose(struct composed *composed, const char *key, uint64_t size,
        const struct farblk_tar_attributes *from, bool everything,
        struct error *error)
{
    struct farblk_tar_attributes attributes;
    uint8_t header[BLOCK];
    memset(composed, 0, sizeof *composed);
    int status = read_attributes(from, &attributes, error);
    if (status != 0)
        return status;
    char *name = compose_name(key);
    if (name == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a name");
    size_t length = strlen(name);
    /* Room for all that may come: a header, records, the member's header. */
    size_t room = 2 * BLOCK + round_up(length + 8 * RECORD_MAX, BLOCK);
    composed->blocks = calloc(1, room);
    if (composed->blocks == NULL) {
        free(name);
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a header");
    }
    fill_header(header, '0', size, &attributes);
    bool fits = block_put_name(header, name, length);
    if (!fits)
        block_put_name(header, name, NAME_SIZE);
    block_seal(header);
    struct records records = {(char *)composed->blocks + BLOCK, 0};
    say_all(&records, name, fits, size, &attributes, everything);
    if (records.length > 0) {
        const struct farblk_tar_attributes plain = {
            .mode = 0644, .mtime = 0, .user = "", .group = ""};
        fill_header(composed->blocks, 'x', records.length, &plain);
        put_extended_name(composed->blocks, name);
        block_seal(composed->blocks);
        composed->size = BLOCK + (size_t)round_up(records.length, BLOCK);
    }
    memcpy(composed->blocks + composed->size, header, BLOCK);
    composed->size += BLOCK;
    free(name);
    return 0;
}
