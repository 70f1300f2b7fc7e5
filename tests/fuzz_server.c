/* SPDX-License-Identifier: ISC */
/*
 * The server before a hostile client.  An input is what the client sends, from
 * its greeting on, behind one octet that says how it does; the server is a whole
 * one, with links, sessions and a ramdisk, cleaned for each input.  Session ids
 * and secrets are the same each time, so that inputs can have them.
 *
 * What must hold whatever comes: the server ends when it is told to and leaves
 * no memory, what it sends parses, it answers no more than it was asked, and its
 * log has printable characters and no secret.
 */
#include "core/block.h"
#include "core/device.h"
#include "core/driver.h"
#include "proto/codec.h"
#include "proto/sp.h"
#include "server/opened.h"
#include "server/session.h"
#include "tests/fuzz_frames.h"
#include "tests/fuzz_nng.h"

#include <stdlib.h>
#include <string.h>

#define INPUT_MAX 65536u
#define SECTORS 64u
#define SECRET "SECRET_OF"
#define ANEW 1000u /* inputs that one server serves */

/* How, besides FRAMES_*. */
#define MUTE 0x08 /* the client reads only a little of the replies */
#define TWO 0x10 /* frames with an odd request id go by a second connection */
#define OTHER 0x20 /* which is of another user */
#define DEAF 0x40 /* the first one is cut off half way */

static struct farblk_server *server;
static bool close_handles(void);

static struct {
    const uint8_t *data; /* without the first octet */
    size_t size, at;
    uint8_t manner;
    nng_stream *to[2];
    uint8_t *queue[2]; /* what each has to send */
    size_t queued[2], offered[2];
    size_t frames, pieces;
    bool begun, ended;
} talk;

/* ------------------------------------------------------------ the client */

/* The next frame, to the connection that it is for. */
static bool
give_frame(void)
{
    bool ipc = (talk.manner & FRAMES_IPC) != 0;
    size_t left = talk.size - talk.at, to = 0;
    if (left == 0)
        return false;
    const uint8_t *frame = talk.data + talk.at;
    size_t length = talk.at == 0 ? (left < SP_GREETING ? left : SP_GREETING)
                                 : frames_next(frame, left, ipc);
    size_t id = (ipc ? 9 : 8) + 3;
    if (talk.at > 0 && length > id)
        to = (talk.manner & TWO) != 0 && (frame[id] & 1) != 0;
    memcpy(talk.queue[to] + talk.queued[to], frame, length);
    talk.queued[to] += length;
    talk.at += length;
    talk.frames += talk.at > SP_GREETING;
    return true;
}

static void
end_all(void)
{
    bool reset = (talk.manner & FRAMES_RESET) != 0;
    talk.ended = true;
    for (unsigned i = 0; i < 2; i++)
        if (talk.to[i] != NULL)
            fuzz_nng_fail(talk.to[i], reset ? NNG_ECONNRESET : NNG_ECONNSHUT,
                          reset || (talk.manner & MUTE) != 0 ? NNG_ECONNRESET
                                                             : 0);
}

/* Offer what is queued, in pieces or whole. */
static bool
offer(unsigned i)
{
    if (talk.to[i] == NULL || talk.offered[i] == talk.queued[i]
        || fuzz_nng_gone(talk.to[i]) || !fuzz_nng_waits(talk.to[i]))
        return false;
    size_t from = talk.offered[i], to = talk.queued[i];
    if ((talk.manner & FRAMES_PIECES) != 0 && to - from < 2000)
        to = from + 1 + talk.pieces++ % 7;
    if (to > talk.queued[i])
        to = talk.queued[i];
    talk.offered[i] = to;
    fuzz_nng_offer(talk.to[i], talk.queue[i], from, to);
    return true;
}

static bool
step(void)
{
    if (talk.ended || !talk.begun)
        return false;
    if (offer(0) || offer(1) || close_handles())
        return true;
    if ((talk.manner & DEAF) != 0 && talk.at > talk.size / 2) {
        fuzz_nng_fail(talk.to[0], NNG_ECONNRESET, NNG_ECONNRESET);
        talk.manner &= (uint8_t)~DEAF;
        return true;
    }
    if (give_frame())
        return true;
    end_all();
    return true;
}

static void
begin_talk(const uint8_t *data, size_t size)
{
    static uint8_t first[INPUT_MAX], second[INPUT_MAX + SP_GREETING];
    memset(&talk, 0, sizeof talk);
    talk.manner = data[0];
    talk.data = data + 1;
    talk.size = size - 1;
    talk.queue[0] = first;
    talk.queue[1] = second;
    sp_put_greeting(second, WIRE_SP_REQ);
    talk.queued[1] = SP_GREETING;
}

/* ------------------------------------------------------------ the checks */

static void
check_sent(const nng_stream *stream)
{
    const uint8_t *at = stream->sent;
    size_t left = stream->sent_length, replies = 0;
    struct sp_head head;
    struct codec_reply reply;
    struct error error;
    if (left < SP_GREETING)
        return;
    if (sp_check_greeting(at, WIRE_SP_REP, &error) != 0)
        fuzz_wrong("the server's greeting");
    at += SP_GREETING;
    left -= SP_GREETING;
    for (;;) {
        int length = sp_parse(at, left, stream->ipc, WIRE_PAYLOAD_CEILING,
                              &head, &error);
        if (length < 0)
            fuzz_wrong("a reply's frame");
        if (length == 0
            || head.payload_length > left - (size_t)length) /* cut off */
            break;
        if (codec_decode_reply(head.header, head.header_length, 0, &reply,
                               &error)
            != 0)
            fuzz_wrong("a reply's header");
        if (reply.status > 0)
            fuzz_wrong("a reply's status");
        if (reply.status != 0 && reply.text[0] == '\0')
            fuzz_wrong("a failure without a text");
        if (reply.status != 0 && head.payload_length != 0)
            fuzz_wrong("a failure with data");
        at += (size_t)length + head.payload_length;
        left -= (size_t)length + head.payload_length;
        replies++;
    }
    if (replies > talk.frames)
        fuzz_wrong("more replies than requests");
}

