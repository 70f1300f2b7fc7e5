/* SPDX-License-Identifier: ISC */
/*
 * What one hand-over from a thread to another costs on this machine: by a
 * condition variable, and by an octet through a unix socket.  Two threads wake
 * each other in turn; a hand-over is half of a round.  Prints the medians of
 * several runs, in microseconds.
 *
 *   handover [ROUNDS]
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RUNS 15

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turn; /* whose it is */
static int sockets[2];
static long rounds = 5000;

static double
now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void
by_condition(int self)
{
    pthread_mutex_lock(&mutex);
    for (long i = 0; i < rounds; i++) {
        while (turn != self)
            pthread_cond_wait(&changed, &mutex);
        turn = !self;
        pthread_cond_signal(&changed);
    }
    pthread_mutex_unlock(&mutex);
}

static void
by_socket(int self)
{
    char octet = 0;
    for (long i = 0; i < rounds; i++) {
        if ((self == 0 && write(sockets[0], &octet, 1) != 1)
            || read(sockets[self], &octet, 1) != 1
            || (self == 1 && write(sockets[1], &octet, 1) != 1)) {
            perror("handover");
            exit(1);
        }
    }
}

static void *
other(void *arg)
{
    void (**way)(int) = arg;
    (*way)(1);
    return NULL;
}

static int
ascending(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double
median(void (*way)(int))
{
    double runs[RUNS];
    for (int i = 0; i < RUNS; i++) {
        pthread_t thread;
        turn = 0;
        double begin = now_us();
        if (pthread_create(&thread, NULL, other, &way) != 0) {
            fputs("handover: no thread\n", stderr);
            exit(1);
        }
        way(0);
        pthread_join(thread, NULL);
        runs[i] = (now_us() - begin) / (double)rounds / 2;
    }
    qsort(runs, RUNS, sizeof runs[0], ascending);
    return runs[RUNS / 2];
}

int
main(int argc, char **argv)
{
    if (argc > 2 || (argc == 2 && (rounds = atol(argv[1])) < 1)) {
        fputs("usage: handover [ROUNDS]\n", stderr);
        return 2;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) != 0) {
        perror("handover: socketpair");
        return 1;
    }
    printf("condition variable %.1f us\n", median(by_condition));
    printf("unix socket %.1f us\n", median(by_socket));
    return 0;
}
