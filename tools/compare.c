/* SPDX-License-Identifier: ISC */
/*
 * farblk compare: are two devices equal, octet by octet, and if not, where do
 * they differ first?
 *
 * It runs on the copy's engine.  What is unmapped on both sides is equal; what
 * is mapped on one side only must be zero there, and the other is not read.
 * Pieces end in any order: after a difference no further ones are begun, but
 * all that were, which include every earlier one, are compared to the end.
 */
#include "tools/args.h"
#include "tools/engine.h"
#include "tools/json.h"
#include "tools/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Kinds are sets of the sides to read. */
#define COMPARE_A 1u
#define COMPARE_B 2u

struct compare {
    struct engine engine;
    const char *operands[2];
    bool json, no_progress;
    bool differs;
    uint64_t offset; /* of the first difference */
    unsigned char value[2];
};

static unsigned
compare_classify(const struct engine *engine, bool mapped_0, bool mapped_1)
{
    (void)engine;
    return (mapped_0 ? COMPARE_A : 0) | (mapped_1 ? COMPARE_B : 0);
}

/* The first octet of `length` where a and b differ; b NULL: zeros.  `length`
 * when they do not. */
static size_t
compare_first(const unsigned char *a, const unsigned char *b, size_t length)
{
    static const unsigned char zeros[4096];
    size_t at = 0, part;

    /* Only the part with the difference is gone over octet by octet. */
    for (; at < length; at += part) {
        part = length - at < sizeof zeros ? length - at : sizeof zeros;
        if (memcmp(a + at, b != NULL ? b + at : zeros, part) != 0)
            break;
    }
    while (at < length && a[at] == (b != NULL ? b[at] : 0))
        at++;
    return at;
}

static void
compare_step(struct engine *engine, struct engine_slot *slot)
{
    struct compare *compare = engine->arg;
    const unsigned char *a = slot->buffer[0], *b = slot->buffer[1];
    size_t length = (size_t)slot->length, at;

    if (slot->step == 0) {
        for (unsigned side = 0; side < 2; side++)
            if ((slot->kind & (side == 0 ? COMPARE_A : COMPARE_B)) != 0)
                engine_submit(engine, slot, side, FARBLK_OP_READ, slot->offset,
                              engine_whole(engine, side, slot->length),
                              slot->buffer[side]);
        return;
    }
    if (slot->kind == (COMPARE_A | COMPARE_B))
        at = compare_first(a, b, length);
    else
        at = compare_first(slot->kind == COMPARE_A ? a : b, NULL, length);
    if (at == length
        || (compare->differs && compare->offset < slot->offset + at))
        return;
    compare->differs = true;
    compare->offset = slot->offset + at;
    compare->value[0] = (slot->kind & COMPARE_A) != 0 ? a[at] : 0;
    compare->value[1] = (slot->kind & COMPARE_B) != 0 ? b[at] : 0;
    engine->stop = true;
}

static const struct engine_job compare_job = {
    .what = "compare",
    .role = {"first device", "second device"},
    .buffers = 2,
    .data_kinds =
        1u << COMPARE_A | 1u << COMPARE_B | 1u << (COMPARE_A | COMPARE_B),
    .classify = compare_classify,
    .step = compare_step,
};

static void
compare_json(const struct compare *compare, bool equal)
{
    const struct engine *engine = &compare->engine;
    const struct tool_device *device = engine->device;
    struct json json = {.file = stdout};

    json_object(&json, NULL, true);
    json_bool(&json, "equal", equal);
    json_array(&json, "uris", false);
    json_text(&json, NULL, device[0].uri);
    json_text(&json, NULL, device[1].uri);
    json_end(&json);
    json_array(&json, "sizes", false);
    json_number(&json, NULL, device[0].size);
    json_number(&json, NULL, device[1].size);
    json_end(&json);
    if (compare->differs) {
        json_object(&json, "difference", false);
        json_number(&json, "offset", compare->offset);
        json_array(&json, "sectors", false);
        for (int i = 0; i < 2; i++)
            json_number(&json, NULL,
                        compare->offset / device[i].info.sector_size);
        json_end(&json);
        json_array(&json, "values", false);
        json_number(&json, NULL, compare->value[0]);
        json_number(&json, NULL, compare->value[1]);
        json_end(&json);
        json_end(&json);
    } else {
        json_null(&json, "difference");
    }
    json_number(&json, "compared", engine_moved(engine));
    json_number(&json, "skipped", engine->octets[0]);
    json_number(&json, "requests", engine->submitted);
    json_real(&json, "seconds", engine->seconds);
    json_end(&json);
}

