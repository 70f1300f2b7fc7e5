/* SPDX-License-Identifier: ISC */
/*
 * Each operation has a function that does it to the device, then to the array.
 * Ranges leave the device now and then, when the model owns all of it: then the
 * device must refuse and nothing may change.
 */
#include "tests/model.h"

#include <stdio.h>

#define BUFFERS 7

void
model_init(struct model *model, struct farblk *one, struct farblk *two,
           struct trouble *trouble, uint64_t seed, uint64_t first,
           uint64_t span, uint64_t size, bool may_resize, bool exact)
{
    struct farblk_info info = support_info(one);

    *model = (struct model){
        .dev = {one, two},
        .trouble = trouble,
        .rng = {.state = seed},
        .seed = seed,
        .sector_size = info.sector_size,
        .first = first,
        .span = span,
        .may_resize = may_resize,
        .can_resize = (info.features & FARBLK_CAN_RESIZE) != 0,
        .exact = exact,
        .discard_zeroes = (info.features & FARBLK_DISCARD_ZEROES) != 0,
        .size = size,
        .data = calloc(span, info.sector_size),
        .buffer = calloc(span + 1, info.sector_size),
        .mapped = calloc(span, sizeof(bool)),
    };
    assert_true(model->data && model->buffer && model->mapped);
}

void
model_fini(struct model *model)
{
    free(model->data);
    free(model->buffer);
    free(model->mapped);
}

