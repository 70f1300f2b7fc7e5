/* SPDX-License-Identifier: ISC */
/*
 * Bursts: completions that a thread delivers one after the other.
 *
 * A driver whose thread finds several ios done puts their completion between
 * burst_begin() and burst_end().  Who is told of them may then put off what is
 * cheaper done once for all of them, such as sending replies, until the end.
 */
#ifndef FARBLK_CORE_BURST_H
#define FARBLK_CORE_BURST_H

#include <stdbool.h>

/* A burst of this thread; they nest, and the outermost counts. */
void burst_begin(void);
/* Do what was put off; that may put off more, which is done as well. */
void burst_end(void);
bool burst_now(void);

/* Within a burst: call run(arg) at its end, or earlier when much else was put
 * off.  False: it was asked for already, and once is enough. */
bool burst_later(void (*run)(void *arg), void *arg);

#endif
