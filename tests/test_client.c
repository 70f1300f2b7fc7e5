/* SPDX-License-Identifier: ISC */
/*
 * The client driver against a scripted server: URIs, opening, listing, and
 * what comes in.
 */
#include "tests/client_calls.h"

#include <stdio.h>

/* ------------------------------------------------------------ URIs */

static void
malformed_uris_are_invalid(void **state)
{
    static const char *const uris[] = {
        "farblk:disk",
        "farblk:///disk",
        "farblk://host",
        "farblk://host/",
        "farblk://host/a/b",
        "farblk://host/di%20sk",
        "farblk://host:0/disk",
        "farblk://host:99999/disk",
        "farblk://host/disk?socket=/x",
        "farblk://host/disk?nonsense=1",
        "farblk://host/disk?connect_timeout=0",
        "farblk://host/disk?checksum=md5",
        "farblk://host/disk?checksum=",
        "farblk://host/disk?connect_timeout=soon",
        "farblk+unix:///disk",
        "farblk+unix:///disk?socket=/x&abstract=y",
        "farblk+unix://host/disk?socket=/x",
        "farblk+unix:///?socket=/x",
        "farblk+unix:///disk?address=x",
        "farblk+inproc:///disk",
        "farblk+inproc://host/disk?address=x",
        "farblk+ws://host/disk",
        "farblk+ws:///disk",
    };
    (void)state;
    for (size_t i = 0; i < sizeof uris / sizeof uris[0]; i++) {
        struct farblk *dev = (struct farblk *)1;
        int status = farblk_open(uris[i], NULL, &dev);
        if (status != FARBLK_INVALID || dev != NULL
            || farblk_last_text()[0] == '\0')
            fail_msg("%s: %s, \"%s\"", uris[i], farblk_status_name(status),
                     farblk_last_text());
    }
}

static void
nobody_listens(void **state)
{
    char uri[256];
    struct farblk *dev;
    (void)state;
    snprintf(uri, sizeof uri, "farblk+unix:///disk?socket=%s",
             support_path("none"));
    fails_with(FARBLK_NOT_FOUND, farblk_open(uri, NULL, &dev));
    text_has(support_directory());
    snprintf(uri, sizeof uri, "farblk+unix:///disk?abstract=%s",
             support_name("farblk-none"));
    assert_true(farblk_open(uri, NULL, &dev) < 0);
    text_has("abstract://farblk-none");
    snprintf(uri, sizeof uri, "farblk+inproc:///disk?address=%s",
             support_name("none"));
    assert_true(farblk_open(uri, NULL, &dev) < 0);
    text_has("inproc://none");
}

/* ------------------------------------------------------------ opening */

static void
open_tells_what_the_server_says(void **state)
{
    struct fake fake;
    (void)state;
    fake_start(&fake);
    fake.open.result.open.info.preferred_transfer = 4096;
    struct farblk *dev = client_open(&fake);
    struct farblk_info info = {0};
    struct client_thread thread;
    client_begin(&thread, FARBLK_OP_GET_INFO, dev);
    struct fake_request *request = fake_next(&fake);
    assert_int_equal(request->ask.method, WIRE_GET_INFO);
    assert_int_equal(request->ask.handle, 77);
    struct codec_reply reply = fake_blank(request);
    reply.result.info.info = fake.open.result.open.info;
    fake_reply(&fake, request, &reply, NULL, 0);
    client_end(&thread);
    ok(thread.status);
    info = thread.info;
    assert_true(info.read_write);
    assert_int_equal(info.sector_size, FAKE_SECTOR);
    assert_int_equal(info.size_sectors, FAKE_SECTORS);
    assert_int_equal(info.generation, FAKE_GENERATION);
    assert_int_equal(info.max_transfer, FAKE_PAYLOAD);
    assert_int_equal(info.preferred_transfer, 4096);
    assert_string_equal(info.driver, "farblk");
    assert_string_equal(info.name, "disk");
    assert_true(info.transport[0] != '\0');
    ok(farblk_close(dev));
    assert_int_equal(fake.disconnects, 1);
    fake_stop(&fake);
}

