/* SPDX-License-Identifier: ISC */
/*
 * farblk mirror: makes one device a copy of another, and stays until it is; or
 * serves both as one device meanwhile and afterwards, until it is told to end.
 *
 * Both work on a mirror: URI.  The server that --serve begins opens the same
 * one, and so shares the mirror whose progress is shown.
 */
#include "tools/args.h"
#include "tools/interrupt.h"
#include "tools/json.h"
#include "tools/progress.h"
#include "tools/text.h"

#include "farblk/server.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIRROR_LOOK_MS 100 /* between two looks at how far it is */
#define MIRROR_STOP_MS 30000 /* for requests under way at the end */

struct mirror {
    const char *operands[2];
    const char *serve, *name; /* URL, and the export's name */
    uint64_t rate;
    bool has_rate, has_name, degrade, json, no_progress, insecure;
    struct tool_device device;
    struct farblk_server *server;
    struct farblk_mirror_status status;
    struct progress progress;
    double begun, seconds; /* until it was complete, or over */
};

/* A URI as the value of a parameter; returns its end. */
static char *
mirror_encode(char *to, const char *from)
{
    for (; *from != '\0'; from++) {
        unsigned char c = (unsigned char)*from;

        if (c <= ' ' || c >= 0x7f || strchr("%?&#,", c) != NULL)
            to += sprintf(to, "%%%02X", c);
        else
            *to++ = *from;
    }
    *to = '\0';
    return to;
}

/* The mirror's URI; free() it.  NULL without memory. */
static char *
mirror_uri(const struct mirror *mirror)
{
    const char *const *uris = mirror->operands;
    char *uri = malloc(3 * (strlen(uris[0]) + strlen(uris[1])) + 128), *to;

    if (uri == NULL)
        return NULL;
    to = mirror_encode(stpcpy(uri, "mirror:?primary="), uris[0]);
    to = mirror_encode(stpcpy(to, "&secondary="), uris[1]);
    if (mirror->degrade)
        to = stpcpy(to, "&degrade=1");
    if (mirror->has_rate)
        sprintf(to, "&rate=%" PRIu64, mirror->rate);
    return uri;
}

static const char *
mirror_state(uint32_t state)
{
    static const char *const names[] = {
        [FARBLK_MIRROR_COPYING] = "copying",
        [FARBLK_MIRROR_COMPLETE] = "complete",
        [FARBLK_MIRROR_DEGRADED] = "degraded",
        [FARBLK_MIRROR_ALONE] = "alone",
        [FARBLK_MIRROR_FAILED] = "failed",
    };

    return state < sizeof names / sizeof *names && names[state] != NULL
               ? names[state]
               : "unknown";
}

/* ------------------------------------------------------------ serving */

static int
mirror_serve(struct mirror *mirror, const char *uri)
{
    const struct farblk_server_options options = {
        .size = sizeof options,
        .insecure = mirror->insecure,
    };
    int status = farblk_server_create(&options, &mirror->server);

    if (status == 0)
        status = farblk_server_export(mirror->server, mirror->name, uri);
    if (status == 0)
        status = farblk_server_listen(mirror->server, mirror->serve);
    if (status < 0)
        return tool_fail_last(status, NULL);
    tool_note("serving \"%s\" on %s", mirror->name,
              farblk_server_url(mirror->server, 0));
    return TOOL_FINE;
}

static int
mirror_stop(struct mirror *mirror)
{
    int status, result = TOOL_FINE;

    if (mirror->server == NULL)
        return TOOL_FINE;
    status = farblk_server_stop(mirror->server, MIRROR_STOP_MS);
    if (status < 0)
        result = tool_fail_last(status, "the end of serving");
    farblk_server_destroy(mirror->server);
    return result;
}

/* ------------------------------------------------------------ following */

/* Ask how it is.  True: there is nothing more to come of the copying. */
static bool
mirror_look(struct mirror *mirror)
{
    struct farblk_mirror_status *status = &mirror->status;

    if (farblk_mirror_status(mirror->device.dev, status, sizeof *status) < 0)
        return true;
    return status->state == FARBLK_MIRROR_COMPLETE
           || status->state == FARBLK_MIRROR_ALONE
           || status->state == FARBLK_MIRROR_FAILED;
}

/* The copying is over, or is broken off. */
static void
mirror_over(struct mirror *mirror)
{
    const struct farblk_mirror_status *status = &mirror->status;
    uint64_t copied = status->copied_sectors * status->sector_size;

    mirror->seconds = text_now() - mirror->begun;
    progress_end(&mirror->progress, copied, copied,
                 status->state != FARBLK_MIRROR_COMPLETE);
    if (mirror->serve == NULL)
        return;
    if (status->error != 0)
        tool_note("%s: %s", mirror_state(status->state), status->text);
    else
        tool_note("%s", mirror_state(status->state));
}

/* Until it is complete or can not be; with a server, until a signal comes. */
static void
mirror_follow(struct mirror *mirror)
{
    int pause_ms = 1; /* small ones are soon done */
    bool over = false;

    mirror->begun = text_now();
    progress_begin(&mirror->progress, "mirror", mirror->device.size,
                   !mirror->no_progress);
    for (;;) {
        bool now = mirror_look(mirror);
        uint64_t copied =
            mirror->status.copied_sectors * mirror->status.sector_size;

        if (now && !over) {
            over = true;
            mirror_over(mirror);
        }
        if ((over && mirror->serve == NULL) || interrupt_signal() != 0)
            break;
        if (!over)
            progress_update(&mirror->progress, copied, copied);
        poll(NULL, 0, pause_ms);
        pause_ms = pause_ms < MIRROR_LOOK_MS ? 2 * pause_ms : MIRROR_LOOK_MS;
    }
    if (!over)
        mirror_over(mirror);
}

