/* SPDX-License-Identifier: ISC */
/*
 * Links on addresses that are taken, stale or wrong.
 */
#include "tests/link_ends.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static void
listening_fails(const char *url, int status, const char *why)
{
    struct link_listener_options options = {.limits = link_generous,
                                            .ipc_mode = 0600};
    struct link_listener *listener;
    struct error error;

    assert_int_equal(link_listen(url, &options, NULL, NULL, &listener, &error),
                     status);
    assert_null(listener);
    if (strstr(error.text, why) == NULL)
        fail_msg("'%s' does not say '%s'", error.text, why);
}

static void
dialing_fails(const char *url, int status, const char *why)
{
    struct link *link;
    struct error error;

    assert_int_equal(link_dial(url, NULL, SUPPORT_PATIENCE_MS, &link_generous,
                               &link, &error),
                     status);
    assert_null(link);
    if (strstr(error.text, why) == NULL)
        fail_msg("'%s' does not say '%s'", error.text, why);
}

static void
urls_that_can_not_be_are_invalid(void **state)
{
    char long_path[300];

    (void)state;
    listening_fails("", FARBLK_INVALID, "not a URL");
    listening_fails("/run/farblk.sock", FARBLK_INVALID, "not a URL");
    listening_fails("udp://127.0.0.1:1", FARBLK_INVALID,
                    "known are ipc, abstract, tcp, tls+tcp, inproc and ws");
    listening_fails("ipc://relative", FARBLK_INVALID, "absolute path");
    listening_fails("abstract://", FARBLK_INVALID, "at least 1");
    listening_fails("tcp://127.0.0.1", FARBLK_INVALID, "takes HOST:PORT");
    listening_fails("tcp://127.0.0.1:", FARBLK_INVALID, "takes HOST:PORT");
    listening_fails("tcp://127.0.0.1:65536", FARBLK_INVALID, "to 65535");
    listening_fails("tcp://[::1]", FARBLK_INVALID, "takes HOST:PORT");
    memset(long_path, 'x', sizeof long_path);
    memcpy(long_path, "ipc:///tmp/", 11);
    long_path[299] = 0;
    listening_fails(long_path, FARBLK_INVALID, "at most 107");
    dialing_fails(long_path, FARBLK_INVALID, "at most 107");
    dialing_fails("nothing", FARBLK_INVALID, "not a URL");
}

static void
a_live_socket_is_refused_and_a_stale_one_taken_over(void **state)
{
    struct link_post post = {.model.echo = true};
    char url[512], path[600];
    struct stat found;

    (void)state;
    snprintf(url, sizeof url, "%s", link_test_url("ipc"));
    snprintf(path, sizeof path, "%s", url + 6);
    /* Stale: bound, and its owner gone. */
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    memcpy(at.sun_path, path, strlen(path));
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    dialing_fails(url, FARBLK_CONNECTION_LOST, "nobody listens");
    close(fd);
    dialing_fails(url, FARBLK_CONNECTION_LOST, "nobody listens");
    link_post_open(&post, url, &link_generous);
    assert_int_equal(stat(path, &found), 0);
    assert_int_equal(found.st_mode & 07777, 0600);
    listening_fails(url, FARBLK_BUSY, "in use by a live server");
    link_post_still_serves(&post);
    link_post_close(&post);
    /* Nothing is left. */
    assert_int_equal(stat(path, &found), -1);
    strcat(path, ".lock");
    assert_int_equal(stat(path, &found), -1);
    dialing_fails(url, FARBLK_NOT_FOUND, "No such file");
}

static void
a_file_that_is_no_socket_is_left_alone(void **state)
{
    char url[512];
    struct stat found;

    (void)state;
    snprintf(url, sizeof url, "%s", link_test_url("ipc"));
    support_make_file(url + 6, 100);
    listening_fails(url, FARBLK_INVALID, "is not a socket");
    assert_int_equal(stat(url + 6, &found), 0);
    assert_int_equal(found.st_size, 100);
}

static void
directories_that_are_not_there_are_not_found(void **state)
{
    (void)state;
    listening_fails("ipc:///no/such/directory/socket", FARBLK_NOT_FOUND,
                    "/no/such/directory/socket");
    dialing_fails("ipc:///no/such/directory/socket", FARBLK_NOT_FOUND,
                  "/no/such/directory/socket");
}

static void
a_tcp_port_that_is_in_use_or_that_nobody_has_is_told(void **state)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t length = sizeof at;
    char url[100];

    (void)state;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    getsockname(fd, (struct sockaddr *)&at, &length);
    snprintf(url, sizeof url, "tcp://127.0.0.1:%u", ntohs(at.sin_port));
    dialing_fails(url, FARBLK_CONNECTION_LOST, url);
    assert_int_equal(listen(fd, 1), 0);
    listening_fails(url, FARBLK_BUSY, url);
    close(fd);
    dialing_fails("tcp://no.such.host.invalid:5660", FARBLK_NOT_FOUND,
                  "no.such.host.invalid");
    dialing_fails("abstract://farblk-nobody-listens-here", FARBLK_NOT_FOUND,
                  "nobody-listens");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_that_can_not_be_are_invalid),
        cmocka_unit_test(a_live_socket_is_refused_and_a_stale_one_taken_over),
        cmocka_unit_test(a_file_that_is_no_socket_is_left_alone),
        cmocka_unit_test(directories_that_are_not_there_are_not_found),
        cmocka_unit_test(a_tcp_port_that_is_in_use_or_that_nobody_has_is_told),
    };

    support_watch("addresses");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    support_watch(NULL);
    return failed;
}
