/* SPDX-License-Identifier: ISC */
/*
 * The codec's common part: arenas for protobuf-c, methods, checked copies.
 * codec_request.c and codec_reply.c do the messages themselves.
 */
#include "proto/codec_pb.h"

#include <stdlib.h>
#include <string.h>

/* Before each piece of an arena: its size, so that a string's length is known
 * even if it has zeroes in it. */
#define PIECE_HEAD 16u

void *
codec_arena_alloc(struct codec_arena *arena, size_t size)
{
    if (size > CODEC_ARENA_MAX)
        goto full;
    size_t whole = PIECE_HEAD + ((size + 15u) & ~(size_t)15u);
    if (whole > arena->left) {
        if (arena->spill != NULL || whole > CODEC_ARENA_MAX)
            goto full;
        arena->spill = malloc(CODEC_ARENA_MAX);
        if (arena->spill == NULL)
            goto full;
        arena->at = arena->spill;
        arena->left = CODEC_ARENA_MAX;
    }
    uint8_t *piece = arena->at;
    arena->at += whole;
    arena->left -= whole;
    memcpy(piece, &size, sizeof size);
    return piece + PIECE_HEAD;
full:
    arena->full = true;
    return NULL;
}

static void *
arena_alloc(void *data, size_t size)
{
    return codec_arena_alloc(data, size);
}

static void
arena_free(void *data, void *pointer)
{
    (void)data;
    (void)pointer;
}

void
codec_arena_begin(struct codec_arena *arena)
{
    arena->allocator.alloc = arena_alloc;
    arena->allocator.free = arena_free;
    arena->allocator.allocator_data = arena;
    arena->at = arena->small;
    arena->left = sizeof arena->small;
    arena->spill = NULL;
    arena->full = false;
}

void
codec_arena_end(struct codec_arena *arena)
{
    free(arena->spill);
}

size_t
codec_string_length(const char *string)
{
    size_t size;
    if (string == NULL || string == protobuf_c_empty_string)
        return 0;
    memcpy(&size, string - PIECE_HEAD, sizeof size);
    return size - 1; /* protobuf-c adds a zero */
}

void *
codec_unpack(struct codec_arena *arena,
             const ProtobufCMessageDescriptor *descriptor, const uint8_t *bytes,
             size_t length, const char *what, struct error *error)
{
    void *message =
        protobuf_c_message_unpack(descriptor, &arena->allocator, length, bytes);
    if (message != NULL)
        return message;
    if (arena->full)
        error_set(error, FARBLK_PROTOCOL,
                  "%s of %zu octets needs more than %u octets to decode", what,
                  length, CODEC_ARENA_MAX);
    else
        error_set(error, FARBLK_PROTOCOL,
                  "%s of %zu octets is not a valid %s message", what, length,
                  descriptor->short_name);
    return NULL;
}

bool
codec_pack(struct codec_arena *arena, const ProtobufCMessage *message,
           ProtobufCBinaryData *packed)
{
    packed->len = protobuf_c_message_get_packed_size(message);
    packed->data = NULL;
    if (packed->len == 0)
        return true;
    packed->data = codec_arena_alloc(arena, packed->len);
    if (packed->data == NULL)
        return false;
    protobuf_c_message_pack(message, packed->data);
    return true;
}

const ProtobufCMethodDescriptor *
codec_method(uint32_t method)
{
    const ProtobufCServiceDescriptor *service =
        &farblk__v1__block_device__descriptor;
    if (method < 1 || method > service->n_methods)
        return NULL;
    return &service->methods[method - 1];
}

const char *
codec_method_name(uint32_t method)
{
    const ProtobufCMethodDescriptor *found = codec_method(method);
    return found == NULL ? "?" : found->name;
}

int
codec_take_name(char *to, size_t size, const char *from, const char *what,
                struct error *error)
{
    size_t length = codec_string_length(from);
    if (length >= size)
        return error_set(error, FARBLK_PROTOCOL,
                         "%s has %zu octets, the limit is %zu", what, length,
                         size - 1);
    if (memchr(from, 0, length) != NULL)
        return error_set(error, FARBLK_PROTOCOL, "%s has a zero octet in it",
                         what);
    memcpy(to, from, length);
    to[length] = 0;
    return 0;
}

int
codec_take_bytes(uint8_t *to, size_t size, const ProtobufCBinaryData *from,
                 const char *what, struct error *error)
{
    if (from->len != size)
        return error_set(error, FARBLK_PROTOCOL,
                         "%s has %zu octets, it must have %zu", what, from->len,
                         size);
    memcpy(to, from->data, size);
    return 0;
}

void
codec_take_features(struct codec_features *to, size_t count, char *const *names)
{
    to->count = 0;
    for (size_t i = 0; i < count && to->count < CODEC_FEATURES_MAX; i++) {
        size_t length = codec_string_length(names[i]);
        /* One that is longer than any we know is just one we do not know. */
        if (length == 0 || length >= CODEC_FEATURE_LENGTH
            || memchr(names[i], 0, length) != NULL)
            continue;
        memcpy(to->name[to->count], names[i], length);
        to->name[to->count++][length] = 0;
    }
}

bool
codec_has_feature(const struct codec_features *features, const char *name)
{
    for (uint32_t i = 0; i < features->count; i++)
        if (strcmp(features->name[i], name) == 0)
            return true;
    return false;
}

void
codec_add_feature(struct codec_features *features, const char *name)
{
    size_t length = strlen(name);

    if (features->count == CODEC_FEATURES_MAX || length >= CODEC_FEATURE_LENGTH)
        return;
    memcpy(features->name[features->count++], name, length + 1);
}

size_t
codec_give_features(const struct codec_features *from,
                    char *names[CODEC_FEATURES_MAX])
{
    size_t count =
        from->count < CODEC_FEATURES_MAX ? from->count : CODEC_FEATURES_MAX;
    for (size_t i = 0; i < count; i++)
        names[i] = (char *)from->name[i];
    return count;
}
