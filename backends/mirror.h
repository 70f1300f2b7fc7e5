/* SPDX-License-Identifier: ISC */
/*
 * What the files of the mirror share.
 *
 *   mirror.c         the driver: core's contract
 *   mirror_open.c    from two URIs, or two handles, to a mirror; its checks
 *   mirror_pairs.c   which devices are part of a mirror of this process
 *   mirror_lock.c    the order of what overlaps
 *   mirror_call.c    requests to the children
 *   mirror_io.c      requests of the application: to primary, or to both
 *   mirror_map.c     seeks and extents, by primary
 *   mirror_resize.c  resizes: both or none
 *   mirror_dirty.c   what is still to be copied
 *   mirror_copy.c    the copying: a thread that plans and tells
 *   mirror_slot.c    one piece of it under way
 *   mirror_watch.c   what others do to the children
 *   mirror_status.c  how it goes, and what becomes of failures
 *
 * The children are driven by core's requests, as a program's would be.  Order:
 * a change takes its range alone before it goes to both children, and gives it
 * back when both have answered; a piece of the copying shares its range with
 * readers and other pieces from before it reads primary until it has been
 * written to secondary.  So no change falls between the two, wherever it begins
 * and ends, and changes that overlap reach both in one order.
 *
 * What is not known to be equal is in `dirty`: at the beginning everything;
 * later each range of a change that did not end well in the same way on both.
 * A piece leaves the set before it takes its range, so that what is added while
 * it waits is not lost.  COMPLETE: the set is empty, nothing of it is under
 * way, and secondary was flushed after that.
 *
 * Lock order: mirror.mutex -> inside of ranges, timers, the device's counts.
 * No lock is held while a child's request is submitted, an io is ended or the
 * program's function is called.
 */
#ifndef FARBLK_BACKENDS_MIRROR_H
#define FARBLK_BACKENDS_MIRROR_H

#include "backends/mirror_dirty.h"

#include "core/device.h"

#define MIRROR_SLOTS 8 /* pieces of the copying in flight */
#define MIRROR_PIECE_MAX (1u << 20) /* octets of one */
#define MIRROR_PIECE_MIN (64u << 10)
#define MIRROR_ZERO_MAX ((uint64_t)64 << 20) /* octets that one zeroes */
#define MIRROR_RANGE_MAX ((uint64_t)1 << 30) /* octets of one discard */
#define MIRROR_REPAIR_MS 30000 /* for undoing what went wrong on one */
#define MIRROR_HINTS 128 /* extents that planning asks for at once */

enum { PRIMARY, SECONDARY };

/* A lock of the mirror's ranges, and what is to be done when it is granted. */
struct mirror_lock {
    struct range_lock range; /* first */
    void (*granted)(struct mirror_lock *lock);
    struct mirror_lock *next;
};

struct mirror;
struct mirror_pair;

/* A request of the application under way. */
struct mirror_op {
    struct mirror_lock lock;
    struct mirror *mirror;
    struct io *io;
    bool locked, waits;
    bool repairs; /* what it asks now has to be done, whatever its time */
    struct mirror_op *next, *prev; /* those that wait and have a deadline */
    atomic_uint left; /* children that have not answered, and who asks them */
    bool asked[2];
    struct request call[2];
    const struct iovec *iov; /* of the io's data */
    size_t iovcnt;
    struct iovec few[8], *many; /* where iov had to be made */
    /* Seeks and resizes: */
    uint64_t at, old_size;
    struct error error;
    struct farblk_info info;
    struct iovec answer;
};

enum mirror_slot_kind { SLOT_DATA, SLOT_ZERO };

/* A piece of the copying under way. */
struct mirror_slot {
    struct mirror_lock lock;
    struct mirror *mirror;
    bool busy; /* mirror's mutex */
    enum mirror_slot_kind kind;
    int step;
    uint64_t offset, taken; /* what left the set, and is locked */
    uint64_t length; /* what of it is done in this round */
    struct block *block; /* mirror.piece octets, or NULL */
    struct request call;
    struct iovec iov;
    struct farblk_extent extents[4];
};

