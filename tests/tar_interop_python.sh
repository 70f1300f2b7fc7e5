#!/bin/bash
# SPDX-License-Identifier: ISC
# Archives of Python's tarfile, read by us, and ours by tarfile.
. "$(dirname "$0")/tar_functions.sh"
requires python3

make_tree short short
make_tree long long
expected short >short.expected
expected long >long.expected

cat >make.py <<'END'
import sys, tarfile
name, tree, form = sys.argv[1:]
with tarfile.open(name, "w", format=getattr(tarfile, form)) as archive:
    archive.add(tree, arcname=".")
END
cat >extract.py <<'END'
import os, sys, tarfile
name, where = sys.argv[1:]
with tarfile.open(name, errorlevel=2) as archive:
    for member in archive:
        path = os.path.join(where, member.name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as out:
            out.write(archive.extractfile(member).read())
END
python3 make.py ustar.tar short USTAR_FORMAT || fail "tarfile ustar"
expect_found ustar.tar short.expected
for format in GNU PAX; do
    python3 make.py $format.tar long ${format}_FORMAT || fail "tarfile $format"
    expect_found $format.tar long.expected
done

for sector in 512 4096; do
    make_ours ours.tar long $sector
    rm -rf extracted && mkdir extracted
    python3 extract.py ours.tar extracted 2>err || fail "tarfile: $(cat err)"
    expect_kept extracted tarfile
done
make_ours huge.tar short 512 huge
python3 -m tarfile -l huge.tar >listed || fail "tarfile of 9 GiB"
grep -q '^behind' listed || fail "nothing behind 9 GiB"
