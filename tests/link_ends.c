/* SPDX-License-Identifier: ISC */
/*
 * Both ends of links for tests; see link_ends.h.
 */
#include "tests/link_ends.h"

#include "proto/sp.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

const struct link_limits link_generous = {
    .max_payload = 1u << 20,
    .greeting_ms = SUPPORT_PATIENCE_MS,
    .frame_ms = SUPPORT_PATIENCE_MS,
};

/* A message that was received, or is sent. */
struct parcel {
    struct link_message message;
    struct link_end *end;
    uint32_t id;
    uint8_t *header, *payload;
    size_t payload_length;
    struct iovec *iov;
};

static void
parcel_free(struct parcel *parcel)
{
    free(parcel->header);
    free(parcel->payload);
    free(parcel->iov);
    free(parcel);
}

static void
count(struct link_end *end, unsigned *what)
{
    pthread_mutex_lock(&end->mutex);
    ++*what;
    pthread_cond_broadcast(&end->changed);
    pthread_mutex_unlock(&end->mutex);
}

static void
parcel_sent(struct link_message *message, int status)
{
    struct parcel *parcel = (struct parcel *)message;
    struct link_end *end = parcel->end;

    parcel_free(parcel);
    count(end, status == 0 ? &end->sents : &end->failed);
}

static struct parcel *
parcel_make(struct link_end *end, size_t header_length, size_t payload_length,
            size_t pieces)
{
    struct parcel *parcel = calloc(1, sizeof *parcel);

    parcel->end = end;
    parcel->header = malloc(header_length + 1);
    parcel->payload = malloc(payload_length + 1);
    parcel->payload_length = payload_length;
    parcel->iov = calloc(pieces + 1, sizeof *parcel->iov);
    parcel->message.header = parcel->header;
    parcel->message.header_length = header_length;
    parcel->message.payload_length = payload_length;
    parcel->message.sent = parcel_sent;
    parcel->message.iov = parcel->iov;
    parcel->message.iovcnt = payload_length > 0 ? pieces : 0;
    for (size_t i = 0, at = 0; i < pieces; i++) {
        size_t part =
            i + 1 == pieces ? payload_length - at : payload_length / pieces;
        parcel->iov[i].iov_base = parcel->payload + at;
        parcel->iov[i].iov_len = part;
        at += part;
    }
    return parcel;
}

static bool
end_head(void *arg, const struct link_head *head, struct link_sink *sink)
{
    struct link_end *end = arg;
    size_t length = (size_t)head->payload_length;
    /* Received into pieces of its own, one of them empty. */
    struct parcel *parcel = parcel_make(end, head->header_length, length,
                                        length > 10 ? 10 : length > 0);

    if (end->refuse) {
        parcel_free(parcel);
        return false;
    }
    parcel->id = head->id;
    memcpy(parcel->message.stack, head->stack, head->stack_length);
    parcel->message.stack_length = head->stack_length;
    memcpy(parcel->header, head->header, head->header_length);
    sink->iov = parcel->iov;
    sink->iovcnt = end->discard ? 0 : parcel->message.iovcnt;
    sink->frame = parcel;
    pthread_mutex_lock(&end->mutex);
    bool first = end->heads++ == 0;
    end->last_stack = (unsigned)head->stack_length;
    pthread_cond_broadcast(&end->changed);
    pthread_mutex_unlock(&end->mutex);
    if (first && end->hold_at_first)
        link_hold(end->link);
    return true;
}

static bool
parcel_good(const struct parcel *parcel)
{
    for (size_t i = 0; i < parcel->message.header_length; i++)
        if (parcel->header[i] != (uint8_t)(parcel->id + i))
            return false;
    return pattern_check(parcel->payload, parcel->payload_length, parcel->id)
           == parcel->payload_length;
}

