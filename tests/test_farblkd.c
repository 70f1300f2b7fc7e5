/* SPDX-License-Identifier: ISC */
/*
 * The farblkd process: its options and file, what it tells when it is ready,
 * its files, who else is there, and how it ends.
 */
#include "tests/daemon.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static char text[8192]; /* what a run or a daemon told */

/* Run farblkd to its end; its output goes to `text`.  Returns the status. */
static int
run(const char *const *args, bool stderr_too)
{
    char command[2048];
    size_t used =
        (size_t)snprintf(command, sizeof command, "'%s'", daemon_program());
    for (size_t i = 0; args[i] != NULL; i++)
        used += (size_t)snprintf(command + used, sizeof command - used, " '%s'",
                                 args[i]);
    snprintf(command + used, sizeof command - used, "%s </dev/null",
             stderr_too ? " 2>&1 >/dev/null" : " 2>/dev/null");
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t length = fread(text, 1, sizeof text - 1, pipe);
    text[length] = '\0';
    int status = pclose(pipe);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* These arguments are refused with one line that has this in it. */
static void
refused(int status, const char *part, const char *const *args)
{
    assert_int_equal(run(args, true), status);
    if (strstr(text, part) == NULL)
        fail_msg("no \"%s\" in: %s", part, text);
    assert_int_equal(strncmp(text, "farblkd: ", 9), 0);
    assert_non_null(strchr(text, '\n'));
    if (status == 2)
        assert_string_equal(strchr(text, '\n'), "\n");
}

/* A daemon does not come up; its log has this in it. */
static void
fails_to_start(const char *part, const char *const *args)
{
    struct daemon daemon;
    assert_false(daemon_try(&daemon, args));
    assert_int_equal(daemon.exit_code, 1);
    char *log = daemon_read_log(&daemon);
    if (strstr(log, part) == NULL)
        fail_msg("no \"%s\" in: %s", part, log);
    free(log);
}

static void
write_file(const char *path, const char *content)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(content, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static const char *
joined(const char *before, const char *after)
{
    static char joint[4][512];
    static unsigned next;
    char *to = joint[next++ % 4];
    snprintf(to, sizeof joint[0], "%s%s", before, after);
    return to;
}

/* The URI of an export behind a daemon's ipc:// URL. */
static const char *
uri_of(const char *url, const char *export)
{
    static char uri[8192];
    snprintf(uri, sizeof uri, "farblk+unix:///%s?socket=%s", export,
             url + strlen("ipc://"));
    return uri;
}

/* ------------------------------------------------------------ options */

static void
help_and_version_go_to_stdout(void **state)
{
    (void)state;
    assert_int_equal(run(ARGS("--help"), false), 0);
    assert_non_null(strstr(text, "--listen URL"));
    assert_non_null(strstr(text, "ramdisk:NAME"));
    assert_int_equal(run(ARGS("--version"), false), 0);
    assert_string_equal(text, "farblkd 0.1.0\n");
}

static void
bad_options_are_refused_with_one_line(void **state)
{
    (void)state;
    refused(2, "nowhere to listen", (const char *const[]){NULL});
    refused(2, "unknown option \"what\"", ARGS("--what", "1"));
    refused(2, "unknown option \"what\"", ARGS("--what"));
    refused(2, "unexpected argument \"x\"", ARGS("x"));
    refused(2, "unexpected argument \"-h\"", ARGS("-h"));
    refused(2, "--listen wants a value", ARGS("--listen"));
    refused(2, "is not a URL", ARGS("--listen", "/run/x"));
    refused(2, "is not NAME=URI", ARGS("--export", "disk"));
    refused(2, "is not NAME=URI", ARGS("--export", "=ramdisk:x"));
    refused(2, "max-requests", ARGS("--max-requests", "0"));
    refused(2, "max-requests", ARGS("--max-requests=12x"));
    refused(2, "max-requests", ARGS("--max-requests", "-1"));
    refused(2, "max-connections", ARGS("--max-connections", ""));
    refused(2, "max-connections",
            ARGS("--max-connections", "99999999999999999999999"));
    refused(2, "max-payload", ARGS("--max-payload", "65M"));
    refused(2, "max-payload", ARGS("--max-payload", "511"));
    refused(2, "memory-limit", ARGS("--memory-limit", "1X"));
    refused(2, "memory-limit", ARGS("--memory-limit", "99999999999T"));
    refused(2, "lease", ARGS("--lease", "5"));
    refused(2, "ipc-mode", ARGS("--ipc-mode", "888"));
    refused(2, "log-level", ARGS("--log-level", "loud"));
    refused(2, "cannot read", ARGS("--config", "/nonexistent/file"));
    refused(2, "pidfile", ARGS("--pidfile", ""));
}

static void
config_file_has_the_same_words(void **state)
{
    struct daemon daemon;
    struct farblk *dev;
    const char *file = support_path("config"), *socket = support_path("sock");
    const char *pid = support_path("pid");
    char content[2048];
    (void)state;
    snprintf(content, sizeof content,
             "# all of it\n\n  listen = ipc://%s\nlisten=tcp://127.0.0.1:0\n"
             "export = a=ramdisk:a?size=1M   # one\n"
             "export\t=\tb=ramdisk:b?size=2M&sector=4096\n"
             "pidfile = %s\nmax-connections = 7\nmax-requests = 9\n"
             "max-octets = 1M\nmax-payload = 64k\nmax-handles = 3\n"
             "lease = 20000\nhello-timeout = 5000\nframe-timeout = 6000\n"
             "memory-limit = 256M\nipc-mode = 666\nlog-level = debug",
             socket, pid);
    write_file(file, content);
    daemon_start(&daemon, ARGS("--config", file));
    assert_int_equal(daemon.urls, 2);
    ok(farblk_open(uri_of(daemon.url[0], "b"), NULL, &dev));
    struct farblk_info info = support_info(dev);
    assert_int_equal(info.sector_size, 4096);
    assert_int_equal(info.size_sectors, 512);
    assert_int_equal(info.max_transfer, 65536);
    ok(farblk_close(dev));
    struct stat status;
    assert_int_equal(stat(socket, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0666);
    daemon_stop(&daemon);
}

static void
config_errors_name_file_and_line(void **state)
{
    const char *file = support_path("config");
    (void)state;
    write_file(file, "# fine\nlisten = tcp://127.0.0.1:0\nwhat = 1\n");
    refused(2, joined(file, ":3: unknown option \"what\""),
            ARGS("--config", file));
    write_file(file, "listen\n");
    refused(2, joined(file, ":1: \"listen\" is not `word = value`"),
            ARGS("--config", file));
    write_file(file, "max-handles = many\n");
    refused(2, joined(file, ":1: max-handles"), ARGS("--config", file));
    /* A file that reads itself ends as well. */
    write_file(file, joined("config = ", file));
    refused(2, "files in each other", ARGS("--config", file));
    write_file(file, "");
    refused(2, "nowhere to listen", ARGS("--config", file));
}

/* ------------------------------------------------------------ readiness */

static void
ready_tells_real_addresses_and_pid(void **state)
{
    struct daemon daemon;
    struct farblk *dev;
    const char *pid = support_path("pid");
    char line[64] = "", wanted[64], uri[8192];
    (void)state;
    daemon_start(&daemon,
                 ARGS("--listen", "tcp://127.0.0.1:0", "--export=d=ramdisk:d",
                      "--listen", joined("ipc://", support_path("sock")),
                      "--pidfile", pid));
    assert_int_equal(daemon.urls, 2);
    assert_int_equal(strncmp(daemon.url[0], "tcp://127.0.0.1:", 16), 0);
    assert_true(atoi(daemon.url[0] + 16) > 0);
    FILE *file = fopen(pid, "r");
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof line, file));
    fclose(file);
    snprintf(wanted, sizeof wanted, "%ld\n", (long)daemon.pid);
    assert_string_equal(line, wanted);
    snprintf(uri, sizeof uri, "farblk://127.0.0.1:%s/d", daemon.url[0] + 16);
    ok(farblk_open(uri, NULL, &dev));
    ok(farblk_close(dev));
    daemon_stop(&daemon);
    assert_int_equal(access(pid, F_OK), -1);
    assert_int_equal(access(daemon.url[1] + 6, F_OK), -1);
}

/* Bind a datagram socket to a path, or to an abstract name ("@..."). */
static int
bind_datagrams(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    memcpy(address.sun_path, name, strlen(name));
    if (name[0] == '@')
        address.sun_path[0] = '\0';
    socklen_t length =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
    assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    return fd;
}

static void
notified(int fd, const char *wanted)
{
    char state[64];
    struct timeval patience = {.tv_sec = SUPPORT_PATIENCE_MS / 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ssize_t length = recv(fd, state, sizeof state - 1, 0);
    assert_true(length > 0);
    state[length] = '\0';
    assert_string_equal(state, wanted);
}

static void
systemd_is_notified(void **state)
{
    char names[2][256];
    (void)state;
    snprintf(names[0], sizeof names[0], "%s", support_path("notify"));
    snprintf(names[1], sizeof names[1], "@%s", support_name("notify"));
    for (unsigned i = 0; i < 2; i++) {
        struct daemon daemon;
        int fd = bind_datagrams(names[i]);
        setenv("NOTIFY_SOCKET", names[i], 1);
        daemon_start(&daemon, ARGS("--listen", "tcp://127.0.0.1:0"));
        unsetenv("NOTIFY_SOCKET");
        notified(fd, "READY=1");
        daemon_stop(&daemon);
        notified(fd, "STOPPING=1");
        close(fd);
    }
    /* Nobody there: no reason to fail. */
    struct daemon daemon;
    setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
    daemon_start(&daemon, ARGS("--listen", "tcp://127.0.0.1:0"));
    unsetenv("NOTIFY_SOCKET");
    daemon_stop(&daemon);
}

static void
pid_file_that_cannot_be_written_fails(void **state)
{
    (void)state;
    fails_to_start("/nonexistent/pid", ARGS("--listen", "tcp://127.0.0.1:0",
                                            "--pidfile", "/nonexistent/pid"));
}

/* ------------------------------------------------------------ others */

static void
stale_socket_is_taken_over_and_a_live_one_refused(void **state)
{
    struct daemon first, second;
    struct farblk *dev;
    char url[256];
    (void)state;
    snprintf(url, sizeof url, "ipc://%s", support_path("sock"));
    const char *const *args = ARGS("--listen", url, "--export", "d=ramdisk:d");
    daemon_start(&first, args);
    fails_to_start("cannot listen", args);
    /* The refused one has not harmed it. */
    ok(farblk_open(uri_of(url, "d"), NULL, &dev));
    ok(farblk_close(dev));
    daemon_kill(&first);
    assert_int_equal(access(url + 6, F_OK), 0);
    daemon_start(&second, args);
    ok(farblk_open(uri_of(url, "d"), NULL, &dev));
    ok(farblk_close(dev));
    daemon_stop(&second);
}

static void
addresses_in_use_or_bad_are_refused(void **state)
{
    struct daemon daemon;
    char url[256];
    (void)state;
    daemon_start(&daemon, ARGS("--listen", "tcp://127.0.0.1:0", "--listen",
                               joined("abstract://", support_name("d"))));
    fails_to_start("in use", ARGS("--listen", daemon.url[0]));
    fails_to_start("in use", ARGS("--listen", daemon.url[1]));
    daemon_stop(&daemon);
    fails_to_start("cannot listen", ARGS("--listen", "what://ever"));
    fails_to_start("cannot listen",
                   ARGS("--listen", "ipc:///nonexistent/dir/sock"));
    snprintf(url, sizeof url, "ipc://%s/%0150d", support_directory(), 0);
    fails_to_start("cannot listen", ARGS("--listen", url));
}

static void
exports_that_can_not_be_opened_are_refused(void **state)
{
    struct daemon daemon;
    const char *path = support_path("image");
    char export[512];
    (void)state;
    fails_to_start("unknown scheme", ARGS("--listen", "tcp://127.0.0.1:0",
                                          "--export", "d=what:ever"));
    fails_to_start("cannot export",
                   ARGS("--listen", "tcp://127.0.0.1:0", "--export",
                        "d=file:/nonexistent/image"));
    fails_to_start("names match", ARGS("--listen", "tcp://127.0.0.1:0",
                                       "--export", "a/b=ramdisk:x"));
    fails_to_start("there is one of that name",
                   ARGS("--listen", "tcp://127.0.0.1:0", "--export",
                        "a=ramdisk:x", "--export", "a=ramdisk:y"));
    support_make_file(path, 1 << 20);
    snprintf(export, sizeof export, "d=file:%s", path);
    daemon_start(&daemon,
                 ARGS("--listen", "tcp://127.0.0.1:0", "--export", export));
    /* Files are locked without being told, */
    fails_to_start("lock",
                   ARGS("--listen", "tcp://127.0.0.1:0", "--export", export));
    /* unless told not to. */
    struct daemon other;
    snprintf(export, sizeof export, "d=file:%s?lock=0", path);
    daemon_start(&other,
                 ARGS("--listen", "tcp://127.0.0.1:0", "--export", export));
    daemon_stop(&other);
    daemon_stop(&daemon);
}

/* ------------------------------------------------------------ the end */

static void
sigterm_and_sigint_end_it_with_all_data(void **state)
{
    static const int signals[] = {SIGTERM, SIGINT};
    static uint8_t data[65536];
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct daemon daemon;
        struct farblk *dev;
        const char *path = support_path("image");
        char export[512], url[256];
        support_make_file(path, 1 << 20);
        snprintf(export, sizeof export, "d=file:%s", path);
        snprintf(url, sizeof url, "ipc://%s", support_path("sock"));
        daemon_start(&daemon, ARGS("--listen", url, "--export", export));
        ok(farblk_open(uri_of(url, "d"), NULL, &dev));
        pattern_fill(data, sizeof data, i);
        ok(support_write(dev, 16, data, sizeof data, 0));
        assert_int_equal(kill(daemon.pid, signals[i]), 0);
        daemon_wait_log(&daemon, "stopping");
        daemon_stop(&daemon);
        fails_with(FARBLK_DISCONNECTED, support_write(dev, 0, data, 512, 0));
        ok(farblk_close(dev));
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        assert_int_equal(fseek(file, 16 * 512, SEEK_SET), 0);
        memset(data, 0, sizeof data);
        assert_int_equal(fread(data, 1, sizeof data, file), sizeof data);
        fclose(file);
        assert_int_equal(pattern_check(data, sizeof data, i), sizeof data);
    }
}

static void
connections_that_close_at_once_do_no_harm(void **state)
{
    struct daemon daemon;
    struct farblk *dev;
    char url[256];
    (void)state;
    snprintf(url, sizeof url, "ipc://%s", support_path("sock"));
    daemon_start(&daemon, ARGS("--listen", url, "--export", "d=ramdisk:d"));
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%.100s", url + 6);
    for (unsigned i = 0; i < 300; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(fd >= 0);
        assert_int_equal(
            connect(fd, (struct sockaddr *)&address, sizeof address), 0);
        if (i % 3 == 1)
            assert_int_equal(write(fd, "GET / HTTP/1.0\r\n\r\n", 18), 18);
        close(fd);
    }
    /* The last of them may still count against the limit of connections. */
    while (farblk_open(uri_of(url, "d"), NULL, &dev) != 0)
        assert_int_equal(daemon_count_log(&daemon, "error"), 0);
    ok(farblk_close(dev));
    daemon_stop(&daemon);
}

/* A raw connection to an ipc:// URL, with `octets` sent. */
static int
raw_peer(const char *url, const void *octets, size_t length)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%.100s", url + 6);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address),
                     0);
    assert_int_equal(send(fd, octets, length, MSG_NOSIGNAL), length);
    return fd;
}

