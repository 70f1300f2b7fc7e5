/* SPDX-License-Identifier: ISC */
/*
 * Real processes that share memory with a real farblkd, stopped or killed in the
 * middle: clients cost nobody else anything, and a server that dies wakes every
 * waiter.  What they had comes back; it is counted from outside.
 *
 * The victims are this program, started anew:
 *
 *   PROGRAM victim URI works|sits
 *
 * which works on and on, or fills its ring and collects nothing; it says R when
 * it has begun, a dot now and then, and L when its session is lost.
 */
#include "tests/daemon.h"

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define DEPTH 64u
#define SECTORS 8192u

/* ------------------------------------------------------------ the victim */

static void
victim_say(char what)
{
    if (write(STDOUT_FILENO, &what, 1) != 1)
        _exit(3);
}

static int
victim_submit(struct farblk *dev, struct farblk_queue *queue, uint8_t *buffer,
              uintptr_t slot)
{
    static struct iovec iov[DEPTH];
    iov[slot] = (struct iovec){buffer + slot * PAGE, PAGE};
    const struct farblk_request request = {
        .size = sizeof request,
        .op = slot % 2 == 0 ? FARBLK_OP_READ : FARBLK_OP_WRITE,
        .dev = dev,
        .sector = slot * PAGE / 512,
        .iov = &iov[slot],
        .iovcnt = 1,
        .user = (void *)slot,
    };
    return farblk_submit(queue, &request);
}

static int
victim_lost(int status)
{
    if (status != FARBLK_DISCONNECTED && status != FARBLK_CONNECTION_LOST)
        return 1;
    victim_say('L');
    return 0;
}

static int
victim_run(const char *uri, bool works)
{
    struct farblk_completion done[DEPTH];
    struct farblk_queue *queue;
    struct farblk *dev;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int status = farblk_open(uri, NULL, &dev);
    if (status != 0 || farblk_queue_create(DEPTH, &queue) != 0)
        return 1;
    uint8_t *buffer = farblk_buffer_alloc(dev, DEPTH * PAGE);
    for (uintptr_t slot = 0; slot < DEPTH; slot++)
        if (buffer == NULL || victim_submit(dev, queue, buffer, slot) != 0)
            return 1;
    victim_say('R');
    if (!works)
        raise(SIGSTOP); /* everything lies in the ring */
    for (uint64_t collected = 0;;) {
        int count = farblk_collect(queue, done, sizeof done[0], DEPTH, -1);
        if (count < 0)
            return 1;
        for (int i = 0; i < count; i++) {
            if (done[i].status != 0)
                return victim_lost(done[i].status);
            if (victim_submit(dev, queue, buffer, (uintptr_t)done[i].user) != 0)
                return 1;
            if (++collected % (16 * DEPTH) == 0)
                victim_say('.');
        }
    }
}

struct victim {
    pid_t pid;
    int out;
    bool sits; /* it stops by itself */
};

static struct daemon server;
static char socket_path[256];

static const char *
processes_uri(const char *more)
{
    static char uris[4][400];
    static unsigned next;
    char *uri = uris[next++ % 4];
    snprintf(uri, sizeof uris[0], "farblk+unix:///disk?socket=%s%s",
             socket_path, more);
    return uri;
}

/* What it says next; 0: it has ended. */
static char
victim_hear(const struct victim *victim)
{
    char what = 0;
    return read(victim->out, &what, 1) == 1 ? what : 0;
}

static void
victim_start(struct victim *victim, const char *how)
{
    const char *uri = processes_uri("&shm=require");
    int out[2];
    assert_int_equal(pipe(out), 0);
    victim->pid = fork();
    assert_true(victim->pid >= 0);
    if (victim->pid == 0) {
        dup2(out[1], STDOUT_FILENO);
        close(out[0]);
        close(out[1]);
        execl("/proc/self/exe", "victim", "victim", uri, how, (char *)NULL);
        _exit(9);
    }
    close(out[1]);
    victim->out = out[0];
    victim->sits = strcmp(how, "sits") == 0;
    assert_int_equal(victim_hear(victim), 'R');
}

static void
victim_stop(const struct victim *victim)
{
    int status;
    if (!victim->sits)
        assert_int_equal(kill(victim->pid, SIGSTOP), 0);
    assert_int_equal(waitpid(victim->pid, &status, WUNTRACED), victim->pid);
    assert_true(WIFSTOPPED(status));
}

