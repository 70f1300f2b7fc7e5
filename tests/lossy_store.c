/* SPDX-License-Identifier: ISC */
/*
 * See lossy_store.h.  Two arrays: what is durable, and what readers see; and
 * the changes that lead from the one to the other, in order.
 */
#include "tests/lossy_store.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum change_kind { CHANGE_WRITE, CHANGE_ZERO, CHANGE_SIZE };

struct change {
    enum change_kind kind;
    bool durable; /* a cut keeps it */
    uint64_t number;
    uint64_t offset, length; /* SIZE: the new one in offset */
    uint8_t *data; /* WRITE */
};

struct fault {
    int errnum;
    unsigned after, times;
};

static struct {
    pthread_mutex_t mutex; /* all */
    uint8_t *durable, *seen;
    uint64_t durable_size, seen_size, most;
    struct change *journal;
    size_t count, room;
    uint64_t numbers; /* of changes */
    uint64_t random;
    unsigned epoch, delay;
    uint32_t unit;
    bool off;
    enum lossy_word syncs, durable_writes;
    struct fault fault[LOSSY_CALLS];
    /* For those who ask. */
    uint64_t writes, zeroes, sizes, syncs_done, cuts, kept, dropped, torn,
        forgotten, failed[LOSSY_CALLS];
} lossy = {.mutex = PTHREAD_MUTEX_INITIALIZER, .unit = LOSSY_UNIT};

/* splitmix64 */
static uint64_t
lossy_random(uint64_t limit)
{
    uint64_t z = lossy.random += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % limit;
}

