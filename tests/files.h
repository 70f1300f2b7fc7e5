/* SPDX-License-Identifier: ISC */
/*
 * What the file driver's tests share.  Each test runs with either engine and
 * with both, whose name is its state; where there is no io_uring, those with it
 * are skipped.
 */
#ifndef FARBLK_TESTS_FILES_H
#define FARBLK_TESTS_FILES_H

#include "tests/support.h"

#define MIB (1u << 20)

const char *files_engine(void **state);
/* "file:PATH?engine=ENGINE&MORE"; static, of the last four calls. */
const char *files_uri(const char *engine, const char *path, const char *more);

/* Open; skips without the engine, fails the test otherwise. */
struct farblk *files_open(void **state, const char *path, const char *more);
/* Only try it.  Its status. */
int files_try_open(void **state, const char *path, const char *more);
void files_open_close(void **state, const char *path, const char *more);

/* The file's size, by the system. */
uint64_t files_size(const char *path);
/* Write a pattern. */
void files_put(struct farblk *dev, uint64_t sector, size_t length,
               uint64_t seed);
/* Fail unless there is that pattern, or zeros with seed 0. */
void files_expect(struct farblk *dev, uint64_t sector, size_t length,
                  uint64_t seed);

/* Run this program again as `PROGRAM name engine path`, for what needs another
 * user, a mount or a limit.  Its exit status; skips on 77. */
int files_again(const char *name, void **state, const char *path);

/* One test for the engine that is in scope. */
#define FILES_TEST(name)                                                       \
    cmocka_unit_test_prestate_setup_teardown(name, files_watch, NULL, engine)
int files_watch(void **state);

/* Run the tests of `array`, a macro that lists FILES_TEST()s, with each engine.
 * Gives how many failed. */
#define FILES_RUN(title, array, failed)                                        \
    do {                                                                       \
        {                                                                      \
            static char engine[] = "uring";                                    \
            const struct CMUnitTest tests[] = {array};                         \
            (failed) += cmocka_run_group_tests_name(title ", io_uring", tests, \
                                                    NULL, NULL);               \
        }                                                                      \
        {                                                                      \
            static char engine[] = "pool";                                     \
            const struct CMUnitTest tests[] = {array};                         \
            (failed) += cmocka_run_group_tests_name(title ", pool", tests,     \
                                                    NULL, NULL);               \
        }                                                                      \
        {                                                                      \
            static char engine[] = "auto";                                     \
            const struct CMUnitTest tests[] = {array};                         \
            (failed) += cmocka_run_group_tests_name(title ", both", tests,     \
                                                    NULL, NULL);               \
        }                                                                      \
    } while (0)

#endif
