/* SPDX-License-Identifier: ISC */
/*
 * nbd: an export of an NBD server (nbdkit, qemu-nbd, nbd-server), by libnbd.
 *
 * This file holds the driver's frame: the URI, what the device is, its
 * beginning and its end.  The protocol has no resize and no word of a size that
 * changes: the size is that of opening.  Nothing tells whether two URIs are one
 * export, so each open is a device of its own; what two of them see of each
 * other is the server's affair, and sectors are atomic only between the handles
 * of one.
 */
#include "backends/nbd.h"

#include "core/checked.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct uri_param nbd_params[] = {
    {.name = "socket",
     .kind = URI_STRING,
     .help = "nbd+unix, nbds+unix: path of the server's socket"},
    {.name = "tls-certificates",
     .kind = URI_STRING,
     .help = "nbds: directory of certificates and keys"},
    {.name = "tls-psk-file",
     .kind = URI_STRING,
     .help = "nbds: file of pre-shared keys"},
    {.name = "tls-username",
     .kind = URI_STRING,
     .help = "nbds: whose key, as USER@ before the host"},
    {.name = "sector",
     .kind = URI_SIZE,
     .min = FARBLK_SECTOR_MIN,
     .max = FARBLK_SECTOR_MAX,
     .help = "octets in a sector; the server's smallest block, at least 512"},
    {.name = "connections",
     .kind = URI_NUMBER,
     .min = 1,
     .max = NBD_LINKS_MAX,
     .help = "at most, where the server allows more than one (4)"},
    {.name = "connect_timeout",
     .kind = URI_NUMBER,
     .min = 1,
     .max = 3600000,
     .help = "milliseconds that opening may take, and closing wait for a "
             "silent server (10000)"},
    {.name = NULL},
};

static bool
nbd_copy(char **to, const char *from, bool *fine)
{
    if (from == NULL)
        return true;
    *to = strdup(from);
    *fine = *fine && *to != NULL;
    return *to != NULL;
}

/* Which parameters go together. */
static int
nbd_check_uri(const struct nbd_config *config, const struct uri *uri,
              bool listing, struct error *error)
{
    static const char *const tls_only[] = {"tls-certificates", "tls-psk-file",
                                           "tls-username"};
    const char *scheme = uri->scheme;
    bool has_socket = uri_get(uri, "socket") != NULL;
    if (!uri->has_authority)
        return error_set(error, FARBLK_INVALID, "%s: must begin with %s://",
                         scheme, scheme);
    if (config->is_unix && (uri->host[0] != '\0' || uri->port != 0))
        return error_set(error, FARBLK_INVALID,
                         "%s: takes no host, as in %s:///NAME?socket=PATH",
                         scheme, scheme);
    if (config->is_unix && !has_socket)
        return error_set(error, FARBLK_INVALID, "%s: socket= is missing",
                         scheme);
    if (!config->is_unix && has_socket)
        return error_set(error, FARBLK_INVALID,
                         "%s: parameter socket belongs to nbd+unix:// and "
                         "nbds+unix://",
                         scheme);
    for (size_t i = 0; i < sizeof tls_only / sizeof *tls_only; i++)
        if (!config->tls && uri_get(uri, tls_only[i]) != NULL)
            return error_set(error, FARBLK_INVALID,
                             "%s: parameter %s belongs to nbds:// and "
                             "nbds+unix://",
                             scheme, tls_only[i]);
    if (uri->user != NULL && uri->user[0] != '\0' && !config->tls)
        return error_set(error, FARBLK_INVALID,
                         "%s: a user belongs to nbds:// and nbds+unix://",
                         scheme);
    if (uri->user != NULL && uri_get(uri, "tls-username") != NULL)
        return error_set(error, FARBLK_INVALID,
                         "%s: wants one of USER@ and tls-username=, not both",
                         scheme);
    if (!is_power_of_two(uri_number(uri, "sector", FARBLK_SECTOR_MIN)))
        return error_set(error, FARBLK_INVALID,
                         "%s: sector=%s: must be a power of two", scheme,
                         uri_string(uri, "sector", ""));
    if (strlen(uri->path) > NBD_MAX_NAME)
        return error_set(error, FARBLK_INVALID,
                         "%s: an export's name of %zu octets; at most %d",
                         scheme, strlen(uri->path), NBD_MAX_NAME);
    if (listing && uri->path[0] != '\0')
        return error_set(error, FARBLK_INVALID,
                         "\"%.100s\": a list is of a server, whose URI ends "
                         "before the export's name",
                         uri->path);
    return 0;
}

