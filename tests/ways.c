/* SPDX-License-Identifier: ISC */
/*
 * The table of drivers, and how a fresh device of each is made and reached.
 *
 * Each rig that needs farblkd has one of its own: what it exports is fixed when
 * it starts, and a test that breaks it breaks no other.
 */
#include "tests/ways.h"

#include "tests/certs.h"

#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#if FARBLK_TESTS_URING
#include <linux/io_uring.h>
#endif

/* Whether build and kernel have io_uring: some containers forbid it. */
static bool
ways_have_uring(void)
{
#if FARBLK_TESTS_URING
    struct io_uring_params params = {0};
    int fd = (int)syscall(SYS_io_uring_setup, 4, &params);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
#else
    return false;
#endif
}

/* Whether the tests' folder takes direct I/O in the sectors that they use. */
static bool
ways_have_direct(void)
{
    const char *path = support_path("direct");
    char uri[RIG_URI];
    struct farblk *dev = NULL;

    support_make_file(path, 4096);
    snprintf(uri, sizeof uri, "file:%s?direct=1&sector=512", path);
    int status = farblk_open(uri, NULL, &dev);
    if (status == 0)
        farblk_close(dev);
    unlink(path);
    return status == 0;
}

static bool
ways_have_nbdkit(void)
{
    return nbd_server_usable("nbdkit");
}

static bool
ways_have_qemu_nbd(void)
{
    return nbd_server_usable("qemu-nbd");
}

/* The protocol has no resize, and promises neither that a sector never tears
 * between clients nor what discarded ones hold. */
#define NBD_LACKS                                                              \
    (FARBLK_CAN_RESIZE | FARBLK_SECTOR_ATOMIC | FARBLK_DISCARD_ZEROES)

const struct store stores[] = {
    {.name = "ramdisk", .scheme = "ramdisk", .more = "", .exact = true},
    {.name = "file-uring",
     .scheme = "file",
     .more = "engine=uring",
     .path = true,
     .usable = ways_have_uring},
    {.name = "file-pool",
     .scheme = "file",
     .more = "engine=pool",
     .path = true},
    {.name = "file-direct",
     .scheme = "file",
     .more = "direct=1",
     .path = true,
     .usable = ways_have_direct},
    /* Complete in no time; and one whose copying goes on during the test. */
    {.name = "mirror",
     .scheme = "mirror",
     .more = "",
     .exact = true,
     .copy = "ramdisk"},
    {.name = "mirror-slow",
     .scheme = "mirror",
     .more = "rate=64k",
     .exact = true,
     .copy = "file"},
    {.name = "nbdkit",
     .scheme = "nbd",
     .more = "",
     .usable = ways_have_nbdkit,
     .lacks = NBD_LACKS,
     .transport = "ipc"},
    {.name = "qemu-nbd",
     .scheme = "nbd",
     .more = "",
     .path = true,
     .usable = ways_have_qemu_nbd,
     .lacks = NBD_LACKS,
     .transport = "ipc"},
    {.name = NULL},
};

const char *const transport_names[TRANSPORTS] = {
    [LOCAL] = "local", [IPC] = "ipc", [SHM] = "shm",
    [TCP] = "tcp",     [TLS] = "tls", [INPROC] = "inproc"};

bool
way_wanted(const struct way *way, int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], transport_names[way->transport]) != 0)
        return false;
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], way->store->name) == 0)
            return true;
    return argc <= 2;
}

static struct rig *rigs;

/* A mirror's URI: of a ramdisk, and another one or a file. */
static void
rig_mirror(struct rig *rig, bool mine)
{
    const struct store *store = rig->way.store;
    bool file = strcmp(store->copy, "file") == 0;
    uint64_t size = rig->size_sectors * rig->sector_size;
    char shape[128] = "";

    snprintf(rig->name, sizeof rig->name, "%s", support_name("disk"));
    snprintf(rig->told, sizeof rig->told, "%s", rig->name);
    snprintf(rig->copy, sizeof rig->copy, "%s",
             file ? support_path("copy") : support_name("copy"));
    if (file)
        support_make_file(rig->copy, size);
    if (mine)
        ok(farblk_ramdisk_create(rig->name, rig->size_sectors,
                                 rig->sector_size));
    if (mine && !file)
        ok(farblk_ramdisk_create(rig->copy, rig->size_sectors,
                                 rig->sector_size));
    if (!mine)
        snprintf(shape, sizeof shape, "%%26size=%llu",
                 (unsigned long long)size);
    snprintf(rig->direct, sizeof rig->direct,
             "mirror:?primary=ramdisk:%s%%3Fsector=%u%s&"
             "secondary=%s:%s%%3Fsector=%u%s%s%s",
             rig->name, rig->sector_size, shape, store->copy, rig->copy,
             rig->sector_size, file ? "" : shape,
             store->more[0] != '\0' ? "&" : "", store->more);
}

