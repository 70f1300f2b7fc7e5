/* SPDX-License-Identifier: ISC */
/*
 * Who may do what at a real farblkd: users and groups, tokens, where it listens
 * in the clear, whose its sockets are, and what its log says of those who ask.
 *
 * What takes another user is tried as root only.
 */
#include "tests/certs.h"
#include "tests/daemon.h"
#include "tests/peer.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOKEN "correct horse battery staple"

static void
starts(struct daemon *daemon, const char *const *args)
{
    daemon_start(daemon, args);
}

/* Does not start, and says so. */
static void
does_not_start(const char *const *args, int exit_code, const char *text)
{
    struct daemon daemon;

    assert_false(daemon_try(&daemon, args));
    if (daemon_count_log(&daemon, text) == 0 || daemon.exit_code != exit_code) {
        char *log = daemon_read_log(&daemon);
        print_error("exit %d, and no \"%s\" in:\n%s\n", daemon.exit_code, text,
                    log);
        free(log);
        fail();
    }
    unlink(daemon.log);
}

static const char *
make_file(const char *text, mode_t mode)
{
    const char *path = support_path("token");
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
    return path;
}

static int
opens(const char *uri)
{
    struct farblk *dev = NULL;
    int status = farblk_open(uri, NULL, &dev);

    if (status == 0)
        ok(farblk_close(dev));
    return status;
}

struct names {
    char text[256];
};

static int
add_name(void *arg, const struct farblk_list_entry *entry)
{
    struct names *names = arg;
    size_t used = strlen(names->text);

    snprintf(names->text + used, sizeof names->text - used, "%s ", entry->name);
    return 0;
}

static struct names
listed(const char *server)
{
    struct names names = {""};

    ok(farblk_list(server, add_name, &names));
    return names;
}

/* ------------------------------------------------------------ users */

static void
export_is_open_to_those_who_are_named(void **state)
{
    const char *name = support_name("access");
    char url[300], uri[400], mine[100], group[100], both[100];
    const char *args[] = {"--listen",
                          url,
                          "--listen",
                          "tcp://127.0.0.1:0",
                          "--export",
                          "all=ramdisk:a",
                          "--export",
                          mine,
                          "--export",
                          group,
                          "--export",
                          both,
                          "--export",
                          "not=ramdisk:d,allow-uid=4000000000,allow-gid="
                          "4000000000",
                          NULL};
    struct daemon daemon;

    (void)state;
    snprintf(url, sizeof url, "abstract://%s", name);
    snprintf(mine, sizeof mine,
             "mine=ramdisk:b,allow-uid=4000000000,allow-uid=%u",
             (unsigned)getuid());
    snprintf(group, sizeof group, "group=ramdisk:c,allow-gid=%u",
             (unsigned)getgid());
    snprintf(both, sizeof both,
             "either=ramdisk:e?size=1M,allow-uid=4000000000,"
             "allow-gid=%u",
             (unsigned)getgid());
    starts(&daemon, args);
    snprintf(uri, sizeof uri, "farblk+unix:///?abstract=%s", name);
    assert_string_equal(listed(uri).text, "all either group mine ");
    snprintf(uri, sizeof uri, "farblk+unix:///mine?abstract=%s", name);
    ok(opens(uri));
    snprintf(uri, sizeof uri, "farblk+unix:///group?abstract=%s", name);
    ok(opens(uri));
    snprintf(uri, sizeof uri, "farblk+unix:///either?abstract=%s", name);
    ok(opens(uri));
    snprintf(uri, sizeof uri, "farblk+unix:///not?abstract=%s", name);
    fails_with(FARBLK_DENIED, opens(uri));
    text_has("is not open to this client");
    daemon_wait_log(&daemon, "\"not\" is not for uid");
    /* Nobody knows who comes by TCP. */
    snprintf(uri, sizeof uri, "farblk://%.200s/", daemon.url[1] + 6);
    assert_string_equal(listed(uri).text, "all ");
    snprintf(uri, sizeof uri, "farblk://%.200s/mine", daemon.url[1] + 6);
    fails_with(FARBLK_DENIED, opens(uri));
    daemon_wait_log(&daemon, "\"mine\" is for users of this host only");
    snprintf(uri, sizeof uri, "farblk://%.200s/all", daemon.url[1] + 6);
    ok(opens(uri));
    daemon_stop(&daemon);
}

