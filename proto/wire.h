/* SPDX-License-Identifier: ISC */
/*
 * Numbers of the wire that wire.md fixes.
 */
#ifndef FARBLK_PROTO_WIRE_H
#define FARBLK_PROTO_WIRE_H

#define WIRE_VERSION 1

/* SP protocol numbers of REQ and REP, in a stream's greeting. */
#define WIRE_SP_REQ 0x0030
#define WIRE_SP_REP 0x0031

/* Hop words before the request id, at most; the stack is 4 octets each. */
#define WIRE_HOPS_MAX 8
#define WIRE_STACK_MAX (4 * (WIRE_HOPS_MAX + 1))

/* Largest header (protobuf) of a request or reply, octets. */
#define WIRE_HEADER_MAX 65536u
/* The smallest max_header that a server may announce. */
#define WIRE_HEADER_LEAST 1024u

/* The largest payload that any configuration may announce, octets. */
#define WIRE_PAYLOAD_CEILING (64u << 20)

/* Features by name, in Hello. */
#define WIRE_FEATURE_CRC32C "crc32c"
#define WIRE_FEATURE_FENCE "fence"

#define WIRE_SECRET_SIZE 16
#define WIRE_NONCE_SIZE 16
#define WIRE_TOKEN_MAX 256
#define WIRE_INSTANCE_SIZE 16
#define WIRE_TOKEN_SIZE 16

/* Requests of one session that may be unanswered: a number this far above
 * `lowest` is refused. */
#define WIRE_WINDOW 65536u

#endif
