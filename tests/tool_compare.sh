#!/bin/bash
# SPDX-License-Identifier: ISC
# farblk compare: equal, different in one octet anywhere, in holes, in size, in
# sector size; locally and through a farblkd.
. "$(dirname "$0")/functions.sh"

random 4M >a.img
truncate -s 12M a.img
random 1M >>a.img
cp --sparse=always a.img b.img

differ() # OCTET VALUE VALUE A B OPTION ...
{
    local octet=$1 one=$2 two=$3
    shift 3
    expect 1 "$farblk" compare "$@"
    [ ! -s err ] || fail "a difference is no error"
    out_has "differ: octet $octet, sector $((octet / 512)): $one and $two"
    [ "$(wc -l <out)" -eq 1 ] || fail "not one line"
    expect 1 "$farblk" compare --json "$@"
    out_has '"equal": false'
    out_has "\"difference\": {\"offset\": $octet, \"sectors\": [$((octet / 512)), $((octet / 512))], \"values\": [$((one)), $((two))]}"
}
octet() # FILE OCTET: as 0x12
{
    printf '0x%s' "$(od -An -tx1 -j "$2" -N 1 "$1" | tr -d ' ')"
}
change() # FILE OCTET VALUE
{
    # shellcheck disable=SC2059
    printf "\\x${3#0x}" | dd of="$1" oflag=seek_bytes seek="$2" conv=notrunc \
        status=none
}
other() # VALUE: another one
{
    printf '0x%02x' $((($1) ^ 0x5a))
}

all() # URI-A URI-B OCTET ...: of a.img and b.img; with a change at each octet
{
    local one=$1 two=$2 at value was
    shift 2

    expect 0 "$farblk" compare "$one" "$two"
    out_has "equal: 13 MiB: "
    expect 0 "$farblk" compare "$one" "$one"
    expect 0 "$farblk" compare --json "$one" "$two"
    out_is_json
    [ "$(out_member equal)" = true ] || fail "equal: $(out_member equal)"
    [ "$(out_member difference)" = null ] || fail "a difference"
    # First and last octet, around sectors, pieces and holes.
    for at; do
        was=$(octet a.img $at)
        value=$(other "$was")
        change b.img $at "$value"
        differ $at "$was" "$value" "$one" "$two"
        out_is_json
        differ $at "$value" "$was" "$two" "$one"
        differ $at "$was" "$value" "$one" "$two" --requests 1 --request-size 16k
        differ $at "$was" "$value" "$one" "$two" --requests 64 --request-size 8k
        # Of many, the first.
        change b.img 13631000 0x00
        change b.img 13631001 0x01
        [ $at -eq 13631487 ] ||
            differ $at "$was" "$value" "$one" "$two" --request-size 4k
        cp --sparse=always a.img b.img.new
        # The same file: a server has it open.
        cat b.img.new >b.img
        expect 0 "$farblk" compare "$one" "$two"
    done
    # A hole against written zeros.
    head -c 8M /dev/zero | dd of=b.img oflag=seek_bytes seek=4M conv=notrunc \
        status=none
    expect 0 "$farblk" compare "$one" "$two"
}
all "file:$work/a.img" "file:$work/b.img" 511 262144 4194303 \
    8000000 12582912

# Sectors of different size.
expect 0 "$farblk" compare "file:$work/a.img?sector=4096" "file:$work/b.img"
change b.img 5000000 0x07
expect 1 "$farblk" compare "file:$work/a.img" "file:$work/b.img?sector=4096"
out_has "octet 5000000, sector 9765 (of 512 octets; 1220 of 4096): 0x00 and 0x07"
cat a.img >b.img

# Sizes.
cp a.img longer.img
truncate -s +512 longer.img
expect 1 "$farblk" compare "file:$work/a.img" "file:$work/longer.img"
out_has "differ: sizes: 13631488 and 13632000 octets; what both have is equal"
change longer.img 1000 "$(other "$(octet longer.img 1000)")"
expect 1 "$farblk" compare "file:$work/longer.img" "file:$work/a.img"
out_has "differ: octet 1000, "
out_has "differ: sizes: 13632000 and 13631488 octets"
expect 1 "$farblk" compare --json "file:$work/longer.img" "file:$work/a.img"
out_is_json
out_has '"sizes": [13632000, 13631488]'
# The shorter ends within a sector of the longer.
truncate -s 13635584 longer.img
truncate -s 13632000 a2.img
cat a.img | dd of=a2.img conv=notrunc status=none
cat a2.img | dd of=longer.img conv=notrunc status=none
expect 1 "$farblk" compare "file:$work/a2.img" "file:$work/longer.img?sector=4096"
out_has "differ: sizes: 13632000 and 13635584 octets; what both have is equal"

expect 1 "$farblk" compare "file:$work/a.img" "file:$work/nosuch"
[ ! -s out ] || fail "an error says something on stdout"
err_has "(NOT_FOUND)"

start_farblkd --export "a=file:$work/a.img" --export "b=file:$work/b.img"
all "$(ipc_uri a)" "$(ipc_uri b)" 4194304 13631487
all "file:$work/a.img" "$(tcp_uri b)" 0 12582911
stop_farblkd
