#!/bin/bash
# SPDX-License-Identifier: ISC
# The service file: systemd finds nothing wrong with it and little that is
# exposed, its system calls are those that are needed, and farblkd works as it
# runs it, as far as that can be had without systemd: as another user without
# capabilities, new privileges, or memory that is written and executed.
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
mkfifo out
(ulimit -l 65536 2>/dev/null || true
    exec "${around[@]}" "$farblkd" --config farblkd.conf >out 2>farblkd.err) &
pid=$!
other_pids+=("$pid")
exec 3<out
while read -r line <&3; do
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
kill -TERM "$pid"
wait "$pid" || fail "farblkd ended with $?"
other_pids=()
exit 0
