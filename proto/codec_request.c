/* SPDX-License-Identifier: ISC */
/*
 * Requests between their bytes and struct codec_request.
 */
#include "core/checked.h"
#include "proto/codec_fast.h"

#include <string.h>

static int
take_hello(const Farblk__V1__HelloRequest *from, struct codec_request *request,
           struct error *error)
{
    request->args.hello.version = from->version;
    codec_take_features(&request->args.hello.features, from->n_features,
                        from->features);
    if (codec_take_name(request->args.hello.client,
                        sizeof request->args.hello.client, from->client,
                        "Hello: client", error)
        != 0)
        return FARBLK_PROTOCOL;
    if (from->nonce.len == 0)
        return 0;
    request->args.hello.has_nonce = true;
    return codec_take_bytes(request->args.hello.nonce, WIRE_NONCE_SIZE,
                            &from->nonce, "Hello: nonce", error);
}

/* A piece stands for its whole in the check of the range, so it must lie in
 * it. */
static int
check_range(const struct codec_request *request, struct error *error)
{
    uint64_t sector = request->args.range.sector;
    uint64_t count = request->args.range.count;
    uint64_t whole_sector = request->args.range.whole_sector;
    uint64_t whole_count = request->args.range.whole_count;

    if (!request->args.range.has_whole
        || (sector >= whole_sector
            && range_within(sector - whole_sector, count, whole_count)))
        return 0;
    return error_set(error, FARBLK_PROTOCOL,
                     "%s: sectors %llu + %llu are not within the whole range "
                     "%llu + %llu",
                     codec_method_name(request->method),
                     (unsigned long long)sector, (unsigned long long)count,
                     (unsigned long long)whole_sector,
                     (unsigned long long)whole_count);
}

static int
take_range(struct codec_request *request, uint64_t sector, uint64_t count,
           const Farblk__V1__Range *whole, uint32_t flags, struct error *error)
{
    request->args.range.sector = sector;
    request->args.range.count = count;
    request->args.range.flags = flags;
    if (whole != NULL) {
        request->args.range.has_whole = true;
        request->args.range.whole_sector = whole->sector;
        request->args.range.whole_count = whole->count;
    }
    return check_range(request, error);
}

static int
take_open(const Farblk__V1__OpenRequest *from, struct codec_request *request,
          struct error *error)
{
    request->args.open.read_only = from->read_only;
    request->args.open.token_length = 0;
    memset(request->args.open.token, 0, WIRE_TOKEN_MAX);
    if (from->token.len > WIRE_TOKEN_MAX)
        return error_set(error, FARBLK_PROTOCOL,
                         "Open: a token of %zu octets; at most %d are taken",
                         from->token.len, WIRE_TOKEN_MAX);
    if (from->token.len > 0)
        memcpy(request->args.open.token, from->token.data, from->token.len);
    request->args.open.token_length = (uint32_t)from->token.len;
    return codec_take_name(request->args.open.name,
                           sizeof request->args.open.name, from->name,
                           "Open: name", error);
}

static int
take_args(const void *args, struct codec_request *request, struct error *error)
{
    switch (request->method) {
    case WIRE_HELLO:
        return take_hello(args, request, error);
    case WIRE_PING: {
        const Farblk__V1__PingRequest *from = args;
        request->args.ping.take_over = from->take_over;
        return 0;
    }
    case WIRE_LIST_DEVICES: {
        const Farblk__V1__ListDevicesRequest *from = args;
        return codec_take_name(request->args.list.after,
                               sizeof request->args.list.after, from->after,
                               "ListDevices: after", error);
    }
    case WIRE_OPEN:
        return take_open(args, request, error);
    case WIRE_READ: {
        const Farblk__V1__ReadRequest *from = args;
        return take_range(request, from->sector, from->count, from->whole, 0,
                          error);
    }
    case WIRE_WRITE: {
        const Farblk__V1__WriteRequest *from = args;
        return take_range(request, from->sector, from->count, from->whole,
                          from->fua ? FARBLK_FUA : 0u, error);
    }
    case WIRE_DISCARD: {
        const Farblk__V1__DiscardRequest *from = args;
        return take_range(request, from->sector, from->count, from->whole,
                          from->fua ? FARBLK_FUA : 0u, error);
    }
    case WIRE_WRITE_ZEROES: {
        const Farblk__V1__WriteZeroesRequest *from = args;
        return take_range(request, from->sector, from->count, from->whole,
                          (from->fua ? FARBLK_FUA : 0u)
                              | (from->no_unmap ? FARBLK_NO_UNMAP : 0u),
                          error);
    }
    case WIRE_RESIZE: {
        const Farblk__V1__ResizeRequest *from = args;
        request->args.resize.size_sectors = from->size_sectors;
        request->args.resize.flags = from->fua ? FARBLK_FUA : 0u;
        return 0;
    }
    case WIRE_SEEK_MAPPED:
    case WIRE_SEEK_UNMAPPED: {
        const Farblk__V1__SeekRequest *from = args;
        request->args.seek.sector = from->sector;
        return 0;
    }
    case WIRE_EXTENTS: {
        const Farblk__V1__ExtentsRequest *from = args;
        request->args.extents.sector = from->sector;
        request->args.extents.count = from->count;
        request->args.extents.max = from->max;
        return 0;
    }
    case WIRE_WATCH_INFO: {
        const Farblk__V1__WatchInfoRequest *from = args;
        request->args.watch.generation = from->generation;
        request->args.watch.timeout_ms = from->timeout_ms;
        return 0;
    }
    case WIRE_CANCEL: {
        const Farblk__V1__CancelRequest *from = args;
        request->args.cancel.number = from->number;
        return 0;
    }
    default: /* the others have no arguments */
        return 0;
    }
}

