/* SPDX-License-Identifier: ISC */
/*
 * The content of a ramdisk under many threads: no sector tears, no write to one
 * sector undoes its neighbour's, nodes that go away take nothing along, and
 * memory comes back.  Meant for ThreadSanitizer as well.
 */
#include "backends/ramtree.h"
#include "tests/support.h"

#include <pthread.h>

#define SECTOR 512u
#define ROUNDS 20000u
#define WRITERS 4u
#define READERS 2u

struct crowd {
    struct ramtree tree;
    atomic_uint writing; /* writers that are not done */
    struct trouble trouble;
    uint64_t last[8]; /* what each sector of the block got last */
};

struct member {
    pthread_t thread;
    struct crowd *crowd;
    unsigned number;
};

static bool
crowd_write(struct crowd *crowd, uint64_t offset, const void *from,
            size_t length)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)from, .iov_len = length};
    struct iov_view view = {.iov = &iov, .count = 1, .length = length};
    bool changed;

    return ramtree_write(&crowd->tree, offset, view, NULL, &changed);
}

/* The same as a payload that the tree may keep. */
static bool
crowd_write_payload(struct crowd *crowd, uint64_t offset, const void *from,
                    size_t length)
{
    struct block *payload = block_alloc((uint32_t)length);
    bool changed, fine;

    if (payload == NULL)
        return false;
    memcpy(payload->data, from, length);
    struct iovec iov = {.iov_base = payload->data, .iov_len = length};
    struct iov_view view = {.iov = &iov, .count = 1, .length = length};
    fine = ramtree_write(&crowd->tree, offset, view, payload, &changed);
    block_put(payload);
    return fine;
}

static void
crowd_read(struct crowd *crowd, uint64_t offset, uint8_t *to, uint64_t length)
{
    struct ramtree_piece piece[8];

    while (length > 0) {
        size_t count = ramtree_get(&crowd->tree, offset, length, piece, 8);
        for (size_t i = 0; i < count; i++) {
            if (piece[i].block != NULL)
                memcpy(to, piece[i].data, piece[i].length);
            else
                memset(to, 0, piece[i].length);
            block_put(piece[i].block);
            to += piece[i].length;
            offset += piece[i].length;
            length -= piece[i].length;
        }
    }
}

static void
fill(uint64_t *words, size_t count, uint64_t value)
{
    for (size_t i = 0; i < count; i++)
        words[i] = value;
}

static bool
is_filled(const uint64_t *words, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (words[i] != words[0])
            return false;
    }
    return true;
}

static void
crowd_run(struct crowd *crowd, void *(*writer)(void *), void *(*reader)(void *))
{
    struct member member[WRITERS + READERS];

    atomic_store(&crowd->writing, WRITERS);
    for (unsigned i = 0; i < WRITERS + READERS; i++) {
        member[i].crowd = crowd;
        member[i].number = i;
        assert_int_equal(pthread_create(&member[i].thread, NULL,
                                        i < WRITERS ? writer : reader,
                                        &member[i]),
                         0);
    }
    for (unsigned i = 0; i < WRITERS + READERS; i++)
        pthread_join(member[i].thread, NULL);
    trouble_assert_none(&crowd->trouble);
}

/* Each writer has two sectors of the one block, and writes rising numbers. */
static void *
neighbour_writer(void *arg)
{
    struct member *self = arg;
    struct crowd *crowd = self->crowd;
    uint64_t words[SECTOR / 8];
    struct rng rng = {self->number};

    for (uint64_t round = 1; round <= ROUNDS; round++) {
        unsigned which = 2 * self->number + (unsigned)(round & 1);
        bool changed, fine;
        if (rng_below(&rng, 8) == 0) {
            fine = ramtree_zero(&crowd->tree, which * SECTOR, SECTOR,
                                rng_below(&rng, 2) == 0, &changed);
            crowd->last[which] = 0;
        } else {
            fill(words, SECTOR / 8, round);
            fine = crowd_write(crowd, which * SECTOR, words, SECTOR);
            crowd->last[which] = round;
        }
        if (!fine)
            trouble_note(&crowd->trouble, "no memory");
        crowd_read(crowd, which * SECTOR, (uint8_t *)words, SECTOR);
        if (!is_filled(words, SECTOR / 8) || words[0] != crowd->last[which])
            trouble_note(&crowd->trouble, "sector %u: lost %llu, found %llu",
                         which, (unsigned long long)crowd->last[which],
                         (unsigned long long)words[0]);
    }
    atomic_fetch_sub(&crowd->writing, 1);
    return NULL;
}

