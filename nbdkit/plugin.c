/* SPDX-License-Identifier: ISC */
/*
 * nbdkit-farblk-plugin: any farblk device as an NBD export.
 *
 * nbdkit's threads, as many for each connection as it likes, wait in blocking
 * calls of the library.  Nothing is opened before the first client, for nbdkit
 * forks when it has read its parameters, and what was open does not survive
 * that.  What a connection is told at its beginning (size, abilities) is one
 * look at the device; another size is seen by those who connect afterwards.
 *
 * Requests must be whole sectors, which the block size tells; those that are
 * not fail.  Reading, changing and writing the rest of a sector can not be done
 * here without tearing other clients' writes; nbdkit's blocksize filter does it
 * for those who can live with that.
 */
#include "nbdkit/plugin.h"

#define NBDKIT_API_VERSION 2
#include <errno.h>
#include <inttypes.h>
#include <nbdkit-plugin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define VERSION                                                                \
    TEXT(FARBLK_VERSION_MAJOR)                                                 \
    "." TEXT(FARBLK_VERSION_MINOR) "." TEXT(FARBLK_VERSION_PATCH)

/* nbdkit takes no larger requests; the library splits them as it needs. */
#define REQUEST_MAX (64u << 20)
/* What file systems like; smaller requests work but may cost more. */
#define REQUEST_PREFERRED 4096u
/* An answer about extents is bounded: the client asks on behind its end. */
#define EXTENTS_AT_ONCE 256
#define EXTENTS_ROUNDS 64

/* An NBD connection. */
struct connection {
    struct shared *shared;
    struct farblk *dev;
    struct farblk_info info; /* when it began */
    uint32_t sector_size;
};

/* ----------------------------------------------------------- the process */

/* The library's log lines, from any thread. */
static void
farblk_nbdkit_log(void *arg, enum farblk_log_level level, const char *line)
{
    (void)arg;
    if (level <= FARBLK_LOG_WARNING)
        nbdkit_error("%s", line);
    else
        nbdkit_debug("%s", line);
}

static void
farblk_nbdkit_unload(void)
{
    config_free();
}

static void
farblk_nbdkit_dump(void)
{
    const struct farblk_driver_info *driver;
    printf("farblk_version=%s\nfarblk_schemes=", farblk_version());
    for (size_t i = 0; (driver = farblk_driver(i)) != NULL; i++)
        printf("%s%s", i > 0 ? " " : "", driver->schemes);
    printf("\n");
}

static int
farblk_nbdkit_after_fork(void)
{
    farblk_set_log(FARBLK_LOG_INFO, farblk_nbdkit_log, NULL);
    return 0;
}

/* No connection is served any more. */
static void
farblk_nbdkit_cleanup(void)
{
    shared_end();
    farblk_set_log(FARBLK_LOG_ERROR, NULL, NULL);
}

/* --------------------------------------------------------------- exports */

static int
list_entry(void *arg, const struct farblk_list_entry *entry)
{
    char description[128];
    snprintf(description, sizeof description,
             "%" PRIu64 " sectors of %" PRIu32 " octets%s", entry->size_sectors,
             entry->sector_size, entry->read_write ? "" : ", read-only");
    /* Negative numbers are the library's. */
    return nbdkit_add_export(arg, entry->name, description) == 0 ? 0 : 1;
}

static int
list_failed(int status)
{
    if (status < 0)
        nbdkit_error("%s (%s)", farblk_last_text(), farblk_status_name(status));
    return status == 0 ? 0 : -1;
}

static int
farblk_nbdkit_list_exports(int readonly, int is_tls,
                           struct nbdkit_exports *exports)
{
    (void)readonly;
    (void)is_tls;
    if (config_server() == NULL)
        return nbdkit_use_default_export(exports);
    return list_failed(farblk_list(config_server(), list_entry, exports));
}

/* Keeps the first name; a second one ends the listing. */
static int
only_entry(void *arg, const struct farblk_list_entry *entry)
{
    const char **only = arg;
    if (*only != NULL) {
        *only = NULL;
        return 1;
    }
    *only = nbdkit_strdup_intern(entry->name);
    return *only == NULL ? 1 : 0;
}

/* For clients that choose no name: the server's device, if it has but one. */
static const char *
farblk_nbdkit_default_export(int readonly, int is_tls)
{
    const char *only = NULL;
    (void)readonly;
    (void)is_tls;
    if (config_server() == NULL)
        return "";
    int status = farblk_list(config_server(), only_entry, &only);
    if (status < 0) {
        list_failed(status);
        return NULL;
    }
    return only;
}

static void *
farblk_nbdkit_open(int readonly)
{
    const char *name = nbdkit_export_name();
    char *uri = name != NULL ? config_device(name) : NULL;
    struct connection *c = uri != NULL ? calloc(1, sizeof *c) : NULL;
    if (uri != NULL && c == NULL)
        nbdkit_error("calloc: %m");
    if (c != NULL) {
        c->shared = shared_acquire(uri, readonly != 0, &c->info);
        if (c->shared == NULL) {
            free(c);
            c = NULL;
        } else {
            c->dev = c->shared->dev;
            c->sector_size = c->info.sector_size;
        }
    }
    free(uri);
    return c;
}

