/* SPDX-License-Identifier: ISC */
/*
 * test_consistency [SECONDS]: many clients write and read the same sectors of
 * one device at once, by every path that there is to it; what each of them did
 * and saw, and when, is recorded, and the history of each sector must be
 * linearizable (linear.h).
 *
 * The server is in this process, so that a path may also be the device itself.
 * Some requests have hardly any time: of those that are late nobody knows
 * whether they happened.  The clock is a counter, from which all take their
 * numbers.
 *
 * FARBLK_CONSISTENCY_SEED gives another seed.
 */
#include "tests/linear.h"
#include "tests/support.h"
#include "tests/tagged.h"

#include "farblk/server.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define SECTORS 48u
#define LONGEST 8u
#define CLIENTS_EACH 2u /* by one path */
#define DEPTH 4u
#define RECORDS 200000u /* of one client, at most */

/* ------------------------------------------------------------ paths */

/* On a busy machine an answer may take its time. */
#define PATIENT "connect_timeout=60000"

/* How a client reaches the device; in both forms %s is a name of this run. */
static const struct path {
    const char *name;
    const char *listen; /* the server's URL; NULL: none */
    const char *uri; /* a client's; NULL: the device's own */
} paths[] = {
    {"local", NULL, NULL},
    {"ipc", "ipc://%s", "farblk+unix:///disk?socket=%s&" PATIENT},
    {"tcp", "tcp://127.0.0.1:0", "farblk://%s/disk?" PATIENT},
    {"inproc", "inproc://%s", "farblk+inproc:///disk?address=%s&" PATIENT},
};
#define PATHS (sizeof paths / sizeof *paths)
#define CLIENTS (PATHS * CLIENTS_EACH)

static const struct kind {
    const char *name;
    bool file;
    const char *more;
} kinds[] = {
    {"ramdisk", false, "size=24k"},
    {"file by io_uring", true, "engine=uring"},
    {"file by threads", true, "engine=pool"},
};

struct ring {
    struct farblk_server *server;
    char direct[512];
    char uri[PATHS][512];
};

/* False: this kind does not work here. */
static bool
ring_create(struct ring *ring, const struct kind *kind)
{
    const char *name =
        kind->file ? support_path("consistent") : support_name("consistent");
    const char *socket = support_path("socket");
    struct farblk *dev = NULL;

    memset(ring, 0, sizeof *ring);
    if (kind->file)
        support_make_file(name, SECTORS * TAGGED_SECTOR);
    snprintf(ring->direct, sizeof ring->direct, "%s:%s?%s",
             kind->file ? "file" : "ramdisk", name, kind->more);
    if (farblk_open(ring->direct, NULL, &dev) == FARBLK_UNIMPLEMENTED)
        return false;
    ok(farblk_close(dev));
    ok(farblk_server_create(NULL, &ring->server));
    ok(farblk_server_export(ring->server, "disk", ring->direct));
    for (size_t i = 0, urls = 0; i < PATHS; i++) {
        const struct path *path = &paths[i];
        char url[512];

        if (path->listen == NULL) {
            snprintf(ring->uri[i], sizeof ring->uri[i], "%s", ring->direct);
            continue;
        }
        snprintf(url, sizeof url, path->listen, socket);
        ok(farblk_server_listen(ring->server, url));
        /* The real port, where it matters. */
        bool tcp = strncmp(url, "tcp://", 6) == 0;
        const char *told = farblk_server_url(ring->server, urls++);
        snprintf(ring->uri[i], sizeof ring->uri[i], path->uri,
                 tcp ? told + 6 : socket);
    }
    return true;
}

/* ------------------------------------------------------------ clients */

struct record {
    uint64_t begun, ended, number;
    uint16_t sector, count;
    uint8_t op;
    uint8_t effect;
    int16_t status;
    uint64_t seen[LONGEST]; /* READ */
};

struct slot {
    struct record record;
    uint8_t data[LONGEST * TAGGED_SECTOR];
    struct iovec iov;
};

struct client {
    struct farblk *dev;
    unsigned index;
    bool hasty;
    struct rng rng;
    struct trouble *trouble;
    struct farblk_queue *queue;
    struct slot slot[DEPTH];
    struct record *records;
    size_t count;
    uint64_t numbers;
    pthread_t thread;
};

