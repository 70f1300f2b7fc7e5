/* SPDX-License-Identifier: ISC */
/*
 * Rings: what a submission becomes, and how its completion is put back.
 *
 * A completion is put back by whichever thread brings it: positions are handed
 * out by one atomic addition, and each entry is published for itself.  A client
 * that submits more than he collects overwrites his own completions and nobody
 * else's.
 *
 * What submissions may do to the server is bounded by the ring's slots: a tag
 * that is in use, or a sequence that is not the next, is a lie and ends the
 * session.
 */
#include "server/shm_ring.h"

#include "core/block.h"
#include "core/log.h"
#include "proto/codec.h"
#include "server/dispatch.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RING_BATCH 16u /* submissions of one ring in one go */
#define RING_KEPT_MIN 8192u /* octets of a write that a ramdisk keeps whole */

/* The ring that this thread is at.  To wake a client takes longer than most
 * answers, and he would come for the first one alone; so where the hand itself
 * answers, the bell waits for the others that it has found, unless they move as
 * much as may take long. */
static _Thread_local struct shm_ring *serving;
#define RING_UNRUNG 65536u /* octets */
#define RING_ANSWER 512u /* what an answer takes beside its data, in such */

/* ------------------------------------------------------------ completions */

void
ring_release(struct shm_ring *ring)
{
    struct share *share = ring->share;
    struct shm *shm = share->shm;
    if (atomic_fetch_sub_explicit(&ring->holds, 1, memory_order_acq_rel) != 1)
        return;
    if (ring->opened != NULL)
        opened_put(ring->opened);
    close(ring->fd); /* the client learns that nothing of it runs any more */
    pthread_mutex_lock(&shm->mutex);
    share->rings[ring->index] = NULL;
    shm->ring_count--;
    pthread_mutex_unlock(&shm->mutex);
    free(ring->slots);
    free(ring);
    share_put(share);
}

/* Wake the client if he sleeps. */
static void
ring_bell(struct shm_ring *ring)
{
    if (serving == ring)
        ring->unrung = 0;
    if (ring_wants_bell(&ring->ring->client_sleeps))
        side_ring(ring->fd);
}

/* The outcome goes to the client; the slot is free, and may be used again before
 * this returns. */
static void
slot_answer(struct shm_slot *slot, const struct error *error, uint64_t value)
{
    struct shm_ring *ring = slot->ring;
    const uint64_t octets = RING_ANSWER + slot->iov.iov_len;
    struct ring_completion completion = {
        .tag = slot->tag,
        .status = error->status,
        .number = slot->number,
        .value = error->status == 0 ? value : 0,
    };
    if (slot->opened != NULL) {
        opened_shape(slot->opened, &completion.generation,
                     &completion.size_sectors);
        opened_put(slot->opened);
        slot->opened = NULL;
    }
    if (error->status != 0) {
        completion.effect = (uint32_t)error->effect;
        completion.text = (uint32_t)strnlen(error->text, RING_NOTE - 1);
        memcpy(ring_note(ring->ring, ring->depth, slot->tag), error->text,
               completion.text);
    }
    atomic_fetch_add_explicit(&ring->share->shm->server->completed, 1,
                              memory_order_relaxed);
    atomic_store_explicit(&slot->busy, false, memory_order_release);
    uint64_t position =
        atomic_fetch_add_explicit(&ring->completed, 1, memory_order_relaxed);
    ring_publish(ring->completions, position, &completion);
    if (serving != ring) {
        ring_bell(ring);
    } else {
        ring->unrung += octets;
        if (ring->unrung > RING_UNRUNG)
            ring_bell(ring);
    }
    ring_release(ring);
}

static void
slot_done(struct request *request)
{
    struct shm_slot *slot = request->owner;
    block_put(slot->block);
    slot->block = NULL;
    if (slot->kept != NULL)
        session_ring_finish(slot->ring->share->session, slot->kept,
                            &request->error, request->value);
    slot->kept = NULL;
    slot_answer(slot, &request->error, request->value);
}

