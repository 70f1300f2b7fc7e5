/* SPDX-License-Identifier: ISC */
/*
 * A client of shared memory, by hand.
 */
#include "tests/shm_peer.h"

#include "core/timer.h"

#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

void
shm_peer_token(struct shm_peer *peer, const char *url, uint8_t *token)
{
    struct codec_reply reply;

    memset(peer, 0, sizeof *peer);
    peer->url = url;
    peer->bell = -1;
    peer_begin(&peer->peer, url);
    peer->handle = peer_open(&peer->peer, "disk");
    struct codec_request ask = peer_request(&peer->peer, WIRE_SHARE_MEMORY, 0);
    uint32_t id = peer_send(&peer->peer, &ask, NULL, 0);
    assert_int_equal(
        peer_wait(&peer->peer, id, WIRE_SHARE_MEMORY, &reply, NULL, 0), 0);
    memcpy(token, reply.result.share.token, SIDE_TOKEN);
}

int
shm_peer_hello(const char *url, const struct side_hello *hello,
               struct side_attached *attached, int *fd)
{
    struct error error;
    int side = side_connect(url, hello, &error);

    assert_true(side >= 0);
    int status = side_receive_attached(side, timer_now() + SUPPORT_PATIENCE_MS,
                                       attached, fd, &error);
    close(side);
    return status != 0 ? status : attached->status;
}

void
shm_peer_begin(struct shm_peer *peer, const char *url)
{
    struct side_hello hello = {.magic = SIDE_MAGIC,
                               .version = RING_VERSION,
                               .kind = SIDE_ATTACH,
                               .depth = 16,
                               .rings = 2,
                               .arena_octets = 1u << 20};
    struct error error;
    int fd;

    shm_peer_token(peer, url, hello.token);
    assert_int_equal(shm_peer_hello(url, &hello, &peer->attached, &fd), 0);
    peer->shape = (struct ring_shape){
        .depth = peer->attached.depth,
        .rings = peer->attached.rings,
        .ring_octets = peer->attached.ring_octets,
        .arena_at = peer->attached.arena_at,
        .arena_octets = peer->attached.arena_octets,
    };
    assert_true(ring_shape_valid(&peer->shape));
    assert_int_equal(peer->shape.depth, 16);
    assert_int_equal(peer->shape.rings, 2);
    peer->region = mmap(NULL, ring_region_octets(&peer->shape),
                        PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(peer->region != MAP_FAILED);
    close(fd);
    hello.kind = SIDE_RING;
    hello.ring = 0;
    memcpy(hello.token, peer->attached.key, SIDE_TOKEN);
    peer->bell = side_connect(url, &hello, &error);
    assert_true(peer->bell >= 0);
    peer->ring = ring_at(peer->region, &peer->shape, 0);
    peer->submissions = ring_submissions(peer->ring, peer->shape.depth);
    peer->completions = ring_completions(peer->ring, peer->shape.depth);
}

void
shm_peer_end(struct shm_peer *peer)
{
    if (peer->bell >= 0)
        close(peer->bell);
    if (peer->region != NULL)
        munmap(peer->region, ring_region_octets(&peer->shape));
    peer_end(&peer->peer);
}

struct ring_submission
shm_peer_read(const struct shm_peer *peer, uint32_t tag)
{
    return (struct ring_submission){
        .tag = tag,
        .method = WIRE_READ,
        .handle = peer->handle,
        .count = 1,
        .data = (uint64_t)tag * RING_PAGE,
    };
}

void
shm_peer_ring(struct shm_peer *peer)
{
    side_ring(peer->bell);
}

void
shm_peer_submit(struct shm_peer *peer, const struct ring_submission *submission)
{
    ring_publish(peer->submissions, peer->submitted++, submission);
    if (ring_wants_bell(&peer->ring->server_sleeps))
        shm_peer_ring(peer);
}

struct ring_completion
shm_peer_collect(struct shm_peer *peer)
{
    struct ring_completion completion;
    struct pollfd waits = {.fd = peer->bell, .events = POLLIN};
    enum ring_found found;

    while ((found = ring_look(peer->completions, peer->taken))
           == RING_NOTHING) {
        if (!ring_sleep(&peer->ring->client_sleeps, peer->completions,
                        peer->taken))
            continue;
        assert_int_equal(poll(&waits, 1, SUPPORT_PATIENCE_MS), 1);
        assert_true(side_hear(peer->bell));
    }
    assert_int_equal(found, RING_ENTRY);
    ring_take(peer->completions, peer->taken++, &completion);
    return completion;
}

void
shm_peer_wait_closed(struct shm_peer *peer)
{
    struct pollfd waits = {.fd = peer->bell, .events = POLLIN};

    do
        assert_int_equal(poll(&waits, 1, SUPPORT_PATIENCE_MS), 1);
    while (side_hear(peer->bell));
}
