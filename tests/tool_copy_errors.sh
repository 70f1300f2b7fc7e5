#!/bin/bash
# SPDX-License-Identifier: ISC
# farblk copy when something goes wrong in the middle: the exit status, the
# side and the place; and when it is interrupted.
. "$(dirname "$0")/functions.sh"

head -c 8M /dev/zero | tr '\0' x >from.img

place() # the octet that the message tells
{
    sed -nE 's/.* at octet ([0-9]+) of the .*/\1/p' err
}

# A file that may not grow past 1 MiB: the first writes succeed.
truncate -s 8M to.img
status=0
(
    trap '' XFSZ
    ulimit -f 1024
    exec "$farblk" copy "file:$work/from.img" "file:$work/to.img" \
        --requests 2 --request-size 64k >out 2>err
) || status=$?
[ $status -eq 1 ] || fail "limited file: exit status $status"
err_has "farblk copy: write of 65536 octets at octet "
err_has "of the destination, file:$work/to.img: "
[ "$(place)" -ge 1048576 ] && [ "$(place)" -lt 1310720 ] ||
    fail "the place is $(place)"
head -c 1M to.img | cmp - <(head -c 1M from.img) || fail "what fits is not there"
[ ! -s out ] || fail "a failed copy has a summary"

# A full file system, where one can be mounted.
mkdir full
if mount -t tmpfs -o size=2m none full 2>/dev/null; then
    truncate -s 8M full/to.img
    status=0
    "$farblk" copy "file:$work/from.img" "file:$work/full/to.img" >out 2>err ||
        status=$?
    umount full || umount -l full
    [ $status -eq 1 ] || fail "full file system: exit status $status"
    err_has "of the destination, "
    err_has "(NO_SPACE)"
    [ "$(place)" -gt 0 ] || fail "the place is $(place)"
fi

# The source fails behind a server: its file has become shorter.
head -c 8M from.img >short.img
head -c 64M /dev/zero >big.img
truncate -s 64M big2.img
start_farblkd --export "from=file:$work/short.img" \
    --export "to=file:$work/big2.img" --export "ram=ramdisk:r?size=8M"
truncate -s 3M short.img
expect 1 "$farblk" copy "$(tcp_uri from)" "$(ipc_uri ram)"
err_has "of the source, $(tcp_uri from): "
[ "$(place)" -ge 0 ] || fail "no place"

# One signal: what is in flight is waited for, and that is all.  It is sent
# when the first data has arrived; small requests make the rest take a while.
arrived() # PID
{
    until [ "$(stat -c %b big2.img)" -gt 0 ]; do
        kill -0 "$1" 2>/dev/null || fail "the copy has ended too early"
    done
}
set -m
for signal in INT TERM; do
    truncate -s 0 big2.img
    truncate -s 64M big2.img
    "$farblk" copy "file:$work/big.img" "$(tcp_uri to)" --requests 1 \
        --request-size 512 >out 2>err &
    copy=$!
    arrived $copy
    kill -$signal $copy
    status=0
    wait $copy || status=$?
    [ $status -eq $((128 + $(kill -l $signal))) ] ||
        fail "SIG$signal: exit status $status"
    err_has "interrupted after "
    err_has " of 67108864 octets"
done
set +m

# The server is killed.
truncate -s 0 big2.img
truncate -s 64M big2.img
"$farblk" copy "file:$work/big.img" "$(ipc_uri to)" --requests 4 \
    --request-size 512 >out 2>err &
copy=$!
arrived $copy
kill_farblkd
status=0
wait $copy || status=$?
[ $status -eq 1 ] || fail "server killed: exit status $status"
err_has "at octet "
err_has "of the destination, "
err_has "(DISCONNECTED)"
