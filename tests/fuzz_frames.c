/* SPDX-License-Identifier: ISC */
/*
 * Frames in inputs: see fuzz_frames.h.  Nothing here knows a message: headers
 * are fields of protobuf, as far as they parse.
 */
#include "tests/fuzz_frames.h"

#include <stdlib.h>
#include <string.h>

#define FRAMES_MAX 200u /* that are told apart */
#define ROOM (1u << 16) /* for one frame that is changed */

struct random {
    uint64_t state;
};

static uint64_t
random_next(struct random *random)
{
    uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static size_t
random_below(struct random *random, size_t limit)
{
    return limit == 0 ? 0 : (size_t)(random_next(random) % limit);
}

static uint64_t
get(const uint8_t *at, unsigned octets)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < octets; i++)
        value = value << 8 | at[i];
    return value;
}

static void
put(uint8_t *at, unsigned octets, uint64_t value)
{
    for (unsigned i = octets; i-- > 0; value >>= 8)
        at[i] = (uint8_t)value;
}

size_t
frames_next(const uint8_t *at, size_t left, bool ipc)
{
    size_t prefix = ipc ? 9 : 8;
    if (left < prefix)
        return left;
    uint64_t length = get(at + prefix - 8, 8);
    return length < left - prefix ? prefix + (size_t)length : left;
}

/* ------------------------------------------------------------ fields */

/* Values at edges. */
static uint64_t
edge(struct random *random)
{
    static const uint64_t edges[] = {
        0,
        1,
        2,
        3,
        5,
        8,
        16,
        63,
        64,
        65,
        127,
        128,
        255,
        256,
        511,
        512,
        513,
        1024,
        4095,
        4096,
        4097,
        65535,
        65536,
        65537,
        INT32_MAX,
        1u << 31,
        UINT32_MAX,
        1ull << 32,
        1ull << 54,
        1ull << 55,
        1ull << 62,
        INT64_MAX,
        1ull << 63,
        UINT64_MAX,
        UINT64_MAX - 511,
        32,
        33,
        17,
        UINT64_MAX - 1,
    };
    size_t count = sizeof edges / sizeof edges[0];
    uint64_t value = edges[random_below(random, count)];
    return random_below(random, 4) == 0 ? value + random_below(random, 5) - 2
                                        : value;
}