static void
victim_kill(struct victim *victim)
{
    kill(victim->pid, SIGKILL);
    assert_int_equal(waitpid(victim->pid, NULL, 0), victim->pid);
    close(victim->out);
}

/* ------------------------------------------------------------ farblkd */

static void
processes_start(const char *lease)
{
    char listen[300];
    const char *const args[] = {
        "--listen", listen, "--export", "disk=ramdisk:d?size=4M",
        "--lease",  lease,  NULL};
    snprintf(socket_path, sizeof socket_path, "%s", support_path("socket"));
    snprintf(listen, sizeof listen, "ipc://%s", socket_path);
    daemon_start(&server, args);
}

static unsigned
processes_descriptors(pid_t pid)
{
    char path[64];
    unsigned count = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

/* How many regions the process has mapped. */
static unsigned
processes_regions(pid_t pid)
{
    char line[512];
    unsigned count = 0;
    snprintf(line, sizeof line, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(line, "r");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps) != NULL)
        count += strstr(line, "/memfd:farblk") != NULL;
    fclose(maps);
    return count;
}

static uint64_t
processes_resident(pid_t pid)
{
    char path[64];
    unsigned long size, resident;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu %lu", &size, &resident), 2);
    fclose(file);
    return (uint64_t)resident * PAGE;
}

static void
processes_moment(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* Others: one that shares memory, one that does not. */
static struct farblk *others[2];

static void
others_open(void)
{
    ok(farblk_open(processes_uri("&shm=require"), NULL, &others[0]));
    ok(farblk_open(processes_uri("&shm=off"), NULL, &others[1]));
}

static void
others_work(unsigned rounds)
{
    uint8_t out[PAGE], back[PAGE];
    for (unsigned i = 0; i < 2 * rounds; i++) {
        uint64_t sector = SECTORS / 2 + i % 256 * 8;
        pattern_fill(out, PAGE, i);
        ok(support_write(others[i % 2], sector, out, PAGE, 0));
        ok(support_read(others[(i / 2) % 2], sector, back, PAGE));
        assert_memory_equal(out, back, PAGE);
    }
}

static void
others_close(void)
{
    for (unsigned i = 0; i < 2; i++)
        ok(farblk_close(others[i]));
}

/* ------------------------------------------------------------ stopped */

static void
stopped_client_costs_nobody_anything_and_goes_on(void **state)
{
    struct victim victim;
    (void)state;
    processes_start("600000");
    others_open();
    others_work(50);
    for (unsigned round = 0; round < 6; round++) {
        victim_start(&victim, round % 2 == 0 ? "works" : "sits");
        if (round % 2 == 0)
            assert_int_equal(victim_hear(&victim), '.');
        victim_stop(&victim);
        others_work(20);
        uint64_t before = processes_resident(server.pid);
        others_work(300);
        uint64_t after = processes_resident(server.pid);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        assert_true(after < before + (16u << 20));
#endif
        (void)before, (void)after;
        assert_int_equal(kill(victim.pid, SIGCONT), 0);
        for (unsigned i = 0; i < 4; i++)
            assert_int_equal(victim_hear(&victim), '.');
        victim_kill(&victim);
    }
    others_close();
    daemon_stop(&server);
}

static void
server_can_be_ended_while_a_client_is_stopped(void **state)
{
    struct victim victim;
    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        processes_start("600000");
        victim_start(&victim, round == 0 ? "works" : "sits");
        victim_stop(&victim);
        daemon_stop(&server);
        assert_int_equal(kill(victim.pid, SIGCONT), 0);
        char what;
        while ((what = victim_hear(&victim)) == '.')
            ;
        assert_int_equal(what, 'L');
        victim_kill(&victim);
    }
}

static void
stopped_client_hears_that_its_lease_has_passed(void **state)
{
    struct victim victim;
    char what;
    (void)state;
    processes_start("1000");
    victim_start(&victim, "sits");
    victim_stop(&victim);
    daemon_wait_log(&server, "expired: ");
    while (processes_regions(server.pid) > 0)
        processes_moment();
    assert_int_equal(kill(victim.pid, SIGCONT), 0);
    /* What was answered before is answered. */
    while ((what = victim_hear(&victim)) == '.')
        ;
    assert_int_equal(what, 'L');
    victim_kill(&victim);
    daemon_stop(&server);
}

/* ------------------------------------------------------------ killed */