static void *
neighbour_reader(void *arg)
{
    struct crowd *crowd = ((struct member *)arg)->crowd;
    uint64_t words[8][SECTOR / 8], newest[8] = {0};

    while (atomic_load(&crowd->writing) > 0) {
        crowd_read(crowd, 0, (uint8_t *)words, sizeof words);
        for (unsigned i = 0; i < 8; i++) {
            if (!is_filled(words[i], SECTOR / 8))
                trouble_note(&crowd->trouble, "sector %u is torn", i);
            if (words[i][0] != 0 && words[i][0] < newest[i])
                trouble_note(&crowd->trouble, "sector %u went back", i);
            if (words[i][0] != 0)
                newest[i] = words[i][0];
        }
    }
    return NULL;
}

static void
neighbours_in_a_block_lose_nothing(void **state)
{
    (void)state;
    struct crowd *crowd = aligned_alloc(64, (sizeof *crowd + 63) & ~63ul);
    uint64_t words[SECTOR / 8], before = block_in_use();

    memset(crowd, 0, sizeof *crowd);
    assert_true(ramtree_init(&crowd->tree, 1 << 20, SECTOR));
    crowd_run(crowd, neighbour_writer, neighbour_reader);
    for (unsigned i = 0; i < 8; i++) {
        crowd_read(crowd, i * SECTOR, (uint8_t *)words, SECTOR);
        assert_int_equal(words[0], crowd->last[i]);
    }
    ramtree_fini(&crowd->tree);
    assert_int_equal(block_in_use(), before);
    free(crowd);
}

/* All writers write the same large sector. */
#define LARGE 65536u

static void *
same_writer(void *arg)
{
    struct member *self = arg;
    struct crowd *crowd = self->crowd;
    uint64_t *words = malloc(LARGE);

    for (uint64_t round = 0; round < ROUNDS / 20; round++) {
        bool changed;
        fill(words, LARGE / 8, round * WRITERS + self->number + 1);
        if (!crowd_write(crowd, LARGE, words, LARGE)
            || (round % 16 == 0
                && !ramtree_zero(&crowd->tree, 0, 3 * LARGE, false, &changed)))
            trouble_note(&crowd->trouble, "no memory");
    }
    free(words);
    atomic_fetch_sub(&crowd->writing, 1);
    return NULL;
}

static void *
same_reader(void *arg)
{
    struct crowd *crowd = ((struct member *)arg)->crowd;
    uint64_t *words = malloc(LARGE);

    while (atomic_load(&crowd->writing) > 0) {
        crowd_read(crowd, LARGE, (uint8_t *)words, LARGE);
        if (!is_filled(words, LARGE / 8))
            trouble_note(&crowd->trouble, "torn");
    }
    free(words);
    return NULL;
}

static void
a_large_sector_does_not_tear(void **state)
{
    (void)state;
    struct crowd *crowd = aligned_alloc(64, (sizeof *crowd + 63) & ~63ul);
    uint64_t before = block_in_use();

    memset(crowd, 0, sizeof *crowd);
    assert_true(ramtree_init(&crowd->tree, 1 << 20, LARGE));
    crowd_run(crowd, same_writer, same_reader);
    ramtree_fini(&crowd->tree);
    assert_int_equal(block_in_use(), before);
    free(crowd);
}

/* Each writer owns every WRITERSth sector of some leaves that come and go. */
#define LEAVES 3u
#define LEAF_OCTETS ((uint64_t)RAMTREE_FANOUT * RAMTREE_BLOCK_MIN)
#define OWNED 24u

