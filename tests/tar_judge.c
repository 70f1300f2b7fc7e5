/* SPDX-License-Identifier: ISC */
/* See tar_judge.h. */
#include "tests/tar_judge.h"

#include "tests/support.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>
#if FARBLK_TESTS_LIBARCHIVE
#include <archive.h>
#include <archive_entry.h>
#endif

static char why[FARBLK_TEXT_MAX + 512];

/* ------------------------------------------------------------ the model */

static void *
copied(const void *from, size_t size)
{
    void *to = malloc(size + 1);
    assert_non_null(to);
    if (size > 0)
        memcpy(to, from, size);
    return to;
}

void
judge_clear(struct judge *judge)
{
    for (size_t i = 0; i < judge->count; i++) {
        free(judge->values[i].key);
        free(judge->values[i].data);
    }
    judge->count = 0;
}

void
judge_set(struct judge *judge, const char *key, const void *data, size_t size)
{
    assert_true(judge->count < JUDGE_MAX);
    judge->values[judge->count++] = (struct judged){
        .key = strdup(key), .data = copied(data, size), .size = size};
}

void
judge_copy(struct judge *to, const struct judge *from)
{
    judge_clear(to);
    for (size_t i = 0; i < from->count; i++)
        judge_set(to, from->values[i].key, from->values[i].data,
                  from->values[i].size);
}

struct judged *
judge_find(struct judge *judge, const char *key)
{
    for (size_t i = 0; i < judge->count; i++)
        if (strcmp(judge->values[i].key, key) == 0)
            return &judge->values[i];
    return NULL;
}

void
judge_remove(struct judge *judge, const char *key)
{
    struct judged *value = judge_find(judge, key);
    assert_non_null(value);
    free(value->key);
    free(value->data);
    size_t behind = judge->count - (size_t)(value - judge->values) - 1;
    memmove(value, value + 1, behind * sizeof *value);
    judge->count--;
}

void
judge_rename(struct judge *judge, const char *from, const char *to)
{
    struct judged *value = judge_find(judge, from);
    assert_non_null(value);
    free(value->key);
    value->key = strdup(to);
}

/* ------------------------------------------------------------ our reader */

struct asking {
    const struct judge *judge;
    struct farblk_tar *tar;
    size_t next;
};

static int
ask(void *arg, const struct farblk_tar_entry *entry)
{
    struct asking *asking = arg;
    const struct judge *judge = asking->judge;
    void *data;
    uint64_t size;
    if (asking->next == judge->count) {
        snprintf(why, sizeof why, "\"%.300s\" is too much", entry->key);
        return 1;
    }
    const struct judged *value = &judge->values[asking->next++];
    if (strcmp(entry->key, value->key) != 0) {
        snprintf(why, sizeof why, "\"%.300s\" instead of \"%.300s\"",
                 entry->key, value->key);
        return 1;
    }
    if (farblk_tar_get(asking->tar, entry->key, UINT64_MAX, &data, &size) < 0) {
        snprintf(why, sizeof why, "%.500s", farblk_last_text());
        return 1;
    }
    bool same =
        size == value->size && memcmp(data, value->data, (size_t)size) == 0;
    free(data);
    if (!same)
        snprintf(why, sizeof why, "\"%.300s\" has another value", entry->key);
    return !same;
}

const char *
judge_by_us(const struct judge *judge, struct farblk_tar *tar)
{
    struct asking asking = {judge, tar, 0};
    int status = farblk_tar_iterate(tar, ask, &asking);
    if (status > 0)
        return why;
    if (status < 0) {
        snprintf(why, sizeof why, "%.500s", farblk_last_text());
        return why;
    }
    if (asking.next < judge->count) {
        snprintf(why, sizeof why, "no \"%.300s\"",
                 judge->values[asking.next].key);
        return why;
    }
    return NULL;
}

/* ------------------------------------------------------------ libarchive */

/* Does a name as it stands in an archive mean the key? */
static bool
means(const char *name, const char *key)
{
    while (*key != '\0') {
        while (*name == '/' || (name[0] == '.' && name[1] == '/'))
            name++;
        key++;
        size_t length = strcspn(key, "/");
        if (strncmp(name, key, length) != 0)
            return false;
        name += length;
        key += length;
    }
    return *name == '\0';
}

