/* SPDX-License-Identifier: ISC */
/*
 * Values: parts of them, all of them, their digests, where they lie.
 */
#include "tar/archive.h"

#include "core/checked.h"

#include <mbedtls/sha256.h>
#include <stdlib.h>
#include <string.h>

#define DIGEST_CHUNK (1024u * 1024u)

static int
check_arguments(const struct farblk_tar *tar, const char *key,
                const void *result, struct error *error)
{
    error_clear(error);
    if (tar == NULL || key == NULL)
        return error_set(error, FARBLK_INVALID, "no archive or no key");
    if (result == NULL)
        return error_set(error, FARBLK_INVALID, "nowhere to put the answer");
    return 0;
}

/* [offset, offset + length) is within the value. */
static int
read_value(struct farblk_tar *tar, const struct member *member, uint64_t offset,
           uint8_t *to, uint64_t length, struct error *error)
{
    int status = 0;
    while (status == 0 && length > 0) {
        bool stored;
        uint64_t at;
        size_t n =
            (size_t)min_u64(member_run(member, offset, &stored, &at), length);
        if (stored)
            status = store_read(&tar->store, at, to, n, error);
        else
            memset(to, 0, n);
        to += n;
        offset += n;
        length -= n;
    }
    return status;
}

int
farblk_tar_get_partial(struct farblk_tar *tar, const char *key, uint64_t offset,
                       void *buffer, size_t length, size_t *got)
{
    struct error error;
    struct member *member;
    int status = check_arguments(tar, key, got, &error);
    if (status == 0 && buffer == NULL && length > 0)
        status = error_set(&error, FARBLK_INVALID, "no buffer");
    if (status == 0)
        status = archive_pin(tar, key, &member, &error);
    if (status == 0) {
        size_t n = offset < member->size
                       ? (size_t)min_u64(length, member->size - offset)
                       : 0;
        status = read_value(tar, member, offset, buffer, n, &error);
        *got = status == 0 ? n : 0;
        archive_unpin(tar, member);
    }
    return archive_result("tar_get_partial", status, &error);
}

static int
get_whole(struct farblk_tar *tar, const struct member *member, uint64_t limit,
          void **value, uint64_t *size, struct error *error)
{
    if (member->size > limit || member->size >= SIZE_MAX)
        return error_set(error, FARBLK_NO_SPACE,
                         "the value has %llu octets, more than the limit of "
                         "%llu",
                         (unsigned long long)member->size,
                         (unsigned long long)limit);
    uint8_t *memory = malloc((size_t)member->size + 1);
    if (memory == NULL)
        return error_set(error, FARBLK_NO_MEMORY,
                         "no memory for a value of %llu octets",
                         (unsigned long long)member->size);
    int status = read_value(tar, member, 0, memory, member->size, error);
    if (status != 0) {
        free(memory);
        return status;
    }
    memory[member->size] = 0;
    *value = memory;
    *size = member->size;
    return 0;
}

int
farblk_tar_get(struct farblk_tar *tar, const char *key, uint64_t limit,
               void **value, uint64_t *size)
{
    struct error error;
    struct member *member;
    int status = check_arguments(tar, key, value != NULL ? size : NULL, &error);
    if (value != NULL)
        *value = NULL;
    if (status == 0)
        status = archive_pin(tar, key, &member, &error);
    if (status == 0) {
        status = get_whole(tar, member, limit, value, size, &error);
        archive_unpin(tar, member);
    }
    return archive_result("tar_get", status, &error);
}

static int
digest_value(struct farblk_tar *tar, const struct member *member,
             uint8_t digest[FARBLK_TAR_DIGEST_SIZE], struct error *error)
{
    mbedtls_sha256_context sha;
    int status = 0;
    size_t room = (size_t)min_u64(DIGEST_CHUNK, member->size);
    uint8_t *chunk = malloc(room + 1);
    if (chunk == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for a digest");
    mbedtls_sha256_init(&sha);
    bool fine = mbedtls_sha256_starts_ret(&sha, 0) == 0;
    for (uint64_t at = 0; status == 0 && at < member->size;) {
        size_t n = (size_t)min_u64(room, member->size - at);
        status = read_value(tar, member, at, chunk, n, error);
        if (status == 0)
            fine = fine && mbedtls_sha256_update_ret(&sha, chunk, n) == 0;
        at += n;
    }
    fine = fine && mbedtls_sha256_finish_ret(&sha, digest) == 0;
    mbedtls_sha256_free(&sha);
    free(chunk);
    if (status == 0 && !fine)
        status = error_set(error, FARBLK_UNKNOWN, "mbed TLS makes no digest");
    return status;
}

int
farblk_tar_digest(struct farblk_tar *tar, const char *key,
                  uint8_t digest[FARBLK_TAR_DIGEST_SIZE])
{
    struct error error;
    struct member *member;
    int status = check_arguments(tar, key, digest, &error);
    if (status == 0)
        status = archive_pin(tar, key, &member, &error);
    if (status == 0) {
        status = digest_value(tar, member, digest, &error);
        archive_unpin(tar, member);
    }
    return archive_result("tar_digest", status, &error);
}

int
farblk_tar_extents(struct farblk_tar *tar, const char *key, uint64_t offset,
                   uint64_t length, struct farblk_tar_extent *extents,
                   size_t max)
{
    struct error error;
    struct member *member;
    int count = 0;
    int status = check_arguments(tar, key, extents, &error);
    if (status == 0 && (max == 0 || max > INT32_MAX))
        status = error_set(&error, FARBLK_INVALID, "room for %zu extents", max);
    if (status == 0)
        status = archive_pin(tar, key, &member, &error);
    if (status != 0)
        return archive_result("tar_extents", status, &error);
    if (!range_within(offset, length, member->size))
        status =
            error_set(&error, FARBLK_INVALID,
                      "octets %llu + %llu are not within the value's %llu",
                      (unsigned long long)offset, (unsigned long long)length,
                      (unsigned long long)member->size);
    while (status == 0 && length > 0 && (size_t)count < max) {
        bool stored;
        uint64_t at;
        uint64_t n = min_u64(member_run(member, offset, &stored, &at), length);
        extents[count++] = (struct farblk_tar_extent){
            .offset = offset,
            .length = n,
            .device_offset = at,
            .hole = !stored,
        };
        offset += n;
        length -= n;
    }
    archive_unpin(tar, member);
    return archive_result("tar_extents", status == 0 ? count : status, &error);
}
