/* SPDX-License-Identifier: ISC */
/*
 * The checker of histories: what it accepts, what it catches, and whether it
 * says the same as a search through all orders there are.
 */
#include "tests/linear.h"
#include "tests/support.h"
#include "tests/tagged.h"

#include <stdio.h>

#define W(value, begun, ended)                                                 \
    {                                                                          \
        true, false, value, begun, ended                                       \
    }
#define R(value, begun, ended)                                                 \
    {                                                                          \
        false, false, value, begun, ended                                      \
    }
/* Nobody knows whether it happened. */
#define U(value, begun, ended)                                                 \
    {                                                                          \
        true, true, value, begun, ended                                        \
    }

/* ------------------------------------------------------------ by search */

#define SMALL 8

/* Try every op that may come next: one before whose begin no other that has not
 * happened ends. */
static bool
search(const struct linear_op *ops, unsigned count, unsigned done,
       uint64_t value)
{
    uint64_t limit = LINEAR_NEVER;

    for (unsigned i = 0; i < count; i++)
        if ((done & 1u << i) == 0 && ops[i].ended < limit)
            limit = ops[i].ended;
    if (done == (1u << count) - 1)
        return true;
    for (unsigned i = 0; i < count; i++) {
        const struct linear_op *op = &ops[i];

        if ((done & 1u << i) != 0 || op->begun > limit
            || (!op->write && op->value != value))
            continue;
        if (search(ops, count, done | 1u << i, op->write ? op->value : value))
            return true;
    }
    return false;
}

/* The moments are in order, so an unknown write that happens must do so before
 * its end as well: each subset of those that happen is a history of its own. */
static bool
search_all(const struct linear_op *ops, unsigned count, uint64_t initial)
{
    for (unsigned choice = 0; choice < 1u << count; choice++) {
        struct linear_op chosen[SMALL];
        unsigned kept = 0;
        bool redundant = false;

        for (unsigned i = 0; i < count; i++) {
            bool in = (choice & 1u << i) != 0;

            if (!ops[i].unknown) {
                redundant |= in;
                chosen[kept++] = ops[i];
            } else if (in) {
                chosen[kept] = ops[i];
                chosen[kept++].unknown = false;
            }
        }
        if (!redundant && search(chosen, kept, 0, initial))
            return true;
    }
    return false;
}

static void
show(const struct linear_op *ops, unsigned count, uint64_t initial)
{
    print_message("initially %llu\n", (unsigned long long)initial);
    for (unsigned i = 0; i < count; i++)
        print_message("%c(%llu, %llu, %llu)\n",
                      !ops[i].write     ? 'R'
                      : !ops[i].unknown ? 'W'
                                        : 'U',
                      (unsigned long long)ops[i].value,
                      (unsigned long long)ops[i].begun,
                      (unsigned long long)ops[i].ended);
}

/* Times: 1 ... 2 * count, each once. */
static void
make_times(struct rng *rng, struct linear_op *ops, unsigned count)
{
    unsigned open[SMALL], opened = 0, open_count = 0;

    for (uint64_t now = 1; opened < count || open_count > 0; now++) {
        if (open_count == 0
            || (opened < count && rng_below(rng, 2 + open_count) < 2)) {
            ops[opened].begun = now;
            open[open_count++] = opened++;
        } else {
            unsigned which = (unsigned)rng_below(rng, open_count);

            ops[open[which]].ended = now;
            open[which] = open[--open_count];
        }
    }
}

static void
make_values(struct rng *rng, struct linear_op *ops, unsigned count,
            uint64_t initial)
{
    uint64_t values[SMALL + 2] = {0, initial};
    unsigned known = 2;

    for (unsigned i = 0; i < count; i++) {
        ops[i].write = rng_below(rng, 2) == 0;
        if (!ops[i].write)
            continue;
        ops[i].value = rng_below(rng, 3) == 0 ? 0 : i + 1;
        values[known++] = ops[i].value;
        ops[i].unknown = rng_below(rng, 5) == 0;
        if (ops[i].unknown && rng_below(rng, 2) == 0)
            ops[i].ended = LINEAR_NEVER;
    }
    for (unsigned i = 0; i < count; i++)
        if (!ops[i].write)
            ops[i].value = values[rng_below(rng, known)];
}

