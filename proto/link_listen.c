/* SPDX-License-Identifier: ISC */
/*
 * Connecting and accepting over nng streams.
 *
 * A socket file is guarded by a lock file beside it, PATH.lock: whoever holds
 * the lock owns the path, and a socket file without one is what a dead server
 * left.  (nng would find out by connecting, which harms a live listener of its
 * own.)  The acceptor accepts one stream at a time and never gives up: after an
 * error, as when there is no descriptor left, it waits a little.
 */
#include "core/log.h"
#include "proto/link_stream.h"

#include <nng/supplemental/util/platform.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ACCEPT_PAUSE_MS 20

struct stream_listener {
    struct link_listener base;
    nng_stream_listener *stream;
    nng_aio *accept, *pause;
    char scheme[16];
    struct link_tls *tls; /* NULL: none */
    struct link_limits limits;
    void (*accepted)(void *arg, struct link *link);
    void *arg;
    int lock; /* the lock file's descriptor, or -1 */
    char lock_path[PATH_MAX];
    int last_error; /* of nng, so that a row of them is logged once */
};

static const char *
after_scheme(const char *url)
{
    return strstr(url, "://") + 3;
}

/* What nng is told: TLS is not its affair. */
static const char *
below_tls(const char *url)
{
    return strncmp(url, "tls+", 4) == 0 ? url + 4 : url;
}

/* ------------------------------------------------------------------------
 * The other side
 */

static void
tell_ip_peer(struct link_peer *peer, const nng_sockaddr *from)
{
    const char *transport = peer->transport;
    char ip[INET6_ADDRSTRLEN] = "?";

    if (from->s_family == NNG_AF_INET) {
        inet_ntop(AF_INET, &from->s_in.sa_addr, ip, sizeof ip);
        snprintf(peer->text, sizeof peer->text, "%s %s:%u", transport, ip,
                 ntohs(from->s_in.sa_port));
    } else if (from->s_family == NNG_AF_INET6) {
        inet_ntop(AF_INET6, from->s_in6.sa_addr, ip, sizeof ip);
        snprintf(peer->text, sizeof peer->text, "%s [%s]:%u", transport, ip,
                 ntohs(from->s_in6.sa_port));
    }
}

static void
tell_peer(struct link_peer *peer, nng_stream *stream, const char *scheme)
{
    nng_sockaddr from;
    uint64_t uid, gid, pid;

    memset(peer, 0, sizeof *peer);
    if (link_is_tcp(scheme)) {
        const char *transport = scheme[1] == 'l' ? "tls" : "tcp";
        snprintf(peer->transport, sizeof peer->transport, "%s", transport);
        snprintf(peer->text, sizeof peer->text, "%s", transport);
        if (nng_stream_get_addr(stream, NNG_OPT_REMADDR, &from) == 0)
            tell_ip_peer(peer, &from);
        return;
    }
    snprintf(peer->transport, sizeof peer->transport, "%s", scheme);
    snprintf(peer->text, sizeof peer->text, "%s", scheme);
    if (nng_stream_get_uint64(stream, NNG_OPT_IPC_PEER_UID, &uid) != 0
        || nng_stream_get_uint64(stream, NNG_OPT_IPC_PEER_GID, &gid) != 0
        || nng_stream_get_uint64(stream, NNG_OPT_IPC_PEER_PID, &pid) != 0)
        return;
    peer->has_uid = true;
    peer->uid = (uint32_t)uid;
    peer->gid = (uint32_t)gid;
    snprintf(peer->text, sizeof peer->text, "%s uid %u pid %llu", scheme,
             peer->uid, (unsigned long long)pid);
}

static struct stream_link *
make_link(nng_stream *stream, const char *scheme, bool server,
          struct link_tls *tls, const struct link_limits *limits)
{
    struct stream_link *link =
        stream_create(stream, scheme, server, tls, limits);

    if (link == NULL)
        return NULL;
    if (!link->ipc)
        nng_stream_set_bool(stream, NNG_OPT_TCP_NODELAY, true);
    if (!link->ipc && limits->keepalive)
        nng_stream_set_bool(stream, NNG_OPT_TCP_KEEPALIVE, true);
    tell_peer(&link->base.peer, stream, scheme);
    return link;
}

