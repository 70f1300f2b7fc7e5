#!/bin/bash
# SPDX-License-Identifier: ISC
# The service file: systemd finds nothing wrong with it and little that is
# exposed, and farblkd works as it runs it, as far as that can be had without
# systemd: as another user without capabilities or new privileges, within the
# memory that may be locked, and (tests/confine.c) without any system call that the
# unit's filter does not have and without memory that is written and executed.
# It works on a file (by io_uring where there is) and on a ramdisk, over shared
# memory and TLS.
# What is left to systemd are the places that it hides, and address families.
. "$(dirname "$0")/functions.sh"
farblkd=$build/farblkd
unit=$source/systemd/farblkd.service

if command -v systemd-analyze >/dev/null; then
    sed "s:/usr/bin/farblkd:$farblkd:" "$unit" >farblkd.service
    # Other units of this machine, and its users, are not our affair.
    systemd-analyze verify ./farblkd.service 2>verify.log || true
    if grep 'farblkd\.service' verify.log | grep -v "Command 'man"; then
        fail "systemd-analyze verify complains"
    fi
    systemd-analyze security --offline=true --threshold=20 ./farblkd.service \
        >security.log 2>&1 || fail "$(tail -n 3 security.log)"
    for call in io_uring_setup io_uring_enter memfd_create mlock sendmsg \
        setsockopt fallocate fdatasync preadv pwritev2; do
        systemd-analyze syscall-filter @system-service >groups.log
        for group in $(grep -oE '^ +@[a-z-]+' groups.log); do
            systemd-analyze syscall-filter "$group" >>groups.log
        done
        grep -qE "^ +$call$" groups.log ||
            grep -qE "^SystemCallFilter=[^~].*\b$call\b" "$unit" ||
            fail "the filter has no $call"
    done
else
    echo "no systemd-analyze: the service file is not judged"
fi

# The numbers of the calls that SystemCallFilter= leaves, one a line.
names_of() # WORD ...
{
    local word
    for word; do
        case $word in
        @*) names_of $(systemd-analyze syscall-filter "$word" |
            sed -nE '2,$s/^ +([@a-z0-9_-]+)$/\1/p') ;;
        *) echo "$word" ;;
        esac
    done
}
confined=()
if ! ldd "$farblkd" | grep -qE 'lib[at]san' && # which do other calls, too
    command -v systemd-analyze >/dev/null && command -v cc >/dev/null; then
    names_of $(sed -n 's/^SystemCallFilter=\([^~]\)/\1/p' "$unit") | sort -u >allowed
    names_of $(sed -n 's/^SystemCallFilter=~//p' "$unit") | sort -u >denied
    comm -23 allowed denied >names
    echo '#include <sys/syscall.h>' | cc -E -dM - |
        sed -nE 's/^#define __NR_([a-z0-9_]+) ([0-9]+)$/\1 \2/p' | sort >numbers
    join names numbers | cut -d' ' -f2 >calls
    [ "$(wc -l <calls)" -gt 150 ] || fail "the filter has few calls"
    confined=("$build/tests/confine" "$PWD/calls")
    "${confined[@]}" /bin/true || {
        [ $? -eq 77 ] || fail "a filter kills /bin/true"
        confined=()
    }
    # It does what it is for.
    if [ ${#confined[@]} -gt 0 ] && command -v chroot >/dev/null; then
        status=0
        "${confined[@]}" "$(command -v chroot)" / /bin/true 2>/dev/null || status=$?
        [ $status -eq 159 ] || fail "the filter lets chroot() pass" # SIGSYS
    fi
fi
[ ${#confined[@]} -gt 0 ] || echo "not tried with the filter of system calls"

# The configuration that comes with it is read, with other paths.
mkdir -p run state
sed -e "s:/run/farblk:$PWD/run:" -e "s:/var/lib/farblk:$PWD/state:" \
    -e 's:^# \(export = scratch.*\)1G$:\116M:' "$source/systemd/farblkd.conf" >farblkd.conf
echo "export = disk0=file:$PWD/state/disk0.img?create=1&size=4M" >>farblkd.conf

around=()
if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
    chmod 755 .
    chown 65534:65534 run state
    around=(setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs
        --bounding-set=-all --inh-caps=-all)
    "${around[@]}" test -x "$farblkd" -a -w run || around=()
fi
[ ${#around[@]} -gt 0 ] || echo "not tried as another user"
# TLS, with a key that the other user can read.
mkdir certs
FARBLK_SOURCE=$source bash "$source/tests/certs.sh" "$PWD/certs" >certs.log 2>&1 ||
    fail "no certificates"
[ ${#around[@]} -eq 0 ] || chown -R 65534:65534 certs
printf '%s\n' 'listen = tls+tcp://127.0.0.1:0' "tls-cert = $PWD/certs/server.pem" \
    "tls-key = $PWD/certs/server.key" >>farblkd.conf
mkfifo out
(ulimit -l 65536 2>/dev/null || true
    exec "${around[@]}" "${confined[@]}" "$farblkd" --config farblkd.conf >out 2>farblkd.err) &
pid=$!
other_pids+=("$pid")
exec 3<out
tls=
while read -r line <&3; do
    case $line in
    *tls+tcp://*) tls=${line##*tls+tcp://} ;;
    esac
    [ "$line" != "farblkd: ready" ] || break
done
[ "${line-}" = "farblkd: ready" ] || fail "farblkd is not ready"
server="socket=$PWD/run/farblk.sock"
[ "$("$farblk" list "farblk+unix:///?$server" | grep -cE 'disk0|scratch')" -eq 2 ] ||
    fail "not both devices are listed"
head -c 1M /dev/urandom >data
for device in disk0 scratch; do
    "$farblk" write "farblk+unix:///$device?$server&sync=1" --offset 0 -i data
    "$farblk" read "farblk+unix:///$device?$server" --offset 0 --length 1M -o back
    cmp data back || fail "$device gives other data"
done
"$farblk" read "farblk+unix:///disk0?$server&shm=require" --offset 0 \
    --length 1M -o back || fail "no shared memory"
cmp data back || fail "shared memory gives other data"
"$farblk" read "farblks://$tls/scratch?ca=$PWD/certs/ca.pem" --offset 0 --length 1M \
    -o back || fail "no TLS"
cmp data back || fail "TLS gives other data"
kill -TERM "$pid"
wait "$pid" || fail "farblkd ended with $?"
other_pids=()
exit 0
