/* SPDX-License-Identifier: ISC */
/*
 * The farblk driver: a device behind a farblkd, over any of its transports.
 *
 * Each opened device is one connection with one session: nothing is shared
 * between devices, and one that is lost takes nobody with it.
 */
#include "client/rings.h"

#include "core/checked.h"
#include "core/secret.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Features that this client can pass on. */
#define CLIENT_FEATURES                                                        \
    (FARBLK_CAN_RESIZE | FARBLK_CAN_DISCARD | FARBLK_DISCARD_ZEROES            \
     | FARBLK_CAN_WRITE_ZEROES | FARBLK_CAN_SEEK | FARBLK_CAN_FUA              \
     | FARBLK_CAN_WATCH | FARBLK_SECTOR_ATOMIC)

static const struct uri_param client_params[] = {
    {.name = "socket",
     .kind = URI_STRING,
     .help = "farblk+unix: path of the server's socket"},
    {.name = "abstract",
     .kind = URI_STRING,
     .help = "farblk+unix: name of the server's abstract socket, instead"},
    {.name = "address",
     .kind = URI_STRING,
     .help = "farblk+inproc: as in the server's inproc://ADDRESS"},
    {.name = "resource",
     .kind = URI_STRING,
     .help = "farblk+ws: path in the server's ws://HOST:PORT/PATH (farblk)"},
    {.name = "ca",
     .kind = URI_STRING,
     .help = "farblks: path of the CA certificates (PEM) to verify the server "
             "by"},
    {.name = "cert",
     .kind = URI_STRING,
     .help = "farblks: path of a certificate (PEM) for servers that want one"},
    {.name = "key",
     .kind = URI_STRING,
     .help = "farblks: path of its key (PEM, readable by its owner only)"},
    {.name = "server_name",
     .kind = URI_STRING,
     .help = "farblks: the name that the server's certificate is for (the "
             "host)"},
    {.name = "token_file",
     .kind = URI_STRING,
     .help = "path of the token that the device asks for (readable by its "
             "owner only); not with farblk:// and farblk+ws://"},
    {.name = "shm",
     .kind = URI_CHOICE,
     .choices = "auto|off|require",
     .help = "farblk+unix: shared memory with the server: auto, off, "
             "require (auto)"},
    {.name = "connect_timeout",
     .kind = URI_NUMBER,
     .min = 1,
     .max = 3600000,
     .help = "milliseconds that opening may take (10000)"},
    {.name = "checksum",
     .kind = URI_CHOICE,
     .choices = "none|crc32c",
     .help = "crc32c: each payload goes with its checksum, and is checked"},
    {.name = "reconnect",
     .kind = URI_NUMBER,
     .min = 0,
     .max = 86400,
     .help = "seconds to go on trying when the connection breaks; 0: none "
             "(what is left of the server's lease, while it listens)"},
    {.name = "reopen",
     .kind = URI_BOOL,
     .help =
         "1: when the server was started anew, or has given the session up, "
         "open the device again if nothing can have been lost"},
    {.name = "retry",
     .kind = URI_CHOICE,
     .choices = "none|always",
     .help = "always: reopen=1, and send changes again of which nobody knows "
             "whether they were executed"},
    {.name = NULL},
};

/* ------------------------------------------------------------ the URI */

/* A name in a URL: what is not plain becomes %XX. */
static char *
client_escape(const char *name)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/";
    char *to = malloc(3 * strlen(name) + 1), *at = to;
    if (to == NULL)
        return NULL;
    for (; *name != '\0'; name++) {
        if (strchr(plain, *name) != NULL)
            *at++ = *name;
        else
            at += sprintf(at, "%%%02X", (unsigned)(uint8_t)*name);
    }
    *at = '\0';
    return to;
}

static char *
client_format(const char *format, ...)
{
    char *text;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    return length < 0 ? NULL : text;
}