/* The exit status of the farblk command as uid and gid 65534, with no other
 * groups; what it says goes to `out`. */
static int
as_nobody(const char *arguments, const char *out)
{
    const char *build = getenv("FARBLK_BUILD");
    char command[1024];

    snprintf(
        command, sizeof command,
        "setpriv --reuid=65534 --regid=65534 --clear-groups '%s/farblk' %s "
        ">'%s' 2>&1",
        build != NULL ? build : ".", arguments, out);
    return system(command);
}

static void
other_user_opens_what_is_open_to_him(void **state)
{
    const char *name = support_name("access");
    char url[300], arguments[300], out[300], text[256] = "";
    const char *args[] = {"--listen", url,
                          "--export", "his=ramdisk:a,allow-uid=65534",
                          "--export", "group=ramdisk:b,allow-gid=65534",
                          "--export", "root=ramdisk:c,allow-uid=0",
                          NULL};
    struct daemon daemon;
    FILE *file;

    (void)state;
    snprintf(out, sizeof out, "%s", support_path("out"));
    if (geteuid() != 0 || as_nobody("--version", out) != 0)
        skip(); /* it takes root, and programs that others can execute */
    snprintf(url, sizeof url, "abstract://%s", name);
    starts(&daemon, args);
    snprintf(arguments, sizeof arguments, "list 'farblk+unix:///?abstract=%s'",
             name);
    assert_int_equal(as_nobody(arguments, out), 0);
    file = fopen(out, "r");
    assert_non_null(file);
    assert_true(fread(text, 1, sizeof text - 1, file) > 0);
    fclose(file);
    assert_non_null(strstr(text, "his"));
    assert_non_null(strstr(text, "group"));
    assert_null(strstr(text, "root"));
    snprintf(arguments, sizeof arguments,
             "info 'farblk+unix:///his?abstract=%s'", name);
    assert_int_equal(as_nobody(arguments, out), 0);
    snprintf(arguments, sizeof arguments,
             "info 'farblk+unix:///root?abstract=%s'", name);
    assert_int_not_equal(as_nobody(arguments, out), 0);
    daemon_wait_log(&daemon, "\"root\" is not for uid 65534, gid 65534");
    daemon_stop(&daemon);
}

static void
options_that_name_nobody_are_wrong(void **state)
{
    static const struct {
        const char *export, *text;
    } wrong[] = {
        {"d=ramdisk:d,allow-uid=no-such-user", "there is no user"},
        {"d=ramdisk:d,allow-gid=no-such-group", "there is no group"},
        {"d=ramdisk:d,allow-uid=4294967295", "there is no user"},
        {"d=ramdisk:d,allow-uid=-1", "there is no user"},
        {"d=ramdisk:d,allow-uid=", "is not OPTION=VALUE"},
        {"d=ramdisk:d,", "is not OPTION=VALUE"},
        {"d=ramdisk:d,allow-pid=1", "known are allow-uid, allow-gid and"},
        {"d=file:/a,b", "a comma in a URI is written %2C"},
        {"d=,allow-uid=0", "is not NAME=URI"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *args[] = {"--listen", "tcp://127.0.0.1:0", "--export",
                              wrong[i].export, NULL};

        does_not_start(args, 2, wrong[i].text);
    }
}

/* ------------------------------------------------------------ the clear */

static void
listening_in_the_clear_must_be_asked_for_by_name(void **state)
{
    static const char *const refused[] = {"tcp://0.0.0.0:0",
                                          "tcp://[::]:0",
                                          "tcp://:0",
                                          "tcp4://0.0.0.0:0",
                                          "tcp://0:0",
                                          "tcp://[::ffff:10.1.2.3]:0",
                                          "ws://0.0.0.0:0/farblk",
                                          "tcp://192.0.2.1:0",
                                          "tcp://[2001:db8::1]:0",
                                          "ws://[::]:0/farblk",
                                          "tcp://no.such.invalid:0"};
    static const char *const fine[] = {"tcp://127.0.0.1:0", "tcp://localhost:0",
                                       "tcp://127.9.9.9:0"};
    struct daemon daemon;

    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const char *args[] = {"--listen", refused[i], NULL};

        does_not_start(args, 1, "or allow it (--insecure)");
    }
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        const char *args[] = {"--listen", fine[i], NULL};

        starts(&daemon, args);
        daemon_stop(&daemon);
    }
    const char *insecure[] = {"--listen", "tcp://0.0.0.0:0", "--insecure",
                              NULL};
    starts(&daemon, insecure);
    daemon_stop(&daemon);
    char cert[320], key[320];
    const char *tls[] = {"--listen", "tls+tcp://0.0.0.0:0", "--tls-cert",
                         cert,       "--tls-key",           key,
                         NULL};
    snprintf(cert, sizeof cert, "%s", certs_path("server.pem"));
    snprintf(key, sizeof key, "%s", certs_path("server.key"));
    starts(&daemon, tls);
    daemon_stop(&daemon);
}

