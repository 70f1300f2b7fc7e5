#!/bin/bash
# SPDX-License-Identifier: ISC
# farblk read and write: ranges, files and pipes, odd tails, ends.
. "$(dirname "$0")/functions.sh"

random 5M >data
head -c 512 data >sector
truncate -s 8M disk.img other.img

round() # URI FILE: of an 8 MiB device of 512-octet sectors
{
    local uri=$1 file=$2 status

    expect 0 "$farblk" write "$uri" --offset 1M -i data
    [ ! -s out ] && [ ! -s err ] || fail "write talks"
    expect 0 "$farblk" read "$uri" --offset 1M --length 5M -o back
    same data back
    expect 0 "$farblk" read "$uri" --offset 1M --length 5M
    same data out
    tail -c +1048577 "$file" | head -c 5M | cmp - data || fail "$file differs"
    # All of it; and all that is left.
    expect 0 "$farblk" read "$uri" -o -
    same out "$file"
    expect 0 "$farblk" read "$uri" --offset 7M
    [ "$(wc -c <out)" -eq 1048576 ] || fail "read to the end: $(wc -c <out)"
    expect 0 "$farblk" read "$uri" --offset 8M
    [ ! -s out ] || fail "read at the end has something"
    expect 0 "$farblk" read "$uri" --length 0
    [ ! -s out ] || fail "read of nothing has something"

    # From a pipe, in dribs and drabs, and with FUA.
    (head -c 700000; head -c 1; cat) <data |
        "$farblk" write "$uri" --offset 3M --fua 2>err || fail "write from a pipe"
    expect 0 "$farblk" read "$uri" --offset 3M --length 5M
    same data out
    # One sector at the very end.
    expect 0 "$farblk" write "$uri" --offset 8388096 -i sector
    expect 0 "$farblk" read "$uri" --offset 8388096
    same sector out
    expect 0 "$farblk" write "$uri" --offset 0 -i /dev/null

    # Not whole sectors, past the end: nothing changes.
    cp "$file" before
    expect 1 "$farblk" read "$uri" --offset 100 --length 512
    err_has "offset 100 is not a whole number of sectors of 512"
    expect 1 "$farblk" read "$uri" --length 100
    err_has "length 100 is not a whole number of sectors of 512"
    expect 1 "$farblk" read "$uri" --offset 8M --length 512
    err_has "past the end, 8388608 octets (INVALID)"
    expect 1 "$farblk" read "$uri" --offset 9M
    err_has "past the end"
    expect 1 "$farblk" read "$uri" --offset 15E --length 2E
    err_has "past the end"
    head -c 1000 data >odd
    expect 1 "$farblk" write "$uri" -i odd
    err_has "1000 octets, which is not a whole number of sectors of 512"
    expect 1 "$farblk" write "$uri" --offset 7M -i data
    err_has "past the end"
    expect 1 "$farblk" write "$uri" --offset 100 -i data
    err_has "offset 100 is not"
    expect 1 "$farblk" write "$uri" --offset 9M -i /dev/null
    err_has "past the end"
    same before "$file"

    # An odd tail shows only at a pipe's end: the whole sectors are there.
    status=0
    head -c 1000100 data | "$farblk" write "$uri" 2>err || status=$?
    [ $status -eq 1 ] || fail "odd tail: exit status $status"
    err_has "ends with 164 octets that are no whole sector of 512"
    err_has "999936 octets before them were"
    head -c 999936 data >wanted
    tail -c +999937 before >>wanted
    expect 0 "$farblk" read "$uri"
    same wanted out
    # Likewise too much of it.
    status=0
    head -c 1048577 data | "$farblk" write "$uri" --offset 7M 2>err ||
        status=$?
    [ $status -eq 1 ] || fail "too long: exit status $status"
    err_has "is longer than"
    head -c 1M data >wanted
    expect 0 "$farblk" read "$uri" --offset 7M
    same wanted out
    # Just enough.
    head -c 1M data | "$farblk" write "$uri" --offset 7M ||
        fail "a pipe up to the end"

    expect 1 "$farblk" write "$uri" -i /nonexistent/input
    err_has "/nonexistent/input: No such file"
    expect 1 "$farblk" read "$uri" -o /nonexistent/output
    err_has "/nonexistent/output: No such file"
}
round "file:$work/disk.img" disk.img

# Sectors of 4096 octets.
expect 1 "$farblk" write "file:$work/disk.img?sector=4096" -i sector
err_has "sectors of 4096"
expect 1 "$farblk" write "file:$work/disk.img?ro=1" -i sector
err_has "(IS_READ_ONLY)"

start_farblkd --export "disk=file:$work/disk.img" \
    --export "shut=file:$work/other.img?ro=1" --export "gone=file:$work/data"
round "$(ipc_uri disk)" disk.img
round "$(tcp_uri disk)" disk.img
expect 1 "$farblk" write "$(tcp_uri shut)" -i sector
err_has "(IS_READ_ONLY)"

# The storage fails in the middle: the place is told.
truncate -s 1M data
expect 1 "$farblk" read "$(tcp_uri gone)" -o back
err_has "farblk read: read of "
err_has "at octet "
at=$(sed -nE 's/.*at octet ([0-9]+).*/\1/p' err)
[ "$at" -gt 524288 ] && [ "$at" -le 1048576 ] || fail "the place is $at"
[ "$(wc -c <back)" -eq "$at" ] || fail "what was before it was not read"

# The server dies between two writes: once what the first did can be seen, it
# is killed, and then the second follows.
truncate -s 0 disk.img
truncate -s 8M disk.img
mkfifo input
"$farblk" write "$(ipc_uri disk)" <input 2>err &
writer=$!
exec 8>input
# disk.img was emptied, so that any octet that shows is the writer's.
head -c 4M /dev/zero | tr '\0' x >&8
until head -c 512 disk.img | grep -q x; do
    kill -0 $writer 2>/dev/null || fail "the writer has ended"
done
kill_farblkd
head -c 4M /dev/zero >&8 2>/dev/null
exec 8>&-
status=0
wait $writer || status=$?
[ $status -eq 1 ] || fail "server killed: exit status $status"
err_has "farblk write: write of "
err_has "at octet "
err_has "(DISCONNECTED)"
