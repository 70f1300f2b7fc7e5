/* SPDX-License-Identifier: ISC */
/*
 * lossy_fs [OPTION=VALUE ...] DIRECTORY: a file system with one file, "disk",
 * whose content is lost when the power is cut before it was synced.
 *
 *   size=OCTETS     of the file, 1 MiB
 *   most=OCTETS     that it may ever have, 4 MiB
 *   seed=NUMBER     of the random numbers by which changes are kept or lost
 *   cache=none      each call comes to the disk (FOPEN_DIRECT_IO)
 *   cache=through   the kernel keeps what was read; writes come to the disk
 *   cache=back      the kernel collects writes until a sync, or as it likes
 *
 * A second file, "control", takes commands, one a write; reading it tells what
 * has happened:
 *
 *   cut                            the power goes: EIO until "on", and for ever
 *                                  by descriptors from before
 *   on
 *   fail write|zero|sync ERRNO AFTER TIMES
 *   lie syncs|writes|nothing       say fine to fsync, or to O_DSYNC, and do
 *                                  nothing
 *   unit OCTETS                    what is never torn
 *   delay MICROSECONDS             how long a sync takes at most
 *
 * Ends on SIGTERM, or with its parent.  Tells "ready" when it can be used.
 * Left out: more than one file, holes in its map, times.
 */
#define FUSE_USE_VERSION 35

#include "tests/lossy_store.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define DISK 2u
#define CONTROL 3u

enum cache { CACHE_NONE, CACHE_THROUGH, CACHE_BACK };

static enum cache cache;
static struct fuse_session *session;

static const struct {
    fuse_ino_t ino;
    const char *name;
} files[] = {{DISK, "disk"}, {CONTROL, "control"}};

/* ------------------------------------------------------------ control */

static int
control_fail(const char *line)
{
    static const char *const calls[LOSSY_CALLS] = {"write", "zero", "sync"};
    char call[16];
    int errnum;
    unsigned after, times;

    if (sscanf(line, "fail %15s %d %u %u", call, &errnum, &after, &times) != 4)
        return EINVAL;
    for (int i = 0; i < LOSSY_CALLS; i++)
        if (strcmp(call, calls[i]) == 0) {
            lossy_fail((enum lossy_call)i, errnum, after, times);
            return 0;
        }
    return EINVAL;
}

static int
control_lie(const char *what)
{
    if (strcmp(what, "syncs") == 0)
        lossy_keep_word(LOSSY_LIES, LOSSY_TRUE);
    else if (strcmp(what, "writes") == 0)
        lossy_keep_word(LOSSY_TRUE, LOSSY_LIES);
    else if (strcmp(what, "nothing") == 0)
        lossy_keep_word(LOSSY_TRUE, LOSSY_TRUE);
    else
        return EINVAL;
    return 0;
}

/* Returns an errno. */
static int
control_do(const char *line)
{
    unsigned number;

    if (strcmp(line, "cut") == 0) {
        lossy_cut();
        return 0;
    }
    if (strcmp(line, "on") == 0) {
        /* What the kernel has of it is from before. */
        fuse_lowlevel_notify_inval_inode(session, DISK, 0, 0);
        lossy_on();
        return 0;
    }
    if (strncmp(line, "fail ", 5) == 0)
        return control_fail(line);
    if (strncmp(line, "lie ", 4) == 0)
        return control_lie(line + 4);
    if (sscanf(line, "unit %u", &number) == 1 && number > 0) {
        lossy_set_unit(number);
        return 0;
    }
    if (sscanf(line, "delay %u", &number) == 1) {
        lossy_set_delay(number);
        return 0;
    }
    return EINVAL;
}

static void
control_write(fuse_req_t req, const char *data, size_t length)
{
    char line[128];

    if (length >= sizeof line) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    memcpy(line, data, length);
    line[length] = '\0';
    line[strcspn(line, "\n")] = '\0';
    int errnum = control_do(line);
    if (errnum != 0)
        fuse_reply_err(req, errnum);
    else
        fuse_reply_write(req, length);
}

