/* SPDX-License-Identifier: ISC */
/*
 * TLS between a real farblkd and clients: whom a client believes, whom a server
 * does, and what each way to be wrong is told as, on both sides.
 */
#include "tests/certs.h"
#include "tests/daemon.h"
#include "tests/peer.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/tls/tls.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512u

/* What a certificate file is called without its suffix. */
struct pair {
    char cert[320], key[320];
};

static struct pair
pair_of(const char *name)
{
    struct pair pair;
    char file[64];

    snprintf(file, sizeof file, "%s.pem", name);
    snprintf(pair.cert, sizeof pair.cert, "%s", certs_path(file));
    snprintf(file, sizeof file, "%s.key", name);
    snprintf(pair.key, sizeof pair.key, "%s", certs_path(file));
    return pair;
}

/* A server that shows this one; `ca`: clients must show one of that CA. */
static void
start(struct daemon *daemon, const char *name, const char *ca)
{
    struct pair pair = pair_of(name);
    const char *args[] = {"--listen",
                          "tls+tcp://127.0.0.1:0",
                          "--listen",
                          "tcp://127.0.0.1:0",
                          "--export",
                          "disk=ramdisk:disk",
                          "--tls-cert",
                          pair.cert,
                          "--tls-key",
                          pair.key,
                          "--tls-ca",
                          ca != NULL ? certs_path(ca) : certs_path("ca.pem"),
                          ca != NULL ? "--tls-verify-clients" : NULL,
                          NULL};

    daemon_start(daemon, args);
}

/* Static, of the last four calls. */
static const char *
uri(const struct daemon *daemon, const char *host, const char *ca,
    const char *more)
{
    static char texts[4][4096];
    static unsigned next;
    char *text = texts[next++ % 4];

    snprintf(text, sizeof texts[0], "farblks://%s:%s/disk?ca=%s%s", host,
             strrchr(daemon->url[0], ':') + 1, certs_path(ca), more);
    return text;
}

/* The client's own certificate, as parameters. */
static const char *
showing(const char *name)
{
    static char text[700];
    struct pair pair = pair_of(name);

    snprintf(text, sizeof text, "&cert=%s&key=%s", pair.cert, pair.key);
    return text;
}

static void
works(const char *at)
{
    struct farblk *dev = NULL;
    uint8_t buffer[8 * SECTOR];

    ok(farblk_open(at, NULL, &dev));
    assert_string_equal(support_info(dev).transport, "tls");
    pattern_fill(buffer, sizeof buffer, 3);
    ok(support_write(dev, 8, buffer, sizeof buffer, 0));
    memset(buffer, 0, sizeof buffer);
    ok(support_read(dev, 8, buffer, sizeof buffer));
    assert_int_equal(pattern_check(buffer, sizeof buffer, 3), sizeof buffer);
    ok(farblk_close(dev));
}

static void
refused(int status, const char *at, const char *text)
{
    struct farblk *dev = NULL;

    fails_with(status, farblk_open(at, NULL, &dev));
    text_has(text);
    assert_null(dev);
}

/* ------------------------------------------------------------ the server */

static void
server_of_the_ca_is_believed_by_name_and_by_address(void **state)
{
    struct daemon daemon;

    (void)state;
    start(&daemon, "server", NULL);
    works(uri(&daemon, "127.0.0.1", "ca.pem", ""));
    works(uri(&daemon, "localhost", "ca.pem", ""));
    works(uri(&daemon, "127.0.0.1", "ca.pem", "&server_name=localhost"));
    daemon_stop(&daemon);
    start(&daemon, "rsa", NULL);
    works(uri(&daemon, "127.0.0.1", "ca.pem", ""));
    daemon_stop(&daemon);
}

static void
server_of_another_ca_is_refused(void **state)
{
    struct daemon daemon;

    (void)state;
    start(&daemon, "server", NULL);
    /* Of the same name as the right one, too. */
    refused(FARBLK_DENIED, uri(&daemon, "localhost", "other-ca.pem", ""),
            "is not signed by a CA in");
    daemon_wait_log(&daemon, "not signed by a CA that it knows");
    daemon_stop(&daemon);
    start(&daemon, "leaf", NULL);
    refused(FARBLK_DENIED, uri(&daemon, "localhost", "ca.pem", ""),
            "is not signed by a CA in");
    daemon_stop(&daemon);
}

