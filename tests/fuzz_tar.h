/* SPDX-License-Identifier: ISC */
/*
 * One archive, whatever its octets are, through all that the library does: the
 * entry of fuzzing engines, and of test_tar_fuzz, which makes some up.
 */
#ifndef FARBLK_TESTS_FUZZ_TAR_H
#define FARBLK_TESTS_FUZZ_TAR_H

#include <stddef.h>
#include <stdint.h>

/* Always 0.  Ends the process when something is wrong. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* How many archives could be opened so far, and changed. */
extern unsigned fuzz_tar_opened, fuzz_tar_changed;

#endif
