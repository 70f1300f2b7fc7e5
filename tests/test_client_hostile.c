/* SPDX-License-Identifier: ISC */
/*
 * The client driver against a server that answers what can not be.
 */
#include "core/crc32c.h"
#include "tests/client_calls.h"

#include <stdio.h>

/* What each hostile reply is. */
enum hostile {
    SHORT_DATA,
    LONG_DATA,
    NO_DATA,
    ERROR_WITH_DATA,
    WRITE_WITH_DATA,
    GARBAGE,
    EMPTY,
    OTHER_NUMBER,
    HUGE_DEVICE,
    SEEK_BEFORE,
    SEEK_PAST,
    SEEK_ABSURD,
    EXTENTS_NONE,
    EXTENTS_LONG,
    EXTENTS_MANY,
    INFO_OTHER_SECTOR,
    HOSTILE,
};

static enum farblk_op
hostile_op(enum hostile hostile)
{
    switch (hostile) {
    case WRITE_WITH_DATA:
        return FARBLK_OP_WRITE;
    case SEEK_BEFORE:
    case SEEK_PAST:
    case SEEK_ABSURD:
        return FARBLK_OP_SEEK_MAPPED;
    case EXTENTS_NONE:
    case EXTENTS_LONG:
    case EXTENTS_MANY:
        return FARBLK_OP_EXTENTS;
    case INFO_OTHER_SECTOR:
        return FARBLK_OP_GET_INFO;
    default:
        return FARBLK_OP_READ;
    }
}

static void
hostile_reply(struct fake *fake, struct fake_request *request,
              enum hostile hostile)
{
    static const uint8_t data[4 * FAKE_SECTOR];
    static const uint8_t garbage[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0x07};
    struct farblk_extent extents[8] = {{0, 0, 0, 0}};
    struct codec_reply reply = fake_blank(request);
    size_t length = 0;
    reply.generation = FAKE_GENERATION;
    reply.size_sectors = FAKE_SECTORS;
    switch (hostile) {
    case SHORT_DATA:
        length = FAKE_SECTOR;
        break;
    case LONG_DATA:
        length = 3 * FAKE_SECTOR;
        break;
    case ERROR_WITH_DATA:
        reply.status = FARBLK_IO;
        length = 2 * FAKE_SECTOR;
        break;
    case WRITE_WITH_DATA:
        length = 2 * FAKE_SECTOR;
        break;
    case GARBAGE:
    case EMPTY:
        fake_reply_raw(request, garbage, hostile == EMPTY ? 0 : sizeof garbage);
        fake_drop(fake, request);
        return;
    case OTHER_NUMBER:
        reply.number++;
        length = 2 * FAKE_SECTOR;
        break;
    case HUGE_DEVICE:
        reply.generation++;
        reply.size_sectors = UINT64_MAX;
        length = 2 * FAKE_SECTOR;
        break;
    case SEEK_BEFORE:
        reply.result.seek.sector = 3;
        break;
    case SEEK_PAST:
        reply.result.seek.sector = FAKE_SECTORS + 1;
        break;
    case SEEK_ABSURD:
        reply.generation = 0;
        reply.result.seek.sector = UINT64_MAX;
        break;
    case EXTENTS_LONG:
        extents[0].count = 5;
        reply.result.extents.count = 1;
        break;
    case EXTENTS_MANY:
        for (unsigned i = 0; i < 5; i++)
            extents[i].count = 1;
        reply.result.extents.count = 5;
        break;
    case INFO_OTHER_SECTOR:
        reply.result.info.info = fake->open.result.open.info;
        reply.result.info.info.sector_size = 1024;
        reply.result.info.info.max_transfer = 1024;
        reply.result.info.info.preferred_transfer = 1024;
        break;
    case NO_DATA:
    case EXTENTS_NONE:
    case HOSTILE:
        break;
    }
    if (request->ask.method == WIRE_EXTENTS)
        reply.result.extents.extents = extents;
    fake_reply(fake, request, &reply, data, length);
}

