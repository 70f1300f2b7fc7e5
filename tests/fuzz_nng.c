/* SPDX-License-Identifier: ISC */
/*
 * The stand-in for nng: streams, who makes them, and the program's side.
 */
#include "tests/fuzz_wait.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SENT_MAX (1u << 20) /* is kept of what a side sends */

static nng_stream *streams;
static nng_aio *accepting;
static bool accept_ipc, refuses;
static bool (*step)(void);

/* ------------------------------------------------------------ streams */

static nng_stream *
make_stream(bool ipc, uint64_t uid)
{
    nng_stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL)
        fuzz_wrong("no memory");
    stream->ipc = ipc;
    stream->uid = uid;
    stream->room = SIZE_MAX;
    stream->next = streams;
    streams = stream;
    return stream;
}

/* With the lock: a receive that can end, does. */
static void
try_receive(nng_stream *stream)
{
    nng_aio *aio = stream->receive;
    size_t count = 0;
    if (aio == NULL)
        return;
    for (unsigned i = 0; i < aio->iovcnt && stream->at < stream->end; i++) {
        size_t part = aio->iov[i].iov_len;
        if (part > stream->end - stream->at)
            part = stream->end - stream->at;
        memcpy(aio->iov[i].iov_buf, stream->data + stream->at, part);
        stream->at += part;
        count += part;
    }
    if (count > 0)
        fuzz_aio_finish(aio, 0, count);
    else if (stream->failure != 0)
        fuzz_aio_finish(aio, stream->failure, 0);
}

static void
keep(nng_stream *stream, const uint8_t *from, size_t length)
{
    if (length > SENT_MAX - stream->sent_length)
        length = SENT_MAX - stream->sent_length;
    if (stream->sent_length + length > stream->sent_capacity) {
        stream->sent_capacity = 2 * (stream->sent_length + length);
        stream->sent = realloc(stream->sent, stream->sent_capacity);
        if (stream->sent == NULL)
            fuzz_wrong("no memory");
    }
    if (length > 0)
        memcpy(stream->sent + stream->sent_length, from, length);
    stream->sent_length += length;
}

static void
try_send(nng_stream *stream)
{
    nng_aio *aio = stream->send;
    size_t count = 0;
    if (aio == NULL)
        return;
    if (stream->send_failure != 0) {
        fuzz_aio_finish(aio, stream->send_failure, 0);
        return;
    }
    for (unsigned i = 0; i < aio->iovcnt && stream->room > 0; i++) {
        size_t part = aio->iov[i].iov_len;
        if (part > stream->room)
            part = stream->room;
        keep(stream, aio->iov[i].iov_buf, part);
        if (stream->room != SIZE_MAX)
            stream->room -= part;
        count += part;
    }
    if (count > 0)
        fuzz_aio_finish(aio, 0, count);
}

void
nng_stream_recv(nng_stream *stream, nng_aio *aio)
{
    pthread_mutex_lock(&fuzz_lock);
    if (stream->closed || stream->receive != NULL)
        fuzz_wrong("a receive that nng would not end");
    fuzz_aio_begin(aio, &stream->receive);
    try_receive(stream);
    pthread_mutex_unlock(&fuzz_lock);
}

void
nng_stream_send(nng_stream *stream, nng_aio *aio)
{
    pthread_mutex_lock(&fuzz_lock);
    if (stream->closed || stream->send != NULL)
        fuzz_wrong("a send that nng would not end");
    fuzz_aio_begin(aio, &stream->send);
    try_send(stream);
    pthread_mutex_unlock(&fuzz_lock);
}

static void
close_stream(nng_stream *stream)
{
    stream->closed = true;
    if (stream->receive != NULL)
        fuzz_aio_finish(stream->receive, NNG_ECLOSED, 0);
    if (stream->send != NULL)
        fuzz_aio_finish(stream->send, NNG_ECLOSED, 0);
}

void
nng_stream_close(nng_stream *stream)
{
    pthread_mutex_lock(&fuzz_lock);
    close_stream(stream);
    pthread_mutex_unlock(&fuzz_lock);
}

void
nng_stream_free(nng_stream *stream)
{
    if (stream == NULL)
        return;
    pthread_mutex_lock(&fuzz_lock);
    close_stream(stream);
    stream->freed = true;
    pthread_cond_broadcast(&fuzz_changed);
    pthread_mutex_unlock(&fuzz_lock);
}

int
nng_stream_get_uint64(nng_stream *stream, const char *name, uint64_t *value)
{
    (void)name;
    *value = stream->uid;
    return stream->ipc ? 0 : NNG_ENOTSUP;
}

int
nng_stream_get_addr(nng_stream *stream, const char *name, nng_sockaddr *address)
{
    (void)stream, (void)name;
    memset(address, 0, sizeof *address);
    address->s_in.sa_family = NNG_AF_INET;
    return 0;
}

int
nng_stream_set_bool(nng_stream *stream, const char *name, bool value)
{
    (void)stream, (void)name, (void)value;
    return 0;
}

/* ------------------------------------------------------------ both ends */

struct nng_stream_dialer {
    bool ipc;
};
struct nng_stream_listener {
    bool ipc, closed;
};

static bool
is_ipc(const char *url)
{
    return strncmp(url, "tcp", 3) != 0;
}

int
nng_stream_dialer_alloc(nng_stream_dialer **to, const char *url)
{
    *to = calloc(1, sizeof **to);
    if (*to == NULL)
        return NNG_ENOMEM;
    (*to)->ipc = is_ipc(url);
    return 0;
}

