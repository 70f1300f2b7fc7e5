/* SPDX-License-Identifier: ISC */
/*
 * Servers of shared memory that lie to the client: about the region, and in
 * completions.  The fake (fake.h) is the server, its side socket is a thread
 * here.
 */
#include "tests/fake.h"

#include "core/device.h"
#include "proto/side.h"
#include "tests/support.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* What is wrong with what it says. */
enum wrong {
    NOTHING,
    /* The region. */
    REGION_UNSEALED,
    REGION_SMALL,
    REGION_SHAPE,
    REGION_NO_MEMFD,
    REGION_REFUSED,
    REGION_MISSING,
    REGION_SILENT,
    REGION_LAST = REGION_SILENT,
    /* Completions. */
    DONE_SEQUENCE,
    DONE_TAG,
    DONE_TAG_IDLE,
    DONE_NUMBER,
    DONE_STATUS,
    DONE_EFFECT,
    DONE_TEXT,
    DONE_SEEK,
    DONE_SIZE,
    DONE_LAST = DONE_SIZE,
    RING_CLOSED,
};

struct side {
    struct fake fake;
    char url[200];
    enum wrong wrong;
    int listener, stop[2];
    pthread_t thread;
    struct ring_shape shape;
    uint8_t *region;
    uint64_t taken, completed;
    unsigned served;
};

static struct side side;

/* Wait for `fd`; false: the test wants the end. */
static bool
side_wait(int fd)
{
    struct pollfd waits[2] = {{.fd = fd, .events = POLLIN},
                              {.fd = side.stop[0], .events = POLLIN}};

    poll(waits, 2, -1);
    return waits[1].revents == 0;
}

static int
side_guest(struct side_hello *hello)
{
    int fd = -1;

    while (fd < 0) {
        if (!side_wait(side.listener))
            return -1;
        fd = side_accept(side.listener);
    }
    /* It came with the connection. */
    if (!side_wait(fd) || recv(fd, hello, sizeof *hello, 0) != sizeof *hello) {
        close(fd);
        return -1;
    }
    return fd;
}

