/* SPDX-License-Identifier: ISC */
/*
 * Each connection has a context of mbed TLS of its own, keys included: nothing
 * of it is shared by threads.
 */
#include "tests/tls_pump.h"

#include "tests/peer.h"

#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct tls_pump {
    int plain, wire;
    unsigned farewell; /* how to end */
    bool server;
    mbedtls_ssl_context ssl;
    mbedtls_ssl_config config;
    mbedtls_x509_crt cert;
    mbedtls_pk_context key;
};

struct tls_pump_front {
    int listener;
    char path[108], cert[320], key[320];
    pthread_t thread;
};

static int
random_octets(void *arg, unsigned char *to, size_t length)
{
    (void)arg;
    return getrandom(to, length, 0) == (ssize_t)length
               ? 0
               : MBEDTLS_ERR_SSL_INTERNAL_ERROR;
}

static int
wire_send(void *arg, const unsigned char *from, size_t length)
{
    struct tls_pump *pump = arg;
    ssize_t n;
    do
        n = send(pump->wire, from, length, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? MBEDTLS_ERR_SSL_INTERNAL_ERROR : (int)n;
}

static int
wire_receive(void *arg, unsigned char *to, size_t length)
{
    struct tls_pump *pump = arg;
    ssize_t n;
    do
        n = recv(pump->wire, to, length, 0);
    while (n < 0 && errno == EINTR);
    return n < 0 ? MBEDTLS_ERR_SSL_INTERNAL_ERROR : (int)n;
}

static bool
pump_setup(struct tls_pump *pump)
{
    if (mbedtls_ssl_config_defaults(
            &pump->config,
            pump->server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
            MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT)
        != 0)
        return false;
    mbedtls_ssl_conf_rng(&pump->config, random_octets, NULL);
    mbedtls_ssl_conf_authmode(&pump->config, MBEDTLS_SSL_VERIFY_NONE);
    if (pump->server
        && mbedtls_ssl_conf_own_cert(&pump->config, &pump->cert, &pump->key)
               != 0)
        return false;
    if (mbedtls_ssl_setup(&pump->ssl, &pump->config) != 0)
        return false;
    mbedtls_ssl_set_bio(&pump->ssl, pump, wire_send, wire_receive, NULL);
    return mbedtls_ssl_handshake(&pump->ssl) == 0;
}

/* What came over the wire, to the plain side; false at its end. */
static bool
pump_in(struct tls_pump *pump)
{
    uint8_t octets[16384];
    do {
        int n = mbedtls_ssl_read(&pump->ssl, octets, sizeof octets);
        if (n <= 0 || !peer_send_all(pump->plain, octets, (size_t)n))
            return false;
    } while (mbedtls_ssl_check_pending(&pump->ssl));
    return true;
}

static bool
pump_out(struct tls_pump *pump)
{
    uint8_t octets[16384];
    ssize_t length = recv(pump->plain, octets, sizeof octets, 0), done = 0;
    if (length < 0 && errno == EINTR)
        return true;
    while (done < length) {
        int n = mbedtls_ssl_write(&pump->ssl, octets + done,
                                  (size_t)(length - done));
        if (n <= 0)
            return false;
        done += n;
    }
    return length > 0;
}

static void *
pump_run(void *arg)
{
    struct tls_pump *pump = arg;
    struct pollfd fds[2] = {{pump->plain, POLLIN, 0}, {pump->wire, POLLIN, 0}};
    bool good = pump_setup(pump);
    while (good) {
        int ready = poll(fds, 2, SUPPORT_PATIENCE_MS);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            break;
        if (fds[1].revents != 0)
            good = pump_in(pump);
        if (good && fds[0].revents != 0)
            good = pump_out(pump);
    }
    if (pump->farewell % 3 == 0)
        mbedtls_ssl_close_notify(&pump->ssl);
    else if (pump->farewell % 3 == 1)
        setsockopt(pump->wire, SOL_SOCKET, SO_LINGER,
                   &(struct linger){.l_onoff = 1}, sizeof(struct linger));
    close(pump->wire);
    close(pump->plain);
    mbedtls_ssl_free(&pump->ssl);
    mbedtls_ssl_config_free(&pump->config);
    mbedtls_x509_crt_free(&pump->cert);
    mbedtls_pk_free(&pump->key);
    free(pump);
    return NULL;
}

/* A thread of its own for it, whose both ends are the pump's from here on. */
static void
pump_start(int plain, int wire, const struct tls_pump_front *front)
{
    static _Atomic unsigned count;
    struct tls_pump *pump = calloc(1, sizeof *pump);
    pthread_t thread;
    if (pump == NULL)
        abort();
    pump->plain = plain;
    pump->wire = wire;
    pump->farewell = count++;
    pump->server = front != NULL;
    mbedtls_ssl_init(&pump->ssl);
    mbedtls_ssl_config_init(&pump->config);
    mbedtls_x509_crt_init(&pump->cert);
    mbedtls_pk_init(&pump->key);
    if (front != NULL
        && (mbedtls_x509_crt_parse_file(&pump->cert, front->cert) != 0
            || mbedtls_pk_parse_keyfile(&pump->key, front->key, NULL) != 0))
        abort();
    if (pthread_create(&thread, NULL, pump_run, pump) != 0)
        abort();
    pthread_detach(thread);
}

int
tls_pump_dial(const char *url)
{
    const struct timeval patience = {.tv_sec = SUPPORT_PATIENCE_MS / 1000};
    int ends[2], wire = peer_connect(url + strlen("tls+"), false);
    if (wire < 0)
        return -1;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends),
                     0);
    setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(ends[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    pump_start(ends[1], wire, NULL);
    return ends[0];
}

/* ------------------------------------------------------------ a server's */

static void *
front_run(void *arg)
{
    struct tls_pump_front *front = arg;
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int wire;
    memcpy(to.sun_path, front->path, sizeof to.sun_path);
    while ((wire = accept4(front->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        int plain = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (plain < 0)
            abort();
        if (connect(plain, (struct sockaddr *)&to, sizeof to) == 0) {
            pump_start(plain, wire, front);
        } else {
            close(plain);
            close(wire);
        }
    }
    return NULL;
}

struct tls_pump_front *
tls_pump_front(const char *path, const char *cert, const char *key,
               unsigned *port)
{
    struct tls_pump_front *front = calloc(1, sizeof *front);
    struct sockaddr_in inet = {.sin_family = AF_INET};
    socklen_t size = sizeof inet;
    assert_non_null(front);
    snprintf(front->path, sizeof front->path, "%s", path);
    snprintf(front->cert, sizeof front->cert, "%s", cert);
    snprintf(front->key, sizeof front->key, "%s", key);
    inet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    front->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(front->listener >= 0);
    assert_int_equal(bind(front->listener, (struct sockaddr *)&inet, size), 0);
    assert_int_equal(listen(front->listener, 16), 0);
    assert_int_equal(
        getsockname(front->listener, (struct sockaddr *)&inet, &size), 0);
    *port = ntohs(inet.sin_port);
    assert_int_equal(pthread_create(&front->thread, NULL, front_run, front), 0);
    return front;
}

void
tls_pump_front_end(struct tls_pump_front *front)
{
    shutdown(front->listener, SHUT_RDWR);
    assert_int_equal(pthread_join(front->thread, NULL), 0);
    close(front->listener);
    free(front);
}
