/* SPDX-License-Identifier: ISC */
/*
 * The codec before a hostile peer: fields that are too long, too many, too
 * large or of the wrong kind.  Bytes at random are in test_codec_fuzz.c.
 */
#include "proto/codec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ------------------------------------------------------------------------
 * Messages by hand
 */

struct bytes {
    uint8_t at[WIRE_HEADER_MAX + 64];
    size_t length;
};

static void
put_varint(struct bytes *to, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        to->at[to->length++] = (uint8_t)(value | 0x80);
    to->at[to->length++] = (uint8_t)value;
}

static void
put_number(struct bytes *to, uint32_t field, uint64_t value)
{
    put_varint(to, field << 3);
    put_varint(to, value);
}

static void
put_octets(struct bytes *to, uint32_t field, const void *from, size_t length)
{
    put_varint(to, field << 3 | 2);
    put_varint(to, length);
    memcpy(to->at + to->length, from, length);
    to->length += length;
}

static struct bytes header, args, inner;

/* Decode a request of that method with `args`. */
static int
decode_args(uint32_t method, struct codec_request *request, bool *args_bad,
            struct error *error)
{
    header.length = 0;
    put_number(&header, 1, method);
    put_number(&header, 3, 99);
    put_octets(&header, 8, args.at, args.length);
    return codec_decode_request(header.at, header.length, request, args_bad,
                                error);
}

static void
args_are_refused(uint32_t method, const char *why)
{
    struct codec_request request;
    struct error error;
    bool args_bad = false;

    assert_int_equal(decode_args(method, &request, &args_bad, &error),
                     FARBLK_PROTOCOL);
    assert_true(args_bad);
    assert_int_equal(request.number, 99);
    assert_int_equal(request.method, method);
    if (strstr(error.text, why) == NULL)
        fail_msg("'%s' does not say '%s'", error.text, why);
}

/* Decode a good reply of that method with `args` as its result. */
static int
decode_result(uint32_t method, struct codec_reply *reply, struct error *error)
{
    header.length = 0;
    put_octets(&header, 7, args.at, args.length);
    return codec_decode_reply(header.at, header.length, method, reply, error);
}

static void
result_is_refused(uint32_t method, struct codec_reply *reply, const char *why)
{
    struct error error;

    assert_int_equal(decode_result(method, reply, &error), FARBLK_PROTOCOL);
    if (strstr(error.text, why) == NULL)
        fail_msg("'%s' does not say '%s'", error.text, why);
}

/* ------------------------------------------------------------------------
 * Requests
 */

static void
a_secret_of_another_length_is_refused(void **state)
{
    struct codec_request request;
    struct error error;
    bool args_bad;

    (void)state;
    for (size_t length = 1; length < 40; length++) {
        header.length = 0;
        put_number(&header, 1, WIRE_PING);
        put_octets(&header, 7, args.at, length);
        int status = codec_decode_request(header.at, header.length, &request,
                                          &args_bad, &error);
        assert_int_equal(status,
                         length == WIRE_SECRET_SIZE ? 0 : FARBLK_PROTOCOL);
        assert_false(args_bad);
        assert_int_equal(request.has_secret, length == WIRE_SECRET_SIZE || 1);
    }
}

static void
a_token_of_more_octets_than_the_limit_is_refused(void **state)
{
    static const uint8_t octets[WIRE_TOKEN_MAX + 1] = {1};
    struct codec_request request;
    struct error error;
    bool args_bad;

    (void)state;
    args.length = 0;
    put_octets(&args, 3, octets, WIRE_TOKEN_MAX);
    assert_int_equal(decode_args(WIRE_OPEN, &request, &args_bad, &error), 0);
    assert_int_equal(request.args.open.token_length, WIRE_TOKEN_MAX);
    args.length = 0;
    put_octets(&args, 3, octets, WIRE_TOKEN_MAX + 1);
    args_are_refused(WIRE_OPEN, "a token of 257 octets; at most 256");
    args.length = 0;
    assert_int_equal(decode_args(WIRE_OPEN, &request, &args_bad, &error), 0);
    assert_int_equal(request.args.open.token_length, 0);
    for (size_t i = 0; i < WIRE_TOKEN_MAX; i++)
        assert_int_equal(request.args.open.token[i], 0);
}