static void
it_agrees_with_a_search_through_all_orders(void **state)
{
    const char *told = getenv("FARBLK_LINEAR_HISTORIES");
    unsigned histories =
        told != NULL ? (unsigned)strtoul(told, NULL, 10) : 30000;
    unsigned fine = 0, wrong = 0;

    (void)state;
    for (unsigned seed = 0; seed < histories; seed++) {
        struct rng rng = {.state = seed};
        struct linear_op ops[SMALL] = {{0}}, copy[SMALL];
        unsigned count = 1 + (unsigned)rng_below(&rng, SMALL);
        uint64_t initial = rng_below(&rng, 3) == 0 ? 100 : 0;

        make_times(&rng, ops, count);
        make_values(&rng, ops, count, initial);
        memcpy(copy, ops, sizeof copy);
        bool wanted = search_all(ops, count, initial);
        struct linear_verdict got = linear_check(copy, count, initial);
        fine += wanted;
        wrong += !wanted;
        if (got.fine != wanted) {
            show(ops, count, initial);
            fail_msg("seed %u: %s, but the checker says %s", seed,
                     wanted ? "linearizable" : "not linearizable",
                     got.fine ? "fine" : got.text);
        }
        assert_true(got.fine || got.text[0] != '\0');
    }
    /* Else nothing was shown. */
    assert_true(fine > histories / 20 && wrong > histories / 20);
}

/* ------------------------------------------------------------ by hand */

static void
check(struct linear_op *ops, size_t count, uint64_t initial, const char *wrong)
{
    struct linear_verdict verdict = linear_check(ops, count, initial);

    if (verdict.fine != (wrong == NULL)
        || (wrong != NULL && strstr(verdict.text, wrong) == NULL))
        fail_msg("wanted \"%s\", got \"%s\"", wrong != NULL ? wrong : "",
                 verdict.text);
}

#define CHECK(initial, wrong, ...)                                             \
    do {                                                                       \
        struct linear_op ops[] = {__VA_ARGS__};                                \
        check(ops, sizeof ops / sizeof *ops, initial, wrong);                  \
    } while (0)

static void
legal_histories_are_accepted(void **state)
{
    (void)state;
    CHECK(0, NULL, R(0, 1, 2));
    CHECK(7, NULL, R(7, 1, 2));
    CHECK(0, NULL, W(1, 1, 2), R(1, 3, 4));
    /* During a write either is seen, and by several in either order that agrees
     * with their own. */
    CHECK(0, NULL, W(1, 1, 10), R(0, 2, 3), R(1, 4, 5), R(1, 6, 7));
    CHECK(0, NULL, W(1, 1, 10), R(1, 2, 9), R(0, 3, 8));
    /* Two writes at once, seen in one order. */
    CHECK(0, NULL, W(1, 1, 5), W(2, 2, 6), R(1, 3, 7), R(2, 8, 9));
    /* A write that nobody saw. */
    CHECK(0, NULL, W(1, 1, 4), W(2, 2, 3), R(1, 5, 6));
    /* Zeroed, by whomever. */
    CHECK(0, NULL, W(1, 1, 2), W(0, 3, 4), R(0, 5, 6), W(2, 7, 8), R(2, 9, 10),
          W(0, 11, 14), R(2, 12, 13), R(0, 15, 16));
}

static void
unknown_writes_may_have_happened_or_not(void **state)
{
    (void)state;
    CHECK(0, NULL, U(1, 1, LINEAR_NEVER), R(0, 2, 3), R(0, 4, 5));
    CHECK(0, NULL, U(1, 1, LINEAR_NEVER), R(0, 2, 3), R(1, 4, 5));
    CHECK(9, NULL, U(0, 1, LINEAR_NEVER), R(9, 2, 3), R(0, 4, 5));
    /* But not twice, and not before they began or after they ended. */
    CHECK(0, "but another", U(1, 1, LINEAR_NEVER), R(1, 2, 3), W(2, 4, 5),
          R(2, 6, 7), R(1, 8, 9));
    CHECK(9, "zeros", R(0, 1, 2), U(0, 3, LINEAR_NEVER));
    CHECK(0, "before it was written", R(1, 1, 2), U(1, 3, LINEAR_NEVER));
    CHECK(0, "midst", W(1, 1, 2), R(1, 3, 12), U(2, 4, 5), W(3, 6, 7),
          R(2, 8, 9), R(1, 10, 11));
}

