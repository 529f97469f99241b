"""Arrays where they lie: `Arrays`, a source of files that need not be converted, and `Raw`."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from . import _places, _segue
from ._convert import _bounds
from ._places import Place
from .errors import ArgumentError
from .spec import Feature, Index, Source, _options, _whole, path_bytes

STEPS_MAX = 2**32 - 1
_PATHS = (str, bytes, os.PathLike)

# As struct segue_array and struct segue_array_sequence of segue.h are.
_ARRAY = np.dtype(
    {
        "names": ["size", "offset", "stride", "file", "dtype", "big_endian"],
        "formats": ["<u8", "<u8", "<u8", "<u4", "<u4", "?"],
        "offsets": [0, 8, 16, 24, 28, 32],
        "itemsize": 40,
    }
)
_Row = tuple[int, int, int, int, int, bool]  # an item of _ARRAY
_SEQUENCE = np.dtype([("first", "<u8"), ("group", "<u4"), ("steps", "<u4")])


@dataclass(frozen=True)
class Raw:
    """An array in a file without a header that says what it is: a column of `Arrays`.

    Parameters
    ----------
    path : path
        The file; in `Arrays` also a pattern.
    dtype : str or numpy.dtype
        As it lies in the file; ``">i2"`` is big-endian.
    shape : int or tuple of int, optional
        ``(steps, ...)``; -1 steps: as many as there are bytes for. By default ``(-1,)``.
    offset : int
        Bytes of the file before the array.

    Raises
    ------
    ArgumentError
        A dtype or shape that is not possible.
    """

    path: str
    dtype: Any
    shape: tuple[int, ...]
    offset: int

    def __init__(self, path: Any, dtype: Any = "uint8", shape: Any = -1, offset: int = 0) -> None:
        try:
            dtype = np.dtype(dtype)
        except TypeError:
            pass  # one that NumPy does not know: bfloat16
        single = hasattr(shape, "__index__") or not isinstance(shape, Iterable)
        dims: tuple[Any, ...] = (shape,) if single else tuple(shape)
        whole = dims and all(hasattr(dim, "__index__") for dim in dims)
        if not whole or dims[0] < -1 or any(dim < 1 for dim in dims[1:]):
            raise ArgumentError(f"Raw.shape: {shape!r} is none: (steps, ...), steps may be -1")
        offset = _whole("Raw.offset", offset, 0, 2**62)
        name = os.path.abspath(os.fsdecode(path_bytes("Raw.path", path)))
        _places._dtype(name, dtype)
        object.__setattr__(self, "path", name)
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "shape", tuple(int(dim) for dim in dims))
        object.__setattr__(self, "offset", offset)

    def _open(self) -> Place:
        return _places.open_raw(self.path, self.dtype, self.shape, self.offset)


# ---- What is given ----


def _match(field: str, path: str) -> list[str]:
    """The files that a pattern stands for, sorted by name; a file is itself."""
    if os.path.exists(path) or not glob.has_magic(path):
        return [path]
    found = sorted(glob.glob(path, recursive=True))
    if not found:
        raise ArgumentError(f"{field}: {path}: nothing matches it")
    return found


def _items(name: str, value: Any) -> list[Any] | None:
    """One thing for each sequence, where a column names files or is a list of arrays."""
    field = f"Arrays[{name!r}]"
    if isinstance(value, Raw):
        return [
            Raw(path, value.dtype, value.shape, value.offset) for path in _match(field, value.path)
        ]
    if isinstance(value, _PATHS):
        return list(_match(field, os.path.abspath(os.fsdecode(path_bytes(field, value)))))
    if not isinstance(value, (list, tuple)) or not value:
        return None
    return None if all(map(_is_number, value)) else list(value)


def _is_number(item: Any) -> bool:
    return isinstance(item, (bool, int, float, np.generic)) or getattr(item, "shape", None) == ()


class _Files:
    """The files of an index, each once."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {}

    def row(self, place: Place, skip: int = 0) -> _Row:
        """Return a place, from its value `skip` on, as an item of the index."""
        number = self.number.setdefault(place.path, len(self.number))
        offset = place.offset + skip * place.stride
        dtype = _segue.DTYPES[place.dtype]
        return _ARRAY.itemsize, offset, place.stride, number, dtype, place.big_endian


def _check_shape(place: Any, name: str, feature: Feature, shape: tuple[int, ...]) -> None:
    if shape != feature.shape:
        raise ArgumentError(
            f"{place}: {name!r} has values of shape {shape}, the stream declares {feature.shape}: "
            f"give its Feature the shape {[*shape]}"
        )


