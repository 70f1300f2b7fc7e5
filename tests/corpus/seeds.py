#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Write the inputs that fuzzing begins with: NAME.seed in server/, client/, shm/,
shm_client/ and config/ beside this file.  What the engines found since stands beside them under
other names.

An input of server/ is one octet that says how (tests/fuzz_server.c), then what
a client sends; of client/ the same for a server (tests/fuzz_client.c); of shm/ what
a client does to its ring, step by step (tests/fuzz_shm.c); of shm_client/ what a
server does (tests/fuzz_shm_client.c).
"""
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
IPC, PIECES, RESET, MUTE, TWO, OTHER, DEAF = 1, 2, 4, 8, 16, 32, 64
REQ = b"\0SP\0\0\x30\0\0"
REP = b"\0SP\0\0\x31\0\0"
SESSION = b"SESSION1"
SECRET = b"SECRET_OF_NO___1"
HANDLE = 1 << 32 | 1
(HELLO, PING, LIST, OPEN, DISCONNECT, INFO, READ, WRITE, FLUSH, DISCARD,
 ZEROES, RESIZE, MAPPED, UNMAPPED, EXTENTS, WATCH, SHARE, CANCEL) = range(1, 19)


def varint(n):
    n &= (1 << 64) - 1
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def message(*fields):
    """(number, value) pairs: int, octets, or ("fixed", 8 octets)."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        elif isinstance(value, tuple):
            out += varint(number << 3 | 1) + value[1]
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def frame(ipc, request, header, payload=b"", hops=b""):
    body = (hops + struct.pack(">I", 0x80000000 | request)
            + struct.pack(">I", len(header)) + header + payload)
    return (b"\1" if ipc else b"") + struct.pack(">Q", len(body)) + body


class Client:
    def __init__(self, how):
        self.how = how
        self.out = bytes([how]) + REQ
        self.request = 0
        self.number = 0

    def ask(self, method, args=b"", payload=b"", handle=None, number=None,
            lowest=None, secret=None, session=SESSION, request=None, hops=b"",
            deadline=0):
        self.request += 2 if self.how & TWO else 1
        fields = [(1, method)]
        if method != HELLO:
            if number is None:
                self.number += 1
                number = self.number
            fields += [(2, ("fixed", session)), (3, number),
                       (4, number if lowest is None else lowest)]
            if handle is None and method > OPEN:
                handle = HANDLE
            if handle:
                fields += [(5, handle)]
        if deadline:
            fields += [(6, deadline)]
        if secret:
            fields += [(7, secret)]
        if args:
            fields += [(8, args)]
        self.out += frame(self.how & IPC, request or self.request,
                          message(*fields), payload, hops)
        return self

    def begin(self, name=b"disk"):
        self.ask(HELLO, message((1, 1), (2, b"one"), (3, b"NONCENONCENONCEN"),
                                (4, b"a client")))
        return self.ask(OPEN, message((1, name)))


def whole(sector, count):
    return (3, message((1, sector), (2, count)))


