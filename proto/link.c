/* SPDX-License-Identifier: ISC */
/*
 * Links: what is common to all kinds, and which kind a URL is for.
 */
#include "proto/link_kind.h"

#include "core/device.h"

#include <nng/nng.h>

#include <string.h>
#include <time.h>

/* How each transport is spoken. */
static const struct transport {
    const char *scheme;
    bool stream;
} transports[] = {
    {"ipc", true},      {"abstract", true}, {"tcp", true},
    {"tcp4", true},     {"tcp6", true},     {"tls+tcp", true},
    {"tls+tcp4", true}, {"tls+tcp6", true}, {"inproc", false},
    {"ws", false},
};

static bool
is_tls(const char *scheme)
{
    return strncmp(scheme, "tls+", 4) == 0;
}

bool
link_is_tcp(const char *scheme)
{
    return strncmp(scheme + (is_tls(scheme) ? 4 : 0), "tcp", 3) == 0;
}

void
link_init(struct link *link, const struct link_ops *ops)
{
    link->ops = ops;
    atomic_init(&link->refs, 1);
}

struct link *
link_get(struct link *link)
{
    atomic_fetch_add_explicit(&link->refs, 1, memory_order_relaxed);
    return link;
}

bool
link_get_live(struct link *link)
{
    unsigned refs = atomic_load_explicit(&link->refs, memory_order_relaxed);

    while (refs != 0)
        if (atomic_compare_exchange_weak(&link->refs, &refs, refs + 1))
            return true;
    return false;
}

void
link_put(struct link *link)
{
    if (link != NULL
        && atomic_fetch_sub_explicit(&link->refs, 1, memory_order_acq_rel) == 1)
        link->ops->free(link);
}

void
link_start(struct link *link, const struct link_events *events, void *arg)
{
    link->ops->start(link, events, arg);
}

void
link_send(struct link *link, struct link_message *message)
{
    link->ops->send(link, message);
}

bool
link_recall(struct link *link, struct link_message *message)
{
    return link->ops->recall(link, message);
}

void
link_push(struct link *link)
{
    if (link->ops->push != NULL)
        link->ops->push(link);
}

bool
link_attend(struct link *link, struct attendance *attendance, int64_t until_ms)
{
    return link->ops->attend != NULL
           && link->ops->attend(link, attendance, until_ms);
}

void
link_left(struct link *link)
{
    if (link->ops->left != NULL)
        link->ops->left(link);
}

void
link_wake(struct link *link, struct attendance *attendance)
{
    if (link->ops->wake != NULL)
        link->ops->wake(link, attendance);
}

void
link_mind(struct link *link, bool forever)
{
    if (link->ops->mind != NULL)
        link->ops->mind(link, forever);
}

bool
link_ended(struct link *link)
{
    return link->ops->ended != NULL && link->ops->ended(link);
}

void
link_hold(struct link *link)
{
    link->ops->hold(link);
}

void
link_release(struct link *link)
{
    link->ops->release(link);
}

void
link_close(struct link *link, bool drain)
{
    link->ops->close(link, drain);
}

const struct link_peer *
link_peer(const struct link *link)
{
    return &link->peer;
}

struct link_message *
link_queue_take(struct link_queue *queue)
{
    struct link_message *message = queue->first;

    if (message == NULL)
        return NULL;
    queue->first = message->next;
    if (queue->first == NULL)
        queue->end = &queue->first;
    message->next = NULL;
    return message;
}

void
link_queue_move(struct link_queue *to, struct link_queue *from)
{
    if (from->first == NULL)
        return;
    *to->end = from->first;
    to->end = from->end;
    link_queue_init(from);
}

bool
link_queue_remove(struct link_queue *queue, struct link_message *message)
{
    for (struct link_message **at = &queue->first; *at != NULL;
         at = &(*at)->next) {
        if (*at != message)
            continue;
        *at = message->next;
        if (queue->end == &message->next)
            queue->end = at;
        message->next = NULL;
        return true;
    }
    return false;
}

void
link_queue_flush(struct link_queue *queue, int status)
{
    struct link_message *message;

    while ((message = link_queue_take(queue)) != NULL)
        message->sent(message, status);
}

