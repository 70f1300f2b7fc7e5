/* SPDX-License-Identifier: ISC */
/*
 * Errors: their texts, their names, and the last one of each thread.
 */
#include "core/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define TEXT_(number) #number
#define TEXT(number) TEXT_(number)

static const char *const status_names[] = {
    "OK",
    "UNKNOWN",
    "UNIMPLEMENTED",
    "IS_READ_ONLY",
    "DISCONNECTED",
    "INVALID",
    "NOT_FOUND",
    "DENIED",
    "NO_SPACE",
    "NO_MEMORY",
    "IO",
    "TIMED_OUT",
    "BUSY",
    "CONFLICT",
    "CORRUPT",
    "PROTOCOL",
    "CONNECTION_LOST",
    "EXISTS",
    "NOT_A_VALUE",
    "NOT_A_DIRECTORY",
    "APPEND_ONLY",
};

#define STATUS_COUNT (sizeof status_names / sizeof status_names[0])

static _Thread_local struct error last_error;

const char *
farblk_status_name(int status)
{
    if (status > 0 || status <= -(int)STATUS_COUNT)
        return "UNKNOWN";
    return status_names[-status];
}

const char *
farblk_version(void)
{
    return TEXT(FARBLK_VERSION_MAJOR) "." TEXT(FARBLK_VERSION_MINOR) "." TEXT(
        FARBLK_VERSION_PATCH);
}

const char *
farblk_last_text(void)
{
    return last_error.text;
}

enum farblk_effect
farblk_last_effect(void)
{
    return last_error.effect;
}

int
error_known_status(int64_t status)
{
    if (status > 0 || status <= -(int64_t)STATUS_COUNT)
        return FARBLK_UNKNOWN;
    return (int)status;
}

void
error_clear(struct error *error)
{
    error->status = 0;
    error->effect = FARBLK_EFFECT_NONE;
    error->text[0] = '\0';
}

int
error_vset(struct error *error, int status, const char *format, va_list args)
{
    if (error == NULL)
        return status;
    /* The arguments may point into error->text itself. */
    char text[FARBLK_TEXT_MAX];
    if (vsnprintf(text, sizeof text, format, args) < 0)
        text[0] = '\0';
    memcpy(error->text, text, sizeof text);
    error->status = status;
    error->effect = FARBLK_EFFECT_NONE;
    return status;
}

int
error_set(struct error *error, int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    error_vset(error, status, format, args);
    va_end(args);
    return status;
}

int
error_status_of_errno(int errnum)
{
    switch (errnum) {
    case ENOENT:
    case ENOTDIR:
    case ENODEV:
    case ENXIO:
        return FARBLK_NOT_FOUND;
    case EACCES:
    case EPERM:
        return FARBLK_DENIED;
    case EROFS:
        return FARBLK_IS_READ_ONLY;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return FARBLK_NO_SPACE;
    case ENOMEM:
        return FARBLK_NO_MEMORY;
    case EIO:
        return FARBLK_IO;
    case ETIMEDOUT:
        return FARBLK_TIMED_OUT;
    case EBUSY:
    case EAGAIN:
    case ETXTBSY:
    case EADDRINUSE:
        return FARBLK_BUSY;
    case EEXIST:
        return FARBLK_EXISTS;
    case EINVAL:
    case ENAMETOOLONG:
    case EISDIR:
    case ELOOP:
    case EOVERFLOW:
        return FARBLK_INVALID;
    case EOPNOTSUPP:
    case ENOSYS:
    case ENOTTY:
        return FARBLK_UNIMPLEMENTED;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
        return FARBLK_CONNECTION_LOST;
    default:
        return FARBLK_UNKNOWN;
    }
}

int
error_set_errno(struct error *error, int errnum, const char *format, ...)
{
    char text[FARBLK_TEXT_MAX];
    char reason[128];
    va_list args;
    va_start(args, format);
    if (vsnprintf(text, sizeof text, format, args) < 0)
        text[0] = '\0';
    va_end(args);
    return error_set(error, error_status_of_errno(errnum), "%s: %s", text,
                     strerror_r(errnum, reason, sizeof reason));
}

/* The length of the valid UTF-8 sequence at `s`, 0 when there is none. */
static size_t
utf8_length(const unsigned char *s, size_t left)
{
    size_t n;
    uint32_t code, least;
    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] <= 0xdf) {
        n = 2;
        code = s[0] & 0x1fu;
        least = 0x80;
    } else if (s[0] >= 0xe0 && s[0] <= 0xef) {
        n = 3;
        code = s[0] & 0x0fu;
        least = 0x800;
    } else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
        n = 4;
        code = s[0] & 0x07u;
        least = 0x10000;
    } else {
        return 0;
    }
    if (n > left)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (s[i] & 0x3fu);
    }
    if (code < least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return 0;
    return n;
}

void
error_copy_text(char *to, size_t size, const char *from, size_t length)
{
    const unsigned char *s = (const unsigned char *)from;
    size_t out = 0;
    if (size == 0)
        return;
    for (size_t in = 0; in < length && s[in] != '\0';) {
        size_t n = utf8_length(s + in, length - in);
        bool control = n == 1 && (s[in] < 0x20 || s[in] == 0x7f);
        /* C1 control characters are two octets: 0xc2 0x80 ... 0x9f. */
        control = control || (n == 2 && s[in] == 0xc2 && s[in + 1] < 0xa0);
        size_t room = n == 0 || control ? 1 : n;
        if (out + room >= size)
            break;
        if (n == 0 || control)
            to[out] = '?';
        else
            memcpy(to + out, s + in, n);
        out += room;
        in += n == 0 ? 1 : n;
    }
    to[out] = '\0';
}

int
last_error_set(const struct error *error)
{
    last_error.status = error->status;
    last_error.effect = error->effect;
    snprintf(last_error.text, sizeof last_error.text, "%s", error->text);
    return error->status;
}

void
last_error_clear(void)
{
    error_clear(&last_error);
}

int
last_error_fail(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    error_vset(&last_error, status, format, args);
    va_end(args);
    return status;
}
