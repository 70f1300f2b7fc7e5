/* SPDX-License-Identifier: ISC */
/*
 * The parts of the harness that need nothing but the library's public calls.
 */
#include "tests/support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#define NAMES 8
#define NAME_LENGTH 256
#define WATCHDOG_S 600

int
support_ok(int status, const char *what, const char *file, int line)
{
    if (status < 0) {
        print_error("%s\n    gave %s: %s\n", what, farblk_status_name(status),
                    farblk_last_text());
        _fail(file, line);
    }
    return status;
}

void
support_fails(int wanted, int status, const char *what, const char *file,
              int line)
{
    if (status != wanted) {
        print_error("%s\n    gave %s instead of %s: %s\n", what,
                    farblk_status_name(status), farblk_status_name(wanted),
                    farblk_last_text());
        _fail(file, line);
    }
    if (farblk_last_text()[0] == '\0') {
        print_error("%s\n    gave %s without a text\n", what,
                    farblk_status_name(status));
        _fail(file, line);
    }
}

void
support_text_has(const char *part, const char *file, int line)
{
    if (strstr(farblk_last_text(), part) == NULL) {
        print_error("no \"%s\" in the text \"%s\"\n", part, farblk_last_text());
        _fail(file, line);
    }
}

int
support_read(struct farblk *dev, uint64_t start, void *to, size_t length)
{
    struct iovec iov = {.iov_base = to, .iov_len = length};

    return farblk_read(dev, start, &iov, 1);
}

int
support_write(struct farblk *dev, uint64_t start, const void *from,
              size_t length, uint32_t flags)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)from, .iov_len = length};

    return farblk_write(dev, start, &iov, 1, flags);
}

struct farblk_info
support_info(struct farblk *dev)
{
    struct farblk_info info = {0};

    ok(farblk_get_info(dev, &info, sizeof info));
    return info;
}

static char directory[128];
static pid_t directory_owner;

static int
support_remove(const char *path, const struct stat *status, int kind,
               struct FTW *ftw)
{
    (void)status, (void)kind, (void)ftw;
    return remove(path);
}

static void
support_clean(void)
{
    /* A forked child that exits leaves its parent's files alone. */
    if (directory[0] != '\0' && directory_owner == getpid())
        nftw(directory, support_remove, 16, FTW_DEPTH | FTW_PHYS);
}

const char *
support_directory(void)
{
    if (directory[0] == '\0') {
        const char *base = getenv("TMPDIR");

        /* The path of a socket has little room. */
        if (base == NULL || base[0] != '/' || strlen(base) > 40)
            base = "/tmp";
        snprintf(directory, sizeof directory, "%s/farblk-test-XXXXXX", base);
        if (mkdtemp(directory) == NULL) {
            fprintf(stderr, "mkdtemp %s: %s\n", directory, strerror(errno));
            abort();
        }
        directory_owner = getpid();
        atexit(support_clean);
    }
    return directory;
}

static char *
support_number(const char *before, const char *prefix, const char *separator)
{
    static char names[NAMES][NAME_LENGTH];
    static unsigned next;
    char *name = names[next % NAMES];

    snprintf(name, NAME_LENGTH, "%s%s%s%u", before, prefix, separator, next++);
    return name;
}

const char *
support_path(const char *prefix)
{
    char before[sizeof directory + 1];

    snprintf(before, sizeof before, "%s/", support_directory());
    return support_number(before, prefix, "-");
}

const char *
support_name(const char *prefix)
{
    char separator[32];

    snprintf(separator, sizeof separator, "-%d-", (int)getpid());
    return support_number("", prefix, separator);
}

void
support_make_file(const char *path, uint64_t size)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || ftruncate(fd, (off_t)size) != 0)
        fail_msg("cannot make %s of %llu octets: %s", path,
                 (unsigned long long)size, strerror(errno));
    close(fd);
}

size_t
support_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t count = 0;
    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

static const char *volatile watched;

static void
support_hang(int signal_number)
{
    static const char before[] = "\n*** this test hangs: ";
    const char *what = watched;

    (void)signal_number;
    if (write(STDERR_FILENO, before, sizeof before - 1) < 0
        || write(STDERR_FILENO, what, strlen(what)) < 0
        || write(STDERR_FILENO, "\n", 1) < 0)
        _exit(124);
    abort();
}

void
support_watch(const char *what)
{
    struct sigaction action = {.sa_handler = support_hang};

    watched = what != NULL ? what : "";
    sigaction(SIGALRM, &action, NULL);
    alarm(what != NULL ? WATCHDOG_S : 0);
}

uint64_t
rng_next(struct rng *rng)
{
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t
rng_below(struct rng *rng, uint64_t limit)
{
    return rng_next(rng) % limit;
}

void
pattern_fill(void *to, size_t length, uint64_t seed)
{
    struct rng rng = {.state = seed};
    uint8_t *octets = to;

    for (size_t i = 0; i < length; i += 8) {
        uint64_t word = rng_next(&rng) | 1;

        memcpy(octets + i, &word, length - i < 8 ? length - i : 8);
    }
}

size_t
pattern_check(const void *from, size_t length, uint64_t seed)
{
    struct rng rng = {.state = seed};
    const uint8_t *octets = from;

    for (size_t i = 0; i < length; i += 8) {
        uint64_t word = rng_next(&rng) | 1;
        size_t n = length - i < 8 ? length - i : 8;
        uint8_t wanted[8];

        memcpy(wanted, &word, 8);
        if (memcmp(octets + i, wanted, n) == 0)
            continue;
        for (size_t k = 0; k < n; k++)
            if (octets[i + k] != wanted[k])
                return i + k;
    }
    return length;
}

bool
pattern_is_zero(const void *from, size_t length)
{
    const uint8_t *octets = from;

    return length == 0
           || (octets[0] == 0 && memcmp(octets, octets + 1, length - 1) == 0);
}

void
trouble_note(struct trouble *trouble, const char *format, ...)
{
    int none = 0;
    va_list args;

    if (!atomic_compare_exchange_strong(&trouble->noted, &none, 1))
        return;
    va_start(args, format);
    vsnprintf(trouble->text, sizeof trouble->text, format, args);
    va_end(args);
}

void
trouble_assert_none(const struct trouble *trouble)
{
    if (trouble->noted)
        fail_msg("%s", trouble->text);
}
