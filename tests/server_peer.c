/* SPDX-License-Identifier: ISC */
/*
 * The peer: what its link delivers goes into a list, from which the test takes
 * it.
 */
#include "tests/server_peer.h"

#include <stdio.h>
#include <sys/random.h>
#include <time.h>

/* One message on its way out, with its own copy of everything. */
struct peer_message {
    struct link_message message;
    struct iovec iov;
    uint8_t header[WIRE_HEADER_MAX];
    uint8_t payload[];
};

static _Thread_local char last_text[FARBLK_TEXT_MAX];

const char *
peer_text(void)
{
    return last_text;
}

/* ------------------------------------------------------------ receiving */

struct peer_frame {
    struct peer_reply *reply;
    struct iovec iov;
};

static bool
peer_head(void *arg, const struct link_head *head, struct link_sink *sink)
{
    struct peer_reply *reply = calloc(1, sizeof *reply);
    struct peer_frame *frame = calloc(1, sizeof *frame);
    (void)arg;
    reply->id = head->id;
    reply->header = malloc(head->header_length + 1);
    memcpy(reply->header, head->header, head->header_length);
    reply->header_length = head->header_length;
    reply->payload = malloc(head->payload_length + 1);
    reply->payload_length = head->payload_length;
    frame->reply = reply;
    frame->iov = (struct iovec){reply->payload, head->payload_length};
    sink->iov = &frame->iov;
    sink->iovcnt = head->payload_length > 0;
    sink->frame = frame;
    return true;
}

static void
peer_free_reply(struct peer_reply *reply)
{
    free(reply->header);
    free(reply->payload);
    free(reply);
}

static void
peer_frame(void *arg, void *at)
{
    struct peer *peer = arg;
    struct peer_frame *frame = at;
    pthread_mutex_lock(&peer->mutex);
    frame->reply->next = peer->replies;
    peer->replies = frame->reply;
    pthread_cond_broadcast(&peer->changed);
    pthread_mutex_unlock(&peer->mutex);
    free(frame);
}

static void
peer_drop(void *arg, void *at)
{
    struct peer_frame *frame = at;
    (void)arg;
    peer_free_reply(frame->reply);
    free(frame);
}

static void
peer_closed(void *arg, int status, const char *reason)
{
    struct peer *peer = arg;
    (void)status, (void)reason;
    pthread_mutex_lock(&peer->mutex);
    peer->closed = true;
    pthread_cond_broadcast(&peer->changed);
    pthread_mutex_unlock(&peer->mutex);
}

static const struct link_events peer_events = {
    .head = peer_head,
    .frame = peer_frame,
    .drop = peer_drop,
    .closed = peer_closed,
};

/* Under the mutex; fails the test when nothing comes for too long. */
static void
peer_pause(struct peer *peer, const char *what)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += SUPPORT_PATIENCE_MS / 1000;
    if (pthread_cond_timedwait(&peer->changed, &peer->mutex, &until) != 0) {
        pthread_mutex_unlock(&peer->mutex);
        fail_msg("%s did not come", what);
    }
}

/* ------------------------------------------------------------ life */

void
peer_connect(struct peer *peer, const char *url)
{
    struct link_limits limits = {.max_payload = WIRE_PAYLOAD_CEILING};
    struct error error;
    memset(peer, 0, sizeof *peer);
    pthread_mutex_init(&peer->mutex, NULL);
    pthread_cond_init(&peer->changed, NULL);
    peer->next_id = 1;
    peer->number = 1;
    if (link_dial(url, NULL, SUPPORT_PATIENCE_MS, &limits, &peer->link, &error)
        != 0)
        fail_msg("link_dial: %s", error.text);
    link_start(peer->link, &peer_events, peer);
}

void
peer_hello(struct peer *peer)
{
    struct codec_request request = {.method = WIRE_HELLO};
    struct codec_reply reply;
    request.args.hello.version = WIRE_VERSION;
    request.args.hello.has_nonce = true;
    assert_int_equal(getrandom(request.args.hello.nonce, WIRE_NONCE_SIZE, 0),
                     WIRE_NONCE_SIZE);
    snprintf(request.args.hello.client, sizeof request.args.hello.client,
             "a test");
    assert_int_equal(peer_ask(peer, &request, &reply), 0);
    peer->session = reply.result.hello.session;
    memcpy(peer->secret, reply.result.hello.secret, WIRE_SECRET_SIZE);
    peer->limits = reply.result.hello.limits;
}

void
peer_begin(struct peer *peer, const char *url)
{
    peer_connect(peer, url);
    peer_hello(peer);
}

void
peer_end(struct peer *peer)
{
    link_close(peer->link, false);
    peer_wait_closed(peer);
    link_put(peer->link);
    while (peer->replies != NULL) {
        struct peer_reply *reply = peer->replies;
        peer->replies = reply->next;
        peer_free_reply(reply);
    }
    pthread_mutex_destroy(&peer->mutex);
    pthread_cond_destroy(&peer->changed);
}

/* ------------------------------------------------------------ asking */

