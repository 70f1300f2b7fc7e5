/* SPDX-License-Identifier: ISC */
/*
 * CRC-32C (Castagnoli): the checksum of iSCSI (RFC 3720), of ext4 and of
 * many others; here of payloads on the wire.
 *
 * One value is as in zlib's crc32(): crc32c() of the empty string is 0, and a
 * value is continued by giving it to the next call.
 */
#ifndef FARBLK_CORE_CRC32C_H
#define FARBLK_CORE_CRC32C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* What `crc` becomes by these octets.  By the processor's instruction for it
 * where it has one. */
uint32_t crc32c(uint32_t crc, const void *data, size_t length);

/* Of all octets of the buffers, in their order. */
uint32_t crc32c_iov(const struct iovec *iov, size_t count);

/* The two ways to compute it, for tests to compare; the same values. */
uint32_t crc32c_plain(uint32_t crc, const void *data, size_t length);
bool crc32c_has_instruction(void);
/* Only where there is an instruction. */
uint32_t crc32c_instruction(uint32_t crc, const void *data, size_t length);

#endif
