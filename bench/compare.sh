#!/bin/bash
# SPDX-License-Identifier: ISC
# compare.sh [--quick] [--only REGEX] [--time SECONDS] [--rounds N] [--write]
#
# Measures farblk and its peers, by turns, in one run: remote memory over unix
# sockets and TCP against nbdkit, qemu-nbd and plain nng sockets, copies against
# nbdcopy, a file against fio, local memory against memcpy, and what idle and
# busy connections cost the server.  Installs the peers where they are missing,
# and builds farblk (FARBLK_BUILD: use that build as it is).
#
# Prints tables in Markdown; a whole run (no --quick, no --only), or --write,
# puts them into docs/benchmarks.md, with the plot docs/benchmarks.svg.
#   --time, --rounds  seconds of each measurement (1), how often (5)
#   --quick           0.3 seconds, 3 rounds
#   --only REGEX      rows whose "SECTION: WORK" matches, as in
#                     --only 'TCP.*4k random read'
# Images are kept in memory, FARBLK_BENCH_DIR (/dev/shm, about 5 GiB); the file
# that is read directly is in FARBLK_BENCH_DISK (/var/tmp, 1 GiB).
. "$(dirname "$0")/functions.sh"
command_line="bench/compare.sh${*:+ $*}"

seconds=1
rounds=5
only=
write=-1
while [ $# -gt 0 ]; do
    case $1 in
    --quick) seconds=0.3 rounds=3 && [ $write -eq 1 ] || write=0 ;;
    --only) only=${2:?--only needs a pattern} && shift &&
        { [ $write -eq 1 ] || write=0; } ;;
    --time) seconds=${2:?--time needs seconds} && shift ;;
    --rounds) rounds=${2:?--rounds needs a number} && shift ;;
    --write) write=1 ;;
    --help)
        sed -n '3,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *) die "unknown option $1" ;;
    esac
    shift
done
[ $write -ne -1 ] || write=1
need nbdkit nbdkit qemu-nbd qemu-utils nbdcopy libnbd-bin fio fio
make_build
make_work
bench=$build/bench
samples=$work/samples
: >"$samples"
missed=0

# Whether a row is wanted.
wanted() # SECTION WORK
{
    [ -z "$only" ] || [[ "$1: $2" =~ $only ]]
}

# One value of one system: the units are us (latency), req/s, B/s, s.
sample() # SECTION WORK UNIT TARGET SYSTEM ROUND VALUE
{
    if [[ $7 =~ ^[0-9.]+$ ]]; then
        (IFS=$'\t' && echo "$*") >>"$samples"
    else
        say "FAILED: $1: $2: $5"
        missed=$((missed + 1))
    fi
}

# The value of a unit in a report of `farblk bench --json`.
value_of() # UNIT
{
    case $1 in
    us) sed -nE 's/.*"p50": ([0-9.]+).*/\1/p' ;;
    req/s) sed -nE 's/^ *"iops": ([0-9.]+).*/\1/p' ;;
    B/s) sed -nE 's/^ *"bytes_per_second": ([0-9.]+).*/\1/p' ;;
    esac
}

