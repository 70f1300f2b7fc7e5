/* SPDX-License-Identifier: ISC */
/*
 * CRC-32C against the vectors of RFC 3720 B.4, against its definition bit by
 * bit, one way of computing it against the other, and against a library that
 * we did not write (ext4's, where it is installed).
 */
#include "core/crc32c.h"
#include "tests/support.h"

#include <dlfcn.h>

static uint32_t
both(const void *data, size_t length)
{
    uint32_t crc = crc32c_plain(0, data, length);
    if (crc32c_has_instruction())
        assert_int_equal(crc32c_instruction(0, data, length), crc);
    assert_int_equal(crc32c(0, data, length), crc);
    return crc;
}

static void
the_vectors_of_rfc_3720_are_met(void **state)
{
    static const uint8_t command[48] = {
        [0] = 0x01,  [1] = 0xc0,  [16] = 0x14, [22] = 0x04,
        [27] = 0x14, [31] = 0x18, [32] = 0x28, [40] = 0x02,
    };
    uint8_t octets[32];
    (void)state;
    memset(octets, 0, sizeof octets);
    assert_int_equal(both(octets, 32), 0x8a9136aa);
    memset(octets, 0xff, sizeof octets);
    assert_int_equal(both(octets, 32), 0x62a8ab43);
    for (unsigned i = 0; i < 32; i++)
        octets[i] = (uint8_t)i;
    assert_int_equal(both(octets, 32), 0x46dd794e);
    for (unsigned i = 0; i < 32; i++)
        octets[i] = (uint8_t)(31 - i);
    assert_int_equal(both(octets, 32), 0x113fdb5c);
    assert_int_equal(both(command, sizeof command), 0xd9963a56);
    assert_int_equal(both("123456789", 9), 0xe3069283);
    assert_int_equal(both("", 0), 0);
}

/* As it is defined: the remainder of the message, bit by bit. */
static uint32_t
by_bits(const uint8_t *data, size_t length)
{
    uint32_t rest = UINT32_MAX;
    for (size_t i = 0; i < length; i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            uint32_t out = (rest ^ data[i] >> bit) & 1;
            rest = rest >> 1 ^ (out != 0 ? 0x82f63b78u : 0);
        }
    return ~rest;
}

static uint8_t data[3 * 8192 + 64];

static void
every_length_and_place_is_as_defined(void **state)
{
    struct rng rng = {.state = 3720};
    (void)state;
    pattern_fill(data, sizeof data, 1);
    for (size_t length = 0; length < 300; length++)
        for (size_t at = 0; at < 9; at++)
            assert_int_equal(both(data + at, length),
                             by_bits(data + at, length));
    /* Around one, two and more rounds of three stretches side by side. */
    for (size_t rounds = 1; rounds < 6; rounds++)
        for (size_t length = 4080 * rounds - 17; length < 4080 * rounds + 18;
             length++) {
            size_t at = rng_below(&rng, 16);
            assert_int_equal(both(data + at, length),
                             by_bits(data + at, length));
        }
}

static void
a_sum_is_continued_at_any_place(void **state)
{
    struct rng rng = {.state = 1};
    struct iovec iov[20];
    (void)state;
    pattern_fill(data, sizeof data, 2);
    uint32_t whole = both(data, sizeof data);
    assert_int_equal(whole, by_bits(data, sizeof data));
    for (unsigned round = 0; round < 200; round++) {
        size_t at = 0, count = 0;
        uint32_t crc = 0, plain = 0;
        for (; count < 20; count++) {
            size_t length = count == 19 ? sizeof data - at
                            : rng_below(&rng, 4) == 0
                                ? 0
                                : rng_below(&rng, sizeof data - at + 1) / 3;
            iov[count] = (struct iovec){data + at, length};
            crc = crc32c(crc, data + at, length);
            plain = crc32c_plain(plain, data + at, length);
            at += length;
        }
        assert_int_equal(crc, whole);
        assert_int_equal(plain, whole);
        assert_int_equal(crc32c_iov(iov, count), whole);
    }
    assert_int_equal(crc32c_iov(NULL, 0), 0);
}

static void
every_single_bit_is_seen(void **state)
{
    (void)state;
    pattern_fill(data, 4608, 3);
    uint32_t whole = both(data, 4608);
    for (size_t bit = 0; bit < 4608 * 8; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(crc32c(0, data, 4608), whole);
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void
it_is_that_of_ext4(void **state)
{
    uint32_t (*theirs)(uint32_t crc, const unsigned char *p, size_t len);
    struct rng rng = {.state = 4};
    void *library = dlopen("libext2fs.so.2", RTLD_NOW);
    (void)state;
    void *symbol = library != NULL ? dlsym(library, "ext2fs_crc32c_le") : NULL;
    if (symbol == NULL)
        skip();
    memcpy(&theirs, &symbol, sizeof theirs);
    pattern_fill(data, sizeof data, 5);
    for (unsigned round = 0; round < 1000; round++) {
        size_t at = rng_below(&rng, 64), length = rng_below(&rng, 20000);
        assert_int_equal(both(data + at, length),
                         ~theirs(UINT32_MAX, data + at, length));
    }
    dlclose(library);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vectors_of_rfc_3720_are_met),
        cmocka_unit_test(every_length_and_place_is_as_defined),
        cmocka_unit_test(a_sum_is_continued_at_any_place),
        cmocka_unit_test(every_single_bit_is_seen),
        cmocka_unit_test(it_is_that_of_ext4),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
