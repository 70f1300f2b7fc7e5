/* SPDX-License-Identifier: ISC */
/*
 * The raw nng sockets below links: listening and dialing.
 *
 * nng_close() waits for callbacks, so it never runs in one: a side whose last
 * reference goes is closed on a thread made for that.  Closing a listener of
 * nng would close its pipes too, which are links that live on; so a listener
 * that was closed only turns newcomers away until the last link has gone.
 */
#include "core/log.h"
#include "proto/link_socket.h"

#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/util/platform.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Sides that are about to be closed: their addresses become free soon, and
 * those of http some time after that. */
static pthread_mutex_t leaving_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t all_left = PTHREAD_COND_INITIALIZER;
static unsigned leaving;
static int64_t last_left;
static pthread_once_t exit_once = PTHREAD_ONCE_INIT;
static pid_t exit_process;

#define LEAVING_WAIT_MS 2000
#define LEAVING_POLL_MS 5
#define EXIT_WAIT_MS 1000

/* ------------------------------------------------------------------------
 * The end
 */

static void
side_free(struct socket_side *side)
{
    /* First the receive: nng 1.5.2 forgets one that begins while it closes. */
    if (side->receive != NULL)
        nng_aio_stop(side->receive);
    nng_close(side->socket); /* waits for the end of all pipes */
    if (side->receive != NULL)
        nng_aio_free(side->receive);
    pthread_cond_destroy(&side->changed);
    pthread_mutex_destroy(&side->mutex);
    free(side);
}

static void
count_leaving(int by)
{
    pthread_mutex_lock(&leaving_mutex);
    leaving += (unsigned)by;
    last_left = link_now();
    if (leaving == 0)
        pthread_cond_broadcast(&all_left);
    pthread_mutex_unlock(&leaving_mutex);
}

void
socket_side_leaving(struct socket_side *side)
{
    if (!atomic_exchange(&side->leaving, true))
        count_leaving(1);
}

/* At the process's end nng takes itself apart, and aborts when somebody is in
 * its midst: let those who are leaving get out before. */
static void
wait_at_exit(void)
{
    struct timespec until;

    if (getpid() != exit_process)
        return; /* a forked child: nobody is here */
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += EXIT_WAIT_MS / 1000;
    pthread_mutex_lock(&leaving_mutex);
    while (leaving > 0
           && pthread_cond_timedwait(&all_left, &leaving_mutex, &until) == 0)
        ;
    pthread_mutex_unlock(&leaving_mutex);
}

/* After nng's own, so that it runs before it. */
static void
watch_exit(void)
{
    exit_process = getpid();
    atexit(wait_at_exit);
}

static void *
side_leave(void *arg)
{
    side_free(arg);
    count_leaving(-1);
    return NULL;
}

void
socket_side_put(struct socket_side *side)
{
    pthread_t thread;
    pthread_attr_t attributes;

    if (atomic_fetch_sub(&side->refs, 1) != 1)
        return;
    socket_side_leaving(side);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attributes, side_leave, side) != 0) {
        log_error("no thread to close a %s socket; it stays open",
                  side->scheme);
        count_leaving(-1);
    }
    pthread_attr_destroy(&attributes);
}

/* Whether one of this process's own addresses may become free yet. */
static bool
is_leaving(void)
{
    pthread_mutex_lock(&leaving_mutex);
    bool is = leaving > 0
              || (last_left != 0 && link_now() - last_left < LEAVING_WAIT_MS);
    pthread_mutex_unlock(&leaving_mutex);
    return is;
}

/* nng_listen(), patient with addresses that this process has just left (of
 * http it says that they are in a wrong state). */
static int
listen_patiently(struct socket_side *side, const char *url)
{
    int64_t until = link_now() + LEAVING_WAIT_MS;

    for (;;) {
        int result = nng_listen(side->socket, url, &side->listener, 0);
        if (result == NNG_ESTATE)
            result = NNG_EADDRINUSE;
        if (result != NNG_EADDRINUSE || !is_leaving() || link_now() >= until)
            return result;
        nng_msleep(LEAVING_POLL_MS);
    }
}

/* ------------------------------------------------------------------------
 * Messages and pipes
 */