/* ------------------------------------------------------------------------
 * Connecting
 */

/* What a failure means for this URL, in words of the system's. */
static int
dial_failed(const char *url, const char *scheme, int result,
            struct error *error)
{
    struct stat found;

    if (strcmp(scheme, "ipc") == 0 && result == NNG_ECONNREFUSED) {
        if (stat(after_scheme(url), &found) != 0)
            return error_set_errno(error, errno, "connecting to %s", url);
        return error_set(error, FARBLK_CONNECTION_LOST,
                         "connecting to %s: nobody listens there", url);
    }
    int status = link_status_of(result);
    if (status == FARBLK_INVALID && link_is_tcp(scheme))
        status = FARBLK_NOT_FOUND; /* the name does not resolve */
    if (result == NNG_ECONNREFUSED && strcmp(scheme, "abstract") == 0)
        status = FARBLK_NOT_FOUND;
    return error_set(error, status, "connecting to %s: %s", url,
                     nng_strerror(result));
}

/* HOST:PORT; without a port nng would take any. */
static int
check_port(const char *url, const char *scheme, struct error *error)
{
    const char *host = after_scheme(url), *end = strchr(host, ']');
    const char *colon = strrchr(end == NULL ? host : end, ':');

    if (colon != NULL && colon[1] != 0
        && strspn(colon + 1, "0123456789") == strlen(colon + 1)
        && strlen(colon + 1) <= 5 && atoi(colon + 1) <= 65535)
        return 0;
    return error_set(error, FARBLK_INVALID,
                     "'%s': %s:// takes HOST:PORT, with a port from 0 to 65535",
                     url, scheme);
}

static int
check_address(const char *url, const char *scheme, struct error *error)
{
    size_t most = sizeof((struct sockaddr_un *)0)->sun_path - 1;
    const char *path = after_scheme(url);

    if (link_is_tcp(scheme))
        return check_port(url, scheme, error);
    if (strcmp(scheme, "ipc") == 0 && path[0] != '/')
        return error_set(error, FARBLK_INVALID,
                         "'%s': ipc:// takes an absolute path", url);
    if (path[0] != 0 && strlen(path) <= most)
        return 0;
    return error_set(
        error, FARBLK_INVALID,
        "'%s': a socket's name has %zu octets; at least 1, at most "
        "%zu",
        url, strlen(path), most);
}

/* One attempt; 0 or an error of nng. */
static int
dial_once(nng_stream_dialer *dialer, nng_aio *aio, int64_t until,
          nng_stream **stream)
{
    int64_t left = until - link_now();

    if (until == INT64_MAX)
        nng_aio_set_timeout(aio, NNG_DURATION_INFINITE);
    else if (left <= 0)
        return NNG_ETIMEDOUT;
    else
        nng_aio_set_timeout(aio, (nng_duration)left);
    nng_stream_dialer_dial(dialer, aio);
    nng_aio_wait(aio);
    if (nng_aio_result(aio) != 0)
        return nng_aio_result(aio);
    *stream = nng_aio_get_output(aio, 0);
    return 0;
}

int
link_stream_dial(const char *url, const char *scheme, struct link_tls *tls,
                 int32_t timeout_ms, const struct link_limits *limits,
                 struct link **to, struct error *error)
{
    int64_t until = timeout_ms < 0 ? INT64_MAX : link_now() + timeout_ms;
    nng_stream_dialer *dialer = NULL;
    nng_stream *stream = NULL;
    nng_aio *aio = NULL;

    if (check_address(url, scheme, error) != 0)
        return FARBLK_INVALID;
    int result = nng_stream_dialer_alloc(&dialer, below_tls(url));
    if (result == 0)
        result = nng_aio_alloc(&aio, NULL, NULL);
    if (result == 0) {
        /* A full backlog says "again". */
        while ((result = dial_once(dialer, aio, until, &stream)) == NNG_EAGAIN)
            nng_msleep(2);
    }
    if (aio != NULL)
        nng_aio_free(aio);
    if (dialer != NULL)
        nng_stream_dialer_free(dialer);
    if (result != 0) {
        if (limits->refused != NULL)
            *limits->refused =
                result == NNG_ECONNREFUSED
                || (result == NNG_ENOENT && strcmp(scheme, "ipc") == 0);
        return dial_failed(url, scheme, result, error);
    }

