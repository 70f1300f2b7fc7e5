/* SPDX-License-Identifier: ISC */
/*
 * A farblk server inside your program: what farblkd is made of.
 *
 * Create, export, listen; it serves from threads of its own until it is
 * stopped.  Results and texts as in farblk.h.  All calls are thread-safe; those
 * that may block say so.
 */
/* Read as a manual, and set by hand: */
/* clang-format off */
#ifndef FARBLK_SERVER_H
#define FARBLK_SERVER_H

#include "farblk/farblk.h"

#ifdef __cplusplus
extern "C" {
#endif

struct farblk_server;

/** Zero it, set .size = sizeof; 0 anywhere means the default. */
struct farblk_server_options {
    size_t size;
    uint32_t max_connections;   /**< 100 */
    uint32_t max_sessions;      /**< 1024 */
    uint32_t max_requests;      /**< unanswered, for each connection: 256 */
    uint64_t max_octets;        /**< of data in them, each connection: 64 MiB */
    uint32_t max_payload;       /**< octets in one request: 4 MiB (512 ... 64 MiB) */
    uint32_t max_handles;       /**< for each session: 64 */
    uint32_t lease_ms;          /**< a silent session's life: 30000 */
    uint32_t hello_timeout_ms;  /**< to an answered Hello: 10000 */
    uint32_t frame_timeout_ms;  /**< to finish a message once begun: 30000 */
    uint64_t memory_limit;      /**< octets for data of this process, ramdisks
                                     included: half of RAM */
    uint32_t ipc_mode;          /**< of ipc sockets: 0600 */
    uint32_t tls_verify_clients; /**< 1: tls+tcp refuses who shows no certificate
                                     that a CA of tls_ca has signed */
    const char *tls_cert;       /**< paths of PEM files: what tls+tcp shows, */
    const char *tls_key;        /**< its key, without a password and readable
                                     by its owner only, */
    const char *tls_ca;         /**< and whom it believes.  All are read by
                                     farblk_server_create() */
    uint32_t connection_sessions; /**< sessions of one connection: an eighth of
                                     max_sessions, 8 at least */
    uint32_t idle_timeout_ms;   /**< a session that is asked nothing for so long
                                     ends; 0: none does */
    uint32_t no_keepalive;      /**< 1: TCP connections are not probed by the
                                     system when they are silent */
    uint32_t insecure;          /**< 1: listen in the clear (tcp, ws) on other
                                     addresses than loopback as well */
    uint32_t ipc_uid;           /**< owner of ipc sockets; 0: this process's */
    uint32_t ipc_gid;           /**< their group; 0: this process's */
    uint32_t no_shm;            /**< 1: share no memory with clients of this host */
    uint64_t shm_arena;         /**< octets of shared memory for the data of one
                                     session: 16 MiB (4 KiB ... 1 GiB) */
    uint64_t shm_total;         /**< of all sessions: a quarter of the memory
                                     limit, which it counts against as well */
};

/** Make a server that serves nothing yet.  `options` may be NULL. */
FARBLK_API int farblk_server_create(const struct farblk_server_options *options,
                                    struct farblk_server **server);

/**
 * Export the device that `uri` names as `name` ([A-Za-z0-9._-]{1,255}); it is
 * opened now, once, and shared by all sessions.  Files are locked (lock=1)
 * unless the URI says lock=0.  May block.  Errors: those of farblk_open(),
 * EXISTS.
 */
FARBLK_API int farblk_server_export(struct farblk_server *server, const char *name,
                                    const char *uri);

/** What an export asks of those who open it.  Zero it, set .size = sizeof.  All
 * that is given must be met; nothing: whoever can connect may open it. */
struct farblk_export_options {
    size_t size;
    const uint32_t *allow_uids; /**< peers on this host that are one of these */
    size_t allow_uid_count;     /**< users, */
    const uint32_t *allow_gids; /**< or whose primary group is one of these: all */
    size_t allow_gid_count;     /**< others, remote ones too, are refused */
    const char *token_file;     /**< path of a token of 16 ... 256 octets, closed
                                     to group and others, that clients must show
                                     (token_file= in their URIs); read now.  It is
                                     not taken over tcp:// and ws:// */
};

/**
 * The same, for whom `options` allow (NULL: everybody).  Exports that a peer may
 * not open are not listed to it, nor are those with a token.  Errors: also
 * DENIED, for a token file that others can read.
 */
FARBLK_API int farblk_server_export_for(struct farblk_server *server,
                                        const char *name, const char *uri,
                                        const struct farblk_export_options *options);

/**
 * Listen on a URL: ipc:///PATH, abstract://NAME, tcp://HOST:PORT (port 0: any),
 * tls+tcp://HOST:PORT (with tls_cert and tls_key), ws://HOST:PORT/PATH,
 * inproc://NAME.  A socket file that a dead server left is taken over; that of a
 * live one is refused with BUSY.  tcp and ws on other addresses than loopback
 * are refused with DENIED, unless `insecure` is set.  May block, where a name is
 * to be looked up.  Errors: INVALID, BUSY (in use), DENIED, NOT_FOUND.
 */
FARBLK_API int farblk_server_listen(struct farblk_server *server, const char *url);

/** The index-th listener's URL with its real port; NULL past the last.  Valid
 * as long as the server. */
FARBLK_API const char *farblk_server_url(struct farblk_server *server, size_t index);

/** What a server has in hand now.  Travels with its size. */
struct farblk_server_stats {
    uint64_t connections, sessions, handles; /**< now */
    uint64_t requests;                       /**< under way now */
    uint64_t octets;                         /**< of data in them */
    uint64_t accepted, refused;              /**< connections so far */
    uint64_t completed;                      /**< requests so far */
    uint64_t damaged;                        /**< writes so far that came with
                                                  another checksum than theirs */
    uint64_t displaced;                      /**< connections without a session
                                                  so far that made room */
    uint64_t memory, memory_limit;           /**< octets that the process counts,
                                                  and may */
    uint64_t most_connections, most_sessions; /**< at once, so far */
    uint64_t most_requests, most_octets, most_memory;
    uint64_t shm_sessions, shm_rings;        /**< that share memory, now */
    uint64_t shm_octets;                     /**< of memory that is shared */
};
FARBLK_API int farblk_server_stats(struct farblk_server *server,
                                   struct farblk_server_stats *stats, size_t size);

/**
 * Stop: accept nothing more, answer what is under way (for at most timeout_ms;
 * negative: as long as it takes), flush every export, close all.  Returns 0 or
 * the first failed flush.  Blocks.  Then farblk_server_destroy().
 */
FARBLK_API int farblk_server_stop(struct farblk_server *server, int32_t timeout_ms);

/** Stop if need be, and free.  NULL is fine.  Blocks. */
FARBLK_API void farblk_server_destroy(struct farblk_server *server);

#ifdef __cplusplus
}
#endif

#endif
