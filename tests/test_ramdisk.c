/* SPDX-License-Identifier: ISC */
/*
 * The ramdisk driver: names, what they stand for and when it goes; shapes; and
 * what only this driver promises, answers exact to the sector and lent reads.
 * What every driver answers alike is the conformance suite's.
 */
#include "core/request.h"
#include "tests/support.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static struct farblk *
opened(const char *name, const char *parameters)
{
    char uri[600];
    struct farblk *dev;

    snprintf(uri, sizeof uri, "ramdisk:%s%s", name, parameters);
    ok(farblk_open(uri, NULL, &dev));
    return dev;
}

static void
open_fails(int status, const char *name, const char *parameters)
{
    char uri[600];
    struct farblk *dev = (struct farblk *)uri;

    snprintf(uri, sizeof uri, "ramdisk:%s%s", name, parameters);
    fails_with(status, farblk_open(uri, NULL, &dev));
    assert_null(dev);
}

static void
opening_makes_16_mebibytes(void **state)
{
    (void)state;
    const char *name = support_name("fresh");
    struct farblk *dev = opened(name, "");
    struct farblk_info info = support_info(dev);

    assert_int_equal(info.sector_size, 512);
    assert_int_equal(info.size_sectors, 32768);
    assert_true(info.read_write);
    assert_string_equal(info.driver, "ramdisk");
    assert_string_equal(info.transport, "local");
    assert_string_equal(info.name, name);
    assert_int_equal(info.features,
                     FARBLK_CAN_RESIZE | FARBLK_CAN_DISCARD
                         | FARBLK_DISCARD_ZEROES | FARBLK_CAN_WRITE_ZEROES
                         | FARBLK_CAN_SEEK | FARBLK_CAN_FUA | FARBLK_CAN_WATCH
                         | FARBLK_SECTOR_ATOMIC);
    ok(farblk_close(dev));
    ok(farblk_ramdisk_destroy(name));

    dev = opened(name, "?sector=4k&size=1M");
    info = support_info(dev);
    assert_int_equal(info.sector_size, 4096);
    assert_int_equal(info.size_sectors, 256);
    ok(farblk_close(dev));
    ok(farblk_ramdisk_destroy(name));
}

static void
a_name_keeps_content_without_handles(void **state)
{
    (void)state;
    const char *name = support_name("kept");
    uint8_t data[1024];
    struct farblk *dev = opened(name, "?size=1M");

    pattern_fill(data, sizeof data, 1);
    ok(support_write(dev, 2, data, sizeof data, 0));
    ok(farblk_resize(dev, 77));
    ok(farblk_close(dev));

    memset(data, 0, sizeof data);
    dev = opened(name, "");
    assert_int_equal(support_info(dev).size_sectors, 77);
    ok(support_read(dev, 2, data, sizeof data));
    assert_int_equal(pattern_check(data, sizeof data, 1), sizeof data);
    /* The size of now is the one that counts. */
    ok(farblk_close(opened(name, "?size=39424")));
    open_fails(FARBLK_CONFLICT, name, "?size=1M");
    ok(farblk_close(dev));
    ok(farblk_ramdisk_destroy(name));
}

static void
handles_keep_what_lost_its_name(void **state)
{
    (void)state;
    const char *name = support_name("orphan");
    uint64_t before = block_in_use();
    uint8_t data[512];

    ok(farblk_ramdisk_create(name, 64, 512));
    struct farblk *first = opened(name, "");
    pattern_fill(data, sizeof data, 1);
    ok(support_write(first, 63, data, sizeof data, 0));

    ok(farblk_ramdisk_create(name, 8, 4096));
    struct farblk *second = opened(name, "");
    assert_int_equal(support_info(second).sector_size, 4096);
    ok(farblk_ramdisk_destroy(name));
    struct farblk *third = opened(name, "");
    assert_int_equal(support_info(third).size_sectors, 32768);

    /* Three ramdisks now, which have had the same name. */
    ok(farblk_resize(third, 1));
    ok(farblk_resize(second, 2));
    assert_int_equal(support_info(first).size_sectors, 64);
    memset(data, 0, sizeof data);
    ok(support_read(first, 63, data, sizeof data));
    assert_int_equal(pattern_check(data, sizeof data, 1), sizeof data);
    ok(farblk_close(first));
    assert_int_equal(block_in_use(), before);
    ok(farblk_close(second));
    ok(farblk_close(third));
    ok(farblk_ramdisk_destroy(name));
    ok(farblk_ramdisk_destroy(name)); /* which is not there */
}

