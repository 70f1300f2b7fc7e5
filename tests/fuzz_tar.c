/* SPDX-License-Identifier: ISC */
/*
 * See fuzz_tar.h.  The octets are the beginning of a ramdisk; what the library
 * finds there is read, changed, and has to be found again by who reads it anew.
 *
 * With -DFARBLK_FUZZERS=ON and clang this is the program `fuzz_tar`.
 */
#include "tests/fuzz_tar.h"

#include "farblk/tar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE_MAX_ (256u * 1024u)
#define SPARE 8192u
#define SECTOR 1024u

unsigned fuzz_tar_opened, fuzz_tar_changed;

static void
wrong(const char *what)
{
    fprintf(stderr, "fuzz_tar: %s: %s\n", what, farblk_last_text());
    abort();
}

#define must(expr)                                                             \
    do {                                                                       \
        if ((expr) < 0)                                                        \
            wrong(#expr);                                                      \
    } while (0)

/* ------------------------------------------------------------ reading */

/* A sum over all that is told, to compare two readings by. */
struct told {
    struct farblk_tar *tar;
    uint64_t sum;
    char last[4200]; /* the key of the last value */
    char first[4200];
};

static void
add(struct told *told, const void *from, size_t length)
{
    const uint8_t *octets = from;
    for (size_t i = 0; i < length; i++)
        told->sum = (told->sum ^ octets[i]) * UINT64_C(0x100000001b3);
}

static void
read_value(struct told *told, const char *key, uint64_t size)
{
    static uint8_t part[3000];
    struct farblk_tar_extent extents[5];
    uint64_t at = 0;
    size_t got;
    must(farblk_tar_get_partial(told->tar, key, size / 2, part, sizeof part,
                                &got));
    if (got > size - size / 2)
        wrong("more than the value has");
    add(told, part, got);
    must(farblk_tar_get_partial(told->tar, key, size, part, sizeof part, &got));
    if (got != 0)
        wrong("something behind the value's end");
    for (unsigned i = 0; i < 20 && at < size; i++) {
        int count =
            farblk_tar_extents(told->tar, key, at, size - at, extents, 5);
        must(count);
        for (int n = 0; n < count; n++) {
            if (extents[n].offset != at || extents[n].length == 0
                || extents[n].length > size - at)
                wrong("extents are not in order");
            at += extents[n].length;
        }
    }
    if (size <= SIZE_MAX_) {
        uint8_t digest[FARBLK_TAR_DIGEST_SIZE];
        must(farblk_tar_digest(told->tar, key, digest));
        add(told, digest, sizeof digest);
    }
}

static int
tell(void *arg, const struct farblk_tar_entry *entry)
{
    struct told *told = arg;
    struct farblk_tar_stat stat = *entry->stat;
    add(told, entry->key, strlen(entry->key) + 1);
    add(told, entry->link, strlen(entry->link) + 1);
    add(told, &entry->current, sizeof entry->current);
    /* Field by field: there is padding between them. */
    add(told, &stat.kind, sizeof stat.kind);
    add(told, &stat.type, sizeof stat.type);
    add(told, &stat.size, sizeof stat.size);
    add(told, &stat.stored, sizeof stat.stored);
    add(told, &stat.mtime, sizeof stat.mtime);
    add(told, &stat.mtime_nsec, sizeof stat.mtime_nsec);
    add(told, &stat.uid, sizeof stat.uid);
    add(told, &stat.position, sizeof stat.position);
    add(told, stat.user, strlen(stat.user));
    if (!entry->current)
        return 0;
    if (farblk_tar_exists(told->tar, entry->key) != (int)stat.kind)
        wrong("a key that is told does not exist");
    if (stat.kind == FARBLK_TAR_VALUE) {
        read_value(told, entry->key, stat.size);
        snprintf(told->last, sizeof told->last, "%s", entry->key);
        if (told->first[0] == '\0')
            snprintf(told->first, sizeof told->first, "%s", entry->key);
    }
    return 0;
}

static int
tell_tree(void *arg, const struct farblk_tar_entry *entry)
{
    struct told *told = arg;
    add(told, entry->key, strlen(entry->key) + 1);
    return strlen(entry->key) < 100 && entry->stat->kind == FARBLK_TAR_DIRECTORY
               ? farblk_tar_list(told->tar, entry->key, tell_tree, told)
               : 0;
}

static void
read_all(struct farblk_tar *tar, struct told *told)
{
    memset(told, 0, sizeof *told);
    told->tar = tar;
    must(farblk_tar_iterate(tar, tell, told));
    must(farblk_tar_list(tar, "/", tell_tree, told));
}

/* ------------------------------------------------------------ changing */

/* Small limits, so that one archive does not take long. */
static struct farblk_tar *
open_archive(struct farblk *dev)
{
    struct farblk_tar_options options = {
        .size = sizeof options,
        .max_headers = 300,
        .max_extended = 16384,
        .max_memory = 1 << 20,
    };
    struct farblk_tar *tar;
    int status = farblk_tar_open(dev, &options, &tar);
    if (status < 0 && status != FARBLK_CORRUPT && status != FARBLK_NO_SPACE
        && status != FARBLK_UNIMPLEMENTED)
        wrong("open");
    return tar;
}

/* After each change: as good as anew. */
static struct farblk_tar *
look_again(struct farblk *dev, struct farblk_tar *tar)
{
    struct told before, after;
    read_all(tar, &before);
    farblk_tar_close(tar);
    tar = open_archive(dev);
    if (tar == NULL)
        return NULL; /* the limits are small */
    read_all(tar, &after);
    if (before.sum != after.sum)
        wrong("what was known is not what is there");
    fuzz_tar_changed++;
    return tar;
}

static void
change_all(struct farblk *dev, struct farblk_tar *tar)
{
    struct told told;
    read_all(tar, &told);
    if (farblk_tar_set(tar, "new/key", "value", 5) == 0
        && (tar = look_again(dev, tar)) == NULL)
        return;
    if (farblk_tar_rename(tar, told.first, "found/at/last") == 0
        && (tar = look_again(dev, tar)) == NULL)
        return;
    if (farblk_tar_rename(tar, told.last, "a") == 0
        && (tar = look_again(dev, tar)) == NULL)
        return;
    if (farblk_tar_set_partial(tar, told.first, 0, "x", 1) == 0
        && (tar = look_again(dev, tar)) == NULL)
        return;
    if (farblk_tar_remove(tar, "new/key") == 0
        && (tar = look_again(dev, tar)) == NULL)
        return;
    if (farblk_tar_remove(tar, told.last) == 0
        && (tar = look_again(dev, tar)) == NULL)
        return;
    farblk_tar_close(tar);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t disk[SIZE_MAX_ + SPARE + SECTOR];
    struct farblk *dev;
    if (size > SIZE_MAX_)
        return 0;
    size_t whole = (size + SPARE) / SECTOR * SECTOR;
    memset(disk, 0, whole);
    if (size > 0)
        memcpy(disk, data, size);
    must(farblk_ramdisk_create("fuzz_tar", whole / SECTOR, SECTOR));
    must(farblk_open("ramdisk:fuzz_tar", NULL, &dev));
    struct iovec iov = {disk, whole};
    must(farblk_write(dev, 0, &iov, 1, 0));
    struct farblk_tar *tar = open_archive(dev);
    if (tar != NULL) {
        fuzz_tar_opened++;
        change_all(dev, tar);
    }
    must(farblk_close(dev));
    must(farblk_ramdisk_destroy("fuzz_tar"));
    return 0;
}
