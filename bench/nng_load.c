/* SPDX-License-Identifier: ISC */
/*
 * The work of `farblk bench` done over plain nng REQ/REP sockets, against the
 * simplest server of memory that one can write with them: what the same
 * transport gives without farblk.  With --serve it is that server.
 *
 * A request is an octet (1: write), the offset and the length as big-endian
 * numbers, and a write's data; a reply is a read's data, or empty.  Each request
 * in flight has a context of its own; each job has a socket of its own.
 * Options, clock, touching and output are those of `farblk bench`.
 */
#include "bench/nng_serve.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct nng_job;

/* One request in flight. */
struct nng_slot {
    struct nng_job *owner;
    nng_ctx context;
    nng_aio *aio;
    nng_msg *reply;
    uint64_t offset, begun;
    bool write, made, receiving;
    int error;
    struct nng_slot *next;
};

/* What a job holds.  Completions come on nng's threads and are handed to the
 * job's. */
struct nng_job {
    nng_socket socket;
    bool open;
    unsigned char *data; /* for writes */
    struct nng_slot *slots;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct nng_slot *done;
    uint64_t pending;
};

static void
nng_completed(void *arg)
{
    struct nng_slot *slot = arg;
    struct nng_job *owner = slot->owner;

    slot->error = nng_aio_result(slot->aio);
    if (slot->error == 0 && !slot->receiving) {
        slot->receiving = true;
        nng_ctx_recv(slot->context, slot->aio);
        return;
    }
    if (slot->error != 0 && !slot->receiving)
        nng_msg_free(nng_aio_get_msg(slot->aio));
    else if (slot->error == 0)
        slot->reply = nng_aio_get_msg(slot->aio);
    pthread_mutex_lock(&owner->mutex);
    slot->next = owner->done;
    owner->done = slot;
    pthread_cond_signal(&owner->wake);
    pthread_mutex_unlock(&owner->mutex);
}

static bool
nng_failed(int error, const char *what)
{
    tool_fail(FARBLK_UNKNOWN, "%s: %s", what, nng_strerror(error));
    return false;
}

static bool
nng_prepare(struct bench_job *job)
{
    struct bench *bench = job->bench;
    const struct bench_work *work = &bench->work;
    struct nng_job *mine = calloc(1, sizeof *mine);
    nng_dialer dialer;
    int error;

    job->arg = mine;
    if (mine == NULL)
        return false;
    pthread_mutex_init(&mine->mutex, NULL);
    pthread_cond_init(&mine->wake, NULL);
    mine->data = malloc(work->block);
    mine->slots = calloc(work->depth, sizeof *mine->slots);
    if (mine->data == NULL || mine->slots == NULL)
        return nng_failed(NNG_ENOMEM, "prepare");
    bench_fill(mine->data, work->block, job->random);
    error = nng_req0_open(&mine->socket);
    if (error != 0)
        return nng_failed(error, "socket");
    mine->open = true;
    nng_socket_set_size(mine->socket, NNG_OPT_RECVMAXSZ, 0);
    error = nng_dialer_create(&dialer, mine->socket, bench->uri);
    if (error != 0)
        return nng_failed(error, bench->uri);
    nng_dialer_set_bool(dialer, NNG_OPT_TCP_NODELAY, true);
    error = nng_dialer_start(dialer, 0);
    if (error != 0)
        return nng_failed(error, bench->uri);
    for (uint64_t i = 0; i < work->depth; i++) {
        struct nng_slot *slot = &mine->slots[i];

        slot->owner = mine;
        error = nng_ctx_open(&slot->context, mine->socket);
        if (error == 0)
            error = nng_aio_alloc(&slot->aio, nng_completed, slot);
        if (error != 0)
            return nng_failed(error, "context");
        slot->made = true;
    }
    return true;
}

static void
nng_release(struct bench_job *job)
{
    struct nng_job *mine = job->arg;

    if (mine == NULL)
        return;
    if (mine->open)
        nng_close(mine->socket);
    for (uint64_t i = 0; mine->slots != NULL && i < job->bench->work.depth; i++)
        if (mine->slots[i].made)
            nng_aio_free(mine->slots[i].aio);
    free(mine->slots);
    free(mine->data);
    free(mine);
}

