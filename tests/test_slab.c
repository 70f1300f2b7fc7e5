/* SPDX-License-Identifier: ISC */
/*
 * Small blocks: each is one's own, whoever gives it back; memory goes back to
 * the kernel; threads that end leave nothing behind; a child has its own.
 * With AddressSanitizer, which has malloc's blocks instead, nothing is mapped.
 */
#include "core/slab.h"
#include "tests/support.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLAB (2u << 20)
#define MANY 16000u /* some dozens of slabs */
#define THREADS 4u
#define ROUNDS 50u

/* ThreadSanitizer takes memory of its own for each small block that is put. */
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define OWN_MEMORY 1
#else
#define OWN_MEMORY 0
#endif

static struct block *block[MANY];

/* In place of the C library's: fails like that at the limit of mappings. */
static atomic_bool no_unmapping;
static atomic_uint refused;

int
munmap(void *at, size_t octets)
{
    if (atomic_load(&no_unmapping)) {
        atomic_fetch_add(&refused, 1);
        errno = ENOMEM;
        return -1;
    }
    return (int)syscall(SYS_munmap, at, octets);
}

/* Octets of the process: of its addresses, and in memory. */
struct taken {
    uint64_t mapped, resident;
};

static struct taken
taken_now(void)
{
    unsigned long long mapped, resident;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    FILE *file = fopen("/proc/self/statm", "r");

    assert_non_null(file);
    assert_int_equal(fscanf(file, "%llu %llu", &mapped, &resident), 2);
    fclose(file);
    return (struct taken){.mapped = mapped * page, .resident = resident * page};
}
static struct trouble trouble;

static int
by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t) * (struct block *const *)a;
    uintptr_t y = (uintptr_t) * (struct block *const *)b;

    return x < y ? -1 : x > y;
}

static bool
is_filled(const struct block *one, uint8_t with)
{
    return one->data[0] == with
           && memcmp(one->data, one->data + 1, SLAB_DATA - 1) == 0;
}

/* A thread, so that at its end it keeps nothing. */
static void *
hoarder(void *arg)
{
    for (unsigned i = 0; i < MANY; i++) {
        block[i] = slab_take();
        if (block[i] == NULL) {
            trouble_note(&trouble, "no memory");
            return arg;
        }
        memset(block[i]->data, (int)i, SLAB_DATA);
    }
    for (unsigned i = 0; i < MANY; i++)
        if (!is_filled(block[i], (uint8_t)i))
            trouble_note(&trouble, "block %u has changed", i);
    uint64_t mapped = slab_mapped(), wanted = (uint64_t)MANY * SLAB_STRIDE;
    if (mapped != 0 && (mapped < wanted || mapped > wanted + 6 * SLAB))
        trouble_note(&trouble, "%llu octets are mapped",
                     (unsigned long long)mapped);
    qsort(block, MANY, sizeof *block, by_address);
    for (unsigned i = 0; i < MANY; i++) {
        if (mapped != 0 && (uintptr_t)block[i]->data % 64 != 0)
            trouble_note(&trouble, "data within a cache line");
        if (i > 0 && (uint8_t *)block[i] < block[i - 1]->data + SLAB_DATA)
            trouble_note(&trouble, "blocks overlap");
    }
    /* Not in the order in which they came. */
    for (unsigned i = 0; i < MANY; i++)
        slab_give(block[(uint64_t)i * 1999 % MANY]);
    return arg;
}

static void
blocks_do_not_overlap_and_go_back(void **state)
{
    (void)state;
    pthread_t thread;

    for (unsigned round = 0; round < 3; round++) {
        assert_int_equal(pthread_create(&thread, NULL, hoarder, NULL), 0);
        pthread_join(thread, NULL);
        trouble_assert_none(&trouble);
        /* The few that are kept. */
        assert_true(slab_mapped() <= 4 * SLAB);
    }
}

