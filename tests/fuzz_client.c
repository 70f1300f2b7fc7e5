/* SPDX-License-Identifier: ISC */
/*
 * The client before a hostile server.  An input is what the server sends, from
 * its greeting on, behind one octet that says how it does, and what this program
 * asks for meanwhile: it opens a device and uses it, call by call or by a queue,
 * or lists what there is.  Whenever the library waits for an answer the next
 * frame of the input is it; when there is none left, the connection ends.
 *
 * What must hold whatever comes: each call returns, with a status that there is;
 * what it says of a device can be, extents are in order and seeks within bounds;
 * and nothing is touched but what was given.
 */
#include "core/error.h"
#include "farblk/farblk.h"
#include "proto/sp.h"
#include "tests/fuzz_frames.h"
#include "tests/fuzz_nng.h"

#include <stdlib.h>
#include <string.h>

#define INPUT_MAX 65536u

/* How, besides FRAMES_*. */
#define BURST 0x08 /* all answers together, as soon as the device is open */
#define QUEUE 0x10
#define LIST 0x20

static struct {
    const uint8_t *data; /* without the first octet */
    size_t size, at, pieces;
    uint8_t manner;
    nng_stream *stream;
    bool again; /* this is not the first connection: it greets by itself */
    bool opened, ended;
} talk;

/* ------------------------------------------------------------ the server */

static size_t
next_piece(size_t left)
{
    bool ipc = (talk.manner & FRAMES_IPC) != 0;
    if (talk.at < SP_GREETING)
        return left < SP_GREETING - talk.at ? left : SP_GREETING - talk.at;
    if ((talk.manner & BURST) != 0 && talk.opened)
        return left;
    if ((talk.manner & FRAMES_PIECES) != 0)
        return 1 + talk.pieces++ % 30 < left ? 1 + talk.pieces % 30 : left;
    return frames_next(talk.data + talk.at, left, ipc);
}

static bool
step(void)
{
    static uint8_t greeting[SP_GREETING];
    nng_stream *stream = fuzz_nng_dialed();
    if (stream == NULL || talk.ended)
        return false;
    if (stream != talk.stream) {
        talk.again = talk.stream != NULL;
        talk.stream = stream;
    }
    if (!fuzz_nng_waits(stream))
        return false;
    if (talk.again) {
        sp_put_greeting(greeting, WIRE_SP_REP);
        fuzz_nng_offer(stream, greeting, 0, sizeof greeting);
        talk.again = false;
        return true;
    }
    size_t left = talk.size - talk.at, length = next_piece(left);
    if (left > 0) {
        fuzz_nng_offer(stream, talk.data, talk.at, talk.at + length);
        talk.at += length;
        return true;
    }
    bool reset = (talk.manner & FRAMES_RESET) != 0;
    talk.ended = true;
    fuzz_nng_refuse();
    fuzz_nng_fail(stream, reset ? NNG_ECONNRESET : NNG_ECONNSHUT,
                  reset ? NNG_ECONNRESET : 0);
    return true;
}

/* ------------------------------------------------------------ the program */

static void
check(int status)
{
    if (status < 0 && error_known_status(status) != status)
        fuzz_wrong("a status that there is not");
    if (status < 0 && farblk_last_text()[0] == '\0')
        fuzz_wrong("a failure without a text");
}

static void
check_info(const struct farblk_info *info)
{
    uint32_t sector = info->sector_size;
    if (sector < 512 || sector > 65536 || (sector & (sector - 1)) != 0)
        fuzz_wrong("a sector size that can not be");
    if (info->size_sectors > INT64_MAX / sector)
        fuzz_wrong("a size that can not be");
    if (info->max_transfer == 0 || info->max_transfer % sector != 0)
        fuzz_wrong("a transfer that can not be");
}

static void
check_extents(const struct farblk_extent *extents, size_t count, uint64_t start,
              uint64_t sectors)
{
    uint64_t at = start;
    if (count == 0)
        fuzz_wrong("no extents");
    for (size_t i = 0; i < count; i++) {
        if (extents[i].start != at || extents[i].count == 0
            || extents[i].count > start + sectors - at || extents[i].mapped > 1)
            fuzz_wrong("extents that can not be");
        at += extents[i].count;
    }
}

