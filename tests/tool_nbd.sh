#!/bin/bash
# SPDX-License-Identifier: ISC
# NBD exports at the command line and behind a farblkd, beside the tools of
# others: what nbdkit and qemu-nbd serve, qemu-img and nbdcopy find the same as
# farblk does.  And the example of docs/drivers.md, as it stands there.
. "$(dirname "$0")/functions.sh"
requires nbdkit qemu-nbd qemu-img nbdcopy
"$farblk" --help >out 2>&1
grep -q 'nbd+unix' out || {
    echo "no nbd driver in this build: skipped"
    exit 77
}

# The example: it must run, and show what it promises.
awk '/^## / { on = $0 == "## nbd" } on && /^```sh$/ { code = 1; next }
     /^```$/ { code = 0 } code' \
    "$source/docs/drivers.md" >example.sh
[ -s example.sh ] || fail "docs/drivers.md has no example of nbd"
expect 0 env PATH="$build:$PATH" bash -eu example.sh
out_has "1048576                32768  mapped" # nbdkit keeps pages of 32k
out_has "driver              nbd"
[ "$(stat -c %s copy.img)" -eq $((64 << 20)) ] || fail "no copy of 64 MiB"
cp out kept && grep -q "67108864 " kept || fail "no list"

# A qcow2 behind qemu-nbd, by way of farblkd into a raw file, and back.
random 3000000 >data
truncate -s 24M raw
dd if=data of=raw bs=1M seek=5 conv=notrunc status=none
expect 0 qemu-img convert -O qcow2 raw disk.qcow2
qemu-nbd -t -e 0 -f qcow2 -x disk -k "$work/q.sock" disk.qcow2 &
other_pids+=($!)
for ((i = 0; i < 600; i++)); do # it says nowhere when it is ready
    [ -S q.sock ] && break
    sleep 0.1
done
[ -S q.sock ] || fail "qemu-nbd did not begin"
uri="nbd+unix:///disk?socket=$work/q.sock"
start_farblkd --export "disk=$uri" --export "copy=file:$work/copy.raw?create=1&size=24M"
expect 0 "$farblk" info "$(ipc_uri disk)"
out_has "25165824"
expect 0 "$farblk" copy "$(ipc_uri disk)" "$(tcp_uri copy)"
expect 0 "$farblk" compare "$uri" "$(tcp_uri copy)"
stop_farblkd
expect 0 qemu-img compare -f raw -F qcow2 copy.raw disk.qcow2 -U
same copy.raw raw
random 1000000 >more
truncate -s $((1000000 / 512 * 512)) more
expect 0 "$farblk" write "$uri" --offset 11M -i more
dd if=more of=raw bs=1M seek=11 conv=notrunc status=none
expect 0 "$farblk" discard "$uri" --offset 20M --length 1M
expect 0 "$farblk" zero "$uri" --offset 6M --length 64k
dd if=/dev/zero of=raw bs=64k seek=96 count=1 conv=notrunc status=none
expect 0 "$farblk" flush "$uri"
expect 0 nbdcopy "$uri" now.raw
same now.raw raw
expect 0 "$farblk" copy file:raw "$uri"
expect 0 qemu-img compare -f raw raw "$uri"

# What fails says why, and is seen in the exit status.
expect 1 "$farblk" info "nbd+unix:///other?socket=$work/q.sock"
err_has "NOT_FOUND"
expect 1 "$farblk" info "nbd+unix:///?socket=$work/none"
err_has "No such file"
expect 1 "$farblk" list "nbd+unix:///disk?socket=$work/q.sock"
expect 0 "$farblk" list --json "nbd+unix:///?socket=$work/q.sock"
out_is_json
out_has '"name": "disk"'

# Certificates: a server that a wrong authority has signed is none of ours.
command -v openssl >/dev/null || {
    echo "no openssl: certificates are not tried"
    exit 0
}
authority() # FOLDER
{
    mkdir "$1" && chmod 700 "$1"
    {
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$1" \
            -keyout "$1/ca-key.pem" -out "$1/ca-cert.pem" &&
            for who in server client; do
                openssl req -newkey rsa:2048 -nodes -subj /CN=localhost \
                    -keyout "$1/$who-key.pem" -out "$1/$who.csr" &&
                    openssl x509 -req -days 2 -in "$1/$who.csr" \
                        -CA "$1/ca-cert.pem" -CAkey "$1/ca-key.pem" \
                        -CAcreateserial -out "$1/$who-cert.pem" \
                        -extfile <(echo subjectAltName=DNS:localhost) ||
                    exit 1
            done
    } >openssl.log 2>&1 || fail "openssl: $(cat openssl.log)"
}
authority ours
authority theirs
cat >tls.sh <<END
at="nbds+unix:///?socket=\$1"
"$farblk" info "\$at&tls-certificates=$work/ours" || exit 1
head -c 512 "$work/raw" | "$farblk" write "\$at&tls-certificates=$work/ours" \
    --offset 0 || exit 2
"$farblk" info "\$at&tls-certificates=$work/theirs" && exit 3
"$farblk" info "nbd+unix:///?socket=\$1" && exit 4
exit 0
END
expect 0 nbdkit --unix - --tls=require --tls-verify-peer \
    --tls-certificates="$work/ours" memory 1M --run "bash $work/tls.sh \"\$unixsocket\""
out_has "tls+ipc"
err_has "DENIED"
