#!/bin/bash
# SPDX-License-Identifier: ISC
# Install the Debian packages that farblk needs, those alone that are missing:
#
#   scripts/setup.sh GROUP ...     groups: build demo test ci coverage (default: test)
#
# As root, or with sudo; asks nothing.  With everything installed it needs
# neither, and no network.
set -euo pipefail

# To build library and programs.
build=(gcc libc6-dev cmake ninja-build pkg-config protobuf-c-compiler
       libprotobuf-c-dev libnng-dev libmbedtls-dev liburing-dev libnbd-dev)
# For scripts/demo.sh: a file system to copy, and its check.
demo=(e2fsprogs)
# For scripts/test.sh: headers are tried in C++ too; setarch is util-linux's.
test=(g++ libcmocka-dev e2fsprogs util-linux)
# The NBD servers and tools that the nbd driver is tried with, and the nbdkit
# plugin (which is built where its headers are), and those who try that.
test+=(nbdkit nbdkit-plugin-dev libnbd-bin qemu-utils openssl fio fuse3 spin)
# The tar programs that judge our archives.
test+=(libarchive-dev libarchive-tools python3 tar)
# The disk that loses what was not synced.
test+=(libfuse3-dev)
# For .ci/run: a second compiler, the format, and another look at memory.
ci=(clang clang-format valgrind)
# For scripts/coverage.sh.
coverage=(lcov)

want=("${build[@]}")
for group in "${@:-test}"; do
    case $group in
    build) ;;
    demo) want+=("${demo[@]}") ;;
    test) want+=("${test[@]}") ;;
    ci) want+=("${test[@]}" "${ci[@]}") ;;
    coverage) want+=("${test[@]}" "${coverage[@]}") ;;
    *)
        echo "setup.sh: unknown group $group (build, demo, test, ci, coverage)" >&2
        exit 2
        ;;
    esac
done

if ! command -v dpkg-query >/dev/null; then
    echo "setup.sh: not a Debian system; these packages are needed:" >&2
    echo "  ${want[*]}" >&2
    exit 1
fi

missing=()
for package in "${want[@]}"; do
    state=$(dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null |
        head -n 1) || true
    if [ "$state" != installed ] && [[ " ${missing[*]-} " != *" $package "* ]]
    then
        missing+=("$package")
    fi
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup.sh: neither root nor sudo, and these are missing:" >&2
        echo "  ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi
echo "setup.sh: installing ${missing[*]}"
"${as_root[@]}" apt-get update -q
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends "${missing[@]}"
