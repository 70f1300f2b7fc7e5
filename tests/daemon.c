/* SPDX-License-Identifier: ISC */
/*
 * Starts farblkd by fork and exec: PR_SET_PDEATHSIG must be set in between,
 * which posix_spawn has no word for.  Nothing else happens there but calls that
 * are safe in a child of a process with threads.
 */
#include "tests/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARGS_MAX 64
#define DAEMONS_MAX 16

/* Those that run.  Not their struct daemon, which may be on the stack of a test
 * that has failed. */
static struct {
    pid_t pid;
    int out;
} running[DAEMONS_MAX];
static size_t running_count;

const char *
daemon_program(void)
{
    static char program[512];
    const char *build = getenv("FARBLK_BUILD");

    if (build == NULL || build[0] == '\0')
        build = FARBLK_TESTS_BUILD;
    snprintf(program, sizeof program, "%s/farblkd", build);
    return program;
}

static void
daemon_forget(struct daemon *daemon)
{
    for (size_t i = 0; i < running_count; i++)
        if (running[i].pid == daemon->pid)
            running[i--] = running[--running_count];
    if (daemon->out >= 0)
        close(daemon->out);
    daemon->out = -1;
    daemon->pid = 0;
}

int
daemon_wait(struct daemon *daemon)
{
    int status;

    while (waitpid(daemon->pid, &status, 0) < 0 && errno == EINTR)
        ;
    daemon->exit_code =
        WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    daemon_forget(daemon);
    return daemon->exit_code;
}

/* This process's environment, but a program under ThreadSanitizer shall not
 * sleep for a second before it exits.  Static. */
static char *const *
daemon_environment(void)
{
    static char tsan[1024];
    static char **copy;
    const char *before = getenv("TSAN_OPTIONS");
    size_t count = 0, kept = 0;

    while (environ[count] != NULL)
        count++;
    free(copy);
    copy = calloc(count + 2, sizeof *copy);
    assert_non_null(copy);
    snprintf(tsan, sizeof tsan, "TSAN_OPTIONS=%s%satexit_sleep_ms=0",
             before != NULL ? before : "", before != NULL ? ":" : "");
    for (size_t i = 0; i < count; i++)
        if (strncmp(environ[i], "TSAN_OPTIONS=", 13) != 0)
            copy[kept++] = environ[i];
    copy[kept] = tsan;
    return copy;
}