int
nbd_configure(struct nbd_config *config, const struct uri *uri, bool listing,
              struct error *error)
{
    bool fine = true;
    char target[300];
    memset(config, 0, sizeof *config);
    config->tls = strncmp(uri->scheme, "nbds", 4) == 0;
    config->is_unix = strchr(uri->scheme, '+') != NULL;
    int status = nbd_check_uri(config, uri, listing, error);
    if (status != 0)
        return status;
    const char *host = uri->host[0] != '\0' ? uri->host : "localhost";
    const char *user = uri_string(uri, "tls-username", NULL);
    if (uri->user != NULL && uri->user[0] != '\0')
        user = uri->user;
    nbd_copy(&config->host, host, &fine);
    nbd_copy(&config->socket, uri_string(uri, "socket", NULL), &fine);
    nbd_copy(&config->export_name, uri->path, &fine);
    nbd_copy(&config->user, user, &fine);
    nbd_copy(&config->certificates, uri_string(uri, "tls-certificates", NULL),
             &fine);
    nbd_copy(&config->psk_file, uri_string(uri, "tls-psk-file", NULL), &fine);
    if (!fine)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a device");
    snprintf(config->port, sizeof config->port, "%u",
             uri->port != 0 ? uri->port : NBD_PORT);
    if (config->is_unix)
        snprintf(target, sizeof target, "%s", config->socket);
    else
        snprintf(target, sizeof target, "%s port %s", host, config->port);
    error_copy_text(config->target, sizeof config->target, target,
                    strlen(target));
    config->sector = (uint32_t)uri_number(uri, "sector", 0);
    config->links = (unsigned)uri_number(uri, "connections", 0);
    config->connect_ms =
        (int32_t)uri_number(uri, "connect_timeout", NBD_CONNECT_MS);
    return 0;
}

void
nbd_config_fini(struct nbd_config *config)
{
    free(config->host);
    free(config->socket);
    free(config->export_name);
    free(config->user);
    free(config->certificates);
    free(config->psk_file);
}

static void
nbd_driver_close(void *state)
{
    struct nbd *nbd = state;
    nbd_links_end(nbd);
    for (unsigned i = 0; i < NBD_LINKS_MAX; i++) {
        struct nbd_link *link = &nbd->links[i];
        for (struct nbd_command *next, *at = link->idle; at != NULL;
             at = next) {
            next = at->next;
            free(at->extents);
            free(at);
        }
        if (link->wake >= 0)
            close(link->wake);
        pthread_mutex_destroy(&link->mutex);
    }
    pthread_mutex_destroy(&nbd->mutex);
    nbd_config_fini(&nbd->config);
    free(nbd->zeroes);
    free(nbd);
}

