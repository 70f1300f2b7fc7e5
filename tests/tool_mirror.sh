#!/bin/bash
# SPDX-License-Identifier: ISC
# farblk mirror: copies, served ones, failures and signals; and the example of
# docs/drivers.md.
. "$(dirname "$0")/functions.sh"

# The example, as it stands there.
mkdir example && cd example || exit 1
awk '/^## / { on = $0 == "## mirror" } on && /^```$/ { exit }
    on && code { print } on && /^```sh$/ { code = 1 }' \
    "$source/docs/drivers.md" >../example.sh
grep -q '^farblk mirror ' ../example.sh || fail "docs/drivers.md has no example"
expect 0 env PATH="$build:$PATH" bash -eu ../example.sh
same disk.img copy.img
cd ..
[ ! -s example/err ] || fail "the example complains"

truncate -s 8M a.img b.img
random 3M | dd of=a.img oflag=seek_bytes conv=notrunc seek=1M status=none
random 8M >b.img

# Files, with sectors of one size and the other.
expect 0 "$farblk" mirror "file:$work/a.img" "file:$work/b.img"
out_has "8 MiB: complete after"
[ ! -s err ] || fail "it complains"
same a.img b.img
random 8M >b.img
expect 0 "$farblk" mirror --json "file:a.img?sector=4096" "file:b.img?sector=512"
same a.img b.img
out_is_json
[ "$(out_member state)" = '"complete"' ] || fail "state"
[ "$(out_member size)" = 8388608 ] || fail "size"
[ "$(out_member copied)" = 8388608 ] || fail "copied"
[ "$(out_member percent)" = 100 ] || fail "percent"
[ "$(out_member error)" = null ] || fail "error"

# Names that must be encoded.
cp a.img 'odd & name, 100%.img'
random 8M >b.img
expect 0 "$farblk" mirror 'file:odd & name%2C 100%25.img?ro=1' file:b.img
same a.img b.img

# Sizes of nothing and of one sector.
for octets in 0 512; do
    random $octets >small.img && truncate -s $octets other.img
    expect 0 "$farblk" mirror file:small.img file:other.img
    same small.img other.img
done

# What can not be.
expect 1 "$farblk" mirror "file:a.img" "file:small.img"
err_has "primary has 8388608 octets and secondary 512"
expect 1 "$farblk" mirror "file:a.img" "file:b.img?ro=1"
err_has "is read-only"
expect 1 "$farblk" mirror "file:a.img" "file:a.img"
err_has "the same device"
expect 1 "$farblk" mirror "file:a.img" "file:missing.img"
err_has "NOT_FOUND"
expect 2 "$farblk" mirror "file:a.img"
expect 2 "$farblk" mirror --rate 0 file:a.img file:b.img
expect 2 "$farblk" mirror --rate x file:a.img file:b.img
expect 2 "$farblk" mirror --export x file:a.img file:b.img
err_has "--serve"

# Remote to local, local to remote, and through farblkd's own export.
start_farblkd --export "a=file:$work/a.img" --export "r=ramdisk:r?size=8M" \
    --export 'm=mirror:?primary=ramdisk:x%3Fsize=8M&secondary=ramdisk:y%3Fsize=8M'
random 8M >b.img
expect 0 "$farblk" mirror "$(ipc_uri a)" "file:$work/b.img"
same a.img b.img
expect 0 "$farblk" mirror "$(tcp_uri a)" "$(ipc_uri r)"
expect 0 "$farblk" compare "file:$work/b.img" "$(tcp_uri r)"
expect 0 "$farblk" copy "file:$work/b.img" "$(tcp_uri m)"
expect 0 "$farblk" compare "$(ipc_uri m)" "file:$work/b.img"
expect 0 "$farblk" info "$(ipc_uri m)"

# A secondary whose server dies in the middle: without --degrade and with it.
for option in "" --degrade; do
    start_mirror() # WORD ...: --serve; waits until it serves
    {
        rm -f ready && mkfifo ready || fail "mkfifo"
        "$farblk" mirror --serve "ipc://$work/mirror" --export disk "$@" \
            >mirror.out 2>ready &
        mirror_pid=$!
        farblkd_pids+=("$mirror_pid")
        exec 8<ready
        told 'serving "disk" on ipc://'
    }
    told() # TEXT: the next line on stderr has it
    {
        local line
        read -r -t 120 line <&8 || fail "nothing more was told; wanted: $1"
        [[ $line == *"$1"* ]] || fail "told \"$line\", not \"$1\""
    }
    mirror_uri="farblk+unix:///disk?socket=$work/mirror"
    # shellcheck disable=SC2086
    start_mirror --rate 256k $option "file:$work/b.img" "$(ipc_uri r)"
    random 64k >piece
    expect 0 "$farblk" write --offset 4M -i piece "$mirror_uri"
    dd if=b.img bs=64k skip=64 count=1 status=none | cmp - piece ||
        fail "the write did not reach primary"
    expect 0 "$farblk" read --offset 4M --length 64k -o back "$(ipc_uri r)"
    same piece back
    kill_farblkd
    told "$([ -z "$option" ] && echo failed || echo alone)"
    if [ -z "$option" ]; then
        expect 1 "$farblk" write --offset 5M -i piece "$mirror_uri"
        err_has "secondary"
    else
        expect 0 "$farblk" write --offset 5M -i piece "$mirror_uri"
    fi
    kill -TERM "$mirror_pid"
    status=0
    wait "$mirror_pid" || status=$?
    [ $status -eq 1 ] || fail "exit status $status after a failure"
    start_farblkd --export "r=ramdisk:r?size=8M"
done

# Served until a signal; complete meanwhile.
start_mirror --json "file:$work/b.img" "$(tcp_uri r)"
told complete
expect 0 "$farblk" write --offset 1M -i piece "$mirror_uri"
kill -TERM "$mirror_pid"
wait "$mirror_pid" || fail "a served mirror that is complete ended with $?"
cp mirror.out out && out_is_json
[ "$(out_member state)" = '"complete"' ] || fail "state when served"
expect 0 "$farblk" compare "file:$work/b.img" "$(tcp_uri r)"
stop_farblkd

# A signal in the middle: promptly, and no success.
"$farblk" mirror --rate 1 --json file:a.img file:b.img >out 2>err &
mirror_pid=$!
farblkd_pids+=("$mirror_pid")
# It has begun when it has the second file.
until ls -l "/proc/$mirror_pid/fd" | grep -q b.img; do
    kill -0 "$mirror_pid" || fail "it ended by itself"
done
kill -TERM "$mirror_pid"
status=0
wait "$mirror_pid" || status=$?
farblkd_pids=()
[ $status -eq 1 ] || fail "exit status $status after a signal"
err_has "interrupted at"
out_is_json
[ "$(out_member state)" = '"copying"' ] || fail "state after a signal"
expect 0 "$farblk" mirror file:a.img file:b.img
same a.img b.img
