#!/bin/bash
# SPDX-License-Identifier: ISC
# farblk bench: what it does, counts and refuses; never how fast.
. "$(dirname "$0")/functions.sh"

# The sums of a report in ./out.
counts() # READS WRITES
{
    [ "$(out_member reads)" = "$1" ] || fail "$(out_member reads) reads, not $1"
    [ "$(out_member writes)" = "$2" ] ||
        fail "$(out_member writes) writes, not $2"
}

# Work by number, each kind; the report.
for rw in read randread; do
    expect 0 "$farblk" bench ramdisk:a --rw $rw --ops 1000 --json
    out_is_json
    counts 1000 0
done
for rw in write randwrite; do
    expect 0 "$farblk" bench ramdisk:a --rw $rw --bs 512 --ops 1001 --jobs 3 \
        --json
    counts 0 1001
done
expect 0 "$farblk" bench ramdisk:a --rw randrw --mix 70 --ops 2000 --json
[ $(($(out_member reads) + $(out_member writes))) -eq 2000 ] || fail "not 2000"
[ "$(out_member reads)" -gt 1300 ] && [ "$(out_member reads)" -lt 1500 ] ||
    fail "$(out_member reads) of 2000 are not 70 %"
expect 0 "$farblk" bench ramdisk:a --rw rw --mix 0 --ops 7 --qd 1 --json
counts 0 7
[ "$(out_member block_size)" = 4096 ] || fail "block_size"
for key in iops bytes_per_second seconds; do
    out_member $key | grep -qE '^[0-9]+\.[0-9]{3}$' || fail "no $key"
done
grep -qE '"latency_us": \{"min": [0-9.]+, "p50": [0-9.]+, "p90": [0-9.]+, "p99": [0-9.]+, "p999": [0-9.]+, "max": [0-9.]+, "mean": [0-9.]+\}' out ||
    fail "latency_us"
expect 0 "$farblk" bench ramdisk:a --time 0.05
out_has "randread of 4 KiB, 32 in flight: "
out_has "requests/s"
! grep -q "%" out || fail "a picture in a pipe"

# The same seed asks for the same sectors: what is mapped tells.
mapped() # SEED
{
    rm -f "seed$1.img"
    expect 0 "$farblk" bench "file:$work/seed$1.img?create=1&size=16M" \
        --rw randwrite --ops 50 --seed $(($1 % 2))
    expect 0 "$farblk" map "file:$work/seed$1.img"
    mv out "map$1"
}
mapped 1
mapped 2
mapped 3
cmp -s map1 map3 || fail "one seed, two orders"
! cmp -s map1 map2 || fail "two seeds, one order"

# Only the region is touched, and reading touches nothing.
random 1M >disk.img
cp disk.img before.img
expect 0 "$farblk" bench "file:$work/disk.img" --ops 1000
same disk.img before.img
expect 0 "$farblk" bench "file:$work/disk.img" --rw randwrite --ops 500 \
    --offset 64k --length 128k
cmp -n 65536 disk.img before.img || fail "written before the region"
cmp -i 196608 disk.img before.img || fail "written after the region"
! cmp -s -i 65536 -n 131072 disk.img before.img || fail "not written"
# --fill, and sequential writing, go over all of it, not more.
expect 0 "$farblk" bench ramdisk:b --rw read --fill --bs 64k --ops 256 --json
cp before.img disk.img
expect 0 "$farblk" bench "file:$work/disk.img" --rw write --bs 4k --ops 32 \
    --offset 64k --length 128k --qd 4 --jobs 2
cmp -n 65536 disk.img before.img || fail "written before the region"
cmp -i 196608 disk.img before.img || fail "written after the region"
[ "$(cmp -l disk.img before.img | wc -l)" -gt 130000 ] || fail "not all written"

# Mistakes.
for bad in "--rw sideways" "--mix 70" "--rw rw --mix 101" "--bs 0" "--bs 2G" \
    "--qd 0" "--qd 5000" "--jobs 0" "--jobs 2000" "--time 0" "--time x" \
    "--time 1e3" "--time nan" "--time 1 --ops 5" "--ops 0" "--bs 4x"; do
    # shellcheck disable=SC2086
    expect 2 "$farblk" bench ramdisk:a $bad
done
err_has '"4x" is not a size'
expect 1 "$farblk" bench ramdisk:a --bs 1000
err_has "not a whole number of sectors"
expect 1 "$farblk" bench ramdisk:a --offset 16M
err_has "holds no request"
expect 1 "$farblk" bench ramdisk:a --offset 17M
err_has "past the end"
expect 1 "$farblk" bench ramdisk:a --length 17M
err_has "past the end"
expect 1 "$farblk" bench ramdisk:a --offset 100
err_has "offset 100 is not a whole number"
expect 1 "$farblk" bench "file:$work/nothing"
err_has "NOT_FOUND"
expect 1 "$farblk" bench "file:$work/disk.img?ro=1" --rw randwrite --ops 1
err_has "write of 4096 octets at octet "
err_has "IS_READ_ONLY"
expect 0 "$farblk" bench --help
out_has "DESTROYS"
out_has "coordinated omission"

# Remotely, with one client and with many; and when the server goes.
start_farblkd --export ram=ramdisk:ram
for way in ipc tcp; do
    expect 0 "$farblk" bench "$(${way}_uri ram)" --rw randrw --ops 2000 \
        --jobs 2 --json
    expect 0 "$farblk" bench "$(${way}_uri ram)" --rw randrw --ops 2000 \
        --jobs 4 --handles --qd 8 --json
    [ $(($(out_member reads) + $(out_member writes))) -eq 2000 ] ||
        fail "not 2000"
done
spent() # ticks that the server has worked
{
    awk '{ print $14 + $15 }' "/proc/$farblkd_pid/stat"
}
before=$(spent)
"$farblk" bench "$(ipc_uri ram)" --time 600 >out 2>err &
bench=$!
# It is at work when the server has spent time on it.
until [ $(($(spent) - before)) -gt 20 ]; do
    kill -0 $bench || fail "bench ended early"
    sleep 0.02
done
kill_farblkd
wait $bench && fail "no failure without the server"
err_has "of 4096 octets at octet "
err_has "DISCONNECTED"

# SIGTERM ends it early, with its report.
"$farblk" bench ramdisk:a --time 600 --json >out 2>err &
bench=$!
# Before it is farblk it is this shell, which catches signals as well.
until ((0x$(awk '/^Name:/ { is = $2 == "farblk" }
    /^SigCgt:/ { print is ? $2 : 0 }' "/proc/$bench/status") & 1 << 14)); do
    kill -0 $bench || fail "bench ended early"
done
kill -TERM $bench
status=0
wait $bench || status=$?
[ $status -eq 143 ] || fail "status $status after SIGTERM"
out_is_json

# The picture, only on a terminal.
requires_terminal
TERM=dumb script -qec "stty cols 64; '$farblk' bench ramdisk:a --ops 5000" \
    /dev/null </dev/null >out 2>err || fail "bench on a terminal"
grep -qE '^ +[0-9.]+ [num]?s +[0-9.]+ % .' out || fail "no picture"
