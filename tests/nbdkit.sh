# SPDX-License-Identifier: ISC
# What the tests of the nbdkit plugin share; they source it: functions.sh, and
# an nbdkit of the test's own.
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"
requires nbdkit
plugin=$build/nbdkit-farblk-plugin.so
nbdkit_pids=()

# The test ends, fine or not.
nbdkit_end()
{
    local status=$? pid
    for pid in "${nbdkit_pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
    done
    (exit $status)
    functions_end
}
trap nbdkit_end EXIT

FARBLK_PRELOAD=${FARBLK_PRELOAD-}
# A plugin with a sanitizer wants its runtime in nbdkit, which has none.  Leaks
# are not looked for: nbdkit 1.32 leaves connections as they are when it is told
# to end while it closes them.
[ "$FARBLK_PRELOAD" != none ] || {
    echo "this compiler's sanitizer can not be loaded into nbdkit: skipped"
    exit 77
}
preload() # COMMAND ...: instead of this shell
{
    exec env ${FARBLK_PRELOAD:+LD_PRELOAD=$FARBLK_PRELOAD} \
        ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0" \
        TSAN_OPTIONS="${TSAN_OPTIONS:+$TSAN_OPTIONS:}atexit_sleep_ms=0" "$@"
}

# A fifo where a program will write its pid when it is ready, and waiting for
# that: sets `ready` to the pid, or to nothing when PROCESS ended before.
ready_fifo() # FIFO
{
    rm -f "$1" && mkfifo "$1" && exec 8<>"$1" || fail "mkfifo $1"
}
await_ready() # PROCESS
{
    ready=
    # There may be no line's end behind it.
    until read -r -t 0.2 -u 8 ready || [ -n "$ready" ]; do
        kill -0 "$1" 2>/dev/null || break
    done
    exec 8<&-
    [ -n "$ready" ]
}

# Start nbdkit at the socket ./NAME.nbd with these options and parameters, and
# wait until it listens.  Its log is ./NAME.log.  Sets nbdkit_pid.
start_nbdkit() # NAME WORD ...
{
    local name=$1
    shift
    rm -f "$name.nbd"
    ready_fifo "$name.pid"
    preload nbdkit -f -U "$work/$name.nbd" -P "$work/$name.pid" "$@" \
        2>>"$name.log" 8<&- 9<&- &
    nbdkit_pid=$!
    nbdkit_pids+=("$nbdkit_pid")
    await_ready "$nbdkit_pid" || fail "nbdkit: $(cat "$name.log")"
}

# The URI of an export of that nbdkit.
nbd_uri() { echo "nbd+unix:///${2-}?socket=$work/$1.nbd"; } # NAME [EXPORT]

# SIGTERM; it must end well.
stop_nbdkit() # NAME PID
{
    local status=0 pid kept=()
    kill -TERM "$2"
    wait "$2" || status=$?
    for pid in "${nbdkit_pids[@]}"; do
        [ "$pid" = "$2" ] || kept+=("$pid")
    done
    nbdkit_pids=("${kept[@]}")
    [ $status -eq 0 ] || fail "nbdkit ended with $status: $(cat "$1.log")"
}

# Octets in a file: random, with a seed, so that a failure comes again.
put() # FILE OFFSET OCTETS
{
    random "$3" | dd of="$1" oflag=seek_bytes conv=notrunc seek="$2" status=none
}

# An image of 16 MiB: data here and there, holes of 64 KiB and more between.
make_sparse() # FILE
{
    rm -f "$1" && truncate -s 16M "$1" || fail "truncate"
    put "$1" 0 64k
    put "$1" 1M 1M
    put "$1" 5111808 65536
    put "$1" 16711680 65536
}
