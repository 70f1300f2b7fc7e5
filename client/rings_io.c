/* SPDX-License-Identifier: ISC */
/*
 * Submissions and completions of a ring.
 *
 * The server is not trusted: a completion is copied and checked against the tag
 * that it names, and one that can not be ends the session.
 */
#include "client/rings.h"

#include "core/log.h"
#include "core/request.h"

#include <string.h>

#define RINGS_BATCH 32u /* completions in one go */
/* So often the lowest unanswered number is looked for. */
#define RINGS_LOWEST 128u

/* How an io ends. */
struct rings_end {
    struct io *io;
    int status;
    uint32_t effect;
    uint64_t value;
};

/* ------------------------------------------------------------ numbers */

static void
tag_list(struct client_ring *ring, struct client_tag *tag)
{
    tag->newer = NULL;
    tag->older = ring->last;
    *(ring->last != NULL ? &ring->last->newer : &ring->first) = tag;
    ring->last = tag;
}

static void
tag_unlist(struct client_ring *ring, struct client_tag *tag)
{
    *(tag->older != NULL ? &tag->older->newer : &ring->first) = tag->newer;
    *(tag->newer != NULL ? &tag->newer->older : &ring->last) = tag->older;
    if (!ring->dead)
        atomic_store(&ring->oldest,
                     ring->first != NULL ? ring->first->number : UINT64_MAX);
}

/* A number for a request that changes; 0: there is none now. */
static uint64_t
ring_number(struct client_ring *ring)
{
    struct client *client = ring->client;
    uint64_t next = atomic_load(&client->next_number);
    if (ring->lowest == 0 || next - ring->lowest >= RINGS_LOWEST) {
        pthread_mutex_lock(&client->mutex);
        ring->lowest = ids_lowest(client);
        pthread_mutex_unlock(&client->mutex);
    }
    if (next - ring->lowest >= WIRE_WINDOW / 2)
        return 0;
    /* Whoever sees the number taken sees that it may be here. */
    if (ring->first == NULL)
        atomic_store(&ring->oldest, next);
    return atomic_fetch_add(&client->next_number, 1);
}

/* ------------------------------------------------------------ submitting */

/* Where the data of the io goes.  False: there is no room. */
static bool
ring_place(struct client_ring *ring, struct client_tag *tag,
           const struct io *io)
{
    struct rings *rings = ring->rings;
    uint64_t at;
    tag->direct = false;
    if (io->op != FARBLK_OP_READ && io->op != FARBLK_OP_WRITE)
        return true;
    if (arena_direct(rings, io, &at)) {
        if (tag->room > 0)
            arena_give(rings, tag->at, tag->room);
        tag->direct = true;
        tag->at = at;
        tag->room = 0;
        return true;
    }
    if (tag->room >= io->length)
        return true;
    if (tag->room > 0)
        arena_give(rings, tag->at, tag->room);
    uint64_t octets = round_up(io->length, RING_PAGE);
    tag->room = arena_take(rings, octets, &tag->at) ? octets : 0;
    return tag->room > 0;
}

static void
ring_fill(struct client_ring *ring, struct client_tag *tag, const struct io *io,
          struct ring_submission *submission)
{
    const struct client *client = ring->client;
    const uint32_t sector = client->sector_size;
    submission->method = (uint16_t)send_method(io->op);
    submission->flags =
        (uint16_t)(((io->flags & FARBLK_FUA) != 0 ? RING_FUA : 0)
                   | ((io->flags & FARBLK_NO_UNMAP) != 0 ? RING_NO_UNMAP : 0));
    submission->number = tag->number;
    submission->behind = (uint32_t)(tag->number - ring->lowest);
    submission->deadline_ms = send_deadline(io);
    submission->handle = client->handle;
    submission->sector = io->offset / sector;
    submission->count = io->length / sector;
    submission->data = tag->at;
    bool ranged = io->op != FARBLK_OP_FLUSH && io->op != FARBLK_OP_SEEK_MAPPED
                  && io->op != FARBLK_OP_SEEK_UNMAPPED;
    if (!ranged) {
        submission->count = 0;
    } else if (io->whole_offset != io->offset
               || io->whole_length != io->length) {
        _Atomic(uint64_t) *note =
            (void *)ring_note(ring->ring, ring->depth, submission->tag);
        submission->flags |= RING_WHOLE;
        atomic_store_explicit(&note[0], io->whole_offset / sector,
                              memory_order_relaxed);
        atomic_store_explicit(&note[1], io->whole_length / sector,
                              memory_order_relaxed);
    }
    if (io->op == FARBLK_OP_WRITE && !tag->direct) {
        struct iov_view view = io->data;
        iov_copy_out(&view, arena_memory(ring->rings, tag->at), io->length);
    }
}

