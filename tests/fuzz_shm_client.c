/* SPDX-License-Identifier: ISC */
/*
 * The client's end of a ring before a hostile server.  An input is what the
 * program asks for and what the server does to the region, step by step:
 * completions that are right, nearly right or anything, words anywhere in the
 * ring, and when the client looks.  One thread; the client is made by hand, around
 * its own rings (client/rings_io.c, client/arena.c).  What it tells core, and that
 * the session is lost, comes here (--wrap, fuzz.cmake).
 *
 * What must hold whatever comes: each io ends once, with a status that there is
 * and a value that can be; nothing is touched but its own buffers; a lie is the
 * end of the session.
 */
#include "client/rings.h"
#include "core/timer.h"
#include "tests/fuzz_draw.h"
#include "tests/fuzz_frames.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define INPUT_MAX 8192u
#define SECTOR 512u
#define DEPTH 8u
#define ARENA (32u * RING_PAGE)
#define IOS 12u

void __wrap_io_done(struct io *io, uint64_t value);
void __wrap_io_failed(struct io *io, int status, enum farblk_effect effect,
                      const char *format, ...);
void __wrap_session_lost(struct client *client, int status, const char *format,
                         ...);
void __wrap_device_reshape(struct device *device, uint64_t size,
                           uint64_t generation);

static struct slot {
    struct io io;
    struct iovec iov;
    uint8_t *buffer; /* in the arena, or not */
    size_t size;
    bool busy, shared;
} slots[IOS];

static struct client client;
static struct client_ring ring;
static struct rings *rings;
static struct ring_lane submissions, completions;
static uint64_t completed;
static bool lost;

static void __attribute__((noreturn)) wrong(const char *what)
{
    fprintf(stderr, "fuzz_shm_client: %s\n", what);
    abort();
}

/* ------------------------------------------------------------ what core hears */

static struct slot *
ended(struct io *io)
{
    struct slot *slot = (struct slot *)(void *)io;
    if (!slot->busy)
        wrong("an io ends twice");
    slot->busy = false;
    return slot;
}

void
__wrap_io_done(struct io *io, uint64_t value)
{
    bool seeks =
        io->op == FARBLK_OP_SEEK_MAPPED || io->op == FARBLK_OP_SEEK_UNMAPPED;
    ended(io);
    if (seeks ? value < io->offset || value > INT64_MAX : value != 0)
        wrong("a value that can not be");
}

void
__wrap_io_failed(struct io *io, int status, enum farblk_effect effect,
                 const char *format, ...)
{
    char text[2048];
    va_list args;
    ended(io);
    if (status >= 0 || error_known_status(status) != status
        || (unsigned)effect > FARBLK_EFFECT_UNKNOWN)
        wrong("a status or effect that is none");
    if (!calls_changes(io->op) && effect != FARBLK_EFFECT_NONE)
        wrong("an effect of what changes nothing");
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (length <= 0 || (size_t)length >= sizeof text)
        wrong("a text that is none");
    for (const char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            wrong("a control character in a text");
}

void
__wrap_session_lost(struct client *which, int status, const char *format, ...)
{
    (void)which, (void)format;
    if (status != FARBLK_PROTOCOL)
        wrong("the session is lost for no reason");
    lost = true;
}

void
__wrap_device_reshape(struct device *device, uint64_t size, uint64_t generation)
{
    (void)device, (void)generation;
    if (size > INT64_MAX)
        wrong("a size that can not be");
}

/* ------------------------------------------------------------ the client */

static int region_fd = -1, bells[2];

static void
make_client(void)
{
    const struct ring_shape shape = {
        .depth = DEPTH,
        .rings = 1,
        .ring_octets = ring_octets(DEPTH),
        .arena_at = ring_octets(DEPTH),
        .arena_octets = ARENA,
    };
    const size_t octets = ring_region_octets(&shape);
    memset(&client, 0, sizeof client);
    pthread_mutex_init(&client.mutex, NULL);
    atomic_init(&client.users, 1);
    atomic_init(&client.next_number, 1);
    client.state = CLIENT_UP;
    client.sector_size = SECTOR;
    client.handle = 7;
    client.next_id = 1;
    client.limits.max_requests = 64;
    if (ids_init(&client, 4) != 0)
        wrong("no memory");
    if (region_fd < 0) {
        region_fd = memfd_create("fuzz", MFD_CLOEXEC);
        if (region_fd < 0 || ftruncate(region_fd, (off_t)octets) != 0
            || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, bells) != 0)
            wrong("no region");
    }
    rings = calloc(1, sizeof *rings);
    if (rings == NULL)
        wrong("no memory");
    rings->client = &client;
    rings->shape = shape;
    rings->fd = region_fd;
    rings->region =
        mmap(NULL, octets, PROT_READ | PROT_WRITE, MAP_SHARED, region_fd, 0);
    if (rings->region == MAP_FAILED || !arena_init(rings))
        wrong("no region");
    memset(rings->region, 0, octets);
    pthread_mutex_init(&rings->mutex, NULL);
    atomic_init(&rings->users, 1);
    atomic_init(&rings->refs, 1);
    atomic_init(&rings->up, true);
    atomic_store(&client.rings, rings);
    client.regions = rings;
}

