/* SPDX-License-Identifier: ISC */
/*
 * The nbd driver against a server held in the hand: when requests are sent,
 * what a timeout leaves behind, and peers that break the protocol.
 */
#include "tests/nbd_fake.h"

#include "backends/nbd.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SECTOR 512u
#define SECTORS 2048u
#define DEPTH 256

static const struct fake_export plain = {
    .size = SECTORS * SECTOR,
    .flags = FAKE_HAS_FLUSH | FAKE_HAS_FUA | FAKE_HAS_TRIM,
};

static struct nbd_fake fake;
static struct farblk_queue *queue;

static struct farblk *
fake_open(const char *more)
{
    struct farblk *dev = NULL;
    char uri[400];

    snprintf(uri, sizeof uri, "%s%s%s", fake.uri, more[0] != '\0' ? "&" : "",
             more);
    ok(farblk_open(uri, NULL, &dev));
    return dev;
}

static void
fake_submit(struct farblk *dev, uint32_t op, uint64_t sector,
            const struct iovec *iov, int32_t timeout_ms)
{
    ok(farblk_submit(queue, &(struct farblk_request){
                                .size = sizeof(struct farblk_request),
                                .op = op,
                                .dev = dev,
                                .sector = sector,
                                .count = 1,
                                .iov = iov,
                                .iovcnt = iov != NULL,
                                .timeout_ms = timeout_ms,
                                .user = (void *)(uintptr_t)sector,
                            }));
}

static struct farblk_completion
fake_collect(void)
{
    struct farblk_completion done;

    assert_int_equal(
        farblk_collect(queue, &done, sizeof done, 1, SUPPORT_PATIENCE_MS), 1);
    return done;
}

/* ------------------------------------------------------------ timeouts */

static void
buffers_are_the_callers_again_after_a_timeout(void **state)
{
    struct farblk *dev;
    uint8_t buffers[2][SECTOR];
    struct iovec iov[2] = {{buffers[0], SECTOR}, {buffers[1], SECTOR}};
    struct farblk_completion done;

    (void)state;
    nbd_fake_start(&fake, &plain);
    dev = fake_open("");
    memset(buffers[1], 7, SECTOR);
    fake_submit(dev, FARBLK_OP_READ, 3, &iov[0], 100);
    done = fake_collect();
    assert_int_equal(done.status, FARBLK_TIMED_OUT);
    assert_int_equal(done.effect, FARBLK_EFFECT_NONE);
    memset(buffers[0], 0x55, SECTOR);
    nbd_fake_await(&fake, 1);
    /* The late answer goes nowhere: the next one comes after it. */
    nbd_fake_answer(&fake, 0, 0, 0xaa);
    fake_submit(dev, FARBLK_OP_READ, 4, &iov[1], 0);
    nbd_fake_await(&fake, 2);
    nbd_fake_answer(&fake, 1, 0, 0xbb);
    assert_int_equal(fake_collect().status, 0);
    for (unsigned i = 0; i < SECTOR; i++) {
        assert_int_equal(buffers[0][i], 0x55);
        assert_int_equal(buffers[1][i], 0xbb);
    }
    ok(farblk_close(dev));
}

static void
late_write_never_undoes_an_acknowledged_one(void **state)
{
    struct farblk *dev;
    uint8_t old[SECTOR], new[SECTOR], in[SECTOR];
    struct iovec iov_old = {old, SECTOR}, iov_new = {new, SECTOR};
    struct iovec iov_in = {in, SECTOR};
    struct farblk_completion done;

    (void)state;
    nbd_fake_start(&fake, &plain);
    dev = fake_open("");
    memset(old, 1, SECTOR);
    memset(new, 2, SECTOR);
    fake_submit(dev, FARBLK_OP_WRITE, 5, &iov_old, 100);
    done = fake_collect();
    assert_int_equal(done.status, FARBLK_TIMED_OUT);
    assert_int_equal(done.effect, FARBLK_EFFECT_UNKNOWN);
    memset(old, 9, SECTOR); /* the caller's again */
    nbd_fake_await(&fake, 1);
    assert_int_equal(fake.request[0].first, 1);
    /* What overlaps it stays here, all else goes on. */
    fake_submit(dev, FARBLK_OP_WRITE, 5, &iov_new, 0);
    fake_submit(dev, FARBLK_OP_READ, 6, &iov_in, 0);
    fake_submit(dev, FARBLK_OP_FLUSH, 0, NULL, 0);
    nbd_fake_await(&fake, 3);
    assert_int_equal(fake.request[1].type, FAKE_READ);
    assert_int_equal(fake.request[2].type, FAKE_FLUSH);
    nbd_fake_answer(&fake, 1, 0, 0);
    nbd_fake_answer(&fake, 2, 0, 0);
    assert_int_equal(fake_collect().status, 0);
    assert_int_equal(fake_collect().status, 0);
    assert_int_equal(nbd_fake_count(&fake), 3);
    /* A read would see what may change yet, and a timeout ends it. */
    fake_submit(dev, FARBLK_OP_DISCARD, 5, NULL, 20);
    done = fake_collect();
    assert_int_equal(done.status, FARBLK_TIMED_OUT);
    assert_int_equal(done.effect, FARBLK_EFFECT_NONE);
    assert_int_equal(nbd_fake_count(&fake), 3);
    nbd_fake_answer(&fake, 0, 0, 0);
    nbd_fake_await(&fake, 4);
    assert_int_equal(fake.request[3].type, FAKE_WRITE);
    assert_int_equal(fake.request[3].first, 2);
    nbd_fake_answer(&fake, 3, 0, 0);
    assert_int_equal(fake_collect().status, 0);
    ok(farblk_close(dev));
}

