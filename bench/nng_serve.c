/* SPDX-License-Identifier: ISC */
/*
 * A server of memory over one REP socket: contexts, each of which receives,
 * copies and replies in nng's callbacks, as nng's manual shows.
 */
#include "bench/nng_serve.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* As many as any measurement has in flight. */
#define NNG_SERVE_CONTEXTS 128
#define NNG_SERVE_HEADER 17

struct nng_served {
    nng_ctx context;
    nng_aio *aio;
    bool sending;
};

static unsigned char *nng_serve_memory;
static uint64_t nng_serve_size;

/* Turn the request into its reply; false when it makes no sense. */
static bool
nng_serve_one(nng_msg *message)
{
    unsigned char *body = nng_msg_body(message);
    uint64_t offset, length, end;
    bool write;

    if (nng_msg_len(message) < NNG_SERVE_HEADER)
        return false;
    write = body[0] != 0;
    nng_msg_trim(message, 1);
    nng_msg_trim_u64(message, &offset);
    nng_msg_trim_u64(message, &length);
    if (__builtin_add_overflow(offset, length, &end) || end > nng_serve_size
        || (write && nng_msg_len(message) != length))
        return false;
    if (write) {
        memcpy(nng_serve_memory + offset, nng_msg_body(message), length);
        nng_msg_clear(message);
        return true;
    }
    nng_msg_clear(message);
    return nng_msg_append(message, nng_serve_memory + offset, length) == 0;
}

static void
nng_served_step(void *arg)
{
    struct nng_served *served = arg;
    nng_msg *message;

    if (nng_aio_result(served->aio) != 0) {
        if (served->sending)
            nng_msg_free(nng_aio_get_msg(served->aio));
    } else if (!served->sending) {
        message = nng_aio_get_msg(served->aio);
        if (nng_serve_one(message)) {
            served->sending = true;
            nng_aio_set_msg(served->aio, message);
            nng_ctx_send(served->context, served->aio);
            return;
        }
        nng_msg_free(message);
    }
    served->sending = false;
    nng_ctx_recv(served->context, served->aio);
}

int
nng_serve(const char *url, uint64_t size)
{
    static struct nng_served served[NNG_SERVE_CONTEXTS];
    nng_socket socket;
    nng_listener listener;
    int error;

    nng_serve_size = size;
    nng_serve_memory = malloc(size);
    if (nng_serve_memory == NULL)
        return tool_fail(FARBLK_NO_MEMORY, "no memory of %llu octets",
                         (unsigned long long)size);
    bench_fill(nng_serve_memory, size, 1);
    error = nng_rep0_open(&socket);
    if (error == 0)
        error = nng_socket_set_size(socket, NNG_OPT_RECVMAXSZ, 0);
    if (error == 0)
        error = nng_listener_create(&listener, socket, url);
    if (error == 0) {
        nng_listener_set_bool(listener, NNG_OPT_TCP_NODELAY, true);
        error = nng_listener_start(listener, 0);
    }
    for (size_t i = 0; i < NNG_SERVE_CONTEXTS && error == 0; i++) {
        error = nng_ctx_open(&served[i].context, socket);
        if (error == 0)
            error = nng_aio_alloc(&served[i].aio, nng_served_step, &served[i]);
        if (error == 0)
            nng_ctx_recv(served[i].context, served[i].aio);
    }
    if (error != 0)
        return tool_fail(FARBLK_UNKNOWN, "%s: %s", url, nng_strerror(error));
    puts("ready");
    fflush(stdout);
    for (;;)
        pause();
}
