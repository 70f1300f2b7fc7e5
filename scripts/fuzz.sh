#!/bin/bash
# SPDX-License-Identifier: ISC
# Fuzz with libFuzzer, each target for some time:
#
#   scripts/fuzz.sh SECONDS [server | client | shm | shm_client | config | tar] ...
#
# (default: all of them).  Finds go to FUZZ_FOUND (default: found/ in the build
# directory), and are printed; the corpus grows in FUZZ_CORPUS (default: corpus/
# there), which may be kept from run to run.  FUZZ_SANITIZE: with which
# sanitizers (default: address,undefined; none is several times faster).
# Builds in build-fuzz in the checkout, or in $FARBLK_BUILD_ROOT.
# Exit status 0: nothing was found.
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
build=${FARBLK_BUILD_ROOT:-$source}/build-fuzz
seconds=${1:-}
case $seconds in
'' | *[!0-9]*)
    sed -n '3,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
shift
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    targets=(server client shm shm_client config tar)
fi
sanitize=${FUZZ_SANITIZE-address,undefined}
if [ "$sanitize" = none ]; then
    sanitize=
fi

cmake -S "$source" -B "$build" -G Ninja -DCMAKE_C_COMPILER=clang \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo -DFARBLK_FUZZERS=ON \
    -DFARBLK_SANITIZE="${sanitize:+$sanitize,}fuzzer-no-link" >"$build.log" 2>&1 || {
    cat "$build.log"
    exit 1
}
ninja -C "$build" --quiet "${targets[@]/#/fuzz_}"

found=${FUZZ_FOUND:-$build/found}
export ASAN_OPTIONS="detect_stack_use_after_return=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
export LSAN_OPTIONS="print_suppressions=0:suppressions=$source/tests/lsan.supp"
export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1"
failed=()
for target in "${targets[@]}"; do
    corpus=${FUZZ_CORPUS:-$build/corpus}/$target
    mkdir -p "$corpus" "$found"
    seeds=()
    if [ -d "$source/tests/corpus/$target" ]; then
        seeds=("$source/tests/corpus/$target")
    fi
    log=$found/$target.log
    if "$build/tests/fuzz_$target" -max_total_time="$seconds" -timeout=60 \
        -rss_limit_mb=2048 -print_final_stats=1 -verbosity=1 \
        -artifact_prefix="$found/$target-" "$corpus" \
        ${seeds[@]+"${seeds[@]}"} >"$log" 2>&1
    then
        printf '%s: nothing found in %s inputs\n' "$target" \
            "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    else
        failed+=("$target")
        tail -n 60 "$log"
        # The input itself, for where only this output is kept.
        input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
        if [ -n "$input" ] && [ -s "$input" ]; then
            echo "== $input"
            base64 "$input"
        fi
    fi
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "fuzz.sh: found something in: ${failed[*]}" >&2
    exit 1
fi
