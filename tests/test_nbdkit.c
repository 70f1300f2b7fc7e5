/* SPDX-License-Identifier: ISC */
/*
 * NBD clients of a farblkd's devices, through a real nbdkit with the plugin:
 * what each request does to the device, what is refused, what several
 * connections see, and what they get when sizes change and servers die.
 */
#include "tests/daemon.h"
#include "tests/nbdkit_process.h"

#include <errno.h>
#include <libnbd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define KB 1024u
#define MB (1024u * KB)

static struct daemon farblkd;
static struct nbdkit nbdkit;
static char socket_path[512], listen_url[520];

static int
setup(void **state)
{
    (void)state;
    support_watch("nbdkit");
    snprintf(socket_path, sizeof socket_path, "%s", support_path("sock"));
    snprintf(listen_url, sizeof listen_url, "ipc://%s", socket_path);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    nbdkit_kill(&nbdkit);
    daemon_kill_all();
    return 0;
}

/* The farblkd's device, for nbdkit or for this process. */
static const char *
uri_of(const char *name)
{
    static char uri[1024];
    snprintf(uri, sizeof uri, "farblk+unix:///%s?socket=%s", name, socket_path);
    return uri;
}

static void
serve(const char *export)
{
    daemon_start(&farblkd, ARGS("--listen", listen_url, "--export", export));
}

/* nbdkit before the device "d". */
static void
export_it(const char *before, const char *more)
{
    char after[2048];
    snprintf(after, sizeof after, "uri='%s%s'", uri_of("d"), more);
    nbdkit_start(&nbdkit, before, after);
}

static void
finish(struct nbd_handle *nbd)
{
    nbd_ok(nbd_shutdown(nbd, 0));
    nbd_close(nbd);
}

/* ------------------------------------------------------------- requests */

/* Mapped octets among the first `length`, as the device itself tells. */
static uint64_t
mapped(struct farblk *dev, uint64_t length, uint32_t sector_size)
{
    struct farblk_extent extents[64];
    uint64_t sum = 0;
    int n = ok(farblk_extents(dev, 0, length / sector_size, extents, 64));
    for (int i = 0; i < n; i++)
        sum += extents[i].mapped ? extents[i].count * sector_size : 0;
    return sum;
}

static void
each_request_does_to_the_device_what_it_says(void **state)
{
    static unsigned char out[256 * KB], in[256 * KB];
    struct farblk *dev;
    (void)state;
    serve("d=ramdisk:d?size=16M&sector=4096");
    export_it("", "");
    ok(farblk_open(uri_of("d"), NULL, &dev));
    struct nbd_handle *nbd = nbdkit_connect(&nbdkit, "");
    assert_int_equal(nbd_get_size(nbd), 16 * MB);
    assert_int_equal(nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM), 4096);

    pattern_fill(out, sizeof out, 1);
    nbd_ok(nbd_pwrite(nbd, out, sizeof out, 0, LIBNBD_CMD_FLAG_FUA));
    ok(support_read(dev, 0, in, sizeof in));
    assert_memory_equal(in, out, sizeof in);
    assert_int_equal(mapped(dev, 16 * MB, 4096), 256 * KB);

    nbd_ok(nbd_zero(nbd, 64 * KB, 0, LIBNBD_CMD_FLAG_NO_HOLE));
    assert_int_equal(mapped(dev, 16 * MB, 4096), 256 * KB);
    nbd_ok(nbd_zero(nbd, 64 * KB, 64 * KB, LIBNBD_CMD_FLAG_FUA));
    assert_int_equal(mapped(dev, 16 * MB, 4096), 192 * KB);
    nbd_ok(nbd_zero(nbd, 4096, 128 * KB, LIBNBD_CMD_FLAG_FAST_ZERO));
    assert_int_equal(mapped(dev, 16 * MB, 4096), 188 * KB);
    nbd_fails(ENOTSUP,
              nbd_zero(nbd, 4096, 132 * KB,
                       LIBNBD_CMD_FLAG_FAST_ZERO | LIBNBD_CMD_FLAG_NO_HOLE));
    nbd_ok(nbd_trim(nbd, 124 * KB, 132 * KB, 0));
    assert_int_equal(mapped(dev, 16 * MB, 4096), 64 * KB);
    nbd_ok(nbd_flush(nbd, 0));
    ok(support_read(dev, 0, in, sizeof in));
    assert_true(pattern_is_zero(in, sizeof in));

    /* The other way round: what others write is read. */
    pattern_fill(out, sizeof out, 2);
    ok(support_write(dev, 1024, out, sizeof out, 0));
    nbd_ok(nbd_pread(nbd, in, sizeof in, 4 * MB, 0));
    assert_memory_equal(in, out, sizeof in);
    finish(nbd);
    ok(farblk_close(dev));
    nbdkit_stop(&nbdkit);
    daemon_stop(&farblkd);
}