/* A timed io may be cancelled from now on.  False: it was before. */
static bool
ring_enter(struct client *client, struct io *io, uint32_t tag)
{
    if (io->deadline_ms == 0)
        return true;
    pthread_mutex_lock(&client->mutex);
    bool entered = io->scratch[CLIENT_IO_STATE] != CLIENT_IO_CANCELLED;
    if (entered) {
        io->scratch[CLIENT_IO_STATE] = CLIENT_IO_RINGED;
        io->scratch[CLIENT_IO_VALUE] = tag;
    }
    pthread_mutex_unlock(&client->mutex);
    return entered;
}

/* Under the ring's mutex. */
static bool
ring_submit(struct client_ring *ring, struct io *io)
{
    struct client *client = ring->client;
    if (ring->dead || ring->idle_count == 0)
        return false;
    uint32_t index = ring->idle[ring->idle_count - 1];
    struct client_tag *tag = &ring->tags[index];
    bool changes = calls_changes(io->op) || io->op == FARBLK_OP_FLUSH;
    if (!ring_place(ring, tag, io))
        return false;
    tag->number = 0;
    if (changes && (tag->number = ring_number(ring)) == 0)
        return false;
    if (!ring_enter(client, io, index)) {
        if (tag->number != 0 && ring->first == NULL)
            atomic_store(&ring->oldest, UINT64_MAX); /* it is not used */
        return false;
    }
    ring->idle_count--;
    tag->io = io;
    tag->flying = true;
    tag->late = false;
    tag->method = (uint16_t)send_method(io->op);
    tag->generation =
        atomic_load_explicit(&client->generation, memory_order_relaxed);
    tag->mark = atomic_load_explicit(&client->acked, memory_order_relaxed);
    if (changes)
        tag_list(ring, tag);
    struct ring_submission submission = {.tag = index};
    ring_fill(ring, tag, io, &submission);
    ring_publish(ring->submissions, ring->submitted++, &submission);
    return true;
}

bool
rings_submit(struct client *client, struct io *io)
{
    struct client_ring *ring = io->ring;
    bool rings_bell = false;
    if (atomic_load_explicit(&client->doubts, memory_order_relaxed) > 0)
        return false;
    pthread_mutex_lock(&ring->mutex);
    bool taken = ring_submit(ring, io);
    if (taken)
        rings_bell = ring_wants_bell(&ring->ring->server_sleeps);
    pthread_mutex_unlock(&ring->mutex);
    if (rings_bell)
        side_ring(ring->fd);
    return taken;
}

/* ------------------------------------------------------------ giving up */

struct io *
rings_take_out(struct client_ring *ring, struct client_tag *tag)
{
    struct io *io = tag->io;
    tag->io = NULL;
    if (io == NULL)
        return NULL;
    if (tag->late) /* it goes no other way */
        io->scratch[CLIENT_IO_STATE] = CLIENT_IO_CANCELLED;
    tag->late = false;
    if (tag->direct) {
        if (arena_sever(ring->rings, tag->at, io->length,
                        io->op == FARBLK_OP_WRITE))
            tag->severed = io->length;
        else
            log_error("no memory to take %llu octets away from the server's "
                      "reach",
                      (unsigned long long)io->length);
    }
    io->scratch[CLIENT_IO_NUMBER] = tag->number;
    return io;
}

