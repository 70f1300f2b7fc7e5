/* SPDX-License-Identifier: ISC */
/*
 * SP framing as bytes: what nng's REQ and REP sockets send over a stream.
 *
 * Pure functions on memory, without any I/O.  A stream begins with a greeting
 * in each direction.  Then come frames: on ipc an octet 0x01, a 64-bit length,
 * a body.  A body is a stack (hop words without the top bit, then the request
 * id with it), the length of the header, the header, and the payload.
 */
#ifndef FARBLK_PROTO_SP_H
#define FARBLK_PROTO_SP_H

#include "core/error.h"
#include "proto/wire.h"

#define SP_GREETING 8u
#define SP_PREFIX_MAX 9u
/* The part of a frame before its header, at most. */
#define SP_BEFORE_HEADER (SP_PREFIX_MAX + WIRE_STACK_MAX + 4u)
#define SP_HEAD_MAX (SP_BEFORE_HEADER + WIRE_HEADER_MAX)

/* Where the parts of a message are; the pointers are into what was parsed. */
struct sp_head {
    const uint8_t *stack;
    size_t stack_length;
    uint32_t id;
    const uint8_t *header;
    size_t header_length;
    uint64_t payload_length;
};

static inline void
sp_put32(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)(value >> 24);
    to[1] = (uint8_t)(value >> 16);
    to[2] = (uint8_t)(value >> 8);
    to[3] = (uint8_t)value;
}

static inline uint32_t
sp_get32(const uint8_t *from)
{
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16
           | (uint32_t)from[2] << 8 | from[3];
}

void sp_put_greeting(uint8_t to[SP_GREETING], uint16_t protocol);
/* 0, or PROTOCOL with a text: not SP, or not the protocol that is wanted. */
int sp_check_greeting(const uint8_t from[SP_GREETING], uint16_t wanted,
                      struct error *error);

/* Write what stands before a body of that length; returns 8 or 9. */
size_t sp_put_prefix(uint8_t *to, bool ipc, uint64_t body_length);

/*
 * Parse the beginning of a frame, of which `length` octets are there.  Returns
 * how many octets it has before its payload; 0 when more are needed to tell
 * (SP_HEAD_MAX always suffice); or PROTOCOL with a text.  Says what is wrong
 * with the first octet that is.
 */
int sp_parse(const uint8_t *bytes, size_t length, bool ipc,
             uint32_t max_payload, struct sp_head *head, struct error *error);

/* The same for a whole body whose stack was taken off. */
int sp_parse_body(const uint8_t *bytes, size_t length, uint32_t max_payload,
                  struct sp_head *head, struct error *error);

/* Check a stack that came by itself. */
int sp_parse_stack(const uint8_t *bytes, size_t length, struct sp_head *head,
                   struct error *error);

#endif