static atomic_uint_fast64_t clock_now;
static atomic_bool stop;

static uint64_t
tick(void)
{
    return atomic_fetch_add(&clock_now, 1) + 1;
}

static void
client_submit(struct client *client, struct slot *slot)
{
    struct record *record = &slot->record;
    uint64_t choice = rng_below(&client->rng, 100);
    struct farblk_request request = {
        .size = sizeof request, .dev = client->dev, .user = slot};

    *record = (struct record){
        .op = choice < 42   ? FARBLK_OP_READ
              : choice < 88 ? FARBLK_OP_WRITE
              : choice < 94 ? FARBLK_OP_WRITE_ZEROES
                            : FARBLK_OP_DISCARD,
        .count = (uint16_t)(1 + rng_below(&client->rng, LONGEST)),
    };
    record->sector =
        (uint16_t)rng_below(&client->rng, SECTORS - record->count + 1);
    if (record->op == FARBLK_OP_WRITE) {
        record->number =
            (uint64_t)(client->index + 1) << 40 | ++client->numbers;
        tagged_fill(slot->data, record->number, record->sector, record->count);
    }
    slot->iov =
        (struct iovec){slot->data, (size_t)record->count * TAGGED_SECTOR};
    request.op = record->op;
    request.sector = record->sector;
    if (record->op == FARBLK_OP_READ || record->op == FARBLK_OP_WRITE) {
        request.iov = &slot->iov;
        request.iovcnt = 1;
    } else {
        request.count = record->count;
    }
    if (client->hasty && rng_below(&client->rng, 8) == 0)
        request.timeout_ms = 1;
    record->begun = tick();
    if (farblk_submit(client->queue, &request) != 0)
        trouble_note(client->trouble, "submit: %s", farblk_last_text());
}

static void
client_ended(struct client *client, const struct farblk_completion *done)
{
    struct slot *slot = done->user;
    struct record *record = &slot->record;

    record->ended = tick();
    record->status = (int16_t)done->status;
    record->effect = (uint8_t)done->effect;
    if (done->status != 0 && done->status != FARBLK_TIMED_OUT)
        trouble_note(client->trouble, "client %u: %s", client->index,
                     done->text);
    if (record->op == FARBLK_OP_READ && done->status == 0)
        for (unsigned i = 0; i < record->count; i++) {
            record->seen[i] =
                tagged_read(slot->data + i * TAGGED_SECTOR, record->sector + i);
            if (record->seen[i] == TAGGED_TORN)
                trouble_note(client->trouble,
                             "client %u read sector %u torn, at %llu to %llu",
                             client->index, record->sector + i,
                             (unsigned long long)record->begun,
                             (unsigned long long)record->ended);
        }
    client->records[client->count++] = *record;
}

static void *
client_main(void *arg)
{
    struct client *client = arg;
    struct farblk_completion done[DEPTH];

    for (unsigned i = 0; i < DEPTH; i++)
        client_submit(client, &client->slot[i]);
    while (farblk_queue_pending(client->queue) > 0) {
        int count = farblk_collect(client->queue, done, sizeof *done, DEPTH,
                                   SUPPORT_PATIENCE_MS);

        if (count <= 0) {
            trouble_note(client->trouble, "client %u waits in vain: %s",
                         client->index, farblk_last_text());
            break;
        }
        for (int i = 0; i < count; i++)
            client_ended(client, &done[i]);
        for (int i = 0; i < count; i++)
            if (!atomic_load(&stop) && client->count + DEPTH < RECORDS)
                client_submit(client, done[i].user);
    }
    return NULL;
}

/* ------------------------------------------------------------ history */

/* Add what a record did to one sector.  Returns how many ops that are. */
static size_t
history_add(const struct record *record, unsigned sector, struct linear_op *op)
{
    bool read = record->op == FARBLK_OP_READ;
    bool in = sector >= record->sector
              && sector < (unsigned)record->sector + record->count;

    /* What failed without effect did not happen, and must not be seen. */
    if (!in
        || (record->status != 0
            && (read || record->effect == FARBLK_EFFECT_NONE)))
        return 0;
    *op = (struct linear_op){
        .write = !read,
        .unknown =
            record->status != 0 && record->effect == FARBLK_EFFECT_UNKNOWN,
        .value = read ? record->seen[sector - record->sector] : record->number,
        .begun = record->begun,
        .ended = record->ended,
    };
    if (op->unknown)
        op->ended = LINEAR_NEVER;
    return 1;
}

