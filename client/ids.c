/* SPDX-License-Identifier: ISC */
/*
 * Where calls are kept: a pool, so that a steady state allocates nothing; a
 * table by request id, for replies; and the order of their numbers, for the
 * `lowest` that each request carries.
 *
 * An id is a counter with the top bit set; those whose place in the table is
 * taken are passed over.  So an id is unique among the unanswered, finding it
 * is one look, and it comes again only after 2^31 others: a very late reply
 * meets nobody.
 */
#include "client/rings.h"

#include <stdlib.h>

int
ids_init(struct client *client, uint32_t calls)
{
    size_t size = 16;
    while (size < (size_t)calls * 4)
        size *= 2;
    struct call **table = calloc(size, sizeof(*table));
    if (table == NULL)
        return FARBLK_NO_MEMORY;
    free(client->table); /* nothing is in flight */
    client->table = table;
    client->table_size = size;
    return 0;
}

void
ids_fini(struct client *client)
{
    while (client->pool != NULL) {
        struct call *call = client->pool;
        client->pool = call->next;
        if (call->iov != call->few)
            free(call->iov);
        free(call);
    }
    free(client->table);
}

void
ids_unlist(struct call *call)
{
    struct client *client = call->client;
    if (!call->listed)
        return;
    *(call->older != NULL ? &call->older->newer : &client->oldest) =
        call->newer;
    *(call->newer != NULL ? &call->newer->older : &client->newest) =
        call->older;
    call->older = call->newer = NULL;
    call->listed = false;
}

/*
 * Room for the next number.  A request that the server never answers would
 * hold `lowest` for ever: when it has been given up, and is so far behind that
 * the window comes to its end, the order forgets it; it will not be repeated.
 */
static bool
ids_number_free(struct client *client)
{
    uint64_t rings = rings_oldest(client);
    if (rings != UINT64_MAX
        && atomic_load(&client->next_number) - rings >= WIRE_WINDOW / 2)
        return false;
    for (;;) {
        struct call *oldest = client->oldest;
        if (oldest == NULL
            || atomic_load(&client->next_number) - oldest->number
                   < WIRE_WINDOW / 2)
            return true;
        if (oldest->io != NULL || oldest->own || oldest->holds > 0)
            return atomic_load(&client->next_number) - oldest->number
                   < WIRE_WINDOW;
        ids_unlist(oldest);
    }
}

static struct call *
ids_allocate(struct client *client)
{
    struct call *call = client->pool;
    if (call != NULL) {
        client->pool = call->next;
        return call;
    }
    call = calloc(1, sizeof(*call));
    if (call != NULL) {
        call->client = client;
        call->iov = call->few;
        call->iov_capacity = CLIENT_IOVS;
    }
    return call;
}

bool
ids_room(struct client *client)
{
    return client->total < client->table_size / 2 && ids_number_free(client);
}

uint64_t
ids_lowest(const struct client *client)
{
    /* Before the others: numbers from here on are not below. */
    uint64_t lowest = atomic_load(&client->next_number);
    lowest = min_u64(lowest, rings_oldest(client));
    const struct call *call = client->oldest;
    while (call != NULL && call->number == 0) /* of an older session */
        call = call->newer;
    return call != NULL ? min_u64(lowest, call->number) : lowest;
}

/* Into the order: at its end, or before that when the number is an old one. */
static void
ids_list(struct call *call)
{
    struct client *client = call->client;
    struct call *older = client->newest;
    while (older != NULL && older->number > call->number)
        older = older->older;
    call->older = older;
    call->newer = older != NULL ? older->newer : client->oldest;
    *(call->newer != NULL ? &call->newer->older : &client->newest) = call;
    *(older != NULL ? &older->newer : &client->oldest) = call;
    call->listed = true;
}

struct call *
ids_take(struct client *client, bool numbered, uint64_t number)
{
    size_t mask = client->table_size - 1;
    struct call *call = ids_room(client) ? ids_allocate(client) : NULL;
    if (call == NULL)
        return NULL;
    do
        call->id = client->next_id++ | UINT32_C(0x80000000);
    while (client->table[call->id & mask] != NULL);
    client->table[call->id & mask] = call;
    client->total++;

    call->next = NULL;
    call->io = NULL;
    call->wait = NULL;
    call->octets = 0;
    call->holds = 0;
    call->own = call->handshake = false;
    call->sending = call->receiving = call->replied = false;
    call->expired = call->unsent = call->failed = call->refused = false;
    call->fenced = call->doubted = false;
    call->cancel = NULL;
    call->value = 0;
    call->generation = client->generation;
    call->number = 0;
    call->older = call->newer = NULL;
    if (numbered) {
        call->number =
            number != 0 ? number : atomic_fetch_add(&client->next_number, 1);
        ids_list(call);
    }
    call->lowest = numbered ? ids_lowest(client) : 0;
    return call;
}

void
ids_remove(struct call *call)
{
    struct client *client = call->client;
    ids_unlist(call);
    client->table[call->id & (client->table_size - 1)] = NULL;
    client->total--;
    call->id = 0;
}

void
ids_free(struct call *call)
{
    call->next = call->client->pool;
    call->client->pool = call;
}

struct call *
ids_find(struct client *client, uint32_t id)
{
    struct call *call = client->table[id & (client->table_size - 1)];
    return call != NULL && call->id == id ? call : NULL;
}
