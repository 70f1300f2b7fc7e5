/* SPDX-License-Identifier: ISC */
/*
 * idle_clients N URI: opens a device N times, says "ready", and holds the
 * handles until its input ends.  What idle connections cost is seen from
 * outside.
 */
#include "farblk/farblk.h"

#include <stdio.h>
#include <stdlib.h>

int
main(int argc, char **argv)
{
    size_t count = argc == 3 ? strtoul(argv[1], NULL, 10) : 0;
    struct farblk **handles = calloc(count + 1, sizeof *handles);
    int status = 0;

    if (count == 0 || handles == NULL) {
        fprintf(stderr, "usage: idle_clients N URI\n");
        free(handles);
        return 2;
    }
    for (size_t i = 0; i < count && status == 0; i++) {
        status = farblk_open(argv[2], NULL, &handles[i]);
        if (status < 0)
            fprintf(stderr, "idle_clients: handle %zu: %s\n", i + 1,
                    farblk_last_text());
    }
    if (status == 0) {
        puts("ready");
        fflush(stdout);
        while (getchar() != EOF)
            ;
    }
    for (size_t i = 0; i < count; i++)
        farblk_close(handles[i]);
    free(handles);
    return status < 0;
}