/* Returns the number of ops in all histories. */
static size_t
history_check(const struct client *clients, size_t *unknown,
              struct trouble *trouble)
{
    size_t total = 0, most = 0;

    for (unsigned i = 0; i < CLIENTS; i++)
        most += clients[i].count;
    struct linear_op *ops = calloc(most, sizeof *ops);
    assert_non_null(ops);
    for (unsigned sector = 0; sector < SECTORS; sector++) {
        size_t count = 0;

        for (unsigned i = 0; i < CLIENTS; i++)
            for (size_t k = 0; k < clients[i].count; k++)
                count +=
                    history_add(&clients[i].records[k], sector, ops + count);
        for (size_t k = 0; k < count; k++)
            *unknown += ops[k].unknown;
        struct linear_verdict verdict = linear_check(ops, count, TAGGED_ZERO);
        if (!verdict.fine)
            trouble_note(trouble, "sector %u: %s", sector, verdict.text);
        total += count;
    }
    free(ops);
    return total;
}

static void
consistency_run(const struct kind *kind, double seconds, uint64_t seed)
{
    struct client *clients = calloc(CLIENTS, sizeof *clients);
    struct trouble trouble = {0};
    struct timespec time = {.tv_sec = (time_t)seconds};
    struct ring ring;
    size_t requests = 0, ops, unknown = 0;

    assert_non_null(clients);
    if (!ring_create(&ring, kind)) {
        free(clients);
        skip();
    }
    time.tv_nsec = (long)((seconds - (double)time.tv_sec) * 1e9);
    atomic_store(&stop, false);
    atomic_store(&clock_now, 0);
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *client = &clients[i];

        client->index = i;
        client->hasty = i / PATHS == 1;
        client->rng.state = seed + i;
        client->trouble = &trouble;
        client->records = calloc(RECORDS, sizeof *client->records);
        assert_non_null(client->records);
        ok(farblk_queue_create(DEPTH, &client->queue));
        ok(farblk_open(ring.uri[i % PATHS], NULL, &client->dev));
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        assert_int_equal(
            pthread_create(&clients[i].thread, NULL, client_main, &clients[i]),
            0);
    nanosleep(&time, NULL);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
        requests += clients[i].count;
        farblk_queue_destroy(clients[i].queue);
        ok(farblk_close(clients[i].dev));
    }
    ops = history_check(clients, &unknown, &trouble);
    for (unsigned i = 0; i < CLIENTS; i++)
        free(clients[i].records);
    free(clients);
    ok(farblk_server_stop(ring.server, SUPPORT_PATIENCE_MS));
    farblk_server_destroy(ring.server);
    print_message("%s, seed %llu: %zu requests, %zu operations on sectors,"
                  " %zu of them unknown\n",
                  kind->name, (unsigned long long)seed, requests, ops, unknown);
    trouble_assert_none(&trouble);
    assert_true(requests >= CLIENTS * DEPTH);
}

static double run_seconds = 0.3;

static void
every_sector_is_linearizable_by_all_paths(void **state)
{
    const char *told = getenv("FARBLK_CONSISTENCY_SEED");

    support_watch("consistency");
    consistency_run(*state, run_seconds,
                    told != NULL ? strtoull(told, NULL, 0) : 1);
    support_watch(NULL);
}

int
main(int argc, char **argv)
{
    struct CMUnitTest tests[sizeof kinds / sizeof *kinds] = {{0}};

    if (argc > 1)
        run_seconds = strtod(argv[1], NULL);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        tests[i] = (struct CMUnitTest){
            .name = kinds[i].name,
            .test_func = every_sector_is_linearizable_by_all_paths,
            .initial_state = (void *)(uintptr_t)&kinds[i],
        };
    return cmocka_run_group_tests_name("every sector is linearizable", tests,
                                       NULL, NULL)
           != 0;
}
