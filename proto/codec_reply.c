/* SPDX-License-Identifier: ISC */
/*
 * Replies between their bytes and struct codec_reply.
 */
#include "core/checked.h"
#include "proto/codec_fast.h"

#include <string.h>

/* What each sentence about a shape has in common. */
static int
check_shape(const char *what, uint32_t sector_size, uint64_t size_sectors,
            struct error *error)
{
    uint64_t octets;

    if (!is_power_of_two(sector_size) || sector_size < FARBLK_SECTOR_MIN
        || sector_size > FARBLK_SECTOR_MAX)
        return error_set(error, FARBLK_PROTOCOL,
                         "%s: sector size %u is not a power of two from %u to "
                         "%u",
                         what, sector_size, FARBLK_SECTOR_MIN,
                         FARBLK_SECTOR_MAX);
    if (!checked_mul(size_sectors, sector_size, &octets) || octets > INT64_MAX)
        return error_set(error, FARBLK_PROTOCOL,
                         "%s: %llu sectors of %u octets are more than %lld "
                         "octets",
                         what, (unsigned long long)size_sectors, sector_size,
                         (long long)INT64_MAX);
    return 0;
}

static int
check_transfer(const char *what, const char *kind, uint32_t transfer,
               uint32_t sector_size, struct error *error)
{
    if (transfer != 0 && transfer % sector_size == 0)
        return 0;
    return error_set(error, FARBLK_PROTOCOL,
                     "%s: %s transfer of %u octets is not whole sectors of %u "
                     "octets, at least one",
                     what, kind, transfer, sector_size);
}

static int
take_info(struct codec_info *to, const Farblk__V1__Info *from, const char *what,
          struct error *error)
{
    if (from == NULL)
        return error_set(error, FARBLK_PROTOCOL, "%s: the reply has no info",
                         what);
    to->read_write = from->read_write;
    to->sector_size = from->sector_size;
    to->size_sectors = from->size_sectors;
    to->generation = from->generation;
    to->features = from->features;
    to->max_transfer = from->max_transfer;
    to->preferred_transfer = from->preferred_transfer;
    if (check_shape(what, to->sector_size, to->size_sectors, error) != 0
        || check_transfer(what, "largest", to->max_transfer, to->sector_size,
                          error)
               != 0)
        return FARBLK_PROTOCOL;
    return check_transfer(what, "preferred", to->preferred_transfer,
                          to->sector_size, error);
}

static int
take_limits(struct codec_limits *to, const Farblk__V1__Limits *from,
            struct error *error)
{
    if (from == NULL)
        return error_set(error, FARBLK_PROTOCOL,
                         "Hello: the reply has no "
                         "limits");
    to->max_requests = from->max_requests;
    to->max_octets = from->max_octets;
    to->max_payload = from->max_payload;
    to->max_header = from->max_header;
    to->max_handles = from->max_handles;
    to->max_extents = from->max_extents;
    to->max_sessions = from->max_sessions;
    to->max_watches = from->max_watches;
    to->max_connections = from->max_connections;
    to->hello_ms = from->hello_ms;
    to->frame_ms = from->frame_ms;
    to->idle_ms = from->idle_ms;
    if (to->max_requests == 0 || to->max_handles == 0 || to->max_extents == 0
        || to->max_payload < FARBLK_SECTOR_MIN
        || to->max_payload > WIRE_PAYLOAD_CEILING
        || to->max_octets < to->max_payload
        || to->max_header < WIRE_HEADER_LEAST)
        return error_set(
            error, FARBLK_PROTOCOL,
            "Hello: limits make no sense: %u requests, %llu "
            "octets, payload %u, header %u, %u handles, %u extents",
            to->max_requests, (unsigned long long)to->max_octets,
            to->max_payload, to->max_header, to->max_handles, to->max_extents);
    return 0;
}

