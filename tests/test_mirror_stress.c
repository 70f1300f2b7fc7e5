/* SPDX-License-Identifier: ISC */
/*
 * Many threads change a mirror while it is copied, anywhere and over each
 * other. When it is complete and they have ended, both devices are equal,
 * octet by octet, and each thread's own sectors are what it wrote last.
 *
 * Seeds are fixed and printed on failure; FARBLK_STRESS_SEED gives another.
 */
#include "tests/mirrors.h"

#include "farblk/server.h"

#include <poll.h>
#include <stdio.h>

#define SIZE (4096 * KIB)
#define SECTORS (SIZE / 4096) /* of the largest sector that is used */
#define THREADS 4
#define LONGEST 40u

struct writer {
    struct farblk *dev;
    struct trouble *trouble;
    atomic_bool *stop;
    pthread_t thread;
    uint64_t seed;
    unsigned index, ratio; /* sectors of the mirror in 4096 octets */
    bool failures; /* requests may fail */
    uint64_t last[SECTORS / THREADS]; /* of its own, one in THREADS */
};

/* A sector of 4096 that begins with its seed. */
static void
stress_fill(uint8_t *to, uint64_t seed)
{
    pattern_fill(to, 4096, seed);
    memcpy(to, &seed, sizeof seed);
}

/* A write of one sector of its own; a failed one is repeated until it is there,
 * so that it is known what is. */
static int
stress_own(struct writer *writer, struct rng *rng)
{
    static _Thread_local uint8_t buffer[4096];
    uint64_t slot = rng_below(rng, SECTORS / THREADS);
    uint64_t seed = rng_next(rng) | 1;
    uint64_t sector = (slot * THREADS + writer->index) * writer->ratio;
    int status;

    stress_fill(buffer, seed);
    do
        status = support_write(writer->dev, sector, buffer, sizeof buffer,
                               rng_below(rng, 8) == 0 ? FARBLK_FUA : 0);
    while (status != 0 && writer->failures && !writer->trouble->noted);
    writer->last[slot] = seed;
    return status;
}

static void *
stress_writer(void *arg)
{
    struct writer *writer = arg;
    struct rng rng = {.state = writer->seed};

    for (unsigned i = 0; !*writer->stop && !writer->trouble->noted; i++)
        if (stress_own(writer, &rng) != 0)
            trouble_note(writer->trouble, "seed %llu, step %u: %s",
                         (unsigned long long)writer->seed, i,
                         farblk_last_text());
    return NULL;
}

/* Changes of all kinds, anywhere. */
static void *
stress_clash(void *arg)
{
    struct writer *writer = arg;
    struct rng rng = {.state = writer->seed};
    uint8_t *buffer = malloc(LONGEST * 4096);
    unsigned ratio = writer->ratio;

    for (unsigned i = 0; !*writer->stop && !writer->trouble->noted; i++) {
        uint64_t count = 1 + rng_below(&rng, LONGEST * ratio);
        uint64_t start = rng_below(&rng, SECTORS * ratio - count);
        int status;

        pattern_fill(buffer, 4096 / ratio * count, rng_next(&rng));
        switch (rng_below(&rng, 5)) {
        case 0:
            status = farblk_discard(writer->dev, start, count, 0);
            break;
        case 1:
            status =
                farblk_write_zeroes(writer->dev, start, count,
                                    rng_below(&rng, 2) ? FARBLK_NO_UNMAP : 0);
            break;
        case 2:
            status =
                support_read(writer->dev, start, buffer, 4096 / ratio * count);
            break;
        default:
            status = support_write(writer->dev, start, buffer,
                                   4096 / ratio * count, 0);
        }
        if (status != 0 && !writer->failures)
            trouble_note(writer->trouble, "seed %llu, step %u: %s",
                         (unsigned long long)writer->seed, i,
                         farblk_last_text());
    }
    free(buffer);
    return NULL;
}

static uint64_t
stress_seed(uint64_t fallback)
{
    const char *text = getenv("FARBLK_STRESS_SEED");

    return text != NULL ? strtoull(text, NULL, 10) : fallback;
}

static enum farblk_mirror_state
stress_state(struct farblk *dev)
{
    struct farblk_mirror_status status;

    ok(farblk_mirror_status(dev, &status, sizeof status));
    return (enum farblk_mirror_state)status.state;
}

