/* SPDX-License-Identifier: ISC */
/*
 * Servers that stop at each octet of what they say: that close there, reset the
 * connection there, or say no more.  Each call of the client returns, with what
 * can be; in the end no descriptor is left.
 *
 * The server is one thread with a plain socket.  What it says is counted, and
 * after so many octets it stops.  A client to whom the reply to a write does not
 * come waits for the lease, which is a second at least: so the octets are dealt
 * out to some processes, each with a server and a client of its own.
 */
#include "tests/certs.h"
#include "tests/peer.h"
#include "tests/siege.h"
#include "tests/tls_pump.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHARES 4u
#define SECTORS 64u
#define ENOUGH 100000u /* octets, more than all that it says */

enum stop { STOP_CLOSE, STOP_RESET, STOP_STALL };

static struct liar {
    const char *transport;
    bool ipc, tls;
    struct tls_pump_front *front; /* of tls: what it hears is plain */
    int listener;
    char uri[320];
    pthread_t thread;
    size_t left, said; /* octets */
    enum stop stop;
    bool whole; /* the conversation is to be heard out: it has time */
    bool stopped;
} liar;

static unsigned share; /* this process's */

/* ------------------------------------------------------------ the server */

/* False: that was all. */
static bool
say(int fd, const uint8_t *octets, size_t length)
{
    size_t part = length < liar.left ? length : liar.left;
    if (part > 0 && !peer_send_all(fd, octets, part))
        return false;
    liar.left -= part;
    liar.said += part;
    if (part < length)
        liar.stopped = true;
    return part == length;
}

/* The method's reply message; its length. */
static size_t
make_result(uint32_t method, uint8_t *to)
{
    static uint8_t octets[16] = {1};
    static uint64_t counts[2] = {4, 6};
    static protobuf_c_boolean mapped[2] = {1, 0};
    Farblk__V1__HelloReply hello = FARBLK__V1__HELLO_REPLY__INIT;
    Farblk__V1__Limits limits = FARBLK__V1__LIMITS__INIT;
    Farblk__V1__OpenReply open = FARBLK__V1__OPEN_REPLY__INIT;
    Farblk__V1__GetInfoReply got = FARBLK__V1__GET_INFO_REPLY__INIT;
    Farblk__V1__Info info = FARBLK__V1__INFO__INIT;
    Farblk__V1__SeekReply seek = FARBLK__V1__SEEK_REPLY__INIT;
    Farblk__V1__ExtentsReply extents = FARBLK__V1__EXTENTS_REPLY__INIT;
    Farblk__V1__WatchInfoReply watch = FARBLK__V1__WATCH_INFO_REPLY__INIT;
    info.read_write = 1;
    info.sector_size = PEER_SECTOR;
    info.size_sectors = SECTORS;
    info.generation = 1;
    info.features = 0xff;
    info.max_transfer = info.preferred_transfer = 4096;
    switch (method) {
    case PEER_HELLO:
        limits.max_requests = 16;
        limits.max_octets = 1 << 20;
        limits.max_payload = 4096;
        limits.max_header = 65536;
        limits.max_handles = 4;
        limits.max_extents = 8;
        hello.version = 1;
        hello.session = 77;
        hello.secret = (ProtobufCBinaryData){16, octets};
        hello.instance = (ProtobufCBinaryData){16, octets};
        /* The least that a client believes, where it is to run out. */
        hello.lease_ms = liar.whole ? SUPPORT_PATIENCE_MS : 1000;
        hello.limits = &limits;
        return farblk__v1__hello_reply__pack(&hello, to);
    case PEER_OPEN:
        open.handle = 5;
        open.info = &info;
        open.content = (ProtobufCBinaryData){16, octets};
        return farblk__v1__open_reply__pack(&open, to);
    case PEER_GET_INFO:
        got.info = &info;
        return farblk__v1__get_info_reply__pack(&got, to);
    case PEER_SEEK_MAPPED:
        seek.sector = 9;
        return farblk__v1__seek_reply__pack(&seek, to);
    case PEER_EXTENTS:
        extents.n_counts = extents.n_mapped = 2;
        extents.counts = counts;
        extents.mapped = mapped;
        return farblk__v1__extents_reply__pack(&extents, to);
    case PEER_WATCH_INFO:
        watch.generation = 2;
        return farblk__v1__watch_info_reply__pack(&watch, to);
    default:
        return 0;
    }
}

