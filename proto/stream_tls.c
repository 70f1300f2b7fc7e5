/* SPDX-License-Identifier: ISC */
/*
 * TLS on one connection.
 *
 * mbed TLS reads from `in` and writes to `out`, and never waits: what is
 * missing comes with a later call.  A record is encrypted only when `out` has
 * room for all of it, because mbed TLS takes no other octets than the same
 * again once it had to stop in the middle of one.
 *
 * The mutex is held for one record at a time.
 */
#include "proto/stream_tls.h"

#include "proto/link_tls_kind.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IN_SIZE (64u << 10)
#define OUT_SIZE (256u << 10)
/* A record with all that is around its 16 KiB. */
#define RECORD_MOST (MBEDTLS_SSL_MAX_CONTENT_LEN + 1024u)

struct stream_tls {
    struct link_tls *config;

    /* The receiver's. */
    uint8_t *in;
    size_t in_begin, in_end;
    bool partial;
    struct link_tls_verdict verdict;

    pthread_mutex_t mutex; /* all of this: */
    mbedtls_ssl_context ssl;
    bool shaken; /* set by the receiver */
    int failed; /* the failure that ended it, in either direction; or 0 */
    uint8_t *out; /* what is between the two is being sent: it does not move */
    size_t out_begin, out_end;
};

/* ------------------------------------------------------------ mbed TLS's */

static int
give(void *arg, unsigned char *to, size_t length)
{
    struct stream_tls *tls = arg;
    size_t there = tls->in_end - tls->in_begin;

    if (there == 0)
        return MBEDTLS_ERR_SSL_WANT_READ;
    if (length > there)
        length = there;
    memcpy(to, tls->in + tls->in_begin, length);
    tls->in_begin += length;
    tls->partial = true;
    return (int)length;
}

static int
take(void *arg, const unsigned char *from, size_t length)
{
    struct stream_tls *tls = arg;
    size_t room = OUT_SIZE - tls->out_end;

    if (room == 0)
        return MBEDTLS_ERR_SSL_WANT_WRITE;
    if (length > room)
        length = room;
    memcpy(tls->out + tls->out_end, from, length);
    tls->out_end += length;
    return (int)length;
}

struct stream_tls *
stream_tls_create(struct link_tls *config)
{
    struct stream_tls *tls = calloc(1, sizeof *tls);

    if (tls == NULL)
        return NULL;
    tls->config = link_tls_get(config);
    tls->verdict.tls = config;
    pthread_mutex_init(&tls->mutex, NULL);
    mbedtls_ssl_init(&tls->ssl);
    tls->in = malloc(IN_SIZE);
    tls->out = malloc(OUT_SIZE);
    /* No host name for an address: link_tls_verify() compares those. */
    if (tls->in == NULL || tls->out == NULL
        || mbedtls_ssl_setup(&tls->ssl, &config->config) != 0
        || (!config->server
            && mbedtls_ssl_set_hostname(
                   &tls->ssl, config->address_length > 0 ? NULL : config->host)
                   != 0)) {
        stream_tls_free(tls);
        return NULL;
    }
    mbedtls_ssl_set_verify(&tls->ssl, link_tls_verify, &tls->verdict);
    mbedtls_ssl_set_bio(&tls->ssl, tls, take, give, NULL);
    return tls;
}

void
stream_tls_free(struct stream_tls *tls)
{
    if (tls == NULL)
        return;
    /* Whoever was the last to use it has left the mutex behind. */
    pthread_mutex_lock(&tls->mutex);
    pthread_mutex_unlock(&tls->mutex);
    mbedtls_ssl_free(&tls->ssl);
    pthread_mutex_destroy(&tls->mutex);
    link_tls_put(tls->config);
    free(tls->in);
    free(tls->out);
    free(tls);
}

/* ------------------------------------------------------------ failures */