static int
take_hello(struct codec_reply *reply, const Farblk__V1__HelloReply *from,
           struct error *error)
{
    reply->result.hello.version = from->version;
    codec_take_features(&reply->result.hello.features, from->n_features,
                        from->features);
    reply->result.hello.session = from->session;
    reply->result.hello.lease_ms = from->lease_ms;
    error_copy_text(reply->result.hello.server,
                    sizeof reply->result.hello.server, from->server,
                    codec_string_length(from->server));
    if (from->session == 0 || from->lease_ms == 0)
        return error_set(error, FARBLK_PROTOCOL,
                         "Hello: session %llx with a lease of %u ms",
                         (unsigned long long)from->session, from->lease_ms);
    if (codec_take_bytes(reply->result.hello.secret, WIRE_SECRET_SIZE,
                         &from->secret, "Hello: secret", error)
            != 0
        || codec_take_bytes(reply->result.hello.instance, WIRE_INSTANCE_SIZE,
                            &from->instance, "Hello: instance", error)
               != 0)
        return FARBLK_PROTOCOL;
    return take_limits(&reply->result.hello.limits, from->limits, error);
}

static int
take_devices(struct codec_reply *reply,
             const Farblk__V1__ListDevicesReply *from, struct error *error)
{
    reply->result.list.more = from->more;
    if (from->n_devices > reply->result.list.capacity)
        return error_set(error, FARBLK_PROTOCOL,
                         "ListDevices: %zu devices in one reply, the limit is "
                         "%zu",
                         from->n_devices, reply->result.list.capacity);
    /* Else asking again after the last would never end. */
    if (from->more && from->n_devices == 0)
        return error_set(error, FARBLK_PROTOCOL,
                         "ListDevices: no device, but more of them");
    for (size_t i = 0; i < from->n_devices; i++) {
        const Farblk__V1__Device *device = from->devices[i];
        struct codec_device *to = &reply->result.list.devices[i];
        if (codec_take_name(to->name, sizeof to->name, device->name,
                            "ListDevices: a name", error)
            != 0)
            return FARBLK_PROTOCOL;
        if (to->name[0] == 0)
            return error_set(error, FARBLK_PROTOCOL,
                             "ListDevices: a name is empty");
        to->read_write = device->read_write;
        to->sector_size = device->sector_size;
        to->size_sectors = device->size_sectors;
        if (check_shape("ListDevices", to->sector_size, to->size_sectors, error)
            != 0)
            return FARBLK_PROTOCOL;
        reply->result.list.count = i + 1;
    }
    return 0;
}

static int
take_extents(struct codec_reply *reply, const Farblk__V1__ExtentsReply *from,
             struct error *error)
{
    uint64_t at = reply->result.extents.first_sector;

    if (from->n_counts != from->n_mapped)
        return error_set(error, FARBLK_PROTOCOL,
                         "Extents: %zu counts and %zu kinds", from->n_counts,
                         from->n_mapped);
    if (from->n_counts > reply->result.extents.capacity)
        return error_set(error, FARBLK_PROTOCOL,
                         "Extents: %zu extents in one reply, the limit is %zu",
                         from->n_counts, reply->result.extents.capacity);
    for (size_t i = 0; i < from->n_counts; i++) {
        struct farblk_extent *to = &reply->result.extents.extents[i];
        to->start = at;
        to->count = from->counts[i];
        to->mapped = from->mapped[i] ? 1 : 0;
        to->reserved = 0;
        if (to->count == 0 || !checked_add(at, to->count, &at))
            return error_set(
                error, FARBLK_PROTOCOL,
                "Extents: an extent of %llu sectors at sector %llu",
                (unsigned long long)to->count, (unsigned long long)to->start);
        reply->result.extents.count = i + 1;
    }
    return 0;
}

