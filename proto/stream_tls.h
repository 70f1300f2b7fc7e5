/* SPDX-License-Identifier: ISC */
/*
 * TLS on one connection, as a filter between the octets of an nng stream and
 * those of a link.  It does no input or output: the link brings what arrived
 * and takes what is to be sent, so that waiting, giving up and attending are
 * the same with TLS and without.
 *
 * (nng's own TLS would carry the same octets.  But its 1.5.2 takes the whole
 * connection down when a receive is cancelled, sends one record at a time by
 * way of another thread, and says "cryptographic error" whatever is wrong with
 * a certificate.)
 *
 * Two owners call it, each one thread at a time: the one who receives and the
 * one who sends, as told at each function.
 */
#ifndef FARBLK_PROTO_STREAM_TLS_H
#define FARBLK_PROTO_STREAM_TLS_H

#include "proto/link_tls.h"

#include <nng/nng.h>

struct stream_tls;

/* NULL without memory.  Keeps a reference of the configuration. */
struct stream_tls *stream_tls_create(struct link_tls *tls);
void stream_tls_free(struct stream_tls *tls); /* NULL is fine */

/* The receiver: where octets from the network go; how many have come. */
void stream_tls_room(struct stream_tls *tls, nng_iov *iov);
void stream_tls_came(struct stream_tls *tls, size_t count);

enum stream_tls_opened {
    STREAM_TLS_SOME, /* *octets of them */
    STREAM_TLS_NOTHING, /* more must come */
    STREAM_TLS_CLOSED, /* the peer has said that this is all */
    STREAM_TLS_FAILED, /* `error` says why; a last alert may want to go out */
};
/*
 * The receiver: go on with what has come, the handshake first; `iov` is where
 * octets of the link go, in order.  *stirred: there is something new to send.
 */
enum stream_tls_opened stream_tls_open(struct stream_tls *tls,
                                       const nng_iov *iov, unsigned count,
                                       size_t *octets, bool *stirred,
                                       struct error *error);
/* The receiver: whether a part of a record is here, and the rest is not. */
bool stream_tls_partial(const struct stream_tls *tls);
/* The receiver: whether the handshake is over; whom the peer's certificate is
 * for, once it was verified, or "". */
bool stream_tls_shaken(const struct stream_tls *tls);
const char *stream_tls_subject(const struct stream_tls *tls);

/* The sender: encrypt of these octets as many as there is room for, none before
 * the end of the handshake.  False: it can not any more. */
bool stream_tls_seal(struct stream_tls *tls, const nng_iov *iov, unsigned count,
                     size_t *sealed);
/* The sender: what is to be sent; false: nothing.  It stays where it is until
 * stream_tls_gone() has counted it. */
bool stream_tls_outgoing(struct stream_tls *tls, nng_iov *iov);
void stream_tls_gone(struct stream_tls *tls, size_t count);

#endif
