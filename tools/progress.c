/* SPDX-License-Identifier: ISC */
/*
 * The progress bar.  The percentage and the bar are of all octets, skipped
 * ones included; the rate is of those that were moved, over the last seconds;
 * the time left goes by the share that is done.
 */
#include "tools/progress.h"

#include "tools/text.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS_INTERVAL 0.1 /* seconds between two drawings */
#define PROGRESS_MEMORY 3.0 /* seconds that the rate looks back */

void
progress_begin(struct progress *progress, const char *what, uint64_t total,
               bool wanted)
{
    memset(progress, 0, sizeof *progress);
    progress->on = wanted && isatty(STDERR_FILENO);
    progress->what = what;
    progress->total = total;
    progress->begun = progress->last = text_now();
}

static void
progress_draw(struct progress *progress, uint64_t covered, double now)
{
    double share =
        progress->total == 0 ? 1.0 : (double)covered / (double)progress->total;
    double elapsed = now - progress->begun;
    char tail[96], rate[TEXT_SHORT], left[TEXT_SHORT], bar[256];
    unsigned columns = text_columns(STDERR_FILENO), width, full;
    size_t fixed;

    text_size((uint64_t)progress->rate, rate);
    if (share >= 1.0)
        snprintf(tail, sizeof tail, "%s/s  %s", rate, text_time(elapsed, left));
    else if (share <= 0.0)
        snprintf(tail, sizeof tail, "%s/s", rate);
    else
        snprintf(tail, sizeof tail, "%s/s  %s left", rate,
                 text_time(elapsed * (1.0 - share) / share, left));
    fixed = strlen(progress->what) + strlen(" []  100%  ") + 26;
    width = columns > fixed + 10 ? columns - (unsigned)fixed : 10;
    if (width > sizeof bar - 1)
        width = sizeof bar - 1;
    full = (unsigned)(share * width);
    if (full > width)
        full = width;
    memset(bar, '#', full);
    memset(bar + full, '.', width - full);
    bar[width] = '\0';
    /* Down, so that 100 % means all of it. */
    fprintf(stderr, "\r%s [%s] %3u%%  %s\033[K", progress->what, bar,
            (unsigned)(share * 100), tail);
    fflush(stderr);
    progress->drawn = true;
}

void
progress_update(struct progress *progress, uint64_t covered, uint64_t moved)
{
    double now, interval, rate, weight;

    if (!progress->on)
        return;
    now = text_now();
    interval = now - progress->last;
    if (interval < PROGRESS_INTERVAL)
        return;
    rate = (double)(moved - progress->last_moved) / interval;
    weight = interval / (interval + PROGRESS_MEMORY);
    if (!progress->drawn)
        weight = 1.0;
    progress->rate += weight * (rate - progress->rate);
    progress->last = now;
    progress->last_moved = moved;
    progress_draw(progress, covered, now);
}

void
progress_end(struct progress *progress, uint64_t covered, uint64_t moved,
             bool wipe)
{
    double now, elapsed;

    if (!progress->on)
        return;
    if (wipe) {
        if (progress->drawn)
            fputs("\r\033[K", stderr);
        return;
    }
    now = text_now();
    elapsed = now - progress->begun;
    progress->rate = elapsed > 0 ? (double)moved / elapsed : 0;
    progress_draw(progress, covered, now);
    fputc('\n', stderr);
}
