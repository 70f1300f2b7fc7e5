/* SPDX-License-Identifier: ISC */
/*
 * The examples of proto/wire.md, read out of it and run: what is described
 * there in words is built here with the codec and the framing and must give
 * those bytes, and those bytes must give these values back.
 *
 * An example is a block that begins with "```hex NAME"; in it are octets in
 * hex, "XX * N" for N equal ones, and comments from '#' to the line's end.
 */
#include "core/crc32c.h"
#include "proto/codec.h"
#include "proto/sp.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct bytes {
    uint8_t at[4096];
    size_t length;
};

/* ------------------------------------------------------------------------
 * Reading the document
 */

static char *document;

static int
read_document(void **state)
{
    const char *source = getenv("FARBLK_SOURCE");
    char path[4096];

    (void)state;
    snprintf(path, sizeof path, "%s/proto/wire.md",
             source == NULL ? "." : source);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        print_error("can not open %s; set FARBLK_SOURCE\n", path);
        return -1;
    }
    document = calloc(1, 1 << 20);
    size_t length = fread(document, 1, (1 << 20) - 1, file);
    fclose(file);
    return length > 0 ? 0 : -1;
}

static int
free_document(void **state)
{
    (void)state;
    free(document);
    return 0;
}

/* One line's octets. */
static void
read_line(const char *line, struct bytes *to)
{
    while (*line != 0 && *line != '\n' && *line != '#') {
        if (isspace((unsigned char)*line)) {
            line++;
        } else if (*line == '*') {
            long times = strtol(line + 1, (char **)&line, 10);
            assert_true(to->length > 0 && times > 0);
            for (; times > 1; times--) {
                assert_true(to->length < sizeof to->at);
                to->at[to->length] = to->at[to->length - 1];
                to->length++;
            }
        } else {
            unsigned octet;
            if (sscanf(line, "%2x", &octet) != 1)
                fail_msg("not hex: '%.20s'", line);
            assert_true(to->length < sizeof to->at);
            to->at[to->length++] = (uint8_t)octet;
            line += 2;
        }
    }
}

static void
read_example(const char *name, struct bytes *to)
{
    char fence[100];

    snprintf(fence, sizeof fence, "\n```hex %s\n", name);
    const char *line = strstr(document, fence);
    if (line == NULL)
        fail_msg("wire.md has no example '%s'", name);
    to->length = 0;
    for (line += strlen(fence); strncmp(line, "```", 3) != 0;
         line = strchr(line, '\n') + 1) {
        assert_true(*line != 0);
        read_line(line, to);
    }
}

/* ------------------------------------------------------------------------
 * What the examples say, as values
 */

static const char secret[] = "0123456789abcdef";
static const uint64_t session = 0x1122334455667788;

static void
hello_request(struct codec_request *request)
{
    request->method = WIRE_HELLO;
    request->args.hello.version = WIRE_VERSION;
    request->args.hello.has_nonce = true;
    memcpy(request->args.hello.nonce, "NONCENONCENONCEN", WIRE_NONCE_SIZE);
    strcpy(request->args.hello.client, "example");
}

static void
hello_reply(struct codec_reply *reply)
{
    reply->result.hello.version = WIRE_VERSION;
    reply->result.hello.session = session;
    memcpy(reply->result.hello.secret, secret, WIRE_SECRET_SIZE);
    memcpy(reply->result.hello.instance, "INSTANCEINSTANCE",
           WIRE_INSTANCE_SIZE);
    reply->result.hello.lease_ms = 30000;
    reply->result.hello.limits = (struct codec_limits){
        .max_requests = 256,
        .max_octets = 64u << 20,
        .max_payload = 4u << 20,
        .max_header = 65536,
        .max_handles = 64,
        .max_extents = 4096,
    };
    strcpy(reply->result.hello.server, "farblkd 0.1.0");
}

static void
numbered(struct codec_request *request, uint32_t method, uint64_t number)
{
    request->method = method;
    request->session = session;
    request->number = number;
    request->lowest = number;
}

