/* SPDX-License-Identifier: ISC */
/*
 * Archives come and go: opening, which reads all headers, closing, making an
 * empty one; and who writes to which device.
 */
#include "tar/archive.h"
#include "tar/block.h"

#include "core/checked.h"

#include <stdlib.h>
#include <string.h>

#define MAX_HEADERS (4u * 1024u * 1024u)
#define MAX_KEY 4096u
#define MAX_EXTENDED (1024u * 1024u)
#define MAX_MEMORY (UINT64_C(512) << 20)

/* ------------------------------------------------------------ writers */

static pthread_mutex_t writers_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t writers_once = PTHREAD_ONCE_INIT;
static struct farblk_tar *writers;

/* A child has none; what it inherited it can not use. */
static void
writers_after_fork(void)
{
    pthread_mutex_init(&writers_mutex, NULL);
    writers = NULL;
}

static void
writers_watch_fork(void)
{
    pthread_atfork(NULL, NULL, writers_after_fork);
}

static int
writer_enter(struct farblk_tar *tar, struct error *error)
{
    int status = 0;
    pthread_once(&writers_once, writers_watch_fork);
    pthread_mutex_lock(&writers_mutex);
    for (struct farblk_tar *other = writers; other != NULL;
         other = other->next_writer)
        if (other->identity == tar->identity)
            status = error_set(error, FARBLK_BUSY,
                               "an archive on this device is open for writing "
                               "already");
    if (status == 0) {
        tar->next_writer = writers;
        writers = tar;
    }
    pthread_mutex_unlock(&writers_mutex);
    return status;
}

static void
writer_leave(struct farblk_tar *tar)
{
    pthread_mutex_lock(&writers_mutex);
    struct farblk_tar **link = &writers;
    while (*link != NULL && *link != tar)
        link = &(*link)->next_writer;
    if (*link != NULL)
        *link = tar->next_writer;
    pthread_mutex_unlock(&writers_mutex);
}

/* ------------------------------------------------------------ open */

static int
read_options(const struct farblk_tar_options *from,
             struct farblk_tar_options *options, struct error *error)
{
    memset(options, 0, sizeof *options);
    if (from != NULL && from->size < sizeof *from)
        return error_set(error, FARBLK_INVALID,
                         "options of %zu octets, wanted at least %zu",
                         from->size, sizeof *from);
    if (from != NULL) {
        const unsigned char *tail = (const unsigned char *)from;
        for (size_t i = sizeof *from; i < from->size; i++)
            if (tail[i] != 0)
                return error_set(error, FARBLK_INVALID,
                                 "options that this library does not know");
        *options = *from;
    }
    if (options->max_headers == 0)
        options->max_headers = MAX_HEADERS;
    if (options->max_key == 0)
        options->max_key = MAX_KEY;
    if (options->max_extended == 0)
        options->max_extended = MAX_EXTENDED;
    if (options->max_memory == 0)
        options->max_memory = MAX_MEMORY;
    return 0;
}

static int
read_archive(struct farblk_tar *tar, struct error *error)
{
    struct reader reader;
    struct headers found;
    uint64_t at = 0;
    int status = reader_init(&reader, &tar->store, tar->device_size, error);
    if (status != 0)
        return status;
    struct scan scan = {
        .reader = &reader,
        .max_headers = tar->max_headers,
        .max_extended = tar->max_extended,
    };
    extended_init(&scan.global);
    while ((status = scan_next(&scan, at, &found, &at, error)) > 0) {
        at = found.end;
        status = index_add(&tar->index, &found, error);
        headers_fini(&found);
        if (status != 0)
            break;
    }
    tar->end = at;
    tar->global = scan.global; /* it owns the texts from now on */
    if (status == 0 && scan.dangling != UINT64_MAX)
        error_set(&tar->broken, FARBLK_CORRUPT,
                  "the archive ends with extended headers, at octet %llu, that "
                  "no member follows: it can be read only",
                  (unsigned long long)scan.dangling);
    reader_fini(&reader);
    return status;
}

