/* SPDX-License-Identifier: ISC */
/* Ending a long job cleanly on SIGINT and SIGTERM. */
#ifndef FARBLK_TOOLS_INTERRUPT_H
#define FARBLK_TOOLS_INTERRUPT_H

/* From now on the first SIGINT or SIGTERM is noted; the second ends the
 * process as usual.  A signal that is ignored stays so. */
void interrupt_catch(void);

/* The signal that came, or 0. */
int interrupt_signal(void);

#endif