/* The link of a pipe, with a reference; NULL: none. */
static struct socket_link *
find_link(struct socket_side *side, nng_pipe pipe)
{
    struct socket_link *link;

    pthread_mutex_lock(&side->mutex);
    for (link = side->links; link != NULL; link = link->next)
        if (nng_pipe_id(link->pipe) == nng_pipe_id(pipe)
            && link_get_live(&link->base))
            break;
    pthread_mutex_unlock(&side->mutex);
    return link;
}

static void
side_received(void *arg)
{
    struct socket_side *side = arg;

    if (nng_aio_result(side->receive) == NNG_ECLOSED)
        return;
    if (nng_aio_result(side->receive) == 0) {
        nng_msg *message = nng_aio_get_msg(side->receive);
        nng_aio_set_msg(side->receive, NULL);
        struct socket_link *link = find_link(side, nng_msg_get_pipe(message));
        if (link == NULL) {
            nng_msg_free(message);
        } else {
            socket_link_receive(link, message);
            link_put(&link->base);
        }
    }
    nng_recv_aio(side->socket, side->receive);
}

static void
tell_peer(struct link_peer *peer, nng_pipe pipe, const char *scheme)
{
    nng_sockaddr from;
    char ip[INET6_ADDRSTRLEN] = "?";

    if (nng_pipe_get_addr(pipe, NNG_OPT_REMADDR, &from) != 0)
        return;
    if (from.s_family == NNG_AF_INET) {
        inet_ntop(AF_INET, &from.s_in.sa_addr, ip, sizeof ip);
        snprintf(peer->text, sizeof peer->text, "%s %s:%u", scheme, ip,
                 ntohs(from.s_in.sa_port));
    } else if (from.s_family == NNG_AF_INET6) {
        inet_ntop(AF_INET6, from.s_in6.sa_addr, ip, sizeof ip);
        snprintf(peer->text, sizeof peer->text, "%s [%s]:%u", scheme, ip,
                 ntohs(from.s_in6.sa_port));
    }
}

/* A pipe of a listener begins; before its first message. */
static void
pipe_added(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct socket_side *side = arg;

    (void)event;
    pthread_mutex_lock(&side->mutex);
    bool welcome = !side->closed;
    if (welcome)
        side->accepting++;
    pthread_mutex_unlock(&side->mutex);
    if (!welcome) {
        nng_pipe_close(pipe);
        return;
    }
    struct socket_link *link = socket_link_create(side, pipe);
    if (link == NULL) {
        log_warning("%s: no memory for a connection", side->scheme);
        nng_pipe_close(pipe);
    } else {
        tell_peer(&link->base.peer, pipe, side->scheme);
        side->accepted(side->arg, &link->base);
    }
    pthread_mutex_lock(&side->mutex);
    side->accepting--;
    pthread_cond_broadcast(&side->changed);
    pthread_mutex_unlock(&side->mutex);
}

/* The listener's socket knows the pipe: replies to it find their way.  Before,
 * it drops them. */
static void
pipe_ready(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct socket_link *link = find_link(arg, pipe);

    (void)event;
    if (link == NULL)
        return;
    socket_link_ready(link);
    link_put(&link->base);
}

/* The pipe of a dialer begins; a second one would be another connection. */
static void
pipe_dialed(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct socket_side *side = arg;

    (void)event;
    pthread_mutex_lock(&side->mutex);
    bool welcome = !side->closed && !side->connected;
    side->connected = true;
    pthread_mutex_unlock(&side->mutex);
    struct socket_link *link = welcome ? socket_link_create(side, pipe) : NULL;
    if (link == NULL)
        nng_pipe_close(pipe);
    else
        pthread_cond_broadcast(&side->changed);
}

static void
pipe_removed(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct socket_link *link = find_link(arg, pipe);

    (void)event;
    if (link == NULL)
        return;
    socket_link_gone(link);
    link_put(&link->base);
}

/* A connection that is lost is lost.  nng would dial again, for half of the
 * pipes at once whatever is set; and to close a websocket's dialer then locks
 * up nng 1.5.2's thread that frees everything. */
static void
pipe_lost(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    nng_dialer_close(nng_pipe_dialer(pipe));
    pipe_removed(pipe, event, arg);
}

