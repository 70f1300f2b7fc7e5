/* SPDX-License-Identifier: ISC */
/*
 * Headers of the requests that carry data, and of replies without a failure,
 * without protobuf-c: a read's header costs a tenth of what it costs there.
 *
 * Only the plain shape is known here, which is what every encoder writes:
 * fields in the order of their numbers, each at most once, none that is
 * unknown.  Whatever else there may be (another order, a repeated field, a
 * secret, a status, a long or odd integer) is not judged: the functions say
 * that it is not theirs, and protobuf-c decides.  So what a message means, its
 * limits and its errors stay in one place.
 */
#ifndef FARBLK_PROTO_CODEC_FAST_H
#define FARBLK_PROTO_CODEC_FAST_H

#include "proto/codec_pb.h"

/* A field's number and wire type, as they stand before its value.  Tests
 * compare them with the generated descriptors. */
#define CODEC_TAG_VARINT(number) ((number) << 3)
#define CODEC_TAG_FIXED64(number) ((number) << 3 | 1)
#define CODEC_TAG_BYTES(number) ((number) << 3 | 2)
#define CODEC_TAG_FIXED32(number) ((number) << 3 | 5)

enum codec_request_tag { /* RequestHeader, but for its secret */
                         CODEC_REQUEST_METHOD = CODEC_TAG_VARINT(1),
                         CODEC_REQUEST_SESSION = CODEC_TAG_FIXED64(2),
                         CODEC_REQUEST_NUMBER = CODEC_TAG_VARINT(3),
                         CODEC_REQUEST_LOWEST = CODEC_TAG_VARINT(4),
                         CODEC_REQUEST_HANDLE = CODEC_TAG_VARINT(5),
                         CODEC_REQUEST_DEADLINE_MS = CODEC_TAG_VARINT(6),
                         CODEC_REQUEST_ARGS = CODEC_TAG_BYTES(8),
                         CODEC_REQUEST_CHECKSUM = CODEC_TAG_FIXED32(9),
};

enum codec_args_tag { /* Read-, Write-, Discard-, WriteZeroesRequest */
                      CODEC_ARGS_SECTOR = CODEC_TAG_VARINT(1),
                      CODEC_ARGS_COUNT = CODEC_TAG_VARINT(2),
                      CODEC_ARGS_WHOLE = CODEC_TAG_BYTES(3),
                      CODEC_ARGS_FUA = CODEC_TAG_VARINT(4), /* not of a read */
                      CODEC_ARGS_NO_UNMAP =
                          CODEC_TAG_VARINT(5), /* of WriteZeroes alone */
};

enum codec_range_tag { /* Range */
                       CODEC_RANGE_SECTOR = CODEC_TAG_VARINT(1),
                       CODEC_RANGE_COUNT = CODEC_TAG_VARINT(2),
};

enum codec_reply_tag { /* ReplyHeader, but for status, effect and text */
                       CODEC_REPLY_NUMBER = CODEC_TAG_VARINT(4),
                       CODEC_REPLY_GENERATION = CODEC_TAG_VARINT(5),
                       CODEC_REPLY_SIZE_SECTORS = CODEC_TAG_VARINT(6),
                       CODEC_REPLY_RESULT = CODEC_TAG_BYTES(7),
                       CODEC_REPLY_CHECKSUM = CODEC_TAG_FIXED32(8),
};

/* Decode a Read, Write, Flush, Discard or WriteZeroes.  Its values are as they
 * came: the caller checks them.  Sets the header's fields and args.range.
 * False: not a plain one; some fields may have been set. */
bool codec_fast_decode_request(const uint8_t *bytes, size_t length,
                               struct codec_request *request);

/* Decode the header of a reply with status 0; *result is its packed result,
 * inside `bytes`.  Leaves reply->result alone.  False: not a plain one; some
 * fields may have been set. */
bool codec_fast_decode_reply(const uint8_t *bytes, size_t length,
                             struct codec_reply *reply,
                             ProtobufCBinaryData *result);

/* Whether the method's reply message has no fields, so that nothing is the
 * whole of it. */
bool codec_fast_no_result(uint32_t method);

/* Encode, octet for octet as protobuf-c does.  0: not one of these requests;
 * not a reply without failure and result; or `size` is not enough for the
 * largest, though it may be for this one. */
size_t codec_fast_encode_request(const struct codec_request *request,
                                 uint8_t *to, size_t size);
size_t codec_fast_encode_reply(const struct codec_reply *reply, uint32_t method,
                               uint8_t *to, size_t size);

#endif
