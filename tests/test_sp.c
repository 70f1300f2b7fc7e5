/* SPDX-License-Identifier: ISC */
/*
 * SP framing as bytes: what is a message, what is not yet one, and what never
 * will be.
 */
#include "proto/sp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAYLOAD_MAX 1000u

static uint8_t bytes[SP_HEAD_MAX + 16];

/* A frame with that many hops. */
static size_t
make(bool ipc, unsigned hops, size_t header, uint64_t payload)
{
    uint64_t body = 4u * (hops + 1) + 4 + header + payload;
    size_t at = sp_put_prefix(bytes, ipc, body);

    for (unsigned i = 0; i < hops; i++, at += 4)
        sp_put32(bytes + at, 0x7fffffffu - i);
    sp_put32(bytes + at, 0x80000000u);
    sp_put32(bytes + at + 4, (uint32_t)header);
    memset(bytes + at + 8, 0xaa, header);
    return at + 8 + header;
}

/* Parse in memory of just that size. */
static int
parse(size_t length, bool ipc, struct sp_head *head, struct error *error)
{
    uint8_t *exact = malloc(length == 0 ? 1 : length);

    memcpy(exact, bytes, length);
    int result = sp_parse(exact, length, ipc, PAYLOAD_MAX, head, error);
    if (result > 0) /* the caller may look at the pointers */
        result = sp_parse(bytes, length, ipc, PAYLOAD_MAX, head, error);
    free(exact);
    return result;
}

static void
a_head_is_found_when_it_is_whole_and_not_before(void **state)
{
    static const size_t headers[] = {0, 1, 300};
    struct sp_head head;
    struct error error;

    (void)state;
    for (int ipc = 0; ipc < 2; ipc++)
        for (unsigned hops = 0; hops <= WIRE_HOPS_MAX; hops++)
            for (size_t h = 0; h < 3; h++) {
                size_t whole = make(ipc, hops, headers[h], 77);
                for (size_t length = 0; length < whole; length++)
                    assert_int_equal(parse(length, ipc, &head, &error), 0);
                assert_int_equal(parse(whole, ipc, &head, &error), whole);
                assert_int_equal(parse(whole + 16, ipc, &head, &error), whole);
                assert_int_equal(head.stack_length, 4 * (hops + 1));
                assert_ptr_equal(head.stack, bytes + (ipc ? 9 : 8));
                assert_int_equal(head.id, 0x80000000u);
                assert_int_equal(head.header_length, headers[h]);
                assert_ptr_equal(head.header, bytes + whole - headers[h]);
                assert_int_equal(head.payload_length, 77);
            }
}

static void
the_largest_head_fits_the_buffers(void **state)
{
    struct sp_head head;
    struct error error;

    (void)state;
    assert_int_equal(make(true, WIRE_HOPS_MAX, WIRE_HEADER_MAX, 0),
                     SP_HEAD_MAX);
    assert_int_equal(parse(SP_HEAD_MAX, true, &head, &error), SP_HEAD_MAX);
}

static void
refused(size_t length, bool ipc, const char *why)
{
    struct sp_head head;
    struct error error;

    assert_int_equal(parse(length, ipc, &head, &error), FARBLK_PROTOCOL);
    if (strstr(error.text, why) == NULL)
        fail_msg("'%s' does not say '%s'", error.text, why);
}

static void
a_type_octet_of_another_kind_is_refused(void **state)
{
    (void)state;
    make(true, 0, 0, 0);
    bytes[0] = 2;
    refused(1, true, "type 0x02");
}

static void
lengths_that_can_not_be_are_refused_at_once(void **state)
{
    static const uint64_t small[] = {0, 4, 7};
    static const uint64_t large[] = {
        WIRE_STACK_MAX + 4ull + WIRE_HEADER_MAX + PAYLOAD_MAX + 1,
        1ull << 32,
        1ull << 63,
        UINT64_MAX,
    };

    (void)state;
    for (size_t i = 0; i < 3; i++)
        refused(sp_put_prefix(bytes, false, small[i]), false, "the least is 8");
    for (size_t i = 0; i < 4; i++)
        refused(sp_put_prefix(bytes, true, large[i]), true, "the limit is");
}