static int
take_result(const void *result, uint32_t method, struct codec_reply *reply,
            struct error *error)
{
    switch (method) {
    case WIRE_HELLO:
        return take_hello(reply, result, error);
    case WIRE_LIST_DEVICES:
        return take_devices(reply, result, error);
    case WIRE_OPEN: {
        const Farblk__V1__OpenReply *from = result;
        reply->result.open.handle = from->handle;
        if (from->handle == 0)
            return error_set(error, FARBLK_PROTOCOL, "Open: handle 0");
        if (codec_take_bytes(reply->result.open.content, WIRE_INSTANCE_SIZE,
                             &from->content, "Open: content", error)
            != 0)
            return FARBLK_PROTOCOL;
        return take_info(&reply->result.open.info, from->info, "Open", error);
    }
    case WIRE_GET_INFO: {
        const Farblk__V1__GetInfoReply *from = result;
        return take_info(&reply->result.info.info, from->info, "GetInfo",
                         error);
    }
    case WIRE_SEEK_MAPPED:
    case WIRE_SEEK_UNMAPPED: {
        const Farblk__V1__SeekReply *from = result;
        reply->result.seek.sector = from->sector;
        return 0;
    }
    case WIRE_EXTENTS:
        return take_extents(reply, result, error);
    case WIRE_WATCH_INFO: {
        const Farblk__V1__WatchInfoReply *from = result;
        reply->result.watch.generation = from->generation;
        return 0;
    }
    case WIRE_SHARE_MEMORY: {
        const Farblk__V1__ShareMemoryReply *from = result;
        return codec_take_bytes(reply->result.share.token, WIRE_TOKEN_SIZE,
                                &from->token, "ShareMemory: token", error);
    }
    case WIRE_CANCEL: {
        const Farblk__V1__CancelReply *from = result;
        reply->result.cancel.fenced = from->fenced;
        return 0;
    }
    default: /* the others have no result */
        return 0;
    }
}

/* A result that was packed so. */
static int
decode_result(struct codec_arena *arena, const ProtobufCBinaryData *packed,
              uint32_t method, struct codec_reply *reply, struct error *error)
{
    const ProtobufCMethodDescriptor *found = codec_method(method);
    if (found == NULL)
        return 0;
    const void *result = codec_unpack(arena, found->output, packed->data,
                                      packed->len, found->name, error);
    if (result == NULL)
        return FARBLK_PROTOCOL;
    return take_result(result, method, reply, error);
}

static int
decode_on(struct codec_arena *arena, const uint8_t *bytes, size_t length,
          uint32_t method, struct codec_reply *reply, struct error *error)
{
    const Farblk__V1__ReplyHeader *header =
        codec_unpack(arena, &farblk__v1__reply_header__descriptor, bytes,
                     length, "reply header", error);
    if (header == NULL)
        return FARBLK_PROTOCOL;
    reply->status = error_known_status(header->status);
    reply->number = header->number;
    reply->generation = header->generation;
    reply->size_sectors = header->size_sectors;
    reply->checksum = header->checksum;
    if (reply->status != 0) {
        reply->effect = header->effect <= FARBLK_EFFECT_UNKNOWN
                            ? header->effect
                            : FARBLK_EFFECT_UNKNOWN;
        error_copy_text(reply->text, sizeof reply->text, header->text,
                        codec_string_length(header->text));
        return 0;
    }
    return decode_result(arena, &header->result, method, reply, error);
}

/* Before a result is decoded. */
static void
clear_result(struct codec_reply *reply, uint32_t method)
{
    if (method == WIRE_LIST_DEVICES) {
        reply->result.list.count = 0;
        reply->result.list.more = false;
    } else if (method == WIRE_EXTENTS) {
        reply->result.extents.count = 0;
    } else {
        memset(&reply->result, 0, sizeof reply->result);
    }
}

int
codec_general_decode_reply(const uint8_t *bytes, size_t length, uint32_t method,
                           struct codec_reply *reply, struct error *error)
{
    struct codec_arena arena;

    reply->status = 0;
    reply->effect = 0;
    reply->text[0] = 0;
    reply->number = 0;
    reply->generation = 0;
    reply->size_sectors = 0;
    reply->checksum = 0;
    clear_result(reply, method);
    if (length > WIRE_HEADER_MAX)
        return error_set(error, FARBLK_PROTOCOL,
                         "reply header has %zu octets, the limit is %u", length,
                         WIRE_HEADER_MAX);
    codec_arena_begin(&arena);
    int status = decode_on(&arena, bytes, length, method, reply, error);
    codec_arena_end(&arena);
    return status;
}

