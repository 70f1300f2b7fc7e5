/* SPDX-License-Identifier: ISC */
/* See nbdkit_hand.h. */
#include "tests/nbdkit_hand.h"

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include <cmocka.h>

struct hand hand;
const struct nbdkit_plugin *plugin;

static void
hand_reset(void)
{
    memset(&hand, 0, sizeof hand);
    hand.info = (struct farblk_info){
        .read_write = true,
        .sector_size = 512,
        .size_sectors = 2048,
        .generation = 1,
        .features = FARBLK_CAN_DISCARD | FARBLK_DISCARD_ZEROES
                    | FARBLK_CAN_WRITE_ZEROES | FARBLK_CAN_SEEK
                    | FARBLK_CAN_FUA,
    };
    hand.run = 8;
    hand.export_name = "";
}

int
hand_setup(void **state)
{
    (void)state;
    hand_reset();
    plugin = plugin_init();
    return 0;
}

int
hand_teardown(void **state)
{
    (void)state;
    plugin->cleanup();
    plugin->unload();
    for (unsigned i = 0; i < hand.opens; i++)
        assert_false(hand.devices[i].open);
    return 0;
}

void
hand_configure(const char *key, const char *value)
{
    assert_int_equal(plugin->config(key, value), 0);
    if (plugin->config_complete() != 0)
        fail_msg("%s", hand.error);
}

void *
hand_connect(void)
{
    void *c = plugin->open(0);
    if (c == NULL)
        fail_msg("%s", hand.error);
    return c;
}

void *
hand_begin(void)
{
    hand_configure("uri", "file:/d");
    return hand_connect();
}

void
hand_said(const char *part)
{
    if (strstr(hand.error, part) == NULL)
        fail_msg("no \"%s\" in: %s", part, hand.error);
}

/* ----------------------------------------------------------------- nbdkit */

void
nbdkit_error(const char *msg, ...)
{
    va_list args;
    va_start(args, msg);
    vsnprintf(hand.error, sizeof hand.error, msg, args);
    va_end(args);
}

void
nbdkit_debug(const char *msg, ...)
{
    (void)msg;
}

void
nbdkit_set_error(int err)
{
    hand.errnum = err;
}

const char *
nbdkit_export_name(void)
{
    return hand.export_name;
}

int
nbdkit_parse_bool(const char *str)
{
    if (strcasecmp(str, "true") == 0 || strcmp(str, "1") == 0)
        return 1;
    if (strcasecmp(str, "false") == 0 || strcmp(str, "0") == 0)
        return 0;
    nbdkit_error("could not decipher boolean (%s)", str);
    return -1;
}

const char *
nbdkit_strdup_intern(const char *str)
{
    static char copy[300];
    snprintf(copy, sizeof copy, "%s", str);
    return copy;
}

const char *
nbdkit_printf_intern(const char *msg, ...)
{
    static char text[300];
    va_list args;
    va_start(args, msg);
    vsnprintf(text, sizeof text, msg, args);
    va_end(args);
    return text;
}

int
nbdkit_add_extent(struct nbdkit_extents *extents, uint64_t offset,
                  uint64_t length, uint32_t type)
{
    (void)extents;
    assert_true(hand.extents < HAND_EXTENTS);
    hand.extent[hand.extents].offset = offset;
    hand.extent[hand.extents].length = length;
    hand.extent[hand.extents++].type = type;
    return 0;
}

int
nbdkit_add_export(struct nbdkit_exports *exports, const char *name,
                  const char *description)
{
    (void)exports;
    assert_true(hand.listed < HAND_EXPORTS);
    snprintf(hand.list[hand.listed++], sizeof hand.list[0], "%s: %s", name,
             description);
    return 0;
}

int
nbdkit_use_default_export(struct nbdkit_exports *exports)
{
    return nbdkit_add_export(exports, "", "default");
}

/* ---------------------------------------------------------------- farblk */

const char *
farblk_last_text(void)
{
    return "the library's text";
}

const char *
farblk_version(void)
{
    return "1.2.3";
}

const char *
farblk_status_name(int status)
{
    return status == FARBLK_IO ? "IO" : "OTHER";
}

const struct farblk_driver_info *
farblk_driver(size_t index)
{
    static const struct farblk_driver_info drivers[] = {
        {.size = sizeof drivers[0],
         .name = "file",
         .schemes = "file",
         .parameters = "create=0|1  make it\nsize=SIZE  octets\n"},
        {.size = sizeof drivers[0],
         .name = "farblk",
         .schemes = "farblk+unix farblk",
         .parameters = "socket=TEXT  path\ntimeout=NUMBER  time\n"},
    };
    return index < 2 ? &drivers[index] : NULL;
}

