/* SPDX-License-Identifier: ISC */
/*
 * test_conformance [TRANSPORT [STORE ...]]: the conformance suite for each driver
 * of ways.c over one transport (local, ipc, shm, tcp, tls, inproc), or over all.
 */
#include "tests/conformance.h"

#include <stdio.h>

int
main(int argc, char **argv)
{
    int failed = 0, ran = 0;

    for (int t = 0; t < TRANSPORTS; t++)
        for (const struct store *store = stores; store->name != NULL; store++) {
            struct way way = {store, (enum transport)t};

            if (!way_wanted(&way, argc, argv))
                continue;
            if (store->usable != NULL && !store->usable()) {
                printf("%s is not usable here\n", store->name);
                continue;
            }
            ran++;
            failed += conformance_run(&way) != 0;
        }
    if (ran == 0) {
        fprintf(stderr, "usage: %s [TRANSPORT [STORE ...]]\n", argv[0]);
        return 2;
    }
    return failed != 0;
}
