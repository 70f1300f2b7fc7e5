#!/bin/bash
# SPDX-License-Identifier: ISC
# farblk tar extract gives the trees that GNU tar gives, of archives of each
# format and of each program; through a farblkd, with sectors of 512 and 4096.
# What farblk tar put has written is extracted by all of them.
. "$(dirname "$0")/tar_functions.sh"
requires tar
# Some trees have folders that their owner must open before they go.
open_tree() { chmod -R u+rwx "$@" 2>/dev/null; }
trap 'status=$?; open_tree "$work"; (exit $status); functions_end' EXIT

# A tree as text: names, kinds, sizes, modes, times, links, contents.  Fifos and
# devices are not extracted by us.
tree() # DIRECTORY
{
    (
        cd "$1" || exit 1
        find . -mindepth 1 ! -type p ! -type c ! -type b \
            -printf '%P %y %s %m %T@ %l %n\n' | sed 's/ d [0-9]* / d /' | sort
        find . -type f -print0 | sort -z | xargs -0r sha256sum
    )
}

remote=tcp
expect_extracts() # ARCHIVE [bsdtar]
{
    local uri
    open_tree theirs ours
    rm -rf theirs && mkdir theirs
    (umask 027 && "${2:-tar}" -C theirs --no-same-owner \
        --no-same-permissions --exclude=fifo -xf "$1") 2>err ||
        fail "${2:-tar} -x: $(cat err)"
    tree theirs >theirs.tree
    cp "$1" served.tar
    truncate -s %4096 served.tar
    # Remotely, by both ways in turn.
    [ "$remote" = ipc ] && remote=tcp || remote=ipc
    for uri in "file:$work/served.tar?ro=1" "$(${remote}_uri served)"; do
        open_tree ours
        rm -rf ours && mkdir ours
        (umask 027 && expect 0 "$farblk" tar extract "$uri" -C ours) || exit 1
        tree ours >ours.tree
        diff theirs.tree ours.tree >differs ||
            fail "$1 by $uri (theirs, ours): $(cat differs)"
    done
}

make_tree short short
make_tree long long
mkdir long/locked long/locked/inner && echo x >long/locked/inner/x
chmod 500 long/locked/inner long/locked
ln -s dir/symlink long/link-to-link
: >served.tar
# The daemon opens a file when it starts, so what it serves keeps its inode.
truncate -s 8M served.tar
start_farblkd --export "served=file:$work/served.tar?ro=1&sector=4096"
cp() # SRC DST: into the same inode, over what was there
{
    if [ "${2:-}" = served.tar ]; then
        dd if=/dev/zero of=served.tar bs=1M count=8 conv=notrunc status=none &&
            dd if="$1" of=served.tar bs=1M conv=notrunc status=none
    else
        command cp "$@"
    fi
}
truncate() { [ "${3:-}" = served.tar ] || command truncate "$@"; }

tar -C short --format=v7 --exclude fifo -cf v7.tar . || fail "tar v7"
expect_extracts v7.tar
tar -C short --format=ustar -cf ustar.tar . || fail "tar ustar"
expect_extracts ustar.tar
for format in oldgnu gnu posix; do
    tar -C long --format=$format -cf $format.tar . || fail "tar $format"
    expect_extracts $format.tar
    tar -C long --format=$format --sparse -cf sparse.tar . || fail "tar -S"
    expect_extracts sparse.tar
    # Sparse members stay sparse.
    [ "$(stat -c %b ours/hole)" -eq 0 ] || fail "hole has blocks"
    [ "$(stat -c %b ours/sparse)" -le 16 ] || fail "sparse is not sparse"
done
for version in 0.0 0.1 1.0; do
    tar -C long --format=posix --sparse --sparse-version=$version \
        -cf sparse.tar . || fail "tar --sparse-version=$version"
    expect_extracts sparse.tar
done
find long -exec touch -h -d '@1400000000.123456789' {} +
tar -C long --format=posix -cf nano.tar . || fail "tar posix"
expect_extracts nano.tar
# Of two with one name the last; one in the other's way.
mkdir again again/run && echo new >again/empty && echo below >again/run/below
cp gnu.tar twice.tar
tar -C again -rf twice.tar ./empty || fail "tar -r"
expect_extracts twice.tar
if command -v bsdtar >/dev/null; then
    for format in v7 ustar pax gnutar; do
        tree=long
        case $format in v7 | ustar) tree=short ;; esac
        bsdtar -C $tree --format $format --exclude fifo -cf bsd.tar . ||
            fail "bsdtar $format"
        # GNU tar does not always set their directories' times.
        expect_extracts bsd.tar bsdtar
    done
else
    echo "no bsdtar: its archives are left out"
fi
if command -v python3 >/dev/null; then
    for format in USTAR GNU PAX; do
        tree=long
        [ $format != USTAR ] || tree=short
        python3 -c 'import sys, tarfile
with tarfile.open("py.tar", "w", format=getattr(tarfile, sys.argv[2])) as t:
    t.add(sys.argv[1], arcname=".")' $tree ${format}_FORMAT ||
            fail "tarfile $format"
        expect_extracts py.tar
    done
else
    echo "no python3: its archives are left out"
fi

stop_farblkd

