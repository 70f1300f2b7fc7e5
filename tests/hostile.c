/* SPDX-License-Identifier: ISC */
/*
 * The server that is attacked, and how to see that it goes on.
 */
#include "tests/hostile.h"

#include <endian.h>
#include <signal.h>
#include <unistd.h>

#define PAYLOAD_MAX "65536"

struct rig *hostile_rig;
static struct farblk *witness; /* a client that was there before */

const char *
hostile_url(void)
{
    return hostile_rig->daemon.url[0];
}

static bool
hostile_ipc(void)
{
    return hostile_rig->way.transport == IPC;
}

void
hostile_expect_service(void)
{
    static uint64_t seed;
    struct farblk *dev = rig_open(hostile_rig, "");
    uint8_t buffer[8 * 512];

    seed++;
    pattern_fill(buffer, sizeof buffer, seed);
    ok(support_write(dev, seed % 100 * 8, buffer, sizeof buffer, 0));
    memset(buffer, 0, sizeof buffer);
    ok(support_read(witness, seed % 100 * 8, buffer, sizeof buffer));
    assert_int_equal(pattern_check(buffer, sizeof buffer, seed), sizeof buffer);
    rig_close(hostile_rig, dev);
}

size_t
hostile_closed(void)
{
    return daemon_count_log(&hostile_rig->daemon, "closed: ");
}

int
hostile_connect(bool greet)
{
    int fd = peer_connect(hostile_url(), greet);

    assert_true(fd >= 0);
    return fd;
}

void
hostile_expect_closed(int fd, const char *reason)
{
    assert_true(peer_is_closed(fd));
    close(fd);
    daemon_wait_log(&hostile_rig->daemon, reason);
    hostile_expect_service();
}

size_t
hostile_frame(uint8_t *to, uint64_t length)
{
    size_t at = 0;

    if (hostile_ipc())
        to[at++] = 1;
    length = htobe64(length);
    memcpy(to + at, &length, 8);
    return at + 8;
}

static int
hostile_setup(void **state)
{
    static const char *const args[] = {
        /* clang-format off */
        "--frame-timeout", "2000", "--hello-timeout", "3000",
        "--max-payload", PAYLOAD_MAX, "--max-connections", "1000",
        "--log-level", "debug", NULL,
        /* clang-format on */
    };

    support_watch("hostile");
    hostile_rig = rig_create(*(struct way *)*state, 1024, PEER_SECTOR, args);
    witness = rig_open(hostile_rig, "");
    return 0;
}

/* A good end is part of it: nothing was broken in there. */
static int
hostile_teardown(void **state)
{
    int code;

    (void)state;
    rig_close(hostile_rig, witness);
    kill(hostile_rig->daemon.pid, SIGTERM);
    code = daemon_wait(&hostile_rig->daemon);
    if (code != 0) {
        char *log = daemon_read_log(&hostile_rig->daemon);

        print_error("farblkd ended with %d:\n%s\n", code, log);
        free(log);
    }
    support_watch(NULL);
    rig_destroy_all();
    return code;
}

int
hostile_run(struct CMUnitTest *tests, size_t count)
{
    static struct way ways[] = {{&stores[0], IPC}, {&stores[0], TCP}};
    int failed = 0;

    for (size_t w = 0; w < 2; w++) {
        for (size_t i = 0; i < count; i++) {
            tests[i].initial_state = &ways[w];
            tests[i].setup_func = hostile_setup;
            tests[i].teardown_func = hostile_teardown;
        }
        failed += _cmocka_run_group_tests(transport_names[ways[w].transport],
                                          tests, count, NULL, NULL)
                  != 0;
    }
    return failed != 0;
}
