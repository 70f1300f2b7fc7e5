/* SPDX-License-Identifier: ISC */
/*
 * The fake server's threads, and what the test does with what they kept.
 */
#include "tests/nbd_fake.h"

#include <endian.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define OPT_GO 7
#define REP_ACK 1u
#define REP_INFO 3u
#define REP_ERR_UNSUP 0x80000001u
#define MAGIC_OPTION UINT64_C(0x49484156454F5054)
#define MAGIC_REPLY UINT64_C(0x3e889045565a9)

struct fake_hello {
    struct nbd_fake *fake;
    int fd;
};

static bool
fake_send(int fd, const void *from, size_t length)
{
    const char *at = from;

    while (length > 0) {
        ssize_t n = send(fd, at, length, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        at += n;
        length -= (size_t)n;
    }
    return true;
}

static bool
fake_receive(int fd, void *to, size_t length)
{
    return length == 0 || recv(fd, to, length, MSG_WAITALL) == (ssize_t)length;
}

/* Numbers into octets, most significant first; the next place. */
static uint8_t *
fake_put(uint8_t *to, uint64_t number, size_t length)
{
    for (size_t i = 0; i < length; i++)
        to[i] = (uint8_t)(number >> 8 * (length - 1 - i));
    return to + length;
}

static uint64_t
fake_get(const uint8_t *from, size_t length)
{
    uint64_t number = 0;

    for (size_t i = 0; i < length; i++)
        number = number << 8 | from[i];
    return number;
}

static bool
fake_option_reply(int fd, uint32_t option, uint32_t type, const void *data,
                  uint32_t length)
{
    uint8_t head[20], *at = head;

    at = fake_put(at, MAGIC_REPLY, 8);
    at = fake_put(at, option, 4);
    at = fake_put(at, type, 4);
    fake_put(at, length, 4);
    return fake_send(fd, head, sizeof head) && fake_send(fd, data, length);
}

static bool
fake_go(const struct fake_export *export, int fd)
{
    uint8_t data[14], *at = data;

    at = fake_put(at, 0, 2);
    at = fake_put(at, export->size, 8);
    fake_put(at, export->flags | FAKE_HAS_FLAGS, 2);
    if (!fake_option_reply(fd, OPT_GO, REP_INFO, data, 12))
        return false;
    if (export->minimum != 0) {
        at = fake_put(data, 3, 2);
        at = fake_put(at, export->minimum, 4);
        at = fake_put(at, export->preferred, 4);
        fake_put(at, export->maximum, 4);
        if (!fake_option_reply(fd, OPT_GO, REP_INFO, data, 14))
            return false;
    }
    return fake_option_reply(fd, OPT_GO, REP_ACK, NULL, 0);
}

/* Up to the transmission. */
static bool
fake_handshake(struct nbd_fake *fake, int fd)
{
    static const uint8_t hello[] = "NBDMAGICIHAVEOPT\0\3";
    uint8_t head[16], data[4096];

    if (!fake_send(fd, hello, 18) || !fake_receive(fd, head, 4))
        return false;
    for (;;) {
        if (!fake_receive(fd, head, 16) || fake_get(head, 8) != MAGIC_OPTION)
            return false;

        uint32_t option = (uint32_t)fake_get(head + 8, 4);
        size_t length = fake_get(head + 12, 4);

        if (length > sizeof data || !fake_receive(fd, data, length))
            return false;
        if (option == OPT_GO)
            return fake_go(&fake->export, fd);
        if (!fake_option_reply(fd, option, REP_ERR_UNSUP, NULL, 0))
            return false;
    }
}

static void *
fake_serve(void *arg)
{
    struct fake_hello *hello = arg;
    struct nbd_fake *fake = hello->fake;
    int fd = hello->fd;
    uint8_t head[28];
    static _Thread_local uint8_t data[1 << 20];

    free(hello);
    if (!fake_handshake(fake, fd))
        return NULL;
    while (fake_receive(fd, head, sizeof head)) {
        struct fake_request request = {
            .connection = fd,
            .flags = (uint16_t)fake_get(head + 4, 2),
            .type = (uint16_t)fake_get(head + 6, 2),
            .cookie = fake_get(head + 8, 8),
            .offset = fake_get(head + 16, 8),
            .length = (uint32_t)fake_get(head + 24, 4),
        };

        if (request.type == FAKE_WRITE
            && (request.length > sizeof data
                || !fake_receive(fd, data, request.length)))
            break;
        request.first = request.type == FAKE_WRITE ? data[0] : 0;
        pthread_mutex_lock(&fake->mutex);
        if (request.type == FAKE_DISC)
            fake->disconnects++;
        else if (fake->count < FAKE_REQUESTS)
            fake->request[fake->count++] = request;
        pthread_cond_broadcast(&fake->changed);
        pthread_mutex_unlock(&fake->mutex);
        if (request.type == FAKE_DISC)
            break;
    }
    shutdown(fd, SHUT_RDWR);
    return NULL;
}

static void *
fake_accept(void *arg)
{
    struct nbd_fake *fake = arg;
    int fd;

    while ((fd = accept(fake->listener, NULL, NULL)) >= 0) {
        struct fake_hello *hello = malloc(sizeof *hello);
        size_t n;

        pthread_mutex_lock(&fake->mutex);
        n = fake->connections;
        if (n < FAKE_CONNECTIONS && hello != NULL) {
            *hello = (struct fake_hello){fake, fd};
            fake->fd[n] = fd;
            if (pthread_create(&fake->thread[n], NULL, fake_serve, hello) == 0)
                fake->connections++;
        } else {
            close(fd);
            free(hello);
        }
        pthread_cond_broadcast(&fake->changed);
        pthread_mutex_unlock(&fake->mutex);
    }
    return NULL;
}

void
nbd_fake_start(struct nbd_fake *fake, const struct fake_export *export)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    pthread_condattr_t attributes;

    memset(fake, 0, sizeof *fake);
    fake->export = *export;
    pthread_mutex_init(&fake->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&fake->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    snprintf(fake->socket, sizeof fake->socket, "%s", support_path("fake"));
    snprintf(fake->uri, sizeof fake->uri, "nbd+unix:///x?socket=%s",
             fake->socket);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", fake->socket);
    fake->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fake->listener >= 0);
    assert_int_equal(
        bind(fake->listener, (const struct sockaddr *)&address, sizeof address),
        0);
    assert_int_equal(listen(fake->listener, 16), 0);
    assert_int_equal(pthread_create(&fake->acceptor, NULL, fake_accept, fake),
                     0);
}

