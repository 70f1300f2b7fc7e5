/* SPDX-License-Identifier: ISC */
/*
 * What a session begins with: dialling, Hello, Open; and the same once more for
 * one that the server does not know any more.
 *
 * A session that begins anew (reopen=1) must not hide that anything was lost.  It
 * is for the same content only, by the 16 octets that the server tells of it; and
 * when another instance of the server answers, only if nothing is outstanding
 * that was acknowledged and not flushed.  What is not so ends the handle.
 */
#include "client/client.h"

#include "core/checked.h"
#include "core/log.h"
#include "core/secret.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* ------------------------------------------------------------ asking */

/* Say Hello.  0: the reply has a session that can be used. */
static int
hello_ask(struct client *client, int64_t until_ms, struct codec_reply *reply,
          struct error *error)
{
    struct codec_request request;
    request.method = WIRE_HELLO;
    request.handle = 0;
    request.has_secret = false;
    request.args.hello.version = WIRE_VERSION;
    request.args.hello.features.count = 0;
    codec_add_feature(&request.args.hello.features, WIRE_FEATURE_FENCE);
    if (client->checksums)
        codec_add_feature(&request.args.hello.features, WIRE_FEATURE_CRC32C);
    request.args.hello.has_nonce = true;
    if (getrandom(request.args.hello.nonce, WIRE_NONCE_SIZE, 0)
        != WIRE_NONCE_SIZE)
        return error_set_errno(error, errno, "random octets for a session");
    snprintf(request.args.hello.client, sizeof request.args.hello.client,
             "farblk %s pid %ld", farblk_version(), (long)getpid());
    int status = session_call(client, &request, true, until_ms, reply, error);
    if (status != 0)
        return status;
    if (reply->status != 0)
        return session_error(reply, error, "%s refuses a session",
                             client->target);
    const struct codec_limits *limits = &reply->result.hello.limits;
    if (reply->result.hello.version != WIRE_VERSION)
        return error_set(error, FARBLK_PROTOCOL,
                         "%s speaks version %u of the protocol, this library "
                         "%u",
                         client->target, reply->result.hello.version,
                         WIRE_VERSION);
    if (client->checksums
        && !codec_has_feature(&reply->result.hello.features,
                              WIRE_FEATURE_CRC32C))
        return error_set(error, FARBLK_UNIMPLEMENTED,
                         "checksum=crc32c: %s knows no checksums",
                         client->target);
    if (limits->max_header < CLIENT_HEADER_MAX)
        return error_set(error, FARBLK_PROTOCOL,
                         "%s takes headers of %u octets only, not %u",
                         client->target, limits->max_header, CLIENT_HEADER_MAX);
    return 0;
}

static uint32_t
hello_window(const struct codec_limits *limits)
{
    uint32_t requests = limits->max_requests;
    uint32_t window = requests > CLIENT_RESERVE ? requests - CLIENT_RESERVE : 1;
    return window > CLIENT_WINDOW_MAX ? CLIENT_WINDOW_MAX : window;
}

/* Under the mutex: this is the session from now on. */
static void
hello_adopt(struct client *client, const struct codec_reply *reply,
            uint32_t window)
{
    int64_t lease = reply->result.hello.lease_ms;
    client->limits = reply->result.hello.limits;
    client->window = window;
    client->fences =
        codec_has_feature(&reply->result.hello.features, WIRE_FEATURE_FENCE);
    client->session = reply->result.hello.session;
    client->handle = 0;
    memcpy(client->secret, reply->result.hello.secret, WIRE_SECRET_SIZE);
    memcpy(client->instance, reply->result.hello.instance, WIRE_INSTANCE_SIZE);
    client->lease_ms = lease < CLIENT_LEASE_MIN   ? CLIENT_LEASE_MIN
                       : lease > CLIENT_LEASE_MAX ? CLIENT_LEASE_MAX
                                                  : lease;
}

static int
hello_open(struct client *client, int64_t until_ms, struct codec_reply *reply,
           struct error *error)
{
    struct codec_request request;
    request.method = WIRE_OPEN;
    request.handle = 0;
    request.has_secret = false;
    memcpy(request.args.open.name, client->name, sizeof client->name);
    request.args.open.read_only = client->read_only;
    request.args.open.token_length = client->token_length;
    memcpy(request.args.open.token, client->token, WIRE_TOKEN_MAX);
    int status = session_call(client, &request, true, until_ms, reply, error);
    secret_wipe(request.args.open.token, WIRE_TOKEN_MAX);
    if (status != 0)
        return status;
    if (reply->status != 0)
        return session_error(reply, error, "%s at %s", client->name,
                             client->target);
    if (reply->result.open.info.generation == 0)
        reply->result.open.info.generation = 1;
    return 0;
}