static void
broken_framing_closes_only_that_connection(void **state)
{
#define GREETING "\0SP\0\0\x30\0\0"
    static const struct {
        const char *octets;
        size_t length;
    } peers[] = {
        {"GET / HTTP/1.0\r\n\r\n", 18},
        {"\0SP\0\0\x31\0\0", 8}, /* a REP */
        {GREETING "\2\0\0\0\0\0\0\0\4abcd", 21}, /* no message */
        {GREETING "\1\x80\0\0\0\0\0\0\0", 17}, /* 2^63 octets */
        {GREETING "\1\xff\xff\xff\xff\xff\xff\xff\xff", 17},
        {GREETING "\1\0\0\0\0\0\0\0\0", 17}, /* empty */
        {GREETING "\1\0\0\0\0\0\0\0\4\0\0\0\1", 21}, /* no id */
        {GREETING "\1\0\0\0\0\0\0\0\10\x80\0\0\1\1\0\0\0", 25},
        {GREETING "\1\0\0\0\0\0\0\0\x20\x80\0\0\1", 21}, /* unfinished */
    };
    struct daemon daemon;
    struct farblk *dev;
    char url[256], rest[256];
    (void)state;
    snprintf(url, sizeof url, "ipc://%s", support_path("sock"));
    daemon_start(&daemon, ARGS("--listen", url, "--export", "d=ramdisk:d",
                               "--frame-timeout", "500"));
    ok(farblk_open(uri_of(url, "d"), NULL, &dev));
    for (size_t i = 0; i < sizeof peers / sizeof peers[0]; i++) {
        int fd = raw_peer(url, peers[i].octets, peers[i].length);
        while (recv(fd, rest, sizeof rest, 0) > 0)
            ;
        close(fd);
        support_info(dev);
    }
    ok(farblk_close(dev));
    daemon_stop(&daemon); /* then its log is whole */
    assert_true(daemon_count_log(&daemon, ": closed: ") >= 9);
}

