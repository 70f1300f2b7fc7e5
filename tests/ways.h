/* SPDX-License-Identifier: ISC */
/*
 * Ways to a fresh device: a kind of storage (one line a driver, in ways.c), and
 * how a program reaches it: in its own process, or through a server.
 *
 * A rig is one such device with what is needed to reach it, and knows what a
 * test opened by it, so that a failed test leaves nothing behind.
 */
#ifndef FARBLK_TESTS_WAYS_H
#define FARBLK_TESTS_WAYS_H

#include "tests/daemon.h"
#include "tests/nbd_servers.h"

#include "farblk/server.h"

#include <sys/socket.h>
#include <sys/un.h>

#define RIG_HANDLES 80
#define RIG_URI 512

enum transport {
    LOCAL, /* farblk_open() of the device itself */
    IPC, /* farblkd, a Unix socket */
    SHM, /* the same, and shared memory */
    TCP, /* farblkd, loopback, with checksums */
    TLS, /* the same without, with certificates made for the test */
    INPROC, /* a server inside this process */
    TRANSPORTS,
};

struct store {
    const char *name;
    const char *scheme; /* of its URIs */
    const char *more; /* parameters that make it this one, or "" */
    bool exact; /* seeks tell exactly what was written, sector by
                           sector; others may be conservative */
    bool path; /* a file is behind it */
    const char *copy; /* a mirror: the scheme of its secondary; its primary is
                         a ramdisk; else NULL */
    bool (*usable)(void); /* NULL: always */
    uint64_t lacks; /* features that the others have */
    const char *transport; /* what info tells of it locally; NULL: "local" */
};

/* Ended by .name == NULL. */
extern const struct store stores[];
extern const char *const transport_names[TRANSPORTS];

struct way {
    const struct store *store;
    enum transport transport;
};

struct rig {
    struct way way;
    uint32_t sector_size;
    uint64_t size_sectors; /* at its beginning */
    char uri[RIG_URI]; /* how the tests reach it */
    char direct[RIG_URI]; /* the device's own URI, in the process that has it */
    char path[256]; /* the file, or "" */
    char name[128]; /* of a ramdisk of this process, or "" */
    char copy[256]; /* of a mirror: the name or path of its secondary */
    char told[256]; /* what info tells as its name locally */
    struct nbd_server nbd; /* the storage, if it is one */
    struct daemon daemon;
    struct farblk_server *server;
    struct farblk *handles[RIG_HANDLES];
    struct rig *next;
};

/* Make a fresh device, all zeros and unmapped.  `server_args` (ended by NULL,
 * may be NULL) are added to farblkd's.  Never NULL: fails the test. */
struct rig *rig_create(struct way way, uint64_t size_sectors,
                       uint32_t sector_size, const char *const *server_args);
/* Close what is open, stop the server (fails the test when it does not end
 * well), remove the rest. */
void rig_destroy(struct rig *rig);
/* All that a failed test has left, without complaints. */
void rig_destroy_all(void);

/* Open the device, with more parameters ("ro=1&sync=1", or ""). */
struct farblk *rig_open(struct rig *rig, const char *more);
/* The URI with more parameters; static, of the last four calls. */
const char *rig_uri(const struct rig *rig, const char *more);
/* Close one that rig_open() gave. */
void rig_close(struct rig *rig, struct farblk *dev);
/* Whether a server is between. */
bool rig_is_remote(const struct rig *rig);

/* Whether the arguments `[TRANSPORT [STORE ...]]` of a test's program name this
 * way; none: all. */
bool way_wanted(const struct way *way, int argc, char **argv);

#endif