static uint8_t *
lossy_array(uint64_t size)
{
    uint8_t *array = mmap(NULL, size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (array == MAP_FAILED) {
        perror("lossy: mmap");
        exit(1);
    }
    return array;
}

void
lossy_init(uint64_t size, uint64_t most, uint64_t seed)
{
    lossy.durable = lossy_array(most);
    lossy.seen = lossy_array(most);
    lossy.durable_size = lossy.seen_size = size;
    lossy.most = most;
    lossy.random = seed;
}

static bool
lossy_is_gone(unsigned epoch)
{
    return lossy.off || epoch != lossy.epoch;
}

static void
lossy_wait(unsigned delay)
{
    struct timespec wait = {.tv_nsec = (long)delay * 1000};

    if (delay > 0)
        nanosleep(&wait, NULL);
}

/* Whether this call is to fail: its errno, or 0. */
static int
lossy_fault(enum lossy_call call)
{
    struct fault *fault = &lossy.fault[call];

    if (fault->times == 0)
        return 0;
    if (fault->after > 0) {
        fault->after--;
        return 0;
    }
    fault->times--;
    lossy.failed[call]++;
    return fault->errnum;
}

/* Part [from, to) of a change, into one of the arrays of that size. */
static void
change_apply_part(const struct change *change, uint64_t from, uint64_t to,
                  uint8_t *array, uint64_t size)
{
    if (to > size)
        to = size;
    if (from >= to)
        return;
    if (change->kind == CHANGE_WRITE)
        memcpy(array + from, change->data + (from - change->offset), to - from);
    else
        memset(array + from, 0, to - from);
}

static void
change_apply(const struct change *change, uint8_t *array, uint64_t *size)
{
    if (change->kind != CHANGE_SIZE) {
        change_apply_part(change, change->offset,
                          change->offset + change->length, array, *size);
        return;
    }
    if (change->offset < *size)
        memset(array + change->offset, 0, *size - change->offset);
    *size = change->offset;
}

/* A new change: seen at once.  False without memory. */
static bool
lossy_change(struct change change, const void *data)
{
    if (lossy.count == lossy.room) {
        size_t room = lossy.room > 0 ? 2 * lossy.room : 256;
        struct change *more =
            realloc(lossy.journal, room * sizeof *lossy.journal);

        if (more == NULL)
            return false;
        lossy.journal = more;
        lossy.room = room;
    }
    if (change.kind == CHANGE_WRITE) {
        change.data = malloc(change.length);
        if (change.data == NULL)
            return false;
        memcpy(change.data, data, change.length);
    }
    change.number = ++lossy.numbers;
    lossy.journal[lossy.count++] = change;
    change_apply(&change, lossy.seen, &lossy.seen_size);
    return true;
}

unsigned
lossy_epoch(void)
{
    pthread_mutex_lock(&lossy.mutex);
    unsigned epoch = lossy.epoch;
    pthread_mutex_unlock(&lossy.mutex);
    return epoch;
}

uint64_t
lossy_size(void)
{
    pthread_mutex_lock(&lossy.mutex);
    uint64_t size = lossy.seen_size;
    pthread_mutex_unlock(&lossy.mutex);
    return size;
}

ssize_t
lossy_read(unsigned epoch, void *to, size_t length, uint64_t offset)
{
    ssize_t result = -EIO;

    pthread_mutex_lock(&lossy.mutex);
    if (!lossy_is_gone(epoch)) {
        if (offset >= lossy.seen_size)
            length = 0;
        else if (length > lossy.seen_size - offset)
            length = lossy.seen_size - offset;
        memcpy(to, lossy.seen + offset, length);
        result = (ssize_t)length;
    }
    pthread_mutex_unlock(&lossy.mutex);
    return result;
}

/* How much of a write that fails is done before: whole units, so that what
 * follows them can fail by itself. */
static size_t
lossy_begun(size_t length, uint64_t offset)
{
    uint64_t first = LOSSY_UNIT - offset % LOSSY_UNIT;

    if (length <= first || lossy_random(2) == 0)
        return 0;
    uint64_t units = 1 + (length - first - 1) / LOSSY_UNIT;
    return (size_t)(first + lossy_random(units) * LOSSY_UNIT);
}

ssize_t
lossy_write(unsigned epoch, const void *from, size_t length, uint64_t offset,
            bool durable)
{
    ssize_t result = (ssize_t)length;

    pthread_mutex_lock(&lossy.mutex);
    unsigned delay = lossy.delay > 0 && lossy_random(8) == 0
                         ? (unsigned)lossy_random(lossy.delay)
                         : 0;
    pthread_mutex_unlock(&lossy.mutex);
    lossy_wait(delay);
    pthread_mutex_lock(&lossy.mutex);
    int errnum = lossy_is_gone(epoch) ? EIO : lossy_fault(LOSSY_WRITE);
    if (errnum == 0 && (offset > lossy.most || length > lossy.most - offset))
        errnum = EFBIG;
    if (errnum != 0) {
        size_t begun = lossy_is_gone(epoch) || errnum == EFBIG || durable
                           ? 0
                           : lossy_begun(length, offset);
        result = begun > 0 ? (ssize_t)begun : -errnum;
        if (begun > 0) /* the rest meets the error */
            lossy.fault[LOSSY_WRITE].times++;
    }
    if (result > 0) {
        struct change change = {
            .kind = CHANGE_WRITE,
            .offset = offset,
            .length = (uint64_t)result,
            .durable = durable && lossy.durable_writes == LOSSY_TRUE};
        struct change grow = {.kind = CHANGE_SIZE,
                              .offset = offset + (uint64_t)result,
                              .durable = change.durable};

        if ((grow.offset > lossy.seen_size && !lossy_change(grow, NULL))
            || !lossy_change(change, from))
            result = -ENOMEM;
        lossy.writes++;
    }
    pthread_mutex_unlock(&lossy.mutex);
    return result;
}

int
lossy_zero(unsigned epoch, uint64_t offset, uint64_t length)
{
    struct change change = {.kind = CHANGE_ZERO, .offset = offset};

    pthread_mutex_lock(&lossy.mutex);
    int errnum = lossy_is_gone(epoch) ? EIO : lossy_fault(LOSSY_ZERO);
    if (errnum == 0 && offset < lossy.seen_size) {
        change.length = length < lossy.seen_size - offset
                            ? length
                            : lossy.seen_size - offset;
        errnum = lossy_change(change, NULL) ? 0 : ENOMEM;
        lossy.zeroes++;
    }
    pthread_mutex_unlock(&lossy.mutex);
    return -errnum;
}

int
lossy_truncate(unsigned epoch, uint64_t size)
{
    struct change change = {.kind = CHANGE_SIZE, .offset = size};

    pthread_mutex_lock(&lossy.mutex);
    int errnum = lossy_is_gone(epoch) ? EIO : size > lossy.most ? EFBIG : 0;
    if (errnum == 0) {
        errnum = lossy_change(change, NULL) ? 0 : ENOMEM;
        lossy.sizes++;
    }
    pthread_mutex_unlock(&lossy.mutex);
    return -errnum;
}

/* Whether fdatasync may leave out this change of the size: it makes the file
 * shorter, and nobody has changed the size since.  Those before it are durable
 * by now. */
static bool
lossy_may_wait(size_t index)
{
    const struct change *change = &lossy.journal[index];

    if (change->kind != CHANGE_SIZE || change->durable
        || change->offset >= lossy.durable_size)
        return false;
    for (size_t i = index + 1; i < lossy.count; i++)
        if (lossy.journal[i].kind == CHANGE_SIZE)
            return false;
    return true;
}

/* Make durable what came up to `number`, but what may wait. */
static void
lossy_commit(uint64_t number, bool data_only)
{
    size_t left = 0;

    for (size_t i = 0; i < lossy.count; i++) {
        struct change *change = &lossy.journal[i];

        if (change->number > number || (data_only && lossy_may_wait(i))) {
            lossy.journal[left++] = *change;
            continue;
        }
        change_apply(change, lossy.durable, &lossy.durable_size);
        free(change->data);
    }
    lossy.count = left;
}

/* A sync up to `number` has failed: what it should have kept is never written.
 * Some of it is no longer seen either. */
static void
lossy_forget(uint64_t number)
{
    size_t left = 0;

    for (size_t i = 0; i < lossy.count; i++) {
        struct change *change = &lossy.journal[i];

        if (change->number > number || change->kind == CHANGE_SIZE
            || change->durable) {
            lossy.journal[left++] = *change;
            continue;
        }
        lossy.forgotten++;
        free(change->data);
    }
    lossy.count = left;
    if (lossy_random(2) == 0)
        return;
    memcpy(lossy.seen, lossy.durable, lossy.most);
    lossy.seen_size = lossy.durable_size;
    for (size_t i = 0; i < lossy.count; i++)
        change_apply(&lossy.journal[i], lossy.seen, &lossy.seen_size);
}

int
lossy_sync(unsigned epoch, bool data_only)
{
    pthread_mutex_lock(&lossy.mutex);
    uint64_t number = lossy.numbers;
    unsigned delay =
        lossy.delay > 0 ? (unsigned)lossy_random(lossy.delay + 1) : 0;
    pthread_mutex_unlock(&lossy.mutex);
    lossy_wait(delay);
    pthread_mutex_lock(&lossy.mutex);
    int errnum = lossy_is_gone(epoch) ? EIO : lossy_fault(LOSSY_SYNC);
    if (errnum != 0 && !lossy_is_gone(epoch))
        lossy_forget(number);
    else if (errnum == 0 && lossy.syncs == LOSSY_TRUE)
        lossy_commit(number, data_only);
    lossy.syncs_done += errnum == 0;
    pthread_mutex_unlock(&lossy.mutex);
    return -errnum;
}

/* How many changes of the size are there after the cut: they are never lost but
 * from the end, as a file system's journal keeps their order, and none that a
 * durable write came after: it would not be found. */
static size_t
lossy_sizes_left(void)
{
    size_t sizes = 0, at_least = 0;

    for (size_t i = 0; i < lossy.count; i++) {
        sizes += lossy.journal[i].kind == CHANGE_SIZE;
        if (lossy.journal[i].durable)
            at_least = sizes;
    }
    return at_least + lossy_random(sizes - at_least + 1);
}

/* What of a change is there after the cut. */
static void
lossy_leave(const struct change *change, size_t *sizes)
{
    uint64_t choice = change->durable ? 0 : lossy_random(3);
    uint64_t end = change->offset + change->length;

    if (change->kind == CHANGE_SIZE) {
        choice = *sizes > 0 ? 0 : 1;
        *sizes -= *sizes > 0;
    }
    if (choice == 0) {
        change_apply(change, lossy.durable, &lossy.durable_size);
        lossy.kept++;
        return;
    }
    if (choice == 1) {
        lossy.dropped++;
        return;
    }
    lossy.torn++;
    for (uint64_t at = change->offset, next; at < end; at = next) {
        next = at - at % lossy.unit + lossy.unit;
        if (next > end)
            next = end;
        if (lossy_random(2) == 0)
            change_apply_part(change, at, next, lossy.durable,
                              lossy.durable_size);
    }
}

void
lossy_cut(void)
{
    pthread_mutex_lock(&lossy.mutex);
    if (!lossy.off)
        lossy.cuts++;
    lossy.off = true;
    lossy.epoch++;
    size_t sizes = lossy_sizes_left();
    for (size_t i = 0; i < lossy.count; i++) {
        lossy_leave(&lossy.journal[i], &sizes);
        free(lossy.journal[i].data);
    }
    lossy.count = 0;
    memcpy(lossy.seen, lossy.durable, lossy.most);
    lossy.seen_size = lossy.durable_size;
    pthread_mutex_unlock(&lossy.mutex);
}

void
lossy_on(void)
{
    pthread_mutex_lock(&lossy.mutex);
    lossy.off = false;
    pthread_mutex_unlock(&lossy.mutex);
}

void
lossy_fail(enum lossy_call call, int errnum, unsigned after, unsigned times)
{
    pthread_mutex_lock(&lossy.mutex);
    lossy.fault[call] =
        (struct fault){.errnum = errnum, .after = after, .times = times};
    pthread_mutex_unlock(&lossy.mutex);
}

void
lossy_keep_word(enum lossy_word syncs, enum lossy_word durable_writes)
{
    pthread_mutex_lock(&lossy.mutex);
    lossy.syncs = syncs;
    lossy.durable_writes = durable_writes;
    pthread_mutex_unlock(&lossy.mutex);
}

void
lossy_set_unit(uint32_t unit)
{
    pthread_mutex_lock(&lossy.mutex);
    lossy.unit = unit;
    pthread_mutex_unlock(&lossy.mutex);
}

void
lossy_set_delay(unsigned microseconds)
{
    pthread_mutex_lock(&lossy.mutex);
    lossy.delay = microseconds;
    pthread_mutex_unlock(&lossy.mutex);
}

void
lossy_tell(FILE *to)
{
    pthread_mutex_lock(&lossy.mutex);
    fprintf(to,
            "writes %llu\nzeroes %llu\nsizes %llu\nsyncs %llu\ncuts %llu\n"
            "kept %llu\ndropped %llu\ntorn %llu\nforgotten %llu\n"
            "failed-writes %llu\nfailed-zeroes %llu\nfailed-syncs %llu\n"
            "unsynced %zu\n",
            (unsigned long long)lossy.writes, (unsigned long long)lossy.zeroes,
            (unsigned long long)lossy.sizes,
            (unsigned long long)lossy.syncs_done,
            (unsigned long long)lossy.cuts, (unsigned long long)lossy.kept,
            (unsigned long long)lossy.dropped, (unsigned long long)lossy.torn,
            (unsigned long long)lossy.forgotten,
            (unsigned long long)lossy.failed[LOSSY_WRITE],
            (unsigned long long)lossy.failed[LOSSY_ZERO],
            (unsigned long long)lossy.failed[LOSSY_SYNC], lossy.count);
    pthread_mutex_unlock(&lossy.mutex);
}
