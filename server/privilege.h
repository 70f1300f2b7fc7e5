/* SPDX-License-Identifier: ISC */
/*
 * Giving up root, for good.
 */
#ifndef FARBLK_SERVER_PRIVILEGE_H
#define FARBLK_SERVER_PRIVILEGE_H

#include "server/config.h"

/* Before there are threads: no program that is executed gains anything. */
bool privilege_begin(void);

/*
 * Become this user with this group, and the groups that the database gives the
 * user, in all threads; no capability stays.  Verified: neither root nor what
 * it was before can be had again.  False, with a line on stderr, when it is not
 * so; then the process must end.
 */
bool privilege_drop(const struct config_owner *owner);

#endif