/* A parameter of another scheme than the URI's. */
static int
client_check_params(const struct uri *uri, struct error *error)
{
    static const struct {
        const char *param, *scheme;
    } owners[] = {
        {"socket", "farblk+unix"},  {"abstract", "farblk+unix"},
        {"shm", "farblk+unix"},     {"address", "farblk+inproc"},
        {"resource", "farblk+ws"},  {"ca", "farblks"},
        {"cert", "farblks"},        {"key", "farblks"},
        {"server_name", "farblks"},
    };
    for (size_t i = 0; i < sizeof owners / sizeof owners[0]; i++)
        if (uri_get(uri, owners[i].param) != NULL
            && strcmp(uri->scheme, owners[i].scheme) != 0)
            return error_set(error, FARBLK_INVALID,
                             "%s: parameter %s belongs to %s://", uri->scheme,
                             owners[i].param, owners[i].scheme);
    bool reopens = uri_bool(uri, "reopen", false);
    bool retries = uri_number(uri, "retry", 0) != 0;
    if ((reopens || retries) && uri_get(uri, "reconnect") != NULL
        && uri_number(uri, "reconnect", 0) == 0)
        return error_set(error, FARBLK_INVALID,
                         "%s: %s wants a reconnect= other than 0", uri->scheme,
                         reopens ? "reopen=1" : "retry=always");
    return 0;
}

/* The server's URL as nng writes it; NULL without memory. */
static int
client_url(const struct uri *uri, char **url, struct error *error)
{
    const char *scheme = uri->scheme;
    *url = NULL;
    if (!uri->has_authority)
        return error_set(error, FARBLK_INVALID, "%s: must begin with %s://",
                         scheme, scheme);
    bool ws = strcmp(scheme, "farblk+ws") == 0;
    bool tls = strcmp(scheme, "farblks") == 0;
    if (ws || tls || strcmp(scheme, "farblk") == 0) {
        bool v6 = strchr(uri->host, ':') != NULL;
        if (uri->host[0] == '\0')
            return error_set(error, FARBLK_INVALID, "%s: names no host",
                             scheme);
        if (ws && uri->port == 0)
            return error_set(error, FARBLK_INVALID, "%s: names no port",
                             scheme);
        unsigned port = uri->port != 0 ? uri->port : FARBLK_DEFAULT_PORT;
        const char *resource = uri_string(uri, "resource", "farblk");
        while (*resource == '/')
            resource++;
        char *path = client_escape(resource);
        if (path != NULL)
            *url = client_format("%s://%s%s%s:%u%s%s",
                                 ws    ? "ws"
                                 : tls ? "tls+tcp"
                                       : "tcp",
                                 v6 ? "[" : "", uri->host, v6 ? "]" : "", port,
                                 ws ? "/" : "", ws ? path : "");
        free(path);
        return 0;
    }
    if (uri->host[0] != '\0' || uri->port != 0)
        return error_set(error, FARBLK_INVALID,
                         "%s: takes no host, as in %s:///NAME", scheme, scheme);
    const char *path = uri_string(uri, "socket", NULL);
    const char *abstract = uri_string(uri, "abstract", NULL);
    const char *address = uri_string(uri, "address", NULL);
    if (strcmp(scheme, "farblk+inproc") == 0) {
        if (address == NULL)
            return error_set(error, FARBLK_INVALID, "%s: address= is missing",
                             scheme);
        *url = client_format("inproc://%s", address);
        return 0;
    }
    if ((path == NULL) == (abstract == NULL))
        return error_set(error, FARBLK_INVALID,
                         "%s: wants one of socket= and abstract=, not %s",
                         scheme, path == NULL ? "none" : "both");
    if (path != NULL) {
        *url = client_format("ipc://%s", path);
    } else {
        char *name = client_escape(abstract);
        if (name != NULL)
            *url = client_format("abstract://%s", name);
        free(name);
    }
    return 0;
}

/* What farblks:// is verified by. */
static int
client_tls(const struct uri *uri, struct link_tls **tls, struct error *error)
{
    const struct link_tls_options options = {
        .ca = uri_string(uri, "ca", NULL),
        .cert = uri_string(uri, "cert", NULL),
        .key = uri_string(uri, "key", NULL),
        .host = uri_string(uri, "server_name", uri->host),
    };
    *tls = NULL;
    if (strcmp(uri->scheme, "farblks") != 0)
        return 0;
    return link_tls_create(&options, tls, error);
}

/* The token that Open shows.  Never in the clear: then it is not even read. */
static int
client_token(const struct uri *uri, struct client *client, struct error *error)
{
    const char *path = uri_string(uri, "token_file", NULL);
    if (path == NULL)
        return 0;
    if (strcmp(uri->scheme, "farblk") == 0
        || strcmp(uri->scheme, "farblk+ws") == 0)
        return error_set(error, FARBLK_INVALID,
                         "%s: token_file= is not for connections in the clear; "
                         "use farblks:// or farblk+unix://",
                         uri->scheme);
    return secret_read_token(path, 1, client->token, WIRE_TOKEN_MAX,
                             &client->token_length, error);
}

