/* SPDX-License-Identifier: ISC */
/*
 * The codec's way without protobuf-c against the way with it: the same octets
 * out, the same values, statuses and texts in, whatever comes.  What comes is
 * the same in each run: values of every size, and messages whose fields are
 * left out, doubled, shuffled, of another type, unknown, too long, cut off.
 */
#include "proto/codec_fast.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A few seconds' worth. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ROUNDS 30000
#define OCTET_ROUNDS 1
#else
#define ROUNDS 200000
#define OCTET_ROUNDS 3
#endif

static uint64_t seed = 20261121;

static uint32_t
next_random(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33);
}

static bool
one_in(uint32_t n)
{
    return next_random() % n == 0;
}

/* Of any number of bits alike, and at the edges often. */
static uint64_t
random_number(void)
{
    uint64_t number = (uint64_t)next_random() << 33 ^ next_random();

    switch (next_random() % 8) {
    case 0:
        return 0;
    case 1:
        return (UINT64_C(1) << next_random() % 64) - next_random() % 2;
    case 2:
        return UINT64_MAX - next_random() % 2;
    default:
        return number >> next_random() % 64;
    }
}

/* ------------------------------------------------------------ the schema */

struct known {
    const ProtobufCMessageDescriptor *message;
    const char *name;
    unsigned tag; /* 0: left to protobuf-c */
};

#define REQUEST &farblk__v1__request_header__descriptor
#define REPLY &farblk__v1__reply_header__descriptor
#define RANGE &farblk__v1__range__descriptor
#define READ &farblk__v1__read_request__descriptor
#define WRITE &farblk__v1__write_request__descriptor
#define DISCARD &farblk__v1__discard_request__descriptor
#define ZEROES &farblk__v1__write_zeroes_request__descriptor

static const struct known known[] = {
    {REQUEST, "method", CODEC_REQUEST_METHOD},
    {REQUEST, "session", CODEC_REQUEST_SESSION},
    {REQUEST, "number", CODEC_REQUEST_NUMBER},
    {REQUEST, "lowest", CODEC_REQUEST_LOWEST},
    {REQUEST, "handle", CODEC_REQUEST_HANDLE},
    {REQUEST, "deadline_ms", CODEC_REQUEST_DEADLINE_MS},
    {REQUEST, "secret", 0},
    {REQUEST, "args", CODEC_REQUEST_ARGS},
    {REQUEST, "checksum", CODEC_REQUEST_CHECKSUM},
    {REPLY, "status", 0},
    {REPLY, "effect", 0},
    {REPLY, "text", 0},
    {REPLY, "number", CODEC_REPLY_NUMBER},
    {REPLY, "generation", CODEC_REPLY_GENERATION},
    {REPLY, "size_sectors", CODEC_REPLY_SIZE_SECTORS},
    {REPLY, "result", CODEC_REPLY_RESULT},
    {REPLY, "checksum", CODEC_REPLY_CHECKSUM},
    {RANGE, "sector", CODEC_RANGE_SECTOR},
    {RANGE, "count", CODEC_RANGE_COUNT},
    {READ, "sector", CODEC_ARGS_SECTOR},
    {READ, "count", CODEC_ARGS_COUNT},
    {READ, "whole", CODEC_ARGS_WHOLE},
    {WRITE, "sector", CODEC_ARGS_SECTOR},
    {WRITE, "count", CODEC_ARGS_COUNT},
    {WRITE, "whole", CODEC_ARGS_WHOLE},
    {WRITE, "fua", CODEC_ARGS_FUA},
    {DISCARD, "sector", CODEC_ARGS_SECTOR},
    {DISCARD, "count", CODEC_ARGS_COUNT},
    {DISCARD, "whole", CODEC_ARGS_WHOLE},
    {DISCARD, "fua", CODEC_ARGS_FUA},
    {ZEROES, "sector", CODEC_ARGS_SECTOR},
    {ZEROES, "count", CODEC_ARGS_COUNT},
    {ZEROES, "whole", CODEC_ARGS_WHOLE},
    {ZEROES, "fua", CODEC_ARGS_FUA},
    {ZEROES, "no_unmap", CODEC_ARGS_NO_UNMAP},
};

