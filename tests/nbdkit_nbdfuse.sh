#!/bin/bash
# SPDX-License-Identifier: ISC
# A farblk device becomes a file, by nbdfuse through the nbdkit plugin and a
# farblkd; a file system is made in it.  nbdfuse takes no part of a sector, unless
# nbdkit's blocksize filter does that.
. "$(dirname "$0")/nbdkit.sh"
requires nbdfuse fusermount3 mountpoint
PATH=$PATH:/sbin:/usr/sbin
requires mke2fs e2fsck
[ -w /dev/fuse ] || {
    echo "no /dev/fuse to use: skipped"
    exit 77
}

start_farblkd --export "disk=ramdisk:disk?size=16M&sector=4096"
mkdir mnt
# Mount the device by an nbdkit with these options.
mount_disk() # OPTION ...
{
    start_nbdkit disk "$@" "$plugin" "$(ipc_uri disk)"
    ready_fifo fuse.pid
    nbdfuse --pidfile=fuse.pid mnt/disk "$(nbd_uri disk)" 2>fuse.log \
        8<&- 9<&- &
    fuse=$!
    nbdkit_pids+=("$fuse")
    await_ready "$fuse" || {
        grep -qi "mount" fuse.log || fail "nbdfuse: $(cat fuse.log)"
        echo "nbdfuse can not mount here: $(head -n 1 fuse.log): skipped"
        exit 77
    }
}
unmount_disk()
{
    expect 0 fusermount3 -u mnt
    wait "$fuse" || fail "nbdfuse ended with $?: $(cat fuse.log)"
    stop_nbdkit disk "$nbdkit_pid"
}
unmount()
{
    local status=$?
    mountpoint -q mnt && fusermount3 -u -z mnt
    (exit $status)
    nbdkit_end
}
trap unmount EXIT

mount_disk
[ "$(stat -c %s mnt/disk)" -eq 16777216 ] || fail "another size"

random 1M >data
expect 0 dd if=data of=mnt/disk bs=64k conv=notrunc,fsync seek=32 status=none
expect 0 dd if=mnt/disk of=back bs=64k skip=32 count=16 status=none
same data back
expect 0 "$farblk" read "$(ipc_uri disk)" --offset 2M --length 1M -o back
same data back
expect 1 dd if=data of=mnt/disk bs=512 count=1 conv=notrunc status=none
err_has "Invalid argument"
unmount_disk

mount_disk --filter=blocksize
expect 0 dd if=data of=mnt/disk bs=512 count=3 seek=4099 conv=notrunc,fsync \
    status=none
head -c 1M data >wanted
dd if=data of=wanted bs=512 count=3 seek=3 conv=notrunc status=none
expect 0 "$farblk" read "$(ipc_uri disk)" --offset 2M --length 1M -o back
same wanted back
expect 0 mke2fs -q -F -t ext4 -b 4096 mnt/disk
expect 0 e2fsck -f -n mnt/disk
unmount_disk
expect 0 "$farblk" copy --create "$(ipc_uri disk)" "file:$work/image"
expect 0 e2fsck -f -n image
