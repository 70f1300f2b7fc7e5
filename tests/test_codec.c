/* SPDX-License-Identifier: ISC */
/*
 * The codec: every method's request and reply there and back, with the
 * smallest and the largest values.  What a hostile peer may send is in
 * test_codec_hostile.c.
 */
#include "proto/codec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint8_t bytes[WIRE_HEADER_MAX];

/* Encode, decode, and demand that nothing was lost. */
static void
same_request(const struct codec_request *request)
{
    struct codec_request back;
    struct error error;
    bool args_bad = true;

    memset(&back, 0, sizeof back); /* what is not the method's is undefined */
    size_t length = codec_encode_request(request, bytes, sizeof bytes);
    assert_true(length > 0);
    int status = codec_decode_request(bytes, length, &back, &args_bad, &error);
    if (status != 0)
        fail_msg("%s: %s", codec_method_name(request->method), error.text);
    assert_false(args_bad);
    assert_memory_equal(request, &back, sizeof back);
    /* One octet less than it needs is not enough. */
    assert_int_equal(codec_encode_request(request, bytes, length - 1), 0);
    assert_int_equal(codec_encode_request(request, bytes, length), length);
}

static void
fill_header(struct codec_request *request, uint32_t method, bool large)
{
    memset(request, 0, sizeof *request);
    request->method = method;
    if (!large)
        return;
    request->session = UINT64_MAX;
    request->number = UINT64_MAX;
    request->lowest = UINT64_MAX;
    request->handle = UINT64_MAX;
    request->deadline_ms = UINT32_MAX;
    request->checksum = UINT32_MAX;
    request->has_secret = true;
    memset(request->secret, 0xff, sizeof request->secret);
}

static void
fill_name(char *name, size_t size)
{
    memset(name, 'n', size - 1);
    name[size - 1] = 0;
}

static void
fill_range(struct codec_request *request)
{
    request->args.range.sector = UINT64_MAX;
    request->args.range.count = 0;
    request->args.range.has_whole = true;
    request->args.range.whole_sector = UINT64_MAX;
    request->args.range.whole_count = UINT64_MAX;
    if (request->method != WIRE_READ)
        request->args.range.flags = FARBLK_FUA;
    if (request->method == WIRE_WRITE_ZEROES)
        request->args.range.flags |= FARBLK_NO_UNMAP;
}

static void
fill_args(struct codec_request *request)
{
    switch (request->method) {
    case WIRE_HELLO:
        request->args.hello.version = UINT32_MAX;
        request->args.hello.features.count = CODEC_FEATURES_MAX;
        for (size_t i = 0; i < CODEC_FEATURES_MAX; i++)
            fill_name(request->args.hello.features.name[i],
                      CODEC_FEATURE_LENGTH);
        request->args.hello.has_nonce = true;
        memset(request->args.hello.nonce, 0xee, WIRE_NONCE_SIZE);
        fill_name(request->args.hello.client, CODEC_NAME_LENGTH);
        break;
    case WIRE_LIST_DEVICES:
        fill_name(request->args.list.after, CODEC_NAME_LENGTH);
        break;
    case WIRE_OPEN:
        fill_name(request->args.open.name, CODEC_NAME_LENGTH);
        request->args.open.read_only = true;
        request->args.open.token_length = WIRE_TOKEN_MAX;
        memset(request->args.open.token, 0xee, WIRE_TOKEN_MAX);
        break;
    case WIRE_READ:
    case WIRE_WRITE:
    case WIRE_DISCARD:
    case WIRE_WRITE_ZEROES:
        fill_range(request);
        break;
    case WIRE_RESIZE:
        request->args.resize.size_sectors = UINT64_MAX;
        request->args.resize.flags = FARBLK_FUA;
        break;
    case WIRE_SEEK_MAPPED:
    case WIRE_SEEK_UNMAPPED:
        request->args.seek.sector = UINT64_MAX;
        break;
    case WIRE_EXTENTS:
        request->args.extents.sector = UINT64_MAX;
        request->args.extents.count = UINT64_MAX;
        request->args.extents.max = UINT32_MAX;
        break;
    case WIRE_WATCH_INFO:
        request->args.watch.generation = UINT64_MAX;
        request->args.watch.timeout_ms = UINT32_MAX;
        break;
    case WIRE_CANCEL:
        request->args.cancel.number = UINT64_MAX;
        break;
    default:
        break;
    }
}