static void
refused_open_gives_the_servers_text(void **state)
{
    struct fake fake;
    struct farblk *dev;
    (void)state;
    fake_start(&fake);
    fake.open.status = FARBLK_NOT_FOUND;
    snprintf(fake.open.text, sizeof fake.open.text, "no export of that name");
    fails_with(FARBLK_NOT_FOUND, farblk_open(fake.uri, NULL, &dev));
    text_has("no export of that name");
    text_has("disk");
    text_has(fake.name);
    fake.hello.status = FARBLK_BUSY;
    snprintf(fake.hello.text, sizeof fake.hello.text, "too many sessions");
    fails_with(FARBLK_BUSY, farblk_open(fake.uri, NULL, &dev));
    text_has("too many sessions");
    fake_stop(&fake);
}

static void
silent_server_is_a_timeout(void **state)
{
    struct fake fake;
    struct farblk *dev;
    char uri[320];
    (void)state;
    fake_start(&fake);
    fake.mute_open = true;
    /* On a busy machine Hello alone may take longer than so short a time. */
    for (int ms = 50; ms < SUPPORT_PATIENCE_MS; ms *= 2) {
        snprintf(uri, sizeof uri, "%s&connect_timeout=%d", fake.uri, ms);
        fails_with(FARBLK_TIMED_OUT, farblk_open(uri, NULL, &dev));
        if (strstr(farblk_last_text(), "Open") != NULL)
            break;
    }
    text_has("Open");
    snprintf(uri, sizeof uri, "%s&connect_timeout=50", fake.uri);
    fake.mute_hello = true;
    fails_with(FARBLK_TIMED_OUT, farblk_open(uri, NULL, &dev));
    text_has("Hello");
    fake_stop(&fake);
}

static void
senseless_server_is_a_protocol_error(void **state)
{
    struct fake fake;
    struct farblk *dev;
    (void)state;
    fake_start(&fake);
    const struct codec_reply hello = fake.hello, open = fake.open;
    for (unsigned i = 0; i < 11; i++) {
        struct codec_limits *limits = &fake.hello.result.hello.limits;
        struct codec_info *info = &fake.open.result.open.info;
        fake.hello = hello;
        fake.open = open;
        switch (i) {
        case 0:
            fake.hello.result.hello.version = 2;
            break;
        case 1:
            fake.hello.result.hello.session = 0;
            break;
        case 2:
            limits->max_requests = 0;
            break;
        case 3:
            limits->max_octets = 0;
            break;
        case 4:
            limits->max_payload = 0;
            break;
        case 5:
            limits->max_header = 10;
            break;
        case 6:
            info->sector_size = 500;
            break;
        case 7:
            info->sector_size = 1 << 20;
            break;
        case 8:
            info->size_sectors = UINT64_MAX / FAKE_SECTOR;
            break;
        case 9:
            fake.open.result.open.handle = 0;
            break;
        case 10: /* one sector is more than one request may have */
            info->sector_size = 65536;
            info->max_transfer = info->preferred_transfer = 65536;
            limits->max_payload = 4096;
            break;
        }
        int status = farblk_open(fake.uri, NULL, &dev);
        if (status != FARBLK_PROTOCOL)
            fail_msg("case %u: %s, \"%s\"", i, farblk_status_name(status),
                     farblk_last_text());
    }
    fake_stop(&fake);
}

static void
read_only_device_refuses_writes(void **state)
{
    struct fake fake;
    uint8_t data[FAKE_SECTOR] = {0};
    (void)state;
    fake_start(&fake);
    fake.open.result.open.info.read_write = false;
    struct farblk *dev = client_open(&fake);
    fails_with(FARBLK_IS_READ_ONLY,
               support_write(dev, 0, data, sizeof data, 0));
    ok(farblk_close(dev));
    fake_stop(&fake);
}

/* ------------------------------------------------------------ listing */

struct listed {
    unsigned count;
    char names[512];
};

static int
note_entry(void *arg, const struct farblk_list_entry *entry)
{
    struct listed *listed = arg;
    listed->count++;
    strcat(strcat(listed->names, entry->name), " ");
    return strcmp(entry->name, "stop") == 0 ? 42 : 0;
}