# Run each system's command once a round, each round beginning with another.
# The commands are in the array `commands`, as "SYSTEM=COMMAND".
rounds_of() # SECTION WORK UNIT TARGET OPTION ...
{
    local section=$1 name=$2 unit=$3 target=$4 round i count=${#commands[@]}
    local system
    shift 4
    say "$section: $name"
    for ((round = 0; round < rounds; round++)); do
        for ((i = 0; i < count; i++)); do
            system=${commands[(round + i) % count]}
            # The command is one of ours, and a word's blanks part it.
            # shellcheck disable=SC2086
            sample "$section" "$name" "$unit" "$target" "${system%%=*}" $round \
                "$(${system#*=} "$@" --json | value_of "$unit")"
        done
    done
}

# Remote memory -----------------------------------------------------------

# work | rw | bs | qd | clients | unit | target on unix | target on tcp
shared_rows="\
4k random read, 1 in flight|randread|4k|1|1|us|<= 0.04
4k random read, 32 in flight|randread|4k|32|1|req/s|>= 8
64k random read, 16 in flight|randread|64k|16|1|req/s|>= 3.5
1M random read, 8 in flight|randread|1M|8|1|B/s|>= 3.5
4 clients, 4k random read, 8 in flight each|randread|4k|8|4|req/s|>= 4
4k random write, 1 in flight|randwrite|4k|1|1|us|<= 0.04
4k random write, 32 in flight|randwrite|4k|32|1|req/s|
64k random read after these, 16 in flight|randread|64k|16|1|req/s|
1M random read after these, 8 in flight|randread|1M|8|1|B/s|"

remote_rows="\
4k random read, 1 in flight|randread|4k|1|1|us|<= 1.5|<= 1.9
4k random read, 8 in flight|randread|4k|8|1|req/s||
4k random read, 32 in flight|randread|4k|32|1|req/s|>= 2.0|>= 2.0
4k random read, 128 in flight|randread|4k|128|1|req/s|>= 2.5|>= 2.5
64k random read, 1 in flight|randread|64k|1|1|us||
64k random read, 16 in flight|randread|64k|16|1|req/s|>= 1.0|>= 1.0
1M random read, 1 in flight|randread|1M|1|1|us||
1M random read, 8 in flight|randread|1M|8|1|B/s|>= 1.0|>= 1.0
4 clients, 4k random read, 8 in flight each|randread|4k|8|4|req/s||
16 clients, 4k random read, 8 in flight each|randread|4k|8|16|req/s|>= 1.5|>= 1.5
64k random write, 1 in flight|randwrite|64k|1|1|us||
64k random write, 16 in flight|randwrite|64k|16|1|req/s||
1M random write, 1 in flight|randwrite|1M|1|1|us||
1M random write, 8 in flight|randwrite|1M|8|1|B/s|>= 1.0|>= 1.0
4k random write, 1 in flight|randwrite|4k|1|1|us||
4k random write, 8 in flight|randwrite|4k|8|1|req/s||
4k random write, 32 in flight|randwrite|4k|32|1|req/s|>= 1.5|>= 1.5
4k random write, 128 in flight|randwrite|4k|128|1|req/s||
64k random read after these, 16 in flight|randread|64k|16|1|req/s||"

# The same memory by shared memory, and by unix sockets.
shared()
{
    local section="Shared memory" name rw bs qd clients unit target
    local begun=0 commands uri
    while IFS='|' read -r name rw bs qd clients unit target <&3; do
        wanted "$section" "$name" || continue
        if [ $begun -eq 0 ]; then
            begun=1
            start_farblkd "ram=ramdisk:ram?size=256M"
            uri=$(farblk_uri shm ram)
            fill_farblk "$uri"
            start_nbdkit unix 256M
            fill_nbd "$peer_uri" 256
            commands=("farblk=$build/farblk bench $uri --handles"
                "nbdkit=$bench/nbd_load $peer_uri"
                "farblk, socket=$build/farblk bench $(farblk_uri unix ram) --handles")
        fi
        rounds_of "$section" "$name" "$unit" "$target" --rw "$rw" --bs "$bs" \
            --qd "$qd" --jobs "$clients" --time "$seconds"
    done 3<<<"$shared_rows"
    name="1M random read, 8 in flight"
    if wanted "Shared memory and memcpy" "$name"; then
        [ $begun -eq 1 ] || start_farblkd "ram=ramdisk:ram?size=256M"
        uri=$(farblk_uri shm ram)
        fill_farblk "$uri"
        commands=("farblk=$build/farblk bench $uri --handles"
            "memcpy=$bench/memcpy_load --length 256M")
        rounds_of "Shared memory and memcpy" "$name" B/s ">= 0.7" \
            --rw randread --bs 1M --qd 8 --time "$seconds"
    fi
    stop_all
}

# The same when nobody looks before it sleeps.
shared_asleep()
{
    local section="Shared memory without spinning" commands rw
    wanted "$section" "4k random read write, 1 in flight" || return
    FARBLK_SPIN=0 start_farblkd "ram=ramdisk:ram?size=256M"
    fill_farblk "$(farblk_uri shm ram)"
    start_nbdkit unix 256M
    fill_nbd "$peer_uri" 256
    commands=("farblk=env FARBLK_SPIN=0 $build/farblk bench $(farblk_uri shm ram) --handles"
        "nbdkit=$bench/nbd_load $peer_uri")
    for rw in read write; do
        rounds_of "$section" "4k random $rw, 1 in flight" us "<= 1" \
            --rw "rand$rw" --bs 4k --qd 1 --time "$seconds"
    done
    stop_all
}

remote() # unix|tcp SECTION
{
    local kind=$1 section=$2 name rw bs qd clients unit on_unix on_tcp address
    local image=$work/qemu-$1.img begun=0 commands
    while IFS='|' read -r name rw bs qd clients unit on_unix on_tcp <&3; do
        wanted "$section" "$name" || continue
        if [ $begun -eq 0 ]; then
            begun=1
            start_farblkd "ram=ramdisk:ram?size=256M"
            fill_farblk "$(farblk_uri "$kind" ram)"
            start_nbdkit "$kind" 256M
            fill_nbd "$peer_uri" 256
            commands=("farblk=$build/farblk bench $(farblk_uri "$kind" ram) --handles"
                "nbdkit=$bench/nbd_load $peer_uri")
            truncate -s 256M "$image"
            start_qemu "$kind" "$image"
            fill_nbd "$peer_uri" 256
            commands+=("qemu-nbd=$bench/nbd_load $peer_uri")
            address=ipc://$work/nng.sock
            [ "$kind" = unix ] || address=tcp://127.0.0.1:$(free_port)
            rm -f "$work/nng.out"
            "$bench/nng_load" --serve "$address" >"$work/nng.out" &
            pids+=($!)
            await $! grep -q ready "$work/nng.out"
            commands+=("plain nng=$bench/nng_load $address")
        fi
        [ "$kind" = unix ] || on_unix=$on_tcp
        rounds_of "$section" "$name" "$unit" "$on_unix" --rw "$rw" --bs "$bs" \
            --qd "$qd" --jobs "$clients" --time "$seconds"
    done 3<<<"$remote_rows"
    stop_all
    rm -f "$image"
}

stop_all()
{
    local pid
    for pid in "${pids[@]}"; do
        stop "$pid"
    done
}

# Copies --------------------------------------------------------------------

copy_farblk() { "$build/farblk" copy --create --no-flush "$1" "file:$2"; }
copy_nbd() { nbdcopy "$1" "$2"; }

# Copy an image from servers to a new file, by turns.  The first copy of each is
# compared with the image, and does not count: it meets memory that nobody has
# touched yet, and on a virtual machine that has to come from the host.
copies() # SECTION WORK TARGET IMAGE FARBLK-URI NBD-URI
{
    local round i system uri began ended out=$work/copied
    say "$1: $2"
    for ((round = -1; round < rounds; round++)); do
        for i in 0 1; do
            system=farblk
            uri=$5
            [ $(((round + 2 + i) % 2)) -eq 0 ] || system=nbd uri=$6
            rm -f "$out"
            began=$EPOCHREALTIME
            "copy_$system" "$uri" "$out" >"$work/copy.out" 2>&1
            ended=$EPOCHREALTIME
            if [ $round -lt 0 ]; then
                cmp "$4" "$out" >&2 || die "a copy by $system differs"
                continue
            fi
            sample "$1" "$2" s "$3" "${system/nbd/nbdcopy}" $round "$(awk \
                -v a="$began" -v b="$ended" 'BEGIN { printf "%.6f", b - a }')"
        done
    done
    rm -f "$out"
}

copying()
{
    local section="Copy of 1 GiB, server to file" kind image=$work/image
    local row full="all mapped" target
    local sparse="10 % mapped, in pieces of 64 KiB"
    for row in "$full" "$sparse"; do
        for kind in unix tcp shm; do
            wanted "$section" "$row, $kind" || continue
            rm -f "$image"
            if [ "$row" = "$full" ]; then
                target=">= 1.0"
                "$build/farblk" bench --fill --ops 1 \
                    "file:$image?create=1&size=1G" >/dev/null
            else
                target=">= 1.3"
                "$build/farblk" bench "file:$image?create=1&size=1G" \
                    --rw randwrite --bs 64k --ops 1726 >/dev/null
            fi || die "can not make an image"
            [ "$kind,$row" != "shm,$full" ] || target=">= 1.5"
            start_farblkd "disk=ramdisk:disk?size=1G"
            "$build/farblk" copy --no-progress "file:$image" \
                "$(farblk_uri unix disk)" >&2 || die "can not fill farblkd"
            start_nbdkit ${kind/shm/unix} 1G
            nbdcopy --destination-is-zero "$image" "$peer_uri" ||
                die "can not fill nbdkit"
            copies "$section" "$row, $kind" "$target" "$image" \
                "$(farblk_uri $kind disk)" "$peer_uri"
            stop_all
        done
    done
    rm -f "$image"
}

# Files ---------------------------------------------------------------------

fio_read() # FILE DIRECT
{
    fio --name=read --filename="$1" --rw=randread --bs=4k --iodepth=32 \
        --direct="$2" --invalidate=0 --ioengine=io_uring --norandommap --randrepeat=0 \
        --time_based --runtime="$seconds" --output-format=json 2>/dev/null |
        awk '/"read" :/ { on = 1 }
            on && /"iops" :/ { gsub(/[^0-9.]/, "", $3); print "\"iops\": " $3; exit }'
}

# fio under the options of rounds_of(), which are for this one row anyway.
fio_direct() { fio_read "$disk/file.img" 1; }
fio_cached() { fio_read "$disk/file.img" 0; }

file_work="4k random read, 32 in flight"

file_direct()
{
    local section="File, read directly" commands
    wanted "$section" "$file_work" || return
    if ! "$build/farblk" info "file:$disk/file.img?direct=1&ro=1" >/dev/null \
        2>&1; then
        say "$disk takes no direct reads: no figures for them"
        return
    fi
    start_farblkd "file=file:$disk/file.img?direct=1"
    commands=("farblkd, unix=$build/farblk bench $(farblk_uri unix file)"
        "fio io_uring=fio_direct"
        "farblkd, tcp=$build/farblk bench $(farblk_uri tcp file)"
        "farblkd, shm=$build/farblk bench $(farblk_uri shm file)"
        "farblk local=$build/farblk bench file:$disk/file.img?direct=1&ro=1&lock=0")
    rounds_of "$section" "$file_work" req/s ">= 0.9" --rw randread --bs 4k \
        --qd 32 --time "$seconds"
    stop_all
}

# The file lies in the page cache as a whole.
file_cached()
{
    local section="File, in the page cache" commands
    wanted "$section" "$file_work" || return
    cat "$disk/file.img" >/dev/null
    start_farblkd "file=file:$disk/file.img"
    commands=("farblkd, shm=$build/farblk bench $(farblk_uri shm file)"
        "fio io_uring=fio_cached"
        "farblkd, unix=$build/farblk bench $(farblk_uri unix file)"
        "farblk local=$build/farblk bench file:$disk/file.img?ro=1&lock=0")
    rounds_of "$section" "$file_work" req/s ">= 0.9" --rw randread --bs 4k \
        --qd 32 --time "$seconds"
    stop_all
}

files()
{
    wanted "File, read directly" "$file_work" ||
        wanted "File, in the page cache" "$file_work" || return
    disk=$(mktemp -d "${FARBLK_BENCH_DISK:-/var/tmp}/farblk-bench.XXXXXX") ||
        die "no disk to work on"
    "$build/farblk" bench --fill --ops 1 \
        "file:$disk/file.img?create=1&size=1G" >/dev/null &&
        sync "$disk/file.img" || die "can not fill $disk/file.img"
    file_direct
    file_cached
}

# Local memory --------------------------------------------------------------

local_rows="\
4k random read, 1 in flight|randread|4k|1|us
4k random read, 32 in flight|randread|4k|32|req/s
4k random write, 32 in flight|randwrite|4k|32|req/s
1M random read, 8 in flight|randread|1M|8|B/s"

local_memory()
{
    local section="Local memory" name rw bs qd unit commands
    commands=("ramdisk=$build/farblk bench ramdisk:local?size=256M --fill"
        "memcpy=$bench/memcpy_load --length 256M")
    while IFS='|' read -r name rw bs qd unit <&3; do
        wanted "$section" "$name" || continue
        rounds_of "$section" "$name" "$unit" "" --rw "$rw" --bs "$bs" \
            --qd "$qd" --time "$seconds"
    done 3<<<"$local_rows"
}

# What connections cost -------------------------------------------------------

status_of() # PID FIELD: in KiB
{
    awk -v field="$2:" '$1 == field { print $2 }' "/proc/$1/status"
}

cpu_of() # PID: nanoseconds of its threads
{
    cat "/proc/$1"/task/*/schedstat | awk '{ sum += $1 } END { print sum }'
}

connections()
{
    local section="Connections" empty idle pause=10 server clients before
    wanted "$section" "idle, busy" || return
    [ "$seconds" = 1 ] || pause=3
    say "$section"
    start_farblkd "ram=ramdisk:ram?size=256M"
    empty=$(status_of "$farblkd" VmRSS)
    rm -f "$work/hold" && mkfifo "$work/hold" || exit 1
    "$bench/idle_clients" 100 "$(farblk_uri unix ram)" <"$work/hold" \
        >"$work/idle.out" &
    idle=$!
    pids+=($idle)
    exec 8>"$work/hold"
    await $idle grep -q ready "$work/idle.out"
    sleep 1
    server=$(cpu_of "$farblkd")
    clients=$(cpu_of $idle)
    sleep $pause
    server=$((($(cpu_of "$farblkd") - server) / pause))
    clients=$((($(cpu_of $idle) - clients) / pause))
    {
        echo "| what | figure | target |"
        echo "|---|---:|---|"
        echo "| server at start, resident | $((empty / 1024)) MiB | |"
        echo "| server with 100 idle connections, resident | $(($(status_of \
            "$farblkd" VmRSS) / 1024)) MiB | < 100 MiB |"
        awk -v a=$server -v b=$clients 'BEGIN {
            printf "| its CPU | %.4f %% | < 0.1 %% |\n", a / 1e7
            printf "| CPU of the 100 idle clients, one process | %.4f %% | < 0.1 %% |\n", b / 1e7
        }'
        exec 8>&-
        wait $idle
        fill_farblk "$(farblk_uri unix ram)"
        before=$(status_of "$farblkd" VmRSS)
        "$build/farblk" bench "$(farblk_uri unix ram)" --rw randwrite --bs 1M \
            --qd 8 --jobs 16 --handles --time "$seconds" >/dev/null
        echo "| server filled with 256 MiB, resident | $((before / 1024)) MiB | |"
        echo "| its peak with 16 clients that write, 8 of 1M in flight each | $(($(status_of \
            "$farblkd" VmHWM) / 1024)) MiB | |"
    } >"$work/connections"
    stop_all
}

# The report ------------------------------------------------------------------

version() { "$@" 2>/dev/null | head -n 1; }

preface()
{
    echo "- $(sed -nE 's/^model name\s*: //p' /proc/cpuinfo | sort | uniq -c |
        awk '{ n = $1; $1 = ""; print n " x" $0 }'), $(awk \
        '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r); load average before the run $(cut -d' ' -f1 <<<"$load_before")"
    echo "- $(version "$build/farblk" --version) ($(version git -C "$source_dir" describe --always --dirty)), Release, $(version cc --version); nng $(version dpkg-query -W -f '${Version}' libnng1)"
    echo "- libnbd $(pkg-config --modversion libnbd), $(version nbdkit --version), $(version qemu-nbd --version), $(version fio --version)"
    echo "- \`$command_line\`: $rounds rounds of $seconds s, $(date -u +%Y-%m-%d)"
    [ $missed -eq 0 ] || echo "- **$missed measurements failed**"
    echo
}

load_before=$(cat /proc/loadavg)
shared
shared_asleep
remote unix "Unix socket"
remote tcp "TCP on loopback"
copying
files
local_memory
connections
{
    preface
    awk -v ratios="$work/ratios" -f "$source_dir/bench/tables.awk" "$samples"
    if [ -s "$work/connections" ]; then
        printf '\n### Connections\n\n'
        cat "$work/connections"
    fi
} >"$work/tables"
cat "$work/tables"
cp "$samples" "$build/bench/samples.tsv"
if [ $write -eq 1 ]; then
    replace_part "$source_dir/docs/benchmarks.md" results "$work/tables"
    awk -f "$source_dir/bench/plot.awk" "$work/ratios" \
        >"$source_dir/docs/benchmarks.svg"
fi
[ $missed -eq 0 ]