static void
open_request(struct codec_request *request)
{
    numbered(request, WIRE_OPEN, 1);
    strcpy(request->args.open.name, "disk0");
}

static void
open_token_request(struct codec_request *request)
{
    open_request(request);
    memcpy(request->args.open.token, "TOKENTOKENTOKENT", 16);
    request->args.open.token_length = 16;
}

static void
open_reply(struct codec_reply *reply)
{
    reply->number = 1;
    reply->generation = 1;
    reply->size_sectors = 32768;
    reply->result.open.handle = 5;
    reply->result.open.info = (struct codec_info){
        .read_write = true,
        .sector_size = 512,
        .size_sectors = 32768,
        .generation = 1,
        .features = 0xff,
        .max_transfer = 4u << 20,
        .preferred_transfer = 256u << 10,
    };
    memcpy(reply->result.open.content, "CONTENTCONTENTCO", WIRE_INSTANCE_SIZE);
}

static void
read_request(struct codec_request *request)
{
    numbered(request, WIRE_READ, 2);
    request->handle = 5;
    request->args.range.sector = 8;
    request->args.range.count = 1;
}

static void
done_reply(struct codec_reply *reply)
{
    reply->number = 2;
    reply->generation = 1;
    reply->size_sectors = 32768;
}

static void
write_request(struct codec_request *request)
{
    numbered(request, WIRE_WRITE, 3);
    request->lowest = 2;
    request->handle = 5;
    request->deadline_ms = 1000;
    request->has_secret = true;
    memcpy(request->secret, secret, WIRE_SECRET_SIZE);
    request->args.range.sector = 300;
    request->args.range.count = 1;
    request->args.range.flags = FARBLK_FUA;
    request->args.range.has_whole = true;
    request->args.range.whole_sector = 299;
    request->args.range.whole_count = 2;
}

static void
error_reply(struct codec_reply *reply)
{
    reply->status = FARBLK_NO_SPACE;
    reply->effect = FARBLK_EFFECT_UNKNOWN;
    strcpy(reply->text, "Write: the disk is full");
    reply->number = 3;
    reply->generation = 1;
    reply->size_sectors = 32768;
}

/* 512 octets, as each payload of the document. */
static uint32_t
payload_checksum(void)
{
    uint8_t payload[512] = "farb";
    return crc32c(0, payload, sizeof payload);
}

static void
summed_hello_request(struct codec_request *request)
{
    hello_request(request);
    codec_add_feature(&request->args.hello.features, WIRE_FEATURE_CRC32C);
}

static void
summed_hello_reply(struct codec_reply *reply)
{
    hello_reply(reply);
    codec_add_feature(&reply->result.hello.features, WIRE_FEATURE_CRC32C);
}

static void
summed_read_reply(struct codec_reply *reply)
{
    done_reply(reply);
    reply->checksum = payload_checksum();
}

static void
summed_write_request(struct codec_request *request)
{
    numbered(request, WIRE_WRITE, 4);
    request->handle = 5;
    request->args.range.sector = 300;
    request->args.range.count = 1;
    request->checksum = payload_checksum();
}

static void
damaged_reply(struct codec_reply *reply)
{
    reply->status = FARBLK_CORRUPT;
    strcpy(reply->text, "Write: damaged data");
    reply->number = 4;
    reply->generation = 1;
    reply->size_sectors = 32768;
}

/* ------------------------------------------------------------------------
 * The examples
 */

/* Message `head` of an example, which is all of it. */
static void
parse_example(const struct bytes *example, bool ipc, struct sp_head *head)
{
    struct error error;

    for (size_t length = 0; length < example->length; length++) {
        int part = sp_parse(example->at, length, ipc, 4096, head, &error);
        assert_true(part >= 0);
        if (part > 0)
            assert_true((size_t)part <= length);
    }
    int before =
        sp_parse(example->at, example->length, ipc, 4096, head, &error);
    if (before <= 0)
        fail_msg("%s", before < 0 ? error.text : "it is cut off");
    assert_int_equal((size_t)before + head->payload_length, example->length);
}

