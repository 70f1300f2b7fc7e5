/* SPDX-License-Identifier: ISC */
/*
 * The codec before bytes that are cut, changed or made up: the same ones in
 * each run.  Built with sanitizers it would tell of any octet too far.
 */
#include "proto/codec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct codec_device devices[1];
static struct farblk_extent extents[2];
static uint64_t seed = 20240229;

static uint32_t
next_random(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33);
}

static struct codec_device many_devices[CODEC_DEVICES_MAX];
static struct farblk_extent many_extents[CODEC_EXTENTS_MAX];

static void
decode_all(const uint8_t *from, size_t length, uint32_t method)
{
    struct codec_request request;
    struct codec_reply reply;
    struct error error;
    bool args_bad;

    /* In memory of just that size, so that a checker sees each octet beyond. */
    uint8_t *exact = malloc(length == 0 ? 1 : length);
    memcpy(exact, from, length);
    codec_decode_request(exact, length, &request, &args_bad, &error);
    if (method == WIRE_LIST_DEVICES) {
        reply.result.list.devices = many_devices;
        reply.result.list.capacity = CODEC_DEVICES_MAX;
    } else if (method == WIRE_EXTENTS) {
        reply.result.extents.first_sector = next_random();
        reply.result.extents.extents = many_extents;
        reply.result.extents.capacity = CODEC_EXTENTS_MAX;
    }
    int status = codec_decode_reply(exact, length, method, &reply, &error);
    assert_true(status == 0 || status == FARBLK_PROTOCOL);
    free(exact);
}

static size_t
make_request(uint32_t method, uint8_t *to, size_t size)
{
    struct codec_request request = {0};

    request.method = method;
    request.session = next_random();
    request.number = next_random();
    request.has_secret = next_random() % 2;
    if (method == WIRE_HELLO) {
        request.args.hello.features.count = 2;
        strcpy(request.args.hello.features.name[0], "one");
        strcpy(request.args.hello.features.name[1], "two");
        request.args.hello.has_nonce = true;
        strcpy(request.args.hello.client, "somebody");
    } else if (method == WIRE_OPEN || method == WIRE_LIST_DEVICES) {
        strcpy(method == WIRE_OPEN ? request.args.open.name
                                   : request.args.list.after,
               "disk0");
    } else if (method == WIRE_PING) {
        request.args.ping.take_over = next_random() % 2;
    } else if (method == WIRE_CANCEL) {
        request.args.cancel.number = next_random();
    } else if (method != WIRE_SHARE_MEMORY) {
        request.args.range.sector = next_random();
        request.args.range.count = next_random() % 100;
        if (method >= WIRE_READ && method <= WIRE_WRITE_ZEROES
            && method != WIRE_FLUSH) {
            request.args.range.has_whole = true;
            request.args.range.whole_count = UINT64_MAX;
        }
    }
    return codec_encode_request(&request, to, size);
}

static size_t
make_reply(uint32_t method, uint8_t *to, size_t size)
{
    struct codec_reply reply = {0};

    reply.number = next_random();
    reply.status = next_random() % 4 == 0 ? FARBLK_IO : 0;
    strcpy(reply.text, "something failed");
    if (method == WIRE_LIST_DEVICES) {
        memset(devices, 0, sizeof devices);
        strcpy(devices[0].name, "disk0");
        devices[0].sector_size = 512;
        reply.result.list.devices = devices;
        reply.result.list.count = 1;
    } else if (method == WIRE_EXTENTS) {
        extents[0].count = 1;
        extents[1].count = next_random();
        reply.result.extents.extents = extents;
        reply.result.extents.count = 2;
    } else if (method == WIRE_HELLO) {
        reply.result.hello.session = 1;
        reply.result.hello.lease_ms = 1;
        reply.result.hello.limits.max_requests = 1;
    } else if (method == WIRE_OPEN) {
        reply.result.open.handle = 3;
        reply.result.open.info.sector_size = 512;
    }
    return codec_encode_reply(&reply, method, to, size);
}

static void
bytes_that_are_cut_changed_or_made_up_never_crash(void **state)
{
    static uint8_t bytes[4096];

    (void)state;
    for (int round = 0; round < 100000; round++) {
        uint32_t method = 1 + next_random() % (WIRE_METHODS - 1);
        size_t length = next_random() % 2 ? make_request(method, bytes, 2048)
                                          : make_reply(method, bytes, 2048);
        assert_true(length > 0);
        switch (next_random() % 4) {
        case 0:
            length = next_random() % length;
            break;
        case 1:
            for (uint32_t n = 1 + next_random() % 8; n > 0; n--)
                bytes[next_random() % length] = (uint8_t)next_random();
            break;
        case 2:
            bytes[next_random() % length] ^= (uint8_t)(1u << next_random() % 8);
            break;
        default:
            length = next_random() % 300;
            for (size_t i = 0; i < length; i++)
                bytes[i] = (uint8_t)next_random();
        }
        decode_all(bytes, length, method);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_that_are_cut_changed_or_made_up_never_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