int
client_create(const struct uri *uri, bool listing, struct client **created,
              struct error *error)
{
    char *url = NULL;
    struct link_tls *tls = NULL;
    if (listing && uri->path[0] != '\0')
        return error_set(error, FARBLK_INVALID,
                         "\"%.100s\": a list is of a server, whose URI ends "
                         "before the device's name",
                         uri->path);
    if (!listing && !uri_name_valid(uri->path))
        return error_set(error, FARBLK_INVALID,
                         "\"%.100s\" is no name of a device: 1 ... 255 of "
                         "A-Z a-z 0-9 . _ -",
                         uri->path);
    int status = client_check_params(uri, error);
    if (status == 0)
        status = client_url(uri, &url, error);
    if (status == 0)
        status = client_tls(uri, &tls, error);
    if (status != 0) {
        free(url);
        return status;
    }
    struct client *client = url != NULL ? calloc(1, sizeof(*client)) : NULL;
    if (client == NULL) {
        free(url);
        link_tls_put(tls);
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a client");
    }
    status = client_token(uri, client, error);
    if (status != 0) {
        free(url);
        link_tls_put(tls);
        free(client);
        return status;
    }
    client->url = url;
    client->tls = tls;
    error_copy_text(client->target, sizeof client->target, url, strlen(url));
    snprintf(client->name, sizeof client->name, "%s", uri->path);
    client->connect_ms =
        (int32_t)uri_number(uri, "connect_timeout", CLIENT_CONNECT_MS);
    client->checksums = uri_number(uri, "checksum", 0) != 0;
    client->reconnect_ms = CLIENT_RECONNECT_LEASE;
    if (uri_get(uri, "reconnect") != NULL)
        client->reconnect_ms = (int32_t)uri_number(uri, "reconnect", 0) * 1000;
    client->retry_always = uri_number(uri, "retry", 0) != 0;
    client->reopen = uri_bool(uri, "reopen", false) || client->retry_always;
    client->shm = (enum client_shm)uri_number(uri, "shm", CLIENT_SHM_AUTO);
    atomic_init(&client->next_number, 1);
    client->next_id = 1;
    atomic_init(&client->users, 1);
    pthread_mutex_init(&client->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&client->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    *created = client;
    return 0;
}

/* ------------------------------------------------------------ the end */

void
client_leave(struct client *client)
{
    if (atomic_fetch_sub_explicit(&client->users, 1, memory_order_acq_rel) != 1)
        return;
    pthread_mutex_lock(&client->mutex);
    client->users_gone = true;
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->mutex);
}

void
client_free(struct client *client)
{
    if (client->link != NULL)
        session_lost(client, FARBLK_DISCONNECTED, "%s was closed",
                     client->target);
    timer_disarm(&client->timer); /* it is not armed again: the state is LOST */
    timer_disarm(&client->grace); /* the same */
    client_leave(client);
    pthread_mutex_lock(&client->mutex);
    while (client->link_running || !client->users_gone)
        pthread_cond_wait(&client->changed, &client->mutex);
    pthread_mutex_unlock(&client->mutex);
    rings_fini(client);
    if (client->link != NULL)
        link_put(client->link);
    cancel_fini(client);
    ids_fini(client);
    pthread_cond_destroy(&client->changed);
    pthread_mutex_destroy(&client->mutex);
    link_tls_put(client->tls);
    secret_wipe(client->token, sizeof client->token);
    free(client->devices);
    free(client->url);
    free(client);
}

/* ------------------------------------------------------------ the driver */

static int
farblk_driver_open(const struct uri *uri, bool read_only,
                   struct candidate *found, struct error *error)
{
    struct client *client;
    int status = client_create(uri, false, &client, error);
    if (status != 0)
        return status;
    client->read_only = read_only;
    found->state = client;
    found->key[0] = '\0';
    return 0;
}

