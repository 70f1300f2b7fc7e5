/* SPDX-License-Identifier: ISC */
/* A line on the terminal that tells how far a long job is. */
#ifndef FARBLK_TOOLS_PROGRESS_H
#define FARBLK_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool on; /* something is drawn at all */
    bool drawn;
    const char *what;
    uint64_t total; /* octets of the whole job */
    double begun, last;
    double rate; /* octets moved a second, smoothed */
    uint64_t last_moved;
};

/* Begin; draws only if `wanted` and stderr is a terminal. */
void progress_begin(struct progress *progress, const char *what, uint64_t total,
                    bool wanted);
/* `covered` octets of the job are behind us, of which `moved` had to be moved.
 * Cheap: draws at most ten times a second. */
void progress_update(struct progress *progress, uint64_t covered,
                     uint64_t moved);
/* Draw the last state and leave the line, or wipe it when `wipe` (a message
 * follows). */
void progress_end(struct progress *progress, uint64_t covered, uint64_t moved,
                  bool wipe);

#endif