__attribute__((format(printf, 2, 3))) static bool
model_differs(struct model *model, const char *format, ...)
{
    char text[FARBLK_TEXT_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    trouble_note(model->trouble, "seed %llu, step %u: %s (last text: %s)",
                 (unsigned long long)model->seed, model->step, text,
                 farblk_last_text());
    return false;
}

/* How many sectors belong to the model and exist now. */
static uint64_t
model_end(const struct model *model)
{
    return model->may_resize ? model->size : model->span;
}

/* A range, relative to first; short ones more often than long ones.  Past the
 * end now and then. */
static void
model_range(struct model *model, uint64_t *start, uint64_t *count)
{
    uint64_t end = model_end(model);
    uint64_t longest = rng_below(&model->rng, 8) == 0 ? end + 1 : 24;

    *start = rng_below(&model->rng, end + 1);
    *count = rng_below(&model->rng, longest + 1);
    if (*count > model->span)
        *count = model->span;
    if (*start + *count > end
        && (!model->may_resize || rng_below(&model->rng, 8) != 0))
        *count = end - *start;
}

static struct farblk *
model_device(struct model *model)
{
    return model->dev[rng_below(&model->rng, 2)];
}

/* Whether the device answered as it must for this range; *done: it did it. */
static bool
model_status(struct model *model, const char *what, uint64_t start,
             uint64_t count, int status, bool *done)
{
    bool inside = start + count <= model_end(model);

    *done = status == 0 && inside;
    if (inside ? status == 0 : status == FARBLK_INVALID)
        return true;
    return model_differs(model, "%s of %llu + %llu of %llu gave %s", what,
                         (unsigned long long)start, (unsigned long long)count,
                         (unsigned long long)model_end(model),
                         farblk_status_name(status));
}

/* Cut the buffer into up to BUFFERS pieces, some of them empty. */
static size_t
model_cut(struct model *model, uint64_t count, struct iovec *iov)
{
    size_t n = 0;
    uint64_t at = 0;

    while (n < BUFFERS - 1 && at < count) {
        uint64_t piece = rng_below(&model->rng, count - at + 1);

        iov[n++] = (struct iovec){model->buffer + at * model->sector_size,
                                  piece * model->sector_size};
        at += piece;
    }
    iov[n++] = (struct iovec){model->buffer + at * model->sector_size,
                              (count - at) * model->sector_size};
    return n;
}

static bool
model_same(struct model *model, uint64_t start, uint64_t count)
{
    const uint8_t *wanted = model->data + start * model->sector_size;
    size_t length = count * model->sector_size;

    if (memcmp(model->buffer, wanted, length) == 0)
        return true;
    for (size_t i = 0; i < length; i++)
        if (model->buffer[i] != wanted[i])
            return model_differs(
                model,
                "read of %llu + %llu: sector %llu octet %zu is %02x,"
                " not %02x",
                (unsigned long long)(model->first + start),
                (unsigned long long)count,
                (unsigned long long)(model->first + start
                                     + i / model->sector_size),
                i % model->sector_size, model->buffer[i], wanted[i]);
    return true;
}

static bool
model_read(struct model *model)
{
    struct iovec iov[BUFFERS];
    uint64_t start, count;
    bool done;
    int status;

    model_range(model, &start, &count);
    memset(model->buffer, 0x5a, count * model->sector_size);
    status = farblk_read(model_device(model), model->first + start, iov,
                         model_cut(model, count, iov));
    return model_status(model, "read", start, count, status, &done)
           && (!done || model_same(model, start, count));
}

static bool
model_write(struct model *model)
{
    struct iovec iov[BUFFERS];
    uint64_t start, count;
    bool done;
    int status;

    model_range(model, &start, &count);
    if (rng_below(&model->rng, 10) == 0)
        memset(model->buffer, 0, count * model->sector_size);
    else
        pattern_fill(model->buffer, count * model->sector_size,
                     rng_next(&model->rng));
    status = farblk_write(model_device(model), model->first + start, iov,
                          model_cut(model, count, iov),
                          rng_below(&model->rng, 20) == 0 ? FARBLK_FUA : 0);
    if (!model_status(model, "write", start, count, status, &done))
        return false;
    if (done) {
        memcpy(model->data + start * model->sector_size, model->buffer,
               count * model->sector_size);
        memset(model->mapped + start, true, count * sizeof(bool));
    }
    return true;
}

static bool
model_zero(struct model *model, bool discard)
{
    uint64_t start, count;
    uint32_t flags = rng_below(&model->rng, 20) == 0 ? FARBLK_FUA : 0;
    bool done;
    int status;

    model_range(model, &start, &count);
    if (!discard && rng_below(&model->rng, 2) == 0)
        flags |= FARBLK_NO_UNMAP;
    status = (discard ? farblk_discard : farblk_write_zeroes)(
        model_device(model), model->first + start, count, flags);
    if (!model_status(model, discard ? "discard" : "write_zeroes", start, count,
                      status, &done))
        return false;
    if (!done)
        return true;
    memset(model->mapped + start, (flags & FARBLK_NO_UNMAP) != 0,
           count * sizeof(bool));
    if (!discard || model->discard_zeroes)
        memset(model->data + start * model->sector_size, 0,
               count * model->sector_size);
    else if (support_read(model->dev[0], model->first + start,
                          model->data + start * model->sector_size,
                          count * model->sector_size)
             != 0)
        return model_differs(model, "read after discard");
    return true;
}

static bool
model_resize(struct model *model)
{
    uint64_t size = rng_below(&model->rng, model->span + 1);
    struct farblk_info info = {0};
    int status = farblk_resize(model_device(model), size);

    if (!model->can_resize)
        return status == FARBLK_UNIMPLEMENTED
               || model_differs(model, "resize gave %s",
                                farblk_status_name(status));
    if (status != 0)
        return model_differs(model, "resize to %llu gave %s",
                             (unsigned long long)size,
                             farblk_status_name(status));
    if (size < model->size) {
        memset(model->data + size * model->sector_size, 0,
               (model->size - size) * model->sector_size);
        memset(model->mapped + size, 0, (model->size - size) * sizeof(bool));
    }
    model->size = size;
    if (farblk_get_info(model_device(model), &info, sizeof info) != 0
        || info.size_sectors != size)
        return model_differs(model, "resized to %llu, info says %llu",
                             (unsigned long long)size,
                             (unsigned long long)info.size_sectors);
    return true;
}

/* Whether these sectors may be told so. */
static bool
model_may_be(struct model *model, const char *what, uint64_t start,
             uint64_t count, bool mapped)
{
    for (uint64_t i = start; i < start + count; i++) {
        bool zero = pattern_is_zero(model->data + i * model->sector_size,
                                    model->sector_size);

        if (!mapped && !zero)
            return model_differs(model,
                                 "%s: sector %llu holds data and is"
                                 " told unmapped",
                                 what, (unsigned long long)i);
        if (model->exact && mapped != model->mapped[i])
            return model_differs(model, "%s: sector %llu is told %s", what,
                                 (unsigned long long)i,
                                 mapped ? "mapped" : "unmapped");
    }
    return true;
}

static bool
model_seek(struct model *model, bool mapped)
{
    uint64_t end = model_end(model), found = 0;
    uint64_t start = rng_below(&model->rng, end + 2);
    const char *what = mapped ? "seek_mapped" : "seek_unmapped";
    int status = (mapped ? farblk_seek_mapped : farblk_seek_unmapped)(
        model_device(model), start, &found);

    if (start > end)
        return status == FARBLK_INVALID
               || model_differs(model, "%s past the end gave %s", what,
                                farblk_status_name(status));
    if (status != 0 || found < start || found > end)
        return model_differs(model, "%s from %llu of %llu: %s, %llu", what,
                             (unsigned long long)start, (unsigned long long)end,
                             farblk_status_name(status),
                             (unsigned long long)found);
    /* What it skipped is of the other kind; that alone is exact for every
     * driver when it looks for data. */
    if (mapped && !model_may_be(model, what, start, found - start, false))
        return false;
    if (!mapped && model->exact
        && !model_may_be(model, what, start, found - start, true))
        return false;
    return found == end || (mapped && !model->exact)
           || model_may_be(model, what, found, 1, mapped);
}

static bool
model_extents(struct model *model)
{
    struct farblk_extent extents[8];
    uint64_t start, count, at;
    size_t max = 1 + rng_below(&model->rng, 8);
    bool done;
    int n;

    model_range(model, &start, &count);
    n = farblk_extents(model_device(model), model->first + start, count,
                       extents, max);
    if (!model_status(model, "extents", start, count, n < 0 ? n : 0, &done))
        return false;
    if (!done)
        return true;
    if ((count == 0) != (n == 0) || (size_t)n > max)
        return model_differs(model,
                             "extents of %llu sectors: %d of at most"
                             " %zu",
                             (unsigned long long)count, n, max);
    at = start;
    for (int i = 0; i < n; i++) {
        if (extents[i].start != model->first + at || extents[i].count == 0
            || extents[i].count > start + count - at)
            return model_differs(model, "extent %d is %llu + %llu at %llu", i,
                                 (unsigned long long)extents[i].start,
                                 (unsigned long long)extents[i].count,
                                 (unsigned long long)(model->first + at));
        if (!model_may_be(model, "extents", at, extents[i].count,
                          extents[i].mapped != 0))
            return false;
        at += extents[i].count;
    }
    return true;
}

bool
model_compare(struct model *model)
{
    uint64_t count = model_end(model);
    int status = support_read(model->dev[1], model->first, model->buffer,
                              count * model->sector_size);

    if (status != 0)
        return model_differs(model, "read of all gave %s",
                             farblk_status_name(status));
    return model_same(model, 0, count);
}

bool
model_step(struct model *model)
{
    uint64_t kind = rng_below(&model->rng, 100);

    model->step++;
    if (kind < 35)
        return model_write(model);
    if (kind < 65)
        return model_read(model);
    if (kind < 72)
        return model_zero(model, true);
    if (kind < 80)
        return model_zero(model, false);
    if (kind < 84)
        return model->may_resize ? model_resize(model) : model_read(model);
    if (kind < 92)
        return model_extents(model);
    if (kind < 98)
        return model->may_resize ? model_seek(model, kind % 2 == 0)
                                 : model_extents(model);
    if (kind < 99 && farblk_flush(model_device(model)) != 0)
        return model_differs(model, "flush");
    return kind < 99 || model_compare(model);
}