/* A server with a fresh device, that of the store's name. */
static void
rig_storage_nbd(struct rig *rig)
{
    const char *program = rig->way.store->name;
    uint64_t size = rig->size_sectors * rig->sector_size;
    char octets[32], more[64];

    snprintf(rig->told, sizeof rig->told, "disk");
    if (rig->way.store->path) {
        const char *args[] = {program,   "-t",        "-e",        "0",
                              "-f",      "raw",       "-x",        rig->told,
                              "--cache", "writeback", "--discard", "unmap",
                              rig->path, NULL};

        snprintf(rig->path, sizeof rig->path, "%s", support_path("disk"));
        support_make_file(rig->path, size);
        nbd_server_start(&rig->nbd, false, args);
    } else {
        const char *args[] = {program, "-f", "memory", octets, NULL};

        snprintf(octets, sizeof octets, "%llu", (unsigned long long)size);
        nbd_server_start(&rig->nbd, false, args);
    }
    snprintf(more, sizeof more, "sector=%u", rig->sector_size);
    snprintf(rig->direct, sizeof rig->direct, "%s",
             nbd_server_uri(&rig->nbd, "nbd", rig->told, more));
}

/* The device's own URI.  `mine`: it will be opened by this process. */
static void
rig_storage(struct rig *rig, bool mine)
{
    const struct store *store = rig->way.store;

    if (store->copy != NULL) {
        rig_mirror(rig, mine);
        return;
    }
    if (strcmp(store->scheme, "nbd") == 0) {
        rig_storage_nbd(rig);
        return;
    }
    if (store->path) {
        snprintf(rig->path, sizeof rig->path, "%s", support_path("disk"));
        support_make_file(rig->path, rig->size_sectors * rig->sector_size);
        snprintf(rig->direct, sizeof rig->direct, "%s:%s?sector=%u%s%s",
                 store->scheme, rig->path, rig->sector_size,
                 store->more[0] != '\0' ? "&" : "", store->more);
        snprintf(rig->told, sizeof rig->told, "%s", rig->path);
        return;
    }
    snprintf(rig->name, sizeof rig->name, "%s", support_name("disk"));
    snprintf(rig->told, sizeof rig->told, "%s", rig->name);
    if (mine)
        ok(farblk_ramdisk_create(rig->name, rig->size_sectors,
                                 rig->sector_size));
    /* Its size changes in some tests: so only who makes it tells that. */
    snprintf(rig->direct, sizeof rig->direct,
             mine ? "%s:%s?sector=%u" : "%s:%s?sector=%u&size=%llu",
             store->scheme, rig->name, rig->sector_size,
             (unsigned long long)(rig->size_sectors * rig->sector_size));
}

static void
rig_start_daemon(struct rig *rig, const char *const *server_args)
{
    char listen[300], export[RIG_URI + 16];
    const char *args[32] = {"--listen", listen, "--export", export};
    size_t count = 4;
    const char *socket = support_path("s");
    bool unix_socket = rig->way.transport == IPC || rig->way.transport == SHM;

    if (unix_socket)
        snprintf(listen, sizeof listen, "ipc://%s", socket);
    else
        snprintf(listen, sizeof listen, "%s://127.0.0.1:0",
                 rig->way.transport == TLS ? "tls+tcp" : "tcp");
    if (rig->way.transport == TLS) {
        args[count++] = "--tls-cert";
        args[count++] = certs_path("server.pem");
        args[count++] = "--tls-key";
        args[count++] = certs_path("server.key");
    }
    snprintf(export, sizeof export, "disk=%s", rig->direct);
    for (; server_args != NULL && *server_args != NULL; server_args++) {
        assert_true(count < 31);
        args[count++] = *server_args;
    }
    args[count] = NULL;
    daemon_start(&rig->daemon, args);
    assert_int_equal(rig->daemon.urls, 1);
    if (unix_socket)
        snprintf(rig->uri, sizeof rig->uri,
                 "farblk+unix:///disk?socket=%s&shm=%s", socket,
                 rig->way.transport == SHM ? "require" : "off");
    else if (rig->way.transport == TCP)
        snprintf(rig->uri, sizeof rig->uri, "farblk://%s/disk?checksum=crc32c",
                 rig->daemon.url[0] + strlen("tcp://"));
    else
        snprintf(rig->uri, sizeof rig->uri, "farblks://%s/disk?ca=%s",
                 rig->daemon.url[0] + strlen("tls+tcp://"),
                 certs_path("ca.pem"));
}

