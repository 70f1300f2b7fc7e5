/* SPDX-License-Identifier: ISC */
/*
 * farblk read and write: octets between a device and a file, in order.
 *
 * Both move the data through a ring of buffers (ring.h).  read keeps the ring
 * full of requests and writes the oldest buffer out as soon as it is there;
 * write fills the next free buffer while the others are on their way.  So the
 * device works while the file does, and memory is bounded whatever the length.
 *
 * Only whole sectors are moved.  Where the input's length is known (a regular
 * file), it is checked before anything is written; from a pipe, whole sectors
 * are written as they come, and an odd tail is an error that names it.
 */
#include "tools/args.h"
#include "tools/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Write all of it to a descriptor.  0 or an errno. */
static int
file_write(int fd, const unsigned char *data, size_t length)
{
    while (length > 0) {
        ssize_t count = write(fd, data, length);

        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return errno;
        data += count;
        length -= (size_t)count;
    }
    return 0;
}

/* Read until `length` or the end.  How much there was, or -1 and errno. */
static ssize_t
file_read(int fd, unsigned char *data, size_t length)
{
    size_t filled = 0;

    while (filled < length) {
        ssize_t count = read(fd, data + filled, length - filled);

        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return -1;
        if (count == 0)
            break;
        filled += (size_t)count;
    }
    return (ssize_t)filled;
}

static int
read_all(const struct tool_device *device, uint64_t offset, uint64_t length,
         int fd, const char *file)
{
    uint64_t next = offset, end = offset + length, begun = 0, put = 0;
    struct ring ring;
    int result = ring_begin(&ring, device, FARBLK_OP_READ, 0), errnum;

    if (result != TOOL_FINE)
        return result;
    while (ring.result == TOOL_FINE && (next < end || put < begun)) {
        struct ring_slot *slot;

        while (ring.result == TOOL_FINE && next < end
               && begun - put < RING_DEPTH) {
            slot = &ring.slot[begun % RING_DEPTH];
            slot->offset = next;
            slot->iov.iov_len = end - next < ring.request_size
                                    ? (size_t)(end - next)
                                    : ring.request_size;
            ring_submit(&ring, slot);
            next += slot->iov.iov_len;
            begun++;
        }
        slot = &ring.slot[put % RING_DEPTH];
        ring_wait(&ring, slot);
        if (ring.result != TOOL_FINE)
            break;
        errnum = file_write(fd, slot->iov.iov_base, slot->iov.iov_len);
        if (errnum != 0)
            ring.result = tool_fail_errno(errnum, "%s", file);
        put++;
    }
    ring_end(&ring);
    return ring.result;
}

static int
write_all(const struct tool_device *device, uint64_t offset, uint32_t flags,
          int fd, const char *file)
{
    uint32_t sector = device->info.sector_size;
    uint64_t next = offset;
    struct ring ring;
    int result = ring_begin(&ring, device, FARBLK_OP_WRITE, flags);
    size_t odd = 0, turn;

    if (result != TOOL_FINE)
        return result;
    for (turn = 0; ring.result == TOOL_FINE; turn++) {
        struct ring_slot *slot = &ring.slot[turn % RING_DEPTH];
        uint64_t room = device->size - next;
        ssize_t filled;

        ring_wait(&ring, slot);
        if (ring.result != TOOL_FINE)
            break;
        /* At the device's end one octet more tells whether that was all. */
        filled = file_read(fd, slot->iov.iov_base,
                           room == 0                  ? 1
                           : room < ring.request_size ? (size_t)room
                                                      : ring.request_size);
        if (filled < 0) {
            ring.result = tool_fail_errno(errno, "%s", file);
            break;
        }
        if (filled > 0 && room == 0) {
            ring.result = tool_fail(
                FARBLK_INVALID,
                "%s is longer than what the device has from octet %llu on, "
                "%llu octets, which were written",
                file, (unsigned long long)offset,
                (unsigned long long)(device->size - offset));
            break;
        }
        odd = (size_t)filled % sector;
        slot->offset = next;
        slot->iov.iov_len = (size_t)filled - odd;
        if (slot->iov.iov_len > 0)
            ring_submit(&ring, slot);
        next += slot->iov.iov_len;
        if ((uint64_t)filled < ring.request_size && (uint64_t)filled < room)
            break; /* the input's end */
        if (filled == 0)
            break;
    }
    /* The oldest first. */
    for (size_t i = 1; i <= RING_DEPTH && ring.result == TOOL_FINE; i++)
        ring_wait(&ring, &ring.slot[(turn + i) % RING_DEPTH]);
    if (ring.result == TOOL_FINE && odd != 0)
        ring.result = tool_fail(
            FARBLK_INVALID,
            "%s ends with %zu octets that are no whole sector of %u; they were "
            "not written; %llu octets before them were",
            file, odd, sector, (unsigned long long)(next - offset));
    ring_end(&ring);
    return ring.result;
}

