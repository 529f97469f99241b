"""Writes the first inputs of fuzz_frame and fuzz_wire: what lies in corpus/ was made so.

    make_wire_seeds.py DIR      makes DIR/frame/<n> and DIR/wire/<type>

Protobuf and frames by hand, so that they do not depend on the code that they test.
"""

import pathlib
import struct
import sys


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def fixed(field: int, value: int) -> bytes:
    return varint(field << 3 | 1) + struct.pack("<Q", value)


def blob(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def packed(field: int, *values: int) -> bytes:
    return blob(field, b"".join(map(varint, values)))


def feature(name: bytes, dtype: int, *dims: int) -> bytes:
    return blob(1, name) + number(2, dtype) + (packed(3, *dims) if dims else b"")


TOKEN = bytes(range(16))
STATE = feature(b"h", 1, 4) + fixed(4, 5) + fixed(5, 6)
SOURCE = blob(1, b"/data/*.tfrecord") + blob(1, b"/b") + blob(3, b"id") + number(4, 1)
REST = (  # of a spec, but its source
    blob(1, b"train") + blob(10, feature(b"x", 1, 3, 5))
    + blob(10, feature(b"y", 4)) + blob(11, feature(b"s", 6, 7)) + blob(12, STATE)
    + number(13, 20) + number(14, 6) + number(15, 2) + number(16, 1) + fixed(17, 9)
    + number(18, 3) + number(19, 1) + number(20, 1) + number(24, 1) + number(25, 4)
    + number(26, 1) + number(28, 1000) + number(30, 3)
)  # fmt: skip
SPEC = blob(2, SOURCE) + REST
FILES = blob(1, b"/data/*.segue")
ARRAYS = blob(1, b"/data/a.npy") + blob(1, b"/data/b.npy") + number(2, 1)


def part(name: bytes, kind: int, source: bytes, weight: int, epochs: int) -> bytes:
    return blob(1, blob(1, name) + blob(kind, source) + number(10, weight) + number(11, epochs))


MIX = part(b"a", 2, SOURCE, 3, 1) + part(b"b", 3, FILES, 1, 0)
LOG = number(1, 1000) + number(2, 3) + number(3, 5)
RAGGED = blob(10, feature(b"w", 4) + number(7, 1)) + blob(11, feature(b"b", 5) + number(7, 2))
POSITION = (
    number(1, 5) + number(2, 9) + packed(6, 1, 2**64 - 1) + packed(7, 30, 0)
    + packed(8, 29, 0) + packed(9, 1, 0)
)  # fmt: skip
HOLDER = blob(1, TOKEN) + number(2, 7) + number(3, 99) + number(4, 5)

MESSAGES = {
    1: number(1, 1) + number(2, 2) + number(3, 2) + blob(4, b"0.1.0") + blob(5, b"py"),
    2: number(1, 2) + blob(2, SPEC),
    3: number(1, 3) + number(2, 1) + number(3, 1) + number(5, 4) + number(6, 2)
    + blob(7, TOKEN) + number(8, 77) + number(9, 1) + number(10, 10**10),
    4: number(1, 4) + number(2, 8),
    5: number(1, 5) + number(2, 1 << 20),
    6: number(1, 6) + number(2, 1) + number(3, 1) + number(5, 9) + number(6, 10**9),
    7: number(1, 7) + number(2, 3) + blob(3, b"train") + blob(4, b"f:0"),
    9: number(1, 8) + blob(2, b"train") + number(3, 1) + number(4, 7) + number(5, 1),
    15: number(1, 11) + blob(2, b"train"),
    17: number(1, 12) + number(2, 1) + blob(3, b"actor 0") + blob(4, TOKEN) + number(6, 9),
    18: number(1, 13) + number(2, 1) + number(3, 2) + number(5, 64) + number(6, 1024)
    + number(7, 5) + number(8, 2**64 - 1) + number(9, 9) + number(10, 8),
    19: number(1, 14) + number(2, 1) + number(3, 2),
    20: number(1, 15) + number(2, 1) + number(3, 1),
    21: number(1, 16) + number(2, 1),
    65: number(1, 1) + number(2, 2) + number(3, 2) + blob(4, b"0.1.0") + number(5, 77)
    + fixed(6, 5),
    66: number(1, 2) + number(2, 1) + number(3, 1000) + number(4, 64) + fixed(5, 99),
    67: number(1, 3) + number(2, 1) + number(3, 2) + blob(4, TOKEN) + number(5, 7) + number(7, 1)
    + number(8, 6) + number(9, 2),
    68: number(1, 4),
    69: number(1, 5) + number(2, 1) + number(3, 4096) + number(4, 3),
    70: number(1, 6) + blob(2, "räcords".encode()) + number(3, 1) + number(4, 2),
    72: number(1, 12) + number(2, 1) + number(3, 7) + number(4, 8),
    73: number(1, 14) + number(2, 7),
    71: number(1, 7) + number(2, 23) + blob(3, b"a detail"),
    250: blob(2, TOKEN) + number(3, 5) + number(4, 9) + fixed(5, 1) + fixed(6, 2),
    251: number(1, 9) + number(2, 1) + blob(3, b"actor 0") + blob(3, b"actor 1"),
    252: number(1, 9) + packed(2, 5, 8) + packed(3, 100, 200) + packed(4, 321, 322)
    + packed(5, 10**12, 10**12 + 1),
    253: number(1, 1) + blob(2, SPEC) + fixed(3, 1) + fixed(4, 2) + number(5, 10**12),
    254: number(1, 2) + blob(2, TOKEN) + number(3, 1) + blob(4, HOLDER) + number(5, 10**12)
    + blob(6, POSITION),
    16: number(1, 12) + number(2, 1) + number(3, 2**64 - 1),
    22: number(1, 13) + blob(2, b"train"),
    23: number(1, 17) + number(2, 1) + blob(3, b"item 7"),
    24: number(1, 18) + blob(2, b"live"),
    25: number(1, 19) + number(2, 3) + blob(3, b"train") + blob(4, b"k") + number(5, 1)
    + number(6, 1) + number(7, 4) + number(8, 1) + number(9, 2**64 - 1) + number(10, 5),
    74: number(1, 14) + blob(2, REST),
    255: blob(1, b"train") + fixed(2, 1) + fixed(3, 2) + fixed(4, 3) + fixed(5, 4) + number(6, 2)
    + number(7, 1) + number(8, 6) + number(9, 28) + blob(10, POSITION),
}  # fmt: skip
# More of a type.
SOURCES = {
    "2-files": number(1, 2) + blob(2, blob(3, FILES) + REST + RAGGED),
    "2-arrays": number(1, 2) + blob(2, blob(4, ARRAYS) + REST) + number(5, 9),
    "2-mix": number(1, 2) + blob(2, blob(5, MIX) + REST + number(18, 1)),
    "2-mix-of-uploads": number(1, 2)
    + blob(2, blob(5, part(b"a", 2, b"", 1, 1) + part(b"b", 3, b"", 1, 1)) + REST)
    + number(3, 7),
    "2-log": number(1, 2) + blob(2, blob(6, LOG) + REST + number(18, 1)),
    "2-mix-with-a-log": number(1, 2)
    + blob(2, blob(5, part(b"a", 3, FILES, 1, 0) + part(b"b", 6, LOG, 1, 1)) + REST + number(18, 1)),
    "3-resize": number(1, 3) + number(2, 1) + number(3, 1) + number(5, 7) + number(8, 77)
    + number(9, 1) + number(10, 10**10) + number(15, 8),
    "19-look": number(1, 14) + number(2, 1) + number(3, 2) + number(4, 1),
    "69-token": number(1, 5) + number(3, 4096) + number(4, 3) + number(5, 4) + number(6, 5),
    "2-stored": number(1, 2) + blob(2, REST) + number(6, 1),
    "253-mix": number(1, 1) + blob(2, blob(5, MIX) + REST + number(18, 1)) + fixed(3, 1) + fixed(4, 2),
}


def frame(kind: int, payload: bytes, fds: int = 0) -> bytes:
    return b"SGF1" + struct.pack("<HHI", kind, fds, len(payload)) + payload


FRAMES = [
    b"\x01" + frame(1, b"hello") + frame(2, b""),
    b"\xfe" + frame(3, b"x" * 300) + frame(4, b"y"),
    b"\x04" + frame(1, b"", fds=1),
    b"\x06GET / HTTP/1.1",
    b"\x00" + frame(65, b"abc") + b"SGF1\x01",
    b"\x03SGF1" + struct.pack("<HHI", 1, 0, 65537),
]


def main() -> None:
    directory = pathlib.Path(sys.argv[1])
    for name in ("frame", "wire"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    for kind, payload in MESSAGES.items():
        (directory / "wire" / str(kind)).write_bytes(bytes([kind]) + payload)
    for name, payload in SOURCES.items():
        kind = int(name.partition("-")[0])
        (directory / "wire" / name).write_bytes(bytes([kind]) + payload)
    for i, stream in enumerate(FRAMES):
        (directory / "frame" / str(i)).write_bytes(stream)


if __name__ == "__main__":
    main()
