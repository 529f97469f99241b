"""TFRecord files of ``tf.train.SequenceExample``: a writer, and a plain reader to check it with.

Needs NumPy alone, neither TensorFlow nor protobuf. Streams do not read through this module (the
server has its own decoder); it is for making data sets, for tests and for looking into a file.

Each step of a sequence feature becomes one ``Feature``, as TensorFlow writes them::

    with SequenceExampleWriter("toy.tfrecords") as writer:
        writer.write(sequences={"token": np.random.rand(12), "label": np.zeros(12, int)},
                     context={"speaker": 7})

    for offset, data in read_records("toy.tfrecords"):
        context, sequences = decode_sequence_example(data)
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import IO, Any, NamedTuple

import numpy as np

__all__ = [
    "Record",
    "SequenceExampleWriter",
    "TFRecordError",
    "crc32c",
    "decode_sequence_example",
    "encode_sequence_example",
    "masked_crc32c",
    "read_records",
]

#: Values of one ``Feature`` as read: float32 or int64 array, list of bytes, or None if it has none.
Values = np.ndarray | list[bytes] | None


class TFRecordError(ValueError):
    """A file or record that is not what it should be; says where (file, offset) and what."""


class Record(NamedTuple):
    """One record of a file."""

    offset: int  #: where it begins, in the uncompressed file
    data: bytes


# -- CRC32C ----------------------------------------------------------------------------------------

_POLYNOMIAL = 0x82F63B78
_SHORT = 1024  # bytes below which a plain loop is faster than arrays
_CHUNK = 1 << 18  # bytes at once: bounds the memory that the arrays take


def _byte_table() -> np.ndarray:
    table: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


_TABLE = _byte_table()
_TABLE_INTS = _TABLE.tolist()


def _shift(tables: np.ndarray, crc: np.ndarray) -> np.ndarray:
    """CRCs after as many zero bytes as `tables` [4, 256] stands for."""
    shifted: np.ndarray = (
        tables[0][crc & 0xFF]
        ^ tables[1][crc >> 8 & 0xFF]
        ^ tables[2][crc >> 16 & 0xFF]
        ^ tables[3][crc >> 24]
    )
    return shifted


def _shift_tables() -> list[np.ndarray]:
    """Tables for 1, 2, 4, ... zero bytes, up to half a chunk."""
    places = np.arange(0, 32, 8, dtype=np.uint32)[:, None]
    bytes_in_place = np.arange(256, dtype=np.uint32) << places
    tables = [_TABLE[bytes_in_place & 0xFF] ^ bytes_in_place >> 8]
    while 1 << len(tables) < _CHUNK:
        tables.append(_shift(tables[-1], tables[-1]))
    return tables


_SHIFTS = _shift_tables()


def crc32c(data: bytes) -> int:
    """CRC32C (Castagnoli) of `data`.

    A CRC is linear: that of two blocks is the first one's, moved on by as many zero bytes as the
    second is long, xor the second one's. So all bytes are looked up at once and then joined in
    pairs, pairs of pairs and so on.
    """
    crc = 0xFFFFFFFF
    if len(data) < _SHORT:
        for byte in data:
            crc = _TABLE_INTS[(crc ^ byte) & 0xFF] ^ crc >> 8
        return crc ^ 0xFFFFFFFF
    for start in range(0, len(data), _CHUNK):
        block = np.frombuffer(data, np.uint8, min(_CHUNK, len(data) - start), start)
        # Zeros in front change nothing: pad to a power of two. The register so far goes over the
        # block's first four bytes; of a shorter block it reaches beyond the end, and stays.
        size = 1 << (len(block) - 1).bit_length()
        padded = np.zeros(size + 4, np.uint8)
        first = size - len(block)
        padded[first:size] = block
        padded[first : first + 4] ^= np.frombuffer(struct.pack("<I", crc), np.uint8)
        crcs = _TABLE[padded[:size]]
        for shift in _SHIFTS[: size.bit_length() - 1]:
            crcs = _shift(shift, crcs[0::2]) ^ crcs[1::2]
        crc = int(crcs[0]) ^ int.from_bytes(padded[size:].tobytes(), "little")
    return crc ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The CRC as TFRecord files store it: rotated, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# -- Encoding --------------------------------------------------------------------------------------

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf wire types
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3  # fields of Feature


def _varint(value: int) -> bytes:
    """A base-128 varint; a negative value takes ten bytes, as protobuf's int64 does."""
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(payload)) + payload


