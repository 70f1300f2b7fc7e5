/* SPDX-License-Identifier: ISC */
/*
 * What TLS needs to know before there is a connection: certificates, keys, whom
 * to believe.  Read from files once, checked, and shared by all connections of
 * a listener or a client.
 *
 * TLS 1.2 by mbed TLS, with ephemeral keys and authenticated encryption only.
 * A client always verifies: the server's certificate must be signed by the CA
 * that it was given, and be for the host that it connects to.  There is no mode
 * without.
 */
#ifndef FARBLK_PROTO_LINK_TLS_H
#define FARBLK_PROTO_LINK_TLS_H

#include "core/error.h"

#include <stdbool.h>

struct link_tls;

struct link_tls_options {
    bool server;
    /* Paths of PEM files; NULL: none. */
    const char *ca; /* whom to believe: a client's must be there */
    const char *cert, *key; /* one's own, both or none; a server's must be
                               there */
    /* Client: the name, or IP address, that the certificate must be for. */
    const char *host;
    /* Server: who shows no certificate of the CA is refused. */
    bool verify_clients;
};

/* References: begins with one.  Errors: INVALID for what can not be right,
 * DENIED for a key that others can read, those of opening files. */
int link_tls_create(const struct link_tls_options *options,
                    struct link_tls **tls, struct error *error);
struct link_tls *link_tls_get(struct link_tls *tls);
void link_tls_put(struct link_tls *tls); /* NULL is fine */

#endif
