/* SPDX-License-Identifier: ISC */
/*
 * A key-value store in a tar archive that lies on a device.
 *
 * The archive begins at the device's first octet and ends where tar says that
 * it ends; what is behind is room for more.  Any tar program reads it, from the
 * device or from a copy.  farblk_tar_open() reads its headers once, without the
 * members' data; afterwards each member is reached directly.
 *
 * Keys.  "/a/b": octets without zeros, components separated by '/'.  Empty
 * components and "." count for nothing: "a/b", "/a//b" and "./a/b/" are one
 * key; "" and "/" are the root, a directory.  ".." is a name like any other in
 * what is read, and never followed; new keys must not have it.  A directory
 * may have a header of its own or be implied by what lies in it.
 *
 * Reading.  v7, ustar, pax (global and for one member), GNU (long names and
 * links, base-256 numbers, sparse members of all four kinds).  The archive
 * ends at the first block of zeros, or at the device's end.  Of several
 * members with one key the last one counts; a member in the way of a later
 * one's path, or a directory in the way of a later value, gives way to it.  A
 * hard link is a value: that of its target, as it was when the link was
 * archived.  A symbolic link is told, with its target, and not followed.
 *
 * Writing is append-only: new members at the end, the last one removed, octets
 * within a member changed, a name exchanged for another that fits.  After a
 * crash at any moment the archive is the one before or the one after a set,
 * put, allocate, remove or rename, and what such a call has done is stable when
 * it returns.  docs/tar.md tells how.
 *
 * Results.  0 (or what it says) or a negative enum farblk_status;
 * farblk_last_text() and farblk_last_effect() tell more, as after every call of
 * farblk.h.  Besides the errors named, each call may give those of the device:
 * DISCONNECTED, IO, TIMED_OUT, CONNECTION_LOST, PROTOCOL, NO_MEMORY.
 *     NOT_FOUND        there is nothing of that key
 *     NOT_A_DIRECTORY  the key leads through something that is none
 *     NOT_A_VALUE      it is a directory, a symbolic link, a device, a fifo, or a
 *                      hard link to what the archive lacks
 *     EXISTS           a new key exists already
 *     APPEND_ONLY      this change wants more than can be done in place
 *     NO_SPACE         it does not fit: nothing was written
 *     IS_READ_ONLY     the archive was opened read-only, or the device is
 *     CONFLICT         the archive is no longer as it was read: somebody else
 *                      writes to it; nothing was written
 *     CORRUPT          the archive is damaged
 *
 * Threads.  An archive may be used by any number of threads at once.  Changes
 * come one after the other.  Reads wait for no change and no other read; one of
 * a value that set_partial() changes at the same time may see either for each
 * sector.  remove() returns when nobody reads what it removed.  All calls may
 * block for as long as the device takes.  Callbacks are called without a lock
 * and may use the archive, except that they must not close it.
 *
 * Several archives.  A device has at most one archive open for writing in a
 * process (BUSY), and any number for reading; these go on with what they found
 * when they were opened.  Writers of other processes are kept away by what the
 * device offers (lock=1 of a file); what they did to the archive's end is
 * noticed before the next change (CONFLICT).
 */
/* Read as a manual, and set by hand: */
/* clang-format off */
#ifndef FARBLK_TAR_H
#define FARBLK_TAR_H

#include "farblk/farblk.h"