static void
one_name_is_one_device(void **state)
{
    (void)state;
    const char *name = support_name("shared");
    struct farblk *one = opened(name, ""), *two = opened(name, "?ro=1");
    uint8_t data[512];

    pattern_fill(data, sizeof data, 9);
    ok(support_write(one, 5, data, sizeof data, 0));
    fails_with(FARBLK_IS_READ_ONLY,
               support_write(two, 6, data, sizeof data, 0));
    memset(data, 0, sizeof data);
    ok(support_read(two, 5, data, sizeof data));
    assert_int_equal(pattern_check(data, sizeof data, 9), sizeof data);
    ok(farblk_resize(one, 5));
    assert_int_equal(support_info(two).size_sectors, 5);
    fails_with(FARBLK_INVALID, support_read(two, 5, data, sizeof data));
    ok(farblk_close(one));
    ok(farblk_close(two));
    ok(farblk_ramdisk_destroy(name));
}

static void
another_shape_is_a_conflict(void **state)
{
    (void)state;
    const char *name = support_name("shape");

    ok(farblk_ramdisk_create(name, 1000, 1024));
    open_fails(FARBLK_CONFLICT, name, "?sector=512");
    text_has("1024");
    text_has("512");
    open_fails(FARBLK_CONFLICT, name, "?size=1000k&sector=2k");
    open_fails(FARBLK_CONFLICT, name, "?size=1001k");
    text_has("1024000");
    text_has("1025024");
    ok(farblk_close(opened(name, "?size=1000k&sector=1k")));
    ok(farblk_ramdisk_destroy(name));
}

static void
bad_names_and_shapes_are_invalid(void **state)
{
    (void)state;
    const char *name = support_name("bad");
    char longest[257];

    memset(longest, 'x', 256);
    longest[256] = '\0';
    fails_with(FARBLK_INVALID, farblk_ramdisk_create(NULL, 1, 512));
    fails_with(FARBLK_INVALID, farblk_ramdisk_destroy(NULL));
    fails_with(FARBLK_INVALID, farblk_ramdisk_create("", 1, 512));
    fails_with(FARBLK_INVALID, farblk_ramdisk_create("a b", 1, 512));
    fails_with(FARBLK_INVALID, farblk_ramdisk_create(longest, 1, 512));
    fails_with(FARBLK_INVALID, farblk_ramdisk_create(name, 1, 0));
    fails_with(FARBLK_INVALID, farblk_ramdisk_create(name, 1, 256));
    fails_with(FARBLK_INVALID, farblk_ramdisk_create(name, 1, 513));
    fails_with(FARBLK_INVALID, farblk_ramdisk_create(name, 1, 131072));
    fails_with(FARBLK_INVALID, farblk_ramdisk_create(name, UINT64_MAX, 512));
    fails_with(FARBLK_INVALID,
               farblk_ramdisk_create(name, (uint64_t)INT64_MAX / 512 + 1, 512));
    open_fails(FARBLK_INVALID, "", "");
    open_fails(FARBLK_INVALID, "a/b", "");
    open_fails(FARBLK_INVALID, longest, "");
    open_fails(FARBLK_INVALID, "//host/name", "");
    open_fails(FARBLK_INVALID, name, "?sector=1000");
    text_has("1000");
    open_fails(FARBLK_INVALID, name, "?sector=128k");
    open_fails(FARBLK_INVALID, name, "?sector=");
    open_fails(FARBLK_INVALID, name, "?size=1000");
    text_has("whole sectors");
    open_fails(FARBLK_INVALID, name, "?size=16E");
    open_fails(FARBLK_INVALID, name, "?colour=red");
    text_has("sector");

    longest[255] = '\0';
    ok(farblk_ramdisk_create(longest, 0, 65536));
    struct farblk *dev = opened(longest, "");
    assert_int_equal(support_info(dev).size_sectors, 0);
    assert_string_equal(support_info(dev).name, longest);
    ok(farblk_close(dev));
    ok(farblk_ramdisk_destroy(longest));
}

