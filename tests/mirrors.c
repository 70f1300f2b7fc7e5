/* SPDX-License-Identifier: ISC */
/* See mirrors.h. */
#include "tests/mirrors.h"

#include <poll.h>

void
mirrors_fill(struct puppet *puppet, uint64_t start, uint64_t length,
             uint64_t seed)
{
    pattern_fill(puppet->data + start, length, seed);
    for (uint64_t i = start / 512; i < (start + length) / 512; i++)
        puppet->mapped[i] = true;
}

void
mirrors_clear(struct puppet *puppet, uint64_t start, uint64_t length)
{
    memset(puppet->data + start, 0, length);
    for (uint64_t i = start / 512; i < (start + length) / 512; i++)
        puppet->mapped[i] = false;
}

struct mirrors *
mirrors_create(uint64_t size, uint32_t primary_sector,
               uint32_t secondary_sector)
{
    struct mirrors *mirrors = calloc(1, sizeof *mirrors);

    assert_non_null(mirrors);
    mirrors->primary = puppet_create("one", size, primary_sector);
    mirrors->secondary = puppet_create("two", size, secondary_sector);
    mirrors_fill(mirrors->primary, 0, size, 1);
    mirrors_fill(mirrors->secondary, 0, size, 2);
    pthread_mutex_init(&mirrors->mutex, NULL);
    ok(farblk_queue_create(16, &mirrors->queue));
    return mirrors;
}

static void
mirrors_progress(void *arg, const struct farblk_mirror_status *status)
{
    struct mirrors *mirrors = arg;

    pthread_mutex_lock(&mirrors->mutex);
    if (mirrors->seen_count < MIRRORS_SEEN)
        mirrors->seen[mirrors->seen_count++] = *status;
    pthread_mutex_unlock(&mirrors->mutex);
    if (mirrors->hook != NULL)
        mirrors->hook(mirrors, status);
}

void
mirrors_open(struct mirrors *mirrors, bool degrade)
{
    struct farblk_mirror_options options = {.size = sizeof options,
                                            .degrade = degrade};

    if (mirrors->primary->dev == NULL)
        puppet_open(mirrors->primary);
    if (mirrors->secondary->dev == NULL)
        puppet_open(mirrors->secondary);
    ok(farblk_mirror_open(mirrors->primary->dev, mirrors->secondary->dev,
                          mirrors_progress, mirrors, &mirrors->dev));
    if (degrade)
        ok(farblk_mirror_set(mirrors->dev, &options));
}

void
mirrors_destroy(struct mirrors *mirrors)
{
    if (mirrors == NULL)
        return;
    puppet_release(mirrors->primary);
    puppet_release(mirrors->secondary);
    farblk_queue_destroy(mirrors->queue);
    farblk_close(mirrors->dev);
    puppet_destroy(mirrors->primary);
    puppet_destroy(mirrors->secondary);
    pthread_mutex_destroy(&mirrors->mutex);
    free(mirrors);
}

struct farblk_mirror_status
mirrors_status(struct mirrors *mirrors)
{
    struct farblk_mirror_status status;

    ok(farblk_mirror_status(mirrors->dev, &status, sizeof status));
    return status;
}

struct farblk_mirror_status
mirrors_wait(struct mirrors *mirrors, enum farblk_mirror_state state)
{
    struct farblk_mirror_status status = mirrors_status(mirrors);

    for (int i = 0; status.state != state; i++) {
        if (i >= SUPPORT_PATIENCE_MS)
            fail_msg("the mirror is in state %u, not %d: %s", status.state,
                     state, status.text);
        poll(NULL, 0, 1);
        status = mirrors_status(mirrors);
    }
    return status;
}

unsigned
mirrors_told(struct mirrors *mirrors, enum farblk_mirror_state state)
{
    unsigned told = 0;

    pthread_mutex_lock(&mirrors->mutex);
    for (unsigned i = 0; i < mirrors->seen_count; i++)
        told += mirrors->seen[i].state == state;
    pthread_mutex_unlock(&mirrors->mutex);
    return told;
}

unsigned
mirrors_wait_told(struct mirrors *mirrors, enum farblk_mirror_state state)
{
    for (int i = 0; mirrors_told(mirrors, state) == 0; i++) {
        if (i >= SUPPORT_PATIENCE_MS)
            fail_msg("state %d was never told", state);
        poll(NULL, 0, 1);
    }
    return mirrors_told(mirrors, state);
}

void
mirrors_submit(struct mirrors *mirrors, enum farblk_op op, uint64_t offset,
               void *buffer, uint64_t length, int32_t timeout_ms,
               uintptr_t user)
{
    uint32_t sector = support_info(mirrors->dev).sector_size;
    struct farblk_request request = {
        .size = sizeof request,
        .op = op,
        .dev = mirrors->dev,
        .sector = offset / sector,
        .count = length / sector,
        .timeout_ms = timeout_ms,
        .user = (void *)user,
    };

    if (buffer != NULL) {
        mirrors->iov[user] = (struct iovec){buffer, length};
        request.count = 0;
        request.iov = &mirrors->iov[user];
        request.iovcnt = 1;
    }
    ok(farblk_submit(mirrors->queue, &request));
}

struct farblk_completion
mirrors_collect(struct mirrors *mirrors)
{
    struct farblk_completion completion;

    assert_int_equal(farblk_collect(mirrors->queue, &completion,
                                    sizeof completion, 1, SUPPORT_PATIENCE_MS),
                     1);
    return completion;
}

void
mirrors_nothing_ends(struct mirrors *mirrors)
{
    struct farblk_completion completion;

    assert_int_equal(
        farblk_collect(mirrors->queue, &completion, sizeof completion, 1, 0),
        0);
}

int
mirrors_write(struct mirrors *mirrors, uint64_t offset, uint64_t length,
              uint64_t seed)
{
    uint32_t sector = support_info(mirrors->dev).sector_size;
    uint8_t *buffer = malloc(length);

    assert_non_null(buffer);
    pattern_fill(buffer, length, seed);
    int status =
        support_write(mirrors->dev, offset / sector, buffer, length, 0);
    free(buffer);
    return status;
}

void
mirrors_expect_equal(struct mirrors *mirrors)
{
    struct puppet *one = mirrors->primary, *two = mirrors->secondary;

    pthread_mutex_lock(&one->mutex);
    pthread_mutex_lock(&two->mutex);
    uint64_t sizes[] = {one->size, two->size}, at = 0;
    while (at < sizes[0] && one->data[at] == two->data[at])
        at++;
    pthread_mutex_unlock(&two->mutex);
    pthread_mutex_unlock(&one->mutex);
    assert_int_equal(sizes[0], sizes[1]);
    assert_int_equal(at, sizes[0]);
}

void
mirrors_expect(struct puppet *puppet, uint64_t offset, uint64_t length,
               uint64_t seed)
{
    pthread_mutex_lock(&puppet->mutex);
    size_t same = pattern_check(puppet->data + offset, length, seed);
    pthread_mutex_unlock(&puppet->mutex);
    assert_int_equal(same, length);
}
