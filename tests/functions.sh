# SPDX-License-Identifier: ISC
# What the shell tests of the programs share; they source it.  Runs from the
# build folder that FARBLK_BUILD names, in a folder of its own that goes at the
# end, as does every process that was started here.
set -u
build=$(cd "${FARBLK_BUILD:?}" && pwd) || exit 1
source=${FARBLK_SOURCE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
farblk=$build/farblk
work=$(mktemp -d "${TMPDIR:-/tmp}/farblk-test.XXXXXX") || exit 1
cd "$work" || exit 1
farblkd_pids=()
other_pids=() # of what a test starts by itself
# script(1) runs its command by this shell, and ulimit's unit differs in others.
SHELL=$(command -v bash) && export SHELL

# The test ends, fine or not.
functions_end()
{
    local status=$? pid
    for pid in "${farblkd_pids[@]}" "${other_pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
    done
    cd / && rm -rf "$work"
    exit $status
}
trap functions_end EXIT

fail() # TEXT ...
{
    echo "FAILED at line ${BASH_LINENO[*]}: $*"
    for file in out err farblkd.err; do
        [ -s "$work/$file" ] && echo "--- $file:" && tail -n 30 "$work/$file" |
            head -c 4096
    done
    exit 1
}

# Skip what is left of the test without a terminal to be had.
requires_terminal()
{
    requires script
    script -qec true /dev/null </dev/null >/dev/null 2>&1 || {
        echo "no terminals here: skipped"
        exit 77
    }
}

# Skip the whole test without these commands.
requires() # COMMAND ...
{
    local command
    for command; do
        command -v "$command" >/dev/null || {
            echo "no $command: skipped"
            exit 77
        }
    done
}

# Run a command; its output goes to ./out and ./err.  Any other exit status
# than STATUS fails the test.
expect() # STATUS COMMAND ...
{
    local wanted=$1 status=0
    shift
    "$@" >out 2>err || status=$?
    [ $status -eq "$wanted" ] || fail "exit status $status, not $wanted: $*"
}

# The last command's stdout, or stderr, has this text.
out_has() { grep -qF -- "$1" out || fail "stdout has no \"$1\""; }
err_has() { grep -qF -- "$1" err || fail "stderr has no \"$1\""; }

same() # FILE FILE
{
    cmp "$1" "$2" || fail "$1 and $2 differ"
}

random() # OCTETS: to stdout
{
    head -c "$1" /dev/urandom
}

# ./out is JSON.  Without python3 only strings, brackets and words are looked
# at.
out_is_json()
{
    : "${functions_python:=$(python3 -c 'print("yes")' 2>/dev/null || echo no)}"
    if [ "$functions_python" = yes ]; then
        python3 -c 'import json, sys; json.load(sys.stdin)' <out ||
            fail "not JSON"
        return
    fi
    sed -E 's/"([^"\\]|\\.)*"/S/g' out | awk '
        { text = text $0 }
        END {
            if (text !~ /^[][{}:, S0-9.a-z-]*$/) exit 1
            for (i = 1; i <= length(text); i++) {
                c = substr(text, i, 1)
                if (c ~ /[[{]/) stack = stack c
                if (c == "]" && stack !~ /[[]$/) exit 1
                if (c == "}" && stack !~ /[{]$/) exit 1
                if (c ~ /[]}]/) stack = substr(stack, 1, length(stack) - 1)
            }
            if (stack != "" || text ~ /,[ ]*[]}]/) exit 1
        }' || fail "not JSON"
}

# The number or word that ./out, JSON with a member a line, has for a key.
out_member() # KEY
{
    sed -nE "s/^ *\"$1\": (.*[^,]),?\$/\\1/p" out
}

# Start a farblkd on an ipc and a tcp address with these options, and wait
# until it says that it is ready.  Sets farblkd_pid, and ipc_uri and tcp_uri
# for the rest (NAME goes in by remote_uri).
start_farblkd() # OPTION ...
{
    local line
    [ -x "$build/farblkd" ] || {
        echo "no farblkd: skipped"
        exit 77
    }
    rm -f ready && mkfifo ready || fail "mkfifo"
    "$build/farblkd" --listen "ipc://$work/socket" \
        --listen tcp://127.0.0.1:0 "$@" >ready 2>>farblkd.err &
    farblkd_pid=$!
    farblkd_pids+=("$farblkd_pid")
    # Stays open, so that what it says later finds somebody.
    exec 9<ready
    port=
    while read -r -t 120 line <&9; do
        case $line in
        "farblkd: listening on tcp://"*) port=${line##*:} ;;
        "farblkd: ready") break ;;
        esac
    done
    [ "$line" = "farblkd: ready" ] && [ -n "$port" ] ||
        fail "farblkd did not begin"
}

# The URI of an export of that farblkd.
ipc_uri() { echo "farblk+unix:///$1?socket=$work/socket${2:+&$2}"; }
tcp_uri() { echo "farblk://127.0.0.1:$port/$1${2:+?$2}"; }

# SIGTERM; it must end well.
stop_farblkd()
{
    local status=0
    kill -TERM "$farblkd_pid"
    wait "$farblkd_pid" || status=$?
    farblkd_pids=()
    [ $status -eq 0 ] || fail "farblkd ended with $status"
}

# Kill it at once.
kill_farblkd()
{
    kill -KILL "$farblkd_pid"
    wait "$farblkd_pid" 2>/dev/null
    farblkd_pids=()
}