/* What the device is, from what the server says and announces. */
static int
farblk_driver_shape(struct client *client, const struct codec_info *info,
                    struct shape *shape, struct error *error)
{
    const uint32_t sector = info->sector_size;
    uint64_t most =
        min_u64(client->limits.max_payload, client->limits.max_octets);
    if (info->max_transfer != 0)
        most = min_u64(most, info->max_transfer);
    most = round_down(most, sector);
    if (most == 0)
        return error_set(error, FARBLK_PROTOCOL,
                         "%s takes requests of %u octets, less than one sector "
                         "of %s, %u",
                         client->target, client->limits.max_payload,
                         client->name, sector);
    uint64_t preferred = round_down(info->preferred_transfer, sector);
    shape->sector_size = sector;
    shape->size = info->size_sectors * sector;
    shape->features = info->features & CLIENT_FEATURES;
    /* A watch would keep everything else waiting. */
    if (client->limits.max_requests <= CLIENT_RESERVE)
        shape->features &= ~(uint64_t)FARBLK_CAN_WATCH;
    shape->generation = info->generation;
    shape->max_transfer = (uint32_t)most;
    client->features = shape->features;
    client->transfer = most;
    client->was_writable = info->read_write;
    shape->preferred_transfer =
        (uint32_t)(preferred == 0 ? most : min_u64(preferred, most));
    shape->max_range = 0;
    shape->read_only = !info->read_write;
    snprintf(shape->name, sizeof shape->name, "%s", client->name);
    return 0;
}

static int
farblk_driver_start(void *state, struct device *device, struct shape *shape,
                    struct error *error)
{
    struct client *client = state;
    struct codec_info info;
    int64_t until_ms = timer_now() + client->connect_ms;
    client->device = device;
    int status = session_begin(client, until_ms, error);
    if (status == 0)
        status = session_open(client, until_ms, &info, error);
    if (status == 0)
        status = rings_begin(client, until_ms, error);
    if (status == 0)
        status = farblk_driver_shape(client, &info, shape, error);
    if (status == 0)
        status = session_keep_alive(client, error);
    return status;
}

static void
farblk_driver_disconnect(void *state)
{
    session_end(state);
}

static void
farblk_driver_shut(void *state, bool last)
{
    calls_shut(state, last);
}

static void
farblk_driver_close(void *state)
{
    client_free(state);
}

static void
farblk_driver_submit(void *state, struct io *io)
{
    calls_submit(state, io);
}

static void
farblk_driver_cancel(void *state, struct io *io)
{
    calls_cancel(state, io);
}

/* Who waits for replies may receive them: the link is the source. */
static void *
waiting_get(void *state, void *held)
{
    struct client *client = state;
    if (held != NULL
        && held == atomic_load_explicit(&client->link, memory_order_relaxed))
        return held;
    pthread_mutex_lock(&client->mutex);
    struct link *link = link_get(client->link);
    pthread_mutex_unlock(&client->mutex);
    return link;
}

static bool
waiting_ended(void *source)
{
    return link_ended(source);
}

static void
waiting_put(void *source)
{
    link_put(source);
}

static void
waiting_push(void *source)
{
    link_push(source);
}

static bool
waiting_attend(void *source, struct attendance *attendance, int64_t until_ms)
{
    return link_attend(source, attendance, until_ms);
}

static void
waiting_left(void *source)
{
    link_left(source);
}

static void
waiting_wake(void *source, struct attendance *attendance)
{
    link_wake(source, attendance);
}

static void
waiting_mind(void *source, bool forever)
{
    link_mind(source, forever);
}

static const struct driver_waiting farblk_driver_waiting = {
    .get = waiting_get,
    .ended = waiting_ended,
    .put = waiting_put,
    .push = waiting_push,
    .attend = waiting_attend,
    .left = waiting_left,
    .wake = waiting_wake,
    .mind = waiting_mind,
};

const struct driver driver_farblk = {
    .name = "farblk",
    .schemes = "farblk+unix farblk farblks farblk+inproc farblk+ws",
    .summary = "a device behind a farblkd",
    .usage = "farblk+unix:///NAME?socket=PATH | farblk://HOST[:5660]/NAME | "
             "farblks://HOST[:5660]/NAME?ca=PATH | "
             "farblk+inproc:///NAME?address=ADDRESS | "
             "farblk+ws://HOST:PORT/NAME",
    .params = client_params,
    .flags = DRIVER_REMOTE,
    .native_fua = 1u << FARBLK_OP_WRITE | 1u << FARBLK_OP_DISCARD
                  | 1u << FARBLK_OP_WRITE_ZEROES | 1u << FARBLK_OP_RESIZE,
    .open = farblk_driver_open,
    .start = farblk_driver_start,
    .disconnect = farblk_driver_disconnect,
    .shut = farblk_driver_shut,
    .close = farblk_driver_close,
    .submit = farblk_driver_submit,
    .cancel = farblk_driver_cancel,
    .waiting = &farblk_driver_waiting,
    .rings = &rings_driver,
    .way = rings_way,
    .buffer_alloc = arena_buffer_alloc,
    .buffer_free = arena_buffer_free,
    .list = list_devices,
};