static int
decode_on(struct codec_arena *arena, const uint8_t *bytes, size_t length,
          struct codec_request *request, bool *args_bad, struct error *error)
{
    const Farblk__V1__RequestHeader *header =
        codec_unpack(arena, &farblk__v1__request_header__descriptor, bytes,
                     length, "request header", error);
    if (header == NULL)
        return FARBLK_PROTOCOL;
    request->method = header->method;
    request->session = header->session;
    request->number = header->number;
    request->lowest = header->lowest;
    request->handle = header->handle;
    request->deadline_ms = header->deadline_ms;
    request->checksum = header->checksum;
    if (header->secret.len != 0) {
        request->has_secret = true;
        if (codec_take_bytes(request->secret, WIRE_SECRET_SIZE, &header->secret,
                             "secret", error)
            != 0)
            return FARBLK_PROTOCOL;
    }
    const ProtobufCMethodDescriptor *method = codec_method(request->method);
    if (method == NULL)
        return 0;
    const void *args = codec_unpack(arena, method->input, header->args.data,
                                    header->args.len, method->name, error);
    if (args == NULL || take_args(args, request, error) != 0) {
        *args_bad = true;
        return FARBLK_PROTOCOL;
    }
    return 0;
}

int
codec_general_decode_request(const uint8_t *bytes, size_t length,
                             struct codec_request *request, bool *args_bad,
                             struct error *error)
{
    struct codec_arena arena;

    memset(request, 0, sizeof *request);
    *args_bad = false;
    if (length > WIRE_HEADER_MAX)
        return error_set(error, FARBLK_PROTOCOL,
                         "request header has %zu octets, the limit is %u",
                         length, WIRE_HEADER_MAX);
    codec_arena_begin(&arena);
    int status = decode_on(&arena, bytes, length, request, args_bad, error);
    codec_arena_end(&arena);
    return status;
}

int
codec_decode_request(const uint8_t *bytes, size_t length,
                     struct codec_request *request, bool *args_bad,
                     struct error *error)
{
    if (!codec_fast_decode_request(bytes, length, request))
        return codec_general_decode_request(bytes, length, request, args_bad,
                                            error);
    *args_bad =
        request->method != WIRE_FLUSH && check_range(request, error) != 0;
    return *args_bad ? FARBLK_PROTOCOL : 0;
}

/* One of these at a time: the message of a method's arguments. */
union args {
    ProtobufCMessage base;
    Farblk__V1__HelloRequest hello;
    Farblk__V1__PingRequest ping;
    Farblk__V1__ListDevicesRequest list;
    Farblk__V1__OpenRequest open;
    Farblk__V1__ReadRequest read;
    Farblk__V1__WriteRequest write;
    Farblk__V1__DiscardRequest discard;
    Farblk__V1__WriteZeroesRequest zeroes;
    Farblk__V1__ResizeRequest resize;
    Farblk__V1__SeekRequest seek;
    Farblk__V1__ExtentsRequest extents;
    Farblk__V1__WatchInfoRequest watch;
    Farblk__V1__CancelRequest cancel;
};