static void
killed_clients_leave_nothing_behind(void **state)
{
    struct rng rng = {.state = 20261128};
    unsigned descriptors = 0, regions = 0;
    (void)state;
    processes_start("600000");
    others_open();
    others_work(10);
    for (unsigned round = 0; round < 12; round++) {
        struct victim victim[2];
        for (unsigned i = 0; i < 2; i++)
            victim_start(&victim[i], i == 0 ? "works" : "sits");
        uint64_t moments = rng_below(&rng, 5);
        while (moments-- > 0)
            processes_moment();
        for (unsigned i = 0; i < 2; i++)
            victim_kill(&victim[i]);
        others_work(10);
        if (round == 0) {
            while (processes_regions(server.pid) > 1)
                processes_moment();
            regions = processes_regions(server.pid);
        }
        while (processes_regions(server.pid) > regions)
            processes_moment();
        if (round < 2)
            descriptors = processes_descriptors(server.pid);
        while (processes_descriptors(server.pid) > descriptors)
            processes_moment();
    }
    others_close();
    while (processes_regions(server.pid) > 0)
        processes_moment();
    daemon_stop(&server);
}

struct waiter {
    pthread_t thread;
    struct farblk *dev;
    unsigned kind;
    int status;
};

static void *
waiter_run(void *arg)
{
    struct waiter *waiter = arg;
    uint8_t page[PAGE];
    struct iovec iov = {page, PAGE};
    struct farblk_completion done = {.status = 1};
    struct farblk_queue *queue;
    const struct farblk_request request = {
        .size = sizeof request,
        .op = waiter->kind % 2 == 0 ? FARBLK_OP_READ : FARBLK_OP_FLUSH,
        .dev = waiter->dev,
        .iov = waiter->kind % 2 == 0 ? &iov : NULL,
        .iovcnt = waiter->kind % 2 == 0,
    };
    if (waiter->kind == 0) {
        waiter->status = farblk_read(waiter->dev, 0, &iov, 1);
        return NULL;
    }
    if (farblk_queue_create(4, &queue) != 0)
        return NULL;
    struct pollfd waits = {.events = POLLIN};
    if (waiter->kind >= 3)
        waits.fd = farblk_queue_fd(queue);
    if (farblk_submit(queue, &request) == 0)
        while (farblk_collect(queue, &done, sizeof done, 1,
                              waiter->kind >= 3 ? 0 : -1)
               == 0)
            poll(&waits, 1, -1);
    waiter->status = done.status;
    farblk_queue_destroy(queue);
    return NULL;
}

static void
server_that_is_killed_wakes_every_waiter(void **state)
{
    enum { WAITERS = 10 };
    unsigned descriptors = 0;
    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        struct waiter waiters[WAITERS];
        struct farblk *dev[2];
        processes_start("600000");
        for (unsigned i = 0; i < 2; i++)
            ok(farblk_open(processes_uri("&shm=require"), NULL, &dev[i]));
        assert_int_equal(processes_regions(getpid()), 2);
        daemon_pause(&server);
        for (unsigned i = 0; i < WAITERS; i++) {
            waiters[i] =
                (struct waiter){.dev = dev[i / 5], .kind = i % 5, .status = 1};
            assert_int_equal(pthread_create(&waiters[i].thread, NULL,
                                            waiter_run, &waiters[i]),
                             0);
        }
        for (unsigned i = 0; i < 20; i++)
            processes_moment(); /* most of them wait by then */
        daemon_kill(&server);
        for (unsigned i = 0; i < WAITERS; i++) {
            pthread_join(waiters[i].thread, NULL);
            assert_int_equal(waiters[i].status, FARBLK_DISCONNECTED);
        }
        for (unsigned i = 0; i < 2; i++)
            ok(farblk_close(dev[i]));
        assert_int_equal(processes_regions(getpid()), 0);
        if (round < 2)
            descriptors = processes_descriptors(getpid());
        while (processes_descriptors(getpid()) > descriptors)
            processes_moment(); /* nng closes in its own time */
    }
}

static int
setup(void **state)
{
    (void)state;
    support_watch("shm_processes");
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, daemon_clean)

int
main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "victim") == 0)
        return victim_run(argv[2], strcmp(argv[3], "works") == 0);
    const struct CMUnitTest tests[] = {
        TEST(stopped_client_costs_nobody_anything_and_goes_on),
        TEST(server_can_be_ended_while_a_client_is_stopped),
        TEST(stopped_client_hears_that_its_lease_has_passed),
        TEST(killed_clients_leave_nothing_behind),
        TEST(server_that_is_killed_wakes_every_waiter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
