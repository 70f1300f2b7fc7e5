/* SPDX-License-Identifier: ISC */
/*
 * Connections that are cut, at each octet and at random, between a client and a
 * real server: everything goes on, every write is executed exactly once, and
 * every read tells the truth.
 *
 * FARBLK_CUT_ALL=1 cuts at each octet instead of at every seventh;
 * FARBLK_CUT_ROUNDS=N does so many rounds with threads, FARBLK_CUT_SEED=N begins
 * with other numbers.
 */
#include "tests/cable.h"
#include "tests/tally.h"

#include "server/shm.h"

#include <stdio.h>
#include <time.h>

#define THREADS 4u
#define EACH (TALLY_SECTORS / THREADS)
#define DEPTH 8u

/* The last one with shared memory. */
static const char *const urls[] = {"abstract://", "tcp://127.0.0.1:0",
                                   "abstract://"};
enum { SHARED = 2 };
#define CUT_EACH 50u /* completions of its first writer: nothing else goes by */

static uint64_t
number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 0) : otherwise;
}

static void
cut_start(struct tally *tally, struct cable *cable, unsigned transport)
{
    char url[200];
    snprintf(url, sizeof url, "%s%s", urls[transport],
             transport != 1 ? support_name("farblk-tally") : "");
    tally_start(tally, url, NULL);
    cable_start(cable, tally->url);
    if (transport != SHARED)
        return;
    /* Descriptors do not go through a cable: the side socket is next to it. */
    snprintf(url, sizeof url, "abstract://%s", cable->name);
    shm_listen(tally->server, url);
}

static void
cut_stop(struct tally *tally, struct cable *cable)
{
    cable_stop(cable);
    tally_stop(tally);
}

/* ------------------------------------------------------------ each octet */

/* One of each, with new data. */
static void
script(struct farblk *dev, uint32_t tag)
{
    uint8_t sector[TALLY_SECTOR];
    uint64_t at = tag % TALLY_SECTORS;
    tally_fill(sector, tag);
    ok(support_write(dev, at, sector, sizeof sector, 0));
    memset(sector, 0, sizeof sector);
    ok(support_read(dev, at, sector, sizeof sector));
    assert_int_equal(tally_tag(sector), tag);
    ok(farblk_flush(dev));
    assert_int_equal(tally_count(tag), 1);
}

static unsigned
cuts_of(struct cable *cable)
{
    pthread_mutex_lock(&cable->mutex);
    unsigned cuts = cable->cuts;
    pthread_mutex_unlock(&cable->mutex);
    return cuts;
}

static void
cut_each_octet(unsigned transport)
{
    struct tally tally = {0};
    struct cable cable = {0};
    struct farblk *dev;
    const uint64_t step = number_of("FARBLK_CUT_ALL", 0) != 0 ? 1 : 7;
    uint32_t tag = 0;
    cut_start(&tally, &cable, transport);
    ok(farblk_open(cable_uri(&cable, "disk", "reconnect=600"), NULL, &dev));
    for (unsigned direction = 0; direction < 2; direction++) {
        /* Until the whole script goes by before it is cut. */
        for (uint64_t at = 1 + number_of("FARBLK_CUT_SEED", 0) % step;;
             at += step) {
            unsigned before = cuts_of(&cable);
            cable_cut_after(&cable, direction == 0 ? at : CABLE_NEVER,
                            direction == 1 ? at : CABLE_NEVER);
            script(dev, ++tag);
            if (cuts_of(&cable) == before)
                break;
            support_watch("resume_cut");
        }
        cable_cut_after(&cable, CABLE_NEVER, CABLE_NEVER);
    }
    assert_true(tag > 2 * TALLY_SECTOR / step);
    assert_int_equal(tally_writes(), tag);
    assert_int_equal(tally_flushes(), tag);
    ok(farblk_close(dev));
    cut_stop(&tally, &cable);
}

static void
cut_at_each_octet_over_ipc(void **state)
{
    (void)state;
    cut_each_octet(0);
}

