#!/bin/bash
# SPDX-License-Identifier: ISC
# What `cmake --install` leaves is complete: a program outside the tree builds
# against it in every way that is offered, and runs; the library exports its
# list and nothing else; programs, man pages and headers are where they belong.
set -eu -o pipefail
build=${FARBLK_BUILD:?}
source=${FARBLK_SOURCE:?}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cached() { sed -n "s/^$1:[^=]*=//p" "$build/CMakeCache.txt"; }
cc=$(cached CMAKE_C_COMPILER)
sanitize=$(cached FARBLK_SANITIZE)
flags=(-std=c11 -Wall -Wextra -Werror)
if [ -n "$sanitize" ]; then
    flags+=("-fsanitize=$sanitize")
fi
fail() { echo "check_install: $*"; exit 1; }

# Into a prefix of its own, and moved: nothing may depend on where it was.
cmake --install "$build" --prefix "$work/made" >"$work/log" || {
    cat "$work/log"
    fail "cmake --install failed"
}
mv "$work/made" "$work/usr"
prefix=$work/usr
library=$(find "$prefix" -name 'libfarblk.so')
[ -n "$library" ] || fail "no libfarblk.so"
libdir=$(dirname "$library")
version=$(sed -n 's/^Version: //p' "$libdir/pkgconfig/farblk.pc")
for file in bin/farblk bin/farblkd include/farblk/farblk.h \
    include/farblk/server.h include/farblk/tar.h share/man/man1/farblk.1 share/man/man3/farblk.3 \
    share/man/man8/farblkd.8 share/doc/farblk/examples/first.c; do
    [ -e "$prefix/$file" ] || fail "$file is not there"
done
for file in libfarblk.a "libfarblk.so.$version" "libfarblk.so.${version%%.*}" \
    cmake/farblk/farblkConfig.cmake; do
    [ -e "$libdir/$file" ] || fail "$file is not in $libdir"
done

# With a DESTDIR everything lands below it.
DESTDIR=$work/root cmake --install "$build" >/dev/null
[ -e "$work/root$(cached CMAKE_INSTALL_PREFIX)/bin/farblk" ] ||
    fail "DESTDIR is not honoured"

# The programs run from there, without help, and know their version.
for program in farblk farblkd; do
    said=$("$prefix/bin/$program" --version) || fail "$program does not run"
    [[ $said == *"$version"* ]] || fail "$program --version says '$said'"
    "$prefix/bin/$program" --help >/dev/null || fail "$program --help failed"
done

# The nbdkit plugin, where it was built, loads from there and knows its version.
if [ -e "$build/nbdkit-farblk-plugin.so" ]; then
    plugin=$(find "$prefix" -name nbdkit-farblk-plugin.so)
    [ -n "$plugin" ] || fail "no nbdkit-farblk-plugin.so"
    [ -e "$prefix/share/man/man1/nbdkit-farblk-plugin.1" ] ||
        fail "the nbdkit plugin has no man page"
    if [ -z "$sanitize" ] && command -v nbdkit >/dev/null; then
        nbdkit "$plugin" --dump-plugin >"$work/out" || fail "nbdkit: $plugin"
        grep -qx "farblk_version=$version" "$work/out" ||
            fail "the nbdkit plugin is not of $version: $(cat "$work/out")"
    fi
fi

# Exports: the list, with its version, and nothing else.
nm -D --defined-only "$library" | awk '$2 != "A" { print $3 }' |
    sed 's/@.*//' | sort -u >"$work/exported"
sed -n '/global:/,/local:/p' "$source/cmake/farblk.map" |
    grep -oE 'farblk_[a-z0-9_]+' | sort -u >"$work/listed"
diff "$work/listed" "$work/exported" ||
    fail "exports (>) differ from cmake/farblk.map (<)"
if nm -D --undefined-only "$library" | grep -q ' farblk_'; then
    fail "the library misses functions of its own"
fi

try() # NAME PROGRAM: it works on a device
{
    LD_LIBRARY_PATH=$libdir "$2" ramdisk:check >"$work/out" 2>&1 || {
        cat "$work/out"
        fail "examples/first.c, $1, failed"
    }
    grep -q 'compared' "$work/out" || fail "first, $1: $(cat "$work/out")"
    if LD_LIBRARY_PATH=$libdir "$2" nonsense:x >"$work/out" 2>&1; then
        fail "first, $1: opened nonsense:x"
    fi
    grep -q ramdisk "$work/out" ||
        fail "first, $1: an unknown scheme does not list the known ones"
}

mkdir "$work/outside"
cd "$work/outside"
cp "$source"/examples/*.c .
export PKG_CONFIG_PATH=$libdir/pkgconfig
if command -v pkg-config >/dev/null; then
    read -r -a with < <(pkg-config --cflags --libs farblk)
    "$cc" "${flags[@]}" -o shared first.c "${with[@]}"
    try "by pkg-config, shared" ./shared
    "$cc" "${flags[@]}" -o queue queue.c "${with[@]}"
    LD_LIBRARY_PATH=$libdir ./queue 'ramdisk:check?size=4M' >/dev/null ||
        fail "examples/queue.c failed"
    # The commands of docs/tar.md.
    "$cc" "${flags[@]}" -o archive archive.c "${with[@]}"
    truncate -s 1M disk.img
    LD_LIBRARY_PATH=$libdir ./archive file:disk.img /notes/first \
        'hello, archive' >/dev/null || fail "examples/archive.c failed"
    LD_LIBRARY_PATH=$libdir ./archive file:disk.img /notes/second \
        'hello again' >"$work/out" || fail "examples/archive.c failed"
    grep -q ' 14 /notes/first$' "$work/out" ||
        fail "examples/archive.c: $(cat "$work/out")"
    if tar --version >/dev/null 2>&1; then
        [ "$(tar -tf disk.img | tr '\n' ' ')" = "notes/first notes/second " ] ||
            fail "tar does not read what examples/archive.c wrote"
    fi
    read -r -a with < <(pkg-config --static --cflags --libs farblk)
    "$cc" "${flags[@]}" -o static first.c \
        "${with[@]/#-lfarblk/-l:libfarblk.a}"
    try "by pkg-config, static" ./static
    if ldd ./static | grep -q libfarblk; then
        fail "the static program wants libfarblk.so"
    fi
fi

cat >CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.25)
project(outside LANGUAGES C)
find_package(farblk 0.1 REQUIRED)
add_executable(by_cmake first.c)
target_link_libraries(by_cmake PRIVATE farblk::farblk)
add_executable(by_cmake_static first.c)
target_link_libraries(by_cmake_static PRIVATE farblk::static)
END
{
    cmake -S . -B b -G Ninja -DCMAKE_C_COMPILER="$cc" \
        -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_FLAGS="${flags[*]}"
    cmake --build b
} >"$work/log" 2>&1 || {
    cat "$work/log"
    fail "find_package(farblk) does not serve"
}
try "by find_package" b/by_cmake
try "by find_package, static" b/by_cmake_static
