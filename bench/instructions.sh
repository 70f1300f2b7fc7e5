#!/bin/bash
# SPDX-License-Identifier: ISC
# instructions.sh [--ops N] [--write]
#
# What one request costs in instructions and calls, by callgrind, at client and
# server, for farblk and for libnbd with nbdkit, over a unix socket.  Prints a
# table in Markdown; --write puts it into docs/benchmarks.md.
#
# Each program runs twice, with N (5000) and with 3 N requests; the difference
# by 2 N is one request's share, without start and end.  Unlike times these
# counts hardly depend on the machine or its load; they vary a little with how
# many requests are handled at once, which depends on the order of the threads.
# The kernel's work is not in them.
. "$(dirname "$0")/functions.sh"

ops=5000
write=0
while [ $# -gt 0 ]; do
    case $1 in
    --ops) ops=${2:?--ops needs a number} && shift 2 ;;
    --write) write=1 && shift ;;
    --help)
        sed -n '3,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *) die "unknown option $1" ;;
    esac
done
need valgrind valgrind nbdkit nbdkit
make_build
make_work

# Instructions and calls in a profile, as one line.
counts() # FILE
{
    awk '
        /^(totals|summary):/ { total = $2 }
        /^c?fn=/ {
            match($0, /\([0-9]+\)/)
            id = substr($0, RSTART, RLENGTH)
            rest = substr($0, RSTART + RLENGTH + 1)
            if (rest != "") { sub(/@.*/, "", rest); name[id] = rest }
            if (/^cfn=/) callee = name[id]
        }
        /^calls=/ {
            split(substr($1, 7), a, " ")
            if (callee ~ /^(malloc|calloc|realloc|posix_memalign|aligned_alloc|memalign)$/)
                allocations += a[1]
            if (callee ~ /^pthread_mutex_(try)?lock$/) locks += a[1]
            if (callee ~ /^pthread_cond_(signal|broadcast)$/) signals += a[1]
            if (callee ~ /^(sendmsg|send|sendto|writev|write)$/) sends += a[1]
            if (callee ~ /^(recvmsg|recv|recvfrom|readv|read)$/)
                receives += a[1]
        }
        END {
            print total + 0, allocations + 0, locks + 0, signals + 0,
                sends + 0, receives + 0
        }' "$1"
}

# The client's command for one piece of work: SYSTEM RW DEPTH OPS
load()
{
    if [ "$1" = farblk ]; then
        "${before[@]}" "$build/farblk" bench "$(farblk_uri unix ram)" \
            --rw "$2" --qd "$3" --ops "$4" >/dev/null
    else
        "${before[@]}" "$build/bench/nbd_load" "$nbd_uri" \
            --rw "$2" --qd "$3" --ops "$4" >/dev/null
    fi || die "$1 failed"
}

start() # SYSTEM: sets server, its process id
{
    if [ "$1" = farblk ]; then
        start_farblkd "ram=ramdisk:ram?size=4M"
        server=$farblkd
        fill_farblk "$(farblk_uri unix ram)"
    else
        start_nbdkit unix 4M
        server=$nbdkit
        nbd_uri=$peer_uri
        fill_nbd "$nbd_uri" 4
    fi
}

# Set counted to those of the client or the server: HALF SYSTEM RW DEPTH OPS
measure()
{
    local profile=(valgrind -q --tool=callgrind
        "--callgrind-out-file=$work/profile")
    before=()
    [ "$1" = client ] || under=("${profile[@]}")
    start "$2"
    under=()
    [ "$1" = server ] || before=("${profile[@]}")
    load "$2" "$3" "$4" "$5"
    stop "$server"
    counted=$(counts "$work/profile")
}

table()
{
    local half rw depth system few many
    echo "| half | work | system | instructions | allocations | mutex locks | signals | sends | receives |"
    echo "|---|---|---|---:|---:|---:|---:|---:|---:|"
    for half in client server; do
        for rw in "read 1" "read 32" "write 32"; do
            depth=${rw#* }
            for system in farblk nbd; do
                say "$half, 4k random $rw in flight, $system"
                measure $half $system "rand${rw% *}" "$depth" "$ops"
                few=$counted
                measure $half $system "rand${rw% *}" "$depth" $((3 * ops))
                many=$counted
                echo "$few $many" | awk -v n=$((2 * ops)) -v half=$half \
                    -v name=$system -v rw="${rw% *}" -v depth="$depth" '{
                        printf "| %s | 4k random %s, %d in flight | %s ", \
                            half, rw, depth, name == "farblk" ? "farblk" : \
                            (half == "client" ? "libnbd" : "nbdkit")
                        printf "| %.0f ", ($7 - $1) / n
                        for (i = 2; i <= 6; i++) {
                            calls = ($(i + 6) - $i) / n
                            # No "-0.00".
                            printf "| %.2f ", (calls < 0.005 ? 0 : calls)
                        }
                        print "|"
                    }'
            done
        done
    done
}

table >"$work/table"
cat "$work/table"
if [ $write -eq 1 ]; then
    replace_part "$source_dir/docs/benchmarks.md" instructions "$work/table"
fi