struct status {
    uint64_t covered, data;
};

static int
add_status(void *arg, const char *context, uint64_t offset, uint32_t *entries,
           size_t count, int *error)
{
    struct status *status = arg;
    (void)context;
    (void)offset;
    (void)error;
    for (size_t i = 0; i < count; i += 2) {
        status->covered += entries[i];
        assert_true(entries[i + 1] == 0
                    || entries[i + 1]
                           == (LIBNBD_STATE_HOLE | LIBNBD_STATE_ZERO));
        status->data += entries[i + 1] == 0 ? entries[i] : 0;
    }
    return 0;
}

static struct status
block_status(struct nbd_handle *nbd, uint64_t length, uint64_t offset)
{
    struct status status = {0, 0};
    nbd_ok(nbd_block_status(
        nbd, length, offset,
        (nbd_extent_callback){.callback = add_status, .user_data = &status},
        0));
    return status;
}

static void
block_status_tells_holes_to_the_octet(void **state)
{
    static unsigned char out[64 * KB];
    (void)state;
    serve("d=ramdisk:d?size=16M");
    export_it("", "");
    struct nbd_handle *nbd = nbdkit_connect(&nbdkit, "");
    pattern_fill(out, sizeof out, 3);
    for (unsigned i = 0; i < 16; i++)
        nbd_ok(nbd_pwrite(nbd, out, 512, i * MB + 512, 0));
    struct status status = block_status(nbd, 16 * MB, 0);
    assert_int_equal(status.covered, 16 * MB);
    assert_int_equal(status.data, 16 * 512);
    /* A range need not be whole sectors. */
    status = block_status(nbd, 3, MB + 511);
    assert_true(status.covered >= 3);
    assert_true(status.data >= 1);
    finish(nbd);
    nbdkit_stop(&nbdkit);
    daemon_stop(&farblkd);
}

static void
parts_of_sectors_are_refused_and_nothing_happens(void **state)
{
    static unsigned char out[8 * KB], in[8 * KB];
    (void)state;
    serve("d=ramdisk:d?size=1M&sector=4096");
    export_it("", "");
    struct nbd_handle *nbd = nbdkit_connect(&nbdkit, "");
    pattern_fill(out, sizeof out, 4);
    nbd_ok(nbd_pwrite(nbd, out, sizeof out, 0, 0));
    nbd_fails(EINVAL, nbd_pread(nbd, in, 512, 0, 0));
    nbd_fails(EINVAL, nbd_pread(nbd, in, 4096, 512, 0));
    nbd_fails(EINVAL, nbd_pwrite(nbd, in, 4095, 0, 0));
    nbd_fails(EINVAL, nbd_pwrite(nbd, in, 4096, 1, 0));
    nbd_fails(EINVAL, nbd_zero(nbd, 512, 4096, 0));
    nbd_fails(EINVAL, nbd_trim(nbd, 4096, 2048, 0));
    assert_true(nbdkit_logged(&nbdkit, "a write of 4096 octets at 1 is not "
                                       "whole sectors of 4096"));
    nbd_ok(nbd_pread(nbd, in, sizeof in, 0, 0));
    assert_memory_equal(in, out, sizeof in);
    finish(nbd);
    nbdkit_stop(&nbdkit);

    /* nbdkit's filter makes whole sectors of them. */
    export_it("--filter=blocksize", "");
    nbd = nbdkit_connect(&nbdkit, "");
    memset(out + 4000, 'x', 200);
    nbd_ok(nbd_pwrite(nbd, out + 4000, 200, 4000, 0));
    nbd_ok(nbd_pread(nbd, in, 8000, 1, 0));
    assert_memory_equal(in, out + 1, 8000);
    finish(nbd);
    nbdkit_stop(&nbdkit);
    daemon_stop(&farblkd);
}

