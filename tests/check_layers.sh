#!/bin/bash
# SPDX-License-Identifier: ISC
# The house's rules on who may include whom, read off the #include lines.
set -u
cd "${FARBLK_SOURCE:-$(dirname "$0")/..}" || exit 1
bad=0
complain() { echo "$*"; bad=1; }

# Every include as "FILE:LINE TARGET", with its quotes or brackets.
includes()
{
    find "$@" -name '*.[ch]' -exec grep -HnE '^[[:space:]]*#[[:space:]]*include' {} + |
        sed -E 's/^([^:]+:[0-9]+):[^"<]*(["<][^">]*[">]).*/\1 \2/'
}

# FOLDER may include, besides the system's headers, what begins with one of
# these.  Paths are from the root of the tree.
allow() # FOLDER PREFIX ...
{
    local folder=$1 prefix at target ok
    shift
    [ -d "$folder" ] || return 0
    while read -r at target; do
        case $target in
        '"'*) ;;
        '<farblk/'*) ;; # judged like "farblk/...
        *) continue ;;
        esac
        ok=0
        for prefix; do
            case ${target:1} in
            "$prefix"*) ok=1 ;;
            esac
        done
        [ $ok -eq 1 ] || complain "$at: $folder may not include $target"
    done < <(includes "$folder")
}
allow include farblk/
allow core core/ farblk/
allow proto proto/ core/ farblk/
allow backends backends/ core/ farblk/
allow client client/ proto/ core/ farblk/
allow server server/ proto/ core/ farblk/
allow tar tar/ core/error.h core/checked.h farblk/
allow tools tools/ farblk/
allow nbdkit nbdkit/ farblk/
allow examples farblk/
allow bench bench/ tools/ core/crc32c.h farblk/

# Libraries are somebody's own.
folders=()
for folder in include core proto backends client server tar tools nbdkit \
    examples tests bench; do
    [ ! -d $folder ] || folders+=("$folder")
done
only() # PATTERN-OF-TARGETS PATTERN-OF-FILES WHO
{
    local at target
    while read -r at target; do
        if [[ ${target:1} =~ $1 ]] && ! [[ $at =~ $2 ]]; then
            complain "$at: only $3 may include $target"
        fi
    done < <(includes "${folders[@]}")
}
only '^(protobuf-c/|.*\.pb-c\.h)' '^(proto/codec[a-z_]*\.[ch]|tests/)' \
    'proto/codec* and tests'
only '^nng/' '^(proto|tests|bench)/' 'proto, tests and bench'
only '^mbedtls/' '^(tar/|proto/(link_tls|stream_tls)|tests/)' \
    'tar, the TLS of proto, and tests'
only '^libnbd' '^(backends/nbd[a-z_]*\.[ch]|tests/|bench/)' \
    'the nbd driver, tests and bench'
only '^liburing' '^(backends|tests)/' 'backends'
only '^nbdkit-(plugin|filter)' '^(nbdkit|tests)/' 'nbdkit and tests'
# The daemon's main is a program like any other.
while read -r at target; do
    case ${target:1} in
    core/* | proto/*) complain "$at: the daemon's main uses the public API only" ;;
    esac
done < <(includes server | grep -E '^server/(main|config[a-z_]*|privilege)\.[ch]:')

# What protobuf-c generates is named by a double underscore, and stays inside.
while IFS= read -r line; do
    complain "$line: a generated name outside the codec"
done < <(grep -rnE 'Farblk__|farblk__' --include='*.[ch]' \
    include core proto backends client server tools examples |
    grep -vE '^proto/codec[a-z_]*\.[ch]:')

# The library starts no programs, so that nothing from outside can become an
# argument of one.
while IFS= read -r line; do
    complain "$line: the library starts no programs"
done < <(grep -rnE '(^|[^a-z_])(execv?[lp]?e?|execle?|posix_spawnp?|popen|system|v?fork|nbd_connect_(command|uri|systemd_socket_activation))\(' \
    --include='*.[ch]' core proto backends client tar server)

exit $bad