static void
extents_and_seeks_are_exact_to_the_sector(void **state)
{
    (void)state;
    const char *name = support_name("exact");
    struct farblk *dev = opened(name, "?size=1T");
    uint64_t size = support_info(dev).size_sectors, found, next = 0;
    struct farblk_extent extent[3];
    uint8_t data[512] = {0};

    for (uint64_t sector = 1; sector < size; sector = sector * 5 + 1)
        ok(support_write(dev, sector, data, sizeof data, 0));
    for (uint64_t sector = 1; sector < size; sector = sector * 5 + 1) {
        ok(farblk_seek_mapped(dev, next, &found));
        assert_int_equal(found, sector);
        ok(farblk_seek_unmapped(dev, sector, &next));
        assert_int_equal(next, sector + 1);
    }
    ok(farblk_seek_mapped(dev, next, &found));
    assert_int_equal(found, size);

    /* Three at a time, each from where the last ended. */
    uint64_t at = 0, wanted = 1;
    unsigned mapped = 0;
    while (at < size) {
        int count = ok(farblk_extents(dev, at, size - at, extent, 3));
        assert_true(count > 0);
        for (int i = 0; i < count; i++) {
            assert_int_equal(extent[i].start, at);
            assert_int_equal(extent[i].mapped, mapped);
            at += extent[i].count;
            assert_int_equal(at, mapped           ? wanted + 1
                                 : wanted >= size ? size
                                                  : wanted);
            if (mapped != 0)
                wanted = wanted * 5 + 1;
            mapped = !mapped;
        }
    }
    assert_int_equal(ok(farblk_extents(dev, 1, 1, extent, 3)), 1);
    assert_int_equal(extent[0].count, 1);
    ok(farblk_discard(dev, 0, size, 0));
    assert_int_equal(ok(farblk_extents(dev, 0, size, extent, 3)), 1);
    assert_int_equal(extent[0].count, size);
    assert_int_equal(extent[0].mapped, 0);
    ok(farblk_close(dev));
    ok(farblk_ramdisk_destroy(name));
}

static void
zeroes_unmap_unless_told(void **state)
{
    (void)state;
    const char *name = support_name("zeroes");
    struct farblk *dev = opened(name, "?size=64k");
    uint64_t found;
    uint8_t data[65536];

    pattern_fill(data, sizeof data, 1);
    ok(support_write(dev, 0, data, sizeof data, 0));
    ok(farblk_write_zeroes(dev, 3, 20, 0));
    ok(farblk_write_zeroes(dev, 30, 20, FARBLK_NO_UNMAP));
    ok(farblk_discard(dev, 127, 1, FARBLK_FUA));
    memset(data + 3 * 512, 0, 20 * 512);
    memset(data + 30 * 512, 0, 20 * 512);
    memset(data + 127 * 512, 0, 512);
    ok(farblk_seek_unmapped(dev, 0, &found));
    assert_int_equal(found, 3);
    ok(farblk_seek_mapped(dev, 3, &found));
    assert_int_equal(found, 23);
    ok(farblk_seek_unmapped(dev, 23, &found));
    assert_int_equal(found, 127);

    uint8_t back[65536];
    ok(support_read(dev, 0, back, sizeof back));
    assert_memory_equal(back, data, sizeof back);
    ok(farblk_close(dev));
    ok(farblk_ramdisk_destroy(name));
}

static void
no_space_tells_the_limit_and_the_effect(void **state)
{
    (void)state;
    const char *name = support_name("full");
    struct farblk *dev = opened(name, "");
    uint8_t *data = calloc(1, 65536);
    char limit[32];

    block_set_limit(block_in_use());
    snprintf(limit, sizeof limit, "%llu", (unsigned long long)block_limit());
    fails_with(FARBLK_NO_SPACE, support_write(dev, 0, data, 65536, 0));
    text_has(limit);
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_NONE);
    block_set_limit(block_in_use() + 40000);
    fails_with(FARBLK_NO_SPACE, support_write(dev, 0, data, 65536, 0));
    assert_int_equal(farblk_last_effect(), FARBLK_EFFECT_UNKNOWN);
    block_set_limit(UINT64_MAX);
    ok(support_write(dev, 0, data, 65536, 0));
    free(data);
    ok(farblk_close(dev));
    ok(farblk_ramdisk_destroy(name));
}

/* A lent read, which a ramdisk completes at once. */
static bool lent;

static void
lend_done(struct request *request)
{
    (void)request;
    lent = true;
}

static int
lend(struct farblk *dev, uint64_t sector, uint64_t count, struct loan *loan)
{
    struct request request = {.handle = dev,
                              .op = FARBLK_OP_READ,
                              .sector = sector,
                              .count = count,
                              .loan = loan,
                              .done = lend_done};

    lent = false;
    request_submit(&request);
    assert_true(lent);
    return request.error.status;
}

