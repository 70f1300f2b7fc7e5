/* SPDX-License-Identifier: ISC */
/*
 * The scripted server.  Its callbacks run on the link's threads and only file
 * what arrived; nothing here ends a test from another thread than its own.
 */
#include "tests/fake.h"

#include "tests/support.h"

#include <stdio.h>

/* A message on its way out, freed when it has gone. */
struct fake_message {
    struct link_message message;
    struct iovec iov;
    uint8_t *payload;
    uint8_t header[WIRE_HEADER_MAX];
};

static void
fake_sent(struct link_message *message, int status)
{
    struct fake_message *out = (struct fake_message *)(void *)message;
    (void)status;
    free(out->payload);
    free(out);
}

static void
fake_send(struct link *link, uint32_t id, const void *header,
          size_t header_length, const void *payload, size_t length)
{
    struct fake_message *out = calloc(1, sizeof *out);
    struct link_message *message = &out->message;
    memcpy(out->header, header, header_length);
    message->stack[0] = (uint8_t)(id >> 24);
    message->stack[1] = (uint8_t)(id >> 16);
    message->stack[2] = (uint8_t)(id >> 8);
    message->stack[3] = (uint8_t)id;
    message->stack_length = 4;
    message->header = out->header;
    message->header_length = header_length;
    if (length > 0) {
        out->payload = malloc(length);
        memcpy(out->payload, payload, length);
        out->iov = (struct iovec){out->payload, length};
        message->iov = &out->iov;
        message->iovcnt = 1;
        message->payload_length = length;
    }
    message->sent = fake_sent;
    link_send(link, message);
}

struct codec_reply
fake_blank(const struct fake_request *request)
{
    struct codec_reply reply;
    memset(&reply, 0, sizeof reply);
    reply.number = request->ask.number;
    return reply;
}

void
fake_reply_raw(const struct fake_request *request, const void *header,
               size_t length)
{
    fake_send(request->link, request->id, header, length, NULL, 0);
}

static uint64_t
fake_octets(const struct fake_request *request)
{
    bool moves =
        request->ask.method == WIRE_READ || request->ask.method == WIRE_WRITE;
    return moves ? request->ask.args.range.count * FAKE_SECTOR : 0;
}

static void
fake_landed(struct fake *fake, const struct fake_request *request)
{
    pthread_mutex_lock(&fake->mutex);
    fake->flying--;
    fake->octets -= fake_octets(request);
    pthread_mutex_unlock(&fake->mutex);
}

static void
fake_free(struct fake_request *request)
{
    link_put(request->link);
    free(request->payload);
    free(request);
}

void
fake_reply_as(struct fake *fake, const struct fake_request *request,
              uint32_t id, const struct codec_reply *reply, const void *payload,
              size_t length)
{
    uint8_t *header = malloc(WIRE_HEADER_MAX);
    size_t size =
        codec_encode_reply(reply, request->ask.method, header, WIRE_HEADER_MAX);
    (void)fake;
    if (size == 0)
        abort();
    fake_send(request->link, id, header, size, payload, length);
    free(header);
}

void
fake_reply(struct fake *fake, struct fake_request *request,
           const struct codec_reply *reply, const void *payload, size_t length)
{
    fake_landed(fake, request); /* before the client can know */
    fake_reply_as(fake, request, request->id, reply, payload, length);
    fake_free(request);
}

void
fake_drop(struct fake *fake, struct fake_request *request)
{
    fake_landed(fake, request);
    fake_free(request);
}

/* ------------------------------------------------------------ arriving */

static void
fake_answer(struct fake *fake, struct fake_request *request)
{
    struct codec_reply reply = fake_blank(request);
    uint64_t sector = request->ask.args.range.sector;
    uint8_t *data = NULL;
    size_t length = 0;
    if (request->ask.method == WIRE_READ) {
        length = (size_t)fake_octets(request);
        data = malloc(length + 1);
        for (size_t at = 0; at < length; at += FAKE_SECTOR)
            pattern_fill(data + at, FAKE_SECTOR, sector + at / FAKE_SECTOR);
    } else if (request->ask.method == WIRE_WRITE) {
        bool bad = request->payload_length != fake_octets(request);
        for (size_t at = 0; at < request->payload_length; at += FAKE_SECTOR)
            bad = bad
                  || pattern_check(request->payload + at, FAKE_SECTOR,
                                   sector + at / FAKE_SECTOR)
                         != FAKE_SECTOR;
        pthread_mutex_lock(&fake->mutex);
        fake->bad_writes += bad;
        pthread_mutex_unlock(&fake->mutex);
    }
    fake_reply(fake, request, &reply, data, length);
    free(data);
}