def _map_entry(key: str, value: bytes) -> bytes:
    return _field(1, _field(1, key.encode()) + _field(2, value))


def _texts(name: str, values: Any) -> list[bytes]:
    """The bytes objects in a nested list or object / string array."""
    flat = [values] if isinstance(values, (bytes, str)) else np.asarray(values, object).ravel()
    out = []
    for value in flat:
        if isinstance(value, str):
            value = value.encode()
        if not isinstance(value, bytes):
            raise TypeError(f"feature {name!r}: {type(value).__name__} among bytes or strings")
        out.append(value)
    return out


def _array(values: Any) -> np.ndarray:
    """`values` as an array, bfloat16 as float32, which holds it exactly."""
    if str(getattr(values, "dtype", "")) == "torch.bfloat16":
        values = values.detach().float()
    elif hasattr(values, "widen"):  # of a batch, where ml_dtypes is missing: NumPy sees uint16
        values = values.widen()
    array = np.asarray(values)
    if array.dtype.name != "bfloat16":
        return array
    return np.asarray(array.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def _feature(name: str, values: Any) -> bytes:
    """A Feature that holds all of `values`."""
    array = _array(values)
    if array.dtype.kind == "f":
        payload = array.astype("<f4", copy=False).tobytes()
        return _field(_FLOAT_LIST, _field(1, payload) if payload else b"")
    if array.dtype.kind in "iub":
        if array.dtype.kind == "u" and array.size and int(array.max()) >= 1 << 63:
            raise ValueError(f"feature {name!r}: {int(array.max())} does not fit int64")
        payload = b"".join(_varint(int(value)) for value in array.ravel().tolist())
        return _field(_INT64_LIST, _field(1, payload) if payload else b"")
    if array.dtype.kind in "SUO":
        return _field(_BYTES_LIST, b"".join(_field(1, text) for text in _texts(name, values)))
    raise TypeError(
        f"feature {name!r}: dtype {array.dtype} cannot be written; use floats, integers, bools, "
        "bytes or strings"
    )


def _steps(name: str, values: Any) -> bytes:
    """A FeatureList with one Feature a step."""
    if isinstance(values, (bytes, str)) or not getattr(values, "shape", hasattr(values, "__len__")):
        raise ValueError(f"sequence feature {name!r}: a single value, not an array of steps")
    steps: Any
    try:
        array = _array(values)
    except ValueError:  # steps of different sizes: one type for all of them
        steps = [_array(step) for step in values]
        kind = np.result_type(*steps)
        steps = [step.astype(kind) for step in steps] if kind.kind in "iubf" else values
    else:  # an array of bytes would lose trailing zeros
        steps = values if array.dtype.kind in "SUO" else array
    return b"".join(_field(1, _feature(name, step)) for step in steps)


def encode_sequence_example(
    sequences: Mapping[str, Any], context: Mapping[str, Any] | None = None
) -> bytes:
    """One ``tf.train.SequenceExample`` as bytes.

    Parameters
    ----------
    sequences : name -> array [n, ...]. One Feature a step, which holds that step's values in C
        order; a list may hold steps of different sizes. Floats become float_list (as float32:
        exactly for float16, bfloat16 and float32),
        integers and bools int64_list, bytes and strings (UTF-8) bytes_list. Features of different
        n are written as they are.
    context : name -> value or array, likewise.

    Raises
    ------
    TypeError : values of a type that no list holds (complex, dates, None ...).
    ValueError : a sequence feature without steps' dimension; an integer beyond int64.
    """
    out = b""
    if context:
        features = (_map_entry(name, _feature(name, context[name])) for name in sorted(context))
        out += _field(1, b"".join(features))
    if sequences:
        lists = (_map_entry(name, _steps(name, sequences[name])) for name in sorted(sequences))
        out += _field(2, b"".join(lists))
    return out


class _ZlibFile:
    """What is written to a file in zlib's format."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._stream = zlib.compressobj()

    def write(self, data: bytes) -> None:
        self._file.write(self._stream.compress(data))

    def close(self) -> None:
        self._file.write(self._stream.flush())


class SequenceExampleWriter:
    """Writes a TFRecord file; a context manager.

    Parameters
    ----------
    path : file to make; an existing one is replaced.
    compression : None, "gzip" or "zlib". The same records always give the same bytes.

    Attributes
    ----------
    offset : where the next record will begin in the uncompressed file. ``"<file>:<offset>"`` is
        the key under which a stream knows it.
    """

    def __init__(self, path: str | os.PathLike[str], compression: str | None = None) -> None:
        if compression not in (None, "gzip", "zlib"):
            raise ValueError(f"compression is {compression!r}; None, 'gzip' and 'zlib' are known")
        self.path = os.fspath(path)
        self.offset = 0
        self._raw: IO[bytes] = open(self.path, "wb")
        self._file: IO[bytes] | gzip.GzipFile | _ZlibFile = self._raw
        if compression == "zlib":
            self._file = _ZlibFile(self._raw)
        if compression == "gzip":
            # No name and no time in the header: equal records make equal files.
            self._file = gzip.GzipFile(filename="", mode="wb", fileobj=self._raw, mtime=0)

    def write(self, sequences: Mapping[str, Any], context: Mapping[str, Any] | None = None) -> int:
        """Appends one example; returns the offset at which its record begins.

        The parameters and errors are those of `encode_sequence_example`; after an error nothing of
        the example has been written.
        """
        return self.write_record(encode_sequence_example(sequences, context))

    def write_record(self, data: bytes) -> int:
        """Appends a record of any bytes; returns its offset."""
        length = struct.pack("<Q", len(data))
        self._file.write(length + struct.pack("<I", masked_crc32c(length)))
        self._file.write(data)
        self._file.write(struct.pack("<I", masked_crc32c(data)))
        start = self.offset
        self.offset += len(data) + 16
        return start

    def close(self) -> None:
        """Completes the file. Closing twice is fine."""
        self._file.close()
        self._raw.close()

    def __enter__(self) -> SequenceExampleWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


# -- Reading ---------------------------------------------------------------------------------------


def _begins_zlib(head: bytes) -> bool:
    """Whether these are first bytes of zlib's format, and not of a plain TFRecord file."""
    if len(head) < 2 or head[0] & 0x8F != 8 or head[1] & 0x20 or int.from_bytes(head[:2]) % 31:
        return False
    return len(head) < 12 or masked_crc32c(head[:8]) != int.from_bytes(head[8:12], "little")


def _inflated(raw: IO[bytes]) -> IO[bytes]:
    """All of a file in zlib's format, in memory."""
    left, parts = raw.read(), []
    while left:
        stream = zlib.decompressobj()
        parts.append(stream.decompress(left))
        if not stream.eof:
            raise zlib.error(f"{raw.name} is cut off")
        left = stream.unused_data
    return io.BytesIO(b"".join(parts))


def read_records(path: str | os.PathLike[str]) -> Iterator[Record]:
    """The records of a TFRecord file (plain, gzip or zlib, by its first bytes), in order.

    Raises
    ------
    TFRecordError : a cut or damaged record (length or CRC); names file and offset.
    OSError : the file cannot be read.
    gzip.BadGzipFile, zlib.error : compressed data that is damaged.
    """
    path = os.fspath(path)
    with open(path, "rb") as raw:
        begin = raw.read(12)
        raw.seek(0)
        file: IO[bytes] | gzip.GzipFile = raw
        if begin[:2] == b"\x1f\x8b":
            file = gzip.GzipFile(fileobj=raw)
        elif _begins_zlib(begin):
            file = _inflated(raw)
        offset = 0
        while head := file.read(12):
            where = f"{path} at offset {offset}"
            if len(head) < 12:
                raise TFRecordError(f"{where}: cut within a record's length")
            length, length_crc = struct.unpack("<QI", head)
            if masked_crc32c(head[:8]) != length_crc:
                raise TFRecordError(f"{where}: the CRC of the record's length is wrong")
            body = file.read(length + 4)
            if len(body) < length + 4:
                raise TFRecordError(f"{where}: cut within a record of {length} bytes")
            data = body[:length]
            if masked_crc32c(data) != int.from_bytes(body[length:], "little"):
                raise TFRecordError(f"{where}: the CRC of the record's data is wrong")
            yield Record(offset, data)
            offset += length + 16


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise TFRecordError("a varint is cut")
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise TFRecordError("a varint of more than ten bytes")


def _wire_fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """(field number, wire type, value) of a message: bytes, or an int for a varint."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _read_varint(data, at)
            yield tag >> 3, wire, value
            continue
        if wire == _BYTES:
            size, at = _read_varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise TFRecordError(f"field {tag >> 3} has wire type {wire}, which none has")
        if at + size > len(data):
            raise TFRecordError(f"field {tag >> 3} reaches beyond its message")
        yield tag >> 3, wire, data[at : at + size]
        at += size


def _messages(data: bytes, number: int) -> Iterator[bytes]:
    """The length-delimited fields `number` of a message; others are passed over."""
    for field, wire, value in _wire_fields(data):
        if field == number:
            if wire != _BYTES:
                raise TFRecordError(f"field {field} has wire type {wire}, not {_BYTES}")
            yield value


def _entries(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(key, value message) of each entry of a map in field 1."""
    for entry in _messages(data, 1):
        key = b"".join(list(_messages(entry, 1))[-1:])
        yield key.decode(), b"".join(_messages(entry, 2))


def _decode_feature(data: bytes) -> Values:
    """The values of a Feature; of several lists the last kind counts, as protobuf says."""
    kind, merged = 0, b""
    for field, wire, value in _wire_fields(data):
        if field not in (_BYTES_LIST, _FLOAT_LIST, _INT64_LIST):
            continue
        if wire != _BYTES:
            raise TFRecordError(f"field {field} of a Feature has wire type {wire}")
        kind, merged = field, (merged if field == kind else b"") + value
    if kind == 0:
        return None
    if kind == _BYTES_LIST:
        return list(_messages(merged, 1))
    if kind == _FLOAT_LIST:
        return np.frombuffer(b"".join(_floats(merged)), "<f4").astype(np.float32)
    return np.array(list(_integers(merged)), np.uint64).astype(np.int64)


def _floats(data: bytes) -> Iterator[bytes]:
    """The bytes of a FloatList's values, packed or one by one."""
    for field, wire, value in _wire_fields(data):
        if field == 1:
            if wire not in (_BYTES, _FIXED32) or len(value) % 4:
                raise TFRecordError("a float_list that holds no whole floats")
            yield value


def _integers(data: bytes) -> Iterator[int]:
    """An Int64List's values as unsigned words, packed or one by one."""
    for field, wire, value in _wire_fields(data):
        if field != 1:
            continue
        if wire == _VARINT:
            yield value
        elif wire == _BYTES:
            at = 0
            while at < len(value):
                word, at = _read_varint(value, at)
                yield word
        else:
            raise TFRecordError(f"an int64_list with values of wire type {wire}")


def decode_sequence_example(data: bytes) -> tuple[dict[str, Values], dict[str, list[Values]]]:
    """Reads a ``tf.train.SequenceExample``.

    A reference decoder: slow, and strict about nothing but the wire format. It takes packed and
    unpacked lists, fields in any order, and passes over unknown fields.

    Returns
    -------
    context : name -> values.
    sequences : name -> list of each step's values.
        Values are a float32 or int64 array of rank 1, a list of bytes, or None for a Feature that
        holds no list.

    Raises
    ------
    TFRecordError : `data` is no SequenceExample.
    """
    context: dict[str, Values] = {}
    sequences: dict[str, list[Values]] = {}
    for features in _messages(data, 1):
        for name, feature in _entries(features):
            context[name] = _decode_feature(feature)
    for lists in _messages(data, 2):
        for name, steps in _entries(lists):
            sequences[name] = [_decode_feature(step) for step in _messages(steps, 1)]
    return context, sequences
