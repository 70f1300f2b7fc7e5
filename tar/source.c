/* SPDX-License-Identifier: ISC */
/*
 * See source.h.  A thread remembers whose sources it is running, one inside the
 * other: for them to change the same archive would be to wait for themselves.
 */
#include "tar/source.h"

#include <string.h>

struct frame {
    const struct farblk_tar *tar;
    struct frame *outer;
};

static _Thread_local struct frame *running;

int
source_read(struct source *source, const struct farblk_tar *tar, void *buffer,
            size_t length)
{
    struct frame frame = {tar, running};
    if (source->read == NULL) {
        memset(buffer, 0, length);
        return 0;
    }
    running = &frame;
    int status = source->read(source->arg, buffer, length);
    running = frame.outer;
    source->failed = status != 0;
    return status;
}

bool
source_running(const struct farblk_tar *tar)
{
    for (const struct frame *frame = running; frame != NULL;
         frame = frame->outer)
        if (frame->tar == tar)
            return true;
    return false;
}