void
rings_cancel(struct client *client, struct io *io)
{
    struct client_ring *ring = io->ring;
    int32_t timeout_ms = 0;
    pthread_mutex_lock(&ring->mutex);
    uint64_t index = io->scratch[CLIENT_IO_VALUE];
    struct client_tag *tag = index < ring->depth ? &ring->tags[index] : NULL;
    bool here = !ring->dead && tag != NULL && tag->io == io;
    bool asks = here && client->fences && calls_changes(io->op);
    uint64_t number = asks ? tag->number : 0;
    if (asks) {
        timeout_ms = io->request->timeout_ms;
        tag->late = true;
        ring_get(ring);
    } else if (here) {
        rings_take_out(ring, tag);
    }
    pthread_mutex_unlock(&ring->mutex);
    if (!here) {
        /* It has ended; or its ring has, and it is about to go by the
         * socket. */
        pthread_mutex_lock(&client->mutex);
        if (io->scratch[CLIENT_IO_STATE] == CLIENT_IO_RINGED)
            io->scratch[CLIENT_IO_STATE] = CLIENT_IO_CANCELLED;
        pthread_mutex_unlock(&client->mutex);
        return;
    }
    if (!asks) {
        io_failed(io, FARBLK_TIMED_OUT,
                  calls_changes(io->op) ? FARBLK_EFFECT_UNKNOWN
                                        : FARBLK_EFFECT_NONE,
                  "%s", cancel_text_late);
        return;
    }
    /* It may end now by its reply, and at the latest by rings_give_up(). */
    struct batch batch = {NULL, NULL, NULL, NULL};
    pthread_mutex_lock(&client->mutex);
    bool waits = cancel_waits_in_ring(client, timeout_ms, ring, (uint32_t)index,
                                      number, &batch);
    pthread_mutex_unlock(&client->mutex);
    calls_run(client, &batch);
    if (!waits) {
        rings_give_up(ring, (uint32_t)index, number, FARBLK_EFFECT_UNKNOWN);
        ring_put(ring);
    }
}

void
rings_give_up(struct client_ring *ring, uint32_t index, uint64_t number,
              enum farblk_effect effect)
{
    struct client_tag *tag = &ring->tags[index];
    pthread_mutex_lock(&ring->mutex);
    bool here = !ring->dead && tag->late && tag->number == number;
    struct io *io = here ? rings_take_out(ring, tag) : NULL;
    pthread_mutex_unlock(&ring->mutex);
    if (io != NULL)
        io_failed(io, FARBLK_TIMED_OUT, effect, "%s",
                  effect == FARBLK_EFFECT_NONE ? cancel_text_fenced
                                               : cancel_text_late);
}

/* ------------------------------------------------------------ completions */

/* What can not be, or NULL. */
static const char *
ring_flaw(const struct client_ring *ring,
          const struct ring_completion *completion)
{
    if (completion->tag >= ring->depth || !ring->tags[completion->tag].flying)
        return "a tag that has not been used";
    const struct client_tag *tag = &ring->tags[completion->tag];
    if (completion->number != tag->number)
        return "another request's number";
    if (completion->status > 0 || completion->effect > FARBLK_EFFECT_UNKNOWN
        || completion->text >= RING_NOTE)
        return "a status, effect or length that is none";
    return NULL;
}

/* A seek's answer.  NULL, or what is wrong with it. */
static const char *
ring_seek(const struct client_ring *ring, const struct client_tag *tag,
          const struct ring_completion *completion, uint64_t *value)
{
    const uint32_t sector = ring->client->sector_size;
    uint64_t limit = INT64_MAX / sector;
    if (completion->generation != 0
        && completion->generation == tag->generation)
        limit = min_u64(limit, completion->size_sectors);
    if (completion->value < tag->io->offset / sector)
        return "a sector before the start";
    if (completion->value > limit)
        return "a sector past the end";
    *value = completion->value * sector;
    return NULL;
}

/* How the tag's io ends; NULL, or what is wrong. */
static const char *
ring_end_io(struct client_ring *ring, struct client_tag *tag,
            const struct ring_completion *completion, struct rings_end *end)
{
    struct io *io = tag->io;
    *end = (struct rings_end){.io = io,
                              .status = error_known_status(completion->status)};
    if (io == NULL)
        return NULL;
    if (end->status != 0) {
        end->effect =
            calls_changes(io->op) ? completion->effect : FARBLK_EFFECT_NONE;
        char text[RING_NOTE]; /* that nobody changes while it is checked */
        memcpy(text, ring_note(ring->ring, ring->depth, completion->tag),
               completion->text);
        error_copy_text(ring->text, sizeof ring->text, text, completion->text);
        if (ring->text[0] == '\0')
            strcpy(ring->text, "the server gives no reason");
        return NULL;
    }
    if (io->op == FARBLK_OP_SEEK_MAPPED || io->op == FARBLK_OP_SEEK_UNMAPPED)
        return ring_seek(ring, tag, completion, &end->value);
    if (io->op == FARBLK_OP_READ && !tag->direct) {
        struct iov_view view = io->data;
        iov_copy_in(&view, arena_memory(ring->rings, tag->at), io->length);
    }
    return NULL;
}

