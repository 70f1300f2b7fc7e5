/* SPDX-License-Identifier: ISC */
/*
 * The content of a ramdisk over random operations, against a plain array.
 */
#include "core/checked.h"
#include "tests/trees.h"

/* A plain array beside the tree. */
struct model {
    struct ramtree tree;
    uint64_t size, most; /* sectors */
    uint32_t sector;
    uint8_t *data, *scratch;
    bool *mapped;
};

static void
model_check(struct model *m, uint64_t seed)
{
    uint64_t size = m->size * m->sector;

    tree_read(&m->tree, 0, m->scratch, size);
    if (memcmp(m->scratch, m->data, size) != 0)
        fail_msg("content differs, seed %llu", (unsigned long long)seed);
    for (uint64_t at = 0; at < m->size;) {
        bool mapped;
        uint64_t end =
            ramtree_run(&m->tree, at * m->sector, size, &mapped) / m->sector;
        uint64_t wanted = at;
        while (wanted < m->size && m->mapped[wanted] == m->mapped[at])
            wanted++;
        if (mapped != m->mapped[at] || end != wanted)
            fail_msg("run at %llu differs, seed %llu", (unsigned long long)at,
                     (unsigned long long)seed);
        at = end;
    }
}

/* A write of a payload that the tree may keep; at the end it may not fit. */
static void
model_write_payload(struct model *m, struct rng *rng)
{
    uint64_t length = max_u64((uint64_t)4096 << rng_below(rng, 5), m->sector);
    uint64_t offset = round_down(rng_below(rng, m->size * m->sector + 1),
                                 rng_below(rng, 4) == 0 ? m->sector : length);

    if (!range_within(offset, length, m->size * m->sector))
        return;
    pattern_fill(m->data + offset, length, rng_next(rng));
    memset(m->mapped + offset / m->sector, true, length / m->sector);
    struct block *payload = tree_payload(m->data + offset, length);
    tree_write_payload(&m->tree, offset, payload);
    block_put(payload);
}

static void
model_step(struct model *m, struct rng *rng)
{
    uint64_t start = rng_below(rng, m->size + 1);
    uint64_t most = rng_below(rng, 4) == 0 ? m->size : 40;
    uint64_t count = rng_below(rng, min_u64(m->size - start, most) + 1);
    uint64_t offset = start * m->sector, length = count * m->sector;

    if (rng_below(rng, 2) == 0) {
        model_write_payload(m, rng);
        return;
    }
    switch (rng_below(rng, 8)) {
    case 0:
    case 1:
    case 2:
        pattern_fill(m->data + offset, length, rng_next(rng));
        memset(m->mapped + start, true, count);
        tree_write(&m->tree, offset, m->data + offset, length);
        break;
    case 3:
    case 4:
    case 5:
        memset(m->data + offset, 0, length);
        memset(m->mapped + start, false, count);
        tree_zero(&m->tree, offset, length, false);
        break;
    case 6:
        memset(m->data + offset, 0, length);
        memset(m->mapped + start, true, count);
        tree_zero(&m->tree, offset, length, true);
        break;
    default:
        if (rng_below(rng, 4) != 0)
            break;
        start = rng_below(rng, m->most + 1);
        assert_true(ramtree_resize(&m->tree, start * m->sector));
        if (start > m->size) {
            memset(m->data + m->size * m->sector, 0,
                   (start - m->size) * m->sector);
            memset(m->mapped + m->size, false, start - m->size);
        }
        m->size = start;
    }
}

static void
random_operations_match_an_array(void **state)
{
    (void)state;
    for (size_t i = 0; i < TREE_SECTOR_SIZES; i++) {
        for (uint64_t seed = 1; seed <= 3; seed++) {
            struct model m = {.sector = tree_sector_sizes[i]};
            struct rng rng = {seed};
            uint64_t before = block_in_use();
            /* Some leaves of small blocks, or a few more than one. */
            m.most = (m.sector < 65536 ? 6 << 20 : 40 << 20) / m.sector;
            m.size = m.most / 2;
            m.data = calloc(m.most, m.sector);
            m.scratch = malloc(m.most * m.sector);
            m.mapped = calloc(m.most, sizeof(bool));
            assert_true(ramtree_init(&m.tree, m.size * m.sector, m.sector));
            for (unsigned step = 0; step < 400; step++) {
                model_step(&m, &rng);
                if (step % 20 == 19)
                    model_check(&m, seed);
            }
            tree_zero(&m.tree, 0, ramtree_size(&m.tree), false);
            assert_int_equal(block_in_use(), before);
            ramtree_fini(&m.tree);
            free(m.data);
            free(m.scratch);
            free(m.mapped);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations_match_an_array),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
