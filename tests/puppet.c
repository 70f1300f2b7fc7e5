/* SPDX-License-Identifier: ISC */
/* See puppet.h. */
#include "tests/puppet.h"

#include "tests/support.h"

#include <stdio.h>
#include <time.h>

#define UNIT 512u

static int
puppet_driver_open(const struct uri *uri, bool read_only,
                   struct candidate *found, struct error *error)
{
    (void)uri;
    (void)read_only;
    (void)found;
    return error_set(error, FARBLK_INVALID, "a puppet has no URI");
}

static int
puppet_driver_start(void *state, struct device *device, struct shape *shape,
                    struct error *error)
{
    struct puppet *puppet = state;

    (void)error;
    puppet->device = device;
    *shape = (struct shape){
        .sector_size = puppet->sector_size,
        .size = puppet->size,
        .features = puppet->features,
        .max_transfer = 1u << 20,
        .preferred_transfer = 1u << 16,
        .read_only = puppet->read_only,
        .transport = "local",
    };
    snprintf(shape->name, sizeof shape->name, "%s", puppet->name);
    return 0;
}

static void
puppet_driver_close(void *state)
{
    (void)state;
}

static bool
puppet_matches(struct puppet_rule *rule, const struct io *io)
{
    bool ranged = io->length > 0 && io->op != FARBLK_OP_RESIZE
                  && io->op != FARBLK_OP_FLUSH;

    if ((rule->ops & 1u << io->op) == 0
        || (ranged
            && (io->offset >= rule->end
                || io->offset + io->length <= rule->start)))
        return false;
    if (rule->times > 0 && --rule->times == 0)
        rule->ops = 0;
    return true;
}

static void
puppet_map(struct puppet *puppet, uint64_t offset, uint64_t length, bool mapped)
{
    for (uint64_t i = offset / UNIT; i < (offset + length) / UNIT; i++)
        puppet->mapped[i] = mapped;
}

/* Octets of one kind from offset on, at most to `end`. */
static uint64_t
puppet_run(const struct puppet *puppet, uint64_t offset, uint64_t end)
{
    uint64_t step = puppet->sector_size, at = offset + step;
    bool mapped = puppet->mapped[offset / UNIT];

    while (at < end && puppet->mapped[at / UNIT] == mapped)
        at += step;
    return at - offset;
}

static uint64_t
puppet_seek(const struct puppet *puppet, uint64_t at, bool wanted)
{
    while (at < puppet->size && puppet->mapped[at / UNIT] != wanted)
        at += puppet->sector_size;
    return at;
}

/* Under the mutex: let it take effect.  Returns the value. */
static uint64_t
puppet_do(struct puppet *puppet, struct io *io)
{
    struct iov_view view = io->data;
    uint64_t sector = puppet->sector_size;
    bool zeroes = (puppet->features & FARBLK_DISCARD_ZEROES) != 0;
    size_t count = 0;

    switch (io->op) {
    case FARBLK_OP_READ:
        iov_copy_in(&view, puppet->data + io->offset, io->length);
        return 0;
    case FARBLK_OP_WRITE:
        iov_copy_out(&view, puppet->data + io->offset, io->length);
        puppet_map(puppet, io->offset, io->length, true);
        return 0;
    case FARBLK_OP_DISCARD:
    case FARBLK_OP_WRITE_ZEROES:
        zeroes = zeroes || io->op == FARBLK_OP_WRITE_ZEROES;
        memset(puppet->data + io->offset, zeroes ? 0 : 0xdd, io->length);
        puppet_map(puppet, io->offset, io->length,
                   !zeroes || (io->flags & FARBLK_NO_UNMAP) != 0);
        return 0;
    case FARBLK_OP_RESIZE:
        if (io->length < puppet->size) {
            memset(puppet->data + io->length, 0, puppet->size - io->length);
            puppet_map(puppet, io->length, puppet->size - io->length, false);
        }
        puppet->size = io->length;
        return 0;
    case FARBLK_OP_SEEK_MAPPED:
        return puppet_seek(puppet, io->offset, true);
    case FARBLK_OP_SEEK_UNMAPPED:
        return puppet_seek(puppet, io->offset, false);
    case FARBLK_OP_EXTENTS:
        for (uint64_t at = io->offset;
             at < io->offset + io->length && count < io->extents_max;) {
            uint64_t run = puppet_run(puppet, at, io->offset + io->length);

            io->extents[count++] =
                (struct farblk_extent){.start = at / sector,
                                       .count = run / sector,
                                       .mapped = puppet->mapped[at / UNIT]};
            at += run;
        }
        return count;
    default:
        return 0;
    }
}

/* Do it, if it is not done, and end it, well or as the rule for it says. */
static void
puppet_end(struct puppet *puppet, struct io *io, bool done)
{
    struct puppet_rule fail;
    uint64_t value = 0;

    pthread_mutex_lock(&puppet->mutex);
    fail = puppet->fail;
    bool fails = puppet_matches(&puppet->fail, io);
    if (!done && (!fails || fail.late))
        value = puppet_do(puppet, io);
    else if (io->op == FARBLK_OP_EXTENTS)
        value = io->scratch[0];
    pthread_mutex_unlock(&puppet->mutex);
    if (fails)
        io_failed(io, fail.status, fail.effect, "the puppet's mishap");
    else
        io_done(io, value);
}