static void
errors_are_those_of_the_device(void **state)
{
    static unsigned char out[4 * MB];
    (void)state;
    daemon_start(&farblkd, ARGS("--listen", listen_url, "--memory-limit", "16M",
                                "--export", "d=ramdisk:d?size=1G"));
    export_it("", "");
    struct nbd_handle *nbd = nbdkit_connect(&nbdkit, "");
    int64_t wrote = 0;
    memset(out, 1, sizeof out);
    while (wrote < 64 * MB && nbd_pwrite(nbd, out, sizeof out, wrote, 0) == 0)
        wrote += sizeof out;
    assert_in_range(wrote, 1, 16 * MB);
    assert_int_equal(nbd_get_errno(), ENOSPC);
    assert_true(nbdkit_logged(&nbdkit, "(NO_SPACE)"));
    nbd_ok(nbd_trim(nbd, 64 * MB, 0, 0));
    nbd_ok(nbd_pwrite(nbd, out, 512, 0, 0));
    finish(nbd);
    nbdkit_stop(&nbdkit);

    /* What takes too long fails, and what comes afterwards does not. */
    export_it("", "&timeout=300");
    nbd = nbdkit_connect(&nbdkit, "");
    daemon_pause(&farblkd);
    nbd_fails(EIO, nbd_pread(nbd, out, 512, 0, 0));
    assert_true(nbdkit_logged(&nbdkit, "(TIMED_OUT)"));
    daemon_resume(&farblkd);
    while (nbd_pread(nbd, out, 512, 0, 0) != 0)
        assert_int_equal(nbd_get_errno(), EIO);
    finish(nbd);
    nbdkit_stop(&nbdkit);
    daemon_stop(&farblkd);
}

static void
read_only_devices_take_no_changes(void **state)
{
    char out[512] = {1};
    (void)state;
    serve("d=ramdisk:d");
    for (unsigned i = 0; i < 2; i++) {
        export_it(i == 0 ? "-r" : "", i == 0 ? "" : "&ro=1");
        struct nbd_handle *nbd = nbdkit_connect(&nbdkit, "");
        assert_int_equal(nbd_is_read_only(nbd), 1);
        nbd_fails(EPERM, nbd_pwrite(nbd, out, sizeof out, 0, 0));
        nbd_ok(nbd_pread(nbd, out, sizeof out, 0, 0));
        finish(nbd);
        nbdkit_stop(&nbdkit);
    }
    daemon_stop(&farblkd);
}

/* ---------------------------------------------------------- connections */

