/* SPDX-License-Identifier: ISC */
/*
 * What an archive ought to hold, and who says whether it does: our own reader,
 * libarchive (where it was there to build with), GNU tar (where it is
 * installed).
 */
#ifndef FARBLK_TESTS_TAR_JUDGE_H
#define FARBLK_TESTS_TAR_JUDGE_H

#include "farblk/tar.h"

#include <stdbool.h>

#define JUDGE_MAX 64u

struct judged {
    char *key; /* "/a/b"; owned, as is data */
    uint8_t *data;
    size_t size;
};

/* Values only, in the order of the archive. */
struct judge {
    struct judged values[JUDGE_MAX];
    size_t count;
};

void judge_clear(struct judge *judge);
void judge_copy(struct judge *to, const struct judge *from);
void judge_set(struct judge *judge, const char *key, const void *data,
               size_t size);
void judge_remove(struct judge *judge, const char *key);
void judge_rename(struct judge *judge, const char *from, const char *to);
struct judged *judge_find(struct judge *judge, const char *key);

/* Does it hold just that?  If not, why: a static text; else NULL. */
const char *judge_by_us(const struct judge *judge, struct farblk_tar *tar);
const char *judge_by_libarchive(const struct judge *judge, const void *image,
                                size_t size);
/* Lists and extracts; NULL as well when there is no GNU tar. */
const char *judge_by_gnu_tar(const struct judge *judge, const void *image,
                             size_t size);
bool judge_has_libarchive(void);
bool judge_has_gnu_tar(void);

#endif