static void
farblk_nbdkit_close(void *handle)
{
    struct connection *c = handle;
    shared_release(c->shared);
    free(c);
}

/* ----------------------------------------------- what a client is promised */

static bool
able(void *handle, uint64_t features)
{
    const struct connection *c = handle;
    return (c->info.features & features) == features;
}

static int64_t
farblk_nbdkit_get_size(void *handle)
{
    const struct connection *c = handle;
    /* At most INT64_MAX; farblk has no larger devices. */
    return (int64_t)(c->info.size_sectors * c->sector_size);
}

static const char *
farblk_nbdkit_description(void *handle)
{
    const struct connection *c = handle;
    return nbdkit_printf_intern("%" PRIu64 " sectors of %" PRIu32 " octets%s",
                                c->info.size_sectors, c->sector_size,
                                c->info.read_write ? "" : ", read-only");
}

static int
farblk_nbdkit_block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
                         uint32_t *maximum)
{
    const struct connection *c = handle;
    *minimum = c->sector_size;
    *preferred =
        c->sector_size > REQUEST_PREFERRED ? c->sector_size : REQUEST_PREFERRED;
    *maximum = REQUEST_MAX;
    return 0;
}

static int
farblk_nbdkit_can_write(void *handle)
{
    const struct connection *c = handle;
    return c->info.read_write;
}

static int
farblk_nbdkit_yes(void *handle)
{
    (void)handle;
    return 1;
}

static int
farblk_nbdkit_no(void *handle)
{
    (void)handle;
    return 0;
}

static int
farblk_nbdkit_can_trim(void *handle)
{
    return able(handle, FARBLK_CAN_DISCARD);
}

static int
farblk_nbdkit_can_zero(void *handle)
{
    return able(handle, FARBLK_CAN_WRITE_ZEROES);
}

static int
farblk_nbdkit_can_extents(void *handle)
{
    return able(handle, FARBLK_CAN_SEEK);
}

static int
farblk_nbdkit_can_fua(void *handle)
{
    return able(handle, FARBLK_CAN_FUA) ? NBDKIT_FUA_NATIVE
                                        : NBDKIT_FUA_EMULATE;
}

static int
farblk_nbdkit_can_cache(void *handle)
{
    (void)handle;
    return NBDKIT_CACHE_NONE;
}

/* ------------------------------------------------------------------ data */

/* Only what NBD has numbers for: nbdkit makes EINVAL of everything else, and a
 * client that waited too long would be told that it asked for nonsense. */
static int
error_of(int status)
{
    switch (status) {
    case FARBLK_UNIMPLEMENTED:
        return EOPNOTSUPP;
    case FARBLK_IS_READ_ONLY:
        return EROFS;
    case FARBLK_DENIED:
        return EPERM;
    case FARBLK_DISCONNECTED:
    case FARBLK_CONNECTION_LOST:
        return ESHUTDOWN;
    case FARBLK_INVALID:
        return EINVAL;
    case FARBLK_NO_SPACE:
        return ENOSPC;
    case FARBLK_NO_MEMORY:
        return ENOMEM;
    default:
        return EIO;
    }
}

/* What the callback of a request answers. */
static int
answer(int status)
{
    if (status >= 0)
        return 0;
    nbdkit_error("%s (%s)", farblk_last_text(), farblk_status_name(status));
    nbdkit_set_error(error_of(status));
    return -1;
}

static bool
whole_sectors(const struct connection *c, const char *what, uint32_t count,
              uint64_t offset)
{
    if (count % c->sector_size == 0 && offset % c->sector_size == 0)
        return true;
    nbdkit_error("%s of %" PRIu32 " octets at %" PRIu64
                 " is not whole sectors of %" PRIu32
                 "; for clients that ignore the block size there is nbdkit's "
                 "--filter=blocksize",
                 what, count, offset, c->sector_size);
    nbdkit_set_error(EINVAL);
    return false;
}

static uint32_t
flags_of(uint32_t flags)
{
    return (flags & NBDKIT_FLAG_FUA) != 0 ? FARBLK_FUA : 0;
}

static int
farblk_nbdkit_pread(void *handle, void *buf, uint32_t count, uint64_t offset,
                    uint32_t flags)
{
    struct connection *c = handle;
    const struct iovec iov = {.iov_base = buf, .iov_len = count};
    (void)flags;
    if (!whole_sectors(c, "a read", count, offset))
        return -1;
    return answer(farblk_read(c->dev, offset / c->sector_size, &iov, 1));
}

static int
farblk_nbdkit_pwrite(void *handle, const void *buf, uint32_t count,
                     uint64_t offset, uint32_t flags)
{
    struct connection *c = handle;
    const struct iovec iov = {.iov_base = (void *)(uintptr_t)buf,
                              .iov_len = count};
    if (!whole_sectors(c, "a write", count, offset))
        return -1;
    return answer(farblk_write(c->dev, offset / c->sector_size, &iov, 1,
                               flags_of(flags)));
}