struct codec_request
peer_request(struct peer *peer, uint32_t method, uint64_t handle)
{
    return (struct codec_request){
        .method = method,
        .session = peer->session,
        .number = peer->number++,
        .lowest = peer->lowest,
        .handle = handle,
    };
}

static void
peer_sent(struct link_message *message, int status)
{
    (void)status;
    free(message); /* the first member of struct peer_message */
}

uint32_t
peer_send_raw(struct peer *peer, const void *header, size_t size,
              const void *payload, size_t length)
{
    struct peer_message *m = malloc(sizeof *m + length);
    uint32_t id = 0x80000000u | peer->next_id++;
    assert_non_null(m);
    memset(&m->message, 0, sizeof m->message);
    for (unsigned i = 0; i < 4; i++)
        m->message.stack[i] = (uint8_t)(id >> (24 - 8 * i));
    m->message.stack_length = 4;
    memcpy(m->header, header, size);
    m->message.header = m->header;
    m->message.header_length = size;
    if (length > 0)
        memcpy(m->payload, payload, length);
    m->iov = (struct iovec){m->payload, length};
    m->message.iov = &m->iov;
    m->message.iovcnt = length > 0;
    m->message.payload_length = length;
    m->message.sent = peer_sent;
    link_send(peer->link, &m->message);
    return id;
}

uint32_t
peer_send(struct peer *peer, const struct codec_request *request,
          const void *payload, size_t length)
{
    uint8_t header[4096];
    size_t size = codec_encode_request(request, header, sizeof header);
    assert_true(size > 0);
    return peer_send_raw(peer, header, size, payload, length);
}

/* Under the mutex: take the reply out of the list. */
static struct peer_reply *
peer_take(struct peer *peer, uint32_t id)
{
    struct peer_reply **link = &peer->replies;
    while (*link != NULL && (*link)->id != id)
        link = &(*link)->next;
    struct peer_reply *reply = *link;
    if (reply != NULL)
        *link = reply->next;
    return reply;
}

bool
peer_has(struct peer *peer, uint32_t id)
{
    pthread_mutex_lock(&peer->mutex);
    struct peer_reply *reply = peer->replies;
    while (reply != NULL && reply->id != id)
        reply = reply->next;
    pthread_mutex_unlock(&peer->mutex);
    return reply != NULL;
}

int
peer_wait(struct peer *peer, uint32_t id, uint32_t method,
          struct codec_reply *reply, void *data, size_t length)
{
    struct peer_reply *raw;
    struct error error;
    pthread_mutex_lock(&peer->mutex);
    while ((raw = peer_take(peer, id)) == NULL) {
        if (peer->closed) {
            pthread_mutex_unlock(&peer->mutex);
            fail_msg("the connection was closed before the reply");
        }
        peer_pause(peer, "the reply");
    }
    pthread_mutex_unlock(&peer->mutex);
    if (codec_decode_reply(raw->header, raw->header_length, method, reply,
                           &error)
        != 0)
        fail_msg("reply: %s", error.text);
    memcpy(last_text, reply->text, sizeof last_text);
    assert_int_equal(raw->payload_length, reply->status == 0 ? length : 0);
    if (raw->payload_length > 0)
        memcpy(data, raw->payload, length);
    int status = reply->status;
    peer_free_reply(raw);
    if (status != 0 && last_text[0] == '\0')
        fail_msg("%s without a text", farblk_status_name(status));
    return status;
}

void
peer_wait_closed(struct peer *peer)
{
    pthread_mutex_lock(&peer->mutex);
    while (!peer->closed)
        peer_pause(peer, "the end of the connection");
    pthread_mutex_unlock(&peer->mutex);
}

int
peer_ask(struct peer *peer, const struct codec_request *request,
         struct codec_reply *reply)
{
    uint32_t id = peer_send(peer, request, NULL, 0);
    return peer_wait(peer, id, request->method, reply, NULL, 0);
}

uint64_t
peer_open(struct peer *peer, const char *name)
{
    struct codec_request request = peer_request(peer, WIRE_OPEN, 0);
    struct codec_reply reply;
    snprintf(request.args.open.name, sizeof request.args.open.name, "%s", name);
    if (peer_ask(peer, &request, &reply) != 0)
        fail_msg("open %s: %s", name, peer_text());
    return reply.result.open.handle;
}

int
peer_write(struct peer *peer, uint64_t handle, uint64_t sector,
           const void *data, size_t length)
{
    struct codec_request request = peer_request(peer, WIRE_WRITE, handle);
    struct codec_reply reply;
    request.args.range.sector = sector;
    request.args.range.count = length / 512;
    uint32_t id = peer_send(peer, &request, data, length);
    return peer_wait(peer, id, WIRE_WRITE, &reply, NULL, 0);
}

int
peer_read(struct peer *peer, uint64_t handle, uint64_t sector, void *data,
          size_t length)
{
    struct codec_request request = peer_request(peer, WIRE_READ, handle);
    struct codec_reply reply;
    request.args.range.sector = sector;
    request.args.range.count = length / 512;
    uint32_t id = peer_send(peer, &request, NULL, 0);
    return peer_wait(peer, id, WIRE_READ, &reply, data, length);
}
