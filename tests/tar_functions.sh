# SPDX-License-Identifier: ISC
# What the tests share that compare our archives with other programs'; they
# source it.
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"
export LC_ALL=C.UTF-8 TZ=UTC
tar_do=$build/tests/tar_do

# A tree with a bit of everything, all times whole seconds.
make_tree() # DIRECTORY short|long
{
    local name
    mkdir -p "$1/dir/sub/deeper" "$1/empty dir" || fail "mkdir"
    (
        cd "$1" || exit 1
        : >empty
        echo hello >"with space"
        random 511 >dir/511
        random 512 >dir/512
        random 513 >dir/513
        random 100000 >dir/sub/large
        echo 'grüße' >dir/sub/umlaut-ü
        echo run >run && chmod 4755 run
        echo secret >secret && chmod 0600 secret
        ln -s ../with\ space dir/symlink
        ln dir/512 dir/sub/deeper/hard
        ln dir/512 hard
        mkfifo fifo
        if [ "$2" = long ]; then
            name=$(printf '%0150d' 1)
            echo long >"$name"
            ln -s "$name$name" longlink
            mkdir -p "dir/$name/$name" && echo longer >"dir/$name/$name/x"
            ln "dir/$name/$name/x" "$name-hard"
            truncate -s 3M sparse
            echo middle | dd of=sparse bs=1 seek=1234567 conv=notrunc status=none
            truncate -s 1M hole
            # More pieces than a header has room for.
            for i in $(seq 0 40); do
                echo "piece $i" | dd of=pieces bs=1 seek=$((i * 16384)) \
                    conv=notrunc status=none
            done
            touch -d @100 "$name"
        fi
        touch -d @1234567890 run
        find . -depth -newermt @1500000000 -exec touch -h -d @1400000000 {} +
    ) || fail "could not make a tree"
}

# As tar_do tells keys.
encode() # TEXT
{
    local LC_ALL=C i c out=
    for ((i = 0; i < ${#1}; i++)); do
        c=${1:i:1}
        case $c in
        [A-Za-z0-9/._-]) out+=$c ;;
        *)
            printf -v c '%d' "'$c"
            printf -v c '%%%02x' $((c & 255))
            out+=$c
            ;;
        esac
    done
    echo "$out"
}

# The lines of `tar_do dump` for a tree; links of values are left to others.
expected() # DIRECTORY
{
    local path key size mtime mode link kind sum
    while IFS= read -r -d '' path; do
        key=/${path#"$1"/}
        read -r size mtime mode < <(stat -c '%s %Y %a' "$path")
        link=- sum=-
        if [ -L "$path" ]; then
            kind=symlink size=0 link=$(encode "$(readlink "$path")")
        elif [ -d "$path" ]; then
            kind=directory size=0
        elif [ -p "$path" ]; then
            kind=fifo
        else
            kind=value sum=$(sha256sum <"$path") sum=${sum%% *}
        fi
        printf '%s %s %s %s.000000000 %04o %s %s\n' "$(encode "$key")" $kind \
            "$size" "$mtime" "0$mode" "$link" "$sum"
    done < <(find "$1" -mindepth 1 -print0) | sort
}

# What we find in an archive, in the same form.
found() # URI
{
    "$tar_do" "$1" dump 2>err | awk '$2 == "value" { $6 = "-" } $1 != "/"' |
        sort
}

# An archive made by others holds just the tree, with sectors of any size.
expect_found() # ARCHIVE EXPECTED
{
    local sector
    cp "$1" padded.tar
    truncate -s %65536 padded.tar
    for sector in 512 4096 65536; do
        found "file:$work/padded.tar?ro=1&sector=$sector" >found
        [ ! -s err ] || fail "$1, sectors of $sector: $(cat err)"
        diff "$2" found >differs ||
            fail "$1, sectors of $sector: $(cat differs)"
    done
}

# Put each plain file of a tree into an archive of ours; `keep` has them alone.
# One of 9 GiB that has no data comes between, for those who can tell only.
make_ours() # ARCHIVE TREE SECTOR [huge]
{
    local path uri="file:$work/$1?sector=$3" values=()
    rm -rf "$1" keep
    truncate -s "${4:+10G}" "$1" 2>/dev/null || truncate -s 8M "$1"
    expect 0 "$tar_do" "$uri" create
    while IFS= read -r path; do
        values+=("$(encode "/$path")" "$2/$path")
        mkdir -p "keep/$(dirname "$path")" && cp "$2/$path" "keep/$path"
    done < <(cd "$2" && find . -type f -printf '%P\n' | sort)
    expect 0 "$tar_do" "$uri" set "${values[@]}"
    expect 0 "$tar_do" "$uri" allocate /zeros 100000
    head -c 100000 /dev/zero >keep/zeros
    expect 0 "$tar_do" "$uri" set /removed "$2/run" /last "$2/run"
    expect 0 "$tar_do" "$uri" remove /last
    expect 0 "$tar_do" "$uri" remove /removed
    expect 0 "$tar_do" "$uri" rename /secret /dir/sub/renamed
    mv keep/secret keep/dir/sub/renamed
    if [ -n "${4:-}" ]; then
        expect 0 "$tar_do" "$uri" allocate /huge 9G
        expect 0 "$tar_do" "$uri" set /behind "$2/run"
    fi
}

# What others extracted of it.
expect_kept() # DIRECTORY WHO
{
    diff -r keep "$1" >differs 2>&1 || fail "$2 extracts otherwise: $(cat differs)"
}
