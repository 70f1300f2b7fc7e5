/* SPDX-License-Identifier: ISC */
/*
 * Archives over time: whatever is done to one, to read it anew gives just what
 * is known of it; a device that fails at any point leaves the old or the new
 * one; readers and a writer at the same time.
 */
#include "tests/recorder.h"
#include "tests/support.h"
#include "tests/tar_build.h"
#include "tests/tar_judge.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

/* ------------------------------------------------------------ read anew */

/* All that an archive tells, as text. */
struct dump {
    char *text;
    size_t size;
    FILE *out;
    struct farblk_tar *tar;
};

static int
dump_entry(void *arg, const struct farblk_tar_entry *entry)
{
    struct dump *dump = arg;
    const struct farblk_tar_stat *stat = entry->stat;
    uint8_t digest[FARBLK_TAR_DIGEST_SIZE] = {0};
    if (entry->current && stat->kind == FARBLK_TAR_VALUE)
        ok(farblk_tar_digest(dump->tar, entry->key, digest));
    fprintf(dump->out, "%s|%s|%d|%d%c%d%d|%o|%llu|%llu|%lld.%u|%llu:%llu|%s:%s",
            entry->key, entry->link, entry->current, stat->kind,
            stat->type == 0 ? '-' : stat->type, stat->hard_link, stat->sparse,
            stat->mode, (unsigned long long)stat->size,
            (unsigned long long)stat->stored, (long long)stat->mtime,
            stat->mtime_nsec, (unsigned long long)stat->uid,
            (unsigned long long)stat->gid, stat->user, stat->group);
    fprintf(dump->out, "@%llu %02x%02x%02x%02x\n",
            (unsigned long long)stat->position, digest[0], digest[1], digest[2],
            digest[3]);
    return 0;
}

static int
dump_tree(void *arg, const struct farblk_tar_entry *entry)
{
    struct dump *dump = arg;
    fprintf(dump->out, "%s %d\n", entry->key, entry->stat->kind);
    return entry->stat->kind == FARBLK_TAR_DIRECTORY
               ? farblk_tar_list(dump->tar, entry->key, dump_tree, dump)
               : 0;
}

static char *
dump_of(struct farblk_tar *tar)
{
    struct dump dump = {.tar = tar};
    struct farblk_tar_info info = {0};
    dump.out = open_memstream(&dump.text, &dump.size);
    assert_non_null(dump.out);
    ok(farblk_tar_get_info(tar, &info, sizeof info));
    fprintf(dump.out, "%llu %llu\n", (unsigned long long)info.members,
            (unsigned long long)info.end);
    ok(farblk_tar_iterate(tar, dump_entry, &dump));
    ok(farblk_tar_list(tar, "/", dump_tree, &dump));
    assert_int_equal(fclose(dump.out), 0);
    return dump.text;
}

static void
expect_the_same_anew(struct farblk_tar *tar)
{
    struct farblk_tar_options options = {.size = sizeof options,
                                         .read_only = true};
    struct farblk_tar *anew;
    ok(farblk_tar_open(build_dev(), &options, &anew));
    char *known = dump_of(tar), *found = dump_of(anew);
    if (strcmp(known, found) != 0) {
        print_error("known:\n%sfound:\n%s", known, found);
        fail();
    }
    free(known);
    free(found);
    farblk_tar_close(anew);
}

/* Keys that often meet. */
static const char *
some_key(struct rng *rng)
{
    static const char *const parts[] = {"a",    "b",    "dir",  "twice", "way",
                                        "tree", "link", "lost", "found"};
    static char keys[2][500];
    static unsigned next;
    char *key = keys[next++ % 2];
    unsigned depth = 1 + (unsigned)rng_below(rng, 3);
    size_t used = 0;
    for (unsigned i = 0; i < depth; i++)
        used += (size_t)sprintf(key + used, "/%s", parts[rng_below(rng, 9)]);
    if (rng_below(rng, 8) == 0)
        sprintf(key + used, "/%0*d", (int)rng_below(rng, 300) + 1, 0);
    return key;
}

static void
build_link(const char *name, char type, const char *target)
{
    build_patch_text(build_header(name, type, 0), 157, target);
}

/* Nothing is as it should be. */
static void
build_mess(void)
{
    build_begin();
    build_file("a", "1");
    build_file("dir/b", "2");
    build_file("./twice", "old");
    build_header("dir/", '5', 0);
    build_file("twice", "new");
    build_file("way", "in the way");
    build_file("way/down", "deep");
    build_file("tree/one", "1");
    build_file("tree/two/three", "3");
    build_file("tree", "value");
    build_link("link", '1', "a");
    build_link("lost", '1', "found");
    build_link("symbolic", '2', "a");
    build_pax('x', "path=/long//way/./to/go", NULL);
    build_file("x", "4");
    build_extended('L', "another/long/way", 17);
    build_file("x", "5");
    build_pax('x', "GNU.sparse.size=6000", "GNU.sparse.map=5,4", NULL);
    build_file("sparse", "data");
    build_end();
}

