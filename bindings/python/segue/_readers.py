"""Data files of other kinds, read as sequences: what ``python -m segue convert`` is made of.

A file is one sequence, unless it says otherwise: groups of HDF5, rows of lists in a table, lines of
JSON, runs of equal values in a column, or the lengths of sequences that lie one behind the other.
"""

from __future__ import annotations

import csv
import importlib
import itertools
import json
import os
import wave
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._convert import _bounds, _cut
from .errors import ArgumentError
from .spec import Feature, State

#: Rows of a table that are held at once.
ROWS = 65_536


@dataclass
class Example:
    """One sequence, as `segue.convert` takes it."""

    sequences: dict[str, Any]
    context: dict[str, Any]
    initial_states: dict[str, Any]
    key: str | bytes


@dataclass
class Choice:
    """What the command line says of the data."""

    key: str | None = None
    name: str | None = None  # of the array of each .npy; None: that of its file
    group_by: str | None = None
    lengths: str | None = None
    sequences: list[str] = field(default_factory=list)
    context: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)
    dtypes: dict[str, str] = field(default_factory=dict)  # "": of all that it fits


class _Drop:
    """Names that are left out, and those of them that there were."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self.met: set[str] = set()

    def __contains__(self, name: str) -> bool:
        if name in self._names:
            self.met.add(name)
        return name in self._names

    @property
    def missed(self) -> list[str]:
        """Those that there were nowhere."""
        return [name for name in self._names if name not in self.met]


def _library(path: str, module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ArgumentError(f"{path}: reading it needs {package}: pip install {package}") from error


# ---- Arrays, by name -----------------------------------------------------------------------------


def _load(path: str) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (EOFError, zipfile.BadZipFile) as error:
        raise ArgumentError(f"{path}: is damaged: {error}") from error
    except OSError:
        raise
    except Exception as error:  # a header is Python, and of a damaged one NumPy raises anything
        raise ArgumentError(f"{path}: is no array that can be read: {error}") from error


def _read_npy(path: str) -> dict[str, Any]:
    return {os.path.splitext(os.path.basename(path))[0]: _load(path)}


def _read_npz(path: str) -> dict[str, Any]:
    with _load(path) as file:
        try:
            return {name: file[name] for name in file.files}
        except (ValueError, zipfile.BadZipFile) as error:
            raise ArgumentError(f"{path}: is no array that can be read: {error}") from error


def _read_wav(path: str) -> dict[str, Any]:
    try:
        with wave.open(path, "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ArgumentError(f"{path}: is no WAV file of PCM samples: {error}") from error
    if width == 3:
        raw = np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.int32)
        samples = (raw[:, 0] | raw[:, 1] << 8 | raw[:, 2] << 16) << 8 >> 8
    elif width in (1, 2, 4):
        samples = np.frombuffer(data, {1: "u1", 2: "<i2", 4: "<i4"}[width])
    else:
        raise ArgumentError(f"{path}: has samples of {8 * width} bits; 8, 16, 24 and 32 are read")
    audio = samples if channels == 1 else samples.reshape(-1, channels)
    return {"audio": audio, "rate": np.int64(rate)}


def _read_hdf5(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The data sets of the file, or of each of its groups."""
    h5py = _library(path, "h5py", "h5py")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ArgumentError(f"{path}: is no HDF5 file that can be read: {error}") from error
    with file:
        groups = {name: node for name, node in file.items() if isinstance(node, h5py.Group)}
        arrays = {name: node for name, node in file.items() if isinstance(node, h5py.Dataset)}
        if groups and arrays:
            raise ArgumentError(
                f"{path}: has both groups and data sets at its top: which is a " "sequence?"
            )
        for name, group in groups.items():
            if any(isinstance(node, h5py.Group) for node in group.values()):
                raise ArgumentError(f"{path}: group {name!r} holds groups; one level is read")
            yield f":{name}", {name: node[()] for name, node in group.items()}
        if arrays:
            yield "", {name: node[()] for name, node in arrays.items()}


# ---- Tables: rows of values, or of lists ---------------------------------------------------------

Columns = dict[str, Any]  # a NumPy array, or a list of texts or of lists