static void
make_ring(void)
{
    memset(&ring, 0, sizeof ring);
    atomic_init(&ring.alive, true);
    atomic_init(&ring.oldest, UINT64_MAX);
    pthread_mutex_init(&ring.mutex, NULL);
    ring.fd = bells[0];
    ring.depth = DEPTH;
    ring.client = &client;
    ring.rings = rings;
    ring.ring = ring_at(rings->region, &rings->shape, 0);
    ring.submissions = submissions = ring_submissions(ring.ring, DEPTH);
    ring.completions = completions = ring_completions(ring.ring, DEPTH);
    ring.tags = calloc(DEPTH, sizeof *ring.tags);
    ring.idle = calloc(DEPTH, sizeof *ring.idle);
    if (ring.tags == NULL || ring.idle == NULL)
        wrong("no memory");
    for (uint32_t i = DEPTH; i-- > 0;)
        ring.idle[ring.idle_count++] = i;
    atomic_store(&rings->made[0], &ring);
    atomic_store(&rings->made_count, 1);
}

static void
free_client(void)
{
    munmap(rings->region, ring_region_octets(&rings->shape));
    arena_fini(rings);
    pthread_mutex_destroy(&rings->mutex);
    free(rings);
    free(ring.tags);
    free(ring.idle);
    pthread_mutex_destroy(&ring.mutex);
    ids_fini(&client);
    pthread_mutex_destroy(&client.mutex);
}

static void
drop_buffer(struct slot *slot)
{
    if (slot->shared && !arena_buffer_free(&client, slot->buffer, slot->size))
        wrong("the arena does not know its buffer");
    if (!slot->shared)
        free(slot->buffer);
    slot->buffer = NULL;
    slot->shared = false;
}

/* The buffer of the slot, of the size, or one that it had before. */
static void
take_buffer(struct slot *slot, size_t size, bool shared, bool keep)
{
    if (keep && slot->buffer != NULL && slot->size == size)
        return;
    if (slot->buffer != NULL)
        drop_buffer(slot);
    slot->size = size;
    if (shared)
        slot->buffer = arena_buffer_alloc(&client, round_up(size, RING_PAGE));
    if ((slot->shared = slot->buffer != NULL))
        slot->size = round_up(size, RING_PAGE);
    else
        slot->buffer = malloc(size);
    if (slot->buffer == NULL)
        wrong("no memory");
    memset(slot->buffer, 1, slot->size);
}