static void
give_args(const struct codec_request *request, union args *args,
          Farblk__V1__Range *whole, char *features[CODEC_FEATURES_MAX])
{
    Farblk__V1__Range *piece_of = NULL;
    uint64_t sector = request->args.range.sector;
    uint64_t count = request->args.range.count;
    bool fua = (request->args.range.flags & FARBLK_FUA) != 0;

    switch (request->method) {
    case WIRE_READ:
    case WIRE_WRITE:
    case WIRE_DISCARD:
    case WIRE_WRITE_ZEROES:
        if (!request->args.range.has_whole)
            break;
        farblk__v1__range__init(whole);
        whole->sector = request->args.range.whole_sector;
        whole->count = request->args.range.whole_count;
        piece_of = whole;
        break;
    default:
        break;
    }

    switch (request->method) {
    case WIRE_HELLO:
        args->hello.version = request->args.hello.version;
        args->hello.n_features =
            codec_give_features(&request->args.hello.features, features);
        args->hello.features = features;
        if (request->args.hello.has_nonce) {
            args->hello.nonce.len = WIRE_NONCE_SIZE;
            args->hello.nonce.data = (uint8_t *)request->args.hello.nonce;
        }
        args->hello.client = (char *)request->args.hello.client;
        break;
    case WIRE_PING:
        args->ping.take_over = request->args.ping.take_over;
        break;
    case WIRE_LIST_DEVICES:
        args->list.after = (char *)request->args.list.after;
        break;
    case WIRE_OPEN:
        args->open.name = (char *)request->args.open.name;
        args->open.read_only = request->args.open.read_only;
        args->open.token.len = request->args.open.token_length;
        args->open.token.data = (uint8_t *)request->args.open.token;
        break;
    case WIRE_READ:
        args->read.sector = sector;
        args->read.count = count;
        args->read.whole = piece_of;
        break;
    case WIRE_WRITE:
        args->write.sector = sector;
        args->write.count = count;
        args->write.whole = piece_of;
        args->write.fua = fua;
        break;
    case WIRE_DISCARD:
        args->discard.sector = sector;
        args->discard.count = count;
        args->discard.whole = piece_of;
        args->discard.fua = fua;
        break;
    case WIRE_WRITE_ZEROES:
        args->zeroes.sector = sector;
        args->zeroes.count = count;
        args->zeroes.whole = piece_of;
        args->zeroes.fua = fua;
        args->zeroes.no_unmap =
            (request->args.range.flags & FARBLK_NO_UNMAP) != 0;
        break;
    case WIRE_RESIZE:
        args->resize.size_sectors = request->args.resize.size_sectors;
        args->resize.fua = (request->args.resize.flags & FARBLK_FUA) != 0;
        break;
    case WIRE_SEEK_MAPPED:
    case WIRE_SEEK_UNMAPPED:
        args->seek.sector = request->args.seek.sector;
        break;
    case WIRE_EXTENTS:
        args->extents.sector = request->args.extents.sector;
        args->extents.count = request->args.extents.count;
        args->extents.max = request->args.extents.max;
        break;
    case WIRE_WATCH_INFO:
        args->watch.generation = request->args.watch.generation;
        args->watch.timeout_ms = request->args.watch.timeout_ms;
        break;
    case WIRE_CANCEL:
        args->cancel.number = request->args.cancel.number;
        break;
    default: /* no arguments, or a method that this codec does not know */
        break;
    }
}

size_t
codec_general_encode_request(const struct codec_request *request, uint8_t *to,
                             size_t size)
{
    struct codec_arena arena;
    union args args;
    Farblk__V1__Range whole;
    char *features[CODEC_FEATURES_MAX];
    Farblk__V1__RequestHeader header = FARBLK__V1__REQUEST_HEADER__INIT;
    size_t length = 0;

    header.method = request->method;
    header.session = request->session;
    header.number = request->number;
    header.lowest = request->lowest;
    header.handle = request->handle;
    header.deadline_ms = request->deadline_ms;
    header.checksum = request->checksum;
    if (request->has_secret) {
        header.secret.len = WIRE_SECRET_SIZE;
        header.secret.data = (uint8_t *)request->secret;
    }

    codec_arena_begin(&arena);
    const ProtobufCMethodDescriptor *method = codec_method(request->method);
    if (method != NULL) {
        protobuf_c_message_init(method->input, &args);
        give_args(request, &args, &whole, features);
        if (!codec_pack(&arena, &args.base, &header.args))
            goto end;
    }
    if (protobuf_c_message_get_packed_size(&header.base) > size)
        goto end;
    length = protobuf_c_message_pack(&header.base, to);
end:
    codec_arena_end(&arena);
    return length;
}

size_t
codec_encode_request(const struct codec_request *request, uint8_t *to,
                     size_t size)
{
    size_t length = codec_fast_encode_request(request, to, size);

    return length != 0 ? length
                       : codec_general_encode_request(request, to, size);
}
