/* SPDX-License-Identifier: ISC */
/*
 * The conformance suite: what every driver owes, however it is reached.
 *
 * A case is a function that gets the way to a fresh device.  Cases are grouped
 * by file; conformance.c runs all of them for one way.  Where drivers may
 * differ (info.features, conservative seeks), a case asks the device and checks
 * what it then promises.
 */
#ifndef FARBLK_TESTS_CONFORMANCE_H
#define FARBLK_TESTS_CONFORMANCE_H

#include "tests/ways.h"

struct conformance_case {
    const char *name;
    void (*run)(void **way);
};

#define CONFORMANCE(name)                                                      \
    {                                                                          \
#name, name                                                            \
    }
#define CONFORMANCE_END                                                        \
    {                                                                          \
        NULL, NULL                                                             \
    }

extern const struct conformance_case conformance_arguments[];
extern const struct conformance_case conformance_data[];
extern const struct conformance_case conformance_maps[];
extern const struct conformance_case conformance_shape[];
extern const struct conformance_case conformance_life[];
extern const struct conformance_case conformance_queues[];
extern const struct conformance_case conformance_completions[];
extern const struct conformance_case conformance_threads[];

/* All cases for one way, as one cmocka group.  Returns how many failed. */
int conformance_run(const struct way *way);

/* A rig of the case's way. */
struct rig *conformance_rig(void **way, uint64_t size_sectors,
                            uint32_t sector_size);

/* Whether the device has one size for ever.  Then it must say so when it is
 * asked for another; the case's rig is destroyed, and the case over. */
bool conformance_is_fixed(struct rig *rig, struct farblk *dev);

/* Fail unless these sectors hold the pattern, or zeros. */
void conformance_expect_pattern(struct farblk *dev, uint64_t start,
                                uint64_t count, uint32_t sector_size,
                                uint64_t seed);
void conformance_expect_zero(struct farblk *dev, uint64_t start, uint64_t count,
                             uint32_t sector_size);
/* Write a pattern there. */
void conformance_put_pattern(struct farblk *dev, uint64_t start, uint64_t count,
                             uint32_t sector_size, uint64_t seed);

/* Submit one request and wait for its end. */
struct farblk_completion conformance_do(struct farblk_queue *queue,
                                        const struct farblk_request *request);

#endif
