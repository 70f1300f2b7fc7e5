/* SPDX-License-Identifier: ISC */
/*
 * A server that does as a test tells it.
 *
 * It answers Hello, Open, Ping and Disconnect by itself, as far as the test
 * lets it; every other request it hands to the test, in the order of arrival,
 * which answers it when and how it likes, also wrongly.
 */
#ifndef FARBLK_TESTS_FAKE_H
#define FARBLK_TESTS_FAKE_H

#include "proto/codec.h"
#include "proto/link.h"

#include <pthread.h>
#include <stdbool.h>

/* What the fake device is, until a test changes it. */
#define FAKE_SECTOR 512u
#define FAKE_SECTORS 8192u
#define FAKE_GENERATION 3u
#define FAKE_PAYLOAD 65536u

/* A request that arrived. */
struct fake_request {
    struct fake_request *next;
    struct link *link; /* a reference */
    uint32_t id;
    struct codec_request ask;
    uint8_t *payload;
    size_t payload_length;
    struct iovec iov;
};

struct fake {
    /* Set after fake_start() and before a client comes. */
    struct codec_reply hello, open;
    bool shares; /* it gives tokens; the side socket is the test's */
    bool mute_hello, mute_open, mute_ping, mute_disconnect;
    bool answers; /* it answers everything itself: reads are patterns by their
                     sector, writes are checked to be so */

    char name[128];
    char uri[288]; /* of its device; what is lost stays so */
    char again_uri[256]; /* the same, and a lost connection is made anew */
    char list_uri[256];
    struct link_listener *listener;
    pthread_mutex_t mutex; /* the rest */
    pthread_cond_t changed;
    struct fake_request *first, **end;
    struct link *link; /* the newest */
    unsigned links, came; /* that have not closed; ever */
    unsigned flying, most_flying; /* requests handed over, not answered */
    uint64_t octets, most_octets; /* of data in them */
    uint64_t last_number, lowest;
    unsigned pings, disconnects, bad_writes, bad_numbers;
    unsigned take_overs; /* Pings that show the secret */
    int ping_status; /* not 0: their reply's */
};

void fake_start(struct fake *fake);
/* Close all links, wait for them, free what the test did not take. */
void fake_stop(struct fake *fake);

/* The next request, waited for; the test gives it to one of the replies. */
struct fake_request *fake_next(struct fake *fake);
/* A reply with status 0 and nothing else in it. */
struct codec_reply fake_blank(const struct fake_request *request);
/* Answer, and free the request. */
void fake_reply(struct fake *fake, struct fake_request *request,
                const struct codec_reply *reply, const void *payload,
                size_t length);
/* Answer, and keep the request. */
void fake_reply_as(struct fake *fake, const struct fake_request *request,
                   uint32_t id, const struct codec_reply *reply,
                   const void *payload, size_t length);
/* Send this header. */
void fake_reply_raw(const struct fake_request *request, const void *header,
                    size_t length);
/* No answer. */
void fake_drop(struct fake *fake, struct fake_request *request);
/* Whether Pings are answered, and how. */
void fake_mute_pings(struct fake *fake, bool mute);
void fake_refuse_pings(struct fake *fake, int status);
/* Nobody listens any more, and no link is open; and again. */
void fake_go_away(struct fake *fake);
void fake_come_back(struct fake *fake);
/* For client_thread(): close the link when a Disconnect has come, and answer the
 * next. */
void *fake_hang_up_at_disconnect(void *fake);
/* Close the newest link. */
void fake_hang_up(struct fake *fake);
/* Wait until no link is open. */
void fake_wait_closed(struct fake *fake);

#endif
