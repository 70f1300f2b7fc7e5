/* SPDX-License-Identifier: ISC */
/*
 * See extended.h.
 */
#include "tar/extended.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const keywords[EXTENDED_KEYS] = {
    [EXTENDED_PATH] = "path",
    [EXTENDED_LINKPATH] = "linkpath",
    [EXTENDED_SIZE] = "size",
    [EXTENDED_MTIME] = "mtime",
    [EXTENDED_UID] = "uid",
    [EXTENDED_GID] = "gid",
    [EXTENDED_UNAME] = "uname",
    [EXTENDED_GNAME] = "gname",
    [EXTENDED_SPARSE_NAME] = "GNU.sparse.name",
    [EXTENDED_SPARSE_SIZE] = "GNU.sparse.size",
    [EXTENDED_SPARSE_REALSIZE] = "GNU.sparse.realsize",
    [EXTENDED_SPARSE_MAJOR] = "GNU.sparse.major",
    [EXTENDED_SPARSE_MINOR] = "GNU.sparse.minor",
    [EXTENDED_SPARSE_MAP] = "GNU.sparse.map",
};

const char *
pax_keyword(enum extended_key key)
{
    return keywords[key];
}

void
extended_init(struct extended *extended)
{
    memset(extended, 0, sizeof *extended);
}

void
extended_fini(struct extended *extended)
{
    for (unsigned i = 0; i < EXTENDED_KEYS; i++)
        free(extended->values[i].text);
    extended_init(extended);
}

bool
extended_copy(struct extended *to, const struct extended *from)
{
    extended_init(to);
    to->any = from->any;
    for (unsigned i = 0; i < EXTENDED_KEYS; i++) {
        const struct extended_value *value = &from->values[i];
        to->values[i] = *value;
        to->values[i].text = NULL;
        if (value->text == NULL)
            continue;
        to->values[i].text = malloc(value->length + 1);
        to->values[i].room = value->length + 1;
        if (to->values[i].text == NULL) {
            extended_fini(to);
            return false;
        }
        memcpy(to->values[i].text, value->text, value->length + 1);
    }
    return true;
}

const struct extended_value *
extended_find(const struct extended *local, const struct extended *global,
              enum extended_key key)
{
    const struct extended_value *value = &local->values[key];
    if (value->state == EXTENDED_UNSAID)
        value = &global->values[key];
    return value->state == EXTENDED_SAID ? value : NULL;
}

/* ------------------------------------------------------------ taking in */

static bool
append(struct extended_value *value, const char *text, size_t length)
{
    size_t want = value->length + length + 1;
    if (want > value->room) {
        size_t room = want > 2 * value->room ? want : 2 * value->room;
        char *grown = realloc(value->text, room);
        if (grown == NULL)
            return false;
        value->text = grown;
        value->room = room;
    }
    memcpy(value->text + value->length, text, length);
    value->length += length;
    value->text[value->length] = '\0';
    return true;
}

static int
set(struct extended *extended, enum extended_key key, const char *text,
    size_t length, struct error *error)
{
    struct extended_value *value = &extended->values[key];
    extended->any = true;
    value->length = 0;
    value->state = length == 0 ? EXTENDED_DELETED : EXTENDED_SAID;
    if (length > 0 && !append(value, text, length))
        return error_set(error, FARBLK_NO_MEMORY,
                         "no memory for an extended header");
    return 0;
}

/* GNU's first sparse format says the map in many records. */
static int
add_to_map(struct extended *extended, const char *number, size_t length,
           struct error *error)
{
    struct extended_value *map = &extended->values[EXTENDED_SPARSE_MAP];
    extended->any = true;
    if (!((map->length == 0 || append(map, ",", 1))
          && append(map, number, length)))
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a sparse map");
    map->state = EXTENDED_SAID;
    return 0;
}

static bool
is_key(const struct pax_record *record, const char *key)
{
    return record->key_length == strlen(key)
           && memcmp(record->key, key, record->key_length) == 0;
}