static unsigned
wire_type(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_BOOL:
        return 0;
    case PROTOBUF_C_TYPE_FIXED64:
        return 1;
    case PROTOBUF_C_TYPE_FIXED32:
        return 5;
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return 2;
    default:
        fail_msg("type %d is not known to the codec's fast way", type);
        return 0;
    }
}

static void
the_tags_are_those_of_the_schema(void **state)
{
    static const ProtobufCMessageDescriptor *const messages[] = {
        REQUEST, REPLY, RANGE, READ, WRITE, DISCARD, ZEROES};
    size_t fields = 0;

    (void)state;
    /* A field that the schema gets is to be listed here, and either written
     * and read by codec_fast.c or declined by it. */
    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++)
        fields += messages[i]->n_fields;
    assert_int_equal(fields, sizeof known / sizeof known[0]);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field_by_name(known[i].message,
                                                            known[i].name);
        if (field == NULL)
            fail_msg("no field %s", known[i].name);
        assert_int_equal(field->label, PROTOBUF_C_LABEL_NONE);
        if (known[i].tag != 0)
            assert_int_equal(known[i].tag,
                             field->id << 3 | wire_type(field->type));
    }
    assert_ptr_equal(codec_method(WIRE_READ)->input, READ);
    assert_ptr_equal(codec_method(WIRE_WRITE)->input, WRITE);
    assert_ptr_equal(codec_method(WIRE_DISCARD)->input, DISCARD);
    assert_ptr_equal(codec_method(WIRE_WRITE_ZEROES)->input, ZEROES);
    assert_int_equal(codec_method(WIRE_FLUSH)->input->n_fields, 0);
}

/* ------------------------------------------------------------ encoding */

static bool
carries_data(uint32_t method)
{
    return method >= WIRE_READ && method <= WIRE_WRITE_ZEROES;
}

static void
random_request(struct codec_request *request)
{
    memset(request, 0, sizeof *request);
    request->method = one_in(4) ? next_random() % (WIRE_METHODS + 2)
                                : WIRE_READ + next_random() % 5;
    request->session = random_number();
    request->number = random_number();
    request->lowest = random_number();
    request->handle = random_number();
    request->deadline_ms = (uint32_t)random_number();
    request->has_secret = one_in(16);
    request->checksum = one_in(2) ? next_random() : 0;
    memset(request->secret, (int)next_random(), sizeof request->secret);
    if (!carries_data(request->method))
        return;
    request->args.range.sector = random_number();
    request->args.range.count = random_number();
    request->args.range.has_whole = one_in(2);
    request->args.range.whole_sector = random_number();
    request->args.range.whole_count = random_number();
    request->args.range.flags = next_random() % 8;
}

static void
requests_are_encoded_as_protobuf_c_does(void **state)
{
    struct codec_request request;
    uint8_t fast[2048], general[2048];

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        random_request(&request);
        size_t length =
            codec_general_encode_request(&request, general, sizeof general);
        size_t taken = codec_fast_encode_request(&request, fast, sizeof fast);
        bool wanted = carries_data(request.method) && !request.has_secret;
        assert_int_equal(taken, wanted ? length : 0);
        assert_memory_equal(fast, general, taken);
        /* Just enough room, or less. */
        size_t size = length - (length > 0 && one_in(2));
        memset(fast, 0xee, sizeof fast);
        taken = codec_encode_request(&request, fast, size);
        assert_int_equal(taken, size == length ? length : 0);
        assert_memory_equal(fast, general, taken);
        assert_int_equal(fast[size], 0xee);
    }
}