static bool
nng_begin(struct bench_job *job, struct nng_slot *slot)
{
    struct nng_job *mine = job->arg;
    uint64_t length = job->bench->work.block;
    nng_msg *request;
    int error;

    slot->begun = bench_now();
    if (!bench_next(job, slot->begun, &slot->offset, &slot->write))
        return false;
    error = nng_msg_alloc(&request, 0);
    if (error == 0) {
        unsigned char kind = slot->write;

        error = nng_msg_append(request, &kind, 1);
        if (error == 0)
            error = nng_msg_append_u64(request, slot->offset);
        if (error == 0)
            error = nng_msg_append_u64(request, length);
        if (error == 0 && slot->write)
            error = nng_msg_append(request, mine->data, length);
    }
    if (error != 0) {
        bench_fail(job->bench, FARBLK_NO_MEMORY, slot->write, slot->offset,
                   nng_strerror(error));
        return false;
    }
    slot->receiving = false;
    mine->pending++;
    nng_aio_set_msg(slot->aio, request);
    nng_ctx_send(slot->context, slot->aio);
    return true;
}

static void
nng_finish(struct bench_job *job, struct nng_slot *slot, uint64_t now)
{
    uint64_t length = slot->write ? 0 : job->bench->work.block;

    if (slot->error != 0) {
        bench_fail(job->bench, FARBLK_IO, slot->write, slot->offset,
                   nng_strerror(slot->error));
        return;
    }
    bench_ended(job, slot->write, slot->begun, now);
    if (nng_msg_len(slot->reply) != length)
        bench_fail(job->bench, FARBLK_PROTOCOL, slot->write, slot->offset,
                   "a reply of another length");
    else
        bench_touch(job, nng_msg_body(slot->reply), length);
    nng_msg_free(slot->reply);
    nng_begin(job, slot);
}

static void
nng_loop(struct bench_job *job)
{
    struct nng_job *mine = job->arg;

    for (uint64_t i = 0; i < job->bench->work.depth; i++)
        if (!nng_begin(job, &mine->slots[i]))
            break;
    while (mine->pending > 0) {
        struct nng_slot *slot, *next;
        uint64_t now;

        pthread_mutex_lock(&mine->mutex);
        while (mine->done == NULL)
            pthread_cond_wait(&mine->wake, &mine->mutex);
        slot = mine->done;
        mine->done = NULL;
        pthread_mutex_unlock(&mine->mutex);
        now = bench_now();
        for (; slot != NULL; slot = next) {
            next = slot->next;
            mine->pending--;
            nng_finish(job, slot, now);
        }
    }
}

static int
nng_run(const struct command *command, int argc, char **argv)
{
    struct bench bench = {
        .prepare = nng_prepare, .run = nng_loop, .release = nng_release};
    uint64_t size;
    bool serve = false;
    const struct args_option options[] = {
        {.name = "serve",
         .kind = ARGS_FLAG,
         .help = "be the server, until killed",
         .value = &serve},
        {.name = NULL},
    };
    int result =
        bench_parse(&bench, command, argc, argv, options, &bench.uri, 1);

    if (result >= 0)
        return result;
    size = bench.work.length != 0 ? bench.work.offset + bench.work.length
                                  : NNG_SERVE_SIZE;
    if (serve)
        return nng_serve(bench.uri, size);
    result = bench_region(&bench, size);
    return result == TOOL_FINE ? bench_run(&bench) : result;
}

static const struct command command_nng = {
    .name = "nng_load",
    .summary = "the work of farblk bench, over plain nng REQ/REP",
    .operands = "URL",
    .notes =
        "Both sides take the memory to be of 256M unless --length tells.\n",
    .example = "  nng_load --serve ipc:///tmp/nng.sock &\n"
               "  nng_load ipc:///tmp/nng.sock --rw randread --bs 4k --qd 32\n",
    .run = nng_run,
};

int
main(int argc, char **argv)
{
    tool_name = command_nng.name;
    return command_nng.run(&command_nng, argc, argv);
}
