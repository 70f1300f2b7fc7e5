/* SPDX-License-Identifier: ISC */
/* Octets, rates and times as people read them; what comes from elsewhere made
 * safe for a terminal. */
#ifndef FARBLK_TOOLS_TEXT_H
#define FARBLK_TOOLS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Enough for each of the below. */
#define TEXT_SHORT 32

/* "512", "4 KiB", "1.5 GiB", into `buffer` of TEXT_SHORT, which it returns. */
const char *text_size(uint64_t octets, char *buffer);
/* "0:07", "1:02:03". */
const char *text_time(double seconds, char *buffer);

/* Print, with control characters as '?'. */
void text_print(FILE *file, const char *text);

/* Columns of the terminal behind `fd`, 80 when it does not say. */
unsigned text_columns(int fd);

/* Whether the locale is one of UTF-8. */
bool text_utf8(void);

/* Seconds of the monotonic clock. */
double text_now(void);

#endif