/* A request that the fake answers itself; false: it is the test's. */
static bool
fake_serve(struct fake *fake, struct fake_request *request)
{
    struct codec_reply reply = fake_blank(request);
    bool mute = false;
    switch (request->ask.method) {
    case WIRE_HELLO:
        reply = fake->hello;
        reply.number = request->ask.number;
        mute = fake->mute_hello;
        break;
    case WIRE_OPEN:
        reply = fake->open;
        reply.number = request->ask.number;
        mute = fake->mute_open;
        break;
    case WIRE_PING:
        pthread_mutex_lock(&fake->mutex);
        fake->pings++;
        fake->take_overs += request->ask.args.ping.take_over;
        reply.status = fake->ping_status;
        if (reply.status != 0)
            snprintf(reply.text, sizeof reply.text, "Ping: as the test says");
        pthread_cond_broadcast(&fake->changed);
        mute = fake->mute_ping;
        pthread_mutex_unlock(&fake->mutex);
        break;
    case WIRE_SHARE_MEMORY:
        if (fake->shares)
            break; /* the token is zeroes */
        reply.status = FARBLK_UNIMPLEMENTED;
        snprintf(reply.text, sizeof reply.text, "the fake shares nothing");
        break;
    case WIRE_DISCONNECT:
        pthread_mutex_lock(&fake->mutex);
        fake->disconnects++;
        pthread_cond_broadcast(&fake->changed);
        mute = fake->mute_disconnect;
        pthread_mutex_unlock(&fake->mutex);
        break;
    default:
        return false;
    }
    if (!mute)
        fake_reply_as(fake, request, request->id, &reply, NULL, 0);
    fake_free(request);
    return true;
}

static void
fake_frame(void *arg, void *frame)
{
    struct fake *fake = arg;
    struct fake_request *request = frame;
    if (request == NULL)
        return;
    const struct codec_request *ask = &request->ask;
    pthread_mutex_lock(&fake->mutex);
    if (ask->session != 0) {
        fake->bad_numbers += ask->number == 0 || ask->lowest == 0
                             || ask->lowest > ask->number
                             || ask->number >= ask->lowest + WIRE_WINDOW;
        fake->last_number = ask->number;
        fake->lowest = ask->lowest;
        pthread_cond_broadcast(&fake->changed);
    }
    pthread_mutex_unlock(&fake->mutex);
    if (fake_serve(fake, request))
        return;
    pthread_mutex_lock(&fake->mutex);
    fake->flying++;
    fake->octets += fake_octets(request);
    if (fake->flying > fake->most_flying)
        fake->most_flying = fake->flying;
    if (fake->octets > fake->most_octets)
        fake->most_octets = fake->octets;
    bool answers = fake->answers;
    if (!answers) {
        *fake->end = request;
        fake->end = &request->next;
        pthread_cond_broadcast(&fake->changed);
    }
    pthread_mutex_unlock(&fake->mutex);
    if (answers)
        fake_answer(fake, request);
}

/* Which link a head came from is not told: each has its own argument. */
struct fake_link {
    struct fake *fake;
    struct link *link;
};

static bool
fake_head(void *arg, const struct link_head *head, struct link_sink *sink)
{
    struct fake_link *from = arg;
    struct error error;
    bool bad = false;
    struct fake_request *request = calloc(1, sizeof *request);
    if (codec_decode_request(head->header, head->header_length, &request->ask,
                             &bad, &error)
            != 0
        || bad) {
        print_error("the client sent a bad request: %s\n", error.text);
        free(request);
        return false;
    }
    request->link = link_get(from->link);
    request->id = head->id;
    request->payload_length = (size_t)head->payload_length;
    if (head->payload_length > 0) {
        request->payload = malloc(request->payload_length);
        request->iov =
            (struct iovec){request->payload, request->payload_length};
        sink->iov = &request->iov;
        sink->iovcnt = 1;
    } else {
        sink->iov = NULL;
        sink->iovcnt = 0;
    }
    sink->frame = request;
    return true;
}

static void
fake_link_frame(void *arg, void *frame)
{
    struct fake_link *from = arg;
    fake_frame(from->fake, frame);
}

static void
fake_link_drop(void *arg, void *frame)
{
    (void)arg;
    if (frame != NULL)
        fake_free(frame);
}

static void
fake_closed(void *arg, int status, const char *reason)
{
    struct fake_link *from = arg;
    struct fake *fake = from->fake;
    (void)status, (void)reason;
    link_put(from->link);
    free(from);
    pthread_mutex_lock(&fake->mutex);
    fake->links--;
    pthread_cond_broadcast(&fake->changed);
    pthread_mutex_unlock(&fake->mutex);
}

static const struct link_events fake_events = {
    .head = fake_head,
    .frame = fake_link_frame,
    .drop = fake_link_drop,
    .closed = fake_closed,
};