static struct farblk_tar *
archive_create(struct error *error)
{
    struct farblk_tar *tar = calloc(1, sizeof *tar);
    if (tar == NULL) {
        error_set(error, FARBLK_NO_MEMORY, "no memory for an archive");
        return NULL;
    }
    pthread_mutex_init(&tar->change, NULL);
    pthread_mutex_init(&tar->lock, NULL);
    pthread_cond_init(&tar->unpinned, NULL);
    extended_init(&tar->global);
    return tar;
}

static void
archive_destroy(struct farblk_tar *tar)
{
    if (tar == NULL)
        return;
    writer_leave(tar);
    index_fini(&tar->index);
    extended_fini(&tar->global);
    pthread_mutex_destroy(&tar->change);
    pthread_mutex_destroy(&tar->lock);
    pthread_cond_destroy(&tar->unpinned);
    free(tar);
}

static int
archive_open(struct farblk_tar *tar, struct farblk *dev,
             const struct farblk_tar_options *options, struct error *error)
{
    int status = store_init(&tar->store, dev, &tar->device_size,
                            &tar->read_write, &tar->identity, error);
    if (status != 0)
        return status;
    index_init(&tar->index, options->max_memory, options->max_key);
    tar->max_headers = options->max_headers;
    tar->max_extended = options->max_extended;
    tar->read_write = tar->read_write && !options->read_only;
    if (tar->read_write)
        status = writer_enter(tar, error);
    return status == 0 ? read_archive(tar, error) : status;
}

int
farblk_tar_open(struct farblk *dev, const struct farblk_tar_options *from,
                struct farblk_tar **tar)
{
    struct farblk_tar_options options;
    struct error error;
    error_clear(&error);
    if (tar == NULL)
        return last_error_fail(FARBLK_INVALID,
                               "tar_open: nowhere to put the archive");
    *tar = NULL;
    int status = read_options(from, &options, &error);
    if (status == 0 && (*tar = archive_create(&error)) == NULL)
        status = error.status;
    if (status == 0)
        status = archive_open(*tar, dev, &options, &error);
    if (status != 0) {
        archive_destroy(*tar);
        *tar = NULL;
    }
    return archive_result("tar_open", status, &error);
}

void
farblk_tar_close(struct farblk_tar *tar)
{
    archive_destroy(tar);
}

/* ------------------------------------------------------------ create */

static int
make_empty(struct farblk_tar *tar, bool replace, struct error *error)
{
    static const uint8_t zeros[BLOCK];
    uint8_t block[BLOCK];
    if (tar->device_size < TRAILER)
        return error_set(error, FARBLK_NO_SPACE,
                         "a device of %llu octets is too small for an archive "
                         "of %u",
                         (unsigned long long)tar->device_size, TRAILER);
    int status = store_read(&tar->store, 0, block, sizeof block, error);
    if (status == 0 && !block_is_zero(block) && !replace)
        status = error_set(error, FARBLK_EXISTS,
                           "the device's beginning is not zeros: there is "
                           "something already");
    /* The first block of zeros makes it empty; the second comes after it, so
     * that an archive which is replaced is whole or gone. */
    if (status == 0)
        status = store_write(&tar->store, 0, zeros, BLOCK, FARBLK_FUA, error);
    if (status == 0)
        status =
            store_write(&tar->store, BLOCK, zeros, BLOCK, FARBLK_FUA, error);
    return status;
}

int
farblk_tar_create(struct farblk *dev, uint32_t flags)
{
    struct error error;
    int status = 0;
    error_clear(&error);
    struct farblk_tar *tar = archive_create(&error);
    if (tar == NULL)
        return archive_result("tar_create", error.status, &error);
    if ((flags & ~(uint32_t)FARBLK_TAR_REPLACE) != 0)
        status = error_set(&error, FARBLK_INVALID, "unknown flags 0x%x", flags);
    if (status == 0)
        status = store_init(&tar->store, dev, &tar->device_size,
                            &tar->read_write, &tar->identity, &error);
    if (status == 0 && !tar->read_write)
        status =
            error_set(&error, FARBLK_IS_READ_ONLY, "the device is read-only");
    if (status == 0)
        status = writer_enter(tar, &error);
    if (status == 0)
        status = make_empty(tar, (flags & FARBLK_TAR_REPLACE) != 0, &error);
    archive_destroy(tar);
    return archive_result("tar_create", status, &error);
}