static void
a_nonce_of_another_length_is_refused(void **state)
{
    (void)state;
    args.length = 0;
    put_octets(&args, 3, "0123456789abcdefg", 17);
    args_are_refused(WIRE_HELLO, "nonce has 17 octets, it must have 16");
}

static void
a_name_that_is_too_long_is_refused(void **state)
{
    char name[CODEC_NAME_LENGTH];

    (void)state;
    memset(name, 'a', sizeof name);
    args.length = 0;
    put_octets(&args, 1, name, sizeof name);
    args_are_refused(WIRE_OPEN, "has 256 octets, the limit is 255");
    args_are_refused(WIRE_LIST_DEVICES, "has 256 octets, the limit is 255");
}

static void
a_name_with_a_zero_in_it_is_refused(void **state)
{
    (void)state;
    args.length = 0;
    put_octets(&args, 1, "disk\0evil", 9);
    args_are_refused(WIRE_OPEN, "zero octet");
}

static void
a_piece_outside_of_its_whole_is_refused(void **state)
{
    static const struct {
        uint64_t sector, count, whole_sector, whole_count;
    } cases[] = {
        {1000000, 1, 0, 1},
        {0, 1, 1, 1},
        {0, 2, 0, 1},
        {UINT64_MAX, UINT64_MAX, 0, UINT64_MAX},
        {UINT64_MAX, 2, UINT64_MAX, 1},
    };
    static const uint32_t methods[] = {WIRE_READ, WIRE_WRITE, WIRE_DISCARD,
                                       WIRE_WRITE_ZEROES};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        inner.length = 0;
        put_number(&inner, 1, cases[i].whole_sector);
        put_number(&inner, 2, cases[i].whole_count);
        args.length = 0;
        put_number(&args, 1, cases[i].sector);
        put_number(&args, 2, cases[i].count);
        put_octets(&args, 3, inner.at, inner.length);
        for (size_t m = 0; m < 4; m++)
            args_are_refused(methods[m], "not within the whole range");
    }
}

static void
args_that_do_not_parse_are_told_apart_from_a_bad_header(void **state)
{
    (void)state;
    args.length = 0;
    put_varint(&args, 1 << 3 | 2); /* a length without its octets */
    put_varint(&args, 100);
    args_are_refused(WIRE_READ, "not a valid ReadRequest message");
}

static void
unknown_fields_are_ignored(void **state)
{
    struct codec_request request;
    struct error error;
    bool args_bad;

    (void)state;
    args.length = 0;
    put_number(&args, 1, 5);
    put_number(&args, 1000, 1);
    put_octets(&args, 1001, "what is this", 12);
    put_number(&args, 2, 6);
    assert_int_equal(decode_args(WIRE_READ, &request, &args_bad, &error), 0);
    assert_int_equal(request.args.range.sector, 5);
    assert_int_equal(request.args.range.count, 6);
}

static void
features_that_are_too_many_or_too_long_are_ignored(void **state)
{
    struct codec_request request;
    struct error error;
    bool args_bad;
    char name[32];

    (void)state;
    args.length = 0;
    memset(header.at, 'x', 200);
    put_octets(&args, 2, header.at, 200);
    for (int i = 0; i < 100; i++)
        put_octets(&args, 2, name, (size_t)snprintf(name, 32, "feature-%d", i));
    assert_int_equal(decode_args(WIRE_HELLO, &request, &args_bad, &error), 0);
    assert_int_equal(request.args.hello.features.count, CODEC_FEATURES_MAX);
    assert_string_equal(request.args.hello.features.name[0], "feature-0");
    assert_string_equal(request.args.hello.features.name[15], "feature-15");
}

/* 64 KiB of repeated fields would take protobuf-c megabytes. */
static void
a_header_that_would_take_much_memory_is_refused(void **state)
{
    struct codec_request request;
    struct error error;
    bool args_bad = false;

    (void)state;
    args.length = 0;
    while (args.length < 60000)
        put_octets(&args, 2, "", 0);
    assert_int_equal(decode_args(WIRE_HELLO, &request, &args_bad, &error),
                     FARBLK_PROTOCOL);
    assert_true(args_bad);
    assert_non_null(strstr(error.text, "needs more than"));
}