/* ------------------------------------------------------------ the first time */

int
session_begin(struct client *client, int64_t until_ms, struct error *error)
{
    int64_t left = until_ms - timer_now();
    const struct link_limits limits = {
        .max_payload = WIRE_PAYLOAD_CEILING,
        .greeting_ms = client->connect_ms,
        .frame_ms = CLIENT_FRAME_MS,
        .keepalive = true,
    };
    struct codec_reply reply;
    struct link *link;
    int status = ids_init(client, 4);
    if (status != 0)
        return error_set(error, status, "no memory for a session");
    client->limits.max_requests = 1; /* until Hello has told it */
    status = link_dial(client->url, client->tls, (int32_t)(left > 0 ? left : 1),
                       &limits, &link, error);
    if (status != 0)
        return status;
    client->link = link;
    client->heard_ms = client->sent_ms = timer_now();
    client->state = CLIENT_UP;
    client->link_running = true;
    client_enter(client); /* the link's */
    link_start(link, &session_events, client);
    status = hello_ask(client, until_ms, &reply, error);
    if (status != 0)
        return status;
    uint32_t window = hello_window(&reply.result.hello.limits);
    pthread_mutex_lock(&client->mutex);
    status = ids_init(client, window + CLIENT_RESERVE);
    if (status == 0)
        hello_adopt(client, &reply, window);
    pthread_mutex_unlock(&client->mutex);
    if (status != 0)
        return error_set(error, status, "no memory for %u requests", window);
    return 0;
}

int
session_open(struct client *client, int64_t until_ms, struct codec_info *info,
             struct error *error)
{
    struct codec_reply reply;
    int status = hello_open(client, until_ms, &reply, error);
    if (status != 0)
        return status;
    *info = reply.result.open.info; /* checked by the codec */
    pthread_mutex_lock(&client->mutex);
    client->handle = reply.result.open.handle;
    memcpy(client->content, reply.result.open.content, WIRE_INSTANCE_SIZE);
    client->sector_size = info->sector_size;
    client->size = info->size_sectors * info->sector_size;
    client->generation = info->generation;
    pthread_mutex_unlock(&client->mutex);
    return 0;
}

/* ------------------------------------------------------------ once more */

/* A handshake came to nothing: with the link it is tried again, what the server
 * says for good is the end. */
static void
hello_failed(struct client *client, const struct error *error, bool answered)
{
    bool again = !answered || error->status == FARBLK_BUSY
                 || error->status == FARBLK_NO_MEMORY
                 || error->status == FARBLK_NO_SPACE;
    if (again)
        resume_broken(client, FARBLK_CONNECTION_LOST, "%s", error->text);
    else
        session_lost(client, FARBLK_CONNECTION_LOST, "%s", error->text);
}

/* Whether a session may begin anew at this server; else the client is lost. */
static bool
hello_may_begin(struct client *client, const struct codec_reply *reply,
                const char *why)
{
    pthread_mutex_lock(&client->mutex);
    bool same = memcmp(client->instance, reply->result.hello.instance,
                       WIRE_INSTANCE_SIZE)
                == 0;
    bool ending = client->ending;
    uint64_t unflushed = client->acked - client->stable;
    client->session_gone = true;
    pthread_mutex_unlock(&client->mutex);
    if (!same)
        log_warning("%s: another instance of the server answers: it was "
                    "started anew",
                    client->target);
    if (!same && unflushed > 0) {
        session_lost(client, FARBLK_CONNECTION_LOST,
                     "%s was started anew; %llu changes were acknowledged and "
                     "not flushed since, and may be lost: open the device anew",
                     client->target, (unsigned long long)unflushed);
        return false;
    }
    if (client->reopen && !ending)
        return true;
    session_lost(client, FARBLK_CONNECTION_LOST,
                 same ? "the session at %s has ended: %s"
                      : "the session at %s has ended, the server was started "
                        "anew: %s",
                 client->target, why);
    return false;
}

