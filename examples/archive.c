/* SPDX-License-Identifier: ISC */
/* Keep a value in an archive on a device: archive ramdisk:a KEY TEXT */
#include <farblk/tar.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int
failed(const char *what)
{
    fprintf(stderr, "archive: %s: %s\n", what, farblk_last_text());
    return 1;
}

static int
print_entry(void *arg, const struct farblk_tar_entry *entry)
{
    (void)arg;
    printf("%10llu %s\n", (unsigned long long)entry->stat->size, entry->key);
    return 0;
}

static int
use(struct farblk_tar *tar, const char *key, const char *text)
{
    void *value;
    uint64_t size;

    /* Stable when it returns; a key that exists is an error. */
    if (farblk_tar_set(tar, key, text, strlen(text)) < 0)
        return failed("set");
    if (farblk_tar_get(tar, key, 1 << 20, &value, &size) < 0)
        return failed("get");
    printf("%s is \"%s\"\n", key, (char *)value);
    free(value);
    return farblk_tar_iterate(tar, print_entry, NULL) < 0 ? failed("iterate")
                                                          : 0;
}

int
main(int argc, char **argv)
{
    struct farblk *dev;
    struct farblk_tar *tar;

    if (argc != 4) {
        fprintf(stderr, "usage: archive URI KEY TEXT\n");
        return 2;
    }
    if (farblk_open(argv[1], NULL, &dev) < 0)
        return failed("open");
    /* A device of zeros is an empty archive: nothing need be created. */
    int status = farblk_tar_open(dev, NULL, &tar) < 0
                     ? failed("tar_open")
                     : use(tar, argv[2], argv[3]);
    farblk_tar_close(tar);
    return farblk_close(dev) < 0 ? failed("close") : status;
}