/* What comes behind a header that needed no protobuf-c. */
static CODEC_GENERAL int
decode_result_alone(const ProtobufCBinaryData *packed, uint32_t method,
                    struct codec_reply *reply, struct error *error)
{
    struct codec_arena arena;

    clear_result(reply, method);
    codec_arena_begin(&arena);
    int status = decode_result(&arena, packed, method, reply, error);
    codec_arena_end(&arena);
    return status;
}

int
codec_decode_reply(const uint8_t *bytes, size_t length, uint32_t method,
                   struct codec_reply *reply, struct error *error)
{
    ProtobufCBinaryData packed;

    if (!codec_fast_decode_reply(bytes, length, reply, &packed))
        return codec_general_decode_reply(bytes, length, method, reply, error);
    if (packed.len == 0 && codec_fast_no_result(method))
        return 0;
    return decode_result_alone(&packed, method, reply, error);
}

/* One of these at a time: the message of a method's result. */
union result {
    ProtobufCMessage base;
    Farblk__V1__HelloReply hello;
    Farblk__V1__ListDevicesReply list;
    Farblk__V1__OpenReply open;
    Farblk__V1__GetInfoReply info;
    Farblk__V1__SeekReply seek;
    Farblk__V1__ExtentsReply extents;
    Farblk__V1__WatchInfoReply watch;
    Farblk__V1__ShareMemoryReply share;
    Farblk__V1__CancelReply cancel;
    Farblk__V1__PingReply none;
};

/* What a result points to while it is packed. */
struct parts {
    Farblk__V1__Info info;
    Farblk__V1__Limits limits;
    char *features[CODEC_FEATURES_MAX];
};

static void
give_info(Farblk__V1__Info *to, const struct codec_info *from)
{
    farblk__v1__info__init(to);
    to->read_write = from->read_write;
    to->sector_size = from->sector_size;
    to->size_sectors = from->size_sectors;
    to->generation = from->generation;
    to->features = from->features;
    to->max_transfer = from->max_transfer;
    to->preferred_transfer = from->preferred_transfer;
}

static void
give_hello(Farblk__V1__HelloReply *to, const struct codec_reply *reply,
           struct parts *parts)
{
    const struct codec_limits *limits = &reply->result.hello.limits;

    farblk__v1__limits__init(&parts->limits);
    parts->limits.max_requests = limits->max_requests;
    parts->limits.max_octets = limits->max_octets;
    parts->limits.max_payload = limits->max_payload;
    parts->limits.max_header = limits->max_header;
    parts->limits.max_handles = limits->max_handles;
    parts->limits.max_extents = limits->max_extents;
    parts->limits.max_sessions = limits->max_sessions;
    parts->limits.max_watches = limits->max_watches;
    parts->limits.max_connections = limits->max_connections;
    parts->limits.hello_ms = limits->hello_ms;
    parts->limits.frame_ms = limits->frame_ms;
    parts->limits.idle_ms = limits->idle_ms;
    to->version = reply->result.hello.version;
    to->n_features =
        codec_give_features(&reply->result.hello.features, parts->features);
    to->features = parts->features;
    to->session = reply->result.hello.session;
    to->secret.len = WIRE_SECRET_SIZE;
    to->secret.data = (uint8_t *)reply->result.hello.secret;
    to->instance.len = WIRE_INSTANCE_SIZE;
    to->instance.data = (uint8_t *)reply->result.hello.instance;
    to->lease_ms = reply->result.hello.lease_ms;
    to->limits = &parts->limits;
    to->server = (char *)reply->result.hello.server;
}

