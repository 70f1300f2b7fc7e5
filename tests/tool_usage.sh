#!/bin/bash
# SPDX-License-Identifier: ISC
# The farblk command's help, versions, and mistakes in its command line.
. "$(dirname "$0")/functions.sh"

commands="info list read write copy compare map resize flush discard zero
    mirror"

expect 0 "$farblk" --version
out_has "farblk $(sed -nE 's/.*VERSION_MAJOR ([0-9]+)/\1/p' \
    "$source/include/farblk/farblk.h")."
expect 0 "$farblk" --help
for command in $commands; do
    out_has "  $command "
done
out_has "ramdisk:NAME"
out_has "file:PATH"

# Each subcommand has help with an example, and all of it is in the manual.
man=$source/man/farblk.1
for command in $commands; do
    expect 0 "$farblk" $command --help
    out_has "usage: farblk $command"
    out_has "example:"
    out_has "  farblk $command "
    grep -q "^\.SS farblk $command" "$man" || fail "farblk.1 has no $command"
    for option in $(grep -oE '^ +(-[a-z], )?--[a-z-]+' out | grep -oE -- '--.*'); do
        sed -n "/^\.SS farblk $command/,/^\.S[SH] /p;/^\.SH OPTIONS/,/^\.SH /p" \
            "$man" | sed 's/\\-/-/g' | grep -qF -- "$option" ||
            fail "farblk.1 does not tell of $command $option"
    done
done

usage() # TEXT ARGUMENT ...: exit status 2 and this text
{
    local text=$1
    shift
    expect 2 "$farblk" "$@"
    err_has "$text"
    err_has "--help"
    [ ! -s out ] || fail "a usage error has output"
}
usage "no command"
usage 'unknown command "frobnicate"' frobnicate
usage 'unknown command "--frobnicate"' --frobnicate
for command in $commands; do
    usage "farblk $command: missing operand" $command
    usage 'unknown option "--frobnicate"' $command --frobnicate
    usage 'unknown option "-x"' $command -x ramdisk:a
    usage 'unexpected "' $command a b c
done
usage "missing operand" copy ramdisk:a
usage "missing operand" compare ramdisk:a
usage "missing operand" resize ramdisk:a
usage "takes no value" info --json=yes ramdisk:a
usage "--offset needs a value" read ramdisk:a --offset
for size in "" k 4x 4kk -1 0x10 1.5M 16E 99999999999999999999 "4 k"; do
    usage "--offset: \"$size\" is not a size" read ramdisk:a --offset "$size"
    usage "\"$size\" is not a size" resize -- ramdisk:a "$size"
done
usage "--requests: \"4k\" is not a number" copy ramdisk:a ramdisk:b --requests 4k
usage "--requests: 0 is not within" copy ramdisk:a ramdisk:b --requests 0
usage "--requests: 5000 is not within" compare ramdisk:a ramdisk:b \
    --requests 5000
usage "--request-size: 1000 is not a multiple" copy ramdisk:a ramdisk:b \
    --request-size 1000
usage "--request-size: 0 is not" copy ramdisk:a ramdisk:b --request-size 0
usage "more than" copy ramdisk:a ramdisk:b --requests 1024 --request-size 64M
usage "exclude each other" copy ramdisk:a ramdisk:b --flush --no-flush
usage "--create" copy ramdisk:a ramdisk:b --create
for command in discard zero; do
    usage "are required" $command ramdisk:a
    usage "are required" $command ramdisk:a --offset 0
    usage "are required" $command ramdisk:a --length 4k
done
usage 'unknown option "--no-unmap"' discard ramdisk:a --no-unmap

# Sizes, in the places where they are taken.
for size in 512 4k 4K 1M 1m; do
    expect 0 "$farblk" read ramdisk:a --length $size
done
expect 0 "$farblk" read ramdisk:a --offset=1M --length=512 -o -
[ "$(wc -c <out)" -eq 512 ] || fail "read gave $(wc -c <out) octets"
expect 0 "$farblk" info -- ramdisk:a

# What can not be opened: the library's text, and the status.
expect 1 "$farblk" info file:/nonexistent/image
err_has "farblk info: "
err_has "/nonexistent/image"
err_has "(NOT_FOUND)"
expect 1 "$farblk" info nosuch:thing
err_has "(INVALID)"
err_has "ramdisk"
for command in flush map read; do
    expect 1 "$farblk" $command ramdisk:no/such
    err_has "farblk $command: "
    err_has "(INVALID)"
done
expect 1 "$farblk" list ramdisk:a
err_has "farblk list: "

# Output that can not be written is a failure.
if [ -w /dev/full ]; then
    status=0
    "$farblk" info ramdisk:a >/dev/full 2>err || status=$?
    [ $status -eq 1 ] || fail "info to /dev/full: exit status $status"
    err_has "No space left"
    status=0
    "$farblk" read ramdisk:a >/dev/full 2>err || status=$?
    [ $status -eq 1 ] || fail "read to /dev/full: exit status $status"
    err_has "No space left"
fi

# Control characters do not reach the terminal.
expect 1 "$farblk" info "file:/nonexistent/$(printf 'a\033[31mb')"
! grep -q "$(printf '\033')" err || fail "stderr has an escape character"