static void
end_frame(void *arg, void *frame)
{
    struct link_end *end = arg;
    struct parcel *parcel = frame;
    bool good = end->discard || parcel_good(parcel);

    /* Counted before it is echoed: who gets the echo may look at once. */
    pthread_mutex_lock(&end->mutex);
    end->frames++;
    end->bad += !good;
    end->by = pthread_self();
    pthread_cond_broadcast(&end->changed);
    /* With the mutex: whoever attends takes its memory back under it. */
    if (end->attendance != NULL)
        link_wake(end->link, end->attendance);
    pthread_mutex_unlock(&end->mutex);
    if (end->echo)
        link_send(end->link, &parcel->message);
    else
        parcel_free(parcel);
}

static void
end_drop(void *arg, void *frame)
{
    struct link_end *end = arg;

    parcel_free(frame);
    count(end, &end->drops);
}

static void
end_closed(void *arg, int status, const char *reason)
{
    struct link_end *end = arg;

    pthread_mutex_lock(&end->mutex);
    end->closed++;
    end->status = status;
    snprintf(end->reason, sizeof end->reason, "%s", reason);
    pthread_cond_broadcast(&end->changed);
    pthread_mutex_unlock(&end->mutex);
}

static const struct link_events events = {
    .head = end_head,
    .frame = end_frame,
    .drop = end_drop,
    .closed = end_closed,
};

static struct link_end *
end_make(struct link *link, const struct link_end *model)
{
    struct link_end *end = calloc(1, sizeof *end);

    if (model != NULL)
        *end = *model;
    end->link = link;
    pthread_mutex_init(&end->mutex, NULL);
    pthread_cond_init(&end->changed, NULL);
    return end;
}

/* With the mutex: wait, at most for as long as patience lasts. */
static void
patiently(pthread_cond_t *changed, pthread_mutex_t *mutex, const char *what)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += SUPPORT_PATIENCE_MS / 1000;
    if (pthread_cond_timedwait(changed, mutex, &until) != ETIMEDOUT)
        return;
    pthread_mutex_unlock(mutex);
    fail_msg("%s does not happen", what);
}

void
link_end_wait(struct link_end *end, const unsigned *what, unsigned least)
{
    pthread_mutex_lock(&end->mutex);
    while (*what < least) {
        if (end->closed > 0 && what != &end->closed && what != &end->failed
            && what != &end->drops) {
            pthread_mutex_unlock(&end->mutex);
            fail_msg("the link ended with %d (%s), at %u of %u", end->status,
                     end->reason, *what, least);
        }
        patiently(&end->changed, &end->mutex, "what this end waits for");
    }
    pthread_mutex_unlock(&end->mutex);
}

bool
link_end_frame_or_close(struct link_end *end)
{
    pthread_mutex_lock(&end->mutex);
    while (end->frames == 0 && end->closed == 0)
        patiently(&end->changed, &end->mutex, "a message or the end");
    bool came = end->frames > 0;
    pthread_mutex_unlock(&end->mutex);
    return came;
}

unsigned
link_end_get(struct link_end *end, const unsigned *what)
{
    pthread_mutex_lock(&end->mutex);
    unsigned value = *what;
    pthread_mutex_unlock(&end->mutex);
    return value;
}

static struct link_message *
send_parcel(struct link_end *end, struct parcel *parcel, uint32_t id)
{
    size_t header_length = parcel->message.header_length;

    parcel->id = id | 0x80000000u;
    sp_put32(parcel->message.stack, parcel->id);
    parcel->message.stack_length = 4;
    for (size_t i = 0; i < header_length; i++)
        parcel->header[i] = (uint8_t)(parcel->id + i);
    pattern_fill(parcel->payload, parcel->payload_length, parcel->id);
    link_send(end->link, &parcel->message);
    return &parcel->message;
}

struct link_message *
link_end_send(struct link_end *end, uint32_t id, size_t header_length,
              size_t payload_length, size_t pieces)
{
    return send_parcel(
        end, parcel_make(end, header_length, payload_length, pieces), id);
}

void
link_end_send_more(struct link_end *end, uint32_t id, size_t payload_length)
{
    struct parcel *parcel = parcel_make(end, 10, payload_length, 1);

    parcel->message.more = true;
    send_parcel(end, parcel, id);
}

void
link_end_recalled(struct link_message *message)
{
    parcel_free((struct parcel *)message);
}