/* ------------------------------------------------------------ tokens */

static void
token_opens_what_is_closed_without_it(void **state)
{
    const char *name = support_name("access");
    char url[300], export[400], uri[1200], file[300], wrong[300];
    char cert[320], key[320];
    const char *args[] = {"--listen",    url,
                          "--listen",    "tls+tcp://127.0.0.1:0",
                          "--listen",    "tcp://127.0.0.1:0",
                          "--export",    export,
                          "--tls-cert",  cert,
                          "--tls-key",   key,
                          "--log-level", "debug",
                          NULL};
    struct daemon daemon;

    (void)state;
    snprintf(cert, sizeof cert, "%s", certs_path("server.pem"));
    snprintf(key, sizeof key, "%s", certs_path("server.key"));
    snprintf(file, sizeof file, "%s", make_file(TOKEN "\n", 0600));
    snprintf(wrong, sizeof wrong, "%s", make_file(TOKEN ".", 0600));
    snprintf(url, sizeof url, "abstract://%s", name);
    snprintf(export, sizeof export, "disk=ramdisk:d,token-file=%s", file);
    starts(&daemon, args);
    snprintf(uri, sizeof uri, "farblk+unix:///?abstract=%s", name);
    assert_string_equal(listed(uri).text, "");
    snprintf(uri, sizeof uri, "farblk+unix:///disk?abstract=%s&token_file=%s",
             name, file);
    ok(opens(uri));
    snprintf(uri, sizeof uri, "farblk+unix:///disk?abstract=%s&token_file=%s",
             name, wrong);
    fails_with(FARBLK_DENIED, opens(uri));
    text_has("is not open to this client");
    snprintf(uri, sizeof uri, "farblk+unix:///disk?abstract=%s", name);
    fails_with(FARBLK_DENIED, opens(uri));
    text_has("is not open to this client");
    snprintf(uri, sizeof uri, "farblks://%.100s/disk?ca=%s&token_file=%s",
             daemon.url[1] + strlen("tls+tcp://"), certs_path("ca.pem"), file);
    ok(opens(uri));
    snprintf(uri, sizeof uri, "farblks://%.100s/disk?ca=%s",
             daemon.url[1] + strlen("tls+tcp://"), certs_path("ca.pem"));
    fails_with(FARBLK_DENIED, opens(uri));
    /* In the clear it is not sent. */
    snprintf(uri, sizeof uri, "farblk://%.100s/disk?token_file=%s",
             daemon.url[2] + strlen("tcp://"), file);
    fails_with(FARBLK_INVALID, opens(uri));
    text_has("not for connections in the clear");
    assert_int_equal(chmod(file, 0644), 0);
    snprintf(uri, sizeof uri, "farblk+unix:///disk?abstract=%s&token_file=%s",
             name, file);
    fails_with(FARBLK_DENIED, opens(uri));
    text_has("has mode 644");
    daemon_stop(&daemon);
    assert_int_equal(daemon_count_log(&daemon, "battery"), 0);
}

static int
open_with(struct peer *peer, const char *token)
{
    Farblk__V1__OpenRequest open = FARBLK__V1__OPEN_REQUEST__INIT;

    open.name = (char *)(uintptr_t) "disk";
    open.token.len = strlen(token);
    open.token.data = (uint8_t *)(uintptr_t)token;
    return peer_call(peer, PEER_OPEN, &open.base, NULL, 0);
}

