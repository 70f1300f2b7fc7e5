/* SPDX-License-Identifier: ISC */
/*
 * Peers that stop at each octet of a conversation: that close there, reset the
 * connection there, or say no more; and many that vanish with requests in
 * flight.  The others do not notice.
 */
#include "tests/siege.h"

#include <endian.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const uint8_t greeting[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};

/* What the conversation is, message by message; the greeting comes first. */
static const enum peer_method script[] = {
    PEER_HELLO, PEER_OPEN,    PEER_GET_INFO,   PEER_WRITE,     PEER_READ,
    PEER_FLUSH, PEER_EXTENTS, PEER_WATCH_INFO, PEER_DISCONNECT};
#define STEPS (sizeof script / sizeof script[0])

/* The body of one of them; free() it. */
static uint8_t *
make_body(struct peer *peer, enum peer_method method, size_t *length)
{
    static const uint8_t data[PEER_SECTOR] = {1};
    Farblk__V1__HelloRequest hello = FARBLK__V1__HELLO_REQUEST__INIT;
    Farblk__V1__OpenRequest open = FARBLK__V1__OPEN_REQUEST__INIT;
    Farblk__V1__WriteRequest write = FARBLK__V1__WRITE_REQUEST__INIT;
    Farblk__V1__ReadRequest read = FARBLK__V1__READ_REQUEST__INIT;
    Farblk__V1__ExtentsRequest extents = FARBLK__V1__EXTENTS_REQUEST__INIT;
    Farblk__V1__PingRequest none = FARBLK__V1__PING_REQUEST__INIT;
    hello.version = 1;
    open.name = (char *)(uintptr_t) "disk";
    write.sector = read.sector = SIEGE_SECTORS - 1;
    write.count = read.count = 1;
    extents.count = extents.max = 10;
    switch (method) {
    case PEER_HELLO:
        return peer_pack(peer, method, &hello.base, NULL, 0, length);
    case PEER_OPEN:
        return peer_pack(peer, method, &open.base, NULL, 0, length);
    case PEER_WRITE:
        return peer_pack(peer, method, &write.base, data, sizeof data, length);
    case PEER_READ:
        return peer_pack(peer, method, &read.base, NULL, 0, length);
    case PEER_EXTENTS:
        return peer_pack(peer, method, &extents.base, NULL, 0, length);
    default: /* whose arguments are empty, or may be */
        return peer_pack(peer, method, &none.base, NULL, 0, length);
    }
}

/* The same as a frame. */
static size_t
make_frame(struct peer *peer, enum peer_method method, uint8_t *to)
{
    size_t length, at = 0;
    uint8_t *body = make_body(peer, method, &length);
    uint64_t octets = htobe64(length + 4);
    uint32_t id = htobe32(0x80000000u | ++peer->id);
    if (peer->ipc)
        to[at++] = 1;
    memcpy(to + at, &octets, 8);
    memcpy(to + at + 8, &id, 4);
    memcpy(to + at + 12, body, length);
    free(body);
    return at + 12 + length;
}

/* A peer that has gone through the first `steps` of it. */
static void
go_to(struct siege *siege, struct peer *peer, size_t steps)
{
    assert_true(siege_connect(siege, peer));
    for (size_t i = 0; i < steps; i++) {
        size_t length;
        uint8_t *body;
        if (script[i] == PEER_HELLO) {
            assert_int_equal(peer_hello(peer), 0);
        } else if (script[i] == PEER_OPEN) {
            assert_int_equal(peer_open(peer, "disk"), 0);
        } else {
            body = make_body(peer, script[i], &length);
            int status = peer_send(peer, body, length);
            assert_true(status == 0 || status == FARBLK_TIMED_OUT);
            free(body);
        }
    }
}

/* Each octet of what is not data, some of what is. */
static bool
counts(size_t octet, size_t length)
{
    return length < PEER_SECTOR || octet < length - PEER_SECTOR + 2
           || octet % 61 == 0 || octet + 2 > length;
}

