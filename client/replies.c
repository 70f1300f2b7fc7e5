/* SPDX-License-Identifier: ISC */
/*
 * What comes in: replies, in any order, from a server that is not trusted.
 *
 * A reply finds its call by the request id and holds it while it is looked at
 * and while its payload is received, straight into the caller's buffers.  One
 * that nobody waits for (late, repeated, made up) is skipped.  One that answers
 * a call but can not be its answer ends the client: after that nothing that
 * this server says is worth anything.
 */
#include "client/rings.h"

#include "core/checked.h"
#include "core/crc32c.h"
#include "core/log.h"

static int
replies_refuse(struct error *error, const struct call *call, const char *what,
               uint64_t value, uint64_t limit)
{
    return error_set(
        error, FARBLK_PROTOCOL, "the reply to %s %llu: %s: %llu, not %llu",
        codec_method_name(call->method), (unsigned long long)call->number, what,
        (unsigned long long)value, (unsigned long long)limit);
}

/*
 * The device's shape as a reply tells it.  Generations only rise; a reply that
 * was made earlier and comes later does not turn the shape back.  A server
 * that tells none (0) is believed about the size.
 */
static int
replies_shape(struct client *client, const struct call *call,
              uint64_t size_sectors, uint64_t generation, struct error *error)
{
    uint64_t size;
    if (!checked_mul(size_sectors, client->sector_size, &size)
        || size > INT64_MAX)
        return replies_refuse(error, call, "the device's sectors", size_sectors,
                              INT64_MAX / client->sector_size);
    struct batch batch = {NULL, NULL, NULL, NULL};
    pthread_mutex_lock(&client->mutex);
    if (generation == 0)
        generation = client->generation + (size != client->size);
    else
        generation += client->generation_base;
    bool changed = generation > client->generation;
    if (changed) {
        client->generation = generation;
        client->size = size;
        watch_changed(client, &batch);
    }
    pthread_mutex_unlock(&client->mutex);
    if (changed)
        device_reshape(client->device, size, generation);
    calls_run(client, &batch);
    return 0;
}

bool
replies_reshape(struct client *client, uint64_t size_sectors,
                uint64_t generation)
{
    struct error unused;
    const struct call none = {.method = WIRE_GET_INFO};
    return replies_shape(client, &none, size_sectors, generation, &unused) == 0;
}

static int
replies_info(struct client *client, const struct call *call,
             const struct codec_info *info, struct error *error)
{
    if (info->sector_size != client->sector_size)
        return replies_refuse(error, call, "sector size", info->sector_size,
                              client->sector_size);
    int status = replies_shape(client, call, info->size_sectors,
                               info->generation, error);
    if (status != 0)
        return status;
    /* What is known now, be it of this reply or of a later one. */
    device_reshape(client->device, client->size, client->generation);
    return 0;
}

/* The upper bound holds when the device was the same all the while. */
static int
replies_seek(const struct client *client, struct call *call,
             const struct codec_reply *reply, struct error *error)
{
    const uint32_t sector_size = client->sector_size;
    uint64_t found = reply->result.seek.sector;
    uint64_t start = call->io->offset / sector_size;
    uint64_t limit = INT64_MAX / sector_size;
    if (reply->generation != 0
        && reply->generation + client->generation_base == call->generation)
        limit = reply->size_sectors;
    if (found < start)
        return replies_refuse(error, call, "a sector before the start", found,
                              start);
    if (found > limit)
        return replies_refuse(error, call, "a sector past the end", found,
                              limit);
    call->value = found * sector_size;
    return 0;
}

static int
replies_extents(const struct client *client, struct call *call,
                const struct codec_reply *reply, struct error *error)
{
    const struct io *io = call->io;
    uint64_t at = io->offset / client->sector_size;
    uint64_t left = io->length / client->sector_size;
    size_t count = reply->result.extents.count;
    if (count > io->extents_max || (count == 0 && left > 0))
        return replies_refuse(error, call, "extents", count, io->extents_max);
    for (size_t i = 0; i < count; i++) {
        struct farblk_extent *extent = &io->extents[i];
        if (extent->count == 0 || extent->count > left || extent->start != at)
            return replies_refuse(error, call, "an extent's sectors",
                                  extent->count, left);
        at += extent->count;
        left -= extent->count;
    }
    call->value = count;
    return 0;
}