static void
what_was_not_sent_has_not_happened(void **state)
{
    static uint8_t buffers[DEPTH][SECTOR];
    static struct iovec iov[DEPTH];
    unsigned none = 0, unknown = 0;
    struct farblk *dev;

    (void)state;
    nbd_fake_start(&fake, &plain);
    dev = fake_open("");
    for (unsigned i = 0; i < DEPTH; i++) {
        iov[i] = (struct iovec){buffers[i], SECTOR};
        fake_submit(dev, FARBLK_OP_WRITE, i, &iov[i], 60);
    }
    for (unsigned i = 0; i < DEPTH; i++) {
        struct farblk_completion done = fake_collect();

        assert_int_equal(done.status, FARBLK_TIMED_OUT);
        none += done.effect == FARBLK_EFFECT_NONE;
        unknown += done.effect == FARBLK_EFFECT_UNKNOWN;
    }
    assert_int_equal(none + unknown, DEPTH);
    assert_true(unknown > 0);
    assert_true(none > 0);
    /* The server has no more than those. */
    nbd_fake_await(&fake, unknown);
    assert_int_equal(nbd_fake_count(&fake), unknown);
    for (unsigned i = 0; i < unknown; i++)
        nbd_fake_answer(&fake, i, 0, 0);
    ok(farblk_close(dev));
    assert_int_equal(nbd_fake_count(&fake), unknown);
}

static void
closing_waits_for_what_a_timeout_left(void **state)
{
    struct farblk *dev;
    uint8_t buffer[SECTOR] = {1};
    struct iovec iov = {buffer, SECTOR};

    (void)state;
    nbd_fake_start(&fake, &plain);
    dev = fake_open("connect_timeout=1000");
    fake_submit(dev, FARBLK_OP_WRITE, 5, &iov, 100);
    assert_int_equal(fake_collect().status, FARBLK_TIMED_OUT);
    /* Never answered: the wait is bounded, and no leave is taken. */
    ok(farblk_close(dev));
    nbd_fake_stop(&fake);
    assert_int_equal(fake.disconnects, 0);
    nbd_fake_start(&fake, &plain);
    dev = fake_open("");
    ok(farblk_close(dev));
    nbd_fake_stop(&fake);
    assert_int_equal(fake.disconnects, 1);
}

/* ------------------------------------------------------------ commands */

static void
server_without_flush_gets_fua_with_each_change(void **state)
{
    struct fake_export export = plain;
    struct farblk *dev;
    uint8_t buffer[SECTOR] = {1};
    struct iovec iov = {buffer, SECTOR};

    (void)state;
    export.flags = FAKE_HAS_FUA | FAKE_HAS_TRIM;
    nbd_fake_start(&fake, &export);
    dev = fake_open("");
    fake_submit(dev, FARBLK_OP_WRITE, 5, &iov, 0);
    fake_submit(dev, FARBLK_OP_DISCARD, 7, NULL, 0);
    fake_submit(dev, FARBLK_OP_WRITE_ZEROES, 9, NULL, 0);
    nbd_fake_await(&fake, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(fake.request[i].flags, FAKE_FLAG_FUA);
        nbd_fake_answer(&fake, i, 0, 0);
        assert_int_equal(fake_collect().status, 0);
    }
    /* So all is stable already. */
    ok(farblk_flush(dev));
    assert_int_equal(nbd_fake_count(&fake), 3);
    ok(farblk_close(dev));
}