struct mirror {
    struct device *device;
    struct mirror_pair *pair;
    struct farblk *child[2]; /* ours */
    uint32_t child_sector[2];
    uint64_t child_features[2];
    struct shape shape;
    bool read_locks; /* primary's sectors are not whole by themselves */
    bool has_degrade, has_rate; /* the URI said so */
    struct ranges ranges;
    atomic_bool alone, degrade;
    void (*progress)(void *arg, const struct farblk_mirror_status *status);
    void *progress_arg;
    pthread_t thread;
    bool started; /* there is a thread to join */

    pthread_mutex_t mutex; /* the rest */
    pthread_cond_t wake; /* anything of it has changed */
    uint64_t size; /* octets */
    uint64_t rate;
    struct mirror_dirty dirty;
    uint64_t in_flight; /* octets of busy slots */
    unsigned busy; /* slots */
    unsigned resizes; /* begun and ended: odd while one is under way */
    bool missed; /* a change has failed since the last COMPLETE */
    bool complete, failed;
    struct error error; /* why it is not well */
    bool stopping, running, orphan;
    bool paused; /* the last handle is leaving; another may come yet */
    bool live, runs; /* pairs': counted there */
    bool told_complete, told_end;
    unsigned told_percent;
    int64_t next_us; /* when the rate allows the next piece */
    struct mirror_op *waiting; /* with a deadline, for their range */

    /* The copying's own. */
    uint32_t piece; /* octets */
    struct mirror_slot slot[MIRROR_SLOTS];
    struct request call; /* what planning asks, and waits for */
    bool call_done, call_ends; /* mutex; ends: it may be cancelled */
    struct iovec call_iov;
    struct mirror_watch {
        struct request call;
        bool flying, due; /* mutex; due: to be looked at and watched anew */
    } watch[2];
    size_t hint_count;
    struct farblk_extent hint[MIRROR_HINTS]; /* in octets */
};

/* ------------------------------------------------------------ opening */

/* A mirror of two handles, which it takes over, also when it fails. */
int mirror_create(struct farblk *primary, struct farblk *secondary,
                  struct mirror **created, struct error *error);
/* Fill the shape; what does not go together is told in the promised order. */
int mirror_check(const struct farblk_info *primary,
                 const struct farblk_info *secondary, struct shape *shape,
                 struct error *error);
int mirror_open_uri(const struct uri *uri, struct mirror **created,
                    struct error *error);
/* Close the children, free; not running. */
void mirror_free(struct mirror *mirror);

/* Make the mirror one of this process's, or refuse.  The pair of the mirror
 * that has the same devices is shared, if `shared`.  Texts may be NULL. */
int mirror_pair_get(struct mirror *mirror, const char *primary,
                    const char *secondary, bool shared, struct error *error);
/* The mirror is the one that runs; waits until another one of the pair has
 * nothing more under way. */
void mirror_pair_start(struct mirror *mirror);
/* It has nothing more under way, and never will. */
void mirror_pair_leave(struct mirror *mirror);
void mirror_pair_put(struct mirror *mirror);
uint64_t mirror_pair_id(const struct mirror *mirror);

/* ------------------------------------------------------------ order */

/* Ask for the range; true: granted.  Else lock->granted is called. */
bool mirror_lock(struct mirror *mirror, struct mirror_lock *lock,
                 uint64_t offset, uint64_t length, bool exclusive);
/* Give it back; the result is for mirror_grant(), when the mirror may already
 * be gone. */
struct range_lock *mirror_unlock(struct mirror *mirror,
                                 struct mirror_lock *lock);
/* Call granted of those.  In a loop, not by recursion, however many follow. */
void mirror_grant(struct range_lock *ready);

/* ------------------------------------------------------------ requests */

