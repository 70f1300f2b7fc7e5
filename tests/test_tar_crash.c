/* SPDX-License-Identifier: ISC */
/*
 * The power is cut while an archive is changed: after every prefix of the
 * writes, and with any of what was not stable yet done or not, the archive is
 * the one before or the one after, whoever reads it.
 */
#include "tests/recorder.h"
#include "tests/support.h"
#include "tests/tar_judge.h"

#include <stdio.h>

#define SIZE (512u * 1024u)
#define ROUNDS 18u
#define SUBSETS 4u
#define GNU_TAR_EVERY 150u /* states; it takes its time */

struct trial {
    struct rng rng;
    struct farblk *dev;
    struct farblk_tar *tar;
    struct judge old, new;
    uint8_t *before, *state;
    unsigned states, cuts, kept_old, kept_new;
    unsigned names;
};

static uint32_t
choose_old(void *arg)
{
    (void)arg;
    return 0;
}

static uint32_t
choose_new(void *arg)
{
    (void)arg;
    return 1;
}

static uint32_t
choose_any(void *arg)
{
    return (uint32_t)(rng_next(arg) >> 20);
}

/* ------------------------------------------------------------ judging */

static const char *
judge_state_by_us(const struct judge *judge)
{
    struct farblk_tar_options options = {.size = sizeof options,
                                         .read_only = true};
    struct farblk *dev = recorder_open();
    struct farblk_tar *tar;
    static char text[FARBLK_TEXT_MAX];
    const char *why = NULL;
    if (farblk_tar_open(dev, &options, &tar) < 0) {
        snprintf(text, sizeof text, "%s", farblk_last_text());
        why = text;
    } else {
        why = judge_by_us(judge, tar);
        farblk_tar_close(tar);
    }
    ok(farblk_close(dev));
    return why;
}

/* It can be written to again, and nothing of what there is suffers. */
static void
go_on_from_here(const struct judge *judge)
{
    struct judge after = {.count = 0};
    struct farblk *dev = recorder_open();
    struct farblk_tar *tar;
    judge_copy(&after, judge);
    judge_set(&after, "/after the crash", "here", 4);
    ok(farblk_tar_open(dev, NULL, &tar));
    ok(farblk_tar_set(tar, "/after the crash", "here", 4));
    farblk_tar_close(tar);
    ok(farblk_close(dev));
    assert_null(judge_state_by_us(&after));
    assert_null(judge_by_libarchive(&after, recorder.image, SIZE));
    judge_clear(&after);
}

static void
judge_state(struct trial *trial, bool must_be_new)
{
    uint8_t *image = recorder.image;
    recorder.image = trial->state;
    const char *not_new = judge_state_by_us(&trial->new);
    const struct judge *is = &trial->new;
    if (not_new != NULL) {
        char text[FARBLK_TEXT_MAX];
        snprintf(text, sizeof text, "%s", not_new);
        is = &trial->old;
        const char *not_old = judge_state_by_us(&trial->old);
        if (must_be_new || not_old != NULL)
            fail_msg("neither new (%s) nor %s (%s)", text,
                     must_be_new ? "allowed to be old" : "old",
                     not_old != NULL ? not_old : "it is");
    }
    if (is == &trial->new)
        trial->kept_new++;
    else
        trial->kept_old++;
    const char *why = judge_by_libarchive(is, trial->state, SIZE);
    if (why == NULL && trial->states % GNU_TAR_EVERY == 0)
        why = judge_by_gnu_tar(is, trial->state, SIZE);
    if (why != NULL)
        fail_msg("for us it is %s, but %s", is == &trial->new ? "new" : "old",
                 why);
    if (trial->states % 16 == 0) {
        /* Its own records are none of the trial's. */
        struct recorder kept = recorder;
        recorder.records = NULL;
        recorder.count = recorder.room = 0;
        go_on_from_here(is);
        recorder_forget();
        free(recorder.records);
        recorder = kept;
    }
    trial->states++;
    recorder.image = image;
}

/* Before a change: what there is is stable. */
static void
begin(struct trial *trial)
{
    judge_copy(&trial->old, &trial->new);
    memcpy(trial->before, recorder.image, SIZE);
    recorder_forget();
}

/* After it: cut it anywhere. */
static void
cut(struct trial *trial)
{
    for (size_t at = 0; at <= recorder.count; at++)
        for (unsigned i = 0; i < SUBSETS + 2; i++) {
            memcpy(trial->state, trial->before, SIZE);
            recorder_cut(trial->state, at,
                         i == 0   ? choose_old
                         : i == 1 ? choose_new
                                  : choose_any,
                         &trial->rng);
            judge_state(trial, at == recorder.count);
        }
    trial->cuts += (unsigned)recorder.count + 1;
}

