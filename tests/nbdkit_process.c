/* SPDX-License-Identifier: ISC */
/* See nbdkit_process.h. */
#include "tests/nbdkit_process.h"

#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

bool
nbdkit_usable(const char **why)
{
    if (strcmp(FARBLK_TESTS_PRELOAD, "none") == 0)
        *why = "this compiler's sanitizer can not be loaded into nbdkit";
    else if (system("nbdkit --version >/dev/null 2>&1") != 0)
        *why = "no nbdkit";
    else
        return true;
    return false;
}

static int
listener(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_true(strlen(path) < sizeof address.sun_path);
    strcpy(address.sun_path, path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 64), 0);
    return fd;
}

void
nbdkit_start(struct nbdkit *nbdkit, const char *before, const char *after)
{
    char command[4096];
    snprintf(nbdkit->path, sizeof nbdkit->path, "%s", support_path("nbd"));
    snprintf(nbdkit->log, sizeof nbdkit->log, "%s", support_path("log"));
    /* What a sanitizer finds ends it; leaks are not looked for, because nbdkit
     * 1.32 leaves connections as they are when it is told to end while it
     * closes them. */
    snprintf(command, sizeof command,
             "%s%s ASAN_OPTIONS=\"$ASAN_OPTIONS:detect_leaks=0\" "
             "TSAN_OPTIONS=\"$TSAN_OPTIONS:atexit_sleep_ms=0\" "
             "LISTEN_PID=$$ LISTEN_FDS=1 exec nbdkit -f --exit-with-parent %s "
             "'%s/nbdkit-farblk-plugin.so' %s",
             FARBLK_TESTS_PRELOAD[0] != '\0' ? "LD_PRELOAD=" : "",
             FARBLK_TESTS_PRELOAD, before, FARBLK_TESTS_BUILD, after);
    char *args[] = {"sh", "-c", command, NULL};
    int fd = listener(nbdkit->path);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fd, 3);
    posix_spawn_file_actions_addopen(&actions, 2, nbdkit->log,
                                     O_WRONLY | O_CREAT | O_APPEND, 0600);
    assert_int_equal(
        posix_spawn(&nbdkit->pid, "/bin/sh", &actions, NULL, args, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(fd);
}

static int
wait_for(struct nbdkit *nbdkit)
{
    int status;
    while (waitpid(nbdkit->pid, &status, 0) < 0)
        assert_int_equal(errno, EINTR);
    nbdkit->pid = 0;
    return status;
}

void
nbdkit_stop(struct nbdkit *nbdkit)
{
    char text[4096] = "";
    kill(nbdkit->pid, SIGTERM);
    int status = wait_for(nbdkit);
    if (status == 0)
        return;
    FILE *log = fopen(nbdkit->log, "r");
    text[log != NULL ? fread(text, 1, sizeof text - 1, log) : 0] = '\0';
    fail_msg("nbdkit ended with status 0x%x: %s", (unsigned)status, text);
}

void
nbdkit_kill(struct nbdkit *nbdkit)
{
    if (nbdkit->pid == 0)
        return;
    kill(nbdkit->pid, SIGKILL);
    wait_for(nbdkit);
}

bool
nbdkit_logged(const struct nbdkit *nbdkit, const char *text)
{
    char line[1024];
    bool found = false;
    FILE *log = fopen(nbdkit->log, "r");
    assert_non_null(log);
    while (!found && fgets(line, sizeof line, log) != NULL)
        found = strstr(line, text) != NULL;
    fclose(log);
    return found;
}

struct nbd_handle *
nbdkit_try(const struct nbdkit *nbdkit, const char *name)
{
    struct nbd_handle *nbd = nbd_create();
    assert_non_null(nbd);
    if (nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0
        && nbd_set_export_name(nbd, name) == 0
        /* The server is asked what it says, not libnbd. */
        && nbd_set_strict_mode(nbd, 0) == 0
        && nbd_connect_unix(nbd, nbdkit->path) == 0)
        return nbd;
    nbd_close(nbd);
    return NULL;
}

struct nbd_handle *
nbdkit_connect(const struct nbdkit *nbdkit, const char *name)
{
    struct nbd_handle *nbd = nbdkit_try(nbdkit, name);
    if (nbd == NULL)
        fail_msg("no connection: %s", nbd_get_error());
    return nbd;
}

int64_t
nbdkit_ok(int64_t result, const char *what, const char *file, int line)
{
    if (result < 0) {
        print_error("%s: %s\n", what, nbd_get_error());
        _fail(file, line);
    }
    return result;
}

void
nbdkit_fails(int errnum, int64_t result, const char *what, const char *file,
             int line)
{
    if (result >= 0)
        print_error("%s does not fail\n", what);
    else if (nbd_get_errno() != errnum)
        print_error("%s: %s, errno %d, not %d\n", what, nbd_get_error(),
                    nbd_get_errno(), errnum);
    else
        return;
    _fail(file, line);
}