static void
scattered_buffers_travel_as_one_request(void **state)
{
    enum { PARTS = 100 };
    static uint8_t buffers[PARTS][2 * SECTOR];
    struct iovec iov[PARTS];
    struct farblk *dev;
    struct farblk_request read = {
        .size = sizeof read, .op = FARBLK_OP_READ, .iov = iov, .iovcnt = PARTS};

    (void)state;
    nbd_fake_start(&fake, &plain);
    dev = fake_open("");
    for (unsigned i = 0; i < PARTS; i++)
        iov[i] = (struct iovec){buffers[i], SECTOR};
    read.dev = dev;
    ok(farblk_submit(queue, &read));
    nbd_fake_await(&fake, 1);
    assert_int_equal(fake.request[0].length, PARTS * SECTOR);
    nbd_fake_answer(&fake, 0, 0, 0x3c);
    assert_int_equal(fake_collect().status, 0);
    for (unsigned i = 0; i < PARTS; i++)
        for (unsigned k = 0; k < 2 * SECTOR; k++)
            assert_int_equal(buffers[i][k], k < SECTOR ? 0x3c : 0);
    ok(farblk_close(dev));
}

/* With several connections a flush on any covers all of them. */
static void
lost_connection_takes_the_device_with_it(void **state)
{
    enum { COUNT = 16 };
    struct fake_export export = plain;
    struct farblk *dev;
    uint8_t buffers[COUNT][SECTOR] = {0};
    struct iovec iov[COUNT];

    (void)state;
    export.flags |= FAKE_HAS_MULTI;
    nbd_fake_start(&fake, &export);
    dev = fake_open("connections=3");
    for (unsigned i = 0; i < COUNT; i++)
        iov[i] = (struct iovec){buffers[i], SECTOR};
    /* Until requests come by another connection than the first. */
    for (bool several = false; !several; nbd_fake_forget(&fake)) {
        for (unsigned i = 0; i < COUNT; i++)
            fake_submit(dev, FARBLK_OP_READ, i, &iov[i], 0);
        nbd_fake_await(&fake, COUNT);
        for (size_t i = 0; i < COUNT; i++) {
            several |= fake.request[i].connection != fake.request[0].connection;
            nbd_fake_answer(&fake, i, 0, 1);
        }
        for (unsigned i = 0; i < COUNT; i++)
            assert_int_equal(fake_collect().status, 0);
    }
    for (unsigned i = 0; i < COUNT; i++)
        fake_submit(dev, FARBLK_OP_WRITE, i, &iov[i], 0);
    nbd_fake_await(&fake, COUNT);
    shutdown(fake.request[0].connection, SHUT_RDWR);
    for (unsigned i = 0; i < COUNT; i++) {
        struct farblk_completion done = fake_collect();

        assert_int_equal(done.status, FARBLK_DISCONNECTED);
        assert_int_equal(done.effect, FARBLK_EFFECT_UNKNOWN);
    }
    fails_with(FARBLK_DISCONNECTED, farblk_flush(dev));
    text_has("lost");
    ok(farblk_close(dev));
}

/* ------------------------------------------------------------ hostile */

