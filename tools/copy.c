/* SPDX-License-Identifier: ISC */
/*
 * farblk copy: one device's content onto another.
 *
 * What is mapped in the source is read and written.  What is not is zeroed
 * where the destination has something, and skipped where it has nothing, so
 * that holes stay holes and cost no time.  The sectors of both may differ: work
 * is done in the larger.  Where the source ends within a sector of a larger
 * destination, that sector's rest is read first and written back.
 */
#include "tools/args.h"
#include "tools/engine.h"
#include "tools/json.h"
#include "tools/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum copy_kind {
    COPY_SKIP,
    COPY_DATA,
    COPY_ZERO,
};

enum copy_side {
    COPY_SOURCE,
    COPY_TARGET,
};

static unsigned
copy_classify(const struct engine *engine, bool mapped_0, bool mapped_1)
{
    uint64_t features = engine->device[COPY_TARGET].info.features;

    if (mapped_0)
        return COPY_DATA;
    if (!mapped_1)
        return COPY_SKIP;
    return (features & FARBLK_CAN_WRITE_ZEROES) != 0 ? COPY_ZERO : COPY_DATA;
}

static void
copy_step(struct engine *engine, struct engine_slot *slot)
{
    uint64_t whole = engine_whole(engine, COPY_TARGET, slot->length);
    uint32_t sector = engine->device[COPY_TARGET].info.sector_size;

    if (slot->kind == COPY_ZERO) {
        if (slot->step == 0)
            engine_submit(engine, slot, COPY_TARGET, FARBLK_OP_WRITE_ZEROES,
                          slot->offset, slot->length, NULL);
        return;
    }
    /* The source ends within a sector of the destination: the sector first,
     * the source's octets over it next. */
    if (slot->step == 0 && whole != slot->length) {
        engine_submit(engine, slot, COPY_TARGET, FARBLK_OP_READ,
                      slot->offset + whole - sector, sector,
                      slot->buffer[0] + (whole - sector));
        return;
    }
    if (slot->step == 0)
        slot->step = 1;
    if (slot->step == 1)
        engine_submit(engine, slot, COPY_SOURCE, FARBLK_OP_READ, slot->offset,
                      slot->length, slot->buffer[0]);
    else if (slot->step == 2)
        engine_submit(engine, slot, COPY_TARGET, FARBLK_OP_WRITE, slot->offset,
                      whole, slot->buffer[0]);
}

static const struct engine_job copy_job = {
    .what = "copy",
    .role = {"source", "destination"},
    .buffers = 1,
    .data_kinds = 1u << COPY_DATA,
    .tail_kind = COPY_DATA,
    .classify = copy_classify,
    .step = copy_step,
};

struct copy {
    struct engine engine;
    const char *operands[2];
    bool json, no_progress, create, flush, no_flush;
};

static void
copy_summary(const struct copy *copy)
{
    const struct engine *engine = &copy->engine;
    struct json json = {.file = stdout};
    char text[4][TEXT_SHORT];

    if (copy->json) {
        json_object(&json, NULL, true);
        json_text(&json, "source", copy->operands[0]);
        json_text(&json, "destination", copy->operands[1]);
        json_number(&json, "size", engine->total);
        json_number(&json, "copied", engine->octets[COPY_DATA]);
        json_number(&json, "zeroed", engine->octets[COPY_ZERO]);
        json_number(&json, "skipped", engine->octets[COPY_SKIP]);
        json_number(&json, "requests", engine->submitted);
        json_number(&json, "request_size", engine->request_size);
        json_bool(&json, "flushed", !copy->no_flush);
        json_real(&json, "seconds", engine->seconds);
        json_end(&json);
        return;
    }
    printf("%s: %s copied, %s zeroed, %s skipped in %.2f s",
           text_size(engine->total, text[0]),
           text_size(engine->octets[COPY_DATA], text[1]),
           text_size(engine->octets[COPY_ZERO], text[2]),
           text_size(engine->octets[COPY_SKIP], text[3]), engine->seconds);
    if (engine->octets[COPY_DATA] > 0 && engine->seconds > 0)
        printf(", %s/s", text_size((uint64_t)((double)engine->octets[COPY_DATA]
                                              / engine->seconds),
                                   text[0]));
    putchar('\n');
}

/* The destination with create=1 and the source's size; NULL without memory. */
static char *
copy_created_uri(const struct copy *copy)
{
    const char *uri = copy->operands[1];
    char *made;

    if (asprintf(&made, "%s%ccreate=1&size=%" PRIu64, uri,
                 strchr(uri, '?') != NULL ? '&' : '?',
                 copy->engine.device[COPY_SOURCE].size)
        < 0)
        return NULL;
    return made;
}