static void
a_stale_read_is_caught(void **state)
{
    (void)state;
    CHECK(0, "zeros", W(1, 1, 2), R(0, 3, 4));
    CHECK(0, "but another", W(1, 1, 2), R(1, 3, 4), W(2, 5, 6), R(2, 7, 8),
          R(1, 9, 10));
    /* Seen new and then old, while the write still goes on. */
    CHECK(5, "but another", W(1, 1, 10), R(1, 2, 3), R(5, 4, 5), R(1, 6, 7));
    CHECK(0, "zeros", W(1, 1, 10), R(1, 2, 3), R(0, 4, 5), R(1, 6, 7));
}

static void
a_lost_write_is_caught(void **state)
{
    (void)state;
    CHECK(0, "midst", W(1, 1, 2), W(2, 3, 4), R(1, 5, 6));
    CHECK(3, "midst", W(1, 1, 2), R(3, 3, 4));
    CHECK(0, "midst", W(1, 1, 2), W(0, 3, 4), R(1, 5, 6));
}

static void
a_value_from_the_future_is_caught(void **state)
{
    (void)state;
    CHECK(0, "before it was written", R(1, 1, 2), W(1, 3, 4));
    CHECK(0, "never written", R(1, 1, 2));
}

static void
an_old_value_that_comes_back_is_caught(void **state)
{
    (void)state;
    CHECK(0, "midst", W(1, 1, 2), R(1, 3, 4), W(2, 5, 6), R(2, 7, 8),
          W(3, 9, 10), R(1, 11, 12));
    CHECK(0, "midst", W(1, 1, 2), W(0, 3, 4), W(2, 5, 6), R(2, 7, 8),
          W(0, 9, 10), R(2, 11, 12));
    /* Zeros come back without a zeroing. */
    CHECK(0, "zeros", R(0, 1, 2), W(1, 3, 4), R(1, 5, 6), R(0, 7, 8));
    CHECK(0, "zeros", W(1, 1, 2), W(0, 3, 4), R(0, 5, 6), W(2, 7, 8),
          R(0, 9, 10));
}

static void
a_torn_sector_is_caught(void **state)
{
    uint8_t one[2 * TAGGED_SECTOR], two[2 * TAGGED_SECTOR];

    (void)state;
    tagged_fill(one, 1, 70, 2);
    tagged_fill(two, 2, 70, 2);
    assert_int_equal(tagged_read(one, 70), 1);
    assert_int_equal(tagged_read(one + TAGGED_SECTOR, 71), 1);
    /* In its place alone. */
    assert_int_equal(tagged_read(one, 71), TAGGED_TORN);
    for (size_t cut = 1; cut < TAGGED_SECTOR; cut++) {
        uint8_t torn[TAGGED_SECTOR];

        memcpy(torn, one, cut);
        memcpy(torn + cut, two + cut, TAGGED_SECTOR - cut);
        /* The upper octets of the number are the same in both. */
        if (memcmp(torn, two, TAGGED_SECTOR) != 0)
            assert_int_equal(tagged_read(torn, 70), TAGGED_TORN);
        memset(torn + cut, 0, TAGGED_SECTOR - cut);
        assert_int_equal(tagged_read(torn, 70), TAGGED_TORN);
        memset(torn, 0, cut);
        memcpy(torn + cut, two + cut, TAGGED_SECTOR - cut);
        assert_int_equal(tagged_read(torn, 70), TAGGED_TORN);
    }
    memset(one, 0, TAGGED_SECTOR);
    assert_int_equal(tagged_read(one, 70), TAGGED_ZERO);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_agrees_with_a_search_through_all_orders),
        cmocka_unit_test(legal_histories_are_accepted),
        cmocka_unit_test(unknown_writes_may_have_happened_or_not),
        cmocka_unit_test(a_stale_read_is_caught),
        cmocka_unit_test(a_lost_write_is_caught),
        cmocka_unit_test(a_value_from_the_future_is_caught),
        cmocka_unit_test(an_old_value_that_comes_back_is_caught),
        cmocka_unit_test(a_torn_sector_is_caught),
    };

    return cmocka_run_group_tests_name("linear", tests, NULL, NULL) != 0;
}
