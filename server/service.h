/* SPDX-License-Identifier: ISC */
/*
 * What whoever starts farblkd wants to know of it: a file with its process id,
 * and the messages of systemd's notification protocol.
 */
#ifndef FARBLK_SERVER_SERVICE_H
#define FARBLK_SERVER_SERVICE_H

#include <stdbool.h>

/* Write the process id, whole or not at all.  False with a line on stderr. */
bool service_write_pid(const char *path);

/* Send a state ("READY=1") to $NOTIFY_SOCKET, if there is one.  Failing is
 * told on stderr and otherwise without consequence. */
void service_notify(const char *state);

#endif