static void
every_request_comes_back_with_the_smallest_values(void **state)
{
    struct codec_request request;

    (void)state;
    for (uint32_t method = 1; method < WIRE_METHODS; method++) {
        fill_header(&request, method, false);
        same_request(&request);
    }
}

static void
every_request_comes_back_with_the_largest_values(void **state)
{
    struct codec_request request;

    (void)state;
    for (uint32_t method = 1; method < WIRE_METHODS; method++) {
        fill_header(&request, method, true);
        fill_args(&request);
        same_request(&request);
    }
}

static void
each_flag_travels_by_itself(void **state)
{
    static const struct {
        uint32_t method, flags;
    } cases[] = {
        {WIRE_WRITE, FARBLK_FUA},
        {WIRE_DISCARD, FARBLK_FUA},
        {WIRE_WRITE_ZEROES, FARBLK_FUA},
        {WIRE_WRITE_ZEROES, FARBLK_NO_UNMAP},
    };
    struct codec_request request;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fill_header(&request, cases[i].method, false);
        request.args.range.flags = cases[i].flags;
        request.args.range.count = 1;
        same_request(&request);
    }
}

static void
methods_have_the_names_and_numbers_of_the_service(void **state)
{
    (void)state;
    assert_string_equal(codec_method_name(WIRE_HELLO), "Hello");
    assert_string_equal(codec_method_name(WIRE_READ), "Read");
    assert_string_equal(codec_method_name(WIRE_SEEK_UNMAPPED), "SeekUnmapped");
    assert_string_equal(codec_method_name(WIRE_WATCH_INFO), "WatchInfo");
    assert_string_equal(codec_method_name(0), "?");
    assert_string_equal(codec_method_name(WIRE_METHODS), "?");
    assert_string_equal(codec_method_name(UINT32_MAX), "?");
}

static void
an_unknown_method_has_its_header_decoded(void **state)
{
    struct codec_request request, back;
    struct error error;
    bool args_bad = true;

    (void)state;
    fill_header(&request, 4711, true);
    size_t length = codec_encode_request(&request, bytes, sizeof bytes);
    assert_int_equal(
        codec_decode_request(bytes, length, &back, &args_bad, &error), 0);
    assert_false(args_bad);
    assert_memory_equal(&request, &back, sizeof back);
}

/* ------------------------------------------------------------------------
 * Replies
 */

static struct codec_device devices[CODEC_DEVICES_MAX];
static struct codec_device devices_back[CODEC_DEVICES_MAX];
static struct farblk_extent extents[CODEC_EXTENTS_MAX];
static struct farblk_extent extents_back[CODEC_EXTENTS_MAX];

static size_t
encode_reply(const struct codec_reply *reply, uint32_t method)
{
    size_t length = codec_encode_reply(reply, method, bytes, sizeof bytes);

    assert_true(length > 0);
    assert_int_equal(codec_encode_reply(reply, method, bytes, length - 1), 0);
    return codec_encode_reply(reply, method, bytes, length);
}

static void
decode_reply(size_t length, uint32_t method, struct codec_reply *back)
{
    struct error error;

    if (codec_decode_reply(bytes, length, method, back, &error) != 0)
        fail_msg("%s: %s", codec_method_name(method), error.text);
}

static void
fill_info(struct codec_info *info, bool large)
{
    info->sector_size = large ? FARBLK_SECTOR_MAX : FARBLK_SECTOR_MIN;
    info->max_transfer = info->sector_size;
    info->preferred_transfer = info->sector_size;
    if (!large)
        return;
    info->read_write = true;
    info->size_sectors = INT64_MAX / FARBLK_SECTOR_MAX;
    info->generation = UINT64_MAX;
    info->features = UINT64_MAX;
    info->max_transfer = UINT32_MAX / FARBLK_SECTOR_MAX * FARBLK_SECTOR_MAX;
    info->preferred_transfer = info->max_transfer;
}

