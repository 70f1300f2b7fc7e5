#!/bin/bash
# SPDX-License-Identifier: ISC
# The code is as clang-format writes it.  Skipped without clang-format 14, for
# other versions write differently.
set -u
cd "${FARBLK_SOURCE:-$(dirname "$0")/..}" || exit 1
tool=$(command -v clang-format-14 || command -v clang-format) || {
    echo "no clang-format: skipped"
    exit 77
}
"$tool" --version | grep -q 'version 14\.' || {
    "$tool" --version
    echo "not version 14: skipped"
    exit 77
}
find include core proto backends client server tools tar nbdkit examples \
    tests bench -name '*.[ch]' -print0 2>/dev/null |
    xargs -0 "$tool" --dry-run --Werror