    struct stream_link *link = make_link(stream, scheme, false, tls, limits);
    if (link == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a connection");
    snprintf(link->base.peer.text, sizeof link->base.peer.text, "%.120s", url);
    *to = &link->base;
    return 0;
}

/* ------------------------------------------------------------------------
 * The lock beside a socket file
 */

/* Whether the file that is open is the one that has the name. */
static bool
is_named(int fd, const char *path)
{
    struct stat open_file, named;

    return fstat(fd, &open_file) == 0 && lstat(path, &named) == 0
           && open_file.st_dev == named.st_dev
           && open_file.st_ino == named.st_ino;
}

static int
take_lock(struct stream_listener *listener, const char *path,
          struct error *error)
{
    char *lock_path = listener->lock_path;

    snprintf(lock_path, sizeof listener->lock_path, "%s.lock", path);
    for (;;) {
        int fd =
            open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return error_set_errno(error, errno, "lock file %s", lock_path);
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            int failure = errno;
            close(fd);
            if (failure == EWOULDBLOCK)
                return error_set(error, FARBLK_BUSY,
                                 "%s is in use by a live server (%s is locked)",
                                 path, lock_path);
            return error_set_errno(error, failure, "locking %s", lock_path);
        }
        /* Its last owner may have removed it between our open and lock. */
        if (is_named(fd, lock_path)) {
            listener->lock = fd;
            return 0;
        }
        close(fd);
    }
}

static void
drop_lock(struct stream_listener *listener)
{
    if (listener->lock < 0)
        return;
    unlink(listener->lock_path);
    close(listener->lock);
    listener->lock = -1;
}

/* Own the path: lock it, and remove what a dead server left. */
static int
own_path(struct stream_listener *listener, const char *path,
         struct error *error)
{
    struct stat found;

    if (take_lock(listener, path, error) != 0)
        return error->status;
    if (lstat(path, &found) != 0)
        return 0;
    if (!S_ISSOCK(found.st_mode))
        return error_set(error, FARBLK_INVALID, "%s exists and is not a socket",
                         path);
    if (unlink(path) != 0)
        return error_set_errno(error, errno, "removing the stale socket %s",
                               path);
    log_info("%s: a dead server's socket was removed", path);
    return 0;
}

/* ------------------------------------------------------------------------
 * Accepting
 */

static void
arrived(void *arg)
{
    struct stream_listener *listener = arg;
    int result = nng_aio_result(listener->accept);

    if (result == NNG_ECLOSED || result == NNG_ECANCELED)
        return;
    if (result != 0) {
        if (result != listener->last_error)
            log_warning("%s: accepting failed: %s; trying on",
                        listener->base.url, nng_strerror(result));
        listener->last_error = result;
        nng_sleep_aio(ACCEPT_PAUSE_MS, listener->pause);
        return;
    }
    listener->last_error = 0;
    struct stream_link *link =
        make_link(nng_aio_get_output(listener->accept, 0), listener->scheme,
                  true, listener->tls, &listener->limits);
    if (link == NULL)
        log_warning("%s: no memory for a connection", listener->base.url);
    else
        listener->accepted(listener->arg, &link->base);
    nng_stream_listener_accept(listener->stream, listener->accept);
}

static void
paused(void *arg)
{
    struct stream_listener *listener = arg;

    if (nng_aio_result(listener->pause) == 0)
        nng_stream_listener_accept(listener->stream, listener->accept);
}

static void
free_listener(struct stream_listener *listener)
{
    /* Whoever may begin the other one first, and that one again: after a stop
     * nothing can be begun. */
    if (listener->stream != NULL)
        nng_stream_listener_close(listener->stream); /* removes the socket */
    if (listener->pause != NULL)
        nng_aio_stop(listener->pause);
    if (listener->accept != NULL)
        nng_aio_stop(listener->accept);
    if (listener->stream != NULL)
        nng_stream_listener_free(listener->stream);
    if (listener->pause != NULL)
        nng_aio_free(listener->pause);
    if (listener->accept != NULL)
        nng_aio_free(listener->accept);
    drop_lock(listener);
    link_tls_put(listener->tls);
    free(listener);
}

