/* SPDX-License-Identifier: ISC */
/*
 * Plain headers by hand; see codec_fast.h.
 *
 * The fields of a message are asked for one after the other.  One that does
 * not come next is absent, and zero; what is left over at the end was not
 * plain.
 */
#include "proto/codec_fast.h"

#include <endian.h>
#include <string.h>

/* What any of the integers may take: its tag, and 10 octets. */
#define INTEGER_MAX 11u
#define FIXED64_SIZE 9u
#define FIXED32_SIZE 5u
#define ARGS_MAX (2 * INTEGER_MAX + (2 + 2 * INTEGER_MAX) + 2 * 2u)
#define REQUEST_MAX                                                            \
    (5 * INTEGER_MAX + FIXED64_SIZE + 2 + ARGS_MAX + FIXED32_SIZE)
#define REPLY_MAX (3 * INTEGER_MAX + FIXED32_SIZE)

/* Lengths take one octet. */
#define LENGTH_MAX 127u
_Static_assert(ARGS_MAX <= LENGTH_MAX, "arguments with a length of one octet");

/* ------------------------------------------------------------ reading */

/* So that a reader's members stay in registers. */
#define ALWAYS_INLINE inline __attribute__((always_inline))

struct reader {
    const uint8_t *at, *end;
};

static ALWAYS_INLINE bool
next_is(const struct reader *reader, unsigned tag)
{
    return reader->at != reader->end && *reader->at == tag;
}

/* An integer of two octets or more, and of at most 64 bits.  Returns where it
 * ends, or NULL. */
static __attribute__((noinline)) const uint8_t *
read_long(const uint8_t *at, const uint8_t *end, uint64_t *value)
{
    uint64_t sum = *at++ & 0x7f;

    for (unsigned shift = 7; at != end; shift += 7) {
        uint64_t octet = *at++;
        sum |= (octet & 0x7f) << shift;
        if (octet < 0x80) {
            *value = sum;
            return shift < 63 || octet <= 1 ? at : NULL;
        }
        if (shift == 63)
            return NULL;
    }
    return NULL;
}

static ALWAYS_INLINE bool
read_varint(struct reader *reader, uint64_t *value)
{
    if (reader->at == reader->end)
        return false;
    if (*reader->at < 0x80) {
        *value = *reader->at++;
        return true;
    }
    reader->at = read_long(reader->at, reader->end, value);
    return reader->at != NULL;
}

static ALWAYS_INLINE bool
read_uint64(struct reader *reader, unsigned tag, uint64_t *value)
{
    *value = 0;
    if (!next_is(reader, tag))
        return true;
    reader->at++;
    return read_varint(reader, value);
}

static ALWAYS_INLINE bool
read_uint32(struct reader *reader, unsigned tag, uint32_t *value)
{
    uint64_t wide;
    if (!read_uint64(reader, tag, &wide) || wide > UINT32_MAX)
        return false;
    *value = (uint32_t)wide;
    return true;
}

static ALWAYS_INLINE bool
read_flag(struct reader *reader, unsigned tag, uint32_t flag, uint32_t *flags)
{
    uint64_t value;
    if (!read_uint64(reader, tag, &value) || value > 1)
        return false;
    if (value != 0)
        *flags |= flag;
    return true;
}

static ALWAYS_INLINE bool
read_fixed64(struct reader *reader, unsigned tag, uint64_t *value)
{
    *value = 0;
    if (!next_is(reader, tag))
        return true;
    if ((size_t)(reader->end - reader->at) < FIXED64_SIZE)
        return false;
    memcpy(value, reader->at + 1, sizeof *value);
    *value = le64toh(*value);
    reader->at += FIXED64_SIZE;
    return true;
}

static ALWAYS_INLINE bool
read_fixed32(struct reader *reader, unsigned tag, uint32_t *value)
{
    *value = 0;
    if (!next_is(reader, tag))
        return true;
    if ((size_t)(reader->end - reader->at) < FIXED32_SIZE)
        return false;
    memcpy(value, reader->at + 1, sizeof *value);
    *value = le32toh(*value);
    reader->at += FIXED32_SIZE;
    return true;
}

/* Bytes or a message inside: `part` reads it.  Its begin is NULL when it is
 * absent. */
