/* SPDX-License-Identifier: ISC */
/*
 * The tar library by the word, for scripts that compare it with other tar
 * programs:
 *
 *   tar_do URI dump             one line for each current member, by key:
 *                               KEY KIND SIZE MTIME.NANO MODE LINK SHA256
 *   tar_do URI all              the same for all, in the archive's order; "-"
 *                               for those that others replaced
 *   tar_do URI get KEY          the value, to stdout
 *   tar_do URI COMMAND ...      create; set KEY FILE [KEY FILE ...];
 *                               allocate KEY SIZE; remove KEY;
 *                               rename KEY KEY; info
 *
 * Keys and links are told and taken percent-encoded.  Exit status: 0, or 1 with
 * the status's name and text on stderr.
 */
#include "farblk/tar.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int
failed(int status)
{
    fprintf(stderr, "%s: %s\n", farblk_status_name(status), farblk_last_text());
    return 1;
}

static void
print_encoded(const char *text)
{
    for (; *text != '\0'; text++)
        if (isalnum((unsigned char)*text) || strchr("/._-", *text) != NULL)
            putchar(*text);
        else
            printf("%%%02x", (unsigned char)*text);
}

static char *
decoded(char *text)
{
    char *to = text;
    for (const char *from = text; *from != '\0';) {
        unsigned octet;
        if (*from == '%' && sscanf(from + 1, "%2x", &octet) == 1) {
            *to++ = (char)octet;
            from += 3;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
    return text;
}

static const char *const kinds[] = {"nothing", "value",     "directory",
                                    "symlink", "character", "block",
                                    "fifo",    "lost"};

struct printing {
    struct farblk_tar *tar;
    bool all;
};

static int
print_entry(void *arg, const struct farblk_tar_entry *entry)
{
    const struct printing *printing = arg;
    const struct farblk_tar_stat *stat = entry->stat;
    uint8_t digest[FARBLK_TAR_DIGEST_SIZE];
    if (!printing->all && !entry->current)
        return 0;
    print_encoded(entry->key);
    printf(" %s %llu %lld.%09u %04o ", entry->current ? kinds[stat->kind] : "-",
           (unsigned long long)stat->size, (long long)stat->mtime,
           stat->mtime_nsec, stat->mode);
    print_encoded(entry->link[0] != '\0' ? entry->link : "-");
    putchar(' ');
    if (entry->current && stat->kind == FARBLK_TAR_VALUE) {
        int status = farblk_tar_digest(printing->tar, entry->key, digest);
        if (status < 0)
            return status;
        for (unsigned i = 0; i < sizeof digest; i++)
            printf("%02x", digest[i]);
    } else {
        putchar('-');
    }
    putchar('\n');
    return 0;
}

/* A whole file's content, allocated. */
static char *
read_file(const char *path, size_t *size)
{
    char *data = NULL;
    FILE *file = fopen(path, "rb");
    FILE *copy = open_memstream(&data, size);
    char part[65536];
    size_t n;
    if (file == NULL || copy == NULL) {
        perror(path);
        exit(1);
    }
    while ((n = fread(part, 1, sizeof part, file)) > 0)
        fwrite(part, 1, n, copy);
    fclose(file);
    fclose(copy);
    return data;
}

/* "9G" is as good as 9663676416. */
static uint64_t
octets(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    return *end == 'G' ? value << 30 : value;
}

static int
run(struct farblk_tar *tar, char **argv, int argc)
{
    const char *command = argv[0];
    struct printing printing = {tar, strcmp(command, "all") == 0};
    size_t size;
    if (strcmp(command, "dump") == 0 || printing.all)
        return farblk_tar_iterate(tar, print_entry, &printing);
    if (strcmp(command, "get") == 0 && argc == 2) {
        void *value;
        uint64_t length;
        int status =
            farblk_tar_get(tar, decoded(argv[1]), UINT64_MAX, &value, &length);
        if (status == 0)
            fwrite(value, 1, (size_t)length, stdout);
        if (status == 0)
            free(value);
        return status;
    }
    if (strcmp(command, "set") == 0 && argc % 2 == 1) {
        int status = 0;
        for (int i = 1; status == 0 && i < argc; i += 2) {
            char *data = read_file(argv[i + 1], &size);
            status = farblk_tar_set(tar, decoded(argv[i]), data, size);
            free(data);
        }
        return status;
    }
    if (strcmp(command, "allocate") == 0 && argc == 3)
        return farblk_tar_allocate(tar, decoded(argv[1]), octets(argv[2]),
                                   NULL);
    if (strcmp(command, "remove") == 0 && argc == 2)
        return farblk_tar_remove(tar, decoded(argv[1]));
    if (strcmp(command, "rename") == 0 && argc == 3)
        return farblk_tar_rename(tar, decoded(argv[1]), decoded(argv[2]));
    if (strcmp(command, "info") == 0) {
        struct farblk_tar_info info;
        int status = farblk_tar_get_info(tar, &info, sizeof info);
        printf("members=%llu end=%llu free=%llu\n",
               (unsigned long long)info.members, (unsigned long long)info.end,
               (unsigned long long)info.free);
        return status;
    }
    fprintf(stderr, "tar_do: no such command, or not so many words\n");
    exit(2);
}

int
main(int argc, char **argv)
{
    struct farblk *dev;
    struct farblk_tar *tar;
    if (argc < 3) {
        fprintf(stderr, "usage: tar_do URI COMMAND ...\n");
        return 2;
    }
    int status = farblk_open(argv[1], NULL, &dev);
    if (status < 0)
        return failed(status);
    if (strcmp(argv[2], "create") == 0) {
        status = farblk_tar_create(dev, 0);
    } else {
        status = farblk_tar_open(dev, NULL, &tar);
        if (status == 0) {
            status = run(tar, argv + 2, argc - 2);
            if (status < 0)
                failed(status);
            farblk_tar_close(tar);
            farblk_close(dev);
            return status < 0;
        }
    }
    if (status < 0)
        return failed(status);
    return farblk_close(dev) < 0;
}