static void
connections_share_one_handle_which_the_last_closes(void **state)
{
    static unsigned char out[4096], in[4096];
    struct nbd_handle *nbd[4];
    (void)state;
    serve("d=ramdisk:d");
    export_it("", "");
    for (unsigned i = 0; i < 4; i++) {
        nbd[i] = nbdkit_connect(&nbdkit, "");
        assert_int_equal(nbd_can_multi_conn(nbd[i]), 1);
    }
    assert_int_equal(daemon_count_log(&farblkd, "opened \"d\" as handle"), 1);
    for (unsigned i = 0; i < 4; i++) {
        pattern_fill(out, sizeof out, i);
        nbd_ok(nbd_pwrite(nbd[i], out, sizeof out, 0, 0));
        nbd_ok(nbd_pread(nbd[(i + 1) % 4], in, sizeof in, 0, 0));
        assert_memory_equal(in, out, sizeof in);
        nbd_ok(nbd_flush(nbd[(i + 2) % 4], 0));
    }
    /* Three go without a word, which is fine. */
    for (unsigned i = 1; i < 4; i++)
        nbd_close(nbd[i]);
    nbd_ok(nbd_pread(nbd[0], in, sizeof in, 0, 0));
    assert_int_equal(daemon_count_log(&farblkd, "closed handle"), 0);
    nbd_close(nbd[0]);
    daemon_wait_log(&farblkd, "closed handle");
    nbdkit_stop(&nbdkit);
    daemon_stop(&farblkd);
}

static void
the_end_of_nbdkit_closes_the_device(void **state)
{
    (void)state;
    serve("d=ramdisk:d");
    export_it("", "");
    struct nbd_handle *nbd = nbdkit_connect(&nbdkit, "");
    /* It waits for its client to go, and then closes its connection or not. */
    kill(nbdkit.pid, SIGTERM);
    nbd_close(nbd);
    nbdkit_stop(&nbdkit);
    daemon_wait_log(&farblkd, "ended by its client; 1 handles");
    daemon_stop(&farblkd);
}

#define WORKERS 4
#define SLOTS 16
#define SLOT (16 * KB)
#define ROUNDS 12

struct worker {
    pthread_t thread;
    unsigned index;
    struct trouble *trouble;
};

/* Wait for all that is under way on the connection. */
static bool
settle(struct nbd_handle *nbd)
{
    while (nbd_aio_in_flight(nbd) > 0)
        if (nbd_poll(nbd, -1) < 0)
            return false;
    return true;
}

static int
note_error(void *arg, int *error)
{
    if (*error != 0)
        trouble_note(arg, "a request failed: %s", strerror(*error));
    return 1;
}

/* In a region of its own: changes and then looks, many at once. */
static void *
work(void *arg)
{
    struct worker *worker = arg;
    struct rng rng = {.state = worker->index + 1};
    unsigned char *out = malloc(2 * SLOTS * SLOT), *in = out + SLOTS * SLOT;
    struct nbd_handle *nbd = nbdkit_try(&nbdkit, "");
    const uint64_t base = (uint64_t)worker->index * SLOTS * SLOT;
    const nbd_completion_callback done = {.callback = note_error,
                                          .user_data = worker->trouble};
    if (nbd == NULL || out == NULL)
        trouble_note(worker->trouble, "no connection: %s", nbd_get_error());
    for (unsigned round = 0; nbd != NULL && round < ROUNDS; round++) {
        for (unsigned i = 0; i < SLOTS; i++) {
            unsigned char *data = out + i * SLOT;
            uint64_t at = base + i * SLOT;
            uint64_t what = round == 0 ? 9 : rng_below(&rng, 10);
            uint32_t fua = rng_below(&rng, 4) == 0 ? LIBNBD_CMD_FLAG_FUA : 0;
            int64_t cookie = 0;
            if (what < 3)
                memset(data, 0, SLOT);
            else if (what > 5)
                pattern_fill(data, SLOT, rng_next(&rng));
            if (what == 0)
                cookie = nbd_aio_trim(nbd, SLOT, at, done, fua);
            else if (what < 3)
                cookie = nbd_aio_zero(nbd, SLOT, at, done, fua);
            else if (what > 5)
                cookie = nbd_aio_pwrite(nbd, data, SLOT, at, done, fua);
            if (cookie < 0)
                trouble_note(worker->trouble, "%s", nbd_get_error());
        }
        if (!settle(nbd))
            trouble_note(worker->trouble, "%s", nbd_get_error());
        for (unsigned i = 0; i < SLOTS; i++)
            nbd_aio_pread(nbd, in + i * SLOT, SLOT, base + i * SLOT, done, 0);
        if (!settle(nbd))
            trouble_note(worker->trouble, "%s", nbd_get_error());
        if (memcmp(in, out, SLOTS * SLOT) != 0)
            trouble_note(worker->trouble, "other data in round %u", round);
    }
    nbd_close(nbd);
    free(out);
    return NULL;
}