/* Blocks that wait for another thread to give them back. */
static struct {
    pthread_mutex_t mutex;
    struct block *block[MANY];
    unsigned count;
} heap = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void *
taker(void *arg)
{
    for (unsigned i = 0; i < ROUNDS * 100; i++) {
        struct block *mine = slab_take();
        if (mine == NULL) {
            trouble_note(&trouble, "no memory");
            break;
        }
        uint8_t mark = (uint8_t)i;
        memset(mine->data, mark, SLAB_DATA);
        mine->size = mark;
        struct block *others = NULL;
        pthread_mutex_lock(&heap.mutex);
        if (heap.count == MANY || (heap.count > 0 && i % 3 == 0))
            others = heap.block[--heap.count];
        if (heap.count < MANY) {
            heap.block[heap.count++] = mine;
            mine = NULL;
        }
        pthread_mutex_unlock(&heap.mutex);
        if (others != NULL) {
            if (!is_filled(others, (uint8_t)others->size))
                trouble_note(&trouble, "somebody wrote into another's block");
            slab_give(others);
        }
        if (mine != NULL)
            slab_give(mine);
    }
    return arg;
}

static void
threads_give_back_what_others_took(void **state)
{
    (void)state;
    pthread_t thread[THREADS];

    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&thread[i], NULL, taker, NULL), 0);
        for (unsigned i = 0; i < THREADS; i++)
            pthread_join(thread[i], NULL);
        trouble_assert_none(&trouble);
    }
    while (heap.count > 0)
        slab_give(heap.block[--heap.count]);
    /* What is kept, and where this thread's last blocks are. */
    assert_true(slab_mapped() <= (4 + 16) * SLAB);
}

/* MANY blocks, by a thread that keeps nothing. */
static void *
filler(void *arg)
{
    for (unsigned i = 0; i < MANY; i++) {
        block[i] = block_alloc(SLAB_DATA);
        if (block[i] == NULL) {
            trouble_note(&trouble, "no memory");
            return arg;
        }
        memset(block[i]->data, (int)i, SLAB_DATA);
    }
    return arg;
}

/* Puts those blocks but one in *arg. */
static void *
thinner(void *arg)
{
    const unsigned *left = arg;

    for (unsigned i = 0; i < MANY; i++)
        if (i % *left != 0) {
            block_put(block[i]);
            block[i] = NULL;
        }
    return NULL;
}

/* Puts what is left. */
static void *
sweeper(void *arg)
{
    for (unsigned i = 0; i < MANY; i++)
        block_put(block[i]);
    return arg;
}

static void
run(void *(*body)(void *), void *arg)
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, body, arg), 0);
    pthread_join(thread, NULL);
    trouble_assert_none(&trouble);
}

static void
slabs_that_cannot_be_unmapped_are_used_again(void **state)
{
    (void)state;

    if (SLAB_PLAIN)
        skip();
    run(filler, NULL);
    uint64_t mapped = slab_mapped();
    struct taken full = taken_now();
    atomic_store(&refused, 0);
    atomic_store(&no_unmapping, true);
    run(sweeper, NULL);
    atomic_store(&no_unmapping, false);
    assert_true(atomic_load(&refused) > 0);
    assert_int_equal(slab_mapped(), mapped);
    assert_int_equal(slab_idle(), 0);
    if (!OWN_MEMORY)
        assert_true(taken_now().resident < full.resident - mapped / 2);
    for (unsigned round = 0; round < 2; round++) {
        run(hoarder, NULL);
        assert_true(slab_mapped() <= mapped);
    }
    /* Those that are given back now can be unmapped: but for what is kept, and
     * where this thread's last blocks are. */
    assert_true(slab_mapped() <= (4 + 16) * SLAB);
}

