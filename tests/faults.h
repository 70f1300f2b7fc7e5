/* SPDX-License-Identifier: ISC */
/*
 * System calls that fail when told to.
 *
 * A program with faults.c has its own versions of the calls that the file
 * driver makes; they do the real thing unless a fault is set up for them.
 */
#ifndef FARBLK_TESTS_FAULTS_H
#define FARBLK_TESTS_FAULTS_H

#define FAULTS_ALWAYS 1000000

enum fault_call {
    FAULT_READ,
    FAULT_WRITE,
    FAULT_SYNC, /* fsync and fdatasync */
    FAULT_FALLOCATE,
    FAULT_SEEK,
    FAULT_TMPFILE,
    FAULT_LINK,
    FAULT_TRUNCATE,
    FAULT_DUP,
    FAULT_STATX,
    FAULT_RING, /* making one */
    FAULT_ENTER, /* submitting to it */
    FAULT_CALLS,
};

/* After `after` good calls, `times` calls give `errnum`, or with 0 move at most
 * `most` octets. */
void faults_set(enum fault_call call, int after, int times, int errnum,
                int most);
/* All calls are good again. */
void faults_clear(void);

/* From now on such calls wait until they are let go: FAULT_SYNC, FAULT_WRITE. */
void faults_hold(enum fault_call call);
void faults_release(enum fault_call call);
/* Wait until so many of them wait. */
void faults_await(enum fault_call call, unsigned count);
/* The most that have waited at once since faults_hold(). */
unsigned faults_most_held(enum fault_call call);

#endif