/* What an alert of the peer's means for who reads it. */
static const char *
alert_text(const struct link_tls *config, unsigned alert)
{
    switch (alert) {
    case MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE:
    case MBEDTLS_SSL_ALERT_MSG_NO_CERT:
        return config->server ? "no common cipher, or it refuses"
                              : "it wants a client certificate (cert=, key=), "
                                "or there is no common cipher";
    case MBEDTLS_SSL_ALERT_MSG_BAD_CERT:
        return "this side's certificate is not for the name that it expects, "
               "or damaged";
    case MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT:
        return "this side's certificate is not of a kind that it takes";
    case MBEDTLS_SSL_ALERT_MSG_CERT_REVOKED:
        return "this side's certificate was revoked";
    case MBEDTLS_SSL_ALERT_MSG_CERT_EXPIRED:
        return "this side's certificate has expired";
    case MBEDTLS_SSL_ALERT_MSG_CERT_UNKNOWN:
        return "this side's certificate is refused";
    case MBEDTLS_SSL_ALERT_MSG_UNKNOWN_CA:
        return "this side's certificate is not signed by a CA that it knows";
    case MBEDTLS_SSL_ALERT_MSG_ACCESS_DENIED:
        return "access denied";
    case MBEDTLS_SSL_ALERT_MSG_PROTOCOL_VERSION:
        return "no common version of TLS; this side speaks 1.2";
    default:
        return "no more is said";
    }
}

/* mbed TLS sends no alert for a missing certificate: the client shall know. */
static void
send_alert(struct stream_tls *tls, int result)
{
    if (result == MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE)
        mbedtls_ssl_send_alert_message(&tls->ssl, MBEDTLS_SSL_ALERT_LEVEL_FATAL,
                                       MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE);
}

static void
explain(struct stream_tls *tls, int result, struct error *error)
{
    const struct link_tls *config = tls->config;
    char reason[160];

    if (tls->verdict.text[0] != '\0') {
        error_set(error, FARBLK_DENIED, "TLS: %s", tls->verdict.text);
        return;
    }
    switch (result) {
    case MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE: {
        unsigned alert = tls->ssl.in_msg[1];
        error_set(error, FARBLK_DENIED,
                  "TLS: the %s refuses the connection (alert %u): %s",
                  config->server ? "client" : "server", alert,
                  alert_text(config, alert));
        return;
    }
    case MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE:
        error_set(error, FARBLK_DENIED,
                  "TLS: the client shows no certificate, and one is required");
        return;
    case MBEDTLS_ERR_SSL_NO_CIPHER_CHOSEN:
        error_set(error, FARBLK_DENIED,
                  "TLS: the client offers no cipher that is taken here");
        return;
    case MBEDTLS_ERR_SSL_INVALID_RECORD:
        if (tls->shaken)
            break;
        error_set(error, FARBLK_PROTOCOL, "TLS: what the %s sent is not TLS%s",
                  config->server ? "client" : "server",
                  config->server ? ": it connects without (farblk://)?"
                                 : ": it listens without (tcp://)?");
        return;
    case MBEDTLS_ERR_SSL_BAD_HS_PROTOCOL_VERSION:
        error_set(error, FARBLK_DENIED,
                  "TLS: the %s speaks no version that is taken here; that is "
                  "1.2",
                  config->server ? "client" : "server");
        return;
    case MBEDTLS_ERR_SSL_BAD_HS_CLIENT_HELLO:
        error_set(error, FARBLK_PROTOCOL,
                  "TLS: what the client sent is no handshake: it connects "
                  "without (farblk://)?");
        return;
    default:
        break;
    }
    link_tls_reason(result, reason, sizeof reason);
    /* Once both have shown who they are, a record that does not fit was changed
     * on its way: the connection is at fault, not the peer. */
    error_set(error, tls->shaken ? FARBLK_CONNECTION_LOST : FARBLK_PROTOCOL,
              "TLS: %s", reason);
}

/* ------------------------------------------------------------ receiving */

void
stream_tls_room(struct stream_tls *tls, nng_iov *iov)
{
    if (tls->in_begin > 0) {
        memmove(tls->in, tls->in + tls->in_begin, tls->in_end - tls->in_begin);
        tls->in_end -= tls->in_begin;
        tls->in_begin = 0;
    }
    iov->iov_buf = tls->in + tls->in_end;
    iov->iov_len = IN_SIZE - tls->in_end;
}

void
stream_tls_came(struct stream_tls *tls, size_t count)
{
    tls->in_end += count;
}

/* One step of the handshake; 0 when it is over. */
static int
shake(struct stream_tls *tls)
{
    pthread_mutex_lock(&tls->config->shaking);
    int result = mbedtls_ssl_handshake(&tls->ssl);
    pthread_mutex_unlock(&tls->config->shaking);
    if (result == 0) {
        tls->shaken = true;
        tls->partial = false;
    }
    return result;
}

/* With the mutex: go on, into `length` octets at `to`.  A failure stays: no
 * record behind a bad one is looked at. */