/* Stop after `octets` octets of the next message. */
static void
stop_in(struct siege *siege, size_t step, size_t octets, bool reset)
{
    uint8_t frame[1024];
    struct peer peer;
    go_to(siege, &peer, step);
    make_frame(&peer, script[step], frame);
    assert_true(peer_send_all(peer.fd, frame, octets));
    peer_free(&peer);
    if (reset)
        siege_reset(peer.fd);
    else
        close(peer.fd);
}

static size_t
length_of(struct siege *siege, size_t step)
{
    uint8_t frame[1024];
    struct peer peer;
    go_to(siege, &peer, step);
    size_t length = make_frame(&peer, script[step], frame);
    peer_free(&peer);
    close(peer.fd);
    return length;
}

static void
peers_may_close_or_reset_at_each_octet(void **state)
{
    struct siege *siege = *state;
    unsigned times = 0;
    for (size_t octets = 0; octets <= sizeof greeting; octets++) {
        int fd = siege_dial(siege);
        assert_true(fd >= 0);
        assert_true(peer_send_all(fd, greeting, octets));
        if (octets % 2)
            siege_reset(fd);
        else
            close(fd);
    }
    for (size_t step = 0; step < STEPS; step++) {
        size_t length = length_of(siege, step);
        /* TLS's handshakes take their time, and its messages are TCP's. */
        bool tls = strcmp(siege->transport, "tls") == 0;
        for (size_t octets = tls ? step % 3 : 0; octets <= length;
             octets += tls ? 3 : 1)
            if (counts(octets, length))
                stop_in(siege, step, octets, times++ % 2);
        siege_expect_service(siege);
    }
    assert_true(times > 100);
}

/* ------------------------------------------------------------ stalls */

enum { STALLS_MAX = 500 };

static struct stall {
    struct peer peer;
    bool begun; /* in the middle of a message: the server closes */
} stalls[STALLS_MAX];

/* All of them at once; and they all are closed by the limits, but those who are
 * merely silent between two messages. */
static void
peers_may_stall_at_each_octet(void **state)
{
    struct siege *siege = *state;
    bool tls = strcmp(siege->transport, "tls") == 0;
    size_t count = 0;
    for (size_t octets = 0; octets < sizeof greeting; octets++) {
        struct stall *stall = &stalls[count++];
        memset(stall, 0, sizeof *stall);
        stall->peer.fd = siege_dial(siege);
        stall->begun = true;
        assert_true(peer_send_all(stall->peer.fd, greeting, octets));
    }
    for (size_t step = 0; step < STEPS; step++) {
        size_t length = length_of(siege, step);
        for (size_t octets = 0; octets < length; octets += 1 + step % 3) {
            uint8_t frame[1024];
            if (!counts(octets, length) || count == STALLS_MAX
                || (tls && octets % 4 != step % 4))
                continue;
            struct stall *stall = &stalls[count++];
            go_to(siege, &stall->peer, step);
            make_frame(&stall->peer, script[step], frame);
            assert_true(peer_send_all(stall->peer.fd, frame, octets));
            /* Without a Hello silence counts, too. */
            stall->begun = octets > 0 || step == 0;
        }
    }
    assert_true(count > (tls ? 40 : 100));
    siege_expect_service(siege);
    for (size_t i = 0; i < count; i++) {
        if (stalls[i].begun)
            assert_true(peer_is_closed(stalls[i].peer.fd));
        peer_free(&stalls[i].peer);
    }
    for (size_t i = 0; i < count; i++)
        close(stalls[i].peer.fd);
}

/* ------------------------------------------------------------ vanishing */

