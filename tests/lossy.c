/* SPDX-License-Identifier: ISC */
/* See lossy.h. */
#include "tests/lossy.h"

#include "tests/support.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *
lossy_program(void)
{
    static char program[512];
    const char *build = getenv("FARBLK_BUILD");

    if (build == NULL || build[0] == '\0')
        build = FARBLK_TESTS_BUILD;
    snprintf(program, sizeof program, "%s/tests/lossy_fs", build);
    return program;
}

bool
lossy_usable(char *why, size_t length)
{
    int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);

    if (fuse < 0) {
        snprintf(why, length, "/dev/fuse: %s", strerror(errno));
        return false;
    }
    close(fuse);
    if (unshare(CLONE_NEWNS) != 0
        || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        snprintf(why, length, "mounts of its own: %s", strerror(errno));
        return false;
    }
    return true;
}

/* Wait until it says that it is ready, or ends. */
static bool
lossy_await(int from)
{
    struct pollfd wait = {.fd = from, .events = POLLIN};
    char text[16];

    return poll(&wait, 1, SUPPORT_PATIENCE_MS) > 0
           && read(from, text, sizeof text) > 0;
}

void
lossy_start(struct lossy *lossy, uint64_t size, uint64_t most, uint64_t seed,
            const char *cache)
{
    char sizes[32], mosts[32], seeds[32], caches[32], path[160];
    int pipes[2];

    snprintf(lossy->directory, sizeof lossy->directory, "%s",
             support_path("lossy"));
    assert_int_equal(mkdir(lossy->directory, 0700), 0);
    snprintf(lossy->disk, sizeof lossy->disk, "%s/disk", lossy->directory);
    snprintf(path, sizeof path, "%s/control", lossy->directory);
    snprintf(sizes, sizeof sizes, "size=%llu", (unsigned long long)size);
    snprintf(mosts, sizeof mosts, "most=%llu", (unsigned long long)most);
    snprintf(seeds, sizeof seeds, "seed=%llu", (unsigned long long)seed);
    snprintf(caches, sizeof caches, "cache=%s", cache);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    lossy->pid = fork();
    assert_true(lossy->pid >= 0);
    if (lossy->pid == 0) {
        dup2(pipes[1], STDOUT_FILENO);
        execl(lossy_program(), "lossy_fs", sizes, mosts, seeds, caches,
              lossy->directory, (char *)NULL);
        _exit(127);
    }
    close(pipes[1]);
    bool ready = lossy_await(pipes[0]);
    close(pipes[0]);
    if (!ready)
        fail_msg("%s does not come up", lossy_program());
    lossy->control = open(path, O_RDWR | O_CLOEXEC);
    assert_true(lossy->control >= 0);
}

void
lossy_stop(struct lossy *lossy)
{
    if (lossy->pid == 0)
        return;
    close(lossy->control);
    kill(lossy->pid, SIGTERM);
    while (waitpid(lossy->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    lossy->pid = 0;
    /* Where it was killed, the mount is there still. */
    umount2(lossy->directory, MNT_DETACH);
    rmdir(lossy->directory);
}

void
lossy_command(struct lossy *lossy, const char *format, ...)
{
    char line[128];
    va_list args;

    va_start(args, format);
    int length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (write(lossy->control, line, (size_t)length) != length)
        fail_msg("lossy_fs: %s: %s", line, strerror(errno));
}

uint64_t
lossy_number(struct lossy *lossy, const char *name)
{
    char text[1024], key[64];
    ssize_t length = pread(lossy->control, text, sizeof text - 1, 0);

    assert_true(length > 0);
    text[length] = '\0';
    snprintf(key, sizeof key, "%s ", name);
    for (const char *line = text; line != NULL && *line != '\0';) {
        if (strncmp(line, key, strlen(key)) == 0)
            return strtoull(line + strlen(key), NULL, 10);
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    fail_msg("lossy_fs does not tell of %s", name);
    return 0;
}
