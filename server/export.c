/* SPDX-License-Identifier: ISC */
/*
 * Exports.  Each device is opened once, when it is exported; sessions get
 * further handles of it.  Files are locked against other daemons unless their
 * URI says otherwise.
 */
#include "server/export.h"

#include "core/device.h"
#include "core/log.h"
#include "core/uri.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static int
export_open(struct export *export, const char *uri, uint32_t max_payload,
            struct error *error)
{
    struct farblk_info info;
    char *whole = uri_locked(uri);
    if (whole == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "export %s: no memory",
                         export->name);
    int status = farblk_open(whole, NULL, &export->dev);
    free(whole);
    if (status != 0) {
        const char *text = farblk_last_text();
        return error_set(error, status, "export %s: %s", export->name, text);
    }
    handle_info(export->dev, &info);
    export->sector_size = info.sector_size;
    if (info.sector_size > max_payload)
        return error_set(error, FARBLK_INVALID,
                         "export %s: its sectors of %u octets do not fit into "
                         "the largest request, %u octets",
                         export->name, info.sector_size, max_payload);
    static const uint8_t none[WIRE_INSTANCE_SIZE];
    memcpy(export->content, export->dev->device->shape.content,
           sizeof export->content);
    if (memcmp(export->content, none, sizeof none) == 0
        && getrandom(export->content, sizeof export->content, 0)
               != (ssize_t)sizeof export->content)
        return error_set(error, FARBLK_UNKNOWN, "export %s: no random numbers",
                         export->name);
    log_info("export %s: %s, %llu sectors of %u octets%s", export->name, uri,
             (unsigned long long)info.size_sectors, info.sector_size,
             info.read_write ? "" : ", read-only");
    return 0;
}

/* Under the mutex: where the name is, or would be. */
static struct export **
export_place(struct farblk_server *server, const char *name)
{
    struct export **place = &server->exports;
    while (*place != NULL && strcmp((*place)->name, name) < 0)
        place = &(*place)->next;
    return place;
}

int
export_add(struct farblk_server *server, const char *name, const char *uri,
           const struct farblk_export_options *options, struct error *error)
{
    if (!uri_name_valid(name)) {
        char shown[64];
        error_copy_text(shown, sizeof shown, name, strlen(name));
        return error_set(error, FARBLK_INVALID,
                         "export name \"%s\": names match "
                         "[A-Za-z0-9._-]{1,255}",
                         shown);
    }
    if (export_find(server, name) != NULL)
        return error_set(error, FARBLK_EXISTS,
                         "export %s: there is one of that name", name);
    struct export *export = calloc(1, sizeof *export);
    if (export == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "export %s: no memory", name);
    snprintf(export->name, sizeof export->name, "%s", name);
    int status = 0;
    if (options != NULL)
        status = access_rules_init(&export->rules, options, error);
    if (status == 0)
        status = export_open(export, uri, server->limits.max_payload, error);
    if (status == 0) {
        pthread_mutex_lock(&server->mutex);
        struct export **place = export_place(server, name);
        if (server->stopping)
            status = error_set(error, FARBLK_DISCONNECTED,
                               "export %s: the server has stopped", name);
        else if (*place != NULL && strcmp((*place)->name, name) == 0)
            status = error_set(error, FARBLK_EXISTS,
                               "export %s: there is one of that name", name);
        if (status == 0) {
            export->next = *place;
            *place = export;
        }
        pthread_mutex_unlock(&server->mutex);
    }
    if (status != 0) {
        farblk_close(export->dev);
        access_rules_fini(&export->rules);
        free(export);
    }
    return status;
}

struct export *
export_find(struct farblk_server *server, const char *name)
{
    pthread_mutex_lock(&server->mutex);
    struct export *found = *export_place(server, name);
    pthread_mutex_unlock(&server->mutex);
    return found != NULL && strcmp(found->name, name) == 0 ? found : NULL;
}

static bool
export_is_listed(const struct export *export, const struct access_who *who)
{
    return export->rules.token_length == 0
           && access_is_named(&export->rules, who);
}

size_t
export_list(struct farblk_server *server, const struct access_who *who,
            const char *after, struct codec_device *devices, size_t max,
            bool *more)
{
    size_t count = 0;
    pthread_mutex_lock(&server->mutex);
    struct export *export = *export_place(server, after);
    if (export != NULL && strcmp(export->name, after) == 0)
        export = export->next;
    *more = false;
    for (; export != NULL && !*more; export = export->next) {
        if (!export_is_listed(export, who))
            continue;
        if (count == max) {
            *more = true;
            break;
        }
        struct codec_device *device = &devices[count++];
        struct farblk_info info;
        handle_info(export->dev, &info);
        snprintf(device->name, sizeof device->name, "%s", export->name);
        device->read_write = info.read_write;
        device->sector_size = info.sector_size;
        device->size_sectors = info.size_sectors;
    }
    pthread_mutex_unlock(&server->mutex);
    return count;
}

/* Flush one within the time that is left, and keep the first error. */
static void
export_flush_one(struct export *export, struct farblk_queue *queue,
                 int32_t timeout_ms, struct error *error)
{
    struct farblk_request request = {
        .size = sizeof request,
        .op = FARBLK_OP_FLUSH,
        .dev = export->dev,
        .timeout_ms = timeout_ms < 0 ? -1 : timeout_ms + 1,
    };
    struct farblk_completion completion = {0};
    completion.status = farblk_submit(queue, &request);
    completion.text = farblk_last_text();
    if (completion.status == 0)
        farblk_collect(queue, &completion, sizeof completion, 1, -1);
    if (completion.status != 0 && error->status == 0)
        error_set(error, completion.status, "export %s: %s", export->name,
                  completion.text);
}

int
export_flush(struct farblk_server *server, int32_t timeout_ms,
             struct error *error)
{
    struct farblk_queue *queue;
    error_clear(error);
    int status = farblk_queue_create(1, &queue);
    if (status != 0)
        return error_set(error, status, "flush: %s", farblk_last_text());
    for (struct export *e = server->exports; e != NULL; e = e->next)
        export_flush_one(e, queue, timeout_ms, error);
    farblk_queue_destroy(queue);
    return error->status;
}

void
export_close_all(struct farblk_server *server)
{
    while (server->exports != NULL) {
        struct export *export = server->exports;
        server->exports = export->next;
        farblk_close(export->dev);
        access_rules_fini(&export->rules);
        free(export);
    }
}