static void *
owner(void *arg)
{
    struct member *self = arg;
    struct crowd *crowd = self->crowd;
    struct rng rng = {self->number + 100};
    uint64_t words[SECTOR / 8], value[OWNED] = {0};
    bool is_mapped[OWNED] = {false};

    for (uint64_t round = 1; round <= ROUNDS; round++) {
        uint64_t k = rng_below(&rng, OWNED);
        uint64_t sector = k / LEAVES * WRITERS + self->number;
        uint64_t offset = k % LEAVES * LEAF_OCTETS + sector * SECTOR;
        bool changed, fine, mapped;
        switch (rng_below(&rng, 5)) {
        case 0:
            value[k] = round;
            is_mapped[k] = true;
            fill(words, SECTOR / 8, round);
            fine = crowd_write(crowd, offset, words, SECTOR);
            break;
        case 1:
            value[k] = 0;
            is_mapped[k] = true;
            fine = ramtree_zero(&crowd->tree, offset, SECTOR, true, &changed);
            break;
        default:
            value[k] = 0;
            is_mapped[k] = false;
            fine = ramtree_zero(&crowd->tree, offset, SECTOR, false, &changed);
        }
        if (!fine)
            trouble_note(&crowd->trouble, "no memory");
        crowd_read(crowd, offset, (uint8_t *)words, SECTOR);
        ramtree_run(&crowd->tree, offset, ramtree_size(&crowd->tree), &mapped);
        if (!is_filled(words, SECTOR / 8) || words[0] != value[k]
            || mapped != is_mapped[k])
            trouble_note(&crowd->trouble,
                         "owner %u, sector %llu: %llu %d became %llu %d",
                         self->number, (unsigned long long)offset / SECTOR,
                         (unsigned long long)value[k], is_mapped[k],
                         (unsigned long long)words[0], mapped);
    }
    /* Emptied by all of them at about the same time. */
    for (uint64_t k = 0; k < OWNED; k++) {
        bool changed;
        uint64_t sector = k / LEAVES * WRITERS + self->number;
        ramtree_zero(&crowd->tree, k % LEAVES * LEAF_OCTETS + sector * SECTOR,
                     SECTOR, false, &changed);
    }
    atomic_fetch_sub(&crowd->writing, 1);
    return NULL;
}

/* One of the readers also takes away a leaf that nobody owns a part of. */
static void *
passer_by(void *arg)
{
    struct member *self = arg;
    struct crowd *crowd = self->crowd;
    uint64_t at = LEAVES * LEAF_OCTETS, size = ramtree_size(&crowd->tree);
    uint64_t words[8][SECTOR / 8] = {{0}};
    bool changed, mapped;

    while (atomic_load(&crowd->writing) > 0) {
        crowd_read(crowd, 0, (uint8_t *)words, sizeof words);
        for (unsigned i = 0; i < 8; i++) {
            if (!is_filled(words[i], SECTOR / 8))
                trouble_note(&crowd->trouble, "sector %u is torn", i);
        }
        for (uint64_t where = 0; where < size;)
            where = ramtree_run(&crowd->tree, where, size, &mapped);
        if (self->number == WRITERS
            && (!crowd_write(crowd, at + LEAF_OCTETS / 2, words, sizeof words)
                || !ramtree_zero(&crowd->tree, at, LEAF_OCTETS, false,
                                 &changed)))
            trouble_note(&crowd->trouble, "no memory");
    }
    return NULL;
}

static void
leaves_that_go_take_nothing_along(void **state)
{
    (void)state;
    struct crowd *crowd = aligned_alloc(64, (sizeof *crowd + 63) & ~63ul);
    uint64_t before = block_in_use();

    memset(crowd, 0, sizeof *crowd);
    assert_true(ramtree_init(&crowd->tree, (uint64_t)1 << 40, SECTOR));
    crowd_run(crowd, owner, passer_by);
    assert_int_equal(block_in_use(), before);
    ramtree_fini(&crowd->tree);
    free(crowd);
}

/* Every writer owns some blocks of a payload that the tree keeps as one, and now
 * and then one of them writes all of it anew, while the others wait. */
#define CHUNK 65536u
#define CHUNK_BLOCKS (CHUNK / RAMTREE_BLOCK_MIN)

struct chunk_crowd {
    struct crowd crowd;
    pthread_rwlock_t whole;
    uint64_t first[CHUNK_BLOCKS], rest[CHUNK_BLOCKS]; /* sector, and others */
};