def _check_columns(columns: Any) -> None:
    if not isinstance(columns, Mapping):
        raise ArgumentError(
            f"columns: expected a mapping of names to files or arrays, such as "
            f"{{'x': 'train/*.npy'}}, got {columns!r}"
        )


# ---- Keys and bounds ----


def _key(place: str, value: Any) -> bytes:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    if not isinstance(value, bytes):
        raise ArgumentError(f"{place}: {value!r} is no key: expected text, bytes or a whole number")
    if not 0 < len(value) <= 4096:
        raise ArgumentError(f"{place}: {value!r} is no key: 1 to 4096 bytes are allowed")
    return value


def _names(names: Any, count: int) -> list[bytes] | None:
    if names is None:
        return None
    if not isinstance(names, Iterable):
        raise ArgumentError(f"names: expected a key for each sequence, got {names!r}")
    keys = [_key(f"names[{i}]", name) for i, name in enumerate(names)]
    if len(keys) != count:
        raise ArgumentError(f"names: {len(keys)} keys of {count} sequences")
    return keys


def _runs(keys: Any) -> tuple[np.ndarray, list[bytes]]:
    """Return where runs of equal keys begin and end, and their keys, each of which comes once."""
    if isinstance(keys, _PATHS):
        path = os.fsdecode(path_bytes("keys", keys))
        try:
            keys = np.lib.format.open_memmap(path, mode="r")
        except Exception as error:  # of a damaged header NumPy raises anything
            raise ArgumentError(f"keys: {path}: is no .npy that can be read: {error}") from error
    rows = np.asarray(keys)
    if rows.ndim != 1 or not len(rows):
        raise ArgumentError(f"keys: expected a key for each row, got shape {rows.shape}")
    first = np.concatenate([[0], np.flatnonzero(rows[1:] != rows[:-1]) + 1])
    texts = [_key(f"keys: row {row}", value) for row, value in zip(first, rows[first])]
    seen: dict[bytes, int] = {}
    for row, text in zip(first.tolist(), texts):
        if text in seen:
            raise ArgumentError(
                f"keys: row {row}: key {text.decode('utf-8', 'replace')!r} comes again; its rows "
                f"began at row {seen[text]}: sort the table by its keys, or give offsets="
            )
        seen[text] = row
    return np.concatenate([first, [len(rows)]]), texts


def _check_steps(what: str, steps: int) -> None:
    if not 0 < steps <= STEPS_MAX:
        problem = "no steps: leave it out" if not steps else f"{steps} steps: cut it"
        raise ArgumentError(f"{what}: has {problem} (a sequence has 1 to {STEPS_MAX})")


# ---- The source ----


