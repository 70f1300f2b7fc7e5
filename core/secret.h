/* SPDX-License-Identifier: ISC */
/*
 * Files whose content decides who may do what: keys, tokens, certificates.
 * Reading them is bounded, follows one rule on permissions, and what was secret
 * is wiped before its memory is given back.  Texts tell of paths and modes,
 * never of contents.
 */
#ifndef FARBLK_CORE_SECRET_H
#define FARBLK_CORE_SECRET_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum secret_kind {
    SECRET_PUBLIC, /* a certificate: whoever likes may read it */
    SECRET_PRIVATE, /* nobody but its owner, who is this user or root */
};

/*
 * The whole of a regular file of 1 ... `most` octets, with a NUL behind it,
 * into fresh memory: secret_free() it.  `what` begins the texts ("the key").
 * Errors: those of opening, DENIED for a private file that others can get at,
 * INVALID for one that is empty, too long or not a file.
 */
int secret_read_file(const char *what, const char *path, enum secret_kind kind,
                     size_t most, char **text, size_t *length,
                     struct error *error);

/*
 * The token of a private file: one line of least ... `most` octets, without the
 * end of line behind it, into `token`, which is filled up with zeros.
 */
int secret_read_token(const char *path, uint32_t least, uint8_t *token,
                      uint32_t most, uint32_t *length, struct error *error);

/* Overwrite, in a way that no compiler leaves out. */
void secret_wipe(void *memory, size_t length);
/* Wipe and free; NULL is fine. */
void secret_free(char *text, size_t length);

/* Whether two are the same; takes the same time wherever they differ. */
bool secret_equal(const uint8_t *a, const uint8_t *b, size_t length);

#endif
