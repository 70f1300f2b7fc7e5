#!/bin/bash
# SPDX-License-Identifier: ISC
# farblk info and list: tables and JSON, locally and remotely; the same content
# is described alike wherever it lies.
. "$(dirname "$0")/functions.sh"

truncate -s 8M disk.img
truncate -s 8M shut.img
expect 0 "$farblk" info "file:$work/disk.img"
for word in uri driver transport name read_write sector_size size_sectors size \
    generation features max_transfer preferred_transfer; do
    grep -q "^$word " out || fail "the table has no $word"
done
out_has "8388608 (8 MiB)"

shape() # FILE: what must be the same everywhere
{
    grep -vE '"(name|uri|driver|transport|way|max_transfer|preferred_transfer)":' "$1"
}
info() # URI DRIVER TRANSPORT: compare with the file's
{
    expect 0 "$farblk" info --json "$1"
    out_is_json
    [ "$(out_member uri)" = "\"$1\"" ] || fail "uri: $(out_member uri)"
    [ "$(out_member driver)" = "\"$2\"" ] || fail "driver: $(out_member driver)"
    [ "$(out_member transport)" = "\"$3\"" ] ||
        fail "transport: $(out_member transport)"
    [ "$(out_member size)" = 8388608 ] || fail "size: $(out_member size)"
    [ "$(out_member size_sectors)" = 16384 ] || fail "size_sectors"
    shape out >shape
    [ -e wanted ] || cp shape wanted
    diff wanted shape || fail "$1 differs"
}
info "file:$work/disk.img" file local
info "ramdisk:disk?size=8M" ramdisk local

expect 0 "$farblk" info --json "file:$work/disk.img?ro=1&sector=4096"
[ "$(out_member read_write)" = false ] || fail "ro=1 is read-write"
[ "$(out_member sector_size)" = 4096 ] || fail "sector=4096"

# A name that is no UTF-8 and has quotes still makes JSON.
name=$(printf 'q"uo\\te\351.img')
truncate -s 4k "$name"
expect 0 "$farblk" info --json "file:$work/$name"
out_is_json

start_farblkd --export "file=file:$work/disk.img" \
    --export "ram=ramdisk:ram?size=8M" --export "shut=file:$work/shut.img?ro=1"
for device in file ram; do
    info "$(ipc_uri $device)" farblk shm
    out_has '"way": "shared memory'
    info "$(ipc_uri $device)&shm=off" farblk ipc
    out_has 'shm=off'
    info "$(tcp_uri $device)" farblk tcp
    out_has 'no shared memory'
done
expect 0 "$farblk" info --json "$(ipc_uri shut)"
[ "$(out_member read_write)" = false ] || fail "ro=1 is read-write"
expect 1 "$farblk" info "$(tcp_uri nosuch)"
err_has "(NOT_FOUND)"

for server in "farblk+unix:///?socket=$work/socket" "farblk://127.0.0.1:$port"; do
    expect 0 "$farblk" list "$server"
    [ "$(grep -c 'file$\|ram$\|shut$' out)" -eq 3 ] || fail "list: not 3 devices"
    grep -q '8388608 .*8 MiB .* 512 .*rw .*file$' out || fail "list: file"
    grep -q '8388608 .*8 MiB .* 512 .*ro .*shut$' out || fail "list: shut"
    expect 0 "$farblk" list --json "$server"
    out_is_json
    out_has '"name": "ram"'
    [ "$(grep -c '"size": 8388608' out)" -eq 3 ] || fail "list: sizes"
done
stop_farblkd
expect 1 "$farblk" list "farblk+unix:///?socket=$work/socket"
err_has "farblk list: "