/* A reply with status 0 to an io. */
static int
replies_result(struct client *client, struct call *call,
               const struct codec_reply *reply, struct error *error)
{
    switch (call->method) {
    case WIRE_SEEK_MAPPED:
    case WIRE_SEEK_UNMAPPED:
        return replies_seek(client, call, reply, error);
    case WIRE_EXTENTS:
        return replies_extents(client, call, reply, error);
    case WIRE_GET_INFO:
        return replies_info(client, call, &reply->result.info.info, error);
    case WIRE_RESIZE:
        if (reply->generation != 0)
            return 0; /* the header has told it */
        return replies_shape(client, call,
                             call->io->length / client->sector_size, 0, error);
    default:
        return 0;
    }
}

static void
replies_failure(struct call *call, const struct codec_reply *reply)
{
    const struct io *io = call->io;
    error_set(&call->error, error_known_status(reply->status), "%s",
              reply->text[0] != '\0' ? reply->text
                                     : "the server gives no reason");
    if (io != NULL && calls_changes(io->op))
        call->error.effect = (enum farblk_effect)reply->effect;
    call->failed = true;
}

/* Look at a reply; the call is held.  PROTOCOL: it can not be. */
static int
replies_take(struct client *client, struct call *call,
             const struct link_head *head, struct codec_reply *reply,
             struct error *error)
{
    const struct io *io = call->io;
    bool orphan = io == NULL && !call->own;
    /* An orphan's result has no place any more: its header alone counts. */
    uint32_t method = orphan ? 0 : call->method;
    reply->result.extents.extents = NULL;
    reply->result.extents.capacity = 0;
    if (method == WIRE_EXTENTS) {
        reply->result.extents.extents = io->extents;
        reply->result.extents.capacity =
            min_u64(io->extents_max, client->limits.max_extents);
        reply->result.extents.first_sector = io->offset / client->sector_size;
    } else if (method == WIRE_LIST_DEVICES) {
        reply->result.list.devices = client->devices;
        reply->result.list.capacity = CODEC_DEVICES_MAX;
    }
    int status = codec_decode_reply(head->header, head->header_length, method,
                                    reply, error);
    if (status != 0)
        return status;
    if (reply->number != call->number)
        return replies_refuse(error, call, "its number", reply->number,
                              call->number);
    if (reply->generation != 0 && client->sector_size != 0
        && !call->handshake) {
        status = replies_shape(client, call, reply->size_sectors,
                               reply->generation, error);
        if (status != 0)
            return status;
    }
    uint64_t expected =
        reply->status == 0 && call->method == WIRE_READ ? call->octets : 0;
    if (head->payload_length != expected)
        return replies_refuse(error, call, "octets of data",
                              head->payload_length, expected);
    if (reply->status != 0) {
        replies_failure(call, reply);
        return 0;
    }
    return io != NULL ? replies_result(client, call, reply, error) : 0;
}

/* Under the mutex: what is acknowledged, and what is stable. */
static void
replies_note(struct client *client, const struct call *call)
{
    const struct io *io = call->io;
    if (io == NULL || call->failed)
        return;
    if (calls_changes(io->op))
        client->acked += (io->flags & FARBLK_FUA) == 0;
    else if (io->op == FARBLK_OP_FLUSH)
        client->stable = max_u64(client->stable, call->mark);
}

/* The call has its outcome. */
static void
replies_finish(struct client *client, struct call *call,
               const struct codec_reply *reply)
{
    struct batch batch = {NULL, NULL, NULL, NULL};
    pthread_mutex_lock(&client->mutex);
    client->heard_ms = timer_now();
    client->progress |= call->io != NULL;
    replies_note(client, call);
    call->receiving = false;
    call->replied = true;
    if (call->wait != NULL) {
        call->wait->reply = *reply;
        call->wait->done = true;
        call->wait = NULL;
        pthread_cond_broadcast(&client->changed);
    }
    struct cancel_ring ringed = {.ring = NULL};
    if (call->own && call->method == WIRE_CANCEL)
        ringed = cancel_replied(call, reply, &batch);
    bool watched = call->own && call->method == WIRE_WATCH_INFO;
    calls_release(call, &batch); /* the call may be gone */
    if (watched)
        watch_replied(client, reply, &batch);
    calls_pump(client, &batch);
    pthread_mutex_unlock(&client->mutex);
    if (ringed.ring != NULL) {
        rings_give_up(ringed.ring, ringed.tag, ringed.number,
                      FARBLK_EFFECT_NONE);
        ring_put(ringed.ring);
    }
    calls_run(client, &batch);
}

/* What a Ping that fails means: the session is no more. */
static bool
replies_ends_session(const struct call *call, const struct codec_reply *reply)
{
    return call->own && !call->handshake && call->method == WIRE_PING
           && (reply->status == FARBLK_DISCONNECTED
               || reply->status == FARBLK_DENIED
               || reply->status == FARBLK_NOT_FOUND);
}

