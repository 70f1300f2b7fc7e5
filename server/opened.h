/* SPDX-License-Identifier: ISC */
/*
 * Handles of sessions: an export opened by one client.
 *
 * A handle's number holds its session's serial number above and a count below,
 * so that a number of another session is never found, and one that was closed
 * is told from one that never was.  Closing happens in two steps: the core
 * handle is disconnected, which drains what is in flight; then the number goes,
 * and whoever waits is answered.  The core handle is freed by the housekeeper,
 * for that takes locks that opening a device may hold for long.
 */
#ifndef FARBLK_SERVER_OPENED_H
#define FARBLK_SERVER_OPENED_H

#include "server/session.h"

struct farblk;

struct opened {
    struct session *session;
    struct opened *next; /* session.mutex; or server.closing */
    struct export *export;
    struct farblk *dev;
    uint64_t number;
    uint32_t sector_size;
    atomic_uint refs;
    bool closing, gone; /* session.mutex */
    struct call *waiting; /* Disconnects; session.mutex */
};

/* Open the export that the call names for its session; sets call->opened and
 * request.value.  False: the call has failed. */
bool opened_open(struct call *call);

/* Under session.mutex: the session's handle of that number; a reference, or
 * NULL. */
struct opened *opened_find(struct session *session, uint64_t number);
/* Under session.mutex: whether the session had a handle of that number. */
bool opened_was(const struct session *session, uint64_t number);

struct opened *opened_get(struct opened *opened);
void opened_put(struct opened *opened);

/* What replies tell of its device: no driver is asked. */
void opened_shape(const struct opened *opened, uint64_t *generation,
                  uint64_t *size_sectors);

/* Disconnect it, if nobody does already.  `waiting`, if any, is finished when
 * nothing of the handle can land any more.  No lock held. */
void opened_close(struct opened *opened, struct call *waiting);

/* What is not begun of the handles of a fenced session will not be. */
void opened_revoke_all(struct session *session);
/* All handles of a fenced session. */
void opened_close_all(struct session *session);

/* The housekeeper: free the core handle of one that nobody refers to. */
void opened_free(struct opened *opened);

#endif