static void
puppet_driver_submit(void *state, struct io *io)
{
    struct puppet *puppet = state;

    pthread_mutex_lock(&puppet->mutex);
    puppet->count[io->op]++;
    puppet->octets[io->op] += io->length;
    bool late = puppet->hold.late;
    bool hold = puppet_matches(&puppet->hold, io);
    if (hold) {
        if (late)
            io->scratch[0] = puppet_do(puppet, io);
        assert_true(puppet->held_count < PUPPET_HELD_MAX);
        puppet->held[puppet->held_count].io = io;
        puppet->held[puppet->held_count++].done = late;
        if (puppet->held_most < puppet->held_count)
            puppet->held_most = puppet->held_count;
        pthread_cond_broadcast(&puppet->changed);
    }
    pthread_mutex_unlock(&puppet->mutex);
    if (!hold)
        puppet_end(puppet, io, false);
}

static void
puppet_driver_cancel(void *state, struct io *io)
{
    struct puppet *puppet = state;
    bool found = false;

    pthread_mutex_lock(&puppet->mutex);
    for (unsigned i = 0; i < puppet->held_count && !found; i++)
        if (puppet->held[i].io == io) {
            puppet->held[i] = puppet->held[--puppet->held_count];
            found = true;
        }
    pthread_mutex_unlock(&puppet->mutex);
    if (found)
        io_failed(io, FARBLK_TIMED_OUT, FARBLK_EFFECT_UNKNOWN, "cancelled");
}

static const struct driver puppet_driver = {
    .name = "puppet",
    .schemes = "puppet",
    .native_fua = ~0u,
    .open = puppet_driver_open,
    .start = puppet_driver_start,
    .close = puppet_driver_close,
    .submit = puppet_driver_submit,
    .cancel = puppet_driver_cancel,
};

struct puppet *
puppet_create(const char *name, uint64_t size, uint32_t sector_size)
{
    struct puppet *puppet = calloc(1, sizeof *puppet);
    pthread_condattr_t attributes;

    assert_non_null(puppet);
    pthread_mutex_init(&puppet->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&puppet->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    puppet->sector_size = sector_size;
    puppet->features = PUPPET_FEATURES;
    puppet->size = size;
    puppet->capacity = 2 * size;
    puppet->data = calloc(1, puppet->capacity + 1);
    puppet->mapped = calloc(puppet->capacity / UNIT + 1, sizeof(bool));
    assert_true(puppet->data != NULL && puppet->mapped != NULL);
    snprintf(puppet->name, sizeof puppet->name, "%s", name);
    return puppet;
}

void
puppet_open(struct puppet *puppet)
{
    struct candidate found = {puppet, ""};
    struct error error;

    assert_int_equal(
        device_open_found(&puppet_driver, &found, &puppet->dev, &error), 0);
}

void
puppet_destroy(struct puppet *puppet)
{
    if (puppet == NULL)
        return;
    farblk_close(puppet->dev);
    pthread_cond_destroy(&puppet->changed);
    pthread_mutex_destroy(&puppet->mutex);
    free(puppet->data);
    free(puppet->mapped);
    free(puppet);
}

void
puppet_hold(struct puppet *puppet, struct puppet_rule rule)
{
    pthread_mutex_lock(&puppet->mutex);
    puppet->hold = rule;
    pthread_mutex_unlock(&puppet->mutex);
}

void
puppet_fail(struct puppet *puppet, struct puppet_rule rule)
{
    pthread_mutex_lock(&puppet->mutex);
    puppet->fail = rule;
    pthread_mutex_unlock(&puppet->mutex);
}

void
puppet_release(struct puppet *puppet)
{
    pthread_mutex_lock(&puppet->mutex);
    puppet->hold.ops = 0;
    while (puppet->held_count > 0) {
        struct io *io = puppet->held[0].io;
        bool done = puppet->held[0].done;

        puppet->held_count--;
        memmove(&puppet->held[0], &puppet->held[1],
                puppet->held_count * sizeof puppet->held[0]);
        pthread_mutex_unlock(&puppet->mutex);
        puppet_end(puppet, io, done);
        pthread_mutex_lock(&puppet->mutex);
    }
    pthread_mutex_unlock(&puppet->mutex);
}

void
puppet_wait_held(struct puppet *puppet, unsigned count)
{
    int64_t until = timer_now() + SUPPORT_PATIENCE_MS;
    struct timespec at = {(time_t)(until / 1000), 0};
    int status = 0;

    pthread_mutex_lock(&puppet->mutex);
    while (puppet->held_count < count && status == 0)
        status = pthread_cond_timedwait(&puppet->changed, &puppet->mutex, &at);
    pthread_mutex_unlock(&puppet->mutex);
    assert_int_equal(status, 0);
}

unsigned
puppet_held(struct puppet *puppet)
{
    pthread_mutex_lock(&puppet->mutex);
    unsigned count = puppet->held_count;
    pthread_mutex_unlock(&puppet->mutex);
    return count;
}

unsigned
puppet_count(struct puppet *puppet, enum farblk_op op)
{
    pthread_mutex_lock(&puppet->mutex);
    unsigned count = puppet->count[op];
    pthread_mutex_unlock(&puppet->mutex);
    return count;
}