/* A side with one reference; *result: 0 or an error of nng. */
static struct socket_side *
side_create(bool server, const char *scheme, const struct link_limits *limits,
            int *result)
{
    struct socket_side *side = calloc(1, sizeof *side);

    *result = NNG_ENOMEM;
    if (side == NULL)
        return NULL;
    *result = server ? nng_rep0_open_raw(&side->socket)
                     : nng_req0_open_raw(&side->socket);
    if (*result != 0) {
        free(side);
        return NULL;
    }
    pthread_once(&exit_once, watch_exit);
    pthread_mutex_init(&side->mutex, NULL);
    pthread_cond_init(&side->changed, NULL);
    atomic_init(&side->refs, 1);
    atomic_init(&side->leaving, false);
    side->server = server;
    side->limits = *limits;
    snprintf(side->scheme, sizeof side->scheme, "%s", scheme);
    *result = nng_aio_alloc(&side->receive, side_received, side);
    if (*result == 0)
        *result = nng_socket_set_size(
            side->socket, NNG_OPT_RECVMAXSZ,
            (size_t)WIRE_STACK_MAX + 4 + WIRE_HEADER_MAX + limits->max_payload);
    if (*result == 0)
        *result = nng_pipe_notify(side->socket, NNG_PIPE_EV_ADD_PRE,
                                  server ? pipe_added : pipe_dialed, side);
    if (*result == 0 && server)
        *result = nng_pipe_notify(side->socket, NNG_PIPE_EV_ADD_POST,
                                  pipe_ready, side);
    if (*result == 0)
        *result = nng_pipe_notify(side->socket, NNG_PIPE_EV_REM_POST,
                                  server ? pipe_removed : pipe_lost, side);
    if (*result != 0) {
        side_free(side);
        return NULL;
    }
    return side;
}

/* ------------------------------------------------------------------------
 * Listening
 */

struct socket_listener {
    struct link_listener base;
    struct socket_side *side;
};

static void
close_listener(struct link_listener *base)
{
    struct socket_listener *listener = (struct socket_listener *)base;
    struct socket_side *side = listener->side;

    socket_side_leaving(side);
    pthread_mutex_lock(&side->mutex);
    side->closed = true;
    while (side->accepting > 0)
        pthread_cond_wait(&side->changed, &side->mutex);
    pthread_mutex_unlock(&side->mutex);
    free(listener);
    socket_side_put(side);
}

static void
tell_url(struct socket_listener *listener, const char *url)
{
    char *text = listener->base.url;
    size_t size = sizeof listener->base.url;
    char rest[256];
    int port;

    snprintf(text, size, "%s", url);
    if (nng_listener_get_int(listener->side->listener, NNG_OPT_TCP_BOUND_PORT,
                             &port)
        != 0)
        return;
    /* ws://HOST:PORT/PATH */
    char *host = strstr(text, "://") + 3;
    char *path = strchr(host, '/');
    snprintf(rest, sizeof rest, "%s", path == NULL ? "" : path);
    if (path != NULL)
        *path = 0;
    char *colon = strrchr(host, ':');
    if (colon == NULL || strchr(colon, ']') != NULL)
        colon = host + strlen(host);
    snprintf(colon, size - (size_t)(colon - text), ":%d%s", port, rest);
}

int
link_socket_listen(const char *url, const char *scheme,
                   const struct link_listener_options *options,
                   void (*accepted)(void *arg, struct link *link), void *arg,
                   struct link_listener **to, struct error *error)
{
    struct socket_listener *listener = calloc(1, sizeof *listener);
    int result;