int64_t
link_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int
link_status_of(int nng_error)
{
    switch (nng_error) {
    case 0:
        return 0;
    case NNG_ENOMEM:
        return FARBLK_NO_MEMORY;
    case NNG_EINVAL:
    case NNG_ENOTSUP:
    case NNG_EADDRINVAL: /* a name that does not resolve, too: see link_dial */
        return FARBLK_INVALID;
    case NNG_EADDRINUSE:
    case NNG_EBUSY:
        return FARBLK_BUSY;
    case NNG_ENOENT:
        return FARBLK_NOT_FOUND;
    case NNG_EPERM:
    case NNG_EPEERAUTH:
        return FARBLK_DENIED;
    case NNG_ETIMEDOUT:
        return FARBLK_TIMED_OUT;
    case NNG_EPROTO:
    case NNG_EMSGSIZE:
        return FARBLK_PROTOCOL;
    case NNG_ECLOSED:
    case NNG_ECONNREFUSED:
    case NNG_ECONNRESET:
    case NNG_ECONNABORTED:
    case NNG_ECONNSHUT:
    case NNG_ECANCELED:
    case NNG_EUNREACHABLE:
        return FARBLK_CONNECTION_LOST;
    default:
        if ((nng_error & NNG_ESYSERR) != 0)
            return error_status_of_errno(nng_error & ~NNG_ESYSERR);
        return FARBLK_UNKNOWN;
    }
}

/* nng ends the child of a process that has used it when that uses it, too. */
static bool
usable(struct error *error)
{
    static atomic_uint first; /* use: one more than its count of forks */
    unsigned here = fork_generation() + 1, before = 0;

    if (atomic_compare_exchange_strong(&first, &before, here) || before == here)
        return true;
    error_set(error, FARBLK_INVALID,
              "this process was forked from one that had connections already; "
              "it can not have any of its own before exec");
    return false;
}

/* Which transport a URL is for; NULL with INVALID. */
static const struct transport *
find_transport(const char *url, struct error *error)
{
    const char *end = url == NULL ? NULL : strstr(url, "://");

    if (end == NULL) {
        error_set(error, FARBLK_INVALID, "'%.200s' is not a URL",
                  url == NULL ? "" : url);
        return NULL;
    }
    if (strlen(url) >= sizeof((struct link_listener *)0)->url - 8) {
        error_set(error, FARBLK_INVALID, "a URL of %zu octets is too long",
                  strlen(url));
        return NULL;
    }
    size_t length = (size_t)(end - url);
    for (size_t i = 0; i < sizeof transports / sizeof transports[0]; i++)
        if (strlen(transports[i].scheme) == length
            && memcmp(transports[i].scheme, url, length) == 0)
            return &transports[i];
    error_set(error, FARBLK_INVALID,
              "transport '%.*s' is not known; known are ipc, abstract, tcp, "
              "tls+tcp, inproc and ws",
              (int)(length < 100 ? length : 100), url);
    return NULL;
}

/* TLS where it is asked for, and nowhere else: no way leads from the one to the
 * other. */
static int
check_tls(const char *scheme, const struct link_tls *tls, const char *missing,
          struct error *error)
{
    if (is_tls(scheme) && tls == NULL)
        return error_set(error, FARBLK_INVALID, "%s:// %s", scheme, missing);
    return 0;
}

int
link_dial(const char *url, struct link_tls *tls, int32_t timeout_ms,
          const struct link_limits *limits, struct link **link,
          struct error *error)
{
    *link = NULL;
    if (limits->refused != NULL)
        *limits->refused = false;
    const struct transport *transport = find_transport(url, error);
    if (transport == NULL || !usable(error)
        || check_tls(transport->scheme, tls, "needs a CA to verify by", error)
               != 0)
        return FARBLK_INVALID;
    return (transport->stream ? link_stream_dial : link_socket_dial)(
        url, transport->scheme, is_tls(transport->scheme) ? tls : NULL,
        timeout_ms, limits, link, error);
}

int
link_listen(const char *url, const struct link_listener_options *options,
            void (*accepted)(void *arg, struct link *link), void *arg,
            struct link_listener **listener, struct error *error)
{
    *listener = NULL;
    const struct transport *transport = find_transport(url, error);
    if (transport == NULL || !usable(error)
        || check_tls(transport->scheme, options->tls,
                     "needs a certificate and its key (tls-cert, tls-key)",
                     error)
               != 0)
        return FARBLK_INVALID;
    return (transport->stream ? link_stream_listen : link_socket_listen)(
        url, transport->scheme, options, accepted, arg, listener, error);
}

const char *
link_listener_url(const struct link_listener *listener)
{
    return listener->url;
}

void
link_listener_close(struct link_listener *listener)
{
    if (listener != NULL)
        listener->close(listener);
}
