#!/bin/bash
# SPDX-License-Identifier: ISC
# checksum.sh [--rounds N]
#
# What checksum=crc32c costs: `farblk bench` against a farblkd with a ramdisk,
# over a unix socket, by turns without and with it.  Prints tables in Markdown:
# medians of N rounds (5) with the smallest and largest, and what the sum costs
# by itself.
. "$(dirname "$0")/functions.sh"

rounds=5
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=${2:?--rounds needs a number} && shift 2 ;;
    --help)
        sed -n '3,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *) die "unknown option $1" ;;
    esac
done
make_build
make_work

"$build/farblkd" --listen "ipc://$work/socket" --log-level error \
    --export disk0='ramdisk:checksum?size=256M' >"$work/log" &
pids+=($!)
uri="farblk+unix:///disk0?socket=$work/socket"
await $! "$build/farblk" info "$uri"
"$build/farblk" bench "$uri" --rw write --bs 1M --qd 4 --ops 256 >"$work/log"

once() # CHECKSUM RW BLOCK DEPTH FIGURE
{
    "$build/farblk" bench "$uri&checksum=$1" --rw "$2" --bs "$3" --qd "$4" \
        --time 0.4 --json | tr -d ' \n' |
        sed -E "s/.*\"$5\":([0-9.]+).*/\1\n/"
}

row() # RW BLOCK DEPTH FIGURE UNIT DIVISOR
{
    local round
    rm -f "$work/none" "$work/crc32c"
    for ((round = 0; round < rounds; round++)); do
        once none "$1" "$2" "$3" "$4" >>"$work/none"
        once crc32c "$1" "$2" "$3" "$4" >>"$work/crc32c"
    done
    for round in none crc32c; do
        sort -g "$work/$round" >"$work/sorted" && mv "$work/sorted" "$work/$round"
    done
    paste "$work/none" "$work/crc32c" |
        awk -v what="$2 random ${1#rand}, $3 in flight" -v unit="$5" \
            -v divisor="$6" '
            { a[NR] = $1 / divisor; b[NR] = $2 / divisor }
            END {
                m = int((NR + 1) / 2)
                printf "| %s | %.1f %s (%.1f–%.1f) | %.1f %s (%.1f–%.1f) " \
                    "| %.2f |\n", what, a[m], unit, a[1], a[NR], b[m], unit, \
                    b[1], b[NR], b[m] / a[m]
            }'
}

echo "| work | none | crc32c | ratio |"
echo "|---|---:|---:|---:|"
for rw in randread randwrite; do
    row $rw 4k 1 p50 µs 1
    row $rw 4k 32 iops k/s 1000
    row $rw 64k 8 bytes_per_second GB/s 1000000000
    row $rw 1M 8 bytes_per_second GB/s 1000000000
done
echo
"$build/bench/crc32c"