static void
use_calls(struct farblk *dev, uint32_t sector)
{
    struct farblk_extent extents[3];
    struct farblk_info info;
    size_t length = 3 * (size_t)sector;
    uint8_t *data = malloc(length);
    uint64_t found, generation;
    if (data == NULL)
        abort();
    memset(data, 7, length);
    struct iovec iov[2] = {{data, sector / 2}, {data + sector / 2, 0}};
    iov[1].iov_len = length - sector / 2;
    memset(&info, 0, sizeof info);
    int status = farblk_get_info(dev, &info, sizeof info);
    check(status);
    if (status == 0)
        check_info(&info);
    check(farblk_write(dev, 1, iov, 2, FARBLK_FUA));
    check(farblk_read(dev, 1, iov, 2));
    check(farblk_flush(dev));
    status = farblk_seek_mapped(dev, 1, &found);
    check(status);
    if (status == 0 && (found < 1 || found > INT64_MAX / sector))
        fuzz_wrong("a seek that can not be");
    status = farblk_seek_unmapped(dev, 2, &found);
    check(status);
    if (status == 0 && (found < 2 || found > INT64_MAX / sector))
        fuzz_wrong("a seek that can not be");
    status = farblk_extents(dev, 3, 40, extents, 3);
    check(status);
    if (status > 3)
        fuzz_wrong("more extents than there is room");
    if (status >= 0)
        check_extents(extents, (size_t)status, 3, 40);
    check(farblk_discard(dev, 0, 8, 0));
    check(farblk_write_zeroes(dev, 4, 8, FARBLK_NO_UNMAP));
    check(farblk_resize(dev, 80));
    check(farblk_watch(dev, 4, -1, &generation));
    free(data);
}

static void
submit(struct farblk_queue *queue, struct farblk *dev, enum farblk_op op,
       uint64_t first, uint64_t count, const struct iovec *iov, size_t iovcnt)
{
    const struct farblk_request request = {
        .size = sizeof request,
        .op = op,
        .dev = dev,
        .sector = first,
        .count = count,
        .iov = iov,
        .iovcnt = iovcnt,
        .user = (void *)(uintptr_t)op,
    };
    check(farblk_submit(queue, &request));
}

static void
use_queue(struct farblk *dev, uint32_t sector)
{
    struct farblk_completion done[4];
    struct farblk_extent extents[5];
    struct farblk_queue *queue;
    uint8_t *data[4];
    struct iovec iov[4], rest = {extents, sizeof extents};
    if (farblk_queue_create(16, &queue) != 0)
        abort();
    for (unsigned i = 0; i < 4; i++) {
        data[i] = malloc(sector);
        iov[i] = (struct iovec){data[i], sector};
        submit(queue, dev, i % 2 ? FARBLK_OP_WRITE : FARBLK_OP_READ, i, 0,
               &iov[i], 1);
    }
    submit(queue, dev, FARBLK_OP_EXTENTS, 0, 20, &rest, 1);
    submit(queue, dev, FARBLK_OP_SEEK_MAPPED, 3, 0, NULL, 0);
    submit(queue, dev, FARBLK_OP_DISCARD, 9, 2, NULL, 0);
    submit(queue, dev, FARBLK_OP_FLUSH, 0, 0, NULL, 0);
    submit(queue, dev, FARBLK_OP_WATCH, 0, 3, NULL, 0);
    while (farblk_queue_pending(queue) > 0) {
        int count = farblk_collect(queue, done, sizeof done[0], 4, -1);
        check(count);
        for (int i = 0; i < count; i++) {
            if (done[i].status > 0
                || error_known_status(done[i].status) != done[i].status)
                fuzz_wrong("a completion's status");
            if (done[i].user == (void *)(uintptr_t)FARBLK_OP_EXTENTS
                && done[i].status == 0) {
                if (done[i].value > 5)
                    fuzz_wrong("more extents than there is room");
                check_extents(extents, (size_t)done[i].value, 0, 20);
            }
        }
    }
    farblk_queue_destroy(queue);
    for (unsigned i = 0; i < 4; i++)
        free(data[i]);
}

static int
list_entry(void *arg, const struct farblk_list_entry *entry)
{
    unsigned *count = arg;
    if (strlen(entry->name) > 255)
        fuzz_wrong("a name that is too long");
    return ++*count > 1000;
}

static void
use_device(const char *uri)
{
    struct farblk_info info;
    struct farblk *dev;
    int status = farblk_open(uri, NULL, &dev);
    check(status);
    if (status != 0)
        return;
    talk.opened = true;
    memset(&info, 0, sizeof info);
    uint32_t sector = 512;
    if ((talk.manner & QUEUE) == 0 || (talk.size & 1) != 0) {
        status = farblk_get_info(dev, &info, sizeof info);
        check(status);
        if (status == 0) {
            check_info(&info);
            sector = info.sector_size;
        }
    }
    if ((talk.manner & QUEUE) != 0)
        use_queue(dev, sector);
    else
        use_calls(dev, sector);
    check(farblk_close(dev));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned count = 0;
    if (size < 1 || size > INPUT_MAX)
        return 0;
    memset(&talk, 0, sizeof talk);
    talk.manner = data[0];
    talk.data = data + 1;
    talk.size = size - 1;
    bool ipc = (talk.manner & FRAMES_IPC) != 0;
    fuzz_nng_begin(step);
    if ((talk.manner & LIST) != 0)
        check(farblk_list(ipc ? "farblk+unix:///?abstract=fuzz"
                              : "farblk://127.0.0.1",
                          list_entry, &count));
    else
        use_device(ipc ? "farblk+unix:///disk?abstract=fuzz"
                       : "farblk://127.0.0.1/disk");
    fuzz_nng_end();
    return 0;
}

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
                        unsigned seed)
{
    return frames_mutate(data, size, max_size, seed);
}
