/* SPDX-License-Identifier: ISC */
/*
 * From a message to what it asks for.
 */
#ifndef FARBLK_SERVER_DISPATCH_H
#define FARBLK_SERVER_DISPATCH_H

#include "server/call.h"

/* A message begins: decode and check, and say where its payload goes.  An
 * error waits for dispatch_frame(). */
void dispatch_head(struct call *call, const struct link_head *head,
                   struct link_sink *sink);

/* The message is complete: execute it.  The call is not the caller's any
 * more. */
void dispatch_frame(struct call *call);

/* Whether a method changes something, so that a repetition of its request gets
 * the first outcome instead of a second execution. */
bool dispatch_changes(uint32_t method);

#endif
