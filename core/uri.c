/* SPDX-License-Identifier: ISC */
/*
 * Device URIs: splitting, decoding, and checking against a driver's table.
 */
#include "core/uri.h"

#include "core/checked.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct uri_param uri_common_params[] = {
    {.name = "ro", .kind = URI_BOOL, .help = "1: refuse every change"},
    {.name = "sync",
     .kind = URI_BOOL,
     .help = "1: each change is stable when it completes"},
    {.name = "timeout",
     .kind = URI_NUMBER,
     .min = 1,
     .max = INT32_MAX,
     .help = "milliseconds that a request may take"},
    {.name = NULL},
};

/* Names in texts are bounded: a URI may be long and hostile. */
#define SHOWN 80

/* What of a hostile string may stand in a text. */
struct shown {
    char text[SHOWN + 4];
};

static struct shown
show(const char *text, size_t length)
{
    struct shown shown;
    error_copy_text(shown.text, SHOWN, text, length);
    if (length >= SHOWN)
        strcat(shown.text, "...");
    return shown;
}

static bool
is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool
uri_name_valid(const char *name)
{
    size_t n = 0;
    for (; name[n] != '\0'; n++) {
        char c = name[n];
        if (n == 255
            || !(is_alpha(c) || is_digit(c) || c == '.' || c == '_'
                 || c == '-'))
            return false;
    }
    return n > 0;
}

/* Decimal digits only; false when malformed or above UINT64_MAX. */
static bool
parse_digits(const char **at, uint64_t *number)
{
    const char *s = *at;
    uint64_t n = 0;
    if (!is_digit(*s))
        return false;
    for (; is_digit(*s); s++)
        if (!checked_mul(n, 10, &n)
            || !checked_add(n, (uint64_t)(*s - '0'), &n))
            return false;
    *at = s;
    *number = n;
    return true;
}

bool
uri_parse_size(const char *text, uint64_t *size)
{
    static const char suffixes[] = "kmgtpe";
    uint64_t n;
    if (!parse_digits(&text, &n))
        return false;
    if (*text != '\0') {
        char lower = (char)(*text | 0x20);
        const char *suffix = strchr(suffixes, lower);
        if (suffix == NULL || text[1] != '\0')
            return false;
        if (!checked_mul(n, UINT64_C(1) << (10 * (suffix - suffixes + 1)), &n))
            return false;
    }
    *size = n;
    return true;
}

int
uri_scheme(const char *text, char *scheme, size_t size, struct error *error)
{
    size_t n = 0;
    if (text == NULL)
        return error_set(error, FARBLK_INVALID, "the URI is NULL");
    if (strnlen(text, URI_LENGTH_MAX + 1) > URI_LENGTH_MAX)
        return error_set(error, FARBLK_INVALID,
                         "the URI is longer than %d octets", URI_LENGTH_MAX);
    while (is_alpha(text[n])
           || (n > 0
               && (is_digit(text[n]) || text[n] == '+' || text[n] == '-'
                   || text[n] == '.')))
        n++;
    if (n == 0 || text[n] != ':' || n >= size)
        return error_set(error, FARBLK_INVALID,
                         "\"%s\" is no URI: it does not begin with a scheme "
                         "and a colon",
                         show(text, strlen(text)).text);
    for (size_t i = 0; i < n; i++)
        scheme[i] =
            (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] | 0x20 : text[i]);
    scheme[n] = '\0';
    return 0;
}