static void
third_wrong_token_ends_the_connection(void **state)
{
    char url[300], export[400], huge[400];
    const char *args[] = {"--listen", url,    "--listen", "tcp://127.0.0.1:0",
                          "--export", export, NULL};
    struct daemon daemon;
    struct peer peer;

    (void)state;
    memset(huge, 'x', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    snprintf(url, sizeof url, "ipc://%s", support_path("s"));
    snprintf(export, sizeof export, "disk=ramdisk:d,token-file=%s",
             make_file(TOKEN, 0600));
    starts(&daemon, args);
    assert_true(peer_init_stream(&peer, daemon.url[0]));
    assert_int_equal(peer_hello(&peer), 0);
    assert_int_equal(open_with(&peer, huge), FARBLK_PROTOCOL);
    assert_int_equal(open_with(&peer, ""), FARBLK_DENIED);
    assert_int_equal(open_with(&peer, TOKEN "x"), FARBLK_DENIED);
    assert_int_equal(open_with(&peer, TOKEN), 0);
    assert_int_equal(open_with(&peer, "correct"), FARBLK_DENIED);
    assert_true(peer_is_closed(peer.fd));
    peer_free(&peer);
    daemon_wait_log(&daemon, "too many wrong tokens");
    /* Over TCP not even the right one. */
    assert_true(peer_init_stream(&peer, daemon.url[1]));
    assert_int_equal(peer_hello(&peer), 0);
    assert_int_equal(open_with(&peer, TOKEN), FARBLK_DENIED);
    assert_non_null(strstr(peer.header->text, "in the clear"));
    daemon_wait_log(&daemon, "a token came in the clear");
    peer_free(&peer);
    daemon_stop(&daemon);
    assert_int_equal(daemon_count_log(&daemon, "battery"), 0);
}

static void
token_files_are_looked_at(void **state)
{
    static const struct {
        const char *text;
        mode_t mode;
        const char *says;
    } wrong[] = {
        {TOKEN, 0644, "has mode 644"},
        {TOKEN, 0620, "has mode 620"},
        {"", 0600, "is empty"},
        {"too short\n", 0600, "has a token of 9 octets; 16 ... 256"},
    };
    char export[400];
    const char *args[] = {"--listen", "tcp://127.0.0.1:0", "--export", export,
                          NULL};
    char longest[300];

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(export, sizeof export, "disk=ramdisk:d,token-file=%s",
                 make_file(wrong[i].text, wrong[i].mode));
        does_not_start(args, 1, wrong[i].says);
    }
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    snprintf(export, sizeof export, "disk=ramdisk:d,token-file=%s",
             make_file(longest, 0600));
    does_not_start(args, 1, "has 299 octets; at most 258");
    snprintf(export, sizeof export, "disk=ramdisk:d,token-file=/dev/zero");
    does_not_start(args, 1, "not a regular file");
}

/* ------------------------------------------------------------ sockets, root */

static void
socket_is_whose_it_is_said_to_be(void **state)
{
    char url[300], path[256];
    const char *args[] = {"--listen",   url,   "--ipc-owner", "65534:12345",
                          "--ipc-mode", "660", NULL};
    struct daemon daemon;
    struct stat found;

    (void)state;
    snprintf(path, sizeof path, "%s", support_path("s"));
    snprintf(url, sizeof url, "ipc://%s", path);
    if (geteuid() != 0) {
        does_not_start(args, 1, "giving ");
        return;
    }
    starts(&daemon, args);
    assert_int_equal(stat(path, &found), 0);
    assert_int_equal(found.st_uid, 65534);
    assert_int_equal(found.st_gid, 12345);
    assert_int_equal(found.st_mode & 07777, 0660);
    daemon_stop(&daemon);
}

/* What each thread's status says behind this word must be the same. */
static void
every_thread_has(pid_t pid, const char *word, const char *wanted)
{
    char command[400];

    snprintf(command, sizeof command,
             "! grep -h '^%s:' /proc/%d/task/*/status | "
             "sed 's/^[^:]*:[[:space:]]*//;s/[[:space:]]*$//' | "
             "grep -vx '%s'",
             word, (int)pid, wanted);
    if (system(command) != 0)
        fail_msg("a thread's %s is not %s", word, wanted);
}

