/* SPDX-License-Identifier: ISC */
/*
 * What fuzz_server.c and fuzz_client.c share: inputs that are conversations,
 * octet by octet what one side sends, behind one octet that says how.
 *
 * Where such an input is cut for delivery, and how it is changed so that more of
 * it survives the first checks than by changing octets: whole frames are moved,
 * and fields of their headers changed, with the lengths around put right.
 */
#ifndef FARBLK_TESTS_FUZZ_FRAMES_H
#define FARBLK_TESTS_FUZZ_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The length of the frame that begins there, as far as it is there; all that is
 * left, when it is none. */
size_t frames_next(const uint8_t *at, size_t left, bool ipc);

/* The manners that both have. */
#define FRAMES_IPC 0x01 /* frames have a type octet */
#define FRAMES_PIECES 0x02 /* they come in small pieces */
#define FRAMES_RESET 0x04 /* and end with a reset, not a close */

/* LLVMFuzzerCustomMutator() of both.  The input is at most max_size octets. */
size_t frames_mutate(uint8_t *data, size_t size, size_t max_size,
                     unsigned seed);

/* libFuzzer's, or fuzz_main.c's. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
                               unsigned seed);

#endif
