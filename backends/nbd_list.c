/* SPDX-License-Identifier: ISC */
/*
 * farblk_list(): the names that a server lists, and what it says of each.
 *
 * One connection stays in the negotiation: no export is entered, so that a
 * server that ends with its last client goes on.  An export that the server
 * names but tells nothing of is listed with 0 sectors.
 */
#include "backends/nbd.h"

#include "core/checked.h"
#include "core/timer.h"

#include <stdlib.h>
#include <string.h>

/* More names than a server has; only against endless answers. */
#define NBD_LIST_MAX 10000u

struct nbd_names {
    char **name;
    size_t count;
    bool failed; /* no memory */
    bool over; /* there were more */
    bool ended; /* the server has answered */
    int errnum; /* with this */
};

static int
nbd_list_name(void *user_data, const char *name, const char *description)
{
    struct nbd_names *names = user_data;
    (void)description;
    if (names->failed || names->over)
        return 0;
    names->over = names->count == NBD_LIST_MAX;
    if (names->over)
        return 0;
    if ((names->count & (names->count - 1)) == 0) { /* a power of two: grow */
        size_t room = names->count == 0 ? 1 : 2 * names->count;
        char **more = reallocarray(names->name, room, sizeof *more);
        names->failed = more == NULL;
        if (more != NULL)
            names->name = more;
    }
    char *copy = names->failed ? NULL : strdup(name);
    names->failed = copy == NULL;
    if (copy != NULL)
        names->name[names->count++] = copy;
    return 0;
}

static int
nbd_list_ended(void *user_data, int *errnum)
{
    struct nbd_names *names = user_data;
    names->errnum = *errnum;
    names->ended = true;
    return 1;
}

static int
nbd_list_by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Wait for the answer to an option that was just sent. */
static int
nbd_list_wait(const struct nbd_config *config, struct nbd_handle *handle,
              int64_t until_ms, struct error *error)
{
    return nbd_wait(config, handle, nbd_aio_is_connecting, until_ms, -1,
                    "what it exports", error);
}

static int
nbd_list_names(const struct nbd_config *config, struct nbd_handle *handle,
               int64_t until_ms, struct nbd_names *names, struct error *error)
{
    const nbd_list_callback each = {.callback = nbd_list_name,
                                    .user_data = names};
    const nbd_completion_callback ended = {.callback = nbd_list_ended,
                                           .user_data = names};
    char words[320];
    if (nbd_aio_is_negotiating(handle) != 1)
        return error_set(error, FARBLK_UNIMPLEMENTED,
                         "%s: the server can not list its exports",
                         config->target);
    int sent = nbd_aio_opt_list(handle, each, ended);
    if (sent == 0 && nbd_list_wait(config, handle, until_ms, error) != 0)
        return error->status;
    if (sent != 0 || !names->ended || names->errnum != 0) {
        int errnum = sent != 0 ? nbd_get_errno() : names->errnum;
        nbd_words(words, sizeof words, "no reason given");
        int status = error_status_of_errno(errnum);
        return error_set(error, status,
                         "%s: the server does not list its "
                         "exports: %s",
                         config->target, sent != 0 ? words : strerror(errnum));
    }
    if (names->failed)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a list");
    if (names->over)
        return error_set(error, FARBLK_PROTOCOL,
                         "%s: the server lists more than %u exports",
                         config->target, NBD_LIST_MAX);
    return 0;
}

/* What the server says of one; the entry keeps its zeroes when it is silent.
 * Fails with the connection only. */
static int
nbd_list_describe(const struct nbd_config *config, struct nbd_handle *handle,
                  int64_t until_ms, struct farblk_list_entry *entry,
                  struct error *error)
{
    struct nbd_names answer = {0};
    const nbd_completion_callback ended = {.callback = nbd_list_ended,
                                           .user_data = &answer};
    struct nbd_facts facts;
    struct error ignored;
    uint32_t sector;
    entry->sector_size = FARBLK_SECTOR_MIN;
    if (nbd_aio_is_negotiating(handle) != 1
        || nbd_set_export_name(handle, entry->name) != 0
        || nbd_aio_opt_info(handle, ended) != 0)
        return 0;
    if (nbd_list_wait(config, handle, until_ms, error) != 0)
        return error->status;
    if (!answer.ended || answer.errnum != 0
        || nbd_ask(config, handle, &facts, &ignored) != 0)
        return 0;
    /* What this URI's parameters do not open is listed all the same. */
    if (nbd_sector(config, &facts, &sector, &ignored) != 0)
        sector = FARBLK_SECTOR_MIN;
    entry->sector_size = sector;
    entry->size_sectors = facts.size / sector;
    entry->read_write = !facts.read_only;
    return 0;
}

static int
nbd_list_tell(const struct nbd_config *config, struct nbd_handle *handle,
              int64_t until_ms, struct nbd_names *names,
              int (*entry)(void *arg, const struct farblk_list_entry *entry),
              void *arg, struct error *error)
{
    if (names->count > 0)
        qsort(names->name, names->count, sizeof *names->name, nbd_list_by_name);
    for (size_t i = 0; i < names->count; i++) {
        struct farblk_list_entry told = {.size = sizeof told,
                                         .name = names->name[i]};
        int status = 0;
        if (i > 0 && strcmp(names->name[i - 1], names->name[i]) == 0)
            continue;
        status = nbd_list_describe(config, handle, until_ms, &told, error);
        if (status == 0)
            status = entry(arg, &told);
        if (status != 0)
            return status;
    }
    return 0;
}

int
nbd_list(const struct uri *uri,
         int (*entry)(void *arg, const struct farblk_list_entry *entry),
         void *arg, struct error *error)
{
    struct nbd_config config;
    struct nbd_names names = {0};
    struct nbd_signals signals;
    struct nbd_handle *handle = NULL;
    int status = nbd_configure(&config, uri, true, error);
    nbd_signals_block(&signals);
    int64_t until_ms = timer_now() + config.connect_ms;
    if (status == 0) {
        handle = nbd_connect(&config, true, until_ms, -1, error);
        status = handle == NULL ? error->status : 0;
    }
    if (status == 0)
        status = nbd_list_names(&config, handle, until_ms, &names, error);
    if (status == 0)
        status =
            nbd_list_tell(&config, handle, until_ms, &names, entry, arg, error);
    if (handle != NULL && nbd_aio_is_negotiating(handle) == 1
        && nbd_aio_opt_abort(handle) == 0)
        nbd_wait(&config, handle, nbd_aio_is_connecting,
                 timer_now() + config.connect_ms, -1, "the end", NULL);
    nbd_close(handle);
    nbd_signals_restore(&signals);
    for (size_t i = 0; i < names.count; i++)
        free(names.name[i]);
    free(names.name);
    nbd_config_fini(&config);
    return status;
}
