/* SPDX-License-Identifier: ISC */
/*
 * The work of `farblk bench` done over NBD, as a careful user of libnbd would:
 * its asynchronous calls with as many requests in flight as asked for, buffers
 * not zeroed before a read (set_pread_initialize), one connection for each job,
 * which polls for itself.  Options, clock, touching and output are those of
 * `farblk bench`.
 */
#include "tools/bench_work.h"

#include <errno.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NBD_ALIGN 4096

/* One request in flight. */
struct nbd_slot {
    struct nbd_connection *connection;
    unsigned char *data;
    uint64_t offset, begun;
    bool write;
    int error;
    struct nbd_slot *next;
};

/* What a job holds. */
struct nbd_connection {
    struct nbd_handle *nbd;
    unsigned char *buffers;
    struct nbd_slot *slots;
    /* Completed, and not yet looked at: a callback can not submit. */
    struct nbd_slot *done, **done_end;
    uint64_t pending;
};

/* bench->arg */
struct nbd_setting {
    bool strict;
};

static bool
nbd_failed(struct nbd_handle *nbd, const char *uri)
{
    tool_fail(FARBLK_UNKNOWN, "%s: %s", uri, nbd_get_error());
    nbd_close(nbd);
    return false;
}

static bool
nbd_open(const struct bench *bench, struct nbd_handle **connected)
{
    const struct nbd_setting *setting = bench->arg;
    struct nbd_handle *nbd = nbd_create();

    *connected = NULL;
    if (nbd == NULL) {
        tool_fail(FARBLK_UNKNOWN, "%s", nbd_get_error());
        return false;
    }
    if (nbd_set_pread_initialize(nbd, false) != 0
        || (!setting->strict && nbd_set_strict_mode(nbd, 0) != 0)
        || nbd_connect_uri(nbd, bench->uri) != 0)
        return nbd_failed(nbd, bench->uri);
    *connected = nbd;
    return true;
}

static void
nbd_end(struct nbd_handle *nbd)
{
    if (nbd == NULL)
        return;
    nbd_shutdown(nbd, 0);
    nbd_close(nbd);
}

static bool
nbd_prepare(struct bench_job *job)
{
    struct bench *bench = job->bench;
    const struct bench_work *work = &bench->work;
    struct nbd_connection *connection = calloc(1, sizeof *connection);
    void *memory;

    job->arg = connection;
    if (connection == NULL || !nbd_open(bench, &connection->nbd))
        return false;
    if (posix_memalign(&memory, NBD_ALIGN, work->block * work->depth) == 0)
        connection->buffers = memory;
    connection->slots = calloc(work->depth, sizeof *connection->slots);
    if (connection->buffers == NULL || connection->slots == NULL) {
        tool_fail(FARBLK_NO_MEMORY, "no memory for %llu buffers of %llu",
                  (unsigned long long)work->depth,
                  (unsigned long long)work->block);
        return false;
    }
    bench_fill(connection->buffers, work->block * work->depth, job->random);
    for (uint64_t i = 0; i < work->depth; i++) {
        connection->slots[i].connection = connection;
        connection->slots[i].data = connection->buffers + i * work->block;
    }
    connection->done_end = &connection->done;
    return true;
}

static void
nbd_release(struct bench_job *job)
{
    struct nbd_connection *connection = job->arg;

    if (connection == NULL)
        return;
    nbd_end(connection->nbd);
    free(connection->buffers);
    free(connection->slots);
    free(connection);
}

/* Called with the handle locked. */
static int
nbd_completed(void *user, int *error)
{
    struct nbd_slot *slot = user;
    struct nbd_connection *connection = slot->connection;

    slot->error = *error;
    slot->next = NULL;
    *connection->done_end = slot;
    connection->done_end = &slot->next;
    return 1;
}

static bool
nbd_begin(struct bench_job *job, struct nbd_slot *slot)
{
    struct nbd_connection *connection = job->arg;
    uint64_t length = job->bench->work.block;
    nbd_completion_callback callback = {.callback = nbd_completed,
                                        .user_data = slot};
    int64_t cookie;

    slot->begun = bench_now();
    if (!bench_next(job, slot->begun, &slot->offset, &slot->write))
        return false;
    if (slot->write)
        cookie = nbd_aio_pwrite(connection->nbd, slot->data, length,
                                slot->offset, callback, 0);
    else
        cookie = nbd_aio_pread(connection->nbd, slot->data, length,
                               slot->offset, callback, 0);
    if (cookie < 0) {
        bench_fail(job->bench, FARBLK_UNKNOWN, slot->write, slot->offset,
                   nbd_get_error());
        return false;
    }
    connection->pending++;
    return true;
}

static void
nbd_loop(struct bench_job *job)
{
    struct nbd_connection *connection = job->arg;
    uint64_t depth = job->bench->work.depth, now;

    for (uint64_t i = 0; i < depth; i++)
        if (!nbd_begin(job, &connection->slots[i]))
            break;
    while (connection->pending > 0) {
        struct nbd_slot *slot, *next;

        if (connection->done == NULL && nbd_poll(connection->nbd, -1) < 0) {
            tool_fail(FARBLK_UNKNOWN, "%s", nbd_get_error());
            bench_stop(job->bench);
            return;
        }
        slot = connection->done;
        if (slot == NULL)
            continue;
        connection->done = NULL;
        connection->done_end = &connection->done;
        now = bench_now();
        for (; slot != NULL; slot = next) {
            next = slot->next;
            connection->pending--;
            if (slot->error != 0) {
                bench_fail(job->bench, FARBLK_IO, slot->write, slot->offset,
                           strerror(slot->error));
                continue;
            }
            bench_ended(job, slot->write, slot->begun, now);
            if (!slot->write)
                bench_touch(job, slot->data, job->bench->work.block);
            nbd_begin(job, slot);
        }
    }
}

static int
nbd_run(const struct command *command, int argc, char **argv)
{
    struct nbd_setting setting = {.strict = false};
    struct bench bench = {.prepare = nbd_prepare,
                          .run = nbd_loop,
                          .release = nbd_release,
                          .arg = &setting};
    const struct args_option options[] = {
        {.name = "strict",
         .kind = ARGS_FLAG,
         .help = "let libnbd check each request's arguments",
         .value = &setting.strict},
        {.name = NULL},
    };
    struct nbd_handle *nbd;
    int64_t size;
    int result =
        bench_parse(&bench, command, argc, argv, options, &bench.uri, 1);

    if (result >= 0)
        return result;
    if (!nbd_open(&bench, &nbd))
        return TOOL_FAILED;
    size = nbd_get_size(nbd);
    nbd_end(nbd);
    if (size < 0)
        return tool_fail(FARBLK_UNKNOWN, "%s", nbd_get_error());
    result = bench_region(&bench, (uint64_t)size);
    return result == TOOL_FINE ? bench_run(&bench) : result;
}

static const struct command command_nbd = {
    .name = "nbd_load",
    .summary = "the work of farblk bench, over libnbd",
    .operands = "URI",
    .notes = "Each job has its own connection.  Writes destroy.\n",
    .example = "  nbd_load nbd+unix:///?socket=PATH --rw randread --qd 32\n",
    .run = nbd_run,
};

int
main(int argc, char **argv)
{
    tool_name = command_nbd.name;
    return command_nbd.run(&command_nbd, argc, argv);
}
