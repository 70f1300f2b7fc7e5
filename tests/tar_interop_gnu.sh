#!/bin/bash
# SPDX-License-Identifier: ISC
# Archives of GNU tar, read by us; ours, read by GNU tar; and both writing to
# one, now the one, now the other; locally and through a farblkd.
. "$(dirname "$0")/tar_functions.sh"
tar --version 2>/dev/null | grep -q 'GNU tar' || {
    echo "no GNU tar: skipped"
    exit 77
}

make_tree short short
make_tree long long
expected short >short.expected
grep -v ' fifo ' short.expected >v7.expected
expected long >long.expected

# Theirs.
tar -C short --format=v7 --exclude fifo -cf v7.tar . || fail "tar v7"
expect_found v7.tar v7.expected
tar -C short --format=ustar -cf ustar.tar . || fail "tar ustar"
expect_found ustar.tar short.expected
for format in oldgnu gnu posix; do
    tar -C long --format=$format -cf $format.tar . || fail "tar $format"
    expect_found $format.tar long.expected
done
for version in 0.0 0.1 1.0; do
    tar -C long --format=posix --sparse --sparse-version=$version \
        -cf sparse.tar . || fail "tar --sparse-version=$version"
    expect_found sparse.tar long.expected
done
for format in oldgnu gnu; do
    tar -C long --format=$format --sparse -cf sparse.tar . ||
        fail "tar $format --sparse"
    expect_found sparse.tar long.expected
    [ "$(stat -c %s sparse.tar)" -lt 2000000 ] || fail "it was not sparse"
done
# Global headers, and times of less than a second.
touch -d '@1400000000.123456789' long/run
expected long | sed 's/^\(\/run .*\)\.000000000/\1.123456789/' >nano.expected
tar -C long --format=posix --pax-option=comment=global -cf global.tar . ||
    fail "tar with a global header"
expect_found global.tar nano.expected

# Without the final blocks, and with one of them.
size=$("$tar_do" "file:$work/ustar.tar?ro=1" info | sed 's/.*end=\([0-9]*\).*/\1/')
head -c "$size" ustar.tar >cut.tar
found "file:$work/cut.tar?ro=1" | diff short.expected - ||
    fail "an archive without its end"

# Of several members with a name the last one counts.
mkdir again && echo new >again/empty
cp ustar.tar appended.tar
tar -C again -rf appended.tar ./empty || fail "tar -r"
"$tar_do" "file:$work/appended.tar?ro=1" get /empty | diff again/empty - ||
    fail "the first of two counted"

# Ours.
for sector in 512 4096; do
    make_ours ours.tar long $sector
    rm -rf extracted && mkdir extracted
    tar -C extracted -xf ours.tar 2>err || fail "GNU tar: $(cat err)"
    [ ! -s err ] || fail "GNU tar warns: $(cat err)"
    expect_kept extracted "GNU tar"
    (cd keep && find . -type f -printf '%s %P\n') | sort >keep.sizes
    tar --quoting-style=literal -tvf ours.tar |
        awk '{ s = $3; $1 = $2 = $3 = $4 = $5 = ""; sub(/^ */, ""); print s, $0 }' |
        sort | diff keep.sizes - >differs || fail "tar -t: $(cat differs)"
done
make_ours huge.tar short 4096 huge
tar -tvf huge.tar >listed || fail "tar -t of 9 GiB"
grep -q ' 9663676416 .* huge$' listed || fail "no 9 GiB in $(cat listed)"
grep -q ' behind$' listed || fail "nothing behind 9 GiB"
rm huge.tar

# By turns.  GNU tar wants what is behind the end to be records of its own.
make_ours both.tar short 512
echo one >one
tar -rf both.tar one || fail "tar -r"
truncate -s 8M both.tar
expect 0 "$tar_do" "file:$work/both.tar" set /two short/run
echo three >three
tar -rf both.tar three || fail "tar -r"
truncate -s 8M both.tar
"$tar_do" "file:$work/both.tar?sector=4096" get /one | diff one - || fail "one"
"$tar_do" "file:$work/both.tar?sector=4096" get /three | diff three - ||
    fail "three"
expect 0 "$tar_do" "file:$work/both.tar" rename /two /and/two
expect 0 "$tar_do" "file:$work/both.tar" remove /three
rm -rf extracted && mkdir extracted
tar -C extracted -xf both.tar 2>err || fail "GNU tar: $(cat err)"
mkdir keep/and && cp short/run keep/and/two && cp one keep/one
expect_kept extracted "GNU tar"

# Members of theirs change, wherever their names stand.
for format in ustar gnu posix; do
    tree=long
    [ $format != ustar ] || tree=short
    cp $format.tar theirs.tar
    truncate -s 8M theirs.tar
    uri="file:$work/theirs.tar?sector=4096"
    expect 0 "$tar_do" "$uri" rename /dir/511 /fresh/name
    expect 0 "$tar_do" "$uri" set /fresh/new short/run
    rm -rf extracted && mkdir extracted
    tar -C extracted -xf theirs.tar 2>err || fail "GNU tar: $(cat err)"
    cmp extracted/fresh/name $tree/dir/511 || fail "renamed"
    cmp extracted/fresh/new short/run || fail "new"
done

# Through a farblkd: a device like any other.
cp posix.tar served.tar
truncate -s 8M served.tar
start_farblkd --export "tar=file:$work/served.tar?sector=4096"
for uri in "$(ipc_uri tar)" "$(tcp_uri tar)"; do
    found "$uri" >found
    diff found <(expected long | sed 's/^\/run value 4 1400000000/\/run value 4 1234567890/') ||
        fail "otherwise through $uri"
    expect 0 "$tar_do" "$uri" set /remote short/dir/513
    expect 0 "$tar_do" "$uri" rename /remote /far/away
    expect 0 "$tar_do" "$uri" remove /far/away
done
expect 0 "$tar_do" "$(ipc_uri tar)" set /remote short/dir/513
stop_farblkd
rm -rf extracted && mkdir extracted
tar -C extracted -xf served.tar || fail "GNU tar of what was served"
cmp extracted/remote short/dir/513 || fail "what was written remotely"
