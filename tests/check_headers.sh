#!/bin/bash
# SPDX-License-Identifier: ISC
# Each header compiles alone, with all warnings; the public ones as strict C11
# and as C++ too.
set -u
cd "${FARBLK_SOURCE:-$(dirname "$0")/..}" || exit 1
build=${FARBLK_BUILD:?}
cc=$(sed -n 's/^CMAKE_C_COMPILER:[^=]*=//p' "$build/CMakeCache.txt")
cxx=$(command -v g++ || command -v clang++ || true)
warnings=(-Wall -Wextra -Wconversion -Wno-sign-conversion -Wshadow -Werror)
bad=0

compile() # HEADER COMPILER ...
{
    local header=$1
    shift
    # Twice: the guard has to work as well.
    printf '#include "%s"\n#include "%s"\n' "$header" "$header" |
        "${@:1:1}" "${warnings[@]}" "${@:2}" -fsyntax-only -Iinclude - || {
        echo "$header does not compile alone by: $*"
        bad=1
    }
}

for header in include/farblk/*.h; do
    name=${header#include/}
    compile "$name" "$cc" -std=c11 -pedantic -Wstrict-prototypes -x c
    if [ -n "$cxx" ]; then
        # A structure and a function of one name are fine in C++ as well.
        compile "$name" "$cxx" -std=c++11 -pedantic -Wno-shadow -x c++
    fi
done
for header in core/*.h proto/*.h backends/*.h client/*.h server/*.h \
    tar/*.h tools/*.h nbdkit/*.h tests/*.h; do
    [ -e "$header" ] || continue
    compile "$header" "$cc" -std=gnu11 -D_GNU_SOURCE -Wstrict-prototypes \
        -I. -I"$build" -x c
done
exit $bad
