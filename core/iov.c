/* SPDX-License-Identifier: ISC */
/*
 * Windows into iovec arrays.
 */
#include "core/iov.h"

#include "core/checked.h"

#include <string.h>

bool
iov_total(const struct iovec *iov, size_t count, uint64_t *total)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        if (!checked_add(sum, iov[i].iov_len, &sum) || sum > INT64_MAX)
            return false;
    *total = sum;
    return true;
}

void
iov_advance(struct iov_view *view, uint64_t n)
{
    view->length -= n;
    while (n > 0) {
        uint64_t here = view->iov->iov_len - view->skip;
        if (n < here) {
            view->skip += (size_t)n;
            return;
        }
        n -= here;
        view->iov++;
        view->count--;
        view->skip = 0;
    }
}

struct iovec
iov_first(const struct iov_view *view)
{
    struct iovec piece = {NULL, 0};
    uint64_t length;
    iov_export(view, &piece, 1, &length);
    return piece;
}

size_t
iov_export(const struct iov_view *view, struct iovec *to, size_t max,
           uint64_t *length)
{
    uint64_t left = view->length;
    size_t used = 0, skip = view->skip;
    for (const struct iovec *from = view->iov; left > 0 && used < max; from++) {
        uint64_t here = min_u64(from->iov_len - skip, left);
        if (here > 0) {
            to[used].iov_base = (uint8_t *)from->iov_base + skip;
            to[used].iov_len = (size_t)here;
            used++;
        }
        left -= here;
        skip = 0;
    }
    *length = view->length - left;
    return used;
}

/* What is done with each stretch of the window. */
enum iov_action { IOV_OUT, IOV_IN, IOV_ZERO };

static void
iov_each(struct iov_view *view, uint64_t n, enum iov_action action, void *out,
         const void *in)
{
    uint64_t done = 0;
    while (done < n) {
        const struct iovec *iov = view->iov;
        size_t here = (size_t)min_u64(iov->iov_len - view->skip, n - done);
        if (here > 0) {
            uint8_t *data = (uint8_t *)iov->iov_base + view->skip;
            if (action == IOV_OUT)
                memcpy((uint8_t *)out + done, data, here);
            else if (action == IOV_IN)
                memcpy(data, (const uint8_t *)in + done, here);
            else
                memset(data, 0, here);
        }
        done += here;
        view->skip += here;
        if (view->skip == iov->iov_len) {
            view->iov++;
            view->count--;
            view->skip = 0;
        }
    }
    view->length -= n;
}

void
iov_copy_out(struct iov_view *view, void *to, uint64_t n)
{
    iov_each(view, n, IOV_OUT, to, NULL);
}

void
iov_copy_in(struct iov_view *view, const void *from, uint64_t n)
{
    iov_each(view, n, IOV_IN, NULL, from);
}

void
iov_zero(struct iov_view *view, uint64_t n)
{
    iov_each(view, n, IOV_ZERO, NULL, NULL);
}
