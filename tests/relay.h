/* SPDX-License-Identifier: ISC */
/*
 * What damages data between client and server: a relay that passes everything
 * on, and turns over bits of payloads at chosen places.
 *
 * It listens on a Unix socket and connects to a server's, once for each client.
 * It reads the frames of section 3 of wire.md as they pass, so that a place is
 * told by the payload and the octet in it.
 */
#ifndef FARBLK_TESTS_RELAY_H
#define FARBLK_TESTS_RELAY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#define RELAY_WAYS 16

/* One direction of one connection. */
struct relay_way {
    struct relay *relay;
    pthread_t thread;
    int from, to;
    bool to_server;
    uint8_t before[64]; /* what comes before a header: prefix, ids, length */
    unsigned have; /* octets of it that are here */
    uint64_t greeting, header, payload; /* octets that are still to come */
    uint64_t at; /* of the payload, its first octet being 0 */
};

struct relay {
    char path[108];
    struct sockaddr_un server;
    socklen_t server_length;
    int listener;
    pthread_t thread;
    struct relay_way ways[RELAY_WAYS];
    unsigned way_count;

    pthread_mutex_t mutex; /* the rest */
    bool armed, to_server;
    uint64_t skip; /* payloads that go by unharmed */
    uint64_t octet;
    uint8_t mask;
    unsigned damaged; /* octets so far */
    unsigned payloads[2]; /* that came by: to the client, to the server */
};

/* Relay to a server that listens on "abstract://NAME". */
void relay_start(struct relay *relay, const char *url);
/* End all connections, and the relay. */
void relay_stop(struct relay *relay);

/* Once: when `skip` payloads have gone that way, turn over the bits of `mask` in
 * the octet of the next one (in its last octet when it has fewer). */
void relay_damage(struct relay *relay, bool to_server, uint64_t skip,
                  uint64_t octet, uint8_t mask);
/* How many octets it has damaged. */
unsigned relay_damaged(struct relay *relay);

#endif