static void
cut_at_each_octet_over_tcp(void **state)
{
    (void)state;
    cut_each_octet(1);
}

/* The first connections after that are cut as well, where they greet and show
 * the secret. */
struct greeting_cuts {
    uint64_t at;
    unsigned direction, first;
};

static void
cut_greeting(void *arg, unsigned number, uint64_t *to_server,
             uint64_t *to_client)
{
    const struct greeting_cuts *cuts = arg;
    if (number == cuts->first)
        *(cuts->direction == 0 ? to_server : to_client) = cuts->at;
}

static void
cut_while_it_shows_the_secret(void **state)
{
    struct tally tally = {0};
    struct greeting_cuts cuts = {0};
    struct cable cable = {.plan = cut_greeting, .arg = &cuts};
    struct farblk *dev;
    uint32_t tag = 0;
    const uint64_t step = number_of("FARBLK_CUT_ALL", 0) != 0 ? 1 : 5;
    (void)state;
    cut_start(&tally, &cable, 0);
    ok(farblk_open(cable_uri(&cable, "disk", "reconnect=600"), NULL, &dev));
    for (unsigned direction = 0; direction < 2; direction++)
        for (uint64_t at = 1; at < 90; at += step) {
            pthread_mutex_lock(&cable.mutex);
            cuts.direction = direction;
            cuts.at = at;
            cuts.first = cable.connections + 1;
            pthread_mutex_unlock(&cable.mutex);
            cable_cut_after(&cable, 300, CABLE_NEVER); /* within the write */
            script(dev, ++tag);
            support_watch("resume_cut");
        }
    assert_int_equal(tally_writes(), tag);
    ok(farblk_close(dev));
    cut_stop(&tally, &cable);
}

/* ------------------------------------------------------------ threads */

struct writer {
    pthread_t thread;
    struct trouble *trouble;
    struct farblk *dev;
    struct cable *cable; /* to be cut now and then, or NULL */
    unsigned shared; /* how often its device shared memory when it was cut */
    struct rng rng;
    uint64_t base; /* its first sector */
    uint32_t first_tag, count;
    uint32_t expected[EACH]; /* tags */
    uint8_t data[DEPTH][TALLY_SECTOR];
    struct iovec iov[DEPTH];
    uint32_t sector[DEPTH], tag[DEPTH]; /* tag 0: a read */
    bool busy[EACH]; /* a request is under way there */
};

/* Submit something for a sector that nothing is under way for. */
static void
writer_submit(struct writer *writer, struct farblk_queue *queue, unsigned slot,
              uint32_t tag)
{
    uint32_t sector;
    do
        sector = (uint32_t)rng_below(&writer->rng, EACH);
    while (writer->busy[sector]);
    bool writes = rng_below(&writer->rng, 2) != 0;
    struct farblk_request request = {
        .size = sizeof request,
        .op = writes ? FARBLK_OP_WRITE : FARBLK_OP_READ,
        .flags = writes && tag % 8 == 0 ? FARBLK_FUA : 0,
        .dev = writer->dev,
        .sector = writer->base + sector,
        .iov = &writer->iov[slot],
        .iovcnt = 1,
        .user = (void *)(uintptr_t)slot,
    };
    writer->busy[sector] = true;
    writer->sector[slot] = sector;
    writer->tag[slot] = writes ? tag : 0;
    writer->iov[slot] = (struct iovec){writer->data[slot], TALLY_SECTOR};
    if (writes)
        tally_fill(writer->data[slot], tag);
    else
        memset(writer->data[slot], 0xee, TALLY_SECTOR);
    if (farblk_submit(queue, &request) != 0)
        trouble_note(writer->trouble, "submit: %s", farblk_last_text());
}

