/* SPDX-License-Identifier: ISC */
/*
 * The side socket: a unix socket next to the server's own, by which a region of
 * shared memory is handed over, and whose connections are the doorbells of its
 * rings.  wire.md, section 15.
 *
 * Not nng's: descriptors travel here.  All calls but side_receive_attached() return at once.
 */
#ifndef FARBLK_PROTO_SIDE_H
#define FARBLK_PROTO_SIDE_H

#include "core/error.h"
#include "proto/ring.h"

#define SIDE_TOKEN 16
#define SIDE_MAGIC UINT64_C(0x31304d534b4c4246) /* "FBLKSM01" */

enum side_kind {
    SIDE_ATTACH = 1, /* give me the region that the token stands for */
    SIDE_RING = 2, /* this connection is a ring's doorbell */
};

/* The first octets on a connection, from the client. */
struct side_hello {
    uint64_t magic;
    uint32_t version; /* RING_VERSION */
    uint32_t kind;
    uint8_t token[SIDE_TOKEN]; /* ATTACH: of ShareMemory; RING: the key */
    uint32_t ring; /* RING: its number */
    uint32_t depth; /* ATTACH: wishes; 0: as the server likes */
    uint32_t rings;
    uint32_t reserved;
    uint64_t arena_octets;
    uint64_t reserved_too;
};

/* The answer to ATTACH, with the region's descriptor when status is 0. */
struct side_attached {
    uint64_t magic;
    uint32_t version;
    int32_t status;
    uint8_t key[SIDE_TOKEN];
    uint32_t depth;
    uint32_t rings;
    uint64_t ring_octets;
    uint64_t arena_at;
    uint64_t arena_octets;
};

_Static_assert(sizeof(struct side_hello) == 64, "layout");
_Static_assert(sizeof(struct side_attached) == 64, "layout");

/* Whether a URL of nng has a side socket: ipc:// and abstract://. */
bool side_possible(const char *url);

/* Of the socket's file, if it is one. */
struct side_owner {
    uint32_t mode;
    uint32_t uid, gid; /* 0: as it comes */
};

/* Listen next to `url`, whose path this process owns: what lies at the side
 * socket's path is removed.  A descriptor that does not block, or a negative
 * status. */
int side_listen(const char *url, const struct side_owner *owner,
                struct error *error);
/* Remove the file. */
void side_unlink(const char *url);

/* Accept one: -1 and errno as accept(2). */
int side_accept(int listener);
/* Who is at the other end. */
bool side_peer_uid(int fd, uint32_t *uid);

/* Connect without waiting, and say hello; a descriptor that does not block, or a
 * negative status: the server's queue is full (BUSY), or nobody is there. */
int side_connect(const char *url, const struct side_hello *hello,
                 struct error *error);

/* Server: answer, with `fd` unless that is negative.  False: it did not go out. */
bool side_send_attached(int to, const struct side_attached *attached, int fd);
/* Client: wait for the answer until until_ms.  *fd: the region, or -1. */
int side_receive_attached(int from, int64_t until_ms,
                          struct side_attached *attached, int *fd,
                          struct error *error);

/* Ring the doorbell: never blocks, never fails (one that is full is heard). */
void side_ring(int fd);
/* Take what was rung.  False: the other side has closed it. */
bool side_hear(int fd);

#endif
