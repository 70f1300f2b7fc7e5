#!/bin/bash
# SPDX-License-Identifier: ISC
# Archives of bsdtar, which is libarchive's, read by us, and ours by bsdtar.
. "$(dirname "$0")/tar_functions.sh"
requires bsdtar

make_tree short short
make_tree long long
expected short >short.expected
grep -v ' fifo ' short.expected >v7.expected
expected long >long.expected

bsdtar -C short --format=v7 --exclude ./fifo -cf v7.tar . || fail "bsdtar v7"
expect_found v7.tar v7.expected
bsdtar -C short --format=ustar -cf ustar.tar . || fail "bsdtar ustar"
expect_found ustar.tar short.expected
for format in gnutar pax; do
    bsdtar -C long --format=$format -cf $format.tar . || fail "bsdtar $format"
    expect_found $format.tar long.expected
done
# Its own choice: ustar, and pax where that does not do.
bsdtar -C long -cf default.tar . || fail "bsdtar"
expect_found default.tar long.expected

for sector in 512 4096; do
    make_ours ours.tar long $sector
    rm -rf extracted && mkdir extracted
    bsdtar -C extracted -xf ours.tar 2>err || fail "bsdtar: $(cat err)"
    [ ! -s err ] || fail "bsdtar warns: $(cat err)"
    expect_kept extracted bsdtar
done
make_ours huge.tar short 512 huge
bsdtar -tvf huge.tar >listed || fail "bsdtar -t of 9 GiB"
grep -q ' 9663676416 .* huge$' listed || fail "no 9 GiB in $(cat listed)"
grep -q ' behind$' listed || fail "nothing behind 9 GiB"