static void
a_header_above_the_limit_is_refused(void **state)
{
    struct codec_request request;
    struct codec_reply reply;
    struct error error;
    bool args_bad;

    (void)state;
    memset(header.at, 0, sizeof header.at);
    assert_int_equal(codec_decode_request(header.at, WIRE_HEADER_MAX + 1,
                                          &request, &args_bad, &error),
                     FARBLK_PROTOCOL);
    assert_int_equal(codec_decode_reply(header.at, WIRE_HEADER_MAX + 1,
                                        WIRE_READ, &reply, &error),
                     FARBLK_PROTOCOL);
}

/* ------------------------------------------------------------------------
 * Replies
 */

static struct codec_device devices[4];
static struct farblk_extent extents[4];

static void
set_extents(struct codec_reply *reply, uint64_t first)
{
    reply->result.extents.extents = extents;
    reply->result.extents.capacity = 4;
    reply->result.extents.first_sector = first;
}

static void
put_packed(struct bytes *to, uint32_t field, size_t count,
           const uint64_t *values)
{
    inner.length = 0;
    for (size_t i = 0; i < count; i++)
        put_varint(&inner, values[i]);
    put_octets(to, field, inner.at, inner.length);
}

static void
extents_that_make_no_sense_are_refused(void **state)
{
    static const uint64_t ones[] = {1, 1, 1, 1, 1};
    static const uint64_t zero[] = {1, 0};
    static const uint64_t huge[] = {UINT64_MAX, 1};
    struct codec_reply reply;

    (void)state;
    set_extents(&reply, 0);
    args.length = 0;
    put_packed(&args, 1, 3, ones);
    put_packed(&args, 2, 2, ones);
    result_is_refused(WIRE_EXTENTS, &reply, "3 counts and 2 kinds");
    args.length = 0;
    put_packed(&args, 1, 5, ones);
    put_packed(&args, 2, 5, ones);
    result_is_refused(WIRE_EXTENTS, &reply, "5 extents in one reply");
    args.length = 0;
    put_packed(&args, 1, 2, zero);
    put_packed(&args, 2, 2, ones);
    result_is_refused(WIRE_EXTENTS, &reply, "an extent of 0 sectors");
    args.length = 0;
    put_packed(&args, 1, 2, huge);
    put_packed(&args, 2, 2, ones);
    result_is_refused(WIRE_EXTENTS, &reply, "sectors at sector");
    set_extents(&reply, UINT64_MAX);
    args.length = 0;
    put_packed(&args, 1, 1, ones);
    put_packed(&args, 2, 1, ones);
    result_is_refused(WIRE_EXTENTS, &reply, "an extent of 1 sectors");
}

static void
info_that_makes_no_sense_is_refused(void **state)
{
    static const struct {
        uint64_t sector_size, sectors, max, preferred;
        const char *why;
    } cases[] = {
        {0, 1, 512, 512, "power of two"},
        {256, 1, 512, 512, "power of two"},
        {513, 1, 513, 513, "power of two"},
        {131072, 1, 131072, 131072, "power of two"},
        {UINT32_MAX, 1, 512, 512, "power of two"},
        {512, 1ull << 54, 512, 512, "are more than"},
        {512, UINT64_MAX, 512, 512, "are more than"},
        {512, 1, 0, 512, "largest transfer"},
        {512, 1, 1000, 512, "largest transfer"},
        {512, 1, 512, 0, "preferred transfer"},
        {512, 1, 512, 513, "preferred transfer"},
    };
    struct codec_reply reply;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        inner.length = 0;
        put_number(&inner, 2, cases[i].sector_size);
        put_number(&inner, 3, cases[i].sectors);
        put_number(&inner, 6, cases[i].max);
        put_number(&inner, 7, cases[i].preferred);
        args.length = 0;
        put_octets(&args, 1, inner.at, inner.length);
        result_is_refused(WIRE_GET_INFO, &reply, cases[i].why);
    }
    args.length = 0;
    result_is_refused(WIRE_GET_INFO, &reply, "has no info");
    result_is_refused(WIRE_OPEN, &reply, "handle 0");
}