static void
sizes_that_can_not_be_are_refused(void **state)
{
    static const struct {
        struct fake_export export;
        const char *part;
    } cases[] = {
        {{.size = UINT64_MAX}, ""},
        {{.size = UINT64_C(1) << 63}, ""},
        {{.size = 1 << 20, .minimum = 3, .preferred = 4096, .maximum = 65536},
         ""},
        {{.size = 1 << 20,
          .minimum = 1 << 17,
          .preferred = 1 << 17,
          .maximum = 1 << 20},
         ""},
        {{.size = 1 << 20, .minimum = 4096, .preferred = 1, .maximum = 512},
         ""},
        {{.size = 1000}, "1000 octets"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct farblk *dev = NULL;
        int status;

        nbd_fake_start(&fake, &cases[i].export);
        status = farblk_open(fake.uri, NULL, &dev);
        if (status == 0) { /* libnbd has thrown the limits away */
            struct farblk_info info = support_info(dev);

            assert_int_equal(info.sector_size, 512);
            assert_true(info.size_sectors <= INT64_MAX / 512);
            ok(farblk_close(dev));
        } else {
            assert_null(dev);
            text_has(cases[i].part);
            assert_true(status == FARBLK_INVALID || status == FARBLK_PROTOCOL
                        || status == FARBLK_UNKNOWN);
        }
        nbd_fake_stop(&fake);
    }
}

static void
answer_that_is_none_ends_the_connection(void **state)
{
    static const struct {
        const char *octets;
        size_t length;
    } answers[] = {
        {"\x67\x44\x66\x99\0\0\0\0\0\0\0\0\0\0\0\1", 16}, /* no magic */
        {"\x67\x44\x66\x98\0\0\0\0\xff\xff\xff\xff\0\0\0\1", 16}, /* no id */
        {"\x66\x8e\x33\xef\0\1\0\1\0\0\0\0\0\0\0\1\0\0\0\0", 20}, /* a chunk */
        {"GET / HTTP/1.1\r\n\r\n", 18},
        {"", 0}, /* the end */
    };
    uint8_t buffer[SECTOR] = {1};
    struct iovec iov = {buffer, SECTOR};

    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        struct farblk *dev;
        struct farblk_completion done;

        nbd_fake_start(&fake, &plain);
        dev = fake_open("connect_timeout=1000");
        fake_submit(dev, FARBLK_OP_WRITE, 1, &iov, 0);
        nbd_fake_await(&fake, 1);
        nbd_fake_say(&fake, 0, answers[i].octets, answers[i].length);
        if (answers[i].length == 0)
            shutdown(fake.request[0].connection, SHUT_RDWR);
        done = fake_collect();
        assert_int_equal(done.status, FARBLK_DISCONNECTED);
        assert_int_equal(done.effect, FARBLK_EFFECT_UNKNOWN);
        assert_string_not_equal(done.text, "");
        fails_with(FARBLK_DISCONNECTED, farblk_flush(dev));
        ok(farblk_close(dev));
        nbd_fake_stop(&fake);
    }
}

/* Accepts one connection, says these octets, and closes. */
struct greeter {
    int listener;
    const void *octets;
    size_t length;
};

static void *
fake_greet(void *arg)
{
    const struct greeter *greeter = arg;
    char sink[4096];
    int fd = accept(greeter->listener, NULL, NULL);

    if (fd < 0)
        return NULL;
    if (send(fd, greeter->octets, greeter->length, MSG_NOSIGNAL)
        == (ssize_t)greeter->length)
        shutdown(fd, SHUT_WR);
    while (recv(fd, sink, sizeof sink, 0) > 0)
        ;
    close(fd);
    return NULL;
}

static int
fake_entry(void *arg, const struct farblk_list_entry *entry)
{
    (void)arg;
    (void)entry;
    return 0;
}

static int
fake_open_at_greeter(const void *octets, size_t length, bool listing)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct greeter greeter = {.octets = octets, .length = length};
    struct farblk *dev = NULL;
    char path[104], uri[256];
    pthread_t thread;
    int status;

    snprintf(path, sizeof path, "%s", support_path("g"));
    snprintf(uri, sizeof uri, "nbd+unix:///?socket=%s&connect_timeout=5000",
             path);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    greeter.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(greeter.listener >= 0);
    assert_int_equal(bind(greeter.listener, (const struct sockaddr *)&address,
                          sizeof address),
                     0);
    assert_int_equal(listen(greeter.listener, 4), 0);
    assert_int_equal(pthread_create(&thread, NULL, fake_greet, &greeter), 0);
    status = listing ? farblk_list(uri, fake_entry, NULL)
                     : farblk_open(uri, NULL, &dev);
    assert_null(dev);
    shutdown(greeter.listener, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(greeter.listener);
    unlink(path);
    return status;
}

