#!/bin/bash
# SPDX-License-Identifier: ISC
# The model of the ring is checked exhaustively by spin, and spin finds each of
# the faults that can be put into it.
set -u
cd "${FARBLK_SOURCE:-$(dirname "$0")/..}" || exit 1
command -v spin >/dev/null || { echo "no spin"; exit 77; }
model=$PWD/tests/ring.pml
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

check() # ARGS...: spin's verdict in ./out
{
    rm -f pan*
    spin -a "$@" "$model" >gen 2>&1 || { cat gen; exit 1; }
    ${CC:-cc} -O1 -DSAFETY -o pan pan.c 2>gen || { cat gen; exit 1; }
    ./pan -m100000 >out 2>&1
    grep -q "errors: 0" out && ! grep -q "max search depth too small" out
}

for shape in "1 2 6" "2 2 5" "2 1 4" "3 1 3"; do
    read -r publishers depth entries <<<"$shape"
    if ! check -DPUBLISHERS=$publishers -DDEPTH=$depth -DENTRIES=$entries; then
        echo "$publishers publishers, $depth places:"
        cat out
        exit 1
    fi
    grep -E "states, stored" out | head -n 1
done
for fault in FAULT_NO_RECHECK FAULT_LOOK_FIRST FAULT_NO_LIMIT; do
    if check -D$fault; then
        echo "spin has not found $fault"
        exit 1
    fi
    grep -m 1 -E "invalid end state|assertion violated" out || { cat out; exit 1; }
done