static int
farblk_nbdkit_flush(void *handle, uint32_t flags)
{
    struct connection *c = handle;
    (void)flags;
    return answer(farblk_flush(c->dev));
}

static int
farblk_nbdkit_trim(void *handle, uint32_t count, uint64_t offset,
                   uint32_t flags)
{
    struct connection *c = handle;
    if (!whole_sectors(c, "a trim", count, offset))
        return -1;
    return answer(farblk_discard(c->dev, offset / c->sector_size,
                                 count / c->sector_size, flags_of(flags)));
}

static int
farblk_nbdkit_zero(void *handle, uint32_t count, uint64_t offset,
                   uint32_t flags)
{
    struct connection *c = handle;
    bool keep_mapped = (flags & NBDKIT_FLAG_MAY_TRIM) == 0;
    if (!whole_sectors(c, "zeroing", count, offset))
        return -1;
    /* Where discarding gives zeros, unmapping surely is quick; everything else
     * may be done by writing. */
    if ((flags & NBDKIT_FLAG_FAST_ZERO) != 0
        && (keep_mapped || !able(c, FARBLK_DISCARD_ZEROES))) {
        nbdkit_set_error(EOPNOTSUPP);
        return -1;
    }
    return answer(farblk_write_zeroes(
        c->dev, offset / c->sector_size, count / c->sector_size,
        flags_of(flags) | (keep_mapped ? FARBLK_NO_UNMAP : 0)));
}

/* Whole sectors around what was asked; nbdkit drops what lies before it. */
static int
farblk_nbdkit_extents(void *handle, uint32_t count, uint64_t offset,
                      uint32_t flags, struct nbdkit_extents *extents)
{
    struct connection *c = handle;
    struct farblk_extent found[EXTENTS_AT_ONCE];
    const uint64_t size = c->sector_size;
    const bool one = (flags & NBDKIT_FLAG_REQ_ONE) != 0;
    uint64_t at = offset / size;
    const uint64_t end = (offset + count + size - 1) / size;
    for (unsigned round = 0; at < end && round < EXTENTS_ROUNDS; round++) {
        int n = farblk_extents(c->dev, at, end - at, found,
                               one ? 1 : EXTENTS_AT_ONCE);
        if (n < 0)
            return answer(n);
        for (int i = 0; i < n; i++) {
            uint32_t type = found[i].mapped != 0
                                ? 0
                                : NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;
            if (nbdkit_add_extent(extents, found[i].start * size,
                                  found[i].count * size, type)
                != 0)
                return -1;
            at = found[i].start + found[i].count;
        }
        if (one || n == 0)
            break;
    }
    return 0;
}

#define HELP                                                                   \
    "[uri=]URI       The device, as in file:PATH, farblk://HOST/NAME,\n"       \
    "                farblk+unix:///NAME?socket=PATH.\n"                       \
    "server=URI      Instead: every device behind a server, by its name, as\n" \
    "                in farblk://HOST, farblk+unix:///?socket=PATH.\n"         \
    "keep=true       Keep a device open when its last client has gone."

static struct nbdkit_plugin plugin = {
    .name = "farblk",
    .longname = "nbdkit farblk plugin",
    .version = VERSION,
    .description = "Export a farblk device, wherever it lives.",
    .unload = farblk_nbdkit_unload,
    .dump_plugin = farblk_nbdkit_dump,
    .config = config_set,
    .config_complete = config_check,
    .config_help = HELP,
    .magic_config_key = "uri",
    .after_fork = farblk_nbdkit_after_fork,
    .cleanup = farblk_nbdkit_cleanup,
    .list_exports = farblk_nbdkit_list_exports,
    .default_export = farblk_nbdkit_default_export,
    .export_description = farblk_nbdkit_description,
    .open = farblk_nbdkit_open,
    .close = farblk_nbdkit_close,
    .get_size = farblk_nbdkit_get_size,
    .block_size = farblk_nbdkit_block_size,
    .can_write = farblk_nbdkit_can_write,
    .can_flush = farblk_nbdkit_yes,
    .is_rotational = farblk_nbdkit_no,
    .can_trim = farblk_nbdkit_can_trim,
    .can_zero = farblk_nbdkit_can_zero,
    .can_fast_zero = farblk_nbdkit_can_zero,
    .can_extents = farblk_nbdkit_can_extents,
    .can_fua = farblk_nbdkit_can_fua,
    .can_multi_conn = farblk_nbdkit_yes,
    .can_cache = farblk_nbdkit_can_cache,
    .pread = farblk_nbdkit_pread,
    .pwrite = farblk_nbdkit_pwrite,
    .flush = farblk_nbdkit_flush,
    .trim = farblk_nbdkit_trim,
    .zero = farblk_nbdkit_zero,
    .extents = farblk_nbdkit_extents,
};

/* What nbdkit looks for; the macro defines it. */
NBDKIT_DLL_PUBLIC struct nbdkit_plugin *plugin_init(void);
NBDKIT_REGISTER_PLUGIN(plugin)
