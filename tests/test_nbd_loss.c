/* SPDX-License-Identifier: ISC */
/*
 * The nbd driver against nbdkit and qemu-nbd: servers that are not there, that
 * refuse, fail, stall and die; several connections to one; TLS.
 */
#include "tests/nbd_servers.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512u

static struct nbd_server server;

/* Start nbdkit with these arguments, on a Unix socket. */
#define NBDKIT(...)                                                            \
    nbd_server_start(&server, false,                                           \
                     (const char *const[]){"nbdkit", "-f", __VA_ARGS__, NULL})

static struct farblk *
nbd_open(const char *more)
{
    struct farblk *dev = NULL;

    ok(farblk_open(nbd_server_uri(&server, "nbd", "", more), NULL, &dev));
    return dev;
}

/* With a limit so short that a busy machine may pass it now and then. */
static struct farblk *
nbd_open_in_time(const char *more)
{
    struct farblk *dev = NULL;
    int status;

    do
        status =
            farblk_open(nbd_server_uri(&server, "nbd", "", more), NULL, &dev);
    while (status == FARBLK_TIMED_OUT);
    ok(status);
    return dev;
}

static void
nbd_open_fails(int status, const char *more, const char *part)
{
    struct farblk *dev = NULL;

    fails_with(status, farblk_open(nbd_server_uri(&server, "nbd", "", more),
                                   NULL, &dev));
    text_has(part);
    assert_null(dev);
}

/* ------------------------------------------------------------ no server */

static void
server_that_is_not_there_is_said_to_be_so(void **state)
{
    struct farblk *dev = NULL;
    char uri[200];

    (void)state;
    snprintf(uri, sizeof uri, "nbd+unix:///?socket=%s", support_path("none"));
    fails_with(FARBLK_NOT_FOUND, farblk_open(uri, NULL, &dev));
    text_has("No such file");
    NBDKIT("memory", "1M");
    snprintf(uri, sizeof uri, "%s", nbd_server_uri(&server, "nbd", "", ""));
    kill(server.pid, SIGKILL);
    nbd_server_kill(&server);
    fails_with(FARBLK_NOT_FOUND, farblk_open(uri, NULL, &dev));
    nbd_server_start(
        &server, true,
        (const char *const[]){"nbdkit", "-f", "memory", "1M", NULL});
    snprintf(uri, sizeof uri, "%s", nbd_server_uri(&server, "nbd", "", ""));
    nbd_server_kill(&server);
    fails_with(FARBLK_CONNECTION_LOST, farblk_open(uri, NULL, &dev));
    text_has("refused");
    fails_with(FARBLK_NOT_FOUND,
               farblk_open("nbd://no.such.host.invalid/", NULL, &dev));
    text_has("no.such.host.invalid");
}

static int
nbd_first_entry(void *arg, const struct farblk_list_entry *entry)
{
    (void)arg;
    (void)entry;
    return 1;
}

static void
server_that_says_nothing_is_not_waited_for(void **state)
{
    (void)state;
    NBDKIT("memory", "1M");
    nbd_server_pause(&server);
    nbd_open_fails(FARBLK_TIMED_OUT, "connect_timeout=50", "50 ms");
    fails_with(
        FARBLK_TIMED_OUT,
        farblk_list(nbd_server_uri(&server, "nbd", "", "connect_timeout=50"),
                    nbd_first_entry, NULL));
}

/* ------------------------------------------------------------ failures */