static int
nbd_driver_open(const struct uri *uri, bool read_only, struct candidate *found,
                struct error *error)
{
    (void)read_only; /* core's affair: the protocol has no such wish */
    struct nbd *nbd = calloc(1, sizeof *nbd);
    if (nbd == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a device");
    pthread_mutex_init(&nbd->mutex, NULL);
    for (unsigned i = 0; i < NBD_LINKS_MAX; i++) {
        nbd->links[i].nbd = nbd;
        nbd->links[i].index = i;
        nbd->links[i].wake = -1;
        pthread_mutex_init(&nbd->links[i].mutex, NULL);
    }
    if (nbd_configure(&nbd->config, uri, false, error) != 0) {
        nbd_driver_close(nbd);
        return error->status;
    }
    found->state = nbd;
    found->key[0] = '\0';
    return 0;
}

static void
nbd_shape(const struct nbd *nbd, uint32_t sector, struct shape *shape)
{
    const struct nbd_config *config = &nbd->config;
    const struct nbd_facts *facts = &nbd->facts;
    uint64_t most = facts->maximum != 0 ? facts->maximum : NBD_SERVER_TRANSFER;
    uint64_t preferred = max_u64(NBD_PREFERRED, facts->preferred);
    shape->sector_size = sector;
    shape->size = facts->size;
    shape->features = FARBLK_CAN_WRITE_ZEROES | FARBLK_CAN_WATCH;
    if (facts->can_trim)
        shape->features |= FARBLK_CAN_DISCARD;
    if (facts->can_map)
        shape->features |= FARBLK_CAN_SEEK;
    if (facts->can_flush || facts->can_fua)
        shape->features |= FARBLK_CAN_FUA;
    if (!facts->can_fua)
        shape->lacks_fua = UINT32_MAX;
    /* Whole sectors, but never less than one. */
    shape->max_transfer = (uint32_t)max_u64(
        round_down(min_u64(most, NBD_TRANSFER), sector), sector);
    shape->preferred_transfer =
        (uint32_t)round_down(min_u64(preferred, NBD_TRANSFER), sector);
    shape->max_range = nbd->max_range;
    shape->read_only = facts->read_only;
    snprintf(shape->transport, sizeof shape->transport, "%s%s",
             config->tls ? "tls+" : "", config->is_unix ? "ipc" : "tcp");
    const char *name =
        config->export_name[0] != '\0' ? config->export_name : config->target;
    error_copy_text(shape->name, sizeof shape->name, name, strlen(name));
}

static int
nbd_driver_start(void *state, struct device *device, struct shape *shape,
                 struct error *error)
{
    struct nbd *nbd = state;
    const struct nbd_facts *facts = &nbd->facts;
    uint32_t sector;
    (void)device;
    if (nbd_links_open(nbd, error) != 0
        || nbd_sector(&nbd->config, facts, &sector, error) != 0)
        return error->status;
    nbd->writes_through = !facts->can_flush && facts->can_fua;
    nbd->max_range = NBD_RANGE;
    nbd->sector = sector;
    if (!facts->can_zero && !facts->read_only) {
        nbd->max_range = NBD_TRANSFER;
        if (facts->maximum != 0)
            nbd->max_range =
                round_down(min_u64(nbd->max_range, facts->maximum), sector);
        nbd->zeroes = calloc(1, nbd->max_range);
        if (nbd->zeroes == NULL)
            return error_set(error, FARBLK_NO_MEMORY,
                             "no memory for %llu octets of zeroes",
                             (unsigned long long)nbd->max_range);
    }
    nbd_shape(nbd, sector, shape);
    unsigned links = nbd->config.links != 0 ? nbd->config.links : NBD_LINKS;
    return nbd_links_start(nbd, facts->can_multi ? links : 1, error);
}

static void
nbd_driver_disconnect(void *state)
{
    nbd_links_end(state);
}

static void
nbd_driver_shut(void *state, bool last)
{
    if (last)
        nbd_links_leave(state);
}

static void
nbd_driver_submit(void *state, struct io *io)
{
    nbd_submit(state, io);
}

static void
nbd_driver_cancel(void *state, struct io *io)
{
    nbd_cancel(state, io);
}

const struct driver driver_nbd = {
    .name = "nbd",
    .schemes = "nbd nbds nbd+unix nbds+unix",
    .summary = "an export of an NBD server",
    .usage = "nbd[s]://[USER@]HOST[:10809]/[NAME] | "
             "nbd[s]+unix:///[NAME]?socket=PATH",
    .params = nbd_params,
    .flags = DRIVER_USERS,
    .native_fua = 1u << FARBLK_OP_WRITE | 1u << FARBLK_OP_DISCARD
                  | 1u << FARBLK_OP_WRITE_ZEROES,
    .open = nbd_driver_open,
    .start = nbd_driver_start,
    .disconnect = nbd_driver_disconnect,
    .shut = nbd_driver_shut,
    .close = nbd_driver_close,
    .submit = nbd_driver_submit,
    .cancel = nbd_driver_cancel,
    .list = nbd_list,
};