/* Run the threads while `dev` is copied, and a while longer; `meanwhile` is
 * called again and again. */
static void
stress_run(struct farblk *dev, bool own, bool failures, uint64_t seed,
           struct writer *writers, void (*meanwhile)(unsigned round))
{
    struct trouble trouble = {0};
    atomic_bool stop = false;

    for (unsigned i = 0; i < THREADS; i++) {
        memset(&writers[i], 0, sizeof writers[i]);
        writers[i].dev = dev;
        writers[i].trouble = &trouble;
        writers[i].stop = &stop;
        writers[i].seed = seed * 100 + i;
        writers[i].index = i;
        writers[i].ratio = 4096 / support_info(dev).sector_size;
        writers[i].failures = failures;
        assert_int_equal(pthread_create(&writers[i].thread, NULL,
                                        own ? stress_writer : stress_clash,
                                        &writers[i]),
                         0);
    }
    for (unsigned i = 0; i < 40; i++) {
        if (meanwhile != NULL)
            meanwhile(i);
        poll(NULL, 0, 1);
    }
    stop = true;
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(writers[i].thread, NULL);
    trouble_assert_none(&trouble);
    for (int i = 0; stress_state(dev) != FARBLK_MIRROR_COMPLETE; i++) {
        assert_int_not_equal(stress_state(dev), FARBLK_MIRROR_FAILED);
        assert_true(i < SUPPORT_PATIENCE_MS);
        poll(NULL, 0, 1);
    }
}

/* Each thread's sectors are the last that it wrote. */
static void
stress_check_own(const uint8_t *data, const struct writer *writers)
{
    static uint8_t expected[4096];

    for (unsigned i = 0; i < SECTORS; i++) {
        uint64_t seed = writers[i % THREADS].last[i / THREADS];

        if (seed == 0)
            continue;
        stress_fill(expected, seed);
        assert_memory_equal(data + (size_t)i * 4096, expected, 4096);
    }
}

static uint8_t *
stress_content(const char *uri)
{
    struct farblk *dev;
    uint8_t *data = malloc(SIZE);

    assert_non_null(data);
    ok(farblk_open(uri, NULL, &dev));
    ok(support_read(dev, 0, data, SIZE));
    ok(farblk_close(dev));
    return data;
}

/* A pair of URIs, of which the first is filled before. */
static void
stress_pair(const char *primary, const char *secondary, const char *more,
            uint64_t seed)
{
    static struct writer writers[THREADS];
    char uri[1400], encoded[2][600];
    const char *const plain[] = {primary, secondary};
    uint8_t *data = malloc(SIZE);
    struct farblk *dev;

    for (unsigned i = 0; i < 2; i++) {
        char *to = encoded[i];

        for (const char *from = plain[i]; *from != '\0'; from++)
            to += sprintf(to, strchr("?&%#,", *from) != NULL ? "%%%02X" : "%c",
                          *from);
    }
    snprintf(uri, sizeof uri, "mirror:?primary=%s&secondary=%s%s", encoded[0],
             encoded[1], more);
    assert_non_null(data);
    for (unsigned own = 0; own < 2; own++) {
        ok(farblk_open(primary, NULL, &dev));
        pattern_fill(data, SIZE, seed + own);
        ok(support_write(dev, 0, data, SIZE / 2, 0));
        ok(farblk_close(dev));
        ok(farblk_open(uri, NULL, &dev));
        stress_run(dev, own != 0, false, seed, writers, NULL);
        ok(farblk_close(dev));
        uint8_t *one = stress_content(primary),
                *two = stress_content(secondary);
        assert_memory_equal(one, two, SIZE);
        if (own != 0)
            stress_check_own(one, writers);
        free(one);
        free(two);
    }
    free(data);
}

static void
ramdisk_to_ramdisk(void **state)
{
    (void)state;
    stress_pair("ramdisk:sa?size=4M", "ramdisk:sb?size=4M", "&rate=100M",
                stress_seed(1));
}

static void
ramdisk_to_ramdisk_of_larger_sectors(void **state)
{
    (void)state;
    stress_pair("ramdisk:sc?size=4M", "ramdisk:sd?size=4M&sector=4096",
                "&rate=100M", stress_seed(2));
}

