/* SPDX-License-Identifier: ISC */
/*
 * The limits of a farblkd process: set by options and by file, reached, and
 * looked at from outside.
 */
#include "tests/daemon.h"

#include <signal.h>
#include <stdio.h>

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static const char *
uri_of(const struct daemon *daemon, const char *export)
{
    static char uri[1024];
    snprintf(uri, sizeof uri, "farblk+unix:///%s?socket=%s", export,
             daemon->url[0] + strlen("ipc://"));
    return uri;
}

static const char *
fresh_socket(void)
{
    static char url[512];
    snprintf(url, sizeof url, "ipc://%s", support_path("sock"));
    return url;
}

static void
every_limit_is_set_in_the_file_and_on_the_command_line(void **state)
{
    /* Each word with its least value, its largest, and those beyond, or NULL. */
    static const struct {
        const char *word, *least, *most, *below, *above;
    } words[] = {
        {"max-connections", "1", "100000", "0", "100001"},
        {"max-sessions", "1", "100000", "0", "100001"},
        {"connection-sessions", "1", "100000", "0", "100001"},
        {"max-requests", "1", "32768", "0", "32769"},
        {"max-octets", "512", "1024T", "511", "1025T"},
        {"max-payload", "512", "64M", "511", "67108865"},
        {"max-handles", "1", "1000000", "0", "1000001"},
        {"lease", "100", "86400000", "99", "86400001"},
        {"hello-timeout", "10", "86400000", "9", "86400001"},
        {"frame-timeout", "10", "86400000", "9", "86400001"},
        {"idle-timeout", "0", "86400000", "-1", "86400001"},
        {"keepalive", "0", "1", "", "2"},
        {"memory-limit", "1M", "1048576T", "65535", "1048577T"},
    };
    (void)state;
    /* All at their least on the command line, and at their most in a file;
     * what is beyond either is refused. */
    for (unsigned round = 0; round < 2; round++) {
        const char *args[64];
        char text[sizeof words / sizeof words[0]][64];
        struct daemon daemon;
        const char *file = support_path("config");
        size_t count = 0;
        FILE *out = fopen(file, "w");
        assert_non_null(out);
        args[count++] = "--listen";
        args[count++] = fresh_socket();
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
            fprintf(out, "%s = %s\n", words[i].word, words[i].most);
            snprintf(text[i], sizeof text[i], "--%s=%s", words[i].word,
                     words[i].least);
            if (round == 0)
                args[count++] = text[i];
        }
        fclose(out);
        if (round == 1) {
            args[count++] = "--config";
            args[count++] = file;
        }
        args[count] = NULL;
        daemon_start(&daemon, args);
        daemon_stop(&daemon);
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        for (unsigned above = 0; above < 2; above++) {
            struct daemon daemon;
            char text[64];
            snprintf(text, sizeof text, "--%s=%s", words[i].word,
                     above ? words[i].above : words[i].below);
            if (daemon_try(&daemon, ARGS("--listen", fresh_socket(), text)))
                fail_msg("%s was taken", text);
            assert_int_equal(daemon.exit_code, 2);
        }
}

static void
a_ramdisk_ends_with_the_memory_and_goes_on_when_there_is_some(void **state)
{
    enum { PIECE = 1 << 20, LIMIT = 24 };
    static uint8_t data[PIECE], back[PIECE];
    struct daemon daemon;
    struct farblk *dev, *other;
    uint64_t pieces = 0, sectors = PIECE / 512;
    int status;
    (void)state;
    daemon_start(&daemon, ARGS("--listen", fresh_socket(), "--memory-limit",
                               "24M", "--export", "disk=ramdisk:disk?size=1T"));
    ok(farblk_open(uri_of(&daemon, "disk"), NULL, &dev));
    for (unsigned round = 0; round < 3; round++) {
        for (pieces = 0;; pieces++) {
            pattern_fill(data, PIECE, pieces);
            status = support_write(dev, pieces * sectors, data, PIECE, 0);
            if (status != 0)
                break;
            assert_true(pieces < LIMIT);
        }
        assert_int_equal(status, FARBLK_NO_SPACE);
        text_has("limit");
        assert_true(pieces >= LIMIT / 2);
        /* What there is stays, others come and read, and room can be made. */
        ok(farblk_open(uri_of(&daemon, "disk"), NULL, &other));
        for (uint64_t i = 0; i < pieces; i++) {
            ok(support_read(other, i * sectors, back, PIECE));
            assert_int_equal(pattern_check(back, PIECE, i), PIECE);
        }
        ok(farblk_close(other));
        ok(farblk_discard(dev, 0, pieces * sectors, 0));
        ok(farblk_discard(dev, pieces * sectors, sectors, 0));
    }
    ok(farblk_close(dev));
    daemon_stop(&daemon);
}

static void
sigusr1_tells_what_it_has_in_hand(void **state)
{
    struct daemon daemon;
    struct farblk *dev;
    (void)state;
    daemon_start(&daemon, ARGS("--listen", fresh_socket(), "--log-level",
                               "error", "--memory-limit", "123M", "--export",
                               "disk=ramdisk:disk"));
    ok(farblk_open(uri_of(&daemon, "disk"), NULL, &dev));
    assert_int_equal(kill(daemon.pid, SIGUSR1), 0);
    daemon_wait_log(&daemon, "connections 1 (1), sessions 1 (1), handles 1");
    daemon_wait_log(&daemon, " of 128974848;");
    ok(farblk_close(dev));
    assert_int_equal(kill(daemon.pid, SIGUSR1), 0);
    daemon_wait_log(&daemon, "(1), sessions 0 (1), handles 0");
    daemon_stop(&daemon);
}

static int
begin(void **state)
{
    (void)state;
    support_watch("a test of farblkd's limits");
    return 0;
}

static int
end(void **state)
{
    (void)state;
    support_watch(NULL);
    return daemon_kill_all() > 0 ? -1 : 0;
}

#define LIMITS_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        LIMITS_TEST(every_limit_is_set_in_the_file_and_on_the_command_line),
        LIMITS_TEST(
            a_ramdisk_ends_with_the_memory_and_goes_on_when_there_is_some),
        LIMITS_TEST(sigusr1_tells_what_it_has_in_hand),
    };
    return cmocka_run_group_tests_name("farblkd_limits", tests, NULL, NULL);
}
