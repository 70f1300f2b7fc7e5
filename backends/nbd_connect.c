/* SPDX-License-Identifier: ISC */
/*
 * Connections of libnbd's: making one, what the server says at its beginning,
 * and what libnbd's errors mean here.
 *
 * Everything is bounded by a deadline, but for the resolver, which libnbd calls
 * inside: host names take as long as the system's resolver allows.
 */
#include "backends/nbd.h"

#include "core/checked.h"
#include "core/timer.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

void
nbd_signals_block(struct nbd_signals *signals)
{
    sigset_t pipe, pending;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    sigpending(&pending);
    signals->pending = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe, &signals->before);
}

void
nbd_signals_restore(const struct nbd_signals *signals)
{
    static const struct timespec now = {0, 0};
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    if (!signals->pending)
        while (sigtimedwait(&pipe, NULL, &now) == -1 && errno == EINTR)
            continue;
    pthread_sigmask(SIG_SETMASK, &signals->before, NULL);
}

void
nbd_words(char *to, size_t size, const char *fallback)
{
    const char *text = nbd_get_error();
    if (text == NULL || text[0] == '\0')
        text = fallback;
    error_copy_text(to, size, text, strlen(text));
}

int
nbd_status(int errnum, enum farblk_op op)
{
    switch (errnum) {
    case EPERM: /* the protocol's word for a write to what is read-only */
    case EROFS:
        return op == FARBLK_OP_WRITE || op == FARBLK_OP_DISCARD
                       || op == FARBLK_OP_WRITE_ZEROES
                   ? FARBLK_IS_READ_ONLY
                   : FARBLK_DENIED;
    case EINVAL: /* core has checked the arguments, and servers call so */
    case ERANGE: /*   whatever they have no other number for */
    case EOVERFLOW:
        return FARBLK_IO;
    case ESHUTDOWN:
    case ENOTCONN:
        return FARBLK_DISCONNECTED;
    default:
        return error_status_of_errno(errnum);
    }
}

/* libnbd's last error, of connecting. */
static int
nbd_fail(const struct nbd_config *config, const char *what, struct error *error)
{
    int errnum = nbd_get_errno();
    char words[320];
    nbd_words(words, sizeof words, "no reason given");
    int status = error_status_of_errno(errnum);
    if (errnum == 0) /* neither the resolver nor TLS have numbers */
        status = strstr(words, "getaddrinfo") != NULL ? FARBLK_NOT_FOUND
                 : strstr(words, "gnutls") != NULL    ? FARBLK_DENIED
                                                      : FARBLK_PROTOCOL;
    else if (status == FARBLK_INVALID || status == FARBLK_UNKNOWN)
        status = FARBLK_PROTOCOL;
    return error_set(error, status, "%s: %s: %s", config->target, what, words);
}

int
nbd_wait(const struct nbd_config *config, struct nbd_handle *handle,
         int (*waiting)(struct nbd_handle *), int64_t until_ms, int wake,
         const char *what, struct error *error)
{
    while (waiting(handle) == 1) {
        unsigned direction = nbd_aio_get_direction(handle);
        struct pollfd fds[2] = {
            {.fd = nbd_aio_get_fd(handle)},
            {.fd = wake, .events = POLLIN},
        };
        int64_t left = until_ms - timer_now();
        if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0)
            fds[0].events |= POLLIN;
        if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0)
            fds[0].events |= POLLOUT;
        int n = left <= 0 ? 0 : poll(fds, 2, (int)left);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(error, errno, "%s: poll", config->target);
        if (n == 0)
            return error_set(error, FARBLK_TIMED_OUT,
                             "%s: the server has not answered %s within %d ms",
                             config->target, what, (int)config->connect_ms);
        if (fds[1].revents != 0)
            return error_set(error, FARBLK_DISCONNECTED, "%s: given up",
                             config->target);
        int failed = 0;
        if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0
            && (fds[0].revents & ~POLLOUT) != 0)
            failed = nbd_aio_notify_read(handle);
        else if (fds[0].revents != 0)
            failed = nbd_aio_notify_write(handle);
        if (failed != 0)
            return nbd_fail(config, what, error);
    }
    if (nbd_aio_is_dead(handle) != 0 || nbd_aio_is_closed(handle) != 0)
        return nbd_fail(config, what, error);
    return 0;
}

/* A host that is gone without a word has to be noticed.  The limit is long, for
 * it counts as well for a server that reads nothing while it is busy. */
static void
nbd_keep_alive(struct nbd_handle *handle)
{
    int fd = nbd_aio_get_fd(handle), on = 1, dead_ms = NBD_DEAD_S * 1000;
    int idle = NBD_DEAD_S / 4, every = NBD_DEAD_S / 8, count = 6;
    if (fd < 0)
        return;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_ms, sizeof dead_ms);
}

