/* SPDX-License-Identifier: ISC */
/*
 * A window into somebody's iovec array: where a request's data is, without
 * copying the array.  Zero-length buffers are allowed anywhere and skipped.
 */
#ifndef FARBLK_CORE_IOV_H
#define FARBLK_CORE_IOV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct iov_view {
    const struct iovec *iov;
    size_t count; /* entries from iov on, at least those that length needs */
    size_t skip; /* octets of iov[0] that come before the window */
    uint64_t length; /* octets in the window */
};

/* Sum of all lengths into *total; false on overflow past INT64_MAX. */
bool iov_total(const struct iovec *iov, size_t count, uint64_t *total);

/* Advance by n octets (n <= length). */
void iov_advance(struct iov_view *view, uint64_t n);

/* The first non-empty piece of the window, NULL-based and empty at its end. */
struct iovec iov_first(const struct iov_view *view);

/* Fill `to` with up to `max` non-empty pieces; returns how many, and in
 * *length how many octets they are. */
size_t iov_export(const struct iov_view *view, struct iovec *to, size_t max,
                  uint64_t *length);

/* Copy n octets (n <= length) between the window's begin and flat memory, and
 * advance past them. */
void iov_copy_out(struct iov_view *view, void *to, uint64_t n);
void iov_copy_in(struct iov_view *view, const void *from, uint64_t n);
void iov_zero(struct iov_view *view, uint64_t n);

#endif
