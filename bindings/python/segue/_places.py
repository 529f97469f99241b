"""Where arrays lie in files: what the openers of `segue.Arrays` find out, reading no data."""

from __future__ import annotations

import hashlib
import io
import math
import mmap
import os
import secrets
import struct
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from . import _arrays, _segue
from .errors import ArgumentError

CONVERT = "segue.convert writes it to a sequence file"


@dataclass(frozen=True)
class Place:
    """An array in a file: ``shape[0]`` values, each `stride` bytes behind the one before."""

    path: str
    offset: int
    dtype: str
    big_endian: bool
    shape: tuple[int, ...]
    stride: int

    def __str__(self) -> str:
        return self.path


def _dtype(path: str, dtype: Any) -> tuple[str, bool]:
    """Return the name of a dtype, and whether it is big-endian."""
    known = _arrays.dtype_name(dtype)
    if known is None and isinstance(dtype, np.dtype):  # in the other byte order
        known = dtype.name
    if known in _segue.DTYPES:
        return str(known), isinstance(dtype, np.dtype) and dtype.str.startswith(">")
    if isinstance(dtype, np.dtype) and dtype.hasobject:
        raise ArgumentError(f"{path}: holds Python objects (dtype object), not numbers: {CONVERT}")
    if isinstance(dtype, np.dtype) and dtype.names:
        names = ", ".join(map(repr, dtype.names))
        raise ArgumentError(
            f"{path}: holds records of {names}: open it with numpy.load(..., mmap_mode='r') and "
            "give its fields, array[name], as columns"
        )
    if isinstance(dtype, np.dtype) and dtype.str[1:] == "V2":
        raise ArgumentError(
            f"{path}: holds values of 2 bytes of no dtype, as NumPy writes bfloat16: give "
            "segue.Raw(path, 'bfloat16', shape, offset=...)",
        )
    allowed = ", ".join(_segue.DTYPES)
    raise ArgumentError(f"{path}: has dtype {dtype}, which is none of {allowed}: {CONVERT}")


def _size(name: str) -> int:
    return 2 if name == "bfloat16" else np.dtype(name).itemsize


def lay(
    path: str, offset: int, dtype: Any, shape: Sequence[int], strides: Sequence[int]
) -> Place:
    """Return the place of an array; its steps may lie apart, the values of one may not."""
    name, big_endian = _dtype(path, dtype)
    if not shape:
        raise ArgumentError(f"{path}: holds a single value, not an array of steps")
    size = _size(name)
    for dim, stride in zip(reversed(shape[1:]), reversed(strides[1:]), strict=True):
        if dim > 1 and stride != size:
            raise ArgumentError(
                f"{path}: the values of a step lie apart (Fortran order, or a transposed view): "
                f"write it with numpy.ascontiguousarray, or {CONVERT}"
            )
        size *= dim
    stride = strides[0] if shape[0] > 1 else size
    if stride <= 0 and size:
        raise ArgumentError(f"{path}: its steps lie {stride} bytes apart, not forwards: {CONVERT}")
    return Place(path, offset, name, big_endian, tuple(shape), stride)


def _dense(path: str, offset: int, dtype: np.dtype[Any], shape: Sequence[int]) -> Place:
    strides = [dtype.itemsize * math.prod(shape[i + 1 :]) for i in range(len(shape))]
    return lay(path, offset, dtype, shape, strides)


def size_of(path: str) -> int:
    """Return the size of a file, which is there."""
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise ArgumentError(f"{path}: {error.strerror or error}") from error


# ---- Files ----