/* ------------------------------------------------------------ run */

static int
begin(void **state)
{
    (void)state;
    support_watch("a farblkd test");
    return 0;
}

static int
end(void **state)
{
    (void)state;
    support_watch(NULL);
    return daemon_kill_all() == 0 ? 0 : -1;
}

#define DAEMON_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        DAEMON_TEST(help_and_version_go_to_stdout),
        DAEMON_TEST(bad_options_are_refused_with_one_line),
        DAEMON_TEST(config_file_has_the_same_words),
        DAEMON_TEST(config_errors_name_file_and_line),
        DAEMON_TEST(ready_tells_real_addresses_and_pid),
        DAEMON_TEST(systemd_is_notified),
        DAEMON_TEST(pid_file_that_cannot_be_written_fails),
        DAEMON_TEST(stale_socket_is_taken_over_and_a_live_one_refused),
        DAEMON_TEST(addresses_in_use_or_bad_are_refused),
        DAEMON_TEST(exports_that_can_not_be_opened_are_refused),
        DAEMON_TEST(sigterm_and_sigint_end_it_with_all_data),
        DAEMON_TEST(connections_that_close_at_once_do_no_harm),
        DAEMON_TEST(broken_framing_closes_only_that_connection),
    };
    return cmocka_run_group_tests_name("farblkd", tests, NULL, NULL);
}