/* In the child; only calls that are safe there. */
static void
daemon_exec(const char *program, char *const *argv, char *const *environment,
            int out, int log, pid_t parent)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(126);
    if (dup2(out, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
        _exit(126);
    execve(program, argv, environment);
    _exit(127);
}

/* One line that it told.  True: it is ready. */
static bool
daemon_heard(struct daemon *daemon, const char *line)
{
    static const char listening[] = "farblkd: listening on ";

    if (strncmp(line, listening, sizeof listening - 1) == 0
        && daemon->urls < DAEMON_URLS)
        snprintf(daemon->url[daemon->urls++], sizeof daemon->url[0], "%s",
                 line + sizeof listening - 1);
    return strcmp(line, "farblkd: ready") == 0;
}

/* Read what it tells until it is ready; false at its end or when it is late. */
static bool
daemon_await(struct daemon *daemon)
{
    char line[512];
    size_t length = 0;

    for (;;) {
        struct pollfd wait = {.fd = daemon->out, .events = POLLIN};
        char c;

        if (poll(&wait, 1, SUPPORT_PATIENCE_MS) <= 0) {
            print_error("farblkd is not ready in time\n");
            kill(daemon->pid, SIGKILL);
            return false;
        }
        if (read(daemon->out, &c, 1) <= 0)
            return false;
        if (c != '\n') {
            if (length < sizeof line - 1)
                line[length++] = c;
            continue;
        }
        line[length] = '\0';
        length = 0;
        if (daemon_heard(daemon, line))
            return true;
    }
}

bool
daemon_try(struct daemon *daemon, const char *const *args)
{
    const char *program = daemon_program();
    const char *argv[ARGS_MAX + 2] = {program};
    char *const *environment = daemon_environment();
    pid_t parent = getpid();
    int pipes[2], log;

    memset(daemon, 0, sizeof *daemon);
    daemon->out = -1;
    for (size_t i = 0; args[i] != NULL; i++) {
        assert_true(i < ARGS_MAX);
        argv[i + 1] = args[i];
    }
    snprintf(daemon->log, sizeof daemon->log, "%s",
             support_path("farblkd.log"));
    log = open(daemon->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(log >= 0);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    daemon->pid = fork();
    assert_true(daemon->pid >= 0);
    if (daemon->pid == 0)
        daemon_exec(program, (char *const *)(uintptr_t)argv, environment,
                    pipes[1], log, parent);
    close(log);
    close(pipes[1]);
    daemon->out = pipes[0];
    assert_true(running_count < DAEMONS_MAX);
    running[running_count].pid = daemon->pid;
    running[running_count++].out = daemon->out;
    if (daemon_await(daemon))
        return true;
    daemon_wait(daemon);
    return false;
}

void
daemon_start(struct daemon *daemon, const char *const *args)
{
    if (daemon_try(daemon, args))
        return;
    char *log = daemon_read_log(daemon);

    print_error("%s did not come up (%d):\n%s\n", daemon_program(),
                daemon->exit_code, log);
    free(log);
    fail();
}

void
daemon_stop(struct daemon *daemon)
{
    if (daemon->pid == 0)
        return;
    kill(daemon->pid, SIGTERM);
    if (daemon_wait(daemon) != 0) {
        char *log = daemon_read_log(daemon);

        print_error("farblkd ended with %d:\n%s\n", daemon->exit_code, log);
        free(log);
        fail();
    }
}

void
daemon_pause(struct daemon *daemon)
{
    int status;

    kill(daemon->pid, SIGSTOP);
    assert_int_equal(waitpid(daemon->pid, &status, WUNTRACED), daemon->pid);
    assert_true(WIFSTOPPED(status));
}

void
daemon_resume(struct daemon *daemon)
{
    kill(daemon->pid, SIGCONT);
}

void
daemon_kill(struct daemon *daemon)
{
    if (daemon->pid == 0)
        return;
    kill(daemon->pid, SIGKILL);
    daemon_wait(daemon);
}

int
daemon_kill_all(void)
{
    int count = 0;

    for (; running_count > 0; count++) {
        running_count--;
        kill(running[running_count].pid, SIGKILL);
        while (waitpid(running[running_count].pid, NULL, 0) < 0
               && errno == EINTR)
            ;
        close(running[running_count].out);
    }
    return count;
}

char *
daemon_read_log(const struct daemon *daemon)
{
    int fd = open(daemon->log, O_RDONLY | O_CLOEXEC);
    size_t length = 0, size = 4096;
    char *text = malloc(size);

    assert_non_null(text);
    for (;;) {
        ssize_t n = fd < 0 ? 0 : read(fd, text + length, size - length - 1);

        if (n <= 0)
            break;
        length += (size_t)n;
        if (size - length < 2) {
            text = realloc(text, size *= 2);
            assert_non_null(text);
        }
    }
    if (fd >= 0)
        close(fd);
    text[length] = '\0';
    return text;
}

size_t
daemon_count_log(const struct daemon *daemon, const char *text)
{
    char *log = daemon_read_log(daemon);
    size_t count = 0;

    for (char *at = log; (at = strstr(at, text)) != NULL; at++)
        count++;
    free(log);
    return count;
}

void
daemon_wait_log(const struct daemon *daemon, const char *text)
{
    struct timespec now;
    time_t end;
    int notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

    assert_true(notify >= 0);
    assert_true(inotify_add_watch(notify, daemon->log, IN_MODIFY) >= 0);
    clock_gettime(CLOCK_MONOTONIC, &now);
    end = now.tv_sec + SUPPORT_PATIENCE_MS / 1000;
    while (daemon_count_log(daemon, text) == 0) {
        struct pollfd wait = {.fd = notify, .events = POLLIN};
        char events[1024];

        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec >= end) {
            char *log = daemon_read_log(daemon);

            print_error("no \"%s\" in farblkd's log:\n%s\n", text, log);
            free(log);
            close(notify);
            fail();
        }
        if (poll(&wait, 1, 1000) > 0 && read(notify, events, sizeof events) < 0)
            continue;
    }
    close(notify);
}

int
daemon_clean(void **state)
{
    (void)state;
    support_watch(NULL);
    daemon_kill_all();
    return 0;
}