static void
compare_text(const struct compare *compare, bool equal)
{
    const struct engine *engine = &compare->engine;
    const struct tool_device *device = engine->device;
    uint32_t sizes[2] = {device[0].info.sector_size,
                         device[1].info.sector_size};
    char text[3][TEXT_SHORT];

    if (compare->differs) {
        printf("differ: octet %" PRIu64 ", sector %" PRIu64, compare->offset,
               compare->offset / sizes[0]);
        if (sizes[0] != sizes[1])
            printf(" (of %u octets; %" PRIu64 " of %u)", sizes[0],
                   compare->offset / sizes[1], sizes[1]);
        printf(": 0x%02x and 0x%02x\n", compare->value[0], compare->value[1]);
    }
    if (device[0].size != device[1].size)
        printf("differ: sizes: %" PRIu64 " and %" PRIu64 " octets%s\n",
               device[0].size, device[1].size,
               compare->differs ? "" : "; what both have is equal");
    if (equal)
        printf("equal: %s: %s compared, %s skipped in %.2f s\n",
               text_size(engine->total, text[0]),
               text_size(engine_moved(engine), text[1]),
               text_size(engine->octets[0], text[2]), engine->seconds);
}

/* With both devices open. */
static int
compare_do(struct compare *compare)
{
    struct engine *engine = &compare->engine;
    const struct tool_device *device = engine->device;
    int result;
    bool equal;

    engine->job = &compare_job;
    engine->arg = compare;
    engine->show_progress = !compare->no_progress;
    engine->total =
        device[0].size < device[1].size ? device[0].size : device[1].size;
    result = engine_begin(engine);
    if (result != TOOL_FINE)
        return result;
    engine_run(engine);
    /* A failure behind a difference does not matter any more. */
    if (compare->differs && engine->failure.status < 0
        && engine->failure.offset > compare->offset)
        engine->failure.status = FARBLK_OK;
    result = engine_report(engine);
    if (result == TOOL_FINE) {
        equal = !compare->differs && device[0].size == device[1].size;
        if (compare->json)
            compare_json(compare, equal);
        else
            compare_text(compare, equal);
        result = equal ? TOOL_FINE : TOOL_FAILED;
    }
    engine_end(engine);
    return result;
}

static int
compare_run(const struct command *command, int argc, char **argv)
{
    struct compare *compare = calloc(1, sizeof *compare);
    int result;

    if (compare == NULL)
        return tool_fail(FARBLK_NO_MEMORY, "no memory");

    const struct args_option options[] = {
        {.name = "json",
         .kind = ARGS_FLAG,
         .help = "the answer as JSON",
         .value = &compare->json},
        {.name = "no-progress",
         .kind = ARGS_FLAG,
         .help = "no progress bar on a terminal either",
         .value = &compare->no_progress},
        {.name = "requests",
         .kind = ARGS_NUMBER,
         .metavar = "N",
         .help = "how many at once (8 MiB in all)",
         .value = &compare->engine.requests,
         .given = &compare->engine.has_requests},
        {.name = "request-size",
         .kind = ARGS_SIZE,
         .metavar = "SIZE",
         .help = "octets in each (1M, as the devices allow)",
         .value = &compare->engine.request_size,
         .given = &compare->engine.has_request_size},
        {0},
    };

    result = args_parse(command, argc, argv, options, compare->operands, 2);
    if (result < 0) {
        result =
            tool_open(&compare->engine.device[0], compare->operands[0], true);
        if (result == TOOL_FINE)
            result = tool_open(&compare->engine.device[1], compare->operands[1],
                               true);
        if (result == TOOL_FINE)
            result = compare_do(compare);
        tool_close(&compare->engine.device[1]);
        tool_close(&compare->engine.device[0]);
    }
    free(compare);
    return result;
}

const struct command command_compare = {
    .name = "compare",
    .summary = "tell whether two devices are equal, or differ first where",
    .operands = "A B",
    .notes = "Exit status 1 when they differ, in size or content, with the "
             "first difference\non standard output.\n",
    .example = "  farblk compare file:disk.img farblk://host/disk0\n",
    .run = compare_run,
};
