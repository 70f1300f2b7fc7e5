#!/bin/bash
# SPDX-License-Identifier: ISC
# Crash and stress farblk for long:
#
#   scripts/soak.sh [ROUNDS [SEED]]
#
# ROUNDS (5000) of the crash test, a hundred at a time with seeds from SEED (the
# time of now) on, and after each hundred the sectors' histories for some seconds.
# See docs/testing.md.  Builds in build-soak of the checkout, or in
# $FARBLK_BUILD_ROOT; FARBLK_SANITIZE=address,undefined or thread builds with
# that.  Ends at the first failure, with what tells how to have it again.
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
build=${FARBLK_BUILD_ROOT:-$source}/build-soak
chunk=100

case ${1-} in
-h | --help)
    sed -n '3,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
    exit 0
    ;;
esac
rounds=${1:-5000}
seed=${2:-$(date +%s)}
for number in "$rounds" "$seed"; do
    case $number in
    '' | *[!0-9]*)
        echo "soak.sh: \"$number\" is not a number" >&2
        exit 2
        ;;
    esac
done

"$source/scripts/setup.sh" test
cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DFARBLK_SANITIZE="${FARBLK_SANITIZE-}" >/dev/null
around=()
if [[ ${FARBLK_SANITIZE-} == *thread* ]] && setarch -R true 2>/dev/null; then
    around=(setarch -R)
fi
"${around[@]}" ninja -C "$build" --quiet test_crash test_consistency
export FARBLK_BUILD=$build
log=$build/soak.log

run() # PROGRAM ARGUMENT ...
{
    local status=0
    "${around[@]}" "$build/tests/$1" "${@:2}" >"$log" 2>&1 || status=$?
    grep ' rounds: \|seed [0-9]*: ' "$log" || true
    if [ $status -ne 0 ]; then
        cat "$log"
        echo "soak.sh: $* ended with $status"
        exit 1
    fi
}

for ((done = 0; done < rounds; done += chunk)); do
    left=$((rounds - done))
    run test_crash $((left < chunk ? left : chunk)) "$seed"
    FARBLK_CONSISTENCY_SEED=$seed run test_consistency 2
    # Each setup of a run has a seed of its own.
    seed=$((seed + chunk))
    echo "soak.sh: $((done + (left < chunk ? left : chunk))) of $rounds rounds"
done