def _open(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise ArgumentError(f"{path}: {error.strerror or error}") from error


def _npy_header(path: str, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether in Fortran order, and dtype; the file stands at the data then."""
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(file)
        else:
            header = np.lib.format.read_array_header_2_0(file)
    except Exception as error:  # a header is Python, and of a damaged one NumPy raises anything
        raise ArgumentError(f"{path}: is no .npy that can be read: {error}") from error
    if any(dim < 0 for dim in header[0]):
        problem = f"its shape is {header[0]}"
        raise ArgumentError(f"{path}: is no .npy that can be read: {problem}")
    return header


def _npy(path: str, file: BinaryIO, begin: int, end: int) -> Place:
    """A .npy at `begin` of the file, which has bytes up to `end` for it."""
    shape, fortran, dtype = _npy_header(path, file)
    offset = begin + file.tell()
    if fortran and sum(dim > 1 for dim in shape) > 1:
        raise ArgumentError(
            f"{path}: is in Fortran order, in which the values of a step lie apart: write it with "
            f"numpy.ascontiguousarray, or {CONVERT}",
        )
    place = _dense(path, offset, dtype, shape)
    missing = offset + math.prod(shape) * dtype.itemsize - end
    if missing > 0:
        raise ArgumentError(f"{path}: was cut off: {missing} bytes of its array are missing")
    return place


def open_npy(path: str) -> Place:
    """Open a .npy."""
    size = size_of(path)
    with _open(path) as file:
        return _npy(path, file, 0, size)


def open_npz(path: str, name: str) -> Place:
    """Open the array of that name in a .npz, which is stored, not compressed."""
    try:
        with _open(path) as file, zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    except zipfile.BadZipFile as error:
        raise ArgumentError(f"{path}: is no .npz that can be read: {error}") from error
    if name not in members:
        names = ", ".join(map(repr, members))
        raise ArgumentError(f"{path}: has no array {name!r}; it has {names}")
    member = members[name]
    if member.compress_type != zipfile.ZIP_STORED:
        raise ArgumentError(
            f"{path}: is compressed: write it with numpy.savez, which does not, or {CONVERT}"
        )
    with _open(path) as file:
        file.seek(member.header_offset)
        local = file.read(30)
        if len(local) < 30 or local[:4] != b"PK\3\4":
            raise ArgumentError(f"{path}: is damaged: {name!r} is not where its directory says")
        begin = member.header_offset + 30 + sum(struct.unpack("<HH", local[26:30]))
        file.seek(begin)
        head = io.BytesIO(file.read(min(member.file_size, 1 << 20)))
    return _npy(path, head, begin, begin + member.file_size)


_WAV = {(1, 8): "u1", (1, 16): "<i2", (1, 32): "<i4", (3, 32): "<f4", (3, 64): "<f8"}


def open_wav(path: str) -> Place:
    """Open a .wav of PCM: ``[frames]``, or ``[frames, channels]`` where there are several."""
    size = size_of(path)
    form = None
    with _open(path) as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            raise ArgumentError(f"{path}: is no .wav (RIFF, WAVE)")
        while len(chunk := file.read(8)) == 8:
            length = int.from_bytes(chunk[4:], "little")
            begin = file.tell()
            if chunk[:4] == b"data" and form:
                return _wav_data(path, form, begin, length, size)
            if chunk[:4] == b"fmt ":
                form = file.read(min(length, 40))
            file.seek(begin + length + length % 2)
    raise ArgumentError(f"{path}: is a .wav without a format, or without data")


def _wav_data(path: str, form: bytes, begin: int, length: int, size: int) -> Place:
    if len(form) < 16:
        raise ArgumentError(f"{path}: is a .wav without a format, or without data")
    code, channels, _, _, _, bits = struct.unpack("<HHIIHH", form[:16])
    if code == 0xFFFE and len(form) >= 26:  # extensible: the code stands further behind
        code = int.from_bytes(form[24:26], "little")
    if (code, bits) not in _WAV or not channels:
        raise ArgumentError(
            f"{path}: holds {bits}-bit samples of format {code}: PCM of 8, 16 or 32 bits and "
            f"floats are read where they lie; decode it, and {CONVERT}"
        )
    if begin + length > size:
        missing = begin + length - size
        raise ArgumentError(f"{path}: was cut off: {missing} bytes of its data are missing")
    dtype = np.dtype(_WAV[code, bits])
    frames = length // (channels * dtype.itemsize)
    return _dense(path, begin, dtype, (frames,) if channels == 1 else (frames, channels))


def open_raw(
    path: str, dtype: np.dtype[Any] | str, shape: tuple[int, ...], offset: int
) -> Place:
    """Open an array of known dtype and shape; -1 steps are as many as there are bytes for."""
    size = size_of(path)
    name, big_endian = _dtype(path, dtype)
    step = math.prod(shape[1:]) * _size(name)
    have = size - offset
    if shape[0] == -1 and (have < 0 or have % step):
        raise ArgumentError(
            f"{path}: has {have} bytes behind offset {offset}: no multiple of a step's {step}"
        )
    steps = have // step if shape[0] == -1 else shape[0]
    if steps * step > have:
        raise ArgumentError(
            f"{path}: has {have} bytes behind offset {offset}, and the shape wants {steps * step}"
        )
    return Place(path, offset, name, big_endian, (steps, *shape[1:]), step)


_MEGATRON = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}


def read_megatron(path: str) -> tuple[np.dtype[Any], np.ndarray]:
    """Read an .idx of Megatron: the dtype of its .bin, and where its documents begin and end."""
    size = size_of(path)
    with _open(path) as file:
        head = file.read(34)
        if head[:9] != b"MMIDIDX\0\0" or len(head) < 34:
            raise ArgumentError(f"{path}: is no .idx of Megatron (MMIDIDX)")
        version, code, count, marks = struct.unpack("<QBQQ", head[9:])
        if version != 1 or code not in _MEGATRON or not count or marks < 2:
            raise ArgumentError(f"{path}: is an .idx of version {version}, dtype {code}: not read")
        if size < 34 + 12 * count + 8 * marks:
            raise ArgumentError(f"{path}: was cut off")
        lengths = np.fromfile(file, "<i4", count)
        begins = np.fromfile(file, "<i8", count)
        documents = np.fromfile(file, "<i8", marks)
    dtype = np.dtype(_MEGATRON[code])
    bounds = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if (begins != bounds[:-1] * dtype.itemsize).any():
        raise ArgumentError(f"{path}: its documents do not lie one behind the other: {CONVERT}")
    if documents[0] != 0 or documents[-1] != count or (np.diff(documents) < 0).any():
        raise ArgumentError(f"{path}: its documents are not those of its sequences")
    return dtype, bounds[documents]


def open_path(name: str, path: str) -> Place:
    """Open a file by its suffix; `name` is that of the column."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".npy":
        return open_npy(path)
    if suffix == ".npz":
        return open_npz(path, name)
    if suffix == ".wav":
        return open_wav(path)
    if suffix == ".txt":
        return open_raw(path, "uint8", (-1,), 0)
    if os.path.isdir(path):
        raise ArgumentError(f"{path}: is a directory: name the files in it, {path.rstrip('/')}/*")
    raise ArgumentError(
        f"{path}: .npy, .npz, .wav and .txt are read where they lie, and other files as "
        f"segue.Raw(path, dtype, shape); of what is compressed or encoded, {CONVERT}",
    )


# ---- Arrays that lie in files ----


def _root(array: np.ndarray) -> np.memmap[Any, Any] | None:
    """The memory map that an array is a view of, if its bytes are those of the file."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and isinstance(base.base, mmap.mmap):
            return base if base.mode != "c" and base.filename else None
        base = base.base
    return None


def _open_map(array: np.ndarray, root: np.memmap[Any, Any]) -> Place:
    if root.mode != "r":
        root.flush()
    whole: Any = root.base
    begin = np.frombuffer(whole, np.uint8).ctypes.data
    mapped = root.offset - root.offset % mmap.ALLOCATIONGRANULARITY
    offset = array.ctypes.data - begin + mapped
    return lay(os.fspath(root.filename or ""), offset, array.dtype, array.shape, array.strides)


def _open_dataset(dataset: Any) -> Place:
    """A data set of h5py that lies in its file in one piece."""
    path = os.path.abspath(os.fsdecode(dataset.file.filename))
    offset = None if dataset.chunks or dataset.external else dataset.id.get_offset()
    if offset is None:
        raise ArgumentError(
            f"{path}: {dataset.name} is chunked, compressed or virtual: only what lies in one "
            f"piece can be read where it lies; {CONVERT}"
        )
    if dataset.file.mode != "r":
        dataset.file.flush()
    return _dense(path, offset, dataset.dtype, dataset.shape)


def open_value(name: str, value: Any) -> Place | np.ndarray:
    """Return where a column's value lies, or an array that lies only in memory."""
    if isinstance(value, (str, bytes, os.PathLike)):
        return open_path(name, os.path.abspath(os.fsdecode(value)))
    if hasattr(value, "_open"):  # a Raw
        place: Place = value._open()
        return place
    if type(value).__module__.startswith("h5py") and hasattr(value, "id"):
        return _open_dataset(value)
    try:
        array = _arrays.read(value)
    except Exception as error:
        raise ArgumentError(
            f"{name!r}: {type(value).__name__} is not an array that NumPy can read: {error}"
        ) from error
    root = _root(array)
    return array if root is None else _open_map(array, root)


# ---- Arrays in memory ----


def write(directory: str, name: str, arrays: Iterable[np.ndarray]) -> Place:
    """Write arrays one behind the other to a .npy beside the store, named by what it holds."""
    some = [np.ascontiguousarray(array) for array in arrays]
    first = some[0]
    dtype = "bfloat16" if _arrays.is_bfloat16(first) else _dtype(repr(name), first.dtype)[0]
    for i, array in enumerate(some):
        if array.dtype != first.dtype or array.shape[1:] != first.shape[1:] or not array.ndim:
            raise ArgumentError(
                f"{name!r}: its array {i} is {array.dtype} of shape {array.shape}, the first "
                f"{first.dtype} of shape {first.shape}: they must be alike"
            )
    if dtype == "bfloat16":
        some = [array.view(np.ndarray).view(np.uint16) for array in some]
    shape = (sum(len(array) for array in some), *first.shape[1:])
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head,
        {
            "descr": np.lib.format.dtype_to_descr(some[0].dtype),
            "fortran_order": False,
            "shape": shape,
        },
    )
    parts = [array.reshape(-1).view(np.uint8).data for array in some if array.size]
    content = hashlib.blake2b(head.getvalue(), digest_size=16)
    for part in parts:
        content.update(part)
    folder = os.path.join(os.path.abspath(directory), "arrays")
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:64]
    path = os.path.join(folder, f"{safe}-{content.hexdigest()}.npy")
    if not os.path.exists(path):
        _write_file(folder, path, [head.getvalue(), *parts])
    place = _dense(path, len(head.getvalue()), some[0].dtype, shape)
    return Place(path, place.offset, dtype, place.big_endian, shape, place.stride)


def _write_file(folder: str, path: str, parts: Iterable[Any]) -> None:
    """Whole or not at all, also after a power cut: its name says what it holds."""
    # Of this call alone: other threads, and containers with the same pids, may write the same.
    partial = f"{path}.{secrets.token_hex(8)}"
    try:
        os.makedirs(folder, exist_ok=True)
        with open(partial, "xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        if os.path.exists(partial):
            os.unlink(partial)
        if not isinstance(error, OSError):
            raise
        raise ArgumentError(
            f"{path}: arrays that lie only in memory are written beside the store, and that cannot "
            f"be done: {error.strerror}; numpy.save them where the server can read them, and give "
            "the path"
        ) from error
