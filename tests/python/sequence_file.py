"""A reader of sequence files and logs, from docs/format.md alone: the oracle of their writers.

Reads whole files, and checks each byte of them: also those that no reader has to look at.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import itertools
import re
import struct
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from segue.tfrecord import crc32c  # NumPy, and tested bit by bit (test_tfrecord.py)

PAGE = Path(__file__).parents[2] / "docs" / "format.md"
PLACES = ("sequences", "context", "states")
BLOCK = 4096
ALL = 2**64 - 1


class Damaged(Exception):
    """Not a byte may be otherwise."""


class Unfinished(Damaged):
    """No foot."""


class Field(NamedTuple):
    place: str
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    form: int = 0  # dense, ragged, bytes


class Producer(NamedTuple):
    """What it had inserted last."""

    serial: int
    number: int
    cursor: bytes


class LogHead(NamedTuple):
    id: bytes
    first: int
    before: tuple[int, int]
    producers: dict[str, Producer]


class Stamp(NamedTuple):
    number: int
    serial: int
    before: tuple[int, int]
    producer: str
    cursor: bytes


@dataclass
class Sequence:
    key: bytes
    steps: int
    length: int | None
    # Of what is ragged a list of the arrays of its steps, of bytes a list of bytes; of context the
    # one alone.
    sequences: dict[str, Any]
    context: dict[str, Any]
    states: dict[str, np.ndarray]
    stamp: Stamp | None = None  # of a log


@dataclass
class File:
    fields: list[Field]
    sequences: list[Sequence]
    fingerprint: tuple[int, int] | None  # None: it has no foot
    log: LogHead | None
    headers: list[bytes]  # of its sequences


@dataclass
class Log:
    """All files of a directory."""

    id: bytes
    sequences: list[Sequence]
    hashes: list[tuple[int, int]]  # of so many sequences
    producers: dict[str, Producer]
    files: list[str]


@functools.cache
def documented_dtypes() -> dict[int, str]:
    """{code: name}, from the table of the page."""
    codes, names = (
        re.search(rf"^\| {head} \|(.*)\|$", PAGE.read_text(), re.M) for head in ("code", "dtype")
    )
    assert codes and names
    columns = zip(codes[1].split("|"), names[1].split("|"), strict=True)
    return {int(code): name.split(":")[0].strip() for code, name in columns}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Also of the types that NumPy alone does not have."""
    try:
        return np.dtype(name)
    except TypeError:
        return np.dtype(getattr(pytest.importorskip("ml_dtypes"), name))


class _Hash128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


@functools.cache
def _xxhash() -> Any:
    name = ctypes.util.find_library("xxhash")
    if name is None:
        return None
    function = ctypes.CDLL(name).XXH3_128bits
    function.restype = _Hash128
    function.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    return function


def xxh3_128(data: bytes) -> tuple[int, int]:
    """(low, high), by the library of xxHash itself."""
    function = _xxhash()
    if function is None:
        pytest.skip("libxxhash is not installed: no hash of a sequence file can be checked")
    value = function(data, len(data))
    return value.low, value.high


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise Damaged(what)