void
nng_stream_dialer_dial(nng_stream_dialer *dialer, nng_aio *aio)
{
    pthread_mutex_lock(&fuzz_lock);
    fuzz_aio_begin(aio, NULL);
    if (!refuses)
        aio->output = make_stream(dialer->ipc, 1000);
    fuzz_aio_finish(aio, refuses ? NNG_ECONNREFUSED : 0, 0);
    pthread_mutex_unlock(&fuzz_lock);
}

void
nng_stream_dialer_free(nng_stream_dialer *dialer)
{
    free(dialer);
}

int
nng_stream_listener_alloc(nng_stream_listener **to, const char *url)
{
    *to = calloc(1, sizeof **to);
    if (*to == NULL)
        return NNG_ENOMEM;
    (*to)->ipc = is_ipc(url);
    return 0;
}

int
nng_stream_listener_listen(nng_stream_listener *listener)
{
    (void)listener;
    return 0;
}

void
nng_stream_listener_accept(nng_stream_listener *listener, nng_aio *aio)
{
    pthread_mutex_lock(&fuzz_lock);
    fuzz_aio_begin(aio, &accepting);
    accept_ipc = listener->ipc;
    if (listener->closed)
        fuzz_aio_finish(aio, NNG_ECLOSED, 0);
    pthread_mutex_unlock(&fuzz_lock);
}

void
nng_stream_listener_close(nng_stream_listener *listener)
{
    pthread_mutex_lock(&fuzz_lock);
    listener->closed = true;
    if (accepting != NULL)
        fuzz_aio_finish(accepting, NNG_ECLOSED, 0);
    pthread_mutex_unlock(&fuzz_lock);
}

void
nng_stream_listener_free(nng_stream_listener *listener)
{
    free(listener);
}

int
nng_stream_listener_get_int(nng_stream_listener *listener, const char *name,
                            int *value)
{
    (void)listener, (void)name;
    *value = 1;
    return 0;
}

int
nng_stream_listener_set_int(nng_stream_listener *listener, const char *name,
                            int value)
{
    (void)listener, (void)name, (void)value;
    return 0;
}

/* ------------------------------------------------------------ the program */

static void
sweep(void)
{
    for (nng_stream **link = &streams; *link != NULL;) {
        nng_stream *stream = *link;
        if (!stream->freed)
            fuzz_wrong("a connection was left");
        *link = stream->next;
        free(stream->sent);
        free(stream);
    }
}

void
fuzz_nng_begin(bool (*new_step)(void))
{
    pthread_mutex_lock(&fuzz_lock);
    step = new_step;
    refuses = false;
    pthread_mutex_unlock(&fuzz_lock);
    fuzz_wait_begin();
}

void
fuzz_nng_end(void)
{
    fuzz_wait_end();
    pthread_mutex_lock(&fuzz_lock);
    sweep();
    pthread_mutex_unlock(&fuzz_lock);
}

bool
fuzz_nng_go_on(void)
{
    pthread_mutex_lock(&fuzz_lock);
    bool ran = fuzz_aio_run();
    pthread_mutex_unlock(&fuzz_lock);
    return ran || step();
}

nng_stream *
fuzz_nng_connect(bool ipc, uint64_t uid)
{
    nng_stream *stream = NULL;
    pthread_mutex_lock(&fuzz_lock);
    if (accepting != NULL && accept_ipc == ipc) {
        stream = make_stream(ipc, uid);
        accepting->output = stream;
        fuzz_aio_finish(accepting, 0, 0);
    }
    pthread_mutex_unlock(&fuzz_lock);
    return stream;
}

nng_stream *
fuzz_nng_dialed(void)
{
    pthread_mutex_lock(&fuzz_lock);
    nng_stream *stream = streams;
    if (stream != NULL && stream->freed)
        stream = NULL;
    pthread_mutex_unlock(&fuzz_lock);
    return stream;
}

void
fuzz_nng_refuse(void)
{
    pthread_mutex_lock(&fuzz_lock);
    refuses = true;
    pthread_mutex_unlock(&fuzz_lock);
}

void
fuzz_nng_offer(nng_stream *stream, const uint8_t *data, size_t at, size_t end)
{
    pthread_mutex_lock(&fuzz_lock);
    stream->data = data;
    stream->at = at;
    stream->end = end;
    try_receive(stream);
    pthread_mutex_unlock(&fuzz_lock);
}

void
fuzz_nng_fail(nng_stream *stream, int failure, int send_failure)
{
    pthread_mutex_lock(&fuzz_lock);
    stream->failure = failure;
    stream->send_failure = send_failure;
    try_receive(stream);
    try_send(stream);
    pthread_mutex_unlock(&fuzz_lock);
}

bool
fuzz_nng_gone(const nng_stream *stream)
{
    pthread_mutex_lock(&fuzz_lock);
    bool gone = stream->closed;
    pthread_mutex_unlock(&fuzz_lock);
    return gone;
}

bool
fuzz_nng_waits(const nng_stream *stream)
{
    pthread_mutex_lock(&fuzz_lock);
    bool waits = stream->receive != NULL && stream->at == stream->end;
    pthread_mutex_unlock(&fuzz_lock);
    return waits;
}

void
fuzz_nng_await(const nng_stream *stream)
{
    while (stream != NULL && !fuzz_nng_gone(stream)) {
        if (fuzz_wait_a_step())
            continue;
        pthread_mutex_lock(&fuzz_lock);
        if (!stream->closed)
            fuzz_wait_real(&fuzz_changed, &fuzz_lock);
        pthread_mutex_unlock(&fuzz_lock);
    }
}
