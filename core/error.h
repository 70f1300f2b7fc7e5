/* SPDX-License-Identifier: ISC */
/*
 * An error on its way to the caller: status, effect and text in one value.
 * Set where most is known, with the call, the values and the limit; passed up
 * unchanged.  last_error_* put it where farblk_last_text() finds it.
 */
#ifndef FARBLK_CORE_ERROR_H
#define FARBLK_CORE_ERROR_H

#include "farblk/farblk.h"

#include <stdarg.h>

struct error {
    int status; /* 0 or a negative enum farblk_status */
    enum farblk_effect effect; /* meaningful when status is not 0 */
    char text[FARBLK_TEXT_MAX];
};

/* No error; the text becomes "". */
void error_clear(struct error *error);

/* Set status (negative) and text, effect NONE.  Returns status.  `error` may
 * be NULL when nobody asks for the text. */
int error_set(struct error *error, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

int error_vset(struct error *error, int status, const char *format,
               va_list args) __attribute__((format(printf, 3, 0)));

/* The status that stands for an errno. */
int error_status_of_errno(int errnum);

/* As error_set() with the status of errnum; ": strerror" is appended. */
int error_set_errno(struct error *error, int errnum, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A status number from outside (the wire): known ones unchanged, 0 is 0, all
 * others FARBLK_UNKNOWN. */
int error_known_status(int64_t status);

/* Copy a text from outside into `to` (capacity `size`), bounded, with control
 * characters and invalid UTF-8 replaced by '?'. */
void error_copy_text(char *to, size_t size, const char *from, size_t length);

/* This thread's last error. */
int last_error_set(const struct error *error); /* returns error->status */
void last_error_clear(void);
int last_error_fail(int status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
