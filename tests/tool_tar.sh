#!/bin/bash
# SPDX-License-Identifier: ISC
# farblk tar list, get, put, rm and create: what they print, what they take and
# how they fail, on files and through a farblkd, with sectors of 512 and 4096.
. "$(dirname "$0")/tar_functions.sh"

expect 0 "$farblk" --help
out_has "  tar "
out_has "tar-member:?device=URI&member=KEY"

# Each subcommand has help with an example, and its options are in the manual.
expect 0 "$farblk" tar --help
for command in list get put rm extract create; do
    expect 0 "$farblk" tar --help
    out_has "  $command "
    expect 0 "$farblk" tar $command --help
    out_has "usage: farblk tar $command"
    out_has "example:"
    out_has "  farblk tar $command "
    sed -n '/^\.SS farblk tar/,/^\.SS farblk bench/p;/^\.SH OPTIONS/,/^\.SH /p' \
        "$source/man/farblk.1" | sed 's/\\-/-/g' >manual
    grep -q "\"*tar $command" manual || fail "farblk.1 has no tar $command"
    for option in $(grep -oE '^ +(-[a-zA-Z], )?--[a-z-]+' out |
        grep -oE -- '--.*'); do
        grep -qF -- "$option" manual ||
            fail "farblk.1 does not tell of tar $command $option"
    done
    expect 2 "$farblk" tar $command
    err_has "farblk tar $command: missing operand"
    expect 2 "$farblk" tar $command --frobnicate
    err_has 'unknown option "--frobnicate"'
done
expect 2 "$farblk" tar
err_has "no command"
expect 2 "$farblk" tar frobnicate
err_has 'unknown command "frobnicate"'