static void
archive_read_anew_is_the_one_that_is_known(void **state)
{
    static const uint32_t sectors[] = {512, 4096};
    static uint8_t data[3000];
    unsigned good = 0, refused = 0;
    (void)state;
    for (unsigned round = 0; round < 60; round++) {
        struct rng rng = {round};
        char last[500] = "/a";
        support_watch("a round of random changes");
        build_mess();
        /* Some begin in the middle of the mess, at a header. */
        if (round % 3 == 1)
            build_pax('x', "mtime=1", NULL), build_file("one more", "1");
        struct farblk_tar *tar = build_open(sectors[round % 2], 65536);
        expect_the_same_anew(tar);
        for (unsigned i = 0; i < 60; i++) {
            int status;
            const char *key = some_key(&rng);
            if (rng_below(&rng, 3) == 0)
                key = last; /* one that is there, often */
            size_t size = (size_t)rng_below(&rng, sizeof data);
            switch (rng_below(&rng, 4)) {
            case 0:
                status = farblk_tar_set(tar, key, data, size);
                if (status == 0)
                    memmove(last, key, strlen(key) + 1);
                break;
            case 1:
                status = farblk_tar_remove(tar, key);
                break;
            case 2:
                status = farblk_tar_rename(tar, key, some_key(&rng));
                break;
            default:
                status = farblk_tar_set_partial(tar, key, 0, "x", 1);
            }
            assert_true(status == 0 || status == FARBLK_EXISTS
                        || status == FARBLK_APPEND_ONLY
                        || status == FARBLK_NOT_FOUND
                        || status == FARBLK_NOT_A_VALUE
                        || status == FARBLK_NOT_A_DIRECTORY
                        || status == FARBLK_NO_SPACE);
            good += status == 0;
            refused += status != 0;
            if (status == 0)
                expect_the_same_anew(tar);
        }
        build_close(tar);
    }
    print_message("%u changes, %u refused\n", good, refused);
    assert_true(good > 500 && refused > 500);
}

/* ------------------------------------------------------------ failures */

static int
change_it(struct farblk_tar *tar, unsigned what)
{
    static uint8_t data[40000];
    char key[300];
    snprintf(key, sizeof key, "long/%0250d", 1);
    switch (what) {
    case 0:
        return farblk_tar_set(tar, "new", data, sizeof data);
    case 1:
        return farblk_tar_set(tar, key, data, 700);
    case 2:
        return farblk_tar_allocate(tar, "new", sizeof data, NULL);
    case 3:
        return farblk_tar_remove(tar, "last");
    default:
        return farblk_tar_rename(tar, "first", "renamed");
    }
}

static void
failures_leave_the_old_or_the_new_archive(void **state)
{
    unsigned failures = 0, old = 0, unknown = 0;
    (void)state;
    for (unsigned what = 0; what < 5; what++)
        for (unsigned done = 0; done < 2; done++)
            for (unsigned fail_in = 1;; fail_in++) {
                build_begin();
                build_file("first", "1");
                build_file("last", "2");
                build_end();
                struct farblk_tar *tar = build_open(4096, 131072), *anew;
                char *before = dump_of(tar);
                recorder.fail_in = fail_in;
                recorder.fail_done = done != 0;
                int status = change_it(tar, what);
                enum farblk_effect effect = farblk_last_effect();
                bool failed = recorder.fail_in == 0;
                recorder.fail_in = 0;
                if (status == 0) {
                    assert_false(failed);
                    free(before);
                    build_close(tar);
                    break;
                }
                assert_int_equal(status, FARBLK_IO);
                failures++;
                /* A failed flush is for good; a handle of its own. */
                struct farblk *dev = recorder_open();
                ok(farblk_tar_open(dev, NULL, &anew));
                char *after = dump_of(anew);
                farblk_tar_close(anew);
                ok(farblk_close(dev));
                switch (effect) {
                case FARBLK_EFFECT_NONE:
                    assert_string_equal(before, after);
                    free(after);
                    after = dump_of(tar);
                    assert_string_equal(before, after);
                    old++;
                    break;
                case FARBLK_EFFECT_UNKNOWN:
                    /* Nothing more until it is opened anew. */
                    fails_with(FARBLK_IO, farblk_tar_set(tar, "x", "x", 1));
                    text_has("anew");
                    build_expect(tar, "last", "2");
                    unknown++;
                    break;
                default: /* removed, but for its second block */
                    assert_int_equal(what, 3);
                    assert_string_not_equal(before, after);
                    assert_int_equal(farblk_tar_exists(tar, "last"), 0);
                }
                free(before);
                free(after);
                build_close(tar);
            }
    print_message("%u failures: %u left it as it was, of %u nobody knows\n",
                  failures, old, unknown);
    assert_true(old > 10 && unknown >= 10);
}