void
nbd_fake_stop(struct nbd_fake *fake)
{
    if (fake->listener < 0)
        return;
    shutdown(fake->listener, SHUT_RDWR);
    pthread_join(fake->acceptor, NULL);
    for (size_t i = 0; i < fake->connections; i++)
        shutdown(fake->fd[i], SHUT_RDWR);
    for (size_t i = 0; i < fake->connections; i++) {
        pthread_join(fake->thread[i], NULL);
        close(fake->fd[i]);
    }
    close(fake->listener);
    unlink(fake->socket);
    fake->listener = -1;
    pthread_cond_destroy(&fake->changed);
    pthread_mutex_destroy(&fake->mutex);
}

void
nbd_fake_await(struct nbd_fake *fake, size_t count)
{
    struct timespec until;
    int status = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += SUPPORT_PATIENCE_MS / 1000;
    pthread_mutex_lock(&fake->mutex);
    while (fake->count < count && status == 0)
        status = pthread_cond_timedwait(&fake->changed, &fake->mutex, &until);
    pthread_mutex_unlock(&fake->mutex);
    assert_int_equal(status, 0);
}

void
nbd_fake_forget(struct nbd_fake *fake)
{
    pthread_mutex_lock(&fake->mutex);
    fake->count = 0;
    pthread_mutex_unlock(&fake->mutex);
}

size_t
nbd_fake_count(struct nbd_fake *fake)
{
    size_t count;

    pthread_mutex_lock(&fake->mutex);
    count = fake->count;
    pthread_mutex_unlock(&fake->mutex);
    return count;
}

void
nbd_fake_say(struct nbd_fake *fake, size_t i, const void *octets, size_t length)
{
    fake_send(fake->request[i].connection, octets, length);
}

void
nbd_fake_answer(struct nbd_fake *fake, size_t i, uint32_t error, uint8_t octet)
{
    const struct fake_request *request = &fake->request[i];
    size_t length =
        request->type == FAKE_READ && error == 0 ? request->length : 0;
    uint8_t *reply = malloc(16 + length), *at = reply;

    assert_non_null(reply);
    at = fake_put(at, 0x67446698, 4);
    at = fake_put(at, error, 4);
    at = fake_put(at, request->cookie, 8);
    memset(at, octet, length);
    nbd_fake_say(fake, i, reply, 16 + length);
    free(reply);
}
