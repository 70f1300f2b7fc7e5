/* SPDX-License-Identifier: ISC */
/* See cable.h.  One thread, one poll(). */
#include "tests/cable.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/un.h>
#include <unistd.h>

#define CABLE_CHUNK 65536u

static void
cable_address(const char *url, struct sockaddr_storage *to, socklen_t *length)
{
    memset(to, 0, sizeof *to);
    if (strncmp(url, "tcp://", 6) == 0) {
        struct sockaddr_in *in = (struct sockaddr_in *)to;
        in->sin_family = AF_INET;
        in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        in->sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1));
        *length = sizeof *in;
        return;
    }
    struct sockaddr_un *un = (struct sockaddr_un *)to;
    const char *name = url + strlen("abstract://");
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path + 1, name, strlen(name));
    *length =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
}

static void
cable_set(int fd)
{
    int one = 1;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* ------------------------------------------------------------ the thread */

static void
cable_close_pair(struct cable_pair *pair)
{
    for (unsigned i = 0; i < 2; i++) {
        if (pair->fd[i] >= 0)
            close(pair->fd[i]);
        pair->fd[i] = -1;
        pair->held_length[i] = 0;
    }
}

static void
cable_accept(struct cable *cable)
{
    struct cable_pair *pair = cable->pairs;
    int from = accept4(cable->listener, NULL, NULL, SOCK_CLOEXEC);
    if (from < 0)
        return;
    while (pair < cable->pairs + CABLE_PAIRS && pair->fd[0] >= 0)
        pair++;
    int to = socket(cable->server.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (pair == cable->pairs + CABLE_PAIRS || to < 0
        || connect(to, (struct sockaddr *)&cable->server, cable->server_length)
               != 0) {
        close(from);
        if (to >= 0)
            close(to);
        return;
    }
    cable_set(from);
    cable_set(to);
    pair->fd[0] = from;
    pair->fd[1] = to;
    for (unsigned i = 0; i < 2; i++) {
        pair->passed[i] = 0;
        pair->cut_at[i] = CABLE_NEVER;
        pair->held_length[i] = 0;
    }
    unsigned number = ++cable->connections;
    if (cable->plan != NULL)
        cable->plan(cable->arg, number, &pair->cut_at[0], &pair->cut_at[1]);
    pthread_cond_broadcast(&cable->changed);
}

/* Pass on what is held from `side`.  False: the pair is over. */
static bool
cable_pass(struct cable *cable, struct cable_pair *pair, unsigned side)
{
    while (pair->held_length[side] > 0) {
        uint64_t left = pair->cut_at[side] - pair->passed[side];
        size_t length = pair->held_length[side];
        if (length > left)
            length = (size_t)left;
        ssize_t done = length == 0
                           ? 0
                           : send(pair->fd[!side],
                                  pair->held[side] + pair->held_from[side],
                                  length, MSG_NOSIGNAL);
        if (done < 0)
            return errno == EAGAIN;
        pair->passed[side] += (uint64_t)done;
        pair->held_from[side] += (size_t)done;
        pair->held_length[side] -= (size_t)done;
        if (pair->passed[side] == pair->cut_at[side]) {
            cable->cuts++;
            return false;
        }
    }
    return true;
}

/* Take more from `side`.  False: the pair is over. */
static bool
cable_take(struct cable_pair *pair, unsigned side)
{
    ssize_t got = recv(pair->fd[side], pair->held[side], CABLE_CHUNK, 0);
    if (got > 0) {
        pair->held_from[side] = 0;
        pair->held_length[side] = (size_t)got;
    }
    return got > 0 || (got < 0 && errno == EAGAIN);
}

static void
cable_step(struct cable *cable, struct cable_pair *pair)
{
    bool good = true;
    for (unsigned side = 0; good && side < 2; side++) {
        if (pair->held_length[side] == 0)
            good = cable_take(pair, side);
        if (good)
            good = cable_pass(cable, pair, side);
    }
    if (!good)
        cable_close_pair(pair);
}

static void *
cable_run(void *arg)
{
    struct cable *cable = arg;
    struct pollfd polls[2 + 2 * CABLE_PAIRS];
    pthread_mutex_lock(&cable->mutex);
    while (!cable->stopping) {
        nfds_t count = 0;
        polls[count++] = (struct pollfd){cable->wake[0], POLLIN, 0};
        if (!cable->blocked) {
            if (!cable->deaf)
                polls[count++] = (struct pollfd){cable->listener, POLLIN, 0};
            for (unsigned i = 0; i < CABLE_PAIRS; i++)
                for (unsigned side = 0; side < 2; side++) {
                    const struct cable_pair *pair = &cable->pairs[i];
                    if (pair->fd[side] < 0)
                        continue;
                    /* From here something is taken when nothing is held; to
                     * here it goes. */
                    short events = pair->held_length[side] == 0 ? POLLIN : 0;
                    if (pair->held_length[!side] > 0)
                        events |= POLLOUT;
                    if (events != 0)
                        polls[count++] =
                            (struct pollfd){pair->fd[side], events, 0};
                }
        }
        pthread_mutex_unlock(&cable->mutex);
        poll(polls, count, -1);
        pthread_mutex_lock(&cable->mutex);
        char drained[64];
        while (read(cable->wake[0], drained, sizeof drained) > 0)
            ;
        if (cable->deaf && cable->listener >= 0) {
            close(cable->listener);
            cable->listener = -1;
        }
        for (unsigned i = 0; i < CABLE_PAIRS; i++) {
            struct cable_pair *pair = &cable->pairs[i];
            if (pair->fd[0] < 0)
                continue;
            if (cable->cut_all) {
                cable->cuts++;
                cable_close_pair(pair);
            } else if (!cable->blocked) {
                cable_step(cable, pair);
            }
        }
        cable->cut_all = false;
        if (!cable->blocked && cable->listener >= 0)
            cable_accept(cable);
        pthread_cond_broadcast(&cable->changed);
    }
    for (unsigned i = 0; i < CABLE_PAIRS; i++)
        cable_close_pair(&cable->pairs[i]);
    pthread_mutex_unlock(&cable->mutex);
    return NULL;
}

/* ------------------------------------------------------------ use */

void
cable_start(struct cable *cable, const char *url)
{
    char address[160];
    struct sockaddr_storage own;
    socklen_t length;
    cable->tcp = strncmp(url, "tcp://", 6) == 0;
    cable_address(url, &cable->server, &cable->server_length);
    snprintf(cable->name, sizeof cable->name, "%s",
             support_name("farblk-cable"));
    snprintf(address, sizeof address,
             cable->tcp ? "tcp://127.0.0.1:0%.0s" : "abstract://%s",
             cable->name);
    cable_address(address, &own, &length);
    cable->listener = socket(own.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(cable->listener >= 0);
    assert_int_equal(bind(cable->listener, (struct sockaddr *)&own, length), 0);
    assert_int_equal(listen(cable->listener, 64), 0);
    cable_set(cable->listener);
    if (cable->tcp) {
        length = sizeof own;
        assert_int_equal(
            getsockname(cable->listener, (struct sockaddr *)&own, &length), 0);
        cable->port = ntohs(((struct sockaddr_in *)&own)->sin_port);
    }
    assert_int_equal(pipe2(cable->wake, O_CLOEXEC | O_NONBLOCK), 0);
    for (unsigned i = 0; i < CABLE_PAIRS; i++)
        for (unsigned side = 0; side < 2; side++) {
            cable->pairs[i].fd[side] = -1;
            cable->pairs[i].held[side] = malloc(CABLE_CHUNK);
            assert_non_null(cable->pairs[i].held[side]);
        }
    pthread_mutex_init(&cable->mutex, NULL);
    pthread_cond_init(&cable->changed, NULL);
    assert_int_equal(pthread_create(&cable->thread, NULL, cable_run, cable), 0);
}

/* Under the mutex: the thread looks again. */
static void
cable_wake(struct cable *cable)
{
    if (write(cable->wake[1], "", 1) < 0 && errno != EAGAIN)
        abort();
}

void
cable_stop(struct cable *cable)
{
    pthread_mutex_lock(&cable->mutex);
    cable->stopping = true;
    cable_wake(cable);
    pthread_mutex_unlock(&cable->mutex);
    pthread_join(cable->thread, NULL);
    if (cable->listener >= 0)
        close(cable->listener);
    close(cable->wake[0]);
    close(cable->wake[1]);
    for (unsigned i = 0; i < CABLE_PAIRS; i++)
        for (unsigned side = 0; side < 2; side++)
            free(cable->pairs[i].held[side]);
    pthread_mutex_destroy(&cable->mutex);
    pthread_cond_destroy(&cable->changed);
}

const char *
cable_uri(const struct cable *cable, const char *name, const char *more)
{
    static char uris[4][256];
    static unsigned next;
    char *uri = uris[next++ % 4];
    if (cable->tcp)
        snprintf(uri, sizeof uris[0], "farblk://127.0.0.1:%u/%s%s%s",
                 cable->port, name, more[0] != '\0' ? "?" : "", more);
    else
        snprintf(uri, sizeof uris[0], "farblk+unix:///%s?abstract=%s%s%s", name,
                 cable->name, more[0] != '\0' ? "&" : "", more);
    return uri;
}

void
cable_cut_after(struct cable *cable, uint64_t to_server, uint64_t to_client)
{
    pthread_mutex_lock(&cable->mutex);
    for (unsigned i = 0; i < CABLE_PAIRS; i++) {
        struct cable_pair *pair = &cable->pairs[i];
        pair->cut_at[0] = to_server == CABLE_NEVER
                              ? CABLE_NEVER
                              : pair->passed[0] + to_server;
        pair->cut_at[1] = to_client == CABLE_NEVER
                              ? CABLE_NEVER
                              : pair->passed[1] + to_client;
    }
    pthread_mutex_unlock(&cable->mutex);
}

void
cable_cut(struct cable *cable)
{
    pthread_mutex_lock(&cable->mutex);
    cable->cut_all = true;
    cable_wake(cable);
    while (cable->cut_all)
        pthread_cond_wait(&cable->changed, &cable->mutex);
    pthread_mutex_unlock(&cable->mutex);
}

void
cable_block(struct cable *cable, bool block)
{
    pthread_mutex_lock(&cable->mutex);
    cable->blocked = block;
    cable_wake(cable);
    pthread_mutex_unlock(&cable->mutex);
}

void
cable_refuse(struct cable *cable)
{
    pthread_mutex_lock(&cable->mutex);
    cable->deaf = true;
    cable_wake(cable);
    while (cable->listener >= 0)
        pthread_cond_wait(&cable->changed, &cable->mutex);
    pthread_mutex_unlock(&cable->mutex);
}

void
cable_await_connections(struct cable *cable, unsigned count)
{
    pthread_mutex_lock(&cable->mutex);
    while (cable->connections < count)
        pthread_cond_wait(&cable->changed, &cable->mutex);
    pthread_mutex_unlock(&cable->mutex);
}
