/* SPDX-License-Identifier: ISC */
/*
 * Certificates that tests/certs.sh makes, once for each process, in its
 * temporary directory.
 */
#ifndef FARBLK_TESTS_CERTS_H
#define FARBLK_TESTS_CERTS_H

/* The path of one of the files, as "ca.pem"; static, of the last eight calls.
 * Makes all of them at the first call; fails the test when it can not. */
const char *certs_path(const char *name);

#endif
