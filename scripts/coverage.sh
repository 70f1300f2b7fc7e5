#!/bin/bash
# SPDX-License-Identifier: ISC
# Which lines the tests run:
#
#   scripts/coverage.sh [-w] [CTEST-OPTION ...]
#
# Builds with gcov in build-coverage in the checkout (or in $FARBLK_BUILD_ROOT),
# runs the tests (all, or those that ctest's options choose), and prints a table
# by folder and one of the files of the data path.  -w: into docs/coverage.md,
# too.  What is left open is in build-coverage/coverage.info, for lcov, and the
# lines of one file: gcov's *.gcov.  Wants lcov (scripts/setup.sh coverage).
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
build=${FARBLK_BUILD_ROOT:-$source}/build-coverage
write=
if [ "${1:-}" = -w ]; then
    write=1
    shift
fi
"$source/scripts/setup.sh" coverage
cmake -S "$source" -B "$build" -G Ninja -DCMAKE_C_COMPILER=gcc \
    -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS="--coverage -fprofile-update=atomic" \
    >"$build.log" 2>&1 || {
    cat "$build.log"
    exit 1
}
ninja -C "$build" --quiet
find "$build" -name '*.gcda' -delete
failed=0
# check_install links what is installed without gcov, and can not pass here.
ctest --test-dir "$build" -j "${FARBLK_JOBS:-$(nproc)}" --output-on-failure \
    -E '^check_install$' \
    "$@" >"$build/tests.log" 2>&1 || failed=1
tail -n 3 "$build/tests.log"
lcov --quiet --capture --no-external --base-directory "$source" \
    --directory "$build" --rc lcov_branch_coverage=1 \
    --output-file "$build/coverage.info" >"$build/lcov.log" 2>&1 || {
    cat "$build/lcov.log"
    exit 1
}

# From lcov's records: SF a file, DA a line and how often it ran, BRDA a branch.
table() # by folder, or with a pattern of files, by file
{
    awk -F'[:,]' -v root="$source/" -v files="${1:-}" '
    /^SF:/ {
        key = substr($0, 4)
        sub(root, "", key)
        if (key ~ /^\// || key ~ /^(tests|bench|examples|build)/) key = ""
        if (files != "" && key !~ files) key = ""
        if (files == "") sub("/[^/]*$", "", key)
    }
    key == "" { next }
    /^DA:/ { lines[key]++; run[key] += $3 > 0 }
    /^BRDA:/ { branches[key]++; taken[key] += $5 > 0 }
    END {
        for (key in lines)
            printf "| `%s` | %d | %.1f %% | %.1f %% |\n", key, lines[key],
                100 * run[key] / lines[key],
                100 * taken[key] / (branches[key] ? branches[key] : 1)
    }' "$build/coverage.info" | sort
}

tables()
{
    printf '| folder | lines | run | branches taken |\n|---|---|---|---|\n'
    table
    printf '\nThe data path:\n\n'
    printf '| file | lines | run | branches taken |\n|---|---|---|---|\n'
    table '^(core|proto|client|server)/'
}
tables
if [ -n "$write" ]; then
    page=$source/docs/coverage.md
    {
        sed '/^<!-- figures -->/q' "$page"
        printf '\n'
        tables
    } >"$page.new"
    mv "$page.new" "$page"
fi
exit $failed
