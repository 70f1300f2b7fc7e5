/* SPDX-License-Identifier: ISC */
/*
 * See block.h.
 */
#include "tar/block.h"

#include <stdio.h>
#include <string.h>

enum block_format
block_format(const uint8_t *block)
{
    if (memcmp(block + MAGIC_AT, "ustar  ", 8) == 0)
        return FORMAT_GNU;
    if (memcmp(block + MAGIC_AT, "ustar", 6) != 0)
        return FORMAT_V7;
    return memcmp(block + BLOCK - 4, "tar", 4) == 0 ? FORMAT_STAR
                                                    : FORMAT_USTAR;
}

bool
block_is_zero(const uint8_t *block)
{
    return block[0] == 0 && memcmp(block, block + 1, BLOCK - 1) == 0;
}

/* ------------------------------------------------------------ checksum */

static bool
in_sum_field(size_t i)
{
    return i >= SUM_AT && i < SUM_AT + SUM_SIZE;
}

bool
block_sum_right(const uint8_t *block)
{
    int64_t told, octets = 0, signed_octets = 0;
    if (!field_number(block + SUM_AT, SUM_SIZE, &told))
        return false;
    for (size_t i = 0; i < BLOCK; i++) {
        octets += in_sum_field(i) ? ' ' : block[i];
        signed_octets += in_sum_field(i) ? ' ' : (int8_t)block[i];
    }
    return told == octets || told == signed_octets;
}

void
block_seal(uint8_t *block)
{
    unsigned sum = 0;
    for (size_t i = 0; i < BLOCK; i++)
        sum += in_sum_field(i) ? ' ' : block[i];
    /* Six digits, a zero and a space, as it has always been written. */
    char text[SUM_SIZE];
    snprintf(text, sizeof text, "%06o", sum & 0777777u);
    memcpy(block + SUM_AT, text, 7);
    block[SUM_AT + 7] = ' ';
}

/* ------------------------------------------------------------ numbers */

/* GNU's: the first octet has its top bit set; two's complement, big-endian,
 * the top bit itself not counted.  Fields of 8 octets and more. */
static bool
base256(const uint8_t *field, size_t size, int64_t *value)
{
    bool negative = (field[0] & 0x40) != 0;
    uint8_t fill = negative ? 0xff : 0;
    uint64_t sum = 0;
    for (size_t i = 0; i < size; i++) {
        uint8_t octet = field[i];
        if (i == 0)
            octet = (uint8_t)(negative ? octet | 0x80 : octet & 0x7f);
        if (size - i > 8 && octet != fill)
            return false;
        sum = sum << 8 | octet;
    }
    *value = (int64_t)sum;
    return (*value < 0) == negative;
}

bool
field_number(const uint8_t *field, size_t size, int64_t *value)
{
    size_t i = 0;
    uint64_t sum = 0;
    if ((field[0] & 0x80) != 0)
        return base256(field, size, value);
    while (i < size && (field[i] == ' ' || field[i] == 0))
        i++;
    for (; i < size && field[i] >= '0' && field[i] <= '7'; i++)
        sum = sum << 3 | (uint64_t)(field[i] - '0'); /* 12 digits: 36 bits */
    for (; i < size; i++)
        if (field[i] != ' ' && field[i] != 0)
            return false;
    *value = (int64_t)sum;
    return true;
}

bool
field_fits(size_t size, int64_t value)
{
    return value >= 0 && (uint64_t)value < UINT64_C(1) << (3 * (size - 1));
}

void
field_put_number(uint8_t *field, size_t size, int64_t value)
{
    if (field_fits(size, value)) {
        char text[LONG_SIZE + 1];
        snprintf(text, sizeof text, "%0*llo", (int)size - 1,
                 (unsigned long long)value);
        memcpy(field, text, size);
        return;
    }
    uint64_t rest = (uint64_t)value;
    for (size_t i = size; i-- > 0;) {
        field[i] = (uint8_t)rest;
        rest = rest >> 8 | (value < 0 ? UINT64_C(0xff) << 56 : 0);
    }
    field[0] |= 0x80;
}

/* ------------------------------------------------------------ texts */

size_t
field_text(const uint8_t *field, size_t size, char *to)
{
    size_t length = strnlen((const char *)field, size);
    memcpy(to, field, length);
    to[length] = '\0';
    return length;
}

size_t
block_name(const uint8_t *block, char *to)
{
    enum block_format format = block_format(block);
    size_t length = 0;
    if (format == FORMAT_USTAR || format == FORMAT_STAR) {
        size_t size = format == FORMAT_STAR ? STAR_PREFIX_SIZE : PREFIX_SIZE;
        length = field_text(block + PREFIX_AT, size, to);
        if (length > 0)
            to[length++] = '/';
    }
    return length + field_text(block + NAME_AT, NAME_SIZE, to + length);
}

bool
block_put_name(uint8_t *block, const char *name, size_t length)
{
    enum block_format format = block_format(block);
    size_t prefix_size = format == FORMAT_USTAR  ? PREFIX_SIZE
                         : format == FORMAT_STAR ? STAR_PREFIX_SIZE
                                                 : 0;
    size_t cut = 0; /* octets in front of the '/' that is cut at */
    if (length > NAME_SIZE) {
        if (length > prefix_size + 1 + NAME_SIZE)
            return false;
        cut = prefix_size < length - 2 ? prefix_size : length - 2;
        while (cut > 0 && name[cut] != '/')
            cut--;
        if (cut == 0 || length - cut - 1 > NAME_SIZE)
            return false;
    }
    const char *rest = cut > 0 ? name + cut + 1 : name;
    size_t rest_length = cut > 0 ? length - cut - 1 : length;
    memset(block + NAME_AT, 0, NAME_SIZE);
    memcpy(block + NAME_AT, rest, rest_length);
    if (prefix_size > 0) {
        memset(block + PREFIX_AT, 0, prefix_size);
        memcpy(block + PREFIX_AT, name, cut);
    }
    return true;
}