/* ------------------------------------------------------------ submissions */

static const uint8_t ring_ops[] = {
    [WIRE_READ] = FARBLK_OP_READ,
    [WIRE_WRITE] = FARBLK_OP_WRITE,
    [WIRE_FLUSH] = FARBLK_OP_FLUSH,
    [WIRE_DISCARD] = FARBLK_OP_DISCARD,
    [WIRE_WRITE_ZEROES] = FARBLK_OP_WRITE_ZEROES,
    [WIRE_SEEK_MAPPED] = FARBLK_OP_SEEK_MAPPED,
    [WIRE_SEEK_UNMAPPED] = FARBLK_OP_SEEK_UNMAPPED,
};

/* The handle that it names, with a reference for the slot. */
static bool
slot_open(struct shm_slot *slot, uint64_t number, struct error *error)
{
    struct shm_ring *ring = slot->ring;
    struct session *session = ring->share->session;
    if (ring->opened == NULL || ring->opened->number != number) {
        pthread_mutex_lock(&session->mutex);
        struct opened *opened = opened_find(session, number);
        bool was = opened_was(session, number);
        pthread_mutex_unlock(&session->mutex);
        if (opened == NULL) {
            error_set(error, was ? FARBLK_DISCONNECTED : FARBLK_NOT_FOUND,
                      was ? "%s: handle %llu is disconnected"
                          : "%s: no handle %llu in this session",
                      codec_method_name(slot->method),
                      (unsigned long long)number);
            return false;
        }
        if (ring->opened != NULL)
            opened_put(ring->opened);
        ring->opened = opened;
    }
    slot->opened = opened_get(ring->opened);
    return true;
}

/* A write's data in memory that nobody else can change, where that matters, or
 * where the driver will keep it. */
static bool
slot_private(struct shm_slot *slot, struct error *error)
{
    struct request *request = &slot->request;
    uint32_t length = (uint32_t)slot->iov.iov_len;
    struct farblk *dev = slot->opened->dev;
    bool must = !request_looks_once(dev);
    bool keeps = request_lends(dev) && length >= RING_KEPT_MIN
                 && is_power_of_two(length);
    if (!must && !keeps)
        return true;
    slot->block = request_wants_aligned(dev) ? block_alloc_aligned(length)
                                             : block_alloc(length);
    if (slot->block == NULL) {
        if (must)
            error_set(error, FARBLK_NO_SPACE,
                      "%s: no memory for %u octets; %llu of the limit of %llu "
                      "are in use",
                      codec_method_name(slot->method), length,
                      (unsigned long long)block_counted(),
                      (unsigned long long)block_limit());
        return !must;
    }
    memcpy(slot->block->data, slot->iov.iov_base, length);
    slot->iov.iov_base = slot->block->data;
    request->payload = slot->block;
    return true;
}

/* Where the data of a read or write is. */
static bool
slot_data(struct shm_slot *slot, const struct ring_submission *submission,
          struct error *error)
{
    const struct share *share = slot->ring->share;
    struct request *request = &slot->request;
    uint32_t most = share->shm->server->limits.max_payload;
    uint64_t length;
    if (!checked_mul(submission->count, slot->opened->sector_size, &length)
        || length > most) {
        error_set(error, FARBLK_INVALID,
                  "%s: %llu sectors of %u octets are more than this server's "
                  "limit of %u octets in one request",
                  codec_method_name(slot->method),
                  (unsigned long long)submission->count,
                  slot->opened->sector_size, most);
        return false;
    }
    if (!range_within(submission->data, length, share->shape.arena_octets)) {
        error_set(error, FARBLK_INVALID,
                  "%s: %llu octets at %llu of the arena reach past its end, "
                  "%llu",
                  codec_method_name(slot->method), (unsigned long long)length,
                  (unsigned long long)submission->data,
                  (unsigned long long)share->shape.arena_octets);
        return false;
    }
    slot->iov.iov_base =
        share->region + share->shape.arena_at + submission->data;
    slot->iov.iov_len = (size_t)length;
    request->iov = &slot->iov;
    request->iovcnt = 1;
    return slot->method != WIRE_WRITE || length == 0
           || slot_private(slot, error);
}