static void
replies_are_encoded_as_protobuf_c_does(void **state)
{
    struct codec_reply reply;
    uint8_t fast[4096], general[4096];

    (void)state;
    memset(&reply, 0, sizeof reply);
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t method = next_random() % (WIRE_METHODS + 2);
        const ProtobufCMethodDescriptor *found = codec_method(method);
        reply.status = one_in(8) ? -(int32_t)(next_random() % 21) : 0;
        reply.effect = next_random() % 3;
        strcpy(reply.text, one_in(2) ? "it failed" : "");
        reply.checksum = one_in(2) ? next_random() : 0;
        reply.number = random_number();
        reply.generation = random_number();
        reply.size_sectors = random_number();
        size_t length =
            codec_general_encode_reply(&reply, method, general, sizeof general);
        size_t taken =
            codec_fast_encode_reply(&reply, method, fast, sizeof fast);
        bool wanted =
            reply.status == 0 && found != NULL && found->output->n_fields == 0;
        assert_int_equal(taken, wanted ? length : 0);
        assert_memory_equal(fast, general, taken);
        size_t size = length - (length > 0 && one_in(2));
        memset(fast, 0xee, sizeof fast);
        taken = codec_encode_reply(&reply, method, fast, size);
        assert_int_equal(taken, size == length ? length : 0);
        assert_memory_equal(fast, general, taken);
        assert_int_equal(fast[size], 0xee);
    }
}

/* ------------------------------------------------------------ decoding */

#define MESSAGE_MAX 1024u

/* At the end of its memory, so that a checker sees each octet beyond. */
static uint8_t *memory;

static const uint8_t *
at_the_end(const uint8_t *bytes, size_t length)
{
    uint8_t *at = memory + MESSAGE_MAX - length;

    memcpy(at, bytes, length);
    return at;
}

/* Both ways; whether the fast one took it. */
static bool
request_is_decoded_alike(const uint8_t *bytes, size_t length)
{
    static struct codec_request front, general;
    struct error front_error = {0}, general_error = {0};
    bool front_bad = true, general_bad = true;

    memset(&front, 0, sizeof front);
    memset(&general, 0, sizeof general);
    bytes = at_the_end(bytes, length);
    int status = codec_general_decode_request(bytes, length, &general,
                                              &general_bad, &general_error);
    assert_int_equal(
        codec_decode_request(bytes, length, &front, &front_bad, &front_error),
        status);
    assert_int_equal(front_bad, general_bad);
    assert_string_equal(front_error.text, general_error.text);
    if (status == 0 || general_bad)
        assert_memory_equal(&front, &general, sizeof front);
    bool taken = codec_fast_decode_request(bytes, length, &front);
    assert_true(!taken || status == 0 || general_bad);
    return taken;
}

static bool
reply_is_decoded_alike(const uint8_t *bytes, size_t length, uint32_t method)
{
    static struct codec_reply front, general;
    static struct farblk_extent extents[2][4];
    struct error front_error = {0}, general_error = {0};
    ProtobufCBinaryData result;

    memset(&front, 0, sizeof front);
    memset(&general, 0, sizeof general);
    memset(extents, 0, sizeof extents);
    if (method == WIRE_EXTENTS) {
        front.result.extents.extents = extents[0];
        general.result.extents.extents = extents[1];
        front.result.extents.capacity = general.result.extents.capacity = 4;
    }
    bytes = at_the_end(bytes, length);
    int status = codec_general_decode_reply(bytes, length, method, &general,
                                            &general_error);
    assert_int_equal(
        codec_decode_reply(bytes, length, method, &front, &front_error),
        status);
    assert_string_equal(front_error.text, general_error.text);
    if (status == 0) {
        assert_memory_equal(extents[0], extents[1], sizeof extents[0]);
        if (method == WIRE_EXTENTS)
            general.result.extents.extents = extents[0];
        assert_memory_equal(&front, &general, sizeof front);
    }
    bool taken = codec_fast_decode_reply(bytes, length, &front, &result);
    assert_true(!taken || general.status == 0);
    return taken;
}

