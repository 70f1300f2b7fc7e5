/* SPDX-License-Identifier: ISC */
/*
 * Runs tests/certs.sh.
 */
#include "tests/certs.h"

#include "tests/support.h"

#include <stdio.h>
#include <sys/stat.h>

static void
certs_make(const char *directory)
{
    const char *source = getenv("FARBLK_SOURCE");
    char command[1024];

    if (source == NULL || source[0] == '\0')
        source = FARBLK_TESTS_SOURCE;
    assert_int_equal(mkdir(directory, 0700), 0);
    snprintf(command, sizeof command,
             "FARBLK_SOURCE='%s' bash '%s/tests/certs.sh' '%s' >'%s/log' 2>&1",
             source, source, directory, directory);
    if (system(command) == 0)
        return;
    snprintf(command, sizeof command, "tail -n 20 '%s/log' >&2", directory);
    if (system(command) != 0)
        print_error("no log\n");
    fail_msg("tests/certs.sh failed");
}

const char *
certs_path(const char *name)
{
    static char directory[256], paths[8][320];
    static unsigned next;
    char *path = paths[next++ % 8];

    if (directory[0] == '\0') {
        snprintf(directory, sizeof directory, "%s", support_path("certs"));
        certs_make(directory);
    }
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}
