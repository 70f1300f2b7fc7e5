/* SPDX-License-Identifier: ISC */
/*
 * Archives that are cut, changed or put together at random, with checksums that
 * are right more often than not: the same ones in each run.
 */
#include "tests/fuzz_tar.h"
#include "tests/support.h"
#include "tests/tar_build.h"

#include <stdio.h>

#define ARCHIVES 1200u

/* A bit of everything that can be said in headers. */
static void
build_seed(struct rng *rng)
{
    static const char *const names[] = {"a",     "a/b",   "./a//c", "dir/", "x",
                                        "found", "x/y/z", "..",     "./"};
    static const char *const records[] = {"path=new/name",
                                          "linkpath=a",
                                          "size=3",
                                          "mtime=12.5",
                                          "uid=5",
                                          "GNU.sparse.map=0,3",
                                          "GNU.sparse.size=4000",
                                          "GNU.sparse.name=sparse",
                                          "GNU.sparse.major=1",
                                          "GNU.sparse.minor=0",
                                          "GNU.sparse.realsize=700",
                                          "uname=",
                                          "path="};
    static const char types[] = "00000\0"
                                "12345675SVDLKxgQ";
    unsigned members = 1 + (unsigned)rng_below(rng, 8);
    build_begin();
    while (members-- > 0) {
        const char *name = names[rng_below(rng, 9)];
        char type = types[rng_below(rng, sizeof types - 1)];
        size_t size = (size_t)rng_below(rng, 1200), header;
        char text[1200] = "2\n0\n3\n600\n9\n";
        if (rng_below(rng, 2) == 0)
            build_pax(rng_below(rng, 8) == 0 ? 'g' : 'x',
                      records[rng_below(rng, 13)], records[rng_below(rng, 13)],
                      records[rng_below(rng, 13)], NULL);
        if (strchr("123456xg", type) != NULL && type != 0)
            size = 0;
        header = build_header(name, type, size);
        if (type == '1' || type == '2')
            build_patch_text(header, 157, names[rng_below(rng, 9)]);
        if (rng_below(rng, 3) == 0)
            build_make_gnu(header);
        if (type == 'S')
            build_patch_text(header, 386,
                             "00000000001\0"
                             "00000000003\0"
                             "00000000100\0"
                             "00000000002");
        build_data(text, size);
    }
    build_end();
}

/* Change a few octets; mostly those of headers, and mostly with a checksum that
 * is right afterwards. */
static void
damage(struct rng *rng)
{
    static const uint16_t places[] = {0,   100, 124, 125, 134, 136, 156, 157,
                                      257, 263, 345, 386, 398, 482, 483, 504};
    unsigned times = (unsigned)rng_below(rng, 4);
    while (times-- > 0) {
        size_t block = (size_t)rng_below(rng, build.size / 512) * 512;
        size_t at = rng_below(rng, 2) == 0 ? places[rng_below(rng, 16)]
                                           : (size_t)rng_below(rng, 512);
        uint8_t octet = rng_below(rng, 3) == 0 ? 0xff : (uint8_t)rng_next(rng);
        if (rng_below(rng, 4) == 0)
            build.data[block + at] = octet;
        else
            build_patch(block, at, &octet, 1);
    }
    if (rng_below(rng, 10) == 0)
        build.size -= 512 * (size_t)rng_below(rng, build.size / 512);
}

static void
archives_that_are_changed_or_made_up_do_no_harm(void **state)
{
    struct rng rng = {20240229};
    (void)state;
    for (unsigned i = 0; i < ARCHIVES; i++) {
        if (i % 256 == 0)
            support_watch("archives made up");
        build_seed(&rng);
        damage(&rng);
        /* In memory of just that size, so that a checker sees each octet
         * beyond. */
        uint8_t *exact = malloc(build.size + 1);
        assert_non_null(exact);
        memcpy(exact, build.data, build.size);
        LLVMFuzzerTestOneInput(exact, build.size);
        free(exact);
    }
    print_message("%u of %u archives opened, %u changes\n", fuzz_tar_opened,
                  ARCHIVES, fuzz_tar_changed);
    assert_in_range(fuzz_tar_opened, ARCHIVES / 5, ARCHIVES);
    assert_true(fuzz_tar_changed > ARCHIVES / 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(archives_that_are_changed_or_made_up_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