static void
server_gives_up_root_for_good(void **state)
{
    char url[300], export[300], token[600], path[256];
    const char *args[] = {"--listen", url,           "--export",
                          export,     "--export",    token,
                          "--user",   "65534:65534", NULL};
    const char *root[] = {"--listen", url, "--user", "0:0", NULL};
    const char *unknown[] = {"--listen", url, "--user", "no-such-user", NULL};
    struct daemon daemon;
    struct farblk *dev = NULL;
    uint8_t buffer[512] = {1};
    char uri[400];
    const char *name = support_name("access");

    (void)state;
    snprintf(url, sizeof url, "abstract://%s", name);
    does_not_start(unknown, 2, "there is no user");
    does_not_start(root, 1, "that is root");
    if (geteuid() != 0)
        skip();
    /* What only root could open. */
    snprintf(path, sizeof path, "%s", support_path("disk"));
    support_make_file(path, 1 << 20);
    assert_int_equal(chmod(path, 0600), 0);
    snprintf(export, sizeof export, "disk=file:%s", path);
    snprintf(token, sizeof token, "other=ramdisk:r,token-file=%s",
             make_file(TOKEN, 0600));
    starts(&daemon, args);
    every_thread_has(daemon.pid, "Uid",
                     "65534[[:space:]]*65534[[:space:]]*"
                     "65534[[:space:]]*65534");
    every_thread_has(daemon.pid, "Gid",
                     "65534[[:space:]]*65534[[:space:]]*"
                     "65534[[:space:]]*65534");
    every_thread_has(daemon.pid, "Groups", "65534");
    every_thread_has(daemon.pid, "CapEff", "0*");
    every_thread_has(daemon.pid, "CapPrm", "0*");
    every_thread_has(daemon.pid, "NoNewPrivs", "1");
    snprintf(uri, sizeof uri, "farblk+unix:///disk?abstract=%s", name);
    ok(farblk_open(uri, NULL, &dev));
    ok(support_write(dev, 1, buffer, sizeof buffer, FARBLK_FUA));
    ok(support_read(dev, 1, buffer, sizeof buffer));
    ok(farblk_flush(dev));
    ok(farblk_close(dev));
    daemon_stop(&daemon);
}

/* ------------------------------------------------------------ the log */

static void
log_escapes_what_peers_send(void **state)
{
    static const char hostile[] = "a\x1b[31m\nfarblkd: error: forged\r\t\x7f"
                                  "\xff\xc2\x9b"
                                  "1m";
    const char *args[] = {"--listen",    "tcp://127.0.0.1:0",
                          "--export",    "disk=ramdisk:d",
                          "--log-level", "debug",
                          NULL};
    Farblk__V1__HelloRequest hello = FARBLK__V1__HELLO_REQUEST__INIT;
    Farblk__V1__OpenRequest open = FARBLK__V1__OPEN_REQUEST__INIT;
    struct daemon daemon;
    struct peer peer;
    char *log;

    (void)state;
    starts(&daemon, args);
    assert_true(peer_init_stream(&peer, daemon.url[0]));
    hello.version = 1;
    hello.client = (char *)(uintptr_t)hostile;
    assert_int_equal(peer_call(&peer, PEER_HELLO, &hello.base, NULL, 0), 0);
    peer_free(&peer);
    assert_true(peer_init_stream(&peer, daemon.url[0]));
    assert_int_equal(peer_hello(&peer), 0);
    open.name = (char *)(uintptr_t)hostile;
    assert_int_equal(peer_call(&peer, PEER_OPEN, &open.base, NULL, 0),
                     FARBLK_NOT_FOUND);
    for (const char *at = peer.header->text; *at != '\0'; at++)
        assert_true((unsigned char)*at >= 0x20 && *at != 0x7f);
    peer_free(&peer);
    daemon_stop(&daemon);
    log = daemon_read_log(&daemon);
    assert_non_null(strstr(log, "client \"a?[31m?farblkd: error: forged"));
    assert_non_null(strstr(log, "no export \"a?[31m?farblkd"));
    assert_null(strstr(log, "\nfarblkd: error: forged"));
    for (const unsigned char *at = (unsigned char *)log; *at != '\0'; at++)
        if ((*at < 0x20 && *at != '\n') || *at == 0x7f || *at > 0x7e)
            fail_msg("octet %02x in the log", *at);
    free(log);
}

static int
setup(void **state)
{
    (void)state;
    support_watch("a test of who may do what");
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, daemon_clean)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(export_is_open_to_those_who_are_named),
        TEST(other_user_opens_what_is_open_to_him),
        TEST(options_that_name_nobody_are_wrong),
        TEST(listening_in_the_clear_must_be_asked_for_by_name),
        TEST(token_opens_what_is_closed_without_it),
        TEST(third_wrong_token_ends_the_connection),
        TEST(token_files_are_looked_at),
        TEST(socket_is_whose_it_is_said_to_be),
        TEST(server_gives_up_root_for_good),
        TEST(log_escapes_what_peers_send),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
