/* SPDX-License-Identifier: ISC */
/*
 * What the file driver's tests share.
 */
#include "tests/files.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

const char *
files_engine(void **state)
{
    return *state;
}

/* "file:PATH?engine=ENGINE&MORE"; static, of the last four calls. */
const char *
files_uri(const char *engine, const char *path, const char *more)
{
    static char texts[4][512];
    static unsigned next;
    char *text = texts[next++ % 4];
    snprintf(text, sizeof texts[0], "file:%s?engine=%s%s%s", path, engine,
             more[0] != '\0' ? "&" : "", more);
    return text;
}

struct farblk *
files_open(void **state, const char *path, const char *more)
{
    struct farblk *dev = NULL;
    int status =
        farblk_open(files_uri(files_engine(state), path, more), NULL, &dev);
    if (status == FARBLK_UNIMPLEMENTED)
        skip();
    support_ok(status, more, __FILE__, __LINE__);
    return dev;
}

int
files_try_open(void **state, const char *path, const char *more)
{
    struct farblk *dev = NULL;
    int status =
        farblk_open(files_uri(files_engine(state), path, more), NULL, &dev);
    if (status == 0)
        farblk_close(dev);
    return status;
}

void
files_open_close(void **state, const char *path, const char *more)
{
    ok(farblk_close(files_open(state, path, more)));
}

uint64_t
files_size(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

void
files_put(struct farblk *dev, uint64_t sector, size_t length, uint64_t seed)
{
    uint8_t *data = malloc(length);
    pattern_fill(data, length, seed);
    ok(support_write(dev, sector, data, length, 0));
    free(data);
}

/* The octets that differ from the pattern, or from zeros with seed 0. */
void
files_expect(struct farblk *dev, uint64_t sector, size_t length, uint64_t seed)
{
    uint8_t *data = malloc(length);
    memset(data, 0x5a, length);
    ok(support_read(dev, sector, data, length));
    if (seed == 0)
        assert_true(pattern_is_zero(data, length));
    else
        assert_int_equal(pattern_check(data, length, seed), length);
    free(data);
}

/* Run this program again.  Its exit status. */
int
files_again(const char *name, void **state, const char *path)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl("/proc/self/exe", "test_file", name, files_engine(state), path,
              (char *)NULL);
        _exit(1);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip();
    return WEXITSTATUS(status);
}

int
files_watch(void **state)
{
    (void)state;
    support_watch("files");
    return 0;
}
