/* SPDX-License-Identifier: ISC */
/*
 * Another key for a member.
 *
 * Its name stands in one of three places: in its header, in a record of its pax
 * extended header, in GNU's long name.  It is exchanged there if that changes
 * one block of the archive and no more, for one block is what a crash leaves
 * old or new.  A record keeps its length: a "comment" behind it takes what a
 * shorter name leaves, or slashes in the name do, which mean nothing.
 */
#include "tar/archive.h"
#include "tar/block.h"
#include "tar/compose.h"

#include "core/checked.h"

#include <stdlib.h>
#include <string.h>

static int
does_not_fit(const char *name, struct error *error)
{
    return error_set(error, FARBLK_APPEND_ONLY,
                     "the name \"%.200s\", of %zu octets, does not fit into "
                     "the block where the old one stands",
                     name, strlen(name));
}

/* ------------------------------------------------------------ the places */

static int
rename_in_header(struct farblk_tar *tar, const struct headers *found,
                 const char *name, struct error *error)
{
    uint8_t block[BLOCK];
    int status =
        store_read(&tar->store, found->header, block, sizeof block, error);
    if (status != 0)
        return status;
    if (!block_put_name(block, name, strlen(name)))
        return does_not_fit(name, error);
    block_seal(block);
    return archive_commit(tar, found->header, block, error);
}

/* Put a name that takes `pad` octets more than it has: "./", with more slashes,
 * in front, or for one octet a slash more within.  False: not possible. */
static bool
put_padded(char *to, const char *name, size_t pad)
{
    const char *slash = strchr(name, '/');
    if (pad == 1) {
        if (slash == NULL)
            return false;
        size_t front = (size_t)(slash - name);
        memcpy(to, name, front);
        to[front] = '/';
        strcpy(to + front + 1, slash);
        return true;
    }
    if (pad > 1) {
        *to++ = '.';
        memset(to, '/', pad - 1);
        to += pad - 1;
    }
    strcpy(to, name);
    return true;
}

/* Fill exactly `length` octets of `to` with a record for the name; true if that
 * can be done.  `to` has room for one octet more. */
static bool
put_record(char *to, size_t length, const char *keyword, const char *name)
{
    size_t name_length = strlen(name), key_length = strlen(keyword);
    for (size_t pad = 0; pad < 32; pad++) {
        size_t used = pax_length(key_length, name_length + pad);
        if (used > length)
            return false;
        size_t rest = length - used, comment = 0;
        while (rest > 0 && pax_length(7, comment) < rest)
            comment++;
        if (rest > 0 && pax_length(7, comment) != rest)
            continue;
        char *padded = malloc(name_length + pad + 1);
        char *blanks = calloc(1, comment + 1);
        bool put =
            padded != NULL && blanks != NULL && put_padded(padded, name, pad);
        if (put) {
            memset(blanks, ' ', comment);
            pax_put(to, keyword, padded, name_length + pad);
            if (rest > 0)
                pax_put(to + used, "comment", blanks, comment);
        }
        free(padded);
        free(blanks);
        if (put)
            return true;
    }
    return false;
}

/* Exchange the last record of that keyword among `records`. */
static bool
exchange_record(char *records, size_t size, const char *keyword,
                const char *name)
{
    struct pax_record record, last = {.at = NULL};
    const char *at = records;
    while (pax_next(&at, records + size, &record, NULL) > 0)
        if (record.key_length == strlen(keyword)
            && memcmp(record.key, keyword, record.key_length) == 0)
            last = record;
    if (last.at == NULL)
        return false;
    char *made = malloc(last.length + 1);
    bool put = made != NULL && put_record(made, last.length, keyword, name);
    if (put)
        memcpy(records + (last.at - records), made, last.length);
    free(made);
    return put;
}

/* In octets that follow a header of their own. */
static int
rename_in_payload(struct farblk_tar *tar, const struct headers *found,
                  const char *name, struct error *error)
{
    size_t size = (size_t)found->name_payload_size;
    size_t whole = (size_t)round_up(size, BLOCK);
    size_t changed = 0, count = 0;
    char *old = malloc(whole + 1), *new = malloc(whole + 1);
    int status = 0;
    if (old == NULL || new == NULL)
        status = error_set(error, FARBLK_NO_MEMORY, "no memory for a name");
    if (status == 0)
        status =
            store_read(&tar->store, found->name_payload, old, whole, error);
    if (status == 0) {
        bool fits = true;
        memcpy(new, old, whole);
        if (found->name_place == NAME_IN_PAX) {
            fits =
                exchange_record(new, size, pax_keyword(found->name_key), name);
        } else {
            fits = strlen(name) < size;
            memset(new, 0, size);
            if (fits)
                memcpy(new, name, strlen(name));
        }
        for (size_t i = 0; i < whole; i += BLOCK)
            if (memcmp(old + i, new + i, BLOCK) != 0) {
                changed = i;
                count++;
            }
        if (!fits || count != 1)
            status = does_not_fit(name, error);
    }
    if (status == 0)
        status = archive_commit(tar, found->name_payload + changed,
                                (uint8_t *)new + changed, error);
    free(old);
    free(new);
    return status;
}

/* ------------------------------------------------------------ the member */

/* Read the member's headers again: where its name stands is not kept.  They
 * must be those of `key`. */
