/* SPDX-License-Identifier: ISC */
/*
 * SP framing as bytes; see sp.h.
 */
#include "proto/sp.h"

#include <string.h>

#define ID_BIT 0x80000000u
/* The type octet of a message on ipc; there are no others. */
#define TYPE_MESSAGE 0x01

static uint64_t
get64(const uint8_t *from)
{
    return (uint64_t)sp_get32(from) << 32 | sp_get32(from + 4);
}

void
sp_put_greeting(uint8_t to[SP_GREETING], uint16_t protocol)
{
    memcpy(to, "\0SP\0\0\0\0", SP_GREETING);
    to[4] = (uint8_t)(protocol >> 8);
    to[5] = (uint8_t)protocol;
}

int
sp_check_greeting(const uint8_t from[SP_GREETING], uint16_t wanted,
                  struct error *error)
{
    uint16_t protocol = (uint16_t)(from[4] << 8 | from[5]);

    if (memcmp(from, "\0SP\0", 4) != 0 || from[6] != 0 || from[7] != 0)
        return error_set(
            error, FARBLK_PROTOCOL,
            "greeting %02x %02x %02x %02x %02x %02x %02x %02x is "
            "not that of a Scalability Protocol%s",
            from[0], from[1], from[2], from[3], from[4], from[5], from[6],
            from[7], from[0] == 22 && from[1] == 3 ? " (a TLS client?)" : "");
    if (protocol != wanted)
        return error_set(error, FARBLK_PROTOCOL,
                         "the peer speaks SP protocol 0x%04x, wanted is 0x%04x "
                         "(%s)",
                         protocol, wanted,
                         wanted == WIRE_SP_REQ ? "REQ" : "REP");
    return 0;
}

size_t
sp_put_prefix(uint8_t *to, bool ipc, uint64_t body_length)
{
    size_t at = 0;

    if (ipc)
        to[at++] = TYPE_MESSAGE;
    sp_put32(to + at, (uint32_t)(body_length >> 32));
    sp_put32(to + at + 4, (uint32_t)body_length);
    return at + 8;
}

static int
check_length(uint64_t body, uint32_t max_payload, struct error *error)
{
    uint64_t most =
        (uint64_t)WIRE_STACK_MAX + 4 + WIRE_HEADER_MAX + max_payload;

    if (body < 8)
        return error_set(error, FARBLK_PROTOCOL,
                         "frame of %llu octets, the least is 8",
                         (unsigned long long)body);
    if (body > most)
        return error_set(error, FARBLK_PROTOCOL,
                         "frame of %llu octets, the limit is %llu",
                         (unsigned long long)body, (unsigned long long)most);
    return 0;
}

/* Header's and payload's lengths; `rest` is what the body has after the
 * stack. */
static int
check_header(uint32_t header_length, uint64_t rest, uint32_t max_payload,
             struct sp_head *head, struct error *error)
{
    if (rest < 4 || header_length > rest - 4)
        return error_set(error, FARBLK_PROTOCOL,
                         "header of %u octets in a frame with %llu left",
                         header_length,
                         (unsigned long long)(rest < 4 ? 0 : rest - 4));
    if (header_length > WIRE_HEADER_MAX)
        return error_set(error, FARBLK_PROTOCOL,
                         "header of %u octets, the limit is %u", header_length,
                         WIRE_HEADER_MAX);
    head->header_length = header_length;
    head->payload_length = rest - 4 - header_length;
    if (head->payload_length > max_payload)
        return error_set(error, FARBLK_PROTOCOL,
                         "payload of %llu octets, the limit is %u",
                         (unsigned long long)head->payload_length, max_payload);
    return 0;
}

/* The stack at `bytes`, of which `length` octets are there.  Returns its
 * length, 0 when it goes on, or PROTOCOL. */
static int
parse_stack(const uint8_t *bytes, size_t length, struct sp_head *head,
            struct error *error)
{
    size_t at;

    for (at = 0; at < WIRE_STACK_MAX && at + 4 <= length; at += 4) {
        uint32_t word = sp_get32(bytes + at);
        if ((word & ID_BIT) == 0)
            continue;
        head->stack = bytes;
        head->stack_length = at + 4;
        head->id = word;
        return (int)(at + 4);
    }
    if (at == WIRE_STACK_MAX)
        return error_set(error, FARBLK_PROTOCOL,
                         "no request id after %u hops, the limit",
                         WIRE_HOPS_MAX);
    return 0;
}

int
sp_parse(const uint8_t *bytes, size_t length, bool ipc, uint32_t max_payload,
         struct sp_head *head, struct error *error)
{
    size_t at = ipc ? 9 : 8;

    if (ipc && length > 0 && bytes[0] != TYPE_MESSAGE)
        return error_set(error, FARBLK_PROTOCOL,
                         "frame of type 0x%02x, only 0x%02x is known", bytes[0],
                         TYPE_MESSAGE);
    if (length < at)
        return 0;
    uint64_t body = get64(bytes + at - 8);
    if (check_length(body, max_payload, error) != 0)
        return FARBLK_PROTOCOL;

    /* Not beyond this frame: what follows is another one's. */
    size_t there = length - at < body ? length - at : (size_t)body;
    int stack = parse_stack(bytes + at, there, head, error);
    if (stack < 0)
        return stack;
    if (stack == 0) {
        if (there < body)
            return 0;
        return error_set(error, FARBLK_PROTOCOL,
                         "frame of %llu octets without a request id",
                         (unsigned long long)body);
    }
    uint64_t rest = body - (size_t)stack;
    at += (size_t)stack;
    if (rest >= 4 && length < at + 4)
        return 0;
    if (check_header(rest >= 4 ? sp_get32(bytes + at) : 0, rest, max_payload,
                     head, error)
        != 0)
        return FARBLK_PROTOCOL;
    at += 4;
    head->header = bytes + at;
    at += head->header_length;
    return length < at ? 0 : (int)at;
}

int
sp_parse_body(const uint8_t *bytes, size_t length, uint32_t max_payload,
              struct sp_head *head, struct error *error)
{
    if (check_header(length >= 4 ? sp_get32(bytes) : 0, length, max_payload,
                     head, error)
        != 0)
        return FARBLK_PROTOCOL;
    head->header = bytes + 4;
    return (int)(4 + head->header_length);
}

int
sp_parse_stack(const uint8_t *bytes, size_t length, struct sp_head *head,
               struct error *error)
{
    int stack = parse_stack(bytes, length, head, error);

    if (stack < 0)
        return stack;
    if (stack == 0 || (size_t)stack != length)
        return error_set(error, FARBLK_PROTOCOL,
                         "a stack of %zu octets that does not end with a "
                         "request id",
                         length);
    return 0;
}
