#!/bin/bash
# SPDX-License-Identifier: ISC
# Build farblk and run all its tests:
#
#   scripts/test.sh [--plain-only] [CONFIGURATION ...]
#
# Configurations: plain (gcc, warnings are errors), asan (AddressSanitizer and
# UndefinedBehaviorSanitizer), tsan (ThreadSanitizer); all three by default.
# Installs what is missing (scripts/setup.sh).  Builds go to build-test-NAME in
# the checkout, or in $FARBLK_BUILD_ROOT.  Where one or two tests failed they are
# run once more, alone.  At the end it says which tests failed, how long each
# configuration took and its slowest tests; everything that was printed by the
# tests stays in build-test-NAME.tests.log, beside the build.  Exit status 0: all
# passed.
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
root=${FARBLK_BUILD_ROOT:-$source}
jobs=${FARBLK_JOBS:-$(nproc)}
tests=${FARBLK_TEST_JOBS:-$((2 * jobs))} # at once: they wait more than they work

configurations=()
for word; do
    case $word in
    --plain-only) configurations+=(plain) ;;
    plain | asan | tsan) configurations+=("$word") ;;
    -h | --help)
        sed -n '3,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
        exit 0
        ;;
    *)
        echo "test.sh: unknown configuration $word (plain, asan, tsan)" >&2
        exit 2
        ;;
    esac
done
if [ ${#configurations[@]} -eq 0 ]; then
    configurations=(plain asan tsan)
fi

"$source/scripts/setup.sh" test
mkdir -p "$root"

suppressions() # FILE: an option of a sanitizer, if the file is there
{
    if [ -e "$source/tests/$1" ]; then
        printf ':suppressions=%s' "$source/tests/$1"
    fi
}
export ASAN_OPTIONS="detect_stack_use_after_return=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
LSAN_OPTIONS="print_suppressions=0$(suppressions lsan.supp)"
UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1"
TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1$(suppressions tsan.supp)"
export LSAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS

# ctest's table, the slowest first: "SECONDS NAME" of each.
timings() # LOG
{
    sed -nE 's|^ *[0-9]+/[0-9]+ Test +#[0-9]+: ([^ ]+) .* ([0-9.]+) sec.*|\2 \1|p' \
        "$1" | sort -rn
}

# Lines of ctest's lists at the end, of tests that failed or were skipped.
listed() # LOG NAME
{
    while read -r line; do
        summary+=("$2:   $line")
    done < <(sed -n '/^The following tests .*:$/,${/^[[:space:]]*[0-9]* - /p}' \
        "$1")
}

# Of run_one(): what failed beside all the others is run once more, by itself.
# One or two that pass then have not failed, and are named loudly: a test that
# depends on what else runs is a fault too, but not of what is tested.  What a
# sanitizer has seen once is there, and is not tried again.  The first output stays
# in the log.
try_again()
{
    verdict=FAILED
    local count unsteady
    count=$(sed -n 's/.* tests passed, \([0-9]*\) tests* failed.*/\1/p' "$log")
    [ "${count:-99}" -le 2 ] || return 0
    ! grep -qE '(Address|Leak|Thread|UndefinedBehavior)Sanitizer|runtime error:' \
        "$log" || return 0
    unsteady=$(sed -nE '/\(Skipped\)/d
        s/^[[:space:]]*[0-9]+ - ([^ ]+) \(.*\).*/\1/p' "$log" | tr '\n' ' ')
    echo "== once more, alone: $unsteady=="
    if "${around[@]}" ctest --test-dir "$build" --rerun-failed \
        --output-on-failure --no-tests=error 2>&1 | tee "$log.again"; then
        verdict="passed, UNSTEADY: $unsteady"
    fi
}

# One configuration: build, then every test.  Status 0: all passed; otherwise
# summary[] says what did not.
run_one() # NAME
{
    local build=$root/build-test-$1 sanitize='' around=() start=$SECONDS
    local log=$build.tests.log built
    case $1 in
    asan) sanitize=address,undefined ;;
    tsan)
        sanitize=thread
        # ThreadSanitizer of gcc 12 does not know the wide randomisation of
        # addresses that newer kernels do.
        if setarch -R true 2>/dev/null; then
            around=(setarch -R)
        fi
        ;;
    esac
    cmake -S "$source" -B "$build" -G Ninja -DCMAKE_C_COMPILER=gcc \
        -DCMAKE_BUILD_TYPE=RelWithDebInfo -DFARBLK_WERROR=ON \
        -DFARBLK_SANITIZE="$sanitize" >"$build.configure.log" 2>&1 || {
        cat "$build.configure.log"
        summary+=("$1: not configured, see $build.configure.log")
        return 1
    }
    "${around[@]}" ninja -C "$build" -j "$jobs" --quiet || {
        summary+=("$1: not built")
        return 1
    }
    built=$((SECONDS - start))
    local verdict=passed
    "${around[@]}" ctest --test-dir "$build" -j "$tests" \
        --output-on-failure 2>&1 | tee "$log" || try_again
    if [ "$verdict" != FAILED ]; then
        summary+=("$1: $verdict; built in $built s, tested in $((
            SECONDS - start - built)) s; slowest: $(
            timings "$log" | head -n 5 | awk '{ printf "%s %s s, ", $2, $1 }' |
                sed 's/, $//')")
        listed "$log" "$1"
        return 0
    fi
    summary+=("$1: FAILED; built in $built s, tested in $((
        SECONDS - start - built)) s; log: $log")
    listed "$log" "$1"
    return 1
}

failed=() summary=()
for name in "${configurations[@]}"; do
    echo "== $name =="
    run_one "$name" || failed+=("$name")
done
echo "== $SECONDS s =="
printf '%s\n' "${summary[@]}"
if [ ${#failed[@]} -gt 0 ]; then
    echo "test.sh: failed in: ${failed[*]}"
    exit 1
fi
echo "test.sh: all passed in: ${configurations[*]}"
