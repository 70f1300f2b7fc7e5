/* SPDX-License-Identifier: ISC */
/* See tagged.h.  The first word is the write's number, the others are random
 * by it and the position. */
#include "tests/tagged.h"

#include <string.h>

#define WORDS (TAGGED_SECTOR / sizeof(uint64_t))

static void
tagged_fill_one(uint64_t *words, uint64_t number, uint64_t sector)
{
    uint64_t state = number * 0xd1342543de82ef95u + sector + 1;

    words[0] = number;
    for (unsigned i = 1; i < WORDS; i++) {
        /* splitmix64's, without its last third */
        uint64_t z = state += 0x9e3779b97f4a7c15u;

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        words[i] = z ^ (z >> 27);
    }
}

void
tagged_fill(void *to, uint64_t number, uint64_t sector, uint64_t count)
{
    uint8_t *octets = to;

    for (uint64_t i = 0; i < count; i++) {
        uint64_t words[WORDS];

        tagged_fill_one(words, number, sector + i);
        memcpy(octets + i * TAGGED_SECTOR, words, TAGGED_SECTOR);
    }
}

uint64_t
tagged_read(const void *from, uint64_t sector)
{
    static const uint64_t zeroes[WORDS];
    uint64_t words[WORDS], wanted[WORDS];

    memcpy(words, from, TAGGED_SECTOR);
    if (words[0] == TAGGED_ZERO)
        return memcmp(words, zeroes, TAGGED_SECTOR) == 0 ? TAGGED_ZERO
                                                         : TAGGED_TORN;
    tagged_fill_one(wanted, words[0], sector);
    return memcmp(words, wanted, TAGGED_SECTOR) == 0 ? words[0] : TAGGED_TORN;
}
