/* SPDX-License-Identifier: ISC */
/*
 * test_crash [ROUNDS [SEED]]: the power is cut, farblkd and its clients are
 * killed, the disk fails; nothing that was promised is lost.
 *
 * The rounds go through all setups there are.  ROUNDS, or the environment's
 * FARBLK_CRASH_ROUNDS, is 10, less with a sanitizer; FARBLK_CRASH_SEED gives
 * another seed.  Before them come tests that such things are noticed at all.
 *
 * Skipped (77) where FUSE can not be used.
 */
#include "tests/crash_ring.h"

#include <stdio.h>

static const struct crash_setup setups[] = {
    {"io_uring", "none", "engine=uring", false, false},
    {"threads", "none", "engine=pool", false, false},
    {"both, page cache", "through", "engine=auto", false, false},
    {"io_uring, direct", "none", "engine=uring&direct=1", false, false},
    {"threads, page cache that collects", "back", "engine=pool", false, true},
    {"io_uring, sync", "none", "engine=uring&sync=1", true, false},
    {"threads, direct", "none", "engine=pool&direct=1", false, false},
    {"io_uring, page cache that collects", "back", "engine=uring", false, true},
    {"threads, direct, sync", "none", "engine=pool&direct=1&sync=1", true,
     false},
    {"threads, page cache", "through", "engine=pool", false, false},
};
#define SETUPS (sizeof setups / sizeof *setups)

/* Programs with a sanitizer take long to begin; and that the test notices is no
 * matter of threads. */
#if defined(__SANITIZE_THREAD__)
#define PROVES false
#define ROUNDS 3
#elif defined(__SANITIZE_ADDRESS__)
#define PROVES true
#define ROUNDS 5
#else
#define PROVES true
#define ROUNDS 10
#endif

/* Rounds until something planted is noticed; the first few, mostly. */
#define PATIENCE 60

static unsigned rounds = ROUNDS;
static uint64_t seed = 1;

/* Build and kernel may be without io_uring. */
static bool
crash_setup_usable(const struct crash_setup *setup)
{
    char uri[512];
    struct farblk *dev = NULL;

    if (strstr(setup->more, "engine=uring") == NULL)
        return true;
    snprintf(uri, sizeof uri, "file:%s?engine=uring&create=1&size=4k",
             support_path("uring"));
    int status = farblk_open(uri, NULL, &dev);
    farblk_close(dev);
    return status != FARBLK_UNIMPLEMENTED;
}

static void
crash_tell(const struct crash_ring *ring, const struct oracle_tally *found)
{
    const struct crash_tally *tally = &ring->tally;

    print_message("%s: %u rounds: %u cuts, farblkd killed %u times and stopped "
                  "%u (%u times the lock was still there), %u clients killed; ",
                  ring->setup->name, tally->rounds, tally->cuts,
                  tally->server_kills, tally->stops, tally->locked,
                  tally->client_kills);
    print_message(
        "%llu ops, %llu flushes; %llu writes and %llu syncs of the "
        "disk failed; of %llu sectors %llu had lost what was not "
        "promised, %llu had what nobody was told\n",
        (unsigned long long)tally->ops, (unsigned long long)tally->flushes,
        (unsigned long long)tally->failed_writes,
        (unsigned long long)tally->failed_syncs,
        (unsigned long long)found->sectors, (unsigned long long)found->lost,
        (unsigned long long)found->unacknowledged);
}

static void
nothing_promised_is_lost(void **state)
{
    unsigned each = rounds / SETUPS < 1    ? 1
                    : rounds / SETUPS > 10 ? 10
                                           : rounds / SETUPS;

    (void)state;
    for (unsigned done = 0, i = 0; done < rounds; i++) {
        static struct crash_ring ring;
        unsigned count = rounds - done < each ? rounds - done : each;

        if (!crash_setup_usable(&setups[i % SETUPS]))
            continue;
        crash_ring_start(&ring, &setups[i % SETUPS], NULL, seed + i);
        for (unsigned k = 0; k < count; k++) {
            struct crash_round round = crash_ring_choose(&ring);

            support_watch("a round of the crash test");
            if (!crash_ring_round(&ring, &round))
                fail_msg("FARBLK_CRASH_SEED=%llu: %s",
                         (unsigned long long)(seed + i), ring.text);
        }
        struct oracle_tally found = oracle_tally(ring.oracle);
        crash_tell(&ring, &found);
        crash_ring_stop(&ring);
        done += count;
    }
}