class Arrays(Source):
    """Arrays that lie in files, uncompressed, and are read where they lie.

    One file a sequence; for one table of all sequences see `from_columns`.

    A column is one of

    - a file, a list of files, or a pattern (then in the order of their names), one a sequence:
      ``.npy``; ``.npz`` as `numpy.savez` writes it, in which the array has the column's name;
      ``.wav`` of PCM (``[frames]``, or ``[frames, channels]``); ``.txt``, as uint8; of other files
      a `Raw` says what they hold;
    - a list of arrays, one a sequence: ``numpy.load(..., mmap_mode="r")`` and contiguous data sets
      of h5py are read where they lie; what lies only in memory is written to
      ``<store>/arrays``, under a name that is made of what it holds;
    - for a context feature: one array, or a list of numbers, with a value for each sequence.

    A feature may have a wider dtype than its arrays, if that loses nothing: float32 of int16. The
    arrays may be big-endian, and their steps may lie apart. Nothing of the values is read before a
    batch needs them: that a byte of a bool array is neither 0 nor 1 is an error of that batch.

    Parameters
    ----------
    columns : mapping of str to path, Raw, or a list of them or of arrays
        What each feature is read from.
    names : sequence of str, bytes or int, optional
        The key of each sequence; by default ``"<file>:<first step>"``.
    checksum : bool
        Whether all bytes of the files get checksums when the stream is made, and each read is
        checked. Else a change of a file is seen if its size changes, or one of 64 blocks of 4 KiB.

    Raises
    ------
    ArgumentError
        A file that is not there, or whose arrays do not lie in it as they are in memory; names it,
        and the way out.

    Examples
    --------
    ::

        segue.Arrays({"x": "train/*.npy", "label": [3, 1, 4]})
        segue.Arrays({"audio": "speech/**/*.wav"})
        segue.Arrays({"events": segue.Raw("data/*.dat", "int16", (-1, 4))})
    """

    _kind: ClassVar[str] = "arrays"

    def __init__(
        self, columns: Mapping[str, Any], *, names: Any = None, checksum: bool = False
    ) -> None:
        _check_columns(columns)
        items = {name: _items(name, value) for name, value in columns.items()}
        counts = {name: len(some) for name, some in items.items() if some is not None}
        if not counts:
            raise ArgumentError(
                "Arrays: no column has a file or an array for each sequence; of a table of all "
                "sequences make segue.Arrays.from_columns(columns, lengths=...), of an array "
                "[sequences, steps, ...] a list: list(array)"
            )
        # One file may hold a value for each sequence, of a context feature.
        if len({count for count in counts.values() if count > 1}) > 1:
            lengths = ", ".join(f"{name!r} {count}" for name, count in counts.items())
            raise ArgumentError(f"Arrays: columns of different lengths, in sequences: {lengths}")
        self._columns = dict(columns)
        self._items = items
        self._count = max(counts.values())
        self._bounds: np.ndarray | None = None
        self._keys = _names(names, self._count)
        self.checksum = bool(checksum)

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, Any],
        *,
        lengths: Any = None,
        offsets: Any = None,
        keys: Any = None,
        names: Any = None,
        checksum: bool = False,
    ) -> Arrays:
        """Return a source of one table: arrays that hold all sequences, one behind the other.

        Parameters
        ----------
        columns : mapping of str to path, Raw or array
            ``[all steps, *shape]`` of each sequence feature, ``[sequences, *shape]`` of each
            context feature; see `Arrays`.
        lengths, offsets, keys : array_like, one of them
            Steps of each of *n* sequences; or the *n* + 1 places where they begin and the last
            ends; or the key of each row: rows with one key, one behind the other, are a sequence.
            Keys may also be the path of a ``.npy``.
        names : sequence of str, bytes or int, optional
            The key of each sequence; not with `keys`.
        checksum : bool
            As of `Arrays`.

        Raises
        ------
        ArgumentError
            Also a key that comes again in a later row, which it names.

        Examples
        --------
        ::

            segue.Arrays.from_columns({"x": "table.npy"}, lengths=steps_of_each)
            segue.Arrays.from_columns({"x": table, "y": targets}, keys=patient)
        """
        _check_columns(columns)
        if (keys is not None) + (lengths is not None) + (offsets is not None) != 1:
            raise ArgumentError("lengths, offsets, keys: give one of them")
        if keys is not None and names is not None:
            raise ArgumentError("keys, names: give one of them")
        bounds, texts = _runs(keys) if keys is not None else (_bounds(lengths, offsets), None)
        if len(bounds) < 2:
            raise ArgumentError("lengths: there are no sequences")
        for number in np.flatnonzero(np.diff(bounds) > STEPS_MAX)[:1]:
            _check_steps(f"sequence {number}", int(bounds[number + 1] - bounds[number]))
        self = cls.__new__(cls)
        self._columns = dict(columns)
        self._items = {}
        self._count = len(bounds) - 1
        self._bounds = bounds
        self._keys = texts if texts is not None else _names(names, self._count)
        self.checksum = bool(checksum)
        return self

    @classmethod
    def from_megatron(
        cls, prefix: str | os.PathLike[str], name: str = "tokens", *, checksum: bool = False
    ) -> Arrays:
        """Return a source of the tokens in ``<prefix>.bin`` and ``<prefix>.idx``.

        That is what Megatron's ``preprocess_data.py`` writes. A document is a sequence, and `name`
        the feature of its tokens; their dtype is that of the files.

        Raises
        ------
        ArgumentError
            Files that are none such, or documents that do not lie in one piece.
        """
        path = os.path.abspath(os.fsdecode(path_bytes("prefix", prefix)))
        dtype, bounds = _places.read_megatron(path + ".idx")
        tokens = _places.open_raw(path + ".bin", dtype, (-1,), 0).shape[0]
        if tokens != bounds[-1]:
            raise ArgumentError(f"{path}.bin: has {tokens} tokens, its .idx says {bounds[-1]}")
        return cls.from_columns(
            {name: Raw(path + ".bin", dtype)}, offsets=bounds, checksum=checksum
        )

    def __repr__(self) -> str:
        return f"<segue.Arrays: {', '.join(self._columns)}; {self._count} sequences>"

    def _options(self) -> dict[str, Any]:
        return _options(_segue.SOURCES["arrays"], {"checksum": self.checksum}, "Arrays.")

    # ---- The index ----

    def _column(self, name: str) -> Any:
        if name not in self._columns:
            names = ", ".join(map(repr, self._columns))
            raise ArgumentError(f"{name!r}: the arrays have no such column; they have {names}")
        return self._columns[name]

    def _table(self, directory: str, name: str) -> Place:
        """The place of an array that has a value for each step, or each sequence, of all."""
        found = _places.open_value(name, self._column(name))
        return found if isinstance(found, Place) else _places.write(directory, name, [found])

    def _each(self, directory: str, name: str, feature: Feature) -> list[tuple[Place, int, int]]:
        """Place, first value and steps of the array of each sequence."""
        self._column(name)
        items = self._items[name]
        if items is None or len(items) != self._count:
            raise ArgumentError(
                f"{name!r}: a sequence feature wants a file or an array for each sequence; of a "
                "table of all sequences make segue.Arrays.from_columns(columns, lengths=...); what a "
                "sequence has once is declared in context={...}"
            )
        found = [_places.open_value(name, item) for item in items]
        arrays = [array for array in found if not isinstance(array, Place)]
        whole = _places.write(directory, name, arrays) if arrays else None
        rows, skip = [], 0
        for i, one in enumerate(found):
            place = one if isinstance(one, Place) else whole
            assert place is not None
            where = place if isinstance(one, Place) else f"{name}[{i}]"
            _check_shape(where, name, feature, place.shape[1:])
            steps = one.shape[0]
            _check_steps(str(where), steps)
            rows.append((place, 0 if isinstance(one, Place) else skip, steps))
            skip += 0 if isinstance(one, Place) else steps
        return rows

    def _values(self, directory: str, name: str, feature: Feature) -> Place:
        """The place of a context feature: a value for each sequence."""
        items = self._items.get(name) or []
        if len(items) > 1 and any(isinstance(item, (*_PATHS, Raw)) for item in items):
            raise ArgumentError(
                f"{name!r}: a context feature wants one array with a number for each sequence; "
                "text goes into sequence files (segue.convert)"
            )
        place = self._table(directory, name)
        if place.shape[0] != self._count:
            raise ArgumentError(
                f"{name!r} has {place.shape[0]} values: expected {self._count}, one a sequence"
            )
        _check_shape(place, name, feature, place.shape[1:])
        return place

    def _settle(
        self, directory: str, sequences: Mapping[str, Feature], context: Mapping[str, Feature]
    ) -> tuple[tuple[str, ...], Index | None]:
        files = _Files()
        values = [self._values(directory, name, feature) for name, feature in context.items()]
        if self._bounds is None:
            steps, rows = self._index_each(directory, files, sequences, values)
            table = np.zeros(self._count, _SEQUENCE)
            table["group"] = np.arange(self._count)
            table["steps"] = steps
        else:
            steps, rows = self._index_table(directory, files, sequences, values, self._bounds)
            table = np.zeros(self._count, _SEQUENCE)
            table["first"] = self._bounds[:-1]
            table["steps"] = np.diff(self._bounds)
        keys, ends = None, None
        if self._keys is not None:
            keys = b"".join(self._keys)
            ends = np.cumsum([len(key) for key in self._keys], dtype=np.uint64).tobytes()
        arrays = np.array(rows, _ARRAY)
        return tuple(files.number), (
            np.array(steps, np.uint64).tobytes(),
            arrays.tobytes(),
            table.tobytes(),
            keys,
            ends,
        )

    def _index_each(
        self,
        directory: str,
        files: _Files,
        sequences: Mapping[str, Feature],
        values: Sequence[Place],
    ) -> tuple[list[int], list[_Row]]:
        """A group for each sequence: steps of each, and their arrays."""
        columns = [self._each(directory, name, feature) for name, feature in sequences.items()]
        steps: list[int] = []
        rows: list[_Row] = []
        for i, each in enumerate(zip(*columns, strict=True)):
            if len({count for _, _, count in each}) > 1:
                lengths = ", ".join(
                    f"{name!r} has {count} ({place})"
                    for name, (place, _, count) in zip(sequences, each, strict=True)
                )
                raise ArgumentError(f"sequence {i}: different numbers of steps: {lengths}")
            steps.append(each[0][2])
            rows.extend(files.row(place, first) for place, first, _ in each)
            rows.extend(files.row(place, i) for place in values)
        return steps, rows

    def _index_table(
        self,
        directory: str,
        files: _Files,
        sequences: Mapping[str, Feature],
        values: Sequence[Place],
        bounds: np.ndarray,
    ) -> tuple[list[int], list[_Row]]:
        """One group: its steps, and its arrays."""
        steps = int(bounds[-1])
        rows: list[_Row] = []
        for name, feature in sequences.items():
            place = self._table(directory, name)
            if place.shape[0] != steps:
                raise ArgumentError(
                    f"{name!r} has {place.shape[0]} values: expected {steps}, one a step"
                )
            _check_shape(place, name, feature, place.shape[1:])
            rows.append(files.row(place))
        rows.extend(files.row(place) for place in values)
        return [steps], rows