def server_seeds():
    every = Client(IPC).begin()
    every.ask(PING).ask(LIST, message((1, b"disk"))).ask(INFO)
    every.ask(WRITE, message((1, 8), (2, 2), whole(7, 3), (4, 1)),
              b"\x55" * 1024)
    every.ask(READ, message((1, 7), (2, 4))).ask(FLUSH)
    every.ask(EXTENTS, message((2, 64), (3, 16)))
    every.ask(MAPPED).ask(UNMAPPED, message((1, 8)))
    every.ask(ZEROES, message((1, 1), (2, 9), (4, 1), (5, 1)))
    every.ask(DISCARD, message((1, 3), (2, 9)))
    every.ask(WATCH, message((1, 1))).ask(RESIZE, message((1, 32)))
    every.ask(WATCH, message((1, 1), (2, 5))).ask(INFO, deadline=1000)
    every.ask(DISCONNECT).ask(READ, message((2, 1))).ask(DISCONNECT, handle=0)
    yield "every", every.out

    # One that comes later, one that was, one that can not be.
    cancel = Client(IPC).begin()
    cancel.ask(CANCEL, message((1, 9)), lowest=1, handle=0)
    cancel.ask(WRITE, message((2, 1)), b"\1" * 512, number=9, lowest=1)
    cancel.ask(WRITE, message((2, 1)), b"\2" * 512, number=10, lowest=1)
    cancel.ask(CANCEL, message((1, 10)), number=11, lowest=1, handle=0)
    cancel.ask(CANCEL, message((1, 70000)), number=12, lowest=1, handle=0)
    cancel.ask(CANCEL, message((1, 3)), number=13, lowest=8, handle=0)
    yield "cancel", cancel.out

    tcp = Client(0).begin(b"ro")
    tcp.ask(WRITE, message((2, 1)), b"\1" * 512)
    tcp.ask(READ, message((2, 1)), hops=b"\x2a\x10\0\7")
    tcp.ask(OPEN, message((1, b"none"))).ask(LIST).ask(99)
    yield "tcp", tcp.out

    pieces = Client(IPC | PIECES | RESET).begin()
    pieces.ask(WRITE, message((1, 60), (2, 4)), b"\7" * 2048)
    pieces.ask(READ, message((1, 60), (2, 5)))
    yield "pieces", pieces.out

    mute = Client(IPC | MUTE | RESET).begin()
    for i in range(24):
        mute.ask(READ, message((1, i), (2, 32)), lowest=1)
    mute.ask(WATCH, message((1, 1), (2, 60000)))
    yield "mute", mute.out

    copies = Client(IPC).begin()
    copies.ask(WRITE, message((2, 1)), b"\1" * 512, number=5, lowest=2)
    copies.ask(WRITE, message((2, 1)), b"\2" * 512, number=5, lowest=2)
    copies.ask(FLUSH, number=5, lowest=2)
    copies.ask(WRITE, message((2, 2)), b"\2" * 512, number=6, lowest=2)
    copies.ask(OPEN, message((1, b"disk")), number=1, lowest=1)
    copies.ask(OPEN, message((1, b"disk")), number=8, lowest=2)
    copies.ask(OPEN, message((1, b"disk")), number=8, lowest=2)
    copies.ask(PING, number=70000).ask(PING, number=1).ask(PING, number=0)
    yield "copies", copies.out

    two = Client(IPC | TWO).begin()
    two.ask(WATCH, message((1, 1), (2, 30000)))
    two.ask(READ, message((2, 1)), secret=SECRET, request=101)
    two.ask(WRITE, message((2, 1)), b"\3" * 512, number=9, lowest=2)
    two.ask(WRITE, message((2, 1)), b"\3" * 512, number=9, lowest=2,
            request=103)
    two.ask(HELLO, message((1, 1)), request=105)
    two.ask(OPEN, message((1, b"disk")), session=b"SESSION2", number=1,
            request=107)
    two.ask(DISCONNECT, handle=0, session=b"SESSION2", number=2, request=109)
    yield "two", two.out

    other = Client(IPC | TWO | OTHER | DEAF).begin()
    other.ask(READ, message((2, 1)), secret=SECRET, request=101)
    other.ask(READ, message((2, 1)), secret=b"x", request=103)
    other.ask(INFO)
    yield "other", other.out


class Server:
    def __init__(self, how):
        self.how = how
        self.out = bytes([how]) + REP
        self.request = 0
        self.number = -1

    def say(self, result=b"", payload=b"", status=0, effect=0, text=b"",
            number=None, generation=3, size=64, request=None):
        self.request += 1
        self.number += 1
        fields = []
        if status:
            fields += [(1, (status << 1) ^ (status >> 63)), (2, effect),
                       (3, text)]
        fields += [(4, self.number if number is None else number)]
        if self.request > 1:
            fields += [(5, generation), (6, size)]
        if result:
            fields += [(7, result)]
        self.out += frame(self.how & IPC, request or self.request,
                          message(*fields), payload)
        return self

    def hello(self, requests=64, payload=16384):
        return self.say(message(
            (1, 1), (3, ("fixed", SESSION)), (4, SECRET),
            (5, b"INSTANCEINSTANCE"), (6, 30000),
            (7, message((1, requests), (2, 1 << 20), (3, payload), (4, 65536),
                        (5, 8), (6, 16))), (8, b"a server")))

    def open(self):
        return self.say(message(
            (1, 5), (2, message((1, 1), (2, 512), (3, 64), (4, 3), (5, 0xFF),
                                (6, 1024), (7, 512))),
            (3, b"CONTENTCONTENTCO")))


def client_seeds():
    for name, how in (("blocking", IPC), ("tcp", 0), ("pieces", IPC | PIECES),
                      ("reset", IPC | RESET)):
        good = Server(how).hello().open()
        good.say(message((1, message((1, 1), (2, 512), (3, 64), (4, 3),
                                     (5, 0xFF)))))      # info
        good.say().say()                                 # write, two pieces
        good.say(payload=b"\5" * 1024).say(payload=b"\6" * 512)  # read
        good.say()                                       # flush
        good.say(message((1, 3))).say(message((1, 64)))  # seeks
        good.say(message((1, varint(4) + varint(9)), (2, b"\1\0")))
        good.say().say().say(generation=4, size=80)      # ... resize
        good.say(message((1, 5)), generation=5)          # watch
        good.say()                                       # the end
        yield name, good.out

    queue = Server(IPC | 0x10).hello().open()
    for i in (9, 8, 7, 6, 5, 4, 3, 3, 77):
        queue.say(payload=b"\1" * 512 if i % 2 else b"", request=i,
                  number=i - 2)
    yield "queue", queue.out

    fails = Server(IPC).hello().open()
    for status in (-1, -5, -10, -15, -99, -8):
        fails.say(status=status, effect=2, text=b"it failed")
    yield "fails", fails.out

    names = Server(IPC | 0x20).hello()
    names.say(message((1, message((1, b"disk0"), (2, 1), (3, 512), (4, 64))),
                      (1, message((1, b"disk1"), (3, 4096), (4, 1))), (2, 1)),
              generation=0, size=0)
    names.say(message((1, message((1, b"disk2"), (3, 512)))), generation=0,
              size=0)
    yield "list", names.out