def _arrow_column(path: str, name: str, column: Any) -> Any:
    types = importlib.import_module("pyarrow").types
    column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    kind = column.type
    if types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if column.null_count:
        raise ArgumentError(
            f"{path}: column {name!r} has missing values (nulls): fill them, or leave it " "out"
        )
    if types.is_fixed_size_list(kind):
        inner = _arrow_column(path, name, column.flatten())
        return inner.reshape(len(column), kind.list_size, *inner.shape[1:])
    if types.is_list(kind) or types.is_large_list(kind):
        inner = _arrow_column(path, name, column.flatten())
        lengths = importlib.import_module("pyarrow.compute").list_value_length(column).to_numpy()
        edges = np.concatenate([[0], np.cumsum(lengths)]).tolist()
        return [inner[begin:end] for begin, end in itertools.pairwise(edges)]
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind):
        return column.to_pylist()
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        return column.to_numpy(zero_copy_only=False)
    raise ArgumentError(
        f"{path}: column {name!r} is of type {kind}, which a sequence file cannot " "hold"
    )


def _arrow_tables(path: str, batches: Iterable[Any], drop: _Drop) -> Iterator[Columns]:
    for batch in batches:
        yield {
            name: _arrow_column(path, name, batch.column(number))
            for number, name in enumerate(batch.schema.names)
            if name not in drop
        }


def _read_parquet(path: str, drop: _Drop) -> Iterator[Columns]:
    parquet = _library(path, "pyarrow.parquet", "pyarrow")
    try:
        with parquet.ParquetFile(path) as file:
            yield from _arrow_tables(path, file.iter_batches(ROWS), drop)
    except (OSError, importlib.import_module("pyarrow").ArrowInvalid) as error:
        raise ArgumentError(f"{path}: is no Parquet file that can be read: {error}") from error


def _read_arrow(path: str, drop: _Drop) -> Iterator[Columns]:
    """A file of Arrow (Feather), or a stream, by its first bytes."""
    arrow = _library(path, "pyarrow", "pyarrow")
    ipc = importlib.import_module("pyarrow.ipc")
    try:
        with arrow.memory_map(path) as source:
            if source.read(6) == b"ARROW1":
                reader = ipc.open_file(source)
                batches = (reader.get_batch(n) for n in range(reader.num_record_batches))
                yield from _arrow_tables(path, batches, drop)
                return
            source.seek(0)
            yield from _arrow_tables(path, ipc.open_stream(source), drop)
    except (OSError, arrow.ArrowInvalid) as error:
        raise ArgumentError(f"{path}: is no Arrow file that can be read: {error}") from error


def _numbers(path: str, name: str, texts: list[str]) -> Any:
    """A column of a text file: whole numbers, or numbers, or what it is."""
    given = [text for text in texts if text.strip()]
    for kind in (np.int64, np.float64):
        try:
            numbers = np.array(given, kind)
        except (ValueError, OverflowError):
            continue
        if not given or len(given) == len(texts):
            return numbers if given else texts
        row = next(row for row, text in enumerate(texts) if not text.strip())
        raise ArgumentError(
            f"{path}: column {name!r} has missing values (row {row}): fill them, or leave it out"
        )
    return texts


def _read_csv(path: str, drop: _Drop) -> Iterator[Columns]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        try:
            rows = csv.reader(file)
            names = next(rows, [])
            found: list[list[str]] = [row for row in rows if row]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ArgumentError(f"{path}: is no table as text: {error}") from error
    if len(set(names)) != len(names) or not names:
        raise ArgumentError(f"{path}: the first line has to name the columns, each once")
    for number, row in enumerate(found):
        if len(row) != len(names):
            raise ArgumentError(
                f"{path}: row {number} has {len(row)} values, and there are {len(names)} " "columns"
            )
    columns = {name: [row[place] for row in found] for place, name in enumerate(names)}
    yield {
        name: _numbers(path, name, column)
        for name, column in columns.items()
        if name not in drop
    }


