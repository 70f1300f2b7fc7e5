/* SPDX-License-Identifier: ISC */
/*
 * Runs the cases, and what they share.
 */
#include "tests/conformance.h"

#include <stdio.h>

#define CASES_MAX 256

static int
conformance_setup(void **state)
{
    (void)state;
    support_watch("conformance");
    return 0;
}

static int
conformance_teardown(void **state)
{
    (void)state;
    support_watch(NULL);
    rig_destroy_all();
    return 0;
}

int
conformance_run(const struct way *way)
{
    static const struct conformance_case *const groups[] = {
        conformance_arguments,   conformance_data,    conformance_maps,
        conformance_shape,       conformance_life,    conformance_queues,
        conformance_completions, conformance_threads,
    };
    struct CMUnitTest tests[CASES_MAX];
    size_t count = 0;
    char name[64];

    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
        for (const struct conformance_case *c = groups[g]; c->name; c++) {
            assert_true(count < CASES_MAX);
            tests[count++] = (struct CMUnitTest){
                .name = c->name,
                .test_func = c->run,
                .setup_func = conformance_setup,
                .teardown_func = conformance_teardown,
                .initial_state = (void *)(uintptr_t)way,
            };
        }
    snprintf(name, sizeof name, "%s.%s", way->store->name,
             transport_names[way->transport]);
    return _cmocka_run_group_tests(name, tests, count, NULL, NULL);
}

struct rig *
conformance_rig(void **way, uint64_t size_sectors, uint32_t sector_size)
{
    return rig_create(*(const struct way *)*way, size_sectors, sector_size,
                      NULL);
}

bool
conformance_is_fixed(struct rig *rig, struct farblk *dev)
{
    struct farblk_info info = support_info(dev);

    if (info.features & FARBLK_CAN_RESIZE)
        return false;
    fails_with(FARBLK_UNIMPLEMENTED, farblk_resize(dev, info.size_sectors + 1));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
    assert_int_equal(support_info(dev).size_sectors, info.size_sectors);
    assert_int_equal(support_info(dev).generation, info.generation);
    rig_destroy(rig);
    return true;
}

void
conformance_expect_pattern(struct farblk *dev, uint64_t start, uint64_t count,
                           uint32_t sector_size, uint64_t seed)
{
    size_t length = count * sector_size, at;
    uint8_t *buffer = malloc(length);

    assert_non_null(buffer);
    memset(buffer, 0xa5, length);
    ok(support_read(dev, start, buffer, length));
    at = pattern_check(buffer, length, seed);
    free(buffer);
    if (at != length)
        fail_msg("sectors %llu + %llu differ from octet %zu on",
                 (unsigned long long)start, (unsigned long long)count, at);
}

void
conformance_expect_zero(struct farblk *dev, uint64_t start, uint64_t count,
                        uint32_t sector_size)
{
    size_t length = count * sector_size;
    uint8_t *buffer = malloc(length);
    bool zero;

    assert_non_null(buffer);
    memset(buffer, 0xa5, length);
    ok(support_read(dev, start, buffer, length));
    zero = pattern_is_zero(buffer, length);
    free(buffer);
    if (!zero)
        fail_msg("sectors %llu + %llu are not all zero",
                 (unsigned long long)start, (unsigned long long)count);
}

void
conformance_put_pattern(struct farblk *dev, uint64_t start, uint64_t count,
                        uint32_t sector_size, uint64_t seed)
{
    size_t length = count * sector_size;
    uint8_t *buffer = malloc(length);

    assert_non_null(buffer);
    pattern_fill(buffer, length, seed);
    ok(support_write(dev, start, buffer, length, 0));
    /* The buffer is the caller's again: nothing may look at it any more. */
    memset(buffer, 0xee, length);
    free(buffer);
}

struct farblk_completion
conformance_do(struct farblk_queue *queue, const struct farblk_request *request)
{
    struct farblk_completion completion = {0};

    ok(farblk_submit(queue, request));
    assert_int_equal(farblk_collect(queue, &completion, sizeof completion, 1,
                                    SUPPORT_PATIENCE_MS),
                     1);
    assert_ptr_equal(completion.user, request->user);
    assert_non_null(completion.text);
    return completion;
}