static int
take_record(struct extended *extended, bool global, uint64_t payload,
            size_t payload_size, const struct pax_record *record,
            struct error *error)
{
    unsigned limit = global ? EXTENDED_GLOBAL : EXTENDED_LONG_NAME;
    if (!global
        && (is_key(record, "GNU.sparse.offset")
            || is_key(record, "GNU.sparse.numbytes")))
        return add_to_map(extended, record->value, record->value_length, error);
    for (unsigned key = 0; key < limit; key++) {
        if (!is_key(record, keywords[key]))
            continue;
        if (memchr(record->value, '\0', record->value_length) != NULL)
            return error_set(error, FARBLK_CORRUPT,
                             "the pax record %s has a zero in its value",
                             keywords[key]);
        struct extended_value *value = &extended->values[key];
        value->payload = payload;
        value->payload_size = payload_size;
        return set(extended, key, record->value, record->value_length, error);
    }
    return 0;
}

int
extended_pax(struct extended *extended, bool global, uint64_t payload,
             const char *records, size_t length, struct error *error)
{
    struct pax_record record;
    const char *at = records;
    int more;
    while ((more = pax_next(&at, records + length, &record, error)) > 0) {
        int status =
            take_record(extended, global, payload, length, &record, error);
        if (status != 0)
            return status;
    }
    return more;
}

int
extended_long(struct extended *extended, enum extended_key key,
              uint64_t payload, const char *text, size_t length,
              struct error *error)
{
    extended->values[key].payload = payload;
    extended->values[key].payload_size = length;
    return set(extended, key, text, strnlen(text, length), error);
}

/* ------------------------------------------------------------ records */

int
pax_next(const char **at, const char *end, struct pax_record *record,
         struct error *error)
{
    const char *start = *at, *s = start;
    uint64_t length;
    if (start == end)
        return 0;
    while (s < end && *s != ' ')
        s++;
    const char *equals = s < end ? memchr(s, '=', (size_t)(end - s)) : NULL;
    if (equals == NULL || !decimal(start, (size_t)(s - start), &length)
        || length > (uint64_t)(end - start)
        || length < (uint64_t)(equals - start) + 2 || start[length - 1] != '\n')
        return error_set(error, FARBLK_CORRUPT,
                         "a pax record breaks its form \"LENGTH KEY=VALUE\"");
    record->at = start;
    record->length = (size_t)length;
    record->key = s + 1;
    record->key_length = (size_t)(equals - s) - 1;
    record->value = equals + 1;
    record->value_length = (size_t)length - 1 - (size_t)(record->value - start);
    *at = start + length;
    return 1;
}

size_t
pax_length(size_t key_length, size_t value_length)
{
    size_t rest = key_length + value_length + 3; /* ' ', '=' and '\n' */
    size_t length = rest + 1;
    while (length - rest < (size_t)snprintf(NULL, 0, "%zu", length))
        length++;
    return length;
}

size_t
pax_put(char *to, const char *key, const char *value, size_t value_length)
{
    size_t length = pax_length(strlen(key), value_length);
    int head = sprintf(to, "%zu %s=", length, key);
    memcpy(to + head, value, value_length);
    to[length - 1] = '\n';
    to[length] = '\0';
    return length;
}

bool
decimal(const char *text, size_t length, uint64_t *value)
{
    uint64_t sum = 0;
    if (length == 0)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(text[i] - '0');
        if (sum > ((uint64_t)INT64_MAX - digit) / 10)
            return false;
        sum = sum * 10 + digit;
    }
    *value = sum;
    return true;
}

bool
decimal_time(const char *text, int64_t *seconds, uint32_t *nanoseconds)
{
    bool negative = *text == '-';
    text += negative;
    size_t whole = strspn(text, "0123456789");
    uint64_t sum;
    if (!decimal(text, whole, &sum))
        return false;
    text += whole;
    uint32_t nano = 0;
    if (*text == '.') {
        uint32_t unit = 100000000;
        for (text++; *text >= '0' && *text <= '9'; text++) {
            nano += unit * (uint32_t)(*text - '0');
            unit /= 10;
        }
    }
    if (*text != '\0')
        return false;
    *seconds = negative ? -(int64_t)sum : (int64_t)sum;
    *nanoseconds = nano;
    if (negative && nano > 0) {
        /* Time goes on from the second below. */
        *seconds -= 1;
        *nanoseconds = 1000000000 - nano;
    }
    return true;
}
