/* SPDX-License-Identifier: ISC */
/*
 * CRC-32C by the processor's instruction, or by tables.
 *
 * A checksum is a polynomial's remainder, so it is linear: that of two
 * messages one after the other is that of the first, moved on by as many zero
 * octets as the second has, combined by exclusive or with that of the second.
 * The instruction takes eight octets each cycle but gives its result three
 * cycles later; therefore three stretches are summed side by side, and their
 * sums then moved on and joined.  To move a sum on by one stretch is one
 * look-up for each of its octets.
 *
 * Without the instruction eight octets at a time are looked up in tables, each
 * of which knows what an octet does that is so many places before the end.
 *
 * All tables are computed once.  `state` is the sum as the hardware has it,
 * with all its bits turned over.
 */
#include "core/crc32c.h"

#include <endian.h>
#include <pthread.h>
#include <string.h>

/* x^32 + x^28 + x^27 + ... + 1, its bits in reverse order. */
#define POLYNOMIAL UINT32_C(0x82f63b78)
/* Octets of one of three stretches: three are 4 KiB, but for 16 octets. */
#define STRETCH 1360u

static uint32_t places[8][256]; /* of an octet so many places before the end */
static uint32_t moves[4][256]; /* of a state's octet, by one stretch */
static bool has_instruction;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint64_t
load(const uint8_t *at)
{
    uint64_t octets;
    memcpy(&octets, at, sizeof octets);
    return octets;
}

/* ------------------------------------------------------------ by tables */

static inline uint32_t
step(uint32_t state, uint8_t octet)
{
    return places[0][(state ^ octet) & 0xff] ^ state >> 8;
}

static uint32_t
plain_state(uint32_t state, const uint8_t *at, size_t length)
{
    for (; length >= 8; at += 8, length -= 8) {
        uint64_t word = le64toh(load(at)) ^ state;
        state = places[7][word & 0xff] ^ places[6][word >> 8 & 0xff]
                ^ places[5][word >> 16 & 0xff] ^ places[4][word >> 24 & 0xff]
                ^ places[3][word >> 32 & 0xff] ^ places[2][word >> 40 & 0xff]
                ^ places[1][word >> 48 & 0xff] ^ places[0][word >> 56];
    }
    for (; length > 0; at++, length--)
        state = step(state, *at);
    return state;
}

/* ------------------------------------------------------------ by instruction */

#if defined(__x86_64__)
#include <nmmintrin.h>

#define INSTRUCTION __attribute__((target("sse4.2")))
#define EIGHT(state, word) ((uint32_t)_mm_crc32_u64((state), (word)))
#define ONE(state, octet) _mm_crc32_u8((state), (octet))

static bool
find_instruction(void)
{
    return __builtin_cpu_supports("sse4.2") != 0;
}

#elif defined(__aarch64__) && __BYTE_ORDER == __LITTLE_ENDIAN
#include <sys/auxv.h>

#if defined(__clang__)
#define INSTRUCTION __attribute__((target("crc")))
#else
#define INSTRUCTION __attribute__((target("+crc")))
#endif
#define EIGHT(state, word) __builtin_aarch64_crc32cx((state), (word))
#define ONE(state, octet) __builtin_aarch64_crc32cb((state), (octet))
#define HAS_CRC32 (1ul << 7) /* HWCAP_CRC32 of the kernel's interface */

static bool
find_instruction(void)
{
    return (getauxval(AT_HWCAP) & HAS_CRC32) != 0;
}

#else

#define INSTRUCTION
#define EIGHT(state, word) ((void)(word), (state))
#define ONE(state, octet) step((state), (octet))

static bool
find_instruction(void)
{
    return false;
}

#endif

static inline uint32_t
move(uint32_t state)
{
    return moves[0][state & 0xff] ^ moves[1][state >> 8 & 0xff]
           ^ moves[2][state >> 16 & 0xff] ^ moves[3][state >> 24];
}

static INSTRUCTION uint32_t
instruction_state(uint32_t state, const uint8_t *at, size_t length)
{
    for (; length >= 3 * STRETCH; at += 3 * STRETCH, length -= 3 * STRETCH) {
        uint32_t second = 0, third = 0;
        for (size_t i = 0; i < STRETCH; i += 8) {
            state = EIGHT(state, load(at + i));
            second = EIGHT(second, load(at + STRETCH + i));
            third = EIGHT(third, load(at + (size_t)2 * STRETCH + i));
        }
        state = move(move(state) ^ second) ^ third;
    }
    for (; length >= 8; at += 8, length -= 8)
        state = EIGHT(state, load(at));
    for (; length > 0; at++, length--)
        state = ONE(state, *at);
    return state;
}

/* ------------------------------------------------------------ tables */

static void
make_tables(void)
{
    static const uint8_t zeroes[STRETCH];

    for (uint32_t octet = 0; octet < 256; octet++) {
        uint32_t state = octet;
        for (int bit = 0; bit < 8; bit++)
            state = state >> 1 ^ (state & 1 ? POLYNOMIAL : 0);
        places[0][octet] = state;
    }
    for (size_t place = 1; place < 8; place++)
        for (size_t octet = 0; octet < 256; octet++)
            places[place][octet] = step(places[place - 1][octet], 0);
    /* The rest are sums of those of one bit. */
    for (size_t part = 0; part < 4; part++)
        for (uint32_t octet = 1; octet < 256; octet++) {
            uint32_t low = octet & (0 - octet);
            moves[part][octet] =
                octet == low ? plain_state(octet << 8 * part, zeroes, STRETCH)
                             : moves[part][low] ^ moves[part][octet ^ low];
        }
    has_instruction = find_instruction();
}

/* ------------------------------------------------------------ outside */

uint32_t
crc32c_plain(uint32_t crc, const void *data, size_t length)
{
    pthread_once(&once, make_tables);
    return ~plain_state(~crc, data, length);
}

bool
crc32c_has_instruction(void)
{
    pthread_once(&once, make_tables);
    return has_instruction;
}

uint32_t
crc32c_instruction(uint32_t crc, const void *data, size_t length)
{
    pthread_once(&once, make_tables);
    return ~instruction_state(~crc, data, length);
}

uint32_t
crc32c(uint32_t crc, const void *data, size_t length)
{
    return crc32c_has_instruction() ? ~instruction_state(~crc, data, length)
                                    : ~plain_state(~crc, data, length);
}

uint32_t
crc32c_iov(const struct iovec *iov, size_t count)
{
    uint32_t crc = 0;

    for (size_t i = 0; i < count; i++)
        crc = crc32c(crc, iov[i].iov_base, iov[i].iov_len);
    return crc;
}
