/* SPDX-License-Identifier: ISC */
/*
 * What the codec's files share: protobuf-c under a bound.
 *
 * A decode or an encode runs on an arena: some octets on the stack, which
 * suffice for everything that carries data, and at most CODEC_ARENA_MAX from
 * the heap when they do not.  A header of 64 KiB can therefore not ask for
 * more, whatever it says.  Nothing is freed before the end.
 */
#ifndef FARBLK_PROTO_CODEC_PB_H
#define FARBLK_PROTO_CODEC_PB_H

#include "proto/codec.h"
#include "proto/farblk.pb-c.h"

#define CODEC_ARENA_SMALL 4096u
#define CODEC_ARENA_MAX (256u * 1024)

struct codec_arena {
    ProtobufCAllocator allocator;
    uint8_t *at;
    size_t left;
    void *spill; /* from the heap, or NULL */
    bool full; /* something did not fit */
    _Alignas(16) uint8_t small[CODEC_ARENA_SMALL];
};

void codec_arena_begin(struct codec_arena *arena);
void codec_arena_end(struct codec_arena *arena);
/* Aligned for anything; NULL when CODEC_ARENA_MAX or memory is used up. */
void *codec_arena_alloc(struct codec_arena *arena, size_t size);

/* The length of a string or bytes field that was unpacked on an arena, also
 * when there are zeroes in it (protobuf-c itself forgets). */
size_t codec_string_length(const char *string);

/* Unpack a message; NULL with PROTOCOL in *error.  `what` is for the text. */
void *codec_unpack(struct codec_arena *arena,
                   const ProtobufCMessageDescriptor *descriptor,
                   const uint8_t *bytes, size_t length, const char *what,
                   struct error *error);

/* Pack `message` on the arena.  False when it does not fit. */
bool codec_pack(struct codec_arena *arena, const ProtobufCMessage *message,
                ProtobufCBinaryData *packed);

/* codec.h's functions by protobuf-c alone.  They can do everything; codec.h's
 * try codec_fast.h first, and keep these large frames out of theirs. */
#define CODEC_GENERAL __attribute__((noinline))

CODEC_GENERAL int codec_general_decode_request(const uint8_t *bytes,
                                               size_t length,
                                               struct codec_request *request,
                                               bool *args_bad,
                                               struct error *error);
CODEC_GENERAL int codec_general_decode_reply(const uint8_t *bytes,
                                             size_t length, uint32_t method,
                                             struct codec_reply *reply,
                                             struct error *error);
CODEC_GENERAL size_t codec_general_encode_request(
    const struct codec_request *request, uint8_t *to, size_t size);
CODEC_GENERAL size_t codec_general_encode_reply(const struct codec_reply *reply,
                                                uint32_t method, uint8_t *to,
                                                size_t size);

/* Descriptor of the method's request or reply; NULL for an unknown method. */
const ProtobufCMethodDescriptor *codec_method(uint32_t method);

/* Copy a name: exactly, at most size - 1 octets, no zero within.  Else
 * PROTOCOL. */
int codec_take_name(char *to, size_t size, const char *from, const char *what,
                    struct error *error);
/* Copy `size` octets of a bytes field that must have just that length. */
int codec_take_bytes(uint8_t *to, size_t size, const ProtobufCBinaryData *from,
                     const char *what, struct error *error);

void codec_take_features(struct codec_features *to, size_t count,
                         char *const *names);
/* An array of pointers to the names, for a message to be packed. */
size_t codec_give_features(const struct codec_features *from,
                           char *names[CODEC_FEATURES_MAX]);

#endif