static void
large_blocks_that_cannot_be_unmapped_are_used_again(void **state)
{
    (void)state;
    enum { LARGE = 200, HUGE = 9 << 20 };
    uint32_t size = 1 << 20;

    if (SLAB_PLAIN)
        skip();
    /* Some have no shelf, for they are larger than the largest. */
    struct taken before = taken_now();
    for (unsigned i = 0; i < LARGE; i++) {
        uint32_t octets = i % 50 == 49 ? HUGE : size;
        block[i] =
            i % 2 == 0 ? block_alloc(octets) : block_alloc_aligned(octets);
        assert_non_null(block[i]);
        memset(block[i]->data, 1, octets);
    }
    struct taken full = taken_now();
    atomic_store(&refused, 0);
    atomic_store(&no_unmapping, true);
    for (unsigned i = 0; i < LARGE; i++)
        block_put(block[i]);
    assert_true(atomic_load(&refused) > LARGE / 2);
    /* 32 MiB are kept, and a page of each. */
    struct taken empty = taken_now();
    assert_true(empty.resident < full.resident - (uint64_t)LARGE / 2 * size);
    for (unsigned i = 0; i < LARGE; i++) {
        block[i] = i % 2 == 0 ? block_alloc(size) : block_alloc_aligned(size);
        assert_non_null(block[i]);
        memset(block[i]->data, (int)i, size);
    }
    assert_true(taken_now().mapped < full.mapped + 8 * (uint64_t)size);
    for (unsigned i = 0; i < LARGE; i++) {
        assert_int_equal(block[i]->data[0], (uint8_t)i);
        assert_int_equal(block[i]->data[size - 1], (uint8_t)i);
        block_put(block[i]);
    }
    /* Now it can be unmapped again. */
    atomic_store(&no_unmapping, false);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < LARGE; i++)
            assert_non_null(block[i] = block_alloc(size));
        for (unsigned i = 0; i < LARGE; i++)
            block_put(block[i]);
    }
    assert_true(taken_now().mapped < before.mapped + (40u << 20));
}

static void
room_in_slabs_counts_against_the_limit(void **state)
{
    (void)state;
    enum { LARGE = 200 };
    static struct block *large[LARGE];
    unsigned left = 400, count = 0;
    uint64_t before = block_in_use();

    if (SLAB_PLAIN)
        skip();
    run(filler, NULL);
    uint64_t full = block_in_use(), limit = full + (16u << 20);
    assert_true(block_counted() < full + SLAB);
    run(thinner, &left);
    assert_true(block_in_use() < before + (1u << 20));
    assert_true(slab_mapped() > full - before - 8 * SLAB);
    block_set_limit(limit);
    while (count < LARGE && (large[count] = block_alloc(1 << 20)) != NULL)
        count++;
    /* What slabs have, the 8 MiB that do not count, and these. */
    assert_true(count > 0 && count < LARGE);
    assert_true(slab_mapped() + ((uint64_t)count << 20)
                <= limit - before + 8 * SLAB);
    assert_true(block_counted() <= limit);
    /* A small one has room. */
    struct block *small = block_alloc(SLAB_DATA);
    assert_non_null(small);
    block_put(small);
    /* Where the last of a slab go, others have what it had. */
    run(sweeper, NULL);
    assert_true(block_counted() < before + (uint64_t)(count + 1) * (2u << 20));
    unsigned more = count;
    while (more < LARGE && (large[more] = block_alloc(1 << 20)) != NULL)
        more++;
    assert_true(more >= count + 40);
    block_set_limit(UINT64_MAX);
    while (more > 0)
        block_put(large[--more]);
    memset(block, 0, sizeof block);
    assert_int_equal(block_in_use(), before);
}

static void
a_child_begins_anew(void **state)
{
    (void)state;
    int status;

    block_put(block_alloc(SLAB_DATA));
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bool fine = true;
        block_after_fork();
        for (unsigned i = 0; i < 1000; i++) {
            block[i] = block_alloc(SLAB_DATA);
            fine = fine && block[i] != NULL;
        }
        for (unsigned i = 0; i < 1000; i++)
            block_put(block[i]);
        _exit(fine ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_do_not_overlap_and_go_back),
        cmocka_unit_test(threads_give_back_what_others_took),
        cmocka_unit_test(slabs_that_cannot_be_unmapped_are_used_again),
        cmocka_unit_test(large_blocks_that_cannot_be_unmapped_are_used_again),
        cmocka_unit_test(room_in_slabs_counts_against_the_limit),
        cmocka_unit_test(a_child_begins_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