static ALWAYS_INLINE bool
read_part(struct reader *reader, unsigned tag, struct reader *part)
{
    part->at = part->end = NULL;
    if (!next_is(reader, tag))
        return true;
    if (reader->end - reader->at < 2)
        return false;
    size_t length = reader->at[1];
    reader->at += 2;
    if (length > LENGTH_MAX || length > (size_t)(reader->end - reader->at))
        return false;
    part->at = reader->at;
    part->end = reader->at += length;
    return true;
}

/* Of a piece; a whole range without the fields of one is empty. */
static bool
read_whole(struct reader whole, struct codec_request *request)
{
    return read_uint64(&whole, CODEC_RANGE_SECTOR,
                       &request->args.range.whole_sector)
           && read_uint64(&whole, CODEC_RANGE_COUNT,
                          &request->args.range.whole_count)
           && whole.at == whole.end;
}

static inline bool
read_args(struct reader args, struct codec_request *request)
{
    struct reader whole;
    uint32_t flags = 0;

    if (!read_uint64(&args, CODEC_ARGS_SECTOR, &request->args.range.sector)
        || !read_uint64(&args, CODEC_ARGS_COUNT, &request->args.range.count)
        || !read_part(&args, CODEC_ARGS_WHOLE, &whole))
        return false;
    if (request->method != WIRE_READ
        && !read_flag(&args, CODEC_ARGS_FUA, FARBLK_FUA, &flags))
        return false;
    if (request->method == WIRE_WRITE_ZEROES
        && !read_flag(&args, CODEC_ARGS_NO_UNMAP, FARBLK_NO_UNMAP, &flags))
        return false;
    request->args.range.flags = flags;
    request->args.range.has_whole = whole.at != NULL;
    request->args.range.whole_sector = request->args.range.whole_count = 0;
    return args.at == args.end
           && (whole.at == NULL || read_whole(whole, request));
}

bool
codec_fast_decode_request(const uint8_t *bytes, size_t length,
                          struct codec_request *request)
{
    struct reader reader = {bytes, bytes + length}, args;

    request->has_secret = false;
    if (!read_uint32(&reader, CODEC_REQUEST_METHOD, &request->method)
        || !read_fixed64(&reader, CODEC_REQUEST_SESSION, &request->session)
        || !read_uint64(&reader, CODEC_REQUEST_NUMBER, &request->number)
        || !read_uint64(&reader, CODEC_REQUEST_LOWEST, &request->lowest)
        || !read_uint64(&reader, CODEC_REQUEST_HANDLE, &request->handle)
        || !read_uint32(&reader, CODEC_REQUEST_DEADLINE_MS,
                        &request->deadline_ms)
        || !read_part(&reader, CODEC_REQUEST_ARGS, &args)
        || !read_fixed32(&reader, CODEC_REQUEST_CHECKSUM, &request->checksum)
        || reader.at != reader.end)
        return false;
    switch (request->method) {
    case WIRE_READ:
    case WIRE_WRITE:
    case WIRE_DISCARD:
    case WIRE_WRITE_ZEROES:
        return read_args(args, request);
    case WIRE_FLUSH:
        return args.at == args.end;
    default:
        return false;
    }
}

bool
codec_fast_decode_reply(const uint8_t *bytes, size_t length,
                        struct codec_reply *reply, ProtobufCBinaryData *result)
{
    struct reader reader = {bytes, bytes + length}, part;

    reply->status = 0;
    reply->effect = 0;
    reply->text[0] = '\0';
    if (!read_uint64(&reader, CODEC_REPLY_NUMBER, &reply->number)
        || !read_uint64(&reader, CODEC_REPLY_GENERATION, &reply->generation)
        || !read_uint64(&reader, CODEC_REPLY_SIZE_SECTORS, &reply->size_sectors)
        || !read_part(&reader, CODEC_REPLY_RESULT, &part)
        || !read_fixed32(&reader, CODEC_REPLY_CHECKSUM, &reply->checksum)
        || reader.at != reader.end)
        return false;
    result->data = (uint8_t *)part.at;
    result->len = (size_t)(part.end - part.at);
    return true;
}

bool
codec_fast_no_result(uint32_t method)
{
    const ProtobufCMethodDescriptor *found = codec_method(method);
    return found != NULL && found->output->n_fields == 0;
}

/* ------------------------------------------------------------ writing */

