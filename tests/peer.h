/* SPDX-License-Identifier: ISC */
/*
 * A peer that is not ours: speaks the wire by the generated protobuf-c code
 * alone, over whatever carries its messages.
 *
 * Each request waits for its reply.  Nothing of proto/ is used but the schema,
 * so that a mistake there is not made twice.
 */
#ifndef FARBLK_TESTS_PEER_H
#define FARBLK_TESTS_PEER_H

#include "tests/support.h"

#include "proto/farblk.pb-c.h"

enum peer_method {
    PEER_HELLO = 1,
    PEER_PING,
    PEER_LIST_DEVICES,
    PEER_OPEN,
    PEER_DISCONNECT,
    PEER_GET_INFO,
    PEER_READ,
    PEER_WRITE,
    PEER_FLUSH,
    PEER_DISCARD,
    PEER_WRITE_ZEROES,
    PEER_RESIZE,
    PEER_SEEK_MAPPED,
    PEER_SEEK_UNMAPPED,
    PEER_EXTENTS,
    PEER_WATCH_INFO,
    PEER_SHARE_MEMORY,
    PEER_CANCEL,
};

#define PEER_SECTOR 512u

struct peer {
    /* Send a message's body (what follows the SP request id) and receive the
     * reply's, in memory of malloc(); false when the connection is gone. */
    bool (*exchange)(struct peer *peer, const uint8_t *body, size_t length,
                     uint8_t **reply, size_t *reply_length);
    void *carrier;
    int fd;
    bool ipc; /* stream frames begin with a type octet */
    uint32_t id; /* the last SP request id */
    uint64_t session;
    uint8_t secret[16];
    bool send_secret; /* with each request */
    uint64_t number; /* of the last request */
    uint64_t handle;
    uint8_t *body; /* the last reply */
    Farblk__V1__ReplyHeader *header; /* of it */
    const uint8_t *payload;
    size_t payload_length;
};

/* The body of a message: header length, header, payload; free() it. */
uint8_t *peer_pack(struct peer *peer, uint32_t method,
                   const ProtobufCMessage *args, const void *payload,
                   size_t payload_length, size_t *length);
/* Do it: the reply's status, or 1 when the connection is gone.  The reply stays
 * in `peer` until the next. */
int peer_call(struct peer *peer, uint32_t method, const ProtobufCMessage *args,
              const void *payload, size_t payload_length);
/* The same with bytes that peer_pack() gave. */
int peer_send(struct peer *peer, const uint8_t *body, size_t length);
void peer_free(struct peer *peer);

int peer_hello(struct peer *peer);
int peer_open(struct peer *peer, const char *name);
int peer_write(struct peer *peer, uint64_t sector, uint64_t count,
               const void *data);
/* Into `data`; PROTOCOL when the reply has another length. */
int peer_read(struct peer *peer, uint64_t sector, uint64_t count, void *data);

/* Hello, Open, Write, Read back, errors, Disconnect: all must be right. */
void peer_exercise(struct peer *peer, uint64_t sector, uint64_t seed);

/* Streams as nng frames them.  Connect to a daemon's URL; exchange greetings if
 * told to.  The fd, or -1. */
int peer_connect(const char *url, bool greet);
bool peer_send_all(int fd, const void *from, size_t length);
bool peer_receive_all(int fd, void *to, size_t length);
/* Whether the other side closes it (within the harness's patience). */
bool peer_is_closed(int fd);
/* A peer over a stream that is connected already (-1: is not), after greetings;
 * ipc: its frames begin with a type octet.  False, and it is closed, when the
 * greetings fail. */
bool peer_init_fd(struct peer *peer, int fd, bool ipc);
/* A peer over a stream of its own; false when it can not connect. */
bool peer_init_stream(struct peer *peer, const char *url);

#endif
