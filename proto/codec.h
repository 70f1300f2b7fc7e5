/* SPDX-License-Identifier: ISC */
/*
 * Headers of requests and replies between their bytes and plain C structs.
 *
 * The only code that touches protobuf-c.  Everything that comes out of a
 * decode is bounded and checked (lengths, counts, sizes of secrets, known
 * flags); what it means in its session is the caller's to check.  Dispatch of
 * the arguments goes by the generated descriptor of service BlockDevice.
 */
#ifndef FARBLK_PROTO_CODEC_H
#define FARBLK_PROTO_CODEC_H

#include "core/error.h"
#include "farblk/farblk.h"
#include "proto/wire.h"

/* Positions in service BlockDevice, from 1. */
enum wire_method {
    WIRE_HELLO = 1,
    WIRE_PING = 2,
    WIRE_LIST_DEVICES = 3,
    WIRE_OPEN = 4,
    WIRE_DISCONNECT = 5,
    WIRE_GET_INFO = 6,
    WIRE_READ = 7,
    WIRE_WRITE = 8,
    WIRE_FLUSH = 9,
    WIRE_DISCARD = 10,
    WIRE_WRITE_ZEROES = 11,
    WIRE_RESIZE = 12,
    WIRE_SEEK_MAPPED = 13,
    WIRE_SEEK_UNMAPPED = 14,
    WIRE_EXTENTS = 15,
    WIRE_WATCH_INFO = 16,
    WIRE_SHARE_MEMORY = 17,
    WIRE_CANCEL = 18,
    WIRE_METHODS = 19,
};

/* "Read" for WIRE_READ, from the service descriptor; "?" for unknown ones. */
const char *codec_method_name(uint32_t method);

#define CODEC_FEATURES_MAX 16
#define CODEC_FEATURE_LENGTH 64
#define CODEC_NAME_LENGTH 256
#define CODEC_DEVICES_MAX 64 /* in one ListDevicesReply */
#define CODEC_EXTENTS_MAX 4096 /* in one ExtentsReply */

struct codec_features {
    uint32_t count;
    char name[CODEC_FEATURES_MAX][CODEC_FEATURE_LENGTH]; /* more are ignored */
};

/* Whether a feature of that name is among them. */
bool codec_has_feature(const struct codec_features *features, const char *name);
/* Add one; there is room for CODEC_FEATURES_MAX. */
void codec_add_feature(struct codec_features *features, const char *name);

struct codec_limits {
    uint32_t max_requests;
    uint64_t max_octets;
    uint32_t max_payload;
    uint32_t max_header;
    uint32_t max_handles;
    uint32_t max_extents;
    /* Told, and not used by anybody. */
    uint32_t max_sessions, max_watches, max_connections;
    uint32_t hello_ms, frame_ms, idle_ms;
};

struct codec_info {
    bool read_write;
    uint32_t sector_size;
    uint64_t size_sectors;
    uint64_t generation;
    uint64_t features;
    uint32_t max_transfer;
    uint32_t preferred_transfer;
};

struct codec_request {
    uint32_t method; /* may be unknown: then args are not decoded */
    uint64_t session;
    uint64_t number;
    uint64_t lowest;
    uint64_t handle;
    uint32_t deadline_ms;
    bool has_secret;
    uint8_t secret[WIRE_SECRET_SIZE];
    uint32_t checksum; /* of the payload; 0 where nobody wants it */
    union {
        struct {
            uint32_t version;
            struct codec_features features;
            bool has_nonce;
            uint8_t nonce[WIRE_NONCE_SIZE];
            char client[CODEC_NAME_LENGTH];
        } hello;
        struct {
            bool take_over;
        } ping;
        struct {
            char after[CODEC_NAME_LENGTH];
        } list;
        struct {
            char name[CODEC_NAME_LENGTH];
            bool read_only;
            uint32_t token_length; /* 0: none */
            uint8_t token[WIRE_TOKEN_MAX]; /* zeros behind it */
        } open;
        struct { /* READ, WRITE, DISCARD, WRITE_ZEROES */
            uint64_t sector, count;
            bool has_whole;
            uint64_t whole_sector, whole_count;
            uint32_t flags; /* FARBLK_FUA, FARBLK_NO_UNMAP */
        } range;
        struct {
            uint64_t size_sectors;
            uint32_t flags;
        } resize;
        struct {
            uint64_t sector;
        } seek;
        struct {
            uint64_t sector, count;
            uint32_t max;
        } extents;
        struct {
            uint64_t generation;
            uint32_t timeout_ms;
        } watch;
        struct {
            uint64_t number;
        } cancel;
    } args;
};

struct codec_device {
    char name[CODEC_NAME_LENGTH];
    bool read_write;
    uint32_t sector_size;
    uint64_t size_sectors;
};

/* The result's arrays are the caller's: set the pointer and the capacity
 * before decoding, pointer and count before encoding. */
struct codec_reply {
    int32_t status;
    uint32_t effect;
    char text[FARBLK_TEXT_MAX];
    uint64_t number;
    uint64_t generation;
    uint64_t size_sectors;
    uint32_t checksum; /* of the payload; 0 where nobody wants it */
    union {
        struct {
            uint32_t version;
            struct codec_features features;
            uint64_t session;
            uint8_t secret[WIRE_SECRET_SIZE];
            uint8_t instance[WIRE_INSTANCE_SIZE];
            uint32_t lease_ms;
            struct codec_limits limits;
            char server[CODEC_NAME_LENGTH];
        } hello;
        struct {
            struct codec_device *devices;
            size_t capacity, count;
            bool more;
        } list;
        struct {
            uint64_t handle;
            struct codec_info info;
            uint8_t content[WIRE_INSTANCE_SIZE];
        } open;
        struct {
            struct codec_info info;
        } info;
        struct {
            uint64_t sector;
        } seek;
        struct {
            struct farblk_extent *extents; /* decode: start from first_sector */
            size_t capacity, count;
            uint64_t first_sector; /* set before decoding */
        } extents;
        struct {
            uint64_t generation;
        } watch;
        struct {
            uint8_t token[WIRE_TOKEN_SIZE];
        } share;
        struct {
            bool fenced;
        } cancel;
    } result;
};

/*
 * Decode.  `bytes` is the header alone.  Returns 0, or PROTOCOL with a text
 * (what was wrong, where).  For a method that is not known, 0 with the fields
 * of the header alone.  When the header was fine and its args were not, the
 * request's header fields are set all the same, *args_bad is true, and PROTOCOL
 * is returned.  A piece that is not within its `whole` range is bad.  Members
 * of args or result that are not the method's are undefined.
 */
int codec_decode_request(const uint8_t *bytes, size_t length,
                         struct codec_request *request, bool *args_bad,
                         struct error *error);
/* `method` is that of the request.  Results are decoded when status is 0. */
int codec_decode_reply(const uint8_t *bytes, size_t length, uint32_t method,
                       struct codec_reply *reply, struct error *error);

/* Encode into `to`; returns the length, or 0 when it does not fit (with
 * WIRE_HEADER_MAX it always does within the limits above) or when there is no
 * memory for the arrays of a large ListDevices or Extents reply; everything
 * else needs none.  Effect and text are sent when status is not 0, the result
 * when it is.  Empty messages have a length of 0 too: no request and no
 * numbered reply is one. */
size_t codec_encode_request(const struct codec_request *request, uint8_t *to,
                            size_t size);
size_t codec_encode_reply(const struct codec_reply *reply, uint32_t method,
                          uint8_t *to, size_t size);

#endif