static void *
list_thread(void *arg)
{
    struct client_thread *thread = arg;
    struct listed *listed = thread->arg;
    thread->status = farblk_list(thread->fake->list_uri, note_entry, listed);
    snprintf(thread->text, sizeof thread->text, "%s", farblk_last_text());
    return NULL;
}

static struct codec_device
list_device(const char *name)
{
    struct codec_device device = {
        .read_write = true, .sector_size = 512, .size_sectors = 10};
    snprintf(device.name, sizeof device.name, "%s", name);
    return device;
}

/* Answer one ListDevices with up to two names. */
static void
list_answer(struct fake *fake, const char *after, const char *one,
            const char *two, bool more)
{
    struct fake_request *request = fake_next(fake);
    struct codec_device devices[2];
    struct codec_reply reply = fake_blank(request);
    assert_int_equal(request->ask.method, WIRE_LIST_DEVICES);
    assert_string_equal(request->ask.args.list.after, after);
    devices[0] = list_device(one);
    if (two != NULL)
        devices[1] = list_device(two);
    reply.result.list.devices = devices;
    reply.result.list.count = two != NULL ? 2 : 1;
    reply.result.list.more = more;
    fake_reply(fake, request, &reply, NULL, 0);
}

static void
list_asks_page_by_page(void **state)
{
    struct fake fake;
    struct listed listed = {0};
    struct client_thread thread = {.fake = &fake, .arg = &listed};
    (void)state;
    fake_start(&fake);
    client_thread(&thread, list_thread);
    list_answer(&fake, "", "a", "b", true);
    list_answer(&fake, "b", "c", NULL, false);
    client_end(&thread);
    assert_int_equal(thread.status, 0);
    assert_string_equal(listed.names, "a b c ");

    memset(&listed, 0, sizeof listed);
    client_thread(&thread, list_thread);
    list_answer(&fake, "", "stop", "t", true);
    client_end(&thread);
    assert_int_equal(thread.status, 42);
    assert_int_equal(listed.count, 1);

    /* else it might never end */
    client_thread(&thread, list_thread);
    list_answer(&fake, "", "d", "d", true);
    client_end(&thread);
    assert_int_equal(thread.status, FARBLK_PROTOCOL);

    /* it would be printed */
    memset(&listed, 0, sizeof listed);
    client_thread(&thread, list_thread);
    list_answer(&fake, "", "\x1b[2J", NULL, false);
    client_end(&thread);
    assert_int_equal(thread.status, FARBLK_PROTOCOL);
    assert_int_equal(listed.count, 0);
    fake_stop(&fake);
}

static void
list_of_a_device_is_invalid(void **state)
{
    struct listed listed = {0};
    (void)state;
    fails_with(FARBLK_INVALID,
               farblk_list("farblk://localhost/disk", note_entry, &listed));
}

/* ------------------------------------------------------------ replies */

