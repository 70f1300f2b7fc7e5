/* SPDX-License-Identifier: ISC */
/*
 * Devices in use.  All NBD connections to one device share one handle: so a
 * flush on any of them covers what was written on the others whatever the
 * driver is, a device that may be opened once only can have several clients,
 * and one that does work of its own does it once.
 *
 * It is closed when the last connection has gone, unless keep= was given; then
 * a new connection begins from scratch, also after a flush has failed.  A
 * device that is disconnected (its server died) stays with those who have it,
 * whose requests fail; who comes next gets another.
 */
#include "nbdkit/plugin.h"

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* One opens at a time, which may take long; `table` protects the list and the
 * counts, never for long, so that releasing does not wait for opening.  Taken
 * in this order. */
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;
static struct shared *list;

static struct shared *
shared_find(const char *uri, bool read_only)
{
    pthread_mutex_lock(&table);
    struct shared *at = list;
    while (at != NULL
           && (at->retired || at->read_only != read_only
               || strcmp(at->uri, uri) != 0))
        at = at->next;
    if (at != NULL)
        at->users++;
    pthread_mutex_unlock(&table);
    return at;
}

static void
shared_free(struct shared *shared)
{
    if (shared->dev != NULL && farblk_close(shared->dev) != 0)
        nbdkit_error("close: %s", farblk_last_text());
    free(shared->uri);
    free(shared);
}

void
shared_release(struct shared *shared)
{
    struct shared **link = &list;
    pthread_mutex_lock(&table);
    bool last = --shared->users == 0;
    while (last && *link != shared)
        link = &(*link)->next;
    if (last)
        *link = shared->next;
    pthread_mutex_unlock(&table);
    if (last)
        shared_free(shared);
}

/* Nobody shall find it any more. */
static void
shared_retire(struct shared *shared)
{
    pthread_mutex_lock(&table);
    bool kept = shared->kept;
    shared->kept = false;
    shared->retired = true;
    pthread_mutex_unlock(&table);
    if (kept)
        shared_release(shared);
}

void
shared_end(void)
{
    pthread_mutex_lock(&table);
    struct shared *rest = list;
    list = NULL;
    pthread_mutex_unlock(&table);
    while (rest != NULL) {
        struct shared *shared = rest;
        rest = shared->next;
        shared_free(shared);
    }
}

/* What the device is now, asked of the device itself.  *gone: it is
 * disconnected.  0, or -1. */
static int
ask(struct farblk *dev, struct farblk_info *info, bool *gone)
{
    struct farblk_queue *queue;
    struct farblk_completion end;
    struct iovec to = {.iov_base = info, .iov_len = sizeof *info};
    struct farblk_request request = {.size = sizeof request,
                                     .op = FARBLK_OP_GET_INFO,
                                     .dev = dev,
                                     .iov = &to,
                                     .iovcnt = 1};
    int answer = -1;
    *gone = false;
    if (farblk_queue_create(1, &queue) != 0) {
        nbdkit_error("%s", farblk_last_text());
        return -1;
    }
    if (farblk_submit(queue, &request) != 0
        || farblk_collect(queue, &end, sizeof end, 1, -1) != 1) {
        nbdkit_error("%s", farblk_last_text());
    } else if (end.status == FARBLK_DISCONNECTED
               || end.status == FARBLK_CONNECTION_LOST
               || (end.status == 0 && end.value != 0)) {
        *gone = true;
        answer = 0;
    } else if (end.status != 0) {
        nbdkit_error("%s (%s)", end.text, farblk_status_name(end.status));
    } else {
        answer = 0;
    }
    farblk_queue_destroy(queue);
    return answer;
}

/* Another device, not in the list.  NULL: told. */
static struct shared *
shared_open(const char *uri, bool read_only, struct farblk_info *info)
{
    const struct farblk_options options = {.size = sizeof options,
                                           .read_only = read_only};
    struct shared *shared = calloc(1, sizeof *shared);
    bool gone = false;
    if (shared == NULL || (shared->uri = strdup(uri)) == NULL) {
        nbdkit_error("no memory for a device");
        free(shared);
        return NULL;
    }
    shared->read_only = read_only;
    int status = farblk_open(uri, &options, &shared->dev);
    if (status != 0)
        nbdkit_error("%s (%s)", farblk_last_text(), farblk_status_name(status));
    else
        status = ask(shared->dev, info, &gone);
    if (gone)
        nbdkit_error("the device was disconnected while it was opened");
    if (status == 0 && !gone)
        return shared;
    shared_free(shared);
    return NULL;
}

/* The opening lock is held. */
static struct shared *
acquire(const char *uri, bool read_only, struct farblk_info *info)
{
    bool gone;
    struct shared *shared = shared_find(uri, read_only);
    if (shared != NULL) {
        int asked = ask(shared->dev, info, &gone);
        if (asked == 0 && !gone)
            return shared;
        if (gone)
            shared_retire(shared);
        shared_release(shared);
        if (asked != 0)
            return NULL;
    }
    shared = shared_open(uri, read_only, info);
    if (shared == NULL)
        return NULL;
    pthread_mutex_lock(&table);
    shared->kept = config_keep();
    shared->users = shared->kept ? 2 : 1;
    shared->next = list;
    list = shared;
    pthread_mutex_unlock(&table);
    return shared;
}

struct shared *
shared_acquire(const char *uri, bool read_only, struct farblk_info *info)
{
    pthread_mutex_lock(&opening);
    struct shared *shared = acquire(uri, read_only, info);
    pthread_mutex_unlock(&opening);
    return shared;
}