static void
what_is_encoded_is_decoded_without_protobuf_c(void **state)
{
    struct codec_request request;
    struct codec_reply reply;
    uint8_t bytes[2048];

    (void)state;
    memset(&reply, 0, sizeof reply);
    for (int round = 0; round < ROUNDS; round++) {
        random_request(&request);
        size_t length =
            codec_general_encode_request(&request, bytes, MESSAGE_MAX);
        assert_int_equal(request_is_decoded_alike(bytes, length),
                         carries_data(request.method) && !request.has_secret);
        uint32_t method = next_random() % (WIRE_METHODS + 2);
        reply.checksum = one_in(2) ? next_random() : 0;
        reply.number = random_number();
        reply.generation = random_number();
        reply.size_sectors = random_number();
        length = codec_general_encode_reply(&reply, method, bytes, MESSAGE_MAX);
        bool taken = reply_is_decoded_alike(bytes, length, method);
        assert_true(taken || method == WIRE_HELLO || method == WIRE_OPEN);
    }
}

/* ------------------------------------------------------------ hostile */

struct message {
    uint8_t at[MESSAGE_MAX];
    size_t length;
};

static void
put(struct message *message, uint64_t octet)
{
    if (message->length < MESSAGE_MAX / 2)
        message->at[message->length++] = (uint8_t)octet;
}

/* An integer, now and then longer than it need be, or too long. */
static void
put_varint(struct message *message, uint64_t value)
{
    unsigned shorter = 0;

    for (; value >= 0x80; value >>= 7, shorter++)
        put(message, value | 0x80);
    if (!one_in(40)) {
        put(message, value);
        return;
    }
    put(message, value | 0x80);
    for (uint32_t more = next_random() % 10; more > 0; more--)
        put(message, one_in(4) ? next_random() | 0x80 : 0x80);
    put(message, one_in(4) ? next_random() & 0x7f : 0);
}

static void put_fields(struct message *message, unsigned first, unsigned most,
                       int depth);

/* A field as the schemas have it at that number, or of another type. */
static void
put_field(struct message *message, unsigned number, int depth)
{
    /* 0: a header, 1: arguments, 2: a range */
    static const char *const types[] = {"00100002252", "0002000222",
                                        "000000000"};
    unsigned type = (unsigned)types[depth][number] - '0';
    struct message inner = {.length = 0};

    if (depth == 0 && number == 7 && one_in(2))
        type = 2;
    if (depth == 0 && number == 8 && one_in(3))
        type = 5; /* a reply's checksum */
    if (one_in(60))
        type = next_random() % 8;
    put_varint(message, number << 3 | type);
    switch (type) {
    case 0:
        put_varint(message, number == 1 && depth == 0 && !one_in(4)
                                ? WIRE_READ + next_random() % 5
                            : number >= 4 && depth == 1 ? next_random() % 3
                                                        : random_number());
        break;
    case 1:
        for (int i = 0; i < 8; i++)
            put(message, next_random());
        break;
    case 2:
        if (depth == 0 && number == 7 && one_in(2))
            for (unsigned i = 15 + next_random() % 3; i > 0; i--)
                put(&inner, next_random());
        else if (depth < 2)
            put_fields(&inner, 1, depth == 0 ? 6 : 3, depth + 1);
        put_varint(message, one_in(60) ? random_number() : inner.length);
        for (size_t i = 0; i < inner.length; i++)
            put(message, inner.at[i]);
        break;
    case 5:
        for (int i = 0; i < 4; i++)
            put(message, next_random());
        break;
    default:
        break;
    }
}

static void
put_fields(struct message *message, unsigned first, unsigned most, int depth)
{
    bool odd = one_in(3);

    for (unsigned number = first; number <= most; number++) {
        /* The last two are rare: a secret, or what is not known. */
        if (one_in(4) || (number == 7 && depth == 0 && !one_in(8))
            || (number == most && !one_in(8)))
            continue;
        put_field(message, odd && one_in(8) ? next_random() % most : number,
                  depth);
        if (odd && one_in(16))
            put_field(message, number, depth);
    }
}