static size_t
put_varint(uint8_t *to, uint64_t value)
{
    size_t n = 0;
    while (value >= 0x80) {
        to[n++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    to[n++] = (uint8_t)value;
    return n;
}

/* Length of the varint there; 0: none. */
static size_t
get_varint(const uint8_t *at, size_t left, uint64_t *value)
{
    *value = 0;
    for (size_t n = 0; n < left && n < 10; n++) {
        *value |= (uint64_t)(at[n] & 0x7f) << (7 * n);
        if ((at[n] & 0x80) == 0)
            return n + 1;
    }
    return 0;
}

struct field {
    size_t at, length; /* with its tag */
    size_t value_at, value_length; /* of the contents */
    unsigned wire; /* 0 varint, 1 fixed64, 2 octets */
};

static size_t
find_fields(const uint8_t *from, size_t length, struct field *fields,
            size_t max)
{
    size_t count = 0, at = 0;
    while (at < length && count < max) {
        uint64_t tag, value = 0;
        size_t n = get_varint(from + at, length - at, &tag), m = 0;
        struct field *field = &fields[count];
        *field = (struct field){.at = at, .wire = (unsigned)(tag & 7)};
        if (n == 0)
            break;
        field->value_at = at + n;
        if (field->wire == 1) {
            field->value_length = 8;
        } else if (field->wire == 0 || field->wire == 2) {
            m = get_varint(from + at + n, length - at - n, &value);
            if (m == 0)
                break;
            field->value_length = field->wire == 0 ? m : (size_t)value;
            field->value_at += field->wire == 2 ? m : 0;
        } else {
            break;
        }
        if (field->value_at > length
            || field->value_length > length - field->value_at)
            break;
        field->length = field->value_at + field->value_length - at;
        at += field->length;
        count++;
    }
    return count;
}

/* Replace from[at ... at + old] by `with`; the new length, or 0 without room. */
static size_t
splice(uint8_t *from, size_t length, size_t max, size_t at, size_t old,
       const uint8_t *with, size_t with_length)
{
    if (length - old + with_length > max)
        return 0;
    memmove(from + at + with_length, from + at + old, length - at - old);
    memcpy(from + at, with, with_length);
    return length - old + with_length;
}

/* Change one field of a message in place; its new length. */
static size_t
mutate_message(uint8_t *from, size_t length, size_t max, struct random *random,
               unsigned depth)
{
    struct field fields[64];
    size_t count = find_fields(from, length, fields, 64), changed = 0;
    static uint8_t part[ROOM + 16];
    if (count == 0 || random_below(random, 12) == 0)
        return LLVMFuzzerMutate(from, length, max);
    const struct field *field = &fields[random_below(random, count)];
    switch (random_below(random, 10)) {
    case 0: /* without it */
        return splice(from, length, max, field->at, field->length, part, 0);
    case 1: /* twice */
        memcpy(part, from + field->at, field->length);
        changed = splice(from, length, max, field->at, 0, part, field->length);
        return changed != 0 ? changed : length;
    case 2: /* one more, of any number */
        part[0] = (uint8_t)(random_below(random, 16) << 3);
        changed = 1 + put_varint(part + 1, edge(random));
        changed = splice(from, length, max, field->at, 0, part, changed);
        return changed != 0 ? changed : length;
    default:
        break;
    }
    if (field->wire == 0) {
        size_t n = put_varint(part, edge(random));
        changed = splice(from, length, max, field->value_at,
                         field->value_length, part, n);
    } else if (field->wire == 1) {
        put(from + field->value_at, 8, edge(random));
    } else {
        /* The contents, behind a new length. */
        uint8_t *inner = malloc(ROOM);
        size_t n = field->value_length;
        if (inner == NULL || n > ROOM) {
            free(inner);
            return length;
        }
        memcpy(inner, from + field->value_at, n);
        n = depth < 3 && random_below(random, 4) != 0
                ? mutate_message(inner, n, ROOM / 2, random, depth + 1)
                : LLVMFuzzerMutate(inner, n, n + 64 < ROOM ? n + 64 : ROOM);
        uint64_t tag;
        size_t tag_length =
            get_varint(from + field->at, length - field->at, &tag);
        size_t m = put_varint(part, n);
        memcpy(part + m, inner, n);
        free(inner);
        changed = splice(from, length, max, field->at + tag_length,
                         field->length - tag_length, part, m + n);
    }
    return changed != 0 ? changed : length;
}

/* ------------------------------------------------------------ frames */

struct frame {
    size_t at, length;
};

static size_t
find_frames(const uint8_t *data, size_t size, bool ipc, struct frame *frames)
{
    size_t count = 0, at = 1 + 8; /* how, and the greeting */
    while (at < size && count < FRAMES_MAX) {
        frames[count] =
            (struct frame){at, frames_next(data + at, size - at, ipc)};
        at += frames[count++].length;
    }
    return count;
}

/* A frame's header, or payload, with both lengths put right. */
static size_t
mutate_frame(uint8_t *frame, size_t length, size_t max, bool ipc,
             struct random *random)
{
    size_t body = ipc ? 9 : 8, at = body;
    if (max > ROOM)
        max = ROOM;
    while (at + 4 <= length && (frame[at] & 0x80) == 0)
        at += 4; /* hops */
    if (at + 8 > length || length > max)
        return LLVMFuzzerMutate(frame, length, max);
    if (random_below(random, 16) == 0) { /* one more hop, or another id */
        uint8_t word[4];
        put(word, 4, edge(random) & 0x7fffffff);
        size_t longer = splice(frame, length, max, at, 0, word, 4);
        at += longer != 0 ? 4 : 0;
        length = longer != 0 ? longer : length;
    } else if (random_below(random, 16) == 0) {
        put(frame + at, 4, 0x80000000u | edge(random) % 16);
    }
    uint64_t header = get(frame + at + 4, 4);
    size_t header_at = at + 8;
    if (header > length - header_at)
        header = length - header_at;
    size_t payload = length - header_at - (size_t)header;
    if (random_below(random, 8) != 0 || header == 0) {
        static uint8_t copy[ROOM];
        size_t n = (size_t)header, room = max - (length - n);
        memcpy(copy, frame + header_at, n);
        n = mutate_message(copy, n, room < ROOM ? room : ROOM, random, 0);
        size_t changed =
            splice(frame, length, max, header_at, (size_t)header, copy, n);
        if (changed != 0) {
            length = changed;
            header = n;
        }
    } else { /* another payload */
        static const size_t lengths[] = {0, 1, 511, 512, 513, 1024, 4096, 8192};
        payload = lengths[random_below(random, 8)];
        if (header_at + header + payload > max)
            payload = 0;
        size_t longer = header_at + (size_t)header + payload;
        if (longer > length)
            memset(frame + length, (int)random_below(random, 256),
                   longer - length);
        length = longer;
    }
    put(frame + at + 4, 4, header);
    put(frame + body - 8, 8, length - body);
    return length;
}

size_t
frames_mutate(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct random random = {.state = seed};
    struct frame frames[FRAMES_MAX];
    bool ipc = size > 0 && (data[0] & FRAMES_IPC) != 0;
    size_t count = size > 9 ? find_frames(data, size, ipc, frames) : 0;
    static uint8_t part[ROOM + 16];
    size_t changed = 0;
    if (count == 0 || random_below(&random, 10) == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    struct frame one = frames[random_below(&random, count)];
    struct frame other = frames[random_below(&random, count)];
    switch (random_below(&random, 10)) {
    case 0: /* how */
        data[0] = (uint8_t)((data[0] & FRAMES_IPC)
                            | (random_next(&random) & ~(uint64_t)FRAMES_IPC));
        return size;
    case 1:
        changed = splice(data, size, max_size, one.at, one.length, part, 0);
        break;
    case 2: /* once more, elsewhere or at the end */
    case 3:
        if (one.length > ROOM)
            return size;
        memcpy(part, data + one.at, one.length);
        changed = splice(data, size, max_size,
                         random_below(&random, 2) == 0 ? size : other.at, 0,
                         part, one.length);
        break;
    default:
        if (one.length > ROOM / 2)
            return size;
        memcpy(part, data + one.at, one.length);
        size_t n = mutate_frame(part, one.length, ROOM, ipc, &random);
        changed = splice(data, size, max_size, one.at, one.length, part, n);
        break;
    }
    return changed != 0 ? changed : size;
}
