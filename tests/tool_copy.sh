#!/bin/bash
# SPDX-License-Identifier: ISC
# farblk copy: sparse, full and odd devices, sectors of different size, larger
# and smaller destinations; locally, and through a farblkd.
. "$(dirname "$0")/functions.sh"

# An image with data here and there, holes between, and odd ends: 16 MiB + one
# sector, of which the last holds data.
truncate -s $((16 * 1048576 + 512)) sparse.img
put() # FILE OCTET OCTETS
{
    random "$3" | dd of="$1" oflag=seek_bytes,dsync conv=notrunc seek="$2" \
        status=none
}
put sparse.img 0 4096
put sparse.img 1M 300k
put sparse.img 5000192 65536
put sparse.img 16M 512
random 6M >full.img
size=$(stat -c %s sparse.img)

# copy URI URI FILE FILE OPTION ...: and compare the files.
copy()
{
    local from=$1 to=$2 file_from=$3 file_to=$4
    shift 4
    expect 0 "$farblk" copy "$@" "$from" "$to"
    [ ! -s err ] || fail "copy says something on stderr"
    same "$file_from" "$file_to"
}
fresh() # FILE LIKE FILL: of the other's size, empty or full of some octet
{
    rm -f "$1"
    case $3 in
    empty) truncate -s "$(stat -c %s "$2")" "$1" ;;
    *) head -c "$(stat -c %s "$2")" /dev/zero | tr '\0' "$3" >"$1" ;;
    esac
}

for image in sparse.img full.img; do
    for fill in empty x; do
        fresh to.img $image $fill
        copy "file:$work/$image" "file:$work/to.img" $image to.img
        # Once more, now over itself.
        copy "file:$work/$image" "file:$work/to.img" $image to.img
    done
    # Few and small requests, odd ones, many.
    for options in "--requests 1 --request-size 512" \
        "--requests 3 --request-size 1536" "--requests 256 --request-size 64k" \
        "--requests 1 --request-size 64M"; do
        fresh to.img $image x
        # shellcheck disable=SC2086
        copy "file:$work/$image" "file:$work/to.img" $image to.img $options
    done
    rm to.img
    copy "file:$work/$image" "file:$work/to.img" $image to.img --create
    copy "file:$work/$image" "file:$work/to.img?sync=1" $image to.img \
        --create --no-flush
done

# Holes stay holes, where the file system has any.
if [ "$(stat -c %b sparse.img)" -lt 4096 ]; then
    rm -f to.img
    copy "file:$work/sparse.img" "file:$work/to.img" sparse.img to.img --create
    [ "$(stat -c %b to.img)" -lt 4096 ] || fail "the copy is not sparse"
    expect 0 "$farblk" copy --json "file:$work/sparse.img" "file:$work/to.img"
    out_is_json
    [ "$(out_member size)" = "$size" ] || fail "size: $(out_member size)"
    [ "$(out_member copied)" -lt 1000000 ] || fail "copied too much"
    [ "$(out_member skipped)" -gt 15000000 ] || fail "skipped too little"
    [ $(($(out_member copied) + $(out_member zeroed) + $(out_member skipped))) \
        -eq "$size" ] || fail "the parts are not the whole"
    [ "$(out_member flushed)" = true ] || fail "not flushed"
    # A full destination is zeroed there, or left alone when told to.
    fresh to.img sparse.img x
    expect 0 "$farblk" copy --json "file:$work/sparse.img" "file:$work/to.img"
    [ "$(out_member zeroed)" -gt 15000000 ] || fail "zeroed too little"
    fresh to.img sparse.img x
    expect 0 "$farblk" copy --json --target-is-zero --no-flush \
        "file:$work/sparse.img" "file:$work/to.img"
    [ "$(out_member zeroed)" = 0 ] || fail "zeroed with --target-is-zero"
    [ "$(out_member flushed)" = false ] || fail "flushed with --no-flush"
    head -c 1M to.img | tail -c 512k | grep -q x ||
        fail "--target-is-zero changed what it should not"
fi

# A larger destination keeps its rest, and a note says so.
head -c 7M /dev/zero | tr '\0' y >to.img
expect 0 "$farblk" copy "file:$work/full.img" "file:$work/to.img"
err_has "the destination is larger: its last 1048576 octets stay"
head -c 6M to.img | cmp - full.img || fail "the copy differs"
[ "$(tail -c 1M to.img | tr -d y | wc -c)" -eq 0 ] || fail "the rest changed"

# So it does when the source ends within one of its sectors.
for fill in empty y; do
    fresh to.img sparse.img $fill
    truncate -s $((16 * 1048576 + 8192)) to.img
    head -c 7680 /dev/zero | tr '\0' z |
        dd of=to.img oflag=seek_bytes seek=$((16 * 1048576 + 512)) \
            conv=notrunc status=none
    expect 0 "$farblk" copy "file:$work/sparse.img" \
        "file:$work/to.img?sector=4096"
    head -c "$size" to.img | cmp - sparse.img || fail "the copy differs"
    [ "$(tail -c 7680 to.img | tr -d z | wc -c)" -eq 0 ] ||
        fail "the rest changed"
