#!/bin/bash
# SPDX-License-Identifier: ISC
# farblk resize, flush, discard and zero.
. "$(dirname "$0")/functions.sh"

size() { out_member size; }

all() # URI FILE: an 8 MiB device of 512-octet sectors
{
    local uri=$1 file=$2 command

    head -c 8M /dev/zero | tr '\0' x >"$file"
    expect 0 "$farblk" flush "$uri"
    [ ! -s out ] && [ ! -s err ] || fail "flush talks"
    expect 0 "$farblk" zero "$uri" --offset 1M --length 1M
    expect 0 "$farblk" discard "$uri" --offset 4M --length 1M
    expect 0 "$farblk" zero "$uri" --offset 6M --length 512 --no-unmap --fua
    expect 0 "$farblk" discard "$uri" --offset 7M --length 4096 --fua
    expect 0 "$farblk" discard "$uri" --offset 0 --length 0
    {
        head -c 1M /dev/zero | tr '\0' x
        head -c 1M /dev/zero
        head -c 2M /dev/zero | tr '\0' x
        head -c 1M /dev/zero
        head -c 1M /dev/zero | tr '\0' x
        head -c 512 /dev/zero
        head -c 1048064 /dev/zero | tr '\0' x
        head -c 4096 /dev/zero
        head -c 1044480 /dev/zero | tr '\0' x
    } >wanted
    expect 0 "$farblk" read "$uri"
    same wanted out
    same wanted "$file"

    for command in discard zero; do
        expect 1 "$farblk" $command "$uri" --offset 100 --length 512
        err_has "farblk $command: offset 100 is not a whole number"
        expect 1 "$farblk" $command "$uri" --offset 0 --length 513
        err_has "length 513 is not a whole number"
        expect 1 "$farblk" $command "$uri" --offset 8M --length 512
        err_has "past the end"
    done
    same wanted "$file"

    expect 0 "$farblk" resize "$uri" 12M
    expect 0 "$farblk" info --json "$uri"
    [ "$(size)" = 12582912 ] || fail "size: $(size)"
    expect 0 "$farblk" read "$uri" --offset 8M
    head -c 4M /dev/zero | cmp - out || fail "growth is not zero"
    expect 0 "$farblk" resize "$uri" 512
    expect 0 "$farblk" info --json "$uri"
    [ "$(size)" = 512 ] || fail "size: $(size)"
    expect 0 "$farblk" resize "$uri" 0
    expect 0 "$farblk" read "$uri"
    [ ! -s out ] || fail "an empty device has something"
    expect 0 "$farblk" resize "$uri" 8M
    expect 0 "$farblk" read "$uri"
    head -c 8M /dev/zero | cmp - out || fail "old data came back"
    expect 1 "$farblk" resize "$uri" 1000
    err_has "size 1000 is not a whole number of sectors of 512"
    expect 1 "$farblk" resize "$uri" 15E
    err_has "farblk resize: "
    expect 0 "$farblk" info --json "$uri"
    [ "$(size)" = 8388608 ] || fail "a failed resize changed the size: $(size)"
}

truncate -s 8M disk.img shut.img
all "file:$work/disk.img" disk.img
start_farblkd --export "disk=file:$work/disk.img" \
    --export "shut=file:$work/shut.img?ro=1"
all "$(ipc_uri disk)" disk.img
all "$(tcp_uri disk)" disk.img
for uri in "file:$work/shut.img?ro=1" "$(ipc_uri shut)" "$(tcp_uri shut)"; do
    for command in discard zero; do
        expect 1 "$farblk" $command "$uri" --offset 0 --length 512
        err_has "(IS_READ_ONLY)"
    done
    expect 1 "$farblk" resize "$uri" 4M
    err_has "(IS_READ_ONLY)"
    expect 0 "$farblk" flush "$uri"
done
stop_farblkd
