/* SPDX-License-Identifier: ISC */
/* See tally.h. */
#include "tests/tally.h"

#include "core/device.h"
#include "server/export.h"
#include "server/session.h"
#include "tests/support.h"

#include <stdio.h>

static uint8_t image[TALLY_SECTORS * TALLY_SECTOR];
static _Atomic uint8_t counts[TALLY_TAGS];
static atomic_uint writes, flushes, reads, ios;
static bool late;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static const struct uri_param no_params[] = {{.name = NULL}};

void
tally_fill(void *sector, uint32_t tag)
{
    pattern_fill(sector, TALLY_SECTOR, tag);
    memcpy(sector, &tag, sizeof tag);
}

uint32_t
tally_tag(const void *sector)
{
    uint8_t wanted[TALLY_SECTOR];
    uint32_t tag;
    memcpy(&tag, sector, sizeof tag);
    if (tag == 0 && pattern_is_zero(sector, TALLY_SECTOR))
        return 0;
    tally_fill(wanted, tag);
    return memcmp(sector, wanted, TALLY_SECTOR) == 0 ? tag : UINT32_MAX;
}

unsigned
tally_count(uint32_t tag)
{
    return tag < TALLY_TAGS ? counts[tag] : 0;
}

unsigned
tally_writes(void)
{
    return writes;
}

unsigned
tally_flushes(void)
{
    return flushes;
}

unsigned
tally_reads(void)
{
    return reads;
}

/* ------------------------------------------------------------ driver */

static int
tally_found(const struct uri *uri, bool read_only, struct candidate *found,
            struct error *error)
{
    (void)uri, (void)read_only, (void)error;
    found->state = image;
    return 0;
}

static int
tally_begin(void *state, struct device *device, struct shape *shape,
            struct error *error)
{
    (void)state, (void)device, (void)error;
    *shape = (struct shape){
        .sector_size = TALLY_SECTOR,
        .size = sizeof image,
        .features = FARBLK_CAN_FUA,
        .max_transfer = 8 * TALLY_SECTOR,
        .name = "tally",
    };
    return 0;
}

static void
tally_end(void *state)
{
    (void)state;
}

static void
tally_execute(struct io *io)
{
    uint32_t tag;
    pthread_mutex_lock(&mutex);
    switch (io->op) {
    case FARBLK_OP_READ:
        iov_copy_in(&io->data, image + io->offset, (size_t)io->length);
        reads++;
        break;
    case FARBLK_OP_WRITE:
        iov_copy_out(&io->data, image + io->offset, (size_t)io->length);
        memcpy(&tag, image + io->offset, sizeof tag);
        if (tag < TALLY_TAGS)
            counts[tag]++;
        writes++;
        break;
    default:
        flushes++;
        break;
    }
    pthread_mutex_unlock(&mutex);
}

struct later {
    struct timer timer;
    struct io *io;
};

static void
tally_fire(struct timer *timer)
{
    struct later *later = (struct later *)(void *)timer;
    struct io *io = later->io;
    free(later);
    tally_execute(io);
    io_done(io, 0);
}

static void
tally_submit(void *state, struct io *io)
{
    struct later *later = NULL;
    (void)state;
    if (late && atomic_fetch_add(&ios, 1) % 4 == 0)
        later = calloc(1, sizeof *later);
    if (later != NULL) {
        later->io = io;
        if (timer_arm(&later->timer, timer_now() + 2, tally_fire))
            return;
        free(later);
    }
    tally_execute(io);
    io_done(io, 0);
}

static struct driver tally_driver = {
    .name = "tally",
    .schemes = "tally",
    .params = no_params,
    .open = tally_found,
    .start = tally_begin,
    .close = tally_end,
    .submit = tally_submit,
};

/* ------------------------------------------------------------ use */

void
tally_start(struct tally *tally, const char *url,
            const struct farblk_server_options *options)
{
    struct error error;
    memset(image, 0, sizeof image);
    for (unsigned i = 0; i < TALLY_TAGS; i++)
        counts[i] = 0;
    writes = flushes = reads = 0;
    late = tally->late;
    ok(farblk_server_create(options, &tally->server));
    /* It has no URI by which a server could open it: it takes the place of
     * another export's device. */
    ok(farblk_server_export(tally->server, "disk", "ramdisk:tally?size=512k"));
    struct export *export = export_find(tally->server, "disk");
    ok(farblk_close(export->dev));
    assert_int_equal(
        device_open(&tally_driver, "tally:", NULL, &export->dev, &error), 0);
    ok(farblk_server_listen(tally->server, url));
    snprintf(tally->url, sizeof tally->url, "%s",
             farblk_server_url(tally->server, 0));
}

void
tally_stop(struct tally *tally)
{
    ok(farblk_server_stop(tally->server, -1));
    farblk_server_destroy(tally->server);
}

void
tally_forget(struct tally *tally)
{
    struct farblk_server *server = tally->server;
    pthread_mutex_lock(&server->mutex);
    for (size_t i = 0; i < SERVER_SESSION_BUCKETS; i++)
        for (struct session *s = server->sessions[i]; s != NULL; s = s->next) {
            pthread_mutex_lock(&s->mutex);
            kept_forget_below(&s->table, 0, UINT64_MAX);
            pthread_mutex_unlock(&s->mutex);
        }
    pthread_mutex_unlock(&server->mutex);
}
