/* SPDX-License-Identifier: ISC */
/*
 * farblk_list(): a session of its own that asks for the server's devices, page
 * by page.
 */
#include "client/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tell one page.  Names must rise, or the listing might never end. */
static int
list_page(struct client *client, const struct codec_reply *reply, char *after,
          size_t after_size,
          int (*entry)(void *arg, const struct farblk_list_entry *entry),
          void *arg, struct error *error)
{
    for (size_t i = 0; i < reply->result.list.count; i++) {
        const struct codec_device *device = &client->devices[i];
        /* What is printed must be what can be opened, and nothing else. */
        if (!uri_name_valid(device->name)) {
            char shown[CODEC_NAME_LENGTH];
            error_copy_text(shown, sizeof shown, device->name,
                            strlen(device->name));
            return error_set(error, FARBLK_PROTOCOL,
                             "%s broke the protocol: it lists \"%.100s\", "
                             "which is no name of a device",
                             client->target, shown);
        }
        if (strcmp(device->name, after) <= 0)
            return error_set(error, FARBLK_PROTOCOL,
                             "%s broke the protocol: it lists \"%.100s\" after "
                             "\"%.100s\"",
                             client->target, device->name, after);
        snprintf(after, after_size, "%s", device->name);
        const struct farblk_list_entry told = {
            .size = sizeof told,
            .name = device->name,
            .read_write = device->read_write,
            .sector_size = device->sector_size,
            .size_sectors = device->size_sectors,
        };
        int status = entry(arg, &told);
        if (status != 0)
            return status;
    }
    return 0;
}

static int
list_pages(struct client *client,
           int (*entry)(void *arg, const struct farblk_list_entry *entry),
           void *arg, struct error *error)
{
    struct codec_request request;
    struct codec_reply reply;
    char after[CODEC_NAME_LENGTH] = "";
    do {
        request.method = WIRE_LIST_DEVICES;
        request.handle = 0;
        request.has_secret = false;
        memcpy(request.args.list.after, after, sizeof after);
        int status =
            session_call(client, &request, false,
                         timer_now() + client->connect_ms, &reply, error);
        if (status != 0)
            return status;
        if (reply.status != 0)
            return session_error(&reply, error, "listing the devices of %s",
                                 client->target);
        status =
            list_page(client, &reply, after, sizeof after, entry, arg, error);
        if (status != 0)
            return status;
    } while (reply.result.list.more);
    return 0;
}

int
list_devices(const struct uri *uri,
             int (*entry)(void *arg, const struct farblk_list_entry *entry),
             void *arg, struct error *error)
{
    struct client *client;
    int status = client_create(uri, true, &client, error);
    if (status != 0)
        return status;
    client->devices = calloc(CODEC_DEVICES_MAX, sizeof(*client->devices));
    if (client->devices == NULL)
        status = error_set(error, FARBLK_NO_MEMORY, "no memory for a list");
    if (status == 0)
        status = session_begin(client, timer_now() + client->connect_ms, error);
    if (status == 0)
        status = list_pages(client, entry, arg, error);
    session_end(client);
    client_free(client);
    return status;
}