static void
writer_take(struct writer *writer, const struct farblk_completion *done)
{
    unsigned slot = (unsigned)(uintptr_t)done->user;
    uint32_t sector = writer->sector[slot], tag = writer->tag[slot];
    writer->busy[sector] = false;
    if (done->status != 0)
        trouble_note(writer->trouble, "%s %u: %s", tag != 0 ? "write" : "read",
                     sector, done->text);
    else if (tag != 0 && tally_count(tag) != 1)
        trouble_note(writer->trouble, "write %u was executed %u times", tag,
                     tally_count(tag));
    else if (tag == 0
             && tally_tag(writer->data[slot]) != writer->expected[sector])
        trouble_note(writer->trouble, "sector %u has %x, not %x", sector,
                     tally_tag(writer->data[slot]), writer->expected[sector]);
    if (tag != 0)
        writer->expected[sector] = tag;
}

static bool
writer_shares(const struct writer *writer)
{
    struct farblk_info info;
    if (farblk_get_info(writer->dev, &info, sizeof info) != 0)
        trouble_note(writer->trouble, "info: %s", farblk_last_text());
    return strcmp(info.transport, "shm") == 0;
}

/* Now and then: wait until memory is shared again, and when much has gone by it,
 * cut. */
static void
writer_cut(struct writer *writer, uint32_t collected)
{
    if (collected % (2 * CUT_EACH) == 0) {
        writer->shared += writer_shares(writer);
        cable_cut(writer->cable);
    } else if (collected % CUT_EACH == 0) {
        while (!writer_shares(writer) && writer->trouble->noted == 0)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static void *
writer_run(void *arg)
{
    struct writer *writer = arg;
    struct farblk_queue *queue;
    struct farblk_completion done[DEPTH];
    uint32_t submitted = 0, collected = 0;
    if (farblk_queue_create(DEPTH, &queue) != 0)
        return NULL;
    while (submitted < DEPTH) {
        writer_submit(writer, queue, submitted, writer->first_tag + submitted);
        submitted++;
    }
    while (collected < writer->count && writer->trouble->noted == 0) {
        int count = farblk_collect(queue, done, sizeof done[0], DEPTH, -1);
        for (int i = 0; i < count; i++) {
            writer_take(writer, &done[i]);
            collected++;
            if (writer->cable != NULL)
                writer_cut(writer, collected);
            if (submitted < writer->count) {
                writer_submit(writer, queue, (unsigned)(uintptr_t)done[i].user,
                              writer->first_tag + submitted);
                submitted++;
            }
        }
    }
    farblk_queue_destroy(queue);
    return NULL;
}

struct random_cuts {
    struct rng rng;
    bool on;
};

/* Some connections last for a few messages, some for one or two hundred. */
static void
cut_at_random(void *arg, unsigned number, uint64_t *to_server,
              uint64_t *to_client)
{
    struct random_cuts *cuts = arg;
    (void)number;
    if (!cuts->on)
        return;
    uint64_t most = rng_below(&cuts->rng, 4) == 0 ? 2000 : 100000;
    uint64_t at = 20 + rng_below(&cuts->rng, most);
    *(rng_below(&cuts->rng, 2) == 0 ? to_server : to_client) = at;
}

static void
cut_under_threads(unsigned transport, uint64_t seed, uint32_t count)
{
    static struct writer writers[THREADS];
    struct tally tally = {.late = true};
    struct random_cuts cuts = {.rng.state = seed};
    struct cable cable = {.plan = cut_at_random, .arg = &cuts};
    struct trouble trouble = {0};
    struct farblk *devs[2];
    cut_start(&tally, &cable, transport);
    for (unsigned i = 0; i < 2; i++)
        ok(farblk_open(cable_uri(&cable, "disk", "reconnect=600"), NULL,
                       &devs[i]));
    pthread_mutex_lock(&cable.mutex);
    cuts.on = true;
    pthread_mutex_unlock(&cable.mutex);
    cable_cut(&cable);
    memset(writers, 0, sizeof writers);
    for (unsigned i = 0; i < THREADS; i++) {
        struct writer *writer = &writers[i];
        writer->trouble = &trouble;
        writer->dev = devs[i % 2];
        writer->rng.state = seed * THREADS + i;
        writer->base = i * EACH;
        writer->first_tag = 1 + i * (TALLY_TAGS / THREADS);
        writer->count = count;
        writer->cable = transport == SHARED && i == 0 ? &cable : NULL;
        assert_int_equal(
            pthread_create(&writer->thread, NULL, writer_run, writer), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(writers[i].thread, NULL);
    if (trouble.noted != 0)
        print_error("seed %llu\n", (unsigned long long)seed);
    trouble_assert_none(&trouble);
    assert_true(cuts_of(&cable) > 4);
    for (uint32_t tag = 0; tag < TALLY_TAGS; tag++)
        assert_in_range(tally_count(tag), 0, 1);
    if (transport == SHARED)
        assert_true(writers[0].shared > 0);
    pthread_mutex_lock(&cable.mutex);
    cuts.on = false;
    pthread_mutex_unlock(&cable.mutex);
    cable_cut(&cable);
    for (unsigned i = 0; i < 2; i++)
        ok(farblk_close(devs[i]));
    cut_stop(&tally, &cable);
}

static void
cut_at_random_while_threads_write_and_read(void **state)
{
    uint64_t rounds = number_of("FARBLK_CUT_ROUNDS", 2);
    uint64_t seed = number_of("FARBLK_CUT_SEED", 1);
    (void)state;
    for (uint64_t i = 0; i < rounds; i++) {
        cut_under_threads(i % 2, seed + i, 600);
        support_watch("resume_cut");
    }
}

static void
cut_while_requests_lie_in_rings(void **state)
{
    uint64_t rounds = number_of("FARBLK_CUT_ROUNDS", 2);
    uint64_t seed = number_of("FARBLK_CUT_SEED", 1);
    (void)state;
    for (uint64_t i = 0; i < rounds; i++) {
        cut_under_threads(SHARED, seed + i, 1500);
        support_watch("resume_cut");
    }
}

/* ------------------------------------------------------------ the proof */

struct forgetting {
    struct tally *tally;
    bool on;
};

static void
forget_what_was_done(void *arg, unsigned number, uint64_t *to_server,
                     uint64_t *to_client)
{
    struct forgetting *forgetting = arg;
    (void)number, (void)to_server, (void)to_client;
    if (forgetting->on)
        tally_forget(forgetting->tally);
}

/* A server that forgets what it has done executes a write twice, and that is
 * seen. */
static void
what_is_executed_twice_would_be_seen(void **state)
{
    struct tally tally = {0};
    struct forgetting forgetting = {.tally = &tally};
    struct cable cable = {.plan = forget_what_was_done, .arg = &forgetting};
    struct farblk *dev;
    uint8_t sector[TALLY_SECTOR];
    (void)state;
    cut_start(&tally, &cable, 0);
    ok(farblk_open(cable_uri(&cable, "disk", "reconnect=600"), NULL, &dev));
    for (uint32_t tag = 1; tag <= 2; tag++) {
        pthread_mutex_lock(&cable.mutex);
        forgetting.on = tag == 2;
        pthread_mutex_unlock(&cable.mutex);
        tally_fill(sector, tag);
        cable_cut_after(&cable, CABLE_NEVER, 1); /* the reply is lost */
        ok(support_write(dev, 0, sector, sizeof sector, 0));
        assert_int_equal(tally_count(tag), tag);
    }
    ok(farblk_close(dev));
    cut_stop(&tally, &cable);
}

static int
watch(void **state)
{
    (void)state;
    support_watch("resume_cut");
    return 0;
}

static int
unwatch(void **state)
{
    (void)state;
    support_watch(NULL);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, watch, unwatch)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cut_at_each_octet_over_ipc),
        TEST(cut_at_each_octet_over_tcp),
        TEST(cut_while_it_shows_the_secret),
        TEST(cut_at_random_while_threads_write_and_read),
        TEST(cut_while_requests_lie_in_rings),
        TEST(what_is_executed_twice_would_be_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
