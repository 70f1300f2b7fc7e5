#!/bin/bash
# SPDX-License-Identifier: ISC
# libnbd's programs on farblk devices, through the nbdkit plugin and a farblkd:
# nbdinfo, and nbdcopy in both directions, with holes.
. "$(dirname "$0")/nbdkit.sh"
requires nbdinfo nbdcopy

make_sparse image.raw
truncate -s 16M disk0.img
start_farblkd --export "disk0=file:$work/disk0.img" \
    --export "big=ramdisk:big?size=16M&sector=4096" \
    --export "hidden=ramdisk:hidden?ro=1"

# Every device behind a server, by its name.  nbdkit goes into the background,
# as it does unless told otherwise, and out of this directory: the socket's
# relative path has to be good nevertheless.
ready_fifo pid
preload nbdkit -U "$work/all.nbd" -P "$work/pid" "$plugin" \
    "server=farblk+unix:///?socket=socket" 2>all.log 8<&- 9<&- &
wait $! || fail "nbdkit's parent ended with $?: $(cat all.log)"
await_ready $$ || fail "nbdkit did not begin"
nbdkit_pids+=("$ready")
disk0=$(nbd_uri all disk0)
big=$(nbd_uri all big)

expect 0 nbdinfo --list --json "$(nbd_uri all)"
for name in disk0 big hidden; do
    out_has "\"export-name\": \"$name\""
done
[ "$(grep -c '"export-name"' out)" -eq 3 ] || fail "lists more"
out_has '"description": "4096 sectors of 4096 octets"'
out_has '"description": "32768 sectors of 512 octets, read-only"'
expect 0 nbdinfo --json "$big"
for member in '"export-size": 16777216' '"block_size_minimum": 4096' \
    '"block_size_preferred": 4096' '"is_read_only": false' \
    '"can_multi_conn": true' '"can_flush": true' '"can_fua": true' \
    '"can_trim": true' '"can_zero": true' '"can_fast_zero": true' \
    '"is_rotational": false' '"can_cache": false' '"base:allocation"'; do
    out_has "$member"
done
expect 0 nbdinfo --json "$disk0"
out_has '"block_size_minimum": 512'
expect 0 nbdinfo --json "$(nbd_uri all hidden)"
out_has '"is_read_only": true'
out_has '"can_trim": false'
for name in '' disk1 ../disk0 'disk0?ro=1' 'a%00b'; do
    expect 1 nbdinfo --size "$(nbd_uri all "$name")"
done

# Into a file, back into a file, and between devices; holes stay holes.
expect 0 nbdcopy --flush image.raw "$disk0"
same image.raw disk0.img
expect 0 nbdcopy --connections=4 --threads=4 --requests=16 "$disk0" "$big"
expect 0 nbdcopy --flush "$big" back.raw
same image.raw back.raw
expect 0 "$farblk" compare "$(tcp_uri big)" "file:$work/image.raw?sector=4096"
expect 0 nbdinfo --map "$big"
sed -E 's/^ *([0-9]+) +([0-9]+) +([0-9]+) .*/\1 \2 \3/' out >map.big
diff map.big - <<'END' || fail "the holes are not where they were"
0 65536 0
65536 983040 3
1048576 1048576 0
2097152 3014656 3
5111808 65536 0
5177344 11534336 3
16711680 65536 0
END
# Once around: this library as the NBD client of its own device.
if "$farblk" --help | grep -q "nbd+unix"; then
    expect 0 "$farblk" compare "$(nbd_uri all big)" "$(ipc_uri big)"
    expect 0 "$farblk" copy "$(nbd_uri all big)" "$(nbd_uri all disk0)"
    same image.raw disk0.img
    expect 0 "$farblk" map --json "$(nbd_uri all big)"
    grep -v '"uri"' out >map.around
    expect 0 "$farblk" map --json "$(ipc_uri big)"
    grep -v '"uri"' out | diff - map.around ||
        fail "another map by way of NBD"
    # And back: an export of that nbdkit by another one.
    start_nbdkit around "$plugin" "server=$(nbd_uri all)"
    expect 0 nbdinfo --list --json "$(nbd_uri around)"
    out_has '"export-name": "big"'
    expect 0 nbdcopy "$(nbd_uri around big)" back.raw
    same image.raw back.raw
    stop_nbdkit around "$nbdkit_pid"
fi
# On top of old data: what is a hole in the source becomes one.
expect 0 nbdcopy <(head -c 16M /dev/zero | tr '\0' x) "$big"
expect 0 nbdinfo --map --totals "$big"
out_has "100.0%"
expect 0 nbdcopy image.raw "$big"
expect 0 nbdcopy "$big" back.raw
same image.raw back.raw
expect 0 nbdinfo --map "$big"
sed -E 's/^ *([0-9]+) +([0-9]+) +([0-9]+) .*/\1 \2 \3/' out | diff - map.big ||
    fail "old data left traces"

# The server dies: an error, promptly; back again: so are its devices.
kill_farblkd
expect 1 nbdcopy "$disk0" back.raw
expect 1 nbdinfo --list "$(nbd_uri all)"
start_farblkd --export "disk0=file:$work/disk0.img"
expect 0 nbdcopy "$disk0" back.raw
same image.raw back.raw
# Now it has but one, which is everybody's who asks for none.
expect 0 nbdcopy "$(nbd_uri all)" back.raw
same image.raw back.raw