static void
server_of_another_name_is_refused(void **state)
{
    struct daemon daemon;

    (void)state;
    start(&daemon, "name", NULL);
    refused(FARBLK_DENIED, uri(&daemon, "localhost", "ca.pem", ""),
            "is for elsewhere.example, 10.9.8.7, not for localhost");
    refused(FARBLK_DENIED, uri(&daemon, "127.0.0.1", "ca.pem", ""),
            "not for 127.0.0.1");
    daemon_wait_log(&daemon, "not for the name that it expects");
    works(
        uri(&daemon, "127.0.0.1", "ca.pem", "&server_name=elsewhere.example"));
    works(uri(&daemon, "localhost", "ca.pem", "&server_name=10.9.8.7"));
    refused(FARBLK_DENIED,
            uri(&daemon, "localhost", "ca.pem", "&server_name=elsewhere"),
            "not for elsewhere");
    daemon_stop(&daemon);
}

static void
address_in_words_is_no_address(void **state)
{
    struct daemon daemon;

    (void)state;
    start(&daemon, "words", NULL);
    refused(FARBLK_DENIED, uri(&daemon, "127.0.0.1", "ca.pem", ""),
            "not for 127.0.0.1");
    daemon_stop(&daemon);
    start(&daemon, "dns", NULL);
    refused(FARBLK_DENIED, uri(&daemon, "127.0.0.1", "ca.pem", ""),
            "not for 127.0.0.1");
    daemon_stop(&daemon);
}

static void
server_whose_certificate_has_expired_is_refused(void **state)
{
    struct daemon daemon;

    (void)state;
    start(&daemon, "expired-server", NULL);
    daemon_wait_log(&daemon, "clients will refuse it");
    refused(FARBLK_DENIED, uri(&daemon, "localhost", "ca.pem", ""),
            "the server's certificate has expired, on 20");
    daemon_wait_log(&daemon, "this side's certificate has expired");
    daemon_stop(&daemon);
}

static void
certificate_of_a_client_is_no_servers(void **state)
{
    struct daemon daemon;

    (void)state;
    start(&daemon, "usage", NULL);
    refused(FARBLK_DENIED, uri(&daemon, "localhost", "ca.pem", ""), "TLS: ");
    daemon_stop(&daemon);
}

/* ------------------------------------------------------------ the client */

static void
client_must_show_a_certificate_where_one_is_required(void **state)
{
    struct daemon daemon;

    (void)state;
    start(&daemon, "server", "ca.pem");
    works(uri(&daemon, "localhost", "ca.pem", showing("client")));
    daemon_wait_log(&daemon, "its certificate is of CN=client");
    refused(FARBLK_DENIED, uri(&daemon, "localhost", "ca.pem", ""),
            "it wants a client certificate (cert=, key=)");
    daemon_wait_log(&daemon, "shows no certificate, and one is required");
    refused(FARBLK_DENIED,
            uri(&daemon, "localhost", "ca.pem", showing("other-client")),
            "not signed by a CA that it knows");
    daemon_wait_log(&daemon, "the client's certificate is not signed by");
    daemon_stop(&daemon);
}

static void
client_looks_at_its_own_files_before_it_dials(void **state)
{
    struct daemon daemon;
    struct pair pair = pair_of("client");
    char at[1536];

    (void)state;
    start(&daemon, "server", "ca.pem");
    refused(FARBLK_INVALID,
            uri(&daemon, "localhost", "ca.pem", showing("expired-client")),
            "expired-client.pem has expired, on 20");
    snprintf(at, sizeof at, "&cert=%s", pair.cert);
    refused(FARBLK_INVALID, uri(&daemon, "localhost", "ca.pem", at),
            "belong together");
    snprintf(at, sizeof at, "&cert=%s&key=%s", pair.cert,
             certs_path("server.key"));
    refused(FARBLK_INVALID, uri(&daemon, "localhost", "ca.pem", at),
            "does not belong to the certificate");
    snprintf(at, sizeof at, "&cert=%s&key=%s", certs_path("server.pem"),
             certs_path("password.key"));
    refused(FARBLK_INVALID, uri(&daemon, "localhost", "ca.pem", at),
            "has a password");
    refused(FARBLK_NOT_FOUND, uri(&daemon, "localhost", "none.pem", ""),
            "the CA ");
    refused(FARBLK_INVALID, uri(&daemon, "localhost", "ca.key", ""), "the CA ");
    refused(FARBLK_INVALID, uri(&daemon, "localhost", "", ""),
            "not a regular file");
    snprintf(at, sizeof at, "farblks://localhost:%s/disk",
             strrchr(daemon.url[0], ':') + 1);
    refused(FARBLK_INVALID, at, "no CA is given (ca=PATH)");
    snprintf(at, sizeof at, "farblk://localhost:%s/disk?ca=%s",
             strrchr(daemon.url[1], ':') + 1, certs_path("ca.pem"));
    refused(FARBLK_INVALID, at, "belongs to farblks://");
    assert_int_equal(daemon_count_log(&daemon, "opened"), 0);
    daemon_stop(&daemon);
}