/* ------------------------------------------------------------ changes */

/* Around blocks and sectors, or any. */
static size_t
some_size(struct trial *trial)
{
    static const size_t sizes[] = {0, 1, 511, 512, 513, 3584, 4096, 8192};
    if (rng_below(&trial->rng, 2) == 0)
        return sizes[rng_below(&trial->rng, sizeof sizes / sizeof sizes[0])];
    return (size_t)rng_below(&trial->rng, 30000);
}

/* A new key; a long one takes an extended header. */
static const char *
some_key(struct trial *trial)
{
    static char key[512];
    unsigned n = trial->names++;
    switch (rng_below(&trial->rng, 3)) {
    case 0:
        snprintf(key, sizeof key, "/k%05u", n);
        break;
    case 1:
        snprintf(key, sizeof key, "/d%u/sub/k%05u", n % 3, n);
        break;
    default:
        snprintf(key, sizeof key, "/%0200u/%0*u", n % 2,
                 (int)rng_below(&trial->rng, 180) + 20, n);
    }
    return key;
}

static void
set_some(struct trial *trial)
{
    static uint8_t data[40000];
    char key[512];
    size_t size = some_size(trial);
    snprintf(key, sizeof key, "%s", some_key(trial));
    if (rng_below(&trial->rng, 3) == 0)
        /* Blocks that would pass for headers, were they taken for such. */
        memcpy(data, recorder.image, size);
    else
        pattern_fill(data, size, rng_next(&trial->rng));
    begin(trial);
    ok(farblk_tar_set(trial->tar, key, data, size));
    judge_set(&trial->new, key, data, size);
}

static void
allocate_some(struct trial *trial)
{
    static const uint8_t zeros[40000];
    size_t size = some_size(trial);
    const char *key = some_key(trial);
    begin(trial);
    ok(farblk_tar_allocate(trial->tar, key, size, NULL));
    judge_set(&trial->new, key, zeros, size);
}

static void
remove_last(struct trial *trial)
{
    const char *key = trial->new.values[trial->new.count - 1].key;
    begin(trial);
    ok(farblk_tar_remove(trial->tar, key));
    judge_remove(&trial->new, key);
}

/* Exchange the last two octets of a key, so that it fits wherever it stands. */
static void
rename_some(struct trial *trial)
{
    size_t n = (size_t)rng_below(&trial->rng, trial->new.count);
    char from[512], to[512];
    snprintf(from, sizeof from, "%s", trial->new.values[n].key);
    snprintf(to, sizeof to, "%s", from);
    to[strlen(to) - 1] = (char)('a' + rng_below(&trial->rng, 26));
    to[strlen(to) - 2] = 'R';
    begin(trial);
    if (farblk_tar_exists(trial->tar, to) == 0) {
        ok(farblk_tar_rename(trial->tar, from, to));
        judge_rename(&trial->new, from, to);
    }
}

static void
change_something(struct trial *trial)
{
    uint64_t what = rng_below(&trial->rng, 10);
    if (trial->new.count == 0 || what < 4)
        set_some(trial);
    else if (what < 5)
        allocate_some(trial);
    else if (what < 7)
        rename_some(trial);
    else
        remove_last(trial);
}

/* ------------------------------------------------------------ tests */

static void
trial_begin(struct trial *trial, uint32_t sector_size, bool fua, bool zeroes)
{
    memset(trial, 0, sizeof *trial);
    trial->rng.state = 4711 + sector_size + fua;
    recorder_reset();
    recorder.sector_size = sector_size;
    recorder.size = SIZE;
    recorder.fua = fua;
    recorder.zeroes = zeroes;
    trial->before = malloc(SIZE);
    trial->state = malloc(SIZE);
    assert_true(trial->before != NULL && trial->state != NULL);
    trial->dev = recorder_open();
}

static void
trial_end(struct trial *trial)
{
    farblk_tar_close(trial->tar);
    ok(farblk_close(trial->dev));
    judge_clear(&trial->old);
    judge_clear(&trial->new);
    free(trial->before);
    free(trial->state);
    print_message("sectors of %u: %u states after %u cuts, %u old, %u new\n",
                  recorder.sector_size, trial->states, trial->cuts,
                  trial->kept_old, trial->kept_new);
    recorder_reset();
}