bool
session_begin_again(struct client *client, int64_t until_ms, const char *why)
{
    struct batch batch = {NULL, NULL, NULL, NULL};
    struct codec_reply reply;
    struct error error;
    reply.status = 0;
    if (hello_ask(client, until_ms, &reply, &error) != 0) {
        pthread_mutex_lock(&client->mutex);
        bool answered =
            client->state == CLIENT_BACK && error.status != FARBLK_TIMED_OUT;
        pthread_mutex_unlock(&client->mutex);
        hello_failed(client, &error, answered);
        return false;
    }
    if (!hello_may_begin(client, &reply, why))
        return false;
    pthread_mutex_lock(&client->mutex);
    bool back = client->state == CLIENT_BACK;
    if (back) {
        uint32_t room = (uint32_t)(client->table_size / 4) - CLIENT_RESERVE;
        uint32_t window = hello_window(&reply.result.hello.limits);
        if (memcmp(client->instance, reply.result.hello.instance,
                   WIRE_INSTANCE_SIZE)
            != 0)
            client->new_instance = true;
        hello_adopt(client, &reply, window < room ? window : room);
        client->session_gone = false;
        client->next_number = 1;
        calls_renew(client, &batch);
    }
    pthread_mutex_unlock(&client->mutex);
    calls_run(client, &batch);
    return back;
}

/* Whether what was opened now is what the handle was opened for. */
static int
hello_compare(const struct client *client, const struct codec_reply *reply,
              struct error *error)
{
    const struct codec_info *info = &reply->result.open.info;
    uint64_t most =
        min_u64(client->limits.max_payload, client->limits.max_octets);
    if (info->max_transfer != 0)
        most = min_u64(most, info->max_transfer);
    if (memcmp(client->content, reply->result.open.content, WIRE_INSTANCE_SIZE)
        != 0)
        return error_set(error, FARBLK_CONNECTION_LOST,
                         "%s at %s has another content than before: open it "
                         "anew",
                         client->name, client->target);
    if (info->sector_size != client->sector_size)
        return error_set(error, FARBLK_CONNECTION_LOST,
                         "%s at %s has sectors of %u octets now, not %u",
                         client->name, client->target, info->sector_size,
                         client->sector_size);
    if (info->size_sectors * info->sector_size < client->size)
        return error_set(
            error, FARBLK_CONNECTION_LOST,
            "%s at %s has %llu sectors now, less than %llu", client->name,
            client->target, (unsigned long long)info->size_sectors,
            (unsigned long long)client->size / client->sector_size);
    if (client->was_writable && !info->read_write)
        return error_set(error, FARBLK_CONNECTION_LOST,
                         "%s at %s can not be written any more", client->name,
                         client->target);
    if ((info->features & client->features) != client->features
        || most < client->transfer)
        return error_set(error, FARBLK_CONNECTION_LOST,
                         "%s at %s can do less than before: open it anew",
                         client->name, client->target);
    return 0;
}

bool
session_open_again(struct client *client, int64_t until_ms)
{
    struct batch batch = {NULL, NULL, NULL, NULL};
    struct codec_reply reply;
    struct error error;
    if (hello_open(client, until_ms, &reply, &error) != 0) {
        pthread_mutex_lock(&client->mutex);
        bool answered =
            client->state == CLIENT_BACK && error.status != FARBLK_TIMED_OUT;
        pthread_mutex_unlock(&client->mutex);
        hello_failed(client, &error, answered);
        return false;
    }
    if (hello_compare(client, &reply, &error) != 0) {
        session_lost(client, error.status, "%s", error.text);
        return false;
    }
    const struct codec_info *info = &reply.result.open.info;
    pthread_mutex_lock(&client->mutex);
    bool back = client->state == CLIENT_BACK;
    if (back) {
        client->handle = reply.result.open.handle;
        /* Another instance counts from the beginning; the program's count goes
         * on. */
        if (client->new_instance)
            client->generation_base = client->generation;
        client->new_instance = false;
        client->size = info->size_sectors * info->sector_size;
        client->generation = client->generation_base + info->generation;
        watch_changed(client, &batch);
    }
    pthread_mutex_unlock(&client->mutex);
    if (back)
        device_reshape(client->device, client->size, client->generation);
    calls_run(client, &batch);
    return back;
}