static void
ask(void)
{
    static const enum farblk_op ops[] = {
        FARBLK_OP_READ,          FARBLK_OP_WRITE,        FARBLK_OP_FLUSH,
        FARBLK_OP_DISCARD,       FARBLK_OP_WRITE_ZEROES, FARBLK_OP_SEEK_MAPPED,
        FARBLK_OP_SEEK_UNMAPPED, FARBLK_OP_READ};
    struct slot *slot = &slots[draw(1) % IOS];
    unsigned kind = (unsigned)draw(1);
    size_t size = (1 + draw(1) % 20) * SECTOR;
    uint64_t offset = draw(1) * SECTOR;
    if (slot->busy)
        return;
    struct io *io = &slot->io;
    memset(io, 0, sizeof *io);
    io->op = ops[kind % 8];
    io->ring = &ring;
    io->deadline_ms = (kind & 8) != 0 ? timer_now() + 3600000 : 0;
    io->offset = io->whole_offset = offset;
    if (io->op == FARBLK_OP_READ || io->op == FARBLK_OP_WRITE) {
        take_buffer(slot, size, (kind & 16) != 0, (kind & 32) != 0);
        io->length = (kind & 16) != 0 ? slot->size : size;
        slot->iov = (struct iovec){slot->buffer, io->length};
        io->data = (struct iov_view){
            .iov = &slot->iov, .count = 1, .length = io->length};
    } else if (io->op == FARBLK_OP_DISCARD
               || io->op == FARBLK_OP_WRITE_ZEROES) {
        io->length = size;
    }
    io->whole_length = io->length + ((kind & 64) != 0 ? SECTOR : 0);
    slot->busy = true;
    if (!rings_submit(&client, io))
        slot->busy = false; /* by the socket: not here */
}

static void
give_up(void)
{
    struct slot *slot = &slots[draw(1) % IOS];
    if (slot->busy && slot->io.deadline_ms != 0)
        rings_cancel(&client, &slot->io);
    if (slot->busy && slot->io.deadline_ms != 0)
        wrong("what was given up has not ended");
}

/* ------------------------------------------------------------ the server */

/* One of the submissions that lie there is answered. */
static void
answer(bool right)
{
    struct ring_submission s = {.sequence = 0};
    struct ring_completion c = {.sequence = 0};
    ring_take(submissions, draw(1) % DEPTH, &s);
    c.tag = right || draw(1) % 4 != 0 ? s.tag : (uint32_t)draw_number();
    c.number = right || draw(1) % 4 != 0 ? s.number : draw_number();
    c.status = -(int32_t)(draw(1) % 24) * (int32_t)(draw(1) % 2);
    c.value = s.sector + draw(1);
    c.effect = (uint32_t)draw(1) % 3;
    c.text = (uint32_t)draw(1) % 64;
    c.generation = draw(1) % 4;
    c.size_sectors = 4096;
    if (!right) {
        c.status = (int32_t)draw_number();
        c.effect = (uint32_t)draw_number();
        c.text = (uint32_t)draw_number();
        c.value = draw_number();
        c.generation = draw_number();
        c.size_sectors = draw_number();
    }
    ring_publish(completions, completed++, &c);
    ring_wants_bell(&ring.ring->client_sleeps);
}

static void
scribble(void)
{
    const uint64_t words = ring_octets(DEPTH) / sizeof(uint64_t);
    _Atomic(uint64_t) *all = (void *)ring.ring;
    uint64_t at = draw(2) % words;
    atomic_store(&all[at], draw_number());
}

static void
play(void)
{
    while (left > 0 && !lost) {
        switch (draw(1) % 10) {
        case 0:
        case 1:
        case 2:
            ask();
            break;
        case 3:
        case 4:
            answer(true);
            break;
        case 5:
            answer(false);
            break;
        case 6:
            scribble();
            break;
        case 7:
            give_up();
            break;
        default:
            rings_reap(&ring);
            break;
        }
    }
    if (!lost)
        rings_reap(&ring);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > INPUT_MAX)
        return 0;
    input = data;
    left = size;
    lost = false;
    completed = 0;
    make_client();
    make_ring();
    play();
    /* The end: what is there yet is taken out, and each was there once. */
    pthread_mutex_lock(&ring.mutex);
    ring.dead = true;
    for (unsigned i = 0; i < DEPTH; i++) {
        struct io *io = rings_take_out(&ring, &ring.tags[i]);
        if (io != NULL)
            ended(io);
    }
    pthread_mutex_unlock(&ring.mutex);
    for (unsigned i = 0; i < IOS; i++) {
        if (slots[i].busy)
            wrong("an io was lost");
        if (slots[i].buffer != NULL)
            drop_buffer(&slots[i]);
    }
    if (atomic_load(&client.users) != 1 || atomic_load(&rings->users) != 1
        || atomic_load(&rings->refs) != 1)
        wrong("somebody is still inside");
    free_client();
    return 0;
}
