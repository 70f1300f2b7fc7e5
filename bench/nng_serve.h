/* SPDX-License-Identifier: ISC */
/* The server that nng_load measures. */
#ifndef FARBLK_BENCH_NNG_SERVE_H
#define FARBLK_BENCH_NNG_SERVE_H

#include "tools/bench_work.h"

#define NNG_SERVE_SIZE (256u << 20)

/* Serve `size` octets of memory at `url`, for ever.  Prints "ready" when it
 * listens.  Returns an exit status when it can not. */
int nng_serve(const char *url, uint64_t size);

#endif
