/* SPDX-License-Identifier: ISC */
/*
 * The insides of link_tls.h, for link_tls.c (files), link_tls_verify.c (whether
 * and why a certificate is refused) and link_stream_tls.c (connections).
 */
#ifndef FARBLK_PROTO_LINK_TLS_KIND_H
#define FARBLK_PROTO_LINK_TLS_KIND_H

#include "proto/link_tls.h"

#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

/* Read only once it is made; but not for mbed TLS, which keeps tables for
 * elliptic curves in the certificates and keys that it computes with. */
struct link_tls {
    atomic_uint refs;
    pthread_mutex_t shaking; /* one step of a handshake at a time */
    bool server, verify_clients;
    mbedtls_ssl_config config;
    mbedtls_x509_crt ca, cert;
    mbedtls_pk_context key;
    char *ca_path;
    char *host; /* client's */
    uint8_t address[16]; /* of it, if it is an IP address: */
    size_t address_length; /* 4, 16, or 0 */
};

/* What one connection found out about its peer's certificate. */
struct link_tls_verdict {
    const struct link_tls *tls;
    char subject[128]; /* of the peer's own certificate; "" before */
    char text[384]; /* why it is refused; "" when it is not */
};

/* For mbedtls_ssl_set_verify(); `verdict` is a struct link_tls_verdict. */
int link_tls_verify(void *verdict, mbedtls_x509_crt *cert, int depth,
                    uint32_t *flags);

/* "2026-01-02 03:04:05 UTC" */
struct link_tls_date {
    char text[40];
};
struct link_tls_date link_tls_date(const mbedtls_x509_time *time);

/* What an error of mbed TLS says, at most `size` octets. */
void link_tls_reason(int result, char *to, size_t size);

#endif