static int
hex_digit(char c)
{
    if (is_digit(c))
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decode [from, from + length) into fresh memory. */
static int
decode(const char *from, size_t length, char **to, struct error *error)
{
    char *out = malloc(length + 1);
    size_t n = 0;
    if (out == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a URI");
    for (size_t i = 0; i < length; i++) {
        char c = from[i];
        if (c == '%') {
            int high = i + 2 < length ? hex_digit(from[i + 1]) : -1;
            int low = high < 0 ? -1 : hex_digit(from[i + 2]);
            if (high < 0 || low < 0) {
                free(out);
                return error_set(error, FARBLK_INVALID,
                                 "\"%s\" has a %% that two hexadecimal digits "
                                 "do not follow",
                                 show(from, length).text);
            }
            c = (char)(high << 4 | low);
            i += 2;
            if (c == '\0') {
                free(out);
                return error_set(error, FARBLK_INVALID,
                                 "\"%s\" has an encoded NUL",
                                 show(from, length).text);
            }
        }
        out[n++] = c;
    }
    out[n] = '\0';
    *to = out;
    return 0;
}

/* "ro sync timeout sector", for messages. */
static void
list_params(const struct uri_param *params, char *to, size_t size)
{
    const struct uri_param *tables[2] = {params, uri_common_params};
    size_t used = 0;
    to[0] = '\0';
    for (unsigned t = 0; t < 2; t++)
        for (const struct uri_param *p = tables[t];
             p != NULL && p->name != NULL && used < size; p++) {
            int n = snprintf(to + used, size - used, "%s%s",
                             used > 0 ? " " : "", p->name);
            used += n > 0 ? (size_t)n : 0;
        }
}

static const struct uri_param *
find_param(const struct uri_param *params, const char *name, size_t length)
{
    const struct uri_param *tables[2] = {params, uri_common_params};
    for (unsigned t = 0; t < 2; t++)
        for (const struct uri_param *p = tables[t];
             p != NULL && p->name != NULL; p++)
            if (strlen(p->name) == length && memcmp(p->name, name, length) == 0)
                return p;
    return NULL;
}

static bool
choice_index(const char *choices, const char *text, uint64_t *index)
{
    size_t length = strlen(text);
    for (uint64_t i = 0;; i++) {
        size_t n = strcspn(choices, "|");
        if (n == length && memcmp(choices, text, n) == 0) {
            *index = i;
            return true;
        }
        if (choices[n] == '\0')
            return false;
        choices += n + 1;
    }
}

/* Check value->text by its kind and set its number. */
static int
check_value(struct uri_value *value, struct error *error)
{
    const struct uri_param *param = value->param;
    const char *text = value->text;
    struct shown shown = show(text, strlen(text));
    switch (param->kind) {
    case URI_BOOL:
        if ((text[0] != '0' && text[0] != '1') || text[1] != '\0')
            return error_set(error, FARBLK_INVALID, "%s=%s: must be 0 or 1",
                             param->name, shown.text);
        value->number = text[0] == '1';
        return 0;
    case URI_NUMBER:
    case URI_SIZE: {
        const char *end = text;
        bool fine = param->kind == URI_SIZE
                        ? uri_parse_size(text, &value->number)
                        : parse_digits(&end, &value->number) && *end == '\0';
        if (!fine)
            return error_set(error, FARBLK_INVALID, "%s=%s: not a %s",
                             param->name, shown.text,
                             param->kind == URI_SIZE
                                 ? "size (a number, and k, M, G, T, P or E)"
                                 : "decimal number");
        if (value->number < param->min
            || (param->max != 0 && value->number > param->max))
            return error_set(
                error, FARBLK_INVALID, "%s=%s: must be %llu ... %llu",
                param->name, shown.text, (unsigned long long)param->min,
                (unsigned long long)(param->max != 0 ? param->max
                                                     : UINT64_MAX));
        return 0;
    }
    case URI_STRING:
        if (text[0] == '\0')
            return error_set(error, FARBLK_INVALID, "%s= is empty",
                             param->name);
        return 0;
    case URI_CHOICE:
        if (!choice_index(param->choices, text, &value->number))
            return error_set(error, FARBLK_INVALID, "%s=%s: must be one of %s",
                             param->name, shown.text, param->choices);
        return 0;
    }
    return error_set(error, FARBLK_UNKNOWN, "%s: unknown kind", param->name);
}

/* One "name=value" of `length` octets. */
static int
parse_param(struct uri *uri, const struct uri_param *params, const char *text,
            size_t length, struct error *error)
{
    const char *equals = memchr(text, '=', length);
    size_t name_length = equals == NULL ? length : (size_t)(equals - text);
    const struct uri_param *param = find_param(params, text, name_length);
    if (param == NULL) {
        char known[256];
        list_params(params, known, sizeof known);
        return error_set(error, FARBLK_INVALID,
                         "%s: unknown parameter \"%s\"; known are: %s",
                         uri->scheme, show(text, name_length).text, known);
    }
    if (equals == NULL)
        return error_set(error, FARBLK_INVALID, "parameter %s has no value",
                         param->name);
    if (uri_get(uri, param->name) != NULL)
        return error_set(error, FARBLK_INVALID, "parameter %s is given twice",
                         param->name);
    if (uri->value_count == URI_PARAMS_MAX)
        return error_set(error, FARBLK_INVALID, "more than %d parameters",
                         URI_PARAMS_MAX);
    struct uri_value *value = &uri->value[uri->value_count];
    int status =
        decode(equals + 1, length - name_length - 1, &value->text, error);
    if (status != 0)
        return status;
    value->param = param;
    value->number = 0;
    uri->value_count++;
    return check_value(value, error);
}

static int
parse_params(struct uri *uri, const struct uri_param *params, const char *text,
             struct error *error)
{
    for (;;) {
        size_t length = strcspn(text, "&");
        int status = parse_param(uri, params, text, length, error);
        if (status != 0)
            return status;
        if (text[length] == '\0')
            return 0;
        text += length + 1;
    }
}

/* [user@]host[:port] of `length` octets. */
static int
parse_authority(struct uri *uri, const char *text, size_t length,
                struct error *error)
{
    const char *end = text + length;
    const char *at = memchr(text, '@', length);
    if (at != NULL) {
        int status = decode(text, (size_t)(at - text), &uri->user, error);
        if (status != 0)
            return status;
        length -= (size_t)(at + 1 - text);
        text = at + 1;
    }
    const char *host = text, *host_end;
    bool bracketed = length > 0 && text[0] == '[';
    struct shown shown = show(text, length);
    if (bracketed) {
        host = text + 1;
        host_end = memchr(host, ']', length - 1);
        if (host_end == NULL)
            return error_set(error, FARBLK_INVALID, "\"%s\": [ without ]",
                             shown.text);
        text = host_end + 1;
    } else {
        host_end = memchr(text, ':', length);
        if (host_end == NULL)
            host_end = end;
        text = host_end;
    }
    for (const char *c = host; c < host_end; c++)
        if (!(is_alpha(*c) || is_digit(*c) || *c == '.' || *c == '-'
              || *c == '_' || (*c == ':' && bracketed)))
            return error_set(error, FARBLK_INVALID,
                             "\"%s\" is no host name or address", shown.text);
    uri->host = strndup(host, (size_t)(host_end - host));
    if (uri->host == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a URI");
    if (text == end)
        return 0;
    uint64_t port = 0;
    const char *digits = text + 1;
    if (*text != ':' || !parse_digits(&digits, &port) || digits != end
        || port == 0 || port > UINT16_MAX)
        return error_set(error, FARBLK_INVALID,
                         "\"%s\": a port is a number, 1 ... 65535", shown.text);
    uri->port = (uint16_t)port;
    return 0;
}

static int
parse_into(const char *text, const struct uri_param *params, struct uri *uri,
           struct error *error)
{
    char scheme[32];
    int status = uri_scheme(text, scheme, sizeof scheme, error);
    if (status != 0)
        return status;
    uri->text = strdup(text);
    uri->scheme = strdup(scheme);
    if (uri->text == NULL || uri->scheme == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a URI");
    text += strlen(scheme) + 1;

    const char *fragment = strchr(text, '#');
    if (fragment != NULL)
        return error_set(error, FARBLK_INVALID,
                         "\"%s\" has a #, which must be written %%23",
                         show(uri->text, strlen(uri->text)).text);
    const char *query = strchr(text, '?');
    size_t length = query != NULL ? (size_t)(query - text) : strlen(text);
    if (length >= 2 && text[0] == '/' && text[1] == '/') {
        const char *slash = memchr(text + 2, '/', length - 2);
        size_t authority =
            slash != NULL ? (size_t)(slash - text) - 2 : length - 2;
        uri->has_authority = true;
        status = parse_authority(uri, text + 2, authority, error);
        if (status != 0)
            return status;
        size_t skip = 2 + authority + (slash != NULL);
        text += skip;
        length -= skip;
    } else {
        uri->host = strdup("");
        if (uri->host == NULL)
            return error_set(error, FARBLK_NO_MEMORY, "no memory for a URI");
    }
    if (memchr(text, ',', length) != NULL)
        return error_set(error, FARBLK_INVALID,
                         "\"%s\" has a comma in its path, which must be "
                         "written %%2C",
                         show(uri->text, strlen(uri->text)).text);
    status = decode(text, length, &uri->path, error);
    if (status != 0 || query == NULL)
        return status;
    return parse_params(uri, params, query + 1, error);
}

int
uri_parse(const char *text, const struct uri_param *params, struct uri *uri,
          struct error *error)
{
    memset(uri, 0, sizeof *uri);
    int status = parse_into(text, params, uri, error);
    if (status != 0)
        uri_free(uri);
    return status;
}

void
uri_free(struct uri *uri)
{
    for (size_t i = 0; i < uri->value_count; i++)
        free(uri->value[i].text);
    free(uri->text);
    free(uri->scheme);
    free(uri->user);
    free(uri->host);
    free(uri->path);
    memset(uri, 0, sizeof *uri);
}

const struct uri_value *
uri_get(const struct uri *uri, const char *name)
{
    for (size_t i = 0; i < uri->value_count; i++)
        if (strcmp(uri->value[i].param->name, name) == 0)
            return &uri->value[i];
    return NULL;
}

const char *
uri_string(const struct uri *uri, const char *name, const char *fallback)
{
    const struct uri_value *value = uri_get(uri, name);
    return value != NULL ? value->text : fallback;
}

uint64_t
uri_number(const struct uri *uri, const char *name, uint64_t fallback)
{
    const struct uri_value *value = uri_get(uri, name);
    return value != NULL ? value->number : fallback;
}

bool
uri_bool(const struct uri *uri, const char *name, bool fallback)
{
    return uri_number(uri, name, fallback) != 0;
}

/* Whether the text has a parameter of that name ("lock="). */
static bool
has_param(const char *text, const char *param)
{
    const char *at = strchr(text, '?');
    size_t length = strlen(param);
    while (at != NULL) {
        if (strncmp(at + 1, param, length) == 0)
            return true;
        at = strchr(at + 1, '&');
    }
    return false;
}

char *
uri_locked(const char *text)
{
    char scheme[32], *whole;
    if (uri_scheme(text, scheme, sizeof scheme, NULL) != 0
        || strcmp(scheme, "file") != 0 || has_param(text, "lock="))
        return strdup(text);
    const char *separator = strchr(text, '?') == NULL ? "?" : "&";
    if (text[strlen(text) - 1] == '?')
        separator = "";
    if (asprintf(&whole, "%s%slock=1", text, separator) < 0)
        return NULL;
    return whole;
}
