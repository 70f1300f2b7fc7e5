/* SPDX-License-Identifier: ISC */
/*
 * The table of changing requests: chained hashing by number, grown by doubling.
 */
#include "server/kept.h"

#include "core/block.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define KEPT_FIRST_SIZE 64u

/* Entries in all tables, the free ones included. */
static atomic_uint_fast64_t entries;

static struct kept **
kept_bucket(const struct kept_table *table, uint64_t number)
{
    return &table->bucket[number & (table->size - 1)];
}

struct kept *
kept_find(const struct kept_table *table, uint64_t number)
{
    if (table->count == 0)
        return NULL;
    struct kept *kept = *kept_bucket(table, number);
    while (kept != NULL && kept->number != number)
        kept = kept->next;
    return kept;
}

static bool
kept_grow(struct kept_table *table)
{
    size_t size = table->size == 0 ? KEPT_FIRST_SIZE : 2 * table->size;
    struct kept **bucket = calloc(size, sizeof *bucket);
    if (bucket == NULL)
        return false;
    for (size_t i = 0; i < table->size; i++) {
        struct kept *kept = table->bucket[i];
        while (kept != NULL) {
            struct kept *next = kept->next;
            struct kept **to = &bucket[kept->number & (size - 1)];
            kept->next = *to;
            *to = kept;
            kept = next;
        }
    }
    free(table->bucket);
    block_charge_over((size - table->size) * sizeof *bucket);
    table->bucket = bucket;
    table->size = size;
    return true;
}

static struct kept *
kept_alloc(struct kept_table *table)
{
    struct kept *kept = table->free;
    if (kept != NULL) {
        table->free = kept->next;
        return kept;
    }
    if (atomic_fetch_add_explicit(&entries, 1, memory_order_relaxed)
            < KEPT_ENTRIES_MAX
        || table->entries < KEPT_ENTRIES_MIN)
        kept = malloc(sizeof *kept);
    if (kept == NULL) {
        atomic_fetch_sub_explicit(&entries, 1, memory_order_relaxed);
        return NULL;
    }
    table->entries++;
    block_charge_over(sizeof *kept);
    return kept;
}

struct kept *
kept_add(struct kept_table *table, uint64_t number, uint32_t method,
         struct call *call)
{
    /* Longer chains do when there is no memory for more buckets. */
    if (table->count == table->size && !kept_grow(table) && table->size == 0)
        return NULL;
    struct kept *kept = kept_alloc(table);
    if (kept == NULL)
        return NULL;
    struct kept **bucket = kept_bucket(table, number);
    *kept = (struct kept){
        .next = *bucket, .number = number, .method = method, .call = call};
    *bucket = kept;
    table->count++;
    return kept;
}

void
kept_end(struct kept_table *table, struct kept *kept, const struct error *error,
         uint64_t value)
{
    kept->call = NULL;
    kept->in_ring = false;
    kept->status = error->status;
    kept->effect = error->effect;
    kept->value = value;
    if (error->status == 0)
        return;
    size_t size = strlen(error->text) + 1;
    if (table->text_octets + size > KEPT_TEXT_MAX)
        return;
    kept->text = malloc(size);
    if (kept->text == NULL)
        return;
    memcpy(kept->text, error->text, size);
    table->text_octets += size;
    block_charge_over(size);
}

void
kept_error(const struct kept *kept, struct error *error)
{
    error_clear(error);
    if (kept->status == 0)
        return;
    error_set(error, kept->status, "%s",
              kept->text != NULL ? kept->text
                                 : "failed before; the text was not kept");
    error->effect = (enum farblk_effect)kept->effect;
}

void
kept_forget(struct kept_table *table, struct kept *kept)
{
    struct kept **link = kept_bucket(table, kept->number);
    while (*link != kept)
        link = &(*link)->next;
    *link = kept->next;
    table->count--;
    if (kept->text != NULL) {
        size_t size = strlen(kept->text) + 1;
        table->text_octets -= size;
        block_uncharge(size);
        free(kept->text);
    }
    kept->next = table->free;
    table->free = kept;
}

void
kept_forget_below(struct kept_table *table, uint64_t from, uint64_t below)
{
    if (table->count == 0 || from >= below)
        return;
    if (below - from <= table->size) {
        for (uint64_t number = from; number < below; number++) {
            struct kept *kept = kept_find(table, number);
            if (kept != NULL && !kept_runs(kept))
                kept_forget(table, kept);
        }
        return;
    }
    /* A large step: look at all entries instead. */
    for (size_t i = 0; i < table->size; i++) {
        struct kept *kept = table->bucket[i];
        while (kept != NULL) {
            struct kept *next = kept->next;
            if (kept->number < below && !kept_runs(kept))
                kept_forget(table, kept);
            kept = next;
        }
    }
}

void
kept_fini(struct kept_table *table)
{
    for (size_t i = 0; i < table->size; i++)
        while (table->bucket[i] != NULL)
            kept_forget(table, table->bucket[i]);
    while (table->free != NULL) {
        struct kept *kept = table->free;
        table->free = kept->next;
        free(kept);
    }
    atomic_fetch_sub_explicit(&entries, table->entries, memory_order_relaxed);
    block_uncharge(table->entries * sizeof(struct kept)
                   + table->size * sizeof *table->bucket);
    free(table->bucket);
    *table = (struct kept_table){0};
}