static int
nbd_prepare(const struct nbd_config *config, bool listing,
            struct nbd_handle *handle)
{
    if (nbd_set_export_name(handle, config->export_name) != 0
        || nbd_add_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0
        || (listing && nbd_set_opt_mode(handle, true) != 0))
        return -1;
    if (!config->tls)
        return 0;
    if (nbd_set_tls(handle, LIBNBD_TLS_REQUIRE) != 0
        || (config->user != NULL
            && nbd_set_tls_username(handle, config->user) != 0)
        || (config->certificates != NULL
            && nbd_set_tls_certificates(handle, config->certificates) != 0)
        || (config->psk_file != NULL
            && nbd_set_tls_psk_file(handle, config->psk_file) != 0))
        return -1;
    return 0;
}

struct nbd_handle *
nbd_connect(const struct nbd_config *config, bool listing, int64_t until_ms,
            int wake, struct error *error)
{
    static const char what[] = "cannot connect";
    struct nbd_signals signals;
    nbd_signals_block(&signals);
    struct nbd_handle *handle = nbd_create();
    int status = 0;
    if (handle == NULL || nbd_prepare(config, listing, handle) != 0
        || (config->is_unix
                ? nbd_aio_connect_unix(handle, config->socket)
                : nbd_aio_connect_tcp(handle, config->host, config->port))
               != 0)
        status = nbd_fail(config, what, error);
    if (status == 0)
        status = nbd_wait(config, handle, nbd_aio_is_connecting, until_ms, wake,
                          "the connection", error);
    if (status == 0 && !config->is_unix)
        nbd_keep_alive(handle);
    if (status != 0 && handle != NULL) {
        nbd_close(handle);
        handle = NULL;
    }
    nbd_signals_restore(&signals);
    return handle;
}

/* One of the server's sizes; 0 when it says none or one that is none. */
static uint32_t
nbd_ask_size(struct nbd_handle *handle, int which)
{
    int64_t size = nbd_get_block_size(handle, which);
    return size > 0 && size <= UINT32_MAX ? (uint32_t)size : 0;
}

int
nbd_ask(const struct nbd_config *config, struct nbd_handle *handle,
        struct nbd_facts *facts, struct error *error)
{
    int64_t size = nbd_get_size(handle);
    if (size < 0)
        return nbd_fail(config, "the export's size", error);
    *facts = (struct nbd_facts){
        .size = (uint64_t)size,
        .read_only = nbd_is_read_only(handle) == 1,
        .can_flush = nbd_can_flush(handle) == 1,
        .can_fua = nbd_can_fua(handle) == 1,
        .can_trim = nbd_can_trim(handle) == 1,
        .can_zero = nbd_can_zero(handle) == 1,
        .can_multi = nbd_can_multi_conn(handle) == 1,
        .can_map =
            nbd_can_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1,
        .minimum = nbd_ask_size(handle, LIBNBD_SIZE_MINIMUM),
        .preferred = nbd_ask_size(handle, LIBNBD_SIZE_PREFERRED),
        .maximum = nbd_ask_size(handle, LIBNBD_SIZE_MAXIMUM),
    };
    return 0;
}

int
nbd_sector(const struct nbd_config *config, const struct nbd_facts *facts,
           uint32_t *sector, struct error *error)
{
    uint32_t minimum = facts->minimum != 0 ? facts->minimum : 1;
    uint32_t maximum = facts->maximum;
    if (!is_power_of_two(minimum) || minimum > FARBLK_SECTOR_MAX)
        return error_set(error, FARBLK_INVALID,
                         "%s: the server's smallest block is %u octets; it has "
                         "to be a power of two up to %u",
                         config->target, minimum, FARBLK_SECTOR_MAX);
    *sector = config->sector;
    if (*sector == 0)
        *sector = (uint32_t)max_u64(minimum, FARBLK_SECTOR_MIN);
    if (*sector < minimum)
        return error_set(error, FARBLK_INVALID,
                         "%s: sector=%u is less than the server's smallest "
                         "block, %u octets",
                         config->target, *sector, minimum);
    if (maximum != 0 && maximum < *sector)
        return error_set(error, FARBLK_INVALID,
                         "%s: sectors of %u octets are more than the server's "
                         "largest request, %u",
                         config->target, *sector, maximum);
    if (facts->size % *sector != 0)
        return error_set(error, FARBLK_INVALID,
                         "%s: the export has %llu octets, which are no whole "
                         "sectors of %u",
                         config->target, (unsigned long long)facts->size,
                         *sector);
    return 0;
}