static void
greetings_cut_anywhere_or_garbled_are_errors(void **state)
{
    /* A whole handshake of the old kind, and one of the new with its options
     * answered before they are asked. */
    static const uint8_t good[] =
        "NBDMAGICIHAVEOPT\0\3"
        "\0\3\xe8\x89\x04\x55\x65\xa9\0\0\0\x08\x80\0\0\1\0\0\0\0"
        "\0\3\xe8\x89\x04\x55\x65\xa9\0\0\0\x07\0\0\0\3\0\0\0\x0c"
        "\0\0\0\0\0\0\0\x10\0\0\0\1"
        "\0\3\xe8\x89\x04\x55\x65\xa9\0\0\0\x07\0\0\0\1\0\0\0\0";
    uint8_t octets[sizeof good - 1];
    struct rng rng = {.state = 4};

    (void)state;
    for (size_t length = 0; length < sizeof octets; length += 3)
        assert_true(fake_open_at_greeter(good, length, length % 2) < 0);
    for (unsigned round = 0; round < 60; round++) {
        memcpy(octets, good, sizeof octets);
        for (unsigned k = 0; k <= round % 4; k++)
            octets[rng_below(&rng, sizeof octets)] = (uint8_t)rng_next(&rng);
        /* Some are fine; then the connection ends at once. */
        (void)fake_open_at_greeter(octets, sizeof octets - 1, round % 5 == 0);
    }
}

/* ------------------------------------------------------------ extents */

struct run {
    uint64_t length;
    bool unmapped;
};

static void
map_check(uint32_t sector, uint64_t offset, uint64_t limit, size_t max,
          const struct run *runs, const char *wanted)
{
    struct farblk_extent extents[8];
    char text[200] = "";
    struct nbd_map map;

    nbd_map_begin(&map, sector, offset, limit, extents, max);
    for (; runs->length != 0; runs++)
        nbd_map_add(&map, runs->length, runs->unmapped);
    nbd_map_end(&map);
    assert_true(map.count <= max);
    for (size_t i = 0; i < map.count; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%c%llu+%llu",
                 extents[i].mapped ? ' ' : '-',
                 (unsigned long long)extents[i].start,
                 (unsigned long long)extents[i].count);
    assert_string_equal(text, wanted);
}

static void
sectors_are_unmapped_only_as_a_whole(void **state)
{
    (void)state;
    /* Runs that fit. */
    map_check(512, 0, 4096, 8,
              (const struct run[]){
                  {1024, false}, {2048, true}, {1024, false}, {0, 0}},
              " 0+2-2+4 6+2");
    /* Longer than asked for, and of one kind twice. */
    map_check(
        512, 1024, 4096, 8,
        (const struct run[]){
            {512, true}, {512, true}, {1 << 30, false}, {512, true}, {0, 0}},
        "-2+2 4+4");
    /* Ends inside of sectors. */
    map_check(
        4096, 0, 40960, 8,
        (const struct run[]){
            {5000, true}, {1000, false}, {20000, true}, {14960, false}, {0, 0}},
        "-0+1 1+1-2+4 6+4");
    /* Holes that hold no whole sector are none. */
    map_check(4096, 0, 40960, 8,
              (const struct run[]){{512, false},
                                   {4096, true},
                                   {512, false},
                                   {4096, true},
                                   {31744, false},
                                   {0, 0}},
              " 0+10");
    /* The answer is short, and ends inside a sector. */
    map_check(4096, 8192, 40960, 8, (const struct run[]){{6000, true}, {0, 0}},
              "-2+1");
    map_check(4096, 8192, 40960, 8, (const struct run[]){{6000, false}, {0, 0}},
              " 2+2");
    map_check(4096, 8192, 40960, 8, (const struct run[]){{512, true}, {0, 0}},
              " 2+1");
    /* No room for all. */
    map_check(
        512, 0, 4096, 2,
        (const struct run[]){
            {512, false}, {512, true}, {512, false}, {2560, true}, {0, 0}},
        " 0+1-1+1");
    map_check(512, 0, 4096, 8, (const struct run[]){{0, 0}}, "");
}

static int
fake_setup(void **state)
{
    (void)state;
    support_watch("nbd_fake");
    fake.listener = -1;
    return farblk_queue_create(DEPTH, &queue);
}

static int
fake_teardown(void **state)
{
    (void)state;
    support_watch(NULL);
    nbd_fake_stop(&fake);
    farblk_queue_destroy(queue);
    return 0;
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(buffers_are_the_callers_again_after_a_timeout),
        TEST(late_write_never_undoes_an_acknowledged_one),
        TEST(what_was_not_sent_has_not_happened),
        TEST(closing_waits_for_what_a_timeout_left),
        TEST(server_without_flush_gets_fua_with_each_change),
        TEST(scattered_buffers_travel_as_one_request),
        TEST(lost_connection_takes_the_device_with_it),
        TEST(sizes_that_can_not_be_are_refused),
        TEST(answer_that_is_none_ends_the_connection),
        TEST(greetings_cut_anywhere_or_garbled_are_errors),
        TEST(sectors_are_unmapped_only_as_a_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