static void
rig_start_server(struct rig *rig)
{
    const char *address = support_name("inproc");
    char url[256];

    ok(farblk_server_create(NULL, &rig->server));
    ok(farblk_server_export(rig->server, "disk", rig->direct));
    snprintf(url, sizeof url, "inproc://%s", address);
    ok(farblk_server_listen(rig->server, url));
    snprintf(rig->uri, sizeof rig->uri, "farblk+inproc:///disk?address=%s",
             address);
}

struct rig *
rig_create(struct way way, uint64_t size_sectors, uint32_t sector_size,
           const char *const *server_args)
{
    struct rig *rig = calloc(1, sizeof *rig);
    bool mine = way.transport == LOCAL || way.transport == INPROC;

    assert_non_null(rig);
    rig->next = rigs;
    rigs = rig;
    rig->way = way;
    rig->size_sectors = size_sectors;
    rig->sector_size = sector_size;
    rig_storage(rig, mine);
    if (way.transport == LOCAL)
        snprintf(rig->uri, sizeof rig->uri, "%s", rig->direct);
    else if (way.transport == INPROC)
        rig_start_server(rig);
    else
        rig_start_daemon(rig, server_args);
    return rig;
}

/* Free it; the daemon has ended. */
static void
rig_free(struct rig *rig)
{
    struct rig **at = &rigs;

    for (size_t i = 0; i < RIG_HANDLES; i++)
        farblk_close(rig->handles[i]);
    farblk_server_destroy(rig->server);
    if (rig->name[0] != '\0')
        farblk_ramdisk_destroy(rig->name);
    nbd_server_kill(&rig->nbd);
    if (rig->path[0] != '\0')
        unlink(rig->path);
    if (rig->copy[0] == '/')
        unlink(rig->copy);
    else if (rig->copy[0] != '\0')
        farblk_ramdisk_destroy(rig->copy);
    while (*at != rig)
        at = &(*at)->next;
    *at = rig->next;
    free(rig);
}

void
rig_destroy(struct rig *rig)
{
    for (size_t i = 0; i < RIG_HANDLES; i++) {
        ok(farblk_close(rig->handles[i]));
        rig->handles[i] = NULL;
    }
    daemon_stop(&rig->daemon);
    if (rig->server != NULL)
        ok(farblk_server_stop(rig->server, SUPPORT_PATIENCE_MS));
    rig_free(rig);
}

void
rig_destroy_all(void)
{
    while (rigs != NULL) {
        daemon_kill(&rigs->daemon);
        rig_free(rigs);
    }
}

const char *
rig_uri(const struct rig *rig, const char *more)
{
    static char texts[4][RIG_URI + 128];
    static unsigned next;
    char *text = texts[next++ % 4];

    snprintf(text, sizeof texts[0], "%s%s%s", rig->uri,
             more[0] == '\0'                 ? ""
             : strchr(rig->uri, '?') != NULL ? "&"
                                             : "?",
             more);
    return text;
}

struct farblk *
rig_open(struct rig *rig, const char *more)
{
    size_t i = 0;

    while (i < RIG_HANDLES && rig->handles[i] != NULL)
        i++;
    assert_true(i < RIG_HANDLES);
    ok(farblk_open(rig_uri(rig, more), NULL, &rig->handles[i]));
    assert_non_null(rig->handles[i]);
    return rig->handles[i];
}

void
rig_close(struct rig *rig, struct farblk *dev)
{
    for (size_t i = 0; i < RIG_HANDLES; i++)
        if (rig->handles[i] == dev)
            rig->handles[i] = NULL;
    ok(farblk_close(dev));
}

bool
rig_is_remote(const struct rig *rig)
{
    return rig->way.transport != LOCAL;
}
