/* SPDX-License-Identifier: ISC */
/*
 * What the files of the request path share: request.c (its life),
 * request_check.c (what is checked), pieces.c (what goes to the driver).
 */
#ifndef FARBLK_CORE_REQUEST_PARTS_H
#define FARBLK_CORE_REQUEST_PARTS_H

#include "core/device.h"

#define OP_BIT(op) (1u << (op))
#define CHANGING                                                               \
    (OP_BIT(FARBLK_OP_WRITE) | OP_BIT(FARBLK_OP_DISCARD)                       \
     | OP_BIT(FARBLK_OP_WRITE_ZEROES) | OP_BIT(FARBLK_OP_RESIZE))
#define SPLITTABLE                                                             \
    (OP_BIT(FARBLK_OP_READ) | OP_BIT(FARBLK_OP_WRITE)                          \
     | OP_BIT(FARBLK_OP_DISCARD) | OP_BIT(FARBLK_OP_WRITE_ZEROES))
#define RANGED (SPLITTABLE | OP_BIT(FARBLK_OP_EXTENTS))

/* Where a piece is; changes under the request's mutex when it is timed. */
enum stage {
    STAGE_IDLE, /* nowhere */
    STAGE_BEGIN, /* about to ask for its range */
    STAGE_WAITING, /* for its range, or just granted it */
    STAGE_DRIVER,
};

struct op_rules {
    const char *name;
    uint32_t flags; /* that it takes */
    uint64_t features; /* that it needs */
};

/* By operation, 1 ... 11. */
extern const struct op_rules op_rules[];

static inline bool
request_is(const struct request *request, uint32_t ops)
{
    /* The operation may be any number until it has been checked. */
    return (unsigned)request->op < 32 && (OP_BIT(request->op) & ops) != 0;
}

static inline bool
request_remote(const struct request *request)
{
    return (request->device->driver->flags & DRIVER_REMOTE) != 0;
}

/* What is checked before the size of now matters, in the promised order.  0, or
 * a status with request->error set. */
int request_check(struct request *request);

/* The one buffer of an operation that answers with a structure. */
int request_check_answer(struct request *request, size_t least,
                         size_t alignment);

/* Range against the size of now, inside the gate; sets offset, length and the
 * whole range in octets. */
int request_check_range(struct request *request);

/* Send what offset and length tell to the driver. */
void request_issue(struct request *request);

/* Destroy the request's mutex, if it got one. */
void request_fini_lock(struct request *request);

/* One more io of the request, prepared by the caller, goes to the driver. */
void io_run(struct io *io);
void io_run_granted(struct range_lock *ready);
void io_set_stage(struct io *io, enum stage stage);

/* The driver, or an expiry, has finished with the io.  `locked`: it holds its
 * range, if its kind has one. */
void io_ended(struct io *io, bool locked);

/* All pieces are done, or none was begun.  By pieces.c. */
void request_pieces_ended(struct request *request);

#endif
