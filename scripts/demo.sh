#!/bin/bash
# SPDX-License-Identifier: ISC
# farblk at work, on a real file system:
#
#   scripts/demo.sh [--size SIZE] [--keep]
#
# Makes an ext4 image of SIZE (1G; or $FARBLK_DEMO_SIZE) out of /usr/share/doc,
# copies it over the wire into a file and into memory behind a farblkd, reads it
# back, and proves both equal and clean.  Installs what is missing, builds in
# build-demo (or $FARBLK_BUILD_ROOT/build-demo), works in a temporary directory
# of its own.  --keep leaves that directory where it is.
set -euo pipefail
export LC_ALL=C
source=$(cd "$(dirname "$0")/.." && pwd)
build=${FARBLK_BUILD_ROOT:-$source}/build-demo
size=${FARBLK_DEMO_SIZE:-1G}
keep=0
while [ $# -gt 0 ]; do
    case $1 in
    --size=*) size=${1#*=} ;;
    --size)
        size=${2:?--size wants a size}
        shift
        ;;
    --keep) keep=1 ;;
    -h | --help)
        sed -n '3,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
        exit 0
        ;;
    *)
        echo "demo.sh: unknown option $1" >&2
        exit 2
        ;;
    esac
    shift
done
PATH=$PATH:/usr/sbin:/sbin # mke2fs, e2fsck
octets=$(numfmt --from=iec "$size")
if [ $((octets % 1048576)) -ne 0 ] || [ "$octets" -lt $((16 << 20)) ]; then
    echo "demo.sh: the size has to be whole MiB, 16M at least" >&2
    exit 2
fi

bold='' plain=''
if [ -t 1 ]; then
    bold=$'\e[1m' plain=$'\e[0m'
fi
step() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
shown() { sed "s|$work|.|g"; } # paths in the temporary directory, shorter
run()                         # print the command, then run it
{
    printf '$ %s\n' "$(shown <<<"$*")"
    "$@"
}

server='' work=''
clean_up()
{
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" || true
    fi
    if [ -n "$work" ] && [ $keep -eq 0 ]; then
        rm -rf "$work"
    fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step "Install what is missing, build"
"$source/scripts/setup.sh" build demo
cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DFARBLK_TESTS=OFF -DFARBLK_SANITIZE= >/dev/null
ninja -C "$build" --quiet
work=$(mktemp -d "${TMPDIR:-/tmp}/farblk-demo.XXXXXX")
cmake --install "$build" --prefix "$work/usr" >/dev/null
PATH=$work/usr/bin:$PATH
export PKG_CONFIG_PATH
PKG_CONFIG_PATH=$(dirname "$(find "$work/usr" -name farblk.pc)")
echo "$(farblk --version), in $build"

step "An ext4 image of $size with files of /usr/share/doc"
mkdir "$work/files"
# As many as fill at most half of it.
(cd /usr/share/doc && find . -type f -readable -printf '%s %p\n' | sort -k 2 |
    awk -v room=$((octets / 2)) '{
        room -= int($1 / 4096) * 4096 + 8192
        if (room >= 0)
            print substr($0, index($0, " ") + 1)
    }' | tar -cf - --no-recursion --files-from=-) | tar -xf - -C "$work/files"
mke2fs -q -F -t ext4 -i 4096 -L farblk -d "$work/files" "$work/source.img" \
    $((octets / 1024))
echo "$(find "$work/files" -type f | wc -l) files;" \
    "$(du -k "$work/source.img" | cut -f 1) KiB of $((octets / 1024)) in use"

step "A server with a file, and memory, behind a unix socket"
mkfifo "$work/said"
serve=(farblkd --log-level warning --listen "ipc://$work/socket"
       --export "disk=file:$work/disk.img?create=1&size=$octets"
       --export "memory=ramdisk:memory?size=$octets"
       --export "first=ramdisk:first?size=1M")
printf '$ %s &\n' "$(shown <<<"${serve[*]}")"
"${serve[@]}" >"$work/said" &
server=$!
exec 3<"$work/said"
ready=0
while [ $ready -eq 0 ] && read -r line <&3; do
    shown <<<"$line"
    if [ "$line" = "farblkd: ready" ]; then
        ready=1
    fi
done
if [ $ready -eq 0 ]; then
    echo "demo.sh: the server did not start" >&2
    exit 1
fi
remote() { echo "farblk+unix:///$1?socket=$work/socket"; }
run farblk list "$(remote '')"

for name in disk memory; do
    step "Copy the image into $name, over the wire"
    run farblk copy "file:$work/source.img?ro=1" "$(remote $name)"
    run farblk flush "$(remote $name)"
    run farblk info "$(remote $name)"
    if [ -t 1 ]; then # with a picture
        run farblk map "$(remote $name)"
    else
        run farblk map "$(remote $name)" >"$work/map"
        lines=$(wc -l <"$work/map")
        head -n 18 "$work/map"
        if [ "$lines" -gt 20 ]; then
            echo "... ($((lines - 19)) lines)"
        fi
        tail -n +19 "$work/map" | tail -n $((lines > 20 ? 1 : 2))
    fi

    step "Read $name back: equal byte for byte, and a clean file system?"
    run farblk copy "$(remote $name)" \
        "file:$work/$name.back?create=1&size=$octets"
    run cmp "$work/source.img" "$work/$name.back"
    echo "equal"
    run e2fsck -fn "$work/$name.back"
    rm "$work/$name.back"
done

step "The first C program, built as any other against the installed library"
read -r -a flags < <(pkg-config --cflags --libs farblk)
run cc -o "$work/first" "$source/examples/first.c" "${flags[@]}" \
    "-Wl,-rpath,$(pkg-config --variable=libdir farblk)"
run "$work/first" "$(remote first)"

step "Stop the server"
echo "\$ kill -TERM $server"
kill -TERM "$server"
status=0
wait "$server" || status=$?
server=''
cat <&3 # what it said last
echo "farblkd's exit status: $status"
[ $status -eq 0 ]
cmp "$work/source.img" "$work/disk.img"
echo "its file, without the server: equal"
if [ $keep -eq 1 ]; then
    echo "left in $work"
fi
step "All is well"