static bool
give_devices(struct codec_arena *arena, Farblk__V1__ListDevicesReply *to,
             const struct codec_reply *reply)
{
    size_t count = reply->result.list.count;

    to->more = reply->result.list.more;
    if (count == 0)
        return true;
    if (count > CODEC_DEVICES_MAX)
        return false;
    Farblk__V1__Device *devices =
        codec_arena_alloc(arena, count * sizeof *devices);
    Farblk__V1__Device **pointers =
        codec_arena_alloc(arena, count * sizeof(Farblk__V1__Device *));
    if (devices == NULL || pointers == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        const struct codec_device *from = &reply->result.list.devices[i];
        farblk__v1__device__init(&devices[i]);
        devices[i].name = (char *)from->name;
        devices[i].read_write = from->read_write;
        devices[i].sector_size = from->sector_size;
        devices[i].size_sectors = from->size_sectors;
        pointers[i] = &devices[i];
    }
    to->n_devices = count;
    to->devices = pointers;
    return true;
}

static bool
give_extents(struct codec_arena *arena, Farblk__V1__ExtentsReply *to,
             const struct codec_reply *reply)
{
    size_t count = reply->result.extents.count;

    if (count == 0)
        return true;
    if (count > CODEC_EXTENTS_MAX)
        return false;
    to->counts = codec_arena_alloc(arena, count * sizeof *to->counts);
    to->mapped = codec_arena_alloc(arena, count * sizeof *to->mapped);
    if (to->counts == NULL || to->mapped == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        to->counts[i] = reply->result.extents.extents[i].count;
        to->mapped[i] = reply->result.extents.extents[i].mapped != 0;
    }
    to->n_counts = count;
    to->n_mapped = count;
    return true;
}

static bool
give_result(struct codec_arena *arena, union result *to, struct parts *parts,
            const struct codec_reply *reply, uint32_t method)
{
    switch (method) {
    case WIRE_HELLO:
        give_hello(&to->hello, reply, parts);
        return true;
    case WIRE_LIST_DEVICES:
        return give_devices(arena, &to->list, reply);
    case WIRE_OPEN:
        give_info(&parts->info, &reply->result.open.info);
        to->open.handle = reply->result.open.handle;
        to->open.info = &parts->info;
        to->open.content.len = WIRE_INSTANCE_SIZE;
        to->open.content.data = (uint8_t *)reply->result.open.content;
        return true;
    case WIRE_GET_INFO:
        give_info(&parts->info, &reply->result.info.info);
        to->info.info = &parts->info;
        return true;
    case WIRE_SEEK_MAPPED:
    case WIRE_SEEK_UNMAPPED:
        to->seek.sector = reply->result.seek.sector;
        return true;
    case WIRE_EXTENTS:
        return give_extents(arena, &to->extents, reply);
    case WIRE_WATCH_INFO:
        to->watch.generation = reply->result.watch.generation;
        return true;
    case WIRE_SHARE_MEMORY:
        to->share.token.len = WIRE_TOKEN_SIZE;
        to->share.token.data = (uint8_t *)reply->result.share.token;
        return true;
    case WIRE_CANCEL:
        to->cancel.fenced = reply->result.cancel.fenced;
        return true;
    default: /* the others have no result */
        return true;
    }
}

size_t
codec_general_encode_reply(const struct codec_reply *reply, uint32_t method,
                           uint8_t *to, size_t size)
{
    struct codec_arena arena;
    struct parts parts;
    union result result;
    Farblk__V1__ReplyHeader header = FARBLK__V1__REPLY_HEADER__INIT;
    size_t length = 0;

    header.status = reply->status;
    header.number = reply->number;
    header.generation = reply->generation;
    header.size_sectors = reply->size_sectors;
    header.checksum = reply->checksum;

    codec_arena_begin(&arena);
    const ProtobufCMethodDescriptor *found = codec_method(method);
    if (reply->status != 0) {
        header.effect = reply->effect;
        header.text = (char *)reply->text;
    } else if (found != NULL) {
        protobuf_c_message_init(found->output, &result);
        if (!give_result(&arena, &result, &parts, reply, method)
            || !codec_pack(&arena, &result.base, &header.result))
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
codec_encode_reply(const struct codec_reply *reply, uint32_t method,
                   uint8_t *to, size_t size)
{
    size_t length = codec_fast_encode_reply(reply, method, to, size);

    return length != 0 ? length
                       : codec_general_encode_reply(reply, method, to, size);
}
