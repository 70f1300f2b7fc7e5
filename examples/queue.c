/* SPDX-License-Identifier: ISC */
/*
 * Checksum of a whole device, with many reads in flight: queue URI
 *
 * One thread, one queue.  Each slot is a buffer with one read under way; when
 * a read completes, its data is added to the sum and the slot reads the next
 * piece.  Replies may come in any order, so the sum is one that does not mind:
 * each piece's hash begins with where the piece is, and the hashes are added.
 */
#include <farblk/farblk.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { SLOTS = 16, PIECE = 1 << 20 };

struct slot {
    uint64_t sector;
    struct iovec iov; /* must live as long as its read is in flight */
    void *memory;
};

struct job {
    struct farblk *dev;
    struct farblk_queue *queue;
    struct farblk_info info;
    uint64_t next; /* sector of the next piece */
    uint64_t sum;
    int failed;
    struct slot slot[SLOTS];
};

static uint64_t
hash_piece(const struct slot *slot)
{
    const unsigned char *data = slot->memory;
    uint64_t hash = UINT64_C(14695981039346656037) ^ slot->sector;

    for (size_t i = 0; i < slot->iov.iov_len; i++)
        hash = (hash ^ data[i]) * UINT64_C(1099511628211);
    return hash;
}

/* Let the slot read the next piece, if one is left and nothing has failed. */
static void
read_next(struct job *job, struct slot *slot)
{
    uint64_t left = job->info.size_sectors - job->next;
    uint64_t count = PIECE / job->info.sector_size;

    if (left == 0 || job->failed)
        return;
    if (count > left)
        count = left;
    slot->sector = job->next;
    slot->iov = (struct iovec){.iov_base = slot->memory,
                               .iov_len = count * job->info.sector_size};
    struct farblk_request request = {
        .size = sizeof request,
        .op = FARBLK_OP_READ,
        .dev = job->dev,
        .sector = slot->sector,
        .iov = &slot->iov,
        .iovcnt = 1,
        .user = slot,
    };
    if (farblk_submit(job->queue, &request) < 0) {
        fprintf(stderr, "queue: %s\n", farblk_last_text());
        job->failed = 1;
        return;
    }
    job->next += count;
}

/* Until nothing is in flight any more: after an error the reads that are under
 * way still end here, for they use the slots' memory. */
static void
run(struct job *job)
{
    struct farblk_completion done[SLOTS];
    int n;

    for (size_t i = 0; i < SLOTS; i++)
        read_next(job, &job->slot[i]);
    while ((n = farblk_collect(job->queue, done, sizeof done[0], SLOTS, -1))
           > 0)
        for (int i = 0; i < n; i++) {
            struct slot *slot = done[i].user;
            if (done[i].status < 0) {
                fprintf(stderr, "queue: sector %" PRIu64 ": %s\n", slot->sector,
                        done[i].text);
                job->failed = 1;
                continue;
            }
            job->sum += hash_piece(slot);
            read_next(job, slot);
        }
    if (n < 0) {
        fprintf(stderr, "queue: %s\n", farblk_last_text());
        job->failed = 1;
    }
}

static int
checksum(struct job *job)
{
    size_t have = 0;

    if (farblk_get_info(job->dev, &job->info, sizeof job->info) < 0
        || farblk_queue_create(SLOTS, &job->queue) < 0) {
        fprintf(stderr, "queue: %s\n", farblk_last_text());
        return 1;
    }
    while (have < SLOTS) {
        void *memory = farblk_buffer_alloc(job->dev, PIECE);
        if (memory == NULL)
            break;
        job->slot[have++].memory = memory;
    }
    if (have == SLOTS)
        run(job);
    else {
        fprintf(stderr, "queue: %s\n", farblk_last_text());
        job->failed = 1;
    }
    /* The queue first: it waits for what is in flight. */
    farblk_queue_destroy(job->queue);
    while (have > 0)
        farblk_buffer_free(job->dev, job->slot[--have].memory, PIECE);
    if (!job->failed)
        printf("%016" PRIx64 "  %" PRIu64 " sectors of %" PRIu32 " octets\n",
               job->sum, job->info.size_sectors, job->info.sector_size);
    return job->failed;
}

int
main(int argc, char **argv)
{
    struct farblk_options options = {.size = sizeof options, .read_only = true};
    static struct job job;

    if (argc != 2) {
        fprintf(stderr, "usage: queue URI\n");
        return 2;
    }
    if (farblk_open(argv[1], &options, &job.dev) < 0) {
        fprintf(stderr, "queue: %s\n", farblk_last_text());
        return 1;
    }
    int status = checksum(&job);
    if (farblk_close(job.dev) < 0) {
        fprintf(stderr, "queue: %s\n", farblk_last_text());
        return 1;
    }
    return status;
}