#ifdef __cplusplus
extern "C" {
#endif

/** An open archive.  Opaque, thread-safe. */
struct farblk_tar;

/** What a key names. */
enum farblk_tar_kind {
    FARBLK_TAR_NOTHING = 0,
    FARBLK_TAR_VALUE = 1,      /**< a file, or a hard link to one */
    FARBLK_TAR_DIRECTORY = 2,
    FARBLK_TAR_SYMLINK = 3,
    FARBLK_TAR_CHARACTER = 4,  /**< a character device */
    FARBLK_TAR_BLOCK = 5,      /**< a block device */
    FARBLK_TAR_FIFO = 6,
    FARBLK_TAR_LOST_LINK = 7,  /**< a hard link to what the archive lacks */
};

/** Octets of a digest (SHA-256). */
#define FARBLK_TAR_DIGEST_SIZE 32u

/** How to open.  Zero it, set .size = sizeof; 0 anywhere means the default. */
struct farblk_tar_options {
    size_t size;
    bool read_only;       /**< never change anything, and keep no writer away */
    uint32_t max_headers; /**< headers of any kind in the archive: 4194304 */
    uint32_t max_key;     /**< octets in a key: 4096 */
    uint32_t max_extended; /**< octets in the extended headers of one member
                               (pax, GNU long names, sparse maps): 1048576 */
    uint64_t max_memory;  /**< octets of memory for the index: 512 MiB */
};

/**
 * Read the headers of the archive on `dev` and keep their index in memory.  A
 * device of zeros is an empty archive.  `options` may be NULL.  For writing,
 * unless options or device say read-only.
 *
 * `dev` stays the caller's: it must be open until farblk_tar_close(), and may
 * be used otherwise, but not be written where the archive is.
 *
 * @param tar  set to the archive, or to NULL on failure.
 * Errors: CORRUPT (not an archive, or a damaged one: the text tells the octet),
 * NO_SPACE (a limit of `options`: the text tells which), BUSY (another one is
 * open for writing), INVALID.
 */
FARBLK_API int farblk_tar_open(struct farblk *dev,
                               const struct farblk_tar_options *options,
                               struct farblk_tar **tar);

/** Free the archive; the device stays open.  Nobody may be using it.  NULL is
 * fine.  Writes nothing. */
FARBLK_API void farblk_tar_close(struct farblk_tar *tar);

/** Flags of farblk_tar_create(). */
enum farblk_tar_flag {
    FARBLK_TAR_REPLACE = 1 << 0, /**< whatever is there now */
};

/**
 * Make the device an empty archive; open it afterwards.  Stable on return.
 * Errors: EXISTS (the device's beginning is not zeros, and REPLACE was not
 * given), BUSY (an archive on it is open for writing), NO_SPACE (less than 1024
 * octets), IS_READ_ONLY.
 */
FARBLK_API int farblk_tar_create(struct farblk *dev, uint32_t flags);

/** What an archive is now.  Filled up to the size the caller gave. */
struct farblk_tar_info {
    bool read_write;
    uint64_t members;  /**< what farblk_tar_iterate() tells of */
    uint64_t end;      /**< octet of the device where the archive ends, and the
                            next member begins; two blocks of zeros follow */
    uint64_t free;     /**< octets for headers and data of new members */
    uint64_t device_size; /**< octets */
    uint32_t sector_size; /**< octets */
};
FARBLK_API int farblk_tar_get_info(struct farblk_tar *tar,
                                   struct farblk_tar_info *info, size_t size);

/* ------------------------------------------------------------------------
 * Looking around
 */

/** What is known of a member.  Filled up to the size the caller gave. */
struct farblk_tar_stat {
    enum farblk_tar_kind kind;
    char type;            /**< the header's typeflag ('0' also for v7's zero;
                               those that nobody knows are values); 0: a
                               directory without a header */
    bool hard_link;       /**< a value by way of a hard link */
    bool sparse;          /**< its holes are not stored */
    uint32_t mode;        /**< permissions, 07777 at most; 0755 of a directory
                               without a header */
    uint64_t size;        /**< octets of the value, holes included; 0 for all
                               that are not values */
    uint64_t stored;      /**< octets of data that the archive keeps for it,
                               its target's for a hard link */
    int64_t mtime;        /**< seconds since 1970; of its own header */
    uint32_t mtime_nsec;
    uint32_t device_major, device_minor; /**< CHARACTER and BLOCK */
    uint64_t uid, gid;
    uint64_t position;    /**< octet of the device where its headers begin */
    char user[64];        /**< "" when not known; cut if longer */
    char group[64];
};

/** A member, told to a callback: all valid during the call. */
struct farblk_tar_entry {
    size_t size;          /**< of this structure, as the library knows it */
    const char *key;      /**< "/a/b" */
    const char *link;     /**< target of a hard or symbolic link as it stands in
                               the archive; "" for all others */
    const struct farblk_tar_stat *stat;
    bool current;         /**< false: a later member took its place, and no key
                               leads to it */
};

/**
 * Call `entry` for all members in the order of the archive, those that others
 * replaced included; implied directories are not members.  A non-zero answer of
 * `entry` ends it and is returned.  Members that are added or removed
 * meanwhile may be told or not.
 */
FARBLK_API int farblk_tar_iterate(struct farblk_tar *tar,
                                  int (*entry)(void *arg,
                                               const struct farblk_tar_entry *entry),
                                  void *arg);

/**
 * Call `entry` for each child of the directory `key`, by name (compared as
 * octets), not for what lies deeper.  As iterate() otherwise; implied
 * directories are told.  Errors: NOT_FOUND, NOT_A_DIRECTORY (also when `key`
 * itself is none).
 */
FARBLK_API int farblk_tar_list(struct farblk_tar *tar, const char *key,
                               int (*entry)(void *arg,
                                            const struct farblk_tar_entry *entry),
                               void *arg);

/** The kind of `key` (enum farblk_tar_kind), 0 (NOTHING) when there is nothing.
 * Errors: NOT_A_DIRECTORY. */
FARBLK_API int farblk_tar_exists(struct farblk_tar *tar, const char *key);

/** All of one member.  Errors: NOT_FOUND, NOT_A_DIRECTORY. */
FARBLK_API int farblk_tar_stat(struct farblk_tar *tar, const char *key,
                               struct farblk_tar_stat *stat, size_t size);

/** Octets of the value; 0 of whatever is not a value.  Errors: as stat. */
FARBLK_API int farblk_tar_size(struct farblk_tar *tar, const char *key,
                               uint64_t *size);

/**
 * When it was changed last, in seconds since 1970 (negative before) and
 * nanoseconds (0 ... 999999999).  Of a directory: the newest of itself and its
 * children, not deeper; 0 when nothing is known.  `nanoseconds` may be NULL.
 * Errors: as stat.
 */
FARBLK_API int farblk_tar_last_modified(struct farblk_tar *tar, const char *key,
                                        int64_t *seconds, uint32_t *nanoseconds);

/**
 * The target of a symbolic or hard link as it stands in the archive, into `to`
 * (`size` octets, cut to fit, always ended by a zero unless size is 0).
 * Returns its whole length.  Errors: as stat; INVALID (not a link).
 */
FARBLK_API int farblk_tar_read_link(struct farblk_tar *tar, const char *key,
                                    char *to, size_t size);

/* ------------------------------------------------------------------------
 * Values.  Each: NOT_FOUND, NOT_A_DIRECTORY, NOT_A_VALUE
 */

/**
 * Up to `length` octets of the value from `offset` into `buffer`; *got tells
 * how many: less than asked only at the value's end, 0 from there on.  Holes
 * read as zero.  Any offset and length will do.
 */
FARBLK_API int farblk_tar_get_partial(struct farblk_tar *tar, const char *key,
                                      uint64_t offset, void *buffer,
                                      size_t length, size_t *got);

/**
 * The whole value, in memory that the caller frees with free(3).  *value is
 * never NULL on success, and a zero octet that is not counted follows it.
 * Errors: NO_SPACE (larger than `limit` octets; nothing is allocated).
 */
FARBLK_API int farblk_tar_get(struct farblk_tar *tar, const char *key,
                              uint64_t limit, void **value, uint64_t *size);

/** SHA-256 of the value, holes read as zeros.  Reads all of it. */
FARBLK_API int farblk_tar_digest(struct farblk_tar *tar, const char *key,
                                 uint8_t digest[FARBLK_TAR_DIGEST_SIZE]);

/** A run of a value's octets: where they are stored, or that they are not. */
struct farblk_tar_extent {
    uint64_t offset;        /**< in the value */
    uint64_t length;        /**< never 0 */
    uint64_t device_offset; /**< octet of the device; 0 in a hole */
    uint32_t hole;          /**< 1: not stored, reads as zero */
    uint32_t reserved;
};

/**
 * Tell where the octets [offset, offset + length) of the value lie, in order and
 * without gaps, as many runs as fit into `max`.  Neighbours differ in kind or
 * are apart on the device.  To go on, ask again from the end of the last.
 * Returns the number of runs; 0 when length is 0.  The answer holds until the
 * member is removed.  Errors: INVALID (past the value's end, or max is 0).
 */
FARBLK_API int farblk_tar_extents(struct farblk_tar *tar, const char *key,
                                  uint64_t offset, uint64_t length,
                                  struct farblk_tar_extent *extents, size_t max);

/* ------------------------------------------------------------------------
 * Changes.  Each: IS_READ_ONLY, CONFLICT.  One whose effect is UNKNOWN leaves
 * the archive read-only (later changes tell why) until it is opened anew.
 */

/** What a new member's header says.  Zero it, set .size = sizeof. */
struct farblk_tar_attributes {
    size_t size;
    bool has_mtime;       /**< false: now */
    bool has_mode;        /**< false: 0644 */
    int64_t mtime;        /**< seconds */
    uint32_t mode;        /**< 07777 at most */
    uint64_t uid, gid;
    const char *user;     /**< NULL or at most 31 octets */
    const char *group;
};

/**
 * Append a value under a new key.  Its parents need not exist.
 * Errors: EXISTS (the key exists, as whatever; the root does), NOT_A_DIRECTORY
 * (it leads through something else), NO_SPACE (headers, data and the final two
 * blocks do not fit; nothing is written), INVALID (".." in the key, or longer
 * than max_key).
 */
FARBLK_API int farblk_tar_set(struct farblk_tar *tar, const char *key,
                              const void *data, uint64_t size);

/**
 * The same with attributes (NULL: the defaults) and a value that comes in
 * pieces: `source` puts exactly `length` octets, the next ones, into `buffer`
 * and returns 0; its other answers end the call, are returned, and the archive
 * is as before.  `source` may read the archive; changes that it tries are
 * INVALID.
 */
FARBLK_API int farblk_tar_put(struct farblk_tar *tar, const char *key,
                              uint64_t size,
                              const struct farblk_tar_attributes *attributes,
                              int (*source)(void *arg, void *buffer, size_t length),
                              void *arg);

/** The same with a value of `size` zeros, to be filled by set_partial(). */
FARBLK_API int farblk_tar_allocate(struct farblk_tar *tar, const char *key,
                                   uint64_t size,
                                   const struct farblk_tar_attributes *attributes);

/**
 * Overwrite octets within a value; its size and time stay.  Not all or nothing:
 * after a failure or a crash some sectors may have changed, in this range only;
 * stable after farblk_flush().  Values that hard links share change together.
 * Errors: APPEND_ONLY (past the value's end, or in a hole), NOT_FOUND,
 * NOT_A_DIRECTORY, NOT_A_VALUE.
 */
FARBLK_API int farblk_tar_set_partial(struct farblk_tar *tar, const char *key,
                                      uint64_t offset, const void *data,
                                      size_t length);

/**
 * Remove the archive's last member; its room is free again, and the one before
 * is the last.  Implied directories that become empty vanish.  Errors:
 * APPEND_ONLY (not the last one; or it took another one's place, which would
 * come back), NOT_FOUND, NOT_A_DIRECTORY, NOT_A_VALUE (a directory).
 */
FARBLK_API int farblk_tar_remove(struct farblk_tar *tar, const char *key);

/**
 * Give the member `from` the new key `to`; all else stays.  One block changes,
 * so `to` must fit where the name stands now: up to 100 octets (255 where it
 * can be cut at a '/') for most members, and about as long as the old one for
 * those whose names are longer.
 * Errors: EXISTS (`to` exists; also when it is `from`), NOT_A_DIRECTORY,
 * NOT_FOUND, NOT_A_VALUE (`from` is a directory), INVALID (".." in `to`),
 * APPEND_ONLY (it does not fit; or hard links name `from`; or members that
 * were replaced would come back).
 */
FARBLK_API int farblk_tar_rename(struct farblk_tar *tar, const char *from,
                                 const char *to);

#ifdef __cplusplus
}
#endif

#endif