static void
many_connections_at_work_at_once_read_what_they_wrote(void **state)
{
    struct trouble trouble = {0};
    struct worker workers[WORKERS];
    const char *path = support_path("disk");
    char export[512];
    (void)state;
    support_make_file(path, WORKERS * SLOTS * SLOT);
    snprintf(export, sizeof export, "d=file:%s", path);
    serve(export);
    export_it("", "");
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){.index = i, .trouble = &trouble};
        assert_int_equal(
            pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(workers[i].thread, NULL);
    trouble_assert_none(&trouble);
    nbdkit_stop(&nbdkit);
    daemon_stop(&farblkd);
}

/* ----------------------------------------------------- size, and the end */

static void
another_size_is_seen_by_those_who_connect_then(void **state)
{
    char sector[512] = {1};
    struct farblk *dev;
    (void)state;
    serve("d=ramdisk:d?size=1M");
    export_it("", "");
    ok(farblk_open(uri_of("d"), NULL, &dev));
    struct nbd_handle *before = nbdkit_connect(&nbdkit, "");
    ok(farblk_resize(dev, 4096));
    struct nbd_handle *after = nbdkit_connect(&nbdkit, "");
    assert_int_equal(nbd_get_size(before), MB);
    assert_int_equal(nbd_get_size(after), 2 * MB);
    nbd_ok(nbd_pwrite(after, sector, sizeof sector, 2 * MB - 512, 0));
    nbd_ok(nbd_pwrite(before, sector, sizeof sector, MB - 512, 0));
    /* It shrinks: what is past its end fails, for everybody. */
    ok(farblk_resize(dev, 1024));
    nbd_fails(EINVAL, nbd_pread(before, sector, sizeof sector, MB - 512, 0));
    nbd_fails(EINVAL, nbd_pwrite(after, sector, sizeof sector, MB, 0));
    nbd_ok(nbd_pread(after, sector, sizeof sector, 512 * KB - 512, 0));
    finish(before);
    finish(after);
    after = nbdkit_connect(&nbdkit, "");
    assert_int_equal(nbd_get_size(after), 512 * KB);
    finish(after);
    ok(farblk_close(dev));
    nbdkit_stop(&nbdkit);
    daemon_stop(&farblkd);
}

static int
count_shutdown(void *arg, int *error)
{
    unsigned *count = arg;
    if (*error == ESHUTDOWN)
        ++*count;
    return 1;
}

static void
a_dead_server_is_an_error_until_it_is_back(void **state)
{
    static unsigned char in[32][4096], out[4096];
    const char *path = support_path("disk");
    char export[512];
    unsigned lost = 0;
    (void)state;
    support_make_file(path, MB);
    snprintf(export, sizeof export, "d=file:%s", path);
    serve(export);
    export_it("", "");
    struct nbd_handle *nbd = nbdkit_connect(&nbdkit, "");
    pattern_fill(out, sizeof out, 5);
    nbd_ok(nbd_pwrite(nbd, out, sizeof out, 0, 0));
    nbd_ok(nbd_flush(nbd, 0));
    /* With many requests under way; each of them is answered. */
    daemon_pause(&farblkd);
    for (unsigned i = 0; i < 32; i++)
        nbd_ok(
            nbd_aio_pread(nbd, in[i], sizeof in[i], 0,
                          (nbd_completion_callback){.callback = count_shutdown,
                                                    .user_data = &lost},
                          0));
    daemon_kill(&farblkd);
    assert_true(settle(nbd));
    assert_int_equal(lost, 32);
    nbd_fails(ESHUTDOWN, nbd_pread(nbd, in[0], sizeof in[0], 0, 0));
    nbd_fails(ESHUTDOWN, nbd_flush(nbd, 0));
    assert_null(nbdkit_try(&nbdkit, ""));

    serve(export);
    struct nbd_handle *other = nbdkit_connect(&nbdkit, "");
    nbd_ok(nbd_pread(other, in[0], sizeof in[0], 0, 0));
    assert_memory_equal(in[0], out, sizeof out);
    nbd_fails(ESHUTDOWN, nbd_pread(nbd, in[0], sizeof in[0], 0, 0));
    finish(nbd);
    finish(other);
    nbdkit_stop(&nbdkit);
    daemon_stop(&farblkd);
}