static void
file_to_ramdisk_and_back(void **state)
{
    char file[400];
    const char *path = support_path("disk");

    (void)state;
    support_make_file(path, SIZE);
    snprintf(file, sizeof file, "file:%s?sector=4096", path);
    stress_pair(file, "ramdisk:se?size=4M", "", stress_seed(3));
    stress_pair("ramdisk:se?size=4M", file, "&rate=200M", stress_seed(4));
}

static void
remote_to_remote(void **state)
{
    struct farblk_server *server;
    char url[128], one[256], two[256];
    const char *address = support_name("inproc");

    (void)state;
    ok(farblk_server_create(NULL, &server));
    ok(farblk_server_export(server, "a", "ramdisk:sf?size=4M"));
    ok(farblk_server_export(server, "b", "ramdisk:sg?size=4M"));
    snprintf(url, sizeof url, "inproc://%s", address);
    ok(farblk_server_listen(server, url));
    snprintf(one, sizeof one, "farblk+inproc:///a?address=%s", address);
    snprintf(two, sizeof two, "farblk+inproc:///b?address=%s", address);
    stress_pair(one, two, "&rate=100M", stress_seed(5));
    ok(farblk_server_stop(server, SUPPORT_PATIENCE_MS));
    farblk_server_destroy(server);
}

static struct mirrors *shaken;

/* One of both fails a change now and then, with or without effect.  The copying
 * changes nothing on primary, so it does not meet those. */
static void
shake(unsigned round)
{
    puppet_fail(shaken->primary,
                (struct puppet_rule){.ops = PUPPET_OP(WRITE)
                                            | PUPPET_OP(DISCARD)
                                            | PUPPET_OP(WRITE_ZEROES),
                                     .end = SIZE,
                                     .times = 1 + round % 3,
                                     .late = round % 2,
                                     .status = FARBLK_IO,
                                     .effect = round % 2 ? FARBLK_EFFECT_UNKNOWN
                                                         : FARBLK_EFFECT_NONE});
}

static void
failures_in_between_leave_both_equal(void **state)
{
    static struct writer writers[THREADS];

    (void)state;
    for (unsigned own = 0; own < 2; own++) {
        shaken = mirrors_create(SIZE, own ? 512 : 4096, 512);
        mirrors_open(shaken, false);
        stress_run(shaken->dev, own != 0, true, stress_seed(6), writers, shake);
        mirrors_expect_equal(shaken);
        if (own != 0)
            stress_check_own(shaken->secondary->data, writers);
        assert_int_equal(mirrors_told(shaken, FARBLK_MIRROR_COMPLETE), 1);
        mirrors_destroy(shaken);
    }
}

/* Opened and closed in the middle, over and over. */
static void
mirrors_that_end_in_the_middle_leave_whole_devices(void **state)
{
    struct farblk *dev, *one;
    uint8_t *data = malloc(SIZE), *now;

    (void)state;
    assert_non_null(data);
    pattern_fill(data, SIZE, 9);
    ok(farblk_open("ramdisk:sh?size=4M", NULL, &one));
    ok(support_write(one, 0, data, SIZE, 0));
    for (unsigned i = 0; i < 100; i++) {
        ok(farblk_open("mirror:?primary=ramdisk:sh&"
                       "secondary=ramdisk:si%3Fsize=4M",
                       NULL, &dev));
        ok(support_write(dev, i * 64, data, 64 * 512, 0));
        memcpy(data + (size_t)i * 64 * 512, data, 64 * 512);
        if (i % 2)
            ok(farblk_disconnect(dev));
        ok(farblk_close(dev));
    }
    now = stress_content("ramdisk:sh");
    assert_memory_equal(now, data, SIZE);
    free(now);
    free(data);
    ok(farblk_close(one));
}

static int
setup(void **state)
{
    (void)state;
    support_watch("mirror_stress");
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    support_watch(NULL);
    return 0;
}

#define ONE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(ramdisk_to_ramdisk),
        ONE(ramdisk_to_ramdisk_of_larger_sectors),
        ONE(file_to_ramdisk_and_back),
        ONE(remote_to_remote),
        ONE(failures_in_between_leave_both_equal),
        ONE(mirrors_that_end_in_the_middle_leave_whole_devices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