static void
mirror_summary(const struct mirror *mirror)
{
    const struct farblk_mirror_status *status = &mirror->status;
    struct json json = {.file = stdout};
    char text[TEXT_SHORT];
    uint64_t size = status->size_sectors * status->sector_size;

    if (!mirror->json) {
        if (status->state == FARBLK_MIRROR_COMPLETE)
            printf("%s: complete after %.2f s\n", text_size(size, text),
                   mirror->seconds);
        return;
    }
    json_object(&json, NULL, true);
    json_text(&json, "primary", mirror->operands[0]);
    json_text(&json, "secondary", mirror->operands[1]);
    json_text(&json, "state", mirror_state(status->state));
    json_number(&json, "size", size);
    json_number(&json, "copied", status->copied_sectors * status->sector_size);
    json_number(&json, "percent", status->percent);
    if (status->error != 0)
        json_text(&json, "error", status->text);
    else
        json_null(&json, "error");
    json_real(&json, "seconds", mirror->seconds);
    json_end(&json);
}

/* 0 if secondary is a copy now, else 1 with a message. */
static int
mirror_result(const struct mirror *mirror)
{
    const struct farblk_mirror_status *status = &mirror->status;

    switch (status->state) {
    case FARBLK_MIRROR_COMPLETE:
        return TOOL_FINE;
    case FARBLK_MIRROR_COPYING:
    case FARBLK_MIRROR_DEGRADED:
        fprintf(stderr,
                "farblk mirror: interrupted at %u %%; the secondary is no "
                "copy\n",
                status->percent);
        return TOOL_FAILED;
    default:
        return tool_fail(status->error, "%s; the secondary is no copy",
                         status->text);
    }
}

static int
mirror_do(struct mirror *mirror)
{
    char *uri = mirror_uri(mirror);
    int result, stopped;

    if (uri == NULL)
        return tool_fail(FARBLK_NO_MEMORY, "no memory for a URI");
    interrupt_catch();
    result = tool_open(&mirror->device, uri, false);
    if (result == TOOL_FINE && mirror->serve != NULL)
        result = mirror_serve(mirror, uri);
    if (result == TOOL_FINE) {
        mirror_follow(mirror);
        stopped = mirror_stop(mirror);
        mirror_look(mirror); /* the end may have been its own */
        mirror_summary(mirror);
        result = mirror_result(mirror);
        if (result == TOOL_FINE)
            result = stopped;
    } else {
        mirror_stop(mirror);
    }
    tool_close(&mirror->device);
    free(uri);
    return result;
}

static int
mirror_run(const struct command *command, int argc, char **argv)
{
    struct mirror mirror = {.name = "mirror"};
    const struct args_option options[] = {
        {.name = "serve",
         .kind = ARGS_TEXT,
         .metavar = "URL",
         .help = "serve the mirror there (ipc:///PATH, tcp://HOST:PORT)",
         .value = &mirror.serve},
        {.name = "insecure",
         .kind = ARGS_FLAG,
         .help = "serve in the clear on other addresses than loopback, too",
         .value = &mirror.insecure},
        {.name = "export",
         .kind = ARGS_TEXT,
         .metavar = "NAME",
         .help = "its name there (mirror)",
         .value = &mirror.name,
         .given = &mirror.has_name},
        {.name = "rate",
         .kind = ARGS_SIZE,
         .metavar = "SIZE",
         .help = "octets to copy in a second (no limit)",
         .value = &mirror.rate,
         .given = &mirror.has_rate},
        {.name = "degrade",
         .kind = ARGS_FLAG,
         .help = "when SECONDARY fails, go on with PRIMARY alone",
         .value = &mirror.degrade},
        {.name = "json",
         .kind = ARGS_FLAG,
         .help = "the summary as JSON",
         .value = &mirror.json},
        {.name = "no-progress",
         .kind = ARGS_FLAG,
         .help = "no progress bar on a terminal either",
         .value = &mirror.no_progress},
        {0},
    };
    int result = args_parse(command, argc, argv, options, mirror.operands, 2);

    if (result < 0 && mirror.has_name && mirror.serve == NULL)
        result = tool_usage("--export is a name for --serve");
    if (result < 0 && mirror.has_rate && mirror.rate == 0)
        result = tool_usage("--rate 0 would never end");
    return result >= 0 ? result : mirror_do(&mirror);
}

const struct command command_mirror = {
    .name = "mirror",
    .summary = "make one device a copy of another that is in use",
    .operands = "PRIMARY SECONDARY",
    .notes =
        "What SECONDARY holds is lost.  Both need the same size.  PRIMARY "
        "may be written\nmeanwhile through the mirror only: with --serve, "
        "by clients of the export.\nWithout --serve it ends when SECONDARY "
        "is a copy; with it, on SIGINT or SIGTERM.\nThe exit status is 0 if "
        "SECONDARY is a copy then.\n",
    .example = "  farblk mirror file:disk.img farblk://host/disk0\n"
               "  farblk mirror --serve ipc:///run/disk.sock --rate 50M \\\n"
               "      file:disk.img farblk://host/disk0\n",
    .run = mirror_run,
};