/* The session or its handle has ended without our doing, and the request was not
 * executed: the call goes on to be unanswered, and the client looks for another
 * session.  The call is not held any more then. */
static bool
replies_refused(struct client *client, struct call *call,
                const struct codec_reply *reply)
{
    struct batch batch = {NULL, NULL, NULL, NULL};
    if (call->io == NULL || reply->status != FARBLK_DISCONNECTED
        || reply->effect != FARBLK_EFFECT_NONE)
        return false;
    pthread_mutex_lock(&client->mutex);
    bool refused = client->resumable && !client->ending;
    if (refused) {
        call->receiving = call->failed = false;
        call->refused = client->refused = true;
        calls_release(call, &batch);
    }
    pthread_mutex_unlock(&client->mutex);
    calls_run(client, &batch);
    if (refused)
        resume_broken(client, FARBLK_CONNECTION_LOST,
                      "the session at %s has ended: %s", client->target,
                      reply->text);
    return refused;
}

bool
replies_head(void *arg, const struct link_head *head, struct link_sink *sink)
{
    struct client *client = arg;
    struct batch batch = {NULL, NULL, NULL, NULL};
    struct codec_reply reply;
    struct error error;
    sink->iov = NULL;
    sink->iovcnt = 0;
    sink->frame = NULL;

    pthread_mutex_lock(&client->mutex);
    client->heard_ms = timer_now();
    bool lost = client->state == CLIENT_LOST;
    struct call *call = lost ? NULL : ids_find(client, head->id);
    if (call != NULL && call->replied)
        call = NULL;
    if (call != NULL) {
        call->holds++;
        call->receiving = true;
    }
    pthread_mutex_unlock(&client->mutex);
    if (lost)
        return false;
    if (call == NULL) {
        log_debug("%s: a reply to 0x%08x, which nobody waits for, is skipped",
                  client->target, (unsigned)head->id);
        return true;
    }

    if (replies_take(client, call, head, &reply, &error) != 0) {
        session_lost(client, FARBLK_PROTOCOL,
                     "%s broke the protocol (PROTOCOL): %s", client->target,
                     error.text);
        pthread_mutex_lock(&client->mutex);
        call->receiving = call->failed = false;
        calls_release(call, &batch);
        pthread_mutex_unlock(&client->mutex);
        calls_run(client, &batch);
        return false;
    }
    if (replies_refused(client, call, &reply))
        return true;
    if (replies_ends_session(call, &reply))
        resume_broken(client, FARBLK_CONNECTION_LOST,
                      "the session at %s has ended: %s", client->target,
                      reply.text);
    if (head->payload_length > 0 && call->io != NULL) {
        call->checksum = reply.checksum;
        atomic_store_explicit(&client->receiving, true, memory_order_relaxed);
        sink->iov = call->iov;
        sink->iovcnt = call->iov_count;
        sink->frame = call;
        return true;
    }
    replies_finish(client, call, &reply);
    return true;
}

/* The data of a read is here, in the caller's buffers: is it what was sent?  If
 * not, the read fails, and what is in the buffers is nobody's data.  Nothing is
 * asked for again: who damages once may do so unseen the next time. */
static void
replies_verify(const struct client *client, struct call *call)
{
    const struct io *io = call->io;
    uint32_t found = crc32c_iov(call->iov, call->iov_count);
    if (found == call->checksum)
        return;
    error_set(&call->error, FARBLK_CORRUPT,
              "Read: the data of %llu sectors from %llu on was damaged on its "
              "way from %s: its CRC-32C is 0x%08x, and was 0x%08x",
              (unsigned long long)(io->length / client->sector_size),
              (unsigned long long)(io->offset / client->sector_size),
              client->target, found, call->checksum);
    call->failed = true;
    log_warning("%s", call->error.text);
}

void
replies_frame(void *arg, void *frame)
{
    struct client *client = arg;
    struct call *call = frame;
    if (call == NULL)
        return;
    atomic_store_explicit(&client->receiving, false, memory_order_relaxed);
    if (client->checksums)
        replies_verify(client, call);
    replies_finish(client, call, NULL);
}

void
replies_drop(void *arg, void *frame)
{
    struct client *client = arg;
    struct call *call = frame;
    struct batch batch = {NULL, NULL, NULL, NULL};
    if (call == NULL)
        return;
    atomic_store_explicit(&client->receiving, false, memory_order_relaxed);
    pthread_mutex_lock(&client->mutex);
    call->receiving = false;
    calls_release(call, &batch); /* ends now, or with closed() */
    pthread_mutex_unlock(&client->mutex);
    calls_run(client, &batch);
}
