/* SPDX-License-Identifier: ISC */
/*
 * The relay: a thread that accepts, and two for each connection.
 */
#include "tests/relay.h"

#include "tests/support.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

/* Type, length of the body, request id, length of the header. */
#define BEFORE (1u + 8 + 4 + 4)

static uint64_t
relay_number(const uint8_t *at, unsigned octets)
{
    uint64_t number = 0;
    while (octets-- > 0)
        number = number << 8 | *at++;
    return number;
}

/* A payload begins to pass. */
static void
relay_begin(struct relay_way *way)
{
    struct relay *relay = way->relay;
    uint64_t body = relay_number(way->before + 1, 8);
    way->header = relay_number(way->before + 13, 4);
    way->payload = body - 8 - way->header;
    way->at = 0;
    way->have = 0;
    if (way->payload == 0)
        return;
    pthread_mutex_lock(&relay->mutex);
    relay->payloads[way->to_server]++;
    pthread_mutex_unlock(&relay->mutex);
}

/* Octets of a payload pass. */
static void
relay_payload(struct relay_way *way, uint8_t *octets, uint64_t count)
{
    struct relay *relay = way->relay;
    bool last = way->payload == count;
    pthread_mutex_lock(&relay->mutex);
    if (relay->armed && relay->to_server == way->to_server) {
        uint64_t octet = relay->octet;
        if (last && octet >= way->at + count)
            octet = way->at + count - 1;
        if (relay->skip > 0) {
            relay->skip -= last;
        } else if (octet >= way->at && octet < way->at + count) {
            octets[octet - way->at] ^= relay->mask;
            relay->damaged++;
            relay->armed = false;
        }
    }
    pthread_mutex_unlock(&relay->mutex);
    way->at += count;
    way->payload -= count;
}

/* Follow the frames through what passes. */
static void
relay_follow(struct relay_way *way, uint8_t *octets, size_t count)
{
    while (count > 0) {
        uint64_t here = 1;
        uint64_t *counter = way->greeting > 0  ? &way->greeting
                            : way->header > 0  ? &way->header
                            : way->payload > 0 ? &way->payload
                                               : NULL;
        if (counter == NULL) {
            way->before[way->have++] = *octets;
            if (way->have == BEFORE)
                relay_begin(way);
        } else {
            here = count < *counter ? count : *counter;
            if (counter == &way->payload)
                relay_payload(way, octets, here);
            else
                *counter -= here;
        }
        octets += here;
        count -= here;
    }
}

static void *
relay_pass(void *arg)
{
    struct relay_way *way = arg;
    uint8_t octets[65536];
    for (;;) {
        ssize_t got = recv(way->from, octets, sizeof octets, 0);
        if (got <= 0)
            break;
        relay_follow(way, octets, (size_t)got);
        for (ssize_t sent = 0, more; sent < got; sent += more) {
            more = send(way->to, octets + sent, (size_t)(got - sent),
                        MSG_NOSIGNAL);
            if (more <= 0) {
                got = 0;
                break;
            }
        }
        if (got == 0)
            break;
    }
    /* Both ways are over then. */
    shutdown(way->from, SHUT_RDWR);
    shutdown(way->to, SHUT_RDWR);
    return NULL;
}

static void
relay_connect(struct relay *relay, int client)
{
    int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (relay->way_count + 2 > RELAY_WAYS || server < 0
        || connect(server, (struct sockaddr *)&relay->server,
                   relay->server_length)
               != 0) {
        if (server >= 0)
            close(server);
        close(client);
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        struct relay_way *way = &relay->ways[relay->way_count++];
        way->relay = relay;
        way->to_server = i == 0;
        way->from = i == 0 ? client : server;
        way->to = i == 0 ? server : client;
        way->greeting = 8;
        if (pthread_create(&way->thread, NULL, relay_pass, way) != 0)
            abort();
    }
}

static void *
relay_accept(void *arg)
{
    struct relay *relay = arg;
    for (;;) {
        int client = accept4(relay->listener, NULL, NULL, SOCK_CLOEXEC);
        if (client < 0)
            return NULL;
        relay_connect(relay, client);
    }
}

void
relay_start(struct relay *relay, const char *url)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *name = strstr(url, "://");
    memset(relay, 0, sizeof *relay);
    assert_true(name != NULL && strncmp(url, "abstract", 8) == 0);
    name += 3;
    relay->server.sun_family = AF_UNIX;
    memcpy(relay->server.sun_path + 1, name, strlen(name));
    relay->server_length =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
    snprintf(relay->path, sizeof relay->path, "%s", support_path("relay"));
    memcpy(address.sun_path, relay->path, sizeof address.sun_path);
    pthread_mutex_init(&relay->mutex, NULL);
    relay->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(relay->listener >= 0);
    assert_int_equal(
        bind(relay->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(relay->listener, 8), 0);
    assert_int_equal(pthread_create(&relay->thread, NULL, relay_accept, relay),
                     0);
}

void
relay_stop(struct relay *relay)
{
    shutdown(relay->listener, SHUT_RDWR);
    pthread_join(relay->thread, NULL);
    close(relay->listener);
    for (unsigned i = 0; i < relay->way_count; i++)
        shutdown(relay->ways[i].from, SHUT_RDWR);
    for (unsigned i = 0; i < relay->way_count; i++)
        pthread_join(relay->ways[i].thread, NULL);
    for (unsigned i = 0; i < relay->way_count; i++)
        close(relay->ways[i].from);
    unlink(relay->path);
    pthread_mutex_destroy(&relay->mutex);
}

void
relay_damage(struct relay *relay, bool to_server, uint64_t skip, uint64_t octet,
             uint8_t mask)
{
    pthread_mutex_lock(&relay->mutex);
    relay->armed = true;
    relay->to_server = to_server;
    relay->skip = skip;
    relay->octet = octet;
    relay->mask = mask;
    pthread_mutex_unlock(&relay->mutex);
}

unsigned
relay_damaged(struct relay *relay)
{
    pthread_mutex_lock(&relay->mutex);
    unsigned damaged = relay->damaged;
    pthread_mutex_unlock(&relay->mutex);
    return damaged;
}