static void
servers_errors_arrive_with_their_text(void **state)
{
    static const struct {
        const char *error;
        int read, write;
        const char *text;
    } errors[] = {
        {"EPERM", FARBLK_DENIED, FARBLK_IS_READ_ONLY,
         "Operation not permitted"},
        {"EIO", FARBLK_IO, FARBLK_IO, "Input/output error"},
        {"ENOMEM", FARBLK_NO_MEMORY, FARBLK_NO_MEMORY, "allocate memory"},
        {"EINVAL", FARBLK_IO, FARBLK_IO, "Invalid argument"},
        {"ENOSPC", FARBLK_NO_SPACE, FARBLK_NO_SPACE, "No space left"},
        {"ESHUTDOWN", FARBLK_DISCONNECTED, FARBLK_DISCONNECTED, "shutdown"},
    };
    uint8_t buffer[SECTOR] = {1};
    struct farblk_extent extent;
    uint64_t sector;

    (void)state;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        char error[32];
        struct farblk *dev;

        snprintf(error, sizeof error, "error=%s", errors[i].error);
        NBDKIT("--filter=error", "memory", "1M", error, "error-rate=100%");
        dev = nbd_open("");
        fails_with(errors[i].write, support_write(dev, 9, buffer, SECTOR, 0));
        text_has(errors[i].text);
        text_has("512 octets at 4608");
        assert_int_equal(farblk_last_effect(),
                         errors[i].write == FARBLK_IS_READ_ONLY
                             ? FARBLK_EFFECT_NONE
                             : FARBLK_EFFECT_UNKNOWN);
        fails_with(errors[i].read, support_read(dev, 0, buffer, SECTOR));
        text_has(errors[i].text);
        assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
        fails_with(errors[i].write, farblk_write_zeroes(dev, 0, 1, 0));
        fails_with(errors[i].write, farblk_discard(dev, 0, 1, 0));
        fails_with(errors[i].read, farblk_extents(dev, 0, 1, &extent, 1));
        fails_with(errors[i].read, farblk_seek_mapped(dev, 0, &sector));
        text_has(errors[i].text);
        ok(farblk_close(dev));
        nbd_server_kill(&server);
    }
}

static void
device_goes_on_after_an_error(void **state)
{
    uint8_t buffer[4 * SECTOR];
    struct farblk *dev;

    (void)state;
    NBDKIT("--filter=error", "memory", "1M", "error-pwrite-rate=100%",
           "error=ENOSPC");
    dev = nbd_open("");
    for (unsigned i = 0; i < 20; i++) {
        fails_with(FARBLK_NO_SPACE,
                   support_write(dev, i, buffer, sizeof buffer, 0));
        ok(support_read(dev, i, buffer, sizeof buffer));
        assert_true(pattern_is_zero(buffer, sizeof buffer));
    }
    ok(farblk_flush(dev));
    ok(farblk_close(dev));
}

/* A request that the server never answers, as the program's last. */
static void
closing_waits_a_bounded_time_for_a_silent_server(void **state)
{
    struct farblk_queue *queue;
    struct farblk_completion done;
    uint8_t buffer[SECTOR] = {1};
    struct iovec iov = {buffer, SECTOR};
    struct farblk *dev;

    (void)state;
    NBDKIT("memory", "1M");
    ok(farblk_queue_create(4, &queue));
    dev = nbd_open_in_time("connect_timeout=100");
    nbd_server_pause(&server);
    ok(farblk_submit(queue, &(struct farblk_request){
                                .size = sizeof(struct farblk_request),
                                .op = FARBLK_OP_WRITE,
                                .dev = dev,
                                .iov = &iov,
                                .iovcnt = 1,
                            }));
    ok(farblk_close(dev));
    assert_int_equal(farblk_collect(queue, &done, sizeof done, 1, 0), 1);
    assert_int_equal(done.status, FARBLK_DISCONNECTED);
    assert_int_equal(done.effect, FARBLK_EFFECT_UNKNOWN);
    assert_non_null(strstr(done.text, "100 ms"));
    farblk_queue_destroy(queue);
}

/* And when it has nothing to answer. */
static void
closing_takes_leave_of_a_silent_server(void **state)
{
    struct farblk *dev;

    (void)state;
    NBDKIT("memory", "1M");
    dev = nbd_open_in_time("connect_timeout=100");
    nbd_server_pause(&server);
    ok(farblk_close(dev));
}

enum { FLYING = 40 };

/* FLYING requests: reads, writes and zeroings by turns. */
static void
nbd_submit_many(struct farblk_queue *queue, struct farblk *dev,
                struct iovec *iov, int32_t timeout_ms)
{
    static const uint32_t ops[] = {FARBLK_OP_READ, FARBLK_OP_WRITE,
                                   FARBLK_OP_WRITE_ZEROES};

    for (uintptr_t i = 0; i < FLYING; i++)
        ok(farblk_submit(queue, &(struct farblk_request){
                                    .size = sizeof(struct farblk_request),
                                    .op = ops[i % 3],
                                    .dev = dev,
                                    .sector = i,
                                    .count = i % 3 == 2,
                                    .iov = i % 3 == 2 ? NULL : &iov[i],
                                    .iovcnt = i % 3 != 2,
                                    .timeout_ms = timeout_ms,
                                    .user = (void *)i,
                                }));
}

