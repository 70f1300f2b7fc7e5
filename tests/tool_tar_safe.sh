#!/bin/bash
# SPDX-License-Identifier: ISC
# farblk tar extract before archives that want out of the directory, and in
# directories that lead out of themselves: nothing outside is made or changed.
. "$(dirname "$0")/tar_functions.sh"
requires python3

# make ARCHIVE: members told by lines on stdin: TYPE NAME [LINK or TEXT]
cat >make.py <<'END'
import io, sys, tarfile
kinds = {"file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE,
         "symlink": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE,
         "fifo": tarfile.FIFOTYPE, "char": tarfile.CHRTYPE,
         "block": tarfile.BLKTYPE}
with tarfile.open(sys.argv[1], "w", format=tarfile.PAX_FORMAT) as archive:
    for line in sys.stdin:
        kind, name, *rest = line.split()
        member = tarfile.TarInfo(name)
        member.type = kinds[kind]
        member.mtime = 1400000000
        member.mode = 0o7777
        data = b""
        if kind in ("symlink", "hard"):
            member.linkname = rest[0]
        elif kind == "file":
            data = (" ".join(rest) + "\n").encode()
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
END
make() { python3 make.py "$1" || fail "tarfile"; }

# A world of its own; `snapshot` must never change.
fresh()
{
    chmod -R u+rwx world 2>/dev/null
    rm -rf world
    mkdir -p world/outside/sub world/dir
    echo precious >world/outside/victim
    chmod 600 world/outside/victim
    touch -d @1000000000 world/outside/victim
    snapshot >snapshot
}
snapshot()
{
    (cd world && find . -path ./dir -prune -o \
        -printf '%p %y %s %m %T@ %l\n' | sort && cat outside/victim)
}
# Extract and look that nothing has happened outside.
extract() # STATUS [OPTION ...]
{
    local status=$1
    shift
    expect "$status" "$farblk" tar extract "file:$work/a.tar" -C world/dir "$@"
    snapshot | diff snapshot - >differs || fail "outside: $(cat differs)"
    [ -z "$(find world -name '.farblk*')" ] || fail "temporary files are left"
}
inside() { (cd world/dir && find . -mindepth 1 -printf '%P\n' | sort | xargs); }
expect_inside() # NAME ...
{
    [ "$(inside)" = "$*" ] || fail "inside are: $(inside), not: $*"
}