#if FARBLK_TESTS_LIBARCHIVE
static const char *
judge_entry(const struct judged *value, struct archive *archive,
            struct archive_entry *entry)
{
    const char *name = archive_entry_pathname(entry);
    if (name == NULL || !means(name, value->key)) {
        snprintf(why, sizeof why, "libarchive: \"%.300s\" for \"%.300s\"",
                 name != NULL ? name : "(null)", value->key);
        return why;
    }
    uint8_t *data = malloc(value->size + 1);
    assert_non_null(data);
    la_ssize_t got = archive_read_data(archive, data, value->size + 1);
    bool same = got == (la_ssize_t)value->size
                && memcmp(data, value->data, value->size) == 0;
    free(data);
    if (same)
        return NULL;
    snprintf(why, sizeof why, "libarchive: another value for \"%.300s\"", name);
    return why;
}

const char *
judge_by_libarchive(const struct judge *judge, const void *image, size_t size)
{
    struct archive *archive = archive_read_new();
    struct archive_entry *entry;
    const char *answer = NULL;
    size_t next = 0;
    int status = ARCHIVE_OK;
    assert_non_null(archive);
    archive_read_support_format_tar(archive);
    archive_read_support_format_empty(archive);
    archive_read_set_options(archive, "hdrcharset=BINARY");
    if (archive_read_open_memory(archive, image, size) != ARCHIVE_OK)
        status = ARCHIVE_FATAL;
    while (answer == NULL && status == ARCHIVE_OK) {
        status = archive_read_next_header(archive, &entry);
        if (status == ARCHIVE_WARN)
            status = ARCHIVE_OK; /* of a locale that does not know the name */
        if (status == ARCHIVE_OK && next == judge->count) {
            snprintf(why, sizeof why, "libarchive: \"%.300s\" is too much",
                     archive_entry_pathname(entry));
            answer = why;
        } else if (status == ARCHIVE_OK) {
            answer = judge_entry(&judge->values[next++], archive, entry);
        }
    }
    if (answer == NULL && status != ARCHIVE_EOF) {
        const char *text = archive_error_string(archive);
        snprintf(why, sizeof why, "libarchive: %.300s",
                 text != NULL ? text : "an error");
        answer = why;
    }
    if (answer == NULL && next < judge->count) {
        snprintf(why, sizeof why, "libarchive: no \"%.300s\"",
                 judge->values[next].key);
        answer = why;
    }
    archive_read_free(archive);
    return answer;
}
#else
const char *
judge_by_libarchive(const struct judge *judge, const void *image, size_t size)
{
    (void)judge, (void)image, (void)size;
    return NULL;
}
#endif

bool
judge_has_libarchive(void)
{
    return FARBLK_TESTS_LIBARCHIVE;
}

/* ------------------------------------------------------------ GNU tar */

bool
judge_has_gnu_tar(void)
{
    static int has = -1;
    if (has < 0)
        has = system("tar --version 2>/dev/null | grep -q 'GNU tar'") == 0;
    return has != 0;
}

static bool
file_is(const char *path, const struct judged *value)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return false;
    uint8_t *data = malloc(value->size + 1);
    assert_non_null(data);
    size_t got = fread(data, 1, value->size + 1, file);
    bool same =
        got == value->size && memcmp(data, value->data, value->size) == 0;
    free(data);
    fclose(file);
    return same;
}

const char *
judge_by_gnu_tar(const struct judge *judge, const void *image, size_t size)
{
    const char *dir = support_path("extracted");
    char command[1024], path[8192];
    const char *answer = NULL;
    unsigned listed = 0;
    if (!judge_has_gnu_tar())
        return NULL;
    snprintf(path, sizeof path, "%s.tar", dir);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(image, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    snprintf(command, sizeof command,
             "mkdir %s && tar -C %s -xf %s.tar 2>%s.err && "
             "tar -tvf %s.tar 2>>%s.err | wc -l >%s.n",
             dir, dir, dir, dir, dir, dir, dir);
    if (system(command) != 0) {
        snprintf(why, sizeof why, "GNU tar fails: %.900s", command);
        return why;
    }
    snprintf(path, sizeof path, "%s.n", dir);
    file = fopen(path, "r");
    assert_non_null(file);
    if (fscanf(file, "%u", &listed) != 1 || listed != judge->count) {
        snprintf(why, sizeof why, "GNU tar: %u members, not %zu", listed,
                 judge->count);
        answer = why;
    }
    fclose(file);
    for (size_t i = 0; answer == NULL && i < judge->count; i++) {
        snprintf(path, sizeof path, "%s%s", dir, judge->values[i].key);
        if (!file_is(path, &judge->values[i])) {
            snprintf(why, sizeof why, "GNU tar: another value for \"%.300s\"",
                     judge->values[i].key);
            answer = why;
        }
    }
    snprintf(command, sizeof command, "rm -rf %s %s.*", dir, dir);
    assert_int_equal(system(command), 0);
    return answer;
}