static void
try_all(uint32_t sector_size, bool fua, bool zeroes)
{
    struct trial trial;
    trial_begin(&trial, sector_size, fua, zeroes);
    ok(farblk_tar_create(trial.dev, 0));
    ok(farblk_tar_open(trial.dev, NULL, &trial.tar));
    for (unsigned i = 0; i < ROUNDS; i++) {
        support_watch("a trial of cuts");
        change_something(&trial);
        cut(&trial);
    }
    assert_true(trial.kept_old > 0 && trial.kept_new > 0);
    trial_end(&trial);
}

static void
power_cut_leaves_old_or_new_with_sectors_of_512(void **state)
{
    (void)state;
    try_all(512, true, true);
    try_all(512, false, false);
}

static void
power_cut_leaves_old_or_new_with_sectors_of_4096(void **state)
{
    (void)state;
    try_all(4096, true, true);
    try_all(4096, false, false);
}

static void
power_cut_leaves_old_or_new_with_sectors_that_tear(void **state)
{
    (void)state;
    try_all(16384, true, false);
    try_all(65536, false, true);
}

static void
replacing_an_archive_leaves_it_or_an_empty_one(void **state)
{
    static const uint32_t sizes[] = {512, 1024, 4096, 65536};
    (void)state;
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct trial trial;
        trial_begin(&trial, sizes[i], true, true);
        ok(farblk_tar_open(trial.dev, NULL, &trial.tar));
        set_some(&trial);
        set_some(&trial);
        farblk_tar_close(trial.tar);
        begin(&trial);
        fails_with(FARBLK_EXISTS, farblk_tar_create(trial.dev, 0));
        assert_int_equal(recorder.count, 0);
        ok(farblk_tar_create(trial.dev, FARBLK_TAR_REPLACE));
        judge_clear(&trial.new);
        cut(&trial);
        ok(farblk_tar_open(trial.dev, NULL, &trial.tar));
        trial_end(&trial);
    }
}

/* What differs in this block is of the patch. */
static void
expect_patched(const struct trial *trial, size_t block, size_t first,
               const uint8_t *patch, size_t length)
{
    for (size_t o = block; o < block + 512; o++)
        if (trial->state[o] != trial->before[o]) {
            assert_in_range(o, first, first + length - 1);
            assert_int_equal(trial->state[o], patch[o - first]);
        }
}

/* Only octets of the range are ever anything else than before, and each of them
 * is old or new. */
static void
partial_set_changes_nothing_but_its_range(void **state)
{
    static uint8_t data[50000], patch[30000];
    static const uint32_t sizes[] = {512, 4096, 65536};
    (void)state;
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct trial trial;
        trial_begin(&trial, sizes[i], true, true);
        ok(farblk_tar_open(trial.dev, NULL, &trial.tar));
        for (unsigned k = 0; k < 3; k++) {
            const char *keys[] = {"/one", "/two", "/three"};
            pattern_fill(data, sizeof data, k);
            ok(farblk_tar_set(trial.tar, keys[k], data, sizeof data));
            judge_set(&trial.new, keys[k], data, sizeof data);
        }
        pattern_fill(patch, sizeof patch, 99);
        begin(&trial);
        ok(farblk_tar_set_partial(trial.tar, "/two", 777, patch, sizeof patch));
        memcpy(judge_find(&trial.new, "/two")->data + 777, patch, sizeof patch);
        ok(farblk_flush(trial.dev));
        uint64_t end = judge_find(&trial.new, "/two")->size;
        struct farblk_tar_extent where;
        assert_int_equal(
            farblk_tar_extents(trial.tar, "/two", 0, end, &where, 1), 1);
        size_t first = (size_t)where.device_offset + 777;
        for (size_t at = 0; at <= recorder.count; at++)
            for (unsigned n = 0; n < 4; n++) {
                memcpy(trial.state, trial.before, SIZE);
                recorder_cut(trial.state, at, choose_any, &trial.rng);
                for (size_t o = 0; o < SIZE; o += 512)
                    if (memcmp(trial.state + o, trial.before + o, 512) != 0)
                        expect_patched(&trial, o, first, patch, sizeof patch);
            }
        assert_null(judge_by_us(&trial.new, trial.tar));
        trial_end(&trial);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(power_cut_leaves_old_or_new_with_sectors_of_512),
        cmocka_unit_test(power_cut_leaves_old_or_new_with_sectors_of_4096),
        cmocka_unit_test(power_cut_leaves_old_or_new_with_sectors_that_tear),
        cmocka_unit_test(replacing_an_archive_leaves_it_or_an_empty_one),
        cmocka_unit_test(partial_set_changes_nothing_but_its_range),
    };
    if (!judge_has_libarchive())
        print_message("built without libarchive: it judges nothing\n");
    if (!judge_has_gnu_tar())
        print_message("no GNU tar: it judges nothing\n");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