# Names that lead out.
fresh
make a.tar <<END
file ../up no
file a/../../up no
file b/.. no
dir ../updir
file $work/world/outside/absolute yes
file //twice yes
file ./fine yes
hard ../link fine
symlink ../sym fine
END
extract 1
err_has '../up: a name with ".."'
err_has 'a/../../up: a name with ".."'
[ -f "world/dir$work/world/outside/absolute" ] || fail "an absolute name"
[ "$(cat world/dir/fine world/dir/twice)" = "yes
yes" ] || fail "the others"

# Links in the archive that its own files would go through.
fresh
make a.tar <<END
symlink link $work/world/outside
file link/evil no
symlink up ../outside
file up/victim no
dir up2
symlink up2/link ../../outside
file up2/link/victim no
END
extract 0
[ -f world/dir/link/evil ] && [ ! -L world/dir/link ] || fail "link/evil"
expect_inside link link/evil up up/victim up2 up2/link up2/link/victim
make a.tar <<END
file deep/file no
symlink deep $work/world/outside
file deep/victim no
END
fresh
extract 0
expect_inside deep deep/victim

# Symbolic links that lead out, or may, are not made.
fresh
make a.tar <<END
symlink absolute /etc/passwd
symlink up ../outside/victim
symlink a/up ../../outside/victim
symlink dotted ./../outside
symlink late a/b/../../../outside
symlink x ../b
symlink a/x ../b
symlink y a/x/../..
symlink ok a/x
symlink a/ok2 ../ok
symlink a/b/ok3 .././../fine
symlink a/b/ok4 ../..
file fine yes
END
extract 1
for link in absolute up a/up dotted late x y; do
    err_has "extract: $link: a link to"
    [ ! -e world/dir/$link ] && [ ! -L world/dir/$link ] || fail "$link is there"
done
expect_inside a a/b a/b/ok3 a/b/ok4 a/ok2 a/x fine ok
[ "$(stat -c %Y world/dir/ok)" = 1400000000 ] || fail "the time of a link"
# Unless it is asked for; nothing goes through them then either.
extract 0 --unsafe-links
[ "$(readlink world/dir/up)" = ../outside/victim ] || fail "--unsafe-links"
extract 0 --unsafe-links
make a.tar <<END
file up/victim no
file a/up changed
END
extract 1
err_has "up/victim: a link, or something else that is no directory"
[ "$(cat world/dir/a/up)" = changed ] && [ ! -L world/dir/a/up ] ||
    fail "a file did not replace a link"

# Links that were there before.
fresh
ln -s ../outside world/dir/there
ln -s ../../outside world/dir/loop
ln -s ../outside/victim world/dir/file
ln world/outside/victim world/dir/hard
snapshot >snapshot
make a.tar <<END
file there/victim no
dir there/sub
dir there
symlink there/link x
file there/new no
file file yes
file hard yes
hard there/hard file
file fine yes
END
extract 1
[ "$(grep -c "is in the way" err)" -eq 6 ] || fail "what was in the way"
[ ! -L world/dir/file ] && [ "$(cat world/dir/file)" = yes ] || fail "file"
[ "$(cat world/dir/hard)" = yes ] || fail "hard"
[ "$(readlink world/dir/there)" = ../outside ] || fail "there"

# Hard links: to what is outside, to what only the directory has, to links.
fresh
echo mine >world/dir/mine
make a.tar <<END
hard one ../outside/victim
hard two $work/world/outside/victim
hard three mine
symlink sym $work/world/outside/victim
hard four sym
file real yes
hard five real
hard six five
END
extract 1
for link in one two three; do
    err_has "$link: a link to"
done
expect_inside five mine real six
[ world/dir/five -ef world/dir/real ] && [ world/dir/six -ef world/dir/real ] ||
    fail "hard links inside"
extract 0 real five
[ world/dir/five -ef world/dir/real ] || fail "hard links, again"
# The target's name is a link to the outside by the time of the extraction.
fresh
ln -s ../outside/victim world/dir/real
extract 0 five
[ "$(cat world/dir/five)" = yes ] || fail "five"

# What is in the way stays.
fresh
mkdir -p world/dir/full world/dir/fine && echo kept >world/dir/full/kept
echo kept >world/dir/plain
make a.tar <<END
file full no
symlink fine x
dir plain
file plain2/x yes
hard fine plain2/x
END
extract 1
err_has "full: Is a directory"
err_has "plain: a link, or something else"
[ "$(cat world/dir/full/kept world/dir/plain)" = "kept
kept" ] || fail "what was in the way has gone"

# Setuid, setgid and sticky bits go; devices and fifos are left out, told.
fresh
make a.tar <<END
file suid yes
dir sticky
fifo pipe
char tty
block sda
hard pipe2 pipe
END
extract 0 -p
[ "$(stat -c '%a' world/dir/suid world/dir/sticky | xargs)" = "777 777" ] ||
    fail "modes: $(stat -c %a world/dir/suid world/dir/sticky)"
for what in "pipe: a fifo" "pipe2: a fifo" "tty: a device" "sda: a device"; do
    err_has "extract: $what; skipped"
done
expect_inside sticky suid

# The archive's root says nothing about the directory itself.
fresh
chmod 750 world/dir
make a.tar <<END
dir .
file x yes
END
extract 0
[ "$(stat -c %a world/dir)" = 750 ] || fail "the directory's own mode"

# Names that are too long for the file system; terminals are left in peace.
fresh
make a.tar <<END
file $(printf '%0299d' 1) no
file $(printf '%0300d' 1)/x no
file $(printf "a/%.0s" $(seq 1 1500))end yes
file $(printf 'bell\007') yes
END
extract 1
[ "$(grep -c "File name too long" err)" -eq 2 ] || fail "names that are too long"
[ "$(find world/dir -name end | wc -l)" -eq 1 ] || fail "no deep file"

# A full disk, or a limit: the file that was there stays.
fresh
head -c 300000 /dev/zero | tr '\0' x >large
tar -cf a.tar large || fail "tar"
echo old >world/dir/large
(
    trap '' XFSZ
    ulimit -f 100
    extract 1
) || exit 1
[ "$(cat world/dir/large)" = old ] || fail "the old file"
extract 0
same large world/dir/large