/* Hear one request, answer it.  False: the conversation is over. */
static bool
answer(int fd)
{
    uint8_t frame[8192], result[512], reply[2048];
    size_t prefix = liar.ipc ? 9 : 8;
    uint64_t length;
    uint32_t word;
    if (!peer_receive_all(fd, frame, prefix))
        return false;
    memcpy(&length, frame + prefix - 8, 8);
    length = be64toh(length);
    if (length < 8 || length > sizeof frame
        || !peer_receive_all(fd, frame, length))
        return false;
    memcpy(&word, frame + 4, 4);
    Farblk__V1__RequestHeader *ask =
        farblk__v1__request_header__unpack(NULL, be32toh(word), frame + 8);
    if (ask == NULL)
        return false;
    Farblk__V1__ReplyHeader header = FARBLK__V1__REPLY_HEADER__INIT;
    header.number = ask->number;
    header.generation = ask->method == PEER_WATCH_INFO ? 2
                        : ask->handle != 0             ? 1
                                                       : 0;
    header.size_sectors = ask->handle != 0 ? SECTORS : 0;
    header.result =
        (ProtobufCBinaryData){make_result(ask->method, result), result};
    size_t payload = ask->method == PEER_READ ? PEER_SECTOR : 0;
    farblk__v1__request_header__free_unpacked(ask, NULL);
    size_t size = farblk__v1__reply_header__get_packed_size(&header), at = 0;
    if (liar.ipc)
        reply[at++] = 1;
    length = htobe64(8 + size + payload);
    memcpy(reply + at, &length, 8);
    memcpy(reply + at + 8, frame, 4);
    word = htobe32((uint32_t)size);
    memcpy(reply + at + 12, &word, 4);
    farblk__v1__reply_header__pack(&header, reply + at + 16);
    memset(reply + at + 16 + size, 7, payload);
    return say(fd, reply, at + 16 + size + payload);
}

static void *
lie(void *arg)
{
    static const uint8_t greeting[8] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};
    uint8_t heard[8];
    (void)arg;
    for (;;) {
        int fd = accept(liar.listener, NULL, NULL);
        if (fd < 0)
            return NULL; /* shut down: the test is over */
        if (say(fd, greeting, sizeof greeting)
            && peer_receive_all(fd, heard, sizeof heard))
            while (answer(fd))
                ;
        /* One who stalls stays until the client has gone. */
        if (liar.stopped && liar.stop == STOP_STALL)
            while (recv(fd, heard, sizeof heard, 0) > 0)
                ;
        if (liar.stop == STOP_RESET)
            siege_reset(fd);
        else
            close(fd);
    }
}

/* ------------------------------------------------------------ the client */

static void
check(int status)
{
    if (status >= 0)
        return;
    if (status != FARBLK_DISCONNECTED && status != FARBLK_CONNECTION_LOST
        && status != FARBLK_TIMED_OUT && status != FARBLK_NOT_FOUND)
        fail_msg("%s: %s", farblk_status_name(status), farblk_last_text());
    assert_string_not_equal(farblk_last_text(), "");
}

/* Whether the device could be opened at all. */
static bool
use_device(void)
{
    uint8_t data[PEER_SECTOR] = {0};
    struct farblk_extent extents[4];
    struct farblk_info info;
    struct farblk *dev;
    uint64_t value;
    int status = farblk_open(liar.uri, NULL, &dev);
    check(status);
    if (status != 0)
        return false;
    memset(&info, 0, sizeof info);
    check(farblk_get_info(dev, &info, sizeof info));
    check(support_write(dev, 1, data, sizeof data, 0));
    status = support_read(dev, 2, data, sizeof data);
    check(status);
    /* Success with too little data there is not. */
    for (size_t i = 0; status == 0 && i < sizeof data; i++)
        assert_int_equal(data[i], 7);
    check(farblk_flush(dev));
    check(farblk_seek_mapped(dev, 3, &value));
    check(farblk_extents(dev, 0, 10, extents, 4));
    check(farblk_watch(dev, 1, -1, &value));
    ok(farblk_close(dev));
    return true;
}

