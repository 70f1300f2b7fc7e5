/* SPDX-License-Identifier: ISC */
/*
 * Archives made by hand, header by header, right or wrong, and the device to
 * read them from.
 */
#ifndef FARBLK_TESTS_TAR_BUILD_H
#define FARBLK_TESTS_TAR_BUILD_H

#include "farblk/tar.h"
#include "tests/tar_judge.h"

/* What has been built so far; whole blocks, zeros behind. */
struct build {
    uint8_t *data;
    size_t size, room;
};

extern struct build build;

void build_begin(void);
/* A ustar header with its checksum; answers where it is. */
size_t build_header(const char *name, char type, uint64_t size);
/* Exchange octets of the header at `header`, and put the checksum right. */
void build_patch(size_t header, size_t at, const void *octets, size_t length);
void build_patch_text(size_t header, size_t at, const char *text);
/* As base-256. */
void build_patch_number(size_t header, size_t at, size_t size, int64_t value);
/* Turn it into a header of v7, or of GNU's. */
void build_make_v7(size_t header);
void build_make_gnu(size_t header);
/* Data, padded to whole blocks. */
void build_data(const void *data, size_t length);
/* A header and its data. */
size_t build_file(const char *name, const char *text);
/* An extended header; `text` are its records, or a long name (with its zero). */
size_t build_extended(char type, const char *text, size_t length);
/* Records of "KEY=VALUE", ended by NULL. */
size_t build_pax(int type, ...) __attribute__((sentinel));
void build_end(void);

/* A device with sectors of that size that holds the archive, and `spare` octets
 * or a little more behind it; ended by build_close(). */
struct farblk *build_device(uint32_t sector_size, uint64_t spare);
/* The archive on it, opened. */
struct farblk_tar *build_open(uint32_t sector_size, uint64_t spare);
/* Open what was built: how that fails. */
int build_try(const struct farblk_tar_options *options);
void build_close(struct farblk_tar *tar);
struct farblk *build_dev(void);

/* What stat() and get_info() say; neither may fail. */
struct farblk_tar_stat build_stat(struct farblk_tar *tar, const char *key);
struct farblk_tar_info build_info(struct farblk_tar *tar);

/* The archive as it is on the device, read anew and by others, is just that. */
void build_expect_archive(const struct judge *judge);
/* The value is just that. */
void build_expect(struct farblk_tar *tar, const char *key, const char *value);
void build_expect_octets(struct farblk_tar *tar, const char *key,
                         const void *octets, size_t length);

#endif