static void
server_that_dies_disconnects_what_is_in_flight(void **state)
{
    static const char *const how[] = {"", "connections=1"};
    static uint8_t buffers[FLYING][SECTOR];
    struct iovec iov[FLYING];
    struct farblk_completion done[FLYING];
    struct farblk_queue *queue;

    (void)state;
    for (int i = 0; i < FLYING; i++)
        iov[i] = (struct iovec){buffers[i], SECTOR};
    ok(farblk_queue_create(FLYING, &queue));
    for (int round = 0; round < 4; round++) {
        struct farblk *dev;
        struct farblk_info info;

        if (round < 2)
            NBDKIT("memory", "1M");
        else
            nbd_server_start(
                &server, true,
                (const char *const[]){"nbdkit", "-f", "memory", "1M", NULL});
        dev = nbd_open(how[round % 2]);
        nbd_server_pause(&server);
        nbd_submit_many(queue, dev, iov, 0);
        nbd_server_kill(&server);
        for (int n = 0; n < FLYING; n++) {
            assert_int_equal(farblk_collect(queue, done, sizeof *done, 1,
                                            SUPPORT_PATIENCE_MS),
                             1);
            assert_int_equal(done->status, FARBLK_DISCONNECTED);
            assert_int_equal(done->effect, (uintptr_t)done->user % 3 == 0
                                               ? FARBLK_EFFECT_NONE
                                               : FARBLK_EFFECT_UNKNOWN);
            assert_string_not_equal(done->text, "");
        }
        fails_with(FARBLK_DISCONNECTED,
                   support_read(dev, 0, buffers[0], SECTOR));
        fails_with(FARBLK_DISCONNECTED,
                   support_write(dev, 0, buffers[0], SECTOR, 0));
        assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
        fails_with(FARBLK_DISCONNECTED, farblk_flush(dev));
        ok(farblk_get_info(dev, &info, sizeof info));
        assert_int_equal(info.size_sectors, 2048);
        ok(farblk_close(dev));
    }
    farblk_queue_destroy(queue);
}

static void
slow_server_times_out_and_keeps_the_order(void **state)
{
    uint8_t old[SECTOR], new[SECTOR], now[SECTOR];
    struct farblk_options hurry = {.size = sizeof hurry, .timeout_ms = 10};
    struct farblk *dev = NULL;
    int status;

    (void)state;
    NBDKIT("--filter=delay", "memory", "1M", "delay-write=150ms",
           "delay-read=50ms");
    ok(farblk_open(nbd_server_uri(&server, "nbd", "", "connections=2"), &hurry,
                   &dev));
    for (unsigned i = 0; i < 3; i++) {
        struct farblk_queue *queue;
        struct farblk_completion done;
        struct iovec iov = {new, SECTOR};

        memset(old, 1 + 2 * (int)i, SECTOR);
        memset(new, 2 + 2 * (int)i, SECTOR);
        status = support_write(dev, 5, old, SECTOR, 0);
        if (status != 0) { /* the machine may be slower than the server */
            assert_int_equal(status, FARBLK_TIMED_OUT);
            assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_UNKNOWN);
        }
        ok(farblk_queue_create(1, &queue));
        ok(farblk_submit(queue, &(struct farblk_request){
                                    .size = sizeof(struct farblk_request),
                                    .op = FARBLK_OP_WRITE,
                                    .dev = dev,
                                    .sector = 5,
                                    .iov = &iov,
                                    .iovcnt = 1,
                                    .timeout_ms = -1,
                                }));
        assert_int_equal(farblk_collect(queue, &done, sizeof done, 1, -1), 1);
        assert_int_equal(done.status, 0);
        ok(farblk_submit(queue, &(struct farblk_request){
                                    .size = sizeof(struct farblk_request),
                                    .op = FARBLK_OP_READ,
                                    .dev = dev,
                                    .sector = 5,
                                    .iov = &(struct iovec){now, SECTOR},
                                    .iovcnt = 1,
                                    .timeout_ms = -1,
                                }));
        assert_int_equal(farblk_collect(queue, &done, sizeof done, 1, -1), 1);
        assert_int_equal(done.status, 0);
        assert_memory_equal(now, new, SECTOR);
        farblk_queue_destroy(queue);
    }
    ok(farblk_close(dev));
}

/* ------------------------------------------------------------ connections */

