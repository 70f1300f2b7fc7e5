/* SPDX-License-Identifier: ISC */
/*
 * copy and compare over a stand-in for the library: completions in any order,
 * maps, sizes and sectors at random, a failure at every place.  The commands
 * run as they are, with their messages caught.
 */
#include "tests/fake_api.h"
#include "tools/tool.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static unsigned char before[2][FAKE_SIZE_MAX];
static char *messages, *output;

/* Run a command line; its stdout and stderr go to `output` and `messages`. */
static int
run(const struct command *command, char *const *words)
{
    FILE *old_out = stdout, *old_err = stderr;
    size_t sizes[2];
    char *argv[16];
    int argc = 0, result;

    for (; words[argc] != NULL; argc++)
        argv[argc] = words[argc];
    free(messages);
    free(output);
    stdout = open_memstream(&output, &sizes[0]);
    stderr = open_memstream(&messages, &sizes[1]);
    tool_name = command->name;
    result = command->run(command, argc, argv);
    fclose(stdout);
    fclose(stderr);
    stdout = old_out;
    stderr = old_err;
    assert_int_equal(fake.queues, 0);
    assert_int_equal(fake.buffers, 0);
    assert_false(fake.device[0].opened || fake.device[1].opened);
    return result;
}

static int
copy(void)
{
    char *words[] = {"copy", "a",          "b", "--request-size",
                     "16k",  "--requests", "7", NULL};

    return run(&command_copy, words);
}

static int
compare(void)
{
    char *words[] = {"compare", "a",          "b", "--request-size",
                     "16k",     "--requests", "7", NULL};

    return run(&command_compare, words);
}

/* Make a device with a random map and random content where it is mapped. */
static void
make(struct farblk *dev, uint32_t sector_size, uint64_t size)
{
    uint32_t scale = 1 + fake_draw() % 50;

    memset(dev, 0, sizeof *dev);
    dev->info.read_write = true;
    dev->info.sector_size = sector_size;
    dev->info.size_sectors = size / sector_size;
    dev->info.features = FARBLK_CAN_SEEK | FARBLK_CAN_WRITE_ZEROES;
    dev->info.preferred_transfer = 65536;
    strcpy(dev->info.transport, "local");
    for (uint64_t i = 0; i < dev->info.size_sectors; i++) {
        dev->mapped[i] = i > 0 && fake_draw() % scale != 0 ? dev->mapped[i - 1]
                                                           : fake_draw() % 2;
        if (dev->mapped[i])
            memset(dev->data + i * sector_size, (int)(1 + fake_draw() % 255),
                   sector_size);
    }
}

/* Two devices, of which b is large enough for a. */
static uint64_t
prepare(uint64_t seed)
{
    static const uint32_t sectors[] = {512, 512, 1024, 4096, 16384};
    uint32_t sector[2];
    uint64_t size[2];

    memset(&fake, 0, sizeof fake);
    fake.random = seed;
    fake.fail_status = FARBLK_IO;
    fake.extents_max = 1 + fake_draw() % 20;
    for (int i = 0; i < 2; i++)
        sector[i] = sectors[fake_draw() % 5];
    size[0] = (uint64_t)(fake_draw() % 500) * sector[0];
    if (size[0] > FAKE_SIZE_MAX / 2)
        size[0] = FAKE_SIZE_MAX / 2;
    size[1] = (size[0] + sector[1] - 1) / sector[1] * sector[1];
    if (fake_draw() % 4 == 0)
        size[1] += sector[1] * (fake_draw() % 5);
    make(&fake.device[0], sector[0], size[0]);
    make(&fake.device[1], sector[1], size[1]);
    for (int i = 0; i < 2; i++) {
        if (fake_draw() % 5 == 0)
            fake.device[i].info.features &= ~(uint64_t)FARBLK_CAN_SEEK;
        if (fake_draw() % 5 == 0)
            fake.device[i].info.features &= ~(uint64_t)FARBLK_CAN_WRITE_ZEROES;
        memcpy(before[i], fake.device[i].data, FAKE_SIZE_MAX);
    }
    return size[0];
}

static void
a_copy_is_equal_and_the_rest_untouched(void **state)
{
    unsigned both = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 400; seed++) {
        uint64_t size = prepare(seed);

        if (copy() != TOOL_FINE)
            fail_msg("seed %llu: %s", (unsigned long long)seed, messages);
        assert_memory_equal(fake.device[0].data, before[0], FAKE_SIZE_MAX);
        assert_memory_equal(fake.device[1].data, before[0], (size_t)size);
        assert_memory_equal(fake.device[1].data + size, before[1] + size,
                            FAKE_SIZE_MAX - (size_t)size);
        assert_int_equal(fake.device[0].writes, 0);
        assert_int_equal(fake.device[1].flushes, 1);
        both += fake.both;
    }
    assert_true(both > 0);
}

static void
holes_are_neither_read_nor_written(void **state)
{
    (void)state;
    prepare(1);
    make(&fake.device[0], 512, FAKE_SIZE_MAX / 2);
    make(&fake.device[1], 4096, FAKE_SIZE_MAX / 2);
    for (int i = 0; i < 2; i++) {
        memset(fake.device[i].mapped, 0, sizeof fake.device[i].mapped);
        memset(fake.device[i].data, 0, sizeof fake.device[i].data);
    }
    assert_int_equal(copy(), TOOL_FINE);
    assert_int_equal(compare(), TOOL_FINE);
    assert_int_equal(fake.device[0].reads + fake.device[1].reads, 0);
    assert_int_equal(fake.device[1].writes + fake.device[1].zeroings, 0);
    assert_int_equal(fake.device[0].extents + fake.device[1].extents, 4);

    /* What is mapped in the destination alone is zeroed. */
    memset(fake.device[1].mapped + 3, 1, 10);
    memset(fake.device[1].data + 3 * 4096, 'x', 10 * 4096);
    assert_int_equal(copy(), TOOL_FINE);
    assert_int_equal(fake.device[0].reads + fake.device[1].writes, 0);
    assert_int_equal(fake.device[1].zeroings, 1);
    assert_int_equal(compare(), TOOL_FINE);
}