static int
read_again(struct farblk_tar *tar, const struct member *member,
           const char *name, struct headers *found, struct error *error)
{
    struct reader reader;
    uint64_t end;
    struct scan scan = {
        .reader = &reader,
        .max_headers = tar->max_headers,
        .max_extended = tar->max_extended,
    };
    memset(found, 0, sizeof *found);
    if (!extended_copy(&scan.global, &tar->global))
        return error_set(error, FARBLK_NO_MEMORY, "no memory for headers");
    int status = reader_init(&reader, &tar->store, tar->device_size, error);
    if (status == 0) {
        status = scan_next(&scan, member->position, found, &end, error);
        reader_fini(&reader);
    }
    extended_fini(&scan.global);
    if (status < 0 && status != FARBLK_CORRUPT)
        return status;
    char *there = status > 0 ? compose_name(found->name) : NULL;
    bool same = there != NULL && found->header == member->header
                && strcmp(there, name) == 0;
    if (status > 0 && !same && found->name_place == NAME_IN_GLOBAL)
        same = true; /* refused by whoever looks at the place */
    free(there);
    if (!same)
        return error_set(error, FARBLK_CONFLICT,
                         "the headers at octet %llu are no longer those of "
                         "\"%.200s\": somebody else has written to the archive",
                         (unsigned long long)member->position, name);
    return 0;
}

static int
rename_headers(struct farblk_tar *tar, const struct member *member,
               const char *from, const char *to, struct error *error)
{
    struct headers found;
    char *old_name = compose_name(from), *name = compose_name(to);
    int status = 0;
    memset(&found, 0, sizeof found);
    if (old_name == NULL || name == NULL)
        status = error_set(error, FARBLK_NO_MEMORY, "no memory for a name");
    if (status == 0)
        status = read_again(tar, member, old_name, &found, error);
    if (status == 0)
        switch (found.name_place) {
        case NAME_IN_HEADER:
            status = rename_in_header(tar, &found, name, error);
            break;
        case NAME_IN_PAX:
        case NAME_IN_LONG:
            status = rename_in_payload(tar, &found, name, error);
            break;
        case NAME_IN_GLOBAL:
            status = error_set(error, FARBLK_APPEND_ONLY,
                               "a global header gives the member its name");
            break;
        }
    headers_fini(&found);
    free(old_name);
    free(name);
    return status;
}

/* A hard link to nothing would find something under the new name. */
static bool
is_sought(const struct index *index, const char *to)
{
    bool sought = false;
    char *name = compose_name(to);
    if (name == NULL)
        return true;
    for (size_t i = 0; index->lost > 0 && !sought && i < index->count; i++) {
        const struct member *member = index->members[i];
        if (!member->hard_link || member->named != NULL)
            continue;
        char *link = compose_name(member->link);
        sought = link == NULL || strcmp(link, name) == 0;
        free(link);
    }
    free(name);
    return sought;
}

/* The index must come out as if the archive were read anew. */
static int
check_rename(struct farblk_tar *tar, const char *from, const char *to,
             struct growth *growth, struct member **member, struct error *error)
{
    struct node *node;
    int status = index_find(&tar->index, from, &node, error);
    if (status != 0)
        return status;
    if (node_is_directory(node))
        return error_set(error, FARBLK_NOT_A_VALUE, "\"%.300s\" is a directory",
                         from);
    *member = node->member;
    status = index_prepare(&tar->index, to, growth, error);
    if (status != 0)
        return status;
    if ((*member)->in_the_way)
        return error_set(error, FARBLK_APPEND_ONLY,
                         "\"%.300s\" took the place of an earlier member, "
                         "which would come back",
                         from);
    if ((*member)->links > 0)
        return error_set(error, FARBLK_APPEND_ONLY,
                         "%u hard links name \"%.300s\"", (*member)->links,
                         from);
    for (node = growth->directory; node != NULL; node = node->parent)
        if (node->contested)
            return error_set(error, FARBLK_APPEND_ONLY,
                             "\"%.300s\" leads through what an earlier member "
                             "of the archive has been replaced by",
                             to);
    if (is_sought(&tar->index, to))
        return error_set(error, FARBLK_APPEND_ONLY,
                         "a hard link that leads to nothing names \"%.300s\"",
                         to);
    return 0;
}

int
farblk_tar_rename(struct farblk_tar *tar, const char *from, const char *to)
{
    struct growth growth = {NULL, NULL, NULL};
    struct member *member = NULL;
    struct error error;
    int status = 0;
    error_clear(&error);
    if (tar == NULL || from == NULL || to == NULL)
        status = error_set(&error, FARBLK_INVALID, "no archive or no key");
    if (status == 0)
        status = archive_begin(tar, &error);
    if (status != 0)
        return archive_result("tar_rename", status, &error);
    status = check_rename(tar, from, to, &growth, &member, &error);
    if (status == 0)
        status = rename_headers(tar, member, from, to, &error);
    if (status == 0) {
        struct node *old = member->node;
        pthread_mutex_lock(&tar->lock);
        /* First in, then out: they may share directories. */
        index_attach(&tar->index, &growth, member);
        index_detach(&tar->index, old);
        pthread_mutex_unlock(&tar->lock);
    } else {
        index_drop(&tar->index, &growth);
    }
    archive_end(tar);
    return archive_result("tar_rename", status, &error);
}
