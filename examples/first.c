/* SPDX-License-Identifier: ISC */
/* Write a device's first sector and read it back: first ramdisk:scratch */
#include <farblk/farblk.h>

#include <stdio.h>
#include <string.h>

static int
failed(const char *what)
{
    fprintf(stderr, "first: %s: %s\n", what, farblk_last_text());
    return 1;
}

static int
try_device(struct farblk *dev)
{
    static char out[FARBLK_SECTOR_MAX] = "hello, block device";
    static char in[FARBLK_SECTOR_MAX];
    struct farblk_info info;

    if (farblk_get_info(dev, &info, sizeof info) < 0)
        return failed("get_info");
    printf("%llu sectors of %u octets, %s\n",
           (unsigned long long)info.size_sectors, info.sector_size,
           info.read_write ? "read and write" : "read only");

    struct iovec to = {.iov_base = out, .iov_len = info.sector_size};
    struct iovec from = {.iov_base = in, .iov_len = info.sector_size};
    if (farblk_write(dev, 0, &to, 1, 0) < 0)
        return failed("write");
    if (farblk_read(dev, 0, &from, 1) < 0)
        return failed("read");
    if (memcmp(out, in, info.sector_size) != 0) {
        fprintf(stderr, "first: what came back differs\n");
        return 1;
    }
    if (farblk_flush(dev) < 0)
        return failed("flush");
    printf("wrote, read back, compared and flushed one sector\n");
    return 0;
}

int
main(int argc, char **argv)
{
    struct farblk *dev;

    if (argc != 2) {
        fprintf(stderr, "usage: first URI\n");
        return 2;
    }
    if (farblk_open(argv[1], NULL, &dev) < 0)
        return failed("open");
    int status = try_device(dev);
    return farblk_close(dev) < 0 ? failed("close") : status;
}
