/* SPDX-License-Identifier: ISC */
/*
 * The pid file appears by a rename, so that whoever sees it can read it.  The
 * notification is one datagram, done by hand: no libsystemd.
 */
#include "server/service.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

bool
service_write_pid(const char *path)
{
    char *fresh, text[32];
    int length = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (asprintf(&fresh, "%s.new", path) < 0)
        return false;
    unlink(fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    bool good = fd >= 0 && fchmod(fd, 0644) == 0
                && write(fd, text, (size_t)length) == length;
    good = (fd < 0 || close(fd) == 0) && good;
    good = good && rename(fresh, path) == 0;
    if (!good) {
        fprintf(stderr, "farblkd: cannot write the pid file %s: %s\n", path,
                strerror(errno));
        if (fd >= 0)
            unlink(fresh);
    }
    free(fresh);
    return good;
}

void
service_notify(const char *state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    if (path == NULL || path[0] == '\0')
        return;
    size_t length = strlen(path);
    bool good =
        (path[0] == '/' || path[0] == '@') && length < sizeof address.sun_path;
    int fd = -1;
    if (good) {
        memcpy(address.sun_path, path, length);
        if (path[0] == '@')
            address.sun_path[0] = '\0';
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        good = fd >= 0
               && sendto(fd, state, strlen(state), MSG_NOSIGNAL,
                         (const struct sockaddr *)&address,
                         (socklen_t)(offsetof(struct sockaddr_un, sun_path)
                                     + length))
                      >= 0;
    } else {
        errno = EINVAL;
    }
    if (!good)
        fprintf(stderr, "farblkd: cannot notify %s: %s\n", path,
                strerror(errno));
    if (fd >= 0)
        close(fd);
}