/* The words before the header, and how much data is behind it. */
struct place {
    bool ipc;
    uint32_t hop; /* 0: none */
    uint32_t id;
    uint64_t payload_length; /* 0, or 512: "farb" and zeroes */
};

/* What the parts give must be the example. */
static void
compare_example(const struct bytes *example, const struct place *place,
                const uint8_t *header, size_t header_length)
{
    struct bytes built = {.length = 0};
    size_t stack_length = place->hop != 0 ? 8 : 4;

    built.length =
        sp_put_prefix(built.at, place->ipc,
                      stack_length + 4 + header_length + place->payload_length);
    if (place->hop != 0) {
        sp_put32(built.at + built.length, place->hop);
        built.length += 4;
    }
    sp_put32(built.at + built.length, place->id);
    sp_put32(built.at + built.length + 4, (uint32_t)header_length);
    built.length += 8;
    memcpy(built.at + built.length, header, header_length);
    built.length += header_length;
    if (place->payload_length > 0)
        memcpy(built.at + built.length, "farb", 4); /* at is zeroed */
    built.length += (size_t)place->payload_length;
    assert_int_equal(built.length, example->length);
    assert_memory_equal(built.at, example->at, built.length);
}

static void
check_place(const struct sp_head *head, const struct place *place)
{
    assert_int_equal(head->stack_length, place->hop != 0 ? 8 : 4);
    assert_int_equal(head->id, place->id);
    assert_int_equal(head->payload_length, place->payload_length);
}

static void
check_request(const char *name, struct place place,
              void (*fill)(struct codec_request *))
{
    struct codec_request request = {0}, back = {0};
    struct bytes example;
    struct sp_head head;
    struct error error;
    uint8_t header[1024];
    bool args_bad;

    fill(&request);
    read_example(name, &example);
    parse_example(&example, place.ipc, &head);
    check_place(&head, &place);
    if (codec_decode_request(head.header, head.header_length, &back, &args_bad,
                             &error)
        != 0)
        fail_msg("%s", error.text);
    assert_memory_equal(&request, &back, sizeof back);
    compare_example(&example, &place, header,
                    codec_encode_request(&request, header, sizeof header));
}

static void
check_reply(const char *name, struct place place, uint32_t method,
            void (*fill)(struct codec_reply *))
{
    struct codec_reply reply, back;
    struct bytes example;
    struct sp_head head;
    struct error error;
    uint8_t header[1024];

    memset(&reply, 0, sizeof reply);
    memset(&back, 0, sizeof back);
    fill(&reply);
    read_example(name, &example);
    parse_example(&example, place.ipc, &head);
    check_place(&head, &place);
    if (codec_decode_reply(head.header, head.header_length, method, &back,
                           &error)
        != 0)
        fail_msg("%s", error.text);
    assert_memory_equal(&reply, &back, sizeof back);
    compare_example(&example, &place, header,
                    codec_encode_reply(&reply, method, header, sizeof header));
}

static void
the_greetings_are_those_of_req_and_rep(void **state)
{
    struct bytes example;
    uint8_t built[SP_GREETING];
    struct error error;

    (void)state;
    read_example("greeting-req", &example);
    sp_put_greeting(built, WIRE_SP_REQ);
    assert_int_equal(example.length, SP_GREETING);
    assert_memory_equal(example.at, built, SP_GREETING);
    assert_int_equal(sp_check_greeting(example.at, WIRE_SP_REQ, &error), 0);
    read_example("greeting-rep", &example);
    sp_put_greeting(built, WIRE_SP_REP);
    assert_int_equal(example.length, SP_GREETING);
    assert_memory_equal(example.at, built, SP_GREETING);
    assert_int_equal(sp_check_greeting(example.at, WIRE_SP_REP, &error), 0);
}

#define ID 0x80000000u