static unsigned
nbd_connections(struct farblk *dev, const char *path, unsigned least)
{
    static uint8_t buffers[FLYING][SECTOR];
    struct iovec iov[FLYING];
    struct farblk_completion done[FLYING];
    struct farblk_queue *queue;
    unsigned before = 0, now = 0;

    for (int i = 0; i < FLYING; i++)
        iov[i] = (struct iovec){buffers[i], SECTOR};
    ok(farblk_queue_create(FLYING, &queue));
    /* More connections come in the background; nothing tells when. */
    for (int still = 0; still < 50 || now < least; still++) {
        nbd_submit_many(queue, dev, iov, 0);
        while (farblk_queue_pending(queue) > 0)
            ok(farblk_collect(queue, done, sizeof *done, FLYING, -1));
        now = nbd_server_logged(path, " Connect ", "");
        if (now != before)
            still = 0;
        before = now;
    }
    farblk_queue_destroy(queue);
    return now;
}

static void
connections_are_as_many_as_allowed(void **state)
{
    static const struct {
        const char *mode, *more;
        unsigned most;
    } cases[] = {
        {"multi-conn-mode=plugin", "", 4},
        {"multi-conn-mode=plugin", "connections=1", 1},
        {"multi-conn-mode=plugin", "connections=2", 2},
        {"multi-conn-mode=disable", "connections=8", 1},
    };
    char log[300];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = support_path("log");
        struct farblk *dev;
        unsigned least;

        snprintf(log, sizeof log, "logfile=%s", path);
        NBDKIT("--filter=log", "--filter=multi-conn", "memory", "1M", log,
               cases[i].mode);
        dev = nbd_open(cases[i].more);
        least = cases[i].most > 1 ? 2 : 1;
        assert_in_range(nbd_connections(dev, path, least), least,
                        cases[i].most);
        ok(farblk_close(dev));
        nbd_server_kill(&server);
    }
}

/* It allows two connections at once, says that it keeps several coherent, and
 * leaves the third one waiting. */
static void
connections_that_can_not_be_had_are_done_without(void **state)
{
    static uint8_t buffers[FLYING][SECTOR];
    struct iovec iov[FLYING];
    struct farblk_completion done[FLYING];
    struct farblk_queue *queue;
    const char *path = support_path("disk");
    struct farblk *dev;

    (void)state;
    if (!nbd_server_usable("qemu-nbd"))
        skip();
    support_make_file(path, 1 << 20);
    nbd_server_start(&server, false,
                     (const char *const[]){"qemu-nbd", "-t", "-e", "2", "-f",
                                           "raw", path, NULL});
    dev = nbd_open_in_time("connections=8&connect_timeout=300");
    for (int i = 0; i < FLYING; i++)
        iov[i] = (struct iovec){buffers[i], SECTOR};
    ok(farblk_queue_create(FLYING, &queue));
    for (int round = 0; round < 50; round++) {
        nbd_submit_many(queue, dev, iov, 0);
        while (farblk_queue_pending(queue) > 0) {
            int n = ok(farblk_collect(queue, done, sizeof *done, FLYING, -1));

            for (int i = 0; i < n; i++)
                assert_int_equal(done[i].status, 0);
        }
    }
    farblk_queue_destroy(queue);
    ok(farblk_close(dev));
}

/* ------------------------------------------------------------ TLS */