static void
more_than_eight_hops_are_refused(void **state)
{
    (void)state;
    size_t length = make(false, WIRE_HOPS_MAX + 1, 0, 0);
    refused(length, false, "no request id after 8 hops");
}

static void
a_frame_that_ends_in_its_stack_is_refused(void **state)
{
    (void)state;
    size_t at = sp_put_prefix(bytes, false, 10);
    memset(bytes + at, 0, 20);
    refused(at + 10, false, "without a request id");
    /* A hop and a request id, and nothing left for the header's length. */
    sp_put_prefix(bytes, false, 8);
    sp_put32(bytes + at + 4, 0x80000001u);
    refused(at + 8, false, "header of 0 octets in a frame with 0 left");
}

static void
headers_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    size_t length = make(false, 0, 10, 5);
    sp_put32(bytes + 12, 16);
    refused(length, false, "header of 16 octets in a frame with 15 left");
    sp_put32(bytes + 12, UINT32_MAX);
    refused(length, false, "header of 4294967295 octets");
    make(false, 0, 0, WIRE_HEADER_MAX + 1ull);
    sp_put32(bytes + 12, WIRE_HEADER_MAX + 1u);
    refused(16, false, "header of 65537 octets, the limit is 65536");
}

static void
a_payload_above_the_limit_is_refused(void **state)
{
    struct sp_head head;
    struct error error;

    (void)state;
    assert_true(parse(make(false, 0, 3, PAYLOAD_MAX), false, &head, &error)
                > 0);
    refused(make(false, 0, 3, PAYLOAD_MAX + 1), false,
            "payload of 1001 octets, the limit is 1000");
}

static void
greetings_of_others_are_refused(void **state)
{
    uint8_t greeting[SP_GREETING];
    struct error error;

    (void)state;
    for (size_t i = 0; i < SP_GREETING; i++) {
        sp_put_greeting(greeting, WIRE_SP_REQ);
        greeting[i] ^= 0x40;
        assert_int_equal(sp_check_greeting(greeting, WIRE_SP_REQ, &error),
                         FARBLK_PROTOCOL);
    }
    sp_put_greeting(greeting, WIRE_SP_REP);
    assert_int_equal(sp_check_greeting(greeting, WIRE_SP_REQ, &error),
                     FARBLK_PROTOCOL);
    assert_non_null(strstr(error.text, "0x0031, wanted is 0x0030 (REQ)"));
}

static void
stacks_and_bodies_that_came_apart_are_checked_too(void **state)
{
    struct sp_head head;
    struct error error;

    (void)state;
    sp_put32(bytes, 5);
    sp_put32(bytes + 4, 0x80000007u);
    assert_int_equal(sp_parse_stack(bytes, 8, &head, &error), 0);
    assert_int_equal(head.id, 0x80000007u);
    assert_int_equal(sp_parse_stack(bytes, 4, &head, &error), FARBLK_PROTOCOL);
    assert_int_equal(sp_parse_stack(bytes, 0, &head, &error), FARBLK_PROTOCOL);
    assert_int_equal(sp_parse_stack(bytes + 4, 8, &head, &error),
                     FARBLK_PROTOCOL);
    sp_put32(bytes, 2);
    assert_int_equal(sp_parse_body(bytes, 9, PAYLOAD_MAX, &head, &error), 6);
    assert_int_equal(head.payload_length, 3);
    assert_int_equal(sp_parse_body(bytes, 5, PAYLOAD_MAX, &head, &error),
                     FARBLK_PROTOCOL);
    assert_int_equal(sp_parse_body(bytes, 3, PAYLOAD_MAX, &head, &error),
                     FARBLK_PROTOCOL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_head_is_found_when_it_is_whole_and_not_before),
        cmocka_unit_test(the_largest_head_fits_the_buffers),
        cmocka_unit_test(a_type_octet_of_another_kind_is_refused),
        cmocka_unit_test(lengths_that_can_not_be_are_refused_at_once),
        cmocka_unit_test(more_than_eight_hops_are_refused),
        cmocka_unit_test(a_frame_that_ends_in_its_stack_is_refused),
        cmocka_unit_test(headers_that_do_not_fit_are_refused),
        cmocka_unit_test(a_payload_above_the_limit_is_refused),
        cmocka_unit_test(greetings_of_others_are_refused),
        cmocka_unit_test(stacks_and_bodies_that_came_apart_are_checked_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
