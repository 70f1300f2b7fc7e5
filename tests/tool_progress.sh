#!/bin/bash
# SPDX-License-Identifier: ISC
# The progress bar of copy, compare and mirror: on a terminal, nowhere else.
. "$(dirname "$0")/functions.sh"

random 4M >a.img
cp a.img b.img

# stderr is a file or a pipe: nothing.
for command in copy compare mirror; do
    expect 0 "$farblk" $command "file:$work/a.img" "file:$work/b.img"
    [ ! -s err ] || fail "$command draws into a file"
    "$farblk" $command "file:$work/a.img" "file:$work/b.img" 2>&1 >/dev/null |
        cat >out
    [ ! -s out ] || fail "$command draws into a pipe"
done

requires_terminal
terminal() # WORD ...: on a terminal of 100 columns; stdout goes elsewhere
{
    TERM=dumb script -qec "stty cols 100; '$farblk' $* >stdout" /dev/null \
        </dev/null >out 2>err || fail "on a terminal: $*"
    tr '\r' '\n' <out >clean && mv clean out
}
for command in copy compare mirror; do
    terminal $command "file:$work/a.img" "file:$work/b.img"
    out_has "$command [#"
    out_has "100%"
    out_has "iB/s"
    awk 'length($0) > 104 { exit 1 }' out || fail "a line is too long"
    grep -q "4 MiB" stdout || fail "no summary"
    terminal $command "file:$work/a.img" "file:$work/b.img" --no-progress
    ! grep -q '%' out || fail "$command draws with --no-progress"
done
# A failure wipes the bar, and its message stands on a line of its own.
truncate -s 8M c.img
script -qec "trap '' XFSZ; ulimit -f 5000; '$farblk' copy file:$work/a.img \
    file:$work/c.img; echo status \$?" /dev/null </dev/null >out 2>err
grep -q "status 0" out || fail "a copy below the limit"
script -qec "trap '' XFSZ; ulimit -f 1000; '$farblk' copy file:$work/a.img \
    file:$work/c.img; echo status \$?" /dev/null </dev/null >out 2>err
grep -q "status 1" out || fail "a copy above the limit"
! grep -q "100%" out || fail "a failed copy shows 100 %"