static void
control_read(fuse_req_t req, size_t length, off_t offset)
{
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);

    if (to == NULL) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    lossy_tell(to);
    fclose(to);
    size_t at = (size_t)offset < size ? (size_t)offset : size;
    fuse_reply_buf(req, text + at, length < size - at ? length : size - at);
    free(text);
}

/* ------------------------------------------------------------ calls */

static bool
fs_stat(fuse_ino_t ino, struct stat *st)
{
    *st = (struct stat){
        .st_ino = ino,
        .st_nlink = 1,
        .st_uid = getuid(),
        .st_gid = getgid(),
        .st_blksize = 4096,
    };
    if (ino == FUSE_ROOT_ID) {
        st->st_mode = S_IFDIR | 0700;
        st->st_nlink = 2;
        return true;
    }
    if (ino != DISK && ino != CONTROL)
        return false;
    st->st_mode = S_IFREG | 0600;
    if (ino == DISK) {
        st->st_size = (off_t)lossy_size();
        st->st_blocks = st->st_size / 512;
    }
    return true;
}

static void
fs_init(void *user, struct fuse_conn_info *conn)
{
    (void)user;
    if (cache == CACHE_BACK)
        conn->want |= FUSE_CAP_WRITEBACK_CACHE;
    /* Its size comes and goes with the power. */
    conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
}

static void
fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param entry = {0};

    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (parent == FUSE_ROOT_ID && strcmp(name, files[i].name) == 0) {
            entry.ino = files[i].ino;
            fs_stat(entry.ino, &entry.attr);
            fuse_reply_entry(req, &entry);
            return;
        }
    fuse_reply_err(req, ENOENT);
}

static void
fs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct stat st;

    (void)fi;
    if (fs_stat(ino, &st))
        fuse_reply_attr(req, &st, 0);
    else
        fuse_reply_err(req, ENOENT);
}

static unsigned
fs_epoch(const struct fuse_file_info *fi)
{
    return fi != NULL ? (unsigned)fi->fh : lossy_epoch();
}

static void
fs_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int what,
           struct fuse_file_info *fi)
{
    int result = 0;

    if (ino == DISK && (what & FUSE_SET_ATTR_SIZE) != 0)
        result = lossy_truncate(fs_epoch(fi), (uint64_t)attr->st_size);
    if (result != 0)
        fuse_reply_err(req, -result);
    else
        fs_getattr(req, ino, fi);
}

static void
fs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (ino != DISK && ino != CONTROL) {
        fuse_reply_err(req, EISDIR);
        return;
    }
    fi->fh = lossy_epoch();
    fi->direct_io = ino == CONTROL || cache == CACHE_NONE;
    fuse_reply_open(req, fi);
}

static void
fs_read(fuse_req_t req, fuse_ino_t ino, size_t length, off_t offset,
        struct fuse_file_info *fi)
{
    if (ino == CONTROL) {
        control_read(req, length, offset);
        return;
    }
    void *data = malloc(length);
    ssize_t got = data == NULL ? -ENOMEM
                               : lossy_read((unsigned)fi->fh, data, length,
                                            (uint64_t)offset);
    if (got < 0)
        fuse_reply_err(req, (int)-got);
    else
        fuse_reply_buf(req, data, (size_t)got);
    free(data);
}

static void
fs_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t length,
         off_t offset, struct fuse_file_info *fi)
{
    if (ino == CONTROL) {
        control_write(req, data, length);
        return;
    }
    /* O_DSYNC, or RWF_DSYNC of this write alone. */
    bool durable = (fi->flags & (O_DSYNC | O_SYNC)) != 0 && !fi->writepage;
    ssize_t done =
        lossy_write((unsigned)fi->fh, data, length, (uint64_t)offset, durable);
    if (done < 0)
        fuse_reply_err(req, (int)-done);
    else
        fuse_reply_write(req, (size_t)done);
}