/* These write where there is room, and return where it goes on. */
static inline uint8_t *
write_uint64(uint8_t *at, unsigned tag, uint64_t value)
{
    if (value == 0)
        return at;
    *at++ = (uint8_t)tag;
    for (; value >= 0x80; value >>= 7)
        *at++ = (uint8_t)(value | 0x80);
    *at++ = (uint8_t)value;
    return at;
}

static inline uint8_t *
write_fixed64(uint8_t *at, unsigned tag, uint64_t value)
{
    if (value == 0)
        return at;
    *at++ = (uint8_t)tag;
    value = htole64(value);
    memcpy(at, &value, sizeof value);
    return at + sizeof value;
}

static inline uint8_t *
write_fixed32(uint8_t *at, unsigned tag, uint32_t value)
{
    if (value == 0)
        return at;
    *at++ = (uint8_t)tag;
    value = htole32(value);
    memcpy(at, &value, sizeof value);
    return at + sizeof value;
}

/* A part begins at what this returns; write_part() then puts tag and length
 * before it. */
static inline uint8_t *
part_begin(uint8_t *at)
{
    return at + 2;
}

static inline void
write_part(uint8_t *begin, const uint8_t *end, unsigned tag)
{
    begin[-2] = (uint8_t)tag;
    begin[-1] = (uint8_t)(end - begin);
}

static inline uint8_t *
write_args(uint8_t *at, const struct codec_request *request)
{
    uint32_t flags = request->args.range.flags;

    at = write_uint64(at, CODEC_ARGS_SECTOR, request->args.range.sector);
    at = write_uint64(at, CODEC_ARGS_COUNT, request->args.range.count);
    if (request->args.range.has_whole) {
        uint8_t *whole = at = part_begin(at);
        at = write_uint64(at, CODEC_RANGE_SECTOR,
                          request->args.range.whole_sector);
        at = write_uint64(at, CODEC_RANGE_COUNT,
                          request->args.range.whole_count);
        write_part(whole, at, CODEC_ARGS_WHOLE);
    }
    if (request->method != WIRE_READ)
        at = write_uint64(at, CODEC_ARGS_FUA, (flags & FARBLK_FUA) != 0);
    if (request->method == WIRE_WRITE_ZEROES)
        at = write_uint64(at, CODEC_ARGS_NO_UNMAP,
                          (flags & FARBLK_NO_UNMAP) != 0);
    return at;
}

size_t
codec_fast_encode_request(const struct codec_request *request, uint8_t *to,
                          size_t size)
{
    uint8_t *at = to, *args;

    if (size < REQUEST_MAX || request->has_secret)
        return 0;
    at = write_uint64(at, CODEC_REQUEST_METHOD, request->method);
    at = write_fixed64(at, CODEC_REQUEST_SESSION, request->session);
    at = write_uint64(at, CODEC_REQUEST_NUMBER, request->number);
    at = write_uint64(at, CODEC_REQUEST_LOWEST, request->lowest);
    at = write_uint64(at, CODEC_REQUEST_HANDLE, request->handle);
    at = write_uint64(at, CODEC_REQUEST_DEADLINE_MS, request->deadline_ms);
    switch (request->method) {
    case WIRE_READ:
    case WIRE_WRITE:
    case WIRE_DISCARD:
    case WIRE_WRITE_ZEROES:
        args = part_begin(at);
        at = write_args(args, request);
        if (at == args) /* zeroes: they are left out */
            at = args - 2;
        else
            write_part(args, at, CODEC_REQUEST_ARGS);
        break;
    case WIRE_FLUSH:
        break;
    default:
        return 0;
    }
    at = write_fixed32(at, CODEC_REQUEST_CHECKSUM, request->checksum);
    return (size_t)(at - to);
}

size_t
codec_fast_encode_reply(const struct codec_reply *reply, uint32_t method,
                        uint8_t *to, size_t size)
{
    uint8_t *at = to;

    if (size < REPLY_MAX || reply->status != 0 || !codec_fast_no_result(method))
        return 0;
    at = write_uint64(at, CODEC_REPLY_NUMBER, reply->number);
    at = write_uint64(at, CODEC_REPLY_GENERATION, reply->generation);
    at = write_uint64(at, CODEC_REPLY_SIZE_SECTORS, reply->size_sectors);
    at = write_fixed32(at, CODEC_REPLY_CHECKSUM, reply->checksum);
    return (size_t)(at - to);
}
