#!/bin/bash
# SPDX-License-Identifier: ISC
# Short tests under valgrind's memcheck, which sees what AddressSanitizer does
# not: memory that is used before anything was written to it.
#
#   scripts/valgrind.sh [TEST ...]      names as in ctest; default: a choice
#
# The build has no io_uring: memcheck (3.19) lets one thread run at a time, and
# takes io_uring_enter for a call that does not wait, so that a ring's thread which
# waits for work stops all others for ever.  The file driver's other engine is
# what is looked at.
#
# Builds in build-valgrind in the checkout, or in $FARBLK_BUILD_ROOT.  Exit
# status 0: no errors, nothing definitely lost.
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
build=${FARBLK_BUILD_ROOT:-$source}/build-valgrind
tests=("$@")
if [ ${#tests[@]} -eq 0 ]; then
    tests=(codec codec_hostile wire_vectors sp ramdisk server server_methods
        client client_hostile no_memory fuzz_server fuzz_client fuzz_config)
fi
cmake -S "$source" -B "$build" -G Ninja -DCMAKE_C_COMPILER=gcc \
    -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS=-O1 \
    -DFARBLK_URING=OFF >"$build.log" 2>&1 || {
    cat "$build.log"
    exit 1
}
ninja -C "$build" --quiet "${tests[@]/#/test_}"

failed=()
for test in "${tests[@]}"; do
    arguments=()
    case $test in
    fuzz_*) arguments=("$source/tests/corpus/${test#fuzz_}") ;;
    esac
    start=$SECONDS
    FARBLK_BUILD=$build FARBLK_SOURCE=$source \
        timeout 300 valgrind --quiet --error-exitcode=99 --leak-check=full \
        --show-leak-kinds=definite \
        --errors-for-leak-kinds=definite --fair-sched=yes \
        "$build/tests/test_$test" ${arguments[@]+"${arguments[@]}"} \
        >"$build/$test.out" 2>&1 || failed+=("$test")
    echo "valgrind.sh: $test: $((SECONDS - start)) s"
done
for test in ${failed[@]+"${failed[@]}"}; do
    echo "== $test"
    tail -n 80 "$build/$test.out"
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "valgrind.sh: failed: ${failed[*]}" >&2
    exit 1
fi
