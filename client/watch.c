/* SPDX-License-Identifier: ISC */
/*
 * Waiting for another generation of the device.
 *
 * However many watch, one WatchInfo is under way: a long poll for the
 * generation that is known, shorter than the lease, and repeated while
 * somebody watches.  Any other reply may tell the new generation as well.  All
 * functions are called under the mutex.
 */
#include "client/client.h"

#include "core/device.h"

/* A server that answers "not yet" sooner than this is asked again only when
 * the session's timer comes by. */
#define WATCH_HASTE_MS 50

void
watch_issue(struct client *client, struct batch *batch)
{
    struct codec_request request;
    if (client->watchers == NULL || client->watch_flying
        || client->state != CLIENT_UP
        || client->total >= client->limits.max_requests)
        return;
    request.method = WIRE_WATCH_INFO;
    request.handle = client->handle;
    request.args.watch.generation =
        client->generation - client->generation_base;
    request.has_secret = false;
    request.args.watch.timeout_ms = (uint32_t)(client->lease_ms / 3);
    if (send_own(client, &request, false, NULL, batch) != NULL) {
        client->watch_flying = true;
        client->watch_ms = timer_now();
    }
}

void
watch_submit(struct client *client, struct io *io, struct batch *batch)
{
    if (io->length != client->generation) {
        calls_end(batch, io, 0, FARBLK_EFFECT_NONE, "", client->generation);
        return;
    }
    io->scratch[CLIENT_IO_STATE] = CLIENT_IO_WATCHING;
    calls_link(&client->watchers, &client->watchers_last, io);
    watch_shut(client, batch); /* it may have come just before this */
    watch_issue(client, batch);
}

void
watch_changed(struct client *client, struct batch *batch)
{
    struct io *io = client->watchers;
    while (io != NULL) {
        struct io *next = io->link;
        if (io->length != client->generation) {
            calls_unlink(&client->watchers, &client->watchers_last, io);
            calls_end(batch, io, 0, FARBLK_EFFECT_NONE, "", client->generation);
        }
        io = next;
    }
}

void
watch_replied(struct client *client, const struct codec_reply *reply,
              struct batch *batch)
{
    int status = error_known_status(reply->status);
    if (status != 0 && status != FARBLK_TIMED_OUT) {
        error_set(&client->watch_error, status, "%s", reply->text);
        while (client->watchers != NULL) {
            struct io *io = client->watchers;
            calls_unlink(&client->watchers, &client->watchers_last, io);
            calls_end(batch, io, status, FARBLK_EFFECT_NONE,
                      client->watch_error.text, 0);
        }
        return;
    }
    if (timer_now() - client->watch_ms >= WATCH_HASTE_MS)
        watch_issue(client, batch);
}

void
watch_shut(struct client *client, struct batch *batch)
{
    struct io *io = client->watchers;
    while (io != NULL) {
        struct io *next = io->link;
        if (handle_disconnected(io->request->handle)) {
            calls_unlink(&client->watchers, &client->watchers_last, io);
            calls_end(batch, io, FARBLK_DISCONNECTED, FARBLK_EFFECT_NONE,
                      "the handle was disconnected", 0);
        }
        io = next;
    }
}
