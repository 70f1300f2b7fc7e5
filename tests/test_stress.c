/* SPDX-License-Identifier: ISC */
/*
 * test_stress [TRANSPORT [STORE]]: random operations against a plain array, for
 * each driver over each transport.
 *
 * Seeds are fixed and printed on failure; FARBLK_STRESS_SEED gives another,
 * FARBLK_STRESS_STEPS another length.
 */
#include "tests/model.h"
#include "tests/ways.h"

#include <pthread.h>
#include <stdio.h>

#define SPAN 3000u
#define THREADS 4
#define OWN 400u
#define SHARED 64u

static unsigned
stress_number(const char *name, unsigned fallback)
{
    const char *text = getenv(name);

    return text != NULL ? (unsigned)strtoul(text, NULL, 10) : fallback;
}

static struct rig *
stress_rig(void **way, uint64_t size_sectors, uint32_t sector_size)
{
    return rig_create(*(const struct way *)*way, size_sectors, sector_size,
                      NULL);
}

static void
stress_alone(void **way, uint32_t sector_size, unsigned seed, unsigned steps)
{
    struct rig *rig = stress_rig(way, SPAN / 2, sector_size);
    struct trouble trouble = {0};
    struct model model;

    model_init(&model, rig_open(rig, ""), rig_open(rig, ""), &trouble, seed, 0,
               SPAN, SPAN / 2, true, rig->way.store->exact);
    while (model.step < steps && model_step(&model))
        ;
    if (!trouble.noted)
        model_compare(&model);
    model_fini(&model);
    trouble_assert_none(&trouble);
    rig_destroy(rig);
}

static void
one_thread_agrees_with_the_model(void **way)
{
    unsigned seed = stress_number("FARBLK_STRESS_SEED", 1);
    unsigned steps = stress_number("FARBLK_STRESS_STEPS", 700);

    for (unsigned i = 0; i < 3; i++)
        stress_alone(way, 512, seed + i, steps);
}

static void
one_thread_agrees_with_the_model_in_large_sectors(void **way)
{
    unsigned seed = stress_number("FARBLK_STRESS_SEED", 11);
    unsigned steps = stress_number("FARBLK_STRESS_STEPS", 150);

    stress_alone(way, 4096, seed, steps);
}

struct part {
    struct model model;
    struct farblk *dev;
    struct trouble *trouble;
    _Atomic bool *stop;
    unsigned index, steps;
    pthread_t thread;
};

static void *
stress_own(void *arg)
{
    struct part *part = arg;

    while (part->model.step < part->steps && !part->trouble->noted
           && model_step(&part->model))
        ;
    return NULL;
}

/* Tagged sectors at the device's begin, which all of these write and read. */
static void *
stress_shared(void *arg)
{
    struct part *part = arg;
    size_t words = 512 / sizeof(uint64_t);
    uint64_t buffer[16 * 512 / sizeof(uint64_t)];
    struct rng rng = {.state = part->index};

    for (uint64_t i = 0; !*part->stop && !part->trouble->noted; i++) {
        uint64_t count = 1 + rng_below(&rng, 16);
        uint64_t start = rng_below(&rng, SHARED - count + 1);
        bool write = rng_below(&rng, 2) == 0;
        int status;

        for (size_t k = 0; write && k < count * words; k++)
            buffer[k] = (uint64_t)part->index << 40 | i;
        status =
            (write ? support_write(part->dev, start, buffer, count * 512, 0)
                   : support_read(part->dev, start, buffer, count * 512));
        if (status != 0)
            trouble_note(part->trouble, "shared sectors: %s",
                         farblk_last_text());
        for (size_t k = 0; k < count * words; k++)
            if (buffer[k] != buffer[k / words * words])
                trouble_note(part->trouble, "sector %llu is torn",
                             (unsigned long long)(start + k / words));
    }
    return NULL;
}