static void
hello_is_as_in_the_document(void **state)
{
    (void)state;
    check_request("hello-request", (struct place){true, 0, ID | 1, 0},
                  hello_request);
    check_reply("hello-reply", (struct place){true, 0, ID | 1, 0}, WIRE_HELLO,
                hello_reply);
}

static void
open_is_as_in_the_document(void **state)
{
    (void)state;
    check_request("open-request", (struct place){true, 0, ID | 2, 0},
                  open_request);
    check_request("open-token-request", (struct place){true, 0, ID | 2, 0},
                  open_token_request);
    check_reply("open-reply", (struct place){true, 0, ID | 2, 0}, WIRE_OPEN,
                open_reply);
}

static void
read_is_as_in_the_document(void **state)
{
    (void)state;
    check_request("read-request", (struct place){true, 0, ID | 3, 0},
                  read_request);
    check_reply("read-reply", (struct place){true, 0, ID | 3, 512}, WIRE_READ,
                done_reply);
}

static void
write_over_tcp_is_as_in_the_document(void **state)
{
    (void)state;
    check_request("write-request", (struct place){false, 0, ID | 4, 512},
                  write_request);
    check_reply("error-reply", (struct place){false, 0, ID | 4, 0}, WIRE_WRITE,
                error_reply);
}

static void
read_through_a_hop_is_as_in_the_document(void **state)
{
    (void)state;
    check_request("hop-request", (struct place){false, 0x2a100007, ID | 3, 0},
                  read_request);
    check_reply("hop-reply", (struct place){false, 0x2a100007, ID | 3, 512},
                WIRE_READ, done_reply);
}

static void
checksums_are_as_in_the_document(void **state)
{
    (void)state;
    check_request("summed-hello-request", (struct place){true, 0, ID | 1, 0},
                  summed_hello_request);
    check_reply("summed-hello-reply", (struct place){true, 0, ID | 1, 0},
                WIRE_HELLO, summed_hello_reply);
    check_reply("summed-read-reply", (struct place){true, 0, ID | 3, 512},
                WIRE_READ, summed_read_reply);
    check_request("summed-write-request", (struct place){false, 0, ID | 5, 512},
                  summed_write_request);
    check_reply("damaged-reply", (struct place){false, 0, ID | 5, 0},
                WIRE_WRITE, damaged_reply);
}

static void
there_is_no_example_that_is_not_run(void **state)
{
    unsigned examples = 0;

    (void)state;
    for (const char *at = document; (at = strstr(at, "\n```hex ")) != NULL;
         at++)
        examples++;
    assert_int_equal(examples, 18);
}

/* The numbers in the tables of the document are those of the code. */
static void
the_tables_are_as_in_the_code(void **state)
{
    char row[200];

    (void)state;
    for (uint32_t method = 1; method < WIRE_METHODS; method++) {
        snprintf(row, sizeof row, "\n| %u | %s |", method,
                 codec_method_name(method));
        if (strstr(document, row) == NULL)
            fail_msg("no row '%s'", row + 1);
    }
    for (int status = 0; status >= FARBLK_APPEND_ONLY; status--) {
        snprintf(row, sizeof row, "\n| %d | %s |", status,
                 farblk_status_name(status));
        if (strstr(document, row) == NULL)
            fail_msg("no row '%s'", row + 1);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_greetings_are_those_of_req_and_rep),
        cmocka_unit_test(hello_is_as_in_the_document),
        cmocka_unit_test(open_is_as_in_the_document),
        cmocka_unit_test(read_is_as_in_the_document),
        cmocka_unit_test(write_over_tcp_is_as_in_the_document),
        cmocka_unit_test(read_through_a_hop_is_as_in_the_document),
        cmocka_unit_test(checksums_are_as_in_the_document),
        cmocka_unit_test(there_is_no_example_that_is_not_run),
        cmocka_unit_test(the_tables_are_as_in_the_code),
    };
    return cmocka_run_group_tests(tests, read_document, free_document);
}
