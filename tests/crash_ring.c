/* SPDX-License-Identifier: ISC */
/* See crash_ring.h. */
#include "tests/crash_ring.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SHIM "tests/libcrash_shim.so"
/* On a busy machine an answer may take its time. */
#define PATIENT "connect_timeout=60000"

/* Those that run, for what a failed test leaves. */
static pid_t children[CRASH_LANES];
static struct crash_ring *current;

static const char *const event_names[CRASH_EVENTS] = {
    [CRASH_CUT] = "power cut",
    [CRASH_KILL] = "farblkd killed",
    [CRASH_KILL_CUT] = "farblkd killed, then a power cut",
    [CRASH_STOP_CUT] = "farblkd stopped, then a power cut",
    [CRASH_RESTART] = "power cut and restart under the writers",
    [CRASH_PAUSE] = "a pause",
};

static const char *const fault_names[CRASH_FAULTS] = {
    [CRASH_NO_FAULT] = "no fault",
    [CRASH_NO_SPACE] = "ENOSPC",
    [CRASH_BAD_WRITE] = "EIO of writes",
    [CRASH_BAD_SYNC] = "EIO of a sync",
};

/* ------------------------------------------------------------ farblkd */

/* A lock of one that was killed ends when the kernel has done with its requests,
 * so it may be there for a moment. */