static int
read_some(struct stream_tls *tls, void *to, size_t length)
{
    int result = tls->failed;

    if (result == 0 && !tls->shaken)
        result = shake(tls);
    if (result == 0) {
        result = mbedtls_ssl_read(&tls->ssl, to, length);
        if (result > 0)
            tls->partial = false;
        else if (result == 0)
            result = MBEDTLS_ERR_SSL_CONN_EOF;
    }
    if (result < 0 && result != MBEDTLS_ERR_SSL_WANT_READ
        && result != MBEDTLS_ERR_SSL_WANT_WRITE && tls->failed == 0) {
        tls->failed = result;
        send_alert(tls, result);
    }
    return result;
}

enum stream_tls_opened
stream_tls_open(struct stream_tls *tls, const nng_iov *iov, unsigned count,
                size_t *octets, bool *stirred, struct error *error)
{
    unsigned at = 0;
    size_t done = 0;
    int result = 1;

    *octets = 0;
    *stirred = false;
    while (at < count && result > 0) {
        if (iov[at].iov_len == 0) {
            at++;
            continue;
        }
        pthread_mutex_lock(&tls->mutex);
        bool before = tls->shaken;
        size_t sent = tls->out_end;
        result = read_some(tls, (uint8_t *)iov[at].iov_buf + done,
                           iov[at].iov_len - done);
        *stirred = *stirred || before != tls->shaken || tls->out_end != sent;
        pthread_mutex_unlock(&tls->mutex);
        if (result <= 0)
            break;
        *octets += (size_t)result;
        done += (size_t)result;
        if (done == iov[at].iov_len) {
            at++;
            done = 0;
        }
    }
    if (*octets > 0) /* a failure is told the next time */
        return STREAM_TLS_SOME;
    if (result == MBEDTLS_ERR_SSL_WANT_READ
        || result == MBEDTLS_ERR_SSL_WANT_WRITE)
        return STREAM_TLS_NOTHING;
    if (result == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY
        || result == MBEDTLS_ERR_SSL_CONN_EOF)
        return STREAM_TLS_CLOSED;
    explain(tls, result, error);
    return STREAM_TLS_FAILED;
}

bool
stream_tls_partial(const struct stream_tls *tls)
{
    return tls->partial;
}

bool
stream_tls_shaken(const struct stream_tls *tls)
{
    return tls->shaken;
}

const char *
stream_tls_subject(const struct stream_tls *tls)
{
    return tls->verdict.subject;
}

/* ------------------------------------------------------------ sending */

/* With the mutex: one record, or nothing: 0. */
static size_t
write_some(struct stream_tls *tls, const void *from, size_t length)
{
    if (!tls->shaken || tls->failed != 0
        || OUT_SIZE - tls->out_end < RECORD_MOST)
        return 0;
    int result = mbedtls_ssl_write(&tls->ssl, from, length);
    if (result <= 0)
        tls->failed = result == 0 ? MBEDTLS_ERR_SSL_INTERNAL_ERROR : result;
    return result > 0 ? (size_t)result : 0;
}

bool
stream_tls_seal(struct stream_tls *tls, const nng_iov *iov, unsigned count,
                size_t *sealed)
{
    size_t done = 0, some = 1;
    unsigned at = 0;
    bool failed = false;

    *sealed = 0;
    while (at < count && some > 0) {
        size_t rest = iov[at].iov_len - done;
        if (rest == 0) {
            at++;
            done = 0;
            continue;
        }
        pthread_mutex_lock(&tls->mutex);
        some = write_some(tls, (const uint8_t *)iov[at].iov_buf + done, rest);
        failed = tls->shaken && tls->failed != 0;
        pthread_mutex_unlock(&tls->mutex);
        done += some;
        *sealed += some;
    }
    return !failed || *sealed > 0;
}

bool
stream_tls_outgoing(struct stream_tls *tls, nng_iov *iov)
{
    pthread_mutex_lock(&tls->mutex);
    iov->iov_buf = tls->out + tls->out_begin;
    iov->iov_len = tls->out_end - tls->out_begin;
    pthread_mutex_unlock(&tls->mutex);
    return iov->iov_len > 0;
}

void
stream_tls_gone(struct stream_tls *tls, size_t count)
{
    pthread_mutex_lock(&tls->mutex);
    tls->out_begin += count;
    if (tls->out_begin == tls->out_end)
        tls->out_begin = tls->out_end = 0;
    pthread_mutex_unlock(&tls->mutex);
}