static int
side_region(void)
{
    uint64_t octets = ring_region_octets(&side.shape);
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, fd;

    if (side.wrong == REGION_NO_MEMFD)
        return open("/dev/zero", O_RDWR | O_CLOEXEC);
    fd = memfd_create("fake", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0
        || ftruncate(fd,
                     (off_t)(side.wrong == REGION_SMALL ? octets / 2 : octets))
               != 0
        || (side.wrong != REGION_UNSEALED
            && fcntl(fd, F_ADD_SEALS, seals) != 0))
        abort();
    if (side.wrong != REGION_SMALL)
        side.region =
            mmap(NULL, octets, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return fd;
}

static void
side_attach(int guest)
{
    struct side_attached attached = {.magic = SIDE_MAGIC,
                                     .version = RING_VERSION};
    int fd = -1;

    if (side.wrong == REGION_SILENT) {
        close(guest);
        return;
    }
    side.shape.depth = 16;
    side.shape.rings = 1;
    side.shape.ring_octets = ring_octets(16);
    side.shape.arena_at = side.shape.ring_octets;
    side.shape.arena_octets = 1u << 20;
    if (side.wrong == REGION_REFUSED)
        attached.status = FARBLK_NO_SPACE;
    else if (side.wrong != REGION_MISSING)
        fd = side_region();
    attached.depth = side.wrong == REGION_SHAPE ? 24 : side.shape.depth;
    attached.rings = side.shape.rings;
    attached.ring_octets = side.shape.ring_octets;
    attached.arena_at = side.shape.arena_at;
    attached.arena_octets = side.shape.arena_octets;
    side_send_attached(guest, &attached, fd);
    if (fd >= 0)
        close(fd);
    close(guest);
}

static void
side_answer(struct ring *ring, int guest,
            const struct ring_submission *submission)
{
    struct ring_lane lane = ring_completions(ring, side.shape.depth);
    struct ring_completion done = {
        .tag = submission->tag,
        .number = submission->number,
        .generation = FAKE_GENERATION,
        .size_sectors = FAKE_SECTORS,
    };
    uint64_t position = side.completed++;

    if (submission->method == WIRE_READ)
        pattern_fill(side.region + side.shape.arena_at + submission->data,
                     submission->count * FAKE_SECTOR, submission->sector);
    done.value = submission->sector;
    if (side.served++ > 0) /* the first is fine */
        switch (side.wrong) {
        case DONE_SEQUENCE:
            position += 3 * side.shape.depth;
            break;
        case DONE_TAG:
            done.tag = UINT32_MAX;
            break;
        case DONE_TAG_IDLE:
            done.tag = (done.tag + 1) % side.shape.depth;
            break;
        case DONE_NUMBER:
            done.number++;
            break;
        case DONE_STATUS:
            done.status = 7;
            break;
        case DONE_EFFECT:
            done.status = FARBLK_IO;
            done.effect = 77;
            break;
        case DONE_TEXT:
            done.status = FARBLK_IO;
            done.text = 1u << 30;
            break;
        case DONE_SEEK:
            done.value = FAKE_SECTORS + 1;
            break;
        case DONE_SIZE:
            done.generation = FAKE_GENERATION + 1;
            done.size_sectors = UINT64_MAX;
            break;
        default:
            break;
        }
    ring_publish(lane, position, &done);
    if (ring_wants_bell(&ring->client_sleeps))
        side_ring(guest);
}

static void
side_serve(int guest)
{
    struct ring *ring = ring_at(side.region, &side.shape, 0);
    struct ring_lane lane = ring_submissions(ring, side.shape.depth);
    struct ring_submission submission;

    for (;;) {
        if (ring_look(lane, side.taken) == RING_ENTRY) {
            ring_take(lane, side.taken++, &submission);
            if (side.wrong == RING_CLOSED && side.served > 0)
                break; /* nothing is answered by it any more */
            side_answer(ring, guest, &submission);
        } else if (ring_sleep(&ring->server_sleeps, lane, side.taken)
                   && (!side_wait(guest) || !side_hear(guest))) {
            break;
        }
    }
    close(guest);
}

static void *
side_run(void *arg)
{
    struct side_hello hello;
    int guest;

    (void)arg;
    while ((guest = side_guest(&hello)) >= 0) {
        if (hello.kind == SIDE_ATTACH)
            side_attach(guest);
        else
            side_serve(guest);
    }
    return NULL;
}

static void
side_start(enum wrong wrong)
{
    const struct side_owner owner = {.mode = 0600};
    struct error error;

    memset(&side, 0, sizeof side);
    fake_start(&side.fake);
    side.fake.shares = true;
    side.wrong = wrong;
    snprintf(side.url, sizeof side.url, "abstract://%s", side.fake.name);
    side.listener = side_listen(side.url, &owner, &error);
    assert_true(side.listener >= 0);
    assert_int_equal(pipe(side.stop), 0);
    assert_int_equal(pthread_create(&side.thread, NULL, side_run, NULL), 0);
}

static void
side_end(void)
{
    assert_int_equal(write(side.stop[1], "", 1), 1);
    assert_int_equal(pthread_join(side.thread, NULL), 0);
    close(side.stop[0]);
    close(side.stop[1]);
    close(side.listener);
    if (side.region != NULL)
        munmap(side.region, ring_region_octets(&side.shape));
    fake_stop(&side.fake);
}

/* ------------------------------------------------------------ tests */

static void
region_that_is_not_what_it_should_be_is_not_used(void **state)
{
    static const char *const why[] = {
        [NOTHING] = "shared memory: ",        [REGION_UNSEALED] = "sealed",
        [REGION_SMALL] = "another size",      [REGION_SHAPE] = "shape",
        [REGION_NO_MEMFD] = "another size",   [REGION_REFUSED] = "NO_SPACE",
        [REGION_MISSING] = "none of version", [REGION_SILENT] = "closed",
    };

    (void)state;
    for (int wrong = NOTHING; wrong <= REGION_LAST; wrong++) {
        struct farblk *dev;

        side_start((enum wrong)wrong);
        ok(farblk_open(side.fake.uri, NULL, &dev));
        struct farblk_info info;
        handle_info(dev, &info); /* without asking the fake */
        if (strstr(info.way, why[wrong]) == NULL)
            fail_msg("\"%s\" is not in \"%s\"", why[wrong], info.way);
        assert_string_equal(info.transport,
                            wrong == NOTHING ? "shm" : "abstract");
        ok(farblk_close(dev));
        side_end();
    }
}

static void
completion_that_can_not_be_ends_the_device(void **state)
{
    (void)state;
    for (int wrong = DONE_SEQUENCE; wrong <= DONE_LAST; wrong++) {
        uint8_t sector[FAKE_SECTOR];
        struct farblk *dev;
        uint64_t found = 0;

        side_start((enum wrong)wrong);
        ok(farblk_open(side.fake.uri, NULL, &dev));
        ok(support_read(dev, 5, sector, FAKE_SECTOR));
        assert_int_equal(pattern_check(sector, FAKE_SECTOR, 5), FAKE_SECTOR);
        if (wrong == DONE_SEEK)
            fails_with(FARBLK_DISCONNECTED, farblk_seek_mapped(dev, 1, &found));
        else if (wrong == DONE_SIZE)
            /* The completion itself was one. */
            support_read(dev, 6, sector, FAKE_SECTOR);
        else
            fails_with(FARBLK_DISCONNECTED,
                       support_read(dev, 6, sector, FAKE_SECTOR));
        fails_with(FARBLK_DISCONNECTED,
                   support_read(dev, 7, sector, FAKE_SECTOR));
        text_has("PROTOCOL");
        text_has("shared memory");
        ok(farblk_close(dev));
        side_end();
    }
}

static void *
side_read(void *arg)
{
    static uint8_t sector[FAKE_SECTOR];
    intptr_t status = support_read(arg, 6, sector, FAKE_SECTOR);

    return (void *)(status != 0 ? status
                    : pattern_check(sector, FAKE_SECTOR, 6) == FAKE_SECTOR
                        ? 0
                        : (intptr_t)1);
}

static void
ring_that_is_closed_leaves_its_requests_to_the_socket(void **state)
{
    uint8_t sector[FAKE_SECTOR];
    struct farblk *dev;
    pthread_t reader;
    void *result;

    (void)state;
    side_start(RING_CLOSED);
    ok(farblk_open(side.fake.uri, NULL, &dev));
    ok(support_read(dev, 5, sector, FAKE_SECTOR));
    assert_int_equal(pthread_create(&reader, NULL, side_read, dev), 0);
    struct fake_request *request = fake_next(&side.fake);
    assert_int_equal(request->ask.method, WIRE_READ);
    assert_int_equal(request->ask.args.range.sector, 6);
    struct codec_reply reply = fake_blank(request);
    pattern_fill(sector, FAKE_SECTOR, 6);
    fake_reply(&side.fake, request, &reply, sector, FAKE_SECTOR);
    assert_int_equal(pthread_join(reader, &result), 0);
    assert_ptr_equal(result, NULL);
    ok(farblk_close(dev));
    side_end();
}

static int
setup(void **state)
{
    (void)state;
    support_watch("a hostile server of shared memory");
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    support_watch(NULL);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(region_that_is_not_what_it_should_be_is_not_used),
        TEST(completion_that_can_not_be_ends_the_device),
        TEST(ring_that_is_closed_leaves_its_requests_to_the_socket),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