/* ------------------------------------------------------------ threads */

struct reading {
    struct farblk_tar *tar;
    struct trouble *trouble;
    atomic_bool *stop;
    unsigned number;
    unsigned reads;
};

static int
count_entry(void *arg, const struct farblk_tar_entry *entry)
{
    (void)entry;
    ++*(unsigned *)arg;
    return 0;
}

/* The value of key N is N octets of N % 256. */
static void *
read_on(void *arg)
{
    struct reading *reading = arg;
    struct rng rng = {reading->number};
    while (!atomic_load(reading->stop)) {
        char key[40];
        void *value;
        uint64_t size;
        unsigned n = (unsigned)rng_below(&rng, 60), seen = 0;
        struct farblk_tar_info info;
        snprintf(key, sizeof key, "/values/%u", n);
        int status = farblk_tar_get(reading->tar, key, 1 << 20, &value, &size);
        if (status == 0) {
            if (size != n * 100)
                trouble_note(reading->trouble, "%s has %llu octets", key,
                             (unsigned long long)size);
            for (uint64_t i = 0; i < size; i++)
                if (((uint8_t *)value)[i] != n) {
                    trouble_note(reading->trouble, "%s: octet %llu is wrong",
                                 key, (unsigned long long)i);
                    break;
                }
            free(value);
            reading->reads++;
        } else if (status != FARBLK_NOT_FOUND) {
            trouble_note(reading->trouble, "%s", farblk_last_text());
        }
        if (n % 8 == 0
            && (farblk_tar_get_info(reading->tar, &info, sizeof info) != 0
                || farblk_tar_iterate(reading->tar, count_entry, &seen) != 0
                || farblk_tar_list(reading->tar, "/", count_entry, &seen) != 0))
            trouble_note(reading->trouble, "%s", farblk_last_text());
    }
    return NULL;
}

static void
readers_and_a_writer_work_at_the_same_time(void **state)
{
    enum { READERS = 3 };
    struct reading readings[READERS];
    pthread_t threads[READERS];
    struct trouble trouble = {0};
    atomic_bool stop = false;
    uint8_t data[6000];
    struct rng rng = {1};
    char key[40];
    unsigned count = 0, stack[60];
    bool there[60] = {false};
    (void)state;
    build_begin();
    struct farblk_tar *tar = build_open(4096, 1 << 20);
    ok(farblk_tar_set(tar, "keep", "x", 1));
    for (unsigned i = 0; i < READERS; i++) {
        readings[i] = (struct reading){tar, &trouble, &stop, i, 0};
        assert_int_equal(
            pthread_create(&threads[i], NULL, read_on, &readings[i]), 0);
    }
    for (unsigned i = 0; i < 600; i++) {
        support_watch("a writer among readers");
        unsigned n = (unsigned)rng_below(&rng, 60);
        if (count > 0 && (count == 40 || rng_below(&rng, 3) == 0)) {
            snprintf(key, sizeof key, "/values/%u", stack[--count]);
            there[stack[count]] = false;
            ok(farblk_tar_remove(tar, key));
        } else if (!there[n]) {
            snprintf(key, sizeof key, "/values/%u", n);
            memset(data, (int)n, sizeof data);
            ok(farblk_tar_set(tar, key, data, n * 100));
            ok(farblk_tar_set_partial(tar, key, 0, data, n * 100));
            there[n] = true;
            stack[count++] = n;
        }
        if (i % 10 == 0)
            ok(farblk_tar_rename(tar, i % 20 == 0 ? "keep" : "kept/here",
                                 i % 20 == 0 ? "kept/here" : "keep"));
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    trouble_assert_none(&trouble);
    build_close(tar);
}

/* Callbacks may use the archive as they like. */
static int
change_within(void *arg, const struct farblk_tar_entry *entry)
{
    struct farblk_tar *tar = arg;
    char key[100];
    build_expect(tar, entry->key, "x");
    snprintf(key, sizeof key, "/r%s", entry->key);
    return farblk_tar_rename(tar, entry->key, key);
}

static void
callbacks_may_change_the_archive(void **state)
{
    char key[20];
    (void)state;
    build_begin();
    struct farblk_tar *tar = build_open(512, 1 << 20);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "/d/%u", i);
        ok(farblk_tar_set(tar, key, "x", 1));
    }
    /* The last one leaves, and the directory with it. */
    ok(farblk_tar_list(tar, "d", change_within, tar));
    assert_int_equal(farblk_tar_exists(tar, "d"), 0);
    unsigned count = 0;
    ok(farblk_tar_list(tar, "r/d", count_entry, &count));
    assert_int_equal(count, 100);
    build_close(tar);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(archive_read_anew_is_the_one_that_is_known),
        cmocka_unit_test(failures_leave_the_old_or_the_new_archive),
        cmocka_unit_test(readers_and_a_writer_work_at_the_same_time),
        cmocka_unit_test(callbacks_may_change_the_archive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