static void
begin_liar(void)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in inet = {.sin_family = AF_INET};
    socklen_t size = sizeof inet;
    bool is_local = liar.ipc || liar.tls;
    /* Whoever breaks off in the greeting is tried again as long as that. */
    int connect_ms = liar.whole ? SUPPORT_PATIENCE_MS
                     : liar.left < 8 && liar.stop != STOP_STALL ? 200
                                                                : 2000;
    liar.listener =
        socket(is_local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(liar.listener >= 0);
    inet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    snprintf(local.sun_path, sizeof local.sun_path, "%s", support_path("liar"));
    assert_int_equal(
        bind(liar.listener,
             is_local ? (struct sockaddr *)&local : (struct sockaddr *)&inet,
             is_local ? sizeof local : sizeof inet),
        0);
    assert_int_equal(listen(liar.listener, 16), 0);
    if (liar.ipc) {
        snprintf(liar.uri, sizeof liar.uri,
                 "farblk+unix:///disk?socket=%s&connect_timeout=%d"
                 "&reconnect=0&shm=off",
                 local.sun_path, connect_ms);
    } else if (liar.tls) {
        unsigned port;
        liar.front = tls_pump_front(local.sun_path, certs_path("server.pem"),
                                    certs_path("server.key"), &port);
        snprintf(liar.uri, sizeof liar.uri,
                 "farblks://127.0.0.1:%u/disk?connect_timeout=%d&reconnect=0"
                 "&ca=%s",
                 port, connect_ms, certs_path("ca.pem"));
    } else {
        assert_int_equal(
            getsockname(liar.listener, (struct sockaddr *)&inet, &size), 0);
        snprintf(liar.uri, sizeof liar.uri,
                 "farblk://127.0.0.1:%u/disk?connect_timeout=%d&reconnect=0",
                 ntohs(inet.sin_port), connect_ms);
    }
    liar.said = 0;
    assert_int_equal(pthread_create(&liar.thread, NULL, lie, NULL), 0);
}

static void
end_liar(void)
{
    if (liar.tls)
        tls_pump_front_end(liar.front);
    shutdown(liar.listener, SHUT_RDWR);
    assert_int_equal(pthread_join(liar.thread, NULL), 0);
    close(liar.listener);
}

/* A conversation with a server that stops after `octets`; how many it said. */
static size_t
talk(size_t octets, enum stop stop)
{
    liar.left = octets;
    liar.stop = stop;
    liar.stopped = false;
    begin_liar();
    use_device();
    end_liar();
    return liar.said;
}

static void
servers_may_close_or_reset_at_each_octet(void **state)
{
    (void)state;
    support_watch(liar.transport);
    liar.whole = true;
    size_t all = talk(ENOUGH, STOP_CLOSE);
    liar.whole = false;
    assert_true(all > 800);
    size_t descriptors = support_descriptors();
    /* TCP's frames are the same but for one octet, and those in TLS, whose
     * handshakes take their time, are the same: some of them. */
    size_t step = liar.ipc ? 1 : liar.tls ? 7 : 3;
    for (size_t octets = share * step; octets < all; octets += SHARES * step) {
        talk(octets, octets % 2 ? STOP_RESET : STOP_CLOSE);
        support_watch(liar.transport);
    }
    /* The last octet counts as all the others. */
    liar.whole = true;
    assert_int_equal(talk(all, STOP_CLOSE), all);
    liar.whole = false;
    while (support_descriptors() > descriptors)
        sched_yield();
}

/* A few places: each takes as long as opening may, or the lease. */
static void
servers_may_stall(void **state)
{
    (void)state;
    const size_t places[] = {3, 30, 150};
    for (size_t i = share; i < sizeof places / sizeof places[0]; i += SHARES) {
        support_watch("a server that stalls");
        talk(places[i], STOP_STALL);
    }
    support_watch(NULL);
}

/* Deal out: in each share's process true; else whether all went well. */
static bool
is_a_share(int *failed)
{
    pid_t pids[SHARES];
    int status;
    for (share = 0; share < SHARES; share++) {
        pids[share] = fork();
        if (pids[share] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            return true;
        }
    }
    for (share = 0; share < SHARES; share++)
        *failed |= pids[share] < 0 || waitpid(pids[share], &status, 0) < 0
                   || status != 0;
    return false;
}

int
main(int argc, char **argv)
{
    int failed = 0;

    const struct CMUnitTest tests[] = {
        cmocka_unit_test(servers_may_close_or_reset_at_each_octet),
        cmocka_unit_test(servers_may_stall),
    };
    liar.transport = argc == 2 ? argv[1] : "";
    liar.ipc = strcmp(liar.transport, "ipc") == 0;
    liar.tls = strcmp(liar.transport, "tls") == 0;
    if (!liar.ipc && !liar.tls && strcmp(liar.transport, "tcp") != 0) {
        fprintf(stderr, "usage: %s ipc|tcp|tls\n", argv[0]);
        return 2;
    }
    return is_a_share(&failed) ? cmocka_run_group_tests(tests, NULL, NULL)
                               : failed;
}