static void
chunk_check(struct chunk_crowd *chunk, unsigned block)
{
    uint64_t words[RAMTREE_BLOCK_MIN / 8];

    crowd_read(&chunk->crowd, CHUNK + block * RAMTREE_BLOCK_MIN,
               (uint8_t *)words, sizeof words);
    if (!is_filled(words, SECTOR / 8) || words[0] != chunk->first[block]
        || !is_filled(words + SECTOR / 8, sizeof words / 8 - SECTOR / 8)
        || words[SECTOR / 8] != chunk->rest[block])
        trouble_note(&chunk->crowd.trouble, "block %u: lost %llu %llu", block,
                     (unsigned long long)chunk->first[block],
                     (unsigned long long)chunk->rest[block]);
}

static void *
chunk_writer(void *arg)
{
    struct member *self = arg;
    struct chunk_crowd *chunk = (struct chunk_crowd *)(void *)self->crowd;
    struct rng rng = {self->number + 200};
    uint64_t *words = malloc(CHUNK);

    for (uint64_t round = 1; round <= ROUNDS / 4; round++) {
        unsigned block =
            (unsigned)rng_below(&rng, CHUNK_BLOCKS / WRITERS) * WRITERS
            + self->number;
        uint64_t at = CHUNK + block * RAMTREE_BLOCK_MIN;
        uint64_t value = round * WRITERS + self->number;
        bool fine, changed;
        if (rng_below(&rng, 32) == 0) {
            pthread_rwlock_wrlock(&chunk->whole);
            fill(words, CHUNK / 8, value);
            fine = crowd_write_payload(&chunk->crowd, CHUNK, words, CHUNK);
            fill(chunk->first, CHUNK_BLOCKS, value);
            fill(chunk->rest, CHUNK_BLOCKS, value);
        } else {
            pthread_rwlock_rdlock(&chunk->whole);
            fill(words, RAMTREE_BLOCK_MIN / 8, value);
            chunk->first[block] = value;
            switch (rng_below(&rng, 4)) {
            case 0:
                fine = crowd_write(&chunk->crowd, at, words, SECTOR);
                break;
            case 1:
                chunk->rest[block] = value;
                fine = crowd_write(&chunk->crowd, at, words, RAMTREE_BLOCK_MIN);
                break;
            case 2:
                chunk->rest[block] = value;
                fine = crowd_write_payload(&chunk->crowd, at, words,
                                           RAMTREE_BLOCK_MIN);
                break;
            default:
                chunk->first[block] = chunk->rest[block] = 0;
                fine = ramtree_zero(&chunk->crowd.tree, at, RAMTREE_BLOCK_MIN,
                                    rng_below(&rng, 2) == 0, &changed);
            }
        }
        if (!fine)
            trouble_note(&chunk->crowd.trouble, "no memory");
        chunk_check(chunk, block);
        pthread_rwlock_unlock(&chunk->whole);
    }
    free(words);
    atomic_fetch_sub(&chunk->crowd.writing, 1);
    return NULL;
}

static void *
chunk_reader(void *arg)
{
    struct crowd *crowd = ((struct member *)arg)->crowd;
    uint64_t words[SECTOR / 8];

    while (atomic_load(&crowd->writing) > 0)
        for (unsigned at = 0; at < CHUNK; at += SECTOR) {
            crowd_read(crowd, CHUNK + at, (uint8_t *)words, SECTOR);
            if (!is_filled(words, SECTOR / 8))
                trouble_note(&crowd->trouble, "octet %u is torn", at);
        }
    return NULL;
}

static void
parts_of_a_payload_change_by_themselves(void **state)
{
    (void)state;
    struct chunk_crowd *chunk = aligned_alloc(64, (sizeof *chunk + 63) & ~63ul);
    uint64_t before = block_in_use();

    memset(chunk, 0, sizeof *chunk);
    pthread_rwlock_init(&chunk->whole, NULL);
    assert_true(ramtree_init(&chunk->crowd.tree, 1 << 20, SECTOR));
    crowd_run(&chunk->crowd, chunk_writer, chunk_reader);
    for (unsigned block = 0; block < CHUNK_BLOCKS; block++)
        chunk_check(chunk, block);
    trouble_assert_none(&chunk->crowd.trouble);
    ramtree_fini(&chunk->crowd.tree);
    assert_int_equal(block_in_use(), before);
    pthread_rwlock_destroy(&chunk->whole);
    free(chunk);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_in_a_block_lose_nothing),
        cmocka_unit_test(a_large_sector_does_not_tear),
        cmocka_unit_test(parts_of_a_payload_change_by_themselves),
        cmocka_unit_test(leaves_that_go_take_nothing_along),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