/* It went well: what is acknowledged, and what is stable. */
static void
ring_note_done(struct client *client, const struct client_tag *tag)
{
    const struct io *io = tag->io;
    if (calls_changes(io->op)) {
        if ((io->flags & FARBLK_FUA) == 0)
            atomic_fetch_add_explicit(&client->acked, 1, memory_order_relaxed);
    } else if (io->op == FARBLK_OP_FLUSH) {
        pthread_mutex_lock(&client->mutex);
        client->stable = max_u64(client->stable, tag->mark);
        pthread_mutex_unlock(&client->mutex);
    }
}

/* The server is done with it. */
static void
ring_free_tag(struct client_ring *ring, uint32_t index)
{
    struct client_tag *tag = &ring->tags[index];
    tag->flying = tag->late = false;
    tag->io = NULL;
    if (tag->number != 0)
        tag_unlist(ring, tag);
    if (tag->severed > 0) {
        arena_answered(ring->rings, tag->at, tag->severed);
        tag->severed = 0;
    }
    if (!tag->direct && tag->room > RINGS_KEEP) {
        arena_give(ring->rings, tag->at, tag->room);
        tag->room = 0;
    }
    ring->idle[ring->idle_count++] = index;
}

/* Under the mutex: take some completions; how many, and how their ios end.  At
 * most one has failed, the last.  *flaw: what is wrong, or NULL. */
static unsigned
ring_collect(struct client_ring *ring, struct rings_end *ends, unsigned *ended,
             struct ring_completion *last, const char **flaw)
{
    unsigned count = 0;
    *ended = 0;
    *flaw = NULL;
    while (!ring->dead && count < RINGS_BATCH) {
        enum ring_found found = ring_look(ring->completions, ring->taken);
        if (found == RING_NOTHING)
            break;
        if (found == RING_LIE) {
            *flaw = "a sequence that is not the next";
            break;
        }
        ring_take(ring->completions, ring->taken, last);
        *flaw = ring_flaw(ring, last);
        struct rings_end *end = &ends[*ended];
        if (*flaw == NULL)
            *flaw = ring_end_io(ring, &ring->tags[last->tag], last, end);
        if (*flaw != NULL)
            break;
        ring->taken++;
        count++;
        if (end->io != NULL && end->status == 0)
            ring_note_done(ring->client, &ring->tags[last->tag]);
        ring_free_tag(ring, last->tag);
        *ended += end->io != NULL;
        if (end->io != NULL && end->status != 0)
            break;
    }
    return count;
}

bool
rings_reap(void *state)
{
    struct client_ring *ring = state;
    struct rings_end ends[RINGS_BATCH];
    struct ring_completion last;
    char text[RING_NOTE];
    const char *flaw;
    unsigned count, ended;
    bool some = false;
    do {
        pthread_mutex_lock(&ring->mutex);
        struct client *client = ring->client;
        count = ring_collect(ring, ends, &ended, &last, &flaw);
        if (ended > 0 && ends[ended - 1].status != 0)
            memcpy(text, ring->text, sizeof text);
        if (count > 0 || flaw != NULL)
            client_enter(client); /* while something of it ends here */
        pthread_mutex_unlock(&ring->mutex);
        if (count == 0 && flaw == NULL)
            break;
        some = true;
        if (flaw == NULL && last.generation != 0
            && last.generation
                   != atomic_load_explicit(&ring->told, memory_order_relaxed)) {
            if (replies_reshape(client, last.size_sectors, last.generation))
                atomic_store_explicit(&ring->told, last.generation,
                                      memory_order_relaxed);
            else
                flaw = "a device that is too large";
        }
        for (unsigned i = 0; i < ended; i++) {
            if (ends[i].status == 0)
                io_done(ends[i].io, ends[i].value);
            else
                io_failed(ends[i].io, ends[i].status,
                          (enum farblk_effect)ends[i].effect, "%s", text);
        }
        if (flaw != NULL)
            session_lost(client, FARBLK_PROTOCOL,
                         "%s broke the protocol (PROTOCOL): a completion in "
                         "shared memory: %s",
                         client->target, flaw);
        client_leave(client);
    } while (count > 0 && flaw == NULL);
    return some;
}
