/* SPDX-License-Identifier: ISC */
/*
 * The side socket: its address, connections, descriptors by SCM_RIGHTS.
 *
 * Every connection's server end is made by the server's own accept(): the client
 * holds no descriptor of it, so nothing that he does with his can make a send or
 * a receive of the server's wait.
 */
#include "proto/side.h"

#include "core/timer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SIDE_SUFFIX ".shm"
#define SIDE_BACKLOG 64

bool
side_possible(const char *url)
{
    return strncmp(url, "ipc://", 6) == 0
           || strncmp(url, "abstract://", 11) == 0;
}

/* Two hexadecimal digits, or -1. */
static int
side_octet(const char *digits)
{
    unsigned value = 0;
    for (int i = 0; i < 2; i++) {
        const char *all = "0123456789abcdef0123456789ABCDEF";
        const char *at = digits[i] != '\0' ? strchr(all, digits[i]) : NULL;
        if (at == NULL)
            return -1;
        value = value * 16 + (unsigned)(at - all) % 16;
    }
    return (int)value;
}

/* The address next to `url`'s; its length, or 0 when it does not fit. */
static socklen_t
side_address(const char *url, struct sockaddr_un *address)
{
    const size_t most = sizeof address->sun_path;
    const char *name = strstr(url, "://") + 3;
    bool abstract = url[0] == 'a';
    size_t length = 0;
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (abstract)
        length++; /* a zero begins it */
    for (; *name != '\0'; name++) {
        char octet = *name;
        if (abstract && octet == '%') { /* as nng reads it */
            int value = side_octet(name + 1);
            if (value < 0)
                return 0;
            octet = (char)value;
            name += 2;
        }
        if (length >= most)
            return 0;
        address->sun_path[length++] = octet;
    }
    if (length + sizeof SIDE_SUFFIX > most)
        return 0;
    memcpy(address->sun_path + length, SIDE_SUFFIX, sizeof SIDE_SUFFIX);
    length += sizeof SIDE_SUFFIX - 1;
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length
                       + (abstract ? 0 : 1));
}

static int
side_socket(const char *url, struct sockaddr_un *address, socklen_t *length,
            struct error *error)
{
    *length = side_address(url, address);
    if (*length == 0)
        return error_set(error, FARBLK_INVALID,
                         "the name of a side socket next to %.200s is too long",
                         url);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set_errno(error, errno, "a side socket");
    return fd;
}

/* Before anybody can connect. */
static bool
side_give(const char *path, const struct side_owner *owner)
{
    uid_t uid = owner->uid != 0 ? owner->uid : (uid_t)-1;
    gid_t gid = owner->gid != 0 ? owner->gid : (gid_t)-1;
    bool given = owner->uid != 0 || owner->gid != 0;
    return (!given || lchown(path, uid, gid) == 0)
           && chmod(path, (mode_t)owner->mode) == 0;
}

int
side_listen(const char *url, const struct side_owner *owner,
            struct error *error)
{
    struct sockaddr_un address;
    socklen_t length;
    struct stat found;
    int fd = side_socket(url, &address, &length, error);
    if (fd < 0)
        return fd;
    const char *path = address.sun_path;
    bool file = path[0] != '\0';
    if (file && lstat(path, &found) == 0 && S_ISSOCK(found.st_mode))
        unlink(path);
    /* Nobody can connect before listen(), and by then the mode is right. */
    if (bind(fd, (struct sockaddr *)&address, length) != 0
        || (file && !side_give(path, owner)) || listen(fd, SIDE_BACKLOG) != 0) {
        error_set_errno(error, errno, "the side socket next to %.200s", url);
        close(fd);
        return error->status;
    }
    return fd;
}

void
side_unlink(const char *url)
{
    struct sockaddr_un address;
    if (side_address(url, &address) != 0 && address.sun_path[0] != '\0')
        unlink(address.sun_path);
}

int
side_accept(int listener)
{
    return accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

bool
side_peer_uid(int fd, uint32_t *uid)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
        return false;
    *uid = peer.uid;
    return true;
}

int
side_connect(const char *url, const struct side_hello *hello,
             struct error *error)
{
    struct sockaddr_un address;
    socklen_t length;
    int fd = side_socket(url, &address, &length, error);
    if (fd < 0)
        return fd;
    if (connect(fd, (struct sockaddr *)&address, length) != 0)
        error_set_errno(error, errno, "connecting next to %.200s", url);
    else if (send(fd, hello, sizeof *hello, MSG_DONTWAIT | MSG_NOSIGNAL)
             != (ssize_t)sizeof *hello)
        error_set_errno(error, errno, "a hello next to %.200s", url);
    else
        return fd;
    close(fd);
    return error->status;
}

bool
side_send_attached(int to, const struct side_attached *attached, int fd)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)attached,
                        .iov_len = sizeof *attached};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    }
    return sendmsg(to, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
           == (ssize_t)sizeof *attached;
}

/* The one descriptor that a message brought, or -1; any others are closed. */
static int
side_descriptor(struct msghdr *message)
{
    int found = -1;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header != NULL;
         header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
            if (found < 0)
                found = fd;
            else
                close(fd);
        }
    }
    return found;
}

int
side_receive_attached(int from, int64_t until_ms,
                      struct side_attached *attached, int *fd,
                      struct error *error)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(4 * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = attached, .iov_len = sizeof *attached};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    *fd = -1;
    for (;;) {
        struct pollfd waits = {.fd = from, .events = POLLIN};
        int64_t left = until_ms - timer_now();
        if (left <= 0)
            return error_set(error, FARBLK_TIMED_OUT,
                             "the side socket does not answer in time");
        if (poll(&waits, 1, left < INT32_MAX ? (int)left : INT32_MAX) > 0)
            break;
    }
    ssize_t n = recvmsg(from, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return error_set_errno(error, errno, "the side socket");
    *fd = side_descriptor(&message);
    if (n == (ssize_t)sizeof *attached && attached->magic == SIDE_MAGIC
        && attached->version == RING_VERSION
        && (attached->status != 0) == (*fd < 0))
        return 0;
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    if (n == 0)
        return error_set(error, FARBLK_CONNECTION_LOST,
                         "the server closed the side socket");
    return error_set(error, FARBLK_PROTOCOL,
                     "the side socket answers %zd octets that are none of "
                     "version %d",
                     n, RING_VERSION);
}

void
side_ring(int fd)
{
    char octet = 1;
    (void)!send(fd, &octet, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

bool
side_hear(int fd)
{
    char octets[256];
    ssize_t n = recv(fd, octets, sizeof octets, MSG_DONTWAIT);
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}
