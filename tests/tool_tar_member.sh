#!/bin/bash
# SPDX-License-Identifier: ISC
# Disk images in archives of GNU tar, bsdtar and tarfile, of each format, are
# devices as they are: locally, through a farblkd, with archives on devices with
# sectors of 512 and 4096, and on remote ones.  And the example of
# docs/drivers.md, as it stands there.
. "$(dirname "$0")/tar_functions.sh"
requires tar

awk '/^## tar-member$/ { on = 1 } on && /^```sh$/ { code = 1; next }
     /^```$/ { code = 0 } /^## Adding a driver$/ { exit } code' \
    "$source/docs/drivers.md" >example.sh
[ -s example.sh ] || fail "docs/drivers.md has no example of tar-member"
expect 0 env PATH="$build:$PATH" bash -eu example.sh
out_has "3145728                 4096  mapped"
out_has "equal: 16 MiB"

# An ext4 with something in it, where it can be made.
truncate -s 8M disk.img
mkdir tree && random 300000 >tree/data && echo hello >tree/file
if command -v mke2fs >/dev/null; then
    mke2fs -q -t ext4 -d tree disk.img || fail "mke2fs"
else
    dd if=tree/data of=disk.img bs=4096 seek=300 conv=notrunc status=none
fi
head -c 1000 disk.img >odd.img
"$farblk" map "file:$work/disk.img" | grep -q unmapped || fail "disk.img is full"

member() # DEVICE [KEY]: the URI
{
    local device=$1
    device=${device//%/%25}
    device=${device//\?/%3F}
    echo "tar-member:?device=${device//&/%26}&member=${2:-images/disk.img}"
}
expect_image() # ARCHIVE [sparse]
{
    local sector uri
    truncate -s %4096 "$1"
    for sector in 512 4096; do
        uri=$(member "file:$work/$1?ro=1&sector=$sector")
        expect 0 "$farblk" compare "file:$work/disk.img" "$uri"
        expect 0 "$farblk" compare "file:$work/disk.img" "$uri&sector=4096"
    done
    [ -z "${2:-}" ] || "$farblk" map "$uri" | grep -q unmapped ||
        fail "no holes in $1"
}
mkdir images && cp --sparse=always disk.img images/ && cp odd.img images/
for format in v7 ustar oldgnu gnu posix; do
    tar --format=$format -cf $format.tar images || fail "tar $format"
    expect_image $format.tar
done
for format in oldgnu gnu posix; do
    tar --format=$format -cSf sparse.tar images || fail "tar -S $format"
    expect_image sparse.tar sparse
done
for version in 0.0 0.1 1.0; do
    tar --format=posix -S --sparse-version=$version -cf sparse$version.tar \
        images || fail "tar --sparse-version=$version"
    expect_image sparse$version.tar sparse
done
if command -v bsdtar >/dev/null; then
    for format in v7 ustar pax gnutar; do
        bsdtar --format $format -cf bsd.tar images || fail "bsdtar $format"
        expect_image bsd.tar
    done
fi
if command -v python3 >/dev/null; then
    python3 -m tarfile -c py.tar images || fail "tarfile"
    expect_image py.tar
fi

# Served, and read back whole; an archive that is remote itself; both.
start_farblkd \
    --export "image=$(member "file:$work/sparse1.0.tar?sector=4096")" \
    --export "archive=file:$work/gnu.tar?sector=4096&ro=1"
for way in ipc tcp; do
    uri=$(${way}_uri image)
    expect 0 "$farblk" compare "file:$work/disk.img" "$uri"
    expect 0 "$farblk" copy --create "$uri" "file:$work/$way.img"
    same disk.img $way.img
    expect 0 "$farblk" info "$uri"
    grep -q "^read_write *no" out || fail "it can be written"
    expect 1 "$farblk" zero "$uri" --offset 0 --length 512
    err_has "(IS_READ_ONLY)"
    expect 0 "$farblk" compare "file:$work/disk.img" \
        "$(member "$(${way}_uri archive)")"
done
! command -v e2fsck >/dev/null || expect 0 e2fsck -fn ipc.img
expect 0 "$farblk" list "farblk+unix:///?socket=$work/socket"
out_has "  image"
stop_farblkd

expect 1 "$farblk" info "$(member "file:$work/gnu.tar" images/odd.img)"
err_has "1000 octets, which is not a whole number of sectors of 512"
expect 1 "$farblk" info "$(member "file:$work/gnu.tar" images)"
err_has "(NOT_A_VALUE)"
expect 1 "$farblk" info "$(member "file:$work/gnu.tar" nothing)"
err_has "(NOT_FOUND)"
expect 1 "$farblk" info "tar-member:?device=file:$work/gnu.tar"
err_has "(INVALID)"
