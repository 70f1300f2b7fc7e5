/* SPDX-License-Identifier: ISC */
/*
 * Memory, threads and operations of nng that are not to be had when told so.
 *
 * The linker's --wrap (see CMakeLists.txt) puts these functions between the
 * library, which is linked in statically, and the system: so it is the library's
 * own requests that fail, and not what nng, protobuf-c or libc ask for inside.
 */
#ifndef FARBLK_TESTS_ALLOC_FAULTS_H
#define FARBLK_TESTS_ALLOC_FAULTS_H

#include <stdbool.h>

/* From now on, in all threads, request number `first` (from 1) fails, and with
 * `all` every later one as well. */
void alloc_faults_arm(unsigned first, bool all);
/* No more failures.  Whether there were any. */
bool alloc_faults_disarm(void);
/* Where the last one was, for messages: "malloc of 4096". */
const char *alloc_faults_last(void);

#endif