static void
disturb(struct message *message)
{
    if (message->length == 0 || one_in(2))
        return;
    switch (next_random() % 4) {
    case 0:
        message->length = next_random() % message->length;
        break;
    case 1:
        message->at[next_random() % message->length] = (uint8_t)next_random();
        break;
    case 2:
        message->at[next_random() % message->length] ^=
            (uint8_t)(1u << next_random() % 8);
        break;
    default:
        put(message, next_random());
        break;
    }
}

static void
whatever_comes_is_decoded_as_protobuf_c_does(void **state)
{
    struct message message;
    struct codec_request request;
    unsigned requests = 0, replies = 0;

    (void)state;
    for (int round = 0; round < 2 * ROUNDS; round++) {
        message.length = 0;
        if (one_in(2)) {
            put_fields(&message, 1, 10, 0);
        } else {
            random_request(&request);
            message.length = codec_general_encode_request(&request, message.at,
                                                          sizeof message.at);
        }
        disturb(&message);
        requests += request_is_decoded_alike(message.at, message.length);
        message.length = 0;
        put_fields(&message, one_in(3) ? 1 : 4, 9, 0);
        disturb(&message);
        replies += reply_is_decoded_alike(message.at, message.length,
                                          next_random() % (WIRE_METHODS + 2));
    }
    /* Both ways were gone often. */
    assert_in_range(requests, ROUNDS / 10, 2 * ROUNDS - ROUNDS / 10);
    assert_in_range(replies, ROUNDS / 10, 2 * ROUNDS - ROUNDS / 10);
}

static void
every_cut_and_every_octet_of_a_message_is_decoded_alike(void **state)
{
    struct codec_request request = {0};
    struct codec_reply reply;
    struct message message;

    (void)state;
    memset(&reply, 0, sizeof reply);
    for (uint32_t method = WIRE_READ; method <= WIRE_WRITE_ZEROES; method++) {
        for (int round = 0; round < OCTET_ROUNDS; round++) {
            do
                random_request(&request);
            while (request.method != method);
            request.has_secret = false;
            reply.checksum = next_random();
            reply.number = random_number();
            reply.generation = random_number();
            reply.size_sectors = random_number();
            for (int kind = 0; kind < 2; kind++) {
                size_t length =
                    kind == 0
                        ? codec_encode_request(&request, message.at, 512)
                        : codec_encode_reply(&reply, method, message.at, 512);
                for (size_t cut = 0; cut <= length; cut++) {
                    request_is_decoded_alike(message.at, cut);
                    reply_is_decoded_alike(message.at, cut, method);
                }
                for (size_t i = 0; i < length; i++) {
                    uint8_t was = message.at[i];
                    for (unsigned octet = 0; octet < 256; octet++) {
                        message.at[i] = (uint8_t)octet;
                        request_is_decoded_alike(message.at, length);
                        reply_is_decoded_alike(message.at, length, method);
                    }
                    message.at[i] = was;
                }
            }
        }
    }
}

static int
take_memory(void **state)
{
    (void)state;
    memory = malloc(MESSAGE_MAX);
    return memory == NULL ? -1 : 0;
}

static int
give_memory(void **state)
{
    (void)state;
    free(memory);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tags_are_those_of_the_schema),
        cmocka_unit_test(requests_are_encoded_as_protobuf_c_does),
        cmocka_unit_test(replies_are_encoded_as_protobuf_c_does),
        cmocka_unit_test(what_is_encoded_is_decoded_without_protobuf_c),
        cmocka_unit_test(whatever_comes_is_decoded_as_protobuf_c_does),
        cmocka_unit_test(
            every_cut_and_every_octet_of_a_message_is_decoded_alike),
    };
    return cmocka_run_group_tests(tests, take_memory, give_memory);
}