/* What can be known before the first octet is written. */
static int
write_check(const struct tool_device *device, uint64_t offset, int fd,
            const char *file)
{
    struct stat stat;
    off_t at;

    if (!device->info.read_write)
        return tool_fail(FARBLK_IS_READ_ONLY, "%s is read-only", device->uri);
    if (fstat(fd, &stat) != 0 || !S_ISREG(stat.st_mode))
        return tool_check_range(device, offset, 0);
    at = lseek(fd, 0, SEEK_CUR);
    if (at < 0 || at > stat.st_size)
        at = stat.st_size;
    if ((stat.st_size - at) % (off_t)device->info.sector_size != 0)
        return tool_fail(FARBLK_INVALID,
                         "%s has %lld octets, which is not a whole number of "
                         "sectors of %u; nothing was written",
                         file, (long long)(stat.st_size - at),
                         device->info.sector_size);
    return tool_check_range(device, offset, (uint64_t)(stat.st_size - at));
}

static int
read_run(const struct command *command, int argc, char **argv)
{
    bool has_length = false;
    uint64_t offset = 0, length = 0;
    const char *uri, *file = "-";
    const struct args_option options[] = {
        {.name = "offset",
         .kind = ARGS_SIZE,
         .metavar = "SIZE",
         .help = "where to begin, in octets (0)",
         .value = &offset},
        {.name = "length",
         .kind = ARGS_SIZE,
         .metavar = "SIZE",
         .help = "how many octets (all to the end)",
         .value = &length,
         .given = &has_length},
        {.name = "output",
         .letter = 'o',
         .kind = ARGS_TEXT,
         .metavar = "FILE",
         .help = "where to; - is standard output (-)",
         .value = &file},
        {0},
    };
    struct tool_device device;
    int result = args_parse(command, argc, argv, options, &uri, 1);
    int fd = STDOUT_FILENO;

    if (result >= 0)
        return result;
    result = tool_open(&device, uri, true);
    if (result != TOOL_FINE)
        return result;
    if (!has_length && offset <= device.size)
        length = device.size - offset;
    result = tool_check_range(&device, offset, length);
    if (result == TOOL_FINE && strcmp(file, "-") != 0) {
        fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (fd < 0)
            result = tool_fail_errno(errno, "%s", file);
    }
    if (result == TOOL_FINE)
        result = read_all(&device, offset, length, fd,
                          fd == STDOUT_FILENO ? "standard output" : file);
    if (fd != STDOUT_FILENO && fd >= 0 && close(fd) != 0 && result == TOOL_FINE)
        result = tool_fail_errno(errno, "%s", file);
    tool_close(&device);
    return result;
}

static int
write_run(const struct command *command, int argc, char **argv)
{
    bool fua = false;
    uint64_t offset = 0;
    const char *uri, *file = "-";
    const struct args_option options[] = {
        {.name = "offset",
         .kind = ARGS_SIZE,
         .metavar = "SIZE",
         .help = "where to begin, in octets (0)",
         .value = &offset},
        {.name = "input",
         .letter = 'i',
         .kind = ARGS_TEXT,
         .metavar = "FILE",
         .help = "where from; - is standard input (-)",
         .value = &file},
        {.name = "fua",
         .kind = ARGS_FLAG,
         .help = "return when it is on stable storage",
         .value = &fua},
        {0},
    };
    struct tool_device device;
    const char *label;
    int result = args_parse(command, argc, argv, options, &uri, 1);
    int fd = STDIN_FILENO;

    if (result >= 0)
        return result;
    if (strcmp(file, "-") != 0) {
        fd = open(file, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return tool_fail_errno(errno, "%s", file);
    }
    label = fd == STDIN_FILENO ? "standard input" : file;
    result = tool_open(&device, uri, false);
    if (result == TOOL_FINE) {
        result = write_check(&device, offset, fd, label);
        if (result == TOOL_FINE)
            result =
                write_all(&device, offset, fua ? FARBLK_FUA : 0, fd, label);
        tool_close(&device);
    }
    if (fd != STDIN_FILENO)
        close(fd);
    return result;
}

const struct command command_read = {
    .name = "read",
    .summary = "copy octets of a device to a file or a pipe",
    .operands = "URI",
    .notes = "Offset and length must be whole sectors.\n",
    .example = "  farblk read farblk://host/disk0 --offset 1M --length 4k "
               "| hexdump -C\n",
    .run = read_run,
};

const struct command command_write = {
    .name = "write",
    .summary = "copy a file or a pipe to a device",
    .operands = "URI",
    .notes = "Offset and input must be whole sectors.  Without --fua the data "
             "is stable\nafter farblk flush.\n",
    .example = "  farblk write farblk://host/disk0 --offset 1M -i data.bin\n",
    .run = write_run,
};
