/* SPDX-License-Identifier: ISC */
/* See recorder.h. */
#include "tests/recorder.h"

#include "core/checked.h"
#include "core/device.h"
#include "tests/support.h"

#define UNIT_MAX 4096u

struct recorder recorder;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static const struct uri_param no_params[] = {{.name = NULL}};

/* ------------------------------------------------------------ driver */

static int
recorder_found(const struct uri *uri, bool read_only, struct candidate *found,
               struct error *error)
{
    (void)uri, (void)read_only, (void)error;
    found->state = &recorder;
    return 0;
}

static int
recorder_start(void *state, struct device *device, struct shape *shape,
               struct error *error)
{
    (void)state, (void)device, (void)error;
    *shape = (struct shape){
        .sector_size = recorder.sector_size,
        .size = recorder.size,
        .features = FARBLK_CAN_FUA
                    | (recorder.zeroes ? (uint64_t)FARBLK_CAN_WRITE_ZEROES : 0),
        /* Small, so that there is much to tear apart. */
        .max_transfer =
            recorder.sector_size > 16384 ? recorder.sector_size : 16384,
        .max_range = max_u64(recorder.sector_size, 65536),
        .read_only = recorder.read_only,
        .name = "recorder",
    };
    return 0;
}

static void
recorder_end(void *state)
{
    (void)state;
}

static void
keep(struct record record)
{
    if (recorder.count == recorder.room) {
        recorder.room = recorder.room > 0 ? 2 * recorder.room : 64;
        recorder.records =
            realloc(recorder.records, recorder.room * sizeof record);
        assert_non_null(recorder.records);
    }
    recorder.records[recorder.count++] = record;
}

/* A change or a flush happens, or fails: false. */
static bool
change(struct io *io)
{
    bool fails = recorder.fail_in > 0 && --recorder.fail_in == 0;
    if (fails && !recorder.fail_done)
        return false;
    struct record record = {
        .flush = io->op == FARBLK_OP_FLUSH,
        .stable = (io->flags & FARBLK_FUA) != 0,
        .offset = io->offset,
    };
    if (!record.flush) {
        record.length = (size_t)io->length;
        record.data = calloc(1, record.length);
        assert_non_null(record.data);
        if (io->op == FARBLK_OP_WRITE)
            iov_copy_out(&io->data, record.data, record.length);
        memcpy(recorder.image + record.offset, record.data, record.length);
    }
    keep(record);
    return !fails;
}

static void
recorder_submit(void *state, struct io *io)
{
    bool good = true;
    (void)state;
    pthread_mutex_lock(&mutex);
    if (io->op == FARBLK_OP_READ) {
        recorder.octets_read += io->length;
        iov_copy_in(&io->data, recorder.image + io->offset, io->length);
    } else {
        good = change(io);
    }
    pthread_mutex_unlock(&mutex);
    if (good)
        io_done(io, 0);
    else
        io_failed(io, FARBLK_IO, FARBLK_EFFECT_UNKNOWN, "told to fail");
}

static struct driver recorder_driver = {
    .name = "recorder",
    .schemes = "recorder",
    .params = no_params,
    .open = recorder_found,
    .start = recorder_start,
    .close = recorder_end,
    .submit = recorder_submit,
};

/* ------------------------------------------------------------ use */

struct farblk *
recorder_open(void)
{
    struct farblk *dev = NULL;
    struct error error;
    if (recorder.image == NULL)
        recorder.image = calloc(1, recorder.size);
    assert_non_null(recorder.image);
    recorder_driver.native_fua =
        recorder.fua ? 1u << FARBLK_OP_WRITE | 1u << FARBLK_OP_WRITE_ZEROES : 0;
    assert_int_equal(
        device_open(&recorder_driver, "recorder:", NULL, &dev, &error), 0);
    return dev;
}

void
recorder_forget(void)
{
    for (size_t i = 0; i < recorder.count; i++)
        free(recorder.records[i].data);
    recorder.count = 0;
    recorder.octets_read = 0;
}

void
recorder_reset(void)
{
    recorder_forget();
    free(recorder.records);
    free(recorder.image);
    memset(&recorder, 0, sizeof recorder);
}

void
recorder_cut(uint8_t *image, size_t at, uint32_t (*choose)(void *arg),
             void *arg)
{
    size_t unit =
        recorder.sector_size < UNIT_MAX ? recorder.sector_size : UNIT_MAX;
    size_t flushed = 0; /* records in front of the last flush that ended */
    for (size_t i = 0; i < at; i++)
        if (recorder.records[i].flush)
            flushed = i;
    for (size_t i = 0; i < recorder.count && i <= at; i++) {
        const struct record *record = &recorder.records[i];
        /* One with FUA is stable once it has ended, the rest by a flush.  A
         * write that was overtaken by a stable one does not come back: its
         * units are put in before. */
        bool stable = i < flushed || (record->stable && i < at);
        for (size_t o = 0; o < record->length; o += unit)
            if (stable || choose(arg) % 2 != 0)
                memcpy(image + record->offset + o, record->data + o, unit);
    }
}
