#!/bin/bash
# SPDX-License-Identifier: ISC
# The commands of docs/nbd.md work as they stand there.  /tmp becomes this
# test's folder, and the plugin's name its file.
. "$(dirname "$0")/nbdkit.sh"
requires qemu-img nbdinfo nbdcopy fio mountpoint
[ -z "$FARBLK_PRELOAD" ] || {
    echo "with a sanitizer nbdkit can not be called as the document does: skipped"
    exit 77
}

truncate -s 64M disk.img
start_farblkd --export "disk0=file:$work/disk.img" \
    --export 'scratch=ramdisk:scratch?size=1G'
random 1M >data.raw && truncate -s 64M data.raw
expect 0 qemu-img convert -f raw -O qcow2 data.raw disk.qcow2
end_nbdkits()
{
    local status=$?
    for file in *.pid; do
        [ ! -s "$file" ] || nbdkit_pids+=("$(cat "$file")")
    done
    ! mountpoint -q mnt || fusermount3 -u -z mnt
    (exit $status)
    nbdkit_end
}
trap end_nbdkits EXIT

export plugin
nbdkit()
{
    local word words=()
    for word; do
        [ "$word" != farblk ] || word=$plugin
        words+=("$word")
    done
    command nbdkit "${words[@]}"
}
export -f nbdkit

# Each block, in order.
awk '/^```sh$/ { n++; on = 1; next } /^```$/ { on = 0 } on { print > "block." n }' \
    "$source/docs/nbd.md"
blocks=(block.*)
[ ${#blocks[@]} -ge 7 ] || fail "only ${#blocks[@]} blocks of commands"
for ((n = 1; n <= ${#blocks[@]}; n++)); do
    sed -i "s:/tmp/farblk.sock:SOCKET:g; s:/tmp/:$work/:g; s:SOCKET:$work/socket:g" \
        "block.$n"
    if grep -q nbdfuse "block.$n" && ! { [ -w /dev/fuse ] &&
        command -v nbdfuse fusermount3 >/dev/null; }; then
        echo "nbdfuse can not be used here: left out"
        continue
    fi
    status=0
    timeout 120 bash -e "block.$n" >out 2>err || status=$?
    if [ $status -ne 0 ] && grep -q "fusermount\|fuse: .*mount" err; then
        echo "nbdfuse can not mount here: left out: $(head -n 1 err)"
        continue
    fi
    [ $status -eq 0 ] || fail "status $status: $(cat "block.$n")"
done
grep -q "Images are identical" <(qemu-img compare disk.qcow2 back.qcow2) ||
    fail "another image came back"
head -c 64M backup.img | cmp - data.raw || fail "the backup differs"