static void
key_that_others_can_read_is_refused(void **state)
{
    struct pair pair = pair_of("client");
    const char *args[] = {"--listen",   "tls+tcp://127.0.0.1:0",
                          "--tls-cert", pair.cert,
                          "--tls-key",  pair.key,
                          NULL};
    struct daemon daemon, other;
    char *log;

    (void)state;
    start(&daemon, "server", "ca.pem");
    assert_int_equal(chmod(pair.key, 0640), 0);
    refused(FARBLK_DENIED,
            uri(&daemon, "localhost", "ca.pem", showing("client")),
            "has mode 640");
    assert_false(daemon_try(&other, args));
    assert_int_equal(other.exit_code, 1);
    log = daemon_read_log(&other);
    assert_non_null(strstr(log, "has mode 640: group and others must have no"));
    free(log);
    assert_int_equal(chmod(pair.key, 0600), 0);
    works(uri(&daemon, "localhost", "ca.pem", showing("client")));
    daemon_stop(&daemon);
}

static void
server_without_a_certificate_does_not_start(void **state)
{
    const char *none[] = {"--listen", "tls+tcp://127.0.0.1:0", NULL};
    const char *half[] = {"--listen", "tls+tcp://127.0.0.1:0", "--tls-cert",
                          certs_path("server.pem"), NULL};
    struct daemon daemon;

    (void)state;
    assert_false(daemon_try(&daemon, none));
    assert_int_equal(daemon.exit_code, 1);
    assert_int_not_equal(daemon_count_log(&daemon, "tls-cert, tls-key"), 0);
    assert_false(daemon_try(&daemon, half));
    assert_int_equal(daemon.exit_code, 1);
    assert_int_not_equal(daemon_count_log(&daemon, "belong together"), 0);
}

/* ------------------------------------------------------------ mixed up */

static void
plain_client_at_a_tls_port_is_refused_and_told_why(void **state)
{
    struct daemon daemon;
    struct farblk *dev = NULL;
    char at[256];

    (void)state;
    start(&daemon, "server", NULL);
    snprintf(at, sizeof at, "farblk://%.200s/disk",
             daemon.url[0] + strlen("tls+tcp://"));
    fails_with(FARBLK_CONNECTION_LOST, farblk_open(at, NULL, &dev));
    text_has("or speaks TLS (farblks://)");
    daemon_wait_log(&daemon, "it connects without (farblk://)?");
    works(uri(&daemon, "localhost", "ca.pem", ""));
    daemon_stop(&daemon);
}

static void
tls_client_at_a_plain_port_does_not_fall_back(void **state)
{
    struct daemon daemon;
    char at[600];

    (void)state;
    start(&daemon, "server", NULL);
    snprintf(at, sizeof at, "farblks://%.200s/disk?ca=%.320s",
             daemon.url[1] + strlen("tcp://"), certs_path("ca.pem"));
    refused(FARBLK_PROTOCOL, at, "is not TLS: it listens without (tcp://)?");
    daemon_wait_log(&daemon, "a TLS client?");
    assert_int_equal(daemon_count_log(&daemon, "session"), 0);
    daemon_stop(&daemon);
}

/* ------------------------------------------------------------ not ours */

/* One message and its reply by an ordinary socket of nng's. */
static bool
exchange_nng(struct peer *peer, const uint8_t *body, size_t length,
             uint8_t **reply, size_t *reply_length)
{
    nng_socket *socket = peer->carrier;
    void *heard;
    size_t size;

    if (nng_send(*socket, (void *)(uintptr_t)body, length, 0) != 0
        || nng_recv(*socket, &heard, &size, NNG_FLAG_ALLOC) != 0)
        return false;
    *reply = malloc(size + 1);
    if (*reply != NULL)
        memcpy(*reply, heard, size);
    *reply_length = size;
    nng_free(heard, size);
    return *reply != NULL;
}

