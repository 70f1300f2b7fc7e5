/* SPDX-License-Identifier: ISC */
/*
 * TLS for those who speak plain octets: a thread for each connection, which
 * encrypts what comes from one side and decrypts what comes from the other.  So
 * peers that break off at an octet of a message do the same within TLS.
 *
 * By mbed TLS alone, and not by proto/: mistakes there are not made twice.  The
 * pump believes every certificate.
 */
#ifndef FARBLK_TESTS_TLS_PUMP_H
#define FARBLK_TESTS_TLS_PUMP_H

#include <stddef.h>

/* Connect to a tls+tcp:// URL of this host, as a client.  The plain side, or -1:
 * it refuses the connection.  When it is closed the connection ends, in turn
 * with a word of farewell, without, and by a reset. */
int tls_pump_dial(const char *url);

/* Listen on a port of TCP, as a server with this certificate and key; what comes
 * goes on to the socket at `path`. */
struct tls_pump_front;
struct tls_pump_front *tls_pump_front(const char *path, const char *cert,
                                      const char *key, unsigned *port);
/* Accept no more. */
void tls_pump_front_end(struct tls_pump_front *front);

#endif