static void
fill_limits(struct codec_limits *limits, bool large)
{
    *limits = (struct codec_limits){
        .max_requests = large ? UINT32_MAX : 1,
        .max_octets = large ? UINT64_MAX : FARBLK_SECTOR_MIN,
        .max_payload = large ? WIRE_PAYLOAD_CEILING : FARBLK_SECTOR_MIN,
        .max_header = large ? UINT32_MAX : WIRE_HEADER_LEAST,
        .max_handles = large ? UINT32_MAX : 1,
        .max_extents = large ? UINT32_MAX : 1,
    };
}

/* A result that is one struct, without arrays of the caller's. */
static void
fill_result(struct codec_reply *reply, uint32_t method, bool large)
{
    switch (method) {
    case WIRE_HELLO:
        reply->result.hello.session = large ? UINT64_MAX : 1;
        reply->result.hello.lease_ms = large ? UINT32_MAX : 1;
        fill_limits(&reply->result.hello.limits, large);
        if (!large)
            break;
        reply->result.hello.version = UINT32_MAX;
        reply->result.hello.features.count = 1;
        fill_name(reply->result.hello.features.name[0], CODEC_FEATURE_LENGTH);
        memset(reply->result.hello.secret, 0xab, WIRE_SECRET_SIZE);
        memset(reply->result.hello.instance, 0xcd, WIRE_INSTANCE_SIZE);
        fill_name(reply->result.hello.server, CODEC_NAME_LENGTH);
        break;
    case WIRE_OPEN:
        reply->result.open.handle = large ? UINT64_MAX : 1;
        fill_info(&reply->result.open.info, large);
        memset(reply->result.open.content, large ? 0xff : 0,
               WIRE_INSTANCE_SIZE);
        break;
    case WIRE_GET_INFO:
        fill_info(&reply->result.info.info, large);
        break;
    case WIRE_SEEK_MAPPED:
    case WIRE_SEEK_UNMAPPED:
        reply->result.seek.sector = large ? UINT64_MAX : 0;
        break;
    case WIRE_WATCH_INFO:
        reply->result.watch.generation = large ? UINT64_MAX : 0;
        break;
    case WIRE_CANCEL:
        reply->result.cancel.fenced = large;
        break;
    case WIRE_SHARE_MEMORY:
        memset(reply->result.share.token, large ? 0xff : 0, WIRE_TOKEN_SIZE);
        break;
    default:
        break;
    }
}

static bool
has_result(uint32_t method)
{
    switch (method) {
    case WIRE_HELLO:
    case WIRE_LIST_DEVICES:
    case WIRE_OPEN:
    case WIRE_GET_INFO:
    case WIRE_SEEK_MAPPED:
    case WIRE_SEEK_UNMAPPED:
    case WIRE_EXTENTS:
    case WIRE_WATCH_INFO:
    case WIRE_SHARE_MEMORY:
    case WIRE_CANCEL:
        return true;
    default:
        return false;
    }
}

static void
every_reply_comes_back_with_smallest_and_largest_values(void **state)
{
    struct codec_reply reply, back;

    (void)state;
    for (uint32_t method = 1; method < WIRE_METHODS; method++) {
        for (int large = 0; large < 2; large++) {
            if (method == WIRE_LIST_DEVICES || method == WIRE_EXTENTS)
                continue;
            memset(&reply, 0, sizeof reply);
            memset(&back, 0x5a, sizeof back);
            reply.number = large ? UINT64_MAX : 1;
            reply.generation = large ? UINT64_MAX : 0;
            reply.size_sectors = large ? UINT64_MAX : 0;
            reply.checksum = large ? UINT32_MAX : 0;
            fill_result(&reply, method, large);
            decode_reply(encode_reply(&reply, method), method, &back);
            assert_string_equal(back.text, "");
            memset(back.text, 0, sizeof back.text);
            if (!has_result(method)) /* undefined */
                memset(&back.result, 0, sizeof back.result);
            assert_memory_equal(&reply, &back,
                                offsetof(struct codec_reply, checksum));
            assert_int_equal(reply.checksum, back.checksum);
            assert_memory_equal(&reply.result, &back.result,
                                sizeof back.result);
        }
    }
}

