/* SPDX-License-Identifier: ISC */
/* See held.h. */
#include "tests/held.h"

#include "tests/support.h"

pthread_mutex_t held_mutex = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t held_wake = PTHREAD_COND_INITIALIZER;
struct io *held[HELD_MAX];
atomic_uint held_count;
atomic_bool held_at_once;
atomic_uint held_cancels, held_submits;
atomic_uint held_shuts, held_last_shuts;
uint32_t held_lacks_fua;

static const struct uri_param held_params[] = {{.name = NULL}};

static int
held_open(const struct uri *uri, bool read_only, struct candidate *found,
          struct error *error)
{
    (void)uri;
    (void)read_only;
    (void)error;
    found->state = &held_mutex;
    strcpy(found->key, "fake");
    return 0;
}

static int
held_start(void *state, struct device *device, struct shape *shape,
           struct error *error)
{
    (void)state;
    (void)device;
    (void)error;
    *shape = (struct shape){
        .sector_size = SECTOR,
        .size = SECTORS * SECTOR,
        .features = FARBLK_CAN_RESIZE | FARBLK_CAN_DISCARD
                    | FARBLK_CAN_WRITE_ZEROES | FARBLK_CAN_SEEK | FARBLK_CAN_FUA
                    | FARBLK_CAN_WATCH,
        .max_transfer = MAX_TRANSFER,
        .preferred_transfer = SECTOR,
        .max_range = 1024 * SECTOR,
        .lacks_fua = held_lacks_fua,
        .name = "fake",
    };
    return 0;
}

static int
held_join(void *running, void *candidate, bool *read_only, struct error *error)
{
    (void)running;
    (void)candidate;
    (void)read_only;
    (void)error;
    return 0;
}

static void
held_shut(void *state, bool last)
{
    (void)state;
    held_shuts++;
    held_last_shuts += last;
}

static void
held_close(void *state)
{
    (void)state;
}

static void
held_submit(void *state, struct io *io)
{
    (void)state;
    pthread_mutex_lock(&held_mutex);
    held_submits++;
    bool now = held_at_once;
    if (!now) {
        assert_true(held_count < HELD_MAX);
        held[held_count++] = io;
        pthread_cond_broadcast(&held_wake);
    }
    pthread_mutex_unlock(&held_mutex);
    if (now)
        io_done(io, 0);
}

struct io *
held_take(unsigned index)
{
    struct io *io = held[index];
    held_count--;
    memmove(&held[index], &held[index + 1],
            (held_count - index) * sizeof held[0]);
    return io;
}

static void
held_cancel(void *state, struct io *io)
{
    (void)state;
    bool found = false;
    pthread_mutex_lock(&held_mutex);
    for (unsigned i = 0; i < held_count && !found; i++)
        if (held[i] == io) {
            held_take(i);
            held_cancels++;
            found = true;
        }
    pthread_mutex_unlock(&held_mutex);
    if (found)
        io_failed(io, FARBLK_TIMED_OUT, FARBLK_EFFECT_UNKNOWN, "cancelled");
}

const struct driver held_driver = {
    .name = "fake",
    .schemes = "fake",
    .params = held_params,
    .native_fua = 1u << FARBLK_OP_WRITE,
    .open = held_open,
    .start = held_start,
    .join = held_join,
    .shut = held_shut,
    .close = held_close,
    .submit = held_submit,
    .cancel = held_cancel,
};