/* A request to a child, all but its done, owner and iov; octets of whole
 * sectors of the mirror. */
void mirror_call(struct mirror *mirror, struct request *call, unsigned side,
                 enum farblk_op op, uint64_t offset, uint64_t length,
                 uint32_t flags);
/* How a side makes octets zero: an operation, or 0 if it can not. */
enum farblk_op mirror_zero_op(const struct mirror *mirror, unsigned side);
/* The same for a discard, which must not leave what each device likes. */
enum farblk_op mirror_discard_op(const struct mirror *mirror, unsigned side);
/* The words of a child's error, without the operation's name. */
const char *mirror_words(const struct error *error);

void mirror_submit(struct mirror *mirror, struct io *io);
void mirror_cancel(struct mirror *mirror, struct io *io);

/* Ask one child for the op; done is called with call->owner == op. */
void mirror_op_ask(struct mirror_op *op, unsigned side, enum farblk_op what,
                   uint64_t offset, uint64_t length,
                   void (*done)(struct request *call));
void mirror_op_done(struct mirror_op *op, uint64_t value);
/* End it by what the child said. */
void mirror_op_failed(struct mirror_op *op, unsigned side,
                      const struct error *error);

void mirror_map(struct mirror_op *op);
void mirror_resize(struct mirror_op *op);

/* Extents in sectors of `from` octets become such in `to` octets, a multiple,
 * in place: what is mapped in part is mapped.  They begin at a whole one.  The
 * last is cut where it is not known to the end of a whole one, unless it is the
 * only one, which is mapped then.  Returns how many. */
size_t mirror_round(struct farblk_extent *extents, size_t count, uint32_t from,
                    uint32_t to);

/* ------------------------------------------------------------ copying */

bool mirror_copy_start(struct mirror *mirror);
/* The last handle leaves: break off what is under way, begin nothing.  Never
 * blocks. */
void mirror_copy_pause(struct mirror *mirror);
/* Another handle has come. */
void mirror_copy_resume(struct mirror *mirror);
/* Nothing of the copying is under way when it returns, nor will be. */
void mirror_copy_stop(struct mirror *mirror);

/* The mirror's thread, under the mutex, which is given up: ask a child and
 * wait. Returns the request's status; then the text is in
 * mirror->call.error. */
int mirror_ask(struct mirror *mirror, unsigned side, enum farblk_op op,
               uint64_t offset, uint64_t length, void *answer, size_t size);
/* The same.  Whether a child has the mirror's size; else the mirror has
 * failed, or it is to be asked again. */
bool mirror_check_size(struct mirror *mirror, unsigned side,
                       uint64_t *generation);
/* The same.  A child's shape may have changed, or its end have come: look, and
 * go on watching. */
void mirror_watch(struct mirror *mirror, unsigned side);

/* Begin with offset, taken and kind set; taken out of the set, counted. */
void mirror_slot_begin(struct mirror_slot *slot);

/* Under the mutex: what fails now was perhaps broken off. */
static inline bool
mirror_halted(const struct mirror *mirror)
{
    return mirror->stopping || mirror->paused;
}

/* ------------------------------------------------------------ failures */

/* A change ended differently on both: copy that range again. */
void mirror_missed(struct mirror *mirror, uint64_t offset, uint64_t length,
                   const char *who, const struct error *error);
/* Secondary is given up. */
void mirror_give_up(struct mirror *mirror, const struct error *error);
/* The copying is over. */
void mirror_fail(struct mirror *mirror, const char *who,
                 const struct error *error);
/* Secondary has failed the copying: give_up or fail. */
void mirror_secondary_failed(struct mirror *mirror, const struct error *error);

/* Under the mutex. */
uint64_t mirror_copied(const struct mirror *mirror);
void mirror_fill_status(const struct mirror *mirror,
                        struct farblk_mirror_status *status);

extern const struct driver driver_mirror;

#endif