def _read_lines(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of JSON lines, and their numbers."""
    with open(path, "rb") as file:
        for number, line in enumerate(file):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                raise ArgumentError(f"{path}: line {number + 1} is no JSON: {error}") from error
            if not isinstance(value, dict):
                raise ArgumentError(f"{path}: line {number + 1} is no object")
            yield number, value


def _json_array(path: str, line: int, name: str, value: Any) -> Any:
    if _is_text(value) and all(isinstance(text, str) for text in value):
        return value
    try:
        array = np.array(value)
    except ValueError:
        array = np.array(None)
    if array.dtype.kind not in "biuf":
        raise ArgumentError(
            f"{path}: line {line + 1}: {name!r} is neither a number nor lists of numbers alike: "
            "--drop it, or give it to segue.convert, as segue.Feature(dtype, ragged=True) if "
            "steps have different numbers of values"
        )
    return array


def _read_jsonl_rows(path: str, drop: _Drop) -> Iterator[Columns]:
    """Lines that are steps, as tables."""
    lines = _read_lines(path)
    while chunk := list(itertools.islice(lines, ROWS)):
        names = [name for name in chunk[0][1] if name not in drop]
        columns: Columns = {}
        for name in names:
            values = []
            for number, line in chunk:
                if name not in line:
                    raise ArgumentError(
                        f"{path}: line {number + 1} has no {name!r}, which the first line " "has"
                    )
                values.append(_json_array(path, number, name, line[name]))
            try:
                text = isinstance(values[0], str)
                columns[name] = [str(value) for value in values] if text else np.stack(values)
            except ValueError:
                raise ArgumentError(f"{path}: {name!r} has not the same shape in each line")
        yield columns


# ---- Sequences -----------------------------------------------------------------------------------


def _narrow(where: str, value: Any, dtype: str) -> Any:
    """An array of another dtype, if nothing is lost but digits of floats."""
    array = np.asarray(value)
    kind = np.dtype(dtype)
    if array.dtype == kind:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(kind)
    if array.dtype.kind == "f" and kind.kind == "f":
        fits = bool((np.isfinite(cast) == np.isfinite(array)).all())
    else:
        fits = bool((cast.astype(array.dtype) == array).all() and (cast == array).all())
    if not fits:
        raise ArgumentError(f"{where}: has values that {dtype} cannot hold")
    return cast


def _dtype_for(choice: Choice, name: str, array: np.ndarray) -> str | None:
    """The dtype that was asked for: by name, else the one for all, of arrays of its kind."""
    if name in choice.dtypes:
        return choice.dtypes[name]
    general = choice.dtypes.get("")
    kinds = ("f", "iu", "b")
    if general and any(
        np.dtype(general).kind in kind and array.dtype.kind in kind for kind in kinds
    ):
        return general
    return None


class Reader:
    """The sequences of files, in their order."""

    def __init__(self, paths: list[str], choice: Choice) -> None:
        self.paths = paths
        self.choice = choice
        self.left_out = _Drop(choice.drop)
        self._checked = False

    def __iter__(self) -> Iterator[Example]:
        names = _names(self.paths)
        if self.choice.lengths is not None:
            yield from self._cut(names)
            return
        for path, name in zip(self.paths, names, strict=True):
            yield from self._of_file(path, name)

    # -- By the kind of file --

    def _of_file(self, path: str, name: str) -> Iterator[Example]:
        kind = kind_of(path)
        if kind in _ARRAYS:
            self._no_group_by(path)
            arrays = _ARRAYS[kind](path)
            if kind == "npy" and self.choice.name is not None:
                arrays = {self.choice.name: array for array in arrays.values()}
            yield self._example(path, name, arrays)
        elif kind == "hdf5":
            self._no_group_by(path)
            for part, arrays in _read_hdf5(path):
                yield self._example(path + part, name + part, arrays)
        elif kind == "jsonl" and self.choice.group_by is None:
            for number, line in _read_lines(path):
                values = {
                    key: _json_array(path, number, key, value)
                    for key, value in line.items()
                    if key not in self.left_out
                }
                yield self._example(f"{path}: line {number + 1}", f"{name}:{number}", values)
        else:
            yield from self._of_tables(path, name, _TABLES[kind](path, self.left_out))

    def _no_group_by(self, path: str) -> None:
        if self.choice.group_by is not None:
            raise ArgumentError(f"{path}: --group-by is for tables; --lengths cuts arrays")

    def _of_tables(self, path: str, name: str, tables: Iterator[Columns]) -> Iterator[Example]:
        if self.choice.group_by is not None:
            yield from self._runs(path, name, tables)
            return
        first = next(tables, None)
        if first is None:
            raise ArgumentError(f"{path}: has no rows")
        if any(
            isinstance(column, list) and _is_list_of_arrays(column) for column in first.values()
        ):
            number = 0
            for columns in itertools.chain([first], tables):
                for row in zip(*columns.values(), strict=True):
                    values = dict(zip(columns, row, strict=True))
                    yield self._example(f"{path}: row {number}", f"{name}:{number}", values)
                    number += 1
            return
        yield self._example(path, name, _joined([first, *tables]))

    def _runs(self, path: str, name: str, tables: Iterator[Columns]) -> Iterator[Example]:
        """Runs of equal keys; a key that comes again would be two sequences of one name."""
        seen: set[Any] = set()
        parts: list[Columns] = []
        last: Any = None
        row = 0
        for columns in tables:
            for begin, end, key in self._runs_of(path, columns):
                if parts and key != last:
                    yield self._run(path, last, parts)
                    parts = []
                if not parts and key in seen:
                    raise ArgumentError(
                        f"{path}: row {row + begin} has the key {key!r}, whose run has ended "
                        f"before: sort the table by {self.choice.group_by!r}"
                    )
                seen.add(key)
                last = key
                parts.append({name: column[begin:end] for name, column in columns.items()})
            row += max((len(column) for column in columns.values()), default=0)
        if parts:
            yield self._run(path, last, parts)

    def _runs_of(self, path: str, columns: Columns) -> Iterator[tuple[int, int, Any]]:
        group_by = self.choice.group_by
        assert group_by is not None
        if group_by not in columns:
            raise ArgumentError(
                f"{path}: has no column {group_by!r}; it has " f"{', '.join(map(repr, columns))}"
            )
        keys = columns[group_by]
        keys = keys.tolist() if isinstance(keys, np.ndarray) else keys
        begin = 0
        for at in range(1, len(keys) + 1):
            if at == len(keys) or keys[at] != keys[begin]:
                yield begin, at, keys[begin]
                begin = at

    def _run(self, path: str, key: Any, parts: list[Columns]) -> Example:
        choice, columns = self.choice, _joined(parts)
        if choice.key is None:
            del columns[choice.group_by or ""]
        once = [*choice.context, *choice.states, *([choice.key] if choice.key else [])]
        for name in [name for name in once if name in columns]:
            column = columns[name]
            if any(not np.array_equal(value, column[0]) for value in column):
                raise ArgumentError(
                    f"{path}: {name!r} changes within the run of {key!r}: it has one value a "
                    "sequence"
                )
            columns[name] = column[0]
        text = os.fsdecode(key) if isinstance(key, bytes) else str(key)
        return self._example(f"{path}: {text!r}", text, columns)

    # -- Arrays of all sequences, one behind the other --

    def _cut(self, names: list[str]) -> Iterator[Example]:
        columns: Columns = {}
        for path in self.paths:
            kind = kind_of(path)
            if kind not in ("npy", "npz"):
                raise ArgumentError(
                    f"{path}: --lengths is for .npy and .npz; --group-by cuts " "tables"
                )
            for name, array in _ARRAYS[kind](path).items():
                if name in columns:
                    raise ArgumentError(f"{path}: has {name!r}, which a file before has, too")
                columns[name] = array
        given = self.choice.lengths or ""
        lengths = columns.pop(given) if given in columns else self._load_lengths(given, columns)
        columns = {name: array for name, array in columns.items() if name not in self.left_out}
        context = [*self.choice.context, *self.choice.states]
        items, _ = _cut(columns, _bounds(lengths, None), context)
        for number, item in enumerate(items):
            name = f"{names[0]}:{number}"
            yield self._example(f"sequence {number}", name, item, set(context))

    def _load_lengths(self, given: str, columns: Columns) -> Any:
        if not os.path.exists(given):
            have = ", ".join(map(repr, columns))
            raise ArgumentError(
                f"--lengths: {given!r} is neither a file nor an array; there are " f"{have}"
            )
        return _load(given)

    # -- An example --

    def _example(
        self, where: str, name: str, values: Mapping[str, Any], context: set[str] | None = None
    ) -> Example:
        choice = self.choice
        key: Any = name
        if choice.key is not None:
            if choice.key not in values:
                have = ", ".join(map(repr, values))
                raise ArgumentError(f"{where}: --key: there is no {choice.key!r}; it has {have}")
            key = values[choice.key]
            key = key if isinstance(key, (str, bytes)) else str(np.asarray(key)[()])
        if not self._checked:
            self._check_names(where, values)
        example = Example({}, {}, {}, key)
        for one, value in values.items():
            if one == choice.key or one in self.left_out:
                continue
            place = self._place(one, value, context or set())
            if place is not None:
                place(example)[one] = self._value(f"{where}: {one!r}", one, value)
        if not example.sequences:
            raise ArgumentError(f"{where}: has no array of steps")
        return example

    def _check_names(self, where: str, values: Mapping[str, Any]) -> None:
        """Refuse names in options that the first sequence does not have: others have the same."""
        choice = self.choice
        for option, names in (
            ("sequences", choice.sequences),
            ("context", choice.context),
            ("states", choice.states),
            ("dtype", [name for name in choice.dtypes if name]),
        ):
            for name in names:
                if name not in values and name not in (choice.key, choice.group_by):
                    have = ", ".join(map(repr, values))
                    raise ArgumentError(f"{where}: --{option}: there is no {name!r}; it has {have}")
        self._checked = True

    def _place(
        self, name: str, value: Any, context: set[str]
    ) -> Callable[[Example], dict[str, Any]] | None:
        choice = self.choice
        if name in choice.states:
            return lambda example: example.initial_states
        if name in choice.context or (name in context and not choice.context):
            return lambda example: example.context
        if name in choice.sequences:
            return lambda example: example.sequences
        if np.ndim(value) == 0 or name in context:
            return None if choice.context else lambda example: example.context
        return None if choice.sequences else lambda example: example.sequences

    def _value(self, where: str, name: str, value: Any) -> Any:
        if _is_text(value):
            return value
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise ArgumentError(f"{where} has dtype {array.dtype}: --drop it")
        dtype = _dtype_for(self.choice, name, array)
        return np.asarray(array if dtype is None else _narrow(where, array, dtype))


def _is_text(value: Any) -> bool:
    """Whether it is a text, or a list with one a step: features of bytes."""
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], (str, bytes))
    return isinstance(value, (str, bytes))


def declared(example: Example) -> dict[str, Any]:
    """What `segue.convert` is told of features and states, by the first sequence."""

    def feature(value: Any, steps: bool) -> Feature:
        if _is_text(value):
            return Feature("bytes")
        return Feature(value.dtype, value.shape[1:] if steps else value.shape)

    return {
        "sequences": {name: feature(value, True) for name, value in example.sequences.items()},
        "context": {name: feature(value, False) for name, value in example.context.items()},
        "states": {
            name: State(value.dtype, value.shape) for name, value in example.initial_states.items()
        },
    }


def alike(first: Example, others: Iterable[Example]) -> Iterator[Example]:
    """Refuse what has more than the first: it would be lost."""
    known = {**first.sequences, **first.context, **first.initial_states}
    for example in others:
        values = {**example.sequences, **example.context, **example.initial_states}
        more = values.keys() - known.keys()
        if more:
            names = ", ".join(map(repr, sorted(more)))
            raise ArgumentError(
                f"sequence {example.key!r} has {names}, which the first one has not: --drop it"
            )
        for name, value in values.items():
            _check_dtype(example, name, value, known[name])
        yield example


def _check_dtype(example: Example, name: str, value: Any, first: Any) -> None:
    """Say what to do where numbers are whole in one sequence and not in another."""
    if _is_text(value) or _is_text(first) or value.dtype == first.dtype:
        return
    raise ArgumentError(
        f"sequence {example.key!r} has {name!r} as {value.dtype}, the first one as {first.dtype}: "
        f"give --dtype {name}={np.result_type(value, first)}"
    )


def _is_list_of_arrays(column: list[Any]) -> bool:
    return bool(column) and not isinstance(column[0], (str, bytes))


def _joined(parts: list[Columns]) -> Columns:
    """Tables with the same columns, as one."""
    if len(parts) == 1:
        return dict(parts[0])
    columns: Columns = {}
    for name, column in parts[0].items():
        pieces = [part[name] for part in parts]
        if isinstance(column, list):
            columns[name] = [value for piece in pieces for value in piece]
        else:
            columns[name] = np.concatenate(pieces)
    return columns


def _names(paths: list[str]) -> list[str]:
    """What files are called in keys: without the directory that all have."""
    if len(paths) == 1:
        return [os.path.basename(paths[0])]
    whole = [os.path.abspath(path) for path in paths]
    common = os.path.commonpath([os.path.dirname(path) for path in whole])
    return [os.path.relpath(path, common) for path in whole]


_ARRAYS: dict[str, Callable[[str], dict[str, Any]]] = {
    "npy": _read_npy,
    "npz": _read_npz,
    "wav": _read_wav,
}
_TABLES: dict[str, Callable[[str, _Drop], Iterator[Columns]]] = {
    "parquet": _read_parquet,
    "arrow": _read_arrow,
    "csv": _read_csv,
    "jsonl": _read_jsonl_rows,
}
#: The kind of a file by the ending of its name.
KINDS = {
    ".npy": "npy",
    ".npz": "npz",
    ".wav": "wav",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".csv": "csv",
    ".jsonl": "jsonl",
}


def kind_of(path: str) -> str:
    """Return the kind of a file; ArgumentError lists those that are read."""
    ending = os.path.splitext(path)[1].lower()
    if os.path.isdir(path):
        raise ArgumentError(f"{path}: is a directory: name the files in it, {path.rstrip('/')}/*")
    if ending not in KINDS:
        raise ArgumentError(
            f"{path}: is of no kind that is read ({' '.join(KINDS)}): read it in Python, and give "
            "the arrays to segue.convert",
        )
    return KINDS[ending]