static void
fs_fsync(fuse_req_t req, fuse_ino_t ino, int data_only,
         struct fuse_file_info *fi)
{
    fuse_reply_err(
        req, ino == DISK ? -lossy_sync((unsigned)fi->fh, data_only != 0) : 0);
}

/* A hole is zeros here. */
static void
fs_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset,
             off_t length, struct fuse_file_info *fi)
{
    int zeroes = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;

    if (ino != DISK || (mode & zeroes) == 0
        || (mode & ~(zeroes | FALLOC_FL_KEEP_SIZE)) != 0)
        fuse_reply_err(req, EOPNOTSUPP);
    else
        fuse_reply_err(req, -lossy_zero((unsigned)fi->fh, (uint64_t)offset,
                                        (uint64_t)length));
}

static void
fs_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
           struct fuse_file_info *fi)
{
    char list[256];
    size_t length = 0, count = sizeof files / sizeof *files;

    (void)fi;
    if (ino != FUSE_ROOT_ID) {
        fuse_reply_err(req, ENOTDIR);
        return;
    }
    for (size_t i = (size_t)offset; i < count; i++) {
        struct stat st = {0};
        size_t room = (size < sizeof list ? size : sizeof list) - length;

        fs_stat(files[i].ino, &st);
        size_t entry = fuse_add_direntry(req, list + length, room,
                                         files[i].name, &st, (off_t)i + 1);
        if (entry > room)
            break;
        length += entry;
    }
    fuse_reply_buf(req, list, length);
}

static const struct fuse_lowlevel_ops operations = {
    .init = fs_init,
    .lookup = fs_lookup,
    .getattr = fs_getattr,
    .setattr = fs_setattr,
    .open = fs_open,
    .read = fs_read,
    .write = fs_write,
    .fsync = fs_fsync,
    .fallocate = fs_fallocate,
    .readdir = fs_readdir,
};

/* ------------------------------------------------------------ program */

static int
usage(void)
{
    fprintf(stderr, "usage: lossy_fs [size=OCTETS] [most=OCTETS] [seed=NUMBER] "
                    "[cache=none|through|back] DIRECTORY\n");
    return 2;
}

int
main(int argc, char **argv)
{
    static const char *const caches[] = {"none", "through", "back"};
    char program[] = "lossy_fs", flags[] = "-odefault_permissions";
    char *mount_argv[] = {program, flags, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(2, mount_argv);
    struct fuse_loop_config config = {.max_idle_threads = 8};
    unsigned long long size = 1 << 20, most = 4 << 20, seed = 1;
    pid_t parent = getppid();

    for (int i = 1; i < argc - 1; i++) {
        bool known = sscanf(argv[i], "size=%llu", &size) == 1
                     || sscanf(argv[i], "most=%llu", &most) == 1
                     || sscanf(argv[i], "seed=%llu", &seed) == 1;

        for (int c = 0; c < 3; c++)
            if (strncmp(argv[i], "cache=", 6) == 0
                && strcmp(argv[i] + 6, caches[c]) == 0) {
                cache = (enum cache)c;
                known = true;
            }
        if (!known)
            return usage();
    }
    if (argc < 2 || size > most)
        return usage();
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != parent)
        return 1;
    lossy_init(size, most, seed);
    session = fuse_session_new(&args, &operations, sizeof operations, NULL);
    if (session == NULL)
        return 1;
    int status = 1;
    if (fuse_set_signal_handlers(session) == 0) {
        if (fuse_session_mount(session, argv[argc - 1]) == 0) {
            printf("ready\n");
            fflush(stdout);
            status = fuse_session_loop_mt(session, &config) < 0;
            fuse_session_unmount(session);
        }
        fuse_remove_signal_handlers(session);
    }
    fuse_session_destroy(session);
    return status;
}