/* Resizes that leave everybody's sectors alone. */
static void *
stress_resizer(void *arg)
{
    struct part *part = arg;
    uint64_t lower = SHARED + THREADS * OWN;
    struct rng rng = {.state = part->index};

    if (!(support_info(part->dev).features & FARBLK_CAN_RESIZE))
        return NULL;
    while (!*part->stop && !part->trouble->noted) {
        uint64_t size = lower + rng_below(&rng, 1000);
        uint8_t buffer[512];

        if (farblk_resize(part->dev, size) != 0)
            trouble_note(part->trouble, "resize: %s", farblk_last_text());
        memset(buffer, 0x33, sizeof buffer);
        if (size > lower
            && support_write(part->dev, size - 1, buffer, 512, 0) != 0)
            trouble_note(part->trouble, "write at the end: %s",
                         farblk_last_text());
    }
    return NULL;
}

static void
threads_agree_with_their_models(void **way)
{
    unsigned seed = stress_number("FARBLK_STRESS_SEED", 21);
    unsigned steps = stress_number("FARBLK_STRESS_STEPS", 300);
    struct rig *rig = stress_rig(way, SHARED + THREADS * OWN, 512);
    struct part parts[THREADS + 3];
    struct trouble trouble = {0};
    _Atomic bool stop = false;
    struct farblk *shared = rig_open(rig, "");
    /* Else sectors are atomic between the handles of one device alone. */
    bool atomic = support_info(shared).features & FARBLK_SECTOR_ATOMIC;

    for (unsigned i = 0; i < THREADS + 3; i++) {
        struct part *part = &parts[i];
        bool same = i % 2 || (i >= THREADS && !atomic);

        *part = (struct part){.dev = same ? shared : rig_open(rig, ""),
                              .trouble = &trouble,
                              .stop = &stop,
                              .index = seed + i,
                              .steps = steps};
        if (i < THREADS)
            model_init(&part->model, part->dev, shared, &trouble, seed + i,
                       SHARED + i * OWN, OWN, OWN, false,
                       rig->way.store->exact);
    }
    for (unsigned i = 0; i < THREADS + 3; i++)
        assert_int_equal(pthread_create(&parts[i].thread, NULL,
                                        i < THREADS       ? stress_own
                                        : i < THREADS + 2 ? stress_shared
                                                          : stress_resizer,
                                        &parts[i]),
                         0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(parts[i].thread, NULL);
    stop = true;
    for (unsigned i = THREADS; i < THREADS + 3; i++)
        pthread_join(parts[i].thread, NULL);
    for (unsigned i = 0; i < THREADS; i++) {
        if (!trouble.noted)
            model_compare(&parts[i].model);
        model_fini(&parts[i].model);
    }
    trouble_assert_none(&trouble);
    rig_destroy(rig);
}

static int
stress_setup(void **state)
{
    (void)state;
    support_watch("stress");
    return 0;
}

static int
stress_teardown(void **state)
{
    (void)state;
    support_watch(NULL);
    rig_destroy_all();
    return 0;
}

static int
stress_run(struct way *way)
{
    struct CMUnitTest tests[] = {
        cmocka_unit_test(one_thread_agrees_with_the_model),
        cmocka_unit_test(one_thread_agrees_with_the_model_in_large_sectors),
        cmocka_unit_test(threads_agree_with_their_models),
    };
    size_t count = sizeof tests / sizeof *tests;
    char name[64];

    for (size_t i = 0; i < count; i++) {
        tests[i].initial_state = way;
        tests[i].setup_func = stress_setup;
        tests[i].teardown_func = stress_teardown;
    }
    snprintf(name, sizeof name, "%s.%s", way->store->name,
             transport_names[way->transport]);
    return _cmocka_run_group_tests(name, tests, count, NULL, NULL);
}

int
main(int argc, char **argv)
{
    int failed = 0;

    for (int t = 0; t < TRANSPORTS; t++)
        for (const struct store *store = stores; store->name != NULL; store++) {
            struct way way = {store, (enum transport)t};

            if (!way_wanted(&way, argc, argv)
                || (store->usable != NULL && !store->usable()))
                continue;
            failed += stress_run(&way) != 0;
        }
    return failed != 0;
}