static void
tls_with_shared_keys_works(void **state)
{
    static const char keys[] = "alice:00112233445566778899aabbccddeeff\n"
                               "bob:ffeeddccbbaa99887766554433221100\n";
    static const char wrong[] = "alice:ffffffffffffffffffffffffffffffff\n";
    char psk[300], more[400], uri[512];
    const char *path = support_path("keys"), *other = support_path("keys");
    struct farblk *dev = NULL;
    static uint8_t large[6 << 20];
    uint8_t buffer[SECTOR] = {5};

    (void)state;
    for (int i = 0; i < 2; i++) {
        int fd = open(i ? other : path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        const char *text = i ? wrong : keys;

        assert_true(fd >= 0);
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
        close(fd);
    }
    snprintf(psk, sizeof psk, "--tls-psk=%s", path);
    NBDKIT("--tls=require", psk, "memory", "8M");
    snprintf(more, sizeof more, "tls-psk-file=%s&tls-username=alice", path);
    ok(farblk_open(nbd_server_uri(&server, "nbds", "", more), NULL, &dev));
    assert_string_equal(support_info(dev).transport, "tls+ipc");
    ok(support_write(dev, 7, buffer, SECTOR, 0));
    /* Many records, several connections, both directions. */
    for (unsigned round = 0; round < 3; round++) {
        pattern_fill(large, sizeof large, round);
        ok(support_write(dev, 0, large, sizeof large, 0));
        memset(large, 0, sizeof large);
        ok(support_read(dev, 0, large, sizeof large));
        assert_int_equal(pattern_check(large, sizeof large, round),
                         sizeof large);
    }
    ok(farblk_flush(dev));
    ok(farblk_close(dev));
    /* As libnbd writes it: nbds+unix://bob@/?... */
    snprintf(uri, sizeof uri, "nbds+unix://bob@/?socket=%s&tls-psk-file=%s",
             server.socket, path);
    ok(farblk_open(uri, NULL, &dev));
    ok(farblk_close(dev));
    assert_int_equal(farblk_list(nbd_server_uri(&server, "nbds", "", more),
                                 nbd_first_entry, NULL),
                     1);
    snprintf(more, sizeof more, "tls-psk-file=%s&tls-username=alice", other);
    fails_with(
        FARBLK_DENIED,
        farblk_open(nbd_server_uri(&server, "nbds", "", more), NULL, &dev));
    text_has("gnutls");
    /* One side alone. */
    fails_with(FARBLK_UNIMPLEMENTED,
               farblk_open(nbd_server_uri(&server, "nbd", "", ""), NULL, &dev));
    nbd_server_kill(&server);
    NBDKIT("memory", "1M");
    snprintf(more, sizeof more, "tls-psk-file=%s&tls-username=alice", path);
    fails_with(
        FARBLK_UNIMPLEMENTED,
        farblk_open(nbd_server_uri(&server, "nbds", "", more), NULL, &dev));
}

/* SIGPIPE as a program finds it that knows nothing of it. */
static void
dead_server_raises_no_signal(void **state)
{
    static const char keys[] = "alice:00112233445566778899aabbccddeeff\n";
    static uint8_t buffers[FLYING][SECTOR];
    struct iovec iov[FLYING];
    struct farblk_completion done[FLYING];
    struct farblk_queue *queue;
    const char *path = support_path("keys");
    char psk[300], more[400];
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, keys, strlen(keys)), strlen(keys));
    close(fd);
    for (int i = 0; i < FLYING; i++)
        iov[i] = (struct iovec){buffers[i], SECTOR};
    snprintf(psk, sizeof psk, "--tls-psk=%s", path);
    snprintf(more, sizeof more, "tls-psk-file=%s&tls-username=alice", path);
    signal(SIGPIPE, SIG_DFL);
    ok(farblk_queue_create(FLYING, &queue));
    for (int tls = 0; tls < 2; tls++) {
        struct farblk *dev = NULL;

        if (tls)
            NBDKIT("--tls=require", psk, "memory", "1M");
        else
            NBDKIT("memory", "1M");
        ok(farblk_open(
            nbd_server_uri(&server, tls ? "nbds" : "nbd", "", tls ? more : ""),
            NULL, &dev));
        nbd_server_kill(&server);
        nbd_submit_many(queue, dev, iov, 0);
        while (farblk_queue_pending(queue) > 0) {
            int n = ok(farblk_collect(queue, done, sizeof *done, FLYING, -1));

            for (int i = 0; i < n; i++)
                assert_int_equal(done[i].status, FARBLK_DISCONNECTED);
        }
        ok(farblk_close(dev));
    }
    farblk_queue_destroy(queue);
}

static int
nbd_setup(void **state)
{
    (void)state;
    support_watch("nbd");
    return 0;
}

static int
nbd_teardown(void **state)
{
    (void)state;
    support_watch(NULL);
    nbd_server_kill_all();
    return 0;
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, nbd_setup, nbd_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(server_that_is_not_there_is_said_to_be_so),
        TEST(server_that_says_nothing_is_not_waited_for),
        TEST(servers_errors_arrive_with_their_text),
        TEST(device_goes_on_after_an_error),
        TEST(closing_waits_a_bounded_time_for_a_silent_server),
        TEST(closing_takes_leave_of_a_silent_server),
        TEST(server_that_dies_disconnects_what_is_in_flight),
        TEST(slow_server_times_out_and_keeps_the_order),
        TEST(connections_are_as_many_as_allowed),
        TEST(connections_that_can_not_be_had_are_done_without),
        TEST(tls_with_shared_keys_works),
        TEST(dead_server_raises_no_signal),
    };

    if (!nbd_server_usable("nbdkit")) {
        printf("no nbdkit: skipped\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
