/* SPDX-License-Identifier: ISC */
/* The ring of read and write. */
#include "tools/ring.h"

#include <stdio.h>
#include <string.h>

int
ring_begin(struct ring *ring, const struct tool_device *device, uint32_t op,
           uint32_t flags)
{
    int status;

    memset(ring, 0, sizeof *ring);
    ring->device = device;
    ring->op = op;
    ring->flags = flags;
    ring->verb = op == FARBLK_OP_READ ? "read" : "write";
    ring->request_size = tool_request_size(device, NULL);
    status = farblk_queue_create(RING_DEPTH, &ring->queue);
    if (status < 0) {
        ring->queue = NULL;
        return tool_fail_last(status, NULL);
    }
    ring->buffers = farblk_buffer_alloc(device->dev, (size_t)ring->request_size
                                                         * RING_DEPTH);
    if (ring->buffers == NULL) {
        farblk_queue_destroy(ring->queue);
        return tool_fail(FARBLK_NO_MEMORY, "no memory for %u buffers of %u",
                         RING_DEPTH, ring->request_size);
    }
    for (size_t i = 0; i < RING_DEPTH; i++)
        ring->slot[i].iov.iov_base = ring->buffers + i * ring->request_size;
    return TOOL_FINE;
}

void
ring_end(struct ring *ring)
{
    farblk_queue_destroy(ring->queue);
    farblk_buffer_free(ring->device->dev, ring->buffers,
                       (size_t)ring->request_size * RING_DEPTH);
}

static void
ring_failed(struct ring *ring, const struct ring_slot *slot)
{
    static const char *const effects[] = {
        [FARBLK_EFFECT_NONE] = "",
        [FARBLK_EFFECT_DONE] = "; it has happened nevertheless",
        [FARBLK_EFFECT_UNKNOWN] = "; it may have happened in part",
    };

    ring->result = tool_fail(
        slot->status, "%s of %zu octets at octet %llu: %s%s", ring->verb,
        slot->iov.iov_len, (unsigned long long)slot->offset, slot->text,
        slot->effect <= FARBLK_EFFECT_UNKNOWN ? effects[slot->effect] : "");
}

static void
ring_ended(struct ring_slot *slot, int status, uint32_t effect,
           const char *text)
{
    slot->busy = false;
    slot->status = status;
    slot->effect = effect;
    snprintf(slot->text, sizeof slot->text, "%s", text);
}

void
ring_submit(struct ring *ring, struct ring_slot *slot)
{
    struct farblk_request request = {
        .size = sizeof request,
        .op = ring->op,
        .flags = ring->flags,
        .dev = ring->device->dev,
        .sector = slot->offset / ring->device->info.sector_size,
        .iov = &slot->iov,
        .iovcnt = 1,
        .user = slot,
    };
    int status = farblk_submit(ring->queue, &request);

    slot->busy = true;
    if (status < 0)
        ring_ended(slot, status, FARBLK_EFFECT_NONE, farblk_last_text());
}

void
ring_wait(struct ring *ring, const struct ring_slot *slot)
{
    struct farblk_completion done[RING_DEPTH];

    while (slot->busy) {
        int count =
            farblk_collect(ring->queue, done, sizeof *done, RING_DEPTH, -1);

        if (count <= 0) {
            ring->result =
                count < 0 ? tool_fail_last(count, NULL)
                          : tool_fail(FARBLK_UNKNOWN, "a request was lost");
            return;
        }
        for (int i = 0; i < count; i++)
            ring_ended(done[i].user, done[i].status, done[i].effect,
                       done[i].text);
    }
    if (slot->status < 0 && ring->result == TOOL_FINE)
        ring_failed(ring, slot);
}
