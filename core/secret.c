/* SPDX-License-Identifier: ISC */
/*
 * Reading keys and tokens.  The checks are made on the descriptor that is read,
 * so that nobody exchanges the file in between.
 */
#include "core/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void
secret_wipe(void *memory, size_t length)
{
    explicit_bzero(memory, length);
}

void
secret_free(char *text, size_t length)
{
    if (text != NULL)
        secret_wipe(text, length);
    free(text);
}

bool
secret_equal(const uint8_t *a, const uint8_t *b, size_t length)
{
    unsigned difference = 0;
    for (size_t i = 0; i < length; i++)
        difference |= (unsigned)(a[i] ^ b[i]);
    return difference == 0;
}

static int
check_file(const char *what, const char *path, enum secret_kind kind,
           size_t most, const struct stat *found, struct error *error)
{
    if (!S_ISREG(found->st_mode))
        return error_set(error, FARBLK_INVALID, "%s %.200s: not a regular file",
                         what, path);
    if (kind == SECRET_PRIVATE && (found->st_mode & 077) != 0)
        return error_set(error, FARBLK_DENIED,
                         "%s %.200s has mode %03o: group and others must have "
                         "no access to it (chmod 600)",
                         what, path, (unsigned)(found->st_mode & 07777));
    if (kind == SECRET_PRIVATE && found->st_uid != 0
        && found->st_uid != geteuid())
        return error_set(error, FARBLK_DENIED,
                         "%s %.200s belongs to uid %u, neither root nor this "
                         "user, %u",
                         what, path, (unsigned)found->st_uid,
                         (unsigned)geteuid());
    if (found->st_size == 0)
        return error_set(error, FARBLK_INVALID, "%s %.200s is empty", what,
                         path);
    if (found->st_size < 0 || (uint64_t)found->st_size > most)
        return error_set(error, FARBLK_INVALID,
                         "%s %.200s has %lld octets; at most %zu are taken",
                         what, path, (long long)found->st_size, most);
    return 0;
}

int
secret_read_file(const char *what, const char *path, enum secret_kind kind,
                 size_t most, char **text, size_t *length, struct error *error)
{
    struct stat found;
    size_t size, done = 0;
    ssize_t n = 1;
    /* A fifo must not keep us waiting. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return error_set_errno(error, errno, "%s %.200s", what, path);
    int status = fstat(fd, &found) != 0
                     ? error_set_errno(error, errno, "%s %.200s", what, path)
                     : check_file(what, path, kind, most, &found, error);
    if (status != 0) {
        close(fd);
        return status;
    }
    size = (size_t)found.st_size;
    *text = malloc(size + 1);
    while (*text != NULL && done < size && n > 0) {
        n = read(fd, *text + done, size - done);
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n > 0)
            done += (size_t)n;
    }
    int failure = n < 0 ? errno : EIO;
    close(fd);
    if (*text == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "%s %.200s: no memory", what,
                         path);
    if (done < size) {
        secret_free(*text, size + 1);
        *text = NULL;
        return error_set_errno(error, failure, "reading %s %.200s", what, path);
    }
    (*text)[size] = '\0';
    *length = size;
    return 0;
}

int
secret_read_token(const char *path, uint32_t least, uint8_t *token,
                  uint32_t most, uint32_t *length, struct error *error)
{
    char *text;
    size_t size;
    int status = secret_read_file("the token file", path, SECRET_PRIVATE,
                                  (size_t)most + 2, &text, &size, error);
    if (status != 0)
        return status;
    size_t n = size;
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    memset(token, 0, most);
    if (n < least || n > most) {
        status = error_set(error, FARBLK_INVALID,
                           "the token file %.200s has a token of %zu octets; "
                           "%u ... %u are taken",
                           path, n, least, most);
    } else {
        memcpy(token, text, n);
        *length = (uint32_t)n;
    }
    secret_free(text, size);
    return status;
}
