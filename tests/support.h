/* SPDX-License-Identifier: ISC */
/*
 * What every test may use: ok() and fails_with(), temporary files and unique
 * names, seeded random numbers and patterns, a watchdog.
 *
 * ok() and fails_with() end a test by cmocka's jump, and so belong to the
 * test's own thread; other threads note what went wrong in a struct trouble,
 * which the test looks at when it has joined them.
 */
#ifndef FARBLK_TESTS_SUPPORT_H
#define FARBLK_TESTS_SUPPORT_H

#include "farblk/farblk.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Long enough for a sanitizer on a busy machine; only against hangs. */
#define SUPPORT_PATIENCE_MS 120000

/* A farblk call that must not fail.  Gives its value. */
#define ok(expr) support_ok((expr), #expr, __FILE__, __LINE__)
/* A farblk call that must fail with this very status, and say why. */
#define fails_with(status, expr)                                               \
    support_fails((status), (expr), #expr, __FILE__, __LINE__)
/* The last failure's text has this in it. */
#define text_has(part) support_text_has((part), __FILE__, __LINE__)

int support_ok(int status, const char *what, const char *file, int line);
void support_fails(int wanted, int status, const char *what, const char *file,
                   int line);
void support_text_has(const char *part, const char *file, int line);

/* One buffer's worth of farblk_read() and farblk_write(). */
int support_read(struct farblk *dev, uint64_t start, void *to, size_t length);
int support_write(struct farblk *dev, uint64_t start, const void *from,
                  size_t length, uint32_t flags);

/* A fresh zeroed farblk_info of the device; fails the test when it can not. */
struct farblk_info support_info(struct farblk *dev);

/* The process's temporary directory; made at the first call, removed with all
 * that is in it when the process exits. */
const char *support_directory(void);
/* A new path in it, "DIR/PREFIX-N"; nothing is made.  Static, of the last eight
 * calls. */
const char *support_path(const char *prefix);
/* A name that no other test of this machine uses now, "PREFIX-PID-N".  The
 * same. */
const char *support_name(const char *prefix);
/* Make a sparse file of that many octets; fails the test when it can not. */
void support_make_file(const char *path, uint64_t size);
/* How many descriptors this process has open. */
size_t support_descriptors(void);

/* End the process with a message when this is not called again, or called with
 * NULL, within a generous time.  `what` stays valid. */
void support_watch(const char *what);

/* splitmix64: the same numbers from the same seed everywhere. */
struct rng {
    uint64_t state;
};
uint64_t rng_next(struct rng *rng);
/* 0 ... limit - 1; limit > 0. */
uint64_t rng_below(struct rng *rng, uint64_t limit);

/* Fill with what only this seed gives; never all zeros. */
void pattern_fill(void *to, size_t length, uint64_t seed);
/* The offset of the first octet that differs, or `length`. */
size_t pattern_check(const void *from, size_t length, uint64_t seed);
bool pattern_is_zero(const void *from, size_t length);

/* The first thing that went wrong in a thread; zeroed: nothing.  Any number of
 * threads may share one. */
struct trouble {
    _Atomic int noted;
    char text[FARBLK_TEXT_MAX + 256];
};
void trouble_note(struct trouble *trouble, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Fail the test when something was noted. */
void trouble_assert_none(const struct trouble *trouble);

#endif
