/* SPDX-License-Identifier: ISC */
/*
 * Opening and closing: from a URI to a handle of a running device, and back.
 *
 * The registry holds the devices that have an identity; a second open of one
 * joins it.  Its lock is held while such a device is started, joined or closed,
 * so that a file's lock is never taken twice.  Devices without an identity
 * (remote ones, which may take long to open) are not in it.
 */
#include "core/device.h"

#include "core/checked.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HANDLE_BUCKETS 1024u

static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static struct device *devices;
static atomic_uint_fast64_t identities; /* given so far */

static pthread_mutex_t handles_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct farblk *handles[HANDLE_BUCKETS];

/* ------------------------------------------------------------ drivers */

static bool
has_word(const char *words, const char *word)
{
    size_t length = strlen(word);
    while (*words != '\0') {
        size_t n = strcspn(words, " ");
        if (n == length && memcmp(words, word, n) == 0)
            return true;
        words += n + (words[n] == ' ');
    }
    return false;
}

static const struct driver *
find_driver(const char *uri, struct error *error)
{
    char scheme[32];
    char known[256] = "";
    size_t used = 0;
    if (uri_scheme(uri, scheme, sizeof scheme, error) != 0)
        return NULL;
    for (size_t i = 0; drivers[i] != NULL; i++) {
        if (has_word(drivers[i]->schemes, scheme))
            return drivers[i];
        if (used < sizeof known)
            used += (size_t)snprintf(known + used, sizeof known - used, "%s%s",
                                     used > 0 ? " " : "", drivers[i]->schemes);
    }
    error_set(error, FARBLK_INVALID, "unknown scheme \"%s\"; known are: %s",
              scheme, known);
    return NULL;
}

/* Parse a URI of the driver's. */
static int
parse_uri(const struct driver *driver, const char *text, struct uri *uri,
          struct error *error)
{
    int status = uri_parse(text, driver->params, uri, error);
    if (status != 0 || uri->user == NULL || (driver->flags & DRIVER_USERS) != 0)
        return status;
    error_set(error, FARBLK_INVALID, "%s: takes no user, as in USER@HOST",
              uri->scheme);
    uri_free(uri);
    return error->status;
}

