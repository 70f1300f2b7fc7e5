/* SPDX-License-Identifier: ISC */
/*
 * Starts NBD servers by fork and exec, with their socket as descriptor 3.
 */
#include "tests/nbd_servers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SERVERS_MAX 16
#define LISTEN_FD 3

static pid_t running[SERVERS_MAX];

/* The program's path, from PATH; NULL when there is none.  Static. */
static const char *
nbd_server_find(const char *program)
{
    static char path[512];
    const char *at = getenv("PATH");

    while (at != NULL && *at != '\0') {
        size_t length = strcspn(at, ":");

        snprintf(path, sizeof path, "%.*s/%s", (int)length, at, program);
        if (access(path, X_OK) == 0)
            return path;
        at += length + (at[length] == ':');
    }
    return NULL;
}

bool
nbd_server_usable(const char *program)
{
    return FARBLK_TESTS_NBD && nbd_server_find(program) != NULL;
}

static int
nbd_server_listen_unix(struct nbd_server *server)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    snprintf(server->socket, sizeof server->socket, "%s", support_path("nbd"));
    snprintf(address.sun_path, sizeof address.sun_path, "%s", server->socket);
    assert_int_equal(
        bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static int
nbd_server_listen_tcp(struct nbd_server *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(
        bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    server->port = ntohs(address.sin_port);
    return fd;
}

/* In the child; only calls that are safe there.  `pid`: room for its digits. */
static void
nbd_server_exec(const char *program, char *const *argv, char **environment,
                char *pid, int fd, int log, pid_t parent)
{
    sigset_t none;
    char digits[24];
    size_t n = 0;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(126);
    for (pid_t left = getpid(); left > 0; left /= 10)
        digits[n++] = (char)('0' + left % 10);
    while (n > 0)
        *pid++ = digits[--n];
    *pid = '\0';
    if (dup2(log, STDERR_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0)
        _exit(126);
    if (fd == LISTEN_FD ? fcntl(fd, F_SETFD, 0) != 0 : dup2(fd, LISTEN_FD) < 0)
        _exit(126);
    execve(program, argv, environment);
    _exit(127);
}

void
nbd_server_start(struct nbd_server *server, bool tcp, const char *const *args)
{
    static char listen_pid[64];
    const char *program = nbd_server_find(args[0]);
    const char *argv[NBD_SERVER_ARGS + 1] = {NULL};
    char *environment[] = {
        listen_pid, (char[]){"LISTEN_FDS=1"}, (char[]){"LC_ALL=C"},
        (char[]){"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, NULL};
    pid_t parent = getpid();
    size_t slot = 0;
    int fd, log;

    assert_non_null(program);
    memset(server, 0, sizeof *server);
    for (size_t i = 0; args[i] != NULL; i++) {
        assert_true(i < NBD_SERVER_ARGS);
        argv[i] = args[i];
    }
    while (slot < SERVERS_MAX && running[slot] != 0)
        slot++;
    assert_true(slot < SERVERS_MAX);
    fd = tcp ? nbd_server_listen_tcp(server) : nbd_server_listen_unix(server);
    assert_int_equal(listen(fd, 64), 0);
    snprintf(server->log, sizeof server->log, "%s", support_path("nbd.log"));
    log = open(server->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(log >= 0);
    snprintf(listen_pid, sizeof listen_pid, "LISTEN_PID=");
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0)
        nbd_server_exec(program, (char *const *)(uintptr_t)argv, environment,
                        listen_pid + strlen(listen_pid), fd, log, parent);
    running[slot] = server->pid;
    close(fd);
    close(log);
}

const char *
nbd_server_uri(const struct nbd_server *server, const char *scheme,
               const char *name, const char *more)
{
    static char texts[4][512];
    static unsigned next;
    char *text = texts[next++ % 4];

    if (server->socket[0] != '\0')
        snprintf(text, sizeof texts[0], "%s+unix:///%s?socket=%s%s%s", scheme,
                 name, server->socket, more[0] != '\0' ? "&" : "", more);
    else
        snprintf(text, sizeof texts[0], "%s://127.0.0.1:%d/%s%s%s", scheme,
                 server->port, name, more[0] != '\0' ? "?" : "", more);
    return text;
}

static void
nbd_server_reap(pid_t pid)
{
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

void
nbd_server_kill(struct nbd_server *server)
{
    for (size_t i = 0; i < SERVERS_MAX && server->pid != 0; i++)
        if (running[i] == server->pid) {
            running[i] = 0;
            nbd_server_reap(server->pid);
        }
    server->pid = 0;
    if (server->socket[0] != '\0')
        unlink(server->socket);
}

void
nbd_server_pause(struct nbd_server *server)
{
    int status;

    kill(server->pid, SIGSTOP);
    assert_int_equal(waitpid(server->pid, &status, WUNTRACED), server->pid);
    assert_true(WIFSTOPPED(status));
}

void
nbd_server_resume(struct nbd_server *server)
{
    kill(server->pid, SIGCONT);
}

void
nbd_server_kill_all(void)
{
    for (size_t i = 0; i < SERVERS_MAX; i++)
        if (running[i] != 0) {
            nbd_server_reap(running[i]);
            running[i] = 0;
        }
}

unsigned
nbd_server_logged(const char *path, const char *one, const char *two)
{
    FILE *file = fopen(path, "r");
    char line[1024];
    unsigned count = 0;

    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL)
        count += strstr(line, one) != NULL && strstr(line, two) != NULL;
    fclose(file);
    return count;
}