void
farblk_set_log(enum farblk_log_level level,
               void (*log)(void *, enum farblk_log_level, const char *),
               void *arg)
{
    (void)level;
    (void)log;
    (void)arg;
}

int
farblk_open(const char *uri, const struct farblk_options *options,
            struct farblk **dev)
{
    *dev = NULL;
    if (hand.open_status != 0)
        return hand.open_status;
    assert_true(hand.opens < HAND_URIS);
    *dev = &hand.devices[hand.opens++];
    snprintf((*dev)->uri, sizeof(*dev)->uri, "%s", uri);
    (*dev)->read_only = options->read_only;
    (*dev)->open = true;
    return 0;
}

int
farblk_close(struct farblk *dev)
{
    assert_true(dev->open);
    dev->open = false;
    return 0;
}

int
farblk_list(const char *uri,
            int (*entry)(void *arg, const struct farblk_list_entry *entry),
            void *arg)
{
    snprintf(hand.error, sizeof hand.error, "%s", uri);
    for (unsigned i = 0; hand.list_status == 0 && hand.exports[i] != NULL;
         i++) {
        const struct farblk_list_entry told = {.size = sizeof told,
                                               .name = hand.exports[i],
                                               .read_write = i == 0,
                                               .sector_size = 512,
                                               .size_sectors = 7};
        int status = entry(arg, &told);
        if (status != 0)
            return status;
    }
    return hand.list_status;
}

static int
called(const char *call, struct farblk *dev, uint64_t start, uint64_t count,
       uint32_t flags)
{
    assert_true(dev->open);
    hand.calls++;
    hand.call = call;
    hand.dev = dev;
    hand.start = start;
    hand.count = count;
    hand.flags = flags;
    return hand.status;
}

int
farblk_read(struct farblk *dev, uint64_t start, const struct iovec *iov,
            size_t iovcnt)
{
    assert_int_equal(iovcnt, 1);
    hand.buffer = iov->iov_base;
    return called("read", dev, start, iov->iov_len, 0);
}

int
farblk_write(struct farblk *dev, uint64_t start, const struct iovec *iov,
             size_t iovcnt, uint32_t flags)
{
    assert_int_equal(iovcnt, 1);
    hand.buffer = iov->iov_base;
    return called("write", dev, start, iov->iov_len, flags);
}

int
farblk_flush(struct farblk *dev)
{
    return called("flush", dev, 0, 0, 0);
}

int
farblk_discard(struct farblk *dev, uint64_t start, uint64_t count,
               uint32_t flags)
{
    return called("discard", dev, start, count, flags);
}

int
farblk_write_zeroes(struct farblk *dev, uint64_t start, uint64_t count,
                    uint32_t flags)
{
    return called("write_zeroes", dev, start, count, flags);
}

int
farblk_extents(struct farblk *dev, uint64_t start, uint64_t count,
               struct farblk_extent *extents, size_t max)
{
    int status = called("extents", dev, start, count, 0);
    size_t n = 0;
    assert_true(max > 0 && count > 0);
    while (status == 0 && n < max && count > 0) {
        uint64_t length = hand.run - start % hand.run;
        if (length > count)
            length = count;
        extents[n++] =
            (struct farblk_extent){.start = start,
                                   .count = length,
                                   .mapped = start / hand.run % 2 == 0};
        start += length;
        count -= length;
    }
    return status == 0 ? (int)n : status;
}

struct farblk_queue {
    struct farblk_request request;
    bool full;
};

int
farblk_queue_create(uint32_t depth, struct farblk_queue **queue)
{
    assert_int_equal(depth, 1);
    *queue = calloc(1, sizeof **queue);
    assert_non_null(*queue);
    return 0;
}

void
farblk_queue_destroy(struct farblk_queue *queue)
{
    free(queue);
}

int
farblk_submit(struct farblk_queue *queue, const struct farblk_request *request)
{
    assert_int_equal(request->op, FARBLK_OP_GET_INFO);
    assert_int_equal(request->iov->iov_len, sizeof(struct farblk_info));
    assert_true(request->dev->open);
    queue->request = *request;
    queue->full = true;
    return 0;
}

int
farblk_collect(struct farblk_queue *queue,
               struct farblk_completion *completions, size_t size, size_t max,
               int32_t timeout_ms)
{
    assert_true(queue->full && max == 1 && timeout_ms < 0);
    assert_int_equal(size, sizeof *completions);
    memcpy(queue->request.iov->iov_base, &hand.info, sizeof hand.info);
    *completions = (struct farblk_completion){.status = hand.status,
                                              .value = queue->request.dev->gone,
                                              .text = "the completion's text"};
    return 1;
}
