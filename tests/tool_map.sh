#!/bin/bash
# SPDX-License-Identifier: ISC
# farblk map: the table, JSON, parts, and the picture on a terminal.
. "$(dirname "$0")/functions.sh"

# All of it has to be there in order; JSON and table say the same.
check() # URI
{
    expect 0 "$farblk" map "$1"
    awk '
        NR == 1 { if ($0 !~ /^ *start +length  kind$/) exit 1; next }
        /extent/ { ended = 1; next }
        {
            if ($1 != at + 0 || $2 <= 0 || $3 == kind) exit 1
            if ($3 != "mapped" && $3 != "unmapped") exit 1
            at += $2; kind = $3
        }
        END { exit !ended }' out || fail "the table of $1"
    awk 'NR > 1 && $3 ~ /mapped$/ && NF == 3 { print $1, $2, $3 == "mapped" }' \
        out >table
    expect 0 "$farblk" map --json "$1"
    out_is_json
    sed -nE 's/.*"start": ([0-9]+), "length": ([0-9]+), "mapped": true.*/\1 \2 1/p
        s/.*"start": ([0-9]+), "length": ([0-9]+), "mapped": false.*/\1 \2 0/p' \
        out >json
    diff table json || fail "table and JSON of $1 differ"
    [ "$(awk '{ sum += $2 } END { print sum + 0 }' json)" = "$(out_member size)" ] ||
        fail "not the whole device"
    [ "$(awk '$3 { sum += $2 } END { print sum + 0 }' json)" = \
        "$(out_member mapped)" ] || fail "mapped: $(out_member mapped)"
    [ $(($(out_member mapped) + $(out_member unmapped))) -eq \
        "$(out_member size)" ] || fail "unmapped: $(out_member unmapped)"
}

truncate -s 64M disk.img
random 1M | dd of=disk.img oflag=seek_bytes seek=3M conv=notrunc status=none
random 4096 | dd of=disk.img oflag=seek_bytes seek=40M conv=notrunc status=none
check "file:$work/disk.img"
check "file:$work/disk.img?sector=65536"
check ramdisk:empty
truncate -s 0 none.img
check "file:$work/none.img"

# Parts.
expect 0 "$farblk" map "file:$work/disk.img" --offset 3M --length 8k
out_has "8192  mapped"
out_has "1 extent, 8 KiB of 8 KiB mapped (100.0 %)"
expect 0 "$farblk" map "file:$work/disk.img" --offset 64M
out_has "0 extents, 0 of 0 mapped"
expect 1 "$farblk" map "file:$work/disk.img" --offset 100
err_has "offset 100 is not a whole number"
expect 1 "$farblk" map "file:$work/disk.img" --offset 64M --length 512
err_has "past the end"

start_farblkd --export "file=file:$work/disk.img" \
    --export "ram=ramdisk:ram?size=16M" --export "huge=ramdisk:huge?size=1T"
for way in ipc tcp; do
    check "$(${way}_uri file)"
    expect 0 "$farblk" map "$(${way}_uri huge)"
    out_has "1 extent, 0 of 1 TiB mapped (0.0 %)"
done
# 8192 extents that do not merge: many batches.
expect 0 "$farblk" copy "file:$work/disk.img?ro=1" "$(ipc_uri huge)"
head -c 512 disk.img >sector
head -c 8M /dev/zero | "$farblk" write "$(ipc_uri ram)" || fail "write"
seq 0 1024 8387584 | head -n 40 | while read -r at; do
    "$farblk" discard "$(ipc_uri ram)" --offset "$at" --length 512 || exit 1
done || fail "discard"
check "$(tcp_uri ram)"
[ "$(wc -l <json)" -eq 81 ] || fail "$(wc -l <json) extents, not 81"
stop_farblkd

# The picture, only on a terminal.
expect 0 "$farblk" map "file:$work/disk.img"
! grep -q "empty" out || fail "a picture in a pipe"
requires_terminal
TERM=dumb LC_ALL=C script -qec "stty cols 64; '$farblk' map file:$work/disk.img" \
    /dev/null </dev/null >out 2>err || fail "map on a terminal"
tr -d '\r' <out >clean && mv clean out
out_has ". empty  - + part  # full; 512 KiB each"
# 128 cells of 512 KiB: 3 MiB is 6 cells, then 2 full ones; 40 MiB is cell 80.
grep -qxF "......##........................................................" out ||
    fail "the first line of the picture"
grep -qxF "................-..............................................." out ||
    fail "the second line of the picture"
