/* SPDX-License-Identifier: ISC */
/*
 * The server's end of a ring before a hostile client.  An input is what the
 * client does to the region, step by step: entries that are well published, nearly
 * right or anything; words anywhere in the ring; and when the server looks.  All
 * of it happens in one thread: the session, its handle and its region are made by
 * hand, around the server's own ring (server/shm_ring.c).
 *
 * What must hold whatever comes: a lie ends the session and nothing else; each
 * submission that was taken is answered once, with a tag, status and text that can
 * be; no memory, session, handle or request is left.
 */
#include "core/block.h"
#include "core/device.h"
#include "core/request.h"
#include "core/timer.h"
#include "server/export.h"
#include "server/server.h"
#include "server/shm_ring.h"
#include "tests/fuzz_draw.h"
#include "tests/fuzz_frames.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define INPUT_MAX 8192u
#define SECTORS 64u
#define DEPTH 8u
#define ARENA 65536u

static struct farblk_server *server;
static struct farblk *disk;
static struct shm_hand hand;

static void __attribute__((noreturn)) wrong(const char *what)
{
    fprintf(stderr, "fuzz_shm: %s\n", what);
    abort();
}

static void
must(int status)
{
    if (status != 0)
        wrong(farblk_last_text());
}

/* ------------------------------------------------------------ the server */