static void
an_error_comes_back_with_effect_and_text_and_without_a_result(void **state)
{
    struct codec_reply reply, back;

    (void)state;
    for (uint32_t method = 0; method <= WIRE_METHODS; method++) {
        for (int status = FARBLK_APPEND_ONLY; status < 0; status++) {
            memset(&reply, 0, sizeof reply);
            reply.status = status;
            reply.effect = (uint32_t)(-status % 3);
            reply.number = 7;
            fill_name(reply.text, sizeof reply.text);
            decode_reply(encode_reply(&reply, method), method, &back);
            assert_int_equal(back.status, status);
            assert_int_equal(back.effect, reply.effect);
            assert_int_equal(back.number, 7);
            assert_string_equal(back.text, reply.text);
        }
    }
}

static void
lists_come_back_empty_and_full(void **state)
{
    struct codec_reply reply, back;

    (void)state;
    for (size_t count = 0; count <= CODEC_DEVICES_MAX; count += 64) {
        memset(&reply, 0, sizeof reply);
        reply.number = 1; /* so that it is not empty */
        memset(devices, 0, sizeof devices);
        for (size_t i = 0; i < count; i++) {
            fill_name(devices[i].name, sizeof devices[i].name);
            devices[i].read_write = i % 2;
            devices[i].sector_size = FARBLK_SECTOR_MIN;
            devices[i].size_sectors = INT64_MAX / FARBLK_SECTOR_MIN;
        }
        reply.result.list.devices = devices;
        reply.result.list.count = count;
        reply.result.list.more = count > 0;
        back.result.list.devices = devices_back;
        back.result.list.capacity = CODEC_DEVICES_MAX;
        decode_reply(encode_reply(&reply, WIRE_LIST_DEVICES), WIRE_LIST_DEVICES,
                     &back);
        assert_int_equal(back.result.list.count, count);
        assert_int_equal(back.result.list.more, count > 0);
        for (size_t i = 0; i < count; i++) {
            assert_string_equal(devices[i].name, devices_back[i].name);
            assert_int_equal(devices[i].read_write, devices_back[i].read_write);
            assert_int_equal(devices[i].size_sectors,
                             devices_back[i].size_sectors);
        }
    }
}

static void
extents_come_back_empty_and_full(void **state)
{
    struct codec_reply reply, back;

    (void)state;
    for (size_t count = 0; count <= CODEC_EXTENTS_MAX; count += 2048) {
        memset(&reply, 0, sizeof reply);
        reply.number = 1;
        uint64_t at = 12345;
        for (size_t i = 0; i < count; i++) {
            extents[i].start = at;
            extents[i].count = (UINT64_MAX - 20000) / CODEC_EXTENTS_MAX;
            extents[i].mapped = i % 3 == 0;
            at += extents[i].count;
        }
        reply.result.extents.extents = extents;
        reply.result.extents.count = count;
        back.result.extents.extents = extents_back;
        back.result.extents.capacity = CODEC_EXTENTS_MAX;
        back.result.extents.first_sector = 12345;
        decode_reply(encode_reply(&reply, WIRE_EXTENTS), WIRE_EXTENTS, &back);
        assert_int_equal(back.result.extents.count, count);
        assert_memory_equal(extents, extents_back, count * sizeof extents[0]);
    }
}

static void
more_than_the_arrays_limits_is_not_encoded(void **state)
{
    static struct farblk_extent many[CODEC_EXTENTS_MAX + 1];
    struct codec_reply reply = {0};

    (void)state;
    reply.result.extents.extents = many;
    reply.result.extents.count = CODEC_EXTENTS_MAX + 1;
    assert_int_equal(
        codec_encode_reply(&reply, WIRE_EXTENTS, bytes, sizeof bytes), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_request_comes_back_with_the_smallest_values),
        cmocka_unit_test(every_request_comes_back_with_the_largest_values),
        cmocka_unit_test(each_flag_travels_by_itself),
        cmocka_unit_test(methods_have_the_names_and_numbers_of_the_service),
        cmocka_unit_test(an_unknown_method_has_its_header_decoded),
        cmocka_unit_test(
            every_reply_comes_back_with_smallest_and_largest_values),
        cmocka_unit_test(
            an_error_comes_back_with_effect_and_text_and_without_a_result),
        cmocka_unit_test(lists_come_back_empty_and_full),
        cmocka_unit_test(extents_come_back_empty_and_full),
        cmocka_unit_test(more_than_the_arrays_limits_is_not_encoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