static void
socket_of_nng_over_its_own_tls_is_a_client(void **state)
{
    struct daemon daemon;
    struct pair pair = pair_of("client");
    nng_socket socket;
    nng_dialer dialer;
    nng_tls_config *config;
    struct peer peer = {.exchange = exchange_nng, .carrier = &socket};
    char both[700], name[64];
    FILE *file;

    (void)state;
    start(&daemon, "server", "ca.pem");
    /* nng wants certificate and key in one file. */
    snprintf(name, sizeof name, "both.pem");
    snprintf(both, sizeof both, "cat '%s' '%s' >'%s'", pair.cert, pair.key,
             certs_path(name));
    assert_int_equal(system(both), 0);
    file = fopen(certs_path(name), "r");
    assert_non_null(file);
    fclose(file);
    assert_int_equal(nng_req0_open(&socket), 0);
    assert_int_equal(
        nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, SUPPORT_PATIENCE_MS), 0);
    assert_int_equal(nng_tls_config_alloc(&config, NNG_TLS_MODE_CLIENT), 0);
    assert_int_equal(nng_tls_config_ca_file(config, certs_path("ca.pem")), 0);
    assert_int_equal(
        nng_tls_config_cert_key_file(config, certs_path(name), NULL), 0);
    assert_int_equal(nng_tls_config_server_name(config, "localhost"), 0);
    assert_int_equal(nng_dialer_create(&dialer, socket, daemon.url[0]), 0);
    assert_int_equal(nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, config), 0);
    assert_int_equal(nng_dialer_start(dialer, 0), 0);
    assert_int_equal(peer_hello(&peer), 0);
    assert_int_equal(peer_open(&peer, "disk"), 0);
    peer_exercise(&peer, 40, 7);
    peer_free(&peer);
    nng_close(socket);
    nng_tls_config_free(config);
    daemon_stop(&daemon);
}

/* What openssl says when it connects so. */
static bool
openssl_connects(const struct daemon *daemon, const char *more)
{
    char command[1024];

    snprintf(command, sizeof command,
             "timeout 60 openssl s_client -connect %s -CAfile '%s' "
             "-verify_return_error %s </dev/null >'%s' 2>&1",
             daemon->url[0] + strlen("tls+tcp://"), certs_path("ca.pem"), more,
             support_path("openssl.log"));
    return system(command) == 0;
}

static void
openssl_agrees_on_tls_1_2_and_on_nothing_weaker(void **state)
{
    struct daemon daemon;

    (void)state;
    start(&daemon, "rsa", NULL);
    assert_true(openssl_connects(
        &daemon, "-tls1_2 -verify_hostname localhost -cipher ECDHE+CHACHA20"));
    assert_true(openssl_connects(&daemon, "-tls1_2 -cipher ECDHE+AESGCM"));
    assert_false(openssl_connects(&daemon, "-tls1_1 -cipher ALL:@SECLEVEL=0"));
    assert_false(openssl_connects(
        &daemon, "-tls1_2 -cipher ECDHE-RSA-AES256-SHA384:@SECLEVEL=0"));
    assert_false(openssl_connects(
        &daemon, "-tls1_2 -cipher AES128-GCM-SHA256:@SECLEVEL=0"));
    works(uri(&daemon, "localhost", "ca.pem", ""));
    daemon_stop(&daemon);
}

static int
setup(void **state)
{
    (void)state;
    support_watch("a test of TLS");
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, daemon_clean)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(server_of_the_ca_is_believed_by_name_and_by_address),
        TEST(server_of_another_ca_is_refused),
        TEST(server_of_another_name_is_refused),
        TEST(address_in_words_is_no_address),
        TEST(server_whose_certificate_has_expired_is_refused),
        TEST(certificate_of_a_client_is_no_servers),
        TEST(client_must_show_a_certificate_where_one_is_required),
        TEST(client_looks_at_its_own_files_before_it_dials),
        TEST(key_that_others_can_read_is_refused),
        TEST(server_without_a_certificate_does_not_start),
        TEST(plain_client_at_a_tls_port_is_refused_and_told_why),
        TEST(tls_client_at_a_plain_port_does_not_fall_back),
        TEST(socket_of_nng_over_its_own_tls_is_a_client),
        TEST(openssl_agrees_on_tls_1_2_and_on_nothing_weaker),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
