/* SPDX-License-Identifier: ISC */
/* What the engine needs before it runs: sizes, scans, more handles, queue, slots
 * and their buffers. */
#include "tools/engine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* By default: */
#define ENGINE_OCTETS (8u << 20) /* under way */
#define ENGINE_BUFFERS (32u << 20) /* which few of the requests fill */
#define ENGINE_REQUESTS 256u /* no more than that */
#define ENGINE_SIZE (1u << 20) /* of a request */
#define ENGINE_PER_HANDLE (4u << 20) /* worth one more connection */
#define ENGINE_OCTETS_MAX (1u << 30) /* of all buffers, when told */
#define ENGINE_SIZE_MAX (64u << 20)
#define ENGINE_REQUESTS_MAX 1024u

/* What the devices prefer, or several times that: there is much to be moved, and
 * each request costs some hand-overs between threads. */
static uint64_t
engine_size(const struct engine *engine)
{
    const struct tool_device *a = &engine->device[0], *b = &engine->device[1];
    uint64_t size = tool_request_size(a, b);

    while (!engine->has_requests && 2 * size <= ENGINE_SIZE
           && (a->info.max_transfer == 0 || 2 * size <= a->info.max_transfer)
           && (b->info.max_transfer == 0 || 2 * size <= b->info.max_transfer))
        size *= 2;
    return size;
}

/* Sizes: what was given, checked, or what suits. */
static int
engine_tune(struct engine *engine)
{
    unsigned buffers = engine->job->buffers;

    engine->unit = tool_sector(&engine->device[0], &engine->device[1]);
    if (!engine->has_request_size)
        engine->request_size = engine_size(engine);
    if (engine->request_size == 0 || engine->request_size > ENGINE_SIZE_MAX
        || engine->request_size % engine->unit != 0)
        return tool_usage("--request-size: %" PRIu64
                          " is not a multiple of the "
                          "sector, %u octets, up to %u",
                          engine->request_size, engine->unit, ENGINE_SIZE_MAX);
    if (!engine->has_requests) {
        engine->requests = ENGINE_BUFFERS / (engine->request_size * buffers);
        if (engine->requests < 1)
            engine->requests = 1;
        if (engine->requests > ENGINE_REQUESTS)
            engine->requests = ENGINE_REQUESTS;
    }
    if (engine->requests == 0 || engine->requests > ENGINE_REQUESTS_MAX)
        return tool_usage("--requests: %" PRIu64 " is not within 1 ... %u",
                          engine->requests, ENGINE_REQUESTS_MAX);
    if (engine->requests * engine->request_size * buffers > ENGINE_OCTETS_MAX)
        return tool_usage("%" PRIu64 " requests of %" PRIu64 " octets are more "
                          "than %u octets of buffers",
                          engine->requests, engine->request_size,
                          ENGINE_OCTETS_MAX);
    engine->flight_max = engine->requests * engine->request_size;
    if (!engine->has_requests && engine->flight_max > ENGINE_OCTETS / buffers)
        engine->flight_max = ENGINE_OCTETS / buffers;
    if (engine->flight_max < engine->request_size)
        engine->flight_max = engine->request_size;
    return TOOL_FINE;
}

/* Buffers come from a device that can move them without copying: of a local
 * and a remote one, that is the remote one. */
static bool
engine_alloc(struct engine *engine)
{
    bool first_is_local =
        strcmp(engine->device[0].info.transport, "local") == 0;

    engine->slots = calloc(engine->requests, sizeof *engine->slots);
    if (engine->slots == NULL)
        return false;
    engine->arena_size = (size_t)(engine->requests * engine->request_size);
    for (unsigned i = 0; i < engine->job->buffers; i++) {
        engine->arena_side[i] = engine->job->buffers == 2 ? i
                                : first_is_local          ? 1
                                                          : 0;
        engine->arena[i] = farblk_buffer_alloc(
            engine->device[engine->arena_side[i]].dev, engine->arena_size);
        if (engine->arena[i] == NULL)
            return false;
    }
    for (uint64_t i = engine->requests; i-- > 0;) {
        struct engine_slot *slot = &engine->slots[i];

        for (unsigned side = 0; side < 2; side++) {
            slot->op[side].slot = slot;
            slot->op[side].side = side;
            if (engine->arena[side] != NULL)
                slot->buffer[side] =
                    engine->arena[side] + i * engine->request_size;
        }
        slot->next = engine->free;
        engine->free = slot;
    }
    return true;
}

/* Open one more handle of a side: of the same device, as far as can be seen, or
 * none; then the work goes on with those that there are. */
static bool
engine_open(struct engine *engine, unsigned side)
{
    const struct tool_device *device = &engine->device[side];
    const struct farblk_options options = {
        .size = sizeof options, .read_only = !device->info.read_write};
    struct farblk_info info;
    struct farblk *dev;

    if (farblk_open(device->uri, &options, &dev) < 0)
        return false;
    if (farblk_get_info(dev, &info, sizeof info) < 0
        || info.sector_size != device->info.sector_size
        || info.size_sectors != device->info.size_sectors
        || info.generation != device->info.generation
        || info.read_write != device->info.read_write) {
        farblk_close(dev);
        return false;
    }
    engine->handle[side][engine->handles[side]++] = dev;
    return true;
}

static void
engine_open_all(struct engine *engine)
{
    for (unsigned side = 0; side < 2; side++) {
        /* By shared memory one is as fast, and all buffers are in its reach. */
        bool remote =
            strcmp(engine->device[side].info.driver, "farblk") == 0
            && strcmp(engine->device[side].info.transport, "shm") != 0;

        engine->handle[side][0] = engine->device[side].dev;
        engine->handles[side] = 1;
        while (remote && engine->handles[side] < ENGINE_HANDLES
               && engine->total
                      > (uint64_t)engine->handles[side] * ENGINE_PER_HANDLE
               && engine_open(engine, side))
            ;
    }
}

int
engine_begin(struct engine *engine)
{
    int result = engine_tune(engine), status;

    if (result != TOOL_FINE)
        return result;
    for (unsigned side = 0; side < 2; side++)
        scan_begin(&engine->scan[side], engine->device[side].info.sector_size,
                   engine->unit, engine->total);
    if (engine->target_is_zero)
        scan_fix(&engine->scan[1], false);
    engine_open_all(engine);
    /* Each slot has at most one request for each side; each scan one. */
    status =
        farblk_queue_create((uint32_t)engine->requests * 2 + 4, &engine->queue);
    if (status < 0) {
        engine->queue = NULL;
        result = tool_fail_last(status, NULL);
        engine_end(engine);
        return result;
    }
    if (!engine_alloc(engine)) {
        engine_end(engine);
        return tool_fail(FARBLK_NO_MEMORY,
                         "no memory for %" PRIu64 " requests of %" PRIu64
                         " octets",
                         engine->requests, engine->request_size);
    }
    return TOOL_FINE;
}

void
engine_end(struct engine *engine)
{
    farblk_queue_destroy(engine->queue);
    engine->queue = NULL;
    for (unsigned i = 0; i < 2; i++) {
        if (engine->arena[i] != NULL)
            farblk_buffer_free(engine->device[engine->arena_side[i]].dev,
                               engine->arena[i], engine->arena_size);
        engine->arena[i] = NULL;
        while (engine->handles[i] > 1)
            farblk_close(engine->handle[i][--engine->handles[i]]);
    }
    free(engine->slots);
    engine->slots = NULL;
}