static void
check_log(void *arg, enum farblk_log_level level, const char *line)
{
    (void)arg, (void)level;
    for (const char *c = line; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            fuzz_wrong("a control character in the log");
    /* As fuzz_nng.c has them; but the client may tell one itself. */
    if (strstr(line, SECRET) != NULL
        && memmem(talk.data, talk.size, SECRET, strlen(SECRET)) == NULL)
        fuzz_wrong("a secret in the log");
}

static void
must(int status)
{
    if (status != 0)
        fuzz_wrong(farblk_last_text());
}

/* ------------------------------------------------------------ the server */

static struct farblk *disk;
static bool server_ipc;
static unsigned served;

/* The housekeeper ends: this thread does its work, and there is no other. */
static void
dismiss_keeper(void)
{
    pthread_mutex_lock(&server->mutex);
    server->finished = true;
    pthread_cond_broadcast(&server->keeper_wake);
    pthread_mutex_unlock(&server->mutex);
    pthread_join(server->keeper, NULL);
    server->finished = false;
}

static void
begin_server(void)
{
    static const struct farblk_server_options options = {
        .size = sizeof options,
        .max_connections = 4,
        .max_sessions = 8,
        .max_requests = 16,
        .max_payload = 16384,
        .max_octets = 65536,
        .max_handles = 4,
        .memory_limit = 64 << 20,
    };
    server_ipc = (talk.manner & FRAMES_IPC) != 0;
    must(farblk_ramdisk_create("fuzz", SECTORS, 512));
    must(farblk_open("ramdisk:fuzz", NULL, &disk));
    must(farblk_server_create(&options, &server));
    dismiss_keeper();
    must(farblk_server_export(server, "disk", "ramdisk:fuzz"));
    must(farblk_server_export(server, "ro", "ramdisk:fuzz?ro=1"));
    must(farblk_server_listen(server, server_ipc ? "abstract://fuzz"
                                                 : "tcp://127.0.0.1:1"));
}

static void *
rest(void *arg)
{
    return arg;
}

static void
end_server(void)
{
    /* Somebody for it to dismiss. */
    must(pthread_create(&server->keeper, NULL, rest, NULL));
    must(farblk_server_stop(server, -1));
    farblk_server_destroy(server);
    must(farblk_close(disk));
    must(farblk_ramdisk_destroy("fuzz"));
    server = NULL;
}

/* What the housekeeper would do.  False: there is nothing to close. */
static bool
close_handles(void)
{
    pthread_mutex_lock(&server->mutex);
    struct opened *closing = server->closing;
    if (closing != NULL)
        server->closing = closing->next;
    pthread_mutex_unlock(&server->mutex);
    if (closing != NULL)
        opened_free(closing);
    return closing != NULL;
}

/* As it was when it was made, without the price of that: what is left of
 * sessions ends, the disk is empty. */
static void
clean_server(void)
{
    session_fence_all(server, "the next input");
    while (close_handles())
        ;
    pthread_mutex_lock(&server->mutex);
    /* Core's timer may be at one of them. */
    while (server->session_objects > 0 || server->connection_objects > 0) {
        pthread_cond_wait(&server->changed, &server->mutex);
        pthread_mutex_unlock(&server->mutex);
        close_handles();
        pthread_mutex_lock(&server->mutex);
    }
    server->next_session = server->next_connection = 0;
    pthread_mutex_unlock(&server->mutex);
    if (atomic_load(&server->busy) != 0 || atomic_load(&server->octets) != 0)
        fuzz_wrong("requests were left");
    must(farblk_resize(disk, SECTORS));
    must(farblk_discard(disk, 0, SECTORS, 0));
    device_reshape(disk->device, SECTORS * 512, 1);
    if (block_in_use() != 0)
        fuzz_wrong("memory was left");
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > INPUT_MAX)
        return 0;
    farblk_set_log(FARBLK_LOG_DEBUG, check_log, NULL);
    begin_talk(data, size);
    fuzz_nng_begin(step);
    bool ipc = (talk.manner & FRAMES_IPC) != 0;
    if (server != NULL && (server_ipc != ipc || ++served % ANEW == 0))
        end_server();
    if (server == NULL)
        begin_server();
    for (unsigned i = 0; i < 1 + ((talk.manner & TWO) != 0); i++) {
        while (fuzz_nng_go_on())
            ; /* it accepts the next one */
        talk.to[i] = fuzz_nng_connect(
            ipc, i == 1 && (talk.manner & OTHER) != 0 ? 1001 : 1000);
        if (talk.to[i] == NULL)
            fuzz_wrong("nobody accepts");
        if ((talk.manner & MUTE) != 0)
            talk.to[i]->room = 300;
    }
    fuzz_nng_draw_anew();
    talk.begun = true;
    fuzz_nng_await(talk.to[0]);
    fuzz_nng_await(talk.to[1]);
    clean_server();
    for (unsigned i = 0; i < 2; i++)
        if (talk.to[i] != NULL)
            check_sent(talk.to[i]);
    fuzz_nng_end();
    return 0;
}

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
                        unsigned seed)
{
    return frames_mutate(data, size, max_size, seed);
}