# The example of docs/tar.md, as it stands there but for its folder.
awk '/^## From the command line$/ { on = 1 } on && /^```sh$/ { code = 1; next }
     /^```$/ { code = 0 } /^## What lies/ { exit } code' \
    "$source/docs/tar.md" | sed "s:/tmp/:$work/:g" >example.sh
[ -s example.sh ] || fail "docs/tar.md has no example"
expect 0 env PATH="$build:$PATH" bash -eu example.sh
out_has " log/date"
[ "$(wc -l <out)" -eq 2 ] || fail "the example prints otherwise"

# An archive from nothing.
for sector in 512 4096; do
    rm -f new.tar
    uri="file:$work/new.tar?sector=$sector"
    expect 0 "$farblk" tar create "$uri&create=1&size=8M"
    expect 0 "$farblk" tar list "$uri"
    [ ! -s out ] || fail "a new archive has members"
    random 100001 >data
    chmod 640 data && touch -d @1400000000 data
    expect 0 "$farblk" tar put "$uri" some/data -i data
    [ ! -s err ] || fail "put says something"
    # From a pipe, with and without its size; from a file as standard input.
    expect 0 "$farblk" tar put "$uri" piped < <(cat data)
    expect 0 "$farblk" tar put "$uri" sized --size 100001 --mode 4711 \
        < <(cat data)
    expect 0 "$farblk" tar put "$uri" /input <data
    expect 0 "$farblk" tar put "$uri" ./empty -i /dev/null
    for key in some/data /piped ./sized input; do
        expect 0 "$farblk" tar get "$uri" $key
        same data out
    done
    expect 0 "$farblk" tar get "$uri" empty
    [ ! -s out ] || fail "empty is not"
    expect 0 "$farblk" tar list "$uri"
    printf '%s\n' some/data piped sized input empty | diff - out || fail "list"
    expect 0 "$farblk" tar list -l "$uri"
    out_has "-rw-r----- $(stat -c %U/%G data)"
    out_has " 100001 2014-05-13 16:53 some/data"
    grep -qE '^-rw-r--r-- .* piped$' out || fail "the mode of what was piped"
    grep -qE '^-rws--x--x .* sized$' out || fail "--mode"
    grep -qE '^-rw-r----- .* 2014-05-13 16:53 input$' out || fail "input's mode"

    # Parts.
    expect 0 "$farblk" tar get "$uri" some/data --offset 700 --length 99000
    tail -c +701 data | head -c 99000 | cmp - out || fail "a part"
    expect 0 "$farblk" tar get "$uri" some/data --offset 100001
    [ ! -s out ] || fail "something behind the end"
    expect 1 "$farblk" tar get "$uri" some/data --offset 100002
    err_has "past the end"
    expect 1 "$farblk" tar get "$uri" some/data --offset 1 --length 100001
    err_has "100001"
    expect 0 "$farblk" tar get "$uri" some/data -o copy
    same data copy
    expect 0 "$farblk" tar get "$uri" some/data -o copy --length 5
    [ "$(stat -c %s copy)" -eq 5 ] || fail "an old tail is left"

    # What is not there, or is something else.
    expect 1 "$farblk" tar get "$uri" nothing
    err_has "(NOT_FOUND)"
    expect 1 "$farblk" tar get "$uri" some
    err_has "(NOT_A_VALUE)"
    expect 1 "$farblk" tar get "$uri" some/data/x
    err_has "(NOT_A_DIRECTORY)"
    expect 1 "$farblk" tar list "$uri" some nothing
    err_has "(NOT_FOUND)"
    expect 1 "$farblk" tar get "$uri" piped -o "$work/no/where"
    err_has "No such file"

    # Append-only.
    cp new.tar before.tar
    expect 1 "$farblk" tar put "$uri" some/data -i data
    err_has "(EXISTS)"
    expect 1 "$farblk" tar put "$uri" some -i data
    err_has "(EXISTS)"
    expect 1 "$farblk" tar put "$uri" some/data/below -i data
    err_has "(NOT_A_DIRECTORY)"
    expect 1 "$farblk" tar put "$uri" up/../there -i data
    err_has "(INVALID)"
    expect 1 "$farblk" tar rm "$uri" some/data
    err_has "(APPEND_ONLY)"
    expect 1 "$farblk" tar put "$uri" large --size 9M </dev/zero
    err_has "(NO_SPACE)"
    expect 1 "$farblk" tar put "$uri" short --size 1M <data
    err_has "ends after 100001 octets, not 1048576; nothing was added"
    expect 1 "$farblk" tar put "$uri" dir -i "$work"
    err_has "Is a directory"
    expect 1 "$farblk" tar put "$uri" dir -i nothing
    err_has "No such file"
    expect 2 "$farblk" tar put "$uri" x -i data --mode 8
    expect 2 "$farblk" tar put "$uri" x -i data --mode 17777
    expect 1 "$farblk" tar create "$uri"
    err_has "not empty; --force"
    expect 1 "$farblk" tar put "$uri&ro=1" x -i data
    err_has "(IS_READ_ONLY)"
    expect 1 "$farblk" tar create "$uri&ro=1" --force
    err_has "(IS_READ_ONLY)"
    expect 0 "$farblk" tar list "$uri"
    [ "$(wc -l <out)" -eq 5 ] || fail "a failure has left something"
    expect 0 "$farblk" tar rm "$uri" empty
    expect 0 "$farblk" tar rm "$uri" input
    expect 0 "$farblk" tar list "$uri" some piped
    printf '%s\n' some/data piped | diff - out || fail "list of keys"
    expect 0 "$farblk" tar create "$uri" --force
    expect 0 "$farblk" tar list "$uri"
    [ ! -s out ] || fail "create --force left something"
done
random 65536 >noise
expect 1 "$farblk" tar list "file:$work/noise"
err_has "(CORRUPT)"
expect 1 "$farblk" tar list "file:$work/nowhere"
err_has "(NOT_FOUND)"
random 4096 >small && truncate -s 512 small
expect 1 "$farblk" tar create "file:$work/small" -f
err_has "(NO_SPACE)"

# The lines are GNU tar's own.
requires tar
make_tree tree long
mkdir tree/odd && (
    cd tree/odd || exit 1
    : >$'new\nline' && : >'back\slash' && : >$'\001' && : >$'tab\t' && : >ünï
    : >"'quoted'" && : >$'\377' && mkdir sticky && chmod 1777 sticky
    chmod 2644 ünï && touch -d @-1 ünï
    ln -s '..\..' link
) || fail "odd names"
mknod tree/null c 1 3 2>/dev/null && mknod tree/loop b 7 12 2>/dev/null
for format in ustar gnu posix; do
    extra=()
    [ $format != ustar ] || extra=(--exclude=0000*01* --exclude=longlink --exclude=ünï)
    tar -C tree "${extra[@]}" --format=$format --sort=name -cf list.tar dir odd \
        $(cd tree && ls | grep -v ' ' | grep -vE '^(dir|odd)$') 2>err ||
        fail "tar: $(cat err)"
    truncate -s %4096 list.tar
    for locale in C C.UTF-8; do
        for zone in UTC America/St_Johns; do
            LC_ALL=$locale TZ=$zone tar -tvf list.tar >wanted 2>err
            for sector in 512 4096; do
                LC_ALL=$locale TZ=$zone expect 0 "$farblk" tar list -l \
                    "file:$work/list.tar?ro=1&sector=$sector"
                diff wanted out >differs || fail "list -l: $(cat differs)"
            done
        done
        LC_ALL=$locale tar -tf list.tar >wanted
        LC_ALL=$locale expect 0 "$farblk" tar list "file:$work/list.tar"
        diff wanted out >differs || fail "list: $(cat differs)"
    done
done
expect 0 "$farblk" tar list --json "file:$work/list.tar"
out_is_json
out_has '"key": "/odd/new\u000aline", "kind": "file", "size": 0, "stored": 0'
out_has '"mtime": "1969-12-31T23:59:59Z"'
out_has '"key": "/sparse", "kind": "file", "size": 3145728'
out_has '"link": "../with space"'
out_has '"kind": "fifo"'

# Of several with one name the last one is meant; all are there.
mkdir again && echo new >again/run
cp list.tar twice.tar
tar -C again -rf twice.tar run || fail "tar -r"
truncate -s %512 twice.tar
expect 0 "$farblk" tar get "file:$work/twice.tar" run
same again/run out
expect 0 "$farblk" tar list "file:$work/twice.tar" run
[ "$(wc -l <out)" -eq 1 ] || fail "what was replaced is listed"
expect 0 "$farblk" tar list --all "file:$work/twice.tar" run
[ "$(wc -l <out)" -eq 2 ] || fail "what was replaced is not listed"
expect 0 "$farblk" tar list --json -a "file:$work/twice.tar" run
out_is_json
grep -q '"current": false' out || fail "JSON does not tell what was replaced"

# Through a farblkd.
truncate -s 8M served.tar
random 3M >data
start_farblkd --export "tar=file:$work/served.tar?sector=4096" \
    --export "ro=file:$work/list.tar?ro=1" --export "ram=ramdisk:r?size=16M"
expect 0 "$farblk" tar create "$(ipc_uri tar)"
expect 0 "$farblk" tar put "$(tcp_uri tar)" over/tcp -i data
expect 0 "$farblk" tar put "$(ipc_uri tar)" over/ipc -i data
for way in ipc tcp; do
    uri=$(${way}_uri tar)
    expect 0 "$farblk" tar get "$uri" over/$way
    same data out
    expect 0 "$farblk" tar list -l "$uri"
    tar -tvf served.tar | diff - out || fail "list -l through $way"
    LC_ALL=C tar -tvf list.tar >wanted
    LC_ALL=C expect 0 "$farblk" tar list -l "$(${way}_uri ro)"
    diff wanted out || fail "list -l of what is read-only"
    expect 1 "$farblk" tar put "$(${way}_uri ro)" x -i data
    err_has "(IS_READ_ONLY)"
    expect 0 "$farblk" tar create -f "$(${way}_uri ram)"
    expect 0 "$farblk" tar put "$(${way}_uri ram)" x/y -i data
    expect 0 "$farblk" tar rm "$(${way}_uri ram)" x/y
done
stop_farblkd

# A dead server is a failure.
mkfifo wait
truncate -s 64M large.tar
start_farblkd --export "tar=file:$work/large.tar"
expect 0 "$farblk" tar create "$(ipc_uri tar)"
expect 0 "$farblk" tar put "$(ipc_uri tar)" big --size 48M </dev/zero
"$farblk" tar get "$(ipc_uri tar)" big >wait 2>err &
pid=$!
exec 8<wait
head -c 1M <&8 >/dev/null
kill_farblkd
cat <&8 >/dev/null
exec 8<&-
status=0
wait $pid || status=$?
[ $status -eq 1 ] || fail "get from a dead server: exit status $status"
err_has "tar_get_partial"

# Progress, on a terminal alone.
expect 0 "$farblk" tar get "file:$work/large.tar" big -o copy
[ ! -s err ] || fail "get draws into a file"
requires_terminal
terminal() # WORD ...
{
    TERM=dumb script -qec "stty cols 100; '$farblk' tar $* >stdout" /dev/null \
        </dev/null >out 2>err || fail "on a terminal: $*"
    tr '\r' '\n' <out >clean && mv clean out
}
terminal get "file:$work/large.tar" big -o copy
out_has "get [#"
out_has "100%"
terminal get "file:$work/large.tar" big -o copy --no-progress
! grep -q '%' out || fail "get draws with --no-progress"
terminal put "file:$work/large.tar" more -i data
out_has "put [#"