/* A client of the library with much in flight, until it is killed. */
static void
be_a_busy_client(const char *uri, int ready)
{
    static uint8_t data[64][16384];
    static struct iovec iov[64];
    struct farblk_completion done;
    struct farblk_queue *queue;
    struct farblk *dev;
    if (farblk_open(uri, NULL, &dev) != 0
        || farblk_queue_create(64, &queue) != 0)
        _exit(1);
    for (unsigned long n = 0;; n++) {
        unsigned i = n % 64;
        iov[i] = (struct iovec){data[i], sizeof data[i]};
        const struct farblk_request request = {
            .size = sizeof request,
            .op = n % 2 ? FARBLK_OP_READ : FARBLK_OP_WRITE,
            .dev = dev,
            .sector = 512 + n % 16 * 32, /* others have the rest */
            .iov = &iov[i],
            .iovcnt = 1,
        };
        if (n >= 64
            && (farblk_collect(queue, &done, sizeof done, 1, -1) != 1
                || done.status != 0))
            _exit(2);
        if (farblk_submit(queue, &request) != 0)
            _exit(3);
        if (n == 200 && write(ready, "", 1) != 1)
            _exit(4);
    }
}

/* The child execs itself: nng does not survive a fork. */
static pid_t
start_client(const char *uri, int *ready)
{
    int ends[2];
    char number[16];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(ends[0]);
        snprintf(number, sizeof number, "%d", ends[1]);
        execl("/proc/self/exe", "busy-client", uri, number, NULL);
        _exit(5);
    }
    close(ends[1]);
    *ready = ends[0];
    return pid;
}

/* nbdkit 1.32's server aborts then. */
static void
clients_may_be_killed_with_much_in_flight(void **state)
{
    struct siege *siege = *state;
    enum { CLIENTS = 4 };
    for (unsigned round = 0; round < 3; round++) {
        pid_t pids[CLIENTS];
        int ready[CLIENTS];
        char octet;
        for (unsigned i = 0; i < CLIENTS; i++)
            pids[i] = start_client(siege->uri, &ready[i]);
        for (unsigned i = 0; i < CLIENTS; i++)
            assert_int_equal(read(ready[i], &octet, 1), 1);
        for (unsigned i = 0; i < CLIENTS; i++) {
            int status;
            assert_int_equal(kill(pids[i], SIGKILL), 0);
            assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
            assert_true(WIFSIGNALED(status));
            close(ready[i]);
            siege_expect_service(siege);
        }
    }
}

/* Reads are asked for, and the connection is reset before they are taken. */
static void
connections_may_be_reset_with_replies_under_way(void **state)
{
    struct siege *siege = *state;
    Farblk__V1__ReadRequest read = FARBLK__V1__READ_REQUEST__INIT;
    read.count = SIEGE_PAYLOAD / PEER_SECTOR;
    for (unsigned round = 0; round < 30; round++) {
        struct peer peer;
        siege_peer(siege, &peer);
        for (unsigned i = 0; i < 40; i++) {
            uint8_t frame[256];
            size_t length, at = peer.ipc;
            uint8_t *body =
                peer_pack(&peer, PEER_READ, &read.base, NULL, 0, &length);
            uint64_t octets = htobe64(length + 4);
            uint32_t id = htobe32(0x80000000u | ++peer.id);
            frame[0] = 1;
            memcpy(frame + at, &octets, 8);
            memcpy(frame + at + 8, &id, 4);
            memcpy(frame + at + 12, body, length);
            free(body);
            /* The server may hold us up, or have noticed. */
            if (send(peer.fd, frame, at + 12 + length,
                     MSG_NOSIGNAL | MSG_DONTWAIT)
                < 0)
                break;
        }
        peer_free(&peer);
        siege_reset(peer.fd);
    }
    siege_expect_service(siege);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peers_may_close_or_reset_at_each_octet),
        cmocka_unit_test(peers_may_stall_at_each_octet),
        cmocka_unit_test(clients_may_be_killed_with_much_in_flight),
        cmocka_unit_test(connections_may_be_reset_with_replies_under_way),
    };
    if (argc == 3)
        be_a_busy_client(argv[1], atoi(argv[2]));
    return siege_choose(argc, argv)
           || cmocka_run_group_tests(tests, siege_begin, siege_end);
}