static void
what_is_lent_does_not_change(void **state)
{
    (void)state;
    const char *name = support_name("lent");
    struct farblk *dev = opened(name, "?size=1M");
    uint64_t before = block_in_use();
    struct loan_part part[65536 / 4096 + 2];
    struct loan loan = {.part = part, .capacity = sizeof part / sizeof *part};
    uint8_t data[65536];

    assert_true(request_lends(dev));
    /* Every other block, so that nothing can be joined. */
    for (uint64_t block = 0; block < 20; block += 2) {
        pattern_fill(data, 4096, block);
        ok(support_write(dev, block * 8, data, 4096, 0));
    }
    assert_int_equal(lend(dev, 1, 128, &loan), 0);
    assert_int_equal(loan.length, 65536);
    memset(data, 1, 4096);
    for (uint64_t block = 0; block < 20; block++)
        ok(support_write(dev, block * 8, data, 4096, 0));
    ok(farblk_close(dev));
    ok(farblk_ramdisk_destroy(name));

    uint8_t back[68 * 1024] = {0};
    uint8_t *to = back + 512;
    for (size_t i = 0; i < loan.count; i++) {
        memcpy(to, part[i].iov.iov_base, part[i].iov.iov_len);
        to += part[i].iov.iov_len;
    }
    for (uint64_t block = 0; block < 17; block++) {
        pattern_fill(data, 4096, block);
        if (block % 2 != 0)
            memset(data, 0, 4096);
        size_t from = block == 0 ? 512 : 0;
        size_t length = block == 16 ? 512 : 4096;
        assert_memory_equal(back + block * 4096 + from, data + from,
                            length - from);
    }
    loan_return(&loan);
    assert_int_equal(block_in_use(), before);
}

static void
a_loan_that_is_too_small_is_an_error(void **state)
{
    (void)state;
    const char *name = support_name("small");
    struct farblk *dev = opened(name, "?size=64M");
    struct loan_part part[4];
    struct loan loan = {.part = part, .capacity = 4};
    uint8_t data[512] = {1};

    /* Zeroes come in parts as well. */
    assert_int_equal(lend(dev, 0, 4 * 128, &loan), 0);
    assert_int_equal(loan.count, 4);
    loan_return(&loan);
    assert_int_equal(lend(dev, 0, 4 * 128 + 1, &loan), FARBLK_NO_MEMORY);
    assert_int_equal(loan.count, 0);
    for (uint64_t block = 0; block < 6; block++)
        ok(support_write(dev, block * 8, data, sizeof data, 0));
    uint64_t before = block_in_use();
    assert_int_equal(lend(dev, 0, 6 * 8, &loan), FARBLK_NO_MEMORY);
    assert_int_equal(loan.count, 0);
    ok(farblk_discard(dev, 0, 6 * 8, 0));
    assert_true(block_in_use() < before - 6 * 4096);
    ok(farblk_close(dev));
    ok(farblk_ramdisk_destroy(name));
}

static void
a_forked_child_begins_without_ramdisks(void **state)
{
    (void)state;
    const char *name = support_name("fork");
    struct farblk *dev = opened(name, "?size=1M");
    pid_t child = fork();

    if (child == 0) {
        struct farblk *own;
        struct farblk_info info;
        char uri[300];
        snprintf(uri, sizeof uri, "ramdisk:%s?size=2M", name);
        if (farblk_ramdisk_create("other", 1, 512) != 0
            || farblk_open(uri, NULL, &own) != 0
            || farblk_get_info(own, &info, sizeof info) != 0
            || info.size_sectors != 4096 || farblk_close(own) != 0)
            _exit(1);
        _exit(0);
    }
    int status;
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    ok(farblk_close(dev));
    ok(farblk_ramdisk_destroy(name));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_makes_16_mebibytes),
        cmocka_unit_test(a_name_keeps_content_without_handles),
        cmocka_unit_test(handles_keep_what_lost_its_name),
        cmocka_unit_test(one_name_is_one_device),
        cmocka_unit_test(another_shape_is_a_conflict),
        cmocka_unit_test(bad_names_and_shapes_are_invalid),
        cmocka_unit_test(extents_and_seeks_are_exact_to_the_sector),
        cmocka_unit_test(zeroes_unmap_unless_told),
        cmocka_unit_test(no_space_tells_the_limit_and_the_effect),
        cmocka_unit_test(what_is_lent_does_not_change),
        cmocka_unit_test(a_loan_that_is_too_small_is_an_error),
        cmocka_unit_test(a_forked_child_begins_without_ramdisks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