done
# Sectors of different size, otherwise; and a hole at the odd end.
truncate -s 6M hole.img
truncate -s $((6 * 1048576 + 4096)) long.img
put hole.img 3000320 8192
for sectors in "512 4096" "4096 512" "65536 1024" "4096 4096"; do
    read -r a b <<<"$sectors"
    for image in full.img hole.img; do
        fresh to.img $image x
        copy "file:$work/$image?sector=$a" "file:$work/to.img?sector=$b" \
            $image to.img
    done
done
head -c 4096 /dev/zero | tr '\0' x >last
truncate -s $((1048576 + 512)) hole.img
for fill in empty x; do
    truncate -s $((1048576 + 4096)) to.img
    [ $fill = empty ] && truncate -s 0 to.img
    truncate -s $((1048576 + 4096)) to.img
    dd if=last of=to.img bs=4096 seek=256 conv=notrunc status=none
    expect 0 "$farblk" copy "file:$work/hole.img" \
        "file:$work/to.img?sector=4096"
    head -c $((1048576 + 512)) to.img | cmp - hole.img || fail "the copy differs"
    [ "$(tail -c 3584 to.img | tr -d x | wc -c)" -eq 0 ] ||
        fail "the rest changed"
done

# A smaller one is an error that names both, before anything is written.
head -c 1M /dev/zero | tr '\0' y >to.img
expect 1 "$farblk" copy "file:$work/full.img" "file:$work/to.img"
err_has "to.img, is too small: 1048576 octets"
err_has "full.img, has 6291456"
err_has "(INVALID)"
[ "$(tr -d y <to.img | wc -c)" -eq 0 ] || fail "it was written nevertheless"

expect 1 "$farblk" copy "file:$work/full.img" "file:$work/to.img?ro=1"
err_has "is read-only (IS_READ_ONLY)"
expect 1 "$farblk" copy "file:$work/nosuch" "file:$work/to.img"
err_has "(NOT_FOUND)"
expect 1 "$farblk" copy --create "file:$work/full.img" "file:$work/to.img"
err_has "(CONFLICT)"
# The source need not be writable, nor empty devices be special.
chmod 400 full.img
rm to.img
copy "file:$work/full.img" "file:$work/to.img" full.img to.img --create
truncate -s 0 none.img none2.img
copy "file:$work/none.img" "file:$work/none2.img" none.img none2.img
copy ramdisk:a ramdisk:b /dev/null /dev/null

# Through a server, in all directions.
fresh to.img sparse.img x
start_farblkd --export "from=file:$work/sparse.img" \
    --export "to=file:$work/to.img" --export "ram=ramdisk:ram?size=$size" \
    --export "huge=ramdisk:huge?size=64G" --export "huge2=ramdisk:huge2?size=64G"
for way in ipc tcp; do
    fresh empty.img sparse.img x
    cp empty.img to.img
    copy "file:$work/sparse.img" "$(${way}_uri to)" sparse.img to.img
    rm -f back.img
    copy "$(${way}_uri from)" "file:$work/back.img" sparse.img back.img --create
    cp empty.img to.img
    copy "$(${way}_uri from)" "$(${way}_uri to)" sparse.img to.img
    copy "file:$work/sparse.img" "$(${way}_uri ram)" /dev/null /dev/null
    cp empty.img to.img
    copy "$(${way}_uri ram)" "$(${way}_uri to)" sparse.img to.img
    rm -f back.img
    copy "$(${way}_uri ram)" "file:$work/back.img" sparse.img back.img \
        --create --requests 100 --request-size 4k

    # 64 GiB of nothing cost a few requests.
    expect 0 "$farblk" copy --json "$(${way}_uri huge)" "$(${way}_uri huge2)"
    [ "$(out_member size)" = 68719476736 ] || fail "size: $(out_member size)"
    [ "$(out_member skipped)" = 68719476736 ] || fail "not all was skipped"
    [ "$(out_member requests)" -lt 10 ] ||
        fail "$(out_member requests) requests for nothing"
done
# A little in the middle of it, over something else.
random 64k >some
expect 0 "$farblk" write "$(ipc_uri huge)" --offset 40G -i some
head -c 64k /dev/zero | tr '\0' x | "$farblk" write "$(ipc_uri huge2)" \
    --offset 20G || fail "write"
expect 0 "$farblk" copy --json "$(ipc_uri huge)" "$(tcp_uri huge2)"
[ "$(out_member copied)" = 65536 ] || fail "copied: $(out_member copied)"
[ "$(out_member zeroed)" = 65536 ] || fail "zeroed: $(out_member zeroed)"
expect 0 "$farblk" compare "$(ipc_uri huge)" "$(tcp_uri huge2)"
expect 0 "$farblk" read "$(ipc_uri huge2)" --offset 40G --length 64k
same some out
stop_farblkd

# More connections make it faster; without them it goes as well.
start_farblkd --export "from=file:$work/sparse.img" --max-connections 1
rm -f back.img
copy "$(tcp_uri from)" "file:$work/back.img" sparse.img back.img --create
stop_farblkd
grep -q "too many connections" farblkd.err || fail "there was only one"