/* ------------------------------------------------------------ the proof */

/* Rounds until what was planted is noticed, as `text` says. */
static void
crash_expect(const struct crash_setup *setup, const char *plant,
             const char *command, struct crash_round round, const char *text)
{
    static struct crash_ring ring;
    bool good = true;

    if (!crash_setup_usable(setup))
        return;
    crash_ring_start(&ring, setup, plant, seed);
    if (command != NULL)
        lossy_command(&ring.lossy, "%s", command);
    if (round.writers == 0)
        round.writers = 3;
    round.may_zero = true;
    for (unsigned i = 0; i < PATIENCE && good; i++) {
        support_watch("a planted fault");
        round.ticks = 400 + 50 * i;
        good = crash_ring_round(&ring, &round);
    }
    if (good)
        fail_msg("%d rounds, and nobody noticed", PATIENCE);
    if (strstr(ring.text, text) == NULL)
        fail_msg("noticed, but not as \"%s\": %s", text, ring.text);
    crash_ring_stop(&ring);
}

static const struct crash_round cut_with_flushes = {.flushes = 8,
                                                    .fuas = 1000000};
static const struct crash_round cut_with_fuas = {.flushes = 1000000, .fuas = 4};

static void
a_flush_that_does_nothing_is_noticed(void **state)
{
    (void)state;
    crash_expect(&setups[1], "flush", NULL, cut_with_flushes, "durable");
    crash_expect(&setups[0], NULL, "lie syncs", cut_with_flushes, "durable");
}

static void
a_missing_fua_is_noticed(void **state)
{
    struct crash_round round = cut_with_fuas;

    (void)state;
    /* By the driver, by the disk, and by whoever asks for it. */
    crash_expect(&setups[6], "fua", NULL, round, "durable");
    crash_expect(&setups[3], NULL, "lie writes", round, "durable");
    round.drop_fua = true;
    crash_expect(&setups[2], NULL, NULL, round, "durable");
}

static void
an_ignored_error_of_fsync_is_noticed(void **state)
{
    struct crash_round round = cut_with_flushes;

    (void)state;
    round.fault = CRASH_BAD_SYNC;
    crash_expect(&setups[1], "ignore", NULL, round, "durable");
}

static void
a_size_that_is_not_synced_is_noticed(void **state)
{
    struct crash_round round = cut_with_flushes;

    (void)state;
    /* The first one alone resizes: let nobody be faster.  The size is another
     * one, or what was cut off comes back. */
    round.writers = 1;
    round.resizes = 6;
    crash_expect(&setups[1], "size", NULL, round, "durable");
}

static void
a_torn_block_is_noticed(void **state)
{
    struct crash_round round = {.flushes = 64, .fuas = 64};

    (void)state;
    crash_expect(&setups[0], NULL, "unit 512", round, "4096");
}

/* ------------------------------------------------------------ program */

static int
crash_teardown(void **state)
{
    (void)state;
    support_watch(NULL);
    crash_ring_abandon();
    return 0;
}

#define TEST(name) cmocka_unit_test_teardown(name, crash_teardown)

int
main(int argc, char **argv)
{
    const char *told = getenv("FARBLK_CRASH_ROUNDS");
    char why[256];

    if (told != NULL)
        rounds = (unsigned)strtoul(told, NULL, 10);
    if (argc > 1)
        rounds = (unsigned)strtoul(argv[1], NULL, 10);
    told = getenv("FARBLK_CRASH_SEED");
    if (told != NULL)
        seed = strtoull(told, NULL, 0);
    if (argc > 2)
        seed = strtoull(argv[2], NULL, 0);
    if (!lossy_usable(why, sizeof why)) {
        print_error("skipped: %s\n", why);
        return 77;
    }
    print_message("FARBLK_CRASH_SEED=%llu\n", (unsigned long long)seed);
    const struct CMUnitTest proofs[] = {
        TEST(a_flush_that_does_nothing_is_noticed),
        TEST(a_missing_fua_is_noticed),
        TEST(an_ignored_error_of_fsync_is_noticed),
        TEST(a_size_that_is_not_synced_is_noticed),
        TEST(a_torn_block_is_noticed),
    };
    const struct CMUnitTest tests[] = {
        TEST(nothing_promised_is_lost),
    };
    int failed = 0;
    if (PROVES)
        failed =
            cmocka_run_group_tests_name("crash, planted", proofs, NULL, NULL);
    failed += cmocka_run_group_tests_name("crash", tests, NULL, NULL);
    return failed != 0;
}
