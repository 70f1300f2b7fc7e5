#!/bin/bash
# SPDX-License-Identifier: ISC
# The documents tell of the code as it is: drivers and their parameters, the
# first program, exported functions, links, the way of one read.
set -u
cd "${FARBLK_SOURCE:-$(dirname "$0")/..}" || exit 1
build=${FARBLK_BUILD:?}
bad=0
complain() { echo "$*"; bad=1; }

# Each driver has a section "## NAME" in docs/drivers.md, which tells its
# schemes and its parameters; those of all schemes may stand in the first one.
section() # FILE HEADING
{
    awk -v heading="## $2" '/^## /{ on = $0 == heading } on' "$1"
}
common=$(section docs/drivers.md "Every scheme")
drivers=0
while read -r kind driver word; do
    text=$(section docs/drivers.md "$driver")
    case $kind in
    driver)
        drivers=$((drivers + 1))
        [ -n "$text" ] || complain "docs/drivers.md has no section ## $driver"
        ;;
    scheme)
        grep -qF "\`$word:" <<<"$text" ||
            complain "docs/drivers.md, $driver: no word of \`$word:"
        ;;
    parameter)
        grep -qF "\`$word=" <<<"$text$common" ||
            complain "docs/drivers.md, $driver: no word of \`$word="
        ;;
    esac
done < <("$build/tests/list_drivers")
[ $drivers -gt 0 ] || complain "the library told of no driver"

# The README's C program is examples/first.c, to the octet.
awk '/^```c$/ { on = 1; next } /^```$/ && on { exit } on' README.md |
    diff - examples/first.c >/dev/null ||
    complain "the C program in README.md differs from examples/first.c"
[ "$(wc -l <examples/first.c)" -lt 60 ] ||
    complain "examples/first.c is no longer short"

# And the one in docs/tar.md is examples/archive.c.
awk '/^```c$/ { on = 1; next } /^```$/ && on { exit } on' docs/tar.md |
    diff - examples/archive.c >/dev/null ||
    complain "the C program in docs/tar.md differs from examples/archive.c"

# Exported and declared are the same functions.
sed -n '/global:/,/local:/p' cmake/farblk.map | grep -oE 'farblk_[a-z0-9_]+' |
    sort -u >"$build/check_docs.exported"
sed 's:/\*.*\*/::' include/farblk/*.h | tr '\n' ' ' |
    grep -oE 'FARBLK_API [^;()]*\(' | grep -oE 'farblk_[a-z0-9_]+ *\($' |
    tr -d '( ' | sort -u >"$build/check_docs.declared"
diff "$build/check_docs.exported" "$build/check_docs.declared" ||
    complain "exported (<) and declared (>) functions differ"

# Man pages name functions that exist.
for page in man/*.3; do
    while read -r name; do
        grep -qx "$name" "$build/check_docs.declared" ||
            complain "$page: there is no $name()"
    done < <(grep -oE '\bfarblk_[a-z_]+\(\)' "$page" | tr -d '()' | sort -u)
done

# docs/limits.md: each option is farblkd's and in its man page, each test is
# there; each option that bounds something is in the table.
help=$("$build/farblkd" --help)
limits=$(grep '^| ' docs/limits.md)
while read -r option; do
    grep -qE -- "^  $option " <<<"$help" ||
        complain "docs/limits.md: farblkd has no $option"
    grep -qF -- "${option//-/\\-}" man/farblkd.8 ||
        complain "man/farblkd.8: no word of $option"
done < <(grep -oE -- '--[a-z-]+' <<<"$limits" | sort -u)
while read -r option; do
    grep -qF -- "\`$option\`" <<<"$limits" ||
        complain "docs/limits.md: no word of $option"
done < <(grep -oE -- '^  --(max-[a-z]+|[a-z]+-(timeout|sessions|limit)|lease|keepalive) ' \
    <<<"$help" | tr -d ' ')
while read -r test; do
    [ -e "tests/$test.c" ] || complain "docs/limits.md: there is no $test"
done < <(grep -oE 'test_[a-z_]+' <<<"$limits" | sort -u)

# Links to files of the tree, and the headings they point at.
while IFS=: read -r file link; do
    path=${link%%#*}
    at=$(dirname "$file")/$path
    case $link in
    *://* | mailto:*) continue ;;
    '#'*) at=$file ;;
    esac
    if [ ! -e "$at" ]; then
        complain "$file: there is no $path"
    elif [[ $link == *'#'* ]]; then
        grep '^#' "$at" | sed 's/^#* *//' | tr '[:upper:] ' '[:lower:]-' |
            tr -cd '[:alnum:]_\n-' | grep -qx -- "${link#*#}" ||
            complain "$file: $at has no heading #${link#*#}"
    fi
done < <(find . -name '*.md' -not -path './build*' -not -path './.git/*' \
    -exec grep -HoE '\]\([^) ]+\)' {} + |
    sed -E 's/^([^:]*):\]\((.*)\)$/\1:\2/')

# docs/architecture.md, "Following one read": | `function` | `file` | ... |
rows=0
while IFS='|' read -r _ function file _; do
    function=$(tr -d '` ()' <<<"$function")
    file=$(tr -d '` ' <<<"$file")
    rows=$((rows + 1))
    if [ ! -e "$file" ]; then
        complain "docs/architecture.md: there is no $file"
    else
        grep -qE "^$function\(|[ *]$function\(.*\)$" "$file" ||
            complain "docs/architecture.md: $file does not define $function()"
    fi
done < <(section docs/architecture.md "Following one read" | grep '^| `')
[ $rows -gt 5 ] || complain "docs/architecture.md does not follow one read"

exit $bad