static void
fake_accepted(void *arg, struct link *link)
{
    struct fake *fake = arg;
    struct fake_link *from = calloc(1, sizeof *from);
    from->fake = fake;
    from->link = link;
    pthread_mutex_lock(&fake->mutex);
    if (fake->link != NULL)
        link_put(fake->link);
    fake->link = link_get(link);
    fake->links++;
    fake->came++;
    pthread_mutex_unlock(&fake->mutex);
    link_start(link, &fake_events, from);
}

/* ------------------------------------------------------------ its life */

void
fake_start(struct fake *fake)
{
    memset(fake, 0, sizeof *fake);
    pthread_mutex_init(&fake->mutex, NULL);
    pthread_cond_init(&fake->changed, NULL);
    fake->end = &fake->first;
    snprintf(fake->name, sizeof fake->name, "%s", support_name("farblk-fake"));
    snprintf(fake->again_uri, sizeof fake->again_uri,
             "farblk+unix:///disk?abstract=%s", fake->name);
    snprintf(fake->uri, sizeof fake->uri, "%s&reconnect=0", fake->again_uri);
    snprintf(fake->list_uri, sizeof fake->list_uri,
             "farblk+unix:///?abstract=%s", fake->name);
    fake->hello.result.hello.version = WIRE_VERSION;
    fake->hello.result.hello.session = 0x5e55;
    fake->hello.result.hello.lease_ms = 30000;
    fake->hello.result.hello.limits = (struct codec_limits){
        .max_requests = 64,
        .max_octets = UINT64_C(16) << 20,
        .max_payload = FAKE_PAYLOAD,
        .max_header = WIRE_HEADER_MAX,
        .max_handles = 8,
        .max_extents = 4,
    };
    fake->open.generation = FAKE_GENERATION;
    fake->open.size_sectors = FAKE_SECTORS;
    fake->open.result.open.handle = 77;
    fake->open.result.open.info = (struct codec_info){
        .read_write = true,
        .sector_size = FAKE_SECTOR,
        .size_sectors = FAKE_SECTORS,
        .generation = FAKE_GENERATION,
        .features = 0xff,
        .max_transfer = FAKE_PAYLOAD,
        .preferred_transfer = FAKE_PAYLOAD,
    };
    fake_come_back(fake);
}

void
fake_come_back(struct fake *fake)
{
    struct error error;
    char url[160];
    const struct link_listener_options options = {
        .limits = {.max_payload = WIRE_PAYLOAD_CEILING},
    };
    snprintf(url, sizeof url, "abstract://%s", fake->name);
    if (link_listen(url, &options, fake_accepted, fake, &fake->listener, &error)
        != 0)
        fail_msg("%s: %s", url, error.text);
}

void
fake_go_away(struct fake *fake)
{
    link_listener_close(fake->listener);
    fake_hang_up(fake);
    fake_wait_closed(fake);
}

void
fake_mute_pings(struct fake *fake, bool mute)
{
    pthread_mutex_lock(&fake->mutex);
    fake->mute_ping = mute;
    pthread_mutex_unlock(&fake->mutex);
}

void
fake_refuse_pings(struct fake *fake, int status)
{
    pthread_mutex_lock(&fake->mutex);
    fake->ping_status = status;
    pthread_mutex_unlock(&fake->mutex);
}

void *
fake_hang_up_at_disconnect(void *arg)
{
    struct fake *fake = arg;
    pthread_mutex_lock(&fake->mutex);
    while (fake->disconnects == 0)
        pthread_cond_wait(&fake->changed, &fake->mutex);
    fake->mute_disconnect = false;
    pthread_mutex_unlock(&fake->mutex);
    fake_hang_up(fake);
    return NULL;
}

void
fake_hang_up(struct fake *fake)
{
    pthread_mutex_lock(&fake->mutex);
    struct link *link = fake->link;
    fake->link = NULL;
    pthread_mutex_unlock(&fake->mutex);
    if (link != NULL) {
        link_close(link, false);
        link_put(link);
    }
}

void
fake_wait_closed(struct fake *fake)
{
    pthread_mutex_lock(&fake->mutex);
    while (fake->links > 0)
        pthread_cond_wait(&fake->changed, &fake->mutex);
    pthread_mutex_unlock(&fake->mutex);
}

void
fake_stop(struct fake *fake)
{
    fake_go_away(fake);
    while (fake->first != NULL) {
        struct fake_request *request = fake->first;
        fake->first = request->next;
        fake_free(request);
    }
    pthread_cond_destroy(&fake->changed);
    pthread_mutex_destroy(&fake->mutex);
}

struct fake_request *
fake_next(struct fake *fake)
{
    pthread_mutex_lock(&fake->mutex);
    while (fake->first == NULL)
        pthread_cond_wait(&fake->changed, &fake->mutex);
    struct fake_request *request = fake->first;
    fake->first = request->next;
    if (fake->first == NULL)
        fake->end = &fake->first;
    pthread_mutex_unlock(&fake->mutex);
    request->next = NULL;
    return request;
}
