#!/bin/bash
# SPDX-License-Identifier: ISC
# qemu's programs work on farblk devices, through the nbdkit plugin and a
# farblkd: images are converted there and back, mapped, compared and checked.
. "$(dirname "$0")/nbdkit.sh"
requires qemu-img qemu-io

make_sparse image.raw
expect 0 qemu-img convert -f raw -O qcow2 image.raw image.qcow2
truncate -s 16M disk0.img
start_farblkd --export "disk0=file:$work/disk0.img" \
    --export "big=ramdisk:big?size=16M&sector=4096" \
    --export "fresh=ramdisk:fresh?size=32M" \
    --export "small=ramdisk:small?size=1M"

# From qcow2 into a remote file and back.  A plain uri=, over the unix socket.
start_nbdkit disk0 "$plugin" "uri=$(ipc_uri disk0)"
disk0_pid=$nbdkit_pid
disk0=$(nbd_uri disk0)
expect 0 qemu-img info --output=json "$disk0"
out_has '"virtual-size": 16777216'
expect 0 qemu-img convert -f qcow2 -n -O raw image.qcow2 "$disk0"
expect 0 qemu-img compare -f qcow2 -F raw image.qcow2 "$disk0"
out_has "Images are identical."
same image.raw disk0.img
expect 0 qemu-img convert -f raw -O qcow2 "$disk0" back.qcow2
expect 0 qemu-img compare back.qcow2 image.qcow2
expect 0 qemu-img check back.qcow2

# What it says is mapped is what the device says: the same extents.
expect 0 qemu-img map -f raw --output=json "$disk0"
sed -nE 's/.*"start": ([0-9]*), "length": ([0-9]*),.*"data": (true|false).*/\1 \2 \3/p' \
    out >mapped.qemu
expect 0 "$farblk" map --json "$(ipc_uri disk0)"
tr -d '\n' <out | grep -oE '\{[^{}]*"start"[^{}]*\}' |
    sed -E 's/.*"start": ([0-9]*), *"length": ([0-9]*), *"mapped": (true|false).*/\1 \2 \3/' \
        >mapped.farblk
same mapped.qemu mapped.farblk
[ "$(grep -c false mapped.qemu)" -ge 3 ] || fail "holes were not kept"

# One that differs is told.
put disk0.new 0 512
expect 0 "$farblk" write "$(ipc_uri disk0)" --offset 1M -i disk0.new
expect 1 qemu-img compare -f qcow2 -F raw image.qcow2 "$disk0"
out_has "Content mismatch at offset 1048576"

# Many requests at once, out of order, over TCP, in sectors of 4096.
start_nbdkit big "$plugin" "$(tcp_uri big)"
big=$(nbd_uri big)
expect 0 qemu-img convert -f raw -n -W -m 16 -O raw image.raw "$big"
expect 0 qemu-img compare -f raw -F raw image.raw "$big"
expect 0 "$farblk" compare "file:$work/image.raw?sector=4096" "$(tcp_uri big)"

# A qcow2 image lives on the device.
start_nbdkit fresh "$plugin" "$(ipc_uri fresh)"
fresh=$(nbd_uri fresh)
expect 0 qemu-img create -f qcow2 "$fresh" 16M
expect 0 qemu-io -f qcow2 -c "write -P 7 1M 1M" -c "write -P 8 10M 64k" \
    -c flush -c "read -P 7 1M 1M" -c "read -P 8 10M 64k" \
    -c "read -P 0 11M 64k" "$fresh"
expect 0 qemu-img check -f qcow2 "$fresh"
stop_nbdkit fresh "$nbdkit_pid"
start_nbdkit fresh "$plugin" "$(ipc_uri fresh)"
expect 0 qemu-io -r -f qcow2 -c "read -P 7 1M 1M" -c "read -P 8 10M 64k" "$fresh"

# Each request by itself.  What qemu asks for is what the device gets.
start_nbdkit small --filter=log "$plugin" "$(ipc_uri small)" \
    "logfile=$work/small.requests"
small=$(nbd_uri small)
io() { expect 0 qemu-io -f raw -t none "$@" "$small"; }
# What the device has from OFFSET on: "mapped" or "unmapped".
kind() # OFFSET
{
    expect 0 "$farblk" map "$(ipc_uri small)" --offset "$1" --length 4096
    grep -oE '\b(un)?mapped\b' out | head -n 1
}
requested() { grep -qE "$1" small.requests || fail "no $1: $(cat small.requests)"; }
io -c "write -P 1 0 64k" -c "write -f -P 2 64k 64k"
requested "Write .*offset=0x0 count=0x10000 fua=0"
requested "Write .*offset=0x10000 count=0x10000 fua=1"
[ "$(kind 0)" = mapped ] || fail "what was written is not mapped"
io -c "flush"
requested "Flush"
io -c "discard 0 64k"
requested "Trim .*offset=0x0 count=0x10000"
[ "$(kind 0)" = unmapped ] || fail "what was trimmed is mapped"
io -c "write -z 64k 32k"
requested "Zero .*offset=0x10000 count=0x8000 trim=0 fua=0"
[ "$(kind 64k)" = mapped ] || fail "zeroes that stay are not mapped"
io -c "write -z -u -f 96k 32k"
requested "Zero .*offset=0x18000 count=0x8000 trim=1 fua=1"
[ "$(kind 96k)" = unmapped ] || fail "zeroes that may be trimmed are mapped"
io -c "read -P 0 0 128k"
expect 0 "$farblk" read "$(ipc_uri small)" --offset 0 --length 128k
cmp -n 131072 out /dev/zero || fail "zeroes are not"

# Read-only, by nbdkit's word or the URI's.
start_nbdkit ro -r "$plugin" "$(ipc_uri small)"
expect 1 qemu-io -f raw -c "write 0 4k" "$(nbd_uri ro)"
expect 0 qemu-io -r -f raw -c "read -P 0 0 4k" "$(nbd_uri ro)"
start_nbdkit ro2 "$plugin" "$(ipc_uri small ro=1)"
expect 1 qemu-io -f raw -c "write 0 4k" "$(nbd_uri ro2)"
expect 0 qemu-img info "$(nbd_uri ro2)"

# Another size is seen by who connects then.
expect 0 "$farblk" resize "$(ipc_uri small)" 3M
expect 0 qemu-img info --output=json "$small"
out_has '"virtual-size": 3145728'
io -c "write -P 9 2M 1M" -c "read -P 9 2M 1M"

# The server dies: errors, and when it is back, it goes on.
kill_farblkd
expect 1 qemu-img info "$disk0"
start_farblkd --export "disk0=file:$work/disk0.img"
expect 0 qemu-img info "$disk0"
expect 0 qemu-io -f raw -c "write -P 3 3M 64k" -c flush "$disk0"
stop_nbdkit disk0 "$disk0_pid"
stop_farblkd
cmp <(head -c 64k /dev/zero | tr '\0' '\3') <(tail -c +3145729 disk0.img |
    head -c 64k) || fail "what was written afterwards is not there"
