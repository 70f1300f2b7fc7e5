# SPDX-License-Identifier: ISC
# What the measuring scripts share; they source it.  Servers work in a folder of
# their own and are ended by their process ids, whatever happens.
set -u
export LC_ALL=C
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${FARBLK_BUILD:-$source_dir/build-bench}
work=
disk=
pids=()
under=() # a command that runs servers, such as valgrind

say() { echo "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 1; }

functions_end()
{
    local status=$? pid
    for pid in "${pids[@]}"; do
        kill -TERM "$pid" 2>/dev/null
    done
    for pid in "${pids[@]}"; do
        wait "$pid" 2>/dev/null
    done
    [ -z "$work" ] || rm -rf "$work"
    [ -z "$disk" ] || rm -rf "$disk"
    exit $status
}
trap functions_end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# End one that was started, and wait for it.
stop() # PID
{
    local pid kept=()
    kill -TERM "$1" 2>/dev/null
    wait "$1" 2>/dev/null
    for pid in "${pids[@]}"; do
        [ "$pid" = "$1" ] || kept+=("$pid")
    done
    pids=("${kept[@]}")
}

# Wait until a command works; its process must live on.
await() # PID COMMAND ...
{
    local tries=0 pid=$1
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 1200 ] || die "gave up waiting for: $*"
        kill -0 "$pid" 2>/dev/null || die "ended early; waiting for: $*"
        sleep 0.05
    done
}

# A folder in memory, where sockets and images are.
make_work()
{
    work=$(mktemp -d "${FARBLK_BENCH_DIR:-/dev/shm}/farblk-bench.XXXXXX") ||
        exit 1
}

# Install what is missing, by Debian's packages.
need() # COMMAND PACKAGE ...
{
    local missing=() root=()
    while [ $# -gt 0 ]; do
        command -v "$1" >/dev/null || missing+=("$2")
        shift 2
    done
    pkg-config --exists libnbd 2>/dev/null || missing+=(libnbd-dev pkg-config)
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    [ "$(id -u)" -eq 0 ] || root=(sudo)
    "${root[@]}" apt-get update -qq >&2 &&
        "${root[@]}" apt-get install -y -qq "${missing[@]}" >&2 ||
        die "can not install ${missing[*]}"
}

# Build what is measured, unless FARBLK_BUILD names a build.
make_build()
{
    if [ -z "${FARBLK_BUILD:-}" ]; then
        cmake -S "$source_dir" -B "$build" -DCMAKE_BUILD_TYPE=Release \
            -DFARBLK_TESTS=OFF >&2 &&
            cmake --build "$build" -j "$(nproc)" >&2 || die "the build failed"
    fi
    [ -x "$build/bench/nbd_load" ] || die "no $build/bench/nbd_load"
}

# A port that nobody listens on now; the peers can not choose one themselves.
free_port()
{
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo $port
}

# farblkd with these exports, on a unix socket and on TCP.  Sets farblkd (its
# process id) and farblkd_port.
start_farblkd() # NAME=URI ...
{
    local export exports=()
    for export; do
        exports+=(--export "$export")
    done
    # Written anew by a process that may not have begun when we look.
    rm -f "$work/farblkd.out"
    "${under[@]}" "$build/farblkd" --listen "ipc://$work/farblkd.sock" \
        --listen tcp://127.0.0.1:0 --max-connections 1024 "${exports[@]}" \
        >"$work/farblkd.out" 2>"$work/farblkd.err" &
    farblkd=$!
    pids+=($farblkd)
    await $farblkd grep -q "farblkd: ready" "$work/farblkd.out"
    farblkd_port=$(sed -nE 's,.*on tcp://.*:([0-9]+)$,\1,p' \
        "$work/farblkd.out")
}

# The URI of one of its exports.
farblk_uri() # unix|shm|tcp NAME: unix is the socket alone
{
    if [ "$1" = unix ]; then
        echo "farblk+unix:///$2?socket=$work/farblkd.sock&shm=off"
    elif [ "$1" = shm ]; then
        echo "farblk+unix:///$2?socket=$work/farblkd.sock&shm=require"
    else
        echo "farblk://127.0.0.1:$farblkd_port/$2"
    fi
}

# Where a peer shall listen: sets peer_socket or peer_port, and peer_uri.
peer_address() # unix|tcp NAME
{
    if [ "$1" = unix ]; then
        peer_socket=$work/$2.sock
        peer_uri="nbd+unix:///?socket=$peer_socket"
        rm -f "$peer_socket"
    else
        peer_port=$(free_port)
        peer_uri="nbd://127.0.0.1:$peer_port"
    fi
}

# nbdkit with an empty memory.  Sets nbdkit (process id) and peer_uri.
start_nbdkit() # unix|tcp SIZE
{
    local where
    peer_address "$1" "nbdkit-$1"
    if [ "$1" = unix ]; then
        where=(-U "$peer_socket")
    else
        where=(-i 127.0.0.1 -p "$peer_port")
    fi
    "${under[@]}" nbdkit -f "${where[@]}" memory "$2" \
        >"$work/nbdkit-$1.log" 2>&1 &
    nbdkit=$!
    pids+=($nbdkit)
    await $nbdkit "$build/bench/nbd_load" "$peer_uri" --ops 1
}

# qemu-nbd with a raw file.  Sets peer_uri.
start_qemu() # unix|tcp FILE
{
    local where
    peer_address "$1" "qemu-$1"
    if [ "$1" = unix ]; then
        where=(-k "$peer_socket")
    else
        where=(-b 127.0.0.1 -p "$peer_port")
    fi
    qemu-nbd -t -e 64 -f raw "${where[@]}" "$2" >"$work/qemu-$1.log" 2>&1 &
    pids+=($!)
    await $! "$build/bench/nbd_load" "$peer_uri" --ops 1
}

fill_farblk() # URI
{
    "$build/farblk" bench --fill --ops 1 "$1" >/dev/null ||
        die "can not fill $1"
}

fill_nbd() # URI MEBIBYTES
{
    "$build/bench/nbd_load" "$1" --rw write --bs 1M --qd 4 --ops "$2" \
        >/dev/null || die "can not fill $1"
}

# Replace what stands between "<!-- begin NAME -->" and "<!-- end NAME -->".
replace_part() # FILE NAME TEXT-FILE
{
    grep -qxF "<!-- begin $2 -->" "$1" || die "$1 has no part $2"
    awk -v name="$2" -v text="$3" '
        $0 == "<!-- end " name " -->" { on = 0 }
        !on { print }
        $0 == "<!-- begin " name " -->" {
            on = 1
            while ((getline line < text) > 0) print line
        }' "$1" >"$work/part" && cat "$work/part" >"$1"
}