def up(size: int, to: int = 64) -> int:
    return -(-size // to) * to


def sealed(data: bytes, what: str) -> bytes:
    """Checks the CRC32C in the last 4 bytes; returns those before."""
    expect(len(data) > 4 and crc32c(data[:-4]) == int.from_bytes(data[-4:], "little"), what)
    return data[:-4]


# Large files of tests have the same block again and again.
crc_of_block = functools.lru_cache(64)(crc32c)


def zeros(data: bytes, what: str) -> None:
    expect(not any(data), f"something lies {what}")


def read_name(body: bytes, at: int, size: int) -> str:
    expect(1 <= size <= 255 and at + size <= len(body), "size of a name")
    name = body[at : at + size].decode()
    expect(not any(unicodedata.category(character) == "Cc" for character in name), "a name")
    return name


def read_log_head(body: bytes, at: int) -> tuple[LogHead, int]:
    expect(at + 48 <= len(body), "a log's head is cut short")
    id, first, low, high, count, nothing = struct.unpack_from("<16sQQQII", body, at)
    expect(count <= 1024 and nothing == 0, "numbers of a log's head")
    at += 48
    begin = at
    producers: dict[str, Producer] = {}
    for _ in range(count):
        serial, number, name_size, cursor_size, nothing = struct.unpack_from("<QQHHI", body, at)
        expect(serial >= 1 and number < first and nothing == 0, "numbers of a producer")
        name = read_name(body, at + 24, name_size)
        end = at + 24 + name_size + cursor_size
        expect(cursor_size <= 4096 and end <= len(body) and name not in producers, "a producer")
        producers[name] = Producer(serial, number, body[end - cursor_size : end])
        at = up(end, 8)
        zeros(body[end:at], "behind a producer")
    expect(at - begin <= 786432, "bytes of all producers")
    return LogHead(id, first, (low, high), producers), at


def read_head(data: bytes) -> tuple[list[Field], int, LogHead | None]:
    expect(len(data) >= 64, "no head")
    magic, version, size, requires, count, nothing = struct.unpack_from("<8sIIQII", data)
    expect(magic == b"SEGUESEQ", "no sequence file")
    expect(64 <= size <= min(len(data), 2**21) and size % 64 == 0, "size of the head")
    body = sealed(data[:size], "CRC of the head")
    expect((version, nothing) == (1, 0) and 1 <= count <= 1280, "numbers of the head")
    dtypes, fields, at = documented_dtypes(), [], 32
    for _ in range(count):
        place, form, dtype, rank, length, nothing = struct.unpack_from("<BBBBHH", body, at)
        expect(place < 3 and form < 3 and rank <= 8 and nothing == 0, "numbers of a field")
        expect(form == 0 or (rank == 0 and place < 2), "a form that cannot be")
        expect(form < 2 or dtype == 5, "dtype of bytes")
        at += 8
        shape = struct.unpack_from(f"<{rank}Q", body, at)
        at += 8 * rank
        name = body[at : at + length].decode()
        zeros(body[at + length : at + up(length, 8)], "behind a name")
        at += up(length, 8)
        fields.append(Field(PLACES[place], name, numpy_dtype(dtypes[dtype]), shape, form))
    variable = int(any(field.form for field in fields))
    expect(requires in (variable, variable | 16), "what the head requires")
    log = None
    if requires & 16:
        log, at = read_log_head(body, at)
    zeros(body[at:], "behind the fields")
    expect(up(at + 4) == size, "size of the head")
    return fields, size, log


def read_column(
    data: bytes, at: int, field: Field, steps: int, count: int
) -> tuple[Any, int, bytes]:
    """The values, the bytes of the column, and the table behind it."""
    dtype = field.dtype.newbyteorder("<")
    pieces = steps if field.place == "sequences" else 1
    shape = (steps, *field.shape) if field.place == "sequences" else field.shape
    values = int(np.prod(shape, dtype=object)) if field.form == 0 else count
    first = 0 if field.form == 0 else 8 * (pieces + 1)
    size = first + values * dtype.itemsize
    column = data[at : at + size]
    table = data[at + size : at + size + 4 * -(-size // BLOCK)]
    expect(len(table) == 4 * -(-size // BLOCK), "a column lies beyond the end")
    for block, (crc,) in enumerate(struct.iter_unpack("<I", table)):
        begin = block * BLOCK
        expect(crc_of_block(column[begin : begin + BLOCK]) == crc, f"block {block} of {field.name}")
    array = np.frombuffer(column[first:], dtype)
    if field.form == 0:
        return array.reshape(shape), size, table
    offsets = list(struct.unpack(f"<{pieces + 1}q", column[:first]))
    expect(offsets == sorted(offsets), f"offsets of {field.name}")
    expect((offsets[0], offsets[-1]) == (0, count), f"ends of the offsets of {field.name}")
    found = [array[begin:end] for begin, end in itertools.pairwise(offsets)]
    if field.form == 2:
        found = [part.tobytes() for part in found]
    return found if field.place == "sequences" else found[0], size, table


def read_stamp(body: bytes, at: int) -> Stamp:
    """That ends where the header does."""
    expect(at + 40 <= len(body), "a stamp is cut short")
    number, serial, low, high, name_size, cursor_size, nothing = struct.unpack_from(
        "<QQQQHHI", body, at
    )
    expect(serial >= 1 and cursor_size <= 4096 and nothing == 0, "numbers of a stamp")
    name = read_name(body, at + 40, name_size)
    at += 40 + name_size
    expect(at + cursor_size == len(body), "size of a header with a stamp")
    return Stamp(number, serial, (low, high), name, body[at:])


def read_entry(
    data: bytes, at: int, fields: list[Field], of_log: bool = False
) -> tuple[Sequence, bytes, int]:
    """The sequence, its header, and where the next one begins."""
    variable = sum(field.form > 0 for field in fields)
    expect(at + 60 + 8 * variable < len(data), "a header lies beyond the end")
    magic, header_size, size, steps, total, low, high, key_size, nothing = struct.unpack_from(
        "<4sIQQQQQII", data, at
    )
    least = 60 + 8 * variable + key_size
    expect(magic == b"ENTR" and (of_log or header_size == least), "no entry")
    expect(least <= header_size <= len(data) - at, "size of a header")
    expect(1 <= key_size <= 4096 and 1 <= steps < 2**32 and nothing == 0, "numbers of an entry")
    header = data[at : at + header_size]
    body = sealed(header, "CRC of an entry")
    key_end = 56 + 8 * variable + key_size
    stamp = read_stamp(body, key_end) if of_log else None
    counts = iter(struct.unpack_from(f"<{variable}Q", body, 56))
    places: dict[str, dict[str, Any]] = {place: {} for place in PLACES}
    tables, end = b"", at + header_size
    for field in fields:
        column = up(end)
        zeros(data[end:column], "before a column")
        count = next(counts) if field.form else 0
        values, used, table = read_column(data, column, field, steps, count)
        places[field.place][field.name] = values
        tables += table
        end = column + used + len(table)
    zeros(data[end : up(end)], "behind an entry")
    expect(xxh3_128(tables) == (low, high), "hash of the tables")
    expect(size == up(end) - at, "size of an entry")
    length = None if total == ALL else total
    key = body[56 + 8 * variable : key_end]
    return Sequence(key, steps, length, **places, stamp=stamp), header, up(end)


def read_entries(data: bytes) -> tuple[list[Field], list[Sequence]]:
    """Of a file that has no foot: what is whole."""
    fields, at, log = read_head(data)
    sequences = []
    while at < len(data):
        try:
            sequence, _, at = read_entry(data, at, fields, log is not None)
        except Damaged:
            break
        sequences.append(sequence)
    return fields, sequences


def parse_growing(data: bytes) -> File:
    """The last file of a log that nobody has open: without a foot, it has no index."""
    fields, at, log = read_head(data)
    expect(log is not None, "it is of no log")
    headers, sequences = [], []
    while at < len(data):
        sequence, header, at = read_entry(data, at, fields, True)
        headers.append(header)
        sequences.append(sequence)
    return File(fields, sequences, None, log, headers)


def parse(data: bytes) -> File:
    """Reads a whole file, and raises Damaged if any byte of it cannot be as it is."""
    foot = data[-128:]
    if len(foot) < 128 or foot[:8] != b"SEGUEEND":
        raise Unfinished("no foot")
    sealed(foot, "CRC of the foot")
    version, head_size, count, index, steps, key_max, nothing, low, high = struct.unpack_from(
        "<IIQQQIIQQ", foot, 8
    )
    expect((version, nothing) == (1, 0), "numbers of the foot")
    zeros(foot[64:124], "in the foot")
    fields, at, log = read_head(data)
    expect(at == head_size, "size of the head in the foot")
    expect(index + up(16 * count + 4) + 128 == len(data), "place of the index")
    entries = sealed(data[index : index + 16 * count + 4], "CRC of the index") if count else b""
    if not count:
        expect(data[index : index + 4] == bytes(4), "CRC of no index")
    zeros(data[index + 16 * count + 4 : -128], "behind the index")
    headers, sequences = [data[:at]], []
    for offset, entry_steps, crc in struct.iter_unpack("<QII", entries):
        expect(offset == at, "place of an entry")
        sequence, header, at = read_entry(data, at, fields, log is not None)
        expect(sequence.steps == entry_steps, "steps in the index")
        expect(int.from_bytes(header[-4:], "little") == crc, "CRC of a header in the index")
        headers.append(header)
        sequences.append(sequence)
    expect(at == index, "place of the index")
    expect(sum(sequence.steps for sequence in sequences) == steps, "steps in the foot")
    longest = max((len(sequence.key) for sequence in sequences), default=0)
    expect(longest == key_max, "longest key")
    expect(xxh3_128(b"".join(headers)) == (low, high), "fingerprint")
    return File(fields, sequences, (low, high), log, headers[1:])


def read(path: Path) -> File:
    return parse(path.read_bytes())


def _go_on(log: Log, file: File) -> None:
    """The sequences of a file follow those before it, each that of its producer."""
    for sequence, header in zip(file.sequences, file.headers, strict=True):
        stamp = sequence.stamp
        assert stamp is not None
        expect(stamp.number == len(log.hashes) - 1, "number of a sequence")
        expect(stamp.before == log.hashes[-1], "running hash in a sequence")
        last = log.producers.get(stamp.producer)
        expect(stamp.serial == (last.serial if last else 0) + 1, "serial of a sequence")
        log.producers[stamp.producer] = Producer(stamp.serial, stamp.number, stamp.cursor)
        log.sequences.append(sequence)
        log.hashes.append(xxh3_128(header))


def read_log(directory: Path) -> Log:
    """Reads all files of a log of which nothing was given up, and that nobody has open."""
    names = sorted(path.name for path in directory.iterdir())
    expect(bool(names), "no file")
    log = Log(b"", [], [], {}, names)
    for name in names:
        data = (directory / name).read_bytes()
        try:
            file = parse(data)
        except Unfinished:
            expect(name == names[-1], "a file before the last has no foot")
            file = parse_growing(data)
        head = file.log
        expect(head is not None, "a file is of no log")
        assert head is not None
        if not log.hashes:
            log.id = head.id
            log.hashes.append(xxh3_128(head.id))
        expect(head.id == log.id, "a file of another log")
        expect(name == f"{head.first:020}.segue", "name of a file")
        expect(head.first == len(log.sequences), "first number of a file")
        expect(head.before == log.hashes[-1], "running hash in a head")
        expect(head.producers == log.producers, "producers in a head")
        _go_on(log, file)
    return log