    if (listener == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a listener");
    listener->base.close = close_listener;
    struct socket_side *side =
        side_create(true, scheme, &options->limits, &result);
    if (side == NULL) {
        free(listener);
        return error_set(error, link_status_of(result), "listening on %s: %s",
                         url, nng_strerror(result));
    }
    listener->side = side;
    side->accepted = accepted;
    side->arg = arg;
    result = listen_patiently(side, url);
    if (result != 0) {
        side_free(side);
        free(listener);
        return error_set(error, link_status_of(result), "listening on %s: %s",
                         url, nng_strerror(result));
    }
    tell_url(listener, url);
    *to = &listener->base;
    nng_recv_aio(side->socket, side->receive);
    return 0;
}

/* ------------------------------------------------------------------------
 * Dialing
 */

/* A dial on a thread of its own, since nng's has no timeout.  Two references:
 * whoever waits and the thread; the last one frees. */
struct dial {
    struct socket_side *side;
    char *url;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool done, abandoned;
    int result;
};

static void
dial_free(struct dial *dial)
{
    pthread_cond_destroy(&dial->changed);
    pthread_mutex_destroy(&dial->mutex);
    free(dial->url);
    free(dial);
}

/* Not connected: the side goes, and the link if there is one by now. */
static void
discard(struct socket_side *side)
{
    struct socket_link *link;

    pthread_mutex_lock(&side->mutex);
    side->closed = true;
    link = side->links; /* its one reference is nobody's yet */
    pthread_mutex_unlock(&side->mutex);
    if (link != NULL) {
        link_close(&link->base, false);
        link_put(&link->base);
    }
    socket_side_put(side);
}

static void *
dial_thread(void *arg)
{
    struct dial *dial = arg;
    int result = nng_dial(dial->side->socket, dial->url, NULL, 0);

    pthread_mutex_lock(&dial->mutex);
    dial->result = result;
    dial->done = true;
    bool abandoned = dial->abandoned;
    pthread_cond_broadcast(&dial->changed);
    pthread_mutex_unlock(&dial->mutex);
    if (abandoned) {
        discard(dial->side);
        dial_free(dial);
    }
    return NULL;
}

static struct dial *
dial_begin(struct socket_side *side, const char *url)
{
    struct dial *dial = calloc(1, sizeof *dial);
    pthread_attr_t attributes;
    pthread_condattr_t monotonic;
    pthread_t thread;

    if (dial == NULL)
        return NULL;
    dial->side = side;
    dial->url = strdup(url);
    pthread_mutex_init(&dial->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&dial->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (dial->url == NULL
        || pthread_create(&thread, &attributes, dial_thread, dial) != 0) {
        dial_free(dial);
        dial = NULL;
    }
    pthread_attr_destroy(&attributes);
    return dial;
}

/* Wait for it.  An error of nng; NNG_ETIMEDOUT: the thread cleans up. */
static int
dial_wait(struct dial *dial, int32_t timeout_ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&dial->mutex);
    while (!dial->done) {
        if (timeout_ms < 0)
            pthread_cond_wait(&dial->changed, &dial->mutex);
        else if (pthread_cond_timedwait(&dial->changed, &dial->mutex, &until)
                 == ETIMEDOUT)
            break;
    }
    int result = dial->done ? dial->result : NNG_ETIMEDOUT;
    bool abandons = dial->abandoned = !dial->done;
    pthread_mutex_unlock(&dial->mutex);
    if (!abandons)
        dial_free(dial);
    return result;
}

static int
dial_status(const char *scheme, int result)
{
    if (strcmp(scheme, "inproc") == 0 && result == NNG_ECONNREFUSED)
        return FARBLK_NOT_FOUND;
    if (result == NNG_EADDRINVAL) /* the name does not resolve */
        return FARBLK_NOT_FOUND;
    return link_status_of(result);
}

int
link_socket_dial(const char *url, const char *scheme, struct link_tls *tls,
                 int32_t timeout_ms, const struct link_limits *limits,
                 struct link **to, struct error *error)
{
    (void)tls; /* none of these carries it */
    int result;
    struct socket_side *side = side_create(false, scheme, limits, &result);

    if (side == NULL)
        return error_set(error, link_status_of(result), "connecting to %s: %s",
                         url, nng_strerror(result));
    struct dial *dial = dial_begin(side, url);
    if (dial == NULL) {
        discard(side);
        return error_set(error, FARBLK_NO_MEMORY,
                         "connecting to %s: no memory for a connection", url);
    }
    result = dial_wait(dial, timeout_ms);
    if (result != 0) {
        bool abandoned = result == NNG_ETIMEDOUT;
        if (!abandoned)
            discard(side);
        if (limits->refused != NULL)
            *limits->refused = result == NNG_ECONNREFUSED;
        return error_set(error, dial_status(scheme, result),
                         "connecting to %s: %s", url, nng_strerror(result));
    }

    /* nng has told of the pipe before it says that it has dialed. */
    pthread_mutex_lock(&side->mutex);
    struct socket_link *link = side->links;
    side->closed = true;
    pthread_mutex_unlock(&side->mutex);
    if (link == NULL) {
        discard(side);
        return error_set(error, FARBLK_CONNECTION_LOST,
                         "connecting to %s: closed at once", url);
    }
    snprintf(link->base.peer.text, sizeof link->base.peer.text, "%.120s", url);
    *to = &link->base;
    nng_recv_aio(side->socket, side->receive);
    socket_side_put(side); /* the link has its own reference */
    return 0;
}