static void
nbdkits_retry_filter_finds_the_server_again(void **state)
{
    static unsigned char in[4096], out[4096];
    const char *path = support_path("disk");
    char export[512], after[2048];
    (void)state;
    support_make_file(path, MB);
    snprintf(export, sizeof export, "d=file:%s", path);
    serve(export);
    snprintf(after, sizeof after,
             "uri='%s' retries=60 retry-delay=1 retry-exponential=no",
             uri_of("d"));
    nbdkit_start(&nbdkit, "--filter=retry", after);
    struct nbd_handle *nbd = nbdkit_connect(&nbdkit, "");
    pattern_fill(out, sizeof out, 6);
    nbd_ok(nbd_pwrite(nbd, out, sizeof out, 0, 0));
    daemon_kill(&farblkd);
    serve(export);
    nbd_ok(nbd_pread(nbd, in, sizeof in, 0, 0));
    assert_memory_equal(in, out, sizeof in);
    nbd_ok(nbd_pwrite(nbd, out, sizeof out, 4096, 0));
    nbd_ok(nbd_flush(nbd, 0));
    finish(nbd);
    nbdkit_stop(&nbdkit);
    daemon_stop(&farblkd);
}

static void
a_servers_devices_are_exports(void **state)
{
    static const char *const none[] = {"c", "", "../a", "a?ro=1", "a/b"};
    char after[1024];
    (void)state;
    daemon_start(&farblkd,
                 ARGS("--listen", listen_url, "--export", "a=ramdisk:a?size=1M",
                      "--export", "b=ramdisk:b?size=2M&sector=4096"));
    snprintf(after, sizeof after, "server='farblk+unix:///?socket=%s'",
             socket_path);
    nbdkit_start(&nbdkit, "", after);
    struct nbd_handle *a = nbdkit_connect(&nbdkit, "a");
    struct nbd_handle *b = nbdkit_connect(&nbdkit, "b");
    assert_int_equal(nbd_get_size(a), MB);
    assert_int_equal(nbd_get_size(b), 2 * MB);
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        assert_null(nbdkit_try(&nbdkit, none[i]));
    finish(a);
    finish(b);
    nbdkit_stop(&nbdkit);
    daemon_stop(&farblkd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_request_does_to_the_device_what_it_says),
        TEST(block_status_tells_holes_to_the_octet),
        TEST(parts_of_sectors_are_refused_and_nothing_happens),
        TEST(errors_are_those_of_the_device),
        TEST(read_only_devices_take_no_changes),
        TEST(connections_share_one_handle_which_the_last_closes),
        TEST(the_end_of_nbdkit_closes_the_device),
        TEST(many_connections_at_work_at_once_read_what_they_wrote),
        TEST(another_size_is_seen_by_those_who_connect_then),
        TEST(a_dead_server_is_an_error_until_it_is_back),
        TEST(nbdkits_retry_filter_finds_the_server_again),
        TEST(a_servers_devices_are_exports),
    };
    const char *why;
    if (!nbdkit_usable(&why)) {
        printf("%s: skipped\n", why);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