static void
close_listener(struct link_listener *base)
{
    free_listener((struct stream_listener *)base);
}

/* The URL, with the port that the system chose. */
static void
tell_url(struct stream_listener *listener, const char *url)
{
    char *text = listener->base.url;
    size_t size = sizeof listener->base.url;
    int port;

    snprintf(text, size, "%s", url);
    if (!link_is_tcp(listener->scheme))
        return;
    char *colon = strrchr(text, ':');
    if (nng_stream_listener_get_int(listener->stream, NNG_OPT_TCP_BOUND_PORT,
                                    &port)
            == 0
        && colon != NULL)
        snprintf(colon + 1, size - (size_t)(colon + 1 - text), "%d", port);
}

static int
listen_failed(const char *url, int result, struct error *error)
{
    return error_set(error, link_status_of(result), "listening on %s: %s", url,
                     nng_strerror(result));
}

/* Change whose socket it is, and only then who else may connect: until then it
 * is its owner alone. */
static int
give_away(const char *path, const struct link_listener_options *options,
          struct error *error)
{
    uid_t uid = options->ipc_uid != 0 ? options->ipc_uid : (uid_t)-1;
    gid_t gid = options->ipc_gid != 0 ? options->ipc_gid : (gid_t)-1;

    if (lchown(path, uid, gid) != 0)
        return error_set_errno(error, errno, "giving %s to uid %d, gid %d",
                               path, (int)uid, (int)gid);
    if (chmod(path, options->ipc_mode) != 0)
        return error_set_errno(error, errno, "changing the mode of %s", path);
    return 0;
}

static int
open_listener(struct stream_listener *listener, const char *url,
              const struct link_listener_options *options, struct error *error)
{
    bool file = strcmp(listener->scheme, "ipc") == 0;
    int result;

    if (check_address(url, listener->scheme, error) != 0)
        return error->status;
    if (file && own_path(listener, after_scheme(url), error) != 0)
        return error->status;
    if ((result = nng_aio_alloc(&listener->accept, arrived, listener)) != 0
        || (result = nng_aio_alloc(&listener->pause, paused, listener)) != 0
        || (result =
                nng_stream_listener_alloc(&listener->stream, below_tls(url)))
               != 0)
        return listen_failed(url, result, error);
    bool given = file && (options->ipc_uid != 0 || options->ipc_gid != 0);
    if (file) {
        result = nng_stream_listener_set_int(
            listener->stream, NNG_OPT_IPC_PERMISSIONS,
            given ? 0600 : (int)options->ipc_mode);
        if (result != 0)
            return listen_failed(url, result, error);
    }
    if ((result = nng_stream_listener_listen(listener->stream)) != 0)
        return listen_failed(url, result, error);
    if (given && give_away(after_scheme(url), options, error) != 0)
        return error->status;
    tell_url(listener, url);
    return 0;
}

int
link_stream_listen(const char *url, const char *scheme,
                   const struct link_listener_options *options,
                   void (*accepted)(void *arg, struct link *link), void *arg,
                   struct link_listener **to, struct error *error)
{
    struct stream_listener *listener = calloc(1, sizeof *listener);
    struct error unused;

    if (error == NULL)
        error = &unused;
    if (listener == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a listener");
    listener->base.close = close_listener;
    listener->lock = -1;
    listener->limits = options->limits;
    if (strncmp(scheme, "tls+", 4) == 0)
        listener->tls = link_tls_get(options->tls);
    listener->accepted = accepted;
    listener->arg = arg;
    snprintf(listener->scheme, sizeof listener->scheme, "%s", scheme);
    if (open_listener(listener, url, options, error) != 0) {
        free_listener(listener);
        return error->status;
    }
    *to = &listener->base;
    nng_stream_listener_accept(listener->stream, listener->accept);
    return 0;
}