static void
ring_start_daemon(struct crash_ring *ring)
{
    const char *args[] = {
        "--listen", ring->listen, "--listen", "tcp://127.0.0.1:0",
        "--export", ring->export, NULL};
    char preload[600], asan[1024];
    const char *build = getenv("FARBLK_BUILD"),
               *before = getenv("ASAN_OPTIONS");
    bool up = false;

    if (ring->plant != NULL) {
        snprintf(preload, sizeof preload, "%s/" SHIM,
                 build != NULL && build[0] != '\0' ? build
                                                   : FARBLK_TESTS_BUILD);
        snprintf(asan, sizeof asan, "%s%sverify_asan_link_order=0",
                 before != NULL ? before : "", before != NULL ? ":" : "");
        setenv("LD_PRELOAD", preload, 1);
        setenv("FARBLK_PLANT", ring->plant, 1);
        setenv("ASAN_OPTIONS", asan, 1);
    }
    for (unsigned tries = 0; !up && tries < 2000; tries++) {
        up = daemon_try(&ring->daemon, args);
        if (!up && daemon_count_log(&ring->daemon, "has locked") == 0)
            break;
        ring->tally.locked += !up;
        if (!up)
            nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    if (ring->plant != NULL) {
        unsetenv("LD_PRELOAD");
        unsetenv("FARBLK_PLANT");
    }
    if (!up) {
        char *log = daemon_read_log(&ring->daemon);

        print_error("farblkd did not come up:\n%s\n", log);
        free(log);
        fail();
    }
    snprintf(ring->tcp_uri, sizeof ring->tcp_uri,
             "farblk://%.64s/disk?" PATIENT,
             ring->daemon.url[1] + strlen("tcp://"));
    ring->running = true;
    ring->flush_failed = ORACLE_NEVER;
}

void
crash_ring_start(struct crash_ring *ring, const struct crash_setup *setup,
                 const char *plant, uint64_t seed)
{
    memset(ring, 0, sizeof *ring);
    ring->setup = setup;
    ring->plant = plant;
    ring->rng.state = seed;
    current = ring;
    lossy_start(&ring->lossy, CRASH_FIXED * TAGGED_SECTOR,
                CRASH_MOST * TAGGED_SECTOR, seed, setup->cache);
    ring->shared = crash_shared_create();
    ring->oracle = oracle_create(CRASH_FIXED);
    const char *socket = support_path("s");
    snprintf(ring->listen, sizeof ring->listen, "ipc://%s", socket);
    snprintf(ring->unix_uri, sizeof ring->unix_uri,
             "farblk+unix:///disk?socket=%s&" PATIENT, socket);
    snprintf(ring->export, sizeof ring->export, "disk=file:%s?%s",
             ring->lossy.disk, setup->more);
    ring_start_daemon(ring);
}

void
crash_ring_stop(struct crash_ring *ring)
{
    current = NULL;
    if (ring->daemon.pid != 0) {
        /* 1: a sync has failed, and it says so. */
        kill(ring->daemon.pid, SIGTERM);
        assert_in_range(daemon_wait(&ring->daemon), 0, 1);
    }
    lossy_stop(&ring->lossy);
    oracle_destroy(ring->oracle);
    munmap(ring->shared, sizeof *ring->shared);
}

void
crash_ring_abandon(void)
{
    for (unsigned i = 0; i < CRASH_LANES; i++)
        if (children[i] > 0) {
            kill(children[i], SIGKILL);
            while (waitpid(children[i], NULL, 0) < 0 && errno == EINTR)
                ;
            children[i] = 0;
        }
    daemon_kill_all();
    if (current != NULL)
        lossy_stop(&current->lossy);
    current = NULL;
}

/* ------------------------------------------------------------ writers */

static void
ring_start_writer(struct crash_ring *ring, const struct crash_round *round,
                  unsigned lane)
{
    /* The child's copy. */
    static struct crash_writer writer;

    writer = (struct crash_writer){
        .lane = lane,
        .seed = rng_next(&ring->rng),
        .numbers = ring->numbers,
        .sync = ring->setup->sync,
        .resizes = lane == 0 && !ring->setup->fixed ? round->resizes : 0,
        .may_zero = round->may_zero,
        .flushes = round->flushes,
        .fuas = round->fuas,
        .drop_fua = round->drop_fua,
    };
    snprintf(writer.uri, sizeof writer.uri, "%s",
             round->event == CRASH_RESTART || rng_below(&ring->rng, 2) == 0
                 ? ring->unix_uri /* the port is another one afterwards */
                 : ring->tcp_uri);
    ring->numbers += CRASH_OPS;
    children[lane] = crash_writer_start(ring->shared, &writer);
}

static void
ring_reap(unsigned lane, int options)
{
    pid_t pid;

    if (children[lane] == 0)
        return;
    do
        pid = waitpid(children[lane], NULL, options);
    while (pid < 0 && errno == EINTR);
    if (pid != 0)
        children[lane] = 0;
}

static bool
ring_any_writer(void)
{
    bool any = false;

    for (unsigned i = 0; i < CRASH_LANES; i++) {
        ring_reap(i, WNOHANG);
        any |= children[i] != 0;
    }
    return any;
}

/* Let them work until the clock has gone so far, or all have ended. */
static void
ring_work(struct crash_ring *ring, uint64_t until)
{
    while (ring->shared->clock < until && ring_any_writer())
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* They end by themselves. */
static void
ring_finish_writers(struct crash_ring *ring)
{
    ring->shared->stop = true;
    for (unsigned i = 0; i < CRASH_LANES; i++)
        ring_reap(i, 0);
}

static void
ring_kill_writers(void)
{
    for (unsigned i = 0; i < CRASH_LANES; i++)
        if (children[i] != 0) {
            kill(children[i], SIGKILL);
            ring_reap(i, 0);
        }
}

/* ------------------------------------------------------------ a round */

struct crash_round
crash_ring_choose(struct crash_ring *ring)
{
    struct rng *rng = &ring->rng;
    struct crash_round round = {
        .writers = 2 + (unsigned)rng_below(rng, 3),
        .ticks = 60 + rng_below(rng, 1200),
        .flushes = 4u << rng_below(rng, 7),
        .fuas = 4u << rng_below(rng, 7),
        .resizes = 8u << rng_below(rng, 4),
        .kill_writer = rng_below(rng, 3) == 0,
        .may_zero = rng_below(rng, 4) != 0,
    };
    uint64_t event = rng_below(rng, 10), fault = rng_below(rng, 10);

    round.event = event < 4   ? CRASH_CUT
                  : event < 5 ? CRASH_RESTART
                  : event < 6 ? CRASH_KILL
                  : event < 7 ? CRASH_KILL_CUT
                  : event < 9 ? CRASH_STOP_CUT
                              : CRASH_PAUSE;
    round.fault = fault < 4   ? CRASH_NO_FAULT
                  : fault < 6 ? CRASH_NO_SPACE
                  : fault < 7 ? CRASH_BAD_WRITE
                              : CRASH_BAD_SYNC;
    /* What a killed one had asked for may still happen while we look; and after
     * a failed sync no flush ever goes well. */
    if (round.event == CRASH_PAUSE
        && (round.kill_writer || round.fault == CRASH_BAD_SYNC))
        round.event = CRASH_CUT;
    return round;
}

static void
ring_set_fault(struct crash_ring *ring, enum crash_fault fault)
{
    unsigned after = (unsigned)rng_below(&ring->rng, 200);
    unsigned times = 1 + (unsigned)rng_below(&ring->rng, 5);

    lossy_command(&ring->lossy, "fail write %d 0 0", EIO);
    lossy_command(&ring->lossy, "fail zero %d 0 0", EIO);
    lossy_command(&ring->lossy, "fail sync %d 0 0", EIO);
    switch (fault) {
    case CRASH_NO_SPACE:
    case CRASH_BAD_WRITE:
        lossy_command(&ring->lossy, "fail write %d %u %u",
                      fault == CRASH_NO_SPACE ? ENOSPC : EIO, after, times);
        lossy_command(&ring->lossy, "fail zero %d %u %u",
                      fault == CRASH_NO_SPACE ? ENOSPC : EIO, after / 8, times);
        break;
    case CRASH_BAD_SYNC:
        lossy_command(&ring->lossy, "fail sync %d %u 1", EIO, after / 20);
        break;
    case CRASH_NO_FAULT:
    case CRASH_FAULTS:
        break;
    }
}

/* The event; the writers have ended afterwards, and farblkd, if ring->running
 * does not say otherwise.  *flushed: it says that it has flushed all. */
static void
ring_event(struct crash_ring *ring, enum crash_event event, bool *flushed)
{
    switch (event) {
    case CRASH_CUT:
        lossy_command(&ring->lossy, "cut");
        /* Some see it, others are cut off with it. */
        ring_work(ring, ring->shared->clock + rng_below(&ring->rng, 40));
        daemon_kill(&ring->daemon);
        break;
    case CRASH_KILL:
    case CRASH_KILL_CUT:
        daemon_kill(&ring->daemon);
        break;
    case CRASH_STOP_CUT:
        ring_finish_writers(ring);
        kill(ring->daemon.pid, SIGTERM);
        *flushed = daemon_wait(&ring->daemon) == 0;
        break;
    case CRASH_RESTART:
        lossy_command(&ring->lossy, "cut");
        daemon_kill(&ring->daemon);
        ring->restarted = crash_tick(ring->shared);
        lossy_command(&ring->lossy, "on");
        ring_start_daemon(ring);
        /* What they are told from now on must hold as well. */
        ring_work(ring, ring->shared->clock + 100 + rng_below(&ring->rng, 200));
        ring_finish_writers(ring);
        return;
    case CRASH_PAUSE:
    case CRASH_EVENTS:
        ring_finish_writers(ring);
        return;
    }
    ring->running = false;
    if (event == CRASH_KILL_CUT || event == CRASH_STOP_CUT)
        lossy_command(&ring->lossy, "cut");
    ring_kill_writers();
}

/* Flushes that went well after one had failed. */
static bool
ring_check_flushes(struct crash_ring *ring)
{
    uint64_t *failed = &ring->flush_failed;

    for (int pass = 0; pass < 2; pass++)
        for (unsigned i = 0; i < CRASH_LANES; i++) {
            const struct crash_lane *lane = &ring->shared->lane[i];

            for (uint32_t k = 0; k < lane->count; k++) {
                const struct crash_op *op = &lane->ops[k];

                if (op->op != FARBLK_OP_FLUSH || op->ended == 0)
                    continue;
                if (pass == 0
                    && (op->status == FARBLK_IO
                        || op->status == FARBLK_NO_SPACE)
                    && op->ended < *failed)
                    *failed = op->ended;
                if (pass == 1 && op->status == 0 && op->begun > *failed) {
                    snprintf(ring->text, sizeof ring->text,
                             "a flush (%llu to %llu) went well after one had "
                             "failed (at %llu)",
                             (unsigned long long)op->begun,
                             (unsigned long long)op->ended,
                             (unsigned long long)*failed);
                    return false;
                }
            }
        }
    return true;
}

static bool
round_cuts(const struct crash_round *round)
{
    return round->event != CRASH_KILL && round->event != CRASH_PAUSE;
}

static void
ring_count(struct crash_ring *ring, const struct crash_round *round)
{
    struct crash_tally *tally = &ring->tally;

    tally->rounds++;
    tally->cuts += round_cuts(round);
    tally->server_kills +=
        round->event != CRASH_PAUSE && round->event != CRASH_STOP_CUT;
    tally->stops += round->event == CRASH_STOP_CUT;
    tally->client_kills += round->kill_writer;
    for (unsigned i = 0; i < CRASH_LANES; i++) {
        const struct crash_lane *lane = &ring->shared->lane[i];

        tally->ops += lane->count;
        for (uint32_t k = 0; k < lane->count; k++)
            tally->flushes += lane->ops[k].op == FARBLK_OP_FLUSH;
    }
    tally->failed_syncs = lossy_number(&ring->lossy, "failed-syncs");
    tally->failed_writes = lossy_number(&ring->lossy, "failed-writes")
                           + lossy_number(&ring->lossy, "failed-zeroes");
}

/* Look at all of the device by a fresh client. */
static bool
ring_read(struct crash_ring *ring)
{
    int status;
    pid_t reader = crash_reader_start(ring->shared, ring->unix_uri);

    while (waitpid(reader, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool
ring_look(struct crash_ring *ring, const struct crash_round *round,
          bool flushed)
{
    struct crash_shared *shared = ring->shared;
    /* After a restart there may be new writes, which are not durable. */
    bool restart = round->event == CRASH_RESTART;
    bool cut = round_cuts(round) && !restart;

    /* What the kernel still has to write for one that was killed goes well. */
    ring_set_fault(ring, CRASH_NO_FAULT);
    uint64_t failed = lossy_number(&ring->lossy, "failed-syncs");

    /* A collected write fails by the kernel's own sync, and is forgotten. */
    if (strcmp(ring->setup->cache, "back") == 0)
        failed += lossy_number(&ring->lossy, "failed-writes");
    oracle_take(ring->oracle, shared, ring->restarted);
    if (flushed)
        oracle_flushed(ring->oracle);
    if (!ring->running || restart) {
        oracle_server_ended(ring->oracle, crash_tick(shared),
                            restart || failed != ring->failed_syncs);
        ring->failed_syncs = failed;
    }
    if (shared->troubled) {
        snprintf(ring->text, sizeof ring->text, "%s", shared->trouble);
        return false;
    }
    /* A new farblkd has opened it anew. */
    if (!restart && !ring_check_flushes(ring))
        return false;
    if (cut)
        lossy_command(&ring->lossy, "on");
    if (!ring->running)
        ring_start_daemon(ring);
    if (!ring_read(ring)) {
        snprintf(ring->text, sizeof ring->text, "%s", shared->trouble);
        return false;
    }
    return oracle_judge(ring->oracle, shared, crash_tick(shared), cut,
                        ring->text, sizeof ring->text);
}

bool
crash_ring_round(struct crash_ring *ring, const struct crash_round *round)
{
    struct crash_shared *shared = ring->shared;
    unsigned writers = round->writers;
    uint64_t start = shared->clock;
    bool flushed = false;

    crash_shared_reset(shared);
    ring->restarted = ORACLE_NEVER;
    ring_set_fault(ring, round->fault);
    lossy_command(&ring->lossy, "delay %u",
                  (unsigned)rng_below(&ring->rng, 3) * 300);
    for (unsigned i = 0; i < writers; i++)
        ring_start_writer(ring, round, i);
    if (round->kill_writer) {
        ring_work(ring, start + round->ticks / 2);
        unsigned victim = (unsigned)rng_below(&ring->rng, writers);
        if (children[victim] != 0) {
            kill(children[victim], SIGKILL);
            ring_reap(victim, 0);
        }
        ring_start_writer(ring, round, writers);
    }
    ring_work(ring, start + round->ticks);
    ring_event(ring, round->event, &flushed);
    ring_count(ring, round);
    if (ring_look(ring, round, flushed))
        return true;
    size_t length = strlen(ring->text);
    snprintf(ring->text + length, sizeof ring->text - length,
             "\n    (%s; round %u: %s, %s, %u writers%s, a flush in %u, a FUA "
             "in %u, %llu ticks)",
             ring->setup->name, ring->tally.rounds, event_names[round->event],
             fault_names[round->fault], writers,
             round->kill_writer ? ", one killed" : "", round->flushes,
             round->fuas, (unsigned long long)round->ticks);
    return false;
}
