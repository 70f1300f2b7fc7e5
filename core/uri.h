/* SPDX-License-Identifier: ISC */
/*
 * Device URIs.
 *
 *   scheme ":" path [ "?" parameters ]
 *   scheme "://" [ user "@" ] [ host [ ":" port ] ] "/" path [ "?" parameters ]
 *
 * The path and the values of parameters are percent-decoded; `,` `?` `#` `%`
 * in them must be percent-encoded, and a decoded NUL is refused.  Parameters
 * are separated by `&`.  Which there are, each driver tells by a table; ro,
 * sync and timeout belong to all.  Sizes read as 4k 1M 2G 1T (powers of 1024).
 */
#ifndef FARBLK_CORE_URI_H
#define FARBLK_CORE_URI_H

#include "core/error.h"

#include <stdbool.h>
#include <stdint.h>

#define URI_LENGTH_MAX 8192
#define URI_PARAMS_MAX 32

enum uri_param_kind {
    URI_BOOL, /* 0 or 1 */
    URI_NUMBER, /* decimal, within min ... max */
    URI_SIZE, /* octets with suffix, within min ... max */
    URI_STRING, /* any, not empty */
    URI_CHOICE, /* one of `choices` */
};

/* One parameter that a driver knows.  Tables end with .name == NULL. */
struct uri_param {
    const char *name;
    enum uri_param_kind kind;
    uint64_t min, max; /* NUMBER, SIZE; max 0: no limit */
    const char *choices; /* CHOICE: separated by "|" */
    const char *help; /* one line */
};

struct uri_value {
    const struct uri_param *param;
    char *text; /* decoded */
    uint64_t number; /* BOOL, NUMBER, SIZE; CHOICE: the index */
};

struct uri {
    char *text; /* as given */
    char *scheme; /* lower case */
    bool has_authority; /* "//" was there */
    char *user; /* decoded; NULL when none */
    char *host; /* "" when none; IPv6 without its brackets */
    uint16_t port; /* 0 when none */
    char *path; /* decoded; with an authority, without its leading '/' */
    size_t value_count;
    struct uri_value value[URI_PARAMS_MAX];
};

/* Only the scheme, for choosing the driver: a pointer to static text or into
 * nothing is never returned; fills `scheme`. */
int uri_scheme(const char *text, char *scheme, size_t size,
               struct error *error);

/* Parse; `params` is the driver's table (the common ones are added).  On
 * failure nothing is to be freed. */
int uri_parse(const char *text, const struct uri_param *params, struct uri *uri,
              struct error *error);
void uri_free(struct uri *uri);

/* The value, or NULL / the default when it was not given. */
const struct uri_value *uri_get(const struct uri *uri, const char *name);
const char *uri_string(const struct uri *uri, const char *name,
                       const char *fallback);
uint64_t uri_number(const struct uri *uri, const char *name, uint64_t fallback);
bool uri_bool(const struct uri *uri, const char *name, bool fallback);

/* Parse "4k", "1M", "512"; false when malformed or above UINT64_MAX. */
bool uri_parse_size(const char *text, uint64_t *size);

/* A device name: [A-Za-z0-9._-]{1,255}. */
bool uri_name_valid(const char *name);

/* A copy of the URI, with lock=1 if it is a file's and does not say; free() it.
 * NULL without memory. */
char *uri_locked(const char *text);

/* The parameters that every scheme has. */
extern const struct uri_param uri_common_params[];

#endif
