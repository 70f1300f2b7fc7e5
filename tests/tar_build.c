/* SPDX-License-Identifier: ISC */
/* See tar_build.h. */
#include "tests/tar_build.h"

#include "tests/recorder.h"
#include "tests/support.h"

#include <stdio.h>

#define BLOCK 512u

struct build build;

static struct farblk *dev;

void
build_begin(void)
{
    build.size = 0;
}

/* `length` more octets of zeros; the place may move. */
static uint8_t *
more(size_t length)
{
    if (build.size + length > build.room) {
        build.room = 2 * (build.size + length);
        build.data = realloc(build.data, build.room);
        assert_non_null(build.data);
    }
    memset(build.data + build.size, 0, length);
    build.size += length;
    return build.data + build.size - length;
}

static void
seal(uint8_t *header)
{
    unsigned sum = 0;
    char text[8];
    memset(header + 148, ' ', 8);
    for (unsigned i = 0; i < BLOCK; i++)
        sum += header[i];
    snprintf(text, sizeof text, "%06o", sum);
    memcpy(header + 148, text, 7);
}

size_t
build_header(const char *name, char type, uint64_t size)
{
    uint8_t *header = more(BLOCK);
    size_t length = strlen(name);
    char text[16];
    memcpy(header, name, length < 100 ? length : 100);
    memcpy(header + 100, "0000644", 8);
    memcpy(header + 108, "0001750", 8);
    memcpy(header + 116, "0000144", 8);
    snprintf(text, sizeof text, "%011llo", (unsigned long long)size);
    memcpy(header + 124, text, 12);
    memcpy(header + 136, "14631463146", 12);
    header[156] = (uint8_t)type;
    memcpy(header + 257, "ustar\00000", 8);
    memcpy(header + 265, "somebody", 9);
    memcpy(header + 297, "users", 6);
    seal(header);
    return build.size - BLOCK;
}

void
build_patch(size_t header, size_t at, const void *octets, size_t length)
{
    memcpy(build.data + header + at, octets, length);
    seal(build.data + header);
}

void
build_patch_text(size_t header, size_t at, const char *text)
{
    build_patch(header, at, text, strlen(text));
}

void
build_patch_number(size_t header, size_t at, size_t size, int64_t value)
{
    uint8_t field[12];
    uint64_t rest = (uint64_t)value;
    for (size_t i = size; i-- > 0;) {
        field[i] = (uint8_t)rest;
        rest = rest >> 8 | (value < 0 ? UINT64_C(255) << 56 : 0);
    }
    field[0] |= 0x80;
    build_patch(header, at, field, size);
}

void
build_make_v7(size_t header)
{
    static const uint8_t zeros[BLOCK - 257];
    build_patch(header, 257, zeros, sizeof zeros);
}

void
build_make_gnu(size_t header)
{
    build_patch(header, 257, "ustar  ", 8);
}

void
build_data(const void *data, size_t length)
{
    uint8_t *to = more((length + BLOCK - 1) / BLOCK * BLOCK);
    if (length > 0)
        memcpy(to, data, length);
}

size_t
build_file(const char *name, const char *text)
{
    size_t header = build_header(name, '0', strlen(text));
    build_data(text, strlen(text));
    return header;
}

size_t
build_extended(char type, const char *text, size_t length)
{
    size_t header = build_header("extended", type, length);
    build_data(text, length);
    return header;
}

size_t
build_pax(int type, ...)
{
    static char records[65536];
    size_t used = 0;
    const char *text;
    va_list args;
    va_start(args, type);
    while ((text = va_arg(args, const char *)) != NULL) {
        size_t rest = strlen(text) + 2, length = rest + 1;
        while (length != rest + (size_t)snprintf(NULL, 0, "%zu", length))
            length++;
        assert_true(used + length < sizeof records);
        used += (size_t)sprintf(records + used, "%zu %s\n", length, text);
    }
    va_end(args);
    return build_extended((char)type, records, used);
}

void
build_end(void)
{
    more(2 * BLOCK);
}

/* ------------------------------------------------------------ the device */

struct farblk *
build_device(uint32_t sector_size, uint64_t spare)
{
    recorder_reset();
    recorder.sector_size = sector_size;
    recorder.size =
        (build.size + spare + sector_size - 1) / sector_size * sector_size;
    recorder.fua = true;
    recorder.zeroes = true;
    recorder.image = calloc(1, recorder.size + 1);
    assert_non_null(recorder.image);
    if (build.size > 0)
        memcpy(recorder.image, build.data, build.size);
    dev = recorder_open();
    return dev;
}

struct farblk_tar *
build_open(uint32_t sector_size, uint64_t spare)
{
    struct farblk_tar *tar = NULL;
    ok(farblk_tar_open(build_device(sector_size, spare), NULL, &tar));
    return tar;
}

int
build_try(const struct farblk_tar_options *options)
{
    struct farblk_tar *tar = NULL;
    char text[FARBLK_TEXT_MAX];
    int status = farblk_tar_open(build_device(512, 0), options, &tar);
    snprintf(text, sizeof text, "%s", farblk_last_text());
    farblk_tar_close(tar);
    /* Closing the device would take the text with it. */
    farblk_close(dev);
    dev = NULL;
    recorder_reset();
    if (status < 0) {
        assert_true(text[0] != '\0');
        print_message("  %s: %s\n", farblk_status_name(status), text);
    }
    return status;
}

void
build_close(struct farblk_tar *tar)
{
    farblk_tar_close(tar);
    ok(farblk_close(dev));
    dev = NULL;
    recorder_reset();
}

struct farblk *
build_dev(void)
{
    return dev;
}

void
build_expect_octets(struct farblk_tar *tar, const char *key, const void *octets,
                    size_t length)
{
    void *value;
    uint64_t size;
    ok(farblk_tar_get(tar, key, UINT64_MAX, &value, &size));
    assert_int_equal(size, length);
    assert_memory_equal(value, octets, length);
    free(value);
}

void
build_expect(struct farblk_tar *tar, const char *key, const char *value)
{
    build_expect_octets(tar, key, value, strlen(value));
}

struct farblk_tar_stat
build_stat(struct farblk_tar *tar, const char *key)
{
    struct farblk_tar_stat stat = {0};
    ok(farblk_tar_stat(tar, key, &stat, sizeof stat));
    return stat;
}

struct farblk_tar_info
build_info(struct farblk_tar *tar)
{
    struct farblk_tar_info info = {0};
    ok(farblk_tar_get_info(tar, &info, sizeof info));
    return info;
}

void
build_expect_archive(const struct judge *judge)
{
    struct farblk_tar_options options = {.size = sizeof options,
                                         .read_only = true};
    struct farblk_tar *tar;
    ok(farblk_tar_open(dev, &options, &tar));
    const char *why = judge_by_us(judge, tar);
    farblk_tar_close(tar);
    if (why == NULL)
        why = judge_by_libarchive(judge, recorder.image, recorder.size);
    if (why != NULL)
        fail_msg("%s", why);
}