static void
lists_that_make_no_sense_are_refused(void **state)
{
    struct codec_reply reply;

    (void)state;
    reply.result.list.devices = devices;
    reply.result.list.capacity = 4;
    inner.length = 0;
    put_octets(&inner, 1, "disk", 4);
    put_number(&inner, 3, 512);
    args.length = 0;
    for (int i = 0; i < 5; i++)
        put_octets(&args, 1, inner.at, inner.length);
    result_is_refused(WIRE_LIST_DEVICES, &reply, "5 devices in one reply");
    args.length = 0;
    put_number(&args, 2, 1);
    result_is_refused(WIRE_LIST_DEVICES, &reply, "no device, but more");
    inner.length = 0;
    put_number(&inner, 3, 512);
    args.length = 0;
    put_octets(&args, 1, inner.at, inner.length);
    result_is_refused(WIRE_LIST_DEVICES, &reply, "name is empty");
}

static void
a_hello_without_sense_is_refused(void **state)
{
    struct codec_reply reply;

    (void)state;
    args.length = 0;
    result_is_refused(WIRE_HELLO, &reply, "session 0");
    put_varint(&args, 3 << 3 | 1);
    memset(args.at + args.length, 1, 8);
    args.length += 8;
    put_number(&args, 6, 30000);
    size_t session = args.length;
    put_octets(&args, 4, "short", 5);
    result_is_refused(WIRE_HELLO, &reply, "secret has 5 octets");
    args.length = session;
    put_octets(&args, 4, "0123456789abcdef", 16);
    put_octets(&args, 5, "0123456789abcdef", 16);
    size_t limits = args.length;
    result_is_refused(WIRE_HELLO, &reply, "no limits");
    args.length = limits;
    inner.length = 0;
    put_number(&inner, 1, 1);
    put_number(&inner, 2, 1ull << 40);
    put_number(&inner, 3, WIRE_PAYLOAD_CEILING + 1ull);
    put_number(&inner, 4, WIRE_HEADER_MAX);
    put_number(&inner, 5, 1);
    put_number(&inner, 6, 1);
    put_octets(&args, 7, inner.at, inner.length);
    result_is_refused(WIRE_HELLO, &reply, "limits make no sense");
}

static void
a_status_that_is_not_known_becomes_unknown_with_the_text(void **state)
{
    static const uint64_t zigzag[] = {
        2 * 21 - 1, /* -21 */
        2 * 7, /* +7 */
        0xffffffff, /* INT32_MIN */
    };
    struct codec_reply reply;
    struct error error;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        header.length = 0;
        put_number(&header, 1, zigzag[i]);
        put_number(&header, 2, 77);
        put_octets(&header, 3, "a \033[1m\0text", 11);
        assert_int_equal(codec_decode_reply(header.at, header.length, WIRE_READ,
                                            &reply, &error),
                         0);
        assert_int_equal(reply.status, FARBLK_UNKNOWN);
        assert_int_equal(reply.effect, FARBLK_EFFECT_UNKNOWN);
        assert_string_equal(reply.text, "a ?[1m");
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_secret_of_another_length_is_refused),
        cmocka_unit_test(a_token_of_more_octets_than_the_limit_is_refused),
        cmocka_unit_test(a_nonce_of_another_length_is_refused),
        cmocka_unit_test(a_name_that_is_too_long_is_refused),
        cmocka_unit_test(a_name_with_a_zero_in_it_is_refused),
        cmocka_unit_test(a_piece_outside_of_its_whole_is_refused),
        cmocka_unit_test(
            args_that_do_not_parse_are_told_apart_from_a_bad_header),
        cmocka_unit_test(unknown_fields_are_ignored),
        cmocka_unit_test(features_that_are_too_many_or_too_long_are_ignored),
        cmocka_unit_test(a_header_that_would_take_much_memory_is_refused),
        cmocka_unit_test(a_header_above_the_limit_is_refused),
        cmocka_unit_test(extents_that_make_no_sense_are_refused),
        cmocka_unit_test(info_that_makes_no_sense_is_refused),
        cmocka_unit_test(lists_that_make_no_sense_are_refused),
        cmocka_unit_test(a_hello_without_sense_is_refused),
        cmocka_unit_test(
            a_status_that_is_not_known_becomes_unknown_with_the_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