def config_seeds():
    uris = [b"ramdisk:disk0", b"file:///var/lib/a.img?ro=1&sync=1&lock=0",
            b"farblk+unix:///disk0?socket=/run/farblk.sock&timeout=1000",
            b"farblk://user@[::1]:5660/disk%300?connect_timeout=5",
            b"farblk+ws://host:80/d?resource=/x%20y", b"nbd://h:10809/e%2Cx",
            b"mirror:?primary=ramdisk:a&secondary=ramdisk:b",
            b"tar-member:?device=ramdisk:a&path=x", b"farblk+inproc:///n?address=a"]
    text = b"""# a server
listen = ipc:///run/farblk.sock   # here
listen=tcp://127.0.0.1:0
export = disk0=file:/disk.img?lock=0
max-payload = 1M
ipc-mode = 660
memory-limit=2G
log-level = debug
lease = 30000
config = more
"""
    for i, uri in enumerate(uris):
        yield "uri%d" % i, uri
    yield "file", b"ramdisk:a\0" + text
    yield "args", (b"ramdisk:a\0\0--listen\0ipc:///a\0--export=a=ramdisk:a\0"
                   b"--config\0x\0--max-payload=64M\0--help")


def shm_seeds():
    """Steps of tests/fuzz_shm.c."""
    def submit(tag, method, number, sector=0, count=4, flags=0):
        return bytes([0, tag, method, flags, number, 1, sector, count, 8 * tag])

    serve = bytes([7])
    plug = bytes([4])
    every = b"".join(submit(i % 8, i, i, 2 * i) + serve for i in range(7))
    yield "every", every * 3
    lap = b"".join(submit(tag, 1, 1 + tag, tag) for tag in range(8)) + serve
    yield "laps", lap * 3
    yield "plugged", plug + lap + plug + serve + lap
    yield "used", plug + submit(3, 1, 1) + serve + submit(3, 1, 2) + serve
    yield "again", (submit(0, 1, 5) + serve + submit(1, 1, 5) + serve + plug
                    + submit(0, 1, 6) + submit(1, 1, 6) + submit(2, 3, 6)
                    + serve + plug)
    yield "whole", submit(0, 1, 1, 8, 2, 4) + serve + bytes([3, 0, 150, 9])
    yield "anything", bytes([2, 1, 7, 1, 1, 1, 0, 0, 1, 3, 3, 3, 7,
                             2, 9, 7, 1, 1, 1, 0, 0, 1, 3, 3, 3, 7])
    yield "scribbled", submit(0, 0, 0) + bytes([3, 0, 16, 250, 0, 0, 0, 0, 0,
                                                0, 0, 9]) + serve
    yield "jump", bytes([3, 0, 16, 100]) + serve + submit(0, 0, 0) + serve


def shm_client_seeds():
    """Steps of tests/fuzz_shm_client.c."""
    def ask(slot, kind, size=7, offset=3):
        return bytes([0, slot, kind, size, offset])

    def answer(place, failed=0, generation=1):
        return bytes([3, place, 7, failed, 9, 1, 20, generation])

    reap = bytes([9])
    every = b"".join(ask(i, i) + answer(i) + reap for i in range(8))
    yield "every", every
    yield "failures", b"".join(ask(i, i) + answer(i, 1) for i in range(8)) + reap
    yield "arena", (b"".join(ask(i, 16 | i % 2) for i in range(4))
                    + b"".join(answer(i) for i in range(4)) + reap) * 2
    gone = b"".join(ask(i, 8 | 16 | i % 2) + bytes([7, i]) for i in range(4))
    late = b"".join(answer(i) for i in range(4)) + reap
    again = b"".join(ask(i, 32 | 16 | i % 2) for i in range(8))
    yield "given_up", gone + late + again
    yield "given_up_early", gone + again + late
    yield "twice", ask(0, 0) + answer(0) + answer(0) + reap
    yield "wrong", ask(0, 0) + bytes([5, 0, 1, 1, 7, 1, 9, 1, 20, 1, 9, 9, 9, 9,
                                      9, 9, 9]) + reap
    yield "scribbled", ask(0, 0) + bytes([6, 0, 80, 9]) + reap


for folder, seeds in (("server", server_seeds), ("client", client_seeds),
                      ("shm", shm_seeds), ("shm_client", shm_client_seeds),
                      ("config", config_seeds)):
    os.makedirs(os.path.join(HERE, folder), exist_ok=True)
    for name, octets in seeds():
        with open(os.path.join(HERE, folder, name + ".seed"), "wb") as out:
            out.write(octets)
