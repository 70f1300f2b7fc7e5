/* SPDX-License-Identifier: ISC */
/*
 * The checks of a request: once, here, for every driver, local or remote.
 *
 * Order: (disconnected, which submitting found out) -> read-only -> flags and
 * abilities -> buffers and whole sectors -> range.  For a remote device the
 * range is only kept from overflowing: its server knows the size of now.
 */
#include "core/request_parts.h"

#include "core/checked.h"

const struct op_rules op_rules[] = {
    [FARBLK_OP_READ] = {"read", 0, 0},
    [FARBLK_OP_WRITE] = {"write", FARBLK_FUA, 0},
    [FARBLK_OP_FLUSH] = {"flush", 0, 0},
    [FARBLK_OP_DISCARD] = {"discard", FARBLK_FUA, FARBLK_CAN_DISCARD},
    [FARBLK_OP_WRITE_ZEROES] = {"write_zeroes", FARBLK_FUA | FARBLK_NO_UNMAP,
                                FARBLK_CAN_WRITE_ZEROES},
    [FARBLK_OP_RESIZE] = {"resize", FARBLK_FUA, FARBLK_CAN_RESIZE},
    [FARBLK_OP_SEEK_MAPPED] = {"seek_mapped", 0, 0},
    [FARBLK_OP_SEEK_UNMAPPED] = {"seek_unmapped", 0, 0},
    [FARBLK_OP_EXTENTS] = {"extents", 0, 0},
    [FARBLK_OP_GET_INFO] = {"get_info", 0, 0},
    [FARBLK_OP_WATCH] = {"watch", 0, FARBLK_CAN_WATCH},
};

static void
request_fail_range(struct request *request, uint64_t start, uint64_t count,
                   uint64_t size)
{
    error_set(&request->error, FARBLK_INVALID,
              "%s: %llu sectors at %llu reach past the end, %llu sectors",
              op_rules[request->op].name, (unsigned long long)count,
              (unsigned long long)start, (unsigned long long)size);
}

/* The data of a read or write: whole sectors in each buffer.  Sets count. */
static int
request_check_buffers(struct request *request, uint32_t sector_size)
{
    struct error *error = &request->error;
    const char *name = op_rules[request->op].name;
    uint64_t total;
    if (request->loan != NULL)
        return 0;
    if (request->iov == NULL && request->iovcnt > 0)
        return error_set(error, FARBLK_INVALID, "%s: no iovec array for %zu",
                         name, request->iovcnt);
    for (size_t i = 0; i < request->iovcnt; i++) {
        const struct iovec *iov = &request->iov[i];
        if (iov->iov_len % sector_size != 0)
            return error_set(error, FARBLK_INVALID,
                             "%s: buffer %zu has %zu octets, not a multiple of "
                             "the sector size %u",
                             name, i, iov->iov_len, sector_size);
        if (iov->iov_base == NULL && iov->iov_len > 0)
            return error_set(error, FARBLK_INVALID,
                             "%s: buffer %zu of %zu octets is NULL", name, i,
                             iov->iov_len);
    }
    if (!iov_total(request->iov, request->iovcnt, &total))
        return error_set(error, FARBLK_INVALID,
                         "%s: the buffers hold more than INT64_MAX octets",
                         name);
    request->count = total / sector_size;
    request->rest = (struct iov_view){
        .iov = request->iov,
        .count = request->iovcnt,
        .length = total,
    };
    return 0;
}

int
request_check_answer(struct request *request, size_t least, size_t alignment)
{
    if (request->iovcnt == 1 && request->iov != NULL
        && request->iov->iov_base != NULL && request->iov->iov_len >= least
        && (uintptr_t)request->iov->iov_base % alignment == 0)
        return 0;
    return error_set(&request->error, FARBLK_INVALID,
                     "%s: wants one aligned buffer of at least %zu octets",
                     op_rules[request->op].name, least);
}

/* What is checked before the size of now matters, in the promised order. */
int
request_check(struct request *request)
{
    const struct farblk *handle = request->handle;
    const struct shape *shape = &request->device->shape;
    struct error *error = &request->error;
    if (request->op == 0 || request->op >= sizeof op_rules / sizeof op_rules[0])
        return error_set(error, FARBLK_INVALID, "unknown operation %u",
                         (unsigned)request->op);
    const struct op_rules *rules = &op_rules[request->op];
    if (request_is(request, CHANGING)
        && (handle->read_only || shape->read_only))
        return error_set(error, FARBLK_IS_READ_ONLY, "%s: %.200s is read-only",
                         rules->name, shape->name);
    if ((request->flags & ~(rules->flags | FARBLK_MORE)) != 0)
        return error_set(error, FARBLK_INVALID,
                         "%s: flags 0x%x, of which it takes 0x%x", rules->name,
                         request->flags, rules->flags);
    if ((shape->features & rules->features) != rules->features)
        return error_set(error, FARBLK_UNIMPLEMENTED,
                         "%s: %.200s can not do that", rules->name,
                         shape->name);
    switch (request->op) {
    case FARBLK_OP_READ:
    case FARBLK_OP_WRITE:
        return request_check_buffers(request, shape->sector_size);
    case FARBLK_OP_EXTENTS:
        return request_check_answer(request, sizeof(struct farblk_extent),
                                    _Alignof(struct farblk_extent));
    case FARBLK_OP_GET_INFO:
        return request_check_answer(request, 1, 1);
    case FARBLK_OP_RESIZE:
        if (request->count > INT64_MAX / shape->sector_size)
            return error_set(error, FARBLK_INVALID,
                             "resize: %llu sectors of %u are more than "
                             "INT64_MAX octets",
                             (unsigned long long)request->count,
                             shape->sector_size);
        return 0;
    default:
        return 0;
    }
}

/* Range against the size of now, inside the gate; and everything in octets. */
int
request_check_range(struct request *request)
{
    const uint64_t ss = request->device->shape.sector_size;
    const uint64_t size = atomic_load(&request->device->size) / ss;
    const uint64_t limit = request_remote(request) ? INT64_MAX / ss : size;
    uint64_t start = request->sector, count = request->count;
    if (request->op == FARBLK_OP_RESIZE) {
        request->length = count * ss;
        return 0;
    }
    if (request->op == FARBLK_OP_WATCH) { /* a remote one */
        request->length = count;
        return 0;
    }
    if (request_is(request,
                   OP_BIT(FARBLK_OP_FLUSH) | OP_BIT(FARBLK_OP_GET_INFO)))
        return 0;
    if (!request_is(request, RANGED))
        count = 0; /* a seek */
    uint64_t whole_start = request->has_whole ? request->whole_sector : start;
    uint64_t whole_count = request->has_whole ? request->whole_count : count;
    if (!range_within(whole_start, whole_count, limit)) {
        request_fail_range(request, whole_start, whole_count, size);
        return request->error.status;
    }
    if (start < whole_start
        || !range_within(start - whole_start, count, whole_count))
        return error_set(&request->error, FARBLK_INVALID,
                         "%s: %llu sectors at %llu are no part of %llu at %llu",
                         op_rules[request->op].name, (unsigned long long)count,
                         (unsigned long long)start,
                         (unsigned long long)whole_count,
                         (unsigned long long)whole_start);
    request->offset = start * ss;
    request->length = count * ss;
    request->whole_offset = whole_start * ss;
    request->whole_length = whole_count * ss;
    return 0;
}
