#!/bin/bash
# SPDX-License-Identifier: ISC
# fio writes at random and verifies what it reads, by its own NBD client through
# the nbdkit plugin and a farblkd.
. "$(dirname "$0")/nbdkit.sh"
requires fio
fio --enghelp 2>/dev/null | grep -qw nbd || {
    echo "this fio has no nbd engine: skipped"
    exit 77
}

truncate -s 8M disk0.img
start_farblkd --export "disk0=file:$work/disk0.img" \
    --export "memory=ramdisk:memory?size=8M&sector=4096"
start_nbdkit disk0 "$plugin" "$(ipc_uri disk0)"
disk0_pid=$nbdkit_pid
start_nbdkit memory "$plugin" "$(tcp_uri memory)"
memory_pid=$nbdkit_pid

verify() # NAME OPTION ...
{
    local name=$1
    shift
    expect 0 fio --name=verify --ioengine=nbd --uri="$(nbd_uri "$name")" \
        --iodepth=32 --size=8m --verify=crc32c --verify_fatal=1 \
        --randseed=7 --output-format=json "$@"
    out_has '"error" : 0'
}
verify disk0 --rw=randwrite --bs=512 --io_size=1m
verify memory --rw=randwrite --bs=4k
verify memory --rw=randwrite --bs=16k --loops=3
verify disk0 --rw=write --bs=1m --fsync=4
stop_nbdkit disk0 "$disk0_pid"
stop_nbdkit memory "$memory_pid"
stop_farblkd