static void
replies_come_in_any_order(void **state)
{
    enum { COUNT = 8, LENGTH = 2 * FAKE_SECTOR };
    static uint8_t data[COUNT][LENGTH];
    struct fake fake;
    struct fake_request *requests[COUNT];
    struct iovec iov[COUNT];
    (void)state;
    fake_start(&fake);
    struct farblk *dev = client_open(&fake);
    struct farblk_queue *queue = client_queue();
    for (unsigned i = 0; i < COUNT; i++) {
        iov[i] = (struct iovec){data[i], LENGTH};
        client_submit(queue, dev, FARBLK_OP_READ, i * 2, &iov[i], 1, 0, i);
    }
    for (unsigned i = 0; i < COUNT; i++)
        requests[i] = fake_next(&fake);
    for (unsigned i = COUNT; i-- > 0;) {
        uint8_t answer[LENGTH];
        struct codec_reply reply = fake_blank(requests[i]);
        uint64_t sector = requests[i]->ask.args.range.sector;
        assert_int_equal(requests[i]->ask.method, WIRE_READ);
        assert_false(requests[i]->ask.args.range.has_whole);
        pattern_fill(answer, LENGTH, sector);
        fake_reply(&fake, requests[i], &reply, answer, LENGTH);
        struct farblk_completion done = client_collect(queue);
        assert_int_equal(done.status, 0);
        assert_int_equal((uintptr_t)done.user, sector / 2);
        assert_int_equal(pattern_check(data[sector / 2], LENGTH, sector),
                         LENGTH);
    }
    assert_int_equal(fake.bad_numbers, 0);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
many_buffers_make_one_payload(void **state)
{
    enum { COUNT = 120 };
    static uint8_t data[COUNT * FAKE_SECTOR], back[COUNT * FAKE_SECTOR];
    struct iovec iov[2 * COUNT];
    struct fake fake;
    (void)state;
    fake_start(&fake);
    struct farblk *dev = client_open(&fake);
    struct farblk_queue *queue = client_queue();
    pattern_fill(data, sizeof data, 1);
    for (unsigned i = 0; i < COUNT; i++) {
        iov[2 * i] = (struct iovec){data + i * FAKE_SECTOR, FAKE_SECTOR};
        iov[2 * i + 1] = (struct iovec){NULL, 0};
    }
    client_submit(queue, dev, FARBLK_OP_WRITE, 5, iov, 2 * COUNT, 0, 0);
    struct fake_request *request = fake_next(&fake);
    assert_int_equal(request->ask.args.range.sector, 5);
    assert_int_equal(request->ask.args.range.count, COUNT);
    assert_int_equal(request->payload_length, sizeof data);
    assert_memory_equal(request->payload, data, sizeof data);
    struct codec_reply reply = fake_blank(request);
    fake_reply(&fake, request, &reply, NULL, 0);
    assert_int_equal(client_collect(queue).status, 0);

    for (unsigned i = 0; i < COUNT; i++)
        iov[2 * i].iov_base = back + i * FAKE_SECTOR;
    client_submit(queue, dev, FARBLK_OP_READ, 5, iov, 2 * COUNT, 0, 0);
    request = fake_next(&fake);
    reply = fake_blank(request);
    fake_reply(&fake, request, &reply, data, sizeof data);
    assert_int_equal(client_collect(queue).status, 0);
    assert_memory_equal(back, data, sizeof data);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
large_requests_are_split_and_told_as_one(void **state)
{
    enum { LENGTH = 3 * FAKE_PAYLOAD };
    static uint8_t data[LENGTH];
    struct iovec iov = {data, LENGTH};
    struct fake fake;
    (void)state;
    fake_start(&fake);
    struct farblk *dev = client_open(&fake);
    struct farblk_queue *queue = client_queue();
    client_submit(queue, dev, FARBLK_OP_WRITE, 16, &iov, 1, 0, 0);
    for (unsigned i = 0; i < 3; i++) {
        struct fake_request *request = fake_next(&fake);
        struct codec_reply reply = fake_blank(request);
        assert_int_equal(request->payload_length, FAKE_PAYLOAD);
        assert_true(request->ask.args.range.has_whole);
        assert_int_equal(request->ask.args.range.whole_sector, 16);
        assert_int_equal(request->ask.args.range.whole_count,
                         LENGTH / FAKE_SECTOR);
        fake_reply(&fake, request, &reply, NULL, 0);
    }
    assert_int_equal(client_collect(queue).status, 0);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
an_error_brings_the_servers_text_and_effect(void **state)
{
    uint8_t data[FAKE_SECTOR] = {0};
    struct iovec iov = {data, sizeof data};
    struct fake fake;
    (void)state;
    fake_start(&fake);
    struct farblk *dev = client_open(&fake);
    struct farblk_queue *queue = client_queue();
    static const enum farblk_op ops[] = {FARBLK_OP_WRITE, FARBLK_OP_READ};
    for (unsigned i = 0; i < 2; i++) {
        client_submit(queue, dev, ops[i], 0, &iov, 1, 0, 0);
        struct fake_request *request = fake_next(&fake);
        struct codec_reply reply = fake_blank(request);
        reply.status = FARBLK_NO_SPACE;
        reply.effect = FARBLK_EFFECT_UNKNOWN;
        snprintf(reply.text, sizeof reply.text, "the disk is full\033");
        fake_reply(&fake, request, &reply, NULL, 0);
        struct farblk_completion done = client_collect(queue);
        assert_int_equal(done.status, FARBLK_NO_SPACE);
        assert_non_null(strstr(done.text, "the disk is full?"));
        assert_int_equal(done.effect,
                         i == 0 ? FARBLK_EFFECT_UNKNOWN : FARBLK_EFFECT_NONE);
    }
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

static void
replies_that_nobody_waits_for_are_skipped(void **state)
{
    uint8_t data[FAKE_SECTOR], answer[FAKE_SECTOR];
    struct iovec iov = {data, sizeof data};
    struct fake fake;
    (void)state;
    fake_start(&fake);
    struct farblk *dev = client_open(&fake);
    struct farblk_queue *queue = client_queue();
    pattern_fill(answer, sizeof answer, 9);
    for (unsigned i = 0; i < 3; i++) {
        client_submit(queue, dev, FARBLK_OP_READ, 0, &iov, 1, 0, 0);
        struct fake_request *request = fake_next(&fake);
        struct codec_reply reply = fake_blank(request);
        uint8_t other[FAKE_SECTOR] = {0};
        for (uint32_t id = 0x80000000; id < 0x80000100; id++)
            if (id != request->id)
                fake_reply_as(&fake, request, id, &reply, other, sizeof other);
        fake_reply_as(&fake, request, request->id, &reply, answer,
                      sizeof answer);
        fake_reply_as(&fake, request, request->id, &reply, other, sizeof other);
        fake_reply(&fake, request, &reply, other, sizeof other);
        assert_int_equal(client_collect(queue).status, 0);
        assert_int_equal(pattern_check(data, sizeof data, 9), sizeof data);
    }
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    assert_int_equal(pattern_check(data, sizeof data, 9), sizeof data);
    fake_stop(&fake);
}

static void
extents_may_be_fewer_than_asked(void **state)
{
    struct farblk_extent extents[6],
        answer[2] = {{.count = 1, .mapped = 1}, {.count = 2, .mapped = 0}};
    struct iovec iov = {extents, sizeof extents};
    struct fake fake;
    (void)state;
    fake_start(&fake);
    struct farblk *dev = client_open(&fake);
    struct farblk_queue *queue = client_queue();
    client_submit_count(queue, dev, FARBLK_OP_EXTENTS, 4, 100, &iov, 1, 0);
    struct fake_request *request = fake_next(&fake);
    assert_int_equal(request->ask.args.extents.sector, 4);
    assert_int_equal(request->ask.args.extents.count, 100);
    assert_int_equal(request->ask.args.extents.max, 4); /* the server's */
    struct codec_reply reply = fake_blank(request);
    reply.result.extents.extents = answer;
    reply.result.extents.count = 2;
    fake_reply(&fake, request, &reply, NULL, 0);
    struct farblk_completion done = client_collect(queue);
    assert_int_equal(done.status, 0);
    assert_int_equal(done.value, 2);
    assert_int_equal(extents[0].start, 4);
    assert_int_equal(extents[0].mapped, 1);
    assert_int_equal(extents[1].start, 5);
    assert_int_equal(extents[1].count, 2);
    assert_int_equal(extents[1].mapped, 0);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_uris_are_invalid),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(open_tells_what_the_server_says),
        cmocka_unit_test(refused_open_gives_the_servers_text),
        cmocka_unit_test(silent_server_is_a_timeout),
        cmocka_unit_test(senseless_server_is_a_protocol_error),
        cmocka_unit_test(read_only_device_refuses_writes),
        cmocka_unit_test(list_asks_page_by_page),
        cmocka_unit_test(list_of_a_device_is_invalid),
        cmocka_unit_test(replies_come_in_any_order),
        cmocka_unit_test(many_buffers_make_one_payload),
        cmocka_unit_test(large_requests_are_split_and_told_as_one),
        cmocka_unit_test(an_error_brings_the_servers_text_and_effect),
        cmocka_unit_test(replies_that_nobody_waits_for_are_skipped),
        cmocka_unit_test(extents_may_be_fewer_than_asked),
    };
    support_watch("client");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    support_watch(NULL);
    return failed;
}