static void
replies_that_can_not_be_end_the_client(void **state)
{
    (void)state;
    for (unsigned i = 0; i < HOSTILE; i++) {
        struct farblk_extent extents[6];
        static uint8_t data[2 * FAKE_SECTOR], second[FAKE_SECTOR];
        struct farblk_info info;
        struct iovec iov = {data, sizeof data}, other = {second, FAKE_SECTOR};
        struct fake fake;
        fake_start(&fake);
        struct farblk *dev = client_open(&fake);
        struct farblk_queue *queue = client_queue();
        enum farblk_op op = hostile_op((enum hostile)i);
        if (op == FARBLK_OP_EXTENTS)
            iov = (struct iovec){extents, sizeof extents};
        else if (op == FARBLK_OP_GET_INFO)
            iov = (struct iovec){&info, sizeof info};
        client_submit(queue, dev, FARBLK_OP_WRITE, 0, &other, 1, 0, 1);
        struct fake_request *held = fake_next(&fake);
        client_submit_count(queue, dev, op, 4, 4, &iov, 1, 2);
        hostile_reply(&fake, fake_next(&fake), (enum hostile)i);
        for (unsigned n = 0; n < 2; n++) {
            struct farblk_completion done = client_collect(queue);
            if (done.status == 0 && op == FARBLK_OP_GET_INFO)
                continue; /* the last known answer */
            if (done.status != FARBLK_DISCONNECTED
                || strstr(done.text, "PROTOCOL") == NULL)
                fail_msg("hostile %u: %s, \"%s\"", i,
                         farblk_status_name(done.status), done.text);
            bool changed = done.user == (void *)1 || op == FARBLK_OP_WRITE;
            assert_int_equal(done.effect, changed ? FARBLK_EFFECT_UNKNOWN
                                                  : FARBLK_EFFECT_NONE);
        }
        fails_with(FARBLK_DISCONNECTED, farblk_flush(dev));
        text_has("PROTOCOL");
        fake_drop(&fake, held);
        farblk_queue_destroy(queue);
        ok(farblk_close(dev));
        fake_stop(&fake);
    }
}

static void
a_server_without_checksums_is_not_opened_with_them(void **state)
{
    static const char *const features[] = {"", "crc64", "CRC32C", "crc32c "};
    (void)state;
    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++) {
        struct farblk *dev;
        struct fake fake;
        fake_start(&fake);
        if (i > 0)
            codec_add_feature(&fake.hello.result.hello.features, features[i]);
        strcat(fake.uri, "&checksum=crc32c");
        fails_with(FARBLK_UNIMPLEMENTED, farblk_open(fake.uri, NULL, &dev));
        text_has("checksum=crc32c");
        *strstr(fake.uri, "crc32c") = '\0';
        strcat(fake.uri, "none");
        ok(farblk_open(fake.uri, NULL, &dev));
        ok(farblk_close(dev));
        fake_stop(&fake);
    }
}

/* A read of two sectors, answered with that sum; its outcome. */
static struct farblk_completion
read_with_sum(struct fake *fake, struct farblk *dev, struct farblk_queue *queue,
              const uint8_t *data, uint32_t sum)
{
    static uint8_t to[2 * FAKE_SECTOR];
    struct iovec iov = {to, sizeof to};
    client_submit(queue, dev, FARBLK_OP_READ, 4, &iov, 1, 0, 1);
    struct fake_request *request = fake_next(fake);
    assert_int_equal(request->ask.checksum, 0);
    struct codec_reply reply = fake_blank(request);
    reply.checksum = sum;
    fake_reply(fake, request, &reply, data, sizeof to);
    return client_collect(queue);
}

static void
data_with_another_sum_is_corrupt_and_the_client_goes_on(void **state)
{
    static uint8_t data[2 * FAKE_SECTOR];
    struct farblk *dev;
    struct fake fake;
    (void)state;
    pattern_fill(data, sizeof data, 1);
    const uint32_t right = crc32c(0, data, sizeof data);
    const uint32_t wrong[] = {0, 1, right ^ 1, ~right, UINT32_MAX};
    fake_start(&fake);
    codec_add_feature(&fake.hello.result.hello.features, WIRE_FEATURE_CRC32C);
    strcat(fake.uri, "&checksum=crc32c");
    ok(farblk_open(fake.uri, NULL, &dev));
    struct farblk_queue *queue = client_queue();
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct farblk_completion done =
            read_with_sum(&fake, dev, queue, data, wrong[i]);
        assert_int_equal(done.status, FARBLK_CORRUPT);
        assert_non_null(strstr(done.text, "2 sectors from 4 on"));
        done = read_with_sum(&fake, dev, queue, data, right);
        assert_int_equal(done.status, 0);
    }
    /* A write goes with its sum; one in its reply means nothing. */
    struct iovec iov = {data, sizeof data};
    client_submit(queue, dev, FARBLK_OP_WRITE, 4, &iov, 1, 0, 1);
    struct fake_request *request = fake_next(&fake);
    assert_int_equal(request->ask.checksum, right);
    struct codec_reply reply = fake_blank(request);
    reply.checksum = 12345;
    fake_reply(&fake, request, &reply, NULL, 0);
    assert_int_equal(client_collect(queue).status, 0);
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
    fake_stop(&fake);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_that_can_not_be_end_the_client),
        cmocka_unit_test(a_server_without_checksums_is_not_opened_with_them),
        cmocka_unit_test(
            data_with_another_sum_is_corrupt_and_the_client_goes_on),
    };
    support_watch("client_hostile");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    support_watch(NULL);
    return failed;
}