struct link_end *
link_end_dial(const char *url, const struct link_limits *limits)
{
    struct link *link;
    struct error error;

    if (link_dial(url, NULL, SUPPORT_PATIENCE_MS, limits, &link, &error) != 0)
        fail_msg("%s", error.text);
    struct link_end *end = end_make(link, NULL);
    link_start(link, &events, end);
    return end;
}

void
link_end_wait_closed(struct link_end *end)
{
    bool websocket = strcmp(link_peer(end->link)->transport, "ws") == 0;

    while (websocket && link_end_get(end, &end->closed) == 0) {
        link_end_send(end, 1, 0, 0, 0);
        sched_yield();
    }
    link_end_wait(end, &end->closed, 1);
}

void
link_end_free(struct link_end *end)
{
    link_end_wait_closed(end);
    /* closed() may still be about to leave the mutex. */
    pthread_mutex_lock(&end->mutex);
    unsigned bad = end->bad, closed = end->closed;
    bool balanced = end->heads == end->frames + end->drops;
    pthread_mutex_unlock(&end->mutex);
    link_put(end->link);
    pthread_cond_destroy(&end->changed);
    pthread_mutex_destroy(&end->mutex);
    free(end);
    assert_int_equal(bad, 0);
    assert_int_equal(closed, 1);
    assert_true(balanced);
}

void
link_end_close(struct link_end *end)
{
    link_close(end->link, false);
    link_end_free(end);
}

static void
post_accepted(void *arg, struct link *link)
{
    struct link_post *post = arg;
    struct link_end *end = end_make(link, &post->model);

    link_start(link, &events, end);
    for (unsigned i = 0; i < end->greets; i++)
        link_end_send(end, i, 10, 1000, 1);
    /* Time for those to go where they must not be lost; a transport may keep
     * them until this function has returned. */
    if (end->greets > 0)
        usleep(50000);
    pthread_mutex_lock(&post->mutex);
    if (post->first == NULL)
        post->first = end;
    else
        post->last->next = end;
    post->last = end;
    post->accepted++;
    pthread_cond_broadcast(&post->changed);
    pthread_mutex_unlock(&post->mutex);
}

void
link_post_open(struct link_post *post, const char *url,
               const struct link_limits *limits)
{
    struct link_listener_options options = {.limits = *limits,
                                            .ipc_mode = 0600};
    struct error error;

    pthread_mutex_init(&post->mutex, NULL);
    pthread_cond_init(&post->changed, NULL);
    post->first = post->last = NULL;
    post->accepted = 0;
    if (link_listen(url, &options, post_accepted, post, &post->listener, &error)
        != 0)
        fail_msg("%s", error.text);
}

struct link_end *
link_post_take(struct link_post *post)
{
    pthread_mutex_lock(&post->mutex);
    while (post->first == NULL)
        patiently(&post->changed, &post->mutex, "a connection");
    struct link_end *end = post->first;
    post->first = end->next;
    end->next = NULL;
    pthread_mutex_unlock(&post->mutex);
    return end;
}

void
link_post_close(struct link_post *post)
{
    link_listener_close(post->listener);
    while (post->first != NULL)
        link_end_close(link_post_take(post));
    pthread_cond_destroy(&post->changed);
    pthread_mutex_destroy(&post->mutex);
}

void
link_post_still_serves(struct link_post *post)
{
    struct link_end *client =
        link_end_dial(link_listener_url(post->listener), &link_generous);

    for (unsigned i = 0; i < 10; i++)
        link_end_send(client, i, 30, i * 1000, 1);
    link_end_wait(client, &client->frames, 10);
    link_end_close(client);
}

const char *
link_test_url(const char *scheme)
{
    static char url[512];

    if (strcmp(scheme, "ipc") == 0)
        snprintf(url, sizeof url, "ipc://%s", support_path("link"));
    else if (strcmp(scheme, "tcp") == 0)
        snprintf(url, sizeof url, "tcp://127.0.0.1:0");
    else if (strcmp(scheme, "ws") == 0)
        snprintf(url, sizeof url, "ws://127.0.0.1:0/farblk");
    else
        snprintf(url, sizeof url, "%s://%s", scheme, support_name("link"));
    return url;
}