static void
begin_server(void)
{
    static const struct farblk_server_options options = {
        .size = sizeof options,
        .max_payload = 16384,
        .lease_ms = 3600000,
        .memory_limit = 64 << 20,
    };
    farblk_set_log(FARBLK_LOG_ERROR, NULL, NULL);
    must(farblk_ramdisk_create("fuzz", SECTORS, 512));
    must(farblk_open("ramdisk:fuzz", NULL, &disk));
    must(farblk_server_create(&options, &server));
    must(farblk_server_export(server, "disk", "ramdisk:fuzz"));
    /* The housekeeper's work is done here. */
    pthread_mutex_lock(&server->mutex);
    server->finished = true;
    pthread_cond_broadcast(&server->keeper_wake);
    pthread_mutex_unlock(&server->mutex);
    pthread_join(server->keeper, NULL);
    server->finished = false;
    hand.shm = server->shm;
    hand.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static struct session *
make_session(void)
{
    struct session *session = calloc(1, sizeof *session);
    if (session == NULL)
        wrong("no memory");
    block_charge_over(sizeof *session);
    session->server = server;
    session->id = 1;
    session->serial = 1;
    session->lowest = 1;
    session->bindings = 1;
    atomic_init(&session->refs, 2); /* the table's and ours */
    atomic_init(&session->state, SESSION_LIVE);
    atomic_init(&session->heard_ms, timer_recent());
    pthread_mutex_init(&session->mutex, NULL);
    pthread_mutex_lock(&server->mutex);
    server->sessions[1] = session;
    server->session_count++;
    server->session_objects++;
    pthread_mutex_unlock(&server->mutex);
    return session;
}

static void
make_handle(struct session *session)
{
    struct opened *opened = calloc(1, sizeof *opened);
    struct export *export = export_find(server, "disk");
    if (opened == NULL)
        wrong("no memory");
    opened->dev = handle_dup(export->dev, false);
    opened->session = session_get(session);
    opened->export = export;
    opened->number = UINT64_C(1) << 32 | 1;
    opened->sector_size = 512;
    atomic_init(&opened->refs, 1);
    session->opened[opened->number % SESSION_HANDLE_BUCKETS] = opened;
    session->handle_count = session->last_handle = 1;
}

static struct share *
make_share(struct session *session)
{
    const struct side_hello hello = {
        .depth = DEPTH, .rings = 1, .arena_octets = ARENA};
    struct shm *shm = server->shm;
    struct share *share = calloc(1, sizeof *share);
    struct error error;
    if (share == NULL)
        wrong("no memory");
    share->shm = shm;
    share->session = session_get(session);
    share->state = SHARE_ATTACHED;
    atomic_init(&share->refs, 2); /* the list's and ours */
    share->next = NULL;
    share->prev = &shm->shares;
    shm->shares = share;
    session->share = share;
    int fd = share_make_region(share, &hello, &error);
    if (fd < 0)
        wrong(error.text);
    close(fd);
    return share;
}

static struct shm_ring *
make_ring(struct share *share, int fd)
{
    struct shm_ring *ring = ring_create(share, 0, fd);
    if (ring == NULL)
        wrong("no memory");
    ring->hand = &hand;
    share->rings[0] = ring;
    share_get(share);
    share->shm->ring_count++;
    return ring;
}

/* ------------------------------------------------------------ the client */

static struct {
    struct ring_lane submissions, completions;
    uint64_t submitted, answered;
    struct ring *ring;
    uint8_t *arena;
    struct gate_waiter plug;
    bool plugged, lied;
} client;

static void
plugged(struct gate_waiter *waiter)
{
    (void)waiter;
}

static void
set_plug(bool in)
{
    struct gate *gate = &disk->device->gate;
    if (in == client.plugged)
        return;
    client.plugged = in;
    if (!in) {
        gate_leave(gate, true);
        return;
    }
    memset(&client.plug, 0, sizeof client.plug);
    client.plug.passed = plugged;
    if (!gate_enter(gate, &client.plug, true))
        wrong("a request was left in the disk");
}

static void
submit(bool nearly)
{
    static const uint16_t methods[] = {
        WIRE_READ,         WIRE_WRITE,       WIRE_FLUSH,        WIRE_DISCARD,
        WIRE_WRITE_ZEROES, WIRE_SEEK_MAPPED, WIRE_SEEK_UNMAPPED};
    struct ring_submission s = {.sequence = 0};
    s.tag = (uint32_t)draw(1) % (DEPTH + (nearly ? 0 : 2));
    s.method = nearly ? methods[draw(1) % 7] : (uint16_t)draw(1);
    s.flags = (uint16_t)(draw(1) % (nearly ? 8 : 17));
    s.number = nearly ? 1 + draw(1) : draw_number();
    s.behind = nearly ? (uint32_t)(s.number - 1) : (uint32_t)draw_number();
    s.deadline_ms = draw(1) % 4 == 0 ? 3600000 : 0;
    s.handle =
        nearly || draw(1) % 4 != 0 ? UINT64_C(1) << 32 | 1 : draw_number();
    s.sector = nearly ? draw(1) % SECTORS : draw_number();
    s.count = nearly ? draw(1) % 33 : draw_number();
    s.data = nearly ? draw(1) * 512 % ARENA : draw_number();
    ring_publish(client.submissions, client.submitted++, &s);
    ring_wants_bell(&client.ring->server_sleeps);
}

/* Any word of the ring: flags, entries, notes. */
static void
scribble(void)
{
    const uint64_t words = ring_octets(DEPTH) / sizeof(uint64_t);
    _Atomic(uint64_t) *all = (void *)client.ring;
    uint64_t at = draw(2) % words;
    atomic_store(&all[at], draw_number());
    /* A deadline that comes in the middle would be another thread's. */
    for (unsigned i = 0; i < DEPTH; i++)
        atomic_fetch_and(&client.submissions.entry[i].word[3],
                         UINT64_C(0xffffffff));
}

/* ------------------------------------------------------------ the checks */

static void
check_answers(const struct shm_ring *ring)
{
    uint64_t published = atomic_load(&ring->completed);
    if (published > ring->taken + 1)
        wrong("more answers than requests");
    client.answered = published;
}

/* What was answered last, as long as nobody has scribbled over it. */
static void
check_entries(uint64_t count)
{
    for (uint64_t p = count > DEPTH ? count - DEPTH : 0; p < count; p++) {
        struct ring_completion c;
        if (ring_look(client.completions, p) != RING_ENTRY)
            wrong("an answer that is not there");
        ring_take(client.completions, p, &c);
        if (c.tag >= DEPTH || c.status > 0 || c.effect > FARBLK_EFFECT_UNKNOWN
            || c.text >= RING_NOTE)
            wrong("an answer that can not be");
        if (c.status != 0 && c.text == 0)
            wrong("a failure without a text");
    }
}

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

static void
serve(struct shm_ring *ring)
{
    while (ring_serve(ring) > 0)
        ;
    check_answers(ring);
}

static void
play(struct shm_ring *ring, bool *scribbled)
{
    while (left > 0) {
        switch (draw(1) % 8) {
        case 0:
        case 1:
            submit(true);
            break;
        case 2:
            submit(false);
            break;
        case 3:
            *scribbled = true;
            scribble();
            break;
        case 4:
            set_plug(!client.plugged);
            break;
        case 5:
            client.arena[draw(2) % ARENA] = (uint8_t)draw(1);
            break;
        default:
            serve(ring);
            break;
        }
    }
    serve(ring);
    set_plug(false);
    serve(ring);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool scribbled = false;
    int pair[2];
    if (size > INPUT_MAX)
        return 0;
    if (server == NULL)
        begin_server();
    uint64_t memory = block_in_use();
    input = data;
    left = size;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        wrong("no socket");
    struct session *session = make_session();
    make_handle(session);
    struct share *share = make_share(session);
    struct shm_ring *ring = make_ring(share, pair[0]);
    memset(&client, 0, sizeof client);
    client.ring = ring_at(share->region, &share->shape, 0);
    client.submissions = ring_submissions(client.ring, DEPTH);
    client.completions = ring_completions(client.ring, DEPTH);
    client.arena = share->region + share->shape.arena_at;
    play(ring, &scribbled);
    /* A client that overwrites what was not taken overwrites it for himself. */
    if (!scribbled)
        check_entries(client.answered);
    if (atomic_load(&ring->holds) != 1)
        wrong("a request was left in the ring");
    if (atomic_load(&ring->ending) != !session_live(session))
        wrong("a ring and its session do not end together");
    atomic_store(&ring->ending, true);
    ring_release(ring);
    session_fence(session, "the input is over", NULL, SESSION_NOW);
    if (session->share != NULL || server->shm->shares != NULL)
        wrong("a share was left");
    share_put(share);
    while (close_handles())
        ;
    session_put(session);
    close(pair[1]);
    if (server->session_objects != 0 || server->session_count != 0)
        wrong("a session was left");
    if (server->shm->ring_count != 0 || server->shm->share_count != 0
        || server->shm->octets != 0)
        wrong("a region was left");
    must(farblk_discard(disk, 0, SECTORS, 0));
    if (block_in_use() > memory)
        wrong("memory was left");
    return 0;
}