/* The parameters as text, for farblk_driver(). */
static char *
describe_params(const struct uri_param *params)
{
    const struct uri_param *tables[2] = {params, uri_common_params};
    static const char *const kinds[] = {
        [URI_BOOL] = "0|1",    [URI_NUMBER] = "NUMBER", [URI_SIZE] = "SIZE",
        [URI_STRING] = "TEXT", [URI_CHOICE] = "",
    };
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return NULL;
    for (unsigned t = 0; t < 2; t++)
        for (const struct uri_param *p = tables[t];
             p != NULL && p->name != NULL; p++)
            fprintf(out, "%s=%s  %s\n", p->name,
                    p->kind == URI_CHOICE ? p->choices : kinds[p->kind],
                    p->help);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

#define DRIVERS_MAX 32
static struct farblk_driver_info infos[DRIVERS_MAX];
static pthread_once_t infos_once = PTHREAD_ONCE_INIT;

static void
make_infos(void)
{
    for (size_t i = 0; i < DRIVERS_MAX && drivers[i] != NULL; i++) {
        const char *params = describe_params(drivers[i]->params);
        infos[i] = (struct farblk_driver_info){
            .size = sizeof infos[i],
            .name = drivers[i]->name,
            .schemes = drivers[i]->schemes,
            .summary = drivers[i]->summary,
            .usage = drivers[i]->usage,
            .parameters = params != NULL ? params : "",
        };
    }
}

const struct farblk_driver_info *
farblk_driver(size_t index)
{
    pthread_once(&infos_once, make_infos);
    if (index >= DRIVERS_MAX || infos[index].size == 0)
        return NULL;
    return &infos[index];
}

/* ------------------------------------------------------------ handles */

static struct farblk **
handle_bucket(const struct farblk *handle)
{
    return &handles[((uintptr_t)handle >> 6) % HANDLE_BUCKETS];
}

static struct farblk *
handle_create(struct device *device, bool read_only, bool sync,
              int32_t timeout_ms)
{
    struct farblk *handle = calloc(1, sizeof *handle);
    if (handle == NULL)
        return NULL;
    handle->device = device;
    handle->fork_generation = fork_generation();
    handle->read_only = read_only;
    handle->sync = sync;
    handle->timeout_ms = timeout_ms;
    pthread_mutex_init(&handle->mutex, NULL);
    pthread_cond_init(&handle->drained, NULL);
    pthread_mutex_lock(&handles_mutex);
    struct farblk **bucket = handle_bucket(handle);
    handle->next = *bucket;
    *bucket = handle;
    pthread_mutex_unlock(&handles_mutex);
    return handle;
}

/* Take the handle out of those that are open; false when it is not. */
static bool
handle_take(struct farblk *handle)
{
    bool found = false;
    pthread_mutex_lock(&handles_mutex);
    struct farblk **link = handle_bucket(handle);
    while (*link != NULL && *link != handle)
        link = &(*link)->next;
    if (*link != NULL) {
        *link = handle->next;
        found = true;
    }
    pthread_mutex_unlock(&handles_mutex);
    return found;
}

bool
handle_open(const struct farblk *handle)
{
    pthread_mutex_lock(&handles_mutex);
    const struct farblk *at = *handle_bucket(handle);
    while (at != NULL && at != handle)
        at = at->next;
    pthread_mutex_unlock(&handles_mutex);
    return at != NULL;
}

static void
handle_free(struct farblk *handle)
{
    pthread_mutex_destroy(&handle->mutex);
    pthread_cond_destroy(&handle->drained);
    free(handle);
}

struct farblk *
handle_dup(struct farblk *handle, bool read_only)
{
    struct device *device = handle->device;
    struct farblk *twin = handle_create(device, handle->read_only || read_only,
                                        handle->sync, handle->timeout_ms);
    if (twin == NULL)
        return NULL;
    /* The handle keeps the device; only the counts want the lock, and nobody
     * holds it for long while a device of ours is in use. */
    pthread_mutex_lock(&device->counts_mutex);
    device->handles++;
    device->connected++;
    pthread_mutex_unlock(&device->counts_mutex);
    return twin;
}

/* ------------------------------------------------------------ devices */

static struct device *
device_create(const struct driver *driver, const struct candidate *found,
              struct error *error)
{
    struct device *device = calloc(1, sizeof *device);
    if (device == NULL) {
        error_set(error, FARBLK_NO_MEMORY, "no memory for a device");
        return NULL;
    }
    device->driver = driver;
    device->state = found->state;
    device->identity = atomic_fetch_add(&identities, 1) + 1;
    memcpy(device->key, found->key, sizeof device->key);
    gate_init(&device->gate);
    ranges_init(&device->ranges);
    pthread_mutex_init(&device->mutex, NULL);
    pthread_mutex_init(&device->counts_mutex, NULL);
    return device;
}

/* Without the driver's state, which has been closed. */
static void
device_free(struct device *device)
{
    gate_fini(&device->gate);
    ranges_fini(&device->ranges);
    pthread_mutex_destroy(&device->mutex);
    pthread_mutex_destroy(&device->counts_mutex);
    free(device);
}

/* What a driver tells of itself must hold before anything relies on it. */
static int
check_shape(struct shape *shape, struct error *error)
{
    uint32_t ss = shape->sector_size;
    if (!is_power_of_two(ss) || ss < FARBLK_SECTOR_MIN
        || ss > FARBLK_SECTOR_MAX)
        return error_set(error, FARBLK_INVALID,
                         "sector size %u: must be a power of two, %u ... %u",
                         ss, FARBLK_SECTOR_MIN, FARBLK_SECTOR_MAX);
    if (shape->size > INT64_MAX || shape->size % ss != 0)
        return error_set(error, FARBLK_INVALID,
                         "size %llu: must be whole sectors of %u and at most "
                         "INT64_MAX octets",
                         (unsigned long long)shape->size, ss);
    if (shape->max_transfer < ss)
        return error_set(error, FARBLK_INVALID,
                         "the largest transfer, %u octets, is less than a "
                         "sector of %u",
                         shape->max_transfer, ss);
    shape->max_transfer = (uint32_t)round_down(shape->max_transfer, ss);
    shape->max_range = round_down(shape->max_range, ss);
    if (shape->preferred_transfer < ss)
        shape->preferred_transfer = ss;
    if (shape->preferred_transfer > shape->max_transfer)
        shape->preferred_transfer = shape->max_transfer;
    if (shape->generation == 0)
        shape->generation = 1;
    return 0;
}

/* A device of its own from the candidate; on failure the candidate is left. */
static struct device *
device_start(const struct driver *driver, struct candidate *found,
             struct error *error)
{
    struct device *device = device_create(driver, found, error);
    if (device == NULL)
        return NULL;
    if (driver->start(found->state, device, &device->shape, error) != 0
        || check_shape(&device->shape, error) != 0) {
        device_free(device);
        return NULL;
    }
    device_started(device);
    return device;
}

/* Count a handle in.  False: of a device that stands on others the last one is
 * leaving or has left, and what it had under way there is ended by now or soon;
 * there will be another. */
static bool
device_claim(struct device *device)
{
    bool stacked = (device->driver->flags & DRIVER_STACKED) != 0;
    pthread_mutex_lock(&device->counts_mutex);
    bool fine = !stacked || device->connected > 0;
    if (fine) {
        device->handles++;
        device->connected++;
    }
    pthread_mutex_unlock(&device->counts_mutex);
    return fine;
}

/* The registry's lock is held if the candidate has an identity.  The device has
 * been claimed.  *unused: the candidate was not used up; it is to be closed.
 * With error->status set it could not be joined. */
static struct device *
device_find_or_start(const struct driver *driver, struct candidate *found,
                     bool *read_only, bool *unused, struct error *error)
{
    bool listed = found->key[0] != '\0';
    struct device *device = listed ? devices : NULL;
    while (device != NULL
           && (device->driver != driver || strcmp(device->key, found->key) != 0
               || !device_claim(device)))
        device = device->next;
    error_clear(error);
    if (device != NULL) {
        *unused = true;
        driver->join(device->state, found->state, read_only, error);
        return device;
    }
    device = device_start(driver, found, error);
    *unused = device == NULL;
    if (device != NULL) {
        device->handles = device->connected = 1;
        if (listed) {
            device->next = devices;
            devices = device;
        }
    }
    return device;
}

/* Count a handle out; close the device with the last one. */
static void
device_put(struct device *device)
{
    const struct driver *driver = device->driver;
    bool listed = device->key[0] != '\0';
    bool stacked = (driver->flags & DRIVER_STACKED) != 0;
    if (listed)
        pthread_mutex_lock(&registry);
    pthread_mutex_lock(&device->counts_mutex);
    bool last = --device->handles == 0;
    pthread_mutex_unlock(&device->counts_mutex);
    if (last && listed) {
        struct device **link = &devices;
        while (*link != device)
            link = &(*link)->next;
        *link = device->next;
    }
    if (last && !stacked)
        driver->close(device->state);
    if (listed)
        pthread_mutex_unlock(&registry);
    if (last && stacked)
        driver->close(device->state);
    if (last)
        device_free(device);
}

void
device_after_fork(void)
{
    pthread_mutex_init(&registry, NULL);
    pthread_mutex_init(&handles_mutex, NULL);
    devices = NULL; /* the parent's: never to be joined or closed here */
}

/* ------------------------------------------------------------ the API */

/* What options and URI together ask of the handle. */
struct wishes {
    bool read_only, sync;
    int32_t timeout_ms;
};

static int
read_options(const struct farblk_options *options, struct wishes *wishes,
             struct error *error)
{
    memset(wishes, 0, sizeof *wishes);
    if (options == NULL)
        return 0;
    if (options->size < sizeof *options)
        return error_set(error, FARBLK_INVALID,
                         "options of %zu octets, wanted at least %zu",
                         options->size, sizeof *options);
    const unsigned char *tail = (const unsigned char *)options;
    for (size_t i = sizeof *options; i < options->size; i++)
        if (tail[i] != 0)
            return error_set(error, FARBLK_INVALID,
                             "options that this library does not know");
    if (options->timeout_ms < 0)
        return error_set(error, FARBLK_INVALID, "timeout %d ms is negative",
                         options->timeout_ms);
    wishes->read_only = options->read_only;
    wishes->sync = options->sync;
    wishes->timeout_ms = options->timeout_ms;
    return 0;
}

/* Count a handle as disconnected, `leaving` if it was shut before; the last one
 * ends the driver's business. */
static void
device_leave(struct device *device, bool leaving)
{
    pthread_mutex_lock(&device->counts_mutex);
    device->leaving -= leaving;
    bool last = --device->connected == 0;
    pthread_mutex_unlock(&device->counts_mutex);
    if (last && device->driver->disconnect != NULL)
        device->driver->disconnect(device->state);
}

/* A handle of what was found, or of the device that it is; consumes the
 * candidate. */
static int
open_found(const struct driver *driver, struct candidate *found,
           const struct wishes *wishes, struct farblk **handle,
           struct error *error)
{
    bool read_only = wishes->read_only, unused = false;
    bool listed = found->key[0] != '\0';
    bool stacked = (driver->flags & DRIVER_STACKED) != 0;
    if (listed)
        pthread_mutex_lock(&registry);
    struct device *device =
        device_find_or_start(driver, found, &read_only, &unused, error);
    if (unused && !stacked)
        driver->close(found->state);
    if (listed)
        pthread_mutex_unlock(&registry);
    if (unused && stacked)
        driver->close(found->state);
    if (device == NULL)
        return error->status;
    if (error->status == 0) {
        *handle =
            handle_create(device, read_only, wishes->sync, wishes->timeout_ms);
        if (*handle != NULL)
            return 0;
        error_set(error, FARBLK_NO_MEMORY, "no memory for a handle");
    }
    device_leave(device, false);
    device_put(device);
    return error->status;
}

int
device_open_found(const struct driver *driver, struct candidate *found,
                  struct farblk **handle, struct error *error)
{
    struct wishes wishes = {false, false, 0};
    return open_found(driver, found, &wishes, handle, error);
}

int
device_open(const struct driver *driver, const char *text,
            const struct farblk_options *options, struct farblk **handle,
            struct error *error)
{
    struct wishes wishes;
    struct uri uri;
    int status = read_options(options, &wishes, error);
    if (status == 0)
        status = parse_uri(driver, text, &uri, error);
    if (status != 0)
        return status;
    wishes.read_only = wishes.read_only || uri_bool(&uri, "ro", false);
    wishes.sync = wishes.sync || uri_bool(&uri, "sync", false);
    if (wishes.timeout_ms == 0)
        wishes.timeout_ms = (int32_t)uri_number(&uri, "timeout", 0);
    struct candidate found = {NULL, ""};
    status = driver->open(&uri, wishes.read_only, &found, error);
    if (status == 0)
        status = open_found(driver, &found, &wishes, handle, error);
    uri_free(&uri);
    return status;
}

int
farblk_open(const char *uri, const struct farblk_options *options,
            struct farblk **dev)
{
    struct error error;
    error_clear(&error);
    last_error_clear();
    if (dev == NULL)
        return last_error_fail(FARBLK_INVALID,
                               "open: nowhere to put the handle");
    *dev = NULL;
    const struct driver *driver = find_driver(uri, &error);
    if (driver != NULL && device_open(driver, uri, options, dev, &error) == 0)
        return 0;
    return last_error_fail(error.status, "open: %.*s", FARBLK_TEXT_MAX - 8,
                           error.text);
}

/* Drain, and count the handle as disconnected, once. */
static void
disconnect(struct farblk *handle)
{
    struct device *device = handle->device;
    handle_disconnect(handle);
    pthread_mutex_lock(&device->counts_mutex);
    bool ended = handle->ended;
    handle->ended = true;
    pthread_mutex_unlock(&device->counts_mutex);
    if (!ended)
        device_leave(device, true);
}

int
farblk_disconnect(struct farblk *dev)
{
    last_error_clear();
    if (dev == NULL || !handle_open(dev) || handle_forked(dev))
        return last_error_fail(
            FARBLK_INVALID, "disconnect: not an open handle of this process");
    disconnect(dev);
    return 0;
}

int
farblk_close(struct farblk *dev)
{
    last_error_clear();
    if (dev == NULL)
        return 0;
    if (!handle_take(dev))
        return last_error_fail(FARBLK_INVALID, "close: not an open handle");
    if (handle_forked(dev)) /* its memory stays; nothing of it may be touched */
        return last_error_fail(
            FARBLK_INVALID, "close: the handle belongs to the parent process");
    disconnect(dev);
    struct device *device = dev->device;
    handle_free(dev);
    device_put(device);
    return 0;
}

int
farblk_list(const char *uri,
            int (*entry)(void *arg, const struct farblk_list_entry *entry),
            void *arg)
{
    struct error error;
    struct uri parsed;
    error_clear(&error);
    last_error_clear();
    if (entry == NULL)
        return last_error_fail(FARBLK_INVALID, "list: no function to call");
    const struct driver *driver = find_driver(uri, &error);
    int status = error.status;
    if (driver != NULL && driver->list == NULL)
        status = error_set(&error, FARBLK_UNIMPLEMENTED,
                           "%s: there is nothing to list behind such a URI",
                           driver->name);
    else if (driver != NULL)
        status = parse_uri(driver, uri, &parsed, &error);
    if (status != 0)
        return last_error_fail(status, "list: %.*s", FARBLK_TEXT_MAX - 8,
                               error.text);
    status = driver->list(&parsed, entry, arg, &error);
    uri_free(&parsed);
    if (status != 0 && error.status == status)
        return last_error_fail(status, "list: %.*s", FARBLK_TEXT_MAX - 8,
                               error.text);
    return status;
}
