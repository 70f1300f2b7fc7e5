/* SPDX-License-Identifier: ISC */
/*
 * TLS configurations: files into what mbed TLS wants.
 *
 * Everything that can be wrong with one's own files is found here, before
 * anything is dialled: they can not be read, do not parse, do not belong
 * together, have expired, or the key is readable by others.
 */
#include "proto/link_tls_kind.h"

#include "core/log.h"
#include "core/secret.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* A system's whole bundle of CAs has a quarter of that. */
#define FILE_MOST (1u << 20)

/* Ephemeral keys, authenticated encryption: nothing else is offered or taken.
 * In the order of their speed in mbed TLS 2.28, with a CPU that has AES. */
static const int suites[] = {
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CCM,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    0,
};

/* The kernel's numbers: nothing to seed, nothing to share with a child. */
static int
draw(void *unused, unsigned char *to, size_t length)
{
    (void)unused;
    while (length > 0) {
        ssize_t n = getrandom(to, length, 0);
        if (n < 0 && errno != EINTR)
            return MBEDTLS_ERR_SSL_INTERNAL_ERROR;
        to += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int
bad_file(struct error *error, const char *what, const char *path, int result)
{
    char reason[160];
    link_tls_reason(result, reason, sizeof reason);
    return error_set(error, FARBLK_INVALID, "%s %.200s: %s", what, path,
                     reason);
}

/* A positive result: some of the certificates did not parse. */
static int
read_certs(const char *what, const char *path, mbedtls_x509_crt *to,
           struct error *error)
{
    char *text;
    size_t length;
    int status = secret_read_file(what, path, SECRET_PUBLIC, FILE_MOST, &text,
                                  &length, error);
    if (status != 0)
        return status;
    int result =
        mbedtls_x509_crt_parse(to, (const unsigned char *)text, length + 1);
    secret_free(text, length);
    if (result < 0)
        return bad_file(error, what, path, result);
    if (result > 0)
        return error_set(error, FARBLK_INVALID,
                         "%s %.200s: %d of its certificates can not be read",
                         what, path, result);
    return 0;
}

static int
read_key(const char *path, mbedtls_pk_context *to, struct error *error)
{
    char *text;
    size_t length;
    int status = secret_read_file("the key", path, SECRET_PRIVATE, FILE_MOST,
                                  &text, &length, error);
    if (status != 0)
        return status;
    int result = mbedtls_pk_parse_key(to, (const unsigned char *)text,
                                      length + 1, NULL, 0);
    secret_free(text, length);
    if (result == MBEDTLS_ERR_PK_PASSWORD_REQUIRED)
        return error_set(error, FARBLK_INVALID,
                         "the key %.200s has a password; it must have none",
                         path);
    return result != 0 ? bad_file(error, "the key", path, result) : 0;
}

/* A client's own dates must be right, for nobody would take it.  A server goes
 * on: who connects decides, and the log tells. */
static int
check_dates(const struct link_tls *tls, const char *path, struct error *error)
{
    struct error found;
    error_clear(&found);
    if (mbedtls_x509_time_is_past(&tls->cert.valid_to))
        error_set(&found, FARBLK_INVALID,
                  "the certificate %.200s has expired, on %s", path,
                  link_tls_date(&tls->cert.valid_to).text);
    else if (mbedtls_x509_time_is_future(&tls->cert.valid_from))
        error_set(&found, FARBLK_INVALID,
                  "the certificate %.200s is valid only from %s on", path,
                  link_tls_date(&tls->cert.valid_from).text);
    if (found.status == 0 || !tls->server) {
        if (found.status != 0)
            error_set(error, found.status, "%s", found.text);
        return found.status;
    }
    log_warning("%s; clients will refuse it", found.text);
    return 0;
}

static int
read_own(struct link_tls *tls, const struct link_tls_options *options,
         struct error *error)
{
    int status =
        read_certs("the certificate", options->cert, &tls->cert, error);
    if (status == 0)
        status = read_key(options->key, &tls->key, error);
    if (status != 0)
        return status;
    if (mbedtls_pk_check_pair(&tls->cert.pk, &tls->key) != 0)
        return error_set(error, FARBLK_INVALID,
                         "the key %.200s does not belong to the certificate "
                         "%.200s",
                         options->key, options->cert);
    status = check_dates(tls, options->cert, error);
    if (status != 0)
        return status;
    int result = mbedtls_ssl_conf_own_cert(&tls->config, &tls->cert, &tls->key);
    return result != 0
               ? bad_file(error, "the certificate", options->cert, result)
               : 0;
}

static int
check_options(const struct link_tls_options *options, struct error *error)
{
    if ((options->cert == NULL) != (options->key == NULL))
        return error_set(error, FARBLK_INVALID,
                         "TLS: a certificate and a key belong together, and "
                         "there is a %s only",
                         options->cert != NULL ? "certificate" : "key");
    if (options->server && options->cert == NULL)
        return error_set(error, FARBLK_INVALID,
                         "TLS: a server needs a certificate and a key");
    if (!options->server && options->ca == NULL)
        return error_set(error, FARBLK_INVALID,
                         "TLS: no CA is given (ca=PATH) to verify the server's "
                         "certificate by");
    if (options->verify_clients && options->ca == NULL)
        return error_set(error, FARBLK_INVALID,
                         "TLS: no CA is given to verify clients by");
    return 0;
}

static int
set_host(struct link_tls *tls, const char *host, struct error *error)
{
    tls->host = strdup(host);
    if (tls->host == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "TLS: no memory");
    if (inet_pton(AF_INET, host, tls->address) == 1)
        tls->address_length = 4;
    else if (inet_pton(AF_INET6, host, tls->address) == 1)
        tls->address_length = 16;
    return 0;
}

static int
configure(struct link_tls *tls, const struct link_tls_options *options,
          struct error *error)
{
    mbedtls_ssl_config *config = &tls->config;
    int status = 0;
    if (mbedtls_ssl_config_defaults(
            config,
            options->server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
            MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT)
        != 0)
        return error_set(error, FARBLK_NO_MEMORY, "TLS: no memory");
    mbedtls_ssl_conf_min_version(config, MBEDTLS_SSL_MAJOR_VERSION_3,
                                 MBEDTLS_SSL_MINOR_VERSION_3);
    mbedtls_ssl_conf_ciphersuites(config, suites);
    mbedtls_ssl_conf_rng(config, draw, NULL);
    mbedtls_ssl_conf_authmode(config,
                              !options->server || options->verify_clients
                                  ? MBEDTLS_SSL_VERIFY_REQUIRED
                                  : MBEDTLS_SSL_VERIFY_NONE);
    if (options->ca != NULL) {
        tls->ca_path = strdup(options->ca);
        if (tls->ca_path == NULL)
            return error_set(error, FARBLK_NO_MEMORY, "TLS: no memory");
        status = read_certs("the CA", options->ca, &tls->ca, error);
        mbedtls_ssl_conf_ca_chain(config, &tls->ca, NULL);
    }
    if (status == 0 && options->cert != NULL)
        status = read_own(tls, options, error);
    if (status == 0 && !options->server)
        status =
            set_host(tls, options->host != NULL ? options->host : "", error);
    return status;
}

int
link_tls_create(const struct link_tls_options *options, struct link_tls **to,
                struct error *error)
{
    *to = NULL;
    int status = check_options(options, error);
    if (status != 0)
        return status;
    struct link_tls *tls = calloc(1, sizeof *tls);
    if (tls == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "TLS: no memory");
    atomic_init(&tls->refs, 1);
    pthread_mutex_init(&tls->shaking, NULL);
    tls->server = options->server;
    tls->verify_clients = options->verify_clients;
    mbedtls_ssl_config_init(&tls->config);
    mbedtls_x509_crt_init(&tls->ca);
    mbedtls_x509_crt_init(&tls->cert);
    mbedtls_pk_init(&tls->key);
    status = configure(tls, options, error);
    if (status != 0) {
        link_tls_put(tls);
        return status;
    }
    *to = tls;
    return 0;
}

struct link_tls *
link_tls_get(struct link_tls *tls)
{
    atomic_fetch_add_explicit(&tls->refs, 1, memory_order_relaxed);
    return tls;
}

void
link_tls_put(struct link_tls *tls)
{
    if (tls == NULL
        || atomic_fetch_sub_explicit(&tls->refs, 1, memory_order_acq_rel) != 1)
        return;
    mbedtls_ssl_config_free(&tls->config);
    mbedtls_pk_free(&tls->key);
    mbedtls_x509_crt_free(&tls->cert);
    mbedtls_x509_crt_free(&tls->ca);
    pthread_mutex_destroy(&tls->shaking);
    free(tls->ca_path);
    free(tls->host);
    free(tls);
}