static int
copy_open(struct copy *copy, char **made)
{
    struct tool_device *source = &copy->engine.device[COPY_SOURCE];
    struct tool_device *target = &copy->engine.device[COPY_TARGET];
    const char *uri = copy->operands[1];
    int result = tool_open(source, copy->operands[0], true);

    if (result != TOOL_FINE)
        return result;
    if (copy->create) {
        *made = copy_created_uri(copy);
        if (*made == NULL)
            return tool_fail(FARBLK_NO_MEMORY, "no memory for a URI");
        uri = *made;
    }
    result = tool_open(target, uri, false);
    if (result != TOOL_FINE)
        return result;
    target->uri = copy->operands[1];
    if (!target->info.read_write)
        return tool_fail(FARBLK_IS_READ_ONLY,
                         "the destination, %s, is read-only", target->uri);
    if (target->size < source->size)
        return tool_fail(FARBLK_INVALID,
                         "the destination, %s, is too small: %" PRIu64
                         " octets; the source, %s, has %" PRIu64
                         "; nothing was written",
                         target->uri, target->size, source->uri, source->size);
    if (target->size > source->size)
        tool_note("the destination is larger: its last %" PRIu64
                  " octets stay as they are",
                  target->size - source->size);
    return TOOL_FINE;
}

static int
copy_do(struct copy *copy)
{
    struct engine *engine = &copy->engine;
    char *made = NULL;
    int result = copy_open(copy, &made);

    if (result == TOOL_FINE) {
        engine->job = &copy_job;
        engine->total = engine->device[COPY_SOURCE].size;
        engine->show_progress = !copy->no_progress;
        result = engine_begin(engine);
        if (result == TOOL_FINE) {
            engine_run(engine);
            if (!copy->no_flush)
                engine_flush(engine, COPY_TARGET);
            result = engine_report(engine);
            if (result == TOOL_FINE)
                copy_summary(copy);
            engine_end(engine);
        }
    }
    tool_close(&engine->device[COPY_TARGET]);
    tool_close(&engine->device[COPY_SOURCE]);
    free(made);
    return result;
}

static int
copy_run(const struct command *command, int argc, char **argv)
{
    struct copy *copy = calloc(1, sizeof *copy);
    int result;

    if (copy == NULL)
        return tool_fail(FARBLK_NO_MEMORY, "no memory");

    const struct args_option options[] = {
        {.name = "json",
         .kind = ARGS_FLAG,
         .help = "the summary as JSON",
         .value = &copy->json},
        {.name = "no-progress",
         .kind = ARGS_FLAG,
         .help = "no progress bar on a terminal either",
         .value = &copy->no_progress},
        {.name = "requests",
         .kind = ARGS_NUMBER,
         .metavar = "N",
         .help = "how many at once (8 MiB in all)",
         .value = &copy->engine.requests,
         .given = &copy->engine.has_requests},
        {.name = "request-size",
         .kind = ARGS_SIZE,
         .metavar = "SIZE",
         .help = "octets in each (1M, as the devices allow)",
         .value = &copy->engine.request_size,
         .given = &copy->engine.has_request_size},
        {.name = "create",
         .kind = ARGS_FLAG,
         .help = "make the destination, a file:, with the source's size",
         .value = &copy->create},
        {.name = "target-is-zero",
         .kind = ARGS_FLAG,
         .help = "trust that the destination reads as zero; zero nothing",
         .value = &copy->engine.target_is_zero},
        {.name = "flush",
         .kind = ARGS_FLAG,
         .help = "flush the destination at the end (so by default)",
         .value = &copy->flush},
        {.name = "no-flush",
         .kind = ARGS_FLAG,
         .help = "do not",
         .value = &copy->no_flush},
        {0},
    };

    result = args_parse(command, argc, argv, options, copy->operands, 2);
    if (result < 0 && copy->flush && copy->no_flush)
        result = tool_usage("--flush and --no-flush exclude each other");
    if (result < 0 && copy->create
        && strncmp(copy->operands[1], "file:", 5) != 0)
        result = tool_usage("--create makes files (file:PATH) only, not \"%s\"",
                            copy->operands[1]);
    if (result < 0)
        result = copy_do(copy);
    free(copy);
    return result;
}

const struct command command_copy = {
    .name = "copy",
    .summary = "copy one device onto another",
    .operands = "SRC DST",
    .notes = "A destination that is larger keeps its rest; one that is smaller "
             "is an error.\nHoles of the source are skipped or zeroed.  SIGINT "
             "ends the copy cleanly.\n",
    .example = "  farblk copy file:disk.img farblk://host/disk0\n"
               "  farblk copy --create farblk://host/disk0 file:backup.img\n",
    .run = copy_run,
};