static void
a_failure_at_any_place_ends_the_copy(void **state)
{
    unsigned failures = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++)
        for (unsigned at = 1;; at += 1 + at / 8) {
            prepare(seed);
            fake.fail_at = at;
            if (copy() == TOOL_FINE) {
                assert_false(fake.failed);
                break;
            }
            assert_true(fake.failed);
            assert_int_equal(fake.after, 0);
            assert_non_null(strstr(messages, "farblk copy: "));
            assert_non_null(strstr(messages, ": as planned (IO)\n"));
            assert_string_equal(output, "");
            if (strstr(messages, "flush of the destination, b: ") == NULL)
                assert_true(strstr(messages, " at octet ") != NULL
                            && (strstr(messages, " of the source, a: ") != NULL
                                || strstr(messages, " of the destination, b: ")
                                       != NULL));
            failures++;
        }
    assert_true(failures > 100);
}

static void
a_failed_flush_fails_the_copy(void **state)
{
    char *words[] = {"copy", "a", "b", "--no-flush", NULL};

    (void)state;
    prepare(7);
    fake.fail_op = FARBLK_OP_FLUSH;
    assert_int_equal(copy(), TOOL_FAILED);
    assert_non_null(
        strstr(messages, "flush of the destination, b: as planned (IO)"));
    prepare(7);
    fake.fail_op = FARBLK_OP_FLUSH;
    assert_int_equal(run(&command_copy, words), TOOL_FINE);
    assert_int_equal(fake.device[1].flushes, 0);
}

static void
failures_name_operation_side_and_place(void **state)
{
    static const struct {
        uint32_t op;
        const char *text;
    } cases[] = {
        {FARBLK_OP_READ, "read of 16384 octets at octet "},
        {FARBLK_OP_READ, " of the source, a: as planned (IO)"},
        {FARBLK_OP_WRITE, "write of 16384 octets at octet "},
        {FARBLK_OP_WRITE, " of the destination, b: as planned (IO)"},
        {FARBLK_OP_WRITE_ZEROES, "zeroing of 262144 octets at octet 0 of the "
                                 "destination, b: as planned (IO)"},
        {FARBLK_OP_EXTENTS, "asking for the extents of 524288 octets at "
                            "octet 0 of the "},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        prepare(1);
        fake.extents_max = 512;
        make(&fake.device[0], 512, FAKE_SIZE_MAX / 2);
        make(&fake.device[1], 512, FAKE_SIZE_MAX / 2);
        memset(fake.device[0].mapped, 0, 512);
        memset(fake.device[0].mapped + 512, 1, 512);
        memset(fake.device[1].mapped, 1, 1024);
        fake.fail_op = cases[i].op;
        assert_int_equal(copy(), TOOL_FAILED);
        if (strstr(messages, cases[i].text) == NULL)
            fail_msg("no \"%s\" in %s", cases[i].text, messages);
    }
}

static void
compare_tells_the_first_difference(void **state)
{
    char wanted[128];

    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        uint64_t size = prepare(seed), first;
        struct farblk *a = &fake.device[0], *b = &fake.device[1];

        assert_int_equal(copy(), TOOL_FINE);
        assert_int_equal(compare(),
                         a->info.size_sectors * a->info.sector_size
                                 == b->info.size_sectors * b->info.sector_size
                             ? TOOL_FINE
                             : TOOL_FAILED);
        assert_string_equal(messages, "");
        if (size == 0)
            continue;
        /* Some octets, in mapped sectors and in new ones. */
        first = size;
        for (int i = 0; i < 4; i++) {
            uint64_t at = fake_draw() % size;

            b->data[at] = (unsigned char)(b->data[at] + 1);
            b->mapped[at / b->info.sector_size] = 1;
            if (a->data[at] != b->data[at] && at < first)
                first = at;
        }
        assert_int_equal(compare(), TOOL_FAILED);
        snprintf(wanted, sizeof wanted, "differ: octet %llu, sector %llu",
                 (unsigned long long)first,
                 (unsigned long long)(first / a->info.sector_size));
        if (strncmp(output, wanted, strlen(wanted)) != 0)
            fail_msg("seed %llu: not \"%s\" but: %s%s",
                     (unsigned long long)seed, wanted, output, messages);
    }
}

static void
a_failure_at_any_place_ends_compare(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++)
        for (unsigned at = 1;; at += 1 + at / 8) {
            prepare(seed);
            copy();
            fake.submitted = 0;
            fake.fail_at = at;
            if (compare() == TOOL_FINE || !fake.failed)
                break;
            assert_int_equal(fake.after, 0);
            assert_non_null(strstr(messages, ": as planned (IO)\n"));
            assert_string_equal(output, "");
        }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_is_equal_and_the_rest_untouched),
        cmocka_unit_test(holes_are_neither_read_nor_written),
        cmocka_unit_test(a_failure_at_any_place_ends_the_copy),
        cmocka_unit_test(a_failed_flush_fails_the_copy),
        cmocka_unit_test(failures_name_operation_side_and_place),
        cmocka_unit_test(compare_tells_the_first_difference),
        cmocka_unit_test(a_failure_at_any_place_ends_compare),
    };
    int result = cmocka_run_group_tests_name("tool_engine", tests, NULL, NULL);

    free(messages);
    free(output);
    return result;
}