/* The range of the whole operation, which lies in the note. */
static void
slot_whole(struct shm_slot *slot)
{
    const struct shm_ring *ring = slot->ring;
    struct request *request = &slot->request;
    _Atomic(uint64_t) *note =
        (void *)ring_note(ring->ring, ring->depth, slot->tag);
    request->has_whole = true;
    request->whole_sector =
        atomic_load_explicit(&note[0], memory_order_relaxed);
    request->whole_count = atomic_load_explicit(&note[1], memory_order_relaxed);
}

/* Fill the request.  False, with the error: it is refused. */
static bool
slot_fill(struct shm_slot *slot, const struct ring_submission *submission,
          struct error *error)
{
    struct request *request = &slot->request;
    if (submission->method >= sizeof ring_ops
        || ring_ops[submission->method] == 0) {
        error_set(error, FARBLK_UNIMPLEMENTED,
                  "method %u does not go by a ring", submission->method);
        return false;
    }
    if ((submission->flags & ~RING_FLAGS) != 0) {
        error_set(
            error, FARBLK_INVALID, "%s: flags 0x%x, of which 0x%x are known",
            codec_method_name(slot->method), submission->flags, RING_FLAGS);
        return false;
    }
    if (!slot_open(slot, submission->handle, error))
        return false;
    request->handle = slot->opened->dev;
    request->op = (enum farblk_op)ring_ops[submission->method];
    request->flags =
        ((submission->flags & RING_FUA) != 0 ? (uint32_t)FARBLK_FUA : 0)
        | ((submission->flags & RING_NO_UNMAP) != 0 ? (uint32_t)FARBLK_NO_UNMAP
                                                    : 0);
    request->sector = submission->sector;
    request->count = submission->count;
    request->iov = NULL;
    request->iovcnt = 0;
    request->payload = NULL;
    request->timeout_ms = (int32_t)min_u64(submission->deadline_ms, INT32_MAX);
    request->has_whole = false;
    if ((submission->flags & RING_WHOLE) != 0)
        slot_whole(slot);
    return slot->method != WIRE_READ && slot->method != WIRE_WRITE
               ? true
               : slot_data(slot, submission, error);
}

/* It is not executed.  Kept as the outcome of its number all the same. */
static void
slot_refuse(struct shm_slot *slot, const struct ring_submission *submission,
            struct error *error)
{
    struct session *session = slot->ring->share->session;
    struct kept *kept;
    struct error unused;
    uint64_t value = 0;
    if (submission->number != 0 && dispatch_changes(slot->method)) {
        enum session_verdict verdict =
            session_ring_start(session, submission, &kept, &unused, &value);
        if (verdict == SESSION_START)
            session_ring_finish(session, kept, error, 0);
        else if (verdict == SESSION_REPEATED)
            *error = unused;
    }
    block_put(slot->block);
    slot->block = NULL;
    slot_answer(slot, error, value);
}

/* Begin what the client asks for.  False: he lies. */
static bool
ring_begin(struct shm_ring *ring, const struct ring_submission *submission)
{
    struct session *session = ring->share->session;
    if (submission->tag >= ring->depth)
        return false;
    struct shm_slot *slot = &ring->slots[submission->tag];
    if (atomic_load_explicit(&slot->busy, memory_order_acquire))
        return false;
    struct error error;
    error.status = 0;
    atomic_store_explicit(&slot->busy, true, memory_order_relaxed);
    atomic_fetch_add_explicit(&ring->holds, 1, memory_order_relaxed);
    slot->method = submission->method;
    slot->number = submission->number;
    slot->kept = NULL;
    slot->iov.iov_len = 0;
    if (!slot_fill(slot, submission, &error)) {
        slot_refuse(slot, submission, &error);
        return true;
    }
    if (dispatch_changes(submission->method)) {
        uint64_t value = 0;
        enum session_verdict verdict = session_ring_start(
            session, submission, &slot->kept, &error, &value);
        if (verdict != SESSION_START) {
            slot->kept = NULL;
            block_put(slot->block);
            slot->block = NULL;
            slot_answer(slot, &error, value);
            return true;
        }
    }
    request_submit(&slot->request);
    return true;
}