# Sizes that need more than a header's octal digits.
mkdir huge && command truncate -s 9G huge/image
echo end | dd of=huge/image bs=1 seek=9000000000 conv=notrunc status=none
for format in gnu posix; do
    tar --format=$format -cSf huge.tar huge || fail "tar -S of 9 GiB"
    tar -tvf huge.tar >wanted
    expect 0 "$farblk" tar list -l "file:$work/huge.tar"
    diff wanted out || fail "list of 9 GiB"
    open_tree ours
    rm -rf ours && mkdir ours
    expect 0 "$farblk" tar extract "file:$work/huge.tar" -C ours
    [ "$(stat -c %s ours/huge/image)" -eq $((9 << 30)) ] || fail "not 9 GiB"
    [ "$(stat -c %b ours/huge/image)" -le 16 ] || fail "9 GiB of blocks"
    [ "$(tail -c +9000000001 ours/huge/image | head -c 4)" = end ] ||
        fail "what 9 GiB hold"
    uri="tar-member:?device=file:$work/huge.tar&member=huge/image"
    expect 0 "$farblk" compare "file:$work/huge/image" "$uri"
done
rm -rf huge ours

# Some of it: what was named, and what is below.
rm -rf part && mkdir part
expect 0 "$farblk" tar extract "file:$work/gnu.tar" -C part dir/sub ./secret
(cd part && find . | sort) >out
printf '%s\n' . ./dir ./dir/sub ./dir/sub/deeper ./dir/sub/deeper/hard \
    ./dir/sub/large ./dir/sub/umlaut-ü ./secret | diff - out ||
    fail "some members"
# The link's target was not meant: it is a file of its own.
same long/dir/512 part/dir/sub/deeper/hard
[ "$(stat -c %h part/dir/sub/deeper/hard)" -eq 1 ] || fail "a link to what?"
expect 1 "$farblk" tar extract "file:$work/gnu.tar" -C part nothing
err_has "(NOT_FOUND)"
expect 1 "$farblk" tar extract "file:$work/gnu.tar" -C part/none
err_has "No such file"
# Here, and again over what is there.
mkdir here
for _ in 1 2; do
    (cd here && "$farblk" tar extract "file:$work/gnu.tar" 2>../err) ||
        fail "again"
    open_tree here/locked
done
chmod 500 here/locked/inner here/locked
diff -r --no-dereference --exclude fifo long here >differs || fail "here: $(cat differs)"
[ -z "$(find here -name '.farblk*')" ] || fail "temporary files are left"
[ here/dir/512 -ef here/hard ] || fail "no hard link"
# Modes as they are, but for setuid.
rm -rf part && mkdir part
(umask 077 && expect 0 "$farblk" tar extract -p "file:$work/gnu.tar" \
    -C part run dir) || exit 1
[ "$(stat -c %a part/run)" = 755 ] || fail "-p: $(stat -c %a part/run)"
[ "$(stat -c %a part/dir)" = 755 ] || fail "-p: $(stat -c %a part/dir)"

# Ours, written through the server, for them.
command truncate -s 32M mine.tar
for sector in 512 4096; do
    start_farblkd --export "mine=file:$work/mine.tar?sector=$sector"
    expect 0 "$farblk" tar create --force "$(ipc_uri mine)"
    rm -rf keep && mkdir keep
    while IFS= read -r path; do
        expect 0 "$farblk" tar put "$(tcp_uri mine)" "$path" -i "long/$path"
        mkdir -p "keep/$(dirname "$path")"
        command cp -p "long/$path" "keep/$path"
        chmod u-s "keep/$path"
        touch -d "@$(stat -c %Y "long/$path")" "keep/$path"
    done < <(cd long && find . -type f -printf '%P\n' | sort)
    stop_farblkd
    tree keep >keep.tree
    for who in "$farblk" tar bsdtar python3; do
        command -v "$who" >/dev/null || continue
        open_tree theirs
        rm -rf theirs && mkdir theirs
        case $who in
        */farblk) "$who" tar extract -p "file:$work/mine.tar" -C theirs ;;
        tar) tar -C theirs --no-same-owner -xpf mine.tar ;;
        bsdtar) bsdtar -C theirs --no-same-owner -xpf mine.tar ;;
        python3) python3 -m tarfile -e mine.tar theirs ;;
        esac >out 2>err || fail "$who: $(cat err)"
        [ ! -s err ] || fail "$who: $(cat err)"
        find theirs -type f -perm /6000 -exec chmod a-s {} +
        tree theirs | grep -v ' d ' >theirs.tree
        grep -v ' d ' keep.tree | diff - theirs.tree >differs ||
            fail "$who extracts ours otherwise: $(cat differs)"
    done
done

# A signal ends it, and leaves no half a file.  Now and then it is too fast.
rm -f large.tar && command truncate -s 64M large.tar
expect 0 "$farblk" tar put "file:$work/large.tar" big --size 60M </dev/zero
status=0
for ((i = 0; i < 50 && status == 0; i++)); do
    rm -rf part && mkdir part
    "$farblk" tar extract "file:$work/large.tar" -C part 2>err &
    pid=$!
    until compgen -G 'part/.farblk*' >/dev/null || ! kill -0 $pid 2>/dev/null; do
        :
    done
    kill -TERM $pid 2>/dev/null
    wait $pid || status=$?
done
[ $status -eq 143 ] || fail "exit status $status after SIGTERM"
err_has "interrupted"
[ -z "$(ls -A part)" ] || fail "left: $(ls -A part)"