static void
ring_lied(struct shm_ring *ring, const char *how, uint64_t value)
{
    struct session *session = ring->share->session;
    log_warning("session %u: ring %u of its shared memory lies: %s (%llu); the "
                "session ends",
                session->serial, ring->index, how, (unsigned long long)value);
    session_fence(session, "broke the rules of shared memory", NULL,
                  SESSION_REVOKED);
    atomic_store(&ring->ending, true); /* whatever became of the session */
    atomic_store(&ring->hand->mail, true);
}

/* Another read waits behind the one that is about to begin: its memory may come
 * meanwhile.  Of what the submission says nothing is relied on. */
static void
ring_foresee(const struct shm_ring *ring)
{
    struct ring_submission next;
    if (ring_look(ring->submissions, ring->taken + 1) != RING_ENTRY)
        return;
    ring_take(ring->submissions, ring->taken + 1, &next);
    if (next.method == WIRE_READ && ring->opened != NULL
        && ring->opened->number == next.handle)
        request_foresee(ring->opened->dev, next.sector);
}

/* Whether it takes no longer than to move its data; a discard may. */
static bool
ring_moves(const struct ring_submission *submission)
{
    return submission->method == WIRE_READ || submission->method == WIRE_WRITE;
}

/* Take some submissions; how many. */
unsigned
ring_serve(struct shm_ring *ring)
{
    struct ring_submission submission;
    unsigned count = 0;
    serving = ring;
    while (count < RING_BATCH
           && !atomic_load_explicit(&ring->ending, memory_order_relaxed)) {
        enum ring_found found = ring_look(ring->submissions, ring->taken);
        if (found == RING_NOTHING)
            break;
        if (found == RING_LIE) {
            ring_lied(ring, "a sequence that is not the next", ring->taken);
            break;
        }
        ring_take(ring->submissions, ring->taken, &submission);
        if (ring->unrung > 0 && !ring_moves(&submission))
            ring_bell(ring);
        ring_foresee(ring);
        if (!ring_begin(ring, &submission)) {
            ring_lied(ring, "a tag that is in use or none", submission.tag);
            break;
        }
        ring->taken++;
        count++;
    }
    if (ring->unrung > 0)
        ring_bell(ring);
    serving = NULL;
    return count;
}

/* ------------------------------------------------------------ memory */

struct shm_ring *
ring_create(struct share *share, uint32_t index, int fd)
{
    const struct ring_shape *shape = &share->shape;
    struct shm_ring *ring = aligned_alloc(64, sizeof *ring);
    struct shm_slot *slots = calloc(shape->depth, sizeof *slots);
    if (ring == NULL || slots == NULL) {
        free(ring);
        free(slots);
        return NULL;
    }
    memset(ring, 0, sizeof *ring);
    ring->share = share;
    ring->index = index;
    ring->depth = shape->depth;
    ring->fd = fd;
    ring->ring = ring_at(share->region, shape, index);
    ring->submissions = ring_submissions(ring->ring, shape->depth);
    ring->completions = ring_completions(ring->ring, shape->depth);
    ring->slots = slots;
    atomic_init(&ring->holds, 1);
    for (uint32_t i = 0; i < shape->depth; i++) {
        slots[i].ring = ring;
        slots[i].tag = i;
        slots[i].request.done = slot_done;
        slots[i].request.owner = &slots[i];
    }
    return ring;
}

void
ring_discard(struct shm_ring *ring)
{
    if (ring != NULL)
        free(ring->slots);
    free(ring);
}
